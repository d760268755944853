/*
 * The run loop: attend to what is due, take an interrupt if one may be taken, run translated
 * code, and do what its exit asks for.
 *
 * vcpu->run is set *before* pending work is looked at, and whoever brings work clears it, so
 * that nothing that arrives in between is missed: translated code leaves at its first poll
 * point.
 */
#include "base/assert.h"
#include "monitor/debug.h"
#include "monitor/direct.h"
#include "monitor/monitor.h"
#include "monitor/report.h"
#include "monitor/system_internal.h"

/* Signal numbers and codes of the host's ABI, as the platform stores them. */
enum { HOST_SIGILL = 4, HOST_SIGBUS = 7, HOST_SIGFPE = 8, HOST_SIGSEGV = 11 };
#define FX_FSW 2       /* of an FXSAVE image: low byte of the status word */
#define FSW_ES 0x80u
#define HOST_SI_KERNEL 0x80 /* a fault without an address: #GP of the host */

/* ---- time and events --------------------------------------------------------------------- */

/* A VM-clock deadline on the host's clock. */
static uint64_t to_host_ns(const struct vm *vm, uint64_t deadline)
{
    uint64_t now = machine_now_ns(vm->machine);

    if (deadline == UINT64_MAX)
        return UINT64_MAX;
    return platform_clock_ns() + (deadline > now ? deadline - now : 0);
}

#define INSN_BUDGET_MAX 1000000 /* instructions between looks at the host, clock=insn */

/* Instructions begun since the budget was set. The count goes down before each and one is
 * begun at 0, so a budget of n - 1 is one of n instructions. */
static uint64_t insns_run(const struct vm *vm)
{
    return (uint64_t)(vm->insn_budget - vm->cpu->icount_left);
}

/* A budget that ends exactly at the deadline, and at the next checkpoint: what happens there does
 * not depend on when the host looked in between. */
static void arm_insn(struct vm *vm, uint64_t deadline)
{
    uint64_t now = machine_now_ns(vm->machine);
    uint64_t left = deadline > now ? deadline - now : 1, ran = insns_run(vm);

    vm->insn_ns += ran;
    vm->insns += ran;
    if (left > INSN_BUDGET_MAX)
        left = INSN_BUDGET_MAX;
    if (vm->checkpoint_next > vm->insns && left > vm->checkpoint_next - vm->insns)
        left = vm->checkpoint_next - vm->insns;
    vm->insn_budget = (int64_t)left - 1;
    vm->cpu->icount_left = vm->insn_budget;
}

static void checkpoint(struct vm *vm)
{
    if (!vm->config.clock_insn || !vm->config.checkpoint_every)
        return;
    uint64_t insns = vm->insns + insns_run(vm);
    if (insns < vm->checkpoint_next)
        return;
    while (vm->checkpoint_next <= insns)
        vm->checkpoint_next += vm->config.checkpoint_every;
    if (!vm->config.checkpoint(vm->config.checkpoint_ctx, vm->cpu, insns))
        machine_request_stop(vm->machine, STOP_HOST, 0);
}

#define SAMPLE_NS 1000000u /* bt/form.c counts in these */

static void arm(struct vm *vm, bool will_run)
{
    uint64_t deadline = machine_next_deadline(vm->machine);

    vm->armed_ns = deadline;
    if (vm->config.clock_insn) {
        arm_insn(vm, deadline);
        return;
    }
    uint64_t host_deadline = to_host_ns(vm, deadline);
    if (will_run && bt_wants_samples(vm->cpu->bt)) { /* the sampling timer, while the guest runs */
        uint64_t sample = platform_clock_ns() + SAMPLE_NS;
        host_deadline = sample < host_deadline ? sample : host_deadline;
    }
    platform_timer_arm(vm->cpu, host_deadline);
}

/* Whoever set is_paused clears it again, or asks for the machine's end. */
static void stand_still(struct vm *vm)
{
    machine_clock_stop(vm->machine);
    while (vm->is_paused && machine_stop_requested(vm->machine, NULL) == STOP_NONE)
        platform_wait(vm->cpu, UINT64_MAX);
    machine_clock_continue(vm->machine);
}

