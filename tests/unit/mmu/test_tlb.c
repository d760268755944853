/* What fills the slot tables and the fetch TLB, and what empties them. */
#include "fixture.h"

#define VA  0x40801000u
#define VA2 0x40802000u
#define RWU (PTE_P | PTE_W | PTE_US)

static uint64_t value_of(struct fixture *fx, uint32_t va, uint32_t pa)
{
    return (uint64_t)(uintptr_t)(fx->ram + pa) - va;
}

static gpa_t fetch(struct fixture *fx, uint32_t va)
{
    gpa_t pa = { 0 };
    bool is_global;

    assert_int_equal(mmu_fetch(fx->cpu, gva(va), &pa, &is_global), X86_OK);
    return pa;
}

static bool has_event(struct fixture *fx, enum event_kind kind, uint64_t addr, uint32_t size, uint32_t value)
{
    for (unsigned i = 0; i < fx->nevents && i < MAX_EVENTS; i++) {
        const struct event *e = &fx->event[i];
        if (e->kind == kind && e->addr == addr && e->size == size && e->value == value)
            return true;
    }
    return false;
}

static void read_fills_the_load_slot_only(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    assert_ptr_equal(fx_probe(fx, VA + 5, ACC_READ), fx->ram + 0x234005);
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA), value_of(fx, VA, 0x234000));
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
    assert_int_equal(fx_load_slot(fx, VIEW_USER, VA), 0);
    assert_int_equal(fx->cpu->stats.mem_fill_load, 1);
    fx_assert_clean(fx);
}

static void write_fills_both_slots_once_dirty(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    assert_ptr_equal(fx_probe(fx, VA, ACC_WRITE | ACC_USER), fx->ram + 0x234000);
    assert_int_equal(fx_load_slot(fx, VIEW_USER, VA), value_of(fx, VA, 0x234000));
    assert_int_equal(fx_store_slot(fx, VIEW_USER, VA), value_of(fx, VA, 0x234000));
    assert_int_equal(fx_get32(fx, fx_pte(fx, VA)) & (PTE_A | PTE_D), PTE_A | PTE_D);
    assert_int_equal(fx->cpu->stats.mem_fill_store, 1);
    fx_assert_clean(fx);
}

static void views_have_their_own_rights(void **state)
{
    struct fixture *fx = *state;
    hva_t hva;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_W);
    fx_probe(fx, VA, ACC_WRITE);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA), 1, ACC_READ | ACC_USER, &hva), X86_FAULT);
    assert_int_equal(fx->cpu->fault.error, PF_P | PF_US);
    assert_int_equal(fx_load_slot(fx, VIEW_USER, VA), 0);
}

static void supervisor_stores_to_read_only_pages_follow_wp(void **state)
{
    struct fixture *fx = *state;
    hva_t hva;

    fx_paging(fx, 0);
    fx->cpu->cr0 &= ~CR0_WP;
    fx_map(fx, VA, 0x234000, PTE_P | PTE_US);
    assert_non_null(fx_probe(fx, VA, ACC_WRITE));
    assert_int_not_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
    fx->cpu->cr0 |= CR0_WP;
    mmu_flush_all(fx->cpu);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA), 1, ACC_WRITE, &hva), X86_FAULT);
    fx_assert_clean(fx);
}

static void stale_entry_lives_until_invlpg(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    fx_probe(fx, VA, ACC_READ);
    fx_probe(fx, VA, ACC_READ | ACC_USER);
    fx_map(fx, VA, 0x235000, RWU);
    assert_ptr_equal(fx_probe(fx, VA, ACC_READ), fx->ram + 0x234000);
    mmu_invlpg(fx->cpu, gva(VA + 0x123));
    assert_ptr_equal(fx_probe(fx, VA, ACC_READ), fx->ram + 0x235000);
    assert_ptr_equal(fx_probe(fx, VA, ACC_READ | ACC_USER), fx->ram + 0x235000);
    assert_int_equal(fx->cpu->stats.invlpg, 1);
    fx_assert_clean(fx);
}

