/* Firmware: the image of `-bios` and what it is given, found by name. */
#ifndef CLI_FIRMWARE_H
#define CLI_FIRMWARE_H

#include "cli/file.h"
#include "cli/load.h"
#include "cli/options.h"
#include "monitor/machine.h"

#define FIRMWARE_ERROR_BYTES 512u

struct firmware {
    uint8_t *rom; /* page-aligned copy; NULL: none */
    uint32_t rom_bytes;
    struct file_image vga;
    struct {
        struct file_image file;
        char name[56]; /* genroms/NAME */
    } option[OPTIONS_ROMS_MAX + 1];
    unsigned options;
    /* A kernel, as a boot ROM loads it. setup NULL: none */
    uint8_t *setup;
    uint32_t setup_bytes;
    const struct boot_files *files;
    const char *cmdline;
    uint8_t word[8][4]; /* addresses and sizes */
};

/**
 * Find, check and read what -bios names, and the VGA's ROM unless there is to be none. A name is a path
 * first, then a file in a directory of -L, then in those of the system. A VGA ROM that is not found is no
 * error: fw->vga stays empty.
 *
 * @return false with a sentence in `error`. On failure nothing is held.
 */
bool firmware_open(struct firmware *fw, const struct options *o, char error[FIRMWARE_ERROR_BYTES]);
void firmware_close(struct firmware *fw);

/** Hand over the kernel of -kernel, which `files` holds and outlives fw. false: `error` says why not. */
bool firmware_add_kernel(struct firmware *fw, const struct options *o, const struct boot_files *files,
                         char error[FIRMWARE_ERROR_BYTES]);

/** Enter it all in a machine's configuration. It must outlive the machine. */
void firmware_configure(const struct firmware *fw, struct machine_config *config);

/** The system's directories, in order; NULL ends the list. */
extern const char *const firmware_dirs[];

#endif
