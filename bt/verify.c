/*
 * The verifier over emitted code; verify.h says what it proves.
 *
 * One pass over the bytes finds the instructions and the labels, a second interprets them
 * abstractly in address order, the hot part before the cold one. A label that only earlier
 * code branches to gets what all its branches agree on; any other label (a loop, the way
 * back from the cold part, the point after a call) gets only the promise that every label
 * makes, and every branch to it must keep that promise. So one pass is enough.
 *
 * What an instruction does to the abstract state is said by the function in rules[] for its
 * mnemonic, the one place to extend for a new idiom. Mnemonics without a rule go to
 * rule_generic(), if the class table calls them innocuous.
 *
 * Why a lookup is a proof. The slot index is page(EA) + page(EA + size - 1). An access within
 * one page makes it even, 2 * page, and the slot holds host minus guest address of that page
 * or 0. An access across pages (or around 4 GiB) makes it odd, and odd slots are always 0.
 * JRCXZ leaves when the slot is 0. After it, slot + EA + i for i < size is in the page's host
 * memory; for stores the slot must come from the store table.
 *
 * Invariants: reads only the two byte ranges; keeps nothing; guest input can make it say no,
 * nothing else.
 *
 * Ref: Intel SDM vol. 2 for operand sizes and directions (by way of Zydis).
 */
#include "bt/verify.h"

#include "base/cpu.h"
#include "base/string.h"
#include "bt/bt_internal.h"
#include "bt/verify_state.h"
#include "decoder/decoder.h"

#include <Zydis/Decoder.h>

#define MAX_BYTES   65536u
#define MAX_PENDING 96u
#define NO_OFS      UINT32_MAX

/* Per byte of the CCF. */
#define MARK_START 1u /* an instruction starts here  */
#define MARK_PLAIN 2u /* only the promise holds here */
#define MARK_CONST 4u /* a constant that may be patched starts here */

/* What later edges to a label agree on. */
struct pending_label {
    uint32_t ofs;
    struct vstate state;
};

struct verify_work {
    const struct verify_input *in;
    struct verify_error *err;
    uint32_t next_symbol;
    struct vstate state;
    struct pending_label pending[MAX_PENDING];
    uint8_t mark[MAX_BYTES];
};

/* The instruction at hand. */
struct host_insn {
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t ofs, next; /* hot offsets, then cold ones                             */
    uint64_t address;   /* of the next instruction, for relative branches          */
    bool imm_varies;    /* its immediate may be patched                            */
};

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

/* ---- the virtual CPU's fields ----------------------------------------------------------- */

enum field_use { USE_READ = 1, USE_WRITE = 2, USE_JMP = 4, USE_CALL = 8 };

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
    FIELD(icount_left, USE_READ | USE_WRITE),
    FIELD(mem_bounced, USE_READ),
    FIELD(df_step, USE_READ | USE_WRITE),
    FIELD(ccf_id, USE_READ | USE_WRITE),
    { offsetof(struct vcpu, x87_fip), 12, USE_WRITE }, /* FIP, FOP and segment in one store, EA */
};
/* clang-format on */

static bool vcpu_use_is_allowed(int64_t disp, uint32_t bytes, unsigned use)
{
    for (size_t i = 0; i < ARRAY_LEN(vcpu_fields); i++) {
        const struct vcpu_field *f = &vcpu_fields[i];
        if (disp >= f->ofs && disp + bytes <= (int64_t)f->ofs + f->bytes)
            return (f->use & use) == use;
    }
    return false;
}

/* ---- operands --------------------------------------------------------------------------- */

static bool bad(struct verify_work *v, const char *reason)
{
    v->err->reason = reason;
    return false;
}

static uint32_t total_len(const struct verify_work *v)
{
    return v->in->hot_len + v->in->cold_len;
}

/* Number of the 64-bit register that contains reg, -1 when it is none of the sixteen. */
static int gpr_number(ZydisRegister reg)
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
static bool check_reg_operand(struct verify_work *v, ZydisRegister reg, bool writes)
{
    int r = gpr_number(reg);

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

/* What a register contributes to a 64-bit address; NULL when it is absent or no such register. */
static const struct value *address_reg(const struct vstate *s, ZydisRegister reg)
{
    return is_reg64(reg) ? &s->reg[reg - ZYDIS_REGISTER_RAX] : NULL;
}

/* Guest memory by [addend + address + disp]: is [operand, operand + bytes) within the check? */
static bool addend_covers(const struct value *addend, const struct value *address, int64_t disp,
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
    const struct value *base = address_reg(&v->state, op->mem.base);
    const struct value *index = address_reg(&v->state, op->mem.index);
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
        if (!addend_covers(addend, address, disp, bytes))
            return bad(v, "the check was for another address or a smaller access");
        return true;
    }
    return bad(v, "accesses memory without a check");
}

