/*
 * The 8254 programmable interval timer and port 61h (system control port B).
 *
 * Nothing here counts. A channel remembers at which tick of the 1.193182 MHz clock it
 * was loaded, and counter, OUT and the next edge follow from VM time by arithmetic;
 * ticks are cut from VM time as a whole, so rounding never adds up.
 *
 * Channel 0's OUT is IRQ 0. A vm_timer fires at each rising edge of OUT. The request
 * stays up until the guest reprograms the channel or the next edge comes: a stand-in
 * for the short low phase of the real OUT, which would withdraw a request that a slow
 * guest has not taken yet. Edges that came while the last request was still waiting,
 * or while the host kept us from running, are owed: one is given each time the CPU
 * takes IRQ 0, so that a guest which counts ticks keeps time. The debt is bounded by
 * one second and forgotten when the guest masks the line or reprograms the channel.
 *
 * Ref: Intel 8254 data sheet (order 231164), "Mode Definitions"; IBM PC/AT Technical
 * Reference, "System Board" (port 61h). OUT rises N clocks after the load here, the
 * data sheet's one extra clock for the load itself is left out.
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PIT_HZ 1193182u

#define PORT_PIT     0x40
#define PORT_CONTROL 3 /* offset */
#define PORT_B       0x61

/* control word */
#define CW_BCD        0x01
#define CW_MODE(v)    ((v) >> 1 & 7)
#define CW_ACCESS(v)  ((v) >> 4 & 3)
#define CW_CHANNEL(v) ((v) >> 6)
#define CW_READ_BACK  3
/* read-back command: low-active latches, channels in bits 1..3 */
#define RB_NO_COUNT  0x20
#define RB_NO_STATUS 0x10
/* status byte */
#define STATUS_OUT  0x80
#define STATUS_NULL 0x40
/* port B */
#define PB_GATE2    0x01
#define PB_WRITABLE 0x0f
#define PB_REFRESH  0x10 /* toggles with each DRAM refresh */
#define PB_OUT2     0x20
#define REFRESH_NS  15085

enum access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum mode { MODE_TERMINAL, MODE_ONE_SHOT, MODE_RATE, MODE_SQUARE, MODE_STROBE, MODE_HW_STROBE };

struct pit_channel_state {
    uint64_t start_tick; /* when the count in use was loaded                            */
    uint64_t ran_ticks;  /* clocks counted before start_tick (gate pauses, mode 0 and 4) */
    uint32_t count;      /* in use: 1..65536, 0 when none was written since the mode      */
    uint32_t next_count; /* takes over at the period's end (2, 3) or trigger (1, 5); or 0 */
    uint16_t latched;
    uint8_t latched_bytes; /* bytes of `latched` still to be read                          */
    uint8_t status, status_latched;
    uint8_t mode, access, bcd, gate;
    uint8_t running; /* the clock counts: loaded, gated on, triggered where needed    */
    uint8_t write_low, write_has_low;
    uint8_t read_high; /* next unlatched read gives the high byte                      */
};

struct pit_state {
    struct pit_channel_state ch[3];
    uint64_t next_edge; /* channel 0: tick of OUT's next rise, UINT64_MAX for none       */
    uint64_t owed;      /* edges of IRQ 0 that the guest has not seen                   */
    uint8_t port_b;
};

struct pit {
    struct machine *m;
    struct vm_timer timer;
    struct pit_state s;
};

static uint64_t tick_now(const struct pit *t)
{
    return clock_ns_to_ticks(machine_now_ns(t->m), PIT_HZ);
}

static bool is_periodic(const struct pit_channel_state *c)
{
    return c->mode == MODE_RATE || c->mode == MODE_SQUARE;
}

static bool needs_trigger(const struct pit_channel_state *c)
{
    return c->mode == MODE_ONE_SHOT || c->mode == MODE_HW_STROBE;
}

static uint64_t elapsed(const struct pit_channel_state *c, uint64_t now)
{
    return c->ran_ticks + (c->running && now > c->start_tick ? now - c->start_tick : 0);
}

/** Let a count that was written in mid-period take over once the period has ended. */
static void sync_channel(struct pit_channel_state *c, uint64_t now)
{
    if (!c->next_count || !c->running || !is_periodic(c))
        return;
    /* the period in which it was written began at start_tick (load_count saw to that) */
    if (now < c->start_tick + c->count)
        return;
    c->start_tick += c->count;
    c->count = c->next_count;
    c->next_count = 0;
}

