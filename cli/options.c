/*
 * The parser of the command line. Names and values are QEMU's for what both programs
 * have, one dash or two, so that replacing qemu-system-i386 by ringdown in a script
 * works or says exactly which option is lacking.
 *
 * One table leads from option names to functions. Options of QEMU that we lack are
 * listed too, so that the message can tell "not supported yet" from "no such option".
 */
#include "cli/options.h"

#include <limits.h>
#include <string.h>

#include "base/log.h"
#include "base/types.h"

/* Code memory when nobody says: a quarter of the guest's, within these. */
#define TC_DEFAULT_MIN (32ull << 20)
#define TC_DEFAULT_MAX (128ull << 20)

/* Quote no more than this of an offending argument. */
#define SHOWN "%.80s"

static bool fail(struct options *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct options *o, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fmt_vformat(o->error, sizeof o->error, fmt, ap);
    va_end(ap);
    /* A line is a line, whatever bytes the argument held. */
    for (char *p = o->error; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    return false;
}

/* ---- values ---------------------------------------------------------------------- */

/* Digits in base 10, or 16 after 0x; the whole text must be a number up to `most`. */
static bool parse_number(const char *text, uint64_t most, uint64_t *out)
{
    uint64_t value = 0;
    unsigned base = 10;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    if (!*text)
        return false;
    for (; *text; text++) {
        unsigned digit;
        if (*text >= '0' && *text <= '9')
            digit = (unsigned)(*text - '0');
        else if (base == 16 && (*text | 0x20) >= 'a' && (*text | 0x20) <= 'f')
            digit = (unsigned)((*text | 0x20) - 'a') + 10;
        else
            return false;
        if (digit > most || value > (most - digit) / base)
            return false;
        value = value * base + digit;
    }
    *out = value;
    return true;
}

bool options_size(const char *text, uint64_t default_unit, uint64_t *bytes)
{
    char digits[24];
    size_t len = strlen(text);
    uint64_t unit = default_unit, value;

    if (!len || len >= sizeof digits)
        return false;
    memcpy(digits, text, len + 1);
    switch (digits[len - 1]) {
    case 'b':
    case 'B':
        unit = 1;
        break;
    case 'k':
    case 'K':
        unit = 1ull << 10;
        break;
    case 'm':
    case 'M':
        unit = 1ull << 20;
        break;
    case 'g':
    case 'G':
        unit = 1ull << 30;
        break;
    default:
        len++;
        break; /* no suffix to cut */
    }
    digits[len - 1] = 0;
    if (digits[0] == '0' && digits[1] == 'x')
        return false;
    if (!parse_number(digits, UINT64_MAX, &value) || value > UINT64_MAX / unit)
        return false;
    *bytes = value * unit;
    return true;
}

static bool parse_on_off(const char *text, bool *out)
{
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true"))
        *out = true;
    else if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false"))
        *out = false;
    else
        return false;
    return true;
}

/* ---- lists: name[=value],name[=value] --------------------------------------------- */

struct item {
    char *name;
    char *value; /* NULL without '=' */
};

/*
 * Cut the next item off *list into our own memory. A doubled comma stands for a comma.
 * @return 1 for an item, 0 at the end, -1 after an error.
 */
static int next_item(struct options *o, const char **list, struct item *item)
{
    const char *p = *list;
    size_t start = o->text_used, n = start;

    if (!p)
        return 0;
    item->value = NULL;
    for (; *p; p++) {
        if (*p == ',') {
            if (p[1] != ',')
                break;
            p++;
        }
        if (n + 1 >= sizeof o->text) {
            fail(o, "the options are too long: " SHOWN, *list);
            return -1;
        }
        if (*p == '=' && !item->value) {
            o->text[n++] = 0;
            item->value = o->text + n;
        } else {
            o->text[n++] = *p;
        }
    }
    if (n + 1 >= sizeof o->text) {
        fail(o, "the options are too long: " SHOWN, *list);
        return -1;
    }
    o->text[n++] = 0;
    o->text_used = n;
    item->name = o->text + start;
    *list = *p ? p + 1 : NULL;
    return 1;
}

static bool need_value(struct options *o, const char *option, const struct item *item)
{
    if (item->value && *item->value)
        return true;
    fail(o, "%s: '" SHOWN "' needs a value: " SHOWN "=...", option, item->name, item->name);
    return false;
}

/* ---- one function for each option --------------------------------------------------- */

static bool opt_kernel(struct options *o, const char *value)
{
    o->kernel = value;
    return true;
}

static bool opt_initrd(struct options *o, const char *value)
{
    o->initrd = value;
    return true;
}

static bool opt_append(struct options *o, const char *value)
{
    o->append = value;
    return true;
}

static bool opt_bios(struct options *o, const char *value)
{
    if (!*value)
        return fail(o, "-bios needs the name of a ROM image");
    o->bios = value;
    return true;
}

static bool opt_option_rom(struct options *o, const char *value)
{
    if (!*value || strchr(value, ','))
        return fail(o, "-option-rom '" SHOWN "': use the name of a file, without properties", value);
    if (o->option_rom_count == OPTIONS_ROMS_MAX)
        return fail(o, "-option-rom '" SHOWN "': only %u can be given", value, OPTIONS_ROMS_MAX);
    o->option_rom[o->option_rom_count++] = value;
    return true;
}

static bool opt_data_dir(struct options *o, const char *value)
{
    if (!strcmp(value, "help")) {
        o->action = ACTION_DIRS_HELP;
        return true;
    }
    if (o->data_dir_count == OPTIONS_DIRS_MAX)
        return fail(o, "-L '" SHOWN "': only %u directories can be named", value, OPTIONS_DIRS_MAX);
    o->data_dir[o->data_dir_count++] = value;
    return true;
}

static bool opt_memory(struct options *o, const char *value)
{
    const char *size = value;

    if (!strncmp(size, "size=", 5))
        size += 5;
    if (strchr(size, ','))
        return fail(o, "-m '" SHOWN "': only a size is supported, no slots or maxmem", value);
    if (!options_size(size, 1u << 20, &o->ram_bytes))
        return fail(o, "-m '" SHOWN "' is not a size: use MiB, or a number with K, M or G, such as 256M",
                    value);
    if (o->ram_bytes < OPTIONS_RAM_MIN)
        return fail(o, "-m '" SHOWN "' is too small: the least is %lluM", value, OPTIONS_RAM_MIN >> 20);
    if (o->ram_bytes > OPTIONS_RAM_MAX)
        return fail(o, "-m '" SHOWN "' is too large: the most is %lluM", value, OPTIONS_RAM_MAX >> 20);
    if (o->ram_bytes % GUEST_PAGE_SIZE)
        return fail(o, "-m '" SHOWN "' is not a multiple of 4 KiB", value);
    return true;
}

/* +NAME, -NAME or NAME=on|off; which names there are is the model's business. */
static bool cpu_flag(struct options *o, const struct item *item)
{
    struct cpu_flag flag = { item->name, true };

    if (*item->name == '+' || *item->name == '-') {
        flag = (struct cpu_flag){ item->name + 1, *item->name == '+' };
        if (item->value)
            return fail(o, "-cpu: '" SHOWN "' takes no value", item->name);
    } else if (!item->value || !parse_on_off(item->value, &flag.on)) {
        return fail(o, "-cpu: '" SHOWN "' must be +FEATURE, -FEATURE or FEATURE=on|off", item->name);
    }
    if (!*flag.name)
        return fail(o, "-cpu: '" SHOWN "' names no feature", item->name);
    if (o->cpu_flag_count == OPTIONS_CPU_FLAGS_MAX)
        return fail(o, "-cpu: more than %u feature flags", OPTIONS_CPU_FLAGS_MAX);
    o->cpu_flag[o->cpu_flag_count++] = flag;
    return true;
}

static bool opt_cpu(struct options *o, const char *value)
{
    const char *list = value;
    struct item item;
    int rc = next_item(o, &list, &item);

    if (rc < 0)
        return false;
    if (!strcmp(item.name, "help") || !strcmp(item.name, "?")) {
        o->action = ACTION_CPU_HELP;
        return true;
    }
    if (!*item.name || item.value)
        return fail(o, "-cpu '" SHOWN "' must start with a model: -cpu help lists them", value);
    o->cpu = item.name;
    o->cpu_flag_count = 0;
    while ((rc = next_item(o, &list, &item)) > 0)
        if (!cpu_flag(o, &item))
            return false;
    return rc == 0;
}

static bool opt_smp(struct options *o, const char *value)
{
    if (!strcmp(value, "1") || !strcmp(value, "cpus=1"))
        return true;
    return fail(o, "-smp '" SHOWN "': only one processor is supported: -smp 1", value);
}

static bool opt_nographic(struct options *o, const char *value)
{
    (void)value;
    o->nographic = true;
    return true;
}

static bool opt_no_reboot(struct options *o, const char *value)
{
    (void)value;
    o->no_reboot = true;
    return true;
}

static bool opt_sandbox(struct options *o, const char *value)
{
    return parse_on_off(value, &o->sandbox) || fail(o, "-sandbox '" SHOWN "': use on or off", value);
}

static bool opt_ignored(struct options *o, const char *value)
{
    (void)o, (void)value;
    return true;
}

static bool opt_nodefaults(struct options *o, const char *value)
{
    (void)value;
    o->display_by_default = false;
    return true;
}

static bool opt_display(struct options *o, const char *value)
{
    if (strcmp(value, "none"))
        return fail(o, "-display '" SHOWN "': there is no graphical display: use -display none or -nographic",
                    value);
    o->display_by_default = false;
    return true;
}

static bool opt_vga(struct options *o, const char *value)
{
    o->no_vga = !strcmp(value, "none");
    if (!strcmp(value, "std") || o->no_vga)
        return true;
    return fail(o, "-vga '" SHOWN "': use std or none", value);
}

static bool opt_start_paused(struct options *o, const char *value)
{
    (void)value;
    o->start_paused = true;
    return true;
}

static bool opt_only_none(struct options *o, const char *value)
{
    return !strcmp(value, "none") ? true : fail(o, "'" SHOWN "': only 'none' is supported here", value);
}

/* server, server=on|off, nowait, wait=on|off after unix:PATH */
static bool parse_unix(struct options *o, const char *option, struct serial_option *s, const char *spec)
{
    const char *list = spec;
    struct item item;
    int rc;

    s->wait = true;
    rc = next_item(o, &list, &item);
    if (rc < 0)
        return false;
    if (!*item.name || item.value)
        return fail(o, "%s 'unix:" SHOWN "' needs a path without '='", option, spec);
    s->path = item.name;
    while ((rc = next_item(o, &list, &item)) > 0) {
        bool known = true;
        if (!strcmp(item.name, "server") && !item.value)
            s->is_server = true;
        else if (!strcmp(item.name, "server"))
            known = parse_on_off(item.value, &s->is_server);
        else if (!strcmp(item.name, "nowait") && !item.value)
            s->wait = false;
        else if (!strcmp(item.name, "wait") && item.value)
            known = parse_on_off(item.value, &s->wait);
        else
            known = false;
        if (!known)
            return fail(o, "%s unix: '" SHOWN "': use server[=on|off] and wait=on|off", option, item.name);
    }
    return rc == 0;
}

static bool parse_chardev(struct options *o, const char *option, struct serial_option *s, const char *value)
{
    *s = (struct serial_option){ 0 };
    if (!strcmp(value, "none")) {
        s->kind = SERIAL_NONE;
    } else if (!strcmp(value, "null")) {
        s->kind = SERIAL_NULL;
    } else if (!strcmp(value, "stdio")) {
        s->kind = SERIAL_STDIO;
    } else if (!strcmp(value, "mon:stdio")) {
        s->kind = SERIAL_STDIO;
        s->mux = true;
    } else if (!strcmp(value, "pty")) {
        s->kind = SERIAL_PTY;
    } else if (!strncmp(value, "file:", 5) && value[5]) {
        s->kind = SERIAL_FILE;
        s->path = value + 5;
    } else if (!strncmp(value, "unix:", 5) && value[5]) {
        s->kind = SERIAL_UNIX;
        return parse_unix(o, option, s, value + 5);
    } else {
        return fail(o,
                    "%s '" SHOWN "': use stdio, mon:stdio, none, null, file:PATH, pty or "
                    "unix:PATH[,server=on][,wait=off]",
                    option, value);
    }
    return true;
}

static bool opt_monitor(struct options *o, const char *value)
{
    struct serial_option *s = &o->monitor;

    *s = (struct serial_option){ 0 };
    o->monitor_given = true;
    if (!strcmp(value, "none") || !strcmp(value, "null"))
        return true;
    if (!strcmp(value, "stdio"))
        s->kind = SERIAL_STDIO;
    else if (!strcmp(value, "pty"))
        s->kind = SERIAL_PTY;
    else if (!strncmp(value, "unix:", 5) && value[5])
        s->kind = SERIAL_UNIX;
    else
        return fail(o, "-monitor '" SHOWN "': use stdio, none, pty or unix:PATH[,server=on][,wait=off]",
                    value);
    return s->kind != SERIAL_UNIX || parse_unix(o, "-monitor", s, value + 5);
}

static bool opt_serial(struct options *o, const char *value)
{
    if (o->serial_count == OPTIONS_SERIAL_MAX)
        return fail(o, "-serial '" SHOWN "': there are only %u serial ports", value, OPTIONS_SERIAL_MAX);
    return parse_chardev(o, "-serial", &o->serial[o->serial_count++], value);
}

static bool opt_debugcon(struct options *o, const char *value)
{
    return parse_chardev(o, "-debugcon", &o->debugcon, value);
}

/* QEMU's way to set a property of a device that another option makes; one of ours has any. */
static bool opt_global(struct options *o, const char *value)
{
    static const char name[] = "isa-debugcon.iobase=";
    uint64_t port;

    if (strncmp(value, name, sizeof name - 1))
        return fail(o, "-global '" SHOWN "' is not supported: there is isa-debugcon.iobase=PORT", value);
    if (!parse_number(value + sizeof name - 1, 0xffff, &port))
        return fail(o, "-global '" SHOWN "': use a port number, 0 to 0xffff", value);
    o->debugcon_port = (uint16_t)port;
    return true;
}

static bool opt_log_items(struct options *o, const char *value)
{
    const char *list = value;
    struct item item;
    int rc;

    while ((rc = next_item(o, &list, &item)) > 0) {
        const char *name = item.name;
        unsigned i = 0;
        if (!strcmp(name, "help") || !strcmp(name, "?")) {
            o->action = ACTION_LOG_HELP;
            return true;
        }
        if (!strcmp(name, "guest_errors")) /* QEMU's spelling */
            name = "guest_error";
        while (i < LOG_CHANNEL_COUNT && strcmp(name, log_channels[i].name))
            i++;
        if (i == LOG_CHANNEL_COUNT || item.value)
            return fail(o, "-d '" SHOWN "' is no log channel: -d help lists them", name);
        o->log_mask |= 1u << i;
    }
    return rc == 0;
}

static bool opt_log_file(struct options *o, const char *value)
{
    o->log_file = value;
    return true;
}

static bool opt_machine(struct options *o, const char *value)
{
    const char *list = value;
    struct item item;
    bool first = true;
    int rc;

    while ((rc = next_item(o, &list, &item)) > 0) {
        bool is_bare = first && !item.value;
        const char *type = is_bare ? item.name : item.value;
        bool is_type = is_bare || (type && !strcmp(item.name, "type"));
        first = false;
        if (is_type && !strcmp(type, "help")) {
            o->action = ACTION_MACHINE_HELP;
            return true;
        }
        if (is_type && !strcmp(type, "pc"))
            continue;
        if (is_type)
            return fail(o, "-machine '" SHOWN "' is not supported: the only machine is pc", type);
        if (!strcmp(item.name, "accel") && item.value && !strcmp(item.value, "bt"))
            continue;
        return fail(o, "-machine: property '" SHOWN "' is not supported: use pc[,accel=bt]", item.name);
    }
    return rc == 0;
}

static bool bad_choice(struct options *o, const struct item *item, const char *choices)
{
    return fail(o, "-accel bt: %s='" SHOWN "' is not valid: use %s", item->name, item->value, choices);
}

/* hash-log=FILE and what goes with it. */
static bool hash_item(struct options *o, const struct item *item)
{
    static const char count[] = "a number of instructions";
    const char *name = item->name + 5, *value = item->value;

    if (!strcmp(name, "log")) {
        o->hash_file = value;
        return true;
    }
    if (!strcmp(name, "every"))
        return (parse_number(value, INT64_MAX, &o->hash_every) && o->hash_every) ||
               bad_choice(o, item, count);
    if (!strcmp(name, "from"))
        return parse_number(value, INT64_MAX, &o->hash_from) || bad_choice(o, item, count);
    if (!strcmp(name, "to"))
        return parse_number(value, INT64_MAX, &o->hash_to) || bad_choice(o, item, count);
    if (!strcmp(name, "regs"))
        return parse_on_off(value, &o->hash_regs) || bad_choice(o, item, "on or off");
    if (!strcmp(name, "mem"))
        return parse_on_off(value, &o->hash_mem) || bad_choice(o, item, "on or off");
    return fail(o, "-accel bt: no property '" SHOWN "': there are hash-log, -every, -from, -to, -regs, -mem",
                item->name);
}

static bool parse_coherency(const char *value, struct options *o)
{
    static const char *const names[] = { [ACCEL_COHERENCY_TRACE] = "trace", [ACCEL_COHERENCY_CHECK] = "check",
                                         [ACCEL_COHERENCY_PATCH] = "patch", [ACCEL_COHERENCY_ADAPTIVE] = "adaptive" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(value, names[i])) {
            o->coherency = (enum accel_coherency)i;
            return true;
        }
    return false;
}

static bool accel_item(struct options *o, const struct item *item)
{
    uint64_t number;
    const char *name = item->name, *value = item->value;

    if (!need_value(o, "-accel bt", item))
        return false;
    if (!strcmp(name, "tc-size")) {
        if (!options_size(value, 1u << 20, &number) || number < (128u << 10) || number > (1ull << 30))
            return bad_choice(o, item, "128K to 1G");
        o->tc_bytes = number & ~4095ull;
        return true;
    }
    if (!strcmp(name, "chain"))
        return parse_on_off(value, &o->chain) || bad_choice(o, item, "on or off");
    if (!strcmp(name, "verify"))
        return parse_on_off(value, &o->verify) || bad_choice(o, item, "on or off");
    if (!strcmp(name, "mem")) {
        if (!strcmp(value, "checked"))
            o->mem = ACCEL_MEM_CHECKED;
        else if (!strcmp(value, "window"))
            o->mem = ACCEL_MEM_WINDOW;
        else if (!strcmp(value, "adaptive"))
            o->mem = ACCEL_MEM_ADAPTIVE;
        else
            return bad_choice(o, item, "checked, window or adaptive");
        return true;
    }
    if (!strcmp(name, "host")) {
        o->baseline = !strcmp(value, "baseline");
        return o->baseline || !strcmp(value, "auto") || bad_choice(o, item, "auto or baseline");
    }
    if (!strcmp(name, "clock")) {
        o->clock_insn = !strcmp(value, "insn");
        return o->clock_insn || !strcmp(value, "host") || bad_choice(o, item, "host or insn");
    }
    if (!strcmp(name, "tu-insns")) {
        if (!parse_number(value, 64, &number) || number == 0)
            return bad_choice(o, item, "1 to 64");
        o->tu_insns = (unsigned)number;
        return true;
    }
    if (!strcmp(name, "stats")) {
        o->stats_file = value;
        return true;
    }
    if (!strncmp(name, "hash-", 5))
        return hash_item(o, item);
    if (!strcmp(name, "core")) {
        o->core_file = value;
        return true;
    }
    if (!strcmp(name, "perf-map"))
        return parse_on_off(value, &o->perf_map) || bad_choice(o, item, "on or off");
    if (!strcmp(name, "coherency"))
        return parse_coherency(value, o) || bad_choice(o, item, "trace, check, patch or adaptive");
    return fail(o,
                "-accel bt: no property '" SHOWN "': there are tc-size, chain, mem, host, verify, tu-insns, "
                "clock, stats, perf-map, core, hash-log, hash-every, hash-from, hash-to, hash-regs, "
                "hash-mem, coherency",
                name);
}

static bool opt_accel(struct options *o, const char *value)
{
    const char *list = value;
    struct item item;
    int rc = next_item(o, &list, &item);

    if (rc < 0)
        return false;
    if (!strcmp(item.name, "help")) {
        o->action = ACTION_ACCEL_HELP;
        return true;
    }
    if (!strcmp(item.name, "accel") && item.value)
        item = (struct item){ item.value, NULL };
    if (strcmp(item.name, "bt") || item.value)
        return fail(o, "-accel '" SHOWN "' is not available: the only accelerator is bt", item.name);
    while ((rc = next_item(o, &list, &item)) > 0)
        if (!accel_item(o, &item))
            return false;
    return rc == 0;
}

static bool debug_exit_item(struct options *o, const struct item *item)
{
    uint64_t number;

    if (!need_value(o, "-device isa-debug-exit", item))
        return false;
    if (!strcmp(item->name, "iobase")) {
        if (!parse_number(item->value, 0xffff, &number))
            return fail(o, "-device isa-debug-exit: iobase='" SHOWN "' is no port number: use 0 to 0xffff",
                        item->value);
        o->debug_exit_port = (uint16_t)number;
        return true;
    }
    if (!strcmp(item->name, "iosize")) {
        if (!parse_number(item->value, 4, &number) || (number != 1 && number != 2 && number != 4))
            return fail(o, "-device isa-debug-exit: iosize='" SHOWN "': use 1, 2 or 4", item->value);
        o->debug_exit_size = (uint16_t)number;
        return true;
    }
    return fail(o, "-device isa-debug-exit: no property '" SHOWN "': there are iobase and iosize",
                item->name);
}

static bool opt_device(struct options *o, const char *value)
{
    const char *list = value;
    struct item item;
    int rc = next_item(o, &list, &item);

    if (rc < 0)
        return false;
    if (!strcmp(item.name, "help")) {
        o->action = ACTION_DEVICE_HELP;
        return true;
    }
    if (!strcmp(item.name, "driver") && item.value)
        item = (struct item){ item.value, NULL };
    if (strcmp(item.name, "isa-debug-exit") || item.value)
        return fail(o, "-device '" SHOWN "' is not supported: there is isa-debug-exit", item.name);
    o->debug_exit_port = 0x501;
    o->debug_exit_size = 2;
    while ((rc = next_item(o, &list, &item)) > 0)
        if (!debug_exit_item(o, &item))
            return false;
    if (o->debug_exit_port + o->debug_exit_size > 0x10000)
        return fail(o, "-device isa-debug-exit: iobase=0x%x with iosize=%u goes past port 0xffff",
                    o->debug_exit_port, o->debug_exit_size);
    return rc == 0;
}

/* ---- -rtc base=2006-06-17T16:01:21 ---------------------------------------------------- */

/* Days since 1970-01-01 in the Gregorian calendar; March starts the year, so that the leap
 * day comes last. */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = year / 400;
    unsigned yoe = (unsigned)(year - era * 400);
    unsigned doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

    return era * 146097 + (int64_t)doe - 719468;
}

