/*
 * Bytes to struct insn.
 *
 * Zydis finds the length, the opcode and the operands; this file narrows its
 * answer to what the translator needs to encode the instruction again for 64-bit
 * mode. Address forms come from the raw ModRM and SIB bytes, sizes and register
 * classes from Zydis' operands. Encodings that processors of the Pentium III and
 * 4 lack (VEX, EVEX, XOP, 3DNow) are invalid; those that later processors gave a
 * new meaning (TZCNT, ENDBR, ...) keep the old one.
 *
 * Invariant: reads only [bytes, bytes + avail); keeps no state.
 *
 * Ref: Intel SDM vol. 2A, ch. 2 "Instruction Format"; vol. 2D, app. A "Opcode Map".
 */
#include "decoder/decoder_internal.h"

#include <Zydis/Decoder.h>

/*
 * Filled here rather than by ZydisDecoderInit() and ten calls per instruction; the
 * unit tests compare it with what those calls make. Every mode is off: the guest's
 * processor has none of MPX, CET, LZCNT, TZCNT, WBNOINVD, CLDEMOTE, KNC.
 */
static const ZydisDecoder decoders[2] = {
    { .machine_mode = ZYDIS_MACHINE_MODE_LEGACY_16, .stack_width = ZYDIS_STACK_WIDTH_16 },
    { .machine_mode = ZYDIS_MACHINE_MODE_LEGACY_32, .stack_width = ZYDIS_STACK_WIDTH_32 },
};

#define NO_REG 0xffu

/* Address forms with 16-bit addressing (SDM vol. 2A, table "16-Bit Addressing Forms"). */
static const uint8_t base16[8] = { EBX, EBX, EBP, EBP, NO_REG, NO_REG, EBP, EBX };
static const uint8_t index16[8] = { ESI, EDI, ESI, EDI, ESI, EDI, NO_REG, NO_REG };

static enum reg_kind reg_kind_of(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_EDI)
        return RK_GPR32;
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BH)
        return RK_GPR8;
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_DI)
        return RK_GPR16;
    if (reg >= ZYDIS_REGISTER_ST0 && reg <= ZYDIS_REGISTER_ST7)
        return RK_X87;
    if (reg >= ZYDIS_REGISTER_MM0 && reg <= ZYDIS_REGISTER_MM7)
        return RK_MMX;
    if (reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_XMM7)
        return RK_XMM;
    if (reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS)
        return RK_SEG;
    if (reg >= ZYDIS_REGISTER_CR0 && reg <= ZYDIS_REGISTER_CR15)
        return RK_CR;
    if (reg >= ZYDIS_REGISTER_DR0 && reg <= ZYDIS_REGISTER_DR15)
        return RK_DR;
    return RK_NONE;
}

static bool is_string_opcode(const struct insn *in)
{
    return in->map == MAP_1BYTE &&
           ((in->opcode >= 0x6c && in->opcode <= 0x6f) || (in->opcode >= 0xa4 && in->opcode <= 0xa7) ||
            (in->opcode >= 0xaa && in->opcode <= 0xaf));
}

/* A repeat prefix counts on string instructions, the last one of several (F2 repeats MOVS
 * as F3 does), and where it is part of the opcode; elsewhere the processor ignores it. */
static void note_prefixes(const ZydisDecodedInstruction *zi, struct insn *in)
{
    bool is_string = is_string_opcode(in);

    for (unsigned i = 0; i < zi->raw.prefix_count; i++) {
        uint8_t value = zi->raw.prefixes[i].value;
        bool is_mandatory = zi->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY;
        /* clang-format off */
        switch (value) {
        case 0xf0: in->has_lock = true; break;
        case 0x66:
            in->has_66 = true;
            in->p66_is_opcode |= is_mandatory;
            break;
        case 0x67: in->has_67 = true; break;
        case 0xf2:
        case 0xf3:
            if (is_string || is_mandatory)
                in->rep = value == 0xf3 ? REP_F3 : REP_F2;
            in->rep_is_opcode |= is_mandatory && !is_string;
            break;
        case 0x26: in->seg = SEG_ES; in->has_seg_override = true; break;
        case 0x2e: in->seg = SEG_CS; in->has_seg_override = true; break;
        case 0x36: in->seg = SEG_SS; in->has_seg_override = true; break;
        case 0x3e: in->seg = SEG_DS; in->has_seg_override = true; break;
        case 0x64: in->seg = SEG_FS; in->has_seg_override = true; break;
        case 0x65: in->seg = SEG_GS; in->has_seg_override = true; break;
        default: break;
        }
        /* clang-format on */
    }
}

