/*
 * Hardware tasks: JMP and CALL to a TSS and through task gates, INT n, exceptions and
 * interrupts through them, IRET back, TSSs of 16 and 32 bits in all mixes, busy bits, NT
 * and back links, CR3 and LDT of the new task, and faults on both sides of the commit
 * point. The T bit is tested with the other debugging features.
 *
 * Ref: Intel SDM vol. 3A, ch. "Task Management"; vol. 2, CALL, JMP, INT n, IRET.
 */
#include "../lib/guest.h"

#define SEL(n)  (SEL_FREE + 8 * (n))
#define TASK    SEL(0) /* TSS descriptor of the other task   */
#define THIRD   SEL(1)
#define GATE_   SEL(2)
#define UNDER   SEL(3) /* the descriptor under test          */
#define CODE16  SEL(4) /* ring 3, begins at t_target         */
#define STACK16 SEL(5)
#define LDT2    SEL(6)
#define CODE2   SEL(7)
#define FIRST16 SEL(8)
#define BEYOND  0x1000
#define TI      4u

#define LOW_STACK 0x7000 /* free memory that 16 bits reach */
#define MARK      0x5a5a5a5au

struct __attribute__((packed)) tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
    uint16_t ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

static struct tss other __attribute__((aligned(256))), third __attribute__((aligned(256)));
static struct tss16 other16 __attribute__((aligned(64))), first16 __attribute__((aligned(64)));
static uint8_t other_stack[4096], other_ring0[4096], third_stack[4096], stack16[4096];
static uint64_t ldt2[4] __attribute__((aligned(16)));

static struct __attribute__((packed)) {
    uint32_t ofs;
    uint16_t sel;
} far32 __attribute__((used));
static volatile uint32_t irq_seen __attribute__((used));
__asm__(".set far32_m, far32\n.set irq_seen_m, irq_seen");

SNIPPET(t_jmp, "stc; ljmp *far32_m");
SNIPPET(t_call, "stc; lcall *far32_m");
SNIPPET(t_call2, "lcall *far32_m; lcall *far32_m");
SNIPPET(t_int, "int $0x60");
SNIPPET(t_ud, "ud2");
SNIPPET(t_gp, "int $0x61");
SNIPPET(t_de, "xor %ecx, %ecx; t_de_1: div %ecx");
SNIPPET(t_iret, "nop; t_iret_1: iret");
SNIPPET(t_target, "nop");
SNIPPET(t_counter, "1: inc %eax; iret; t_counter_1: jmp 1b");
SNIPPET(t_read, "mov (%ebx), %eax");
SNIPPET(t_fpu, "fnop");
SNIPPET(t_call_third, "lcall *far_third_m; inc %ecx; iret");
SNIPPET(t_irq_task, "mov $0x20, %al; outb %al, $0x20; movl $1, irq_seen_m; iret; jmp t_irq_task");
SNIPPET(t_wait, "sti; 1: cmpl $0, irq_seen_m; je 1b; cli");
LABEL(t_de_1);
LABEL(t_iret_1);
LABEL(t_counter_1);
static struct __attribute__((packed)) {
    uint32_t ofs;
    uint16_t sel;
} far_third __attribute__((used)) = { 0, THIRD };
__asm__(".set far_third_m, far_third");

static void set(uint32_t sel, uint64_t descriptor)
{
    *(volatile uint64_t *)&guest_gdt[sel >> 3] = descriptor;
}

static uint32_t type_of(uint32_t sel)
{
    return (*(volatile uint64_t *)&guest_gdt[sel >> 3] >> 40) & 0xff;
}

#define TSS32(t, access)  DESC(address_of(t), 0x67, access, 0)
#define TSS16(t, access)  DESC(address_of(t), 0x2b, access, 0)
#define TASK_GATE(sel, p) ((uint64_t)(sel) << 16 | (uint64_t)(p) << 40)

/* What the registers said when the code under test ended. */
static struct {
    uint32_t tr, ldtr, cr0, cr3, dr7;
} seen;

static bool observe(struct frame *f)
{
    uint16_t tr, ldtr;

    (void)f;
    __asm__ volatile("str %0; sldt %1" : "=m"(tr), "=m"(ldtr));
    __asm__ volatile("mov %%dr7, %0" : "=r"(seen.dr7));
    seen.tr = tr & ~3u; /* an RPL is kept by some */
    seen.ldtr = ldtr;
    seen.cr0 = get_cr0();
    seen.cr3 = get_cr3();
    return false;
}

