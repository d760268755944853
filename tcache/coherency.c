/*
 * From written bytes to the CCFs made from them. Each guest page with live CCFs has a
 * record: its CCFs by the VA page they run it at, and a mask of 64-byte granules that any of
 * them covers, so that a store to data beside code is dismissed by one AND. The monitor keeps such pages
 * write-protected (a memory trace) from the first CCF to the last.
 */
#include "base/assert.h"
#include "tcache/tcache_internal.h"

static struct code_page **page_slot(struct tcache *tc, uint64_t pfn)
{
    return &tc->page_hash[(pfn ^ pfn >> 12) & tc->page_mask];
}

struct code_page *tcache_page_find(struct tcache *tc, uint64_t pfn)
{
    struct code_page *p = *page_slot(tc, pfn);

    while (p && p->pfn != pfn)
        p = p->hash_next;
    return p;
}

static struct code_page *page_get(struct tcache *tc, uint64_t pfn)
{
    struct code_page *p = tcache_page_find(tc, pfn);

    if (p)
        return p;
    if (tc->free_page) {
        p = tc->free_page;
        tc->free_page = p->hash_next;
    } else if (tc->npages_begun < tc->npages) {
        p = &tc->pages[tc->npages_begun++];
    } else {
        return NULL;
    }
    *p = (struct code_page){ .pfn = pfn, .hash_next = *page_slot(tc, pfn) };
    *page_slot(tc, pfn) = p;
    return p;
}

static void page_put(struct tcache *tc, struct code_page *p)
{
    if (p->mappings)
        return;
    struct code_page **at = page_slot(tc, p->pfn);
    while (*at != p)
        at = &(*at)->hash_next;
    *at = p->hash_next;
    p->hash_next = tc->free_page;
    tc->free_page = p;
}

static void mapping_link(struct code_page *p, struct code_mapping *m)
{
    m->next = p->mappings;
    m->at = &p->mappings;
    if (m->next)
        m->next->at = &m->next;
    p->mappings = m;
}

static void mapping_unlink(struct code_mapping *m)
{
    *m->at = m->next;
    if (m->next)
        m->next->at = m->at;
}

static void mapping_asked(const struct tcache *tc, struct code_mapping *m)
{
    m->cr3 = tc->cpu->cr3;
    m->epoch = tc->jt[TC_USER].epoch;
}

struct code_mapping *tcache_mapping_find(struct tcache *tc, struct code_page *p, uint32_t vpn)
{
    struct code_mapping *m = p->mappings;

    while (m && m->vpn != vpn)
        m = m->next;
    if (!m)
        return NULL;
    mapping_asked(tc, m);
    if (m != p->mappings) {
        mapping_unlink(m);
        mapping_link(p, m);
    }
    return m;
}

/* NULL when a pool is empty. */
static struct code_mapping *mapping_get(struct tcache *tc, uint64_t pfn, uint32_t vpn)
{
    struct code_page *p = page_get(tc, pfn);
    struct code_mapping *m = p ? tcache_mapping_find(tc, p, vpn) : NULL;

    if (m || !p)
        return m;
    if (tc->free_mapping) {
        m = tc->free_mapping;
        tc->free_mapping = m->next;
    } else if (tc->nmappings_begun < tc->npages) {
        m = &tc->mappings[tc->nmappings_begun++];
    } else {
        page_put(tc, p);
        return NULL;
    }
    *m = (struct code_mapping){ .page = p, .vpn = vpn };
    mapping_asked(tc, m);
    mapping_link(p, m);
    return m;
}

static void mapping_put(struct tcache *tc, struct code_mapping *m)
{
    if (m->nccfs)
        return;
    mapping_unlink(m);
    page_put(tc, m->page);
    m->next = tc->free_mapping;
    tc->free_mapping = m;
}

