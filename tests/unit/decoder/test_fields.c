/*
 * Fields of struct insn for the forms that are easy to get wrong. Expected values
 * are from the opcode maps and instruction pages of the Intel SDM, vol. 2.
 */
#include "decode_support.h"

#include <Zydis/Decoder.h>

static void modrm_and_sib_forms_name_base_index_and_scale(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x8b, 0x44, 0x8d, 0xfc)); /* mov eax, [ebp + ecx*4 - 4] */
    assert_true(in.has_mem);
    assert_int_equal(in.base, EBP);
    assert_int_equal(in.index, ECX);
    assert_int_equal(in.scale_log2, 2);
    assert_int_equal(in.disp, 0xfffffffcu);
    assert_int_equal(in.seg, SEG_SS);
    assert_int_equal(in.mem_size, 4);
    assert_int_equal(in.mem_access, MEM_READ);

    in = decode32(BYTES(0x8b, 0x04, 0x8d, 1, 0, 0, 0)); /* [ecx*4 + 1]: no base, so DS */
    assert_int_equal(in.base, 0xff);
    assert_int_equal(in.index, ECX);
    assert_int_equal(in.seg, SEG_DS);

    in = decode32(BYTES(0x8b, 0x04, 0x24)); /* [esp] */
    assert_int_equal(in.base, ESP);
    assert_int_equal(in.index, 0xff);
    assert_int_equal(in.seg, SEG_SS);

    in = decode32(BYTES(0x8b, 0x04, 0x60)); /* [eax]: index 100b is none, scale ignored */
    assert_int_equal(in.base, EAX);
    assert_int_equal(in.index, 0xff);

    in = decode32(BYTES(0x8b, 0x05, 0x78, 0x56, 0x34, 0x12)); /* [disp32] */
    assert_int_equal(in.base, 0xff);
    assert_int_equal(in.disp, 0x12345678);
    assert_int_equal(in.seg, SEG_DS);
    assert_false(in.is_moffs);
}

static void sixteen_bit_addressing_uses_its_own_table(void **state)
{
    (void)state;
    struct insn in = decode16(BYTES(0x8b, 0x42, 0x80)); /* mov ax, [bp + si - 128] */
    assert_int_equal(in.base, EBP);
    assert_int_equal(in.index, ESI);
    assert_int_equal(in.scale_log2, 0);
    assert_int_equal(in.disp, 0xffffff80u);
    assert_int_equal(in.seg, SEG_SS);
    assert_int_equal(in.osize, 2);
    assert_int_equal(in.asize, 2);

    in = decode16(BYTES(0x8b, 0x05)); /* [di] */
    assert_int_equal(in.base, EDI);
    assert_int_equal(in.index, 0xff);
    assert_int_equal(in.seg, SEG_DS);

    in = decode16(BYTES(0x8b, 0x06, 0xff, 0xff)); /* [0xffff]: an offset, not a displacement */
    assert_int_equal(in.base, 0xff);
    assert_int_equal(in.disp, 0xffff);

    in = decode32(BYTES(0x67, 0x8b, 0x46, 0x02)); /* [bp + 2] in 32-bit code */
    assert_int_equal(in.base, EBP);
    assert_int_equal(in.asize, 2);
    assert_int_equal(in.osize, 4);
}

static void moffs_is_a_memory_operand_without_modrm(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x64, 0xa1, 0x14, 0, 0, 0)); /* mov eax, fs:[0x14] */
    assert_true(in.is_moffs && in.has_mem && !in.has_modrm && in.has_seg_override);
    assert_int_equal(in.seg, SEG_FS);
    assert_int_equal(in.disp, 0x14);
    assert_int_equal(in.mem_access, MEM_READ);
    in = decode32(BYTES(0x67, 0xa2, 0xff, 0xff)); /* mov [0xffff], al */
    assert_int_equal(in.asize, 2);
    assert_int_equal(in.osize, 1);
    assert_int_equal(in.disp, 0xffff);
    assert_int_equal(in.mem_size, 1);
    assert_int_equal(in.mem_access, MEM_WRITE);
}

