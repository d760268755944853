/*
 * A CCF as text.
 *
 *     00100000  0f20c0          mov eax, cr0          callout  | mov [vcpu.eip], 0x100000
 *                                                              | ...
 *                                                              | call callout_mov_from_cr
 *     00100003  0d00000080      or eax, 0x80000000    IDENT    | or eax, 0x80000000
 *
 * decoder/listing.h disassembles and names fields of the vCPU. What is added here is what
 * only the CCF knows: which host code belongs to which instruction, which function a callout
 * calls, where a branch leads as the guest sees it (`-> 0x00100010`), and the names of the
 * tables behind R14. Branches are named from the bytes at their target, so that nothing has
 * to be recorded for it while translating.
 *
 * Islands (jumps that lengthen the reach of JRCXZ, see bt/idiom.c) are seen through: the
 * JRCXZ is shown as leading to its slow path.
 */
#include "cli/ccf_listing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bt/bt.h"
#include "decoder/listing.h"

#define BYTES_PER_LINE 7u /* guest bytes in the left column; more go to the next line */
#define GUEST_TEXT_MIN 26
#define GUEST_TEXT_MAX 44

struct ccf_listing {
    struct listing *listing;
};

/* One listing on its way out. */
struct job {
    struct ccf_listing *l;
    const struct ccf *ccf;
    const struct ccf_view *view;
    ccf_line_fn *line;
    void *ctx;
    uint8_t guest[GUEST_PAGE_SIZE];
    int guest_width;   /* of the instruction's text                                  */
    bool is_cold;      /* the part that is being printed                             */
    uint32_t r8d, r9d; /* what the last MOV put there: targets and reasons           */
    unsigned insn;     /* whose code it is                                           */
    char name[48];
};

struct ccf_listing *ccf_listing_new(void)
{
    struct ccf_listing *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->listing = listing_new();
    if (l->listing)
        return l;
    free(l);
    return NULL;
}

void ccf_listing_free(struct ccf_listing *l)
{
    if (!l)
        return;
    listing_free(l->listing);
    free(l);
}

size_t ccf_guest_bytes(struct vcpu *cpu, const struct ccf *ccf, uint8_t *buf, size_t size)
{
    size_t len = ccf->guest_len < size ? ccf->guest_len : size;

    for (size_t i = 0; i < len; i++) {
        uint64_t pa = ccf->key.pa + i;
        if (pa >> GUEST_PAGE_SHIFT != ccf->key.pa >> GUEST_PAGE_SHIFT && ccf->pfn2 != CCF_ONE_PAGE)
            pa = (ccf->pfn2 << GUEST_PAGE_SHIFT) + (pa & GUEST_PAGE_MASK);
        hva_t p = mmu_ram_ptr(cpu->mmu, gpa(pa));
        buf[i] = p.p ? *p.p : 0xff;
    }
    return len;
}

const char *ccf_mode_text(uint32_t mode, char *buf, size_t size)
{
    const char *cpl = mode & MODE_CPL3 ? "CPL 3" : mode & MODE_CPL0 ? "CPL 0" : "CPL 1 or 2";

    snprintf(buf, size, "%s, %s%s%s%s%s%s", mode & MODE_CODE32 ? "32-bit" : "16-bit",
             mode & MODE_VM86        ? "virtual-8086"
             : mode & MODE_PROTECTED ? cpl
                                     : "real mode",
             (mode & MODE_ALL_FLAT) == MODE_ALL_FLAT ? "" : ", segments not flat",
             mode & MODE_FPU_NM ? ", FPU raises #NM" : "", mode & MODE_SSE_UD ? ", no SSE" : "",
             mode & MODE_STEP ? ", single step" : "", mode & MODE_WINDOW ? ", window form" : "");
    return buf;
}

/* ---- what host bytes mean ----------------------------------------------------------------- */

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

static bool in_hot(const struct ccf *ccf, uint64_t address)
{
    return address - (uintptr_t)ccf->hot < ccf->hot_len;
}

static bool in_cold(const struct ccf *ccf, uint64_t address)
{
    return address - (uintptr_t)ccf->cold < ccf->cold_len;
}

