/*
 * The parser of the command line. Names and values are QEMU's for what both programs
 * have, one dash or two, so that replacing qemu-system-i386 by ringdown in a script
 * works or says exactly which option is lacking.
 *
 * One table leads from option names to functions. Options of QEMU that we lack are
 * listed too, so that the message can tell "not supported yet" from "no such option".
 */
#include "cli/options.h"

#include <string.h>

#include "base/log.h"
#include "base/types.h"
#include "cli/options_internal.h"

/* Code memory when nobody says: a quarter of the guest's, within these. */
#define TC_DEFAULT_MIN (32ull << 20)
#define TC_DEFAULT_MAX (512ull << 20)

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
        return options_fail(o, "-bios needs the name of a ROM image");
    o->bios = value;
    return true;
}

static bool opt_option_rom(struct options *o, const char *value)
{
    if (!*value || strchr(value, ','))
        return options_fail(o, "-option-rom '" SHOWN "': use the name of a file, without properties", value);
    if (o->option_rom_count == OPTIONS_ROMS_MAX)
        return options_fail(o, "-option-rom '" SHOWN "': only %u can be given", value, OPTIONS_ROMS_MAX);
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
        return options_fail(o, "-L '" SHOWN "': only %u directories can be named", value, OPTIONS_DIRS_MAX);
    o->data_dir[o->data_dir_count++] = value;
    return true;
}

static bool opt_memory(struct options *o, const char *value)
{
    const char *size = value;

    if (!strncmp(size, "size=", 5))
        size += 5;
    if (strchr(size, ','))
        return options_fail(o, "-m '" SHOWN "': only a size is supported, no slots or maxmem", value);
    if (!options_size(size, 1u << 20, &o->ram_bytes))
        return options_fail(
            o, "-m '" SHOWN "' is not a size: use MiB, or a number with K, M or G, such as 256M", value);
    if (o->ram_bytes < OPTIONS_RAM_MIN)
        return options_fail(o, "-m '" SHOWN "' is too small: the least is %lluM", value,
                            OPTIONS_RAM_MIN >> 20);
    if (o->ram_bytes > OPTIONS_RAM_MAX)
        return options_fail(o, "-m '" SHOWN "' is too large: the most is %lluM", value,
                            OPTIONS_RAM_MAX >> 20);
    if (o->ram_bytes % GUEST_PAGE_SIZE)
        return options_fail(o, "-m '" SHOWN "' is not a multiple of 4 KiB", value);
    return true;
}

/* +NAME, -NAME or NAME=on|off; which names there are is the model's business. */
static bool cpu_flag(struct options *o, const struct options_item *item)
{
    struct cpu_flag flag = { item->name, true };

    if (*item->name == '+' || *item->name == '-') {
        flag = (struct cpu_flag){ item->name + 1, *item->name == '+' };
        if (item->value)
            return options_fail(o, "-cpu: '" SHOWN "' takes no value", item->name);
    } else if (!item->value || !options_on_off(item->value, &flag.on)) {
        return options_fail(o, "-cpu: '" SHOWN "' must be +FEATURE, -FEATURE or FEATURE=on|off", item->name);
    }
    if (!*flag.name)
        return options_fail(o, "-cpu: '" SHOWN "' names no feature", item->name);
    if (o->cpu_flag_count == OPTIONS_CPU_FLAGS_MAX)
        return options_fail(o, "-cpu: more than %u feature flags", OPTIONS_CPU_FLAGS_MAX);
    o->cpu_flag[o->cpu_flag_count++] = flag;
    return true;
}

static bool opt_cpu(struct options *o, const char *value)
{
    const char *list = value;
    struct options_item item;
    int rc = options_next_item(o, &list, &item);

    if (rc < 0)
        return false;
    if (!strcmp(item.name, "help") || !strcmp(item.name, "?")) {
        o->action = ACTION_CPU_HELP;
        return true;
    }
    if (!*item.name || item.value)
        return options_fail(o, "-cpu '" SHOWN "' must start with a model: -cpu help lists them", value);
    o->cpu = item.name;
    o->cpu_flag_count = 0;
    while ((rc = options_next_item(o, &list, &item)) > 0)
        if (!cpu_flag(o, &item))
            return false;
    return rc == 0;
}

