/*
 * Putting the guest's vector state away, and the memory helpers that the compiler
 * calls behind our back.
 *
 * Engine code runs while the guest's x87 and SSE registers are live. libc's memcpy
 * and memset use vector registers, so the program has its own, made of general
 * registers; on the hosted platform the definition here takes the place of libc's for the whole
 * program, shared libraries included. It lives with vcpu_fpu_park so that a program with the
 * one always gets the other.
 *
 * Reference: Intel SDM vol. 2, FXSAVE, FNINIT, LDMXCSR; vol. 1, ch. 10 (MXCSR).
 */
#include "base/cpu.h"
#include "base/string.h"
#include "platform/platform.h"

#define MXCSR_DEFAULT 0x1f80u /* all exceptions masked, round to nearest */

void vcpu_fpu_park(struct vcpu *cpu)
{
    static const uint32_t mxcsr = MXCSR_DEFAULT;

    if (!cpu->fpu_live)
        return;
    __asm__ volatile("fxsave64 %0\n\tfninit\n\tldmxcsr %1" : "=m"(cpu->fpu) : "m"(mxcsr) : "memory");
    cpu->fpu_live = 0;
}

/* Words at any alignment that may alias anything. */
typedef uint64_t word64 __attribute__((aligned(1), may_alias));
typedef uint32_t word32 __attribute__((aligned(1), may_alias));
typedef uint16_t word16 __attribute__((aligned(1), may_alias));

#define REP_FROM 192u /* bytes from which the string instruction's start-up pays */

/* Up to 16 bytes: everything is read before anything is written, so overlap is no matter. */
static void copy_small(uint8_t *to, const uint8_t *from, size_t len)
{
    if (len >= 8) {
        uint64_t a = *(const word64 *)from, b = *(const word64 *)(from + len - 8);
        *(word64 *)to = a;
        *(word64 *)(to + len - 8) = b;
    } else if (len >= 4) {
        uint32_t a = *(const word32 *)from, b = *(const word32 *)(from + len - 4);
        *(word32 *)to = a;
        *(word32 *)(to + len - 4) = b;
    } else if (len >= 2) {
        uint16_t a = *(const word16 *)from, b = *(const word16 *)(from + len - 2);
        *(word16 *)to = a;
        *(word16 *)(to + len - 2) = b;
    } else if (len) {
        *to = *from;
    }
}

/* Ascending; right for overlap too when to < from, for the tail is read first. */
static void copy_up(uint8_t *to, const uint8_t *from, size_t len)
{
    uint64_t tail = *(const word64 *)(from + len - 8);
    uint8_t *end = to + len - 8;

    for (; to < end; to += 8, from += 8)
        *(word64 *)to = *(const word64 *)from;
    *(word64 *)end = tail;
}

static void copy_down(uint8_t *to, const uint8_t *from, size_t len)
{
    uint64_t head = *(const word64 *)from;
    uint8_t *start = to;

    while (len > 8) {
        len -= 8;
        *(word64 *)(to + len) = *(const word64 *)(from + len);
    }
    *(word64 *)start = head;
}

void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
    void *result = to;

    if (len <= 16)
        copy_small(to, from, len);
    else if (len < REP_FROM)
        copy_up(to, from, len);
    else
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
    return result;
}

void *memmove(void *to, const void *from, size_t len)
{
    uintptr_t distance = (uintptr_t)to - (uintptr_t)from;

    if (len <= 16)
        copy_small(to, from, len);
    else if (distance >= len && (uintptr_t)from - (uintptr_t)to >= len)
        memcpy(to, from, len);
    else if (distance >= len)
        copy_up(to, from, len);
    else
        copy_down(to, from, len);
    return to;
}

void *memset(void *to, int byte, size_t len)
{
    void *p = to;

    if (len < 64) {
        uint8_t *b = to;
        uint64_t pattern = (uint8_t)byte * 0x0101010101010101ull;
        for (; len >= 8; len -= 8, b += 8)
            *(word64 *)b = pattern;
        for (; len; len--)
            *b++ = (uint8_t)byte;
        return to;
    }
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(len) : "a"(byte) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *p = a, *q = b;

    for (; len >= 8; len -= 8, p += 8, q += 8)
        if (*(const word64 *)p != *(const word64 *)q)
            break;
    for (; len; len--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}
