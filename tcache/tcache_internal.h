/* What the files of tcache/ share. */
#ifndef TCACHE_TCACHE_INTERNAL_H
#define TCACHE_TCACHE_INTERNAL_H

#include "tcache/tcache.h"

#define TC_REGIONS 4u
#define TC_STARTS  (256u << 10)

/* A guest page that holds the bytes of at least one live CCF. */
struct code_page {
    uint64_t pfn;
    struct code_page *hash_next; /* or the next free one */
    struct code_mapping *mappings; /* most recently asked for first */
    uint64_t granules;           /* bit i: some CCF covers bytes [64i, 64i+64), or did when they
                                    were last counted                                   */
    uint32_t nlisted;            /* CCFs in its lists, without gates: it is traced while there are any */
    uint32_t in_vain;            /* walks of the lists that found nothing, since then     */
};

#define PAGE_PARTS     16u
#define PAGE_PART_BITS 8u
_Static_assert(PAGE_PARTS << PAGE_PART_BITS == GUEST_PAGE_SIZE, "parts make a page");

/* The CCFs of such a page that run it at one VA page. A shared library is mapped anywhere: its
 * pages have hundreds of these. */
struct code_mapping {
    struct code_page *page;
    uint32_t vpn;                /* of EIP */
    uint32_t nccfs;              /* in all its lists */
    uint32_t longest;            /* bytes of a CCF here, at most, in this page */
    struct ccf *part[PAGE_PARTS]; /* by where its first byte in the page is: a store looks at one or two */
    struct ccf *gates;           /* gates hold for any bytes: a store need not look at them */
    uint32_t cr3, epoch;         /* when it was asked for last: CR3, and epoch of the user jump table */
    struct code_mapping *next, **at; /* or next: the next free one */
};

struct region {
    uint8_t *hot, *hot_end, *cold, *cold_end; /* RW view */
    uint8_t *hot_next, *cold_next;
    uint8_t *arena, *arena_end, *arena_next;
    struct ccf **order;                       /* [count] by hot address; grows down from arena_end */
    unsigned count;
};

#define JT_WARM 256u
/* A page whose CCFs were put into the jump table in the epoch given. */
struct warm_page {
    uint64_t pfn;
    uint32_t vpn, epoch;
};

/* One view's jump table with what its slots stand for. */
struct jump_table {
    const uint8_t **slot;  /* [VIEW_JT_ENTRIES] */
    uint32_t *eip;         /* whole EIP of each used slot */
    uint8_t *is_global;
    uint16_t *used;        /* indices of slots that were filled since the last clear */
    uint8_t *is_listed;
    unsigned nused;
    struct warm_page warm[JT_WARM];
    uint32_t epoch;        /* moves when slots are dropped */
};

#define TC_FAR_LISTS 256u
#define TC_USER 1u /* of jt[]: the user view */

struct tcache {
    struct vcpu *cpu;
    struct tcache_config config;
    uint8_t *rw;
    const uint8_t *rx;
    ptrdiff_t exec_delta;
    uint8_t *arena;
    size_t arena_bytes;

    struct region region[TC_REGIONS];
    unsigned current;

    struct ccf **hash;
    struct ccf **twins; /* [hash_mask + 1], by PA and mode: the last one with places that was made */
    uint32_t hash_mask;
    struct code_page *pages, *free_page;
    struct code_page **page_hash;
    struct code_mapping *mappings, *free_mapping;
    uint32_t npages_begun, nmappings_begun; /* of the pools: those above were never used */
    uint32_t page_mask;
    uint32_t npages;

    struct jump_table jt[2];
    struct ccf_link *far[TC_FAR_LISTS]; /* chains between pages, by target page */
    uint32_t nfar;
    uint64_t generation;
    uint64_t starts[TC_STARTS / 64]; /* bit PA mod TC_STARTS: a CCF was made there, some time */
    size_t footprint;   /* bytes of this reservation */
};

struct ccf **tcache_hash_slot(struct tcache *tc, const struct ccf_key *key) __attribute__((nonnull));
struct ccf **tcache_twin_slot(struct tcache *tc, const struct ccf_key *key) __attribute__((nonnull));
bool tcache_pages_add(struct tcache *tc, struct ccf *ccf); /* false: the pool is empty */
void tcache_pages_remove(struct tcache *tc, struct ccf *ccf);
/* The CCF, which is no gate, is to be listed as run at `vpn`. false: the pool is empty, and nothing changed. */
bool tcache_pages_move(struct tcache *tc, struct ccf *ccf, uint32_t vpn);
struct code_page *tcache_page_find(struct tcache *tc, uint64_t pfn);
/* The page's CCFs at VA page `vpn`, or NULL. */
struct code_mapping *tcache_mapping_find(struct tcache *tc, struct code_page *p, uint32_t vpn);
/* In which part of that page is it listed? One that ends in the page that it begins in, by way of two VA
 * pages, has bytes at both ends: it is taken for one as long as the page. */
static inline unsigned ccf_page_part(const struct ccf *c, int which)
{
    bool is_whole = c->pfn2 == c->key.pa >> GUEST_PAGE_SHIFT;

    return which || is_whole ? 0 : ((uint32_t)c->key.pa & GUEST_PAGE_MASK) >> PAGE_PART_BITS;
}
/* Which of its two pages is `pfn`? */
static inline int ccf_which_page(const struct ccf *c, uint64_t pfn)
{
    return c->key.pa >> GUEST_PAGE_SHIFT == pfn ? 0 : 1;
}
/* patch.c: the bytes [from, to) of page `pfn` were written. true: the CCF is good as it is now. Else *changed is
 * the offset of the first byte that is not, from the CCF's first. */
bool tcache_patch(struct tcache *tc, struct ccf *ccf, uint64_t pfn, uint32_t from, uint32_t to, const uint8_t *now,
                  uint32_t *changed);
/* gate.c */
void tcache_gate_commit(struct tcache *tc, struct ccf *gate, struct ccf *version);
/* A live CCF is about to be dropped, which may be a gate or a version. */
void tcache_gate_drop(struct tcache *tc, struct ccf *ccf, enum tcache_cause cause);
/* The memory of a parked version is about to be used again. */
void tcache_gate_evict(struct tcache *tc, struct ccf *version);
void tcache_park(struct tcache *tc, struct ccf *version);
/* The CCF's bytes in its first (0) or second (1) page, as offsets in that page. */
void tcache_span(const struct ccf *c, int which, uint32_t *from, uint32_t *to);
void tcache_unchain(struct tcache *tc, struct ccf *ccf);
/* Undo a chain, which there is. */
void tcache_unchain_link(struct tcache *tc, struct ccf_link *link);
void tcache_unchain_into(struct tcache *tc, struct ccf *ccf); /* those that lead to it */
void tcache_jt_drop_ccf(struct tcache *tc, const struct ccf *ccf);
void tcache_jt_init(struct tcache *tc);

static inline const uint8_t *ccf_verify(const struct ccf *c) { return c->hot + c->verify_ofs; }
static inline uint8_t *tcache_rw(const struct tcache *tc, const uint8_t *rx)
{
    return tc->rw + (rx - tc->rx);
}

#endif
