/*
 * What the translator makes of pseudo-random guest code passes the verifier, in every mode
 * and for every kind of host. Nothing is run: the translation alone is looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "bt/bt_internal.h"
#include "bt/verify.h"
#include "decoder/listing.h"
#include "mmu/window.h"
#include "tests/support/bare_mmu.h"

#define RAM_BYTES (1u << 20)
#define CODE_PA   0x10000u
#define TUS       2500u /* per mode and host */

struct vm_under_test {
    struct vcpu *cpu;
    uint8_t *ram;
    struct log log;
    struct bt *bt;
    struct verify_work *work;
};

static struct vm_under_test *make(const struct host_features *host, bool icount)
{
    struct vm_under_test *t = calloc(1, sizeof(*t));
    struct bt_options options = { .tc_bytes = 4u << 20, .chain = true, .max_insns = 16, .icount = icount };
    struct bt_ops ops = { .features = UINT32_MAX };

    t->ram = platform_reserve(RAM_BYTES);
    t->cpu = platform_reserve(sizeof(*t->cpu));
    t->cpu->log = &t->log;
    vcpu_reset(t->cpu);
    t->cpu->mmu =
        mmu_new(t->cpu, &(struct mmu_config){ .ram = t->ram, .ram_bytes = RAM_BYTES, .ops = bare_mmu_ops });
    t->cpu->segs[SEG_CS].limit = UINT32_MAX;
    t->bt = bt_new(t->cpu, &options, host, &ops);
    t->work = malloc(verify_work_bytes());
    assert_true(t->bt && t->work && t->cpu->mmu);
    return t;
}

