/*
 * Lowerings of plain data instructions. Most IA-32 instructions mean the same in 64-bit
 * mode, so lower_generic() re-encodes what the decoder found with host registers and a
 * checked memory operand. The rest of this file is what cannot be said that way.
 *
 * High-byte registers: with a REX prefix encodings 4..7 mean SPL..DIL, so AH CH DH BH can't
 * stand beside R8..R15. Guest ECX lives in R13, hence the detours of lower_high_byte().
 */
#include "bt/bt_internal.h"

#include "base/assert.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

/* ---- operands of the generic form --------------------------------------------------------- */

static unsigned generic_flags(const struct insn *in)
{
    unsigned f = 0;

    if (in->p66_is_opcode || (in->osize == 2 && (in->unit == UNIT_INT || in->unit == UNIT_X87)))
        f |= ENC_66;
    if (in->rep_is_opcode || (in->map == MAP_1BYTE && in->opcode == 0x90))
        f |= in->rep == REP_F3 ? ENC_F3 : in->rep == REP_F2 ? ENC_F2 : 0;
    if (in->has_lock)
        f |= ENC_LOCK;
    switch ((enum opcode_map)in->map) {
    case MAP_1BYTE:
        break;
    case MAP_0F:
        f |= ENC_0F;
        break;
    case MAP_0F38:
        f |= ENC_0F38;
        break;
    case MAP_0F3A:
        f |= ENC_0F3A;
        break;
    }
    return f;
}

/* Host encoding of a register field; AH..BH keep 4..7. */
static unsigned host_field(unsigned kind, unsigned reg)
{
    switch (kind) {
    case RK_GPR8:
        return reg < 4 ? guest_to_host[reg] : reg;
    case RK_GPR16:
    case RK_GPR32:
        return guest_to_host[reg];
    default:
        return reg;
    }
}

static bool is_high(unsigned kind, unsigned reg)
{
    return kind == RK_GPR8 && reg >= 4;
}

/* The immediate as it stands. Nothing else of what is emitted may follow from its value: it can be patched. */
static void put_imm(struct xlate *x)
{
    const struct insn *in = &x->in;

    patch_note_const(x, in->imm_len);
    for (unsigned i = 0; i < in->imm_len; i++)
        put8(x->e, in->imm >> 8 * i & 0xff);
}

static unsigned mem_access(const struct insn *in)
{
    return in->mem_access ? in->mem_access : MEM_READ;
}

/* ---- high bytes ------------------------------------------------------------------------------ */

/* A field's encoding when guest ECX stands in RCX. */
static unsigned field_in_rcx(unsigned kind, unsigned reg)
{
    bool is_ecx = (kind == RK_GPR8 || kind == RK_GPR16 || kind == RK_GPR32) && reg == ECX;

    return is_ecx ? H_RCX : host_field(kind, reg);
}

/* Register form with a high byte: ECX moves into RCX, where CL and CH need no REX. ESP as the
 * other operand (MOVZX ESP, AH) gets its value by way of RCX. */
static void high_byte_rr(struct xlate *x)
{
    const struct insn *in = &x->in;
    unsigned flags = generic_flags(in);
    bool to_esp = in->reg_kind != RK_GPR8 && in->reg_kind != RK_OPEXT && in->has_modrm && in->reg == ESP;
    bool wide_esp = to_esp && in->reg_kind == RK_GPR32;

    e_mov_r32_r32(x->e, H_RCX, H_ECX);
    if (!in->has_modrm) { /* MOV CH, imm8 */
        e_op_r(x->e, flags, in->opcode & ~7u, in->opcode & 7);
        put_imm(x);
    } else if (to_esp) {
        e_op_rr(x->e, flags & ~(unsigned)ENC_66, in->opcode, H_RCX, field_in_rcx(in->rm_kind, in->rm));
        e_op_rr(x->e, wide_esp ? 0 : ENC_66, 0x89, H_RCX, H_ESP);
        return;
    } else {
        e_op_rr(x->e, flags, in->opcode, field_in_rcx(in->reg_kind, in->reg), field_in_rcx(in->rm_kind, in->rm));
        put_imm(x);
    }
    e_mov_r32_r32(x->e, H_ECX, H_RCX);
}

