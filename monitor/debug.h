/*
 * Breakpoints: what DR0 to DR3 and DR7 ask for, and whether an access or an instruction meets it.
 */
#ifndef MONITOR_DEBUG_H
#define MONITOR_DEBUG_H

#include "base/cpu.h"

/** DR0 to DR3, DR7 or CR4.DE changed: tell mmu and bt which pages need attention.
 *  @return whether any breakpoint is or was enabled: code that follows may be affected. */
bool debug_update(struct vcpu *cpu);

/** Code at `va` is about to run. X86_OK, or X86_FAULT with #DB when it has a breakpoint. */
enum x86_rc debug_check_fetch(struct vcpu *cpu, gva_t va);

/** DR6 bits of the breakpoints that the code at `va` has, if one of them is enabled. */
uint32_t debug_fetch_hits(const struct vcpu *cpu, gva_t va);

/** A data access was made (or is about to be): note what it meets in cpu->debug_hits. */
void debug_data_access(struct vcpu *cpu, gva_t va, uint32_t size, bool is_write);

void debug_port_check(struct vcpu *cpu, uint16_t port, unsigned size);

/** The same for `size` ports from `port` on. */
static inline void debug_port_access(struct vcpu *cpu, uint16_t port, unsigned size)
{
    if (__builtin_expect((cpu->dr[7] & DR7_ENABLES) && (cpu->cr4 & CR4_DE), 0))
        debug_port_check(cpu, port, size);
}

/** Record #DB with these DR6 bits. Always returns X86_FAULT. */
static inline enum x86_rc debug_raise(struct vcpu *cpu, uint32_t dr6)
{
    cpu->fault = (struct fault){ .vector = EXC_DB, .dr6 = dr6 };
    return X86_FAULT;
}

#endif
