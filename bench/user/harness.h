/* A user workload: one file, one kind of work, the same work at every call. */
#ifndef BENCH_USER_HARNESS_H
#define BENCH_USER_HARNESS_H

#include <stdint.h>

extern const char workload_name[];

/** What every call of workload_run must return; computed by other means, as each file says. */
extern const uint32_t workload_expected;

/** Fill tables and buffers. Runs once. */
void workload_setup(void);

/** Do the work once: a few milliseconds of a native processor. @return a checksum of all that it computed. */
uint32_t workload_run(void);

/** The next of a sequence of 32-bit numbers, full period (Numerical Recipes' constants); take the high bits. */
static inline uint32_t next_random(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

#endif
