/* See fixture.h. A CCF's hot part is three entries of eight bytes and one JMP a link. */
#include <stdlib.h>
#include <string.h>

#include "platform/platform.h"
#include "tests/unit/tcache/fixture.h"

#define ENTRIES_BYTES 24u
#define JMP_BYTES     5u
#define WAY_BYTES     16u /* each of a link's two continuations */

static void on_trace_add(void *ctx, gpa_t pa)
{
    struct tc_fixture *fx = ctx;

    fx->trace_errors += fx->traced[gpa_page(pa)] != 0;
    fx->traced[gpa_page(pa)] = 1;
}

static void on_trace_remove(void *ctx, gpa_t pa)
{
    struct tc_fixture *fx = ctx;

    fx->trace_errors += fx->traced[gpa_page(pa)] != 1;
    fx->traced[gpa_page(pa)] = 0;
}

struct tc_fixture *tc_fixture_new(size_t bytes)
{
    struct tc_fixture *fx = calloc(1, sizeof *fx);

    assert_non_null(fx);
    fx->cpu = platform_reserve(sizeof *fx->cpu);
    assert_non_null(fx->cpu);
    fx->cpu->log = &fx->log;
    for (int v = 0; v < 2; v++) {
        fx->jump_table[v] = platform_reserve(VIEW_JT_ENTRIES * 8);
        assert_non_null(fx->jump_table[v]);
    }
    struct tcache_config config = { .bytes = bytes,
                                    .jt_miss_stub = fx->miss_stub,
                                    .jump_table = { fx->jump_table[0], fx->jump_table[1] },
                                    .ctx = fx,
                                    .trace_add = on_trace_add,
                                    .trace_remove = on_trace_remove };
    fx->tc = tcache_new(fx->cpu, &config);
    assert_non_null(fx->tc);
    return fx;
}

void tc_fixture_free(struct tc_fixture *fx)
{
    tcache_free(fx->tc);
    for (int v = 0; v < 2; v++)
        platform_release(fx->jump_table[v], VIEW_JT_ENTRIES * 8);
    platform_release(fx->cpu, sizeof *fx->cpu);
    free(fx);
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void draft_insns(struct ccf_draft *d, const struct ccf_wish *w)
{
    d->ninsns = w->ninsns ? w->ninsns : 1;
    for (unsigned i = 0; i < d->ninsns; i++)
        d->insns[i] =
            (struct ccf_insn){ .guest_ofs = (uint16_t)(i * d->guest_len / d->ninsns),
                               .hot_ofs = ENTRIES_BYTES + i * (d->hot_len - ENTRIES_BYTES) / d->ninsns,
                               .cold_ofs = i * d->cold_len / d->ninsns };
}

static void draft_links(struct ccf_draft *d, const struct ccf_wish *w, uint8_t *hot, const uint8_t *cold)
{
    d->nlinks = w->nlinks;
    for (unsigned i = 0; i < w->nlinks; i++) {
        uint32_t at = ENTRIES_BYTES + i * JMP_BYTES + 1;
        uint32_t unchained = 2 * i * WAY_BYTES;
        int32_t rel = (int32_t)(cold + unchained - (hot + at + 4));
        d->links[i] = (struct ccf_link){ .patch_ofs = at,
                                         .unchained_ofs = unchained,
                                         .table_ofs = unchained + WAY_BYTES,
                                         .target_eip = w->target[i],
                                         .poll = w->poll[i] };
        hot[at - 1] = 0xe9;
        memcpy(hot + at, &rel, 4);
    }
}

struct ccf *tc_try_make(struct tc_fixture *fx, const struct ccf_wish *w)
{
    struct ccf_draft d = { .key = tc_key(w->pa, w->eip), .is_gate = w->is_gate, .gate = w->gate };
    struct tcache_room room;

    d.guest_len = w->guest_len ? w->guest_len : 16;
    d.pfn2 = w->two_pages ? w->pfn2 : CCF_ONE_PAGE;
    d.hot_len = larger(ENTRIES_BYTES + w->nlinks * JMP_BYTES, w->hot_bytes);
    d.cold_len = larger(2 * w->nlinks * WAY_BYTES, w->cold_bytes);
    d.verify_ofs = FX_VERIFY;
    d.poll_ofs = FX_POLL;
    d.body_ofs = FX_BODY;
    tcache_room(fx->tc, &room);
    if (room.hot_end - room.hot < (ptrdiff_t)d.hot_len || room.cold_end - room.cold < (ptrdiff_t)d.cold_len)
        return NULL;
    memset(room.hot, 0xcc, d.hot_len);
    memset(room.cold, 0xcc, d.cold_len);
    draft_insns(&d, w);
    draft_links(&d, w, room.hot, room.cold);
    if (w->source) {
        d.has_source = true;
        memcpy(d.source, w->source, d.guest_len);
        d.nconsts = w->nconsts;
        memcpy(d.consts, w->consts, w->nconsts * sizeof d.consts[0]);
    }
    return tcache_commit(fx->tc, &d);
}

struct ccf *tc_make(struct tc_fixture *fx, const struct ccf_wish *w)
{
    for (unsigned i = 0; i <= TC_REGIONS; i++) {
        struct ccf *c = tc_try_make(fx, w);
        if (c)
            return c;
        tcache_next_region(fx->tc);
    }
    fail_msg("no region has room for the CCF");
    return NULL;
}

struct ccf_key tc_key(uint64_t pa, uint32_t eip)
{
    return (struct ccf_key){ .pa = pa, .eip = eip, .mode = FX_MODE };
}

struct ccf *tc_find(struct tc_fixture *fx, uint64_t pa, uint32_t eip)
{
    struct ccf_key key = tc_key(pa, eip);

    return tcache_lookup(fx->tc, &key);
}

const uint8_t *link_destination(const struct ccf_link *link)
{
    const uint8_t *at = link->owner->hot + link->patch_ofs;
    int32_t rel;

    memcpy(&rel, at, 4);
    return at + 4 + rel;
}

const uint8_t *link_unchained(const struct ccf_link *link)
{
    return link->owner->cold + link->unchained_ofs;
}
