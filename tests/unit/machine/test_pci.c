/* PCI configuration accesses, the chipset's shadow RAM and SMRAM, and where the PM block answers. */
#include "fixture.h"

#include <string.h>

#define I440FX 0x0000u
#define PIIX3  0x0800u
#define PM     0x0b00u

static void address(struct fixture *f, uint32_t function, unsigned reg)
{
    out_port(f, 0xcf8, 4, 0x80000000u | function | (reg & 0xfc));
}

static uint32_t config_read(struct fixture *f, uint32_t function, unsigned reg, unsigned size)
{
    address(f, function, reg);
    return in_port(f, (uint16_t)(0xcfc + (reg & 3)), size);
}

static void config_write(struct fixture *f, uint32_t function, unsigned reg, unsigned size, uint32_t value)
{
    address(f, function, reg);
    out_port(f, (uint16_t)(0xcfc + (reg & 3)), size, value);
}

/* ---- mechanism 1 ------------------------------------------------------------------------------------ */

static void the_address_is_a_doubleword(void **state)
{
    struct fixture *f = *state;

    out_port(f, 0xcf8, 4, 0xffffffff);
    assert_int_equal(in_port(f, 0xcf8, 4), 0x80fffffc);
    out_port(f, 0xcf8, 4, 0x80000000);
    assert_int_equal(in_port(f, 0xcf8, 4), 0x80000000);
    outb(f, 0xcfb, 1); /* as a guest that looks for mechanism 2 does */
    out_port(f, 0xcf8, 2, 0x1234);
    assert_int_equal(in_port(f, 0xcf8, 4), 0x80000000);
    assert_int_equal(inb(f, 0xcf8), 0xff);
    assert_int_equal(in_port(f, 0xcfa, 2), 0xffff);
}

static void data_come_in_bytes_words_and_doublewords(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(config_read(f, I440FX, 0, 4), 0x12378086);
    assert_int_equal(config_read(f, I440FX, 0, 2), 0x8086);
    assert_int_equal(config_read(f, I440FX, 2, 2), 0x1237);
    assert_int_equal(config_read(f, I440FX, 1, 2), 0x3780);
    assert_int_equal(config_read(f, I440FX, 3, 1), 0x12);
    assert_int_equal(config_read(f, PIIX3, 0, 4), 0x70008086);
    assert_int_equal(config_read(f, PIIX3, 0x0e, 1), 0x80);
    assert_int_equal(config_read(f, PM, 0, 4), 0x71138086);
    assert_int_equal(config_read(f, I440FX, 0x2c, 4), 0x11001af4);
}

static void nobody_is_all_ones(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(config_read(f, 0x0900, 0, 4), 0xffffffff); /* no IDE */
    assert_int_equal(config_read(f, 0x1000, 0, 2), 0xffff);
    assert_int_equal(config_read(f, 0x10000, 0, 4), 0xffffffff); /* bus 1 */
    config_write(f, 0x1000, 4, 4, 0);
    out_port(f, 0xcf8, 4, 0); /* not enabled */
    assert_int_equal(in_port(f, 0xcfc, 4), 0xffffffff);
    out_port(f, 0xcfc, 4, 0);
    assert_int_equal(config_read(f, I440FX, 0, 4), 0x12378086);
}

static void what_is_hard_wired_stays(void **state)
{
    static const uint32_t functions[] = { I440FX, PIIX3, PM };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++)
        for (unsigned reg = 0; reg < 0x40; reg += 4) {
            if (reg == 0x04 || reg == 0x0c || reg == 0x3c)
                continue;
            uint32_t before = config_read(f, functions[i], reg, 4);
            config_write(f, functions[i], reg, 4, 0xffffffff);
            assert_int_equal(config_read(f, functions[i], reg, 4), before);
            config_write(f, functions[i], reg, 4, 0);
            assert_int_equal(config_read(f, functions[i], reg, 4), before);
        }
    config_write(f, PM, 0x3c, 4, 0xffffffff);
    assert_int_equal(config_read(f, PM, 0x3c, 4), 0x01ff); /* line is the guest's, pin is not */
}

