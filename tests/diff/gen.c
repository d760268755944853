/*
 * The generator of differential cases.
 *
 * encodings.c has the encodings that a Pentium 4 has and that user mode can decide. A case picks
 * mnemonics evenly, so that rare instructions get their share, and then an encoding, a
 * memory form, prefixes and immediates. Known register values are followed, so that most
 * memory operands hit the case's pages: where a base register holds nobody knows what,
 * a MOV that loads it goes in front. Flags that the manual calls undefined are followed
 * too: an instruction that would use one gets an ADD in front, and the comparer is told
 * what is undefined where.
 *
 * Everything derives from (seed, index); no state outlives a case.
 *
 * Ref: Intel SDM vol. 2A, ch. 2 "Instruction Format"; vol. 1, app. A "EFLAGS
 * Cross-Reference".
 */
#include <Zydis/Zydis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/diff/case.h"
#include "tests/diff/encodings.h"
#include "tests/diff/random.h"

const uint32_t case_page_va[CASE_PAGES] = {
    CASE_CODE, CASE_CODE + CASE_PAGE, CASE_DATA, CASE_DATA + CASE_PAGE, CASE_RODATA, CASE_STACK,
};

/** An address for `size` bytes: mostly inside the data pages, often at an edge. */
static uint32_t target_address(struct rng *r, uint32_t size)
{
    uint32_t data_end = CASE_DATA + 2 * CASE_PAGE;
    uint32_t k = rnd(r, 100), straddle = size > 1 ? 1 + rnd(r, size - 1) : 0;
    uint32_t align = chance(r, 60) ? (size >= 16 ? 15u : size ? size - 1 : 0) & 15u : 0;
    uint32_t inside = CASE_DATA + 64 + rnd(r, 2 * CASE_PAGE - 1024);

    if (align & (align + 1))
        align = 3;
    if (k < 72)
        return inside & ~align;
    if (k < 80)
        return CASE_DATA + CASE_PAGE - straddle; /* crosses between the data pages */
    if (k < 84)
        return data_end - straddle; /* crosses into nothing */
    if (k < 87)
        return data_end - size; /* the last bytes */
    if (k < 89)
        return CASE_DATA - straddle; /* comes from nothing */
    if (k < 92)
        return (CASE_RODATA + rnd(r, CASE_PAGE - 64)) & ~align;
    if (k < 96)
        return (CASE_STACK + 0x400 + rnd(r, 0x800)) & ~align;
    if (k < 97)
        return CASE_CODE + rnd(r, 2 * CASE_PAGE - 64);
    if (k < 98)
        return CASE_RODATA - straddle;
    return chance(r, 50) ? boundary_value(r) : (uint32_t)rnd64(r);
}

/* ---- memory contents ------------------------------------------------------------------ */

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}
static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

/* Sixteen bytes that some instruction finds interesting. */
static void fill_chunk(struct rng *r, uint8_t *p)
{
    static const uint32_t singles[] = { 0x00000000, 0x80000000u, 0x3f800000, 0xbf800000u,
                                        0x7f800000, 0xff800000u, 0x7fc00000, 0x7fa00000,
                                        0x00000001, 0x007fffff,  0x7f7fffff, 0x4b000000 };
    static const uint64_t doubles[] = { 0,
                                        1ull << 63,
                                        0x3ff0000000000000ull,
                                        0xbff8000000000000ull,
                                        0x7ff0000000000000ull,
                                        0xfff0000000000000ull,
                                        0x7ff8000000000000ull,
                                        0x7ff4000000000000ull,
                                        1,
                                        0x000fffffffffffffull,
                                        0x7fefffffffffffffull,
                                        0x41dfffffffc00000ull };
    int i;

    switch (rnd(r, 8)) {
    case 0:
        for (i = 0; i < 16; i += 4)
            put32(p + i, boundary_value(r));
        break;
    case 1:
        for (i = 0; i < 16; i += 4)
            put32(p + i, singles[rnd(r, 12)]);
        break;
    case 2:
        for (i = 0; i < 16; i += 8)
            put64(p + i, doubles[rnd(r, 12)]);
        break;
    case 3: /* moderate doubles */
        for (i = 0; i < 16; i += 8)
            put64(p + i, (rnd64(r) & 0x800fffffffffffffull) | (uint64_t)(1000 + rnd(r, 48)) << 52);
        break;
    case 4: /* moderate singles */
        for (i = 0; i < 16; i += 4)
            put32(p + i, ((uint32_t)rnd64(r) & 0x807fffffu) | (116 + rnd(r, 24)) << 23);
        break;
    case 5: /* pointers */
        for (i = 0; i < 16; i += 4)
            put32(p + i, target_address(r, 4));
        break;
    case 6: /* packed decimal and extended precision */
        put64(p, 0x1234567890123456ull + rnd(r, 4));
        put64(p + 8, chance(r, 50) ? 0x8078 : 0x3fff);
        break;
    default:
        put64(p, rnd64(r));
        put64(p + 8, rnd64(r));
        break;
    }
}

void case_fill_memory(const struct diff_case *c, uint8_t mem[CASE_PAGES][CASE_PAGE])
{
    for (int i = 0; i < CASE_PAGES; i++) {
        struct rng r = { i == PAGE_RODATA ? 12345 : mix(c->mem_seed, (uint64_t)i) };

        if (i == PAGE_CODE0 || i == PAGE_CODE1) {
            memset(mem[i], 0xf4, CASE_PAGE);
            continue;
        }
        /* A quarter of the chunks are distinct: filling is most of a case's cost. */
        for (uint32_t o = 0; o < CASE_PAGE / 4; o += 16)
            fill_chunk(&r, mem[i] + o);
        for (uint32_t o = CASE_PAGE / 4; o < CASE_PAGE; o += CASE_PAGE / 4)
            memcpy(mem[i] + o, mem[i], CASE_PAGE / 4);
    }
    for (uint32_t k = 0; k <= c->code_len; k++) {
        uint32_t ofs = c->code_va + k - CASE_CODE;

        mem[ofs / CASE_PAGE][ofs % CASE_PAGE] = k < c->code_len ? c->code[k] : 0xf4;
    }
}

/* ---- starting state --------------------------------------------------------------------- */

