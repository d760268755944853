/*
 * Callouts on segment registers and selectors: MOV, PUSH and POP of segment registers, far
 * pointer loads, LAR, LSL, VERR, VERW and ARPL.
 *
 * A load that changes the mode bits (a segment ceased to be flat, say) goes on through the
 * dispatcher, since the code behind it was translated for the old mode. Loads of SS hold
 * interrupts off for one instruction.
 *
 * Ref: Intel SDM vol. 2 under each instruction; vol. 3A, ch. "Protection".
 */
#include "base/string.h"
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"

/* Attributes that LAR shows. The SDM leaves bits 16..19 open; processors show the limit's. */
#define LAR_MASK 0x00ffff00u

static enum seg_id target_seg(uint64_t arg)
{
    return (enum seg_id)carg_imm(arg);
}

static void set_zf(struct vcpu *cpu, bool zf)
{
    vcpu_arith_set(cpu, (vcpu_arith_get(cpu) & ~EFL_ZF) | (zf ? EFL_ZF : 0u));
}

/* Where to go after a segment register was loaded. */
static enum exit_reason after_load(struct vcpu *cpu, uint32_t old_mode, bool has_shadow)
{
    if (!has_shadow && cpu->mode == old_mode)
        return EXIT_RESUME;
    cpu->eip = cpu->next_eip;
    cpu->debug_shadow = has_shadow;
    return has_shadow ? EXIT_SHADOW : EXIT_DISPATCH;
}

/* ---- moves ------------------------------------------------------------------------------ */

enum exit_reason callout_mov_to_seg(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum seg_id seg = target_seg(arg);
    uint32_t old_mode = cpu->mode;
    uint16_t sel;
    enum x86_rc rc = read_rm16(cpu, arg, ea, &sel);

    if (rc == X86_OK)
        rc = segment_load(cpu, seg, sel);
    return rc == X86_OK ? after_load(cpu, old_mode, seg == SEG_SS) : exit_failed(rc);
}

enum exit_reason callout_mov_from_seg(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint16_t sel = cpu->segs[target_seg(arg)].sel;
    enum x86_rc rc = X86_OK;

    if (carg_is_mem(arg)) /* 16 bits whatever the operand size */
        rc = vcpu_write(cpu, (enum seg_id)carg_seg(arg), ea, &sel, sizeof sel);
    else
        set_reg(cpu, carg_rm(arg), carg_osize(arg), sel);
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_push_seg(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum x86_rc rc = stack_push(cpu, cpu->segs[target_seg(arg)].sel, carg_osize(arg));

    (void)ea;
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_pop_seg(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum seg_id seg = target_seg(arg);
    uint32_t old_mode = cpu->mode, value, esp;
    enum x86_rc rc = X86_OK;

    (void)ea;
    if (carg_osize(arg) != 4 || !shortcut_stack_peek(cpu, &value))
        rc = stack_peek(cpu, 0, carg_osize(arg), 1, &value);
    if (rc != X86_OK)
        return exit_failed(rc);
    /* The width of the stack pointer is that of the old SS, POP SS included. */
    esp = stack_pointer(&cpu->segs[SEG_SS], cpu->gpr[ESP], cpu->gpr[ESP] + carg_osize(arg));
    rc = segment_load(cpu, seg, (uint16_t)value);
    if (rc != X86_OK)
        return exit_failed(rc);
    cpu->gpr[ESP] = esp;
    return after_load(cpu, old_mode, seg == SEG_SS);
}

enum exit_reason callout_load_far_ptr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg);
    uint32_t old_mode = cpu->mode, off = 0;
    uint8_t raw[6];
    uint16_t sel;
    enum x86_rc rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, raw, osize + 2);

    if (rc != X86_OK)
        return exit_failed(rc);
    memcpy(&off, raw, osize == 4 ? 4 : 2);
    memcpy(&sel, raw + (osize == 4 ? 4 : 2), 2);
    rc = segment_load(cpu, target_seg(arg), sel);
    if (rc != X86_OK)
        return exit_failed(rc);
    set_reg(cpu, carg_reg(arg), osize, off);
    return after_load(cpu, old_mode, false); /* LSS, unlike MOV SS, has no shadow */
}

