/*
 * Control flow at scale: the shadow return stack over its ends, stacks that change under it,
 * eviction while returns are pending, chains and what they save, the reach of short branches
 * to slow paths.
 */
#include <string.h>

#include "bt/bt.h"
#include "tests/unit/bt/run_fixture.h"

#define DEEP_STACK_END 0x800000 /* SPARE to here is mapped: 1.5 MiB */
#define OTHER_STACK    0x700000
#define CHURN          0x7c0000 /* code that fills the cache */
#define CHURN_BLOCKS   4000

static void map_spare(struct run_fixture *fx)
{
    for (uint32_t va = SPARE; va < DEEP_STACK_END; va += 0x1000)
        vm_fixture_map(fx->vm, va, PTE_P | PTE_W | PTE_US);
}

static void zero_counters(struct run_fixture *fx)
{
    reset_state(fx);
    fx->cpu->gpr[EAX] = fx->cpu->gpr[EDX] = 0;
    fx->cpu->gpr[EBX] = DATA;
}

/* ---- the shadow return stack ------------------------------------------------------------------- */

static void recursion_far_deeper_than_the_shadow_stack(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_spare(fx);
    for (int round = 0; round < 2; round++) {
        zero_counters(fx);
        fx->cpu->gpr[ESP] = DEEP_STACK_END;
        run_code(fx,
                 GUEST("mov ecx, 100000; call 1f; jmp 3f; 1: dec ecx; jz 2f; call 1b; 2: inc eax; ret; 3:"));
        assert_int_equal(fx->frame.gpr[EAX], 100000);
        assert_int_equal(fx->frame.gpr[ESP], DEEP_STACK_END);
    }
    run_fixture_free(fx);
}

/* Slow paths and callouts use the shadow stack, too: they meet its end as well as calls do. */
static void slow_paths_at_every_depth(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_spare(fx);
    zero_counters(fx);
    fx->cpu->gpr[ESP] = DEEP_STACK_END;
    run_code(fx, GUEST("mov ecx, 20000; call 1f; jmp 3f; 1: inc dword ptr [ebx + 0xffe]; pushf; popf; .byte "
                       "0xd6; dec ecx;"
                       "jz 2f; call 1b; 2: aam; inc edx; ret; 3:"));
    assert_int_equal(fx->frame.gpr[EDX], 20000);
    run_fixture_free(fx);
}

static void many_more_returns_than_calls(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_spare(fx);
    for (int round = 0; round < 2; round++) {
        zero_counters(fx);
        fx->cpu->gpr[ESP] = DEEP_STACK_END;
        run_code(fx, GUEST("push " STR(CODE) " + 3f - 771b; mov ecx, 20000; 1: push " STR(
                         CODE) " + 2f - 771b; loop 1b; ret;"
                               "2: inc eax; ret; 3:"));
        assert_int_equal(fx->frame.gpr[EAX], 20000);
    }
    run_fixture_free(fx);
}

static void two_stacks_with_a_thousand_returns_each(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_spare(fx);
    for (int round = 0; round < 3; round++) {
        zero_counters(fx);
        fx->cpu->gpr[ESP] = DEEP_STACK_END;
        put_u32(fx, DATA, OTHER_STACK - 4);
        /* 1: the recursion, which changes stacks at its bottom; 4: the change; 5: where the other begins */
        run_code(fx, GUEST("mov dword ptr ds:[" STR(OTHER_STACK) " - 4], " STR(
                         CODE) " + 5f - 771b; mov ecx, 1000; call 1f;"
                               "call 4f; jmp 6f;"
                               "5: mov ecx, 1000; call 1f; call 4f; ud2;"
                               "1: dec ecx; jz 2f; call 1b; inc eax; ret; 2: call 4f; inc eax; ret;"
                               "4: xchg esp, [ebx]; ret; 6:"));
        assert_int_equal(fx->frame.gpr[EAX], 2000);
        assert_int_equal(fx->frame.gpr[ESP], DEEP_STACK_END);
    }
    run_fixture_free(fx);
}

static void returns_that_skip_frames(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 2; round++) {
        zero_counters(fx);
        /* longjmp: 500 times, five calls deep, straight back to the top */
        run_code(
            fx,
            GUEST(
                "mov edi, 500; 1: mov esi, esp; mov ecx, 5; call 2f; jmp 9f; 2: dec ecx; jz 3f; call 2b; ud2;"
                "3: lea esp, [esi - 4]; inc eax; ret; 9: dec edi; jnz 1b"));
        assert_int_equal(fx->frame.gpr[EAX], 500);
        assert_int_equal(fx->frame.gpr[ESP], STACK_START);
    }
    run_fixture_free(fx);
}

