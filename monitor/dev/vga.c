/*
 * VGA: the registers, and 256 KiB of memory in four planes behind A0000..BFFFF.
 *
 * The memory side is complete: chain-4, odd/even (text) and planar addressing, latches, the four
 * write and two read modes, so that a console may also load fonts into plane 2. Nothing is drawn;
 * vga_text() reads the screen back from planes 0 and 1 as the CRTC would. Retrace is derived from
 * VM time: a frame of 449 lines at 70 Hz, so that a guest that waits for it goes on.
 *
 * After reset the card is in text mode 3 (80 x 25, colour) with a blank screen, as its firmware
 * leaves it, since a kernel that is loaded directly never runs that firmware.
 *
 * Ref: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define VGA_PA      0xa0000u
#define VGA_BYTES   0x20000u
#define PLANES      4u
#define PLANE_BYTES 0x10000u

#define PORT_CRTC_MONO  0x3b4
#define PORT_STAT_MONO  0x3ba
#define PORT_BASE       0x3c0
#define PORT_CRTC_COLOR 0x3d4
#define PORT_STAT_COLOR 0x3da

/* clang-format off */
enum vga_port {
    P_ATTR = 0x3c0, P_ATTR_READ, P_MISC_STAT0, P_ENABLE, P_SEQ_INDEX, P_SEQ, P_DAC_MASK, P_DAC_READ,
    P_DAC_WRITE, P_DAC, P_FEATURE_READ, P_UNUSED, P_MISC_READ, P_UNUSED2, P_GC_INDEX, P_GC,
};
/* clang-format on */

#define MISC_COLOR  0x01
#define ATTR_SOURCE 0x20 /* index bit: the palette shows the screen */
#define STAT0_SENSE 0x10
#define STAT1_BLANK 0x01
#define STAT1_VSYNC 0x08

enum { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_CHAR_MAP, SEQ_MEMORY, SEQ_COUNT };
#define SEQ_MEM_PLANAR 0x04 /* 0: odd/even */
#define SEQ_MEM_CHAIN4 0x08

/* clang-format off */
enum { GC_SET_RESET, GC_ENABLE_SR, GC_COMPARE, GC_ROTATE, GC_READ_MAP, GC_MODE, GC_MISC, GC_DONT_CARE,
       GC_BIT_MASK, GC_COUNT };
/* clang-format on */
#define GC_MODE_WRITE(v) ((v)&3)
#define GC_MODE_READ1    0x08
#define GC_MODE_ODD_EVEN 0x10
#define GC_MISC_GRAPHICS 0x01
#define GC_MISC_MAP(v)   ((v) >> 2 & 3)

/* clang-format off */
enum { CR_HDISP_END = 0x01, CR_OVERFLOW = 0x07, CR_MAX_SCAN = 0x09, CR_START_HIGH = 0x0c,
       CR_START_LOW = 0x0d, CR_VSYNC_END = 0x11, CR_VDISP_END = 0x12, CR_OFFSET = 0x13, CR_COUNT = 0x19 };
/* clang-format on */
#define CR_PROTECT       0x80 /* in CR_VSYNC_END: registers 0..7 are read-only, but for ... */
#define CR7_LINE_COMPARE 0x10

#define ATTR_COUNT 0x15

#define LINE_NS       31778u
#define LINES         449u
#define LINES_SHOWN   400u
#define VSYNC_LINE    412u
#define VSYNC_LINES   2u
#define LINE_SHOWN_NS 25422u

struct vga_state {
    uint8_t misc, feature, enable;
    uint8_t seq_index, seq[SEQ_COUNT];
    uint8_t gc_index, gc[GC_COUNT];
    uint8_t crtc_index, crtc[CR_COUNT];
    uint8_t attr_index, attr_wants_data, attr[ATTR_COUNT];
    uint8_t dac_mask, dac_read_index, dac_write_index, dac_part, dac_is_reading;
    uint8_t dac[256][3];
    uint8_t latch[PLANES];
    uint8_t plane[PLANES][PLANE_BYTES];
};

struct vga {
    struct machine *m;
    struct vga_state s;
};