/* Any memory operand of a plain instruction. Table entries are not data: rule_mov has them. */
static bool check_memory(struct verify_work *v, const struct host_insn *h, const ZydisDecodedOperand *op,
                         uint32_t bytes, bool reads, bool writes)
{
    bool is_window = op->mem.segment == ZYDIS_REGISTER_GS;

    if (is_window)
        return v->in->allow_window && h->zi.address_width == 32 ? true : bad(v, "leaves the window");
    if (op->mem.segment == ZYDIS_REGISTER_FS)
        return bad(v, "uses FS");
    if (h->zi.address_width != 64)
        return bad(v, "truncates a host address");
    if (op->mem.base == ZYDIS_REGISTER_R15) {
        unsigned use = (reads ? USE_READ : 0u) | (writes ? USE_WRITE : 0u);
        if (op->mem.index != ZYDIS_REGISTER_NONE || !vcpu_use_is_allowed(op->mem.disp.value, bytes, use))
            return bad(v, "uses a vCPU field that translated code may not");
        return true;
    }
    return check_guest_memory(v, op, bytes, writes);
}

static bool is_read(const ZydisDecodedOperand *op)
{
    return (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
}

static bool is_written(const ZydisDecodedOperand *op)
{
    return (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

/* ---- writing the state -------------------------------------------------------------------- */

/* A guest register keeps at most one term, so that base + index of any address fits. */
static void set_reg(struct verify_work *v, unsigned r, struct value value)
{
    if (vstate_is_guest_reg(r) && value.kind == VAL_U32 && value.lin.sym[1])
        value = value_fresh(&v->next_symbol, 32);
    v->state.reg[r] = value;
}

/* An instruction wrote `bits` of the register in a way that no rule describes. */
static void clobber_reg(struct verify_work *v, unsigned r, unsigned bits, bool only_maybe)
{
    bool was_u32 = value_is_u32(&v->state.reg[r]);
    bool is_u32 = bits == 32 ? was_u32 || !only_maybe : bits < 32 && was_u32;

    v->state.reg[r] = is_u32 ? value_fresh(&v->next_symbol, 32) : value_any();
}

/* vcpu->tmp[] keeps whole 64-bit values; any other write there is forgotten. */
static void note_vcpu_store(struct verify_work *v, int64_t disp, uint32_t bytes, struct value value)
{
    int64_t first = disp - (int64_t)offsetof(struct vcpu, tmp);

    for (unsigned i = 0; i < VERIFY_TMPS; i++)
        if (first < (int64_t)i * 8 + 8 && first + bytes > (int64_t)i * 8)
            v->state.tmp[i] = first == (int64_t)i * 8 && bytes == 8 ? value : value_any();
}

static struct value load_vcpu(const struct verify_work *v, int64_t disp)
{
    int64_t first = disp - (int64_t)offsetof(struct vcpu, tmp);
    bool is_tmp = first >= 0 && first < (int64_t)VERIFY_TMPS * 8 && first % 8 == 0;

    return is_tmp ? v->state.tmp[first / 8] : value_any();
}

/* ---- edges ----------------------------------------------------------------------------------- */

static bool keep_promise(struct verify_work *v)
{
    const char *broken = vstate_promise(&v->state);
    return broken ? bad(v, broken) : true;
}

/* Hot or cold offset of an address, NO_OFS when it is outside. */
static uint32_t inside(const struct verify_input *in, uint64_t address)
{
    if (address - in->hot_address < in->hot_len)
        return (uint32_t)(address - in->hot_address);
    if (address - in->cold_address < in->cold_len)
        return in->hot_len + (uint32_t)(address - in->cold_address);
    return NO_OFS;
}

static struct pending_label *find_pending(struct verify_work *v, uint32_t ofs)
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
        return keep_promise(v);

    struct pending_label *label = find_pending(v, ofs);
    if (label) {
        if (label->state.depth != v->state.depth)
            return bad(v, "meets another stack depth");
        vstate_meet(&label->state, &v->state, &v->next_symbol);
        return true;
    }
    label = find_pending(v, NO_OFS);
    if (!label) { /* no room to remember: the promise has to do */
        v->mark[ofs] |= MARK_PLAIN;
        return keep_promise(v);
    }
    label->ofs = ofs;
    label->state = v->state;
    return true;
}

static bool edge(struct verify_work *v, uint64_t target)
{
    uint32_t ofs = inside(v->in, target);

    if (ofs != NO_OFS)
        return edge_inside(v, ofs);
    if (!v->in->is_target || !v->in->is_target(v->in->ctx, target))
        return bad(v, "branches to a place that is not permitted");
    return keep_promise(v);
}

/* ---- rules: what an instruction does to the state ------------------------------------------ */

typedef bool rule_fn(struct verify_work *v, const struct host_insn *h);

static uint64_t branch_target(const struct host_insn *h)
{
    return h->address + (uint64_t)h->ops[0].imm.value.s;
}

/* BT and its kin address a bit string with a register: the bit must be within the operand. */
static bool check_bit_offset(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY || h->ops[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
        return true;
    int r = gpr_number(h->ops[1].reg.value);
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

static bool check_operands(struct verify_work *v, const struct host_insn *h)
{
    for (unsigned i = 0; i < h->zi.operand_count; i++) {
        const ZydisDecodedOperand *op = &h->ops[i];
        uint32_t bytes = h->zi.mnemonic == ZYDIS_MNEMONIC_CLFLUSH ? 1u : op->size / 8u;
        if (op->type == ZYDIS_OPERAND_TYPE_POINTER)
            return bad(v, "is a far transfer");
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && !check_reg_operand(v, op->reg.value, is_written(op)))
            return false;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            !check_memory(v, h, op, bytes, is_read(op), is_written(op)))
            return false;
    }
    return !is_bit_string(h->zi.mnemonic) || check_bit_offset(v, h);
}

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
        int r = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_number(op->reg.value) : -1;
        if (r >= 0)
            clobber_reg(v, (unsigned)r, op->size, writes_only_maybe(h, op));
        else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.base == ZYDIS_REGISTER_R15)
            note_vcpu_store(v, op->mem.disp.value, op->size / 8u, value_any());
    }
}

