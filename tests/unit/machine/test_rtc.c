/* The MC146818: formats, setting the time, interrupts, what firmware leaves in the RAM. */
#include "fixture.h"

static uint8_t cmos(struct fixture *f, uint8_t index)
{
    outb(f, 0x70, index);
    return inb(f, 0x71);
}

static void cmos_write(struct fixture *f, uint8_t index, uint8_t value)
{
    outb(f, 0x70, index);
    outb(f, 0x71, value);
}

static void assert_date(struct fixture *f, const uint8_t want[7])
{
    static const uint8_t index[7] = { 0x32, 9, 8, 7, 4, 2, 0 };

    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(cmos(f, index[i]), want[i]);
}

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    init_pics(*state, 0);
    outb(*state, 0x21, 0xfb);
    outb(*state, 0xa1, 0xfe);
    return 0;
}

static void time_is_bcd_and_rolls_over_into_a_leap_day(void **state)
{
    struct fixture *f = *state;

    assert_date(f, (const uint8_t[]){ 0x20, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59 });
    assert_int_equal(cmos(f, 6), 2); /* Monday */
    advance(f, NS_PER_S);
    assert_date(f, (const uint8_t[]){ 0x20, 0x00, 0x02, 0x29, 0x00, 0x00, 0x00 });
    advance(f, 86400 * NS_PER_S);
    assert_date(f, (const uint8_t[]){ 0x20, 0x00, 0x03, 0x01, 0x00, 0x00, 0x00 });
    assert_int_equal(cmos(f, 6), 4);
}

static void binary_and_12_hour_formats_work(void **state)
{
    struct fixture *f = *state;

    cmos_write(f, 0x0b, 0x06);
    assert_int_equal(cmos(f, 4), 23);
    assert_int_equal(cmos(f, 0), 59);
    cmos_write(f, 0x0b, 0x00);
    assert_int_equal(cmos(f, 4), 0x91); /* 11 pm */
    advance(f, NS_PER_S);
    assert_int_equal(cmos(f, 4), 0x12); /* 12 am */
}

static void the_time_can_be_set_while_the_clock_is_held(void **state)
{
    struct fixture *f = *state;

    cmos_write(f, 0x0b, 0x82);
    advance(f, 10 * NS_PER_S);
    assert_date(f, (const uint8_t[]){ 0x20, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59 });
    assert_int_equal(cmos(f, 0x0a) & 0x80, 0);
    cmos_write(f, 0x32, 0x19);
    cmos_write(f, 9, 0x99);
    cmos_write(f, 8, 0x12);
    cmos_write(f, 7, 0x31);
    cmos_write(f, 4, 0x23);
    cmos_write(f, 2, 0x59);
    cmos_write(f, 0, 0x58);
    cmos_write(f, 0x0b, 0x02);
    advance(f, 2 * NS_PER_S);
    assert_date(f, (const uint8_t[]){ 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00 });
}

static void the_divider_restarts_the_second_half_way(void **state)
{
    struct fixture *f = *state;

    advance(f, 900 * NS_PER_MS);
    cmos_write(f, 0x0a, 0x76);
    cmos_write(f, 0, 0x10);
    cmos_write(f, 0x0a, 0x26);
    assert_int_equal(cmos(f, 0), 0x10);
    advance(f, 499 * NS_PER_MS);
    assert_int_equal(cmos(f, 0), 0x10);
    advance(f, 2 * NS_PER_MS);
    assert_int_equal(cmos(f, 0), 0x11);
}

static void nonsense_in_the_clock_registers_is_survived(void **state)
{
    struct fixture *f = *state;

    for (unsigned v = 0; v < 256; v += 5)
        for (uint8_t r = 0; r < 14; r++)
            cmos_write(f, r, (uint8_t)v);
    cmos_write(f, 0x32, 0xff);
    advance(f, 3 * NS_PER_S);
    (void)cmos(f, 7);
    (void)cmos(f, 0x0c);
}

static void update_in_progress_comes_before_each_second(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(cmos(f, 0x0a), 0x26);
    advance(f, 997 * NS_PER_MS);
    assert_int_equal(cmos(f, 0x0a) & 0x80, 0);
    advance(f, 2 * NS_PER_MS);
    assert_int_equal(cmos(f, 0x0a) & 0x80, 0x80);
    advance(f, 1 * NS_PER_MS);
    assert_int_equal(cmos(f, 0x0a) & 0x80, 0);
}