static void invlpg_leaves_neighbours_alone(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    fx_map(fx, VA2, 0x235000, RWU);
    fx_probe(fx, VA, ACC_READ);
    fx_probe(fx, VA2, ACC_READ);
    mmu_invlpg(fx->cpu, gva(VA));
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA), 0);
    assert_int_not_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA2), 0);
}

static void cr3_load_drops_all_but_global(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PGE);
    fx_map(fx, VA, 0x234000, RWU);
    fx_map(fx, VA2, 0x235000, RWU | PTE_G);
    fx_probe(fx, VA, ACC_WRITE);
    fx_probe(fx, VA2, ACC_WRITE);
    mmu_cr3_loaded(fx->cpu);
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA), 0);
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA), 0);
    assert_int_not_equal(fx_store_slot(fx, VIEW_SUPERVISOR, VA2), 0);
    fx_assert_clean(fx);
    mmu_invlpg(fx->cpu, gva(VA2)); /* takes global pages as well */
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA2), 0);
    fx_assert_clean(fx);
}

static void page_that_turns_global_survives_and_back(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PGE);
    for (int round = 0; round < 3; round++) {
        fx_map(fx, VA, 0x234000, RWU);
        mmu_invlpg(fx->cpu, gva(VA));
        fx_probe(fx, VA, ACC_READ);
        fx_map(fx, VA, 0x234000, RWU | PTE_G);
        mmu_invlpg(fx->cpu, gva(VA));
        fx_probe(fx, VA, ACC_READ);
        mmu_cr3_loaded(fx->cpu);
        assert_int_not_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA), 0);
        fx_map(fx, VA, 0x234000, RWU);
        mmu_invlpg(fx->cpu, gva(VA));
        fx_probe(fx, VA, ACC_READ);
        mmu_cr3_loaded(fx->cpu);
        assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA), 0);
        fx_assert_clean(fx);
    }
}

static void flush_drops_global_entries_too(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PGE);
    fx_map(fx, VA, 0x234000, RWU | PTE_G);
    fx_probe(fx, VA, ACC_READ);
    fx_probe(fx, VA, ACC_WRITE | ACC_USER);
    mmu_flush_all(fx->cpu);
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, VA), 0);
    assert_int_equal(fx_store_slot(fx, VIEW_USER, VA), 0);
    fx_assert_clean(fx);
}

static void invlpg_drops_a_whole_large_page(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PSE | CR4_PGE);
    fx_map(fx, 0xc0000000u, 0x800000, RWU | PTE_PS | PTE_G);
    fx_map(fx, 0xc0400000u, 0xc00000, RWU | PTE_PS | PTE_G);
    fx_probe(fx, 0xc0001000u, ACC_READ);
    fx_probe(fx, 0xc03ff000u, ACC_WRITE);
    fx_probe(fx, 0xc0200000u, ACC_READ | ACC_USER);
    fx_probe(fx, 0xc0400000u, ACC_READ);
    mmu_invlpg(fx->cpu, gva(0xc0123456u));
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, 0xc0001000u), 0);
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, 0xc03ff000u), 0);
    assert_int_equal(fx_load_slot(fx, VIEW_USER, 0xc0200000u), 0);
    assert_int_not_equal(fx_load_slot(fx, VIEW_SUPERVISOR, 0xc0400000u), 0);
    fx_assert_clean(fx);
}

static void page_fault_drops_what_the_tlb_had_for_it(void **state)
{
    struct fixture *fx = *state;
    hva_t hva;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_US);
    fx_probe(fx, VA, ACC_READ);
    fx_map(fx, VA, 0x235000, PTE_P | PTE_US);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA), 1, ACC_WRITE, &hva), X86_FAULT);
    assert_ptr_equal(fx_probe(fx, VA, ACC_READ), fx->ram + 0x235000);
}

