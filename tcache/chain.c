/*
 * Chains (patched direct exits) and jump tables (everything keyed by an address). This
 * file and patch.c alone write to live code; here: one aligned-or-not 32-bit store to the displacement of a branch
 * of the same thread, which x86 makes visible to its own instruction fetch at the next jump.
 */
#include "base/log.h"
#include "base/string.h"
#include "tcache/tcache_internal.h"

static void patch(struct tcache *tc, struct ccf_link *link, const uint8_t *target)
{
    const uint8_t *at = link->owner->hot + link->patch_ofs;
    int32_t rel = (int32_t)(target - (at + 4));

    memcpy(tcache_rw(tc, at), &rel, sizeof rel);
}

void tcache_chain(struct tcache *tc, struct ccf_link *link, struct ccf *to)
{
    if (link->to || link->by_table)
        return;
    patch(tc, link, to->hot + (link->poll ? to->poll_ofs : to->body_ofs));
    link->to = to;
    link->next_in = to->in;
    link->in_at = &to->in;
    if (to->in)
        to->in->in_at = &link->next_in;
    to->in = link;
    STAT_INC(tc->cpu, chain);
    LOG(tc->cpu->log, chain, "chain EIP 0x%08x -> 0x%08x\n", link->owner->key.eip, to->key.eip);
}

static struct ccf_link **far_list(struct tcache *tc, uint32_t eip)
{
    return &tc->far[(eip >> GUEST_PAGE_SHIFT) % TC_FAR_LISTS];
}

void tcache_chain_far(struct tcache *tc, struct ccf_link *link, struct ccf *to)
{
    if (link->to || link->by_table)
        return;
    tcache_chain(tc, link, to);
    struct ccf_link **list = far_list(tc, link->target_eip);
    link->is_far = true;
    link->next_far = *list;
    link->far_at = list;
    if (*list)
        (*list)->far_at = &link->next_far;
    *list = link;
    tc->nfar++;
}

static void unlink_far(struct tcache *tc, struct ccf_link *l)
{
    *l->far_at = l->next_far;
    if (l->next_far)
        l->next_far->far_at = l->far_at;
    l->next_far = NULL;
    l->is_far = false;
    tc->nfar--;
}

/* The link is chained no more: off all lists, and to its continuation. */
void tcache_unchain_link(struct tcache *tc, struct ccf_link *l)
{
    patch(tc, l, l->owner->cold + l->unchained_ofs); /* the code may still be running */
    *l->in_at = l->next_in;
    if (l->next_in)
        l->next_in->in_at = l->in_at;
    l->to = NULL;
    l->next_in = NULL;
    if (l->is_far)
        unlink_far(tc, l);
}

static void unchain_far_list(struct tcache *tc, struct ccf_link *list, gva_t va, uint64_t bytes)
{
    for (struct ccf_link *l = list, *next; l; l = next) {
        next = l->next_far;
        if ((uint64_t)(l->target_eip - va.v) < bytes) {
            tcache_unchain_link(tc, l);
            STAT_INC(tc->cpu, unchain);
        }
    }
}

void tcache_unchain_far(struct tcache *tc, gva_t va, uint64_t bytes)
{
    uint64_t first = va.v >> GUEST_PAGE_SHIFT, last = (va.v + bytes - 1) >> GUEST_PAGE_SHIFT;

    if (last - first >= TC_FAR_LISTS)
        last = first + TC_FAR_LISTS - 1;
    for (uint64_t page = first; page <= last && tc->nfar; page++)
        unchain_far_list(tc, tc->far[page % TC_FAR_LISTS], va, bytes);
}

void tcache_chain_by_table(struct tcache *tc, struct ccf_link *link)
{
    if (link->to)
        return;
    link->by_table = true;
    patch(tc, link, link->owner->cold + link->table_ofs);
}

void tcache_unchain_into(struct tcache *tc, struct ccf *ccf)
{
    while (ccf->in) {
        tcache_unchain_link(tc, ccf->in);
        STAT_INC(tc->cpu, unchain);
    }
}

/* Both directions: who jumps to it, and where it jumps. */
void tcache_unchain(struct tcache *tc, struct ccf *ccf)
{
    tcache_unchain_into(tc, ccf);
    for (unsigned i = 0; i < ccf->nlinks; i++)
        if (ccf->links[i].to)
            tcache_unchain_link(tc, &ccf->links[i]);
}

