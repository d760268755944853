/*
 * Delivery of interrupts and exceptions: gates, stacks, error codes, double and triple faults.
 */
#include "protect.h"

#include "monitor/debug.h"

#define SOFT_VECTOR 0x40
#define IRQ_VECTOR  0x30
#define HANDLER     0x12345678u
#define OLD_EFLAGS  (EFL_ONE | EFL_IF | EFL_ZF | EFL_NT | EFL_AC)

static void set_eflags(struct protect *pt, uint32_t fl)
{
    vcpu_eflags_set(pt->cpu, fl);
    vcpu_update_mode(pt->cpu);
}

static enum exit_reason int_n(struct protect *pt, unsigned vector)
{
    return callout_int_n(pt->cpu, pt_arg(4, vector, 0), 0);
}

static enum x86_rc irq(struct protect *pt, unsigned vector)
{
    return interrupt_deliver(pt->cpu, (uint8_t)vector, false, false, 0, pt->cpu->eip);
}

static void expect_stack32(struct protect *pt, uint32_t sp, const uint32_t *slots, unsigned n)
{
    assert_int_equal(pt->cpu->gpr[ESP], sp);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(pt_get32(pt, pt->cpu->segs[SEG_SS].base + sp + 4 * i), slots[i]);
}

/* ---- INT n ------------------------------------------------------------------------------------- */

static void int_from_user_switches_stacks(void **state)
{
    struct protect *pt = *state;
    const uint32_t frame[] = { NEXT_EIP, CODE3 | 3, OLD_EFLAGS, STACK3 - 0x100, DATA3 | 3 };

    pt_idt(pt, SOFT_VECTOR, SYS_TRAP32, 3, CODE0, HANDLER);
    pt_ring(pt, 3);
    set_eflags(pt, OLD_EFLAGS);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->eip, HANDLER);
    assert_int_equal(pt->cpu->segs[SEG_CS].sel, CODE0);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, DATA0);
    assert_int_equal(pt->cpu->segs[SEG_DS].sel, DATA3 | 3);
    assert_int_equal(pt->cpu->cpl, 0);
    assert_int_equal(vcpu_eflags_get(pt->cpu), OLD_EFLAGS & ~EFL_NT); /* trap gate: IF stays */
    expect_stack32(pt, STACK0 - 20, frame, 5);
}

static void interrupt_gate_clears_if_at_the_same_level(void **state)
{
    struct protect *pt = *state;
    const uint32_t frame[] = { INSN_EIP, CODE0, OLD_EFLAGS | EFL_TF };
    uint32_t esp = pt->cpu->gpr[ESP];

    pt_idt(pt, IRQ_VECTOR, SYS_INT32, 0, CODE0, HANDLER);
    set_eflags(pt, OLD_EFLAGS | EFL_TF);
    assert_int_equal(irq(pt, IRQ_VECTOR), X86_OK);
    assert_int_equal(vcpu_eflags_get(pt->cpu), OLD_EFLAGS & ~(EFL_NT | EFL_IF));
    assert_false(pt->cpu->mode & MODE_STEP);
    expect_stack32(pt, esp - 12, frame, 3);
}

static void a_16_bit_gate_pushes_words(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, IRQ_VECTOR, SYS_INT16, 0, CODE16_0, HANDLER);
    pt_ring(pt, 3);
    set_eflags(pt, OLD_EFLAGS);
    assert_int_equal(irq(pt, IRQ_VECTOR), X86_OK);
    assert_int_equal(pt->cpu->eip, HANDLER & 0xffff);
    assert_int_equal(pt->cpu->gpr[ESP], STACK0 - 10);
    assert_int_equal(pt_get16(pt, STACK0 - 10), INSN_EIP);
    assert_int_equal(pt_get16(pt, STACK0 - 8), CODE3 | 3);
    assert_int_equal(pt_get16(pt, STACK0 - 6), OLD_EFLAGS & 0xffff);
    assert_int_equal(pt_get16(pt, STACK0 - 4), (STACK3 - 0x100) & 0xffff);
    assert_int_equal(pt_get16(pt, STACK0 - 2), DATA3 | 3);
}

