/*
 * Virtual-8086 mode: entering and leaving, what IOPL decides, I/O permission, segments and limits, exceptions
 * and interrupts through gates of both sizes and task gates, and the virtual interrupt flag of CR4.VME with
 * its redirection of INT n.
 *
 * Ref: Intel SDM vol. 3B, ch. "8086 Emulation", Virtual-8086 Mode; Interrupt and Exception Handling in
 * Virtual-8086 Mode; vol. 2, CLI, STI, PUSHF, POPF, INT n, IRET.
 */
#include "../lib/modes.h"

#define IRQ0      0x20
#define EFL_VIF   0x80000u
#define EFL_VIP   0x100000u
#define CR4_VME   1u
#define IOPL(n)   ((uint32_t)(n) << 12)
#define SEL_BASED (SEL_FREE + 0x00) /* code with a base: gates of 16 bits reach it */
#define SEL_TASK  (SEL_FREE + 0x08)
#define SEL_CONF  (SEL_FREE + 0x10)

static struct context run_with(uint32_t eflags)
{
    struct context c = vm86_new();

    c.eflags |= eflags;
    context_run(&c);
    return c;
}

#define RUN(name, eflags) (PLACE(name, 0), run_with(eflags))

static void ends(const char *name, const struct context *c, uint32_t vector, uint32_t error, uint32_t ip)
{
    check_fault(name, c, vector, error);
    check_eq(name, c->eip, ip);
    check_eq(name, c->eflags & EFL_VM, EFL_VM);
}

/* INT 7Fh at the end: through its gate when IOPL is 3, else #GP there. */
static void finishes(const char *name, const struct context *c, uint32_t done)
{
    if ((c->eflags & EFL_IOPL) == EFL_IOPL)
        ends(name, c, VEC_DONE, 0, done + 2);
    else
        ends(name, c, V_GP, 0, done);
}
#define FINISHES(what, c, name) finishes(what, &(c), DONE(name))

/* ---- entering, segments -------------------------------------------------------------------------- */

SNIPPET16(v_enter, "mov %ds, %ax; mov %ss, %bx; mov %cs, %cx; movw 0x10, %dx; movw %es:0x10, %si; smsw %di");
SNIPPET16(v_limit, "movb 0xffff, %al; v_limit_1: movw 0xffff, %ax");
SNIPPET16(v_limit_ss, "mov $0xfffd, %bp; v_limit_ss_1: movl (%bp), %eax");
SNIPPET16(v_limit_32, "mov $0x10000, %ebx; v_limit_32_1: movb (%ebx), %al");
SNIPPET16(v_push_1, "mov $1, %sp; v_push_1_1: push %ax");
SNIPPET16(v_jump_big, "v_jump_big_1: ljmpl $0x2000, $0x10000");
SNIPPET16(v_ret_big, "pushl $0x10000; v_ret_big_1: retl");
SNIPPET16(v_iret_big, "pushl $0x3002; pushl $0x2000; pushl $0x10000; v_iret_big_1: iretl");
SNIPPET16(v_any_selector, "mov $0x0003, %ax; mov %ax, %ds; mov $0xffff, %bx; mov %bx, %es; movw %es:0x11, %cx; pushw $0x1235; popw %fs; mov "
                          "%fs, %dx; lds %cs:(9f - v_any_selector), %si; mov %ds, %di; jmp 8f; 9: .word 0x1111, 0x3001; 8:");
SNIPPET16(v_far, "lcall $0x1fff, $(1f - v_far + 16); jmp 2f; 1: mov %cs, %ax; lret; 2: ljmp $0x1ffe, $(3f - v_far + 32); 3: mov "
                 "%cs, %bx");
SNIPPET16(v_stack, "push %sp; pop %ax; pushl %esp; popl %ebx; pushaw; popaw; pushw $0x77; pop %cx");
SNIPPET16(v_cs_write, "movb $0x21, %cs:0x5000; movb %cs:0x5000, %al");
SNIPPET16(v_high, "mov $0xffff, %ax; mov %ax, %es; mov 0x20, %bx; movl %es:(%bx), %ecx");
LABEL(v_limit_1);
LABEL(v_limit_ss_1);
LABEL(v_limit_32_1);
LABEL(v_push_1_1);
LABEL(v_jump_big_1);
LABEL(v_ret_big_1);
LABEL(v_iret_big_1);

static struct frame seen;
static bool look(struct frame *f)
{
    seen = *f;
    __asm__ volatile("pushf; pop %0" : "=r"(seen.frame_esp));
    return false;
}

static const uint8_t high_page[4096] __attribute__((aligned(4096))) = { 1 };

