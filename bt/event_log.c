/*
 * The coherency log's events (-accel bt,coherency-log=FILE): what was written to code, by whom, and what
 * became of the CCFs made from it.
 *
 * An event is noted where it happens, often in a light exit with the guest's vector state live; so it is put into a
 * buffer here, and the monitor hands full buffers on when it attends to its work. An event that finds the buffer
 * full is lost, and counted. What became of CCFs is the difference that an event made to the counters, so that
 * a policy need not know of the log.
 */
#include "bt/bt_internal.h"

struct event_tally event_tally(const struct bt *bt)
{
    const struct stats *s = &bt->cpu->stats;

    return (struct event_tally){ .dropped = s->inval_write, .patched = s->coherency_patched,
                                 .parked = s->coherency_parked, .unchanged = s->coherency_unchanged };
}

/* The instruction that runs now. Light exits do not store it: where they resume tells. */
static uint32_t writer_eip(const struct bt *bt)
{
    const uint8_t *rip = (const uint8_t *)(uintptr_t)bt->cpu->resume_rip - 1;
    struct ccf *ccf = bt->is_inside ? tcache_find_rip(bt->cpu->tc, rip) : NULL;

    return ccf ? ccf->key.eip + ccf->insns[ccf_insn_at(ccf, rip)].guest_ofs : bt->cpu->eip;
}

static uint16_t saturated(uint64_t n)
{
    return n > UINT16_MAX ? UINT16_MAX : (uint16_t)n;
}

static void put(struct bt *bt, enum coherency_cause cause, gpa_t pa, uint32_t len, const struct event_tally *before)
{
    struct coherency_log *log = bt->ops.coherency_log;
    struct event_tally now = event_tally(bt);

    if (log->count == COHERENCY_EVENTS) {
        log->lost++;
        return;
    }
    log->event[log->count++] = (struct coherency_event){
        .ns = log->now_ns(log->ctx),
        .pa = pa.v,
        .eip = writer_eip(bt),
        .len = saturated(len),
        .cause = (uint8_t)cause,
        .policy = (uint8_t)policy_of(bt, gpa_page(pa)),
        .dropped = saturated(now.dropped - before->dropped),
        .patched = saturated(now.patched - before->patched),
        .parked = saturated(now.parked - before->parked),
        .unchanged = saturated(now.unchanged - before->unchanged),
    };
    if (log->count == COHERENCY_EVENTS / 2)
        bt->cpu->run = 0; /* somebody should empty it */
}

void event_written(struct bt *bt, gpa_t pa, uint32_t len, const struct event_tally *before)
{
    if (bt->ops.coherency_log)
        put(bt, bt->ops.coherency_log->writer, pa, len, before);
}

void event_note(struct bt *bt, enum coherency_cause cause, gpa_t pa, uint32_t len, const struct event_tally *before)
{
    if (bt->ops.coherency_log)
        put(bt, cause, pa, len, before);
}