static void conforming_handler_keeps_the_level(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, SOFT_VECTOR, SYS_TRAP32, 3, CONFORM0, 0x9000);
    pt_ring(pt, 3);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->cpl, 3);
    assert_int_equal(pt->cpu->segs[SEG_CS].sel, CONFORM0 | 3);
    assert_int_equal(pt->cpu->gpr[ESP], STACK3 - 0x100 - 12);
}

static void ring_1_handler_takes_its_own_stack(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, SOFT_VECTOR, SYS_TRAP32, 3, CODE1, 0x9000);
    pt_ring(pt, 3);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->cpl, 1);
    assert_int_equal(pt->cpu->segs[SEG_CS].sel, CODE1 | 1);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, DATA1 | 1);
    assert_int_equal(pt->cpu->gpr[ESP], STACK1 - 20);
}

struct gate_case {
    const char *name;
    unsigned cpl, type, dpl, sel;
    uint32_t offset;
    unsigned vector;
    unsigned error; /* EXT comes on top for an external event */
    bool soft_only;
};

#define IDT_ERROR (SOFT_VECTOR * 8 + ERROR_IDT)

static const struct gate_case gate_faults[] = {
    { "gate of more privilege", 3, SYS_INT32, 0, CODE0, 0, EXC_GP, IDT_ERROR, true },
    { "no gate", 0, SYS_LDT, 3, CODE0, 0, EXC_GP, IDT_ERROR, false },
    { "a call gate", 0, SYS_CALL32, 3, CODE0, 0, EXC_GP, IDT_ERROR, false },
    { "null handler", 0, SYS_INT32, 3, 0, 0, EXC_GP, 0, false },
    { "handler outside", 0, SYS_INT32, 3, OUTSIDE, 0, EXC_GP, OUTSIDE, false },
    { "handler is data", 0, SYS_INT32, 3, DATA0, 0, EXC_GP, DATA0, false },
    { "handler of less privilege", 0, SYS_INT32, 3, CODE3, 0, EXC_GP, CODE3, false },
    { "absent handler", 0, SYS_INT32, 3, ABSENT_CODE0, 0, EXC_NP, ABSENT_CODE0, false },
    { "handler beyond its limit", 3, SYS_INT32, 3, SMALL_CODE0, 0x1000, EXC_GP, 0, false },
    { "task gate to a busy TSS", 0, SYS_TASK_GATE, 3, TSS_A, 0, EXC_GP, TSS_A, false },
    { "task gate into the LDT", 0, SYS_TASK_GATE, 3, LDT_DATA3, 0, EXC_GP, LDT_DATA3, false },
};

static void gate_faults_carry_the_right_code(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(gate_faults); i++) {
        const struct gate_case *c = &gate_faults[i];

        print_message("%s\n", c->name);
        pt_ring(pt, c->cpl);
        pt_idt(pt, SOFT_VECTOR, c->type, c->dpl, c->sel, c->offset);
        EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), c->vector, c->error);
        if (c->soft_only)
            continue;
        pt_snapshot(pt);
        assert_int_equal(irq(pt, SOFT_VECTOR), X86_FAULT);
        pt_expect_fault(pt, c->vector, c->error | ERROR_EXT);
        pt_expect_unchanged(pt);
    }
}

static void absent_gate_and_short_idt(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, SOFT_VECTOR, SYS_INT32, 3, CODE0, 0);
    pt->ram[IDT_VA + SOFT_VECTOR * 8 + 5] &= (uint8_t)~DESC_P;
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_NP, IDT_ERROR);
    EXPECT_FAULT(pt, int_n(pt, 0x80), EXC_GP, 0x80 * 8 + ERROR_IDT);
    pt->cpu->idtr.limit = SOFT_VECTOR * 8 + 6;
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_GP, IDT_ERROR);
}

