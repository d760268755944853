/*
 * The verifier's view of operands: which registers, virtual CPU fields and guest memory an
 * instruction of translated code may name, and what writing them does to the abstract state.
 *
 * Why a lookup is a proof. The slot index is page(EA) + page(EA + size - 1). An access within
 * one page makes it even, 2 * page, and the slot holds host minus guest address of that page
 * or 0. An access across pages (or around 4 GiB) makes it odd, and odd slots are always 0.
 * JRCXZ leaves when the slot is 0. After it, slot + EA + i for i < size is in the page's host
 * memory; for stores the slot must come from the store table.
 */
#include "bt/verify_internal.h"

/* ---- the virtual CPU's fields ----------------------------------------------------------- */

struct vcpu_field {
    uint16_t ofs, bytes;
    uint8_t use;
};

/* clang-format off */
#define FIELD(name, use) { offsetof(struct vcpu, name), sizeof(((struct vcpu *)0)->name), use }

static const struct vcpu_field vcpu_fields[] = {
    FIELD(gpr, USE_READ | USE_WRITE),
    FIELD(eip, USE_READ | USE_WRITE),
    FIELD(next_eip, USE_READ | USE_WRITE),
    FIELD(run, USE_READ),
    FIELD(intr_quiet, USE_READ),
    FIELD(flags_ax, USE_READ | USE_WRITE),
    FIELD(eflags_if, USE_READ | USE_WRITE),
    FIELD(eflags_df, USE_READ | USE_WRITE),
    FIELD(eflags_sys, USE_READ),
    FIELD(segs, USE_READ),
    FIELD(exit_arg, USE_READ | USE_WRITE),
    FIELD(stub_callout, USE_CALL),
    FIELD(stub_mem_slow, USE_CALL),
    FIELD(stub_mem_done, USE_CALL),
    FIELD(stub_exit, USE_JMP),
    FIELD(stub_jt_miss, USE_JMP | USE_CALL),
    FIELD(stub_chain, USE_JMP),
    FIELD(stub_jt_probe, USE_JMP | USE_CALL),
    FIELD(tmp, USE_READ | USE_WRITE),
    FIELD(seg_base, USE_READ),
    FIELD(seg_plain, USE_READ),
    FIELD(icount_left, USE_READ | USE_WRITE),
    FIELD(mem_bounced, USE_READ),
    FIELD(df_step, USE_READ | USE_WRITE),
    FIELD(ccf_id, USE_READ | USE_WRITE),
    { offsetof(struct vcpu, x87_fip), 12, USE_WRITE }, /* FIP, FOP and segment in one store, EA */
};
/* clang-format on */

bool verify_vcpu_use_is_allowed(int64_t disp, uint32_t bytes, unsigned use)
{
    for (size_t i = 0; i < ARRAY_LEN(vcpu_fields); i++) {
        const struct vcpu_field *f = &vcpu_fields[i];
        if (disp >= f->ofs && disp + bytes <= (int64_t)f->ofs + f->bytes)
            return (f->use & use) == use;
    }
    return false;
}

/* ---- operands --------------------------------------------------------------------------- */

int verify_gpr_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return (int)(reg - ZYDIS_REGISTER_RAX);
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return (int)(reg - ZYDIS_REGISTER_EAX);
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        return (int)(reg - ZYDIS_REGISTER_AX);
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
        return (int)(reg - ZYDIS_REGISTER_AL);
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (int)(reg - ZYDIS_REGISTER_AH);
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return (int)(reg - ZYDIS_REGISTER_SPL) + 4;
    return -1;
}

static bool is_system_reg(ZydisRegister reg)
{
    return (reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS) ||
           (reg >= ZYDIS_REGISTER_GDTR && reg <= ZYDIS_REGISTER_TR) ||
           (reg >= ZYDIS_REGISTER_TR0 && reg <= ZYDIS_REGISTER_DR15);
}

