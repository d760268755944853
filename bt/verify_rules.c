/*
 * The verifier's rules: what each instruction of translated code does to the abstract state.
 * One table leads from mnemonics to functions, the one place to extend for a new idiom.
 * Mnemonics without a rule go to rule_generic(), if the class table calls them innocuous.
 *
 * Ref: Intel SDM vol. 2 for operand sizes and directions (by way of Zydis).
 */
#include "bt/verify_internal.h"

#include "decoder/decoder.h"

/* With a zero source BSF and BSR leave the register as it was, upper half included. */
static bool writes_only_maybe(const struct host_insn *h, const ZydisDecodedOperand *op)
{
    return (op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) || h->zi.mnemonic == ZYDIS_MNEMONIC_BSF ||
           h->zi.mnemonic == ZYDIS_MNEMONIC_BSR;
}

static void apply_writes(struct verify_work *v, const struct host_insn *h)
{
    for (unsigned i = 0; i < h->zi.operand_count; i++) {
        const ZydisDecodedOperand *op = &h->ops[i];
        if (!is_written(op))
            continue;
        int r = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? verify_gpr_number(op->reg.value) : -1;
        if (r >= 0)
            verify_clobber_reg(v, (unsigned)r, op->size, writes_only_maybe(h, op));
        else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.base == ZYDIS_REGISTER_R15)
            verify_note_vcpu_store(v, op->mem.disp.value, op->size / 8u, value_any());
    }
}

static bool rule_generic(struct verify_work *v, const struct host_insn *h)
{
    if (!verify_check_operands(v, h))
        return false;
    apply_writes(v, h);
    return true;
}

/* Multi-byte NOPs name memory that they don't touch. */
static bool rule_nop(struct verify_work *v, const struct host_insn *h)
{
    (void)v;
    (void)h;
    return true;
}

/* --- moves --- */

static bool mov_load(struct verify_work *v, const struct host_insn *h, unsigned to)
{
    const ZydisDecodedOperand *mem = &h->ops[1];
    struct value value;

    if (mem->mem.base == ZYDIS_REGISTER_R14 && mem->mem.segment != ZYDIS_REGISTER_GS) {
        if (h->zi.address_width != 64 || h->ops[0].size != 64)
            return bad(v, "reads a view's table in no known way");
        if (!verify_load_view_slot(v, mem, &value))
            return false;
        verify_set_reg(v, to, value);
        return true;
    }
    if (!verify_check_memory(v, h, mem, mem->size / 8u, true, false))
        return false;
    if (h->ops[0].size == 64 && mem->mem.base == ZYDIS_REGISTER_R15)
        verify_set_reg(v, to, verify_load_vcpu(v, mem->mem.disp.value));
    else
        verify_clobber_reg(v, to, h->ops[0].size, false);
    return true;
}

static void mov_reg(struct verify_work *v, const struct host_insn *h, unsigned to, unsigned from)
{
    const struct value value = v->state.reg[from];

    if (h->ops[0].size == 64 || (h->ops[0].size == 32 && value_is_u32(&value)))
        verify_set_reg(v, to, value);
    else
        verify_clobber_reg(v, to, h->ops[0].size, false);
}

static void mov_imm(struct verify_work *v, const struct host_insn *h, unsigned to)
{
    uint64_t imm = h->ops[1].imm.value.u;

    for (unsigned i = 0; i < ARRAY_LEN(v->in->source) && h->ops[0].size == 64; i++)
        if (v->in->source[i] && v->in->source_len[i] && imm == (uint64_t)(uintptr_t)v->in->source[i]) {
            verify_set_reg(v, to, (struct value){ .kind = VAL_PTR, .span = v->in->source_len[i] - 1 });
            return;
        }
    if (h->imm_varies)
        verify_clobber_reg(v, to, h->ops[0].size, false);
    else if (h->ops[0].size == 32)
        verify_set_reg(v, to, value_const((uint32_t)imm));
    else if (h->ops[0].size == 64 && imm <= UINT32_MAX)
        verify_set_reg(v, to, value_const((uint32_t)imm));
    else
        verify_clobber_reg(v, to, h->ops[0].size, false);
}

