/*
 * The boot image's program, in ring 1: one VM, made as the `ringdown` command makes it.
 *
 * The image's command line holds the command's options; the first word is the image's name, and words of the
 * form exit-port=N that come before the options are about the machine below: where QEMU's isa-debug-exit is.
 * Module 0 is the guest's kernel, a bzImage; module 1, if there is one, its initrd. Without -append the
 * guest's command line is what follows the name of module 0.
 */
#include <string.h>

#include "base/log.h"
#include "base/types.h"
#include "cli/bzimage.h"
#include "cli/configure.h"
#include "cli/image.h"
#include "platform/ring1/core/core.h"
#include "platform/ring1/core/nucleus.h"
#include "platform/ring1/core/ring1.h"
#include "platform/ring1/image/multiboot_info.h"

enum exit_status { STATUS_OK = 0, STATUS_RUNTIME = 1, STATUS_TRIPLE_FAULT = 3 };

#define ARGS_MAX 64
/* A fixed date for runs that must repeat: 2024-01-01 00:00 UTC. */
#define REPEATABLE_EPOCH 1704067200

static struct {
    const char *args[ARGS_MAX + 1];
    int nargs;
    struct options options;
    struct cpu_model model;
    struct bzimage kernel;
    uint8_t *ram;
    struct vm *vm;
    bool self_test;
    uint64_t core_sum;
    struct stats stats;
} session;

static _Noreturn void fail(const char *text)
{
    ring1_print("ringdown-metal: %s\n", text);
    ring1_exit(STATUS_RUNTIME);
}

/* ---- the command line ---------------------------------------------------------------------------- */

/* Split in place: blanks separate, double quotes hold together, a backslash keeps the next character. */
static int split(char *text, const char **args, int max)
{
    char *from = text, *to = text;
    int n = 0;

    for (;;) {
        bool quoted = false;
        while (*from == ' ')
            from++;
        if (!*from)
            return n;
        if (n == max)
            return -1;
        args[n++] = to;
        for (; *from && (quoted || *from != ' '); from++) {
            if (*from == '"')
                quoted = !quoted;
            else if (*from == '\\' && from[1])
                *to++ = *++from;
            else
                *to++ = *from;
        }
        from += *from != 0;
        *to++ = 0;
    }
}

/* A word about the machine below; false when it is none. */
static bool machine_word(const char *word)
{
    static const char exit_port[] = "exit-port=";

    if (!strcmp(word, "self-test"))
        return session.self_test = true;
    if (strncmp(word, exit_port, sizeof exit_port - 1) != 0)
        return false;
    unsigned port = 0;
    for (const char *p = word + sizeof exit_port - 1; *p >= '0' && *p <= '9' && port < 0x10000; p++)
        port = port * 10 + (unsigned)(*p - '0');
    core_exit_port = (uint16_t)port;
    return true;
}

/* What follows the first word. */
static const char *after_name(const char *words)
{
    while (*words && *words != ' ')
        words++;
    while (*words == ' ')
        words++;
    return words;
}

static void read_options(void)
{
    const char *words[ARGS_MAX];
    int n = split(boot_info.words, words, ARGS_MAX - 8), at = 1;

    if (n < 0)
        fail("the command line has too many words");
    while (at < n && machine_word(words[at]))
        at++;
    if (boot_info.error)
        fail(boot_info.error);
    session.args[session.nargs++] = "ringdown-metal";
    if (boot_info.module_count) {
        session.args[session.nargs++] = "-kernel";
        session.args[session.nargs++] = "module 0";
        if (*after_name(boot_info.module[0].words)) {
            session.args[session.nargs++] = "-append";
            session.args[session.nargs++] = after_name(boot_info.module[0].words);
        }
    }
    while (at < n)
        session.args[session.nargs++] = words[at++];
}

static void parse_options(void)
{
    char error[CONFIGURE_ERROR_BYTES];
    struct options *o = &session.options;

    if (!options_parse(o, session.nargs, session.args))
        fail(o->error);
    if (o->action != ACTION_RUN)
        fail("this image only runs guests: ask the ringdown command for listings");
    if (o->bios || o->log_file || o->stats_file || o->core_file || o->hash_file || o->coherency_file || o->perf_map)
        fail("firmware and files are for the ringdown command: this image has none");
    if (!configure_model(&session.model, o, error))
        fail(error);
}

