/* What C and assembly of the guest library share: selectors and struct context. */
#ifndef GUESTS_LIB_LAYOUT_H
#define GUESTS_LIB_LAYOUT_H

#define SEL_KCODE 0x08
#define SEL_KDATA 0x10
#define SEL_UCODE 0x1b
#define SEL_UDATA 0x23
#define SEL_TSS   0x28
#define SEL_LDT   0x30
#define SEL_FREE  0x38 /* first of the GDT entries that tests use as they like */

/* modes.S: the segment of its stubs, and selectors on the way to real mode (modes.h) */
#define REAL_SEG      0x0100
#define SEL_REAL_CODE 0x1d0
#define SEL_REAL_DATA 0x1d8
#define SEL_REAL_BIG  0x1e0

#define CTX_EDI    0
#define CTX_ESI    4
#define CTX_EBP    8
#define CTX_ESP    12
#define CTX_EBX    16
#define CTX_EDX    20
#define CTX_ECX    24
#define CTX_EAX    28
#define CTX_EIP    32
#define CTX_CS     36
#define CTX_EFLAGS 40
#define CTX_SS     44
#define CTX_DS     48
#define CTX_ES     52
#define CTX_FS     56
#define CTX_GS     60

#endif
