/*
 * The `ringdown` command: options in, a machine built, run, and an exit status out.
 *
 * One line on stderr says what is wrong before anything is started; the terminal is
 * touched only when all files are read and checked. A guest's reset builds the machine
 * anew in the same process: devices, vCPU and translation cache start from nothing, the
 * character devices stay connected.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/code_log.h"
#include "cli/coherency_log.h"
#include "cli/configure.h"
#include "cli/core.h"
#include "cli/explain.h"
#include "cli/firmware.h"
#include "cli/hash_log.h"
#include "cli/hmp.h"
#include "cli/load.h"
#include "cli/options.h"
#include "cli/ring1.h"
#include "cli/stats.h"
#include "monitor/monitor.h"
#include "platform/hosted/hosted.h"

enum exit_status { STATUS_OK = 0, STATUS_RUNTIME = 1, STATUS_USAGE = 2, STATUS_TRIPLE_FAULT = 3 };

/* A fixed date for runs that must repeat: 2024-01-01 00:00 UTC. */
#define REPEATABLE_EPOCH 1704067200

struct session {
    struct options options;
    struct cpu_model model;
    struct boot_files files;
    uint8_t *ram;
    struct firmware firmware;
    struct chardev serial[HOSTED_SERIAL_MAX], debugcon;
    struct hosted_chardev *monitor_dev; /* NULL: there is no monitor */
    struct hmp *hmp;
    bool is_paused; /* across resets */
    struct vm *vm;
    struct code_log *code_log; /* NULL when nobody asked for it */
    struct hash_log *hash_log; /* likewise */
    struct coherency_log_file *coherency_log; /* likewise */
    struct stats stats;        /* of machines before a reset */
    uint64_t started_ns;
};

static int complain(enum exit_status status, const char *text)
{
    fprintf(stderr, "ringdown: %s\n", text);
    return (int)status;
}

/* ---- listings ------------------------------------------------------------------------ */

static void list_cpus(void)
{
    puts("CPU models:");
    for (size_t i = 0; i < cpu_model_count; i++)
        printf("  %-12s%s\n", cpu_models[i].name, i ? "" : " (default)");
    printf("Features (+NAME, -NAME):\n ");
    for (size_t i = 0; cpu_model_feature_name(i); i++)
        printf(" %s", cpu_model_feature_name(i));
    puts("");
}

static void list_log_channels(void)
{
    puts("Log channels (comma separated):");
    for (unsigned i = 0; i < LOG_CHANNEL_COUNT; i++)
        printf("  %-12s %s\n", log_channels[i].name, log_channels[i].text);
}