static void entering(void)
{
    struct context c = vm86_new();

    c.esp = 0x12348000;
    c.eflags |= IOPL(3);
    c.es = EXTRA_SEG;
    c.fs = 0xf00f;
    c.gs = 0x1234;
    poke16(DATA_AT + 0x10, 0x1357);
    poke16(EXTRA_AT + 0x10, 0x2468);
    PLACE(v_enter, 0);
    guest_hook = look;
    context_run(&c);
    guest_hook = NULL;
    FINISHES("enter", c, v_enter);
    check_eq("ds_selector", c.eax, DATA_SEG);
    check_eq("ss_selector", c.ebx, STACK_SEG);
    check_eq("cs_selector", c.ecx, CODE_SEG);
    check_eq("ds_base", c.edx, 0x1357);
    check_eq("es_base", c.esi, 0x2468);
    check_eq("smsw_is_allowed", c.edi & 1, 1);
    check_eq("esp_comes_whole", c.esp, 0x12348000);
    check_eq("frame_has_ds", c.ds, DATA_SEG);
    check_eq("frame_has_es", c.es, EXTRA_SEG);
    check_eq("frame_has_fs", c.fs, 0xf00f);
    check_eq("frame_has_gs", c.gs, 0x1234);
    check_eq("frame_has_ss", c.ss, STACK_SEG);
    check_eq("handler_finds_null_ds", seen.ds & 0xffff, 0);
    check_eq("handler_finds_null_es", seen.es & 0xffff, 0);
    check_eq("handler_finds_null_fs", seen.fs & 0xffff, 0);
    check_eq("handler_finds_null_gs", seen.gs & 0xffff, 0);
    check_eq("handler_has_VM_clear", seen.frame_esp & (EFL_VM | EFL_TF | EFL_NT), 0);
    check_eq("iopl_stays_in_the_handler", seen.frame_esp & EFL_IOPL, EFL_IOPL);
}

static void segments(void)
{
    struct context c = RUN(v_limit, 0);

    ends("word_at_ffff", &c, V_GP, 0, OFS(v_limit_1, v_limit));
    c = RUN(v_limit_ss, 0);
    ends("stack_dword_at_fffd", &c, V_SS, 0, OFS(v_limit_ss_1, v_limit_ss));
    c = RUN(v_limit_32, 0);
    ends("offset_of_32_bits_beyond", &c, V_GP, 0, OFS(v_limit_32_1, v_limit_32));
    c = RUN(v_push_1, 0);
    ends("push_at_sp_1", &c, V_SS, 0, OFS(v_push_1_1, v_push_1));
    check_eq("push_at_sp_1_sp", c.esp, 1);
    poke(CODE_AT + 0x10000, 0xf47ecd);
    c = RUN(v_jump_big, 0);
    ends("far_jump_beyond", &c, V_GP, 0, OFS(v_jump_big_1, v_jump_big));
    c = RUN(v_ret_big, 0);
    ends("return_beyond", &c, V_GP, 0, OFS(v_ret_big_1, v_ret_big));
    c = RUN(v_iret_big, IOPL(3));
    ends("iret_beyond", &c, V_GP, 0, OFS(v_iret_big_1, v_iret_big));
    c = RUN(v_any_selector, IOPL(3));
    FINISHES("any_selector", c, v_any_selector);
    check_eq("any_selector_es", c.ecx, peek16(0x100001));
    check_eq("any_selector_fs", c.edx, 0x1235);
    check_eq("any_selector_lds_si", c.esi & 0xffff, 0x1111);
    check_eq("any_selector_lds", c.edi & 0xffff, 0x3001);
    c = RUN(v_far, IOPL(3));
    c.eip -= 32; /* where CS 1FFEh has it */
    FINISHES("far_transfers", c, v_far);
    check_eq("far_call_cs", c.eax, 0x1fff);
    check_eq("far_jump_cs", c.ebx, 0x1ffe);
    c = RUN(v_stack, IOPL(3));
    FINISHES("stack", c, v_stack);
    check_eq("push_sp", c.eax, STACK_TOP);
    check_eq("push_esp", c.ebx, STACK_TOP);
    check_eq("stack_sp", c.esp, STACK_TOP);
    c = RUN(v_cs_write, IOPL(3));
    FINISHES("code_can_be_written", c, v_cs_write);
    check_eq("code_can_be_written_value", c.eax, 0x21);
}

/* What A20M# does for real mode, paging can do here: FFFF:10h and up lie where the page table says. */
static void wrap_by_paging(void)
{
    uint32_t va = address_of(high_page);
    struct context c;

    if (va + 16 > 0x10ffef) {
        check("high_page_is_in_reach", false);
        return;
    }
    paging_on();
    poke16(DATA_AT + 0x20, (uint16_t)(va - 0xffff0));
    c = RUN(v_high, IOPL(3));
    check_eq("above_one_megabyte", c.ecx, 1);
    poke(EXTRA_AT, 0xabcdef01);
    pte_set(va, EXTRA_AT | PTE_P | PTE_U | PTE_W);
    c = RUN(v_high, IOPL(3));
    check_eq("above_one_megabyte_remapped", c.ecx, 0xabcdef01);
    pte_set(va, va | PTE_P | PTE_W);
    c = RUN(v_high, IOPL(3));
    check_fault("vm86_is_user", &c, 14, 5);
    check_eq("vm86_is_user_cr2", c.cr2, va);
    pte_set(va, va | PTE_P | PTE_U | PTE_W);
    paging_off();
}

/* ---- IOPL and privilege ------------------------------------------------------------------------------- */

