/*
 * Ordinary user code: paging on, flat segments, IF set, no LDT. That is the code a monitor may let the processor run as
 * it is; each check is something that user code does and that needs the monitor, or must look as if there were none.
 *
 * Ref: Intel SDM vol. 3A, ch. "Protection", "Interrupt and Exception Handling"; vol. 2, POPF, PUSHF, MOV, LAR.
 */
#include "../lib/guest.h"

#define RWU      (PTE_P | PTE_W | PTE_U)
#define PAGE     SCRATCH
#define SEL_DATA (SEL_FREE | 3)
#define IRQ0     0x20
#define CALLS    1000u

SNIPPET(u_sum, "mov $100000, %ecx; xor %eax, %eax; 1: add %ecx, %eax; dec %ecx; jnz 1b");
SNIPPET(u_pushf, "pushf; pop %eax");
SNIPPET(u_popf, "pushl $0x247ed7; popf; pushf; pop %eax; pushl $0x202; popf");
SNIPPET(u_popf_tf, "pushl $0x302; popf; u_tf_1: inc %eax; u_tf_2: inc %eax");
SNIPPET(u_popf_tf_fault, "mov $0x800000, %ebx; pushl $0x302; popf; mov (%ebx), %ecx; u_tf_fault: inc %eax");
SNIPPET(u_call, "int $0x80; u_after_call: nop");
SNIPPET(u_calls, "mov $1000, %ecx; 1: int $0x80; dec %ecx; jnz 1b");
SNIPPET(u_int1, ".byte 0xf1; u_after_int1: nop");
SNIPPET(u_cli, "cli");
SNIPPET(u_hlt, "hlt");
SNIPPET(u_in, "in $0x61, %al");
SNIPPET(u_cr3, "mov %cr3, %eax");
SNIPPET(u_ud, "ud2");
SNIPPET(u_de, "xor %ecx, %ecx; div %ecx");
SNIPPET(u_not_ours, "int $0x20");
SNIPPET(u_read, "mov (%eax), %ecx");
SNIPPET(u_write, "mov %ecx, (%eax)");
SNIPPET(u_exec, "call *%eax");
SNIPPET(u_load, "mov %eax, %fs; mov %fs:0, %ecx; mov %fs, %edx");
SNIPPET(u_load_far, "mov %eax, %fs; int $0x80; mov %fs:0, %ecx; mov %fs, %edx");
SNIPPET(u_spin, "1: inc %eax; jmp 1b");
SNIPPET(u_fpu, "fninit; fld1; fadd %st(0), %st; fistpl (%eax); mov (%eax), %ecx");
SNIPPET(u_regs, "mov $1, %eax; mov $2, %ecx; mov $3, %edx; mov $4, %ebx; mov $5, %esi; mov $6, %edi; mov $7, %ebp; int $0x80");
LABEL(u_tf_2);
LABEL(u_tf_fault);
LABEL(u_after_call);
LABEL(u_after_int1);

static struct frame last;
static uint32_t calls, ticks;

static bool on_call(struct frame *f)
{
    if (f->vector == IRQ0) {
        ticks++;
        outb(0x20, 0x20);
        return false;
    }
    if (f->vector != 0x80)
        return false;
    last = *f;
    calls++;
    return true;
}

static struct context user(const void *code, uint32_t eax, uint32_t ecx)
{
    struct context c = context_new(3, code);

    c.eflags |= EFL_IF;
    c.eax = eax;
    c.ecx = ecx;
    context_run(&c);
    return c;
}

static void computing(void)
{
    struct context c = user(u_sum, 0, 0);

    check_done("sum", &c);
    check_eq("sum_is_right", c.eax, 705082704u);
    c = user(u_fpu, PAGE, 0);
    check_eq("fpu", c.ecx, 2);
    c = user(u_regs, 0, 0);
    check("registers_reach_the_handler", last.eax == 1 && last.ecx == 2 && last.edx == 3 && last.ebx == 4 && last.esi == 5 &&
                                             last.edi == 6 && last.ebp == 7);
    check("registers_come_back", c.eax == 1 && c.ecx == 2 && c.edx == 3 && c.ebx == 4 && c.esi == 5 && c.edi == 6 && c.ebp == 7);
}

