/* Whole files in memory: mapped where that can be done, read where only reading tells their size. */
#include "cli/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX  (2ull << 30)
#define READ_STEP (1u << 20)

/* Pipes and the like, whose size only reading tells. */
static int read_stream(struct file_image *f, int fd)
{
    uint8_t *data = NULL;
    size_t used = 0, room = 0;

    for (;;) {
        if (room - used < READ_STEP) {
            room = room ? room * 2 : 4 * READ_STEP;
            uint8_t *grown = room > FILE_MAX ? NULL : realloc(data, room);
            if (!grown) {
                free(data);
                return room > FILE_MAX ? EFBIG : ENOMEM;
            }
            data = grown;
        }
        ssize_t n = read(fd, data + used, room - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int err = errno;
            free(data);
            return err;
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    *f = (struct file_image){ .data = data, .bytes = used };
    return 0;
}

static int map_file(struct file_image *f, int fd, uint64_t bytes)
{
    if (bytes > FILE_MAX)
        return EFBIG;
    void *p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return errno;
    *f = (struct file_image){ .data = p, .bytes = bytes, .is_mapped = true };
    return 0;
}

int file_open(struct file_image *f, const char *path)
{
    struct stat st;
    int err, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    memset(f, 0, sizeof *f);
    if (fd < 0)
        return errno;
    if (fstat(fd, &st) < 0)
        err = errno;
    else if (S_ISDIR(st.st_mode))
        err = EISDIR;
    else if (S_ISREG(st.st_mode) && st.st_size > 0)
        err = map_file(f, fd, (uint64_t)st.st_size);
    else
        err = read_stream(f, fd);
    close(fd);
    if (!err && f->bytes == 0) {
        free((void *)(uintptr_t)f->data);
        f->data = NULL;
    }
    return err;
}

void file_close(struct file_image *f)
{
    if (f->is_mapped)
        munmap((void *)(uintptr_t)f->data, f->bytes);
    else
        free((void *)(uintptr_t)f->data);
    memset(f, 0, sizeof *f);
}
