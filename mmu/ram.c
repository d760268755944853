/*
 * The physical map: a byte for each page of the RAM block says RAM, ROM, device or traced
 * RAM; every page past the block is a device page that nobody answers for, whose reads the
 * machine turns into all ones, or a page of the ROM image, which ends at 4 GiB. Holes in RAM (the
 * VGA window, say) exist in the block as well but cannot be reached while they are marked as
 * devices. Below 1 MiB a chipset may show the ROM image instead of the block, and let writes go to
 * the block meanwhile.
 */
#include "mmu/mmu_internal.h"
#include "mmu/window_internal.h"

static void set_pages(struct mmu *m, gpa_t pa, uint64_t bytes, unsigned flags)
{
    uint64_t first = gpa_page(pa);
    uint64_t end = (pa.v + bytes + GUEST_PAGE_MASK) >> GUEST_PAGE_SHIFT;

    ASSERT((flags & PAGE_KIND) != REGION_IMAGE || (end <= PFN_1M && first + m->rom_pages >= PFN_1M));
    for (uint64_t pfn = first; pfn < end && pfn < m->ram_pages; pfn++)
        m->kind[pfn] = (uint8_t)((m->kind[pfn] & PAGE_GUARDED) | flags);
    shadow_flush(m);
    windows_flush(m);
}

void mmu_set_region(struct mmu *m, gpa_t pa, uint64_t bytes, enum region_kind kind)
{
    set_pages(m, pa, bytes, kind);
}

void mmu_set_region_write_ram(struct mmu *m, gpa_t pa, uint64_t bytes, enum region_kind reads)
{
    set_pages(m, pa, bytes, reads == REGION_RAM ? (unsigned)REGION_RAM : reads | PAGE_WRITES_RAM);
}

uint64_t mmu_ram_bytes(const struct mmu *m)
{
    return m->ram_pages << GUEST_PAGE_SHIFT;
}

hva_t mmu_ram_ptr(struct mmu *m, gpa_t pa)
{
    unsigned flags = page_flags(m, gpa_page(pa));

    if ((flags & PAGE_KIND) == REGION_MMIO)
        return (hva_t){ NULL };
    return (hva_t){ page_host(m, gpa_page(pa), flags) + (pa.v & GUEST_PAGE_MASK) };
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

void phys_store(struct mmu *m, gpa_t pa, const void *buf, uint32_t len)
{
    unsigned flags = page_flags(m, gpa_page(pa));

    switch ((enum region_kind)(flags & PAGE_KIND)) {
    case REGION_RAM:
        copy_bytes(m->ram + pa.v, buf, len);
        trace_report(m, pa, len);
        break;
    case REGION_ROM:
    case REGION_IMAGE:
        if (flags & PAGE_WRITES_RAM) /* nobody reads it now, so no code was made from it */
            copy_bytes(m->ram + pa.v, buf, len);
        break;
    case REGION_MMIO:
        if (flags & PAGE_WRITES_RAM)
            copy_bytes(m->ram + pa.v, buf, len);
        else
            device_write(m, pa, buf, len);
        break;
    }
}

void mmu_phys_write(struct mmu *m, gpa_t pa, const void *buf, uint32_t len)
{
    const uint8_t *from = buf;

    while (len) {
        uint32_t n = bytes_to_page_end(pa.v, len);

        phys_store(m, pa, from, n);
        from += n;
        pa.v += n;
        len -= n;
    }
}
