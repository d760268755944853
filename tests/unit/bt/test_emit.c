/*
 * Every encoder, decoded back: Zydis in 64-bit mode must see the instruction that was asked
 * for, with the operands that were asked for, and as many bytes as were written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <Zydis/Zydis.h>

#include "bt/emit.h"

static uint8_t buf[32];
static ZydisDecodedInstruction insn;
static ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];

static struct emit fresh(void)
{
    memset(buf, 0xcc, sizeof buf);
    return (struct emit){ buf, buf, buf + sizeof buf, false, false };
}

/* Decode what was written, the whole of it and nothing else. */
static void decode(const struct emit *e, ZydisMnemonic mnemonic)
{
    ZydisDecoder d;

    assert_false(e->overflow);
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, buf, sizeof buf, &insn, operand)));
    assert_int_equal(insn.length, e->p - buf);
    if (insn.mnemonic != mnemonic)
        fail_msg("%s, expected %s", ZydisMnemonicGetString(insn.mnemonic), ZydisMnemonicGetString(mnemonic));
}

static ZydisRegister reg_of(unsigned size, enum host_reg r)
{
    ZydisRegisterClass cls = size == 64   ? ZYDIS_REGCLASS_GPR64
                             : size == 32 ? ZYDIS_REGCLASS_GPR32
                                          : ZYDIS_REGCLASS_GPR16;

    return ZydisRegisterEncode(cls, (ZyanU8)r);
}

static void expect_reg(unsigned i, unsigned size, enum host_reg r)
{
    assert_int_equal(operand[i].type, ZYDIS_OPERAND_TYPE_REGISTER);
    assert_int_equal(operand[i].reg.value, reg_of(size, r));
}

/* The low byte of a register: SPL..DIL, never AH..BH. */
static void expect_low_byte(unsigned i, enum host_reg r)
{
    static const ZydisRegister low[] = { ZYDIS_REGISTER_AL,   ZYDIS_REGISTER_CL,   ZYDIS_REGISTER_DL,
                                         ZYDIS_REGISTER_BL,   ZYDIS_REGISTER_SPL,  ZYDIS_REGISTER_BPL,
                                         ZYDIS_REGISTER_SIL,  ZYDIS_REGISTER_DIL,  ZYDIS_REGISTER_R8B,
                                         ZYDIS_REGISTER_R9B,  ZYDIS_REGISTER_R10B, ZYDIS_REGISTER_R11B,
                                         ZYDIS_REGISTER_R12B, ZYDIS_REGISTER_R13B, ZYDIS_REGISTER_R14B,
                                         ZYDIS_REGISTER_R15B };

    assert_int_equal(operand[i].reg.value, low[r]);
}

static void expect_mem(unsigned i, unsigned bits, struct hmem m)
{
    unsigned address = m.window ? 32 : 64;
    const ZydisDecodedOperandMem *z = &operand[i].mem;

    assert_int_equal(operand[i].type, ZYDIS_OPERAND_TYPE_MEMORY);
    if (bits)
        assert_int_equal(operand[i].size, bits);
    assert_int_equal(insn.address_width, address);
    assert_int_equal(z->base, m.base == H_NONE ? ZYDIS_REGISTER_NONE : reg_of(address, m.base));
    assert_int_equal(z->index, m.index == H_NONE ? ZYDIS_REGISTER_NONE : reg_of(address, m.index));
    if (m.index != H_NONE)
        assert_int_equal(z->scale, 1 << m.scale_log2);
    assert_int_equal(z->disp.has_displacement ? z->disp.value : 0, m.disp);
    assert_int_equal(z->segment == ZYDIS_REGISTER_GS, m.window);
}

/* Every memory form: each base, index, scale and size of displacement, in and out of a window. */
static void for_each_mem(void (*fn)(struct hmem m, enum host_reg r))
{
    static const int32_t disps[] = { 0, 1, -1, 127, -128, 128, -129, 0x12345678, INT32_MIN };

    for (unsigned base = 0; base <= H_NONE; base++)
        for (unsigned index = 0; index <= H_NONE; index++)
            for (unsigned k = 0; k < sizeof disps / sizeof disps[0]; k++) {
                if (index == H_RSP)
                    continue;
                struct hmem m = { .base = (enum host_reg)base,
                                  .index = (enum host_reg)index,
                                  .scale_log2 = index == H_NONE ? 0 : (uint8_t)((base + k) & 3),
                                  .disp = disps[k],
                                  .window = (base + index + k) & 1 };
                fn(m, (enum host_reg)((base * 7 + index * 3 + k) & 15));
            }
}

