/* The monitor's command line: words and numbers, what each command does, and what it says of wrong ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "cli/hmp.h"
#include "monitor/monitor.h"
#include "platform/hosted/hosted.h"

#define RAM_BYTES (4u << 20)
#define MS        1000000ull

static uint8_t *ram;
static struct vm *vm;
static struct hmp *hmp;
static uint64_t now_ns;
static char said[1 << 20];
static size_t said_len;

static uint64_t clock_now(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static void on_write(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    for (size_t i = 0; i < len && said_len + 1 < sizeof said; i++)
        if (data[i] != '\r')
            said[said_len++] = (char)data[i];
    said[said_len] = 0;
}

static int make_vm(void **state)
{
    struct vm_config config = {
        .ram = ram,
        .ram_bytes = RAM_BYTES,
        .model = &cpu_models[0],
        .bt = { .tc_bytes = 128u << 10, .max_insns = 16 },
        .machine = { .ram_bytes = RAM_BYTES, .clock = { .now_ns = clock_now } },
    };
    const struct hmp_config on_test = { .write = on_write };

    (void)state;
    hosted_ram_clear();
    now_ns = 0;
    vm = vm_new(&config);
    hmp = hmp_new(&on_test);
    if (!vm || !hmp)
        return -1;
    hmp_attach(hmp, vm);
    return 0;
}

static int drop_vm(void **state)
{
    (void)state;
    hmp_free(hmp);
    vm_free(vm);
    return 0;
}

/* -> what is said to a line, without the prompt that ends it. */
static const char *say(const char *line)
{
    said_len = 0;
    said[0] = 0;
    hmp_input(hmp, (const uint8_t *)line, strlen(line));
    hmp_input(hmp, (const uint8_t *)"\n", 1);
    char *prompt = strstr(said, "(ringdown) ");
    assert_non_null(prompt);
    assert_string_equal(prompt, "(ringdown) ");
    *prompt = 0;
    return said;
}

static void answers(const char *line, const char *answer)
{
    if (strcmp(say(line), answer))
        fail_msg("%s: %s", line, said);
}

/* One line that holds `part`. */
static void complains(const char *line, const char *part)
{
    say(line);
    const char *end = strchr(said, '\n');
    if (!strstr(said, part) || !end || end[1])
        fail_msg("%s: %s", line, said);
}

static void put32(uint32_t pa, uint32_t value)
{
    memcpy(ram + pa, &value, 4);
}

/* ---- lines --------------------------------------------------------------------------------- */