/* RSP, the view and the vCPU are nobody's operand but an address; the constant 12 is read only. */
bool verify_check_reg(struct verify_work *v, ZydisRegister reg, bool writes)
{
    int r = verify_gpr_number(reg);

    if (is_system_reg(reg))
        return bad(v, "names a segment or system register");
    if (r == H_RSP || r == H_R14 || r == H_R15 || (r == H_R11 && writes))
        return bad(v, "names a pinned register");
    return true;
}

static bool is_reg64(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15;
}

const struct value *verify_address_reg(const struct vstate *s, ZydisRegister reg)
{
    return is_reg64(reg) ? &s->reg[reg - ZYDIS_REGISTER_RAX] : NULL;
}

bool verify_addend_covers(const struct value *addend, const struct value *address, int64_t disp,
                          uint32_t bytes)
{
    if (addend->kind != VAL_ADDEND || !addend->checked || address->kind != VAL_U32)
        return false;
    if (!lin_same_terms(&addend->lin, &address->lin))
        return false;
    uint32_t ahead = address->lin.k - addend->lin.k; /* no wrap within a page */
    if (ahead != 0 && (disp != 0 || addend->is_exact))
        return false;
    uint64_t first = ahead + (uint64_t)disp;
    return disp >= 0 && disp <= (int64_t)addend->span && first + bytes <= (uint64_t)addend->span + 1;
}

static bool check_guest_memory(struct verify_work *v, const ZydisDecodedOperand *op, uint32_t bytes,
                               bool writes)
{
    const struct value *base = verify_address_reg(&v->state, op->mem.base);
    const struct value *index = verify_address_reg(&v->state, op->mem.index);
    int64_t disp = op->mem.disp.value;

    if (base && op->mem.index == ZYDIS_REGISTER_NONE && base->kind == VAL_PTR) {
        if (writes && !base->is_store)
            return bad(v, "stores by a check for loads");
        if (disp < 0 || disp > (int64_t)base->span || (uint64_t)disp + bytes > (uint64_t)base->span + 1)
            return bad(v, "reaches beyond what was checked");
        return true;
    }
    if (base && index && op->mem.scale == 1) {
        const struct value *addend = base->kind == VAL_ADDEND ? base : index;
        const struct value *address = addend == base ? index : base;
        if (addend->kind != VAL_ADDEND)
            return bad(v, "accesses memory without a check");
        if (!addend->checked)
            return bad(v, "uses a table entry that may be empty");
        if (writes && !addend->is_store)
            return bad(v, "stores by a check for loads");
        if (!verify_addend_covers(addend, address, disp, bytes))
            return bad(v, "the check was for another address or a smaller access");
        return true;
    }
    return bad(v, "accesses memory without a check");
}

/* Any memory operand of a plain instruction. Table entries are not data: rule_mov has them. */
bool verify_check_memory(struct verify_work *v, const struct host_insn *h, const ZydisDecodedOperand *op,
                         uint32_t bytes, bool reads, bool writes)
{
    bool has_gs = op->mem.segment == ZYDIS_REGISTER_GS;
    bool is_short = h->zi.address_width == 32;

    if (op->mem.segment == ZYDIS_REGISTER_FS)
        return bad(v, "uses FS");
    if (has_gs || (is_short && v->in->linear_window))
        return v->in->allow_window && is_short && has_gs != v->in->linear_window ? true : bad(v, "leaves the window");
    if (h->zi.address_width != 64)
        return bad(v, "truncates a host address");
    if (op->mem.base == ZYDIS_REGISTER_R15) {
        unsigned use = (reads ? USE_READ : 0u) | (writes ? USE_WRITE : 0u);
        if (op->mem.index != ZYDIS_REGISTER_NONE ||
            !verify_vcpu_use_is_allowed(op->mem.disp.value, bytes, use))
            return bad(v, "uses a vCPU field that translated code may not");
        return true;
    }
    return check_guest_memory(v, op, bytes, writes);
}

/* ---- writing the state -------------------------------------------------------------------- */