/* ---- the machine ------------------------------------------------------------------------------------ */

static uint64_t now_ns(void *ctx)
{
    (void)ctx;
    return platform_clock_ns();
}

static void on_input(void *ctx)
{
    (void)ctx;
    if (session.vm)
        machine_serial_input(session.vm->machine, 0);
}

static void machine_up(void)
{
    static const struct chardev_ops serial_ops = { .write = ring1_serial_write, .read = ring1_serial_read };
    const struct options *o = &session.options;
    const struct boot_module_info *m = boot_info.module;
    char why[IMAGE_ERROR_BYTES], text[IMAGE_ERROR_BYTES + 32];
    struct boot_entry entry;
    struct vm_config c;

    configure_vm(&c, o);
    c.ram = session.ram;
    c.model = &session.model;
    c.bt.verify = true; /* the wall between the guest's kernel and us */
    ring1_features(&c.host, o->baseline);
    c.machine.clock = (struct vm_clock_source){ .now_ns = now_ns };
    c.machine.rtc_epoch = o->rtc_base == RTC_FIXED ? o->rtc_epoch : o->clock_insn ? REPEATABLE_EPOCH : ring1_epoch();
    c.machine.serial[0].ops = &serial_ops;
    if (!bzimage_place(&session.kernel, session.ram, o->ram_bytes, m[1].data, boot_info.module_count > 1 ? m[1].bytes : 0,
                       o->append ? o->append : "", &entry, why)) {
        fmt_format(text, sizeof text, "the kernel %s", why);
        fail(text);
    }
    session.vm = vm_new(&c);
    if (!session.vm)
        fail("this machine has too little memory for the virtual one");
    ring1_attach(session.vm->cpu, bt_signal_stub(session.vm->cpu->bt));
    boot_enter(session.vm->cpu, &entry);
}

static void machine_down(void)
{
    vcpu_fpu_park(session.vm->cpu);
    ring1_attach(NULL, 0);
    session.stats = session.vm->cpu->stats;
    vm_free(session.vm);
    session.vm = NULL;
}

static bool is_reset(const struct vm_exit *e)
{
    return (e->why == STOP_RESET || e->why == STOP_TRIPLE_FAULT) && !e->unsupported && !session.options.no_reboot;
}

static int status_of(const struct vm_exit *e)
{
    if (e->unsupported || e->why == STOP_TRIPLE_FAULT || e->why == STOP_NONE)
        ring1_print("%s\n", e->text);
    if (e->unsupported || e->why == STOP_NONE)
        return STATUS_RUNTIME;
    if (e->why == STOP_TRIPLE_FAULT)
        return STATUS_TRIPLE_FAULT;
    return e->why == STOP_DEBUG_EXIT ? (int)(e->code & 0xffu) : STATUS_OK;
}

/* How often ring 0 was entered, and why. */
static void print_counters(void)
{
    const struct core_counters *n = &core_counters;

    ring1_print("ring 0: %llu calls, %llu interrupts, %llu pages filled, %llu faults of translated code, "
                "%llu return stacks run over\n",
                (unsigned long long)n->calls, (unsigned long long)n->interrupts, (unsigned long long)n->filled,
                (unsigned long long)n->exits, (unsigned long long)n->overflows);
    if (session.options.user_direct)
        ring1_print("user code: %llu times to ring 3, %llu ticks of the TSC there; back by %llu interrupts, %llu page "
                    "faults, %llu other exceptions; %llu instructions translated alone, %llu entries refused\n",
                    (unsigned long long)n->user_entries, (unsigned long long)n->user_ticks,
                    (unsigned long long)n->user_interrupts, (unsigned long long)n->user_faults,
                    (unsigned long long)n->user_exceptions, (unsigned long long)session.stats.direct_step,
                    (unsigned long long)session.stats.direct_refused);
}

