/*
 * Filling, dropping and caching windows: see window.h for the rules.
 *
 * A fill maps a run: the whole large page, or the neighbours in the same page table that
 * continue in PA and have their A (and D) bits set, since a read touch of a mapped run brings
 * in its neighbours for nothing and each scattered page is a host mapping of its own.
 *
 * Ref: Intel SDM vol. 3A, ch. "Paging": what may be cached and what must be invalidated.
 */
#include "mmu/mmu_internal.h"
#include "mmu/window_internal.h"
#include "platform/platform.h"

#define RUN_MAX 32u            /* pages to either side of the one that missed              */
/* What a window has cost says what it will cost: a page that is filled again may be so for ever, a first fill
 * and a fault of the guest (a signal for nothing) come once. */
#define COST_CALL 4u
#define COST_ONCE 1u
#define PA_MASK 0x0000000ffffff000ull

static struct windows *ws(struct mmu *m)
{
    return m->windows;
}

/* ---- page-table pages under watch --------------------------------------------------------- */

static uint32_t *table_head(struct windows *s, uint64_t pfn)
{
    return &s->hash[pfn % WINDOW_TABLE_HASH];
}

static bool table_is_watched(struct windows *s, uint64_t pfn)
{
    for (uint32_t i = *table_head(s, pfn); i; i = s->node[i].next)
        if (s->node[i].pfn == pfn)
            return true;
    return false;
}

static uint32_t node_take(struct windows *s)
{
    uint32_t i = s->free;

    if (i) {
        s->free = s->node[i].next;
        return i;
    }
    return s->fresh < WINDOW_TABLE_NODES ? s->fresh++ : 0;
}

/* false when there are no more records: the mapping may not be made. */
static bool watch(struct mmu *m, unsigned window, uint64_t table_pa, uint32_t va_page, uint32_t per_entry,
                  unsigned entry_bytes)
{
    struct windows *s = ws(m);
    uint64_t pfn = table_pa >> GUEST_PAGE_SHIFT;

    if (pfn >= m->ram_pages || (m->kind[pfn] & PAGE_KIND) != REGION_RAM)
        return false;
    for (uint32_t i = *table_head(s, pfn); i; i = s->node[i].next) {
        const struct table_node *n = &s->node[i];
        if (n->pfn == pfn && n->window == window && n->va_page == va_page && n->per_entry == per_entry)
            return true;
    }
    uint32_t i = node_take(s);
    if (!i)
        return false;
    s->node[i] = (struct table_node){ .pfn = (uint32_t)pfn, .next = *table_head(s, pfn), .va_page = va_page,
                                      .per_entry = per_entry, .window = (uint8_t)window,
                                      .entry_bytes = (uint8_t)entry_bytes };
    *table_head(s, pfn) = i;
    trace_guard(m, pfn, PAGE_TABLE);
    return true;
}

static void unwatch_window(struct mmu *m, unsigned window)
{
    struct windows *s = ws(m);

    for (uint32_t h = 0; h < WINDOW_TABLE_HASH; h++)
        for (uint32_t *at = &s->hash[h]; *at;) {
            uint32_t i = *at;
            if (s->node[i].window != window) {
                at = &s->node[i].next;
                continue;
            }
            uint64_t pfn = s->node[i].pfn;
            *at = s->node[i].next;
            s->node[i].next = s->free;
            s->free = i;
            if (!table_is_watched(s, pfn))
                m->kind[pfn] &= (uint8_t)~PAGE_TABLE;
        }
}

/* ---- dropping ------------------------------------------------------------------------------- */

static void unmap(struct mmu *m, struct window *w, uint32_t vpn, uint32_t npages)
{
    platform_window_unmap(w->base, vpn << GUEST_PAGE_SHIFT, (uint64_t)npages << GUEST_PAGE_SHIFT);
    for (uint32_t i = 0; i < npages; i++)
        w->page[vpn + i] = WP_SEEN;
    w->nvmas += 1; /* a hole may split a run */
    m->cpu->stats.window_vma++;
    w->cost += COST_CALL;
    STAT_ADD(m->cpu, page_drop, npages);
}

