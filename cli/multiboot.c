/*
 * Multiboot kernels.
 *
 * A header somewhere in the first 8 KiB says what the kernel wants. With flag 16 it also says
 * where the file goes ("a.out kludge"): addresses of the header itself, of the part to load,
 * of the BSS's end and of the entry. Without, the file is ELF.
 *
 *   0x00001000.. or 0x00009000..  a block found free below 640 KiB (else above the kernel):
 *       +0x000  multiboot_info       +0x080  GDT            +0x0a0  memory map
 *       +0x100  module list, strings; a page of stack at the end
 *   the image                     where it says
 *   above it                      modules, each on pages of its own
 *
 * At the entry: EAX 2BADB002h, EBX the information, flat 32-bit segments, A20 open, paging and
 * interrupts off. The specification leaves ESP undefined; there is a page of stack, since kernels
 * have been seen to rely on one.
 *
 * Reference: Multiboot Specification 0.6.96, "OS image format", "Machine state", "Boot information
 * format".
 */
#include "cli/multiboot.h"

#include <string.h>

#include "base/types.h"
#include "cli/elf_image.h"

#define SEARCH_BYTES  8192u
#define SEARCH2_BYTES 32768u
#define HEADER_MAGIC  0x1badb002u
#define HEADER2_MAGIC 0xe85250d6u
#define ENTRY_MAGIC   0x2badb002u

/* Header: fields and flags */
#define H_FLAGS       4u
#define H_CHECKSUM    8u
#define H_HEADER_ADDR 12u
#define H_LOAD_ADDR   16u
#define H_LOAD_END    20u
#define H_BSS_END     24u
#define H_ENTRY       28u
#define H_BYTES       12u
#define H_ADDR_BYTES  32u

#define HF_ALIGN_MODULES 0x00000001u
#define HF_MEMORY        0x00000002u
#define HF_VIDEO         0x00000004u
#define HF_ADDRESSES     0x00010000u
#define HF_KNOWN         (HF_ALIGN_MODULES | HF_MEMORY | HF_VIDEO)
#define HF_REQUIRED      0x0000ffffu /* a loader that lacks one of these must not go on */

/* Boot information: fields and flags */
#define I_FLAGS          0u
#define I_MEM_LOWER      4u /* KiB from 0 */
#define I_MEM_UPPER      8u /* KiB from 1 MiB to the first hole */
#define I_CMDLINE        16u
#define I_MODS_COUNT     20u
#define I_MODS_ADDR      24u
#define I_MMAP_LENGTH    44u
#define I_MMAP_ADDR      48u
#define I_LOADER_NAME    64u
#define I_FRAMEBUFFER    88u
#define INFO_MEMORY      0x0001u
#define INFO_CMDLINE     0x0004u
#define INFO_MODULES     0x0008u
#define INFO_MMAP        0x0040u
#define INFO_LOADER_NAME 0x0200u
#define INFO_FRAMEBUFFER 0x1000u

/* The block */
#define B_GDT     0x080u
#define B_MMAP    0x0a0u
#define B_MODULES 0x100u
#define MMAP_ROW  24u
#define MOD_ROW   16u

static const char loader_name[] = "ringdown";

/* ---- the header ------------------------------------------------------------------------ */

/* @return its offset, or SEARCH_BYTES when there is none. */
static uint32_t find_header(const uint8_t *file, size_t bytes)
{
    size_t most = bytes < SEARCH_BYTES ? bytes : SEARCH_BYTES;

    for (uint32_t at = 0; at + H_BYTES <= most; at += 4)
        if (get_le32(file + at) == HEADER_MAGIC &&
            get_le32(file + at) + get_le32(file + at + H_FLAGS) + get_le32(file + at + H_CHECKSUM) == 0)
            return at;
    return SEARCH_BYTES;
}

bool multiboot_is_multiboot(const uint8_t *file, size_t bytes)
{
    return find_header(file, bytes) != SEARCH_BYTES;
}

bool multiboot_is_version2(const uint8_t *file, size_t bytes)
{
    size_t most = bytes < SEARCH2_BYTES ? bytes : SEARCH2_BYTES;

    for (size_t at = 0; at + 16 <= most; at += 8)
        if (get_le32(file + at) == HEADER2_MAGIC && get_le32(file + at) + get_le32(file + at + 4) +
                                                            get_le32(file + at + 8) +
                                                            get_le32(file + at + 12) ==
                                                        0)
            return true;
    return false;
}

