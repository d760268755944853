/*
 * Single-stepping by TF in every kind of code, what else makes a debug trap (the T bit of a TSS, INT1),
 * what holds one off (MOV SS), what comes first of several, and where RF comes from.
 *
 * A trap is made by an instruction that begins with TF set, unless it ends in a handler or another task.
 *
 * Ref: Intel SDM vol. 3B, ch. "Debug, Branch Profile, TSC, and Intel Resource Director Technology
 * Features"; vol. 3A, ch. 6, "Priority Among Simultaneous Exceptions and Interrupts" and "Masking Exceptions
 * and Interrupts When Switching Stacks".
 */
#include "../lib/debug.h"
#include "../lib/modes.h"

static uint8_t pages[3 * 4096] __attribute__((used, aligned(4096)));
__asm__(".set watched, pages + 4096 + 64\n.set page_end, pages + 8192");
extern uint8_t watched[], page_end[];
extern uint8_t vector_entries[];

#define OWN_VECTOR 0x30 /* a gate that ring 3 may use, to `handler` */

SNIPPET(handler, "nop; nop; iret");
#define HANDLER(code) (address_of(handler) - address_of(code))

/* ---- straight code -------------------------------------------------------------------------------- */

static struct context step(int ring, const uint8_t *code)
{
    struct context c = context_new(ring, code);

    c.eflags |= EFL_TF;
    run_armed(&c, code);
    return c;
}

