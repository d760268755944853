/*
 * Patching a CCF whose guest bytes changed, instead of dropping it: coherency=patch.
 *
 * A CCF made for it keeps the bytes it was made from, and knows where its code holds constants of
 * theirs as they stand. What was written is compared with those bytes. Bytes that did not change ask
 * for nothing; changed ones that belong to a constant go into the code; any other change is beyond
 * this file, and the CCF is dropped.
 *
 * A patched CCF is the same CCF: its chains, its place in jump tables and return addresses into it stay
 * good, and the one that is running goes on, its next instruction being patched already.
 */
#include "base/log.h"
#include "base/string.h"
#include "tcache/tcache_internal.h"

/* A run of written bytes of one CCF. */
struct written {
    struct ccf *ccf;
    uint32_t ofs, len; /* from the CCF's first guest byte */
    const uint8_t *now;
};

/* The part of [from, to) that lies in the CCF's first or second page. */
static bool cut(struct ccf *c, int which, uint32_t from, uint32_t to, const uint8_t *now, struct written *w)
{
    uint32_t lo, hi, start = (uint32_t)c->key.pa & GUEST_PAGE_MASK;

    tcache_span(c, which, &lo, &hi);
    uint32_t first = max_u32(lo, from), end = min_u32(hi, to);
    if (first >= end)
        return false;
    *w = (struct written){ .ccf = c, .ofs = which ? GUEST_PAGE_SIZE - start + first : first - start,
                           .len = end - first, .now = now + (first - from) };
    return true;
}

static bool is_const(const struct ccf *c, uint32_t ofs)
{
    for (unsigned i = 0; i < c->nconsts; i++)
        if (ofs - c->consts[i].guest_ofs < c->consts[i].len)
            return true;
    return false;
}

enum change { CHANGE_NONE, CHANGE_CONSTS, CHANGE_CODE };

/* *at: the first byte that makes it CHANGE_CODE, from the CCF's first. */
static enum change changed(const struct written *w, uint32_t *at)
{
    enum change found = CHANGE_NONE;

    for (uint32_t i = 0; i < w->len; i++) {
        if (w->now[i] == w->ccf->source[w->ofs + i])
            continue;
        if (!is_const(w->ccf, w->ofs + i)) {
            *at = w->ofs + i;
            return CHANGE_CODE;
        }
        found = CHANGE_CONSTS;
    }
    return found;
}

static void put(struct tcache *tc, const struct ccf *c, const struct ccf_const *k)
{
    uint8_t *at = tcache_rw(tc, (k->is_cold ? c->cold : c->hot) + k->host_ofs);
    const uint8_t *now = c->source + k->guest_ofs;

    memcpy(at, now, k->len);
    if (k->host_len > k->len)
        memset(at + k->len, now[k->len - 1] & 0x80 ? 0xff : 0, k->host_len - k->len);
}

static void apply(struct tcache *tc, const struct written *w)
{
    struct ccf *c = w->ccf;

    memcpy(c->source + w->ofs, w->now, w->len);
    for (unsigned i = 0; i < c->nconsts; i++) {
        const struct ccf_const *k = &c->consts[i];
        if (k->guest_ofs < w->ofs + w->len && w->ofs < (uint32_t)k->guest_ofs + k->len)
            put(tc, c, k);
    }
}

bool tcache_patch(struct tcache *tc, struct ccf *c, uint64_t pfn, uint32_t from, uint32_t to, const uint8_t *now,
                  uint32_t *at)
{
    struct written part[2];
    enum change most = CHANGE_NONE;
    unsigned n = 0;

    if (c->key.pa >> GUEST_PAGE_SHIFT == pfn)
        n += cut(c, 0, from, to, now, &part[n]);
    if (c->pfn2 == pfn)
        n += cut(c, 1, from, to, now, &part[n]);
    for (unsigned i = 0; i < n; i++) {
        *at = part[i].ofs;
        enum change found = c->source ? changed(&part[i], at) : CHANGE_CODE;
        if (found == CHANGE_CODE)
            return false;
        most = found > most ? found : most;
    }
    if (most == CHANGE_NONE) {
        STAT_INC(tc->cpu, coherency_unchanged);
        return true;
    }
    for (unsigned i = 0; i < n; i++)
        apply(tc, &part[i]);
    STAT_INC(tc->cpu, coherency_patched);
    LOG(tc->cpu->log, coherency, "patch: EIP 0x%08x PA 0x%llx, %u bytes written at 0x%03x of its page\n", c->key.eip,
        (unsigned long long)c->key.pa, to - from, from);
    return true;
}
