/* fw_cfg by ports and by DMA, the tables' script as firmware runs it, and the debug console. */
#include "fixture.h"

#include <string.h>

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_le32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void read_item(struct fixture *f, uint16_t key, void *buf, unsigned bytes)
{
    uint8_t *to = buf;

    out_port(f, 0x510, 2, key);
    for (unsigned i = 0; i < bytes; i++)
        to[i] = inb(f, 0x511);
}

/** The file's selector and size; fails when there is none. */
static uint16_t find_file(struct fixture *f, const char *name, uint32_t *bytes)
{
    uint8_t count[4], entry[64];

    read_item(f, 0x19, count, 4);
    for (uint32_t i = 0; i < be32(count); i++) {
        for (unsigned k = 0; k < 64; k++)
            entry[k] = inb(f, 0x511);
        *bytes = be32(entry);
        if (!strcmp((char *)entry + 8, name))
            return (uint16_t)(entry[4] << 8 | entry[5]);
    }
    fail_msg("no file %s", name);
    return 0;
}

static void fixed_items(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[8];

    read_item(f, 0, buf, 6);
    assert_memory_equal(buf, "QEMU\0\0", 6);
    read_item(f, 1, buf, 4);
    assert_memory_equal(buf, "\3\0\0\0", 4);
    read_item(f, 3, buf, 8);
    assert_int_equal(le32(buf), 256u << 20);
    assert_int_equal(le32(buf + 4), 0);
    read_item(f, 5, buf, 2);
    assert_int_equal(buf[0], 1);
    read_item(f, 0x8003, buf, 4);
    assert_int_equal(le32(buf), 0);
    read_item(f, 0x3fff, buf, 4);
    assert_int_equal(le32(buf), 0);
}

static void numbered_items_are_the_configuration_s(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[4];

    read_item(f, 0x15, buf, 4);
    assert_memory_equal(buf, "abc\0", 4);
    read_item(f, 0x14, buf, 4);
    assert_int_equal(le32(buf), 0);
}

static void files_are_found_by_name(void **state)
{
    struct fixture *f = *state;
    uint32_t bytes;
    uint8_t buf[20];
    uint16_t key = find_file(f, "etc/test", &bytes);

    assert_int_equal(bytes, 3);
    read_item(f, key, buf, 5);
    assert_memory_equal(buf, "abc\0\0", 5);
    key = find_file(f, "etc/e820", &bytes);
    assert_int_equal(bytes, 20);
    read_item(f, key, buf, 20);
    assert_int_equal(le32(buf), 0);
    assert_int_equal(le32(buf + 8), 256u << 20);
    assert_int_equal(le32(buf + 16), 1);
}

#define REQUEST_PA 0x1000u
#define DATA_PA    0x2000u

static uint32_t dma(struct fixture *f, uint32_t control, uint32_t bytes, uint32_t pa)
{
    put_be32(f->mem + REQUEST_PA, control);
    put_be32(f->mem + REQUEST_PA + 4, bytes);
    put_be32(f->mem + REQUEST_PA + 8, 0);
    put_be32(f->mem + REQUEST_PA + 12, pa);
    out_port(f, 0x518, 4, __builtin_bswap32(REQUEST_PA));
    return be32(f->mem + REQUEST_PA);
}

static void dma_selects_skips_and_reads(void **state)
{
    struct fixture *f = *state;
    uint32_t bytes;
    uint16_t key = find_file(f, "etc/test", &bytes);

    assert_int_equal(in_port(f, 0x514, 4), le32((const uint8_t *)"QEMU"));
    assert_int_equal(in_port(f, 0x518, 4), le32((const uint8_t *)" CFG"));
    memset(f->mem + DATA_PA, 0xee, 8);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 0x0a, 2, DATA_PA), 0);
    assert_memory_equal(f->mem + DATA_PA, "ab\xee\xee", 4);
    assert_int_equal(dma(f, 0x02, 4, DATA_PA), 0); /* goes on, then past the end */
    assert_memory_equal(f->mem + DATA_PA, "c\0\0\0\xee", 5);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 0x0c, 1, 0), 0);
    assert_int_equal(inb(f, 0x511), 'b');
}

static void dma_refuses_writes_and_nonsense(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(dma(f, 0x10, 4, DATA_PA), 1);
    assert_int_equal(dma(f, 0x02, 0xffffffff, DATA_PA), 1);
    assert_int_equal(dma(f, 0x02, 2u << 20, 0xfffff000), 1); /* that many zeros */
    assert_int_equal(dma(f, 0x02, 4, 0xfffff000), 1); /* where there is no memory */
    assert_int_equal(dma(f, 0x02, 1u << 20, (256u << 20) - (1u << 20) + 1), 1);
    assert_int_equal(dma(f, 0x02, 1u << 20, (256u << 20) - (1u << 20)), 0);
    out_port(f, 0x518, 2, 0x1234);                            /* narrow accesses start nothing */
    out_port(f, 0x514, 4, 0xffffffff);
    out_port(f, 0x518, 4, 0xffffffff);
}