static void bad_tss_stacks(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, SOFT_VECTOR, SYS_INT32, 3, CODE0, HANDLER);
    pt_ring(pt, 3);
    pt_put16(pt, TSS_VA + 8, 0);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_TS, 0);
    pt_put16(pt, TSS_VA + 8, DATA3 | 3);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_TS, DATA3);
    pt_put16(pt, TSS_VA + 8, CODE0);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_TS, CODE0);
    pt_put16(pt, TSS_VA + 8, ABSENT_STACK0);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_SS, ABSENT_STACK0);
    pt_descriptor(pt, DATA0B, 0, 0xffff, A_DATA | DESC_DB);
    pt_put16(pt, TSS_VA + 8, DATA0B);
    pt_put32(pt, TSS_VA + 4, 16);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_SS, DATA0B);
    pt->cpu->tr.limit = 8;
    pt_snapshot(pt);
    assert_int_equal(irq(pt, SOFT_VECTOR), X86_FAULT);
    pt_expect_fault(pt, EXC_TS, TSS_A | ERROR_EXT);
    pt_expect_unchanged(pt);
}

static void stack_of_a_16_bit_tss(void **state)
{
    struct protect *pt = *state;

    pt->cpu->tr = (struct segment){ TSS_16, DESC_P | SYS_TSS16_BUSY, TSS_16_VA, 0x2b };
    pt_put16(pt, TSS_16_VA + 2, 0x9000);
    pt_put16(pt, TSS_16_VA + 4, DATA0);
    pt_idt(pt, SOFT_VECTOR, SYS_INT32, 3, CODE0, HANDLER);
    pt_ring(pt, 3);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->gpr[ESP], 0x9000 - 20);
}

static void stack_fault_at_the_same_level_has_no_selector(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, IRQ_VECTOR, SYS_INT32, 0, CODE0, HANDLER);
    pt->cpu->segs[SEG_SS].limit = 0xfff;
    pt->cpu->segs[SEG_SS].attr &= (uint16_t)~DESC_G;
    pt_snapshot(pt);
    assert_int_equal(irq(pt, IRQ_VECTOR), X86_FAULT);
    pt_expect_fault(pt, EXC_SS, ERROR_EXT);
    pt_expect_unchanged(pt);
}

static void frame_across_pages_faults_whole(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, SOFT_VECTOR, SYS_INT32, 3, CODE0, HANDLER);
    pt_put32(pt, TSS_VA + 4, 0x50008);
    pt_paging(pt);
    pt_ring(pt, 3);
    pt_page(pt, 0x4f000, PTE_P | PTE_US);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_PF, PF_P | PF_WR);
    assert_int_equal(pt->cpu->fault.cr2, 0x4fffc); /* the third push */
    pt_page(pt, 0x4f000, PTE_P | PTE_W);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt_get32(pt, 0x50004), DATA3 | 3);
    assert_int_equal(pt_get32(pt, 0x4fff4), NEXT_EIP);
}

static void int3_and_into_are_software_interrupts(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, EXC_BP, SYS_INT32, 0, CODE0, HANDLER);
    pt_ring(pt, 3);
    EXPECT_FAULT(pt, callout_int3(pt->cpu, 0, 0), EXC_GP, EXC_BP * 8 + ERROR_IDT);
    pt_idt(pt, EXC_BP, SYS_INT32, 3, CODE0, HANDLER);
    assert_int_equal(callout_int3(pt->cpu, 0, 0), EXIT_DISPATCH);
    assert_int_equal(pt_get32(pt, STACK0 - 20), NEXT_EIP);
    pt_ring(pt, 3);
    pt_idt(pt, EXC_OF, SYS_INT32, 3, CODE0, HANDLER);
    assert_int_equal(callout_into(pt->cpu, 0, 0), EXIT_RESUME);
    vcpu_arith_set(pt->cpu, EFL_OF);
    assert_int_equal(callout_into(pt->cpu, 0, 0), EXIT_DISPATCH);
    pt_ring(pt, 3);
    pt_idt(pt, EXC_DB, SYS_INT32, 0, CODE0, HANDLER);
    assert_int_equal(callout_int1(pt->cpu, 0, 0), EXIT_DISPATCH); /* no DPL check */
    assert_int_equal(pt_get32(pt, STACK0 - 20), NEXT_EIP);
}

/* ---- virtual-8086 and real mode ------------------------------------------------------------------ */

