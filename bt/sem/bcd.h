/*
 * Decimal adjustments, which 64-bit mode lacks: values in, value and flags out.
 *
 * Each function takes AX and the arithmetic flags and gives the new AX; *fl is
 * replaced. Where the SDM calls a flag undefined, SF, ZF and PF follow AL and the
 * others are cleared; differential tests leave those flags out.
 * Ref: Intel SDM vol. 2A, "DAA", "DAS", "AAA", "AAS", "AAM", "AAD".
 */
#ifndef BT_SEM_BCD_H
#define BT_SEM_BCD_H

#include "bt/sem/flags.h"

static inline uint16_t sem_join_ax(unsigned ah, unsigned al)
{
    return (uint16_t)((ah & 0xffu) << 8 | (al & 0xffu));
}

/* DAA: OF is undefined. */
static inline uint16_t sem_daa(uint16_t ax, uint32_t *fl)
{
    unsigned old_al = ax & 0xffu, al = old_al;
    bool low = (al & 0xf) > 9 || (*fl & EFL_AF);
    bool high = old_al > 0x99 || (*fl & EFL_CF);

    if (low)
        al += 6;
    if (high)
        al += 0x60;
    *fl = sem_flags_szp(al, 1) | (low ? EFL_AF : 0) | (high ? EFL_CF : 0);
    return sem_join_ax(ax >> 8, al);
}

/* DAS: OF is undefined. A borrow of the low adjustment alone sets CF as well. */
static inline uint16_t sem_das(uint16_t ax, uint32_t *fl)
{
    unsigned old_al = ax & 0xffu, al = old_al;
    bool low = (al & 0xf) > 9 || (*fl & EFL_AF);
    bool high = old_al > 0x99 || (*fl & EFL_CF);
    bool borrow = low && old_al < 6;

    if (low)
        al -= 6;
    if (high)
        al -= 0x60;
    *fl = sem_flags_szp(al, 1) | (low ? EFL_AF : 0) | (high || borrow ? EFL_CF : 0);
    return sem_join_ax(ax >> 8, al);
}

/* AAA: OF, SF, ZF and PF are undefined. The carry out of AL reaches AH: it is AX that is added to. */
static inline uint16_t sem_aaa(uint16_t ax, uint32_t *fl)
{
    bool adjust = (ax & 0xf) > 9 || (*fl & EFL_AF);
    uint16_t r = (uint16_t)((adjust ? ax + 0x106u : ax) & 0xff0fu);

    *fl = sem_flags_szp(r, 1) | (adjust ? EFL_AF | EFL_CF : 0);
    return r;
}

/* AAS: OF, SF, ZF and PF are undefined. The borrow out of AL reaches AH besides the one that is taken. */
static inline uint16_t sem_aas(uint16_t ax, uint32_t *fl)
{
    bool adjust = (ax & 0xf) > 9 || (*fl & EFL_AF);
    uint16_t r = (uint16_t)((adjust ? ax - 0x106u : ax) & 0xff0fu);

    *fl = sem_flags_szp(r, 1) | (adjust ? EFL_AF | EFL_CF : 0);
    return r;
}

/* AAM: OF, AF and CF are undefined. The caller raises #DE for base 0. */
static inline uint16_t sem_aam(uint16_t ax, uint8_t base, uint32_t *fl)
{
    unsigned al = ax & 0xffu;

    *fl = sem_flags_szp(al % base, 1);
    return sem_join_ax(al / base, al % base);
}

/* AAD: OF, AF and CF are undefined. */
static inline uint16_t sem_aad(uint16_t ax, uint8_t base, uint32_t *fl)
{
    unsigned al = ((ax & 0xffu) + (unsigned)(ax >> 8) * base) & 0xffu;

    *fl = sem_flags_szp(al, 1);
    return sem_join_ax(0, al);
}

#endif
