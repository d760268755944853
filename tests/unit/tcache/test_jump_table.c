/* Jump tables: what a slot holds, and each way of emptying it. */
#include "tests/unit/tcache/fixture.h"

static const uint8_t *slot(const struct tc_fixture *fx, unsigned view, uint32_t eip)
{
    return ((const uint8_t *const *)(const void *)fx->jump_table[view])[(uint16_t)eip];
}

static bool is_empty(const struct tc_fixture *fx, unsigned view, uint32_t eip)
{
    return slot(fx, view, eip) == fx->miss_stub;
}

static struct ccf *at(struct tc_fixture *fx, uint32_t eip)
{
    return tc_make(fx, &(struct ccf_wish){ .pa = eip & 0x3ffff, .eip = eip });
}

static void every_slot_starts_with_the_miss_stub(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    for (uint32_t i = 0; i < VIEW_JT_ENTRIES; i++)
        assert_true(is_empty(fx, 0, i) && is_empty(fx, 1, i));
    tc_fixture_free(fx);
}

static void filled_slot_leads_to_the_verify_entry_in_its_view_only(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = at(fx, 0xc0001234);

    (void)state;
    tcache_jt_fill(fx->tc, 1, c, false);
    assert_ptr_equal(slot(fx, 1, 0x1234), c->hot + FX_VERIFY);
    assert_true(is_empty(fx, 0, 0x1234));
    assert_int_equal(fx->cpu->stats.jt_fill, 1);
    tc_fixture_free(fx);
}

static void equal_low_halves_take_turns(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = at(fx, 0xc0001234), *b = at(fx, 0xc0011234);

    (void)state;
    tcache_jt_fill(fx->tc, 0, a, false);
    tcache_jt_fill(fx->tc, 0, b, false);
    assert_ptr_equal(slot(fx, 0, 0x1234), b->hot);
    tcache_drop(fx->tc, a, DROP_WRITE); /* not its slot any more */
    assert_ptr_equal(slot(fx, 0, 0x1234), b->hot);
    tcache_drop(fx->tc, b, DROP_WRITE);
    assert_true(is_empty(fx, 0, 0x1234));
    tc_fixture_free(fx);
}

static void dropping_a_ccf_empties_its_slot_in_both_views(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *c = at(fx, 0x1234);

    (void)state;
    tcache_jt_fill(fx->tc, 0, c, true);
    tcache_jt_fill(fx->tc, 1, c, true);
    tcache_drop(fx->tc, c, DROP_WRITE);
    assert_true(is_empty(fx, 0, 0x1234) && is_empty(fx, 1, 0x1234));
    assert_int_equal(tcache_audit(fx->tc), 0);
    struct ccf *again = at(fx, 0x1234); /* the slot can be used again, and dropped again */
    tcache_jt_fill(fx->tc, 0, again, false);
    assert_ptr_equal(slot(fx, 0, 0x1234), again->hot);
    tcache_jt_drop_all(fx->tc, 0, false);
    assert_true(is_empty(fx, 0, 0x1234));
    tc_fixture_free(fx);
}

static void drop_all_can_keep_the_global_ones(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        tcache_jt_fill(fx->tc, 0, at(fx, 0x1000 + 64 * i), i % 2);
    for (int round = 0; round < 2; round++) {
        tcache_jt_drop_all(fx->tc, 0, true);
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(is_empty(fx, 0, 0x1000 + 64 * i), i % 2 == 0);
    }
    tcache_jt_drop_all(fx->tc, 0, false);
    for (uint32_t i = 0; i < 100; i++)
        assert_true(is_empty(fx, 0, 0x1000 + 64 * i));
    tc_fixture_free(fx);
}

/* A slot's globality is that of its last filling. */
static void refilling_a_slot_renews_its_globality(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = at(fx, 0xc0001234), *b = at(fx, 0xc0011234);

    (void)state;
    tcache_jt_fill(fx->tc, 0, a, true);
    tcache_jt_fill(fx->tc, 0, b, false);
    tcache_jt_drop_all(fx->tc, 0, true);
    assert_true(is_empty(fx, 0, 0x1234));
    tc_fixture_free(fx);
}

static void drop_range_takes_the_page_and_what_straddles_into_it(void **state)
{
    static const struct {
        uint32_t eip;
        bool gone;
    } cases[] = { { 0xc0004fef, false }, { 0xc0004ff1, true },  { 0xc0004fff, true }, { 0xc0005000, true },
                  { 0xc0005fff, true },  { 0xc0006000, false }, { 0xb0005800, false } };
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        tcache_jt_fill(fx->tc, 0, at(fx, cases[i].eip), true);
    tcache_jt_drop_range(fx->tc, 1, gva(0xc0005000), 0x1000); /* the other view's */
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        assert_false(is_empty(fx, 0, cases[i].eip));
    tcache_jt_drop_range(fx->tc, 0, gva(0xc0005000), 0x1000);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(is_empty(fx, 0, cases[i].eip), cases[i].gone);
    tcache_jt_drop_all(fx->tc, 0, false); /* those kept are still known */
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        assert_true(is_empty(fx, 0, cases[i].eip));
    tc_fixture_free(fx);
}

