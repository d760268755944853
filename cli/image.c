/*
 * Pieces of a guest, and where they go in its memory.
 *
 * An image is a list of segments that the file asks for at fixed physical addresses. What
 * we add (modules, information for the kernel, a descriptor table) goes where neither a segment
 * nor the PC itself has anything: a sorted list of taken ranges, first fit, whole pages.
 *
 * The PC's own: the first page (vectors, BIOS data), 9fc00h..fffffh (EBDA, VGA, ROMs, ACPI tables).
 */
#include "cli/image.h"

#include <string.h>

#include "base/log.h"
#include "base/types.h"

#define FOUR_GIB  (1ull << 32)
#define BOOT_CS   0x10u
#define BOOT_DS   0x18u
#define FLAT_CODE 0x00cf9b000000ffffull
#define FLAT_DATA 0x00cf93000000ffffull

bool image_fail(char error[IMAGE_ERROR_BYTES], const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fmt_vformat(error, IMAGE_ERROR_BYTES, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- segments ------------------------------------------------------------------------- */

static uint64_t segment_end(const struct image_segment *s)
{
    return (uint64_t)s->pa + s->mem_bytes;
}

bool image_add(struct image *image, uint32_t pa, const uint8_t *data, uint32_t file_bytes, uint32_t mem_bytes,
               char error[IMAGE_ERROR_BYTES])
{
    struct image_segment s = { .pa = pa, .file_bytes = file_bytes, .mem_bytes = mem_bytes, .data = data };

    if (!mem_bytes)
        return true;
    if (file_bytes > mem_bytes)
        return image_fail(error,
                          "has a segment at 0x%08x with %u bytes in the file and room for %u in memory", pa,
                          file_bytes, mem_bytes);
    if (segment_end(&s) > FOUR_GIB)
        return image_fail(error, "has a segment at 0x%08x that ends beyond 4 GiB", pa);
    if (image->count == IMAGE_SEGMENTS_MAX)
        return image_fail(error, "has more than %u segments to load", IMAGE_SEGMENTS_MAX);
    image->segment[image->count++] = s;
    return true;
}

static bool check_in_ram(const struct image_segment *s, uint64_t ram_bytes, char *error)
{
    uint64_t end = segment_end(s);

    if (s->pa < HIGH_RAM_AT && end > EBDA_AT)
        return image_fail(error, "has a segment at 0x%08x..0x%08llx, across the PC's own memory 0x%x..0x%x",
                          s->pa, (unsigned long long)end - 1, EBDA_AT, HIGH_RAM_AT - 1);
    if (end > ram_bytes)
        return image_fail(error, "needs at least %lluM of guest memory: -m %lluM is too small",
                          (unsigned long long)((end + (1u << 20) - 1) >> 20),
                          (unsigned long long)(ram_bytes >> 20));
    return true;
}

bool image_check(const struct image *image, uint64_t ram_bytes, char error[IMAGE_ERROR_BYTES])
{
    bool has_entry = false;

    if (!image->count)
        return image_fail(error, "has nothing to load");
    for (unsigned i = 0; i < image->count; i++) {
        const struct image_segment *s = &image->segment[i];
        if (!check_in_ram(s, ram_bytes, error))
            return false;
        for (unsigned k = 0; k < i; k++) {
            const struct image_segment *t = &image->segment[k];
            if (s->pa < segment_end(t) && t->pa < segment_end(s))
                return image_fail(error, "has segments that overlap, at 0x%08x and 0x%08x", t->pa, s->pa);
        }
        has_entry |= image->entry >= s->pa && image->entry < segment_end(s);
    }
    if (!has_entry)
        return image_fail(error, "is to be entered at 0x%08x, which is in none of its segments",
                          image->entry);
    return true;
}

void image_copy(const struct image *image, uint8_t *ram)
{
    for (unsigned i = 0; i < image->count; i++) {
        const struct image_segment *s = &image->segment[i];
        if (s->file_bytes)
            memcpy(ram + s->pa, s->data, s->file_bytes);
        memset(ram + s->pa + s->file_bytes, 0, s->mem_bytes - s->file_bytes);
    }
}

/* ---- layout ----------------------------------------------------------------------------- */

/* Insert by address; ranges may touch or, for segments within our own first page, overlap. */
static void take(struct layout *l, uint64_t first, uint64_t end)
{
    unsigned i = l->count++;

    for (; i > 0 && l->taken[i - 1].first > first; i--)
        l->taken[i] = l->taken[i - 1];
    l->taken[i].first = first;
    l->taken[i].end = end;
}

void layout_init(struct layout *l, const struct image *image, uint64_t ram_bytes)
{
    l->count = 0;
    l->ram_bytes = ram_bytes < FOUR_GIB ? ram_bytes : FOUR_GIB;
    take(l, 0, LOW_PAGE_END);
    take(l, EBDA_AT, HIGH_RAM_AT);
    for (unsigned i = 0; i < image->count; i++)
        take(l, image->segment[i].pa, segment_end(&image->segment[i]));
}

static uint64_t page_up(uint64_t at)
{
    return (at + GUEST_PAGE_MASK) & ~(uint64_t)GUEST_PAGE_MASK;
}

uint32_t layout_take(struct layout *l, uint64_t from, uint64_t bytes)
{
    uint64_t at = page_up(from);

    if (l->count == LAYOUT_RANGES || bytes > l->ram_bytes)
        return 0;
    for (unsigned i = 0; i < l->count; i++) {
        if (l->taken[i].end <= at)
            continue;
        if (at + bytes <= l->taken[i].first)
            break;
        at = page_up(l->taken[i].end);
    }
    if (at + bytes > l->ram_bytes)
        return 0;
    take(l, at, at + bytes);
    return (uint32_t)at;
}

uint64_t layout_image_end(const struct image *image)
{
    uint64_t end = HIGH_RAM_AT;

    for (unsigned i = 0; i < image->count; i++)
        if (segment_end(&image->segment[i]) > end)
            end = segment_end(&image->segment[i]);
    return end;
}

bool layout_modules(struct layout *l, const struct image *image, uint8_t *ram,
                    const struct boot_module *modules, unsigned count, uint32_t *at,
                    char error[IMAGE_ERROR_BYTES])
{
    uint64_t above = layout_image_end(image);

    for (unsigned i = 0; i < count; i++) {
        const struct boot_module *m = &modules[i];
        at[i] = layout_take(l, above, m->bytes);
        if (!at[i])
            at[i] = layout_take(l, HIGH_RAM_AT, m->bytes);
        if (!at[i])
            return image_fail(error, "leaves no room for module %u of %zu bytes: -m %lluM is too small",
                              i + 1, m->bytes, (unsigned long long)(l->ram_bytes >> 20));
        memcpy(ram + at[i], m->data, m->bytes);
    }
    return true;
}

/* ---- what every protocol hands over ------------------------------------------------------- */

void image_memory_map(uint64_t ram_bytes, struct e820_row rows[E820_ROWS])
{
    rows[0] = (struct e820_row){ 0, EBDA_AT, E820_RAM };
    rows[1] = (struct e820_row){ EBDA_AT, VGA_HOLE_AT - EBDA_AT, E820_RESERVED };
    rows[2] = (struct e820_row){ BIOS_AT, HIGH_RAM_AT - BIOS_AT, E820_RESERVED };
    rows[3] = (struct e820_row){ HIGH_RAM_AT, ram_bytes - HIGH_RAM_AT, E820_RAM };
}

void image_bios_data(uint8_t *ram)
{
    put_le16(ram + 0x400, 0x3f8);         /* COM1 */
    put_le16(ram + 0x40e, EBDA_AT >> 4);  /* EBDA segment */
    put_le16(ram + 0x413, EBDA_AT >> 10); /* conventional memory in KiB */
    ram[0x449] = 3;                       /* video mode, columns, CRT port, rows - 1 */
    put_le16(ram + 0x44a, 80);
    put_le16(ram + 0x463, 0x3d4);
    ram[0x484] = 24;
    put_le16(ram + 0x485, 16);
}

void image_put_gdt(uint8_t *ram, uint32_t at, struct boot_entry *entry)
{
    memset(ram + at, 0, BOOT_GDT_BYTES);
    put_le64(ram + at + BOOT_CS, FLAT_CODE);
    put_le64(ram + at + BOOT_DS, FLAT_DATA);
    entry->gdt_base = at;
    entry->gdt_limit = BOOT_GDT_BYTES - 1;
    entry->cs = BOOT_CS;
    entry->ds = BOOT_DS;
}
