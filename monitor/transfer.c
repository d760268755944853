/*
 * Far transfers: JMP, CALL and RET between code segments, through call gates, into tasks.
 *
 * Each works out where it goes (a struct segment for CS, an EIP, a privilege) with the
 * checks in the SDM's order, writes its stack frame as one, and commits last. Real and
 * virtual-8086 mode share one short branch each.
 *
 * Ref: Intel SDM vol. 2, CALL, JMP, RET; vol. 3A, ch. "Protection".
 */
#include "monitor/transfer.h"
#include "base/string.h"
#include "monitor/monitor.h"

void transfer_enter(struct vcpu *cpu, const struct segment *cs, uint32_t eip, unsigned cpl)
{
    bool other_view = (cpl == 3) != (cpu->cpl == 3);

    vcpu_x87_settle(cpu);
    cpu->segs[SEG_CS] = *cs;
    cpu->eip = eip;
    cpu->cpl = (uint8_t)cpl;
    vcpu_update_mode(cpu);
    if (other_view)
        mmu_select_view(cpu);
}

/* ---- real and virtual-8086 mode --------------------------------------------------- */

/* CS as those modes load it. */
static struct segment code_real(const struct vcpu *cpu, uint16_t sel)
{
    struct segment cs = cpu->segs[SEG_CS];

    cs.sel = sel;
    cs.base = (uint32_t)sel << 4;
    return cs;
}

static enum x86_rc jump_real(struct vcpu *cpu, uint16_t sel, uint32_t eip)
{
    struct segment cs = code_real(cpu, sel);

    if (eip > cs.limit)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    transfer_enter(cpu, &cs, eip, cpu->cpl);
    return X86_OK;
}

/* ---- what the transfers share --------------------------------------------------------- */

/* Same-privilege target of JMP and CALL, not through a gate. */
static enum x86_rc direct_code_check(struct vcpu *cpu, uint16_t sel, const struct desc *d)
{
    if (desc_is_conforming(d)) {
        if (desc_dpl(d) > cpu->cpl)
            return raise_sel(cpu, EXC_GP, sel, 0);
    } else if (sel_rpl(sel) > cpu->cpl || desc_dpl(d) != cpu->cpl) {
        return raise_sel(cpu, EXC_GP, sel, 0);
    }
    if (!desc_is_present(d))
        return raise_sel(cpu, EXC_NP, sel, 0);
    return X86_OK;
}

/* The new CS of a checked descriptor: RPL becomes the privilege it runs with. */
static enum x86_rc code_load(struct vcpu *cpu, uint16_t sel, struct desc *d, unsigned cpl, struct segment *cs)
{
    enum x86_rc rc = desc_touch(cpu, d);

    *cs = desc_segment(d, (uint16_t)((sel & ~SEL_RPL) | cpl));
    return rc;
}

/* DPL and presence of a call gate, task gate or TSS that JMP or CALL names. */
static enum x86_rc gate_check(struct vcpu *cpu, uint16_t sel, const struct desc *d)
{
    if (desc_dpl(d) < cpu->cpl || desc_dpl(d) < sel_rpl(sel))
        return raise_sel(cpu, EXC_GP, sel, 0);
    return X86_OK;
}

/* Code segment behind a call gate. A CALL may go inwards, a JMP may not. */
static enum x86_rc gate_code_fetch(struct vcpu *cpu, uint16_t sel, bool is_call, struct desc *d)
{
    enum x86_rc rc;

    if (sel_is_null(sel))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = desc_fetch(cpu, sel, EXC_GP, 0, d);
    if (rc != X86_OK)
        return rc;
    if (!desc_is_code(d) || desc_dpl(d) > cpu->cpl)
        return raise_sel(cpu, EXC_GP, sel, 0);
    if (!is_call && !desc_is_conforming(d) && desc_dpl(d) != cpu->cpl)
        return raise_sel(cpu, EXC_GP, sel, 0);
    if (!desc_is_present(d))
        return raise_sel(cpu, EXC_NP, sel, 0);
    return X86_OK;
}

static uint32_t gate_eip(const struct desc *gate, unsigned width)
{
    return width == 4 ? gate_offset32(gate) : gate_offset32(gate) & 0xffffu;
}

enum x86_rc tss_stack(struct vcpu *cpu, unsigned cpl, unsigned ext, struct segment *ss, uint32_t *sp)
{
    unsigned width = (cpu->tr.attr & 8u) ? 4 : 2; /* of the stack pointer */
    uint32_t ofs = cpl * 2 * width + width;
    uint16_t sel;
    enum x86_rc rc;

