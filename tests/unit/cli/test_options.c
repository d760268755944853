/*
 * The command line: tables of arguments and what they make, or the words the error
 * must hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "cli/options.h"

#define MAX_ARGS 24

/* Split at blanks; "ringdown" comes first. The copy lives as long as the static buffer. */
static int split(const char *line, const char *argv[MAX_ARGS])
{
    static char copy[512];
    int argc = 0;

    argv[argc++] = "ringdown";
    assert_true(strlen(line) < sizeof copy);
    strcpy(copy, line);
    for (char *p = strtok(copy, " "); p; p = strtok(NULL, " ")) {
        assert_true(argc < MAX_ARGS);
        argv[argc++] = p;
    }
    return argc;
}

static struct options o;

static bool parse(const char *line)
{
    const char *argv[MAX_ARGS];
    int argc = split(line, argv);

    return options_parse(&o, argc, argv);
}

static void good(const char *line)
{
    if (!parse(line))
        fail_msg("'%s' was refused: %s", line, o.error);
}

static void defaults_are_those_of_the_help(void **state)
{
    (void)state;
    good("-kernel k");
    assert_int_equal(o.action, ACTION_RUN);
    assert_string_equal(o.kernel, "k");
    assert_null(o.initrd);
    assert_int_equal(o.ram_bytes, 128u << 20);
    assert_int_equal(o.tc_bytes, 32u << 20);
    good("-kernel k -m 256M");
    assert_int_equal(o.tc_bytes, 64u << 20);
    good("-kernel k -m 1G");
    assert_int_equal(o.tc_bytes, 256u << 20);
    good("-kernel k -m 3G");
    assert_int_equal(o.tc_bytes, 512u << 20);
    good("-kernel k");
    assert_true(o.chain && o.reuse);
    assert_false(o.verify || o.baseline || o.clock_insn || o.no_reboot);
    assert_int_equal(o.mem, ACCEL_MEM_ADAPTIVE);
    assert_int_equal(o.tu_insns, 16);
    assert_int_equal(o.debug_exit_size, 0);
    assert_int_equal(o.serial_count, 1);
    assert_int_equal(o.serial[0].kind, SERIAL_STDIO);
    assert_true(o.display_by_default);
}

