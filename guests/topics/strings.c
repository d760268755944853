/*
 * String instructions: widths, directions, counts, repeat conditions, address size, and
 * page faults in the middle of a REP, after which the registers say how far it came and
 * the instruction goes on.
 *
 * Ref: Intel SDM vol. 2 "REP/REPE/REPZ/REPNE/REPNZ".
 */
#include "../lib/guest.h"

#define A   SCRATCH
#define B   (SCRATCH + 0x4000)
#define RWU (PTE_P | PTE_W | PTE_U)

SNIPPET(t_movsb, "rep movsb");
SNIPPET(t_movsw, "rep movsw");
SNIPPET(t_movsd, "rep movsl");
SNIPPET(t_stosb, "rep stosb");
SNIPPET(t_stosw, "rep stosw");
SNIPPET(t_stosd, "rep stosl");
SNIPPET(t_lodsb, "rep lodsb");
SNIPPET(t_lodsd, "rep lodsl");
SNIPPET(t_repe_cmpsb, "repe cmpsb");
SNIPPET(t_repne_cmpsd, "repne cmpsl");
SNIPPET(t_repe_scasd, "repe scasl");
SNIPPET(t_repne_scasb, "repne scasb");
SNIPPET(t_movsd_once, "movsl");
SNIPPET(t_fs_movsb, "rep movsb %fs:(%esi), %es:(%edi)");
SNIPPET(t_addr16, ".byte 0x67; rep stosb");

static struct context go(const void *code, uint32_t esi, uint32_t edi, uint32_t ecx, uint32_t eax,
                         uint32_t flags)
{
    struct context c = context_new(3, code);

    c.esi = esi;
    c.edi = edi;
    c.ecx = ecx;
    c.eax = eax;
    c.eflags |= flags;
    context_run(&c);
    return c;
}

static void check_registers(const char *name, const struct context *c, uint32_t esi, uint32_t edi,
                            uint32_t ecx)
{
    check_eq(name, c->esi, esi);
    check_eq(name, c->edi, edi);
    check_eq(name, c->ecx, ecx);
}

static void fill(uint32_t va, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        poke8(va + i, (uint8_t)(i * 7 + 3));
}

static void plain(void)
{
    struct context c;

    fill(A, 0x2000);
    memset((void *)B, 0, 0x2000);
    c = go(t_movsb, A, B, 0x1234, 0, 0);
    check_registers("rep_movsb", &c, A + 0x1234, B + 0x1234, 0);
    check("rep_movsb_memory", !memcmp((void *)A, (void *)B, 0x1234) && *(uint8_t *)(B + 0x1234) == 0);
    c = go(t_movsw, A + 1, B + 3, 0x300, 0, 0);
    check_registers("rep_movsw", &c, A + 1 + 0x600, B + 3 + 0x600, 0);
    check("rep_movsw_memory", !memcmp((void *)(A + 1), (void *)(B + 3), 0x600));
    c = go(t_movsd, A + 2, B + 1, 0x400, 0, 0);
    check_registers("rep_movsd_misaligned", &c, A + 2 + 0x1000, B + 1 + 0x1000, 0);
    check("rep_movsd_misaligned_memory", !memcmp((void *)(A + 2), (void *)(B + 1), 0x1000));
    c = go(t_movsd, A + 0x1000, B + 0x1000, 0x100, 0, EFL_DF);
    check_registers("rep_movsd_backward", &c, A + 0x1000 - 0x400, B + 0x1000 - 0x400, 0);
    check("rep_movsd_backward_memory", !memcmp((void *)(A + 0xc04), (void *)(B + 0xc04), 0x400));
    c = go(t_movsb, 0x10, 0x20, 0, 0, 0);
    check_done("count_zero_touches_nothing", &c);
    check_registers("count_zero", &c, 0x10, 0x20, 0);
    c = go(t_movsd_once, A, B, 0x55, 0, 0);
    check_registers("movsd_once", &c, A + 4, B + 4, 0x55);
    c = go(t_stosb, 0, A, 0x1001, 0x11, 0);
    check_registers("rep_stosb", &c, 0, A + 0x1001, 0);
    check_eq("rep_stosb_memory", peek(A + 0xffd), 0x11111111);
    c = go(t_stosw, 0, A + 1, 0x801, 0x2233, 0);
    check_eq("rep_stosw_memory", peek(A + 1 + 0x1000 - 2), 0x22332233);
    c = go(t_stosd, 0, A + 3, 0x402, 0x44556677, 0);
    check_eq("rep_stosd_memory", peek(A + 3 + 0x1000), 0x44556677);
    fill(A, 0x100);
    c = go(t_lodsb, A, 0, 0x20, 0xffffff00, 0);
    check_registers("rep_lodsb", &c, A + 0x20, 0, 0);
    check_eq("rep_lodsb_al", c.eax, 0xffffff00u | (uint8_t)(0x1f * 7 + 3));
    /* overlap: each byte goes on to the next */
    poke8(A, 0x99);
    c = go(t_movsb, A, A + 1, 0x1800, 0, 0);
    check_eq("overlap_spreads_a_byte", peek(A + 0x17fd), 0x99999999);
    /* overlap by less than a dword */
    fill(A, 0x40);
    c = go(t_movsd, A, A + 2, 4, 0, 0);
    {
        uint8_t want[0x40];

        for (uint32_t i = 0; i < 0x40; i++)
            want[i] = (uint8_t)(i * 7 + 3);
        for (uint32_t i = 0; i < 4; i++) {
            uint8_t t[4];

            memcpy(t, want + 4 * i, 4);
            memcpy(want + 4 * i + 2, t, 4);
        }
        check("overlap_within_a_dword", !memcmp(want, (void *)A, 0x40));
    }
}

