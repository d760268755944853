/*
 * System instructions that need no callout: CLI, STI, PUSHF, POPF, and reading a segment
 * register. Which of them are inline depends on the mode word alone; what the mode does not
 * say is compared when the instruction runs, and its slow path is then the callout.
 *
 * EFLAGS lie in three places: arithmetic flags and DF in the host's flags (DF mirrored in the
 * vCPU), IF in a byte, all others in eflags_sys. PUSHF gathers them without touching any
 * (PEXT and PDEP are an AND that leaves flags alone). POPF loads the arithmetic flags, and
 * may do as it likes with them once its operand is read.
 *
 * With TF or RF set, or breakpoints on the page, code runs under MODE_STEP: callouts all.
 * Ref: SDM vol. 2, CLI, STI, PUSHF, POPF.
 */
#include "bt/bt_internal.h"

#include "base/assert.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)
#define SEL_OFS(seg)    (offsetof(struct vcpu, segs) + (seg) * sizeof(struct segment) + offsetof(struct segment, sel))

/* One-byte opcodes of the register forms: op r/m32, r32 */
enum { OP_OR = 0x09, OP_AND = 0x21, OP_XOR = 0x31, OP_TEST = 0x85 };
/* Group 1, 81 /n: op r/m32, imm32 */
enum { GRP1_AND = 4 };
#define CC_Z  4u
#define CC_NZ 5u

/* To the slow path, and the flags say when. */
static void jcc_slow(struct xlate *x, unsigned cc)
{
    ASSERT(!x->is_cold && x->nunresolved < XL_MAX_PENDING);
    x->has_slow = true;
    x->unresolved[x->nunresolved++] = e_jcc32_fwd(x->e, cc);
}

/* The slow path is the callout; for listings the instruction is lowered all the same. */
static void slow_is_callout(struct xlate *x)
{
    lower_callout(x);
    x->callout = CALLOUT_COUNT;
}

/* ---- CLI and STI: CPL 0 ----------------------------------------------------------------------- */

static void lower_cli(struct xlate *x)
{
    e_mov_m8_imm8(x->e, vcpu_mem(VCPU_OFS(eflags_if)), 0);
}

/*  mov   byte [r15 + eflags_if], 1
 *  mov   ecx, [r15 + intr_quiet]
 *  jrcxz slow              ; an interrupt waits: run one instruction, then take it  */
static void lower_sti(struct xlate *x)
{
    e_mov_m8_imm8(x->e, vcpu_mem(VCPU_OFS(eflags_if)), 1);
    if (x->is_cold) {
        idiom_exit(x, x->e, EXIT_SHADOW, x->next_eip);
        return;
    }
    idiom_islands(x, 64, true);
    e_mov_r32_m32(x->e, H_ADDR, vcpu_mem(VCPU_OFS(intr_quiet)));
    idiom_jrcxz_slow(x);
}

/* ---- PUSHF ------------------------------------------------------------------------------------- */

/*  movzx r, byte [r15 + eflags_if]
 *  lea   r, [r*8] ; lea r, [r*8]      ; IF << 6: the rest of the way is a scale of 8  */
static void load_if_shifted_6(struct xlate *x, enum host_reg r)
{
    e_movzx_r32_m8(x->e, r, vcpu_mem(VCPU_OFS(eflags_if)));
    e_lea_r32(x->e, r, hmem_index(H_NONE, r, 3, 0));
    e_lea_r32(x->e, r, hmem_index(H_NONE, r, 3, 0));
}

/*  pushfq ; pop r9
 *  mov   r10d, mask ; pext r9d, r9d, r10d ; pdep r9d, r9d, r10d
 *  (r10d = IF << 6)
 *  lea   r9d, [r9 + r10*8 + 2]
 *  mov   r10d, [r15 + eflags_sys]
 *  lea   r9d, [r9 + r10]              ; VM and RF are clear here  */
