/*
 * The workloads of bench/coherency as a 32-bit program of Linux on the host's own processor. The words are
 * its arguments. No libc; its stack is executable (the linker is told so).
 */
#include "../user/linux.h"
#include "code_loads.h"

enum { PROT_RW_EXEC = 7, MAP_SHARED_FLAG = 1, MAP_PRIVATE_ANON_FLAG = 0x22 };

static void say_bytes(const char *text, unsigned len)
{
    while (len) {
        int n = SYS(write, 1, text, len);
        if (n <= 0)
            SYS(exit, 2, 0, 0);
        text += n;
        len -= (unsigned)n;
    }
}

void loads_say(const char *text)
{
    unsigned len = 0;

    while (text[len])
        len++;
    say_bytes(text, len);
}

/* mmap2 has six arguments: EBP holds the last, which is always 0 here. */
static uint8_t *map(int fd, int flags)
{
    long result;

    __asm__ volatile("push %%ebp\n xor %%ebp, %%ebp\n int $0x80\n pop %%ebp"
                     : "=a"(result)
                     : "0"(__NR_mmap2), "b"(0), "c"(GROUND_BYTES), "d"(PROT_RW_EXEC), "S"(flags), "D"(fd)
                     : "memory");
    if (result < 0 && result > -4096) {
        loads_say("FAIL no memory that can be written and run\n");
        SYS(exit, 2, 0, 0);
    }
    return (uint8_t *)result;
}

static char words[256];

static void join(char **argv)
{
    unsigned n = 0;

    for (argv++; *argv; argv++) {
        for (const char *s = *argv; *s && n < sizeof words - 2; s++)
            words[n++] = *s;
        words[n++] = ' ';
        if (n >= sizeof words - 1)
            break;
    }
}

__attribute__((used)) static void begin(char **argv)
{
    int fd = SYS(memfd_create, "code", 0, 0);
    struct ground g = { 0 };

    join(argv);
    SYS(ftruncate, fd, GROUND_BYTES, 0);
    g.code = map(fd, MAP_SHARED_FLAG);
    g.alias = map(fd, MAP_SHARED_FLAG);
    g.still = map(-1, MAP_PRIVATE_ANON_FLAG);
    g.data = map(-1, MAP_PRIVATE_ANON_FLAG);
    SYS(exit, loads_measure(&g, words) ? 0 : 1, 0, 0);
}

/* The stack holds argc and argv. linux.h calls start(). */
__asm__(".globl native_start\nnative_start: lea 4(%esp), %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n call begin\n");
void start(void)
{
}
