/*
 * What ring 1 asks ring 0 for: a software interrupt through a gate of DPL 1. RAX = which, arguments in
 * RDI, RSI, RDX, R8; the result is in RAX. Verified translated code holds no INT, so it cannot call.
 *
 * This is also the whole list of what ring 0 does for ring 1 besides traps.
 */
#ifndef PLATFORM_RING1_CORE_NUCLEUS_H
#define PLATFORM_RING1_CORE_NUCLEUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/ring1/core/layout.h"

enum nucleus_call {
    NUC_NOTHING,  /* () -> what the caller's CS.RPL is; the self-check                         */
    NUC_LOG,      /* (text, bytes)                                                             */
    NUC_SERIAL,   /* (data, bytes): out of the machine's first serial port                     */
    NUC_BACK,     /* (VA, bytes, executable alias VA or 0): zeroed memory -> 0 or -ENOMEM      */
    NUC_UNMAP,    /* (VA, bytes, 1: and give the memory back) -> bytes that were mapped        */
    NUC_SHOW,     /* (VA, VA of backed memory, bytes, WINDOW_*): a second mapping -> 0, -errno */
    NUC_TIMER,    /* (nanoseconds from now): an interrupt, sooner if the timer has no such range */
    NUC_WAIT,     /* (nanoseconds): until an event; returns at once when one is there          */
    NUC_TREE,     /* (window): its own page tables, with it at address 0 -> 0 or -ENOMEM       */
    NUC_SELECT,   /* (window): that one is at address 0                                        */
    NUC_DIRECT,   /* (struct direct_exit *): run user code -> 0 or -EINVAL                     */
    NUC_CMOS,     /* (register) -> byte                                                        */
    NUC_EXIT,     /* (status): the end of the machine                                          */
    NUC_COUNT,
};

static inline int64_t nucleus(enum nucleus_call which, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t r8 __asm__("r8") = d;
    int64_t result;

    __asm__ volatile("int %1"
                     : "=a"(result)
                     : "i"(VECTOR_NUCLEUS), "a"((uint64_t)which), "D"(a), "S"(b), "d"(c), "r"(r8)
                     : "memory");
    return result;
}

#endif
