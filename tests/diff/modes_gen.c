/*
 * The generator of cases for the modes that no host runs: ring 0, real mode, virtual-8086 mode, 16-bit
 * segments. A case is one instruction with all of its state; guests/cases runs it and tests/diff/modes compares
 * machines. Registers are chosen so that operands lie in the case's region, mostly, and sometimes at the edges of
 * segments and pages. Flags that the manual leaves undefined are told to the guest, which does not report them.
 *
 *   modes_gen --cases N --seed S [--first K] [--mode real,v86,pm16,pm32] [--only MNEMONIC] OUTPUT
 *   modes_gen --list FILE          what is in such a file
 *
 * Everything derives from (seed, number).
 *
 * Ref: Intel SDM vol. 2A, ch. 2 "Instruction Format"; vol. 3A, ch. 5 "Protection", vol. 3B, ch. 20 "8086 Emulation".
 */
#include <Zydis/Zydis.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guests/cases/cases.h"
#include "tests/diff/case.h"
#include "tests/diff/encodings.h"
#include "tests/diff/random.h"

struct descriptor {
    uint16_t sel;
    uint32_t base, limit;
    uint8_t access, flags;
};
static const struct descriptor descriptors[] = {
#define ROW(sel, base, limit, access, flags) { sel, base, limit, access, flags },
    CASES_GDT(ROW) CASES_LDT(ROW)
#undef ROW
    { 0x08, 0, 0xffffffffu, 0x9b, 4 }, { 0x10, 0, 0xffffffffu, 0x93, 4 },
    { 0x18, 0, 0xffffffffu, 0xfb, 4 }, { 0x20, 0, 0xffffffffu, 0xf3, 4 },
};

struct build {
    const struct gen *g;
    struct rng r;
    struct modes_case *c;
    bool code16, is_user, is_paged;
    uint8_t fixed; /* registers whose value is chosen already */
};

enum { S_ES, S_CS, S_SS, S_DS, S_FS, S_GS };

static uint16_t *selector(struct modes_case *c, unsigned seg)
{
    uint16_t *const at[] = { &c->es, &c->cs, &c->ss, &c->ds, &c->fs, &c->gs };

    return at[seg];
}

static bool is_real_like(const struct build *b)
{
    return b->c->mode == MODE_REAL || b->c->mode == MODE_V86;
}

static struct descriptor segment(const struct build *b, unsigned seg)
{
    uint16_t sel = *selector(b->c, seg);

    if (is_real_like(b))
        return (struct descriptor){ sel, (uint32_t)sel << 4, 0xffff, 0xf3, 0 };
    for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++)
        if (descriptors[i].sel == (sel & ~3u))
            return descriptors[i];
    return (struct descriptor){ sel, 0, 0, 0, 0 };
}

/* ---- where things are --------------------------------------------------------------------------- */

/** A linear address for an operand of `size` bytes: in REGION, clear of the code, sometimes at an edge. */
static uint32_t target(struct rng *r, uint32_t size)
{
    uint32_t straddle = size > 1 ? 1 + rnd(r, size - 1) : 0, k = rnd(r, 100);

    if (k < 40)
        return REGION + 0x10 + rnd(r, 0x5f00);
    if (k < 80)
        return REGION + 0x8000 + rnd(r, 0x14f00);
    if (k < 84)
        return REGION + 0x10000 - straddle; /* the end of a 64 KiB segment */
    if (k < 86)
        return REGION + 0x1d000 - straddle;
    if (k < 88)
        return REGION + 0x1e000 - straddle;
    if (k < 90)
        return REGION + 0x1f000 + rnd(r, 0xf00);
    if (k < 92)
        return REGION + 0x1d000 + rnd(r, 0xf00);
    if (k < 94)
        return REGION + 0xd000 - straddle; /* the end of the small segment */
    if (k < 96)
        return REGION + 0x8000 - straddle; /* the limit of the expand-down ones */
    if (k < 98)
        return REGION + REGION_BYTES - straddle;
    return REGION + rnd(r, REGION_BYTES - 64);
}

static void set_reg(struct build *b, unsigned reg, uint32_t value)
{
    b->c->gpr[reg] = value;
    b->fixed |= (uint8_t)(1u << reg);
}

static void put_bytes(uint8_t *to, uint64_t v, unsigned n)
{
    memcpy(to, &v, n);
}

/* ---- starting state --------------------------------------------------------------------------------- */

static const uint16_t data_user[] = { 0x23, 0x23, 0x6b, 0x7b, 0x7b, 0x83, 0x8b, 0x93, 0x9b, 0xf3, 0x07, 0x17, 0, 0x5b };
static const uint16_t data_ring0[] = { 0x10, 0x10, 0x60, 0x70, 0x70, 0x83, 0x8b, 0x93, 0x9b, 0xf3, 0x07, 0x17, 0, 0x50 };
static const uint16_t any_selector[] = { 0x08, 0x10, 0x1b, 0x23, 0x20, 0x18, 0x40, 0x48, 0x4b, 0x50, 0x58, 0x5b, 0x60, 0x6b,
                                         0x70, 0x78, 0x7b, 0x83, 0x8b, 0x93, 0x9b, 0xa0, 0xa3, 0xab, 0xb0, 0xb3, 0xb8, 0xbb,
                                         0xe8, 0xf0, 0xf3, 0x100, 0x28, 0x30, 0xe0, 0xe3, 0xf8, 0, 3, 0x07, 0x0f, 0x17, 0x0c,
                                         0x1f, 0x200, 0xfffc, 0xc0, 0xc3, 0xc8, 0xcb, 0xd0, 0xd3, 0x1000 };
