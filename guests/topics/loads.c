/*
 * Loads of segment registers and what LAR, LSL, VERR, VERW and ARPL say: every type of
 * descriptor, with every DPL, RPL and CPL, present and not, against the rules of the
 * manual; descriptor tables and their limits; the accessed bit.
 *
 * Ref: Intel SDM vol. 3A, ch. "Protection"; vol. 2, MOV, LDS, LAR, LSL, VERR, VERW, ARPL.
 */
#include "../lib/guest.h"

#define SEL(n) (SEL_FREE + 8 * (n))
#define CODE1  SEL(0)
#define DATA1  SEL(1)
#define CODE2  SEL(2)
#define DATA2  SEL(3)
#define UNDER  SEL(4)
#define TI     4u

/* EAX: the selector */
SNIPPET(d_mov_ds, "mov %eax, %ds; mov %ds, %ecx");
SNIPPET(d_mov_es, "mov %eax, %es; mov %es, %ecx");
SNIPPET(d_mov_fs, "mov %eax, %fs; mov %fs, %ecx");
SNIPPET(d_mov_gs, "mov %eax, %gs; mov %gs, %ecx");
SNIPPET(d_pop_ds, "push %eax; d_pop_1: pop %ds; mov %ds, %ecx");
SNIPPET(d_pop_gs, "push %eax; pop %gs; mov %gs, %ecx");
SNIPPET(d_les, "push %eax; push $0x12345678; les (%esp), %ebx; add $8, %esp; mov %es, %ecx");
SNIPPET(d_lfs, "push %eax; push $0x12345678; lfs (%esp), %ebx; add $8, %esp; mov %fs, %ecx");
SNIPPET(d_mov_ss, "mov %ss, %edx; mov %eax, %ss; mov %ss, %ecx; mov %edx, %ss");
SNIPPET(d_pop_ss, "mov %ss, %edx; push %eax; pop %ss; mov %ss, %ecx; mov %edx, %ss");
SNIPPET(d_lss, "mov %ss, %edx; mov %esp, %esi; push %eax; push %esi; lss (%esp), %esp; mov %ss, %ecx; mov %edx, %ss");
SNIPPET(d_lar, "larl %eax, %ecx; pushf; pop %edx");
SNIPPET(d_lar_w, "lar %ax, %cx; pushf; pop %edx");
SNIPPET(d_lsl, "lsll %eax, %ecx; pushf; pop %edx");
SNIPPET(d_lsl_w, "lsl %ax, %cx; pushf; pop %edx");
SNIPPET(d_verr, "verr %ax; pushf; pop %edx");
SNIPPET(d_verw, "verw %ax; pushf; pop %edx");
SNIPPET(d_arpl, "arpl %cx, %ax; pushf; pop %edx");
SNIPPET(d_arpl_m, "push %eax; arpl %cx, (%esp); pop %eax; pushf; pop %edx");
SNIPPET(d_use_ds, "mov %eax, %ds; mov (%ebx), %ecx");
SNIPPET(d_use_fs, "mov %eax, %fs; movb $1, %fs:(%ebx)");
LABEL(d_pop_1);

#define ZF 0x40u

static void set(uint32_t sel, uint64_t descriptor)
{
    *(volatile uint64_t *)&guest_gdt[sel >> 3] = descriptor;
}

static bool is_accessed(void)
{
    return *(volatile uint64_t *)&guest_gdt[UNDER >> 3] >> 40 & 1;
}

static struct context use(unsigned ring, const void *code, uint32_t sel)
{
    struct context c = context_new(ring ? 3 : 0, code);

    if (ring == 1 || ring == 2) {
        c.cs = (ring == 1 ? CODE1 : CODE2) | ring;
        c.ss = c.ds = c.es = c.fs = c.gs = (ring == 1 ? DATA1 : DATA2) | ring;
    }
    c.eax = sel;
    c.ecx = 0xabcd1234;
    c.ebx = SCRATCH;
    context_run(&c);
    return c;
}

/* ---- the rules ---------------------------------------------------------------------------- */

/* A descriptor to be tried: type with S in bit 4, as in the access byte. */
struct try {
    unsigned type, dpl, rpl, cpl;
    bool present;
};

static bool is_conforming(unsigned type)
{
    return (type & 0x1c) == 0x1c;
}
static bool is_readable(unsigned type)
{
    return (type & 0x10) && (!(type & 8) || (type & 2));
}
static bool is_writable(unsigned type)
{
    return (type & 0x1a) == 0x12;
}
static bool is_reachable(const struct try *t)
{
    return is_conforming(t->type) || (t->cpl <= t->dpl && t->rpl <= t->dpl);
}

