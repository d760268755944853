/* The cache's memory: rooms, commits, look-ups, regions that come round, host addresses. */
#include <string.h>

#include "tests/unit/tcache/fixture.h"

static void commit_is_found_by_its_whole_key_only(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = tc_make(fx, &(struct ccf_wish){ .pa = 0x1010, .eip = 0xc0001010 });
    struct ccf_key key = tc_key(0x1010, 0xc0001010);

    (void)state;
    assert_ptr_equal(tcache_lookup(fx->tc, &key), c);
    assert_true(c->live);
    key.pa++;
    assert_null(tcache_lookup(fx->tc, &key));
    key = tc_key(0x1010, 0x1010);
    assert_null(tcache_lookup(fx->tc, &key));
    key = tc_key(0x1010, 0xc0001010);
    key.mode ^= MODE_CPL3;
    assert_null(tcache_lookup(fx->tc, &key));
    key = tc_key(0x1010, 0xc0001010);
    key.cs_base = 0x10;
    assert_null(tcache_lookup(fx->tc, &key));
    key = tc_key(0x1010, 0xc0001010);
    key.cs_limit = 0xffff;
    assert_null(tcache_lookup(fx->tc, &key));
    assert_int_equal(fx->cpu->stats.ccf_live, 1);
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void same_place_in_two_modes_makes_two_ccfs(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000, .eip = 0x1000 });
    struct ccf *b = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000, .eip = 0xc0001000 });

    (void)state;
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(tc_find(fx, 0x1000, 0x1000), a);
    assert_ptr_equal(tc_find(fx, 0x1000, 0xc0001000), b);
    tc_fixture_free(fx);
}

static void rooms_follow_each_other_and_run_where_they_were_written(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct tcache_room before, after;

    (void)state;
    tcache_room(fx->tc, &before);
    assert_true(before.is_fresh);
    struct ccf *c =
        tc_make(fx, &(struct ccf_wish){ .pa = 0x1000, .eip = 0x1000, .hot_bytes = 100, .cold_bytes = 50 });
    tcache_room(fx->tc, &after);
    assert_false(after.is_fresh);
    assert_ptr_equal(c->hot, before.hot + before.exec_delta);
    assert_ptr_equal(c->cold, before.cold + before.exec_delta);
    assert_true(after.hot >= before.hot + 100 && after.hot < before.hot + 100 + 16);
    assert_true(after.cold >= before.cold + 50 && after.cold < before.cold + 50 + 16);
    assert_ptr_equal(after.hot_end, before.hot_end);
    assert_int_equal(*c->hot, 0xcc); /* the executable view shows what the other one got */
    tc_fixture_free(fx);
}

static void host_addresses_lead_to_their_ccf_and_instruction(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c[40];
    const uint8_t *lo, *hi;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        c[i] = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000 + 32 * i,
                                               .eip = 0x1000 + 32 * i,
                                               .hot_bytes = 40 + 7 * i,
                                               .cold_bytes = i % 3 ? 30 + i : 0,
                                               .ninsns = 4 });
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        assert_ptr_equal(tcache_find_rip(fx->tc, c[i]->hot), c[i]);
        assert_ptr_equal(tcache_find_rip(fx->tc, c[i]->hot + c[i]->hot_len - 1), c[i]);
        if (c[i]->cold_len) {
            assert_ptr_equal(tcache_find_rip(fx->tc, c[i]->cold), c[i]);
            assert_ptr_equal(tcache_find_rip(fx->tc, c[i]->cold + c[i]->cold_len - 1), c[i]);
        }
        assert_int_equal(ccf_insn_at(c[i], c[i]->hot), 0); /* the entries count as the first */
        for (unsigned k = 0; k < 4; k++) {
            assert_int_equal(ccf_insn_at(c[i], c[i]->hot + c[i]->insns[k].hot_ofs), k);
            if (c[i]->cold_len)
                assert_int_equal(ccf_insn_at(c[i], c[i]->cold + c[i]->insns[k].cold_ofs), k);
        }
    }
    tcache_range(fx->tc, &lo, &hi);
    assert_int_equal(hi - lo, 1 << 20);
    assert_null(tcache_find_rip(fx->tc, lo - 1));
    assert_null(tcache_find_rip(fx->tc, hi));
    assert_null(tcache_find_rip(fx->tc, hi - 1)); /* nothing was put there */
    tc_fixture_free(fx);
}

static void dropped_code_is_still_found_by_address(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000, .eip = 0x1000 });

    (void)state;
    tcache_drop(fx->tc, c, DROP_WRITE);
    assert_null(tc_find(fx, 0x1000, 0x1000));
    assert_ptr_equal(tcache_find_rip(fx->tc, c->hot), c); /* it may be running */
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void full_region_refuses_and_the_next_one_takes_it(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(TCACHE_MIN_BYTES);
    struct ccf_wish w = { .hot_bytes = 1000, .cold_bytes = 1000 };
    unsigned n = 0;

    (void)state;
    for (; n < 1000; n++) {
        w.pa = w.eip = 0x1000 + 64 * n;
        if (!tc_try_make(fx, &w))
            break;
    }
    assert_in_range(n, 10, 16); /* 16 KiB of hot code in each of four regions */
    struct ccf *c = tc_make(fx, &w);
    assert_int_equal(c->region, 1);
    assert_int_equal(fx->cpu->stats.tc_evict_region, 0);
    assert_ptr_not_equal(tc_find(fx, 0x1000, 0x1000), NULL);
    tc_fixture_free(fx);
}