static bool take_digits(const char **p, unsigned count, unsigned *out)
{
    *out = 0;
    for (unsigned i = 0; i < count; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        *out = *out * 10 + (unsigned)(**p - '0');
    }
    return true;
}

static bool take_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

static bool parse_date(const char *p, int64_t *epoch)
{
    unsigned year, month, day, hour = 0, minute = 0, second = 0;

    if (!take_digits(&p, 4, &year) || !take_char(&p, '-') || !take_digits(&p, 2, &month) ||
        !take_char(&p, '-') || !take_digits(&p, 2, &day))
        return false;
    if (*p && (!take_char(&p, 'T') || !take_digits(&p, 2, &hour) || !take_char(&p, ':') ||
               !take_digits(&p, 2, &minute) || !take_char(&p, ':') || !take_digits(&p, 2, &second)))
        return false;
    if (*p || year < 1970 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59)
        return false;
    *epoch = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    return true;
}

static bool opt_rtc(struct options *o, const char *value)
{
    const char *list = value;
    struct item item;
    int rc;

    while ((rc = next_item(o, &list, &item)) > 0) {
        if (!need_value(o, "-rtc", &item))
            return false;
        if (!strcmp(item.name, "clock") && !strcmp(item.value, "host"))
            continue;
        if (strcmp(item.name, "base"))
            return fail(o, "-rtc: '" SHOWN "=" SHOWN "' is not supported: use base=utc|localtime|DATE",
                        item.name, item.value);
        if (!strcmp(item.value, "utc"))
            o->rtc_base = RTC_UTC;
        else if (!strcmp(item.value, "localtime"))
            o->rtc_base = RTC_LOCALTIME;
        else if (parse_date(item.value, &o->rtc_epoch))
            o->rtc_base = RTC_FIXED;
        else
            return fail(o, "-rtc base='" SHOWN "': use utc, localtime or a date such as 2006-06-17T16:01:21",
                        item.value);
    }
    return rc == 0;
}

