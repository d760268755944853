/*
 * The PCI bus: functions that devices enter, and configuration accesses to them. monitor/dev/pci.c
 * owns the ports; what a register means is the function's affair.
 */
#ifndef MONITOR_DEV_PCI_H
#define MONITOR_DEV_PCI_H

#include "monitor/dev/devices.h"

#define PCI_CONFIG_BYTES            256u
#define PCI_DEVFN(device, function) ((uint8_t)((device) << 3 | (function)))

/* Registers that every function has */
enum pci_register {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_PROG_IF = 0x09,
    PCI_CLASS = 0x0a,
    PCI_HEADER_TYPE = 0x0e,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
#define PCI_COMMAND_IO     0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_HEADER_MANY    0x80 /* the device has other functions, too */
#define PCI_VENDOR_INTEL   0x8086

/** One function. The device owns it; it lives as long as the machine. */
struct pci_function {
    uint8_t devfn;
    uint8_t *config;         /* PCI_CONFIG_BYTES, part of the device's state                */
    const uint8_t *writable; /* PCI_CONFIG_BYTES: bits that a guest may change              */
    /** Bytes [first, first + count) were written, reserved bits left as they were. May be NULL. */
    void (*written)(void *dev, unsigned first, unsigned count);
    void *dev;
};

struct pci_bus;
struct pci_bus *pci_new(struct machine *m);
/** 0; -EBUSY when the place is taken, -ENOSPC when the bus is full. */
int pci_add(struct pci_bus *bus, const struct pci_function *function);

static inline void pci_put16(uint8_t *config, unsigned at, uint16_t value)
{
    config[at] = (uint8_t)value;
    config[at + 1] = (uint8_t)(value >> 8);
}

static inline void pci_put32(uint8_t *config, unsigned at, uint32_t value)
{
    pci_put16(config, at, (uint16_t)value);
    pci_put16(config, at + 2, (uint16_t)(value >> 16));
}

static inline uint32_t pci_get32(const uint8_t *config, unsigned at)
{
    return config[at] | (uint32_t)config[at + 1] << 8 | (uint32_t)config[at + 2] << 16 |
           (uint32_t)config[at + 3] << 24;
}

/** Does a write of [first, first + count) touch [at, at + bytes)? */
static inline bool pci_touches(unsigned first, unsigned count, unsigned at, unsigned bytes)
{
    return first < at + bytes && at < first + count;
}

/* ---- functions of the chipset -------------------------------------------------------------- */

struct i440fx;
struct i440fx *i440fx_new(struct machine *m);
struct piix3;
struct piix3 *piix3_new(struct machine *m);
/** The byte register at CF9h, which lies among the ports of the configuration mechanism. */
uint8_t piix3_reset_control_read(const struct piix3 *p);
void piix3_reset_control_write(struct piix3 *p, uint8_t value);

struct pci_bus *machine_pci(struct machine *m);
struct piix3 *machine_piix3(struct machine *m);

#endif
