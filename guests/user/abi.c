/*
 * What a 32-bit Linux program can see of its processor, printed line by line: signals with
 * their codes and addresses for every kind of crash, single-stepping by itself and by a
 * tracer, x87 and SSE state across context switches, segments of its own, code that it writes.
 *
 * The same program prints the same lines on the host's own processor (64-bit Linux runs it),
 * which is what tests/guest/user compares. No libc: system calls go through INT 80h.
 */
#include "linux.h"

/* ---- crashes --------------------------------------------------------------------------------- */

static uint32_t crash_start, page;

static void on_signal(int sig, int *info, uint32_t *uc)
{
    uint32_t eip = uc[UC_EIP] - crash_start;

    field("sig", (uint32_t)sig);
    field("code", (uint32_t)info[2]);
    /* Where it lies is the loader's choice; how far into a known page is not. */
    uint32_t addr = (uint32_t)info[3];
    field("addr", addr - crash_start < 4096 ? addr - crash_start
                  : addr - page < 16384     ? addr - page + 0x10000
                                            : addr);
    field("eip", eip);
    field("trap", uc[UC_TRAPNO]);
    /* The bit for fetches depends on NX. */
    field("err", uc[UC_TRAPNO] == 14 ? uc[UC_ERR] & 7 : uc[UC_ERR]);
    field("efl", uc[UC_EFL] & 0x4dd5);
    field("eax", uc[UC_EAX]);
    field("ecx", uc[UC_ECX]);
    field("esi", uc[UC_ESI] - page);
    field("edi", uc[UC_EDI] - page);
    field("esp", uc[UC_ESP] - page < 16384 ? uc[UC_ESP] - page : 0);
    flush();
    SYS(exit, 0, 0, 0);
}

struct crash {
    const char *name;
    uint8_t code[32];
};

