/*
 * Watched pages: the mmu's part in data breakpoints.
 *
 * A watched page has no slot in either view and is in no window, so that whoever accesses it
 * comes to mmu_read or mmu_write, which report what they did; everybody else pays nothing. The
 * breakpoints themselves (which bytes, reads or writes) are monitor/debug.c's. A breakpoint's
 * bytes are aligned, hence never lie in two pages.
 *
 * Ref: Intel SDM vol. 3B, ch. "Debug, Branch Profile, TSC, ...", Data Memory and I/O Breakpoint
 * Exception Conditions.
 */
#include "mmu/mmu_internal.h"
#include "mmu/window_internal.h"

void mmu_watch_pages(struct vcpu *cpu, const uint32_t *vpn, unsigned n)
{
    struct mmu *m = cpu->mmu;

    ASSERT(n <= MMU_WATCHED_MAX);
    m->nwatched = n;
    for (unsigned i = 0; i < n; i++) {
        m->watched[i] = vpn[i];
        shadow_unfill(m, VIEW_SUPERVISOR, vpn[i]);
        shadow_unfill(m, VIEW_USER, vpn[i]);
        windows_forget_page(m, vpn[i]);
    }
}

bool mmu_is_watched(const struct mmu *m, gva_t va)
{
    return page_is_watched(m, gva_page(va));
}

void mmu_watch_report(struct vcpu *cpu, gva_t va, uint32_t size, bool is_write)
{
    struct mmu *m = cpu->mmu;

    if (page_is_watched(m, gva_page(va)) || page_is_watched(m, gva_page(gva_add(va, size - 1))))
        m->ops.watched_access(m->ops.ctx, va, size, is_write);
}
