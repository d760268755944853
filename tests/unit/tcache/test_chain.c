/* Chains: what stands in the branch's displacement before, during and after. */
#include "tests/unit/tcache/fixture.h"

static struct ccf *plain(struct tc_fixture *fx, uint32_t at)
{
    return tc_make(fx, &(struct ccf_wish){ .pa = at, .eip = at });
}

static struct ccf *jumps_to(struct tc_fixture *fx, uint32_t at, uint32_t target, bool poll)
{
    return tc_make(
        fx, &(struct ccf_wish){ .pa = at, .eip = at, .nlinks = 1, .target = { target }, .poll = { poll } });
}

static void new_link_leads_to_its_continuation(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = jumps_to(fx, 0x1000, 0x1100, false);

    (void)state;
    assert_ptr_equal(link_destination(&a->links[0]), link_unchained(&a->links[0]));
    assert_null(a->links[0].to);
    tc_fixture_free(fx);
}

static void forward_chain_enters_the_body_and_backward_chain_the_poll_point(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = jumps_to(fx, 0x1000, 0x1100, false), *b = jumps_to(fx, 0x1100, 0x1000, true);

    (void)state;
    tcache_chain(fx->tc, &a->links[0], b);
    tcache_chain(fx->tc, &b->links[0], a);
    assert_ptr_equal(link_destination(&a->links[0]), b->hot + FX_BODY);
    assert_ptr_equal(link_destination(&b->links[0]), a->hot + FX_POLL);
    assert_int_equal(fx->cpu->stats.chain, 2);
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void dropping_the_target_unchains_all_callers(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *t = plain(fx, 0x1000), *c[20];

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = jumps_to(fx, 0x1100 + 32 * i, 0x1000, i & 1);
        tcache_chain(fx->tc, &c[i]->links[0], t);
    }
    tcache_drop(fx->tc, t, DROP_WRITE);
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        assert_ptr_equal(link_destination(&c[i]->links[0]), link_unchained(&c[i]->links[0]));
        assert_null(c[i]->links[0].to);
        assert_true(c[i]->live);
    }
    assert_int_equal(fx->cpu->stats.unchain, ARRAY_LEN(c));
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void dropping_the_source_takes_it_off_the_target(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *t = plain(fx, 0x1000), *c[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        c[i] = jumps_to(fx, 0x1100 + 32 * i, 0x1000, false);
        tcache_chain(fx->tc, &c[i]->links[0], t);
    }
    tcache_drop(fx->tc, c[1], DROP_WRITE); /* the middle one of the target's list */
    assert_ptr_equal(link_destination(&c[1]->links[0]), link_unchained(&c[1]->links[0]));
    assert_ptr_equal(link_destination(&c[0]->links[0]), t->hot + FX_BODY);
    assert_int_equal(tcache_audit(fx->tc), 0);
    tcache_drop(fx->tc, t, DROP_WRITE);
    assert_ptr_equal(link_destination(&c[2]->links[0]), link_unchained(&c[2]->links[0]));
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void loop_of_one_ccf_is_dropped_cleanly(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = jumps_to(fx, 0x1000, 0x1000, true);

    (void)state;
    tcache_chain(fx->tc, &a->links[0], a);
    assert_ptr_equal(link_destination(&a->links[0]), a->hot + FX_POLL);
    tcache_drop(fx->tc, a, DROP_SELF);
    assert_ptr_equal(link_destination(&a->links[0]), link_unchained(&a->links[0])); /* it may be running */
    assert_null(a->in);
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void two_links_of_one_ccf_to_one_target_are_kept_apart(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *t = plain(fx, 0x1000);
    struct ccf *c = tc_make(
        fx, &(struct ccf_wish){ .pa = 0x1100, .eip = 0x1100, .nlinks = 2, .target = { 0x1000, 0x1000 } });

    (void)state;
    tcache_chain(fx->tc, &c->links[0], t);
    tcache_chain(fx->tc, &c->links[1], t);
    tcache_chain(fx->tc, &c->links[1], t); /* twice changes nothing */
    assert_int_equal(fx->cpu->stats.chain, 2);
    tcache_drop(fx->tc, c, DROP_WRITE);
    assert_null(t->in);
    tc_fixture_free(fx);
}

static void link_by_table_stays_so(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *t = plain(fx, 0x1000), *c = jumps_to(fx, 0x1100, 0x1000, false);
    const uint8_t *by_table = c->cold + c->links[0].table_ofs;

    (void)state;
    tcache_chain_by_table(fx->tc, &c->links[0]);
    assert_ptr_equal(link_destination(&c->links[0]), by_table);
    tcache_chain(fx->tc, &c->links[0], t);
    assert_ptr_equal(link_destination(&c->links[0]), by_table);
    assert_null(t->in);
    tcache_drop(fx->tc, t, DROP_WRITE);
    assert_ptr_equal(link_destination(&c->links[0]), by_table);
    tc_fixture_free(fx);
}

static void chained_link_does_not_turn_to_the_table(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *t = plain(fx, 0x1000), *c = jumps_to(fx, 0x1100, 0x1000, false);

    (void)state;
    tcache_chain(fx->tc, &c->links[0], t);
    tcache_chain_by_table(fx->tc, &c->links[0]);
    assert_ptr_equal(link_destination(&c->links[0]), t->hot + FX_BODY);
    assert_false(c->links[0].by_table);
    tc_fixture_free(fx);
}

static void eviction_undoes_links_into_the_region_and_out_of_it(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(TCACHE_MIN_BYTES);
    struct ccf *old = jumps_to(fx, 0x1000, 0x2000, false);

    (void)state;
    tcache_next_region(fx->tc);
    struct ccf *young = jumps_to(fx, 0x2000, 0x1000, true);
    tcache_chain(fx->tc, &old->links[0], young);
    tcache_chain(fx->tc, &young->links[0], old);
    while (fx->cpu->stats.tc_evict_region == 0)
        tcache_next_region(fx->tc);
    assert_ptr_equal(tc_find(fx, 0x2000, 0x2000), young);
    assert_null(young->in);
    assert_null(young->links[0].to);
    assert_ptr_equal(link_destination(&young->links[0]), link_unchained(&young->links[0]));
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void far_chains_go_with_the_mapping_of_their_target(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *near = plain(fx, 0x1000), *t[3], *c[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        t[i] = plain(fx, 0x5000 + 0x1000 * i);
        c[i] = tc_make(fx, &(struct ccf_wish){ .pa = 0x1100 + 64 * i,
                                               .eip = 0x1100 + 64 * i,
                                               .nlinks = 2,
                                               .target = { 0x5000 + 0x1000 * i, 0x1000 } });
        tcache_chain_far(fx->tc, &c[i]->links[0], t[i]);
        tcache_chain(fx->tc, &c[i]->links[1], near);
        assert_ptr_equal(link_destination(&c[i]->links[0]), t[i]->hot + FX_BODY);
    }
    tcache_unchain_far(fx->tc, gva(0x6000), 0x1000);
    for (unsigned i = 0; i < 3; i++) {
        assert_ptr_equal(link_destination(&c[i]->links[0]),
                         i == 1 ? link_unchained(&c[1]->links[0]) : t[i]->hot + FX_BODY);
        assert_ptr_equal(link_destination(&c[i]->links[1]), near->hot + FX_BODY);
    }
    assert_int_equal(tcache_audit(fx->tc), 0);
    tcache_drop(fx->tc, t[0], DROP_WRITE);
    assert_ptr_equal(link_destination(&c[0]->links[0]), link_unchained(&c[0]->links[0]));
    tcache_chain_far(fx->tc, &c[1]->links[0], t[1]); /* it can be chained again */
    tcache_unchain_far(fx->tc, gva(0), 1ull << 32);
    for (unsigned i = 0; i < 3; i++) {
        assert_ptr_equal(link_destination(&c[i]->links[0]), link_unchained(&c[i]->links[0]));
        assert_ptr_equal(c[i]->links[1].to, near);
    }
    assert_int_equal(fx->tc->nfar, 0);
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_link_leads_to_its_continuation),
        cmocka_unit_test(forward_chain_enters_the_body_and_backward_chain_the_poll_point),
        cmocka_unit_test(dropping_the_target_unchains_all_callers),
        cmocka_unit_test(dropping_the_source_takes_it_off_the_target),
        cmocka_unit_test(loop_of_one_ccf_is_dropped_cleanly),
        cmocka_unit_test(two_links_of_one_ccf_to_one_target_are_kept_apart),
        cmocka_unit_test(link_by_table_stays_so),
        cmocka_unit_test(chained_link_does_not_turn_to_the_table),
        cmocka_unit_test(eviction_undoes_links_into_the_region_and_out_of_it),
        cmocka_unit_test(far_chains_go_with_the_mapping_of_their_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