/* clang-format off */
/* Mode 3: 80 x 25 characters of 9 x 16 dots. */
static const uint8_t mode3_seq[SEQ_COUNT] = { 0x03, 0x00, 0x03, 0x00, 0x02 };
static const uint8_t mode3_gc[GC_COUNT] = { 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff };
static const uint8_t mode3_crtc[CR_COUNT] = {
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
    0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
};
static const uint8_t mode3_attr[ATTR_COUNT] = {
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
    0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00,
};
/* clang-format on */
#define MODE3_MISC 0x67

/* ---- memory ---------------------------------------------------------------------------------- */

/** Offset in the mapped window, or -1 when the present map does not reach the address. */
static int32_t window_offset(const struct vga *v, uint64_t pa)
{
    static const struct {
        uint32_t first, bytes;
    } maps[4] = { { 0x00000, 0x20000 }, { 0x00000, 0x10000 }, { 0x10000, 0x08000 }, { 0x18000, 0x08000 } };
    unsigned map = GC_MISC_MAP(v->s.gc[GC_MISC]);
    uint32_t at = (uint32_t)(pa - VGA_PA) - maps[map].first;

    return at < maps[map].bytes ? (int32_t)(at & (PLANE_BYTES - 1)) : -1;
}

static uint8_t rotate_right(uint8_t byte, unsigned n)
{
    return (uint8_t)(byte >> n | byte << (8 - n));
}

/** Combine a plane's new byte with its latch: function, then bit mask. */
static uint8_t combine(const struct vga *v, uint8_t value, uint8_t latch, uint8_t bit_mask)
{
    switch (v->s.gc[GC_ROTATE] >> 3 & 3) {
    case 1:
        value &= latch;
        break;
    case 2:
        value |= latch;
        break;
    case 3:
        value ^= latch;
        break;
    default:
        break;
    }
    return (uint8_t)((value & bit_mask) | (latch & ~bit_mask));
}

/** What one plane gets for a byte the CPU wrote. */
static uint8_t plane_value(const struct vga *v, unsigned plane, uint8_t byte)
{
    const uint8_t *gc = v->s.gc;
    uint8_t latch = v->s.latch[plane], mask = gc[GC_BIT_MASK];
    uint8_t rotated = rotate_right(byte, gc[GC_ROTATE] & 7);
    uint8_t filled = gc[GC_SET_RESET] >> plane & 1 ? 0xff : 0;

    switch (GC_MODE_WRITE(gc[GC_MODE])) {
    case 0:
        return combine(v, gc[GC_ENABLE_SR] >> plane & 1 ? filled : rotated, latch, mask);
    case 1:
        return latch;
    case 2:
        return combine(v, byte >> plane & 1 ? 0xff : 0, latch, mask);
    default:
        return combine(v, filled, latch, mask & rotated);
    }
}

/** Planes and the offset in them that a window offset means; text mode splits by bit 0. */
static uint8_t addressed_planes(const struct vga *v, uint32_t *at)
{
    uint32_t ofs = *at;

    if (v->s.seq[SEQ_MEMORY] & SEQ_MEM_CHAIN4) {
        *at = ofs & ~3u;
        return (uint8_t)(1u << (ofs & 3));
    }
    if (!(v->s.seq[SEQ_MEMORY] & SEQ_MEM_PLANAR)) {
        *at = ofs & ~1u;
        return ofs & 1 ? 0x0a : 0x05;
    }
    return 0x0f;
}

static void write_byte(struct vga *v, uint64_t pa, uint8_t byte)
{
    int32_t ofs = window_offset(v, pa);

    if (ofs < 0)
        return;
    uint32_t at = (uint32_t)ofs;
    uint8_t planes = addressed_planes(v, &at) & v->s.seq[SEQ_MAP_MASK];
    for (unsigned i = 0; i < PLANES; i++)
        if (planes >> i & 1)
            v->s.plane[i][at] = plane_value(v, i, byte);
}