static bool rule_generic(struct verify_work *v, const struct host_insn *h)
{
    if (!check_operands(v, h))
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

/* mov rcx, [r14 + r9*8 + table]: a slot of the load or store table, or of the jump table. */
static bool load_view_slot(struct verify_work *v, const ZydisDecodedOperand *mem, struct value *out)
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

static bool mov_load(struct verify_work *v, const struct host_insn *h, unsigned to)
{
    const ZydisDecodedOperand *mem = &h->ops[1];
    struct value value;

    if (mem->mem.base == ZYDIS_REGISTER_R14 && mem->mem.segment != ZYDIS_REGISTER_GS) {
        if (h->zi.address_width != 64 || h->ops[0].size != 64)
            return bad(v, "reads a view's table in no known way");
        if (!load_view_slot(v, mem, &value))
            return false;
        set_reg(v, to, value);
        return true;
    }
    if (!check_memory(v, h, mem, mem->size / 8u, true, false))
        return false;
    if (h->ops[0].size == 64 && mem->mem.base == ZYDIS_REGISTER_R15)
        set_reg(v, to, load_vcpu(v, mem->mem.disp.value));
    else
        clobber_reg(v, to, h->ops[0].size, false);
    return true;
}

static void mov_reg(struct verify_work *v, const struct host_insn *h, unsigned to, unsigned from)
{
    const struct value value = v->state.reg[from];

    if (h->ops[0].size == 64 || (h->ops[0].size == 32 && value_is_u32(&value)))
        set_reg(v, to, value);
    else
        clobber_reg(v, to, h->ops[0].size, false);
}

static void mov_imm(struct verify_work *v, const struct host_insn *h, unsigned to)
{
    uint64_t imm = h->ops[1].imm.value.u;

    for (unsigned i = 0; i < ARRAY_LEN(v->in->source) && h->ops[0].size == 64; i++)
        if (v->in->source_len[i] && imm == (uint64_t)(uintptr_t)v->in->source[i]) {
            set_reg(v, to, (struct value){ .kind = VAL_PTR, .span = v->in->source_len[i] - 1 });
            return;
        }
    if (h->imm_varies)
        clobber_reg(v, to, h->ops[0].size, false);
    else if (h->ops[0].size == 32)
        set_reg(v, to, value_const((uint32_t)imm));
    else if (h->ops[0].size == 64 && imm <= UINT32_MAX)
        set_reg(v, to, value_const((uint32_t)imm));
    else
        clobber_reg(v, to, h->ops[0].size, false);
}

static bool mov_store(struct verify_work *v, const struct host_insn *h)
{
    const ZydisDecodedOperand *mem = &h->ops[0], *from = &h->ops[1];
    struct value value = value_any();

    if (from->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        if (!check_reg_operand(v, from->reg.value, false))
            return false;
        value = v->state.reg[gpr_number(from->reg.value)];
    }
    if (!check_memory(v, h, mem, mem->size / 8u, false, true))
        return false;
    if (mem->mem.base == ZYDIS_REGISTER_R15)
        note_vcpu_store(v, mem->mem.disp.value, mem->size / 8u, value);
    return true;
}

static bool rule_mov(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        return mov_store(v, h);
    if (!check_reg_operand(v, h->ops[0].reg.value, true))
        return false;
    unsigned to = (unsigned)gpr_number(h->ops[0].reg.value);
    switch (h->ops[1].type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return mov_load(v, h, to);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        mov_imm(v, h, to);
        return true;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (!check_reg_operand(v, h->ops[1].reg.value, false))
            return false;
        mov_reg(v, h, to, (unsigned)gpr_number(h->ops[1].reg.value));
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
        v->state.reg[gpr_number(h->ops[0].reg.value)] = value_fresh(&v->next_symbol, h->ops[1].size);
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
    int b = gpr_number(mem->mem.base), i = gpr_number(mem->mem.index);
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
    const struct value *base = address_reg(&v->state, mem->mem.base);
    const struct value *index = address_reg(&v->state, mem->mem.index);
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
    if (!addend_covers(addend, address, disp, 1))
        return value_any();
    out.is_store = addend->is_store;
    out.span = addend->span - (address->lin.k - addend->lin.k) - (uint32_t)disp;
    return out;
}

static bool rule_lea(struct verify_work *v, const struct host_insn *h)
{
    const ZydisDecodedOperand *mem = &h->ops[1];

    if (!check_reg_operand(v, h->ops[0].reg.value, true))
        return false;
    if (!check_reg_operand(v, mem->mem.base, false) || !check_reg_operand(v, mem->mem.index, false))
        return false;
    unsigned to = (unsigned)gpr_number(h->ops[0].reg.value);
    if (h->ops[0].size == 32)
        set_reg(v, to, lea_32(v, mem));
    else if (h->ops[0].size == 64 && h->zi.address_width == 64)
        set_reg(v, to, lea_64(v, mem));
    else
        clobber_reg(v, to, h->ops[0].size, false);
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

    if (from->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(from->reg.value) >= 0)
        was = v->state.reg[gpr_number(from->reg.value)];
    if (is_known)
        count = (uint32_t)by->imm.value.u;
    else if (by->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(by->reg.value) >= 0)
        is_known = value_constant(&v->state.reg[gpr_number(by->reg.value)], &count);
    if (!rule_generic(v, h))
        return false;
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || h->ops[0].size != 32 || !is_known || count > 31)
        return true;
    struct value *out = &v->state.reg[gpr_number(h->ops[0].reg.value)];
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
    v->state.reg[gpr_number(h->ops[0].reg.value)] = value_fresh(&v->next_symbol, bits);
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
        gpr_number(h->ops[0].reg.value) < 0)
        return bad(v, "pushes something else than a register");
    return check_reg_operand(v, h->ops[0].reg.value, false) &&
           push_value(v, v->state.reg[gpr_number(h->ops[0].reg.value)]);
}

