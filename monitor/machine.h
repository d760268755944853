/*
 * The PC around the vCPU: ports, device memory, interrupt lines, the VM clock and
 * timers. Devices are created by explicit calls in machine_pc.c, in order; each is a
 * .c of its own in monitor/dev/ with a serialisable state struct, and claims what it
 * answers to. Bus requests are values, so that another platform can answer them from
 * another world.
 */
#ifndef MONITOR_MACHINE_H
#define MONITOR_MACHINE_H

#include "base/log.h"
#include "base/types.h"

struct machine;

/* ---- bus ------------------------------------------------------------------------- */
enum bus_space { BUS_PORT, BUS_MEM };

/** One access as a value. */
struct bus_request {
    uint8_t space;   /* enum bus_space                           */
    uint8_t size;    /* bytes: 1, 2, 4                           */
    bool is_write;
    uint64_t addr;   /* port, or PA                              */
    uint32_t data;   /* in for writes, out for reads             */
};

/** A device's side. Offsets are absolute (port number, PA). */
struct io_ops {
    const char *name;
    uint32_t (*read)(void *dev, uint64_t addr, unsigned size);
    void (*write)(void *dev, uint64_t addr, unsigned size, uint32_t value);
    bool wide; /* takes 2- and 4-byte accesses; otherwise they are split into bytes */
};

/** Claim a range. 0, -EBUSY when ranges overlap, -ENOSPC when the table is full. */
int machine_claim_ports(struct machine *m, uint16_t port, unsigned count, const struct io_ops *ops, void *dev);
int machine_claim_mem(struct machine *m, uint64_t pa, uint64_t bytes, const struct io_ops *ops, void *dev);

/** Give up the device's claim that starts at `port`; nothing happens when there is none. */
void machine_unclaim_ports(struct machine *m, uint16_t port, const void *dev);

/** Carry a request out. Unclaimed addresses read all ones and log under guest_error. */
void machine_bus(struct machine *m, struct bus_request *req);

/* ---- interrupts ------------------------------------------------------------------- */
/** Drive an ISA interrupt line (0..15). */
void machine_irq(struct machine *m, unsigned line, bool level);
/** Does the interrupt controller ask the CPU? */
bool machine_intr_pending(const struct machine *m);
/** FERR# of the processor, true: asserted, which requests IRQ 13. */
void machine_ferr(struct machine *m, bool level);
/** IGNNE#: the guest has answered by port F0h, and x87 errors are to be ignored until FERR# goes away. */
bool machine_ignne(const struct machine *m);
/** INTA cycle: -> vector. */
uint8_t machine_intr_ack(struct machine *m);

/* ---- time -------------------------------------------------------------------------- */
/** A one-shot timer on the VM clock. Embed in a device; fn runs from machine_run_timers. */
struct vm_timer {
    uint64_t deadline_ns;
    void (*fn)(void *ctx);
    void *ctx;
    bool armed;
    struct vm_timer *next;
};
/** Nanoseconds of VM time since power-on. Everything that tells time derives from this. */
uint64_t machine_now_ns(const struct machine *m);
/** Halt VM time, and let it go on from where it was. Both may be called twice. */
void machine_clock_stop(struct machine *m);
void machine_clock_continue(struct machine *m);
void vm_timer_init(struct vm_timer *t, void (*fn)(void *), void *ctx);
void machine_timer_set(struct machine *m, struct vm_timer *t, uint64_t deadline_ns);
void machine_timer_cancel(struct machine *m, struct vm_timer *t);
/** Earliest deadline, UINT64_MAX without one. Any port or device access may bring it forward. */
uint64_t machine_next_deadline(const struct machine *m);
/** Run what is due. Timer functions may set timers. */
void machine_run_timers(struct machine *m);

/** The clock behind machine_now_ns: host monotonic time plus an offset, or a count of guest
 *  instructions (clock=insn). */
struct vm_clock_source {
    uint64_t (*now_ns)(void *ctx);
    void *ctx;
};

/* ---- character devices (host side of a serial port) -------------------------------- */
struct chardev_ops {
    /** Bytes from the guest; never blocks for long, takes all. */
    void (*write)(void *ctx, const uint8_t *data, size_t len);
    /** Up to len bytes for the guest, 0 when there are none. */
    size_t (*read)(void *ctx, uint8_t *data, size_t len);
};
struct chardev {
    const struct chardev_ops *ops;
    void *ctx;
};

