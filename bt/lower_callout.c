/*
 * Sensitive and privileged instructions, and those that 64-bit mode lacks: the operands are
 * packed into one word (base/callout.h) and a C function does the rest.
 */
#include "bt/bt_internal.h"

/* Which segment register an instruction loads, stores, pushes or pops; by opcode. */
static uint32_t segment_operand(const struct insn *in)
{
    if (in->map == MAP_1BYTE) {
        switch (in->opcode) {
        case 0x8c: /* MOV r/m, Sreg */
        case 0x8e: /* MOV Sreg, r/m */
            return in->reg;
        case 0xc4:
            return SEG_ES;
        case 0xc5:
            return SEG_DS;
        default: /* 06 07 0E 16 17 1E 1F */
            return in->opcode >> 3 & 3;
        }
    }
    switch (in->opcode) {
    case 0xb2:
        return SEG_SS;
    case 0xb4:
    case 0xa0:
    case 0xa1:
        return SEG_FS;
    default: /* B5 A8 A9 */
        return SEG_GS;
    }
}

static unsigned log2_bytes(unsigned n)
{
    return n >= 8 ? 3 : n == 4 ? 2 : n == 2 ? 1 : 0;
}

static uint32_t immediate(const struct insn *in, enum callout_id id)
{
    switch (id) {
    case CALLOUT_mov_to_seg:
    case CALLOUT_mov_from_seg:
    case CALLOUT_push_seg:
    case CALLOUT_pop_seg:
    case CALLOUT_load_far_ptr:
        return segment_operand(in);
    case CALLOUT_in:
    case CALLOUT_out:
    case CALLOUT_int_n:
    case CALLOUT_aam:
    case CALLOUT_aad:
        return in->imm & 0xff;
    case CALLOUT_enter:
    case CALLOUT_ret_far:
        return in->imm_len ? in->imm & 0xffff : 0;
    default:
        return in->imm;
    }
}

static unsigned rm_register(const struct insn *in, enum callout_id id)
{
    if (id == CALLOUT_in || id == CALLOUT_out) /* EC..EF: the port is in DX */
        return in->opcode >= 0xec ? EDX : EAX;
    return in->has_modrm ? in->rm : 0;
}

uint64_t lower_callout_arg(const struct insn *in)
{
    enum callout_id id = (enum callout_id)in->info->callout;

    return (uint64_t)immediate(in, id) | (uint64_t)(in->imm2 & 0xffff) << 32 |
           (uint64_t)(in->has_modrm ? in->reg & 7u : 0) << 48 | (uint64_t)(rm_register(in, id) & 7u) << 51 |
           (uint64_t)in->has_mem << 54 | (uint64_t)(in->seg & 7u) << 55 |
           (uint64_t)log2_bytes(in->osize) << 58 | (uint64_t)log2_bytes(in->asize) << 60 |
           (uint64_t)(in->rep_is_opcode ? REP_NONE : in->rep) << 62;
}

/* These never resume inline, so nothing of the TU can follow. */
static bool ends_tu(enum callout_id id)
{
    switch (id) {
    case CALLOUT_int_n:
    case CALLOUT_int3:
    case CALLOUT_int1:
    case CALLOUT_iret:
    case CALLOUT_call_far:
    case CALLOUT_jmp_far:
    case CALLOUT_ret_far:
    case CALLOUT_sysenter:
    case CALLOUT_sysexit:
    case CALLOUT_hlt:
    case CALLOUT_rsm:
    case CALLOUT_raise_ud:
    case CALLOUT_raise_nm:
    case CALLOUT_raise_gp0:
    case CALLOUT_unsupported:
        return true;
    default:
        return false;
    }
}

void lower_callout(struct xlate *x)
{
    enum callout_id id = (enum callout_id)x->in.info->callout;
    struct guest_ea ea;

    if (x->in.has_mem) {
        idiom_ea_of_insn(&x->in, &ea);
        idiom_offset(x, &ea, H_EA);
    }
    idiom_callout(x, id, lower_callout_arg(&x->in));
    if (ends_tu(id)) {
        idiom_never(x);
        x->ends = true;
    }
}
