/*
 * Control transfers: call gates of both sizes, far JMP, CALL and RET between rings,
 * interrupt and trap gates of both sizes, IRET, and which faults they earn with which
 * error codes; hardware interrupts through bad gates; the double fault table.
 *
 * Ref: Intel SDM vol. 2, CALL, JMP, RET, INT n, IRET; vol. 3A, ch. "Protection" and ch.
 * "Interrupt and Exception Handling".
 */
#include "../lib/guest.h"

#define SEL(n) (SEL_FREE + 8 * (n))
#define CODE1  SEL(0) /* of rings 1 and 2 */
#define DATA1  SEL(1)
#define CODE2  SEL(2)
#define DATA2  SEL(3)
#define CONF0  SEL(4)
#define UNDER  SEL(5) /* the descriptor under test */
#define GATE_  SEL(6)
#define BASED  SEL(7) /* 32-bit code that begins at `land` */
#define BASED3 SEL(8)
#define OTHER  SEL(9)
#define TSS_   SEL(10)
#define BEYOND 0x1000 /* no table reaches so far */
#define TI     4u
#define LOW_STACK 0x7000 /* free memory that 16 bits reach */

static struct __attribute__((packed)) {
    uint32_t ofs;
    uint16_t sel;
} far32 __attribute__((used));
static struct __attribute__((packed)) {
    uint16_t ofs, sel;
} far16 __attribute__((used));
__asm__(".set far32_m, far32\n.set far16_m, far16");

SNIPPET(f_call, "lcall *far32_m");
SNIPPET(f_jmp, "ljmp *far32_m");
SNIPPET(f_callw, "lcallw *far16_m");
SNIPPET(f_call_params, "push $0x44; push $0x33; push $0x22; push $0x11; lcall *far32_m");
/* EBX: selector, ECX: offset; SS:ESP of an outer return in EDI:ESI */
SNIPPET(f_lret, "push %edi; push %esi; push %ebx; push %ecx; f_lret_1: lret");
SNIPPET(f_lret8, "push %edi; push %esi; push $8; push $9; push %ebx; push %ecx; f_lret8_1: lret $8");
SNIPPET(f_lretw, "pushw %di; pushw %si; pushw %bx; pushw %cx; f_lretw_1: lretw");
SNIPPET(f_iret, "push %edi; push %esi; push %edx; push %ebx; push %ecx; f_iret_1: iret");
SNIPPET(f_iretw, "pushw %di; pushw %si; pushw %dx; pushw %bx; pushw %cx; f_iretw_1: iretw");
LABEL(f_lret_1);
LABEL(f_lret8_1);
LABEL(f_lretw_1);
LABEL(f_iret_1);
LABEL(f_iretw_1);
SNIPPET(land, "nop");
SNIPPET(land_params, "mov 8(%esp), %eax; mov 12(%esp), %ebx; lret $8");
SNIPPET(f_call_params_check, "push $0x22; push $0x11; mov %esp, %ebp; lcall *far32_m; sub %esp, %ebp");
SNIPPET(f_int60, "int $0x60");
SNIPPET(f_int3, "int3");
SNIPPET(f_into, "mov $0x7f, %al; inc %al; into");
SNIPPET(f_int1, ".byte 0xf1");
SNIPPET(f_ud, "ud2");
SNIPPET(f_de, "xor %ecx, %ecx; f_de_1: div %ecx");
SNIPPET(f_gp, "f_gp_1: int $0x61");
SNIPPET(f_wait, "sti; 1: jmp 1b");
SNIPPET(f_segs, "mov %ax, %ds; mov %bx, %es; mov %cx, %fs; mov %dx, %gs; iret");
LABEL(f_de_1);

static uint8_t stack1[4096], stack2[4096];

static const char *ring_name(int ring)
{
    static const char *const names[] = { "ring0", "ring1", "ring2", "ring3" };

    return names[ring];
}

static struct context context_at(int ring, const void *code)
{
    struct context c = context_new(ring ? 3 : 0, code);

    if (ring == 1 || ring == 2) {
        c.cs = (ring == 1 ? CODE1 : CODE2) | (uint32_t)ring;
        c.ss = c.ds = c.es = c.fs = c.gs = (ring == 1 ? DATA1 : DATA2) | (uint32_t)ring;
    }
    return c;
}

static struct context far_to(int ring, const void *code, uint32_t sel, uint32_t ofs)
{
    struct context c = context_at(ring, code);

    far32.sel = far16.sel = (uint16_t)sel;
    far32.ofs = ofs;
    far16.ofs = (uint16_t)ofs;
    context_run(&c);
    return c;
}

static void set(uint32_t sel, uint64_t descriptor)
{
    guest_gdt[sel >> 3] = descriptor;
}

static void make_segments(void)
{
    set(CODE1, DESC(0, 0xfffff, 0xbb, 0xc));
    set(DATA1, DESC(0, 0xfffff, 0xb3, 0xc));
    set(CODE2, DESC(0, 0xfffff, 0xdb, 0xc));
    set(DATA2, DESC(0, 0xfffff, 0xd3, 0xc));
    set(CONF0, DESC(0, 0xfffff, 0x9f, 0xc));
    set(BASED, DESC(address_of(land), 0xfff, 0x9b, 0x4));
    set(BASED3, DESC(address_of(land), 0xfff, 0xfb, 0x4));
    set(TSS_, DESC(address_of(&guest_tss), 0x67, 0x89, 0));
    guest_tss.esp1 = address_of(stack1) + sizeof stack1;
    guest_tss.ss1 = DATA1 | 1;
    guest_tss.esp2 = address_of(stack2) + sizeof stack2;
    guest_tss.ss2 = DATA2 | 2;
}

/* ---- what a descriptor can be wrong in ------------------------------------------------- */

struct bad {
    const char *name;
    uint32_t sel; /* UNDER, or a selector that is wrong by itself */
    uint64_t descriptor;
    uint32_t vector, error;
};

static struct context try_bad(const struct bad *b, int ring, const void *code, uint32_t rpl)
{
    set(UNDER, b->descriptor);
    return far_to(ring, code, b->sel | rpl, address_of(land));
}

