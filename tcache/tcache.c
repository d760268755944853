/*
 * The cache's memory: regions, their arenas, the hash, and the making and dropping of CCFs.
 *
 * The RW view is for writing only and the RX view for running only; `exec_delta` leads from
 * one to the other. All records of a region come from its arena by bumping a pointer, so
 * an evicted region needs no frees. Everything is sized from tc-size once; nothing grows.
 */
#include "tcache/tcache.h"

#define XXH_INLINE_ALL
#define XXH_VECTOR 0 /* scalar: no vector registers in the engine */
#include <xxhash.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/string.h"
#include "platform/platform.h"
#include "tcache/tcache_internal.h"

static size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

static uint32_t power_of_two(size_t at_least)
{
    uint32_t n = 64;

    while (n < at_least)
        n *= 2;
    return n;
}

/* Cut one piece off a reservation. */
static void *carve(uint8_t **next, size_t bytes)
{
    uint8_t *p = *next;

    *next += align_up(bytes, 64);
    return p;
}

static void region_reset(struct region *r)
{
    r->hot_next = r->hot;
    r->cold_next = r->cold;
    r->arena_next = r->arena;
    r->order = (struct ccf **)(void *)r->arena_end;
    r->count = 0;
}

/* Half of a region is hot code, half cold: the slow paths repeat each memory access. */
static void regions_init(struct tcache *tc)
{
    size_t bytes = tc->config.bytes / TC_REGIONS & ~(size_t)63;
    size_t arena = tc->arena_bytes / TC_REGIONS & ~(size_t)63;

    for (unsigned i = 0; i < TC_REGIONS; i++) {
        struct region *r = &tc->region[i];
        r->hot = tc->rw + i * bytes;
        r->hot_end = r->cold = r->hot + (bytes / 2 & ~(size_t)63);
        r->cold_end = r->hot + bytes;
        r->arena = tc->arena + i * arena;
        r->arena_end = r->arena + arena;
        region_reset(r);
    }
}

struct tcache *tcache_new(struct vcpu *cpu, const struct tcache_config *config)
{
    uint32_t hash_size = power_of_two(config->bytes / 512);
    uint32_t npages = (uint32_t)(config->bytes / 1024);
    uint32_t page_size = power_of_two(npages / 2);
    size_t arena_bytes = config->bytes;
    size_t total = align_up(sizeof(struct tcache), 64) + 2 * hash_size * sizeof(void *) +
                   npages * (sizeof(struct code_page) + sizeof(struct code_mapping)) + page_size * sizeof(void *) + arena_bytes +
                   2 * VIEW_JT_ENTRIES * 8 + 4096;
    uint8_t *p = platform_reserve(align_up(total, 4096));

    if (!p)
        return NULL;
    uint8_t *next = p;
    struct tcache *tc = carve(&next, sizeof *tc);
    tc->cpu = cpu;
    tc->config = *config;
    tc->footprint = align_up(total, 4096);
    if (platform_code_alloc(config->bytes, &tc->rw, &tc->rx) != 0) {
        platform_release(p, tc->footprint);
        return NULL;
    }
    tc->exec_delta = tc->rx - tc->rw;
    tc->hash_mask = hash_size - 1;
    tc->hash = carve(&next, hash_size * sizeof(void *));
    tc->twins = carve(&next, hash_size * sizeof(void *));
    tc->npages = npages;
    tc->pages = carve(&next, npages * sizeof(struct code_page));
    tc->mappings = carve(&next, npages * sizeof(struct code_mapping));
    tc->page_mask = page_size - 1;
    tc->page_hash = carve(&next, page_size * sizeof(void *));
    for (int i = 0; i < 2; i++) {
        struct jump_table *jt = &tc->jt[i];
        jt->slot = (const uint8_t **)(void *)config->jump_table[i];
        jt->eip = carve(&next, VIEW_JT_ENTRIES * sizeof(uint32_t));
        jt->used = carve(&next, VIEW_JT_ENTRIES * sizeof(uint16_t));
        jt->is_global = carve(&next, VIEW_JT_ENTRIES);
        jt->is_listed = carve(&next, VIEW_JT_ENTRIES);
    }
    tc->arena_bytes = arena_bytes;
    tc->arena = carve(&next, arena_bytes);
    ASSERT((size_t)(next - p) <= tc->footprint);
    regions_init(tc);
    tcache_jt_init(tc);
    return tc;
}

