/*
 * The other modes of the processor, for guests that test them: 16-bit code placed in low memory and run
 * in real mode, in virtual-8086 mode or in a 16-bit protected segment.
 *
 * A run ends as one in flat mode does: by INT 7Fh or by whatever exception comes first, and struct
 * context tells how. In real mode that goes through the interrupt table at 0, whose entries lead to
 * stubs in the segment REAL_SEG; a frame there has no error code, and EFLAGS only its lower half.
 *
 * Memory below 1 MiB (the boot loader's data lies at 10000h or from 90000h):
 *
 *     00000  interrupt table           30000  data           60000  more of what a test likes
 *     01000  stubs and state           40000  stack
 *     20000  code                      50000  second data
 */
#ifndef GUESTS_LIB_MODES_H
#define GUESTS_LIB_MODES_H

#include "guest.h"

#define CODE_SEG  0x2000u
#define DATA_SEG  0x3000u
#define STACK_SEG 0x4000u
#define EXTRA_SEG 0x5000u
#define LINEAR(seg, ofs) (((uint32_t)(seg) << 4) + (uint32_t)(ofs))
#define CODE_AT  LINEAR(CODE_SEG, 0)
#define DATA_AT  LINEAR(DATA_SEG, 0)
#define STACK_AT LINEAR(STACK_SEG, 0)
#define EXTRA_AT LINEAR(EXTRA_SEG, 0)
/** The stack pointer that runs begin with. */
#define STACK_TOP 0x8000u

/** 16-bit assembly text, position-independent, ended by INT 7Fh at NAME_done. */
#define SNIPPET16(name, text)                                                                                \
    extern uint8_t name[], name##_done[], name##_end[];                                                      \
    __asm__(".text\n.globl " #name "\n.globl " #name "_done\n.globl " #name "_end\n.code16\n" #name          \
            ":\n" text "\n" #name "_done: int $0x7f\nhlt\n" #name "_end:\n.code32\n")

/** Offset of a label in its snippet, which is its EIP when the snippet lies at offset 0. */
#define OFS(label, name) ((uint32_t)((label) - (name)))
#define DONE(name)       OFS(name##_done, name)

/** Copy a snippet to CODE_SEG:at. */
#define PLACE(name, at) code_place((name), (size_t)(name##_end - name), (at))
void code_place(const void *code, size_t bytes, uint32_t at);

/** Registers of a run in real mode at CODE_SEG:0, data in DATA_SEG, stack at STACK_SEG:STACK_TOP. */
struct context real_new(void);
/** Run it. c->eflags in: all of it; c->vector out: the interrupt that ended it, c->error 0. */
void real_run(struct context *c);
/** Place at offset 0 and run. */
#define REAL(name) (PLACE(name, 0), real_at_0())
struct context real_at_0(void);

/** The same, in virtual-8086 mode: context_run() runs it. */
struct context vm86_new(void);
#define VM86(name) (PLACE(name, 0), vm86_at_0())
struct context vm86_at_0(void);

/* What real mode begins with; put back to these values after each run. */
struct real_setup {
    struct table_register idtr; /* limit 3FFh, base 0                                                 */
    uint32_t big;               /* segments whose hidden limit is 4 GiB - 1: bit n of 1 << BIG_*       */
    uint32_t cr0_or;            /* bits of CR0 set on the way                                          */
};
#define BIG_ES 1u
#define BIG_SS 2u
#define BIG_DS 4u
#define BIG_FS 8u
#define BIG_GS 16u
extern struct real_setup real_setup;
/** CR0 at the end of the last run, before protection was switched on again. */
extern uint32_t real_end_cr0;

void ivt_set(unsigned vector, uint16_t seg, uint16_t ofs);

/* 16-bit protected mode: selectors made by modes_init(). */
#define SEL_CODE16   0x1a0 /* base CODE_AT, limit FFFFh, D = 0, DPL 0 */
#define SEL_STACK16  0x1a8 /* base STACK_AT, limit FFFFh, B = 0, DPL 0 */
#define SEL_DATA16   0x1b0 /* base DATA_AT, limit FFFFh, DPL 0 */
#define SEL_UCODE16  0x1bb /* the same for CPL 3 */
#define SEL_USTACK16 0x1c3
#define SEL_UDATA16  0x1cb

void modes_init(void);
/** Registers of a run in 16-bit protected mode, ring 0 or 3, at CODE_AT; context_run() runs it. */
struct context prot16_new(int ring);
#define PROT16(name, ring) (PLACE(name, 0), prot16_at_0(ring))
struct context prot16_at_0(int ring);

static inline uint16_t peek16(uint32_t va)
{
    return *(volatile uint16_t *)va;
}
static inline uint8_t peek8(uint32_t va)
{
    return *(volatile uint8_t *)va;
}
static inline void poke16(uint32_t va, uint16_t v)
{
    *(volatile uint16_t *)va = v;
}

#endif
