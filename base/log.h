/*
 * Named log channels (-d). A channel that is off costs one predicted branch.
 * Addresses print as VA 0x.., PA 0x..; hexadecimal always with 0x.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

enum log_channel {
#define LOG_CHANNEL(name, text) LOG_##name,
#include "base/log_list.h"
#undef LOG_CHANNEL
    LOG_CHANNEL_COUNT
};

struct log {
    uint32_t mask; /* 1 << enum log_channel */
};

struct log_channel_info {
    const char *name, *text;
};
extern const struct log_channel_info log_channels[LOG_CHANNEL_COUNT];

/** Format and write one message; it ends with a newline of its own. */
void log_printf(const struct log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define LOG_ON(log_, chan) (__builtin_expect(((log_)->mask >> LOG_##chan) & 1u, 0))
#define LOG(log_, chan, ...) \
    do { \
        if (LOG_ON(log_, chan)) \
            log_printf(log_, __VA_ARGS__); \
    } while (0)

/**
 * A small vsnprintf without libc: %d %u %x %c %s %p %% with 0-padding, width,
 * precision for %s, and the sizes l, ll, z, h, hh. Always terminates buf.
 * @return the length the whole text would have, without the terminator.
 */
int fmt_vformat(char *buf, size_t size, const char *fmt, va_list ap);
int fmt_format(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
