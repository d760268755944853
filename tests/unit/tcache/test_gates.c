/*
 * Random sequences of what gates and their versions go through, against guest memory of the test's own: made,
 * parked, put back, patched, forgotten, evicted, with and without the bytes they were made from, among CCFs that
 * share their bytes. After each step whatever is live is what memory holds, and the audit finds nothing.
 *
 * VMM_SEED=n runs another sequence.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/tcache/fixture.h"

#define PLACES       24u /* where instructions change                         */
#define PAGES        3u
#define INSN_BYTES   5u
#define PLAIN_BYTES  12u /* of the CCFs that are no versions                  */
#define CONST_AT     40u /* where the code holds the constant                 */
#define STEPS        20000u
#define MAX_VERSIONS 4u

struct gates {
    struct tc_fixture *fx;
    uint8_t mem[PAGES][GUEST_PAGE_SIZE];
    uint64_t seed;
    int listed[PAGES]; /* live CCFs that keep the page traced */
};

static uint32_t pick(struct gates *g, uint32_t n)
{
    g->seed ^= g->seed << 13;
    g->seed ^= g->seed >> 7;
    g->seed ^= g->seed << 17;
    return (uint32_t)(g->seed >> 32) % n;
}

/* Neighbours share bytes. Pages 1 and 2 have places. */
static uint64_t place_pa(uint32_t place)
{
    return (uint64_t)(1 + place % 2) << GUEST_PAGE_SHIFT | (0x100 + place / 2 * 4);
}

static uint8_t *memory_at(struct gates *g, uint64_t pa)
{
    return &g->mem[pa >> GUEST_PAGE_SHIFT][pa & GUEST_PAGE_MASK];
}

static struct ccf *find(struct gates *g, uint64_t pa)
{
    return tc_find(g->fx, pa, (uint32_t)pa);
}

static struct ccf_wish wish_at(struct gates *g, uint64_t pa, uint32_t len)
{
    struct ccf_wish w = { .pa = pa,
                          .eip = (uint32_t)pa,
                          .guest_len = len,
                          .nlinks = 2,
                          .hot_bytes = 60 + pick(g, 200),
                          .cold_bytes = pick(g, 100) };

    for (unsigned i = 0; i < w.nlinks; i++)
        w.poll[i] = pick(g, 2);
    switch (pick(g, 4)) {
    case 0: /* as on a traced page */
        break;
    case 1: /* as on a patched one */
        w.nconsts = 1;
        w.consts[0] = (struct ccf_const){ .guest_ofs = 1, .len = 2, .host_len = 2, .host_ofs = CONST_AT };
        /* fall through */
    default:
        w.source = memory_at(g, pa);
    }
    return w;
}

static struct ccf *gate_at(struct gates *g, uint64_t pa)
{
    struct ccf *c = find(g, pa);

    if (c)
        return c->is_gate ? c : NULL;
    return tc_make(g->fx, &(struct ccf_wish){ .pa = pa, .eip = (uint32_t)pa, .guest_len = 1, .is_gate = true, .nlinks = 1 });
}

static struct ccf *parked_with(struct gates *g, const struct ccf *gate, uint64_t pa)
{
    for (struct ccf *v = gate->versions; v; v = v->versions)
        if (v->source && memcmp(v->source, memory_at(g, pa), v->guest_len) == 0)
            return v;
    return NULL;
}

/* Pass the gate, as bt does: what is there now comes back, or is made; that may take the gate itself. */
static void step_enter(struct gates *g)
{
    uint64_t pa = place_pa(pick(g, PLACES));
    struct ccf *gate = gate_at(g, pa), *version;

    if (!gate || gate->links[0].to)
        return;
    struct ccf *expected = parked_with(g, gate, pa);
    version = tcache_gate_open(g->fx->tc, gate, memory_at(g, pa), GUEST_PAGE_SIZE - ((uint32_t)pa & GUEST_PAGE_MASK));
    assert_ptr_equal(version, expected);
    if (!version) {
        struct ccf_wish w = wish_at(g, pa, INSN_BYTES);
        w.gate = gate;
        while (gate->live && !(version = tc_try_make(g->fx, &w)))
            tcache_next_region(g->fx->tc);
    }
    if (!version)
        return;
    if (version->nconsts)
        memcpy(tcache_rw(g->fx->tc, version->hot) + CONST_AT, memory_at(g, pa + 1), 2);
    assert_ptr_equal(gate->links[0].to, version);
    assert_ptr_equal(version->gate, gate);
}

static void step_plain(struct gates *g)
{
    uint64_t pa = place_pa(pick(g, PLACES)) + 1;

    if (find(g, pa))
        return;
    struct ccf_wish w = wish_at(g, pa, PLAIN_BYTES);
    w.nconsts = 0;
    tc_make(g->fx, &w);
}

/* Two values a byte, and most often the same byte, so that what was there comes back. */
static void step_write(struct gates *g)
{
    bool is_first = pick(g, 4);
    uint64_t pa = place_pa(pick(g, PLACES)) + (is_first ? 0 : pick(g, INSN_BYTES));
    uint32_t len = is_first ? 1 : 1 + pick(g, 4);

    for (uint32_t i = 0; i < len; i++)
        *memory_at(g, pa + i) ^= pick(g, 4) != 0;
    tcache_written(g->fx->tc, gpa(pa), memory_at(g, pa), len, DROP_WRITE);
}

