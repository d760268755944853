/* VGA: text memory and its dump, planes, registers, retrace. */
#include "fixture.h"

#include <string.h>

static void mem_write(struct fixture *f, uint32_t pa, unsigned size, uint32_t value)
{
    struct bus_request req = {
        .space = BUS_MEM, .size = (uint8_t)size, .is_write = true, .addr = pa, .data = value
    };
    machine_bus(f->m, &req);
}

static uint32_t mem_read(struct fixture *f, uint32_t pa, unsigned size)
{
    struct bus_request req = { .space = BUS_MEM, .size = (uint8_t)size, .addr = pa };

    machine_bus(f->m, &req);
    return req.data;
}

static void set(struct fixture *f, uint16_t port, uint8_t index, uint8_t value)
{
    out_port(f, port, 2, index | (uint32_t)value << 8);
}

static void print(struct fixture *f, unsigned column, unsigned row, const char *text)
{
    for (unsigned i = 0; text[i]; i++)
        mem_write(f, 0xb8000 + (row * 80 + column + i) * 2, 2, 0x0700u | (uint8_t)text[i]);
}

/** What Linux sets up to reach the font in plane 2 at A0000. */
static void open_plane_2(struct fixture *f)
{
    set(f, 0x3c4, 2, 4);
    set(f, 0x3c4, 4, 6);
    set(f, 0x3ce, 4, 2);
    set(f, 0x3ce, 5, 0);
    set(f, 0x3ce, 6, 0);
}

static void close_plane_2(struct fixture *f)
{
    set(f, 0x3c4, 2, 3);
    set(f, 0x3c4, 4, 2);
    set(f, 0x3ce, 4, 0);
    set(f, 0x3ce, 5, 0x10);
    set(f, 0x3ce, 6, 0x0e);
}

static void text_memory_reads_back_in_every_width(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mem_read(f, 0xb8000, 2), 0x0720);
    mem_write(f, 0xb8000, 4, 0x1f421f41);
    assert_int_equal(mem_read(f, 0xb8000, 4), 0x1f421f41);
    assert_int_equal(mem_read(f, 0xb8001, 1), 0x1f);
    assert_int_equal(mem_read(f, 0xb8002, 2), 0x1f42);
    mem_write(f, 0xbfffe, 2, 0xaa55); /* the end of the 32 KiB */
    assert_int_equal(mem_read(f, 0xbfffe, 2), 0xaa55);
    assert_int_equal(mem_read(f, 0xb0000, 2), 0xffff); /* not mapped in this mode */
    assert_int_equal(mem_read(f, 0xa0000, 4), 0xffffffff);
}

static void the_screen_is_dumped_as_lines(void **state)
{
    struct fixture *f = *state;
    char buf[4096];

    print(f, 0, 0, "Linux version 6.1");
    print(f, 2, 1, "\x01\xb3 x");
    print(f, 79, 24, "!");
    size_t len = machine_vga_text(f->m, buf, sizeof buf);
    assert_int_equal(len, strlen(buf));
    assert_memory_equal(buf, "Linux version 6.1\n  .. x\n\n", 26);
    assert_int_equal(buf[len - 2], '!');
    unsigned lines = 0;
    for (size_t i = 0; i < len; i++)
        lines += buf[i] == '\n';
    assert_int_equal(lines, 25);
    assert_int_equal(machine_vga_text(f->m, buf, 10), 9);
    assert_string_equal(buf, "Linux ver");
}

static void the_dump_follows_the_start_address(void **state)
{
    struct fixture *f = *state;
    char buf[4096];

    print(f, 0, 3, "scrolled");
    set(f, 0x3d4, 0x0c, 0);
    set(f, 0x3d4, 0x0d, 240);
    machine_vga_text(f->m, buf, sizeof buf);
    assert_memory_equal(buf, "scrolled\n", 9);
}

static void a_font_goes_to_plane_2_and_leaves_the_text(void **state)
{
    struct fixture *f = *state;

    print(f, 0, 0, "text");
    open_plane_2(f);
    for (uint32_t i = 0; i < 8192; i++)
        mem_write(f, 0xa0000 + i, 1, i * 7 & 0xff);
    for (uint32_t i = 0; i < 8192; i += 97)
        assert_int_equal(mem_read(f, 0xa0000 + i, 1), i * 7 & 0xff);
    close_plane_2(f);
    assert_int_equal(mem_read(f, 0xb8000, 4), 0x07650774);
}

