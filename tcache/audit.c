/* The invariants of tcache.h, checked one by one. For tests and --audit. */
#include "base/log.h"
#include "tcache/tcache_internal.h"

static bool in_page_list(struct tcache *tc, uint64_t pfn, uint32_t vpn, int which, const struct ccf *c)
{
    const struct code_page *p = tcache_page_find(tc, pfn);

    for (const struct code_mapping *m = p ? p->mappings : NULL; m; m = m->next)
        for (const struct ccf *x = c->is_gate ? m->gates : m->part[ccf_page_part(c, which)]; x; x = x->page[ccf_which_page(x, pfn)].next)
            if (x == c)
                return m->page == p && m->vpn == vpn;
    return false;
}

static unsigned complain(struct tcache *tc, const struct ccf *c, const char *what)
{
    log_printf(tc->cpu->log, "tcache audit: EIP 0x%08x: %s\n", c->key.eip, what);
    return 1;
}

static bool in_hash(struct tcache *tc, const struct ccf *c)
{
    const struct ccf *x = *tcache_hash_slot(tc, &c->key);

    while (x && x != c)
        x = x->hash_next;
    return x != NULL;
}

/* Present or parked: its gate knows it, and leads to it exactly while it is live. */
static unsigned audit_version(struct tcache *tc, const struct ccf *c)
{
    const struct ccf *v = c->gate->versions;
    unsigned bad = 0;

    while (v && v != c)
        v = v->versions;
    if (!c->gate->live || !v)
        bad += complain(tc, c, "a version without a gate");
    if ((c->gate->links[0].to == c) != c->live)
        bad += complain(tc, c, "its gate leads elsewhere");
    return bad;
}

static unsigned audit_live(struct tcache *tc, const struct ccf *c)
{
    unsigned bad = 0;

    if (c->gate)
        bad += audit_version(tc, c);
    else if (!in_hash(tc, c))
        bad += complain(tc, c, "live but not in the hash");
    uint32_t vpn = c->key.eip >> GUEST_PAGE_SHIFT;
    if (!in_page_list(tc, c->key.pa >> GUEST_PAGE_SHIFT, vpn, 0, c))
        bad += complain(tc, c, "not in its page's list");
    if (c->pfn2 != CCF_ONE_PAGE && c->pfn2 != c->key.pa >> GUEST_PAGE_SHIFT && !in_page_list(tc, c->pfn2, vpn + 1, 1, c))
        bad += complain(tc, c, "not in its second page's list");
    for (const struct ccf_link *l = c->in; l; l = l->next_in)
        if (l->to != c || !(l->owner->live || l->owner->is_parked))
            bad += complain(tc, c, "a link into it is stale");
    return bad;
}

static unsigned audit_dead(struct tcache *tc, const struct ccf *c)
{
    unsigned bad = 0;

    if (c->in)
        bad += complain(tc, c, "dead but chained to");
    if (*tcache_twin_slot(tc, &c->key) == c)
        bad += complain(tc, c, "dead but copied from");
    for (int v = 0; v < 2; v++)
        if (tc->jt[v].slot[(uint16_t)c->key.eip] == ccf_verify(c))
            bad += complain(tc, c, "dead but in a jump table");
    return bad;
}

unsigned tcache_audit(struct tcache *tc)
{
    unsigned bad = 0;

    for (unsigned i = 0; i < TC_REGIONS; i++)
        for (unsigned k = 0; k < tc->region[i].count; k++) {
            const struct ccf *c = tc->region[i].order[k];
            bad += c->live ? audit_live(tc, c) : audit_dead(tc, c);
            bad += c->is_parked ? audit_version(tc, c) : 0;
        }
    return bad;
}
