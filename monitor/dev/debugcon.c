/*
 * The debug console of virtual machines: bytes written to the port are text for the host, and a read
 * gives E9h, which tells firmware that somebody listens.
 *
 * Ref: Bochs' port E9 hack; QEMU's isa-debugcon. SeaBIOS writes to port 402h.
 */
#include "monitor/dev/devices.h"

#define READBACK 0xe9

struct debugcon {
    struct chardev chardev;
};

static uint32_t debugcon_read(void *dev, uint64_t addr, unsigned size)
{
    (void)dev;
    (void)addr;
    (void)size;
    return READBACK;
}

static void debugcon_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct debugcon *d = dev;
    uint8_t byte = (uint8_t)value;

    (void)addr;
    (void)size;
    d->chardev.ops->write(d->chardev.ctx, &byte, 1);
}

static void debugcon_reset(void *dev)
{
    (void)dev; /* holds no state */
}

static const struct io_ops debugcon_ops = { .name = "debugcon",
                                            .read = debugcon_read,
                                            .write = debugcon_write };

struct debugcon *debugcon_new(struct machine *m, uint16_t port, const struct chardev *chardev)
{
    struct debugcon *d = machine_alloc(m, sizeof *d);

    if (!d || machine_claim_ports(m, port, 1, &debugcon_ops, d) ||
        device_register(m, "debugcon", debugcon_reset, d, NULL, 0))
        return NULL;
    d->chardev = *chardev;
    return d;
}