/* A far JMP or CALL straight to a code segment. */
static void direct(int ring)
{
    uint64_t dpl = (uint64_t)ring << 5, inner = ring ? 0 : 0x60;
    const struct bad cases[] = {
        { "null", 0, 0, V_GP, 0 },
        { "null_with_rpl", 3, 0, V_GP, 0 },
        { "beyond_gdt", BEYOND, 0, V_GP, BEYOND },
        { "beyond_ldt", 0x100 | TI, 0, V_GP, 0x100 | TI },
        { "data", UNDER, DESC(0, 0xfffff, 0x93 | dpl, 0xc), V_GP, UNDER },
        { "data_not_present", UNDER, DESC(0, 0xfffff, 0x13 | dpl, 0xc), V_GP, UNDER },
        { "code_not_present", UNDER, DESC(0, 0xfffff, 0x1b | dpl, 0xc), V_NP, UNDER },
        { "conforming_not_present", UNDER, DESC(0, 0xfffff, 0x1f, 0xc), V_NP, UNDER },
        { "code_of_another_ring", UNDER, DESC(0, 0xfffff, 0x9b | inner, 0xc), V_GP, UNDER },
        { "code_of_another_ring_not_present", UNDER, DESC(0, 0xfffff, 0x1b | inner, 0xc), V_GP, UNDER },
        { "ldt", UNDER, DESC(0, 0xfff, 0x82 | dpl, 0), V_GP, UNDER },
        { "interrupt_gate", UNDER, GATE(SEL_KCODE, 0, 0x8e | dpl), V_GP, UNDER },
        { "trap_gate_16", UNDER, GATE(SEL_KCODE, 0, 0x87 | dpl), V_GP, UNDER },
        { "type_0", UNDER, DESC(0, 0xfff, 0x80 | dpl, 0), V_GP, UNDER },
        { "type_8", UNDER, DESC(0, 0xfff, 0x88 | dpl, 0), V_GP, UNDER },
        { "type_A", UNDER, DESC(0, 0xfff, 0x8a | dpl, 0), V_GP, UNDER },
        { "type_D", UNDER, DESC(0, 0xfff, 0x8d | dpl, 0), V_GP, UNDER },
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int call = 0; call < 2; call++) {
            const void *code = call ? f_call : f_jmp;
            struct context c = try_bad(&cases[i], ring, code, 0), fresh = context_at(ring, code);

            check_fault(name2(call ? "call" : "jmp", name2(ring_name(ring), cases[i].name)), &c, cases[i].vector,
                        cases[i].error);
            check(name2("unchanged", cases[i].name), c.eip == address_of(code) && (ring == 0 || c.esp == fresh.esp));
        }
    /* a nonconforming segment of the ring's own: RPL may be smaller, not greater */
    set(UNDER, DESC(0, 0xfffff, 0x9a | dpl, 0xc));
    struct context c = far_to(ring, f_jmp, UNDER, address_of(land));
    check_eq("jmp_rpl_0_vector", c.vector, VEC_DONE);
    check_eq("jmp_rpl_becomes_cpl", c.cs, UNDER | (uint32_t)ring);
    check_eq("jmp_sets_accessed", (guest_gdt[UNDER >> 3] >> 40) & 1, 1);
    if (ring < 3) {
        c = far_to(ring, f_jmp, UNDER | 3, address_of(land));
        check_fault("jmp_rpl_greater", &c, V_GP, UNDER);
    }
    c = far_to(ring, f_jmp, CONF0 | 3, address_of(land));
    check_eq("jmp_conforming_vector", c.vector, VEC_DONE);
    check_eq("jmp_conforming_keeps_cpl", c.cs, CONF0 | (uint32_t)ring);
    c = far_to(ring, f_call, CONF0 | 3, address_of(land));
    check_eq("call_conforming_vector", c.vector, VEC_DONE);
    check_eq("call_conforming_keeps_cpl", c.cs, CONF0 | (uint32_t)ring);
    set(UNDER, DESC(address_of(land), 0x10, 0x9b | dpl, 0x4));
    c = far_to(ring, f_jmp, UNDER | (uint32_t)ring, 0x11);
    check_fault("jmp_beyond_limit", &c, V_GP, 0);
    check_eq("jmp_beyond_limit_eip", c.eip, address_of(f_jmp));
    c = far_to(ring, f_call, UNDER | (uint32_t)ring, 0x11);
    check_fault("call_beyond_limit", &c, V_GP, 0);
    check_eq("call_beyond_limit_eip", c.eip, address_of(f_call));
    /* operand size 16: IP and CS as words, EIP cut */
    set(UNDER, DESC(address_of(land), 0xfff, 0x9b | dpl, 0x4));
    c = far_to(ring, f_callw, UNDER | (uint32_t)ring, 0);
    check_eq("callw_vector", c.vector, VEC_DONE);
    check_eq("callw_cs", c.cs, UNDER | (uint32_t)ring);
    if (ring) {
        struct context fresh = context_at(ring, f_callw);

        check_eq("callw_pushes_two_words", fresh.esp - c.esp, 4);
        check_eq("callw_frame", peek(c.esp), fresh.cs << 16 | (address_of(f_callw_done) & 0xffff));
    }
}

/* ---- call gates ------------------------------------------------------------------------------ */

#define CALL32(sel, ofs, dpl, n) (GATE(sel, ofs, 0x8cu | (dpl) << 5) | (uint64_t)(n) << 32)
#define CALL16(sel, ofs, dpl, n) (GATE(sel, ofs, 0x84u | (dpl) << 5) | (uint64_t)(n) << 32)

