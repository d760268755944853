/*
 * The translator: one run of guest instructions (TU) to one compiled code fragment (CCF).
 *
 * A TU begins at an EIP and goes on in its page until an unconditional transfer, the page's
 * end, or the limit of instructions. Only a single instruction may lie in two pages, as a TU
 * of its own, so that every CCF but those depends on one fetch mapping.
 *
 *     hot part                                    cold part
 *     poll_exit: eip = ..; leave (POLL)           for each instruction with a memory access:
 *     verify:    r8d == eip? else ask               slow: eip, next_eip = ..
 *     poll:      run == 0? to poll_exit                   the instruction again, each check
 *     body:      instruction                              a call to the monitor
 *                instruction                              jmp back to the hot part
 *                [island of jumps to slow paths]   for each direct exit:
 *                ...                                 unchained: ask the dispatcher
 *                exit                                table:     through the jump table
 *
 * Entries: `verify` from the jump table (R8D holds the EIP wanted), `poll` from backward
 * chains, `body` from forward chains and the dispatcher. Every loop passes a poll point, so
 * a cleared vcpu->run ends it; straight code has none.
 *
 * Two passes over each instruction keep faults precise: see idiom.c. What is emitted never
 * changes guest state before the instruction's last check has passed.
 */
#include "base/assert.h"
#include "base/log.h"
#include "base/string.h"
#include "bt/bt_internal.h"
#include "bt/verify.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

/* Most bytes of hot code before an instruction's first access (each of which looks after the islands
 * again), and of the jump that ends a TU. */
#define INSN_ROOM 64
#define TAIL_ROOM 32

/* Guest bytes as the TU's translation sees them. */
struct source {
    const uint8_t *bytes;
    uint32_t avail;      /* of them, in the first page (or in the buffer of a straddler) */
};

/* ---- one instruction ----------------------------------------------------------------------- */

static void raise(struct xlate *x, enum callout_id id)
{
    idiom_callout(x, id, x->in.unit);
    idiom_never(x);
    x->ends = true;
}

/* Exceptions that the mode word decides. SDM vol. 2A, exception tables of x87, MMX, SSE. */
static bool raise_for_unit(struct xlate *x)
{
    switch ((enum insn_unit)x->in.unit) {
    case UNIT_INT:
        return false;
    case UNIT_WAIT:
        if (x->mode & MODE_WAIT_NM)
            raise(x, CALLOUT_raise_nm);
        return x->mode & MODE_WAIT_NM;
    case UNIT_SSE:
        if (x->mode & MODE_SSE_UD)
            raise(x, CALLOUT_raise_ud);
        else if (x->mode & MODE_FPU_NM)
            raise(x, CALLOUT_raise_nm);
        return x->mode & (MODE_SSE_UD | MODE_FPU_NM);
    case UNIT_X87:
    case UNIT_MMX:
        if (x->mode & MODE_FPU_NM)
            raise(x, CALLOUT_raise_nm);
        return x->mode & MODE_FPU_NM;
    }
    return false;
}

static bool is_plain_string(const struct insn *in)
{
    return in->map == MAP_1BYTE && in->rep == REP_NONE &&
           ((in->opcode >= 0xa4 && in->opcode <= 0xa7) || (in->opcode >= 0xaa && in->opcode <= 0xaf));
}

static void lower_insn(struct xlate *x)
{
    const struct insn_info *info = x->in.info;

    if (!(x->bt->ops.features >> info->feature & 1)) {
        raise(x, CALLOUT_raise_ud);
        return;
    }
    if (raise_for_unit(x))
        return;
    switch ((enum insn_class)info->cls) {
    case CLASS_INNOCUOUS:
    case CLASS_CONTROL:
        lower_find(&x->in)(x);
        return;
    case CLASS_LOWERED:
        if (is_plain_string(&x->in))
            lower_string(x);
        else
            lower_callout(x);
        return;
    case CLASS_SENSITIVE:
    case CLASS_PRIVILEGED:
        lower_system(x);
        return;
    case CLASS_UNAVAILABLE:
        raise(x, CALLOUT_raise_ud);
        return;
    }
}

