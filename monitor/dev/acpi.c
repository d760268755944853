/*
 * ACPI: the fixed power management registers, and the tables that describe them.
 *
 * The register blocks are the smallest that make an ACPI machine: PM1a event and control, the PM
 * timer, and the SMI command port that turns ACPI mode on and off. The PM timer is VM time in ticks
 * of 3.579545 MHz. Its status bit, which is set whenever bit 31 of the counter changes, is derived
 * when somebody looks; a vm_timer runs only while the guest has enabled it.
 *
 * There is no MADT: the interrupt controller is the 8259 pair, and the SCI is ISA line 9.
 *
 * Invariants: SCI is high exactly when an enabled status bit is set in ACPI mode; every table's bytes
 * sum to 0.
 *
 * Ref: ACPI specification 6.5, chapters 4 "ACPI Hardware Specification" (PM1 registers, PM timer) and
 * 5 "ACPI Software Programming Model" (RSDP, RSDT, FADT, FACS).
 */
#include "base/string.h"
#include "monitor/dev/acpi/dsdt.h"
#include "monitor/dev/devices.h"

#define PORT_SMI_CMD    0xb2
#define PORT_EVENT      0x600
#define PORT_CONTROL    0x604
#define PORT_TIMER      0x608
#define SCI_LINE        9
#define PM_TIMER_HZ     3579545u
#define TIMER_TOP_SHIFT 31 /* a 32-bit counter: its top bit sets TMR_STS */

#define SMI_ENABLE  0xa1
#define SMI_DISABLE 0xa0

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

/* where the tables lie: RAM that the memory map keeps from the guest */
#define RSDP_PA 0xf0000u
#define RSDT_PA 0xf0040u
#define FADT_PA 0xf0080u
#define FACS_PA 0xf0180u /* 64-byte aligned */
#define DSDT_PA 0xf0200u

struct acpi_state {
    uint64_t timer_seen; /* top bits of the PM timer up to which TMR_STS is known */
    uint16_t status, enable, control;
    uint8_t smi_command, smi_data;
};

struct acpi {
    struct machine *m;
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
    if (value == SMI_ENABLE)
        a->s.control |= CNT_SCI_EN;
    else if (value == SMI_DISABLE)
        a->s.control &= (uint16_t)~CNT_SCI_EN;
    update_sci(a);
}

/* ---- tables --------------------------------------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static uint8_t checksum(const uint8_t *p, uint32_t bytes)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < bytes; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

static void place(struct acpi *a, uint32_t pa, const void *table, uint32_t bytes)
{
    const struct machine_config *c = machine_config_of(a->m);

    if (c->mem_write)
        c->mem_write(c->mem_ctx, pa, table, bytes);
}

/** The header every system description table begins with; the checksum comes last. */
static void put_header(uint8_t *t, const char signature[4], uint32_t bytes, uint8_t revision)
{
    memcpy(t, signature, 4);
    put32(t + 4, bytes);
    t[8] = revision;
    memcpy(t + 10, "RINGDN", 6);
    memcpy(t + 16, "RINGDOWN", 8);
    put32(t + 24, 1);
    memcpy(t + 28, "RGDN", 4);
    put32(t + 32, 1);
    t[9] = checksum(t, bytes);
}

/** A generic address structure in I/O space. */
static void put_gas(uint8_t *p, uint8_t bits, uint8_t access, uint16_t port)
{
    p[0] = 1; /* system I/O */
    p[1] = bits;
    p[3] = access;
    put32(p + 4, port);
}

/* FADT, revision 3: offsets and flags */
#define FADT_BYTES      244
#define FADT_LEGACY     0x0001 /* IA-PC boot flags: legacy devices, 8042 */
#define FADT_8042       0x0002
#define FADT_WBINVD     (1u << 0)
#define FADT_PROC_C1    (1u << 2)
#define FADT_SLP_BUTTON (1u << 5) /* no fixed sleep button                 */
#define FADT_FIX_RTC    (1u << 6) /* no RTC wake status in fixed registers */
#define FADT_TMR_32     (1u << 8)
#define FADT_RESET_REG  (1u << 10)
#define RESET_PORT      0xcf9
#define RESET_VALUE     0x06

