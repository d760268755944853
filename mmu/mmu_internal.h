/*
 * Private to mmu/: the views' tables, the physical map and what the files share.
 *
 * A view is the pair of slot tables that translated code reads plus what is
 * needed to take entries out again quickly: a byte per page (PG_*) and two lists of
 * the pages that have anything to drop, global ones apart from the rest, so that a
 * CR3 load costs time in proportion to the entries it kills.
 */
#ifndef MMU_INTERNAL_H
#define MMU_INTERNAL_H

#include "base/assert.h"
#include "base/log.h"
#include "mmu/mmu.h"

#define VIEW_PAGES    (1u << 20) /* pages of a 4 GiB linear address space               */
#define LIST_MAX      65536u     /* pages a list holds before the view is wiped          */
#define FETCH_ENTRIES 512u       /* fetch TLB, direct mapped                             */
#define SPARE_PAGES   64u        /* what mmu_make_room() leaves in lists and reverse map */
#define RMAP_NODES    (128u << 10) /* at least; one for each page of RAM */
#define NO_PAGE       UINT32_MAX /* no VA page has this number                           */

#define REGION_SHIFT 22u /* 4 MiB: the largest leaf; unit of INVLPG on large pages       */
#define REGION_PAGES (1u << (REGION_SHIFT - GUEST_PAGE_SHIFT))

/* What a view knows of a VA page besides its slots. A page with a set slot or a fetched
 * bit is in the list that its globality asks for; it may be in the other one too. */
#define PG_LISTED    0x01u /* in view->plain                                            */
#define PG_LISTED_G  0x02u /* in view->global                                           */
#define PG_GLOBAL    0x04u /* the slots come from a global mapping                      */
#define PG_FETCHED   0x08u /* fetched through a mapping that is not global              */
#define PG_FETCHED_G 0x10u /* fetched through a global mapping                          */

/* The byte of the physical map for a page of the RAM block: an enum region_kind and flags. 0 is plain
 * RAM that may have store slots. Pages past the block count as REGION_MMIO, and as REGION_IMAGE where
 * the ROM image ends at 4 GiB. */
#define PAGE_KIND   0x03u
#define PAGE_WRITES_RAM 0x20u /* not REGION_RAM, but writes go to the RAM block            */
#define PAGE_TRACED 0x80u /* holds translated code                                        */
#define PAGE_TABLE  0x40u /* a page table that a window's mappings came from              */
#define PAGE_GUARDED (PAGE_TRACED | PAGE_TABLE)

struct page_list {
    uint32_t *vpn;
    uint32_t count;
};

struct fetch_entry {
    uint32_t vpn; /* or NO_PAGE */
    bool is_global;
    uint64_t page_pa;
};

struct view {
    uint64_t *load, *store; /* slot of page p at index 2 * p                            */
    uint8_t *page;          /* PG_* by VA page                                          */
    struct page_list plain, global;
    bool has_fetched, has_fetched_global; /* since the last fetch_drop_all              */
    uint8_t *base;                        /* of VIEW_BYTES: both tables, then the jump table          */
    uint64_t large[(VIEW_PAGES / REGION_PAGES) / 64]; /* regions with slots from large leaves */
    uint64_t touched[VIEW_PAGES / 256 / 64];          /* 1 MiB pieces ever filled; for the audit  */
    struct fetch_entry fetch[FETCH_ENTRIES];
};

/** Reverse map: one store slot of a PA page. `where` is the VA page, the view above it;
 *  VIEW_COUNT + i stands for a writable page of window i. */
struct rmap_node {
    uint32_t where;
    uint32_t next; /* index, 0 ends the list */
};
#define RMAP_VIEW_SHIFT 20u

struct mmu {
    struct vcpu *cpu;
    uint8_t *ram;
    uint64_t ram_pages;
    uint8_t *kind; /* [ram_pages] */
    const uint8_t *rom;
    uint32_t rom_pages;
    struct mmu_ops ops;
    uint32_t rsvd_pte, rsvd_pde4m; /* reserved bits while CR4.PSE is set                   */
    uint64_t rsvd_pte_pae, rsvd_pde2m; /* reserved besides what all PAE entries have so     */
    uint32_t watched[MMU_WATCHED_MAX]; /* VA pages with data breakpoints                      */
    unsigned nwatched;
    struct view view[VIEW_COUNT];

    uint32_t *rmap_head;    /* [ram_pages], index of the first node or 0               */
    struct rmap_node *rmap; /* [rmap_nodes], [0] unused                                */
    uint32_t rmap_nodes;
    uint32_t rmap_free;     /* list of nodes given back                                */
    uint32_t rmap_nfree;    /* its length                                              */
    uint32_t rmap_fresh;    /* nodes from here on were never used                      */
    struct windows *windows; /* NULL until the first is opened                          */
};

/* ---- walks (walk.c) ------------------------------------------------------------ */

