/*
 * PCI configuration, mechanism 1: an address at CF8h, data at CFCh.
 *
 *   31  30     24 23   16 15    11 10      8 7        2 1 0
 *  +---+---------+-------+--------+----------+----------+---+
 *  | E |    0    |  bus  | device | function | register | 0 |
 *  +---+---------+-------+--------+----------+----------+---+
 *
 * Only a doubleword at CF8h is the address; narrower accesses there go to what else has ports in
 * that place, which is the reset control register at CF9h. A function's registers are bytes with a
 * mask of those bits that can be written; there is one bus, number 0.
 *
 * Ref: PCI Local Bus Specification 2.1, ch. 3.7.4.1 "Configuration Mechanism #1"; Intel 82441FX data
 * sheet, "CONFADD, CONFDATA".
 */
#include "monitor/dev/pci.h"
#include "base/string.h"

#define PORT_ADDRESS 0xcf8
#define PORT_RESET   0xcf9
#define PORT_DATA    0xcfc

#define ADDRESS_ENABLE   0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu
#define FUNCTIONS        16u

struct pci_state {
    uint32_t address;
};

struct pci_bus {
    struct machine *m;
    struct pci_function function[FUNCTIONS];
    unsigned count;
    struct pci_state s;
};

int pci_add(struct pci_bus *bus, const struct pci_function *function)
{
    for (unsigned i = 0; i < bus->count; i++)
        if (bus->function[i].devfn == function->devfn)
            return -MACHINE_EBUSY;
    if (bus->count == FUNCTIONS)
        return -MACHINE_ENOSPC;
    bus->function[bus->count++] = *function;
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------- */

/** The function that the address names; NULL when there is none, or the mechanism is off. */
static const struct pci_function *addressed(const struct pci_bus *bus)
{
    uint32_t address = bus->s.address;

    if (!(address & ADDRESS_ENABLE) || (address >> 16 & 0xff))
        return NULL;
    for (unsigned i = 0; i < bus->count; i++)
        if (bus->function[i].devfn == (address >> 8 & 0xff))
            return &bus->function[i];
    return NULL;
}

static uint32_t data_read(void *dev, uint64_t addr, unsigned size)
{
    const struct pci_bus *bus = dev;
    const struct pci_function *f = addressed(bus);
    unsigned at = (bus->s.address & 0xfc) + (addr & 3);
    uint32_t value = 0;

    if (!f)
        return 0xffffffffu;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)f->config[at + i] << (8 * i);
    return value;
}

static void data_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    const struct pci_bus *bus = dev;
    const struct pci_function *f = addressed(bus);
    unsigned at = (bus->s.address & 0xfc) + (addr & 3);

    if (!f)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = f->writable[at + i], byte = (uint8_t)(value >> (8 * i));
        f->config[at + i] = (uint8_t)((f->config[at + i] & ~mask) | (byte & mask));
    }
    if (f->written)
        f->written(f->dev, at, size);
}

/* ---- address ---------------------------------------------------------------------------------- */

static uint32_t address_read(void *dev, uint64_t addr, unsigned size)
{
    const struct pci_bus *bus = dev;

    if (addr == PORT_ADDRESS && size == 4)
        return bus->s.address;
    if (addr == PORT_RESET && size == 1)
        return piix3_reset_control_read(machine_piix3(bus->m));
    return 0xffffffffu;
}

static void address_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct pci_bus *bus = dev;

    if (addr == PORT_ADDRESS && size == 4)
        bus->s.address = value & ADDRESS_WRITABLE;
    else if (addr == PORT_RESET && size == 1)
        piix3_reset_control_write(machine_piix3(bus->m), (uint8_t)value);
}

/* ---- power-on --------------------------------------------------------------------------------- */

static void pci_reset(void *dev)
{
    struct pci_bus *bus = dev;

    memset(&bus->s, 0, sizeof bus->s);
}

static const struct io_ops address_ops = {
    .name = "pci-address", .read = address_read, .write = address_write, .wide = true
};
static const struct io_ops data_ops = {
    .name = "pci-data", .read = data_read, .write = data_write, .wide = true
};

struct pci_bus *pci_new(struct machine *m)
{
    struct pci_bus *bus = machine_alloc(m, sizeof *bus);

    if (!bus || machine_claim_ports(m, PORT_ADDRESS, 4, &address_ops, bus) ||
        machine_claim_ports(m, PORT_DATA, 4, &data_ops, bus) ||
        device_register(m, "pci", pci_reset, bus, &bus->s, sizeof bus->s))
        return NULL;
    bus->m = m;
    return bus;
}