/* Everything as it was: TR, LDTR, CR3, CR0.TS and all descriptors of tasks. */
static void reset_tasks(void)
{
    static uint32_t esp0;

    if (!esp0)
        esp0 = guest_tss.esp0;
    guest_tss = (struct tss){ .esp0 = esp0, .ss0 = SEL_KDATA, .io_base = 0x68, .eip = MARK, .link = 0x1234 };
    other = (struct tss){ .esp0 = address_of(other_ring0) + sizeof other_ring0, .ss0 = SEL_KDATA,
                          .cr3 = get_cr3(), .eip = address_of(t_target), .eflags = 0x802, .eax = 0xa1a1a1a1,
                          .ecx = 0xa2a2a2a2, .edx = 0xa3a3a3a3, .ebx = 0xa4a4a4a4,
                          .esp = address_of(other_stack) + sizeof other_stack, .ebp = 0xa5a5a5a5,
                          .esi = 0xa6a6a6a6, .edi = 0xa7a7a7a7, .es = SEL_UDATA, .cs = SEL_UCODE, .ss = SEL_UDATA,
                          .ds = SEL_UDATA, .fs = SEL_UDATA, .gs = SEL_UDATA, .ldt = SEL_LDT, .io_base = 0x68 };
    third = other;
    third.esp = address_of(third_stack) + sizeof third_stack;
    other16 = (struct tss16){ .sp0 = LOW_STACK, .ss0 = SEL_KDATA, .flags = 0x802, .ax = 0xb1b1, .cx = 0xb2b2,
                              .dx = 0xb3b3, .bx = 0xb4b4, .sp = sizeof stack16, .bp = 0xb5b5, .si = 0xb6b6,
                              .di = 0xb7b7, .es = SEL_UDATA, .cs = CODE16 | 3, .ss = STACK16 | 3,
                              .ds = SEL_UDATA, .ldt = SEL_LDT };
    first16 = (struct tss16){ .sp0 = LOW_STACK, .ss0 = SEL_KDATA, .ip = 0x5a5a, .link = 0x1234 };
    set(TASK, TSS32(&other, 0xe9));
    set(THIRD, TSS32(&third, 0xe9));
    set(CODE16, DESC(address_of(t_target), 0xfff, 0xfb, 0x4));
    set(STACK16, DESC(address_of(stack16), 0xfff, 0xf3, 0));
    set(LDT2, DESC(address_of(ldt2), sizeof ldt2 - 1, 0x82, 0));
    set(CODE2, DESC(0, 0xfffff, 0xdb, 0xc));
    set(SEL_TSS, TSS32(&guest_tss, 0x89));
    set(FIRST16, TSS16(&first16, 0x81));
    __asm__ volatile("ltr %w0; lldt %w1; clts" : : "r"(SEL_TSS), "r"(SEL_LDT) : "memory");
    guest_hook = observe;
}

static struct context start(int ring, const void *code, uint32_t sel)
{
    struct context c = context_new(ring, code);

    far32.sel = (uint16_t)sel;
    far32.ofs = 0xdeadbeef; /* of no account */
    c.eax = 0x11111111;
    c.ecx = 0x22222222;
    c.edx = 0x33333333;
    c.ebx = 0x44444444;
    c.ebp = 0x55555555;
    c.esi = 0x66666666;
    c.edi = 0x77777777;
    context_run(&c);
    return c;
}

/* The old task's registers in its TSS. */
static void check_saved32(const char *how, int ring, uint32_t eip, uint32_t eflags)
{
    struct context was = context_new(ring, t_jmp);
    const volatile struct tss *t = &guest_tss;

    check_eq(name2(how, "saved_eip"), t->eip, eip);
    check_eq(name2(how, "saved_eflags"), t->eflags, eflags);
    check(name2(how, "saved_registers"),
          t->eax == 0x11111111 && t->ecx == 0x22222222 && t->edx == 0x33333333 && t->ebx == 0x44444444 &&
              t->ebp == 0x55555555 && t->esi == 0x66666666 && t->edi == 0x77777777 && t->esp == was.esp);
    check(name2(how, "saved_selectors"), (t->cs & 0xffff) == was.cs && (t->ss & 0xffff) == was.ss &&
                                             (t->ds & 0xffff) == was.ds && (t->es & 0xffff) == was.es &&
                                             (t->fs & 0xffff) == was.fs && (t->gs & 0xffff) == was.gs);
    check(name2(how, "static_fields_stay"), t->link == 0x1234 && t->ldt == 0 && t->cr3 == 0 && t->trap == 0);
}

/* The new task's registers, which `c` found. */
static void check_loaded32(const char *how, const struct context *c, uint32_t nt)
{
    check_eq(name2(how, "vector"), c->vector, VEC_DONE);
    check_eq(name2(how, "eip"), c->eip, address_of(t_target_done) + 2);
    check_eq(name2(how, "eflags"), c->eflags & ~EFL_RF, 0x802 | nt);
    check(name2(how, "registers"), c->eax == 0xa1a1a1a1 && c->ecx == 0xa2a2a2a2 && c->edx == 0xa3a3a3a3 &&
                                       c->ebx == 0xa4a4a4a4 && c->ebp == 0xa5a5a5a5 && c->esi == 0xa6a6a6a6 &&
                                       c->edi == 0xa7a7a7a7);
    check_eq(name2(how, "esp"), c->esp, address_of(other_stack) + sizeof other_stack);
    check(name2(how, "selectors"), c->cs == SEL_UCODE && c->ss == SEL_UDATA && c->ds == SEL_UDATA &&
                                       c->es == SEL_UDATA && c->fs == SEL_UDATA && c->gs == SEL_UDATA);
    check_eq(name2(how, "tr"), seen.tr, TASK);
    check_eq(name2(how, "ldtr"), seen.ldtr, SEL_LDT);
    check_eq(name2(how, "sets_TS"), seen.cr0 & 8, 8);
}