#define PICK(r, a) ((a)[rnd((r), sizeof(a) / sizeof(a)[0])])

static uint16_t real_segment(struct rng *r)
{
    static const uint16_t values[] = { REGION >> 4, (REGION >> 4) + 0x800, (REGION >> 4) + 0x1000, (REGION >> 4) + 0x7ff };

    return chance(r, 70) ? PICK(r, values) : (uint16_t)((REGION >> 4) + rnd(r, 0x1001));
}

/** Any selector that means something to the mode. */
static uint16_t some_selector(struct build *b)
{
    return is_real_like(b) ? real_segment(&b->r) : PICK(&b->r, any_selector);
}

static void choose_segments(struct build *b)
{
    struct modes_case *c = b->c;
    struct rng *r = &b->r;

    if (is_real_like(b)) {
        for (unsigned s = 0; s < 6; s++)
            *selector(c, s) = real_segment(r);
        c->cs = REGION >> 4;
        return;
    }
    for (unsigned s = 0; s < 6; s++)
        *selector(c, s) = b->is_user ? PICK(r, data_user) : PICK(r, data_ring0);
    if (chance(r, 60)) /* the ordinary case */
        c->ds = c->es = b->code16 ? (b->is_user ? 0x6b : 0x60) : b->is_user ? 0x23 : 0x10;
    if (b->code16)
        c->cs = b->is_user ? 0x4b : 0x40;
    else if (chance(r, 50))
        c->cs = b->is_user ? 0x1b : 0x08;
    else
        c->cs = b->is_user ? (chance(r, 15) ? 0xa3 : chance(r, 20) ? 0x0f : 0x5b) : 0x50;
    if (b->is_user) {
        static const uint16_t stacks[] = { 0x23, 0x23, 0x6b, 0x7b, 0x7b, 0x8b, 0x93, 0x17 };

        c->ss = PICK(r, stacks);
    } else {
        static const uint16_t stacks[] = { 0x10, 0x10, 0x60, 0x70 };

        c->ss = PICK(r, stacks);
    }
}

static void choose_stack(struct build *b)
{
    struct rng *r = &b->r;
    struct descriptor ss = segment(b, S_SS);
    bool small = is_real_like(b) || !(ss.flags & 4);
    uint32_t lin = REGION + 0xc400 + 2 * rnd(r, 0x500), ofs = lin - ss.base;

    if (ss.limit == 0xfff)
        ofs = 0x800;
    if (b->is_user && b->c->mode != MODE_REAL && chance(r, 6)) /* an exception does not use this stack */
        ofs = small ? (uint32_t[]){ 0, 1, 2, 3, 6, 0xffff, 0xfffe }[rnd(r, 7)] : lin - ss.base + 1;
    if (small)
        ofs = (ofs & 0xffff) | (chance(r, 30) ? (uint32_t)rnd64(r) & 0xffff0000u : 0);
    set_reg(b, ESP, ofs);
    b->c->gpr[EBP] = small && chance(r, 50) ? (ofs & 0xffff0000u) | ((ofs + 0x40) & 0xffff) : ofs + 0x40;
}

static void choose_flags(struct build *b)
{
    struct modes_case *c = b->c;
    struct rng *r = &b->r;

    c->eflags = EFL_ONE | ((uint32_t)rnd64(r) & (EFL_ARITH | EFL_IF | EFL_IOPL));
    if (chance(r, 15))
        c->eflags |= EFL_DF;
    if (chance(r, 4))
        c->eflags |= EFL_NT;
    if (chance(r, 4))
        c->eflags |= EFL_AC;
    if (chance(r, 5))
        c->eflags |= EFL_ID;
    if (b->is_user && c->mode != MODE_REAL && chance(r, 4))
        c->eflags |= EFL_TF;
    if (chance(r, 5))
        c->cr0 |= CR0_TS;
    if (chance(r, 3))
        c->cr0 |= CR0_EM;
    if (chance(r, 50))
        c->cr0 |= CR0_WP;
    if (chance(r, 10))
        c->cr0 |= CR0_AM;
    if (chance(r, 10))
        c->cr4 |= rnd(r, 4) << 2; /* TSD, DE */
}

static void begin_case(struct build *b, enum case_mode mode)
{
    struct modes_case *c = b->c;
    struct rng *r = &b->r;

    c->mode = (uint8_t)mode;
    c->fpu_image = (uint8_t)rnd(r, 4);
    b->code16 = mode != MODE_PM32;
    b->is_user = mode == MODE_V86 || (mode != MODE_REAL && chance(r, 50));
    b->is_paged = mode != MODE_REAL;
    for (unsigned i = 0; i < 8; i++)
        c->gpr[i] = chance(r, 50) ? boundary_value(r) : chance(r, 50) ? (uint32_t)rnd64(r) : rnd(r, 0x10000);
    choose_segments(b);
    choose_stack(b);
    choose_flags(b);
    c->code_at = CODE_AT + 0x400 + rnd(r, 0x1400);
    if (b->code16 && chance(r, 2))
        c->code_at = REGION + 0x10000 - 1 - rnd(r, 6); /* over the end of the segment */
}

