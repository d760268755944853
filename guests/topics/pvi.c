/*
 * Protected-mode virtual interrupts (CR4.PVI): at CPL 3 with IOPL below 3, CLI and STI act on VIF.
 *
 * Ref: Intel SDM vol. 3B, ch. "8086 Emulation", Protected-Mode Virtual Interrupts; vol. 2, CLI, STI, POPF.
 */
#include "../lib/modes.h"

#define EFL_VIF 0x80000u
#define EFL_VIP 0x100000u
#define CR4_PVI 2u
#define CR4_VME 1u
#define IOPL(n) ((uint32_t)(n) << 12)
#define SEL_CODE1 (SEL_FREE + 1)
#define SEL_DATA1 (SEL_FREE + 8 + 1)

SNIPPET(p_cli, "cli");
SNIPPET(p_sti, "sti");
SNIPPET(p_pushf, "sti; pushf; pop %eax; cli; pushf; pop %ebx");
SNIPPET(p_popf, "pushl $0x180202; popf; pushf; pop %eax; pushl $0x2; popf");
SNIPPET(p_popf16, "pushw $0x202; popfw");
SNIPPET(p_iret, "pushl $0x180202; mov %cs, %eax; pushl %eax; pushl $1f; iretl; 1:");
SNIPPET(p_nop, "nop");
SNIPPET(p_lret, "mov %esp, %eax; pushl $0x23; pushl %eax; pushl $0x1b; pushl $1f; lret; 1: nop");
SNIPPET(p_ring0_iret, "pushl $0x180002; pushl $8; pushl $1f; iretl; 1: pushfl; popl %eax; pushl $2; pushl $8; pushl $2f; iretl; 2: pushfl; "
                      "popl %ebx");
SNIPPET(p_ring0_popf, "pushl $0x180002; popfl; pushfl; popl %eax");

static uint32_t ring1_stack[256];

static struct context run(int ring, const void *code, uint32_t eflags)
{
    struct context c = context_new(ring ? 3 : 0, code);

    if (ring == 1) {
        c.cs = SEL_CODE1;
        c.ss = c.ds = c.es = c.fs = c.gs = SEL_DATA1;
        c.esp = address_of(ring1_stack) + sizeof ring1_stack - 64;
    }
    c.eflags |= eflags;
    context_run(&c);
    return c;
}

