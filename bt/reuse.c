/*
 * CCFs for other EIPs: moved or copied instead of made anew.
 *
 * A program whose addresses are chosen at random runs the same pages of its libraries at other addresses each
 * time it is started. To a CCF its EIP is a constant, but it occurs in few places, and those are noted when it
 * is translated (place.c). So the CCF for another EIP is a copy of the code with these places changed: no
 * decoding, no lowering.
 *
 * This is for flat code of CPL 3: a kernel stays where it is. The EIPs differ by whole pages, since the PA is the
 * same, so everything that depends on where in its page an instruction lies holds for the copy as well. What the
 * copied CCF was made under besides, the key does not say: the form of access, and bytes that have not changed.
 * Whether the second page of an instruction in two pages is the same is looked up.
 *
 * CCFs of a program that has ended need not be copied: they move (tcache/move.c). With verify=on each CCF that was
 * copied or moved is compared with what the translator would have made.
 */
#include "base/assert.h"
#include "base/log.h"
#include "base/string.h"
#include "bt/bt_internal.h"

#define LAST_VPN 0xfffffu

/* In the first and the last page a displacement made of EIP may be short, and addresses may wrap. */
bool reuse_is_possible(const struct bt *bt, const struct ccf_key *key)
{
    uint32_t wanted = MODE_CPL3 | MODE_CS_FLAT, unwanted = MODE_STEP | MODE_VM86, vpn = key->eip >> GUEST_PAGE_SHIFT;

    return bt->opt.reuse && !bt->opt.icount && (key->mode & wanted) == wanted && !(key->mode & unwanted) && vpn != 0 &&
           vpn != LAST_VPN;
}

/* Where an instruction goes on in the next page, is that the page which the CCF has? */
static bool second_page_fits(struct bt *bt, const struct ccf *ccf, gva_t va)
{
    bool is_global;
    gpa_t pa;

    if (ccf->pfn2 == CCF_ONE_PAGE)
        return true;
    return mmu_fetch(bt->cpu, gva((va.v | GUEST_PAGE_MASK) + 1), &pa, &is_global) == X86_OK && gpa_page(pa) == ccf->pfn2;
}

/* What the key does not say. */
static bool is_usable(struct bt *bt, const struct ccf *ccf, const struct ccf_key *key, gva_t va)
{
    uint64_t pfn = key->pa >> GUEST_PAGE_SHIFT;
    bool keeps_source = policy_checks(bt, pfn) || policy_keeps_source(bt, pfn);

    return (ccf->source != NULL) == keeps_source && ccf->ninsns <= bt->opt.max_insns &&
           ccf->uses_window == form_use_window(bt, key) && prelude_holds(bt, ccf) && second_page_fits(bt, ccf, va);
}

/* What else of a draft the code does not tell. */
static void copy_draft(struct ccf_draft *d, const struct ccf *from, const struct ccf_key *key)
{
    uint32_t delta = key->eip - from->key.eip;

    d->key = *key;
    d->pfn2 = from->pfn2;
    d->gate = NULL;
    d->is_gate = false;
    d->guest_len = from->guest_len;
    d->hot_len = from->hot_len;
    d->cold_len = from->cold_len;
    d->tail_ofs = from->tail_ofs;
    d->verify_ofs = from->verify_ofs;
    d->poll_ofs = from->poll_ofs;
    d->body_ofs = from->body_ofs;
    d->uses_window = from->uses_window;
    d->ninsns = from->ninsns;
    d->nlinks = from->nlinks;
    d->nplaces = from->nplaces;
    memcpy(d->insns, from->insns, from->ninsns * sizeof d->insns[0]);
    memcpy(d->places, from->places, from->nplaces * sizeof d->places[0]);
    for (unsigned i = 0; i < from->nlinks; i++) {
        const struct ccf_link *l = &from->links[i];
        d->links[i] = (struct ccf_link){ .patch_ofs = l->patch_ofs, .unchained_ofs = l->unchained_ofs,
                                         .table_ofs = l->table_ofs, .target_eip = l->target_eip + delta,
                                         .poll = l->poll };
    }
    d->has_source = from->source != NULL;
    d->nconsts = from->nconsts;
    if (d->has_source) {
        memcpy(d->consts, from->consts, from->nconsts * sizeof d->consts[0]);
        memcpy(d->source, from->source, from->guest_len);
    }
}

/* The code of `from` into the room, for the CCF that is committed next. */
static void copy_code(struct bt *bt, const struct ccf *from, uint32_t delta, const struct tcache_room *room)
{
    const uint8_t *hot = from->hot - room->exec_delta, *cold = from->cold - room->exec_delta;
    struct ccf_code code = { .hot = room->hot, .cold = room->cold, .delta = delta, .is_copy = true,
                             .apart = (uint32_t)((room->cold - room->hot) - (cold - hot)) };

    memcpy(room->hot, hot, from->hot_len);
    memcpy(room->cold, cold, from->cold_len);
    tcache_change_places(bt->cpu->tc, &code, from->places, from->nplaces);
    for (unsigned i = 0; i < from->nlinks; i++)
        e_patch32(room->hot + from->links[i].patch_ofs, room->cold + from->links[i].unchained_ofs);
}