SNIPPET16(v_cli, "cli");
SNIPPET16(v_sti, "sti");
SNIPPET16(v_pushf, "pushf; pop %ax");
SNIPPET16(v_popf, "popf");
SNIPPET16(v_pushfd, "pushfl; popl %eax");
SNIPPET16(v_popfd, "popfl");
SNIPPET16(v_int, "int $0x42");
SNIPPET16(v_iret, "iret");
SNIPPET16(v_iretd, "iretl");
SNIPPET16(v_flags, "sti; pushf; pop %ax; cli; pushf; pop %bx; pushw $0x4ed7; popf; pushf; pop %cx; pushl $0x2cfad6; popfl; pushfl; "
                   "popl %edx; pushl $2; popfl");
SNIPPET16(v_iret_16, "pushw $0x4ad7; push %cs; pushw $(1f - v_iret_16); iret; hlt; 1: pushfl; popl %eax; pushl $2; popfl");
SNIPPET16(v_iret_32, "pushl $0x3e48d7; pushl $0x99992000; pushl $(1f - v_iret_32); iretl; hlt; 1: pushfl; popl %eax; pushl $2; popfl");
#define PRIVILEGED(what, text) SNIPPET16(v_##what, text);
PRIVILEGED(hlt, "hlt")
PRIVILEGED(lgdt, "lgdtw 0")
PRIVILEGED(lidt, "lidtw 0")
PRIVILEGED(lmsw, "lmsw %ax")
PRIVILEGED(clts, "clts")
PRIVILEGED(mov_cr0, "mov %cr0, %eax")
PRIVILEGED(mov_to_cr3, "mov %eax, %cr3")
PRIVILEGED(mov_dr7, "mov %dr7, %eax")
PRIVILEGED(invlpg, "invlpg 0")
PRIVILEGED(wbinvd, "wbinvd")
PRIVILEGED(rdmsr, "rdmsr")
PRIVILEGED(wrmsr, "wrmsr")
PRIVILEGED(sldt, "sldt %ax")
PRIVILEGED(str, "str %ax")
PRIVILEGED(lar, "lar %ax, %bx")
PRIVILEGED(lsl, "lsl %ax, %bx")
PRIVILEGED(verr, "verr %ax")
PRIVILEGED(verw, "verw %ax")
PRIVILEGED(arpl, "arpl %ax, %bx")
PRIVILEGED(lldt, "lldt %ax")
PRIVILEGED(ltr, "ltr %ax")
PRIVILEGED(mov_cs, "mov %ax, %cs")