void tcache_free(struct tcache *tc)
{
    if (!tc)
        return;
    platform_code_free(tc->config.bytes, tc->rw, tc->rx);
    platform_release(tc, tc->footprint);
}

/* ---- making ---------------------------------------------------------------------------- */

void tcache_room(struct tcache *tc, struct tcache_room *room)
{
    struct region *r = &tc->region[tc->current];

    *room = (struct tcache_room){ .hot = r->hot_next, .hot_end = r->hot_end, .cold = r->cold_next,
                                  .cold_end = r->cold_end, .exec_delta = tc->exec_delta,
                                  .is_fresh = r->count == 0 };
}

void tcache_next_region(struct tcache *tc)
{
    tc->current = (tc->current + 1) % TC_REGIONS;
    struct region *r = &tc->region[tc->current];

    if (r->count) {
        STAT_INC(tc->cpu, tc_evict_region);
        for (unsigned i = 0; i < r->count; i++)
            if (r->order[i]->live)
                tcache_drop(tc, r->order[i], DROP_EVICT);
            else if (r->order[i]->is_parked)
                tcache_gate_evict(tc, r->order[i]);
        tc->generation++;
    }
    region_reset(r);
}

static size_t record_bytes(const struct ccf_draft *d)
{
    size_t patch = d->has_source ? d->nconsts * sizeof(struct ccf_const) + d->guest_len : 0;

    return align_up(sizeof(struct ccf) + d->nlinks * sizeof(struct ccf_link) +
                        d->ninsns * sizeof(struct ccf_insn) + d->nplaces * sizeof d->places[0] + patch, 16);
}

/* Links directly follow the struct ccf, so that their addresses are known beforehand. */
uint32_t tcache_next_link_handle(struct tcache *tc, unsigned index)
{
    uint8_t *p = tc->region[tc->current].arena_next + sizeof(struct ccf) + index * sizeof(struct ccf_link);

    return (uint32_t)(p - tc->arena);
}

struct ccf_link *tcache_link(struct tcache *tc, uint32_t handle)
{
    ASSERT(handle < tc->arena_bytes);
    return (struct ccf_link *)(void *)(tc->arena + handle);
}

struct ccf *tcache_commit(struct tcache *tc, const struct ccf_draft *d)
{
    struct region *r = &tc->region[tc->current];
    size_t bytes = record_bytes(d);

