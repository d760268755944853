/*
 * The oracle: runs a case on the host's own processor, in a 32-bit code segment of the
 * LDT, and records everything a program can see.
 *
 * A UD2 in 64-bit code raises SIGILL; the handler rewrites the signal frame so that
 * sigreturn itself loads every register, flag and the FPU image and enters the 32-bit
 * segment. The case ends with an exception, whose signal frame holds the complete state;
 * the handler copies it out and puts the first frame back. FS holds a case selector
 * meanwhile, so nothing on that path may use thread-local data (this file is compiled
 * without the stack protector).
 *
 * Ref: modify_ldt(2), sigreturn(2); Intel SDM vol. 3A, ch. 3 "Protected-Mode Memory
 * Management".
 */
#include <cpuid.h>
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/diff/case.h"

enum phase { PHASE_IDLE, PHASE_START, PHASE_RUNNING };

static struct {
    volatile enum phase phase;
    const struct diff_case *current;
    struct diff_result *result;
    volatile unsigned ticks; /* of the watchdog since the case began */
    gregset_t host;
    uint8_t host_fx[512];
    uint64_t fs_base;
    bool has_rodata; /* that page is alike in all cases */
} oracle;

/* Bits of the first reserved words of an XSAVE header: x87 and SSE. */
#define XSTATE_X87_SSE         3u
#define SW_RESERVED_OFS        464u /* struct _fpx_sw_bytes in the FXSAVE image */
#define FP_XSTATE_MAGIC1_VALUE 0x46505853u

static void load_fx(ucontext_t *uc, const uint8_t *fx)
{
    uint8_t *frame = (uint8_t *)uc->uc_mcontext.fpregs;
    uint32_t magic;
    uint64_t xstate_bv;

    memcpy(frame, fx, 288); /* XMM8 and up, and the kernel's words, stay */
    memcpy(&magic, frame + SW_RESERVED_OFS, 4);
    if (magic != FP_XSTATE_MAGIC1_VALUE)
        return;
    memcpy(&xstate_bv, frame + 512, 8);
    xstate_bv |= XSTATE_X87_SSE;
    memcpy(frame + 512, &xstate_bv, 8);
}

static void enter_case(ucontext_t *uc)
{
    const struct diff_state *s = &oracle.current->init;
    greg_t *g = uc->uc_mcontext.gregs;

    memcpy(oracle.host, g, sizeof oracle.host);
    memcpy(oracle.host_fx, uc->uc_mcontext.fpregs, sizeof oracle.host_fx);
    g[REG_RAX] = s->gpr[EAX];
    g[REG_RCX] = s->gpr[ECX];
    g[REG_RDX] = s->gpr[EDX];
    g[REG_RBX] = s->gpr[EBX];
    g[REG_RSP] = s->gpr[ESP];
    g[REG_RBP] = s->gpr[EBP];
    g[REG_RSI] = s->gpr[ESI];
    g[REG_RDI] = s->gpr[EDI];
    g[REG_RIP] = s->eip;
    g[REG_EFL] = s->eflags;
    g[REG_CSGSFS] = (g[REG_CSGSFS] & 0x0000ffffffff0000ll) | CASE_SEL_CS | (greg_t)CASE_SEL_DS << 48;
    load_fx(uc, s->fx);
    oracle.ticks = 0;
    oracle.phase = PHASE_RUNNING;
}

static uint16_t read_sel(int seg)
{
    uint32_t v = 0;

    switch (seg) {
    case SEG_DS:
        __asm__("mov %%ds, %0" : "=r"(v));
        break;
    case SEG_ES:
        __asm__("mov %%es, %0" : "=r"(v));
        break;
    case SEG_FS:
        __asm__("mov %%fs, %0" : "=r"(v));
        break;
    case SEG_GS:
        __asm__("mov %%gs, %0" : "=r"(v));
        break;
    default:
        break;
    }
    return (uint16_t)v;
}