static void privileged(void)
{
#define REFUSES(what, vector)                                                                                \
    {                                                                                                        \
        struct context c = RUN(v_##what, IOPL(3));                                                           \
        ends(#what, &c, vector, 0, 0);                                                                       \
    }
    REFUSES(hlt, V_GP)
    REFUSES(lgdt, V_GP)
    REFUSES(lidt, V_GP)
    REFUSES(lmsw, V_GP)
    REFUSES(clts, V_GP)
    REFUSES(mov_cr0, V_GP)
    REFUSES(mov_to_cr3, V_GP)
    REFUSES(mov_dr7, V_GP)
    REFUSES(invlpg, V_GP)
    REFUSES(wbinvd, V_GP)
    REFUSES(rdmsr, V_GP)
    REFUSES(wrmsr, V_GP)
    REFUSES(sldt, V_UD)
    REFUSES(str, V_UD)
    REFUSES(lar, V_UD)
    REFUSES(lsl, V_UD)
    REFUSES(verr, V_UD)
    REFUSES(verw, V_UD)
    REFUSES(arpl, V_UD)
    REFUSES(lldt, V_UD)
    REFUSES(ltr, V_UD)
    REFUSES(mov_cs, V_UD)
}

static void iopl(void)
{
    struct context c;

    for (uint32_t n = 0; n < 3; n++) {
        uint32_t fl = IOPL(n) | EFL_IF;
#define DENIED(name)                                                                                         \
    c = RUN(v_##name, fl);                                                                                   \
    ends("iopl_below_3_" #name, &c, V_GP, 0, 0);                                                             \
    check_eq("iopl_below_3_" #name "_sp", c.esp, STACK_TOP);
        DENIED(cli)
        DENIED(sti)
        DENIED(pushf)
        DENIED(popf)
        DENIED(pushfd)
        DENIED(popfd)
        DENIED(int)
        DENIED(iret)
        DENIED(iretd)
    }
    c = RUN(v_flags, IOPL(3));
    FINISHES("iopl_3_flags", c, v_flags);
    check_eq("iopl_3_sti_and_pushf", c.eax, 0x3202);
    check_eq("iopl_3_cli", c.ebx, 0x3002);
    check_eq("iopl_3_popf_leaves_iopl", c.ecx, 0x7ed7);
    check_eq("iopl_3_popfd_leaves_VM_RF_VIF_VIP", c.edx, 0x247ad6 & ~0x100u);
    c = RUN(v_iret_16, IOPL(3));
    FINISHES("iopl_3_iret", c, v_iret_16);
    check_eq("iopl_3_iret_leaves_iopl", c.eax, 0x7ad7);
    c = RUN(v_iret_32, IOPL(3));
    FINISHES("iopl_3_iretd", c, v_iret_32);
    check_eq("iopl_3_iretd_leaves_VM_and_iopl", c.eax, 0x2478d7);
    check_eq("iopl_3_iretd_sp", c.esp, STACK_TOP);
    privileged();
}

/* ---- ports --------------------------------------------------------------------------------------------------- */

#define MAP_OFS 0x88 /* after the redirection map, which lies before the I/O map */

static void load_tr(uint32_t limit)
{
    guest_gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), limit, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
}

/* Both maps: INT n redirected where a bit is clear, ports allowed where one is. */
static void maps_on(void)
{
    guest_tss.io_base = MAP_OFS;
    memset(guest_tss.io_bitmap, 0xff, sizeof guest_tss.io_bitmap);
    load_tr(0x68 + sizeof guest_tss.io_bitmap - 1);
}

static void maps_off(void)
{
    guest_tss.io_base = 0x68;
    load_tr(0x67);
}

SNIPPET16(v_in_80, "inb $0x80, %al");
SNIPPET16(v_in_81, "inb $0x81, %al");
SNIPPET16(v_inw_7f, "inw $0x7f, %ax");
SNIPPET16(v_in_dx, "mov $0x370, %dx; v_in_dx_1: inb %dx, %al");
SNIPPET16(v_outs, "mov $0x81, %dx; mov $2, %cx; mov $0, %si; v_outs_1: rep outsb");
SNIPPET16(v_out_80, "mov $0x80, %dx; mov $0, %si; outsb; outb %al, %dx");
LABEL(v_in_dx_1);
LABEL(v_outs_1);

static void ports(void)
{
    struct context c = RUN(v_in_80, IOPL(3));

    ends("no_map_denies_even_iopl_3", &c, V_GP, 0, 0);
    maps_on();
    guest_tss.io_bitmap[32 + 0x80 / 8] = 0xfe;
    c = RUN(v_in_80, IOPL(3));
    FINISHES("port_allowed_iopl_3", c, v_in_80);
    c = RUN(v_in_80, 0);
    FINISHES("port_allowed_iopl_0", c, v_in_80);
    c = RUN(v_in_81, IOPL(3));
    ends("port_denied", &c, V_GP, 0, 0);
    c = RUN(v_inw_7f, IOPL(3));
    ends("port_half_denied", &c, V_GP, 0, 0);
    c = RUN(v_in_dx, IOPL(3));
    ends("port_beyond_the_map", &c, V_GP, 0, OFS(v_in_dx_1, v_in_dx));
    c = RUN(v_outs, IOPL(3));
    ends("outs_denied", &c, V_GP, 0, OFS(v_outs_1, v_outs));
    check_eq("outs_denied_si", c.esi, 0);
    check_eq("outs_denied_cx", c.ecx, 2);
    c = RUN(v_out_80, 0);
    FINISHES("outs_allowed", c, v_out_80);
    check_eq("outs_allowed_si", c.esi, 1);
    maps_off();
}

/* ---- exceptions, gates, tasks ------------------------------------------------------------------------------------ */

SNIPPET16(v_div0, "xor %bx, %bx; v_div0_1: div %bx");
SNIPPET16(v_int3, "nop; int3");
SNIPPET16(v_into, "mov $0x7f, %al; inc %al; v_into_1: into; v_into_2: nop");
SNIPPET16(v_bound, "movw $1, 0x100; movw $2, 0x102; v_bound_1: bound %ax, 0x100");
SNIPPET16(v_ud2, "ud2");
SNIPPET16(v_step, "inc %ax; v_step_1: inc %ax");
SNIPPET16(v_spin, "v_spin_1: jmp v_spin_1");
SNIPPET16(v_sti_pending, "sti; inc %ax; v_sti_pending_1: inc %ax");
SNIPPET16(v_task, "mov $0x1234, %ax; mov $0x5678, %bp; stc; int $0x43; v_task_1: mov $0, %bx; adc $0, %bx; mov %ds, %cx");
LABEL(v_div0_1);
LABEL(v_into_1);
LABEL(v_into_2);
LABEL(v_bound_1);
LABEL(v_step_1);
LABEL(v_sti_pending_1);
LABEL(v_task_1);

/* Entered by a gate of 16 bits (or 32), in a code segment whose base it is. */
static volatile uint32_t gate_esp __attribute__((used)), gate_flags __attribute__((used)), gate_segments[4] __attribute__((used));
static volatile uint16_t gate_words[24] __attribute__((used));
extern uint8_t gate_handler[], leave_code[];
__asm__(".text\n.globl gate_handler\n"
        "gate_handler:\n"
        "mov %ds, %ebx; mov %es, %ecx; mov %fs, %edx; mov %gs, %edi\n"
        "mov $0x10, %eax; mov %eax, %ds; mov %eax, %es\n"
        "mov %esp, gate_esp\n"
        "mov %ebx, gate_segments; mov %ecx, gate_segments + 4; mov %edx, gate_segments + 8; mov %edi, gate_segments + 12\n"
        "mov %esp, %esi; mov $gate_words, %edi; mov $24, %ecx; rep movsw\n"
        "pushf; pop gate_flags\n"
        "ljmp $8, $leave_code\n");
void guest_enter(struct context *c);

static struct tss task;
static volatile uint32_t task_count __attribute__((used)), task_skip __attribute__((used)); /* added to the old EIP */
static uint32_t task_stack[64];
extern uint8_t task_entry[];
__asm__(".text\n.globl task_entry\ntask_entry: incl task_count; mov task_skip, %eax; add %eax, guest_tss + 32; iret; jmp task_entry\n");

static struct context into_gate(const void *code, size_t bytes, unsigned vector, uint64_t gate, uint32_t eflags)
{
    uint64_t old = guest_idt[vector];
    struct context c = vm86_new();

    code_place(code, bytes, 0);
    idt_set(vector, gate);
    c.eflags |= eflags;
    context_run(&c);
    idt_set(vector, old);
    return c;
}
#define INTO_GATE(name, vector, gate, eflags) into_gate(name, (size_t)(name##_end - name), vector, gate, eflags)

static void gate_16(void)
{
    struct context c = vm86_new();
    uint32_t esp0 = guest_tss.esp0;
    uint64_t old = guest_idt[0x42];

    guest_gdt[SEL_BASED >> 3] = DESC(address_of(gate_handler), 0xffff, 0x9b, 4);
    idt_set(0x42, GATE(SEL_BASED, 0, 0xe6)); /* 16-bit interrupt gate, DPL 3 */
    PLACE(v_int, 0);
    c.eflags |= IOPL(3) | EFL_IF | EFL_CF;
    c.esp = 0xabcd7000;
    c.es = 0x1111;
    c.fs = 0x2222;
    c.gs = 0x3333;
    guest_enter(&c);
    check_eq("gate_of_16_bits_esp", gate_esp, esp0 - 18);
    check_eq("gate_of_16_bits_ip", gate_words[0], 2);
    check_eq("gate_of_16_bits_cs", gate_words[1], CODE_SEG);
    check_eq("gate_of_16_bits_flags", gate_words[2], 0x3203);
    check_eq("gate_of_16_bits_sp", gate_words[3], 0x7000);
    check_eq("gate_of_16_bits_ss", gate_words[4], STACK_SEG);
    check_eq("gate_of_16_bits_es", gate_words[5], 0x1111);
    check_eq("gate_of_16_bits_ds", gate_words[6], DATA_SEG);
    check_eq("gate_of_16_bits_fs", gate_words[7], 0x2222);
    check_eq("gate_of_16_bits_gs", gate_words[8], 0x3333);
    check_eq("gate_of_16_bits_nulls_segments",
             (gate_segments[0] | gate_segments[1] | gate_segments[2] | gate_segments[3]) & 0xffff, 0);
    check_eq("gate_of_16_bits_clears_VM_and_IF", gate_flags & (EFL_VM | EFL_IF), 0);
    idt_set(0x42, GATE(SEL_BASED, 0, 0xef)); /* 32-bit trap gate */
    guest_enter(&c);
    check_eq("trap_gate_esp", gate_esp, esp0 - 36);
    check_eq("trap_gate_keeps_IF", gate_flags & (EFL_VM | EFL_IF), EFL_IF);
    check_eq("trap_gate_eflags_image", gate_words[4] | (uint32_t)gate_words[5] << 16, 0x23203);
    check_eq("trap_gate_esp_image", gate_words[6] | (uint32_t)gate_words[7] << 16, 0xabcd7000);
    check_eq("trap_gate_gs_image", gate_words[16], 0x3333);
    idt_set(0x42, old);
}

static void tasks(void)
{
    struct context c;

    task = (struct tss){ .eip = address_of(task_entry), .eflags = 2, .cs = SEL_KCODE, .ss = SEL_KDATA, .ds = SEL_KDATA,
                         .es = SEL_KDATA, .fs = SEL_KDATA, .gs = SEL_KDATA, .cr3 = get_cr3(),
                         .esp = address_of(task_stack) + sizeof task_stack, .io_base = 0x68 };
    guest_gdt[SEL_TASK >> 3] = DESC(address_of(&task), 0x67, 0x89, 0);
    task_count = 0;
    c = INTO_GATE(v_task, 0x43, GATE(SEL_TASK, 0, 0xe5), IOPL(3));
    FINISHES("task_gate_and_back", c, v_task);
    check_eq("task_gate_ran_the_task", task_count, 1);
    check_eq("task_gate_ax", c.eax, 0x1234);
    check_eq("task_gate_bp", c.ebp, 0x5678);
    check_eq("task_gate_carry", c.ebx, 1);
    check_eq("task_gate_ds", c.ecx, DATA_SEG);
    check_eq("task_gate_saved_VM", guest_tss.eflags & EFL_VM, EFL_VM);
    check_eq("task_gate_saved_cs", guest_tss.cs & 0xffff, CODE_SEG);
    check_eq("task_gate_saved_eip", guest_tss.eip, OFS(v_task_1, v_task));
    c = INTO_GATE(v_task, 0x43, GATE(SEL_TASK, 0, 0x85), IOPL(3));
    check_fault("task_gate_needs_dpl_3", &c, V_GP, 0x43 * 8 + 2);
    /* an exception, so that the gate's DPL does not matter */
    task_count = 0;
    task_skip = 2;
    c = INTO_GATE(v_ud2, V_UD, GATE(SEL_TASK, 0, 0x85), IOPL(3));
    FINISHES("task_gate_for_an_exception", c, v_ud2);
    check_eq("task_gate_for_an_exception_ran", task_count, 1);
    uint32_t esp = task.esp;
    task_skip = 1;
    c = INTO_GATE(v_hlt, V_GP, GATE(SEL_TASK, 0, 0x85), IOPL(3));
    FINISHES("task_gate_with_an_error_code", c, v_hlt);
    check_eq("task_gate_with_an_error_code_ran", task_count, 2);
    check_eq("task_gate_pushes_the_error_code", task.esp, esp - 4);
    check_eq("task_gate_error_code", peek(task.esp), 0);
}

static void gates(void)
{
    struct context c = RUN(v_div0, 0);

    ends("divide_error", &c, V_DE, 0, OFS(v_div0_1, v_div0));
    c = RUN(v_int3, 0);
    ends("int3_does_not_heed_iopl", &c, V_BP, 0, 2);
    c = RUN(v_into, 0);
    ends("into_does_not_heed_iopl", &c, V_OF, 0, OFS(v_into_2, v_into));
    c = RUN(v_bound, 0);
    ends("bound", &c, V_BR, 0, OFS(v_bound_1, v_bound));
    c = RUN(v_ud2, 0);
    ends("ud2", &c, V_UD, 0, 0);
    c = RUN(v_step, EFL_TF);
    ends("single_step", &c, V_DB, 0, OFS(v_step_1, v_step));
    check_eq("single_step_pushes_TF", c.eflags & EFL_TF, EFL_TF);
    c = RUN(v_int, IOPL(3)); /* DPL 0 */
    ends("int_n_needs_gate_dpl_3", &c, V_GP, 0x42 * 8 + 2, 0);
    c = INTO_GATE(v_int3, V_BP, GATE(SEL_KCODE, 0, 0x8e), 0);
    ends("int3_needs_gate_dpl_3", &c, V_GP, V_BP * 8 + 2, 1);
    c = INTO_GATE(v_int, 0x42, GATE(SEL_UCODE, 0, 0xee), IOPL(3));
    ends("gate_to_ring_3", &c, V_GP, SEL_UCODE & 0xfffc, 0);
    guest_gdt[SEL_CONF >> 3] = DESC(0, 0xfffff, 0x9f, 0xc);
    c = INTO_GATE(v_int, 0x42, GATE(SEL_CONF, 0, 0xee), IOPL(3));
    ends("gate_to_conforming_code", &c, V_GP, SEL_CONF, 0);
    c = INTO_GATE(v_ud2, V_UD, GATE(SEL_UCODE, 0, 0x8e), IOPL(3));
    ends("gate_to_ring_3_for_an_exception", &c, V_GP, (SEL_UCODE & 0xfffc) | 1, 0);
    c = INTO_GATE(v_int, 0x42, GATE(SEL_KCODE, 0, 0x6e), IOPL(3));
    ends("gate_absent", &c, 11, 0x42 * 8 + 2, 0);
    gate_16();
    tasks();

    pit_one_shot(3000);
    c = RUN(v_spin, EFL_IF);
    pit_stop();
    ends("interrupt_at_iopl_0", &c, IRQ0, 0, 0);
    check_eq("interrupt_pushes_IF", c.eflags & EFL_IF, EFL_IF);
    pit_pending();
    c = RUN(v_sti_pending, IOPL(3));
    pit_stop();
    ends("sti_shadow", &c, IRQ0, 0, OFS(v_sti_pending_1, v_sti_pending));
}

/* IRETD from ring 0 and 3 with VM in the image. */
SNIPPET(p_iret_beyond, "pushl $0; pushl $0; pushl $0; pushl $0; pushl $0x4000; pushl $0x8000; pushl $0x20002; pushl $0x2000; pushl $0x10000; "
                       "p_iret_beyond_1: iretl");
SNIPPET(p_iret_ring3, "mov %esp, %ebx; pushl $0x20002; mov %cs, %eax; pushl %eax; pushl $1f; iretl; 1: pushfl; popl %ecx");
SNIPPET(p_popf_vm, "pushl $0x20002; popfl; pushfl; popl %ecx; mov %cs, %eax");
LABEL(p_iret_beyond_1);

static void from_protected_mode(void)
{
    struct context c = run_at(0, p_iret_beyond);

    check_fault("iretd_to_vm86_beyond_64K", &c, V_GP, 0);
    check_eq("iretd_to_vm86_beyond_64K_eip", c.eip, address_of(p_iret_beyond_1));
    check_eq("iretd_to_vm86_beyond_64K_cs", c.cs, SEL_KCODE);
    c = run_at(3, p_iret_ring3);
    check_done("ring_3_iretd_ignores_VM", &c);
    check_eq("ring_3_iretd_ignores_VM_esp", c.esp, c.ebx);
    c = run_at(0, p_popf_vm);
    check_done("popfd_leaves_VM", &c);
    check_eq("popfd_leaves_VM_flags", c.ecx & EFL_VM, 0);
}

/* ---- CR4.VME ------------------------------------------------------------------------------------------------------------ */

SNIPPET16(e_cli_sti, "sti; pushf; pop %ax; cli; pushf; pop %bx");
SNIPPET16(e_sti, "sti");
SNIPPET16(e_nop, "nop");
SNIPPET16(e_popf, "pushw $0x7ed7; popf; pushf; pop %ax; pushw $0x2; popf; pushf; pop %bx");
SNIPPET16(e_popf_if, "pushw $0x202; e_popf_if_1: popf");
SNIPPET16(e_popf_tf, "pushw $0x102; e_popf_tf_1: popf");
SNIPPET16(e_popf_ok, "pushw $0x02; popf; pushf; pop %ax");
SNIPPET16(e_iret, "pushw $0x02d7; push %cs; pushw $(1f - e_iret); iret; hlt; 1: pushf; pop %ax");
SNIPPET16(e_iret_if, "pushw $0x202; push %cs; pushw $0; e_iret_if_1: iret");
SNIPPET16(e_iret_tf, "pushw $0x102; push %cs; pushw $0; e_iret_tf_1: iret");
SNIPPET16(e_iret_out, "pushw $0x2; push %cs; pushw $(1f - e_iret_out); iret; 1: mov $5, %ax");
SNIPPET16(e_int, "stc; mov $0, %ax; int $0x42; pushf; pop %dx; jmp 2f; e_int_1: mov %sp, %bp; mov (%bp), %bx; mov 2(%bp), %cx; mov "
                 "4(%bp), %si; pushf; pop %ax; iret; 2:");
SNIPPET16(e_int_3, ".byte 0xcd, 0x03; mov $1, %bx; jmp 2f; e_int_3_1: mov $7, %ax; iret; 2:");
LABEL(e_popf_if_1);
LABEL(e_popf_tf_1);
LABEL(e_iret_if_1);
LABEL(e_iret_tf_1);
LABEL(e_int_1);
LABEL(e_int_3_1);

static void redirect(unsigned vector, bool to_program)
{
    uint8_t bit = (uint8_t)(1u << (vector & 7));

    if (to_program)
        guest_tss.io_bitmap[vector / 8] &= (uint8_t)~bit;
    else
        guest_tss.io_bitmap[vector / 8] |= bit;
}

static void vme_interrupts(void)
{
    struct context c;
    uint32_t old = peek(0x42 * 4), old3 = peek(3 * 4);

    ivt_set(0x42, CODE_SEG, (uint16_t)OFS(e_int_1, e_int));
    redirect(0x42, true);
    c = RUN(e_int, EFL_VIF | EFL_IF);
    FINISHES("vme_int_redirected", c, e_int);
    check_eq("vme_int_pushes_ip", c.ebx, 6);
    check_eq("vme_int_pushes_cs", c.ecx, CODE_SEG);
    check_eq("vme_int_pushes_VIF_as_IF_and_IOPL_3", c.esi & ~0xd4u, 0x3203);
    check_eq("vme_int_clears_VIF", c.eax & (EFL_IF | EFL_IOPL), EFL_IOPL);
    check_eq("vme_iret_brings_VIF_back", c.edx & (EFL_IF | 1), EFL_IF | 1);
    check_eq("vme_int_leaves_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_IF | EFL_VIF);
    check_eq("vme_int_sp", c.esp, STACK_TOP);
    c = RUN(e_int, EFL_IF);
    check_eq("vme_int_pushes_VIF_clear_as_IF_clear", c.esi & ~0xd4u, 0x3003);
    c = RUN(e_int, IOPL(3) | EFL_IF);
    FINISHES("vme_int_redirected_at_iopl_3", c, e_int);
    check_eq("vme_int_at_iopl_3_clears_IF", c.eax & EFL_IF, 0);
    check_eq("vme_iret_at_iopl_3_brings_IF_back", c.edx & EFL_IF, EFL_IF);
    redirect(0x42, false);
    c = RUN(e_int, EFL_VIF);
    ends("vme_int_not_redirected", &c, V_GP, 0, 4);
    c = INTO_GATE(e_int, 0x42, guest_idt[0x42] | 0x0000600000000000ull, IOPL(3));
    check_eq("vme_int_not_redirected_at_iopl_3", c.vector, 0x42);
    check_eq("vme_int_not_redirected_at_iopl_3_VM", c.eflags & EFL_VM, EFL_VM);
    /* INT 3 as CD 03 is an INT n; CC is not */
    ivt_set(3, CODE_SEG, (uint16_t)OFS(e_int_3_1, e_int_3));
    redirect(3, true);
    c = RUN(e_int_3, 0);
    FINISHES("vme_cd_03_redirected", c, e_int_3);
    check_eq("vme_cd_03_redirected_ax", c.eax, 7);
    c = RUN(v_int3, 0);
    ends("vme_cc_not_redirected", &c, V_BP, 0, 2);
    c = RUN(v_into, 0);
    ends("vme_into_not_redirected", &c, V_OF, 0, OFS(v_into_2, v_into));
    redirect(3, false);
    poke(0x42 * 4, old);
    poke(3 * 4, old3);
}

static void vme(void)
{
    struct context c;
    uint32_t a, b;

    __asm__ volatile("cpuid" : "=d"(a), "=b"(b) : "a"(1) : "ecx");
    check("cpuid_shows_VME", a & 2);
    if (!(a & 2))
        return;
    set_cr4(get_cr4() | CR4_VME);
    maps_on();
    c = RUN(e_cli_sti, EFL_IF);
    FINISHES("vme_cli_sti", c, e_cli_sti);
    check_eq("vme_sti_and_pushf", c.eax, 0x3202);
    check_eq("vme_cli_and_pushf", c.ebx, 0x3002);
    check_eq("vme_cli_leaves_IF", c.eflags & (EFL_IF | EFL_VIF | EFL_IOPL), EFL_IF);
    c = RUN(e_sti, 0);
    FINISHES("vme_sti", c, e_sti);
    check_eq("vme_sti_sets_VIF", c.eflags & (EFL_IF | EFL_VIF), EFL_VIF);
    c = RUN(e_sti, EFL_VIP);
    ends("vme_sti_with_VIP", &c, V_GP, 0, 0);
    check_eq("vme_sti_with_VIP_leaves_VIF", c.eflags & (EFL_VIP | EFL_VIF), EFL_VIP);
    c = RUN(e_sti, EFL_VIP | IOPL(3));
    FINISHES("vme_sti_with_VIP_at_iopl_3", c, e_sti);
    check_eq("vme_sti_at_iopl_3_sets_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_IF);
    /* both set: #GP before the next instruction, whatever it is and whatever IOPL says */
    c = RUN(e_nop, EFL_VIP | EFL_VIF);
    ends("vme_VIF_and_VIP", &c, V_GP, 0, 0);
    check_eq("vme_VIF_and_VIP_stay", c.eflags & (EFL_VIP | EFL_VIF), EFL_VIP | EFL_VIF);
    c = RUN(e_nop, EFL_VIP | EFL_VIF | IOPL(3));
    ends("vme_VIF_and_VIP_at_iopl_3", &c, V_GP, 0, 0);
    c = RUN(v_cli, EFL_VIP);
    FINISHES("vme_cli_with_VIP", c, v_cli);
    c = RUN(e_popf, 0);
    FINISHES("vme_popf", c, e_popf);
    check_eq("vme_popf_sets_VIF_and_shows_IOPL_3", c.eax, 0x7ed7);
    check_eq("vme_popf_clears_VIF", c.ebx, 0x3002);
    check_eq("vme_popf_leaves_IOPL", c.eflags & EFL_IOPL, 0);
    vme_interrupts();
    c = RUN(e_popf_if, EFL_VIP);
    ends("vme_popf_IF_with_VIP", &c, V_GP, 0, OFS(e_popf_if_1, e_popf_if));
    c = RUN(e_popf_ok, EFL_VIP);
    FINISHES("vme_popf_without_IF_with_VIP", c, e_popf_ok);
    check_eq("vme_popf_without_IF_with_VIP_flags", c.eax, 0x3002);
    c = RUN(e_popf_ok, EFL_VIF);
    check_eq("vme_popf_without_IF_clears_VIF", c.eflags & EFL_VIF, 0);
    c = RUN(e_popf_tf, 0);
    ends("vme_popf_TF", &c, V_GP, 0, OFS(e_popf_tf_1, e_popf_tf));
    c = RUN(e_iret, EFL_IF);
    FINISHES("vme_iret", c, e_iret);
    check_eq("vme_iret_sets_VIF", c.eax, 0x32d7);
    check_eq("vme_iret_leaves_IF", c.eflags & (EFL_IF | EFL_VIF), EFL_IF | EFL_VIF);
    c = RUN(e_iret_if, EFL_VIP);
    ends("vme_iret_IF_with_VIP", &c, V_GP, 0, OFS(e_iret_if_1, e_iret_if));
    c = RUN(e_iret_tf, 0);
    ends("vme_iret_TF", &c, V_GP, 0, OFS(e_iret_tf_1, e_iret_tf));
    c = RUN(e_iret_out, EFL_VIP);
    FINISHES("vme_iret_without_IF_with_VIP", c, e_iret_out);
    c = RUN(e_iret_out, EFL_VIF);
    FINISHES("vme_iret_without_IF", c, e_iret_out);
    check_eq("vme_iret_without_IF_clears_VIF", c.eflags & (EFL_VIP | EFL_VIF), 0);
    c = RUN(v_pushfd, 0);
    ends("vme_pushfd", &c, V_GP, 0, 0);
    c = RUN(v_popfd, 0);
    ends("vme_popfd", &c, V_GP, 0, 0);
    c = RUN(v_iretd, 0);
    ends("vme_iretd", &c, V_GP, 0, 0);
    set_cr4(get_cr4() & ~CR4_VME);
    c = RUN(e_nop, EFL_VIP | EFL_VIF);
    FINISHES("without_vme_VIF_and_VIP_mean_nothing", c, e_nop);
    maps_off();
}

void guest_main(void)
{
    modes_init();
    entering();
    segments();
    wrap_by_paging();
    iopl();
    ports();
    gates();
    from_protected_mode();
    vme();
}
