/*
 * `diff`: the differential tester. It generates cases, has the oracle run them on the
 * host's processor and the engine run them translated, and compares.
 *
 *   diff --cases 20000 --seed 7 --accel chain=off,tu-insns=1
 *   diff --cases 2000000 --seed 7 --jobs 2
 *   diff --seed 7 --case 123 -v            one case, printed in full
 *   diff --file cases.txt                  the named cases
 *   diff --coverage --cases 50000          which forms are generated, which never; runs nothing
 *   diff --self                            the oracle against itself: is it repeatable?
 *
 * Cases go in batches through memory shared between three processes: this one
 * generates and judges; a child that the oracle may ruin for other uses runs the host's
 * side; another runs the engine, so that a crash there costs one case and is reported
 * like any other difference.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bt/bt.h"
#include "tests/diff/case.h"
#include "tests/diff/coverage.h"

#define BATCH 500u

struct batch {
    unsigned n;
    volatile unsigned progress; /* case that the running child is at */
    struct diff_case cases[BATCH];
    struct diff_result host[BATCH], engine[BATCH];
};

struct options {
    uint64_t cases, seed, only_case;
    bool one_case, self, verbose, list, stats, log, coverage;
    unsigned max_failures, jobs, job; /* job: which of the `jobs` processes this is */
    const char *only, *file, *accel;
    struct engine_options engine;
};

struct totals {
    uint64_t cases, failures, vectors[32], hangs, complete;
};

/* ---- options ------------------------------------------------------------------------------- */

static _Noreturn void usage(const char *what)
{
    fprintf(stderr,
            "diff: %s\nusage: diff [--cases N] [--seed S] [--case K] [--only MNEMONIC] [--file CASES]\n"
            "            [--accel "
            "chain=on|off,tu-insns=N,tc-size=SIZE,mem=checked|window|adaptive,host=baseline,verify=off,"
            "coherency=patch|check,inline=off,watched=on]\n"
            "            [--jobs N] [--self] [--list] [--coverage] [--stats] [--log] [--max-failures N] [-v]\n",
            what);
    exit(2);
}

static size_t parse_size(const char *s)
{
    char *end;
    unsigned long long v = strtoull(s, &end, 0);

    if (*end == 'K' || *end == 'k')
        v <<= 10;
    else if (*end == 'M')
        v <<= 20;
    return (size_t)v;
}

static void parse_accel_item(struct engine_options *e, const char *item)
{
    if (!strcmp(item, "bt"))
        return;
    if (!strcmp(item, "chain=on") || !strcmp(item, "chain=off"))
        e->chain = item[7] == 'n';
    else if (!strncmp(item, "tu-insns=", 9))
        e->tu_insns = (unsigned)strtoul(item + 9, NULL, 0);
    else if (!strncmp(item, "tc-size=", 8))
        e->tc_bytes = parse_size(item + 8);
    else if (!strcmp(item, "host=baseline"))
        e->host_baseline = true;
    else if (!strcmp(item, "verify=on") || !strcmp(item, "verify=off"))
        e->verify = item[8] == 'n';
    else if (!strcmp(item, "inline=off"))
        e->callouts_only = true;
    else if (!strcmp(item, "watched=on"))
        e->watched = true;
    else if (!strcmp(item, "coherency=patch"))
        e->coherency = COHERENCY_PATCH;
    else if (!strcmp(item, "coherency=check"))
        e->coherency = COHERENCY_CHECK;
    else if (!strcmp(item, "mem=checked"))
        e->mem = MEM_CHECKED;
    else if (!strcmp(item, "mem=window"))
        e->mem = MEM_WINDOW;
    else if (!strcmp(item, "mem=adaptive"))
        e->mem = MEM_ADAPTIVE;
    else
        usage(item);
}

static void parse_accel(struct engine_options *e, const char *text)
{
    char copy[256], *save = NULL;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save))
        parse_accel_item(e, item);
}

