/*
 * What bench/scale runs in a guest, and alone on the host: work whose size is given by a line on standard
 * input.
 *
 *     fork N K    K times fork, exit and wait, among N resident processes
 *     exec N K    the same with execve of this program
 *     ring N K    a token K times around N processes, each of which writes eight pages of its own: K x N
 * switches touch M     the first write to each page of M MiB heap M      one word in each page of M MiB, in
 * scattered order: written first, then followed as a chain code K      K KiB of code made here, 18
 * instructions in 64 bytes, in runs of eight blocks, scattered: once, then again and again
 *
 * Each part that is timed prints `begin NAME COUNT`, waits for a line, and ends with `end NAME COUNT NS`, NS
 * of this program's own clock. What is computed is checked: `FAIL NAME` if it is wrong.
 */
#include "linux.h"

#define PAGE 4096u

/* ---- Linux ---------------------------------------------------------------------------------- */

static uint32_t now_ns(void) /* modulo 4.3 s: longer parts are timed in ms */
{
    uint32_t t[2];

    SYS(clock_gettime, 1, t, 0);
    return t[0] * 1000000000u + t[1];
}

static uint32_t now_ms(void)
{
    uint32_t t[2];

    SYS(clock_gettime, 1, t, 0);
    return t[0] * 1000u + t[1] / 1000000u;
}

static void *map(uint32_t bytes)
{
    uint32_t args[6] = { 0, bytes, PROT_RWX, MAP_PRIVATE_ANON | 0x4000 /* NORESERVE */, (uint32_t)-1, 0 };
    int at = SYS(mmap, args, 0, 0);

    if ((uint32_t)at > 0xfffff000u) {
        puts_("FAIL mmap");
        flush();
        SYS(exit, 1, 0, 0);
    }
    return (void *)at;
}

static void dec(uint32_t v)
{
    if (v >= 10)
        dec(v / 10);
    put((char)('0' + v % 10));
}

static unsigned read_line(char *to, unsigned size)
{
    unsigned n = 0;

    for (;;) {
        char c;

        if (SYS(read, 0, &c, 1) != 1)
            SYS(exit, 0, 0, 0);
        if (c == '\r')
            continue;
        if (c == '\n')
            break;
        if (n < size - 1)
            to[n++] = c;
    }
    to[n] = 0;
    return n;
}

/* ---- timed parts ------------------------------------------------------------------------------ */

static struct {
    const char *name;
    uint32_t count, begun_ns, begun_ms;
} part;

static void begin(const char *name, uint32_t count)
{
    char answer[8];

    part.name = name;
    part.count = count;
    puts_("begin ");
    puts_(name);
    put(' ');
    dec(count);
    flush();
    read_line(answer, sizeof answer);
    part.begun_ms = now_ms();
    part.begun_ns = now_ns();
}

static void end(int good)
{
    uint32_t ns = now_ns() - part.begun_ns, ms = now_ms() - part.begun_ms;

    if (!good) {
        puts_("FAIL ");
        puts_(part.name);
        flush();
    }
    puts_("end ");
    puts_(part.name);
    put(' ');
    dec(part.count);
    put(' ');
    if (ms >= 4000) { /* in ms, written as ns */
        dec(ms);
        puts_("000000");
    } else {
        dec(ns);
    }
    flush();
}

/* ---- processes ---------------------------------------------------------------------------------- */

static uint8_t working_set[8 * PAGE] __attribute__((aligned(4096)));
static int resident, gate[2];

static void use_working_set(void)
{
    for (unsigned i = 0; i < sizeof working_set; i += PAGE)
        working_set[i]++;
}

static void dismiss(void)
{
    if (!resident)
        return;
    SYS(close, gate[1], 0, 0);
    for (; resident; resident--)
        wait_for(-1);
    SYS(close, gate[0], 0, 0);
}

/* Processes that have run, own a few pages and sleep. */
static void engage(int n)
{
    dismiss();
    SYS(pipe, gate, 0, 0);
    for (; resident < n; resident++) {
        int pid = SYS(fork, 0, 0, 0);

        if (pid < 0) {
            puts_("FAIL fork");
            flush();
            break;
        }
        if (!pid) {
            char c;

            SYS(close, gate[1], 0, 0);
            use_working_set();
            SYS(read, gate[0], &c, 1);
            SYS(exit, 0, 0, 0);
        }
    }
}

