/*
 * Host memory: guest RAM, the engine's reservations and the translation cache.
 *
 * Guest RAM is a memory file mapped shared, so that windows can show any of its pages
 * at any address. Reservations are private anonymous memory without backing; each has
 * an inaccessible page on both sides, so that running off an end faults, and the one
 * below tells the overflow of the shadow return stack. The translation cache is a
 * shared anonymous memory, mapped once writable and once executable.
 *
 * The fault handler asks about addresses, so what was allocated is kept in small fixed
 * tables that are only changed outside of handlers.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define HOST_PAGE        4096u
#define MAX_RESERVATIONS 64u
#define MAX_CODE_RANGES  8u
#define MAX_GUARDS       16u
/* Larger ones are sparse tables: a huge page would back 512 pages for one slot. */
#define SPARSE_BYTES        (1u << 20)
#define ZERO_BY_STORE_BYTES (64u << 10)

struct range {
    uintptr_t start, end; /* end 0: free row */
};

static struct range reservations[MAX_RESERVATIONS];
static struct range code_ranges[MAX_CODE_RANGES];
static struct range guards[MAX_GUARDS];

static struct {
    int fd;
    uint8_t *map;
    uint64_t bytes;
} ram = { .fd = -1 };

static size_t page_up(size_t bytes)
{
    return (bytes + HOST_PAGE - 1) & ~(size_t)(HOST_PAGE - 1);
}

static void range_add(struct range *table, unsigned rows, uintptr_t start, size_t bytes)
{
    for (unsigned i = 0; i < rows; i++) {
        if (!table[i].end) {
            table[i] = (struct range){ start, start + bytes };
            return;
        }
    }
}

static void range_remove(struct range *table, unsigned rows, uintptr_t start)
{
    for (unsigned i = 0; i < rows; i++)
        if (table[i].start == start)
            table[i] = (struct range){ 0, 0 };
}

static bool in_table(const struct range *table, unsigned rows, uintptr_t address)
{
    for (unsigned i = 0; i < rows; i++)
        if (address >= table[i].start && address < table[i].end)
            return true;
    return false;
}

bool hosted_in_code(uintptr_t rip)
{
    return in_table(code_ranges, MAX_CODE_RANGES, rip);
}

bool hosted_in_guard(uintptr_t address)
{
    if (in_table(guards, MAX_GUARDS, address))
        return true;
    for (unsigned i = 0; i < MAX_RESERVATIONS; i++)
        if (reservations[i].end && address < reservations[i].start &&
            address >= reservations[i].start - HOST_PAGE)
            return true;
    return false;
}

/* ---- memory files ------------------------------------------------------------- */

/* Kernels before 6.3 do not know MFD_NOEXEC_SEAL and refuse it. A system
 * without memfd_create (an old container profile) still has unnamed files. */
int hosted_memfd(const char *name, uint64_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 && errno == ENOSYS)
        fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return hosted_fail(-errno, "cannot make a memory file for %s: %s", name, strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0) {
        int err = errno;
        close(fd);
        return hosted_fail(-err, "cannot size %s to %llu bytes: %s", name, (unsigned long long)bytes,
                           strerror(err));
    }
    return fd;
}

/* ---- guest RAM ------------------------------------------------------------------ */

uint8_t *hosted_ram_new(uint64_t bytes)
{
    hosted_park();
    int fd = hosted_memfd("guest-ram", bytes);
    if (fd < 0)
        return NULL;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED) {
        hosted_fail(-errno, "cannot map %llu MiB of guest memory: %s", (unsigned long long)(bytes >> 20),
                    strerror(errno));
        close(fd);
        return NULL;
    }
    madvise(map, bytes, MADV_HUGEPAGE);
    madvise(map, bytes, MADV_DONTDUMP); /* the guest's core is written by other means */
    ram.fd = fd;
    ram.map = map;
    ram.bytes = bytes;
    return map;
}

void hosted_ram_clear(void)
{
    hosted_park();
    if (!ram.map)
        return;
    if (fallocate(ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)ram.bytes) < 0)
        memset(ram.map, 0, ram.bytes);
}

void hosted_ram_free(void)
{
    hosted_park();
    if (!ram.map)
        return;
    munmap(ram.map, ram.bytes);
    close(ram.fd);
    ram.map = NULL;
    ram.fd = -1;
    ram.bytes = 0;
}

/* Reading the mapping would give every page of it memory; reading the file does not. */
static int save_range(int to, uint64_t at, off_t from, off_t end)
{
    static char buf[1 << 16];

    while (from < end) {
        size_t want = end - from < (off_t)sizeof buf ? (size_t)(end - from) : sizeof buf;
        ssize_t n = pread(ram.fd, buf, want, from);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        for (ssize_t done = 0, w; done < n; done += w) {
            w = pwrite(to, buf + done, (size_t)(n - done), (off_t)at + from + done);
            if (w < 0)
                return -errno;
        }
        from += n;
    }
    return 0;
}

