/*
 * The physical map: a byte for each page of the RAM block says RAM, ROM, device or traced
 * RAM; every page past the block is a device page that nobody answers for, whose reads the
 * machine turns into all ones. Holes in RAM (the VGA window, say) exist in the block as
 * well but cannot be reached while they are marked as devices.
 */
#include "mmu/mmu_internal.h"

void mmu_set_region(struct mmu *m, gpa_t pa, uint64_t bytes, enum region_kind kind)
{
    uint64_t first = gpa_page(pa);
    uint64_t end = (pa.v + bytes + GUEST_PAGE_MASK) >> GUEST_PAGE_SHIFT;

    for (uint64_t pfn = first; pfn < end && pfn < m->ram_pages; pfn++)
        m->kind[pfn] = (uint8_t)((m->kind[pfn] & PAGE_GUARDED) | kind);
    shadow_flush(m);
}

hva_t mmu_ram_ptr(struct mmu *m, gpa_t pa)
{
    if ((page_flags(m, gpa_page(pa)) & PAGE_KIND) == REGION_MMIO)
        return (hva_t){ NULL };
    return (hva_t){ m->ram + pa.v };
}

/* ---- devices ------------------------------------------------------------------ */

/* The largest naturally aligned piece that starts here. */
static unsigned piece_size(uint64_t pa, uint32_t len)
{
    if ((pa & 1) || len < 2)
        return 1;
    return (pa & 2) || len < 4 ? 2 : 4;
}

void device_read(struct mmu *m, gpa_t pa, uint8_t *buf, uint32_t len)
{
    while (len) {
        unsigned size = piece_size(pa.v, len);
        uint32_t value = m->ops.mmio_read ? m->ops.mmio_read(m->ops.ctx, pa, size) : UINT32_MAX;

        STAT_INC(m->cpu, mmio_read);
        copy_bytes(buf, &value, size);
        buf += size;
        pa.v += size;
        len -= size;
    }
}

void device_write(struct mmu *m, gpa_t pa, const uint8_t *buf, uint32_t len)
{
    while (len) {
        unsigned size = piece_size(pa.v, len);
        uint32_t value = 0;

        copy_bytes(&value, buf, size);
        STAT_INC(m->cpu, mmio_write);
        if (m->ops.mmio_write)
            m->ops.mmio_write(m->ops.ctx, pa, size, value);
        buf += size;
        pa.v += size;
        len -= size;
    }
}

/* ---- physical accesses ---------------------------------------------------------- */

static uint32_t bytes_to_page_end(uint64_t addr, uint32_t len)
{
    return min_u32(len, GUEST_PAGE_SIZE - (uint32_t)(addr & GUEST_PAGE_MASK));
}

void mmu_phys_read(struct mmu *m, gpa_t pa, void *buf, uint32_t len)
{
    uint8_t *to = buf;

    while (len) {
        uint32_t n = bytes_to_page_end(pa.v, len);
        hva_t from = mmu_ram_ptr(m, pa);

        if (from.p)
            copy_bytes(to, from.p, n);
        else
            device_read(m, pa, to, n);
        to += n;
        pa.v += n;
        len -= n;
    }
}

/* ROM is written as RAM is: the loader and the firmware's tables come this way. */
void mmu_phys_write(struct mmu *m, gpa_t pa, const void *buf, uint32_t len)
{
    const uint8_t *from = buf;

    while (len) {
        uint32_t n = bytes_to_page_end(pa.v, len);
        hva_t to = mmu_ram_ptr(m, pa);

        if (to.p) {
            copy_bytes(to.p, from, n);
            trace_report(m, pa, n);
        } else {
            device_write(m, pa, from, n);
        }
        from += n;
        pa.v += n;
        len -= n;
    }
}
