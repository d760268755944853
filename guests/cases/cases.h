/*
 * Differential cases that run inside a guest: what the generator (tests/diff/modes_gen.c) and the guest
 * (cases.c) agree on. The file of cases is the guest's initrd: a header, the contents of the case region, then
 * the cases.
 *
 * Physical memory, also linear with paging on:
 *
 *   0x00001000  real-mode code: entry points, launch                (not mapped)
 *   0x00008000  page directory, 0x00009000 the page table of the first 4 MiB (not mapped)
 *   0x00020000  REGION, 128 KiB: code, data and stacks of cases
 *                 +0x1d000 supervisor only, +0x1e000 absent, +0x1f000 read only
 *   0x00100000  the guest: supervisor only
 *
 * Above 4 MiB nothing is mapped. Without paging all memory is there, so the segments of real mode
 * lie inside REGION.
 */
#ifndef GUESTS_CASES_CASES_H
#define GUESTS_CASES_CASES_H

#include <stdint.h>

#define REGION       0x20000u
#define REGION_BYTES 0x20000u
#define CODE_AT      0x26000u /* linear; two pages of INT3 around the code under test */
#define CODE_BYTES   0x2000u
#define PD_AT        0x8000u
#define PT_AT        0x9000u

/* Descriptors: index in the GDT (or LDT), base, limit, access byte, flags G DB. */
#define CASES_GDT(D)                                                                                         \
    D(0x40, REGION, 0xffff, 0x9b, 0)                /* 16-bit code, ring 0             */                    \
    D(0x48, REGION, 0xffff, 0xfb, 0)                /* the same, ring 3                */                    \
    D(0x50, REGION, 0x1ffff, 0x9b, 4)               /* 32-bit code with a base, ring 0 */                    \
    D(0x58, REGION, 0x1ffff, 0xfb, 4)               /* the same, ring 3                */                    \
    D(0x60, REGION + 0x8000, 0xffff, 0x93, 0)       /* 16-bit data                     */                    \
    D(0x68, REGION + 0x8000, 0xffff, 0xf3, 0)                                                                \
    D(0x70, REGION, 0x1ffff, 0x93, 4)               /* 32-bit data                     */                    \
    D(0x78, REGION, 0x1ffff, 0xf3, 4)                                                                        \
    D(0x80, REGION + 0xc000, 0xfff, 0xf3, 4)        /* small                           */                    \
    D(0x88, REGION, 0x7fff, 0xf7, 4)                /* expand-down, 32-bit             */                    \
    D(0x90, REGION, 0x7fff, 0xf7, 0)                /* expand-down, 16-bit             */                    \
    D(0x98, REGION, 0x1ffff, 0xf1, 4)               /* read only                       */                    \
    D(0xa0, REGION, 0x1ffff, 0x9f, 4)               /* conforming code, ring 0         */                    \
    D(0xa8, REGION, 0x1ffff, 0xf9, 4)               /* execute only                    */                    \
    D(0xb0, REGION, 0x1ffff, 0x73, 4)               /* absent data                     */                    \
    D(0xb8, REGION, 0x1ffff, 0x7b, 4)               /* absent code                     */                    \
    D(0xe8, REGION, 0x1ffff, 0xb3, 4)               /* data of ring 1                  */                    \
    D(0xf0, REGION, 0x1ffff, 0xf2, 4)               /* not accessed yet                */                    \
    D(0x100, 0, 0x0007, 0xc2, 0)                    /* an LDT of DPL 2                 */
#define CASES_LDT(D)                                                                                         \
    D(0x04, REGION, 0x1ffff, 0xf3, 4)                                                                        \
    D(0x0c, REGION, 0x1ffff, 0xfb, 4)                                                                        \
    D(0x14, REGION + 0x123, 0x5678, 0xf3, 4)        /* odd base and limit              */

#define SEL_GATE32   0xc0u /* call gate to 0x50:0x7000, DPL 3 */
#define SEL_GATE16   0xc8u /* to 0x40:0x7000, two words, DPL 3 */
#define SEL_GATE0    0xd0u /* like the first, DPL 0           */
#define SEL_TSS2     0xe0u /* a task to switch to             */
#define SEL_INT_GATE 0xf8u /* an interrupt gate in the GDT    */
#define GATE_OFFSET  0x7000u

enum case_mode {
    MODE_REAL,
    MODE_V86,
    MODE_PM16,  /* 16-bit code, CPL by CS     */
    MODE_PM32,  /* 32-bit code, segments as the case says */
    MODE_COUNT_
};

#define CASE_CODE_BYTES 24u

struct modes_case {
    uint32_t number;
    uint8_t mode, code_len, fpu_image, pad;
    uint32_t gpr[8]; /* in the processor's order */
    uint32_t eip, eflags;
    uint16_t es, cs, ss, ds, fs, gs;
    uint32_t cr0, cr4; /* the bits that may be set besides the guest's own */
    uint32_t undefined; /* flags that are not reported                       */
    uint32_t code_at;  /* linear                                            */
    uint8_t code[CASE_CODE_BYTES];
    uint32_t stack_at, mem_at; /* linear: bytes put there first; 0: none            */
    uint8_t stack[24], mem[8];
};

struct cases_header {
    uint32_t magic, count;
    uint8_t fpu[4][512]; /* FXSAVE images */
};
#define CASES_MAGIC 0x53455341u

#endif