static void note_address32(const ZydisDecodedInstruction *zi, struct insn *in)
{
    if (in->rm != 4) {
        if (in->mod != 0 || in->rm != 5)
            in->base = in->rm;
        return;
    }
    if (zi->raw.sib.index != 4) {
        in->index = zi->raw.sib.index;
        in->scale_log2 = zi->raw.sib.scale;
    }
    if (in->mod != 0 || zi->raw.sib.base != 5)
        in->base = zi->raw.sib.base;
}

static void note_address16(struct insn *in)
{
    if (in->mod == 0 && in->rm == 6)
        return; /* disp16 alone */
    in->base = base16[in->rm];
    in->index = index16[in->rm];
    if (in->base == NO_REG) { /* [SI] and [DI]: one register is a base */
        in->base = in->index;
        in->index = NO_REG;
    }
}

static void note_address(const ZydisDecodedInstruction *zi, struct insn *in)
{
    in->disp = (uint32_t)zi->raw.disp.value;
    in->disp_len = zi->raw.disp.size / 8;
    if (!in->is_moffs) {
        if (in->asize == 4)
            note_address32(zi, in);
        else
            note_address16(in);
    }
    if (in->asize == 2 && in->base == NO_REG)
        in->disp &= 0xffffu; /* an offset, not a displacement */
    if (!in->has_seg_override && (in->base == EBP || in->base == ESP))
        in->seg = SEG_SS;
}

static void note_memory(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op, struct insn *in)
{
    in->has_mem = true;
    in->is_moffs = op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM;
    note_address(zi, in);
    if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
        return; /* LEA */
    in->mem_size = (uint16_t)(op->size / 8u);
    if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        in->mem_access |= MEM_READ;
    if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        in->mem_access |= MEM_WRITE;
}

static void note_operands(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops, struct insn *in)
{
    for (unsigned i = 0; i < zi->operand_count_visible; i++) {
        const ZydisDecodedOperand *op = &ops[i];
        bool is_mem = op->type == ZYDIS_OPERAND_TYPE_MEMORY;
        switch (op->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            if (is_mem)
                note_memory(zi, op, in);
            else
                in->rm_kind = (uint8_t)reg_kind_of(op->reg.value);
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            in->reg_kind = (uint8_t)reg_kind_of(op->reg.value);
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            in->op_reg_kind = (uint8_t)reg_kind_of(op->reg.value);
            break;
        case ZYDIS_OPERAND_ENCODING_DISP16_32_64:
            if (is_mem)
                note_memory(zi, op, in);
            break;
        default:
            break;
        }
    }
}

/* A hint NOP has no meaning beyond its length. Its prefixes chose ENDBR, RDSSP or BNDMOV on
 * later processors, so they must not look like part of an opcode worth keeping. */
static void mend_hint_nop(struct insn *in)
{
    in->rep = REP_NONE;
    in->rep_is_opcode = false;
    in->p66_is_opcode = false;
}

/* Where the size or direction that the translator must check differs from Zydis' view. */
static void mend_memory(struct insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
        in->mem_size = 0;
        in->mem_access = 0;
        break;
    case ZYDIS_MNEMONIC_CLFLUSH:
        in->mem_size = 1;
        in->mem_access = MEM_READ;
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B: /* the write cycle happens whatever the comparison gives */
        in->mem_access = MEM_READ | MEM_WRITE;
        break;
    case ZYDIS_MNEMONIC_FXSAVE:
        in->mem_size = 512;
        in->mem_access = MEM_WRITE;
        break;
    case ZYDIS_MNEMONIC_FXRSTOR:
        in->mem_size = 512;
        break;
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
        in->mem_size = in->osize == 2 ? 14 : 28;
        break;
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
        in->mem_size = in->osize == 2 ? 94 : 108;
        break;
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
        in->mem_size = 6;
        break;
    default:
        break;
    }
}