static void wrong_lines_get_one_line(void **state)
{
    static const struct {
        const char *line, *part;
    } cases[] = {
        { "foo", "unknown command: 'foo'" },
        { "help foo", "unknown command: 'foo'" },
        { "info", "info registers" },
        { "info foo", "no 'foo'" },
        { "stop now", "(nothing)" },
        { "x", "ADDRESS" },
        { "x foo", "'foo' is no address" },
        { "x $foo", "'$foo' is no address" },
        { "x 0x", "'0x' is no address" },
        { "x 09", "'09' is no address" },
        { "x 1+", "'1+' is no address" },
        { "x 0x100000000", "cannot access memory at 0x100000000" },
        { "x /z 0", "'/z' is no format" },
        { "x /5z 0", "no format" },
        { "x /99999999999999999999b 0", "more than 65536 bytes" },
        { "xp /65537b 0", "use pmemsave" },
        { "pmemsave 0 1 /nonexistent/f", "No such file" },
        { "memsave 0x0 y f", "'y' is no size" },
        { "memsave y 1 f", "'y' is no address" },
        { "memsave 0xffffffff 2 f", "beyond 4 GiB" },
        { "pmemsave 1 0xffffffffffffffff f", "beyond 4 GiB" },
        { "screendump /nonexistent/f", "No such file" },
        { "sendkey foo", "unknown key: 'foo'" },
        { "sendkey ctrl-", "unknown key: ''" },
        { "sendkey -", "unknown key: ''" },
        { "sendkey a x", "'x' is no time" },
        { "sendkey a 60001", "no time" },
        { "sendkey a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a", "the most is 16" },
        { "screendump \"a", "unbalanced" },
        { "a b c d e f g h i j k l m n o p q", "too many words" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        complains(cases[i].line, cases[i].part);
    answers("", "");
    answers("   ", "");
    assert_int_equal(machine_stop_requested(vm->machine, NULL), STOP_NONE);
}

static void lines_are_edited_and_have_a_limit(void **state)
{
    char long_line[4000];
    (void)state;
    answers("infoo\x08 statusses\x7f\x7f\x7f", "VM status: running\n");
    answers("rubbish\x15info status", "VM status: running\n");
    memset(long_line, 'x', sizeof long_line - 1);
    long_line[sizeof long_line - 1] = 0;
    complains(long_line, "longer than");
    answers("info status\r", "VM status: running\n"); /* CR LF is one end */
    for (unsigned c = 0; c < 256; c++) {              /* any byte is survived */
        char line[] = { (char)c, 'z', '\n' };
        hmp_input(hmp, (const uint8_t *)line, sizeof line);
    }
}

static void help_lists_every_command(void **state)
{
    static const char *const names[] = {
        "help",    "info", "stop", "cont",    "quit",     "system_reset", "system_powerdown",
        "sendkey", "x ",   "xp ",  "memsave", "pmemsave", "screendump"
    };
    (void)state;
    say("help");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_non_null(strstr(said, names[i]));
    assert_non_null(strstr(say("help screendump"), "lines of text"));
    assert_non_null(strstr(say("? quit"), "end the program"));
}

static void without_a_machine_commands_say_so(void **state)
{
    (void)state;
    hmp_attach(hmp, NULL);
    complains("info status", "no machine");
    hmp_attach(hmp, vm);
}

/* ---- steering -------------------------------------------------------------------------------- */

static void stop_and_cont_pause_the_vm(void **state)
{
    (void)state;
    answers("stop", "");
    assert_true(vm->is_paused);
    answers("info status", "VM status: paused\n");
    answers("c", "");
    assert_false(vm->is_paused);
}

static void the_power_button_is_pressed(void **state)
{
    struct bus_request status = { .space = BUS_PORT, .size = 2, .addr = 0x600 };
    (void)state;
    machine_bus(vm->machine, &status);
    assert_int_equal(status.data & 0x100, 0);
    answers("system_powerdown", "");
    machine_bus(vm->machine, &status);
    assert_int_equal(status.data & 0x100, 0x100); /* PWRBTN_STS of PM1 */
}

static void quit_and_reset_ask_the_machine(void **state)
{
    (void)state;
    answers("system_reset", "");
    assert_int_equal(machine_stop_requested(vm->machine, NULL), STOP_RESET);
    machine_clear_stop(vm->machine);
    answers("q", "");
    assert_int_equal(machine_stop_requested(vm->machine, NULL), STOP_HOST);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void memory_is_shown_in_every_format(void **state)
{
    (void)state;
    put32(0x1000, 0x64636261);
    put32(0x1004, 0xfffffffe);
    answers("xp 0x1000", "00001000: 0x64636261\n");
    answers("xp/2xw 4096", "00001000: 0x64636261 0xfffffffe\n");
    answers("x /4xb 010000", "00001000: 0x61 0x62 0x63 0x64\n");
    answers("xp /2dw 0x1000", "00001000: 1684234849 -2\n");
    answers("xp /2uh 0x1004", "00001004: 65534 65535\n");
    answers("xp /1xg 0x1000", "00001000: 0xfffffffe64636261\n");
    answers("xp /5c 0x1000", "00001000: 'a' 'b' 'c' 'd' '\\xfe'\n");
    answers("xp /1oh 0x1000", "00001000: 061141\n");
    answers("xp /5xw 0x1000",
            "00001000: 0x64636261 0xfffffffe 0x00000000 0x00000000\n00001010: 0x00000000\n");
    answers("xp /0x 0", "");
    vm->cpu->gpr[EBX] = 0xffc;
    answers("x $ebx+8-4", "00001000: 0x64636261\n");
    answers("xp /1xw 0x70000000", "70000000: 0xffffffff\n"); /* nobody there */
}

static void code_is_listed(void **state)
{
    (void)state;
    memcpy(ram + 0x2000, "\x40\xc3\x0f\x0b", 4);
    vm->cpu->mode |= MODE_CODE32;
    say("x /3i 0x2000");
    assert_non_null(strstr(said, "0x00002000:  inc eax\n0x00002001:  ret"));
    assert_non_null(strstr(said, "0x00002002:  ud2\n"));
}

static void virtual_addresses_go_through_the_page_tables(void **state)
{
    (void)state;
    put32(0x3000, 0x4000 | 1); /* directory: table at 0x4000, not accessed, supervisor */
    put32(0x4000, 0x5000 | 1); /* VA 0 */
    put32(0x4008, 0x6000);     /* VA 0x2000: not present */
    put32(0x3004, 0x00000081); /* VA 4 MiB: a 4 MiB page at 0 */
    put32(0x5010, 0x12345678);
    vm->cpu->cr0 |= 0x80000001;
    vm->cpu->cr3 = 0x3000;
    vm->cpu->cr4 |= 0x10; /* PSE */
    answers("x 0x10", "00000010: 0x12345678\n");
    answers("x 0x405010", "00405010: 0x12345678\n");
    complains("x 0x2000", "cannot access memory at 0x00002000");
    answers("x /2xw 0xffc", "00000ffc: 0x00000000\nx: cannot access memory at 0x00001000\n");
    uint32_t pde;
    memcpy(&pde, ram + 0x3000, 4);
    assert_int_equal(pde, 0x4001); /* nothing was marked */
    /* PAE */
    vm->cpu->cr4 |= 0x20;
    vm->cpu->pdpte[0] = 0x7000 | 1;
    put32(0x7000, 0x8000 | 1);
    put32(0x7008, 0x00000081); /* VA 2 MiB: a 2 MiB page at 0 */
    put32(0x8000 + 8 * 3, 0x5000 | 1);
    answers("x 0x3010", "00003010: 0x12345678\n");
    answers("x 0x205010", "00205010: 0x12345678\n");
    complains("x 0x40000000", "cannot access");
}

static void memory_is_saved_whole_or_not_at_all(void **state)
{
    char path[64], line[128];
    uint8_t got[8193];
    (void)state;
    snprintf(path, sizeof path, "/tmp/ringdown test hmp-%ld", (long)getpid());
    for (unsigned i = 0; i < 8192; i++)
        ram[0x1800 + i] = (uint8_t)(i * 3);
    snprintf(line, sizeof line, "pmemsave 0x1800 8192 \"%s\"", path);
    answers(line, "");
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), 8192);
    fclose(f);
    assert_memory_equal(got, ram + 0x1800, 8192);
    unlink(path);
    vm->cpu->cr0 |= 0x80000001; /* an empty directory */
    snprintf(line, sizeof line, "memsave 0x1800 8192 \"%s\"", path);
    complains(line, "not mapped");
    assert_int_not_equal(access(path, F_OK), 0);
}

static void the_screen_is_text(void **state)
{
    char path[64], line[128], got[64] = "";
    struct bus_request req = { .space = BUS_MEM, .size = 1, .is_write = true };
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        req.addr = 0xb8000 + 160 + i * 2;
        req.data = (uint8_t) "hello"[i];
        machine_bus(vm->machine, &req);
    }
    assert_non_null(strstr(say("info screen"), "\nhello\n"));
    snprintf(path, sizeof path, "/tmp/ringdown-test-screen-%ld", (long)getpid());
    snprintf(line, sizeof line, "screendump %s", path);
    answers(line, "");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, 12, f), 12);
    fclose(f);
    unlink(path);
    assert_memory_equal(got, "\nhello\n\n\n\n\n\n", 12);
    assert_non_null(strstr(say("xp /1xb 0xb80a0"), "0x68"));
}

