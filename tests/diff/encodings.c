/*
 * The table of encodings: see encodings.h. At start it asks the decoder library what every opcode
 * with every ModRM means, and keeps those that a Pentium 4 has and that the purpose can decide.
 *
 * Ref: Intel SDM vol. 2D, app. A "Opcode Map".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/diff/case.h"
#include "tests/diff/encodings.h"

static bool isa_wanted(ZydisISASet set)
{
    switch (set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_FAT_NOP:
        return true;
    default:
        return false;
    }
}

/*
 * What user mode can't decide: the host's value would differ by right, the host's
 * kernel would act on it, or only the processor's maker documents it. Far transfers,
 * segment loads, POPF and RET have templates of their own.
 */
static bool mnemonic_excluded(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1: /* a host that is a virtual machine itself may report another EIP */
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
        return true;
    default:
        return false;
    }
}

/*
 * What a test guest leaves out: what would end or reconfigure the guest itself, what machines may differ
 * about by right (time, identification, last bits of transcendental functions), what user mode's oracle, the
 * host, decides better.
 */
static bool guest_excluded(const ZydisDecodedInstruction *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_FFREEP:
    case ZYDIS_MNEMONIC_FSTPNCE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FSIN:
    case ZYDIS_MNEMONIC_FCOS:
    case ZYDIS_MNEMONIC_FSINCOS:
    case ZYDIS_MNEMONIC_FPTAN:
    case ZYDIS_MNEMONIC_FPATAN:
    case ZYDIS_MNEMONIC_F2XM1:
    case ZYDIS_MNEMONIC_FYL2X:
    case ZYDIS_MNEMONIC_FYL2XP1:
    case ZYDIS_MNEMONIC_RCPPS:
    case ZYDIS_MNEMONIC_RCPSS:
    case ZYDIS_MNEMONIC_RSQRTPS:
    case ZYDIS_MNEMONIC_RSQRTSS:
        return true;
    default:
        return !isa_wanted(insn->meta.isa_set);
    }
}

bool encoding_decode(const struct gen *g, const uint8_t *p, size_t len, ZydisDecodedInstruction *insn,
                     ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT])
{
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, p, len, insn, ops));
}

bool encoding_excluded(const struct gen *g, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    if (g->purpose == FOR_GUEST)
        return guest_excluded(insn);
    if (mnemonic_excluded(insn->mnemonic) || !isa_wanted(insn->meta.isa_set))
        return true;
    if (insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return true;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *o = &ops[i];

        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        /* MOV and POP to a segment register; reading one is fine. */
        if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            o->reg.value != ZYDIS_REGISTER_CS && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
        /* Control registers that only later processors have, and test registers. */
        if (o->reg.value == ZYDIS_REGISTER_CR8 || ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_TEST)
            return true;
        if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_CONTROL &&
            (o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) && o->reg.value > ZYDIS_REGISTER_CR4)
            return true;
        if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_DEBUG && o->reg.value > ZYDIS_REGISTER_DR7)
            return true;
    }
    return false;
}

static void add_encoding(struct gen *g, const struct encoding *e, ZydisMnemonic m)
{
    if (g->nenc == g->room) {
        g->room = g->room ? 2 * g->room : 4096;
        g->enc = realloc(g->enc, g->room * sizeof *g->enc);
        g->enc_mnemonic = realloc(g->enc_mnemonic, g->room * sizeof *g->enc_mnemonic);
        if (!g->enc || !g->enc_mnemonic)
            abort();
    }
    g->enc[g->nenc] = *e;
    g->enc_mnemonic[g->nenc++] = m;
}

static void try_encoding(struct gen *g, struct encoding e)
{
    uint8_t b[16] = { 0 };
    size_t n = 0;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    if (e.pfx)
        b[n++] = e.pfx;
    if (e.map0f)
        b[n++] = 0x0f;
    b[n++] = e.opcode;
    b[n] = e.modrm;
    if (!encoding_decode(g, b, sizeof b, &insn, ops) || encoding_excluded(g, &insn, ops))
        return;
    e.has_modrm = (insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
    if (!e.has_modrm && e.modrm)
        return;
    /* Three-byte opcodes and VEX look-alikes are not in this table. */
    if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        insn.opcode_map != (e.map0f ? ZYDIS_OPCODE_MAP_0F : ZYDIS_OPCODE_MAP_DEFAULT))
        return;
    /* Prefix bytes that decode as an instruction of their own are prefixes. */
    if (insn.raw.prefix_count != (e.pfx ? 1 : 0))
        return;
    if (e.pfx && e.map0f && insn.raw.prefixes[0].type != ZYDIS_PREFIX_TYPE_MANDATORY && e.pfx != 0x66)
        return;
    if (e.pfx && !e.map0f && (e.pfx != 0x66 && insn.raw.prefixes[0].type != ZYDIS_PREFIX_TYPE_EFFECTIVE))
        return;
    /* MOV to and from control and debug registers takes any ModRM for one with a register. */
    e.is_mem = e.has_modrm && e.modrm < 0xc0 && !(e.map0f && (e.opcode & 0xfc) == 0x20);
    add_encoding(g, &e, insn.mnemonic);
}