static int list_something(enum options_action action)
{
    switch (action) {
    case ACTION_RUN:
        break;
    case ACTION_HELP:
        fputs(options_help, stdout);
        break;
    case ACTION_VERSION:
        puts("ringdown version " RINGDOWN_VERSION);
        break;
    case ACTION_CPU_HELP:
        list_cpus();
        break;
    case ACTION_LOG_HELP:
        list_log_channels();
        break;
    case ACTION_MACHINE_HELP:
        puts("Machines:\n  pc           PC: i440FX, PIIX3, ACPI (default)");
        break;
    case ACTION_ACCEL_HELP:
        puts("Accelerators:\n  bt           binary translation (default)\n"
             "  ring1        the same in ring 1 of a machine that QEMU makes");
        break;
    case ACTION_DEVICE_HELP:
        puts("Devices:\n  isa-debug-exit,iobase=PORT,iosize=1|2|4");
        break;
    case ACTION_DIRS_HELP:
        for (unsigned i = 0; firmware_dirs[i]; i++)
            puts(firmware_dirs[i]);
        break;
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        return STATUS_OK;
    fprintf(stderr, "ringdown: cannot write to standard output: %s\n", strerror(errno));
    return STATUS_RUNTIME;
}

/* ---- host side ------------------------------------------------------------------------- */

static uint64_t host_now_ns(void *ctx)
{
    (void)ctx;
    return platform_clock_ns();
}

static void on_input(void *ctx, unsigned port)
{
    struct session *s = ctx;
    uint8_t data[256];
    size_t len;

    if (port == HOSTED_CHARDEV_MONITOR)
        while ((len = hosted_chardev_read(s->monitor_dev, data, sizeof data)) > 0)
            hmp_input(s->hmp, data, len);
    else if (port == HOSTED_CHARDEV_DEBUGCON)
        while (hosted_chardev_read(s->debugcon.ctx, data, sizeof data) > 0)
            ;
    else if (s->vm)
        machine_serial_input(s->vm->machine, port);
}

static void on_opened(void *ctx, unsigned port)
{
    struct session *s = ctx;

    if (port == HOSTED_CHARDEV_MONITOR)
        hmp_opened(s->hmp);
}

static void on_stop(void *ctx, int signal_number)
{
    struct session *s = ctx;

    if (s->vm)
        machine_request_stop(s->vm->machine, STOP_HOST, (uint32_t)signal_number);
}

static const struct chardev_ops chardev_ops = {
    .write = hosted_chardev_write,
    .read = hosted_chardev_read,
};

static struct hosted_chardev *open_chardev(const struct serial_option *so, unsigned port)
{
    switch (so->kind) {
    case SERIAL_NONE:
    case SERIAL_NULL:
        break;
    case SERIAL_STDIO:
        return port == HOSTED_CHARDEV_MONITOR && so->mux ? hosted_chardev_muxed(port)
                                                         : hosted_chardev_stdio(port, so->mux);
    case SERIAL_FILE:
        return hosted_chardev_file(port, so->path);
    case SERIAL_PTY:
        return hosted_chardev_pty(port);
    case SERIAL_UNIX:
        return hosted_chardev_unix(port, so->path, so->is_server, so->wait);
    }
    return hosted_chardev_null(port);
}

/* An option that says none leaves the chardev without functions: then there is no port. */
static bool open_port(struct chardev *c, const struct serial_option *so, unsigned port)
{
    if (so->kind == SERIAL_NONE)
        return true;
    *c = (struct chardev){ .ops = &chardev_ops, .ctx = open_chardev(so, port) };
    return c->ctx;
}

static bool open_ports(struct session *s)
{
    for (unsigned i = 0; i < s->options.serial_count; i++)
        if (!open_port(&s->serial[i], &s->options.serial[i], i))
            return false;
    return open_port(&s->debugcon, &s->options.debugcon, HOSTED_CHARDEV_DEBUGCON);
}

static bool open_monitor(struct session *s)
{
    const struct serial_option *so = &s->options.monitor;
    struct hmp_config config = { .write = hosted_chardev_write, .echo = so->kind != SERIAL_UNIX };

    if (so->kind == SERIAL_NONE)
        return true;
    config.ctx = s->monitor_dev = open_chardev(so, HOSTED_CHARDEV_MONITOR);
    if (s->monitor_dev)
        s->hmp = hmp_new(&config);
    return s->hmp != NULL;
}

/* ---- the machine -------------------------------------------------------------------------- */

static int64_t rtc_epoch(const struct options *o)
{
    time_t now = time(NULL);
    struct tm local;

    switch (o->rtc_base) {
    case RTC_FIXED:
        return o->rtc_epoch;
    case RTC_LOCALTIME:
        if (localtime_r(&now, &local))
            return (int64_t)now + local.tm_gmtoff;
        break;
    case RTC_UTC:
        if (o->clock_insn)
            return REPEATABLE_EPOCH;
        break;
    }
    return (int64_t)now;
}

static struct vm_config make_config(const struct session *s)
{
    const struct options *o = &s->options;
    struct vm_config c;

    configure_vm(&c, o);
    c.ram = s->ram;
    c.model = &s->model;
    c.machine.clock = (struct vm_clock_source){ .now_ns = host_now_ns };
    c.machine.rtc_epoch = rtc_epoch(o);
    c.machine.debugcon = s->debugcon;
    c.start_paused = s->is_paused;
    c.listing_ctx = s->code_log;
    c.translated = s->code_log ? code_log_translated : NULL;
    c.checkpoint = hash_log_checkpoint;
    c.checkpoint_ctx = s->hash_log;
    c.checkpoint_first = o->hash_from;
    c.checkpoint_every = s->hash_log ? o->hash_every : 0;
    c.coherency_events = s->coherency_log ? coherency_log_events : NULL;
    c.coherency_ctx = s->coherency_log;
    hosted_features(&c.host, o->baseline);
    memcpy(c.machine.serial, s->serial, sizeof c.machine.serial);
    firmware_configure(&s->firmware, &c.machine);
    return c;
}

static void add_stats(struct stats *sum, const struct stats *more)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)more;

    _Static_assert(sizeof(struct stats) % sizeof(uint64_t) == 0, "struct stats holds counters only");
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        to[i] += from[i];
}