static void last_segment_prefix_wins(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x64, 0x26, 0x8b, 0x45, 0x00));
    assert_int_equal(in.seg, SEG_ES);
    in = decode32(BYTES(0x65, 0xac)); /* lods gs:[esi] */
    assert_int_equal(in.seg, SEG_GS);
    assert_false(in.has_mem);
}

struct mem_row {
    const char *text;
    uint8_t bytes[8], len, size, access; /* size in bytes, but for FXSAVE's 512 */
};

static void memory_operands_have_the_size_that_the_processor_touches(void **state)
{
    /* clang-format off */
    static const struct mem_row rows[] = {
        { "fnstenv 32",     { 0xd9, 0x30 }, 2, 28, MEM_WRITE },
        { "fnstenv 16",     { 0x66, 0xd9, 0x30 }, 3, 14, MEM_WRITE },
        { "fldenv",         { 0xd9, 0x20 }, 2, 28, MEM_READ },
        { "fnsave 32",      { 0xdd, 0x30 }, 2, 108, MEM_WRITE },
        { "fnsave 16",      { 0x66, 0xdd, 0x30 }, 3, 94, MEM_WRITE },
        { "frstor",         { 0xdd, 0x20 }, 2, 108, MEM_READ },
        { "fld m80",        { 0xdb, 0x28 }, 2, 10, MEM_READ },
        { "fstp m80",       { 0xdb, 0x38 }, 2, 10, MEM_WRITE },
        { "fbstp",          { 0xdf, 0x30 }, 2, 10, MEM_WRITE },
        { "fild m64",       { 0xdf, 0x28 }, 2, 8, MEM_READ },
        { "fnstsw m16",     { 0xdd, 0x38 }, 2, 2, MEM_WRITE },
        { "fldcw",          { 0xd9, 0x28 }, 2, 2, MEM_READ },
        { "cmpxchg8b",      { 0x0f, 0xc7, 0x08 }, 3, 8, MEM_READ | MEM_WRITE },
        { "cmpxchg",        { 0x0f, 0xb1, 0x08 }, 3, 4, MEM_READ | MEM_WRITE },
        { "bound 32",       { 0x62, 0x00 }, 2, 8, MEM_READ },
        { "bound 16",       { 0x66, 0x62, 0x00 }, 3, 4, MEM_READ },
        { "bt r",           { 0x0f, 0xa3, 0x08 }, 3, 4, MEM_READ },
        { "bts r16",        { 0x66, 0x0f, 0xab, 0x08 }, 4, 2, MEM_READ | MEM_WRITE },
        { "les",            { 0xc4, 0x00 }, 2, 6, MEM_READ },
        { "lss 16",         { 0x66, 0x0f, 0xb2, 0x00 }, 4, 4, MEM_READ },
        { "call far",       { 0xff, 0x18 }, 2, 6, MEM_READ },
        { "jmp far 16",     { 0x66, 0xff, 0x28 }, 3, 4, MEM_READ },
        { "sgdt",           { 0x0f, 0x01, 0x00 }, 3, 6, MEM_WRITE },
        { "lidt 16",        { 0x66, 0x0f, 0x01, 0x18 }, 4, 6, MEM_READ },
        { "invlpg",         { 0x0f, 0x01, 0x38 }, 3, 0, 0 },
        { "lea",            { 0x8d, 0x00 }, 2, 0, 0 },
        { "nop",            { 0x0f, 0x1f, 0x00 }, 3, 0, 0 },
        { "prefetchnta",    { 0x0f, 0x18, 0x00 }, 3, 0, 0 },
        { "clflush",        { 0x0f, 0xae, 0x38 }, 3, 1, MEM_READ },
        { "ldmxcsr",        { 0x0f, 0xae, 0x10 }, 3, 4, MEM_READ },
        { "mov m, sreg",    { 0x8c, 0x18 }, 2, 2, MEM_WRITE },
        { "mov sreg, m",    { 0x8e, 0x18 }, 2, 2, MEM_READ },
        { "smsw m",         { 0x0f, 0x01, 0x20 }, 3, 2, MEM_WRITE },
        { "sldt m",         { 0x0f, 0x00, 0x00 }, 3, 2, MEM_WRITE },
        { "arpl",           { 0x63, 0x00 }, 2, 2, MEM_READ | MEM_WRITE },
        { "pop m",          { 0x8f, 0x00 }, 2, 4, MEM_WRITE },
        { "push m16",       { 0x66, 0xff, 0x30 }, 3, 2, MEM_READ },
        { "setnz",          { 0x0f, 0x95, 0x00 }, 3, 1, MEM_WRITE },
        { "xchg",           { 0x87, 0x00 }, 2, 4, MEM_READ | MEM_WRITE },
        { "movzx m8",       { 0x0f, 0xb6, 0x00 }, 3, 1, MEM_READ },
        { "punpcklbw mmx",  { 0x0f, 0x60, 0x00 }, 3, 4, MEM_READ },
        { "punpckhbw mmx",  { 0x0f, 0x68, 0x00 }, 3, 8, MEM_READ },
        { "movlps st",      { 0x0f, 0x13, 0x00 }, 3, 8, MEM_WRITE },
        { "movss",          { 0xf3, 0x0f, 0x10, 0x00 }, 4, 4, MEM_READ },
        { "movsd sse2",     { 0xf2, 0x0f, 0x11, 0x00 }, 4, 8, MEM_WRITE },
        { "movdqa",         { 0x66, 0x0f, 0x6f, 0x00 }, 4, 16, MEM_READ },
        { "cvtps2pd",       { 0x0f, 0x5a, 0x00 }, 3, 8, MEM_READ },
        { "cvttss2si",      { 0xf3, 0x0f, 0x2c, 0x00 }, 4, 4, MEM_READ },
        { "pinsrw",         { 0x0f, 0xc4, 0x00, 0x01 }, 4, 2, MEM_READ },
        { "psllw xmm",      { 0x66, 0x0f, 0xf1, 0x00 }, 4, 16, MEM_READ },
        { "movnti",         { 0x0f, 0xc3, 0x00 }, 3, 4, MEM_WRITE },
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct insn in = decode32(rows[i].bytes, rows[i].len);
        if (!in.has_mem || in.mem_size != rows[i].size || in.mem_access != rows[i].access)
            fail_msg("%s: size %u access %u", rows[i].text, in.mem_size, in.mem_access);
    }
    struct insn in = decode32(BYTES(0x0f, 0xae, 0x00)); /* fxsave */
    assert_int_equal(in.mem_size, 512);
    assert_int_equal(in.mem_access, MEM_WRITE);
    in = decode32(BYTES(0x0f, 0xae, 0x08)); /* fxrstor */
    assert_int_equal(in.mem_size, 512);
    assert_int_equal(in.mem_access, MEM_READ);
    in = decode32(BYTES(0x0f, 0xf7, 0xc1)); /* maskmovq: its memory operand is implicit */
    assert_false(in.has_mem);
}