static void jump_and_call(int ring)
{
    const char *jmp = ring ? "jmp_ring3" : "jmp_ring0", *call = ring ? "call_ring3" : "call_ring0";
    struct context c;

    reset_tasks();
    __asm__ volatile("mov %0, %%dr7" : : "r"(0x701)); /* L0; GE and LE */
    c = start(ring, t_jmp, TASK);
    check_loaded32(jmp, &c, 0);
    check_saved32(jmp, ring, address_of(t_jmp_done), 3);
    check_eq(name2(jmp, "old_is_available"), type_of(SEL_TSS), 0x89);
    check_eq(name2(jmp, "new_is_busy"), type_of(TASK), 0xeb);
    check_eq(name2(jmp, "writes_no_link"), other.link, 0);
    check_eq(name2(jmp, "clears_local_breakpoints"), seen.dr7 & 0x755, 0x600);
    __asm__ volatile("mov %0, %%dr7" : : "r"(0x400));

    reset_tasks();
    c = start(ring, t_call, TASK | (uint32_t)ring);
    check_loaded32(call, &c, EFL_NT);
    check_saved32(call, ring, address_of(t_call_done), 3);
    check_eq(name2(call, "old_stays_busy"), type_of(SEL_TSS), 0x8b);
    check_eq(name2(call, "new_is_busy"), type_of(TASK), 0xeb);
    check_eq(name2(call, "link"), other.link & 0xffff, SEL_TSS);

    /* there and back, twice: the second call goes on behind the task's IRET */
    reset_tasks();
    other.eip = address_of(t_counter);
    other.eax = 100;
    c = start(ring, t_call2, TASK);
    check_eq(name2(call, "and_back_vector"), c.vector, VEC_DONE);
    check_eq(name2(call, "and_back_eip"), c.eip, address_of(t_call2_done) + 2);
    check(name2(call, "and_back_registers"), c.eax == 0x11111111 && c.edi == 0x77777777);
    check_eq(name2(call, "and_back_tr"), seen.tr, SEL_TSS);
    check_eq(name2(call, "and_back_NT"), c.eflags & EFL_NT, 0);
    check_eq(name2(call, "and_back_busy"), type_of(SEL_TSS), 0x8b);
    check_eq(name2(call, "and_back_available"), type_of(TASK), 0xe9);
    check_eq(name2(call, "counts_twice"), other.eax, 102);
    check_eq(name2(call, "saved_behind_iret"), other.eip, address_of(t_counter_1));
    check_eq(name2(call, "saved_without_NT"), other.eflags & EFL_NT, 0);
    check_eq(name2(call, "link_stays"), other.link & 0xffff, SEL_TSS);
}

static void through_gates(void)
{
    uint64_t keep = guest_idt[V_GP], keep_ud = guest_idt[V_UD];
    struct context c;

    reset_tasks();
    set(TASK, TSS32(&other, 0x89)); /* only the gate's DPL counts */
    set(GATE_, TASK_GATE(TASK | 3, 0xe5));
    c = start(3, t_jmp, GATE_ | 3);
    check_loaded32("jmp_gate", &c, 0);
    reset_tasks();
    set(TASK, TSS32(&other, 0x89));
    c = start(3, t_call, GATE_);
    check_loaded32("call_gate", &c, EFL_NT);
    check_eq("call_gate_link", other.link & 0xffff, SEL_TSS);
    reset_tasks();
    guest_ldt[2] = TASK_GATE(TASK, 0xe5);
    c = start(3, t_call, 2 * 8 | TI | 3);
    check_loaded32("call_gate_in_ldt", &c, EFL_NT);
    guest_ldt[2] = 0;

    reset_tasks();
    guest_idt[0x60] = TASK_GATE(TASK, 0xe5);
    c = start(3, t_int, 0);
    check_loaded32("int_gate", &c, EFL_NT);
    check_saved32("int_gate", 3, address_of(t_int_done), 2);
    check_eq("int_gate_link", other.link & 0xffff, SEL_TSS);
    reset_tasks();
    guest_idt[0x60] = TASK_GATE(TASK, 0x85);
    c = start(3, t_int, 0);
    check_fault("int_gate_dpl", &c, V_GP, 0x60 * 8 + 2);

    /* faults: the error code goes to the new stack, EIP is the instruction's, RF is saved set */
    reset_tasks();
    guest_idt[V_GP] = TASK_GATE(TASK, 0x85);
    guest_idt[0x61] = GATE(SEL_KCODE, 0, 0x8e);
    c = start(3, t_gp, 0);
    guest_idt[V_GP] = keep;
    check_eq("gp_gate_vector", c.vector, VEC_DONE);
    check_eq("gp_gate_pushes_error_code", other.esp - c.esp, 4);
    check_eq("gp_gate_error_code", peek(c.esp), 0x61 * 8 + 2);
    check_saved32("gp_gate", 3, address_of(t_gp), EFL_RF | 2);
    reset_tasks();
    guest_idt[V_UD] = TASK_GATE(TASK, 0x85);
    c = start(3, t_ud, 0);
    check_loaded32("ud_gate", &c, EFL_NT);
    check_saved32("ud_gate", 3, address_of(t_ud), EFL_RF | 2);

    /* of 16 bits, a word */
    reset_tasks();
    guest_idt[V_UD] = keep_ud;
    set(TASK, TSS16(&other16, 0x81));
    guest_idt[V_GP] = TASK_GATE(TASK, 0x85);
    c = start(3, t_gp, 0);
    guest_idt[V_GP] = keep;
    check_eq("gp_gate16_vector", c.vector, VEC_DONE);
    check_eq("gp_gate16_pushes_error_code", (c.esp & 0xffff), sizeof stack16 - 2);
    check_eq("gp_gate16_error_code", peek(address_of(stack16) + sizeof stack16 - 4) >> 16, 0x61 * 8 + 2);
}

