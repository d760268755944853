/*
 * External interrupts: the 8254 through the 8259s, the shadows of STI and of loads of SS,
 * waking from HLT, and that every kind of loop and a long REP can be interrupted.
 *
 * Ref: Intel SDM vol. 3A, ch. 6; vol. 2 "STI", "MOV", "HLT"; 8259A and 8254 datasheets.
 */
#include "../lib/guest.h"

#define IRQ0        0x20
#define PIT_HZ      1193182u
#define PM_TIMER    0x608 /* where our tables and QEMU's firmware put it */
#define PM_TIMER_HZ 3579545u

static volatile uint32_t ticks;
static struct frame last;
static bool stop_at_tick;

static bool on_tick(struct frame *f)
{
    if (f->vector != IRQ0)
        return false;
    ticks++;
    last = *f;
    outb(0x20, 0x20);
    return !stop_at_tick;
}

static void pit_periodic(uint16_t divisor)
{
    outb(0x43, 0x34); /* channel 0, both bytes, mode 2 */
    outb(0x40, (uint8_t)divisor);
    outb(0x40, (uint8_t)(divisor >> 8));
}

SNIPPET(i_sti, "sti; s_sti_1: inc %eax; s_sti_2: inc %eax; inc %eax; inc %eax");
SNIPPET(i_sti_cli, "sti; cli; nop; nop");
SNIPPET(i_sti_hlt, "sti; hlt; i_after_hlt: nop");
SNIPPET(i_popf, "pushl $0x202; popf; i_after_popf: nop; nop");
SNIPPET(i_sti_twice, "pushl $0x202; popf; nop");
SNIPPET(i_ss_tf, "mov %ss, %eax; pushf; orl $0x100, (%esp); popf; i_ss_tf_1: mov %eax, %ss; i_ss_tf_2: mov "
                 "$1, %ebx; i_ss_tf_3: mov $2, %ebx");
SNIPPET(i_jmp_self, "1: jmp 1b");
SNIPPET(i_loop_two, "1: inc %eax; jmp 2f; 2: dec %ebx; jmp 1b");
SNIPPET(i_jcc_self, "stc; 1: jc 1b");
SNIPPET(i_call_loop, "1: call 2f; jmp 1b; 2: inc %eax; ret");
SNIPPET(i_indirect_loop, "mov $1f, %ecx; 1: inc %eax; jmp *%ecx");
SNIPPET(i_ret_loop, "1: push $1b; ret");
SNIPPET(i_long_loop, "1: mov $0x10000000, %ecx; 2: loop 2b; jmp 1b");
SNIPPET(i_mem_loop, "mov $scratch_word, %ecx; 1: incl (%ecx); jmp 1b");
SNIPPET(i_string_loop, "1: mov $0x10000, %ecx; mov $0x900000, %edi; rep stosl; jmp 1b");
SNIPPET(i_rep_long, "rep stosb");
SNIPPET(i_rep_movs, "rep movsl");
LABEL(s_sti_1);
LABEL(s_sti_2);
LABEL(i_after_hlt);
LABEL(i_after_popf);
LABEL(i_ss_tf_3);
static volatile uint32_t scratch_word_storage __attribute__((used));
__asm__(".set scratch_word, scratch_word_storage");

static void shadows(void)
{
    struct context c;

    stop_at_tick = true;
    pit_pending();
    c = run_at(0, i_sti);
    check_eq("sti_vector", c.vector, IRQ0);
    check_eq("sti_shadow_is_one_instruction", c.eip, address_of(s_sti_2));
    check_eq("interrupt_frame_has_IF", c.eflags & EFL_IF, EFL_IF);
    pit_pending();
    c = run_at(0, i_sti_cli);
    check_done("sti_cli_lets_nothing_in", &c);
    c = run_at(0, i_popf);
    check_eq("popf_has_no_shadow", c.vector == IRQ0 ? c.eip : 0, address_of(i_after_popf));
    pit_pending();
    c = run_at(0, i_sti_hlt);
    check_eq("sti_hlt_takes_it_in_hlt", c.vector == IRQ0 ? c.eip : 0, address_of(i_after_hlt));
    pit_stop();
    c = run_at(0, i_ss_tf);
    check_eq("mov_ss_delays_single_step", c.vector, V_DB);
    check_eq("mov_ss_delays_single_step_by_one", c.eip, address_of(i_ss_tf_3));
}

static void waking(void)
{
    struct context c;

    stop_at_tick = true;
    pit_one_shot(20000);
    c = run_at(0, i_sti_hlt);
    check_eq("hlt_wakes", c.vector, IRQ0);
    check_eq("hlt_wakes_after_itself", c.eip, address_of(i_after_hlt));
    pit_stop();
}

static void periodic(void)
{
    uint32_t seen = 0, from;

    stop_at_tick = false;
    ticks = 0;
    outb(0x21, 0xfe);
    from = inl(PM_TIMER);
    pit_periodic(PIT_HZ / 200);
    for (int i = 0; i < 20; i++) {
        uint32_t before = ticks;

        __asm__ volatile("sti; hlt; cli");
        seen += ticks != before;
    }
    pit_stop();
    check_eq("twenty_ticks_wake_twenty_halts", seen, 20);
    /* A host that is late gets a wake two ticks, but time never makes more than its share. */
    uint32_t elapsed = (inl(PM_TIMER) - from) & 0xffffff;
    check("no_more_ticks_than_time_holds", ticks >= 20 && ticks <= elapsed / (PM_TIMER_HZ / 200) + 1);
}

