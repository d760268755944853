/*
 * Every privileged instruction: at ring 0 it does its work, at ring 3 it is #GP(0) with
 * EIP at the instruction and no other effect.
 *
 * Ref: Intel SDM vol. 3A, ch. 5 "Privileged Instructions"; vol. 2.
 */
#include "../lib/guest.h"

static uint8_t scratch[16] __attribute__((aligned(16), used));
__asm__(".set scratch_m, scratch");

SNIPPET(p_cli, "cli");
SNIPPET(p_sti, "sti");
SNIPPET(p_hlt, "hlt");
SNIPPET(p_in_al_imm, "in $0x71, %al");
SNIPPET(p_in_eax_dx, "mov $0x80, %edx; in %dx, %eax");
SNIPPET(p_in_ax_imm, ".byte 0x66; .byte 0xe5, 0x80");
SNIPPET(p_out_al_imm, "out %al, $0x80");
SNIPPET(p_out_eax_dx, "mov $0x80, %edx; out %eax, %dx");
SNIPPET(p_insb, "mov $0x71, %edx; mov $scratch_m, %edi; insb");
SNIPPET(p_rep_insl, "mov $0x80, %edx; mov $2, %ecx; mov $scratch_m, %edi; rep insl");
SNIPPET(p_outsb, "mov $0x80, %edx; mov $scratch_m, %esi; outsb");
SNIPPET(p_rep_outsw, "mov $0x80, %edx; mov $2, %ecx; mov $scratch_m, %esi; rep outsw");
SNIPPET(p_lgdt, "lgdt scratch_m");
SNIPPET(p_lidt, "lidt scratch_m");
SNIPPET(p_lldt, "mov $0, %ax; lldt %ax");
SNIPPET(p_ltr, "mov $0x28, %ax; ltr %ax");
SNIPPET(p_lmsw, "smsw %ax; lmsw %ax");
SNIPPET(p_clts, "clts");
SNIPPET(p_invlpg, "invlpg scratch_m");
SNIPPET(p_invd, "invd");
SNIPPET(p_wbinvd, "wbinvd");
SNIPPET(p_mov_from_cr0, "mov %cr0, %eax");
SNIPPET(p_mov_from_cr2, "mov %cr2, %eax");
SNIPPET(p_mov_from_cr3, "mov %cr3, %eax");
SNIPPET(p_mov_from_cr4, "mov %cr4, %eax");
SNIPPET(p_mov_to_cr0, "mov %eax, %cr0");
SNIPPET(p_mov_to_cr2, "mov %eax, %cr2");
SNIPPET(p_mov_to_cr3, "mov %eax, %cr3");
SNIPPET(p_mov_to_cr4, "mov %eax, %cr4");
SNIPPET(p_mov_from_dr0, "mov %db0, %eax");
SNIPPET(p_mov_from_dr6, "mov %db6, %eax");
SNIPPET(p_mov_from_dr7, "mov %db7, %eax");
SNIPPET(p_mov_to_dr0, "mov %eax, %db0");
SNIPPET(p_mov_to_dr7, "mov $0x400, %eax; mov %eax, %db7");
SNIPPET(p_rdmsr, "mov $0x174, %ecx; rdmsr");
SNIPPET(p_wrmsr, "mov $0x174, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr");
SNIPPET(p_rdtsc, "rdtsc; mov %eax, %esi; rdtsc");
SNIPPET(p_rdpmc, "mov $0, %ecx; rdpmc");
SNIPPET(p_sysexit, "mov $1f, %edx; mov %esp, %ecx; sysexit; 1: nop");
SNIPPET(p_rsm, "rsm");
SNIPPET(p_cpuid, "xor %eax, %eax; cpuid");

struct row {
    const char *name;
    const uint8_t *code;
    uint8_t before; /* bytes before the instruction itself */
};

