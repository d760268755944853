/*
 * The ring-1 platform's side towards its front end (image/main.c), as hosted.h is the hosted platform's. All
 * of it runs in ring 1; the engine sees platform/platform.h only.
 */
#ifndef PLATFORM_RING1_CORE_RING1_H
#define PLATFORM_RING1_CORE_RING1_H

#include "platform/platform.h"

/** The vCPU that traps are about. NULL detaches. `exit_stub` is where a fault in translated code continues. */
void ring1_attach(struct vcpu *cpu, uint64_t exit_stub);

/** What the processor offers; all false with `baseline`. */
void ring1_features(struct host_features *out, bool baseline);

/** Guest RAM, zero-filled; NULL when the machine has too little. Only one may exist. */
uint8_t *ring1_ram_new(uint64_t bytes);
/** All of it reads as zero again. */
void ring1_ram_clear(void);

/** Called from platform_poll when the serial port has input. */
void ring1_on_input(void (*fn)(void *ctx), void *ctx);
/** The guest's first serial port is the machine's. */
void ring1_serial_write(void *ctx, const uint8_t *data, size_t len);
size_t ring1_serial_read(void *ctx, uint8_t *data, size_t len);

/** The machine's clock of the day: seconds since 1970, taken as UTC. */
int64_t ring1_epoch(void);

void ring1_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void ring1_exit(int status);

#endif
