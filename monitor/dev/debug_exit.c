/*
 * A port that ends the machine: a write of v stops it with exit status (v << 1) | 1, as QEMU's
 * device of the same purpose does, so that a test guest runs under both. Odd, hence never 0.
 *
 * Ref: QEMU documentation, "isa-debug-exit".
 */
#include "monitor/dev/devices.h"

struct debug_exit {
    struct machine *m;
};

static void debug_exit_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct debug_exit *d = dev;

    (void)addr;
    (void)size;
    machine_request_stop(d->m, STOP_DEBUG_EXIT, value << 1 | 1);
}

static uint32_t debug_exit_read(void *dev, uint64_t addr, unsigned size)
{
    (void)dev;
    (void)addr;
    (void)size;
    return 0;
}

static void debug_exit_reset(void *dev)
{
    (void)dev; /* holds no state */
}

static const struct io_ops debug_exit_ops = {
    .name = "debug-exit", .read = debug_exit_read, .write = debug_exit_write, .wide = true
};

struct debug_exit *debug_exit_new(struct machine *m, uint16_t port, uint16_t size)
{
    struct debug_exit *d = machine_alloc(m, sizeof *d);

    if (!d || machine_claim_ports(m, port, size, &debug_exit_ops, d) ||
        device_register(m, "debug-exit", debug_exit_reset, d, NULL, 0))
        return NULL;
    d->m = m;
    return d;
}