/* ---- jump tables -------------------------------------------------------------------------- */

void tcache_jt_init(struct tcache *tc)
{
    for (int v = 0; v < 2; v++)
        for (uint32_t i = 0; i < VIEW_JT_ENTRIES; i++)
            tc->jt[v].slot[i] = tc->config.jt_miss_stub;
}

void tcache_jt_fill(struct tcache *tc, unsigned view, struct ccf *ccf, bool is_global)
{
    struct jump_table *jt = &tc->jt[view];
    uint16_t i = (uint16_t)ccf->key.eip;

    jt->slot[i] = ccf_verify(ccf);
    jt->eip[i] = ccf->key.eip;
    jt->is_global[i] = is_global;
    if (!jt->is_listed[i]) {
        jt->is_listed[i] = 1;
        jt->used[jt->nused++] = i;
    }
    STAT_INC(tc->cpu, jt_fill);
}

bool tcache_jt_is_empty(const struct tcache *tc, unsigned view, uint32_t eip)
{
    return tc->jt[view].slot[(uint16_t)eip] == tc->config.jt_miss_stub;
}

void tcache_jt_warm(struct tcache *tc, unsigned view, uint32_t vpn, uint64_t pfn, uint32_t mode, bool is_global)
{
    struct jump_table *jt = &tc->jt[view];
    struct warm_page *w = &jt->warm[vpn % JT_WARM];
    struct code_page *p;

    if (w->pfn == pfn && w->vpn == vpn && w->epoch == jt->epoch + 1)
        return;
    *w = (struct warm_page){ .pfn = pfn, .vpn = vpn, .epoch = jt->epoch + 1 };
    p = tcache_page_find(tc, pfn);
    const struct code_mapping *m = p ? tcache_mapping_find(tc, p, vpn) : NULL;
    if (!m)
        return;
    for (unsigned part = 0; part <= PAGE_PARTS; part++)
        for (struct ccf *c = part == PAGE_PARTS ? m->gates : m->part[part]; c; c = c->page[ccf_which_page(c, pfn)].next)
            if (!c->gate && c->pfn2 == CCF_ONE_PAGE && c->key.mode == mode && c->key.cs_base == 0)
                tcache_jt_fill(tc, view, c, is_global);
}

/* Keep the used slots for which `keep` holds; clear and forget the others. */
static void clear_slot(struct tcache *tc, struct jump_table *jt, uint16_t i)
{
    jt->slot[i] = tc->config.jt_miss_stub;
    jt->is_listed[i] = 0;
}

void tcache_jt_drop_all(struct tcache *tc, unsigned view, bool keep_global)
{
    struct jump_table *jt = &tc->jt[view];
    unsigned kept = 0;

    for (unsigned k = 0; k < jt->nused; k++) {
        uint16_t i = jt->used[k];
        if (keep_global && jt->is_global[i])
            jt->used[kept++] = i;
        else
            clear_slot(tc, jt, i);
    }
    jt->nused = kept;
    jt->epoch++;
}

/* A CCF is reached by its first byte; one that straddles depends on the next page too. */
void tcache_jt_drop_range(struct tcache *tc, unsigned view, gva_t va, uint32_t bytes)
{
    struct jump_table *jt = &tc->jt[view];
    uint32_t first = va.v - 16, span = bytes + 16;
    unsigned kept = 0;

    for (unsigned k = 0; k < jt->nused; k++) {
        uint16_t i = jt->used[k];
        if (jt->eip[i] - first < span)
            clear_slot(tc, jt, i);
        else
            jt->used[kept++] = i;
    }
    jt->nused = kept;
    for (unsigned i = 0; i < JT_WARM; i++)
        if ((jt->warm[i].vpn << GUEST_PAGE_SHIFT) - first < span)
            jt->warm[i].epoch = 0;
}

void tcache_jt_drop_ccf(struct tcache *tc, const struct ccf *ccf)
{
    uint16_t i = (uint16_t)ccf->key.eip;

    for (int v = 0; v < 2; v++)
        if (tc->jt[v].slot[i] == ccf_verify(ccf))
            tc->jt[v].slot[i] = tc->config.jt_miss_stub; /* stays listed */
}
