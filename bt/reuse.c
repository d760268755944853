/*
 * Copies of CCFs for other EIPs.
 *
 * A program whose addresses are chosen at random runs the same pages of its libraries at other addresses each
 * time it is started. To a CCF its EIP is a constant, but it occurs in few places, and those are noted when it
 * is translated (place.c). So the CCF for another EIP is a copy of the code with these places changed: no
 * decoding, no lowering.
 *
 * This is for flat code of CPL 3: a kernel stays where it is. The EIPs differ by whole pages, since the PA is the
 * same, so everything that depends on where in its page an instruction lies holds for the copy as well. What the
 * copied CCF was made under besides, the key does not say: the form of access, and bytes that have not changed.
 * A CCF in two pages is never copied.
 *
 * With verify=on each copy is compared with what the translator would have made.
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

/* Targets keep their distance, but not if they wrap in one of the two only. */
static bool targets_wrap(const struct ccf *from, uint32_t delta)
{
    int64_t distance = (int32_t)delta;

    for (unsigned i = 0; i < from->nlinks; i++) {
        int64_t target = (int64_t)from->links[i].target_eip + distance;
        if (target < 0 || target > UINT32_MAX)
            return true;
    }
    return false;
}

static struct ccf *find_original(struct bt *bt, const struct ccf_key *key)
{
    struct ccf *from = tcache_twin(bt->cpu->tc, key);

    bool keeps_source = policy_checks(bt, key->pa >> GUEST_PAGE_SHIFT) || policy_keeps_source(bt, key->pa >> GUEST_PAGE_SHIFT);

    if (!from || (from->source != NULL) != keeps_source || from->ninsns > bt->opt.max_insns || from->uses_window != form_use_window(bt, key) ||
        !prelude_holds(bt, from) || targets_wrap(from, key->eip - from->key.eip))
        return NULL;
    return from;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

/* What else of a draft the code does not tell. */
static void copy_draft(struct ccf_draft *d, const struct ccf *from, const struct ccf_key *key)
{
    uint32_t delta = key->eip - from->key.eip;

    d->key = *key;
    d->pfn2 = CCF_ONE_PAGE;
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

/* Change the places of the copy in `room`. `apart`: by how much its parts are farther apart. */
static void change_places(struct bt *bt, const struct ccf *from, const struct tcache_room *room, uint32_t apart)
{
    const struct ccf_draft *d = &bt->draft;
    uint32_t delta = d->key.eip - from->key.eip;
    unsigned nlinks = 0;

    for (unsigned i = 0; i < from->nplaces; i++) {
        uint32_t place = from->places[i];
        bool is_cold = place & PLACE_COLD;
        uint8_t *at = (is_cold ? room->cold : room->hot) + (place & PLACE_OFS_MASK);
        uint32_t v = get32(at);

        switch ((enum place_kind)(place >> PLACE_SHIFT)) {
        case PLACE_EIP:
            v += delta;
            break;
        case PLACE_NEG_EIP:
            v -= delta;
            break;
        case PLACE_SLOT:
            v = VIEW_JT_OFS + ((v - VIEW_JT_OFS) / 8 + delta) % VIEW_JT_ENTRIES * 8;
            break;
        case PLACE_HANDLE:
            v = tcache_next_link_handle(bt->cpu->tc, nlinks++);
            break;
        case PLACE_BRANCH:
            v += is_cold ? 0 - apart : apart;
            break;
        }
        memcpy(at, &v, sizeof v);
    }
    for (unsigned i = 0; i < d->nlinks; i++)
        e_patch32(room->hot + d->links[i].patch_ofs, room->cold + d->links[i].unchained_ofs);
}

static void copy_code(struct bt *bt, const struct ccf *from, const struct tcache_room *room)
{
    const uint8_t *hot = from->hot - room->exec_delta, *cold = from->cold - room->exec_delta;
    ptrdiff_t apart = (room->cold - room->hot) - (cold - hot);

    memcpy(room->hot, hot, from->hot_len);
    memcpy(room->cold, cold, from->cold_len);
    change_places(bt, from, room, (uint32_t)apart);
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

bool reuse_copy(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf **out)
{
    struct tcache *tc = bt->cpu->tc;
    struct tcache_room room;
    uint32_t fresh_len = 0;

    struct ccf *from = reuse_is_possible(bt, key) ? find_original(bt, key) : NULL;
    if (!from)
        return false;
    tcache_room(tc, &room);
    if (room.hot_end - room.hot < from->hot_len || room.cold_end - room.cold < from->cold_len)
        return false;
    if (bt->opt.verify)
        fresh_len = make_fresh(bt, from, key, va, &room);
    copy_draft(&bt->draft, from, key);
    copy_code(bt, from, &room);
    if (bt->opt.verify && fresh_len)
        check_copy(bt, &room, fresh_len);
    *out = tcache_commit(tc, &bt->draft);
    if (!*out)
        return false;
    STAT_INC(bt->cpu, tu_reused);
    STAT_ADD(bt->cpu, host_bytes, (*out)->hot_len + (*out)->cold_len);
    if (bt->ops.translated)
        bt->ops.translated(bt->ops.ctx, bt->cpu, *out);
    return true;
}