static void the_update_interrupt_comes_each_second(void **state)
{
    struct fixture *f = *state;

    cmos_write(f, 0x0b, 0x12);
    advance(f, 999 * NS_PER_MS);
    assert_false(f->intr);
    advance(f, 2 * NS_PER_MS);
    assert_int_equal(take_interrupt(f), 0x28);
    advance(f, NS_PER_S); /* no further edge before C is read */
    assert_false(f->intr);
    assert_int_equal(cmos(f, 0x0c) & 0x90, 0x90);
    assert_int_equal(cmos(f, 0x0c), 0x00);
    advance(f, NS_PER_S);
    assert_int_equal(take_interrupt(f), 0x28);
}

static void the_periodic_interrupt_has_its_rate(void **state)
{
    struct fixture *f = *state;
    unsigned count = 0;

    cmos_write(f, 0x0a, 0x26); /* 1,024 Hz */
    cmos_write(f, 0x0b, 0x42);
    (void)cmos(f, 0x0c);
    for (unsigned i = 0; i < 10000; i++) {
        advance(f, NS_PER_MS / 10);
        if (take_interrupt(f) == 0x28) {
            count++;
            assert_int_equal(cmos(f, 0x0c) & 0xc0, 0xc0);
        }
    }
    assert_in_range(count, 1023, 1025);
}

static void the_alarm_matches_with_wild_cards(void **state)
{
    struct fixture *f = *state;

    cmos_write(f, 5, 0xff);
    cmos_write(f, 3, 0x01);
    cmos_write(f, 1, 0x30);
    cmos_write(f, 0x0b, 0x22);
    (void)cmos(f, 0x0c);
    advance(f, 90 * NS_PER_S); /* 00:01:29 */
    assert_false(f->intr);
    advance(f, 1 * NS_PER_S);
    assert_int_equal(take_interrupt(f), 0x28);
    assert_int_equal(cmos(f, 0x0c) & 0xa0, 0xa0);
    advance(f, 3600 * NS_PER_S);
    assert_int_equal(take_interrupt(f), 0x28); /* each hour */
}

static void flags_are_seen_without_interrupts(void **state)
{
    struct fixture *f = *state;

    (void)cmos(f, 0x0c);
    advance(f, 1500 * NS_PER_MS);
    assert_int_equal(cmos(f, 0x0c), 0x70); /* PF, UF, AF (set to midnight), no IRQF */
    advance(f, NS_PER_S);
    assert_int_equal(cmos(f, 0x0c), 0x50);
    assert_int_equal(cmos(f, 0x0c), 0x00);
    assert_false(f->intr);
}

static void no_timer_runs_for_disabled_interrupts(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x43, 0x30); /* stop channel 0 of the 8254 */
    assert_int_equal(machine_next_deadline(f->m), UINT64_MAX);
}

static void the_ram_tells_the_memory_size_and_keeps_what_is_written(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(cmos(f, 0x15) | cmos(f, 0x16) << 8, 640);
    assert_int_equal(cmos(f, 0x17) | cmos(f, 0x18) << 8, 0xffff);
    assert_int_equal(cmos(f, 0x34) | cmos(f, 0x35) << 8, 240 << 4);
    assert_int_equal(cmos(f, 0x0d), 0x80);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i <= 0x2d; i++)
        sum += cmos(f, i);
    assert_int_equal(cmos(f, 0x2e) << 8 | cmos(f, 0x2f), sum);
    cmos_write(f, 0x50, 0xa5);
    machine_reset(f->m);
    assert_int_equal(cmos(f, 0x50), 0xa5);
    assert_int_equal(cmos(f, 0xd0), 0xa5); /* bit 7 masks NMI, it is not part of the index */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(time_is_bcd_and_rolls_over_into_a_leap_day),
        T(binary_and_12_hour_formats_work),
        T(the_time_can_be_set_while_the_clock_is_held),
        T(the_divider_restarts_the_second_half_way),
        T(nonsense_in_the_clock_registers_is_survived),
        T(update_in_progress_comes_before_each_second),
        T(the_update_interrupt_comes_each_second),
        T(the_periodic_interrupt_has_its_rate),
        T(the_alarm_matches_with_wild_cards),
        T(flags_are_seen_without_interrupts),
        T(no_timer_runs_for_disabled_interrupts),
        T(the_ram_tells_the_memory_size_and_keeps_what_is_written),
    };
    return cmocka_run_group_tests_name("machine.rtc", tests, NULL, NULL);
}
