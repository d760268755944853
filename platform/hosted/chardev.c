/*
 * Character devices: the host ends of the guest's serial ports, and of the monitor.
 *
 * Output is gathered in a buffer and written when that is full, at poll points and
 * before the guest idles; the first byte into an empty buffer asks for a poll within
 * two milliseconds. A reader that does not keep up holds the guest back: output is
 * never dropped, except where nobody is connected, and while output waits, input is
 * still read, so that Ctrl-a x always works. A pseudo-terminal can be open without
 * anyone looking at it, so there patience is short, and what then does not fit is lost; likewise
 * with the monitor, whose reader must not be able to hold the guest.
 *
 * Input is gathered in a ring. When the ring is full, pipes and sockets are left
 * alone until the guest has read; a terminal is read on for the sake of the escape, and
 * what does not fit is lost, as on a real line.
 *
 * The monitor may share the terminal with a serial port. Ctrl-a c says to which of them input goes;
 * output of both appears.
 *
 * Descriptors that we were given (standard input and output) stay blocking, because
 * that flag would be seen by those who share them: poll() says when it is safe.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/hosted/hosted_internal.h"

#define OUT_BYTES        1024u
#define IN_BYTES         4096u /* a power of two */
#define FLUSH_NS         2000000ull
#define STOP_PATIENCE_MS 500 /* for a stuck reader once we are to end */
#define PTY_PATIENCE_MS  100 /* for a pty's reader, until it reads again */
#define CTRL_A           0x01u

enum chardev_kind {
    CHARDEV_FREE,
    CHARDEV_STDIO,
    CHARDEV_NULL,
    CHARDEV_FILE,
    CHARDEV_PTY,
    CHARDEV_UNIX,
    CHARDEV_MUXED
};

struct hosted_chardev {
    enum chardev_kind kind;
    unsigned port;
    int in_fd, out_fd, listen_fd; /* -1: none */
    bool mux, after_ctrl_a;
    bool is_tty;       /* input is a terminal: read it even when the ring is full     */
    bool is_async;     /* input raises SIGIO                                          */
    bool hung_up;      /* pty: nobody has the other end open                          */
    bool is_ignored;   /* pty: open, but its reader let our patience run out          */
    bool just_opened;  /* somebody is there who was not before                        */
    bool is_throttled; /* the ring was full when input was left in the descriptor    */
    unsigned in_head, in_tail;
    size_t out_used;
    uint8_t in[IN_BYTES], out[OUT_BYTES];
    char path[108];
};

static struct hosted_chardev devices[HOSTED_CHARDEV_MAX];
static bool mux_to_monitor; /* where input of the shared terminal goes */

static bool is_monitor(const struct hosted_chardev *d)
{
    return d->port == HOSTED_CHARDEV_MONITOR;
}

static struct hosted_chardev *device_new(enum chardev_kind kind, unsigned port)
{
    if (port >= HOSTED_CHARDEV_MAX || devices[port].kind != CHARDEV_FREE) {
        hosted_fail(-EBUSY, "serial port %u is in use", port);
        return NULL;
    }
    struct hosted_chardev *d = &devices[port];
    memset(d, 0, sizeof *d);
    d->kind = kind;
    d->port = port;
    d->in_fd = d->out_fd = d->listen_fd = -1;
    return d;
}

/* ---- input ------------------------------------------------------------------------- */

static unsigned in_room(const struct hosted_chardev *d)
{
    return IN_BYTES - (d->in_head - d->in_tail);
}

static void in_put(struct hosted_chardev *d, uint8_t byte)
{
    if (d->mux && mux_to_monitor)
        d = &devices[HOSTED_CHARDEV_MONITOR];
    if (in_room(d))
        d->in[d->in_head++ % IN_BYTES] = byte;
}

static void print_escapes(void)
{
    static const char text[] = "\r\n"
                               "C-a h    show this\r\n"
                               "C-a x    leave\r\n"
                               "C-a c    between the guest and the monitor\r\n"
                               "C-a C-a  send C-a to the guest\r\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
}

static void switch_mux(void)
{
    if (devices[HOSTED_CHARDEV_MONITOR].kind != CHARDEV_MUXED)
        return;
    mux_to_monitor = !mux_to_monitor;
    devices[HOSTED_CHARDEV_MONITOR].just_opened = mux_to_monitor;
}

static void in_escaped(struct hosted_chardev *d, uint8_t byte)
{
    switch (byte) {
    case 'x':
        hosted_request_stop(0);
        break;
    case 'c':
        switch_mux();
        break;
    case 'h':
    case '?':
        print_escapes();
        break;
    case CTRL_A:
        in_put(d, CTRL_A);
        break;
    default: /* not ours: the guest gets neither, as in QEMU */
        break;
    }
}

