/*
 * FNSTENV, FNSAVE, FXSAVE and what loads their images: what is in them, whose pointers show, and
 * that a fault leaves the FPU alone.
 *
 * The guest's state starts parked in vcpu->fpu; the callout makes it live in this process's
 * registers, and the test parks it again before it calls anything that could use them.
 */
#include "callout_fixture.h"

#define CW_ALL_MASKED 0x037f
#define CW_UNMASKED   0x0340 /* no exception masked */
#define AT            0x5000u

/* Offsets in the FXSAVE image */
#define FX_CW     0
#define FX_SW     2
#define FX_TAGS   4
#define FX_FOP    6
#define FX_RIP    8
#define FX_MXCSR  24
#define FX_ST(i)  (32u + 16u * (i))
#define FX_XMM(i) (160u + 16u * (i))

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}

/* A state to recognise: ST0 = 1.0 at TOP 7, XMM0..15 distinct, pointers that must not show. */
static void park_known_state(struct vcpu *cpu)
{
    static const uint8_t one[10] = { 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f };

    memset(cpu->fpu, 0, sizeof cpu->fpu);
    put16(cpu->fpu + FX_CW, CW_UNMASKED);
    put16(cpu->fpu + FX_SW, 7 << 11);
    cpu->fpu[FX_TAGS] = 0x80;
    put16(cpu->fpu + FX_FOP, 0x123);
    memset(cpu->fpu + FX_RIP, 0x5a, 6);
    put16(cpu->fpu + FX_MXCSR, 0x1f80);
    memcpy(cpu->fpu + FX_ST(0), one, sizeof one);
    for (unsigned i = 0; i < 16; i++)
        memset(cpu->fpu + FX_XMM(i), (int)(0x80 + i), 16);
    cpu->fpu_live = 0;
}

static enum exit_reason call_and_park(struct fixture *fx, callout_fn *fn, uint64_t arg, uint32_t ea)
{
    enum exit_reason reason;

    fx->cpu->eip = CODE_EIP;
    fx->cpu->next_eip = NEXT_EIP;
    reason = fn(fx->cpu, arg, ea);
    vcpu_fpu_park(fx->cpu);
    return reason;
}

static uint16_t parked_cw(const struct vcpu *cpu)
{
    uint16_t cw;

    memcpy(&cw, cpu->fpu + FX_CW, 2);
    return cw;
}

static uint16_t word_at(struct fixture *fx, uint32_t pa)
{
    return (uint16_t)fx_get32(fx, pa);
}

static void fnstenv_stores_the_environment_and_masks_exceptions(void **state)
{
    struct fixture *fx = *state;

    park_known_state(fx->cpu);
    fx_put32(fx, AT + 28, 0xa5a5a5a5);
    assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(word_at(fx, AT), CW_UNMASKED);
    assert_int_equal(word_at(fx, AT + 4), 7 << 11);
    assert_int_equal(word_at(fx, AT + 8), 0x3fff); /* only register 7 holds a number */
    assert_int_equal(fx_get32(fx, AT + 12), 0);
    assert_int_equal(fx_get32(fx, AT + 16) & 0xffff, 0);
    assert_int_equal(fx_get32(fx, AT + 20), 0);
    assert_int_equal(fx_get32(fx, AT + 28), 0xa5a5a5a5);
    assert_int_equal(parked_cw(fx->cpu) & 0x3f, 0x3f);
}

static void fnstenv_of_16_bits_takes_14_bytes(void **state)
{
    struct fixture *fx = *state;

    park_known_state(fx->cpu);
    fx_put32(fx, AT + 12, 0xa5a5a5a5);
    assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true, .osize = 2), AT), EXIT_RESUME);
    assert_int_equal(word_at(fx, AT), CW_UNMASKED);
    assert_int_equal(word_at(fx, AT + 2), 7 << 11);
    assert_int_equal(word_at(fx, AT + 4), 0x3fff);
    assert_int_equal(fx_get32(fx, AT + 6), 0);
    assert_int_equal(fx_get32(fx, AT + 12), 0xa5a50000);
}