static void check_loads_and_stores(struct hmem m, enum host_reg r)
{
    struct emit e = fresh();

    e_mov_r32_m32(&e, r, m);
    decode(&e, ZYDIS_MNEMONIC_MOV);
    expect_reg(0, 32, r);
    expect_mem(1, 32, m);
    e = fresh();
    e_mov_r64_m64(&e, r, m);
    decode(&e, ZYDIS_MNEMONIC_MOV);
    expect_reg(0, 64, r);
    expect_mem(1, 64, m);
    e = fresh();
    e_mov_m32_r32(&e, m, r);
    decode(&e, ZYDIS_MNEMONIC_MOV);
    expect_mem(0, 32, m);
    expect_reg(1, 32, r);
    e = fresh();
    e_mov_m64_r64(&e, m, r);
    decode(&e, ZYDIS_MNEMONIC_MOV);
    expect_mem(0, 64, m);
    expect_reg(1, 64, r);
}

static void check_immediates_to_memory(struct hmem m, enum host_reg r)
{
    struct emit e = fresh();

    (void)r;
    e_mov_m32_imm32(&e, m, 0x89abcdef);
    decode(&e, ZYDIS_MNEMONIC_MOV);
    expect_mem(0, 32, m);
    assert_int_equal((uint32_t)operand[1].imm.value.u, 0x89abcdef);
    e = fresh();
    e_mov_m8_imm8(&e, m, 0x9a);
    decode(&e, ZYDIS_MNEMONIC_MOV);
    expect_mem(0, 8, m);
    assert_int_equal((uint8_t)operand[1].imm.value.u, 0x9a);
}

static void check_lea_and_extensions(struct hmem m, enum host_reg r)
{
    struct emit e = fresh();

    e_movzx_r32_m8(&e, r, m);
    decode(&e, ZYDIS_MNEMONIC_MOVZX);
    expect_reg(0, 32, r);
    expect_mem(1, 8, m);
    e = fresh();
    e_movzx_r32_m16(&e, r, m);
    decode(&e, ZYDIS_MNEMONIC_MOVZX);
    expect_reg(0, 32, r);
    expect_mem(1, 16, m);
    m.window = false; /* LEA has no segment */
    e = fresh();
    e_lea_r32(&e, r, m);
    decode(&e, ZYDIS_MNEMONIC_LEA);
    expect_reg(0, 32, r);
    expect_mem(1, 0, m);
    e = fresh();
    e_lea_r64(&e, r, m);
    decode(&e, ZYDIS_MNEMONIC_LEA);
    expect_reg(0, 64, r);
    expect_mem(1, 0, m);
}

static void check_generic_and_indirect(struct hmem m, enum host_reg r)
{
    struct emit e = fresh();

    e_op_rm(&e, ENC_LOCK | ENC_66 | ENC_0F, 0xc1, r, m); /* LOCK XADD m16, r16 */
    decode(&e, ZYDIS_MNEMONIC_XADD);
    assert_true(insn.attributes & ZYDIS_ATTRIB_HAS_LOCK);
    expect_mem(0, 16, m);
    expect_reg(1, 16, r);
    e = fresh();
    e_op_rm(&e, ENC_F3 | ENC_0F, 0x10, r & 7, m); /* MOVSS */
    decode(&e, ZYDIS_MNEMONIC_MOVSS);
    expect_mem(1, 32, m);
    e = fresh();
    e_op_rm(&e, ENC_F2 | ENC_0F, 0x10, r & 7, m);
    decode(&e, ZYDIS_MNEMONIC_MOVSD);
    expect_mem(1, 64, m);
    e = fresh();
    e_op_rm(&e, ENC_66 | ENC_0F | ENC_0F38, 0x00, r & 7, m);
    decode(&e, ZYDIS_MNEMONIC_PSHUFB);
    e = fresh();
    e_jmp_m64(&e, m);
    decode(&e, ZYDIS_MNEMONIC_JMP);
    expect_mem(0, 64, m);
    e = fresh();
    e_call_m64(&e, m);
    decode(&e, ZYDIS_MNEMONIC_CALL);
    expect_mem(0, 64, m);
}

static void every_memory_operand(void **state)
{
    (void)state;
    for_each_mem(check_loads_and_stores);
    for_each_mem(check_immediates_to_memory);
    for_each_mem(check_lea_and_extensions);
    for_each_mem(check_generic_and_indirect);
}

/* ---- registers --------------------------------------------------------------------------------- */

