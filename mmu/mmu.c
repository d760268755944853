/*
 * Making and ending an mmu. All of it is reserved, zero-filled memory of which the
 * guest touches a small part: slot tables, the byte per page, the physical map and
 * the reverse map are sparse.
 */
#include "mmu/mmu_internal.h"
#include "mmu/window_internal.h"

struct mmu *mmu_new(struct vcpu *cpu, const struct mmu_config *config)
{
    struct mmu *m = platform_reserve(sizeof *m);

    if (!m)
        return NULL;
    /* A slot is host minus guest address and 0 means empty: no host page of RAM may have an
     * address that a guest can have. */
    ASSERT((uintptr_t)config->ram > UINT32_MAX);
    ASSERT((config->ram_bytes & GUEST_PAGE_MASK) == 0);

    m->cpu = cpu;
    m->ram = config->ram;
    m->ram_pages = config->ram_bytes >> GUEST_PAGE_SHIFT;
    ASSERT(!config->rom || (uintptr_t)config->rom > UINT32_MAX);
    ASSERT(config->rom_bytes <= ROM_IMAGE_MAX && (config->rom_bytes & GUEST_PAGE_MASK) == 0);
    m->rom = config->rom;
    m->rom_pages = config->rom ? config->rom_bytes >> GUEST_PAGE_SHIFT : 0;
    walk_set_reserved(m, config->has_pse36, config->has_pat);
    m->ops = config->ops;
    m->kind = platform_reserve(m->ram_pages);
    if (!m->kind || !rmap_init(m) || !view_init(&m->view[VIEW_SUPERVISOR]) ||
        !view_init(&m->view[VIEW_USER])) {
        mmu_free(m);
        return NULL;
    }
    cpu->mmu = m;
    cpu->system_base = (uintptr_t)m->view[VIEW_SUPERVISOR].base;
    mmu_select_view(cpu);
    return m;
}

void mmu_free(struct mmu *m)
{
    if (!m)
        return;
    if (m->cpu->mmu == m)
        m->cpu->mmu = NULL;
    for (int i = 0; i < VIEW_COUNT; i++)
        view_done(&m->view[i]);
    windows_done(m);
    rmap_done(m);
    if (m->kind)
        platform_release(m->kind, m->ram_pages);
    platform_release(m, sizeof *m);
}
