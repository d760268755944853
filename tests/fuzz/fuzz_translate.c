/*
 * Fuzzer of the translator: any bytes as guest code, in any mode of the processor and for any
 * kind of host. Nothing is run (fuzz_guest.c runs). Of every CCF that comes out it is required
 * that
 *  - the verifier proves it;
 *  - the instructions it records are those the decoder finds, and host addresses lead back to
 *    them in ascending order;
 *  - making it did not touch what was made before;
 *  - the same bytes in the same mode give the same code again.
 */
#include <string.h>

#include "base/log.h"
#include "bt/bt_internal.h"
#include "bt/verify.h"
#include "mmu/window.h"
#include "tests/fuzz/input.h"
#include "tests/support/bare_mmu.h"

#define RAM_BYTES (64u << 10)
#define CODE_PAGE 0x8000u /* the code lies in this page and the next */
#define TUS_MAX   24u

struct engine {
    struct vcpu *cpu;
    uint8_t *ram;
    struct log log;
    struct bt *bt;
    const uint8_t *home; /* the first region */
};

struct made {
    struct ccf_key key;
    uint32_t sum;
    struct ccf *ccf;
};

static struct verify_work *work;

/* ---- an engine without a machine -------------------------------------------------------- */

static struct engine *engine_new(unsigned host, bool icount)
{
    struct engine *e = calloc(1, sizeof *e);
    struct host_features features = { .bmi2 = host & 1, .lahf64 = host & 2, .fsgsbase = true, .erms = true };
    struct bt_options options = {
        .tc_bytes = TCACHE_MIN_BYTES, .chain = true, .reuse = true, .mem = MEM_WINDOW, .icount = icount
    };
    struct bt_ops ops = { .features = UINT32_MAX };

    REQUIRE(e);
    e->ram = platform_reserve(RAM_BYTES);
    e->cpu = platform_reserve(sizeof *e->cpu);
    e->cpu->log = &e->log;
    vcpu_reset(e->cpu);
    e->cpu->mmu =
        mmu_new(e->cpu, &(struct mmu_config){ .ram = e->ram, .ram_bytes = RAM_BYTES, .ops = bare_mmu_ops });
    REQUIRE(e->cpu->mmu);
    e->bt = bt_new(e->cpu, &options, &features, &ops);
    REQUIRE(e->bt);
    return e;
}

/* ---- the processor's state ----------------------------------------------------------------- */

static struct segment any_segment(unsigned how, bool is_code)
{
    static const uint32_t limits[] = { UINT32_MAX, 0xffff, 0x8123, 0xfff };
    unsigned attr = DESC_P | DESC_S | DESC_ACCESSED | (is_code ? DESC_CODE | DESC_READ : DESC_WRITE);
    struct segment s = { .sel = 0x10 };

    if (how & 0x80)
        attr ^= DESC_P & (is_code ? 0 : ~0u);
    if (how & 0x40)
        attr ^= DESC_WRITE; /* READ of a code segment: the same bit */
    if (how & 0x20)
        attr ^= DESC_DOWN & (is_code ? 0 : ~0u);
    if (!(how & 0x10))
        attr |= DESC_DB;
    s.base = how & 4 ? 0x1234567u : how & 8 ? 0x10u : 0;
    s.limit = limits[how & 3];
    if (s.limit == UINT32_MAX)
        attr |= DESC_G;
    s.attr = (uint16_t)attr;
    return s;
}