static void gate_frames(void)
{
    const uint32_t targets[] = { SEL_KCODE, CODE1, CODE2 };
    struct context c, fresh = context_at(3, f_call_params);

    for (unsigned ring = 0; ring < 3; ring++) {
        const char *r = ring_name((int)ring);
        const uint32_t top[] = { guest_tss.esp0, guest_tss.esp1, guest_tss.esp2 };

        set(GATE_, CALL32(targets[ring] | 3, address_of(land), 3, 4)); /* the gate's RPL is of no account */
        c = far_to(3, f_call_params, GATE_ | 3, 0xdeadbeef);
        check_eq(name2("gate32_vector", r), c.vector, VEC_DONE);
        check_eq(name2("gate32_cs", r), c.cs, targets[ring] | ring);
        check_eq(name2("gate32_ss", r), c.ss, ring == 0 ? SEL_KDATA : ring == 1 ? DATA1 | 1 : DATA2 | 2);
        check_eq(name2("gate32_frame_size", r), top[ring] - c.esp, ring ? 32 : 32);
        check_eq(name2("gate32_eip", r), peek(top[ring] - 32), address_of(f_call_params_done));
        check_eq(name2("gate32_cs_pushed", r), peek(top[ring] - 28) & 0xffff, SEL_UCODE);
        check_eq(name2("gate32_param_1", r), peek(top[ring] - 24), 0x11);
        check_eq(name2("gate32_param_4", r), peek(top[ring] - 12), 0x44);
        check_eq(name2("gate32_esp_pushed", r), peek(top[ring] - 8), fresh.esp - 16);
        check_eq(name2("gate32_ss_pushed", r), peek(top[ring] - 4) & 0xffff, SEL_UDATA);
    }
    set(GATE_, CALL32(CODE1, address_of(land), 3, 31));
    c = far_to(3, f_call_params, GATE_ | 3, 0);
    check_eq("gate32_31_parameters_vector", c.vector, VEC_DONE);
    check_eq("gate32_31_parameters", guest_tss.esp1 - c.esp, 16 + 31 * 4);
    /* bits 5 to 7 of the count are none of it */
    set(GATE_, CALL32(CODE1, address_of(land), 3, 0xe1));
    c = far_to(3, f_call_params, GATE_ | 3, 0);
    check_eq("gate32_count_has_five_bits", guest_tss.esp1 - c.esp, 16 + 4);

    /* 16 bits: the offset's upper half is ignored, words are pushed and copied */
    set(UNDER, DESC(address_of(land), 0xfff, 0xbb, 0x4));
    set(GATE_, CALL16(UNDER, option_given("qemu") ? 0 : 0x77770000u, 3, 3));
    c = far_to(3, f_call_params, GATE_ | 3, 0);
    check_eq("gate16_vector", c.vector, VEC_DONE);
    check_eq("gate16_cs", c.cs, UNDER | 1);
    check_eq("gate16_frame_size", guest_tss.esp1 - c.esp, 8 + 3 * 2);
    check_eq("gate16_ip_cs", peek(guest_tss.esp1 - 14), (SEL_UCODE << 16) | (address_of(f_call_params_done) & 0xffff));
    check_eq("gate16_params", peek(guest_tss.esp1 - 10), 0x11);
    check_eq("gate16_param_3_and_sp", peek(guest_tss.esp1 - 6), ((fresh.esp - 16) << 16) | 0x22);
    check_eq("gate16_ss", peek(guest_tss.esp1 - 2) & 0xffff, SEL_UDATA);

    /* conforming target: no change of ring nor of stack, no parameters */
    set(GATE_, CALL32(CONF0, address_of(land), 3, 4));
    c = far_to(3, f_call_params, GATE_ | 3, 0);
    check_eq("gate_conforming_vector", c.vector, VEC_DONE);
    check_eq("gate_conforming_cs", c.cs, CONF0 | 3);
    check_eq("gate_conforming_frame", fresh.esp - 16 - c.esp, 8);
    set(GATE_, CALL16(BASED3, 0, 3, 4));
    c = far_to(3, f_call_params, GATE_ | 3, 0);
    check_eq("gate16_same_ring_vector", c.vector, VEC_DONE);
    check_eq("gate16_same_ring_frame", fresh.esp - 16 - c.esp, 4);

    /* there and back with parameters released on both stacks */
    set(GATE_, CALL32(SEL_KCODE, address_of(land_params), 3, 2));
    c = far_to(3, f_call_params_check, GATE_ | 3, 0);
    check_eq("gate_and_back_vector", c.vector, VEC_DONE);
    check_eq("gate_and_back_releases", c.ebp, (uint32_t)-8);
    check_eq("gate_and_back_parameter", c.eax + (c.ebx << 8), 0x2211);
    set(GATE_, CALL32(CODE1, address_of(land_params), 3, 2));
    c = far_to(3, f_call_params_check, GATE_ | 3, 0);
    check_eq("gate_to_ring1_and_back_releases", c.ebp, (uint32_t)-8);
    c = far_to(2, f_call_params_check, GATE_, 0);
    check_eq("gate_from_ring2_to_ring1_and_back_releases", c.ebp, (uint32_t)-8);
}

static void gate_faults(void)
{
    const struct bad targets[] = {
        { "null", 0, 0, V_GP, 0 },
        { "null_with_rpl", 3, 0, V_GP, 0 },
        { "beyond_gdt", BEYOND | 1, 0, V_GP, BEYOND },
        { "beyond_ldt", 0x100 | TI, 0, V_GP, 0x100 | TI },
        { "data", UNDER | 2, DESC(0, 0xfffff, 0x93, 0xc), V_GP, UNDER },
        { "system", UNDER, DESC(0, 0xfffff, 0x82, 0), V_GP, UNDER },
        { "another_gate", UNDER, CALL32(SEL_KCODE, 0, 3, 0), V_GP, UNDER },
        { "outer_code", UNDER, DESC(0, 0xfffff, 0xfb, 0xc), V_GP, UNDER },
        { "outer_conforming", UNDER, DESC(0, 0xfffff, 0xff, 0xc), V_GP, UNDER },
        { "outer_not_present", UNDER, DESC(0, 0xfffff, 0x7b, 0xc), V_GP, UNDER },
        { "not_present", UNDER, DESC(0, 0xfffff, 0x1b, 0xc), V_NP, UNDER },
        { "beyond_limit", UNDER, DESC(0, 0xfff, 0x9b, 0x4), V_GP, 0 },
    };
    struct context c;

    for (unsigned i = 0; i < sizeof targets / sizeof targets[0]; i++)
        for (int jmp = 0; jmp < 2; jmp++) { /* from ring 1, whose own code is at DPL 1 */
            const struct bad *b = &targets[i];
            bool to_ring_0 = b->descriptor && (b->descriptor >> 45 & 3) == 0;
            bool wrong_ring = jmp && to_ring_0 && (b->vector == V_NP || b->error == 0);

            set(UNDER, b->descriptor);
            set(GATE_, CALL32(b->sel, address_of(land), 1, 0));
            c = far_to(1, jmp ? f_jmp : f_call, GATE_ | 1, 0);
            check_fault(name2(jmp ? "jmp_gate_target" : "call_gate_target", b->name), &c,
                        wrong_ring ? (uint32_t)V_GP : b->vector, wrong_ring ? (uint32_t)UNDER : b->error);
            check_eq(name2("gate_target_eip", b->name), c.eip, address_of(jmp ? f_jmp : f_call));
        }
    /* the gate itself */
    set(GATE_, CALL32(SEL_KCODE, address_of(land), 2, 0));
    c = far_to(3, f_call, GATE_, 0);
    check_fault("gate_dpl_below_cpl", &c, V_GP, GATE_);
    c = far_to(2, f_call, GATE_ | 3, 0);
    check_fault("gate_dpl_below_rpl", &c, V_GP, GATE_);
    c = far_to(2, f_call, GATE_ | 1, 0);
    check_done("gate_dpl_equal", &c);
    set(GATE_, CALL32(SEL_KCODE, address_of(land), 2, 0) & ~(0x80ull << 40));
    c = far_to(3, f_call, GATE_, 0);
    check_fault("absent_gate_dpl_below_cpl", &c, V_GP, GATE_);
    c = far_to(2, f_call, GATE_, 0);
    check_fault("absent_gate", &c, V_NP, GATE_);
    /* JMP through a gate to conforming code keeps the ring */
    set(GATE_, CALL32(CONF0, address_of(land), 3, 0));
    c = far_to(3, f_jmp, GATE_, 0);
    check_eq("jmp_gate_conforming", c.vector == VEC_DONE ? c.cs : 0, CONF0 | 3);
    set(GATE_, CALL16(BASED3, option_given("qemu") ? 0 : 0x10000, 3, 0));
    c = far_to(3, f_jmp, GATE_, 0);
    check_eq("jmp_gate16_same_ring", c.vector == VEC_DONE ? c.cs : 0, BASED3 | 3);
}

