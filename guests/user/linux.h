/*
 * A program for 32-bit Linux without a libc: system calls through INT 80h, signals, printing.
 * It defines start().
 */
#ifndef GUESTS_USER_LINUX_H
#define GUESTS_USER_LINUX_H

#include <asm/unistd_32.h>
#include <stddef.h>
#include <stdint.h>

#define UNUSED __attribute__((unused))

/* ---- Linux ------------------------------------------------------------------------------- */

static UNUSED int sys(int nr, long a, long b, long c, long d, long e)
{
    int result;

    __asm__ volatile("int $0x80" : "=a"(result) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}

#define SYS(nr, a, b, c) sys(__NR_##nr, (long)(a), (long)(b), (long)(c), 0, 0)

enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGSEGV = 11, SIGSTOP = 19 };
enum { SA_SIGINFO = 4, SA_NODEFER = 0x40000000, SA_ONSTACK = 0x08000000, SA_RESTORER = 0x04000000 };
enum { PTRACE_TRACEME = 0, PTRACE_PEEKUSR = 3, PTRACE_POKEUSR = 6, PTRACE_CONT = 7, PTRACE_SINGLESTEP = 9 };
enum { PROT_RWX = 7, MAP_PRIVATE_ANON = 0x22 };

struct kernel_sigaction {
    void (*handler)(int, int *, uint32_t *);
    uint32_t flags;
    void (*restorer)(void);
    uint32_t mask[2];
};

/* ucontext of i386: flags, link, stack (3 words), then the registers. */
enum {
    UC_GS = 5,
    UC_FS,
    UC_ES,
    UC_DS,
    UC_EDI,
    UC_ESI,
    UC_EBP,
    UC_ESP,
    UC_EBX,
    UC_EDX,
    UC_ECX,
    UC_EAX,
    UC_TRAPNO,
    UC_ERR,
    UC_EIP,
    UC_CS,
    UC_EFL,
    UC_UESP,
    UC_SS
};

/* ---- printing ------------------------------------------------------------------------------ */

static char line[4096];
static unsigned used;

static UNUSED void put(char c)
{
    if (used < sizeof line)
        line[used++] = c;
}

static UNUSED void puts_(const char *s)
{
    while (*s)
        put(*s++);
}

static UNUSED void hex(uint32_t v, unsigned digits)
{
    for (unsigned i = digits; i-- > 0;)
        put("0123456789abcdef"[v >> 4 * i & 15]);
}

static UNUSED void flush(void)
{
    put('\n');
    SYS(write, 1, line, used);
    used = 0;
}

static UNUSED void field(const char *name, uint32_t v)
{
    puts_(name);
    put('=');
    hex(v, 8);
    put(' ');
}

/* ---- signals and children ------------------------------------------------------------------- */

__asm__("restore: mov $173, %eax\n int $0x80\n");
extern void restore(void);

static UNUSED void catch_all(void (*handler)(int, int *, uint32_t *))
{
    struct kernel_sigaction sa = { .handler = handler,
                                   .flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTORER,
                                   .restorer = restore };

    for (int sig = 1; sig < 32; sig++)
        if (sig != SIGKILL && sig != SIGSTOP && sig != 17)
            sys(__NR_rt_sigaction, sig, (long)&sa, 0, 8, 0);
}

static UNUSED int wait_for(int pid)
{
    int status = 0;

    while (SYS(waitpid, pid, &status, 0) == -4)
        ;
    return status;
}

/* ---- start ------------------------------------------------------------------------------------ */

void start(void);
__asm__(".globl _start\n_start: and $-16, %esp\n call start\n");

#endif
