/*
 * Looking at guest memory: x, xp, memsave, pmemsave. Virtual addresses go through the guest's page
 * tables without a trace left in them. What is no RAM is read from its device, as the guest would.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/hmp_internal.h"
#include "cli/out_file.h"
#include "decoder/listing.h"

#define EXAMINE_MAX 65536u /* bytes for one command */
#define PIECE       4096u

/* Read within one page. */
static bool read_piece(struct hmp *hmp, bool is_physical, uint64_t at, uint8_t *buf, uint32_t len)
{
    gpa_t pa = gpa(at);

    if (!is_physical && (at > UINT32_MAX || !mmu_peek(hmp->vm->cpu, gva((uint32_t)at), &pa)))
        return false;
    mmu_phys_read(hmp->vm->cpu->mmu, pa, buf, len);
    return true;
}

static bool read_memory(struct hmp *hmp, bool is_physical, uint64_t at, uint8_t *buf, uint32_t len)
{
    while (len) {
        uint32_t room = PIECE - (uint32_t)(at % PIECE), n = len < room ? len : room;
        if (!read_piece(hmp, is_physical, at, buf, n))
            return false;
        at += n;
        buf += n;
        len -= n;
    }
    return true;
}

/* ---- x and xp --------------------------------------------------------------------------------- */

struct format {
    uint32_t count;
    char kind;     /* x d u o c i */
    unsigned size; /* bytes: 1, 2, 4, 8 */
};

static bool parse_format(const char *text, struct format *f)
{
    char *end;

    *f = (struct format){ .count = 1, .kind = 'x', .size = 4 };
    if (*text++ != '/')
        return false;
    if (*text >= '0' && *text <= '9') {
        unsigned long count = strtoul(text, &end, 10);
        f->count = count > EXAMINE_MAX ? EXAMINE_MAX + 1 : (uint32_t)count;
        text = end;
    }
    for (; *text; text++) {
        if (strchr("xduoci", *text))
            f->kind = *text;
        else if (strchr("bhwg", *text))
            f->size = *text == 'b' ? 1 : *text == 'h' ? 2 : *text == 'w' ? 4 : 8;
        else
            return false;
    }
    if (f->kind == 'c')
        f->size = 1;
    return true;
}

static void print_value(struct hmp *hmp, const struct format *f, const uint8_t *p)
{
    uint64_t v = 0;
    unsigned bits = f->size * 8;

    memcpy(&v, p, f->size);
    switch (f->kind) {
    case 'x':
        hmp_print(hmp, " 0x%0*llx", (int)f->size * 2, (unsigned long long)v);
        break;
    case 'o':
        hmp_print(hmp, " 0%llo", (unsigned long long)v);
        break;
    case 'u':
        hmp_print(hmp, " %llu", (unsigned long long)v);
        break;
    case 'd':
        hmp_print(hmp, " %lld", (long long)(v << (64 - bits)) >> (64 - bits));
        break;
    default:
        hmp_print(hmp, v >= 0x20 && v < 0x7f ? " '%c'" : " '\\x%02x'", (unsigned)v);
        break;
    }
}

static void cannot_read(struct hmp *hmp, const char *command, uint64_t at)
{
    hmp_print(hmp, "%s: cannot access memory at 0x%08llx\n", command, (unsigned long long)at);
}

static void print_values(struct hmp *hmp, const char *command, bool is_physical, uint64_t at,
                         const struct format *f)
{
    unsigned per_line = f->size == 1 && f->kind != 'c' ? 8
                        : f->size == 8                 ? 2
                        : f->size == 1                 ? 8
                                                       : 16 / f->size;
    uint8_t value[8];

    for (uint32_t i = 0; i < f->count; i++, at += f->size) {
        if (!read_memory(hmp, is_physical, at, value, f->size)) {
            if (i % per_line)
                hmp_print(hmp, "\n");
            cannot_read(hmp, command, at);
            return;
        }
        if (i % per_line == 0)
            hmp_print(hmp, "%08llx:", (unsigned long long)at);
        print_value(hmp, f, value);
        if (i % per_line == per_line - 1 || i + 1 == f->count)
            hmp_print(hmp, "\n");
    }
}

