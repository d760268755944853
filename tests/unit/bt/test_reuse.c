/*
 * Code that runs at more than one address: its translations are copied, and what depends on EIP is right in the
 * copies. The fixture has verify=on, so each copy is also compared with a translation.
 */
#include <string.h>

#include "bt/bt_internal.h"
#include "tests/unit/bt/run_fixture.h"

#define ALIAS   0x6c0000u /* VA pages that nobody has */
#define USER_RW (PTE_P | PTE_W | PTE_US)

static void alias_code(struct run_fixture *fx, uint32_t va)
{
    for (uint32_t i = 0; i < CODE_PAGES; i++)
        map_alias(fx, va + i * GUEST_PAGE_SIZE, CODE + i * GUEST_PAGE_SIZE, USER_RW);
}

static void run_at(struct run_fixture *fx, uint32_t va, uint32_t len)
{
    reset_state(fx);
    run_to(fx, va, va + len - 2); /* the UD2 behind it */
}

/* EIP where the guest can see it: what CALL pushes, near and through a register; the pointer that FNSTENV stores;
 * returns, loops, conditional branches either way; stores that miss, so that slow paths run. */
static const struct guest_code *sees_eip(void)
{
    static struct guest_code code;

    code = GUEST("call 1f; 1: pop eax; lea edx, [eax + 2f - 1b]; call edx; jmp 3f;"
                 "2: mov ebx, [esp]; mov dword ptr [" STR(DATA) "], ebx; ret;"
                 "3: fninit; fld1; mov esi, " STR(DATA) "; fst dword ptr [esi + 0x40]; fnstenv [esi + 0x100];"
                 "mov edi, [esi + 0x10c]; mov ecx, 9; 4: call 5f; loop 4b; jmp 6f;"
                 "5: inc dword ptr [esi + 0x80]; test ecx, 1; jz 7f; add dword ptr [esi + 0x84], ecx; 7: ret; 6: ud2");
    return &code;
}

static void code_at_another_address_is_copied(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code *code = sees_eip();
    /* no CCF is evicted, or given up because it misses the window */
    bool is_steady = run_config()->tc_bytes > TCACHE_MIN_BYTES && run_config()->mem != MEM_WINDOW;
    const uint32_t aliases[] = { ALIAS, ALIAS + 0x11000, ALIAS - 0x7000, ALIAS };

    (void)state;
    put_code(fx, CODE, *code);
    run_at(fx, CODE, code->len);
    uint32_t eax = fx->frame.gpr[EAX] - CODE, ebx = fx->frame.gpr[EBX] - CODE, edi = fx->frame.gpr[EDI] - CODE;
    assert_true(eax < code->len && ebx < code->len && edi < code->len && eax != ebx);
    for (unsigned i = 0; i < ARRAY_LEN(aliases); i++) {
        uint64_t translated = fx->cpu->stats.tu_translated, reused = fx->cpu->stats.tu_reused;

        alias_code(fx, aliases[i]);
        for (uint32_t at = 0; at < 0x200; at += 4)
            put_u32(fx, DATA + at, 0);
        run_at(fx, aliases[i], code->len);
        assert_int_equal(fx->frame.gpr[EAX], aliases[i] + eax);
        assert_int_equal(fx->frame.gpr[EBX], aliases[i] + ebx);
        assert_int_equal(fx->frame.gpr[EDI], aliases[i] + edi);
        assert_int_equal(get_u32(fx, DATA), aliases[i] + ebx);
        assert_int_equal(get_u32(fx, DATA + 0x80), 9);
        assert_int_equal(get_u32(fx, DATA + 0x84), 9 + 7 + 5 + 3 + 1);
        if (is_steady)
            assert_int_equal(fx->cpu->stats.tu_translated, translated);
        assert_true(i == 3 || fx->cpu->stats.tu_reused > reused);
        assert_int_equal(tcache_audit(fx->cpu->tc), 0);
    }
    run_fixture_free(fx);
}

/* A fault in a copy names the copy's EIP. */
static void faults_in_a_copy_are_at_its_address(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code code = GUEST("mov eax, 1; mov ebx, " STR(SPARE) "; add eax, 2; mov [ebx], eax; inc eax");
    uint32_t fault = code.len - 3;

    (void)state;
    put_code(fx, CODE, code);
    alias_code(fx, ALIAS);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t base = i & 1 ? ALIAS : CODE;

        reset_state(fx);
        run_from(fx, base);
        assert_int_equal(fx->frame.vector, EXC_PF);
        assert_int_equal(fx->frame.eip, base + fault);
        assert_int_equal(fx->frame.gpr[EAX], 3);
    }
    assert_true(fx->cpu->stats.tu_reused > 0);
    run_fixture_free(fx);
}

/* Code that stores to itself at one address, having been copied to another one. */
static void a_store_ends_the_copies(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code code = GUEST("xor eax, eax; inc eax; inc eax; inc eax; ud2");

    (void)state;
    put_code(fx, CODE, code);
    alias_code(fx, ALIAS);
    alias_code(fx, ALIAS + 0x8000);
    run_at(fx, CODE, code.len);
    run_at(fx, ALIAS, code.len);
    for (uint32_t i = 0; i < 3; i++) {
        uint8_t dec = (uint8_t)(0x48 + (i == 1 ? EDX : EAX)); /* DEC EAX or EDX for one of the INC */
        uint32_t want = i == 0 ? 1 : i == 1 ? 0 : 0u - 2;

        mmu_phys_write(fx->cpu->mmu, gpa(CODE + 2 + i), &dec, 1);
        bt_code_written(fx->cpu, gpa(CODE + 2 + i), 1);
        run_at(fx, ALIAS + 0x8000, code.len);
        assert_int_equal(fx->frame.gpr[EAX], want);
        run_at(fx, i & 1 ? CODE : ALIAS, code.len);
        assert_int_equal(fx->frame.gpr[EAX], want);
    }
    run_fixture_free(fx);
}

