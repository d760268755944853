/*
 * ELF32 guests: program headers by libelf, and the entry of what is no multiboot kernel.
 *
 * Two kinds of plain ELF files can be entered. A kernel with a Xen note of type PHYS32_ENTRY is
 * started by the PVH protocol, as QEMU does: EBX points to hvm_start_info, which leads to the command
 * line, the initrd and the memory map. Any other file is taken as a bare program: segments at
 * p_paddr, EIP at e_entry, every other general register zero, and no information at all.
 * Both are entered in 32-bit protected mode, flat segments, A20 open, paging and interrupts off.
 *
 * libelf is asked for headers only. What it says is checked against the file's size once more, since
 * it cuts tables that are too long without a word.
 *
 * Reference: System V ABI, ch. "Object Files" and "Program Loading"; Intel386 supplement; Xen,
 * "x86/HVM direct boot ABI" (PVH).
 */
#include "cli/elf_image.h"

#include <gelf.h>
#include <libelf.h>
#include <string.h>

#include "base/types.h"

#define XEN_NOTE_PHYS32_ENTRY 18u
#define PVH_MAGIC             0x336ec578u

bool elf_is_elf(const uint8_t *file, size_t bytes)
{
    return bytes >= SELFMAG && !memcmp(file, ELFMAG, SELFMAG);
}

/* ---- headers --------------------------------------------------------------------------- */

static bool check_ident(const uint8_t *file, size_t bytes, char *error)
{
    if (bytes < sizeof(Elf32_Ehdr))
        return image_fail(error, "is truncated: %zu bytes are less than an ELF header", bytes);
    if (file[EI_CLASS] == ELFCLASS64)
        return image_fail(error, "is a 64-bit ELF file: a 32-bit x86 kernel is needed");
    if (file[EI_CLASS] != ELFCLASS32)
        return image_fail(error, "is an ELF file of unknown class %u", file[EI_CLASS]);
    if (file[EI_DATA] != ELFDATA2LSB)
        return image_fail(error, "is an ELF file in big-endian order: a 32-bit x86 kernel is needed");
    return true;
}

static bool check_header(const Elf32_Ehdr *h, size_t bytes, char *error)
{
    if (h->e_machine != EM_386)
        return image_fail(error, "is an ELF file for machine %u: for i386 it would be %u", h->e_machine,
                          EM_386);
    if (h->e_type != ET_EXEC)
        return image_fail(error, "is an ELF file of type %u: an executable (%u) is needed", h->e_type,
                          ET_EXEC);
    if (!h->e_phnum)
        return image_fail(error, "is an ELF file without program headers: there is nothing to load");
    if (h->e_phnum == PN_XNUM)
        return image_fail(error, "is an ELF file with %u program headers or more", PN_XNUM);
    if (h->e_phentsize != sizeof(Elf32_Phdr))
        return image_fail(error, "is an ELF file with program headers of %u bytes instead of %zu",
                          h->e_phentsize, sizeof(Elf32_Phdr));
    if ((uint64_t)h->e_phoff + (uint64_t)h->e_phnum * sizeof(Elf32_Phdr) > bytes)
        return image_fail(error, "is truncated: its %u program headers end beyond its %zu bytes", h->e_phnum,
                          bytes);
    return true;
}

/* ---- segments -------------------------------------------------------------------------- */

static uint32_t note_up(uint32_t bytes)
{
    return (bytes + 3) & ~3u;
}

/* Notes that make no sense end the search: a kernel is complete without them. */
static void find_pvh_entry(struct elf_image *out, const uint8_t *note, uint64_t left)
{
    while (left >= sizeof(Elf32_Nhdr)) {
        uint32_t name = get_le32(note), desc = get_le32(note + 4), type = get_le32(note + 8);
        uint64_t size = sizeof(Elf32_Nhdr) + (uint64_t)note_up(name) + note_up(desc);
        if (name > left || desc > left || size > left)
            return;
        const uint8_t *text = note + sizeof(Elf32_Nhdr);
        if (type == XEN_NOTE_PHYS32_ENTRY && name == 4 && !memcmp(text, "Xen", 4) && desc >= 4) {
            out->has_pvh = true;
            out->pvh_entry = get_le32(text + note_up(name));
        }
        note += size;
        left -= size;
    }
}