/* 0, or the vector. */
static uint32_t data_load(const struct try *t)
{
    if (!is_readable(t->type) || !is_reachable(t))
        return V_GP;
    return t->present ? 0 : V_NP;
}

static uint32_t stack_load(const struct try *t)
{
    if (t->rpl != t->cpl || !is_writable(t->type) || t->dpl != t->cpl)
        return V_GP;
    return t->present ? 0 : V_SS;
}

static bool lar_valid(const struct try *t)
{
    static const uint16_t system = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 9 | 1u << 11 | 1u << 12;

    return ((t->type & 0x10) || (system >> t->type & 1)) && is_reachable(t);
}

static bool lsl_valid(const struct try *t)
{
    static const uint16_t system = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 9 | 1u << 11;

    return ((t->type & 0x10) || (system >> t->type & 1)) && is_reachable(t);
}

/* ---- all of them ------------------------------------------------------------------------------ */

static uint64_t descriptor(const struct try *t, bool granular)
{
    return DESC(0, 0x54321, t->type | t->dpl << 5 | (t->present ? 0x80u : 0), granular ? 0xd : 0x5);
}

static void wrong(const char *what, const struct try *t, const struct context *c, uint32_t *count)
{
    if ((*count)++ < 3)
        say("%s: type %x dpl %u rpl %u cpl %u present %u: vector %u error %x ecx %x edx %x\n", what, t->type, t->dpl,
            t->rpl, t->cpl, (uint32_t)t->present, c->vector, c->error, c->ecx, c->edx);
}

static void try_load(const char *what, const void *code, const struct try *t, uint32_t vector, uint32_t *count)
{
    uint32_t sel = UNDER | t->rpl;
    bool was_accessed = (t->type & 0x11) == 0x11, accessed_now;
    struct context c;

    set(UNDER, descriptor(t, false));
    c = use(t->cpl, code, sel);
    accessed_now = (t->type & 0x10) && is_accessed();
    if (vector ? c.vector != vector || c.error != UNDER || accessed_now != was_accessed || c.ecx != 0xabcd1234
               : c.vector != VEC_DONE || c.ecx != sel || !accessed_now)
        wrong(what, t, &c, count);
}

static void try_query(const char *what, const void *code, const struct try *t, bool valid, uint32_t mask,
                      uint32_t value, uint32_t *count)
{
    struct context c = use(t->cpl, code, UNDER | t->rpl);

    if (c.vector != VEC_DONE || ((c.edx & ZF) != 0) != valid || (valid ? (c.ecx & mask) != value : c.ecx != 0xabcd1234))
        wrong(what, t, &c, count);
}

static void all_descriptors(void)
{
    static const struct {
        const char *name;
        const void *code;
    } loads[] = { { "mov_ds", d_mov_ds }, { "mov_es", d_mov_es }, { "mov_fs", d_mov_fs }, { "mov_gs", d_mov_gs },
                  { "pop_ds", d_pop_ds }, { "pop_gs", d_pop_gs }, { "les", d_les },       { "lfs", d_lfs } },
      stacks[] = { { "mov_ss", d_mov_ss }, { "pop_ss", d_pop_ss }, { "lss", d_lss } };
    uint32_t load_wrong[8] = { 0 }, stack_wrong[3] = { 0 }, lar = 0, lar_w = 0, lsl = 0, lsl_w = 0, verr = 0, verw = 0,
             n = 0;
    struct try t;

    for (t.type = 0; t.type < 32; t.type++)
        for (t.dpl = 0; t.dpl < 4; t.dpl++)
            for (t.rpl = 0; t.rpl < 4; t.rpl++)
                for (t.cpl = 0; t.cpl < 4; t.cpl++)
                    for (int present = 0; present < 2; present++, n++) {
                        t.present = present;
                        /* each way of loading in turn, so that all see every type */
                        unsigned way = n % 7 ? n % 8 : 0, stack = n % 3;
                        uint64_t access;

                        try_load(loads[way].name, loads[way].code, &t, data_load(&t), &load_wrong[way]);
                        try_load(stacks[stack].name, stacks[stack].code, &t, stack_load(&t), &stack_wrong[stack]);
                        set(UNDER, descriptor(&t, false));
                        access = descriptor(&t, false) >> 32 & 0x00f0ff00;
                        try_query("lar", d_lar, &t, lar_valid(&t), 0xfff0ff00, (uint32_t)access, &lar);
                        try_query("lar_w", d_lar_w, &t, lar_valid(&t), 0xffffffff, 0xabcd0000 | (access & 0xff00), &lar_w);
                        try_query("lsl", d_lsl, &t, lsl_valid(&t), 0xffffffff, 0x54321, &lsl);
                        try_query("verr", d_verr, &t, is_readable(t.type) && is_reachable(&t), 0xffffffff, 0xabcd1234, &verr);
                        try_query("verw", d_verw, &t, is_writable(t.type) && is_reachable(&t), 0xffffffff, 0xabcd1234, &verw);
                        set(UNDER, descriptor(&t, true));
                        try_query("lsl_w", d_lsl_w, &t, lsl_valid(&t), 0xffffffff, 0xabcd1fff, &lsl_w);
                    }
    for (unsigned i = 0; i < 8; i++)
        check_eq(loads[i].name, load_wrong[i], 0);
    for (unsigned i = 0; i < 3; i++)
        check_eq(stacks[i].name, stack_wrong[i], 0);
    check_eq("lar", lar, 0);
    check_eq("lar_w", lar_w, 0);
    check_eq("lsl", lsl, 0);
    check_eq("lsl_w", lsl_w, 0);
    check_eq("verr", verr, 0);
    check_eq("verw", verw, 0);
}