static void fnsave_stores_everything_and_initialises(void **state)
{
    struct fixture *fx = *state;

    for (unsigned osize = 2; osize <= 4; osize += 2) {
        uint32_t regs = AT + (osize == 2 ? 14 : 28);

        park_known_state(fx->cpu);
        memset(fx->ram + AT, 0xa5, 128);
        assert_int_equal(call_and_park(fx, callout_fnsave, ARG(.mem = true, .osize = osize), AT),
                         EXIT_RESUME);
        assert_int_equal(word_at(fx, AT), CW_UNMASKED);
        assert_int_equal(fx_get32(fx, regs + 4), 0x80000000);
        assert_int_equal(word_at(fx, regs + 8), 0x3fff);
        assert_int_equal(fx->ram[regs + 79], 0);
        assert_int_equal(fx->ram[regs + 80], 0xa5);
        assert_int_equal(parked_cw(fx->cpu), CW_ALL_MASKED);
        assert_int_equal(fx->cpu->fpu[FX_TAGS], 0); /* empty */
    }
}

static void a_fault_leaves_the_fpu_as_it_was(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_pte(fx, 0x6000, 0);
    park_known_state(fx->cpu);
    fx_expect_fault(fx, callout_fnsave, ARG(.mem = true), 0x5ff0, EXC_PF, PF_WR);
    assert_int_equal(fx->cpu->fault.cr2, 0x6000);
    fx_expect_fault(fx, callout_fnstenv, ARG(.mem = true), 0x5ff0, EXC_PF, PF_WR);
    fx_expect_fault(fx, callout_fxsave, ARG(.mem = true), 0x5f00, EXC_PF, PF_WR);
    vcpu_fpu_park(fx->cpu);
    assert_int_equal(parked_cw(fx->cpu), CW_UNMASKED);
    assert_int_equal(fx_get32(fx, 0x5ff0), 0);
    assert_int_equal(fx_get32(fx, 0x5f00), 0);
}

static void fxsave_stores_eight_registers_and_no_pointers(void **state)
{
    struct fixture *fx = *state;

    park_known_state(fx->cpu);
    memset(fx->ram + AT, 0xa5, 512);
    assert_int_equal(call_and_park(fx, callout_fxsave, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(word_at(fx, AT), CW_UNMASKED);
    assert_int_equal(fx->ram[AT + FX_TAGS], 0x80);
    for (unsigned i = FX_RIP; i < FX_MXCSR; i++)
        assert_int_equal(fx->ram[AT + i], 0);
    assert_int_equal(fx_get32(fx, AT + FX_MXCSR), 0x1f80);
    assert_int_equal(fx_get32(fx, AT + FX_MXCSR + 4) & 0xffff0000, 0);
    assert_int_equal(word_at(fx, AT + FX_ST(0) + 8), 0x3fff);
    assert_int_equal(fx->ram[AT + FX_XMM(7) + 15], 0x87);
    for (unsigned i = FX_XMM(8); i < 512; i++)
        assert_int_equal(fx->ram[AT + i], 0xa5);
    assert_int_equal(parked_cw(fx->cpu), CW_UNMASKED); /* FXSAVE changes nothing */
}

/* As translated code notes them: fldl es:[0x12345], at 0xabcde. */
static void note_instruction(struct vcpu *cpu)
{
    cpu->x87_fip = 0xabcde;
    cpu->x87_fop = 0x505 | X87_NEW | X87_SELECTOR | X87_MEMORY;
    cpu->x87_seg = SEG_ES | X87_NEW | X87_SELECTOR;
    cpu->x87_ea = 0x12345;
    cpu->segs[SEG_CS].sel = 0x73;
    cpu->segs[SEG_ES].sel = 0x7b;
}

static void pointers_keep_the_selectors_of_their_time(void **state)
{
    struct fixture *fx = *state;

    park_known_state(fx->cpu);
    note_instruction(fx->cpu);
    vcpu_x87_settle(fx->cpu);
    fx->cpu->segs[SEG_CS].sel = 0x60;
    fx->cpu->segs[SEG_ES].sel = 0;
    assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, AT + 12), 0xabcde);
    assert_int_equal(fx_get32(fx, AT + 16), 0x5050073);
    assert_int_equal(fx_get32(fx, AT + 20), 0x12345);
    assert_int_equal(fx_get32(fx, AT + 24), 0xffff007b);
}