static const struct row ring3_faults[] = {
    { "cli", p_cli, 0 },
    { "sti", p_sti, 0 },
    { "hlt", p_hlt, 0 },
    { "in_al_imm", p_in_al_imm, 0 },
    { "in_eax_dx", p_in_eax_dx, 5 },
    { "in_ax_imm", p_in_ax_imm, 0 },
    { "out_al_imm", p_out_al_imm, 0 },
    { "out_eax_dx", p_out_eax_dx, 5 },
    { "insb", p_insb, 10 },
    { "rep_insl", p_rep_insl, 15 },
    { "outsb", p_outsb, 10 },
    { "rep_outsw", p_rep_outsw, 15 },
    { "lgdt", p_lgdt, 0 },
    { "lidt", p_lidt, 0 },
    { "lldt", p_lldt, 4 },
    { "ltr", p_ltr, 4 },
    { "lmsw", p_lmsw, 4 },
    { "clts", p_clts, 0 },
    { "invlpg", p_invlpg, 0 },
    { "invd", p_invd, 0 },
    { "wbinvd", p_wbinvd, 0 },
    { "mov_from_cr0", p_mov_from_cr0, 0 },
    { "mov_from_cr2", p_mov_from_cr2, 0 },
    { "mov_from_cr3", p_mov_from_cr3, 0 },
    { "mov_from_cr4", p_mov_from_cr4, 0 },
    { "mov_to_cr0", p_mov_to_cr0, 0 },
    { "mov_to_cr2", p_mov_to_cr2, 0 },
    { "mov_to_cr3", p_mov_to_cr3, 0 },
    { "mov_to_cr4", p_mov_to_cr4, 0 },
    { "mov_from_dr0", p_mov_from_dr0, 0 },
    { "mov_from_dr6", p_mov_from_dr6, 0 },
    { "mov_from_dr7", p_mov_from_dr7, 0 },
    { "mov_to_dr0", p_mov_to_dr0, 0 },
    { "mov_to_dr7", p_mov_to_dr7, 5 },
    { "rdmsr", p_rdmsr, 5 },
    { "wrmsr", p_wrmsr, 9 },
    { "sysexit", p_sysexit, 7 },
};

static const char *name_of(const char *prefix, const char *name)
{
    static char text[64];
    size_t n = strlen(prefix);

    memcpy(text, prefix, n);
    memcpy(text + n, name, strlen(name) + 1);
    return text;
}

static void from_ring_3(void)
{
    struct table_register gdtr, idtr;
    uint32_t cr0 = get_cr0(), cr3 = get_cr3(), cr4 = get_cr4();

    for (size_t i = 0; i < sizeof ring3_faults / sizeof ring3_faults[0]; i++) {
        const struct row *r = &ring3_faults[i];
        struct context c = run_at(3, r->code);

        check_fault(name_of("ring3_", r->name), &c, V_GP, 0);
        check_eq(name_of("ring3_eip_", r->name), c.eip, address_of(r->code) + r->before);
    }
    __asm__ volatile("sgdt %0\n\tsidt %1" : "=m"(gdtr), "=m"(idtr));
    check_eq("ring3_left_gdtr_alone", gdtr.base, address_of(guest_gdt));
    check_eq("ring3_left_idtr_alone", idtr.base, address_of(guest_idt));
    check("ring3_left_control_registers_alone", cr0 == get_cr0() && cr3 == get_cr3() && cr4 == get_cr4());
}

/* With IOPL 3 ring 3 may use ports and the interrupt flag. */
static void from_ring_3_with_iopl(void)
{
    struct context c = context_new(3, p_out_al_imm);

    c.eflags = 2 | EFL_IOPL;
    context_run(&c);
    check_done("iopl3_out", &c);
    c = context_new(3, p_sti);
    c.eflags = 2 | EFL_IOPL;
    context_run(&c);
    check_done("iopl3_sti", &c);
    check_eq("iopl3_sti_sets_IF", c.eflags & EFL_IF, EFL_IF);
    c = context_new(3, p_cli);
    c.eflags = 2 | EFL_IOPL | EFL_IF;
    context_run(&c);
    check_eq("iopl3_cli_clears_IF", c.eflags & EFL_IF, 0);
    c = context_new(3, p_hlt);
    c.eflags = 2 | EFL_IOPL;
    context_run(&c);
    check_fault("iopl3_hlt", &c, V_GP, 0);
}

/* The I/O permission bitmap: a clear bit for each byte of the access. */
static void io_bitmap(void)
{
    struct context c;

    guest_gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), sizeof guest_tss - 1, 0x8b, 0);
    guest_gdt[SEL_TSS >> 3] &= ~(2ull << 40);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
    memset(guest_tss.io_bitmap, 0xff, sizeof guest_tss.io_bitmap);
    guest_tss.io_base = offsetof(struct tss, io_bitmap);
    c = run_at(3, p_out_al_imm);
    check_fault("bitmap_forbids", &c, V_GP, 0);
    guest_tss.io_bitmap[0x80 / 8] = 0xfe;
    c = run_at(3, p_out_al_imm);
    check_done("bitmap_allows_byte", &c);
    c = run_at(3, p_out_eax_dx);
    check_fault("bitmap_forbids_dword_by_second_bit", &c, V_GP, 0);
    guest_tss.io_bitmap[0x80 / 8] = 0xf0;
    c = run_at(3, p_out_eax_dx);
    check_done("bitmap_allows_dword", &c);
    guest_tss.io_base = 0x68;
    memset(guest_tss.io_bitmap, 0xff, sizeof guest_tss.io_bitmap);
}

static struct context ring0(const void *code, uint32_t eax)
{
    struct context c = context_new(0, code);

    c.eax = eax;
    context_run(&c);
    return c;
}