/* Flag 16: one segment, from the addresses in the header. */
static bool parse_addresses(struct multiboot *out, const uint8_t *file, size_t bytes, uint32_t at,
                            char *error)
{
    const uint8_t *h = file + at;

    if (at + H_ADDR_BYTES > bytes || at + H_ADDR_BYTES > SEARCH_BYTES)
        return image_fail(error, "is truncated: its multiboot header has no room for addresses");
    uint32_t header_addr = get_le32(h + H_HEADER_ADDR), load = get_le32(h + H_LOAD_ADDR);
    uint32_t load_end = get_le32(h + H_LOAD_END), bss_end = get_le32(h + H_BSS_END);
    if (load > header_addr || header_addr - load > at)
        return image_fail(
            error,
            "has a multiboot header whose load address 0x%08x is not before the header, at byte %u "
            "and address 0x%08x",
            load, at, header_addr);
    size_t from = at - (header_addr - load);
    if (load_end && load_end < load)
        return image_fail(error,
                          "has a multiboot header with its load end 0x%08x below its load address 0x%08x",
                          load_end, load);
    uint64_t load_bytes = load_end ? load_end - load : bytes - from;
    if (load_bytes > bytes - from)
        return image_fail(
            error, "is truncated: its multiboot header asks for %llu bytes from byte %zu, the file has %zu",
            (unsigned long long)load_bytes, from, bytes);
    if (bss_end && bss_end < load + load_bytes)
        return image_fail(error, "has a multiboot header with its BSS end 0x%08x below its load end 0x%08llx",
                          bss_end, (unsigned long long)load + load_bytes);
    uint64_t mem_bytes = bss_end ? bss_end - load : load_bytes;
    if (mem_bytes > UINT32_MAX)
        return image_fail(error, "is too large: %llu bytes", (unsigned long long)mem_bytes);
    out->image.entry = get_le32(h + H_ENTRY);
    return image_add(&out->image, load, file + from, (uint32_t)load_bytes, (uint32_t)mem_bytes, error);
}

bool multiboot_parse(struct multiboot *out, const uint8_t *file, size_t bytes, char error[IMAGE_ERROR_BYTES])
{
    struct elf_image elf;
    uint32_t at = find_header(file, bytes);

    memset(out, 0, sizeof *out);
    if (at == SEARCH_BYTES)
        return image_fail(error, "has no multiboot header");
    out->flags = get_le32(file + at + H_FLAGS);
    if (out->flags & HF_REQUIRED & ~HF_KNOWN)
        return image_fail(error,
                          "needs features of the boot loader that there are not: multiboot flags 0x%04x",
                          out->flags & HF_REQUIRED & ~HF_KNOWN);
    if (out->flags & HF_ADDRESSES)
        return parse_addresses(out, file, bytes, at, error);
    if (!elf_is_elf(file, bytes))
        return image_fail(error, "has a multiboot header without addresses, and is no ELF file");
    if (!elf_parse(&elf, file, bytes, error))
        return false;
    out->image = elf.image;
    return true;
}

/* ---- placing ----------------------------------------------------------------------------- */

static void put_memory(uint8_t *ram, uint32_t info, uint64_t ram_bytes)
{
    struct e820_row rows[E820_ROWS];
    uint8_t *row = ram + info + B_MMAP;

    _Static_assert(B_MMAP + E820_ROWS * MMAP_ROW <= B_MODULES, "the memory map ends before the modules");
    put_le32(ram + info + I_MEM_LOWER, EBDA_AT >> 10);
    put_le32(ram + info + I_MEM_UPPER, (uint32_t)((ram_bytes - HIGH_RAM_AT) >> 10));
    put_le32(ram + info + I_MMAP_LENGTH, E820_ROWS * MMAP_ROW);
    put_le32(ram + info + I_MMAP_ADDR, info + B_MMAP);
    image_memory_map(ram_bytes, rows);
    for (unsigned i = 0; i < E820_ROWS; i++, row += MMAP_ROW) {
        put_le32(row, MMAP_ROW - 4); /* the size leaves itself out */
        put_le64(row + 4, rows[i].start);
        put_le64(row + 12, rows[i].bytes);
        put_le32(row + 20, rows[i].type);
    }
}