/* ---- operands ------------------------------------------------------------------------------------------- */

struct operand {
    uint8_t bytes[8];
    unsigned len;
};

/* A register in an address gets this value, unless it has one already. -> what it has */
static uint32_t want_reg(struct build *b, unsigned reg, uint32_t value)
{
    if (!(b->fixed & (1u << reg)))
        set_reg(b, reg, value);
    return b->c->gpr[reg];
}

static struct operand form16(struct build *b, unsigned reg_field, uint32_t ofs)
{
    static const int8_t parts[8][2] = { { EBX, ESI }, { EBX, EDI }, { EBP, ESI }, { EBP, EDI },
                                        { ESI, -1 },  { EDI, -1 },  { EBP, -1 },  { EBX, -1 } };
    struct rng *r = &b->r;
    unsigned mod = rnd(r, 3), rm = rnd(r, 8), nd = mod == 0 ? (rm == 6 ? 2 : 0) : mod;
    uint32_t disp = nd == 1 ? (uint32_t)(int8_t)rnd(r, 256) : (uint32_t)rnd64(r), sum = 0;
    struct operand o = { .bytes = { (uint8_t)(mod << 6 | reg_field << 3 | rm) }, .len = 1 };

    b->fixed &= (uint8_t)~(1u << EBP);
    if (!(mod == 0 && rm == 6)) {
        if (parts[rm][1] >= 0)
            sum = want_reg(b, (unsigned)parts[rm][1], (uint32_t)rnd64(r));
        if (nd != 2 || !(b->fixed & (1u << parts[rm][0])))
            sum += want_reg(b, (unsigned)parts[rm][0],
                            ((uint32_t)rnd64(r) & 0xffff0000u) | ((ofs - sum - (nd ? disp : 0)) & 0xffff));
        else
            sum += b->c->gpr[parts[rm][0]];
    }
    if (nd == 2)
        disp = ofs - sum;
    for (unsigned i = 0; i < nd; i++)
        o.bytes[o.len++] = (uint8_t)(disp >> (8 * i));
    return o;
}

static struct operand form32(struct build *b, unsigned reg_field, uint32_t ofs)
{
    struct rng *r = &b->r;
    unsigned mod = rnd(r, 3), rm = rnd(r, 8), base = rm, index = 4, scale = rnd(r, 4), nd;
    uint32_t disp, sum = 0;
    struct operand o = { .bytes = { (uint8_t)(mod << 6 | reg_field << 3 | rm) }, .len = 1 };
    bool has_base;

    if (rm == 4) {
        base = rnd(r, 8);
        index = rnd(r, 8);
        o.bytes[o.len++] = (uint8_t)(scale << 6 | index << 3 | base);
    }
    has_base = !(mod == 0 && base == 5);
    nd = mod == 1 ? 1 : mod == 2 || !has_base ? 4 : 0;
    disp = nd == 1 ? (uint32_t)(int8_t)rnd(r, 256) : nd ? (uint32_t)rnd64(r) : 0;
    b->fixed &= (uint8_t)~(1u << EBP);
    if (index != 4)
        sum = want_reg(b, index, chance(r, 50) ? rnd(r, 64) : (uint32_t)rnd64(r)) << scale;
    if (has_base)
        sum += want_reg(b, base, ofs - sum - disp);
    if (nd == 4)
        disp = ofs - sum;
    for (unsigned i = 0; i < nd; i++)
        o.bytes[o.len++] = (uint8_t)(disp >> (8 * i));
    return o;
}

/* The offset in `seg` of a place for `size` bytes; *lin is that place, 0 when it is nowhere in REGION. */
static uint32_t choose_offset(struct build *b, unsigned seg, uint32_t size, bool addr16, uint32_t *lin)
{
    struct rng *r = &b->r;
    struct descriptor d = segment(b, seg);
    uint32_t ofs;

    *lin = 0;
    if (chance(r, addr16 ? 8 : 4)) /* anywhere */
        return chance(r, 50) ? boundary_value(r) : (uint32_t)rnd64(r);
    ofs = target(r, size) - d.base;
    if (d.base && chance(r, 8)) /* at the limit, be it the end or the beginning */
        ofs = d.limit + 1 - rnd(r, size + 2);
    if (d.limit == 0xfff && chance(r, 80))
        ofs = rnd(r, 0x1000);
    if (addr16)
        ofs &= 0xffff;
    if (d.base + ofs - REGION < REGION_BYTES - 32)
        *lin = d.base + ofs;
    return ofs;
}

/* ---- what single instructions need ---------------------------------------------------------------------- */

static unsigned stack_bytes(const struct build *b, uint32_t at)
{
    return at - REGION < REGION_BYTES - 32 ? sizeof b->c->stack : 0;
}

