/*
 * What the generator generates: every form of the table of encodings, and how often each came with which prefixes.
 * A form is an opcode, its mandatory prefix, its ModRM reg field, and whether the operand is memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/diff/case.h"
#include "tests/diff/coverage.h"
#include "tests/diff/encodings.h"

enum variant { V_PLAIN, V_66, V_67, V_LOCK, V_REP, V_REPNE, V_ES, V_CS, V_SS, V_DS, V_FS, V_GS, V_COUNT };
static const char *const variant_names[V_COUNT] = { "no prefix", "66 operand size", "67 address size", "LOCK", "F3", "F2",
                                                    "ES",        "CS",              "SS",              "DS",   "FS", "GS" };

struct form {
    uint32_t count[V_COUNT];
    ZydisMnemonic mnemonic; /* 0: not in the table */
};
static struct form forms[2][256][4][8][2]; /* map, opcode, mandatory prefix, reg, memory */

static unsigned prefix_index(uint8_t pfx)
{
    return pfx == 0x66 ? 1 : pfx == 0xf3 ? 2 : pfx == 0xf2 ? 3 : 0;
}

static struct form *form_of(unsigned map, uint8_t opcode, uint8_t pfx, uint8_t modrm, bool has_modrm, bool is_mem)
{
    return &forms[map][opcode][prefix_index(pfx)][has_modrm ? (modrm >> 3) & 7 : 0][is_mem];
}

static void note_table(const struct gen *g)
{
    for (size_t m = 0; m < g->nmn; m++)
        for (uint32_t i = 0; i < g->mn[m].count; i++) {
            const struct encoding *e = &g->enc[g->mn[m].first + i];
            const uint8_t bytes[16] = { e->pfx, 0x0f, e->opcode, e->modrm };
            ZydisDecodedInstruction insn;
            ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

            /* a prefix that is not part of the opcode makes a variant, not a form */
            if (!e->pfx || (e->map0f && encoding_decode(g, bytes, sizeof bytes, &insn, ops) &&
                            insn.raw.prefixes[0].type == ZYDIS_PREFIX_TYPE_MANDATORY))
                form_of(e->map0f, e->opcode, e->pfx, e->modrm, e->has_modrm, e->is_mem)->mnemonic = g->mn[m].id;
        }
}

static void note_insn(const ZydisDecodedInstruction *insn)
{
    bool map0f = insn->opcode_map == ZYDIS_OPCODE_MAP_0F, has_modrm = (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
    bool fixed = map0f && (insn->opcode & 0xfc) == 0x20, is_mem = has_modrm && insn->raw.modrm.mod != 3 && !fixed;
    uint8_t modrm = (uint8_t)(insn->raw.modrm.reg << 3), mandatory = 0;
    unsigned seen = 0;
    struct form *f;

    if (insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT && !map0f)
        return;
    for (unsigned i = 0; i < insn->raw.prefix_count; i++) {
        static const uint8_t bytes[V_COUNT] = { 0, 0x66, 0x67, 0xf0, 0xf3, 0xf2, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };

        if (insn->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            mandatory = insn->raw.prefixes[i].value;
        for (unsigned v = 1; v < V_COUNT; v++)
            if (insn->raw.prefixes[i].value == bytes[v])
                seen |= 1u << v;
    }
    f = form_of(map0f, insn->opcode, mandatory, modrm, has_modrm, is_mem);
    for (unsigned v = 1; v < V_COUNT; v++)
        f->count[v] += seen >> v & 1;
    f->count[V_PLAIN] += !seen;
}

static void note_case(const struct gen *g, const struct diff_case *c)
{
    for (unsigned i = 0; i < c->ninsns; i++) {
        ZydisDecodedInstruction insn;
        ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
        unsigned from = c->insns[i].ofs;

        if (encoding_decode(g, c->code + from, c->insns[i + 1].ofs - from, &insn, ops))
            note_insn(&insn);
    }
}

bool coverage_print(const struct gen *g, uint64_t seed, uint64_t cases)
{
    static const char *const pfx_names[4] = { "", "66 ", "f3 ", "f2 " };
    unsigned total = 0, never = 0, with[V_COUNT] = { 0 };
    uint64_t counts[V_COUNT] = { 0 };
    struct diff_case *c = malloc(sizeof *c);

    if (!c)
        return false;
    note_table(g);
    for (uint64_t i = 0; i < cases; i++) {
        gen_case(g, seed, i, c);
        note_case(g, c);
    }
    free(c);
    for (unsigned i = 0; i < 2 * 256 * 4 * 8 * 2; i++) {
        unsigned mem = i & 1, reg = i >> 1 & 7, pfx = i >> 4 & 3, opcode = i >> 6 & 255, map = i >> 14;
        const struct form *f = &forms[map][opcode][pfx][reg][mem];
        uint64_t all = 0;

        if (!f->mnemonic)
            continue;
        for (unsigned v = 0; v < V_COUNT; v++) {
            all += f->count[v];
            counts[v] += f->count[v];
            with[v] += f->count[v] != 0;
        }
        total++;
        if (all)
            continue;
        never++;
        printf("never: %s%s%02x /%u %s (%s)\n", pfx_names[pfx], map ? "0f " : "", opcode, reg, mem ? "memory" : "register",
               ZydisMnemonicGetString(f->mnemonic));
    }
    for (unsigned v = 0; v < V_COUNT; v++)
        printf("%-16s %9llu instructions, %5u forms\n", variant_names[v], (unsigned long long)counts[v], with[v]);
    printf("coverage: %u forms, %u never generated, in %llu cases of seed %llu\n", total, never, (unsigned long long)cases,
           (unsigned long long)seed);
    return never == 0;
}