static void register_fields_name_their_register_file(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x88, 0xe0)); /* mov al, ah */
    assert_int_equal(in.reg_kind, RK_GPR8);
    assert_int_equal(in.rm_kind, RK_GPR8);
    assert_int_equal(in.reg, 4);
    in = decode32(BYTES(0x66, 0x0f, 0xb6, 0xc4)); /* movzx ax, ah */
    assert_int_equal(in.reg_kind, RK_GPR16);
    assert_int_equal(in.rm_kind, RK_GPR8);
    in = decode32(BYTES(0x8e, 0xd8));
    assert_int_equal(in.reg_kind, RK_SEG);
    in = decode32(BYTES(0x0f, 0x22, 0xc0));
    assert_int_equal(in.reg_kind, RK_CR);
    assert_int_equal(in.rm_kind, RK_GPR32);
    in = decode32(BYTES(0x0f, 0x23, 0xf8));
    assert_int_equal(in.reg_kind, RK_DR);
    in = decode32(BYTES(0x83, 0xc0, 0x01)); /* the field extends the opcode */
    assert_int_equal(in.reg_kind, RK_OPEXT);
    in = decode32(BYTES(0xd8, 0xc3)); /* fadd st, st(3) */
    assert_int_equal(in.rm_kind, RK_X87);
    assert_int_equal(in.rm, 3);
    in = decode32(BYTES(0x0f, 0x2a, 0xc1)); /* cvtpi2ps xmm0, mm1 */
    assert_int_equal(in.reg_kind, RK_XMM);
    assert_int_equal(in.rm_kind, RK_MMX);
    in = decode32(BYTES(0x66, 0x0f, 0xc5, 0xc1, 0x02)); /* pextrw eax, xmm1, 2 */
    assert_int_equal(in.reg_kind, RK_GPR32);
    assert_int_equal(in.rm_kind, RK_XMM);
    in = decode32(BYTES(0x53));
    assert_int_equal(in.op_reg_kind, RK_GPR32);
    in = decode32(BYTES(0xb4, 0x01));
    assert_int_equal(in.op_reg_kind, RK_GPR8);
    in = decode32(BYTES(0x0f, 0xcb));
    assert_int_equal(in.op_reg_kind, RK_GPR32);
}