static bool mov_store(struct verify_work *v, const struct host_insn *h)
{
    const ZydisDecodedOperand *mem = &h->ops[0], *from = &h->ops[1];
    struct value value = value_any();

    if (from->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        if (!verify_check_reg(v, from->reg.value, false))
            return false;
        value = v->state.reg[verify_gpr_number(from->reg.value)];
    }
    if (!verify_check_memory(v, h, mem, mem->size / 8u, false, true))
        return false;
    if (mem->mem.base == ZYDIS_REGISTER_R15)
        verify_note_vcpu_store(v, mem->mem.disp.value, mem->size / 8u, value);
    return true;
}

static bool rule_mov(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        return mov_store(v, h);
    if (!verify_check_reg(v, h->ops[0].reg.value, true))
        return false;
    unsigned to = (unsigned)verify_gpr_number(h->ops[0].reg.value);
    switch (h->ops[1].type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return mov_load(v, h, to);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        mov_imm(v, h, to);
        return true;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (!verify_check_reg(v, h->ops[1].reg.value, false))
            return false;
        mov_reg(v, h, to, (unsigned)verify_gpr_number(h->ops[1].reg.value));
        return true;
    default:
        return bad(v, "is a MOV of no known form");
    }
}

static bool rule_movzx(struct verify_work *v, const struct host_insn *h)
{
    if (!rule_generic(v, h))
        return false;
    if (h->ops[0].size >= 32)
        v->state.reg[verify_gpr_number(h->ops[0].reg.value)] = value_fresh(&v->next_symbol, h->ops[1].size);
    return true;
}

/* --- addresses --- */

static unsigned scale_log2(unsigned scale)
{
    return scale >= 8 ? 3 : scale >> 1;
}

/* lea r9d, [r9 + r10] of two pages, in either order: which one is the first byte's? */
static bool slot_of_pages(const struct value *a, const struct value *b, struct value *out)
{
    uint32_t span = b->lin.k - a->lin.k;

    if (a->kind != VAL_PAGE || b->kind != VAL_PAGE || !lin_same_terms(&a->lin, &b->lin) ||
        span >= GUEST_PAGE_SIZE)
        return false;
    *out = *a;
    out->kind = VAL_SLOT;
    out->span = span;
    return true;
}

static struct value lea_32(struct verify_work *v, const ZydisDecodedOperand *mem)
{
    const struct value zero = value_const(0);
    int b = verify_gpr_number(mem->mem.base), i = verify_gpr_number(mem->mem.index);
    const struct value *base = b < 0 ? NULL : &v->state.reg[b];
    const struct value *index = i < 0 ? NULL : &v->state.reg[i];
    uint32_t disp = (uint32_t)mem->mem.disp.value;
    struct value out = { .kind = VAL_U32, .bits = 32 };

    if (mem->mem.base == ZYDIS_REGISTER_RIP || mem->mem.base == ZYDIS_REGISTER_EIP)
        return value_fresh(&v->next_symbol, 32);
    if (base && index && mem->mem.scale == 1 && disp == 0 &&
        (slot_of_pages(base, index, &out) || slot_of_pages(index, base, &out)))
        return out;
    base = base ? base : &zero;
    index = index ? index : &zero;
    if (base->kind != VAL_U32 || index->kind != VAL_U32 ||
        !lin_add(&base->lin, &index->lin, scale_log2(mem->mem.scale), disp, &out.lin))
        return value_fresh(&v->next_symbol, 32);
    return out;
}

/* lea r8, [rcx + r8] and lea r8, [r8 + n]: what remains of the checked bytes. */
static struct value lea_64(struct verify_work *v, const ZydisDecodedOperand *mem)
{
    const struct value *base = verify_address_reg(&v->state, mem->mem.base);
    const struct value *index = verify_address_reg(&v->state, mem->mem.index);
    int64_t disp = mem->mem.disp.value;
    struct value out = { .kind = VAL_PTR };

