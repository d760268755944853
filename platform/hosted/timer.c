/*
 * One POSIX timer that clears vcpu->run, so that translated code leaves at its next
 * poll point.
 *
 * Arming is lazy: while an armed deadline is not later than the wanted one, nothing is
 * done, for waking up early is harmless: the monitor finds nothing due and arms again.
 * That saves the system call in the common case of a guest that moves its next tick
 * outwards. The handler forgets the armed deadline, so that the arming that follows a
 * wake-up always reaches the kernel.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

#define NOT_ARMED UINT64_MAX
/* The two clocks agree to less than this, and Linux never fires early. */
#define SLACK_NS 2000u
/* Deadlines come through two readings of the clock: the same one twice differs a little. */
#define SAME_NS 1000u

static timer_t timer_id;
static bool timer_made;
static volatile uint64_t armed_ns = NOT_ARMED;

int hosted_timer_init(void)
{
    struct sigevent event;

    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGALRM;
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer_id) < 0)
        return hosted_fail(-errno, "cannot make a timer: %s", strerror(errno));
    timer_made = true;
    return 0;
}

void hosted_timer_fired(void)
{
    armed_ns = NOT_ARMED;
    hosted_kick();
}

void hosted_timer_arm(uint64_t deadline_ns)
{
    if (!timer_made || (armed_ns != NOT_ARMED && deadline_ns + SAME_NS >= armed_ns) ||
        deadline_ns == NOT_ARMED)
        return;
    if (deadline_ns <= platform_clock_ns()) {
        hosted_kick();
        return;
    }
    hosted_park();
    uint64_t at = hosted_clock_to_monotonic(deadline_ns) + SLACK_NS;
    struct itimerspec spec = {
        .it_value = { .tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u) },
    };
    armed_ns = deadline_ns; /* before the call: the handler may run inside it */
    timer_settime(timer_id, TIMER_ABSTIME, &spec, NULL);
}

void platform_timer_arm(struct vcpu *cpu, uint64_t deadline_ns)
{
    /* A test that runs a vCPU without the command around it still gets its timer. */
    if (!timer_made && hosted_init() == 0 && !hosted_vcpu)
        hosted_attach(cpu, 0);
    hosted_timer_arm(deadline_ns);
}
