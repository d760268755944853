/* For programs that measure inside a guest: clocks, and lines that let the host measure with them.
 *
 * The guest's clock goes on while its monitor waits for a processor that others use. The processor time that the
 * monitor's process took does not, and only the host knows it. So a program says `begin NAME` and `end NAME` around
 * what it measures, and the host reads that clock when the line arrives. The program sleeps after each line: a guest
 * that sleeps takes no processor time, so the host may be late. */
#ifndef BENCH_LIB_MARK_H
#define BENCH_LIB_MARK_H

#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { MARK_SLEEP_NS = 30000000 };

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static inline void mark(const char *word, const char *name)
{
    printf("%s %s\n", word, name);
    fflush(stdout);
    nanosleep(&(struct timespec){ .tv_nsec = MARK_SLEEP_NS }, NULL);
}

#endif
