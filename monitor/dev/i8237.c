/*
 * Two 8237A DMA controllers and their page registers, as latches.
 *
 * No device of this machine asks for a transfer, so the controllers hold what the guest wrote and
 * read it back; the byte pointer, the mask and the request bits behave, and no channel ever reaches
 * its terminal count. That is all a driver's probe can see.
 *
 * The second controller sits on word addresses: its registers are two ports apart.
 *
 * Ref: Intel 8237A data sheet (order 231466); IBM PC/AT Technical Reference, "DMA Controllers".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PORT_DMA1  0x00
#define PORT_PAGES 0x81 /* 80h is the diagnostic port */
#define PAGE_COUNT 15
#define PORT_DMA2  0xc0

/* clang-format off */
enum dma_reg {
    REG_STATUS_COMMAND = 8, REG_REQUEST, REG_MASK_ONE, REG_MODE, REG_CLEAR_POINTER,
    REG_MASTER_CLEAR, REG_CLEAR_MASK, REG_MASK_ALL,
};
/* clang-format on */

struct dma_chip_state {
    uint16_t value[8]; /* address and count of each channel, in port order */
    uint8_t mode[4], command, request, mask, high_byte;
};

struct dma_state {
    struct dma_chip_state chip[2];
    uint8_t page[PAGE_COUNT];
};

struct dma {
    struct machine *m;
    struct dma_state s;
};

static struct dma_chip_state *chip_at(struct dma *d, uint64_t addr, unsigned *reg)
{
    bool is_second = addr >= PORT_DMA2;

    *reg = is_second ? (unsigned)(addr - PORT_DMA2) >> 1 : (unsigned)addr;
    return &d->s.chip[is_second];
}

static void master_clear(struct dma_chip_state *c)
{
    c->command = c->request = c->high_byte = 0;
    c->mask = 0x0f;
}

static uint32_t dma_read(void *dev, uint64_t addr, unsigned size)
{
    unsigned reg;
    struct dma_chip_state *c = chip_at(dev, addr, &reg);

    (void)size;
    if (reg < REG_STATUS_COMMAND) {
        bool high = c->high_byte;
        c->high_byte ^= 1;
        return high ? c->value[reg] >> 8 : c->value[reg] & 0xff;
    }
    if (reg == REG_STATUS_COMMAND)
        return (uint32_t)c->request << 4;
    return reg == REG_MASK_ALL ? c->mask | 0xf0u : 0; /* 0: the temporary register */
}

static void set_bit(uint8_t *set, uint8_t selector)
{
    uint8_t bit = (uint8_t)(1u << (selector & 3));

    *set = selector & 4 ? *set | bit : *set & (uint8_t)~bit;
}

static void dma_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    unsigned reg;
    struct dma_chip_state *c = chip_at(dev, addr, &reg);
    uint8_t byte = (uint8_t)value;

    (void)size;
    if (reg < REG_STATUS_COMMAND) {
        c->value[reg] = c->high_byte ? (uint16_t)((c->value[reg] & 0xff) | byte << 8)
                                     : (uint16_t)((c->value[reg] & 0xff00) | byte);
        c->high_byte ^= 1;
        return;
    }
    switch ((enum dma_reg)reg) {
    case REG_STATUS_COMMAND:
        c->command = byte;
        break;
    case REG_REQUEST:
        set_bit(&c->request, byte);
        break;
    case REG_MASK_ONE:
        set_bit(&c->mask, byte);
        break;
    case REG_MODE:
        c->mode[byte & 3] = byte;
        break;
    case REG_CLEAR_POINTER:
        c->high_byte = 0;
        break;
    case REG_MASTER_CLEAR:
        master_clear(c);
        break;
    case REG_CLEAR_MASK:
        c->mask = 0;
        break;
    case REG_MASK_ALL:
        c->mask = byte & 0x0f;
        break;
    }
}

static uint32_t page_read(void *dev, uint64_t addr, unsigned size)
{
    struct dma *d = dev;

    (void)size;
    return d->s.page[(addr - PORT_PAGES) % PAGE_COUNT];
}

static void page_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct dma *d = dev;

    (void)size;
    d->s.page[(addr - PORT_PAGES) % PAGE_COUNT] = (uint8_t)value;
}

static void dma_reset(void *dev)
{
    struct dma *d = dev;

    memset(&d->s, 0, sizeof d->s);
    master_clear(&d->s.chip[0]);
    master_clear(&d->s.chip[1]);
}

static const struct io_ops dma_ops = { .name = "i8237", .read = dma_read, .write = dma_write };
static const struct io_ops page_ops = { .name = "dma-page", .read = page_read, .write = page_write };

struct dma *dma_new(struct machine *m)
{
    struct dma *d = machine_alloc(m, sizeof *d);

    if (!d || machine_claim_ports(m, PORT_DMA1, 16, &dma_ops, d) ||
        machine_claim_ports(m, PORT_PAGES, PAGE_COUNT, &page_ops, d) ||
        machine_claim_ports(m, PORT_DMA2, 32, &dma_ops, d) ||
        device_register(m, "i8237", dma_reset, d, &d->s, sizeof d->s))
        return NULL;
    d->m = m;
    return d;
}