/* What RETF, IRET, POP and the like find: words or dwords in the order of their addresses. */
static void fill_stack(struct build *b, unsigned size, const uint32_t *v, unsigned n)
{
    struct descriptor ss = segment(b, S_SS);
    uint32_t sp = b->c->gpr[ESP], at = ss.base + (is_real_like(b) || !(ss.flags & 4) ? sp & 0xffff : sp);

    if (!stack_bytes(b, at))
        return;
    b->c->stack_at = at;
    for (unsigned i = 0; i < sizeof b->c->stack; i++)
        b->c->stack[i] = (uint8_t)rnd(&b->r, 256);
    for (unsigned i = 0; i < n && (i + 1) * size <= sizeof b->c->stack; i++)
        put_bytes(b->c->stack + i * size, v[i], size);
}

/* An offset in code segment `sel` where INT3s are. */
static uint32_t code_offset(struct build *b, uint16_t sel)
{
    uint32_t base = is_real_like(b) ? (uint32_t)sel << 4 : 0, lin = CODE_AT + 0x1a00 + rnd(&b->r, 0x500);

    if (!is_real_like(b))
        for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++)
            if (descriptors[i].sel == (sel & ~3u))
                base = descriptors[i].base;
    return lin - base;
}

/* A code selector, a bad one now and then. */
static uint16_t some_code(struct build *b)
{
    static const uint16_t ring0[] = { 0x08, 0x40, 0x50, 0xa0, 0x50, 0x40, 0x1b, 0x5b, 0x4b, 0xc0, 0xc8, 0xe0 };
    static const uint16_t user[] = { 0x1b, 0x4b, 0x5b, 0xa3, 0x0f, 0xab, 0x1b, 0x5b, 0xc3, 0xcb, 0xd3, 0xe3 };

    if (is_real_like(b))
        return chance(&b->r, 80) ? (uint16_t)(REGION >> 4) : (uint16_t)((REGION >> 4) + rnd(&b->r, 0x600));
    return chance(&b->r, 20) ? PICK(&b->r, any_selector) : b->is_user ? PICK(&b->r, user) : PICK(&b->r, ring0);
}

static void prepare_return(struct build *b, unsigned size, bool is_iret)
{
    struct rng *r = &b->r;
    uint16_t cs = some_code(b), ss = chance(r, 80) ? (uint16_t)(chance(r, 50) ? 0x7b : 0x6b) : PICK(r, any_selector);
    uint32_t flags = EFL_ONE | ((uint32_t)rnd64(r) & (EFL_ARITH | EFL_DF | EFL_IF | EFL_IOPL | EFL_RF | EFL_AC | EFL_ID));
    uint32_t v[6] = { code_offset(b, cs), cs };

    if (chance(r, 5))
        flags |= EFL_NT;
    if (is_iret) {
        v[2] = flags;
        v[3] = 0x4000 + rnd(r, 0x100);
        v[4] = ss;
    } else {
        v[2] = 0x4000 + rnd(r, 0x100);
        v[3] = ss;
    }
    fill_stack(b, size, v, is_iret ? 5 : 4);
}