static bool take_segment(struct elf_image *out, const Elf32_Phdr *p, const uint8_t *file, size_t bytes,
                         char *error)
{
    bool is_in_file = (uint64_t)p->p_offset + p->p_filesz <= bytes;

    switch (p->p_type) {
    case PT_INTERP:
        return image_fail(error, "is a program for an operating system: it asks for an interpreter");
    case PT_NOTE:
        if (is_in_file)
            find_pvh_entry(out, file + p->p_offset, p->p_filesz);
        return true;
    case PT_LOAD:
        if (!is_in_file)
            return image_fail(error,
                              "is truncated: its segment at 0x%08x ends at byte %llu, the file has %zu",
                              p->p_paddr, (unsigned long long)p->p_offset + p->p_filesz, bytes);
        return image_add(&out->image, p->p_paddr, file + p->p_offset, p->p_filesz, p->p_memsz, error);
    default:
        return true;
    }
}

/* libelf's table may lie anywhere in the file: x86 does not mind, the language does. */
static Elf32_Phdr program_header(const Elf32_Phdr *table, size_t i)
{
    Elf32_Phdr p;

    memcpy(&p, (const uint8_t *)table + i * sizeof p, sizeof p);
    return p;
}

/* e_entry is virtual; the segment that holds it says where that is physically. */
static uint32_t physical_entry(uint32_t entry, const Elf32_Phdr *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Elf32_Phdr p = program_header(table, i);
        if (p.p_type == PT_LOAD && entry - p.p_vaddr < p.p_memsz)
            return entry - p.p_vaddr + p.p_paddr;
    }
    return entry;
}

static bool take_headers(struct elf_image *out, Elf *elf, const uint8_t *file, size_t bytes, char *error)
{
    const void *raw = elf32_getehdr(elf);
    Elf32_Ehdr header;
    size_t count = 0;

    if (!raw)
        return image_fail(error, "is no ELF file that can be read: %s", elf_errmsg(-1));
    memcpy(&header, raw, sizeof header);
    if (!check_header(&header, bytes, error))
        return false;
    const Elf32_Phdr *table = elf32_getphdr(elf);
    if (!table || elf_getphdrnum(elf, &count) < 0 || count != header.e_phnum)
        return image_fail(error, "is an ELF file whose program headers cannot be read: %s", elf_errmsg(-1));
    for (size_t i = 0; i < count; i++) {
        Elf32_Phdr p = program_header(table, i);
        if (!take_segment(out, &p, file, bytes, error))
            return false;
    }
    out->image.entry = physical_entry(header.e_entry, table, count);
    return true;
}

bool elf_parse(struct elf_image *out, const uint8_t *file, size_t bytes, char error[IMAGE_ERROR_BYTES])
{
    memset(out, 0, sizeof *out);
    if (!check_ident(file, bytes, error))
        return false;
    if (elf_version(EV_CURRENT) == EV_NONE)
        return image_fail(error, "is an ELF file, and libelf is too old: %s", elf_errmsg(-1));
    /* libelf only reads what was opened so */
    Elf *elf = elf_memory((char *)(uintptr_t)file, bytes);
    if (!elf)
        return image_fail(error, "is no ELF file that can be read: %s", elf_errmsg(-1));
    bool ok = take_headers(out, elf, file, bytes, error);
    elf_end(elf);
    return ok;
}

/* ---- placing --------------------------------------------------------------------------- */

/*
 * hvm_start_info, version 1, at 0; then
 *   0x040 memory map   (24 bytes a row)   0x0c0 module list (32 bytes a row)
 *   0x0e0 GDT                              0x100 command line
 */
#define PVH_MEMMAP  0x040u
#define PVH_MODULES 0x0c0u
#define PVH_GDT     0x0e0u
#define PVH_CMDLINE 0x100u

