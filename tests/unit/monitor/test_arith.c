/*
 * Decimal adjustments against decimal arithmetic done another way, BOUND, ENTER, PUSHA, POPA.
 * Flags that the SDM calls undefined are not looked at.
 */
#include "callout_fixture.h"

#include "bt/sem/bcd.h"

#define CF_AF (EFL_CF | EFL_AF)

/* ---- decimal ------------------------------------------------------------------------- */

static unsigned to_bcd(unsigned v)
{
    return v / 10 % 10 << 4 | v % 10;
}

/* The examples that the SDM gives under DAA and DAS. */
static void sdm_examples_come_out(void **state)
{
    uint32_t fl = sem_flags_szp(0xae, 1) | EFL_OF; /* 79h + 35h: AF and CF clear */

    (void)state;
    assert_int_equal(sem_daa(0xae, &fl), 0x14);
    assert_int_equal(fl & ~EFL_OF, CF_AF | EFL_PF);
    fl = 0; /* 2eh, as in the second step of the example */
    assert_int_equal(sem_daa(0x2e, &fl), 0x34);
    assert_int_equal(fl & CF_AF, EFL_AF);
    fl = CF_AF | EFL_SF; /* 35h - 47h = eeh with borrows */
    assert_int_equal(sem_das(0xee, &fl), 0x88);
    assert_int_equal(fl & ~EFL_OF, CF_AF | EFL_SF | EFL_PF);
}

static void daa_makes_decimal_sums(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 100; a++)
        for (unsigned b = 0; b < 100; b++) {
            unsigned sum = to_bcd(a) + to_bcd(b);
            uint32_t fl = (sum > 0xff ? EFL_CF : 0) | ((to_bcd(a) ^ to_bcd(b) ^ sum) & EFL_AF);
            uint16_t ax = sem_daa((uint16_t)(0x5500 | (sum & 0xff)), &fl);

            assert_int_equal(ax, 0x5500 | to_bcd((a + b) % 100));
            assert_int_equal(fl & EFL_CF, a + b >= 100);
            assert_int_equal(fl & EFL_AF, a % 10 + b % 10 >= 10 ? EFL_AF : 0);
            assert_int_equal(fl & (EFL_ZF | EFL_SF | EFL_PF), sem_flags_szp(ax, 1));
        }
}

static void das_makes_decimal_differences(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 100; a++)
        for (unsigned b = 0; b < 100; b++) {
            unsigned diff = to_bcd(a) - to_bcd(b);
            uint32_t fl = (a < b ? EFL_CF : 0) | ((to_bcd(a) ^ to_bcd(b) ^ diff) & EFL_AF);
            uint16_t ax = sem_das((uint16_t)(0xaa00 | (diff & 0xff)), &fl);

            assert_int_equal(ax, 0xaa00 | to_bcd((a + 100 - b) % 100));
            assert_int_equal(fl & EFL_CF, a < b);
        }
}

/* Values no decimal sum can give, from the manual's pseudo-code by hand: AL, flags in, AL, flags out. */
static void adjustments_of_other_values(void **state)
{
    static const struct {
        uint16_t (*op)(uint16_t ax, uint32_t *fl);
        uint16_t ax;
        uint32_t in;
        uint16_t result;
        uint32_t out;
    } rows[] = {
        /* clang-format off */
        { sem_daa, 0x00fa, 0,      0x0060, CF_AF  }, /* fa + 6 carries, and is above 99 */
        { sem_daa, 0x009a, 0,      0x0000, CF_AF  },
        { sem_daa, 0x0000, CF_AF,  0x0066, CF_AF  },
        { sem_daa, 0x00a0, 0,      0x0000, EFL_CF },
        { sem_das, 0x0005, EFL_AF, 0x00ff, CF_AF  }, /* the borrow of the low digit alone sets CF */
        { sem_das, 0x0000, CF_AF,  0x009a, CF_AF  },
        { sem_das, 0x0099, 0,      0x0099, 0      },
        { sem_das, 0x009a, 0,      0x0034, CF_AF  },
        { sem_aaa, 0x000f, 0,      0x0105, CF_AF  },
        { sem_aaa, 0x00fa, 0,      0x0200, CF_AF  }, /* the carry out of AL reaches AH */
        { sem_aaa, 0x0009, 0,      0x0009, 0      },
        { sem_aaa, 0x0019, 0,      0x0009, 0      },
        { sem_aaa, 0xff0a, 0,      0x0000, CF_AF  },
        { sem_aas, 0x0200, EFL_AF, 0x000a, CF_AF  }, /* the borrow out of AL reaches AH */
        { sem_aas, 0x020b, 0,      0x0105, CF_AF  },
        { sem_aas, 0x0207, 0,      0x0207, 0      },
        /* clang-format on */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t fl = rows[i].in;

        assert_int_equal(rows[i].op(rows[i].ax, &fl), rows[i].result);
        assert_int_equal(fl & CF_AF, rows[i].out);
    }
}