static void machine_down(struct session *s)
{
    if (!s->vm)
        return;
    add_stats(&s->stats, &s->vm->cpu->stats);
    vm_coherency_flush(s->vm);
    coherency_log_power_off(s->coherency_log);
    s->is_paused = s->vm->is_paused;
    if (s->hmp)
        hmp_attach(s->hmp, NULL);
    hosted_attach(NULL, 0);
    vm_free(s->vm);
    s->vm = NULL;
}

static bool machine_up(struct session *s, char error[LOAD_ERROR_BYTES])
{
    struct boot_entry entry;
    struct vm_config config = make_config(s);

    if (!s->firmware.rom && !boot_files_place(&s->files, &s->options, s->ram, &entry, error))
        return false;
    s->vm = vm_new(&config);
    if (!s->vm) {
        snprintf(error, LOAD_ERROR_BYTES, "cannot make the virtual machine: %s",
                 *hosted_error() ? hosted_error() : "out of memory");
        return false;
    }
    hosted_attach(s->vm->cpu, bt_signal_stub(s->vm->cpu->bt));
    if (s->hmp)
        hmp_attach(s->hmp, s->vm);
    if (!s->firmware.rom) /* firmware starts where reset leaves the processor */
        boot_enter(s->vm->cpu, &entry);
    return true;
}

static bool is_reset(const struct session *s, const struct vm_exit *e)
{
    return (e->why == STOP_RESET || e->why == STOP_TRIPLE_FAULT) && !e->unsupported && !s->options.no_reboot;
}

/* The text is the monitor's report, a screenful at most. */
static int report(enum exit_status status, const struct vm_exit *e)
{
    hosted_finish();
    fprintf(stderr, "%s%s", e->text, *e->text && e->text[strlen(e->text) - 1] != '\n' ? "\n" : "");
    return (int)status;
}

static int status_of(const struct vm_exit *e)
{
    if (e->unsupported)
        return report(STATUS_RUNTIME, e);
    switch (e->why) {
    case STOP_DEBUG_EXIT:
        return (int)(e->code & 0xffu);
    case STOP_TRIPLE_FAULT:
        return report(STATUS_TRIPLE_FAULT, e);
    case STOP_NONE:
        return report(STATUS_RUNTIME, e);
    case STOP_POWEROFF:
    case STOP_RESET:
    case STOP_HOST:
        break;
    }
    return STATUS_OK;
}

/* What becomes of a guest that can't go on, for gdb. */
static void write_core(struct session *s, const struct vm_exit *e)
{
    const char *path = s->options.core_file;

    if (!path || !(e->unsupported || e->why == STOP_TRIPLE_FAULT))
        return;
    int rc = core_write(path, s->vm->cpu, s->ram, s->options.ram_bytes, e->text);
    if (rc < 0)
        fprintf(stderr, "ringdown: cannot write core '%s': %s\r\n", path, strerror(-rc));
}

