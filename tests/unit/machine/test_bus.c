/* The bus: dispatch, splitting, overlap; the VM clock and its timers; stops and A20. */
#include <stdio.h>
#include <unistd.h>

#include "fixture.h"

#include <errno.h>

struct recorder {
    uint64_t addr[8];
    unsigned size[8];
    uint32_t value[8];
    unsigned count;
};

static uint32_t rec_read(void *dev, uint64_t addr, unsigned size)
{
    struct recorder *r = dev;
    r->addr[r->count] = addr;
    r->size[r->count++] = size;
    return 0x10u + (uint32_t)(addr & 0xf);
}

static void rec_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct recorder *r = dev;
    r->addr[r->count] = addr;
    r->size[r->count] = size;
    r->value[r->count++] = value;
}

static const struct io_ops narrow = { .name = "narrow", .read = rec_read, .write = rec_write };
static const struct io_ops wide = { .name = "wide", .read = rec_read, .write = rec_write, .wide = true };

static void a_narrow_device_sees_bytes_in_ascending_order(void **state)
{
    struct fixture *f = *state;
    struct recorder r = { 0 };

    assert_int_equal(machine_claim_ports(f->m, 0x300, 4, &narrow, &r), 0);
    out_port(f, 0x300, 4, 0x44332211);
    assert_int_equal(r.count, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(r.addr[i], 0x300 + i);
        assert_int_equal(r.size[i], 1);
        assert_int_equal(r.value[i], 0x11 * (i + 1));
    }
    assert_int_equal(in_port(f, 0x300, 4), 0x13121110);
}

static void a_wide_device_sees_the_access_whole(void **state)
{
    struct fixture *f = *state;
    struct recorder r = { 0 };

    assert_int_equal(machine_claim_ports(f->m, 0x300, 4, &wide, &r), 0);
    out_port(f, 0x300, 4, 0x44332211);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.value[0], 0x44332211);
    assert_int_equal(in_port(f, 0x302, 2), 0x12);
}

static void an_access_across_two_claims_reaches_both(void **state)
{
    struct fixture *f = *state;
    struct recorder a = { 0 }, b = { 0 };

    assert_int_equal(machine_claim_ports(f->m, 0x300, 2, &wide, &a), 0);
    assert_int_equal(machine_claim_ports(f->m, 0x302, 1, &narrow, &b), 0);
    assert_int_equal(in_port(f, 0x300, 4), 0xff121110);
    assert_int_equal(a.count, 2);
    assert_int_equal(b.count, 1);
}

static void claims_that_overlap_are_refused(void **state)
{
    struct fixture *f = *state;
    struct recorder r = { 0 };

    assert_int_equal(machine_claim_ports(f->m, 0x300, 4, &narrow, &r), 0);
    assert_int_equal(machine_claim_ports(f->m, 0x303, 1, &narrow, &r), -EBUSY);
    assert_int_equal(machine_claim_ports(f->m, 0x2fe, 3, &narrow, &r), -EBUSY);
    assert_int_equal(machine_claim_mem(f->m, 0xb8000, 0x1000, &narrow, &r), -EBUSY);
    assert_int_equal(machine_claim_mem(f->m, 0xc0000, 0x1000, &narrow, &r), 0);
    /* a refused claim leaves nothing behind */
    assert_int_equal(machine_claim_ports(f->m, 0x304, 1, &narrow, &r), 0);
}

static void too_many_claims_are_refused(void **state)
{
    struct fixture *f = *state;
    struct recorder r = { 0 };
    int rc = 0;

    for (uint16_t port = 0x1000; port < 0x1100 && !rc; port++)
        rc = machine_claim_ports(f->m, port, 1, &narrow, &r);
    assert_int_equal(rc, -ENOSPC);
}

static void unclaimed_addresses_read_all_ones(void **state)
{
    struct fixture *f = *state;
    struct bus_request req = { .space = BUS_MEM, .size = 4, .addr = 0xfee00000 };

    assert_int_equal(in_port(f, 0x2e, 1), 0xff);
    assert_int_equal(in_port(f, 0x2e, 2), 0xffff);
    assert_int_equal(in_port(f, 0xffff, 4) & 0xffffff00u, 0xffffff00u & in_port(f, 0xffff, 4));
    assert_int_equal(in_port(f, 0xcfc, 4), 0xffffffff);
    machine_bus(f->m, &req);
    assert_int_equal(req.data, 0xffffffff);
}

