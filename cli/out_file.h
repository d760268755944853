/*
 * Files that the program writes in one go: counters, guest memory, screens.
 */
#ifndef CLI_OUT_FILE_H
#define CLI_OUT_FILE_H

#define OUT_FILE_PATH_BYTES 4096

struct out_file {
    int fd;
    const char *path;               /* the caller's; must outlive the file */
    char temp[OUT_FILE_PATH_BYTES]; /* what is written until it is whole; empty: the path itself */
};

/**
 * Begin a file that appears under its name whole or not at all: it is written beside the name and
 * renamed at the end. What is no regular file (a device, a pipe) is written as it is, never replaced.
 *
 * @return 0 with f->fd open for writing, or negative errno.
 */
int out_file_open(struct out_file *f, const char *path);

/**
 * End it: keep what was written if rc is 0, undo it otherwise. Closes f->fd unless that is -1 (the caller
 * has closed it).
 *
 * @return rc, or the negative errno of closing or renaming.
 */
int out_file_close(struct out_file *f, int rc);

#endif