/* ---- the stack that a TSS gives --------------------------------------------------------------- */

struct bad_stack {
    const char *name;
    uint32_t ss;
    uint64_t descriptor;
    uint32_t vector, error;
};
static const struct bad_stack bad_stacks[] = {
    { "null", 0, 0, V_TS, 0 },
    { "null_with_rpl", 1, 0, V_TS, 0 },
    { "beyond_gdt", BEYOND | 1, 0, V_TS, BEYOND },
    { "beyond_ldt", 0x100 | TI | 1, 0, V_TS, 0x100 | TI },
    { "rpl", UNDER | 0, DESC(0, 0xfffff, 0xb3, 0xc), V_TS, UNDER },
    { "rpl_3", UNDER | 3, DESC(0, 0xfffff, 0xb3, 0xc), V_TS, UNDER },
    { "dpl", UNDER | 1, DESC(0, 0xfffff, 0x93, 0xc), V_TS, UNDER },
    { "dpl_3", UNDER | 1, DESC(0, 0xfffff, 0xf3, 0xc), V_TS, UNDER },
    { "read_only", UNDER | 1, DESC(0, 0xfffff, 0xb1, 0xc), V_TS, UNDER },
    { "code", UNDER | 1, DESC(0, 0xfffff, 0xbb, 0xc), V_TS, UNDER },
    { "system", UNDER | 1, DESC(0, 0xfffff, 0xa2, 0), V_TS, UNDER },
    { "absent", UNDER | 1, DESC(0, 0xfffff, 0x33, 0xc), V_SS, UNDER },
    { "absent_read_only", UNDER | 1, DESC(0, 0xfffff, 0x31, 0xc), V_TS, UNDER },
};

static void load_tr(uint32_t limit)
{
    set(TSS_, DESC(address_of(&guest_tss), limit, 0x89, 0));
    __asm__ volatile("ltr %w0" : : "r"(TSS_) : "memory");
}

static void inner_stacks(void)
{
    uint64_t keep6 = guest_idt[V_UD], keep0 = guest_idt[V_DE];
    struct context c;

    set(GATE_, CALL32(CODE1, address_of(land), 3, 0));
    guest_idt[0x60] = GATE(CODE1, address_of(land), 0xee);
    for (unsigned i = 0; i < sizeof bad_stacks / sizeof bad_stacks[0]; i++) {
        const struct bad_stack *b = &bad_stacks[i];

        set(UNDER, b->descriptor);
        guest_tss.ss1 = b->ss;
        c = far_to(3, f_call, GATE_, 0);
        check_fault(name2("gate_stack", b->name), &c, b->vector, b->error);
        check_eq(name2("gate_stack_eip", b->name), c.eip, address_of(f_call));
        c = run_at(3, f_int60);
        check_fault(name2("int_stack", b->name), &c, b->vector, b->error);
        check_eq(name2("int_stack_eip", b->name), c.eip, address_of(f_int60));
        guest_idt[V_UD] = GATE(CODE1, address_of(land), 0x8e); /* a benign exception: EXT is set */
        c = run_at(3, f_ud);
        check_fault(name2("exception_stack", b->name), &c, b->vector, b->error | 1);
        guest_idt[V_UD] = keep6;
        guest_idt[V_DE] = GATE(CODE1, address_of(land), 0x8e); /* a contributory one: #DF */
        c = run_at(3, f_de);
        check_fault(name2("divide_stack", b->name), &c, V_DF, 0);
        guest_idt[V_DE] = keep0;
    }
    /* no room: 15 bytes are too few for 16 */
    guest_tss.ss1 = UNDER | 1;
    set(UNDER, DESC(address_of(stack1), 0xfff, 0xb3, 0x4));
    guest_tss.esp1 = 0x10;
    c = far_to(3, f_call, GATE_, 0);
    check_eq("gate_stack_just_enough", c.vector == VEC_DONE ? c.esp : 1, 0);
    guest_tss.esp1 = 0xf;
    c = far_to(3, f_call, GATE_, 0);
    check_fault("gate_stack_too_small", &c, V_SS, UNDER);
    guest_tss.esp1 = 0x1001;
    c = far_to(3, f_call, GATE_, 0);
    check_fault("gate_stack_beyond_limit", &c, V_SS, UNDER);
    guest_tss.esp1 = 0x13;
    c = run_at(3, f_int60);
    check_fault("int_stack_too_small", &c, V_SS, UNDER);
    guest_tss.esp1 = 0x14;
    c = run_at(3, f_int60);
    check_eq("int_stack_just_enough", c.vector == VEC_DONE ? c.esp : 1, 0);
    guest_idt[V_UD] = GATE(CODE1, address_of(land), 0x8e);
    guest_tss.esp1 = 0x10;
    c = run_at(3, f_ud);
    check_fault("exception_stack_too_small", &c, V_SS, UNDER | 1);
    guest_idt[V_UD] = keep6;
    make_segments();

    /* the TSS ends before SS1 */
    load_tr(0x11);
    c = far_to(3, f_call, GATE_, 0);
    check_done("tss_holds_ss1", &c);
    load_tr(0x10);
    c = far_to(3, f_call, GATE_, 0);
    check_fault("tss_too_short_for_ss1", &c, V_TS, TSS_);
    c = run_at(3, f_int60);
    check_fault("tss_too_short_for_int", &c, V_TS, TSS_);
    guest_idt[V_UD] = GATE(CODE1, address_of(land), 0x8e);
    c = run_at(3, f_ud);
    check_fault("tss_too_short_for_exception", &c, V_TS, TSS_ | 1);
    guest_idt[V_UD] = keep6;
    load_tr(0x67);
}