static void end(struct vm_under_test *t)
{
    bt_free(t->bt);
    mmu_free(t->cpu->mmu);
    platform_release(t->cpu, sizeof(*t->cpu));
    platform_release(t->ram, RAM_BYTES);
    free(t->work);
    free(t);
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* A random instruction that exists; memory forms and the 0F map are favoured. */
static unsigned random_insn(uint64_t *seed, bool code32, uint8_t out[16])
{
    static const uint8_t prefixes[] = { 0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x64, 0x2e, 0x36 };
    struct insn in;
    for (;;) {
        uint64_t r = next_random(seed);
        unsigned n = 0;
        if ((r & 7) == 0)
            out[n++] = prefixes[r >> 3 & 7];
        if (r >> 8 & 1)
            out[n++] = 0x0f;
        for (unsigned i = n; i < 16; i++)
            out[i] = (uint8_t)(next_random(seed) >> 24);
        if (decode_insn(out, 15, code32, &in) == DECODE_OK && in.info->cls != CLASS_UNAVAILABLE)
            return in.len;
    }
}

static void print_line(void *ctx, const char *text)
{
    (void)ctx;
    print_message("%s\n", text);
}

static void show(const struct vm_under_test *t, const struct ccf *ccf, bool cold)
{
    struct listing *l = listing_new();
    struct listing_pair pairs[CCF_MAX_INSNS];
    for (unsigned i = 0; i < ccf->ninsns; i++)
        pairs[i] = (struct listing_pair){ ccf->insns[i].guest_ofs,
                                          cold ? ccf->insns[i].cold_ofs : ccf->insns[i].hot_ofs };
    struct listing_block block = {
        .guest = t->ram + CODE_PA,
        .guest_len = ccf->guest_len,
        .guest_eip = ccf->key.eip,
        .code32 = ccf->key.mode & MODE_CODE32,
        .host = cold ? ccf->cold : ccf->hot,
        .host_len = cold ? ccf->cold_len : ccf->hot_len,
        .host_address = (uint64_t)(uintptr_t)(cold ? ccf->cold : ccf->hot),
        .pairs = pairs,
        .npairs = ccf->ninsns,
    };
    listing_print_block(l, &block, print_line, NULL);
    listing_free(l);
}

static void check(struct vm_under_test *t, const struct ccf *ccf)
{
    uint32_t entries[] = { ccf->verify_ofs, ccf->poll_ofs, ccf->body_ofs };
    struct verify_error err;
    struct verify_input in = {
        .hot = ccf->hot,
        .hot_len = ccf->hot_len,
        .hot_address = (uint64_t)(uintptr_t)ccf->hot,
        .cold = ccf->cold,
        .cold_len = ccf->cold_len,
        .cold_address = (uint64_t)(uintptr_t)ccf->cold,
        .entries = entries,
        .nentries = 3,
        .work = t->work,
        .allow_window = t->bt->opt.mem == MEM_WINDOW,
        .linear_window = t->bt->host.linear_window,
    };
    if (verify_ccf(&in, &err))
        return;
    show(t, ccf, false);
    print_message("cold:\n");
    show(t, ccf, true);
    fail_msg("%s +0x%x: %s", err.in_cold ? "cold" : "hot", err.ofs, err.reason);
}

static struct ccf *translate_random(struct vm_under_test *t, uint32_t mode, uint64_t *seed)
{
    uint8_t *code = t->ram + CODE_PA;
    unsigned n = 0, count = 1 + next_random(seed) % 8;
    struct ccf *ccf;

    for (unsigned i = 0; i < count; i++) {
        uint8_t insn[16];
        unsigned len = random_insn(seed, mode & MODE_CODE32, insn);
        memcpy(code + n, insn, len);
        n += len;
    }
    code[n++] = 0xc3;
    struct ccf_key key = { .pa = CODE_PA, .eip = 0x400000, .mode = mode };
    if (!(mode & MODE_CODE32))
        key.eip = 0x1000;
    t->cpu->mode = mode;
    bt_flush(t->cpu);
    assert_int_equal(bt_translate(t->bt, &key, gva(key.eip), NULL, &ccf), X86_OK);
    return ccf;
}

static void in_all_modes(const struct host_features *host, bool icount)
{
    static const uint32_t flat32 = MODE_CODE32 | MODE_STACK32 | MODE_ALL_FLAT | MODE_PROTECTED;
    const uint32_t modes[] = {
        flat32 | MODE_CPL0,
        flat32 | MODE_CPL3,
        flat32 | MODE_CPL0 | MODE_FPU_NM,
        flat32 | MODE_CPL3 | MODE_SSE_UD | MODE_WAIT_NM,
        flat32 | MODE_CPL0 | MODE_STEP,
        (flat32 & ~MODE_DS_FLAT) | MODE_CPL3,
        (flat32 & ~MODE_CS_FLAT) | MODE_CPL0,
        MODE_CODE32 | MODE_STACK32 | MODE_PROTECTED | MODE_CPL0,
        MODE_ALL_FLAT | MODE_PROTECTED | MODE_CPL0, /* 16-bit code */
        MODE_CPL0,
        MODE_VM86 | MODE_CPL3 | MODE_PROTECTED,
    };
    uint64_t seed = 0x2545f4914f6cdd1du;
    struct vm_under_test *t = make(host, icount);

    for (size_t m = 0; m < ARRAY_LEN(modes); m++)
        for (unsigned i = 0; i < TUS; i++)
            check(t, translate_random(t, modes[m], &seed));
    end(t);
}

static void translations_for_a_modern_host_pass(void **state)
{
    (void)state;
    in_all_modes(&(struct host_features){ .bmi2 = true, .lahf64 = true, .fsgsbase = true, .erms = true },
                 false);
}

static void translations_for_windows_at_0_pass(void **state)
{
    (void)state;
    in_all_modes(&(struct host_features){ .bmi2 = true, .lahf64 = true, .erms = true, .linear_window = true }, false);
}

static void translations_for_an_old_host_pass(void **state)
{
    (void)state;
    in_all_modes(&(struct host_features){ 0 }, false);
}

static void counting_translations_pass(void **state)
{
    (void)state;
    in_all_modes(&(struct host_features){ .bmi2 = true, .lahf64 = true }, true);
}

/* Translates `head`, `between` bytes that access nothing, `insn` and a RET. */
static void translate_apart(struct vm_under_test *t, uint32_t mode, unsigned head, unsigned between,
                            const uint8_t *insn, unsigned len)
{
    uint8_t *code = t->ram + CODE_PA, *p = code;
    struct ccf_key key = { .pa = CODE_PA, .eip = 0x400000, .mode = mode };
    struct ccf *ccf;

    for (; head; head >>= 8)
        *p++ = (uint8_t)head;
    for (unsigned left = between; left;
         left -= left < 5 ? 1 : 5) { /* MOV EDX, imm32 as far as they go, then NOP */
        *p = left < 5 ? 0x90 : 0xba;
        p += left < 5 ? 1 : 5;
    }
    memcpy(p, insn, len);
    p[len] = 0xc3;
    t->cpu->mode = mode;
    bt_flush(t->cpu);
    assert_int_equal(bt_translate(t->bt, &key, gva(key.eip), NULL, &ccf), X86_OK);
    if (between % 16 == 0)
        check(t, ccf);
}

/* The short jump to a slow way reaches it, however much code comes before the next look at the distance: over
 * each distance, from an access in the checked form and from STI before one in the window form, to each
 * opcode. */
static void slow_ways_are_in_reach(void **state)
{
    enum { LOAD = 0x068b, STI = 0xfb }; /* mov eax, [esi] */
    const struct host_features host = { .bmi2 = true, .lahf64 = true, .fsgsbase = true };
    const uint32_t flat = MODE_CODE32 | MODE_STACK32 | MODE_ALL_FLAT | MODE_PROTECTED | MODE_CPL0;

    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        bool in_window = kind & 1;
        struct vm_under_test *t = make(&host, false);

        t->bt->opt.max_insns = 32;
        t->bt->opt.mem = in_window ? MEM_WINDOW : MEM_CHECKED;
        assert_true(!in_window || mmu_window_open(t->cpu, VIEW_SUPERVISOR));
        for (unsigned opcode = 0; opcode < 0x200; opcode++) {
            unsigned forms = opcode == 0xff ? 16 : 1; /* calls and jumps by register and memory among them */
            for (unsigned form = 0; form < forms; form++) {
                uint8_t insn[16] = { 0x0f, 0, 0, 0x78, 0x56, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12 };
                uint8_t *at = insn + (opcode >= 0x100);
                struct insn in;

                at[0] = (uint8_t)opcode;
                at[1] = (uint8_t)((form & 1 ? 0xc1 : 0x81) | (forms > 1 ? form >> 1 : 2u) << 3);
                if (decode_insn(insn, 15, true, &in) != DECODE_OK || in.info->cls == CLASS_UNAVAILABLE)
                    continue;
                for (unsigned between = 0; between < 70; between++)
                    translate_apart(t, kind & 2 ? flat : flat & ~(uint32_t)MODE_CS_FLAT,
                                    in_window ? STI : LOAD, between, insn, in.len);
            }
        }
        end(t);
    }
}