/** Move start_tick to the beginning of the present period. */
static void rebase_period(struct pit_channel_state *c, uint64_t now)
{
    if (c->running && now > c->start_tick)
        c->start_tick += (now - c->start_tick) / c->count * c->count;
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint32_t v)
{
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

/** What the counting element holds, as the guest reads it. */
static uint16_t counter_value(const struct pit_channel_state *c, uint64_t now)
{
    uint64_t gone = elapsed(c, now);
    uint32_t modulus = c->bcd ? 10000 : 65536;
    uint32_t value;

    if (!c->count)
        return 0;
    switch ((enum mode)c->mode) {
    case MODE_RATE:
        value = c->count - (uint32_t)(gone % c->count);
        break;
    case MODE_SQUARE: { /* counts down by two, twice a period */
        uint32_t in_period = (uint32_t)(gone % c->count), high = (c->count + 1) / 2;
        uint32_t in_half = in_period < high ? in_period : in_period - high;
        value = (c->count & ~1u) - 2 * in_half;
        break;
    }
    case MODE_TERMINAL:
    case MODE_ONE_SHOT:
    case MODE_STROBE:
    case MODE_HW_STROBE: /* go on counting through zero */
    default:
        value = c->count % modulus + modulus - (uint32_t)(gone % modulus);
        break;
    }
    value %= modulus;
    return c->bcd ? to_bcd(value) : (uint16_t)value;
}

static bool out_level(const struct pit_channel_state *c, uint64_t now)
{
    uint64_t gone = elapsed(c, now);

    switch ((enum mode)c->mode) {
    case MODE_TERMINAL:
        return c->count && gone >= c->count;
    case MODE_ONE_SHOT:
        return !c->running || gone >= c->count;
    case MODE_RATE:
        return !c->count || !c->running || gone % c->count != c->count - 1;
    case MODE_SQUARE:
        return !c->count || !c->running || gone % c->count < (c->count + 1) / 2;
    case MODE_STROBE:
    case MODE_HW_STROBE:
    default:
        return !c->count || gone != c->count;
    }
}

/* ---- channel 0 and its line --------------------------------------------------------------- */

static void set_timer(struct pit *t)
{
    if (t->s.next_edge == UINT64_MAX)
        machine_timer_cancel(t->m, &t->timer);
    else
        machine_timer_set(t->m, &t->timer, clock_ticks_to_ns(t->s.next_edge, PIT_HZ));
}

/** Find OUT's next rise after a load or a change of mode. */
static void plan_edges(struct pit *t)
{
    const struct pit_channel_state *c = &t->s.ch[0];

    t->s.next_edge = UINT64_MAX;
    if (c->running && c->count)
        t->s.next_edge = c->start_tick + c->count - c->ran_ticks;
    set_timer(t);
}

static void raise_irq(struct pit *t)
{
    machine_irq(t->m, 0, false);
    machine_irq(t->m, 0, true);
}

/** `edges` rises of OUT have come: give one if the last was taken, owe the rest. */
static void give_edges(struct pit *t, uint64_t edges)
{
    uint64_t most = PIT_HZ / t->s.ch[0].count + 1;

    if (machine_irq_is_masked(t->m, 0)) {
        t->s.owed = 0;
        raise_irq(t);
        return;
    }
    if (!machine_irq_is_requested(t->m, 0)) {
        edges--;
        raise_irq(t);
    }
    t->s.owed = t->s.owed + edges < most ? t->s.owed + edges : most;
}

static void pit_timer(void *ctx)
{
    struct pit *t = ctx;
    struct pit_channel_state *c = &t->s.ch[0];
    uint64_t now = tick_now(t);

    if (t->s.next_edge == UINT64_MAX)
        return;
    if (now < t->s.next_edge) { /* early: ask again */
        set_timer(t);
        return;
    }
    if (!is_periodic(c)) {
        t->s.next_edge = UINT64_MAX;
        raise_irq(t);
        return;
    }
    uint64_t edges = 1;
    t->s.next_edge += c->next_count ? c->next_count : c->count;
    sync_channel(c, now);
    if (now >= t->s.next_edge) {
        uint64_t late = (now - t->s.next_edge) / c->count + 1;
        edges += late;
        t->s.next_edge += late * c->count;
    }
    set_timer(t);
    give_edges(t, edges);
}

void pit_irq_taken(struct pit *t)
{
    if (!t->s.owed)
        return;
    if (machine_irq_is_masked(t->m, 0)) {
        t->s.owed = 0;
        return;
    }
    t->s.owed--;
    raise_irq(t);
}

/* ---- writing ------------------------------------------------------------------------------- */

static void start_counting(struct pit *t, struct pit_channel_state *c, uint64_t now)
{
    if (c->next_count)
        c->count = c->next_count;
    c->next_count = 0;
    c->start_tick = now;
    c->ran_ticks = 0;
    c->running = c->gate && !needs_trigger(c);
    if (c == &t->s.ch[0]) {
        t->s.owed = 0;
        if (c->mode == MODE_TERMINAL) /* OUT is low until the count ends */
            machine_irq(t->m, 0, false);
        plan_edges(t);
    }
}

static void load_count(struct pit *t, struct pit_channel_state *c, uint16_t written)
{
    uint64_t now = tick_now(t);
    uint32_t count = c->bcd ? from_bcd(written) : written;

    if (!count)
        count = c->bcd ? 10000 : 65536;
    if (c == &t->s.ch[0] && now >= t->s.next_edge)
        pit_timer(t); /* edges that are due belong to the old count */
    sync_channel(c, now);
    if (c->running && c->count && (is_periodic(c) || needs_trigger(c))) {
        if (is_periodic(c))
            rebase_period(c, now);
        c->next_count = count;
        return;
    }
    c->next_count = 0;
    c->count = count;
    start_counting(t, c, now);
}

static void write_count(struct pit *t, struct pit_channel_state *c, uint8_t byte)
{
    switch ((enum access)c->access) {
    case ACCESS_LATCH:
        break;
    case ACCESS_LOW:
        load_count(t, c, byte);
        break;
    case ACCESS_HIGH:
        load_count(t, c, (uint16_t)(byte << 8));
        break;
    case ACCESS_BOTH:
        if (c->write_has_low) {
            c->write_has_low = 0;
            load_count(t, c, (uint16_t)(byte << 8 | c->write_low));
            break;
        }
        c->write_low = byte;
        c->write_has_low = 1;
        if (c->mode == MODE_TERMINAL) { /* the first byte stops the count */
            c->count = 0;
            c->running = 0;
            if (c == &t->s.ch[0])
                plan_edges(t);
        }
        break;
    }
}

static void latch_count(struct pit_channel_state *c, uint64_t now)
{
    if (c->latched_bytes)
        return;
    c->latched = counter_value(c, now);
    c->latched_bytes = c->access == ACCESS_BOTH ? 2 : 1;
}

static void latch_status(struct pit_channel_state *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status =
        (uint8_t)((out_level(c, now) ? STATUS_OUT : 0) | (c->count && !c->next_count ? 0 : STATUS_NULL) |
                  c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = 1;
}

static void read_back(struct pit *t, uint8_t command, uint64_t now)
{
    for (unsigned i = 0; i < 3; i++) {
        if (!(command >> (i + 1) & 1))
            continue;
        sync_channel(&t->s.ch[i], now);
        if (!(command & RB_NO_COUNT))
            latch_count(&t->s.ch[i], now);
        if (!(command & RB_NO_STATUS))
            latch_status(&t->s.ch[i], now);
    }
}

static void set_mode(struct pit *t, struct pit_channel_state *c, uint8_t word)
{
    uint8_t mode = CW_MODE(word);

    c->mode = mode > MODE_HW_STROBE ? mode - 4 : mode; /* 6 and 7 are 2 and 3 */
    c->access = CW_ACCESS(word);
    c->bcd = word & CW_BCD;
    c->count = 0;
    c->next_count = 0;
    c->ran_ticks = 0;
    c->running = 0;
    c->latched_bytes = 0;
    c->status_latched = 0;
    c->write_has_low = 0;
    c->read_high = 0;
    if (c == &t->s.ch[0]) {
        t->s.owed = 0;
        plan_edges(t);
        machine_irq(t->m, 0, c->mode != MODE_TERMINAL); /* OUT's idle level */
    }
}

static void write_control(struct pit *t, uint8_t word)
{
    uint64_t now = tick_now(t);

    if (CW_CHANNEL(word) == CW_READ_BACK) {
        read_back(t, word, now);
        return;
    }
    struct pit_channel_state *c = &t->s.ch[CW_CHANNEL(word)];
    sync_channel(c, now);
    if (CW_ACCESS(word) == ACCESS_LATCH)
        latch_count(c, now);
    else
        set_mode(t, c, word);
}

static void pit_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct pit *t = dev;
    unsigned reg = (unsigned)addr & 3;

    (void)size;
    if (reg == PORT_CONTROL)
        write_control(t, (uint8_t)value);
    else
        write_count(t, &t->s.ch[reg], (uint8_t)value);
}

/* ---- reading ------------------------------------------------------------------------------- */

static uint8_t read_latched(struct pit_channel_state *c)
{
    uint8_t byte = (uint8_t)(c->access == ACCESS_HIGH ? c->latched >> 8 : c->latched);

    c->latched >>= 8;
    c->latched_bytes--;
    return byte;
}

static uint8_t read_live(struct pit_channel_state *c, uint64_t now)
{
    uint16_t value = counter_value(c, now);
    bool wants_high = c->access == ACCESS_HIGH;

    if (c->access == ACCESS_BOTH) {
        wants_high = c->read_high;
        c->read_high ^= 1;
    }
    return (uint8_t)(wants_high ? value >> 8 : value);
}

static uint32_t pit_read(void *dev, uint64_t addr, unsigned size)
{
    struct pit *t = dev;
    unsigned reg = (unsigned)addr & 3;

    (void)size;
    if (reg == PORT_CONTROL)
        return 0xff;
    struct pit_channel_state *c = &t->s.ch[reg];
    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched_bytes)
        return read_latched(c);
    uint64_t now = tick_now(t);
    sync_channel(c, now);
    return read_live(c, now);
}