/* ---- ACPI tables as firmware gets them ---------------------------------------------------------- */

struct blob {
    char name[56];
    uint32_t pa, bytes;
};

static struct blob *find_blob(struct blob *blobs, const char *name)
{
    for (unsigned i = 0; i < 2; i++)
        if (!strcmp(blobs[i].name, name))
            return &blobs[i];
    fail_msg("script names %s before it is allocated", name);
    return NULL;
}

static uint8_t sum(const uint8_t *p, uint32_t len)
{
    uint8_t s = 0;

    for (uint32_t i = 0; i < len; i++)
        s += p[i];
    return s;
}

static void run_command(struct fixture *f, const uint8_t *c, struct blob *blobs, unsigned *nblobs)
{
    static const uint32_t places[2] = { 0x40000, 0xf5a00 };

    if (le32(c) == 1) {
        struct blob *b = &blobs[*nblobs];
        assert_true(*nblobs < 2);
        memcpy(b->name, c + 4, 56);
        uint16_t key = find_file(f, b->name, &b->bytes);
        b->pa = places[(*nblobs)++];
        assert_int_equal(b->pa % le32(c + 60), 0);
        assert_int_equal(c[64], b->pa < 0xf0000 ? 1 : 2);
        read_item(f, key, f->mem + b->pa, b->bytes);
    } else if (le32(c) == 2) {
        struct blob *in = find_blob(blobs, (const char *)c + 4), *to = find_blob(blobs, (const char *)c + 60);
        uint8_t *p = f->mem + in->pa + le32(c + 116);
        assert_true(le32(c + 116) + c[120] <= in->bytes && le32(p) < to->bytes);
        put_le32(p, le32(p) + to->pa);
    } else {
        assert_int_equal(le32(c), 3);
        struct blob *b = find_blob(blobs, (const char *)c + 4);
        uint8_t *at = f->mem + b->pa;
        assert_true(le32(c + 64) + le32(c + 68) <= b->bytes);
        at[le32(c + 60)] -= sum(at + le32(c + 64), le32(c + 68));
    }
}

static void the_script_makes_tables_that_hang_together(void **state)
{
    struct fixture *f = *state;
    static uint8_t script[4096];
    struct blob blobs[2] = { 0 };
    unsigned nblobs = 0;
    uint32_t bytes;
    uint16_t key = find_file(f, "etc/table-loader", &bytes);

    machine_place_tables(f->m); /* with a ROM it must leave memory alone */
    for (uint32_t i = 0xe0000; i < 0x100000; i++)
        assert_int_equal(f->mem[i], 0);
    assert_true(bytes <= sizeof script && bytes % 128 == 0);
    read_item(f, key, script, bytes);
    for (uint32_t i = 0; i < bytes; i += 128)
        run_command(f, script + i, blobs, &nblobs);

    const uint8_t *rsdp = f->mem + find_blob(blobs, "etc/acpi/rsdp")->pa;
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(rsdp, 20), 0);
    const uint8_t *rsdt = f->mem + le32(rsdp + 16);
    assert_memory_equal(rsdt, "RSDT", 4);
    assert_int_equal(sum(rsdt, le32(rsdt + 4)), 0);
    const uint8_t *fadt = f->mem + le32(rsdt + 36);
    assert_memory_equal(fadt, "FACP", 4);
    assert_int_equal(sum(fadt, le32(fadt + 4)), 0);
    assert_memory_equal(f->mem + le32(fadt + 36), "FACS", 4);
    assert_int_equal(le32(fadt + 36) % 64, 0);
    const uint8_t *dsdt = f->mem + le32(fadt + 40);
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_int_equal(sum(dsdt, le32(dsdt + 4)), 0);
    assert_int_equal(le32(fadt + 132), le32(fadt + 36));
    assert_int_equal(le32(fadt + 140), le32(fadt + 40));
}

static void the_debug_console_takes_text(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(inb(f, 0x402), 0xe9);
    outb(f, 0x402, 'h');
    outb(f, 0x402, 'i');
    assert_int_equal(f->out_len, 2);
    assert_memory_equal(f->out, "hi", 2);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup_rom, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(fixed_items),
        T(numbered_items_are_the_configuration_s),
        T(files_are_found_by_name),
        T(dma_selects_skips_and_reads),
        T(dma_refuses_writes_and_nonsense),
        T(the_script_makes_tables_that_hang_together),
        T(the_debug_console_takes_text),
    };
    return cmocka_run_group_tests_name("machine.fw_cfg", tests, NULL, NULL);
}