/** Read mode 1: a bit is 1 where the planes that count have the colour asked for. */
static uint8_t color_compare(const struct vga *v)
{
    uint8_t differs = 0;

    for (unsigned i = 0; i < PLANES; i++)
        if (v->s.gc[GC_DONT_CARE] >> i & 1)
            differs |= v->s.latch[i] ^ (v->s.gc[GC_COMPARE] >> i & 1 ? 0xff : 0);
    return (uint8_t)~differs;
}

static uint8_t read_byte(struct vga *v, uint64_t pa)
{
    int32_t ofs = window_offset(v, pa);

    if (ofs < 0)
        return 0xff;
    uint32_t at = (uint32_t)ofs;
    uint8_t planes = addressed_planes(v, &at);
    for (unsigned i = 0; i < PLANES; i++)
        v->s.latch[i] = v->s.plane[i][at];
    if (v->s.gc[GC_MODE] & GC_MODE_READ1)
        return color_compare(v);
    unsigned plane = v->s.gc[GC_READ_MAP] & 3;
    if (v->s.seq[SEQ_MEMORY] & SEQ_MEM_CHAIN4)
        plane = (unsigned)__builtin_ctz(planes);
    else if (v->s.gc[GC_MODE] & GC_MODE_ODD_EVEN)
        plane = (plane & 2) | ((uint32_t)ofs & 1);
    if (v->s.gc[GC_MODE] & GC_MODE_ODD_EVEN)
        at = (uint32_t)ofs & ~1u;
    return v->s.plane[plane][at];
}

static uint32_t vga_mem_read(void *dev, uint64_t addr, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)read_byte(dev, addr + i) << (8 * i);
    return value;
}

static void vga_mem_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++)
        write_byte(dev, addr + i, (uint8_t)(value >> (8 * i)));
}

/* ---- registers ---------------------------------------------------------------------------------- */

static uint8_t input_status_1(struct vga *v)
{
    uint64_t now = machine_now_ns(v->m);
    uint32_t line = (uint32_t)(now / LINE_NS % LINES);
    bool is_blank = line >= LINES_SHOWN || now % LINE_NS >= LINE_SHOWN_NS;
    bool is_vsync = line >= VSYNC_LINE && line < VSYNC_LINE + VSYNC_LINES;

    v->s.attr_wants_data = 0; /* reading resets the flip-flop of 3C0h */
    return (uint8_t)((is_blank ? STAT1_BLANK : 0) | (is_vsync ? STAT1_VSYNC : 0));
}

/** The CRTC answers at 3Dxh or at 3Bxh, as the miscellaneous register says. */
static bool is_mapped(const struct vga *v, uint64_t addr)
{
    bool is_color = addr >= PORT_CRTC_COLOR;
    return is_color == ((v->s.misc & MISC_COLOR) != 0);
}

static uint32_t crtc_read(void *dev, uint64_t addr, unsigned size)
{
    struct vga *v = dev;

    (void)size;
    if (!is_mapped(v, addr))
        return 0xff;
    switch (addr) {
    case PORT_STAT_MONO:
    case PORT_STAT_COLOR:
        return input_status_1(v);
    case PORT_CRTC_MONO:
    case PORT_CRTC_COLOR:
        return v->s.crtc_index;
    default:
        return v->s.crtc_index < CR_COUNT ? v->s.crtc[v->s.crtc_index] : 0;
    }
}

static void crtc_write_register(struct vga *v, uint8_t value)
{
    unsigned index = v->s.crtc_index;

    if (index >= CR_COUNT)
        return;
    if (index <= CR_OVERFLOW && (v->s.crtc[CR_VSYNC_END] & CR_PROTECT)) {
        if (index == CR_OVERFLOW)
            v->s.crtc[index] = (uint8_t)((v->s.crtc[index] & ~CR7_LINE_COMPARE) | (value & CR7_LINE_COMPARE));
        return;
    }
    v->s.crtc[index] = value;
}

