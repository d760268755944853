/*
 * The counters as a JSON object: one member a row of base/stats_list.h, and objects for
 * callouts by name, exceptions by vector and exits by reason.
 */
#include "cli/stats.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/types.h"
#include "cli/out_file.h"

static const char *const exception_names[32] = {
    "DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", NULL,
    "TS", "NP", "SS",  "GP", "PF", NULL, "MF", "AC", "MC", "XM",
};

static const char *const exit_names[EXIT_REASON_COUNT] = {
    [EXIT_RESUME] = "resume", [EXIT_DISPATCH] = "dispatch",
    [EXIT_FAULT] = "fault",   [EXIT_CHAIN] = "chain",
    [EXIT_LOOKUP] = "lookup", [EXIT_POLL] = "poll",
    [EXIT_SHADOW] = "shadow", [EXIT_HALT] = "halt",
    [EXIT_HOST] = "host",     [EXIT_UNSUPPORTED] = "unsupported",
    [EXIT_WATCHED] = "watched", [EXIT_STOP] = "stop",
};

static void put_rows(FILE *f, const struct stats *s)
{
    size_t count;
    const struct stat_info *rows = stats_rows(&count);

    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        memcpy(&value, (const uint8_t *)s + rows[i].offset, sizeof value);
        fprintf(f, "  \"%s\": %llu,\n", rows[i].name, (unsigned long long)value);
    }
}

/* One object of named counters; zero rows are left out. */
struct named {
    FILE *f;
    unsigned count;
};

static void named_open(struct named *n, FILE *f, const char *name)
{
    *n = (struct named){ f, 0 };
    fprintf(f, "  \"%s\": {", name);
}

static void named_put(struct named *n, const char *name, uint64_t value)
{
    if (value)
        fprintf(n->f, "%s\n    \"%s\": %llu", n->count++ ? "," : "", name, (unsigned long long)value);
}

static void named_close(struct named *n, bool last)
{
    fprintf(n->f, "%s}%s\n", n->count ? "\n  " : "", last ? "" : ",");
}

static void put_objects(FILE *f, const struct stats *s)
{
    struct named n;
    char number[16];

    named_open(&n, f, "callouts");
    for (unsigned i = 0; i < CALLOUT_COUNT; i++)
        named_put(&n, callout_name((enum callout_id)i), s->callout[i]);
    named_close(&n, false);
    named_open(&n, f, "exceptions");
    for (unsigned i = 0; i < ARRAY_LEN(s->exception); i++) {
        snprintf(number, sizeof number, "%u", i);
        named_put(&n, exception_names[i] ? exception_names[i] : number, s->exception[i]);
    }
    named_close(&n, false);
    named_open(&n, f, "exits");
    for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
        named_put(&n, exit_names[i], s->exit[i]);
    named_close(&n, true);
}

int stats_write(const char *path, const struct stats *stats, const char *cpu_model, uint64_t run_ns)
{
    struct out_file out;
    int rc = out_file_open(&out, path);

    if (rc < 0)
        return rc;
    FILE *f = fdopen(out.fd, "w");
    if (!f)
        return out_file_close(&out, -errno);
    fprintf(f, "{\n  \"program\": \"ringdown\",\n  \"cpu_model\": \"%s\",\n  \"run_ns\": %llu,\n", cpu_model,
            (unsigned long long)run_ns);
    put_rows(f, stats);
    put_objects(f, stats);
    fputs("}\n", f);
    if (fflush(f) != 0 || ferror(f))
        rc = errno ? -errno : -EIO;
    if (fclose(f) != 0 && rc == 0)
        rc = -errno;
    out.fd = -1; /* closed with f */
    return out_file_close(&out, rc);
}
