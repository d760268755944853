/*
 * The user's terminal: raw while the guest owns it, as it was on every way out.
 *
 * Output processing stays on, so that a bare line feed still starts a new line. The
 * saved settings are put back from hosted_finish(), from atexit and from the fatal
 * handlers; tcsetattr and fcntl may be called from a handler. O_ASYNC is a flag of the
 * open file, which our parent shares, so it is put back as well.
 */
#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

#define MAX_ASYNC (2u * HOSTED_CHARDEV_MAX)

static struct {
    struct termios saved, raw;
    bool is_raw;
} tty;

static struct {
    int fd, flags;
} async_fds[MAX_ASYNC];
static unsigned async_count;

void hosted_terminal_raw(bool keep_signals)
{
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &tty.saved) < 0)
        return;
    tty.raw = tty.saved;
    tty.raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    tty.raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | (keep_signals ? 0 : ISIG));
    tty.raw.c_cflag = (tty.raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    tty.raw.c_cc[VMIN] = 1;
    tty.raw.c_cc[VTIME] = 0;
    tty.is_raw = true; /* before: a signal may end us right after the change */
    tty.is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &tty.raw) == 0;
}

void hosted_terminal_resume(void)
{
    if (tty.is_raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &tty.raw);
}

/* A process in the background would be stopped by the attempt (SIGTTOU) and never end. */
void hosted_terminal_restore(void)
{
    sigset_t block, before;

    if (!tty.is_raw)
        return;
    tty.is_raw = false;
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    sigprocmask(SIG_BLOCK, &block, &before);
    tcsetattr(STDIN_FILENO, TCSANOW, &tty.saved);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

bool hosted_async(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || async_count == MAX_ASYNC || fcntl(fd, F_SETOWN, getpid()) < 0 ||
        fcntl(fd, F_SETFL, flags | O_ASYNC) < 0)
        return false;
    /* Files that know no O_ASYNC take the call and ignore the flag. */
    if (!(fcntl(fd, F_GETFL) & O_ASYNC))
        return false;
    async_fds[async_count].fd = fd;
    async_fds[async_count++].flags = flags;
    return true;
}

void hosted_async_forget(int fd)
{
    for (unsigned i = 0; i < async_count; i++)
        if (async_fds[i].fd == fd) {
            async_fds[i] = async_fds[--async_count];
            return;
        }
}

void hosted_async_undo(void)
{
    while (async_count) {
        async_count--;
        fcntl(async_fds[async_count].fd, F_SETFL, async_fds[async_count].flags);
    }
}
