/* The 8259 pair: priorities, EOI in all its forms, modes, spurious requests, levels. */
#include "fixture.h"

static void raise_line(struct fixture *f, unsigned line)
{
    machine_irq(f->m, line, true);
}

static void lower_line(struct fixture *f, unsigned line)
{
    machine_irq(f->m, line, false);
}

static uint8_t read_isr(struct fixture *f, uint16_t port)
{
    outb(f, port, 0x0b);
    return inb(f, port);
}

static uint8_t read_irr(struct fixture *f, uint16_t port)
{
    outb(f, port, 0x0a);
    return inb(f, port);
}

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    init_pics(*state, 0);
    outb(*state, 0x21, 0x01); /* the timer would disturb */
    return 0;
}

static void everything_is_masked_after_reset(void **state)
{
    struct fixture *f = *state;

    machine_reset(f->m);
    raise_line(f, 4);
    raise_line(f, 12);
    assert_false(machine_intr_pending(f->m));
    assert_int_equal(inb(f, 0x21), 0xff);
    assert_int_equal(inb(f, 0xa1), 0xff);
}

static void the_lowest_line_is_served_first(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 7);
    raise_line(f, 3);
    raise_line(f, 12);
    raise_line(f, 1);
    assert_true(f->intr);
    assert_int_equal(take_interrupt(f), 0x21);
    assert_int_equal(take_interrupt(f), 0x2c);
    assert_int_equal(take_interrupt(f), 0x23);
    assert_int_equal(take_interrupt(f), 0x27);
    assert_int_equal(take_interrupt(f), -1);
    assert_false(f->intr);
}

static void a_level_in_service_holds_back_lower_ones_until_eoi(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 3);
    assert_int_equal(machine_intr_ack(f->m), 0x23);
    assert_int_equal(read_isr(f, 0x20), 0x08);
    raise_line(f, 5);
    assert_false(f->intr);
    raise_line(f, 1);
    assert_true(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x21);
    outb(f, 0x20, 0x20); /* non-specific: the highest in service, 1 */
    assert_int_equal(read_isr(f, 0x20), 0x08);
    assert_false(f->intr);
    outb(f, 0x20, 0x20);
    assert_true(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x25);
}

static void an_edge_asks_once(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 4);
    assert_int_equal(take_interrupt(f), 0x24);
    assert_false(f->intr); /* the line is still high */
    raise_line(f, 4);
    assert_false(f->intr);
    lower_line(f, 4);
    raise_line(f, 4);
    assert_int_equal(take_interrupt(f), 0x24);
}

static void a_level_line_asks_until_it_falls(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x4d1, 0x02); /* IRQ 9 */
    assert_int_equal(inb(f, 0x4d1), 0x02);
    raise_line(f, 9);
    assert_int_equal(take_interrupt(f), 0x29);
    assert_int_equal(take_interrupt(f), 0x29);
    lower_line(f, 9);
    assert_int_equal(take_interrupt(f), -1);
}

static void the_elcr_keeps_system_lines_edges(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x4d0, 0xff);
    outb(f, 0x4d1, 0xff);
    assert_int_equal(inb(f, 0x4d0), 0xf8);
    assert_int_equal(inb(f, 0x4d1), 0xde);
}

static void a_request_that_vanishes_is_spurious(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 5);
    lower_line(f, 5);
    assert_false(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x27);
    assert_int_equal(read_isr(f, 0x20), 0);
}

static void a_spurious_slave_request_leaves_the_cascade_in_service(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 10);
    outb(f, 0xa1, 0x04); /* masked between INTR and INTA: the slave's INT falls, INTR with it */
    assert_false(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x27);
    outb(f, 0xa1, 0);
    assert_int_equal(machine_intr_ack(f->m), 0x2a);
    assert_int_equal(read_isr(f, 0x20), 0x04);
    assert_int_equal(read_isr(f, 0xa0), 0x04);
}

static void masked_requests_wait(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x21, 0x10);
    raise_line(f, 4);
    assert_false(f->intr);
    assert_int_equal(read_irr(f, 0x20) & 0x10, 0x10);
    outb(f, 0x21, 0x00);
    assert_true(f->intr);
}

static void two_requests_of_the_slave_come_one_after_the_other(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 8);
    raise_line(f, 14);
    assert_int_equal(machine_intr_ack(f->m), 0x28);
    outb(f, 0x20, 0x20); /* the master is free, but 8 is in service in the slave */
    assert_false(f->intr);
    outb(f, 0xa0, 0x20);
    assert_true(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x2e);
}

static void fully_nested_mode_holds_back_the_slave_and_the_special_one_does_not(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 14);
    assert_int_equal(machine_intr_ack(f->m), 0x2e);
    raise_line(f, 8); /* higher in the slave, but IR2 is in service */
    assert_false(f->intr);

    machine_reset(f->m);
    init_pics(f, 0x10);
    outb(f, 0x21, 0x01);
    raise_line(f, 14);
    assert_int_equal(machine_intr_ack(f->m), 0x2e);
    raise_line(f, 8);
    assert_true(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x28);
}

static void automatic_eoi_leaves_nothing_in_service(void **state)
{
    struct fixture *f = *state;

    init_pics(f, 0x02);
    outb(f, 0x21, 0x01);
    lower_line(f, 3);
    raise_line(f, 3);
    raise_line(f, 12);
    assert_int_equal(machine_intr_ack(f->m), 0x2c);
    assert_int_equal(read_isr(f, 0x20), 0);
    assert_int_equal(read_isr(f, 0xa0), 0);
    assert_int_equal(machine_intr_ack(f->m), 0x23);
    assert_false(f->intr);
}

