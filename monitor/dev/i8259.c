/*
 * Two 8259A interrupt controllers, the slave's INT output on the master's IR2, with
 * the edge/level registers that PCI chipsets added.
 *
 * Priorities rotate, so every decision is taken on bytes turned until the level of
 * highest priority stands in bit 0. IRR bits of edge lines are latches that a rising
 * edge sets; they clear when the CPU acknowledges, and also when the line falls
 * before that, because the chip samples the line again at INTA. A request that has
 * gone by then is answered with level 7, and no ISR bit is set (spurious interrupt).
 *
 * Invariants: after every entry point the master's IR2 equals the slave's INT output,
 * and the machine's INTR equals the master's.
 *
 * Ref: Intel 8259A data sheet (order 231468); Intel 82371SB data sheet, "ELCR1, ELCR2".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PORT_MASTER 0x20
#define PORT_SLAVE  0xa0
#define PORT_ELCR   0x4d0

/* ICW1, written to A0 = 0 with bit 4 set */
#define ICW1_IC4    0x01 /* ICW4 follows          */
#define ICW1_SNGL   0x02 /* no cascade, no ICW3   */
#define ICW1_LTIM   0x08 /* all lines are levels  */
#define ICW1_SELECT 0x10
/* ICW4 */
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
/* OCW2: R, SL, EOI in bits 7..5, level in 2..0 */
#define OCW2_COMMAND(v) ((v) >> 5)
/* clang-format off */
enum ocw2 {
    OCW2_ROTATE_AEOI_CLEAR, OCW2_EOI, OCW2_NOP, OCW2_EOI_LEVEL,
    OCW2_ROTATE_AEOI_SET, OCW2_ROTATE_EOI, OCW2_SET_PRIORITY, OCW2_ROTATE_EOI_LEVEL,
};
/* clang-format on */
/* OCW3, bit 3 set */
#define OCW3_RIS    0x01 /* read ISR, not IRR     */
#define OCW3_RR     0x02 /* bit 0 is valid        */
#define OCW3_POLL   0x04
#define OCW3_SELECT 0x08
#define OCW3_SMM    0x20
#define OCW3_ESMM   0x40 /* bit 5 is valid        */

#define CASCADE_LEVEL  2
#define SPURIOUS_LEVEL 7
#define POLL_REQUEST   0x80

/* Lines whose trigger the ELCR may set: the rest (timer, keyboard, cascade, RTC, FPU) are edges. */
#define ELCR_WRITABLE_MASTER 0xf8
#define ELCR_WRITABLE_SLAVE  0xde

