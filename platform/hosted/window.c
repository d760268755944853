/*
 * Windows: 4 GiB regions of the process in which runs of guest RAM appear at their
 * guest linear addresses.
 *
 * A window is reserved without access, with a guard on both sides for accesses that
 * run over an end; mapping puts pages of the RAM file over the reservation, unmapping
 * puts the reservation back, in place, so that the range is never free for another
 * mapping of the process.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

#define WINDOW_BYTES (1ull << 32)
#define GUARD_BYTES  (2ull << 20) /* also what the window's start is aligned to */
/* The kernel's default, and what other parts of the process may still map. */
#define DEFAULT_MAX_MAPS 65530u
#define SPARE_MAPS       1024u

#define RESERVE_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static bool has_wrgsbase(void)
{
    static int known = -1;

    if (known < 0) {
        struct host_features features;
        hosted_features(&features, false);
        known = features.fsgsbase;
    }
    return known > 0;
}

uint8_t *platform_window_new(void)
{
    hosted_park();
    uint64_t whole = WINDOW_BYTES + 3 * GUARD_BYTES;
    uint8_t *raw = mmap(NULL, whole, PROT_NONE, RESERVE_FLAGS, -1, 0);
    if (raw == MAP_FAILED) {
        hosted_fail(-errno, "cannot reserve a 4 GiB window: %s", strerror(errno));
        return NULL;
    }
    /* Trim to [guard][window][guard] around an aligned start. */
    uint64_t lead = (GUARD_BYTES - (uintptr_t)raw % GUARD_BYTES) % GUARD_BYTES;
    if (lead)
        munmap(raw, lead);
    if (GUARD_BYTES - lead)
        munmap(raw + lead + WINDOW_BYTES + 2 * GUARD_BYTES, GUARD_BYTES - lead);
    return raw + lead + GUARD_BYTES;
}

void platform_window_free(uint8_t *base)
{
    hosted_park();
    if (base)
        munmap(base - GUARD_BYTES, WINDOW_BYTES + 2 * GUARD_BYTES);
}

int platform_window_map(uint8_t *base, uint32_t va, uint64_t ram_ofs, uint32_t bytes, unsigned rights)
{
    hosted_park();
    uint64_t ram_bytes;
    int fd = hosted_ram_fd(&ram_bytes);

    if (fd < 0 || ram_ofs + bytes > ram_bytes || va + (uint64_t)bytes > WINDOW_BYTES)
        return -EINVAL;
    void *p = mmap(base + va, bytes, PROT_READ | ((rights & WINDOW_WRITE) ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED, fd,
                   (off_t)ram_ofs);
    return p == MAP_FAILED ? -errno : 0;
}

int platform_window_unmap(uint8_t *base, uint32_t va, uint64_t bytes)
{
    hosted_park();
    if (va + bytes > WINDOW_BYTES)
        return -EINVAL;
    void *p = mmap(base + va, bytes, PROT_NONE, RESERVE_FLAGS | MAP_FIXED, -1, 0);
    return p == MAP_FAILED ? -errno : 0;
}

/* WRGSBASE where the kernel lets us, else a system call. */
void platform_window_select(struct vcpu *cpu, uint64_t base)
{
    (void)cpu;
    if (has_wrgsbase()) {
        __asm__ volatile("wrgsbase %0" : : "r"(base));
        return;
    }
    hosted_park();
    syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

static unsigned read_max_maps(void)
{
    char text[32] = "";
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    unsigned value = 0;

    if (fd < 0)
        return DEFAULT_MAX_MAPS;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9' && value < 100000000u; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return value ? value : DEFAULT_MAX_MAPS;
}

static unsigned count_maps(void)
{
    char text[4096];
    unsigned lines = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return SPARE_MAPS;
    for (ssize_t n; (n = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < n; i++)
            lines += text[i] == '\n';
    close(fd);
    return lines;
}

uint32_t platform_window_vma_budget(void)
{
    hosted_park();
    unsigned most = read_max_maps(), used = count_maps() + SPARE_MAPS;
    return most > used ? most - used : 0;
}