/* The last line of the hash log: where the guest ended of its own accord. */
static void log_end(struct session *s, const struct vm_exit *e)
{
    const struct vm *vm = s->vm;

    if (s->hash_log && e->why != STOP_HOST)
        hash_log_checkpoint(s->hash_log, vm->cpu,
                            vm->insns + (uint64_t)(vm->insn_budget - vm->cpu->icount_left));
}

static int run(struct session *s)
{
    char error[LOAD_ERROR_BYTES];
    struct vm_exit exit_info;

    for (;;) {
        if (!machine_up(s, error)) {
            hosted_finish();
            return complain(STATUS_RUNTIME, error);
        }
        memset(&exit_info, 0, sizeof exit_info);
        vm_run(s->vm, &exit_info);
        vcpu_fpu_park(s->vm->cpu);
        write_core(s, &exit_info);
        log_end(s, &exit_info);
        machine_down(s);
        if (!is_reset(s, &exit_info))
            return status_of(&exit_info);
        if (!s->firmware.rom) /* firmware finds what a reset leaves */
            hosted_ram_clear();
    }
}

static int write_stats(struct session *s, int status)
{
    char error[LOAD_ERROR_BYTES];
    const char *path = s->options.stats_file;
    int rc;

    if (!path)
        return status;
    rc = stats_write(path, &s->stats, s->model.name, platform_clock_ns() - s->started_ns);
    if (rc == 0)
        return status;
    snprintf(error, sizeof error, "cannot write stats to '%s': %s", path, strerror(-rc));
    return complain(status ? (enum exit_status)status : STATUS_RUNTIME, error);
}

static bool open_code_log(struct session *s, char error[LOAD_ERROR_BYTES])
{
    bool lists = s->options.log_mask & (1u << LOG_in_asm | 1u << LOG_out_asm);
    int rc = 0;

    if (!lists && !s->options.perf_map)
        return true;
    s->code_log = code_log_new();
    if (!s->code_log || (lists && !code_log_listings(s->code_log))) {
        snprintf(error, LOAD_ERROR_BYTES, "out of memory for listings");
        return false;
    }
    if (s->options.perf_map && (rc = code_log_perf_map(s->code_log)) < 0)
        snprintf(error, LOAD_ERROR_BYTES, "cannot write /tmp/perf-%ld.map: %s", (long)getpid(),
                 strerror(-rc));
    return rc == 0;
}

static bool open_hash_log(struct session *s, char error[LOAD_ERROR_BYTES])
{
    const struct options *o = &s->options;
    struct hash_log_options h = {
        .path = o->hash_file,
        .every = o->hash_every,
        .from = o->hash_from,
        .to = o->hash_to,
        .regs = o->hash_regs,
        .mem = o->hash_mem,
    };

    if (!o->hash_file)
        return true;
    s->hash_log = hash_log_new(&h, s->ram, o->ram_bytes);
    if (!s->hash_log)
        snprintf(error, LOAD_ERROR_BYTES, "cannot write hash-log '%s': %s", o->hash_file, strerror(errno));
    return s->hash_log;
}

static int close_hash_log(struct session *s, int status)
{
    char error[LOAD_ERROR_BYTES];
    int rc = hash_log_close(s->hash_log);

    if (rc == 0)
        return status;
    snprintf(error, sizeof error, "cannot write hash-log '%s': %s", s->options.hash_file, strerror(-rc));
    return complain(status ? (enum exit_status)status : STATUS_RUNTIME, error);
}

static bool open_coherency_log(struct session *s, char error[LOAD_ERROR_BYTES])
{
    const struct options *o = &s->options;
    int rc = 0;

    if (!o->coherency_file)
        return true;
    s->coherency_log = coherency_log_new(o->coherency_file, o->coherency_max, o->coherency, o->clock_insn, &rc);
    if (!s->coherency_log)
        snprintf(error, LOAD_ERROR_BYTES, "cannot write coherency-log '%s': %s", o->coherency_file, strerror(-rc));
    return s->coherency_log;
}