/* The verifier reads hostile bytes too: whatever they are, it gives an answer. */
static void corrupted_translations_are_refused_or_harmless(void **state)
{
    const struct host_features host = { .bmi2 = true, .lahf64 = true };
    struct vm_under_test *t = make(&host, false);
    uint64_t seed = 0x9e3779b97f4a7c15u;
    unsigned refused = 0, tried = 0;

    (void)state;
    for (unsigned i = 0; i < TUS; i++) {
        uint8_t hot[4096];
        struct verify_error err;
        const struct ccf *ccf = translate_random(
            t, MODE_CODE32 | MODE_STACK32 | MODE_ALL_FLAT | MODE_PROTECTED | MODE_CPL0, &seed);
        struct verify_input in = {
            .hot = hot,
            .hot_len = ccf->hot_len,
            .hot_address = (uint64_t)(uintptr_t)ccf->hot,
            .cold = ccf->cold,
            .cold_len = ccf->cold_len,
            .cold_address = (uint64_t)(uintptr_t)ccf->cold,
            .work = t->work,
        };
        if (ccf->hot_len > sizeof(hot))
            continue;
        memcpy(hot, ccf->hot, ccf->hot_len);
        hot[next_random(&seed) % ccf->hot_len] ^= (uint8_t)(1u << (next_random(&seed) & 7));
        tried++;
        refused += !verify_ccf(&in, &err);
    }
    /* A flipped bit in an immediate or in the choice of a register changes no proof. */
    assert_true(tried > TUS / 2 && refused > tried / 4);
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(translations_for_a_modern_host_pass),
        cmocka_unit_test(translations_for_windows_at_0_pass),
        cmocka_unit_test(translations_for_an_old_host_pass),
        cmocka_unit_test(counting_translations_pass),
        cmocka_unit_test(slow_ways_are_in_reach),
        cmocka_unit_test(corrupted_translations_are_refused_or_harmless),
    };
    return cmocka_run_group_tests_name("bt verify translated", tests, NULL, NULL);
}