/* Counts and records what became of the present instruction. */
static void classify(struct xlate *x)
{
    struct ccf_insn *insn = &x->d->insns[x->d->ninsns];

    insn->callout = x->callout;
    if (x->callout != CALLOUT_COUNT) {
        insn->how = BT_CALLOUT;
        STAT_INC(x->cpu, insn_callout);
    } else if (x->in.info->cls == CLASS_INNOCUOUS && lower_find(&x->in) == lower_generic) {
        insn->how = BT_IDENT;
        STAT_INC(x->cpu, insn_ident);
    } else {
        insn->how = BT_LOWERED;
        STAT_INC(x->cpu, insn_lowered);
    }
}

/* The present instruction is code that can't be executed: its fault is all there is of it. */
static void put_fault(struct xlate *x, uint32_t guest_ofs, enum callout_id id)
{
    struct ccf_draft *d = x->d;

    x87_end_run(x);
    idiom_islands(x, INSN_ROOM, true);
    d->insns[d->ninsns] = (struct ccf_insn){ .guest_ofs = (uint16_t)guest_ofs,
                                             .hot_ofs = (uint32_t)(x->hot.p - x->hot.start),
                                             .cold_ofs = (uint32_t)(x->cold.p - x->cold.start) };
    raise(x, id);
    classify(x);
    d->ninsns++;
}

/* The slow path: the same lowering, every access by the monitor. */
static void slow_pass(struct xlate *x)
{
    x->e = &x->cold;
    x->is_cold = true;
    x->stores = false;
    x->cold_of[x->d->ninsns] = x->cold.p;
    x->d->insns[x->d->ninsns].cold_ofs = (uint32_t)(x->cold.p - x->cold.start);
    idiom_resolve_slow(x);
    idiom_store_eip(x);
    x87_put_pointers(x);
    lower_insn(x);
    if (x->stores) { /* it may leave when the store is completed */
        struct x87_run before = x->x87;
        x87_note(x);
        x87_put_pointers(x);
        x->x87 = before;
    }
    if (!x->ends) /* a transfer has joined the fast path by itself */
        idiom_finish_slow(x);
    x->e = &x->hot;
    x->is_cold = false;
}

static void translate_insn(struct xlate *x, uint32_t guest_ofs)
{
    struct ccf_draft *d = x->d;

    if (!x87_counts(x))
        x87_end_run(x);
    idiom_islands(x, INSN_ROOM, true);
    d->insns[d->ninsns] = (struct ccf_insn){ .guest_ofs = (uint16_t)guest_ofs,
                                             .hot_ofs = (uint32_t)(x->hot.p - x->hot.start),
                                             .cold_ofs = (uint32_t)(x->cold.p - x->cold.start) };
    x->has_slow = x->is_slow_only = x->stores = x->has_target_in_ea = x->no_window = false;
    x->callout = CALLOUT_COUNT;
    x->cold_of[d->ninsns] = NULL;
    lower_insn(x);
    if (x->has_slow)
        slow_pass(x);
    x87_note(x);
    classify(x);
    d->ninsns++;
}

/* ---- entries --------------------------------------------------------------------------------- */

/* clock=insn: one instruction a CCF, counted before it runs. */
static void count_instruction(struct xlate *x, const uint8_t *poll_exit)
{
    struct hmem left = vcpu_mem(VCPU_OFS(icount_left));

    /* 0 while the count is not negative: its top byte says so without flags */
    e_movzx_r32_m8(x->e, H_RCX, vcpu_mem(VCPU_OFS(icount_left) + 7));
    uint8_t *go_on = e_jrcxz_fwd(x->e);
    e_jmp32_to(x->e, poll_exit);
    if (!x->e->overflow)
        e_patch8(go_on, x->e->p);
    e_mov_r64_m64(x->e, H_RCX, left);
    e_lea_r64(x->e, H_RCX, hmem_base(H_RCX, -1));
    e_mov_m64_r64(x->e, left, H_RCX);
}

