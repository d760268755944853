/*
 * Idioms: what the lowerings are built of.
 *
 * A guest memory access in the *checked form* looks its page up in the view's table and
 * adds the slot (host address minus guest address) to the guest address:
 *
 *     lea   r8d, [EA]                  ; omitted when EA is one register
 *     lea   r10d, [EA + size - 1]      ; the last byte; omitted for bytes
 *     shrx  r9d, r8d, r11d             ; r11d = 12
 *     shrx  r10d, r10d, r11d
 *     lea   r9d, [r9 + r10]            ; 2 * page, odd if the access crosses: always empty
 *     mov   rcx, [r14 + r9*8 (+ STORE)]
 *     jrcxz slow                       ; by way of an island within its reach
 *     op    ..., [rcx + r8]
 *
 * No flag is touched. Every access of an instruction is checked before its first effect, so
 * `slow` simply starts the instruction again in its slow path: the same lowering emitted a
 * second time in the cold part, where each check is a call to the monitor.
 */
#include "bt/bt_internal.h"

#include "base/assert.h"
#include "base/string.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

struct hmem vcpu_mem(size_t offset)
{
    return hmem_base(H_VCPU, (int32_t)offset);
}

/* ---- addresses -------------------------------------------------------------------------- */

void idiom_ea_of_insn(const struct insn *in, struct guest_ea *ea)
{
    *ea = (struct guest_ea){
        .seg = in->seg,
        .base = in->base == 0xff ? H_NONE : (enum host_reg)guest_to_host[in->base],
        .index = in->index == 0xff ? H_NONE : (enum host_reg)guest_to_host[in->index],
        .scale_log2 = in->scale_log2,
        .disp = in->disp,
        .asize = in->asize,
    };
}

struct guest_ea idiom_ea_reg(enum seg_id seg, enum host_reg base, uint8_t asize)
{
    return (struct guest_ea){ .seg = (uint8_t)seg, .base = base, .index = H_NONE, .asize = asize };
}

struct guest_ea idiom_ea_stack(const struct xlate *x, int32_t disp)
{
    return (struct guest_ea){ .seg = SEG_SS, .base = H_ESP, .index = H_NONE, .disp = (uint32_t)disp,
                              .asize = x->mode & MODE_STACK32 ? 4 : 2 };
}

static struct hmem ea_expression(const struct guest_ea *ea, uint32_t more)
{
    return (struct hmem){ .base = ea->base, .index = ea->index, .scale_log2 = ea->scale_log2,
                          .disp = (int32_t)(ea->disp + more), .wide = ea->disp_varies };
}

void idiom_offset(struct xlate *x, const struct guest_ea *ea, enum host_reg to)
{
    if (ea->base == H_NONE && ea->index == H_NONE)
        e_mov_r32_imm32(x->e, to, ea->asize == 2 ? ea->disp & 0xffff : ea->disp);
    else if (ea->index == H_NONE && ea->disp == 0 && ea->asize == 2)
        e_movzx_r32_r16(x->e, to, ea->base);
    else {
        e_lea_r32(x->e, to, ea_expression(ea, 0));
        if (ea->asize == 2)
            e_movzx_r32_r16(x->e, to, to);
    }
    if (ea->disp_varies) /* only where the address has 32 bits: nothing follows it */
        patch_note_disp(x);
}

enum seg_form { SEG_FLAT, SEG_BASED, SEG_64K, SEG_CHECKED, SEG_IF_PLAIN };

/* How an access through a segment can be emitted under the mode at hand. */
static enum seg_form seg_form(const struct xlate *x, unsigned seg, unsigned access)
{
    static const uint32_t flat[SEG_COUNT] = { MODE_ES_FLAT, MODE_CS_FLAT, MODE_SS_FLAT, MODE_DS_FLAT, 0, 0 };
    static const uint32_t based[SEG_COUNT] = { MODE_ES_BASED, 0, MODE_SS_BASED, MODE_DS_BASED, 0, 0 };
    static const uint32_t limited[SEG_COUNT] = { MODE_ES_64K, MODE_CS_64K, MODE_SS_64K, MODE_DS_64K, MODE_FS_64K,
                                                 MODE_GS_64K };

