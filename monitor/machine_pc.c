/*
 * The PC: every device is made here by an explicit call, in order, and the lines
 * between devices meet here. What a platform sees of the machine is monitor/machine.h.
 *
 * The whole machine is one reservation: the struct, and an arena behind it that the
 * constructors cut their structs from. Nothing is freed one by one.
 *
 * Invariants: a line is high while any of its sources drives it; machine_intr_pending()
 * always equals the last level that intr_changed reported.
 *
 * Ref: IBM PC/AT Technical Reference, "System Board" (I/O address map, interrupt levels).
 */
#include "base/string.h"
#include "monitor/machine_internal.h"
#include "platform/platform.h"

/* ---- what devices ask --------------------------------------------------------------- */

void *machine_alloc(struct machine *m, size_t bytes)
{
    size_t rounded = (bytes + 15) & ~(size_t)15;

    if (rounded > MACHINE_ARENA - m->arena_used)
        return NULL;
    void *p = m->arena + m->arena_used;
    m->arena_used += rounded;
    return p;
}

int device_register(struct machine *m, const char *name, void (*reset)(void *dev), void *dev, void *state,
                    uint32_t state_bytes)
{
    if (m->device_count == MACHINE_DEVICES)
        return -MACHINE_ENOSPC;
    m->device[m->device_count++] = (struct device_entry){
        .name = name, .reset = reset, .dev = dev, .state = state, .state_bytes = state_bytes
    };
    return 0;
}

const struct machine_config *machine_config_of(const struct machine *m)
{
    return &m->config;
}

struct pci_bus *machine_pci(struct machine *m)
{
    return m->pci;
}

struct piix3 *machine_piix3(struct machine *m)
{
    return m->piix3;
}

struct fw_cfg *machine_fw_cfg(struct machine *m)
{
    return m->fw_cfg;
}

const struct log *machine_log(const struct machine *m)
{
    return m->config.log;
}

void machine_a20_set(struct machine *m, bool enabled)
{
    if (m->a20 == enabled)
        return;
    m->a20 = enabled;
    if (m->config.a20_changed)
        m->config.a20_changed(m->config.intr_ctx, enabled);
}

bool machine_a20_get(const struct machine *m)
{
    return m->a20;
}

/* ---- interrupts ---------------------------------------------------------------------- */

void machine_irq_shared(struct machine *m, unsigned line, unsigned source, bool level)
{
    uint32_t bit = 1u << (source & 31);

    if (line >= ISA_LINES || !m->pic)
        return;
    m->irq_sources[line] = level ? m->irq_sources[line] | bit : m->irq_sources[line] & ~bit;
    pic_line(m->pic, line, m->irq_sources[line] != 0);
}

void machine_irq(struct machine *m, unsigned line, bool level)
{
    machine_irq_shared(m, line, 0, level);
}

void machine_intr_set(struct machine *m, bool level)
{
    if (m->intr == level)
        return;
    m->intr = level;
    if (m->config.intr_changed)
        m->config.intr_changed(m->config.intr_ctx, level);
}

bool machine_intr_pending(const struct machine *m)
{
    return m->intr;
}

uint8_t machine_intr_ack(struct machine *m)
{
    return pic_ack(m->pic);
}

bool machine_irq_is_requested(const struct machine *m, unsigned line)
{
    return pic_is_requested(m->pic, line);
}

bool machine_irq_is_masked(const struct machine *m, unsigned line)
{
    return pic_is_masked(m->pic, line);
}

void machine_irq_taken(struct machine *m, unsigned line)
{
    if (line == 0 && m->pit)
        pit_irq_taken(m->pit);
}

void machine_ferr(struct machine *m, bool level)
{
    sysctl_ferr(m->sysctl, level);
}

bool machine_ignne(const struct machine *m)
{
    return sysctl_ignne(m->sysctl);
}

/* ---- stopping ------------------------------------------------------------------------- */

void machine_request_stop(struct machine *m, enum machine_stop why, uint32_t code)
{
    if (m->stop != STOP_NONE)
        return;
    m->stop = why;
    m->stop_code = code;
}

enum machine_stop machine_stop_requested(const struct machine *m, uint32_t *code)
{
    if (code)
        *code = m->stop_code;
    return m->stop;
}

void machine_clear_stop(struct machine *m)
{
    m->stop = STOP_NONE;
    m->stop_code = 0;
}

/* ---- life ----------------------------------------------------------------------------- */

static bool create_serial(struct machine *m)
{
    static const struct {
        uint16_t port;
        uint8_t irq;
    } com[4] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

    for (unsigned i = 0; i < 4; i++) {
        if (!m->config.serial[i].ops)
            continue;
        m->uart[i] = uart_new(m, com[i].port, com[i].irq, i, &m->config.serial[i]);
        if (!m->uart[i])
            return false;
    }
    return true;
}

/** Make every device; false when something lacks room or two claims collide. */
static bool create_devices(struct machine *m)
{
    const struct machine_config *c = &m->config;

    return (m->pic = pic_new(m)) && (m->pit = pit_new(m)) && rtc_new(m) && dma_new(m) && (m->sysctl = sysctl_new(m)) &&
           (m->pci = pci_new(m)) && i440fx_new(m) && (m->piix3 = piix3_new(m)) &&
           (m->i8042 = i8042_new(m)) && create_serial(m) && (m->vga = vga_new(m)) &&
           (m->fw_cfg = fw_cfg_new(m)) && (m->acpi = acpi_new(m)) &&
           (!c->debugcon.ops || debugcon_new(m, c->debugcon_port, &c->debugcon)) &&
           (!c->debug_exit_size || debug_exit_new(m, c->debug_exit_port, c->debug_exit_size));
}

struct machine *machine_new(const struct machine_config *config)
{
    struct machine *m = platform_reserve(sizeof *m);

    if (!m)
        return NULL;
    m->config = *config;
    if (!m->config.log)
        m->config.log = &m->silent;
    m->clock_is_stopped = true; /* at 0: continuing sets the offset */
    machine_clock_continue(m);
    if (!create_devices(m)) {
        machine_free(m);
        return NULL;
    }
    machine_reset(m);
    return m;
}

void machine_free(struct machine *m)
{
    if (m)
        platform_release(m, sizeof *m);
}

void machine_reset(struct machine *m)
{
    memset(m->irq_sources, 0, sizeof m->irq_sources);
    for (uint32_t i = 0; i < m->device_count; i++)
        m->device[i].reset(m->device[i].dev);
    machine_a20_set(m, true); /* A20M# is inactive after reset: SDM vol. 3A, "Processor Management" */
}

void machine_place_tables(struct machine *m)
{
    if (!m->config.rom) /* firmware fetches them itself */
        acpi_place_tables(m->acpi);
}

void machine_serial_input(struct machine *m, unsigned n)
{
    if (n < ARRAY_LEN(m->uart) && m->uart[n])
        uart_input(m->uart[n]);
}

bool machine_key_input(struct machine *m, const uint8_t *codes, size_t count)
{
    return i8042_key_input(m->i8042, codes, count);
}

void machine_power_button(struct machine *m)
{
    acpi_power_button(m->acpi);
}

size_t machine_vga_text(struct machine *m, char *buf, size_t size)
{
    return vga_text(m->vga, buf, size);
}