/* A 16-bit TSS: SP and SS as words. */
static void tss16(void)
{
    static uint16_t tss[22];
    struct context c;

    tss[1] = LOW_STACK; /* SP0 SS0 SP1 SS1 SP2 SS2 */
    tss[2] = SEL_KDATA;
    tss[3] = 0x800;
    tss[4] = OTHER | 1;
    set(OTHER, DESC(address_of(stack1), 0xfff, 0xb3, 0x0)); /* 16 bits */
    set(TSS_, DESC(address_of(tss), 0x2b, 0x81, 0));
    __asm__ volatile("ltr %w0" : : "r"(TSS_) : "memory");
    check_eq("ltr_tss16_busy", (guest_gdt[TSS_ >> 3] >> 40) & 0xf, 3);
    set(GATE_, CALL32(CODE1, address_of(land), 3, 0));
    c = far_to(3, f_call, GATE_, 0);
    check_eq("tss16_gate_vector", c.vector, VEC_DONE);
    check_eq("tss16_gate_ss", c.ss, OTHER | 1);
    check_eq("tss16_gate_sp", c.esp & 0xffff, 0x800 - 16);
    check_eq("tss16_gate_frame", peek(address_of(stack1) + 0x800 - 16), address_of(f_call_done));
    set(TSS_, DESC(address_of(tss), 9, 0x81, 0)); /* SP1 and SS1 end at byte 9 */
    __asm__ volatile("ltr %w0" : : "r"(TSS_) : "memory");
    c = far_to(3, f_call, GATE_, 0);
    check_done("tss16_holds_ss1", &c);
    set(TSS_, DESC(address_of(tss), 8, 0x81, 0));
    __asm__ volatile("ltr %w0" : : "r"(TSS_) : "memory");
    c = far_to(3, f_call, GATE_, 0);
    check_fault("tss16_too_short", &c, V_TS, TSS_);
    load_tr(0x67);
}

/* ---- far returns ---------------------------------------------------------------------------------- */

static struct context return_to(int ring, const void *code, uint32_t cs, uint32_t eip, uint32_t ss, uint32_t esp)
{
    struct context c = context_at(ring, code);

    c.ebx = cs;
    c.ecx = eip;
    c.edi = ss;
    c.esi = esp;
    c.edx = 2;
    context_run(&c);
    return c;
}