/* clang-format off */
static const struct crash crashes[] = {
    { "ud2", { 0x0f, 0x0b } },
    { "undefined", { 0x0f, 0xff, 0xc0 } },
    { "lock nop", { 0xf0, 0x90 } },
    { "lock add reg", { 0xf0, 0x01, 0xc0 } },
    { "hlt", { 0xf4 } },
    { "cli", { 0xfa } },
    { "sti", { 0xfb } },
    { "in", { 0xe4, 0x80 } },
    { "out", { 0xe6, 0x80 } },
    { "insb", { 0x6c } },
    { "mov cr0", { 0x0f, 0x20, 0xc0 } },
    { "mov to cr3", { 0x0f, 0x22, 0xd8 } },
    { "mov dr7", { 0x0f, 0x21, 0xf8 } },
    { "lgdt", { 0x0f, 0x01, 0x16 } },
    { "lmsw", { 0x0f, 0x01, 0xf0 } },
    { "clts", { 0x0f, 0x06 } },
    { "invlpg", { 0x0f, 0x01, 0x3e } },
    { "wbinvd", { 0x0f, 0x09 } },
    { "rdmsr", { 0x0f, 0x32 } },
    { "wrmsr", { 0x0f, 0x30 } },
    { "int3", { 0xcc } },
    { "int 3", { 0xcd, 0x03 } },
    { "int 4", { 0xcd, 0x04 } },
    { "int 0dh", { 0xcd, 0x0d } },
    { "int ffh", { 0xcd, 0xff } },
    { "int 20h", { 0xcd, 0x20 } },
    { "into", { 0xb0, 0x7f, 0x04, 0x01, 0xce } },
    { "bound", { 0xc7, 0x06, 0x05, 0, 0, 0, 0xc7, 0x46, 0x04, 0x09, 0, 0, 0, 0x31, 0xc0, 0x62, 0x06 } },
    { "icebp", { 0xf1 } },
    { "div 0", { 0x31, 0xc9, 0xf7, 0xf1 } },
    { "div overflow", { 0xba, 5, 0, 0, 0, 0xb9, 5, 0, 0, 0, 0xf7, 0xf1 } },
    { "idiv overflow", { 0xb8, 0, 0, 0, 0x80, 0x99, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xf7, 0xf9 } },
    { "aam 0", { 0xd4, 0x00 } },
    { "div byte", { 0xb8, 0x00, 0x10, 0, 0, 0xb1, 0x01, 0xf6, 0xf1 } },
    { "load absent", { 0x8b, 0x07 } },
    { "store absent", { 0x89, 0x07 } },
    { "add absent", { 0x01, 0x07 } },
    { "load across", { 0x8b, 0x47, 0xfe } },
    { "store across", { 0x89, 0x47, 0xfe } },
    { "movsb to absent", { 0xa4 } },
    { "rep movsd to absent", { 0x83, 0xef, 0x08, 0xb9, 8, 0, 0, 0, 0xf3, 0xa5 } },
    { "rep stosb across", { 0x83, 0xef, 0x05, 0xb9, 99, 0, 0, 0, 0xf3, 0xaa } },
    { "rep lodsb", { 0x89, 0xfe, 0x83, 0xee, 0x02, 0xb9, 9, 0, 0, 0, 0xf3, 0xac } },
    { "push absent", { 0x89, 0xfc, 0x83, 0xc4, 0x04, 0x50 } },
    { "pop absent", { 0x89, 0xfc, 0x58 } },
    { "call, stack absent", { 0x89, 0xfc, 0x83, 0xc4, 0x04, 0xe8, 0, 0, 0, 0 } },
    { "ret to null", { 0x6a, 0x00, 0xc3 } },
    { "jmp absent", { 0xff, 0xe7 } },
    { "load null", { 0x8b, 0x05, 0, 0, 0, 0 } },
    { "mov ss, null", { 0x31, 0xc0, 0x8e, 0xd0 } },
    { "mov ds, bad", { 0xb8, 0xf8, 0xff, 0, 0, 0x8e, 0xd8 } },
    { "mov fs, kernel code", { 0xb8, 0x60, 0, 0, 0, 0x8e, 0xe0 } },
    { "mov cs", { 0x8e, 0xc8 } },
    { "gs null", { 0x31, 0xc0, 0x8e, 0xe8, 0x65, 0xa1, 0, 0, 0, 0 } },
    { "jmp far null", { 0xea, 0, 0, 0, 0, 0, 0 } },
    { "call far bad", { 0x9a, 0, 0, 0, 0, 0xf8, 0xff } },
    { "retf null", { 0x6a, 0, 0x6a, 0, 0xcb } },
    { "iret to kernel", { 0x6a, 0x02, 0x6a, 0x60, 0x6a, 0x00, 0xcf } },
    { "movaps misaligned", { 0x0f, 0x28, 0x46, 0x04 } },
    { "movaps absent", { 0x0f, 0x28, 0x07 } },
    { "movups across", { 0x0f, 0x10, 0x47, 0xf8 } },
    { "fld absent", { 0xdd, 0x07 } },
    { "fxsave misaligned", { 0x0f, 0xae, 0x46, 0x04 } },
    { "x87 divide", { 0xdb, 0xe3, 0x6a, 0x03, 0x66, 0x81, 0x0c, 0x24, 0x00, 0x03, 0x66, 0xc7, 0x04, 0x24, 0x3b, 0x03, 0xd9,
                      0x2c, 0x24, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b } },
    { "sse divide", { 0x68, 0x80, 0x1d, 0, 0, 0x0f, 0xae, 0x14, 0x24, 0x0f, 0x57, 0xc0, 0x0f, 0x57, 0xc9, 0x83, 0xc8, 0x01,
                      0xf3, 0x0f, 0x2a, 0xc8, 0xf3, 0x0f, 0x5e, 0xc8 } },
    { "ldmxcsr reserved", { 0x68, 0, 0, 0, 0x80, 0x0f, 0xae, 0x14, 0x24 } },
    { "trap flag", { 0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d, 0x90, 0x90, 0x90 } },
    { "trap flag, pop ss", { 0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x16, 0x17, 0x9d, 0x90, 0x90, 0x90 } },
    { "trap flag, rep", { 0xb9, 3, 0, 0, 0, 0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d, 0xf3, 0xac, 0x90 } },
    { "popf iopl", { 0x9c, 0x80, 0x4c, 0x24, 0x01, 0x30, 0x9d, 0xfa } },
    { "alignment", { 0x9c, 0x80, 0x4c, 0x24, 0x02, 0x04, 0x9d, 0x8b, 0x46, 0x01 } },
    { "long instruction", { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90 } },
    { "code runs out", { 0xeb, 0x7e } },
};
/* clang-format on */

/* ESI = a page of memory, EDI = the absent page after it, ESP in that page, flags clear. */
__asm__("enter_crash: mov 4(%esp), %eax\n mov 8(%esp), %esi\n lea 4096(%esi), %edi\n lea 2048(%esi), %esp\n"
        "push %eax\n xor %ebp, %ebp\n mov $3, %ebx\n mov $5, %ecx\n mov $4, %edx\n xor %eax, %eax\n ret\n");
