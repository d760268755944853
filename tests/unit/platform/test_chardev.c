/* Character devices: order, back pressure, the escape, and terminals given back. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "platform/hosted/hosted.h"

#define MS 1000000ull

static struct vcpu *cpu;
static unsigned inputs;
static int stopped = -1;

static void on_input(void *ctx, unsigned port)
{
    (void)ctx, (void)port;
    inputs++;
}

static void on_stop(void *ctx, int sig)
{
    (void)ctx;
    stopped = sig;
}

/* A child whose standard input and output are `in` and `out` runs fn and exits with its result. */
static pid_t child_with(int in, int out, int (*fn)(void))
{
    pid_t pid = fork();

    if (pid == 0) {
        dup2(in, 0);
        dup2(out, 1);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        if (hosted_init() < 0)
            _exit(99);
        hosted_attach(cpu, 0);
        hosted_set_events(&(struct hosted_events){ .input = on_input, .stop = on_stop });
        int rc = fn();
        hosted_finish();
        _exit(rc);
    }
    return pid;
}

static int exit_status(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static size_t read_all(int fd, char *buf, size_t size)
{
    size_t used = 0;
    ssize_t n;

    while (used < size && ((n = read(fd, buf + used, size - used)) > 0 || (n < 0 && errno == EINTR)))
        if (n > 0)
            used += (size_t)n;
    return used;
}

/* ---- pipes ---------------------------------------------------------------------------- */

#define MUCH 300000u

static int write_much(void)
{
    struct hosted_chardev *d = hosted_chardev_stdio(0, true);

    for (unsigned i = 0; i < MUCH; i++) {
        uint8_t byte = (uint8_t)(i % 251);
        hosted_chardev_write(d, &byte, 1);
    }
    return 0;
}

static void output_to_a_slow_reader_is_complete(void **state)
{
    static char got[MUCH + 1];
    int out[2], in[2];

    (void)state;
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(in), 0);
    fcntl(out[1], F_SETFL, O_NONBLOCK); /* as another holder of the pipe may have made it */
    pid_t pid = child_with(in[0], out[1], write_much);
    close(out[1]);
    usleep(50000);
    size_t n = read_all(out[0], got, sizeof got);
    assert_int_equal(exit_status(pid), 0);
    assert_int_equal(n, MUCH);
    for (unsigned i = 0; i < MUCH; i++)
        assert_int_equal((uint8_t)got[i], i % 251);
    close(out[0]);
    close(in[0]);
    close(in[1]);
}

/* Copies until the end of input was seen and nothing more comes for a while. */
static int echo_slowly(void)
{
    struct hosted_chardev *d = hosted_chardev_stdio(0, false);
    uint64_t last = platform_clock_ns();
    uint8_t byte;

    while (platform_clock_ns() - last < 300 * MS) {
        platform_wait(cpu, platform_clock_ns() + 10 * MS);
        while (hosted_chardev_read(d, &byte, 1)) {
            hosted_chardev_write(d, &byte, 1);
            last = platform_clock_ns();
        }
    }
    return inputs ? 0 : 1;
}

static void input_from_a_pipe_is_complete(void **state)
{
    static char sent[50000], got[50001];
    int out[2], in[2];

    (void)state;
    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (char)(i * 13 + i / 256);
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(in), 0);
    pid_t pid = child_with(in[0], out[1], echo_slowly);
    close(out[1]);
    close(in[0]);
    assert_int_equal(write(in[1], sent, sizeof sent), sizeof sent);
    close(in[1]);
    size_t n = read_all(out[0], got, sizeof got);
    assert_int_equal(exit_status(pid), 0);
    assert_int_equal(n, sizeof sent);
    assert_memory_equal(got, sent, sizeof sent);
    close(out[0]);
}

static int write_to_nobody(void)
{
    struct hosted_chardev *d = hosted_chardev_stdio(0, true);

    for (int i = 0; i < 5000; i++)
        hosted_chardev_write(d, (const uint8_t *)"x", 1);
    return 7;
}

static void a_reader_that_leaves_does_not_kill_us(void **state)
{
    int out[2];

    (void)state;
    assert_int_equal(pipe(out), 0);
    close(out[0]);
    assert_int_equal(exit_status(child_with(STDIN_FILENO, out[1], write_to_nobody)), 7);
    close(out[1]);
}