static void far_returns(void)
{
    const struct bad codes[] = {
        { "null", 0, 0, V_GP, 0 },
        { "null_with_rpl", 3, 0, V_GP, 0 },
        { "beyond_gdt", BEYOND | 3, 0, V_GP, BEYOND },
        { "data", UNDER | 3, DESC(0, 0xfffff, 0xf3, 0xc), V_GP, UNDER },
        { "inner_rpl", UNDER | 0, DESC(0, 0xfffff, 0x9b, 0xc), V_GP, UNDER },
        { "dpl_not_rpl", UNDER | 3, DESC(0, 0xfffff, 0xbb, 0xc), V_GP, UNDER },
        { "dpl_not_rpl_absent", UNDER | 3, DESC(0, 0xfffff, 0x3b, 0xc), V_GP, UNDER },
        { "conforming_dpl_above_rpl", UNDER | 1, DESC(0, 0xfffff, 0xff, 0xc), V_GP, UNDER },
        { "absent", UNDER | 3, DESC(0, 0xfffff, 0x7b, 0xc), V_NP, UNDER },
        { "gate", UNDER | 3, CALL32(SEL_KCODE, 0, 3, 0), V_GP, UNDER },
        { "beyond_limit", UNDER | 3, DESC(0, 0xfff, 0xfb, 0x4), V_GP, 0 },
    };
    const struct bad stacks[] = {
        { "null", 0, 0, V_GP, 0 },
        { "null_with_rpl", 3, 0, V_GP, 0 },
        { "beyond_gdt", BEYOND | 3, 0, V_GP, BEYOND },
        { "rpl", UNDER | 2, DESC(0, 0xfffff, 0xf3, 0xc), V_GP, UNDER },
        { "dpl", UNDER | 3, DESC(0, 0xfffff, 0xb3, 0xc), V_GP, UNDER },
        { "read_only", UNDER | 3, DESC(0, 0xfffff, 0xf1, 0xc), V_GP, UNDER },
        { "code", UNDER | 3, DESC(0, 0xfffff, 0xfb, 0xc), V_GP, UNDER },
        { "absent", UNDER | 3, DESC(0, 0xfffff, 0x73, 0xc), V_SS, UNDER },
    };
    struct context c;

    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++)
        for (int iret = 0; iret < 2; iret++) {
            const struct bad *b = &codes[i];

            set(UNDER, b->descriptor);
            c = return_to(1, iret ? f_iret : f_lret, b->sel, address_of(land), SEL_UDATA, 0x1000);
            check_fault(name2(iret ? "iret_cs" : "lret_cs", b->name), &c, b->vector, b->error);
            check_eq(name2("return_cs_eip", b->name), c.eip, address_of(iret ? f_iret_1 : f_lret_1));
            check_eq(name2("return_cs_esp", b->name), c.esp, context_at(1, f_lret).esp - (iret ? 20 : 16));
        }
    for (unsigned i = 0; i < sizeof stacks / sizeof stacks[0]; i++)
        for (int iret = 0; iret < 2; iret++) {
            const struct bad *b = &stacks[i];

            set(UNDER, b->descriptor);
            c = return_to(1, iret ? f_iret : f_lret, SEL_UCODE, address_of(land), b->sel, 0x1000);
            check_fault(name2(iret ? "iret_ss" : "lret_ss", b->name), &c, b->vector, b->error);
            check_eq(name2("return_ss_eip", b->name), c.eip, address_of(iret ? f_iret_1 : f_lret_1));
            check_eq(name2("return_ss_cs", b->name), c.cs, CODE1 | 1);
        }
    c = return_to(0, f_lret, SEL_UCODE, address_of(land), SEL_UDATA, SCRATCH);
    check_eq("lret_outer", c.vector == VEC_DONE ? c.cs << 16 | c.ss : 0, SEL_UCODE << 16 | SEL_UDATA);
    check_eq("lret_outer_esp", c.esp, SCRATCH);
    c = return_to(0, f_lret, CODE2 | 2, address_of(land), DATA2 | 2, SCRATCH);
    check_eq("lret_to_ring2", c.vector == VEC_DONE ? c.cs << 16 | c.ss : 0, (uint32_t)(CODE2 | 2) << 16 | DATA2 | 2);
    c = return_to(0, f_lret8, SEL_UCODE, address_of(land), SEL_UDATA, SCRATCH);
    check_eq("lret_8_outer_releases_there_too", c.vector == VEC_DONE ? c.esp : 0, SCRATCH + 8);
    set(UNDER, DESC(address_of(land), 0xfff, 0xfb, 0x4));
    c = return_to(0, f_lretw, UNDER | 3, 0, SEL_UDATA, SCRATCH | 0x4321);
    check_eq("lretw_outer", c.vector == VEC_DONE ? c.cs << 16 | c.ss : 0, (uint32_t)(UNDER | 3) << 16 | SEL_UDATA);
    check_eq("lretw_outer_sp", c.esp & 0xffff, 0x4321);
    c = return_to(0, f_lret, CONF0 | 3, address_of(land), SEL_UDATA, SCRATCH);
    check_eq("lret_outer_conforming", c.vector == VEC_DONE ? c.cs : 0, CONF0 | 3);
    c = return_to(3, f_lret, SEL_UCODE, address_of(land), 0, 0);
    check_eq("lret_same", c.vector == VEC_DONE ? c.esp : 0, context_at(3, f_lret).esp - 8);
    c = return_to(3, f_lret8, SEL_UCODE, address_of(land), 0, 0);
    check_eq("lret_8_same", c.vector == VEC_DONE ? c.esp : 0, context_at(3, f_lret).esp - 8);
    c = return_to(0, f_iretw, UNDER | 3, 0, SEL_UDATA, 0x4321);
    check_eq("iretw_outer", c.vector == VEC_DONE ? c.cs << 16 | c.ss : 0, (uint32_t)(UNDER | 3) << 16 | SEL_UDATA);
    check_eq("iretw_outer_sp", c.esp & 0xffff, 0x4321);
    c = return_to(3, f_iret, SEL_UCODE, address_of(land), 0, 0);
    check_eq("iret_same", c.vector == VEC_DONE ? c.esp : 0, context_at(3, f_iret).esp - 8);
}

/* DS, ES, FS and GS that the outer ring may not use become null, the others stay. */
static void revoked_segments(void)
{
    struct context c = context_at(0, f_segs);
    uint32_t *frame = (uint32_t *)(c.esp - 20);

    set(UNDER, DESC(0, 0xfffff, 0x9b, 0xc)); /* readable code of ring 0 */
    frame[0] = address_of(land);
    frame[1] = SEL_UCODE;
    frame[2] = 2;
    frame[3] = SCRATCH;
    frame[4] = SEL_UDATA;
    c.esp -= 20;
    c.eax = SEL_KDATA;
    c.ebx = SEL_UDATA;
    c.ecx = CONF0;
    c.edx = UNDER;
    context_run(&c);
    check_eq("revoked_vector", c.vector, VEC_DONE);
    check_eq("revoked_kernel_data", c.ds, 0);
    check_eq("kept_user_data", c.es, SEL_UDATA);
    check_eq("kept_conforming", c.fs, CONF0);
    check_eq("revoked_kernel_code", c.gs, 0);
    c = context_at(0, f_segs);
    c.esp -= 20;
    frame[1] = CODE2 | 2;
    frame[4] = DATA2 | 2;
    c.eax = DATA1;
    c.ebx = DATA2;
    c.ecx = SEL_UDATA;
    c.edx = 3; /* null with an RPL: cleared, too */
    context_run(&c);
    check_eq("revoked_ring1_data_in_ring2", c.ds, 0);
    check_eq("kept_ring2_data", c.es, DATA2);
    check_eq("kept_user_data_in_ring2", c.fs, SEL_UDATA);
    check_eq("null_selector_loses_its_rpl", c.gs, 0);
}

/* ---- interrupt and trap gates ------------------------------------------------------------------------- */

