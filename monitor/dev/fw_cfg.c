/*
 * fw_cfg: how firmware learns from its virtual machine what no hardware would tell it.
 *
 * A 16-bit write to port 510h selects an item and goes to its start; each byte read from 511h is the
 * item's next, 0 past its end. Small items have fixed numbers; item 19h is a directory of files, whose
 * numbers begin at 20h. All of an item can also be copied to memory at once: a big-endian address of
 * this structure, written to 514h (high half) and 518h (low half, which starts it):
 *
 *   control (4)   in: selector << 16 | 8 select | 4 skip | 2 read; out: 0, or 1 for an error
 *   length (4)
 *   address (8)
 *
 * Items are read-only: writing one by DMA is an error.
 *
 * Ref: QEMU, docs/specs/fw_cfg "QEMU Firmware Configuration (fw_cfg) Device".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PORT_SELECT 0x510
#define PORT_DATA   0x511
#define PORT_DMA    0x514
#define DMA_BYTES   8

enum fw_cfg_key {
    KEY_SIGNATURE = 0x00,
    KEY_FEATURES = 0x01,
    KEY_RAM_BYTES = 0x03,
    KEY_CPUS = 0x05,
    KEY_MAX_CPUS = 0x0f,
    KEY_DIRECTORY = 0x19,
    KEY_FILES = 0x20,
};
#define KEY_MASK 0x3fff /* bit 14 asks for writing, bit 15 for the architecture's own items */
#define KEY_ARCH 0x8000

#define FEATURE_PORTS 0x01
#define FEATURE_DMA   0x02

#define FILES_MAX   24u
#define NAME_BYTES  56u
#define ENTRY_BYTES 64u
#define E820_BYTES  20u
#define E820_RAM    1

#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u
#define DMA_ZEROS  (1u << 20) /* past an item's end, no more than this at a time */
#define DMA_CHUNK  512u

struct fw_cfg_state {
    uint16_t key;
    uint32_t at; /* offset of the next byte */
    uint32_t dma_high;
};

struct item {
    const uint8_t *data;
    uint32_t bytes;
};

struct fw_cfg {
    struct machine *m;
    struct item file[FILES_MAX];
    uint32_t count;
    uint8_t directory[4 + FILES_MAX * ENTRY_BYTES];
    uint8_t ram_bytes[8], e820[E820_BYTES];
    struct fw_cfg_state s;
};

static void put_be32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* ---- items -------------------------------------------------------------------------------------------- */

bool fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t bytes)
{
    uint8_t *entry = f->directory + 4 + (size_t)f->count * ENTRY_BYTES;
    uint32_t key = KEY_FILES + f->count;

    if (f->count == FILES_MAX)
        return false;
    put_be32(entry, bytes);
    entry[4] = (uint8_t)(key >> 8);
    entry[5] = (uint8_t)key;
    for (unsigned i = 0; name[i]; i++) {
        if (i == NAME_BYTES - 1)
            return false;
        entry[8 + i] = (uint8_t)name[i];
    }
    f->file[f->count++] = (struct item){ data, bytes };
    put_be32(f->directory, f->count);
    return true;
}

static struct item find_item(const struct fw_cfg *f)
{
    static const uint8_t signature[] = { 'Q', 'E', 'M', 'U' };
    static const uint8_t features[] = { FEATURE_PORTS | FEATURE_DMA, 0, 0, 0 };
    static const uint8_t one[] = { 1, 0 };
    const struct machine_config *c = machine_config_of(f->m);
    unsigned key = f->s.key & KEY_MASK;

    if (f->s.key & KEY_ARCH)
        return (struct item){ NULL, 0 };
    if (key >= KEY_FILES && key - KEY_FILES < f->count)
        return f->file[key - KEY_FILES];
    for (unsigned i = 0; i < c->fw_item_count && i < MACHINE_FW_ITEMS; i++)
        if (c->fw_item[i].key == key)
            return (struct item){ c->fw_item[i].data, c->fw_item[i].bytes };
    switch (key) {
    case KEY_SIGNATURE:
        return (struct item){ signature, sizeof signature };
    case KEY_FEATURES:
        return (struct item){ features, sizeof features };
    case KEY_RAM_BYTES:
        return (struct item){ f->ram_bytes, sizeof f->ram_bytes };
    case KEY_CPUS:
    case KEY_MAX_CPUS:
        return (struct item){ one, sizeof one };
    case KEY_DIRECTORY:
        return (struct item){ f->directory, 4 + f->count * ENTRY_BYTES };
    default:
        return (struct item){ NULL, 0 };
    }
}

static void select_item(struct fw_cfg *f, uint16_t key)
{
    f->s.key = key;
    f->s.at = 0;
}

/* The next bytes of the item, zeros past its end. */
static void take(struct fw_cfg *f, uint8_t *buf, uint32_t bytes)
{
    struct item item = find_item(f);

    for (uint32_t i = 0; i < bytes; i++) {
        buf[i] = f->s.at < item.bytes ? item.data[f->s.at] : 0;
        if (f->s.at < item.bytes)
            f->s.at++;
    }
}

/* ---- ports -------------------------------------------------------------------------------------------- */