#define ONE(code, ...)                                                                                       \
    do {                                                                                                     \
        struct context one = step(ring, s_##code);                                                           \
        check_done(ring ? "ring3_" #code : "ring0_" #code, &one);                                            \
        check_record(ring ? "ring3_" #code : "ring0_" #code, WANT(__VA_ARGS__));                             \
    } while (0)
#define S(ofs) AT(ofs, BS)

SNIPPET(s_line, "nop; inc %eax; mov watched, %ecx; nop");
SNIPPET(s_popf_clears, "pushf; andl $~0x100, (%esp); popf; nop; nop");
SNIPPET(s_popfw_clears, "pushfw; andw $~0x100, (%esp); popfw; nop; nop");
SNIPPET(s_iret_clears, "pushf; andl $~0x100, (%esp); push %cs; push $1f; iret; nop; 1: nop; nop");
SNIPPET(s_iret_keeps, "pushf; push %cs; push $1f; iret; nop; 1: nop; nop");
SNIPPET(s_jumps, "jmp 1f; nop; 1: jz 1f; nop; 1: jnz 1f; nop; 1: nop");
SNIPPET(s_call, "call 1f; jmp 2f; 1: ret; 2: nop");
SNIPPET(s_indirect, "mov $1f, %eax; call *%eax; jmp 2f; 1: ret $0; 2: nop");
SNIPPET(s_far, "push %cs; push $1f; lret; nop; 1: push %cs; call 2f; jmp 3f; 2: lret; 3: nop");
SNIPPET(s_loop, "mov $2, %ecx; 1: nop; loop 1b; jecxz 2f; nop; 2: nop");
SNIPPET(s_strings, "mov $watched, %edi; mov $2, %ecx; rep stosb; stosb; nop");
SNIPPET(s_string_of_none, "xor %ecx, %ecx; rep movsb; nop");
SNIPPET(s_scas, "mov $watched, %edi; mov $5, %ecx; xor %eax, %eax; movb $1, 1(%edi); repe scasb; nop");
SNIPPET(s_mov_ss, "mov %ss, %eax; mov %eax, %ss; nop; nop");
SNIPPET(s_pop_ss, "push %ss; pop %ss; nop; nop");
SNIPPET(s_mov_ss_twice, "mov %ss, %eax; mov %eax, %ss; mov %eax, %ss; nop; nop");
SNIPPET(s_mov_ds, "mov %ds, %eax; mov %eax, %ds; nop");
SNIPPET(s_lss, "mov %esp, watched; mov %ss, watched + 4; lss watched, %esp; nop; nop");
SNIPPET(s_int, "nop; int $0x30; nop; nop");
SNIPPET(s_into_not, "xor %eax, %eax; into; nop");
SNIPPET(s_cpuid, "cpuid; rdtsc; nop");
SNIPPET(s_fpu, "fld1; fldz; fcompp; fnstsw %ax; nop");
SNIPPET(s_enter, "enter $8, $0; leave; pusha; popa; nop");
SNIPPET(s_prefixes, ".byte 0x66, 0x90; lock; incl watched; nop");
SNIPPET(s_sets, "pushf; pop %eax; nop");
SNIPPET(s_modifies, "movb $0x41, 1f; 1: nop; nop"); /* the next instruction becomes INC ECX */
SNIPPET(s_cli_sti, "cli; nop; sti; nop; nop");
SNIPPET(s_halt, "nop; hlt; nop");
SNIPPET(s_system, "mov %cr0, %eax; mov %eax, %cr0; mov %cr3, %eax; mov %eax, %cr3; invlpg watched; wbinvd; clts; nop");
SNIPPET(s_ports, "in $0x61, %al; out %al, $0x80; nop");
SNIPPET(s_tables, "sgdt watched; lgdt watched; str %eax; verr %ax; nop");

static void straight(int ring)
{
    ONE(line, S(1), S(2), S(8), S(9));
    ONE(popf_clears, S(1), S(8), S(9));
    ONE(popfw_clears, S(2), S(8), S(10));
    ONE(iret_clears, S(1), S(8), S(9), S(14), S(16));
    ONE(iret_keeps, S(1), S(2), S(7), S(9), S(10), S(11));
    ONE(jumps, S(3), S(5), S(6), S(9), S(10));
    ONE(call, S(7), S(5), S(8), S(9));
    ONE(indirect, S(5), S(9), S(7), S(12), S(13));
    ONE(far, S(1), S(6), S(8), S(9), S(16), S(14), S(17), S(18));
    ONE(loop, S(5), S(6), S(5), S(6), S(8), S(11), S(12));
    ONE(strings, S(5), S(10), S(10) | RF, S(12), S(13), S(14));
    ONE(string_of_none, S(2), S(4), S(5));
    ONE(scas, S(5), S(10), S(12), S(16), S(16) | RF, S(18), S(19));
    ONE(mov_ss, S(2), S(5), S(6));
    ONE(pop_ss, S(1), S(3), S(4));
    ONE(mov_ds, S(2), S(4), S(5));
    ONE(int, S(1), S(4), S(5));
    ONE(into_not, S(2), S(3), S(4));
    ONE(cpuid, S(2), S(4), S(5));
    ONE(fpu, S(2), S(4), S(6), S(8), S(9));
    ONE(enter, S(4), S(5), S(6), S(7), S(8));
    ONE(prefixes, S(2), S(9), S(10));
    ONE(sets, S(1), S(2), S(3));
    poke8(address_of(s_modifies) + 7, 0x90);
    ONE(modifies, S(7), S(8), S(9));
    if (ring)
        return;
    ONE(lss, S(6), S(12), S(19), S(20), S(21));
    ONE(cli_sti, S(1), S(2), S(3), S(4), S(5));
    if (!option_given("qemu") && !option_given("bochs")) /* they sleep on */
        ONE(halt, S(1), S(2), S(3));
    ONE(system, S(3), S(6), S(9), S(12), S(19), S(21), S(23), S(24));
    ONE(ports, S(2), S(4), S(5));
    ONE(tables, S(7), S(14), S(17), S(20), S(21));
}

/* What it was about: flags and registers the code ends with. */
static void effects(void)
{
    struct context c = step(3, s_sets);

    check_eq("pushf_shows_TF", c.eax & (EFL_TF | EFL_RF), EFL_TF);
    poke8(address_of(s_modifies) + 7, 0x90);
    c = step(3, s_modifies);
    check_eq("modified_instruction_was_seen", c.ecx, 1);
    c = step(0, s_mov_ss_twice);
    check_done("mov_ss_twice", &c); /* whether the second MOV holds the trap off is left open */
    check_eq("mov_ss_twice", record.at[record.count - 1], S(8));
}

/* ---- setting TF ------------------------------------------------------------------------------------------ */

SNIPPET(t_popf, "pushf; orl $0x100, (%esp); popf; nop; nop; nop");
SNIPPET(t_iret, "pushf; orl $0x100, (%esp); push %cs; push $1f; iret; nop; 1: nop; nop");

static void setting(int ring)
{
    struct context c = context_new(ring, t_popf);

    run_armed(&c, t_popf);
    check_record("popf_sets", WANT(S(10), S(11), S(12)));
    c = context_new(ring, t_popf);
    record.stops_stepping = true;
    run_armed(&c, t_popf);
    check_record("handler_clears", WANT(S(10)));
    c = context_new(ring, t_iret);
    run_armed(&c, t_iret);
    check_record("iret_sets", WANT(S(17), S(18)));
}

/* ---- faults and handlers ---------------------------------------------------------------------------------- */

SNIPPET(e_ud, "nop; ud2");
SNIPPET(e_page, "nop; mov 0xe00000, %eax; nop");
SNIPPET(e_div, "nop; xor %ecx, %ecx; div %ecx");
SNIPPET(e_int3, "nop; int3");
SNIPPET(e_into, "mov $0x7f, %al; inc %al; into");
SNIPPET(e_int1, "nop; .byte 0xf1; nop; nop");

static void handlers(int ring)
{
    uint32_t va = 0xe00000;
    struct context c = step(ring, e_ud);

    check_fault("invalid_opcode", &c, V_UD, 0);
    check_record("invalid_opcode", WANT(S(1)));
    check_eq("invalid_opcode_flags", c.eflags & (EFL_TF | EFL_RF), EFL_TF | EFL_RF);
    pte_set(va, 0);
    c = step(ring, e_page);
    check_fault("page_fault", &c, V_PF, ring ? 4 : 0);
    check_record("page_fault", WANT(S(1)));
    c = step(ring, e_div);
    check_fault("divide_error", &c, V_DE, 0);
    check_record("divide_error", WANT(S(1), S(3)));
    c = step(ring, e_int3);
    check_fault("int3", &c, V_BP, 0);
    check_record("int3", WANT(S(1)));
    check_eq("int3_flags", c.eflags & (EFL_TF | EFL_RF), EFL_TF);
    c = step(ring, e_into);
    check_fault("into", &c, V_OF, 0);
    check_record("into", WANT(S(2), S(4)));
    c = step(ring, e_int1);
    check_done("int1", &c);
    check_record("int1", WANT(S(1), AT(2, 0), S(3), S(4)));
    /* the last instruction before a page that is not there: first its trap, then the fault of the fetch */
    poke8(va - 1, 0x90);
    c = context_new(ring, (const void *)(va - 1));
    c.eflags |= EFL_TF;
    run_armed(&c, (const uint8_t *)va - 1);
    check_fault("trap_before_fetch_fault", &c, V_PF, ring ? 4 : 0);
    check_record("trap_before_fetch_fault", WANT(S(1)));
    pte_set(va, va | PTE_P | PTE_W | PTE_U);
}

/* ---- to another privilege -------------------------------------------------------------------------------------- */

SNIPPET(v_gate, "nop; lcall $0x40, $0; nop");
SNIPPET(v_gate_to, "nop; lret");
SNIPPET(v_sysenter, "nop; sysenter");
SNIPPET(v_sysenter_to, "nop; nop");

static void wrmsr(uint32_t msr, uint32_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0));
}

static void privilege(void)
{
    uint32_t to = address_of(v_gate_to) - address_of(v_gate);
    uint32_t eax = 1, ebx, ecx, edx;
    struct context c;

    guest_gdt[0x40 >> 3] = GATE(SEL_KCODE, address_of(v_gate_to), 0xec);
    c = step(3, v_gate);
    check_done("call_gate", &c);
    check_record("call_gate", WANT(S(1), S(to), S(to + 1), S(8), S(9)));
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    if (!(edx >> 11 & 1))
        return;
    wrmsr(0x174, SEL_KCODE);
    wrmsr(0x175, guest_tss.esp0 - 2048);
    wrmsr(0x176, address_of(v_sysenter_to));
    to = address_of(v_sysenter_to) - address_of(v_sysenter);
    c = step(3, v_sysenter);
    check_done("sysenter", &c);
    check_record("sysenter", WANT(S(1), S(to), S(to + 1), S(to + 2)));
    wrmsr(0x174, 0);
}

/* ---- MOV SS ----------------------------------------------------------------------------------------------------------- */

SNIPPET(m_mov, "mov watched, %ss; nop; nop");
SNIPPET(m_pop, "mov %esp, %ebx; mov $watched, %esp; pop %ss; mov %ebx, %esp; nop");
SNIPPET(m_int, "mov watched, %ss; int $0x30; nop");
SNIPPET(m_store, "mov watched, %ss; mov %eax, watched + 4; nop; nop");
SNIPPET(m_ud, "mov watched, %ss; ud2");

SNIPPET(m_twice_sti, "mov %ss, %eax; mov %eax, %ss; mov %eax, %ss; sti; nop; nop");

static struct context move_ss(const uint8_t *code, uint32_t eflags)
{
    struct context c = context_new(3, code);

    poke(address_of(watched), SEL_UDATA);
    c.eflags |= eflags;
    arm(0, ON_ACCESS, address_of(watched), 2);
    arm(1, ON_WRITE, address_of(watched) + 4, 4);
    run_armed(&c, code);
    return c;
}

/* Its own trap waits for the next instruction, whatever that does; an instruction breakpoint there is not seen. */
static void held_off(void)
{
    struct context c = move_ss(m_mov, 0);

    check_record("watched_mov_ss", WANT(AT(7, 1)));
    c = move_ss(m_pop, 0);
    check_record("watched_pop_ss", WANT(AT(10, 1)));
    c = move_ss(m_mov, EFL_TF);
    check_record("watched_mov_ss_stepped", WANT(AT(7, BS | 1), S(8)));
    c = move_ss(m_store, 0);
    check_record("watched_mov_ss_and_store", WANT(AT(11, 3)));
    c = move_ss(m_int, 0);
    check_done("watched_mov_ss_then_int", &c);
    check_record("watched_mov_ss_then_int", WANT(AT(HANDLER(m_int), 1)));
    c = move_ss(m_int, EFL_TF);
    check_record("watched_mov_ss_then_int_stepped", WANT(AT(HANDLER(m_int), 1), S(9)));
    c = move_ss(m_ud, 0);
    check_fault("watched_mov_ss_then_fault", &c, V_UD, 0);
    c = context_new(0, s_mov_ss);
    arm(0, ON_FETCH, address_of(s_mov_ss) + 4, 1);
    run_armed(&c, s_mov_ss);
    check_record("breakpoint_behind_mov_ss", WANT());
    c = context_new(0, s_mov_ss);
    arm(0, ON_FETCH, address_of(s_mov_ss) + 5, 1);
    run_armed(&c, s_mov_ss);
    check_record("breakpoint_further_behind", WANT(AT(5, 1)));
    c = context_new(0, s_cli_sti);
    arm(0, ON_FETCH, address_of(s_cli_sti) + 3, 1);
    run_armed(&c, s_cli_sti);
    check_record("breakpoint_behind_sti", WANT(AT(3, 1)));
    c = context_new(0, m_twice_sti);
    arm(0, ON_FETCH, address_of(m_twice_sti) + 7, 1);
    run_armed(&c, m_twice_sti);
    check_done("breakpoint_behind_sti_behind_mov_ss", &c);
    check_record("breakpoint_behind_sti_behind_mov_ss", WANT(AT(7, 1)));
}

/* ---- with breakpoints --------------------------------------------------------------------------------------------------- */

SNIPPET(b_store, "movl $1, watched; nop; nop");
SNIPPET(b_rep, "rep stosb; nop; nop");

static void with_breakpoints(void)
{
    struct context c = context_new(3, b_store);

    c.eflags |= EFL_TF;
    arm(3, ON_WRITE, address_of(watched), 4);
    run_armed(&c, b_store);
    check_record("store_stepped", WANT(AT(10, BS | 8), S(11), S(12)));
    c = context_new(3, b_store); /* the next instruction has one as well */
    arm(3, ON_WRITE, address_of(watched), 4);
    arm(0, ON_FETCH, address_of(b_store) + 10, 1);
    run_armed(&c, b_store);
    check_record("store_before_a_breakpoint", WANT(AT(10, 9)));
    c = context_new(3, b_rep);
    c.eflags |= EFL_TF;
    c.edi = address_of(watched);
    c.ecx = 3;
    arm(0, ON_WRITE, address_of(watched) + 1, 1);
    run_armed(&c, b_rep);
    check_record("string_stepped", WANT(S(0) | RF, AT(0, BS | 1 | RF), S(2), S(3), S(4)));
}

/* ---- interrupts ------------------------------------------------------------------------------------------------------------ */

#define IRQ0 0x20

static struct {
    uint32_t eip, flags;
    unsigned debug_before, count; /* debug exceptions seen before it */
} irq;

static bool on_irq(struct frame *f)
{
    if (f->vector != IRQ0)
        return on_debug(f);
    if (!irq.count++) {
        irq.eip = f->eip;
        irq.flags = f->eflags;
        irq.debug_before = record.count;
    }
    outb(0x21, 0xff);
    outb(0x20, 0x20);
    return true;
}

/* One tick of the timer is pending at the PIC, which is masked or not. */
static void make_tick(uint8_t mask)
{
    outb(0x43, 0x30);
    outb(0x40, 100);
    outb(0x40, 0);
    outb(0x20, 0x0a);
    while (!(inb(0x20) & 1))
        ;
    outb(0x21, mask);
}

static void run_with_tick(struct context *c, const uint8_t *code, uint8_t mask)
{
    irq.count = 0;
    record.base = address_of(code);
    record.count = 0;
    guest_hook = on_irq;
    set_dr6(DR6_NONE);
    make_tick(mask);
    set_dr7(armed | 0x400);
    context_run(c);
    set_dr7(0x400);
    outb(0x21, 0xff);
    guest_hook = NULL;
    record.once = false;
    armed = 0;
}

SNIPPET(q_sti, "nop; sti; nop; nop");
SNIPPET(q_line, "nop; nop");
SNIPPET(q_unmask, "mov $0xfe, %al; out %al, $0x21; nop; nop");

static void interrupts(void)
{
    struct context c = context_new(0, q_sti);

    c.eflags |= EFL_TF;
    run_with_tick(&c, q_sti, 0xfe);
    check_done("tick_stepped", &c);
    check_eq("tick_stepped_count", irq.count, 1);
    check_record("tick_stepped", WANT(S(1), S(2), S(3), S(4)));
    check_eq("tick_after_the_trap_of_sti", irq.eip - address_of(q_sti), 2);
    check_eq("tick_after_the_trap_of_sti_order", irq.debug_before, 2);
    c = context_new(0, q_line);
    c.eflags |= EFL_IF | EFL_RF;
    run_with_tick(&c, q_line, 0xfe);
    check_eq("tick_before_the_first_instruction", irq.eip - address_of(q_line), 0);
    check_eq("tick_saves_RF", irq.flags & EFL_RF, EFL_RF);
    set_cr4(get_cr4() | CR4_DE);
    c = context_new(0, q_unmask);
    c.eflags |= EFL_IF;
    arm(0, ON_PORT, 0x21, 1);
    record.once = true; /* the handler uses that port, too */
    run_with_tick(&c, q_unmask, 0xff);
    check_done("trap_before_tick", &c);
    check_record("trap_before_tick", WANT(AT(4, 1)));
    check_eq("trap_before_tick_eip", irq.eip - address_of(q_unmask), 4);
    check_eq("trap_before_tick_order", irq.debug_before, 1);
    set_cr4(get_cr4() & ~CR4_DE);
    c = context_new(0, q_line);
    c.eflags |= EFL_IF;
    arm(0, ON_FETCH, address_of(q_line), 1);
    run_with_tick(&c, q_line, 0xfe);
    check_eq("tick_before_instruction_breakpoint", irq.debug_before, 0);
    check_record("tick_before_instruction_breakpoint", WANT(AT(0, 1)));
}

/* ---- tasks -------------------------------------------------------------------------------------------------------------------- */

static struct tss other __attribute__((aligned(256)));
static uint8_t other_stack[1024] __attribute__((aligned(16)));
#define SEL_OTHER 0x48

SNIPPET(k_jump, "nop; ljmp $0x48, $0; nop; nop");
SNIPPET(k_call, "nop; lcall $0x48, $0; nop; nop");
SNIPPET(k_other, "nop; nop; ljmp $0x28, $0; nop");
SNIPPET(k_return, "nop; iret; nop");
SNIPPET(k_fault, "mov guest_tss + 36, %eax; mov %eax, watched; addl $2, guest_tss + 32; iret"); /* EFLAGS, EIP */

static void other_task(const uint8_t *code, uint32_t eflags, uint16_t trap)
{
    memset(&other, 0, sizeof other);
    other.cr3 = guest_tss.cr3 = get_cr3();
    other.eip = address_of(code);
    other.eflags = eflags | 2;
    other.esp = address_of(other_stack + sizeof other_stack);
    other.cs = SEL_KCODE;
    other.ss = other.ds = other.es = other.fs = other.gs = SEL_KDATA;
    other.trap = trap;
    other.io_base = 0x68;
    guest_gdt[SEL_OTHER >> 3] = DESC(address_of(&other), 0x67, 0x89, 0);
}

#define OTHER(code) (address_of(k_other) - address_of(code))

static void tasks(void)
{
    uint32_t dr7;
    struct context c;

    other_task(k_other, 0, 1);
    c = context_new(0, k_jump);
    run_armed(&c, k_jump);
    check_done("t_bit", &c);
    check_record("t_bit", WANT(AT(OTHER(k_jump), BT)));
    other_task(k_other, 0, 0);
    c = context_new(0, k_jump);
    arm_disabled(0, ON_FETCH, address_of(k_other), 1);
    arm_disabled(1, ON_FETCH, address_of(k_other) + 1, 1);
    armed |= DR7_L(0) | DR7_L(1) | DR7_G(1) | 0x300;
    record.base = address_of(k_other);
    record.count = 0;
    guest_hook = on_debug;
    set_dr7(armed | 0x400);
    context_run(&c);
    dr7 = get_dr7();
    set_dr7(0x400);
    guest_hook = NULL;
    armed = 0;
    check_record("local_breakpoints_end", WANT(AT(1, 2)));
    check_eq("local_bits_are_cleared", dr7, 0x400 | DR7_G(1) | 0x200);
    /* TF of the old task is in its image; the switch itself makes no trap */
    other_task(k_other, 0, 0);
    c = context_new(0, k_jump);
    c.eflags |= EFL_TF;
    run_armed(&c, k_jump);
    check_done("stepping_out_of_a_task", &c);
    check_record("stepping_out_of_a_task", WANT(S(1), S(9), S(10)));
    other_task(k_other, EFL_TF, 0);
    c = context_new(0, k_jump);
    run_armed(&c, k_jump);
    check_record("stepping_in_a_new_task", WANT(S(OTHER(k_jump) + 1), S(OTHER(k_jump) + 2)));
    other_task(k_other, EFL_RF, 0);
    c = context_new(0, k_jump);
    arm(0, ON_FETCH, address_of(k_other), 1);
    run_armed(&c, k_jump);
    check_record("RF_comes_from_the_tss", WANT());
    other_task(k_return, 0, 1);
    c = context_new(0, k_call);
    run_armed(&c, k_call);
    check_done("t_bit_of_a_call", &c);
    check_record("t_bit_of_a_call", WANT(AT(address_of(k_return) - address_of(k_call), BT)));
    /* what a fault through a task gate saves */
    other_task(k_fault, 0, 0);
    idt_set(V_UD, GATE(SEL_OTHER, 0, 0x85));
    poke(address_of(watched), 0);
    c = context_new(0, e_ud);
    run_armed(&c, e_ud);
    check_done("fault_through_a_task_gate", &c);
    check_eq("fault_through_a_task_gate_saves_RF", peek(address_of(watched)) & EFL_RF, EFL_RF);
    idt_set(V_UD, GATE(SEL_KCODE, address_of(vector_entries) + 16 * V_UD, 0x8e));
}

/* Which doublewords of both TSSs does a switch access? Bit n: the one at offset 4 * n. */
static uint32_t tss_accesses(const uint8_t *code, uint32_t tss, enum break_kind kind)
{
    uint32_t met = 0;

    for (unsigned n = 0; n < 26; n++) {
        struct context c = context_new(0, code);

        other_task(k_other, 0, 0);
        arm(0, kind, tss + 4 * n, 4);
        record.once = true;
        run_armed(&c, code);
        met |= (record.count != 0 ? 1u : 0) << n;
    }
    return met;
}

/* Both are left and entered once. Link and stacks are neither saved nor loaded by a jump. */
static void watched_tasks(void)
{
    check_eq("task_switch_writes_old", tss_accesses(k_jump, address_of(&guest_tss), ON_WRITE), 0x00ffff00);
    check_eq("task_switch_accesses_old", tss_accesses(k_jump, address_of(&guest_tss), ON_ACCESS), 0x03ffff80);
    check_eq("task_switch_writes_new", tss_accesses(k_jump, address_of(&other), ON_WRITE), 0x00ffff00);
    check_eq("task_switch_accesses_new", tss_accesses(k_jump, address_of(&other), ON_ACCESS), 0x03ffff80);
}

/* ---- RF ---------------------------------------------------------------------------------------------------------------------- */

SNIPPET(w_pushf, "pushf; pop %eax; nop");
SNIPPET(w_int, "int $0x7f");
SNIPPET(w_popf, "pushf; orl $0x10000, (%esp); popf; nop; nop");

static void resume_flag(void)
{
    struct context c = context_new(3, w_pushf);

    c.eflags |= EFL_RF;
    context_run(&c);
    check_eq("pushf_shows_no_RF", c.eax & EFL_RF, 0);
    c = context_new(3, w_int);
    c.eflags |= EFL_RF;
    context_run(&c);
    check_eq("int_pushes_no_RF", c.eflags & EFL_RF, 0);
    c = context_new(3, w_popf);
    arm(0, ON_FETCH, address_of(w_popf) + 9, 1);
    run_armed(&c, w_popf);
    check_record("popf_does_not_set_RF", WANT(AT(9, 1)));
}

/* ---- virtual-8086 mode and 16-bit code --------------------------------------------------------------------------------------- */

SNIPPET16(x_line, "nop; movw %ax, 0x40; push %ax; pop %cx; movw $2, %cx; rep; stosb; nop");

static void check_16_bit(const char *name, struct context c, const uint32_t *want, unsigned count)
{
    c.eflags |= EFL_TF | EFL_IOPL;
    c.edi = 0x100;
    run_armed(&c, NULL);
    check_done(name, &c);
    check_record(name, want, count);
}

/* Real mode: the handler counts at DS:10h and lists the IPs it comes from, DR6 of the last one at DS:14h. */
SNIPPET16(x_handler, "push %ax; push %bx; push %bp; mov %sp, %bp; incw 0x10; movw 0x10, %bx; addw %bx, %bx;"
                     "movw 6(%bp), %ax; movw %ax, 0x20(%bx); pushl %eax; movl %dr6, %eax; movl %eax, 0x14;"
                     "popl %eax; pop %bp; pop %bx; pop %ax; iret");
SNIPPET16(x_stack, "nop; movw %ss, %ax; movw %ax, %ss; nop; sti; cli; xorw %ax, %ax; push %ax; popf; nop");

static void check_real(const char *name, const void *code, size_t bytes, uint32_t eflags, const uint16_t *want, unsigned count)
{
    struct context c = real_new();

    code_place(code, bytes, 0);
    PLACE(x_handler, 0x800);
    ivt_set(1, CODE_SEG, 0x800);
    memset((void *)DATA_AT, 0, 0x80);
    c.eflags |= eflags;
    c.edi = 0x100;
    set_dr6(DR6_NONE);
    set_dr7(armed | 0x400);
    real_run(&c);
    set_dr7(0x400);
    armed = 0;
    check_done(name, &c);
    check_eq(name, peek16(DATA_AT + 0x10), count);
    for (unsigned i = 0; i < count; i++)
        check_eq(name, peek16(DATA_AT + 0x22 + 2 * i), want[i]);
}

static void real_mode(void)
{
    arm(0, ON_WRITE, DATA_AT + 0x41, 1);
    check_real("real_breakpoint", x_line, (size_t)(x_line_end - x_line), 0, (const uint16_t[]){ 4 }, 1);
    check_eq("real_breakpoint_dr6", peek(DATA_AT + 0x14), DR6_NONE | 1);
    check_real("real_steps", x_line, (size_t)(x_line_end - x_line), EFL_TF,
               (const uint16_t[]){ 1, 4, 5, 6, 9, 9, 11, 12 }, 8);
    check_eq("real_steps_dr6", peek(DATA_AT + 0x14), DR6_NONE | 0x4000);
    check_real("real_steps_and_shadows", x_stack, (size_t)(x_stack_end - x_stack), EFL_TF,
               (const uint16_t[]){ 1, 3, 6, 7, 8, 10, 11, 12 }, 8);
}

static void other_modes(void)
{
    modes_init();
    paging_off();
    real_mode();
    paging_on();
    PLACE(x_line, 0);
    arm(0, ON_WRITE, DATA_AT + 0x41, 1);
    arm(1, ON_WRITE, STACK_AT + STACK_TOP - 2, 2);
    arm_disabled(2, ON_FETCH, NOWHERE, 1);
    check_16_bit("vm86", vm86_new(), WANT(S(1), AT(4, BS | 1), AT(5, BS | 2), S(6), S(9), S(9) | RF, S(11), S(12)));
    PLACE(x_line, 0);
    arm(0, ON_WRITE, DATA_AT + 0x41, 1);
    arm(1, ON_WRITE, STACK_AT + STACK_TOP - 2, 2);
    check_16_bit("prot16", prot16_new(3), WANT(S(1), AT(4, BS | 1), AT(5, BS | 2), S(6), S(9), S(9) | RF, S(11), S(12)));
    if (option_given("qemu")) /* it would end itself */
        return;
    PLACE(x_line, 0);
    arm(0, ON_FETCH, CODE_AT + 4, 1);
    struct context c = vm86_new();
    c.eflags |= EFL_IOPL;
    run_armed(&c, NULL);
    check_done("vm86_breakpoint", &c);
    check_record("vm86_breakpoint", WANT(AT(4, 1)));
    arm(0, ON_FETCH, CODE_AT, 1);
    arm(1, ON_FETCH, CODE_AT + 1, 1);
    c = vm86_new();
    c.eflags |= EFL_IOPL | EFL_RF;
    run_armed(&c, NULL);
    check_record("vm86_RF", WANT(AT(1, 2)));
}

void guest_main(void)
{
    idt_set(OWN_VECTOR, GATE(SEL_KCODE, address_of(handler), 0xee));
    paging_on();
    straight(0);
    straight(3);
    effects();
    setting(0);
    setting(3);
    handlers(0);
    handlers(3);
    privilege();
    held_off();
    with_breakpoints();
    interrupts();
    tasks();
    if (!option_given("qemu")) /* it would end itself: its own accesses under watch find a lock taken */
        watched_tasks();
    resume_flag();
    other_modes();
}