/* The page's level moves, or a device writes. */
static void step_invalidate(struct gates *g)
{
    uint64_t pa = place_pa(pick(g, PLACES));

    if (pick(g, 2)) {
        tcache_invalidate(g->fx->tc, gpa(pa & ~(uint64_t)GUEST_PAGE_MASK), GUEST_PAGE_SIZE, DROP_EVICT);
        assert_false(g->fx->traced[pa >> GUEST_PAGE_SHIFT]);
        assert_null(find(g, pa));
    } else {
        *memory_at(g, pa) ^= 1;
        tcache_invalidate(g->fx->tc, gpa(pa), 1, DROP_DMA);
        assert_null(find(g, pa));
    }
}

/* A live CCF that is no version, or a version, which may be parked. */
static struct ccf *pick_one(struct gates *g, bool may_be_version)
{
    struct ccf *c = find(g, place_pa(pick(g, PLACES)) + pick(g, 2));

    if (!c || !c->is_gate || !may_be_version)
        return c;
    struct ccf *v = c->versions;
    for (unsigned n = pick(g, MAX_VERSIONS); v && n; n--)
        v = v->versions;
    return v;
}

static void step_chain(struct gates *g)
{
    struct ccf *from = pick_one(g, pick(g, 2)), *to = pick_one(g, false);

    if (!from || !from->live || !to)
        return;
    struct ccf_link *link = &from->links[pick(g, from->nlinks)];
    if (pick(g, 4) == 0)
        tcache_chain_far(g->fx->tc, link, to);
    else
        tcache_chain(g->fx->tc, link, to);
}

static void step_jump_table(struct gates *g)
{
    struct ccf *c = pick_one(g, false);

    if (pick(g, 8) == 0)
        tcache_unchain_far(g->fx->tc, gva(0), 1ull << 32);
    else if (c)
        tcache_jt_fill(g->fx->tc, pick(g, 2), c, pick(g, 2));
}

static void step_drop(struct gates *g)
{
    struct ccf *c = pick_one(g, pick(g, 2));

    if (c && c->live)
        tcache_drop(g->fx->tc, c, DROP_SELF);
}

/* What is live runs as memory stands: its bytes are the present ones, and so is a constant in its code. */
static void check_live(void *ctx, struct ccf *c)
{
    struct gates *g = ctx;
    const uint8_t *now = memory_at(g, c->key.pa);
    unsigned n = 0;

    for (const struct ccf *v = c->is_gate ? c->versions : NULL; v; v = v->versions) {
        assert_ptr_equal(v->gate, c);
        assert_true(v->live != v->is_parked);
        n++;
    }
    assert_in_range(n, 0, MAX_VERSIONS);
    if (c->is_gate)
        return;
    g->listed[c->key.pa >> GUEST_PAGE_SHIFT]++;
    if (c->source)
        assert_memory_equal(c->source, now, c->guest_len);
    if (c->nconsts)
        assert_memory_equal(c->hot + CONST_AT, now + 1, 2);
}

static void check(struct gates *g)
{
    memset(g->listed, 0, sizeof g->listed);
    tcache_for_each(g->fx->tc, check_live, g);
    for (unsigned p = 0; p < PAGES; p++)
        assert_int_equal(g->fx->traced[p], g->listed[p] != 0);
    assert_int_equal(g->fx->trace_errors, 0);
    assert_int_equal(tcache_audit(g->fx->tc), 0);
}

static void step(struct gates *g)
{
    switch (pick(g, 16)) {
    case 0:
        step_drop(g);
        break;
    case 1:
        if (pick(g, 16) == 0)
            step_invalidate(g);
        break;
    case 2:
        if (pick(g, 40) == 0)
            tcache_next_region(g->fx->tc);
        break;
    case 3:
        step_jump_table(g);
        break;
    case 4:
        step_plain(g);
        break;
    case 5:
    case 6:
    case 7:
        step_chain(g);
        break;
    case 8:
    case 9:
    case 10:
        step_write(g);
        break;
    default:
        step_enter(g);
    }
}

static void gates_hold_whatever_happens(void **state)
{
    const char *seed = getenv("VMM_SEED");
    struct gates g = { .fx = tc_fixture_new(TCACHE_MIN_BYTES), .seed = seed ? strtoull(seed, NULL, 0) | 1 : 0x5eed1 };

    (void)state;
    for (unsigned i = 0; i < STEPS; i++) {
        step(&g);
        check(&g);
    }
    assert_true(g.fx->cpu->stats.coherency_parked > 500);
    assert_true(g.fx->cpu->stats.coherency_revived > 100);
    assert_true(g.fx->cpu->stats.coherency_patched > 20);
    assert_true(g.fx->cpu->stats.coherency_kept_chains > 100);
    assert_true(g.fx->cpu->stats.tc_evict_region > 10);
    tc_fixture_free(g.fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(gates_hold_whatever_happens) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