static void from_ring_0(void)
{
    struct table_register keep;
    struct context c;
    uint32_t cr0 = get_cr0();

    c = run_at(0, p_sti);
    check_eq("ring0_sti", c.eflags & EFL_IF, EFL_IF);
    c = context_new(0, p_cli);
    c.eflags |= EFL_IF;
    context_run(&c);
    check_eq("ring0_cli", c.eflags & EFL_IF, 0);
    c = run_at(0, p_in_eax_dx);
    check_done("ring0_in", &c);
    c = run_at(0, p_rep_outsw);
    check_done("ring0_rep_outsw", &c);
    check_eq("ring0_rep_outsw_ecx", c.ecx, 0);
    check_eq("ring0_rep_outsw_esi", c.esi, address_of(scratch) + 4);
    c = run_at(0, p_rep_insl);
    check_done("ring0_rep_insl", &c);
    check_eq("ring0_rep_insl_edi", c.edi, address_of(scratch) + 8);

    __asm__ volatile("sgdt %0" : "=m"(keep));
    memcpy(scratch, &keep, 6);
    c = run_at(0, p_lgdt);
    check_done("ring0_lgdt", &c);
    __asm__ volatile("sidt %0" : "=m"(keep));
    memcpy(scratch, &keep, 6);
    c = run_at(0, p_lidt);
    check_done("ring0_lidt", &c);
    c = run_at(0, p_lldt);
    check_done("ring0_lldt_null", &c);
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
    c = run_at(0, p_ltr);
    check_fault("ring0_ltr_of_busy_tss", &c, V_GP, SEL_TSS);
    c = run_at(0, p_clts);
    check_done("ring0_clts", &c);

    set_cr0(cr0 | 8);
    run_at(0, p_clts);
    check_eq("ring0_clts_clears_TS", get_cr0() & 8, 0);
    c = ring0(p_lmsw, 0);
    check_done("ring0_lmsw", &c);
    check_eq("ring0_lmsw_keeps_PE", get_cr0() & 1, 1);
    c = run_at(0, p_invlpg);
    check_done("ring0_invlpg", &c);
    c = run_at(0, p_wbinvd);
    check_done("ring0_wbinvd", &c);
    c = run_at(0, p_mov_from_cr0);
    check_eq("ring0_mov_from_cr0", c.eax, cr0);
    ring0(p_mov_to_cr2, 0xfeedface);
    c = run_at(0, p_mov_from_cr2);
    check_eq("ring0_cr2_reads_back", c.eax, 0xfeedface);
    if (!option_given("qemu")) {
        c = ring0(p_mov_to_cr0, (cr0 & ~1u) | 0x80000000u);
        check_fault("ring0_PG_without_PE", &c, V_GP, 0);
        c = ring0(p_mov_to_cr0, cr0 | 0x20000000u);
        check_fault("ring0_NW_without_CD", &c, V_GP, 0);
        c = ring0(p_mov_to_cr4, 0x80000000u);
        check_fault("ring0_reserved_bit_of_cr4", &c, V_GP, 0);
    }
    ring0(p_mov_to_dr0, 0x12345678);
    c = run_at(0, p_mov_from_dr0);
    check_eq("ring0_dr0_reads_back", c.eax, 0x12345678);
    c = run_at(0, p_mov_to_dr7);
    check_done("ring0_mov_to_dr7", &c);
    c = run_at(0, p_mov_from_dr7);
    check_eq("ring0_dr7_reads_back", c.eax, 0x400);
    c = run_at(0, p_rdtsc);
    check_done("ring0_rdtsc", &c);
    c = run_at(3, p_rdtsc);
    check_done("ring3_rdtsc", &c);
    set_cr4(get_cr4() | 4);
    c = run_at(3, p_rdtsc);
    check_fault("ring3_rdtsc_with_TSD", &c, V_GP, 0);
    c = run_at(0, p_rdtsc);
    check_done("ring0_rdtsc_with_TSD", &c);
    set_cr4(get_cr4() & ~4u);
    c = run_at(0, p_rsm);
    check_fault("ring0_rsm", &c, V_UD, 0);
    c = run_at(3, p_rsm);
    check_fault("ring3_rsm", &c, V_UD, 0);
    c = run_at(0, p_cpuid);
    check_done("ring0_cpuid", &c);
    c = run_at(3, p_cpuid);
    check_done("ring3_cpuid", &c);
    check("cpuid_has_a_leaf_1", c.eax >= 1);
}

static void model_registers(void)
{
    uint32_t lo, hi;

    __asm__ volatile("wrmsr" : : "c"(0x176), "a"(0x123456), "d"(0));
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(0x176));
    check_eq("sysenter_eip_reads_back", lo, 0x123456);
    check_eq("sysenter_eip_high_half", hi, 0);
    __asm__ volatile("wrmsr" : : "c"(0x176), "a"(0), "d"(0));
}

void guest_main(void)
{
    from_ring_3();
    from_ring_3_with_iopl();
    io_bitmap();
    from_ring_0();
    model_registers();
}
