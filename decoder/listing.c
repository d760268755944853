/*
 * Guest and host instructions as text, side by side.
 *
 * Capstone disassembles; this file replaces what a reader would otherwise have to
 * look up. [r15 + 0x68] becomes [vcpu.stub_mem_slow] from the one list of offsets,
 * the target of a call or the constant of a mov becomes its name, and a branch
 * within the block becomes the offset that the right column shows.
 *
 * Reference: base/vcpu_layout.h; bt/README.md for what the host code does.
 */
#include "decoder/listing.h"

#include <capstone/capstone.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEFT_COLUMN 46

struct listing {
    csh handles[LISTING_MODE_COUNT];
    cs_insn *insn;
};

struct field {
    const char *name;
    uint32_t ofs;
};

static const struct field fields[] = {
#define VCPU_OFFSET(field, value) { #field, value },
#include "base/vcpu_layout.h"
#undef VCPU_OFFSET
};

struct listing *listing_new(void)
{
    static const cs_mode modes[LISTING_MODE_COUNT] = { CS_MODE_16, CS_MODE_32, CS_MODE_64 };
    struct listing *l = calloc(1, sizeof(*l));
    unsigned opened = 0;

    if (!l)
        return NULL;
    for (; opened < LISTING_MODE_COUNT; opened++)
        if (cs_open(CS_ARCH_X86, modes[opened], &l->handles[opened]) != CS_ERR_OK)
            goto out_close;
    cs_option(l->handles[LISTING_HOST64], CS_OPT_DETAIL, CS_OPT_ON);
    l->insn = cs_malloc(l->handles[LISTING_HOST64]);
    if (l->insn)
        return l;
out_close:
    while (opened-- > 0)
        cs_close(&l->handles[opened]);
    free(l);
    return NULL;
}

void listing_free(struct listing *l)
{
    if (!l)
        return;
    cs_free(l->insn, 1);
    for (unsigned i = 0; i < LISTING_MODE_COUNT; i++)
        cs_close(&l->handles[i]);
    free(l);
}

/* The last field at or below the offset: arrays show as name+n. */
static const struct field *field_at(int64_t ofs)
{
    const struct field *best = NULL;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if ((int64_t)fields[i].ofs <= ofs && (!best || fields[i].ofs >= best->ofs))
            best = &fields[i];
    return best;
}

/* Replace `len` characters at `at`, which points into text, by `by`; drops what does not fit. */
static void replace(char *text, char *at, size_t len, const char *by)
{
    char tail[LISTING_TEXT_BYTES];
    size_t room = LISTING_TEXT_BYTES - (size_t)(at - text);

    snprintf(tail, sizeof(tail), "%s", at + len);
    snprintf(at, room, "%s%s", by, tail);
}

static void name_vcpu_field(char *text, const cs_x86_op *op)
{
    char by[64];
    char *open = strstr(text, "[r15");
    char *end = open ? strchr(open, ']') : NULL;
    const struct field *f = field_at(op->mem.disp);

    if (!end || !f || op->mem.index != X86_REG_INVALID)
        return;
    int64_t extra = op->mem.disp - (int64_t)f->ofs;
    if (extra)
        snprintf(by, sizeof(by), "[vcpu.%s+%" PRId64 "]", f->name, extra);
    else
        snprintf(by, sizeof(by), "[vcpu.%s]", f->name);
    replace(text, open, (size_t)(end + 1 - open), by);
}

static void name_immediate(char *text, uint64_t value, const struct listing_names *names)
{
    char digits[24];
    const char *name = names && names->address ? names->address(names->ctx, value) : NULL;

    snprintf(digits, sizeof(digits), "0x%" PRIx64, value);
    char *at = strstr(text, digits);
    if (name && at)
        replace(text, at, strlen(digits), name);
}

static void resolve_operands(const cs_insn *insn, const struct listing_names *names, char *text)
{
    const cs_x86 *x86 = &insn->detail->x86;
    for (unsigned i = 0; i < x86->op_count; i++) {
        const cs_x86_op *op = &x86->operands[i];
        if (op->type == X86_OP_MEM && op->mem.base == X86_REG_R15)
            name_vcpu_field(text, op);
        else if (op->type == X86_OP_IMM)
            name_immediate(text, (uint64_t)op->imm, names);
    }
}