/* ---- terminals -------------------------------------------------------------------------- */

static int open_terminal(int *slave)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);

    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    *slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(*slave >= 0);
    return master;
}

/* Collects what the guest gets until the escape ends it; answers its length. */
static int until_left(void)
{
    struct hosted_chardev *d = hosted_chardev_stdio(0, true);
    uint64_t start = platform_clock_ns();
    int count = 0;
    uint8_t byte;

    hosted_chardev_write(d, (const uint8_t *)"ready", 5);
    hosted_finish(); /* also gives the terminal back, so take it again below */
    hosted_chardev_close_all();
    d = hosted_chardev_stdio(0, true);
    while (stopped < 0 && platform_clock_ns() - start < 5000 * MS) {
        platform_wait(cpu, platform_clock_ns() + 1000 * MS);
        while (hosted_chardev_read(d, &byte, 1))
            count += byte == 1 ? 100 : 1;
    }
    return stopped == 0 ? count : 98;
}

static void control_a_x_leaves_and_control_a_twice_sends_it(void **state)
{
    struct termios before, after;
    char text[16] = "";
    int slave, master = open_terminal(&slave);

    (void)state;
    assert_int_equal(tcgetattr(slave, &before), 0);
    pid_t pid = child_with(slave, slave, until_left);
    assert_int_equal(read(master, text, 5), 5);
    assert_string_equal(text, "ready");
    usleep(50000);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_int_equal(after.c_lflag & (ECHO | ICANON | ISIG), 0);
    assert_int_equal(write(master, "ab\1\1c\3\1x", 8), 8); /* Ctrl-c goes to the guest */
    assert_int_equal(exit_status(pid), 3 + 100 + 1);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_int_equal(after.c_iflag, before.c_iflag);
    assert_int_equal(fcntl(slave, F_GETFL) & O_ASYNC, 0);
    close(slave);
    close(master);
}

static int spin_until_kicked(void)
{
    struct hosted_chardev *d = hosted_chardev_stdio(0, true);
    uint64_t start;
    uint8_t byte;

    cpu->run = 1;
    platform_poll(cpu);
    cpu->run = 1;
    hosted_chardev_write(d, (const uint8_t *)"ready", 5); /* reaches the pty by the flush timer */
    start = platform_clock_ns();
    while (platform_clock_ns() - start < 3000 * MS) {
        if (__atomic_load_n(&cpu->run, __ATOMIC_RELAXED))
            continue;
        cpu->run = 1;
        platform_poll(cpu);
        if (hosted_chardev_read(d, &byte, 1))
            return byte;
    }
    return 97;
}

static void a_typed_character_kicks_a_computing_guest(void **state)
{
    char text[16] = "";
    int slave, master = open_terminal(&slave);

    (void)state;
    pid_t pid = child_with(slave, slave, spin_until_kicked);
    assert_int_equal(read(master, text, 5), 5);
    assert_int_equal(write(master, "q", 1), 1);
    assert_int_equal(exit_status(pid), 'q');
    close(slave);
    close(master);
}

static int die_of_a_bug(void)
{
    hosted_chardev_stdio(0, true);
    close(2);
    abort();
}

static int die_of_a_fault(void)
{
    hosted_chardev_stdio(0, true);
    close(2);
    volatile int *volatile nowhere = NULL;
    *nowhere = 1;
    return 0;
}

static void the_terminal_survives_our_crash(void **state)
{
    struct termios before, after;
    int slave, master = open_terminal(&slave);

    (void)state;
    assert_int_equal(tcgetattr(slave, &before), 0);
    assert_true(exit_status(child_with(slave, slave, die_of_a_fault)) >= 1000);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_true(exit_status(child_with(slave, slave, die_of_a_bug)) >= 1000);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    close(slave);
    close(master);
}

/* ---- files, pseudo-terminals, sockets ----------------------------------------------------- */

