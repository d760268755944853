/*
 * Far JMP, CALL and RET, call gates, SYSENTER, hardware task switches, IRET.
 */
#include "protect.h"

#define USER_EFLAGS (EFL_ONE | EFL_IF | EFL_CF)

static void expect_at(struct protect *pt, unsigned cs, uint32_t eip, unsigned cpl)
{
    assert_int_equal(pt->cpu->segs[SEG_CS].sel, cs);
    assert_int_equal(pt->cpu->eip, eip);
    assert_int_equal(pt->cpu->cpl, cpl);
    if (!(pt->cpu->eflags_sys & EFL_VM))
        assert_int_equal(!!(pt->cpu->mode & MODE_CPL3), cpl == 3);
    assert_ptr_equal((uint8_t *)pt->cpu->view_base,
                     mmu_view_base(pt->cpu->mmu, cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR));
}

static enum exit_reason jmp(struct protect *pt, unsigned sel, uint32_t off)
{
    return callout_jmp_far(pt->cpu, pt_arg(4, off, sel), 0);
}

static enum exit_reason call(struct protect *pt, unsigned sel, uint32_t off)
{
    return callout_call_far(pt->cpu, pt_arg(4, off, sel), 0);
}

static enum exit_reason ret(struct protect *pt, uint32_t release)
{
    return callout_ret_far(pt->cpu, pt_arg(4, release, 0), 0);
}

static enum exit_reason iret(struct protect *pt)
{
    return callout_iret(pt->cpu, pt_arg(4, 0, 0), 0);
}

/* ---- JMP ---------------------------------------------------------------------------------- */

struct jump_case {
    const char *name;
    unsigned cpl, sel, off;
    unsigned vector, error;
};

static const struct jump_case jump_faults[] = {
    { "null", 0, 0, 0, EXC_GP, 0 },
    { "null with RPL", 3, 3, 0, EXC_GP, 0 },
    { "outside", 0, OUTSIDE, 0, EXC_GP, OUTSIDE },
    { "data", 0, DATA0, 0, EXC_GP, DATA0 },
    { "LDT descriptor", 0, LDT_SEL, 0, EXC_GP, LDT_SEL },
    { "outer code", 0, CODE3, 0, EXC_GP, CODE3 },
    { "inner code", 3, CODE0, 0, EXC_GP, CODE0 },
    { "RPL above CPL", 0, CODE0 | 3, 0, EXC_GP, CODE0 },
    { "conforming code of less privilege", 0, CONFORM3, 0, EXC_GP, CONFORM3 },
    { "absent code", 0, ABSENT_CODE0, 0, EXC_NP, ABSENT_CODE0 },
    { "beyond the limit", 0, SMALL_CODE0, 0x1000, EXC_GP, 0 },
    { "gate of more privilege", 3, GATE0, 0, EXC_GP, GATE0 },
    { "RPL above gate's DPL", 0, GATE0 | 3, 0, EXC_GP, GATE0 },
    { "absent gate", 3, ABSENT_GATE, 0, EXC_NP, ABSENT_GATE },
    { "gate to inner code", 3, GATE32, 0, EXC_GP, CODE0 },
    { "TSS of more privilege", 3, TSS_A, 0, EXC_GP, TSS_A },
    { "busy TSS", 0, TSS_A, 0, EXC_GP, TSS_A },
};

static void jump_faults_leave_no_trace(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(jump_faults); i++) {
        const struct jump_case *c = &jump_faults[i];

        print_message("%s\n", c->name);
        pt_ring(pt, c->cpl);
        EXPECT_FAULT(pt, jmp(pt, c->sel, c->off), c->vector, c->error);
    }
}

static void jumps_arrive(void **state)
{
    struct protect *pt = *state;

    assert_int_equal(jmp(pt, CODE0B, 0x123456), EXIT_DISPATCH);
    expect_at(pt, CODE0B, 0x123456, 0);
    assert_int_equal(jmp(pt, GATE32, 0), EXIT_DISPATCH);
    expect_at(pt, CODE0, 0x123456, 0);
    assert_int_equal(jmp(pt, GATE16, 0), EXIT_DISPATCH);
    expect_at(pt, CODE0, 0x3456, 0);
    assert_int_equal(callout_jmp_far(pt->cpu, pt_arg(2, 0x12348765, CODE16_0), 0), EXIT_DISPATCH);
    expect_at(pt, CODE16_0, 0x8765, 0);
    assert_false(pt->cpu->mode & MODE_CODE32);
    pt_ring(pt, 3);
    assert_int_equal(jmp(pt, CONFORM0 | 3, 0x500), EXIT_DISPATCH);
    expect_at(pt, CONFORM0 | 3, 0x500, 3);
}