static void gather_flags(struct xlate *x)
{
    e_pushfq(x->e);
    e_pop_r64(x->e, H_T1);
    e_mov_r32_imm32(x->e, H_T2, EFL_ARITH | EFL_DF);
    e_pext_r32(x->e, H_T1, H_T1, H_T2);
    e_pdep_r32(x->e, H_T1, H_T1, H_T2);
    load_if_shifted_6(x, H_T2);
    e_lea_r32(x->e, H_T1, hmem_index(H_T1, H_T2, 3, EFL_ONE));
    e_mov_r32_m32(x->e, H_T2, vcpu_mem(VCPU_OFS(eflags_sys)));
    e_lea_r32(x->e, H_T1, hmem_index(H_T1, H_T2, 0, 0));
}

static void lower_pushf(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, -(int32_t)size);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return;
    if (!x->is_cold)
        idiom_islands(x, 76, true);
    gather_flags(x);
    e_op_rm(x->e, size == 2 ? ENC_66 : 0, 0x89, H_T1, m);
    idiom_esp_add(x, -(int32_t)size);
}

/* ---- POPF --------------------------------------------------------------------------------------- */

/* Flags whose change is the callout's. Those that POPF leaves alone here are not compared. */
static uint32_t popf_rare(const struct xlate *x)
{
    uint32_t rare = EFL_TF | EFL_DF | EFL_NT;

    if (x->in.osize == 4)
        rare |= EFL_AC | EFL_ID;
    return rare | (x->mode & MODE_CPL0 ? EFL_IOPL : EFL_IF);
}

/*  r9d is the operand.
 *  mov   r10d, [r15 + eflags_sys]
 *  (at CPL 3: r10d += IF << 9, which IOPL 3 would let change)
 *  xor   r10d, r9d ; and r10d, rare
 *  movzx ecx, byte [r15 + eflags_df]  ; DF is to stay clear
 *  or    r10d, ecx ; jnz slow  */
static void compare_rare_flags(struct xlate *x)
{
    e_mov_r32_m32(x->e, H_T2, vcpu_mem(VCPU_OFS(eflags_sys)));
    if (!(x->mode & MODE_CPL0)) {
        load_if_shifted_6(x, H_RCX);
        e_lea_r32(x->e, H_T2, hmem_index(H_T2, H_RCX, 3, 0));
    }
    e_op_rr(x->e, 0, OP_XOR, H_T1, H_T2);
    e_op_rr(x->e, 0, 0x81, GRP1_AND, H_T2);
    put32(x->e, popf_rare(x));
    e_movzx_r32_m8(x->e, H_RCX, vcpu_mem(VCPU_OFS(eflags_df)));
    e_op_rr(x->e, 0, OP_OR, H_RCX, H_T2);
    jcc_slow(x, CC_NZ);
}

/*  mov   ecx, [r15 + intr_quiet] ; test ecx, ecx ; jz slow   ; an interrupt waits
 *  mov   ecx, r9d ; shr ecx, 9 ; and ecx, 1
 *  mov   [r15 + eflags_if], cl  */
static void set_if(struct xlate *x)
{
    e_mov_r32_m32(x->e, H_RCX, vcpu_mem(VCPU_OFS(intr_quiet)));
    e_op_rr(x->e, 0, OP_TEST, H_RCX, H_RCX);
    jcc_slow(x, CC_Z);
    e_mov_r32_r32(x->e, H_RCX, H_T1);
    e_op_rr(x->e, 0, 0xc1, 5, H_RCX); /* shr */
    put8(x->e, 9);
    e_op_rr(x->e, 0, 0x83, GRP1_AND, H_RCX);
    put8(x->e, 1);
    e_op_rm(x->e, 0, 0x88, H_RCX, vcpu_mem(VCPU_OFS(eflags_if)));
}

/* As world.S does it, POPFQ being slow:
 *  mov r8d, eax ; mov eax, r9d ; shr eax, 11 ; and eax, 1   ; AL = OF
 *  mov ecx, r9d ; mov ah, cl ; add al, 7fh ; sahf ; mov eax, r8d  */