static void print_code(struct hmp *hmp, const char *command, bool is_physical, uint64_t at, uint32_t count)
{
    enum listing_mode mode = hmp->vm->cpu->mode & MODE_CODE32 ? LISTING_GUEST32 : LISTING_GUEST16;
    char text[LISTING_TEXT_BYTES];

    if (!hmp->listing)
        hmp->listing = listing_new();
    if (!hmp->listing) {
        hmp_print(hmp, "%s: out of memory\n", command);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t bytes[15];
        unsigned n = 0;
        while (n < sizeof bytes && read_memory(hmp, is_physical, at + n, bytes + n, 1))
            n++;
        size_t len = listing_insn(hmp->listing, mode, bytes, n, at, NULL, text);
        if (!len) {
            cannot_read(hmp, command, at);
            return;
        }
        hmp_print(hmp, "0x%08llx:  %s\n", (unsigned long long)at, text);
        at += len;
    }
}

void hmp_examine(struct hmp *hmp, const struct hmp_args *args)
{
    const char *command = args->word[0];
    bool is_physical = command[1] == 'p';
    struct format f = { .count = 1, .kind = 'x', .size = 4 };
    uint64_t at;

    if (args->count == 3 && !parse_format(args->word[1], &f))
        hmp_print(hmp, "%s: '%.40s' is no format: use /COUNT, one of x d u o c i, one of b h w g\n", command,
                  args->word[1]);
    else if (!hmp_number(hmp, args->word[args->count - 1], &at))
        hmp_print(hmp, "%s: '%.40s' is no address\n", command, args->word[args->count - 1]);
    else if ((uint64_t)f.count * (f.kind == 'i' ? 15 : f.size) > EXAMINE_MAX)
        hmp_print(hmp, "%s: that is more than %u bytes: use %s\n", command, EXAMINE_MAX,
                  is_physical ? "pmemsave" : "memsave");
    else if (f.kind == 'i')
        print_code(hmp, command, is_physical, at, f.count);
    else
        print_values(hmp, command, is_physical, at, &f);
}

/* ---- files ------------------------------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

void hmp_write_file(struct hmp *hmp, const char *path, uint64_t bytes,
                    bool (*fill)(struct hmp *hmp, void *ctx, uint64_t ofs, uint8_t *buf, uint32_t len),
                    void *ctx)
{
    uint8_t piece[PIECE];
    struct out_file out;
    int rc = out_file_open(&out, path);

    if (rc < 0) {
        hmp_print(hmp, "cannot write '%.200s': %s\n", path, strerror(-rc));
        return;
    }
    for (uint64_t ofs = 0; ofs < bytes && !rc; ofs += PIECE) {
        uint32_t n = bytes - ofs < PIECE ? (uint32_t)(bytes - ofs) : PIECE;
        if (!fill(hmp, ctx, ofs, piece, n))
            rc = -EFAULT;
        else
            rc = write_all(out.fd, piece, n);
    }
    rc = out_file_close(&out, rc);
    if (!rc)
        return;
    if (rc == -EFAULT)
        hmp_print(hmp, "cannot write '%.200s': part of that memory is not mapped\n", path);
    else
        hmp_print(hmp, "cannot write '%.200s': %s\n", path, strerror(-rc));
}

struct source {
    bool is_physical;
    uint64_t at;
};

static bool copy_memory(struct hmp *hmp, void *ctx, uint64_t ofs, uint8_t *buf, uint32_t len)
{
    const struct source *s = ctx;

    return read_memory(hmp, s->is_physical, s->at + ofs, buf, len);
}

void hmp_save(struct hmp *hmp, const struct hmp_args *args)
{
    const char *command = args->word[0];
    struct source s = { .is_physical = command[0] == 'p' };
    uint64_t bytes, most = 1ull << 32;

    if (!hmp_number(hmp, args->word[1], &s.at))
        hmp_print(hmp, "%s: '%.40s' is no address\n", command, args->word[1]);
    else if (!hmp_number(hmp, args->word[2], &bytes))
        hmp_print(hmp, "%s: '%.40s' is no size in bytes\n", command, args->word[2]);
    else if (bytes > most || s.at > most - bytes)
        hmp_print(hmp, "%s: 0x%llx bytes from 0x%llx end beyond 4 GiB\n", command, (unsigned long long)bytes,
                  (unsigned long long)s.at);
    else
        hmp_write_file(hmp, args->word[3], bytes, copy_memory, &s);
}