/* All of a window. Its mappings become one reservation again. */
static void window_clear(struct mmu *m, struct window *w)
{
    if (w->low < w->high) {
        platform_window_unmap(w->base, w->low << GUEST_PAGE_SHIFT,
                              (uint64_t)(w->high - w->low) << GUEST_PAGE_SHIFT);
        for (uint32_t vpn = w->low; vpn < w->high; vpn++)
            w->page[vpn] = 0;
    }
    m->cpu->stats.window_vma -= w->nvmas;
    w->nvmas = 0;
    if (w == &ws(m)->w[0])
        ws(m)->nruns = 0;
    w->low = VIEW_PAGES;
    w->high = w->npending = 0;
}

static void user_window_end(struct mmu *m, unsigned index)
{
    struct windows *s = ws(m);

    unwatch_window(m, index);
    window_clear(m, &s->w[index]);
    s->w[index].in_use = false;
    if (s->user == index)
        s->user = 0;
}

/* Pages that continue the run noted last need no record of their own. */
static void note_pending(struct window *w, uint32_t vpn, uint32_t npages)
{
    vpn = max_u32(vpn, w->low);
    for (uint32_t i = vpn; i < min_u32(vpn + npages, w->high); i++) {
        if ((w->page[i] & (WP_MAPPED | WP_PENDING)) != WP_MAPPED)
            continue;
        w->page[i] |= WP_PENDING;
        if (i && (w->page[i - 1] & WP_PENDING) && i > w->low)
            continue;
        if (w->npending < WINDOW_PENDING)
            w->pending[w->npending] = i;
        w->npending = min_u32(w->npending + 1, WINDOW_PENDING + 1);
    }
}

/* Unmap the pending run that starts at vpn. -> the page after it */
static uint32_t unmap_pending(struct mmu *m, struct window *w, uint32_t vpn)
{
    uint32_t end = vpn;

    while (end < w->high && (w->page[end] & WP_PENDING))
        end++;
    if (end > vpn)
        unmap(m, w, vpn, end - vpn);
    return end;
}

void mmu_window_sync(struct vcpu *cpu)
{
    struct windows *s = ws(cpu->mmu);

    if (!s || !s->user || !s->w[s->user].npending)
        return;
    struct window *w = &s->w[s->user];
    if (w->npending > WINDOW_PENDING)
        for (uint32_t vpn = w->low; vpn < w->high; vpn++)
            vpn = unmap_pending(cpu->mmu, w, vpn);
    else
        for (uint32_t i = 0; i < w->npending; i++)
            unmap_pending(cpu->mmu, w, w->pending[i]);
    w->npending = 0;
}

void windows_drop_va(struct mmu *m, uint32_t vpn, uint32_t npages)
{
    struct windows *s = ws(m);

    if (!s)
        return;
    if (s->w[0].in_use)
        for (uint32_t i = vpn, end; i < vpn + npages; i = end + 1) {
            for (end = i; end < vpn + npages && (s->w[0].page[end] & WP_MAPPED); end++)
                ;
            if (end > i)
                unmap(m, &s->w[0], i, end - i);
        }
    if (s->user)
        note_pending(&s->w[s->user], vpn, npages);
}

void windows_forget_page(struct mmu *m, uint32_t vpn)
{
    struct windows *s = ws(m);

    windows_drop_va(m, vpn, 1);
    for (unsigned i = 1; s && i < WINDOWS; i++)
        if (s->w[i].in_use)
            note_pending(&s->w[i], vpn, 1);
}

