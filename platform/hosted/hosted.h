/*
 * The hosted platform's side towards the `ringdown` command: guest RAM, character
 * devices, host signals and the log file. The engine sees platform/platform.h only.
 *
 * One process runs one VM on one thread, so the state behind these functions is
 * global. Functions that can fail return a negative errno and leave a sentence for
 * the user in hosted_error().
 */
#ifndef PLATFORM_HOSTED_HOSTED_H
#define PLATFORM_HOSTED_HOSTED_H

#include "platform/platform.h"

/** Why the last hosted_* or platform_* function failed, for one line on stderr. */
const char *hosted_error(void);

/* ---- start and end ----------------------------------------------------------- */

/** Alternate stack, handlers, clock, timer. Call once, before anything else here. */
int hosted_init(void);

/** The vCPU whose state host events touch. NULL detaches. `exit_stub` is where a fault
 *  signal in translated code continues (world_host_signal), 0 when there is none. */
void hosted_attach(struct vcpu *cpu, uintptr_t exit_stub);

/** Flush all output and give the terminal back. Safe to call twice and from atexit. */
void hosted_finish(void);

/** Give up what a run does not need: everything is open by now. false where the host's kernel
 *  has no seccomp; nothing is lost then. */
bool hosted_sandbox(void);

/** What the host offers; all false with `baseline`. */
void hosted_features(struct host_features *out, bool baseline);

/* ---- guest RAM --------------------------------------------------------------- */

/** Guest RAM as a shared mapping of a memory file, zero-filled. NULL: see hosted_error(). */
uint8_t *hosted_ram_new(uint64_t bytes);
/** All of it reads as zero again; its memory goes back to the host. */
void hosted_ram_clear(void);
void hosted_ram_free(void);
/** Copy all of it into a file at offset `at`; what the guest never touched becomes a hole.
 *  0 or -errno. */
int hosted_ram_save(int to, uint64_t at);

/* ---- host events ------------------------------------------------------------- */

/** Called from platform_poll and platform_wait, never from a signal handler. */
struct hosted_events {
    void *ctx;
    /** Character device `port` has input: for the guest, or for the monitor. */
    void (*input)(void *ctx, unsigned port);
    /** Somebody has connected to character device `port`, or turned to it. May be NULL. */
    void (*opened)(void *ctx, unsigned port);
    /** End the run: `signal` is the signal that asked for it, 0 for the user's Ctrl-a x. */
    void (*stop)(void *ctx, int signal);
};
void hosted_set_events(const struct hosted_events *events);

/* ---- character devices --------------------------------------------------------- */

/** Ports 0 to 3 are the guest's serial ports, 4 is the monitor, 5 the guest's debug console. */
#define HOSTED_SERIAL_MAX       4u
#define HOSTED_CHARDEV_MONITOR  4u
#define HOSTED_CHARDEV_DEBUGCON 5u
#define HOSTED_CHARDEV_MAX      6u

struct hosted_chardev;

/** Standard input and output. With `mux` the terminal's signals are off and Ctrl-a is an
 *  escape (x leaves, h helps, c turns to the monitor); else Ctrl-c interrupts the program. Only one may exist. */
struct hosted_chardev *hosted_chardev_stdio(unsigned port, bool mux);
/** Swallows output, has no input. */
struct hosted_chardev *hosted_chardev_null(unsigned port);
/** Output to a file, made or truncated. */
struct hosted_chardev *hosted_chardev_file(unsigned port, const char *path);
/** A new pseudo-terminal; its name is printed on stderr. */
struct hosted_chardev *hosted_chardev_pty(unsigned port);
/** A UNIX stream socket: connect to it, or listen on it and (with `wait`) wait for one. */
struct hosted_chardev *hosted_chardev_unix(unsigned port, const char *path, bool is_server, bool wait);
/** The monitor on the device of hosted_chardev_stdio(.., true): Ctrl-a c goes there and back. */
struct hosted_chardev *hosted_chardev_muxed(unsigned port);
void hosted_chardev_close_all(void);

/** Bytes from the guest: all are taken; they reach the host within a few milliseconds. */
void hosted_chardev_write(void *chardev, const uint8_t *data, size_t len);
/** Up to len bytes for the guest, 0 when there are none. */
size_t hosted_chardev_read(void *chardev, uint8_t *data, size_t len);

/* ---- log ----------------------------------------------------------------------- */

/** Send log text to a file instead of stderr. */
int hosted_log_open(const char *path);

#endif