static uint32_t immediate(const ZydisDecodedInstruction *zi, unsigned i, const struct insn *in)
{
    uint32_t value = (uint32_t)zi->raw.imm[i].value.u;
    unsigned bits = zi->raw.imm[i].size;
    bool extends = zi->raw.imm[i].is_relative || (zi->raw.imm[i].is_signed && bits < in->osize * 8u);

    if (!extends && bits < 32)
        value &= (1u << bits) - 1u;
    return value;
}

static void note_immediates(const ZydisDecodedInstruction *zi, struct insn *in)
{
    if (zi->raw.imm[0].size) {
        in->imm_len = zi->raw.imm[0].size / 8u;
        in->imm = immediate(zi, 0, in);
        in->imm_is_rel = zi->raw.imm[0].is_relative;
    }
    if (zi->raw.imm[1].size) {
        in->imm2_len = zi->raw.imm[1].size / 8u;
        in->imm2 = (uint32_t)zi->raw.imm[1].value.u & (in->imm2_len == 1 ? 0xffu : 0xffffu);
    }
}

static bool converts_to_mmx(const struct insn *in)
{
    return in->mnemonic == ZYDIS_MNEMONIC_CVTPS2PI || in->mnemonic == ZYDIS_MNEMONIC_CVTTPS2PI ||
           in->mnemonic == ZYDIS_MNEMONIC_CVTPD2PI || in->mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI;
}

/* Which unit's "not available" rules apply. SSE before MMX: CVTPI2PS has both operands.
 * MOVNTI, the fences, PREFETCH and CLFLUSH use no vector state. */
static enum insn_unit unit_of(const struct insn *in)
{
    if (in->map == MAP_1BYTE) {
        if (in->opcode >= 0xd8 && in->opcode <= 0xdf)
            return UNIT_X87;
        return in->opcode == 0x9b ? UNIT_WAIT : UNIT_INT;
    }
    if (in->reg_kind == RK_XMM || in->rm_kind == RK_XMM)
        return UNIT_SSE;
    if (in->reg_kind == RK_MMX || in->rm_kind == RK_MMX)
        return converts_to_mmx(in) ? UNIT_SSE : UNIT_MMX;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_EMMS:
        return UNIT_MMX;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_CVTSS2SI: /* from memory the XMM register is absent */
    case ZYDIS_MNEMONIC_CVTTSS2SI:
    case ZYDIS_MNEMONIC_CVTSD2SI:
    case ZYDIS_MNEMONIC_CVTTSD2SI:
        return UNIT_SSE;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
        return UNIT_X87;
    default:
        return UNIT_INT;
    }
}

/* clang-format off */

/* Encodings whose meaning their mnemonic does not tell; VARIANT_COUNT for the others. */
static enum decoder_variant variant_1byte(const struct insn *in)
{
    switch (in->opcode) {
    case 0x06: case 0x0e: case 0x16: case 0x1e: return VARIANT_PUSH_SEG;
    case 0x07: case 0x17: case 0x1f: return VARIANT_POP_SEG;
    case 0x8c: return VARIANT_MOV_FROM_SEG;
    case 0x8e: return VARIANT_MOV_TO_SEG;
    case 0x9a: return VARIANT_CALL_FAR;
    case 0xea: return VARIANT_JMP_FAR;
    case 0xca: case 0xcb: return VARIANT_RET_FAR;
    case 0xa5: return in->osize == 4 ? VARIANT_STRING_MOVSD : VARIANT_COUNT;
    case 0xa7: return in->osize == 4 ? VARIANT_STRING_CMPSD : VARIANT_COUNT;
    case 0xff:
        if (in->reg == 3)
            return VARIANT_CALL_FAR;
        return in->reg == 5 ? VARIANT_JMP_FAR : VARIANT_COUNT;
    default: return VARIANT_COUNT;
    }
}

static enum decoder_variant variant_0f(const struct insn *in)
{
    switch (in->opcode) {
    case 0x20: return VARIANT_MOV_FROM_CR;
    case 0x21: return VARIANT_MOV_FROM_DR;
    case 0x22: return VARIANT_MOV_TO_CR;
    case 0x23: return VARIANT_MOV_TO_DR;
    case 0xa0: case 0xa8: return VARIANT_PUSH_SEG;
    case 0xa1: case 0xa9: return VARIANT_POP_SEG;
    case 0x0d: return VARIANT_UNAVAILABLE; /* PREFETCHW; its register form is no old NOP either */
    default: return in->mnemonic == ZYDIS_MNEMONIC_NOP ? VARIANT_HINT_NOP : VARIANT_COUNT;
    }
}

