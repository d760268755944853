/* Guest RAM, reservations, code memory, windows, and our memcpy family. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/hosted/hosted.h"

#define RAM_BYTES (8u << 20)

/* Does a byte fault? Asked in a child, which dies of it. */
static bool faults(volatile uint8_t *p, bool write)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        if (write)
            *p = 1;
        else
            (void)*p;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void reservation_is_zero_guarded_and_zeroed_again(void **state)
{
    size_t bytes = 3u << 20;
    uint8_t *p = platform_reserve(bytes);

    (void)state;
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 4096, 0);
    assert_int_equal(p[0] | p[bytes - 1], 0);
    assert_true(faults(p - 1, false));
    assert_true(faults(p + bytes, false));
    memset(p, 0xa5, bytes);
    platform_zero(p + 100, bytes - 200);
    assert_int_equal(p[99], 0xa5);
    assert_int_equal(p[bytes - 100], 0xa5);
    for (size_t i = 100; i < bytes - 100; i += 97)
        assert_int_equal(p[i], 0);
    assert_int_equal(p[100] | p[bytes - 101], 0);
    memset(p, 0xa5, 4096);
    platform_zero(p + 1, 10);
    assert_int_equal(p[0] & p[11], 0xa5);
    assert_int_equal(p[1] | p[10], 0);
    platform_guard(p, 4096);
    assert_true(faults(p + 4095, false));
    assert_false(faults(p + 4096, true));
    platform_release(p, bytes);
}

static void absurd_reservations_are_refused(void **state)
{
    (void)state;
    assert_null(platform_reserve(SIZE_MAX));
    assert_null(platform_reserve(SIZE_MAX - 4096));
    assert_null(platform_reserve(0));
    assert_null(platform_reserve((size_t)1 << 60));
    assert_true(*hosted_error());
}

static void code_runs_from_the_executable_view(void **state)
{
    static const uint8_t code[] = { 0xb8, 0x2a, 0, 0, 0, 0xc3 }; /* mov eax, 42; ret */
    uint8_t *rw;
    const uint8_t *rx;
    int (*fn)(void);

    (void)state;
    assert_int_equal(platform_code_alloc(65536, &rw, &rx), 0);
    memcpy(rw + 4096, code, sizeof code);
    const uint8_t *at = rx + 4096;
    memcpy(&fn, &at, sizeof fn);
    assert_int_equal(fn(), 42);
    assert_true(rw == rx || faults((uint8_t *)(uintptr_t)rx, true));
    platform_code_free(65536, rw, rx);
}

static void windows_show_ram_where_they_are_told(void **state)
{
    uint8_t *ram = hosted_ram_new(RAM_BYTES);
    uint8_t *w = platform_window_new();

    (void)state;
    assert_non_null(ram);
    assert_non_null(w);
    assert_int_equal((uintptr_t)w % (2u << 20), 0);
    assert_true(faults(w, false));
    assert_int_equal(platform_window_map(w, 0xc0000000, 0x5000, 0x2000, true), 0);
    assert_int_equal(platform_window_map(w, 0xfffff000, 0x6000, 0x1000, false), 0);
    ram[0x6010] = 77;
    assert_int_equal(w[0xc0001010], 77);
    assert_int_equal(w[0xfffff010], 77);
    w[0xc0001010] = 78;
    assert_int_equal(w[0xfffff010], 78);
    assert_true(faults(w + 0xfffff010, true));
    assert_true(faults(w + 0x100000000, false));
    assert_true(faults(w - 1, false));
    assert_int_equal(platform_window_unmap(w, 0xc0000000, 0x1000), 0);
    assert_true(faults(w + 0xc0000000, false));
    assert_int_equal(w[0xc0001010], 78);
    assert_int_equal(platform_window_unmap(w, 0, 1ull << 32), 0);
    assert_true(faults(w + 0xc0001010, false));
    platform_window_free(w);
    hosted_ram_free();
}

static void windows_refuse_what_lies_outside(void **state)
{
    uint8_t *ram = hosted_ram_new(RAM_BYTES);
    uint8_t *w = platform_window_new();

    (void)state;
    assert_non_null(ram);
    assert_non_null(w);
    assert_true(platform_window_map(w, 0, RAM_BYTES, 0x1000, true) < 0);
    assert_true(platform_window_map(w, 0xfffff000, 0, 0x2000, true) < 0);
    assert_true(platform_window_unmap(w, 0xfffff000, 0x2000) < 0);
    assert_true(platform_window_vma_budget() > 1000);
    platform_window_free(w);
    hosted_ram_free();
}

static void cleared_ram_reads_zero(void **state)
{
    uint8_t *ram = hosted_ram_new(RAM_BYTES);

    (void)state;
    assert_non_null(ram);
    memset(ram, 0x11, RAM_BYTES);
    hosted_ram_clear();
    for (size_t i = 0; i < RAM_BYTES; i += 1021)
        assert_int_equal(ram[i], 0);
    hosted_ram_free();
}

/* Every length and overlap around the paths' borders, against a byte loop. */
static void memory_helpers_copy_every_length_and_overlap(void **state)
{
    static uint8_t a[1024], want[1024];
    void *(*volatile move)(void *, const void *, size_t) = memmove;
    void *(*volatile copy)(void *restrict, const void *restrict, size_t) = memcpy;
    void *(*volatile set)(void *, int, size_t) = memset;
    int (*volatile compare)(const void *, const void *, size_t) = memcmp;

    (void)state;
    for (size_t len = 0; len < 300; len++) {
        for (int shift = -40; shift <= 40; shift++) {
            for (size_t i = 0; i < sizeof a; i++)
                a[i] = want[i] = (uint8_t)(i * 31 + len);
            size_t from = 400, to = (size_t)(400 + shift);
            for (size_t i = 0; i < len; i++)
                want[to + i] = (uint8_t)((from + i) * 31 + len);
            move(a + to, a + from, len);
            for (size_t i = 0; i < sizeof a; i++)
                if (a[i] != want[i])
                    fail_msg("memmove of %zu by %d: byte %zu", len, shift, i);
        }
        copy(a + 1, want + 500, len);
        assert_int_equal(compare(a + 1, want + 500, len), 0);
        set(a + 3, 0x1c3, len);
        for (size_t i = 0; i < len; i++)
            assert_int_equal(a[3 + i], 0xc3);
        if (len) {
            memcpy(want, a, sizeof a);
            want[3 + len - 1]++;
            assert_true(compare(a + 3, want + 3, len) < 0);
            assert_true(compare(want + 3, a + 3, len) > 0);
            assert_int_equal(compare(a + 3, want + 3, len - 1), 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reservation_is_zero_guarded_and_zeroed_again),
        cmocka_unit_test(absurd_reservations_are_refused),
        cmocka_unit_test(code_runs_from_the_executable_view),
        cmocka_unit_test(windows_show_ram_where_they_are_told),
        cmocka_unit_test(windows_refuse_what_lies_outside),
        cmocka_unit_test(cleared_ram_reads_zero),
        cmocka_unit_test(memory_helpers_copy_every_length_and_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
