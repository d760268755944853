/* Whole files in memory. */
#ifndef CLI_FILE_H
#define CLI_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_image {
    const uint8_t *data; /* NULL when empty */
    size_t bytes;
    bool is_mapped;
};

/** Read or map a file; pipes are read to their end. 0 or a positive errno. */
int file_open(struct file_image *f, const char *path);
void file_close(struct file_image *f);

#endif
