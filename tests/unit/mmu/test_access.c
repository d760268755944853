/* Accesses from C: page crossings, devices, ROM, physical memory. */
#include "fixture.h"

#define VA  0x40801000u
#define RWU (PTE_P | PTE_W | PTE_US)

static void crossing_access_is_bounced_and_both_pages_are_checked(void **state)
{
    struct fixture *fx = *state;
    hva_t hva = { fx->ram };
    uint32_t value = 0xaabbccdd, back = 0;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    fx_map(fx, VA + 0x1000, 0x777000, RWU);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA + 0xffe), 4, ACC_WRITE, &hva), X86_OK);
    assert_null(hva.p);
    assert_int_equal(mmu_write(fx->cpu, gva(VA + 0xffe), &value, 4, 0), X86_OK);
    assert_int_equal(fx->ram[0x234ffe], 0xdd);
    assert_int_equal(fx->ram[0x234fff], 0xcc);
    assert_int_equal(fx->ram[0x777000], 0xbb);
    assert_int_equal(fx->ram[0x777001], 0xaa);
    assert_int_equal(mmu_read(fx->cpu, gva(VA + 0xffe), &back, 4, ACC_USER), X86_OK);
    assert_int_equal(back, value);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA + 0xffc), 4, ACC_WRITE, &hva), X86_OK);
    assert_ptr_equal(hva.p, fx->ram + 0x234ffc); /* ends with the page: no crossing */
}

static void fault_on_the_second_page_names_it_and_writes_nothing(void **state)
{
    struct fixture *fx = *state;
    hva_t hva;
    uint32_t value = 0xaabbccdd;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA + 0xffe), 4, ACC_WRITE | ACC_USER, &hva), X86_FAULT);
    assert_int_equal(fx->cpu->fault.cr2, VA + 0x1000);
    assert_int_equal(fx->cpu->fault.error, PF_WR | PF_US);
    assert_int_equal(mmu_write(fx->cpu, gva(VA + 0xffe), &value, 4, ACC_USER), X86_FAULT);
    assert_int_equal(fx->cpu->fault.cr2, VA + 0x1000);
    assert_int_equal(fx->ram[0x234ffe], 0);
    fx_map(fx, VA, 0, 0);
    mmu_invlpg(fx->cpu, gva(VA));
    assert_int_equal(mmu_read(fx->cpu, gva(VA + 0xffe), &value, 4, 0), X86_FAULT);
    assert_int_equal(fx->cpu->fault.cr2, VA + 0xffe); /* the lower page comes first */
}

static void crossing_wraps_at_4_gib(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 0x04030201;

    fx_paging(fx, 0);
    fx_map(fx, 0xfffff000u, 0x234000, RWU);
    assert_int_equal(mmu_write(fx->cpu, gva(0xfffffffe), &value, 4, 0), X86_FAULT);
    assert_int_equal(fx->cpu->fault.cr2, 0);
    fx_map(fx, 0, 0x777000, RWU);
    assert_int_equal(mmu_write(fx->cpu, gva(0xfffffffe), &value, 4, 0), X86_OK);
    assert_int_equal(fx->ram[0x234fff], 2);
    assert_int_equal(fx->ram[0x777000], 3);
}

/* ---- watched pages ----------------------------------------------------------------- */

static void expect_watched(struct fixture *fx, uint32_t va, uint32_t size, bool is_write)
{
    assert_int_equal(fx->nevents, 1);
    assert_int_equal(fx->event[0].kind, EV_WATCHED);
    assert_int_equal(fx->event[0].addr, va);
    assert_int_equal(fx->event[0].size, size);
    assert_int_equal(fx->event[0].value, is_write);
    fx_clear_events(fx);
}

