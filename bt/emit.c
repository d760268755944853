/*
 * Host instruction encoding. One function builds prefixes and REX, one the ModRM, SIB and
 * displacement; everything else is a name for a form.
 *
 * Reference: Intel SDM vol. 2A, ch. 2 "Instruction Format".
 */
#include "bt/emit.h"

#include "base/assert.h"
#include "base/string.h"

void put8(struct emit *e, unsigned v)
{
    if (e->p >= e->end) {
        e->overflow = true;
        return;
    }
    *e->p++ = (uint8_t)v;
}

void put32(struct emit *e, uint32_t v)
{
    if (e->end - e->p >= 4) {
        memcpy(e->p, &v, sizeof v);
        e->p += sizeof v;
        return;
    }
    for (int i = 0; i < 4; i++, v >>= 8)
        put8(e, v & 0xff);
}

void put64(struct emit *e, uint64_t v)
{
    put32(e, (uint32_t)v);
    put32(e, (uint32_t)(v >> 32));
}

/* ---- whole instructions ------------------------------------------------------------ */

/*
 * A fifth of the time of a translation is spent here, so there is one question for room an instruction, and its
 * bytes are put by a pointer of its own: to where they belong, or near the end of the room into a buffer first.
 */
#define INSN_BYTES 16u /* more than any has, without its immediate */

struct pen {
    uint8_t *start, *p;
    uint8_t tight[INSN_BYTES];
};

static inline void pen_down(struct pen *pen, struct emit *e)
{
    pen->p = pen->start = e->end - e->p >= (ptrdiff_t)INSN_BYTES ? e->p : pen->tight;
}

static inline void pen_up(struct pen *pen, struct emit *e)
{
    if (__builtin_expect(pen->start != pen->tight, 1)) {
        e->p = pen->p;
        return;
    }
    for (const uint8_t *from = pen->start; from < pen->p; from++)
        put8(e, *from);
}

static inline void byte(struct pen *pen, unsigned v)
{
    *pen->p++ = (uint8_t)v;
}

/* LOCK, 66, F3/F2, REX and the opcode with its map. */
static inline void put_opcode(struct pen *pen, unsigned flags, unsigned opcode, unsigned rex)
{
    if (flags & (ENC_LOCK | ENC_66 | ENC_F3 | ENC_F2)) {
        if (flags & ENC_LOCK)
            byte(pen, 0xf0);
        if (flags & ENC_66)
            byte(pen, 0x66);
        if (flags & ENC_F3)
            byte(pen, 0xf3);
        if (flags & ENC_F2)
            byte(pen, 0xf2);
    }
    if (flags & ENC_W)
        rex |= 8;
    if (rex)
        byte(pen, 0x40 | rex);
    if (flags & (ENC_0F | ENC_0F38 | ENC_0F3A)) {
        byte(pen, 0x0f);
        if (flags & ENC_0F38)
            byte(pen, 0x38);
        if (flags & ENC_0F3A)
            byte(pen, 0x3a);
    }
    byte(pen, opcode);
}

static inline void put_disp32(struct pen *pen, uint32_t disp)
{
    memcpy(pen->p, &disp, sizeof disp);
    pen->p += sizeof disp;
}

/* ModRM, SIB and displacement. Without a base an address is absolute and needs a SIB byte:
 * mod 0 rm 5 alone would be relative to RIP. */
static inline void put_mem(struct pen *pen, unsigned reg, const struct hmem *m)
{
    unsigned base = m->base & 7u;
    unsigned sib = (unsigned)m->scale_log2 << 6 | (m->index == H_NONE ? 4u : m->index & 7u) << 3;
    bool need_sib = m->index != H_NONE || m->base == H_NONE || base == 4;
    unsigned mod;

    if (m->base == H_NONE) {
        byte(pen, (reg & 7) << 3 | 4);
        byte(pen, sib | 5);
        put_disp32(pen, (uint32_t)m->disp);
        return;
    }
    if (m->wide)
        mod = 2;
    else if (m->disp == 0 && base != 5)
        mod = 0;
    else
        mod = m->disp >= -128 && m->disp <= 127 ? 1 : 2;
    byte(pen, mod << 6 | (reg & 7) << 3 | (need_sib ? 4 : base));
    if (need_sib)
        byte(pen, sib | base);
    if (mod == 1)
        byte(pen, (uint8_t)m->disp);
    else if (mod == 2)
        put_disp32(pen, (uint32_t)m->disp);
}