    if (x->mode & MODE_ALIGN)
        return SEG_CHECKED;
    if (x->mode & flat[seg])
        return seg == SEG_CS && (access & MEM_WRITE) ? SEG_CHECKED : SEG_FLAT;
    if (x->mode & based[seg])
        return SEG_BASED;
    if (seg >= SEG_FS && !(x->mode & limited[seg]))
        return x->is_cold ? SEG_CHECKED : SEG_IF_PLAIN;
    if (!(x->mode & limited[seg]) || (seg == SEG_CS && (access & MEM_WRITE)))
        return SEG_CHECKED;
    return x->bt->host.bmi2 && !x->is_cold ? SEG_64K : SEG_CHECKED;
}

/* ---- islands ------------------------------------------------------------------------------ */

/* One jump for all pending JRCXZ of the same instruction. */
static void island(struct xlate *x, unsigned from, unsigned to)
{
    unsigned insn = x->pending[from].insn;

    for (unsigned i = from; i < to; i++)
        if (!x->hot.overflow)
            e_patch8(x->pending[i].at, x->hot.p);
    if (x->cold_of[insn]) {
        e_jmp32_to(&x->hot, x->cold_of[insn]);
        place_note(x, &x->hot, PLACE_BRANCH);
    } else {
        ASSERT(x->nunresolved < XL_MAX_PENDING);
        x->unresolved[x->nunresolved++] = e_jmp32_fwd(&x->hot);
    }
}

void idiom_islands(struct xlate *x, unsigned room, bool falls_through)
{
    uint8_t *over = NULL;

    if (!x->npending)
        return;
    /* each island takes five bytes, the jump over them two */
    if (falls_through && x->hot.p + room + 5 * x->npending + 2 - x->pending[0].at < 127)
        return;
    if (falls_through)
        over = e_jmp8_fwd(&x->hot);
    for (unsigned i = 0, k; i < x->npending; i = k) {
        for (k = i + 1; k < x->npending && x->pending[k].insn == x->pending[i].insn; k++)
            ;
        island(x, i, k);
    }
    x->npending = 0;
    if (over && !x->hot.overflow)
        e_patch8(over, x->hot.p);
}

void idiom_jrcxz_slow(struct xlate *x)
{
    ASSERT(!x->is_cold && x->npending < XL_MAX_PENDING);
    x->has_slow = true;
    x->pending[x->npending].insn = (uint8_t)x->d->ninsns;
    x->pending[x->npending++].at = e_jrcxz_fwd(&x->hot);
}

void idiom_resolve_slow(struct xlate *x)
{
    for (unsigned i = 0; i < x->nunresolved; i++)
        if (!x->hot.overflow && !x->cold.overflow) {
            e_patch32(x->unresolved[i], x->cold_of[x->d->ninsns]);
            place_note_at(x, &x->hot, x->unresolved[i], PLACE_BRANCH);
        }
    x->nunresolved = 0;
}

/* ---- accesses -------------------------------------------------------------------------------- */

void idiom_shift_right(struct xlate *x, enum host_reg to, enum host_reg from, unsigned count)
{
    if (x->bt->host.bmi2) {
        ASSERT(count == 12);
        e_shrx_r32(x->e, to, from, H_TWELVE);
        return;
    }
    if (to != from)
        e_mov_r32_r32(x->e, to, from);
    e_pushfq(x->e);
    e_op_rr(x->e, 0, 0xc1, 5, to); /* shr to, count */
    put8(x->e, count);
    e_popfq(x->e);
}