static void watched_page_has_no_slot_and_reports_each_access(void **state)
{
    struct fixture *fx = *state;
    const uint32_t page = VA >> GUEST_PAGE_SHIFT;
    uint64_t buf = 0x1122334455667788ull;
    hva_t hva;

    fx_paging(fx, 0);
    for (int i = -1; i <= 1; i++)
        fx_map(fx, VA + (uint32_t)(i * 0x1000), 0x234000 + (uint32_t)(i * 0x1000), RWU);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA + 8), 4, ACC_WRITE, &hva), X86_OK);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA + 8), 4, ACC_READ | ACC_USER, &hva), X86_OK);
    assert_non_null(hva.p);
    mmu_watch_pages(fx->cpu, (const uint32_t[]){ page, page }, 2);
    assert_int_equal(mmu_audit(fx->m), 0);
    fx_clear_events(fx);
    for (unsigned user = 0; user <= ACC_USER; user += ACC_USER) {
        assert_int_equal(mmu_probe(fx->cpu, gva(VA + 8), 4, ACC_READ | user, &hva), X86_OK);
        assert_null(hva.p); /* bounced, so that the access itself is seen */
        assert_int_equal(fx->nevents, 0);
        assert_int_equal(mmu_read(fx->cpu, gva(VA + 8), &buf, 4, user), X86_OK);
        expect_watched(fx, VA + 8, 4, false);
        assert_int_equal(mmu_write(fx->cpu, gva(VA + 0xffc), &buf, 8, user), X86_OK); /* into it and out of it */
        expect_watched(fx, VA + 0xffc, 8, true);
        assert_int_equal(mmu_write(fx->cpu, gva(VA - 1), &buf, 2, user), X86_OK);
        expect_watched(fx, VA - 1, 2, true);
        assert_int_equal(mmu_read(fx->cpu, gva(VA - 4), &buf, 4, user), X86_OK);
        assert_int_equal(mmu_read(fx->cpu, gva(VA + 0x1000), &buf, 4, user), X86_OK);
        assert_int_equal(fx->nevents, 0);
    }
    assert_int_equal(mmu_audit(fx->m), 0);
    mmu_watch_pages(fx->cpu, NULL, 0);
    assert_int_equal(mmu_probe(fx->cpu, gva(VA + 8), 4, ACC_WRITE, &hva), X86_OK);
    assert_ptr_equal(hva.p, fx->ram + 0x234008);
    assert_int_equal(mmu_write(fx->cpu, gva(VA + 8), &buf, 4, 0), X86_OK);
    assert_int_equal(fx->nevents, 0);
}

static void access_that_faults_is_not_reported(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 0;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, RWU);
    mmu_watch_pages(fx->cpu, (const uint32_t[]){ VA >> GUEST_PAGE_SHIFT }, 1);
    fx_clear_events(fx);
    assert_int_equal(mmu_write(fx->cpu, gva(VA + 0xffe), &value, 4, 0), X86_FAULT);
    for (unsigned i = 0; i < fx->nevents; i++)
        assert_int_not_equal(fx->event[i].kind, EV_WATCHED);
}

/* ---- devices ----------------------------------------------------------------------- */

struct mmio_case {
    uint32_t ofs, len;
    uint32_t size[6]; /* of the pieces, in order */
};

static const struct mmio_case mmio_cases[] = {
    { 0, 1, { 1 } },       { 3, 1, { 1 } },           { 2, 2, { 2 } },        { 1, 2, { 1, 1 } },
    { 4, 4, { 4 } },       { 2, 4, { 2, 2 } },        { 1, 4, { 1, 2, 1 } },  { 0, 8, { 4, 4 } },
    { 6, 8, { 2, 4, 2 } }, { 3, 10, { 1, 4, 4, 1 } }, { 0xffe, 4, { 2, 2 } },
};

static void device_accesses_are_split_and_aligned(void **state)
{
    struct fixture *fx = *state;

    for (size_t i = 0; i < ARRAY_LEN(mmio_cases); i++) {
        const struct mmio_case *c = &mmio_cases[i];
        uint8_t buf[16];
        uint32_t addr = MMIO_PA + c->ofs;

        fx_clear_events(fx);
        assert_int_equal(mmu_read(fx->cpu, gva(addr), buf, c->len, 0), X86_OK);
        for (uint32_t b = 0; b < c->len; b++)
            assert_int_equal(buf[b], (uint8_t)(addr + b));
        unsigned n = fx->nevents;
        assert_int_equal(mmu_write(fx->cpu, gva(addr), buf, c->len, 0), X86_OK);
        assert_int_equal(fx->nevents, 2 * n);
        for (unsigned e = 0; e < n; e++) {
            assert_int_equal(fx->event[e].kind, EV_MMIO_READ);
            assert_int_equal(fx->event[n + e].kind, EV_MMIO_WRITE);
            assert_int_equal(fx->event[e].addr, addr);
            assert_int_equal(fx->event[n + e].addr, addr);
            assert_int_equal(fx->event[e].size, c->size[e]);
            assert_int_equal(fx->event[n + e].size, c->size[e]);
            assert_int_equal(fx->event[n + e].value, fx->event[e].value);
            addr += c->size[e];
        }
        assert_int_equal(addr, MMIO_PA + c->ofs + c->len);
    }
}