/* @return the branch to the prelude, or NULL. */
static uint8_t *put_entries(struct xlate *x)
{
    struct emit *e = &x->hot;
    const uint8_t *poll_exit = e->p;

    idiom_exit(x, e, EXIT_POLL, x->eip);
    x->d->verify_ofs = (uint16_t)(e->p - e->start);
    e_lea_r32(e, H_RCX, hmem_base(H_EA, (int32_t)(0 - x->eip)));
    place_note(x, e, PLACE_NEG_EIP);
    uint8_t *same = e_jrcxz_fwd(e);
    e_jmp_m64(e, vcpu_mem(VCPU_OFS(stub_jt_miss)));
    if (!e->overflow)
        e_patch8(same, e->p);
    x->d->poll_ofs = (uint16_t)(e->p - e->start);
    e_mov_r32_m32(e, H_RCX, vcpu_mem(VCPU_OFS(run)));
    if (!e->overflow)
        e_jrcxz_to(e, poll_exit);
    x->d->body_ofs = (uint16_t)(e->p - e->start);
    uint8_t *branch = prelude_branch(x);
    if (x->bt->opt.icount && !x->is_gate)
        count_instruction(x, poll_exit);
    return branch;
}

/* ---- constants that can be patched ------------------------------------------------------------ */

static void note_const(struct xlate *x, uint32_t guest_eip, unsigned len, unsigned host_len, const uint8_t *at)
{
    struct ccf_draft *d = x->d;

    if (d->nconsts == CCF_MAX_CONSTS) { /* a place that is not known could not be patched with the others */
        x->has_many_consts = true;
        return;
    }
    d->consts[d->nconsts++] = (struct ccf_const){
        .guest_ofs = (uint16_t)(guest_eip - d->key.eip),
        .len = (uint8_t)len,
        .host_len = (uint8_t)host_len,
        .is_cold = x->is_cold,
        .host_ofs = (uint32_t)(at - x->e->start),
    };
}

void patch_note_const(struct xlate *x, unsigned host_len)
{
    if (x->patches && x->in.imm_len)
        note_const(x, x->next_eip - x->in.imm_len, x->in.imm_len, host_len, x->e->p);
}

/* The pointers that x87 instructions leave hold the address, too. */
bool patch_wants_disp(const struct xlate *x)
{
    return x->patches && x->in.disp_len == 4 && x->in.asize == 4 && x->in.unit != UNIT_X87;
}

void patch_note_disp(struct xlate *x)
{
    note_const(x, x->next_eip - x->in.imm_len - 4, 4, 4, x->e->p - 4);
}

/* Keep the bytes that the TU was made from. */
static void keep_source(struct xlate *x, const struct source *src)
{
    struct ccf_draft *d = x->d;

    d->has_source = (x->checks || policy_keeps_source(x->bt, d->key.pa >> GUEST_PAGE_SHIFT)) && d->guest_len <= sizeof d->source;
    if (!d->has_source)
        return;
    if (x->has_many_consts)
        d->nconsts = 0;
    memcpy(d->source, src->bytes, d->guest_len);
}

/* ---- the TU ------------------------------------------------------------------------------------ */

static void start(struct xlate *x, struct bt *bt, const struct ccf_key *key, const struct tcache_room *room)
{
    x->bt = bt;
    x->cpu = bt->cpu;
    x->d = &bt->draft;
    x->hot = (struct emit){ room->hot, room->hot, room->hot_end, false, bt->host.linear_window };
    x->cold = (struct emit){ room->cold, room->cold, room->cold_end, false, bt->host.linear_window };
    x->e = &x->hot;
    x->is_cold = x->ends = x->straddles = false;
    x->mode = key->mode;
    x->use_window = form_use_window(bt, key);
    x->eip = key->eip;
    x->page_eip = key->eip - ((uint32_t)key->pa & GUEST_PAGE_MASK);
    x->npending = x->nunresolved = 0;
    x->checks = policy_checks(bt, key->pa >> GUEST_PAGE_SHIFT);
    x->patches = !x->checks && policy_patches(bt, key->pa >> GUEST_PAGE_SHIFT);
    x->x87.is_open = x->has_many_consts = false;
    x->notes_places = reuse_is_possible(bt, key);
    bt->draft.nconsts = bt->draft.nplaces = 0;
    bt->draft.key = *key;
    bt->draft.pfn2 = CCF_ONE_PAGE;
    bt->draft.ninsns = bt->draft.nlinks = 0;
    bt->draft.gate = NULL;
    bt->draft.is_gate = x->is_gate = false;
}

