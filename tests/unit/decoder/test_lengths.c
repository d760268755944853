/*
 * Lengths against an independent disassembler over pseudo-random bytes, and the
 * promise that the decoder never looks past what it was given.
 */
#include "decode_support.h"

#include <capstone/capstone.h>

#define CASES 300000u

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Random bytes, biased so that prefixes and the 0F map are frequent enough. */
static void fill(uint64_t *seed, uint8_t bytes[16])
{
    static const uint8_t lead[] = { 0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x64, 0x0f, 0x0f };
    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t r = next_random(seed);
        memcpy(bytes + i, &r, 8);
    }
    for (unsigned i = 0; i < 3 && next_random(seed) % 3 == 0; i++)
        bytes[i] = lead[next_random(seed) % sizeof(lead)];
}

/* Where Capstone 4 and the manuals part: it knows AMD's and later processors' meanings, or
 * reads a ModRM byte where there is none. */
static bool is_known_difference(const struct insn *in, const cs_insn *cs)
{
    if (in->info->cls == CLASS_UNAVAILABLE)
        return true;
    switch (cs->id) {
    case X86_INS_UD0:
    case X86_INS_XACQUIRE:
    case X86_INS_XRELEASE:
        return true;
    case X86_INS_CALL:
    case X86_INS_JMP: /* forgets 66 when F2 or F3 follows it */
        return in->has_66 && in->imm_is_rel;
    default:
        break;
    }
    return in->map == MAP_0F && (in->opcode == 0x0b || in->opcode == 0xff || in->opcode == 0xb9 ||
                                 (in->opcode >= 0x20 && in->opcode <= 0x23));
}

static unsigned compare(csh handle, bool code32, unsigned *compared)
{
    uint64_t seed = 0x9e3779b97f4a7c15u + code32;
    cs_insn *cs = cs_malloc(handle);
    unsigned differences = 0;

    for (unsigned i = 0; i < CASES; i++) {
        uint8_t bytes[16];
        struct insn in;
        const uint8_t *at = bytes;
        size_t left = sizeof(bytes);
        uint64_t address = 0;

        fill(&seed, bytes);
        if (decode_insn(bytes, sizeof(bytes), code32, &in) != DECODE_OK)
            continue;
        if (!cs_disasm_iter(handle, &at, &left, &address, cs))
            continue;
        ++*compared;
        if (cs->size == in.len || is_known_difference(&in, cs))
            continue;
        if (differences++ < 20)
            print_message("%02x %02x %02x %02x %02x %02x: %s %u, capstone %s %s %u\n", bytes[0], bytes[1],
                          bytes[2], bytes[3], bytes[4], bytes[5], decoder_mnemonic_name(in.mnemonic), in.len,
                          cs->mnemonic, cs->op_str, cs->size);
    }
    cs_free(cs, 1);
    return differences;
}

static void lengths_agree(cs_mode mode, bool code32)
{
    csh handle;
    unsigned compared = 0;

    assert_int_equal(cs_open(CS_ARCH_X86, mode, &handle), CS_ERR_OK);
    unsigned differences = compare(handle, code32, &compared);
    cs_close(&handle);
    assert_int_equal(differences, 0);
    assert_true(compared > CASES / 2);
}

static void lengths_of_32_bit_code_agree_with_capstone(void **state)
{
    (void)state;
    lengths_agree(CS_MODE_32, true);
}

static void lengths_of_16_bit_code_agree_with_capstone(void **state)
{
    (void)state;
    lengths_agree(CS_MODE_16, false);
}

/* An instruction needs exactly its own bytes: one less is truncated, never something else. */
static void an_instruction_needs_all_its_bytes_and_no_more(void **state)
{
    uint64_t seed = 88172645463325252u;

    (void)state;
    for (unsigned i = 0; i < CASES / 10; i++) {
        uint8_t bytes[16];
        struct insn whole, part;
        fill(&seed, bytes);
        if (decode_insn(bytes, sizeof(bytes), true, &whole) != DECODE_OK)
            continue;
        assert_int_equal(decode_insn(bytes, whole.len, true, &part), DECODE_OK);
        assert_memory_equal(&whole, &part, sizeof(whole));
        for (size_t len = 0; len < whole.len; len++)
            assert_int_equal(decode_insn(bytes, len, true, &part), DECODE_TRUNCATED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_of_32_bit_code_agree_with_capstone),
        cmocka_unit_test(lengths_of_16_bit_code_agree_with_capstone),
        cmocka_unit_test(an_instruction_needs_all_its_bytes_and_no_more),
    };
    return cmocka_run_group_tests_name("decoder lengths", tests, NULL, NULL);
}