static void jump_reads_its_pointer_from_memory(void **state)
{
    struct protect *pt = *state;

    pt_put32(pt, 0x30000, 0x4321);
    pt_put16(pt, 0x30004, CODE0B);
    assert_int_equal(callout_jmp_far(pt->cpu, pt_arg_mem(4, 0, 0, SEG_DS), 0x30000), EXIT_DISPATCH);
    expect_at(pt, CODE0B, 0x4321, 0);
}

static void real_mode_transfers(void **state)
{
    struct protect *pt = *state;

    pt_real(pt);
    assert_int_equal(callout_call_far(pt->cpu, pt_arg(2, 0x200, 0x3000), 0), EXIT_DISPATCH);
    expect_at(pt, 0x3000, 0x200, 0);
    assert_int_equal(pt->cpu->segs[SEG_CS].base, 0x30000);
    assert_int_equal(pt->cpu->gpr[ESP], 0xabcd0ffcu);
    assert_int_equal(pt_get32(pt, 0x7020 + 0xffc), 0x701u << 16 | (NEXT_EIP & 0xffff));
    assert_int_equal(callout_ret_far(pt->cpu, pt_arg(2, 6, 0), 0), EXIT_DISPATCH);
    expect_at(pt, 0x701, NEXT_EIP, 0);
    assert_int_equal(pt->cpu->gpr[ESP], 0xabcd1006u);
    pt->cpu->eip = INSN_EIP;
    EXPECT_FAULT(pt, callout_jmp_far(pt->cpu, pt_arg(4, 0x10000, 0x3000), 0), EXC_GP, 0);
    pt->cpu->gpr[ESP] = 0xabcd0001u;
    EXPECT_FAULT(pt, callout_call_far(pt->cpu, pt_arg(2, 0, 0x3000), 0), EXC_SS, 0);
    assert_int_equal(callout_jmp_far(pt->cpu, pt_arg(2, 0x10000, 0x3000), 0), EXIT_DISPATCH);
    expect_at(pt, 0x3000, 0, 0);
}

/* ---- CALL and RET ------------------------------------------------------------------------------ */

static void call_and_return_at_one_level(void **state)
{
    struct protect *pt = *state;
    uint32_t esp = pt->cpu->gpr[ESP];

    assert_int_equal(call(pt, CODE0B, 0x5000), EXIT_DISPATCH);
    expect_at(pt, CODE0B, 0x5000, 0);
    assert_int_equal(pt_get32(pt, esp - 4), CODE0);
    assert_int_equal(pt_get32(pt, esp - 8), NEXT_EIP);
    assert_int_equal(ret(pt, 12), EXIT_DISPATCH);
    expect_at(pt, CODE0, NEXT_EIP, 0);
    assert_int_equal(pt->cpu->gpr[ESP], esp + 12);
}

static void call_gate_switches_stacks_and_copies_parameters(void **state)
{
    struct protect *pt = *state;
    static const uint32_t expected[] = { NEXT_EIP, CODE3 | 3, 0xaaaa, 0xbbbb, 0, DATA3 | 3 };

    pt_ring(pt, 3);
    pt_push32(pt, 0xbbbb);
    pt_push32(pt, 0xaaaa);
    uint32_t esp = pt->cpu->gpr[ESP];
    assert_int_equal(call(pt, GATE32, 0xdeadbeef), EXIT_DISPATCH);
    expect_at(pt, CODE0, 0x123456, 0);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, DATA0);
    assert_int_equal(pt->cpu->gpr[ESP], STACK0 - 24);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(pt_get32(pt, STACK0 - 24 + 4 * i), i == 4 ? esp : expected[i]);

    segment_load(pt->cpu, SEG_FS, DATA0);
    assert_int_equal(ret(pt, 8), EXIT_DISPATCH);
    expect_at(pt, CODE3 | 3, NEXT_EIP, 3);
    assert_int_equal(pt->cpu->gpr[ESP], esp + 8);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, DATA3 | 3);
    assert_int_equal(pt->cpu->segs[SEG_DS].sel, DATA3 | 3);
    assert_int_equal(pt->cpu->segs[SEG_FS].sel, 0); /* ring 3 may not keep it */
    assert_false(pt->cpu->segs[SEG_FS].attr & DESC_P);
}

