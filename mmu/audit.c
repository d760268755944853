/*
 * The invariants of the module, checked one page after the other. Whether a slot agrees with
 * the guest's page tables is not among them: a stale entry is legal until the guest drops it.
 */
#include "mmu/mmu_internal.h"

struct audit {
    struct mmu *m;
    enum mmu_view_id id;
    unsigned violations;
    uint32_t listed, listed_global; /* pages whose byte says so */
};

static void violation(struct audit *a, uint32_t vpn, const char *what)
{
    a->violations++;
    log_printf(a->m->cpu->log, "audit: view %u, VA 0x%08x: %s\n", (unsigned)a->id, vpn << GUEST_PAGE_SHIFT,
               what);
}

static void expect(struct audit *a, bool holds, uint32_t vpn, const char *what)
{
    if (!holds)
        violation(a, vpn, what);
}

static bool rmap_has(struct mmu *m, enum mmu_view_id id, uint32_t vpn, uint64_t pfn)
{
    uint32_t where = vpn | (uint32_t)id << RMAP_VIEW_SHIFT;
    uint32_t index = m->rmap_head[pfn];

    for (uint32_t n = 0; index && n < m->rmap_nodes; n++, index = m->rmap[index].next)
        if (m->rmap[index].where == where)
            return true;
    return false;
}

static void audit_slots(struct audit *a, uint32_t vpn, uint64_t load, uint64_t store)
{
    struct mmu *m = a->m;
    uint64_t host = load + ((uint64_t)vpn << GUEST_PAGE_SHIFT);
    uint64_t ofs = host - (uint64_t)(uintptr_t)m->ram;
    uint64_t pfn = ofs >> GUEST_PAGE_SHIFT;

    if (!load) {
        expect(a, !store, vpn, "store slot without load slot");
        return;
    }
    if (host - (uint64_t)(uintptr_t)m->rom < (uint64_t)m->rom_pages << GUEST_PAGE_SHIFT) {
        expect(a, !(host & GUEST_PAGE_MASK), vpn, "load slot leads into the middle of a page of ROM");
        expect(a, !store, vpn, "store slot of the ROM image");
        return;
    }
    if ((ofs & GUEST_PAGE_MASK) || pfn >= m->ram_pages) {
        violation(a, vpn, "load slot leads out of RAM");
        return;
    }
    expect(a, (m->kind[pfn] & PAGE_KIND) != REGION_MMIO, vpn, "load slot of a device page");
    expect(a, !page_is_watched(m, vpn), vpn, "load slot of a watched page");
    if (!store)
        return;
    expect(a, store == load, vpn, "load and store slot differ");
    expect(a, (m->kind[pfn] & PAGE_KIND) == REGION_RAM, vpn, "store slot of a page that is not RAM");
    expect(a, !(m->kind[pfn] & PAGE_GUARDED), vpn, "store slot of a traced page");
    expect(a, rmap_has(m, a->id, vpn, pfn), vpn, "store slot unknown to the reverse map");
}

static void audit_page(struct audit *a, uint32_t vpn)
{
    const struct view *v = &a->m->view[a->id];
    unsigned flags = v->page[vpn];
    size_t slot = 2 * (size_t)vpn;

    expect(a, !v->load[slot + 1] && !v->store[slot + 1], vpn, "odd slot is not empty");
    audit_slots(a, vpn, v->load[slot], v->store[slot]);
    if (v->load[slot])
        expect(a, flags & (flags & PG_GLOBAL ? PG_LISTED_G : PG_LISTED), vpn, "page with slots is unlisted");
    if (flags & PG_FETCHED)
        expect(a, (flags & PG_LISTED) && v->has_fetched, vpn, "fetched page is unlisted");
    if (flags & PG_FETCHED_G)
        expect(a, (flags & PG_LISTED_G) && v->has_fetched_global, vpn, "global fetched page is unlisted");
    a->listed += (flags & PG_LISTED) != 0;
    a->listed_global += (flags & PG_LISTED_G) != 0;
}

static void audit_list(struct audit *a, const struct page_list *list, unsigned bit, uint32_t want)
{
    const struct view *v = &a->m->view[a->id];

    expect(a, list->count == want, 0, "list length and pages marked as listed differ");
    for (uint32_t i = 0; i < list->count; i++)
        expect(a, v->page[list->vpn[i]] & bit, list->vpn[i], "listed page without its mark");
}

static void audit_fetch(struct audit *a)
{
    const struct view *v = &a->m->view[a->id];

    for (uint32_t i = 0; i < FETCH_ENTRIES; i++) {
        const struct fetch_entry *e = &v->fetch[i];
        if (e->vpn == NO_PAGE)
            continue;
        expect(a, e->vpn % FETCH_ENTRIES == i, e->vpn, "fetch entry in the wrong place");
        expect(a, v->page[e->vpn] & (e->is_global ? PG_FETCHED_G : PG_FETCHED), e->vpn,
               "fetch entry of a page not marked as fetched");
    }
}

static void audit_view(struct audit *a)
{
    const struct view *v = &a->m->view[a->id];

    a->listed = a->listed_global = 0;
    for (uint32_t piece = 0; piece < VIEW_PAGES / 256; piece++)
        if (v->touched[piece / 64] >> piece % 64 & 1)
            for (uint32_t i = 0; i < 256; i++)
                audit_page(a, piece * 256 + i);
    audit_list(a, &v->plain, PG_LISTED, a->listed);
    audit_list(a, &v->global, PG_LISTED_G, a->listed_global);
    audit_fetch(a);
}

/* Every node is in one list or free: a cycle or a lost node shows in the count. */
static void audit_rmap(struct audit *a)
{
    struct mmu *m = a->m;
    uint32_t n = 1;

    for (uint32_t i = m->rmap_free; i && n <= m->rmap_nodes; i = m->rmap[i].next)
        n++;
    for (uint64_t pfn = 0; pfn < m->ram_pages; pfn++)
        for (uint32_t i = m->rmap_head[pfn]; i && n <= m->rmap_nodes; i = m->rmap[i].next)
            n++;
    expect(a, n == m->rmap_fresh, 0, "reverse map has lost or shared nodes");
}

unsigned mmu_audit(struct mmu *m)
{
    struct audit a = { .m = m };

    for (unsigned i = 0; i < VIEW_COUNT; i++) {
        a.id = i;
        audit_view(&a);
    }
    audit_rmap(&a);
    return a.violations;
}
