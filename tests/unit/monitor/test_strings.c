/*
 * String instructions: results against a plain model that moves one element at a time, and
 * the state that faults, yields and special pages leave behind.
 */
#include "callout_fixture.h"

#include "bt/sem/flags.h"

/* ---- a model: flat memory, one element at a time ------------------------------------------- */

struct model {
    uint8_t ram[RAM_BYTES];
    uint32_t eax, ecx, esi, edi, flags;
};

struct string_case {
    callout_fn *fn;
    unsigned size, asize, rep;
    bool down;
};

static uint32_t get(const struct model *m, uint32_t at, unsigned size)
{
    uint32_t v = 0;

    memcpy(&v, m->ram + at, size);
    return v;
}

static void step(uint32_t *reg, const struct string_case *c)
{
    uint32_t mask = c->asize == 2 ? 0xffff : UINT32_MAX;
    uint32_t value = c->down ? *reg - c->size : *reg + c->size;

    *reg = (*reg & ~mask) | (value & mask);
}

/* One element. @return whether a repeat prefix goes on. */
static bool model_element(struct model *m, const struct string_case *c)
{
    uint32_t mask = c->asize == 2 ? 0xffff : UINT32_MAX;
    uint32_t si = m->esi & mask, di = m->edi & mask;
    uint32_t a = 0, b = 0;
    bool compares = c->fn == callout_cmps || c->fn == callout_scas;

    if (c->fn == callout_movs)
        memmove(m->ram + di, m->ram + si, c->size);
    if (c->fn == callout_stos)
        memcpy(m->ram + di, &m->eax, c->size);
    if (c->fn == callout_lods)
        memcpy(&m->eax, m->ram + si, c->size);
    if (compares) {
        a = c->fn == callout_cmps ? get(m, si, c->size) : m->eax & sem_mask(c->size);
        b = get(m, di, c->size);
        m->flags = sem_flags_sub(a, b, c->size);
    }
    if (c->fn != callout_stos && c->fn != callout_scas)
        step(&m->esi, c);
    if (c->fn != callout_lods)
        step(&m->edi, c);
    if (c->rep != REP_NONE)
        m->ecx = (m->ecx & ~mask) | ((m->ecx - 1) & mask);
    return !compares || (a == b) == (c->rep == REP_F3);
}

static void model_run(struct model *m, const struct string_case *c)
{
    uint32_t mask = c->asize == 2 ? 0xffff : UINT32_MAX;

    if (c->rep == REP_NONE) {
        model_element(m, c);
        return;
    }
    while (m->ecx & mask)
        if (!model_element(m, c))
            break;
}

/* ---- random cases ------------------------------------------------------------------------------ */

static uint32_t random_of(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*seed >> 33);
}

/* Few byte values, so that comparisons go on for a while. */
static void fill(struct fixture *fx, uint64_t *seed)
{
    for (uint32_t i = 0x8000; i < 0x20000; i++)
        fx->ram[i] = (uint8_t)(random_of(seed) % 16 ? 0x41 : random_of(seed));
}

static void set_registers(struct vcpu *cpu, const struct string_case *c, uint64_t *seed)
{
    uint32_t base = c->asize == 2 ? 0x8000 : 0x10000, span = 0x4000;
    uint32_t upper = c->asize == 2 ? 0xabc70000u : 0;

    cpu->gpr[ESI] = upper | (base + 0x2000 + random_of(seed) % span);
    cpu->gpr[EDI] = upper | (base + 0x2000 + random_of(seed) % span);
    if (random_of(seed) % 2) /* near each other: overlap */
        cpu->gpr[EDI] = cpu->gpr[ESI] + random_of(seed) % 32 - 16;
    cpu->gpr[ECX] = upper | random_of(seed) % (random_of(seed) % 4 ? 40 : 0x1800 / c->size);
    cpu->gpr[EAX] = random_of(seed) % 2 ? 0x41414141 : random_of(seed);
    cpu->eflags_df = c->down;
    vcpu_arith_set(cpu, random_of(seed));
}

