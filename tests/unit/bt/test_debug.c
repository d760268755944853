/*
 * Breakpoints, as seen from the outside: what they cost, which pages they concern, and that all is as before
 * when they are gone. What a guest sees of them is in guests/topics/breakpoints.c.
 */
#include <string.h>

#include "bt/bt.h"
#include "monitor/debug.h"
#include "tests/unit/bt/run_fixture.h"

#define PAGE 0x1000u
#define CODE2 (CODE + PAGE)

enum { ON_FETCH, ON_WRITE, ON_PORT, ON_ACCESS };

static void arm(struct run_fixture *fx, unsigned n, unsigned kind, uint32_t at, uint32_t len)
{
    fx->cpu->dr[n] = at;
    fx->cpu->dr[7] = (fx->cpu->dr[7] & ~(15u << (16 + 4 * n))) | 2u << 2 * n | kind << (16 + 4 * n) |
                     (len - 1) << (18 + 4 * n);
    debug_update(fx->cpu);
}

static void disarm(struct run_fixture *fx)
{
    fx->cpu->dr[7] = DR7_ONES;
    debug_update(fx->cpu);
}

static void expect_trap(struct run_fixture *fx, uint32_t eip, uint32_t dr6)
{
    assert_int_equal(fx->frame.vector, EXC_DB);
    assert_int_equal(fx->frame.eip, eip);
    assert_int_equal(fx->cpu->dr[6], DR6_ONES | dr6);
    fx->cpu->dr[6] = DR6_ONES;
}

static void put_loop(struct run_fixture *fx)
{
    put_code(fx, CODE, GUEST("mov ecx, 500; 1: mov [ebx], ecx; add edx, [ebx]; dec ecx; jnz 1b; ud2"));
}

/* Exits and slow accesses of 500 stores and loads at `at`. */
static uint64_t cost_of_loop(struct run_fixture *fx, uint32_t at)
{
    reset_state(fx);
    fx->cpu->gpr[EBX] = at;
    uint64_t before = fx->cpu->stats.exit_total + fx->cpu->stats.mem_slow;
    run_to(fx, CODE, CODE + 12);
    return fx->cpu->stats.exit_total + fx->cpu->stats.mem_slow - before;
}

static void only_the_watched_page_costs(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put_loop(fx);
    for (unsigned i = 0; i < 12; i++)
        cost_of_loop(fx, DATA);
    uint64_t usual = cost_of_loop(fx, DATA);
    arm(fx, 0, ON_ACCESS, DATA + PAGE + 64, 4);
    cost_of_loop(fx, DATA);
    assert_int_equal(cost_of_loop(fx, DATA), usual);
    /* beside the watched bytes: slow accesses, but no other exits for them */
    uint64_t watched = fx->cpu->stats.exit[EXIT_WATCHED];
    assert_true(cost_of_loop(fx, DATA + PAGE) >= usual + 1000);
    assert_int_equal(fx->cpu->stats.exit[EXIT_WATCHED], watched);
    disarm(fx);
    for (unsigned i = 0; i < 12; i++)
        cost_of_loop(fx, DATA + PAGE);
    assert_int_equal(cost_of_loop(fx, DATA + PAGE), usual);
    run_fixture_free(fx);
}

static void code_of_other_pages_runs_as_before(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put_loop(fx);
    for (unsigned i = 0; i < 4; i++)
        cost_of_loop(fx, DATA);
    uint64_t usual = cost_of_loop(fx, DATA), translated = fx->cpu->stats.tu_translated;
    arm(fx, 0, ON_FETCH, CODE2, 1);
    assert_in_range(cost_of_loop(fx, DATA), usual, usual + 4);
    assert_int_equal(fx->cpu->stats.tu_translated, translated);
    run_fixture_free(fx);
}

static void usual_translations_wait_for_the_end(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code code = GUEST("mov ecx, 50; 1: inc eax; dec ecx; jnz 1b");

    (void)state;
    reset_state(fx);
    run_code(fx, code);
    arm(fx, 0, ON_FETCH, CODE + 5, 1);
    reset_state(fx);
    fx->cpu->eip = CODE;
    run_from(fx, CODE);
    expect_trap(fx, CODE + 5, 1);
    assert_int_equal(fx->frame.gpr[ECX], 50);
    reset_state(fx);
    fx->cpu->eflags_sys |= EFL_RF; /* as IRET leaves it */
    fx->cpu->gpr[ECX] = 9;
    run_from(fx, CODE + 5);
    expect_trap(fx, CODE + 5, 1);
    assert_int_equal(fx->frame.gpr[ECX], 8);
    assert_int_equal(fx->frame.eflags & EFL_RF, 0);
    uint64_t translated = fx->cpu->stats.tu_translated;
    disarm(fx);
    reset_state(fx);
    run_to(fx, CODE, CODE + code.len);
    if (fx->config->tc_bytes > 1u << 20)
        assert_int_equal(fx->cpu->stats.tu_translated, translated);
    run_fixture_free(fx);
}

/* Jump table, chain and pending return all lead into the page when the breakpoint is set. */
static void nothing_leads_around_a_breakpoint(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code callee = GUEST("inc eax; ret");
    const struct guest_code caller =
        GUEST("mov ecx, 20; mov ebx, 0x401000; 1: call ebx; push 0x401000; ret; 2: dec ecx; jnz 1b; ud2");

    (void)state;
    put_code(fx, CODE2, callee);
    put_code(fx, CODE, caller);
    for (unsigned round = 0; round < 3; round++) {
        reset_state(fx);
        fx->cpu->gpr[ESP] -= 64;
        put_u32(fx, STACK_START - 64, CODE + caller.len - 2); /* where the last RET goes */
        run_from(fx, CODE);
        assert_int_equal(fx->frame.vector, EXC_UD);
        arm(fx, 1, ON_FETCH, CODE2 + 1, 1);
        reset_state(fx);
        run_from(fx, CODE);
        expect_trap(fx, CODE2 + 1, 2);
        disarm(fx);
    }
    run_fixture_free(fx);
}