    if (base && mem->mem.index == ZYDIS_REGISTER_NONE && base->kind == VAL_PTR && disp >= 0 &&
        disp <= (int64_t)base->span) {
        out.is_store = base->is_store;
        out.span = base->span - (uint32_t)disp;
        return out;
    }
    if (!base || !index || mem->mem.scale != 1)
        return value_any();
    const struct value *addend = base->kind == VAL_ADDEND ? base : index;
    const struct value *address = addend == base ? index : base;
    if (!verify_addend_covers(addend, address, disp, 1))
        return value_any();
    out.is_store = addend->is_store;
    out.span = addend->span - (address->lin.k - addend->lin.k) - (uint32_t)disp;
    return out;
}

static bool rule_lea(struct verify_work *v, const struct host_insn *h)
{
    const ZydisDecodedOperand *mem = &h->ops[1];

    if (!verify_check_reg(v, h->ops[0].reg.value, true))
        return false;
    if (!verify_check_reg(v, mem->mem.base, false) || !verify_check_reg(v, mem->mem.index, false))
        return false;
    unsigned to = (unsigned)verify_gpr_number(h->ops[0].reg.value);
    if (h->disp_varies)
        verify_clobber_reg(v, to, h->ops[0].size, false);
    else if (h->ops[0].size == 32)
        verify_set_reg(v, to, lea_32(v, mem));
    else if (h->ops[0].size == 64 && h->zi.address_width == 64)
        verify_set_reg(v, to, lea_64(v, mem));
    else
        verify_clobber_reg(v, to, h->ops[0].size, false);
    return true;
}

/* shrx r9d, r8d, r11d; shr r9d, 12: pages, and values with fewer bits. */
static bool rule_shr(struct verify_work *v, const struct host_insn *h)
{
    bool is_shrx = h->zi.mnemonic == ZYDIS_MNEMONIC_SHRX;
    const ZydisDecodedOperand *from = is_shrx ? &h->ops[1] : &h->ops[0];
    const ZydisDecodedOperand *by = is_shrx ? &h->ops[2] : &h->ops[1];
    struct value was = value_any();
    uint32_t count = 0;
    bool is_known = by->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !h->imm_varies;

    if (from->type == ZYDIS_OPERAND_TYPE_REGISTER && verify_gpr_number(from->reg.value) >= 0)
        was = v->state.reg[verify_gpr_number(from->reg.value)];
    if (is_known)
        count = (uint32_t)by->imm.value.u;
    else if (by->type == ZYDIS_OPERAND_TYPE_REGISTER && verify_gpr_number(by->reg.value) >= 0)
        is_known = value_constant(&v->state.reg[verify_gpr_number(by->reg.value)], &count);
    if (!rule_generic(v, h))
        return false;
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || h->ops[0].size != 32 || !is_known || count > 31)
        return true;
    struct value *out = &v->state.reg[verify_gpr_number(h->ops[0].reg.value)];
    if (count == GUEST_PAGE_SHIFT && was.kind == VAL_U32)
        *out = (struct value){ .kind = VAL_PAGE, .lin = was.lin };
    else if (count > 0)
        *out = value_fresh(&v->next_symbol, 32 - count);
    return true;
}

/* and r10d, 31 */
static bool rule_and(struct verify_work *v, const struct host_insn *h)
{
    if (!rule_generic(v, h))
        return false;
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || h->ops[0].size != 32 ||
        h->ops[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || h->imm_varies)
        return true;
    unsigned bits = 0;
    for (uint32_t mask = (uint32_t)h->ops[1].imm.value.u; mask; mask >>= 1)
        bits++;
    v->state.reg[verify_gpr_number(h->ops[0].reg.value)] = value_fresh(&v->next_symbol, bits);
    return true;
}

/* --- the host stack --- */

static bool push_value(struct verify_work *v, struct value value)
{
    if (v->state.depth == VERIFY_STACK)
        return bad(v, "pushes too much");
    v->state.stack[v->state.depth++] = value;
    return true;
}

static bool rule_push(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || h->zi.operand_width != 64 ||
        verify_gpr_number(h->ops[0].reg.value) < 0)
        return bad(v, "pushes something else than a register");
    return verify_check_reg(v, h->ops[0].reg.value, false) &&
           push_value(v, v->state.reg[verify_gpr_number(h->ops[0].reg.value)]);
}

