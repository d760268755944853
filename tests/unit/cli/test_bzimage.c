/*
 * The kernel loader on made-up images: what it puts where, and what it says of files
 * that are not right. The images have a header and no code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/bzimage.h"

#define SETUP_BYTES 0x5000u
#define CODE_BYTES  0x20000u
#define FILE_BYTES  (SETUP_BYTES + CODE_BYTES)
#define RAM_BYTES   (64u << 20)

static uint8_t file[FILE_BYTES];
static uint8_t *ram;
static struct bzimage image;
static struct boot_entry entry;
static char error[IMAGE_ERROR_BYTES];

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v);
    put16(p + 2, v >> 16);
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* As Debian's 686 kernel has it. */
static int make_image(void **state)
{
    (void)state;
    memset(file, 0, sizeof file);
    for (unsigned i = SETUP_BYTES; i < FILE_BYTES; i++)
        file[i] = (uint8_t)(i * 7);
    file[0x1f1] = SETUP_BYTES / 512 - 1;
    put32(file + 0x1f4, CODE_BYTES / 16);
    put16(file + 0x1fe, 0xaa55);
    file[0x200] = 0xeb;
    file[0x201] = 0x6a; /* header ends at 0x26c */
    memcpy(file + 0x202, "HdrS", 4);
    put16(file + 0x206, 0x020f);
    file[0x211] = 0x01 | 0x40 | 0x80;
    put32(file + 0x214, 0x100000);
    put32(file + 0x22c, 0x7fffffff);
    put32(file + 0x230, 16u << 20);
    file[0x234] = 1;
    put32(file + 0x238, 2047);
    put32(file + 0x248, 0x100);
    put32(file + 0x24c, 0x1000);
    put32(file + 0x258, 0x1000000);
    put32(file + 0x260, 0x100c000);
    ram = calloc(1, RAM_BYTES);
    return ram ? 0 : -1;
}

static int drop_image(void **state)
{
    (void)state;
    free(ram);
    return 0;
}

static void must_parse(void)
{
    if (!bzimage_parse(&image, file, sizeof file, error))
        fail_msg("refused: %s", error);
}

static void everything_goes_to_its_place(void **state)
{
    static const uint8_t initrd[5000] = { 1, 2, 3 };
    const char *cmdline = "console=ttyS0";
    const uint8_t *params;

    (void)state;
    must_parse();
    assert_true(bzimage_place(&image, ram, RAM_BYTES, initrd, sizeof initrd, cmdline, &entry, error));
    params = ram + entry.esi;
    assert_int_equal(entry.eip, 0x100000);
    assert_memory_equal(ram + 0x100000, file + SETUP_BYTES, CODE_BYTES);
    assert_memory_equal(params + 0x202, "HdrS", 4);
    assert_int_equal(params[0x210], 0xff);
    assert_int_equal(params[0x211], 0x01);
    assert_string_equal((const char *)ram + get32(params + 0x228), cmdline);
    assert_int_equal(get32(params + 0x218), entry.initrd_at);
    assert_int_equal(get32(params + 0x21c), sizeof initrd);
    assert_int_equal(entry.initrd_at, RAM_BYTES - 8192);
    assert_memory_equal(ram + entry.initrd_at, initrd, sizeof initrd);
    /* past the header's end nothing is copied: boot_params has other fields there */
    assert_int_equal(params[0x1ef], 0);
    assert_int_equal(params[0x26c], 0);
}

static void memory_map_covers_ram_and_leaves_the_hole(void **state)
{
    static const struct {
        uint32_t start, size, type;
    } rows[] = {
        { 0, 0x9fc00, 1 },
        { 0x9fc00, 0x400, 2 },
        { 0xe0000, 0x20000, 2 },
        { 0x100000, RAM_BYTES - 0x100000, 1 },
    };
    (void)state;
    must_parse();
    assert_true(bzimage_place(&image, ram, RAM_BYTES, NULL, 0, "", &entry, error));
    const uint8_t *params = ram + entry.esi;
    assert_int_equal(params[0x1e8], 4);
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *row = params + 0x2d0 + i * 20;
        assert_int_equal(get32(row), rows[i].start);
        assert_int_equal(get32(row + 4), 0);
        assert_int_equal(get32(row + 8), rows[i].size);
        assert_int_equal(get32(row + 16), rows[i].type);
    }
    assert_int_equal(get32(params + 0x1e0), (RAM_BYTES >> 10) - 1024);
    assert_int_equal(params[0x7], 80);
    assert_int_equal(params[0xe], 25);
    assert_int_equal(params[0xf], 1);
    assert_int_equal(entry.initrd_at, 0);
    assert_int_equal(get32(params + 0x218), 0);
}

static void gdt_is_flat(void **state)
{
    (void)state;
    must_parse();
    assert_true(bzimage_place(&image, ram, RAM_BYTES, NULL, 0, "", &entry, error));
    assert_int_equal(entry.cs, 0x10);
    assert_int_equal(entry.ds, 0x18);
    assert_true(entry.gdt_limit >= 0x1f);
    assert_int_equal(get32(ram + entry.gdt_base + 0x10), 0x0000ffff);
    assert_int_equal(get32(ram + entry.gdt_base + 0x14), 0x00cf9b00);
    assert_int_equal(get32(ram + entry.gdt_base + 0x1c), 0x00cf9300);
}