static bool rule_pop(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER || h->zi.operand_width != 64 ||
        gpr_number(h->ops[0].reg.value) < 0)
        return bad(v, "pops something else than a register");
    if (v->state.depth == 0)
        return bad(v, "pops what it has not pushed");
    if (!check_reg_operand(v, h->ops[0].reg.value, true))
        return false;
    set_reg(v, (unsigned)gpr_number(h->ops[0].reg.value), v->state.stack[--v->state.depth]);
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

/* --- control --- */

static bool rule_jcc(struct verify_work *v, const struct host_insn *h)
{
    return edge(v, branch_target(h));
}

/* The branch is taken with RCX zero; falling through proves that a table entry is there. */
static bool rule_jrcxz(struct verify_work *v, const struct host_insn *h)
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
        return op->mem.index == ZYDIS_REGISTER_NONE && vcpu_use_is_allowed(disp, 8, use)
                   ? true
                   : bad(v, "goes to a vCPU field that is no stub");
    if (op->mem.base != ZYDIS_REGISTER_R14)
        return bad(v, "goes to an unknown address");
    if (op->mem.index == ZYDIS_REGISTER_NONE)
        return disp >= VIEW_JT_OFS && disp < VIEW_BYTES && disp % 8 == 0 ? true
                                                                         : bad(v, "misses the jump table");
    struct value slot;
    return load_view_slot(v, op, &slot) && (slot.kind == VAL_CODE ? true : bad(v, "misses the jump table"));
}

