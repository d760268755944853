/*
 * Segment loads, access checks, and the callouts on segment registers, selectors and EFLAGS.
 */
#include "protect.h"

/* ---- loads ------------------------------------------------------------------------------- */

struct load_case {
    const char *name;
    unsigned cpl, seg, sel;
    int vector; /* -1: loads */
    unsigned error;
};

static const struct load_case load_cases[] = {
    { "flat data", 0, SEG_DS, DATA0, -1, 0 },
    { "less privileged data", 0, SEG_DS, DATA3, -1, 0 },
    { "user data at ring 3", 3, SEG_ES, DATA3 | 3, -1, 0 },
    { "ring 0 data from ring 3", 3, SEG_DS, DATA0, EXC_GP, DATA0 },
    { "RPL weaker than DPL", 0, SEG_DS, DATA0 | 3, EXC_GP, DATA0 },
    { "null", 3, SEG_FS, 3, -1, 0 },
    { "outside the GDT", 0, SEG_DS, OUTSIDE, EXC_GP, OUTSIDE },
    { "outside the LDT", 0, SEG_DS, 0x14, EXC_GP, 0x14 },
    { "in the LDT", 3, SEG_GS, LDT_DATA3 | 3, -1, 0 },
    { "readable code", 0, SEG_DS, CODE0, -1, 0 },
    { "conforming code from ring 3", 3, SEG_DS, CONFORM0 | 3, -1, 0 },
    { "execute-only code", 0, SEG_DS, EXECONLY3, EXC_GP, EXECONLY3 },
    { "a system segment", 0, SEG_DS, TSS_B, EXC_GP, TSS_B },
    { "an absent segment", 0, SEG_DS, ABSENT3, EXC_NP, ABSENT3 },
    { "stack", 0, SEG_SS, DATA0, -1, 0 },
    { "null stack", 0, SEG_SS, 0, EXC_GP, 0 },
    { "null stack with RPL", 3, SEG_SS, 3, EXC_GP, 0 },
    { "stack outside", 0, SEG_SS, OUTSIDE, EXC_GP, OUTSIDE },
    { "stack with wrong RPL", 0, SEG_SS, DATA0 | 3, EXC_GP, DATA0 },
    { "stack with wrong DPL", 0, SEG_SS, DATA3, EXC_GP, DATA3 },
    { "read-only stack", 3, SEG_SS, READONLY3 | 3, EXC_GP, READONLY3 },
    { "code as stack", 0, SEG_SS, CODE0, EXC_GP, CODE0 },
    { "absent stack", 3, SEG_SS, ABSENT3 | 3, EXC_SS, ABSENT3 },
};

static void segment_loads_check_in_order(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(load_cases); i++) {
        const struct load_case *c = &load_cases[i];

        print_message("%s\n", c->name);
        pt_ring(pt, c->cpl);
        pt_snapshot(pt);
        if (c->vector < 0) {
            assert_int_equal(segment_load(pt->cpu, (enum seg_id)c->seg, (uint16_t)c->sel), X86_OK);
            assert_int_equal(pt->cpu->segs[c->seg].sel, c->sel);
        } else {
            assert_int_equal(segment_load(pt->cpu, (enum seg_id)c->seg, (uint16_t)c->sel), X86_FAULT);
            pt_expect_fault(pt, (unsigned)c->vector, c->error);
            pt_expect_unchanged(pt);
        }
    }
}

static void load_sets_the_accessed_bit(void **state)
{
    struct protect *pt = *state;

    pt->ram[GDT_VA + DATA0B + 5] &= (uint8_t)~DESC_ACCESSED;
    assert_int_equal(segment_load(pt->cpu, SEG_DS, DATA0B), X86_OK);
    assert_true(pt->ram[GDT_VA + DATA0B + 5] & DESC_ACCESSED);
    assert_true(pt->cpu->segs[SEG_DS].attr & DESC_ACCESSED);
}

static void null_segment_has_no_present_bit(void **state)
{
    struct protect *pt = *state;
    gva_t va;

    assert_int_equal(segment_load(pt->cpu, SEG_DS, 0), X86_OK);
    assert_false(pt->cpu->segs[SEG_DS].attr & DESC_P);
    assert_false(pt->cpu->mode & MODE_DS_FLAT);
    assert_int_equal(segment_linear(pt->cpu, SEG_DS, 0, 1, ACC_READ, &va), X86_FAULT);
    pt_expect_fault(pt, EXC_GP, 0);
}