static void retpolines_by_the_thousand(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 2; round++) {
        zero_counters(fx);
        run_code(
            fx, GUEST("mov ecx, 2000; mov esi, " STR(CODE) " + 4f - 771b; mov edi, " STR(
                    CODE) " + 5f - 771b;"
                          "1: push " STR(
                              CODE) " + 6f - 771b; call 2f; 3: pause; lfence; jmp 3b; 2: mov [esp], esi; ret;"
                                    "4: inc eax; ret; 5: inc edx; ret; 6: xchg esi, edi; loop 1b"));
        assert_int_equal(fx->frame.gpr[EAX], 1000);
        assert_int_equal(fx->frame.gpr[EDX], 1000);
    }
    run_fixture_free(fx);
}

/* ---- eviction ------------------------------------------------------------------------------------- */

/* Blocks of INC EDX; JMP to the next, and a RET behind the last. */
static void put_churn(struct run_fixture *fx, uint8_t seed)
{
    static uint8_t code[CHURN_BLOCKS * 16 + 1];

    memset(code, 0x90, sizeof code);
    for (unsigned i = 0; i < CHURN_BLOCKS; i++) {
        code[i * 16] = 0x42;
        code[i * 16 + 1] = seed;
        code[i * 16 + 2] = 0xeb;
        code[i * 16 + 3] = 12;
    }
    code[CHURN_BLOCKS * 16] = 0xc3;
    put(fx, CHURN, code, sizeof code);
}

static void eviction_under_a_thousand_pending_returns(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_spare(fx);
    for (unsigned round = 0; round < 4; round++) {
        put_churn(fx, round & 1 ? 0x90 : 0xf8);
        zero_counters(fx);
        fx->cpu->gpr[ESP] = OTHER_STACK;
        fx->cpu->gpr[ESI] = CHURN;
        run_code(fx, GUEST("mov ecx, 1000; call 1f; jmp 3f; 1: dec ecx; jz 2f; call 1b; inc eax; ret; 2: "
                           "call esi; inc eax;"
                           "ret; 3:"));
        assert_int_equal(fx->frame.gpr[EAX], 1000);
        assert_int_equal(fx->frame.gpr[EDX], CHURN_BLOCKS);
    }
    if (fx->config->tc_bytes < 1u << 20)
        assert_true(fx->cpu->stats.tc_evict_region > 4);
    run_fixture_free(fx);
}

static void translations_are_dropped_while_returns_are_pending(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_spare(fx);
    zero_counters(fx);
    fx->cpu->gpr[ESP] = OTHER_STACK;
    /* The bottom of each recursion changes the code that all returns lead to. */
    run_code(
        fx,
        GUEST("mov edi, 20; 0: mov ecx, 300; call 1f; dec edi; jnz 0b; jmp 3f; 1: dec ecx; jz 2f; call 1b;"
              "4: add eax, 0; ret; 2: inc byte ptr ds:[" STR(CODE) " + 4b - 771b + 2]; ret; 3:"));
    assert_int_equal(fx->frame.gpr[EAX], 299 * (20 * 21 / 2));
    run_fixture_free(fx);
}

/* ---- chains ---------------------------------------------------------------------------------------- */

static uint64_t exits_of(struct run_fixture *fx, struct guest_code code, uint32_t count)
{
    zero_counters(fx);
    fx->cpu->gpr[ECX] = 10;
    run_code(fx, code); /* translated, chained, tables filled */
    zero_counters(fx);
    fx->cpu->gpr[ECX] = count;
    fx->cpu->gpr[ESI] = CODE + 0x2000;
    uint64_t before = fx->cpu->stats.exit_total;
    fx->cpu->eip = CODE;
    run_to(fx, CODE, CODE + code.len);
    return fx->cpu->stats.exit_total - before;
}

static void chained_code_stays_in_the_cache(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const uint32_t n = 20000;
    const uint64_t few = 300; /* the host's timer may end a run now and then */
    bool chain = run_config()->chain;

    (void)state;
    uint64_t loop = exits_of(fx, GUEST("1: jmp 2f; 3: loop 1b; jmp 4f; 2: inc eax; jmp 3b; 4:"), n);
    assert_int_equal(fx->frame.gpr[EAX], n);
    assert_true(chain ? loop < few && fx->cpu->stats.chain > 0 : loop > n && fx->cpu->stats.chain == 0);

    uint64_t calls = exits_of(fx, GUEST("1: call 2f; loop 1b; jmp 3f; 2: inc eax; ret; 3:"), n);
    assert_true(chain ? calls < few : calls > n);

    /* the table serves these, chained or not, but for the loop's own branch */
    put(fx, CODE + 0x2000, "\x40\xc3", 2);
    uint64_t indirect = exits_of(fx, GUEST("mov esi, " STR(CODE) " + 0x2000; 1: call esi; loop 1b"), n);
    assert_true(chain ? indirect < few : indirect < 2 * n + few + (run_config()->max_insns == 1 ? 2 * n : 0));
    run_fixture_free(fx);
}

static void loop_across_pages_goes_by_the_table(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code code =
        GUEST("1: jmp 2f; 3: loop 1b; jmp 4f; .skip 0x1200, 0x90; 2: inc eax; jmp 3b; 4:");

    (void)state;
    uint64_t exits = exits_of(fx, code, 20000);
    assert_int_equal(fx->frame.gpr[EAX], 20000);
    if (run_config()->chain)
        assert_true(exits < 300);
    run_fixture_free(fx);
}

