/*
 * The verifier over emitted code; verify.h says what it proves.
 *
 * One pass over the bytes finds the instructions and the labels, a second interprets them
 * abstractly in address order, the hot part before the cold one. A label that only earlier
 * code branches to gets what all its branches agree on; any other label (a loop, the way
 * back from the cold part, the point after a call) gets only the promise that every label
 * makes, and every branch to it must keep that promise. So one pass is enough.
 *
 * verify_rules.c says what each instruction does to the abstract state, verify_control.c
 * what branches must keep, verify_access.c which operands are allowed and why a lookup is a
 * proof.
 *
 * Invariants: reads only the two byte ranges; keeps nothing; guest input can make it say no,
 * nothing else.
 */
#include "bt/verify.h"

#include "base/string.h"
#include "bt/verify_internal.h"

#include <Zydis/Decoder.h>

/* As ZydisDecoderInit() has it for 64-bit code: with the prefixes that modern hosts honour. */
/* clang-format off */
static const ZydisDecoder decoder = {
    .machine_mode = ZYDIS_MACHINE_MODE_LONG_64,
    .stack_width = ZYDIS_STACK_WIDTH_64,
    .decoder_mode = { [ZYDIS_DECODER_MODE_MPX] = ZYAN_TRUE, [ZYDIS_DECODER_MODE_CET] = ZYAN_TRUE,
                      [ZYDIS_DECODER_MODE_LZCNT] = ZYAN_TRUE, [ZYDIS_DECODER_MODE_TZCNT] = ZYAN_TRUE,
                      [ZYDIS_DECODER_MODE_CLDEMOTE] = ZYAN_TRUE },
};
/* clang-format on */

static uint32_t total_len(const struct verify_work *v)
{
    return v->in->hot_len + v->in->cold_len;
}

static bool decode_at(struct verify_work *v, uint32_t ofs, struct host_insn *h)
{
    const struct verify_input *in = v->in;
    bool in_cold = ofs >= in->hot_len;
    uint32_t part_ofs = in_cold ? ofs - in->hot_len : ofs;
    const uint8_t *bytes = (in_cold ? in->cold : in->hot) + part_ofs;
    uint32_t left = (in_cold ? in->cold_len : in->hot_len) - part_ofs;

    v->err->in_cold = in_cold;
    v->err->ofs = part_ofs;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, left, &h->zi, h->ops)))
        return bad(v, "is no instruction");
    h->ofs = ofs;
    h->next = ofs + h->zi.length;
    h->address = (in_cold ? in->cold_address : in->hot_address) + part_ofs + h->zi.length;
    h->imm_varies = h->zi.raw.imm[0].size && (v->mark[ofs + h->zi.raw.imm[0].offset] & MARK_CONST);
    h->disp_varies = h->zi.raw.disp.size && (v->mark[ofs + h->zi.raw.disp.offset] & MARK_CONST);
    return true;
}

/* A label that later code or a call leads to has only the promise. */
static void mark_label(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !h->ops[0].imm.is_relative)
        return;
    uint32_t target = verify_inside(v->in, branch_target(h));
    if (target != NO_OFS && (target <= h->ofs || h->zi.mnemonic == ZYDIS_MNEMONIC_CALL))
        v->mark[target] |= MARK_PLAIN;
}

static bool find_labels(struct verify_work *v)
{
    struct host_insn h;

    for (uint32_t ofs = 0; ofs < total_len(v); ofs = h.next) {
        if (!decode_at(v, ofs, &h))
            return false;
        v->mark[ofs] |= MARK_START;
        if (h.zi.operand_count_visible)
            mark_label(v, &h);
    }
    return true;
}

/* The state at `ofs`: what falls in from above met with what branches here. Code that nothing
 * leads to may be the target of a patch to come; it starts from the promise. */
static bool enter_label(struct verify_work *v, uint32_t ofs)
{
    struct pending_label *label = verify_find_pending(v, ofs);

    if (v->mark[ofs] & MARK_PLAIN) {
        if (v->state.reachable && !verify_keep_promise(v))
            return false;
        vstate_reset(&v->state, &v->next_symbol);
        return true;
    }
    if (label) {
        if (v->state.reachable && v->state.depth != label->state.depth)
            return bad(v, "meets another stack depth");
        vstate_meet(&v->state, &label->state, &v->next_symbol);
        label->ofs = NO_OFS;
    }
    if (!v->state.reachable)
        vstate_reset(&v->state, &v->next_symbol);
    return true;
}

