/*
 * A protected-mode world for fuzzers: a whole VM with little memory, descriptor tables with one of
 * each kind in them, four task state segments, an identity page table, handlers for the first 64
 * vectors. What an input finds before it changes everything.
 *
 *   0000 vectors of real mode  1000 GDT  1400 LDT  1800 IDT  2000 task state segments
 *   4000 page directory        5000 page table      8000 code  9000.. stacks and data
 */
#ifndef TESTS_FUZZ_WORLD_H
#define TESTS_FUZZ_WORLD_H

#include "monitor/monitor.h"
#include "monitor/transfer.h"

#define WORLD_GDT       0x1000u
#define WORLD_GDT_LIMIT 0x1ffu
#define WORLD_LDT       0x1400u
#define WORLD_LDT_LIMIT 0x7fu
#define WORLD_IDT       0x1800u
#define WORLD_IDT_LIMIT 0x1ffu
#define WORLD_TSS       0x2000u /* four of them, 0x100 apart; the third is a 16-bit one */
#define WORLD_DIRECTORY 0x4000u
#define WORLD_TABLE     0x5000u
#define WORLD_CODE      0x8000u

struct world {
    struct vm *vm;
    struct vcpu *cpu;
    uint8_t *ram;
    uint32_t ram_bytes; /* a power of two */
};

/** Everything as after power-on, then the tables above and ring 0. */
void world_begin(struct world *w);

void world_put32(struct world *w, uint32_t at, uint32_t value);
void world_descriptor(struct world *w, uint32_t at, uint32_t base, uint32_t raw_limit, unsigned attr);
void world_gate(struct world *w, uint32_t at, unsigned type, unsigned dpl, unsigned sel, uint32_t offset);

/** Where the processor is: segments, privilege, mode and view; paging is left alone but for real mode. */
void world_ring(struct world *w, unsigned ring);
void world_real(struct world *w);
void world_vm86(struct world *w);
void world_paging(struct world *w, bool on);

#endif