static void run_random_case(struct fixture *fx, struct model *m, uint64_t *seed)
{
    static callout_fn *const fns[] = { callout_movs, callout_stos, callout_lods, callout_cmps, callout_scas };
    struct vcpu *cpu = fx->cpu;
    struct string_case c = { .fn = fns[random_of(seed) % ARRAY_LEN(fns)],
                             .size = 1u << random_of(seed) % 3,
                             .asize = random_of(seed) % 4 ? 4 : 2,
                             .rep = random_of(seed) % 3,
                             .down = random_of(seed) % 2 };

    set_registers(cpu, &c, seed);
    memcpy(m->ram + 0x8000, fx->ram + 0x8000, 0x18000);
    m->eax = cpu->gpr[EAX];
    m->ecx = cpu->gpr[ECX];
    m->esi = cpu->gpr[ESI];
    m->edi = cpu->gpr[EDI];
    m->flags = vcpu_arith_get(cpu);
    model_run(m, &c);
    assert_int_equal(fx_call(fx, c.fn, ARG(.osize = c.size, .asize = c.asize, .rep = c.rep), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EAX], m->eax);
    assert_int_equal(cpu->gpr[ECX], m->ecx);
    assert_int_equal(cpu->gpr[ESI], m->esi);
    assert_int_equal(cpu->gpr[EDI], m->edi);
    assert_int_equal(vcpu_arith_get(cpu), m->flags);
    assert_memory_equal(fx->ram + 0x8000, m->ram + 0x8000, 0x18000);
}

static void results_match_the_model(void **state)
{
    struct fixture *fx = *state;
    static struct model m;
    uint64_t seed = 1;

    fx_paging(fx);
    for (unsigned i = 0; i < 8000; i++) {
        if (i % 100 == 0)
            fill(fx, &seed);
        if (i % 1000 == 500) /* some pages are code: stores to them take the slow way */
            mmu_trace_add(fx->cpu->mmu, gpa(0x12000 + (i / 1000 % 4) * 0x1000));
        run_random_case(fx, &m, &seed);
    }
    assert_int_equal(mmu_audit(fx->cpu->mmu), 0);
}

/* ---- faults ---------------------------------------------------------------------------------------- */

