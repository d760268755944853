/* Files into guest memory, and the processor to their entry. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "cli/bzimage.h"
#include "cli/options.h"

struct vcpu;

/** A whole file in memory. */
struct file_image {
    const uint8_t *data; /* NULL when empty */
    size_t bytes;
    bool is_mapped;
};

/** What `-kernel` and `-initrd` name, checked. */
struct boot_files {
    struct file_image kernel, initrd;
    struct bzimage image;
};

#define LOAD_ERROR_BYTES 512u

/** Read and check both files against the memory size. On failure nothing is held. */
bool boot_files_open(struct boot_files *files, const struct options *o, char error[LOAD_ERROR_BYTES]);
void boot_files_close(struct boot_files *files);

/** Fill zeroed guest RAM. */
bool boot_files_place(const struct boot_files *files, const struct options *o, uint8_t *ram,
                      struct bzimage_entry *entry, char error[LOAD_ERROR_BYTES]);

/** The processor's state at the kernel's 32-bit entry. */
void boot_enter(struct vcpu *cpu, const struct bzimage_entry *entry);

#endif