/* Bytes from `address` to the end of its part, or 0 when it lies in neither. */
static size_t bytes_left(const struct ccf *ccf, uint64_t address)
{
    if (in_hot(ccf, address))
        return ccf->hot_len - (size_t)(address - (uintptr_t)ccf->hot);
    if (in_cold(ccf, address))
        return ccf->cold_len - (size_t)(address - (uintptr_t)ccf->cold);
    return 0;
}

/*
 * Does the code at `address` do nothing but go to a guest address? Either
 *     mov [vcpu.eip], eip ; mov r9d, ..       (to the dispatcher)
 * or  mov r8d, eip        ; jmp [r14 + ..]    (through the jump table).
 */
static bool is_transfer(const struct ccf *ccf, uint64_t address, uint32_t *eip)
{
    const uint8_t *p = (const uint8_t *)(uintptr_t)address;
    size_t left = bytes_left(ccf, address);

    if (left >= 14 && p[0] == 0x41 && p[1] == 0xc7 && p[2] == 0x47 && p[3] == offsetof(struct vcpu, eip) &&
        p[8] == 0x41 && p[9] == 0xb9) {
        *eip = get32(p + 4);
        return true;
    }
    if (left >= 13 && p[0] == 0x41 && p[1] == 0xb8 && p[6] == 0x41 && p[7] == 0xff && p[8] == 0xa6) {
        *eip = get32(p + 2);
        return true;
    }
    return false;
}

/* The guest instruction whose code starts here, or -1. */
static int insn_at(const struct ccf *ccf, uint64_t address)
{
    uint64_t ofs = address - (uintptr_t)ccf->hot;

    for (unsigned i = 0; i < ccf->ninsns; i++)
        if (ccf->insns[i].hot_ofs == ofs)
            return (int)i;
    return -1;
}

/* A JMP to the cold part that does not begin an instruction's code. */
static bool jumps_on(const struct ccf *ccf, uint64_t address, uint64_t *target)
{
    const uint8_t *p = (const uint8_t *)(uintptr_t)address;

    if (!in_hot(ccf, address) || bytes_left(ccf, address) < 5 || p[0] != 0xe9 || insn_at(ccf, address) >= 0)
        return false;
    *target = address + 5 + (uint64_t)(int64_t)(int32_t)get32(p + 1);
    return in_cold(ccf, *target);
}

/* The same to a slow path: it stands for itself. */
static bool is_island(const struct ccf *ccf, uint64_t address, uint64_t *target)
{
    uint32_t eip;

    return jumps_on(ccf, address, target) && !is_transfer(ccf, *target, &eip);
}

/* Islands begin here: at the first of them, or at the jump over them. Their end, or 0. */
static uint64_t islands_end(const struct ccf *ccf, uint64_t address)
{
    const uint8_t *p = (const uint8_t *)(uintptr_t)address;
    uint64_t target, end = address;

    if (bytes_left(ccf, address) >= 2 && p[0] == 0xeb && is_island(ccf, address + 2, &target))
        end = address + 2;
    while (is_island(ccf, end, &target))
        end += 5;
    return end == address ? 0 : end;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* Called for every immediate operand; addresses of host code never look like guest constants. */
static const char *address_name(void *ctx, uint64_t address)
{
    struct job *j = ctx;
    const struct ccf *ccf = j->ccf;
    uint64_t through;
    uint32_t eip;

    if (!in_hot(ccf, address) && !in_cold(ccf, address))
        return NULL;
    if (jumps_on(ccf, address, &through))
        address = through;
    if (is_transfer(ccf, address, &eip)) {
        snprintf(j->name, sizeof j->name, "-> 0x%08" PRIx32, eip);
    } else if (in_cold(ccf, address)) {
        snprintf(j->name, sizeof j->name, j->is_cold ? "+0x%03" PRIx64 : "slow",
                 address - (uintptr_t)ccf->cold);
    } else if (insn_at(ccf, address) >= 0) {
        snprintf(j->name, sizeof j->name, "code of 0x%08" PRIx32,
                 ccf->key.eip + ccf->insns[insn_at(ccf, address)].guest_ofs);
    } else {
        snprintf(j->name, sizeof j->name, "%s+0x%03" PRIx64, j->is_cold ? "hot" : "",
                 address - (uintptr_t)ccf->hot);
    }
    return j->name;
}

/* Replace the first `from` by `to`; false when there is none. */
static bool replace(char *text, const char *from, const char *to)
{
    char *at = strstr(text, from);
    char rest[LISTING_TEXT_BYTES];

    if (!at)
        return false;
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, LISTING_TEXT_BYTES - (size_t)(at - text), "%s%s", to, rest);
    return true;
}

