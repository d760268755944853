/*
 * Log text: to stderr as it comes, or to a file through a buffer. The buffer is
 * written when it is full, when the guest idles, and on every way out, fatal ones
 * included.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

static struct {
    int fd; /* 0: stderr, unbuffered */
    size_t used;
    char buf[64 * 1024];
} logfile;

static void write_all(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = write(fd, text, len);
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = { .fd = fd, .events = POLLOUT };
            poll(&wait, 1, -1);
        } else if (!(n < 0 && errno == EINTR)) {
            return; /* a log that can't be written is no reason to stop */
        }
    }
}

int hosted_log_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0)
        return hosted_fail(-errno, "cannot write log file '%s': %s", path, strerror(errno));
    logfile.fd = fd;
    return 0;
}

void hosted_log_flush(void)
{
    if (!logfile.used)
        return;
    hosted_park();
    write_all(logfile.fd, logfile.buf, logfile.used);
    logfile.used = 0;
}

void platform_log_write(const char *text, size_t len)
{
    if (!logfile.fd) {
        hosted_park();
        write_all(STDERR_FILENO, text, len);
        return;
    }
    if (len > sizeof logfile.buf - logfile.used)
        hosted_log_flush();
    if (len > sizeof logfile.buf) {
        hosted_park();
        write_all(logfile.fd, text, len);
        return;
    }
    memcpy(logfile.buf + logfile.used, text, len);
    logfile.used += len;
}