static void sizes_have_units(void **state)
{
    static const struct {
        const char *line;
        uint64_t bytes;
    } cases[] = {
        { "-kernel k -m 64M", 64u << 20 },        { "-kernel k -m 256", 256u << 20 },
        { "-kernel k -m 1G", 1u << 30 },          { "-kernel k -m 65536k", 64u << 20 },
        { "-kernel k -m size=512M", 512u << 20 }, { "-kernel k -m 2", 2u << 20 },
        { "-kernel k -m 3G", 3ull << 30 },        { "-kernel k --m 67108864b", 64u << 20 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        good(cases[i].line);
        assert_int_equal(o.ram_bytes, cases[i].bytes);
    }
}

static void accel_properties_are_read(void **state)
{
    (void)state;
    good("-kernel k -accel bt,tc-size=256K,chain=off,reuse=off,mem=window,host=baseline,verify=on,tu-insns=1,"
         "clock=insn,stats=a,,b.json,coherency=trace,inline=off");
    assert_int_equal(o.tc_bytes, 256u << 10);
    assert_false(o.chain || o.reuse);
    assert_true(o.verify && o.baseline && o.clock_insn);
    assert_int_equal(o.mem, ACCEL_MEM_WINDOW);
    assert_int_equal(o.tu_insns, 1);
    assert_string_equal(o.stats_file, "a,b.json");
    assert_false(o.inline_system);
    good("-kernel k");
    assert_int_equal(o.coherency, ACCEL_COHERENCY_ADAPTIVE);
    good("-kernel k -accel bt -accel bt,mem=checked,host=auto,clock=host,coherency=patch -machine pc,accel=bt -M type=pc");
    assert_true(o.inline_system);
    assert_int_equal(o.mem, ACCEL_MEM_CHECKED);
    assert_int_equal(o.coherency, ACCEL_COHERENCY_PATCH);
}

static void ring1_hands_its_properties_on(void **state)
{
    (void)state;
    good("-kernel k -accel ring1,host=qemu:EPYC,mem=checked,image=/tmp/i,chain=off");
    assert_true(o.ring1);
    assert_string_equal(o.ring1_host, "qemu:EPYC");
    assert_string_equal(o.ring1_image, "/tmp/i");
    assert_string_equal(o.ring1_accel, "bt,mem=checked,chain=off");
    good("-kernel k -accel bt,mem=checked");
    assert_false(o.ring1);
}

static void what_shows_the_inside_is_read(void **state)
{
    (void)state;
    good("-kernel k");
    assert_false(o.perf_map || o.hash_regs || o.hash_mem);
    assert_null(o.core_file);
    assert_null(o.hash_file);
    good("-kernel k -accel bt,coherency-log=/tmp/l,coherency-max=0x10");
    assert_string_equal(o.coherency_file, "/tmp/l");
    assert_int_equal(o.coherency_max, 16);

    good("-kernel k -accel bt,perf-map=on,core=/tmp/c,clock=insn,hash-log=/tmp/h,hash-every=7,hash-from=0x10,"
         "hash-to=99,hash-regs=on,hash-mem=on");
    assert_true(o.perf_map && o.hash_regs && o.hash_mem);
    assert_string_equal(o.core_file, "/tmp/c");
    assert_string_equal(o.hash_file, "/tmp/h");
    assert_int_equal(o.hash_every, 7);
    assert_int_equal(o.hash_from, 16);
    assert_int_equal(o.hash_to, 99);
}

static void serial_ports_are_read_in_order(void **state)
{
    (void)state;
    good("-kernel k -serial none -serial file:/tmp/x=1 -serial unix:/run/s,server,nowait -serial pty");
    assert_int_equal(o.serial_count, 4);
    assert_int_equal(o.serial[0].kind, SERIAL_NONE);
    assert_int_equal(o.serial[1].kind, SERIAL_FILE);
    assert_string_equal(o.serial[1].path, "/tmp/x=1");
    assert_int_equal(o.serial[2].kind, SERIAL_UNIX);
    assert_string_equal(o.serial[2].path, "/run/s");
    assert_true(o.serial[2].is_server);
    assert_false(o.serial[2].wait);
    assert_int_equal(o.serial[3].kind, SERIAL_PTY);
    assert_false(o.display_by_default);
}

static void nographic_gives_the_escape(void **state)
{
    (void)state;
    good("-kernel k -nographic");
    assert_int_equal(o.serial[0].kind, SERIAL_STDIO);
    assert_true(o.serial[0].mux);
    assert_false(o.display_by_default);
    good("-kernel k -serial stdio");
    assert_false(o.serial[0].mux);
    good("-kernel k -nographic -serial stdio");
    assert_true(o.serial[0].mux);
    good("-kernel k -display none");
    assert_int_equal(o.serial[0].kind, SERIAL_NULL);
}

static void the_monitor_shares_the_terminal_or_has_its_own(void **state)
{
    (void)state;
    good("-kernel k");
    assert_int_equal(o.monitor.kind, SERIAL_STDIO);
    assert_true(o.monitor.mux);
    good("-kernel k -nographic -monitor none");
    assert_int_equal(o.monitor.kind, SERIAL_NONE);
    assert_true(o.serial[0].mux);
    good("-kernel k -serial mon:stdio");
    assert_true(o.monitor.mux);
    good("-kernel k -serial stdio");
    assert_int_equal(o.monitor.kind, SERIAL_NONE);
    good("-kernel k -monitor stdio");
    assert_int_equal(o.monitor.kind, SERIAL_STDIO);
    assert_false(o.monitor.mux);
    assert_int_equal(o.serial[0].kind, SERIAL_NULL);
    good("-kernel k -nographic -monitor unix:/tmp/m,server,nowait -S");
    assert_int_equal(o.monitor.kind, SERIAL_UNIX);
    assert_string_equal(o.monitor.path, "/tmp/m");
    assert_true(o.monitor.is_server);
    assert_false(o.monitor.wait);
    assert_true(o.start_paused);
}

static void one_and_two_dashes_are_the_same(void **state)
{
    (void)state;
    good("--kernel k --initrd i --no-reboot -append a --nographic -smp 1 -name vm -vga std -nodefaults");
    assert_true(o.sandbox);
    assert_string_equal(o.initrd, "i");
    assert_string_equal(o.append, "a");
    assert_true(o.no_reboot);
}

static void log_channels_make_a_mask(void **state)
{
    (void)state;
    good("-kernel k -d in_asm,guest_errors -d exit -D log.txt");
    assert_int_equal(o.log_mask, 1u << LOG_in_asm | 1u << LOG_guest_error | 1u << LOG_exit);
    assert_string_equal(o.log_file, "log.txt");
}

static void debug_exit_has_qemus_defaults(void **state)
{
    (void)state;
    good("-kernel k -device isa-debug-exit");
    assert_int_equal(o.debug_exit_port, 0x501);
    assert_int_equal(o.debug_exit_size, 2);
    good("-kernel k -device isa-debug-exit,iobase=0xf4,iosize=0x04");
    assert_int_equal(o.debug_exit_port, 0xf4);
    assert_int_equal(o.debug_exit_size, 4);
}

static void rtc_dates_are_epochs(void **state)
{
    (void)state;
    good("-kernel k -rtc base=2006-06-17T16:01:21");
    assert_int_equal(o.rtc_base, RTC_FIXED);
    assert_int_equal(o.rtc_epoch, 1150560081);
    good("-kernel k -rtc base=2000-02-29,clock=host");
    assert_int_equal(o.rtc_epoch, 951782400);
    good("-kernel k -rtc base=1970-01-01");
    assert_int_equal(o.rtc_epoch, 0);
    good("-kernel k -rtc base=localtime");
    assert_int_equal(o.rtc_base, RTC_LOCALTIME);
}

static void questions_need_no_kernel(void **state)
{
    static const struct {
        const char *line;
        enum options_action action;
    } cases[] = {
        { "-help", ACTION_HELP },
        { "-h", ACTION_HELP },
        { "--help", ACTION_HELP },
        { "-version", ACTION_VERSION },
        { "-cpu help", ACTION_CPU_HELP },
        { "-d help", ACTION_LOG_HELP },
        { "-M help", ACTION_MACHINE_HELP },
        { "-accel help", ACTION_ACCEL_HELP },
        { "-device help", ACTION_DEVICE_HELP },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        good(cases[i].line);
        assert_int_equal(o.action, cases[i].action);
    }
}

/* Arguments, the offender and the advice that the message must name. */
static void errors_name_the_offender_and_what_would_do(void **state)
{
    static const struct {
        const char *line, *offender, *advice;
    } cases[] = {
        { "", "nothing to run", "-bios" },
        { "-kernel k -option-rom r", "-option-rom", "-bios" },
        { "-bios b -option-rom r,bootindex=1", "bootindex", "name of a file" },
        { "-bios b -option-rom 1 -option-rom 2 -option-rom 3 -option-rom 4 -option-rom 5", "'5'", "4" },
        { "-bios b -initrd i", "-initrd", "-kernel" },
        { "-bios b -L 1 -L 2 -L 3 -L 4 -L 5 -L 6 -L 7 -L 8 -L 9", "'9'", "8" },
        { "-bios b -debugcon vc", "-debugcon 'vc'", "file:PATH" },
        { "-bios b -nographic -debugcon stdio", "stdio", "once" },
        { "-bios b -global isa-debugcon.iobase=0x10000", "0x10000", "0xffff" },
        { "-bios b -global kvmclock.x=1", "kvmclock.x", "isa-debugcon.iobase" },
        { "-initrd x", "-initrd", "-kernel" },
        { "-append x", "-append", "-kernel" },
        { "-kernel", "'-kernel'", "value" },
        { "-kernel k -m", "'-m'", "value" },
        { "-kernel k -m 0", "'0'", "2M" },
        { "-kernel k -m 1M", "'1M'", "2M" },
        { "-kernel k -m 4G", "'4G'", "3072M" },
        { "-kernel k -m 99999999999999999999G", "'99999999999999999999G'", "256M" },
        { "-kernel k -m 18446744073709551615G", "'18446744073709551615G'", "256M" },
        { "-kernel k -m lots", "'lots'", "256M" },
        { "-kernel k -m -64M", "'-64M'", "256M" },
        { "-kernel k -m 64MM", "'64MM'", "256M" },
        { "-kernel k -m 0x40", "'0x40'", "256M" },
        { "-kernel k -m M", "'M'", "256M" },
        { "-kernel k -m 4194305b", "'4194305b'", "4 KiB" },
        { "-kernel k -m 64M,slots=2", "64M,slots=2", "slots" },
        { "-kernel k -nosuch", "'-nosuch'", "-help" },
        { "-kernel k -hda disk", "'-hda'", "not supported" },
        { "-kernel k -enable-kvm", "'-enable-kvm'", "not supported" },
        { "-kernel k disk.img", "'disk.img'", "-kernel" },
        { "-kernel k -", "'-'", "-kernel" },
        { "-kernel k --", "'--'", "-help" },
        { "-kernel k -smp 2", "'2'", "-smp 1" },
        { "-kernel k -cpu max,avx", "'avx'", "+FEATURE" },
        { "-kernel k -cpu max,sse=perhaps", "'sse'", "on|off" },
        { "-kernel k -cpu max,+sse=on", "'+sse'", "no value" },
        { "-kernel k -cpu max,+", "'+'", "no feature" },
        { "-kernel k -accel kvm", "'kvm'", "bt" },
        { "-kernel k -accel ring1,host=vmware", "'vmware'", "qemu:MODEL" },
        { "-kernel k -accel ring1,host=qemu:", "'qemu:'", "qemu:MODEL" },
        { "-kernel k -accel ring1,mem=fast", "'fast'", "checked, window or adaptive" },
        { "-kernel k -accel bt,tc-size=64k", "'64k'", "128K to 1G" },
        { "-kernel k -accel bt,chain=maybe", "'maybe'", "on or off" },
        { "-kernel k -accel bt,chain", "'chain'", "chain=" },
        { "-kernel k -accel bt,stats=", "'stats'", "stats=" },
        { "-kernel k -accel bt,mem=fast", "'fast'", "checked, window or adaptive" },
        { "-kernel k -accel bt,host=old", "'old'", "auto or baseline" },
        { "-kernel k -accel bt,tu-insns=0", "'0'", "1 to 64" },
        { "-kernel k -accel bt,tu-insns=65", "'65'", "1 to 64" },
        { "-kernel k -accel bt,clock=moon", "'moon'", "host or insn" },
        { "-kernel k -accel bt,coherency-max=0", "'0'", "a number of events" },
        { "-kernel k -accel bt,hash-log=f", "hash-log", "clock=insn" },
        { "-kernel k -accel bt,hash-every=0", "'0'", "number of instructions" },
        { "-kernel k -accel bt,hash-to=1e9", "'1e9'", "number of instructions" },
        { "-kernel k -accel bt,hash-mem=all", "'all'", "on or off" },
        { "-kernel k -accel bt,hash-nosuch=1", "'hash-nosuch'", "hash-log" },
        { "-kernel k -accel bt,perf-map=2", "'2'", "on or off" },
        { "-kernel k -accel bt,coherency=none", "'none'", "trace, check, patch, retranslate or adaptive" },
        { "-kernel k -accel bt,nosuch=1", "'nosuch'", "tc-size" },
        { "-kernel k -machine q35", "'q35'", "pc" },
        { "-kernel k -machine pc,usb=on", "'usb'", "pc" },
        { "-kernel k -serial vc", "'vc'", "stdio" },
        { "-kernel k -serial file:", "'file:'", "file:PATH" },
        { "-kernel k -serial unix:,server", "unix:", "path" },
        { "-kernel k -serial unix:a,serve", "'serve'", "server" },
        { "-kernel k -serial stdio -serial mon:stdio", "stdio", "once" },
        { "-kernel k -serial null -serial null -serial null -serial null -serial pty", "'pty'", "4" },
        { "-kernel k -display gtk", "'gtk'", "none" },
        { "-kernel k -sandbox maybe", "'maybe'", "on or off" },
        { "-kernel k -vga qxl", "'qxl'", "std" },
        { "-kernel k -monitor vc", "'vc'", "none" },
        { "-kernel k -monitor unix:", "'unix:'", "none" },
        { "-kernel k -monitor unix:p,x=y", "-monitor", "wait=on|off" },
        { "-kernel k -monitor stdio -serial stdio", "once", "monitor" },
        { "-kernel k -monitor stdio -nographic", "once", "monitor" },
        { "-kernel k -d in_asm,nosuch", "'nosuch'", "-d help" },
        { "-kernel k -device e1000", "'e1000'", "isa-debug-exit" },
        { "-kernel k -device isa-debug-exit,iobase=0x10000", "'0x10000'", "0xffff" },
        { "-kernel k -device isa-debug-exit,iosize=3", "'3'", "1, 2 or 4" },
        { "-kernel k -device isa-debug-exit,iobase=0xfffe,iosize=4", "0xfffe", "0xffff" },
        { "-kernel k -device isa-debug-exit,irq=1", "'irq'", "iobase" },
        { "-kernel k -rtc base=noon", "'noon'", "utc" },
        { "-kernel k -rtc base=2023-02-29", "'2023-02-29'", "utc" },
        { "-kernel k -rtc base=2023-01-01T25:00:00", "25:00", "utc" },
        { "-kernel k -rtc clock=vm", "clock=vm", "base=" },
        { "-kernel k -rtc base", "'base'", "base=" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (parse(cases[i].line))
            fail_msg("'%s' was accepted", cases[i].line);
        if (!strstr(o.error, cases[i].offender) || !strstr(o.error, cases[i].advice))
            fail_msg("'%s' gave: %s", cases[i].line, o.error);
        assert_null(strchr(o.error, '\n'));
    }
}

static void long_and_odd_arguments_are_refused_calmly(void **state)
{
    static char huge[20000];
    const char *argv[] = { "ringdown", "-kernel", "k", "-accel", huge };

    (void)state;
    memset(huge, 'a', sizeof huge - 1);
    memcpy(huge, "bt,", 3);
    assert_false(options_parse(&o, 5, argv));
    assert_non_null(strstr(o.error, "too long"));
    memset(huge, ',', sizeof huge - 1);
    assert_false(options_parse(&o, 5, argv));
    argv[3] = "\n\x01\x7f";
    assert_false(options_parse(&o, 4, argv));
    assert_null(strchr(o.error, '\n'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_help),
        cmocka_unit_test(sizes_have_units),
        cmocka_unit_test(accel_properties_are_read),
        cmocka_unit_test(ring1_hands_its_properties_on),
        cmocka_unit_test(what_shows_the_inside_is_read),
        cmocka_unit_test(serial_ports_are_read_in_order),
        cmocka_unit_test(nographic_gives_the_escape),
        cmocka_unit_test(the_monitor_shares_the_terminal_or_has_its_own),
        cmocka_unit_test(one_and_two_dashes_are_the_same),
        cmocka_unit_test(log_channels_make_a_mask),
        cmocka_unit_test(debug_exit_has_qemus_defaults),
        cmocka_unit_test(rtc_dates_are_epochs),
        cmocka_unit_test(questions_need_no_kernel),
        cmocka_unit_test(errors_name_the_offender_and_what_would_do),
        cmocka_unit_test(long_and_odd_arguments_are_refused_calmly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