static void attend(struct vm *vm, bool will_run)
{
    vm->cpu->run = 1;
    vm->memory_moved = false;
    if (vm->cpu->sample_rip)
        bt_sample(vm->cpu);
    platform_poll(vm->cpu);
    if (vm->is_paused)
        stand_still(vm);
    checkpoint(vm);
    vm_coherency_flush(vm);
    machine_run_timers(vm->machine);
    arm(vm, will_run);
}

/* ---- interrupts and exceptions -------------------------------------------------------------- */

static void take_interrupt(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    uint8_t vector = machine_intr_ack(vm->machine);

    STAT_INC(cpu, intr_delivered);
    LOG(&vm->log, int, "interrupt 0x%02x at EIP 0x%08x\n", vector, cpu->eip);
    if (interrupt_deliver(cpu, vector, false, false, 0, cpu->eip) != X86_OK)
        exception_deliver(vm);
}

static bool can_interrupt(const struct vcpu *cpu)
{
    return !cpu->intr_quiet && cpu->eflags_if;
}

static void deliver(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;

    if (cpu->fault.vector == EXC_PF)
        STAT_INC(cpu, pf_true);
    LOG(&vm->log, int, "exception %u error 0x%x at EIP 0x%08x cr2 0x%08x cpl %u\n", cpu->fault.vector,
        cpu->fault.error, cpu->eip, cpu->fault.cr2, cpu->cpl);
    cpu->debug_hits = vm->held_hits; /* what the instruction met is lost with it */
    exception_deliver(vm);
}

/* Sleep until an interrupt may be taken or the machine stops. With the instruction clock, time jumps to the
 * next deadline. */
static void wait_for_interrupt(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;

    for (;;) {
        attend(vm, false);
        if (can_interrupt(cpu) || machine_stop_requested(vm->machine, NULL) != STOP_NONE)
            return;
        uint64_t deadline = machine_next_deadline(vm->machine);
        if (vm->config.clock_insn && deadline != UINT64_MAX)
            vm->insn_ns += deadline - machine_now_ns(vm->machine);
        else
            platform_wait(cpu, to_host_ns(vm, deadline));
    }
}

/* HLT */
static void halt(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;

    STAT_INC(cpu, halt);
    cpu->eip = cpu->next_eip;
    if (cpu->debug_hits)
        return; /* the trap wakes it at once */
    wait_for_interrupt(vm);
}

/* ---- host signals ------------------------------------------------------------------------------ */

/* Conversions between XMM and MMX registers take a pending x87 exception first. */
static bool takes_x87_exception(const struct vcpu *cpu, const struct insn *in)
{
    bool uses_mmx = in->reg_kind == RK_MMX || (in->mod == 3 && in->rm_kind == RK_MMX);

    return uses_mmx && (cpu->fpu[FX_FSW] & FSW_ES);
}

static unsigned unit_at_eip(struct vcpu *cpu)
{
    uint8_t bytes[15];
    struct insn in;
    size_t n = 0;

    while (n < sizeof bytes &&
           mmu_read_system(cpu, gva(cpu->segs[SEG_CS].base + cpu->eip + (uint32_t)n), &bytes[n], 1) == X86_OK)
        n++;
    vcpu_fpu_park(cpu);
    if (decode_insn(bytes, n, cpu->mode & MODE_CODE32, &in) != DECODE_OK)
        return UNIT_INT;
    return in.unit == UNIT_SSE && takes_x87_exception(cpu, &in) ? UNIT_MMX : in.unit;
}

/* The exception a host fault in translated code stands for; false when it is none of the guest's. */
static bool translate_signal(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    unsigned unit;

    if (!bt_locate(cpu))
        return false;
    LOG(&vm->log, fault, "host signal %d code %d at EIP 0x%08x\n", cpu->host_signal, cpu->host_code, cpu->eip);
    unit = unit_at_eip(cpu);
    if (cpu->host_signal == HOST_SIGFPE) {
        if (unit == UNIT_SSE)
            vcpu_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
        else
            vcpu_raise(cpu, unit == UNIT_INT ? EXC_DE : EXC_MF);
        return true;
    }
    if (cpu->host_signal == HOST_SIGSEGV && cpu->host_code == HOST_SI_KERNEL && unit != UNIT_INT) {
        vcpu_raise_error(cpu, EXC_GP, 0); /* a misaligned SSE operand, reserved MXCSR bits */
        return true;
    }
    return false;
}

/* ---- exits --------------------------------------------------------------------------------------- */

enum next { GO_ON, END };

