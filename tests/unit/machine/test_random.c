/*
 * Whatever a guest does to the ports and the device memory, in whatever order and at whatever
 * times, no device leaves its state (the sanitizers watch), no timer storm arises, and INTR is
 * what was last reported.
 */
#include "fixture.h"

#define STEPS 300000u

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/** Ports of the devices more often than others. */
static uint16_t pick_port(uint32_t *seed)
{
    static const struct {
        uint16_t first, count;
    } ranges[] = {
        { 0x00, 16 }, { 0x20, 2 },   { 0x40, 4 },  { 0x60, 5 },     { 0x70, 2 },  { 0x80, 20 },  { 0xa0, 2 },
        { 0xb2, 2 },  { 0xc0, 32 },  { 0xf0, 2 },  { 0x3b0, 0x30 }, { 0x3f8, 8 }, { 0x4d0, 2 },  { 0x510, 2 },
        { 0x514, 8 }, { 0x600, 12 }, { 0xcf8, 8 }, { 0x402, 1 },    { 0x501, 2 }, { 0xfffc, 4 },
    };
    uint32_t i = next_random(seed) % (sizeof ranges / sizeof *ranges);

    return (uint16_t)(ranges[i].first + next_random(seed) % ranges[i].count);
}

static void one_access(struct fixture *f, uint32_t *seed)
{
    struct bus_request req = {
        .space = next_random(seed) % 8 ? BUS_PORT : BUS_MEM,
        .size = (uint8_t)(1u << next_random(seed) % 3),
        .is_write = next_random(seed) & 1,
        .data = next_random(seed),
    };

    req.addr = req.space == BUS_PORT ? pick_port(seed) : 0x9fffe + next_random(seed) % 0x20004;
    if (next_random(seed) % 2)
        req.data &= 0x3f3f3f3f; /* small values reach further */
    machine_bus(f->m, &req);
}

static void run(struct fixture *f, uint32_t seed)
{
    char text[8192];

    for (unsigned i = 0; i < STEPS; i++) {
        one_access(f, &seed);
        uint32_t what = next_random(&seed);
        if (what % 4 == 0)
            f->now_ns += what >> 8;
        if (what % 8 == 1)
            machine_run_timers(f->m);
        if (what % 8 == 2 && machine_intr_pending(f->m))
            machine_intr_ack(f->m);
        if (what % 1024 == 3)
            f->in_len = sizeof f->in, f->in_at = 0, machine_serial_input(f->m, 0);
        if (what % 4096 == 5)
            f->now_ns += (uint64_t)what * 1000;
        if (what % 65536 == 7)
            machine_reset(f->m);
        if (what % 512 == 11)
            machine_vga_text(f->m, text, what >> 9 & 8191);
        assert_int_equal(f->intr, machine_intr_pending(f->m));
    }
    machine_run_timers(f->m);
    assert_true(machine_next_deadline(f->m) > machine_now_ns(f->m));
}

static void random_accesses_do_no_harm(void **state)
{
    for (uint32_t seed = 1; seed <= 3; seed++)
        run(*state, seed * 2654435761u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_accesses_do_no_harm, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("machine.random", tests, NULL, NULL);
}