    if (!(cpu->tr.attr & DESC_P) || ofs + width + 1 > cpu->tr.limit)
        return raise_sel(cpu, EXC_TS, cpu->tr.sel, ext);
    *sp = 0;
    rc = mmu_read_system(cpu, gva(cpu->tr.base + ofs), sp, width);
    if (rc == X86_OK)
        rc = mmu_read_system(cpu, gva(cpu->tr.base + ofs + width), &sel, 2);
    if (rc != X86_OK)
        return rc;
    return stack_segment_check(cpu, sel, cpl, EXC_TS, ext, ss);
}

/* ---- JMP --------------------------------------------------------------------------------- */

static enum x86_rc jump_code(struct vcpu *cpu, uint16_t sel, struct desc *d, uint32_t eip)
{
    struct segment cs;
    enum x86_rc rc = direct_code_check(cpu, sel, d);

    if (rc == X86_OK)
        rc = code_load(cpu, sel, d, cpu->cpl, &cs);
    if (rc == X86_OK)
        rc = eip_check(cpu, &cs, eip, 0);
    if (rc == X86_OK)
        transfer_enter(cpu, &cs, eip, cpu->cpl);
    return rc;
}

static enum x86_rc jump_gate(struct vcpu *cpu, uint16_t sel, const struct desc *gate, unsigned width)
{
    uint32_t eip = gate_eip(gate, width);
    struct segment cs;
    struct desc d;
    enum x86_rc rc = gate_check(cpu, sel, gate);

    if (rc != X86_OK)
        return rc;
    if (!desc_is_present(gate))
        return raise_sel(cpu, EXC_NP, sel, 0);
    rc = gate_code_fetch(cpu, gate_sel(gate), false, &d);
    if (rc == X86_OK)
        rc = code_load(cpu, gate_sel(gate), &d, cpu->cpl, &cs);
    if (rc == X86_OK)
        rc = eip_check(cpu, &cs, eip, 0);
    if (rc == X86_OK)
        transfer_enter(cpu, &cs, eip, cpu->cpl);
    return rc;
}

/* JMP or CALL to a TSS or through a task gate. */
static enum x86_rc transfer_task(struct vcpu *cpu, uint16_t sel, struct desc *d, enum task_cause cause)
{
    enum x86_rc rc = gate_check(cpu, sel, d);

    if (rc != X86_OK)
        return rc;
    if (desc_sys_type(d) != SYS_TASK_GATE) {
        rc = task_switch(cpu, sel, d, cause, 0, cpu->next_eip);
    } else if (!desc_is_present(d)) {
        return raise_sel(cpu, EXC_NP, sel, 0);
    } else {
        rc = task_switch_sel(cpu, gate_sel(d), cause, 0, cpu->next_eip);
    }
    return rc == X86_OK ? task_finish(cpu, 0) : rc;
}

enum x86_rc far_jump(struct vcpu *cpu, uint16_t sel, uint32_t off, unsigned osize)
{
    uint32_t eip = osize == 2 ? off & 0xffffu : off;
    struct desc d;
    enum x86_rc rc;

    if (!vcpu_is_protected(cpu))
        return jump_real(cpu, sel, eip);
    if (sel_is_null(sel))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = desc_fetch(cpu, sel, EXC_GP, 0, &d);
    if (rc != X86_OK)
        return rc;
    if (desc_is_code(&d))
        return jump_code(cpu, sel, &d, eip);
    switch (desc_sys_type(&d)) {
    case SYS_CALL16:
        return jump_gate(cpu, sel, &d, 2);
    case SYS_CALL32:
        return jump_gate(cpu, sel, &d, 4);
    case SYS_TASK_GATE:
    case SYS_TSS16_AVAIL:
    case SYS_TSS16_BUSY:
    case SYS_TSS32_AVAIL:
    case SYS_TSS32_BUSY:
        return transfer_task(cpu, sel, &d, TASK_JMP);
    }
    return raise_sel(cpu, EXC_GP, sel, 0);
}

/* ---- CALL -------------------------------------------------------------------------------- */

static void frame_return(const struct vcpu *cpu, struct frame *f)
{
    frame_add(f, cpu->segs[SEG_CS].sel);
    frame_add(f, cpu->next_eip);
}

/* Push CS:EIP on the current stack and go to `cs`, at the same privilege. */
static enum x86_rc call_same(struct vcpu *cpu, const struct segment *cs, uint32_t eip, unsigned width)
{
    struct stack st = stack_current(cpu, 0);
    struct frame f;
    enum x86_rc rc;

