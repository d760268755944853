/*
 * `ringdown explain HEX... | FILE`: what the translator makes of some guest code.
 *
 * A VM with a few MiB of memory is made, the bytes are put where they would run, and one
 * translation unit after the other is made and listed; nothing runs. Segments are flat and
 * paging maps the code's address in 32-bit mode. 16-bit code is real-mode code, or with
 * --cpl 3 code of a 16-bit protected segment.
 */
#include "cli/explain.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/ccf_listing.h"
#include "decoder/decoder.h"
#include "monitor/monitor.h"
#include "platform/hosted/hosted.h"

#define EXPLAIN_RAM   (16u << 20)
#define PAGE_DIR_PA   0x1000u
#define CODE_PA       (4u << 20) /* two large pages from here hold the code's address */
#define LARGE_PAGE    (4u << 20)
#define BASE_16BIT    0x10000u
#define DEFAULT_EIP32 0x00100000u
#define DEFAULT_EIP16 0x0100u

static const char usage[] =
    "usage: ringdown explain HEX... | FILE [options]\n"
    "\n"
    "Prints guest code beside its translation. HEX is machine code such as 0f20c0; FILE holds it raw.\n"
    "\n"
    "  --mode 16|32      code segment (default 32)\n"
    "  --cpl 0|3         privilege (default 0)\n"
    "  --eip ADDR        where the code lies, in hexadecimal (default 100000; 100 with --mode 16)\n"
    "  --cpu MODEL       processor model; ringdown -cpu help lists them\n"
    "  --insns N         only the first N instructions\n"
    "  --host baseline   as on a host without BMI2 and 64-bit LAHF\n"
    "  --mem window      memory accesses in the window form (default checked)\n"
    "  --cold            show entries, slow paths and ways out too\n";