static void a_fault_leaves_registers_at_the_failing_element(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_paging(fx);
    fx_pte(fx, 0x9000, 0);
    memset(fx->ram + 0x4000, 0x5a, 0x1000);
    cpu->gpr[ESI] = 0x4000;
    cpu->gpr[EDI] = 0x8ffa; /* one doubleword fits, the next one crosses into the absent page */
    cpu->gpr[ECX] = 10;
    assert_int_equal(fx_call(fx, callout_movs, ARG(.rep = REP_F3), 0), EXIT_FAULT);
    assert_int_equal(cpu->fault.vector, EXC_PF);
    assert_int_equal(cpu->fault.error, PF_WR);
    assert_int_equal(cpu->fault.cr2, 0x9000);
    assert_int_equal(cpu->gpr[ECX], 9);
    assert_int_equal(cpu->gpr[ESI], 0x4004);
    assert_int_equal(cpu->gpr[EDI], 0x8ffe);
    assert_int_equal(cpu->eip, CODE_EIP);
    assert_int_equal(fx_get32(fx, 0x8ffa), 0x5a5a5a5a);
    assert_int_equal(fx_get32(fx, 0x8ffe), 0); /* no part of the failing element is stored */
    /* The page is there now: the instruction goes on where it was. */
    fx_pte(fx, 0x9000, 0x9000 | PTE_P | PTE_W | PTE_US);
    assert_int_equal(fx_call(fx, callout_movs, ARG(.rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[ECX], 0);
    assert_int_equal(cpu->gpr[EDI], 0x8ffa + 40);
}

static void the_source_faults_before_the_destination(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_pte(fx, 0x9000, 0);
    fx_pte(fx, 0xa000, 0);
    fx->cpu->gpr[ESI] = 0x9000;
    fx->cpu->gpr[EDI] = 0xa000;
    fx_expect_fault(fx, callout_movs, ARG(), 0, EXC_PF, 0);
    assert_int_equal(fx->cpu->fault.cr2, 0x9000);
    fx_expect_fault(fx, callout_cmps, ARG(), 0, EXC_PF, 0);
    assert_int_equal(fx->cpu->fault.cr2, 0x9000);
    fx_expect_fault(fx, callout_stos, ARG(), 0, EXC_PF, PF_WR);
    assert_int_equal(fx->cpu->fault.cr2, 0xa000);
}

static void user_code_may_not_touch_supervisor_pages(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_pte(fx, 0x9000, 0x9000 | PTE_P | PTE_W);
    fx_user_mode(fx);
    fx->cpu->gpr[EDI] = 0x9000;
    fx_expect_fault(fx, callout_stos, ARG(), 0, EXC_PF, PF_P | PF_WR | PF_US);
    fx_expect_fault(fx, callout_scas, ARG(), 0, EXC_PF, PF_P | PF_US);
}

/* SDM vol. 2B, "REP": after a fault in a repeated CMPS or SCAS, EFLAGS are those before it. */
static void a_fault_in_a_comparison_leaves_the_flags_of_before(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_paging(fx);
    fx_pte(fx, 0x9000, 0);
    cpu->gpr[ESI] = 0x4000;
    cpu->gpr[EDI] = 0x8ffc;
    cpu->gpr[ECX] = 2;
    vcpu_arith_set(cpu, EFL_CF | EFL_OF);
    assert_int_equal(fx_call(fx, callout_cmps, ARG(.rep = REP_F3), 0), EXIT_FAULT);
    assert_int_equal(vcpu_arith_get(cpu), EFL_CF | EFL_OF);
    assert_int_equal(cpu->gpr[ECX], 1);
    assert_int_equal(cpu->gpr[ESI], 0x4004);
}

static void a_segment_limit_stops_the_run_at_the_exact_element(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->segs[SEG_ES].limit = 0x8013;
    cpu->segs[SEG_ES].base = 0x100;
    vcpu_update_mode(cpu);
    cpu->gpr[EAX] = 0x01020304;
    cpu->gpr[EDI] = 0x8000;
    cpu->gpr[ECX] = 100;
    assert_int_equal(fx_call(fx, callout_stos, ARG(.rep = REP_F3), 0), EXIT_FAULT);
    assert_int_equal(cpu->fault.vector, EXC_GP);
    assert_int_equal(cpu->gpr[EDI], 0x8014);
    assert_int_equal(cpu->gpr[ECX], 95);
    assert_int_equal(fx_get32(fx, 0x8110), 0x01020304); /* the last one within the limit */
    assert_int_equal(fx_get32(fx, 0x8114), 0);
    cpu->eflags_df = 1; /* downwards the limit is met at once */
    fx_expect_fault(fx, callout_stos, ARG(.rep = REP_F3), 0, EXC_GP, 0);
}

static void the_source_takes_the_override_and_the_destination_never(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->segs[SEG_FS].base = 0x6000;
    cpu->segs[SEG_SS].limit = 0x10;
    vcpu_update_mode(cpu);
    fx_put32(fx, 0x6100, 0xfeedface);
    cpu->gpr[ESI] = 0x100;
    cpu->gpr[EDI] = 0x5000;
    assert_int_equal(fx_call(fx, callout_movs, ARG(SEG(SEG_FS)), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x5000), 0xfeedface);
    fx_expect_fault(fx, callout_lods, ARG(SEG(SEG_SS)), 0, EXC_SS, 0);
}

static void offsets_of_16_bits_wrap_within_the_segment(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_real_mode(fx);
    cpu->gpr[EAX] = 0x1111;
    cpu->gpr[EDI] = 0x7777fffc;
    cpu->gpr[ECX] = 0x88880004;
    assert_int_equal(fx_call(fx, callout_stos, ARG(.osize = 2, .asize = 2, .rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EDI], 0x77770004);
    assert_int_equal(cpu->gpr[ECX], 0x88880000);
    assert_int_equal(fx_get32(fx, 0), 0x11111111);
    assert_int_equal(fx_get32(fx, 0xfffc), 0x11111111);
    assert_int_equal(fx_get32(fx, 0x10000), 0);
    cpu->gpr[EDI] = 0xffff; /* a word across the end */
    fx_expect_fault(fx, callout_stos, ARG(.osize = 2, .asize = 2), 0, EXC_GP, 0);
}

/* ---- special pages ------------------------------------------------------------------------------------ */

static void devices_see_each_element_at_its_own_width(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gpr[EAX] = 0xaabbccdd;
    cpu->gpr[EDI] = MMIO_PA;
    cpu->gpr[ECX] = 3;
    assert_int_equal(fx_call(fx, callout_stos, ARG(.osize = 2, .rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(fx->nevents, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fx->event[i].kind, EV_MMIO_WRITE);
        assert_int_equal(fx->event[i].addr, MMIO_PA + 2 * i);
        assert_int_equal(fx->event[i].size, 2);
        assert_int_equal(fx->event[i].value, 0xccdd);
    }
    fx->nevents = 0;
    cpu->gpr[ESI] = MMIO_PA + 0x10;
    cpu->gpr[EDI] = 0x4000;
    cpu->gpr[ECX] = 2;
    assert_int_equal(fx_call(fx, callout_movs, ARG(.rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(fx->nevents, 2);
    assert_int_equal(fx_get32(fx, 0x4004), 0x17161514);
    fx->nevents = 0;
    cpu->gpr[ESI] = MMIO_PA;
    cpu->gpr[ECX] = 5;
    assert_int_equal(fx_call(fx, callout_lods, ARG(.osize = 1, .rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(fx->nevents, 5); /* a device is read as often as the guest asks */
    assert_int_equal(cpu->gpr[EAX], 0xaabbcc04);
}

static void traced_pages_report_every_byte_in_few_stores(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    uint32_t bytes = 0;

    mmu_trace_add(cpu->mmu, gpa(0x5000));
    memset(fx->ram + 0x4000, 0x33, 0x1000);
    cpu->gpr[ESI] = 0x4000;
    cpu->gpr[EDI] = 0x5000;
    cpu->gpr[ECX] = 0x400;
    assert_int_equal(fx_call(fx, callout_movs, ARG(.rep = REP_F3), 0), EXIT_RESUME);
    assert_memory_equal(fx->ram + 0x5000, fx->ram + 0x4000, 0x1000);
    cpu->gpr[EDI] = 0x5000;
    cpu->gpr[ECX] = 0x400;
    cpu->gpr[EAX] = 0x44444444;
    assert_int_equal(fx_call(fx, callout_stos, ARG(.rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x5ffc), 0x44444444);
    for (unsigned i = 0; i < fx->nevents; i++) {
        assert_int_equal(fx->event[i].kind, EV_TRACED);
        bytes += fx->event[i].size;
    }
    assert_int_equal(bytes, 0x2000);
    assert_in_range(fx->nevents, 2, 40);
}

/* A store to a traced page that feeds its own source must go element by element. */
static void overlapping_copies_within_a_traced_page_propagate(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    mmu_trace_add(cpu->mmu, gpa(0x5000));
    fx->ram[0x5000] = 0x99;
    cpu->gpr[ESI] = 0x5000;
    cpu->gpr[EDI] = 0x5001;
    cpu->gpr[ECX] = 100;
    assert_int_equal(fx_call(fx, callout_movs, ARG(.osize = 1, .rep = REP_F3), 0), EXIT_RESUME);
    for (unsigned i = 0; i <= 100; i++)
        assert_int_equal(fx->ram[0x5000 + i], 0x99);
}

static void two_mappings_of_one_page_overlap_as_one(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_paging(fx);
    fx_pte(fx, 0x9000, 0x5000 | PTE_P | PTE_W | PTE_US);
    fx->ram[0x5000] = 0x77;
    cpu->gpr[ESI] = 0x5000;
    cpu->gpr[EDI] = 0x9001;
    cpu->gpr[ECX] = 0x800;
    assert_int_equal(fx_call(fx, callout_movs, ARG(.osize = 1, .rep = REP_F3), 0), EXIT_RESUME);
    for (unsigned i = 0; i <= 0x800; i++)
        assert_int_equal(fx->ram[0x5000 + i], 0x77);
}

/* ---- making way --------------------------------------------------------------------------------------- */

static void an_interrupt_request_ends_the_run_at_a_page_and_loses_nothing(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    unsigned calls = 1;

    cpu->run = 0;
    cpu->gpr[EAX] = 0x12;
    cpu->gpr[EDI] = 0x4000;
    cpu->gpr[ECX] = 0x8000;
    while (fx_call(fx, callout_stos, ARG(.osize = 1, .rep = REP_F3), 0) == EXIT_DISPATCH) {
        assert_int_equal(cpu->eip, CODE_EIP);
        assert_int_equal(cpu->gpr[EDI], 0x4000 + calls * 0x1000);
        calls++;
    }
    assert_int_equal(calls, 8);
    assert_int_equal(cpu->gpr[ECX], 0);
    assert_int_equal(fx->ram[0xbfff], 0x12);
}

static void a_count_of_zero_does_nothing_and_touches_nothing(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    static callout_fn *const fns[] = { callout_movs, callout_stos, callout_lods, callout_cmps, callout_scas };

    fx_paging(fx);
    cpu->gpr[ESI] = cpu->gpr[EDI] = 0x80000000; /* not mapped */
    vcpu_arith_set(cpu, EFL_ZF | EFL_CF);
    for (size_t i = 0; i < ARRAY_LEN(fns); i++)
        assert_int_equal(fx_call(fx, fns[i], ARG(.rep = REP_F2), 0), EXIT_RESUME);
    assert_int_equal(vcpu_arith_get(cpu), EFL_ZF | EFL_CF);
}

static void addresses_wrap_at_4_gib(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_paging(fx);
    fx_put32(fx, ROOT_PA + 0xffc, TABLE_PA | PTE_P | PTE_W | PTE_US); /* the last 4 MiB as the first */
    fx_pte(fx, 0x3ff000, 0x6000 | PTE_P | PTE_W | PTE_US);
    cpu->gpr[EAX] = 0xcc;
    cpu->gpr[EDI] = 0xfffffffeu;
    cpu->gpr[ECX] = 4;
    assert_int_equal(fx_call(fx, callout_stos, ARG(.osize = 1, .rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EDI], 2);
    assert_int_equal(fx->ram[0x6fff], 0xcc);
    assert_int_equal(fx->ram[1], 0xcc);
    assert_int_equal(fx->ram[2], 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(results_match_the_model),
        TEST(a_fault_leaves_registers_at_the_failing_element),
        TEST(the_source_faults_before_the_destination),
        TEST(user_code_may_not_touch_supervisor_pages),
        TEST(a_fault_in_a_comparison_leaves_the_flags_of_before),
        TEST(a_segment_limit_stops_the_run_at_the_exact_element),
        TEST(the_source_takes_the_override_and_the_destination_never),
        TEST(offsets_of_16_bits_wrap_within_the_segment),
        TEST(devices_see_each_element_at_its_own_width),
        TEST(traced_pages_report_every_byte_in_few_stores),
        TEST(overlapping_copies_within_a_traced_page_propagate),
        TEST(two_mappings_of_one_page_overlap_as_one),
        TEST(an_interrupt_request_ends_the_run_at_a_page_and_loses_nothing),
        TEST(a_count_of_zero_does_nothing_and_touches_nothing),
        TEST(addresses_wrap_at_4_gib),
    };

    return cmocka_run_group_tests_name("callout strings", tests, NULL, NULL);
}