static void conditions(void)
{
    struct context c;

    fill(A, 0x400);
    fill(B, 0x400);
    poke8(B + 0x123, 0xff);
    c = go(t_repe_cmpsb, A, B, 0x400, 0, 0);
    check_registers("repe_cmpsb_stops_after_difference", &c, A + 0x124, B + 0x124, 0x400 - 0x124);
    check_eq("repe_cmpsb_ZF", c.eflags & 0x40, 0);
    c = go(t_repe_cmpsb, A, B, 0x100, 0, 0);
    check_registers("repe_cmpsb_runs_out", &c, A + 0x100, B + 0x100, 0);
    check_eq("repe_cmpsb_runs_out_ZF", c.eflags & 0x40, 0x40);
    memset((void *)B, 0, 0x400);
    poke(B + 0x80, peek(A + 0x80));
    c = go(t_repne_cmpsd, A, B, 0x100, 0, 0);
    check_registers("repne_cmpsd_stops_after_equal", &c, A + 0x84, B + 0x84, 0x100 - 0x21);
    c = go(t_repne_scasb, 0, A, 0x400, (uint8_t)(0x40 * 7 + 3), 0);
    check_registers("repne_scasb_found", &c, 0, A + 0x41, 0x400 - 0x41);
    memset((void *)B, 0x55, 0x100);
    c = go(t_repe_scasd, 0, B, 0x41, 0x55555555, 0);
    check_registers("repe_scasd_stops", &c, 0, B + 0x104, 0);
    c = go(t_repe_cmpsb, A, B, 0, 0, 0x40 | EFL_CF);
    check_eq("count_zero_keeps_flags", c.eflags & (0x40 | EFL_CF), 0x40 | EFL_CF);
}

