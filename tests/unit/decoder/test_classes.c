/*
 * The class table against the opcode maps: every opcode that a Pentium 4 with SSE2
 * has leads to a row, and what it lacks is #UD. The map below is written down from
 * the SDM's appendix, not from the table under test.
 *
 * Ref: Intel SDM vol. 2D, app. A "Opcode Map".
 */
#include "decode_support.h"

/* Which opcodes exist. A character per opcode: '.' none, 'x' yes, 'p' prefix or escape,
 * 'm' a memory operand only, 'g' depends on ModRM.reg (see groups[]). */
/* clang-format off */
static const char one_byte[257] =
    "xxxxxxxxxxxxxxxp" "xxxxxxxxxxxxxxxx" "xxxxxxpxxxxxxxpx" "xxxxxxpxxxxxxxpx" /* 0x00 */
    "xxxxxxxxxxxxxxxx" "xxxxxxxxxxxxxxxx" "xxmxppppxxxxxxxx" "xxxxxxxxxxxxxxxx" /* 0x40 */
    "xxxxxxxxxxxxgmgg" "xxxxxxxxxxxxxxxx" "xxxxxxxxxxxxxxxx" "xxxxxxxxxxxxxxxx" /* 0x80 */
    "xxxxmmggxxxxxxxx" "xxxxxxxxffffffff" "xxxxxxxxxxxxxxxx" "pxppxxggxxxxxxgg";/* 0xc0 */

static const char two_byte[257] =
    "ggxx..x.xx.x...." "xxxmxxxmgxxxxxxx" "gggg....xxxmxxxx" "xxxxxx.........." /* 0x00 */
    "xxxxxxxxxxxxxxxx" "rxxxxxxxxxxxxxxx" "xxxxxxxxxxxxqqxx" "xgggxxxx......xx" /* 0x40 */
    "xxxxxxxxxxxxxxxx" "xxxxxxxxxxxxxxxx" "xxxxxx..xxxxxxgx" "xxmxmmxx.xgxxxxx" /* 0x80 */
    "xxxmxrxgxxxxxxxx" ".xxxxxqrxxxxxxxx" "xxxxxxsmxxxxxxxx" ".xxxxxxrxxxxxxxx";/* 0xc0 */

/* clang-format on */

struct group {
    uint8_t map, opcode;
    const char *mem, *reg; /* a character per ModRM.reg */
};

/* clang-format off */
static const struct group groups[] = {
    { MAP_1BYTE, 0x8c, "xxxxxx..", "xxxxxx.." },
    { MAP_1BYTE, 0x8e, "x.xxxx..", "x.xxxx.." },
    { MAP_1BYTE, 0x8f, "x.......", "x......." },
    { MAP_1BYTE, 0xc6, "x.......", "x......." },
    { MAP_1BYTE, 0xc7, "x.......", "x......." },
    { MAP_1BYTE, 0xf6, "xxxxxxxx", "xxxxxxxx" },
    { MAP_1BYTE, 0xf7, "xxxxxxxx", "xxxxxxxx" },
    { MAP_1BYTE, 0xfe, "xx......", "xx......" },
    { MAP_1BYTE, 0xff, "xxxxxxx.", "xxx.x.x." },
    { MAP_0F, 0x00, "xxxxxx..", "xxxxxx.." },
    { MAP_0F, 0x01, "xxxxx.xx", "....x.x." },
    { MAP_0F, 0x18, "xxxxxxxx", "xxxxxxxx" },
    { MAP_0F, 0x20, "x.xxx...", "x.xxx..." },  /* CR0, 2, 3, 4 */
    { MAP_0F, 0x21, "xxxxxxxx", "xxxxxxxx" },
    { MAP_0F, 0x22, "x.xxx...", "x.xxx..." },
    { MAP_0F, 0x23, "xxxxxxxx", "xxxxxxxx" },
    { MAP_0F, 0x71, "........", "..x.x.x." },
    { MAP_0F, 0x72, "........", "..x.x.x." },
    { MAP_0F, 0x73, "........", "..x...x." },
    { MAP_0F, 0xae, "xxxx...x", ".....xxx" },
    { MAP_0F, 0xba, "....xxxx", "....xxxx" },
    { MAP_0F, 0xc7, ".x......", "........" },
};

