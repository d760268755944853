/* Firmware: the image of `-bios` and what it is given, found by name. */
#ifndef CLI_FIRMWARE_H
#define CLI_FIRMWARE_H

#include "cli/file.h"
#include "cli/options.h"
#include "monitor/machine.h"

#define FIRMWARE_ERROR_BYTES 512u

struct firmware {
    uint8_t *rom; /* page-aligned copy; NULL: none */
    uint32_t rom_bytes;
    struct file_image vga;
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

/** Enter it all in a machine's configuration. It must outlive the machine. */
void firmware_configure(const struct firmware *fw, struct machine_config *config);

/** The system's directories, in order; NULL ends the list. */
extern const char *const firmware_dirs[];

#endif
