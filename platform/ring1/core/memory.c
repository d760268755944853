/*
 * platform.h's memory, in ring 1: reservations, guards, the translation cache, guest RAM, windows. What is at
 * which address is decided here; ring 0 only edits page tables.
 *
 * A reservation's pages are filled by ring 0 when they are touched first (trap.c asks the tables below), so a
 * sparse table costs what is used of it. But memory for all of it is kept: reservations fail when they are made,
 * not when a guest makes the engine touch them, and windows, which a guest can make as many as it likes, get what
 * is left.
 */
#include "base/string.h"
#include "base/types.h"
#include "platform/ring1/core/core.h"
#include "platform/ring1/core/errno.h"
#include "platform/ring1/core/nucleus.h"
#include "platform/ring1/core/ring1.h"

#define RESERVATIONS_MAX 64u
#define GUARDS_MAX       16u
#define ZERO_BY_STORE_BYTES (64u << 10)

/* Ring 0 reads these in a fault; ring 1 changes them outside of faults. */
struct range {
    uint64_t start, end; /* end 0: free row */
};
static struct range reservation[RESERVATIONS_MAX], guard[GUARDS_MAX];
static struct range code;
static uint64_t ram_bytes;
static bool window_used[WINDOWS_MAX];
uint64_t memory_promised;

#define TABLE_SHARE  512u        /* a table page maps so many */
#define SLACK_BYTES  (2u << 20)  /* upper tables, and pages partly used */

bool memory_has(uint64_t bytes)
{
    uint64_t want = memory_promised + bytes;

    return frames_left() >= want + want / TABLE_SHARE + SLACK_BYTES;
}

static uint64_t page_up(uint64_t bytes)
{
    return (bytes + MACHINE_PAGE - 1) & ~(uint64_t)(MACHINE_PAGE - 1);
}