/* ---- short branches to slow paths ---------------------------------------------------------------------- */

static void island_state(struct run_fixture *fx, uint32_t end)
{
    struct vcpu *cpu = fx->cpu;

    reset_state(fx);
    cpu->gpr[EBX] = cpu->gpr[ESI] = DATA;
    cpu->gpr[EDI] = DATA + 0x800;
    cpu->gpr[ECX] = CODE + 0x100;
    cpu->gpr[EDX] = 0;
    vm_fixture_load_segment(fx->vm, SEG_FS, SEL_BASED);
    vm_fixture_enter(fx->vm);
    put_u32(fx, DATA, 0x20);
    put_u32(fx, DATA + 0x800, CODE + 0x100);
    put_u32(fx, DATA + 0x1800, CODE + 0x100);
    put_u32(fx, DATA + 0x804, CODE + end);
    put_u32(fx, DATA + 0x808, 0);
    mmu_flush_all(cpu);
}

/*
 * Each access leaves by a branch of 8 bits to an island of jumps. Any distance between two
 * accesses, and every kind of instruction at the end of the TU, must keep the islands within
 * reach. The tables are empty, so that each branch is taken; the verifier looks on.
 */
static void islands_stay_within_reach(void **state)
{
    const struct guest_code last[] = {
        GUEST("call ecx"),
        GUEST("call [edi]"),
        GUEST("call [edi + 0x1000]; nop"),
        GUEST("jmp [edi + 4]; nop; nop"),
        GUEST("push dword ptr [edi + 0x100]"),
        GUEST("pop dword ptr [edi + 0x100]"),
        GUEST("movsd"),
        GUEST("cmpsd"),
        GUEST("call 1f; 1:"),
        GUEST("loop 1f; 1:"),
        GUEST("jecxz 1f; 1:"),
        GUEST("jz 1f; 1:"),
        GUEST("pushf; popf"),
        GUEST("bts [esi + 0x1000], eax"),
        GUEST("cmpxchg8b [esi + 0x1000]"),
        GUEST("mov [esi + edi*1 - " STR(DATA) "], ch"),
        GUEST("maskmovq mm0, mm0"),
        GUEST("mov fs:[edx*8 + 0x1000], edx"),
        GUEST("push dword ptr fs:[edx*8 + 0x1000]"),
        GUEST("aam"),
        GUEST("std; cld"),
        GUEST("shl dword ptr fs:[edx + 0x1000], cl"),
        GUEST("add dword ptr [esi + 0x1000], 0x12345678"),
        GUEST("call word ptr [edi + 8]"),
        GUEST(".byte 0xd6; lahf; sahf"),
        GUEST("mov esp, esp; call ecx; push eax"),
    };
    struct run_fixture *fx = run_fixture_new();
    static const uint8_t inc_ret[] = { 0x42, 0xc3 };

    (void)state;
    for (unsigned pad = 0; pad <= 48; pad++)
        for (size_t i = 0; i < ARRAY_LEN(last); i++) {
            uint8_t code[80] = { 0x8b, 0x03 }; /* mov eax, [ebx] */
            uint32_t n = 2 + pad;
            memset(code + 2, 0x90, pad);
            memcpy(code + n, last[i].bytes, last[i].len);
            n += last[i].len;
            memcpy(code + n, pad % 2 ? "\x0f\x0b" : "\x0f\x04", 2); /* UD2, and what nothing decodes */
            put(fx, CODE, code, n + 2);
            put(fx, CODE + 0x100, inc_ret, 2);
            for (int form = 0; form < 2; form++) { /* what follows is translated already, or not */
                island_state(fx, n);
                if (form == 0)
                    run_to(fx, CODE + n, CODE + n);
                island_state(fx, n);
                run_from(fx, CODE);
                bool is_word_call = i == ARRAY_LEN(last) - 3;
                if (fx->frame.vector != (is_word_call ? EXC_PF : EXC_UD))
                    fail_msg("%zu after %u: vector %u at 0x%x", i, pad, fx->frame.vector, fx->frame.eip);
                if (!is_word_call)
                    assert_int_equal(fx->frame.eip, CODE + n);
            }
        }
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recursion_far_deeper_than_the_shadow_stack),
        cmocka_unit_test(slow_paths_at_every_depth),
        cmocka_unit_test(many_more_returns_than_calls),
        cmocka_unit_test(two_stacks_with_a_thousand_returns_each),
        cmocka_unit_test(returns_that_skip_frames),
        cmocka_unit_test(retpolines_by_the_thousand),
        cmocka_unit_test(eviction_under_a_thousand_pending_returns),
        cmocka_unit_test(translations_are_dropped_while_returns_are_pending),
        cmocka_unit_test(chained_code_stays_in_the_cache),
        cmocka_unit_test(loop_across_pages_goes_by_the_table),
        cmocka_unit_test(islands_stay_within_reach),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