static void sixteen_bits(void)
{
    struct context c;

    /* 32 to 16 */
    reset_tasks();
    set(TASK, TSS16(&other16, 0xe1));
    c = start(3, t_call, TASK);
    check_eq("to16_vector", c.vector, VEC_DONE);
    check_eq("to16_ip", c.eip, 3);
    check_eq("to16_flags", c.eflags & 0xffff, 0x802 | EFL_NT);
    check("to16_registers", (c.eax & 0xffff) == 0xb1b1 && (c.ecx & 0xffff) == 0xb2b2 && (c.edx & 0xffff) == 0xb3b3 &&
                                (c.ebx & 0xffff) == 0xb4b4 && (c.ebp & 0xffff) == 0xb5b5 &&
                                (c.esi & 0xffff) == 0xb6b6 && (c.edi & 0xffff) == 0xb7b7);
    check_eq("to16_sp", c.esp & 0xffff, sizeof stack16);
    check("to16_selectors", c.cs == (CODE16 | 3) && c.ss == (STACK16 | 3) && c.ds == SEL_UDATA && c.es == SEL_UDATA);
    check("to16_FS_GS_null", c.fs == 0 && c.gs == 0);
    check_eq("to16_tr", seen.tr, TASK);
    check_eq("to16_busy", type_of(TASK), 0xe3);
    check_eq("to16_link", other16.link, SEL_TSS);
    check_saved32("from32", 3, address_of(t_call_done), 3);

    /* 16 to 32 and 16 to 16 */
    for (int wide = 0; wide < 2; wide++) {
        const char *how = wide ? "from16_to32" : "from16_to16";

        reset_tasks();
        if (!wide)
            set(TASK, TSS16(&other16, 0xe1));
        __asm__ volatile("ltr %w0" : : "r"(FIRST16) : "memory");
        c = start(3, t_jmp, TASK);
        check_eq(name2(how, "vector"), c.vector, VEC_DONE);
        check_eq(name2(how, "tr"), seen.tr, TASK);
        check_eq(name2(how, "eip"), c.eip, wide ? address_of(t_target_done) + 2 : 3);
        check_eq(name2(how, "old_is_available"), type_of(FIRST16), 0x81);
        check_eq(name2(how, "saved_ip"), first16.ip, address_of(t_jmp_done) & 0xffff);
        check_eq(name2(how, "saved_flags"), first16.flags, 3);
        check(name2(how, "saved_registers"),
              first16.ax == 0x1111 && first16.cx == 0x2222 && first16.dx == 0x3333 && first16.bx == 0x4444 &&
                  first16.bp == 0x5555 && first16.si == 0x6666 && first16.di == 0x7777 &&
                  first16.sp == (context_new(3, t_jmp).esp & 0xffff));
        check(name2(how, "saved_selectors"), first16.cs == SEL_UCODE && first16.ss == SEL_UDATA &&
                                                 first16.ds == SEL_UDATA && first16.es == SEL_UDATA);
        check(name2(how, "static_fields_stay"), first16.link == 0x1234 && first16.ldt == 0);
    }
}

/* ---- before the commit point: the old task's faults --------------------------------------------- */

static void check_untouched(const char *name)
{
    check(name2(name, "leaves_tasks_alone"), seen.tr == SEL_TSS && guest_tss.eip == MARK && other.link == 0 &&
                                                 (type_of(SEL_TSS) == 0x8b) && !(seen.cr0 & 8));
}