static bool is_prefixed_branch(const struct host_insn *h)
{
    return h->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
           (h->zi.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
}

static bool rule_jmp(struct verify_work *v, const struct host_insn *h)
{
    if (is_prefixed_branch(h))
        return bad(v, "is a far or a short-operand transfer");
    bool ok = h->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
                  ? edge(v, branch_target(h))
                  : check_indirect(v, h, USE_JMP) && keep_promise(v);
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

static bool rule_call(struct verify_work *v, const struct host_insn *h)
{
    if (is_prefixed_branch(h))
        return bad(v, "is a far or a short-operand transfer");
    if (!keep_promise(v))
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

static bool rule_ret(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE || is_prefixed_branch(h))
        return bad(v, "is a return that takes arguments");
    bool ok = keep_promise(v);
    v->state.reachable = false;
    return ok;
}

/* The end of code that a callout never comes back to. */
static bool rule_ud2(struct verify_work *v, const struct host_insn *h)
{
    (void)h;
    v->state.reachable = false;
    return true;
}

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
    [ZYDIS_MNEMONIC_JMP]    = rule_jmp,
    [ZYDIS_MNEMONIC_CALL]   = rule_call,
    [ZYDIS_MNEMONIC_RET]    = rule_ret,
    [ZYDIS_MNEMONIC_UD2]    = rule_ud2,
    [ZYDIS_MNEMONIC_JRCXZ]  = rule_jrcxz,
    [ZYDIS_MNEMONIC_JO]     = rule_jcc, [ZYDIS_MNEMONIC_JNO]  = rule_jcc,
    [ZYDIS_MNEMONIC_JB]     = rule_jcc, [ZYDIS_MNEMONIC_JNB]  = rule_jcc,
    [ZYDIS_MNEMONIC_JZ]     = rule_jcc, [ZYDIS_MNEMONIC_JNZ]  = rule_jcc,
    [ZYDIS_MNEMONIC_JBE]    = rule_jcc, [ZYDIS_MNEMONIC_JNBE] = rule_jcc,
    [ZYDIS_MNEMONIC_JS]     = rule_jcc, [ZYDIS_MNEMONIC_JNS]  = rule_jcc,
    [ZYDIS_MNEMONIC_JP]     = rule_jcc, [ZYDIS_MNEMONIC_JNP]  = rule_jcc,
    [ZYDIS_MNEMONIC_JL]     = rule_jcc, [ZYDIS_MNEMONIC_JNL]  = rule_jcc,
    [ZYDIS_MNEMONIC_JLE]    = rule_jcc, [ZYDIS_MNEMONIC_JNLE] = rule_jcc,
    /* no guest has these, but the translator uses them */
    [ZYDIS_MNEMONIC_SHLX]   = rule_generic,
    [ZYDIS_MNEMONIC_SARX]   = rule_generic,
    [ZYDIS_MNEMONIC_RORX]   = rule_generic,
    [ZYDIS_MNEMONIC_MOVSXD] = rule_generic,
};
/* clang-format on */

static rule_fn *rule_of(const struct host_insn *h)
{
    rule_fn *rule = rules[h->zi.mnemonic];

    if (rule)
        return rule;
    if (h->zi.meta.category == ZYDIS_CATEGORY_STRINGOP) /* MOVSD and CMPSD: not the SSE2 ones */
        return NULL;
    bool is_legacy = h->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    return is_legacy && decoder_info(h->zi.mnemonic)->cls == CLASS_INNOCUOUS ? rule_generic : NULL;
}

/* ---- the two passes ---------------------------------------------------------------------------- */

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
    return true;
}

/* A label that later code or a call leads to has only the promise. */
static void mark_label(struct verify_work *v, const struct host_insn *h)
{
    if (h->ops[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !h->ops[0].imm.is_relative)
        return;
    uint32_t target = inside(v->in, branch_target(h));
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
    struct pending_label *label = find_pending(v, ofs);

    if (v->mark[ofs] & MARK_PLAIN) {
        if (v->state.reachable && !keep_promise(v))
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

/* Each constant is all of the immediate of an instruction, and no displacement of a branch. */
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
        rule_fn *rule = rule_of(&h);
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