static void run_forks(uint32_t n, uint32_t times, const char *exec)
{
    const char *argv[] = { exec, "x", NULL }, *envp[] = { NULL };
    uint32_t good = 0;

    engage((int)n);
    begin(exec ? "exec" : "fork", times);
    for (uint32_t i = 0; i < times; i++) {
        int pid = SYS(fork, 0, 0, 0);

        if (!pid) {
            if (exec)
                SYS(execve, exec, argv, envp);
            SYS(exit, exec ? 1 : 7, 0, 0);
        }
        good += wait_for(pid) == 7 << 8;
    }
    end(good == times);
    dismiss();
}

/* Member i takes from the pipe before it and gives to the one behind it. The first one is this process. */
static void run_ring(uint32_t n, uint32_t rounds)
{
    int first[2], before, behind[2], good = 1;
    uint32_t count = 0;

    SYS(pipe, first, 0, 0);
    before = first[0];
    for (uint32_t i = 1; i < n; i++) {
        SYS(pipe, behind, 0, 0);
        if (!SYS(fork, 0, 0, 0)) {
            uint32_t token;

            SYS(close, first[1], 0, 0);
            SYS(close, behind[0], 0, 0);
            while (SYS(read, before, &token, 4) == 4) {
                use_working_set();
                token++;
                SYS(write, behind[1], &token, 4);
            }
            SYS(exit, 0, 0, 0);
        }
        SYS(close, before, 0, 0);
        SYS(close, behind[1], 0, 0);
        before = behind[0];
    }
    for (uint32_t round = 0; round <= rounds; round++) {
        if (round == 1) { /* the first one goes through new processes */
            begin("ring", rounds * n);
            count = 0;
        }
        use_working_set();
        count++;
        SYS(write, first[1], &count, 4);
        good &= SYS(read, before, &count, 4) == 4;
    }
    end(good && count == rounds * n);
    SYS(close, first[1], 0, 0);
    SYS(close, before, 0, 0);
    for (uint32_t i = 1; i < n; i++)
        wait_for(-1);
}

/* ---- memory ----------------------------------------------------------------------------------------- */

static void run_touch(uint32_t mib)
{
    uint32_t bytes = mib << 20, sum = 0;
    volatile uint8_t *at = map(bytes);

    begin("touch", bytes / PAGE);
    for (uint32_t i = 0; i < bytes; i += PAGE)
        at[i] = 1;
    for (uint32_t i = 0; i < bytes; i += PAGE * 16)
        sum += at[i];
    end(sum == bytes / PAGE / 16);
    SYS(munmap, at, bytes, 0);
}

static void run_heap(uint32_t mib)
{
    uint32_t bytes = mib << 20, pages = bytes / PAGE, stride = 0x9e3779b1u, steps;
    uint8_t *at = map(bytes), *p;

/* The i-th page of the order, and the word in it: spread over cache sets. Pages are a power of two. */
#define SPOT(i) (at + ((i)*stride & (pages - 1)) * PAGE + ((i)*64 & 0xfc0))
    begin("heap-first", pages);
    for (uint32_t i = 0; i < pages; i++)
        *(uint8_t **)SPOT(i) = SPOT((i + 1) & (pages - 1));
    end(1);
    steps = pages < 50000 ? 100000 / pages * pages : 2 * pages;
    p = at;
    for (uint32_t i = 0; i < pages; i++)
        p = *(uint8_t **)p;
    begin("heap-again", steps);
    for (uint32_t i = 0; i < steps; i++)
        p = *(uint8_t **)p;
    end(p == at);
    SYS(munmap, at, bytes, 0);
}

/* ---- code --------------------------------------------------------------------------------------------- */

/* Odd sizes: where runs begin is spread over all addresses modulo a power of two, as in real programs. */
#define BLOCK 61u
#define RUN   7u /* blocks that follow each other */

struct values {
    uint32_t a, d, word;
};

static uint32_t random32(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8 | *state << 24;
}

static uint8_t *put32(uint8_t *to, uint32_t v)
{
    __builtin_memcpy(to, &v, 4);
    return to + 4;
}