static void interrupt_from_vm86_saves_all_segments(void **state)
{
    struct protect *pt = *state;
    const uint32_t frame[] = { INSN_EIP, 0x701, EFL_ONE | EFL_VM, 0x1000, 0x702, 0x700, 0x703, 0x704, 0x705 };

    pt_idt(pt, IRQ_VECTOR, SYS_INT32, 0, CODE0, HANDLER);
    pt_vm86(pt, 0);
    assert_int_equal(irq(pt, IRQ_VECTOR), X86_OK);
    expect_stack32(pt, STACK0 - 36, frame, 9);
    assert_int_equal(pt->cpu->cpl, 0);
    assert_false(pt->cpu->mode & MODE_VM86);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (i != SEG_CS && i != SEG_SS)
            assert_false(pt->cpu->segs[i].attr & DESC_P);
    assert_int_equal(callout_iret(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->eip, INSN_EIP);
    assert_int_equal(pt->cpu->segs[SEG_GS].base, 0x7050);
}

static void vm86_handler_must_be_ring_0(void **state)
{
    struct protect *pt = *state;
    static const unsigned sels[] = { CODE1, CONFORM0 };

    pt_vm86(pt, 3);
    for (unsigned i = 0; i < ARRAY_LEN(sels); i++) {
        pt_idt(pt, SOFT_VECTOR, SYS_INT32, 3, sels[i], HANDLER);
        EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_GP, sels[i]);
    }
}

static void int_n_in_vm86_needs_iopl_3(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, SOFT_VECTOR, SYS_INT32, 3, CODE0, HANDLER);
    pt_idt(pt, EXC_BP, SYS_INT32, 3, CODE0, HANDLER);
    pt_vm86(pt, 0);
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_GP, 0);
    assert_int_equal(callout_int3(pt->cpu, 0, 0), EXIT_DISPATCH); /* INT3 does not care */
    pt_vm86(pt, 3);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
}

static void vme_redirects_to_the_8086_program(void **state)
{
    struct protect *pt = *state;

    pt->cpu->cr4 |= CR4_VME;
    pt->cpu->tr.limit = 0x100;
    pt_put16(pt, TSS_VA + 0x66, 0x88); /* redirection bitmap at 0x68 */
    pt_put16(pt, SOFT_VECTOR * 4, 0x4242);
    pt_put16(pt, SOFT_VECTOR * 4 + 2, 0x1000);
    pt_vm86(pt, 0);
    pt->cpu->eflags_sys |= EFL_VIF;
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->segs[SEG_CS].sel, 0x1000);
    assert_int_equal(pt->cpu->eip, 0x4242);
    assert_int_equal(pt->cpu->gpr[ESP], 0xffa);
    assert_int_equal(pt_get16(pt, 0x7020 + 0xffe), EFL_IOPL | EFL_IF | EFL_ONE);
    assert_false(pt->cpu->eflags_sys & EFL_VIF);
    pt->ram[TSS_VA + 0x68 + SOFT_VECTOR / 8] = 1;
    EXPECT_FAULT(pt, int_n(pt, SOFT_VECTOR), EXC_GP, 0);
}

static void real_mode_uses_the_vector_table(void **state)
{
    struct protect *pt = *state;

    pt_real(pt);
    set_eflags(pt, EFL_ONE | EFL_IF | EFL_TF | EFL_CF);
    pt_put16(pt, SOFT_VECTOR * 4, 0x4242);
    pt_put16(pt, SOFT_VECTOR * 4 + 2, 0x1000);
    assert_int_equal(int_n(pt, SOFT_VECTOR), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->segs[SEG_CS].base, 0x10000);
    assert_int_equal(pt->cpu->eip, 0x4242);
    assert_int_equal(pt->cpu->gpr[ESP], 0xabcd0ffau);
    assert_int_equal(pt_get16(pt, 0x7020 + 0xffa), NEXT_EIP & 0xffff);
    assert_int_equal(pt_get16(pt, 0x7020 + 0xffc), 0x701);
    assert_int_equal(pt_get16(pt, 0x7020 + 0xffe), EFL_ONE | EFL_IF | EFL_TF | EFL_CF);
    assert_int_equal(vcpu_eflags_get(pt->cpu), EFL_ONE | EFL_CF);
}