static void idt_gates(void)
{
    uint32_t ring3_flags = EFL_IF | EFL_NT | EFL_CF | 2;
    uint64_t keep[32];
    struct context c;

    memcpy(keep, guest_idt, sizeof keep);
    for (unsigned trap = 0; trap < 2; trap++) {
        const char *kind = trap ? "trap" : "interrupt";

        /* 32 bits, ring 3 to ring 1 */
        guest_idt[0x60] = GATE(CODE1, address_of(land), 0xeeu | trap);
        c = context_at(3, f_int60);
        c.eflags = ring3_flags;
        context_run(&c);
        check_eq(name2("gate32", kind), c.vector == VEC_DONE ? c.cs : 0, CODE1 | 1);
        check_eq(name2("gate32_frame", kind), guest_tss.esp1 - c.esp, 20);
        check_eq(name2("gate32_eip", kind), peek(c.esp), address_of(f_int60_done));
        check_eq(name2("gate32_cs", kind), peek(c.esp + 4) & 0xffff, SEL_UCODE);
        check_eq(name2("gate32_eflags", kind), peek(c.esp + 8), ring3_flags);
        check_eq(name2("gate32_esp", kind), peek(c.esp + 12), context_at(3, f_int60).esp);
        check_eq(name2("gate32_ss", kind), peek(c.esp + 16) & 0xffff, SEL_UDATA);
        check_eq(name2("gate32_flags_in_handler", kind), c.eflags & (EFL_IF | EFL_NT | EFL_TF | EFL_RF | EFL_VM),
                 trap ? EFL_IF : 0);
        /* 16 bits, ring 3 to ring 1: the offset's upper half is ignored */
        set(UNDER, DESC(address_of(land), 0xfff, 0xbb, 0x4));
        guest_idt[0x60] = GATE(UNDER, option_given("qemu") ? 0 : 0x12340000, 0xe6u | trap);
        c = context_at(3, f_int60);
        c.eflags = ring3_flags;
        context_run(&c);
        check_eq(name2("gate16", kind), c.vector == VEC_DONE ? c.cs : 0, UNDER | 1);
        check_eq(name2("gate16_frame", kind), guest_tss.esp1 - c.esp, 10);
        check_eq(name2("gate16_ip_cs", kind), peek(c.esp), SEL_UCODE << 16 | (address_of(f_int60_done) & 0xffff));
        check_eq(name2("gate16_flags_sp", kind), peek(c.esp + 4),
                 (context_at(3, f_int60).esp << 16) | (ring3_flags & 0xffff));
        check_eq(name2("gate16_ss", kind), peek(c.esp + 8) & 0xffff, SEL_UDATA);
        check_eq(name2("gate16_flags_in_handler", kind), c.eflags & (EFL_IF | EFL_NT | EFL_TF), trap ? EFL_IF : 0);
        /* conforming handler: no change of ring */
        guest_idt[0x60] = GATE(CONF0, address_of(land), 0xeeu | trap);
        c = run_at(3, f_int60);
        check_eq(name2("conforming_handler", kind), c.vector == VEC_DONE ? c.cs : 0, CONF0 | 3);
        check_eq(name2("conforming_handler_frame", kind), context_at(3, f_int60).esp - c.esp, 12);
    }
    /* an error code through a 16-bit gate is a word */
    set(UNDER, DESC(address_of(land), 0xfff, 0xbb, 0x4));
    guest_idt[V_GP] = GATE(UNDER, 0, 0x86);
    guest_idt[0x61] = GATE(SEL_KCODE, 0, 0x8e);
    c = run_at(3, f_gp);
    check_eq("gate16_error_code_frame", c.vector == VEC_DONE ? guest_tss.esp1 - c.esp : 0, 12);
    check_eq("gate16_error_code", peek(c.esp) & 0xffff, 0x61 * 8 + 2);
    guest_idt[V_GP] = keep[V_GP];

    /* the gate's DPL counts for INT n, INT3 and INTO, not for INT1 and exceptions */
    guest_idt[0x60] = GATE(SEL_KCODE, address_of(land), 0xce);
    c = run_at(3, f_int60);
    check_fault("int_n_dpl", &c, V_GP, 0x60 * 8 + 2);
    check_eq("int_n_dpl_eip", c.eip, address_of(f_int60));
    c = context_at(2, f_int60);
    context_run(&c);
    check_done("int_n_dpl_of_ring2", &c);
    guest_idt[V_BP] = GATE(SEL_KCODE, address_of(land), 0x8e);
    c = run_at(3, f_int3);
    check_fault("int3_dpl", &c, V_GP, V_BP * 8 + 2);
    guest_idt[V_BP] = keep[V_BP];
    guest_idt[V_OF] = GATE(SEL_KCODE, address_of(land), 0x8e);
    c = run_at(3, f_into);
    check_fault("into_dpl", &c, V_GP, V_OF * 8 + 2);
    guest_idt[V_OF] = keep[V_OF];
    c = run_at(3, f_int1);
    check_eq("int1_has_no_dpl", c.vector, V_DB);
    check_eq("int1_eip", c.eip, address_of(f_int1) + 1);

    /* what is wrong with a gate, for INT n and for an exception */
    const struct {
        const char *name;
        uint64_t gate, descriptor;
        uint32_t vector, error;
        bool idt;
    } bad[] = {
        { "absent", GATE(SEL_KCODE, 0, 0x6e), 0, V_NP, 0, true },
        { "type_call_gate", GATE(SEL_KCODE, 0, 0xec), 0, V_GP, 0, true },
        { "type_call_gate_absent", GATE(SEL_KCODE, 0, 0x6c), 0, V_GP, 0, true },
        { "type_tss", DESC(0, 0x67, 0xe9, 0), 0, V_GP, 0, true },
        { "type_0", 0, 0, V_GP, 0, true },
        { "null_cs", GATE(3, 0, 0xee), 0, V_GP, 0, false },
        { "cs_beyond", GATE(BEYOND | 2, 0, 0xee), 0, V_GP, BEYOND, false },
        { "cs_data", GATE(UNDER, 0, 0xee), DESC(0, 0xfffff, 0x93, 0xc), V_GP, UNDER, false },
        { "cs_absent", GATE(UNDER | 3, 0, 0xee), DESC(0, 0xfffff, 0x1b, 0xc), V_NP, UNDER, false },
        { "cs_outer", GATE(SEL_UCODE, 0, 0xee), 0, V_GP, SEL_UCODE & ~3u, false },
        { "eip_beyond_limit", GATE(UNDER, 0x1000, 0xee), DESC(0, 0xfff, 0x9b, 0x4), V_GP, 0, false },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (option_given("qemu") && !bad[i].error && !bad[i].idt && bad[i].descriptor)
            continue; /* it would run beyond the limit */
        set(UNDER, bad[i].descriptor);
        guest_idt[0x60] = guest_idt[V_UD] = bad[i].gate;
        c = context_at(2, f_int60);
        context_run(&c);
        check_fault(name2("int_gate", bad[i].name), &c, bad[i].vector, bad[i].idt ? 0x60 * 8 + 2 : bad[i].error);
        check_eq(name2("int_gate_eip", bad[i].name), c.eip, address_of(f_int60));
        c = context_at(2, f_ud);
        context_run(&c);
        check_fault(name2("exception_gate", bad[i].name), &c, bad[i].vector,
                    (bad[i].idt ? V_UD * 8 + 2 : bad[i].error) | 1);
        check_eq(name2("exception_gate_eip", bad[i].name), c.eip, address_of(f_ud));
    }
    guest_idt[V_UD] = keep[V_UD];
}

/* ---- hardware interrupts ---------------------------------------------------------------------------------- */