static void registers_are_shown(void **state)
{
    (void)state;
    vm->cpu->gpr[EDI] = 0xcafe0001;
    vm->cpu->eip = 0x123;
    say("info registers");
    assert_non_null(strstr(said, "EDI=cafe0001"));
    assert_non_null(strstr(said, "EIP=00000123"));
    assert_non_null(strstr(said, "CS =f000 ffff0000 0000ffff"));
    assert_non_null(strstr(said, "FCW=0040 FSW=0000 [ST=0] FTW=ff MXCSR=00001f80"));
    memcpy(vm->cpu->fpu + 160 + 16, "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20", 16);
    assert_non_null(strstr(say("info registers"), "XMM01=100f0e0d0c0b0a090807060504030201\n"));
}

/* ---- keys ------------------------------------------------------------------------------------ */

static uint32_t in8(uint16_t port)
{
    struct bus_request req = { .space = BUS_PORT, .size = 1, .addr = port };

    machine_bus(vm->machine, &req);
    return req.data;
}

/* Bytes that the guest reads (set 1, by the controller), as text; time goes on to `ms`. */
static const char *typed(unsigned ms)
{
    static char text[256];
    size_t n = 0;

    text[0] = 0;
    for (; now_ns <= ms * MS; now_ns += MS) {
        machine_run_timers(vm->machine);
        while ((in8(0x64) & 1) && n + 4 < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, "%02x ", in8(0x60));
    }
    return text;
}

