/* ELF32 executables for i386, read by libelf. Pure functions over buffers. */
#ifndef CLI_ELF_IMAGE_H
#define CLI_ELF_IMAGE_H

#include "cli/image.h"

/** An ELF file as pieces for memory. */
struct elf_image {
    struct image image;
    bool has_pvh;       /* a note names an entry for the PVH boot protocol */
    uint32_t pvh_entry; /* physical                                        */
};

bool elf_is_elf(const uint8_t *file, size_t bytes);

/**
 * Segments go to their physical addresses (p_paddr). The entry is e_entry; where that is a
 * virtual address of a segment, its physical one.
 * @return false with a sentence in `error`.
 */
bool elf_parse(struct elf_image *out, const uint8_t *file, size_t bytes, char error[IMAGE_ERROR_BYTES]);

/** The segments and the entry that will be used are in RAM: image_check(). */
bool elf_fits(const struct elf_image *elf, uint64_t ram_bytes, char error[IMAGE_ERROR_BYTES]);

/**
 * Put a plain ELF file into zero-filled guest RAM. With a PVH note: by that protocol, with at most one
 * module (the initrd) and a command line. Without: nothing but the segments, all registers zero.
 */
bool elf_place(const struct elf_image *elf, uint8_t *ram, uint64_t ram_bytes,
               const struct boot_module *modules, unsigned module_count, const char *cmdline,
               struct boot_entry *entry, char error[IMAGE_ERROR_BYTES]);

#endif
