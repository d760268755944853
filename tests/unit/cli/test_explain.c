/* `ringdown explain`: its arguments, and what stands beside what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/types.h"
#include "cli/ccf_listing.h"
#include "cli/explain.h"
#include "platform/hosted/hosted.h"

#define MAX_LINES 400

struct page {
    unsigned count;
    char line[MAX_LINES][CCF_LINE_BYTES];
};

static struct explain_options options;
static struct page page;

static void keep_line(void *ctx, const char *text)
{
    struct page *p = ctx;

    if (p->count < MAX_LINES)
        snprintf(p->line[p->count++], CCF_LINE_BYTES, "%s", text);
}

/* Arguments with spaces between them. */
static bool parse(const char *args)
{
    static char copy[512];
    const char *argv[32] = { "explain" };
    int argc = 1;

    snprintf(copy, sizeof copy, "%s", args);
    for (char *p = strtok(copy, " "); p && argc < 32; p = strtok(NULL, " "))
        argv[argc++] = p;
    return explain_parse(&options, argc, argv);
}

static void explain(const char *args)
{
    page.count = 0;
    assert_true(parse(args));
    assert_true(explain_print(&options, keep_line, &page));
}

/* The first line that holds `text`, or NULL. */
static const char *line_with(const char *text)
{
    for (unsigned i = 0; i < page.count; i++)
        if (strstr(page.line[i], text))
            return page.line[i];
    return NULL;
}

static void ident_instructions_are_the_same_on_both_sides(void **state)
{
    static const struct {
        const char *hex, *text;
    } rows[] = {
        { "0d00000080", "or eax, 0x80000000" },
        { "01d8", "add eax, ebx" },
        { "0fc8", "bswap eax" },
        { "66b83412", "mov ax, 0x1234" },
        { "660fefc0", "pxor xmm0, xmm0" },
        { "d9c0", "fld st(0)" },
        { "0fa2", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        explain(rows[i].hex);
        const char *line = line_with("00100000  ");
        assert_non_null(line);
        if (!rows[i].text) { /* CPUID is not one of them */
            assert_null(strstr(line, "IDENT"));
            continue;
        }
        assert_non_null(strstr(line, "IDENT"));
        const char *right = strstr(line, "| ");
        assert_non_null(right);
        assert_string_equal(right + 2, rows[i].text);
        assert_non_null(strstr(line, rows[i].text));
    }
}

static void callouts_appear_by_name(void **state)
{
    static const struct {
        const char *args, *name;
    } rows[] = {
        { "f4", "call callout_hlt" },
        { "cf", "call callout_iret" },
        { "0f20c0", "call callout_mov_from_cr" },
        { "0f22c0", "call callout_mov_to_cr" },
        { "0f01e0", "call callout_smsw" },
        { "cd80 --cpl 3", "call callout_int_n" },
        { "f3a5", "call callout_movs" },
        { "0f0b", "call callout_raise_ud" },
        { "fa --cpl 3", "call callout_cli" },
        { "e460 --mode 16", "call callout_in" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        explain(rows[i].args);
        assert_non_null(line_with(rows[i].name));
        assert_non_null(line_with("callout "));
        assert_non_null(line_with("1 callout"));
    }
}

static void cli_in_ring_0_is_lowered(void **state)
{
    (void)state;
    explain("fa");
    assert_non_null(line_with("lowered | mov [vcpu.eflags_if], 0"));
    assert_non_null(line_with("1 instruction: 0 IDENT, 1 lowered, 0 callouts"));
}

static void branches_name_the_guest_address_they_lead_to(void **state)
{
    (void)state;
    explain("7405 90 ebfb --eip c0100000");
    assert_non_null(line_with("je -> 0xc0100007"));
    assert_non_null(line_with("jmp -> 0xc0100000"));
    explain("e8fb1f0000");
    assert_non_null(line_with("call -> 0x00102000"));
}

static void memory_goes_by_the_tables_and_slow_paths_are_shown_on_request(void **state)
{
    (void)state;
    explain("8b4308");
    assert_non_null(line_with("mov rcx, loads[r9*8]"));
    assert_non_null(line_with("jrcxz slow"));
    assert_non_null(line_with("mov eax, dword ptr [rcx + r8]"));
    assert_null(line_with("mem_slow"));
    explain("894308 --cold");
    assert_non_null(line_with("mov rcx, stores[r9*8]"));
    assert_non_null(line_with("call mem_slow"));
    assert_non_null(line_with("call mem_done"));
    assert_non_null(line_with("exit (POLL)"));
}

static void the_bar_stands_in_one_column(void **state)
{
    size_t at = 0;

    (void)state;
    explain("0f20c0 c7842480000000efbeadde 8b4308 50 5b");
    for (unsigned i = 0; i < page.count; i++) {
        const char *bar = strstr(page.line[i], " | ");
        if (!bar)
            continue;
        size_t here = (size_t)(bar - page.line[i]);
        assert_true(!at || at == here);
        at = here;
    }
    assert_true(at > 0);
}

static void code_goes_on_in_another_unit_after_a_transfer(void **state)
{
    (void)state;
    explain("c3 f4 90");
    assert_non_null(line_with("unit 3: EIP 0x00100002"));
    explain("0f04 9090"); /* no instruction: the rest is not looked at */
    assert_non_null(line_with("call callout_raise_ud"));
}

static void bad_input_is_refused_in_a_line(void **state)
{
    static const char *const bad[] = {
        "",
        "zz",
        "8b4",
        "90 --mode 12",
        "90 --cpl 1",
        "90 --eip xyz",
        "90 --eip",
        "90 --nonsense",
        "90 --cpu 8086",
        "/nonexistent/file",
        "9090 --eip ffffffff",
        "9090 --mode 16 --eip ffff",
        "90 --host none",
        "90 --mem none",
        "/",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(parse(bad[i]));
        assert_true(strlen(options.error) > 10);
        assert_null(strchr(options.error, '\n'));
    }
    assert_true(parse("8b"));
    page.count = 0;
    assert_false(explain_print(&options, keep_line, &page));
    assert_non_null(strstr(options.error, "cut off"));
    assert_int_equal(page.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ident_instructions_are_the_same_on_both_sides),
        cmocka_unit_test(callouts_appear_by_name),
        cmocka_unit_test(cli_in_ring_0_is_lowered),
        cmocka_unit_test(branches_name_the_guest_address_they_lead_to),
        cmocka_unit_test(memory_goes_by_the_tables_and_slow_paths_are_shown_on_request),
        cmocka_unit_test(the_bar_stands_in_one_column),
        cmocka_unit_test(code_goes_on_in_another_unit_after_a_transfer),
        cmocka_unit_test(bad_input_is_refused_in_a_line),
    };

    if (hosted_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
