/*
 * Where host events reach the monitor: at poll points and while the guest idles.
 *
 * Handlers set words; platform_poll() turns them into calls. platform_wait() blocks all
 * signals, looks at those words and sleeps in ppoll(), which lets signals in again
 * atomically: an event that comes after the look ends the sleep.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/hosted/hosted_internal.h"

#define LOOK_INTERVAL_NS 20000000ull /* for input that announces itself by no signal */

struct vcpu *hosted_vcpu;
volatile sig_atomic_t hosted_event_io, hosted_event_stop, hosted_event_cont;

static struct hosted_events events;
static uint64_t next_look_ns;
static bool stop_reported, user_asked;

int hosted_init(void)
{
    static bool done;
    int rc;

    if (done)
        return 0;
    hosted_clock_init();
    /* Sleeps end on time: the default slack of 50 us is a fifth of a short guest sleep. */
    prctl(PR_SET_TIMERSLACK, 1000ul);
    rc = hosted_signals_init();
    if (rc == 0)
        rc = hosted_timer_init();
    if (rc == 0)
        atexit(hosted_finish);
    done = rc == 0;
    return rc;
}

void hosted_attach(struct vcpu *cpu, uintptr_t exit_stub)
{
    hosted_exit_stub = cpu ? exit_stub : 0;
    hosted_vcpu = cpu;
}

void hosted_finish(void)
{
    hosted_park();
    hosted_chardev_flush();
    hosted_log_flush();
    hosted_terminal_restore();
    hosted_async_undo();
}

void hosted_set_events(const struct hosted_events *new_events)
{
    events = *new_events;
}

void hosted_request_stop(int signal_number)
{
    if (!signal_number)
        user_asked = true;
    else
        hosted_event_stop = signal_number;
    hosted_kick();
}

void hosted_input_ready(unsigned port)
{
    if (events.input)
        events.input(events.ctx, port);
}

void hosted_opened(unsigned port)
{
    if (events.opened)
        events.opened(events.ctx, port);
}

static void handle_stop(void)
{
    int sig = hosted_event_stop;

    if (sig && !stop_reported) {
        char line[80];
        int n = fmt_format(line, sizeof line, "ringdown: terminating on signal %d\n", sig);
        platform_log_write(line, (size_t)n);
        stop_reported = true;
    }
    if (events.stop)
        events.stop(events.ctx, sig);
}

void platform_poll(struct vcpu *cpu)
{
    (void)cpu;
    if (hosted_event_cont) {
        hosted_event_cont = 0;
        hosted_park();
        hosted_terminal_resume();
    }
    bool must_look = hosted_chardev_needs_look();
    if (hosted_event_io || (must_look && platform_clock_ns() >= next_look_ns)) {
        hosted_event_io = 0; /* first: what comes during the pump sets it again */
        hosted_chardev_pump();
        next_look_ns = platform_clock_ns() + LOOK_INTERVAL_NS;
    }
    hosted_chardev_flush();
    hosted_clock_steer();
    if (must_look)
        hosted_timer_arm(next_look_ns);
    if (hosted_event_stop || user_asked)
        handle_stop();
}

static struct timespec sleep_time(uint64_t deadline_ns)
{
    uint64_t now = platform_clock_ns();
    uint64_t ns = deadline_ns > now ? deadline_ns - now : 0;
    uint64_t most = hosted_chardev_needs_look() ? LOOK_INTERVAL_NS : 3600ull * 1000000000ull;

    if (ns > most)
        ns = most;
    return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
}

void platform_wait(struct vcpu *cpu, uint64_t deadline_ns)
{
    struct pollfd fds[HOSTED_POLL_MAX];
    sigset_t all, before, asleep;

    hosted_park();
    hosted_chardev_flush();
    hosted_log_flush();
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    if (!hosted_event_io && !hosted_event_stop && !hosted_event_cont && !user_asked) {
        struct timespec ts = sleep_time(deadline_ns);
        unsigned count = hosted_chardev_pollfds(fds);
        /* The timer may be armed for something that only matters while the guest runs: the
         * deadline here says when to wake up. */
        asleep = before;
        sigaddset(&asleep, SIGALRM);
        if (ppoll(fds, count, &ts, &asleep) > 0)
            hosted_event_io = 1;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    platform_poll(cpu);
}