extern void enter_crash(uint32_t code, uint32_t memory);

static void load_code(const uint8_t *bytes, unsigned len)
{
    volatile uint8_t *code = (volatile uint8_t *)page + 0x2000;

    for (unsigned i = 0; i < 4096; i++)
        code[i] = i < len ? bytes[i] : 0xcc;
}

static void run_crash(const struct crash *c)
{
    puts_(c->name);
    puts_(": ");
    load_code(c->code, sizeof c->code);
    int pid = SYS(fork, 0, 0, 0);
    if (pid == 0)
        enter_crash(crash_start, page);
    used = 0;
    int status = wait_for(pid);
    if (status) {
        puts_(c->name);
        field(": status", (uint32_t)status);
        flush();
    }
}

/* ---- single-stepping by a tracer --------------------------------------------------------------- */

__asm__("stepped: xor %eax, %eax\n mov $4, %ecx\n 1: inc %eax\n loop 1b\n call 2f\n jmp 3f\n 2: push %eax\n "
        "pop %edx\n"
        " ret\n 3: mov %esp, %esi\n mov %esp, %edi\n mov $5, %ecx\n cld\n rep movsb\n pushf\n pop %eax\n"
        " mov $20, %eax\n int $0x80\n xor %ebx, %ebx\n mov %ss, %eax\n mov %eax, %ss\n nop\n nop\n cpuid\n"
        " mov $1, %eax\n xor %ebx, %ebx\n int $0x80\n");
extern const char stepped[];

static void test_stepping(void)
{
    int pid = SYS(fork, 0, 0, 0);

    if (pid == 0) {
        SYS(ptrace, PTRACE_TRACEME, 0, 0);
        SYS(kill, SYS(getpid, 0, 0, 0), SIGSTOP, 0);
        ((void (*)(void))stepped)();
    }
    int status = wait_for(pid);
    puts_("steps:");
    for (unsigned n = 0; n < 5000 && (status & 0xff) == 0x7f; n++) {
        uint32_t eip = 0, eflags = 0;
        sys(__NR_ptrace, PTRACE_PEEKUSR, pid, 12 * 4, (long)&eip, 0);
        sys(__NR_ptrace, PTRACE_PEEKUSR, pid, 14 * 4, (long)&eflags, 0);
        if (eip - (uint32_t)stepped < 128) {
            put(' ');
            hex(eip - (uint32_t)stepped, 2);
            if ((eflags & 0x100) != 0)
                put('t');
        }
        SYS(ptrace, PTRACE_SINGLESTEP, pid, 0);
        status = wait_for(pid);
    }
    field(" status", (uint32_t)status);
    flush();
}

/* ---- x87 and SSE across switches ----------------------------------------------------------------- */

static uint32_t float_work(unsigned seed)
{
    long double x = seed, y = 1;
    float v[4] __attribute__((aligned(16)));
    uint32_t sum = 0;

    for (unsigned i = 0; i < 4; i++)
        v[i] = (float)(seed + i);
    __asm__ volatile("movaps %0, %%xmm7" : : "m"(v));
    for (int i = 1; i < 400000; i++) {
        x = x * 1.0000001L + 1.0L / i;
        __asm__("fsin" : "+t"(y));
        y += x;
        __asm__ volatile("sqrtps %%xmm7, %%xmm6\n addps %%xmm6, %%xmm7\n" : : :);
    }
    __asm__ volatile("movaps %%xmm7, %0" : "=m"(v));
    const uint8_t *bytes = (const uint8_t *)v;
    for (unsigned i = 0; i < sizeof v; i++)
        sum = sum * 31 + bytes[i];
    volatile long double out[2] = { x, y };
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < 10; i++)
            sum = sum * 31 + ((const volatile uint8_t *)&out[k])[i];
    return sum;
}

