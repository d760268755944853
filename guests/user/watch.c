/*
 * Breakpoints as a debugger has them: a tracer sets the debug registers of its child by ptrace, lets it run
 * one access or a few instructions, and prints where it stopped and what DR6 said; and code that steps itself
 * by TF, with instructions that set and clear it.
 *
 * Prints the same on the host's own processor, which is what tests/guest/user compares. Left out is what
 * processors differ in: REP MOVS and REP STOS may report a breakpoint some iterations late.
 */
#include "linux.h"

static uint8_t bytes[3 * 4096] __attribute__((used, aligned(4096)));
__asm__(".set watched, bytes + 4096 + 64\n.set page_end, bytes + 8192");
extern uint8_t watched[], page_end[];
static uint8_t signal_stack[16384];
static uint8_t own_stack[8192] __attribute__((used, aligned(16)));

/* A piece of code that ends by exit(0), called with a stack of its own. */
#define PIECE(name, text)                                                                                    \
    extern const uint8_t c_##name[];                                                                         \
    __asm__(".text\nc_" #name ":\n" text "\n mov $1, %eax\n xor %ebx, %ebx\n int $0x80\n.skip 16, 0xcc\n")

enum { ON_FETCH, ON_WRITE, ON_ACCESS = 3 };

struct piece {
    const char *name;
    const uint8_t *code;
    struct {
        uint32_t kind, at, len; /* len 0: none; at: of ON_FETCH an offset in the code */
    } breaks[2];
    unsigned stepped;
};

PIECE(store, "mov %eax, watched; nop; nop");
PIECE(load, "mov watched, %eax; nop");
PIECE(below, "movb $1, watched - 1; movw $1, watched - 2; movl $1, watched - 4; nop");
PIECE(above, "movb $1, watched + 4; nop");
PIECE(into, "movl $1, watched - 1; movl $1, watched + 3; movw $1, watched - 1; nop");
PIECE(rmw, "addl $1, watched; orb $1, watched + 3; lock; incl watched; notl watched; nop");
PIECE(reads, "cmpl $1, watched; testb $1, watched + 2; btl $3, watched; nop");
PIECE(xchg, "xchg %eax, watched; nop");
PIECE(cmpxchg, "mov $1, %eax; mov $9, %ecx; cmpxchg %ecx, watched; xor %eax, %eax; cmpxchg %ecx, watched; nop");
PIECE(cmpxchg8b, "cmpxchg8b watched - 4; nop");
PIECE(bts, "mov $watched, %ebx; mov $-33, %ecx; bts %ecx, 8(%ebx); bts %ecx, (%ebx); nop");
PIECE(shld, "shld $3, %eax, watched; nop");
PIECE(push, "mov $watched + 8, %esp; push %eax; push $5; nop");
PIECE(push_mem, "pushl watched; popl watched; nop");
PIECE(pop, "mov $watched - 4, %esp; pop %eax; pop %eax; nop");
PIECE(pusha, "mov $watched + 16, %esp; pusha; popa; nop");
PIECE(pushf, "mov $watched + 4, %esp; pushf; popf; nop");
PIECE(enter, "mov $watched + 4, %esp; enter $16, $0; leave; nop");
PIECE(call, "mov $watched + 4, %esp; call 1f; jmp 2f; 1: ret; 2: nop");
PIECE(movs, "mov $watched, %edi; mov $bytes, %esi; movsl; mov $watched, %esi; movsb; nop");
PIECE(stos, "mov $watched, %edi; stosb; mov $watched, %edi; scasb; mov $watched, %esi; lodsl; nop");
PIECE(xlat, "mov $watched - 5, %ebx; mov $5, %al; xlat; nop");
PIECE(lea, "lea watched, %eax; nop");
PIECE(x87, "fldz; fstpl watched - 4; fstpt watched - 9; fldz; fstpt watched - 10; fldl watched - 7; fnstcw watched + 3; nop");
PIECE(fnsave, "fnsave watched - 104; nop");
PIECE(sse, "movups watched - 13, %xmm0; movups watched - 16, %xmm0; movaps %xmm0, watched; movq %xmm0, watched - 4; nop");
PIECE(cmov, "xor %eax, %eax; cmovne watched, %eax; nop");
PIECE(split, "movl $1, page_end - 1; mov page_end - 2, %eax; movl $1, page_end - 4; nop");
PIECE(line, "nop; inc %eax; nop; .byte 0x66, 0x90; nop");
PIECE(loop, "mov $3, %ecx; 1: inc %eax; dec %ecx; jnz 1b; nop");
PIECE(calls, "call 1f; nop; jmp 2f; 1: inc %eax; ret; 2: nop");
PIECE(lods, "mov $watched - 4, %esi; mov $6, %ecx; rep lodsb; nop");
PIECE(mov_ss, "mov %ss, %eax; mov %eax, %ss; nop; nop");
PIECE(mov_ss_mem, "mov %ss, %eax; mov %eax, bytes; mov bytes, %ss; nop; nop; nop");
PIECE(mov_ss_twice, "mov %ss, %eax; mov %eax, bytes; mov bytes, %ss; movl $1, bytes + 4; nop; nop");
PIECE(scans, "mov $watched - 3, %edi; mov $9, %ecx; repe scasb; mov $watched - 1, %esi; mov $bytes, %edi; mov $3, %ecx;"
             " repe cmpsw; nop");
PIECE(int3, "nop; int3; nop");
PIECE(bound, "xor %eax, %eax; bound %eax, watched - 4; nop");
PIECE(fault, "mov $watched, %esi; xor %edi, %edi; movsl; nop");
PIECE(kernel, "mov $122, %eax; mov $watched - 100, %ebx; int $0x80; nop; nop");

#define WATCH(kind, ofs, len) { kind, (uint32_t)(ofs), len }
#define W4 { WATCH(ON_WRITE, 0, 4) }
#define A4 { WATCH(ON_ACCESS, 0, 4) }
#define BOTH(name) { #name ", writes", c_##name, W4, 0 }, { #name ", accesses", c_##name, A4, 0 }
#define FETCH(name, ofs) { #name ", fetch", c_##name, { WATCH(ON_FETCH, ofs, 1) }, 0 }

static const struct piece pieces[] = {
    BOTH(store), BOTH(load), BOTH(below), BOTH(above), BOTH(into), BOTH(rmw), BOTH(reads), BOTH(xchg),
    BOTH(cmpxchg), BOTH(cmpxchg8b), BOTH(bts), BOTH(shld), BOTH(push), BOTH(push_mem), BOTH(pop), BOTH(pusha),
    BOTH(pushf), BOTH(enter), BOTH(call), BOTH(movs), BOTH(stos), BOTH(xlat), BOTH(lea), BOTH(x87), BOTH(fnsave),
    BOTH(sse), BOTH(cmov), BOTH(lods), BOTH(fault), BOTH(scans), BOTH(bound),
    { "split, second page", c_split, { WATCH(ON_ACCESS, 4096 - 64, 1) }, 0 },
    { "split, both pages", c_split, { WATCH(ON_ACCESS, 4096 - 68, 4), WATCH(ON_WRITE, 4096 - 64, 2) }, 0 },
    { "two at once", c_store, { WATCH(ON_WRITE, 0, 1), WATCH(ON_ACCESS, 2, 2) }, 0 },
    { "two, one of them", c_store, { WATCH(ON_WRITE, 4, 4), WATCH(ON_ACCESS, 2, 1) }, 0 },
    FETCH(line, 0), FETCH(line, 1), FETCH(line, 3), FETCH(line, 4), FETCH(loop, 5), FETCH(loop, 7), FETCH(calls, 8),
    FETCH(calls, 5), FETCH(mov_ss, 4), FETCH(mov_ss, 5), FETCH(lods, 10), FETCH(int3, 1),
    { "mov ss from memory", c_mov_ss_mem, { WATCH(ON_ACCESS, -4096 - 64, 4) }, 0 },
    { "mov ss from memory, then a store", c_mov_ss_twice, { WATCH(ON_ACCESS, -4096 - 64, 4), WATCH(ON_WRITE, -4096 - 60, 4) }, 0 },
    { "stepped mov ss from memory", c_mov_ss_mem, { WATCH(ON_ACCESS, -4096 - 64, 4) }, 12 },
    { "stepped lods", c_lods, A4, 20 },
    { "fetch after a load", c_load, { WATCH(ON_FETCH, 5, 1), WATCH(ON_ACCESS, 0, 4) }, 0 },
    { "stepped store before a breakpoint", c_store, { WATCH(ON_FETCH, 5, 1), WATCH(ON_WRITE, 0, 4) }, 12 },
    { "fetch and store", c_store, { WATCH(ON_FETCH, 5, 1), WATCH(ON_WRITE, 0, 4) }, 0 },
    { "stepped store", c_store, W4, 12 },
    { "stepped line with a breakpoint", c_line, { WATCH(ON_FETCH, 2, 1) }, 12 },
    { "stepped mov ss", c_mov_ss, { { 0, 0, 0 } }, 12 },
    { "by the kernel", c_kernel, { WATCH(ON_WRITE, 0, 4) }, 0 },
};

/* ---- the tracer -------------------------------------------------------------------------------------- */

#define USER_EIP (12 * 4)
#define USER_EFL (14 * 4)
#define USER_DR(n) (252 + 4 * (n))

static uint32_t peek(int pid, uint32_t at)
{
    uint32_t v = 0;

    sys(__NR_ptrace, PTRACE_PEEKUSR, pid, (long)at, (long)&v, 0);
    return v;
}

static void poke(int pid, uint32_t at, uint32_t v)
{
    if (sys(__NR_ptrace, PTRACE_POKEUSR, pid, (long)at, (long)v, 0) != 0)
        puts_(" refused");
}

static void child(const struct piece *p)
{
    SYS(ptrace, PTRACE_TRACEME, 0, 0);
    SYS(kill, SYS(getpid, 0, 0, 0), SIGSTOP, 0);
    __asm__ volatile("mov %0, %%esp\n xor %%eax, %%eax\n xor %%edx, %%edx\n jmp *%1"
                     :
                     : "S"(own_stack + sizeof own_stack - 256), "D"(p->code)
                     : "memory");
}

static void set_breakpoints(int pid, const struct piece *p)
{
    uint32_t dr7 = 0;

    for (unsigned i = 0; i < 2; i++) {
        uint32_t kind = p->breaks[i].kind, len = p->breaks[i].len;

        if (!len)
            continue;
        poke(pid, USER_DR(i), p->breaks[i].at + (kind == ON_FETCH ? (uint32_t)p->code : (uint32_t)watched));
        dr7 |= 1u << 2 * i | kind << (16 + 4 * i) | (len - 1) << (18 + 4 * i);
    }
    poke(pid, USER_DR(7), dr7);
}

static void run_piece(const struct piece *p)
{
    int pid = SYS(fork, 0, 0, 0);

    if (pid == 0)
        child(p);
    int status = wait_for(pid);
    unsigned left = p->stepped;
    puts_(p->name);
    put(':');
    set_breakpoints(pid, p);
    for (unsigned n = 0; n < 400 && (status & 0xff) == 0x7f; n++) {
        uint32_t ofs = peek(pid, USER_EIP) - (uint32_t)p->code, dr6 = peek(pid, USER_DR(6));

        if (n && ofs < 256) {
            put(' ');
            hex(ofs, 2);
            put('/');
            hex(dr6 & 0xe00f, 4);
            put('/');
            hex(status >> 8 & 0xff, 2);
            poke(pid, USER_DR(6), 0);
            left -= left != 0;
        }
        int is_fault = n && (status >> 8 & 0xff) != SIGTRAP;
        sys(__NR_ptrace, left ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, 0, is_fault ? SIGKILL : 0, 0);
        status = wait_for(pid);
    }
    field(" status", (uint32_t)status);
    flush();
}

/* ---- stepping by itself ------------------------------------------------------------------------------ */

/* Code that ends by printing what its handler has gathered. */
#define SELF(name, text)                                                                                     \
    extern const uint8_t c_##name[];                                                                         \
    __asm__(".section .wtext, \"awx\"\nc_" #name ":\n" text "\n call self_ends\n.skip 16, 0xcc\n.text\n")

void self_ends(void);
void self_ends(void)
{
    flush();
    SYS(exit, 0, 0, 0);
}

#define SETS "pushf; orl $0x100, (%esp); popf; "
#define CLEARS "pushf; andl $~0x100, (%esp); popf; "
SELF(popf, SETS "nop; " CLEARS "nop; nop");
SELF(popfw, SETS "nop; pushfw; andw $~0x100, (%esp); popfw; nop; nop");
SELF(iret, "pushf; orl $0x100, (%esp); push %cs; push $1f; iret; 1: nop; nop; pushf; andl $~0x100, (%esp); push %cs;"
            " push $2f; iret; nop; 2: nop; nop");
SELF(jumps, SETS "jmp 1f; nop; 1: jz 1f; nop; 1: mov $2, %ecx; 2: loop 2b; jecxz 3f; nop; 3: " CLEARS "nop");
SELF(far, SETS "push %cs; push $1f; lret; 1: push %cs; call 2f; jmp 3f; 2: lret; 3: " CLEARS "nop");
SELF(strings, SETS "mov $bytes, %edi; mov $3, %ecx; rep stosb; mov $bytes + 64, %edi; mov $2, %ecx; repe scasb; xor %ecx, %ecx;"
               " rep stosb; " CLEARS "nop");
SELF(stack, SETS "mov %ss, %eax; mov %eax, %ss; nop; push %ss; pop %ss; nop; " CLEARS "nop");
SELF(system, SETS "mov $20, %eax; int $0x80; nop; cpuid; mov %ds, %eax; mov %eax, %ds; " CLEARS "nop");
SELF(written, SETS "movb $0x41, 1f; 1: nop; nop; " CLEARS "nop");
SELF(div0, SETS "xor %ecx, %ecx; div %ecx; " CLEARS "nop");

static const struct {
    const char *name;
    const uint8_t *code;
} selves[] = {
    { "self popf", c_popf },   { "self popfw", c_popfw },     { "self iret", c_iret },
    { "self jumps", c_jumps }, { "self far", c_far },         { "self strings", c_strings },
    { "self stack", c_stack }, { "self system", c_system }, { "self writes", c_written },
    { "self divides", c_div0 },
};

static const uint8_t *self_code;

static void on_trap(int sig, int *info, uint32_t *uc)
{
    uint32_t ofs = uc[UC_EIP] - (uint32_t)self_code;

    (void)info;
    put(' ');
    hex(ofs < 256 ? ofs : 0xff, 2);
    if (sig != SIGTRAP) {
        put('/');
        hex((uint32_t)sig, 2);
        put(uc[UC_EFL] & 0x100 ? 't' : '-');
        uc[UC_EIP] += 2;
    }
}

static void run_self(unsigned i)
{
    int pid = SYS(fork, 0, 0, 0);

    if (pid == 0) {
        catch_all(on_trap);
        self_code = selves[i].code;
        puts_(selves[i].name);
        put(':');
        __asm__ volatile("mov %0, %%esp\n xor %%eax, %%eax\n jmp *%1"
                         :
                         : "S"(own_stack + sizeof own_stack - 256), "D"(self_code)
                         : "memory");
    }
    wait_for(pid);
}

void start(void)
{
    uint32_t stack[3] = { (uint32_t)signal_stack, 0, sizeof signal_stack };

    SYS(sigaltstack, stack, 0, 0);
    puts_("watchpoints:");
    flush();
    for (unsigned i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        run_piece(&pieces[i]);
    for (unsigned i = 0; i < sizeof selves / sizeof selves[0]; i++)
        run_self(i);
    puts_("end of watchpoints");
    flush();
    SYS(exit, 0, 0, 0);
}
