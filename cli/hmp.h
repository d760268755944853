/*
 * The monitor's command line: what a user or a script types to look at a guest and to steer it.
 * QEMU's "human monitor protocol", its names and forms, as far as there is something behind them.
 *
 * Runs between guest instructions, as all host events do, with the guest's vector state parked.
 */
#ifndef CLI_HMP_H
#define CLI_HMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hmp;
struct vm;

struct hmp_config {
    /** Text for the user. Takes all, never blocks for long. */
    void (*write)(void *ctx, const uint8_t *data, size_t len);
    void *ctx;
    bool echo; /* the other side is a raw terminal: show what is typed */
};

/** @return NULL when memory can't be had. */
struct hmp *hmp_new(const struct hmp_config *config);
void hmp_free(struct hmp *hmp);

/** The machine that commands are for; NULL when there is none. Keys on their way are dropped. */
void hmp_attach(struct hmp *hmp, struct vm *vm);

/** Somebody has connected, or turned to the monitor: greet. */
void hmp_opened(struct hmp *hmp);
/** What was typed. Whole lines are executed. */
void hmp_input(struct hmp *hmp, const uint8_t *data, size_t len);

#endif
