/* The 16550A: what drivers probe, both directions, every interrupt, no byte lost. */
#include "fixture.h"

#include <string.h>

#define COM 0x3f8

static void reg_write(struct fixture *f, unsigned reg, uint8_t value)
{
    outb(f, (uint16_t)(COM + reg), value);
}

static uint8_t reg(struct fixture *f, unsigned n)
{
    return inb(f, (uint16_t)(COM + n));
}

/** 115,200 baud, 8n1, FIFO on with trigger level 8, OUT2; only IRQ 4 is open. */
static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    struct fixture *f = *state;
    init_pics(f, 0);
    outb(f, 0x21, 0xef);
    outb(f, 0xa1, 0xff);
    reg_write(f, 3, 0x83);
    reg_write(f, 0, 1);
    reg_write(f, 1, 0);
    reg_write(f, 3, 0x03);
    reg_write(f, 2, 0x81);
    reg_write(f, 4, 0x0b);
    return 0;
}

static void probes_see_a_16550a(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 7, 0x5a);
    assert_int_equal(reg(f, 7), 0x5a);
    reg_write(f, 1, 0xff);
    assert_int_equal(reg(f, 1), 0x0f);
    reg_write(f, 1, 0);
    reg_write(f, 2, 0x21); /* a 16750 would show bit 5 */
    assert_int_equal(reg(f, 2), 0xc1);
    reg_write(f, 2, 0);
    assert_int_equal(reg(f, 2), 0x01);
    assert_int_equal(reg(f, 5), 0x60);
    assert_int_equal(reg(f, 6) & 0xf0, 0xb0);
    reg_write(f, 4, 0xff);
    assert_int_equal(reg(f, 4), 0x1f);
}

static void the_divisor_is_behind_dlab(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 3, 0x83);
    reg_write(f, 0, 0x34);
    reg_write(f, 1, 0x12);
    assert_int_equal(reg(f, 0), 0x34);
    assert_int_equal(reg(f, 1), 0x12);
    reg_write(f, 3, 0x03);
    assert_int_equal(reg(f, 1), 0);
    assert_int_equal(f->out_len, 0);
}

static void output_arrives_at_once_and_in_order(void **state)
{
    struct fixture *f = *state;

    for (const char *p = "Hello"; *p; p++) {
        assert_int_equal(reg(f, 5) & 0x60, 0x60);
        reg_write(f, 0, (uint8_t)*p);
    }
    assert_int_equal(f->out_len, 5);
    assert_memory_equal(f->out, "Hello", 5);
}

static void enabling_thre_raises_it_and_iir_clears_it(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 1, 0x02);
    assert_int_equal(take_interrupt(f), 0x24);
    assert_int_equal(reg(f, 2), 0xc2);
    assert_int_equal(reg(f, 2), 0xc1);
    assert_false(f->intr);
    reg_write(f, 1, 0);
    reg_write(f, 1, 0x02); /* 8250 drivers test that it comes again */
    assert_int_equal(take_interrupt(f), 0x24);
    assert_int_equal(reg(f, 2), 0xc2);
}

static void each_write_gives_a_new_thre_edge(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 1, 0x02);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(take_interrupt(f), 0x24);
        reg_write(f, 0, (uint8_t)i);
    }
    assert_int_equal(f->out_len, 5);
}

static void no_interrupt_passes_without_out2(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 4, 0x03);
    reg_write(f, 1, 0x02);
    assert_false(f->intr);
    reg_write(f, 4, 0x0b);
    assert_true(f->intr);
}

static void input_below_the_trigger_level_times_out(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 1, 0x01);
    serial_send(f, "ab");
    assert_int_equal(reg(f, 5) & 1, 1);
    assert_int_equal(reg(f, 2), 0xc1);
    advance(f, 300000);
    assert_false(f->intr);
    advance(f, 100000); /* four characters at 115,200 baud: 347 us */
    assert_int_equal(take_interrupt(f), 0x24);
    assert_int_equal(reg(f, 2), 0xcc);
    assert_int_equal(reg(f, 0), 'a');
    assert_int_equal(reg(f, 2), 0xc1); /* reading restarts the time-out */
    advance(f, 400000);
    assert_int_equal(take_interrupt(f), 0x24);
    assert_int_equal(reg(f, 0), 'b');
    assert_int_equal(reg(f, 5) & 1, 0);
    advance(f, 10 * NS_PER_MS);
    assert_false(f->intr);
}

static void input_at_the_trigger_level_interrupts_at_once(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 1, 0x01);
    serial_send(f, "12345678");
    assert_int_equal(take_interrupt(f), 0x24);
    assert_int_equal(reg(f, 2), 0xc4);
    reg(f, 0);
    assert_int_equal(reg(f, 2), 0xc1);
}