static void mov_with_control_registers_ignores_mod(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x0f, 0x20, 0x05));
    assert_int_equal(in.mod, 3);
    assert_false(in.has_mem);
}

static void immediates_extend_only_where_the_instruction_does(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x83, 0xc0, 0xff));
    assert_int_equal(in.imm, 0xffffffffu);
    assert_int_equal(in.imm_len, 1);
    in = decode32(BYTES(0x80, 0xc0, 0xff));
    assert_int_equal(in.imm, 0xff);
    in = decode32(BYTES(0x66, 0x05, 0xff, 0xff));
    assert_int_equal(in.imm, 0xffff);
    assert_int_equal(in.imm_len, 2);
    in = decode32(BYTES(0x6a, 0x80));
    assert_int_equal(in.imm, 0xffffff80u);
    in = decode32(BYTES(0xc1, 0xe0, 0xff));
    assert_int_equal(in.imm, 0xff);
    in = decode32(BYTES(0xcd, 0x80));
    assert_int_equal(in.imm, 0x80);
    in = decode32(BYTES(0xc8, 0xff, 0xff, 0xff)); /* enter 65535, 255 */
    assert_int_equal(in.imm, 0xffff);
    assert_int_equal(in.imm_len, 2);
    assert_int_equal(in.imm2, 0xff);
    assert_int_equal(in.imm2_len, 1);
    in = decode32(BYTES(0xea, 0x78, 0x56, 0x34, 0x92, 0xfe, 0xff)); /* jmp far 0xfffe:0x92345678 */
    assert_int_equal(in.imm, 0x92345678u);
    assert_int_equal(in.imm2, 0xfffe);
    assert_int_equal(in.imm2_len, 2);
    in = decode32(BYTES(0x66, 0xe8, 0xfd, 0xff));
    assert_int_equal(in.imm, 0xfffffffdu);
    assert_true(in.imm_is_rel);
    assert_int_equal(in.osize, 2);
}

static void mandatory_prefixes_belong_to_the_opcode(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0xf3, 0x0f, 0x10, 0xc1)); /* movss */
    assert_true(in.rep_is_opcode);
    assert_int_equal(in.rep, REP_F3);
    in = decode32(BYTES(0x66, 0xf2, 0x0f, 0x10, 0xc1)); /* F2 beats 66 */
    assert_true(in.rep_is_opcode && !in.p66_is_opcode);
    in = decode32(BYTES(0x66, 0x0f, 0xef, 0xc0)); /* pxor xmm */
    assert_true(in.p66_is_opcode && !in.rep_is_opcode);
    in = decode32(BYTES(0xf3, 0xa4));
    assert_false(in.rep_is_opcode);
    assert_int_equal(in.rep, REP_F3);
    in = decode32(BYTES(0xf2, 0xf3, 0xa6)); /* the last one wins */
    assert_int_equal(in.rep, REP_F3);
    in = decode32(BYTES(0xf3, 0x01, 0xc0)); /* ignored */
    assert_int_equal(in.rep, REP_NONE);
    in = decode32(BYTES(0xf2, 0xe9, 0, 0, 0, 0));
    assert_int_equal(in.rep, REP_NONE);
}