static void a_16_bit_call_gate_pushes_words(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    pt_push16(pt, 0x7777);
    uint32_t esp = pt->cpu->gpr[ESP];
    assert_int_equal(call(pt, GATE16, 0), EXIT_DISPATCH);
    expect_at(pt, CODE0, 0x3456, 0);
    assert_int_equal(pt->cpu->gpr[ESP], STACK0 - 10);
    assert_int_equal(pt_get16(pt, STACK0 - 10), NEXT_EIP & 0xffff);
    assert_int_equal(pt_get16(pt, STACK0 - 8), CODE3 | 3);
    assert_int_equal(pt_get16(pt, STACK0 - 6), 0x7777);
    assert_int_equal(pt_get16(pt, STACK0 - 4), esp & 0xffff);
    assert_int_equal(pt_get16(pt, STACK0 - 2), DATA3 | 3);
}

static void call_gate_at_one_level_stays_on_its_stack(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    uint32_t esp = pt->cpu->gpr[ESP];
    assert_int_equal(call(pt, GATE_SAME, 0), EXIT_DISPATCH);
    expect_at(pt, CODE3B | 3, 0x9100, 3);
    assert_int_equal(pt->cpu->gpr[ESP], esp - 8);
}

static void call_gate_faults_leave_no_trace(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    EXPECT_FAULT(pt, call(pt, GATE0, 0), EXC_GP, GATE0);
    EXPECT_FAULT(pt, call(pt, ABSENT_GATE, 0), EXC_NP, ABSENT_GATE);
    pt_gate_at(pt, GDT_VA + GATE32, SYS_CALL32, 3, ABSENT_CODE0, 0, 0);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_NP, ABSENT_CODE0);
    pt_gate_at(pt, GDT_VA + GATE32, SYS_CALL32, 3, 0, 0, 0);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_GP, 0);
    pt_gate_at(pt, GDT_VA + GATE32, SYS_CALL32, 3, DATA0, 0, 0);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_GP, DATA0);
    pt_gate_at(pt, GDT_VA + GATE32, SYS_CALL32, 3, SMALL_CODE0, 0x1000, 0);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_GP, 0);
    pt_gate_at(pt, GDT_VA + GATE32, SYS_CALL32, 3, CODE0, 0, 0);
    pt_put16(pt, TSS_VA + 8, 0);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_TS, 0);
    pt_put16(pt, TSS_VA + 8, DATA3);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_TS, DATA3);
    pt_put16(pt, TSS_VA + 8, ABSENT_STACK0);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_SS, ABSENT_STACK0);
    pt_put16(pt, TSS_VA + 8, STACK16_0);
    pt->cpu->tr.limit = 8;
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_TS, TSS_A);
}

static void new_stack_without_room(void **state)
{
    struct protect *pt = *state;

    pt_descriptor(pt, DATA0B, 0, 0x1fff, A_DATA | DESC_DB);
    pt_put16(pt, TSS_VA + 8, DATA0B);
    pt_ring(pt, 3);
    EXPECT_FAULT(pt, call(pt, GATE32, 0), EXC_SS, DATA0B);
}

struct return_case {
    const char *name;
    unsigned cpl, cs, ss;
    unsigned vector, error;
};