static void planar_write_modes_work(void **state)
{
    struct fixture *f = *state;

    set(f, 0x3c4, 4, 6);
    set(f, 0x3c4, 2, 0x0f);
    set(f, 0x3ce, 6, 5);
    set(f, 0x3ce, 5, 0);
    mem_write(f, 0xa0000, 1, 0x3c); /* mode 0: all planes */
    (void)mem_read(f, 0xa0000, 1);
    set(f, 0x3ce, 5, 1);
    mem_write(f, 0xa0001, 1, 0); /* mode 1: the latches */
    set(f, 0x3ce, 5, 2);
    set(f, 0x3ce, 8, 0xf0);
    (void)mem_read(f, 0xa0000, 1);
    mem_write(f, 0xa0002, 1, 0x05); /* mode 2: colour 5 in the high bits, latches in the low */
    set(f, 0x3ce, 5, 0);
    static const uint8_t want[4] = { 0xfc, 0x0c, 0xfc, 0x0c };
    for (uint8_t plane = 0; plane < 4; plane++) {
        set(f, 0x3ce, 4, plane);
        assert_int_equal(mem_read(f, 0xa0001, 1), 0x3c);
        assert_int_equal(mem_read(f, 0xa0002, 1), want[plane]);
    }
    set(f, 0x3ce, 5, 8); /* read mode 1: where is colour 5? */
    set(f, 0x3ce, 2, 5);
    set(f, 0x3ce, 7, 0x0f);
    assert_int_equal(mem_read(f, 0xa0002, 1), 0xf0);
    set(f, 0x3ce, 5, 3); /* mode 3: set/reset through the rotated byte as mask */
    set(f, 0x3ce, 8, 0xff);
    set(f, 0x3ce, 0, 0x0f);
    (void)mem_read(f, 0xa0010, 1);
    mem_write(f, 0xa0010, 1, 0x18);
    set(f, 0x3ce, 5, 0);
    set(f, 0x3ce, 4, 3);
    assert_int_equal(mem_read(f, 0xa0010, 1), 0x18);
}

static void chain_4_is_linear(void **state)
{
    struct fixture *f = *state;

    set(f, 0x3c4, 4, 0x0e);
    set(f, 0x3c4, 2, 0x0f);
    set(f, 0x3ce, 6, 5);
    set(f, 0x3ce, 5, 0x40);
    mem_write(f, 0xa0100, 4, 0x44332211);
    assert_int_equal(mem_read(f, 0xa0100, 4), 0x44332211);
    assert_int_equal(mem_read(f, 0xa0102, 1), 0x33);
}

static void indexed_registers_read_back(void **state)
{
    struct fixture *f = *state;

    set(f, 0x3d4, 0x0e, 0x12);
    set(f, 0x3d4, 0x0f, 0x34);
    outb(f, 0x3d4, 0x0e);
    assert_int_equal(inb(f, 0x3d5), 0x12);
    assert_int_equal(inb(f, 0x3d4), 0x0e);
    set(f, 0x3d4, 0x01, 0x27); /* protected */
    outb(f, 0x3d4, 0x01);
    assert_int_equal(inb(f, 0x3d5), 0x4f);
    set(f, 0x3d4, 0x11, 0x0e);
    set(f, 0x3d4, 0x01, 0x27);
    outb(f, 0x3d4, 0x01);
    assert_int_equal(inb(f, 0x3d5), 0x27);
    outb(f, 0x3d4, 0x3f); /* no such register */
    outb(f, 0x3d5, 1);
    assert_int_equal(inb(f, 0x3d5), 0);
    assert_int_equal(inb(f, 0x3b4), 0xff); /* colour: the other address floats */
    outb(f, 0x3c2, 0x66);
    assert_int_equal(inb(f, 0x3cc), 0x66);
    assert_int_equal(inb(f, 0x3d4), 0xff);
    assert_int_equal(inb(f, 0x3b4), 0x3f);
}

static void the_attribute_flip_flop_is_reset_by_the_status_port(void **state)
{
    struct fixture *f = *state;

    (void)inb(f, 0x3da);
    outb(f, 0x3c0, 0x10);
    outb(f, 0x3c0, 0x08);
    outb(f, 0x3c0, 0x11); /* an index ... */
    (void)inb(f, 0x3da);
    outb(f, 0x3c0, 0x12); /* ... and again an index */
    outb(f, 0x3c0, 0x03);
    (void)inb(f, 0x3da);
    outb(f, 0x3c0, 0x30);
    assert_int_equal(inb(f, 0x3c1), 0x08);
    (void)inb(f, 0x3da);
    outb(f, 0x3c0, 0x12);
    assert_int_equal(inb(f, 0x3c1), 0x03);
}

static void the_palette_counts_through_its_parts(void **state)
{
    struct fixture *f = *state;

    outb(f, 0x3c8, 10);
    for (uint8_t i = 0; i < 6; i++)
        outb(f, 0x3c9, i + 1);
    outb(f, 0x3c7, 10);
    assert_int_equal(inb(f, 0x3c7), 3);
    for (uint8_t i = 0; i < 6; i++)
        assert_int_equal(inb(f, 0x3c9), i + 1);
}

static void retrace_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    unsigned frames = 0;
    uint8_t last = 0;

    for (unsigned i = 0; i < 50000; i++) { /* half a second */
        advance(f, 10000);
        uint8_t now = inb(f, 0x3da) & 8;
        frames += now && !last;
        last = now;
    }
    assert_in_range(frames, 34, 36);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(text_memory_reads_back_in_every_width),
        T(the_screen_is_dumped_as_lines),
        T(the_dump_follows_the_start_address),
        T(a_font_goes_to_plane_2_and_leaves_the_text),
        T(planar_write_modes_work),
        T(chain_4_is_linear),
        T(indexed_registers_read_back),
        T(the_attribute_flip_flop_is_reset_by_the_status_port),
        T(the_palette_counts_through_its_parts),
        T(retrace_comes_and_goes),
    };
    return cmocka_run_group_tests_name("machine.vga", tests, NULL, NULL);
}
