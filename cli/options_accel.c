/*
 * -accel bt,NAME=VALUE...: the translator's settings. One table leads from names to a reader
 * and the field it fills. -accel ring1 takes them, too, but for host=, which is the emulator there;
 * they are checked here and handed on to the boot image as they are.
 */
#include "cli/options_internal.h"

#include <string.h>

#include "base/log.h"
#include "base/types.h"

/* ---- readers: false for a value that is not valid --------------------------------------- */

static bool read_switch(void *field, const char *value)
{
    return options_on_off(value, field);
}

static bool read_file(void *field, const char *value)
{
    *(const char **)field = value;
    return true;
}

static bool read_count(void *field, const char *value)
{
    return options_number(value, INT64_MAX, field);
}

static bool read_nonzero(void *field, const char *value)
{
    return read_count(field, value) && *(uint64_t *)field != 0;
}

static bool read_tc_size(void *field, const char *value)
{
    uint64_t bytes;

    if (!options_size(value, 1u << 20, &bytes) || bytes < (128u << 10) || bytes > (1ull << 30))
        return false;
    *(uint64_t *)field = bytes & ~(uint64_t)(GUEST_PAGE_SIZE - 1);
    return true;
}

static bool read_tu_insns(void *field, const char *value)
{
    uint64_t number;

    if (!options_number(value, 64, &number) || number == 0)
        return false;
    *(unsigned *)field = (unsigned)number;
    return true;
}

/* @return the index of `value` in names[], or -1. */
static int find_name(const char *const *names, size_t count, const char *value)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(value, names[i]))
            return (int)i;
    return -1;
}

static bool read_mem(void *field, const char *value)
{
    static const char *const names[] = {
        [ACCEL_MEM_CHECKED] = "checked", [ACCEL_MEM_WINDOW] = "window", [ACCEL_MEM_ADAPTIVE] = "adaptive"
    };
    int i = find_name(names, ARRAY_LEN(names), value);

    if (i >= 0)
        *(enum accel_mem *)field = (enum accel_mem)i;
    return i >= 0;
}

static bool read_coherency(void *field, const char *value)
{
    static const char *const names[] = { [ACCEL_COHERENCY_TRACE] = "trace",
                                         [ACCEL_COHERENCY_CHECK] = "check",
                                         [ACCEL_COHERENCY_PATCH] = "patch",
                                         [ACCEL_COHERENCY_RETRANSLATE] = "retranslate",
                                         [ACCEL_COHERENCY_ADAPTIVE] = "adaptive" };
    int i = find_name(names, ARRAY_LEN(names), value);

    if (i >= 0)
        *(enum accel_coherency *)field = (enum accel_coherency)i;
    return i >= 0;
}

static bool read_host(void *field, const char *value)
{
    bool *baseline = field;

    *baseline = !strcmp(value, "baseline");
    return *baseline || !strcmp(value, "auto");
}

static bool read_user(void *field, const char *value)
{
    bool *direct = field;

    *direct = !strcmp(value, "direct");
    return *direct || !strcmp(value, "bt");
}

static bool read_clock(void *field, const char *value)
{
    bool *clock_insn = field;

    *clock_insn = !strcmp(value, "insn");
    return *clock_insn || !strcmp(value, "host");
}

/* ---- the table ----------------------------------------------------------------------------- */

#define FIELD(member)  offsetof(struct options, member)
#define ON_OFF(member) read_switch, FIELD(member), "on or off"