static void random_fpu(struct rng *r, uint8_t *fx)
{
    uint16_t fcw = 0x37f, fsw = 0;
    uint32_t mxcsr = 0x1f80;
    uint8_t chunk[16];

    memset(fx, 0, 512);
    if (chance(r, 50)) { /* last-instruction pointers of before: FOP, FIP, FDP */
        uint16_t fop = (uint16_t)rnd(r, 0x800);
        uint32_t fip = (uint32_t)rnd(r, UINT32_MAX), fdp = (uint32_t)rnd(r, UINT32_MAX);

        memcpy(fx + 6, &fop, 2);
        memcpy(fx + 8, &fip, 4);
        memcpy(fx + 16, &fdp, 4);
    }
    if (chance(r, 30))
        fcw = (uint16_t)(0x7f | rnd(r, 4) << 8 | rnd(r, 4) << 10);
    if (chance(r, 4))
        fcw &= (uint16_t)~rnd(r, 64); /* unmask something */
    if (chance(r, 60))
        fsw = (uint16_t)(rnd(r, 8) << 11);
    if (chance(r, 10))
        fsw |= (uint16_t)(rnd(r, 16) * 0x100u) & 0x4700u;
    if (chance(r, 30))
        mxcsr |= rnd(r, 4) << 13;
    if (chance(r, 10))
        mxcsr |= (rnd(r, 2) << 15) | (rnd(r, 2) << 6);
    if (chance(r, 8))
        mxcsr &= ~(rnd(r, 64) << 7);
    memcpy(fx, &fcw, 2);
    memcpy(fx + 2, &fsw, 2);
    fx[4] = (uint8_t)(chance(r, 50) ? 0xff : chance(r, 30) ? 0 : rnd(r, 256));
    memcpy(fx + 24, &mxcsr, 4);
    for (int i = 0; i < 8; i++) {
        uint8_t *st = fx + 32 + 16 * i;
        uint16_t se;

        put64(st, chance(r, 70) ? rnd64(r) | 1ull << 63 : chance(r, 50) ? 0 : rnd64(r));
        se = chance(r, 70) ? (uint16_t)(0x3fff - 8 + rnd(r, 40)) : (uint16_t)rnd(r, 0x10000);
        if (chance(r, 10))
            se = 0x7fff;
        if (chance(r, 10))
            se = 0;
        se |= (uint16_t)(rnd(r, 2) << 15);
        memcpy(st + 8, &se, 2);
        fill_chunk(r, chunk);
        memcpy(fx + 160 + 16 * i, chunk, 16);
    }
}

static uint32_t random_gpr(struct rng *r)
{
    uint32_t k = rnd(r, 100);

    if (k < 45)
        return target_address(r, 4);
    if (k < 75)
        return boundary_value(r);
    if (k < 85)
        return rnd(r, 64);
    return (uint32_t)rnd64(r);
}

void gen_state(uint64_t seed, struct diff_case *c)
{
    struct rng r = { mix(seed, 77) };
    struct diff_state *s = &c->init;

    c->mem_seed = rnd64(&r);
    for (int i = 0; i < 8; i++)
        s->gpr[i] = random_gpr(&r);
    s->gpr[ESP] = chance(&r, 92)   ? CASE_ESP + (chance(&r, 10) ? rnd(&r, 16) : 0)
                  : chance(&r, 50) ? CASE_STACK + rnd(&r, 40)
                                   : CASE_STACK + CASE_PAGE - rnd(&r, 40);
    s->eflags = EFL_ONE | EFL_IF | (rnd(&r, 0x10000) & EFL_ARITH) | (chance(&r, 15) ? EFL_DF : 0);
    s->sel[SEG_CS] = CASE_SEL_CS;
    s->sel[SEG_DS] = s->sel[SEG_ES] = s->sel[SEG_SS] = CASE_SEL_DS;
    s->sel[SEG_FS] = CASE_SEL_FS;
    s->sel[SEG_GS] = CASE_SEL_GS;
    if (chance(&r, 12)) {
        static const uint16_t sels[] = { CASE_SEL_ODD, CASE_SEL_DOWNGS, CASE_SEL_RO, CASE_SEL_DOWN, CASE_SEL_ODD, 0 };
        static const uint8_t segs[] = { SEG_FS, SEG_GS, SEG_FS, SEG_GS, SEG_ES, SEG_DS };

        s->sel[segs[rnd(&r, 6)]] = sels[rnd(&r, 6)];
    }
    random_fpu(&r, s->fx);
}

struct gen *gen_new(const char *only)
{
    return encodings_new(ZYDIS_MACHINE_MODE_LEGACY_32, FOR_USER, only);
}

/* ---- building a case ------------------------------------------------------------------------ */

struct fixup {
    uint16_t at;    /* of the displacement or address          */
    uint8_t size;   /* 1, 2, 4; 0xff: absolute address         */
    uint16_t end;   /* of the branch, for relative ones        */
    uint8_t target; /* index of an instruction; past the last one: the HLT */
};

struct build {
    const struct gen *g;
    struct rng r;
    struct diff_case *c;
    uint32_t val[8];
    bool known[8];
    uint32_t undef;                 /* flags undefined here */
    bool has_branch;                /* then undefined flags only add up */
    bool at_end;                    /* nothing may follow */
    bool glue;                      /* what is emitted next needs what stands before it           */
    bool glued[CASE_INSNS_MAX + 1]; /* no branch may land here: it needs the one before */
    struct fixup fix[CASE_INSNS_MAX];
    unsigned nfix;
};

static bool room_left(const struct build *b, unsigned insns)
{
    return b->c->ninsns + insns < CASE_INSNS_MAX && b->c->code_len + insns * 15u < CASE_CODE_MAX - 16;
}

static int gpr_of(ZydisRegister reg)
{
    ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LEGACY_32, reg);

    if (wide < ZYDIS_REGISTER_EAX || wide > ZYDIS_REGISTER_EDI)
        return -1;
    return wide - ZYDIS_REGISTER_EAX; /* the same order as the encoding */
}