static void store_walk_renews_the_load_slot(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    fx_probe(fx, VA, ACC_READ);
    fx_map(fx, VA, 0x235000, RWU);
    assert_ptr_equal(fx_probe(fx, VA, ACC_WRITE), fx->ram + 0x235000);
    assert_ptr_equal(fx_probe(fx, VA, ACC_READ), fx->ram + 0x235000);
    fx_map(fx, VA2, 0x234000, RWU);
    fx_probe(fx, VA2, ACC_READ);
    fx_map(fx, VA2, MMIO_PA, RWU);
    assert_null(fx_probe(fx, VA2, ACC_WRITE));
    assert_null(fx_probe(fx, VA2, ACC_READ));
    fx_assert_clean(fx);
}

static void rom_and_devices_get_no_store_slot(void **state)
{
    struct fixture *fx = *state;

    assert_non_null(fx_probe(fx, ROM_PA, ACC_READ));
    assert_null(fx_probe(fx, ROM_PA, ACC_WRITE));
    assert_null(fx_probe(fx, MMIO_PA, ACC_READ));
    assert_null(fx_probe(fx, MMIO_PA, ACC_WRITE));
    assert_null(fx_probe(fx, RAM_BYTES, ACC_READ));
    assert_null(fx_probe(fx, 0xfffffff0u, ACC_WRITE));
    assert_non_null(fx_probe(fx, RAM_BYTES - 1, ACC_WRITE));
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, MMIO_PA), 0);
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, ROM_PA), 0);
    fx_assert_clean(fx);
}

static void new_region_drops_old_slots(void **state)
{
    struct fixture *fx = *state;

    fx_probe(fx, 0xb8000, ACC_WRITE);
    mmu_set_region(fx->m, gpa(0xb8000), 0x8000, REGION_MMIO);
    assert_null(fx_probe(fx, 0xb8000, ACC_WRITE));
    assert_null(fx_probe(fx, 0xbffff, ACC_READ));
    assert_non_null(fx_probe(fx, 0xc0000, ACC_READ));
    fx_assert_clean(fx);
}

static void a20_is_part_of_the_mapping(void **state)
{
    struct fixture *fx = *state;

    fx_probe(fx, 0x100000, ACC_WRITE);
    fx->cpu->a20_off = true;
    mmu_flush_all(fx->cpu);
    assert_ptr_equal(fx_probe(fx, 0x100010, ACC_WRITE), fx->ram + 0x10);
    fx_assert_clean(fx);
}

static void view_follows_the_cpl(void **state)
{
    struct fixture *fx = *state;

    for (uint8_t cpl = 0; cpl < 4; cpl++) {
        fx->cpu->cpl = cpl;
        mmu_select_view(fx->cpu);
        assert_int_equal(fx->cpu->view_base,
                         (uintptr_t)mmu_view_base(fx->m, cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR));
    }
}

/* ---- fetch ------------------------------------------------------------------------ */

static void fetch_translates_under_the_cpl(void **state)
{
    struct fixture *fx = *state;
    gpa_t pa;
    bool is_global;

    fx_paging(fx, CR4_PGE);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_G);
    assert_int_equal(mmu_fetch(fx->cpu, gva(VA + 0x567), &pa, &is_global), X86_OK);
    assert_int_equal(pa.v, 0x234567);
    assert_true(is_global);
    assert_int_equal(fx_get32(fx, fx_pte(fx, VA)) & (PTE_A | PTE_D), PTE_A);
    fx->cpu->cpl = 3;
    assert_int_equal(mmu_fetch(fx->cpu, gva(VA + 0x567), &pa, &is_global), X86_FAULT);
    assert_int_equal(fx->cpu->fault.error, PF_P | PF_US);
    assert_int_equal(fx->cpu->fault.cr2, VA + 0x567);
    fx_assert_clean(fx);
}