static void counting(void)
{
    uint16_t a, b;

    outb(0x43, 0x34);
    outb(0x40, 0xff);
    outb(0x40, 0xff);
    outb(0x43, 0x00);
    a = inb(0x40);
    a |= (uint16_t)(inb(0x40) << 8);
    for (volatile int i = 0; i < 10000; i++)
        ;
    outb(0x43, 0x00);
    b = inb(0x40);
    b |= (uint16_t)(inb(0x40) << 8);
    check("pit_counts_down", a != b);
    pit_stop();
}

/* Every loop must end when the timer fires, at either ring. */
static void every_loop(const char *name, const void *code)
{
    for (int ring = 0; ring <= 3; ring += 3) {
        struct context c = context_new(ring, code);

        stop_at_tick = true;
        pit_one_shot(5000);
        c.eflags |= EFL_IF;
        context_run(&c);
        check_eq(name, c.vector, IRQ0);
        check_eq(name, c.cs, ring ? SEL_UCODE : SEL_KCODE);
        pit_stop();
    }
}

/* A long REP is interrupted in its middle with registers that let it go on. */
static void long_rep(void)
{
    struct context c = context_new(3, i_rep_long);
    uint32_t bad = 0;

    stop_at_tick = false;
    ticks = 0;
    outb(0x21, 0xfe);
    pit_periodic(PIT_HZ / 5000);
    c.eflags |= EFL_IF;
    c.eax = 0x5a;
    c.edi = SCRATCH;
    c.ecx = 0x600000;
    context_run(&c);
    pit_stop();
    check_done("long_rep_stos", &c);
    check_eq("long_rep_stos_ecx", c.ecx, 0);
    check_eq("long_rep_stos_edi", c.edi, SCRATCH + 0x600000);
    for (uint32_t i = 0; i < 0x600000; i += 4)
        bad += peek(SCRATCH + i) != 0x5a5a5a5a;
    check_eq("long_rep_stos_memory", bad, 0);

    /* stopped for good at the first tick: the frame must be consistent */
    stop_at_tick = true;
    pit_one_shot(300);
    c = context_new(3, i_rep_movs);
    c.eflags |= EFL_IF;
    c.esi = SCRATCH;
    c.edi = SCRATCH + 0x300000;
    c.ecx = 0x300000 / 4;
    context_run(&c);
    if (c.vector == IRQ0 && c.eip == address_of(i_rep_movs)) {
        check_eq("interrupted_rep_esi_and_ecx", (c.esi - SCRATCH) / 4 + c.ecx, 0x300000 / 4);
        check_eq("interrupted_rep_edi_and_esi", c.edi - c.esi, 0x300000);
    } else {
        check("rep_was_over_before_the_tick", c.ecx == 0);
    }
    pit_stop();
}

static void ring3_frame(void)
{
    struct context c = context_new(3, i_jmp_self);

    stop_at_tick = true;
    pit_one_shot(3000);
    c.eflags |= EFL_IF;
    c.eax = 0x11;
    c.ebp = 0x22;
    context_run(&c);
    pit_stop();
    check_eq("ring3_interrupt_eip", c.eip, address_of(i_jmp_self));
    check_eq("ring3_interrupt_ss", c.ss, SEL_UDATA);
    check_eq("ring3_interrupt_eax", c.eax, 0x11);
    check_eq("ring3_interrupt_ebp", c.ebp, 0x22);
}

static void controller(void)
{
    uint32_t isr;

    stop_at_tick = false;
    pit_pending();
    outb(0x21, 0xff);
    ticks = 0;
    __asm__ volatile("sti; nop; nop; cli");
    check_eq("masked_line_stays_silent", ticks, 0);
    outb(0x21, 0xfe);
    __asm__ volatile("sti; nop; nop; cli");
    check_eq("unmasked_line_delivers_what_was_pending", ticks, 1);
    outb(0x20, 0x0b); /* read ISR */
    isr = inb(0x20);
    check_eq("end_of_interrupt_clears_ISR", isr & 1, 0);
    outb(0x21, 0x5a);
    check_eq("mask_reads_back", inb(0x21), 0x5a);
    outb(0xa1, 0xa5);
    check_eq("second_mask_reads_back", inb(0xa1), 0xa5);
    outb(0xa1, 0xff);
    pit_stop();
}

void guest_main(void)
{
    guest_hook = on_tick;
    shadows();
    waking();
    periodic();
    counting();
    every_loop("jmp_self", i_jmp_self);
    every_loop("loop_of_two", i_loop_two);
    every_loop("jcc_self", i_jcc_self);
    every_loop("call_loop", i_call_loop);
    every_loop("indirect_loop", i_indirect_loop);
    every_loop("ret_loop", i_ret_loop);
    every_loop("long_loop", i_long_loop);
    every_loop("memory_loop", i_mem_loop);
    every_loop("string_loop", i_string_loop);
    long_rep();
    ring3_frame();
    controller();
    guest_hook = NULL;
}