void windows_flush(struct mmu *m)
{
    struct windows *s = ws(m);

    if (!s)
        return;
    if (s->w[0].in_use)
        window_clear(m, &s->w[0]);
    for (unsigned i = 1; i < WINDOWS; i++)
        if (s->w[i].in_use)
            user_window_end(m, i);
}

void windows_protect(struct mmu *m, unsigned index, uint32_t vpn)
{
    struct window *w = &ws(m)->w[index];

    if (w->page[vpn] & WP_WRITABLE)
        note_pending(w, vpn, 1);
}

void windows_protect_supervisor(struct mmu *m, uint64_t pfn)
{
    struct windows *s = ws(m);

    for (unsigned i = 0; i < s->nruns; i++) {
        const struct window_run *r = &s->run[i];
        uint32_t vpn = r->vpn + (uint32_t)(pfn - r->pfn);
        if (pfn - r->pfn < r->npages && (s->w[0].page[vpn] & WP_WRITABLE))
            unmap(m, &s->w[0], vpn, 1); /* at once: kernel code may be in the middle of its run */
    }
}

bool windows_is_writable(const struct mmu *m, unsigned index, uint32_t vpn)
{
    const struct window *w = &m->windows->w[index];

    return w->in_use && (w->page[vpn] & (WP_WRITABLE | WP_PENDING)) == WP_WRITABLE;
}

void windows_table_written(struct mmu *m, uint64_t pa, uint32_t len)
{
    struct windows *s = ws(m);
    uint64_t pfn = pa >> GUEST_PAGE_SHIFT;
    uint32_t ofs = (uint32_t)pa & GUEST_PAGE_MASK;
    unsigned abandoned = 0;

    for (uint32_t i = *table_head(s, pfn); i; i = s->node[i].next) {
        const struct table_node *n = &s->node[i];
        if (n->pfn != pfn)
            continue;
        uint32_t first = ofs / n->entry_bytes, last = (ofs + len - 1) / n->entry_bytes;
        note_pending(&s->w[n->window], n->va_page + first * n->per_entry, (last - first + 1) * n->per_entry);
        if (n->per_entry > 1 && n->window != s->user)
            abandoned = n->window;
    }
    if (abandoned) /* another program's directory is rewritten: it has ended, most likely */
        user_window_end(m, abandoned);
}

/* ---- address spaces ----------------------------------------------------------------------------- */

static bool is_pae(const struct vcpu *cpu)
{
    return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE);
}

static bool is_tagged(const struct window *w, const struct vcpu *cpu)
{
    if (!w->in_use || w->cr3 != cpu->cr3)
        return false;
    for (unsigned i = 0; is_pae(cpu) && i < 4; i++)
        if (w->pdpte[i] != cpu->pdpte[i])
            return false;
    return true;
}

void windows_switch(struct mmu *m)
{
    struct windows *s = ws(m);

    if (!s)
        return;
    if (s->user && is_tagged(&s->w[s->user], m->cpu)) {
        STAT_INC(m->cpu, window_hit);
        return;
    }
    s->user = 0;
    for (unsigned i = 1; i < WINDOWS; i++)
        if (is_tagged(&s->w[i], m->cpu)) {
            s->user = i;
            s->w[i].used = ++s->clock;
            STAT_INC(m->cpu, window_hit);
            return;
        }
}

static bool window_make(struct window *w)
{
    if (!w->base)
        w->base = platform_window_new();
    if (!w->page)
        w->page = platform_reserve(VIEW_PAGES);
    w->low = VIEW_PAGES;
    w->high = w->npending = 0;
    w->in_use = w->base && w->page;
    return w->in_use;
}

static bool windows_make(struct mmu *m)
{
    if (m->windows)
        return true;
    struct windows *s = platform_reserve((sizeof *s + GUEST_PAGE_MASK) & ~(size_t)GUEST_PAGE_MASK);
    if (!s)
        return false;
    s->node = platform_reserve(WINDOW_TABLE_NODES * sizeof *s->node);
    s->fresh = 1;
    s->budget = platform_window_vma_budget();
    m->windows = s;
    return s->node != NULL;
}