/* What R14 + constant + register addresses: the tables of base/cpu.h. */
static void name_tables(const struct job *j, char *text)
{
    static const struct {
        uint32_t ofs;
        const char *name;
    } tables[] = { { VIEW_JT_OFS, "jump_table" }, { VIEW_STORE_OFS, "stores" }, { VIEW_LOAD_OFS, "loads" } };
    char *at = strstr(text, "[r14"), from[40], to[40];
    unsigned ofs;

    if (!at)
        return;
    if (sscanf(at, "[r14 + 0x%x]", &ofs) == 1 && ofs >= VIEW_JT_OFS) {
        char *space = strchr(text, ' '); /* jmp or call by a slot whose address R8D holds */
        snprintf(space + 1, LISTING_TEXT_BYTES - (size_t)(space + 1 - text), "-> 0x%08" PRIx32, j->r8d);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        if (tables[i].ofs)
            snprintf(from, sizeof from, "[r14 + r9*8 + 0x%x]", tables[i].ofs);
        else
            snprintf(from, sizeof from, "[r14 + r9*8]");
        snprintf(to, sizeof to, "%s[r9*8]", tables[i].name);
        if (replace(text, from, to))
            break;
    }
    replace(text, "qword ptr ", "");
}

static const char *exit_name(uint32_t reason)
{
    static const char *const names[EXIT_REASON_COUNT] = {
        "RESUME", "DISPATCH", "FAULT", "CHAIN",       "LOOKUP", "POLL",
        "SHADOW", "HALT",     "HOST",  "UNSUPPORTED", "WATCHED", "STOP",
    };

    return reason < EXIT_REASON_COUNT ? names[reason] : "?";
}

/* Calls and jumps by way of the vCPU: the function itself. */
static void name_stub(const struct job *j, char *text)
{
    char by[64];
    const struct ccf_insn *insn = &j->ccf->insns[j->insn];

    snprintf(by, sizeof by, "%s", insn->callout < CALLOUT_COUNT ? callout_name(insn->callout) : "callout");
    if (replace(text, "qword ptr [vcpu.stub_callout]", by))
        return;
    snprintf(by, sizeof by, "exit (%s)", exit_name(j->r9d));
    if (replace(text, "qword ptr [vcpu.stub_exit]", by) || replace(text, "qword ptr [vcpu.stub_", ""))
        replace(text, "]", "");
}

static void name_operands(struct job *j, const uint8_t *p, size_t len, char *text)
{
    if (len == 6 && p[0] == 0x41 && p[1] == 0xb8)
        j->r8d = get32(p + 2);
    if (len == 6 && p[0] == 0x41 && p[1] == 0xb9)
        j->r9d = get32(p + 2);
    name_stub(j, text);
    name_tables(j, text);
    if (strstr(text, "[vcpu.")) {
        static const char *const sizes[] = { "qword ptr ", "dword ptr ", "word ptr ", "byte ptr " };
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
            replace(text, sizes[i], "");
    }
    replace(text, "movabs ", "mov ");
}

/* ---- columns --------------------------------------------------------------------------------- */

/* The left side: lines of one guest instruction, one after the other. */
struct left {
    const struct job *j;
    int insn;              /* -1: empty                       */
    unsigned byte, nbytes; /* bytes printed, of these         */
    unsigned line;
    const char *title; /* instead of an instruction       */
    char text[LISTING_TEXT_BYTES];
};

