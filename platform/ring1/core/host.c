/*
 * platform.h's time, events and log, in ring 1.
 *
 * Time is a line over the TSC, whose rate the core has measured against the PIT. A processor whose TSC changes
 * its rate makes it bend; docs/ring1.md says so.
 *
 * As on the hosted platform no wake-up is lost: interrupt handlers set core_events before they clear
 * vcpu->run, the dispatcher sets run before it looks, and NUC_WAIT looks again with interrupts off.
 */
#include <stdarg.h>

#include "base/cpu.h"
#include "base/log.h"
#include "platform/ring1/core/core.h"
#include "platform/ring1/core/machine.h"
#include "platform/ring1/core/nucleus.h"
#include "platform/ring1/core/ring1.h"

#define ASSERT_STATUS 1
#define NOT_ARMED UINT64_MAX

static uint64_t armed_ns = NOT_ARMED;
static uint32_t armed_count; /* timer interrupts when that was armed */
static struct {
    void (*fn)(void *ctx);
    void *ctx;
} input;

/* ---- log and the end ------------------------------------------------------------------------------ */

void platform_log_write(const char *text, size_t len)
{
    nucleus(NUC_LOG, (uint64_t)(uintptr_t)text, len, 0, 0);
}

void ring1_print(const char *fmt, ...)
{
    char line[1536];
    va_list ap;

    va_start(ap, fmt);
    int n = fmt_vformat(line, sizeof line, fmt, ap);
    va_end(ap);
    platform_log_write(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

_Noreturn void ring1_exit(int status)
{
    for (;;)
        nucleus(NUC_EXIT, (uint64_t)status, 0, 0, 0);
}

_Noreturn void platform_assert_failed(const char *expr, const char *file, int line)
{
    const struct vcpu *cpu = core_world.cpu;

    ring1_print("ringdown-metal: assertion failed: %s (%s:%d)\n", expr, file, line);
    if (cpu)
        ring1_print("guest: EIP=0x%08x ESP=0x%08x CPL=%u mode=0x%05x\n", cpu->eip, cpu->gpr[ESP], cpu->cpl, cpu->mode);
    ring1_exit(ASSERT_STATUS);
}

/* ---- time -------------------------------------------------------------------------------------------- */

uint64_t platform_clock_ns(void)
{
    return (uint64_t)(((unsigned __int128)read_tsc() * core_tsc_scale) >> 32);
}

/* While an armed interrupt is still to come, and not later than wanted, nothing is done: waking early is
 * harmless. The timer's range is 55 ms; whoever waits longer is woken and arms again. */
void platform_timer_arm(struct vcpu *cpu, uint64_t deadline_ns)
{
    bool is_armed = armed_ns != NOT_ARMED && armed_count == core_events.timer;

    if (deadline_ns == UINT64_MAX || (is_armed && deadline_ns >= armed_ns))
        return;
    uint64_t now = platform_clock_ns();
    if (deadline_ns <= now) {
        __atomic_store_n(&cpu->run, 0, __ATOMIC_RELAXED);
        return;
    }
    armed_ns = deadline_ns;
    armed_count = core_events.timer;
    nucleus(NUC_TIMER, deadline_ns - now, 0, 0, 0);
}

static uint8_t cmos(unsigned reg)
{
    return (uint8_t)nucleus(NUC_CMOS, reg, 0, 0, 0);
}

#define CMOS_A_UPDATING 0x80u
#define CMOS_B_BINARY   0x04u
#define CMOS_B_24_HOURS 0x02u
#define CMOS_PM         0x80u

static unsigned number(unsigned raw, bool is_binary)
{
    return is_binary ? raw : (raw >> 4) * 10 + (raw & 15);
}

/* Days from 1970-01-01 to a date of the Gregorian calendar: years begin in March, so that the leap day is last. */
static int64_t days_to(int64_t year, unsigned month, unsigned day)
{
    unsigned from_march = (month + 9) % 12;
    int64_t y = year - (month <= 2);

    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * from_march + 2) / 5 + day - 1 - 719468;
}

/* Ref: Motorola MC146818 datasheet, registers A, B and the time bytes. */
int64_t ring1_epoch(void)
{
    static const uint8_t regs[] = { 0, 2, 4, 7, 8, 9 }; /* s, min, h, day, month, year */
    unsigned raw[6], v[6];

    for (unsigned tries = 0; (cmos(10) & CMOS_A_UPDATING) && tries < 100000; tries++)
        ;
    for (unsigned i = 0; i < 6; i++)
        raw[i] = cmos(regs[i]);
    uint8_t mode = cmos(11);
    bool is_pm = !(mode & CMOS_B_24_HOURS) && (raw[2] & CMOS_PM);
    if (!(mode & CMOS_B_24_HOURS))
        raw[2] &= ~CMOS_PM;
    for (unsigned i = 0; i < 6; i++)
        v[i] = number(raw[i], mode & CMOS_B_BINARY);
    if (!(mode & CMOS_B_24_HOURS))
        v[2] = v[2] % 12 + (is_pm ? 12 : 0);
    int64_t days = days_to(v[5] + (v[5] < 70 ? 2000 : 1900), v[4], v[3]);
    return ((days * 24 + v[2]) * 60 + v[1]) * 60 + v[0];
}

/* ---- events -------------------------------------------------------------------------------------------- */

void platform_poll(struct vcpu *cpu)
{
    (void)cpu;
    core_events.any = false; /* first: what comes from here on sets it again */
    if (core_events.in_head != core_events.in_tail && input.fn)
        input.fn(input.ctx);
}

void platform_wait(struct vcpu *cpu, uint64_t deadline_ns)
{
    uint64_t now = platform_clock_ns();

    vcpu_fpu_park(cpu);
    if (deadline_ns > now) {
        nucleus(NUC_WAIT, deadline_ns - now, 0, 0, 0);
        armed_ns = NOT_ARMED; /* the timer has been set to something else */
    }
    platform_poll(cpu);
}

void ring1_on_input(void (*fn)(void *ctx), void *ctx)
{
    input.fn = fn;
    input.ctx = ctx;
}

void ring1_serial_write(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    nucleus(NUC_SERIAL, (uint64_t)(uintptr_t)data, len, 0, 0);
}

size_t ring1_serial_read(void *ctx, uint8_t *data, size_t len)
{
    size_t n = 0;

    (void)ctx;
    while (n < len && core_events.in_tail != core_events.in_head)
        data[n++] = core_events.in[core_events.in_tail++ % SERIAL_IN_BYTES];
    return n;
}

/* ---- the processor ----------------------------------------------------------------------------------------- */

void ring1_attach(struct vcpu *cpu, uint64_t exit_stub)
{
    core_world.exit_stub = cpu ? exit_stub : 0;
    core_world.cpu = cpu;
}

void ring1_features(struct host_features *out, bool baseline)
{
    uint32_t leaf[4];

    *out = (struct host_features){ .linear_window = true, .direct = &ring1_direct };
    if (baseline)
        return;
    read_cpuid(0, 0, leaf);
    if (leaf[0] >= 7) {
        read_cpuid(7, 0, leaf);
        out->bmi2 = (leaf[1] >> 8) & 1u;
        out->erms = (leaf[1] >> 9) & 1u;
        out->fsgsbase = leaf[1] & 1u;
    }
    read_cpuid(0x80000000u, 0, leaf);
    if (leaf[0] >= 0x80000001u) {
        read_cpuid(0x80000001u, 0, leaf);
        out->lahf64 = leaf[2] & 1u;
    }
}
