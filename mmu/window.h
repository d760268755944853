/*
 * The shadow page table in its window form: a view of one guest address space mapped into a
 * 4 GiB region of the process, where the host's MMU does the look-up.
 *
 * There is one supervisor window, for global mappings (or with paging off), and a handful of
 * user windows, each tagged with the CR3 it was made under. A hit costs
 * nothing; a miss costs a host signal and a mapping call, so windows are for code that
 * computes over mappings that last (docs/performance.md has the break-even).
 *
 * What keeps them right:
 *  - the supervisor window holds only what a CR3 load does not end; INVLPG and flushes
 *    unmap at once;
 *  - a user window is used at CPL 3 only, so losses are noted and carried out before the
 *    next entry to user code. Page-table pages that its mappings came from are watched: a
 *    store to an entry ends what the entry mapped. So a user window survives CR3 loads;
 *  - a page is writable in a window under the same conditions as a store slot (Dirty set,
 *    not traced), and the reverse map finds it when a trace is set;
 *  - mappings are counted against the host's limit; the user window used longest ago goes
 *    first.
 */
#ifndef MMU_WINDOW_H
#define MMU_WINDOW_H

#include "mmu/mmu.h"

/** Give the present address space a window for the view: 0 when it can't be had. */
bool mmu_window_open(struct vcpu *cpu, enum mmu_view_id view);
/** Host address of the view's window under the present CR3, 0 without one. */
uint64_t mmu_window_base(struct vcpu *cpu, enum mmu_view_id view);
/** Give the present user window up. */
void mmu_window_close(struct vcpu *cpu);
/** Host calls made for the present user window since it was opened; first fills of a page, and misses that were
 *  faults of the guest, count a quarter. */
uint32_t mmu_window_cost(struct vcpu *cpu);
/** Carry out what was noted for the present user window. Before every entry to user code. */
void mmu_window_sync(struct vcpu *cpu);
/** What a miss came to. */
enum window_fill {
    WINDOW_CANNOT,       /* the page can't be shown: a device, a trace, a watch; or the host has no mapping left */
    WINDOW_FAULTS,       /* the guest's own tables do not allow the access                                       */
    WINDOW_FILLED,       /* the first time since the window was opened                                           */
    WINDOW_FILLED_AGAIN, /* it had been mapped, and was dropped                                                  */
};
/** Make va accessible in the view's window; unless it is filled, the slow path decides. */
enum window_fill mmu_window_fill(struct vcpu *cpu, enum mmu_view_id view, gva_t va, bool is_store);
/** Is `host_addr` in the window at `base`, or in its guards? Then *va is the guest address. */
bool mmu_window_contains(uint64_t base, uint64_t host_addr, gva_t *va);

#endif
