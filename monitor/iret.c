/*
 * IRET in all its forms: to the same or an outer privilege level, to virtual-8086 mode,
 * within real and virtual-8086 mode, and back to the task that a nested one interrupted.
 *
 * Which flags it writes depends on the privilege before the return (CPL against IOPL) and
 * on the operand size: a 16-bit IRET leaves the upper half of EFLAGS, RF with it.
 *
 * Ref: Intel SDM vol. 2, IRET/IRETD; vol. 3A, ch. "8086 Emulation".
 */
#include "monitor/monitor.h"
#include "monitor/transfer.h"

/* What any IRET may write. */
#define FLAGS_ANY (EFL_ARITH | EFL_TF | EFL_DF | EFL_NT)
/* And any IRETD. */
#define FLAGS_32  (EFL_RF | EFL_AC | EFL_ID)

static void flags_write(struct vcpu *cpu, uint32_t fl, uint32_t mask)
{
    vcpu_eflags_set(cpu, (vcpu_eflags_get(cpu) & ~mask) | (fl & mask));
}

/* ---- real and virtual-8086 mode ----------------------------------------------------- */

static enum x86_rc return_real(struct vcpu *cpu, const uint32_t slot[3], unsigned osize, uint32_t mask)
{
    struct segment cs = cpu->segs[SEG_CS];
    enum x86_rc rc;

    cs.sel = (uint16_t)slot[1];
    cs.base = (uint32_t)cs.sel << 4;
    rc = eip_check(cpu, &cs, slot[0], 0);
    if (rc != X86_OK)
        return rc;
    stack_release(cpu, 3 * osize);
    flags_write(cpu, slot[2], mask);
    transfer_enter(cpu, &cs, slot[0], cpu->cpl);
    return X86_OK;
}

/* VME: the virtual IF stands for the real one, and what the monitor must see traps. */
static enum x86_rc return_vme(struct vcpu *cpu, const uint32_t slot[3])
{
    uint32_t fl = slot[2] & 0xffffu;
    enum x86_rc rc;

    if ((fl & EFL_TF) || ((fl & EFL_IF) && (cpu->eflags_sys & EFL_VIP)))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = return_real(cpu, slot, 2, FLAGS_ANY);
    if (rc == X86_OK)
        flags_write(cpu, (fl & EFL_IF) ? EFL_VIF : 0u, EFL_VIF);
    return rc;
}

static enum x86_rc return_in_vm86(struct vcpu *cpu, unsigned osize)
{
    bool is_virtual = vcpu_iopl(cpu) < 3;
    uint32_t slot[3];
    enum x86_rc rc;

    if (is_virtual && !((cpu->cr4 & CR4_VME) && osize == 2))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = stack_peek(cpu, 0, osize, 3, slot);
    if (rc != X86_OK)
        return rc;
    if (is_virtual)
        return return_vme(cpu, slot);
    return return_real(cpu, slot, osize,
                       osize == 4 ? FLAGS_ANY | EFL_IF | FLAGS_32 : FLAGS_ANY | EFL_IF);
}

static enum x86_rc return_in_real(struct vcpu *cpu, unsigned osize)
{
    uint32_t mask = FLAGS_ANY | EFL_IF | EFL_IOPL;
    uint32_t slot[3];
    enum x86_rc rc = stack_peek(cpu, 0, osize, 3, slot);

    if (osize == 4)
        mask |= FLAGS_32;
    return rc == X86_OK ? return_real(cpu, slot, osize, mask) : rc;
}

/* ---- protected mode ---------------------------------------------------------------------- */

/* NT: back to the task in the link field of the current TSS. */
static enum x86_rc return_task(struct vcpu *cpu)
{
    uint16_t link;
    enum x86_rc rc = mmu_read_system(cpu, gva(cpu->tr.base), &link, sizeof link);

    if (rc == X86_OK)
        rc = task_switch_sel(cpu, link, TASK_IRET, 0, cpu->next_eip);
    return rc == X86_OK ? task_finish(cpu, 0) : rc;
}

/*
 *  | GS | FS | DS | ES | SS | ESP | EFLAGS | CS | EIP |   9 doublewords, EIP at ESP
 */
static enum x86_rc return_to_vm86(struct vcpu *cpu)
{
    uint32_t slot[9];
    struct segment cs;
    enum x86_rc rc = stack_peek(cpu, 0, 4, 9, slot);

