/*
 * Small things that the callout files share: how a callout ends, how it reads and
 * writes an operand, what a change of mode means for it.
 */
#ifndef MONITOR_CALLOUT_INTERNAL_H
#define MONITOR_CALLOUT_INTERNAL_H

#include "monitor/monitor.h"
#include "monitor/transfer.h"

/** End a callout that is done, by way of the dispatcher: mode or mappings of code may differ. */
static inline enum exit_reason end_dispatch_next(struct vcpu *cpu)
{
    cpu->eip = cpu->next_eip;
    return EXIT_DISPATCH;
}

/** Should an instruction that repeats stop between two elements? For a debug trap (single-stepping among
 *  them), and for the host. Not for the latter with clock=insn: an instruction is begun once there, whatever it does. */
static inline bool must_make_way(const struct vcpu *cpu)
{
    if (cpu->debug_hits)
        return true;
    return !__atomic_load_n(&cpu->run, __ATOMIC_RELAXED) && !cpu->vm->config.clock_insn;
}

/** It does stop: what comes in between pushes RF, so that going on meets no instruction breakpoint again. */
static inline enum exit_reason end_repeating(struct vcpu *cpu)
{
    cpu->eflags_sys |= EFL_RF;
    return EXIT_DISPATCH;
}

static inline enum exit_reason end_raise(struct vcpu *cpu, enum exc_vector vector)
{
    vcpu_raise(cpu, vector);
    return EXIT_FAULT;
}

static inline enum exit_reason end_gp0(struct vcpu *cpu)
{
    vcpu_raise_error(cpu, EXC_GP, 0);
    return EXIT_FAULT;
}

/** Write a register of 2 or 4 bytes; a 16-bit write keeps the upper half. */
static inline void set_reg(struct vcpu *cpu, unsigned reg, unsigned size, uint32_t value)
{
    if (size == 2)
        cpu->gpr[reg] = (cpu->gpr[reg] & 0xffff0000u) | (value & 0xffffu);
    else
        cpu->gpr[reg] = value;
}

/** Read an r/m16 source operand. */
static inline enum x86_rc read_rm16(struct vcpu *cpu, uint64_t arg, uint32_t ea, uint16_t *value)
{
    if (carg_is_mem(arg))
        return vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, value, 2);
    *value = (uint16_t)cpu->gpr[carg_rm(arg)];
    return X86_OK;
}

/** Recompute the mode after a change of system state. @return whether translations differ. */
static inline bool mode_changed(struct vcpu *cpu)
{
    uint32_t before = cpu->mode;

    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
    return cpu->mode != before;
}

#endif