static const struct return_case return_faults[] = {
    { "null CS", 0, 0, 0, EXC_GP, 0 },
    { "CS outside", 0, OUTSIDE, 0, EXC_GP, OUTSIDE },
    { "CS is data", 0, DATA0, 0, EXC_GP, DATA0 },
    { "inwards", 3, CODE0, 0, EXC_GP, CODE0 },
    { "DPL is not RPL", 0, CODE0 | 3, DATA3 | 3, EXC_GP, CODE0 },
    { "conforming above RPL", 0, CONFORM3 | 1, DATA1 | 1, EXC_GP, CONFORM3 },
    { "absent CS", 0, ABSENT_CODE0, 0, EXC_NP, ABSENT_CODE0 },
    { "null SS", 0, CODE3 | 3, 0, EXC_GP, 0 },
    { "SS outside", 0, CODE3 | 3, OUTSIDE | 3, EXC_GP, OUTSIDE },
    { "SS with wrong RPL", 0, CODE3 | 3, DATA3, EXC_GP, DATA3 },
    { "SS with wrong DPL", 0, CODE3 | 3, DATA0 | 3, EXC_GP, DATA0 },
    { "read-only SS", 0, CODE3 | 3, READONLY3 | 3, EXC_GP, READONLY3 },
    { "absent SS", 0, CODE3 | 3, ABSENT3 | 3, EXC_SS, ABSENT3 },
};

static void push_iret(struct protect *pt, unsigned cs, uint32_t eip, uint32_t fl, uint32_t esp, unsigned ss)
{
    pt_push32(pt, ss);
    pt_push32(pt, esp);
    pt_push32(pt, fl);
    pt_push32(pt, cs);
    pt_push32(pt, eip);
}

static void push_retf(struct protect *pt, unsigned cs, uint32_t eip, uint32_t esp, unsigned ss)
{
    pt_push32(pt, ss);
    pt_push32(pt, esp);
    pt_push32(pt, cs);
    pt_push32(pt, eip);
}

static void return_faults_leave_no_trace(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(return_faults); i++) {
        const struct return_case *c = &return_faults[i];

        print_message("%s\n", c->name);
        pt_ring(pt, c->cpl);
        push_retf(pt, c->cs, 0x1234, STACK3, c->ss);
        EXPECT_FAULT(pt, ret(pt, 0), c->vector, c->error);
        pt_ring(pt, c->cpl);
        push_iret(pt, c->cs, 0x1234, USER_EFLAGS, STACK3, c->ss);
        EXPECT_FAULT(pt, iret(pt), c->vector, c->error);
    }
}

/* ---- IRET ------------------------------------------------------------------------------------------ */

static void iret_to_user_mode(void **state)
{
    struct protect *pt = *state;

    segment_load(pt->cpu, SEG_GS, DATA3 | 3);
    segment_load(pt->cpu, SEG_FS, CONFORM0);
    push_iret(pt, CODE3 | 3, 0x44444, USER_EFLAGS | EFL_IOPL | EFL_RF | EFL_ID, STACK3 - 64, DATA3 | 3);
    assert_int_equal(iret(pt), EXIT_DISPATCH);
    expect_at(pt, CODE3 | 3, 0x44444, 3);
    assert_int_equal(pt->cpu->gpr[ESP], STACK3 - 64);
    assert_int_equal(vcpu_eflags_get(pt->cpu), USER_EFLAGS | EFL_IOPL | EFL_RF | EFL_ID);
    assert_int_equal(pt->cpu->segs[SEG_DS].sel, 0);
    assert_int_equal(pt->cpu->segs[SEG_GS].sel, DATA3 | 3);
    assert_int_equal(pt->cpu->segs[SEG_FS].sel, CONFORM0); /* conforming code may stay */
}

static void iret_at_one_level_obeys_iopl(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    uint32_t esp = pt->cpu->gpr[ESP];
    push_iret(pt, CODE3B | 3, 0x5555, EFL_IF | EFL_IOPL | EFL_ZF | EFL_VIF, 0, 0);
    assert_int_equal(iret(pt), EXIT_DISPATCH);
    expect_at(pt, CODE3B | 3, 0x5555, 3);
    assert_int_equal(vcpu_eflags_get(pt->cpu), EFL_ONE | EFL_ZF);
    assert_int_equal(pt->cpu->gpr[ESP], esp - 8);
}

static void iret_of_16_bits(void **state)
{
    struct protect *pt = *state;

    vcpu_eflags_set(pt->cpu, EFL_ONE | EFL_AC);
    pt_push16(pt, EFL_CF | EFL_IF);
    pt_push16(pt, CODE0B);
    pt_push16(pt, 0x8888);
    assert_int_equal(callout_iret(pt->cpu, pt_arg(2, 0, 0), 0), EXIT_DISPATCH);
    expect_at(pt, CODE0B, 0x8888, 0);
    assert_int_equal(vcpu_eflags_get(pt->cpu), EFL_ONE | EFL_CF | EFL_IF | EFL_AC);
}