/* verify=on: what the translator makes of these bytes, into bt->fresh. @return its length, 0: it is none of
 * what can be compared. */
static uint32_t make_fresh(struct bt *bt, const struct ccf *from, const struct ccf_key *key, gva_t va,
                           const struct tcache_room *room)
{
    const struct ccf_draft *d = &bt->draft;

    if (translate_bytes(bt, key, va, room, from->guest_len) != X86_OK || bt->xl.hot.overflow || bt->xl.cold.overflow ||
        d->hot_len + d->cold_len > REUSE_FRESH_BYTES)
        return 0;
    memcpy(bt->fresh, room->hot, d->hot_len);
    memcpy(bt->fresh + d->hot_len, room->cold, d->cold_len);
    return d->hot_len + d->cold_len;
}

static void check_copy(struct bt *bt, const struct tcache_room *room, uint32_t fresh_len)
{
    const struct ccf_draft *d = &bt->draft;

    verify_draft(bt, room);
    if (fresh_len == d->hot_len + d->cold_len && memcmp(bt->fresh, room->hot, d->hot_len) == 0 &&
        memcmp(bt->fresh + d->hot_len, room->cold, d->cold_len) == 0)
        return;
    log_printf(bt->cpu->log, "verify: EIP 0x%08x: the copy is not what it would be if translated\n", d->key.eip);
    ASSERT(!"the copy of a translation differs from a translation");
}

static bool has_room(const struct tcache_room *room, const struct ccf *from)
{
    return room->hot_end - room->hot >= from->hot_len && room->cold_end - room->cold >= from->cold_len;
}

static bool copy(struct bt *bt, const struct ccf *from, const struct ccf_key *key, gva_t va, struct ccf **out)
{
    struct tcache *tc = bt->cpu->tc;
    struct tcache_room room;
    uint32_t fresh_len = 0;

    tcache_room(tc, &room);
    if (!has_room(&room, from))
        return false;
    if (bt->opt.verify)
        fresh_len = make_fresh(bt, from, key, va, &room);
    copy_draft(&bt->draft, from, key);
    copy_code(bt, from, key->eip - from->key.eip, &room);
    if (fresh_len)
        check_copy(bt, &room, fresh_len);
    *out = tcache_commit(tc, &bt->draft);
    if (!*out)
        return false;
    STAT_INC(bt->cpu, tu_reused);
    STAT_ADD(bt->cpu, host_bytes, (*out)->hot_len + (*out)->cold_len);
    return true;
}

static void report(struct bt *bt, const struct ccf *ccf)
{
    if (bt->ops.translated)
        bt->ops.translated(bt->ops.ctx, bt->cpu, ccf);
}

/* verify=on: a copy of a CCF that was moved is a translation, too. */
static void check_moved(struct bt *bt, const struct ccf *ccf, gva_t va)
{
    struct tcache_room room;

    tcache_room(bt->cpu->tc, &room);
    uint32_t fresh_len = has_room(&room, ccf) ? make_fresh(bt, ccf, &ccf->key, va, &room) : 0;
    if (!fresh_len)
        return;
    copy_draft(&bt->draft, ccf, &ccf->key);
    copy_code(bt, ccf, 0, &room);
    check_copy(bt, &room, fresh_len);
}

/* Those in two pages are checked when they are asked for: only then may the second page be fetched. */
void reuse_moved(struct bt *bt, const struct ccf *ccf)
{
    gva_t va = gva(ccf->key.cs_base + ccf->key.eip);

    if (bt->opt.verify && ccf->pfn2 == CCF_ONE_PAGE && is_usable(bt, ccf, &ccf->key, va))
        check_moved(bt, ccf, va);
    report(bt, ccf);
}

/* The page's CCFs may be there, at the VA where a program that has ended ran them. */
static bool move(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf **out)
{
    if (!tcache_move_page(bt->cpu->tc, key))
        return false;
    *out = tcache_lookup(bt->cpu->tc, key);
    if (!*out)
        return false;
    if (!is_usable(bt, *out, key, va)) {
        tcache_drop(bt->cpu->tc, *out, DROP_EVICT);
        return false;
    }
    if (bt->opt.verify && (*out)->pfn2 != CCF_ONE_PAGE)
        check_moved(bt, *out, va);
    return true;
}

bool reuse_ccf(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf **out)
{
    if (!reuse_is_possible(bt, key))
        return false;
    if (move(bt, key, va, out))
        return true;
    const struct ccf *from = tcache_twin(bt->cpu->tc, key);
    if (!from || ccf_targets_wrap(from, key->eip - from->key.eip) || !is_usable(bt, from, key, va) ||
        !copy(bt, from, key, va, out))
        return false;
    report(bt, *out);
    return true;
}