static bool is_string(const ZydisDecodedInstruction *insn)
{
    return insn->meta.category == ZYDIS_CATEGORY_STRINGOP || insn->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

static bool is_io(const ZydisDecodedInstruction *insn)
{
    return insn->meta.category == ZYDIS_CATEGORY_IO || insn->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

/* Implicit operands: string addresses and counts, ports, divisors, selectors in registers. */
static void prepare_implicit(struct build *b, const ZydisDecodedInstruction *insn, const struct encoding *e, int seg)
{
    struct rng *r = &b->r;
    bool addr16 = insn->address_width == 16;
    uint32_t high = addr16 ? (uint32_t)rnd64(r) & 0xffff0000u : 0, lin;

    if (is_string(insn) || insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU) {
        set_reg(b, ESI, high | choose_offset(b, seg < 0 ? S_DS : (unsigned)seg, 16, addr16, &lin));
        set_reg(b, EDI, high | choose_offset(b, is_string(insn) ? S_ES : seg < 0 ? S_DS : (unsigned)seg, 16, addr16, &lin));
        set_reg(b, ECX, high | (chance(r, 10) ? 0 : rnd(r, 24)));
    }
    if (is_io(insn)) {
        static const uint16_t to[] = { 0x80, 0x84, 0x85, 0x86 }, from[] = { 0x81, 0x83, 0x84, 0x86 };
        bool is_in = insn->mnemonic == ZYDIS_MNEMONIC_IN || insn->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;

        /* what reading gives is the machine's own: only ports that the guest's bitmap forbids */
        set_reg(b, EDX, ((uint32_t)rnd64(r) & 0xffff0000u) | (is_in ? PICK(r, from) : PICK(r, to)));
    }
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (chance(r, 60))
            set_reg(b, EDX, chance(r, 70) ? 0 : 0xffffffffu);
        if (chance(r, 50))
            set_reg(b, EAX, rnd(r, 0x8000));
        break;
    case ZYDIS_MNEMONIC_XLAT:
        set_reg(b, EBX, high | choose_offset(b, seg < 0 ? S_DS : (unsigned)seg, 1, addr16, &lin));
        break;
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_ENTER:
        b->fixed |= 1u << EBP;
        break;
    default:
        break;
    }
    if (e->has_modrm && !e->is_mem && e->map0f && (e->opcode <= 3 || e->opcode == 0xb2) && chance(r, 90))
        set_reg(b, e->modrm & 7, ((uint32_t)rnd64(r) & 0xffff0000u) | some_selector(b)); /* LAR, LSL, VERR, LLDT */
    if (!e->map0f && e->opcode == 0x8e && !e->is_mem)
        set_reg(b, e->modrm & 7, ((uint32_t)rnd64(r) & 0xffff0000u) | some_selector(b));
}

/* Operands in memory that must mean something. `lin` is where. */
static void prepare_memory(struct build *b, const ZydisDecodedInstruction *insn, const struct encoding *e, uint32_t lin)
{
    struct modes_case *c = b->c;
    unsigned size = insn->operand_width / 8, reg = (e->modrm >> 3) & 7;
    bool is_far = insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR, is_jump = insn->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
    bool is_pointer = insn->mnemonic == ZYDIS_MNEMONIC_LDS || insn->mnemonic == ZYDIS_MNEMONIC_LES ||
                      insn->mnemonic == ZYDIS_MNEMONIC_LFS || insn->mnemonic == ZYDIS_MNEMONIC_LGS ||
                      insn->mnemonic == ZYDIS_MNEMONIC_LSS;
    uint16_t sel = is_far ? some_code(b) : some_selector(b);

    if (!lin)
        return;
    for (unsigned i = 0; i < sizeof c->mem; i++)
        c->mem[i] = (uint8_t)rnd(&b->r, 256);
    if (is_far || is_pointer) {
        put_bytes(c->mem, is_far ? code_offset(b, sel) : rnd(&b->r, 0x10000), size);
        put_bytes(c->mem + size, sel, 2);
    } else if (is_jump) {
        put_bytes(c->mem, code_offset(b, c->cs), size);
    } else if ((!e->map0f && e->opcode == 0x8e) || (e->map0f && e->opcode <= 3 && !(e->opcode == 1 && reg < 4))) {
        put_bytes(c->mem, sel, 2);
    } else {
        return;
    }
    c->mem_at = lin;
}

/* Control registers keep what the guest lives on. */
static void prepare_control(struct build *b, const struct encoding *e)
{
    struct rng *r = &b->r;
    unsigned cr = (e->modrm >> 3) & 7, reg = e->modrm & 7;
    uint32_t cr0 = 0x33 | (b->is_paged ? 0x80000000u : 0) | b->c->cr0, cr4 = 0x600 | b->c->cr4;

    if (cr == 0)
        set_reg(b, reg, chance(r, 10) ? cr0 | 0x20000000u : cr0 ^ (rnd(r, 8) << 1) ^ (rnd(r, 8) << 16 & 0x50000));
    if (cr == 3)
        set_reg(b, reg, PD_AT | rnd(r, 4) << 3);
    if (cr == 4)
        set_reg(b, reg, chance(r, 15) ? cr4 | 1u << (11 + rnd(r, 2) * 12) : cr4 ^ (rnd(r, 4) << 2) ^ (rnd(r, 2) << 9));
}

/* false: a guest would not survive it, or its machine may do as it likes. */
static bool is_safe(const struct build *b, const ZydisDecodedInstruction *insn, const struct encoding *e)
{
    bool ring0 = !b->is_user;
    unsigned reg = (e->modrm >> 3) & 7;

    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_LMSW:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
        return !ring0;
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
        return b->c->mode == MODE_V86 || (!ring0 && (b->c->eflags & EFL_IOPL) != EFL_IOPL); /* the bitmap decides */
    default:
        break;
    }
    if (e->map0f && (e->opcode & 0xfc) == 0x20) { /* MOV to and from control and debug registers */
        if ((e->opcode & 1) && ring0)
            return reg < 4 && !(e->opcode & 2); /* not DR6, DR7: what is set stays */
        return !ring0 || !(e->opcode & 2) || reg == 0 || reg == 2 || reg == 3 || reg == 4;
    }
    return true;
}

/* ---- an instruction ------------------------------------------------------------------------------------ */

static bool is_vector_or_x87(const ZydisDecodedInstruction *insn)
{
    return insn->meta.isa_ext != ZYDIS_ISA_EXT_BASE && insn->meta.isa_ext != ZYDIS_ISA_EXT_PAUSE;
}

static unsigned add_prefixes(struct build *b, const struct encoding *e, const ZydisDecodedInstruction *insn, uint8_t *p, int *seg)
{
    static const uint8_t overrides[6] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
    struct rng *r = &b->r;
    bool may_66 = e->pfx != 0x66 && !(e->map0f && e->pfx) && !(is_vector_or_x87(insn) && e->map0f);
    unsigned n = 0;

    *seg = -1;
    if (chance(r, 15)) {
        *seg = (int)rnd(r, 6);
        p[n++] = overrides[*seg];
    }
    if (may_66 && chance(r, 35))
        p[n++] = 0x66;
    if (chance(r, 25))
        p[n++] = 0x67;
    if ((insn->attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK) ? chance(r, 12) : chance(r, 2))
        p[n++] = 0xf0;
    if (is_string(insn) && !e->pfx && chance(r, 40))
        p[n++] = chance(r, 50) ? 0xf2 : 0xf3;
    if (n && chance(r, 2)) /* one of them again */
        p[n] = p[rnd(r, n)], n++;
    if (e->pfx)
        p[n++] = e->pfx;
    return n;
}