static void set_state(struct vcpu *cpu, struct input *in)
{
    unsigned rights = take8(in), control = take8(in);

    cpu->cr0 = (rights & 1 ? 0 : CR0_PE) | (control & 1 ? CR0_TS : 0) | (control & 2 ? CR0_EM : 0) |
               (control & 4 ? CR0_MP : 0) | (control & 8 ? CR0_AM : 0) | CR0_ET;
    cpu->cr4 = (control & 16 ? 0 : CR4_OSFXSR) | (control & 32 ? CR4_DE | CR4_VME | CR4_PVI : 0);
    vcpu_eflags_set(cpu, (control & 64 ? EFL_AC : 0) | (control & 128 ? EFL_TF : 0) | EFL_ONE |
                             (rights & 64 ? EFL_IOPL : 0) | (rights & 32 ? EFL_VM : 0));
    cpu->cpl = rights >> 1 & 3;
    for (int i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = any_segment(take8(in), i == SEG_CS);
    if (!(cpu->cr0 & CR0_PE)) {
        cpu->cpl = 0;
        cpu->eflags_sys &= ~EFL_VM;
    } else if (cpu->eflags_sys & EFL_VM) {
        cpu->cpl = 3;
        for (int i = 0; i < SEG_COUNT; i++)
            cpu->segs[i] = (struct segment){
                .sel = (uint16_t)(0x700 + i),
                .base = 0x7000u + 16u * (unsigned)i,
                .limit = 0xffff,
                .attr = DESC_P | DESC_DPL | DESC_S | DESC_WRITE | DESC_ACCESSED,
            };
    }
    cpu->segs[SEG_CS].base &= 0xfff; /* the code is where the RAM is */
    cpu->mode = 0;
    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
}

/* ---- what must hold of a CCF --------------------------------------------------------------------- */

static uint32_t checksum(const struct ccf *ccf)
{
    uint32_t sum = ccf->hot_len * 31 + ccf->cold_len;

    for (uint32_t i = 0; i < ccf->hot_len; i++)
        sum = sum * 16777619u ^ ccf->hot[i];
    for (uint32_t i = 0; i < ccf->cold_len; i++)
        sum = sum * 16777619u ^ ccf->cold[i];
    return sum;
}

static void check_verified(const struct engine *e, const struct ccf *ccf)
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
        .work = work,
        .allow_window = e->bt->xl.use_window,
    };
    bool ok = verify_ccf(&in, &err);

    REQUIRE(ok, "%s part +0x%x: %s; mode 0x%x, EIP 0x%x", err.in_cold ? "cold" : "hot", err.ofs, err.reason,
            ccf->key.mode, ccf->key.eip);
}

/* Each instruction is as long as the decoder says; the last record may stand for bytes that are none. */
static void check_records(const struct engine *e, const struct ccf *ccf)
{
    REQUIRE(ccf->ninsns >= 1 && ccf->ninsns <= CCF_MAX_INSNS && ccf->nlinks <= CCF_MAX_LINKS);
    REQUIRE(ccf->insns[0].guest_ofs == 0);
    for (unsigned i = 0; i < ccf->ninsns; i++) {
        const struct ccf_insn *insn = &ccf->insns[i], *next = insn + 1;
        struct insn in;

        REQUIRE(insn->hot_ofs <= ccf->hot_len && insn->cold_ofs <= ccf->cold_len);
        if (i + 1 == ccf->ninsns)
            break;
        REQUIRE(next->guest_ofs > insn->guest_ofs && next->guest_ofs < ccf->guest_len);
        REQUIRE(next->hot_ofs >= insn->hot_ofs && next->cold_ofs >= insn->cold_ofs);
        REQUIRE(decode_insn(e->ram + ccf->key.pa + insn->guest_ofs, RAM_BYTES - ccf->key.pa - insn->guest_ofs,
                            ccf->key.mode & MODE_CODE32, &in) == DECODE_OK);
        REQUIRE(in.len == next->guest_ofs - insn->guest_ofs);
    }
    for (unsigned i = 0; i < ccf->nlinks; i++)
        REQUIRE(ccf->links[i].patch_ofs + 4 <= ccf->hot_len &&
                ccf->links[i].unchained_ofs < ccf->cold_len && ccf->links[i].table_ofs < ccf->cold_len);
}

static void check_rip_map(const struct ccf *ccf)
{
    unsigned last = 0;

    for (uint32_t ofs = 0; ofs < ccf->tail_ofs; ofs++) {
        unsigned i = ccf_insn_at(ccf, ccf->hot + ofs);
        REQUIRE(i >= last && i < ccf->ninsns, "hot +0x%x: instruction %u after %u", ofs, i, last);
        last = i;
    }
    last = 0;
    for (uint32_t ofs = 0; ofs < ccf->cold_len; ofs++) {
        unsigned i = ccf_insn_at(ccf, ccf->cold + ofs);
        REQUIRE(i >= last && i < ccf->ninsns, "cold +0x%x: instruction %u after %u", ofs, i, last);
        last = i;
    }
}