static void every_pair_of_registers(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 16; a++)
        for (unsigned b = 0; b < 16; b++) {
            enum host_reg to = (enum host_reg)a, from = (enum host_reg)b;
            struct emit e = fresh();
            e_mov_r32_r32(&e, to, from);
            decode(&e, ZYDIS_MNEMONIC_MOV);
            expect_reg(0, 32, to);
            expect_reg(1, 32, from);
            e = fresh();
            e_mov_r64_r64(&e, to, from);
            decode(&e, ZYDIS_MNEMONIC_MOV);
            expect_reg(0, 64, to);
            expect_reg(1, 64, from);
            e = fresh();
            e_movzx_r32_r8(&e, to, from);
            decode(&e, ZYDIS_MNEMONIC_MOVZX);
            expect_reg(0, 32, to);
            expect_low_byte(1, from);
            e = fresh();
            e_movzx_r32_r16(&e, to, from);
            decode(&e, ZYDIS_MNEMONIC_MOVZX);
            expect_reg(0, 32, to);
            expect_reg(1, 16, from);
            e = fresh();
            e_movsx_r32_r16(&e, to, from);
            decode(&e, ZYDIS_MNEMONIC_MOVSX);
            expect_reg(0, 32, to);
            expect_reg(1, 16, from);
            e = fresh();
            e_op_rr(&e, ENC_66, 0x89, from, to);
            decode(&e, ZYDIS_MNEMONIC_MOV);
            expect_reg(0, 16, to);
            expect_reg(1, 16, from);
        }
}

static void every_triple_of_a_flagless_shift(void **state)
{
    static const struct {
        void (*fn)(struct emit *e, enum host_reg to, enum host_reg from, enum host_reg count);
        ZydisMnemonic mnemonic;
        unsigned size;
    } shifts[] = { { e_shrx_r32, ZYDIS_MNEMONIC_SHRX, 32 },
                   { e_shrx_r64, ZYDIS_MNEMONIC_SHRX, 64 },
                   { e_sarx_r32, ZYDIS_MNEMONIC_SARX, 32 },
                   { e_shlx_r32, ZYDIS_MNEMONIC_SHLX, 32 },
                   { e_pext_r32, ZYDIS_MNEMONIC_PEXT, 32 },
                   { e_pdep_r32, ZYDIS_MNEMONIC_PDEP, 32 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shifts); i++)
        for (unsigned k = 0; k < 4096; k++) {
            enum host_reg to = (enum host_reg)(k & 15), from = (enum host_reg)(k >> 4 & 15),
                          n = (enum host_reg)(k >> 8);
            struct emit e = fresh();
            shifts[i].fn(&e, to, from, n);
            decode(&e, shifts[i].mnemonic);
            expect_reg(0, shifts[i].size, to);
            expect_reg(1, shifts[i].size, from);
            expect_reg(2, shifts[i].size, n);
        }
}

static void immediates_and_the_stack(void **state)
{
    static const uint64_t imms[] = { 0,          1,           0x7fffffff,         0x80000000,
                                     UINT32_MAX, 0x100000000, 0xfedcba9876543210, UINT64_MAX };

    (void)state;
    for (unsigned r = 0; r < 16; r++) {
        enum host_reg reg = (enum host_reg)r;
        struct emit e = fresh();
        e_mov_r32_imm32(&e, reg, 0xdeadbeef);
        decode(&e, ZYDIS_MNEMONIC_MOV);
        expect_reg(0, 32, reg);
        assert_int_equal((uint32_t)operand[1].imm.value.u, 0xdeadbeef);
        for (unsigned i = 0; i < sizeof imms / sizeof imms[0]; i++) {
            e = fresh();
            e_mov_r64_imm64(&e, reg, imms[i]);
            decode(&e, ZYDIS_MNEMONIC_MOV);
            expect_reg(0, imms[i] > UINT32_MAX ? 64 : 32, reg); /* writing 32 bits clears the rest */
            uint64_t mask = imms[i] > UINT32_MAX ? UINT64_MAX : UINT32_MAX;
            assert_true((operand[1].imm.value.u & mask) == imms[i]);
        }
        e = fresh();
        e_push_r64(&e, reg);
        decode(&e, ZYDIS_MNEMONIC_PUSH);
        expect_reg(0, 64, reg);
        e = fresh();
        e_pop_r64(&e, reg);
        decode(&e, ZYDIS_MNEMONIC_POP);
        expect_reg(0, 64, reg);
        e = fresh();
        e_op_r(&e, ENC_W | ENC_0F, 0xc8, reg);
        decode(&e, ZYDIS_MNEMONIC_BSWAP);
        expect_reg(0, 64, reg);
    }
}