/* Default segment of an operand in memory as the decoder found it, or S_DS. */
static unsigned segment_of(const ZydisDecodedOperand *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            switch (ops[i].mem.segment) {
            case ZYDIS_REGISTER_ES:
                return S_ES;
            case ZYDIS_REGISTER_CS:
                return S_CS;
            case ZYDIS_REGISTER_SS:
                return S_SS;
            case ZYDIS_REGISTER_FS:
                return S_FS;
            case ZYDIS_REGISTER_GS:
                return S_GS;
            default:
                return S_DS;
            }
    return S_DS;
}

static void patch_branch(struct build *b, ZydisDecodedInstruction *insn, uint8_t *bytes)
{
    const unsigned at = insn->raw.imm[0].offset, size = insn->raw.imm[0].size / 8;
    int32_t rel = (int32_t)rnd(&b->r, 100);

    if (chance(&b->r, 30))
        rel = -20 - rel;
    if (size == 2 || size == 4)
        rel *= 4;
    put_bytes(bytes + at, (uint64_t)(int64_t)rel, size);
}

static void patch_far(struct build *b, ZydisDecodedInstruction *insn, uint8_t *bytes)
{
    uint16_t sel = some_code(b);

    put_bytes(bytes + insn->raw.imm[0].offset, code_offset(b, sel), insn->operand_width / 8);
    put_bytes(bytes + insn->raw.imm[0].offset + insn->operand_width / 8, sel, 2);
}

static void prepare_vector(struct build *b, uint8_t *imm)
{
    /* An INT n of the guest's ring 0 looks like an exception, whose error code it lacks. */
    if (!b->is_user && b->c->mode != MODE_REAL && *imm < 0x20)
        *imm = (uint8_t)(0x20 + *imm);
    if (b->c->mode == MODE_PM16 || b->c->mode == MODE_PM32)
        if (chance(&b->r, 30))
            *imm = (uint8_t)(0x40 + rnd(&b->r, 16));
}

/* One case's instruction from this encoding. false: nothing came of it. */
static bool instruction(struct build *b, const struct encoding *e, ZydisMnemonic m)
{
    struct modes_case *c = b->c;
    struct rng *r = &b->r;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[64] = { 0 };
    int seg;
    unsigned n = 0, opcode_at;
    uint32_t lin = 0;

    /* its shape, with prefixes */
    if (e->pfx)
        bytes[n++] = e->pfx;
    if (e->map0f)
        bytes[n++] = 0x0f;
    bytes[n++] = e->opcode;
    bytes[n] = e->modrm;
    if (!encoding_decode(b->g, bytes, 15, &insn, ops) || !is_safe(b, &insn, e))
        return false;
    n = add_prefixes(b, e, &insn, bytes, &seg);
    opcode_at = n;
    if (e->map0f)
        bytes[n++] = 0x0f;
    bytes[n++] = e->opcode;
    bytes[n] = e->modrm;
    memset(bytes + n + 1, 0, 12);
    if (!encoding_decode(b->g, bytes, 15, &insn, ops)) { /* LOCK where it may not be: #UD */
        memset(bytes + n, 0, 8);
        c->code_len = (uint8_t)(n + 2 > 15 ? 15 : n + 2);
        memcpy(c->code, bytes, c->code_len);
        c->code[n] = e->modrm;
        c->undefined = EFL_ARITH;
        return memchr(bytes, 0xf0, opcode_at) != NULL;
    }
    if (insn.mnemonic != m && encoding_excluded(b->g, &insn, ops))
        return false;
    prepare_implicit(b, &insn, e, seg);
    if (e->map0f && (e->opcode & 0xfc) == 0x20 && !b->is_user && (e->opcode & 2) && !(e->opcode & 1))
        prepare_control(b, e);
    if (e->is_mem) {
        bool addr16 = insn.address_width == 16;
        unsigned where = seg >= 0 ? (unsigned)seg : segment_of(ops, insn.operand_count_visible);
        struct operand o;
        ZydisDecodedInstruction again;

        for (unsigned i = 0; i < insn.operand_count; i++) { /* registers that the operation reads keep their value */
            if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && ops[i].visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
                ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LEGACY_32, ops[i].reg.value);

                if (wide >= ZYDIS_REGISTER_EAX && wide <= ZYDIS_REGISTER_EDI && chance(r, 50))
                    b->fixed |= (uint8_t)(1u << (wide - ZYDIS_REGISTER_EAX));
            }
        }
        uint32_t ofs = choose_offset(b, where, 8, addr16, &lin);
        o = addr16 ? form16(b, (e->modrm >> 3) & 7, ofs) : form32(b, (e->modrm >> 3) & 7, ofs);
        memcpy(bytes + n, o.bytes, o.len);
        n += o.len;
        if (seg < 0 && encoding_decode(b->g, bytes, sizeof bytes, &again, ops) && segment_of(ops, again.operand_count_visible) != where)
            lin = 0; /* SS by its base */
    } else if (e->has_modrm) {
        n++;
        if (insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && !insn.raw.imm[0].is_relative) /* JMP and CALL through a register */
            set_reg(b, e->modrm & 7, code_offset(b, c->cs) | (insn.operand_width == 16 ? (uint32_t)rnd64(r) << 16 : 0));
    }
    for (unsigned i = 0; i < 12; i += 4)
        put_bytes(bytes + n + i, chance(r, 60) ? boundary_value(r) : (uint32_t)rnd64(r), 4);
    if (insn.mnemonic == ZYDIS_MNEMONIC_ENTER)
        bytes[n + 1] = (uint8_t)(chance(r, 90) ? 0 : 1), bytes[n + 2] = (uint8_t)rnd(r, 34);
    if (!e->has_modrm && !e->map0f && e->opcode >= 0xa0 && e->opcode <= 0xa3)
        put_bytes(bytes + n, choose_offset(b, seg < 0 ? S_DS : (unsigned)seg, 4, insn.address_width == 16, &lin), 4);
    if (is_io(&insn) && !is_string(&insn) && insn.raw.imm[0].size)
        bytes[n] = insn.mnemonic == ZYDIS_MNEMONIC_IN ? 0x84 : 0x80;
    if (!encoding_decode(b->g, bytes, sizeof bytes, &insn, ops) || insn.length > CASE_CODE_BYTES)
        return false;
    if (insn.mnemonic == ZYDIS_MNEMONIC_INT)
        prepare_vector(b, bytes + n);
    if (insn.raw.imm[0].is_relative)
        patch_branch(b, &insn, bytes);
    else if (!e->has_modrm && insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && insn.raw.imm[0].size)
        patch_far(b, &insn, bytes);
    if (e->is_mem && !lin && c->mode == MODE_REAL && insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        return false; /* to wherever, and nothing ends it: no page is absent */
    if (e->is_mem)
        prepare_memory(b, &insn, e, lin);
    switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
        prepare_return(b, insn.operand_width / 8, true);
        break;
    case ZYDIS_MNEMONIC_RET:
        if (insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            prepare_return(b, insn.operand_width / 8, false);
        else
            fill_stack(b, insn.operand_width / 8, (uint32_t[]){ code_offset(b, c->cs) }, 1);
        break;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD: {
        uint32_t flags = (uint32_t)rnd64(r) & ~(uint32_t)(EFL_VM | (chance(r, 90) ? EFL_TF : 0));

        fill_stack(b, insn.operand_width / 8,
                   (uint32_t[]){ insn.mnemonic == ZYDIS_MNEMONIC_POP ? (uint32_t)some_selector(b) : flags }, 1);
        break;
    }
    default:
        break;
    }
    c->code_len = insn.length;
    memcpy(c->code, bytes, insn.length);
    if (insn.cpu_flags)
        c->undefined = (uint32_t)insn.cpu_flags->undefined & EFL_ARITH;
    return true;
}