/* What the instruction leaves undefined, and what it makes of known registers. */
static void follow(struct build *b, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < insn->operand_count; i++) {
        int reg = ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(ops[i].reg.value) : -1;

        if (reg >= 0 && (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            b->known[reg] = false;
        /* String instructions move their address registers. */
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && gpr_of(ops[i].mem.base) >= 0 &&
            insn->meta.category == ZYDIS_CATEGORY_STRINGOP)
            b->known[gpr_of(ops[i].mem.base)] = false;
    }
    if (insn->meta.category == ZYDIS_CATEGORY_PUSH || insn->meta.category == ZYDIS_CATEGORY_POP ||
        insn->meta.category == ZYDIS_CATEGORY_CALL)
        b->known[ESP] = false;
    if (insn->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        b->has_branch = true;
    if (insn->cpu_flags) {
        const ZydisAccessedFlags *f = insn->cpu_flags;
        uint32_t defined = f->modified | f->set_0 | f->set_1;
        bool maybe =
            insn->meta.category == ZYDIS_CATEGORY_SHIFT || insn->meta.category == ZYDIS_CATEGORY_ROTATE ||
            insn->mnemonic == ZYDIS_MNEMONIC_SHLD || insn->mnemonic == ZYDIS_MNEMONIC_SHRD ||
            (insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));

        if (!maybe && !b->has_branch)
            b->undef &= ~(uint32_t)defined;
        b->undef |= (uint32_t)f->undefined & EFL_ARITH;
    }
}

/* Append an instruction that is complete. */
static bool emit_raw(struct build *b, const uint8_t *p, size_t len)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    struct diff_case *c = b->c;
    bool valid = encoding_decode(b->g, p, len, &insn, ops);

    if (!room_left(b, 1))
        return false;
    c->insns[c->ninsns].ofs = c->code_len;
    c->insns[c->ninsns].undef = b->undef;
    b->glued[c->ninsns] = b->glue;
    c->ninsns++;
    memcpy(c->code + c->code_len, p, len);
    c->code_len = (uint16_t)(c->code_len + len);
    if (valid)
        follow(b, &insn, ops);
    return true;
}

#define EMIT(b, ...) emit_raw((b), (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
#define LE32(v)      (uint8_t)(v), (uint8_t)((v) >> 8), (uint8_t)((v) >> 16), (uint8_t)((v) >> 24)

static void set_reg(struct build *b, unsigned reg, uint32_t value)
{
    if (b->known[reg] && b->val[reg] == value)
        return;
    EMIT(b, (uint8_t)(0xb8 + reg), LE32(value));
    b->known[reg] = true;
    b->val[reg] = value;
}

/* Make `reg` something that is known, a small number when it isn't already. */
static uint32_t know_reg(struct build *b, unsigned reg)
{
    if (!b->known[reg])
        set_reg(b, reg, chance(&b->r, 70) ? rnd(&b->r, 64) : boundary_value(&b->r));
    return b->val[reg];
}

/* Define all arithmetic flags. */
static void define_flags(struct build *b)
{
    unsigned reg = rnd(&b->r, 8);

    if (reg == ESP)
        reg = EDX;
    EMIT(b, 0x83, (uint8_t)(0xf8 | reg), (uint8_t)rnd(&b->r, 256)); /* CMP r32, imm8 */
    b->undef = 0;
    b->glue = true;
}

/* ---- memory operands -------------------------------------------------------------------------- */

struct mem_form {
    uint8_t bytes[8]; /* ModRM, SIB, displacement */
    unsigned len;
    uint32_t ea;
    bool ea_known;
};

static int32_t random_disp8(struct rng *r)
{
    static const int8_t values[] = { 0, 1, 4, 8, 16, 127, -1, -4, -8, -16, -128 };

    return chance(r, 60) ? values[rnd(r, sizeof values)] : (int8_t)rnd(r, 256);
}

/*
 * A 32-bit form whose address is `ea` when the registers can be made to fit. Registers
 * in `keep` must not be loaded (the instruction needs their values).
 */
static struct mem_form form32(struct build *b, unsigned reg_field, uint32_t ea, uint8_t keep)
{
    struct rng *r = &b->r;
    struct mem_form f = { .ea = ea, .ea_known = true };
    unsigned mod = rnd(r, 3), rm = rnd(r, 8), base, index = 4, scale = 0, nd;
    bool sib = rm == 4, has_base;
    int32_t disp = 0;
    uint32_t index_part = 0;

    base = rm;
    if (sib) {
        base = rnd(r, 8);
        index = rnd(r, 8);
        scale = rnd(r, 4);
    }
    has_base = !(mod == 0 && base == 5);
    nd = mod == 1 ? 1 : mod == 2 || !has_base ? 4 : 0;
    if (index != 4) {
        if (!(keep & (1u << index)) && chance(r, 70))
            know_reg(b, index);
        if (!b->known[index])
            f.ea_known = false;
        index_part = b->val[index] << scale;
    }
    if (nd == 1)
        disp = random_disp8(r);
    if (!has_base) {
        disp = (int32_t)(ea - index_part);
    } else if (nd == 4 && b->known[base] && chance(r, 70)) {
        disp = (int32_t)(ea - index_part - b->val[base]);
    } else {
        if (nd == 4)
            disp = chance(r, 50) ? random_disp8(r) : (int32_t)rnd64(r);
        if (base == ESP && chance(r, 90)) { /* ESP stays in its page */
            f.ea = b->val[ESP] + index_part + (uint32_t)disp;
            f.ea_known &= b->known[ESP];
        } else if (base == index || (keep & (1u << base))) {
            if (!b->known[base])
                f.ea_known = false;
            f.ea = b->val[base] + index_part + (uint32_t)disp;
        } else if (chance(r, 90)) {
            set_reg(b, base, ea - index_part - (uint32_t)disp);
        } else {
            f.ea_known &= b->known[base];
            f.ea = b->val[base] + index_part + (uint32_t)disp;
        }
    }
    f.bytes[f.len++] = (uint8_t)(mod << 6 | reg_field << 3 | rm);
    if (sib)
        f.bytes[f.len++] = (uint8_t)(scale << 6 | index << 3 | base);
    for (unsigned i = 0; i < nd; i++)
        f.bytes[f.len++] = (uint8_t)((uint32_t)disp >> (8 * i));
    return f;
}