static void drop_range_works_at_both_ends_of_the_address_space(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);

    (void)state;
    tcache_jt_fill(fx->tc, 0, at(fx, 0xfffffff8), false);
    tcache_jt_fill(fx->tc, 0, at(fx, 0x00000010), false);
    tcache_jt_drop_range(fx->tc, 0, gva(0), 0x1000);
    assert_true(is_empty(fx, 0, 0xfff8)); /* it may straddle into page 0 */
    assert_true(is_empty(fx, 0, 0x0010));
    tcache_jt_fill(fx->tc, 0, at(fx, 0xfffff800), false);
    tcache_jt_drop_range(fx->tc, 0, gva(0xffc00000), 0x400000);
    assert_true(is_empty(fx, 0, 0xf800));
    tc_fixture_free(fx);
}

static void table_can_be_filled_to_the_last_slot_again_and_again(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(32u << 20);
    struct ccf *c = at(fx, 0);

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < VIEW_JT_ENTRIES; i++) {
            c->key.eip = i; /* the table asks for no more than the EIP and the entry */
            tcache_jt_fill(fx->tc, 0, c, i & 1);
        }
        tcache_jt_drop_all(fx->tc, 0, round & 1);
    }
    tcache_jt_drop_all(fx->tc, 0, false);
    for (uint32_t i = 0; i < VIEW_JT_ENTRIES; i++)
        assert_true(is_empty(fx, 0, i));
    tc_fixture_free(fx);
}

static struct ccf *in_page_5(struct tc_fixture *fx, uint32_t eip)
{
    return tc_make(fx, &(struct ccf_wish){ .pa = 0x5000 | (eip & GUEST_PAGE_MASK), .eip = eip });
}

static void warming_brings_back_what_starts_in_the_page_under_that_address(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = in_page_5(fx, 0x08048000), *b = in_page_5(fx, 0x08048100);

    (void)state;
    in_page_5(fx, 0x09048200); /* the same page by another address */
    tc_make(fx, &(struct ccf_wish){ .pa = 0x5ff8, .eip = 0x08048ff8, .two_pages = true, .pfn2 = 6 });
    tcache_jt_warm(fx->tc, 1, 0x08048, 5, FX_MODE | MODE_CPL3, false); /* of another mode */
    assert_true(is_empty(fx, 1, 0x8000));
    tcache_jt_drop_all(fx->tc, 1, false);
    tcache_jt_warm(fx->tc, 1, 0x08048, 5, FX_MODE, false);
    assert_ptr_equal(slot(fx, 1, 0x8000), a->hot);
    assert_ptr_equal(slot(fx, 1, 0x8100), b->hot);
    assert_true(is_empty(fx, 1, 0x8200) && is_empty(fx, 1, 0x8ff8) && is_empty(fx, 0, 0x8000));
    tcache_jt_drop_range(fx->tc, 1, gva(0x08048000), 0x1000);
    assert_true(is_empty(fx, 1, 0x8000));
    tcache_jt_warm(fx->tc, 1, 0x08048, 5, FX_MODE, false); /* once more after each drop */
    assert_ptr_equal(slot(fx, 1, 0x8000), a->hot);
    tcache_drop(fx->tc, a, DROP_WRITE);
    tcache_jt_drop_all(fx->tc, 1, true);
    tcache_jt_warm(fx->tc, 1, 0x08048, 5, FX_MODE, true);
    assert_true(is_empty(fx, 1, 0x8000));
    assert_ptr_equal(slot(fx, 1, 0x8100), b->hot);
    tcache_jt_warm(fx->tc, 1, 0x0804a, 7, FX_MODE, false); /* a page without code */
    assert_int_equal(tcache_audit(fx->tc), 0);
    tc_fixture_free(fx);
}

static void a_slot_is_empty_until_filled_and_after_a_drop_not_when_another_took_it(void **state)
{
    struct tc_fixture *fx = tc_fixture_new(1u << 20);
    struct ccf *a = in_page_5(fx, 0x08048000);

    (void)state;
    assert_true(tcache_jt_is_empty(fx->tc, 1, 0x08048000));
    tcache_jt_fill(fx->tc, 1, a, false);
    assert_false(tcache_jt_is_empty(fx->tc, 1, 0x08048000));
    assert_false(tcache_jt_is_empty(fx->tc, 1, 0x0a118000)); /* of the same slot */
    assert_true(tcache_jt_is_empty(fx->tc, 0, 0x08048000));
    tcache_jt_drop_all(fx->tc, 1, false);
    assert_true(tcache_jt_is_empty(fx->tc, 1, 0x08048000));
    tc_fixture_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_slot_starts_with_the_miss_stub),
        cmocka_unit_test(filled_slot_leads_to_the_verify_entry_in_its_view_only),
        cmocka_unit_test(equal_low_halves_take_turns),
        cmocka_unit_test(dropping_a_ccf_empties_its_slot_in_both_views),
        cmocka_unit_test(drop_all_can_keep_the_global_ones),
        cmocka_unit_test(refilling_a_slot_renews_its_globality),
        cmocka_unit_test(drop_range_takes_the_page_and_what_straddles_into_it),
        cmocka_unit_test(drop_range_works_at_both_ends_of_the_address_space),
        cmocka_unit_test(table_can_be_filled_to_the_last_slot_again_and_again),
        cmocka_unit_test(warming_brings_back_what_starts_in_the_page_under_that_address),
        cmocka_unit_test(a_slot_is_empty_until_filled_and_after_a_drop_not_when_another_took_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
