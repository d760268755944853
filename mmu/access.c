/*
 * Guest linear accesses from C. mmu_probe is where translated code goes when its slot is
 * empty: take the slot if it is there after all, else walk, fill, and hand out the host
 * address. What may not be touched directly (device, ROM store, traced or watched page, two pages) is
 * carried out piecewise by mmu_read and mmu_write, which resolve every page before the first
 * byte moves.
 *
 * The tables are consulted first everywhere: C and translated code see the same TLB.
 */
#include "mmu/mmu_internal.h"

/* Where one page's part of an access goes. */
struct place {
    uint8_t *host; /* NULL: through `pa` */
    gpa_t pa;      /* set when host is NULL */
};

static enum mmu_view_id access_view(unsigned access)
{
    return (access & ACC_USER) ? VIEW_USER : VIEW_SUPERVISOR;
}

/* The slot is empty: walk, and fill what the page may have. */
static enum x86_rc resolve_walk(struct vcpu *cpu, gva_t va, unsigned access, struct place *out)
{
    struct mmu *m = cpu->mmu;
    enum mmu_view_id id = access_view(access);
    struct walk w;

    if (mmu_walk(cpu, va, access, &w) != X86_OK) {
        /* A page fault drops what the TLB has for the address (SDM vol. 3A, "Operations that
         * Invalidate TLBs and Paging-Structure Caches"). */
        shadow_drop_va(m, va);
        return X86_FAULT;
    }
    uint64_t pfn = gpa_page(w.pa);
    unsigned flags = page_flags(m, pfn);
    bool is_store = (access & ACC_WRITE) != 0;
    bool is_direct = is_store ? flags == REGION_RAM : (flags & PAGE_KIND) != REGION_MMIO;

    if ((flags & PAGE_KIND) != REGION_MMIO && !page_is_watched(m, gva_page(va)))
        shadow_fill(m, id, gva_page(va), pfn, &w, is_store && is_direct);
    else
        shadow_unfill(m, id, gva_page(va));
    out->host = is_direct ? page_host(m, pfn, flags) + (w.pa.v & GUEST_PAGE_MASK) : NULL;
    out->pa = w.pa;
    return X86_OK;
}

static inline enum x86_rc resolve(struct vcpu *cpu, gva_t va, unsigned access, struct place *out)
{
    const struct view *v = &cpu->mmu->view[access_view(access)];
    uint64_t slot = ((access & ACC_WRITE) ? v->store : v->load)[2 * (size_t)gva_page(va)];

    if (slot) {
        *out = (struct place){ .host = slot_host(slot, va) };
        return X86_OK;
    }
    return resolve_walk(cpu, va, access, out);
}

static inline uint32_t page_room(gva_t va)
{
    return GUEST_PAGE_SIZE - (va.v & GUEST_PAGE_MASK);
}

enum x86_rc mmu_probe(struct vcpu *cpu, gva_t va, unsigned size, unsigned access, hva_t *hva)
{
    struct place p;
    enum x86_rc rc = resolve(cpu, va, access, &p);

    if (rc != X86_OK)
        return rc;
    hva->p = p.host;
    if (__builtin_expect(size > page_room(va), 0)) {
        hva->p = NULL;
        rc = resolve(cpu, gva_add(va, page_room(va)), access, &p);
    }
    if (__builtin_expect(cpu->mmu->nwatched != 0, 0) && mmu_is_watched(cpu->mmu, va))
        hva->p = NULL;
    return rc;
}

static void place_read(struct mmu *m, const struct place *p, void *buf, uint32_t len)
{
    if (p->host)
        copy_bytes(buf, p->host, len);
    else
        device_read(m, p->pa, buf, len);
}

static void place_write(struct mmu *m, const struct place *p, const void *buf, uint32_t len)
{
    if (p->host) {
        copy_bytes(p->host, buf, len);
        return;
    }
    if (page_flags(m, gpa_page(p->pa)) & PAGE_TRACED)
        STAT_INC(m->cpu, traced_store);
    phys_store(m, p->pa, buf, len);
}

/* The one or two pages of an access; *first gets the bytes in the first. */
static enum x86_rc resolve_all(struct vcpu *cpu, gva_t va, unsigned size, unsigned access,
                               struct place place[2], uint32_t *first)
{
    ASSERT(size - 1 < GUEST_PAGE_SIZE);
    *first = min_u32(size, page_room(va));
    enum x86_rc rc = resolve(cpu, va, access, &place[0]);
    if (rc == X86_OK && *first < size)
        rc = resolve(cpu, gva_add(va, *first), access, &place[1]);
    return rc;
}

enum x86_rc mmu_read(struct vcpu *cpu, gva_t va, void *buf, unsigned size, unsigned access)
{
    struct place place[2];
    uint32_t first;
    enum x86_rc rc = resolve_all(cpu, va, size, (access & ACC_USER) | ACC_READ, place, &first);

    if (rc != X86_OK)
        return rc;
    place_read(cpu->mmu, &place[0], buf, first);
    if (first < size)
        place_read(cpu->mmu, &place[1], (uint8_t *)buf + first, size - first);
    if (__builtin_expect(cpu->mmu->nwatched != 0, 0))
        mmu_watch_report(cpu, va, size, false);
    return X86_OK;
}

enum x86_rc mmu_write(struct vcpu *cpu, gva_t va, const void *buf, unsigned size, unsigned access)
{
    struct place place[2];
    uint32_t first;
    enum x86_rc rc = resolve_all(cpu, va, size, (access & ACC_USER) | ACC_WRITE, place, &first);

    if (rc != X86_OK)
        return rc;
    place_write(cpu->mmu, &place[0], buf, first);
    if (first < size)
        place_write(cpu->mmu, &place[1], (const uint8_t *)buf + first, size - first);
    if (__builtin_expect(cpu->mmu->nwatched != 0, 0))
        mmu_watch_report(cpu, va, size, true);
    return X86_OK;
}

enum x86_rc mmu_read_system(struct vcpu *cpu, gva_t va, void *buf, unsigned size)
{
    return mmu_read(cpu, va, buf, size, 0);
}

enum x86_rc mmu_write_system(struct vcpu *cpu, gva_t va, const void *buf, unsigned size)
{
    return mmu_write(cpu, va, buf, size, 0);
}
