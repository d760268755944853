/*
 * The verifier's edges: what every branch, call and return of translated code must keep, and
 * what its target may assume. verify.c says how labels meet.
 */
#include "bt/verify_internal.h"

/* ---- edges ----------------------------------------------------------------------------------- */

bool verify_keep_promise(struct verify_work *v)
{
    const char *broken = vstate_promise(&v->state);
    return broken ? bad(v, broken) : true;
}

uint32_t verify_inside(const struct verify_input *in, uint64_t address)
{
    if (address - in->hot_address < in->hot_len)
        return (uint32_t)(address - in->hot_address);
    if (address - in->cold_address < in->cold_len)
        return in->hot_len + (uint32_t)(address - in->cold_address);
    return NO_OFS;
}

struct pending_label *verify_find_pending(struct verify_work *v, uint32_t ofs)
{
    for (unsigned i = 0; i < MAX_PENDING; i++)
        if (v->pending[i].ofs == ofs)
            return &v->pending[i];
    return NULL;
}

/* Control goes from here to `ofs` with the present state. */
static bool edge_inside(struct verify_work *v, uint32_t ofs)
{
    if (!(v->mark[ofs] & MARK_START))
        return bad(v, "branches into the middle of an instruction");
    if (v->mark[ofs] & MARK_PLAIN)
        return verify_keep_promise(v);

    struct pending_label *label = verify_find_pending(v, ofs);
    if (label) {
        if (label->state.depth != v->state.depth)
            return bad(v, "meets another stack depth");
        vstate_meet(&label->state, &v->state, &v->next_symbol);
        return true;
    }
    label = verify_find_pending(v, NO_OFS);
    if (!label) { /* no room to remember: the promise has to do */
        v->mark[ofs] |= MARK_PLAIN;
        return verify_keep_promise(v);
    }
    label->ofs = ofs;
    label->state = v->state;
    return true;
}

static bool edge(struct verify_work *v, uint64_t target)
{
    uint32_t ofs = verify_inside(v->in, target);

    if (ofs != NO_OFS)
        return edge_inside(v, ofs);
    if (!v->in->is_target || !v->in->is_target(v->in->ctx, target))
        return bad(v, "branches to a place that is not permitted");
    return verify_keep_promise(v);
}

/* ---- rules -------------------------------------------------------------------------------- */

bool verify_rule_jcc(struct verify_work *v, const struct host_insn *h)
{
    return edge(v, branch_target(h));
}

/* The branch is taken with RCX zero; falling through proves that a table entry is there. */
bool verify_rule_jrcxz(struct verify_work *v, const struct host_insn *h)
{
    struct value rcx = v->state.reg[H_RCX];

    if (h->zi.address_width != 64)
        return bad(v, "tests half of RCX");
    v->state.reg[H_RCX] = value_const(0);
    if (!edge(v, branch_target(h)))
        return false;
    if (rcx.kind == VAL_ADDEND)
        rcx.checked = true;
    v->state.reg[H_RCX] = rcx;
    return true;
}

/* Where an indirect JMP or CALL may find its target. */
static bool check_indirect(struct verify_work *v, const struct host_insn *h, unsigned use)
{
    const ZydisDecodedOperand *op = &h->ops[0];

    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned reg = (unsigned)op->reg.value - ZYDIS_REGISTER_RAX;
        bool is_code = op->size == 64 && reg <= H_R15 && v->state.reg[reg].kind == VAL_CODE;
        return is_code || bad(v, "goes to an unknown address");
    }
    if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->size != 64 || h->zi.address_width != 64 ||
        op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS)
        return bad(v, "goes to an unknown address");
    int64_t disp = op->mem.disp.value;
    if (op->mem.base == ZYDIS_REGISTER_R15)
        return op->mem.index == ZYDIS_REGISTER_NONE && verify_vcpu_use_is_allowed(disp, 8, use)
                   ? true
                   : bad(v, "goes to a vCPU field that is no stub");
    if (op->mem.base != ZYDIS_REGISTER_R14)
        return bad(v, "goes to an unknown address");
    if (op->mem.index == ZYDIS_REGISTER_NONE)
        return disp >= VIEW_JT_OFS && disp < VIEW_BYTES && disp % 8 == 0 ? true
                                                                         : bad(v, "misses the jump table");
    struct value slot;
    return verify_load_view_slot(v, op, &slot) &&
           (slot.kind == VAL_CODE ? true : bad(v, "misses the jump table"));
}

static bool is_prefixed_branch(const struct host_insn *h)
{
    return h->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
           (h->zi.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
}

bool verify_rule_jmp(struct verify_work *v, const struct host_insn *h)
{
    if (is_prefixed_branch(h))
        return bad(v, "is a far or a short-operand transfer");
    bool ok = h->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
                  ? edge(v, branch_target(h))
                  : check_indirect(v, h, USE_JMP) && verify_keep_promise(v);
    v->state.reachable = false;
    return ok;
}

/* stub_mem_slow: R8D an address, R9D a descriptor; gives the addend, keeps R8 and R10. */
static bool call_mem_slow(struct verify_work *v)
{
    struct value *reg = v->state.reg;
    uint32_t desc;

    if (reg[H_R8].kind != VAL_U32)
        return bad(v, "asks for a slow access at an unknown address");
    if (!value_constant(&reg[H_R9], &desc) || (desc & 0x3ffu) == 0)
        return bad(v, "asks for a slow access of unknown size");
    reg[H_RCX] = (struct value){ .kind = VAL_ADDEND,
                                 .checked = true,
                                 .is_exact = true,
                                 .is_store = (desc & MD_WRITE) != 0,
                                 .span = (desc & 0x3ffu) - 1,
                                 .lin = reg[H_R8].lin };
    reg[H_R9] = value_any();
    return true;
}

static bool call_stub(struct verify_work *v, int64_t disp)
{
    switch (disp) {
    case offsetof(struct vcpu, stub_mem_slow):
        return call_mem_slow(v);
    case offsetof(struct vcpu, stub_mem_done):
        v->state.reg[H_RCX] = v->state.reg[H_R8] = v->state.reg[H_R9] = v->state.reg[H_R10] = value_any();
        return true;
    default:
        vstate_reset(&v->state, &v->next_symbol);
        return true;
    }
}

bool verify_rule_call(struct verify_work *v, const struct host_insn *h)
{
    if (is_prefixed_branch(h))
        return bad(v, "is a far or a short-operand transfer");
    if (!verify_keep_promise(v))
        return false;
    if (h->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        if (!edge(v, branch_target(h)))
            return false;
    } else if (!check_indirect(v, h, USE_CALL)) {
        return false;
    } else if (h->ops[0].mem.base == ZYDIS_REGISTER_R15 && h->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        return call_stub(v, h->ops[0].mem.disp.value);
    }
    vstate_reset(&v->state, &v->next_symbol); /* the guest's callee came and went */
    return true;
}

bool verify_rule_ret(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE || is_prefixed_branch(h))
        return bad(v, "is a return that takes arguments");
    bool ok = verify_keep_promise(v);
    v->state.reachable = false;
    return ok;
}

/* The end of code that a callout never comes back to. */
bool verify_rule_ud2(struct verify_work *v, const struct host_insn *h)
{
    (void)h;
    v->state.reachable = false;
    return true;
}
