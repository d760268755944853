/* The 8254: each mode's OUT and counter, latches, port 61h, and ticks that must not be lost. */
#include "fixture.h"

#define HZ 1193182u

/** The nanosecond at which `ticks` ticks have gone (rounded up). */
static uint64_t ticks(uint64_t n)
{
    return (n * NS_PER_S + HZ - 1) / HZ;
}

static void program(struct fixture *f, unsigned channel, unsigned mode, unsigned count)
{
    outb(f, 0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    outb(f, (uint16_t)(0x40 + channel), (uint8_t)count);
    outb(f, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static unsigned read_both(struct fixture *f, unsigned channel)
{
    unsigned low = inb(f, (uint16_t)(0x40 + channel));
    return low | (unsigned)inb(f, (uint16_t)(0x40 + channel)) << 8;
}

static unsigned latched(struct fixture *f, unsigned channel)
{
    outb(f, 0x43, (uint8_t)(channel << 6));
    return read_both(f, channel);
}

static uint8_t status(struct fixture *f, unsigned channel)
{
    outb(f, 0x43, (uint8_t)(0xe0 | 2u << channel));
    return inb(f, (uint16_t)(0x40 + channel));
}

static bool out2(struct fixture *f)
{
    return inb(f, 0x61) & 0x20;
}

/** VM time starts on a tick; only IRQ 0 is open. */
static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    struct fixture *f = *state;
    init_pics(f, 0);
    outb(f, 0x21, 0xfe);
    outb(f, 0xa1, 0xff);
    return 0;
}

static void after_reset_channel_0_ticks_at_18_hz(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(status(f, 0) & 0x7f, 0x36); /* loaded, both bytes, mode 3 */
    unsigned count = 0;
    for (unsigned ms = 0; ms < 1000; ms++) {
        advance(f, NS_PER_MS);
        count += count_interrupts(f, 0x20);
    }
    assert_in_range(count, 18, 19);
}

static void mode_0_raises_out_at_the_end_of_the_count(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    program(f, 2, 0, 1000);
    assert_false(out2(f));
    advance(f, ticks(400));
    assert_in_range(latched(f, 2), 599, 600);
    assert_false(out2(f));
    advance(f, ticks(599));
    assert_false(out2(f));
    advance(f, ticks(2));
    assert_true(out2(f));
    advance(f, ticks(10));
    assert_true(out2(f));
    assert_in_range(latched(f, 2), 0xfff0, 0xfff8); /* goes on through zero */
}

static void mode_0_waits_between_the_two_bytes_and_while_the_gate_is_low(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    program(f, 2, 0, 1000);
    advance(f, ticks(2000));
    assert_true(out2(f));
    outb(f, 0x42, 0xe8);
    assert_false(out2(f));
    advance(f, ticks(5000));
    assert_false(out2(f));
    outb(f, 0x42, 0x03);
    advance(f, ticks(500));
    outb(f, 0x61, 0x00);
    unsigned held = latched(f, 2);
    assert_in_range(held, 499, 501);
    advance(f, ticks(5000));
    assert_int_equal(latched(f, 2), held);
    assert_false(out2(f));
    outb(f, 0x61, 0x01);
    advance(f, ticks(502));
    assert_true(out2(f));
}

static void mode_1_is_started_by_the_gate(void **state)
{
    struct fixture *f = *state;

    program(f, 2, 1, 1000);
    assert_true(out2(f));
    advance(f, ticks(3000));
    assert_true(out2(f));
    outb(f, 0x61, 0x01);
    assert_false(out2(f));
    advance(f, ticks(600));
    outb(f, 0x61, 0x00); /* the level does not matter ... */
    outb(f, 0x61, 0x01); /* ... another edge starts anew  */
    advance(f, ticks(600));
    assert_false(out2(f));
    advance(f, ticks(402));
    assert_true(out2(f));
}

static void mode_2_divides_and_reloads(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    program(f, 2, 2, 1000);
    assert_int_equal(latched(f, 2), 1000);
    advance(f, ticks(300));
    assert_in_range(latched(f, 2), 699, 701);
    advance(f, ticks(1000));
    assert_in_range(latched(f, 2), 699, 701);
    assert_true(out2(f));
    outb(f, 0x42, 0xd0); /* 2000: takes over at the period's end */
    outb(f, 0x42, 0x07);
    assert_int_equal(status(f, 2) & 0x40, 0x40);
    assert_in_range(latched(f, 2), 699, 701);
    advance(f, ticks(800));
    assert_in_range(latched(f, 2), 1898, 1902);
    assert_int_equal(status(f, 2) & 0x40, 0);
}

static void mode_3_is_a_square_wave_that_counts_by_two(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    program(f, 2, 3, 1000);
    assert_true(out2(f));
    advance(f, ticks(100));
    assert_in_range(latched(f, 2), 798, 800);
    assert_int_equal(latched(f, 2) & 1, 0);
    advance(f, ticks(450));
    assert_false(out2(f));
    advance(f, ticks(500));
    assert_true(out2(f));
}

static void mode_4_strobes_once(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 4, 10000);
    count_interrupts(f, 0x20); /* OUT went high with the mode */
    advance(f, ticks(9990));
    assert_int_equal(count_interrupts(f, 0x20), 0);
    advance(f, ticks(20));
    assert_int_equal(count_interrupts(f, 0x20), 1);
    advance(f, ticks(200000));
    assert_int_equal(count_interrupts(f, 0x20), 0);
    outb(f, 0x40, 0x10); /* a new count starts it again, without a new mode */
    outb(f, 0x40, 0x27);
    advance(f, ticks(10010));
    assert_int_equal(count_interrupts(f, 0x20), 1);
}

static void a_count_of_0_means_65536_and_bcd_counts_in_decimal(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    program(f, 2, 0, 0);
    advance(f, ticks(65530));
    assert_false(out2(f));
    advance(f, ticks(10));
    assert_true(out2(f));

    outb(f, 0x43, 0xb1);
    outb(f, 0x42, 0x00);
    outb(f, 0x42, 0x20); /* 2000 */
    advance(f, ticks(900));
    unsigned value = latched(f, 2);
    assert_in_range(value, 0x1099, 0x1101);
}

static void bytes_can_be_written_and_read_singly(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    outb(f, 0x43, 0xa4); /* high byte only, mode 2 */
    outb(f, 0x42, 0x12);
    assert_int_equal(inb(f, 0x42), 0x12);
    outb(f, 0x43, 0x94); /* low byte only */
    outb(f, 0x42, 0x34);
    assert_int_equal(inb(f, 0x42), 0x34);
    outb(f, 0x43, 0xb4);
    outb(f, 0x42, 0x34);
    outb(f, 0x42, 0x12);
    assert_int_equal(inb(f, 0x42), 0x34); /* unlatched: low, high, low ... */
    assert_int_equal(inb(f, 0x42), 0x12);
    assert_int_equal(inb(f, 0x42), 0x34);
}

static void a_latch_holds_until_it_is_read(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    program(f, 2, 2, 50000);
    outb(f, 0x43, 0x80);
    advance(f, ticks(1000));
    outb(f, 0x43, 0x80); /* ignored: the first is still held */
    assert_int_equal(read_both(f, 2), 50000);
    assert_in_range(latched(f, 2), 48998, 49000);
}

static void read_back_gives_status_then_count(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x61, 0x01);
    outb(f, 0x43, 0xb0);
    assert_int_equal(status(f, 2), 0x70); /* null count, OUT low, both bytes, mode 0 */
    outb(f, 0x42, 0xe8);
    outb(f, 0x42, 0x03);
    outb(f, 0x43, 0xc8);
    assert_int_equal(inb(f, 0x42), 0x30);
    assert_int_equal(read_both(f, 2), 1000);
    assert_int_equal(inb(f, 0x43), 0xff);
}