static void device_under_watch_is_read_once(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put_code(fx, CODE, GUEST("mov eax, [ebx]; nop; mov [ebx + 4], eax; nop; add dword ptr [ebx], 1; nop; ud2"));
    arm(fx, 0, ON_ACCESS, DEVICE, 4);
    arm(fx, 1, ON_WRITE, DEVICE + 4, 4);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DEVICE;
    run_from(fx, CODE);
    expect_trap(fx, CODE + 2, 1);
    assert_int_equal(fx->ndevice, 1);
    assert_int_equal(fx->frame.gpr[EAX], fx->device_value);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DEVICE;
    run_from(fx, CODE + 3);
    expect_trap(fx, CODE + 6, 2);
    assert_int_equal(fx->ndevice, 1);
    assert_true(fx->device[0].is_write);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DEVICE;
    run_from(fx, CODE + 7);
    expect_trap(fx, CODE + 10, 1);
    assert_int_equal(fx->ndevice, 2);
    assert_false(fx->device[0].is_write);
    assert_true(fx->device[1].is_write);
    run_fixture_free(fx);
}

/* A page of code under watch, which the code writes: the next instruction is the new one, after the trap. */
static void watched_code_is_still_traced(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        put_code(fx, CODE, GUEST("mov byte ptr [0x400007], 0x42; inc eax; ud2")); /* INC EDX */
        arm(fx, 0, ON_WRITE, CODE + 4, 4);
        reset_state(fx);
        run_from(fx, CODE);
        expect_trap(fx, CODE + 7, 1);
        reset_state(fx);
        uint32_t edx = fx->cpu->gpr[EDX];
        run_to(fx, CODE + 7, CODE + 8);
        assert_int_equal(fx->frame.gpr[EDX], edx + 1);
        disarm(fx);
    }
    run_fixture_free(fx);
}

/* The same for a page with a breakpoint on code. */
static void code_with_a_breakpoint_may_change(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    arm(fx, 0, ON_FETCH, CODE + 0x800, 1);
    for (unsigned round = 0; round < 2; round++) {
        put_code(fx, CODE, GUEST("mov byte ptr [0x400007], 0x42; inc eax; ud2"));
        reset_state(fx);
        uint32_t edx = fx->cpu->gpr[EDX];
        run_to(fx, CODE, CODE + 8);
        assert_int_equal(fx->frame.gpr[EDX], edx + 1);
    }
    run_fixture_free(fx);
}

/* The window of an address space that is not the present one must lose the page as well. */
static void page_is_watched_in_every_address_space(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    uint32_t space_a = fx->cpu->cr3;
    uint8_t directory[PAGE];

    (void)state;
    mmu_phys_read(fx->cpu->mmu, gpa(space_a), directory, PAGE);
    put(fx, SPARE, directory, PAGE);
    put_loop(fx);
    for (unsigned round = 0; round < 3; round++) {
        cost_of_loop(fx, DATA);
        fx->cpu->cr3 = SPARE;
        mmu_cr3_loaded(fx->cpu);
        cost_of_loop(fx, DATA);
        arm(fx, 3, ON_WRITE, DATA, 4);
        fx->cpu->cr3 = space_a;
        mmu_cr3_loaded(fx->cpu);
        reset_state(fx);
        fx->cpu->gpr[EBX] = DATA;
        run_from(fx, CODE);
        expect_trap(fx, CODE + 7, 8);
        disarm(fx);
    }
    run_fixture_free(fx);
}

/* Reads that meet a breakpoint are begun anew: an instruction with several accesses does each once. */
static void instruction_with_two_accesses_is_done_once(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put_code(fx, CODE, GUEST("push dword ptr [ebx]; pop dword ptr [ebx + 0x1000]; ud2"));
    arm(fx, 0, ON_ACCESS, DATA, 4);
    arm(fx, 1, ON_WRITE, DATA + PAGE, 1);
    put_u32(fx, DATA, 0x77);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DATA;
    run_from(fx, CODE);
    expect_trap(fx, CODE + 2, 1);
    assert_int_equal(fx->frame.gpr[ESP], STACK_START - 4);
    assert_int_equal(get_u32(fx, STACK_START - 4), 0x77);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DATA;
    fx->cpu->gpr[ESP] = STACK_START - 4;
    run_from(fx, CODE + 2);
    expect_trap(fx, CODE + 8, 2);
    assert_int_equal(fx->frame.gpr[ESP], STACK_START);
    assert_int_equal(get_u32(fx, DATA + PAGE), 0x77);
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_watched_page_costs),
        cmocka_unit_test(code_of_other_pages_runs_as_before),
        cmocka_unit_test(usual_translations_wait_for_the_end),
        cmocka_unit_test(nothing_leads_around_a_breakpoint),
        cmocka_unit_test(device_under_watch_is_read_once),
        cmocka_unit_test(watched_code_is_still_traced),
        cmocka_unit_test(code_with_a_breakpoint_may_change),
        cmocka_unit_test(page_is_watched_in_every_address_space),
        cmocka_unit_test(instruction_with_two_accesses_is_done_once),
    };

    if (!run_config_choose(argc, argv))
        return 2;
    return cmocka_run_group_tests_name("bt debug", tests, NULL, NULL);
}