static int close_coherency_log(struct session *s, int status)
{
    char error[LOAD_ERROR_BYTES];
    int rc = coherency_log_close(s->coherency_log);

    if (rc == 0)
        return status;
    snprintf(error, sizeof error, "cannot write coherency-log '%s': %s", s->options.coherency_file, strerror(-rc));
    return complain(status ? (enum exit_status)status : STATUS_RUNTIME, error);
}

static int start(struct session *s)
{
    char error[LOAD_ERROR_BYTES];

    if (hosted_init() < 0)
        return complain(STATUS_RUNTIME, hosted_error());
    s->started_ns = platform_clock_ns();
    if (s->options.kernel && !boot_files_open(&s->files, &s->options, error))
        return complain(STATUS_RUNTIME, error);
    if (!firmware_open(&s->firmware, &s->options, error))
        return complain(STATUS_RUNTIME, error);
    if (s->firmware.rom && s->options.kernel &&
        !firmware_add_kernel(&s->firmware, &s->options, &s->files, error))
        return complain(STATUS_RUNTIME, error);
    if (s->firmware.rom && !s->options.no_vga && !s->firmware.vga.bytes)
        fputs("ringdown: warning: no VGA firmware found (vgabios-isavga.bin): see -L\n", stderr);
    if (s->options.log_file && hosted_log_open(s->options.log_file) < 0)
        return complain(STATUS_RUNTIME, hosted_error());
    if (!open_code_log(s, error))
        return complain(STATUS_RUNTIME, error);
    s->ram = hosted_ram_new(s->options.ram_bytes);
    if (!s->ram)
        return complain(STATUS_RUNTIME, hosted_error());
    if (!open_hash_log(s, error) || !open_coherency_log(s, error))
        return complain(STATUS_RUNTIME, error);
    hosted_set_events(
        &(struct hosted_events){ .ctx = s, .input = on_input, .opened = on_opened, .stop = on_stop });
    s->is_paused = s->options.start_paused;
    if (!open_ports(s) || !open_monitor(s)) {
        hosted_chardev_close_all();
        return complain(STATUS_RUNTIME, hosted_error());
    }
    if (s->options.display_by_default)
        fputs("ringdown: there is no display: serial port 0 is on this terminal, as with -nographic "
              "(Ctrl-a x leaves)\n",
              stderr);
    if (s->options.sandbox)
        hosted_sandbox();
    int status = run(s);
    hosted_chardev_close_all();
    return write_stats(s, close_coherency_log(s, close_hash_log(s, status)));
}

/* Whoever starts us with a standard descriptor closed must not find the next file that we open in its
 * place: guest memory, say, as where the serial port writes. Reading such a one gives the end of file,
 * writing fails. */
static bool fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            return false;
    return true;
}

int main(int argc, char **argv)
{
    static struct session session;
    char error[CONFIGURE_ERROR_BYTES];

    if (!fill_standard_descriptors())
        return complain(STATUS_RUNTIME, "a standard descriptor is closed, and /dev/null can't be opened in its place");
    if (argc > 1 && !strcmp(argv[1], "explain"))
        return explain_main(argc - 1, argv + 1);
    if (!options_parse(&session.options, argc, (const char *const *)argv))
        return complain(STATUS_USAGE, session.options.error);
    if (session.options.action != ACTION_RUN)
        return list_something(session.options.action);
    if (!configure_model(&session.model, &session.options, error))
        return complain(STATUS_USAGE, error);
    if (session.options.ring1) {
        bool is_usage = !ring1_exec(&session.options, error);
        return complain(is_usage ? STATUS_USAGE : STATUS_RUNTIME, error);
    }
    if (session.options.user_direct)
        return complain(STATUS_USAGE, "-accel bt: user=direct: a process can't do that, -accel ring1 can");
    return start(&session);
}
