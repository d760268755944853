/* From written bytes to dropped CCFs: page lists, granule masks, traces, CCFs of two pages. */
#include <string.h>

#include "tests/unit/tcache/fixture.h"

static struct ccf *at(struct tc_fixture *fx, uint64_t pa, uint32_t len)
{
    return tc_make(fx, &(struct ccf_wish){ .pa = pa, .eip = (uint32_t)pa, .guest_len = len });
}

static struct ccf *straddler(struct tc_fixture *fx, uint64_t pa, uint32_t len, uint64_t pfn2)
{
    return tc_make(fx,
                   &(struct ccf_wish){
                       .pa = pa, .eip = (uint32_t)pa, .guest_len = len, .two_pages = true, .pfn2 = pfn2 });
}

static unsigned written(struct tc_fixture *fx, uint64_t pa, uint32_t len)
{
    return tcache_invalidate(fx->tc, gpa(pa), len, DROP_WRITE);
}

static void page_is_traced_from_its_first_ccf_to_its_last(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = at(fx, 0x3000, 16), *b = at(fx, 0x3800, 16);

    (void)state;
    assert_true(fx->traced[3]);
    tcache_drop(fx->tc, a, DROP_WRITE);
    assert_true(fx->traced[3]);
    tcache_drop(fx->tc, b, DROP_WRITE);
    assert_false(fx->traced[3]);
    at(fx, 0x3000, 16);
    assert_true(fx->traced[3]);
    assert_int_equal(fx->trace_errors, 0);
    tc_fixture_free(fx);
}

static void write_drops_what_it_touches_and_nothing_else(void **state)
{
    /* One CCF at bytes 0x110..0x11f of page 5, its neighbours right beside it. */
    static const struct {
        uint32_t from, len;
        bool hits;
    } cases[] = {
        { 0x10f, 1, false }, { 0x10f, 2, true },  { 0x110, 1, true },   { 0x11f, 1, true },
        { 0x120, 1, false }, { 0x11f, 4, true },  { 0x100, 16, false }, { 0, 0x1000, true },
        { 0x118, 4, true },  { 0xfff, 1, false }, { 0, 0x110, false },  { 0x120, 0xee0, false },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct tc_fixture *fx = tc_fixture_new(1u << 20);
        struct ccf *c = at(fx, 0x5110, 16);
        assert_int_equal(written(fx, 0x5000 + cases[i].from, cases[i].len), cases[i].hits);
        assert_int_equal(c->live, !cases[i].hits);
        assert_int_equal(fx->traced[5], !cases[i].hits);
        assert_int_equal(tcache_audit(fx->tc), 0);
        tc_fixture_free(fx);
    }
}

static void overlapping_ccfs_go_together(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = at(fx, 0x5100, 32), *b = at(fx, 0x5110, 32), *c = at(fx, 0x5130, 32);

    (void)state;
    assert_int_equal(written(fx, 0x5118, 4), 2);
    assert_false(a->live);
    assert_false(b->live);
    assert_true(c->live);
    assert_int_equal(fx->cpu->stats.inval_write, 2);
    tc_fixture_free(fx);
}

static void granules_cover_every_byte_of_a_page(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    for (uint32_t ofs = 0; ofs < GUEST_PAGE_SIZE; ofs += 37) {
        struct ccf *c = at(fx, 0x7000 + ofs, 1);
        assert_int_equal(written(fx, 0x7000 + ofs, 1), 1);
        assert_false(c->live);
    }
    struct ccf *last = at(fx, 0x7fff, 1), *whole = at(fx, 0x8000, GUEST_PAGE_SIZE);
    assert_int_equal(written(fx, 0x7fff, 1), 1);
    assert_false(last->live);
    assert_int_equal(written(fx, 0x8fff, 1), 1);
    assert_false(whole->live);
    tc_fixture_free(fx);
}