static void access_from_ram_into_a_device_is_two_pieces(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 0x44332211;

    assert_int_equal(mmu_write(fx->cpu, gva(MMIO_PA - 2), &value, 4, 0), X86_OK);
    assert_int_equal(fx->ram[MMIO_PA - 2], 0x11);
    assert_int_equal(fx->ram[MMIO_PA], 0); /* the RAM under a device is out of reach */
    assert_int_equal(fx->nevents, 1);
    assert_int_equal(fx->event[0].value, 0x4433);
}

static void unassigned_memory_reads_all_ones(void **state)
{
    struct fixture *fx = *state;
    uint64_t value = 0;

    assert_int_equal(mmu_read(fx->cpu, gva(0xfee00000u), &value, 8, 0), X86_OK);
    assert_int_equal(value, UINT64_MAX);
    assert_int_equal(mmu_write(fx->cpu, gva(0xfee00000u), &value, 8, 0), X86_OK);
    assert_int_equal(fx->cpu->stats.mmio_read, 2);
    assert_int_equal(fx->cpu->stats.mmio_write, 2);
}

static void rom_ignores_stores(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 0x12345678;

    fx_put32(fx, ROM_PA + 4, value);
    value = 0;
    assert_int_equal(mmu_write(fx->cpu, gva(ROM_PA + 4), &value, 4, 0), X86_OK);
    mmu_phys_write(fx->m, gpa(ROM_PA + 4), &value, 4); /* as a bus master */
    assert_int_equal(mmu_read(fx->cpu, gva(ROM_PA + 4), &value, 4, 0), X86_OK);
    assert_int_equal(value, 0x12345678);
    assert_int_equal(fx->nevents, 0);
}

/* ---- system and physical -------------------------------------------------------------- */

static void system_accesses_ignore_the_cpl(void **state)
{
    struct fixture *fx = *state;
    uint64_t value = 0x1122334455667788;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_W);
    fx->cpu->cpl = 3;
    assert_int_equal(mmu_write_system(fx->cpu, gva(VA + 8), &value, 8), X86_OK);
    value = 0;
    assert_int_equal(mmu_read_system(fx->cpu, gva(VA + 8), &value, 8), X86_OK);
    assert_int_equal(value, 0x1122334455667788);
    assert_int_equal(mmu_read(fx->cpu, gva(VA + 8), &value, 8, ACC_USER), X86_FAULT);
    assert_int_equal(mmu_write_system(fx->cpu, gva(VA + 0x1000), &value, 8), X86_FAULT);
    assert_int_equal(fx->cpu->fault.error, PF_WR); /* a supervisor access: U is clear */
}

static void physical_accesses_cross_pages_and_kinds(void **state)
{
    struct fixture *fx = *state;
    uint8_t buf[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, back[8];

    mmu_phys_write(fx->m, gpa(0x2ffc), buf, 8);
    mmu_phys_read(fx->m, gpa(0x2ffc), back, 8);
    assert_memory_equal(buf, back, 8);
    mmu_phys_write(fx->m, gpa(RAM_BYTES - 4), buf, 8);
    mmu_phys_read(fx->m, gpa(RAM_BYTES - 4), back, 8);
    assert_memory_equal(back, ((uint8_t[]){ 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff }), 8);
    mmu_phys_read(fx->m, gpa(1ull << 35), back, 4);
    assert_int_equal(back[0], 0xff);
}

static void ram_pointers_exist_for_ram_and_rom_only(void **state)
{
    struct fixture *fx = *state;

    assert_ptr_equal(mmu_ram_ptr(fx->m, gpa(0x1234)).p, fx->ram + 0x1234);
    assert_ptr_equal(mmu_ram_ptr(fx->m, gpa(ROM_PA)).p, fx->ram + ROM_PA);
    assert_null(mmu_ram_ptr(fx->m, gpa(MMIO_PA)).p);
    assert_null(mmu_ram_ptr(fx->m, gpa(RAM_BYTES)).p);
    assert_null(mmu_ram_ptr(fx->m, gpa(UINT64_MAX)).p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(crossing_access_is_bounced_and_both_pages_are_checked),
        TEST(fault_on_the_second_page_names_it_and_writes_nothing),
        TEST(crossing_wraps_at_4_gib),
        TEST(watched_page_has_no_slot_and_reports_each_access),
        TEST(access_that_faults_is_not_reported),
        TEST(device_accesses_are_split_and_aligned),
        TEST(access_from_ram_into_a_device_is_two_pieces),
        TEST(unassigned_memory_reads_all_ones),
        TEST(rom_ignores_stores),
        TEST(system_accesses_ignore_the_cpl),
        TEST(physical_accesses_cross_pages_and_kinds),
        TEST(ram_pointers_exist_for_ram_and_rom_only),
    };

    return cmocka_run_group_tests_name("mmu access", tests, NULL, NULL);
}