static void crtc_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct vga *v = dev;

    (void)size;
    if (!is_mapped(v, addr))
        return;
    switch (addr) {
    case PORT_STAT_MONO:
    case PORT_STAT_COLOR:
        v->s.feature = (uint8_t)value;
        break;
    case PORT_CRTC_MONO:
    case PORT_CRTC_COLOR:
        v->s.crtc_index = value & 0x3f;
        break;
    default:
        crtc_write_register(v, (uint8_t)value);
        break;
    }
}

static void attr_write(struct vga *v, uint8_t value)
{
    if (!v->s.attr_wants_data)
        v->s.attr_index = value & 0x3f;
    else if ((v->s.attr_index & 0x1f) < ATTR_COUNT)
        v->s.attr[v->s.attr_index & 0x1f] = value & 0x3f;
    v->s.attr_wants_data ^= 1;
}

static void dac_write(struct vga *v, uint8_t value)
{
    v->s.dac[v->s.dac_write_index][v->s.dac_part] = value & 0x3f;
    if (++v->s.dac_part == 3) {
        v->s.dac_part = 0;
        v->s.dac_write_index++;
    }
}

static uint8_t dac_read(struct vga *v)
{
    uint8_t value = v->s.dac[v->s.dac_read_index][v->s.dac_part];

    if (++v->s.dac_part == 3) {
        v->s.dac_part = 0;
        v->s.dac_read_index++;
    }
    return value;
}

static uint32_t vga_read(void *dev, uint64_t addr, unsigned size)
{
    struct vga *v = dev;
    struct vga_state *s = &v->s;

    (void)size;
    switch ((enum vga_port)addr) {
    case P_ATTR:
        return s->attr_index;
    case P_ATTR_READ:
        return (s->attr_index & 0x1f) < ATTR_COUNT ? s->attr[s->attr_index & 0x1f] : 0;
    case P_MISC_STAT0:
        return STAT0_SENSE;
    case P_ENABLE:
        return s->enable;
    case P_SEQ_INDEX:
        return s->seq_index;
    case P_SEQ:
        return s->seq_index < SEQ_COUNT ? s->seq[s->seq_index] : 0;
    case P_DAC_MASK:
        return s->dac_mask;
    case P_DAC_READ:
        return s->dac_is_reading ? 3 : 0;
    case P_DAC_WRITE:
        return s->dac_write_index;
    case P_DAC:
        return dac_read(v);
    case P_FEATURE_READ:
        return s->feature;
    case P_MISC_READ:
        return s->misc;
    case P_GC_INDEX:
        return s->gc_index;
    case P_GC:
        return s->gc_index < GC_COUNT ? s->gc[s->gc_index] : 0;
    case P_UNUSED:
    case P_UNUSED2:
        break;
    }
    return 0xff;
}

static void vga_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct vga *v = dev;
    struct vga_state *s = &v->s;
    uint8_t byte = (uint8_t)value;

    (void)size;
    switch ((enum vga_port)addr) {
    case P_ATTR:
        attr_write(v, byte);
        break;
    case P_MISC_STAT0:
        s->misc = byte;
        break;
    case P_ENABLE:
        s->enable = byte & 1;
        break;
    case P_SEQ_INDEX:
        s->seq_index = byte & 7;
        break;
    case P_SEQ:
        if (s->seq_index < SEQ_COUNT)
            s->seq[s->seq_index] = byte;
        break;
    case P_DAC_MASK:
        s->dac_mask = byte;
        break;
    case P_DAC_READ:
        s->dac_read_index = byte;
        s->dac_part = 0;
        s->dac_is_reading = 1;
        break;
    case P_DAC_WRITE:
        s->dac_write_index = byte;
        s->dac_part = 0;
        s->dac_is_reading = 0;
        break;
    case P_DAC:
        dac_write(v, byte);
        break;
    case P_GC_INDEX:
        s->gc_index = byte & 0x0f;
        break;
    case P_GC:
        if (s->gc_index < GC_COUNT)
            s->gc[s->gc_index] = byte;
        break;
    case P_ATTR_READ:
    case P_FEATURE_READ:
    case P_MISC_READ:
    case P_UNUSED:
    case P_UNUSED2:
        break;
    }
}

/* ---- the screen as text ------------------------------------------------------------------------ */