static void leave_case(ucontext_t *uc, int sig)
{
    struct diff_result *r = oracle.result;
    greg_t *g = uc->uc_mcontext.gregs;
    struct diff_state *s = &r->state;

    s->gpr[EAX] = (uint32_t)g[REG_RAX];
    s->gpr[ECX] = (uint32_t)g[REG_RCX];
    s->gpr[EDX] = (uint32_t)g[REG_RDX];
    s->gpr[EBX] = (uint32_t)g[REG_RBX];
    s->gpr[ESP] = (uint32_t)g[REG_RSP];
    s->gpr[EBP] = (uint32_t)g[REG_RBP];
    s->gpr[ESI] = (uint32_t)g[REG_RSI];
    s->gpr[EDI] = (uint32_t)g[REG_RDI];
    s->eip = (uint32_t)g[REG_RIP];
    s->eflags = (uint32_t)g[REG_EFL];
    for (int seg = 0; seg < SEG_COUNT; seg++)
        s->sel[seg] = read_sel(seg);
    s->sel[SEG_CS] = (uint16_t)g[REG_CSGSFS];
    s->sel[SEG_SS] = (uint16_t)(g[REG_CSGSFS] >> 48);
    memcpy(s->fx, uc->uc_mcontext.fpregs, sizeof s->fx);

    r->end = sig == SIGALRM ? END_HANG : END_FAULT;
    r->vector = (uint8_t)g[REG_TRAPNO];
    r->error = (uint32_t)g[REG_ERR];
    r->cr2 = r->vector == EXC_PF ? (uint32_t)g[REG_CR2] : 0;
    for (int i = 0; i < CASE_PAGES; i++)
        memcpy(r->mem[i], (const void *)(uintptr_t)case_page_va[i], CASE_PAGE);

    memcpy(g, oracle.host, sizeof oracle.host);
    g[REG_RIP] += 2; /* past the UD2 */
    memcpy((void *)uc->uc_mcontext.fpregs, oracle.host_fx, 464);
    oracle.phase = PHASE_IDLE;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    (void)info;
    /* Linux clears DF for a handler but leaves AC, with which misaligned accesses would fault, and
     * sigreturn takes ID and NT from here and not from the frame. */
    __asm__ volatile("pushfq\n\tandl %0, (%%rsp)\n\tpopfq"
                     :
                     : "i"(~(EFL_AC | EFL_ID | EFL_NT))
                     : "memory", "cc");
    if (sig == SIGALRM && (oracle.phase != PHASE_RUNNING || oracle.ticks++ < 2))
        return;
    if (oracle.phase == PHASE_START && sig == SIGILL)
        enter_case(uc);
    else if (oracle.phase == PHASE_RUNNING && (uc->uc_mcontext.gregs[REG_CSGSFS] & 0xffff) != 0x33)
        leave_case(uc, sig);
    else if (sig != SIGALRM)
        _exit(90); /* a bug of ours: without FS even abort() could not run */
}

/* Load the case's segment registers, trap into enter_case, and come back afterwards. */
static void run_in_segment(void)
{
    oracle.phase = PHASE_START;
    const struct diff_state *s = &oracle.current->init;

    __asm__ volatile("mov %[ds], %%ds\n\t"
                     "mov %[es], %%es\n\t"
                     "mov %[fs], %%fs\n\t"
                     "mov %[gs], %%gs\n\t"
                     "ud2\n\t"
                     "xor %%eax, %%eax\n\t"
                     "mov %%eax, %%ds\n\t"
                     "mov %%eax, %%es\n\t"
                     "mov %%eax, %%fs\n\t"
                     "mov %%eax, %%gs\n\t"
                     "mov %[nr], %%eax\n\t"
                     "mov %[set_fs], %%edi\n\t"
                     "mov %[base], %%rsi\n\t"
                     "syscall\n\t"
                     :
                     : [ds] "r"((uint32_t)s->sel[SEG_DS]), [es] "r"((uint32_t)s->sel[SEG_ES]),
                       [fs] "r"((uint32_t)s->sel[SEG_FS]), [gs] "r"((uint32_t)s->sel[SEG_GS]),
                       [nr] "i"(SYS_arch_prctl), [set_fs] "i"(0x1002), [base] "m"(oracle.fs_base)
                     : "rax", "rcx", "rdi", "rsi", "r11", "memory", "cc");
}

static int set_descriptor(struct user_desc d)
{
    d.useable = 1;
    return (int)syscall(SYS_modify_ldt, 0x11, &d, sizeof d);
}