static bool fail(struct explain_options *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct explain_options *o, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(o->error, sizeof o->error, fmt, ap);
    va_end(ap);
    for (char *p = o->error; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    return false;
}

/* ---- arguments ------------------------------------------------------------------------------ */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The digits of `text`, or NULL when it holds anything else. */
static const char *hex_digits(const char *text)
{
    const char *p = !strncmp(text, "0x", 2) || !strncmp(text, "0X", 2) ? text + 2 : text;

    for (const char *q = p; *q; q++)
        if (hex_digit(*q) < 0)
            return NULL;
    return *p ? p : NULL;
}

static bool add_hex(struct explain_options *o, const char *text, const char *digits)
{
    if (strlen(digits) % 2)
        return fail(o, "'%.80s' has an odd number of hex digits", text);
    for (; *digits; digits += 2) {
        if (o->code_bytes == EXPLAIN_BYTES_MAX)
            return fail(o, "too much code: the most is %u bytes", EXPLAIN_BYTES_MAX);
        o->code[o->code_bytes++] = (uint8_t)(hex_digit(digits[0]) * 16 + hex_digit(digits[1]));
    }
    return true;
}

static bool add_file(struct explain_options *o, const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t room = EXPLAIN_BYTES_MAX - o->code_bytes;

    if (!f)
        return fail(o, "'%.80s' is neither hex bytes nor a readable file: %s", path, strerror(errno));
    errno = 0;
    size_t n = fread(o->code + o->code_bytes, 1, room, f);
    int err = errno;
    bool failed = ferror(f), is_longer = n == room && fgetc(f) != EOF;

    fclose(f);
    if (failed)
        return fail(o, "cannot read '%.80s': %s", path, strerror(err));
    if (is_longer)
        return fail(o, "'%.80s' is too long: the most is %u bytes of code", path, EXPLAIN_BYTES_MAX);
    o->code_bytes += n;
    return true;
}

static bool add_code(struct explain_options *o, const char *text)
{
    const char *digits = hex_digits(text);

    return digits ? add_hex(o, text, digits) : add_file(o, text);
}

/* A value that must be one of two words; *second says which. */
static bool one_of(struct explain_options *o, const char *option, const char *value, const char *a,
                   const char *b, bool *second)
{
    *second = !strcmp(value, b);
    return *second || !strcmp(value, a) || fail(o, "%s '%.80s': use %s or %s", option, value, a, b);
}

static bool parse_eip(struct explain_options *o, const char *value)
{
    const char *digits = hex_digits(value);

    if (!digits || strlen(digits) > 8)
        return fail(o, "--eip '%.80s' is no 32-bit address in hexadecimal", value);
    o->eip = (uint32_t)strtoul(digits, NULL, 16);
    return true;
}

static bool parse_value(struct explain_options *o, const char *option, const char *value, bool *has_eip)
{
    bool second;

    if (!strcmp(option, "--mode")) {
        bool ok = one_of(o, option, value, "32", "16", &second);
        o->mode = second ? 16 : 32;
        return ok;
    }
    if (!strcmp(option, "--cpl")) {
        bool ok = one_of(o, option, value, "0", "3", &second);
        o->cpl = second ? 3 : 0;
        return ok;
    }
    if (!strcmp(option, "--eip")) {
        *has_eip = true;
        return parse_eip(o, value);
    }
    if (!strcmp(option, "--cpu")) {
        o->cpu = value;
        return cpu_model_find(value) ||
               fail(o, "--cpu '%.80s' is not a known model: ringdown -cpu help", value);
    }
    if (!strcmp(option, "--insns")) {
        char *end;
        unsigned long n = strtoul(value, &end, 10);
        o->insns = (unsigned)n;
        return (value[0] >= '1' && value[0] <= '9' && !*end && n <= EXPLAIN_BYTES_MAX) ||
               fail(o, "--insns '%.80s': use a number from 1 to %u", value, EXPLAIN_BYTES_MAX);
    }
    if (!strcmp(option, "--mem"))
        return one_of(o, option, value, "checked", "window", &o->window);
    return one_of(o, option, value, "auto", "baseline", &o->baseline);
}

static bool check(struct explain_options *o, bool has_eip)
{
    if (!has_eip)
        o->eip = o->mode == 32 ? DEFAULT_EIP32 : DEFAULT_EIP16;
    if (!o->code_bytes)
        return fail(o, "no code: use ringdown explain HEX... | FILE (and see explain --help)");
    uint64_t end = (uint64_t)o->eip + o->code_bytes;
    if (end > (o->mode == 32 ? 1ull << 32 : 1ull << 16))
        return fail(o, "the code goes past the end of its segment: to 0x%" PRIx64, end);
    return true;
}

bool explain_parse(struct explain_options *o, int argc, const char *const *argv)
{
    static const char *const with_value[] = { "--mode",  "--cpl", "--eip", "--cpu",
                                              "--insns", "--mem", "--host" };
    bool has_eip = false;

    memset(o, 0, sizeof *o);
    o->mode = 32;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        size_t k = 0;
        while (k < ARRAY_LEN(with_value) && strcmp(arg, with_value[k]))
            k++;
        if (k < ARRAY_LEN(with_value)) {
            if (i + 1 >= argc)
                return fail(o, "option '%s' needs a value: see explain --help", arg);
            if (!parse_value(o, arg, argv[++i], &has_eip))
                return false;
        } else if (!strcmp(arg, "--cold") || !strcmp(arg, "--all")) {
            o->cold = true;
        } else if (!strcmp(arg, "--help") || !strcmp(arg, "-help") || !strcmp(arg, "-h")) {
            o->help = true;
            return true;
        } else if (arg[0] == '-') {
            return fail(o, "unknown option '%.80s': see explain --help", arg);
        } else if (!add_code(o, arg)) {
            return false;
        }
    }
    return check(o, has_eip);
}

/* ---- the VM ------------------------------------------------------------------------------------ */

static uint64_t host_now_ns(void *ctx)
{
    (void)ctx;
    return platform_clock_ns();
}

static struct vm *make_vm(const struct explain_options *o, uint8_t *ram)
{
    struct vm_config c = {
        .ram = ram,
        .ram_bytes = EXPLAIN_RAM,
        .model = o->cpu ? cpu_model_find(o->cpu) : &cpu_models[0],
        .bt = { .tc_bytes = 1u << 20,
                .chain = true,
                .mem = o->window ? MEM_WINDOW : MEM_CHECKED,
                .max_insns = CCF_MAX_INSNS },
        .machine = { .ram_bytes = EXPLAIN_RAM, .clock = { .now_ns = host_now_ns } },
    };

    hosted_features(&c.host, o->baseline);
    return vm_new(&c);
}

static void put_segments(struct vcpu *cpu, const struct explain_options *o)
{
    bool wide = o->mode == 32, real = !wide && o->cpl == 0;
    uint16_t dpl = (uint16_t)(o->cpl << DESC_DPL_SHIFT);
    uint16_t common = (uint16_t)(DESC_P | DESC_S | dpl | (wide ? DESC_DB | DESC_G : 0) | DESC_ACCESSED);
    struct segment s = { .base = wide ? 0 : BASE_16BIT, .limit = wide ? 0xffffffffu : 0xffffu };

    for (unsigned i = 0; i < SEG_COUNT; i++) {
        bool is_code = i == SEG_CS && !real;
        s.sel = (uint16_t)(real ? BASE_16BIT >> 4 : (i == SEG_CS ? 0x10 : 0x18) | o->cpl);
        s.attr = (uint16_t)(common | (is_code ? DESC_CODE | DESC_READ : DESC_WRITE));
        cpu->segs[i] = s;
    }
    cpu->cpl = (uint8_t)o->cpl;
}