static void faults_before(void)
{
    const struct {
        const char *name;
        uint64_t tss;
        uint32_t vector, error;
        bool gate_too; /* with the same result through a task gate */
    } bad[] = {
        { "busy", TSS32(&other, 0xeb), V_GP, UNDER, true },
        { "busy16", TSS16(&other16, 0xe3), V_GP, UNDER, true },
        { "busy_absent", TSS32(&other, 0x6b), V_GP, UNDER, true },
        { "absent", TSS32(&other, 0x69), V_NP, UNDER, true },
        { "absent_short", DESC(address_of(&other), 0x66, 0x69, 0), V_NP, UNDER, true },
        { "short", DESC(address_of(&other), 0x66, 0xe9, 0), V_TS, UNDER, true },
        { "short16", DESC(address_of(&other16), 0x2a, 0xe1, 0), V_TS, UNDER, true },
        { "dpl", TSS32(&other, 0xc9), V_GP, UNDER, false },
    };
    const struct {
        const char *name;
        uint32_t sel;
        uint64_t descriptor;
        uint32_t vector, error;
    } gates[] = {
        { "null", 0, 0, V_GP, 0 },
        { "null_with_rpl", 3, 0, V_GP, 0 },
        { "beyond", BEYOND | 3, 0, V_GP, BEYOND },
        { "local", 8 | TI, 0, V_GP, 8 | TI },
        { "data", UNDER, DESC(0, 0xfffff, 0xf3, 0xc), V_GP, UNDER },
        { "call_gate", UNDER, GATE(SEL_KCODE, 0, 0xec), V_GP, UNDER },
        { "ldt", UNDER, DESC(0, 0xfff, 0xe2, 0), V_GP, UNDER },
    };
    uint64_t keep = guest_idt[V_UD];
    struct context c;

    guest_ldt[1] = TSS32(&other, 0xe9);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (int how = 0; how < (bad[i].gate_too ? 5 : 2); how++) {
            static const char *const via[] = { "jmp", "call", "call_gate", "int", "ud" };
            const void *const code[] = { t_jmp, t_call, t_call, t_int, t_ud };

            reset_tasks();
            set(UNDER, bad[i].tss);
            set(GATE_, TASK_GATE(UNDER, 0xe5));
            guest_idt[0x60] = TASK_GATE(UNDER, 0xe5);
            if (how == 4)
                guest_idt[V_UD] = TASK_GATE(UNDER, 0xe5);
            c = start(3, code[how], how == 2 ? GATE_ : UNDER);
            guest_idt[V_UD] = keep;
            check_fault(name2(via[how], bad[i].name), &c, bad[i].vector, bad[i].error | (how == 4));
            check_eq(name2(via[how], "fault_eip"), c.eip, address_of(code[how]) + (how < 3));
            check_untouched(bad[i].name);
        }
    for (unsigned i = 0; i < sizeof gates / sizeof gates[0]; i++)
        for (int how = 0; how < 3; how++) {
            static const char *const via[] = { "task_gate", "int_task_gate", "ud_task_gate" };
            const void *const code[] = { t_jmp, t_int, t_ud };

            reset_tasks();
            set(UNDER, gates[i].descriptor);
            set(GATE_, TASK_GATE(gates[i].sel, 0xe5));
            guest_idt[0x60] = TASK_GATE(gates[i].sel, 0xe5);
            if (how == 2)
                guest_idt[V_UD] = TASK_GATE(gates[i].sel, 0x85);
            c = start(3, code[how], GATE_);
            guest_idt[V_UD] = keep;
            check_fault(name2(via[how], gates[i].name), &c, gates[i].vector, gates[i].error | (how == 2));
            check_untouched(gates[i].name);
        }
    reset_tasks();
    set(GATE_, TASK_GATE(TASK, 0xc5));
    c = start(3, t_jmp, GATE_);
    check_fault("task_gate_dpl", &c, V_GP, GATE_);
    set(GATE_, TASK_GATE(TASK, 0x65));
    c = start(3, t_jmp, GATE_);
    check_fault("task_gate_absent", &c, V_NP, GATE_);
    guest_idt[0x60] = TASK_GATE(TASK, 0x65);
    c = start(3, t_int, 0);
    check_fault("int_task_gate_absent", &c, V_NP, 0x60 * 8 + 2);
    set(TASK, TSS32(&other, 0xa9));
    c = start(0, t_jmp, TASK | 3);
    check_fault("tss_dpl_below_rpl", &c, V_GP, TASK);
    c = start(3, t_jmp, 8 | TI | 3);
    check_fault("tss_in_ldt", &c, V_GP, 8 | TI);
    c = start(0, t_jmp, SEL_TSS);
    check_fault("jmp_to_oneself", &c, V_GP, SEL_TSS);
    check_untouched("before_commit");
    guest_ldt[1] = 0;
}

/* IRET with NT: the back link. */
static void bad_links(void)
{
    const struct {
        const char *name;
        uint32_t link;
        uint64_t descriptor;
        uint32_t vector, error;
    } bad[] = {
        { "null", 0, 0, V_TS, 0 },
        { "beyond", BEYOND, 0, V_TS, BEYOND },
        { "local", 8 | TI, 0, V_TS, 8 | TI },
        { "data", UNDER, DESC(0, 0xfffff, 0x93, 0xc), V_TS, UNDER },
        { "available", UNDER, TSS32(&other, 0x89), V_TS, UNDER },
        { "available_absent", UNDER, TSS32(&other, 0x09), V_TS, UNDER },
        { "absent", UNDER, TSS32(&other, 0x0b), V_NP, UNDER },
        { "short", UNDER, DESC(address_of(&other), 0x66, 0x8b, 0), V_TS, UNDER },
    };
    struct context c;

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (int ring = 0; ring < 4; ring += 3) {
            reset_tasks();
            set(UNDER, bad[i].descriptor);
            guest_tss.link = bad[i].link;
            c = context_new(ring, t_iret);
            c.eflags |= EFL_NT;
            context_run(&c);
            check_fault(name2("link", bad[i].name), &c, bad[i].vector, bad[i].error);
            check_eq(name2("link_eip", bad[i].name), c.eip, address_of(t_iret_1));
            check_eq(name2("link_NT", bad[i].name), c.eflags & EFL_NT, EFL_NT);
            check_untouched(bad[i].name);
        }
    reset_tasks();
    set(UNDER, TSS32(&other, 0x8b)); /* busy, whatever its DPL */
    guest_tss.link = UNDER;
    c = context_new(3, t_iret);
    c.eflags |= EFL_NT;
    context_run(&c);
    check_eq("link_vector", c.vector, VEC_DONE);
    check_eq("link_tr", seen.tr, UNDER);
    check_eq("link_NT_as_loaded", c.eflags & EFL_NT, 0);
    check_eq("link_old_is_available", type_of(SEL_TSS), 0x89);
    check_eq("link_new_stays_busy", type_of(UNDER), 0x8b);
    check_eq("link_NT_cleared_in_saved", guest_tss.eflags & EFL_NT, 0);
    check_eq("link_saved_eip", guest_tss.eip, address_of(t_iret_done));
}

