/* The ROM image: where it shows, what stores to it do, and shadow RAM in its place. */
#include "fixture.h"

#include "platform/platform.h"

#define ROM_BYTES (256u << 10)
#define LOW_PA    0xe0000u /* the image's last 128 KiB below 1 MiB */
#define LOW_BYTES 0x20000u
#define TOP_PA    (0u - ROM_BYTES)

static uint8_t *rom;

/* Each doubleword of the image holds its own offset. */
static int setup(void **state)
{
    rom = platform_reserve(ROM_BYTES);
    for (uint32_t i = 0; i < ROM_BYTES; i += 4)
        memcpy(rom + i, &i, 4);
    struct fixture *fx = fx_new_with_rom(RAM_BYTES, rom, ROM_BYTES);
    *state = fx;
    mmu_set_region(fx->m, gpa(LOW_PA), LOW_BYTES, REGION_IMAGE);
    fx_clear_events(fx);
    return 0;
}

static int teardown(void **state)
{
    fx_free(*state);
    platform_release(rom, ROM_BYTES);
    return 0;
}

static uint32_t read32(struct fixture *fx, uint32_t va)
{
    uint32_t value = 0;

    assert_int_equal(mmu_read(fx->cpu, gva(va), &value, 4, 0), X86_OK);
    return value;
}

static void write32(struct fixture *fx, uint32_t va, uint32_t value)
{
    assert_int_equal(mmu_write(fx->cpu, gva(va), &value, 4, 0), X86_OK);
}

static void the_image_ends_at_4_gib_and_at_1_mib(void **state)
{
    struct fixture *fx = *state;
    uint32_t value;

    assert_int_equal(read32(fx, TOP_PA), 0);
    assert_int_equal(read32(fx, 0xfffffffc), ROM_BYTES - 4);
    assert_int_equal(read32(fx, TOP_PA - 4), UINT32_MAX); /* nobody */
    assert_int_equal(read32(fx, LOW_PA), ROM_BYTES - LOW_BYTES);
    assert_int_equal(read32(fx, 0xffffc), ROM_BYTES - 4);
    assert_int_equal(read32(fx, 0x100000), 0);
    mmu_phys_read(fx->m, gpa(0xfffffffc), &value, 4);
    assert_int_equal(value, ROM_BYTES - 4);
    assert_ptr_equal(mmu_ram_ptr(fx->m, gpa(0xfffff123)).p, rom + ROM_BYTES - 0x1000 + 0x123);
    assert_ptr_equal(mmu_ram_ptr(fx->m, gpa(0xff123)).p, rom + ROM_BYTES - 0x1000 + 0x123);
    assert_null(mmu_ram_ptr(fx->m, gpa(0x1fffff123)).p); /* above 4 GiB is another place */
    fx_assert_clean(fx);
}

static void reads_of_the_image_are_direct(void **state)
{
    struct fixture *fx = *state;

    assert_ptr_equal(fx_probe(fx, LOW_PA, ACC_READ), rom + ROM_BYTES - LOW_BYTES);
    assert_ptr_equal(fx_probe(fx, TOP_PA + 8, ACC_READ), rom + 8);
    assert_true(fx_load_slot(fx, VIEW_SUPERVISOR, LOW_PA) != 0);
    assert_true(fx_load_slot(fx, VIEW_SUPERVISOR, TOP_PA) != 0);
    fx_assert_clean(fx);
}

static void stores_to_the_image_are_dropped(void **state)
{
    struct fixture *fx = *state;
    uint32_t value = 0x12345678;

    assert_null(fx_probe(fx, LOW_PA, ACC_WRITE));
    assert_null(fx_probe(fx, TOP_PA, ACC_WRITE));
    write32(fx, LOW_PA, value);
    write32(fx, TOP_PA, value);
    mmu_phys_write(fx->m, gpa(LOW_PA), &value, 4);
    mmu_phys_write(fx->m, gpa(TOP_PA), &value, 4);
    assert_int_equal(read32(fx, LOW_PA), ROM_BYTES - LOW_BYTES);
    assert_int_equal(read32(fx, TOP_PA), 0);
    assert_int_equal(fx_get32(fx, LOW_PA), 0); /* the RAM that lies there */
    assert_int_equal(fx->nevents, 0);
    fx_assert_clean(fx);
}

static void a_crossing_access_at_the_image_s_start(void **state)
{
    struct fixture *fx = *state;

    write32(fx, LOW_PA - 2, 0xbbbbaaaa);
    assert_int_equal(read32(fx, LOW_PA - 2), (ROM_BYTES - LOW_BYTES) << 16 | 0xaaaa);
}