/* A byte of the instruction lies beyond the limit of CS: #GP(0). Flat code has no such byte. */
static bool beyond_limit(const struct xlate *x, uint32_t eip, uint32_t len)
{
    uint32_t limit = x->cpu->segs[SEG_CS].limit;

    return !(x->mode & MODE_CS_FLAT) && (eip > limit || len - 1 > limit - eip);
}

/* What follows belongs to no instruction: the way on to the next TU, and islands. */
static void begin_tail(struct xlate *x)
{
    x87_end_run(x);
    if (!x->ends)
        idiom_islands(x, TAIL_ROOM, true);
    x->d->tail_ofs = (uint32_t)(x->hot.p - x->hot.start);
}

/* Is there a CCF already for what comes next? Then the TU ends here, and is chained to it: code
 * that several branches lead into is translated once. It ends, too, where what comes next keeps changing. */
static bool is_translated(const struct xlate *x, uint32_t ofs)
{
    struct ccf_key key = x->d->key;

    if (x->stop_ofs)
        return ofs == x->stop_ofs;
    key.pa += ofs;
    key.eip = x->eip;
    return (tcache_may_start_at(x->cpu->tc, gpa(key.pa)) && tcache_lookup(x->cpu->tc, &key)) || split_is_at(x->bt, &key, 0);
}

/* Decode and translate until the TU ends. false: the first instruction is cut off by the page. */
static bool translate_tu(struct xlate *x, const struct source *src, unsigned max_insns)
{
    uint32_t ofs = 0;

    uint8_t *branch = put_entries(x);
    while (!x->ends) {
        enum decode_rc rc = decode_insn(src->bytes + ofs, src->avail - ofs, x->mode & MODE_CODE32, &x->in);
        if (rc == DECODE_TRUNCATED && !x->straddles) {
            if (!x->d->ninsns)
                return false;
            begin_tail(x);
            idiom_jump_by_table(x, x->eip); /* the next instruction straddles */
            break;
        }
        if (rc != DECODE_OK) {
            bool too_long = x->in.len > 15;
            x->in = (struct insn){ .len = 1, .info = decoder_info(0) };
            x->next_eip = x->eip + 1;
            put_fault(x, ofs, too_long ? CALLOUT_raise_gp0 : CALLOUT_raise_ud);
            ofs += min_u32(src->avail - ofs, 15); /* all the bytes that decided */
            break;
        }
        if (beyond_limit(x, x->eip, x->in.len)) {
            x->next_eip = x->eip;
            put_fault(x, ofs, CALLOUT_raise_gp0);
            ofs += x->in.len;
            break;
        }
        if (ofs && is_translated(x, ofs)) {
            begin_tail(x);
            idiom_jump(x, x->eip);
            break;
        }
        x->next_eip = x->eip + x->in.len;
        translate_insn(x, ofs);
        ofs += x->in.len;
        x->eip = x->next_eip;
        if (x->ends)
            break;
        if (x->hot.overflow || x->cold.overflow)
            break;
        if (x->d->ninsns == max_insns || x->straddles || ofs >= src->avail ||
            prelude_ends_tu(x) ||
            x->d->nlinks + 3 > CCF_MAX_LINKS || x->next_eip < x->in.len) {
            begin_tail(x);
            idiom_jump(x, x->eip);
            break;
        }
    }
    if (x->ends)
        begin_tail(x);
    idiom_islands(x, 0, false);
    x->d->guest_len = ofs;
    prelude_put(x, branch, src->bytes);
    return true;
}

static void finish_draft(struct xlate *x)
{
    x->d->hot_len = (uint32_t)(x->hot.p - x->hot.start);
    x->d->cold_len = (uint32_t)(x->cold.p - x->cold.start);
    x->d->uses_window = x->use_window;
    if (!x->notes_places || x->is_gate)
        x->d->nplaces = 0;
}

/* The bytes of an instruction that lies in two pages, copied together; its second page is
 * fetched, which may fault. */
