/*
 * ACPI's fixed power management registers, as function 3 of the PIIX4 has them (PCI 00:01.3).
 *
 * The register blocks are the smallest that make an ACPI machine: PM1a event and control, the PM
 * timer, and the SMI command port that turns ACPI mode on and off. All but the last lie where PMBASE
 * says; without firmware (a kernel that is loaded directly) reset puts them where the tables say. The
 * PM timer is VM time in ticks of 3.579545 MHz. Its status bit, which is set whenever bit 31 of the
 * counter changes, is derived when somebody looks; a vm_timer runs only while the guest has enabled it.
 *
 * The processor has no system management mode. DEVACT says after reset that SMIs are in use already,
 * which firmware takes to mean that there is none to set up. The SMBus host is not there: the enable bit of
 * its configuration register stays 0.
 *
 * There is no MADT: the interrupt controller is the 8259 pair, and the SCI is ISA line 9.
 *
 * Invariant: SCI is high exactly when an enabled status bit is set in ACPI mode.
 *
 * Ref: ACPI specification 6.5, chapter 4 "ACPI Hardware Specification" (PM1 registers, PM timer); Intel
 * 82371AB (PIIX4) data sheet, "Power Management PCI Configuration Registers (Function 3)".
 */
#include "base/string.h"
#include "monitor/dev/acpi/tables.h"
#include "monitor/dev/pci.h"

#define PORT_SMI_CMD    ACPI_SMI_PORT
#define OFS_EVENT       ACPI_OFS_EVENT
#define OFS_CONTROL     ACPI_OFS_CONTROL
#define OFS_TIMER       ACPI_OFS_TIMER
#define SCI_LINE        ACPI_SCI_LINE
#define PM_TIMER_HZ     3579545u
#define TIMER_TOP_SHIFT 31 /* a 32-bit counter: its top bit sets TMR_STS */

/* PCI configuration registers */
#define REG_PMBASE    0x40
#define REG_DEVACT    0x58 /* 58h..5Bh */
#define REG_PMREGMISC 0x80
#define PMBASE_MASK   0xffc0u
#define APMC_EN       0x02 /* of byte 5Bh: a write to B2h makes an SMI */
#define PMIOSE        0x01 /* the ports at PMBASE answer               */

#define PM1_TMR        0x0001
#define PM1_GBL        0x0020
#define PM1_PWRBTN     0x0100
#define PM1_SLPBTN     0x0200
#define PM1_RTC        0x0400
#define PM1_WAK        0x8000
#define PM1_STS_MASK   (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC | PM1_WAK)
#define PM1_EN_MASK    (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)
#define CNT_SCI_EN     0x0001
#define CNT_WRITABLE   0x1c02 /* BM_RLD, SLP_TYP */
#define CNT_SLP_TYP(v) ((v) >> 10 & 7)
#define CNT_SLP_EN     0x2000
#define SLP_TYP_S5     5 /* as \_S5 in dsdt.asl says */

struct acpi_state {
    uint64_t timer_seen; /* top bits of the PM timer up to which TMR_STS is known */
    uint16_t status, enable, control;
    uint8_t smi_command, smi_data;
    uint16_t base; /* of the ports that answer now, 0: none */
    uint8_t config[PCI_CONFIG_BYTES];
};

struct acpi {
    struct machine *m;
    struct acpi_tables *tables;
    struct vm_timer timer;
    struct acpi_state s;
};

/* ---- the PM timer and the SCI --------------------------------------------------------------- */

static uint64_t pm_ticks(const struct acpi *a)
{
    return clock_ns_to_ticks(machine_now_ns(a->m), PM_TIMER_HZ);
}

/** Set TMR_STS if the counter's top bit has changed, and arrange to notice the next change. */
static void update_timer(struct acpi *a)
{
    uint64_t top = pm_ticks(a) >> TIMER_TOP_SHIFT;

    if (top != a->s.timer_seen)
        a->s.status |= PM1_TMR;
    a->s.timer_seen = top;
    if ((a->s.enable & PM1_TMR) && !(a->s.status & PM1_TMR))
        machine_timer_set(a->m, &a->timer, clock_ticks_to_ns((top + 1) << TIMER_TOP_SHIFT, PM_TIMER_HZ));
    else
        machine_timer_cancel(a->m, &a->timer);
}