static void byte_writes_leave_their_neighbours(void **state)
{
    struct fixture *f = *state;

    config_write(f, PIIX3, 0x60, 4, 0x0b0a0509);
    config_write(f, PIIX3, 0x62, 1, 0x8f);
    assert_int_equal(config_read(f, PIIX3, 0x60, 4), 0x0b8f0509);
    config_write(f, PIIX3, 0x60, 2, 0xffff);
    assert_int_equal(config_read(f, PIIX3, 0x60, 4), 0x0b8f8f8f);
}

/* ---- shadow RAM ------------------------------------------------------------------------------------- */

static void expect_route(struct fixture *f, unsigned i, uint32_t pa, uint32_t bytes, bool reads, bool writes)
{
    assert_true(i < f->routes);
    assert_int_equal(f->route[i].pa, pa);
    assert_int_equal(f->route[i].bytes, bytes);
    assert_int_equal(f->route[i].reads_ram, reads);
    assert_int_equal(f->route[i].writes_ram, writes);
}

static void firmware_finds_no_shadow_ram(void **state)
{
    struct fixture *f = *state;

    machine_reset(f->m);
    assert_int_equal(f->routes, 14);
    for (unsigned i = 0; i < f->routes; i++)
        assert_false(f->route[i].reads_ram || f->route[i].writes_ram);
    assert_int_equal(config_read(f, I440FX, 0x58, 4), 0x00000010);
    assert_int_equal(config_read(f, I440FX, 0x5c, 4), 0);
}

static void a_kernel_finds_ram(void **state)
{
    struct fixture *f = *state;

    machine_reset(f->m);
    assert_int_equal(f->routes, 14);
    for (unsigned i = 0; i < 13; i++)
        assert_true(f->route[i].reads_ram && f->route[i].writes_ram);
    expect_route(f, 13, 0xa0000, 0x20000, false, false);
    assert_int_equal(config_read(f, I440FX, 0x5c, 4), 0x33333333);
}

static void each_pam_nibble_moves_its_range(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 12; i++)
        for (unsigned rights = 1; rights < 4; rights++) {
            f->routes = 0;
            config_write(f, I440FX, 0x5a + i / 2, 1, rights << (i % 2 * 4));
            assert_int_equal(config_read(f, I440FX, 0x5a + i / 2, 1), rights << (i % 2 * 4));
            /* The odd range's predecessor is in the same register and goes back. */
            unsigned at = i % 2 && rights == 1 ? 1 : 0;
            assert_int_equal(f->routes, at + 1);
            expect_route(f, at, 0xc0000 + i * 0x4000, 0x4000, rights & 1, rights & 2);
        }
    f->routes = 0;
    config_write(f, I440FX, 0x59, 1, 0xff);
    assert_int_equal(config_read(f, I440FX, 0x59, 1), 0x30);
    assert_int_equal(f->routes, 1);
    expect_route(f, 0, 0xf0000, 0x10000, true, true);
}

static void a_doubleword_moves_what_changed(void **state)
{
    struct fixture *f = *state;

    config_write(f, I440FX, 0x5c, 4, 0x10000000); /* 5Fh: EC000 */
    assert_int_equal(f->routes, 1);
    expect_route(f, 0, 0xec000, 0x4000, true, false);
    config_write(f, I440FX, 0x5c, 4, 0x10000000);
    assert_int_equal(f->routes, 1);
    config_write(f, I440FX, 0x5c, 4, 0x33333333);
    assert_int_equal(f->routes, 9);
}

