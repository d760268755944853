/*
 * PUSH, POP, LEAVE and single string instructions. The store comes before the change of
 * ESP, so that a fault finds the registers as they were.
 */
#include "bt/bt_internal.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

static unsigned size_flags(unsigned size)
{
    return size == 2 ? ENC_66 : 0;
}

static void load(struct xlate *x, enum host_reg to, struct hmem m, unsigned size)
{
    if (size == 1)
        e_movzx_r32_m8(x->e, to, m);
    else if (size == 2)
        e_movzx_r32_m16(x->e, to, m);
    else
        e_mov_r32_m32(x->e, to, m);
}

/*  mov  ss:[esp - size], src
 *  lea  r12d, [r12 - size]  */
void lower_push_r(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, -(int32_t)size);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return;
    e_op_rm(x->e, size_flags(size), 0x89, guest_to_host[x->in.opcode & 7], m);
    idiom_esp_add(x, -(int32_t)size);
}

void lower_push_imm(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, -(int32_t)size);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return;
    e_op_rm(x->e, size_flags(size), 0xc7, 0, m);
    patch_note_const(x, size);
    put8(x->e, x->in.imm & 0xff);
    put8(x->e, x->in.imm >> 8 & 0xff);
    if (size == 4) {
        put8(x->e, x->in.imm >> 16 & 0xff);
        put8(x->e, x->in.imm >> 24);
    }
    idiom_esp_add(x, -(int32_t)size);
}

/* The operand is read first; the check of the stack needs the scratch registers, so it waits
 * in the vCPU. */
void lower_push_rm(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea;
    struct hmem m;

    if (!x->in.has_mem) {
        struct insn saved = x->in;
        x->in.opcode = x->in.rm; /* FF /6 with a register is a PUSH of it */
        lower_push_r(x);
        x->in = saved;
        return;
    }
    idiom_ea_of_insn(&x->in, &ea);
    if (!idiom_access(x, &ea, size, MEM_READ, &m))
        return;
    load(x, H_EA, m, size);
    e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(tmp)), H_EA);
    ea = idiom_ea_stack(x, -(int32_t)size);
    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return;
    e_mov_r32_m32(x->e, H_T1, vcpu_mem(VCPU_OFS(tmp)));
    e_op_rm(x->e, size_flags(size), 0x89, H_T1, m);
    idiom_esp_add(x, -(int32_t)size);
}

void lower_pop_r(struct xlate *x)
{
    unsigned size = x->in.osize, reg = x->in.opcode & 7;
    struct guest_ea ea = idiom_ea_stack(x, 0);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_READ, &m))
        return;
    if (reg == ESP && size == 2) { /* POP SP: the increment comes first, then SP is replaced */
        e_movzx_r32_m16(x->e, H_EA, m);
        idiom_esp_add(x, 2);
        e_op_rr(x->e, ENC_66, 0x89, H_EA, H_ESP);
        return;
    }
    e_op_rm(x->e, size_flags(size), 0x8b, guest_to_host[reg], m);
    if (reg != ESP)
        idiom_esp_add(x, (int32_t)size);
}

/* The destination of POP, with ESP as its base: ESP counts as incremented, and a 16-bit stack pointer wraps.
 *   mov r8d, r12d ; lea r9d, [r12 + size] ; mov r8w, r9w ; then the offset from R8  */
static void pop_to_esp(struct xlate *x, struct guest_ea *ea, unsigned size)
{
    if (x->mode & MODE_STACK32) {
        ea->disp += size;
        return;
    }
    e_mov_r32_r32(x->e, H_EA, H_ESP);
    e_lea_r32(x->e, H_T1, hmem_base(H_ESP, (int32_t)size));
    e_op_rr(x->e, ENC_66, 0x89, H_T1, H_EA);
    ea->base = H_EA;
    idiom_offset(x, ea, H_EA);
    *ea = idiom_ea_reg((enum seg_id)ea->seg, H_EA, 4);
}

/* POP r/m */
void lower_pop_rm(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, 0);
    struct hmem m;

    if (!x->in.has_mem) {
        struct insn saved = x->in;
        x->in.opcode = x->in.rm;
        lower_pop_r(x);
        x->in = saved;
        return;
    }
    if (!idiom_access(x, &ea, size, MEM_READ, &m))
        return;
    load(x, H_EA, m, size);
    e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(tmp)), H_EA);
    idiom_ea_of_insn(&x->in, &ea);
    if (ea.base == H_ESP)
        pop_to_esp(x, &ea, size);
    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return;
    e_mov_r32_m32(x->e, H_T1, vcpu_mem(VCPU_OFS(tmp)));
    e_op_rm(x->e, size_flags(size), 0x89, H_T1, m);
    idiom_esp_add(x, (int32_t)size);
}