static void ccf_of_two_pages_goes_with_either(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = straddler(fx, 0x5ffc, 10, 9); /* four bytes in page 5, six in page 9 */

    (void)state;
    assert_true(fx->traced[5] && fx->traced[9]);
    assert_int_equal(written(fx, 0x5ffb, 1), 0);
    assert_int_equal(written(fx, 0x9006, 1), 0);
    assert_int_equal(written(fx, 0x6000, 4), 0); /* the next PA page has no part in it */
    assert_true(c->live);
    assert_int_equal(written(fx, 0x9005, 1), 1);
    assert_false(c->live);
    assert_false(fx->traced[5] || fx->traced[9]);
    c = straddler(fx, 0x5ffc, 10, 9);
    assert_int_equal(written(fx, 0x5ffc, 1), 1);
    assert_false(c->live);
    assert_int_equal(tcache_audit(fx->tc), 0);
    assert_int_equal(fx->trace_errors, 0);
    tc_fixture_free(fx);
}

/* Two VA pages mapped to one PA page: the instruction's tail lies at the page's start. */
static void ccf_whose_two_pages_are_one(void **state)
{
    static const struct {
        uint32_t ofs;
        bool hits;
    } cases[] = {
        { 0xffb, false }, { 0xffc, true }, { 0xfff, true }, { 0, true }, { 5, true }, { 6, false }
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct tc_fixture *fx = tc_fixture_new(1u << 20);
        struct ccf *other = at(fx, 0x5800, 16);
        struct ccf *c = straddler(fx, 0x5ffc, 10, 5);
        struct ccf *later = at(fx, 0x5900, 16);
        assert_int_equal(tcache_audit(fx->tc), 0);
        assert_int_equal(written(fx, 0x5000 + cases[i].ofs, 1), cases[i].hits);
        assert_int_equal(c->live, !cases[i].hits);
        assert_true(other->live && later->live);
        if (c->live)
            tcache_drop(fx->tc, c, DROP_WRITE);
        assert_int_equal(tcache_audit(fx->tc), 0);
        assert_int_equal(written(fx, 0x5000, 0x1000), 2);
        assert_false(fx->traced[5]);
        assert_int_equal(fx->trace_errors, 0);
        tc_fixture_free(fx);
    }
}

static void many_straddlers_in_chains_of_pages(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c[FX_PAGES];

    (void)state;
    for (unsigned i = 1; i < FX_PAGES - 1; i++)
        c[i] = straddler(fx, 0x1000ull * i + 0xffe, 4, i + 1);
    assert_int_equal(tcache_audit(fx->tc), 0);
    for (unsigned i = 2; i < FX_PAGES - 1; i += 2)
        assert_int_equal(written(fx, 0x1000ull * i, 0x1000), 2); /* the one before, and its own */
    for (unsigned i = 1; i < FX_PAGES - 1; i++)
        assert_false(c[i]->live);
    assert_int_equal(fx->cpu->stats.ccf_live, 0);
    assert_int_equal(fx->trace_errors, 0);
    tc_fixture_free(fx);
}

static void causes_are_counted_apart(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    at(fx, 0x1000, 16);
    at(fx, 0x2000, 16);
    tcache_invalidate(fx->tc, gpa(0x1000), 4, DROP_DMA);
    tcache_invalidate(fx->tc, gpa(0x2000), 4, DROP_SELF);
    assert_int_equal(fx->cpu->stats.inval_dma, 1);
    assert_int_equal(fx->cpu->stats.inval_self, 1);
    assert_int_equal(fx->cpu->stats.inval_write, 0);
    tc_fixture_free(fx);
}

/* Pages past 4 GiB differ from those below in the number's upper half only. */
static void pages_above_4_gib_are_their_own(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct code_page *none = tcache_page_find(fx->tc, 0x100005);

    (void)state;
    at(fx, 0x5000, 16);
    assert_null(none);
    assert_int_equal(tcache_invalidate(fx->tc, gpa(0x100005000ull), 16, DROP_WRITE), 0);
    assert_int_equal(written(fx, 0x5000, 16), 1);
    tc_fixture_free(fx);
}

