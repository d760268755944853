/*
 * What the devices of the PC share: how they come to life (device_register), what
 * they may ask of the machine beyond monitor/machine.h, and the calls that reach
 * one device from another. Every device is opaque; its registers live in a plain
 * struct of fixed-width integers (`state` of device_register), so that a snapshot
 * is a walk over the list of devices.
 */
#ifndef MONITOR_DEV_DEVICES_H
#define MONITOR_DEV_DEVICES_H

#include "base/log.h"
#include "base/types.h"
#include "monitor/machine.h"

/* Negative errno values that claims and constructors return (Linux numbering). */
enum { MACHINE_EINVAL = 22, MACHINE_EBUSY = 16, MACHINE_ENOSPC = 28 };

#define NS_PER_SEC 1000000000ull

/* ---- clocks of a given frequency, all cut from VM time ------------------------------ */

/** Whole ticks of a clock of `hz` since VM time 0. Exact: seconds and the rest apart, no overflow. */
static inline uint64_t clock_ns_to_ticks(uint64_t ns, uint32_t hz)
{
    return ns / NS_PER_SEC * hz + ns % NS_PER_SEC * hz / NS_PER_SEC;
}

/** The first nanosecond at which clock_ns_to_ticks() gives `ticks`. */
static inline uint64_t clock_ticks_to_ns(uint64_t ticks, uint32_t hz)
{
    return ticks / hz * NS_PER_SEC + (ticks % hz * NS_PER_SEC + hz - 1) / hz;
}

/* ---- what the machine gives its devices --------------------------------------------- */

/** Zeroed memory that lives as long as the machine; NULL when the arena is used up. */
void *machine_alloc(struct machine *m, size_t bytes);

/** Enter a device in the list that machine_reset() walks, in order of creation. */
int device_register(struct machine *m, const char *name, void (*reset)(void *dev), void *dev, void *state,
                    uint32_t state_bytes);

const struct machine_config *machine_config_of(const struct machine *m);
const struct log *machine_log(const struct machine *m);

/** Drive a line that several devices share; `source` 0..31 tells them apart. The line is the OR of all. */
void machine_irq_shared(struct machine *m, unsigned line, unsigned source, bool level);

/** The gate of address line 20. The 8042 and port 92h move the same gate; the last writer wins. */
void machine_a20_set(struct machine *m, bool enabled);
bool machine_a20_get(const struct machine *m);

/** Is the line's request waiting for the CPU? Is it masked by the guest? */
bool machine_irq_is_requested(const struct machine *m, unsigned line);
bool machine_irq_is_masked(const struct machine *m, unsigned line);
/** From the interrupt controller: the request on `line` has been taken by the CPU. */
void machine_irq_taken(struct machine *m, unsigned line);
/** From the interrupt controller: its INT output. */
void machine_intr_set(struct machine *m, bool level);

/* ---- devices ------------------------------------------------------------------------- */
/* Every *_new claims its ports; NULL when there is no room for it. */

struct pic;
struct pic *pic_new(struct machine *m);
void pic_line(struct pic *p, unsigned line, bool level);
uint8_t pic_ack(struct pic *p);
bool pic_is_requested(const struct pic *p, unsigned line);
bool pic_is_masked(const struct pic *p, unsigned line);

struct pit;
struct pit *pit_new(struct machine *m);
/** The CPU took IRQ 0. */
void pit_irq_taken(struct pit *t);

struct rtc;
struct rtc *rtc_new(struct machine *m);

struct uart;
struct uart *uart_new(struct machine *m, uint16_t port, unsigned irq, unsigned source,
                      const struct chardev *chardev);
/** The host side may have bytes. */
void uart_input(struct uart *u);

struct i8042;
struct i8042 *i8042_new(struct machine *m);
bool i8042_key_input(struct i8042 *k, const uint8_t *codes, size_t count);

struct sysctl;
struct sysctl *sysctl_new(struct machine *m);
/** The processor's FERR# line, true: asserted. */
void sysctl_ferr(struct sysctl *c, bool level);
/** Is IGNNE# asserted? */
bool sysctl_ignne(const struct sysctl *c);

struct dma;
struct dma *dma_new(struct machine *m);

struct debug_exit;
struct debug_exit *debug_exit_new(struct machine *m, uint16_t port, uint16_t size);

struct debugcon;
struct debugcon *debugcon_new(struct machine *m, uint16_t port, const struct chardev *chardev);

struct fw_cfg;
struct fw_cfg *fw_cfg_new(struct machine *m);
/** A file for firmware; name and data are kept by reference. false: there is no room. */
bool fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t bytes);
struct fw_cfg *machine_fw_cfg(struct machine *m);

struct vga;
struct vga *vga_new(struct machine *m);
size_t vga_text(const struct vga *v, char *buf, size_t size);

struct acpi;
struct acpi *acpi_new(struct machine *m);
void acpi_place_tables(struct acpi *a);
void acpi_power_button(struct acpi *a);

#endif