void e_op_rr(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, unsigned rm)
{
    struct pen pen;

    pen_down(&pen, e);
    put_opcode(&pen, flags, opcode, (reg >> 3) << 2 | rm >> 3);
    byte(&pen, 0xc0 | (reg & 7) << 3 | (rm & 7));
    pen_up(&pen, e);
}

void e_op_rm(struct emit *e, unsigned flags, unsigned opcode, unsigned reg, struct hmem m)
{
    unsigned rex = (reg >> 3) << 2;
    struct pen pen;

    if (m.base != H_NONE)
        rex |= m.base >> 3;
    if (m.index != H_NONE)
        rex |= (unsigned)(m.index >> 3) << 1;
    pen_down(&pen, e);
    if (m.window) {
        if (!e->linear_window)
            byte(&pen, 0x65);
        byte(&pen, 0x67);
    }
    put_opcode(&pen, flags, opcode, rex);
    put_mem(&pen, reg, &m);
    pen_up(&pen, e);
}

void e_op_r(struct emit *e, unsigned flags, unsigned opcode, unsigned reg)
{
    struct pen pen;

    pen_down(&pen, e);
    put_opcode(&pen, flags, opcode | (reg & 7), reg >> 3);
    pen_up(&pen, e);
}

void e_op(struct emit *e, unsigned flags, unsigned opcode)
{
    e_op_r(e, flags, opcode, 0);
}

/* ---- moves ------------------------------------------------------------------------- */

void e_mov_r32_r32(struct emit *e, enum host_reg to, enum host_reg from)
{
    e_op_rr(e, 0, 0x89, from, to);
}

void e_mov_r64_r64(struct emit *e, enum host_reg to, enum host_reg from)
{
    e_op_rr(e, ENC_W, 0x89, from, to);
}

void e_mov_r32_imm32(struct emit *e, enum host_reg to, uint32_t imm)
{
    e_op_r(e, 0, 0xb8, to);
    put32(e, imm);
}

void e_mov_r64_imm64(struct emit *e, enum host_reg to, uint64_t imm)
{
    if (imm <= UINT32_MAX) {
        e_mov_r32_imm32(e, to, (uint32_t)imm);
        return;
    }
    e_op_r(e, ENC_W, 0xb8, to);
    put64(e, imm);
}

void e_mov_r32_m32(struct emit *e, enum host_reg to, struct hmem m)
{
    e_op_rm(e, 0, 0x8b, to, m);
}

void e_mov_r64_m64(struct emit *e, enum host_reg to, struct hmem m)
{
    e_op_rm(e, ENC_W, 0x8b, to, m);
}

void e_mov_m32_r32(struct emit *e, struct hmem m, enum host_reg from)
{
    e_op_rm(e, 0, 0x89, from, m);
}

void e_mov_m64_r64(struct emit *e, struct hmem m, enum host_reg from)
{
    e_op_rm(e, ENC_W, 0x89, from, m);
}

void e_mov_m32_imm32(struct emit *e, struct hmem m, uint32_t imm)
{
    e_op_rm(e, 0, 0xc7, 0, m);
    put32(e, imm);
}

void e_mov_m8_imm8(struct emit *e, struct hmem m, uint8_t imm)
{
    e_op_rm(e, 0, 0xc6, 0, m);
    put8(e, imm);
}

void e_lea_r32(struct emit *e, enum host_reg to, struct hmem m)
{
    e_op_rm(e, 0, 0x8d, to, m);
}

void e_lea_r64(struct emit *e, enum host_reg to, struct hmem m)
{
    e_op_rm(e, ENC_W, 0x8d, to, m);
}

void e_movzx_r32_r8(struct emit *e, enum host_reg to, enum host_reg from)
{
    /* Without a REX prefix 4..7 would mean AH..BH. */
    put8(e, 0x40 | (to >> 3) << 2 | from >> 3);
    put8(e, 0x0f);
    put8(e, 0xb6);
    put8(e, 0xc0 | (to & 7) << 3 | (from & 7));
}

void e_movzx_r32_r16(struct emit *e, enum host_reg to, enum host_reg from)
{
    e_op_rr(e, ENC_0F, 0xb7, to, from);
}

