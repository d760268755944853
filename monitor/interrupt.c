/*
 * Delivery of interrupts and exceptions through the IDT or, in real mode, the vector table.
 *
 * The gate and the code segment say where to go, the TSS says on which stack when the
 * privilege rises. The frame is built whole, then written, then the vCPU changes: on
 * X86_FAULT nothing has happened, and the new fault takes the old one's place by the rules
 * of exception.c.
 *
 * What is pushed, by gate width (2 or 4 bytes a slot):
 *
 *     GS FS DS ES       from virtual-8086 mode only
 *     SS ESP            when the privilege changes
 *     EFLAGS CS EIP
 *     error code        some exceptions
 *
 * Ref: Intel SDM vol. 2, INT n/INTO/INT3/INT1; vol. 3A, ch. "Interrupt and Exception
 * Handling" and ch. "8086 Emulation".
 */
#include "base/log.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

static unsigned event_ext(const struct event *e)
{
    return e->is_soft ? 0 : ERROR_EXT;
}

static uint32_t event_eflags(const struct vcpu *cpu, const struct event *e)
{
    return vcpu_eflags_get(cpu) | (e->sets_rf ? EFL_RF : 0u);
}

static bool gate_is32(const struct desc *gate)
{
    return (gate->hi & (8u << 8)) != 0;
}
static bool gate_is_interrupt(const struct desc *gate)
{
    return (gate->hi & (1u << 8)) == 0;
}

/* ---- real mode ----------------------------------------------------------------------- */

static enum x86_rc deliver_real(struct vcpu *cpu, const struct event *e)
{
    struct stack st = stack_current(cpu, 0);
    struct segment cs = cpu->segs[SEG_CS];
    struct frame f;
    uint16_t entry[2]; /* offset, segment */
    enum x86_rc rc;

    if (e->vector * 4u + 3u > cpu->idtr.limit)
        return vcpu_raise_error(cpu, EXC_GP, e->vector * 8u | ERROR_IDT | event_ext(e));
    frame_begin(&f, 2);
    frame_add(&f, event_eflags(cpu, e));
    frame_add(&f, cs.sel);
    frame_add(&f, e->return_eip);
    rc = stack_check(cpu, &st, &f);
    if (rc == X86_OK)
        rc = mmu_read_system(cpu, gva(cpu->idtr.base + e->vector * 4u), entry, sizeof entry);
    if (rc != X86_OK)
        return rc;
    cs.sel = entry[1];
    cs.base = (uint32_t)entry[1] << 4;
    rc = eip_check(cpu, &cs, entry[0], 0);
    if (rc == X86_OK)
        rc = stack_write(cpu, &st, &f);
    if (rc != X86_OK)
        return rc;
    cpu->gpr[ESP] = st.sp;
    cpu->eflags_if = 0;
    cpu->eflags_sys &= ~(EFL_TF | EFL_AC | EFL_RF);
    transfer_enter(cpu, &cs, entry[0], 0);
    return X86_OK;
}

/* ---- protected and virtual-8086 mode ---------------------------------------------------- */

static enum x86_rc gate_fetch(struct vcpu *cpu, const struct event *e, struct desc *gate)
{
    unsigned error = e->vector * 8u | ERROR_IDT | event_ext(e);
    uint32_t raw[2];
    enum x86_rc rc;

    if (e->vector * 8u + 7u > cpu->idtr.limit)
        return vcpu_raise_error(cpu, EXC_GP, error);
    gate->at = gva(cpu->idtr.base + e->vector * 8u);
    rc = mmu_read_system(cpu, gate->at, raw, sizeof raw);
    if (rc != X86_OK)
        return rc;
    gate->lo = raw[0];
    gate->hi = raw[1];
    switch (desc_sys_type(gate)) {
    case SYS_TASK_GATE:
    case SYS_INT16:
    case SYS_TRAP16:
    case SYS_INT32:
    case SYS_TRAP32:
        break;
    default:
        return vcpu_raise_error(cpu, EXC_GP, error);
    }
    if (e->is_soft && desc_dpl(gate) < cpu->cpl)
        return vcpu_raise_error(cpu, EXC_GP, error);
    if (!desc_is_present(gate))
        return vcpu_raise_error(cpu, EXC_NP, error);
    return X86_OK;
}

/* The handler's code segment; its RPL is the privilege to run with. */
static enum x86_rc handler_fetch(struct vcpu *cpu, uint16_t sel, unsigned ext, struct segment *cs)
{
    unsigned cpl = cpu->cpl;
    struct desc d;
    enum x86_rc rc;

    if (sel_is_null(sel))
        return vcpu_raise_error(cpu, EXC_GP, ext);
    rc = desc_fetch(cpu, sel, EXC_GP, ext, &d);
    if (rc != X86_OK)
        return rc;
    if (!desc_is_code(&d) || desc_dpl(&d) > cpl)
        return raise_sel(cpu, EXC_GP, sel, ext);
    if (!desc_is_present(&d))
        return raise_sel(cpu, EXC_NP, sel, ext);
    if (!desc_is_conforming(&d))
        cpl = desc_dpl(&d);
    if ((cpu->eflags_sys & EFL_VM) && cpl != 0)
        return raise_sel(cpu, EXC_GP, sel, ext);
    rc = desc_touch(cpu, &d);
    *cs = desc_segment(&d, (uint16_t)((sel & ~SEL_RPL) | cpl));
    return rc;
}

static void frame_event(const struct vcpu *cpu, const struct event *e, struct frame *f)
{
    frame_add(f, event_eflags(cpu, e));
    frame_add(f, cpu->segs[SEG_CS].sel);
    frame_add(f, e->return_eip);
    if (e->has_error)
        frame_add(f, e->error);
}

