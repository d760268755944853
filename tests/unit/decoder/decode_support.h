/* Helpers of the decoder's tests: decode from bytes and report what went wrong. */
#ifndef TESTS_UNIT_DECODER_DECODE_SUPPORT_H
#define TESTS_UNIT_DECODER_DECODE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "decoder/decoder.h"

#define BYTES(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static inline struct insn decode32(const uint8_t *bytes, size_t len)
{
    struct insn in;
    enum decode_rc rc = decode_insn(bytes, len, true, &in);
    if (rc != DECODE_OK)
        fail_msg("first byte 0x%02x of %zu: rc %d", bytes[0], len, (int)rc);
    assert_int_equal(in.len, len);
    return in;
}

static inline struct insn decode16(const uint8_t *bytes, size_t len)
{
    struct insn in;
    assert_int_equal(decode_insn(bytes, len, false, &in), DECODE_OK);
    assert_int_equal(in.len, len);
    return in;
}

static inline enum decode_rc decode_status(const uint8_t *bytes, size_t len)
{
    struct insn in;
    return decode_insn(bytes, len, true, &in);
}

#endif
