/*
 * VM time and the timers on it.
 *
 * There is one clock. It is the configured source (host monotonic time, or a count
 * of guest instructions) minus an offset, so it starts at 0 when the machine is made
 * and can be halted: while it is, the offset is unknown and a saved value stands in.
 * Every device derives its counters from machine_now_ns() when asked, so none drifts
 * against another. Timers only say when a line must change.
 *
 * Invariant: the list is sorted by deadline, and holds exactly the armed timers.
 */
#include "monitor/machine_internal.h"
#include "platform/platform.h"

static uint64_t source_now(const struct machine *m)
{
    const struct vm_clock_source *source = &m->config.clock;
    return source->now_ns ? source->now_ns(source->ctx) : platform_clock_ns();
}

uint64_t machine_now_ns(const struct machine *m)
{
    return m->clock_is_stopped ? m->clock_stopped_at_ns : source_now(m) - m->clock_offset_ns;
}

void machine_clock_stop(struct machine *m)
{
    if (m->clock_is_stopped)
        return;
    m->clock_stopped_at_ns = machine_now_ns(m);
    m->clock_is_stopped = true;
}

void machine_clock_continue(struct machine *m)
{
    if (!m->clock_is_stopped)
        return;
    m->clock_offset_ns = source_now(m) - m->clock_stopped_at_ns;
    m->clock_is_stopped = false;
}

void vm_timer_init(struct vm_timer *t, void (*fn)(void *), void *ctx)
{
    *t = (struct vm_timer){ .fn = fn, .ctx = ctx };
}

uint64_t machine_next_deadline(const struct machine *m)
{
    return m->timers ? m->timers->deadline_ns : UINT64_MAX;
}

static void unlink_timer(struct machine *m, struct vm_timer *t)
{
    for (struct vm_timer **p = &m->timers; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    t->armed = false;
    t->next = NULL;
}

void machine_timer_set(struct machine *m, struct vm_timer *t, uint64_t deadline_ns)
{
    struct vm_timer **p = &m->timers;

    if (t->armed)
        unlink_timer(m, t);
    while (*p && (*p)->deadline_ns <= deadline_ns)
        p = &(*p)->next;
    t->deadline_ns = deadline_ns;
    t->armed = true;
    t->next = *p;
    *p = t;
}

void machine_timer_cancel(struct machine *m, struct vm_timer *t)
{
    if (t->armed)
        unlink_timer(m, t);
}

void machine_run_timers(struct machine *m)
{
    uint64_t now = machine_now_ns(m);

    while (m->timers && m->timers->deadline_ns <= now) {
        struct vm_timer *t = m->timers;
        unlink_timer(m, t);
        t->fn(t->ctx);
    }
}