/* A 16-bit form with offset `ofs` (relative to FS, whose base makes it land somewhere). */
static struct mem_form form16(struct build *b, unsigned reg_field, uint32_t ofs)
{
    static const int8_t bases[8][2] = { { EBX, ESI }, { EBX, EDI }, { EBP, ESI }, { EBP, EDI },
                                        { ESI, -1 },  { EDI, -1 },  { EBP, -1 },  { EBX, -1 } };
    struct rng *r = &b->r;
    struct mem_form f = { 0 };
    unsigned mod = rnd(r, 3), rm = rnd(r, 8), nd = mod == 1 ? 1 : mod == 2 ? 2 : 0;
    uint32_t disp = nd == 1 ? (uint32_t)random_disp8(r) : ofs;

    if (mod == 0 && rm == 6) {
        nd = 2;
    } else {
        uint32_t sum = nd == 2 ? 0 : ofs - (nd == 1 ? disp : 0);

        if (bases[rm][1] >= 0) {
            set_reg(b, (unsigned)bases[rm][1], rnd(r, 32));
            sum -= b->val[bases[rm][1]];
        }
        set_reg(b, (unsigned)bases[rm][0], chance(r, 50) ? sum & 0xffff : sum | 0x10000);
    }
    f.bytes[f.len++] = (uint8_t)(mod << 6 | reg_field << 3 | rm);
    for (unsigned i = 0; i < nd; i++)
        f.bytes[f.len++] = (uint8_t)(disp >> (8 * i));
    return f;
}

/* ---- instructions ----------------------------------------------------------------------------- */

static void add_mask(struct diff_case *c, uint32_t va, uint32_t len)
{
    if (c->nmasks < CASE_MASKS_MAX) {
        c->masks[c->nmasks].va = va;
        c->masks[c->nmasks++].len = len;
    }
}

/* MXCSR_MASK shows modes of the host that no model has. A host that keeps FOP and FDP only of instructions
 * that met an unmasked exception knows those from exceptions that FLDCW unmasked; we do not. */
static void mask_fpu_image(struct diff_case *c, ZydisMnemonic m, bool is16, uint32_t va)
{
    bool is_fxsave = m == ZYDIS_MNEMONIC_FXSAVE;

    if (is_fxsave)
        add_mask(c, va + 28, 4);
    if (c->loads_fcw && is_fxsave) {
        add_mask(c, va + 6, 2);
        add_mask(c, va + 16, 4);
    } else if (c->loads_fcw && is16) {
        add_mask(c, va + 10, 2);
    } else if (c->loads_fcw) {
        add_mask(c, va + 18, 6);
    }
}

static bool stores_fpu_image(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FNSAVE || m == ZYDIS_MNEMONIC_FNSTENV;
}

static uint32_t string_count(struct rng *r)
{
    uint32_t k = rnd(r, 100);

    return k < 15 ? 0 : k < 30 ? 1 : k < 95 ? rnd(r, 24) : k < 99 ? rnd(r, 3000) : boundary_value(r);
}

/* Registers that an instruction uses beyond its operands get values that lead somewhere. */
static void prepare_implicit(struct build *b, const ZydisDecodedInstruction *insn,
                             const ZydisDecodedOperand *ops)
{
    struct rng *r = &b->r;
    bool rep =
        (insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;

    for (unsigned i = 0; i < insn->operand_count; i++) {
        int base;

        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY ||
            ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            continue;
        base = gpr_of(ops[i].mem.base);
        if (base < 0 || base == ESP || !chance(r, 88))
            continue;
        if (insn->mnemonic == ZYDIS_MNEMONIC_LEAVE)
            set_reg(b, EBP, CASE_STACK + 0x100 + rnd(r, 0xc00));
        else if (insn->mnemonic == ZYDIS_MNEMONIC_ENTER)
            set_reg(b, EBP, CASE_STACK + 0x600 + 4 * rnd(r, 0x80));
        else
            set_reg(b, (unsigned)base, target_address(r, 16));
    }
    if (rep)
        set_reg(b, ECX, string_count(r));
    if (insn->meta.category == ZYDIS_CATEGORY_STRINGOP && chance(r, 15)) { /* overlapping, or ending at nothing */
        uint32_t end = chance(r, 50) ? CASE_DATA + 2 * CASE_PAGE - rnd(r, 40) : CASE_DATA + 0x40 + rnd(r, 0x1f00);

        set_reg(b, ESI, end);
        set_reg(b, EDI, chance(r, 70) ? end + rnd(r, 17) - 8 : CASE_RODATA - rnd(r, 24));
    }
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (chance(r, 70))
            set_reg(b, EDX, chance(r, 70) ? 0 : 0xffffffffu);
        if (chance(r, 50))
            set_reg(b, EAX, rnd(r, 0x8000));
        break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JCXZ:
        if (chance(r, 60))
            set_reg(b, ECX, rnd(r, 3) | (chance(r, 20) ? 0x10000 : 0));
        break;
    case ZYDIS_MNEMONIC_XLAT:
        if (chance(r, 80))
            set_reg(b, EBX, CASE_DATA + rnd(r, 0x1c00));
        break;
    default:
        break;
    }
}

static bool uses_stack(const ZydisDecodedInstruction *insn)
{
    return insn->meta.category == ZYDIS_CATEGORY_PUSH || insn->meta.category == ZYDIS_CATEGORY_POP ||
           insn->meta.category == ZYDIS_CATEGORY_CALL || insn->mnemonic == ZYDIS_MNEMONIC_ENTER;
}

static bool is_branch(const ZydisDecodedInstruction *insn)
{
    return insn->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
}