static void set_arithmetic_flags(struct xlate *x)
{
    e_mov_r32_r32(x->e, H_EA, H_RAX);
    e_mov_r32_r32(x->e, H_RAX, H_T1);
    e_op_rr(x->e, 0, 0xc1, 5, H_RAX);
    put8(x->e, 11);
    e_op_rr(x->e, 0, 0x83, GRP1_AND, H_RAX);
    put8(x->e, 1);
    e_mov_r32_r32(x->e, H_RCX, H_T1);
    e_op_rr(x->e, 0, 0x88, 1, 4);
    put8(x->e, 0x04);
    put8(x->e, 0x7f);
    e_op(x->e, 0, 0x9e);
    e_mov_r32_r32(x->e, H_RAX, H_EA);
}

static void lower_popf(struct xlate *x)
{
    unsigned size = x->in.osize;
    struct guest_ea ea = idiom_ea_stack(x, 0);
    struct hmem m;

    if (x->is_cold) {
        slow_is_callout(x);
        return;
    }
    if (!idiom_access(x, &ea, size, MEM_READ, &m))
        return;
    if (size == 2)
        e_movzx_r32_m16(x->e, H_T1, m);
    else
        e_mov_r32_m32(x->e, H_T1, m);
    idiom_islands(x, 116, true);
    compare_rare_flags(x); /* what flags were is of no interest from here on: the callout can't fault any more */
    if (x->mode & MODE_CPL0)
        set_if(x);
    set_arithmetic_flags(x);
    idiom_esp_add(x, (int32_t)size);
}

/* ---- reading a segment register ------------------------------------------------------------------ */

/* MOV r/m, Sreg: 16 bits to memory whatever the operand size. */
static void lower_mov_from_seg(struct xlate *x)
{
    struct hmem sel = vcpu_mem(SEL_OFS(x->in.reg & 7u)), m;
    struct guest_ea ea;

    if (!x->in.has_mem) {
        if (x->in.osize == 2)
            e_op_rm(x->e, ENC_66, 0x8b, guest_to_host[x->in.rm], sel);
        else
            e_movzx_r32_m16(x->e, guest_to_host[x->in.rm], sel);
        return;
    }
    idiom_ea_of_insn(&x->in, &ea);
    if (!idiom_access(x, &ea, 2, MEM_WRITE, &m))
        return;
    e_movzx_r32_m16(x->e, H_T1, sel);
    e_op_rm(x->e, ENC_66, 0x89, H_T1, m);
}

static void lower_push_seg(struct xlate *x)
{
    unsigned size = x->in.osize, seg = (unsigned)lower_callout_arg(&x->in) & 7u;
    struct guest_ea ea = idiom_ea_stack(x, -(int32_t)size);
    struct hmem m;

    if (!idiom_access(x, &ea, size, MEM_WRITE, &m))
        return;
    e_movzx_r32_m16(x->e, H_T1, vcpu_mem(SEL_OFS(seg)));
    e_op_rm(x->e, size == 2 ? ENC_66 : 0, 0x89, H_T1, m);
    idiom_esp_add(x, -(int32_t)size);
}

/* ---- which are inline ------------------------------------------------------------------------------ */

/* PUSHF and POPF as they stand: not those of virtual-8086 mode; and CPL 1 and 2, where IOPL decides, are rare. */
static bool has_plain_flags(const struct xlate *x)
{
    return !(x->mode & (MODE_VM86 | MODE_STEP)) && (x->mode & MODE_CPL);
}

static lower_fn *inline_form(const struct xlate *x)
{
    bool is_ring0 = (x->mode & MODE_CPL0) && !(x->mode & MODE_VM86);

    switch (x->in.info->callout) {
    case CALLOUT_cli:
        return is_ring0 ? lower_cli : NULL;
    case CALLOUT_sti:
        return is_ring0 && !(x->mode & MODE_STEP) ? lower_sti : NULL;
    case CALLOUT_pushf:
        return has_plain_flags(x) && x->bt->host.bmi2 ? lower_pushf : NULL;
    case CALLOUT_popf:
        return has_plain_flags(x) && x->bt->host.lahf64 ? lower_popf : NULL;
    case CALLOUT_mov_from_seg:
        return lower_mov_from_seg;
    case CALLOUT_push_seg:
        return lower_push_seg;
    default:
        return NULL;
    }
}

void lower_system(struct xlate *x)
{
    lower_fn *fn = x->bt->opt.callouts_only ? NULL : inline_form(x);

    (fn ? fn : lower_callout)(x);
}