/* 80x25 colour text, 16 bits a cell */
static void put_framebuffer(uint8_t *ram, uint32_t info)
{
    uint8_t *f = ram + info + I_FRAMEBUFFER;

    put_le64(f, 0xb8000);
    put_le32(f + 8, 160);
    put_le32(f + 12, 80);
    put_le32(f + 16, 25);
    f[20] = 16;
    f[21] = 2; /* EGA text */
}

static uint32_t put_string(uint8_t *ram, uint32_t *at, const char *text)
{
    uint32_t here = *at;
    size_t bytes = strlen(text) + 1;

    memcpy(ram + here, text, bytes);
    *at += (uint32_t)bytes;
    return here;
}

static void put_info(uint8_t *ram, uint32_t info, uint64_t ram_bytes, const struct multiboot *mb,
                     const struct boot_module *modules, unsigned count, const uint32_t *module_at,
                     const char *cmdline)
{
    uint32_t list = info + B_MODULES, strings = list + count * MOD_ROW;
    uint32_t flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MMAP | INFO_LOADER_NAME;

    put_memory(ram, info, ram_bytes);
    put_le32(ram + info + I_CMDLINE, put_string(ram, &strings, cmdline));
    put_le32(ram + info + I_LOADER_NAME, put_string(ram, &strings, loader_name));
    put_le32(ram + info + I_MODS_COUNT, count);
    put_le32(ram + info + I_MODS_ADDR, list);
    for (unsigned i = 0; i < count; i++) {
        put_le32(ram + list + i * MOD_ROW, module_at[i]);
        put_le32(ram + list + i * MOD_ROW + 4, module_at[i] + (uint32_t)modules[i].bytes);
        put_le32(ram + list + i * MOD_ROW + 8, put_string(ram, &strings, modules[i].text));
    }
    if (mb->flags & HF_VIDEO) {
        put_framebuffer(ram, info);
        flags |= INFO_FRAMEBUFFER;
    }
    put_le32(ram + info + I_FLAGS, flags);
}

/* Bytes of the block, stack included. */
static uint64_t block_bytes(const struct boot_module *modules, unsigned count, const char *cmdline)
{
    uint64_t bytes = B_MODULES + (uint64_t)count * MOD_ROW + strlen(cmdline) + 1 + sizeof loader_name;

    for (unsigned i = 0; i < count; i++)
        bytes += strlen(modules[i].text) + 1;
    return ((bytes + GUEST_PAGE_MASK) & ~(uint64_t)GUEST_PAGE_MASK) + GUEST_PAGE_SIZE;
}

static uint32_t take_block(struct layout *l, uint64_t bytes)
{
    uint32_t at = layout_take(l, 0x9000, bytes);

    return at ? at : layout_take(l, LOW_PAGE_END, bytes);
}

bool multiboot_place(const struct multiboot *mb, uint8_t *ram, uint64_t ram_bytes,
                     const struct boot_module *modules, unsigned module_count, const char *cmdline,
                     struct boot_entry *entry, char error[IMAGE_ERROR_BYTES])
{
    struct layout layout;
    uint32_t module_at[IMAGE_MODULES_MAX];
    uint64_t bytes = block_bytes(modules, module_count, cmdline);

    memset(entry, 0, sizeof *entry);
    if (module_count > IMAGE_MODULES_MAX)
        return image_fail(error, "takes at most %u modules", IMAGE_MODULES_MAX);
    if (!image_check(&mb->image, ram_bytes, error))
        return false;
    image_bios_data(ram);
    image_copy(&mb->image, ram);
    layout_init(&layout, &mb->image, ram_bytes);
    if (!layout_modules(&layout, &mb->image, ram, modules, module_count, module_at, error))
        return false;
    uint32_t info = take_block(&layout, bytes);
    if (!info)
        return image_fail(error, "leaves no room for %llu bytes of boot information",
                          (unsigned long long)bytes);
    put_info(ram, info, ram_bytes, mb, modules, module_count, module_at, cmdline);
    image_put_gdt(ram, info + B_GDT, entry);
    entry->eip = mb->image.entry;
    entry->eax = ENTRY_MAGIC;
    entry->ebx = info;
    entry->esp = info + (uint32_t)bytes;
    return true;
}
