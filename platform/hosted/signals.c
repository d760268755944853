/*
 * Host signals.
 *
 * No engine code runs in a handler: Linux gives a handler a cleared FPU, and the guest's
 * state may be anywhere. A fault in translated code is noted in the vCPU, and the
 * interrupted context is pointed at the exit stub, which saves the guest's registers
 * and returns to the dispatcher with EXIT_HOST. The other handlers set a word.
 *
 * All handlers run on an alternate stack, since RSP in translated code is the shadow
 * return stack. When that stack runs over its end, the `call` that hit the guard page
 * runs again with the stack empty: the entries lost were only predictions.
 *
 * A fault anywhere else is ours: it is reported and then taken again by the default
 * action, for a core file.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/hosted/hosted_internal.h"

#define ALT_STACK_BYTES (128u << 10)
#define HOST_EFL_TF     0x100
#define HOST_EFL_RF     0x10000

uintptr_t hosted_exit_stub;
static volatile sig_atomic_t stop_requests;
extern const char __executable_start[];

/* ---- faults ------------------------------------------------------------------------ */

/* Did the instruction fault on its own stack, below what it held? */
static bool is_push(const greg_t *regs, uintptr_t address)
{
    return (uintptr_t)regs[REG_RSP] - address <= 16;
}

/* @return true when the interrupted context may simply continue. */
static bool fault_in_translated_code(int sig, const siginfo_t *info, ucontext_t *uc)
{
    struct vcpu *cpu = hosted_vcpu;
    greg_t *regs = uc->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)regs[REG_RIP], address = (uintptr_t)info->si_addr;

    if (!cpu || !hosted_exit_stub || !hosted_in_code(rip))
        return false;
    if (sig == SIGSEGV && is_push(regs, address) && hosted_in_guard(address)) {
        regs[REG_RSP] = (greg_t)cpu->shadow_top;
        return true;
    }
    cpu->host_signal = sig;
    cpu->host_code = info->si_code;
    cpu->host_rip = rip;
    cpu->host_addr = address;
    cpu->host_is_write = (regs[REG_ERR] & PF_WR) != 0;
    regs[REG_RIP] = (greg_t)hosted_exit_stub;
    regs[REG_EFL] &= ~(greg_t)(HOST_EFL_TF | HOST_EFL_RF);
    return true;
}

static void report_fault(int sig, const siginfo_t *info, const ucontext_t *uc)
{
    static const struct {
        const char *name;
        int reg;
    } shown[] = {
        { "rax", REG_RAX }, { "rbx", REG_RBX }, { "rcx", REG_RCX }, { "rdx", REG_RDX }, { "rsi", REG_RSI },
        { "rdi", REG_RDI }, { "rbp", REG_RBP }, { "rsp", REG_RSP }, { "r8", REG_R8 },   { "r9", REG_R9 },
        { "r10", REG_R10 }, { "r11", REG_R11 }, { "r12", REG_R12 }, { "r13", REG_R13 }, { "r14", REG_R14 },
        { "r15", REG_R15 }, { "rip", REG_RIP }, { "efl", REG_EFL },
    };
    char text[1024];
    const greg_t *regs = uc->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)regs[REG_RIP];
    int n = fmt_format(text, sizeof text,
                       "ringdown: internal error: signal %d (code %d) at host RIP 0x%llx (program+0x%llx%s), "
                       "address 0x%llx\n",
                       sig, info->si_code, (unsigned long long)rip,
                       (unsigned long long)(rip - (uintptr_t)__executable_start),
                       hosted_in_code(rip) ? ", in translated code" : "",
                       (unsigned long long)(uintptr_t)info->si_addr);

    for (unsigned i = 0; i < ARRAY_LEN(shown) && (size_t)n < sizeof text; i++)
        n += fmt_format(text + n, sizeof text - (size_t)n, "%s=0x%016llx%s", shown[i].name,
                        (unsigned long long)regs[shown[i].reg], i % 6 == 5 ? "\n" : " ");
    ssize_t written = write(STDERR_FILENO, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    (void)written;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    static volatile sig_atomic_t dying;
    ucontext_t *uc = context;
    bool is_sent = info->si_code <= 0 && info->si_code != SI_KERNEL;

    if (!dying && !is_sent && fault_in_translated_code(sig, info, uc))
        return;
    signal(sig, SIG_DFL);
    if (!dying) {
        dying = 1;
        hosted_emergency();
        report_fault(sig, info, uc);
        hosted_report_vcpu();
    }
    if (is_sent)
        raise(sig);
    /* else the same instruction faults again, now fatally */
}