static void smram_opens_and_locks(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(config_read(f, I440FX, 0x72, 1), 0x02);
    config_write(f, I440FX, 0x72, 1, 0x4a);
    expect_route(f, 0, 0xa0000, 0x20000, true, true);
    config_write(f, I440FX, 0x72, 1, 0x0a);
    expect_route(f, 1, 0xa0000, 0x20000, false, false);
    config_write(f, I440FX, 0x72, 1, 0x5a); /* locking closes */
    assert_int_equal(config_read(f, I440FX, 0x72, 1), 0x1a);
    config_write(f, I440FX, 0x72, 1, 0x40);
    assert_int_equal(config_read(f, I440FX, 0x72, 1), 0x1a);
    assert_int_equal(f->routes, 2);
    machine_reset(f->m);
    assert_int_equal(config_read(f, I440FX, 0x72, 1), 0x02);
}

/* ---- power management ---------------------------------------------------------------------------- */

static void the_pm_block_answers_where_it_is_put(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in_port(f, 0x608, 4), 0xffffffff);
    config_write(f, PM, 0x40, 4, 0xffffb001);
    assert_int_equal(config_read(f, PM, 0x40, 4), 0x0000b001);
    assert_int_equal(in_port(f, 0xb008, 4), 0xffffffff); /* not enabled */
    config_write(f, PM, 0x80, 1, 1);
    advance(f, NS_PER_S);
    assert_int_equal(in_port(f, 0xb008, 4), 3579545);
    config_write(f, PM, 0x41, 1, 0x06);
    assert_int_equal(in_port(f, 0xb008, 4), 0xffffffff);
    assert_int_equal(in_port(f, 0x608, 4), 3579545);
    out_port(f, 0x602, 2, 0x100);
    assert_int_equal(in_port(f, 0x602, 2), 0x100);
    config_write(f, PM, 0x80, 1, 0);
    assert_int_equal(in_port(f, 0x608, 4), 0xffffffff);
    machine_reset(f->m);
    assert_int_equal(config_read(f, PM, 0x40, 4), 1);
}

static void the_pm_block_takes_no_other_device_s_ports(void **state)
{
    struct fixture *f = *state;

    config_write(f, PM, 0x80, 1, 1);
    config_write(f, PM, 0x40, 4, 0x3c1); /* the VGA's */
    assert_int_equal(inb(f, 0x3cc), 0x67);
    config_write(f, PM, 0x40, 4, 0x601);
    assert_int_equal(inb(f, 0x3cc), 0x67);
    assert_int_not_equal(in_port(f, 0x608, 4), 0xffffffff);
    for (unsigned i = 0; i < 1000; i++) /* claims are given back */
        config_write(f, PM, 0x40, 4, (i << 6 & 0xffc0) | 1);
    config_write(f, PM, 0x40, 4, 0x601);
    assert_int_not_equal(in_port(f, 0x608, 4), 0xffffffff);
    assert_int_equal(inb(f, 0x3cc), 0x67);
}

static void a_kernel_finds_the_pm_block_at_600(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(config_read(f, PM, 0x40, 4), 0x601);
    assert_int_equal(config_read(f, PM, 0x3c, 1), 9);
    assert_int_equal(in_port(f, 0x608, 4), 0);
}

int main(void)
{
#define KERNEL(name)   cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
#define FIRMWARE(name) cmocka_unit_test_setup_teardown(name, fixture_setup_rom, fixture_teardown)
    const struct CMUnitTest tests[] = {
        FIRMWARE(the_address_is_a_doubleword),
        FIRMWARE(data_come_in_bytes_words_and_doublewords),
        FIRMWARE(nobody_is_all_ones),
        FIRMWARE(what_is_hard_wired_stays),
        FIRMWARE(byte_writes_leave_their_neighbours),
        FIRMWARE(firmware_finds_no_shadow_ram),
        KERNEL(a_kernel_finds_ram),
        FIRMWARE(each_pam_nibble_moves_its_range),
        FIRMWARE(a_doubleword_moves_what_changed),
        FIRMWARE(smram_opens_and_locks),
        FIRMWARE(the_pm_block_answers_where_it_is_put),
        FIRMWARE(the_pm_block_takes_no_other_device_s_ports),
        KERNEL(a_kernel_finds_the_pm_block_at_600),
    };
    return cmocka_run_group_tests_name("machine.pci", tests, NULL, NULL);
}