/* A library's page is mapped at another address in each program: one write drops all of it. */
static void page_mapped_at_many_addresses(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *kept[64];

    (void)state;
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t eip = 0xb7000000 + i * 0x3000;
        tc_make(fx, &(struct ccf_wish){ .pa = 0x5100, .eip = eip + 0x100 });
        kept[i] = tc_make(fx, &(struct ccf_wish){ .pa = 0x5800, .eip = eip + 0x800 });
    }
    assert_int_equal(tcache_audit(fx->tc), 0);
    assert_int_equal(written(fx, 0x5100, 1), 64);
    for (uint32_t i = 0; i < 64; i++)
        assert_true(kept[i]->live);
    assert_true(fx->traced[5]);
    tcache_drop(fx->tc, kept[17], DROP_WRITE);
    assert_int_equal(tcache_audit(fx->tc), 0);
    assert_int_equal(written(fx, 0x5000, GUEST_PAGE_SIZE), 63);
    assert_false(fx->traced[5]);
    assert_int_equal(fx->trace_errors, 0);
    tc_fixture_free(fx);
}

/* 16 bytes of code, with constants at 1..4 (twice in the code) and 15; the rest is no constant. */
static struct ccf *patchable(struct tc_fixture *fx, uint64_t pa, uint64_t pfn2)
{
    static const uint8_t source[16] = { 0xb8, 1,    2,    3,    4,    0x90, 0x91, 0x92,
                                        0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x04, 5 };
    struct ccf_wish w = { .pa = pa,
                          .eip = (uint32_t)pa,
                          .guest_len = 16,
                          .source = source,
                          .nconsts = 3,
                          .two_pages = pfn2 != CCF_ONE_PAGE,
                          .pfn2 = pfn2,
                          .hot_bytes = 64,
                          .cold_bytes = 64,
                          .consts = {
                              { .guest_ofs = 1, .len = 4, .host_len = 4, .host_ofs = 33 },
                              { .guest_ofs = 1, .len = 4, .host_len = 4, .host_ofs = 41, .is_cold = true },
                              { .guest_ofs = 15, .len = 1, .host_len = 1, .host_ofs = 50 } } };

    return tc_make(fx, &w);
}

static void constants_are_patched_and_nothing_else(void **state)
{
    static const struct {
        uint32_t from, len;
        uint8_t now[16];
        bool lives;
        uint32_t hot, cold, byte; /* what the code then holds */
    } cases[] = {
        { 1, 4, { 9, 8, 7, 6 }, true, 0x06070809, 0x06070809, 0xcc },
        { 2, 1, { 9 }, true, 0x04030901, 0x04030901, 0xcc },
        { 4, 1, { 9 }, true, 0x09030201, 0x09030201, 0xcc },
        { 15, 1, { 9 }, true, 0xcccccccc, 0xcccccccc, 9 },
        { 0, 5, { 0xb8, 9, 2, 3, 4 }, true, 0x04030209, 0x04030209, 0xcc },
        { 3, 4, { 3, 9, 0x90, 0x91 }, true, 0x09030201, 0x09030201, 0xcc },
        { 0,
          16,
          { 0xb8, 1, 2, 3, 4, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 4, 6 },
          true,
          0x04030201,
          0x04030201,
          6 }, /* written as it was: written again */
        { 0, 5, { 0xb8, 1, 2, 3, 4 }, true, 0xcccccccc, 0xcccccccc, 0xcc },
        { 5, 1, { 0x90 }, true, 0xcccccccc, 0xcccccccc, 0xcc },
        { 0, 1, { 0xb9 }, false, 0xcccccccc, 0xcccccccc, 0xcc },
        { 4, 2, { 9, 0 }, false, 0xcccccccc, 0xcccccccc, 0xcc },
        { 14, 2, { 5, 9 }, false, 0xcccccccc, 0xcccccccc, 0xcc },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct tc_fixture *fx = tc_fixture_new(1u << 20);
        struct ccf *c = patchable(fx, 0x5100, CCF_ONE_PAGE), *other = at(fx, 0x5110, 16);
        uint64_t generation = tcache_generation(fx->tc);
        uint32_t hot, cold;

        assert_int_equal(
            tcache_written(fx->tc, gpa(0x5100 + cases[i].from), cases[i].now, cases[i].len, DROP_WRITE), 1);
        assert_int_equal(c->live, cases[i].lives);
        assert_int_equal(tcache_generation(fx->tc) == generation, cases[i].lives);
        memcpy(&hot, c->hot + 33, 4);
        memcpy(&cold, c->cold + 41, 4);
        assert_int_equal(hot, cases[i].hot);
        assert_int_equal(cold, cases[i].cold);
        assert_int_equal(c->hot[50], cases[i].byte);
        assert_int_equal(c->hot[32], 0xcc);
        assert_int_equal(c->hot[37], 0xcc);
        assert_true(other->live);
        assert_int_equal(tcache_audit(fx->tc), 0);
        tc_fixture_free(fx);
    }
}