/* Where the code lies in RAM. */
static uint32_t code_pa(const struct explain_options *o)
{
    return o->mode == 32 ? CODE_PA + (o->eip & (LARGE_PAGE - 1)) : BASE_16BIT + o->eip;
}

static void put_paging(struct vcpu *cpu, const struct explain_options *o, uint8_t *ram)
{
    uint32_t first = o->eip / LARGE_PAGE;

    for (uint32_t i = 0; i < 2; i++) {
        uint32_t pde = (CODE_PA + i * LARGE_PAGE) | PTE_PS | PTE_US | PTE_W | PTE_P;
        memcpy(ram + PAGE_DIR_PA + 4 * ((first + i) & 1023), &pde, 4);
    }
    cpu->cr0 |= CR0_PG;
    cpu->cr3 = PAGE_DIR_PA;
}

static void enter(struct vm *vm, const struct explain_options *o, uint8_t *ram)
{
    struct vcpu *cpu = vm->cpu;

    memcpy(ram + code_pa(o), o->code, o->code_bytes);
    put_segments(cpu, o);
    cpu->cr0 = CR0_ET | (o->mode == 32 || o->cpl ? CR0_PE : 0);
    cpu->cr4 = CR4_PSE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (o->mode == 32)
        put_paging(cpu, o, ram);
    vcpu_eflags_set(cpu, EFL_ONE);
    vcpu_update_mode(cpu);
    mmu_flush_all(cpu);
}

/* ---- printing ------------------------------------------------------------------------------------ */

struct output {
    void (*line)(void *ctx, const char *text);
    void *ctx;
    struct explain_options *options;
    struct ccf_listing *listing;
    unsigned count[3]; /* by enum bt_how */
};

static void say(const struct output *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct output *out, const char *fmt, ...)
{
    char text[CCF_LINE_BYTES];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    out->line(out->ctx, text);
}

static void blank_line(const struct output *out)
{
    out->line(out->ctx, "");
}

/* --insns: leave only the first of them, if there are as many. */
static void keep_first(struct explain_options *o)
{
    size_t ofs = 0;
    struct insn in;

    for (unsigned n = 0; n < o->insns; n++, ofs += in.len)
        if (ofs >= o->code_bytes ||
            decode_insn(o->code + ofs, o->code_bytes - ofs, o->mode == 32, &in) != DECODE_OK)
            return;
    if (o->insns)
        o->code_bytes = ofs;
}

/* Instructions from `ofs` to the code's end; one that is no instruction is the last. *end is where they
 * end. 0: the instruction at *end is cut off. */
static unsigned count_insns(const struct explain_options *o, size_t ofs, size_t *end)
{
    unsigned n = 0;
    struct insn in;

    for (; ofs < o->code_bytes; ofs += in.len) {
        enum decode_rc rc = decode_insn(o->code + ofs, o->code_bytes - ofs, o->mode == 32, &in);
        *end = ofs;
        if (rc == DECODE_TRUNCATED)
            return 0;
        n++;
        if (rc != DECODE_OK)
            return n;
    }
    *end = ofs;
    return n;
}

static bool cut_off(struct explain_options *o, size_t ofs)
{
    return fail(o, "the last instruction, at +0x%zx, is cut off: only %zu of its bytes are given", ofs,
                o->code_bytes - ofs);
}

/* Why sensitive and privileged instructions can't run as they are. */
static void print_notes(const struct output *out, const struct ccf *ccf)
{
    const struct explain_options *o = out->options;
    unsigned notes = 0;
    struct insn in;

    for (unsigned i = 0; i < ccf->ninsns; i++) {
        size_t ofs = ccf->key.eip - o->eip + ccf->insns[i].guest_ofs;
        if (ofs >= o->code_bytes ||
            decode_insn(o->code + ofs, o->code_bytes - ofs, o->mode == 32, &in) != DECODE_OK)
            continue;
        uint32_t eip = ccf->key.eip + ccf->insns[i].guest_ofs;
        const char *name = decoder_mnemonic_name(in.mnemonic);
        notes++;
        if (in.info->cls == CLASS_PRIVILEGED)
            say(out, "  %08" PRIx32 "  %s is privileged: traps in user mode", eip, name);
        else if (in.info->cls == CLASS_SENSITIVE)
            say(out, "  %08" PRIx32 "  %s is sensitive%s%s", eip, name, in.info->note ? ": " : "",
                in.info->note ? in.info->note : "");
        else if (in.info->cls == CLASS_UNAVAILABLE)
            say(out, "  %08" PRIx32 "  %s is an instruction that the guest's processor lacks", eip, name);
        else
            notes--;
    }
    if (notes)
        blank_line(out);
}