static unsigned insn_len(const struct ccf *ccf, unsigned i)
{
    unsigned end = i + 1u < ccf->ninsns ? ccf->insns[i + 1].guest_ofs : ccf->guest_len;

    return end - ccf->insns[i].guest_ofs;
}

static void guest_text(const struct job *j, unsigned i, char *text)
{
    const struct ccf *ccf = j->ccf;
    unsigned ofs = ccf->insns[i].guest_ofs, len = insn_len(ccf, i);
    enum listing_mode mode = ccf->key.mode & MODE_CODE32 ? LISTING_GUEST32 : LISTING_GUEST16;

    if (listing_insn(j->l->listing, mode, j->guest + ofs, len, ccf->key.eip + ofs, NULL, text) == 0 ||
        !strncmp(text, ".byte", 5))
        snprintf(text, LISTING_TEXT_BYTES, "(no instruction)");
}

static struct left left_of(const struct job *j, int insn, const char *title)
{
    struct left left = { .j = j, .insn = insn, .title = title };

    if (insn >= 0) {
        left.nbytes = insn_len(j->ccf, (unsigned)insn);
        guest_text(j, (unsigned)insn, left.text);
    }
    return left;
}

static bool left_has_more(const struct left *left)
{
    return left->line == 0 ? left->insn >= 0 || left->title : left->byte < left->nbytes;
}

static int left_width(const struct job *j)
{
    return 2 + 8 + 2 + 2 * (int)BYTES_PER_LINE + 2 + j->guest_width + 2 + 7;
}

/* The next line of the left side; empty when there is none. */
static void left_line(struct left *left, char *out, size_t size)
{
    static const char *const how[] = {
        [BT_IDENT] = "IDENT", [BT_LOWERED] = "lowered", [BT_CALLOUT] = "callout"
    };
    const struct ccf *ccf = left->j->ccf;
    char bytes[2 * BYTES_PER_LINE + 1] = "";

    *out = 0;
    if (!left_has_more(left))
        return;
    if (left->title && left->line++ == 0) {
        snprintf(out, size, "  %8s  %s", "", left->title);
        return;
    }
    const struct ccf_insn *insn = &ccf->insns[left->insn];
    for (unsigned n = 0; n < BYTES_PER_LINE && left->byte < left->nbytes; n++, left->byte++)
        snprintf(bytes + 2 * n, 3, "%02x", left->j->guest[insn->guest_ofs + left->byte]);
    if (left->line++ == 0)
        snprintf(out, size, "  %08" PRIx32 "  %-*s  %-*s  %-7s", ccf->key.eip + insn->guest_ofs,
                 2 * (int)BYTES_PER_LINE, bytes, left->j->guest_width, left->text, how[insn->how]);
    else
        snprintf(out, size, "  %8s  %s", "", bytes);
}

static void put_line(const struct job *j, const char *left, const char *right)
{
    char text[CCF_LINE_BYTES];

    if (j->view->guest && j->view->host)
        snprintf(text, sizeof text, "%-*s | %s", left_width(j), left, right);
    else
        snprintf(text, sizeof text, "%s%s", j->view->host ? "    " : left, j->view->host ? right : "");
    for (size_t n = strlen(text); n && text[n - 1] == ' ';)
        text[--n] = 0;
    j->line(j->ctx, text);
}

/* ---- a run of host code beside an instruction -------------------------------------------------- */

/* One host instruction; its length. */
static size_t host_insn(struct job *j, const uint8_t *at, size_t left, char *out, size_t size)
{
    struct listing_names names = { .ctx = j, .address = address_name };
    char text[LISTING_TEXT_BYTES];
    uint64_t address = (uintptr_t)at;
    size_t len = listing_insn(j->l->listing, LISTING_HOST64, at, left, address, &names, text);
    const uint8_t *part = j->is_cold ? j->ccf->cold : j->ccf->hot;

    name_operands(j, at, len, text);
    if (j->view->offsets)
        snprintf(out, size, "+0x%03x  %.100s", (unsigned)(at - part), text);
    else
        snprintf(out, size, "%.100s", text);
    return len;
}