static void port_61_has_its_bits(void **state)
{
    struct fixture *f = *state;
    unsigned toggles = 0;

    outb(f, 0x61, 0xff);
    assert_int_equal(inb(f, 0x61) & 0xcf, 0x0f);
    uint8_t last = inb(f, 0x61) & 0x10;
    for (unsigned us = 0; us < 1000; us++) {
        advance(f, 1000);
        uint8_t bit = inb(f, 0x61) & 0x10;
        toggles += bit != last;
        last = bit;
    }
    assert_in_range(toggles, 64, 68); /* every 15 us */
}

static void periodic_ticks_do_not_drift(void **state)
{
    struct fixture *f = *state;
    unsigned count = 0;

    program(f, 0, 2, 4773); /* 249.98 Hz */
    count_interrupts(f, 0x20);
    for (unsigned i = 0; i < 60000; i++) {
        advance(f, NS_PER_MS);
        count += count_interrupts(f, 0x20);
    }
    assert_int_equal(count, 60ull * HZ / 4773);
}

static void ticks_missed_by_a_slow_host_are_given_later(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932); /* 100 Hz */
    count_interrupts(f, 0x20);
    jump(f, 305 * NS_PER_MS);
    assert_int_equal(count_interrupts(f, 0x20), 30);
    advance(f, 100 * NS_PER_MS);
    assert_in_range(count_interrupts(f, 0x20), 9, 11);
}