static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        { "cases", required_argument, NULL, 'n' },
        { "seed", required_argument, NULL, 's' },
        { "case", required_argument, NULL, 'c' },
        { "only", required_argument, NULL, 'o' },
        { "accel", required_argument, NULL, 'a' },
        { "file", required_argument, NULL, 'f' },
        { "self", no_argument, NULL, 'S' },
        { "list", no_argument, NULL, 'l' },
        { "stats", no_argument, NULL, 't' },
        { "verbose", no_argument, NULL, 'v' },
        { "log", no_argument, NULL, 'd' },
        { "max-failures", required_argument, NULL, 'm' },
        { "jobs", required_argument, NULL, 'j' },
        { "coverage", no_argument, NULL, 'C' },
        { NULL, 0, NULL, 0 },
    };
    int opt;

    *o = (struct options){ .cases = 20000, .seed = 1, .max_failures = 10, .jobs = 1, .accel = "" };
    o->engine = (struct engine_options){
        .chain = true, .verify = true, .tu_insns = 64, .tc_bytes = 32u << 20, .mem = MEM_CHECKED
    };
    while ((opt = getopt_long(argc, argv, "n:s:c:o:a:f:j:v", longs, NULL)) != -1)
        switch (opt) {
        case 'n':
            o->cases = strtoull(optarg, NULL, 0);
            break;
        case 's':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'c':
            o->only_case = strtoull(optarg, NULL, 0);
            o->one_case = true;
            break;
        case 'o':
            o->only = optarg;
            break;
        case 'a':
            o->accel = optarg;
            parse_accel(&o->engine, optarg);
            break;
        case 'f':
            o->file = optarg;
            break;
        case 'm':
            o->max_failures = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'j':
            o->jobs = (unsigned)strtoul(optarg, NULL, 0);
            if (o->jobs < 1 || o->jobs > 64)
                usage("--jobs wants 1 to 64");
            break;
        case 'C':
            o->coverage = true;
            break;
        case 'S':
            o->self = true;
            break;
        case 'l':
            o->list = true;
            break;
        case 't':
            o->stats = true;
            break;
        case 'd':
            o->log = true;
            break;
        case 'v':
            o->verbose = true;
            break;
        default:
            usage("unknown option");
        }
    if (optind != argc)
        usage(argv[optind]);
}

/* ---- the sides, each in a child ---------------------------------------------------------------- */

static void run_oracle(struct batch *b, struct diff_result *results)
{
    int rc = oracle_init();

    if (rc) {
        fprintf(stderr, "diff: the oracle can't start: %s\n", strerror(-rc));
        _exit(91);
    }
    for (unsigned i = 0; i < b->n; i++) {
        b->progress = i;
        oracle_run(&b->cases[i], &results[i]);
    }
    _exit(0);
}

static void run_engine(const struct options *o, struct batch *b, unsigned first)
{
    struct engine *e = engine_new(&o->engine);

    if (!e) {
        fprintf(stderr, "diff: the engine can't start\n");
        _exit(91);
    }
    engine_log(e, o->log);
    for (unsigned i = first; i < b->n; i++) {
        b->progress = i;
        engine_run(e, &b->cases[i], &b->engine[i]);
    }
    fflush(stdout);
    _exit(0);
}

/* Wait for a child; kill it when it stays at one case for ten seconds. -> wait status */
static int wait_child(pid_t pid, const struct batch *b)
{
    unsigned seen = ~0u, idle_ms = 0;
    int status;

    for (;;) {
        struct timespec nap = { 0, 2000000 };

        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
        nanosleep(&nap, NULL);
        idle_ms = b->progress == seen ? idle_ms + 2 : 0;
        seen = b->progress;
        if (idle_ms > 10000)
            kill(pid, SIGKILL);
    }
}

static void host_side(struct batch *b, struct diff_result *results)
{
    int status;
    pid_t pid;

    fflush(stdout);
    b->progress = 0;
    pid = fork();
    if (pid == 0)
        run_oracle(b, results);
    status = wait_child(pid, b);
    if (status) {
        printf("diff: the oracle died (status 0x%x) in:\n", (unsigned)status);
        print_case(&b->cases[b->progress]);
        exit(1);
    }
}

static void engine_side(const struct options *o, struct batch *b)
{
    for (unsigned first = 0; first < b->n;) {
        int status;
        pid_t pid;

        fflush(stdout);
        b->progress = first;
        pid = fork();
        if (pid == 0)
            run_engine(o, b, first);
        status = wait_child(pid, b);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 91)
            exit(1);
        if (!status)
            return;
        first = b->progress;
        b->engine[first].end = END_LOST;
        snprintf(b->engine[first].note, sizeof b->engine[first].note, "the engine %s (%d)",
                 WIFSIGNALED(status) ? "was killed by a signal" : "exited",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        first++;
    }
}

