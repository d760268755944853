/*
 * From written bytes to the CCFs made from them. Each guest page with live CCFs has a
 * record: its list of CCFs, and a mask of 64-byte granules that any of them covers, so that
 * a store to data beside code is dismissed by one AND. The monitor keeps such pages
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

    if (p || !tc->free_page)
        return p;
    p = tc->free_page;
    tc->free_page = p->hash_next;
    *p = (struct code_page){ .pfn = pfn, .hash_next = *page_slot(tc, pfn) };
    *page_slot(tc, pfn) = p;
    tc->config.trace_add(tc->config.ctx, gpa(pfn << GUEST_PAGE_SHIFT));
    return p;
}

static void page_put(struct tcache *tc, struct code_page *p)
{
    if (p->count)
        return;
    struct code_page **at = page_slot(tc, p->pfn);
    while (*at != p)
        at = &(*at)->hash_next;
    *at = p->hash_next;
    tc->config.trace_remove(tc->config.ctx, gpa(p->pfn << GUEST_PAGE_SHIFT));
    p->hash_next = tc->free_page;
    tc->free_page = p;
}

/* Bits of the granules that bytes [from, to) of a page touch. */
static uint64_t granules(uint32_t from, uint32_t to)
{
    uint32_t first = from >> 6, last = (to - 1) >> 6;

    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

/* The CCF's bytes in its first (0) or second (1) page, as offsets in that page. */
static void span(const struct ccf *c, int which, uint32_t *from, uint32_t *to)
{
    uint32_t ofs = (uint32_t)c->key.pa & GUEST_PAGE_MASK;
    uint32_t end = ofs + c->guest_len;

    *from = which ? 0 : ofs;
    *to = which ? end - GUEST_PAGE_SIZE : min_u32(end, GUEST_PAGE_SIZE);
}

static int which_page(const struct ccf *c, uint64_t pfn)
{
    return c->key.pa >> GUEST_PAGE_SHIFT == pfn ? 0 : 1;
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
        span(c, 0, &lo, &hi);
        if (lo < to && from < hi)
            return true;
    }
    if (c->pfn2 != pfn)
        return false;
    span(c, 1, &lo, &hi);
    return lo < to && from < hi;
}

static void page_cover(struct code_page *p, const struct ccf *c, int which)
{
    uint32_t from, to;

    span(c, which, &from, &to);
    p->granules |= granules(from, to);
}

static void page_link(struct code_page *p, struct ccf *c, int which)
{
    c->page_next[which] = p->head;
    p->head = c;
    p->count++;
    page_cover(p, c, which);
}

bool tcache_pages_add(struct tcache *tc, struct ccf *c)
{
    struct code_page *first = page_get(tc, c->key.pa >> GUEST_PAGE_SHIFT);

    if (!first)
        return false;
    if (has_second(c)) {
        struct code_page *second = page_get(tc, c->pfn2);
        if (!second) {
            page_put(tc, first);
            return false;
        }
        page_link(second, c, 1);
    }
    page_link(first, c, 0);
    if (c->pfn2 == first->pfn)
        page_cover(first, c, 1);
    return true;
}

static void page_unlink(struct tcache *tc, uint64_t pfn, struct ccf *c, int which)
{
    struct code_page *p = tcache_page_find(tc, pfn);
    struct ccf **at;

    ASSERT(p);
    at = &p->head;
    while (*at != c)
        at = &(*at)->page_next[which_page(*at, pfn)];
    *at = c->page_next[which];
    p->count--;
    page_put(tc, p);
}

void tcache_pages_remove(struct tcache *tc, struct ccf *c)
{
    page_unlink(tc, c->key.pa >> GUEST_PAGE_SHIFT, c, 0);
    if (has_second(c))
        page_unlink(tc, c->pfn2, c, 1);
}

unsigned tcache_invalidate(struct tcache *tc, gpa_t pa, uint32_t len, enum tcache_cause cause)
{
    uint64_t pfn = gpa_page(pa);
    struct code_page *p = tcache_page_find(tc, pfn);
    uint32_t from = (uint32_t)pa.v & GUEST_PAGE_MASK, to = from + len;
    unsigned dropped = 0;

    ASSERT(len && to <= GUEST_PAGE_SIZE);
    if (!p || !(p->granules & granules(from, to)))
        return 0;
    for (struct ccf *c = p->head, *next; c; c = next) {
        next = c->page_next[which_page(c, pfn)];
        if (is_hit(c, pfn, from, to)) {
            tcache_drop(tc, c, cause); /* the last one frees p, and ends the loop */
            dropped++;
        }
    }
    return dropped;
}