static void base_and_limit_come_from_the_descriptor(void **state)
{
    struct protect *pt = *state;

    pt_descriptor(pt, DATA0B, 0x12345678, 0x9abcfff, A_DATA | DESC_G);
    assert_int_equal(segment_load(pt->cpu, SEG_GS, DATA0B), X86_OK);
    assert_int_equal(pt->cpu->segs[SEG_GS].base, 0x12345678);
    assert_int_equal(pt->cpu->segs[SEG_GS].limit, 0x9abcfff);
    assert_int_equal(pt->cpu->seg_base[SEG_GS], 0x12345678);
}

static void real_mode_load_keeps_the_limit(void **state)
{
    struct protect *pt = *state;

    segment_load(pt->cpu, SEG_FS, 0);
    pt->cpu->segs[SEG_DS].limit = UINT32_MAX;
    pt->cpu->cr0 &= ~CR0_PE;
    assert_int_equal(segment_load(pt->cpu, SEG_DS, 0x1234), X86_OK);
    assert_int_equal(pt->cpu->segs[SEG_DS].base, 0x12340);
    assert_int_equal(pt->cpu->segs[SEG_DS].limit, UINT32_MAX);
    assert_int_equal(segment_load(pt->cpu, SEG_FS, 0x10), X86_OK);
    assert_true(pt->cpu->segs[SEG_FS].attr & DESC_P);
}

static void vm86_load_gives_64_kib(void **state)
{
    struct protect *pt = *state;

    pt_vm86(pt, 3);
    assert_int_equal(segment_load(pt->cpu, SEG_ES, 0xf000), X86_OK);
    assert_int_equal(pt->cpu->segs[SEG_ES].base, 0xf0000);
    assert_int_equal(pt->cpu->segs[SEG_ES].limit, 0xffff);
}

/* ---- accesses -------------------------------------------------------------------------------- */

struct access_case {
    const char *name;
    unsigned sel, seg;
    uint32_t off;
    unsigned size, access;
    bool ok;
};

static const struct access_case access_cases[] = {
    { "last bytes of a small segment", SMALL3, SEG_DS, 0xfc, 4, ACC_WRITE, true },
    { "one byte past", SMALL3, SEG_DS, 0xfd, 4, ACC_READ, false },
    { "offset that wraps", SMALL3, SEG_DS, 0xfffffffe, 4, ACC_READ, false },
    { "below an expand-down limit", DOWN3, SEG_DS, 0xfffff, 1, ACC_READ, false },
    { "just above it", DOWN3, SEG_DS, 0x100000, 4, ACC_WRITE, true },
    { "across the top of expand-down", DOWN3, SEG_DS, 0xfffffffe, 4, ACC_READ, false },
    { "top of expand-down", DOWN3, SEG_DS, 0xfffffffc, 4, ACC_READ, true },
    { "write to read-only data", READONLY3, SEG_DS, 0, 4, ACC_WRITE, false },
    { "read of read-only data", READONLY3, SEG_DS, 0, 4, ACC_READ, true },
    { "write to code", CODE3, SEG_DS, 0, 4, ACC_WRITE, false },
    { "read of code", CODE3, SEG_DS, 0, 4, ACC_READ, true },
    { "flat segment wraps", DATA3, SEG_DS, 0xfffffffe, 4, ACC_WRITE, true },
    { "stack limit", SMALL3, SEG_SS, 0xfd, 4, ACC_WRITE, false },
};

static void accesses_respect_limit_and_type(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(access_cases); i++) {
        const struct access_case *c = &access_cases[i];
        gva_t va;

        print_message("%s\n", c->name);
        pt_ring(pt, 3);
        assert_int_equal(segment_load(pt->cpu, (enum seg_id)c->seg, (uint16_t)(c->sel | 3)), X86_OK);
        enum x86_rc rc = segment_linear(pt->cpu, (enum seg_id)c->seg, c->off, c->size, c->access, &va);
        assert_int_equal(rc, c->ok ? X86_OK : X86_FAULT);
        if (c->ok)
            assert_int_equal(va.v, pt->cpu->segs[c->seg].base + c->off);
        else
            pt_expect_fault(pt, c->seg == SEG_SS ? EXC_SS : EXC_GP, 0);
    }
}