static bool rule_pop(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || h->zi.operand_width != 64 ||
        verify_gpr_number(h->ops[0].reg.value) < 0)
        return bad(v, "pops something else than a register");
    if (v->state.depth == 0)
        return bad(v, "pops what it has not pushed");
    if (!verify_check_reg(v, h->ops[0].reg.value, true))
        return false;
    verify_set_reg(v, (unsigned)verify_gpr_number(h->ops[0].reg.value), v->state.stack[--v->state.depth]);
    return true;
}

static bool rule_pushfq(struct verify_work *v, const struct host_insn *h)
{
    return h->zi.operand_width == 64 ? push_value(v, value_any()) : bad(v, "pushes half the flags");
}

static bool rule_popfq(struct verify_work *v, const struct host_insn *h)
{
    if (h->zi.operand_width != 64 || v->state.depth == 0)
        return bad(v, "pops flags that it has not pushed");
    v->state.depth--;
    return true;
}

/* --- the table --- */

/* clang-format off */
static rule_fn *const rules[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    [ZYDIS_MNEMONIC_MOV]    = rule_mov,
    [ZYDIS_MNEMONIC_MOVZX]  = rule_movzx,
    [ZYDIS_MNEMONIC_LEA]    = rule_lea,
    [ZYDIS_MNEMONIC_SHR]    = rule_shr,
    [ZYDIS_MNEMONIC_SHRX]   = rule_shr,
    [ZYDIS_MNEMONIC_AND]    = rule_and,
    [ZYDIS_MNEMONIC_NOP]    = rule_nop,
    [ZYDIS_MNEMONIC_PUSH]   = rule_push,
    [ZYDIS_MNEMONIC_POP]    = rule_pop,
    [ZYDIS_MNEMONIC_PUSHFQ] = rule_pushfq,
    [ZYDIS_MNEMONIC_POPFQ]  = rule_popfq,
    [ZYDIS_MNEMONIC_JMP]    = verify_rule_jmp,
    [ZYDIS_MNEMONIC_CALL]   = verify_rule_call,
    [ZYDIS_MNEMONIC_RET]    = verify_rule_ret,
    [ZYDIS_MNEMONIC_UD2]    = verify_rule_ud2,
    [ZYDIS_MNEMONIC_JRCXZ]  = verify_rule_jrcxz,
    [ZYDIS_MNEMONIC_JO]     = verify_rule_jcc, [ZYDIS_MNEMONIC_JNO]  = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JB]     = verify_rule_jcc, [ZYDIS_MNEMONIC_JNB]  = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JZ]     = verify_rule_jcc, [ZYDIS_MNEMONIC_JNZ]  = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JBE]    = verify_rule_jcc, [ZYDIS_MNEMONIC_JNBE] = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JS]     = verify_rule_jcc, [ZYDIS_MNEMONIC_JNS]  = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JP]     = verify_rule_jcc, [ZYDIS_MNEMONIC_JNP]  = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JL]     = verify_rule_jcc, [ZYDIS_MNEMONIC_JNL]  = verify_rule_jcc,
    [ZYDIS_MNEMONIC_JLE]    = verify_rule_jcc, [ZYDIS_MNEMONIC_JNLE] = verify_rule_jcc,
    /* no guest has these, but the translator uses them */
    [ZYDIS_MNEMONIC_SHLX]   = rule_generic,
    [ZYDIS_MNEMONIC_SARX]   = rule_generic,
    [ZYDIS_MNEMONIC_PEXT]   = rule_generic,
    [ZYDIS_MNEMONIC_PDEP]   = rule_generic,
    [ZYDIS_MNEMONIC_RORX]   = rule_generic,
    [ZYDIS_MNEMONIC_MOVSXD] = rule_generic,
};
/* clang-format on */

rule_fn *verify_rule_of(const struct host_insn *h)
{
    rule_fn *rule = rules[h->zi.mnemonic];

    if (rule)
        return rule;
    if (h->zi.meta.category == ZYDIS_CATEGORY_STRINGOP) /* MOVSD and CMPSD: not the SSE2 ones */
        return NULL;
    bool is_legacy = h->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    return is_legacy && decoder_info(h->zi.mnemonic)->cls == CLASS_INNOCUOUS ? rule_generic : NULL;
}