/* Memory form with a high byte in ModRM.reg. AH DH BH: address in RCX alone. CH borrows BH. */
static void high_byte_mem(struct xlate *x, struct hmem m)
{
    const struct insn *in = &x->in;
    unsigned flags = generic_flags(in);
    unsigned reg = in->reg;

    e_lea_r64(x->e, H_RCX, m);
    if (reg != 5) {
        e_op_rm(x->e, flags, in->opcode, reg, hmem_base(H_RCX, 0));
        return;
    }
    e_mov_m64_r64(x->e, vcpu_mem(VCPU_OFS(tmp)), H_RBX);
    e_mov_r32_r32(x->e, H_RBX, H_ECX);
    e_op_rm(x->e, flags, in->opcode, 7, hmem_base(H_RCX, 0));
    e_mov_r32_r32(x->e, H_ECX, H_RBX);
    e_mov_r64_m64(x->e, H_RBX, vcpu_mem(VCPU_OFS(tmp)));
}

static bool needs_rex(unsigned kind, unsigned reg)
{
    return !is_high(kind, reg) && (kind == RK_GPR8 || kind == RK_GPR16 || kind == RK_GPR32) &&
           guest_to_host[reg] >= H_R8;
}

/* Does a register form name a high byte that can't be encoded where the registers are? */
static bool is_high_byte_clash(const struct insn *in)
{
    bool high_reg = in->has_modrm && is_high(in->reg_kind, in->reg);
    bool high_rm = in->has_modrm && in->mod == 3 && is_high(in->rm_kind, in->rm);
    bool high_op = !in->has_modrm && is_high(in->op_reg_kind, in->opcode & 7);

    if (high_op)
        return (in->opcode & 7) == 5;
    if ((high_reg && in->reg == 5) || (high_rm && in->rm == 5))
        return true;
    return (high_reg && needs_rex(in->rm_kind, in->rm)) || (high_rm && needs_rex(in->reg_kind, in->reg));
}

/* ---- the generic form ------------------------------------------------------------------------ */

static void generic_mem(struct xlate *x)
{
    const struct insn *in = &x->in;
    struct guest_ea ea;
    struct hmem m;

    if (!in->mem_size) /* a hint: nothing is accessed */
        return;
    idiom_ea_of_insn(in, &ea);
    ea.disp_varies = patch_wants_disp(x);
    x->no_window = is_high(in->reg_kind, in->reg);
    if (!idiom_access(x, &ea, in->mem_size, mem_access(in), &m))
        return;
    if (is_high(in->reg_kind, in->reg)) {
        high_byte_mem(x, m);
        return;
    }
    e_op_rm(x->e, generic_flags(in), in->opcode, host_field(in->reg_kind, in->reg), m);
    if (m.wide)
        patch_note_disp(x);
    put_imm(x);
}

/* F6 /1 and F7 /1 are TEST, as /0 is; a host that is an emulator may know /0 only. */
static void prefer_documented_test(struct insn *in)
{
    if (in->map == MAP_1BYTE && (in->opcode == 0xf6 || in->opcode == 0xf7) && in->reg == 1)
        in->reg = 0;
}

void lower_generic(struct xlate *x)
{
    const struct insn *in = &x->in;

    prefer_documented_test(&x->in);
    if (in->has_mem) {
        generic_mem(x);
    } else if (is_high_byte_clash(in)) {
        high_byte_rr(x);
    } else if (in->has_modrm) {
        e_op_rr(x->e, generic_flags(in), in->opcode, host_field(in->reg_kind, in->reg),
                host_field(in->rm_kind, in->rm));
        put_imm(x);
    } else if (in->op_reg_kind != RK_NONE) {
        e_op_r(x->e, generic_flags(in), in->opcode & ~7u, host_field(in->op_reg_kind, in->opcode & 7));
        put_imm(x);
    } else {
        e_op(x->e, generic_flags(in), in->opcode);
        put_imm(x);
    }
}