/* ---- one run through the input's code -------------------------------------------------------------- */

/* An empty cache that begins at the same region each time: the region is part of what is emitted. */
static void empty_cache(struct engine *e)
{
    struct tcache_room room;

    bt_flush(e->cpu);
    for (tcache_room(e->cpu->tc, &room); e->home && room.hot != e->home; tcache_room(e->cpu->tc, &room))
        tcache_next_region(e->cpu->tc);
    e->home = room.hot;
}

/* Translate TU after TU; -> how many. What was made earlier stays as it is while it lives. */
static unsigned translate_all(struct engine *e, uint32_t eip, uint32_t end_eip, struct made *made)
{
    uint32_t cs_base = e->cpu->segs[SEG_CS].base;
    unsigned n = 0;

    empty_cache(e);
    while (n < TUS_MAX && eip < end_eip) {
        struct made *m = &made[n];
        gva_t va = gva(cs_base + eip);
        struct segment cs = e->cpu->segs[SEG_CS];

        m->key = (struct ccf_key){ .pa = va.v,
                                   .eip = eip,
                                   .cs_base = cs_base,
                                   .mode = e->cpu->mode | (e->cpu->cpl == 3 ? MODE_WINDOW : 0),
                                   .cs_limit = e->cpu->mode & MODE_CS_FLAT ? 0 : cs.limit };
        if (bt_translate(e->bt, &m->key, va, NULL, &m->ccf) != X86_OK)
            break;
        check_verified(e, m->ccf);
        check_records(e, m->ccf);
        check_rip_map(m->ccf);
        m->sum = checksum(m->ccf);
        for (unsigned i = 0; i < n; i++)
            REQUIRE(!made[i].ccf->live || checksum(made[i].ccf) == made[i].sum, "CCF %u was changed by %u", i,
                    n);
        eip += m->ccf->guest_len;
        n++;
        if (!m->ccf->guest_len)
            break;
    }
    REQUIRE(tcache_audit(e->cpu->tc) == 0);
    return n;
}

static struct engine *engine_for(unsigned host, bool icount)
{
    static struct engine *engines[8];
    unsigned which = (host & 3) | (icount ? 4u : 0);

    if (!engines[which])
        engines[which] = engine_new(host, icount);
    if (!work)
        work = malloc(verify_work_bytes());
    REQUIRE(work);
    return engines[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t tu_sizes[] = { 64, 1, 4, 16 };
    static struct made first[TUS_MAX], second[TUS_MAX];
    struct input in = { data, data + size };
    unsigned config = take8(&in), place = take8(&in);

    if (size < 12)
        return 0;
    struct engine *e = engine_for(config, config & 4);
    if (!e->bt->opt.icount)
        e->bt->opt.max_insns = tu_sizes[config >> 3 & 3];
    e->bt->opt.mem = config & 32 ? MEM_WINDOW : MEM_CHECKED;
    set_state(e->cpu, &in);
    if (e->bt->opt.mem == MEM_WINDOW)
        mmu_window_open(e->cpu, e->cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR);

    /* Near the end of a page, so that instructions straddle it, or at its start. */
    uint32_t left = (uint32_t)(in.end - in.p);
    uint32_t pa = CODE_PAGE + (place & 1 ? GUEST_PAGE_SIZE - place / 2 : place / 2);
    memset(e->ram + CODE_PAGE, 0x90, 2 * GUEST_PAGE_SIZE);
    left = min_u32(left, GUEST_PAGE_SIZE);
    memcpy(e->ram + pa, in.p, left);

    uint32_t eip = pa - e->cpu->segs[SEG_CS].base;
    unsigned n = translate_all(e, eip, eip + left, first);
    unsigned again = translate_all(e, eip, eip + left, second);
    REQUIRE(n == again);
    for (unsigned i = 0; i < n; i++)
        REQUIRE(first[i].sum == second[i].sum && !memcmp(&first[i].key, &second[i].key, sizeof first[i].key),
                "TU %u at EIP 0x%x differs the second time", i, first[i].key.eip);
    return 0;
}