static int make_segments(void)
{
    const struct user_desc table[] = {
        { .entry_number = CASE_SEL_ODD >> 3, .base_addr = CASE_ODD_BASE, .limit = CASE_ODD_LIMIT },
        { .entry_number = CASE_SEL_DOWNGS >> 3, .base_addr = CASE_DOWNGS_BASE, .limit = CASE_DOWNGS_LIMIT, .contents = 1 },
        { .entry_number = CASE_SEL_CS >> 3, .limit = 0xfffff, .limit_in_pages = 1, .contents = 2 },
        { .entry_number = CASE_SEL_FS >> 3, .base_addr = CASE_DATA, .limit = 0xfffff, .limit_in_pages = 1 },
        { .entry_number = CASE_SEL_GS >> 3, .base_addr = CASE_DATA, .limit = CASE_GS_LIMIT },
        { .entry_number = CASE_SEL_RO >> 3, .limit = 0xfffff, .limit_in_pages = 1, .read_exec_only = 1 },
        { .entry_number = CASE_SEL_DOWN >> 3, .limit = CASE_DOWN_LIMIT, .limit_in_pages = 1, .contents = 1 },
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct user_desc d = table[i];

        d.seg_32bit = d.entry_number != CASE_SEL_ODD >> 3;
        if (set_descriptor(d))
            return -errno;
    }
    return 0;
}

static int map_pages(void)
{
    for (int i = 0; i < CASE_PAGES; i++) {
        void *want = (void *)(uintptr_t)case_page_va[i];
        void *p = mmap(want, CASE_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

        if (p == MAP_FAILED)
            return -errno;
        if (p != want)
            return -EEXIST;
    }
    return 0;
}

int oracle_init(void)
{
    static uint8_t alt_stack[128 * 1024] __attribute__((aligned(64)));
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGALRM };
    stack_t stack = { .ss_sp = alt_stack, .ss_size = sizeof alt_stack };
    struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    struct itimerval timer = { .it_interval = { 0, 100000 }, .it_value = { 0, 100000 } };
    int rc = map_pages();

    if (!rc)
        rc = make_segments();
    if (rc)
        return rc;
    if (syscall(SYS_arch_prctl, 0x1003, &oracle.fs_base))
        return -errno;
    sigfillset(&sa.sa_mask);
    if (sigaltstack(&stack, NULL))
        return -errno;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        if (sigaction(signals[i], &sa, NULL))
            return -errno;
    return setitimer(ITIMER_REAL, &timer, NULL) ? -errno : 0;
}

void oracle_run(const struct diff_case *c, struct diff_result *out)
{
    void *ro = (void *)(uintptr_t)CASE_RODATA;

    memset(out, 0, offsetof(struct diff_result, mem));
    case_fill_memory(c, out->mem);
    if (!oracle.has_rodata) {
        memcpy(ro, out->mem[PAGE_RODATA], CASE_PAGE);
        mprotect(ro, CASE_PAGE, PROT_READ | PROT_EXEC);
        oracle.has_rodata = true;
    }
    for (int i = 0; i < CASE_PAGES; i++)
        if (i != PAGE_RODATA)
            memcpy((void *)(uintptr_t)case_page_va[i], out->mem[i], CASE_PAGE);
    oracle.current = c;
    oracle.result = out;
    run_in_segment();
}

/* ---- the host's x87 ------------------------------------------------------------------ */

static bool keeps_no_opcode(void)
{
    uint32_t env[7];

    __asm__ volatile("fninit\n\tfld1\n\tfnstenv %0\n\tfninit" : "=m"(env));
    return !(env[4] >> 16 & 0x7ff);
}

void oracle_host_x87(struct host_x87 *out)
{
    uint32_t eax, ebx = 0, ecx, edx;

    *out = (struct host_x87){ .fop_on_exception = keeps_no_opcode() };
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        out->fdp_on_exception = ebx >> 6 & 1;
        out->no_fcs_fds = ebx >> 13 & 1;
    }
    __cpuid(0, eax, ebx, ecx, edx);
    if (ebx == signature_AMD_ebx && __get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx))
        out->fxsave_leaves_out = !(ebx >> 2 & 1);
}
