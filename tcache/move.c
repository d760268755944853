/*
 * Code for another EIP: changing the places that hold one, and moving the CCFs of a page to another VA.
 *
 * A page of a shared library is run at another VA by each program that was started with random addresses. When a
 * program has ended, and the next one runs in the address space that was its, the CCFs of the first will hardly
 * be asked for again: they need not be copied (bt/reuse.c), but can become those of the second. Their code stays
 * where it is, chains between them stay, and the cache does not fill up with copies of the dead.
 *
 * The address space is told by CR3 alone. A guess that is wrong costs another move, no more: a CCF that was
 * moved is simply not found at its old EIP.
 */
#include "base/log.h"
#include "base/string.h"
#include "tcache/tcache_internal.h"

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t slot_moved(uint32_t ofs, uint32_t delta)
{
    return VIEW_JT_OFS + ((ofs - VIEW_JT_OFS) / 8 + delta) % VIEW_JT_ENTRIES * 8;
}

void tcache_change_places(struct tcache *tc, const struct ccf_code *code, const uint32_t *places, unsigned nplaces)
{
    unsigned nlinks = 0;

    for (unsigned i = 0; i < nplaces; i++) {
        bool is_cold = places[i] & PLACE_COLD;
        uint8_t *at = (is_cold ? code->cold : code->hot) + (places[i] & PLACE_OFS_MASK);
        uint32_t v = get32(at);

        switch ((enum place_kind)(places[i] >> PLACE_SHIFT)) {
        case PLACE_EIP:
            v += code->delta;
            break;
        case PLACE_NEG_EIP:
            v -= code->delta;
            break;
        case PLACE_SLOT:
            v = slot_moved(v, code->delta);
            break;
        case PLACE_HANDLE:
            if (code->is_copy)
                v = tcache_next_link_handle(tc, nlinks++);
            break;
        case PLACE_BRANCH:
            if (code->is_copy)
                v += is_cold ? 0 - code->apart : code->apart;
            break;
        }
        memcpy(at, &v, sizeof v);
    }
}

bool ccf_targets_wrap(const struct ccf *ccf, uint32_t delta)
{
    int64_t distance = (int32_t)delta;

    for (unsigned i = 0; i < ccf->nlinks; i++) {
        int64_t target = (int64_t)ccf->links[i].target_eip + distance;
        if (target < 0 || target > UINT32_MAX)
            return true;
    }
    return false;
}

static void unhash(struct tcache *tc, struct ccf *c)
{
    struct ccf **at = tcache_hash_slot(tc, &c->key);

    while (*at != c)
        at = &(*at)->hash_next;
    *at = c->hash_next;
}

/* The CCF as it would have been made at EIP + delta. Links into it are those of CCFs of its page at its VA, which
 * move as well, or (from one that can't) are undone. */
static bool move_ccf(struct tcache *tc, struct ccf *c, uint32_t delta)
{
    struct ccf_code code = { .hot = tcache_rw(tc, c->hot), .cold = tcache_rw(tc, c->cold), .delta = delta };
    struct ccf_key key = c->key;

    key.eip += delta;
    if (!c->nplaces || ccf_targets_wrap(c, delta) || tcache_lookup(tc, &key) ||
        !tcache_pages_move(tc, c, key.eip >> GUEST_PAGE_SHIFT))
        return false;
    tcache_jt_drop_ccf(tc, c);
    unhash(tc, c);
    tcache_change_places(tc, &code, c->places, c->nplaces);
    for (unsigned i = 0; i < c->nlinks; i++)
        c->links[i].target_eip += delta;
    c->key = key;
    struct ccf **slot = tcache_hash_slot(tc, &key);
    c->hash_next = *slot;
    *slot = c;
    *tcache_twin_slot(tc, &key) = c;
    return true;
}

/* A chain from a CCF that moved to one that did not, or the other way, leads astray. */
static void mend_chains(struct tcache *tc, struct ccf *c)
{
    for (unsigned i = 0; i < c->nlinks; i++)
        if (c->links[i].to && c->links[i].to->key.eip != c->links[i].target_eip)
            tcache_unchain_link(tc, &c->links[i]);
    for (struct ccf_link *l = c->in, *next; l; l = next) {
        next = l->next_in;
        if (l->target_eip != c->key.eip)
            tcache_unchain_link(tc, l);
    }
}

static struct code_mapping *find_stale(struct tcache *tc, const struct code_page *p, uint32_t vpn)
{
    struct code_mapping *m = p->mappings;

    while (m && (m->vpn == vpn || m->cr3 != tc->cpu->cr3 || m->epoch == tc->jt[TC_USER].epoch))
        m = m->next;
    return m;
}

unsigned tcache_move_page(struct tcache *tc, const struct ccf_key *key)
{
    uint64_t pfn = key->pa >> GUEST_PAGE_SHIFT;
    struct code_page *p = tcache_page_find(tc, pfn);
    struct code_mapping *m = p ? find_stale(tc, p, key->eip >> GUEST_PAGE_SHIFT) : NULL;
    unsigned moved = 0;

    if (!m)
        return 0;
    uint32_t delta = (key->eip & ~GUEST_PAGE_MASK) - (m->vpn << GUEST_PAGE_SHIFT), from = m->vpn;
    m->epoch = tc->jt[TC_USER].epoch; /* what is left of it is not looked at again so soon */
    struct ccf *part[PAGE_PARTS];
    memcpy(part, m->part, sizeof part); /* the last one that moves frees m */
    for (unsigned i = 0; i < PAGE_PARTS; i++)
        for (struct ccf *c = part[i], *next; c; c = next) {
            next = c->page[ccf_which_page(c, pfn)].next;
            if (ccf_which_page(c, pfn) != 0 || !move_ccf(tc, c, delta))
                continue;
            moved++;
            if (tc->config.moved)
                tc->config.moved(tc->config.ctx, c);
        }
    const struct code_mapping *to = moved ? tcache_mapping_find(tc, p, key->eip >> GUEST_PAGE_SHIFT) : NULL;
    for (unsigned i = 0; to && i < PAGE_PARTS; i++)
        for (struct ccf *c = to->part[i]; c; c = c->page[ccf_which_page(c, pfn)].next)
            mend_chains(tc, c);
    if (moved) {
        tc->generation++;
        STAT_ADD(tc->cpu, tu_moved, moved);
        LOG(tc->cpu->log, chain, "%u CCFs of PA page 0x%llx moved from VA page 0x%05x to 0x%05x\n", moved,
            (unsigned long long)pfn, from, key->eip >> GUEST_PAGE_SHIFT);
    }
    return moved;
}