static void place_fadt(struct acpi *a)
{
    uint8_t t[FADT_BYTES] = { 0 };

    put32(t + 36, FACS_PA);
    put32(t + 40, DSDT_PA);
    t[45] = 1; /* preferred profile: desktop */
    put16(t + 46, SCI_LINE);
    put32(t + 48, PORT_SMI_CMD);
    t[52] = SMI_ENABLE;
    t[53] = SMI_DISABLE;
    put32(t + 56, PORT_EVENT);
    put32(t + 64, PORT_CONTROL);
    put32(t + 76, PORT_TIMER);
    t[88] = 4; /* lengths of the three blocks */
    t[89] = 2;
    t[91] = 4;
    put16(t + 96, 0xffff); /* latencies that mean: no C2, no C3 */
    put16(t + 98, 0xffff);
    t[108] = 0x32; /* CMOS index of the century */
    put16(t + 109, FADT_LEGACY | FADT_8042);
    put32(t + 112,
          FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_TMR_32 | FADT_RESET_REG);
    put_gas(t + 116, 8, 1, RESET_PORT);
    t[128] = RESET_VALUE;
    put32(t + 132, FACS_PA); /* X_FIRMWARE_CTRL, X_DSDT */
    put32(t + 140, DSDT_PA);
    put_gas(t + 148, 32, 2, PORT_EVENT);
    put_gas(t + 172, 16, 2, PORT_CONTROL);
    put_gas(t + 208, 32, 3, PORT_TIMER);
    put_header(t, "FACP", FADT_BYTES, 3);
    place(a, FADT_PA, t, sizeof t);
}

void acpi_place_tables(struct acpi *a)
{
    uint8_t rsdp[20] = "RSD PTR ", rsdt[40] = { 0 }, facs[64] = "FACS";

    memcpy(rsdp + 9, "RINGDN", 6);
    put32(rsdp + 16, RSDT_PA);
    rsdp[8] = checksum(rsdp, sizeof rsdp);
    put32(rsdt + 36, FADT_PA);
    put_header(rsdt, "RSDT", sizeof rsdt, 1);
    put32(facs + 4, sizeof facs);
    facs[32] = 1; /* version */
    place(a, RSDP_PA, rsdp, sizeof rsdp);
    place(a, RSDT_PA, rsdt, sizeof rsdt);
    place_fadt(a);
    place(a, FACS_PA, facs, sizeof facs);
    place(a, DSDT_PA, acpi_dsdt, acpi_dsdt_bytes);
}

/* ---- power-on ----------------------------------------------------------------------------------------- */

static void acpi_reset(void *dev)
{
    struct acpi *a = dev;

    memset(&a->s, 0, sizeof a->s);
    a->s.timer_seen = pm_ticks(a) >> TIMER_TOP_SHIFT;
    update_sci(a);
}

static const struct io_ops event_ops = {
    .name = "pm1-event", .read = event_read, .write = event_write, .wide = true
};
static const struct io_ops control_ops = {
    .name = "pm1-control", .read = control_read, .write = control_write, .wide = true
};
static const struct io_ops timer_ops = { .name = "pm-timer", .read = timer_read, .wide = true };
static const struct io_ops smi_ops = { .name = "smi-command", .read = smi_read, .write = smi_write };

struct acpi *acpi_new(struct machine *m)
{
    struct acpi *a = machine_alloc(m, sizeof *a);

    if (!a || machine_claim_ports(m, PORT_SMI_CMD, 2, &smi_ops, a) ||
        machine_claim_ports(m, PORT_EVENT, 4, &event_ops, a) ||
        machine_claim_ports(m, PORT_CONTROL, 2, &control_ops, a) ||
        machine_claim_ports(m, PORT_TIMER, 4, &timer_ops, a) ||
        device_register(m, "acpi", acpi_reset, a, &a->s, sizeof a->s))
        return NULL;
    a->m = m;
    vm_timer_init(&a->timer, acpi_timer, a);
    return a;
}