static void test_float(void)
{
    int pipes[4][2];

    puts_("float:");
    for (unsigned i = 0; i < 4; i++) {
        SYS(pipe, pipes[i], 0, 0);
        if (SYS(fork, 0, 0, 0) == 0) {
            uint32_t sum = float_work(i + 2);
            SYS(write, pipes[i][1], &sum, 4);
            SYS(exit, 0, 0, 0);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        uint32_t sum = 0;
        SYS(read, pipes[i][0], &sum, 4);
        put(' ');
        hex(sum, 8);
    }
    for (unsigned i = 0; i < 4; i++)
        wait_for(-1);
    flush();
}

/* ---- signals that come at any time ------------------------------------------------------------------ */

static volatile uint32_t alarms;

static void on_alarm(int sig, int *info, uint32_t *uc)
{
    long double mess = 3;

    (void)sig, (void)info, (void)uc;
    __asm__ volatile("fninit\n fldpi\n fmulp\n xorps %%xmm7, %%xmm7\n" : "+t"(mess) : : "cc");
    alarms++;
}

static void test_alarms(void)
{
    struct kernel_sigaction sa = { .handler = on_alarm,
                                   .flags = SA_SIGINFO | SA_RESTORER,
                                   .restorer = restore };
    uint32_t every[4] = { 0, 1000, 0, 1000 }, none[4] = { 0, 0, 0, 0 }, sum = 1, carry = 0;

    uint32_t quiet = float_work(7);
    sys(__NR_rt_sigaction, 14, (long)&sa, 0, 8, 0);
    SYS(setitimer, 0, every, 0);
    uint32_t noisy = float_work(7);
    while (alarms < 100)
        for (int i = 0; i < 1000; i++) /* ends up the same however often it goes round */
            __asm__ volatile(
                "mov $0x12345678, %0\n add %0, %0\n adc $0, %1\n pushf\n popf\n ror $3, %0\n sbb $0, %1\n"
                : "+r"(sum), "+r"(carry)
                :
                : "cc", "memory");
    SYS(setitimer, 0, none, 0);
    puts_("alarms: ");
    puts_(quiet == noisy ? "same " : "DIFFERENT ");
    field("sum", sum);
    flush();
}

/* ---- segments ------------------------------------------------------------------------------------------ */

struct user_desc {
    uint32_t entry, base, limit,
        flags; /* flags: bit 0 32-bit, 1..2 contents, 3 read-only, 4 pages, 5 absent, 6 usable */
};

static int set_ldt(unsigned entry, uint32_t base, uint32_t limit, uint32_t flags)
{
    struct user_desc d = { entry, base, limit, flags };

    return sys(__NR_modify_ldt, 0x11, (long)&d, sizeof d, 0, 0);
}

static uint32_t read_fs(uint32_t selector, uint32_t offset)
{
    uint32_t value;

    __asm__ volatile("mov %1, %%fs\n mov %%fs:(%2), %0\n" : "=r"(value) : "r"(selector), "r"(offset));
    return value;
}

static void in_child(const char *name, void (*fn)(uint32_t), uint32_t arg)
{
    puts_(name);
    put(' ');
    hex(arg, 8);
    puts_(": ");
    int pid = SYS(fork, 0, 0, 0);
    if (pid == 0) {
        crash_start = 0x10000000; /* not where this is */
        fn(arg);
        flush();
        SYS(exit, 0, 0, 0);
    }
    used = 0;
    wait_for(pid);
}

static void ldt_read(uint32_t offset)
{
    uint32_t *p = (uint32_t *)page;

    for (unsigned i = 0; i < 1024; i++)
        p[i] = i * 0x01010101u;
    field("ldt", (uint32_t)set_ldt(2, page, 0x7ff, 0x41));
    field("value", read_fs(0x17, offset));
}

static void ldt_down(uint32_t offset)
{
    field("ldt", (uint32_t)set_ldt(3, page, 0x7ff, 0x43)); /* expand-down: above the limit only */
    field("value", read_fs(0x1f, offset));
}

static void ldt_absent(uint32_t flags)
{
    field("ldt", (uint32_t)set_ldt(4, page, 0xfff, flags));
    field("value", read_fs(0x27, 0));
}

/* A 16-bit segment: ADD AX, 8000h with carry to a far return; wraps at 64 KiB. */
static void ldt_code16(uint32_t ax)
{
    static const uint8_t code[] = { 0x05, 0x00, 0x80, 0x9c, 0x59, 0x50, 0x5b,
                                    0x66, 0x0f, 0xb7, 0xdb, 0x66, 0xcb };
    struct {
        uint32_t eip;
        uint16_t cs;
    } target = { 0, 0x2f };
    uint32_t flags, bx;

    load_code(code, sizeof code);
    field("ldt", (uint32_t)set_ldt(5, page + 0x2000, 0xffff, 0x44));
    __asm__ volatile("lcall *%3" : "+a"(ax), "=c"(flags), "=b"(bx) : "m"(target) : "memory", "cc");
    field("ax", ax);
    field("bx", bx);
    field("flags", flags & 0x8d5);
}

static void test_segments(void)
{
    in_child("ldt read", ldt_read, 0);
    in_child("ldt read", ldt_read, 0x7fc);
    in_child("ldt read", ldt_read, 0x7fd);
    in_child("ldt read", ldt_read, 0x800);
    in_child("ldt read", ldt_read, 0xfffffffc);
    in_child("ldt down", ldt_down, 0x800);
    in_child("ldt down", ldt_down, 0x7ff);
    in_child("ldt absent", ldt_absent, 0x61);
    in_child("ldt code", ldt_absent, 0x45);
    in_child("ldt read-only", ldt_absent, 0x49);
    in_child("code16", ldt_code16, 1);
    in_child("code16", ldt_code16, 0x8000);
    in_child("code16", ldt_code16, 0x12348001);
}

/* ---- code that is written ---------------------------------------------------------------------------------
 */

static void test_self_modifying(void)
{
    volatile uint8_t *code = (volatile uint8_t *)crash_start;
    uint32_t sum = 0;

    puts_("written code:");
    for (uint32_t i = 0; i < 3000; i++) { /* mov eax, i; ret */
        code[0] = 0xb8;
        *(volatile uint32_t *)(code + 1) = i * i;
        code[5] = 0xc3;
        sum = sum * 3 + ((uint32_t(*)(void))crash_start)();
    }
    put(' ');
    hex(sum, 8);
    /* mov byte [next + 1], 42h; mov al, 0; movzx eax, al; ret: the store is seen at once */
    static const uint8_t next[] = { 0xc6, 0x05, 0, 0, 0, 0, 0x42, 0xb0, 0x00, 0x0f, 0xb6, 0xc0, 0xc3 };
    load_code(next, sizeof next);
    *(volatile uint32_t *)(code + 2) = crash_start + 8;
    for (int i = 0; i < 3; i++) {
        code[8] = 0;
        put(' ');
        hex(((uint32_t(*)(void))crash_start)(), 2);
    }
    /* A loop that patches its own immediate: 1 + 2 + .. + 100 */
    static const uint8_t loop[] = { 0x31, 0xc0, 0xb9, 100, 0, 0, 0, 0x05, 1,    0,    0,
                                    0,    0xff, 0x05, 0,   0, 0, 0, 0x49, 0x75, 0xf2, 0xc3 };
    load_code(loop, sizeof loop);
    *(volatile uint32_t *)(code + 14) = crash_start + 8;
    put(' ');
    hex(((uint32_t(*)(void))crash_start)(), 8);
    /* The same memory through another mapping */
    int fd = sys(__NR_memfd_create, (long)"code", 0, 0, 0, 0);
    SYS(ftruncate, fd, 4096, 0);
    uint32_t map[6] = { 0, 4096, PROT_RWX, 1, (uint32_t)fd, 0 }; /* MAP_SHARED */
    uint8_t *one = (uint8_t *)SYS(mmap, map, 0, 0), *two = (uint8_t *)SYS(mmap, map, 0, 0);
    sum = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        two[0] = 0xb8;
        *(volatile uint32_t *)(two + 1) = i * 7;
        two[5] = 0xc3;
        sum = sum * 5 + ((uint32_t(*)(void))one)();
    }
    put(' ');
    hex(sum, 8);
    flush();
}

/* ---- start
 * -------------------------------------------------------------------------------------------------- */

static uint8_t signal_stack[16384];

void start(void)
{
    uint32_t stack[3] = { (uint32_t)signal_stack, 0, sizeof signal_stack };
    uint32_t map[6] = { 0x30000000, 0x4000, PROT_RWX, MAP_PRIVATE_ANON | 0x10, (uint32_t)-1, 0 };

    page = (uint32_t)SYS(mmap, map, 0, 0);
    SYS(munmap, page + 0x1000, 0x1000, 0);
    crash_start = page + 0x2000;
    SYS(sigaltstack, stack, 0, 0);
    test_self_modifying();
    test_float();
    test_alarms();
    catch_all(on_signal);
    for (unsigned i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
        run_crash(&crashes[i]);
    test_segments();
    test_stepping();
    SYS(exit, 0, 0, 0);
}
