/*
 * -accel ring1: the same command line for the ring-1 platform. The program becomes QEMU (TCG), which boots
 * ringdown-metal; the guest's files are its modules, the options its command line. The guest's first serial
 * port is QEMU's, so the names of character devices mean what they mean there; the image's own words go to
 * standard error by QEMU's debug console.
 *
 * What an emulator's own machine can't pass on is refused.
 */
#include "cli/ring1.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/types.h"

#define WORDS_BYTES 4096u /* the image takes no longer command line */
#define EXIT_PORT   0x501
/* What the image needs beside the guest's memory and the translation cache. */
#define EXTRA_BYTES (192ull << 20)
#define EMULATOR    "qemu-system-x86_64"

/* Text that grows until it is full. */
struct text {
    char *at;
    size_t used, size;
    bool overflows;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = fmt_vformat(t->at + t->used, t->size - t->used, fmt, ap);
    va_end(ap);
    t->overflows |= (size_t)n >= t->size - t->used;
    t->used += t->overflows ? 0 : (size_t)n;
}

/* A word of the image's command line. */
static void put_word(struct text *t, const char *word)
{
    put(t, " \"");
    for (; *word; word++)
        put(t, *word == '"' || *word == '\\' ? "\\%c" : "%c", *word);
    put(t, "\"");
}

/* QEMU's lists: a doubled comma stands for one. */
static void put_listed(struct text *t, const char *item)
{
    for (; *item; item++)
        put(t, *item == ',' ? ",%c" : "%c", *item);
}

/* ---- what can't be had ------------------------------------------------------------------------- */

static const char *refused(const struct options *o)
{
    if (o->bios)
        return "-bios: the boot image has no firmware for guests";
    if (o->serial_count > 1)
        return "the boot image gives the guest one serial port only";
    if (o->debugcon.kind != SERIAL_NONE)
        return "-debugcon: the boot image has no debug console for the guest";
    if (o->start_paused || (o->monitor_given && o->monitor.kind != SERIAL_NONE))
        return "-S and -monitor: the boot image has no monitor";
    if (o->log_file || o->stats_file || o->core_file || o->hash_file || o->coherency_file || o->perf_map)
        return "the boot image writes no files";
    return NULL;
}

/* ---- the emulator's command line ----------------------------------------------------------------- */

static void put_options(struct text *t, const struct options *o)
{
    put(t, "exit-port=%d -m %lluK -accel", EXIT_PORT, (unsigned long long)(o->ram_bytes >> 10));
    put_word(t, o->ring1_accel);
    put(t, " -append");
    put_word(t, o->append ? o->append : "");
    if (o->no_reboot)
        put(t, " -no-reboot");
    if (o->cpu) {
        put(t, " -cpu %s", o->cpu);
        for (unsigned i = 0; i < o->cpu_flag_count; i++)
            put(t, ",%c%s", o->cpu_flag[i].on ? '+' : '-', o->cpu_flag[i].name);
    }
    if (o->debug_exit_size)
        put(t, " -device isa-debug-exit,iobase=%u,iosize=%u", o->debug_exit_port, o->debug_exit_size);
    for (unsigned i = 0, n = 0; i < LOG_CHANNEL_COUNT; i++)
        if (o->log_mask & 1u << i)
            put(t, "%s%s", n++ ? "," : " -d ", log_channels[i].name);
}

static void put_serial(struct text *t, const struct serial_option *so)
{
    switch (so->kind) {
    case SERIAL_NONE:
    case SERIAL_NULL:
        put(t, "null");
        return;
    case SERIAL_STDIO:
        put(t, so->mux ? "mon:stdio" : "stdio");
        return;
    case SERIAL_PTY:
        put(t, "pty");
        return;
    case SERIAL_FILE:
        put(t, "file:");
        put_listed(t, so->path);
        return;
    case SERIAL_UNIX:
        put(t, "unix:");
        put_listed(t, so->path);
        put(t, ",server=%s,wait=%s", so->is_server ? "on" : "off", so->wait ? "on" : "off");
        return;
    }
}

/* ringdown-metal lies beside the program. */
static bool find_image(char *path, size_t size, const struct options *o)
{
    if (o->ring1_image)
        return (size_t)fmt_format(path, size, "%s", o->ring1_image) < size;
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    if (n < 0)
        return false;
    path[n] = 0;
    char *name = strrchr(path, '/');
    size_t room = name ? size - (size_t)(name + 1 - path) : 0;
    return name && (size_t)fmt_format(name + 1, room, "ringdown-metal") < room;
}

static bool fail(char error[RING1_ERROR_BYTES], const char *what, const char *why)
{
    fmt_format(error, RING1_ERROR_BYTES, "-accel ring1: %.120s%s%.120s", what, *what ? ": " : "", why);
    return true;
}

bool ring1_exec(const struct options *o, char error[RING1_ERROR_BYTES])
{
    static char image[WORDS_BYTES], words[WORDS_BYTES], modules[2 * WORDS_BYTES], serial[WORDS_BYTES], memory[32];
    struct text w = { words, 0, sizeof words, false }, m = { modules, 0, sizeof modules, false },
                s = { serial, 0, sizeof serial, false };
    const char *why = refused(o);
    const char *files[] = { o->kernel, o->initrd };

    if (why)
        return !fail(error, "", why);
    if (!find_image(image, sizeof image, o) || access(image, R_OK) != 0)
        return fail(error, image, "no boot image there: use image=FILE");
    for (unsigned i = 0; i < ARRAY_LEN(files); i++) {
        if (!files[i])
            continue;
        if (access(files[i], R_OK) != 0)
            return fail(error, files[i], strerror(errno));
        if (strchr(files[i], ' ')) /* a module's name ends there */
            return fail(error, files[i], "QEMU passes on no file names with spaces");
        put(&m, "%s", i ? "," : "");
        put_listed(&m, files[i]);
    }
    if (strchr(image, ' '))
        return fail(error, image, "QEMU passes on no file names with spaces");
    put_options(&w, o);
    put_serial(&s, &o->serial[0]);
    if (w.overflows || m.overflows || s.overflows)
        return fail(error, "", "the command line is too long");
    fmt_format(memory, sizeof memory, "%llu",
               (unsigned long long)((o->ram_bytes + o->tc_bytes + EXTRA_BYTES) >> 20) + 1);
    const char *model = o->ring1_host && strchr(o->ring1_host, ':') ? strchr(o->ring1_host, ':') + 1 : "max";
    const char *argv[] = {
        EMULATOR, "-accel", "tcg", "-cpu", model, "-m", memory, "-kernel", image, "-append", words, "-initrd", modules,
        "-display", "none", "-nic", "none", "-no-reboot", "-serial", serial,
        "-chardev", "file,id=words,path=/dev/stderr,append=on", "-device", "isa-debugcon,iobase=0xe9,chardev=words",
        "-device", "isa-debug-exit,iobase=0x501,iosize=1",
        o->serial[0].mux ? NULL : "-monitor", "none", NULL,
    };
    _Static_assert(EXIT_PORT == 0x501, "the list above says so");
    execvp(EMULATOR, (char *const *)(uintptr_t)argv);
    return fail(error, EMULATOR, strerror(errno));
}
