/* The clock against CLOCK_MONOTONIC: never backwards, and close. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "platform/hosted/hosted.h"

static struct vcpu *cpu;

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* How far our clock is ahead; the tightest of some readings, since we may be preempted. */
static int64_t ahead_ns(void)
{
    int64_t best = 0;
    uint64_t width = UINT64_MAX;

    for (int i = 0; i < 50; i++) {
        uint64_t before = monotonic_ns(), ours = platform_clock_ns(), after = monotonic_ns();
        if (after - before < width) {
            width = after - before;
            best = (int64_t)(ours - (before + width / 2));
        }
    }
    return best;
}

static void never_runs_backwards(void **state)
{
    uint64_t last = platform_clock_ns(), end = last + 300000000u;

    (void)state;
    while (last < end) {
        uint64_t now = platform_clock_ns();
        assert_true(now >= last);
        last = now;
        if (now % 64 == 0)
            platform_poll(cpu);
    }
}

static void follows_monotonic_time(void **state)
{
    uint64_t start = monotonic_ns();
    int64_t most = 0;

    (void)state;
    while (monotonic_ns() - start < 1500000000u) {
        struct timespec nap = { 0, 20000000 };
        nanosleep(&nap, NULL);
        platform_poll(cpu);
        int64_t ahead = llabs(ahead_ns());
        if (ahead > most)
            most = ahead;
    }
    print_message("largest distance to CLOCK_MONOTONIC: %lld ns\n", (long long)most);
    assert_true(most < 20000); /* of 1.5 s: 13 ppm; typically below 1 us */
}

static void stays_close_without_being_steered(void **state)
{
    uint64_t start = monotonic_ns();

    (void)state;
    while (monotonic_ns() - start < 1000000000u) {
    }
    assert_true(llabs(ahead_ns()) < 50000); /* 50 ppm */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_runs_backwards),
        cmocka_unit_test(follows_monotonic_time),
        cmocka_unit_test(stays_close_without_being_steered),
    };
    if (hosted_init() < 0)
        return 1;
    cpu = platform_reserve(sizeof *cpu);
    if (!cpu)
        return 1;
    hosted_attach(cpu, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