    if ((size_t)((uint8_t *)r->order - r->arena_next) < bytes + sizeof(struct ccf *))
        return NULL;
    struct ccf *ccf = (struct ccf *)(void *)r->arena_next;
    memset(ccf, 0, sizeof *ccf);
    ccf->key = d->key;
    ccf->pfn2 = d->pfn2;
    ccf->guest_len = (uint16_t)d->guest_len;
    ccf->ninsns = (uint16_t)d->ninsns;
    ccf->nlinks = (uint8_t)d->nlinks;
    ccf->region = (uint8_t)tc->current;
    ccf->hot_len = d->hot_len;
    ccf->tail_ofs = d->tail_ofs;
    ccf->cold_len = d->cold_len;
    ccf->hot = r->hot_next + tc->exec_delta;
    ccf->cold = r->cold_next + tc->exec_delta;
    ccf->verify_ofs = d->verify_ofs;
    ccf->poll_ofs = d->poll_ofs;
    ccf->body_ofs = d->body_ofs;
    ccf->is_gate = d->is_gate;
    ccf->links = (struct ccf_link *)(void *)(ccf + 1);
    ccf->insns = (struct ccf_insn *)(void *)(ccf->links + d->nlinks);
    memcpy(ccf->links, d->links, d->nlinks * sizeof d->links[0]);
    memcpy(ccf->insns, d->insns, d->ninsns * sizeof d->insns[0]);
    ccf->uses_window = d->uses_window;
    ccf->places = (uint32_t *)(void *)(ccf->insns + d->ninsns);
    ccf->nplaces = (uint16_t)d->nplaces;
    memcpy(ccf->places, d->places, d->nplaces * sizeof d->places[0]);
    if (d->has_source) {
        ccf->nconsts = (uint8_t)d->nconsts;
        ccf->consts = (struct ccf_const *)(void *)(ccf->places + d->nplaces);
        ccf->source = (uint8_t *)(ccf->consts + d->nconsts);
        memcpy(ccf->consts, d->consts, d->nconsts * sizeof d->consts[0]);
        memcpy(ccf->source, d->source, d->guest_len);
    }
    for (unsigned i = 0; i < d->nlinks; i++) {
        ccf->links[i].owner = ccf;
        ccf->links[i].to = NULL;
        ccf->links[i].next_in = ccf->links[i].next_far = NULL;
    }
    if (!tcache_pages_add(tc, ccf))
        return NULL;
    r->arena_next += bytes;
    r->hot_next += align_up(d->hot_len, 16);
    r->cold_next += align_up(d->cold_len, 16);
    if (r->hot_next > r->hot_end)
        r->hot_next = r->hot_end;
    if (r->cold_next > r->cold_end)
        r->cold_next = r->cold_end;
    *--r->order = ccf;
    r->count++;
    ccf->live = true;
    tc->starts[ccf->key.pa % TC_STARTS / 64] |= 1ull << ccf->key.pa % 64;

    if (d->gate) {
        tcache_gate_commit(tc, d->gate, ccf);
    } else {
        struct ccf **slot = tcache_hash_slot(tc, &ccf->key);
        ccf->hash_next = *slot;
        *slot = ccf;
    }
    if (ccf->nplaces && !d->gate && !d->is_gate)
        *tcache_twin_slot(tc, &ccf->key) = ccf;
    STAT_INC(tc->cpu, ccf_live);
    return ccf;
}

/* ---- finding ----------------------------------------------------------------------------- */

struct ccf **tcache_hash_slot(struct tcache *tc, const struct ccf_key *key)
{
    return &tc->hash[XXH64(key, sizeof *key, 0) & tc->hash_mask];
}

struct ccf **tcache_twin_slot(struct tcache *tc, const struct ccf_key *key)
{
    uint64_t of[2] = { key->pa, key->mode };

    return &tc->twins[XXH64(of, sizeof of, 0) & tc->hash_mask];
}

struct ccf *tcache_twin(struct tcache *tc, const struct ccf_key *key)
{
    struct ccf *c = *tcache_twin_slot(tc, key);

    return c && c->key.pa == key->pa && c->key.mode == key->mode ? c : NULL;
}

bool tcache_may_start_at(const struct tcache *tc, gpa_t pa)
{
    return tc->starts[pa.v % TC_STARTS / 64] >> pa.v % 64 & 1;
}

static bool keys_equal(const struct ccf_key *a, const struct ccf_key *b)
{
    return a->pa == b->pa && a->eip == b->eip && a->cs_base == b->cs_base && a->mode == b->mode &&
           a->cs_limit == b->cs_limit;
}

struct ccf *tcache_lookup(struct tcache *tc, const struct ccf_key *key)
{
    STAT_INC(tc->cpu, tc_lookup);
    for (struct ccf *c = *tcache_hash_slot(tc, key); c; c = c->hash_next)
        if (keys_equal(&c->key, key))
            return c;
    return NULL;
}

void tcache_range(const struct tcache *tc, const uint8_t **lo, const uint8_t **hi)
{
    *lo = tc->rx;
    *hi = tc->rx + tc->config.bytes;
}

