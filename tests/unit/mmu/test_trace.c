/* Memory traces: every way to a traced page, aliases and both views included. */
#include "fixture.h"
#include "mmu/mmu_internal.h"

#define VA    0x40801000u
#define ALIAS 0x50809000u
#define PA    0x234000u
#define RWU   (PTE_P | PTE_W | PTE_US)

static struct fixture *with_aliases(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, PA, RWU);
    fx_map(fx, ALIAS, PA, RWU);
    return fx;
}

static void trace_clears_store_slots_of_all_aliases_and_views(void **state)
{
    struct fixture *fx = with_aliases(state);

    fx_probe(fx, VA, ACC_WRITE);
    fx_probe(fx, ALIAS, ACC_WRITE);
    fx_probe(fx, VA, ACC_WRITE | ACC_USER);
    fx_probe(fx, ALIAS, ACC_WRITE | ACC_USER);
    mmu_trace_add(fx->m, gpa(PA + 0x10));
    assert_true(mmu_is_traced(fx->m, gpa(PA + 0xfff)));
    for (unsigned view = 0; view < VIEW_COUNT; view++) {
        assert_int_equal(fx_store_slot(fx, view, VA), 0);
        assert_int_equal(fx_store_slot(fx, view, ALIAS), 0);
        assert_int_not_equal(fx_load_slot(fx, view, VA), 0);
        assert_int_not_equal(fx_load_slot(fx, view, ALIAS), 0);
    }
    fx_assert_clean(fx);
}

static void write_to_a_traced_page_lands_and_then_reports(void **state)
{
    struct fixture *fx = with_aliases(state);
    uint32_t value = 0x11223344;

    mmu_trace_add(fx->m, gpa(PA));
    assert_null(fx_probe(fx, ALIAS, ACC_WRITE));
    assert_int_equal(mmu_write(fx->cpu, gva(ALIAS + 8), &value, 4, 0), X86_OK);
    assert_int_equal(fx_get32(fx, PA + 8), 0x11223344);
    assert_int_equal(fx->nevents, 1);
    assert_int_equal(fx->event[0].kind, EV_TRACED);
    assert_int_equal(fx->event[0].addr, PA + 8);
    assert_int_equal(fx->event[0].size, 4);
    assert_int_equal(fx->cpu->stats.traced_store, 1);
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, ALIAS), 0);
    assert_int_not_equal(fx_load_slot(fx, VIEW_SUPERVISOR, ALIAS), 0);
    fx_assert_clean(fx);
}

static void removed_trace_lets_slots_fill_again(void **state)
{
    struct fixture *fx = with_aliases(state);

    mmu_trace_add(fx->m, gpa(PA));
    assert_null(fx_probe(fx, VA, ACC_WRITE));
    mmu_trace_remove(fx->m, gpa(PA));
    assert_false(mmu_is_traced(fx->m, gpa(PA)));
    assert_ptr_equal(fx_probe(fx, VA, ACC_WRITE), fx->ram + PA);
    assert_int_not_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
    fx_assert_clean(fx);
}

static void node_of_a_moved_page_does_no_harm(void **state)
{
    struct fixture *fx = with_aliases(state);

    fx_probe(fx, VA, ACC_WRITE);
    fx_map(fx, VA, PA + 0x1000, RWU); /* the reverse map of PA still names VA */
    mmu_invlpg(fx->cpu, gva(VA));
    fx_probe(fx, VA, ACC_WRITE);
    mmu_trace_add(fx->m, gpa(PA));
    assert_int_not_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
    fx_assert_clean(fx);
    mmu_trace_add(fx->m, gpa(PA + 0x1000));
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
    fx_assert_clean(fx);
}

static void many_lives_of_a_page_leave_no_chain(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t va = 0x10000000u + (i % 700) * 0x1000;
        fx_map(fx, va, PA, RWU);
        fx_probe(fx, va, ACC_WRITE);
        fx_map(fx, va, 0, 0);
        mmu_cr3_loaded(fx->cpu);
    }
    assert_true(fx->m->rmap_fresh <= 3); /* each life took the node of the one before */
    fx_assert_clean(fx);
}