static bool opt_help(struct options *o, const char *value)
{
    (void)value;
    o->action = ACTION_HELP;
    return true;
}

static bool opt_version(struct options *o, const char *value)
{
    (void)value;
    o->action = ACTION_VERSION;
    return true;
}

/* ---- the table -------------------------------------------------------------------------- */

/* clang-format off */
static const struct option {
    const char *name;
    bool has_value;
    bool (*parse)(struct options *o, const char *value); /* NULL: QEMU has it, we lack it */
} table[] = {
    { "kernel",    true,  opt_kernel },
    { "initrd",    true,  opt_initrd },
    { "append",    true,  opt_append },
    { "m",         true,  opt_memory },
    { "cpu",       true,  opt_cpu },
    { "smp",       true,  opt_smp },
    { "accel",     true,  opt_accel },
    { "machine",   true,  opt_machine },
    { "M",         true,  opt_machine },
    { "serial",    true,  opt_serial },
    { "nographic", false, opt_nographic },
    { "display",   true,  opt_display },
    { "vga",       true,  opt_vga },
    { "bios",      true,  opt_bios },
    { "L",         true,  opt_data_dir },
    { "option-rom", true, opt_option_rom },
    { "debugcon",  true,  opt_debugcon },
    { "global",    true,  opt_global },
    { "no-reboot", false, opt_no_reboot },
    { "d",         true,  opt_log_items },
    { "D",         true,  opt_log_file },
    { "device",    true,  opt_device },
    { "rtc",       true,  opt_rtc },
    { "sandbox",   true,  opt_sandbox },
    { "name",      true,  opt_ignored },
    { "monitor",   true,  opt_monitor },
    { "S",         false, opt_start_paused },
    { "parallel",  true,  opt_only_none },
    { "net",       true,  opt_only_none },
    { "nic",       true,  opt_only_none },
    { "nodefaults", false, opt_nodefaults },
    { "no-user-config", false, opt_ignored },
    { "version",   false, opt_version },
    { "help",      false, opt_help },
    { "h",         false, opt_help },
    /* What QEMU has and we do not */
    { "s", false, NULL }, { "action", true, NULL }, { "audio", true, NULL },
    { "blockdev", true, NULL }, { "boot", true, NULL }, { "cdrom", true, NULL },
    { "chardev", true, NULL }, { "daemonize", false, NULL },
    { "drive", true, NULL }, { "dtb", true, NULL }, { "enable-kvm", false, NULL }, { "fda", true, NULL },
    { "fdb", true, NULL }, { "fsdev", true, NULL }, { "full-screen", false, NULL },
    { "fw_cfg", true, NULL }, { "g", true, NULL }, { "gdb", true, NULL }, 
    { "hda", true, NULL }, { "hdb", true, NULL }, { "hdc", true, NULL }, { "hdd", true, NULL },
    { "icount", true, NULL }, { "incoming", true, NULL }, { "k", true, NULL }, 
    { "loadvm", true, NULL }, { "mem-path", true, NULL }, { "mem-prealloc", false, NULL },
    { "mon", true, NULL }, { "msg", true, NULL }, { "mtdblock", true, NULL }, { "netdev", true, NULL },
    { "no-acpi", false, NULL }, { "no-fd-bootchk", false, NULL }, { "no-hpet", false, NULL },
    { "no-shutdown", false, NULL }, { "numa", true, NULL }, { "object", true, NULL },
    { "overcommit", true, NULL }, { "pflash", true, NULL },
    { "pidfile", true, NULL }, { "plugin", true, NULL }, { "preconfig", false, NULL }, { "qmp", true, NULL },
    { "qmp-pretty", true, NULL }, { "readconfig", true, NULL }, { "run-with", true, NULL },
    { "runas", true, NULL }, { "sd", true, NULL }, { "seed", true, NULL },
    { "singlestep", false, NULL }, { "smbios", true, NULL }, { "snapshot", false, NULL },
    { "spice", true, NULL }, { "tpmdev", true, NULL }, { "trace", true, NULL }, { "usb", false, NULL },
    { "usbdevice", true, NULL }, { "uuid", true, NULL }, { "virtfs", true, NULL }, { "vnc", true, NULL },
    { "watchdog", true, NULL }, { "watchdog-action", true, NULL }, { "win2k-hack", false, NULL },
    { "xen-domid", true, NULL },
};
/* clang-format on */

