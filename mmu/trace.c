/*
 * Memory traces, and the reverse map they need.
 *
 * A traced page has no store slot in any view, so every store to it takes the slow path,
 * which writes and then reports. To take the slots away when a trace is set, the reverse
 * map leads from a PA page to the (view, VA page) pairs that got a store slot for it. It is
 * kept lazily: a node may outlive its slot and is checked against the slot's value when it
 * is met; whoever walks a list drops the dead nodes on the way, so lists stay as long as
 * the page has live aliases. Nodes come from a fixed pool. When it is empty, all lists are swept
 * of dead nodes; if that gives little, views and windows are flushed and the map starts again.
 */
#include "mmu/mmu_internal.h"
#include "mmu/window_internal.h"

/* A sweep that frees less than this share of all nodes was not worth it. */
#define SWEEP_WORTH 8u

bool rmap_init(struct mmu *m)
{
    m->rmap_nodes = max_u32(RMAP_NODES, (uint32_t)m->ram_pages);
    m->rmap_head = platform_reserve(m->ram_pages * sizeof *m->rmap_head);
    m->rmap = platform_reserve(m->rmap_nodes * sizeof *m->rmap);
    m->rmap_fresh = 1;
    return m->rmap_head && m->rmap;
}

void rmap_done(struct mmu *m)
{
    if (m->rmap_head)
        platform_release(m->rmap_head, m->ram_pages * sizeof *m->rmap_head);
    if (m->rmap)
        platform_release(m->rmap, max_u32(RMAP_NODES, (uint32_t)m->ram_pages) * sizeof *m->rmap);
}

/* The store slot a node stands for. */
static uint64_t *node_slot(struct mmu *m, const struct rmap_node *node)
{
    return &m->view[node->where >> RMAP_VIEW_SHIFT].store[2 * (node->where & (VIEW_PAGES - 1))];
}

static bool is_window_node(const struct rmap_node *node)
{
    return node->where >> RMAP_VIEW_SHIFT >= VIEW_COUNT;
}

static unsigned node_window(const struct rmap_node *node)
{
    return (node->where >> RMAP_VIEW_SHIFT) - VIEW_COUNT;
}

static bool node_is_live(struct mmu *m, const struct rmap_node *node, uint64_t pfn)
{
    if (is_window_node(node))
        return windows_is_writable(m, node_window(node), node->where & (VIEW_PAGES - 1));
    return *node_slot(m, node) == slot_value(ram_page(m, pfn), node->where & (VIEW_PAGES - 1));
}

static void node_unlink(struct mmu *m, uint32_t *link)
{
    uint32_t index = *link;

    *link = m->rmap[index].next;
    m->rmap[index].next = m->rmap_free;
    m->rmap_free = index;
    m->rmap_nfree++;
}

/* Every store slot must be gone before nodes are forgotten. */
static void rmap_restart(struct mmu *m)
{
    LOG(m->cpu->log, trace, "reverse map is full, flushing the views\n");
    shadow_flush(m);
    windows_flush(m);
    platform_zero(m->rmap_head, m->ram_pages * sizeof *m->rmap_head);
    m->rmap_free = m->rmap_nfree = 0;
    m->rmap_fresh = 1;
}

static uint32_t room(const struct mmu *m)
{
    return m->rmap_nfree + (m->rmap_nodes - m->rmap_fresh);
}

/* Take the dead nodes off all lists. Lists are not walked for their own sake otherwise, so those of
 * programs that ended stay. */
static void rmap_sweep(struct mmu *m)
{
    for (uint64_t pfn = 0; pfn < m->ram_pages; pfn++)
        for (uint32_t *link = &m->rmap_head[pfn]; *link;)
            if (node_is_live(m, &m->rmap[*link], pfn))
                link = &m->rmap[*link].next;
            else
                node_unlink(m, link);
    LOG(m->cpu->log, trace, "reverse map was full, %u nodes of %u are free again\n", m->rmap_nfree, m->rmap_nodes);
}

bool rmap_reserve(struct mmu *m, uint32_t n)
{
    if (room(m) >= n)
        return true;
    rmap_sweep(m);
    if (room(m) < max_u32(n, m->rmap_nodes / SWEEP_WORTH)) /* the next sweep would follow soon */
        rmap_restart(m);
    return room(m) >= n;
}

static uint32_t node_alloc(struct mmu *m)
{
    rmap_reserve(m, 1);
    uint32_t index = m->rmap_free;
    if (!index)
        return m->rmap_fresh++;
    m->rmap_free = m->rmap[index].next;
    m->rmap_nfree--;
    return index;
}

void rmap_add(struct mmu *m, unsigned id, uint32_t vpn, uint64_t pfn)
{
    uint32_t where = vpn | id << RMAP_VIEW_SHIFT;
    uint32_t *link = &m->rmap_head[pfn];

    while (*link) {
        struct rmap_node *node = &m->rmap[*link];

        if (node->where == where)
            return;
        if (node_is_live(m, node, pfn))
            link = &node->next;
        else
            node_unlink(m, link);
    }
    uint32_t index = node_alloc(m);
    m->rmap[index] = (struct rmap_node){ .where = where, .next = m->rmap_head[pfn] };
    m->rmap_head[pfn] = index;
}

void trace_guard(struct mmu *m, uint64_t pfn, unsigned why)
{
    m->kind[pfn] |= (uint8_t)why;
    if (m->windows)
        windows_protect_supervisor(m, pfn);
    while (m->rmap_head[pfn]) {
        struct rmap_node *node = &m->rmap[m->rmap_head[pfn]];

        if (is_window_node(node))
            windows_protect(m, node_window(node), node->where & (VIEW_PAGES - 1));
        else if (node_is_live(m, node, pfn))
            *node_slot(m, node) = 0;
        node_unlink(m, &m->rmap_head[pfn]);
    }
}

void mmu_trace_add(struct mmu *m, gpa_t pa)
{
    uint64_t pfn = gpa_page(pa);

    if (pfn >= m->ram_pages || (m->kind[pfn] & PAGE_TRACED))
        return;
    LOG(m->cpu->log, trace, "trace set on PA 0x%09llx\n", (unsigned long long)pfn << GUEST_PAGE_SHIFT);
    trace_guard(m, pfn, PAGE_TRACED);
}

void mmu_trace_remove(struct mmu *m, gpa_t pa)
{
    uint64_t pfn = gpa_page(pa);

    if (pfn >= m->ram_pages || !(m->kind[pfn] & PAGE_TRACED))
        return;
    LOG(m->cpu->log, trace, "trace removed from PA 0x%09llx\n", (unsigned long long)pfn << GUEST_PAGE_SHIFT);
    m->kind[pfn] &= (uint8_t)~PAGE_TRACED;
}

bool mmu_is_traced(struct mmu *m, gpa_t pa)
{
    return (page_flags(m, gpa_page(pa)) & PAGE_TRACED) != 0;
}

void trace_report(struct mmu *m, gpa_t pa, uint32_t len)
{
    unsigned flags = page_flags(m, gpa_page(pa));

    if ((flags & PAGE_TABLE) && pa.v >> GUEST_PAGE_SHIFT < m->ram_pages)
        windows_table_written(m, pa.v, len);
    if (!(flags & PAGE_TRACED) || !m->ops.traced_write)
        return;
    LOG(m->cpu->log, trace, "traced write of %u bytes at PA 0x%09llx, EIP 0x%08x\n", len,
        (unsigned long long)pa.v, m->cpu->eip);
    m->ops.traced_write(m->ops.ctx, pa, len);
}
