/* The counters' JSON file: its members, and that it appears whole or not at all. */
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

#include "cli/stats.h"

static char directory[] = "/tmp/ringdown-stats-XXXXXX";
static char path[64];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/stats.json", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory); /* fails if a temporary file was left */
}

static char *slurp(void)
{
    static char text[65536];
    FILE *f = fopen(path, "r");

    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void members_carry_the_lists_names(void **state)
{
    struct stats s;

    (void)state;
    memset(&s, 0, sizeof s);
    s.tu_translated = 12;
    s.port_write = 18446744073709551615ull;
    s.callout[CALLOUT_popf] = 3;
    s.exception[14] = 7;
    s.exit[EXIT_HALT] = 5;
    assert_int_equal(stats_write(path, &s, "max", 1234), 0);
    const char *text = slurp();
    assert_non_null(strstr(text, "\"tu_translated\": 12,"));
    assert_non_null(strstr(text, "\"port_write\": 18446744073709551615,"));
    assert_non_null(strstr(text, "\"callout_popf\": 3"));
    assert_non_null(strstr(text, "\"PF\": 7"));
    assert_non_null(strstr(text, "\"halt\": 5"));
    assert_non_null(strstr(text, "\"cpu_model\": \"max\""));
    assert_null(strstr(text, "callout_pushf"));
    assert_string_equal(text + strlen(text) - 2, "}\n");
}

static void a_second_write_replaces_the_first(void **state)
{
    struct stats s;

    (void)state;
    memset(&s, 0, sizeof s);
    assert_int_equal(stats_write(path, &s, "one", 0), 0);
    assert_int_equal(stats_write(path, &s, "two", 0), 0);
    assert_non_null(strstr(slurp(), "\"two\""));
}

static void failure_is_an_errno_and_leaves_nothing(void **state)
{
    struct stats s;

    (void)state;
    memset(&s, 0, sizeof s);
    assert_int_equal(stats_write("/nonexistent/dir/stats.json", &s, "max", 0), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_carry_the_lists_names),
        cmocka_unit_test(a_second_write_replaces_the_first),
        cmocka_unit_test(failure_is_an_errno_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