/* Two shifts under one PUSHFQ on hosts without BMI2. */
static void page_sum(struct xlate *x, enum host_reg ea)
{
    if (x->bt->host.bmi2) {
        e_shrx_r32(x->e, H_T1, ea, H_TWELVE);
        e_shrx_r32(x->e, H_T2, H_T2, H_TWELVE);
    } else {
        e_mov_r32_r32(x->e, H_T1, ea);
        e_pushfq(x->e);
        e_op_rr(x->e, 0, 0xc1, 5, H_T1);
        put8(x->e, 12);
        e_op_rr(x->e, 0, 0xc1, 5, H_T2);
        put8(x->e, 12);
        e_popfq(x->e);
    }
    e_lea_r32(x->e, H_T1, hmem_index(H_T1, H_T2, 0, 0));
}

/* Table lookup for the address in `ea`; `last` gives its last byte when the access is wider. */
static void check(struct xlate *x, enum host_reg ea, struct hmem last, unsigned size, unsigned access)
{
    uint32_t table = access & MEM_WRITE ? VIEW_STORE_OFS : VIEW_LOAD_OFS;

    idiom_islands(x, 76, true);
    if (size == 1) {
        idiom_shift_right(x, H_T1, ea, 12);
        e_lea_r32(x->e, H_T1, hmem_index(H_T1, H_T1, 0, 0));
    } else {
        e_lea_r32(x->e, H_T2, last);
        page_sum(x, ea);
    }
    e_mov_r64_m64(x->e, H_ADDR, hmem_index(H_VIEW, H_T1, 3, (int32_t)table));
    idiom_jrcxz_slow(x);
}

/* All 16-byte operands must be aligned but those of MOVUPS, MOVUPD and MOVDQU. */
static bool wants_alignment(const struct insn *in)
{
    if (in->map != MAP_0F)
        return false;
    if ((in->opcode & ~1u) == 0x10)
        return false;
    return (in->opcode & ~0x10u) != 0x6f || in->rep == REP_NONE;
}

/* What an instruction would fault for before it looks at its operand. */
static uint32_t faults_before_page(const struct insn *in, unsigned size)
{
    switch ((enum insn_unit)in->unit) {
    case UNIT_SSE: /* conversions to MMX registers wait as well */
        return (size == 16 && wants_alignment(in) ? MD_ALIGNED : 0) | (in->reg_kind == RK_MMX ? MD_WAITS : 0);
    case UNIT_X87: /* FNSTENV FNSTCW, FNSAVE FNSTSW neither wait nor convert */
        if ((in->opcode == 0xd9 || in->opcode == 0xdd) && in->reg >= 6)
            return 0;
        if (!(in->mem_access & MEM_WRITE))
            return MD_WAITS;
        return MD_WAITS | MD_X87_STORE | (uint32_t)MD_X87_FORM(in->opcode, in->reg) << MD_X87_SHIFT;
    case UNIT_MMX:
        return MD_WAITS;
    case UNIT_INT:
    case UNIT_WAIT:
        break;
    }
    return 0;
}

/* The slow pass: ask the monitor. R8 holds the address (an offset if the segment needs a check). */
static void ask(struct xlate *x, unsigned seg, unsigned size, unsigned access, bool check_segment)
{
    uint32_t desc = size | (access & MEM_WRITE ? MD_WRITE : 0) | (access & MEM_READ ? MD_READ : 0) |
                    seg << MD_SEG_SHIFT | (check_segment ? MD_CHECK : 0) | faults_before_page(&x->in, size);

    e_mov_r32_imm32(x->e, H_T1, desc);
    e_call_m64(x->e, vcpu_mem(VCPU_OFS(stub_mem_slow)));
    if (access & MEM_WRITE)
        x->stores = true;
}

static bool can_window(const struct xlate *x)
{
    return x->use_window && !x->is_cold && !x->no_window;
}

/* The operand as it stands, in the window: the host's MMU does the look-up, and a miss is a
 * signal that finds the slow path by itself. */
