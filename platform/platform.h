/*
 * What the engine asks of its host. The engine (base decoder bt tcache mmu
 * monitor) is freestanding; these functions and the compiler's memory helpers
 * are all it may call outside itself. platform/hosted implements them for an
 * ordinary Linux process.
 *
 * Any of them may use the FPU's registers: an implementation that does calls
 * vcpu_fpu_park() first, which stores the guest's x87/SSE state if it is live.
 */
#ifndef PLATFORM_PLATFORM_H
#define PLATFORM_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vcpu;

/** Why the processor came back from the guest's user code. */
enum { DIRECT_INTERRUPTED = 256 }; /* vcpu->run is 0: a vector that no exception has */
struct direct_exit {
    unsigned vector;   /* of the exception that the processor met, or DIRECT_INTERRUPTED */
    uint32_t error;    /* of #PF                                                       */
    uint32_t address;  /* of #PF: CR2                                                  */
    uint32_t dr6;      /* of #DB                                                       */
};

/** Guest descriptors that the processor itself may use: so many from the GDT's first. */
#define DIRECT_DESCRIPTORS 512u

/** A platform whose processor can run the guest's user code as it is, at CPL 3. */
struct direct_ops {
    /** What user code may load: the guest's GDT of `count` descriptors. Those that are not accessed, present code
     *  or data of DPL 3 are absent for it, and so is the rest of the table. */
    void (*descriptors)(const uint64_t *gdt, unsigned count);
    /** Run at CPL 3 from the vCPU's registers, in the window that is selected, until something needs the monitor.
     *  The vCPU then has general registers, EIP, EFLAGS and the selectors, but not the hidden parts, as the processor
     *  left them. false: it did not run, its segments are not in the table. */
    bool (*run)(struct vcpu *cpu, struct direct_exit *out);
};

/** What the host's processor offers, after `host=` was applied. */
struct host_features {
    bool bmi2, lahf64, fsgsbase, erms;
    /* The selected window is at address 0, 4 GiB long, so a 67h prefix alone keeps an operand in it; otherwise
     * windows are anywhere, and gs: is relative to the selected one. */
    bool linear_window;
    const struct direct_ops *direct; /* NULL: user code is translated here, too */
};

/* ---- log and the end ------------------------------------------------------- */
void platform_log_write(const char *text, size_t len);
_Noreturn void platform_assert_failed(const char *expr, const char *file, int line);

/* ---- time: nanoseconds of host monotonic time; general registers only ------ */
uint64_t platform_clock_ns(void);

/** Ask that vcpu->run be cleared at or after `deadline_ns` (UINT64_MAX: never). */
void platform_timer_arm(struct vcpu *cpu, uint64_t deadline_ns);

/** Sleep until the deadline, input for a character device, or a signal. */
void platform_wait(struct vcpu *cpu, uint64_t deadline_ns);

/** Service host events that are due (character device input, a request to stop). */
void platform_poll(struct vcpu *cpu);

/* ---- memory ---------------------------------------------------------------- */
/** Zero-filled, page-aligned, reserved but not yet backed; NULL when it can't be had. */
void *platform_reserve(size_t bytes);
void platform_release(void *p, size_t bytes);
/** Any access to [p, p+bytes) faults from now on: guards. Page-aligned. */
void platform_guard(void *p, size_t bytes);
/** Make a range read as zero again and give its memory back. */
void platform_zero(void *p, size_t bytes);

/** The TC twice: writable at *rw, executable at *rx (they may be equal). 0 or -errno. */
int platform_code_alloc(size_t bytes, uint8_t **rw, const uint8_t **rx);
void platform_code_free(size_t bytes, uint8_t *rw, const uint8_t *rx);

/* ---- windows (window form; see mmu/window.c) -------------------------------- */
/** Reserve a 4 GiB window with guards on both sides; NULL when it can't be had. */
uint8_t *platform_window_new(void);
void platform_window_free(uint8_t *base);
/** Rights of a mapping; translated code needs neither of the last two. */
enum { WINDOW_WRITE = 1, WINDOW_EXECUTE = 2, WINDOW_USER = 4 };
/** Map `bytes` of guest RAM at RAM offset `ram_ofs` to window address `va`. `rights`: WINDOW_*. 0 or -errno. */
int platform_window_map(uint8_t *base, uint32_t va, uint64_t ram_ofs, uint32_t bytes, unsigned rights);
int platform_window_unmap(uint8_t *base, uint32_t va, uint64_t bytes);
/** Translated code's window operands go to the window at `base` from now on: it becomes the host's GS base, or
 *  appears at address 0 (linear_window). Faults in it are reported with `base` added either way. */
void platform_window_select(struct vcpu *cpu, uint64_t base);
/** Most mappings the host grants us for windows, after our own needs. */
uint32_t platform_window_vma_budget(void);

/* ---- vector state ----------------------------------------------------------- */
/** Store the guest's FPU state in vcpu->fpu if it is live, and load sane control words. */
void vcpu_fpu_park(struct vcpu *cpu);

#endif