/* A free user window, or the one used longest ago. */
static unsigned pick_user(struct mmu *m)
{
    struct windows *s = ws(m);
    unsigned best = 1;

    for (unsigned i = 1; i < WINDOWS; i++) {
        if (!s->w[i].in_use)
            return i;
        if (s->w[i].used < s->w[best].used)
            best = i;
    }
    STAT_INC(m->cpu, window_evict);
    user_window_end(m, best);
    return best;
}

bool mmu_window_open(struct vcpu *cpu, enum mmu_view_id view)
{
    struct mmu *m = cpu->mmu;

    if (!windows_make(m))
        return false;
    if (mmu_window_base(cpu, view))
        return true;
    if (view == VIEW_SUPERVISOR)
        return window_make(&ws(m)->w[0]);
    if (!(cpu->cr0 & CR0_PG)) /* its walks have no tables that could be watched */
        return false;
    unsigned i = pick_user(m);
    struct window *w = &ws(m)->w[i];
    if (!window_make(w))
        return false;
    w->cr3 = cpu->cr3;
    w->cost = 0;
    for (unsigned k = 0; k < 4; k++)
        w->pdpte[k] = cpu->pdpte[k];
    w->used = ++ws(m)->clock;
    ws(m)->user = i;
    return true;
}

void mmu_window_close(struct vcpu *cpu)
{
    struct mmu *m = cpu->mmu;

    if (ws(m) && ws(m)->user)
        user_window_end(m, ws(m)->user);
}

uint32_t mmu_window_cost(struct vcpu *cpu)
{
    const struct windows *s = ws(cpu->mmu);

    return s && s->user ? s->w[s->user].cost / COST_CALL : 0;
}

static struct window *current(struct mmu *m, enum mmu_view_id view)
{
    struct windows *s = ws(m);
    unsigned i = view == VIEW_SUPERVISOR ? 0 : s ? s->user : 0;

    if (!s || (view == VIEW_USER && !i) || !s->w[i].in_use)
        return NULL;
    return &s->w[i];
}

uint64_t mmu_window_base(struct vcpu *cpu, enum mmu_view_id view)
{
    const struct window *w = current(cpu->mmu, view);

    return w ? (uint64_t)(uintptr_t)w->base : 0;
}

bool mmu_window_contains(uint64_t base, uint64_t host_addr, gva_t *va)
{
    uint64_t ofs = host_addr - base;

    *va = gva((uint32_t)ofs);
    return base && (ofs < (1ull << 32) + GUEST_PAGE_SIZE || 0 - ofs <= GUEST_PAGE_SIZE);
}

/* ---- filling -------------------------------------------------------------------------------------- */

/* Where the walk of va reads its entries. */
struct tables {
    uint64_t directory, table; /* PA of the pages; table 0 for a large page */
    unsigned entry_bytes;
    uint32_t table_pages;      /* VA pages that one directory entry covers */
};

/* 0, not present, for tables elsewhere: then runs are one page long. */
static uint64_t read_entry(struct mmu *m, uint64_t pa, unsigned bytes)
{
    unsigned flags = page_flags(m, pa >> GUEST_PAGE_SHIFT);
    uint64_t entry = 0;

    if ((flags & PAGE_KIND) == REGION_RAM || (flags & PAGE_KIND) == REGION_ROM)
        copy_bytes(&entry, m->ram + pa, bytes);
    return entry;
}

