/*
 * Files written in one go. The text goes to a new file beside the wanted one and is renamed over it, so
 * that a reader never sees half of it and a failure leaves the old one. A rename would replace a device
 * node or a pipe by a file (to whom may do so), so these are opened instead.
 */
#include "cli/out_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int out_file_open(struct out_file *f, const char *path)
{
    struct stat st;
    int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY;

    f->path = path;
    f->temp[0] = '\0';
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        f->fd = open(path, flags);
        return f->fd < 0 ? -errno : 0;
    }
    int n = snprintf(f->temp, sizeof f->temp, "%s.%ld.tmp", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof f->temp)
        return -ENAMETOOLONG;
    f->fd = open(f->temp, flags | O_CREAT | O_EXCL, 0666);
    return f->fd < 0 ? -errno : 0;
}

int out_file_close(struct out_file *f, int rc)
{
    if (f->fd >= 0 && close(f->fd) < 0 && !rc)
        rc = -errno;
    f->fd = -1;
    if (!f->temp[0])
        return rc;
    if (!rc && rename(f->temp, f->path) < 0)
        rc = -errno;
    if (rc)
        unlink(f->temp);
    return rc;
}