static void keys_are_pressed_held_and_let_go(void **state)
{
    (void)state;
    answers("sendkey a", "");
    assert_string_equal(typed(98), "1e ");
    assert_string_equal(typed(102), "9e ");
    now_ns = 0;
    machine_run_timers(vm->machine);
}

static void combinations_are_let_go_backwards(void **state)
{
    (void)state;
    answers("sendkey ctrl-alt-delete 20", "");
    assert_string_equal(typed(19), "1d 38 e0 53 ");
    assert_string_equal(typed(30), "e0 d3 b8 9d ");
}

static void keys_follow_each_other(void **state)
{
    (void)state;
    answers("sendkey shift-x 5", "");
    answers("sendkey ret 5", "");
    answers("sendkey print 5", "");
    answers("sendkey < 5", "");
    assert_string_equal(typed(200), "2a 2d ad aa 1c 9c e0 2a e0 37 e0 b7 e0 aa 56 d6 ");
}

static void a_guest_that_reads_no_keys_is_not_swamped(void **state)
{
    unsigned refused = 0;
    (void)state;
    for (unsigned i = 0; i < 200; i++)
        refused += strstr(say("sendkey a 1"), "waiting") != NULL;
    assert_true(refused > 100);
    for (unsigned ms = 0; ms < 3000; ms++, now_ns += MS)
        machine_run_timers(vm->machine);
    /* What had room in its buffer is there, the rest comes when it reads. */
    const char *text = typed(10000);
    unsigned downs = 0;
    for (const char *p = text; (p = strstr(p, "1e ")); p++)
        downs++;
    assert_true(downs >= 32);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_vm, drop_vm)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(wrong_lines_get_one_line),
        TEST(lines_are_edited_and_have_a_limit),
        TEST(help_lists_every_command),
        TEST(without_a_machine_commands_say_so),
        TEST(stop_and_cont_pause_the_vm),
        TEST(the_power_button_is_pressed),
        TEST(quit_and_reset_ask_the_machine),
        TEST(memory_is_shown_in_every_format),
        TEST(code_is_listed),
        TEST(virtual_addresses_go_through_the_page_tables),
        TEST(memory_is_saved_whole_or_not_at_all),
        TEST(the_screen_is_text),
        TEST(registers_are_shown),
        TEST(keys_are_pressed_held_and_let_go),
        TEST(combinations_are_let_go_backwards),
        TEST(keys_follow_each_other),
        TEST(a_guest_that_reads_no_keys_is_not_swamped),
    };

    ram = hosted_ram_new(RAM_BYTES);
    if (!ram)
        return 1;
    return cmocka_run_group_tests_name("hmp", tests, NULL, NULL);
}