static void shadow_ram_is_filled_under_the_image_and_then_shown(void **state)
{
    struct fixture *fx = *state;
    uint32_t image = read32(fx, LOW_PA + 0x1000);

    mmu_set_region_write_ram(fx->m, gpa(LOW_PA), 0x4000, REGION_IMAGE);
    assert_null(fx_probe(fx, LOW_PA + 0x1000, ACC_WRITE));
    write32(fx, LOW_PA + 0x1000, 0xcafe);
    assert_int_equal(read32(fx, LOW_PA + 0x1000), image);
    fx_assert_clean(fx);

    mmu_set_region(fx->m, gpa(LOW_PA), 0x4000, REGION_ROM);
    assert_int_equal(read32(fx, LOW_PA + 0x1000), 0xcafe);
    write32(fx, LOW_PA + 0x1000, 1);
    assert_int_equal(read32(fx, LOW_PA + 0x1000), 0xcafe);
    fx_assert_clean(fx);

    mmu_set_region(fx->m, gpa(LOW_PA), 0x4000, REGION_RAM);
    assert_ptr_equal(fx_probe(fx, LOW_PA + 0x1000, ACC_WRITE), fx->ram + LOW_PA + 0x1000);
    write32(fx, LOW_PA + 0x1000, 2);
    fx_assert_clean(fx);

    mmu_set_region(fx->m, gpa(LOW_PA), 0x4000, REGION_IMAGE);
    assert_int_equal(read32(fx, LOW_PA + 0x1000), image);
    assert_int_equal(fx_get32(fx, LOW_PA + 0x1000), 2);
    assert_int_equal(read32(fx, LOW_PA + 0x4000), ROM_BYTES - LOW_BYTES + 0x4000);
    fx_assert_clean(fx);
}

/* Reads of a range without any memory go to the bus, writes to the RAM below. */
static void shadow_ram_is_filled_where_nobody_answers(void **state)
{
    struct fixture *fx = *state;

    mmu_set_region_write_ram(fx->m, gpa(0xc0000), 0x4000, REGION_MMIO);
    write32(fx, 0xc0010, 0xcafe);
    assert_int_equal(fx_count(fx, EV_MMIO_WRITE), 0);
    assert_int_not_equal(read32(fx, 0xc0010), 0xcafe);
    assert_int_equal(fx_count(fx, EV_MMIO_READ), 1);
    mmu_set_region_write_ram(fx->m, gpa(0xc0000), 0x4000, REGION_RAM);
    assert_int_equal(read32(fx, 0xc0010), 0xcafe);
    assert_non_null(fx_probe(fx, 0xc0010, ACC_WRITE));
    fx_assert_clean(fx);
}

static void a_change_of_region_drops_fetches(void **state)
{
    struct fixture *fx = *state;
    bool is_global;
    gpa_t pa;

    assert_int_equal(mmu_fetch(fx->cpu, gva(0xffff0), &pa, &is_global), X86_OK);
    mmu_trace_add(fx->m, gpa(0xff000));
    mmu_set_region(fx->m, gpa(LOW_PA), LOW_BYTES, REGION_RAM);
    assert_int_equal(fx_count(fx, EV_DROP_ALL), 1);
    assert_true(mmu_is_traced(fx->m, gpa(0xff000))); /* it stays until the code is dropped */
    write32(fx, 0xff000, 1);
    assert_int_equal(fx_count(fx, EV_TRACED), 1);
    fx_assert_clean(fx);
}

static void page_tables_may_lie_in_the_image(void **state)
{
    struct fixture *fx = *state;
    uint32_t pte = 0x234000 | PTE_P | PTE_W, table = ROM_BYTES - LOW_BYTES;

    fx_paging(fx, 0);
    memcpy(rom + table + (0x8000000 >> 12 & 0x3ff) * 4, &pte, 4);
    fx_put32(fx, fx_pde(fx, 0x8000000), LOW_PA | PTE_P | PTE_W);
    fx_put32(fx, 0x234008, 0x600d);
    assert_int_equal(read32(fx, 0x8000008), 0x600d);
    write32(fx, 0x8000008, 0x600d2);
    assert_int_equal(fx_get32(fx, 0x234008), 0x600d2);
    assert_memory_equal(rom + table + (0x8000000 >> 12 & 0x3ff) * 4, &pte, 4); /* no A, no D */
    fx_assert_clean(fx);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_image_ends_at_4_gib_and_at_1_mib),
        TEST(reads_of_the_image_are_direct),
        TEST(stores_to_the_image_are_dropped),
        TEST(a_crossing_access_at_the_image_s_start),
        TEST(shadow_ram_is_filled_under_the_image_and_then_shown),
        TEST(shadow_ram_is_filled_where_nobody_answers),
        TEST(a_change_of_region_drops_fetches),
        TEST(page_tables_may_lie_in_the_image),
    };

    return cmocka_run_group_tests_name("mmu rom", tests, NULL, NULL);
}