static void iret_to_a_16_bit_stack_keeps_the_upper_half(void **state)
{
    struct protect *pt = *state;
    uint32_t high = pt->cpu->gpr[ESP] & 0xffff0000u;

    push_iret(pt, CODE3 | 3, 0x100, USER_EFLAGS, 0x12345678, STACK16_3 | 3);
    assert_int_equal(iret(pt), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->gpr[ESP], high | 0x5678);
}

static void iret_to_virtual_8086_mode(void **state)
{
    struct protect *pt = *state;
    static const uint32_t frame[] = { 0x6600, 0x5500, 0x4400, 0x3300, 0x2200, 0xfffe };

    for (unsigned i = 0; i < ARRAY_LEN(frame); i++)
        pt_push32(pt, frame[i]); /* GS FS DS ES SS ESP */
    pt_push32(pt, USER_EFLAGS | EFL_VM);
    pt_push32(pt, 0x1100);
    pt_push32(pt, 0x10000);
    EXPECT_FAULT(pt, iret(pt), EXC_GP, 0); /* EIP beyond 64 KiB */
    pt_put32(pt, pt->cpu->gpr[ESP], 0x99);
    assert_int_equal(iret(pt), EXIT_DISPATCH);
    expect_at(pt, 0x1100, 0x99, 3);
    assert_true(pt->cpu->mode & MODE_VM86);
    assert_int_equal(pt->cpu->segs[SEG_SS].base, 0x22000);
    assert_int_equal(pt->cpu->segs[SEG_ES].base, 0x33000);
    assert_int_equal(pt->cpu->segs[SEG_DS].base, 0x44000);
    assert_int_equal(pt->cpu->segs[SEG_FS].base, 0x55000);
    assert_int_equal(pt->cpu->segs[SEG_GS].base, 0x66000);
    assert_int_equal(pt->cpu->gpr[ESP], 0xfffe);
}

static void iret_within_virtual_8086_mode(void **state)
{
    struct protect *pt = *state;

    pt_vm86(pt, 0);
    EXPECT_FAULT(pt, callout_iret(pt->cpu, pt_arg(2, 0, 0), 0), EXC_GP, 0);
    pt_vm86(pt, 3);
    pt_push16(pt, EFL_IF | EFL_CF);
    pt_push16(pt, 0x1234);
    pt_push16(pt, 0x5678);
    assert_int_equal(callout_iret(pt->cpu, pt_arg(2, 0, 0), 0), EXIT_DISPATCH);
    expect_at(pt, 0x1234, 0x5678, 3);
    assert_int_equal(vcpu_eflags_get(pt->cpu), EFL_ONE | EFL_VM | EFL_IOPL | EFL_IF | EFL_CF);
}

static void iret_in_real_mode(void **state)
{
    struct protect *pt = *state;

    pt_real(pt);
    pt_push16(pt, EFL_IF | EFL_IOPL | EFL_NT);
    pt_push16(pt, 0x1234);
    pt_push16(pt, 0x5678);
    assert_int_equal(callout_iret(pt->cpu, pt_arg(2, 0, 0), 0), EXIT_DISPATCH);
    expect_at(pt, 0x1234, 0x5678, 0);
    assert_int_equal(vcpu_eflags_get(pt->cpu), EFL_ONE | EFL_IOPL | EFL_IF | EFL_NT);
}

static void iret_reads_user_stacks_as_user(void **state)
{
    struct protect *pt = *state;

    pt_paging(pt);
    pt_ring(pt, 3);
    pt_page(pt, STACK3 - 0x1000, PTE_P | PTE_W);
    EXPECT_FAULT(pt, iret(pt), EXC_PF, PF_P | PF_US);
}

/* ---- SYSENTER ------------------------------------------------------------------------------------- */