static void print_unit(struct output *out, struct vcpu *cpu, const struct ccf *ccf, unsigned number)
{
    bool cold = out->options->cold;
    struct ccf_view view = { .guest = true, .host = true, .entries = cold, .cold = cold, .offsets = cold };
    char mode[96];

    say(out, "unit %u: EIP 0x%08" PRIx32 ", %s; %u instruction%s, %u bytes -> %u bytes, slow paths %u",
        number, ccf->key.eip, ccf_mode_text(ccf->key.mode, mode, sizeof mode), ccf->ninsns,
        ccf->ninsns == 1 ? "" : "s", ccf->guest_len, ccf->hot_len, ccf->cold_len);
    blank_line(out);
    ccf_listing_print(out->listing, cpu, ccf, &view, out->line, out->ctx);
    blank_line(out);
    for (unsigned i = 0; i < ccf->ninsns; i++)
        out->count[ccf->insns[i].how]++;
}

static void print_legend(const struct output *out)
{
    static const char *const lines[] = {
        "eax edx ebx ebp esi edi and the flags live in the host's registers of these names, ecx in r13d,",
        "esp in r12d. vcpu: where r15 points, the rest of the processor. loads[], stores[]: host address of "
        "a",
        "guest page minus its own, 0 when the slow way must be taken. -> EIP: the translation of that "
        "address.",
    };

    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        out->line(out->ctx, lines[i]);
    blank_line(out);
}

static bool print_units(struct output *out, struct vcpu *cpu)
{
    struct explain_options *o = out->options;
    unsigned number = 1;
    size_t end;

    if (!count_insns(o, 0, &end))
        return cut_off(o, end);
    print_legend(out);
    for (size_t ofs = 0; ofs < o->code_bytes;) {
        unsigned n = count_insns(o, ofs, &end);
        struct ccf *ccf;
        if (!n)
            return cut_off(o, end);
        cpu->eip = o->eip + (uint32_t)ofs;
        if (bt_translate_at(cpu, n, &ccf) != X86_OK)
            return fail(o, "the code can't be fetched at 0x%08" PRIx32, cpu->eip);
        print_unit(out, cpu, ccf, number++);
        print_notes(out, ccf);
        ofs += ccf->guest_len;
        if (ofs > end)
            break; /* it ended in bytes that are no instruction */
    }
    say(out, "%u instruction%s: %u IDENT, %u lowered, %u callout%s",
        out->count[BT_IDENT] + out->count[BT_LOWERED] + out->count[BT_CALLOUT],
        out->count[BT_IDENT] + out->count[BT_LOWERED] + out->count[BT_CALLOUT] == 1 ? "" : "s",
        out->count[BT_IDENT], out->count[BT_LOWERED], out->count[BT_CALLOUT],
        out->count[BT_CALLOUT] == 1 ? "" : "s");
    return true;
}

bool explain_print(struct explain_options *o, void (*line)(void *ctx, const char *text), void *ctx)
{
    struct output out = { .line = line, .ctx = ctx, .options = o };
    uint8_t *ram = hosted_ram_new(EXPLAIN_RAM);
    struct vm *vm = ram ? make_vm(o, ram) : NULL;
    bool done = false;

    keep_first(o);
    out.listing = ccf_listing_new();
    if (!vm || !out.listing) {
        fail(o, "cannot make a virtual machine: %s", *hosted_error() ? hosted_error() : "out of memory");
    } else {
        enter(vm, o, ram);
        done = print_units(&out, vm->cpu);
    }
    ccf_listing_free(out.listing);
    vm_free(vm);
    if (ram)
        hosted_ram_free();
    return done;
}

static void print_line(void *ctx, const char *text)
{
    (void)ctx;
    puts(text);
}

int explain_main(int argc, char **argv)
{
    static struct explain_options o;
    enum { DONE = 0, FAILED = 1, USAGE = 2 };

    if (!explain_parse(&o, argc, (const char *const *)argv)) {
        fprintf(stderr, "ringdown: explain: %s\n", o.error);
        return USAGE;
    }
    if (o.help) {
        fputs(usage, stdout);
        return fflush(stdout) == 0 ? DONE : FAILED;
    }
    if (hosted_init() < 0) {
        fprintf(stderr, "ringdown: %s\n", hosted_error());
        return FAILED;
    }
    if (!explain_print(&o, print_line, NULL)) {
        fflush(stdout);
        fprintf(stderr, "ringdown: explain: %s\n", o.error);
        return USAGE;
    }
    return fflush(stdout) == 0 ? DONE : FAILED;
}