void lower_nothing(struct xlate *x)
{
    (void)x;
}

/* ---- what 64-bit mode encodes differently ------------------------------------------------------ */

/* 40..4F are REX prefixes: FF /0 and /1 do the same. */
void lower_incdec_r(struct xlate *x)
{
    e_op_rr(x->e, generic_flags(&x->in), 0xff, x->in.opcode >= 0x48, guest_to_host[x->in.opcode & 7]);
}

/* A0..A3 take a 64-bit address: the ModRM forms instead. */
void lower_moffs(struct xlate *x)
{
    const struct insn *in = &x->in;
    struct guest_ea ea;
    struct hmem m;

    idiom_ea_of_insn(in, &ea);
    ea.disp_varies = patch_wants_disp(x);
    if (!idiom_access(x, &ea, in->opcode & 1 ? in->osize : 1, in->opcode < 0xa2 ? MEM_READ : MEM_WRITE, &m))
        return;
    e_op_rm(x->e, in->opcode & 1 && in->osize == 2 ? ENC_66 : 0, (in->opcode < 0xa2 ? 0x8a : 0x88) | (in->opcode & 1),
            H_RAX, m);
    if (m.wide)
        patch_note_disp(x);
}

void lower_lea(struct xlate *x)
{
    const struct insn *in = &x->in;
    enum host_reg to = (enum host_reg)guest_to_host[in->reg];
    struct guest_ea ea;

    idiom_ea_of_insn(in, &ea);
    ea.disp_varies = patch_wants_disp(x);
    if (in->osize == 4) {
        idiom_offset(x, &ea, to);
        return;
    }
    idiom_offset(x, &ea, H_EA);
    e_op_rr(x->e, ENC_66, 0x89, H_EA, to);
}

/*  movzx r8d, al ; lea r8d, [rbx + r8] ; mov al, seg:[..] */
void lower_xlat(struct xlate *x)
{
    struct guest_ea ea = { .seg = x->in.seg, .base = H_RBX, .index = H_EA, .asize = x->in.asize };
    struct hmem m;

    e_movzx_r32_r8(x->e, H_EA, H_RAX);
    idiom_offset(x, &ea, H_EA);
    ea = idiom_ea_reg((enum seg_id)x->in.seg, H_EA, 4);
    if (idiom_access(x, &ea, 1, MEM_READ, &m))
        e_op_rm(x->e, 0, 0x8a, H_RAX, m);
}

/* ---- shifts by CL, bits, exchanges -------------------------------------------------------------- */

/* The count must be in RCX, which is also the addend of a memory operand: that moves to R8. */
void lower_shift_cl(struct xlate *x)
{
    const struct insn *in = &x->in;
    struct guest_ea ea;
    struct hmem m;

    if (in->has_mem) {
        idiom_ea_of_insn(in, &ea);
        if (!idiom_access(x, &ea, in->mem_size, mem_access(in), &m))
            return;
        if (!m.window) {
            e_lea_r64(x->e, H_EA, m);
            m = hmem_base(H_EA, 0);
        }
        e_mov_r32_r32(x->e, H_RCX, H_ECX);
        e_op_rm(x->e, generic_flags(in), in->opcode, host_field(in->reg_kind, in->reg), m);
        return;
    }
    if (is_high_byte_clash(in)) { /* SHL CH, CL */
        high_byte_rr(x);
        return;
    }
    e_mov_r32_r32(x->e, H_RCX, H_ECX);
    e_op_rr(x->e, generic_flags(in), in->opcode, host_field(in->reg_kind, in->reg), host_field(in->rm_kind, in->rm));
}

/* ECX:EBX is the new value: ECX comes into RCX, the address goes to R8. */
void lower_cmpxchg8b(struct xlate *x)
{
    struct guest_ea ea;
    struct hmem m;

    idiom_ea_of_insn(&x->in, &ea);
    if (!idiom_access(x, &ea, 8, MEM_READ | MEM_WRITE, &m))
        return;
    if (!m.window) {
        e_lea_r64(x->e, H_EA, m);
        m = hmem_base(H_EA, 0);
    }
    e_mov_r32_r32(x->e, H_RCX, H_ECX);
    e_op_rm(x->e, ENC_0F | (x->in.has_lock ? ENC_LOCK : 0), 0xc7, 1, m);
}

