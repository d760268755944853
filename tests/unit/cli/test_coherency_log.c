/* The coherency log's file: its lines, its bound, and that it appears whole or not at all. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/coherency_log.h"

static char directory[] = "/tmp/ringdown-coherency-XXXXXX";
static char path[64];
static struct vcpu cpu; /* its vector state is parked */

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/log.csv", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory); /* fails if a temporary file was left */
}

static const char *slurp(void)
{
    static char text[4096];
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static struct coherency_log_file *new_log(uint64_t most)
{
    int rc = 1;
    struct coherency_log_file *log = coherency_log_new(path, most, ACCEL_COHERENCY_ADAPTIVE, true, &rc);

    assert_non_null(log);
    assert_int_equal(rc, 0);
    return log;
}

static const struct coherency_event events[] = {
    { .ns = 5, .pa = 0x1000, .eip = 0xfffffff0, .len = 4, .cause = CAUSE_STORE, .policy = COHERENCY_PATCH, .patched = 2 },
    { .ns = 70, .pa = 0x234567890, .eip = 1, .len = 4096, .cause = CAUSE_POLICY, .policy = COHERENCY_CHECK, .dropped = 9 },
    { .ns = 71, .pa = 0, .eip = 0, .len = 1, .cause = CAUSE_STALE, .policy = COHERENCY_CHECK, .unchanged = 65535 },
};

static void an_event_is_a_line(void **state)
{
    struct coherency_log_file *log = new_log(100);

    (void)state;
    coherency_log_events(log, &cpu, events, 3, 0);
    assert_int_equal(coherency_log_close(log), 0);
    assert_string_equal(slurp(), "# ringdown coherency-log 1 policy=adaptive clock=insn\n"
                                 "ns,pa,len,eip,cause,policy,dropped,patched,parked,unchanged\n"
                                 "5,0x00001000,4,0xfffffff0,store,patch,0,2,0,0\n"
                                 "70,0x234567890,4096,0x00000001,policy,check,9,0,0,0\n"
                                 "71,0x00000000,1,0x00000000,stale,check,0,0,0,65535\n"
                                 "# end events=3 written=3 lost=0\n");
}

static void what_finds_no_room_is_counted(void **state)
{
    struct coherency_log_file *log = new_log(2);

    (void)state;
    coherency_log_events(log, &cpu, events, 1, 40);
    coherency_log_events(log, &cpu, events + 1, 2, 0);
    assert_int_equal(coherency_log_close(log), 0);
    assert_non_null(strstr(slurp(), "\n70,"));
    assert_null(strstr(slurp(), "\n71,"));
    assert_non_null(strstr(slurp(), "\n# end events=43 written=2 lost=40\n"));
}

static void time_goes_on_after_a_reset(void **state)
{
    struct coherency_log_file *log = new_log(100);

    (void)state;
    coherency_log_events(log, &cpu, events, 3, 0);
    coherency_log_power_off(log);
    coherency_log_events(log, &cpu, events, 1, 0);
    assert_int_equal(coherency_log_close(log), 0);
    assert_non_null(strstr(slurp(), "\n76,0x00001000,"));
}

static void a_file_that_cannot_be_written_is_an_error(void **state)
{
    struct coherency_log_file *log;
    int rc = 0;

    (void)state;
    assert_null(coherency_log_new("/nosuch/dir/log", 1, ACCEL_COHERENCY_TRACE, false, &rc));
    assert_int_equal(rc, -ENOENT);
    log = coherency_log_new("/dev/full", 100, ACCEL_COHERENCY_TRACE, false, &rc);
    assert_non_null(log);
    coherency_log_events(log, &cpu, events, 3, 0);
    assert_int_equal(coherency_log_close(log), -ENOSPC);
    assert_int_equal(coherency_log_close(NULL), 0);
}

static void until_it_ends_the_old_file_stays(void **state)
{
    struct coherency_log_file *log = new_log(100);

    (void)state;
    coherency_log_events(log, &cpu, events, 1, 0);
    assert_non_null(strstr(slurp(), "\n76,")); /* of the test before */
    assert_int_equal(coherency_log_close(log), 0);
    assert_null(strstr(slurp(), "\n76,"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_a_line),
        cmocka_unit_test(what_finds_no_room_is_counted),
        cmocka_unit_test(time_goes_on_after_a_reset),
        cmocka_unit_test(until_it_ends_the_old_file_stays),
        cmocka_unit_test(a_file_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