static void fetch_fault_shows_i_with_nx(void **state)
{
    struct fixture *fx = *state;
    gpa_t pa;
    bool is_global;

    fx_paging(fx, CR4_PAE);
    fx->cpu->efer = EFER_NXE;
    fx_map(fx, VA, 0x234000, RWU | PTE_NX);
    fx->cpu->cpl = 3;
    assert_int_equal(mmu_fetch(fx->cpu, gva(VA), &pa, &is_global), X86_FAULT);
    assert_int_equal(fx->cpu->fault.error, PF_P | PF_US | PF_ID);
}

static void fetch_mapping_is_as_stale_as_the_tlb(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    fetch(fx, VA);
    fx_map(fx, VA, 0x235000, RWU);
    assert_int_equal(fetch(fx, VA).v, 0x234000);
    mmu_invlpg(fx->cpu, gva(VA));
    assert_true(has_event(fx, EV_DROP_RANGE, VA, 4096, VIEW_SUPERVISOR));
    assert_int_equal(fx->nevents, 1); /* the user view had fetched nothing */
    assert_int_equal(fetch(fx, VA).v, 0x235000);
    mmu_invlpg(fx->cpu, gva(VA2));
    assert_int_equal(fx->nevents, 1);
    fx_assert_clean(fx);
}

static void cr3_load_reports_only_fetched_views(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PGE);
    fx_map(fx, VA, 0x234000, RWU | PTE_G);
    fx_map(fx, VA2, 0x235000, RWU);
    fetch(fx, VA);
    fx_probe(fx, VA2, ACC_WRITE);
    mmu_cr3_loaded(fx->cpu);
    assert_int_equal(fx->nevents, 0); /* only a global page was fetched */
    fx->cpu->cpl = 3;
    fetch(fx, VA2);
    mmu_cr3_loaded(fx->cpu);
    assert_int_equal(fx->nevents, 1);
    assert_true(has_event(fx, EV_DROP_ALL, 0, true, VIEW_USER));
    mmu_cr3_loaded(fx->cpu);
    assert_int_equal(fx->nevents, 1);
    fx->cpu->cpl = 0;
    fx_map(fx, VA, 0x236000, RWU | PTE_G);
    assert_int_equal(fetch(fx, VA).v, 0x234000); /* the global one is still there */
    mmu_flush_all(fx->cpu);
    assert_true(has_event(fx, EV_DROP_ALL, 0, false, VIEW_SUPERVISOR));
    assert_int_equal(fetch(fx, VA).v, 0x236000);
    fx_assert_clean(fx);
}

static void dropped_large_page_reports_its_region(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PSE | CR4_PGE);
    fx_map(fx, 0xc0000000u, 0x800000, RWU | PTE_PS | PTE_G);
    fetch(fx, 0xc0001000u);
    fetch(fx, 0xc0002000u);
    mmu_invlpg(fx->cpu, gva(0xc0300000u));
    assert_int_equal(fx->nevents, 1);
    assert_true(has_event(fx, EV_DROP_RANGE, 0xc0000000u, 4u << 20, VIEW_SUPERVISOR));
    fx_assert_clean(fx);
}

static void fetches_that_share_an_entry_are_all_reported(void **state)
{
    struct fixture *fx = *state;
    uint32_t other = VA + (512u << 12);

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    fx_map(fx, other, 0x235000, RWU);
    fetch(fx, VA);
    fetch(fx, other); /* takes the entry of the first */
    mmu_invlpg(fx->cpu, gva(VA));
    assert_true(has_event(fx, EV_DROP_RANGE, VA, 4096, VIEW_SUPERVISOR));
    fx_assert_clean(fx);
    fx_map(fx, other, 0x236000, RWU);
    assert_int_equal(fetch(fx, other).v, 0x235000);
}

/* ---- when fixed memory runs out ------------------------------------------------------ */