static void timer(bool on)
{
    outb(0x43, 0x30); /* counter 0, one shot */
    outb(0x40, 0xff);
    outb(0x40, 0x1);
    outb(0x21, on ? 0xfe : 0xff);
}

static struct context wait_for_timer(void)
{
    struct context c = context_at(3, f_wait);

    c.eflags = 2 | EFL_IOPL; /* so that STI is allowed */
    timer(true);
    context_run(&c);
    outb(0x21, 0xff);
    outb(0x20, 0x20); /* the interrupt was acknowledged whatever became of it */
    return c;
}

static void hardware_interrupts(void)
{
    uint64_t keep = guest_idt[0x20];
    struct context c;

    c = wait_for_timer();
    check_eq("irq_through_gate32", c.vector, 0x20);
    guest_idt[0x20] = GATE(CODE1, address_of(land), 0x8e); /* DPL 0: of no account */
    c = wait_for_timer();
    check_eq("irq_to_ring1", c.vector == VEC_DONE ? c.cs : 0, CODE1 | 1);
    check_eq("irq_to_ring1_frame", guest_tss.esp1 - c.esp, 20);
    check_eq("irq_to_ring1_IF", c.eflags & EFL_IF, 0);
    check_eq("irq_to_ring1_IF_saved", peek(c.esp + 8) & EFL_IF, EFL_IF);
    set(UNDER, DESC(address_of(land), 0xfff, 0xbb, 0x4));
    guest_idt[0x20] = GATE(UNDER, 0, 0x87);
    c = wait_for_timer();
    check_eq("irq_through_trap_gate16", c.vector == VEC_DONE ? c.cs : 0, UNDER | 1);
    check_eq("irq_through_trap_gate16_IF", c.eflags & EFL_IF, EFL_IF);
    check_eq("irq_through_trap_gate16_frame", guest_tss.esp1 - c.esp, 10);
    guest_idt[0x20] = GATE(SEL_KCODE, 0, 0x0e);
    c = wait_for_timer();
    check_fault("irq_gate_absent", &c, V_NP, 0x20 * 8 + 3);
    check("irq_gate_absent_eip", c.eip >= address_of(f_wait) && c.eip < address_of(f_wait_done));
    guest_idt[0x20] = GATE(0, 0, 0x8e);
    c = wait_for_timer();
    check_fault("irq_gate_null_cs", &c, V_GP, 1);
    guest_idt[0x20] = GATE(CODE1, address_of(land), 0x8e);
    guest_tss.ss1 = 0;
    c = wait_for_timer();
    check_fault("irq_stack_null", &c, V_TS, 1);
    guest_tss.ss1 = DATA1 | 1;
    guest_idt[0x20] = keep;
}

/* ---- double faults ------------------------------------------------------------------------------------------ */

/*  first \ second      benign       contributory   page fault
 *  benign              in turn      in turn        in turn
 *  contributory        in turn      #DF            in turn
 *  page fault          in turn      #DF            #DF
 *
 * The second is met in the IDT: a gate that is absent (#NP), or that lies in an absent page (#PF). */
static void double_faults(void)
{
    /* vectors 0 to 5 lie in the first page, absent at times */
    uint32_t table = SCRATCH + 0x1000 - 6 * 8, page = SCRATCH;
    struct table_register there = { 0x7ff, table }, here = { 0x7ff, address_of(guest_idt) };
    uint64_t *idt = (uint64_t *)table;
    struct context c;

    memcpy(idt, guest_idt, sizeof guest_idt);
    paging_on();
    __asm__ volatile("lidt %0" : : "m"(there));
    for (int ring = 0; ring < 4; ring += 3) {
        pte_set(page, 0);
        c = run_at(ring, f_de);
        check_fault("contributory_then_page_fault", &c, V_PF, 0);
        check_eq("contributory_then_page_fault_cr2", c.cr2, table);
        check_eq("contributory_then_page_fault_eip", c.eip, address_of(f_de_1));
        c = run_at(ring, f_int3);
        check_fault("int3_then_page_fault", &c, V_PF, 0);
        check_eq("int3_then_page_fault_cr2", c.cr2, table + 3 * 8);
        check_eq("int3_then_page_fault_eip", c.eip, address_of(f_int3));
        pte_set(page, page | PTE_P | PTE_W | PTE_U);

        idt[V_DE] &= ~(0x80ull << 40);
        c = run_at(ring, f_de);
        check_fault("contributory_then_contributory", &c, V_DF, 0);
        check_eq("double_fault_eip", c.eip, address_of(f_de_1));
        idt[V_DE] |= 0x80ull << 40;
        idt[V_UD] &= ~(0x80ull << 40);
        c = run_at(ring, f_ud);
        check_fault("benign_then_contributory", &c, V_NP, V_UD * 8 + 3);
        idt[V_NP] &= ~(0x80ull << 40);
        c = run_at(ring, f_ud); /* #UD, #NP, #NP: the last two make a double fault */
        check_fault("benign_then_two_contributory", &c, V_DF, 0);
        idt[V_NP] |= 0x80ull << 40;
        idt[V_UD] |= 0x80ull << 40;
        idt[V_GP] &= ~(0x80ull << 40);
        idt[0x61] = GATE(SEL_KCODE, 0, 0x82); /* not a gate: #GP */
        c = run_at(ring, f_gp);
        check_fault("software_interrupt_then_two_contributory", &c, V_DF, 0);
        idt[V_GP] |= 0x80ull << 40;
        idt[V_PF] &= ~(0x80ull << 40);
        pte_set(page, 0);
        c = run_at(ring, f_int3); /* #PF, #NP */
        check_fault("page_fault_then_contributory", &c, V_DF, 0);
        c = run_at(ring, f_de); /* #DE, #PF, #NP */
        check_fault("contributory_page_fault_contributory", &c, V_DF, 0);
        pte_set(page, page | PTE_P | PTE_W | PTE_U);
        idt[V_PF] |= 0x80ull << 40;
    }
    __asm__ volatile("lidt %0" : : "m"(here));
    paging_off();
}

void guest_main(void)
{
    make_segments();
    load_tr(0x67);
    for (int ring = 0; ring < 4; ring++)
        direct(ring);
    gate_frames();
    gate_faults();
    inner_stacks();
    tss16();
    far_returns();
    revoked_segments();
    idt_gates();
    hardware_interrupts();
    double_faults();
}