static uint32_t port_read(void *dev, uint64_t addr, unsigned size)
{
    struct fw_cfg *f = dev;
    uint8_t byte = 0;

    if (addr == PORT_DATA && size == 1)
        take(f, &byte, 1);
    return byte;
}

static void port_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    if (addr == PORT_SELECT && size == 2)
        select_item(dev, (uint16_t)value);
}

/* ---- DMA ------------------------------------------------------------------------------------------------
 */

static void write_zeros(const struct machine_config *c, uint64_t pa, uint32_t bytes)
{
    static const uint8_t zeros[DMA_CHUNK];

    for (uint32_t n; bytes; bytes -= n, pa += n) {
        n = bytes < DMA_CHUNK ? bytes : DMA_CHUNK;
        c->mem_write(c->mem_ctx, pa, zeros, n);
    }
}

/* Carry a transfer out. @return the control word for the guest: 0 or DMA_ERROR. */
static uint32_t transfer(struct fw_cfg *f, uint32_t control, uint32_t bytes, uint64_t pa)
{
    const struct machine_config *c = machine_config_of(f->m);
    struct item item;

    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    if (!(control & (DMA_READ | DMA_SKIP)))
        return control & DMA_WRITE ? DMA_ERROR : 0;
    item = find_item(f);
    uint32_t left = f->s.at < item.bytes ? item.bytes - f->s.at : 0, n = bytes < left ? bytes : left;
    if (bytes - n > DMA_ZEROS || pa > c->ram_bytes || bytes > c->ram_bytes - pa)
        return DMA_ERROR; /* a long way through nobody's addresses would take its time */
    if (n && (control & DMA_READ))
        c->mem_write(c->mem_ctx, pa, item.data + f->s.at, n);
    f->s.at += n;
    if (control & DMA_READ)
        write_zeros(c, pa + n, bytes - n);
    return 0;
}

static void start_dma(struct fw_cfg *f, uint64_t pa)
{
    const struct machine_config *c = machine_config_of(f->m);
    uint8_t request[16], status[4];

    if (!c->mem_read || !c->mem_write)
        return;
    c->mem_read(c->mem_ctx, pa, request, sizeof request);
    put_be32(status, transfer(f, get_be32(request), get_be32(request + 4),
                              (uint64_t)get_be32(request + 8) << 32 | get_be32(request + 12)));
    c->mem_write(c->mem_ctx, pa, status, sizeof status);
}

/* Reads show a signature, most significant byte first. */
static uint32_t dma_read(void *dev, uint64_t addr, unsigned size)
{
    static const uint8_t signature[DMA_BYTES] = { 'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G' };
    unsigned at = (unsigned)(addr - PORT_DMA);
    uint32_t value = 0;

    (void)dev;
    for (unsigned i = 0; i < size && at + i < DMA_BYTES; i++)
        value |= (uint32_t)signature[at + i] << (8 * i);
    return value;
}

static void dma_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct fw_cfg *f = dev;
    uint32_t swapped = __builtin_bswap32(value);

    if (size != 4)
        return;
    if (addr == PORT_DMA) {
        f->s.dma_high = swapped;
    } else if (addr == PORT_DMA + 4) {
        start_dma(f, (uint64_t)f->s.dma_high << 32 | swapped);
        f->s.dma_high = 0;
    }
}

/* ---- power-on --------------------------------------------------------------------------------------- */

static void fw_cfg_reset(void *dev)
{
    struct fw_cfg *f = dev;

    memset(&f->s, 0, sizeof f->s);
}

static const struct io_ops port_ops = {
    .name = "fw_cfg", .read = port_read, .write = port_write, .wide = true
};
static const struct io_ops dma_ops = {
    .name = "fw_cfg-dma", .read = dma_read, .write = dma_write, .wide = true
};

static bool add_files(struct fw_cfg *f, const struct machine_config *c)
{
    static const uint8_t wait[4] = { 0xff, 0xff, 0xff, 0xff }; /* -1: no reset when nothing boots */

    put64(f->ram_bytes, c->ram_bytes);
    put64(f->e820 + 8, c->ram_bytes);
    f->e820[16] = E820_RAM;
    if (!fw_cfg_add_file(f, "etc/e820", f->e820, sizeof f->e820))
        return false;
    if (!fw_cfg_add_file(f, "etc/boot-fail-wait", wait, sizeof wait))
        return false;
    for (unsigned i = 0; i < c->fw_file_count && i < MACHINE_FW_FILES; i++)
        if (!fw_cfg_add_file(f, c->fw_file[i].name, c->fw_file[i].data, c->fw_file[i].bytes))
            return false;
    return true;
}

struct fw_cfg *fw_cfg_new(struct machine *m)
{
    struct fw_cfg *f = machine_alloc(m, sizeof *f);

    if (!f || machine_claim_ports(m, PORT_SELECT, 2, &port_ops, f) ||
        machine_claim_ports(m, PORT_DMA, DMA_BYTES, &dma_ops, f) ||
        device_register(m, "fw_cfg", fw_cfg_reset, f, &f->s, sizeof f->s) ||
        !add_files(f, machine_config_of(m)))
        return NULL;
    f->m = m;
    return f;
}