    if (rc != X86_OK)
        return rc;
    cs = segment_vm86((uint16_t)slot[1]);
    rc = eip_check(cpu, &cs, slot[0], 0);
    if (rc != X86_OK)
        return rc;
    cpu->gpr[ESP] = slot[3];
    vcpu_x87_settle(cpu);
    cpu->segs[SEG_SS] = segment_vm86((uint16_t)slot[4]);
    cpu->segs[SEG_ES] = segment_vm86((uint16_t)slot[5]);
    cpu->segs[SEG_DS] = segment_vm86((uint16_t)slot[6]);
    cpu->segs[SEG_FS] = segment_vm86((uint16_t)slot[7]);
    cpu->segs[SEG_GS] = segment_vm86((uint16_t)slot[8]);
    vcpu_eflags_set(cpu, slot[2]);
    transfer_enter(cpu, &cs, slot[0], 3);
    return X86_OK;
}

/* Flags that an IRET at the present privilege writes. */
static uint32_t return_flags_mask(const struct vcpu *cpu, unsigned osize)
{
    uint32_t mask = FLAGS_ANY;

    if (osize == 4)
        mask |= FLAGS_32;
    if (cpu->cpl <= vcpu_iopl(cpu))
        mask |= EFL_IF;
    if (cpu->cpl == 0)
        mask |= osize == 4 ? EFL_IOPL | EFL_VIF | EFL_VIP : EFL_IOPL;
    return mask;
}

static enum x86_rc return_same(struct vcpu *cpu, const struct segment *cs, const uint32_t slot[3],
                               unsigned osize)
{
    enum x86_rc rc = eip_check(cpu, cs, slot[0], 0);

    if (rc != X86_OK)
        return rc;
    stack_release(cpu, 3 * osize);
    flags_write(cpu, slot[2], return_flags_mask(cpu, osize));
    transfer_enter(cpu, cs, slot[0], cpu->cpl);
    return X86_OK;
}

static enum x86_rc return_outer(struct vcpu *cpu, const struct segment *cs, const uint32_t slot[3],
                                unsigned osize)
{
    unsigned cpl = sel_rpl(cs->sel);
    struct segment ss;
    uint32_t outer[2]; /* ESP, SS */
    enum x86_rc rc = stack_peek(cpu, 3 * osize, osize, 2, outer);

    if (rc == X86_OK)
        rc = stack_segment_check(cpu, (uint16_t)outer[1], cpl, EXC_GP, 0, &ss);
    if (rc == X86_OK)
        rc = eip_check(cpu, cs, slot[0], 0);
    if (rc != X86_OK)
        return rc;
    flags_write(cpu, slot[2], return_flags_mask(cpu, osize)); /* by the privilege we leave */
    vcpu_x87_settle(cpu);
    cpu->segs[SEG_SS] = ss;
    cpu->gpr[ESP] = stack_pointer(&ss, cpu->gpr[ESP], outer[0]);
    data_segments_revoke(cpu, cpl);
    transfer_enter(cpu, cs, slot[0], cpl);
    return X86_OK;
}

enum x86_rc interrupt_return(struct vcpu *cpu, unsigned osize)
{
    struct segment cs;
    uint32_t slot[3]; /* EIP, CS, EFLAGS */
    enum x86_rc rc;

    if (osize == 4 && shortcut_iret(cpu))
        return X86_OK;
    if (!(cpu->cr0 & CR0_PE))
        return return_in_real(cpu, osize);
    if (cpu->eflags_sys & EFL_VM)
        return return_in_vm86(cpu, osize);
    if (cpu->eflags_sys & EFL_NT)
        return return_task(cpu);
    rc = stack_peek(cpu, 0, osize, 3, slot);
    if (rc != X86_OK)
        return rc;
    if (osize == 4 && (slot[2] & EFL_VM) && cpu->cpl == 0)
        return return_to_vm86(cpu);
    rc = return_code_check(cpu, (uint16_t)slot[1], &cs);
    if (rc != X86_OK)
        return rc;
    if (sel_rpl(cs.sel) > cpu->cpl)
        return return_outer(cpu, &cs, slot, osize);
    return return_same(cpu, &cs, slot, osize);
}