/* Bits of the granules that bytes [from, to) of a page touch. */
static uint64_t granules(uint32_t from, uint32_t to)
{
    uint32_t first = from >> 6, last = (to - 1) >> 6;

    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

void tcache_span(const struct ccf *c, int which, uint32_t *from, uint32_t *to)
{
    uint32_t ofs = (uint32_t)c->key.pa & GUEST_PAGE_MASK;
    uint32_t end = ofs + c->guest_len;

    *from = which ? 0 : ofs;
    *to = which ? end - GUEST_PAGE_SIZE : min_u32(end, GUEST_PAGE_SIZE);
}

/* Is the CCF in the list of a second page? Two VA pages may be mapped to one PA page: then an
 * instruction across them has its first and last bytes there, and is listed there once. */
static bool has_second(const struct ccf *c)
{
    return c->pfn2 != CCF_ONE_PAGE && c->pfn2 != c->key.pa >> GUEST_PAGE_SHIFT;
}

static bool is_hit(const struct ccf *c, uint64_t pfn, uint32_t from, uint32_t to)
{
    uint32_t lo, hi;

    if (c->key.pa >> GUEST_PAGE_SHIFT == pfn) {
        tcache_span(c, 0, &lo, &hi);
        if (lo < to && from < hi)
            return true;
    }
    if (c->pfn2 != pfn)
        return false;
    tcache_span(c, 1, &lo, &hi);
    return lo < to && from < hi;
}

static void page_cover(struct code_page *p, const struct ccf *c, int which)
{
    uint32_t from, to;

    tcache_span(c, which, &from, &to);
    p->granules |= granules(from, to);
}

static void ccf_link_page(struct tcache *tc, struct code_mapping *m, struct ccf *c, int which)
{
    struct ccf_in_page *in = &c->page[which];
    struct ccf **list = c->is_gate ? &m->gates : &m->part[ccf_page_part(c, which)];
    uint32_t from, to;

    *in = (struct ccf_in_page){ .mapping = m, .next = *list, .at = list };
    if (in->next)
        in->next->page[ccf_which_page(in->next, m->page->pfn)].at = &in->next;
    *list = c;
    m->nccfs++;
    if (c->is_gate)
        return;
    tcache_span(c, which, &from, &to);
    m->longest = max_u32(m->longest, c->pfn2 == c->key.pa >> GUEST_PAGE_SHIFT ? GUEST_PAGE_SIZE : to - from);
    page_cover(m->page, c, which);
    if (m->page->nlisted++ == 0)
        tc->config.trace_add(tc->config.ctx, gpa(m->page->pfn << GUEST_PAGE_SHIFT));
}

static void ccf_unlink_page(struct tcache *tc, struct ccf *c, int which)
{
    struct ccf_in_page *in = &c->page[which];
    struct code_mapping *m = in->mapping;

    if (!m)
        return;
    *in->at = in->next;
    if (in->next)
        in->next->page[ccf_which_page(in->next, m->page->pfn)].at = in->at;
    in->mapping = NULL;
    m->nccfs--;
    if (!c->is_gate && --m->page->nlisted == 0)
        tc->config.trace_remove(tc->config.ctx, gpa(m->page->pfn << GUEST_PAGE_SHIFT));
    mapping_put(tc, m);
}

bool tcache_pages_add(struct tcache *tc, struct ccf *c)
{
    uint32_t vpn = c->key.eip >> GUEST_PAGE_SHIFT;
    struct code_mapping *first = mapping_get(tc, c->key.pa >> GUEST_PAGE_SHIFT, vpn);

    if (!first)
        return false;
    ccf_link_page(tc, first, c, 0);
    if (has_second(c)) {
        struct code_mapping *second = mapping_get(tc, c->pfn2, vpn + 1);
        if (!second) {
            ccf_unlink_page(tc, c, 0);
            return false;
        }
        ccf_link_page(tc, second, c, 1);
    } else if (c->pfn2 == first->page->pfn) {
        page_cover(first->page, c, 1);
    }
    return true;
}

void tcache_pages_remove(struct tcache *tc, struct ccf *c)
{
    ccf_unlink_page(tc, c, 0);
    ccf_unlink_page(tc, c, 1);
}

/* From the list of one mapping to that of another one of the same page. */
static void ccf_relink(struct tcache *tc, struct code_mapping *to, struct ccf *c, int which)
{
    struct ccf_in_page *in = &c->page[which];
    struct code_mapping *from = in->mapping;
    struct ccf **list = &to->part[ccf_page_part(c, which)];
    uint64_t pfn = to->page->pfn;

    *in->at = in->next;
    if (in->next)
        in->next->page[ccf_which_page(in->next, pfn)].at = in->at;
    *in = (struct ccf_in_page){ .mapping = to, .next = *list, .at = list };
    if (in->next)
        in->next->page[ccf_which_page(in->next, pfn)].at = &in->next;
    *list = c;
    to->longest = max_u32(to->longest, from->longest);
    to->nccfs++;
    from->nccfs--;
    mapping_put(tc, from);
}

bool tcache_pages_move(struct tcache *tc, struct ccf *c, uint32_t vpn)
{
    struct code_mapping *first = mapping_get(tc, c->key.pa >> GUEST_PAGE_SHIFT, vpn);

    if (!first)
        return false;
    if (has_second(c)) {
        struct code_mapping *second = mapping_get(tc, c->pfn2, vpn + 1);
        if (!second) {
            mapping_put(tc, first);
            return false;
        }
        ccf_relink(tc, second, c, 1);
    }
    ccf_relink(tc, first, c, 0);
    return true;
}

/* The instruction that has the byte at `ofs` of the CCF. */
static unsigned insn_of(const struct ccf *c, uint32_t ofs)
{
    unsigned i = c->ninsns;

    while (i > 1 && c->insns[i - 1].guest_ofs > ofs)
        i--;
    return i - 1;
}

/* A store has changed the byte at `ofs` of the CCF's source. */
static void end_changed(struct tcache *tc, struct ccf *c, uint32_t ofs, enum tcache_cause cause)
{
    if (tc->config.changed)
        tc->config.changed(tc->config.ctx, c, insn_of(c, ofs));
    if (c->gate)
        tcache_park(tc, c);
    else
        tcache_drop(tc, c, cause);
}

#define COUNT_AGAIN 16u

/* The mask said that there were CCFs, and there were none. */
static void walked_in_vain(struct code_page *p)
{
    if (++p->in_vain < COUNT_AGAIN)
        return;
    p->in_vain = 0;
    p->granules = 0;
    for (const struct code_mapping *m = p->mappings; m; m = m->next)
        for (unsigned part = 0; part < PAGE_PARTS; part++)
            for (const struct ccf *c = m->part[part]; c; c = c->page[ccf_which_page(c, p->pfn)].next) {
                page_cover(p, c, ccf_which_page(c, p->pfn));
                if (c->pfn2 == p->pfn)
                    page_cover(p, c, 1);
            }
}

/* All of the memory goes elsewhere. A gate's version goes with it. */
static void drop_gates(struct tcache *tc, struct code_mapping *m, uint32_t from, uint32_t to, enum tcache_cause cause)
{
    for (struct ccf *c = m->gates, *next; c; c = next) {
        next = c->page[0].next;
        if (is_hit(c, c->key.pa >> GUEST_PAGE_SHIFT, from, to))
            tcache_drop(tc, c, cause);
    }
}

/* What was written: [from, to) of page pfn, and what is there now if that is known. */
struct touched {
    uint64_t pfn;
    uint32_t from, to;
    const uint8_t *now;
    enum tcache_cause cause;
};

/* The CCFs of a list that have a byte there. @return how many. */
static unsigned touch_list(struct tcache *tc, struct ccf *head, const struct touched *t)
{
    unsigned touched = 0;

    for (struct ccf *c = head, *next; c; c = next) {
        uint32_t changed;

        next = c->page[ccf_which_page(c, t->pfn)].next;
        if (!is_hit(c, t->pfn, t->from, t->to))
            continue;
        touched++;
        if (!t->now)
            tcache_drop(tc, c, t->cause);
        else if (!tcache_patch(tc, c, t->pfn, t->from, t->to, t->now, &changed))
            end_changed(tc, c, changed, t->cause);
    }
    return touched;
}

/* CCFs with a byte in [pa, pa+len): dropped, or patched or parked if it is known what is there now. */
static unsigned touch(struct tcache *tc, gpa_t pa, const uint8_t *now, uint32_t len, enum tcache_cause cause)
{
    uint32_t from = (uint32_t)pa.v & GUEST_PAGE_MASK;
    struct touched t = { .pfn = gpa_page(pa), .from = from, .to = from + len, .now = now, .cause = cause };
    struct code_page *p = tcache_page_find(tc, t.pfn);
    unsigned touched = 0;

    ASSERT(len && t.to <= GUEST_PAGE_SIZE);
    if (!p || (now && !(p->granules & granules(t.from, t.to))))
        return 0;
    for (struct code_mapping *m = p->mappings, *next; m; m = next) {
        next = m->next;
        if (!now)
            drop_gates(tc, m, t.from, t.to, cause);
        /* the last CCF frees m, the last of all p: then there are no more parts, and no more mappings */
        unsigned first = t.from > m->longest ? (t.from - m->longest) >> PAGE_PART_BITS : 0;
        for (unsigned part = first; part <= (t.to - 1) >> PAGE_PART_BITS; part++)
            touched += touch_list(tc, m->part[part], &t);
    }
    if (!touched && now)
        walked_in_vain(p);
    return touched;
}

unsigned tcache_invalidate(struct tcache *tc, gpa_t pa, uint32_t len, enum tcache_cause cause)
{
    return touch(tc, pa, NULL, len, cause);
}

unsigned tcache_written(struct tcache *tc, gpa_t pa, const uint8_t *now, uint32_t len, enum tcache_cause cause)
{
    return touch(tc, pa, now, len, cause);
}
