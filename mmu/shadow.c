/*
 * The two views' slot tables, and the fetch TLB beside them: filling, and every way of
 * dropping. Together they behave as the processor's TLB: what a walk found stays until a
 * CR3 load (unless global), INVLPG, a page fault on the address, or a flush.
 *
 * Each view keeps a byte per VA page and lists of the pages that have something to drop. A
 * CR3 load walks the list of non-global pages and nothing else; INVLPG looks at one byte per
 * view. A page whose slots were dropped may stay listed, and is not listed twice. Slots that
 * came from a large page mark their 4 MiB region; INVLPG there drops the whole region, as the
 * one entry of a hardware TLB would go.
 *
 * Whoever keeps things by fetch mapping (jump tables, return stacks) hears of a drop only if
 * something of that kind was fetched since the last time.
 *
 * Invariants: a set store slot equals the load slot of its page; a page with a set slot or
 * a fetched bit is listed; the fetch TLB holds only pages with their fetched bit set.
 */
#include "mmu/mmu_internal.h"
#include "mmu/window_internal.h"

bool view_init(struct view *v)
{
    v->base = platform_reserve(VIEW_BYTES);
    v->page = platform_reserve(VIEW_PAGES);
    v->plain.vpn = platform_reserve(LIST_MAX * sizeof(uint32_t));
    v->global.vpn = platform_reserve(LIST_MAX * sizeof(uint32_t));
    v->load = (uint64_t *)(void *)(v->base + VIEW_LOAD_OFS);
    v->store = (uint64_t *)(void *)(v->base + VIEW_STORE_OFS);
    for (unsigned i = 0; i < FETCH_ENTRIES; i++)
        v->fetch[i].vpn = NO_PAGE;
    return v->base && v->page && v->plain.vpn && v->global.vpn;
}

static void release(void *p, size_t bytes)
{
    if (p)
        platform_release(p, bytes);
}

void view_done(struct view *v)
{
    release(v->base, VIEW_BYTES);
    release(v->page, VIEW_PAGES);
    release(v->plain.vpn, LIST_MAX * sizeof(uint32_t));
    release(v->global.vpn, LIST_MAX * sizeof(uint32_t));
}

uint8_t *mmu_view_base(struct mmu *m, enum mmu_view_id view)
{
    return m->view[view].base;
}

void mmu_select_view(struct vcpu *cpu)
{
    enum mmu_view_id id = cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR;

    cpu->view_base = (uintptr_t)cpu->mmu->view[id].base;
}

/* ---- dropping ------------------------------------------------------------------- */

static inline void fetch_forget(struct view *v, uint32_t vpn)
{
    struct fetch_entry *e = &v->fetch[vpn % FETCH_ENTRIES];

    if (e->vpn == vpn)
        e->vpn = NO_PAGE;
}

static inline void slots_clear(struct view *v, uint32_t vpn)
{
    v->load[2 * (size_t)vpn] = 0;
    v->store[2 * (size_t)vpn] = 0;
}

static void report_fetch_drop(struct mmu *m, enum mmu_view_id id, bool keep_global)
{
    struct view *v = &m->view[id];

    if (!v->has_fetched && (keep_global || !v->has_fetched_global))
        return;
    v->has_fetched = false;
    if (!keep_global)
        v->has_fetched_global = false;
    if (m->ops.fetch_drop_all)
        m->ops.fetch_drop_all(m->ops.ctx, id, keep_global);
}

/* A CR3 load: all but the global mappings. */
static void view_drop_plain(struct mmu *m, enum mmu_view_id id)
{
    struct view *v = &m->view[id];

    for (uint32_t i = 0; i < v->plain.count; i++) {
        uint32_t vpn = v->plain.vpn[i];
        unsigned flags = v->page[vpn];

        if (!(flags & PG_GLOBAL))
            slots_clear(v, vpn);
        if (flags & PG_FETCHED) {
            struct fetch_entry *e = &v->fetch[vpn % FETCH_ENTRIES];
            if (e->vpn == vpn && !e->is_global)
                e->vpn = NO_PAGE;
        }
        v->page[vpn] = (uint8_t)(flags & ~(PG_LISTED | PG_FETCHED));
    }
    STAT_ADD(m->cpu, page_drop, v->plain.count);
    v->plain.count = 0;
    report_fetch_drop(m, id, true);
}

static void list_drop(struct view *v, struct page_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        slots_clear(v, list->vpn[i]);
        fetch_forget(v, list->vpn[i]);
        v->page[list->vpn[i]] = 0;
    }
    list->count = 0;
}