static bool opt_smp(struct options *o, const char *value)
{
    if (!strcmp(value, "1") || !strcmp(value, "cpus=1"))
        return true;
    return options_fail(o, "-smp '" SHOWN "': only one processor is supported: -smp 1", value);
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
    return options_on_off(value, &o->sandbox) ||
           options_fail(o, "-sandbox '" SHOWN "': use on or off", value);
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
        return options_fail(
            o, "-display '" SHOWN "': there is no graphical display: use -display none or -nographic", value);
    o->display_by_default = false;
    return true;
}

static bool opt_vga(struct options *o, const char *value)
{
    o->no_vga = !strcmp(value, "none");
    if (!strcmp(value, "std") || o->no_vga)
        return true;
    return options_fail(o, "-vga '" SHOWN "': use std or none", value);
}

static bool opt_start_paused(struct options *o, const char *value)
{
    (void)value;
    o->start_paused = true;
    return true;
}

static bool opt_only_none(struct options *o, const char *value)
{
    return !strcmp(value, "none") ? true
                                  : options_fail(o, "'" SHOWN "': only 'none' is supported here", value);
}

static bool opt_log_items(struct options *o, const char *value)
{
    const char *list = value;
    struct options_item item;
    int rc;

    while ((rc = options_next_item(o, &list, &item)) > 0) {
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
            return options_fail(o, "-d '" SHOWN "' is no log channel: -d help lists them", name);
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
    struct options_item item;
    bool first = true;
    int rc;

    while ((rc = options_next_item(o, &list, &item)) > 0) {
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
            return options_fail(o, "-machine '" SHOWN "' is not supported: the only machine is pc", type);
        if (!strcmp(item.name, "accel") && item.value && !strcmp(item.value, "bt"))
            continue;
        return options_fail(o, "-machine: property '" SHOWN "' is not supported: use pc[,accel=bt]",
                            item.name);
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
    options_parse_fn *parse; /* NULL: QEMU has it, we lack it */
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
    o->chain = o->reuse = o->inline_system = true;
    o->sandbox = true;
    o->mem = ACCEL_MEM_ADAPTIVE;
    o->tu_insns = 16;
    o->hash_every = 1000000;
    o->coherency = ACCEL_COHERENCY_ADAPTIVE;
    o->coherency_max = 1000000;
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
        return options_fail(o, "-accel bt: hash-log needs clock=insn, which counts instructions");
    stdio += o->debugcon.kind == SERIAL_STDIO;
    if (stdio > 1)
        return options_fail(
            o, "stdio may be given once only, to a serial port, the monitor or the debug console");
    if (o->option_rom_count && !o->bios)
        return options_fail(o, "-option-rom needs -bios FILE, which runs it");
    if (!o->kernel && (o->initrd || o->append))
        return options_fail(o, "%s needs -kernel FILE", o->initrd ? "-initrd" : "-append");
    if (!o->kernel && !o->bios)
        return options_fail(o, "nothing to run: use -kernel FILE or -bios FILE (and see -help)");
    return true;
}

bool options_parse(struct options *o, int argc, const char *const *argv)
{
    set_defaults(o);
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *name = arg + 1;
        if (arg[0] != '-' || !arg[1])
            return options_fail(
                o, "'" SHOWN "' is not an option: disk images are not supported, use -kernel FILE", arg);
        if (name[0] == '-' && name[1])
            name++;
        const struct option *option = find_option(name);
        if (!option)
            return options_fail(o, "unknown option '" SHOWN "': see -help", arg);
        if (!option->parse)
            return options_fail(o, "option '" SHOWN "' is not supported by this version: see -help", arg);
        const char *value = NULL;
        if (option->has_value) {
            if (i + 1 >= argc)
                return options_fail(o, "option '" SHOWN "' needs a value: see -help", arg);
            value = argv[++i];
        }
        if (!option->parse(o, value))
            return false;
        if (o->action != ACTION_RUN)
            return true;
    }
    return finish(o);
}