static void real_mode_exceptions_have_no_error_code(void **state)
{
    struct protect *pt = *state;

    pt_real(pt);
    pt_put16(pt, EXC_GP * 4, 0x1111);
    vcpu_raise_error(pt->cpu, EXC_GP, 0);
    assert_int_equal(exception_deliver(&pt->vm), X86_OK);
    assert_int_equal(pt->cpu->gpr[ESP], 0xabcd0ffau);
    assert_int_equal(pt_get16(pt, 0x7020 + 0xffa), INSN_EIP);
}

/* ---- exceptions ------------------------------------------------------------------------------------- */

static void page_fault_pushes_its_code_and_sets_cr2(void **state)
{
    struct protect *pt = *state;
    const uint32_t frame[] = {
        PF_US | PF_WR, INSN_EIP, CODE3 | 3, EFL_ONE | EFL_RF, STACK3 - 0x100, DATA3 | 3
    };

    pt_idt(pt, EXC_PF, SYS_INT32, 0, CODE0, HANDLER);
    pt_ring(pt, 3);
    vcpu_raise_pf(pt->cpu, gva(0xcafe0000u), PF_US | PF_WR);
    assert_int_equal(exception_deliver(&pt->vm), X86_OK);
    assert_int_equal(pt->cpu->cr2, 0xcafe0000u);
    expect_stack32(pt, STACK0 - 24, frame, 6);
    assert_int_equal(pt->cpu->stats.exception[EXC_PF], 1);
    assert_false(pt->cpu->eflags_sys & EFL_RF);
}

static void debug_trap_pushes_no_rf(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, EXC_DB, SYS_INT32, 0, CODE0, HANDLER);
    pt->cpu->dr[7] |= DR7_GD;
    pt->cpu->dr[6] |= DR6_BD | 1;
    debug_raise(pt->cpu, DR6_BS | 4);
    assert_int_equal(exception_deliver(&pt->vm), X86_OK);
    assert_int_equal(pt_get32(pt, pt->cpu->gpr[ESP] + 8), EFL_ONE);
    assert_false(pt->cpu->dr[7] & DR7_GD);
    assert_int_equal(pt->cpu->dr[6], DR6_ONES | DR6_BD | DR6_BS | 4); /* B0..B3 are those of this one */
}

static void general_detect_is_a_fault(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, EXC_DB, SYS_INT32, 0, CODE0, HANDLER);
    pt->cpu->dr[7] |= DR7_GD;
    debug_raise(pt->cpu, DR6_BD);
    assert_int_equal(exception_deliver(&pt->vm), X86_OK);
    assert_int_equal(pt_get32(pt, pt->cpu->gpr[ESP] + 8), EFL_ONE | EFL_RF);
    assert_int_equal(pt->cpu->dr[6], DR6_ONES | DR6_BD);
    assert_int_equal(pt->cpu->dr[7], DR7_ONES);
}

struct pair_case {
    const char *name;
    unsigned first;
    unsigned gate_sel;  /* handler of the first: what is wrong with it */
    unsigned delivered; /* the vector that arrives */
    unsigned error;
};

static const struct pair_case pair_cases[] = {
    { "benign, then contributory", EXC_UD, ABSENT_CODE0, EXC_NP, ABSENT_CODE0 | ERROR_EXT },
    { "contributory twice", EXC_GP, ABSENT_CODE0, EXC_DF, 0 },
    { "divide error, then #GP", EXC_DE, DATA0, EXC_DF, 0 },
    { "page fault, then contributory", EXC_PF, ABSENT_CODE0, EXC_DF, 0 },
};

static void second_faults_are_classified(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(pair_cases); i++) {
        const struct pair_case *c = &pair_cases[i];

        print_message("%s\n", c->name);
        pt_ring(pt, 3);
        for (unsigned v = 0; v < 20; v++)
            pt_idt(pt, v, SYS_INT32, 0, CODE0, 0x1000 * v);
        pt_idt(pt, c->first, SYS_INT32, 0, c->gate_sel, 0);
        pt->cpu->fault = (struct fault){ .vector = (uint8_t)c->first, .has_error = c->first >= 10 };
        assert_int_equal(exception_deliver(&pt->vm), X86_OK);
        assert_int_equal(pt->cpu->eip, 0x1000 * c->delivered);
        assert_int_equal(pt_get32(pt, STACK0 - 24), c->error);
        assert_int_equal(pt_get32(pt, STACK0 - 20), INSN_EIP);
        assert_int_equal(pt->stop, STOP_NONE);
    }
}

