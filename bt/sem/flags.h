/*
 * Arithmetic flags from operands and result: values in, flags out, no vCPU and no
 * memory. Widths are in bytes: 1, 2 or 4.
 * Ref: Intel SDM vol. 1, ch. 3 "Status Flags".
 */
#ifndef BT_SEM_FLAGS_H
#define BT_SEM_FLAGS_H

#include "base/types.h"
#include "base/x86.h"

static inline uint32_t sem_mask(unsigned width)
{
    return UINT32_MAX >> (32 - 8 * width);
}

/** PF: the low byte has an even number of ones. */
static inline uint32_t sem_parity(uint32_t v)
{
    uint32_t fold = (v ^ (v >> 4)) & 0xf;

    return (0x9669u >> fold) & 1u ? EFL_PF : 0;
}

/** SF, ZF and PF of a result. */
static inline uint32_t sem_flags_szp(uint32_t result, unsigned width)
{
    uint32_t sign = (result >> (8 * width - 1)) & 1u;
    uint32_t zero = (result & sem_mask(width)) == 0;

    return (sign ? EFL_SF : 0) | (zero ? EFL_ZF : 0) | sem_parity(result);
}

/**
 * Flags of a - b, as SUB, CMP, CMPS and SCAS set them. CF: borrow into the highest bit. AF:
 * borrow into bit 4. OF: operands differ in sign and the result's sign is not a's.
 */
static inline uint32_t sem_flags_sub(uint32_t a, uint32_t b, unsigned width)
{
    uint32_t mask = sem_mask(width);
    uint32_t result = a - b;
    uint32_t overflow = ((a ^ b) & (a ^ result)) >> (8 * width - 1);

    return sem_flags_szp(result, width) | ((a & mask) < (b & mask) ? EFL_CF : 0) |
           ((a ^ b ^ result) & EFL_AF) | (overflow & 1u ? EFL_OF : 0);
}

#endif