static void file_output_is_written(void **state)
{
    char path[] = "/tmp/ringdown-chardev-XXXXXX", got[16] = "";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(hosted_init(), 0); /* before this, only children had handlers and timers */
    struct hosted_chardev *d = hosted_chardev_file(1, path);
    assert_non_null(d);
    hosted_chardev_write(d, (const uint8_t *)"hello", 5);
    hosted_chardev_close_all();
    assert_int_equal(read(fd, got, sizeof got), 5);
    assert_string_equal(got, "hello");
    close(fd);
    unlink(path);
    assert_null(hosted_chardev_file(1, "/nonexistent/x"));
    assert_non_null(strstr(hosted_error(), "/nonexistent/x"));
}

static void socket_clients_come_and_go(void **state)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    uint8_t got[16];

    (void)state;
    snprintf(addr.sun_path, sizeof addr.sun_path, "/tmp/ringdown-test-%d.sock", getpid());
    struct hosted_chardev *d = hosted_chardev_unix(2, addr.sun_path, true, false);
    assert_non_null(d);
    hosted_chardev_write(d, (const uint8_t *)"lost", 4); /* nobody is there: never blocks */
    for (int round = 0; round < 2; round++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
        assert_int_equal(write(fd, "hi", 2), 2);
        size_t n = 0;
        for (int i = 0; i < 100 && n < 2; i++) {
            platform_wait(cpu, platform_clock_ns() + 20 * MS);
            n += hosted_chardev_read(d, got + n, sizeof got - n);
        }
        assert_int_equal(n, 2);
        hosted_chardev_write(d, (const uint8_t *)"yo", 2);
        platform_poll(cpu);
        assert_int_equal(read(fd, got, sizeof got), 2);
        close(fd);
        platform_wait(cpu, platform_clock_ns() + 20 * MS);
    }
    hosted_chardev_close_all();
    assert_int_equal(access(addr.sun_path, F_OK), -1);
    assert_null(hosted_chardev_unix(2, addr.sun_path, false, false));
    assert_non_null(strstr(hosted_error(), addr.sun_path));
}

static void pty_works_with_and_without_a_reader(void **state)
{
    char line[128] = "", *name;
    int err[2], saved = dup(2);
    uint8_t byte = 0;

    (void)state;
    assert_int_equal(pipe(err), 0);
    dup2(err[1], 2);
    struct hosted_chardev *d = hosted_chardev_pty(3);
    dup2(saved, 2);
    assert_non_null(d);
    assert_true(read(err[0], line, sizeof line - 1) > 0);
    name = strstr(line, "/dev/pts/");
    assert_non_null(name);
    *strchr(name, ' ') = 0;
    for (int i = 0; i < 20000; i++)
        hosted_chardev_write(d, (const uint8_t *)"x", 1);
    int fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "k", 1), 1);
    while (read(fd, line, sizeof line) > 0) {
    }
    for (int i = 0; i < 100 && !byte; i++) {
        platform_wait(cpu, platform_clock_ns() + 20 * MS);
        hosted_chardev_read(d, &byte, 1);
    }
    assert_int_equal(byte, 'k');

    /* The terminal is open and nobody reads: the guest goes on, input still comes. */
    for (int i = 0; i < 200000; i++)
        hosted_chardev_write(d, (const uint8_t *)"y", 1);
    assert_int_equal(write(fd, "l", 1), 1);
    for (int i = 0; i < 100 && byte != 'l'; i++) {
        platform_wait(cpu, platform_clock_ns() + 20 * MS);
        hosted_chardev_read(d, &byte, 1);
    }
    assert_int_equal(byte, 'l');
    close(fd);
    platform_wait(cpu, platform_clock_ns() + 20 * MS);
    hosted_chardev_close_all();
    close(saved);
    close(err[0]);
    close(err[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_to_a_slow_reader_is_complete),
        cmocka_unit_test(input_from_a_pipe_is_complete),
        cmocka_unit_test(a_reader_that_leaves_does_not_kill_us),
        cmocka_unit_test(control_a_x_leaves_and_control_a_twice_sends_it),
        cmocka_unit_test(a_typed_character_kicks_a_computing_guest),
        cmocka_unit_test(the_terminal_survives_our_crash),
        cmocka_unit_test(file_output_is_written),
        cmocka_unit_test(socket_clients_come_and_go),
        cmocka_unit_test(pty_works_with_and_without_a_reader),
    };
    cpu = platform_reserve(sizeof *cpu);
    if (!cpu)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