static void later_processors_meanings_do_not_show(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0xf3, 0x0f, 0xbc, 0xc1)); /* TZCNT, here BSF */
    assert_string_equal(decoder_mnemonic_name(in.mnemonic), "bsf");
    assert_int_equal(in.rep, REP_NONE);
    in = decode32(BYTES(0xf3, 0x0f, 0xbd, 0xc1)); /* LZCNT */
    assert_string_equal(decoder_mnemonic_name(in.mnemonic), "bsr");
    in = decode32(BYTES(0xf3, 0x0f, 0x1e, 0xfb)); /* ENDBR32 */
    assert_string_equal(decoder_mnemonic_name(in.mnemonic), "nop");
    assert_int_equal(in.rep, REP_NONE);
    in = decode32(BYTES(0x66, 0x0f, 0x1a, 0x00)); /* BNDMOV */
    assert_string_equal(decoder_mnemonic_name(in.mnemonic), "nop");
    assert_int_equal(in.mem_size, 0);
    assert_false(in.p66_is_opcode);
    in = decode32(BYTES(0x0f, 0x1c, 0x00)); /* CLDEMOTE */
    assert_string_equal(decoder_mnemonic_name(in.mnemonic), "nop");
    in = decode32(BYTES(0xf3, 0x0f, 0x09)); /* WBNOINVD */
    assert_string_equal(decoder_mnemonic_name(in.mnemonic), "wbinvd");
}

static void illegal_encodings_are_invalid(void **state)
{
    (void)state;
    assert_int_equal(decode_status(BYTES(0xf0, 0x89, 0x0a)), DECODE_INVALID);       /* lock mov */
    assert_int_equal(decode_status(BYTES(0xf0, 0x01, 0xc0)), DECODE_INVALID);       /* lock, register */
    assert_int_equal(decode_status(BYTES(0xf0, 0x0f, 0xc7, 0xc8)), DECODE_INVALID); /* F00F */
    assert_int_equal(decode_status(BYTES(0xc5, 0xf8, 0x77)), DECODE_INVALID);       /* VEX */
    assert_int_equal(decode_status(BYTES(0xc4, 0xe2, 0x79, 0x18, 0x00)), DECODE_INVALID);
    assert_int_equal(decode_status(BYTES(0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0)), DECODE_INVALID); /* EVEX */
    assert_int_equal(decode_status(BYTES(0x8f, 0xe9, 0x78, 0x12, 0xc0)), DECODE_INVALID);       /* XOP */
    assert_int_equal(decode_status(BYTES(0x0f, 0x0f, 0xc0, 0xbf)), DECODE_INVALID);             /* 3DNow! */
    assert_int_equal(decode_status(BYTES(0x8d, 0xc0)), DECODE_INVALID); /* lea of a register */
    assert_int_equal(decode_status(BYTES(0x8e, 0xc8)), DECODE_INVALID); /* mov cs */
    assert_int_equal(decode_status(BYTES(0x8e, 0xf0)), DECODE_INVALID);
    assert_int_equal(decode_status(BYTES(0x0f, 0x20, 0xc8)), DECODE_INVALID); /* CR1 */
    assert_int_equal(decode_status(BYTES(0x0f, 0x24, 0xc0)), DECODE_INVALID); /* test registers */
}

static void only_fifteen_bytes_make_an_instruction(void **state)
{
    uint8_t bytes[17];
    struct insn in;

    (void)state;
    memset(bytes, 0x66, sizeof(bytes));
    bytes[14] = 0x90;
    assert_int_equal(decode_insn(bytes, 15, true, &in), DECODE_OK);
    assert_int_equal(in.len, 15);
    bytes[14] = 0x66;
    bytes[15] = 0x90;
    assert_int_equal(decode_insn(bytes, 14, true, &in), DECODE_TRUNCATED);
    assert_int_equal(decode_insn(bytes, 16, true, &in), DECODE_INVALID);
    assert_int_equal(in.len, 16);
    assert_int_equal(decode_insn(bytes, 0, true, &in), DECODE_TRUNCATED);
}