/* ---- null selectors ------------------------------------------------------------------------------- */

static void null_selectors(void)
{
    struct context c;

    for (unsigned ring = 0; ring < 4; ring++)
        for (uint32_t sel = 0; sel < 4; sel++) {
            c = use(ring, d_mov_es, sel);
            check_eq("null_loads", c.vector == VEC_DONE ? c.ecx : 0xbad, sel);
            c = use(ring, d_use_fs, sel);
            check_fault("null_write", &c, V_GP, 0);
            check_eq("null_write_eip", c.eip, address_of(d_use_fs) + 2);
            c = use(ring, d_mov_ss, sel);
            check_fault("null_ss", &c, V_GP, 0);
            c = use(ring, d_lar, sel);
            check_eq("null_lar", c.vector == VEC_DONE ? c.edx & ZF : 1, 0);
            c = use(ring, d_verr, sel);
            check_eq("null_verr", c.vector == VEC_DONE ? c.edx & ZF : 1, 0);
        }
    c = use(3, d_use_ds, 0);
    check_fault("null_ds_read", &c, V_GP, 0);
}

/* ---- tables and their limits ------------------------------------------------------------------------ */

static void table_limits(void)
{
    struct table_register whole = { sizeof guest_gdt - 1, address_of(guest_gdt) }, cut = whole;
    struct context c;

    set(UNDER, DESC(0, 0xfffff, 0xf3, 0xc));
    for (unsigned last = 0; last < 9; last++) { /* the limit at each byte of the descriptor */
        cut.limit = (uint16_t)(UNDER - 1 + last);
        __asm__ volatile("lgdt %0" : : "m"(cut));
        c = use(3, d_mov_ds, UNDER | 3);
        if (last < 8)
            check_fault("gdt_limit", &c, V_GP, UNDER);
        else
            check_done("gdt_limit_reached", &c);
        c = use(3, d_lar, UNDER | 3);
        check_eq("gdt_limit_lar", c.vector == VEC_DONE ? c.edx & ZF : 1, last < 8 ? 0 : ZF);
    }
    __asm__ volatile("lgdt %0" : : "m"(whole));

    *(volatile uint64_t *)&guest_ldt[2] = DESC(0, 0xfffff, 0xf3, 0xc);
    for (unsigned last = 0; last < 9; last++) {
        set(SEL_LDT, DESC(address_of(guest_ldt), 15 + last, 0x82, 0));
        __asm__ volatile("lldt %w0" : : "r"(SEL_LDT) : "memory");
        c = use(3, d_mov_ds, 16 | TI | 3);
        if (last < 8)
            check_fault("ldt_limit", &c, V_GP, 16 | TI);
        else
            check_eq("ldt_limit_reached", c.vector == VEC_DONE ? c.ecx : 0, 16 | TI | 3);
    }
    check_eq("accessed_bit_in_ldt", guest_ldt[2] >> 40 & 1, 1);
    /* index 0 of the LDT is a descriptor like others */
    *(volatile uint64_t *)&guest_ldt[0] = DESC(0, 0xfffff, 0xf3, 0xc);
    c = use(3, d_mov_ds, TI | 3);
    check_eq("ldt_index_0", c.vector == VEC_DONE ? c.ecx : 0, TI | 3);
    *(volatile uint64_t *)&guest_ldt[0] = 0;
    /* without one */
    for (uint32_t rpl = 0; rpl < 4; rpl += 3) {
        __asm__ volatile("lldt %w0" : : "r"(rpl));
        c = use(3, d_mov_ds, 16 | TI | 3);
        check_fault("no_ldt", &c, V_GP, 16 | TI);
        c = use(3, d_mov_ds, TI);
        check_fault("no_ldt_index_0", &c, V_GP, TI);
        c = use(3, d_verr, 16 | TI | 3);
        check_eq("no_ldt_verr", c.vector == VEC_DONE ? c.edx & ZF : 1, 0);
    }
    set(SEL_LDT, DESC(address_of(guest_ldt), sizeof guest_ldt - 1, 0x82, 0));
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT) : "memory");
    c = use(3, d_pop_ds, 0x1000);
    check_fault("pop_beyond_gdt", &c, V_GP, 0x1000);
    check_eq("pop_beyond_gdt_esp", c.esp, context_new(3, d_pop_ds).esp - 4);
    check_eq("pop_beyond_gdt_eip", c.eip, address_of(d_pop_1));
}