static void a_long_input_loses_nothing(void **state)
{
    struct fixture *f = *state;
    char text[2001], got[2001] = "";
    size_t n = 0;

    for (unsigned i = 0; i < 2000; i++)
        text[i] = (char)('!' + i % 90);
    text[2000] = 0;
    reg_write(f, 1, 0x01);
    serial_send(f, text);
    for (unsigned guard = 0; guard < 5000 && n < 2000; guard++) {
        if (take_interrupt(f) < 0) {
            advance(f, NS_PER_MS);
            continue;
        }
        /* a handler that takes a few bytes a time, to leave the FIFO partly full */
        while ((reg(f, 2) & 1) == 0 && n < 2000)
            for (unsigned i = 0; i < 7 && (reg(f, 5) & 1) && n < 2000; i++)
                got[n++] = (char)reg(f, 0);
    }
    assert_int_equal(n, 2000);
    assert_memory_equal(got, text, 2000);
    assert_int_equal(reg(f, 5) & 0x1e, 0); /* never an overrun */
}

static void a_polling_reader_gets_everything_without_fifo(void **state)
{
    struct fixture *f = *state;
    char got[16] = "";
    unsigned n = 0;

    reg_write(f, 2, 0);
    serial_send(f, "polled input");
    while (n < sizeof got - 1 && (reg(f, 5) & 1))
        got[n++] = (char)reg(f, 0);
    assert_string_equal(got, "polled input");
}

static void loopback_joins_both_directions(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 4, 0x1a); /* what Linux probes: RTS and OUT2 come back as CTS and DCD */
    assert_int_equal(reg(f, 6) & 0xf0, 0x90);
    reg_write(f, 4, 0x15);
    assert_int_equal(reg(f, 6) & 0xf0, 0x60);
    reg_write(f, 0, 0xa5);
    assert_int_equal(f->out_len, 0);
    assert_int_equal(reg(f, 5) & 1, 1);
    assert_int_equal(reg(f, 0), 0xa5);
    for (unsigned i = 0; i < 17; i++)
        reg_write(f, 0, (uint8_t)i);
    assert_int_equal(reg(f, 5) & 0x02, 0x02); /* the 17th overran */
    assert_int_equal(reg(f, 5) & 0x02, 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(reg(f, 0), i);
}

static void input_waits_for_the_end_of_loopback(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 4, 0x1b);
    serial_send(f, "x");
    assert_int_equal(reg(f, 5) & 1, 0);
    reg_write(f, 4, 0x0b);
    assert_int_equal(reg(f, 5) & 1, 1);
    assert_int_equal(reg(f, 0), 'x');
}

static void modem_changes_are_reported_once(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 1, 0x08);
    assert_false(f->intr);
    reg_write(f, 4, 0x1f);
    reg_write(f, 4, 0x0b); /* RI fell */
    assert_int_equal(take_interrupt(f), 0x24);
    assert_int_equal(reg(f, 2), 0xc0);
    assert_int_equal(reg(f, 6) & 0x0f, 0x04);
    assert_int_equal(reg(f, 6) & 0x0f, 0x00);
    assert_false(f->intr);
}

static void causes_are_shown_by_priority(void **state)
{
    struct fixture *f = *state;

    reg_write(f, 2, 0x01); /* trigger level 1 */
    reg_write(f, 4, 0x1b);
    for (unsigned i = 0; i < 17; i++)
        reg_write(f, 0, 0);
    reg_write(f, 1, 0x07);
    assert_int_equal(reg(f, 2), 0xc6);
    (void)reg(f, 5);
    assert_int_equal(reg(f, 2), 0xc4);
    reg_write(f, 2, 0x03); /* empty the receiver */
    assert_int_equal(reg(f, 2), 0xc2);
    assert_int_equal(reg(f, 2), 0xc1);
}

static void absent_ports_float(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(inb(f, 0x2f8 + 5), 0xff);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(probes_see_a_16550a),
        T(the_divisor_is_behind_dlab),
        T(output_arrives_at_once_and_in_order),
        T(enabling_thre_raises_it_and_iir_clears_it),
        T(each_write_gives_a_new_thre_edge),
        T(no_interrupt_passes_without_out2),
        T(input_below_the_trigger_level_times_out),
        T(input_at_the_trigger_level_interrupts_at_once),
        T(a_long_input_loses_nothing),
        T(a_polling_reader_gets_everything_without_fifo),
        T(loopback_joins_both_directions),
        T(input_waits_for_the_end_of_loopback),
        T(modem_changes_are_reported_once),
        T(causes_are_shown_by_priority),
        T(absent_ports_float),
    };
    return cmocka_run_group_tests_name("machine.uart", tests, NULL, NULL);
}