/* Everything, in time proportional to what is there. */
static void view_flush(struct mmu *m, enum mmu_view_id id)
{
    struct view *v = &m->view[id];

    STAT_INC(m->cpu, view_flush);
    LOG(m->cpu->log, shadow, "view %u: flush of %u and %u global pages\n", (unsigned)id, v->plain.count,
        v->global.count);
    list_drop(v, &v->plain);
    list_drop(v, &v->global);
    for (size_t i = 0; i < ARRAY_LEN(v->large); i++)
        v->large[i] = 0;
    report_fetch_drop(m, id, false);
}

/* A list is full: start with empty tables, and give their memory back. */
static void view_wipe(struct mmu *m, enum mmu_view_id id)
{
    struct view *v = &m->view[id];

    platform_zero(v->base, VIEW_JT_OFS); /* the jump table belongs to others */
    platform_zero(v->page, VIEW_PAGES);
    v->plain.count = v->global.count = 0;
    for (unsigned i = 0; i < FETCH_ENTRIES; i++)
        v->fetch[i].vpn = NO_PAGE;
    for (size_t i = 0; i < ARRAY_LEN(v->touched); i++)
        v->touched[i] = 0;
    view_flush(m, id);
}

void mmu_make_room(struct vcpu *cpu)
{
    struct mmu *m = cpu->mmu;

    rmap_reserve(m, SPARE_PAGES);
    for (unsigned i = 0; i < VIEW_COUNT; i++)
        if (max_u32(m->view[i].plain.count, m->view[i].global.count) > LIST_MAX - SPARE_PAGES)
            view_wipe(m, i);
}

void shadow_flush(struct mmu *m)
{
    view_flush(m, VIEW_SUPERVISOR);
    view_flush(m, VIEW_USER);
}

/* @return whether the page had been fetched from. It stays listed. */
static bool page_drop(struct view *v, uint32_t vpn)
{
    unsigned flags = v->page[vpn];
    bool was_fetched = (flags & (PG_FETCHED | PG_FETCHED_G)) != 0;

    slots_clear(v, vpn);
    if (was_fetched)
        fetch_forget(v, vpn);
    v->page[vpn] = (uint8_t)(flags & (PG_LISTED | PG_LISTED_G));
    return was_fetched;
}

static void report_range_drop(struct mmu *m, enum mmu_view_id id, uint32_t vpn, uint32_t npages)
{
    if (m->ops.fetch_drop_range)
        m->ops.fetch_drop_range(m->ops.ctx, id, gva(vpn << GUEST_PAGE_SHIFT), npages << GUEST_PAGE_SHIFT);
}

static void region_drop(struct mmu *m, enum mmu_view_id id, uint32_t region)
{
    struct view *v = &m->view[id];
    uint32_t first = region * REGION_PAGES;
    bool was_fetched = false;

    if (m->windows)
        windows_drop_va(m, first, REGION_PAGES);

    for (uint32_t vpn = first; vpn < first + REGION_PAGES; vpn++)
        if (v->page[vpn]) {
            was_fetched |= page_drop(v, vpn);
            STAT_INC(m->cpu, page_drop);
        }
    v->large[region / 64] &= ~(1ull << region % 64);
    if (was_fetched)
        report_range_drop(m, id, first, REGION_PAGES);
}

void shadow_drop_va(struct mmu *m, gva_t va)
{
    uint32_t vpn = gva_page(va), region = va.v >> REGION_SHIFT;

    if (m->windows)
        windows_drop_va(m, vpn, 1);
    for (unsigned i = 0; i < VIEW_COUNT; i++) {
        struct view *v = &m->view[i];
        if (__builtin_expect(v->large[region / 64] >> region % 64 & 1, 0)) {
            region_drop(m, i, region);
        } else if (v->page[vpn]) {
            STAT_INC(m->cpu, page_drop);
            if (page_drop(v, vpn))
                report_range_drop(m, i, vpn, 1);
        }
    }
}

void mmu_invlpg(struct vcpu *cpu, gva_t va)
{
    STAT_INC(cpu, invlpg);
    LOG(cpu->log, shadow, "INVLPG VA 0x%08x\n", va.v);
    shadow_drop_va(cpu->mmu, va);
}

void mmu_cr3_loaded(struct vcpu *cpu)
{
    STAT_INC(cpu, cr3_load);
    LOG(cpu->log, shadow, "CR3 = 0x%08x\n", cpu->cr3);
    /* MOV to CR3 raised #GP before it came here if the entries were bad. */
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE))
        (void)mmu_load_pdptes(cpu, cpu->cr3);
    view_drop_plain(cpu->mmu, VIEW_SUPERVISOR);
    view_drop_plain(cpu->mmu, VIEW_USER);
    windows_switch(cpu->mmu);
}