/* A guest register keeps at most one term, so that base + index of any address fits. */
void verify_set_reg(struct verify_work *v, unsigned r, struct value value)
{
    if (vstate_is_guest_reg(r) && value.kind == VAL_U32 && value.lin.sym[1])
        value = value_fresh(&v->next_symbol, 32);
    v->state.reg[r] = value;
}

void verify_clobber_reg(struct verify_work *v, unsigned r, unsigned bits, bool only_maybe)
{
    bool was_u32 = value_is_u32(&v->state.reg[r]);
    bool is_u32 = bits == 32 ? was_u32 || !only_maybe : bits < 32 && was_u32;

    v->state.reg[r] = is_u32 ? value_fresh(&v->next_symbol, 32) : value_any();
}

/* vcpu->tmp[] keeps whole 64-bit values; any other write there is forgotten. */
void verify_note_vcpu_store(struct verify_work *v, int64_t disp, uint32_t bytes, struct value value)
{
    int64_t first = disp - (int64_t)offsetof(struct vcpu, tmp);

    for (unsigned i = 0; i < VERIFY_TMPS; i++)
        if (first < (int64_t)i * 8 + 8 && first + bytes > (int64_t)i * 8)
            v->state.tmp[i] = first == (int64_t)i * 8 && bytes == 8 ? value : value_any();
}

struct value verify_load_vcpu(const struct verify_work *v, int64_t disp)
{
    int64_t first = disp - (int64_t)offsetof(struct vcpu, tmp);
    bool is_tmp = first >= 0 && first < (int64_t)VERIFY_TMPS * 8 && first % 8 == 0;

    return is_tmp ? v->state.tmp[first / 8] : value_any();
}

/* BT and its kin address a bit string with a register: the bit must be within the operand. */
static bool check_bit_offset(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY || h->ops[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
        return true;
    int r = verify_gpr_number(h->ops[1].reg.value);
    const struct value *bit = r < 0 ? NULL : &v->state.reg[r];
    unsigned limit = h->ops[0].size == 16 ? 4 : 5;
    if (!bit || bit->kind != VAL_U32 || bit->bits > limit)
        return bad(v, "a bit offset may leave the checked operand");
    return true;
}

static bool is_bit_string(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR ||
           m == ZYDIS_MNEMONIC_BTC;
}

bool verify_check_operands(struct verify_work *v, const struct host_insn *h)
{
    for (unsigned i = 0; i < h->zi.operand_count; i++) {
        const ZydisDecodedOperand *op = &h->ops[i];
        uint32_t bytes = h->zi.mnemonic == ZYDIS_MNEMONIC_CLFLUSH ? 1u : op->size / 8u;
        if (op->type == ZYDIS_OPERAND_TYPE_POINTER)
            return bad(v, "is a far transfer");
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && !verify_check_reg(v, op->reg.value, is_written(op)))
            return false;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            !verify_check_memory(v, h, op, bytes, is_read(op), is_written(op)))
            return false;
    }
    return !is_bit_string(h->zi.mnemonic) || check_bit_offset(v, h);
}

/* ---- a view's tables ---------------------------------------------------------------------- */

bool verify_load_view_slot(struct verify_work *v, const ZydisDecodedOperand *mem, struct value *out)
{
    int64_t disp = mem->mem.disp.value;

    if (!is_reg64(mem->mem.index) || mem->mem.scale != 8 || mem->size != 64)
        return bad(v, "reads a view's table in no known way");
    const struct value *index = &v->state.reg[mem->mem.index - ZYDIS_REGISTER_RAX];
    if (index->kind == VAL_SLOT && (disp == VIEW_LOAD_OFS || disp == VIEW_STORE_OFS)) {
        *out = *index;
        out->kind = VAL_ADDEND;
        out->is_store = disp == VIEW_STORE_OFS;
        return true;
    }
    if (index->kind == VAL_U32 && index->bits <= 16 && disp == VIEW_JT_OFS) {
        *out = (struct value){ .kind = VAL_CODE };
        return true;
    }
    return bad(v, "reads a view's table in no known way");
}
