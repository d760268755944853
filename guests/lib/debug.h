/*
 * For the topics on debugging: breakpoints armed while a piece of code runs, and a record of the
 * debug exceptions that come of it.
 */
#ifndef GUESTS_LIB_DEBUG_H
#define GUESTS_LIB_DEBUG_H

#include "guest.h"

#define DR7_L(n)  (1u << (2 * (n)))
#define DR7_G(n)  (2u << (2 * (n)))
#define DR7_GD    0x2000u
#define DR6_NONE  0xffff0ff0u
#define CR4_DE    8u

enum break_kind { ON_FETCH, ON_WRITE, ON_PORT, ON_ACCESS };

#define DR_GET(n)                                                                                            \
    static inline uint32_t get_dr##n(void)                                                                   \
    {                                                                                                        \
        uint32_t v;                                                                                          \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(v));                                                    \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void set_dr##n(uint32_t v)                                                                 \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%dr" #n : : "r"(v) : "memory");                                           \
    }
DR_GET(0)
DR_GET(1)
DR_GET(2)
DR_GET(3)
DR_GET(6)
DR_GET(7)

#define NOWHERE 0xfffff0f0u

/* DR7 of the next run; everything is off again after it. */
static uint32_t armed;

static __attribute__((unused)) void arm_disabled(unsigned n, enum break_kind kind, uint32_t at, unsigned bytes)
{
    static const uint8_t len[9] = { 0, 0, 1, 0, 3, 0, 0, 0, 2 };

    armed |= (uint32_t)kind << (16 + 4 * n) | (uint32_t)len[bytes] << (18 + 4 * n);
    if (n == 0)
        set_dr0(at);
    else if (n == 1)
        set_dr1(at);
    else if (n == 2)
        set_dr2(at);
    else
        set_dr3(at);
}

static __attribute__((unused)) void arm(unsigned n, enum break_kind kind, uint32_t at, unsigned bytes)
{
    arm_disabled(n, kind, at, bytes);
    armed |= DR7_G(n);
}

/*
 * What is recorded of a debug exception, as a number that reads well in hexadecimal: the offset of EIP in
 * the code in the upper digits, and below
 *
 *     0x0f B0..B3   0x10 BD   0x20 BS   0x40 BT   0x80 RF in the flags pushed
 */
#define AT(ofs, what) ((uint32_t)(ofs) << 8 | (what))
#define BD 0x10u
#define BS 0x20u
#define BT 0x40u
#define RF 0x80u

#define RECORDS 24u
static struct {
    uint32_t base;          /* EIPs count from here                                       */
    uint32_t at[RECORDS];   /* as above                                                   */
    uint32_t ecx[RECORDS];
    unsigned count;
    bool keeps_rf;          /* the handler leaves RF alone, so that the breakpoint comes again */
    bool stops_stepping;    /* it clears TF                                               */
    bool once;              /* it disarms all breakpoints                                 */
} record;

static bool on_debug(struct frame *f)
{
    uint32_t dr6 = get_dr6();
    unsigned i = record.count;

    if (f->vector != V_DB || i == RECORDS)
        return false;
    record.at[i] = (f->eip - record.base) << 8 | (dr6 & 15) | (dr6 >> 9 & 0x70) | (f->eflags & EFL_RF ? RF : 0);
    record.ecx[i] = f->ecx;
    record.count++;
    set_dr6(DR6_NONE);
    if (!record.keeps_rf)
        f->eflags |= EFL_RF;
    record.keeps_rf = false;
    if (record.once)
        set_dr7(0x400);
    if (record.stops_stepping)
        f->eflags &= ~EFL_TF;
    return true;
}

/* Run with breakpoints armed. */
static __attribute__((unused)) void run_armed(struct context *c, const uint8_t *base)
{
    record.base = address_of(base);
    record.count = 0;
    guest_hook = on_debug;
    set_dr6(DR6_NONE);
    set_dr7(armed | 0x400);
    context_run(c);
    set_dr7(0x400);
    guest_hook = NULL;
    set_dr0(NOWHERE);
    set_dr1(NOWHERE);
    set_dr2(NOWHERE);
    set_dr3(NOWHERE);
    record.keeps_rf = record.stops_stepping = record.once = false;
    armed = 0;
}

/* The debug exceptions were these, in this order. */
static __attribute__((unused)) void check_record(const char *name, const uint32_t *want, unsigned count)
{
    check_eq(name, record.count, count);
    for (unsigned i = 0; i < count; i++)
        check_eq(name, i < record.count ? record.at[i] : 0, want[i]);
}

#define WANT(...) (const uint32_t[]){ 0, ##__VA_ARGS__ } + 1, sizeof((uint32_t[]){ 0, ##__VA_ARGS__ }) / 4 - 1

#endif