/* x87, register forms: a character per second byte 0xc0..0xff; memory forms all exist
 * but those marked. SDM vol. 2D, app. A, "Escape Opcode Instructions". */
static const struct { const char *mem, *reg; } x87[8] = {
    { "xxxxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }, /* D8 */
    { "x.xxxxxx", "xxxxxxxxxxxxxxxxx.......xxxxxxxxxx..xx..xxxxxxx.xxxxxxxxxxxxxxxx" }, /* D9 */
    { "xxxxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.........x......................" }, /* DA */
    { "x.xx.x.x", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxx........" }, /* DB */
    { "xxxxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }, /* DC */
    { "x.xxx.xx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx................" }, /* DD */
    { "xxxxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxx.x......xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }, /* DE */
    { "x.xxxxxx", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.......xxxxxxxxxxxxxxxx........" }, /* DF */
};
/* clang-format on */

static bool is_available(const uint8_t *bytes, size_t len)
{
    struct insn in;
    return decode_insn(bytes, len, true, &in) == DECODE_OK && in.info->cls != CLASS_UNAVAILABLE;
}

static void check(bool expected, unsigned map, unsigned opcode, unsigned modrm, unsigned prefix)
{
    uint8_t bytes[20] = { 0 };
    unsigned n = 0;

    if (prefix)
        bytes[n++] = (uint8_t)prefix;
    if (map == MAP_0F)
        bytes[n++] = 0x0f;
    bytes[n++] = (uint8_t)opcode;
    bytes[n] = (uint8_t)modrm;
    if (is_available(bytes, 15) != expected)
        fail_msg("prefix %02x map %u opcode %02x modrm %02x: expected %s", prefix, map, opcode, modrm,
                 expected ? "a row" : "#UD");
}

static const struct group *find_group(unsigned map, unsigned opcode)
{
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        if (groups[i].map == map && groups[i].opcode == opcode)
            return &groups[i];
    return NULL;
}

static void check_opcode(unsigned map, unsigned opcode, char kind)
{
    const struct group *g = find_group(map, opcode);

    for (unsigned reg = 0; reg < 8; reg++) {
        unsigned mem_form = reg << 3, reg_form = 0xc0 | reg << 3 | 1;
        switch (kind) {
        case 'x':
            check(true, map, opcode, map == MAP_0F && opcode >= 0x20 && opcode <= 0x23 ? 0 : mem_form, 0);
            if (map != MAP_0F || (opcode != 0x13 && opcode != 0x17))
                check(true, map, opcode, reg_form, 0);
            break;
        case 'm':
            check(true, map, opcode, mem_form, 0);
            check(map == MAP_0F && (opcode == 0x12 || opcode == 0x16), map, opcode, reg_form, 0);
            break;
        case 'r':
            check(true, map, opcode, reg_form, 0);
            check(false, map, opcode, mem_form, 0);
            break;
        case 'q':
        case 's': /* exist with a mandatory prefix only; below */
            check(false, map, opcode, mem_form, 0);
            break;
        case 'g':
            assert_non_null(g);
            check(g->mem[reg] == 'x', map, opcode, mem_form, 0);
            /* 0F 01 with mod 3 has sub-opcodes in rm as well, none of them a Pentium 4's */
            check(g->reg[reg] == 'x', map, opcode, reg_form, 0);
            break;
        case '.':
            check(false, map, opcode, mem_form, 0);
            check(false, map, opcode, reg_form, 0);
            break;
        default:
            break;
        }
    }
}

static void every_one_byte_opcode_is_classified(void **state)
{
    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++)
        check_opcode(MAP_1BYTE, opcode, one_byte[opcode]);
}

static void every_two_byte_opcode_is_classified(void **state)
{
    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++)
        check_opcode(MAP_0F, opcode, two_byte[opcode]);
}

static void every_x87_opcode_is_classified(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned reg = 0; reg < 8; reg++)
            check(x87[i].mem[reg] == 'x', MAP_1BYTE, 0xd8 + i, reg << 3, 0);
        for (unsigned second = 0; second < 64; second++)
            check(x87[i].reg[second] == 'x', MAP_1BYTE, 0xd8 + i, 0xc0 + second, 0);
    }
}

/* Opcodes of 0F that exist with a mandatory prefix, one character each:
 * memory form and register form, as 'x', 'm', 'r'. */
static void sse_opcodes_exist_under_their_prefixes_only(void **state)
{
    /* clang-format off */
    static const struct { uint8_t opcode; const char *kinds; } rows[] = { /* none, 66, F3, F2 */
        { 0x10, "xxxx" }, { 0x11, "xxxx" }, { 0x12, "xm.." }, { 0x13, "mm.." },
        { 0x14, "xx.." }, { 0x15, "xx.." }, { 0x16, "xm.." }, { 0x17, "mm.." },
        { 0x28, "xx.." }, { 0x29, "xx.." }, { 0x2a, "xxxx" }, { 0x2b, "mm.." },
        { 0x2c, "xxxx" }, { 0x2d, "xxxx" }, { 0x2e, "xx.." }, { 0x2f, "xx.." },
        { 0x50, "rr.." }, { 0x51, "xxxx" }, { 0x52, "x.x." }, { 0x53, "x.x." },
        { 0x54, "xx.." }, { 0x55, "xx.." }, { 0x56, "xx.." }, { 0x57, "xx.." },
        { 0x58, "xxxx" }, { 0x59, "xxxx" }, { 0x5a, "xxxx" }, { 0x5b, "xxx." },
        { 0x5c, "xxxx" }, { 0x5d, "xxxx" }, { 0x5e, "xxxx" }, { 0x5f, "xxxx" },
        { 0x60, "xx.." }, { 0x6b, "xx.." }, { 0x6c, ".x.." }, { 0x6d, ".x.." },
        { 0x6e, "xx.." }, { 0x6f, "xxx." }, { 0x70, "xxxx" }, { 0x74, "xx.." },
        { 0x7c, "...." }, { 0x7d, "...." }, { 0x7e, "xxx." }, { 0x7f, "xxx." },
        { 0xc2, "xxxx" }, { 0xc4, "xx.." }, { 0xc5, "rr.." }, { 0xc6, "xx.." },
        { 0xd0, "...." }, { 0xd1, "xx.." }, { 0xd6, ".xrr" }, { 0xd7, "rr.." },
        { 0xe6, ".xxx" }, { 0xe7, "mm.." }, { 0xf0, "...." }, { 0xf4, "xx.." },
        { 0xf7, "rr.." }, { 0xfb, "xx.." }, { 0xfe, "xx.." },
    };
    static const uint8_t prefixes[4] = { 0, 0x66, 0xf3, 0xf2 };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (unsigned p = 0; p < 4; p++) {
            char kind = rows[i].kinds[p];
            check(kind == 'x' || kind == 'm', MAP_0F, rows[i].opcode, 0x00, prefixes[p]);
            check(kind == 'x' || kind == 'r', MAP_0F, rows[i].opcode, 0xc1, prefixes[p]);
        }
}

static void what_a_pentium_4_lacks_is_ud(void **state)
{
    /* clang-format off */
    static const struct { const char *text; uint8_t bytes[8]; } rows[] = {
        { "syscall", { 0x0f, 0x05 } },           { "sysret", { 0x0f, 0x07 } },
        { "monitor", { 0x0f, 0x01, 0xc8 } },     { "mwait", { 0x0f, 0x01, 0xc9 } },
        { "vmcall", { 0x0f, 0x01, 0xc1 } },      { "vmrun", { 0x0f, 0x01, 0xd8 } },
        { "xgetbv", { 0x0f, 0x01, 0xd0 } },      { "rdtscp", { 0x0f, 0x01, 0xf9 } },
        { "clac", { 0x0f, 0x01, 0xca } },        { "swapgs", { 0x0f, 0x01, 0xf8 } },
        { "vmread", { 0x0f, 0x78, 0xc0 } },      { "getsec", { 0x0f, 0x37 } },
        { "femms", { 0x0f, 0x0e } },             { "pfadd", { 0x0f, 0x0f, 0xc0, 0x9e } },
        { "prefetchw", { 0x0f, 0x0d, 0x08 } },   { "popcnt", { 0xf3, 0x0f, 0xb8, 0xc0 } },
        { "pshufb", { 0x0f, 0x38, 0x00, 0xc0 } }, { "movbe", { 0x0f, 0x38, 0xf0, 0x00 } },
        { "crc32", { 0xf2, 0x0f, 0x38, 0xf0, 0xc0 } }, { "palignr", { 0x0f, 0x3a, 0x0f, 0xc0, 0x00 } },
        { "addsubps", { 0xf2, 0x0f, 0xd0, 0xc0 } }, { "haddps", { 0xf2, 0x0f, 0x7c, 0xc0 } },
        { "lddqu", { 0xf2, 0x0f, 0xf0, 0x00 } }, { "movddup", { 0xf2, 0x0f, 0x12, 0xc0 } },
        { "movsldup", { 0xf3, 0x0f, 0x12, 0xc0 } }, { "fisttp", { 0xdb, 0x08 } },
        { "rdrand", { 0x0f, 0xc7, 0xf0 } },      { "vmptrld", { 0x0f, 0xc7, 0x30 } },
        { "xsave", { 0x0f, 0xae, 0x20 } },       { "xrstor", { 0x0f, 0xae, 0x28 } },
        { "clwb", { 0x66, 0x0f, 0xae, 0x30 } },  { "clflushopt", { 0x66, 0x0f, 0xae, 0x38 } },
        { "rdfsbase", { 0xf3, 0x0f, 0xae, 0xc0 } }, { "xbegin", { 0xc7, 0xf8 } },
        { "xabort", { 0xc6, 0xf8 } },            { "mov tr", { 0x0f, 0x26, 0xc0 } },
        { "jmpe", { 0x0f, 0xb8 } },              { "padlock", { 0x0f, 0xa7, 0xc0 } },
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t bytes[16] = { 0 };
        memcpy(bytes, rows[i].bytes, sizeof(rows[i].bytes));
        if (is_available(bytes, 15))
            fail_msg("%s has a row", rows[i].text);
    }
}

struct class_row {
    const char *text;
    uint8_t bytes[4];
    uint8_t cls;
    unsigned callout;
};

static void sensitive_and_privileged_instructions_name_their_callout(void **state)
{
    /* clang-format off */
    static const struct class_row rows[] = {
        { "sgdt", { 0x0f, 0x01, 0x00 }, CLASS_SENSITIVE, CALLOUT_sgdt },
        { "sidt", { 0x0f, 0x01, 0x08 }, CLASS_SENSITIVE, CALLOUT_sidt },
        { "sldt", { 0x0f, 0x00, 0x00 }, CLASS_SENSITIVE, CALLOUT_sldt },
        { "str", { 0x0f, 0x00, 0x08 }, CLASS_SENSITIVE, CALLOUT_str },
        { "smsw", { 0x0f, 0x01, 0x20 }, CLASS_SENSITIVE, CALLOUT_smsw },
        { "pushf", { 0x9c }, CLASS_SENSITIVE, CALLOUT_pushf },
        { "pushf 16", { 0x66, 0x9c }, CLASS_SENSITIVE, CALLOUT_pushf },
        { "popf", { 0x9d }, CLASS_SENSITIVE, CALLOUT_popf },
        { "popf 16", { 0x66, 0x9d }, CLASS_SENSITIVE, CALLOUT_popf },
        { "lar", { 0x0f, 0x02, 0xc0 }, CLASS_SENSITIVE, CALLOUT_lar },
        { "lsl", { 0x0f, 0x03, 0xc0 }, CLASS_SENSITIVE, CALLOUT_lsl },
        { "verr", { 0x0f, 0x00, 0xe0 }, CLASS_SENSITIVE, CALLOUT_verr },
        { "verw", { 0x0f, 0x00, 0xe8 }, CLASS_SENSITIVE, CALLOUT_verw },
        { "push cs", { 0x0e }, CLASS_SENSITIVE, CALLOUT_push_seg },
        { "push fs", { 0x0f, 0xa0 }, CLASS_SENSITIVE, CALLOUT_push_seg },
        { "pop ds", { 0x1f }, CLASS_SENSITIVE, CALLOUT_pop_seg },
        { "pop gs", { 0x0f, 0xa9 }, CLASS_SENSITIVE, CALLOUT_pop_seg },
        { "mov from seg", { 0x8c, 0xc8 }, CLASS_SENSITIVE, CALLOUT_mov_from_seg },
        { "mov to seg", { 0x8e, 0xd8 }, CLASS_SENSITIVE, CALLOUT_mov_to_seg },
        { "call far", { 0x9a }, CLASS_SENSITIVE, CALLOUT_call_far },
        { "call far m", { 0xff, 0x18 }, CLASS_SENSITIVE, CALLOUT_call_far },
        { "jmp far", { 0xea }, CLASS_SENSITIVE, CALLOUT_jmp_far },
        { "jmp far m", { 0xff, 0x28 }, CLASS_SENSITIVE, CALLOUT_jmp_far },
        { "ret far", { 0xcb }, CLASS_SENSITIVE, CALLOUT_ret_far },
        { "ret far n", { 0xca }, CLASS_SENSITIVE, CALLOUT_ret_far },
        { "int n", { 0xcd, 0x80 }, CLASS_SENSITIVE, CALLOUT_int_n },
        { "int3", { 0xcc }, CLASS_SENSITIVE, CALLOUT_int3 },
        { "int1", { 0xf1 }, CLASS_SENSITIVE, CALLOUT_int1 },
        { "into", { 0xce }, CLASS_SENSITIVE, CALLOUT_into },
        { "iret", { 0xcf }, CLASS_SENSITIVE, CALLOUT_iret },
        { "iret 16", { 0x66, 0xcf }, CLASS_SENSITIVE, CALLOUT_iret },
        { "lss", { 0x0f, 0xb2, 0x00 }, CLASS_SENSITIVE, CALLOUT_load_far_ptr },
        { "cpuid", { 0x0f, 0xa2 }, CLASS_SENSITIVE, CALLOUT_cpuid },
        { "rdtsc", { 0x0f, 0x31 }, CLASS_SENSITIVE, CALLOUT_rdtsc },
        { "lgdt", { 0x0f, 0x01, 0x10 }, CLASS_PRIVILEGED, CALLOUT_lgdt },
        { "lidt", { 0x0f, 0x01, 0x18 }, CLASS_PRIVILEGED, CALLOUT_lidt },
        { "lldt", { 0x0f, 0x00, 0x10 }, CLASS_PRIVILEGED, CALLOUT_lldt },
        { "ltr", { 0x0f, 0x00, 0x18 }, CLASS_PRIVILEGED, CALLOUT_ltr },
        { "lmsw", { 0x0f, 0x01, 0x30 }, CLASS_PRIVILEGED, CALLOUT_lmsw },
        { "clts", { 0x0f, 0x06 }, CLASS_PRIVILEGED, CALLOUT_clts },
        { "invlpg", { 0x0f, 0x01, 0x38 }, CLASS_PRIVILEGED, CALLOUT_invlpg },
        { "invd", { 0x0f, 0x08 }, CLASS_PRIVILEGED, CALLOUT_invd },
        { "wbinvd", { 0x0f, 0x09 }, CLASS_PRIVILEGED, CALLOUT_wbinvd },
        { "mov r, cr", { 0x0f, 0x20, 0xc0 }, CLASS_PRIVILEGED, CALLOUT_mov_from_cr },
        { "mov cr, r", { 0x0f, 0x22, 0xc0 }, CLASS_PRIVILEGED, CALLOUT_mov_to_cr },
        { "mov r, dr", { 0x0f, 0x21, 0xc0 }, CLASS_PRIVILEGED, CALLOUT_mov_from_dr },
        { "mov dr, r", { 0x0f, 0x23, 0xc0 }, CLASS_PRIVILEGED, CALLOUT_mov_to_dr },
        { "rdmsr", { 0x0f, 0x32 }, CLASS_PRIVILEGED, CALLOUT_rdmsr },
        { "wrmsr", { 0x0f, 0x30 }, CLASS_PRIVILEGED, CALLOUT_wrmsr },
        { "rdpmc", { 0x0f, 0x33 }, CLASS_PRIVILEGED, CALLOUT_rdpmc },
        { "hlt", { 0xf4 }, CLASS_PRIVILEGED, CALLOUT_hlt },
        { "rsm", { 0x0f, 0xaa }, CLASS_PRIVILEGED, CALLOUT_rsm },
        { "cli", { 0xfa }, CLASS_PRIVILEGED, CALLOUT_cli },
        { "sti", { 0xfb }, CLASS_PRIVILEGED, CALLOUT_sti },
        { "sysenter", { 0x0f, 0x34 }, CLASS_SENSITIVE, CALLOUT_sysenter },
        { "sysexit", { 0x0f, 0x35 }, CLASS_PRIVILEGED, CALLOUT_sysexit },
        { "in", { 0xe4 }, CLASS_PRIVILEGED, CALLOUT_in },
        { "in dx", { 0xed }, CLASS_PRIVILEGED, CALLOUT_in },
        { "out", { 0xe7 }, CLASS_PRIVILEGED, CALLOUT_out },
        { "ins", { 0x6d }, CLASS_PRIVILEGED, CALLOUT_ins },
        { "outs", { 0x6e }, CLASS_PRIVILEGED, CALLOUT_outs },
        { "movsd", { 0xa5 }, CLASS_LOWERED, CALLOUT_movs },
        { "movsw", { 0x66, 0xa5 }, CLASS_LOWERED, CALLOUT_movs },
        { "cmpsd", { 0xa7 }, CLASS_LOWERED, CALLOUT_cmps },
        { "stosb", { 0xaa }, CLASS_LOWERED, CALLOUT_stos },
        { "lodsd", { 0xad }, CLASS_LOWERED, CALLOUT_lods },
        { "scasd", { 0xaf }, CLASS_LOWERED, CALLOUT_scas },
        { "fxsave", { 0x0f, 0xae, 0x00 }, CLASS_LOWERED, CALLOUT_fxsave },
        { "ud2", { 0x0f, 0x0b }, CLASS_LOWERED, CALLOUT_raise_ud },
        { "movsd sse2", { 0xf2, 0x0f, 0x10, 0xc0 }, CLASS_INNOCUOUS, CALLOUT_COUNT },
        { "cmpsd sse2", { 0xf2, 0x0f, 0xc2, 0xc0 }, CLASS_INNOCUOUS, CALLOUT_COUNT },
        { "push eax", { 0x50 }, CLASS_INNOCUOUS, CALLOUT_COUNT },
        { "push m", { 0xff, 0x30 }, CLASS_INNOCUOUS, CALLOUT_COUNT },
        { "mov r, r", { 0x89, 0xc0 }, CLASS_INNOCUOUS, CALLOUT_COUNT },
        { "jmp near m", { 0xff, 0x20 }, CLASS_CONTROL, CALLOUT_COUNT },
        { "ret", { 0xc3 }, CLASS_CONTROL, CALLOUT_COUNT },
        { "jecxz", { 0xe3 }, CLASS_CONTROL, CALLOUT_COUNT },
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t bytes[16] = { 0 };
        struct insn in;
        memcpy(bytes, rows[i].bytes, sizeof(rows[i].bytes));
        assert_int_equal(decode_insn(bytes, 15, true, &in), DECODE_OK);
        if (in.info->cls != rows[i].cls || in.info->callout != rows[i].callout)
            fail_msg("%s: class %u callout %u", rows[i].text, in.info->cls, in.info->callout);
        if (in.info->cls == CLASS_SENSITIVE)
            assert_non_null(in.info->note);
    }
}

static void features_follow_the_register_file(void **state)
{
    /* clang-format off */
    static const struct { uint8_t bytes[6], feature; } rows[] = {
        { { 0x0f, 0xfc, 0xc0 }, FEAT_MMX },         { { 0x66, 0x0f, 0xfc, 0xc0 }, FEAT_SSE2 },
        { { 0x0f, 0xe0, 0xc0 }, FEAT_SSE },         { { 0x66, 0x0f, 0xe0, 0xc0 }, FEAT_SSE2 },
        { { 0xf3, 0x0f, 0x7e, 0xc0 }, FEAT_SSE2 },  { { 0x0f, 0x58, 0xc0 }, FEAT_SSE },
        { { 0x66, 0x0f, 0x58, 0xc0 }, FEAT_SSE2 },  { { 0xdb, 0xe8 }, FEAT_CMOV },
        { { 0x0f, 0x44, 0xc0 }, FEAT_CMOV },        { { 0x0f, 0x1f, 0xc0 }, FEAT_PENTIUM_PRO },
        { { 0x90 }, FEAT_BASE },                    { { 0x0f, 0xc8 }, FEAT_486 },
        { { 0x0f, 0xc7, 0x08 }, FEAT_CX8 },         { { 0x0f, 0x31 }, FEAT_TSC },
        { { 0x0f, 0xae, 0x38 }, FEAT_CLFLUSH },     { { 0x0f, 0xae, 0x08 }, FEAT_FXSR },
        { { 0x0f, 0x34 }, FEAT_SEP },               { { 0x0f, 0xd4, 0xc0 }, FEAT_SSE2 },
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct insn in;
        uint8_t bytes[16] = { 0 };
        memcpy(bytes, rows[i].bytes, 5);
        assert_int_equal(decode_insn(bytes, 15, true, &in), DECODE_OK);
        if (in.info->feature != rows[i].feature)
            fail_msg("%s: feature %u", decoder_mnemonic_name(in.mnemonic), in.info->feature);
    }
}

static void unknown_mnemonics_are_unavailable(void **state)
{
    (void)state;
    assert_int_equal(decoder_info(0)->cls, CLASS_UNAVAILABLE);
    assert_int_equal(decoder_info(0xffff)->cls, CLASS_UNAVAILABLE);
    assert_int_equal(decoder_info(0xffff)->callout, CALLOUT_raise_ud);
    assert_string_equal(decoder_mnemonic_name(0xffff), "invalid");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_one_byte_opcode_is_classified),
        cmocka_unit_test(every_two_byte_opcode_is_classified),
        cmocka_unit_test(every_x87_opcode_is_classified),
        cmocka_unit_test(sse_opcodes_exist_under_their_prefixes_only),
        cmocka_unit_test(what_a_pentium_4_lacks_is_ud),
        cmocka_unit_test(sensitive_and_privileged_instructions_name_their_callout),
        cmocka_unit_test(features_follow_the_register_file),
        cmocka_unit_test(unknown_mnemonics_are_unavailable),
    };
    return cmocka_run_group_tests_name("decoder classes", tests, NULL, NULL);
}