/* ---- behind the commit point: the new task's faults ------------------------------------------------- */

static void faults_behind(void)
{
    enum { LDT, CS, SS, DS, ES, FS, GS, EIP };
    const struct {
        const char *name;
        int field;
        uint32_t value;
        uint64_t descriptor;
        uint32_t vector, error;
    } bad[] = {
        { "ldt_beyond", LDT, BEYOND, 0, V_TS, BEYOND },
        { "ldt_local", LDT, 8 | TI, 0, V_TS, 8 | TI },
        { "ldt_is_data", LDT, UNDER, DESC(0, 0xfffff, 0x92, 0xc), V_TS, UNDER },
        { "ldt_absent", LDT, UNDER, DESC(0, 0xfff, 0x02, 0), V_TS, UNDER },
        { "cs_null", CS, 3, 0, V_TS, 0 },
        { "cs_beyond", CS, BEYOND | 3, 0, V_TS, BEYOND },
        { "cs_data", CS, SEL_UDATA, 0, V_TS, SEL_UDATA & ~3u },
        { "cs_dpl", CS, CODE2 | 3, 0, V_TS, CODE2 },
        { "cs_system", CS, SEL_TSS | 3, 0, V_TS, SEL_TSS },
        { "cs_absent", CS, UNDER | 3, DESC(0, 0xfffff, 0x7b, 0xc), V_NP, UNDER },
        { "ss_null", SS, 3, 0, V_TS, 0 },
        { "ss_beyond", SS, BEYOND | 3, 0, V_TS, BEYOND },
        { "ss_rpl", SS, SEL_UDATA & ~3u, 0, V_TS, SEL_UDATA & ~3u },
        { "ss_dpl", SS, SEL_KDATA | 3, 0, V_TS, SEL_KDATA },
        { "ss_read_only", SS, UNDER | 3, DESC(0, 0xfffff, 0xf1, 0xc), V_TS, UNDER },
        { "ss_code", SS, SEL_UCODE, 0, V_TS, SEL_UCODE & ~3u },
        { "ss_absent", SS, UNDER | 3, DESC(0, 0xfffff, 0x73, 0xc), V_SS, UNDER },
        { "ds_beyond", DS, BEYOND, 0, V_TS, BEYOND },
        { "ds_execute_only", DS, UNDER, DESC(0, 0xfffff, 0xf9, 0xc), V_TS, UNDER },
        { "ds_dpl", DS, SEL_KDATA, 0, V_TS, SEL_KDATA },
        { "ds_absent", DS, UNDER | 3, DESC(0, 0xfffff, 0x73, 0xc), V_NP, UNDER },
        { "es_dpl", ES, SEL_KDATA | 3, 0, V_TS, SEL_KDATA },
        { "fs_system", FS, SEL_LDT | 3, 0, V_TS, SEL_LDT },
        { "gs_absent", GS, UNDER | 3, DESC(0, 0xfffff, 0x73, 0xc), V_NP, UNDER },
        { "eip_beyond_limit", EIP, 0x1000, 0, V_GP, 0 },
    };
    uint64_t keep = guest_idt[V_UD];
    struct context c;

    if (option_given("qemu")) /* it takes the fault with a stack that is neither task's */
        return;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (int how = 0; how < 3; how++) {
            static const char *const via[] = { "in_new_task", "in_called_task", "in_exception_task" };
            const void *const code[] = { t_jmp, t_call, t_ud };
            uint32_t eip = address_of(t_target);

            reset_tasks();
            set(UNDER, bad[i].descriptor);
            switch (bad[i].field) {
            case LDT:
                other.ldt = bad[i].value;
                break;
            case CS:
                other.cs = bad[i].value;
                break;
            case SS:
                other.ss = bad[i].value;
                break;
            case DS:
                other.ds = bad[i].value;
                break;
            case ES:
                other.es = bad[i].value;
                break;
            case FS:
                other.fs = bad[i].value;
                break;
            case GS:
                other.gs = bad[i].value;
                break;
            case EIP:
                other.cs = CODE16 | 3;
                other.eip = eip = bad[i].value;
                break;
            }
            if (how == 2)
                guest_idt[V_UD] = TASK_GATE(TASK, 0x85);
            c = start(3, code[how], TASK);
            guest_idt[V_UD] = keep;
            check_fault(name2(via[how], bad[i].name), &c, bad[i].vector, bad[i].error | (how == 2));
            check_eq(name2("new_eip", bad[i].name), c.eip, eip);
            check_eq(name2("new_tr", bad[i].name), seen.tr, TASK);
            check_eq(name2("new_is_busy", bad[i].name), type_of(TASK), 0xeb);
            check(name2("new_registers", bad[i].name), c.eax == 0xa1a1a1a1 && c.edi == 0xa7a7a7a7 && c.esp == other.esp);
            check_eq(name2("old_is_saved", bad[i].name), guest_tss.eip, how == 0   ? address_of(t_jmp_done)
                                                                         : how == 1 ? address_of(t_call_done)
                                                                                    : address_of(t_ud));
        }
}

