/*
 * Rows of the class table for encodings that share a mnemonic with a harmless
 * form: MOV with a segment or control register, far branches, SSE2's MOVSD
 * against the string instruction of that name.
 */
#ifndef DECODER_DECODER_INTERNAL_H
#define DECODER_DECODER_INTERNAL_H

#include "decoder/decoder.h"

enum decoder_variant {
    VARIANT_PUSH_SEG,
    VARIANT_POP_SEG,
    VARIANT_MOV_TO_SEG,
    VARIANT_MOV_FROM_SEG,
    VARIANT_MOV_FROM_CR,
    VARIANT_MOV_TO_CR,
    VARIANT_MOV_FROM_DR,
    VARIANT_MOV_TO_DR,
    VARIANT_CALL_FAR,
    VARIANT_JMP_FAR,
    VARIANT_RET_FAR,
    VARIANT_STRING_MOVSD,
    VARIANT_STRING_CMPSD,
    VARIANT_HINT_NOP, /* 0F 18..1F with ModRM                                 */
    VARIANT_XMM,      /* an instruction of MMX's in its SSE2 form             */
    VARIANT_UNAVAILABLE,
    VARIANT_COUNT
};

const struct insn_info *decoder_variant_info(enum decoder_variant variant);

#endif
