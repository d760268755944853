/*
 * Bytes to struct insn, and what each instruction means to the translator.
 *
 * A pure function of bytes, length and mode. Zydis does the decoding; here its
 * result is narrowed to what the translator asks for.
 */
#ifndef DECODER_DECODER_H
#define DECODER_DECODER_H

#include "base/callout.h"
#include "base/types.h"
#include "base/x86.h"

/** What an instruction is to the translator (Popek and Goldberg's words, and two more). */
enum insn_class {
    CLASS_INNOCUOUS, /* runs as it stands, or lowered, with operands re-addressed       */
    CLASS_CONTROL,   /* near control flow: JMP Jcc CALL RET LOOPcc JECXZ                */
    CLASS_SENSITIVE, /* does not trap in user mode but shows or touches system state    */
    CLASS_PRIVILEGED,/* traps in user mode                                              */
    CLASS_LOWERED,   /* harmless, but a callout: 64-bit mode lacks it, or it repeats    */
    CLASS_UNAVAILABLE, /* no Pentium III or 4 has it: #UD                               */
};

/** CPU feature (CPUID leaf 1 and friends) an instruction needs. */
enum insn_feature {
    FEAT_BASE, FEAT_FPU, FEAT_TSC, FEAT_MSR, FEAT_CX8, FEAT_SEP, FEAT_CMOV, FEAT_MMX, FEAT_FXSR,
    FEAT_SSE, FEAT_SSE2, FEAT_486, FEAT_CPUID, FEAT_CLFLUSH, FEAT_PENTIUM_PRO, FEAT_RDPMC,
    FEAT_COUNT
};

/** How the translator should treat the FPU state bits of the mode. */
enum insn_unit { UNIT_INT, UNIT_X87, UNIT_WAIT, UNIT_MMX, UNIT_SSE };

struct insn_info {
    uint8_t cls;      /* enum insn_class   */
    uint8_t callout;  /* enum callout_id, CALLOUT_COUNT when there is none */
    uint8_t feature;  /* enum insn_feature */
    const char *note; /* what deprivileged hardware would do wrong; may be NULL */
};

enum opcode_map { MAP_1BYTE, MAP_0F, MAP_0F38, MAP_0F3A };

/** Access kinds of the explicit memory operand. */
#define MEM_READ  1u
#define MEM_WRITE 2u

/** What a register operand field (ModRM.reg, ModRM.rm, opcode low bits) names. */
enum reg_kind { RK_NONE, RK_GPR8, RK_GPR16, RK_GPR32, RK_X87, RK_MMX, RK_XMM, RK_SEG, RK_CR, RK_DR,
                RK_OPEXT /* the field extends the opcode */ };

struct insn {
    uint8_t len;          /* bytes, 1..15                                              */
    uint8_t map;          /* enum opcode_map                                           */
    uint8_t opcode;       /* last opcode byte                                          */
    bool has_modrm, has_66, has_67, has_lock;
    uint8_t rep;          /* enum carg_rep: last F3/F2 prefix that counts               */
    bool rep_is_opcode;   /* the 66/F2/F3 prefix is a mandatory part of the opcode (SSE) */
    bool p66_is_opcode;
    uint8_t osize;        /* effective operand size: 1, 2, 4 (8 and up: see mem_size)  */
    uint8_t asize;        /* effective address size: 2 or 4                            */
    uint8_t mod, reg, rm; /* of ModRM                                                  */

    /* Memory operand, explicit (ModRM) or MOFFS; implicit ones (strings, stack) are the
     * translator's business. Registers by encoding, 0xff when absent. */
    bool has_mem, is_moffs;
    uint8_t seg;          /* enum seg_id with defaults and overrides applied            */
    bool has_seg_override;
    uint8_t base, index, scale_log2;
    uint32_t disp;        /* sign-extended to 32 bits                                  */
    uint8_t disp_len;     /* bytes: 0, 1, 2, 4                                         */
    uint16_t mem_size;    /* bytes accessed; 0 when nothing is (LEA, INVLPG, NOP, prefetch) */
    uint8_t mem_access;   /* MEM_READ | MEM_WRITE                                      */

    /* Registers named by the encoding */
    uint8_t reg_kind;     /* what ModRM.reg names                                      */
    uint8_t rm_kind;      /* what ModRM.rm names when mod == 3                         */
    uint8_t op_reg_kind;  /* what the opcode's low three bits name, RK_NONE mostly     */

    /* Immediates as they stand in the bytes */
    uint8_t imm_len, imm2_len; /* bytes: 0, 1, 2, 4                                    */
    uint32_t imm;         /* sign-extended to 32 bits where the instruction does       */
    uint32_t imm2;        /* selector of a far pointer, second operand of ENTER        */
    bool imm_is_rel;      /* branch displacement                                       */

    uint8_t unit;         /* enum insn_unit                                            */
    uint16_t mnemonic;    /* ZydisMnemonic, for class tables and listings              */
    const struct insn_info *info; /* never NULL                                        */
};

enum decode_rc {
    DECODE_OK,
    DECODE_TRUNCATED, /* more bytes are needed                                          */
    DECODE_INVALID,   /* #UD (or #GP for more than 15 bytes: insn->len is 16)           */
};

/**
 * Decode one instruction of a 32-bit (or 16-bit) code segment.
 *
 * @param bytes   At least `avail` readable bytes.
 * @param code32  CS.D.
 * @return DECODE_OK with *out filled; otherwise *out is undefined but for `len`.
 * Ref: Intel SDM vol. 2A, ch. 2 "Instruction Format".
 */
enum decode_rc decode_insn(const uint8_t *bytes, size_t avail, bool code32, struct insn *out);

/** The class row of a Zydis mnemonic; unknown ones give the CLASS_UNAVAILABLE row. */
const struct insn_info *decoder_info(unsigned mnemonic);

/** The mnemonic in lower case, as Zydis names it. */
const char *decoder_mnemonic_name(unsigned mnemonic);

#endif