static void with_paging(void)
{
    uint32_t page = SCRATCH;
    struct table_register there = { sizeof guest_gdt - 1, page + 0x1000 - (UNDER + 4) }, here = { sizeof guest_gdt - 1,
                                                                                                  address_of(guest_gdt) };
    struct context c;

    /* UNDER's descriptor lies in two pages */
    set(UNDER, DESC(0, 0xfffff, 0xf2, 0xc));
    memcpy((void *)there.base, guest_gdt, sizeof guest_gdt);
    paging_on();
    __asm__ volatile("lgdt %0" : : "m"(there));
    set_cr0(get_cr0() | 0x10000);
    pte_set(page + 0x1000, (page + 0x1000) | PTE_P | PTE_U);
    c = use(3, d_mov_ds, UNDER | 3);
    check_fault("accessed_bit_in_read_only_page", &c, V_PF, 3);
    check_eq("accessed_bit_in_read_only_page_cr2", c.cr2 & ~0xfffu, page + 0x1000);
    check_eq("accessed_bit_in_read_only_page_eip", c.eip, address_of(d_mov_ds));
    check_eq("accessed_bit_in_read_only_page_stays", peek(page + 0x1000) >> 8 & 1, 0);
    c = use(3, d_verr, UNDER | 3);
    check_eq("query_of_read_only_page", c.vector == VEC_DONE ? c.edx & ZF : 1, ZF);
    set_cr0(get_cr0() & ~0x10000u);
    pte_set(page + 0x1000, 0);
    c = use(3, d_mov_ds, UNDER | 3);
    check_fault("descriptor_in_absent_page", &c, V_PF, 0);
    check_eq("descriptor_in_absent_page_cr2", c.cr2, page + 0x1000);
    c = use(3, d_lar, UNDER | 3);
    check_fault("query_of_absent_page", &c, V_PF, 0);
    pte_set(page + 0x1000, (page + 0x1000) | PTE_P | PTE_W);
    c = use(3, d_mov_ds, UNDER | 3);
    check_done("descriptor_in_supervisor_page", &c);
    check_eq("descriptor_in_supervisor_page_accessed", peek(page + 0x1000) >> 8 & 1, 1);
    set_cr0(get_cr0() | 0x10000);
    pte_set(page + 0x1000, (page + 0x1000) | PTE_P);
    c = use(3, d_mov_ds, UNDER | 3);
    check_done("accessed_already_in_read_only_page", &c);
    set_cr0(get_cr0() & ~0x10000u);
    pte_set(page + 0x1000, (page + 0x1000) | PTE_P | PTE_W | PTE_U);
    __asm__ volatile("lgdt %0" : : "m"(here));
    paging_off();
}

static void arpl(void)
{
    uint32_t bad = 0;

    for (uint32_t to = 0; to < 4; to++)
        for (uint32_t from = 0; from < 4; from++)
            for (int mem = 0; mem < 2; mem++)
                for (int ring = 0; ring < 4; ring += 3) {
                    struct context c = context_new(ring, mem ? d_arpl_m : d_arpl);

                    c.eax = 0xffff1230 | to;
                    c.ecx = 0xeeee5674 | from;
                    context_run(&c);
                    if (c.vector != VEC_DONE || c.eax != (0xffff1230 | (from > to ? from : to)) ||
                        ((c.edx & ZF) != 0) != (from > to))
                        bad++;
                }
    check_eq("arpl", bad, 0);
}

void guest_main(void)
{
    set(CODE1, DESC(0, 0xfffff, 0xbb, 0xc));
    set(DATA1, DESC(0, 0xfffff, 0xb3, 0xc));
    set(CODE2, DESC(0, 0xfffff, 0xdb, 0xc));
    set(DATA2, DESC(0, 0xfffff, 0xd3, 0xc));
    all_descriptors();
    null_selectors();
    table_limits();
    with_paging();
    arpl();
}