static void rotation_makes_the_served_level_the_lowest(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 3);
    raise_line(f, 4);
    assert_int_equal(machine_intr_ack(f->m), 0x23);
    outb(f, 0x20, 0xa0); /* rotate on non-specific EOI */
    lower_line(f, 3);
    raise_line(f, 3);
    assert_int_equal(machine_intr_ack(f->m), 0x24); /* 4 before 3 now */
    outb(f, 0x20, 0x20);
    assert_int_equal(machine_intr_ack(f->m), 0x23);
    outb(f, 0x20, 0x20);
    outb(f, 0x20, 0xc7); /* set priority: 7 lowest, as after reset */
    lower_line(f, 3);
    lower_line(f, 4);
    raise_line(f, 3);
    raise_line(f, 4);
    assert_int_equal(machine_intr_ack(f->m), 0x23);
    outb(f, 0x20, 0xe3); /* rotate on specific EOI of 3: 4 is first */
    lower_line(f, 3);
    raise_line(f, 3);
    assert_int_equal(machine_intr_ack(f->m), 0x24);
}

static void special_mask_mode_lets_lower_levels_through(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 1);
    assert_int_equal(machine_intr_ack(f->m), 0x21);
    raise_line(f, 6);
    assert_false(f->intr);
    outb(f, 0x21, 0x03); /* mask the level in service */
    assert_false(f->intr);
    outb(f, 0x20, 0x68); /* special mask mode */
    assert_true(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x26);
    outb(f, 0x20, 0x20); /* ends 6: the masked level does not count */
    assert_int_equal(read_isr(f, 0x20), 0x02);
    outb(f, 0x20, 0x48);
    outb(f, 0x20, 0x61);
    assert_int_equal(read_isr(f, 0x20), 0);
}

static void polling_acknowledges(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x20, 0x0c);
    assert_int_equal(inb(f, 0x20) & 0x80, 0);
    raise_line(f, 6);
    outb(f, 0x20, 0x0c);
    assert_int_equal(inb(f, 0x20), 0x86);
    assert_int_equal(read_isr(f, 0x20), 0x40);
    assert_false(f->intr);
    assert_int_equal(read_irr(f, 0x20) & 0x40, 0); /* one read only */
    raise_line(f, 11);
    outb(f, 0xa0, 0x0c);
    assert_int_equal(inb(f, 0xa0), 0x83);
}

static void initialisation_forgets_edges_and_service(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 3);
    assert_int_equal(machine_intr_ack(f->m), 0x23);
    raise_line(f, 4);
    init_pics(f, 0);
    outb(f, 0x21, 0x01);
    assert_false(f->intr);
    assert_int_equal(read_isr(f, 0x20), 0);
    lower_line(f, 4);
    raise_line(f, 4);
    assert_int_equal(machine_intr_ack(f->m), 0x24);
}

static void no_request_leaves_a_chip_in_the_middle_of_initialisation(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x20, 0x11);
    raise_line(f, 4);
    assert_false(f->intr);
    outb(f, 0x21, 0x40);
    outb(f, 0x21, 0x04);
    assert_false(f->intr);
    outb(f, 0x21, 0x01);
    assert_true(f->intr);
    assert_int_equal(machine_intr_ack(f->m), 0x44);
}

static void port_f0_takes_back_the_fpu_error(void **state)
{
    struct fixture *f = *state;

    raise_line(f, 13); /* FERR# */
    assert_int_equal(take_interrupt(f), 0x2d);
    outb(f, 0xf0, 0);
    raise_line(f, 13);
    assert_int_equal(take_interrupt(f), 0x2d);
}

static void ferr_requests_irq_13_and_port_f0_answers(void **state)
{
    struct fixture *f = *state;

    init_pics(f, 0);
    machine_ferr(f->m, true);
    assert_true(f->intr);
    assert_false(machine_ignne(f->m));
    assert_int_equal(take_interrupt(f), 0x2d);
    machine_ferr(f->m, true); /* still up: no second request */
    assert_int_equal(take_interrupt(f), -1);
    outb(f, 0xf0, 0);
    assert_true(machine_ignne(f->m));
    machine_ferr(f->m, false);
    assert_false(machine_ignne(f->m));
    outb(f, 0xf0, 0); /* without an error it means nothing */
    assert_false(machine_ignne(f->m));
    machine_ferr(f->m, true);
    assert_int_equal(take_interrupt(f), 0x2d);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(everything_is_masked_after_reset),
        T(the_lowest_line_is_served_first),
        T(a_level_in_service_holds_back_lower_ones_until_eoi),
        T(an_edge_asks_once),
        T(a_level_line_asks_until_it_falls),
        T(the_elcr_keeps_system_lines_edges),
        T(a_request_that_vanishes_is_spurious),
        T(a_spurious_slave_request_leaves_the_cascade_in_service),
        T(masked_requests_wait),
        T(two_requests_of_the_slave_come_one_after_the_other),
        T(fully_nested_mode_holds_back_the_slave_and_the_special_one_does_not),
        T(automatic_eoi_leaves_nothing_in_service),
        T(rotation_makes_the_served_level_the_lowest),
        T(special_mask_mode_lets_lower_levels_through),
        T(polling_acknowledges),
        T(initialisation_forgets_edges_and_service),
        T(no_request_leaves_a_chip_in_the_middle_of_initialisation),
        T(port_f0_takes_back_the_fpu_error),
        T(ferr_requests_irq_13_and_port_f0_answers),
    };
    return cmocka_run_group_tests_name("machine.pic", tests, NULL, NULL);
}