static void sysenter_and_sysexit(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    EXPECT_FAULT(pt, callout_sysenter(pt->cpu, 0, 0), EXC_GP, 0);
    pt->cpu->sysenter_cs = 0x63;
    pt->cpu->sysenter_esp = 0x7000;
    pt->cpu->sysenter_eip = 0x8800;
    EXPECT_FAULT(pt, callout_sysexit(pt->cpu, 0, 0), EXC_GP, 0);
    vcpu_eflags_set(pt->cpu, USER_EFLAGS);
    assert_int_equal(callout_sysenter(pt->cpu, 0, 0), EXIT_DISPATCH);
    expect_at(pt, 0x60, 0x8800, 0);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, 0x68);
    assert_int_equal(pt->cpu->gpr[ESP], 0x7000);
    assert_int_equal(pt->cpu->eflags_if, 0);
    assert_int_equal(pt->cpu->mode & (MODE_CS_FLAT | MODE_SS_FLAT | MODE_CODE32 | MODE_STACK32),
                     MODE_CS_FLAT | MODE_SS_FLAT | MODE_CODE32 | MODE_STACK32);
    pt->cpu->gpr[ECX] = 0x1111;
    pt->cpu->gpr[EDX] = 0x2222;
    assert_int_equal(callout_sysexit(pt->cpu, 0, 0), EXIT_DISPATCH);
    expect_at(pt, 0x73, 0x2222, 3);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, 0x7b);
    assert_int_equal(pt->cpu->gpr[ESP], 0x1111);
}

/* ---- tasks ------------------------------------------------------------------------------------------ */

static unsigned tss_type(struct protect *pt, unsigned sel)
{
    return pt->ram[GDT_VA + sel + 5] & 0xfu;
}

static void expect_task_b(struct protect *pt)
{
    expect_at(pt, CODE0B, 0x77000, 0);
    assert_int_equal(pt->cpu->tr.sel, TSS_B);
    assert_int_equal(pt->cpu->gpr[ESP], STACK_B);
    assert_int_equal(pt->cpu->gpr[EDI], 0xb0000007u);
    assert_int_equal(pt->cpu->segs[SEG_GS].sel, LDT_DATA3);
    assert_int_equal(pt->cpu->segs[SEG_GS].base, 0x60000);
    assert_int_equal(pt->cpu->ldtr.base, LDT_VA);
    assert_true(pt->cpu->cr0 & CR0_TS);
    assert_int_equal(tss_type(pt, TSS_B), SYS_TSS32_BUSY);
}

static void jump_to_a_task(void **state)
{
    struct protect *pt = *state;

    pt->cpu->gpr[EAX] = 0x1234abcd;
    uint32_t esp = pt->cpu->gpr[ESP];
    pt->cpu->dr[7] |= 0xff;
    assert_int_equal(jmp(pt, TSS_B, 0), EXIT_DISPATCH);
    expect_task_b(pt);
    assert_int_equal(tss_type(pt, TSS_A), SYS_TSS32_AVAIL);
    assert_int_equal(pt_get32(pt, TSS_VA + 0x20), NEXT_EIP);
    assert_int_equal(pt_get32(pt, TSS_VA + 0x28), 0x1234abcd);
    assert_int_equal(pt_get32(pt, TSS_VA + 0x38), esp);
    assert_int_equal(pt_get16(pt, TSS_VA + 0x4c), CODE0);
    assert_int_equal(pt->cpu->eflags_sys & EFL_NT, 0);
    assert_int_equal(pt->cpu->dr[7] & 0xff, 0xaa);
    /* and back */
    pt->cpu->next_eip = 0x77005;
    assert_int_equal(jmp(pt, TSS_A, 0), EXIT_DISPATCH);
    expect_at(pt, CODE0, NEXT_EIP, 0);
    assert_int_equal(pt->cpu->gpr[EAX], 0x1234abcd);
    assert_int_equal(pt_get32(pt, TSS_B_VA + 0x20), 0x77005);
}

static void call_a_task_and_return_with_iret(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    assert_int_equal(call(pt, TASK_GATE3, 0), EXIT_DISPATCH);
    expect_task_b(pt);
    assert_int_equal(tss_type(pt, TSS_A), SYS_TSS32_BUSY);
    assert_int_equal(pt_get16(pt, TSS_B_VA), TSS_A);
    assert_true(pt->cpu->eflags_sys & EFL_NT);
    assert_int_equal(iret(pt), EXIT_DISPATCH);
    expect_at(pt, CODE3 | 3, NEXT_EIP, 3);
    assert_int_equal(tss_type(pt, TSS_B), SYS_TSS32_AVAIL);
    assert_false(pt_get32(pt, TSS_B_VA + 0x24) & EFL_NT);
    assert_false(pt->cpu->eflags_sys & EFL_NT);
}