const char options_help[] =
    "usage: ringdown -kernel FILE [options]\n"
    "       ringdown -bios FILE [options]\n"
    "       ringdown explain HEX|FILE [--mode 16|32] [--cpl 0|3]\n"
    "\n"
    "  -kernel FILE         Linux kernel (bzImage, 32-bit), multiboot kernel or ELF32 file\n"
    "  -initrd FILE         initial RAM disk; modules of a multiboot kernel: \"FILE ARGS,FILE ARGS\"\n"
    "  -append TEXT         kernel command line\n"
    "  -bios FILE           firmware image of 64K to 512K, run from the reset vector\n"
    "                       With -kernel too, it boots a bzImage by QEMU's linuxboot_dma.bin\n"
    "  -option-rom FILE     a ROM that firmware runs\n"
    "  -L DIR               where firmware is looked for by its bare name; -L help lists more\n"
    "  -m SIZE              guest memory: MiB, or with K, M, G (default 128M)\n"
    "  -cpu MODEL[,+F][,-F] processor model, features added or taken away; -cpu help lists both\n"
    "  -nographic           serial port 0 and the monitor on this terminal; Ctrl-a c changes\n"
    "                       between them, Ctrl-a x leaves, Ctrl-a h helps\n"
    "  -serial DEV          stdio, mon:stdio, none, null, file:PATH, pty,\n"
    "                       unix:PATH[,server=on][,wait=off]; once for each port\n"
    "  -monitor DEV         a command line to look at the guest and to steer it: stdio, none,\n"
    "                       pty, unix:PATH[,server=on][,wait=off]; its command help lists more\n"
    "  -S                   do not start the guest: the monitor's cont does\n"
    "  -debugcon DEV        text that firmware writes to a port: DEV as for -serial\n"
    "  -global isa-debugcon.iobase=PORT\n"
    "                       the port (default 0xe9; SeaBIOS uses 0x402)\n"
    "  -display none        no display\n"
    "  -no-reboot           a reset ends the program\n"
    "  -rtc base=...        utc, localtime or a date such as 2006-06-17T16:01:21\n"
    "  -device isa-debug-exit[,iobase=PORT][,iosize=1|2|4]\n"
    "                       a port that ends the program with status (value << 1) | 1\n"
    "  -d LIST              log channels, with commas; -d help lists them\n"
    "  -sandbox on|off      drop rights that a run does not need (default on)\n"
    "  -D FILE              write the log to FILE instead of stderr\n"
    "  -accel bt[,NAME=VALUE]...\n"
    "                       tc-size=SIZE (default a quarter of -m, 32M to 128M)\n"
    "                       chain=on|off  mem=checked|window|adaptive\n"
    "                       host=auto|baseline  verify=on|off  tu-insns=1..64\n"
    "                       clock=host|insn  stats=FILE  perf-map=on|off\n"
    "                       coherency=trace|check|patch|adaptive (code that the guest changes: its\n"
    "                       pages watched, its bytes compared before they run, constants patched,\n"
    "                       or what suits each page)\n"
    "                       core=FILE  hash-log=FILE  hash-every=1000000  hash-from=0  hash-to=N\n"
    "                       hash-regs=on|off  hash-mem=on|off\n"
    "  -vga std|none        with -bios: its VGA firmware, or none\n"
    "  -machine pc, -smp 1, -name TEXT, -nodefaults are accepted\n"
    "  -version, -help\n"
    "\n"
    "Exit status: 0 the guest powered off or you left; 1 failure at run time; 2 usage;\n"
    "3 triple fault with -no-reboot; (value << 1) | 1 from isa-debug-exit.\n";

