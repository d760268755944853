/*
 * A line of text for each event of code that changes, between a line that says what this is and one that
 * says how it ended. Comma separated, so that awk, spreadsheets and bench/coherency --view can read it.
 *
 * The file is bounded: after so many events the rest is counted. Times of a machine that was reset go on
 * where those of the one before it ended.
 */
#include "cli/coherency_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/out_file.h"

struct coherency_log_file {
    struct out_file out;
    FILE *file;
    uint64_t most, events, lost; /* allowed; that happened; of those, the ones that the engine had no room for */
    uint64_t base_ns, last_ns;   /* of the machines before; of the last event */
};

static const char *const causes[CAUSE_COUNT] = {
    [CAUSE_STORE] = "store", [CAUSE_DEVICE] = "device", [CAUSE_STALE] = "stale",
    [CAUSE_MOVED] = "moved", [CAUSE_POLICY] = "policy",
};

/* By either enumeration, which are alike. */
static const char *const policies[] = {
    [COHERENCY_TRACE] = "trace", [COHERENCY_CHECK] = "check", [COHERENCY_PATCH] = "patch",
    [COHERENCY_RETRANSLATE] = "retranslate", [COHERENCY_ADAPTIVE] = "adaptive",
};
_Static_assert((int)COHERENCY_TRACE == ACCEL_COHERENCY_TRACE && (int)COHERENCY_CHECK == ACCEL_COHERENCY_CHECK &&
               (int)COHERENCY_PATCH == ACCEL_COHERENCY_PATCH && (int)COHERENCY_RETRANSLATE == ACCEL_COHERENCY_RETRANSLATE && (int)COHERENCY_ADAPTIVE == ACCEL_COHERENCY_ADAPTIVE,
               "the options' names are the translator's");

struct coherency_log_file *coherency_log_new(const char *path, uint64_t most, enum accel_coherency policy,
                                             bool clock_insn, int *rc)
{
    struct coherency_log_file *log = calloc(1, sizeof *log);

    *rc = -ENOMEM;
    if (!log)
        return NULL;
    log->most = most;
    *rc = out_file_open(&log->out, path);
    if (*rc < 0)
        goto out_free;
    log->file = fdopen(log->out.fd, "w");
    if (!log->file) {
        *rc = out_file_close(&log->out, -errno);
        goto out_free;
    }
    fprintf(log->file, "# ringdown coherency-log 1 policy=%s clock=%s\n", policies[policy], clock_insn ? "insn" : "host");
    fputs("ns,pa,len,eip,cause,policy,dropped,patched,parked,unchanged\n", log->file);
    *rc = 0;
    return log;

out_free:
    free(log);
    return NULL;
}

int coherency_log_close(struct coherency_log_file *log)
{
    int rc = 0;

    if (!log)
        return 0;
    fprintf(log->file, "# end events=%" PRIu64 " written=%" PRIu64 " lost=%" PRIu64 "\n", log->events,
            log->events - log->lost < log->most ? log->events - log->lost : log->most, log->lost);
    if (fflush(log->file) != 0 || ferror(log->file))
        rc = errno ? -errno : -EIO;
    if (fclose(log->file) != 0 && rc == 0)
        rc = -errno;
    log->out.fd = -1; /* closed with the stream */
    rc = out_file_close(&log->out, rc);
    free(log);
    return rc;
}

static void put_event(struct coherency_log_file *log, const struct coherency_event *e)
{
    log->last_ns = log->base_ns + e->ns;
    if (log->events - log->lost < log->most)
        fprintf(log->file, "%" PRIu64 ",0x%08" PRIx64 ",%u,0x%08" PRIx32 ",%s,%s,%u,%u,%u,%u\n", log->last_ns, e->pa,
                e->len, e->eip, causes[e->cause], policies[e->policy], e->dropped, e->patched, e->parked, e->unchanged);
    log->events++;
}

void coherency_log_events(void *ctx, struct vcpu *cpu, const struct coherency_event *events, uint32_t count,
                          uint64_t lost)
{
    struct coherency_log_file *log = ctx;

    vcpu_fpu_park(cpu);
    for (uint32_t i = 0; i < count; i++)
        put_event(log, &events[i]);
    log->events += lost;
    log->lost += lost;
}

void coherency_log_power_off(struct coherency_log_file *log)
{
    if (log)
        log->base_ns = log->last_ns;
}