static void frame_outer(const struct vcpu *cpu, struct frame *f)
{
    if (cpu->eflags_sys & EFL_VM) {
        frame_add(f, cpu->segs[SEG_GS].sel);
        frame_add(f, cpu->segs[SEG_FS].sel);
        frame_add(f, cpu->segs[SEG_DS].sel);
        frame_add(f, cpu->segs[SEG_ES].sel);
    }
    frame_add(f, cpu->segs[SEG_SS].sel);
    frame_add(f, cpu->gpr[ESP]);
}

/* A handler of ring 0 must not find real-mode selectors in its data segments. */
static void leave_vm86(struct vcpu *cpu)
{
    if (!(cpu->eflags_sys & EFL_VM))
        return;
    cpu->segs[SEG_GS] = cpu->segs[SEG_FS] = (struct segment){ .sel = 0 };
    cpu->segs[SEG_DS] = cpu->segs[SEG_ES] = (struct segment){ .sel = 0 };
}

static enum x86_rc deliver_gate(struct vcpu *cpu, const struct event *e, const struct desc *gate)
{
    unsigned ext = event_ext(e), cpl;
    uint32_t eip = gate_is32(gate) ? gate_offset32(gate) : gate_offset32(gate) & 0xffffu;
    struct stack st = stack_current(cpu, ext);
    struct segment cs, ss;
    struct frame f;
    enum x86_rc rc = handler_fetch(cpu, gate_sel(gate), ext, &cs);

    if (rc != X86_OK)
        return rc;
    cpl = sel_rpl(cs.sel);
    frame_begin(&f, gate_is32(gate) ? 4 : 2);
    if (cpl != cpu->cpl) {
        uint32_t sp;

        rc = tss_stack(cpu, cpl, ext, &ss, &sp);
        if (rc != X86_OK)
            return rc;
        st = (struct stack){ .ss = &ss,
                             .cpl = cpl,
                             .error = (ss.sel & SEL_ERROR_MASK) | ext,
                             .sp = stack_pointer(&ss, cpu->gpr[ESP], sp) };
        frame_outer(cpu, &f);
    }
    frame_event(cpu, e, &f);
    rc = stack_check(cpu, &st, &f);
    if (rc == X86_OK)
        rc = eip_check(cpu, &cs, eip, ext);
    if (rc == X86_OK)
        rc = stack_write(cpu, &st, &f);
    if (rc != X86_OK)
        return rc;

    vcpu_x87_settle(cpu);
    leave_vm86(cpu);
    if (cpl != cpu->cpl)
        cpu->segs[SEG_SS] = ss;
    cpu->gpr[ESP] = st.sp;
    if (gate_is_interrupt(gate))
        cpu->eflags_if = 0;
    cpu->eflags_sys &= ~(EFL_TF | EFL_VM | EFL_RF | EFL_NT);
    transfer_enter(cpu, &cs, eip, cpl);
    return X86_OK;
}

/* A task gate: the new task finds the error code on its stack. */
static enum x86_rc deliver_task(struct vcpu *cpu, const struct event *e, const struct desc *gate)
{
    unsigned ext = event_ext(e);
    struct stack st;
    struct frame f;
    uint32_t eflags_sys = cpu->eflags_sys;
    uint16_t from = cpu->tr.sel;

    if (e->sets_rf) /* in the old task's image */
        cpu->eflags_sys |= EFL_RF;
    enum x86_rc rc = task_switch_sel(cpu, gate_sel(gate), TASK_CALL, ext, e->return_eip);
    if (rc != X86_OK && cpu->tr.sel == from)
        cpu->eflags_sys = eflags_sys; /* nothing was done */
    if (rc != X86_OK)
        return rc;
    if (e->has_error) {
        st = stack_current(cpu, ext);
        frame_begin(&f, (cpu->tr.attr & 8u) ? 4 : 2);
        frame_add(&f, e->error);
        rc = stack_check(cpu, &st, &f);
        if (rc == X86_OK)
            rc = stack_write(cpu, &st, &f);
        if (rc != X86_OK)
            return rc;
        cpu->gpr[ESP] = st.sp;
    }
    return task_finish(cpu, ext);
}

enum x86_rc event_deliver(struct vcpu *cpu, const struct event *e)
{
    struct desc gate;
    enum x86_rc rc;

    cpu->debug_hits &= ~DR6_BS; /* no single-step trap of an instruction that ends in a handler */
    LOG(cpu->log, int, "int: vector 0x%02x error 0x%x from 0x%x:0x%x cpl %u\n", e->vector, e->error,
        cpu->segs[SEG_CS].sel, e->return_eip, cpu->cpl);
    if (shortcut_interrupt(cpu, e))
        return X86_OK;
    if (!(cpu->cr0 & CR0_PE))
        return deliver_real(cpu, e);
    rc = gate_fetch(cpu, e, &gate);
    if (rc != X86_OK)
        return rc;
    if (desc_sys_type(&gate) == SYS_TASK_GATE)
        return deliver_task(cpu, e, &gate);
    return deliver_gate(cpu, e, &gate);
}

enum x86_rc interrupt_deliver(struct vcpu *cpu, uint8_t vector, bool is_soft, bool has_error, uint16_t error,
                              uint32_t return_eip)
{
    const struct event e = {
        .vector = vector, .is_soft = is_soft, .has_error = has_error, .error = error, .return_eip = return_eip
    };

    return event_deliver(cpu, &e);
}
