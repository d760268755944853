/* `ringdown explain`: guest code beside its translation, without running any of it. */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPLAIN_BYTES_MAX 4096u

struct explain_options {
    uint8_t code[EXPLAIN_BYTES_MAX];
    size_t code_bytes;
    unsigned mode, cpl; /* 16 or 32; 0 or 3                             */
    uint32_t eip;
    unsigned insns; /* no more than these; 0: all                   */
    bool cold, baseline, window, help;
    const char *cpu; /* model name; NULL: the default                */
    char error[256]; /* after failure: one line, no newline          */
};

/** argv[0] is "explain". false: o->error says what is wrong. */
bool explain_parse(struct explain_options *o, int argc, const char *const *argv);

/** Translate and print; each line goes to `line` without its newline. false: o->error. Call once
 *  hosted_init is done; no other VM may exist in the process. */
bool explain_print(struct explain_options *o, void (*line)(void *ctx, const char *text), void *ctx);

/** The whole command; -> exit status. */
int explain_main(int argc, char **argv);

#endif
