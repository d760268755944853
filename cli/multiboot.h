/* Kernels by the Multiboot specification, version 1. Pure functions over buffers. */
#ifndef CLI_MULTIBOOT_H
#define CLI_MULTIBOOT_H

#include "cli/image.h"

struct multiboot {
    struct image image;
    uint32_t flags; /* of the header */
};

/** Is there a header in the first 8 KiB? */
bool multiboot_is_multiboot(const uint8_t *file, size_t bytes);

/** Is there a header of version 2, which we do not serve? */
bool multiboot_is_version2(const uint8_t *file, size_t bytes);

/** @return false with a sentence in `error` when the file cannot be loaded as its header asks. */
bool multiboot_parse(struct multiboot *out, const uint8_t *file, size_t bytes, char error[IMAGE_ERROR_BYTES]);

/**
 * Put kernel, modules and boot information into guest RAM.
 *
 * @param ram      Zero-filled; byte i is physical address i.
 * @param modules  At most IMAGE_MODULES_MAX; their texts are what the kernel sees.
 * @param cmdline  Terminated text, the kernel's name first.
 */
bool multiboot_place(const struct multiboot *mb, uint8_t *ram, uint64_t ram_bytes,
                     const struct boot_module *modules, unsigned module_count, const char *cmdline,
                     struct boot_entry *entry, char error[IMAGE_ERROR_BYTES]);

#endif