static void with_pvi(void)
{
    struct context c = run(3, p_sti, 0);

    check_done("sti", &c);
    check_eq("sti_sets_VIF", c.eflags & (EFL_IF | EFL_VIF), EFL_VIF);
    c = run(3, p_cli, EFL_VIF | EFL_IF);
    check_done("cli", &c);
    check_eq("cli_clears_VIF_and_not_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_IF);
    c = run(3, p_sti, EFL_VIP);
    check_fault("sti_with_VIP", &c, V_GP, 0);
    check_eq("sti_with_VIP_eip", c.eip, address_of(p_sti));
    check_eq("sti_with_VIP_leaves_VIF", c.eflags & (EFL_VIP | EFL_VIF), EFL_VIP);
    c = run(3, p_cli, EFL_VIP);
    check_done("cli_with_VIP", &c);
    c = run(3, p_nop, EFL_VIP | EFL_VIF);
    check_fault("VIF_and_VIP", &c, V_GP, 0);
    check_eq("VIF_and_VIP_eip", c.eip, address_of(p_nop));
    check_eq("VIF_and_VIP_cs", c.cs, SEL_UCODE);
    check_eq("VIF_and_VIP_stay", c.eflags & (EFL_VIP | EFL_VIF), EFL_VIP | EFL_VIF);
    c = run(1, p_nop, EFL_VIP | EFL_VIF);
    check_done("ring_1_VIF_and_VIP_mean_nothing", &c);
    c = run(0, p_nop, EFL_VIP | EFL_VIF);
    check_done("ring_0_VIF_and_VIP_mean_nothing", &c);
    c = run(0, p_lret, EFL_VIP | EFL_VIF); /* a far return to ring 3 writes no flags, and meets them there */
    check_fault("VIF_and_VIP_met_by_a_far_return", &c, V_GP, 0);
    check_eq("VIF_and_VIP_met_by_a_far_return_cs", c.cs, SEL_UCODE);
    c = run(3, p_pushf, 0);
    check_done("pushf", &c);
    check_eq("pushf_shows_VIF_in_its_place", c.eax & (EFL_IF | EFL_VIF | EFL_IOPL), EFL_VIF);
    check_eq("pushf_shows_VIF_clear", c.ebx & (EFL_IF | EFL_VIF | EFL_IOPL), 0);
    c = run(3, p_popf, 0);
    check_done("popf", &c);
    check_eq("popf_sets_neither_IF_nor_VIF", c.eax & (EFL_IF | EFL_VIF | EFL_VIP), 0);
    c = run(3, p_popf, EFL_IF | EFL_VIF);
    check_eq("popf_clears_neither", c.eflags & (EFL_IF | EFL_VIF), EFL_IF | EFL_VIF);
    c = run(3, p_popf16, EFL_VIP);
    check_done("popf_of_16_bits_with_VIP", &c);
    check_eq("popf_of_16_bits_leaves_VIF", c.eflags & (EFL_IF | EFL_VIF | EFL_VIP), EFL_VIP);
    c = run(3, p_iret, 0);
    check_done("iret", &c);
    check_eq("iret_sets_neither", c.eflags & (EFL_IF | EFL_VIF | EFL_VIP), 0);
    c = run(3, p_sti, IOPL(3));
    check_done("sti_at_iopl_3", &c);
    check_eq("sti_at_iopl_3_sets_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_IF);
    c = run(3, p_cli, IOPL(3) | EFL_IF | EFL_VIF);
    check_eq("cli_at_iopl_3_clears_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_VIF);
    c = run(3, p_sti, IOPL(2));
    check_eq("sti_at_iopl_2_sets_VIF", c.eflags & (EFL_IF | EFL_VIF), EFL_VIF);
    c = run(1, p_sti, 0);
    check_fault("ring_1_sti", &c, V_GP, 0);
    c = run(1, p_cli, EFL_VIF);
    check_fault("ring_1_cli", &c, V_GP, 0);
    c = run(1, p_sti, IOPL(1));
    check_done("ring_1_sti_at_iopl_1", &c);
    check_eq("ring_1_sti_at_iopl_1_sets_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_IF);
    c = run(0, p_cli, EFL_VIF | EFL_IF);
    check_eq("ring_0_cli_clears_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_VIF);
}

void guest_main(void)
{
    struct context c;
    uint32_t a, b;

    guest_gdt[SEL_CODE1 >> 3] = DESC(0, 0xfffff, 0xbb, 0xc);
    guest_gdt[SEL_DATA1 >> 3] = DESC(0, 0xfffff, 0xb3, 0xc);
    __asm__ volatile("cpuid" : "=d"(a), "=b"(b) : "a"(1) : "ecx");
    check("cpuid_shows_VME", a & 2);
    if (!(a & 2))
        return;
    c = run(3, p_cli, 0);
    check_fault("without_pvi_cli", &c, V_GP, 0);
    c = run(3, p_sti, EFL_VIF);
    check_fault("without_pvi_sti", &c, V_GP, 0);
    c = run(0, p_ring0_iret, 0);
    check_done("ring_0_iretd", &c);
    check_eq("ring_0_iretd_sets_VIF_VIP", c.eax & (EFL_VIF | EFL_VIP), EFL_VIF | EFL_VIP);
    check_eq("ring_0_iretd_clears_VIF_VIP", c.ebx & (EFL_VIF | EFL_VIP), 0);
    c = run(0, p_ring0_popf, 0);
    check_eq("ring_0_popfd_leaves_VIF_VIP", c.eax & (EFL_VIF | EFL_VIP), 0);
    set_cr4(get_cr4() | CR4_VME);
    c = run(3, p_cli, 0);
    check_fault("vme_alone_cli", &c, V_GP, 0);
    c = run(3, p_nop, EFL_VIP | EFL_VIF);
    check_done("vme_alone_VIF_and_VIP_mean_nothing", &c);
    set_cr4((get_cr4() & ~CR4_VME) | CR4_PVI);
    with_pvi();
    set_cr4(get_cr4() & ~CR4_PVI);
}
