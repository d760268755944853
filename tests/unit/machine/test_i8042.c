/* The 8042: the handshake drivers do, both devices' commands, key input, interrupts. */
#include "fixture.h"

static uint8_t status(struct fixture *f)
{
    return inb(f, 0x64);
}

/** Read one byte that must be there, from the keyboard's side. */
static void assert_key(struct fixture *f, uint8_t want)
{
    assert_int_equal(status(f) & 0x21, 0x01);
    assert_int_equal(inb(f, 0x60), want);
}

static void assert_aux(struct fixture *f, uint8_t want)
{
    assert_int_equal(status(f) & 0x21, 0x21);
    assert_int_equal(inb(f, 0x60), want);
}

static void assert_empty(struct fixture *f)
{
    assert_int_equal(status(f) & 0x01, 0);
}

static uint8_t command_byte(struct fixture *f)
{
    outb(f, 0x64, 0x20);
    return inb(f, 0x60);
}

static void set_command_byte(struct fixture *f, uint8_t value)
{
    outb(f, 0x64, 0x60);
    outb(f, 0x60, value);
}

static void to_mouse(struct fixture *f, uint8_t byte)
{
    outb(f, 0x64, 0xd4);
    outb(f, 0x60, byte);
}

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    init_pics(*state, 0);
    outb(*state, 0x21, 0xf9);
    outb(*state, 0xa1, 0xef);
    return 0;
}

static void self_tests_pass(void **state)
{
    struct fixture *f = *state;

    assert_empty(f);
    assert_int_equal(status(f) & 0x10, 0x10); /* the lock is open */
    outb(f, 0x64, 0xaa);
    assert_key(f, 0x55);
    assert_int_equal(status(f) & 0x0c, 0x0c); /* system flag; last write was a command */
    outb(f, 0x64, 0xab);
    assert_key(f, 0x00);
    outb(f, 0x64, 0xa9);
    assert_key(f, 0x00);
}

static void the_command_byte_reads_back(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(command_byte(f), 0x65);
    set_command_byte(f, 0x43);
    assert_int_equal(command_byte(f), 0x43);
    outb(f, 0x64, 0xa7);
    assert_int_equal(command_byte(f), 0x63);
    outb(f, 0x64, 0xa8);
    assert_int_equal(command_byte(f), 0x43);
    outb(f, 0x64, 0xad);
    assert_int_equal(command_byte(f), 0x53);
    outb(f, 0x64, 0xae);
    assert_int_equal(command_byte(f), 0x43);
}

static void output_loops_come_back_as_keyboard_or_mouse(void **state)
{
    struct fixture *f = *state;

    set_command_byte(f, 0x03);
    outb(f, 0x64, 0xd2);
    outb(f, 0x60, 0x12);
    assert_int_equal(take_interrupt(f), 0x21);
    assert_key(f, 0x12);
    outb(f, 0x64, 0xd3);
    outb(f, 0x60, 0xa5);
    assert_int_equal(take_interrupt(f), 0x2c);
    assert_aux(f, 0xa5);
    assert_false(f->intr);
}

static void the_keyboard_answers_its_commands(void **state)
{
    struct fixture *f = *state;

    set_command_byte(f, 0x00);
    outb(f, 0x60, 0xff);
    assert_key(f, 0xfa);
    assert_key(f, 0xaa);
    outb(f, 0x60, 0xf2);
    assert_key(f, 0xfa);
    assert_key(f, 0xab);
    assert_key(f, 0x83);
    outb(f, 0x60, 0xed);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0x02);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0xf3);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0x00);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0xf0);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0x00);
    assert_key(f, 0xfa);
    assert_key(f, 0x02);
    outb(f, 0x60, 0xee);
    assert_key(f, 0xee);
    outb(f, 0x60, 0xfe);
    assert_key(f, 0xee);
    outb(f, 0x60, 0xe1);
    assert_key(f, 0xfe);
    outb(f, 0x60, 0xf4);
    assert_key(f, 0xfa);
    assert_empty(f);
}

static void a_command_breaks_off_an_argument(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x60, 0xed);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0xf4);
    assert_key(f, 0xfa);
    outb(f, 0x60, 0xee);
    assert_key(f, 0xee);
}

/* Ref: PS/2 mouse: E9 answers modes, resolution and rate; FE the last byte again; EB a packet. */
static void the_mouse_tells_its_modes(void **state)
{
    static const struct {
        uint8_t command, modes;
    } steps[] = {
        { 0xf4, 0x20 }, { 0xe7, 0x30 }, { 0xf0, 0x70 }, { 0xe6, 0x60 },
        { 0xea, 0x20 }, { 0xf5, 0x00 }, { 0xe7, 0x10 }, { 0xf6, 0x00 },
    };
    struct fixture *f = *state;

    set_command_byte(f, 0x00);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        to_mouse(f, steps[i].command);
        assert_aux(f, 0xfa);
        to_mouse(f, 0xe9);
        assert_aux(f, 0xfa);
        assert_aux(f, steps[i].modes);
        assert_aux(f, 2);
        assert_aux(f, 100);
        assert_empty(f);
    }
    to_mouse(f, 0xfe);
    assert_aux(f, 100);
    to_mouse(f, 0xeb);
    assert_aux(f, 0xfa);
    assert_aux(f, 0x08);
    assert_aux(f, 0);
    assert_aux(f, 0);
    assert_empty(f);
}