enum init_step { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct pic_chip_state {
    uint8_t line; /* inputs as they are now              */
    uint8_t irr, isr, imr;
    uint8_t elcr;
    uint8_t vector; /* ICW2, low three bits zero         */
    uint8_t icw3, icw4;
    uint8_t top;  /* level of highest priority           */
    uint8_t step; /* enum init_step                      */
    uint8_t wants_icw3, wants_icw4, all_level;
    uint8_t read_isr, poll, special_mask, rotate_on_aeoi;
};

struct pic_state {
    struct pic_chip_state chip[2];
};

enum { MASTER, SLAVE };

struct pic {
    struct machine *m;
    struct pic_state s;
};

static uint8_t level_lines(const struct pic_chip_state *c)
{
    return c->all_level ? 0xff : c->elcr;
}

/** Turn a set of levels so that the one of highest priority is bit 0. */
static uint8_t turned(uint8_t set, uint8_t top)
{
    return (uint8_t)(set >> top | set << (8 - top));
}

/** Place in the order of priority (0 first) of the first level in a set; 8 for none. */
static unsigned first_place(uint8_t set, uint8_t top)
{
    uint8_t t = turned(set, top);
    return t ? (unsigned)__builtin_ctz(t) : 8;
}

/** The level the chip asks the CPU to serve, or -1. */
static int requested_level(const struct pic_chip_state *c, bool is_master)
{
    uint8_t requests = c->irr & (uint8_t)~c->imr;
    uint8_t in_service = c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr;
    unsigned place = first_place(requests, c->top);
    unsigned busy = first_place(in_service, c->top);

    if (place == 8 || c->step != INIT_DONE)
        return -1;
    unsigned level = (place + c->top) & 7;
    if (place < busy)
        return (int)level;
    /* Special fully nested: a slave in service may ask again, for a higher level of its own. */
    if (place == busy && is_master && (c->icw4 & ICW4_SFNM) && level == CASCADE_LEVEL)
        return (int)level;
    return -1;
}

static void set_input(struct pic_chip_state *c, unsigned level, bool high)
{
    uint8_t bit = (uint8_t)(1u << level);

    if (!high) {
        c->line &= (uint8_t)~bit;
        c->irr &= (uint8_t)~bit;
        return;
    }
    if (!(c->line & bit) || (level_lines(c) & bit))
        c->irr |= bit;
    c->line |= bit;
}

/** Carry the slave's output to the master and the master's to the CPU. */
static void update_outputs(struct pic *p)
{
    set_input(&p->s.chip[MASTER], CASCADE_LEVEL, requested_level(&p->s.chip[SLAVE], false) >= 0);
    machine_intr_set(p->m, requested_level(&p->s.chip[MASTER], true) >= 0);
}

void pic_line(struct pic *p, unsigned line, bool level)
{
    if (line == CASCADE_LEVEL) /* wired to the slave */
        return;
    set_input(&p->s.chip[line >> 3], line & 7, level);
    update_outputs(p);
}

bool pic_is_requested(const struct pic *p, unsigned line)
{
    return p->s.chip[line >> 3].irr >> (line & 7) & 1;
}

bool pic_is_masked(const struct pic *p, unsigned line)
{
    return p->s.chip[line >> 3].imr >> (line & 7) & 1;
}

/** The chip's part of an INTA cycle or a poll: -> level taken, or -1 when the request has gone. */
static int take_request(struct pic_chip_state *c, bool is_master)
{
    int level = requested_level(c, is_master);

    if (level < 0)
        return -1;
    uint8_t bit = (uint8_t)(1u << level);
    if (!(level_lines(c) & bit))
        c->irr &= (uint8_t)~bit;
    if (!(c->icw4 & ICW4_AEOI))
        c->isr |= bit;
    else if (c->rotate_on_aeoi)
        c->top = (uint8_t)(level + 1) & 7;
    return level;
}

/** The slave's INT drops during INTA, so that a further request of its is a new edge. */
static int take_slave_request(struct pic *p)
{
    int level = take_request(&p->s.chip[SLAVE], false);
    set_input(&p->s.chip[MASTER], CASCADE_LEVEL, false);
    return level;
}

uint8_t pic_ack(struct pic *p)
{
    struct pic_chip_state *master = &p->s.chip[MASTER];
    int level = take_request(master, true);
    int line = level;
    uint8_t vector;

    if (level == CASCADE_LEVEL) {
        int slave_level = take_slave_request(p);
        line = slave_level < 0 ? -1 : slave_level + 8;
        vector = p->s.chip[SLAVE].vector | (uint8_t)(slave_level < 0 ? SPURIOUS_LEVEL : slave_level);
    } else {
        vector = master->vector | (uint8_t)(level < 0 ? SPURIOUS_LEVEL : level);
    }
    update_outputs(p);
    if (line >= 0)
        machine_irq_taken(p->m, (unsigned)line);
    return vector;
}

/* ---- registers ------------------------------------------------------------------------- */

static void begin_init(struct pic_chip_state *c, uint8_t icw1)
{
    c->all_level = (icw1 & ICW1_LTIM) != 0;
    c->irr &= level_lines(c) & c->line; /* the edge latches are reset */
    c->imr = 0;
    c->isr = 0;
    c->top = 0;
    c->special_mask = 0;
    c->read_isr = 0;
    c->poll = 0;
    c->rotate_on_aeoi = 0;
    c->icw4 = 0;
    c->wants_icw3 = !(icw1 & ICW1_SNGL);
    c->wants_icw4 = (icw1 & ICW1_IC4) != 0;
    c->step = INIT_ICW2;
}

static void end_interrupt(struct pic_chip_state *c, uint8_t ocw2)
{
    uint8_t level = ocw2 & 7;
    uint8_t eligible = c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr;
    unsigned place = first_place(eligible, c->top);

    switch ((enum ocw2)OCW2_COMMAND(ocw2)) {
    case OCW2_ROTATE_AEOI_CLEAR:
        c->rotate_on_aeoi = 0;
        break;
    case OCW2_ROTATE_AEOI_SET:
        c->rotate_on_aeoi = 1;
        break;
    case OCW2_NOP:
        break;
    case OCW2_SET_PRIORITY: /* names the lowest */
        c->top = (level + 1) & 7;
        break;
    case OCW2_EOI_LEVEL:
        c->isr &= (uint8_t) ~(1u << level);
        break;
    case OCW2_ROTATE_EOI_LEVEL:
        c->isr &= (uint8_t) ~(1u << level);
        c->top = (level + 1) & 7;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        if (place == 8)
            break;
        level = (place + c->top) & 7;
        c->isr &= (uint8_t) ~(1u << level);
        if (OCW2_COMMAND(ocw2) == OCW2_ROTATE_EOI)
            c->top = (level + 1) & 7;
        break;
    }
}

static void write_ocw3(struct pic_chip_state *c, uint8_t value)
{
    if (value & OCW3_ESMM)
        c->special_mask = (value & OCW3_SMM) != 0;
    if (value & OCW3_POLL)
        c->poll = 1;
    else if (value & OCW3_RR)
        c->read_isr = value & OCW3_RIS;
}

/** A0 = 1: the next ICW of an initialisation, or OCW1. */
static void write_data(struct pic_chip_state *c, uint8_t value)
{
    switch ((enum init_step)c->step) {
    case INIT_DONE:
        c->imr = value;
        break;
    case INIT_ICW2:
        c->vector = value & 0xf8;
        c->step = c->wants_icw3 ? INIT_ICW3 : c->wants_icw4 ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW3:
        c->icw3 = value;
        c->step = c->wants_icw4 ? INIT_ICW4 : INIT_DONE;
        break;
    case INIT_ICW4:
        c->icw4 = value;
        c->step = INIT_DONE;
        break;
    }
}

static void pic_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct pic *p = dev;
    struct pic_chip_state *c = &p->s.chip[addr >= PORT_SLAVE ? SLAVE : MASTER];
    uint8_t byte = (uint8_t)value;

