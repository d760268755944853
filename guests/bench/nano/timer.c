/*
 * Interrupts that come by themselves, from channel 0 of the PIT.
 *
 * What one costs is time that a loop of additions has lost: the gap between two readings of the TSC in which
 * an interrupt came, less the gap without one. How late one is says the PIT itself: its counter begins anew
 * with each interrupt, so what the handler reads from it is the time since then, in steps of 838 ns. Ref:
 * Intel 8254 data sheet, "Mode 2: rate generator", "Counter latch command".
 */
#include "nano.h"

#define VEC_TIMER 0x20
#define MOST      100

extern const uint8_t block_irq_gaps[], block_irq_gaps_end[], block_irq_gap_base[], block_irq_gap_base_end[];
extern const uint8_t block_hlt_timer[], block_hlt_timer_end[], block_busy_timer[], block_busy_timer_end[];
extern uint8_t nano_tick[], nano_tick_read[];

static void pit_start(uint32_t reload)
{
    outb(0x43, 0x34);
    outb(0x40, (uint8_t)reload);
    outb(0x40, (uint8_t)(reload >> 8));
}

static uint32_t pit_read(void)
{
    uint32_t v;

    outb(0x43, 0);
    v = inb(0x40);
    return v | (uint32_t)inb(0x40) << 8;
}

uint32_t nano_pit_tick(void)
{
    uint32_t first, last, begun, ended;

    pit_start(0);
    first = pit_read();
    begun = nano_tsc();
    do {
        last = pit_read();
        ended = nano_tsc();
    } while (((first - last) & 0xffff) < 24000); /* 20 ms */
    return nano_ratio(ended - begun, 256, (first - last) & 0xffff);
}

/* Let `wanted` interrupts come, `reload` ticks apart, while b runs; each writes a word to v. */
static void let_come(const struct block *b, uint32_t place, const void *handler, uint32_t reload,
                     unsigned wanted, uint32_t *v)
{
    struct context c = context_new(0, (const void *)place);

    idt_set(VEC_TIMER, GATE(SEL_KCODE, address_of(handler), 0x8e));
    c.ebp = address_of(v + wanted);
    c.ebx = place;
    c.ecx = address_of(v);
    c.eflags |= b->flags;
    pit_start(reload);
    outb(0x21, 0xfe);
    context_run(&c);
    outb(0x21, 0xff);
    if (c.vector != VEC_DONE || c.edi < wanted || c.ecx < c.ebp)
        nano_missing++;
}

/* The gaps around interrupts 1 ms apart. */
static void measure_gaps(uint32_t ofs, unsigned wanted)
{
    static const struct block gaps = {
        .name = "irq_async", .code = block_irq_gaps, .end = block_irq_gaps_end, .flags = EFL_IF
    };
    static const struct block base = {
        .name = "irq_gap_base", .code = block_irq_gap_base, .end = block_irq_gap_base_end, .count = 1
    };
    uint32_t v[MOST + 8], without[15];
    struct speed before = nano_speed();
    uint32_t place = nano_place(&base, ofs);

    nano_run(&base, place, 20000);
    for (unsigned i = 0; i < 15; i++)
        without[i] = nano_run(&base, place, 1000);
    nano_sort(without, 15);
    place = nano_place(&gaps, ofs);
    let_come(&gaps, place, nano_tick, 1193, wanted, v); /* warm */
    let_come(&gaps, place, nano_tick, 1193, wanted, v);
    for (unsigned i = 0; i < wanted; i++) {
        uint32_t base_gap = without[7] / 500; /* each gap is two */

        v[i] = v[i] > base_gap ? nano_ratio(v[i] - base_gap, 100, 1) : 0;
    }
    nano_report("irq_async", place, v, wanted, before);
}

/* How late interrupts 2 ms apart are. */
static void measure_lateness(const struct block *b, uint32_t ofs, unsigned wanted)
{
    const uint32_t reload = 2386;
    uint32_t v[MOST + 8], place = nano_place(b, ofs), tick = nano_pit_tick();
    struct speed before = nano_speed();

    let_come(b, place, nano_tick_read, reload, wanted, v);
    for (unsigned i = 0; i < wanted; i++)
        v[i] = nano_ratio(tick, ((reload - v[i]) & 0xffff) * 100, 256);
    nano_report(b->name, place, v, wanted, before);
}

void nano_timer_events(const uint32_t *places, unsigned nplaces, unsigned wanted,
                       bool (*picked)(const char *))
{
    static const struct block late[] = {
        { .name = "hlt_wakeup", .code = block_hlt_timer, .end = block_hlt_timer_end },
        { .name = "irq_lateness", .code = block_busy_timer, .end = block_busy_timer_end, .flags = EFL_IF },
    };

    if (wanted > MOST)
        wanted = MOST;
    if (picked("irq_async")) {
        nano_missing = 0;
        for (unsigned p = 0; p < nplaces; p++)
            measure_gaps(places[p], wanted);
        check_eq("irq_async", nano_missing, 0);
    }
    for (unsigned i = 0; i < 2; i++)
        if (picked(late[i].name)) {
            nano_missing = 0;
            for (unsigned p = 0; p < nplaces; p++)
                measure_lateness(&late[i], places[p], wanted);
            check_eq(late[i].name, nano_missing, 0);
        }
}
