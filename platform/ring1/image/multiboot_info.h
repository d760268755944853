/* What a multiboot boot loader hands over. Ref: Multiboot Specification 0.6.96, "Boot information format". */
#ifndef PLATFORM_RING1_IMAGE_MULTIBOOT_INFO_H
#define PLATFORM_RING1_IMAGE_MULTIBOOT_INFO_H

#include <stddef.h>
#include <stdint.h>

#define MODULES_MAX   8u
#define WORDS_BYTES   4096u

struct boot_module_info {
    const uint8_t *data; /* in the map of machine memory */
    size_t bytes;
    char words[WORDS_BYTES];
};

/** Copied out of the loader's memory. */
struct boot_info {
    char words[WORDS_BYTES]; /* the image's own command line */
    struct boot_module_info module[MODULES_MAX];
    unsigned module_count;
    const char *error; /* NULL: all is well */
};

extern struct boot_info boot_info;

#endif
