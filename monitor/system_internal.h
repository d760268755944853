/*
 * System state that more than one file of the monitor reaches: the time stamp
 * counter and model-specific registers.
 */
#ifndef MONITOR_SYSTEM_INTERNAL_H
#define MONITOR_SYSTEM_INTERNAL_H

#include "monitor/monitor.h"

/** The guest's time stamp counter. */
uint64_t vcpu_tsc_read(const struct vcpu *cpu);
void vcpu_tsc_write(struct vcpu *cpu, uint64_t value);

/** X86_OK, or X86_FAULT with #GP(0) for a register that the model lacks or a value it refuses. */
enum x86_rc msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value);
enum x86_rc msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value);

/** Is cpu->fault an x87 error that goes by FERR# and IRQ 13 and not by #MF? (ferr.c) */
bool ferr_is_external(const struct vcpu *cpu);
/** Assert FERR#. */
void ferr_raise(struct vcpu *cpu);
/** Around one instruction that runs in spite of a pending x87 error. The first gives what the second takes. */
uint16_t ferr_ignore_begin(struct vcpu *cpu);
void ferr_ignore_end(struct vcpu *cpu, uint16_t control);

/** The bits of CR4 that the model has; 0 when it has no CR4. */
uint32_t cpu_model_cr4_bits(const struct cpu_model *model);
/** The bits of MXCSR that the model has (the MXCSR_MASK of its FXSAVE image). */
uint32_t cpu_model_mxcsr_mask(const struct cpu_model *model);

#endif
