/*
 * Delivery of the exception in cpu->fault, and what happens when that fails.
 *
 * A fault met while an exception is being delivered either replaces it (and the first one
 * comes again when the instruction is retried) or makes a double fault, by the classes of
 * both. A fault while a double fault is being delivered shuts the processor down: the
 * machine is asked to stop.
 *
 * Ref: Intel SDM vol. 3A, ch. "Interrupt and Exception Handling", Interrupt 8 - Double
 * Fault Exception; ch. "Debug", on the RF flag.
 */
#include "base/log.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

enum exc_class { EXC_BENIGN, EXC_CONTRIBUTORY, EXC_PAGE_FAULT, EXC_DOUBLE };

static enum exc_class classify(unsigned vector)
{
    switch (vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
        return EXC_CONTRIBUTORY;
    case EXC_PF:
        return EXC_PAGE_FAULT;
    case EXC_DF:
        return EXC_DOUBLE;
    }
    return EXC_BENIGN;
}

/* Faults restart their instruction and push RF; #DF and #MC are aborts. Of debug exceptions only that of
 * GD does: after an instruction breakpoint it is for the handler to set RF, all others are traps. */
static bool sets_rf(const struct fault *f)
{
    unsigned vector = f->vector;

    if (vector == EXC_DB)
        return (f->dr6 & DR6_BD) != 0;
    return vector != EXC_NMI && vector != EXC_BP && vector != EXC_OF &&
           vector != EXC_DF && vector != EXC_MC;
}

static enum x86_rc deliver_one(struct vcpu *cpu, const struct fault *f)
{
    const struct event e = { .vector = f->vector,
                             .has_error = f->has_error,
                             .error = f->error,
                             .sets_rf = sets_rf(f),
                             .return_eip = cpu->eip };
    enum x86_rc rc;

    cpu->stats.exception[f->vector & 31u]++;
    if (f->vector == EXC_PF)
        cpu->cr2 = f->cr2;
    if (f->vector == EXC_DB) /* software clears the others */
        cpu->dr[6] = (cpu->dr[6] & ~DR6_B) | f->dr6;
    rc = event_deliver(cpu, &e);
    if (rc == X86_OK && f->vector == EXC_DB)
        cpu->dr[7] &= ~DR7_GD;
    return rc;
}

/* What follows when `second` was met while `first` was being delivered. */
static struct fault combine(const struct fault *first, const struct fault *second)
{
    enum exc_class a = classify(first->vector), b = classify(second->vector);

    if ((a == EXC_CONTRIBUTORY && b == EXC_CONTRIBUTORY) || (a == EXC_PAGE_FAULT && b != EXC_BENIGN))
        return (struct fault){ .vector = EXC_DF, .has_error = true, .error = 0 };
    return *second;
}

static enum x86_rc shut_down(struct vm *vm)
{
    const struct vcpu *cpu = vm->cpu;

    LOG(&vm->log, int, "int: triple fault at 0x%x:0x%08x\n", cpu->segs[SEG_CS].sel, cpu->eip);
    machine_request_stop(vm->machine, STOP_TRIPLE_FAULT, 0);
    return X86_UNSUPPORTED;
}

enum x86_rc exception_deliver(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    struct fault now = cpu->fault;
    enum x86_rc rc;

    vm->in_exception = true;
    while ((rc = deliver_one(cpu, &now)) == X86_FAULT) {
        if (now.vector == EXC_DF) {
            rc = shut_down(vm);
            break;
        }
        now = combine(&now, &cpu->fault);
    }
    vm->in_exception = false;
    return rc;
}