    (void)size;
    if (addr & 1)
        write_data(c, byte);
    else if (byte & ICW1_SELECT)
        begin_init(c, byte);
    else if (byte & OCW3_SELECT)
        write_ocw3(c, byte);
    else
        end_interrupt(c, byte);
    update_outputs(p);
}

/** A read in poll mode acts as an INTA. */
static uint8_t read_poll(struct pic *p, unsigned chip)
{
    struct pic_chip_state *c = &p->s.chip[chip];

    c->poll = 0;
    int level = chip == SLAVE ? take_slave_request(p) : take_request(c, true);
    update_outputs(p);
    if (level < 0)
        return 0;
    if (chip == SLAVE || level != CASCADE_LEVEL)
        machine_irq_taken(p->m, (unsigned)level + 8 * chip);
    return POLL_REQUEST | (uint8_t)level;
}

static uint32_t pic_read(void *dev, uint64_t addr, unsigned size)
{
    struct pic *p = dev;
    unsigned chip = addr >= PORT_SLAVE ? SLAVE : MASTER;
    const struct pic_chip_state *c = &p->s.chip[chip];

    (void)size;
    if (c->poll)
        return read_poll(p, chip);
    if (addr & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint32_t elcr_read(void *dev, uint64_t addr, unsigned size)
{
    struct pic *p = dev;

    (void)size;
    return p->s.chip[addr & 1].elcr;
}

static void elcr_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct pic *p = dev;
    struct pic_chip_state *c = &p->s.chip[addr & 1];

    (void)size;
    c->elcr = (uint8_t)value & (addr & 1 ? ELCR_WRITABLE_SLAVE : ELCR_WRITABLE_MASTER);
    c->irr |= c->line & c->elcr; /* a line that is high now asks */
    update_outputs(p);
}

static void pic_reset(void *dev)
{
    struct pic *p = dev;

    /* As firmware leaves them: vectors of the PC/AT, everything masked. */
    memset(&p->s, 0, sizeof p->s);
    p->s.chip[MASTER].vector = 0x08;
    p->s.chip[SLAVE].vector = 0x70;
    p->s.chip[MASTER].imr = p->s.chip[SLAVE].imr = 0xff;
    update_outputs(p);
}

static const struct io_ops pic_ops = { .name = "i8259", .read = pic_read, .write = pic_write };
static const struct io_ops elcr_ops = { .name = "elcr", .read = elcr_read, .write = elcr_write };

struct pic *pic_new(struct machine *m)
{
    struct pic *p = machine_alloc(m, sizeof *p);

    if (!p || machine_claim_ports(m, PORT_MASTER, 2, &pic_ops, p) ||
        machine_claim_ports(m, PORT_SLAVE, 2, &pic_ops, p) ||
        machine_claim_ports(m, PORT_ELCR, 2, &elcr_ops, p) ||
        device_register(m, "i8259", pic_reset, p, &p->s, sizeof p->s))
        return NULL;
    p->m = m;
    return p;
}