static void units_follow_the_registers(void **state)
{
    /* clang-format off */
    static const struct { uint8_t bytes[6], len, unit; } rows[] = {
        { { 0x9b }, 1, UNIT_WAIT },
        { { 0xd9, 0xe8 }, 2, UNIT_X87 },
        { { 0x0f, 0x77 }, 2, UNIT_MMX },
        { { 0x0f, 0xfc, 0xc0 }, 3, UNIT_MMX },
        { { 0x66, 0x0f, 0xfc, 0xc0 }, 4, UNIT_SSE },
        { { 0x0f, 0xae, 0x00 }, 3, UNIT_X87 },          /* FXSAVE: #NM like x87 */
        { { 0x0f, 0xae, 0x18 }, 3, UNIT_SSE },          /* STMXCSR */
        { { 0x0f, 0xae, 0xf8 }, 3, UNIT_INT },          /* SFENCE */
        { { 0x0f, 0xc3, 0x00 }, 3, UNIT_INT },          /* MOVNTI */
        { { 0xf3, 0x0f, 0x2d, 0x00 }, 4, UNIT_SSE },    /* CVTSS2SI from memory */
        { { 0x0f, 0x2d, 0x00 }, 3, UNIT_SSE },          /* CVTPS2PI from memory */
        { { 0x0f, 0x70, 0xc0, 0x00 }, 4, UNIT_MMX },    /* PSHUFW */
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct insn in = decode32(rows[i].bytes, rows[i].len);
        if (in.unit != rows[i].unit)
            fail_msg("%s: unit %u", decoder_mnemonic_name(in.mnemonic), in.unit);
    }
}

/* decode.c keeps its two decoders as constants; they must be what Zydis would make. */
static void constant_decoders_are_what_zydis_makes(void **state)
{
    ZydisDecoder made;
    ZydisDecoder same = { .machine_mode = ZYDIS_MACHINE_MODE_LEGACY_32, .stack_width = ZYDIS_STACK_WIDTH_32 };

    (void)state;
    memset(&made, 0, sizeof(made));
    assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&made, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32)));
    for (int mode = 0; mode <= ZYDIS_DECODER_MODE_MAX_VALUE; mode++)
        assert_true(ZYAN_SUCCESS(ZydisDecoderEnableMode(&made, (ZydisDecoderMode)mode, ZYAN_FALSE)));
    assert_int_equal(made.machine_mode, same.machine_mode);
    assert_int_equal(made.stack_width, same.stack_width);
    assert_memory_equal(made.decoder_mode, same.decoder_mode, sizeof(same.decoder_mode));
}

/* The translator writes a 66 for osize 2; before these it would change the instruction. */
static void instructions_without_operand_size_report_four_bytes(void **state)
{
    (void)state;
    assert_int_equal(decode16(BYTES(0x0f, 0xc3, 0x04)).osize, 4);       /* movnti */
    assert_int_equal(decode16(BYTES(0x0f, 0xae, 0x3c)).osize, 4);       /* clflush */
    assert_int_equal(decode16(BYTES(0x0f, 0xae, 0xf8)).osize, 4);       /* sfence */
    assert_int_equal(decode32(BYTES(0x66, 0x0f, 0xc7, 0x08)).osize, 4); /* cmpxchg8b */
}

static void opcode_82_reports_its_alias(void **state)
{
    (void)state;
    struct insn in = decode32(BYTES(0x82, 0x00, 0xff));
    assert_int_equal(in.opcode, 0x80);
    assert_int_equal(in.imm, 0xff);
    assert_int_equal(in.mem_size, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modrm_and_sib_forms_name_base_index_and_scale),
        cmocka_unit_test(sixteen_bit_addressing_uses_its_own_table),
        cmocka_unit_test(moffs_is_a_memory_operand_without_modrm),
        cmocka_unit_test(last_segment_prefix_wins),
        cmocka_unit_test(memory_operands_have_the_size_that_the_processor_touches),
        cmocka_unit_test(register_fields_name_their_register_file),
        cmocka_unit_test(mov_with_control_registers_ignores_mod),
        cmocka_unit_test(immediates_extend_only_where_the_instruction_does),
        cmocka_unit_test(mandatory_prefixes_belong_to_the_opcode),
        cmocka_unit_test(later_processors_meanings_do_not_show),
        cmocka_unit_test(illegal_encodings_are_invalid),
        cmocka_unit_test(only_fifteen_bytes_make_an_instruction),
        cmocka_unit_test(units_follow_the_registers),
        cmocka_unit_test(instructions_without_operand_size_report_four_bytes),
        cmocka_unit_test(opcode_82_reports_its_alias),
        cmocka_unit_test(constant_decoders_are_what_zydis_makes),
    };
    return cmocka_run_group_tests_name("decoder fields", tests, NULL, NULL);
}