static void window_operand(struct xlate *x, const struct guest_ea *ea, bool is_based, struct hmem *m)
{
    x->has_slow = true;
    if (ea->asize == 4 && !is_based) {
        *m = ea_expression(ea, 0);
    } else {
        idiom_offset(x, ea, H_EA);
        if (is_based) {
            e_mov_r32_m32(x->e, H_T1, vcpu_mem(VCPU_OFS(seg_base) + 4 * ea->seg));
            e_lea_r32(x->e, H_EA, hmem_index(H_EA, H_T1, 0, 0));
        }
        *m = hmem_base(H_EA, 0);
    }
    m->window = true;
}

/*  lea   r9, [r8 + size - 1 - 65536]  ; negative when the last byte lies within 64 KiB
 *  mov   r10d, 32
 *  shrx  rcx, r9, r10
 *  jrcxz slow                                                                       */
static void check_64k(struct xlate *x, const struct guest_ea *ea, unsigned size)
{
    if (ea->asize == 2 && size == 1)
        return;
    idiom_islands(x, 48, true);
    e_lea_r64(x->e, H_T1, hmem_base(H_EA, (int32_t)size - 1 - 65536));
    e_mov_r32_imm32(x->e, H_T2, 32);
    e_shrx_r64(x->e, H_ADDR, H_T1, H_T2);
    idiom_jrcxz_slow(x);
}

/* FS and GS change too often (in every system call of Linux) for the mode word to say what they are like:
 *  mov   ecx, [r15 + seg_plain]   ; a base at most: else segment_linear decides
 *  jrcxz slow  */
static void require_plain(struct xlate *x, unsigned seg)
{
    idiom_islands(x, 24, true);
    e_mov_r32_m32(x->e, H_ADDR, vcpu_mem(VCPU_OFS(seg_plain) + 4 * (seg - SEG_FS)));
    idiom_jrcxz_slow(x);
}

bool idiom_access(struct xlate *x, const struct guest_ea *ea, unsigned size, unsigned access, struct hmem *m)
{
    enum seg_form form = seg_form(x, ea->seg, access);
    bool is_one_reg = ea->base != H_NONE && ea->index == H_NONE && ea->disp == 0 && ea->asize == 4 &&
                      !ea->disp_varies;
    enum host_reg reg = H_EA;

    if (form == SEG_IF_PLAIN) {
        require_plain(x, ea->seg);
        form = SEG_BASED;
    }
    if (form <= SEG_BASED && can_window(x)) {
        idiom_islands(x, 72, true); /* what FS or GS left pending, here or in instructions before */
        window_operand(x, ea, form == SEG_BASED, m);
        return true;
    }
    if (form == SEG_CHECKED && !x->is_cold) {
        x->has_slow = x->is_slow_only = true;
        ASSERT(x->nunresolved < XL_MAX_PENDING);
        x->unresolved[x->nunresolved++] = e_jmp32_fwd(x->e);
        return false;
    }
    if (form == SEG_FLAT && is_one_reg && !x->is_cold)
        reg = ea->base;
    else
        idiom_offset(x, ea, H_EA);
    if (form == SEG_64K)
        check_64k(x, ea, size);
    if (form == SEG_BASED || form == SEG_64K) {
        e_mov_r32_m32(x->e, H_T1, vcpu_mem(VCPU_OFS(seg_base) + 4 * ea->seg));
        e_lea_r32(x->e, H_EA, hmem_index(H_EA, H_T1, 0, 0));
    }
    if (x->is_cold)
        ask(x, ea->seg, size, access, form == SEG_CHECKED);
    else
        check(x, reg,
              form == SEG_FLAT && ea->asize == 4 && !ea->disp_varies && (ea->base != H_NONE || ea->index != H_NONE)
                  ? ea_expression(ea, size - 1)
                  : hmem_base(reg, (int32_t)size - 1),
              size, access);
    *m = hmem_index(H_ADDR, reg, 0, 0);
    return true;
}

