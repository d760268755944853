/*
 * The options about devices: where ports of characters lead (-serial, -monitor, -debugcon)
 * and the properties of the few that have any (-device, -global).
 */
#include "cli/options_internal.h"

#include <string.h>

/* server, server=on|off, nowait, wait=on|off after unix:PATH */
static bool parse_unix(struct options *o, const char *option, struct serial_option *s, const char *spec)
{
    const char *list = spec;
    struct options_item item;
    int rc;

    s->wait = true;
    rc = options_next_item(o, &list, &item);
    if (rc < 0)
        return false;
    if (!*item.name || item.value)
        return options_fail(o, "%s 'unix:" SHOWN "' needs a path without '='", option, spec);
    s->path = item.name;
    while ((rc = options_next_item(o, &list, &item)) > 0) {
        bool known = true;
        if (!strcmp(item.name, "server") && !item.value)
            s->is_server = true;
        else if (!strcmp(item.name, "server"))
            known = options_on_off(item.value, &s->is_server);
        else if (!strcmp(item.name, "nowait") && !item.value)
            s->wait = false;
        else if (!strcmp(item.name, "wait") && item.value)
            known = options_on_off(item.value, &s->wait);
        else
            known = false;
        if (!known)
            return options_fail(o, "%s unix: '" SHOWN "': use server[=on|off] and wait=on|off", option,
                                item.name);
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
        return options_fail(o,
                            "%s '" SHOWN "': use stdio, mon:stdio, none, null, file:PATH, pty or "
                            "unix:PATH[,server=on][,wait=off]",
                            option, value);
    }
    return true;
}

bool opt_monitor(struct options *o, const char *value)
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
        return options_fail(
            o, "-monitor '" SHOWN "': use stdio, none, pty or unix:PATH[,server=on][,wait=off]", value);
    return s->kind != SERIAL_UNIX || parse_unix(o, "-monitor", s, value + 5);
}

bool opt_serial(struct options *o, const char *value)
{
    if (o->serial_count == OPTIONS_SERIAL_MAX)
        return options_fail(o, "-serial '" SHOWN "': there are only %u serial ports", value,
                            OPTIONS_SERIAL_MAX);
    return parse_chardev(o, "-serial", &o->serial[o->serial_count++], value);
}

bool opt_debugcon(struct options *o, const char *value)
{
    return parse_chardev(o, "-debugcon", &o->debugcon, value);
}

/* QEMU's way to set a property of a device that another option makes; one of ours has any. */
bool opt_global(struct options *o, const char *value)
{
    static const char name[] = "isa-debugcon.iobase=";
    uint64_t port;

    if (strncmp(value, name, sizeof name - 1))
        return options_fail(o, "-global '" SHOWN "' is not supported: there is isa-debugcon.iobase=PORT",
                            value);
    if (!options_number(value + sizeof name - 1, 0xffff, &port))
        return options_fail(o, "-global '" SHOWN "': use a port number, 0 to 0xffff", value);
    o->debugcon_port = (uint16_t)port;
    return true;
}

static bool debug_exit_item(struct options *o, const struct options_item *item)
{
    uint64_t number;

    if (!options_need_value(o, "-device isa-debug-exit", item))
        return false;
    if (!strcmp(item->name, "iobase")) {
        if (!options_number(item->value, 0xffff, &number))
            return options_fail(
                o, "-device isa-debug-exit: iobase='" SHOWN "' is no port number: use 0 to 0xffff",
                item->value);
        o->debug_exit_port = (uint16_t)number;
        return true;
    }
    if (!strcmp(item->name, "iosize")) {
        if (!options_number(item->value, 4, &number) || (number != 1 && number != 2 && number != 4))
            return options_fail(o, "-device isa-debug-exit: iosize='" SHOWN "': use 1, 2 or 4", item->value);
        o->debug_exit_size = (uint16_t)number;
        return true;
    }
    return options_fail(o, "-device isa-debug-exit: no property '" SHOWN "': there are iobase and iosize",
                        item->name);
}

bool opt_device(struct options *o, const char *value)
{
    const char *list = value;
    struct options_item item;
    int rc = options_next_item(o, &list, &item);

    if (rc < 0)
        return false;
    if (!strcmp(item.name, "help")) {
        o->action = ACTION_DEVICE_HELP;
        return true;
    }
    if (!strcmp(item.name, "driver") && item.value)
        item = (struct options_item){ item.value, NULL };
    if (strcmp(item.name, "isa-debug-exit") || item.value)
        return options_fail(o, "-device '" SHOWN "' is not supported: there is isa-debug-exit", item.name);
    o->debug_exit_port = 0x501;
    o->debug_exit_size = 2;
    while ((rc = options_next_item(o, &list, &item)) > 0)
        if (!debug_exit_item(o, &item))
            return false;
    if (o->debug_exit_port + o->debug_exit_size > 0x10000)
        return options_fail(o, "-device isa-debug-exit: iobase=0x%x with iosize=%u goes past port 0xffff",
                            o->debug_exit_port, o->debug_exit_size);
    return rc == 0;
}
