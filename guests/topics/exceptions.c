/*
 * Each exception a program can earn: vector, error code, saved EIP (at a fault's
 * instruction, after a trap's) and EFLAGS (RF set in the image of a fault, TF and IF
 * cleared in the handler), from both rings.
 *
 * Ref: Intel SDM vol. 3A, ch. 6 "Interrupt and Exception Handling".
 */
#include "../lib/guest.h"

static uint32_t bounds[2] __attribute__((used)) = { 10, 20 };
static uint32_t spare[4] __attribute__((used));
__asm__(".set bounds_m, bounds\n.set spare_m, spare");

SNIPPET(x_de, "mov $1, %eax; xor %edx, %edx; xor %ecx, %ecx; 1: div %ecx");
SNIPPET(x_de_overflow, "mov $5, %edx; mov $5, %ecx; div %ecx");
SNIPPET(x_de_idiv, "mov $0x80000000, %eax; cdq; mov $-1, %ecx; idiv %ecx");
SNIPPET(x_de_byte, "mov $0x200, %eax; mov $2, %cl; div %cl");
SNIPPET(x_de_aam, ".byte 0xd4, 0");
SNIPPET(x_bp, "int3");
SNIPPET(x_of, "mov $0x7f, %al; inc %al; into");
SNIPPET(x_br_low, "mov $9, %eax; .byte 0x62, 0x05; .long bounds_m");
SNIPPET(x_br_high, "mov $21, %eax; .byte 0x62, 0x05; .long bounds_m");
SNIPPET(x_br_in,
        "mov $20, %eax; .byte 0x62, 0x05; .long bounds_m; mov $10, %eax; .byte 0x62, 0x05; .long bounds_m");