static void print_run(struct job *j, struct left *left, const uint8_t *at, const uint8_t *end)
{
    char l[CCF_LINE_BYTES / 2], r[CCF_LINE_BYTES / 2];

    while (at < end || left_has_more(left)) {
        uint64_t skip = at < end && !j->view->entries ? islands_end(j->ccf, (uintptr_t)at) : 0;
        if (skip) {
            at = (const uint8_t *)(uintptr_t)skip;
            continue;
        }
        *r = 0;
        left_line(left, l, sizeof l);
        if (at < end)
            at += host_insn(j, at, (size_t)(end - at), r, sizeof r);
        put_line(j, l, r);
    }
}

static void print_hot(struct job *j)
{
    const struct ccf *ccf = j->ccf;
    uint32_t first = ccf->ninsns ? ccf->insns[0].hot_ofs : ccf->tail_ofs;

    if (j->view->entries) {
        struct left left = left_of(j, -1, "entries");
        print_run(j, &left, ccf->hot, ccf->hot + first);
    }
    for (unsigned i = 0; i < ccf->ninsns; i++) {
        struct left left = left_of(j, (int)i, NULL);
        uint32_t end = i + 1u < ccf->ninsns ? ccf->insns[i + 1].hot_ofs : ccf->tail_ofs;
        j->insn = i;
        print_run(j, &left, ccf->hot + ccf->insns[i].hot_ofs, ccf->hot + end);
    }
    bool only_islands = islands_end(ccf, (uintptr_t)(ccf->hot + ccf->tail_ofs)) != 0;
    if (ccf->tail_ofs < ccf->hot_len && (j->view->entries || !only_islands)) {
        struct left left = left_of(j, -1, only_islands ? "islands" : "the way on");
        print_run(j, &left, ccf->hot + ccf->tail_ofs, ccf->hot + ccf->hot_len);
    }
}

static void print_cold(struct job *j)
{
    const struct ccf *ccf = j->ccf;
    char title[80], text[LISTING_TEXT_BYTES];

    j->is_cold = true;
    for (unsigned i = 0; i < ccf->ninsns; i++) {
        uint32_t end = i + 1u < ccf->ninsns ? ccf->insns[i + 1].cold_ofs : ccf->cold_len;
        if (ccf->insns[i].cold_ofs >= end)
            continue;
        j->insn = i;
        guest_text(j, i, text);
        snprintf(title, sizeof title, "cold: %.60s", text);
        struct left left = left_of(j, -1, title);
        print_run(j, &left, ccf->cold + ccf->insns[i].cold_ofs, ccf->cold + end);
    }
    j->is_cold = false;
}

static void print_guest(struct job *j)
{
    char text[CCF_LINE_BYTES];

    for (unsigned i = 0; i < j->ccf->ninsns; i++) {
        struct left left = left_of(j, (int)i, NULL);
        while (left_has_more(&left)) {
            left_line(&left, text, sizeof text);
            put_line(j, text, "");
        }
    }
}

static int widest_guest_text(const struct job *j)
{
    char text[LISTING_TEXT_BYTES];
    int width = GUEST_TEXT_MIN;

    for (unsigned i = 0; i < j->ccf->ninsns; i++) {
        guest_text(j, i, text);
        int n = (int)strlen(text);
        if (n > width)
            width = n < GUEST_TEXT_MAX ? n : GUEST_TEXT_MAX;
    }
    return width;
}

void ccf_listing_print(struct ccf_listing *l, struct vcpu *cpu, const struct ccf *ccf,
                       const struct ccf_view *view, ccf_line_fn *line, void *ctx)
{
    struct job j = { .l = l, .ccf = ccf, .view = view, .line = line, .ctx = ctx };

    ccf_guest_bytes(cpu, ccf, j.guest, sizeof j.guest);
    j.guest_width = widest_guest_text(&j);
    if (!view->host) {
        print_guest(&j);
        return;
    }
    print_hot(&j);
    if (view->cold)
        print_cold(&j);
}
