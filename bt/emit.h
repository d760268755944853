/*
 * Emitting host code: bytes, then encoders named after the instruction. No hex above
 * this layer. An encoder writes one instruction; running out of room sets a sticky flag
 * that the translator tests once per TU.
 */
#ifndef BT_EMIT_H
#define BT_EMIT_H

#include "base/types.h"

/** Host general registers by encoding. */
enum host_reg {
    H_RAX, H_RCX, H_RDX, H_RBX, H_RSP, H_RBP, H_RSI, H_RDI,
    H_R8, H_R9, H_R10, H_R11, H_R12, H_R13, H_R14, H_R15,
    H_NONE
};

/** Where code goes: the RW view. Run addresses differ by a constant for the whole TC. */
struct emit {
    uint8_t *start, *p, *end;
    bool overflow;
    bool linear_window;        /* the window is at address 0: no gs: */
};

/** A host memory operand. */
struct hmem {
    bool wide; /* the displacement takes four bytes whatever it is */
    enum host_reg base, index; /* H_NONE: absent */
    uint8_t scale_log2;
    int32_t disp;
    bool window;               /* 67h, and gs: unless it is linear: an address in the guest's window */
};

/** Parts of an instruction besides its opcode byte. */
enum enc_flags {
    ENC_66 = 1, ENC_F3 = 2, ENC_F2 = 4, ENC_LOCK = 8, ENC_W = 16,
    ENC_0F = 32, ENC_0F38 = 64, ENC_0F3A = 128,
};

static inline struct hmem hmem_base(enum host_reg base, int32_t disp)
{
    return (struct hmem){ .base = base, .index = H_NONE, .disp = disp };
}

static inline struct hmem hmem_index(enum host_reg base, enum host_reg index, uint8_t scale_log2, int32_t disp)
{
    return (struct hmem){ .base = base, .index = index, .scale_log2 = scale_log2, .disp = disp };
}

/* ---- bytes ------------------------------------------------------------------- */
void put8(struct emit *e, unsigned v);
void put32(struct emit *e, uint32_t v);
void put64(struct emit *e, uint64_t v);

/* ---- generic forms --------------------------------------------------------------- */
/** op /r with a register in ModRM.rm. `reg` and `rm` are raw encodings 0..15; for byte
 *  registers AH..BH pass 4..7 with neither a REX prefix nor an extended register needed. */
void e_op_rr(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, unsigned rm);
/** op /r with a memory operand. */
void e_op_rm(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, struct hmem m);
/** op with the register in the opcode's low bits. */
void e_op_r(struct emit *e, unsigned flags, unsigned opcode, unsigned reg);
/** op without operands. */
void e_op(struct emit *e, unsigned flags, unsigned opcode);

/* ---- moves; none of them touches flags ------------------------------------------- */
void e_mov_r32_r32(struct emit *e, enum host_reg to, enum host_reg from);
void e_mov_r64_r64(struct emit *e, enum host_reg to, enum host_reg from);
void e_mov_r32_imm32(struct emit *e, enum host_reg to, uint32_t imm);
void e_mov_r64_imm64(struct emit *e, enum host_reg to, uint64_t imm); /* shortest form */
void e_mov_r32_m32(struct emit *e, enum host_reg to, struct hmem m);
void e_mov_r64_m64(struct emit *e, enum host_reg to, struct hmem m);
void e_mov_m32_r32(struct emit *e, struct hmem m, enum host_reg from);
void e_mov_m64_r64(struct emit *e, struct hmem m, enum host_reg from);
void e_mov_m32_imm32(struct emit *e, struct hmem m, uint32_t imm);
void e_mov_m8_imm8(struct emit *e, struct hmem m, uint8_t imm);
void e_lea_r32(struct emit *e, enum host_reg to, struct hmem m);
void e_lea_r64(struct emit *e, enum host_reg to, struct hmem m);
void e_movzx_r32_r8(struct emit *e, enum host_reg to, enum host_reg from); /* low byte */
void e_movzx_r32_r16(struct emit *e, enum host_reg to, enum host_reg from);
void e_movzx_r32_m8(struct emit *e, enum host_reg to, struct hmem m);
void e_movzx_r32_m16(struct emit *e, enum host_reg to, struct hmem m);
void e_movsx_r32_r16(struct emit *e, enum host_reg to, enum host_reg from);
void e_shrx_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count);
void e_shrx_r64(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count);
void e_sarx_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count);
void e_shlx_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count);
/** Bits of `from` where `mask` has ones, to the low end (PEXT) and back (PDEP): an AND that keeps flags. BMI2. */
void e_pext_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg mask);
void e_pdep_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg mask);
void e_pushfq(struct emit *e);
void e_popfq(struct emit *e);
void e_push_r64(struct emit *e, enum host_reg r);
void e_pop_r64(struct emit *e, enum host_reg r);

/* ---- control --------------------------------------------------------------------- */
/** Forward or backward branches with an 8- or 32-bit displacement. The *_fwd forms return
 *  the place to patch with e_patch8/32. */
uint8_t *e_jrcxz_fwd(struct emit *e);
uint8_t *e_jmp8_fwd(struct emit *e);
uint8_t *e_jmp32_fwd(struct emit *e);
uint8_t *e_jcc32_fwd(struct emit *e, unsigned cc);
uint8_t *e_call32_fwd(struct emit *e);
void e_jrcxz_to(struct emit *e, const uint8_t *target); /* within reach: the caller knows */
void e_jmp32_to(struct emit *e, const uint8_t *target);
void e_patch8(uint8_t *at, const uint8_t *target);
void e_patch32(uint8_t *at, const uint8_t *target);
void e_jmp_m64(struct emit *e, struct hmem m);
void e_call_m64(struct emit *e, struct hmem m);
void e_ret(struct emit *e);

#endif
