/*
 * Intel 82441FX, the host bridge (PCI 00:00.0): what the processor finds in C0000..FFFFF and
 * A0000..BFFFF.
 *
 * Each of the PAM registers says for one or two ranges whether reads (RE) and writes (WE) go to RAM or
 * to the bus behind the bridge, where the ROM is:
 *
 *        7   6    5    4   3   2    1    0              59h  F0000-FFFFF |      -
 *      +-------+----+----+-------+----+----+            5Ah  C4000-C7FFF | C0000-C3FFF
 *      |   0   | WE | RE |   0   | WE | RE |            5Bh  CC000-CFFFF | C8000-CBFFF
 *      +-------+----+----+-------+----+----+            ...
 *          upper range       lower range                5Fh  EC000-EFFFF | E8000-EBFFF
 *
 * SMRAM (72h) can open the RAM that lies behind the VGA window. There is no system management mode,
 * so closing it hides that RAM from everybody.
 *
 * The registers for DRAM timing and size are storage. Without firmware (a kernel that is loaded directly)
 * reset leaves all of C0000..FFFFF as RAM, as firmware would have. The subsystem ID is how SeaBIOS
 * recognises the machine whose fw_cfg it then uses; the 82441FX itself has none.
 *
 * Ref: Intel 82441FX (PMC) data sheet, "PCI Configuration Space Mapped Registers": PAM0..PAM6, SMRAM.
 */
#include "base/string.h"
#include "monitor/dev/pci.h"

#define REG_DBC   0x53
#define REG_DRAMC 0x57
#define REG_DRAMT 0x58
#define REG_PAM   0x59
#define REG_DRB   0x60
#define REG_MTT   0x70
#define REG_CLT   0x71
#define REG_SMRAM 0x72

#define PAM_RE 0x01
#define PAM_WE 0x02
#define RANGES 13u /* PAM0 has one, the other six have two */

#define SMRAM_OPEN   0x40
#define SMRAM_CLOSE  0x20
#define SMRAM_LOCK   0x10
#define SMRAM_ENABLE 0x08
#define SMRAM_BASE   0x02 /* A0000, hard-wired */
#define SMRAM_LOCKED (SMRAM_OPEN | SMRAM_LOCK | SMRAM_ENABLE)
#define VGA_PA       0xa0000u
#define VGA_BYTES    0x20000u

struct i440fx_state {
    uint8_t config[PCI_CONFIG_BYTES];
    uint8_t routed[RANGES]; /* PAM_* as the memory map has them now */
    uint8_t smram;          /* likewise, the register               */
};

struct i440fx {
    struct machine *m;
    struct i440fx_state s;
};

/* clang-format off */
static const uint8_t writable[PCI_CONFIG_BYTES] = {
    [PCI_COMMAND + 1] = 0x01, /* SERR# enable; the rest is hard-wired */
    [0x0d] = 0xf8,            /* latency timer                        */
    [0x50] = 0xdf, [0x51] = 0xff, [REG_DBC] = 0xff, [0x54] = 0xff, [0x55] = 0xff, [0x56] = 0xff,
    [REG_DRAMC] = 0xff, [REG_DRAMT] = 0xff,
    [REG_PAM] = 0x30, [0x5a] = 0x33, [0x5b] = 0x33, [0x5c] = 0x33, [0x5d] = 0x33, [0x5e] = 0x33, [0x5f] = 0x33,
    [REG_DRB] = 0xff, [0x61] = 0xff, [0x62] = 0xff, [0x63] = 0xff, [0x64] = 0xff, [0x65] = 0xff, [0x66] = 0xff,
    [0x67] = 0xff, [0x68] = 0xcf, [REG_MTT] = 0xf8, [REG_CLT] = 0xff, [REG_SMRAM] = 0x78, [0x90] = 0xff,
};
/* clang-format on */

/* ---- shadow RAM ---------------------------------------------------------------------------------- */

static void route(struct i440fx *c, uint64_t pa, uint32_t bytes, unsigned rights)
{
    const struct machine_config *config = machine_config_of(c->m);

    if (config->mem_route)
        config->mem_route(config->mem_ctx, pa, bytes, rights & PAM_RE, rights & PAM_WE);
}

