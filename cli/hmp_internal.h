/* What the monitor's files share. */
#ifndef CLI_HMP_INTERNAL_H
#define CLI_HMP_INTERNAL_H

#include "cli/hmp.h"
#include "monitor/monitor.h"

#define HMP_LINE_BYTES 1024u
#define HMP_WORDS_MAX  16u
#define HMP_KEYS_MAX   16u /* in one sendkey */
#define HMP_EVENTS     128u
#define HMP_CODE_BYTES 8u

struct hmp_key; /* hmp_keys.c */

/** Scan codes that are due at a moment of VM time. */
struct hmp_event {
    uint64_t at_ns;
    uint8_t code[HMP_CODE_BYTES], len;
};

struct hmp {
    struct hmp_config config;
    struct vm *vm;
    char line[HMP_LINE_BYTES];
    size_t line_len;
    bool line_is_too_long;
    char last;               /* CR, so that the LF after it is no second line */
    struct listing *listing; /* made at the first `x /i` */
    /* Keys on their way; a ring */
    struct hmp_event event[HMP_EVENTS];
    unsigned event_first, event_count;
    struct vm_timer key_timer;
    uint64_t keys_end_ns; /* when the last of them is up */
};

/** Words of a command line; word[0] is the command. */
struct hmp_args {
    unsigned count;
    char *word[HMP_WORDS_MAX];
};

/** Text to the user, with \r\n for each newline. */
void hmp_print(struct hmp *hmp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** A number (decimal, 0x, or octal with 0), $REGISTER, and sums and differences of those. */
bool hmp_number(const struct hmp *hmp, const char *text, uint64_t *value);

/* hmp_info.c */
void hmp_info(struct hmp *hmp, const struct hmp_args *args);
void hmp_screendump(struct hmp *hmp, const struct hmp_args *args);

/* hmp_memory.c */
void hmp_examine(struct hmp *hmp, const struct hmp_args *args);
void hmp_save(struct hmp *hmp, const struct hmp_args *args);
/** Write a file whole or not at all; prints what is wrong. `fill` gives `bytes` bytes in pieces. */
void hmp_write_file(struct hmp *hmp, const char *path, uint64_t bytes,
                    bool (*fill)(struct hmp *hmp, void *ctx, uint64_t ofs, uint8_t *buf, uint32_t len),
                    void *ctx);

/* hmp_keys.c */
void hmp_sendkey(struct hmp *hmp, const struct hmp_args *args);
void hmp_keys_attach(struct hmp *hmp);

#endif