/* to = from shifted by n, right arithmetic or (left then right) to keep the low bits. */
static void bit_parts(struct xlate *x, enum host_reg from, unsigned shift, enum host_reg element)
{
    if (x->bt->host.bmi2) {
        e_mov_r32_imm32(x->e, H_T1, shift);
        e_sarx_r32(x->e, element, from, H_T1);
        return;
    }
    if (element != from)
        e_mov_r32_r32(x->e, element, from);
    e_pushfq(x->e);
    e_op_rr(x->e, 0, 0xc1, 7, element); /* sar */
    put8(x->e, shift);
    e_popfq(x->e);
}

static void bit_low_part(struct xlate *x, enum host_reg from, unsigned bits, enum host_reg to)
{
    if (x->bt->host.bmi2) {
        e_mov_r32_imm32(x->e, H_T1, 32 - bits);
        e_shlx_r32(x->e, to, from, H_T1);
        e_shrx_r32(x->e, to, to, H_T1);
        return;
    }
    e_mov_r32_r32(x->e, to, from);
    e_pushfq(x->e);
    e_op_rr(x->e, 0, 0x83, 4, to); /* and */
    put8(x->e, (1u << bits) - 1);
    e_popfq(x->e);
}

/* BT BTS BTR BTC r/m, r: a memory operand is a bit string, addressed by the whole signed
 * register. The element's address is computed, and the bit within it used. */
void lower_bit_rm_r(struct xlate *x)
{
    const struct insn *in = &x->in;
    enum host_reg reg = (enum host_reg)guest_to_host[in->reg];
    unsigned bits = in->osize == 2 ? 4 : 5;
    struct guest_ea ea;
    struct hmem m;

    if (!in->has_mem) {
        lower_generic(x);
        return;
    }
    idiom_ea_of_insn(in, &ea);
    idiom_offset(x, &ea, H_EA);
    if (in->osize == 2)
        e_movsx_r32_r16(x->e, H_T2, reg);
    bit_parts(x, in->osize == 2 ? H_T2 : reg, bits, H_T2);
    struct guest_ea element = { .base = H_EA, .index = H_T2, .scale_log2 = (uint8_t)(bits - 3), .asize = in->asize };
    idiom_offset(x, &element, H_EA);
    ea = idiom_ea_reg((enum seg_id)in->seg, H_EA, 4);
    if (!idiom_access(x, &ea, in->osize, mem_access(in), &m))
        return;
    bit_low_part(x, reg, bits, H_T2);
    e_op_rm(x->e, generic_flags(in), in->opcode, H_T2, m);
}

/* #DE of a divisor that is zero, in the slow path:
 *  jrcxz zero ; div reg ; jmp over
 * zero: (callout)
 * over:                                                                                       */
static void div_or_raise(struct xlate *x, enum host_reg divisor)
{
    uint8_t *zero = e_jrcxz_fwd(x->e);

    e_op_rr(x->e, generic_flags(&x->in), x->in.opcode, x->in.reg, divisor);
    uint8_t *over = e_jmp8_fwd(x->e);
    if (!x->e->overflow)
        e_patch8(zero, x->e->p);
    idiom_callout(x, CALLOUT_raise_de, x->in.unit);
    idiom_never(x);
    x->callout = CALLOUT_COUNT; /* for listings: it is lowered */
    if (!x->e->overflow)
        e_patch8(over, x->e->p);
}

/* DIV and IDIV. A divisor of zero is looked for first, since the host's own #DE costs a signal; a quotient that
 * is too large is left to that.
 *  mov   ecx, divisor
 *  jrcxz slow
 *  div   divisor  */