/* ---- cases and the file ------------------------------------------------------------------------------------ */

static void make_case(const struct gen *g16, const struct gen *g32, uint64_t seed, uint32_t number, unsigned modes,
                      struct modes_case *c)
{
    struct build b = { .c = c, .r = { mix(seed, number) } };
    unsigned mode;

    do
        mode = rnd(&b.r, MODE_COUNT_);
    while (!(modes & (1u << mode)));
    b.g = mode == MODE_PM32 ? g32 : g16;
    for (;;) {
        const struct mnemonic *m;
        const struct encoding *e = encoding_choose(b.g, &b.r, 60, &m);

        memset(c, 0, sizeof *c);
        c->number = number;
        b.fixed = 0;
        if (!b.g->only[0] && e->map0f && (e->opcode >= 0x50 && e->opcode <= 0x7f) && chance(&b.r, 90))
            continue; /* vector arithmetic has the host for an oracle */
        if (!b.g->only[0] && e->map0f && (e->opcode == 0xc2 || e->opcode >= 0xd0) && chance(&b.r, 90))
            continue;
        if (!b.g->only[0] && !e->map0f && e->opcode >= 0xd8 && e->opcode <= 0xdf && chance(&b.r, 70))
            continue;
        begin_case(&b, (enum case_mode)mode);
        if (!instruction(&b, e, m->id))
            continue;
        c->eip = c->code_at - segment(&b, S_CS).base;
        return;
    }
}

static void fill_region(struct rng *r, uint8_t *p)
{
    for (uint32_t o = 0; o < REGION_BYTES; o += 4)
        put_bytes(p + o, chance(r, 50) ? boundary_value(r) : (uint32_t)rnd64(r), 4);
    memset(p + (CODE_AT - REGION), 0xcc, CODE_BYTES);
}

static void fill_fpu(struct rng *r, uint8_t fx[512], unsigned i)
{
    uint16_t fcw = i == 3 ? 0x27f : 0x37f, fsw = (uint16_t)(i << 12);
    uint32_t mxcsr = 0x1f80;

    memset(fx, 0, 512);
    put_bytes(fx, fcw, 2);
    put_bytes(fx + 2, fsw, 2);
    fx[4] = i == 0 ? 0 : i == 1 ? 0xff : (uint8_t)rnd(r, 256);
    put_bytes(fx + 24, mxcsr, 4);
    for (unsigned k = 0; k < 8; k++) {
        put_bytes(fx + 32 + 16 * k, rnd64(r) | 1ull << 63, 8);
        put_bytes(fx + 40 + 16 * k, 0x3ff0 + rnd(r, 32), 2);
        put_bytes(fx + 160 + 16 * k, rnd64(r), 8);
        put_bytes(fx + 168 + 16 * k, rnd64(r), 8);
    }
}