/* clang-format on */

static const struct insn_info *info_of(const struct insn *in)
{
    enum decoder_variant variant = VARIANT_COUNT;
    if (in->map == MAP_1BYTE)
        variant = variant_1byte(in);
    else if (in->map == MAP_0F)
        variant = variant_0f(in);
    if (variant != VARIANT_COUNT)
        return decoder_variant_info(variant);

    const struct insn_info *info = decoder_info(in->mnemonic);
    bool is_xmm_form = in->unit == UNIT_SSE && info->cls == CLASS_INNOCUOUS &&
                       (info->feature == FEAT_MMX || (info->feature == FEAT_SSE && in->p66_is_opcode));
    return is_xmm_form ? decoder_variant_info(VARIANT_XMM) : info;
}

/* FXSAVE and its group, MOVNTI, CMPXCHG8B: no operand size, and 66 before them means something
 * else on later processors (CLFLUSHOPT, VMCLEAR). */
static bool has_no_operand_size(const struct insn *in)
{
    return in->map == MAP_0F && (in->opcode == 0xae || in->opcode == 0xc3 || in->opcode == 0xc7);
}

static uint8_t operand_bytes(const ZydisDecodedInstruction *zi, const struct insn *in, bool code32)
{
    if (has_no_operand_size(in))
        return 4;
    switch (zi->operand_width) {
    case 8:
        return 1;
    case 16:
        return 2;
    case 32:
        return 4;
    default:
        return code32 == (in->has_66 && !in->p66_is_opcode) ? 2 : 4;
    }
}

static void note_modrm(const ZydisDecodedInstruction *zi, struct insn *in)
{
    in->has_modrm = (zi->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
    if (!in->has_modrm)
        return;
    in->mod = zi->raw.modrm.mod;
    in->reg = zi->raw.modrm.reg;
    in->rm = zi->raw.modrm.rm;
    in->reg_kind = RK_OPEXT;
    if (in->map == MAP_0F && in->opcode >= 0x20 && in->opcode <= 0x23)
        in->mod = 3; /* MOV with CRn or DRn ignores it */
}

static enum decode_rc decode_failed(ZyanStatus status, struct insn *out)
{
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return DECODE_TRUNCATED;
    out->len = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? 16 : 0;
    return DECODE_INVALID;
}

enum decode_rc decode_insn(const uint8_t *bytes, size_t avail, bool code32, struct insn *out)
{
    ZydisDecodedInstruction zi;
    ZydisDecoderContext context;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    const ZydisDecoder *decoder = &decoders[code32];

    *out = (struct insn){ .base = NO_REG, .index = NO_REG, .seg = SEG_DS };
    if (avail == 0)
        return DECODE_TRUNCATED;
    ZyanStatus status = ZydisDecoderDecodeInstruction(decoder, &context, bytes, avail, &zi);
    if (!ZYAN_SUCCESS(status))
        return decode_failed(status, out);
    if (zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || zi.opcode_map > ZYDIS_OPCODE_MAP_0F3A)
        return DECODE_INVALID;
    status = ZydisDecoderDecodeOperands(decoder, &context, &zi, ops, zi.operand_count_visible);
    if (!ZYAN_SUCCESS(status))
        return decode_failed(status, out);

    _Static_assert((int)ZYDIS_OPCODE_MAP_0F == MAP_0F && (int)ZYDIS_OPCODE_MAP_0F3A == MAP_0F3A,
                   "same order");
    out->len = zi.length;
    out->map = (uint8_t)zi.opcode_map;
    out->opcode = zi.opcode;
    if (out->map == MAP_1BYTE && out->opcode == 0x82)
        out->opcode = 0x80; /* its alias, which 64-bit mode lacks */
    out->mnemonic = (uint16_t)zi.mnemonic;
    out->asize = zi.address_width / 8u;
    note_prefixes(&zi, out);
    out->osize = operand_bytes(&zi, out, code32);
    note_modrm(&zi, out);
    note_operands(&zi, ops, out);
    if (out->has_mem)
        mend_memory(out);
    if (out->mnemonic == ZYDIS_MNEMONIC_NOP)
        mend_hint_nop(out);
    note_immediates(&zi, out);
    out->unit = (uint8_t)unit_of(out);
    out->info = info_of(out);
    return DECODE_OK;
}