static void list_encodings(struct gen *g)
{
    static const uint8_t prefixes[] = { 0, 0x66, 0xf3, 0xf2 };

    for (unsigned map = 0; map < 2; map++)
        for (unsigned op = 0; op < 256; op++)
            for (unsigned p = 0; p < 4; p++) {
                struct encoding e = { .map0f = (uint8_t)map, .opcode = (uint8_t)op, .pfx = prefixes[p] };

                for (unsigned reg = 0; reg < 8; reg++) {
                    e.modrm = (uint8_t)(reg << 3);
                    try_encoding(g, e);
                }
                for (unsigned modrm = 0xc0; modrm < 0x100; modrm++) {
                    e.modrm = (uint8_t)modrm;
                    try_encoding(g, e);
                }
            }
}

static bool same_opcode(const struct encoding *a, const struct encoding *b)
{
    bool by_reg = a->has_modrm && ((a->modrm ^ b->modrm) & 0x38) && !a->map0f && (a->opcode >= 0xc0 || a->opcode == 0x8f);

    return a->map0f == b->map0f && a->opcode == b->opcode && a->pfx == b->pfx && a->is_mem == b->is_mem && !by_reg;
}

/* The encodings enc[first..nenc) in their order: each opcode once. */
static void group_by_opcode(struct gen *g, const struct encoding *enc, struct mnemonic *row)
{
    row->gfirst = (uint32_t)g->ngroup;
    for (uint32_t i = row->first; i < row->first + row->count; i++) {
        if (i > row->first && same_opcode(&enc[i], &enc[i - 1]))
            continue;
        g->owner[g->ngroup] = (uint16_t)g->nmn;
        g->group[g->ngroup++] = i;
        row->gmem += enc[i].is_mem;
    }
    row->gcount = (uint32_t)g->ngroup - row->gfirst;
}

/* Bring the encodings of a mnemonic together, memory forms first. */
static bool group_encodings(struct gen *g, const char *only)
{
    struct encoding *sorted = malloc(g->nenc * sizeof *sorted);
    size_t n = 0;

    g->mn = calloc(ZYDIS_MNEMONIC_MAX_VALUE + 1, sizeof *g->mn);
    g->group = calloc(g->nenc + 1, sizeof *g->group);
    g->owner = calloc(g->nenc + 1, sizeof *g->owner);
    if (!sorted || !g->mn || !g->group || !g->owner)
        abort();
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        struct mnemonic row = { .id = (ZydisMnemonic)m, .first = (uint32_t)n };

        if (only && strcmp(only, ZydisMnemonicGetString((ZydisMnemonic)m)) != 0)
            continue;
        for (int mem = 1; mem >= 0; mem--)
            for (size_t i = 0; i < g->nenc; i++)
                if (g->enc_mnemonic[i] == m && g->enc[i].is_mem == (mem == 1)) {
                    sorted[n++] = g->enc[i];
                    row.nmem += mem == 1;
                }
        row.count = (uint32_t)n - row.first;
        if (!row.count)
            continue;
        group_by_opcode(g, sorted, &row);
        g->mn[g->nmn++] = row;
    }
    g->group[g->ngroup] = (uint32_t)n;
    free(g->enc);
    free(g->enc_mnemonic);
    g->enc = sorted;
    g->enc_mnemonic = NULL;
    return g->nmn != 0;
}

const struct encoding *encoding_choose(const struct gen *g, struct rng *r, unsigned mem_percent, const struct mnemonic **m)
{
    uint32_t group;

    if (chance(r, 35)) {
        group = rnd(r, (uint32_t)g->ngroup);
        *m = &g->mn[g->owner[group]];
    } else {
        const struct mnemonic *any = *m = &g->mn[rnd(r, (uint32_t)g->nmn)];
        bool mem = any->gmem && (any->gmem == any->gcount || chance(r, mem_percent));

        group = any->gfirst + (mem ? rnd(r, any->gmem) : any->gmem + rnd(r, any->gcount - any->gmem));
    }
    return &g->enc[g->group[group] + rnd(r, g->group[group + 1] - g->group[group])];
}

struct gen *encodings_new(ZydisMachineMode mode, enum encodings_for purpose, const char *only)
{
    struct gen *g = calloc(1, sizeof *g);

    if (!g)
        return NULL;
    g->purpose = purpose;
    ZydisDecoderInit(&g->decoder, mode, mode == ZYDIS_MACHINE_MODE_LEGACY_32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16);
    if (only)
        snprintf(g->only, sizeof g->only, "%s", only);
    list_encodings(g);
    if (!group_encodings(g, only)) {
        gen_free(g);
        return NULL;
    }
    return g;
}

void gen_free(struct gen *g)
{
    if (!g)
        return;
    free(g->enc);
    free(g->enc_mnemonic);
    free(g->group);
    free(g->owner);
    free(g->mn);
    free(g);
}

size_t gen_mnemonics(const struct gen *g, const char **names, size_t max)
{
    for (size_t i = 0; i < g->nmn && i < max; i++)
        names[i] = ZydisMnemonicGetString(g->mn[i].id);
    return g->nmn;
}