static void environments_of_real_mode_hold_linear_addresses(void **state)
{
    struct fixture *fx = *state;

    fx_real_mode(fx);
    park_known_state(fx->cpu);
    note_instruction(fx->cpu);
    fx->cpu->segs[SEG_CS].sel = 0x8000;
    fx->cpu->segs[SEG_ES].sel = 0x9000;
    assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(word_at(fx, AT + 12), 0xbcde); /* 0x80000 + 0xabcde is 0x12bcde */
    assert_int_equal(fx_get32(fx, AT + 16), 0x12505);
    assert_int_equal(word_at(fx, AT + 20), 0x2345);
    assert_int_equal(fx_get32(fx, AT + 24), 0xa000);
    assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true, .osize = 2), AT), EXIT_RESUME);
    assert_int_equal(word_at(fx, AT + 6), 0xbcde);
    assert_int_equal(word_at(fx, AT + 8), 0x2505); /* 20 bits of address */
    assert_int_equal(word_at(fx, AT + 10), 0x2345);
    assert_int_equal(word_at(fx, AT + 12), 0xa000);
    assert_int_equal(call_and_park(fx, callout_fldenv, ARG(.mem = true, .osize = 2), AT), EXIT_RESUME);
    assert_int_equal(fx->cpu->x87_fip, 0x2bcde);
    assert_int_equal(fx->cpu->x87_fdp, 0xa2345);
    assert_int_equal(fx->cpu->x87_fop_shown, 0x505);
}

static void a_pentium_4_shows_opcodes_of_exceptions_only(void **state)
{
    struct fixture *fx = *state;

    fx->vm.model = cpu_model_find("pentium4");
    for (unsigned compatible = 0; compatible <= 1; compatible++) {
        fx->cpu->misc_enable = compatible ? 5 : 1;
        park_known_state(fx->cpu);
        note_instruction(fx->cpu);
        assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true), AT), EXIT_RESUME);
        assert_int_equal(fx_get32(fx, AT + 16) >> 16, compatible ? 0x505 : 0);
        assert_int_equal(fx_get32(fx, AT + 20), 0x12345);
    }
    fx->cpu->misc_enable = 1;
    park_known_state(fx->cpu);
    note_instruction(fx->cpu);
    fx->cpu->fpu[FX_SW] = 0x84; /* ZE is not masked: ES */
    assert_int_equal(call_and_park(fx, callout_fnclex, ARG(), 0), EXIT_RESUME);
    assert_int_equal(call_and_park(fx, callout_fnstenv, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, AT + 16) >> 16, 0x505);
}

static void amd_leaves_pointers_out_of_fxsave_without_an_exception(void **state)
{
    struct fixture *fx = *state;

    for (unsigned pending = 0; pending <= 1; pending++) {
        park_known_state(fx->cpu);
        note_instruction(fx->cpu);
        fx->cpu->fpu[FX_SW] = pending ? 0x84 : 0;
        assert_int_equal(call_and_park(fx, callout_fxsave, ARG(.mem = true), AT), EXIT_RESUME);
        assert_int_equal(word_at(fx, AT + FX_FOP), pending ? 0x505 : 0);
        assert_int_equal(fx_get32(fx, AT + FX_RIP), pending ? 0xabcde : 0);
        assert_int_equal(call_and_park(fx, callout_fninit, ARG(), 0), EXIT_RESUME);
        assert_int_equal(fx->cpu->x87_fip, 0);
        assert_int_equal(call_and_park(fx, callout_fxrstor, ARG(.mem = true), AT), EXIT_RESUME);
        assert_int_equal(fx->cpu->x87_fip, pending ? 0xabcde : 0);
    }
}