SNIPPET(x_ud2, "ud2");
SNIPPET(x_ud_lock, ".byte 0xf0, 0x90");
SNIPPET(x_ud_lock_reg, ".byte 0xf0, 0x01, 0xc0");
SNIPPET(x_ud_lea_reg, ".byte 0x8d, 0xc0");
SNIPPET(x_ud_bound_les_reg, ".byte 0xc4, 0xc0, 0x00");
SNIPPET(x_ud_cmpxchg8b_reg, ".byte 0x0f, 0xc7, 0xc8");
SNIPPET(x_ud_ff7, ".byte 0xff, 0xff");
SNIPPET(x_gp_long, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
SNIPPET(x_gp_too_long,
        ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
SNIPPET(x_gp_int, "int $0x22");
SNIPPET(x_gp_beyond_idt, "int $0xf0");
SNIPPET(x_gp_cs_write, "movl $0, %cs:spare_m");
SNIPPET(x_gp_null_ds, "xor %eax, %eax; mov %eax, %ds; 1: mov bounds_m, %ecx");
SNIPPET(x_np, "mov $0x38, %eax; mov %eax, %es");
SNIPPET(x_ss_np, "mov $0x38, %eax; mov %eax, %ss");
SNIPPET(x_movaps, "movaps bounds_m + 4, %xmm0");
SNIPPET(x_ts_flag, "pushf; orl $0x100, (%esp); popf; nop; nop");
SNIPPET(x_ts_mov_ss, "pushf; orl $0x100, (%esp); popf; mov %ss, %eax; mov %eax, %ss; nop; nop; nop");
SNIPPET(x_ts_ret, "push $1f; pushf; orl $0x100, (%esp); popf; ret; nop; 1: nop; nop");
SNIPPET(x_ts_jmp, "mov $1f, %eax; pushf; orl $0x100, (%esp); popf; jmp *%eax; nop; 1: nop; nop");
SNIPPET(x_ts_call, "mov $1f, %eax; pushf; orl $0x100, (%esp); popf; call *%eax; nop; 1: nop; nop");
SNIPPET(x_ts_rep, "mov $spare_m, %edi; mov $3, %ecx; pushf; orl $0x100, (%esp); popf; rep stosb; nop");
SNIPPET(x_ts_sti, "pushf; orl $0x100, (%esp); popf; sti; nop; nop");
SNIPPET(x_flags, "stc; std; ud2");
SNIPPET(x_ac, "mov $bounds_m + 1, %eax; mov (%eax), %ecx");
SNIPPET(x_ac_word, "mov $bounds_m + 1, %eax; mov %cx, (%eax)");
SNIPPET(x_ac_push, "sub $2, %esp; push %eax");
SNIPPET(x_ac_string, "mov $spare_m, %edi; mov $bounds_m + 2, %esi; mov $2, %ecx; rep movsl");
SNIPPET(x_ac_fine, "mov $bounds_m + 1, %eax; mov (%eax), %cl; mov 1(%eax), %cx; mov 3(%eax), %ecx; fildll -1(%eax);"
                   "mov $bounds_m + 1, %esi; mov $spare_m + 3, %edi; mov $4, %ecx; rep movsb; push %eax; pop %eax;"
                   "fstp %st(0)");
SNIPPET(x_ac_qword, "mov $bounds_m, %eax; fildll 4(%eax)");

static const char *at(int ring, const char *name)
{
    static char text[64];

    memcpy(text, ring ? "ring3_" : "ring0_", 6);
    memcpy(text + 6, name, strlen(name) + 1);
    return text;
}

static void expect(int ring, const char *name, const void *code, uint32_t vector, uint32_t error,
                   uint32_t eip_ofs)
{
    struct context c = run_at(ring, code);

    check_fault(at(ring, name), &c, vector, error);
    if (vector != VEC_DONE)
        check_eq(at(ring, name), c.eip - address_of(code), eip_ofs);
}

static void plain_faults(int ring)
{
    expect(ring, "divide_by_zero", x_de, V_DE, 0, 9);
    expect(ring, "divide_overflow", x_de_overflow, V_DE, 0, 10);
    expect(ring, "idiv_overflow", x_de_idiv, V_DE, 0, 11);
    expect(ring, "divide_byte_overflow", x_de_byte, V_DE, 0, 7);
    expect(ring, "aam_zero", x_de_aam, V_DE, 0, 0);
    expect(ring, "breakpoint", x_bp, V_BP, 0, 1);
    expect(ring, "overflow", x_of, V_OF, 0, 5);
    expect(ring, "bound_below", x_br_low, V_BR, 0, 5);
    expect(ring, "bound_above", x_br_high, V_BR, 0, 5);
    expect(ring, "bound_within", x_br_in, VEC_DONE, 0, 0);
    expect(ring, "ud2", x_ud2, V_UD, 0, 0);
    expect(ring, "lock_nop", x_ud_lock, V_UD, 0, 0);
    expect(ring, "lock_register", x_ud_lock_reg, V_UD, 0, 0);
    expect(ring, "lea_register", x_ud_lea_reg, V_UD, 0, 0);
    expect(ring, "cmpxchg8b_register", x_ud_cmpxchg8b_reg, V_UD, 0, 0);
    expect(ring, "group5_7", x_ud_ff7, V_UD, 0, 0);
    expect(ring, "fifteen_bytes_are_fine", x_gp_long, VEC_DONE, 0, 0);
    expect(ring, "sixteen_bytes", x_gp_too_long, V_GP, 0, 0);
    expect(ring, "write_through_cs", x_gp_cs_write, V_GP, 0, 0);
    expect(ring, "null_ds", x_gp_null_ds, V_GP, 0, 4);
    guest_gdt[SEL_FREE >> 3] = DESC(0, 0xfffff, ring ? 0x73 : 0x13, 0xc);
    expect(ring, "not_present_es", x_np, V_NP, SEL_FREE, 5);
    if (ring == 0)
        expect(ring, "not_present_ss", x_ss_np, V_SS, SEL_FREE, 5);
    set_cr4(get_cr4() | 0x200);
    expect(ring, "movaps_misaligned", x_movaps, V_GP, 0, 0);
    set_cr4(get_cr4() & ~0x200u);
}

static void idt_contents(int ring)
{
    uint64_t keep = guest_idt[0x22];
    uint32_t user = ring ? 0x60 : 0;
    struct table_register idtr = { 0x7f * 8 + 7 + 8 * 0x10, address_of(guest_idt) },
                          whole = { 0x7ff, address_of(guest_idt) };

    guest_idt[0x22] = GATE(SEL_KCODE, 0, 0x0e | user);
    expect(ring, "gate_not_present", x_gp_int, V_NP, 0x22 * 8 + 2, 0);
    guest_idt[0x22] = GATE(0, 0x1000, 0x8e | user);
    expect(ring, "gate_null_selector", x_gp_int, V_GP, 0, 0);
    guest_idt[0x22] = GATE(SEL_KDATA, 0x1000, 0x8e | user);
    expect(ring, "gate_data_selector", x_gp_int, V_GP, SEL_KDATA, 0);
    guest_idt[0x22] = GATE(0x1f0, 0x1000, 0x8e | user);
    expect(ring, "gate_empty_descriptor", x_gp_int, V_GP, 0x1f0, 0);
    guest_idt[0x22] = DESC(0, 0xfffff, 0x93 | user, 0xc);
    expect(ring, "gate_not_a_gate", x_gp_int, V_GP, 0x22 * 8 + 2, 0);
    guest_idt[0x22] = keep;
    __asm__ volatile("lidt %0" : : "m"(idtr));
    expect(ring, "beyond_idt_limit", x_gp_beyond_idt, V_GP, 0xf0 * 8 + 2, 0);
    __asm__ volatile("lidt %0" : : "m"(whole));
}

static void flags_in_frames(int ring)
{
    struct context c = context_new(ring, x_flags);

    c.eflags = 2 | (ring ? EFL_IF : 0);
    context_run(&c);
    check_eq(at(ring, "fault_frame_keeps_CF_DF_IF"), c.eflags & (EFL_CF | EFL_DF | EFL_IF),
             EFL_CF | EFL_DF | (ring ? EFL_IF : 0u));
    check_eq(at(ring, "fault_frame_has_RF"), c.eflags & EFL_RF, EFL_RF);
    c = run_at(ring, x_bp);
    check_eq(at(ring, "trap_frame_has_no_RF"), c.eflags & EFL_RF, 0);
}

static void single_step(int ring)
{
    struct context c = run_at(ring, x_ts_flag);

    check_fault(at(ring, "single_step"), &c, V_DB, 0);
    check_eq(at(ring, "single_step_after_one_insn"), c.eip, address_of(x_ts_flag) + 10);
    check_eq(at(ring, "single_step_frame_has_TF"), c.eflags & EFL_TF, EFL_TF);
    c = run_at(ring, x_ts_mov_ss);
    check_fault(at(ring, "single_step_mov_from_ss"), &c, V_DB, 0);
    check_eq(at(ring, "single_step_mov_from_ss_eip"), c.eip, address_of(x_ts_mov_ss) + 11);
    c = run_at(ring, x_ts_ret);
    check_fault(at(ring, "single_step_of_a_return"), &c, V_DB, 0);
    check_eq(at(ring, "single_step_of_a_return_eip"), c.eip, address_of(x_ts_ret) + 16);
    c = run_at(ring, x_ts_jmp);
    check_fault(at(ring, "single_step_of_an_indirect_jump"), &c, V_DB, 0);
    check_eq(at(ring, "single_step_of_an_indirect_jump_eip"), c.eip, address_of(x_ts_jmp) + 17);
    c = run_at(ring, x_ts_call);
    check_fault(at(ring, "single_step_of_an_indirect_call"), &c, V_DB, 0);
    check_eq(at(ring, "single_step_of_an_indirect_call_eip"), c.eip, address_of(x_ts_call) + 17);
    c = run_at(ring, x_ts_rep);
    check_fault(at(ring, "single_step_of_a_repeated_string"), &c, V_DB, 0);
    check_eq(at(ring, "single_step_of_a_repeated_string_eip"), c.eip, address_of(x_ts_rep) + 19);
    check_eq(at(ring, "single_step_of_a_repeated_string_ecx"), c.ecx, 2);
    if (ring == 0) {
        c = run_at(ring, x_ts_sti);
        check_fault(at(ring, "single_step_of_sti"), &c, V_DB, 0);
        check_eq(at(ring, "single_step_of_sti_eip"), c.eip, address_of(x_ts_sti) + 10);
    }
}

/* Where the handler's flags come from: an interrupt gate clears IF, a trap gate keeps it. */
static uint32_t seen_flags;
static bool note_flags(struct frame *f)
{
    (void)f;
    __asm__ volatile("pushf; pop %0" : "=r"(seen_flags));
    return false;
}

static void gates(void)
{
    uint64_t keep = guest_idt[0x80];
    struct context c = context_new(3, x_bp);

    guest_hook = note_flags;
    c.eflags |= EFL_IF;
    context_run(&c);
    check_eq("interrupt_gate_clears_IF", seen_flags & EFL_IF, 0);
    guest_idt[V_BP] = (guest_idt[V_BP] & ~(0xffull << 40)) | 0xefull << 40;
    c = context_new(3, x_bp);
    c.eflags |= EFL_IF;
    context_run(&c);
    check_eq("trap_gate_keeps_IF", seen_flags & EFL_IF, EFL_IF);
    guest_idt[V_BP] = (guest_idt[V_BP] & ~(0xffull << 40)) | 0xeeull << 40;
    guest_hook = NULL;
    guest_idt[0x80] = keep;
    __asm__ volatile("cli");
}

/* An exception from ring 3 switches to the TSS's stack and saves the outer one. */
static void stack_switch(void)
{
    struct context c = run_at(3, x_bp);

    check_fault("stack_switch", &c, V_BP, 0);
    check_eq("stack_switch_saves_ss", c.ss, SEL_UDATA);
    check_eq("stack_switch_saves_cs", c.cs, SEL_UCODE);
}

/* #AC is for ring 3 with CR0.AM and EFLAGS.AC. QEMU's TCG never raises it. */
static void alignment(void)
{
    static const struct {
        const char *name;
        const uint8_t *code;
        uint32_t eip_ofs;
    } misaligned[] = {
        { "alignment_of_a_load", x_ac, 5 },          { "alignment_of_a_word", x_ac_word, 5 },
        { "alignment_of_a_push", x_ac_push, 3 },     { "alignment_of_a_string", x_ac_string, 15 },
        { "alignment_of_a_quadword", x_ac_qword, 5 },
    };
    struct context c = context_new(0, x_ac);

    set_cr0(get_cr0() | 0x40000);
    c.eflags |= EFL_AC;
    context_run(&c);
    check_done("alignment_check_not_at_ring0", &c);
    for (unsigned i = 0; i < sizeof misaligned / sizeof misaligned[0]; i++) {
        c = context_new(3, misaligned[i].code);
        c.eflags |= EFL_AC;
        context_run(&c);
        check_fault(misaligned[i].name, &c, V_AC, 0);
        check_eq(misaligned[i].name, c.eip - address_of(misaligned[i].code), misaligned[i].eip_ofs);
    }
    c = context_new(3, x_ac_fine);
    c.eflags |= EFL_AC;
    context_run(&c);
    check_done("aligned_accesses_pass", &c);
    set_cr0(get_cr0() & ~0x40000u);
    c = context_new(3, x_ac);
    c.eflags |= EFL_AC;
    context_run(&c);
    check_done("alignment_check_not_without_AM", &c);
}

void guest_main(void)
{
    for (int ring = 0; ring <= 3; ring += 3) {
        plain_faults(ring);
        idt_contents(ring);
        flags_in_frames(ring);
        single_step(ring);
    }
    gates();
    stack_switch();
    alignment();
}