int hosted_ram_save(int to, uint64_t at)
{
    off_t from = 0, end;

    hosted_park();
    while ((from = lseek(ram.fd, from, SEEK_DATA)) >= 0) {
        end = lseek(ram.fd, from, SEEK_HOLE);
        if (end < 0)
            return -errno;
        int rc = save_range(to, at, from, end);
        if (rc < 0)
            return rc;
        from = end;
    }
    if (errno != ENXIO) /* that is what no more data means */
        return -errno;
    return ftruncate(to, (off_t)(at + ram.bytes)) < 0 ? -errno : 0;
}

int hosted_ram_fd(uint64_t *bytes)
{
    *bytes = ram.bytes;
    return ram.fd;
}

/* ---- reservations ----------------------------------------------------------------- */

void *platform_reserve(size_t bytes)
{
    hosted_park();
    size_t len = page_up(bytes);
    if (!bytes || len < bytes || len > SIZE_MAX - 2 * HOST_PAGE)
        return NULL;

    uint8_t *base =
        mmap(NULL, len + 2 * HOST_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        hosted_fail(-errno, "cannot reserve %zu KiB of memory: %s", len >> 10, strerror(errno));
        return NULL;
    }
    uint8_t *p = base + HOST_PAGE;
    if (mprotect(p, len, PROT_READ | PROT_WRITE) < 0) {
        hosted_fail(-errno, "cannot use %zu KiB of memory: %s", len >> 10, strerror(errno));
        munmap(base, len + 2 * HOST_PAGE);
        return NULL;
    }
    if (len >= SPARSE_BYTES)
        madvise(p, len, MADV_NOHUGEPAGE);
    range_add(reservations, MAX_RESERVATIONS, (uintptr_t)p, len);
    return p;
}

void platform_release(void *p, size_t bytes)
{
    if (!p)
        return;
    hosted_park();
    range_remove(reservations, MAX_RESERVATIONS, (uintptr_t)p);
    for (unsigned i = 0; i < MAX_GUARDS; i++)
        if (guards[i].start >= (uintptr_t)p && guards[i].end <= (uintptr_t)p + page_up(bytes))
            guards[i] = (struct range){ 0, 0 };
    munmap((uint8_t *)p - HOST_PAGE, page_up(bytes) + 2 * HOST_PAGE);
}

void platform_guard(void *p, size_t bytes)
{
    hosted_park();
    if (mprotect(p, bytes, PROT_NONE) == 0)
        range_add(guards, MAX_GUARDS, (uintptr_t)p, bytes);
}

/* Whole pages of a large range are given back; edges and small ranges are overwritten, with
 * our own memset, which leaves vector registers alone. */
void platform_zero(void *p, size_t bytes)
{
    uintptr_t start = (uintptr_t)p, end = start + bytes;
    uintptr_t first = (start + HOST_PAGE - 1) & ~(uintptr_t)(HOST_PAGE - 1);
    uintptr_t last = end & ~(uintptr_t)(HOST_PAGE - 1);

    if (bytes < ZERO_BY_STORE_BYTES || first >= last) {
        memset(p, 0, bytes);
        return;
    }
    hosted_park();
    if (madvise((uint8_t *)p + (first - start), last - first, MADV_DONTNEED) < 0) {
        memset(p, 0, bytes);
        return;
    }
    memset(p, 0, first - start);
    memset((uint8_t *)p + (last - start), 0, end - last);
}

/* ---- the translation cache --------------------------------------------------------- */

/* One shared anonymous memory mapped twice: MREMAP of length 0 from it makes the second mapping.
 * Unlike a memory file it may be executed whatever vm.memfd_noexec says, and perf looks its
 * symbols up in the perf map. */
int platform_code_alloc(size_t bytes, uint8_t **rw, const uint8_t **rx)
{
    hosted_park();
    size_t len = page_up(bytes);
    void *w = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w == MAP_FAILED)
        return hosted_fail(-errno, "cannot map the translation cache: %s", strerror(errno));
    void *x = mremap(w, 0, len, MREMAP_MAYMOVE);
    if (x == MAP_FAILED || mprotect(x, len, PROT_READ | PROT_EXEC) < 0) {
        int rc = hosted_fail(-errno,
                             "this system refuses executable memory (%s): see the security policy in force",
                             strerror(errno));
        if (x != MAP_FAILED)
            munmap(x, len);
        munmap(w, len);
        return rc;
    }
    range_add(code_ranges, MAX_CODE_RANGES, (uintptr_t)x, len);
    *rw = w;
    *rx = x;
    return 0;
}

void platform_code_free(size_t bytes, uint8_t *rw, const uint8_t *rx)
{
    if (!rw)
        return;
    hosted_park();
    range_remove(code_ranges, MAX_CODE_RANGES, (uintptr_t)rx);
    munmap(rw, page_up(bytes));
    munmap((void *)(uintptr_t)rx, page_up(bytes));
}
