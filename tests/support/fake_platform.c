/*
 * The platform for unit tests: memory from mmap, time from the monotonic clock, the log on
 * stderr, nothing that needs a terminal, a signal handler or a running guest. An assertion
 * that fails aborts, which the test reports.
 *
 * Windows are reserved but map nothing: guest RAM of unit tests has no file behind it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "platform/platform.h"

#define WINDOW_BYTES (1ull << 32)
#define WINDOW_GUARD (1ull << 16)

/* ---- log and the end --------------------------------------------------------- */

void platform_log_write(const char *text, size_t len)
{
    fwrite(text, 1, len, stderr);
}

_Noreturn void platform_assert_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}

/* ---- time ---------------------------------------------------------------------- */

uint64_t platform_clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void platform_timer_arm(struct vcpu *cpu, uint64_t deadline_ns)
{
    (void)cpu;
    (void)deadline_ns;
}

void platform_wait(struct vcpu *cpu, uint64_t deadline_ns)
{
    (void)cpu;
    (void)deadline_ns;
}

void platform_poll(struct vcpu *cpu)
{
    (void)cpu;
}

/* ---- memory --------------------------------------------------------------------- */

static void *map(size_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void *platform_reserve(size_t bytes)
{
    return map(bytes, PROT_READ | PROT_WRITE);
}

void platform_release(void *p, size_t bytes)
{
    munmap(p, bytes);
}

/* MADV_DONTNEED works on whole pages; ranges of reserved memory start on one. */
void platform_zero(void *p, size_t bytes)
{
    madvise(p, bytes, MADV_DONTNEED);
}

void platform_guard(void *p, size_t bytes)
{
    mprotect(p, bytes, PROT_NONE);
}

int platform_code_alloc(size_t bytes, uint8_t **rw, const uint8_t **rx)
{
    int rc = 0;
    int fd = memfd_create("tc", MFD_CLOEXEC);
    void *w, *x;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) < 0) {
        rc = -errno;
        goto out_close;
    }
    w = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w == MAP_FAILED) {
        rc = -errno;
        goto out_close;
    }
    x = mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (x == MAP_FAILED) {
        rc = -errno;
        munmap(w, bytes);
        goto out_close;
    }
    *rw = w;
    *rx = x;
out_close:
    close(fd);
    return rc;
}

void platform_code_free(size_t bytes, uint8_t *rw, const uint8_t *rx)
{
    munmap(rw, bytes);
    munmap((void *)(uintptr_t)rx, bytes);
}

/* ---- windows ---------------------------------------------------------------------- */

void platform_window_select(struct vcpu *cpu, uint64_t base)
{
    (void)cpu;
    (void)base;
}

uint8_t *platform_window_new(void)
{
    uint8_t *p = map(WINDOW_BYTES + 2 * WINDOW_GUARD, PROT_NONE);

    return p ? p + WINDOW_GUARD : NULL;
}

void platform_window_free(uint8_t *base)
{
    munmap(base - WINDOW_GUARD, WINDOW_BYTES + 2 * WINDOW_GUARD);
}

int platform_window_map(uint8_t *base, uint32_t va, uint64_t ram_ofs, uint32_t bytes, unsigned rights)
{
    (void)base;
    (void)va;
    (void)ram_ofs;
    (void)bytes;
    (void)rights;
    return -ENOSYS;
}

int platform_window_unmap(uint8_t *base, uint32_t va, uint64_t bytes)
{
    (void)base;
    (void)va;
    (void)bytes;
    return 0;
}

uint32_t platform_window_vma_budget(void)
{
    return 0;
}

/* ---- vector state ------------------------------------------------------------------- */

void vcpu_fpu_park(struct vcpu *cpu)
{
    static const uint32_t mxcsr = 0x1f80;

    if (!cpu->fpu_live)
        return;
    __asm__ volatile("fxsave64 %0\n\tfninit\n\tldmxcsr %1" : "=m"(cpu->fpu) : "m"(mxcsr) : "memory");
    cpu->fpu_live = 0;
}
