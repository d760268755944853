/*
 * Callouts on EFLAGS: CLI, STI, PUSHF, POPF.
 *
 * Which flags an instruction may change depends on CPL, IOPL and mode; POPF silently keeps
 * the rest, which is what makes it sensitive. With CR4.VME (virtual-8086 mode) or CR4.PVI
 * (CPL 3) the virtual interrupt flag VIF takes the part of IF.
 *
 * Ref: Intel SDM vol. 2, CLI, STI, PUSHF, POPF; vol. 3A, ch. "8086 Emulation".
 */
#include "monitor/callouts.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

#define FLAGS_ANY (EFL_ARITH | EFL_TF | EFL_DF | EFL_NT)

enum if_rule {
    IF_REAL,    /* the instruction changes IF                   */
    IF_VIRTUAL, /* VIF stands in for it                         */
    IF_DENIED,  /* #GP(0)                                       */
};

/* What CLI and STI act on here. */
static enum if_rule interrupt_flag_rule(const struct vcpu *cpu)
{
    if (!(cpu->cr0 & CR0_PE))
        return IF_REAL;
    if (cpu->eflags_sys & EFL_VM) {
        if (vcpu_iopl(cpu) == 3)
            return IF_REAL;
        return (cpu->cr4 & CR4_VME) ? IF_VIRTUAL : IF_DENIED;
    }
    if (cpu->cpl <= vcpu_iopl(cpu))
        return IF_REAL;
    return cpu->cpl == 3 && (cpu->cr4 & CR4_PVI) ? IF_VIRTUAL : IF_DENIED;
}

enum exit_reason callout_cli(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg;
    (void)ea;
    switch (interrupt_flag_rule(cpu)) {
    case IF_REAL:
        cpu->eflags_if = 0;
        return EXIT_RESUME;
    case IF_VIRTUAL:
        cpu->eflags_sys &= ~EFL_VIF;
        return EXIT_RESUME;
    case IF_DENIED:
        break;
    }
    return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
}

/* IF goes from 0 to 1: the next instruction still runs before any interrupt. A single-step trap is not
 * held off by that. */
static enum exit_reason enable_interrupts(struct vcpu *cpu)
{
    if (cpu->eflags_if)
        return EXIT_RESUME;
    cpu->eflags_if = 1;
    cpu->eip = cpu->next_eip;
    return cpu->eflags_sys & EFL_TF ? EXIT_DISPATCH : EXIT_SHADOW;
}

enum exit_reason callout_sti(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg;
    (void)ea;
    switch (interrupt_flag_rule(cpu)) {
    case IF_REAL:
        return enable_interrupts(cpu);
    case IF_VIRTUAL:
        if (cpu->eflags_sys & EFL_VIP)
            break;
        cpu->eflags_sys |= EFL_VIF;
        return EXIT_RESUME;
    case IF_DENIED:
        break;
    }
    return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
}

/* Virtual-8086 mode with IOPL below 3: PUSHF and POPF of 16 bits live on VIF, others fault. */
static bool is_vme_case(const struct vcpu *cpu)
{
    return (cpu->eflags_sys & EFL_VM) && vcpu_iopl(cpu) < 3;
}

static bool vme_denies(const struct vcpu *cpu, unsigned osize)
{
    return is_vme_case(cpu) && !((cpu->cr4 & CR4_VME) && osize == 2);
}

enum exit_reason callout_pushf(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg);
    uint32_t fl = vcpu_eflags_get(cpu) & ~(EFL_VM | EFL_RF);
    enum x86_rc rc;

    (void)ea;
    if (vme_denies(cpu, osize))
        return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
    if (is_vme_case(cpu))
        fl = (fl & ~EFL_IF) | EFL_IOPL | ((fl & EFL_VIF) ? EFL_IF : 0u);
    rc = stack_push(cpu, fl, osize);
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

/* Flags that POPF writes here. VM, VIF and VIP it never does. */
static uint32_t popf_mask(const struct vcpu *cpu, unsigned osize)
{
    uint32_t mask = FLAGS_ANY;

    if (osize == 4)
        mask |= EFL_AC | EFL_ID;
    if (cpu->cpl <= vcpu_iopl(cpu)) /* CPL is 3 in virtual-8086 mode, where IOPL is 3 by now */
        mask |= EFL_IF;
    if (cpu->cpl == 0)
        mask |= EFL_IOPL;
    return mask;
}

/* Commit new flags and say where to go on. */
static enum exit_reason flags_loaded(struct vcpu *cpu, uint32_t fl)
{
    bool had_if = cpu->eflags_if;
    uint32_t before = cpu->eflags_sys;

    vcpu_eflags_set(cpu, fl & ~EFL_RF);
    if (((before | fl) & EFL_TF) || ((before ^ fl) & EFL_AC))
        vcpu_update_mode(cpu);
    else if (had_if || !cpu->eflags_if || cpu->intr_quiet)
        return EXIT_RESUME;
    cpu->eip = cpu->next_eip;
    return EXIT_DISPATCH;
}

static enum exit_reason popf_vme(struct vcpu *cpu, uint32_t value)
{
    uint32_t fl = vcpu_eflags_get(cpu);

    if ((value & EFL_TF) || ((value & EFL_IF) && (fl & EFL_VIP)))
        return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
    stack_release(cpu, 2);
    fl = (fl & ~(FLAGS_ANY | EFL_VIF)) | (value & FLAGS_ANY) | ((value & EFL_IF) ? EFL_VIF : 0u);
    return flags_loaded(cpu, fl);
}

enum exit_reason callout_popf(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg);
    uint32_t value, mask;
    enum x86_rc rc;

    (void)ea;
    if (vme_denies(cpu, osize))
        return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
    rc = stack_peek(cpu, 0, osize, 1, &value);
    if (rc != X86_OK)
        return exit_failed(rc);
    if (is_vme_case(cpu))
        return popf_vme(cpu, value);
    mask = popf_mask(cpu, osize);
    stack_release(cpu, osize);
    return flags_loaded(cpu, (vcpu_eflags_get(cpu) & ~mask) | (value & mask));
}