static const struct option *find_option(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (!strcmp(name, table[i].name))
            return &table[i];
    return NULL;
}

static void set_defaults(struct options *o)
{
    memset(o, 0, sizeof *o);
    o->ram_bytes = 128ull << 20;
    o->chain = true;
    o->sandbox = true;
    o->mem = ACCEL_MEM_ADAPTIVE;
    o->tu_insns = 16;
    o->hash_every = 1000000;
    o->hash_to = UINT64_MAX;
    o->debugcon_port = 0xe9;
    o->display_by_default = true;
}

/* Where the serial ports go when nobody said: to the terminal with -nographic, and also where
 * QEMU would open a window, which we lack. */
static bool finish(struct options *o)
{
    unsigned stdio = 0;

    if (!o->tc_bytes) /* guests with more memory run more code */
        o->tc_bytes = o->ram_bytes <= TC_DEFAULT_MIN * 4   ? TC_DEFAULT_MIN
                      : o->ram_bytes >= TC_DEFAULT_MAX * 4 ? TC_DEFAULT_MAX
                                                           : (o->ram_bytes / 4 & ~4095ull);

    if (o->serial_count || o->monitor.kind == SERIAL_STDIO)
        o->display_by_default = false;
    if (!o->serial_count && (o->nographic || o->display_by_default)) {
        o->serial[0] = (struct serial_option){ .kind = SERIAL_STDIO, .mux = true };
        o->serial_count = 1;
    } else if (!o->serial_count) {
        o->serial[0] = (struct serial_option){ .kind = SERIAL_NULL };
        o->serial_count = 1;
    }
    if (o->nographic)
        o->display_by_default = false;
    for (unsigned i = 0; i < o->serial_count; i++) {
        stdio += o->serial[i].kind == SERIAL_STDIO;
        if (o->nographic)
            o->serial[i].mux |= o->serial[i].kind == SERIAL_STDIO;
        if (o->serial[i].mux && !o->monitor_given)
            o->monitor = o->serial[i];
    }
    stdio += o->monitor.kind == SERIAL_STDIO && !o->monitor.mux;
    if (o->hash_file && !o->clock_insn)
        return fail(o, "-accel bt: hash-log needs clock=insn, which counts instructions");
    stdio += o->debugcon.kind == SERIAL_STDIO;
    if (stdio > 1)
        return fail(o, "stdio may be given once only, to a serial port, the monitor or the debug console");
    if (o->option_rom_count && !o->bios)
        return fail(o, "-option-rom needs -bios FILE, which runs it");
    if (!o->kernel && (o->initrd || o->append))
        return fail(o, "%s needs -kernel FILE", o->initrd ? "-initrd" : "-append");
    if (!o->kernel && !o->bios)
        return fail(o, "nothing to run: use -kernel FILE or -bios FILE (and see -help)");
    return true;
}

bool options_parse(struct options *o, int argc, const char *const *argv)
{
    set_defaults(o);
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *name = arg + 1;
        if (arg[0] != '-' || !arg[1])
            return fail(o, "'" SHOWN "' is not an option: disk images are not supported, use -kernel FILE",
                        arg);
        if (name[0] == '-' && name[1])
            name++;
        const struct option *option = find_option(name);
        if (!option)
            return fail(o, "unknown option '" SHOWN "': see -help", arg);
        if (!option->parse)
            return fail(o, "option '" SHOWN "' is not supported by this version: see -help", arg);
        const char *value = NULL;
        if (option->has_value) {
            if (i + 1 >= argc)
                return fail(o, "option '" SHOWN "' needs a value: see -help", arg);
            value = argv[++i];
        }
        if (!option->parse(o, value))
            return false;
        if (o->action != ACTION_RUN)
            return true;
    }
    return finish(o);
}