static void initrd_stays_in_directly_mapped_memory(void **state)
{
    (void)state;
    must_parse();
    assert_true(bzimage_fits(&image, 2ull << 30, 100u << 20, error));
    put32(file + 0x22c, 0x01ffffff + 0x200000); /* highest address allowed */
    must_parse();
    assert_true(bzimage_fits(&image, RAM_BYTES, 1u << 20, error));
    assert_false(bzimage_fits(&image, RAM_BYTES, 3u << 20, error));
}

static void what_does_not_fit_is_told_with_numbers(void **state)
{
    (void)state;
    must_parse();
    assert_false(bzimage_fits(&image, 16u << 20, 0, error));
    assert_non_null(strstr(error, "33M"));
    assert_non_null(strstr(error, "-m 16M"));
    assert_false(bzimage_fits(&image, 64u << 20, 40u << 20, error));
    assert_non_null(strstr(error, "initrd"));
    assert_non_null(strstr(error, "-m 73M"));
    assert_true(bzimage_fits(&image, 73u << 20, 40u << 20, error));
    assert_false(bzimage_fits(&image, 3ull << 30, 1u << 30, error));
    assert_non_null(strstr(error, "847M"));
    assert_false(bzimage_fits(&image, 3ull << 30, UINT64_MAX, error));
}

static void command_line_has_a_limit(void **state)
{
    char text[2049];

    (void)state;
    memset(text, 'x', sizeof text);
    text[2047] = 0;
    must_parse();
    assert_true(bzimage_place(&image, ram, RAM_BYTES, NULL, 0, text, &entry, error));
    text[2047] = 'x';
    text[2048] = 0;
    assert_false(bzimage_place(&image, ram, RAM_BYTES, NULL, 0, text, &entry, error));
    assert_non_null(strstr(error, "2047"));
}

struct spoil {
    const char *what;
    unsigned ofs;
    uint32_t value;
    unsigned size;
    const char *says;
};

static void broken_headers_are_named(void **state)
{
    static const struct spoil cases[] = {
        { "boot flag", 0x1fe, 0, 2, "no header of a bzImage" },
        { "magic", 0x202, 0, 4, "no header of a bzImage" },
        { "old protocol", 0x206, 0x0201, 2, "2.01" },
        { "zImage", 0x211, 0, 1, "zImage" },
        { "real-mode entry only", 0x214, 0, 4, "real mode only" },
        { "64-bit kernel", 0x236, 1, 2, "64-bit" },
        { "code cut off", 0x1f4, CODE_BYTES / 16 + 2, 4, "truncated" },
        { "absurd code size", 0x1f4, 0xffffffff, 4, "truncated" },
        { "payload cut off", 0x24c, 0xffffffff, 4, "truncated" },
        { "payload elsewhere", 0x248, 0xffffffff, 4, "truncated" },
        { "all setup", 0x1f1, 0xff, 1, NULL }, /* half the code is called setup: cut off */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t saved[4];
        memcpy(saved, file + cases[i].ofs, 4);
        for (unsigned b = 0; b < cases[i].size; b++)
            file[cases[i].ofs + b] = (uint8_t)(cases[i].value >> (8 * b));
        if (bzimage_parse(&image, file, sizeof file, error))
            fail_msg("%s was accepted", cases[i].what);
        if (cases[i].says && !strstr(error, cases[i].says))
            fail_msg("%s gave: %s", cases[i].what, error);
        memcpy(file + cases[i].ofs, saved, 4);
    }
    must_parse();
}

static void absurd_run_areas_need_absurd_memory(void **state)
{
    (void)state;
    put32(file + 0x25c, 0xffffffff); /* preferred address, high half */
    put32(file + 0x260, 0xffffffff);
    must_parse();
    assert_false(bzimage_fits(&image, 3ull << 30, 0, error));
    put32(file + 0x25c, 0);
    put32(file + 0x258, 0);
    put32(file + 0x260, 0);
    must_parse();
    assert_true(bzimage_fits(&image, 2u << 20, 0, error));
}

static void every_truncation_is_survived(void **state)
{
    (void)state;
    for (size_t n = 0; n < SETUP_BYTES + 64; n += n < 0x300 ? 1 : 61) {
        /* an exact copy, so that a sanitizer sees a read past the end */
        uint8_t *cut = malloc(n ? n : 1);
        assert_non_null(cut);
        memcpy(cut, file, n);
        assert_false(bzimage_parse(&image, cut, n, error));
        assert_null(strchr(error, '\n'));
        free(cut);
    }
}

static void other_files_are_recognised(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } cases[] = {
        { "\x1f\x8b\x08\0\0\0", 6, "gzip" },
        { "0707010000", 10, "cpio" },
        { "", 0, "empty" },
        { "#!/bin/sh\n", 10, "not a kernel" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_false(bzimage_parse(&image, (const uint8_t *)cases[i].bytes, cases[i].len, error));
        assert_non_null(strstr(error, cases[i].says));
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_image, drop_image)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_goes_to_its_place),
        TEST(memory_map_covers_ram_and_leaves_the_hole),
        TEST(gdt_is_flat),
        TEST(initrd_stays_in_directly_mapped_memory),
        TEST(what_does_not_fit_is_told_with_numbers),
        TEST(command_line_has_a_limit),
        TEST(broken_headers_are_named),
        TEST(absurd_run_areas_need_absurd_memory),
        TEST(every_truncation_is_survived),
        TEST(other_files_are_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
