/*
 * Values and lists of values on the command line: numbers, sizes, on and off, and QEMU's
 * lists of name=value.
 */
#include "cli/options_internal.h"

#include <string.h>

#include "base/log.h"

bool options_fail(struct options *o, const char *fmt, ...)
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

bool options_number(const char *text, uint64_t most, uint64_t *out)
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
    if (!options_number(digits, UINT64_MAX, &value) || value > UINT64_MAX / unit)
        return false;
    *bytes = value * unit;
    return true;
}

bool options_on_off(const char *text, bool *out)
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

int options_next_item(struct options *o, const char **list, struct options_item *item)
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
            options_fail(o, "the options are too long: " SHOWN, *list);
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
        options_fail(o, "the options are too long: " SHOWN, *list);
        return -1;
    }
    o->text[n++] = 0;
    o->text_used = n;
    item->name = o->text + start;
    *list = *p ? p + 1 : NULL;
    return 1;
}

bool options_need_value(struct options *o, const char *option, const struct options_item *item)
{
    if (item->value && *item->value)
        return true;
    options_fail(o, "%s: '" SHOWN "' needs a value: " SHOWN "=...", option, item->name, item->name);
    return false;
}
