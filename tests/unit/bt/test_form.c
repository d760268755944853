/*
 * When code moves between the two forms of a memory access: what its CCF is blamed for, and the way back.
 */
#include "bt/bt.h"
#include "bt/bt_internal.h"
#include "mmu/window.h"
#include "tests/unit/bt/run_fixture.h"

#define PAGE    0x1000u
#define MANY    0x10000000u /* VA pages, all of them the same PA page: none continues another */
#define TABLE   (SPARE + 0x5000)
#define SHARED  (SPARE + 0x6000)
#define USER_RW (PTE_P | PTE_W | PTE_US)

/* @return the CCF at CODE as it would run now */
static struct ccf *at_code(struct run_fixture *fx)
{
    struct ccf *ccf = NULL;

    reset_state(fx);
    fx->cpu->eip = CODE;
    assert_int_equal(bt_translate_at(fx->cpu, 0, &ccf), X86_OK);
    return ccf;
}

/* User code that stores to `pages` pages from MANY on lies at CODE, and its address space has a window. */
static struct run_fixture *storing_loop(void)
{
    struct run_fixture *fx = run_fixture_new();

    fx->cpu->bt->opt.mem = MEM_ADAPTIVE;
    for (uint32_t i = 0; i < 1024; i++)
        put_u32(fx, TABLE + 4 * i, SHARED | USER_RW);
    put_u32(fx, fx->cpu->cr3 + (MANY >> 22) * 4, TABLE | USER_RW);
    put_code(fx, CODE, GUEST("1: inc dword ptr [ebx]; add ebx, 0x1000; loop 1b; ud2"));
    reset_state(fx);
    assert_true(mmu_window_open(fx->cpu, VIEW_USER));
    assert_true(at_code(fx)->uses_window);
    return fx;
}

static void store_to_pages(struct run_fixture *fx, uint32_t pages)
{
    reset_state(fx);
    fx->cpu->gpr[EBX] = MANY;
    fx->cpu->gpr[ECX] = pages;
    run_to(fx, CODE, CODE + 10);
}

static void pages_met_first_are_nobodys_fault(void **state)
{
    struct run_fixture *fx = storing_loop();

    (void)state;
    store_to_pages(fx, 300);
    assert_int_equal(get_u32(fx, SHARED), 300);
    assert_in_range(fx->cpu->stats.pf_hidden, 300, 320);
    assert_int_equal(fx->cpu->stats.form_to_checked, 0);
    assert_true(at_code(fx)->uses_window);
    store_to_pages(fx, 300); /* and then there are none */
    assert_in_range(fx->cpu->stats.pf_hidden, 300, 320);
    run_fixture_free(fx);
}

/* A fault of the guest is the guest's, too. */
static void absent_pages_are_nobodys_fault(void **state)
{
    struct run_fixture *fx = storing_loop();

    (void)state;
    put_u32(fx, TABLE, 0);
    for (unsigned i = 0; i < 100; i++) {
        reset_state(fx);
        fx->cpu->gpr[EBX] = MANY;
        run_from(fx, CODE);
        assert_int_equal(fx->frame.vector, EXC_PF);
        assert_int_equal(fx->cpu->cr2, MANY);
    }
    assert_int_equal(fx->cpu->stats.form_to_checked, 0);
    run_fixture_free(fx);
}

static void drop_and_miss(struct run_fixture *fx, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        mmu_invlpg(fx->cpu, gva(MANY));
        store_to_pages(fx, 1);
    }
}

static void pages_dropped_again_and_again_cost_the_form(void **state)
{
    struct run_fixture *fx = storing_loop();

    (void)state;
    drop_and_miss(fx, 100);
    assert_int_equal(get_u32(fx, SHARED), 100);
    assert_int_equal(fx->cpu->stats.form_to_checked, 1);
    assert_in_range(fx->cpu->stats.pf_hidden, 20, 40);
    assert_false(at_code(fx)->uses_window);
    run_fixture_free(fx);
}

/* @return samples until the CCF was given the window again */
static unsigned samples_until_back(struct run_fixture *fx)
{
    const struct ccf *ccf;
    unsigned n = 0;

    for (; !(ccf = at_code(fx))->uses_window; n++) {
        assert_in_range(n, 0, 1000);
        fx->cpu->sample_rip = (uint64_t)(uintptr_t)(ccf->hot + ccf->body_ofs);
        bt_sample(fx->cpu);
    }
    return n;
}

static void time_brings_the_form_back(void **state)
{
    struct run_fixture *fx = storing_loop();

    (void)state;
    drop_and_miss(fx, 100);
    unsigned first = samples_until_back(fx);
    store_to_pages(fx, 1);
    assert_int_equal(fx->cpu->stats.form_to_checked, 1);
    drop_and_miss(fx, 100); /* it has not mended */
    assert_int_equal(fx->cpu->stats.form_to_checked, 2);
    assert_int_equal(samples_until_back(fx), 2 * first);
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_met_first_are_nobodys_fault),
        cmocka_unit_test(absent_pages_are_nobodys_fault),
        cmocka_unit_test(pages_dropped_again_and_again_cost_the_form),
        cmocka_unit_test(time_brings_the_form_back),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