static void find_vga(void *ctx, uint64_t pa, uint64_t bytes)
{
    bool *found = ctx;
    *found |= pa == 0xa0000 && bytes == 0x20000;
}

static void device_memory_is_reported(void **state)
{
    struct fixture *f = *state;
    bool found = false;

    machine_for_each_mmio(f->m, find_vga, &found);
    assert_true(found);
}

/* ---- clock and timers ---------------------------------------------------------------------- */

struct order {
    struct fixture *f;
    char text[16];
    unsigned len;
};

static void note_a(void *ctx)
{
    struct order *o = ctx;
    o->text[o->len++] = 'a';
}

static void note_b(void *ctx)
{
    struct order *o = ctx;
    o->text[o->len++] = 'b';
}

static void timers_run_in_order_of_their_deadlines(void **state)
{
    struct fixture *f = *state;
    struct order o = { .f = f };
    struct vm_timer a, b;

    vm_timer_init(&a, note_a, &o);
    vm_timer_init(&b, note_b, &o);
    machine_timer_set(f->m, &a, 300);
    machine_timer_set(f->m, &b, 200);
    assert_int_equal(machine_next_deadline(f->m), 200);
    jump(f, 199);
    assert_int_equal(o.len, 0);
    jump(f, 1);
    assert_string_equal(o.text, "b");
    assert_false(b.armed);
    jump(f, 1000);
    assert_string_equal(o.text, "ba");
}

static void a_timer_may_be_moved_and_cancelled(void **state)
{
    struct fixture *f = *state;
    struct order o = { .f = f };
    struct vm_timer a;

    vm_timer_init(&a, note_a, &o);
    machine_timer_set(f->m, &a, 100);
    machine_timer_set(f->m, &a, 5000);
    jump(f, 200);
    assert_int_equal(o.len, 0);
    machine_timer_cancel(f->m, &a);
    machine_timer_cancel(f->m, &a);
    jump(f, 10000);
    assert_int_equal(o.len, 0);
}

static void the_next_deadline_is_the_earliest(void **state)
{
    struct fixture *f = *state;
    struct order o = { .f = f };
    struct vm_timer a;
    uint64_t others = machine_next_deadline(f->m);

    vm_timer_init(&a, note_a, &o);
    machine_timer_set(f->m, &a, 1);
    assert_int_equal(machine_next_deadline(f->m), 1);
    machine_timer_set(f->m, &a, NS_PER_S * 1000000);
    assert_int_equal(machine_next_deadline(f->m), others);
    machine_timer_cancel(f->m, &a);
    assert_int_equal(machine_next_deadline(f->m), others);
}

static void the_clock_starts_at_zero_and_can_be_stopped(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(machine_now_ns(f->m), 0);
    f->now_ns += 500;
    assert_int_equal(machine_now_ns(f->m), 500);
    machine_clock_stop(f->m);
    f->now_ns += 10000;
    machine_clock_stop(f->m);
    assert_int_equal(machine_now_ns(f->m), 500);
    machine_clock_continue(f->m);
    machine_clock_continue(f->m);
    f->now_ns += 7;
    assert_int_equal(machine_now_ns(f->m), 507);
}

/* ---- stops and A20 --------------------------------------------------------------------------- */

static void the_first_reason_to_stop_stands(void **state)
{
    struct fixture *f = *state;
    uint32_t code = 0;

    out_port(f, EXIT_PORT, 1, 0x10);
    machine_request_stop(f->m, STOP_POWEROFF, 0);
    assert_int_equal(machine_stop_requested(f->m, &code), STOP_DEBUG_EXIT);
    assert_int_equal(code, 0x21);
    machine_clear_stop(f->m);
    assert_int_equal(machine_stop_requested(f->m, &code), STOP_NONE);
}

static void resets_are_requested_by_four_ports(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = { { 0x64, 0xfe }, { 0x92, 0x01 }, { 0xcf9, 0x06 }, { 0xcf9, 0x0e } };

    for (unsigned i = 0; i < 4; i++) {
        machine_clear_stop(f->m);
        machine_reset(f->m);
        outb(f, writes[i].port, writes[i].value);
        assert_int_equal(machine_stop_requested(f->m, NULL), STOP_RESET);
    }
}