static void instructions_without_operands(void **state)
{
    struct emit e = fresh();

    (void)state;
    e_pushfq(&e);
    decode(&e, ZYDIS_MNEMONIC_PUSHFQ);
    e = fresh();
    e_popfq(&e);
    decode(&e, ZYDIS_MNEMONIC_POPFQ);
    e = fresh();
    e_ret(&e);
    decode(&e, ZYDIS_MNEMONIC_RET);
    e = fresh();
    e_op(&e, ENC_0F, 0x0b);
    decode(&e, ZYDIS_MNEMONIC_UD2);
    e = fresh();
    e_op(&e, ENC_F3, 0x90);
    decode(&e, ZYDIS_MNEMONIC_PAUSE);
}

/* ---- branches ---------------------------------------------------------------------------------------- */

static void expect_target(const uint8_t *target)
{
    assert_int_equal(operand[0].type, ZYDIS_OPERAND_TYPE_IMMEDIATE);
    assert_int_equal(insn.length + operand[0].imm.value.s, target - buf);
}

static void branches_lead_to_where_they_are_patched(void **state)
{
    static const ZydisMnemonic jcc[16] = {
        ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB,  ZYDIS_MNEMONIC_JNB,
        ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
        ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP,  ZYDIS_MNEMONIC_JNP,
        ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE,
    };
    static const ptrdiff_t near[] = { 2, 3, 100, 129, -100, -126 }, far[] = { 6, 0x1234567, -0x1234567 };

    (void)state;
    for (unsigned i = 0; i < sizeof near / sizeof near[0]; i++) {
        struct emit e = fresh();
        e_patch8(e_jrcxz_fwd(&e), buf + near[i]);
        decode(&e, ZYDIS_MNEMONIC_JRCXZ);
        expect_target(buf + near[i]);
        e = fresh();
        e_patch8(e_jmp8_fwd(&e), buf + near[i]);
        decode(&e, ZYDIS_MNEMONIC_JMP);
        expect_target(buf + near[i]);
        e = fresh();
        e_jrcxz_to(&e, buf + near[i]);
        decode(&e, ZYDIS_MNEMONIC_JRCXZ);
        expect_target(buf + near[i]);
    }
    for (unsigned i = 0; i < sizeof far / sizeof far[0]; i++) {
        struct emit e = fresh();
        e_patch32(e_jmp32_fwd(&e), buf + far[i]);
        decode(&e, ZYDIS_MNEMONIC_JMP);
        expect_target(buf + far[i]);
        e = fresh();
        e_jmp32_to(&e, buf + far[i]);
        decode(&e, ZYDIS_MNEMONIC_JMP);
        expect_target(buf + far[i]);
        e = fresh();
        e_patch32(e_call32_fwd(&e), buf + far[i]);
        decode(&e, ZYDIS_MNEMONIC_CALL);
        expect_target(buf + far[i]);
        for (unsigned cc = 0; cc < 16; cc++) {
            e = fresh();
            e_patch32(e_jcc32_fwd(&e, cc), buf + far[i]);
            decode(&e, jcc[cc]);
            expect_target(buf + far[i]);
        }
    }
}

/* ---- room -------------------------------------------------------------------------------------------------
 */

static void emit_some(struct emit *e)
{
    e_mov_r64_imm64(e, H_R9, 0x123456789abcdef0);
    e_jmp32_to(e, buf);
    e_mov_m32_imm32(e, hmem_index(H_R14, H_R9, 3, 0x1000000), 5);
}

static void running_out_of_room_is_noticed_and_writes_nothing_beyond(void **state)
{
    struct emit whole = fresh();

    (void)state;
    emit_some(&whole);
    ptrdiff_t len = whole.p - buf;
    for (ptrdiff_t room = 0; room <= len; room++) {
        struct emit e = fresh();
        e.end = buf + room;
        emit_some(&e);
        assert_int_equal(e.overflow, room < len);
        assert_true(e.p <= e.end);
        for (ptrdiff_t i = room; i < (ptrdiff_t)sizeof buf; i++)
            assert_int_equal(buf[i], 0xcc);
        put8(&e, 0); /* sticky */
        assert_int_equal(e.overflow, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_memory_operand),
        cmocka_unit_test(every_pair_of_registers),
        cmocka_unit_test(every_triple_of_a_flagless_shift),
        cmocka_unit_test(immediates_and_the_stack),
        cmocka_unit_test(instructions_without_operands),
        cmocka_unit_test(branches_lead_to_where_they_are_patched),
        cmocka_unit_test(running_out_of_room_is_noticed_and_writes_nothing_beyond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