static void in_take(struct hosted_chardev *d, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (d->after_ctrl_a) {
            d->after_ctrl_a = false;
            in_escaped(d, data[i]);
        } else if (d->mux && data[i] == CTRL_A) {
            d->after_ctrl_a = true;
        } else {
            in_put(d, data[i]);
        }
    }
}

static void unix_disconnect(struct hosted_chardev *d)
{
    if (d->in_fd >= 0) {
        hosted_async_forget(d->in_fd);
        close(d->in_fd);
    }
    d->in_fd = d->out_fd = -1;
    d->out_used = 0;
    if (is_monitor(d))
        d->in_tail = d->in_head; /* commands of somebody who does not wait for their answers */
    hosted_event_io = 1; /* the next one may be waiting, and has been announced already */
    hosted_kick();
}

static void in_ended(struct hosted_chardev *d)
{
    if (d->kind == CHARDEV_UNIX)
        unix_disconnect(d);
    else if (d->kind == CHARDEV_PTY)
        d->hung_up = true;
    else
        d->in_fd = -1; /* standard input is at its end; it stays open for others */
}

static bool is_readable(int fd, short *revents)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    int n = poll(&p, 1, 0);
    *revents = p.revents;
    return n > 0 && (p.revents & (POLLIN | POLLHUP | POLLERR));
}

static void accept_client(struct hosted_chardev *d)
{
    if (d->listen_fd < 0 || d->in_fd >= 0)
        return;
    int fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    d->in_fd = d->out_fd = fd;
    d->is_async = hosted_async(fd);
    d->just_opened = true;
}

static void pump(struct hosted_chardev *d)
{
    uint8_t buf[512];
    short revents;
    bool was_hung_up = d->hung_up;

    accept_client(d);
    while (d->in_fd >= 0) {
        size_t room = d->is_tty ? sizeof buf : in_room(d);
        d->is_throttled = !room;
        if (!room || !is_readable(d->in_fd, &revents))
            break;
        ssize_t n = read(d->in_fd, buf, room < sizeof buf ? room : sizeof buf);
        if (n > 0) {
            d->hung_up = false;
            in_take(d, buf, (size_t)n);
        } else if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
            break;
        } else {
            in_ended(d);
            break;
        }
    }
    if (d->kind == CHARDEV_PTY && d->hung_up) {
        is_readable(d->in_fd, &revents);
        d->hung_up = revents & POLLHUP;
    }
    d->just_opened |= was_hung_up && !d->hung_up;
}

void hosted_chardev_pump(void)
{
    hosted_park();
    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++) {
        struct hosted_chardev *d = &devices[i];
        if (d->kind == CHARDEV_FREE)
            continue;
        pump(d);
        if (d->just_opened)
            hosted_opened(d->port);
        d->just_opened = false;
        if (d->in_head != d->in_tail)
            hosted_input_ready(d->port);
    }
}

size_t hosted_chardev_read(void *chardev, uint8_t *data, size_t len)
{
    struct hosted_chardev *d = chardev;
    size_t n = 0;

    while (n < len && d->in_tail != d->in_head)
        data[n++] = d->in[d->in_tail++ % IN_BYTES];
    if (d->is_throttled && in_room(d) >= IN_BYTES / 2) {
        d->is_throttled = false;
        hosted_event_io = 1;
        hosted_kick();
    }
    return n;
}

unsigned hosted_chardev_pollfds(struct pollfd *fds)
{
    unsigned n = 0;

    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++) {
        const struct hosted_chardev *d = &devices[i];
        if (d->kind == CHARDEV_FREE)
            continue;
        if (d->listen_fd >= 0 && d->in_fd < 0)
            fds[n++] = (struct pollfd){ .fd = d->listen_fd, .events = POLLIN };
        else if (d->in_fd >= 0 && !d->hung_up && (d->is_tty || in_room(d)))
            fds[n++] = (struct pollfd){ .fd = d->in_fd, .events = POLLIN };
    }
    return n;
}

bool hosted_chardev_needs_look(void)
{
    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++) {
        const struct hosted_chardev *d = &devices[i];
        if (d->kind != CHARDEV_FREE && d->in_fd >= 0 && (!d->is_async || d->hung_up))
            return true;
    }
    return false;
}

/* ---- output ------------------------------------------------------------------------- */

/* How long the reader of d may take, in milliseconds; -1: as long as it likes. */
static int patience(const struct hosted_chardev *d, uint64_t since)
{
    if (d->kind == CHARDEV_PTY || is_monitor(d)) {
        uint64_t waited_ms = (platform_clock_ns() - since) / 1000000u;
        return d->is_ignored || waited_ms >= PTY_PATIENCE_MS ? 0 : (int)(PTY_PATIENCE_MS - waited_ms);
    }
    return hosted_event_stop ? STOP_PATIENCE_MS : -1;
}