static void page_fault_while_delivering(void **state)
{
    struct protect *pt = *state;

    for (unsigned v = 0; v < 20; v++)
        pt_idt(pt, v, SYS_INT32, 0, CODE0, 0x1000 * v);
    pt_paging(pt);
    pt_ring(pt, 0);
    /* a contributory fault whose stack is missing becomes the page fault; that one has it too: #DF */
    pt_page(pt, STACK0 - 0x1000, 0);
    vcpu_raise_error(pt->cpu, EXC_GP, 0);
    assert_int_equal(exception_deliver(&pt->vm), X86_UNSUPPORTED); /* and #DF has no stack either */
    assert_int_equal(pt->stop, STOP_TRIPLE_FAULT);
    assert_int_equal(pt->cpu->stats.exception[EXC_PF], 1);
    assert_int_equal(pt->cpu->stats.exception[EXC_DF], 1);
    assert_int_equal(pt->cpu->cr2, STACK0 - 0x104);
}

static void double_fault_through_a_task_gate(void **state)
{
    struct protect *pt = *state;

    pt_idt(pt, EXC_DF, SYS_TASK_GATE, 0, TSS_B, 0);
    pt_idt(pt, EXC_GP, SYS_INT32, 0, ABSENT_CODE0, 0);
    vcpu_raise_error(pt->cpu, EXC_GP, 0x18);
    assert_int_equal(exception_deliver(&pt->vm), X86_OK);
    assert_int_equal(pt->cpu->tr.sel, TSS_B);
    assert_int_equal(pt->cpu->eip, 0x77000);
    assert_int_equal(pt->cpu->gpr[ESP], STACK_B - 4);
    assert_int_equal(pt_get32(pt, STACK_B - 4), 0);
    assert_int_equal(pt_get32(pt, TSS_VA + 0x20), INSN_EIP);
    assert_true(pt->cpu->eflags_sys & EFL_NT);
}

static void no_idt_at_all_is_a_triple_fault(void **state)
{
    struct protect *pt = *state;

    pt->cpu->idtr.limit = 0;
    vcpu_raise(pt->cpu, EXC_UD);
    assert_int_equal(exception_deliver(&pt->vm), X86_UNSUPPORTED);
    assert_int_equal(pt->stop, STOP_TRIPLE_FAULT);
    assert_int_equal(pt->cpu->eip, INSN_EIP);
    assert_false(pt->vm.in_exception);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PT_TEST(int_from_user_switches_stacks),
        PT_TEST(interrupt_gate_clears_if_at_the_same_level),
        PT_TEST(a_16_bit_gate_pushes_words),
        PT_TEST(conforming_handler_keeps_the_level),
        PT_TEST(ring_1_handler_takes_its_own_stack),
        PT_TEST(gate_faults_carry_the_right_code),
        PT_TEST(absent_gate_and_short_idt),
        PT_TEST(bad_tss_stacks),
        PT_TEST(stack_of_a_16_bit_tss),
        PT_TEST(stack_fault_at_the_same_level_has_no_selector),
        PT_TEST(frame_across_pages_faults_whole),
        PT_TEST(int3_and_into_are_software_interrupts),
        PT_TEST(interrupt_from_vm86_saves_all_segments),
        PT_TEST(vm86_handler_must_be_ring_0),
        PT_TEST(int_n_in_vm86_needs_iopl_3),
        PT_TEST(vme_redirects_to_the_8086_program),
        PT_TEST(real_mode_uses_the_vector_table),
        PT_TEST(real_mode_exceptions_have_no_error_code),
        PT_TEST(page_fault_pushes_its_code_and_sets_cr2),
        PT_TEST(debug_trap_pushes_no_rf),
        PT_TEST(general_detect_is_a_fault),
        PT_TEST(second_faults_are_classified),
        PT_TEST(page_fault_while_delivering),
        PT_TEST(double_fault_through_a_task_gate),
        PT_TEST(no_idt_at_all_is_a_triple_fault),
    };

    return cmocka_run_group_tests_name("exception", tests, NULL, NULL);
}
