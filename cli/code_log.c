/*
 * Translations as text. The translator reports each CCF it made; here its guest bytes are
 * found again in guest RAM, and both sides go through the listing module.
 *
 * The listing names fields of the vCPU. A callout's number is the constant that was put
 * into R10D before the call, so the line of the call gets its name from the line before.
 */
#include "cli/code_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "decoder/listing.h"
#include "mmu/mmu.h"
#include "platform/platform.h"

#define GUEST_MAX (CCF_MAX_INSNS * 15u)

struct code_log {
    struct listing *listing;
    void (*line)(void *ctx, const char *text);
    void *ctx;
    unsigned callout; /* last constant loaded into R10D */
    const struct ccf *ccf; /* being printed */
    char name[32];
};

struct code_log *code_log_new(void (*line)(void *ctx, const char *text), void *ctx)
{
    struct code_log *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->line = line;
    l->ctx = ctx;
    l->listing = listing_new();
    if (l->listing)
        return l;
    free(l);
    return NULL;
}

void code_log_free(struct code_log *l)
{
    if (!l)
        return;
    listing_free(l->listing);
    free(l);
}

static void put_line(struct code_log *l, const char *text)
{
    if (l->line) {
        l->line(l->ctx, text);
        return;
    }
    platform_log_write(text, strlen(text));
    platform_log_write("\n", 1);
}

static void say(struct code_log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct code_log *l, const char *fmt, ...)
{
    char text[2 * LISTING_TEXT_BYTES];
    va_list ap;

    va_start(ap, fmt);
    fmt_vformat(text, sizeof text, fmt, ap);
    va_end(ap);
    put_line(l, text);
}

/* Jumps between the two parts of the CCF. */
static const char *address_name(void *ctx, uint64_t address)
{
    struct code_log *l = ctx;
    uint64_t hot = address - (uint64_t)(uintptr_t)l->ccf->hot, cold = address - (uint64_t)(uintptr_t)l->ccf->cold;

    if (cold < l->ccf->cold_len)
        fmt_format(l->name, sizeof l->name, "cold+0x%03x", (unsigned)cold);
    else if (hot < l->ccf->hot_len)
        fmt_format(l->name, sizeof l->name, "+0x%03x", (unsigned)hot);
    else
        return NULL;
    return l->name;
}

/* One line of host code, with the name of the callout where one is called. */
static void host_line(void *ctx, const char *text)
{
    struct code_log *l = ctx;
    const char *load = strstr(text, "mov r10d, ");

    if (load)
        l->callout = (unsigned)strtoul(load + strlen("mov r10d, "), NULL, 0);
    if (strstr(text, "stub_callout") && l->callout < CALLOUT_COUNT)
        say(l, "%s    ; %s", text, callout_name((enum callout_id)l->callout));
    else
        put_line(l, text);
}

/* The CCF's guest bytes, from one or two pages. @return how many could be had. */
static size_t guest_bytes(struct vcpu *cpu, const struct ccf *ccf, uint8_t *buf)
{
    size_t len = ccf->guest_len < GUEST_MAX ? ccf->guest_len : GUEST_MAX;
    size_t first = GUEST_PAGE_SIZE - (ccf->key.pa & GUEST_PAGE_MASK);
    hva_t p = mmu_ram_ptr(cpu->mmu, gpa(ccf->key.pa));

    if (first > len)
        first = len;
    if (!p.p)
        return 0;
    memcpy(buf, p.p, first);
    if (first == len)
        return len;
    p = mmu_ram_ptr(cpu->mmu, gpa(ccf->pfn2 << GUEST_PAGE_SHIFT));
    if (!p.p)
        return first;
    memcpy(buf + first, p.p, len - first);
    return len;
}

static void print_guest(struct code_log *l, const struct ccf *ccf, const uint8_t *bytes, size_t len)
{
    enum listing_mode mode = ccf->key.mode & MODE_CODE32 ? LISTING_GUEST32 : LISTING_GUEST16;
    char text[LISTING_TEXT_BYTES];

    for (unsigned i = 0; i < ccf->ninsns; i++) {
        size_t at = ccf->insns[i].guest_ofs;
        if (at >= len)
            break;
        listing_insn(l->listing, mode, bytes + at, len - at, ccf->key.eip + at, NULL, text);
        say(l, "  0x%08lx  %s", (unsigned long)(ccf->key.eip + at), text);
    }
}

static void print_host(struct code_log *l, const struct ccf *ccf, const uint8_t *bytes, size_t len)
{
    struct listing_pair pairs[CCF_MAX_INSNS];

    for (unsigned i = 0; i < ccf->ninsns; i++)
        pairs[i] = (struct listing_pair){ ccf->insns[i].guest_ofs, ccf->insns[i].hot_ofs };
    struct listing_block block = {
        .guest = bytes, .guest_len = len, .guest_eip = ccf->key.eip,
        .code32 = (ccf->key.mode & MODE_CODE32) != 0,
        .host = ccf->hot, .host_len = ccf->hot_len, .host_address = (uint64_t)(uintptr_t)ccf->hot,
        .pairs = pairs, .npairs = ccf->ninsns,
        .names = { .ctx = l, .address = address_name },
    };
    listing_print_block(l->listing, &block, host_line, l);
}

/* Slow paths and continuations; each starts with the guest instruction it belongs to. */
static void print_cold(struct code_log *l, const struct ccf *ccf)
{
    const struct listing_names names = { .ctx = l, .address = address_name };
    char text[LISTING_TEXT_BYTES];
    unsigned next = 0;
    size_t n;

    if (ccf->cold_len)
        say(l, "  cold part:");
    for (size_t at = 0; at < ccf->cold_len; at += n) {
        for (; next < ccf->ninsns && ccf->insns[next].cold_ofs <= at; next++)
            if (next + 1 == ccf->ninsns || ccf->insns[next + 1].cold_ofs != ccf->insns[next].cold_ofs)
                say(l, "   of 0x%08x:", ccf->key.eip + ccf->insns[next].guest_ofs);
        n = listing_insn(l->listing, LISTING_HOST64, ccf->cold + at, ccf->cold_len - at,
                         (uint64_t)(uintptr_t)ccf->cold + at, &names, text);
        char line[LISTING_TEXT_BYTES + 16];
        fmt_format(line, sizeof line, "     cold+0x%03x  %s", (unsigned)at, text);
        host_line(l, line);
        if (!n)
            break;
    }
}

void code_log_translated(void *ctx, struct vcpu *cpu, const struct ccf *ccf)
{
    struct code_log *l = ctx;
    uint8_t bytes[GUEST_MAX];
    bool in = LOG_ON(cpu->log, in_asm), out = LOG_ON(cpu->log, out_asm);

    if (!in && !out)
        return;
    vcpu_fpu_park(cpu);
    l->ccf = ccf;
    size_t len = guest_bytes(cpu, ccf, bytes);
    say(l, "TU EIP 0x%08x PA 0x%llx mode 0x%05x: %u instructions, %u bytes to %u and %u cold", ccf->key.eip,
        (unsigned long long)ccf->key.pa, ccf->key.mode, ccf->ninsns, ccf->guest_len, ccf->hot_len,
        ccf->cold_len);
    if (!out)
        print_guest(l, ccf, bytes, len);
    else
        print_host(l, ccf, bytes, len);
    if (out)
        print_cold(l, ccf);
}
