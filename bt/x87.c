/*
 * The x87's last-instruction pointers: FIP, FOP and FDP of the guest.
 *
 * The host keeps such pointers, too, but of its own addresses, and a new processor only keeps
 * some of them and only for some instructions. So translated code notes them in the vCPU. To do
 * so after each x87 instruction would cost; a *run* of them, with nothing between, notes only
 * the last, and the last with a memory operand:
 *
 *     mov  r9, imm64              ; FIP, FOP, segment of the operand
 *     mov  [r15 + x87_fip], r9
 *     lea  r8d, [EA]              ; no register has changed since: x87 instructions change none
 *     mov  [r15 + x87_ea], r8d
 *
 * Control can leave a run in two ways before it gets there. A slow path notes what came before
 * its instruction when it begins, and the instruction itself before it may leave. A host fault
 * finds the run again from the guest's bytes (x87_resolve).
 *
 * Control instructions (FNSTCW, FLDENV, FNCLEX, ...) and WAIT leave the pointers alone; they and
 * everything else end a run.
 *
 * Ref: Intel SDM vol. 1, ch. 8 "x87 FPU Instruction and Data (Operand) Pointers".
 */
#include "bt/bt_internal.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

/* Most bytes of what x87_end_run emits. */
#define RUN_ROOM 48

/* The whole word is written by one store. */
_Static_assert(VCPU_OFS(x87_fop) == VCPU_OFS(x87_fip) + 4 && VCPU_OFS(x87_seg) == VCPU_OFS(x87_fip) + 6,
               "FIP, FOP and the segment are one doubleword and two words");

/* FLDENV FLDCW FNSTENV FNSTCW, FNCLEX FNINIT and the 287's three, FRSTOR FNSAVE FNSTSW. */
static bool is_control(const struct insn *in)
{
    switch (in->opcode) {
    case 0xd9:
        return in->has_mem && in->reg >= 4;
    case 0xdb:
        return !in->has_mem && in->reg == 4;
    case 0xdd:
        return in->has_mem && in->reg >= 4;
    case 0xdf:
        return !in->has_mem && in->reg == 4;
    default:
        return false;
    }
}

static bool sets_pointers(const struct insn *in)
{
    return in->unit == UNIT_X87 && in->map == MAP_1BYTE && in->info->cls == CLASS_INNOCUOUS && !is_control(in);
}

/* The low three bits of the first opcode byte and all of the second; and what goes with them. */
static uint16_t opcode_of(const struct insn *in)
{
    unsigned fop = (in->opcode & 7u) << 8 | (unsigned)in->mod << 6 | (in->reg & 7u) << 3 | (in->rm & 7u);

    return (uint16_t)(fop | X87_NEW | X87_SELECTOR | (in->has_mem ? X87_MEMORY : 0));
}

bool x87_counts(const struct xlate *x)
{
    return sets_pointers(&x->in) && !(x->mode & MODE_FPU_NM) && (x->bt->ops.features >> x->in.info->feature & 1);
}

void x87_note(struct xlate *x)
{
    struct x87_run *run = &x->x87;

    if (!x87_counts(x))
        return;
    if (!run->is_open)
        *run = (struct x87_run){ .is_open = true };
    run->eip = x->eip;
    run->fop = opcode_of(&x->in);
    if (x->in.has_mem) {
        run->has_mem = true;
        idiom_ea_of_insn(&x->in, &run->ea);
    }
}

void x87_put_pointers(struct xlate *x)
{
    const struct x87_run *run = &x->x87;
    uint64_t fop = run->fop, seg = run->ea.seg | X87_NEW | X87_SELECTOR;

    if (!run->is_open)
        return;
    if (!run->has_mem) {
        e_mov_m32_imm32(x->e, vcpu_mem(VCPU_OFS(x87_fip)), run->eip);
        place_note(x, x->e, PLACE_EIP);
        e_mov_r32_imm32(x->e, H_T1, (uint32_t)fop);
        e_op_rm(x->e, ENC_66, 0x89, H_T1, vcpu_mem(VCPU_OFS(x87_fop)));
        return;
    }
    e_mov_r64_imm64(x->e, H_T1, run->eip | fop << 32 | seg << 48);
    place_note_at(x, x->e, x->e->p - 8, PLACE_EIP);
    e_mov_m64_r64(x->e, vcpu_mem(VCPU_OFS(x87_fip)), H_T1);
    idiom_offset(x, &run->ea, H_EA);
    e_mov_m32_r32(x->e, vcpu_mem(VCPU_OFS(x87_ea)), H_EA);
}

void x87_end_run(struct xlate *x)
{
    if (!x->x87.is_open)
        return;
    idiom_islands(x, RUN_ROOM, true);
    x87_put_pointers(x);
    x->x87.is_open = false;
}

/* ---- after a host fault ----------------------------------------------------------------------- */

static bool decode_at(struct bt *bt, const struct ccf *ccf, unsigned index, struct insn *in)
{
    uint64_t pa = ccf->key.pa + ccf->insns[index].guest_ofs;
    hva_t p = mmu_ram_ptr(bt->cpu->mmu, gpa(pa));

    return p.p && decode_insn(p.p, GUEST_PAGE_SIZE - (pa & GUEST_PAGE_MASK), ccf->key.mode & MODE_CODE32, in) ==
                      DECODE_OK;
}

static uint32_t offset_now(const struct vcpu *cpu, const struct insn *in)
{
    uint32_t ofs = in->disp;

    if (in->base != 0xff)
        ofs += cpu->gpr[in->base];
    if (in->index != 0xff)
        ofs += cpu->gpr[in->index] << in->scale_log2;
    return in->asize == 2 ? ofs & 0xffff : ofs;
}

void x87_resolve(struct bt *bt, const struct ccf *ccf, unsigned index)
{
    struct vcpu *cpu = bt->cpu;
    struct insn in;

    if (index == 0)
        return;
    vcpu_fpu_park(cpu); /* the decoder is a library */
    for (unsigned i = index; i-- > 0;) {
        if (!decode_at(bt, ccf, i, &in) || !sets_pointers(&in))
            return;
        if (i == index - 1) {
            cpu->x87_fip = ccf->key.eip + ccf->insns[i].guest_ofs;
            cpu->x87_fop = opcode_of(&in);
        }
        if (in.has_mem) {
            cpu->x87_seg = (uint16_t)(in.seg | X87_NEW | X87_SELECTOR);
            cpu->x87_ea = offset_now(cpu, &in);
            return;
        }
    }
}