/* As if another program ran in the address space that was another's. */
static void next_program(struct run_fixture *fx)
{
    mmu_cr3_loaded(fx->cpu);
}

static void count_report(void *ctx, struct vcpu *cpu, const struct ccf *ccf)
{
    (void)cpu;
    assert_true(ccf->live);
    ++*(uint64_t *)ctx;
}

/* The page that was run at one VA is run at another one under the same CR3, and no more at the first: its CCFs go
 * with it, with their chains; those in two pages, too. */
static void code_of_an_ended_program_moves(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code *code = sees_eip();
    const uint32_t start = GUEST_PAGE_SIZE - 0x21; /* an instruction lies in two pages */
    const uint32_t bases[] = { CODE, ALIAS, ALIAS + 0x10000, CODE, ALIAS, ALIAS + 0x10000 };
    const struct stats *stats = &fx->cpu->stats;
    uint64_t reports = 0, made_before = stats->tu_translated + stats->tu_reused + stats->tu_moved;
    uint32_t eax = 0;

    (void)state;
    fx->cpu->bt->ops.translated = count_report;
    fx->cpu->bt->ops.ctx = &reports;
    put_code(fx, CODE + start, *code);
    alias_code(fx, ALIAS);
    alias_code(fx, ALIAS + 0x10000);
    for (unsigned i = 0; i < ARRAY_LEN(bases); i++) {
        uint64_t moved = fx->cpu->stats.tu_moved, reused = fx->cpu->stats.tu_reused;

        put_u32(fx, DATA + 0x80, 0);
        run_at(fx, bases[i] + start, code->len);
        eax = i ? eax : fx->frame.gpr[EAX] - CODE;
        assert_int_equal(fx->frame.gpr[EAX], bases[i] + eax);
        assert_int_equal(get_u32(fx, DATA + 0x80), 9);
        if (i && run_config()->tc_bytes > TCACHE_MIN_BYTES)
            assert_true(fx->cpu->stats.tu_moved > moved);
        if (i > 1 && run_config()->mem != MEM_WINDOW && run_config()->tc_bytes > TCACHE_MIN_BYTES)
            assert_int_equal(fx->cpu->stats.tu_reused, reused);
        assert_int_equal(reports, stats->tu_translated + stats->tu_reused + stats->tu_moved - made_before);
        assert_int_equal(tcache_audit(fx->cpu->tc), 0);
        next_program(fx);
    }
    run_fixture_free(fx);
}

/* Two addresses of one program, both in use: what one took is made again for the other, and a loop of one calls
 * the other. */
static void code_at_two_addresses_of_one_program(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code code = GUEST("mov ecx, 50; xor eax, eax; mov edx, ebx; add edx, 3f - 771b;"
                                         "1: call 3f; call edx; loop 1b; jmp 4f; 3: inc eax; ret; 4: ud2");

    (void)state;
    put_code(fx, CODE, code);
    alias_code(fx, ALIAS);
    for (unsigned round = 0; round < 8; round++) {
        uint32_t here = round & 1 ? ALIAS : CODE;

        reset_state(fx);
        fx->cpu->gpr[EBX] = round & 2 ? CODE : ALIAS;
        run_to(fx, here, here + code.len - 2);
        assert_int_equal(fx->frame.gpr[EAX], 100);
        assert_int_equal(tcache_audit(fx->cpu->tc), 0);
        next_program(fx);
    }
    run_fixture_free(fx);
}

/* In the lowest page displacements that hold an EIP may be short, and 16-bit targets know no page. */
static void what_cannot_be_copied_is_translated(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct guest_code code = GUEST("xor eax, eax; call 1f; jmp 2f; 1: inc eax; ret; 2: ud2");

    (void)state;
    put_code(fx, CODE, code);
    run_at(fx, CODE, code.len);
    map_alias(fx, 0, CODE, USER_RW);
    uint64_t reused = fx->cpu->stats.tu_reused;
    run_at(fx, 0, code.len);
    assert_int_equal(fx->frame.gpr[EAX], 1);
    assert_int_equal(fx->cpu->stats.tu_reused, reused);
    fx->cpu->bt->opt.reuse = false;
    alias_code(fx, ALIAS);
    run_at(fx, ALIAS, code.len);
    assert_int_equal(fx->frame.gpr[EAX], 1);
    assert_int_equal(fx->cpu->stats.tu_reused, reused);
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_at_another_address_is_copied),
        cmocka_unit_test(faults_in_a_copy_are_at_its_address),
        cmocka_unit_test(a_store_ends_the_copies),
        cmocka_unit_test(code_of_an_ended_program_moves),
        cmocka_unit_test(code_at_two_addresses_of_one_program),
        cmocka_unit_test(what_cannot_be_copied_is_translated),
    };

    if (!run_config_choose(argc, argv))
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
