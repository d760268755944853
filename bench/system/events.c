/* What a kernel does for programs, event by event: processes, page faults, mappings, pipes, signals, switches.
 *
 *     events WARM_MS MEASURE_MS NAME...
 *
 * Repeats each event for WARM_MS, and then for MEASURE_MS between the lines `begin NAME` and `end NAME`; prints
 * `row NAME EVENTS 0 CPU ELAPSED FIRST` as bench/user/harness.c does, in nanoseconds an event. Every event checks that
 * what it asked for has happened. */
#include "../lib/mark.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, FAULT_PAGES = 256, FILE_PAGES = 1024, AROUND = 16, MAX_RING = 64, RING_TOUCH_PAGES = 4 };

static const char *current; /* the event that runs, for messages */

static _Noreturn void fail(const char *what)
{
    printf("FAIL %s: %s\n", current, what);
    fflush(stdout);
    _exit(1);
}

static void check(int holds, const char *what)
{
    if (!holds)
        fail(what);
}

/* ---- system calls ------------------------------------------------------------------------------- */

static unsigned run_syscall_int80(void)
{
    int parent = getppid(), found;
    for (int i = 0; i < 1000; i++) {
        __asm__ volatile("int $0x80" : "=a"(found) : "0"(SYS_getppid) : "memory");
        check(found == parent, "getppid");
    }
    return 1000;
}

/* As the C library calls: through the vDSO, by SYSENTER where there is one. */
static unsigned run_syscall(void)
{
    int parent = getppid();
    for (int i = 0; i < 1000; i++)
        check(syscall(SYS_getppid) == parent, "getppid");
    return 1000;
}

/* ---- processes ---------------------------------------------------------------------------------- */

static void wait_for(pid_t child)
{
    int status;
    check(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "child");
}

static unsigned run_fork(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    wait_for(child);
    return 1;
}

static unsigned fork_exec(char *program)
{
    pid_t child = fork();
    if (child == 0) {
        execve(program, (char *[]){ program, NULL }, (char *[]){ NULL });
        _exit(1);
    }
    wait_for(child);
    return 1;
}

static unsigned run_exec_tiny(void)
{
    return fork_exec("/bench/tiny");
}

static unsigned run_exec_glibc(void)
{
    return fork_exec("/bench/dynamic");
}

/* ---- memory ------------------------------------------------------------------------------------- */

static void *map(int flags, int fd, unsigned pages)
{
    void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    check(p != MAP_FAILED, "mmap");
    return p;
}

static unsigned run_fault_anon(void)
{
    uint8_t *p = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, FAULT_PAGES);
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        check(p[i * PAGE] == 0, "an anonymous page is zero");
        p[i * PAGE] = 1;
    }
    munmap(p, FAULT_PAGES * PAGE);
    return FAULT_PAGES;
}

static int data_fd = -1;

static void open_data(void)
{
    uint8_t page[PAGE];
    char name[] = "/tmp/events.XXXXXX";
    data_fd = mkstemp(name);
    check(data_fd >= 0, "a temporary file");
    unlink(name);
    for (unsigned i = 0; i < FILE_PAGES; i++) {
        memset(page, (int)i, sizeof page);
        check(write(data_fd, page, sizeof page) == sizeof page, "write");
    }
}

/* Linux maps up to 16 pages of the file at a read fault: one fault for each 16. */
static unsigned run_fault_file(void)
{
    uint8_t *p = map(MAP_PRIVATE, data_fd, FILE_PAGES);
    for (unsigned i = 0; i < FILE_PAGES; i += AROUND)
        check(p[i * PAGE] == (uint8_t)i, "the file's byte");
    munmap(p, FILE_PAGES * PAGE);
    return FILE_PAGES / AROUND;
}

/* Each page of a private mapping is copied when it is written. */
static unsigned run_fault_cow(void)
{
    uint8_t *p = map(MAP_PRIVATE, data_fd, FAULT_PAGES);
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        p[i * PAGE]++;
        check(p[i * PAGE] == (uint8_t)(i + 1) && p[i * PAGE + 1] == (uint8_t)i, "a copy of the file's page");
    }
    munmap(p, FAULT_PAGES * PAGE);
    return FAULT_PAGES;
}

static void close_data(void)
{
    close(data_fd);
}

static unsigned run_mmap(void)
{
    for (int i = 0; i < 100; i++) {
        uint8_t *p = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 1);
        check(*p == 0, "an anonymous page is zero");
        *p = 1;
        check(munmap(p, PAGE) == 0, "munmap");
    }
    return 100;
}

static unsigned run_mprotect(void)
{
    static uint8_t *p;
    if (!p)
        p = map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 1);
    for (int i = 0; i < 100; i++) {
        check(mprotect(p, PAGE, PROT_READ) == 0 && mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect");
        (*(volatile uint8_t *)p)++;
    }
    return 100;
}

/* mov eax, imm32; ret: the constant changes before each call. */
static unsigned run_self_modify(void)
{
    static uint8_t *code;
    if (!code) {
        code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(code != MAP_FAILED, "mmap");
        memcpy(code, "\xb8\0\0\0\0\xc3", 6);
    }
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t found;
        memcpy(code + 1, &i, sizeof i);
        __asm__ volatile("call *%1" : "=&a"(found) : "r"(code) : "memory", "ecx", "edx");
        check(found == i, "the code as it was");
    }
    return 100;
}