/* order[] is sorted by falling address, hot and cold alike. */
static struct ccf *region_find(const struct region *r, const uint8_t *rip, bool is_cold)
{
    unsigned lo = 0, hi = r->count;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct ccf *c = r->order[mid];
        if ((is_cold ? c->cold : c->hot) <= rip)
            hi = mid;
        else
            lo = mid + 1;
    }
    if (lo == r->count)
        return NULL;
    struct ccf *c = r->order[lo];
    return rip < (is_cold ? c->cold + c->cold_len : c->hot + c->hot_len) ? c : NULL;
}

struct ccf *tcache_find_rip(struct tcache *tc, const uint8_t *rip)
{
    if (rip < tc->rx || rip >= tc->rx + tc->config.bytes)
        return NULL;
    const uint8_t *rw = tcache_rw(tc, rip);
    for (unsigned i = 0; i < TC_REGIONS; i++) {
        const struct region *r = &tc->region[i];
        if (rw >= r->hot && rw < r->cold_end)
            return region_find(r, rip, rw >= r->cold);
    }
    return NULL;
}

unsigned ccf_insn_at(const struct ccf *ccf, const uint8_t *rip)
{
    bool is_cold = rip >= ccf->cold && rip < ccf->cold + ccf->cold_len;
    uint32_t ofs = (uint32_t)(rip - (is_cold ? ccf->cold : ccf->hot));
    unsigned i = ccf->ninsns;

    while (i > 1 && (is_cold ? ccf->insns[i - 1].cold_ofs : ccf->insns[i - 1].hot_ofs) > ofs)
        i--;
    return i - 1;
}

/* ---- dropping ------------------------------------------------------------------------------ */

static void count_drop(struct vcpu *cpu, enum tcache_cause cause)
{
    switch (cause) {
    case DROP_WRITE:
        STAT_INC(cpu, inval_write);
        break;
    case DROP_SELF:
        STAT_INC(cpu, inval_self);
        break;
    case DROP_DMA:
        STAT_INC(cpu, inval_dma);
        break;
    case DROP_EVICT:
        STAT_INC(cpu, inval_evict);
        break;
    }
}

void tcache_drop(struct tcache *tc, struct ccf *ccf, enum tcache_cause cause)
{
    ASSERT(ccf->live);
    if (cause != DROP_EVICT)
        LOG(tc->cpu->log, coherency, "drop: EIP 0x%08x PA 0x%llx\n", ccf->key.eip, (unsigned long long)ccf->key.pa);
    LOG(tc->cpu->log, chain, "drop CCF of EIP 0x%08x PA 0x%lx\n", ccf->key.eip, ccf->key.pa);
    tcache_gate_drop(tc, ccf, cause);
    if (!ccf->gate) {
        struct ccf **at = tcache_hash_slot(tc, &ccf->key);
        while (*at != ccf)
            at = &(*at)->hash_next;
        *at = ccf->hash_next;
    }
    if (*tcache_twin_slot(tc, &ccf->key) == ccf)
        *tcache_twin_slot(tc, &ccf->key) = NULL;
    tcache_unchain(tc, ccf);
    tcache_jt_drop_ccf(tc, ccf);
    tcache_pages_remove(tc, ccf);
    ccf->live = false;
    tc->generation++;
    tc->cpu->stats.ccf_live--;
    count_drop(tc->cpu, cause);
}

void tcache_flush(struct tcache *tc)
{
    for (unsigned i = 0; i < TC_REGIONS; i++)
        tcache_next_region(tc);
}

uint64_t tcache_generation(const struct tcache *tc)
{
    return tc->generation;
}

void tcache_for_each(struct tcache *tc, void (*fn)(void *ctx, struct ccf *ccf), void *ctx)
{
    for (unsigned i = 0; i < TC_REGIONS; i++)
        for (unsigned k = 0; k < tc->region[i].count; k++)
            if (tc->region[i].order[k]->live)
                fn(ctx, tc->region[i].order[k]);
}