static void with_faults(void)
{
    struct context c;

    paging_on();
    fill(A, 0x4000);
    memset((void *)B, 0, 0x4000);
    pte_set(B + 0x1000, 0);
    c = go(t_movsb, A, B + 0xf00, 0x200, 0, 0);
    check_fault("fault_at_destination", &c, V_PF, 6);
    check_eq("fault_at_destination_cr2", c.cr2, B + 0x1000);
    check_registers("fault_at_destination_registers", &c, A + 0x100, B + 0x1000, 0x100);
    check_eq("fault_at_destination_eip", c.eip, address_of(t_movsb));
    check("fault_at_destination_memory", !memcmp((void *)A, (void *)(B + 0xf00), 0x100));
    pte_set(B + 0x1000, (B + 0x1000) | PTE_P | PTE_U);
    c = go(t_movsd, A, B + 0xf00, 0x80, 0, 0);
    check_fault("fault_at_read_only_destination", &c, V_PF, 7);
    check_registers("fault_at_read_only_registers", &c, A + 0x100, B + 0x1000, 0x40);
    pte_set(B + 0x1000, (B + 0x1000) | RWU);
    pte_set(A + 0x1000, 0);
    c = go(t_movsd, A + 0xffa, B, 0x10, 0, 0);
    check_fault("fault_at_source", &c, V_PF, 4);
    check_eq("fault_at_source_cr2", c.cr2, A + 0x1000);
    check_registers("fault_at_source_registers", &c, A + 0xffe, B + 4, 0xf);
    c = go(t_movsd, A + 0x2008, B + 0x108, 0x10, 0, EFL_DF);
    check_fault("fault_backward", &c, V_PF, 4);
    check_registers("fault_backward_registers", &c, A + 0x1ffc, B + 0x108 - 12, 0x10 - 3);
    c = go(t_stosd, 0, A + 0xff0, 0x10, 0, 0);
    check_fault("fault_of_stos", &c, V_PF, 6);
    check_registers("fault_of_stos_registers", &c, 0, A + 0x1000, 0xc);
    fill(A + 0xff0, 16);
    c = go(t_repe_scasd, 0, A + 0xff0, 0x10, peek(A + 0xff0), 0);
    check_done("scas_ends_before_the_fault", &c);
    memset((void *)(A + 0xff0), 0, 16);
    c = go(t_repe_scasd, 0, A + 0xff0, 0x10, 0, 0);
    check_fault("fault_of_scas", &c, V_PF, 4);
    check_registers("fault_of_scas_registers", &c, 0, A + 0x1000, 0xc);

    /* every page absent: the handler adds them one by one */
    for (uint32_t i = 0; i < 4; i++) {
        pte_set(A + 0x1000 * i, 0);
        pte_set(B + 0x1000 * i, 0);
    }
    pages_added = 0;
    guest_hook = add_page;
    c = go(t_movsb, A, B, 0x4000, 0, 0);
    guest_hook = NULL;
    check_done("demand_paged_movs", &c);
    check_registers("demand_paged_movs_registers", &c, A + 0x4000, B + 0x4000, 0);
    check_eq("demand_paged_movs_faults", pages_added, 8);
    check("demand_paged_movs_memory", !memcmp((void *)A, (void *)B, 0x4000));
    for (uint32_t i = 0; i < 4; i++)
        check_eq("demand_paged_D", *pte_of(B + 0x1000 * i) & (PTE_A | PTE_D), PTE_A | PTE_D);

    /* pages that are not neighbours in memory */
    pte_set(A, (A + 0x2000) | RWU);
    pte_set(A + 0x1000, A | RWU);
    c = go(t_stosd, 0, A + 0xf00, 0x80, 0x0badcafe, 0);
    pte_set(A, A | RWU);
    pte_set(A + 0x1000, (A + 0x1000) | RWU);
    check_eq("scattered_pages_first", peek(A + 0x2f00), 0x0badcafe);
    check_eq("scattered_pages_second", peek(A + 0xfc), 0x0badcafe);
    check("scattered_pages_elsewhere", peek(A + 0x1000) != 0x0badcafe);
    paging_off();
}

static void forms(void)
{
    struct context c = context_new(3, t_fs_movsb);

    guest_gdt[SEL_FREE >> 3] = DESC(A, 0xfffff, 0xf3, 0xc);
    fill(A, 0x100);
    c.fs = SEL_FREE | 3;
    c.esi = 0x10;
    c.edi = B;
    c.ecx = 0x20;
    context_run(&c);
    check("source_override", !memcmp((void *)(A + 0x10), (void *)B, 0x20));
    c = context_new(3, t_addr16);
    c.edi = 0xabc01000;
    c.ecx = 0xdef00010;
    c.eax = 0x77;
    c.es = SEL_FREE | 3; /* offset 1000h in it */
    context_run(&c);
    check_done("address_size_16", &c);
    check_eq("address_size_16_edi", c.edi, 0xabc01010);
    check_eq("address_size_16_ecx", c.ecx, 0xdef00000);
    check_eq("address_size_16_memory", peek(A + 0x100c), 0x77777777);
}

void guest_main(void)
{
    plain();
    conditions();
    with_faults();
    forms();
}