static void find_tables(const struct vcpu *cpu, uint32_t vpn, struct tables *t)
{
    struct mmu *m = cpu->mmu;
    uint64_t pde;

    if (is_pae(cpu)) {
        *t = (struct tables){ .directory = cpu->pdpte[vpn >> 18] & PA_MASK, .entry_bytes = 8, .table_pages = 512 };
        pde = read_entry(m, t->directory + (vpn >> 9 & 511) * 8, 8);
    } else {
        *t = (struct tables){ .directory = cpu->cr3 & ~GUEST_PAGE_MASK, .entry_bytes = 4, .table_pages = 1024 };
        pde = read_entry(m, t->directory + (vpn >> 10) * 4, 4);
    }
    bool is_large = (pde & PTE_PS) && (is_pae(cpu) || (cpu->cr4 & CR4_PSE));
    t->table = is_large ? 0 : pde & PA_MASK;
}

/* A run of VA pages to map at once. */
struct run {
    uint32_t vpn, npages;
    uint64_t pfn;
    bool is_writable, is_executable;
};

static bool page_fits(const struct mmu *m, uint64_t pfn, bool is_writable)
{
    unsigned flags = page_flags(m, pfn);

    /* The ROM image is not in the file that windows show. */
    return is_writable ? flags == REGION_RAM : (flags & PAGE_KIND) < REGION_MMIO;
}

/* Does VA page vpn of the same table continue the run, `delta` pages from its first? */
static bool pte_continues(const struct vcpu *cpu, const struct tables *t, uint32_t vpn, uint64_t pfn,
                          const struct run *r, uint32_t needs)
{
    struct mmu *m = cpu->mmu;
    uint64_t pte = read_entry(m, t->table + (uint64_t)(vpn % t->table_pages) * t->entry_bytes, t->entry_bytes);

    if (r->is_writable)
        needs |= PTE_W | PTE_D;
    return (pte & needs) == needs && !(pte & PTE_NX) == r->is_executable &&
           (pte & PA_MASK) >> GUEST_PAGE_SHIFT == pfn && page_fits(m, pfn, r->is_writable);
}

/* A page that is mapped as well or better would only have to be touched anew. */
static bool wants_mapping(const struct window *w, uint32_t vpn, bool is_writable)
{
    unsigned has = w->page[vpn];

    return !(has & WP_MAPPED) || (has & WP_PENDING) || (is_writable && !(has & WP_WRITABLE));
}

static void extend_in_table(const struct vcpu *cpu, const struct window *w, const struct tables *t, struct run *r,
                            uint32_t needs)
{
    if (!t->table)
        return;
    for (unsigned i = 0; i < RUN_MAX && (r->vpn + r->npages) % t->table_pages; i++) {
        if (!wants_mapping(w, r->vpn + r->npages, r->is_writable) ||
            !pte_continues(cpu, t, r->vpn + r->npages, r->pfn + r->npages, r, needs))
            break;
        r->npages++;
    }
    for (unsigned i = 0; i < RUN_MAX && r->vpn % t->table_pages && r->pfn; i++) {
        if (!wants_mapping(w, r->vpn - 1, r->is_writable) ||
            !pte_continues(cpu, t, r->vpn - 1, r->pfn - 1, r, needs))
            break;
        r->vpn--;
        r->pfn--;
        r->npages++;
    }
}

/* Around vpn, within [first, last] and as long as the pages fit. */
static void extend_linear(const struct mmu *m, struct run *r, uint32_t first, uint32_t last)
{
    while (r->vpn + r->npages - 1 < last && page_fits(m, r->pfn + r->npages, r->is_writable))
        r->npages++;
    while (r->vpn > first && r->pfn && page_fits(m, r->pfn - 1, r->is_writable)) {
        r->vpn--;
        r->pfn--;
        r->npages++;
    }
}

static bool over_budget(struct mmu *m)
{
    struct windows *s = ws(m);
    uint32_t sum = 0;

    for (unsigned i = 0; i < WINDOWS; i++)
        sum += s->w[i].nvmas;
    return sum + 4 > s->budget;
}

