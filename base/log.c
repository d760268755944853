/*
 * Log output and the small formatter behind it. Freestanding: the text goes to
 * platform_log_write in one piece, so that lines of two writers do not mix.
 */
#include "base/log.h"

#include <stdbool.h>

#include "platform/platform.h"

const struct log_channel_info log_channels[LOG_CHANNEL_COUNT] = {
#define LOG_CHANNEL(name, text) { #name, text },
#include "base/log_list.h"
#undef LOG_CHANNEL
};

/* Output position; counts past the end without writing there. */
struct out {
    char *buf;
    size_t size, len;
};

static void put(struct out *o, char c)
{
    if (o->len + 1 < o->size)
        o->buf[o->len] = c;
    o->len++;
}

struct spec {
    bool zero, left, alt, has_precision;
    unsigned width, precision;
    int longs; /* -2 hh, -1 h, 0, 1 l or z, 2 ll */
};

static void put_padded(struct out *o, const char *s, unsigned len, const struct spec *f, const char *prefix)
{
    unsigned plen = 0;

    while (prefix[plen])
        plen++;
    unsigned pad = f->width > len + plen ? f->width - len - plen : 0;

    if (!f->left && !f->zero)
        for (; pad; pad--)
            put(o, ' ');
    for (unsigned i = 0; i < plen; i++)
        put(o, prefix[i]);
    if (!f->left)
        for (; pad; pad--)
            put(o, '0');
    for (unsigned i = 0; i < len; i++)
        put(o, s[i]);
    for (; pad; pad--)
        put(o, ' ');
}

static void put_number(struct out *o, uint64_t v, unsigned base, bool negative, const struct spec *f)
{
    char digits[24];
    unsigned n = sizeof digits;

    do {
        digits[--n] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    put_padded(o, digits + n, (unsigned)sizeof digits - n, f,
               negative ? "-" : f->alt && base == 16 ? "0x" : "");
}

static void put_string(struct out *o, const char *s, const struct spec *f)
{
    unsigned len = 0;
    struct spec plain = *f;

    if (!s)
        s = "(null)";
    while (s[len] && !(f->has_precision && len == f->precision))
        len++;
    plain.zero = false;
    put_padded(o, s, len, &plain, "");
}

static const char *parse_spec(const char *p, struct spec *f, va_list *ap)
{
    *f = (struct spec){ 0 };
    for (;; p++) {
        if (*p == '0')
            f->zero = true;
        else if (*p == '-')
            f->left = true;
        else if (*p == '#')
            f->alt = true;
        else
            break;
    }
    if (*p == '*') {
        f->width = (unsigned)va_arg(*ap, int);
        p++;
    }
    while (*p >= '0' && *p <= '9')
        f->width = f->width * 10 + (unsigned)(*p++ - '0');
    if (*p == '.') {
        f->has_precision = true;
        p++;
        if (*p == '*') {
            f->precision = (unsigned)va_arg(*ap, int);
            p++;
        }
        while (*p >= '0' && *p <= '9')
            f->precision = f->precision * 10 + (unsigned)(*p++ - '0');
    }
    for (; *p == 'l' || *p == 'z' || *p == 'h'; p++)
        f->longs += *p == 'h' ? -1 : 1;
    return p;
}

static uint64_t get_unsigned(const struct spec *f, va_list *ap)
{
    if (f->longs >= 1)
        return va_arg(*ap, unsigned long);
    unsigned v = va_arg(*ap, unsigned);
    return f->longs == -1 ? (uint16_t)v : f->longs == -2 ? (uint8_t)v : v;
}

static int64_t get_signed(const struct spec *f, va_list *ap)
{
    return f->longs >= 1 ? va_arg(*ap, long) : va_arg(*ap, int);
}

int fmt_vformat(char *buf, size_t size, const char *fmt, va_list ap_in)
{
    struct out o = { buf, size, 0 };
    va_list ap;

    va_copy(ap, ap_in);
    for (const char *p = fmt; *p; p++) {
        struct spec f;
        if (*p != '%') {
            put(&o, *p);
            continue;
        }
        p = parse_spec(p + 1, &f, &ap);
        switch (*p) {
        case 'd':
        case 'i': {
            int64_t v = get_signed(&f, &ap);
            put_number(&o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0, &f);
            break;
        }
        case 'u':
            put_number(&o, get_unsigned(&f, &ap), 10, false, &f);
            break;
        case 'x':
            put_number(&o, get_unsigned(&f, &ap), 16, false, &f);
            break;
        case 'p':
            f.alt = true;
            put_number(&o, (uintptr_t)va_arg(ap, void *), 16, false, &f);
            break;
        case 'c':
            put(&o, (char)va_arg(ap, int));
            break;
        case 's':
            put_string(&o, va_arg(ap, const char *), &f);
            break;
        case '%':
            put(&o, '%');
            break;
        default: /* not one of ours: show it as it stands */
            put(&o, '%');
            put(&o, *p);
            break;
        }
        if (!*p)
            break;
    }
    va_end(ap);
    if (size)
        buf[o.len < size ? o.len : size - 1] = 0;
    return (int)o.len;
}

int fmt_format(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = fmt_vformat(buf, size, fmt, ap);
    va_end(ap);
    return n;
}

void log_printf(const struct log *log, const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    (void)log;
    va_start(ap, fmt);
    int n = fmt_vformat(line, sizeof line, fmt, ap);
    va_end(ap);
    platform_log_write(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}