static void aam_and_aad_undo_each_other(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    for (unsigned base = 1; base < 256; base++)
        for (unsigned al = 0; al < 256; al++) {
            cpu->gpr[EAX] = 0xabcd0000u | al;
            assert_int_equal(fx_call(fx, callout_aam, ARG(.imm = base), 0), EXIT_RESUME);
            assert_int_equal(cpu->gpr[EAX], 0xabcd0000u | (al / base) << 8 | al % base);
            assert_int_equal(vcpu_arith_get(cpu) & EFL_ZF, al % base ? 0 : EFL_ZF);
            assert_int_equal(fx_call(fx, callout_aad, ARG(.imm = base), 0), EXIT_RESUME);
            assert_int_equal(cpu->gpr[EAX], 0xabcd0000u | al);
        }
    fx_expect_fault(fx, callout_aam, ARG(.imm = 0), 0, EXC_DE, NO_ERROR);
}

static void callouts_keep_the_upper_half_of_eax(void **state)
{
    struct fixture *fx = *state;

    fx->cpu->gpr[EAX] = 0x1234002e;
    vcpu_arith_set(fx->cpu, 0);
    assert_int_equal(fx_call(fx, callout_daa, ARG(), 0), EXIT_RESUME);
    assert_int_equal(fx->cpu->gpr[EAX], 0x12340034);
    assert_int_equal(vcpu_arith_get(fx->cpu) & CF_AF, EFL_AF);
}

/* ---- BOUND ------------------------------------------------------------------------------ */

static void bound_compares_as_signed(void **state)
{
    struct fixture *fx = *state;
    uint64_t arg32 = ARG(.reg = EBX, .mem = true), arg16 = ARG(.reg = EBX, .mem = true, .osize = 2);

    fx_put32(fx, 0x2000, (uint32_t)-5);
    fx_put32(fx, 0x2004, 7);
    fx->cpu->gpr[EBX] = (uint32_t)-5;
    assert_int_equal(fx_call(fx, callout_bound, arg32, 0x2000), EXIT_RESUME);
    fx->cpu->gpr[EBX] = 7;
    assert_int_equal(fx_call(fx, callout_bound, arg32, 0x2000), EXIT_RESUME);
    fx->cpu->gpr[EBX] = 8;
    fx_expect_fault(fx, callout_bound, arg32, 0x2000, EXC_BR, NO_ERROR);
    fx->cpu->gpr[EBX] = (uint32_t)-6;
    fx_expect_fault(fx, callout_bound, arg32, 0x2000, EXC_BR, NO_ERROR);

    fx_put32(fx, 0x2000, 0x0010fff0); /* -16 .. 16 */
    fx->cpu->gpr[EBX] = 0x7777fff0;   /* BX alone counts */
    assert_int_equal(fx_call(fx, callout_bound, arg16, 0x2000), EXIT_RESUME);
    fx->cpu->gpr[EBX] = 0x11;
    fx_expect_fault(fx, callout_bound, arg16, 0x2000, EXC_BR, NO_ERROR);
    fx_expect_fault(fx, callout_bound, ARG(.reg = EBX), 0, EXC_UD, NO_ERROR);
}

/* ---- stack frames ------------------------------------------------------------------------- */

static void enter_builds_nested_frames(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_put32(fx, 0x3ffc, 0xd1);
    fx_put32(fx, 0x3ff8, 0xd2);
    cpu->gpr[ESP] = 0x3000;
    cpu->gpr[EBP] = 0x4000;
    assert_int_equal(fx_call(fx, callout_enter, ARG(.imm = 0x20, .imm2 = 3), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2ffc), 0x4000);
    assert_int_equal(fx_get32(fx, 0x2ff8), 0xd1);
    assert_int_equal(fx_get32(fx, 0x2ff4), 0xd2);
    assert_int_equal(fx_get32(fx, 0x2ff0), 0x2ffc);
    assert_int_equal(cpu->gpr[EBP], 0x2ffc);
    assert_int_equal(cpu->gpr[ESP], 0x2ff0 - 0x20);
}

static void enter_takes_the_level_modulo_32_and_level_0_pushes_ebp_only(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gpr[ESP] = 0x3000;
    cpu->gpr[EBP] = 0x4000;
    assert_int_equal(fx_call(fx, callout_enter, ARG(.imm = 0x10, .imm2 = 32), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2ffc), 0x4000);
    assert_int_equal(cpu->gpr[EBP], 0x2ffc);
    assert_int_equal(cpu->gpr[ESP], 0x2ffc - 0x10);
}

/* The display that is copied is the one that has just been written. */
static void enter_copies_what_it_has_pushed(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gpr[ESP] = 0x3000;
    cpu->gpr[EBP] = 0x3000;
    assert_int_equal(fx_call(fx, callout_enter, ARG(.imm2 = 2), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2ffc), 0x3000);
    assert_int_equal(fx_get32(fx, 0x2ff8), 0x3000); /* read back from 2ffc */
    assert_int_equal(fx_get32(fx, 0x2ff4), 0x2ffc);
}

