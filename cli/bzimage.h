/*
 * The loader for Linux kernels: a bzImage in a buffer, by the 32-bit boot protocol.
 * Pure functions over buffers, so that they can be tested and fuzzed.
 */
#ifndef CLI_BZIMAGE_H
#define CLI_BZIMAGE_H

#include "cli/image.h"

/** What the setup header says. Pointers lead into the caller's buffer. */
struct bzimage {
    const uint8_t *setup; /* start of the file                                   */
    size_t header_end;    /* of the setup header, an offset into the file        */
    const uint8_t *code;  /* protected-mode part                                 */
    size_t code_bytes;
    uint16_t version;            /* boot protocol, 0x020f for 2.15                      */
    uint32_t initrd_max;         /* highest address a byte of the initrd may have       */
    uint32_t cmdline_max;        /* bytes without the terminator                        */
    uint64_t run_start, run_end; /* memory the kernel uses before it reads the map */
};

/** Is there a setup header? */
bool bzimage_is_bzimage(const uint8_t *file, size_t bytes);

/** @return false with a sentence in `error` when the buffer is not a kernel we can enter. */
bool bzimage_parse(struct bzimage *image, const uint8_t *file, size_t bytes, char error[IMAGE_ERROR_BYTES]);

/**
 * Put kernel, initrd, command line and boot parameters into guest RAM.
 *
 * @param ram      Zero-filled; byte i is physical address i.
 * @param initrd   May be NULL with initrd_bytes 0.
 * @param cmdline  Terminated text.
 * @return false with a sentence in `error` when something does not fit.
 */
bool bzimage_place(const struct bzimage *image, uint8_t *ram, uint64_t ram_bytes, const uint8_t *initrd,
                   uint64_t initrd_bytes, const char *cmdline, struct boot_entry *entry,
                   char error[IMAGE_ERROR_BYTES]);

/** The same checks and address arithmetic without RAM: true when it would fit. */
bool bzimage_fits(const struct bzimage *image, uint64_t ram_bytes, uint64_t initrd_bytes,
                  char error[IMAGE_ERROR_BYTES]);

#endif