/* abort(), Ctrl-\ and signals that mean nothing to us: nothing to explain, but the terminal goes back. */
static void on_death(int sig, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    signal(sig, SIG_DFL);
    hosted_emergency();
    raise(sig);
}

/* ---- events ------------------------------------------------------------------------- */

static void on_alarm(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    uintptr_t rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

    (void)sig, (void)info;
    if (hosted_vcpu && hosted_in_code(rip))
        hosted_vcpu->sample_rip = rip;
    hosted_timer_fired();
}

static void on_io(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    hosted_event_io = 1;
    hosted_kick();
}

static void on_continue(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    hosted_event_cont = 1;
    hosted_kick();
}

/* A clean end is tried first; the third request doubts that it will come. */
static void on_stop(int sig, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (++stop_requests >= 3) {
        hosted_emergency();
        _exit(128 + sig);
    }
    hosted_event_stop = sig;
    hosted_kick();
}

static int install(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | flags;
    sigfillset(&action.sa_mask);
    /* A fault inside a handler must still reach us. */
    for (unsigned i = 0; i < 5; i++)
        sigdelset(&action.sa_mask, (const int[]){ SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP }[i]);
    return sigaction(sig, &action, NULL) < 0 ? -errno : 0;
}

int hosted_signals_init(void)
{
    static const struct {
        int sig, flags;
        void (*handler)(int, siginfo_t *, void *);
    } handlers[] = {
        { SIGSEGV, 0, on_fault },
        { SIGBUS, 0, on_fault },
        { SIGFPE, 0, on_fault },
        { SIGILL, 0, on_fault },
        { SIGTRAP, 0, on_fault },
        { SIGALRM, SA_RESTART, on_alarm },
        { SIGIO, SA_RESTART, on_io },
        { SIGINT, 0, on_stop },
        { SIGTERM, 0, on_stop },
        { SIGHUP, 0, on_stop },
        { SIGCONT, SA_RESTART, on_continue },
        { SIGABRT, 0, on_death },
        { SIGQUIT, 0, on_death },
        { SIGUSR1, 0, on_death },
        { SIGUSR2, 0, on_death },
        { SIGVTALRM, 0, on_death },
        { SIGPROF, 0, on_death },
        { SIGXCPU, 0, on_death },
        { SIGSTKFLT, 0, on_death },
        { SIGPWR, 0, on_death },
    };
    size_t frame = getauxval(AT_MINSIGSTKSZ), bytes = ALT_STACK_BYTES + 4 * frame;
    void *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return hosted_fail(-errno, "cannot make a signal stack: %s", strerror(errno));

    stack_t alt = { .ss_sp = stack, .ss_size = bytes };
    if (sigaltstack(&alt, NULL) < 0)
        return hosted_fail(-errno, "cannot set the signal stack: %s", strerror(errno));
    for (unsigned i = 0; i < ARRAY_LEN(handlers); i++) {
        int rc = install(handlers[i].sig, handlers[i].handler, handlers[i].flags);
        if (rc < 0)
            return hosted_fail(rc, "cannot handle signal %d: %s", handlers[i].sig, strerror(-rc));
    }
    /* write() says so as well */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    /* Our parent may have had them blocked: no timer would come, and no way to end. */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}