/* ESP = EBP; POP EBP */
void lower_leave(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_reg(SEG_SS, H_RBP, x->mode & MODE_STACK32 ? 4 : 2);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_READ, &m))
        return;
    load(x, H_EA, m, size);
    if (x->mode & MODE_STACK32)
        e_lea_r32(x->e, H_ESP, hmem_base(H_RBP, (int32_t)size));
    else {
        e_lea_r32(x->e, H_T1, hmem_base(H_RBP, (int32_t)size));
        e_op_rr(x->e, ENC_66, 0x89, H_T1, H_ESP);
    }
    e_op_rr(x->e, size_flags(size), 0x89, H_EA, H_RBP);
}

/* ---- single string instructions -------------------------------------------------------------- */

/*  mov ecx, [r15 + df_step] ; lea reg, [reg + rcx * size] */
static void advance(struct xlate *x, enum host_reg reg, unsigned size)
{
    uint8_t scale = size == 4 ? 2 : size == 2 ? 1 : 0;

    if (x->in.asize == 4) {
        e_lea_r32(x->e, reg, hmem_index(reg, H_RCX, scale, 0));
    } else {
        e_lea_r32(x->e, H_T1, hmem_index(reg, H_RCX, scale, 0));
        e_op_rr(x->e, ENC_66, 0x89, H_T1, reg);
    }
}

static bool access_string(struct xlate *x, enum host_reg reg, unsigned access, struct hmem *m)
{
    enum seg_id seg = reg == H_RDI ? SEG_ES : (enum seg_id)x->in.seg;
    struct guest_ea ea = idiom_ea_reg(seg, reg, x->in.asize);

    return idiom_access(x, &ea, x->in.osize, access, m);
}

/* MOVS and CMPS: the source is read, waits in the vCPU, then the destination is checked. */
static void two_operands(struct xlate *x)
{
    unsigned size = x->in.osize, flags = size_flags(size), wide = size != 1;
    bool is_move = (x->in.opcode & ~1u) == 0xa4;
    struct hmem m;

    if (!access_string(x, H_RSI, MEM_READ, &m))
        return;
    load(x, H_EA, m, size);
    e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(tmp)), H_EA);
    if (!access_string(x, H_RDI, is_move ? MEM_WRITE : MEM_READ, &m))
        return;
    e_mov_r32_m32(x->e, H_T1, vcpu_mem(VCPU_OFS(tmp)));
    e_op_rm(x->e, flags, (is_move ? 0x88 : 0x3a) | wide, H_T1, m);
    e_mov_r32_m32(x->e, H_RCX, vcpu_mem(VCPU_OFS(df_step)));
    advance(x, H_RSI, size);
    advance(x, H_RDI, size);
}

/* Without a repeat prefix; with one they are callouts (lower_callout.c). */
void lower_string(struct xlate *x)
{
    unsigned size = x->in.osize, wide = size != 1, flags = size_flags(size);
    enum host_reg reg = H_RDI;
    struct hmem m;

    if (x->in.rep != REP_NONE) {
        lower_callout(x);
        return;
    }
    switch (x->in.opcode & ~1u) {
    case 0xaa: /* STOS */
        if (!access_string(x, H_RDI, MEM_WRITE, &m))
            return;
        e_op_rm(x->e, flags, 0x88 | wide, H_RAX, m);
        break;
    case 0xac: /* LODS */
        if (!access_string(x, H_RSI, MEM_READ, &m))
            return;
        e_op_rm(x->e, flags, 0x8a | wide, H_RAX, m);
        reg = H_RSI;
        break;
    case 0xae: /* SCAS */
        if (!access_string(x, H_RDI, MEM_READ, &m))
            return;
        e_op_rm(x->e, flags, 0x3a | wide, H_RAX, m);
        break;
    default:
        two_operands(x);
        return;
    }
    e_mov_r32_m32(x->e, H_RCX, vcpu_mem(VCPU_OFS(df_step)));
    advance(x, reg, size);
}
