/* See bare_mmu.h. */
#include "tests/support/bare_mmu.h"

static uint32_t mmio_read(void *ctx, gpa_t pa, unsigned size)
{
    (void)ctx, (void)pa, (void)size;
    return UINT32_MAX;
}

static void mmio_write(void *ctx, gpa_t pa, unsigned size, uint32_t value)
{
    (void)ctx, (void)pa, (void)size, (void)value;
}

static void traced_write(void *ctx, gpa_t pa, uint32_t len)
{
    (void)ctx, (void)pa, (void)len;
}

static void watched_access(void *ctx, gva_t va, uint32_t size, bool is_write)
{
    (void)ctx, (void)va, (void)size, (void)is_write;
}

static void fetch_drop_all(void *ctx, enum mmu_view_id view, bool keep_global)
{
    (void)ctx, (void)view, (void)keep_global;
}

static void fetch_drop_range(void *ctx, enum mmu_view_id view, gva_t va, uint32_t bytes)
{
    (void)ctx, (void)view, (void)va, (void)bytes;
}

const struct mmu_ops bare_mmu_ops = {
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .traced_write = traced_write,
    .watched_access = watched_access,
    .fetch_drop_all = fetch_drop_all,
    .fetch_drop_range = fetch_drop_range,
};