void mmu_flush_all(struct vcpu *cpu)
{
    shadow_flush(cpu->mmu);
    windows_flush(cpu->mmu);
}

/* ---- filling -------------------------------------------------------------------- */

/* Make sure the page is in the list of its globality. May wipe the view. */
static inline void list_page(struct mmu *m, enum mmu_view_id id, uint32_t vpn, bool is_global)
{
    struct view *v = &m->view[id];
    unsigned bit = is_global ? PG_LISTED_G : PG_LISTED;
    struct page_list *list = is_global ? &v->global : &v->plain;

    if (v->page[vpn] & bit)
        return;
    if (__builtin_expect(list->count == LIST_MAX, 0))
        view_wipe(m, id);
    list->vpn[list->count++] = vpn;
    v->page[vpn] = (uint8_t)(v->page[vpn] | bit);
    v->touched[vpn >> 14] |= 1ull << (vpn >> 8 & 63);
}

static inline void mark_large(struct view *v, uint32_t vpn, const struct walk *w)
{
    uint32_t region = vpn / REGION_PAGES;

    if (w->leaf_bytes != GUEST_PAGE_SIZE)
        v->large[region / 64] |= 1ull << region % 64;
}

void shadow_fill(struct mmu *m, enum mmu_view_id id, uint32_t vpn, uint64_t pfn, const struct walk *w,
                 bool is_store)
{
    struct view *v = &m->view[id];
    uint64_t value = slot_value(page_host(m, pfn, page_flags(m, pfn)), vpn);

    /* Both of these may flush, so they come before the slots. */
    if (is_store) {
        rmap_add(m, id, vpn, pfn);
        STAT_INC(m->cpu, mem_fill_store);
    } else {
        STAT_INC(m->cpu, mem_fill_load);
    }
    list_page(m, id, vpn, w->is_global);
    mark_large(v, vpn, w);
    v->page[vpn] = (uint8_t)((v->page[vpn] & ~PG_GLOBAL) | (w->is_global ? PG_GLOBAL : 0));
    v->load[2 * (size_t)vpn] = value;
    v->store[2 * (size_t)vpn] = is_store ? value : 0;
    LOG(m->cpu->log, shadow, "view %u: %s VA 0x%08x -> PA 0x%09llx%s\n", (unsigned)id,
        is_store ? "store" : "load", vpn << GUEST_PAGE_SHIFT, (unsigned long long)pfn << GUEST_PAGE_SHIFT,
        w->is_global ? " global" : "");
}

void shadow_unfill(struct mmu *m, enum mmu_view_id id, uint32_t vpn)
{
    struct view *v = &m->view[id];

    if (v->load[2 * (size_t)vpn])
        slots_clear(v, vpn);
}

/* ---- fetch ------------------------------------------------------------------------ */

static enum x86_rc fetch_walk(struct vcpu *cpu, enum mmu_view_id id, gva_t va, struct fetch_entry *e)
{
    struct mmu *m = cpu->mmu;
    struct view *v = &m->view[id];
    uint32_t vpn = gva_page(va);
    struct walk w;

    if (mmu_walk(cpu, va, id == VIEW_USER ? ACC_EXEC | ACC_USER : ACC_EXEC, &w) != X86_OK) {
        shadow_drop_va(m, va);
        return X86_FAULT;
    }
    list_page(m, id, vpn, w.is_global);
    mark_large(v, vpn, &w);
    v->page[vpn] = (uint8_t)(v->page[vpn] | (w.is_global ? PG_FETCHED_G : PG_FETCHED));
    if (w.is_global)
        v->has_fetched_global = true;
    else
        v->has_fetched = true;
    *e = (struct fetch_entry){ .vpn = vpn,
                               .is_global = w.is_global,
                               .page_pa = w.pa.v & ~(uint64_t)GUEST_PAGE_MASK };
    return X86_OK;
}

enum x86_rc mmu_fetch(struct vcpu *cpu, gva_t va, gpa_t *pa, bool *is_global)
{
    enum mmu_view_id id = cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR;
    uint32_t vpn = gva_page(va);
    struct fetch_entry *e = &cpu->mmu->view[id].fetch[vpn % FETCH_ENTRIES];

    if (__builtin_expect(e->vpn != vpn, 0)) {
        enum x86_rc rc = fetch_walk(cpu, id, va, e);
        if (rc != X86_OK)
            return rc;
    }
    *pa = gpa(e->page_pa | (va.v & GUEST_PAGE_MASK));
    *is_global = e->is_global;
    return X86_OK;
}
