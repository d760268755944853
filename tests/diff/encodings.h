/*
 * The table of encodings that the generators choose from: every opcode with every ModRM that
 * matters, as the decoder library knows them, less what a Pentium 4 does not have.
 */
#ifndef TESTS_DIFF_ENCODINGS_H
#define TESTS_DIFF_ENCODINGS_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/diff/random.h"

struct encoding {
    uint8_t map0f, opcode, pfx; /* pfx: mandatory prefix or 0          */
    uint8_t modrm;              /* reg field (memory) or all (register) */
    bool has_modrm, is_mem;
};

struct mnemonic {
    ZydisMnemonic id;
    uint32_t first, count, nmem; /* encodings; memory forms come first */
    uint32_t gfirst, gcount, gmem; /* its opcodes, a memory form and a register form apart */
};

/* What a case's environment can decide. */
enum encodings_for {
    FOR_USER,   /* code at CPL 3 on the host: nothing that its kernel would act on      */
    FOR_GUEST,  /* any mode of a test guest: system instructions and far transfers, too */
};

struct gen {
    enum encodings_for purpose;
    ZydisDecoder decoder;
    struct encoding *enc;
    ZydisMnemonic *enc_mnemonic; /* only while the table is made */
    size_t nenc, room;
    uint32_t *group; /* where each opcode's encodings begin in enc[]; one more at the end */
    uint16_t *owner; /* each opcode's index in mn[] */
    size_t ngroup;
    struct mnemonic *mn;
    size_t nmn;
    char only[24];
};

/** @param only mnemonic as Zydis names it, or NULL. NULL on failure (no such mnemonic). */
struct gen *encodings_new(ZydisMachineMode mode, enum encodings_for purpose, const char *only);
void gen_free(struct gen *g);
bool encoding_decode(const struct gen *g, const uint8_t *p, size_t len, ZydisDecodedInstruction *insn,
                     ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT]);
/** Any encoding: mostly mnemonics evenly, so that rare ones get their share; else opcodes evenly, so that the many
 *  opcodes of MOV do, too. */
const struct encoding *encoding_choose(const struct gen *g, struct rng *r, unsigned mem_percent, const struct mnemonic **m);
/** Must cases of this purpose leave it out? */
bool encoding_excluded(const struct gen *g, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops);

#endif
