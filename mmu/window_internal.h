/* State of windows, inside struct mmu. */
#ifndef MMU_WINDOW_INTERNAL_H
#define MMU_WINDOW_INTERNAL_H

#include "mmu/window.h"

#define WINDOW_USERS 8u             /* cached user windows                               */
#define WINDOWS      (1u + WINDOW_USERS)
#define WINDOW_TABLE_NODES 8192u
#define WINDOW_TABLE_HASH  1024u

/* Writable runs of the supervisor window: from a PA page to where it is mapped. They are few
 * and long, so a list serves where the reverse map would need a node a page. */
#define WINDOW_RUNS 256u
struct window_run {
    uint32_t vpn, npages;
    uint64_t pfn;
};

/* A byte per VA page of a window. */
#define WP_MAPPED   1u
#define WP_WRITABLE 2u
#define WP_PENDING  4u /* to be unmapped before the next use */
#define WP_SEEN     8u /* was mapped since the window was opened or cleared */

#define WINDOW_PENDING 256u

struct window {
    uint8_t *base;     /* host address of VA 0; NULL: never made                          */
    uint8_t *page;     /* WP_* by VA page                                                 */
    bool in_use;
    uint32_t cr3;      /* user windows: the address space                                 */
    uint64_t pdpte[4]; /* and under PAE its directory pointers                            */
    uint32_t low, high; /* pages [low, high) hold every mapped one                        */
    uint32_t npending;  /* runs noted below; above WINDOW_PENDING: somewhere in [low, high) */
    uint32_t pending[WINDOW_PENDING]; /* first pages of WP_PENDING runs                   */
    uint32_t nvmas;    /* at most so many host mappings                                   */
    uint32_t cost;     /* since it was opened, in quarters: mmu_window_cost               */
    uint64_t used;     /* when it was last current                                        */
};

/** A page-table page that mappings of a user window came from. */
struct table_node {
    uint32_t pfn;
    uint32_t next;      /* index, 0 ends the list                                         */
    uint32_t va_page;   /* first VA page that the table covers                            */
    uint32_t per_entry; /* VA pages an entry covers                                       */
    uint8_t window;
    uint8_t entry_bytes;
};

struct windows {
    struct window w[WINDOWS];          /* [0] is the supervisor's                         */
    struct window_run run[WINDOW_RUNS];
    unsigned nruns;
    unsigned user;                     /* index of the present user window, 0 without     */
    uint64_t clock;
    uint32_t budget;                   /* host mappings for all windows                   */
    uint32_t hash[WINDOW_TABLE_HASH];
    struct table_node *node;           /* [WINDOW_TABLE_NODES], [0] unused                */
    uint32_t fresh, free;
};

void windows_done(struct mmu *m);
/** CR3 was loaded: which user window is current now? */
void windows_switch(struct mmu *m);
/** An address's mappings end (INVLPG, page fault). */
void windows_drop_va(struct mmu *m, uint32_t vpn, uint32_t npages);
/** A page may be in no window any more, whatever the address space. */
void windows_forget_page(struct mmu *m, uint32_t vpn);
/** Everything ends: CR0, CR4, A20. */
void windows_flush(struct mmu *m);
/** A watched page-table page was written. */
void windows_table_written(struct mmu *m, uint64_t pa, uint32_t len);
/** A page becomes traced: it must not be writable in user window `index` at vpn. */
void windows_protect(struct mmu *m, unsigned index, uint32_t vpn);
/** The same for the supervisor window, wherever the page is mapped there. */
void windows_protect_supervisor(struct mmu *m, uint64_t pfn);
bool windows_is_writable(const struct mmu *m, unsigned index, uint32_t vpn);

#endif