/* ---- LDT, CR3, nesting, interrupts, double faults ------------------------------------------------------- */

static void own_ldt(void)
{
    struct context c;

    reset_tasks();
    ldt2[1] = DESC(SCRATCH, 0xfff, 0xf3, 0x4);
    poke(SCRATCH + 0x10, 0xfeedf00d);
    other.ldt = LDT2;
    other.ds = 8 | TI | 3;
    other.ebx = 0x10;
    other.eip = address_of(t_read);
    c = start(3, t_call, TASK);
    check_eq("own_ldt_vector", c.vector, VEC_DONE);
    check_eq("own_ldt_value", c.eax, 0xfeedf00d);
    check_eq("own_ldt_ldtr", seen.ldtr, LDT2);
    reset_tasks();
    other.ldt = 0;
    c = start(3, t_call, TASK);
    check_eq("no_ldt_vector", c.vector, VEC_DONE);
    check_eq("no_ldt_ldtr", seen.ldtr, 0);
    reset_tasks();
    other.eip = address_of(t_fpu);
    c = start(3, t_call, TASK);
    check_fault("first_fpu_instruction_of_a_task", &c, V_NM, 0);
}

static void nested(void)
{
    struct context c;

    reset_tasks();
    other.eip = address_of(t_call_third);
    other.ecx = 7;
    third.eip = address_of(t_counter);
    third.eax = 50;
    c = start(3, t_call, TASK);
    check_eq("nested_vector", c.vector, VEC_DONE);
    check_eq("nested_tr", seen.tr, SEL_TSS);
    check_eq("nested_inner_ran", third.eax, 51);
    check_eq("nested_outer_ran", other.ecx, 8);
    check_eq("nested_inner_link", third.link & 0xffff, TASK);
    check_eq("nested_outer_link", other.link & 0xffff, SEL_TSS);
    check_eq("nested_saved_NT_of_outer", other.eflags & EFL_NT, 0);
    check_eq("nested_types", type_of(TASK) << 8 | type_of(THIRD), 0xe9e9);
}

static void interrupted_by_task(void)
{
    uint64_t keep = guest_idt[0x20];
    struct context c;

    reset_tasks();
    irq_seen = 0;
    other.eip = address_of(t_irq_task);
    other.eflags = 2 | EFL_IOPL;
    guest_idt[0x20] = TASK_GATE(TASK, 0x85);
    outb(0x43, 0x30);
    outb(0x40, 0xff);
    outb(0x40, 0x1);
    outb(0x21, 0xfe);
    c = context_new(3, t_wait);
    c.eflags = 2 | EFL_IOPL;
    context_run(&c);
    outb(0x21, 0xff);
    guest_idt[0x20] = keep;
    check_eq("irq_task_and_back_vector", c.vector, VEC_DONE);
    check_eq("irq_task_and_back_eip", c.eip, address_of(t_wait_done) + 2);
    check_eq("irq_task_ran", irq_seen, 1);
    check_eq("irq_task_link", other.link & 0xffff, SEL_TSS);
    check_eq("irq_task_is_available", type_of(TASK), 0xe9);
}

static void double_fault_task(void)
{
    uint64_t keep8 = guest_idt[V_DF], keep0 = guest_idt[V_DE];
    struct context c;

    reset_tasks();
    guest_idt[V_DF] = TASK_GATE(TASK, 0x85);
    guest_idt[V_DE] &= ~(0x80ull << 40);
    c = start(3, t_de, 0);
    guest_idt[V_DE] = keep0;
    guest_idt[V_DF] = keep8;
    check_eq("double_fault_task_vector", c.vector, VEC_DONE);
    check_eq("double_fault_task_tr", seen.tr, TASK);
    check_eq("double_fault_task_error_code", c.esp == other.esp - 4 ? peek(c.esp) : 1, 0);
    check_eq("double_fault_task_saved_eip", guest_tss.eip, address_of(t_de_1));
    check_eq("double_fault_task_link", other.link & 0xffff, SEL_TSS);
}

static uint32_t directory2[1024] __attribute__((aligned(4096)));
static uint32_t table2[1024] __attribute__((aligned(4096)));
#define PAGE (SCRATCH + 0x10000)