static void enter_faults_without_a_trace(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_pte(fx, 0x2000, 0);
    fx->cpu->gpr[ESP] = 0x3004;
    fx->cpu->gpr[EBP] = 0x4000;
    fx_put32(fx, 0x3000, 0x77777777);
    fx_expect_fault(fx, callout_enter, ARG(.imm2 = 1), 0, EXC_PF, PF_WR);
    assert_int_equal(fx->cpu->fault.cr2, 0x2ffc);
    assert_int_equal(fx_get32(fx, 0x3000), 0x77777777);
    /* The final stack pointer must be writable though nothing is stored there. */
    fx->cpu->gpr[ESP] = 0x3800;
    fx_expect_fault(fx, callout_enter, ARG(.imm = 0x1000), 0, EXC_PF, PF_WR);
}

static void enter_on_a_16_bit_stack_keeps_the_upper_halves(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_real_mode(fx);
    cpu->gpr[ESP] = 0xaaaa3000;
    cpu->gpr[EBP] = 0xbbbb4000;
    assert_int_equal(fx_call(fx, callout_enter, ARG(.osize = 2, .imm = 8), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2ffc) >> 16, 0x4000);
    assert_int_equal(cpu->gpr[EBP], 0xbbbb2ffe);
    assert_int_equal(cpu->gpr[ESP], 0xaaaa2ff6);
}

static void pusha_and_popa_undo_each_other_but_for_esp(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    for (unsigned size = 2; size <= 4; size += 2) {
        for (unsigned i = 0; i < 8; i++)
            cpu->gpr[i] = 0x10001000u * (i + 1);
        cpu->gpr[ESP] = 0x3000;
        uint32_t before[8];

        memcpy(before, cpu->gpr, sizeof before);
        assert_int_equal(fx_call(fx, callout_pusha, ARG(.osize = size), 0), EXIT_RESUME);
        assert_int_equal(cpu->gpr[ESP], 0x3000 - 8 * size);
        assert_memory_equal(fx->ram + 0x3000 - size, &before[EAX], size);
        assert_memory_equal(fx->ram + 0x3000 - 5 * size, &before[ESP], size);
        assert_memory_equal(fx->ram + 0x3000 - 8 * size, &before[EDI], size);
        memset(fx->ram + 0x3000 - 5 * size, 0xee, size);
        for (unsigned i = 0; i < 8; i++)
            if (i != ESP)
                cpu->gpr[i] ^= size == 2 ? 0xffffu : UINT32_MAX;
        assert_int_equal(fx_call(fx, callout_popa, ARG(.osize = size), 0), EXIT_RESUME);
        assert_memory_equal(cpu->gpr, before, sizeof before);
    }
}

static void pusha_writes_all_or_nothing(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_pte(fx, 0x2000, 0x2000 | PTE_P | PTE_US);
    fx->cpu->gpr[EAX] = 0x12345678;
    fx->cpu->gpr[ESP] = 0x3010;
    fx_expect_fault(fx, callout_pusha, ARG(), 0, EXC_PF, PF_WR | PF_P);
    assert_int_equal(fx_get32(fx, 0x300c), 0);
    fx_pte(fx, 0x3000, 0);
    fx->cpu->gpr[ESP] = 0x2ff0;
    fx_expect_fault(fx, callout_popa, ARG(), 0, EXC_PF, 0);
}

static void pusha_across_the_limit_is_a_stack_fault(void **state)
{
    struct fixture *fx = *state;

    fx_real_mode(fx);
    fx->cpu->gpr[ESP] = 7; /* the fourth slot would wrap within itself */
    fx_expect_fault(fx, callout_pusha, ARG(.osize = 2), 0, EXC_SS, 0);
    fx->cpu->gpr[ESP] = 8; /* wraps between two slots: allowed */
    assert_int_equal(fx_call(fx, callout_pusha, ARG(.osize = 2), 0), EXIT_RESUME);
    assert_int_equal(fx->cpu->gpr[ESP], 0xfff8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdm_examples_come_out),
        cmocka_unit_test(daa_makes_decimal_sums),
        cmocka_unit_test(das_makes_decimal_differences),
        cmocka_unit_test(adjustments_of_other_values),
        cmocka_unit_test_setup_teardown(aam_and_aad_undo_each_other, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(callouts_keep_the_upper_half_of_eax, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(bound_compares_as_signed, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(enter_builds_nested_frames, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(enter_takes_the_level_modulo_32_and_level_0_pushes_ebp_only, fx_setup,
                                        fx_teardown),
        cmocka_unit_test_setup_teardown(enter_copies_what_it_has_pushed, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(enter_faults_without_a_trace, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(enter_on_a_16_bit_stack_keeps_the_upper_halves, fx_setup,
                                        fx_teardown),
        cmocka_unit_test_setup_teardown(pusha_and_popa_undo_each_other_but_for_esp, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(pusha_writes_all_or_nothing, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(pusha_across_the_limit_is_a_stack_fault, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("callout arithmetic", tests, NULL, NULL);
}