static void full_list_wipes_the_view(void **state)
{
    struct fixture *fx = *state;
    unsigned limit = 65536;

    fx_probe(fx, 0x5000, ACC_WRITE);
    for (unsigned i = 1; i < limit; i++)
        fetch(fx, 0x10000000u + (i << 12));
    assert_int_equal(fx->nevents, 0);
    fx_assert_clean(fx);
    fetch(fx, 0x0fff0000u);
    assert_int_equal(fx->nevents, 1);
    assert_true(has_event(fx, EV_DROP_ALL, 0, false, VIEW_SUPERVISOR));
    assert_int_equal(fx_load_slot(fx, VIEW_SUPERVISOR, 0x5000), 0);
    assert_int_equal(fetch(fx, 0x0fff0123u).v, 0x0fff0123u);
    fx_assert_clean(fx);
    mmu_invlpg(fx->cpu, gva(0x0fff0000u));
    assert_true(has_event(fx, EV_DROP_RANGE, 0x0fff0000u, 4096, VIEW_SUPERVISOR));
}

static void wipe_spares_the_jump_table(void **state)
{
    struct fixture *fx = *state;
    uint8_t *jt = mmu_view_base(fx->m, VIEW_SUPERVISOR) + VIEW_JT_OFS;

    jt[0] = jt[VIEW_JT_ENTRIES * 8 - 1] = 0x5a;
    for (unsigned i = 0; i <= 65536; i++)
        fetch(fx, 0x10000000u + (i << 12));
    assert_int_equal(jt[0], 0x5a);
    assert_int_equal(jt[VIEW_JT_ENTRIES * 8 - 1], 0x5a);
}

static void full_reverse_map_starts_again(void **state)
{
    uint64_t ram = 1ull << 30;
    struct fixture *fx = fx_new(ram);

    (void)state;
    /* Each page gets a node. The user view's part keeps the pool from running out just when the
     * supervisor's list does. */
    for (uint64_t pa = 0x100000; pa < 0x500000; pa += 4096)
        fx_probe(fx, (uint32_t)pa, ACC_WRITE | ACC_USER);
    for (uint64_t pa = 0x100000; pa < ram; pa += 4096) {
        assert_ptr_equal(fx_probe(fx, (uint32_t)pa, ACC_WRITE), fx->ram + pa);
        if (pa % (32u << 20) == 0)
            fx_assert_clean(fx);
    }
    fx_assert_clean(fx);
    mmu_trace_add(fx->m, gpa(ram - 4096));
    assert_int_equal(fx_store_slot(fx, VIEW_SUPERVISOR, (uint32_t)ram - 4096), 0);
    fx_assert_clean(fx);
    fx_free(fx);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(read_fills_the_load_slot_only),
        TEST(write_fills_both_slots_once_dirty),
        TEST(views_have_their_own_rights),
        TEST(supervisor_stores_to_read_only_pages_follow_wp),
        TEST(stale_entry_lives_until_invlpg),
        TEST(invlpg_leaves_neighbours_alone),
        TEST(cr3_load_drops_all_but_global),
        TEST(page_that_turns_global_survives_and_back),
        TEST(flush_drops_global_entries_too),
        TEST(invlpg_drops_a_whole_large_page),
        TEST(page_fault_drops_what_the_tlb_had_for_it),
        TEST(store_walk_renews_the_load_slot),
        TEST(rom_and_devices_get_no_store_slot),
        TEST(new_region_drops_old_slots),
        TEST(a20_is_part_of_the_mapping),
        TEST(view_follows_the_cpl),
        TEST(fetch_translates_under_the_cpl),
        TEST(fetch_fault_shows_i_with_nx),
        TEST(fetch_mapping_is_as_stale_as_the_tlb),
        TEST(cr3_load_reports_only_fetched_views),
        TEST(dropped_large_page_reports_its_region),
        TEST(fetches_that_share_an_entry_are_all_reported),
        TEST(full_list_wipes_the_view),
        TEST(wipe_spares_the_jump_table),
        cmocka_unit_test(full_reverse_map_starts_again),
    };

    return cmocka_run_group_tests_name("mmu tlb", tests, NULL, NULL);
}
