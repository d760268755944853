/*
 * Random sequences of everything the cache can be asked, against a model that knows which
 * CCFs must be alive and which links must be chained. The audit runs after each step.
 *
 * VMM_SEED=n runs another sequence.
 */
#include <stdlib.h>

#include "tests/unit/tcache/fixture.h"

#define SLOTS 96u /* places that code may begin at */
#define STEPS 20000u

struct model_ccf {
    bool alive;
    uint64_t pa, pfn2;
    uint32_t eip, len;
    struct ccf *ccf;
};

struct model {
    struct tc_fixture *fx;
    struct model_ccf ccf[SLOTS];
    uint64_t seed;
};

static uint32_t pick(struct model *m, uint32_t n)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return (uint32_t)(m->seed >> 32) % n;
}

/* What eviction took is known only afterwards: whoever is not found any more is gone. */
static void note_evictions(struct model *m)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (m->ccf[i].alive && tc_find(m->fx, m->ccf[i].pa, m->ccf[i].eip) != m->ccf[i].ccf)
            m->ccf[i].alive = false;
}

static void step_make(struct model *m)
{
    unsigned i = pick(m, SLOTS);
    struct model_ccf *c = &m->ccf[i];
    bool straddles = pick(m, 4) == 0;
    struct ccf_wish w = { .hot_bytes = 30 + pick(m, 400), .cold_bytes = pick(m, 300), .nlinks = pick(m, 4) };

    if (c->alive)
        return;
    *c = (struct model_ccf){ .alive = true, .pfn2 = CCF_ONE_PAGE };
    c->len = 1 + pick(m, straddles ? 14 : 200);
    uint32_t ofs = straddles ? GUEST_PAGE_SIZE - pick(m, c->len) - 1 : pick(m, GUEST_PAGE_SIZE - c->len);
    straddles = ofs + c->len > GUEST_PAGE_SIZE;
    c->pa = (uint64_t)(1 + pick(m, 6)) << GUEST_PAGE_SHIFT | ofs;
    c->eip = 0x08000000u + (i << 12 | ofs);
    if (straddles)
        c->pfn2 = 1 + pick(m, 6); /* now and then the same page */
    w.pa = c->pa;
    w.eip = c->eip;
    w.guest_len = c->len;
    w.two_pages = straddles;
    w.pfn2 = c->pfn2;
    for (unsigned k = 0; k < w.nlinks; k++)
        w.poll[k] = pick(m, 2);
    c->ccf = tc_make(m->fx, &w);
    note_evictions(m);
    assert_true(c->alive);
}

static bool overlap(uint64_t a, uint32_t alen, uint64_t b, uint32_t blen)
{
    return a < b + blen && b < a + alen;
}

static bool is_hit(const struct model_ccf *c, uint64_t pa, uint32_t len)
{
    uint32_t ofs = (uint32_t)c->pa & GUEST_PAGE_MASK;
    uint32_t first = min_u32(c->len, GUEST_PAGE_SIZE - ofs);

    return overlap(c->pa, first, pa, len) ||
           (c->pfn2 != CCF_ONE_PAGE && overlap(c->pfn2 << GUEST_PAGE_SHIFT, c->len - first, pa, len));
}

static void step_write(struct model *m)
{
    uint32_t len = 1 + pick(m, 64), ofs = pick(m, GUEST_PAGE_SIZE - len + 1);
    uint64_t pa = (uint64_t)(1 + pick(m, 6)) << GUEST_PAGE_SHIFT | ofs;
    unsigned expected = 0;

    for (unsigned i = 0; i < SLOTS; i++)
        if (m->ccf[i].alive && is_hit(&m->ccf[i], pa, len)) {
            m->ccf[i].alive = false;
            expected++;
        }
    uint64_t before = tcache_generation(m->fx->tc);
    assert_int_equal(tcache_invalidate(m->fx->tc, gpa(pa), len, DROP_WRITE), expected);
    assert_int_equal(tcache_generation(m->fx->tc) != before, expected != 0);
}

static struct model_ccf *pick_live(struct model *m)
{
    struct model_ccf *c = &m->ccf[pick(m, SLOTS)];

    return c->alive ? c : NULL;
}

