/*
 * Near control flow. The guest's return address goes to the guest's stack as it should; the
 * host's own CALL and RET carry control, so that the processor predicts returns. What a RET
 * finds on the guest's stack decides: the landing after each CALL compares it.
 */
#include "bt/bt_internal.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

/* A branch target, cut to 16 bits by a 16-bit operand size. */
static uint32_t target(struct xlate *x)
{
    uint32_t t = x->next_eip + x->in.imm;

    if (x->in.osize != 2)
        return t;
    place_none(x);
    return t & 0xffff;
}

void lower_jmp(struct xlate *x)
{
    idiom_jump(x, target(x));
    x->ends = true;
}

void lower_jcc(struct xlate *x)
{
    idiom_jump_if(x, x->in.opcode & 15, target(x));
}

/*  mov   ecx, r13d
 *  jrcxz taken             ; JECXZ: flags are neither read nor written
 *  jmp   next
 * taken: ... */
static void branch_if_zero(struct xlate *x, bool taken_if_zero)
{
    uint8_t *zero = e_jrcxz_fwd(x->e);
    uint8_t *nonzero = e_jmp8_fwd(x->e);
    uint8_t *take = taken_if_zero ? zero : nonzero, *skip = taken_if_zero ? nonzero : zero;

    if (!x->e->overflow)
        e_patch8(take, x->e->p);
    idiom_jump(x, target(x));
    if (!x->e->overflow)
        e_patch8(skip, x->e->p);
}

void lower_jecxz(struct xlate *x)
{
    if (x->in.asize == 4)
        e_mov_r32_r32(x->e, H_RCX, H_ECX);
    else
        e_movzx_r32_r16(x->e, H_RCX, H_ECX);
    branch_if_zero(x, true);
}

/* RCX = count - 1, cut to the address size; the count itself too if wanted. */
static void count_down(struct xlate *x, bool writes_count)
{
    e_lea_r32(x->e, H_RCX, hmem_base(H_ECX, -1));
    if (x->in.asize == 4) {
        if (writes_count)
            e_mov_r32_r32(x->e, H_ECX, H_RCX);
    } else {
        if (writes_count)
            e_op_rr(x->e, ENC_66, 0x89, H_RCX, H_ECX);
        e_movzx_r32_r16(x->e, H_RCX, H_RCX);
    }
}

/* LOOPNE E0, LOOPE E1, LOOP E2: count down without touching flags; E0 and E1 test ZF as well. A
 * branch that faults leaves the count as it was. */
void lower_loop(struct xlate *x)
{
    bool faults = idiom_target_faults(x, target(x));
    uint8_t *out = NULL;

    count_down(x, !faults);
    if (x->in.opcode != 0xe2) /* jz or jnz past the branch */
        out = e_jcc32_fwd(x->e, x->in.opcode == 0xe0 ? 4 : 5);
    branch_if_zero(x, false);
    if (out && !x->e->overflow)
        e_patch32(out, x->e->p);
    if (faults)
        count_down(x, true);
}

/* ---- calls and returns ------------------------------------------------------------------------ */

/* mov ss:[esp - size], next_eip ; lea r12d, [r12 - size] */
static bool push_return(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, -(int32_t)size);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return false;
    if (size == 4) {
        e_mov_m32_imm32(x->e, m, x->next_eip);
        place_note(x, x->e, PLACE_EIP);
    } else {
        place_none(x);
        e_op_rm(x->e, ENC_66, 0xc7, 0, m);
        put8(x->e, x->next_eip & 0xff);
        put8(x->e, x->next_eip >> 8 & 0xff);
    }
    idiom_esp_add(x, -(int32_t)size);
    return true;
}

void lower_call(struct xlate *x)
{
    if (idiom_target_faults(x, target(x))) { /* before the stack is looked at */
        idiom_raise_gp0(x);
        x->ends = true;
        return;
    }
    if (!push_return(x))
        return;
    if (x->is_cold) { /* a store that hits code leaves to where the call goes */
        e_mov_m32_imm32(x->e, vcpu_mem(VCPU_OFS(next_eip)), target(x));
        place_note(x, x->e, PLACE_EIP);
    }
    if (idiom_join_before_transfer(x))
        idiom_call(x, target(x));
}

/* Target EIP of an indirect transfer into R8, within the limit of CS. */
static bool load_target(struct xlate *x)
{
    struct guest_ea ea;
    struct hmem m;

    if (!x->in.has_mem) {
        if (x->in.osize == 2)
            e_movzx_r32_r16(x->e, H_EA, guest_to_host[x->in.rm]);
        else
            e_mov_r32_r32(x->e, H_EA, guest_to_host[x->in.rm]);
        idiom_check_target(x);
        return true;
    }
    idiom_ea_of_insn(&x->in, &ea);
    if (!idiom_access(x, &ea, x->in.osize, MEM_READ, &m))
        return false;
    if (x->in.osize == 2)
        e_movzx_r32_m16(x->e, H_EA, m);
    else
        e_mov_r32_m32(x->e, H_EA, m);
    idiom_check_target(x);
    return true;
}

void lower_jmp_rm(struct xlate *x)
{
    if (load_target(x)) {
        x->has_target_in_ea = true;
        if (idiom_join_before_transfer(x))
            idiom_jump_indirect(x);
    }
    x->ends = true;
}

void lower_call_rm(struct xlate *x)
{
    if (!load_target(x))
        return;
    e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(tmp)), H_EA);
    if (!push_return(x))
        return;
    e_mov_r32_m32(x->e, H_EA, vcpu_mem(VCPU_OFS(tmp)));
    x->has_target_in_ea = true;
    if (idiom_join_before_transfer(x))
        idiom_call_indirect(x);
}

void lower_ret(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, 0);
    struct hmem m;

    x->ends = true;
    if (!idiom_access(x, &ea, size, MEM_READ, &m))
        return;
    if (size == 2)
        e_movzx_r32_m16(x->e, H_EA, m);
    else
        e_mov_r32_m32(x->e, H_EA, m);
    idiom_check_target(x);
    idiom_esp_add(x, (int32_t)(size + (x->in.imm_len ? x->in.imm & 0xffff : 0)));
    x->has_target_in_ea = true;
    if (idiom_join_before_transfer(x))
        idiom_return(x);
}