/* ---- the machine ---------------------------------------------------------------------- */
enum machine_stop { STOP_NONE, STOP_POWEROFF, STOP_RESET, STOP_DEBUG_EXIT, STOP_TRIPLE_FAULT, STOP_HOST };

/** A file that firmware finds through fw_cfg. */
struct fw_file {
    const char *name; /* at most 55 characters; outlives the machine, as the data does */
    const uint8_t *data;
    uint32_t bytes;
};
/** An item of fw_cfg that has a fixed number: what a boot ROM loads. */
struct fw_item {
    uint16_t key; /* FW_* */
    const uint8_t *data;
    uint32_t bytes;
};
enum fw_key {
    FW_KERNEL_ADDR = 0x07,
    FW_KERNEL_SIZE = 0x08,
    FW_INITRD_ADDR = 0x0a,
    FW_INITRD_SIZE = 0x0b,
    FW_KERNEL_DATA = 0x11,
    FW_INITRD_DATA = 0x12,
    FW_CMDLINE_ADDR = 0x13,
    FW_CMDLINE_SIZE = 0x14,
    FW_CMDLINE_DATA = 0x15,
    FW_SETUP_ADDR = 0x16,
    FW_SETUP_SIZE = 0x17,
    FW_SETUP_DATA = 0x18,
};
#define MACHINE_FW_FILES 12u
#define MACHINE_FW_ITEMS 12u

struct machine_config {
    uint64_t ram_bytes;
    /** Firmware that sets the chipset up. NULL: a kernel is loaded directly, and finds the chipset as
     *  firmware leaves it. The mmu shows the bytes; the machine only decides where. */
    const uint8_t *rom;
    uint32_t rom_bytes;
    struct fw_file fw_file[MACHINE_FW_FILES];
    unsigned fw_file_count;
    struct fw_item fw_item[MACHINE_FW_ITEMS];
    unsigned fw_item_count;
    struct vm_clock_source clock;
    struct chardev serial[4];          /* ops NULL: port absent (serial[0] is 3f8, IRQ 4) */
    int64_t rtc_epoch;                 /* seconds since 1970 at power-on (UTC)            */
    uint16_t debug_exit_port, debug_exit_size; /* size 0: none                            */
    struct chardev debugcon;           /* ops NULL: none                                  */
    uint16_t debugcon_port;
    struct log *log;
    /** Physical memory, for DMA and for placing ACPI tables. */
    void *mem_ctx;
    void (*mem_read)(void *ctx, uint64_t pa, void *buf, uint32_t len);
    void (*mem_write)(void *ctx, uint64_t pa, const void *buf, uint32_t len);
    /** The chipset moved memory: reads of [pa, pa + bytes) go to RAM or to what else is there (ROM,
     *  devices), and so do writes. May be NULL. */
    void (*mem_route)(void *ctx, uint64_t pa, uint32_t bytes, bool reads_ram, bool writes_ram);
    /** The INTR line of the CPU changed. */
    void *intr_ctx;
    void (*intr_changed)(void *ctx, bool level);
    /** A20 gate changed (port 92h, 8042). */
    void (*a20_changed)(void *ctx, bool enabled);
};

struct machine *machine_new(const struct machine_config *config); /* NULL: no memory */
void machine_free(struct machine *m);
/** Power-on state of every device. */
void machine_reset(struct machine *m);
/** Device memory ranges the mmu must treat as MMIO are reported once through fn. */
void machine_for_each_mmio(struct machine *m, void (*fn)(void *ctx, uint64_t pa, uint64_t bytes), void *ctx);
/** Put ACPI tables where the guest looks for them (RSDP in E0000-FFFFF). */
void machine_place_tables(struct machine *m);
/** The host has input for serial port n. */
void machine_serial_input(struct machine *m, unsigned n);
/** Scan codes (set 2) from the host's keyboard; false when the keyboard's buffer has no room for all. */
bool machine_key_input(struct machine *m, const uint8_t *codes, size_t count);
/** Press the power button. */
void machine_power_button(struct machine *m);

/** Ask the run loop to stop; the first reason stands. Devices call it. `code` of STOP_DEBUG_EXIT is
 *  the exit status itself, (value << 1) | 1. */
void machine_request_stop(struct machine *m, enum machine_stop why, uint32_t code);
enum machine_stop machine_stop_requested(const struct machine *m, uint32_t *code);
void machine_clear_stop(struct machine *m);

/** Contents of the VGA text screen as lines of 7-bit text, for dumps. */
size_t machine_vga_text(struct machine *m, char *buf, size_t size);

#endif