/* The registers an instruction reads through explicit or fixed operands. */
static uint8_t read_registers(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    uint8_t keep = 0;

    for (unsigned i = 0; i < insn->operand_count; i++) {
        int reg = ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(ops[i].reg.value) : -1;

        if (reg >= 0 && ops[i].visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            keep |= (uint8_t)(1u << reg);
    }
    return keep;
}

static uint32_t random_imm(struct rng *r)
{
    return chance(r, 60) ? boundary_value(r) : (uint32_t)rnd64(r);
}

struct prefixes {
    uint8_t bytes[20];
    unsigned len;
    uint32_t seg_base; /* linear minus offset for the memory operand */
    bool has_67, has_66, no_seg_plan;
};

static void add_prefix(struct prefixes *p, uint8_t byte)
{
    p->bytes[p->len++] = byte;
}

/* Prefixes in front of an encoding, the mandatory one last. */
static struct prefixes choose_prefixes(struct build *b, const struct encoding *e,
                                       const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    struct rng *r = &b->r;
    struct prefixes p = { 0 };
    bool is_int = insn->meta.isa_ext == ZYDIS_ISA_EXT_BASE || insn->meta.isa_ext == ZYDIS_ISA_EXT_PAUSE;
    bool has_mem = false;

    for (unsigned i = 0; i < insn->operand_count; i++)
        has_mem |= ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
    if (has_mem && chance(r, 9)) {
        static const uint8_t overrides[] = { 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x64, 0x65 };
        uint8_t o = overrides[rnd(r, 8)];

        add_prefix(&p, o);
        if ((o == 0x64 || o == 0x65) && !chance(r, 5))
            p.seg_base = case_segment_base(b->c->init.sel[o == 0x64 ? SEG_FS : SEG_GS]);
        if (chance(r, 10)) { /* one before it, which the last one overrules */
            p.bytes[1] = p.bytes[0];
            p.bytes[0] = overrides[rnd(r, 8)];
            p.len = 2;
        }
    }
    if (e->is_mem && !p.len && chance(r, 3)) {
        add_prefix(&p, 0x64);
        add_prefix(&p, 0x67);
        p.has_67 = true;
        p.seg_base = case_segment_base(b->c->init.sel[SEG_FS]);
    } else if (has_mem && chance(r, 1)) {
        add_prefix(&p, 0x67);
        p.has_67 = true;
    } else if ((insn->mnemonic == ZYDIS_MNEMONIC_LOOP || insn->mnemonic == ZYDIS_MNEMONIC_LOOPE ||
                insn->mnemonic == ZYDIS_MNEMONIC_LOOPNE) &&
               chance(r, 20)) {
        add_prefix(&p, 0x67);
    }
    if ((insn->attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK) ? chance(r, e->is_mem ? 10 : 2) : !is_branch(insn) && chance(r, 1)) {
        if (!(insn->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
            add_prefix(&p, 0xf0);
    }
    if (!e->pfx && !e->map0f && is_int && !is_branch(insn) && insn->mnemonic != ZYDIS_MNEMONIC_NOP &&
        insn->meta.category != ZYDIS_CATEGORY_STRINGOP && insn->meta.category != ZYDIS_CATEGORY_IOSTRINGOP &&
        insn->meta.category != ZYDIS_CATEGORY_IO && chance(r, 1))
        add_prefix(&p, chance(r, 50) ? 0xf2 : 0xf3); /* ignored */
    /* A 66 on 32-bit branches would cut EIP: AMD and Intel even disagree about it elsewhere. */
    if (e->pfx != 0x66 && is_int && !is_branch(insn) && chance(r, 8) && (!e->map0f || !e->pfx)) {
        add_prefix(&p, 0x66);
        p.has_66 = true;
    }
    if (chance(r, 1) && p.len)
        for (unsigned extra = rnd(r, 13); extra; extra--)
            add_prefix(&p, p.bytes[0]);
    if (e->pfx) {
        add_prefix(&p, e->pfx);
        p.has_66 |= e->pfx == 0x66;
    }
    return p;
}

static uint32_t operand_bytes(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return ops[i].size / 8;
    return 4;
}

/* Bit-test instructions reach far beyond their operand by the register's value. */
static void prepare_bit_offset(struct build *b, const ZydisDecodedInstruction *insn, const struct encoding *e)
{
    bool is_bt = insn->mnemonic == ZYDIS_MNEMONIC_BT || insn->mnemonic == ZYDIS_MNEMONIC_BTS ||
                 insn->mnemonic == ZYDIS_MNEMONIC_BTR || insn->mnemonic == ZYDIS_MNEMONIC_BTC;
    unsigned reg = (e->modrm >> 3) & 7;

    if (is_bt && e->is_mem && e->opcode != 0xba && reg != ESP && chance(&b->r, 90))
        set_reg(b, reg, (uint32_t)((int32_t)rnd(&b->r, 8192) - 4096));
}

static void add_fixup(struct build *b, unsigned at, unsigned size, unsigned end)
{
    if (b->nfix < CASE_INSNS_MAX)
        b->fix[b->nfix++] = (struct fixup){
            .at = (uint16_t)at, .size = (uint8_t)size, .end = (uint16_t)end, .target = b->c->ninsns
        };
}

/* Nothing may run what nobody wrote: bytes of data decode to instructions that only newer
 * processors have. So indirect branches get a target a few instructions on. */
static bool is_indirect(const struct encoding *e)
{
    unsigned reg = (e->modrm >> 3) & 7;

    return !e->map0f && e->opcode == 0xff && (reg == 2 || reg == 4);
}

/* A register that the branch goes through; false: it is ESP. */
static bool prepare_register_target(struct build *b, const struct encoding *e)
{
    unsigned reg = e->modrm & 7;

    if (reg == ESP)
        return false;
    b->known[reg] = false;
    set_reg(b, reg, 0xdeadbeefu);
    b->known[reg] = false;
    add_fixup(b, b->c->code_len - 4u, 0xff, 0);
    return true;
}

static void note_branch(struct build *b, const ZydisDecodedInstruction *insn)
{
    struct diff_case *c = b->c;

    if (insn->raw.imm[0].is_relative)
        add_fixup(b, (unsigned)c->insns[c->ninsns - 1].ofs + insn->raw.imm[0].offset,
                  insn->raw.imm[0].size / 8, c->code_len);
}

/*
 * PUSH of a segment register writes two bytes on some processors and four on others (SDM vol. 2B, "PUSH");
 * where the upper two are zero before, nobody can tell.
 */
static void prepare_segment_push(struct build *b, const struct encoding *e)
{
    bool is_push = e->map0f ? e->opcode == 0xa0 || e->opcode == 0xa8
                            : e->opcode < 0x20 && (e->opcode & 0xe7) == 0x06;

    if (is_push) {
        EMIT(b, 0xc7, 0x44, 0x24, 0xfc, LE32(0));
        b->glue = true;
    }
}

/* MOV dword [ea], target in front of a jump through memory. */
static void store_target(struct build *b, uint32_t va)
{
    EMIT(b, 0xc7, 0x05, LE32(va), LE32(0xdeadbeefu));
    add_fixup(b, b->c->code_len - 4u, 0xff, 0);
}

/* One instruction with what must stand before it. false: it came to nothing. */
static bool gen_insn(struct build *b)
{
    struct rng *r = &b->r;
    const struct mnemonic *m;
    const struct encoding *e = encoding_choose(b->g, r, 50, &m);
    struct prefixes p;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[40];
    size_t n = 0;
    struct mem_form f = { 0 };
    uint32_t va = 0;

    /* What it is, with the shortest operand. */
    if (e->pfx)
        bytes[n++] = e->pfx;
    if (e->map0f)
        bytes[n++] = 0x0f;
    bytes[n++] = e->opcode;
    memset(bytes + n, 0, 15 - n);
    if (e->has_modrm)
        bytes[n] = e->modrm;
    if (!encoding_decode(b->g, bytes, 15, &insn, ops) || !room_left(b, 8))
        return false;
    /* What goes in front of these must not be skipped. */
    b->glue = is_indirect(e) || stores_fpu_image(insn.mnemonic);
    if (insn.cpu_flags && (insn.cpu_flags->tested & b->undef))
        define_flags(b);
    p = choose_prefixes(b, e, &insn, ops);
    prepare_implicit(b, &insn, ops);
    if (uses_stack(&insn) && !b->known[ESP] && chance(r, 25))
        set_reg(b, ESP, CASE_ESP);
    prepare_segment_push(b, e);
    if (is_indirect(e) && !e->is_mem && !prepare_register_target(b, e))
        return false;
    n = p.len;
    memcpy(bytes, p.bytes, n);
    if (e->map0f)
        bytes[n++] = 0x0f;
    bytes[n++] = e->opcode;
    if (e->is_mem) {
        uint8_t keep = read_registers(&insn, ops);
        uint32_t size = operand_bytes(&insn, ops);

        va = target_address(r, size ? size : 4);
        if (p.seg_base && chance(r, 15)) { /* around the limits that such segments have */
            static const uint32_t edges[] = { CASE_DATA + CASE_GS_LIMIT + 1, CASE_ODD_BASE + CASE_ODD_LIMIT + 1, CASE_ODD_BASE,
                                              CASE_DOWNGS_BASE + CASE_DOWNGS_LIMIT + 1 };

            va = edges[rnd(r, 4)] - rnd(r, 2 * size + 2) + size / 2;
        }
        if (is_indirect(e))
            va = CASE_DATA + 4 * rnd(r, 2000);
        if (stores_fpu_image(insn.mnemonic)) {
            va = CASE_DATA + 16 * rnd(r, 400);
            if (insn.mnemonic != ZYDIS_MNEMONIC_FXSAVE)
                va += rnd(r, 16);
        }
        prepare_bit_offset(b, &insn, e);
        if (insn.mnemonic >= ZYDIS_MNEMONIC_BT && insn.mnemonic <= ZYDIS_MNEMONIC_BTS)
            keep |= (uint8_t)(1u << ((e->modrm >> 3) & 7));
        f = p.has_67 ? form16(b, (e->modrm >> 3) & 7, va - p.seg_base)
                     : form32(b, (e->modrm >> 3) & 7, va - p.seg_base, keep);
        if (is_indirect(e)) {
            if (!f.ea_known || p.has_67)
                return false;
            store_target(b, f.ea + p.seg_base);
        }
        memcpy(bytes + n, f.bytes, f.len);
        n += f.len;
    } else if (e->has_modrm) {
        bytes[n++] = e->modrm;
    }
    /* Immediates: as many bytes as the decoder then finds. */
    for (unsigned i = 0; i < 2; i++) {
        uint32_t imm = random_imm(r);

        memcpy(bytes + n + 4 * i, &imm, 4);
    }
    if (insn.mnemonic == ZYDIS_MNEMONIC_ENTER)
        bytes[n + 1] = (uint8_t)(chance(r, 90) ? 0 : bytes[n + 1]), bytes[n + 2] = (uint8_t)rnd(r, 34);
    if (!e->has_modrm && e->opcode >= 0xa0 && e->opcode <= 0xa3 && !e->map0f) {
        va = target_address(r, 4) - p.seg_base;
        memcpy(bytes + n, &va, 4);
    }
    if (!encoding_decode(b->g, bytes, sizeof bytes, &insn, ops)) {
        /* LOCK where it may not be, or more than 15 bytes: an exception, length unknown. */
        if (!memchr(p.bytes, 0xf0, p.len) && p.len < 8)
            return false; /* something that the decoder doesn't know */
        emit_raw(b, bytes, n + 8 > 15 ? n : n + 8);
        b->at_end = true;
        return true;
    }
    if (insn.mnemonic != m->id && (insn.mnemonic == ZYDIS_MNEMONIC_INVALID || encoding_excluded(b->g, &insn, ops)))
        return false;
    if (stores_fpu_image(m->id)) {
        uint32_t lin = f.ea;

        for (unsigned i = 0; i < insn.operand_count_visible; i++)
            if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
                lin += case_segment_base(b->c->init.sel[ops[i].mem.segment - ZYDIS_REGISTER_ES]);
        if (!f.ea_known || p.has_67)
            return false;
        mask_fpu_image(b->c, m->id, p.has_66, lin);
        b->at_end = true;
    }
    if (!emit_raw(b, bytes, insn.length))
        return false;
    b->c->loads_fcw |= insn.mnemonic == ZYDIS_MNEMONIC_FLDCW;
    if (is_branch(&insn))
        note_branch(b, &insn);
    return true;
}

/* ---- templates ------------------------------------------------------------------------------------ */

static uint16_t random_selector(struct rng *r)
{
    /* Null selectors with RPL 1 to 3 are left out: the host's return to the oracle clears them. */
    static const uint16_t sels[] = { CASE_SEL_DS, CASE_SEL_DS, CASE_SEL_FS, CASE_SEL_GS,  CASE_SEL_RO,
                                     CASE_SEL_CS, CASE_SEL_DS, 0,           CASE_SEL_DOWN };

    return sels[rnd(r, sizeof sels / sizeof sels[0])];
}

static void tmpl_popf(struct build *b)
{
    uint32_t fl =
        (uint32_t)rnd64(&b->r) & (EFL_ARITH | EFL_DF | EFL_IF | EFL_ID | EFL_IOPL | EFL_RF | EFL_VIF);

    EMIT(b, 0x68, LE32(fl));
    b->glue = true; /* no branch to the POPF: TF and AC would come from anywhere */
    if (chance(&b->r, 20))
        EMIT(b, 0x66, 0x9d);
    else
        EMIT(b, 0x9d);
    if (!b->has_branch)
        b->undef = 0;
}

static void tmpl_ret(struct build *b)
{
    uint8_t pop = (uint8_t)rnd(&b->r, 32);

    EMIT(b, 0x68, LE32(0xdeadbeefu));
    if (chance(&b->r, 50)) {
        add_fixup(b, b->c->code_len - 4u, 0xff, 0);
        EMIT(b, 0xc3);
    } else {
        add_fixup(b, b->c->code_len - 4u, 0xff, 0);
        EMIT(b, 0xc2, pop, 0);
    }
    b->known[ESP] = false;
}

/* CALL over a subroutine that returns, changes its return address, or drops it. */
static void tmpl_call(struct build *b)
{
    unsigned at, sub_end;

    EMIT(b, 0xe8, 4, 0, 0, 0); /* call sub          */
    EMIT(b, 0xff, 0xc0);       /* back: inc eax     */
    at = b->c->code_len;
    EMIT(b, 0xeb, 0); /* jmp past          */
    /* sub: */
    switch (rnd(&b->r, 4)) {
    case 0:
        EMIT(b, 0xc3);
        break;
    case 1:
        EMIT(b, 0xc2, 4, 0);
        break;
    case 2:
        EMIT(b, 0x83, 0x04, 0x24, 0);
        EMIT(b, 0xc3);
        break; /* add dword [esp], 0 */
    default:
        EMIT(b, 0x83, 0xc4, 4);
        EMIT(b, 0xeb, 0);
        break; /* add esp, 4         */
    }
    sub_end = b->c->code_len;
    b->c->code[at + 1] = (uint8_t)(sub_end - at - 2);
    b->known[ESP] = false;
    b->known[EAX] = false;
}

static void tmpl_far(struct build *b)
{
    uint32_t next;

    switch (rnd(&b->r, 5)) {
    case 0: /* push cs; push target; retf [n] */
        EMIT(b, 0x68, LE32(CASE_SEL_CS));
        EMIT(b, 0x68, LE32(0xdeadbeefu));
        add_fixup(b, b->c->code_len - 4u, 0xff, 0);
        if (chance(&b->r, 50))
            EMIT(b, 0xcb);
        else
            EMIT(b, 0xca, (uint8_t)(4 * rnd(&b->r, 5)), 0);
        break;
    case 1: /* iret with flags that user mode may set */
        EMIT(b, 0x68, LE32(EFL_ONE | EFL_IF | (rnd(&b->r, 0x1000) & (EFL_ARITH | EFL_DF))));
        b->glue = true;
        EMIT(b, 0x68, LE32(CASE_SEL_CS));
        EMIT(b, 0x68, LE32(0xdeadbeefu));
        add_fixup(b, b->c->code_len - 4u, 0xff, 0);
        EMIT(b, 0xcf);
        break;
    case 2: /* ljmp */
        next = b->c->code_va + b->c->code_len + 7;
        EMIT(b, 0xea, LE32(next), CASE_SEL_CS, 0);
        break;
    case 3: /* lcall */
        next = b->c->code_va + b->c->code_len + 7;
        EMIT(b, 0x9a, LE32(next), CASE_SEL_CS, 0);
        break;
    default: /* a selector that can't be: #GP or #NP with the selector as error code */
        next = b->c->code_va + b->c->code_len + 7;
        EMIT(b, 0xea, LE32(next), (uint8_t)(chance(&b->r, 50) ? CASE_SEL_DS : CASE_SEL_RO), 0);
        break;
    }
    b->known[ESP] = false;
    b->has_branch = true;
}

static void tmpl_segment(struct build *b)
{
    struct rng *r = &b->r;
    uint16_t sel = random_selector(r);
    static const uint8_t segs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    uint8_t seg = segs[rnd(r, 4)];
    uint32_t va = CASE_DATA + 8 * rnd(r, 900);

    switch (rnd(r, 4)) {
    case 0: /* mov sreg, r16 */
        set_reg(b, EAX, sel | (chance(r, 30) ? 0x12340000u : 0));
        b->glue = true; /* another value might be a selector of the host's kernel */
        EMIT(b, 0x8e, (uint8_t)(0xc0 | seg << 3));
        break;
    case 1: /* push; pop sreg */
        EMIT(b, 0x68, LE32(sel));
        b->glue = true;
        if (seg == SEG_ES)
            EMIT(b, 0x07);
        else if (seg == SEG_DS)
            EMIT(b, 0x1f);
        else
            EMIT(b, 0x0f, (uint8_t)(seg == SEG_FS ? 0xa1 : 0xa9));
        break;
    case 2: /* lds and its kin from memory */
        EMIT(b, 0xc7, 0x05, LE32(va + 4), LE32((uint32_t)sel));
        b->glue = true;
        if (seg == SEG_ES)
            EMIT(b, 0xc4, 0x15, LE32(va));
        else if (seg == SEG_DS)
            EMIT(b, 0xc5, 0x15, LE32(va));
        else
            EMIT(b, 0x0f, (uint8_t)(seg == SEG_FS ? 0xb4 : 0xb5), 0x15, LE32(va));
        break;
    default: /* lar lsl verr verw */
        set_reg(b, EAX, sel);
        b->glue = true;
        if (chance(r, 50))
            EMIT(b, 0x0f, (uint8_t)(0x02 + rnd(r, 2)), 0xd8);
        else
            EMIT(b, 0x0f, 0x00, (uint8_t)(0xe0 + 8 * rnd(r, 2)));
        break;
    }
}

/* Stores to code ahead: the immediate or opcode of the instruction after the next. */
static void tmpl_smc(struct build *b)
{
    struct diff_case *c = b->c;
    unsigned filler = rnd(&b->r, 3);
    uint32_t here = c->code_va + c->code_len;
    /* mov byte [target], imm8 is 7 bytes; fillers one each; then mov dl, imm8 */
    uint32_t target = here + 7 + filler + (chance(&b->r, 70) ? 1 : 0);
    uint8_t value = target == here + 7 + filler ? 0xb2 + (uint8_t)rnd(&b->r, 2) : (uint8_t)rnd(&b->r, 256);

    EMIT(b, 0xc6, 0x05, LE32(target), value);
    while (filler--)
        EMIT(b, 0x40);
    EMIT(b, 0xb2, (uint8_t)rnd(&b->r, 256));
    b->known[EBX] = b->known[EDX] = false;
    c->modifies_code = true;
}

/* A short counted loop around something harmless, sometimes a store into memory. */
static void tmpl_loop(struct build *b)
{
    struct rng *r = &b->r;
    uint32_t va = CASE_DATA + 0x10 + 4 * rnd(r, 0x700);
    unsigned top;

    b->known[ECX] = false; /* or a branch into the loop could find ECX huge */
    set_reg(b, ECX, 1 + rnd(r, chance(r, 10) ? 300 : 12));
    b->glue = true;
    top = b->c->code_len;
    switch (rnd(r, 4)) {
    case 0:
        EMIT(b, 0x01, 0xca);
        break; /* add edx, ecx     */
    case 1:
        EMIT(b, 0xff, 0x05, LE32(va));
        break; /* inc dword [va]   */
    case 2:
        EMIT(b, 0x89, 0x0c, 0x8d, LE32(va));
        break; /* mov [va+ecx*4], ecx */
    default:
        EMIT(b, 0x0f, 0xaf, 0x15, LE32(va));
        break; /* imul edx, [va]   */
    }
    if (chance(r, 50)) {
        EMIT(b, 0xe2, (uint8_t)(top - b->c->code_len - 2)); /* loop top         */
    } else {
        EMIT(b, 0x49);                                      /* dec ecx          */
        EMIT(b, 0x75, (uint8_t)(top - b->c->code_len - 2)); /* jnz top          */
    }
    b->known[ECX] = b->known[EDX] = false;
}

static void tmpl_direction(struct build *b)
{
    EMIT(b, (uint8_t)(0xfc + rnd(&b->r, 2)));
}

static void gen_template(struct build *b)
{
    static void (*const templates[])(struct build *) = { tmpl_popf,    tmpl_ret, tmpl_call, tmpl_far,
                                                         tmpl_segment, tmpl_smc, tmpl_loop, tmpl_direction };

    if (room_left(b, 8))
        templates[rnd(&b->r, sizeof templates / sizeof templates[0])](b);
}

/* ---- a case ------------------------------------------------------------------------------------------ */

static void resolve_fixups(struct build *b)
{
    struct diff_case *c = b->c;

    for (unsigned i = 0; i < b->nfix; i++) {
        const struct fixup *f = &b->fix[i];
        unsigned to = f->target;
        uint32_t target, value;

        while (to < c->ninsns && b->glued[to])
            to++;
        target = to >= c->ninsns ? c->code_len : c->insns[to].ofs;
        value = f->size == 0xff ? c->code_va + target : target - f->end;

        memcpy(c->code + f->at, &value, f->size == 0xff ? 4 : f->size);
    }
}

static void begin(struct build *b, const struct gen *g, struct diff_case *c, uint64_t seed)
{
    memset(b, 0, sizeof *b);
    b->g = g;
    b->c = c;
    b->r.s = mix(seed, 5);
    for (int i = 0; i < 8; i++) {
        b->val[i] = c->init.gpr[i];
        b->known[i] = true;
    }
}

/* With branches a flag may be undefined on one path only: what is so anywhere is so everywhere. */
static void finish(struct build *b)
{
    struct diff_case *c = b->c;
    uint32_t all = 0;

    c->insns[c->ninsns].ofs = c->code_len;
    c->insns[c->ninsns].undef = b->undef;
    for (unsigned i = 0; i <= c->ninsns; i++)
        all |= c->insns[i].undef;
    if (b->has_branch)
        for (unsigned i = 0; i <= c->ninsns; i++)
            c->insns[i].undef = all;
    resolve_fixups(b);
}

void gen_case(const struct gen *g, uint64_t seed, uint64_t index, struct diff_case *c)
{
    struct build b;
    uint64_t s = mix(seed, index);
    unsigned want, tries = 0;

    memset(c, 0, sizeof *c);
    c->seed = seed;
    c->index = index;
    memcpy(c->only, g->only, sizeof c->only);
    gen_state(s, c);
    begin(&b, g, c, s);
    c->code_va =
        CASE_CODE + (chance(&b.r, 85) ? rnd(&b.r, CASE_PAGE - CASE_CODE_MAX - 1) : CASE_PAGE - rnd(&b.r, 40));
    if (chance(&b.r, 2))
        c->code_va = CASE_CODE + 2 * CASE_PAGE - CASE_CODE_MAX - 1 + rnd(&b.r, 8);
    c->init.eip = c->code_va;
    want = chance(&b.r, 35) ? 1 : 2 + rnd(&b.r, 7);
    for (unsigned i = 0; i < want && !b.at_end && tries < 40; tries++) {
        unsigned first_fix = b.nfix;

        b.glue = false;
        if (!g->only[0] && chance(&b.r, 6))
            gen_template(&b), i++;
        else
            i += gen_insn(&b);
        /* Branches lead forward: where to is known only now. */
        for (; first_fix < b.nfix; first_fix++)
            b.fix[first_fix].target = (uint8_t)(c->ninsns + rnd(&b.r, 3));
    }
    finish(&b);
}

void gen_annotate(struct diff_case *c)
{
    struct gen g = { 0 };
    struct build b;
    struct diff_case copy = *c;
    size_t at = 0;

    ZydisDecoderInit(&g.decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    begin(&b, &g, c, 0);
    c->code_len = 0;
    c->ninsns = 0;
    while (at < copy.code_len) {
        ZydisDecodedInstruction insn;
        ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
        size_t left = copy.code_len - at;
        size_t len = encoding_decode(&g, copy.code + at, left, &insn, ops) ? insn.length : left;

        if (!emit_raw(&b, copy.code + at, len))
            break;
        at += len;
    }
    finish(&b);
}