void lower_div(struct xlate *x)
{
    const struct insn *in = &x->in;
    unsigned size = in->opcode & 1 ? in->osize : 1;
    enum host_reg divisor = H_T1;
    struct guest_ea ea;
    struct hmem m;

    if (!in->has_mem && is_high(in->rm_kind, in->rm)) {
        lower_generic(x);
        return;
    }
    if (in->has_mem) {
        idiom_ea_of_insn(in, &ea);
        if (!idiom_access(x, &ea, size, MEM_READ, &m))
            return;
        if (size == 4)
            e_mov_r32_m32(x->e, H_T1, m);
        else
            e_op_rm(x->e, ENC_0F, size == 2 ? 0xb7 : 0xb6, H_T1, m); /* movzx */
    } else {
        divisor = (enum host_reg)guest_to_host[in->rm];
    }
    if (!x->is_cold)
        idiom_islands(x, 32, true);
    if (size == 4)
        e_mov_r32_r32(x->e, H_RCX, divisor);
    else if (size == 2)
        e_movzx_r32_r16(x->e, H_RCX, divisor);
    else
        e_movzx_r32_r8(x->e, H_RCX, divisor);
    if (x->is_cold) {
        div_or_raise(x, divisor);
        return;
    }
    idiom_jrcxz_slow(x);
    e_op_rr(x->e, generic_flags(in), in->opcode, in->reg, divisor);
}

/* MASKMOVQ and MASKMOVDQU write to DS:[EDI], which is RDI for the host. A pending x87 error makes
 * MASKMOVQ #MF: FWAIT finds that out while EDI is still in place, and changes no register (MASKMOVQ
 * leaves the exponents of the MMX registers alone, which a MOVQ would not). */
void lower_maskmov(struct xlate *x)
{
    const struct insn *in = &x->in;
    struct guest_ea ea = idiom_ea_reg((enum seg_id)in->seg, H_RDI, in->asize);
    struct hmem m;

    x->no_window = true;

    if (!idiom_access(x, &ea, in->p66_is_opcode ? 16 : 8, MEM_READ | MEM_WRITE, &m))
        return;
    e_lea_r64(x->e, H_RCX, m);
    if (!in->p66_is_opcode)
        e_op(x->e, 0, 0x9b);
    e_mov_r32_r32(x->e, H_EA, H_RDI);
    e_mov_r64_r64(x->e, H_RDI, H_RCX);
    e_op_rr(x->e, generic_flags(in), in->opcode, in->reg, in->rm);
    e_mov_r32_r32(x->e, H_RDI, H_EA);
}

/* ---- flags ------------------------------------------------------------------------------------ */

/* DF is the host's own, and mirrored for entry to C and for single string steps. */
static void set_df(struct xlate *x, bool down)
{
    e_op(x->e, 0, down ? 0xfd : 0xfc);
    e_mov_m8_imm8(x->e, vcpu_mem(VCPU_OFS(eflags_df)), down);
    e_mov_m32_imm32(x->e, vcpu_mem(VCPU_OFS(df_step)), down ? UINT32_MAX : 1);
}

void lower_cld(struct xlate *x)
{
    set_df(x, false);
}

void lower_std(struct xlate *x)
{
    set_df(x, true);
}

/* Hosts without LAHF in 64-bit mode go by PUSHFQ: AH = CL is encodable without REX. */
void lower_lahf(struct xlate *x)
{
    if (x->bt->host.lahf64) {
        e_op(x->e, 0, 0x9f);
        return;
    }
    e_pushfq(x->e);
    e_pop_r64(x->e, H_RCX);
    e_op_rr(x->e, 0, 0x88, 1, 4); /* mov ah, cl */
}

void lower_sahf(struct xlate *x)
{
    if (x->bt->host.lahf64) {
        e_op(x->e, 0, 0x9e);
        return;
    }
    e_pushfq(x->e);
    e_pop_r64(x->e, H_RCX);
    e_op_rr(x->e, 0, 0x88, 4, 1); /* mov cl, ah */
    e_push_r64(x->e, H_RCX);
    e_popfq(x->e);
}

/* AL = CF ? FF : 0, flags kept. */
void lower_salc(struct xlate *x)
{
    e_pushfq(x->e);
    e_op_rr(x->e, 0, 0x18, 0, 0); /* sbb al, al */
    e_popfq(x->e);
}
