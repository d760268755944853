/*
 * Where TUs are split, since the guest keeps changing an instruction there: coherency=retranslate.
 *
 *     before:  CCF [ a b c d e ]           c is changed
 *     after:   CCF [ a b ] -> gate of c -> version [ c ] -> CCF [ d e ]
 *
 * The CCF is dropped once, when c changes for the first time. From then on a TU ends before c, and what is made
 * at c is a *gate* and, behind it, a version of that one instruction (tcache/gate.c). When c changes again, its
 * version alone is made anew, or put back if c was like that before; [a b], [d e], what leads to them and what
 * leads to c all stay.
 *
 * A page with many such places is given up: its TUs are whole again, and dropped as under trace.
 *
 * The places are remembered by PA, in a table that forgets when two meet in one slot: then the gate that is there
 * already still serves, and another TU may run through the place and be dropped again.
 */
#include "bt/bt_internal.h"

#include "base/log.h"
#include "base/string.h"

#define LONGEST_INSN 15u
/* A page where more places changed is one that code is generated into: to look after each instruction costs
 * more than to make whole TUs anew. */
#define MAX_SPLITS_OF_PAGE 32u

static uint64_t *place_of(struct bt *bt, uint64_t pa)
{
    return &bt->split[(pa ^ pa >> 10) % BT_SPLITS];
}

static struct split_page *page_of(struct bt *bt, uint64_t pfn)
{
    struct split_page *p = &bt->split_page[pfn % BT_SPLIT_PAGES];

    if (p->pfn != pfn)
        *p = (struct split_page){ .pfn = pfn };
    return p;
}

bool split_is_at(struct bt *bt, const struct ccf_key *key, uint32_t ofs)
{
    uint64_t pa = key->pa + ofs;

    return bt->nsplits && *place_of(bt, pa) == pa + 1 && !(key->mode & MODE_STEP) &&
           !page_of(bt, pa >> GUEST_PAGE_SHIFT)->is_given_up &&
           !policy_checks(bt, pa >> GUEST_PAGE_SHIFT);
}

/* An instruction that reaches into the next page depends on how that is mapped: it is a CCF of its own
 * already, which a gate could not lead to. */
void split_note(struct bt *bt, const struct ccf *ccf, unsigned insn)
{
    uint64_t pa = ccf->key.pa + ccf->insns[insn].guest_ofs;
    uint64_t *place = place_of(bt, pa);

    if (ccf->gate || ccf->pfn2 != CCF_ONE_PAGE || (pa & GUEST_PAGE_MASK) > GUEST_PAGE_SIZE - LONGEST_INSN ||
        (ccf->key.mode & MODE_STEP) || *place == pa + 1)
        return;
    struct split_page *page = page_of(bt, pa >> GUEST_PAGE_SHIFT);
    if (page->is_given_up)
        return;
    *place = pa + 1;
    page->n++;
    bt->nsplits++;
    STAT_INC(bt->cpu, coherency_split);
    LOG(bt->cpu->log, coherency, "retranslate: EIP 0x%08x PA 0x%llx gets a CCF of its own\n",
        ccf->key.eip + ccf->insns[insn].guest_ofs, (unsigned long long)pa);
}

bool split_review(struct bt *bt, uint64_t pfn)
{
    struct split_page *p = &bt->split_page[pfn % BT_SPLIT_PAGES];

    if (p->pfn != pfn || p->n <= MAX_SPLITS_OF_PAGE || p->is_given_up)
        return false;
    p->is_given_up = true;
    tcache_invalidate(bt->cpu->tc, gpa(pfn << GUEST_PAGE_SHIFT), GUEST_PAGE_SIZE, DROP_EVICT);
    STAT_INC(bt->cpu, coherency_unsplit);
    LOG(bt->cpu->log, coherency, "retranslate: page 0x%llx changes in too many places\n", (unsigned long long)pfn);
    return true;
}

void split_forget(struct bt *bt, uint64_t pfn)
{
    *page_of(bt, pfn) = (struct split_page){ .pfn = pfn };
}

/* Gates that there are stay. */
void split_forget_all(struct bt *bt)
{
    memset(bt->split_page, 0, sizeof bt->split_page);
}