static void a_16_bit_task(void **state)
{
    struct protect *pt = *state;

    assert_int_equal(call(pt, TASK_GATE_16, 0), EXIT_DISPATCH);
    expect_at(pt, CODE16_0, 0x6600, 0);
    assert_int_equal(pt->cpu->gpr[EDI], 0x1607);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, STACK16_0);
    assert_int_equal(pt->cpu->segs[SEG_FS].sel, 0);
    assert_int_equal(pt_get16(pt, TSS_16_VA), TSS_A);
    pt->cpu->next_eip = 0x6601;
    assert_int_equal(callout_iret(pt->cpu, pt_arg(2, 0, 0), 0), EXIT_DISPATCH);
    expect_at(pt, CODE0, NEXT_EIP, 0);
    assert_int_equal(pt_get16(pt, TSS_16_VA + 0x0e), 0x6601);
    assert_int_equal(tss_type(pt, TSS_16), SYS_TSS16_AVAIL);
}

static void task_switch_faults_before_the_commit(void **state)
{
    struct protect *pt = *state;

    pt_descriptor(pt, TSS_B, TSS_B_VA, 0x66, DESC_P | SYS_TSS32_AVAIL);
    EXPECT_FAULT(pt, jmp(pt, TSS_B, 0), EXC_TS, TSS_B);
    pt_descriptor(pt, TSS_B, TSS_B_VA, 0x67, SYS_TSS32_AVAIL);
    EXPECT_FAULT(pt, jmp(pt, TSS_B, 0), EXC_NP, TSS_B);
    pt_gate_at(pt, GDT_VA + TASK_GATE3, SYS_TASK_GATE, 3, TSS_A, 0, 0);
    EXPECT_FAULT(pt, call(pt, TASK_GATE3, 0), EXC_GP, TSS_A);
    pt_gate_at(pt, GDT_VA + TASK_GATE3, SYS_TASK_GATE, 3, LDT_DATA3, 0, 0);
    EXPECT_FAULT(pt, call(pt, TASK_GATE3, 0), EXC_GP, LDT_DATA3);
    pt->cpu->eflags_sys |= EFL_NT;
    pt_put16(pt, TSS_VA, TSS_B);
    EXPECT_FAULT(pt, iret(pt), EXC_TS, TSS_B);
}

static void task_switch_probes_every_page_it_writes(void **state)
{
    struct protect *pt = *state;

    pt_paging(pt);
    pt_put32(pt, TSS_B_VA + 0x1c, 0x100000);
    pt_page(pt, TSS_VA, PTE_P | PTE_A);
    EXPECT_FAULT(pt, jmp(pt, TSS_B, 0), EXC_PF, PF_P | PF_WR);
    pt_page(pt, TSS_VA, PTE_P | PTE_W | PTE_A | PTE_D);
    pt_page(pt, GDT_VA, PTE_P | PTE_A);
    EXPECT_FAULT(pt, jmp(pt, TSS_B, 0), EXC_PF, PF_P | PF_WR);
    pt_page(pt, GDT_VA, PTE_P | PTE_W | PTE_A | PTE_D);
    pt_page(pt, TSS_B_VA, 0);
    EXPECT_FAULT(pt, jmp(pt, TSS_B, 0), EXC_PF, 0);
}

struct late_case {
    const char *name;
    unsigned ofs, value; /* word in TSS B */
    unsigned vector, error;
};

static const struct late_case late_faults[] = {
    { "LDT selector in the LDT", 0x60, 0x0c, EXC_TS, 0x0c },
    { "LDT selector is no LDT", 0x60, DATA0, EXC_TS, DATA0 },
    { "null CS", 0x4c, 0, EXC_TS, 0 },
    { "CS is data", 0x4c, DATA0, EXC_TS, DATA0 },
    { "absent CS", 0x4c, ABSENT_CODE0, EXC_NP, ABSENT_CODE0 },
    { "SS of another level", 0x50, DATA3 | 3, EXC_TS, DATA3 },
    { "absent SS", 0x50, ABSENT_STACK0, EXC_SS, ABSENT_STACK0 },
    { "DS is a gate", 0x54, GATE32, EXC_TS, GATE32 },
    { "absent ES", 0x48, ABSENT3, EXC_NP, ABSENT3 },
};

