/*
 * Intel 82371SB (PIIX3), the ISA bridge (PCI 00:01.0), and its reset control register at CF9h.
 *
 * The ISA devices behind the bridge are files of their own and always there. The routing registers of
 * PIRQA..PIRQD keep what is written; no device on the bus drives those lines. Which ROM ranges are
 * decoded (XBCS) is fixed, as for firmware of any size it has to be.
 *
 * Ref: Intel 82371SB (PIIX3) data sheet, "PCI Configuration Registers, PCI to ISA Bridge (Function 0)";
 * "RC, Reset Control Register".
 */
#include "base/string.h"
#include "monitor/dev/pci.h"

#define REG_IORT  0x4c
#define REG_XBCS  0x4e
#define REG_PIRQ  0x60
#define REG_TOM   0x69
#define REG_MBIRQ 0x70
#define REG_FTMR  0xa8

#define PIRQ_OFF 0x80

#define RC_HARD      0x02
#define RC_RESET_CPU 0x04 /* its rising edge resets */
#define RC_WRITABLE  0x0e

struct piix3_state {
    uint8_t config[PCI_CONFIG_BYTES];
    uint8_t reset_control;
};

struct piix3 {
    struct machine *m;
    struct piix3_state s;
};

/* clang-format off */
static const uint8_t writable[PCI_CONFIG_BYTES] = {
    [PCI_COMMAND] = 0x08, [PCI_COMMAND + 1] = 0x01, /* special cycles, SERR#; the rest is hard-wired */
    [REG_IORT] = 0xff, [REG_XBCS] = 0xff, [REG_XBCS + 1] = 0x01,
    [REG_PIRQ] = 0x8f, [0x61] = 0x8f, [0x62] = 0x8f, [0x63] = 0x8f,
    [REG_TOM] = 0xfe, [0x6a] = 0x90, [0x6b] = 0x80, [REG_MBIRQ] = 0xff, [0x76] = 0x87, [0x77] = 0x87,
    [0x78] = 0xff, [0x79] = 0xff, [0x80] = 0x7f, [0x82] = 0x0f,
    [0xa0] = 0x1f, [0xa2] = 0xff, [0xa3] = 0x01, [0xa4] = 0xff, [0xa5] = 0xff, [0xa6] = 0xff, [0xa7] = 0xff,
    [REG_FTMR] = 0xff, [0xaa] = 0xff, [0xac] = 0xff, [0xae] = 0xff,
};
/* clang-format on */

uint8_t piix3_reset_control_read(const struct piix3 *p)
{
    return p->s.reset_control;
}

void piix3_reset_control_write(struct piix3 *p, uint8_t value)
{
    bool was_set = p->s.reset_control & RC_RESET_CPU;

    p->s.reset_control = value & RC_WRITABLE;
    if ((value & RC_RESET_CPU) && !was_set)
        machine_request_stop(p->m, STOP_RESET, 0);
}

static void piix3_reset(void *dev)
{
    struct piix3 *p = dev;
    uint8_t *config = p->s.config;

    memset(&p->s, 0, sizeof p->s);
    pci_put16(config, PCI_VENDOR, PCI_VENDOR_INTEL);
    pci_put16(config, PCI_DEVICE, 0x7000);
    pci_put16(config, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci_put16(config, PCI_STATUS, 0x0200);
    pci_put16(config, PCI_CLASS, 0x0601);
    config[PCI_HEADER_TYPE] = PCI_HEADER_MANY;
    config[REG_IORT] = 0x4d;
    config[REG_XBCS] = 0x03;
    memset(config + REG_PIRQ, PIRQ_OFF, 4);
    config[REG_TOM] = 0x02;
    config[REG_MBIRQ] = 0x80;
    config[0x76] = config[0x77] = 0x04;
    config[0xa0] = 0x08;
    config[REG_FTMR] = 0x0f;
}

struct piix3 *piix3_new(struct machine *m)
{
    struct piix3 *p = machine_alloc(m, sizeof *p);

    if (!p || device_register(m, "piix3", piix3_reset, p, &p->s, sizeof p->s) ||
        pci_add(machine_pci(m),
                &(struct pci_function){
                    .devfn = PCI_DEVFN(1, 0), .config = p->s.config, .writable = writable, .dev = p }))
        return NULL;
    p->m = m;
    return p;
}