static enum x86_rc straddling_source(struct xlate *x, gva_t va, const struct source *first, uint8_t *buf,
                                     struct source *out)
{
    gva_t second = gva_add(va, first->avail);
    bool is_global;
    gpa_t pa;

    if (beyond_limit(x, x->eip, first->avail + 1)) /* the limit is looked at before the page */
        return vcpu_raise_error(x->cpu, EXC_GP, 0);
    enum x86_rc rc = mmu_fetch(x->cpu, second, &pa, &is_global);
    if (rc != X86_OK)
        return rc;
    memcpy(buf, first->bytes, first->avail);
    memset(buf + first->avail, 0xff, 32 - first->avail);
    hva_t p = mmu_ram_ptr(x->cpu->mmu, pa);
    if (p.p)
        memcpy(buf + first->avail, p.p, 16);
    x->checked[1] = p.p;
    x->checks = x->checks || policy_checks(x->bt, gpa_page(pa));
    x->patches = x->patches && !x->checks;
    *out = (struct source){ buf, 32 };
    x->straddles = true;
    x->d->pfn2 = gpa_page(pa);
    return X86_OK;
}

static enum x86_rc translate_once(struct xlate *x, struct bt *bt, const struct ccf_key *key, gva_t va,
                                  const struct tcache_room *room, unsigned max_insns)
{
    static const uint8_t no_memory[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                           0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    uint8_t buf[32];
    hva_t p = mmu_ram_ptr(bt->cpu->mmu, gpa(key->pa));
    struct source src = { p.p ? p.p : no_memory,
                          min_u32(p.p ? GUEST_PAGE_SIZE : 16,
                                  GUEST_PAGE_SIZE - ((uint32_t)key->pa & GUEST_PAGE_MASK)) };

    start(x, bt, key, room);
    x->checked[0] = p.p;
    if (translate_tu(x, &src, max_insns)) {
        finish_draft(x);
        keep_source(x, &src);
        return X86_OK;
    }
    start(x, bt, key, room);
    x->checked[0] = p.p;
    enum x86_rc rc = straddling_source(x, va, &src, buf, &src);
    if (rc != X86_OK)
        return rc;
    translate_tu(x, &src, 1);
    finish_draft(x);
    keep_source(x, &src);
    return X86_OK;
}

static void count_translation(struct bt *bt, const struct ccf *ccf)
{
    struct vcpu *cpu = bt->cpu;

    STAT_INC(cpu, tu_translated);
    STAT_ADD(cpu, insn_translated, ccf->ninsns);
    STAT_ADD(cpu, guest_bytes, ccf->guest_len);
    STAT_ADD(cpu, host_bytes, ccf->hot_len + ccf->cold_len);
}

/* verify=on: a CCF that the verifier cannot prove never runs. */
void verify_draft(struct bt *bt, const struct tcache_room *room)
{
    const struct ccf_draft *d = &bt->draft;
    const uint32_t entries[] = { d->verify_ofs, d->poll_ofs, d->body_ofs };
    struct verify_const consts[CCF_MAX_CONSTS];
    struct verify_error err;
    uint32_t first = min_u32(d->guest_len, GUEST_PAGE_SIZE - ((uint32_t)d->key.pa & GUEST_PAGE_MASK));

    for (unsigned i = 0; i < d->nconsts; i++)
        consts[i] = (struct verify_const){ d->consts[i].host_ofs, d->consts[i].host_len, d->consts[i].is_cold };
    struct verify_input in = {
        .hot = room->hot, .hot_len = d->hot_len, .cold = room->cold, .cold_len = d->cold_len,
        .hot_address = (uint64_t)(uintptr_t)room->hot + (uint64_t)room->exec_delta,
        .cold_address = (uint64_t)(uintptr_t)room->cold + (uint64_t)room->exec_delta,
        .consts = consts, .nconsts = d->nconsts,
        .entries = entries, .nentries = ARRAY_LEN(entries), .work = bt->verify_work,
        .source = { bt->xl.checked[0], bt->xl.checked[1] }, .source_len = { first, d->guest_len - first },
        .allow_window = bt->xl.use_window, .linear_window = bt->host.linear_window,
    };

    if (verify_ccf(&in, &err))
        return;
    log_printf(bt->cpu->log, "verify: EIP 0x%08x, %s part +0x%x: %s\n", d->key.eip, err.in_cold ? "cold" : "hot",
               err.ofs, err.reason);
    const uint8_t *bytes = (err.in_cold ? room->cold : room->hot) + err.ofs;
    log_printf(bt->cpu->log, "verify: bytes %02x %02x %02x %02x %02x %02x %02x %02x\n", bytes[0], bytes[1], bytes[2],
               bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]);
    ASSERT(!"the verifier refused a translation");
}

