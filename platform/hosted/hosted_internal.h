/*
 * What the files of the hosted platform share. Words that signal handlers write are
 * sig_atomic_t; handlers do nothing beyond setting them, cpu->run, and for faults in
 * translated code the exit stub.
 */
#ifndef PLATFORM_HOSTED_INTERNAL_H
#define PLATFORM_HOSTED_INTERNAL_H

#include <signal.h>

#include "base/cpu.h"
#include "platform/hosted/hosted.h"

struct pollfd;

extern struct vcpu *hosted_vcpu;

/** Put the guest's vector state away before a libc call. */
static inline void hosted_park(void)
{
    if (hosted_vcpu && hosted_vcpu->fpu_live)
        vcpu_fpu_park(hosted_vcpu);
}

/** Ask translated code to leave at its next poll point. */
static inline void hosted_kick(void)
{
    if (hosted_vcpu)
        __atomic_store_n(&hosted_vcpu->run, 0, __ATOMIC_RELAXED);
}

/** Record a sentence for hosted_error(); returns `rc`. */
int hosted_fail(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- memory.c ------------------------------------------------------------------- */
int hosted_memfd(const char *name, uint64_t bytes);
int hosted_ram_fd(uint64_t *bytes);
/** Is rip in code made by platform_code_alloc? */
bool hosted_in_code(uintptr_t rip);
/** Is address in a page made by platform_guard, or just below a reservation? */
bool hosted_in_guard(uintptr_t address);

/* ---- clock.c ---------------------------------------------------------------------- */
void hosted_clock_init(void);
/** Compare with the host's clock now and then, and steer. */
void hosted_clock_steer(void);
/** CLOCK_MONOTONIC at which platform_clock_ns() will show ns. */
uint64_t hosted_clock_to_monotonic(uint64_t ns);

/* ---- timer.c ---------------------------------------------------------------------- */
int hosted_timer_init(void);
void hosted_timer_arm(uint64_t deadline_ns);
/** From the SIGALRM handler. */
void hosted_timer_fired(void);

/* ---- events.c --------------------------------------------------------------------- */
extern volatile sig_atomic_t hosted_event_io;   /* a descriptor became ready            */
extern volatile sig_atomic_t hosted_event_stop; /* signal that asks for the end         */
extern volatile sig_atomic_t hosted_event_cont; /* resumed: the terminal may be cooked  */
void hosted_request_stop(int signal);
void hosted_input_ready(unsigned port);
void hosted_opened(unsigned port);

/* ---- chardev.c -------------------------------------------------------------------- */
#define HOSTED_POLL_MAX (2u * HOSTED_CHARDEV_MAX)
/** Fill fds with what to wait for; returns their number. */
unsigned hosted_chardev_pollfds(struct pollfd *fds);
/** Take the input that is there. */
void hosted_chardev_pump(void);
void hosted_chardev_flush(void);
/** A device's input announces itself by no signal, so somebody has to look. */
bool hosted_chardev_needs_look(void);
/** Write what is buffered without waiting; for a dying process. */
void hosted_chardev_last_words(void);

/* ---- terminal.c ------------------------------------------------------------------- */
void hosted_terminal_raw(bool keep_signals);
void hosted_terminal_restore(void);
void hosted_terminal_resume(void);
/** SIGIO from a descriptor; undone at the end, since its flags may be another's too. */
bool hosted_async(int fd);
/** Before such a descriptor is closed. */
void hosted_async_forget(int fd);
void hosted_async_undo(void);

/* ---- signals.c -------------------------------------------------------------------- */
int hosted_signals_init(void);
extern uintptr_t hosted_exit_stub;

/* ---- log.c, fatal.c ----------------------------------------------------------------- */
void hosted_log_flush(void);
/** Terminal, buffered output and log, with async-signal-safe calls only. */
void hosted_emergency(void);
/** Registers of the guest and the last known place, to stderr. */
void hosted_report_vcpu(void);

#endif