static void constant_in_two_pages_is_patched_by_either(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = patchable(fx, 0x5ffd, 9); /* two bytes of the first constant in page 9 */
    const uint8_t first[1] = { 0x11 }, second[2] = { 0x33, 0x44 }, code[1] = { 0 };
    uint32_t hot;

    (void)state;
    assert_int_equal(tcache_written(fx->tc, gpa(0x5ffe), first, 1, DROP_WRITE), 1);
    assert_int_equal(tcache_written(fx->tc, gpa(0x9000), second, 2, DROP_WRITE), 1);
    assert_true(c->live);
    memcpy(&hot, c->hot + 33, 4);
    assert_int_equal(hot, 0x44330211);
    assert_int_equal(tcache_written(fx->tc, gpa(0x9002), code, 1, DROP_WRITE), 1);
    assert_false(c->live);
    tc_fixture_free(fx);
}

static void what_is_not_made_for_it_is_dropped(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = at(fx, 0x5100, 16);
    const uint8_t now[16] = { 0 };

    (void)state;
    assert_int_equal(tcache_written(fx->tc, gpa(0x5104), now, 4, DROP_WRITE), 1);
    assert_false(c->live);
    c = patchable(fx, 0x5100, CCF_ONE_PAGE);
    assert_int_equal(tcache_written(fx->tc, gpa(0x5101), NULL, 4, DROP_WRITE),
                     1); /* what is there is not known */
    assert_false(c->live);
    tc_fixture_free(fx);
}

/* A page may have been on the lowest level when a version was made: nobody knows then what it was made of. */
static void parked_version_without_its_bytes_stays_parked(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    const uint8_t bytes[4] = { 1, 2, 3, 4 };
    struct ccf *gate = tc_make(fx, &(struct ccf_wish){ .pa = 0x5100,
                                                       .eip = 0x5100,
                                                       .guest_len = 1,
                                                       .is_gate = true,
                                                       .nlinks = 1,
                                                       .target = { 0x5100 } });
    struct ccf_wish wish = { .pa = 0x5100, .eip = 0x5100, .guest_len = sizeof bytes, .gate = gate };
    struct ccf *unknown = tc_make(fx, &wish), *known;

    (void)state;
    assert_int_equal(tcache_written(fx->tc, gpa(0x5101), bytes, 1, DROP_WRITE), 1);
    assert_true(unknown->is_parked);
    assert_null(tcache_gate_open(fx->tc, gate, bytes, sizeof bytes));
    wish.source = bytes;
    known = tc_make(fx, &wish);
    assert_int_equal(tcache_written(fx->tc, gpa(0x5101), (const uint8_t[]){ 9 }, 1, DROP_WRITE), 1);
    assert_ptr_equal(tcache_gate_open(fx->tc, gate, bytes, sizeof bytes), known);
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_is_traced_from_its_first_ccf_to_its_last),
        cmocka_unit_test(write_drops_what_it_touches_and_nothing_else),
        cmocka_unit_test(overlapping_ccfs_go_together),
        cmocka_unit_test(granules_cover_every_byte_of_a_page),
        cmocka_unit_test(ccf_of_two_pages_goes_with_either),
        cmocka_unit_test(ccf_whose_two_pages_are_one),
        cmocka_unit_test(many_straddlers_in_chains_of_pages),
        cmocka_unit_test(causes_are_counted_apart),
        cmocka_unit_test(pages_above_4_gib_are_their_own),
        cmocka_unit_test(page_mapped_at_many_addresses),
        cmocka_unit_test(constants_are_patched_and_nothing_else),
        cmocka_unit_test(constant_in_two_pages_is_patched_by_either),
        cmocka_unit_test(what_is_not_made_for_it_is_dropped),
        cmocka_unit_test(parked_version_without_its_bytes_stays_parked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