/* Programs that ended leave nodes behind; living slots survive the sweep that reclaims them. */
static void full_map_is_swept_before_it_is_flushed(void **state)
{
    struct fixture *fx = *state;

    fx->m->rmap_nodes = 64;
    fx_paging(fx, 0);
    fx_map(fx, VA, PA, RWU);
    fx_probe(fx, VA, ACC_WRITE);
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t va = 0x10000000u + i * 0x1000;
        fx_map(fx, va, PA + 0x1000 + (i % 16) * 0x1000, RWU);
        fx_probe(fx, va, ACC_WRITE);
        fx_map(fx, va, 0, 0);
        mmu_invlpg(fx->cpu, gva(va));
        assert_int_not_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
        assert_true(fx->m->rmap_fresh <= 64);
    }
    fx_assert_clean(fx);
}

static void map_full_of_living_nodes_flushes(void **state)
{
    struct fixture *fx = *state;

    fx->m->rmap_nodes = 64;
    fx_paging(fx, 0);
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t va = 0x10000000u + i * 0x1000;
        fx_map(fx, va, PA + (i % 16) * 0x1000, RWU);
        fx_probe(fx, va, ACC_WRITE);
        assert_int_not_equal(fx_store_slot(fx, VIEW_SUPERVISOR, va), 0);
        fx_assert_clean(fx);
    }
    mmu_trace_add(fx->m, gpa(PA));
    for (uint32_t i = 0; i < 500; i += 16)
        assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, 0x10000000u + i * 0x1000), 0);
}

static void physical_writes_report_page_by_page(void **state)
{
    struct fixture *fx = *state;
    uint8_t buf[0x1800];

    memset(buf, 0xa5, sizeof buf);
    mmu_trace_add(fx->m, gpa(PA));
    mmu_trace_add(fx->m, gpa(PA + 0x2000));
    mmu_phys_write(fx->m, gpa(PA + 0xc00), buf, sizeof buf);
    assert_int_equal(fx->nevents, 2);
    assert_int_equal(fx->event[0].addr, PA + 0xc00);
    assert_int_equal(fx->event[0].size, 0x400);
    assert_int_equal(fx->event[1].addr, PA + 0x2000);
    assert_int_equal(fx->event[1].size, 0x400);
    assert_memory_equal(fx->ram + PA + 0xc00, buf, sizeof buf);
    assert_int_equal(fx->cpu->stats.traced_store, 0); /* no store of the guest's */
}

static void traced_rom_reports_no_store(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 1;

    mmu_trace_add(fx->m, gpa(ROM_PA));
    assert_non_null(fx_probe(fx, ROM_PA, ACC_READ));
    assert_int_equal(mmu_write(fx->cpu, gva(ROM_PA), &value, 4, 0), X86_OK);
    assert_int_equal(fx->nevents, 0);
    assert_int_equal(fx_get32(fx, ROM_PA), 0);
    mmu_phys_write(fx->m, gpa(ROM_PA), &value, 4);
    assert_int_equal(fx->nevents, 0);
    fx_assert_clean(fx);
}

static void traces_outside_ram_are_ignored(void **state)
{
    struct fixture *fx = *state;

    mmu_trace_add(fx->m, gpa(0xfffff000u));
    assert_false(mmu_is_traced(fx->m, gpa(0xfffff000u)));
    mmu_trace_remove(fx->m, gpa(0xfffff000u));
}

static void write_across_two_traced_pages_reports_both(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 0x44332211;

    mmu_trace_add(fx->m, gpa(PA));
    mmu_trace_add(fx->m, gpa(PA + 0x1000));
    assert_int_equal(mmu_write(fx->cpu, gva(PA + 0xffd), &value, 4, 0), X86_OK);
    assert_int_equal(fx->nevents, 2);
    assert_int_equal(fx->event[0].addr, PA + 0xffd);
    assert_int_equal(fx->event[0].size, 3);
    assert_int_equal(fx->event[1].addr, PA + 0x1000);
    assert_int_equal(fx->event[1].size, 1);
    assert_int_equal(fx_get32(fx, PA + 0xffd), value);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(trace_clears_store_slots_of_all_aliases_and_views),
        TEST(write_to_a_traced_page_lands_and_then_reports),
        TEST(removed_trace_lets_slots_fill_again),
        TEST(node_of_a_moved_page_does_no_harm),
        TEST(many_lives_of_a_page_leave_no_chain),
        TEST(full_map_is_swept_before_it_is_flushed),
        TEST(map_full_of_living_nodes_flushes),
        TEST(physical_writes_report_page_by_page),
        TEST(traced_rom_reports_no_store),
        TEST(traces_outside_ram_are_ignored),
        TEST(write_across_two_traced_pages_reports_both),
    };

    return cmocka_run_group_tests_name("mmu trace", tests, NULL, NULL);
}
