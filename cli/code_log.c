/*
 * Translations as they are made: to the log (-d in_asm, out_asm), and as symbols for perf.
 *
 * The translator reports each CCF to one hook, whose context is a struct code_log. The
 * guest's vector state is parked then, so that anything may be called from here.
 *
 * perf reads /tmp/perf-PID.map when it reports: lines of start, size and name, in
 * hexadecimal without 0x (the kernel's tools/perf/Documentation/jit-interface.txt). A later
 * line for the same address counts, which is what eviction needs.
 */
#include "cli/code_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/ccf_listing.h"
#include "platform/platform.h"

struct code_log {
    struct ccf_listing *listing; /* NULL: not asked for */
    FILE *perf_map;              /* NULL: not asked for */
};

struct code_log *code_log_new(void)
{
    return calloc(1, sizeof(struct code_log));
}

void code_log_free(struct code_log *l)
{
    if (!l)
        return;
    ccf_listing_free(l->listing);
    if (l->perf_map)
        fclose(l->perf_map);
    free(l);
}

bool code_log_listings(struct code_log *l)
{
    l->listing = ccf_listing_new();
    return l->listing;
}

int code_log_perf_map(struct code_log *l)
{
    char path[64];

    snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
    l->perf_map = fopen(path, "we");
    return l->perf_map ? 0 : -errno;
}

/* ---- the hook --------------------------------------------------------------------------------- */

static void put_line(void *ctx, const char *text)
{
    char line[CCF_LINE_BYTES + 1];
    size_t len = strlen(text);

    (void)ctx;
    if (len > CCF_LINE_BYTES)
        len = CCF_LINE_BYTES;
    memcpy(line, text, len);
    line[len] = '\n';
    platform_log_write(line, len + 1);
}

static void list(struct code_log *l, struct vcpu *cpu, const struct ccf *ccf)
{
    bool in = LOG_ON(cpu->log, in_asm), out = LOG_ON(cpu->log, out_asm);
    struct ccf_view view = { .guest = in, .host = out, .entries = true, .cold = true, .offsets = true };
    char mode[96], text[CCF_LINE_BYTES];

    snprintf(text, sizeof text,
             "TU EIP 0x%08" PRIx32 " PA 0x%" PRIx64 ", %s: %u instructions, %u bytes -> %u, cold %u",
             ccf->key.eip, ccf->key.pa, ccf_mode_text(ccf->key.mode, mode, sizeof mode), ccf->ninsns,
             ccf->guest_len, ccf->hot_len, ccf->cold_len);
    put_line(NULL, text);
    ccf_listing_print(l->listing, cpu, ccf, &view, put_line, NULL);
    put_line(NULL, "");
}

/* Unbuffered by lines: perf may look while we run, and we may be killed. */
static void map(struct code_log *l, const struct ccf *ccf)
{
    fprintf(l->perf_map, "%" PRIxPTR " %" PRIx32 " ccf_%08" PRIx32 "%s\n", (uintptr_t)ccf->hot, ccf->hot_len,
            ccf->key.eip, ccf->key.mode & MODE_CPL3 ? "_user" : "");
    if (ccf->cold_len)
        fprintf(l->perf_map, "%" PRIxPTR " %" PRIx32 " ccf_%08" PRIx32 "_slow\n", (uintptr_t)ccf->cold,
                ccf->cold_len, ccf->key.eip);
    fflush(l->perf_map);
}

void code_log_translated(void *ctx, struct vcpu *cpu, const struct ccf *ccf)
{
    struct code_log *l = ctx;

    vcpu_fpu_park(cpu);
    if (l->listing && (LOG_ON(cpu->log, in_asm) || LOG_ON(cpu->log, out_asm)))
        list(l, cpu, ccf);
    if (l->perf_map)
        map(l, ccf);
}