/* Make room for one more mapping: other windows first, then this one starts anew. */
static void keep_budget(struct mmu *m, unsigned index)
{
    struct windows *s = ws(m);

    while (over_budget(m)) {
        unsigned oldest = 0;
        for (unsigned i = 1; i < WINDOWS; i++)
            if (i != index && s->w[i].in_use && (!oldest || s->w[i].used < s->w[oldest].used))
                oldest = i;
        STAT_INC(m->cpu, window_evict);
        if (oldest) {
            user_window_end(m, oldest);
            continue;
        }
        window_clear(m, &s->w[s->w[0].nvmas > s->w[index].nvmas ? 0 : index]);
        return;
    }
}

/* Watched pages are in no window: the run ends before them. */
static bool leave_out_watched(const struct mmu *m, uint32_t vpn, struct run *r)
{
    for (unsigned i = 0; i < m->nwatched; i++) {
        uint32_t page = m->watched[i], ofs = page - r->vpn;

        if (ofs >= r->npages)
            continue;
        if (page == vpn)
            return false;
        if (page < vpn) {
            r->vpn = page + 1;
            r->pfn += ofs + 1;
            r->npages -= ofs + 1;
        } else {
            r->npages = ofs;
        }
    }
    return true;
}

static bool map_run(struct mmu *m, unsigned index, const struct run *r)
{
    struct window *w = &ws(m)->w[index];
    unsigned rights = (r->is_writable ? WINDOW_WRITE : 0) | (index ? WINDOW_USER : 0) |
                      (index && r->is_executable ? WINDOW_EXECUTE : 0);

    if (r->is_writable && index && (!rmap_reserve(m, r->npages) || !w->in_use)) /* it may have been flushed */
        return false;
    keep_budget(m, index);
    if (r->is_writable && !index && ws(m)->nruns == WINDOW_RUNS)
        window_clear(m, w);
    if (platform_window_map(w->base, r->vpn << GUEST_PAGE_SHIFT, r->pfn << GUEST_PAGE_SHIFT,
                            r->npages << GUEST_PAGE_SHIFT, rights) != 0)
        return false;
    w->nvmas += 2;
    w->cost += w->page[r->vpn] & WP_SEEN ? COST_CALL : COST_ONCE;
    m->cpu->stats.window_vma += 2;
    STAT_INC(m->cpu, window_map);
    for (uint32_t i = 0; i < r->npages; i++) {
        w->page[r->vpn + i] = WP_MAPPED | (r->is_writable ? WP_WRITABLE : 0) | (w->page[r->vpn + i] & WP_SEEN);
        if (r->is_writable && index)
            rmap_add(m, VIEW_COUNT + index, r->vpn + i, r->pfn + i);
    }
    if (r->is_writable && !index)
        ws(m)->run[ws(m)->nruns++] = (struct window_run){ r->vpn, r->npages, r->pfn };
    w->low = min_u32(w->low, r->vpn);
    w->high = max_u32(w->high, r->vpn + r->npages);
    return true;
}

/* Only through what outlives a CR3 load. Read-only until a store misses, so that the pages of
 * kernel text, which are traced, stay in one piece. */
static bool fill_supervisor(struct vcpu *cpu, uint32_t vpn, const struct walk *w, bool is_store, struct run *r)
{
    struct tables t;

    if (!w->is_global)
        return false;
    r->is_writable = is_store;
    if (!(cpu->cr0 & CR0_PG)) {
        extend_linear(cpu->mmu, r, vpn & ~(REGION_PAGES - 1), vpn | (REGION_PAGES - 1));
    } else if (w->leaf_bytes != GUEST_PAGE_SIZE) {
        uint32_t pages = w->leaf_bytes >> GUEST_PAGE_SHIFT;
        extend_linear(cpu->mmu, r, vpn & ~(pages - 1), vpn | (pages - 1));
        cpu->mmu->view[VIEW_SUPERVISOR].large[vpn / REGION_PAGES / 64] |= 1ull << (vpn / REGION_PAGES) % 64;
    } else {
        find_tables(cpu, vpn, &t);
        extend_in_table(cpu, &ws(cpu->mmu)->w[0], &t, r, PTE_P | PTE_A | PTE_G);
    }
    return true;
}

