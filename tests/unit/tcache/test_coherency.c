/* From written bytes to dropped CCFs: page lists, granule masks, traces, CCFs of two pages. */
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