static void the_mouse_answers_its_commands(void **state)
{
    struct fixture *f = *state;

    to_mouse(f, 0xff);
    assert_aux(f, 0xfa);
    assert_aux(f, 0xaa);
    assert_aux(f, 0x00);
    to_mouse(f, 0xf2);
    assert_aux(f, 0xfa);
    assert_aux(f, 0x00);
    to_mouse(f, 0xe8);
    assert_aux(f, 0xfa);
    to_mouse(f, 0x03);
    assert_aux(f, 0xfa);
    to_mouse(f, 0xf3);
    assert_aux(f, 0xfa);
    to_mouse(f, 60);
    assert_aux(f, 0xfa);
    to_mouse(f, 0xf4);
    assert_aux(f, 0xfa);
    to_mouse(f, 0xe9);
    assert_aux(f, 0xfa);
    assert_aux(f, 0x20);
    assert_aux(f, 0x03);
    assert_aux(f, 60);
    to_mouse(f, 0xee);
    assert_aux(f, 0xfa);
    to_mouse(f, 0x77);
    assert_aux(f, 0x77);
    to_mouse(f, 0xec);
    assert_aux(f, 0xfa);
    to_mouse(f, 0x01);
    assert_aux(f, 0xfe);
    assert_empty(f);
}

static void keys_are_translated_and_each_byte_interrupts(void **state)
{
    struct fixture *f = *state;
    const uint8_t codes[] = { 0x1c, 0xf0, 0x1c, 0xe0, 0x75, 0xe0, 0xf0, 0x75 }; /* A, cursor up */
    const uint8_t want[] = { 0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8 };

    assert_true(machine_key_input(f->m, codes, sizeof codes));
    for (unsigned i = 0; i < sizeof want; i++) {
        assert_int_equal(take_interrupt(f), 0x21);
        assert_int_equal(take_interrupt(f), -1);
        assert_key(f, want[i]);
    }
    assert_int_equal(take_interrupt(f), -1);
    set_command_byte(f, 0x01);
    assert_true(machine_key_input(f->m, codes, 3));
    assert_key(f, 0x1c);
    assert_key(f, 0xf0);
    assert_key(f, 0x1c);
}

static void keys_wait_while_the_keyboard_is_off(void **state)
{
    struct fixture *f = *state;
    const uint8_t code = 0x1c;

    outb(f, 0x64, 0xad);
    assert_true(machine_key_input(f->m, &code, 1));
    assert_empty(f);
    outb(f, 0x64, 0xae);
    assert_key(f, 0x1e);
}

static void a_disabled_keyboard_loses_keys_and_a_full_one_refuses_them(void **state)
{
    struct fixture *f = *state;
    uint8_t codes[60] = { 0x1c };

    outb(f, 0x60, 0xf5);
    assert_key(f, 0xfa);
    assert_true(machine_key_input(f->m, codes, 1));
    assert_empty(f);
    outb(f, 0x60, 0xf4);
    assert_key(f, 0xfa);
    assert_true(machine_key_input(f->m, codes, sizeof codes));
    assert_false(machine_key_input(f->m, codes, sizeof codes));
}

static void answers_never_overflow(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 1000; i++) {
        outb(f, 0x60, 0xf2);
        to_mouse(f, 0xe9);
    }
    unsigned n = 0;
    while ((status(f) & 1) && n < 1000) {
        (void)inb(f, 0x60);
        n++;
    }
    assert_in_range(n, 2, 129); /* two queues and the output buffer */
}

static void the_output_port_shows_a20_and_can_reset(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x64, 0xd0);
    assert_int_equal(inb(f, 0x60) & 0x03, 0x03);
    outb(f, 0x64, 0xdd);
    outb(f, 0x64, 0xd0);
    assert_int_equal(inb(f, 0x60) & 0x03, 0x01);
    outb(f, 0x64, 0xd1);
    outb(f, 0x60, 0xfe);
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_RESET);
}

static void pulsing_other_lines_does_not_reset(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x64, 0xff);
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_NONE);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(self_tests_pass),
        T(the_command_byte_reads_back),
        T(output_loops_come_back_as_keyboard_or_mouse),
        T(the_keyboard_answers_its_commands),
        T(a_command_breaks_off_an_argument),
        T(the_mouse_answers_its_commands),
        T(the_mouse_tells_its_modes),
        T(keys_are_translated_and_each_byte_interrupts),
        T(keys_wait_while_the_keyboard_is_off),
        T(a_disabled_keyboard_loses_keys_and_a_full_one_refuses_them),
        T(answers_never_overflow),
        T(the_output_port_shows_a20_and_can_reset),
        T(pulsing_other_lines_does_not_reset),
    };
    return cmocka_run_group_tests_name("machine.i8042", tests, NULL, NULL);
}