    frame_begin(&f, width);
    frame_return(cpu, &f);
    rc = stack_check(cpu, &st, &f);
    if (rc == X86_OK)
        rc = eip_check(cpu, cs, eip, 0);
    if (rc == X86_OK)
        rc = stack_write(cpu, &st, &f);
    if (rc != X86_OK)
        return rc;
    cpu->gpr[ESP] = st.sp;
    transfer_enter(cpu, cs, eip, cpu->cpl);
    return X86_OK;
}

static enum x86_rc call_code(struct vcpu *cpu, uint16_t sel, struct desc *d, uint32_t eip, unsigned osize)
{
    struct segment cs;
    enum x86_rc rc = direct_code_check(cpu, sel, d);

    if (rc == X86_OK)
        rc = code_load(cpu, sel, d, cpu->cpl, &cs);
    return rc == X86_OK ? call_same(cpu, &cs, eip, osize) : rc;
}

/* Parameters of a call gate, highest first as they are pushed again. */
static enum x86_rc copy_parameters(struct vcpu *cpu, unsigned n, struct frame *f)
{
    uint32_t param[32];
    enum x86_rc rc = X86_OK;

    if (n > 0)
        rc = stack_peek(cpu, 0, f->width, n, param);
    if (rc == X86_OK)
        while (n-- > 0)
            frame_add(f, param[n]);
    return rc;
}

/*
 *  new stack   | SS         |
 *              | ESP        |
 *              | parameters |  as many as the gate says
 *              | CS         |
 *      ESP ->  | EIP        |
 */
static enum x86_rc call_inner(struct vcpu *cpu, const struct segment *cs, uint32_t eip, unsigned cpl,
                              unsigned nparams, unsigned width)
{
    struct segment ss;
    struct stack st = { .ss = &ss, .cpl = cpl };
    struct frame f;
    uint32_t sp;
    enum x86_rc rc = tss_stack(cpu, cpl, 0, &ss, &sp);

    if (rc != X86_OK)
        return rc;
    st.sp = stack_pointer(&ss, cpu->gpr[ESP], sp);
    st.error = ss.sel & SEL_ERROR_MASK;
    frame_begin(&f, width);
    frame_add(&f, cpu->segs[SEG_SS].sel);
    frame_add(&f, cpu->gpr[ESP]);
    rc = copy_parameters(cpu, nparams, &f);
    if (rc != X86_OK)
        return rc;
    frame_return(cpu, &f);
    rc = stack_check(cpu, &st, &f);
    if (rc == X86_OK)
        rc = eip_check(cpu, cs, eip, 0);
    if (rc == X86_OK)
        rc = stack_write(cpu, &st, &f);
    if (rc != X86_OK)
        return rc;
    vcpu_x87_settle(cpu);
    cpu->segs[SEG_SS] = ss;
    cpu->gpr[ESP] = st.sp;
    transfer_enter(cpu, cs, eip, cpl);
    return X86_OK;
}

static enum x86_rc call_gate(struct vcpu *cpu, uint16_t sel, const struct desc *gate, unsigned width)
{
    uint16_t code_sel = gate_sel(gate);
    uint32_t eip = gate_eip(gate, width);
    unsigned cpl = cpu->cpl;
    struct segment cs;
    struct desc d;
    enum x86_rc rc = gate_check(cpu, sel, gate);

    if (rc != X86_OK)
        return rc;
    if (!desc_is_present(gate))
        return raise_sel(cpu, EXC_NP, sel, 0);
    rc = gate_code_fetch(cpu, code_sel, true, &d);
    if (rc != X86_OK)
        return rc;
    if (!desc_is_conforming(&d))
        cpl = desc_dpl(&d);
    rc = code_load(cpu, code_sel, &d, cpl, &cs);
    if (rc != X86_OK)
        return rc;
    if (cpl < cpu->cpl)
        return call_inner(cpu, &cs, eip, cpl, gate->hi & 31u, width);
    return call_same(cpu, &cs, eip, width);
}

enum x86_rc far_call(struct vcpu *cpu, uint16_t sel, uint32_t off, unsigned osize)
{
    uint32_t eip = osize == 2 ? off & 0xffffu : off;
    struct desc d;
    enum x86_rc rc;

    if (!vcpu_is_protected(cpu)) {
        struct segment cs = code_real(cpu, sel);

        return call_same(cpu, &cs, eip, osize);
    }
    if (sel_is_null(sel))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = desc_fetch(cpu, sel, EXC_GP, 0, &d);
    if (rc != X86_OK)
        return rc;
    if (desc_is_code(&d))
        return call_code(cpu, sel, &d, eip, osize);
    switch (desc_sys_type(&d)) {
    case SYS_CALL16:
        return call_gate(cpu, sel, &d, 2);
    case SYS_CALL32:
        return call_gate(cpu, sel, &d, 4);
    case SYS_TASK_GATE:
    case SYS_TSS16_AVAIL:
    case SYS_TSS16_BUSY:
    case SYS_TSS32_AVAIL:
    case SYS_TSS32_BUSY:
        return transfer_task(cpu, sel, &d, TASK_CALL);
    }
    return raise_sel(cpu, EXC_GP, sel, 0);
}