static void expand_down_of_16_bits_ends_at_64_kib(void **state)
{
    struct protect *pt = *state;
    gva_t va;

    pt_descriptor(pt, DOWN3, 0, 0xfff, A_DATA | DESC_DOWN | A_DPL(3));
    assert_int_equal(segment_load(pt->cpu, SEG_DS, DOWN3), X86_OK);
    assert_int_equal(segment_linear(pt->cpu, SEG_DS, 0xffff, 1, ACC_READ, &va), X86_OK);
    assert_int_equal(segment_linear(pt->cpu, SEG_DS, 0xffff, 2, ACC_READ, &va), X86_FAULT);
    assert_int_equal(segment_linear(pt->cpu, SEG_DS, 0x1000, 1, ACC_READ, &va), X86_OK);
    assert_int_equal(segment_linear(pt->cpu, SEG_DS, 0xfff, 1, ACC_READ, &va), X86_FAULT);
}

static void execute_only_code_is_not_read(void **state)
{
    struct protect *pt = *state;
    gva_t va;

    pt->cpu->segs[SEG_CS].attr &= (uint16_t)~DESC_READ;
    assert_int_equal(segment_linear(pt->cpu, SEG_CS, 0, 1, ACC_READ, &va), X86_FAULT);
    assert_int_equal(segment_linear(pt->cpu, SEG_CS, 0, 1, ACC_EXEC, &va), X86_OK);
    pt_real(pt);
    assert_int_equal(segment_linear(pt->cpu, SEG_CS, 0, 1, ACC_WRITE, &va), X86_OK);
}

static void user_accesses_are_user_accesses(void **state)
{
    struct protect *pt = *state;
    uint32_t v = 1;

    pt_paging(pt);
    pt_page(pt, 0x70000, PTE_P | PTE_W);
    assert_int_equal(vcpu_read(pt->cpu, SEG_DS, 0x70000, &v, 4), X86_OK);
    pt_ring(pt, 3);
    assert_int_equal(vcpu_write(pt->cpu, SEG_DS, 0x6fffe, &v, 4), X86_FAULT);
    pt_expect_fault(pt, EXC_PF, PF_P | PF_WR | PF_US);
    assert_int_equal(pt->cpu->fault.cr2, 0x70000);
    assert_int_equal(pt_get16(pt, 0x6fffe), 0);
}

/* ---- callouts on segment registers -------------------------------------------------------------- */

