/* Files into guest memory, and the processor to their entry. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "cli/bzimage.h"
#include "cli/elf_image.h"
#include "cli/file.h"
#include "cli/multiboot.h"
#include "cli/options.h"

enum boot_kind { BOOT_BZIMAGE, BOOT_MULTIBOOT, BOOT_ELF };

/** What `-kernel` and `-initrd` name, checked. */
struct boot_files {
    enum boot_kind kind;
    struct file_image kernel;
    struct bzimage bzimage;     /* BOOT_BZIMAGE   */
    struct multiboot multiboot; /* BOOT_MULTIBOOT */
    struct elf_image elf;       /* BOOT_ELF       */
    struct file_image module[IMAGE_MODULES_MAX];
    char *module_text[IMAGE_MODULES_MAX]; /* "FILE ARGUMENTS", as a multiboot kernel sees it */
    unsigned module_count;
};

#define LOAD_ERROR_BYTES 512u

/** Read and check all files against the memory size. On failure nothing is held. */
bool boot_files_open(struct boot_files *files, const struct options *o, char error[LOAD_ERROR_BYTES]);
void boot_files_close(struct boot_files *files);

/** Fill zeroed guest RAM. */
bool boot_files_place(const struct boot_files *files, const struct options *o, uint8_t *ram,
                      struct boot_entry *entry, char error[LOAD_ERROR_BYTES]);

#endif