/* ---- RET --------------------------------------------------------------------------------- */

enum x86_rc return_code_check(struct vcpu *cpu, uint16_t sel, struct segment *cs)
{
    struct desc d;
    enum x86_rc rc;

    if (sel_is_null(sel))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = desc_fetch(cpu, sel, EXC_GP, 0, &d);
    if (rc != X86_OK)
        return rc;
    if (!desc_is_code(&d) || sel_rpl(sel) < cpu->cpl)
        return raise_sel(cpu, EXC_GP, sel, 0);
    if (desc_is_conforming(&d) ? desc_dpl(&d) > sel_rpl(sel) : desc_dpl(&d) != sel_rpl(sel))
        return raise_sel(cpu, EXC_GP, sel, 0);
    if (!desc_is_present(&d))
        return raise_sel(cpu, EXC_NP, sel, 0);
    return code_load(cpu, sel, &d, sel_rpl(sel), cs);
}

void data_segments_revoke(struct vcpu *cpu, unsigned cpl)
{
    static const uint8_t data_segs[] = { SEG_ES, SEG_FS, SEG_GS, SEG_DS };

    for (size_t i = 0; i < ARRAY_LEN(data_segs); i++) {
        struct segment *s = &cpu->segs[data_segs[i]];
        bool is_conforming = (s->attr & (DESC_CODE | DESC_CONFORM)) == (DESC_CODE | DESC_CONFORM);
        bool is_inner = !is_conforming && ((s->attr & DESC_DPL) >> DESC_DPL_SHIFT) < cpl;

        if (sel_is_null(s->sel) || ((s->attr & DESC_P) && is_inner)) /* null selectors lose their RPL */
            *s = (struct segment){ .sel = 0 };
    }
}

static enum x86_rc return_real(struct vcpu *cpu, uint16_t sel, uint32_t eip, uint32_t release)
{
    struct segment cs = code_real(cpu, sel);
    enum x86_rc rc = eip_check(cpu, &cs, eip, 0);

    if (rc != X86_OK)
        return rc;
    stack_release(cpu, release);
    transfer_enter(cpu, &cs, eip, cpu->cpl);
    return X86_OK;
}

/*
 *  inner stack  | SS         |
 *               | ESP        |
 *               | parameters |  `release` bytes
 *               | CS         |
 *       ESP ->  | EIP        |
 */
static enum x86_rc return_outer(struct vcpu *cpu, const struct segment *cs, uint32_t eip, unsigned osize,
                                uint32_t release)
{
    unsigned cpl = sel_rpl(cs->sel);
    struct segment ss;
    uint32_t outer[2];
    enum x86_rc rc = stack_peek(cpu, 2 * osize + release, osize, 2, outer);

    if (rc == X86_OK)
        rc = stack_segment_check(cpu, (uint16_t)outer[1], cpl, EXC_GP, 0, &ss);
    if (rc == X86_OK)
        rc = eip_check(cpu, cs, eip, 0);
    if (rc != X86_OK)
        return rc;
    vcpu_x87_settle(cpu);
    cpu->segs[SEG_SS] = ss;
    cpu->gpr[ESP] = stack_pointer(&ss, cpu->gpr[ESP], outer[0] + release);
    data_segments_revoke(cpu, cpl);
    transfer_enter(cpu, cs, eip, cpl);
    return X86_OK;
}

enum x86_rc far_return(struct vcpu *cpu, unsigned osize, uint32_t release)
{
    struct segment cs;
    uint32_t slot[2]; /* EIP, CS */
    enum x86_rc rc = stack_peek(cpu, 0, osize, 2, slot);

    if (rc != X86_OK)
        return rc;
    if (!vcpu_is_protected(cpu))
        return return_real(cpu, (uint16_t)slot[1], slot[0], 2 * osize + release);
    rc = return_code_check(cpu, (uint16_t)slot[1], &cs);
    if (rc != X86_OK)
        return rc;
    if (sel_rpl(cs.sel) > cpu->cpl)
        return return_outer(cpu, &cs, slot[0], osize, release);
    rc = eip_check(cpu, &cs, slot[0], 0);
    if (rc != X86_OK)
        return rc;
    stack_release(cpu, 2 * osize + release);
    transfer_enter(cpu, &cs, slot[0], cpu->cpl);
    return X86_OK;
}