size_t listing_insn(struct listing *l, enum listing_mode mode, const uint8_t *bytes, size_t len,
                    uint64_t address, const struct listing_names *names, char *text)
{
    const uint8_t *at = bytes;
    size_t left = len;

    if (len == 0)
        return 0;
    if (!cs_disasm_iter(l->handles[mode], &at, &left, &address, l->insn)) {
        snprintf(text, LISTING_TEXT_BYTES, ".byte 0x%02x", bytes[0]);
        return 1;
    }
    snprintf(text, LISTING_TEXT_BYTES, "%s%s%.100s", l->insn->mnemonic, l->insn->op_str[0] ? " " : "",
             l->insn->op_str);
    if (mode == LISTING_HOST64)
        resolve_operands(l->insn, names, text);
    return len - left;
}

/* ---- side by side -------------------------------------------------------------- */

struct block_names {
    const struct listing_block *block;
    char text[32];
};

/* Branches inside the block show as offsets; everything else is the caller's to name. */
static const char *block_address(void *ctx, uint64_t address)
{
    struct block_names *names = ctx;
    const struct listing_block *b = names->block;

    if (address - b->host_address < b->host_len) {
        snprintf(names->text, sizeof(names->text), "+0x%03" PRIx64, address - b->host_address);
        return names->text;
    }
    return b->names.address ? b->names.address(b->names.ctx, address) : NULL;
}

static size_t format_guest(struct listing *l, const struct listing_block *b, size_t ofs, char *text)
{
    enum listing_mode mode = b->code32 ? LISTING_GUEST32 : LISTING_GUEST16;
    char insn[LISTING_TEXT_BYTES];
    uint32_t eip = b->guest_eip + (uint32_t)ofs;
    size_t n = listing_insn(l, mode, b->guest + ofs, b->guest_len - ofs, eip, NULL, insn);

    snprintf(text, LISTING_TEXT_BYTES, "0x%08" PRIx32 "  %.120s", eip, insn);
    return n;
}

static size_t format_host(struct listing *l, const struct listing_block *b, size_t ofs, char *text)
{
    struct block_names state = { .block = b };
    struct listing_names names = { .ctx = &state, .address = block_address };
    char insn[LISTING_TEXT_BYTES];
    size_t n = listing_insn(l, LISTING_HOST64, b->host + ofs, b->host_len - ofs, b->host_address + ofs,
                            &names, insn);

    snprintf(text, LISTING_TEXT_BYTES, "+0x%03zx  %.120s", ofs, insn);
    return n;
}

/* One group: guest instructions up to guest_end beside host instructions up to host_end. */
static void print_group(struct listing *l, const struct listing_block *b, size_t *guest, size_t guest_end,
                        size_t *host, size_t host_end, void (*line)(void *ctx, const char *text), void *ctx)
{
    while (*guest < guest_end || *host < host_end) {
        char left[LISTING_TEXT_BYTES] = "", right[LISTING_TEXT_BYTES] = "", both[2 * LISTING_TEXT_BYTES + 8];
        if (*guest < guest_end)
            *guest += format_guest(l, b, *guest, left);
        if (*host < host_end)
            *host += format_host(l, b, *host, right);
        snprintf(both, sizeof(both), "%-*s | %s", LEFT_COLUMN, left, right);
        line(ctx, both);
    }
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

void listing_print_block(struct listing *l, const struct listing_block *block,
                         void (*line)(void *ctx, const char *text), void *ctx)
{
    size_t guest = 0, host = 0;

    for (size_t i = 0; i < block->npairs; i++) {
        /* The guest instructions of this pair end where the next later one starts. */
        size_t guest_end = block->guest_len;
        for (size_t j = i + 1; j < block->npairs; j++)
            if (block->pairs[j].guest_ofs != block->pairs[i].guest_ofs) {
                guest_end = min_size(block->pairs[j].guest_ofs, block->guest_len);
                break;
            }
        size_t host_end = i + 1 < block->npairs ? block->pairs[i + 1].host_ofs : block->host_len;
        print_group(l, block, &guest, guest_end, &host, min_size(host_end, block->host_len), line, ctx);
    }
    print_group(l, block, &guest, block->guest_len, &host, block->host_len, line, ctx);
}