static uint64_t address_of(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static void *pointer_to(uint64_t va)
{
    return (void *)(uintptr_t)va; /* NOLINT(performance-no-int-to-ptr) */
}

static const struct range *range_at(const struct range *table, unsigned rows, uint64_t va)
{
    for (unsigned i = 0; i < rows; i++)
        if (va >= table[i].start && va < table[i].end)
            return &table[i];
    return NULL;
}

bool memory_is_reserved(uint64_t va)
{
    return range_at(reservation, RESERVATIONS_MAX, va) && !range_at(guard, GUARDS_MAX, va);
}

bool memory_is_guard(uint64_t va)
{
    if (range_at(guard, GUARDS_MAX, va))
        return true;
    const struct range *above = range_at(reservation, RESERVATIONS_MAX, va + MACHINE_PAGE);
    return above && va < above->start;
}

bool memory_is_code(uint64_t rip)
{
    return rip >= code.start && rip < code.end;
}

/* ---- reservations -------------------------------------------------------------------------------- */

/* The lowest place for `bytes` with an absent page on both sides. 0: none. */
static uint64_t find_room(uint64_t bytes)
{
    uint64_t at = ARENA + MACHINE_PAGE;

    for (unsigned i = 0; i < RESERVATIONS_MAX; i++) {
        const struct range *r = &reservation[i];
        if (r->end && at < r->end + MACHINE_PAGE && r->start < at + bytes + MACHINE_PAGE) {
            at = r->end + MACHINE_PAGE;
            i = UINT32_MAX; /* from the beginning */
        }
    }
    return bytes < ARENA_END - at ? at : 0;
}

void *platform_reserve(size_t bytes)
{
    uint64_t len = page_up(bytes);

    if (!bytes || len < bytes || len >= ARENA_END - ARENA || !memory_has(len))
        return NULL;
    for (unsigned i = 0; i < RESERVATIONS_MAX; i++) {
        if (reservation[i].end)
            continue;
        uint64_t at = find_room(len);
        if (!at)
            return NULL;
        reservation[i] = (struct range){ at, at + len };
        memory_promised += len;
        return pointer_to(at);
    }
    return NULL;
}

void platform_release(void *p, size_t bytes)
{
    uint64_t start = address_of(p), end = start + page_up(bytes), kept = end - start;

    if (!p)
        return;
    for (unsigned i = 0; i < GUARDS_MAX; i++) {
        if (guard[i].start >= start && guard[i].end <= end) {
            kept -= guard[i].end - guard[i].start;
            guard[i] = (struct range){ 0, 0 };
        }
    }
    for (unsigned i = 0; i < RESERVATIONS_MAX; i++)
        if (reservation[i].start == start)
            reservation[i] = (struct range){ 0, 0 };
    memory_promised -= kept - (uint64_t)nucleus(NUC_UNMAP, start, end - start, true, 0);
}

void platform_guard(void *p, size_t bytes)
{
    for (unsigned i = 0; i < GUARDS_MAX; i++) {
        if (guard[i].end)
            continue;
        guard[i] = (struct range){ address_of(p), address_of(p) + bytes };
        memory_promised -= bytes - (uint64_t)nucleus(NUC_UNMAP, address_of(p), bytes, true, 0);
        return;
    }
}

/* Whole pages of a large range are given back; edges and small ranges are overwritten. */
void platform_zero(void *p, size_t bytes)
{
    uint64_t start = address_of(p), end = start + bytes;
    uint64_t first = page_up(start), last = end & ~(uint64_t)(MACHINE_PAGE - 1);

    if (bytes < ZERO_BY_STORE_BYTES || first >= last) {
        memset(p, 0, bytes);
        return;
    }
    memory_promised += (uint64_t)nucleus(NUC_UNMAP, first, last - first, true, 0);
    memset(p, 0, first - start);
    memset(pointer_to(last), 0, end - last);
}

/* ---- the translation cache ----------------------------------------------------------------------- */

int platform_code_alloc(size_t bytes, uint8_t **rw, const uint8_t **rx)
{
    uint64_t len = page_up(bytes);

    if (code.end || len > CODE_RX - CODE_RW)
        return -ENOMEM;
    int rc = (int)nucleus(NUC_BACK, CODE_RW, len, CODE_RX, 0);
    if (rc < 0)
        return rc;
    code = (struct range){ CODE_RX, CODE_RX + len };
    *rw = pointer_to(CODE_RW);
    *rx = pointer_to(CODE_RX);
    return 0;
}

void platform_code_free(size_t bytes, uint8_t *rw, const uint8_t *rx)
{
    if (!rw)
        return;
    code = (struct range){ 0, 0 };
    nucleus(NUC_UNMAP, address_of(rx), page_up(bytes), false, 0);
    nucleus(NUC_UNMAP, address_of(rw), page_up(bytes), true, 0);
}

/* ---- guest RAM ------------------------------------------------------------------------------------- */

uint8_t *ring1_ram_new(uint64_t bytes)
{
    if (ram_bytes || nucleus(NUC_BACK, GUEST_RAM, page_up(bytes), 0, 0) < 0)
        return NULL;
    ram_bytes = bytes;
    return pointer_to(GUEST_RAM);
}

void ring1_ram_clear(void)
{
    memset(pointer_to(GUEST_RAM), 0, ram_bytes);
}

/* ---- windows ----------------------------------------------------------------------------------------- */

static unsigned window_at(uint64_t base)
{
    return (unsigned)((base - WINDOWS) / WINDOW_STRIDE);
}

uint8_t *platform_window_new(void)
{
    for (unsigned i = 0; i < WINDOWS_MAX; i++) {
        if (window_used[i])
            continue;
        if (nucleus(NUC_TREE, i, 0, 0, 0) < 0)
            return NULL;
        window_used[i] = true;
        return pointer_to(WINDOWS + i * WINDOW_STRIDE);
    }
    return NULL;
}

void platform_window_free(uint8_t *base)
{
    if (!base)
        return;
    nucleus(NUC_UNMAP, address_of(base), WINDOW_BYTES, false, 0);
    window_used[window_at(address_of(base))] = false;
}

int platform_window_map(uint8_t *base, uint32_t va, uint64_t ram_ofs, uint32_t bytes, unsigned rights)
{
    if (ram_ofs + bytes > ram_bytes || va + (uint64_t)bytes > WINDOW_BYTES)
        return -EINVAL;
    return (int)nucleus(NUC_SHOW, address_of(base) + va, GUEST_RAM + ram_ofs, bytes, rights);
}

int platform_window_unmap(uint8_t *base, uint32_t va, uint64_t bytes)
{
    if (va + bytes > WINDOW_BYTES)
        return -EINVAL;
    nucleus(NUC_UNMAP, address_of(base) + va, bytes, false, 0);
    return 0;
}

void platform_window_select(struct vcpu *cpu, uint64_t base)
{
    (void)cpu;
    nucleus(NUC_SELECT, window_at(base), 0, 0, 0);
}

/* Page tables have no limit of runs; what bounds them is what bounds mmu/window.c otherwise. */
uint32_t platform_window_vma_budget(void)
{
    return 1u << 20;
}