static enum next give_up(struct vm *vm, struct vm_exit *out, const char *why)
{
    out->unsupported = true;
    report_state(vm->cpu, why, out->text, sizeof out->text);
    return END;
}

/* A host fault that stands for none of the guest's: an error of ours, so say all there is to know. */
static enum next give_up_at_host(struct vm *vm, struct vm_exit *out)
{
    const struct vcpu *cpu = vm->cpu;
    char why[160];

    fmt_format(why, sizeof why, "host fault in translated code (signal %d code %d, host RIP 0x%llx, %s 0x%llx)",
               cpu->host_signal, cpu->host_code, (unsigned long long)cpu->host_rip,
               cpu->host_is_write ? "write to" : "read from", (unsigned long long)cpu->host_addr);
    return give_up(vm, out, why);
}

static enum next handle(struct vm *vm, enum exit_reason reason, struct vm_exit *out);

/* A try ends early when a walk has set an Accessed or Dirty bit in a page that holds code, too. The next one finds it
 * set. MOVS, the worst, looks at two operands in two pages each, for reading or for writing, besides its own bytes. */
#define ALONE_TRIES 16

/* One instruction by itself, whatever the mode. */
static enum exit_reason run_alone(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    enum exit_reason reason;
    unsigned tries = 0;

    cpu->mode |= MODE_STEP;
    if (cpu->icount_left < 0) { /* clock=insn: it is due now, whatever the budget */
        cpu->icount_left++;
        vm->insn_budget++;
    }
    do { /* EXIT_POLL: mappings changed on the way, it has to start again */
        cpu->debug_hits = cpu->eflags_sys & EFL_TF ? DR6_BS : 0;
        reason = bt_run(cpu);
    } while (reason == EXIT_POLL && ++tries < ALONE_TRIES);
    if (reason == EXIT_POLL)
        cpu->debug_hits = 0;
    vcpu_update_mode(cpu);
    return reason;
}

/*
 * One instruction with interrupts held off: the shadow of STI and MOV SS. That of MOV SS holds debug
 * exceptions off as well: what its own operand met comes after the next instruction (even if that ends in
 * a handler), a single-step trap does not come at all.
 */
static enum next run_shadow(struct vm *vm, struct vm_exit *out)
{
    struct vcpu *cpu = vm->cpu;

    cpu->resumes = cpu->debug_shadow;
    vm->held_hits = cpu->debug_hits & ~DR6_BS;
    enum exit_reason reason = run_alone(vm);
    cpu->resumes = cpu->debug_shadow = false;
    cpu->debug_hits |= vm->held_hits;
    if (reason == EXIT_SHADOW)
        reason = EXIT_DISPATCH; /* a second one casts no second shadow */
    enum next next = handle(vm, reason, out);
    vm->held_hits = 0;
    return next;
}

/* An x87 error with CR0.NE clear: the instruction waits for the interrupt that FERR# requests, or runs in
 * spite of the error. */
static enum next take_external_error(struct vm *vm, struct vm_exit *out)
{
    if (!machine_ignne(vm->machine)) {
        ferr_raise(vm->cpu);
        wait_for_interrupt(vm);
        return GO_ON;
    }
    uint16_t control = ferr_ignore_begin(vm->cpu);
    enum exit_reason reason = run_alone(vm);
    ferr_ignore_end(vm->cpu, control);
    return handle(vm, reason, out);
}

static enum next take_fault(struct vm *vm, struct vm_exit *out)
{
    if (ferr_is_external(vm->cpu))
        return take_external_error(vm, out);
    deliver(vm);
    return GO_ON;
}

static enum next handle(struct vm *vm, enum exit_reason reason, struct vm_exit *out)
{
    struct vcpu *cpu = vm->cpu;

    LOG(&vm->log, exit, "exit %u EIP 0x%08x\n", reason, cpu->eip);
    switch (reason) {
    case EXIT_RESUME:
    case EXIT_DISPATCH:
    case EXIT_CHAIN:
    case EXIT_LOOKUP:
    case EXIT_POLL:
        return GO_ON;
    case EXIT_FAULT:
        return take_fault(vm, out);
    case EXIT_SHADOW:
        return run_shadow(vm, out);
    case EXIT_HALT:
        halt(vm);
        return GO_ON;
    case EXIT_HOST:
        if (!translate_signal(vm))
            return give_up_at_host(vm, out);
        return take_fault(vm, out);
    case EXIT_UNSUPPORTED:
        return give_up(vm, out, "unsupported instruction");
    case EXIT_WATCHED:
        return handle(vm, run_alone(vm), out);
    case EXIT_STOP:
    case EXIT_REASON_COUNT:
        break;
    }
    return END;
}