/* ---- port 61h and channel 2's gate ---------------------------------------------------------- */

static void set_gate(struct pit *t, struct pit_channel_state *c, bool gate)
{
    uint64_t now = tick_now(t);

    if (c->gate == gate)
        return;
    sync_channel(c, now);
    c->gate = gate;
    if (!c->count)
        return;
    if (needs_trigger(c)) {
        if (gate) { /* the rising edge starts it; the level does not matter */
            start_counting(t, c, now);
            c->running = 1;
        }
    } else if (is_periodic(c)) {
        if (gate)
            start_counting(t, c, now);
        else
            c->running = 0;
    } else if (gate) {
        c->start_tick = now;
        c->running = 1;
    } else {
        c->ran_ticks = elapsed(c, now);
        c->running = 0;
    }
}

static uint32_t port_b_read(void *dev, uint64_t addr, unsigned size)
{
    struct pit *t = dev;
    struct pit_channel_state *c = &t->s.ch[2];
    uint64_t now = tick_now(t);

    (void)addr;
    (void)size;
    sync_channel(c, now);
    return t->s.port_b | (machine_now_ns(t->m) / REFRESH_NS & 1 ? PB_REFRESH : 0u) |
           (out_level(c, now) ? PB_OUT2 : 0u);
}

static void port_b_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct pit *t = dev;

    (void)addr;
    (void)size;
    t->s.port_b = value & PB_WRITABLE;
    set_gate(t, &t->s.ch[2], value & PB_GATE2);
}