/** What the processor's features make of entries' reserved bits. */
void walk_set_reserved(struct mmu *m, bool has_pse36, bool has_pat);

/* ---- physical map (ram.c) ---------------------------------------------------- */

#define PFN_1M 0x100u
#define PFN_4G 0x100000u

static inline unsigned page_flags(const struct mmu *m, uint64_t pfn)
{
    if (__builtin_expect(pfn < m->ram_pages, 1))
        return m->kind[pfn];
    return pfn < PFN_4G && pfn >= PFN_4G - m->rom_pages ? REGION_IMAGE : REGION_MMIO;
}

/** Host address of a page of the RAM block. */
static inline uint8_t *ram_page(const struct mmu *m, uint64_t pfn)
{
    return m->ram + (pfn << GUEST_PAGE_SHIFT);
}

/** Host address of what is read from a page that is not REGION_MMIO. Only RAM may be written there. */
static inline uint8_t *page_host(const struct mmu *m, uint64_t pfn, unsigned flags)
{
    if (__builtin_expect((flags & PAGE_KIND) != REGION_IMAGE, 1))
        return ram_page(m, pfn);
    uint64_t from_end = (pfn < PFN_1M ? PFN_1M : PFN_4G) - pfn;
    return (uint8_t *)(uintptr_t)m->rom + ((m->rom_pages - from_end) << GUEST_PAGE_SHIFT);
}

/** A write that no slot takes: traced RAM, ROM or device. `pa` to the page's end has room for it. */
void phys_store(struct mmu *m, gpa_t pa, const void *buf, uint32_t len);

/** The A20 gate is between the processor and the bus: page tables are masked as well. */
static inline uint64_t a20_mask(const struct vcpu *cpu, uint64_t pa)
{
    return cpu->a20_off ? pa & ~(1ull << 20) : pa;
}

/** Device accesses in naturally aligned pieces of at most four bytes. */
void device_read(struct mmu *m, gpa_t pa, uint8_t *buf, uint32_t len);
void device_write(struct mmu *m, gpa_t pa, const uint8_t *buf, uint32_t len);

#define COPY_SMALL 40u

/** Copy without vector registers: the guest's SSE state may be live in them. */
static inline void copy_bytes(void *to, const void *from, uint32_t len)
{
    size_t n = len;

    switch (len) {
    case 1:
        __builtin_memcpy(to, from, 1);
        return;
    case 2:
        __builtin_memcpy(to, from, 2);
        return;
    case 4:
        __builtin_memcpy(to, from, 4);
        return;
    case 8:
        __builtin_memcpy(to, from, 8);
        return;
    }
    if (len <= COPY_SMALL && !(len & 3u)) { /* stack frames: starting REP takes longer than this */
        for (n = 0; n < len; n += 4)
            __builtin_memcpy((uint8_t *)to + n, (const uint8_t *)from + n, 4);
        return;
    }
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* ---- views (shadow.c) --------------------------------------------------------- */

/** Slot value that takes VA page vpn to a host page. */
static inline uint64_t slot_value(const uint8_t *host_page, uint32_t vpn)
{
    return (uint64_t)(uintptr_t)host_page - ((uint64_t)vpn << GUEST_PAGE_SHIFT);
}

static inline uint8_t *slot_host(uint64_t slot, gva_t va)
{
    return (uint8_t *)(uintptr_t)(slot + va.v);
}

bool view_init(struct view *v);
void view_done(struct view *v);
void shadow_fill(struct mmu *m, enum mmu_view_id id, uint32_t vpn, uint64_t pfn, const struct walk *w,
                 bool is_store);
/** A walk for this page led to a device: no slot may show an older mapping. */
void shadow_unfill(struct mmu *m, enum mmu_view_id id, uint32_t vpn);
/** What INVLPG does, without counting it as one. */
void shadow_drop_va(struct mmu *m, gva_t va);
void shadow_flush(struct mmu *m);

/* ---- watched pages (watch.c) ----------------------------------------------------- */

static inline bool page_is_watched(const struct mmu *m, uint32_t vpn)
{
    for (unsigned i = 0; i < m->nwatched; i++)
        if (m->watched[i] == vpn)
            return true;
    return false;
}

/* ---- reverse map (trace.c) ------------------------------------------------------ */
bool rmap_init(struct mmu *m);
void rmap_done(struct mmu *m);
void rmap_add(struct mmu *m, unsigned id, uint32_t vpn, uint64_t pfn);
/** Room for n more nodes, so that rmap_add will not flush. May flush now: slots and windows may be
 *  gone afterwards. false: there is not that much room at all. */
bool rmap_reserve(struct mmu *m, uint32_t n);
/** Take every store slot and writable window page away from a page, and mark it. */
void trace_guard(struct mmu *m, uint64_t pfn, unsigned why);
/** Report bytes of a page written by the guest, if it is traced. They are there already. */
void trace_report(struct mmu *m, gpa_t pa, uint32_t len);

#endif
