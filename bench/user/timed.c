/* Times a program as a whole, from fork to wait, and says what it wrote.
 *
 *     timed NAME RUNS INPUT PROGRAM [ARGUMENT...]
 *
 * PROGRAM reads INPUT and writes to a file that is made anew for each run. One run more comes first. Prints what harness.c
 * prints, with the CRC-32 of the output, and ends with status 1 when a run fails or writes something else than the first. */
#include "../lib/mark.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_RUNS = 100 };

static _Noreturn void fail(const char *name, const char *what)
{
    printf("FAIL %s: %s\n", name, what);
    exit(1);
}

static uint32_t crc32_of(FILE *f)
{
    uint32_t crc = ~0u;
    rewind(f);
    for (int c; (c = getc(f)) != EOF;) {
        crc ^= (uint32_t)c;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static uint64_t run(const char *name, const char *input, FILE *output, char **command)
{
    uint64_t begin = now_ns();
    pid_t child = fork();
    if (child < 0)
        fail(name, "fork");
    if (child == 0) {
        int in = open(input, O_RDONLY);
        if (in < 0 || dup2(in, 0) < 0 || dup2(fileno(output), 1) < 0)
            _exit(126);
        execv(command[0], command);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail(name, "the program failed");
    return now_ns() - begin;
}

/* Processor time of the children that ended. */
static uint64_t children_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static uint64_t samples[MAX_RUNS];
    static FILE *output[MAX_RUNS + 1];
    if (argc < 5)
        fail("timed", "usage: timed NAME RUNS INPUT PROGRAM [ARGUMENT...]");
    const char *name = argv[1];
    int runs = atoi(argv[2]);
    if (runs < 1 || runs > MAX_RUNS)
        fail("timed", "1 to 100 runs");
    for (int i = 0; i <= runs; i++)
        if (!(output[i] = tmpfile()))
            fail(name, "no temporary file");

    uint64_t first = run(name, argv[3], output[runs], argv + 4);
    mark("begin", name);
    uint64_t cpu = children_ns();
    for (int i = 0; i < runs; i++)
        samples[i] = run(name, argv[3], output[i], argv + 4);
    cpu = (children_ns() - cpu) / (unsigned)runs;
    mark("end", name);

    uint32_t crc = crc32_of(output[runs]);
    for (int i = 0; i < runs; i++)
        if (crc32_of(output[i]) != crc)
            fail(name, "the runs' output differs");
    qsort(samples, (size_t)runs, sizeof samples[0], by_size);
    printf("row %s %d 0x%08x %llu %llu %llu\n", name, runs, (unsigned)crc, (unsigned long long)cpu,
           (unsigned long long)samples[runs / 2], (unsigned long long)first);
    return 0;
}