/* ---- state ------------------------------------------------------------------------------------ */

void idiom_esp_add(struct xlate *x, int32_t n)
{
    if (x->mode & MODE_STACK32) {
        e_lea_r32(x->e, H_ESP, hmem_base(H_ESP, n));
        return;
    }
    e_lea_r32(x->e, H_T1, hmem_base(H_ESP, n));
    e_op_rr(x->e, ENC_66, 0x89, H_T1, H_ESP); /* mov r12w, r9w: the upper half stays */
}

void idiom_store_eip(struct xlate *x)
{
    e_mov_m32_imm32(x->e, vcpu_mem(VCPU_OFS(eip)), x->eip);
    place_note(x, x->e, PLACE_EIP);
    e_mov_m32_imm32(x->e, vcpu_mem(VCPU_OFS(next_eip)), x->next_eip);
    place_note(x, x->e, PLACE_EIP);
}

void idiom_callout(struct xlate *x, enum callout_id id, uint64_t arg)
{
    x->callout = (uint8_t)id;
    idiom_store_eip(x);
    e_mov_r64_imm64(x->e, H_T1, arg);
    e_mov_r32_imm32(x->e, H_T2, id);
    e_call_m64(x->e, vcpu_mem(VCPU_OFS(stub_callout)));
}

/* After a callout that never resumes inline: if one did, this is better than what follows. */
void idiom_never(struct xlate *x)
{
    e_op(x->e, ENC_0F, 0x0b); /* ud2 */
}

void idiom_exit(struct xlate *x, struct emit *e, enum exit_reason reason, uint32_t eip)
{
    e_mov_m32_imm32(e, vcpu_mem(VCPU_OFS(eip)), eip);
    place_note(x, e, PLACE_EIP);
    e_mov_r32_imm32(e, H_T1, reason);
    e_jmp_m64(e, vcpu_mem(VCPU_OFS(stub_exit)));
}

/*  mov   ecx, [r15 + mem_bounced]  ; a device or traced page: the store is still to be done
 *  jrcxz done
 *  call  [r15 + stub_mem_done]     ; may leave to the dispatcher at next_eip
 * done:                                                                              */
static void complete_store(struct xlate *x)
{
    if (!x->stores)
        return;
    if (x->has_target_in_ea)
        e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(next_eip)), H_EA);
    e_mov_r32_m32(x->e, H_ADDR, vcpu_mem(VCPU_OFS(mem_bounced)));
    uint8_t *done = e_jrcxz_fwd(x->e);
    e_call_m64(x->e, vcpu_mem(VCPU_OFS(stub_mem_done)));
    if (!x->e->overflow)
        e_patch8(done, x->e->p);
}

/* Flat code has no limit; one of 64 KiB or more does not concern targets of 16 bits. */
static bool has_code_limit(const struct xlate *x)
{
    return !(x->mode & MODE_CS_FLAT) && !(x->in.osize == 2 && x->cpu->segs[SEG_CS].limit >= 0xffffu);
}

#define TRANSFER_ROOM 48u /* bytes of a transfer with its landing */

bool idiom_join_before_transfer(struct xlate *x)
{
    if (!x->is_cold) {
        if (has_code_limit(x)) /* the call behind it is no access that would look after the islands */
            idiom_islands(x, TRANSFER_ROOM, true);
        x->tail = x->hot.p;
        return true;
    }
    complete_store(x);
    /* A fast path that is only a jump has no tail to join: the transfer follows here. */
    if (x->is_slow_only)
        return true;
    e_jmp32_to(x->e, x->tail);
    place_note(x, x->e, PLACE_BRANCH);
    return false;
}

void idiom_finish_slow(struct xlate *x)
{
    complete_store(x);
    e_jmp32_to(x->e, x->hot.p);
    place_note(x, x->e, PLACE_BRANCH);
}