static void update_sci(struct acpi *a)
{
    update_timer(a);
    machine_irq(a->m, SCI_LINE, (a->s.status & a->s.enable) && (a->s.control & CNT_SCI_EN));
}

static void acpi_timer(void *ctx)
{
    update_sci(ctx);
}

void acpi_place_tables(struct acpi *a)
{
    acpi_tables_place(a->tables);
}

void acpi_power_button(struct acpi *a)
{
    a->s.status |= PM1_PWRBTN;
    update_sci(a);
}

/* ---- registers --------------------------------------------------------------------------------- */

static uint32_t timer_read(void *dev, uint64_t addr, unsigned size)
{
    (void)size;
    return (uint32_t)pm_ticks(dev) >> (8 * (addr & 3));
}

static uint32_t event_read(void *dev, uint64_t addr, unsigned size)
{
    struct acpi *a = dev;

    (void)size;
    update_timer(a);
    return ((uint32_t)a->s.enable << 16 | a->s.status) >> (8 * (addr & 3));
}

/** Status bits are cleared by writing 1, enable bits are written. Bytes outside the access stay. */
static void event_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct acpi *a = dev;
    unsigned shift = 8 * (addr & 3);
    uint32_t lanes = (size >= 4 ? 0xffffffffu : (1u << (8 * size)) - 1) << shift;
    uint32_t bits = value << shift;

    update_timer(a);
    a->s.status &= (uint16_t) ~(bits & lanes);
    uint32_t enable = (((uint32_t)a->s.enable << 16 & ~lanes) | (bits & lanes)) >> 16;
    a->s.enable = enable & PM1_EN_MASK;
    update_sci(a);
}

static uint32_t control_read(void *dev, uint64_t addr, unsigned size)
{
    struct acpi *a = dev;

    (void)size;
    return (uint32_t)a->s.control >> (8 * (addr & 1));
}

static void control_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct acpi *a = dev;
    unsigned shift = 8 * (addr & 1);
    uint32_t lanes = (size >= 2 ? 0xffffu : 0xffu) << shift;
    uint32_t written = ((a->s.control & ~lanes) | (value << shift & lanes)) & 0xffff;

    a->s.control = (uint16_t)((a->s.control & CNT_SCI_EN) | (written & CNT_WRITABLE));
    if (!(written & CNT_SLP_EN))
        return;
    if (CNT_SLP_TYP(written) == SLP_TYP_S5)
        machine_request_stop(a->m, STOP_POWEROFF, 0);
    else
        LOG(machine_log(a->m), guest_error, "acpi: sleep type %u is not one the DSDT offers\n",
            (unsigned)CNT_SLP_TYP(written));
}

static uint32_t smi_read(void *dev, uint64_t addr, unsigned size)
{
    struct acpi *a = dev;

    (void)size;
    return addr == PORT_SMI_CMD ? a->s.smi_command : a->s.smi_data;
}

static void smi_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct acpi *a = dev;

    (void)size;
    if (addr != PORT_SMI_CMD) {
        a->s.smi_data = (uint8_t)value;
        return;
    }
    a->s.smi_command = (uint8_t)value;
    if (value == ACPI_SMI_ENABLE)
        a->s.control |= CNT_SCI_EN;
    else if (value == ACPI_SMI_DISABLE)
        a->s.control &= (uint16_t)~CNT_SCI_EN;
    update_sci(a);
}

/* ---- PCI function ------------------------------------------------------------------------------------- */

/* clang-format off */
static const uint8_t writable[PCI_CONFIG_BYTES] = {
    [PCI_COMMAND] = 0x01, [PCI_INTERRUPT_LINE] = 0xff,
    [REG_PMBASE] = 0xc0, [REG_PMBASE + 1] = 0xff,
    [REG_DEVACT] = 0xff, [REG_DEVACT + 1] = 0xff, [REG_DEVACT + 2] = 0xff, [REG_DEVACT + 3] = 0xff,
    [REG_PMREGMISC] = 0x01,
};
/* clang-format on */