static bool fill_user(struct vcpu *cpu, unsigned index, uint32_t vpn, const struct walk *w, struct run *r)
{
    struct mmu *m = cpu->mmu;
    struct tables t;

    find_tables(cpu, vpn, &t);
    uint32_t directory_pages = t.table_pages * (GUEST_PAGE_SIZE / t.entry_bytes);
    if (!watch(m, index, t.directory, vpn & ~(directory_pages - 1), t.table_pages, t.entry_bytes))
        return false;
    if (w->leaf_bytes != GUEST_PAGE_SIZE) {
        uint32_t pages = w->leaf_bytes >> GUEST_PAGE_SHIFT;
        extend_linear(m, r, vpn & ~(pages - 1), vpn | (pages - 1));
        return true;
    }
    if (!watch(m, index, t.table, vpn & ~(t.table_pages - 1), 1, t.entry_bytes))
        return false;
    extend_in_table(cpu, &ws(m)->w[index], &t, r, PTE_P | PTE_A | PTE_US);
    return true;
}

enum window_fill mmu_window_fill(struct vcpu *cpu, enum mmu_view_id view, gva_t va, bool is_store)
{
    struct mmu *m = cpu->mmu;
    struct window *w = current(m, view);
    unsigned user = view == VIEW_USER ? ACC_USER : 0;
    uint32_t vpn = gva_page(va);
    struct walk walk;

    if (!w || cpu->a20_off)
        return WINDOW_CANNOT;
    if (mmu_walk(cpu, va, (is_store ? ACC_WRITE : ACC_READ) | user, &walk) != X86_OK) {
        w->cost += COST_ONCE;
        return WINDOW_FAULTS;
    }
    struct run r = { .vpn = vpn, .npages = 1, .pfn = gpa_page(walk.pa), .is_executable = walk.is_executable };
    if (!page_fits(m, r.pfn, is_store))
        return WINDOW_CANNOT;
    unsigned index = (unsigned)(w - ws(m)->w);
    if (view == VIEW_SUPERVISOR) {
        if (!fill_supervisor(cpu, vpn, &walk, is_store, &r))
            return WINDOW_CANNOT;
    } else {
        r.is_writable = walk.is_writable && walk.is_dirty && page_fits(m, r.pfn, true);
        if (!fill_user(cpu, index, vpn, &walk, &r))
            return WINDOW_CANNOT;
        if (is_store && !page_fits(m, r.pfn, true)) /* the watch was put on this very page */
            return WINDOW_CANNOT;
    }
    if (!leave_out_watched(m, vpn, &r))
        return WINDOW_CANNOT;
    bool is_again = w->page[vpn] & WP_SEEN;
    LOG(cpu->log, shadow, "window %u: VA 0x%08x, %u pages from PA 0x%llx%s\n", index, r.vpn << GUEST_PAGE_SHIFT,
        r.npages, (unsigned long long)r.pfn << GUEST_PAGE_SHIFT, r.is_writable ? ", writable" : "");
    if (!map_run(m, index, &r))
        return WINDOW_CANNOT;
    return is_again ? WINDOW_FILLED_AGAIN : WINDOW_FILLED;
}

void windows_done(struct mmu *m)
{
    struct windows *s = ws(m);

    if (!s)
        return;
    for (unsigned i = 0; i < WINDOWS; i++) {
        if (s->w[i].base)
            platform_window_free(s->w[i].base);
        if (s->w[i].page)
            platform_release(s->w[i].page, VIEW_PAGES);
    }
    if (s->node)
        platform_release(s->node, WINDOW_TABLE_NODES * sizeof *s->node);
    platform_release(s, (sizeof *s + GUEST_PAGE_MASK) & ~(size_t)GUEST_PAGE_MASK);
    m->windows = NULL;
}