/* clang-format off */
static const struct property {
    const char *name;
    bool (*read)(void *field, const char *value);
    size_t field;
    const char *choices; /* what is valid, for the message */
} properties[] = {
    { "tc-size",    read_tc_size,   FIELD(tc_bytes),   "128K to 1G" },
    { "chain",      ON_OFF(chain) },
    { "reuse",      ON_OFF(reuse) },
    { "mem",        read_mem,       FIELD(mem),        "checked, window or adaptive" },
    { "host",       read_host,      FIELD(baseline),   "auto or baseline" },
    { "verify",     ON_OFF(verify) },
    { "tu-insns",   read_tu_insns,  FIELD(tu_insns),   "1 to 64" },
    { "clock",      read_clock,     FIELD(clock_insn), "host or insn" },
    { "coherency",  read_coherency, FIELD(coherency),  "trace, check, patch, retranslate or adaptive" },
    { "coherency-log", read_file,   FIELD(coherency_file), "the name of a file" },
    { "coherency-max", read_nonzero, FIELD(coherency_max), "a number of events" },
    { "user",       read_user,      FIELD(user_direct), "direct or bt" },
    { "inline",     ON_OFF(inline_system) },
    { "stats",      read_file,      FIELD(stats_file), "the name of a file" },
    { "perf-map",   ON_OFF(perf_map) },
    { "core",       read_file,      FIELD(core_file),  "the name of a file" },
    { "hash-log",   read_file,      FIELD(hash_file),  "the name of a file" },
    { "hash-every", read_nonzero,   FIELD(hash_every), "a number of instructions" },
    { "hash-from",  read_count,     FIELD(hash_from),  "a number of instructions" },
    { "hash-to",    read_count,     FIELD(hash_to),    "a number of instructions" },
    { "hash-regs",  ON_OFF(hash_regs) },
    { "hash-mem",   ON_OFF(hash_mem) },
};
/* clang-format on */

static bool no_property(struct options *o, const char *name)
{
    char names[400] = "";
    size_t used = 0;

    for (size_t i = 0; i < ARRAY_LEN(properties) && used < sizeof names; i++)
        used += fmt_format(names + used, sizeof names - used, "%s%s", i ? ", " : "", properties[i].name);
    return options_fail(o, "-accel bt: no property '%.40s': there are %s", name, names);
}

static bool accel_item(struct options *o, const struct options_item *item)
{
    if (!options_need_value(o, "-accel bt", item))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(properties); i++) {
        const struct property *p = &properties[i];
        if (strcmp(item->name, p->name))
            continue;
        return p->read((char *)o + p->field, item->value) ||
               options_fail(o, "-accel bt: %s='" SHOWN "' is not valid: use %s", item->name, item->value,
                            p->choices);
    }
    return no_property(o, item->name);
}

static bool ring1_item(struct options *o, const struct options_item *item)
{
    size_t used = strlen(o->ring1_accel);

    if (!options_need_value(o, "-accel ring1", item))
        return false;
    if (!strcmp(item->name, "image")) {
        o->ring1_image = item->value;
        return true;
    }
    if (!strcmp(item->name, "host")) {
        o->ring1_host = item->value;
        return !strcmp(item->value, "qemu") || (!strncmp(item->value, "qemu:", 5) && item->value[5]) ||
               options_fail(o, "-accel ring1: host='" SHOWN "' is not valid: use qemu or qemu:MODEL", item->value);
    }
    if (!accel_item(o, item))
        return false;
    if (fmt_format(o->ring1_accel + used, sizeof o->ring1_accel - used, ",%s=%s", item->name, item->value) >=
        (int)(sizeof o->ring1_accel - used))
        return options_fail(o, "-accel ring1: the list is too long");
    return true;
}

bool opt_accel(struct options *o, const char *value)
{
    const char *list = value;
    struct options_item item;
    int rc = options_next_item(o, &list, &item);

    if (rc < 0)
        return false;
    if (!strcmp(item.name, "help")) {
        o->action = ACTION_ACCEL_HELP;
        return true;
    }
    if (!strcmp(item.name, "accel") && item.value)
        item = (struct options_item){ item.value, NULL };
    o->ring1 = !strcmp(item.name, "ring1") && !item.value;
    if (!o->ring1 && (strcmp(item.name, "bt") || item.value))
        return options_fail(o, "-accel '" SHOWN "' is not available: there are bt and ring1", item.name);
    fmt_format(o->ring1_accel, sizeof o->ring1_accel, "bt");
    while ((rc = options_next_item(o, &list, &item)) > 0)
        if (!(o->ring1 ? ring1_item(o, &item) : accel_item(o, &item)))
            return false;
    return rc == 0;
}