static void full_arena_refuses_before_the_code_memory_is_full(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(TCACHE_MIN_BYTES);
    struct ccf_wish w = { .nlinks = CCF_MAX_LINKS, .ninsns = CCF_MAX_INSNS };
    struct tcache_room room;

    (void)state;
    for (unsigned n = 0;; n++) {
        w.pa = w.eip = 0x1000 + 64 * n;
        tcache_room(fx->tc, &room);
        if (!tc_try_make(fx, &w))
            break;
        assert_true(n < 1000);
    }
    assert_true(room.hot_end - room.hot > 1000);
    assert_non_null(tc_make(fx, &w));
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void ring_comes_round_and_the_oldest_region_goes_first(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(TCACHE_MIN_BYTES);
    struct ccf *c[TC_REGIONS];

    (void)state;
    for (unsigned i = 0; i < TC_REGIONS; i++) {
        c[i] = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000 * (i + 1), .eip = 0x1000 * (i + 1) });
        assert_int_equal(c[i]->region, i);
        uint64_t before = tcache_generation(fx->tc);
        tcache_next_region(fx->tc);
        assert_int_equal(tcache_generation(fx->tc) != before, i == TC_REGIONS - 1);
    }
    assert_int_equal(fx->cpu->stats.tc_evict_region, 1);
    assert_int_equal(fx->cpu->stats.inval_evict, 1);
    assert_int_equal(fx->cpu->stats.ccf_live, TC_REGIONS - 1);
    assert_null(tc_find(fx, 0x1000, 0x1000));
    assert_false(fx->traced[1]);
    for (unsigned i = 1; i < TC_REGIONS; i++) {
        assert_ptr_equal(tc_find(fx, 0x1000 * (i + 1), 0x1000 * (i + 1)), c[i]);
        assert_true(fx->traced[i + 1]);
    }
    assert_null(tcache_find_rip(fx->tc, fx->tc->rx));
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void evicting_a_region_of_dead_code_moves_the_generation(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(TCACHE_MIN_BYTES);
    struct ccf *c = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000, .eip = 0x1000 });

    (void)state;
    tcache_drop(fx->tc, c, DROP_SELF);
    for (unsigned i = 1; i < TC_REGIONS; i++)
        tcache_next_region(fx->tc);
    uint64_t before = tcache_generation(fx->tc);
    tcache_next_region(fx->tc); /* the dead code's memory will be written over: no return may lead there */
    assert_true(tcache_generation(fx->tc) > before);
    tc_fixture_free(fx);
}

static void flush_drops_everything(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(TCACHE_MIN_BYTES);

    (void)state;
    for (unsigned i = 0; i < 200; i++)
        tc_make(fx, &(struct ccf_wish){ .pa = 0x1000 + 100 * i, .eip = 0x1000 + 100 * i, .hot_bytes = 200 });
    tcache_flush(fx->tc);
    assert_int_equal(fx->cpu->stats.ccf_live, 0);
    for (unsigned i = 0; i < FX_PAGES; i++)
        assert_false(fx->traced[i]);
    assert_int_equal(fx->trace_errors, 0);
    assert_int_equal(tcache_audit(fx->tc), 0);
    assert_non_null(tc_make(fx, &(struct ccf_wish){ .pa = 0x1000, .eip = 0x1000 }));
    tc_fixture_free(fx);
}

static void link_handles_are_known_before_the_commit(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        uint32_t first = tcache_next_link_handle(fx->tc, 0), third = tcache_next_link_handle(fx->tc, 2);
        struct ccf *c = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000 + 32 * i, .eip = 32 * i, .nlinks = 3 });
        assert_ptr_equal(tcache_link(fx->tc, first), &c->links[0]);
        assert_ptr_equal(tcache_link(fx->tc, third), &c->links[2]);
        assert_ptr_equal(c->links[2].owner, c);
    }
    tc_fixture_free(fx);
}

static void count_ccf(void *ctx, struct ccf *c)
{
    assert_true(c->live);
    ++*(unsigned *)ctx;
}

static void every_live_ccf_is_visited_once(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    unsigned seen = 0;

    (void)state;
    for (unsigned i = 0; i < 30; i++) {
        struct ccf *c = tc_make(fx, &(struct ccf_wish){ .pa = 0x1000 + 32 * i, .eip = 32 * i });
        if (i % 3 == 0)
            tcache_drop(fx->tc, c, DROP_DMA);
    }
    tcache_for_each(fx->tc, count_ccf, &seen);
    assert_int_equal(seen, 20);
    assert_int_equal(fx->cpu->stats.inval_dma, 10);
    tc_fixture_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commit_is_found_by_its_whole_key_only),
        cmocka_unit_test(same_place_in_two_modes_makes_two_ccfs),
        cmocka_unit_test(rooms_follow_each_other_and_run_where_they_were_written),
        cmocka_unit_test(host_addresses_lead_to_their_ccf_and_instruction),
        cmocka_unit_test(dropped_code_is_still_found_by_address),
        cmocka_unit_test(full_region_refuses_and_the_next_one_takes_it),
        cmocka_unit_test(full_arena_refuses_before_the_code_memory_is_full),
        cmocka_unit_test(ring_comes_round_and_the_oldest_region_goes_first),
        cmocka_unit_test(evicting_a_region_of_dead_code_moves_the_generation),
        cmocka_unit_test(flush_drops_everything),
        cmocka_unit_test(link_handles_are_known_before_the_commit),
        cmocka_unit_test(every_live_ccf_is_visited_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