static const struct io_ops event_ops = {
    .name = "pm1-event", .read = event_read, .write = event_write, .wide = true
};
static const struct io_ops control_ops = {
    .name = "pm1-control", .read = control_read, .write = control_write, .wide = true
};
static const struct io_ops timer_ops = { .name = "pm-timer", .read = timer_read, .wide = true };
static const struct io_ops smi_ops = { .name = "smi-command", .read = smi_read, .write = smi_write };

static void unmap_ports(struct acpi *a)
{
    if (!a->s.base)
        return;
    machine_unclaim_ports(a->m, a->s.base + OFS_EVENT, a);
    machine_unclaim_ports(a->m, a->s.base + OFS_CONTROL, a);
    machine_unclaim_ports(a->m, a->s.base + OFS_TIMER, a);
    a->s.base = 0;
}

/** The block answers where PMBASE says, once PMREGMISC lets it; not where others have ports. */
static void map_ports(struct acpi *a)
{
    const uint8_t *config = a->s.config;
    uint16_t base = config[REG_PMREGMISC] & PMIOSE ? pci_get32(config, REG_PMBASE) & PMBASE_MASK : 0;

    if (base == a->s.base)
        return;
    unmap_ports(a);
    if (!base)
        return;
    a->s.base = base;
    if (machine_claim_ports(a->m, base + OFS_EVENT, 4, &event_ops, a) ||
        machine_claim_ports(a->m, base + OFS_CONTROL, 2, &control_ops, a) ||
        machine_claim_ports(a->m, base + OFS_TIMER, 4, &timer_ops, a))
        LOG(machine_log(a->m), guest_error, "acpi: other devices have ports at 0x%x\n", (unsigned)base);
}

static void config_written(void *dev, unsigned first, unsigned count)
{
    (void)first;
    (void)count;
    map_ports(dev);
}

static void reset_config(struct acpi *a)
{
    uint8_t *config = a->s.config;

    unmap_ports(a);
    memset(config, 0, PCI_CONFIG_BYTES);
    pci_put16(config, PCI_VENDOR, PCI_VENDOR_INTEL);
    pci_put16(config, PCI_DEVICE, 0x7113);
    pci_put16(config, PCI_STATUS, 0x0280);
    config[PCI_REVISION] = 0x03;
    pci_put16(config, PCI_CLASS, 0x0680);
    config[PCI_INTERRUPT_PIN] = 1;
    config[REG_PMBASE] = 1; /* I/O space */
    config[REG_DEVACT + 3] = APMC_EN;
    if (!machine_config_of(a->m)->rom) { /* as firmware leaves it */
        pci_put32(config, REG_PMBASE, ACPI_PORTS | 1);
        config[REG_PMREGMISC] = PMIOSE;
        config[PCI_INTERRUPT_LINE] = ACPI_SCI_LINE;
    }
    map_ports(a);
}

/* ---- power-on ----------------------------------------------------------------------------------------- */

static void acpi_reset(void *dev)
{
    struct acpi *a = dev;

    a->s.status = a->s.enable = a->s.control = 0;
    a->s.smi_command = a->s.smi_data = 0;
    reset_config(a);
    a->s.timer_seen = pm_ticks(a) >> TIMER_TOP_SHIFT;
    update_sci(a);
}

struct acpi *acpi_new(struct machine *m)
{
    struct acpi *a = machine_alloc(m, sizeof *a);

    if (!a || machine_claim_ports(m, PORT_SMI_CMD, 2, &smi_ops, a) ||
        device_register(m, "acpi", acpi_reset, a, &a->s, sizeof a->s) ||
        pci_add(machine_pci(m), &(struct pci_function){ .devfn = PCI_DEVFN(1, 3),
                                                        .config = a->s.config,
                                                        .writable = writable,
                                                        .written = config_written,
                                                        .dev = a }) ||
        !(a->tables = acpi_tables_new(m)))
        return NULL;
    a->m = m;
    vm_timer_init(&a->timer, acpi_timer, a);
    return a;
}