/* ---- judging --------------------------------------------------------------------------------------- */

static void print_end(const char *side, const struct diff_result *r)
{
    printf("  %s: ", side);
    if (r->end == END_FAULT)
        printf("vector %u error 0x%x cr2 0x%x at EIP 0x%08x, eflags 0x%x\n", r->vector, r->error, r->cr2,
               r->state.eip, r->state.eflags);
    else
        printf("%s %s\n", r->end == END_HANG ? "did not end" : "lost", r->note);
}

static void print_reproducer(const struct options *o, const struct diff_case *c)
{
    printf("  reproduce: diff");
    if (c->name[0])
        printf(" --file %s", o->file);
    else
        printf(" --seed %llu --case %llu", (unsigned long long)c->seed, (unsigned long long)c->index);
    if (c->only[0])
        printf(" --only %s", c->only);
    if (o->accel[0])
        printf(" --accel %s", o->accel);
    printf(" -v\n");
}

static void judge(const struct options *o, const struct batch *b, unsigned i, struct totals *t)
{
    const struct diff_case *c = &b->cases[i];
    unsigned n = compare_results(c, &b->host[i], &b->engine[i], false);

    t->cases++;
    if (b->host[i].end == END_FAULT)
        t->vectors[b->host[i].vector & 31]++;
    else
        t->hangs++;
    t->complete += b->host[i].state.eip == c->code_va + c->code_len;
    if (!n && !o->verbose)
        return;
    t->failures += n != 0;
    if (n && t->failures > o->max_failures)
        return;
    fflush(stdout);
    print_case(c);
    print_end("host      ", &b->host[i]);
    print_end("translated", &b->engine[i]);
    compare_results(c, &b->host[i], &b->engine[i], true);
    if (n)
        print_reproducer(o, c);
    fflush(stdout);
}

static void run_batch(const struct options *o, struct batch *b, struct totals *t)
{
    host_side(b, b->host);
    if (o->self)
        host_side(b, b->engine);
    else
        engine_side(o, b);
    for (unsigned i = 0; i < b->n; i++)
        judge(o, b, i, t);
    b->n = 0;
}

/* ---- where cases come from ----------------------------------------------------------------------------- */

static void run_generated(const struct options *o, const struct gen *g, struct batch *b, struct totals *t)
{
    uint64_t first = o->one_case ? o->only_case : 0, count = o->one_case ? 1 : o->cases;

    for (uint64_t i = 0; i < count; i++) {
        if (i / BATCH % o->jobs != o->job)
            continue;
        gen_case(g, o->seed, first + i, &b->cases[b->n++]);
        if (b->n == BATCH)
            run_batch(o, b, t);
    }
    if (b->n)
        run_batch(o, b, t);
}

static const char *const reg_names[] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eflags" };

static bool parse_setting(struct diff_case *c, const char *word)
{
    const char *eq = strchr(word, '=');
    uint32_t value;

    if (!eq)
        return false;
    value = (uint32_t)strtoul(eq + 1, NULL, 16);
    for (unsigned i = 0; i < 9; i++)
        if (strlen(reg_names[i]) == (size_t)(eq - word) &&
            !strncmp(word, reg_names[i], (size_t)(eq - word))) {
            *(i < 8 ? &c->init.gpr[i] : &c->init.eflags) = value | (i == 8 ? EFL_ONE | EFL_IF : 0);
            return true;
        }
    if (!strncmp(word, "eip=", 4)) {
        c->code_va = c->init.eip = value;
        return true;
    }
    return false;
}

/* NAME SEED HEX [reg=HEX]...   registers and memory start as SEED gives them */
static bool parse_case_line(char *line, struct diff_case *c)
{
    char *save = NULL, *name = strtok_r(line, " \t\n", &save), *seed = strtok_r(NULL, " \t\n", &save),
         *hex = strtok_r(NULL, " \t\n", &save), *word;

    if (!hex)
        return false;
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%s", name);
    c->seed = strtoull(seed, NULL, 0);
    gen_state(c->seed, c);
    c->code_va = c->init.eip = CASE_CODE + 0x100;
    for (; hex[0] && hex[1] && c->code_len < CASE_CODE_MAX; hex += 2) {
        char byte[3] = { hex[0], hex[1], 0 };
        char *end;

        c->code[c->code_len++] = (uint8_t)strtoul(byte, &end, 16);
        if (*end)
            return false;
    }
    while ((word = strtok_r(NULL, " \t\n", &save)))
        if (!parse_setting(c, word))
            return false;
    gen_annotate(c);
    return true;
}