static char printable(uint8_t code)
{
    if (code == 0 || code == 0xff)
        return ' ';
    return code >= 0x20 && code < 0x7f ? (char)code : '.';
}

/** Append a row without its trailing blanks; -> the new length, which may exceed size. */
static size_t append_row(const struct vga *v, uint32_t cell, unsigned columns, char *buf, size_t size,
                         size_t len)
{
    unsigned used = 0;

    for (unsigned x = 0; x < columns; x++)
        if (printable(v->s.plane[0][(cell + x) * 2 % PLANE_BYTES]) != ' ')
            used = x + 1;
    for (unsigned x = 0; x < used; x++, len++)
        if (len < size)
            buf[len] = printable(v->s.plane[0][(cell + x) * 2 % PLANE_BYTES]);
    if (len < size)
        buf[len] = '\n';
    return len + 1;
}

size_t vga_text(const struct vga *v, char *buf, size_t size)
{
    const uint8_t *cr = v->s.crtc;
    unsigned columns = cr[CR_HDISP_END] + 1u, pitch = cr[CR_OFFSET] * 2u;
    unsigned lines =
        cr[CR_VDISP_END] + (cr[CR_OVERFLOW] & 0x02 ? 0x100u : 0) + (cr[CR_OVERFLOW] & 0x40 ? 0x200u : 0) + 1;
    unsigned rows = lines / ((cr[CR_MAX_SCAN] & 0x1fu) + 1);
    uint32_t start = (uint32_t)cr[CR_START_HIGH] << 8 | cr[CR_START_LOW];
    size_t len = 0;

    if (!size)
        return 0;
    if (!(v->s.gc[GC_MISC] & GC_MISC_GRAPHICS))
        for (unsigned y = 0; y < rows; y++)
            len = append_row(v, start + y * pitch, columns, buf, size - 1, len);
    if (len > size - 1)
        len = size - 1;
    buf[len] = 0;
    return len;
}

/* ---- power-on -------------------------------------------------------------------------------------- */

static void vga_reset(void *dev)
{
    struct vga *v = dev;

    memset(&v->s, 0, sizeof v->s);
    memcpy(v->s.seq, mode3_seq, sizeof mode3_seq);
    memcpy(v->s.gc, mode3_gc, sizeof mode3_gc);
    memcpy(v->s.crtc, mode3_crtc, sizeof mode3_crtc);
    memcpy(v->s.attr, mode3_attr, sizeof mode3_attr);
    v->s.misc = MODE3_MISC;
    v->s.enable = 1;
    v->s.attr_index = ATTR_SOURCE;
    v->s.dac_mask = 0xff;
    for (uint32_t at = 0; at < PLANE_BYTES; at += 2) { /* blanks, light grey on black */
        v->s.plane[0][at] = ' ';
        v->s.plane[1][at] = 0x07;
    }
}

static const struct io_ops crtc_ops = { .name = "vga-crtc", .read = crtc_read, .write = crtc_write };
static const struct io_ops vga_ops = { .name = "vga", .read = vga_read, .write = vga_write };
static const struct io_ops vga_mem_ops = {
    .name = "vga-mem", .read = vga_mem_read, .write = vga_mem_write, .wide = true
};

struct vga *vga_new(struct machine *m)
{
    struct vga *v = machine_alloc(m, sizeof *v);

    if (!v || machine_claim_ports(m, PORT_CRTC_MONO, 2, &crtc_ops, v) ||
        machine_claim_ports(m, PORT_STAT_MONO, 1, &crtc_ops, v) ||
        machine_claim_ports(m, PORT_CRTC_COLOR, 2, &crtc_ops, v) ||
        machine_claim_ports(m, PORT_STAT_COLOR, 1, &crtc_ops, v) ||
        machine_claim_ports(m, PORT_BASE, 16, &vga_ops, v) ||
        machine_claim_mem(m, VGA_PA, VGA_BYTES, &vga_mem_ops, v) ||
        device_register(m, "vga", vga_reset, v, &v->s, sizeof v->s))
        return NULL;
    v->m = m;
    return v;
}