static void reserved_bits_of_mxcsr_are_the_models(void **state)
{
    struct fixture *fx = *state;
    const uint32_t daz = 0x1fc0;

    park_known_state(fx->cpu);
    fx_put32(fx, AT, daz);
    assert_int_equal(call_and_park(fx, callout_ldmxcsr, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(fx->cpu->fpu[FX_MXCSR], 0xc0);
    fx_put32(fx, AT, 0x21f80); /* a mode of AMD's later processors */
    fx_expect_fault(fx, callout_ldmxcsr, ARG(.mem = true), AT, EXC_GP, 0);
    fx->vm.model = cpu_model_find("pentium3");
    fx_put32(fx, AT, daz);
    fx_expect_fault(fx, callout_ldmxcsr, ARG(.mem = true), AT, EXC_GP, 0);
    memset(fx->ram + AT, 0, 512);
    fx_put32(fx, AT + FX_MXCSR, daz);
    fx_expect_fault(fx, callout_fxrstor, ARG(.mem = true), AT, EXC_GP, 0);
    vcpu_fpu_park(fx->cpu);
}

static void a_pending_exception_comes_before_fldenv(void **state)
{
    struct fixture *fx = *state;

    park_known_state(fx->cpu);
    fx->cpu->fpu[FX_SW] = 0x84;
    fx_expect_fault(fx, callout_fldenv, ARG(.mem = true), AT, EXC_MF, NO_ERROR);
    fx_expect_fault(fx, callout_frstor, ARG(.mem = true), AT, EXC_MF, NO_ERROR);
    vcpu_fpu_park(fx->cpu);
}

static void fxsave_without_sse_leaves_its_part_alone(void **state)
{
    struct fixture *fx = *state;

    fx->vm.model = cpu_model_find("pentium2");
    park_known_state(fx->cpu);
    memset(fx->ram + AT, 0xa5, 512);
    assert_int_equal(call_and_park(fx, callout_fxsave, ARG(.mem = true), AT), EXIT_RESUME);
    assert_int_equal(word_at(fx, AT + FX_ST(0) + 8), 0x3fff);
    assert_int_equal(fx_get32(fx, AT + FX_MXCSR), 0xa5a5a5a5);
    assert_int_equal(fx->ram[AT + FX_XMM(0)], 0xa5);
}

static void fxsave_wants_its_area_aligned(void **state)
{
    struct fixture *fx = *state;

    park_known_state(fx->cpu);
    fx_expect_fault(fx, callout_fxsave, ARG(.mem = true), AT + 8, EXC_GP, 0);
    fx->cpu->segs[SEG_DS].base = 8; /* it is the linear address that counts */
    assert_int_equal(call_and_park(fx, callout_fxsave, ARG(.mem = true), AT + 8), EXIT_RESUME);
}

static void a_lazy_fpu_is_not_available(void **state)
{
    struct fixture *fx = *state;
    static callout_fn *const fns[] = { callout_fnstenv, callout_fnsave, callout_fxsave };

    for (size_t i = 0; i < ARRAY_LEN(fns); i++) {
        fx->cpu->cr0 = CR0_PE | CR0_TS;
        fx_expect_fault(fx, fns[i], ARG(.mem = true), 8, EXC_NM, NO_ERROR);
        fx->cpu->cr0 = CR0_PE | CR0_EM;
        fx_expect_fault(fx, fns[i], ARG(.mem = true), 8, EXC_NM, NO_ERROR);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fnstenv_stores_the_environment_and_masks_exceptions),
        TEST(fnstenv_of_16_bits_takes_14_bytes),
        TEST(fnsave_stores_everything_and_initialises),
        TEST(a_fault_leaves_the_fpu_as_it_was),
        TEST(fxsave_stores_eight_registers_and_no_pointers),
        TEST(fxsave_without_sse_leaves_its_part_alone),
        TEST(fxsave_wants_its_area_aligned),
        TEST(a_lazy_fpu_is_not_available),
        TEST(pointers_keep_the_selectors_of_their_time),
        TEST(environments_of_real_mode_hold_linear_addresses),
        TEST(a_pentium_4_shows_opcodes_of_exceptions_only),
        TEST(amd_leaves_pointers_out_of_fxsave_without_an_exception),
        TEST(reserved_bits_of_mxcsr_are_the_models),
        TEST(a_pending_exception_comes_before_fldenv),
    };

    return cmocka_run_group_tests_name("callout fpu images", tests, NULL, NULL);
}