/* One block at `to` that goes on at `next` (NULL: returns), and what it does to the values. */
static void make_block(uint8_t *to, const uint8_t *next, uint32_t *word, uint32_t *seed, struct values *v)
{
    for (int i = 0; i < 2; i++) {
        uint32_t add = random32(seed), flip = random32(seed), more = random32(seed) & 0x7f;

        *to++ = 0x05; /* add eax, add */
        to = put32(to, add);
        *to++ = 0x35; /* xor eax, flip */
        to = put32(to, flip);
        *to++ = 0x8d; /* lea edx, [edx + eax + more] */
        *to++ = 0x54;
        *to++ = 0x02;
        *to++ = (uint8_t)more;
        *to++ = 0xd1; /* rol eax, 1 */
        *to++ = 0xc0;
        *to++ = 0x01; /* add edx, eax */
        *to++ = 0xc2;
        *to++ = 0x89; /* mov ecx, edx */
        *to++ = 0xd1;
        v->a = (v->a + add) ^ flip;
        v->d += v->a + more;
        v->a = v->a << 1 | v->a >> 31;
        v->d += v->a;
    }
    *to++ = 0xa3; /* mov [word], eax */
    to = put32(to, (uint32_t)word);
    *to++ = 0x33; /* xor edx, [word + 4] */
    *to++ = 0x15;
    to = put32(to, (uint32_t)(word + 1));
    *to++ = 0x01; /* add edx, eax, twice */
    *to++ = 0xc2;
    *to++ = 0x01;
    *to++ = 0xc2;
    *to++ = 0x42; /* inc edx */
    v->d = (v->d ^ v->word) + 2 * v->a + 1;
    if (next) {
        *to++ = 0xe9;
        to = put32(to, (uint32_t)(next - (to + 4)));
    } else {
        *to++ = 0xc3;
    }
}

static struct values run_code(const uint8_t *code, struct values v)
{
    __asm__ volatile("call *%2" : "+a"(v.a), "+d"(v.d) : "r"(code) : "ecx", "memory", "cc");
    return v;
}

static void run_code_of(uint32_t kib)
{
    static uint32_t word[2] = { 0, 0x5bd1e995 };
    uint32_t groups = kib * 1024 / (BLOCK * RUN), blocks = groups * RUN, seed = 2026;
    uint32_t stride = groups % 7919 ? 7919 : 7927; /* primes: every run is visited */
    uint8_t *code = map(kib * 1024);
    struct values from = { 1, 2, 0x5bd1e995 }, want = from, got;
    uint32_t passes, good = 1;

    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t group = (i / RUN) * stride % groups, next_group = (i / RUN + 1) * stride % groups;
        uint8_t *at = code + (group * RUN + i % RUN) * BLOCK;
        uint8_t *next = i + 1 == blocks      ? NULL
                        : i % RUN == RUN - 1 ? code + next_group * RUN * BLOCK
                                             : at + BLOCK;

        make_block(at, next, word, &seed, &want);
    }
    begin("code-first", blocks);
    got = run_code(code, from);
    end(got.a == want.a && got.d == want.d);
    for (int i = 0; i < 2; i++)
        run_code(code, from);
    passes = 4000000 / blocks;
    passes = passes < 3 ? 3 : passes;
    begin("code-again", blocks * passes);
    for (uint32_t i = 0; i < passes; i++) {
        got = run_code(code, from);
        good &= got.a == want.a && got.d == want.d;
    }
    end((int)good);
    SYS(munmap, code, kib * 1024, 0);
}

/* ---- commands ---------------------------------------------------------------------------------------------
 */

static uint32_t number(const char **s)
{
    uint32_t v = 0;

    while (**s == ' ')
        (*s)++;
    for (; **s >= '0' && **s <= '9'; (*s)++)
        v = v * 10 + (uint32_t)(**s - '0');
    return v;
}

static int is(const char *s, const char *word)
{
    for (; *word; word++, s++)
        if (*s != *word)
            return 0;
    return *s == ' ' || !*s;
}

static void run_command(const char *s)
{
    const char *args = s;
    uint32_t a, b;

    while (*args && *args != ' ')
        args++;
    a = number(&args);
    b = number(&args);
    if (is(s, "fork"))
        run_forks(a, b, NULL);
    else if (is(s, "exec"))
        run_forks(a, b, "/proc/self/exe");
    else if (is(s, "ring") && a > 1)
        run_ring(a, b);
    else if (is(s, "touch"))
        run_touch(a);
    else if (is(s, "heap") && a && !(a & (a - 1)))
        run_heap(a);
    else if (is(s, "code") && a)
        run_code_of(a);
    else
        puts_("FAIL command");
    puts_("ready");
    flush();
}

void run_program(uint32_t argc);
void run_program(uint32_t argc)
{
    char command[64];

    if (argc > 1) /* what execve starts */
        SYS(exit, 7, 0, 0);
    puts_("ready");
    flush();
    while (read_line(command, sizeof command))
        run_command(command);
    SYS(exit, 0, 0, 0);
}

/* linux.h's entry, which has no use for the number of arguments, is not taken: linked with -e entry. */
__asm__(".globl entry\nentry: mov (%esp), %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n call "
        "run_program\n");

void start(void) {}