/** Range 0 is PAM0's, F0000..FFFFF; range i is 16 KiB from C0000 on. */
static unsigned range_rights(const struct i440fx *c, unsigned range)
{
    unsigned nibble = range ? range + 1 : 1; /* PAM0's lower one means nothing */

    return c->s.config[REG_PAM + nibble / 2] >> (nibble % 2 * 4) & (PAM_RE | PAM_WE);
}

static void route_range(struct i440fx *c, unsigned range)
{
    unsigned rights = range_rights(c, range);

    c->s.routed[range] = (uint8_t)rights;
    if (range)
        route(c, 0xc0000u + (range - 1) * 0x4000u, 0x4000, rights);
    else
        route(c, 0xf0000, 0x10000, rights);
}

static void update_shadow(struct i440fx *c)
{
    for (unsigned i = 0; i < RANGES; i++)
        if (range_rights(c, i) != c->s.routed[i])
            route_range(c, i);
}

/* ---- the RAM behind the VGA window ------------------------------------------------------------ */

static bool smram_is_open(uint8_t smram)
{
    return (smram & (SMRAM_OPEN | SMRAM_ENABLE)) == (SMRAM_OPEN | SMRAM_ENABLE);
}

static void update_smram(struct i440fx *c)
{
    uint8_t old = c->s.smram, now = c->s.config[REG_SMRAM];

    if (old & SMRAM_LOCK) /* until reset */
        now = (uint8_t)((now & ~SMRAM_LOCKED) | (old & SMRAM_LOCKED));
    else if (now & SMRAM_LOCK)
        now &= (uint8_t)~SMRAM_OPEN;
    c->s.smram = c->s.config[REG_SMRAM] = now;
    if (smram_is_open(now) != smram_is_open(old))
        route(c, VGA_PA, VGA_BYTES, smram_is_open(now) ? PAM_RE | PAM_WE : 0);
}

static void written(void *dev, unsigned first, unsigned count)
{
    struct i440fx *c = dev;

    if (pci_touches(first, count, REG_PAM, 7))
        update_shadow(c);
    if (pci_touches(first, count, REG_SMRAM, 1))
        update_smram(c);
}

/* ---- power-on ------------------------------------------------------------------------------------ */

static void i440fx_reset(void *dev)
{
    struct i440fx *c = dev;
    uint8_t *config = c->s.config;

    memset(&c->s, 0, sizeof c->s);
    pci_put16(config, PCI_VENDOR, PCI_VENDOR_INTEL);
    pci_put16(config, PCI_DEVICE, 0x1237);
    pci_put16(config, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci_put16(config, PCI_STATUS, 0x0280);
    config[PCI_REVISION] = 0x02;
    pci_put16(config, PCI_CLASS, 0x0600);
    pci_put16(config, PCI_SUBSYSTEM_VENDOR, 0x1af4);
    pci_put16(config, PCI_SUBSYSTEM, 0x1100);
    config[REG_DBC] = 0x80;
    config[REG_DRAMC] = 0x01;
    config[REG_DRAMT] = 0x10;
    memset(config + REG_DRB, 0x01, 8);
    config[REG_MTT] = 0x20;
    config[REG_CLT] = 0x10;
    config[REG_SMRAM] = c->s.smram = SMRAM_BASE;
    if (!machine_config_of(c->m)->rom)
        for (unsigned i = 0; i < 7; i++)
            config[REG_PAM + i] = writable[REG_PAM + i];
    for (unsigned i = 0; i < RANGES; i++)
        route_range(c, i);
    route(c, VGA_PA, VGA_BYTES, 0);
}

struct i440fx *i440fx_new(struct machine *m)
{
    struct i440fx *c = machine_alloc(m, sizeof *c);

    if (!c || device_register(m, "i440fx", i440fx_reset, c, &c->s, sizeof c->s) ||
        pci_add(machine_pci(m), &(struct pci_function){ .devfn = PCI_DEVFN(0, 0),
                                                        .config = c->s.config,
                                                        .writable = writable,
                                                        .written = written,
                                                        .dev = c }))
        return NULL;
    c->m = m;
    return c;
}