static void pit_reset(void *dev)
{
    struct pit *t = dev;

    memset(&t->s, 0, sizeof t->s);
    t->s.next_edge = UINT64_MAX;
    t->s.ch[0].gate = t->s.ch[1].gate = 1; /* tied high on the board */
    /* As firmware leaves it: 18.2 Hz ticks, DRAM refresh, tone generator. A kernel may wait for
     * channel 0's null-count bit to clear before it has programmed the chip itself. */
    write_control(t, 0 << 6 | ACCESS_BOTH << 4 | MODE_SQUARE << 1);
    load_count(t, &t->s.ch[0], 0);
    write_control(t, 1 << 6 | ACCESS_LOW << 4 | MODE_RATE << 1);
    load_count(t, &t->s.ch[1], 18);
    write_control(t, 2 << 6 | ACCESS_BOTH << 4 | MODE_SQUARE << 1);
}

static const struct io_ops pit_ops = { .name = "i8254", .read = pit_read, .write = pit_write };
static const struct io_ops port_b_ops = { .name = "port61", .read = port_b_read, .write = port_b_write };

struct pit *pit_new(struct machine *m)
{
    struct pit *t = machine_alloc(m, sizeof *t);

    if (!t || machine_claim_ports(m, PORT_PIT, 4, &pit_ops, t) ||
        machine_claim_ports(m, PORT_B, 1, &port_b_ops, t) ||
        device_register(m, "i8254", pit_reset, t, &t->s, sizeof t->s))
        return NULL;
    t->m = m;
    vm_timer_init(&t->timer, pit_timer, t);
    return t;
}