static const char *const mode_names[MODE_COUNT_] = { "real", "v86", "pm16", "pm32" };

static unsigned parse_modes(const char *text)
{
    char copy[64], *save = NULL;
    unsigned modes = 0;

    snprintf(copy, sizeof copy, "%s", text);
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        unsigned m = 0;

        while (m < MODE_COUNT_ && strcmp(item, mode_names[m]) != 0)
            m++;
        if (m == MODE_COUNT_) {
            fprintf(stderr, "modes_gen: no such mode '%s' (real, v86, pm16, pm32)\n", item);
            exit(2);
        }
        modes |= 1u << m;
    }
    return modes;
}

static void list_case(const struct modes_case *c)
{
    bool code16 = c->mode != MODE_PM32;
    ZydisDisassembledInstruction d;
    char text[128] = "(undefined)";

    if (ZYAN_SUCCESS(ZydisDisassembleIntel(code16 ? ZYDIS_MACHINE_MODE_LEGACY_16 : ZYDIS_MACHINE_MODE_LEGACY_32, c->eip, c->code,
                                           c->code_len, &d)))
        snprintf(text, sizeof text, "%s", d.text);
    printf("%x %s code=", c->number, mode_names[c->mode]);
    for (unsigned i = 0; i < c->code_len; i++)
        printf("%02x", c->code[i]);
    printf(" eip=%x efl=%x es=%x cs=%x ss=%x ds=%x fs=%x gs=%x cr0=%x cr4=%x undef=%x eax=%x ecx=%x edx=%x ebx=%x esp=%x ebp=%x"
           " esi=%x edi=%x",
           c->eip, c->eflags, c->es, c->cs, c->ss, c->ds, c->fs, c->gs, c->cr0, c->cr4, c->undefined, c->gpr[0], c->gpr[1],
           c->gpr[2], c->gpr[3], c->gpr[4], c->gpr[5], c->gpr[6], c->gpr[7]);
    printf(" mem=%x:", c->mem_at);
    for (unsigned i = 0; c->mem_at && i < sizeof c->mem; i++)
        printf("%02x", c->mem[i]);
    printf(" stack=%x:", c->stack_at);
    for (unsigned i = 0; c->stack_at && i < sizeof c->stack; i++)
        printf("%02x", c->stack[i]);
    printf(" | %s\n", text);
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        { "cases", required_argument, NULL, 'n' }, { "seed", required_argument, NULL, 's' },
        { "first", required_argument, NULL, 'f' }, { "mode", required_argument, NULL, 'm' },
        { "only", required_argument, NULL, 'o' },  { "list", no_argument, NULL, 'l' },
        { NULL, 0, NULL, 0 },
    };
    uint32_t cases = 1000, first = 0;
    uint64_t seed = 1;
    unsigned modes = (1u << MODE_COUNT_) - 1;
    const char *only = NULL;
    bool list = false;
    static struct cases_header header;
    static uint8_t region[REGION_BYTES];
    struct gen *g16, *g32;
    struct rng r;
    FILE *f;
    int opt;

    while ((opt = getopt_long(argc, argv, "n:s:f:m:o:l", longs, NULL)) != -1)
        switch (opt) {
        case 'n':
            cases = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            first = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'm':
            modes = parse_modes(optarg);
            break;
        case 'o':
            only = optarg;
            break;
        case 'l':
            list = true;
            break;
        default:
            return 2;
        }
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: modes_gen [--cases N] [--seed S] [--first K] [--mode real,v86,pm16,pm32] [--only MNEMONIC] [--list] "
                        "OUTPUT\n");
        return 2;
    }
    g16 = encodings_new(ZYDIS_MACHINE_MODE_LEGACY_16, FOR_GUEST, only);
    g32 = encodings_new(ZYDIS_MACHINE_MODE_LEGACY_32, FOR_GUEST, only);
    f = fopen(argv[optind], "wb");
    if (!g16 || !g32 || !f) {
        fprintf(stderr, "modes_gen: %s\n", f ? "no such mnemonic" : "cannot write the file");
        return 2;
    }
    header.magic = CASES_MAGIC;
    header.count = cases;
    r.s = mix(seed, 99);
    for (unsigned i = 0; i < 4; i++)
        fill_fpu(&r, header.fpu[i], i);
    fill_region(&r, region);
    fwrite(&header, sizeof header, 1, f);
    fwrite(region, sizeof region, 1, f);
    for (uint32_t i = 0; i < cases; i++) {
        struct modes_case c;

        make_case(g16, g32, seed, first + i, modes, &c);
        fwrite(&c, sizeof c, 1, f);
        if (list)
            list_case(&c);
    }
    gen_free(g16);
    gen_free(g32);
    if (fclose(f)) {
        perror("modes_gen");
        return 1;
    }
    return 0;
}