/* TF or RF is set. TF makes a trap of the instruction that begins with it set; the trap is there from the
 * start, and delivery of an exception, an interrupt or a task switch in between takes it away. RF is gone
 * once the instruction has begun. */
static enum exit_reason run_debugged(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    bool resumes = (cpu->eflags_sys & EFL_RF) && cpu->has_breakpoints;
    enum exit_reason reason;

    cpu->eflags_sys &= ~EFL_RF;
    if (resumes) {
        cpu->resumes = true;
        reason = run_alone(vm);
        cpu->resumes = false;
        if (reason == EXIT_POLL)
            cpu->eflags_sys |= EFL_RF;
        return reason;
    }
    if (cpu->eflags_sys & EFL_TF)
        cpu->debug_hits = DR6_BS;
    reason = bt_run(cpu);
    if (reason == EXIT_POLL) /* nothing was done */
        cpu->debug_hits = 0;
    return reason;
}

/* User code on the processor itself; what it may not do there, translated. */
static enum exit_reason run_user(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;

    switch (direct_run(vm)) {
    case DIRECT_STEP:
        STAT_INC(cpu, direct_step);
        return run_alone(vm);
    case DIRECT_LOOK:
        return EXIT_POLL;
    case DIRECT_FAULT:
        return EXIT_FAULT;
    case DIRECT_TRANSLATE:
        break;
    }
    STAT_INC(cpu, direct_refused);
    return bt_run(cpu);
}

/* Traps of the instruction before come before interrupts. */
static void trap(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    uint32_t hits = cpu->debug_hits;

    if ((hits & DR6_B) && !(cpu->eflags_sys & EFL_RF)) /* the next instruction's breakpoint is told of as well */
        hits |= debug_fetch_hits(cpu, gva(cpu->segs[SEG_CS].base + cpu->eip));
    debug_raise(cpu, hits);
    deliver(vm);
}

/* VIF and VIP both set where VIF has a meaning: #GP(0) before the next instruction, for the guest's monitor to
 * deliver what is pending. Only a transfer to CPL 3 can bring that about, and it comes by here. SDM vol. 3B,
 * "8086 Emulation", Class 2 - Maskable Hardware Interrupt Handling. */
static bool has_virtual_interrupt(const struct vcpu *cpu)
{
    if ((~cpu->eflags_sys & (EFL_VIF | EFL_VIP)) || cpu->cpl != 3)
        return false;
    return cpu->cr4 & (cpu->eflags_sys & EFL_VM ? CR4_VME : CR4_PVI);
}

static bool stopped(struct vm *vm, struct vm_exit *out)
{
    out->why = machine_stop_requested(vm->machine, &out->code);
    if (out->why == STOP_TRIPLE_FAULT)
        report_state(vm->cpu, "triple fault", out->text, sizeof out->text);
    return out->why != STOP_NONE;
}

void vm_run(struct vm *vm, struct vm_exit *out)
{
    struct vcpu *cpu = vm->cpu;

    attend(vm, true);
    while (!stopped(vm, out)) {
        if (!cpu->run || (vm->config.clock_insn && cpu->icount_left < 0))
            attend(vm, true);
        else if (machine_next_deadline(vm->machine) < vm->armed_ns)
            arm(vm, true);
        if (__builtin_expect(cpu->debug_hits != 0, 0)) {
            trap(vm);
            continue;
        }
        if (can_interrupt(cpu)) {
            take_interrupt(vm);
            continue;
        }
        if (__builtin_expect(has_virtual_interrupt(cpu), 0)) {
            vcpu_raise_error(cpu, EXC_GP, 0);
            deliver(vm);
            continue;
        }
        bool is_debugged = cpu->eflags_sys & (EFL_TF | EFL_RF);
        bool is_direct = cpu->cpl == 3 && vm->config.bt.user_direct && vm->config.host.direct;
        if (handle(vm, is_debugged ? run_debugged(vm) : is_direct ? run_user(vm) : bt_run(cpu), out) == END)
            return;
    }
}