static void ticks_missed_by_a_busy_guest_are_given_later(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932);
    count_interrupts(f, 0x20);
    advance(f, 305 * NS_PER_MS); /* interrupts off in the guest */
    assert_int_equal(count_interrupts(f, 0x20), 30);
}

static void the_debt_is_at_most_a_second(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932);
    count_interrupts(f, 0x20);
    jump(f, 100 * NS_PER_S);
    assert_in_range(count_interrupts(f, 0x20), 99, 102);
}

static void ticks_are_not_owed_while_masked_or_after_reprogramming(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932);
    count_interrupts(f, 0x20);
    outb(f, 0x21, 0xff);
    advance(f, NS_PER_S);
    outb(f, 0x21, 0xfe);
    assert_int_equal(count_interrupts(f, 0x20), 1);
    jump(f, 500 * NS_PER_MS);
    program(f, 0, 2, 11932);
    assert_in_range(count_interrupts(f, 0x20), 0, 1);
}

static void going_to_mode_0_withdraws_the_request(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932);
    advance(f, 20 * NS_PER_MS);
    assert_true(machine_intr_pending(f->m));
    program(f, 0, 0, 0);
    assert_false(machine_intr_pending(f->m));
    advance(f, 60 * NS_PER_MS); /* 65,536 ticks: once */
    assert_int_equal(count_interrupts(f, 0x20), 1);
    advance(f, 200 * NS_PER_MS);
    assert_int_equal(count_interrupts(f, 0x20), 0);
}

static void a_new_period_follows_the_old_one(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932);
    count_interrupts(f, 0x20);
    advance(f, 5 * NS_PER_MS);
    outb(f, 0x40, (uint8_t)23864);
    outb(f, 0x40, 23864 >> 8);
    advance(f, 6 * NS_PER_MS);
    assert_int_equal(count_interrupts(f, 0x20), 1); /* the old period's end, at 10 ms */
    advance(f, 18 * NS_PER_MS);
    assert_int_equal(count_interrupts(f, 0x20), 0);
    advance(f, 2 * NS_PER_MS);
    assert_int_equal(count_interrupts(f, 0x20), 1); /* at 30 ms */
}

static void the_shortest_period_does_not_hang_the_host(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x43, 0x14);
    outb(f, 0x40, 1);
    jump(f, NS_PER_S);
    machine_run_timers(f->m);
    assert_true(machine_next_deadline(f->m) > machine_now_ns(f->m));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(after_reset_channel_0_ticks_at_18_hz),
        T(mode_0_raises_out_at_the_end_of_the_count),
        T(mode_0_waits_between_the_two_bytes_and_while_the_gate_is_low),
        T(mode_1_is_started_by_the_gate),
        T(mode_2_divides_and_reloads),
        T(mode_3_is_a_square_wave_that_counts_by_two),
        T(mode_4_strobes_once),
        T(a_count_of_0_means_65536_and_bcd_counts_in_decimal),
        T(bytes_can_be_written_and_read_singly),
        T(a_latch_holds_until_it_is_read),
        T(read_back_gives_status_then_count),
        T(port_61_has_its_bits),
        T(periodic_ticks_do_not_drift),
        T(ticks_missed_by_a_slow_host_are_given_later),
        T(ticks_missed_by_a_busy_guest_are_given_later),
        T(the_debt_is_at_most_a_second),
        T(ticks_are_not_owed_while_masked_or_after_reprogramming),
        T(going_to_mode_0_withdraws_the_request),
        T(a_new_period_follows_the_old_one),
        T(the_shortest_period_does_not_hang_the_host),
    };
    return cmocka_run_group_tests_name("machine.pit", tests, NULL, NULL);
}