/* Wait until output is possible; input is served meanwhile. false: give up. */
static bool wait_writable(struct hosted_chardev *d)
{
    uint64_t since = platform_clock_ns();

    while (d->out_fd >= 0) { /* a client may leave while we wait */
        struct pollfd fds[1 + HOSTED_POLL_MAX];
        fds[0] = (struct pollfd){ .fd = d->out_fd, .events = POLLOUT };
        unsigned count = 1 + hosted_chardev_pollfds(fds + 1);
        int n = poll(fds, count, patience(d, since));
        if (n > 0 && (fds[0].revents & POLLOUT)) {
            d->is_ignored = false;
            return true;
        }
        if (n > 0 && fds[0].revents)
            return false; /* hung up */
        if (n == 0) {
            d->is_ignored = true;
            return false;
        }
        if (n > 0) {
            for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++)
                if (devices[i].kind != CHARDEV_FREE)
                    pump(&devices[i]);
            hosted_event_io = 1; /* the guest is told at the next poll */
        }
    }
    return false;
}

/* A full disk, a limit: said once, since the device takes no more after it. A reader who has left, or an
 * output that was closed from the start, wants nothing. */
static void complain_of_output(const struct hosted_chardev *d, int error)
{
    char line[160];

    if (error == EPIPE || error == EBADF || (d->kind != CHARDEV_FILE && d->kind != CHARDEV_STDIO))
        return;
    int n = fmt_format(line, sizeof line, "ringdown: warning: from here on, output to %s is lost: %s\n",
                       d->kind == CHARDEV_FILE ? "the file of a port" : "standard output", strerror(error));
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
}

static void output_lost(struct hosted_chardev *d)
{
    if (d->kind == CHARDEV_UNIX)
        unix_disconnect(d);
    else if (d->kind != CHARDEV_PTY && !is_monitor(d))
        d->out_fd = -1; /* the reader has gone: from here on, nobody listens */
    d->out_used = 0;
}

static void flush(struct hosted_chardev *d)
{
    size_t done = 0;

    hosted_park();
    while (done < d->out_used && d->out_fd >= 0) {
        if (d->kind != CHARDEV_FILE && !wait_writable(d)) {
            output_lost(d);
            return;
        }
        ssize_t n = write(d->out_fd, d->out + done, d->out_used - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (!(n < 0 && (errno == EINTR || errno == EAGAIN))) {
            complain_of_output(d, errno);
            output_lost(d);
            return;
        }
    }
    d->out_used = 0;
}

void hosted_chardev_flush(void)
{
    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++)
        if (devices[i].kind != CHARDEV_FREE && devices[i].out_used)
            flush(&devices[i]);
}

void hosted_chardev_last_words(void)
{
    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++) {
        struct hosted_chardev *d = &devices[i];
        struct pollfd p = { .fd = d->out_fd, .events = POLLOUT };
        if (d->kind != CHARDEV_FREE && d->out_used && d->out_fd >= 0 && poll(&p, 1, 0) > 0) {
            ssize_t n = write(d->out_fd, d->out, d->out_used);
            (void)n;
            d->out_used = 0;
        }
    }
}

static struct hosted_chardev *stdio_device(void)
{
    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++)
        if (devices[i].kind == CHARDEV_STDIO)
            return &devices[i];
    return NULL;
}

void hosted_chardev_write(void *chardev, const uint8_t *data, size_t len)
{
    struct hosted_chardev *d = chardev;

    if (d->kind == CHARDEV_MUXED)
        d = stdio_device();
    if (!d || d->out_fd < 0)
        return;
    if (!d->out_used && len)
        hosted_timer_arm(platform_clock_ns() + FLUSH_NS);
    for (size_t i = 0; i < len; i++) {
        if (d->out_used == OUT_BYTES)
            flush(d);
        d->out[d->out_used++] = data[i];
    }
}

/* ---- kinds ---------------------------------------------------------------------------- */

struct hosted_chardev *hosted_chardev_null(unsigned port)
{
    return device_new(CHARDEV_NULL, port);
}

struct hosted_chardev *hosted_chardev_stdio(unsigned port, bool mux)
{
    if (stdio_device()) {
        hosted_fail(-EBUSY, "only one serial port or the monitor can have stdio");
        return NULL;
    }
    struct hosted_chardev *d = device_new(CHARDEV_STDIO, port);
    if (!d)
        return NULL;
    d->in_fd = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
    d->out_fd = fcntl(STDOUT_FILENO, F_GETFD) < 0 ? -1 : STDOUT_FILENO;
    d->mux = mux;
    d->is_tty = isatty(STDIN_FILENO);
    if (d->in_fd >= 0)
        d->is_async = hosted_async(d->in_fd);
    hosted_terminal_raw(!mux);
    d->just_opened = true;
    hosted_event_io = 1; /* what was typed ahead raises no signal */
    return d;
}