/* ---- signals, pipes, switches ------------------------------------------------------------------- */

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
    (void)number;
    signals_seen++;
}

static unsigned run_signal(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGUSR1, &action, NULL);
    signals_seen = 0;
    for (int i = 0; i < 100; i++)
        kill(getpid(), SIGUSR1);
    check(signals_seen == 100, "the handler");
    return 100;
}

/* A token goes round a ring of processes, each of which waits for it, works on some pages of its own and passes it on. */
struct ring {
    unsigned count;
    int to_first[2], from_last[2];
    pid_t pids[MAX_RING];
};

static struct ring ring;

static void pass_on(int in, int out)
{
    static uint8_t pages[RING_TOUCH_PAGES][PAGE];
    uint32_t token;
    while (read(in, &token, sizeof token) == sizeof token) {
        for (int i = 0; i < RING_TOUCH_PAGES; i++)
            pages[i][token % PAGE]++;
        token++;
        if (write(out, &token, sizeof token) != sizeof token)
            break;
    }
    _exit(0);
}

/* `count` - 1 children; this process is the ring's last member. */
static void open_ring(unsigned count)
{
    int in, next[2];
    ring.count = count;
    check(pipe(ring.to_first) == 0, "pipe");
    in = ring.to_first[0];
    for (unsigned i = 0; i + 1 < count; i++) {
        check(pipe(next) == 0, "pipe");
        if ((ring.pids[i] = fork()) == 0) {
            close(ring.to_first[1]);
            close(next[0]);
            pass_on(in, next[1]);
        }
        check(ring.pids[i] > 0, "fork");
        close(in);
        close(next[1]);
        in = next[0];
    }
    ring.from_last[0] = in;
}

static void close_ring(void)
{
    close(ring.to_first[1]);
    for (unsigned i = 0; i + 1 < ring.count; i++)
        waitpid(ring.pids[i], NULL, 0);
    close(ring.from_last[0]);
}

static unsigned run_ring(void)
{
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t token = i;
        check(write(ring.to_first[1], &token, sizeof token) == sizeof token, "write");
        check(read(ring.from_last[0], &token, sizeof token) == sizeof token, "read");
        check(token == i + ring.count - 1, "every process had the token");
    }
    return 20 * ring.count;
}

/* A round trip is there and back. */
static unsigned run_pipe(void)
{
    return run_ring() / 2;
}

static void open_pair(void)
{
    open_ring(2);
}

static void open_ring_8(void)
{
    open_ring(8);
}

static void open_ring_64(void)
{
    open_ring(64);
}

/* ---- all of them -------------------------------------------------------------------------------- */

static const struct event {
    const char *name;
    unsigned (*run)(void); /* -> how many events it was */
    void (*open)(void), (*close)(void);
} events[] = {
    { "syscall-int80", run_syscall_int80, NULL, NULL },
    { "syscall", run_syscall, NULL, NULL },
    { "fork", run_fork, NULL, NULL },
    { "exec-tiny", run_exec_tiny, NULL, NULL },
    { "exec-glibc", run_exec_glibc, NULL, NULL },
    { "fault-anon", run_fault_anon, NULL, NULL },
    { "fault-file", run_fault_file, open_data, close_data },
    { "fault-cow", run_fault_cow, open_data, close_data },
    { "mmap-munmap", run_mmap, NULL, NULL },
    { "mprotect", run_mprotect, NULL, NULL },
    { "self-modify", run_self_modify, NULL, NULL },
    { "signal", run_signal, NULL, NULL },
    { "pipe", run_pipe, open_pair, close_ring },
    { "switch-2", run_ring, open_pair, close_ring },
    { "switch-8", run_ring, open_ring_8, close_ring },
    { "switch-64", run_ring, open_ring_64, close_ring },
};

static void measure(const struct event *event, uint64_t warm_ns, uint64_t measure_ns)
{
    uint64_t n = 0, start, first, elapsed, cpu;
    current = event->name;
    if (event->open)
        event->open();
    start = now_ns();
    unsigned first_events = event->run();
    first = (now_ns() - start) / first_events;
    while (now_ns() - start < warm_ns)
        event->run();
    mark("begin", event->name);
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    start = now_ns();
    do
        n += event->run();
    while ((elapsed = now_ns() - start) < measure_ns);
    cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    mark("end", event->name);
    if (event->close)
        event->close();
    printf("row %s %llu 0 %llu %llu %llu\n", event->name, (unsigned long long)n, (unsigned long long)(cpu / n),
           (unsigned long long)(elapsed / n), (unsigned long long)first);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t warm_ns = (argc > 1 ? strtoul(argv[1], NULL, 10) : 200) * 1000000ull;
    uint64_t measure_ns = (argc > 2 ? strtoul(argv[2], NULL, 10) : 300) * 1000000ull;
    for (int i = 3; i < argc; i++) {
        const struct event *found = NULL;
        current = argv[i];
        for (size_t k = 0; k < sizeof events / sizeof events[0]; k++)
            if (strcmp(events[k].name, argv[i]) == 0)
                found = &events[k];
        check(found != NULL, "no such event");
        measure(found, warm_ns, measure_ns);
    }
    return 0;
}
