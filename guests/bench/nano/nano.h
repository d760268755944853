/*
 * The nanobenchmarks: what one event of the processor or of its virtual machine monitor costs.
 *
 * An event is a piece of position-independent assembly (blocks.S) that reads the TSC, lets the event happen
 * EBP times in a loop, reads the TSC again and leaves by INT 7Fh. It is copied to several places in memory,
 * since where code stands changes what it costs by tens of per cent, and measured in each.
 *
 * Registers of a block: EBP how many times, EBX its own address, ESI the TSC at its start; EAX at its end the
 * TSC cycles that have passed; EDI what the events themselves have counted, by which each proves that it
 * happened.
 */
#ifndef GUESTS_BENCH_NANO_NANO_H
#define GUESTS_BENCH_NANO_NANO_H

/* Layout of memory, for C and assembly. */
#define NANO_AREA     0x1000000 /* VA of the pages that come and go: 4 MiB, with a page table of their own */
#define NANO_CODE     0x900000  /* where blocks are copied to, up to NANO_PAGES */
#define NANO_CODE_END 0xd00000
#define NANO_PAGES    0xd00000 /* PA of pages behind NANO_AREA: 256 that hold 1, and 256 that hold 3 */
#define NANO_ONES     0xd00000
#define NANO_THREES   0xe00000

#define SEL_NANO_TSS 0x38 /* the other task */

#ifndef __ASSEMBLER__

#include "../../lib/guest.h"

struct block {
    const char *name;
    const uint8_t *code, *end;
    uint8_t ring;
    uint8_t measures;       /* what a turn's time is divided by: as many events */
    uint32_t count;         /* what EDI gains in a turn; 0: nothing to count */
    uint32_t flags;         /* EFLAGS at its start */
    uint32_t most;          /* turns that make sense between two calls of prepare; 0: any number */
    bool (*possible)(void); /* NULL: on every processor */
    void (*prepare)(void);  /* before each run, untimed */
    void (*after)(const struct block *b, const struct context *c); /* more checks, after a run */
};

/** All of them, the empty loops first. */
extern const struct block nano_blocks[];
extern const unsigned nano_block_count;

/** Tables, page tables and gates that the blocks need. Paging is on afterwards. */
void nano_machine_setup(void);

/** Copy a block to the next free place whose address ends with `ofs` (below 800h). */
uint32_t nano_place(const struct block *b, uint32_t ofs);
/** Run a block that has been copied to `place`. -> TSC cycles. Counts of what did not happen go to
 * nano_missing. */
uint32_t nano_run(const struct block *b, uint32_t place, uint32_t turns);
extern uint32_t nano_missing;

/**
 * How fast the processor is just now, in TSC cycles of 4096 additions. `chain`: each waits for the one
 * before, so that each is a core clock. `wide`: four at a time, which takes longer while a sibling thread
 * shares the core.
 */
struct speed {
    uint32_t chain, wide;
};
struct speed nano_speed(void);

/** a * b / c, 0xffffffff when it is more than that. */
uint32_t nano_ratio(uint32_t a, uint32_t b, uint32_t c);
void nano_sort(uint32_t *v, unsigned n);
uint32_t nano_tsc(void);

/** TSC cycles of 1/1193182 s, times 256. */
uint32_t nano_pit_tick(void);
/** Interrupts that come by themselves: delivery, and waking from HLT. One line each a place. */
void nano_timer_events(const uint32_t *places, unsigned nplaces, unsigned wanted,
                       bool (*picked)(const char *));

/** The line of one place. `v`: n costs in hundredths of a TSC cycle an event; they get sorted. */
void nano_report(const char *name, uint32_t place, uint32_t *v, unsigned n, struct speed before);

#endif
#endif