static void flags(void)
{
    struct context c = user(u_pushf, 0, 0);

    check_eq("pushf_shows_IF_and_no_IOPL", c.eax & (EFL_IF | EFL_IOPL), EFL_IF);
    c = user(u_popf, 0, 0);
    check_eq("popf_keeps_IF_and_IOPL", c.eax & (EFL_IF | EFL_IOPL), EFL_IF);
    check_eq("popf_writes_the_others", c.eax & (0x8d5u | EFL_DF | EFL_NT | EFL_AC | EFL_ID), 0x8d5u | EFL_DF | EFL_NT | EFL_AC | EFL_ID);
    c = user(u_popf_tf, 0, 0);
    check_fault("TF_traps", &c, V_DB, 0);
    check_eq("TF_traps_behind_the_next_instruction", c.eip, address_of(u_tf_2));
    pte_set(PAGE, 0);
    guest_hook = add_page;
    c = user(u_popf_tf_fault, 0, 0);
    guest_hook = on_call;
    check_eq("TF_traps_behind_one_that_faulted_first", c.vector == V_DB ? c.eip : 0, address_of(u_tf_fault));
    pte_set(PAGE, PAGE | RWU);
}

static void calling(void)
{
    struct context c;

    calls = 0;
    c = user(u_call, 0, 0);
    check_done("call", &c);
    check_eq("call_returns_behind_INT", last.eip, address_of(u_after_call));
    check_eq("call_comes_from_user_code", last.cs << 16 | last.ss, SEL_UCODE << 16 | SEL_UDATA);
    check_eq("call_shows_IF", last.eflags & EFL_IF, EFL_IF);
    c = user(u_calls, 0, 0);
    check_eq("calls", calls, CALLS + 1);
    c = user(u_int1, 0, 0);
    check_fault("INT1", &c, V_DB, 0);
    check_eq("INT1_is_a_trap", c.eip, address_of(u_after_int1));
    c = user(u_not_ours, 0, 0);
    check_fault("INT_of_a_gate_of_ring_0", &c, V_GP, 0x102);
}

static void refused(void)
{
    static const struct {
        const char *name;
        const void *code;
        uint32_t vector;
    } row[] = { { "CLI", u_cli, V_GP }, { "HLT", u_hlt, V_GP }, { "IN", u_in, V_GP }, { "CR3", u_cr3, V_GP }, { "UD2", u_ud, V_UD },
                { "DIV", u_de, V_DE } };

    for (unsigned i = 0; i < sizeof row / sizeof *row; i++) {
        struct context c = user(row[i].code, 0, 0);
        check_fault(row[i].name, &c, row[i].vector, 0);
    }
}

static void paging(void)
{
    struct context c;

    pte_set(PAGE, 0);
    check_page_fault("read_of_nothing", user(u_read, PAGE + 4, 0), 4, PAGE + 4);
    check_page_fault("fetch_from_nothing", user(u_exec, PAGE, 0), 4, PAGE);
    pte_set(PAGE, PAGE | PTE_P | PTE_W);
    check_page_fault("read_of_ring_0_page", user(u_read, PAGE + 4, 0), 5, PAGE + 4);
    pte_set(PAGE, PAGE | PTE_P | PTE_U);
    check_page_fault("store_to_read_only_page", user(u_write, PAGE + 8, 1), 7, PAGE + 8);
    c = user(u_read, PAGE, 0);
    check_eq("read_sets_A_alone", *pte_of(PAGE) & (PTE_A | PTE_D), PTE_A);
    pte_set(PAGE, PAGE | RWU);
    c = user(u_write, PAGE, 0x1234);
    check_done("store", &c);
    check_eq("store_sets_A_and_D", *pte_of(PAGE) & (PTE_A | PTE_D), PTE_A | PTE_D);
    check_eq("store_arrives", peek(PAGE), 0x1234);
    pte_set(PAGE, (PAGE + 0x1000) | RWU);
    poke(PAGE, 0x4321);
    c = user(u_read, PAGE, 0);
    check_eq("another_page_is_seen", c.ecx, 0x4321);
    pte_set(PAGE, PAGE | RWU);
    c = user(u_read, PAGE, 0);
    check_eq("and_the_first_again", c.ecx, 0x1234);
}