void e_movzx_r32_m8(struct emit *e, enum host_reg to, struct hmem m)
{
    e_op_rm(e, ENC_0F, 0xb6, to, m);
}

void e_movzx_r32_m16(struct emit *e, enum host_reg to, struct hmem m)
{
    e_op_rm(e, ENC_0F, 0xb7, to, m);
}

void e_movsx_r32_r16(struct emit *e, enum host_reg to, enum host_reg from)
{
    e_op_rr(e, ENC_0F, 0xbf, to, from);
}

/* VEX.LZ.pp.0F38.W opcode /r with three registers; pp 1, 2, 3: 66, F3, F2 */
static void bmi2(struct emit *e, unsigned pp, bool w, unsigned opcode, unsigned reg, unsigned vvvv, unsigned rm)
{
    put8(e, 0xc4);
    put8(e, (reg < 8 ? 0x80u : 0) | 0x40 | (rm < 8 ? 0x20u : 0) | 2);
    put8(e, (w ? 0x80u : 0) | (~vvvv & 15) << 3 | pp);
    put8(e, opcode);
    put8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* F7 /r: pp 1 SHLX, 2 SARX, 3 SHRX */
static void shift_x(struct emit *e, unsigned pp, bool w, unsigned to, unsigned from, unsigned count)
{
    bmi2(e, pp, w, 0xf7, to, count, from);
}

void e_shrx_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count)
{
    shift_x(e, 3, false, to, from, count);
}

void e_shrx_r64(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count)
{
    shift_x(e, 3, true, to, from, count);
}

void e_sarx_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count)
{
    shift_x(e, 2, false, to, from, count);
}

void e_shlx_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count)
{
    shift_x(e, 1, false, to, from, count);
}

void e_pext_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg mask)
{
    bmi2(e, 2, false, 0xf5, to, from, mask);
}

void e_pdep_r32(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg mask)
{
    bmi2(e, 3, false, 0xf5, to, from, mask);
}

void e_pushfq(struct emit *e)
{
    put8(e, 0x9c);
}

void e_popfq(struct emit *e)
{
    put8(e, 0x9d);
}

void e_push_r64(struct emit *e, enum host_reg r)
{
    e_op_r(e, 0, 0x50, r);
}

void e_pop_r64(struct emit *e, enum host_reg r)
{
    e_op_r(e, 0, 0x58, r);
}

/* ---- control ----------------------------------------------------------------------- */

static uint8_t *branch8(struct emit *e, unsigned opcode)
{
    put8(e, opcode);
    put8(e, 0);
    return e->p - 1;
}

static uint8_t *branch32(struct emit *e)
{
    put32(e, 0);
    return e->p - 4;
}

uint8_t *e_jrcxz_fwd(struct emit *e)
{
    return branch8(e, 0xe3);
}

uint8_t *e_jmp8_fwd(struct emit *e)
{
    return branch8(e, 0xeb);
}

uint8_t *e_jmp32_fwd(struct emit *e)
{
    put8(e, 0xe9);
    return branch32(e);
}

uint8_t *e_jcc32_fwd(struct emit *e, unsigned cc)
{
    put8(e, 0x0f);
    put8(e, 0x80 | cc);
    return branch32(e);
}

uint8_t *e_call32_fwd(struct emit *e)
{
    put8(e, 0xe8);
    return branch32(e);
}

void e_jrcxz_to(struct emit *e, const uint8_t *target)
{
    e_patch8(e_jrcxz_fwd(e), target);
}

void e_jmp32_to(struct emit *e, const uint8_t *target)
{
    uint8_t *at = e_jmp32_fwd(e);
    if (!e->overflow)
        e_patch32(at, target);
}

void e_patch8(uint8_t *at, const uint8_t *target)
{
    ptrdiff_t rel = target - (at + 1);

    ASSERT(rel >= INT8_MIN && rel <= INT8_MAX); /* else it would lead anywhere */
    *at = (uint8_t)rel;
}

void e_patch32(uint8_t *at, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (at + 4));
    memcpy(at, &rel, 4);
}

void e_jmp_m64(struct emit *e, struct hmem m)
{
    e_op_rm(e, 0, 0xff, 4, m);
}

void e_call_m64(struct emit *e, struct hmem m)
{
    e_op_rm(e, 0, 0xff, 2, m);
}

void e_ret(struct emit *e)
{
    put8(e, 0xc3);
}