struct hosted_chardev *hosted_chardev_muxed(unsigned port)
{
    const struct hosted_chardev *shared = stdio_device();

    mux_to_monitor = false;
    if (!shared || !shared->mux) {
        hosted_fail(-ENOTTY, "there is no terminal to share with the monitor");
        return NULL;
    }
    return device_new(CHARDEV_MUXED, port);
}

struct hosted_chardev *hosted_chardev_file(unsigned port, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0) {
        hosted_fail(-errno, "cannot write serial output to '%s': %s", path, strerror(errno));
        return NULL;
    }
    struct hosted_chardev *d = device_new(CHARDEV_FILE, port);
    if (d)
        d->out_fd = fd;
    else
        close(fd);
    return d;
}

struct hosted_chardev *hosted_chardev_pty(unsigned port)
{
    char name[64], line[128];
    struct termios raw;
    int slave;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof name) != 0)
        goto out_fail;
    /* Raw from the start: an echo would come back to the guest as input. */
    slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        goto out_fail;
    if (tcgetattr(slave, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(slave, TCSANOW, &raw);
    }
    close(slave);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);

    struct hosted_chardev *d = device_new(CHARDEV_PTY, port);
    if (!d) {
        close(fd);
        return NULL;
    }
    d->in_fd = d->out_fd = fd;
    d->hung_up = true;
    d->is_async = hosted_async(fd);
    char label[16] = "compat_monitor0";
    if (!is_monitor(d))
        fmt_format(label, sizeof label, "serial%u", port);
    int n = fmt_format(line, sizeof line, "char device redirected to %s (label %s)\n", name, label);
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
    return d;

out_fail:
    hosted_fail(-errno, "cannot make a pseudo-terminal: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return NULL;
}

static int unix_listen(struct hosted_chardev *d, int fd, const struct sockaddr_un *addr, bool wait)
{
    struct stat st;

    /* A socket left by an earlier run is in the way; anything else is not ours to remove. */
    if (lstat(d->path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(d->path);
    if (bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 || listen(fd, 1) < 0)
        return -errno;
    d->listen_fd = fd;
    if (wait) {
        char line[192];
        int n = fmt_format(line, sizeof line, "ringdown: waiting for a connection on unix:%s\n", d->path);
        ssize_t written = write(STDERR_FILENO, line, (size_t)n);
        (void)written;
        while (d->in_fd < 0 && !hosted_event_stop) {
            struct pollfd p = { .fd = fd, .events = POLLIN };
            if (poll(&p, 1, -1) > 0)
                accept_client(d);
        }
        hosted_event_io = 1; /* somebody is there already */
    }
    hosted_async(fd);
    return 0;
}

struct hosted_chardev *hosted_chardev_unix(unsigned port, const char *path, bool is_server, bool wait)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    size_t len = strlen(path);

    if (len >= sizeof addr.sun_path) {
        hosted_fail(-ENAMETOOLONG, "socket path '%s' is longer than %zu bytes", path,
                    sizeof addr.sun_path - 1);
        return NULL;
    }
    struct hosted_chardev *d = device_new(CHARDEV_UNIX, port);
    if (!d)
        return NULL;
    memcpy(addr.sun_path, path, len + 1);
    memcpy(d->path, path, len + 1);
    int rc, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (is_server ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0) {
        rc = -errno;
        goto out_free;
    }
    if (is_server) {
        rc = unix_listen(d, fd, &addr, wait);
        if (rc < 0)
            goto out_close;
        return d;
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0) {
        rc = -errno;
        goto out_close;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    d->in_fd = d->out_fd = fd;
    d->is_async = hosted_async(fd);
    d->just_opened = true;
    hosted_event_io = 1;
    return d;

out_close:
    close(fd);
out_free:
    d->kind = CHARDEV_FREE;
    hosted_fail(rc, "cannot %s socket '%s': %s", is_server ? "listen on" : "connect to", path, strerror(-rc));
    return NULL;
}

void hosted_chardev_close_all(void)
{
    hosted_chardev_flush();
    hosted_terminal_restore();
    hosted_async_undo();
    for (unsigned i = 0; i < HOSTED_CHARDEV_MAX; i++) {
        struct hosted_chardev *d = &devices[i];
        if (d->kind == CHARDEV_UNIX && d->listen_fd >= 0) {
            close(d->listen_fd);
            unlink(d->path);
        }
        if (d->kind >= CHARDEV_FILE && d->kind != CHARDEV_MUXED && d->out_fd >= 0)
            close(d->out_fd);
        d->kind = CHARDEV_FREE;
    }
}