enum x86_rc translate_bytes(struct bt *bt, const struct ccf_key *key, gva_t va, const struct tcache_room *room,
                            uint32_t len)
{
    vcpu_fpu_park(bt->cpu);
    bt->xl.stop_ofs = len;
    enum x86_rc rc = translate_once(&bt->xl, bt, key, va, room, bt->opt.max_insns);
    bt->xl.stop_ofs = 0;
    return rc;
}

/* Room below which a region is given up rather than tried. */
#define LOW_ROOM 1024

static void room_for_ccf(struct tcache *tc, struct tcache_room *room)
{
    tcache_room(tc, room);
    if (room->is_fresh || (room->hot_end - room->hot >= LOW_ROOM && room->cold_end - room->cold >= LOW_ROOM))
        return;
    tcache_next_region(tc);
    tcache_room(tc, room);
}

struct ccf *bt_translate_gate(struct bt *bt, const struct ccf_key *key)
{
    struct xlate *x = &bt->xl;
    struct tcache_room room;

    vcpu_fpu_park(bt->cpu); /* the verifier's decoder is a library */
    for (;;) {
        room_for_ccf(bt->cpu->tc, &room);
        start(x, bt, key, &room);
        x->checked[0] = x->checked[1] = NULL;
        x->is_gate = x->d->is_gate = true;
        put_entries(x);
        x->d->insns[x->d->ninsns++] = (struct ccf_insn){ .how = BT_LOWERED, .callout = CALLOUT_COUNT,
                                                         .hot_ofs = x->d->body_ofs };
        idiom_jump(x, key->eip);
        x->d->links[0].poll = false; /* the gate's own has been passed */
        x->d->guest_len = 1;         /* whose it is does not matter: it holds for any bytes */
        x->d->has_source = false;
        x->d->tail_ofs = x->d->body_ofs;
        finish_draft(x);
        ASSERT(x->d->nlinks == 1 && !x->hot.overflow && !x->cold.overflow);
        if (bt->opt.verify)
            verify_draft(bt, &room);
        struct ccf *gate = tcache_commit(bt->cpu->tc, &bt->draft);
        if (gate)
            return gate;
        tcache_next_region(bt->cpu->tc);
    }
}

enum x86_rc bt_translate(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf *gate, struct ccf **out)
{
    struct tcache *tc = bt->cpu->tc;
    unsigned max_insns = gate || key->mode & MODE_STEP ? 1 : bt->opt.max_insns;
    struct tcache_room room;

    if (!gate && reuse_ccf(bt, key, va, out))
        return X86_OK;
    vcpu_fpu_park(bt->cpu); /* the decoder is a library like any other */
    for (;;) {
        room_for_ccf(tc, &room);
        if (gate && !gate->live)
            return X86_RETRY;
        enum x86_rc rc = translate_once(&bt->xl, bt, key, va, &room, max_insns);
        if (rc != X86_OK)
            return rc;
        bt->draft.gate = gate;
        if (gate)
            bt->draft.nplaces = 0;
        bool overflow = bt->xl.hot.overflow || bt->xl.cold.overflow;
        if (!overflow && bt->opt.verify)
            verify_draft(bt, &room);
        *out = overflow ? NULL : tcache_commit(tc, &bt->draft);
        if (*out) {
            count_translation(bt, *out);
            if (bt->ops.translated)
                bt->ops.translated(bt->ops.ctx, bt->cpu, *out);
            return X86_OK;
        }
        if (overflow && room.is_fresh) {
            ASSERT(max_insns > 1);
            max_insns /= 2;
        } else {
            tcache_next_region(tc);
        }
    }
}
