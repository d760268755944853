/*
 * Register assignment, and the table from opcodes to lowerings.
 *
 *   guest  host   why
 *   EAX    RAX    implicit operand of MUL, DIV, CBW, XLAT, ...
 *   ECX    R13    not RCX: JRCXZ is the one conditional branch that neither reads nor
 *                 writes flags, so RCX is the scratch of every check. CL counts and CH are
 *                 dealt with where they occur
 *   EDX    RDX    implicit operand of MUL, DIV, CWD
 *   EBX    RBX
 *   ESP    R12    host RSP is the shadow return stack; R12 needs a SIB byte as ESP does
 *   EBP    RBP
 *   ESI    RSI
 *   EDI    RDI
 *          R14    tables of the current view
 *          R15    the vCPU
 *          RCX    addend of a checked access, poll word, verify difference
 *          R8     effective address; target EIP of an indirect transfer
 *          R9 R10 scratch
 *          R11    the constant 12
 *
 * Guest registers are always zero-extended: every 32-bit operation sees to it, and 8- and
 * 16-bit ones leave the upper half alone.
 */
#include "bt/bt_internal.h"

const uint8_t guest_to_host[8] = { H_RAX, H_R13, H_RDX, H_RBX, H_R12, H_RBP, H_RSI, H_RDI };

/* clang-format off */
static lower_fn *const one_byte[256] = {
    [0x27] = NULL, /* what is absent here is lower_generic or a callout */
    [0x40] = lower_incdec_r, lower_incdec_r, lower_incdec_r, lower_incdec_r,
             lower_incdec_r, lower_incdec_r, lower_incdec_r, lower_incdec_r,
             lower_incdec_r, lower_incdec_r, lower_incdec_r, lower_incdec_r,
             lower_incdec_r, lower_incdec_r, lower_incdec_r, lower_incdec_r,
    [0x50] = lower_push_r, lower_push_r, lower_push_r, lower_push_r,
             lower_push_r, lower_push_r, lower_push_r, lower_push_r,
             lower_pop_r, lower_pop_r, lower_pop_r, lower_pop_r,
             lower_pop_r, lower_pop_r, lower_pop_r, lower_pop_r,
    [0x68] = lower_push_imm,
    [0x6a] = lower_push_imm,
    [0x70] = lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc,
             lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc,
    [0x8d] = lower_lea,
    [0x8f] = lower_pop_rm,
    [0x9e] = lower_sahf,
    [0x9f] = lower_lahf,
    [0xa0] = lower_moffs, lower_moffs, lower_moffs, lower_moffs,
    [0xa4] = lower_string, lower_string, lower_string, lower_string,
    [0xaa] = lower_string, lower_string, lower_string, lower_string, lower_string, lower_string,
    [0xc2] = lower_ret,
    [0xc3] = lower_ret,
    [0xc9] = lower_leave,
    [0xd2] = lower_shift_cl,
    [0xd3] = lower_shift_cl,
    [0xd6] = lower_salc,
    [0xd7] = lower_xlat,
    [0xe0] = lower_loop, lower_loop, lower_loop, lower_jecxz,
    [0xe8] = lower_call, lower_jmp,
    [0xeb] = lower_jmp,
    [0xfc] = lower_cld,
    [0xfd] = lower_std,
};

static lower_fn *const two_byte[256] = {
    [0x0d] = lower_nothing, /* PREFETCHW and hint NOPs */
    [0x18] = lower_nothing, lower_nothing, lower_nothing, lower_nothing,
             lower_nothing, lower_nothing, lower_nothing, lower_nothing,
    [0x80] = lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc,
             lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc, lower_jcc,
    [0xa3] = lower_bit_rm_r,
    [0xa5] = lower_shift_cl,
    [0xab] = lower_bit_rm_r,
    [0xad] = lower_shift_cl,
    [0xb3] = lower_bit_rm_r,
    [0xbb] = lower_bit_rm_r,
    [0xf7] = lower_maskmov,
};
/* clang-format on */

/* Groups whose ModRM.reg decides. */
static lower_fn *find_group(const struct insn *in)
{
    if (in->map == MAP_1BYTE && in->opcode == 0xff) {
        if (in->reg == 2)
            return lower_call_rm;
        if (in->reg == 4)
            return lower_jmp_rm;
        if (in->reg == 6)
            return lower_push_rm;
    }
    if (in->map == MAP_1BYTE && (in->opcode & ~1u) == 0xf6 && in->reg >= 6)
        return lower_div;
    if (in->map == MAP_0F && in->opcode == 0xc7 && in->reg == 1)
        return lower_cmpxchg8b;
    return NULL;
}

lower_fn *lower_find(const struct insn *in)
{
    lower_fn *fn = find_group(in);

    if (!fn && in->map == MAP_1BYTE)
        fn = one_byte[in->opcode];
    else if (!fn && in->map == MAP_0F)
        fn = two_byte[in->opcode];
    return fn ? fn : lower_generic;
}