static void a_pci_address_does_not_reset(void **state)
{
    struct fixture *f = *state;

    out_port(f, 0xcf8, 4, 0x80000600);
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_NONE);
    assert_int_equal(in_port(f, 0xcf8, 4), 0x80000600);
}

static void port_92_and_the_8042_move_one_a20_gate(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(inb(f, 0x92) & 2, 2);
    outb(f, 0x92, 0);
    assert_false(f->a20);
    assert_int_equal(f->a20_changes, 1);
    outb(f, 0x64, 0xdf);
    assert_true(f->a20);
    assert_int_equal(inb(f, 0x92) & 2, 2);
    outb(f, 0x64, 0xd1);
    outb(f, 0x60, 0xdd);
    assert_false(f->a20);
    assert_int_equal(inb(f, 0x92) & 2, 0);
    machine_reset(f->m);
    assert_true(f->a20);
}

static void dma_and_diagnostic_ports_read_back(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x0d, 0);
    outb(f, 0x04, 0x34);
    outb(f, 0x04, 0x12);
    outb(f, 0x0c, 0);
    assert_int_equal(inb(f, 0x04), 0x34);
    assert_int_equal(inb(f, 0x04), 0x12);
    outb(f, 0x87, 0x55);
    assert_int_equal(inb(f, 0x87), 0x55);
    outb(f, 0x80, 0xaa);
    assert_int_equal(inb(f, 0x80), 0xaa);
    assert_int_equal(inb(f, 0x08), 0);
}

static void two_machines_do_not_know_each_other(void **state)
{
    struct fixture *f = *state;
    void *other = NULL;

    assert_int_equal(fixture_setup(&other), 0);
    outb(other, 0x92, 0);
    outb(other, 0x3ff, 0x5a);
    assert_int_equal(inb(f, 0x92) & 2, 2);
    assert_int_equal(inb(f, 0x3ff), 0);
    fixture_teardown(&other);
}

/* What the log says while a guest asks everywhere, from stderr. */
static unsigned lines_logged(struct fixture *f, uint16_t first, unsigned ports, unsigned times)
{
    FILE *log = tmpfile();
    int saved = dup(STDERR_FILENO), c;
    unsigned lines = 0;

    assert_true(log && saved >= 0);
    fflush(stderr);
    dup2(fileno(log), STDERR_FILENO);
    while (times--)
        for (unsigned i = 0; i < ports; i++) {
            struct bus_request mem = { .space = BUS_MEM, .size = 4, .addr = 0xd0000000u + 4096 * i };
            outb(f, (uint16_t)(first + i), 0x55);
            inb(f, (uint16_t)(first + i));
            machine_bus(f->m, &mem);
        }
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(log);
    while ((c = getc(log)) != EOF)
        lines += c == '\n';
    fclose(log);
    return lines;
}

static void what_nobody_answers_is_logged_once(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(lines_logged(f, 0x1800, 16, 2), 0);
    f->log.mask = 1u << LOG_guest_error;
    assert_int_equal(lines_logged(f, 0x1800, 16, 50), 16 + 1); /* each port, and memory as a whole */
    assert_int_equal(lines_logged(f, 0x1808, 16, 50), 8);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(a_narrow_device_sees_bytes_in_ascending_order),
        T(a_wide_device_sees_the_access_whole),
        T(an_access_across_two_claims_reaches_both),
        T(claims_that_overlap_are_refused),
        T(too_many_claims_are_refused),
        T(unclaimed_addresses_read_all_ones),
        T(what_nobody_answers_is_logged_once),
        T(device_memory_is_reported),
        T(timers_run_in_order_of_their_deadlines),
        T(a_timer_may_be_moved_and_cancelled),
        T(the_next_deadline_is_the_earliest),
        T(the_clock_starts_at_zero_and_can_be_stopped),
        T(the_first_reason_to_stop_stands),
        T(resets_are_requested_by_four_ports),
        T(a_pci_address_does_not_reset),
        T(port_92_and_the_8042_move_one_a20_gate),
        T(dma_and_diagnostic_ports_read_back),
        T(two_machines_do_not_know_each_other),
    };
    return cmocka_run_group_tests_name("machine.bus", tests, NULL, NULL);
}
