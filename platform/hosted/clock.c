/*
 * The clock: CLOCK_MONOTONIC, read without a system call or a vector register.
 *
 * Where the TSC is invariant and the host's kernel uses it for its own clock, time is
 * a line: ns = base_ns + (tsc - base_tsc) * scale. The scale comes from two readings of
 * CLOCK_MONOTONIC a few milliseconds apart; hosted_clock_steer() compares again with
 * growing distance up to a second, takes the rate from the last interval (so that
 * the host's own NTP adjustments are followed) and bends the line so that what is left
 * of the error vanishes within the next second. The line is bent at the present point,
 * never broken, so time neither jumps nor runs backwards. Elsewhere, and in the first
 * milliseconds, clock_gettime() is asked.
 *
 * A jump (a host that slept) is not chased but kept as an offset to CLOCK_MONOTONIC.
 *
 * Reference: Intel SDM vol. 3B, "Time-Stamp Counter", invariant TSC (CPUID 80000007h).
 */
#include <cpuid.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

#define NS_PER_SECOND     1000000000ull
#define FIRST_INTERVAL_NS 3000000ull
#define JUMP_NS           100000000ll
#define MAX_BEND_PPM      2000

struct reading {
    uint64_t tsc, ns;
};

static struct {
    bool tsc_ok;
    uint64_t scale;      /* ns per tick, 32 fraction bits; 0: not calibrated yet  */
    struct reading base; /* the line's start                                      */
    struct reading last; /* last comparison with CLOCK_MONOTONIC                  */
    uint64_t interval_ns, next_ns;
    int64_t offset_ns; /* our time minus CLOCK_MONOTONIC, jumps of the host only */
    int64_t error_ns;  /* CLOCK_MONOTONIC + offset - ours when last compared    */
} clk;

static uint64_t read_tsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

/* Both clocks at one moment: the tightest of a few tries. */
static struct reading read_both(void)
{
    struct reading best = { 0, 0 };
    uint64_t width = UINT64_MAX;

    for (int i = 0; i < 5; i++) {
        uint64_t before = read_tsc(), ns = monotonic_ns(), after = read_tsc();
        if (after - before < width) {
            width = after - before;
            best = (struct reading){ before + width / 2, ns };
        }
    }
    return best;
}

static uint64_t line_at(uint64_t tsc)
{
    int64_t ticks = (int64_t)(tsc - clk.base.tsc);

    /* Another core's TSC may be a few ticks behind the one that the line starts from. */
    if (ticks < 0)
        ticks = 0;
    return clk.base.ns + (uint64_t)(((unsigned __int128)(uint64_t)ticks * clk.scale) >> 32);
}

/* The rate between two readings; 0 when they are unusable. */
static uint64_t rate_between(struct reading from, struct reading to)
{
    if (to.tsc <= from.tsc || to.ns <= from.ns)
        return 0;
    return (uint64_t)(((unsigned __int128)(to.ns - from.ns) << 32) / (to.tsc - from.tsc));
}

/* Does Linux itself trust the TSC? A kernel that found it unstable has left it. */
static bool kernel_uses_tsc(void)
{
    char name[32] = "";
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return true; /* not shown to us: the CPUID bit decides */
    ssize_t n = read(fd, name, sizeof name - 1);
    close(fd);
    if (n <= 0)
        return true;
    return !strncmp(name, "tsc", 3) || !strncmp(name, "kvm-clock", 9) || !strncmp(name, "hyperv", 6);
}

void hosted_clock_init(void)
{
    unsigned a, b, c, d = 0;

    clk.tsc_ok = __get_cpuid(0x80000007u, &a, &b, &c, &d) && ((d >> 8) & 1u) && kernel_uses_tsc();
    clk.scale = 0;
    clk.interval_ns = FIRST_INTERVAL_NS;
    clk.last = read_both();
    clk.next_ns = clk.last.ns + clk.interval_ns;
}

static void calibrate(struct reading now)
{
    uint64_t rate = rate_between(clk.last, now);

    if (!rate)
        return;
    clk.scale = rate;
    clk.base = clk.last = now;
    clk.next_ns = now.ns + clk.interval_ns;
}

uint64_t platform_clock_ns(void)
{
    if (__builtin_expect(clk.scale != 0, 1))
        return line_at(read_tsc());

    hosted_park();
    uint64_t ns = monotonic_ns();
    if (clk.tsc_ok && ns >= clk.next_ns) {
        calibrate(read_both());
        if (clk.scale) {
            uint64_t line = line_at(read_tsc());
            return line > ns ? line : ns;
        }
    }
    return ns;
}

static int64_t clamp(int64_t v, int64_t limit)
{
    return v > limit ? limit : v < -limit ? -limit : v;
}

void hosted_clock_steer(void)
{
    if (!clk.scale)
        return;
    uint64_t ours = line_at(read_tsc());
    if (ours < clk.next_ns)
        return;

    hosted_park();
    struct reading now = read_both();
    uint64_t rate = rate_between(clk.last, now);
    ours = line_at(now.tsc);
    int64_t error = (int64_t)(now.ns - ours) + clk.offset_ns;
    if (error > JUMP_NS || error < -JUMP_NS) {
        clk.offset_ns -= error;
        error = 0;
        rate = clk.scale; /* the interval says nothing */
    }
    if (rate) {
        /* error nanoseconds over the next second, as a change of the rate */
        int64_t most = (int64_t)(rate / 1000000u) * MAX_BEND_PPM;
        int64_t bend = clamp(error, 1000000) * (int64_t)(rate >> 10) / (int64_t)(NS_PER_SECOND >> 10);
        clk.base = (struct reading){ now.tsc, ours };
        clk.scale = (uint64_t)((int64_t)rate + clamp(bend, most));
    }
    clk.error_ns = error;
    clk.last = now;
    if (clk.interval_ns < NS_PER_SECOND)
        clk.interval_ns *= 2;
    clk.next_ns = ours + clk.interval_ns;
}

uint64_t hosted_clock_to_monotonic(uint64_t ns)
{
    return (uint64_t)((int64_t)ns - clk.offset_ns + clk.error_ns);
}