static void run_file(const struct options *o, struct batch *b, struct totals *t)
{
    FILE *f = fopen(o->file, "r");
    char line[2048];
    unsigned number = 0;

    if (!f) {
        fprintf(stderr, "diff: %s: %s\n", o->file, strerror(errno));
        exit(2);
    }
    while (fgets(line, sizeof line, f)) {
        number++;
        if (line[0] == '#' || line[0] == '\n')
            continue;
        if (!parse_case_line(line, &b->cases[b->n])) {
            fprintf(stderr, "diff: %s:%u: expected NAME SEED HEXBYTES [reg=HEX]...\n", o->file, number);
            exit(2);
        }
        if (++b->n == BATCH)
            run_batch(o, b, t);
    }
    fclose(f);
    if (b->n)
        run_batch(o, b, t);
}

static struct batch *new_batch(void)
{
    struct batch *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (b == MAP_FAILED) {
        perror("diff");
        exit(1);
    }
    return b;
}

/* A process each for its share of the batches; their totals are added up. */
static void run_jobs(const struct options *o, const struct gen *g, struct totals *t)
{
    struct totals *each = mmap(NULL, o->jobs * sizeof *each, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[64];

    if (each == MAP_FAILED) {
        perror("diff");
        exit(1);
    }
    fflush(stdout);
    for (unsigned i = 0; i < o->jobs; i++) {
        struct options mine = *o;

        pids[i] = fork();
        if (pids[i] < 0) {
            perror("diff");
            exit(1);
        }
        if (pids[i])
            continue;
        mine.job = i;
        setvbuf(stdout, NULL, _IOFBF, 1u << 16); /* a case's report in one write */
        run_generated(&mine, g, new_batch(), &each[i]);
        exit(0);
    }
    for (unsigned i = 0; i < o->jobs; i++) {
        int status;

        if (waitpid(pids[i], &status, 0) < 0 || status) {
            printf("diff: job %u did not finish (status 0x%x)\n", i, (unsigned)status);
            t->failures++;
        }
        t->cases += each[i].cases;
        t->failures += each[i].failures;
        t->hangs += each[i].hangs;
        t->complete += each[i].complete;
        for (unsigned v = 0; v < 32; v++)
            t->vectors[v] += each[i].vectors[v];
    }
}

static void print_stats(const struct totals *t)
{
    printf("how cases ended on the host:");
    for (unsigned v = 0; v < 32; v++)
        if (t->vectors[v])
            printf(" #%u:%llu", v, (unsigned long long)t->vectors[v]);
    printf(" hung:%llu; %llu ran to their end\n", (unsigned long long)t->hangs,
           (unsigned long long)t->complete);
}

int main(int argc, char **argv)
{
    struct options o;
    struct totals t = { 0 };
    struct gen *g;

    parse_options(argc, argv, &o);
    g = gen_new(o.only);
    if (!g)
        usage("no such mnemonic; --list shows them");
    if (o.list) {
        const char *names[2048];
        size_t n = gen_mnemonics(g, names, 2048);

        for (size_t i = 0; i < n; i++)
            printf("%s\n", names[i]);
        return 0;
    }
    if (o.coverage)
        return coverage_print(g, o.seed, o.cases) ? 0 : 1;
    if (o.file)
        run_file(&o, new_batch(), &t);
    else if (o.jobs > 1 && !o.one_case)
        run_jobs(&o, g, &t);
    else
        run_generated(&o, g, new_batch(), &t);
    if (o.stats)
        print_stats(&t);
    printf("diff: %llu cases, %llu differ (seed %llu%s%s)\n", (unsigned long long)t.cases,
           (unsigned long long)t.failures, (unsigned long long)o.seed, o.accel[0] ? ", " : "", o.accel);
    gen_free(g);
    return t.failures ? 1 : 0;
}
