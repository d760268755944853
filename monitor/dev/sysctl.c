/*
 * The small ports of a PC's chipset: fast A20 and reset (92h), the diagnostic port (80h), and the
 * coprocessor's error latch (F0h, F1h): FERR# going up requests IRQ 13; a write takes the request back and,
 * while FERR# is still up, tells the processor by IGNNE# to go on in spite of the error.
 *
 * Ref: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A"; IBM PC/AT
 * Technical Reference, "Math Coprocessor".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PORT_DIAGNOSTIC 0x80
#define PORT_A          0x92
#define PORT_FPU        0xf0
#define FPU_IRQ         13

#define PA_FAST_RESET 0x01
#define PA_A20        0x02

struct sysctl_state {
    uint8_t diagnostic, port_a;
    uint8_t ferr, ignne; /* the two lines: 1 when asserted */
};

struct sysctl {
    struct machine *m;
    struct sysctl_state s;
};

static uint32_t diagnostic_read(void *dev, uint64_t addr, unsigned size)
{
    struct sysctl *c = dev;

    (void)addr;
    (void)size;
    return c->s.diagnostic;
}

static void diagnostic_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct sysctl *c = dev;

    (void)addr;
    (void)size;
    c->s.diagnostic = (uint8_t)value;
}

static uint32_t port_a_read(void *dev, uint64_t addr, unsigned size)
{
    struct sysctl *c = dev;

    (void)addr;
    (void)size;
    return (uint32_t)(c->s.port_a & ~PA_A20) | (machine_a20_get(c->m) ? PA_A20 : 0u);
}

static void port_a_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct sysctl *c = dev;
    bool was_reset = c->s.port_a & PA_FAST_RESET;

    (void)addr;
    (void)size;
    c->s.port_a = (uint8_t)value;
    machine_a20_set(c->m, value & PA_A20);
    if ((value & PA_FAST_RESET) && !was_reset)
        machine_request_stop(c->m, STOP_RESET, 0);
}

static void fpu_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct sysctl *c = dev;

    (void)addr;
    (void)size;
    (void)value;
    machine_irq(c->m, FPU_IRQ, false);
    c->s.ignne = c->s.ferr;
}

void sysctl_ferr(struct sysctl *c, bool level)
{
    if (level && !c->s.ferr)
        machine_irq(c->m, FPU_IRQ, true);
    c->s.ferr = level;
    c->s.ignne = c->s.ignne && level;
}

bool sysctl_ignne(const struct sysctl *c)
{
    return c->s.ignne;
}

static void sysctl_reset(void *dev)
{
    struct sysctl *c = dev;

    memset(&c->s, 0, sizeof c->s);
}

static const struct io_ops diagnostic_ops = { .name = "port80",
                                              .read = diagnostic_read,
                                              .write = diagnostic_write };
static const struct io_ops port_a_ops = { .name = "port92", .read = port_a_read, .write = port_a_write };
static const struct io_ops fpu_ops = { .name = "fpu-error", .write = fpu_write };

struct sysctl *sysctl_new(struct machine *m)
{
    struct sysctl *c = machine_alloc(m, sizeof *c);

    if (!c || machine_claim_ports(m, PORT_DIAGNOSTIC, 1, &diagnostic_ops, c) ||
        machine_claim_ports(m, PORT_A, 1, &port_a_ops, c) ||
        machine_claim_ports(m, PORT_FPU, 2, &fpu_ops, c) ||
        device_register(m, "sysctl", sysctl_reset, c, &c->s, sizeof c->s))
        return NULL;
    c->m = m;
    return c;
}
