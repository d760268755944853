/* Times a workload from inside: the first repetition with all it costs to begin, then the steady state.
 *
 *     PROGRAM [WARM_MS [MEASURE_MS]]
 *
 * Repeats the work for WARM_MS (300), says `begin NAME`, repeats it for MEASURE_MS (300) and at least 5 times, says
 * `end NAME`, and then
 *
 *     row NAME REPETITIONS CHECKSUM CPU MEDIAN FIRST
 *
 * CPU is the processor time of a repetition, the mean over those measured; MEDIAN is the elapsed time of one, FIRST that of
 * the very first; all in nanoseconds. A repetition that computes something wrong ends the program with a message and status
 * 1: a figure of wrong work is none. */
#include "harness.h"

#include "../lib/mark.h"

#include <stdlib.h>

enum { MAX_SAMPLES = 4096, MIN_SAMPLES = 5 };

static uint64_t timed_run(void)
{
    uint64_t begin = now_ns();
    uint32_t found = workload_run();
    uint64_t end = now_ns();
    if (found != workload_expected) {
        printf("FAIL %s: 0x%08x instead of 0x%08x\n", workload_name, (unsigned)found, (unsigned)workload_expected);
        exit(1);
    }
    return end - begin;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static uint64_t samples[MAX_SAMPLES];
    uint64_t warm_ns = (argc > 1 ? strtoul(argv[1], NULL, 10) : 300) * 1000000ull;
    uint64_t measure_ns = (argc > 2 ? strtoul(argv[2], NULL, 10) : 300) * 1000000ull;
    unsigned n = 0;

    workload_setup();
    uint64_t start = now_ns(), first = timed_run();
    while (now_ns() - start < warm_ns)
        timed_run();
    mark("begin", workload_name);
    uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    start = now_ns();
    while (n < MAX_SAMPLES && (n < MIN_SAMPLES || now_ns() - start < measure_ns))
        samples[n++] = timed_run();
    cpu = (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / n;
    mark("end", workload_name);
    qsort(samples, n, sizeof samples[0], by_size);
    printf("row %s %u 0x%08x %llu %llu %llu\n", workload_name, n, (unsigned)workload_expected, (unsigned long long)cpu,
           (unsigned long long)samples[n / 2], (unsigned long long)first);
    return 0;
}
