/*
 * A guest as pieces for memory: what the loaders for ELF and multiboot have in common.
 * Pure functions over buffers, so that they can be tested and fuzzed.
 */
#ifndef CLI_IMAGE_H
#define CLI_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_ERROR_BYTES  256u
#define IMAGE_SEGMENTS_MAX 64u
#define IMAGE_MODULES_MAX  64u

/* The PC's memory below 1 MiB */
#define LOW_PAGE_END 0x1000u  /* vectors and BIOS data                          */
#define EBDA_AT      0x9fc00u /* conventional memory ends                       */
#define VGA_HOLE_AT  0xa0000u
#define BIOS_AT      0xe0000u
#define HIGH_RAM_AT  0x100000u

/** Bytes [0, file_bytes) come from the file, the rest up to mem_bytes is zero. */
struct image_segment {
    uint32_t pa;
    uint32_t file_bytes, mem_bytes;
    const uint8_t *data; /* leads into the file's buffer */
};

struct image {
    struct image_segment segment[IMAGE_SEGMENTS_MAX];
    unsigned count;
    uint32_t entry; /* physical */
};

/** A file that goes along with the kernel, and the text that the kernel sees for it. */
struct boot_module {
    const uint8_t *data;
    size_t bytes;
    const char *text;
};

/** How to enter: 32-bit protected mode, flat segments, paging and interrupts off. */
struct boot_entry {
    uint32_t eip, eax, ebx, esi, esp; /* the other registers are 0              */
    uint32_t gdt_base;
    uint16_t gdt_limit, cs, ds;
    uint32_t initrd_at; /* of a bzImage; 0 without one                          */
};

/** Write a sentence to `error`. Always returns false. */
bool image_fail(char error[IMAGE_ERROR_BYTES], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Append a segment; false when its end is beyond 4 GiB or there are too many. Empty ones are left out. */
bool image_add(struct image *image, uint32_t pa, const uint8_t *data, uint32_t file_bytes, uint32_t mem_bytes,
               char error[IMAGE_ERROR_BYTES]);

/** The segments lie in RAM and apart from each other, and the entry is in one of them. */
bool image_check(const struct image *image, uint64_t ram_bytes, char error[IMAGE_ERROR_BYTES]);

/** Copy the checked segments. `ram` is zero-filled; byte i is physical address i. */
void image_copy(const struct image *image, uint8_t *ram);

/* ---- finding room ---------------------------------------------------------------------- */

#define LAYOUT_RANGES (IMAGE_SEGMENTS_MAX + IMAGE_MODULES_MAX + 8u)

/** What is taken of the guest's RAM: disjoint ranges by address. */
struct layout {
    struct {
        uint64_t first, end;
    } taken[LAYOUT_RANGES];
    unsigned count;
    uint64_t ram_bytes;
};

/** The image's segments and the PC's own areas are taken. */
void layout_init(struct layout *l, const struct image *image, uint64_t ram_bytes);

/** Take `bytes` (not 0), page-aligned, at or above `from`, as low as possible. 0: there is no room. */
uint32_t layout_take(struct layout *l, uint64_t from, uint64_t bytes);

/** The end of the image's highest segment, at least 1 MiB. */
uint64_t layout_image_end(const struct image *image);

/** Copy each module above the image, on a page of its own; `at` gets the addresses. */
bool layout_modules(struct layout *l, const struct image *image, uint8_t *ram,
                    const struct boot_module *modules, unsigned count, uint32_t *at,
                    char error[IMAGE_ERROR_BYTES]);

/* ---- what every protocol hands over ------------------------------------------------------ */

#define E820_RAM      1u
#define E820_RESERVED 2u

struct e820_row {
    uint64_t start, bytes;
    uint32_t type;
};
#define E820_ROWS 4u

/** The memory map that a BIOS would report, by address. */
void image_memory_map(uint64_t ram_bytes, struct e820_row rows[E820_ROWS]);

/** What a kernel looks for in the BIOS data area. */
void image_bios_data(uint8_t *ram);

struct vcpu;
/** The processor's state at the kernel's 32-bit entry (boot_enter.c). */
void boot_enter(struct vcpu *cpu, const struct boot_entry *entry);

#define BOOT_GDT_BYTES 32u
/** Null, null, flat code at selector 10h, flat data at 18h; fills the entry's GDT and selectors. */
void image_put_gdt(uint8_t *ram, uint32_t at, struct boot_entry *entry);

/* ---- little-endian fields --------------------------------------------------------------- */

static inline uint32_t get_le16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get_le32(const uint8_t *p)
{
    return get_le16(p) | get_le16(p + 2) << 16;
}

static inline uint64_t get_le64(const uint8_t *p)
{
    return get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}

static inline void put_le16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void put_le32(uint8_t *p, uint32_t v)
{
    put_le16(p, v);
    put_le16(p + 2, v >> 16);
}

static inline void put_le64(uint8_t *p, uint64_t v)
{
    put_le32(p, (uint32_t)v);
    put_le32(p + 4, (uint32_t)(v >> 32));
}

#endif
