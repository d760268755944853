/* The timer that clears vcpu->run, sleeping, and requests to stop. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "platform/hosted/hosted.h"

#define MS 1000000u

static struct vcpu *cpu;
static unsigned stops;
static int stop_signal;

static void on_stop(void *ctx, int sig)
{
    (void)ctx;
    stops++;
    stop_signal = sig;
}

static bool wait_for_kick(uint64_t deadline_ns)
{
    while (__atomic_load_n(&cpu->run, __ATOMIC_RELAXED))
        if (platform_clock_ns() > deadline_ns)
            return false;
    return true;
}

static void timer_clears_run_at_its_deadline(void **state)
{
    uint64_t start = platform_clock_ns(), deadline = start + 5 * MS;

    (void)state;
    cpu->run = 1;
    platform_timer_arm(cpu, deadline);
    assert_int_equal(cpu->run, 1);
    assert_true(wait_for_kick(start + 2000 * MS));
    assert_true(platform_clock_ns() >= deadline);
}

static void an_earlier_deadline_wins(void **state)
{
    uint64_t start = platform_clock_ns();

    (void)state;
    cpu->run = 1;
    platform_timer_arm(cpu, start + 1000 * MS);
    platform_timer_arm(cpu, start + 4 * MS);
    platform_timer_arm(cpu, start + 900 * MS); /* later than what is armed: nothing to do */
    assert_true(wait_for_kick(start + 700 * MS));
}

static void never_disturbs_nobody(void **state)
{
    uint64_t start = platform_clock_ns();

    (void)state;
    cpu->run = 1;
    platform_timer_arm(cpu, UINT64_MAX);
    assert_false(wait_for_kick(start + 20 * MS));
}

static void a_deadline_in_the_past_clears_run_at_once(void **state)
{
    (void)state;
    cpu->run = 1;
    platform_timer_arm(cpu, platform_clock_ns() - 1);
    assert_int_equal(cpu->run, 0);
}

static void the_timer_can_be_armed_again_and_again(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        uint64_t start = platform_clock_ns();
        cpu->run = 1;
        platform_timer_arm(cpu, start + MS / 2);
        assert_true(wait_for_kick(start + 1000 * MS));
    }
}

static void wait_sleeps_until_the_deadline(void **state)
{
    uint64_t start = platform_clock_ns();

    (void)state;
    platform_wait(cpu, start + 30 * MS);
    assert_true(platform_clock_ns() - start >= 29 * MS);
    platform_wait(cpu, start); /* past: returns at once */
    assert_true(platform_clock_ns() - start < 2000 * MS);
}

/* In a child for each delay, since a process that is asked to stop three times obeys at once.
 * The signal comes before, while and after it falls asleep. */
static void a_stop_request_ends_any_sleep(void **state)
{
    (void)state;
    for (unsigned delay_us = 0; delay_us < 3000; delay_us += 250) {
        int status;
        pid_t sleeper = fork();
        if (sleeper == 0) {
            uint64_t start = platform_clock_ns();
            while (!stops && platform_clock_ns() - start < 5000ull * MS)
                platform_wait(cpu, start + 10000ull * MS);
            _exit(stop_signal == SIGHUP && platform_clock_ns() - start < 5000ull * MS ? 0 : 1);
        }
        usleep(delay_us);
        kill(sleeper, SIGHUP);
        assert_int_equal(waitpid(sleeper, &status, 0), sleeper);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timer_clears_run_at_its_deadline),
        cmocka_unit_test(an_earlier_deadline_wins),
        cmocka_unit_test(never_disturbs_nobody),
        cmocka_unit_test(a_deadline_in_the_past_clears_run_at_once),
        cmocka_unit_test(the_timer_can_be_armed_again_and_again),
        cmocka_unit_test(wait_sleeps_until_the_deadline),
        cmocka_unit_test(a_stop_request_ends_any_sleep),
    };
    if (hosted_init() < 0)
        return 1;
    cpu = platform_reserve(sizeof *cpu);
    if (!cpu)
        return 1;
    hosted_attach(cpu, 0);
    hosted_set_events(&(struct hosted_events){ .stop = on_stop });
    return cmocka_run_group_tests(tests, NULL, NULL);
}