static void fill_start_info(uint8_t *ram, uint32_t at, uint64_t ram_bytes, const struct boot_module *module,
                            uint32_t module_at)
{
    struct e820_row rows[E820_ROWS];
    uint8_t *p = ram + at;

    put_le32(p, PVH_MAGIC);
    put_le32(p + 4, 1);
    put_le64(p + 24, at + PVH_CMDLINE);
    put_le64(p + 40, at + PVH_MEMMAP);
    put_le32(p + 48, E820_ROWS);
    image_memory_map(ram_bytes, rows);
    for (unsigned i = 0; i < E820_ROWS; i++) {
        put_le64(p + PVH_MEMMAP + i * 24, rows[i].start);
        put_le64(p + PVH_MEMMAP + i * 24 + 8, rows[i].bytes);
        put_le32(p + PVH_MEMMAP + i * 24 + 16, rows[i].type);
    }
    if (module) {
        put_le32(p + 12, 1);
        put_le64(p + 16, at + PVH_MODULES);
        put_le64(p + PVH_MODULES, module_at);
        put_le64(p + PVH_MODULES + 8, module->bytes);
    }
}

static bool place_pvh(const struct elf_image *elf, uint8_t *ram, uint64_t ram_bytes,
                      const struct boot_module *modules, unsigned module_count, const char *cmdline,
                      struct boot_entry *entry, char *error)
{
    struct layout layout;
    uint32_t module_at = 0;
    size_t cmdline_bytes = strlen(cmdline) + 1;

    if (module_count > 1)
        return image_fail(error, "takes one initrd: -initrd names %u files", module_count);
    layout_init(&layout, &elf->image, ram_bytes);
    if (!layout_modules(&layout, &elf->image, ram, modules, module_count, &module_at, error))
        return false;
    uint32_t at = layout_take(&layout, 0x9000, PVH_CMDLINE + cmdline_bytes);
    if (!at)
        return image_fail(error, "leaves no room for its command line of %zu bytes", cmdline_bytes);
    fill_start_info(ram, at, ram_bytes, module_count ? modules : NULL, module_at);
    memcpy(ram + at + PVH_CMDLINE, cmdline, cmdline_bytes);
    image_put_gdt(ram, at + PVH_GDT, entry);
    entry->eip = elf->pvh_entry;
    entry->ebx = at;
    return true;
}

static bool place_bare(const struct elf_image *elf, uint8_t *ram, uint64_t ram_bytes,
                       struct boot_entry *entry, char *error)
{
    struct layout layout;

    layout_init(&layout, &elf->image, ram_bytes);
    uint32_t at = layout_take(&layout, 0x9000, BOOT_GDT_BYTES);
    if (!at)
        return image_fail(error, "leaves no room for a descriptor table");
    image_put_gdt(ram, at, entry);
    entry->eip = elf->image.entry;
    return true;
}

bool elf_fits(const struct elf_image *elf, uint64_t ram_bytes, char error[IMAGE_ERROR_BYTES])
{
    struct image image = elf->image;

    if (elf->has_pvh)
        image.entry = elf->pvh_entry;
    return image_check(&image, ram_bytes, error);
}

bool elf_place(const struct elf_image *elf, uint8_t *ram, uint64_t ram_bytes,
               const struct boot_module *modules, unsigned module_count, const char *cmdline,
               struct boot_entry *entry, char error[IMAGE_ERROR_BYTES])
{
    memset(entry, 0, sizeof *entry);
    if (!elf->has_pvh && (module_count || *cmdline))
        return image_fail(error,
                          "is a plain ELF file, without a multiboot header or a PVH note: it takes no %s",
                          module_count ? "-initrd" : "-append");
    if (!elf_fits(elf, ram_bytes, error))
        return false;
    image_bios_data(ram);
    image_copy(&elf->image, ram);
    if (elf->has_pvh)
        return place_pvh(elf, ram, ram_bytes, modules, module_count, cmdline, entry, error);
    return place_bare(elf, ram, ram_bytes, entry, error);
}