static _Noreturn void run(void)
{
    char why[IMAGE_ERROR_BYTES], text[IMAGE_ERROR_BYTES + 32];
    static struct vm_exit e;

    if (!bzimage_parse(&session.kernel, boot_info.module[0].data, boot_info.module[0].bytes, why)) {
        fmt_format(text, sizeof text, "module 0 %s", why);
        fail(text);
    }
    session.ram = ring1_ram_new(session.options.ram_bytes);
    if (!session.ram)
        fail("this machine has too little memory for the guest's: see -m");
    ring1_on_input(on_input, NULL);
    for (;;) {
        machine_up();
        memset(&e, 0, sizeof e);
        vm_run(session.vm, &e);
        machine_down();
        if (!is_reset(&e)) {
            int status = status_of(&e);
            print_counters();
            if (core_sum() != session.core_sum)
                fail("internal error: the guest has changed the core");
            ring1_exit(status);
        }
        ring1_ram_clear();
    }
}

/* ---- the platform by itself --------------------------------------------------------------------------- */

static void check(const char *name, bool holds)
{
    ring1_print("%s %s\n", holds ? "ok" : "FAIL", name);
    session.self_test &= holds;
}

static unsigned current_ring(void)
{
    uint16_t cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    return cs & 3u;
}

/* Timer interrupts of one sleep of `ns`, which must be over in time, but may end early. */
static unsigned wakes_in(uint64_t ns)
{
    uint64_t end = platform_clock_ns() + ns;
    uint32_t before = core_events.timer;

    for (uint64_t now; (now = platform_clock_ns()) < end;) {
        core_events.any = false;
        nucleus(NUC_WAIT, end - now, 0, 0, 0);
    }
    return core_events.timer - before;
}

/* Nothing here depends on the engine: what fails is the platform's. */
static _Noreturn void self_test(void)
{
    enum { BYTES = 4 << 20 };
    uint64_t calls = core_counters.calls, filled = core_counters.filled, left = frames_left();
    uint8_t *rw = NULL, *p = platform_reserve(BYTES);
    const uint8_t *rx = NULL;
    /* mov eax, 4252h; ret */
    static const uint8_t code[] = { 0xb8, 0x52, 0x42, 0, 0, 0xc3 };

    check("this is ring 1", current_ring() == 1);
    check("a call reaches ring 0 and comes back", nucleus(NUC_NOTHING, 0, 0, 0, 0) == 1);
    check("the core is as it was", core_sum() == session.core_sum);
    check("calls are counted", core_counters.calls > calls);
    check("a reservation reads as zero", p && !p[0] && !p[BYTES - 1]);
    p[0] = p[BYTES - 1] = 1;
    check("a page costs memory when it is touched", core_counters.filled == filled + 2);
    check("memory for the others is kept", memory_promised == BYTES - 2 * MACHINE_PAGE);
    platform_zero(p, BYTES);
    check("zeroed memory reads as zero", !p[0] && !p[BYTES - 1]);
    platform_release(p, BYTES);
    check("what is released is free again", memory_promised == 0 && frames_left() + (64 << 10) >= left);
    check("no more can be reserved than there is", !platform_reserve(left));
    check("code memory can be had", platform_code_alloc(BYTES, &rw, &rx) == 0);
    memcpy(rw, code, sizeof code);
    int (*fn)(void) = (int (*)(void))(uintptr_t)rx;
    check("what is written by one mapping runs by the other, in ring 1", fn() == 0x4252);
    unsigned wakes = wakes_in(50000000);
    check("the timer wakes when it is told to", wakes >= 1 && wakes <= 25);
    ring1_print("done %u failures\n", session.self_test ? 0u : 1u);
    ring1_exit(session.self_test ? STATUS_OK : STATUS_RUNTIME);
}

_Noreturn void front_main(void)
{
    read_options();
    session.core_sum = core_sum();
    ring1_print("ringdown-metal " RINGDOWN_VERSION ": ring %u, %llu MiB free, TSC %llu kHz\n", current_ring(),
                (unsigned long long)(frames_left() >> 20), (unsigned long long)((1000000ull << 32) / core_tsc_scale));
    if (session.self_test)
        self_test();
    if (!boot_info.module_count)
        fail("there is no guest: give its kernel as module 0");
    parse_options();
    run();
}
