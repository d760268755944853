/*
 * The machine's inside: bus.c, clock.c and machine_pc.c share it; devices see
 * monitor/dev/devices.h only.
 */
#ifndef MONITOR_MACHINE_INTERNAL_H
#define MONITOR_MACHINE_INTERNAL_H

#include "monitor/dev/pci.h"

#define BUS_PORT_COUNT  65536u
#define BUS_PORT_CLAIMS 96u /* index 0 means unclaimed; fits a byte */
#define BUS_MEM_CLAIMS  16u
#define MACHINE_DEVICES 24u
#define MACHINE_ARENA   (512u * 1024u)
#define ISA_LINES       16u

/** One range of one device. */
struct bus_claim {
    uint64_t first, last; /* inclusive */
    const struct io_ops *ops;
    void *dev;
};

struct bus {
    struct bus_claim port[BUS_PORT_CLAIMS];
    struct bus_claim mem[BUS_MEM_CLAIMS];
    uint32_t port_count, mem_count;
    uint8_t port_index[BUS_PORT_COUNT];        /* into port[], 0: unclaimed              */
    uint8_t port_reported[BUS_PORT_COUNT / 8]; /* one bit: unclaimed access was logged    */
    bool mem_reported;
};

struct device_entry {
    const char *name;
    void (*reset)(void *dev);
    void *dev, *state;
    uint32_t state_bytes;
};

struct machine {
    struct machine_config config;
    struct log silent; /* stands in when the configuration has no log */
    struct bus bus;

    /* VM time: source minus offset, or stopped_at while stopped. clock.c */
    uint64_t clock_offset_ns, clock_stopped_at_ns;
    bool clock_is_stopped;
    struct vm_timer *timers; /* sorted by deadline, equal ones in order of setting */

    /* lines */
    uint32_t irq_sources[ISA_LINES]; /* one bit a source */
    bool intr, a20;

    enum machine_stop stop;
    uint32_t stop_code;

    /* devices, in order of creation */
    struct device_entry device[MACHINE_DEVICES];
    uint32_t device_count;
    struct pic *pic;
    struct sysctl *sysctl;
    struct pit *pit;
    struct i8042 *i8042;
    struct vga *vga;
    struct acpi *acpi;
    struct pci_bus *pci;
    struct piix3 *piix3;
    struct fw_cfg *fw_cfg;
    struct uart *uart[4];

    size_t arena_used;
    uint8_t arena[MACHINE_ARENA] __attribute__((aligned(16)));
};

#endif