/* ---- queries ------------------------------------------------------------------------------- */

/* Visible at this CPL and RPL; conforming code always is. */
static bool is_visible(const struct vcpu *cpu, const struct desc *d, uint16_t sel)
{
    if (desc_is_code(d) && desc_is_conforming(d))
        return true;
    return cpu->cpl <= desc_dpl(d) && sel_rpl(sel) <= desc_dpl(d);
}

static bool has_limit(const struct desc *d)
{
    switch (desc_sys_type(d)) {
    case SYS_TSS16_AVAIL:
    case SYS_LDT:
    case SYS_TSS16_BUSY:
    case SYS_TSS32_AVAIL:
    case SYS_TSS32_BUSY:
        return true;
    }
    return (desc_attr(d) & DESC_S) != 0;
}

static bool has_rights(const struct desc *d)
{
    switch (desc_sys_type(d)) {
    case SYS_CALL16:
    case SYS_TASK_GATE:
    case SYS_CALL32:
        return true;
    }
    return has_limit(d);
}

static bool is_readable(const struct desc *d)
{
    return (desc_attr(d) & DESC_S) && (!desc_is_code(d) || (desc_attr(d) & DESC_READ));
}

static bool is_writable(const struct desc *d)
{
    return (desc_attr(d) & (DESC_S | DESC_CODE | DESC_WRITE)) == (DESC_S | DESC_WRITE);
}

/*
 * ZF tells whether the operand selects a visible descriptor that passes the test; *d is valid then. It does not for
 * a null selector and one outside its table. #UD where selectors have no meaning.
 */
static enum x86_rc query(struct vcpu *cpu, uint64_t arg, uint32_t ea, bool (*test)(const struct desc *d),
                         struct desc *d, bool *ok)
{
    enum x86_rc rc;
    uint16_t sel;

    if (!vcpu_is_protected(cpu))
        return vcpu_raise(cpu, EXC_UD);
    rc = read_rm16(cpu, arg, ea, &sel);
    if (rc != X86_OK)
        return rc;
    *ok = !sel_is_null(sel) && desc_locate(cpu, sel, &d->at);
    if (*ok && (rc = desc_fetch(cpu, sel, EXC_GP, 0, d)) != X86_OK)
        return rc;
    *ok = *ok && test(d) && is_visible(cpu, d, sel);
    set_zf(cpu, *ok);
    return X86_OK;
}

enum exit_reason callout_lar(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct desc d;
    bool ok;
    enum x86_rc rc = query(cpu, arg, ea, has_rights, &d, &ok);

    if (rc == X86_OK && ok)
        set_reg(cpu, carg_reg(arg), carg_osize(arg), d.hi & LAR_MASK);
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_lsl(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct desc d;
    bool ok;
    enum x86_rc rc = query(cpu, arg, ea, has_limit, &d, &ok);

    if (rc == X86_OK && ok)
        set_reg(cpu, carg_reg(arg), carg_osize(arg), desc_limit(&d));
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_verr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct desc d;
    bool ok;
    enum x86_rc rc = query(cpu, arg, ea, is_readable, &d, &ok);

    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_verw(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct desc d;
    bool ok;
    enum x86_rc rc = query(cpu, arg, ea, is_writable, &d, &ok);

    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_arpl(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint16_t sel, rpl = cpu->gpr[carg_reg(arg)] & SEL_RPL;
    bool raised;
    enum x86_rc rc;

    if (!vcpu_is_protected(cpu))
        return exit_failed(vcpu_raise(cpu, EXC_UD));
    rc = read_rm16(cpu, arg, ea, &sel);
    if (rc != X86_OK)
        return exit_failed(rc);
    raised = sel_rpl(sel) < rpl;
    if (raised)
        sel = (uint16_t)((sel & ~SEL_RPL) | rpl);
    if (carg_is_mem(arg) && raised) /* an operand that stays as it is may be read-only: so on AMD processors */
        rc = vcpu_write(cpu, (enum seg_id)carg_seg(arg), ea, &sel, sizeof sel);
    else if (raised)
        set_reg(cpu, carg_rm(arg), 2, sel);
    if (rc != X86_OK)
        return exit_failed(rc);
    set_zf(cpu, raised);
    return EXIT_RESUME;
}
