/*
 * Exceptions that the translator finds while it translates, raised when the instruction is
 * reached, and the one that it leaves to the target of an indirect branch. The operand word's
 * immediate is the instruction's unit (decoder.h).
 */
#include "monitor/callouts.h"
#include "monitor/monitor.h"

enum exit_reason callout_raise_ud(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg;
    (void)ea;
    vcpu_raise(cpu, EXC_UD);
    return EXIT_FAULT;
}

/* CR0.EM makes MMX and SSE instructions #UD; TS, and EM for x87, make them #NM. SDM vol. 3A,
 * ch. "System Programming for Instruction Set Extensions", and the EM bit in ch. 2. */
enum exit_reason callout_raise_nm(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned unit = carg_imm(arg);

    (void)ea;
    if ((cpu->cr0 & CR0_EM) && (unit == UNIT_MMX || unit == UNIT_SSE))
        vcpu_raise(cpu, EXC_UD);
    else
        vcpu_raise(cpu, EXC_NM);
    return EXIT_FAULT;
}

enum exit_reason callout_raise_gp0(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg;
    (void)ea;
    vcpu_raise_error(cpu, EXC_GP, 0);
    return EXIT_FAULT;
}

/* A division by zero. */
enum exit_reason callout_raise_de(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg;
    (void)ea;
    vcpu_raise(cpu, EXC_DE);
    return EXIT_FAULT;
}

/* An indirect near transfer of code that is not flat; `ea` is its target EIP. */
enum exit_reason callout_check_branch(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    if (ea <= cpu->segs[SEG_CS].limit)
        return EXIT_RESUME;
    return callout_raise_gp0(cpu, arg, ea);
}

enum exit_reason callout_unsupported(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)cpu;
    (void)arg;
    (void)ea;
    return EXIT_UNSUPPORTED;
}