static void step_chain(struct model *m)
{
    struct model_ccf *from = pick_live(m), *to = pick_live(m);

    if (!from || !to || !from->ccf->nlinks)
        return;
    struct ccf_link *link = &from->ccf->links[pick(m, from->ccf->nlinks)];
    switch (pick(m, 8)) {
    case 0:
        tcache_chain_by_table(m->fx->tc, link);
        break;
    case 1:
    case 2:
        tcache_chain_far(m->fx->tc, link, to->ccf);
        break;
    default:
        tcache_chain(m->fx->tc, link, to->ccf);
    }
}

static void step_jump_table(struct model *m)
{
    struct model_ccf *c = pick_live(m);
    unsigned view = pick(m, 2);

    switch (pick(m, 8)) {
    case 0:
        tcache_jt_drop_all(m->fx->tc, view, pick(m, 2));
        break;
    case 2:
        if (c)
            tcache_jt_warm(m->fx->tc, view, c->eip >> GUEST_PAGE_SHIFT, c->pa >> GUEST_PAGE_SHIFT, FX_MODE,
                           pick(m, 2));
        break;
    case 3:
        tcache_unchain_far(m->fx->tc, gva(0), pick(m, 2) ? 1ull << 32 : 0);
        break;
    case 1:
        tcache_jt_drop_range(m->fx->tc, view, gva(0x08000000u + (pick(m, SLOTS) << 12)), 0x1000);
        break;
    default:
        if (c)
            tcache_jt_fill(m->fx->tc, view, c->ccf, pick(m, 2));
    }
}

static void step_drop(struct model *m)
{
    struct model_ccf *c = pick_live(m);

    if (!c)
        return;
    tcache_drop(m->fx->tc, c->ccf, DROP_SELF);
    c->alive = false;
}

/* Patched displacements agree with what the records say. */
static void check_links(const struct ccf *c)
{
    for (unsigned i = 0; i < c->nlinks; i++) {
        const struct ccf_link *l = &c->links[i];
        const uint8_t *expected = l->to         ? l->to->hot + (l->poll ? l->to->poll_ofs : l->to->body_ofs)
                                  : l->by_table ? c->cold + l->table_ofs
                                                : link_unchained(l);
        assert_ptr_equal(link_destination(l), expected);
        assert_true(!l->to || l->to->live);
    }
}

static void check(struct model *m)
{
    bool traced[8] = { false };
    unsigned alive = 0;

    for (unsigned i = 0; i < SLOTS; i++) {
        const struct model_ccf *c = &m->ccf[i];
        struct ccf *found = c->pa ? tc_find(m->fx, c->pa, c->eip) : NULL;
        assert_ptr_equal(found, c->alive ? c->ccf : NULL);
        if (!c->alive)
            continue;
        alive++;
        check_links(c->ccf);
        assert_ptr_equal(tcache_find_rip(m->fx->tc, c->ccf->hot + c->ccf->hot_len / 2), c->ccf);
        traced[c->pa >> GUEST_PAGE_SHIFT] = true;
        if (c->pfn2 != CCF_ONE_PAGE)
            traced[c->pfn2] = true;
    }
    assert_int_equal(m->fx->cpu->stats.ccf_live, alive);
    for (unsigned p = 0; p < 8; p++)
        assert_int_equal(m->fx->traced[p], traced[p]);
    assert_int_equal(m->fx->trace_errors, 0);
    assert_int_equal(tcache_audit(m->fx->tc), 0);
}

static void run_sequence(uint64_t seed)
{
    struct model m = { .fx = tc_fixture_new(TCACHE_MIN_BYTES), .seed = seed };

    for (unsigned i = 0; i < STEPS; i++) {
        switch (pick(&m, 16)) {
        case 0:
            step_drop(&m);
            break;
        case 1:
        case 2:
            step_write(&m);
            break;
        case 3:
            if (pick(&m, 40) == 0) {
                tcache_next_region(m.fx->tc);
                note_evictions(&m);
            }
            break;
        case 4:
        case 5:
        case 6:
            step_jump_table(&m);
            break;
        case 7:
        case 8:
        case 9:
        case 10:
            step_chain(&m);
            break;
        default:
            step_make(&m);
        }
        check(&m);
    }
    assert_true(m.fx->cpu->stats.tc_evict_region > 10);
    assert_true(m.fx->cpu->stats.unchain > 100);
    tc_fixture_free(m.fx);
}

static void random_operations_keep_the_invariants(void **state)
{
    const char *seed = getenv("VMM_SEED");

    (void)state;
    run_sequence(seed ? strtoull(seed, NULL, 0) | 1 : 0x5eed1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(random_operations_keep_the_invariants) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