static void task_switch_faults_late_in_the_new_task(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(late_faults); i++) {
        const struct late_case *c = &late_faults[i];

        print_message("%s\n", c->name);
        pt_teardown(state);
        pt_setup(state);
        pt = *state;
        pt_put16(pt, TSS_B_VA + c->ofs, c->value);
        assert_int_equal(jmp(pt, TSS_B, 0), EXIT_FAULT);
        pt_expect_fault(pt, c->vector, c->error);
        assert_int_equal(pt->cpu->eip, 0x77000);
        assert_int_equal(pt->cpu->tr.sel, TSS_B);
        assert_int_equal(tss_type(pt, TSS_B), SYS_TSS32_BUSY);
    }
}

static void task_with_t_bit_traps(void **state)
{
    struct protect *pt = *state;

    pt_put16(pt, TSS_B_VA + 0x64, 1);
    pt->cpu->debug_hits = DR6_BS; /* of the jump, if the old task is single-stepped: goes with it */
    assert_int_equal(jmp(pt, TSS_B, 0), EXIT_DISPATCH);
    expect_task_b(pt);
    assert_int_equal(pt->cpu->debug_hits, DR6_BT);
}

static void task_in_virtual_8086_mode(void **state)
{
    struct protect *pt = *state;

    pt_put32(pt, TSS_B_VA + 0x20, 0x100);
    pt_put32(pt, TSS_B_VA + 0x24, USER_EFLAGS | EFL_VM);
    pt_put16(pt, TSS_B_VA + 0x4c, 0x1234);
    pt_put16(pt, TSS_B_VA + 0x50, 0x2345);
    assert_int_equal(jmp(pt, TSS_B, 0), EXIT_DISPATCH);
    expect_at(pt, 0x1234, 0x100, 3);
    assert_int_equal(pt->cpu->segs[SEG_CS].base, 0x12340);
    assert_int_equal(pt->cpu->segs[SEG_SS].base, 0x23450);
}

static void task_switch_loads_cr3(void **state)
{
    struct protect *pt = *state;

    pt_paging(pt);
    memcpy(pt->ram + 0x110000, pt->ram + 0x100000, 0x1000);
    pt_put32(pt, TSS_B_VA + 0x1c, 0x110000);
    assert_int_equal(jmp(pt, TSS_B, 0), EXIT_DISPATCH);
    expect_task_b(pt);
    assert_int_equal(pt->cpu->cr3, 0x110000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PT_TEST(jump_faults_leave_no_trace),
        PT_TEST(jumps_arrive),
        PT_TEST(jump_reads_its_pointer_from_memory),
        PT_TEST(real_mode_transfers),
        PT_TEST(call_and_return_at_one_level),
        PT_TEST(call_gate_switches_stacks_and_copies_parameters),
        PT_TEST(a_16_bit_call_gate_pushes_words),
        PT_TEST(call_gate_at_one_level_stays_on_its_stack),
        PT_TEST(call_gate_faults_leave_no_trace),
        PT_TEST(new_stack_without_room),
        PT_TEST(return_faults_leave_no_trace),
        PT_TEST(iret_to_user_mode),
        PT_TEST(iret_at_one_level_obeys_iopl),
        PT_TEST(iret_of_16_bits),
        PT_TEST(iret_to_a_16_bit_stack_keeps_the_upper_half),
        PT_TEST(iret_to_virtual_8086_mode),
        PT_TEST(iret_within_virtual_8086_mode),
        PT_TEST(iret_in_real_mode),
        PT_TEST(iret_reads_user_stacks_as_user),
        PT_TEST(sysenter_and_sysexit),
        PT_TEST(jump_to_a_task),
        PT_TEST(call_a_task_and_return_with_iret),
        PT_TEST(a_16_bit_task),
        PT_TEST(task_switch_faults_before_the_commit),
        PT_TEST(task_switch_probes_every_page_it_writes),
        PT_TEST(task_switch_faults_late_in_the_new_task),
        PT_TEST(task_with_t_bit_traps),
        PT_TEST(task_in_virtual_8086_mode),
        PT_TEST(task_switch_loads_cr3),
    };

    return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