/* Code is written by ring 0 and by user code, and runs at once. */
static void code(void)
{
    static const uint8_t text[] = { 0xb8, 0x11, 0, 0, 0, 0xc3 }; /* mov $0x11, %eax; ret */
    struct context c;

    memcpy((void *)PAGE, text, sizeof text);
    c = user(u_exec, PAGE, 0);
    check_eq("code", c.eax, 0x11);
    poke(PAGE + 1, 0x22);
    c = user(u_exec, PAGE, 0);
    check_eq("code_written_by_ring_0", c.eax, 0x22);
    user(u_write, PAGE + 1, 0x33);
    c = user(u_exec, PAGE, 0);
    check_eq("code_written_by_user_code", c.eax, 0x33);
}

static void segments(void)
{
    struct context c;

    poke(PAGE, 0xaaaa);
    poke(PAGE + 0x100, 0xbbbb);
    guest_gdt[SEL_FREE / 8] = DESC(PAGE, 0xfff, 0xf2, 0x4);
    c = user(u_load, SEL_DATA, 0);
    check_eq("load", c.ecx << 16 | c.edx, 0xaaaau << 16 | SEL_DATA);
    check_eq("load_sets_accessed", (uint32_t)(guest_gdt[SEL_FREE / 8] >> 40) & 1, 1);
    guest_gdt[SEL_FREE / 8] = DESC(PAGE + 0x100, 0xfff, 0xf3, 0x4);
    c = user(u_load_far, SEL_DATA, 0);
    check_eq("load_of_a_changed_descriptor", c.ecx << 16 | c.edx, 0xbbbbu << 16 | SEL_DATA);
    check_eq("handler_sees_it", last.fs & 0xffff, SEL_DATA);
    guest_gdt[SEL_FREE / 8] = DESC(PAGE, 0xfff, 0x93, 0x4);
    c = user(u_load, SEL_DATA, 0);
    check_fault("load_of_ring_0_data", &c, V_GP, SEL_DATA & ~3u);
    guest_gdt[SEL_FREE / 8] = DESC(PAGE, 0xfff, 0x73, 0x4);
    c = user(u_load, SEL_DATA, 0);
    check_fault("load_of_what_is_absent", &c, V_NP, SEL_DATA & ~3u);
    c = user(u_load, 0x1003, 0);
    check_fault("load_beyond_the_table", &c, V_GP, 0x1000);
    c = user(u_load, 0x1019, 0);
    check_fault("load_far_beyond_the_table", &c, V_GP, 0x1018);
    c = user(u_load, 0, 0);
    check_fault("use_of_null", &c, V_GP, 0);
    guest_gdt[SEL_FREE / 8] = 0;
}

static void interrupts(void)
{
    struct context c;

    ticks = 0;
    pit_one_shot(5000);
    c = user(u_spin, 0, 0);
    check_eq("a_loop_is_interrupted", c.vector << 8 | ticks, IRQ0 << 8 | 1);
    pit_stop();
}

void guest_main(void)
{
    guest_hook = on_call;
    __asm__ volatile("lldt %w0" : : "r"(0));
    set_cr4(get_cr4() | 0x600); /* SSE works: OSFXSR, OSXMMEXCPT */
    paging_on();
    computing();
    flags();
    calling();
    refused();
    paging();
    code();
    segments();
    interrupts();
    paging_off();
}