static void mov_to_ds_resumes_when_the_mode_stays(void **state)
{
    struct protect *pt = *state;

    pt->cpu->gpr[ECX] = 0xffff0000u | DATA0B;
    assert_int_equal(callout_mov_to_seg(pt->cpu, pt_arg_reg(4, SEG_DS, 0, ECX), 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->segs[SEG_DS].sel, DATA0B);
    pt->cpu->gpr[ECX] = 0;
    assert_int_equal(callout_mov_to_seg(pt->cpu, pt_arg_reg(4, SEG_DS, 0, ECX), 0), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->eip, NEXT_EIP);
}

static void mov_to_ss_casts_a_shadow(void **state)
{
    struct protect *pt = *state;

    pt_put16(pt, 0x30000, DATA0B);
    assert_int_equal(callout_mov_to_seg(pt->cpu, pt_arg_mem(2, SEG_SS, 0, SEG_DS), 0x30000), EXIT_SHADOW);
    assert_int_equal(pt->cpu->segs[SEG_SS].sel, DATA0B);
    assert_int_equal(pt->cpu->eip, NEXT_EIP);
}

static void mov_from_seg_follows_the_operand_size(void **state)
{
    struct protect *pt = *state;

    pt->cpu->gpr[EBX] = 0xaaaaaaaau;
    assert_int_equal(callout_mov_from_seg(pt->cpu, pt_arg_reg(2, SEG_CS, 0, EBX), 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[EBX], 0xaaaa0000u | CODE0);
    assert_int_equal(callout_mov_from_seg(pt->cpu, pt_arg_reg(4, SEG_CS, 0, EBX), 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[EBX], CODE0);
    pt_put32(pt, 0x30000, 0x55555555u);
    assert_int_equal(callout_mov_from_seg(pt->cpu, pt_arg_mem(4, SEG_SS, 0, SEG_DS), 0x30000), EXIT_RESUME);
    assert_int_equal(pt_get32(pt, 0x30000), 0x55550000u | DATA0);
}

static void push_and_pop_of_segments(void **state)
{
    struct protect *pt = *state;
    uint32_t esp = pt->cpu->gpr[ESP];

    pt_put32(pt, esp - 4, UINT32_MAX);
    assert_int_equal(callout_push_seg(pt->cpu, pt_arg(4, SEG_CS, 0), 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[ESP], esp - 4);
    assert_int_equal(pt_get32(pt, esp - 4), CODE0);
    assert_int_equal(callout_push_seg(pt->cpu, pt_arg(2, SEG_DS, 0), 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[ESP], esp - 6);
    assert_int_equal(callout_pop_seg(pt->cpu, pt_arg(2, SEG_ES, 0), 0), EXIT_RESUME);
    assert_int_equal(callout_pop_seg(pt->cpu, pt_arg(4, SEG_GS, 0), 0), EXIT_RESUME); /* no part of the mode word */
    assert_int_equal(pt->cpu->segs[SEG_GS].sel, CODE0);
    assert_int_equal(pt->cpu->gpr[ESP], esp);
    pt_push32(pt, DATA0B);
    assert_int_equal(callout_pop_seg(pt->cpu, pt_arg(4, SEG_SS, 0), 0), EXIT_SHADOW);
    pt_push32(pt, TSS_B);
    EXPECT_FAULT(pt, callout_pop_seg(pt->cpu, pt_arg(4, SEG_DS, 0), 0), EXC_GP, TSS_B);
}

static void a_16_bit_stack_keeps_the_upper_half_of_esp(void **state)
{
    struct protect *pt = *state;

    pt_ring(pt, 3);
    segment_load(pt->cpu, SEG_SS, STACK16_3 | 3);
    pt->cpu->gpr[ESP] = 0xdead0000u;
    assert_int_equal(callout_push_seg(pt->cpu, pt_arg(4, SEG_CS, 0), 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[ESP], 0xdeadfffcu);
    assert_int_equal(pt_get32(pt, 0x4fffc), CODE3 | 3);
    assert_int_equal(callout_pop_seg(pt->cpu, pt_arg(4, SEG_DS, 0), 0), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->gpr[ESP], 0xdead0000u);
    pt->cpu->gpr[ESP] = 0xdead0001u;
    EXPECT_FAULT(pt, callout_push_seg(pt->cpu, pt_arg(2, SEG_CS, 0), 0), EXC_SS, 0);
}

static void far_pointer_loads_are_all_or_nothing(void **state)
{
    struct protect *pt = *state;

    pt_put32(pt, 0x30000, 0x11223344);
    pt_put16(pt, 0x30004, DATA3B);
    assert_int_equal(callout_load_far_ptr(pt->cpu, pt_arg_mem(4, SEG_GS, EDX, SEG_DS), 0x30000), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[EDX], 0x11223344);
    assert_int_equal(pt->cpu->segs[SEG_GS].sel, DATA3B);
    pt_put16(pt, 0x30004, ABSENT3);
    EXPECT_FAULT(pt, callout_load_far_ptr(pt->cpu, pt_arg_mem(4, SEG_ES, EDX, SEG_DS), 0x30000), EXC_NP,
                 ABSENT3);
    pt_put16(pt, 0x30002, DATA0);
    assert_int_equal(callout_load_far_ptr(pt->cpu, pt_arg_mem(2, SEG_SS, EDX, SEG_DS), 0x30000), EXIT_RESUME);
    assert_int_equal(pt->cpu->gpr[EDX], 0x11223344);
}

/* ---- queries ----------------------------------------------------------------------------------- */

struct query_case {
    unsigned cpl, sel;
    bool lar, lsl, verr, verw;
};

static const struct query_case query_cases[] = {
    { 0, 0, false, false, false, false },          { 0, OUTSIDE, false, false, false, false },
    { 0, DATA0, true, true, true, true },          { 0, DATA0 | 3, false, false, false, false },
    { 3, DATA0, false, false, false, false },      { 3, DATA3 | 3, true, true, true, true },
    { 3, READONLY3 | 3, true, true, true, false }, { 3, EXECONLY3 | 3, true, true, false, false },
    { 3, CODE3 | 3, true, true, true, false },     { 3, CONFORM0 | 3, true, true, true, false },
    { 0, ABSENT3, true, true, true, true },        { 0, TSS_A, true, true, false, false },
    { 0, TSS_16, true, true, false, false },       { 3, TSS_A, false, false, false, false },
    { 0, LDT_SEL, true, true, false, false },      { 0, GATE32, true, false, false, false },
    { 0, TASK_GATE3, true, false, false, false },
};

static bool zf_of(struct protect *pt, enum exit_reason why)
{
    assert_int_equal(why, EXIT_RESUME);
    return vcpu_arith_get(pt->cpu) & EFL_ZF;
}

static void queries_answer_in_zf(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(query_cases); i++) {
        const struct query_case *c = &query_cases[i];
        uint64_t arg = pt_arg_reg(4, 0, EAX, ECX);

        print_message("cpl %u selector 0x%x\n", c->cpl, c->sel);
        pt_ring(pt, c->cpl);
        pt->cpu->gpr[ECX] = c->sel;
        vcpu_arith_set(pt->cpu, EFL_CF | EFL_OF);
        pt->cpu->gpr[EAX] = 0x5a5a5a5a;
        assert_int_equal(zf_of(pt, callout_lar(pt->cpu, arg, 0)), c->lar);
        if (!c->lar)
            assert_int_equal(pt->cpu->gpr[EAX], 0x5a5a5a5a);
        assert_int_equal(zf_of(pt, callout_lsl(pt->cpu, arg, 0)), c->lsl);
        assert_int_equal(zf_of(pt, callout_verr(pt->cpu, arg, 0)), c->verr);
        assert_int_equal(zf_of(pt, callout_verw(pt->cpu, arg, 0)), c->verw);
        assert_int_equal(vcpu_arith_get(pt->cpu) & ~EFL_ZF, EFL_CF | EFL_OF);
    }
}

static void lar_and_lsl_values(void **state)
{
    struct protect *pt = *state;

    pt->cpu->gpr[ECX] = DATA3;
    callout_lar(pt->cpu, pt_arg_reg(4, 0, EAX, ECX), 0);
    assert_int_equal(pt->cpu->gpr[EAX], 0x00cff300);
    callout_lsl(pt->cpu, pt_arg_reg(4, 0, EAX, ECX), 0);
    assert_int_equal(pt->cpu->gpr[EAX], UINT32_MAX);
    pt->cpu->gpr[EAX] = 0x12345678;
    callout_lar(pt->cpu, pt_arg_reg(2, 0, EAX, ECX), 0);
    assert_int_equal(pt->cpu->gpr[EAX], 0x1234f300);
}

static void queries_are_invalid_outside_protected_mode(void **state)
{
    struct protect *pt = *state;

    pt_vm86(pt, 3);
    assert_int_equal(callout_lar(pt->cpu, pt_arg_reg(4, 0, 0, 1), 0), EXIT_FAULT);
    pt_expect_fault_plain(pt, EXC_UD);
    assert_int_equal(callout_arpl(pt->cpu, pt_arg_reg(2, 0, 0, 1), 0), EXIT_FAULT);
    pt_expect_fault_plain(pt, EXC_UD);
}

static void arpl_raises_rpl(void **state)
{
    struct protect *pt = *state;

    pt->cpu->gpr[ECX] = 0xffff0008u;
    pt->cpu->gpr[EAX] = 3;
    assert_true(zf_of(pt, callout_arpl(pt->cpu, pt_arg_reg(2, 0, EAX, ECX), 0)));
    assert_int_equal(pt->cpu->gpr[ECX], 0xffff000bu);
    assert_false(zf_of(pt, callout_arpl(pt->cpu, pt_arg_reg(2, 0, EAX, ECX), 0)));
    pt_put16(pt, 0x30000, 0x21);
    assert_true(zf_of(pt, callout_arpl(pt->cpu, pt_arg_mem(2, 0, EAX, SEG_DS), 0x30000)));
    assert_int_equal(pt_get16(pt, 0x30000), 0x23);
}

/* ---- EFLAGS ---------------------------------------------------------------------------------------- */

static void set_eflags(struct protect *pt, uint32_t fl)
{
    vcpu_eflags_set(pt->cpu, fl | EFL_ONE);
    vcpu_update_mode(pt->cpu);
}

static void cli_and_sti_need_iopl(void **state)
{
    struct protect *pt = *state;

    assert_int_equal(callout_sti(pt->cpu, 0, 0), EXIT_SHADOW);
    assert_int_equal(pt->cpu->eip, NEXT_EIP);
    assert_int_equal(pt->cpu->eflags_if, 1);
    assert_int_equal(callout_sti(pt->cpu, 0, 0), EXIT_RESUME);
    assert_int_equal(callout_cli(pt->cpu, 0, 0), EXIT_RESUME);
    assert_int_equal(pt->cpu->eflags_if, 0);
    pt_ring(pt, 3);
    EXPECT_FAULT(pt, callout_cli(pt->cpu, 0, 0), EXC_GP, 0);
    EXPECT_FAULT(pt, callout_sti(pt->cpu, 0, 0), EXC_GP, 0);
    set_eflags(pt, EFL_IOPL);
    assert_int_equal(callout_sti(pt->cpu, 0, 0), EXIT_SHADOW);
}

static void virtual_interrupt_flag_stands_in(void **state)
{
    struct protect *pt = *state;

    pt->cpu->cr4 |= CR4_PVI | CR4_VME;
    pt_ring(pt, 3);
    set_eflags(pt, 0);
    assert_int_equal(callout_sti(pt->cpu, 0, 0), EXIT_RESUME);
    assert_true(pt->cpu->eflags_sys & EFL_VIF);
    assert_int_equal(pt->cpu->eflags_if, 0);
    assert_int_equal(callout_cli(pt->cpu, 0, 0), EXIT_RESUME);
    assert_false(pt->cpu->eflags_sys & EFL_VIF);
    set_eflags(pt, EFL_VIP);
    EXPECT_FAULT(pt, callout_sti(pt->cpu, 0, 0), EXC_GP, 0);

    set_eflags(pt, 0);
    pt_vm86(pt, 0);
    pt_push16(pt, EFL_IF | EFL_CF);
    assert_int_equal(callout_popf(pt->cpu, pt_arg(2, 0, 0), 0), EXIT_RESUME);
    assert_int_equal(vcpu_eflags_get(pt->cpu), EFL_VM | EFL_VIF | EFL_CF | EFL_ONE);
    assert_int_equal(callout_pushf(pt->cpu, pt_arg(2, 0, 0), 0), EXIT_RESUME);
    assert_int_equal(pt_get16(pt, 0x7020 + 0xffe), EFL_IF | EFL_IOPL | EFL_CF | EFL_ONE);
    EXPECT_FAULT(pt, callout_pushf(pt->cpu, pt_arg(4, 0, 0), 0), EXC_GP, 0);
    pt_put16(pt, 0x7020 + 0xffe, EFL_TF);
    EXPECT_FAULT(pt, callout_popf(pt->cpu, pt_arg(2, 0, 0), 0), EXC_GP, 0);
}

struct popf_case {
    const char *name;
    unsigned cpl, iopl, osize;
    uint32_t before, popped, after; /* IOPL of before and after comes on top */
};

#define ALL_FLAGS 0x003f7fd7u

static const struct popf_case popf_cases[] = {
    { "ring 0 writes nearly all", 0, 0, 4, 0, ALL_FLAGS, ALL_FLAGS & ~(EFL_RF | EFL_VM | EFL_VIF | EFL_VIP) },
    { "16 bits leave the upper half", 0, 0, 2, EFL_AC | EFL_ID, 0, EFL_AC | EFL_ID },
    { "ring 3 keeps IF and IOPL", 3, 0, 4, EFL_IF, EFL_IOPL | EFL_CF, EFL_IF | EFL_CF },
    { "ring 3 can't set IF", 3, 0, 4, 0, EFL_IF | EFL_DF | EFL_NT, EFL_DF | EFL_NT },
    { "IOPL 3 writes IF, not IOPL", 3, 3, 4, 0, EFL_IF, EFL_IF | EFL_IOPL },
    { "ring 0 clears IOPL", 0, 3, 4, 0, 0, 0 },
    { "VIF and VIP stay", 0, 0, 4, EFL_VIF | EFL_VIP, 0, EFL_VIF | EFL_VIP },
};

static void popf_respects_privilege(void **state)
{
    struct protect *pt = *state;

    for (size_t i = 0; i < ARRAY_LEN(popf_cases); i++) {
        const struct popf_case *c = &popf_cases[i];

        print_message("%s\n", c->name);
        pt_ring(pt, c->cpl);
        set_eflags(pt, c->before | c->iopl << EFL_IOPL_SHIFT);
        uint32_t esp = pt->cpu->gpr[ESP];
        if (c->osize == 4)
            pt_push32(pt, c->popped);
        else
            pt_push16(pt, c->popped);
        callout_popf(pt->cpu, pt_arg(c->osize, 0, 0), 0);
        assert_int_equal(vcpu_eflags_get(pt->cpu), c->after | EFL_ONE);
        assert_int_equal(pt->cpu->gpr[ESP], esp);
    }
}

static void popf_leaves_for_a_pending_interrupt_or_a_trap(void **state)
{
    struct protect *pt = *state;

    pt_push32(pt, EFL_IF);
    assert_int_equal(callout_popf(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_RESUME);
    set_eflags(pt, 0);
    pt->cpu->intr_quiet = 0;
    pt_push32(pt, EFL_IF);
    assert_int_equal(callout_popf(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_DISPATCH);
    assert_int_equal(pt->cpu->eip, NEXT_EIP);
    pt->cpu->intr_quiet = 1;
    pt_push32(pt, EFL_TF);
    assert_int_equal(callout_popf(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_DISPATCH);
    assert_true(pt->cpu->mode & MODE_STEP);
    pt_push32(pt, 0);
    assert_int_equal(callout_popf(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_DISPATCH);
    assert_false(pt->cpu->mode & MODE_STEP);
}

static void pushf_hides_vm_and_rf(void **state)
{
    struct protect *pt = *state;

    set_eflags(pt, EFL_RF | EFL_AC | EFL_IF | EFL_DF | EFL_OF | EFL_ZF);
    assert_int_equal(callout_pushf(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_RESUME);
    assert_int_equal(pt_get32(pt, pt->cpu->gpr[ESP]), EFL_AC | EFL_IF | EFL_DF | EFL_OF | EFL_ZF | EFL_ONE);
    pt_vm86(pt, 0);
    EXPECT_FAULT(pt, callout_pushf(pt->cpu, pt_arg(2, 0, 0), 0), EXC_GP, 0);
    EXPECT_FAULT(pt, callout_popf(pt->cpu, pt_arg(2, 0, 0), 0), EXC_GP, 0);
    pt_vm86(pt, 3);
    assert_int_equal(callout_pushf(pt->cpu, pt_arg(4, 0, 0), 0), EXIT_RESUME);
    assert_int_equal(pt_get32(pt, 0x7020 + 0xffc) & (EFL_VM | EFL_IOPL), EFL_IOPL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PT_TEST(segment_loads_check_in_order),
        PT_TEST(load_sets_the_accessed_bit),
        PT_TEST(null_segment_has_no_present_bit),
        PT_TEST(base_and_limit_come_from_the_descriptor),
        PT_TEST(real_mode_load_keeps_the_limit),
        PT_TEST(vm86_load_gives_64_kib),
        PT_TEST(accesses_respect_limit_and_type),
        PT_TEST(expand_down_of_16_bits_ends_at_64_kib),
        PT_TEST(execute_only_code_is_not_read),
        PT_TEST(user_accesses_are_user_accesses),
        PT_TEST(mov_to_ds_resumes_when_the_mode_stays),
        PT_TEST(mov_to_ss_casts_a_shadow),
        PT_TEST(mov_from_seg_follows_the_operand_size),
        PT_TEST(push_and_pop_of_segments),
        PT_TEST(a_16_bit_stack_keeps_the_upper_half_of_esp),
        PT_TEST(far_pointer_loads_are_all_or_nothing),
        PT_TEST(queries_answer_in_zf),
        PT_TEST(lar_and_lsl_values),
        PT_TEST(queries_are_invalid_outside_protected_mode),
        PT_TEST(arpl_raises_rpl),
        PT_TEST(cli_and_sti_need_iopl),
        PT_TEST(virtual_interrupt_flag_stands_in),
        PT_TEST(popf_respects_privilege),
        PT_TEST(popf_leaves_for_a_pending_interrupt_or_a_trap),
        PT_TEST(pushf_hides_vm_and_rf),
    };

    return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