static bool mark_entries(struct verify_work *v)
{
    for (unsigned i = 0; i < v->in->nentries; i++) {
        uint32_t ofs = v->in->entries[i];
        if (ofs >= v->in->hot_len || !(v->mark[ofs] & MARK_START))
            return bad(v, "an entry lies in the middle of an instruction");
        v->mark[ofs] |= MARK_PLAIN;
    }
    return true;
}

static uint32_t const_ofs(const struct verify_work *v, const struct verify_const *k)
{
    return k->is_cold ? v->in->hot_len + k->ofs : k->ofs;
}

static bool mark_consts(struct verify_work *v)
{
    for (unsigned i = 0; i < v->in->nconsts; i++) {
        uint32_t ofs = const_ofs(v, &v->in->consts[i]);
        if (ofs >= total_len(v))
            return bad(v, "a constant lies outside");
        v->mark[ofs] |= MARK_CONST;
    }
    return true;
}

static bool is_window_operand(const struct verify_work *v, const struct host_insn *h, const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    return v->in->linear_window ? h->zi.address_width == 32 : op->mem.segment == ZYDIS_REGISTER_GS;
}

/* The displacement of a LEA, whose result is then any number, or of an operand in the window, which may be any. */
static bool is_disp(const struct verify_work *v, const struct host_insn *h, uint32_t ofs, uint32_t len)
{
    return h->disp_varies && h->zi.raw.disp.offset == ofs && h->zi.raw.disp.size == len * 8 && len == 4 &&
           (h->zi.mnemonic == ZYDIS_MNEMONIC_LEA || is_window_operand(v, h, &h->ops[0]) ||
            is_window_operand(v, h, &h->ops[1]) || is_window_operand(v, h, &h->ops[2]));
}

/* Each constant is all of the immediate or displacement of an instruction, and no displacement of a branch. */
static bool check_consts(struct verify_work *v)
{
    struct host_insn h;

    for (unsigned i = 0; i < v->in->nconsts; i++) {
        const struct verify_const *k = &v->in->consts[i];
        uint32_t ofs = const_ofs(v, k), start = ofs;
        while (start > 0 && !(v->mark[start] & MARK_START))
            start--;
        if (!decode_at(v, start, &h))
            return false;
        if (is_disp(v, &h, ofs - start, k->len))
            continue;
        if (!h.imm_varies || start + h.zi.raw.imm[0].offset != ofs || h.zi.raw.imm[0].size != k->len * 8 ||
            h.zi.raw.imm[0].is_relative)
            return bad(v, "a constant to be patched is no immediate");
    }
    return true;
}

static bool interpret(struct verify_work *v)
{
    struct host_insn h;

    vstate_reset(&v->state, &v->next_symbol);
    for (uint32_t ofs = 0; ofs < total_len(v); ofs = h.next) {
        if (ofs == v->in->hot_len && v->state.reachable && ofs != 0)
            return bad(v, "falls out of the hot part");
        if (!decode_at(v, ofs, &h) || !enter_label(v, ofs))
            return false;
        rule_fn *rule = verify_rule_of(&h);
        if (!rule)
            return bad(v, "is an instruction that translated code must not contain");
        if (!rule(v, &h))
            return false;
    }
    return v->state.reachable ? bad(v, "falls out of the code") : true;
}

size_t verify_work_bytes(void)
{
    return sizeof(struct verify_work);
}

bool verify_ccf(const struct verify_input *in, struct verify_error *err)
{
    struct verify_work *v = in->work;

    *err = (struct verify_error){ 0 };
    v->in = in;
    v->err = err;
    if (in->hot_len > MAX_BYTES || in->cold_len > MAX_BYTES - in->hot_len)
        return bad(v, "is too long");
    v->next_symbol = 0;
    memset(v->mark, 0, total_len(v));
    for (unsigned i = 0; i < MAX_PENDING; i++)
        v->pending[i].ofs = NO_OFS;
    return mark_consts(v) && find_labels(v) && mark_entries(v) && check_consts(v) && interpret(v);
}