/* ---- transfers ---------------------------------------------------------------------------------- */

#define JT_SLOT(eip) ((int32_t)(VIEW_JT_OFS + ((eip) & (VIEW_JT_ENTRIES - 1)) * 8))

static bool by_dispatcher(const struct xlate *x)
{
    return x->mode & MODE_STEP;
}

static bool same_page(const struct xlate *x, uint32_t target)
{
    return !x->straddles && target - x->page_eip < GUEST_PAGE_SIZE;
}

bool idiom_target_faults(const struct xlate *x, uint32_t target)
{
    return has_code_limit(x) && target > x->cpu->segs[SEG_CS].limit;
}

/* May the exit be chained? The kernel's pages are mapped alike in all address spaces (the
 * dispatcher makes sure of it), a program's are not. Code in a segment with a base or limit, whose EIP
 * is no address, is chained within its page alone. */
static bool can_link(const struct xlate *x, uint32_t target)
{
    if (by_dispatcher(x) || x->d->nlinks >= CCF_MAX_LINKS || idiom_target_faults(x, target))
        return false;
    return same_page(x, target) || (!x->straddles && (x->mode & MODE_CPL0) && (x->mode & MODE_CS_FLAT));
}

static void put_table_jump(struct xlate *x, struct emit *e, uint32_t target)
{
    e_mov_r32_imm32(e, H_EA, target);
    place_note(x, e, PLACE_EIP);
    e_jmp_m64(e, hmem_base(H_VIEW, JT_SLOT(target)));
    place_note(x, e, PLACE_SLOT);
}

/* The two ways a direct exit can take besides its chain, in the cold part. */
static void put_continuations(struct xlate *x, struct ccf_link *link)
{
    struct emit *e = &x->cold;

    link->unchained_ofs = (uint32_t)(e->p - e->start);
    e_mov_m32_imm32(e, vcpu_mem(VCPU_OFS(eip)), link->target_eip);
    place_note(x, e, PLACE_EIP);
    e_mov_r32_imm32(e, H_T1, tcache_next_link_handle(x->cpu->tc, x->d->nlinks));
    place_note(x, e, PLACE_HANDLE);
    e_jmp_m64(e, vcpu_mem(VCPU_OFS(stub_chain)));
    link->table_ofs = (uint32_t)(e->p - e->start);
    put_table_jump(x, e, link->target_eip);
}

/* `at`: rel32 in the hot part of a branch to `target`. */
static void put_link(struct xlate *x, uint8_t *at, uint32_t target)
{
    struct ccf_link *link = &x->d->links[x->d->nlinks];

    *link = (struct ccf_link){ .patch_ofs = (uint32_t)(at - x->hot.start), .target_eip = target,
                               .poll = target <= x->eip };
    put_continuations(x, link);
    x->d->nlinks++;
    if (!x->hot.overflow && !x->cold.overflow)
        e_patch32(at, x->cold.start + link->unchained_ofs);
}

void idiom_raise_gp0(struct xlate *x)
{
    idiom_callout(x, CALLOUT_raise_gp0, x->in.unit);
    idiom_never(x);
}

#define CHECK_TARGET_ROOM 96u /* bytes, the store after it included */

void idiom_check_target(struct xlate *x)
{
    if (!has_code_limit(x))
        return;
    if (!x->is_cold) /* between an access and the next one: its slow way may be too far by then */
        idiom_islands(x, CHECK_TARGET_ROOM, true);
    e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(tmp)), H_EA);
    idiom_callout(x, CALLOUT_check_branch, 0);
    e_mov_r32_m32(x->e, H_EA, vcpu_mem(VCPU_OFS(tmp)));
}

static void put_transfer_by_address(struct emit *e, struct xlate *x, uint32_t target)
{
    if (idiom_target_faults(x, target)) {
        struct emit *part = x->e;

        x->e = e;
        idiom_raise_gp0(x);
        x->e = part;
        return;
    }
    if (by_dispatcher(x)) {
        idiom_exit(x, e, EXIT_DISPATCH, target);
        return;
    }
    put_table_jump(x, e, target);
}