static void with_paging(void)
{
    uint64_t keep8 = guest_idt[V_DF];
    struct context c;
    uint32_t esp0;

    paging_on();
    /* the other task has an address space of its own */
    reset_tasks();
    memcpy(directory2, page_directory, sizeof directory2);
    for (unsigned i = 0; i < 1024; i++)
        table2[i] = ((PAGE & 0xffc00000u) + (i << 12)) | PTE_P | PTE_W | PTE_U;
    table2[PAGE >> 12 & 1023] = (PAGE + 0x1000) | PTE_P | PTE_W | PTE_U;
    directory2[PAGE >> 22] = address_of(table2) | PTE_P | PTE_W | PTE_U;
    poke(PAGE, 0x1111);
    poke(PAGE + 0x1000, 0x2222);
    other.cr3 = address_of(directory2);
    other.ebx = PAGE;
    other.eip = address_of(t_read);
    c = start(3, t_call, TASK);
    set_cr3(address_of(page_directory));
    check_eq("own_cr3_vector", c.vector, VEC_DONE);
    check_eq("own_cr3", seen.cr3, address_of(directory2));
    check_eq("own_cr3_value", c.eax, 0x2222);
    check_eq("cr3_is_not_saved", guest_tss.cr3, 0);

    /* a TSS that is not there, and one that can't be written: the old task's page faults */
    reset_tasks();
    memcpy((void *)PAGE, &other, sizeof other);
    set(TASK, DESC(PAGE, 0x67, 0xe9, 0));
    pte_set(PAGE, 0);
    c = start(3, t_jmp, TASK);
    check_eq("absent_new_tss_vector", c.vector, V_PF);
    check_eq("absent_new_tss_page", c.cr2 & ~0xfffu, PAGE);
    check_eq("absent_new_tss_error_is_supervisor", c.error & 5, 0);
    check_eq("absent_new_tss_eip", c.eip, address_of(t_jmp) + 1);
    check("absent_new_tss_leaves_all", seen.tr == SEL_TSS && guest_tss.eip == MARK && type_of(SEL_TSS) == 0x8b);
    pte_set(PAGE, PAGE | PTE_P | PTE_W | PTE_U);

    reset_tasks();
    struct tss *old = (struct tss *)PAGE;
    *old = guest_tss;
    set(TASK, TSS32(&other, 0xe9));
    set(UNDER, DESC(PAGE, 0x67, 0x89, 0));
    __asm__ volatile("ltr %w0" : : "r"(UNDER) : "memory");
    set_cr0(get_cr0() | 0x10000);
    pte_set(PAGE, PAGE | PTE_P | PTE_U);
    c = start(3, t_jmp, TASK);
    set_cr0(get_cr0() & ~0x10000u);
    check_eq("read_only_old_tss_vector", c.vector, V_PF);
    check_eq("read_only_old_tss_error", c.error, 3);
    check_eq("read_only_old_tss_page", c.cr2 & ~0xfffu, PAGE);
    check_eq("read_only_old_tss_eip", c.eip, address_of(t_jmp) + 1);
    check("read_only_old_tss_leaves_all", seen.tr == UNDER && old->eip == MARK && type_of(UNDER) == 0x8b &&
                                              type_of(TASK) == 0xe9);
    pte_set(PAGE, PAGE | PTE_P | PTE_W | PTE_U);

    /* no stack for ring 0: a page fault in the delivery of another, taken by a task */
    reset_tasks();
    esp0 = guest_tss.esp0;
    guest_tss.esp0 = PAGE + 0x1000;
    pte_set(PAGE, 0);
    guest_idt[V_DF] = TASK_GATE(TASK, 0x85);
    c = start(3, t_ud, 0);
    guest_idt[V_DF] = keep8;
    guest_tss.esp0 = esp0;
    check_eq("no_kernel_stack_vector", c.vector, VEC_DONE);
    check_eq("no_kernel_stack_tr", seen.tr, TASK);
    check_eq("no_kernel_stack_cr2", c.cr2, PAGE + 0xffc);
    check_eq("no_kernel_stack_saved_eip", guest_tss.eip, address_of(t_ud));
    check_eq("no_kernel_stack_error_code", c.esp == other.esp - 4 ? peek(c.esp) : 1, 0);
    pte_set(PAGE, PAGE | PTE_P | PTE_W | PTE_U);
    reset_tasks();
    paging_off();
}

/* A task of virtual-8086 mode. */
static void vm86_task(void)
{
    uint8_t *code = (uint8_t *)0x60033;
    struct context c;

    reset_tasks();
    code[0] = 0xcd;
    code[1] = 0x7f;
    other.eflags = EFL_VM | EFL_IOPL | 2;
    other.cs = 0x6003;
    other.eip = 3;
    other.ss = 0x6100;
    other.esp = 0x100;
    other.ds = other.es = other.fs = other.gs = 0x6200;
    c = start(3, t_call, TASK);
    check_eq("vm86_task_vector", c.vector, VEC_DONE);
    check_eq("vm86_task_cs_ip", c.cs << 16 | c.eip, 0x60030005);
    check_eq("vm86_task_ss_sp", c.ss << 16 | c.esp, 0x61000100);
    check_eq("vm86_task_eflags", c.eflags & (EFL_VM | EFL_IOPL | EFL_NT), EFL_VM | EFL_IOPL | EFL_NT);
}

void guest_main(void)
{
    jump_and_call(0);
    jump_and_call(3);
    through_gates();
    sixteen_bits();
    faults_before();
    bad_links();
    faults_behind();
    own_ldt();
    nested();
    interrupted_by_task();
    double_fault_task();
    with_paging();
    vm86_task();
    reset_tasks();
    guest_hook = NULL;
}