/* A branch in the hot part whose other end is a transfer in the cold part. */
static void put_far_end(struct xlate *x, uint8_t *at, uint32_t target)
{
    if (can_link(x, target)) {
        put_link(x, at, target);
        return;
    }
    if (!x->hot.overflow && !x->cold.overflow) {
        e_patch32(at, x->cold.p);
        place_note_at(x, &x->hot, at, PLACE_BRANCH);
    }
    put_transfer_by_address(&x->cold, x, target);
}

void idiom_jump(struct xlate *x, uint32_t target)
{
    if (!x->is_cold && can_link(x, target))
        put_link(x, e_jmp32_fwd(&x->hot), target);
    else
        put_transfer_by_address(x->e, x, target);
}

void idiom_jump_by_table(struct xlate *x, uint32_t target)
{
    put_transfer_by_address(x->e, x, target);
}

void idiom_jump_if(struct xlate *x, unsigned cc, uint32_t target)
{
    ASSERT(!x->is_cold);
    put_far_end(x, e_jcc32_fwd(&x->hot, cc), target);
}

void idiom_jump_indirect(struct xlate *x)
{
    if (by_dispatcher(x)) {
        e_jmp_m64(x->e, vcpu_mem(VCPU_OFS(stub_jt_miss)));
        return;
    }
    e_movzx_r32_r16(x->e, H_T1, H_EA);
    e_jmp_m64(x->e, hmem_index(H_VIEW, H_T1, 3, (int32_t)VIEW_JT_OFS));
}

/*  lea   ecx, [r8 - return_eip]    ; R8 is what the guest's RET found on its stack
 *  jrcxz here
 *  jmp   [r15 + stub_jt_probe]
 * here:                                                                            */
static void landing(struct xlate *x, uint32_t return_eip)
{
    e_lea_r32(x->e, H_ADDR, hmem_base(H_EA, (int32_t)(0 - return_eip)));
    place_note(x, x->e, PLACE_NEG_EIP);
    uint8_t *here = e_jrcxz_fwd(x->e);
    e_jmp_m64(x->e, vcpu_mem(VCPU_OFS(stub_jt_probe)));
    if (!x->e->overflow)
        e_patch8(here, x->e->p);
}

/* A landing must lie where its address can be trusted: in the same page as the call. */
static bool can_land(const struct xlate *x)
{
    return !by_dispatcher(x) && !x->is_cold && same_page(x, x->next_eip) && !x->bt->opt.icount;
}

void idiom_call(struct xlate *x, uint32_t target)
{
    if (!can_land(x)) {
        idiom_jump(x, target);
        x->ends = true;
        return;
    }
    if (can_link(x, target)) {
        put_link(x, e_call32_fwd(&x->hot), target);
    } else {
        e_mov_r32_imm32(x->e, H_EA, target);
        place_note(x, x->e, PLACE_EIP);
        e_call_m64(x->e, hmem_base(H_VIEW, JT_SLOT(target)));
        place_note(x, x->e, PLACE_SLOT);
    }
    landing(x, x->next_eip);
}

void idiom_call_indirect(struct xlate *x)
{
    if (!can_land(x)) {
        idiom_jump_indirect(x);
        x->ends = true;
        return;
    }
    e_movzx_r32_r16(x->e, H_T1, H_EA);
    e_call_m64(x->e, hmem_index(H_VIEW, H_T1, 3, (int32_t)VIEW_JT_OFS));
    landing(x, x->next_eip);
}

void idiom_return(struct xlate *x)
{
    if (by_dispatcher(x))
        e_jmp_m64(x->e, vcpu_mem(VCPU_OFS(stub_jt_miss)));
    else
        e_ret(x->e);
}
