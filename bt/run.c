/*
 * Finding, making and entering CCFs; what happens when translated code asks the way.
 *
 * Everything that is keyed by an address (jump table, shadow return stack) belongs to a
 * view and is good for its present fetch mappings and mode. When either changes, or when
 * CCFs were dropped, the stacks are cut: the next return finds the sentinels above the
 * top, and goes by the jump table.
 */
#include "base/assert.h"
#include "base/log.h"
#include "base/string.h"
#include "bt/bt_internal.h"
#include "bt/verify.h"
#include "mmu/window.h"

_Static_assert(VIEW_JT_OFS == 0x2000000u, "world.S: BT_JT_OFS");
_Static_assert(EXIT_FAULT == 2 && EXIT_CHAIN == 3 && EXIT_LOOKUP == 4 && EXIT_HOST == 8, "world.S");

#define WORLD_DECLARE(suffix) \
    enum exit_reason world_enter_##suffix(struct vcpu *cpu, const uint8_t *code); \
    void world_exit_##suffix(void); \
    void world_chain_##suffix(void); \
    void world_jt_miss_##suffix(void); \
    void world_callout_##suffix(void); \
    void world_mem_slow_##suffix(void); \
    void world_mem_done_##suffix(void); \
    void world_host_signal_##suffix(void);
WORLD_DECLARE(lahf)
WORLD_DECLARE(pushf)
void world_jt_probe(void);
void world_ret_underflow(void);

#define WORLD_STUBS(suffix) \
    { .exit = world_exit_##suffix, .chain = world_chain_##suffix, .jt_miss = world_jt_miss_##suffix, \
      .callout = world_callout_##suffix, .mem_slow = world_mem_slow_##suffix, \
      .mem_done = world_mem_done_##suffix, .host_signal = world_host_signal_##suffix, \
      .enter = world_enter_##suffix }
static const struct world_stubs stubs_lahf = WORLD_STUBS(lahf), stubs_pushf = WORLD_STUBS(pushf);

static uint64_t address_of(void (*stub)(void))
{
    return (uint64_t)(uintptr_t)stub;
}

/* ---- making and freeing ------------------------------------------------------------------- */

/*  low                                            high
 *  | guard page | ... shadow stack ... | sentinels |
 *                                      ^ top              */
static bool stacks_init(struct bt *bt)
{
    size_t bytes = GUEST_PAGE_SIZE + SHADOW_STACK_BYTES + GUEST_PAGE_SIZE;

    for (int v = 0; v < 2; v++) {
        bt->stack[v] = platform_reserve(bytes);
        if (!bt->stack[v])
            return false;
        platform_guard(bt->stack[v], GUEST_PAGE_SIZE);
        uint64_t *top = (uint64_t *)(void *)(bt->stack[v] + GUEST_PAGE_SIZE + SHADOW_STACK_BYTES);
        for (unsigned i = 0; i < SHADOW_SENTINELS; i++)
            top[i] = address_of(world_ret_underflow);
        bt->stack_top[v] = bt->stack_rsp[v] = (uint64_t)(uintptr_t)top;
    }
    return true;
}

static void stacks_free(struct bt *bt)
{
    for (int v = 0; v < 2; v++)
        if (bt->stack[v])
            platform_release(bt->stack[v], 2 * GUEST_PAGE_SIZE + SHADOW_STACK_BYTES);
}

static void set_stubs(struct bt *bt)
{
    struct vcpu *cpu = bt->cpu;
    const struct world_stubs *s = bt->stubs;

    cpu->stub_exit = address_of(s->exit);
    cpu->stub_chain = address_of(s->chain);
    cpu->stub_jt_miss = address_of(s->jt_miss);
    cpu->stub_callout = address_of(s->callout);
    cpu->stub_mem_slow = address_of(s->mem_slow);
    cpu->stub_mem_done = address_of(s->mem_done);
    cpu->stub_jt_probe = address_of(world_jt_probe);
}

static void on_trace_add(void *ctx, gpa_t pa)
{
    struct bt *bt = ctx;

    if (!policy_checks(bt, gpa_page(pa)))
        mmu_trace_add(bt->cpu->mmu, pa);
}

static void on_trace_remove(void *ctx, gpa_t pa)
{
    struct bt *bt = ctx;

    mmu_trace_remove(bt->cpu->mmu, pa);
}

static void on_changed(void *ctx, const struct ccf *ccf, unsigned insn)
{
    policy_ccf_changed(ctx, ccf, insn);
}

static void on_moved(void *ctx, const struct ccf *ccf)
{
    reuse_moved(ctx, ccf);
}

static struct tcache *make_cache(struct bt *bt)
{
    struct mmu *mmu = bt->cpu->mmu;
    struct tcache_config config = {
        .bytes = bt->opt.tc_bytes < TCACHE_MIN_BYTES ? TCACHE_MIN_BYTES : bt->opt.tc_bytes,
        .jt_miss_stub = (const uint8_t *)(uintptr_t)bt->cpu->stub_jt_miss,
        .jump_table = { mmu_view_base(mmu, VIEW_SUPERVISOR) + VIEW_JT_OFS, mmu_view_base(mmu, VIEW_USER) + VIEW_JT_OFS },
        .ctx = bt,
        .trace_add = on_trace_add,
        .trace_remove = on_trace_remove,
        .changed = on_changed,
        .moved = on_moved,
    };

    return tcache_new(bt->cpu, &config);
}

struct bt *bt_new(struct vcpu *cpu, const struct bt_options *options, const struct host_features *host,
                  const struct bt_ops *ops)
{
    size_t bytes = (sizeof(struct bt) + GUEST_PAGE_MASK) & ~(size_t)GUEST_PAGE_MASK;
    struct bt *bt = platform_reserve(bytes);

    if (!bt)
        return NULL;
    bt->reserve_bytes = bytes;
    bt->cpu = cpu;
    bt->opt = *options;
    bt->host = *host;
    bt->ops = *ops;
    bt->stubs = host->lahf64 ? &stubs_lahf : &stubs_pushf;
    if (bt->opt.max_insns == 0 || bt->opt.max_insns > CCF_MAX_INSNS)
        bt->opt.max_insns = CCF_MAX_INSNS;
    if (bt->opt.icount) {
        bt->opt.max_insns = 1;
        if (bt->opt.mem == MEM_ADAPTIVE) /* samples come by the host's clock */
            bt->opt.mem = MEM_CHECKED;
    }
    set_stubs(bt);
    cpu->no_shortcuts = bt->opt.callouts_only;
    cpu->bt = bt;
    cpu->tc = make_cache(bt);
    if (bt->opt.coherency == COHERENCY_ADAPTIVE || bt->opt.coherency == COHERENCY_CHECK) {
        bt->check_page_bytes = ((mmu_ram_bytes(cpu->mmu) >> GUEST_PAGE_SHIFT) / 8 + GUEST_PAGE_MASK) &
                               ~(uint64_t)GUEST_PAGE_MASK;
        bt->check_page = platform_reserve(bt->check_page_bytes);
    }
    if (bt->opt.verify)
        bt->verify_work = platform_reserve(verify_work_bytes());
    if (bt->opt.verify && bt->opt.reuse)
        bt->fresh = platform_reserve(REUSE_FRESH_BYTES);
    if (!cpu->tc || !stacks_init(bt) || (bt->opt.verify && (!bt->verify_work || (bt->opt.reuse && !bt->fresh))) ||
        (bt->check_page_bytes && !bt->check_page)) {
        bt_free(bt);
        return NULL;
    }
    cpu->shadow_rsp = cpu->shadow_top = bt->stack_top[0];
    mmu_select_view(cpu);
    return bt;
}

void bt_free(struct bt *bt)
{
    if (!bt)
        return;
    tcache_free(bt->cpu->tc);
    stacks_free(bt);
    if (bt->verify_work)
        platform_release(bt->verify_work, verify_work_bytes());
    if (bt->fresh)
        platform_release(bt->fresh, REUSE_FRESH_BYTES);
    if (bt->check_page)
        platform_release(bt->check_page, bt->check_page_bytes);
    bt->cpu->tc = NULL;
    bt->cpu->bt = NULL;
    platform_release(bt, bt->reserve_bytes);
}

/* ---- what signal handlers and the monitor ask ------------------------------------------------ */

bool bt_contains(const struct bt *bt, uint64_t host_rip)
{
    const uint8_t *lo, *hi;

    tcache_range(bt->cpu->tc, &lo, &hi);
    return host_rip >= (uint64_t)(uintptr_t)lo && host_rip < (uint64_t)(uintptr_t)hi;
}

uint64_t bt_signal_stub(const struct bt *bt)
{
    return address_of(bt->stubs->host_signal);
}

bool bt_locate(struct vcpu *cpu)
{
    const uint8_t *rip = (const uint8_t *)(uintptr_t)cpu->host_rip;
    struct ccf *ccf = tcache_find_rip(cpu->tc, rip);

    if (!ccf)
        return false;
    unsigned index = ccf_insn_at(ccf, rip);
    cpu->eip = ccf->key.eip + ccf->insns[index].guest_ofs;
    x87_resolve(cpu->bt, ccf, index);
    return true;
}

/* ---- what makes translations and transfers invalid -------------------------------------------- */

static void cut_stack(struct bt *bt, unsigned view)
{
    bt->stack_rsp[view] = bt->stack_top[view];
    if (view == bt->view)
        bt->cpu->shadow_rsp = bt->stack_top[view];
    STAT_INC(bt->cpu, shadow_cut);
}

void bt_cut_returns(struct vcpu *cpu)
{
    cut_stack(cpu->bt, 0);
    cut_stack(cpu->bt, 1);
}

void bt_fetch_dropped_all(struct vcpu *cpu, enum mmu_view_id view, bool keep_global)
{
    if (!cpu->bt)
        return;
    tcache_jt_drop_all(cpu->tc, view, keep_global);
    if (view == VIEW_SUPERVISOR && !keep_global)
        tcache_unchain_far(cpu->tc, gva(0), 1ull << 32);
    cut_stack(cpu->bt, view);
}

void bt_fetch_dropped_range(struct vcpu *cpu, enum mmu_view_id view, gva_t va, uint32_t bytes)
{
    if (!cpu->bt)
        return;
    tcache_jt_drop_range(cpu->tc, view, va, bytes);
    if (view == VIEW_SUPERVISOR)
        tcache_unchain_far(cpu->tc, va, bytes);
    cut_stack(cpu->bt, view);
}

static unsigned code_written(struct vcpu *cpu, gpa_t pa, uint32_t len, bool is_moved)
{
    unsigned touched = 0;

    while (len) {
        uint32_t n = min_u32(len, GUEST_PAGE_SIZE - ((uint32_t)pa.v & GUEST_PAGE_MASK));
        hva_t now = is_moved ? (hva_t){ NULL } : mmu_ram_ptr(cpu->mmu, pa);
        struct event_tally before = event_tally(cpu->bt);
        unsigned hit = tcache_written(cpu->tc, pa, now.p, n, DROP_WRITE);
        if (!is_moved) {
            event_written(cpu->bt, pa, n, &before);
            policy_count_store(cpu->bt, gpa_page(pa), hit != 0);
        } else if (hit) {
            event_note(cpu->bt, CAUSE_MOVED, pa, n, &before);
        }
        touched += hit;
        cpu->code_stores += hit != 0;
        pa.v += n;
        len -= n;
    }
    return touched;
}

void bt_code_written(struct vcpu *cpu, gpa_t pa, uint32_t len)
{
    if (cpu->tc && !code_written(cpu, pa, len, false))
        STAT_INC(cpu, traced_store_false);
}

void bt_code_moved(struct vcpu *cpu, gpa_t pa, uint32_t len)
{
    if (cpu->tc)
        code_written(cpu, pa, len, true);
}

void bt_flush(struct vcpu *cpu)
{
    tcache_flush(cpu->tc);
    bt_cut_returns(cpu);
}

/* ---- instruction breakpoints ------------------------------------------------------------------- */

/*
 * A page with a breakpoint is looked up under the mode of single-stepping: its CCFs are one instruction
 * each, are reached by the dispatcher only and go back to it, so that find() sees every instruction. Its
 * usual CCFs stay, for when the breakpoint is gone, but nothing may lead to them now.
 */
static bool is_break_page(const struct bt *bt, gva_t va)
{
    for (unsigned i = 0; i < bt->nbreaks; i++)
        if (bt->break_page[i] == gva_page(va))
            return true;
    return false;
}

void bt_break_pages(struct vcpu *cpu, const uint32_t *vpn, unsigned n)
{
    struct bt *bt = cpu->bt;

    ASSERT(n <= BT_BREAK_MAX);
    if (!bt)
        return;
    bt->nbreaks = n;
    for (unsigned i = 0; i < n; i++) {
        bt->break_page[i] = vpn[i];
        for (unsigned v = 0; v < VIEW_COUNT; v++)
            bt_fetch_dropped_range(cpu, v, gva(vpn[i] << GUEST_PAGE_SHIFT), GUEST_PAGE_SIZE);
    }
}

void bt_leave_after_insn(struct vcpu *cpu)
{
    if (cpu->bt)
        cpu->bt->generation = tcache_generation(cpu->tc) - 1; /* as if its CCF were gone */
}

/* ---- finding ------------------------------------------------------------------------------------ */

/* A straddling CCF is good only where its second page is mapped as it was. */
static enum x86_rc check_second_page(struct bt *bt, gva_t va, struct ccf **ccf)
{
    gva_t second = gva((va.v | GUEST_PAGE_MASK) + 1);
    bool is_global;
    gpa_t pa;

    if ((*ccf)->pfn2 == CCF_ONE_PAGE)
        return X86_OK;
    enum x86_rc rc = mmu_fetch(bt->cpu, second, &pa, &is_global);
    if (rc == X86_OK && gpa_page(pa) != (*ccf)->pfn2) {
        tcache_drop(bt->cpu->tc, *ccf, DROP_EVICT);
        *ccf = NULL;
    }
    return rc;
}

/* What leads to the gate is to go on to the instruction as it is now. */
static enum x86_rc open_gate(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf *gate)
{
    hva_t p = mmu_ram_ptr(bt->cpu->mmu, gpa(key->pa));
    struct ccf *version;

    if (p.p && tcache_gate_open(bt->cpu->tc, gate, p.p, GUEST_PAGE_SIZE - ((uint32_t)key->pa & GUEST_PAGE_MASK)))
        return X86_OK;
    STAT_INC(bt->cpu, coherency_retranslated);
    return bt_translate(bt, key, va, gate, &version);
}

/* Make what is at key, unless it is there already; a gate leads to something when it is returned. */
static enum x86_rc make(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf **ccf)
{
    enum x86_rc rc = X86_OK;

    for (;; *ccf = NULL) { /* making a version may evict its gate */
        if (!*ccf) {
            STAT_INC(bt->cpu, tc_lookup_miss);
            policy_count_made(bt, key->pa >> GUEST_PAGE_SHIFT);
            if (!split_is_at(bt, key, 0))
                return bt_translate(bt, key, va, NULL, ccf);
            *ccf = bt_translate_gate(bt, key);
        }
        if ((*ccf)->is_gate && !(*ccf)->links[0].to)
            rc = open_gate(bt, key, va, *ccf);
        if (rc != X86_RETRY)
            return rc;
    }
}

/* The CCF for cpu->eip under the present mode, made if need be. *is_global: its mapping outlives a
 * CR3 load. */
static enum x86_rc find(struct bt *bt, struct ccf **out, bool *is_global)
{
    struct vcpu *cpu = bt->cpu;
    const struct segment *cs = &cpu->segs[SEG_CS];
    gva_t va = gva(cs->base + cpu->eip);
    uint32_t mode = bt->key_mode;
    enum x86_rc rc;
    gpa_t pa;

    if (__builtin_expect(bt->nbreaks != 0, 0) && is_break_page(bt, va)) { /* comes before faults of the fetch */
        rc = cpu->resumes ? X86_OK : bt->ops.check_breakpoint(cpu, va);
        if (rc != X86_OK)
            return rc;
        mode = (mode & ~MODE_WINDOW) | MODE_STEP;
    }
    if (!(cpu->mode & MODE_CS_FLAT) && cpu->eip > cs->limit)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    rc = mmu_fetch(cpu, va, &pa, is_global);
    if (rc != X86_OK)
        return rc;
    struct ccf_key key = { .pa = pa.v, .eip = cpu->eip, .cs_base = cs->base, .mode = mode,
                           .cs_limit = cpu->mode & MODE_CS_FLAT ? 0 : cs->limit };
    *out = tcache_lookup(cpu->tc, &key);
    if (*out && !prelude_holds(bt, *out)) {
        struct event_tally before = event_tally(bt);
        uint32_t len = (*out)->guest_len;
        tcache_drop(cpu->tc, *out, DROP_WRITE);
        event_note(bt, CAUSE_STALE, pa, len, &before);
        policy_count_stale(bt, gpa_page(pa));
        *out = NULL;
    }
    if (*out) {
        rc = check_second_page(bt, va, out);
        if (rc != X86_OK)
            return rc;
    }
    rc = make(bt, &key, va, out);
    if (rc != X86_OK)
        return rc;
    if ((*out)->pfn2 != CCF_ONE_PAGE)
        *is_global = false; /* the second page may not be */
    return X86_OK;
}

/* ---- running -------------------------------------------------------------------------------------- */

/* Landings compare EIPs: they are good in the code segment alone that they were made in. */
static void sync_code_segment(struct bt *bt, unsigned view)
{
    const struct segment *cs = &bt->cpu->segs[SEG_CS];

    if (bt->code_base[view] == cs->base && bt->code_limit[view] == cs->limit)
        return;
    bt->code_base[view] = cs->base;
    bt->code_limit[view] = cs->limit;
    cut_stack(bt, view);
}

void bt_sync_view(struct bt *bt)
{
    struct vcpu *cpu = bt->cpu;
    unsigned view = cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR;

    if (view != bt->view) {
        bt->stack_rsp[bt->view] = cpu->shadow_rsp;
        bt->view = view;
        cpu->shadow_rsp = bt->stack_rsp[view];
        cpu->shadow_top = bt->stack_top[view];
    }
    mmu_select_view(cpu);
    form_sync(bt);
    if (!(cpu->mode & MODE_STEP) && bt->view_mode[view] != bt->key_mode) {
        bt->view_mode[view] = bt->key_mode;
        tcache_jt_drop_all(cpu->tc, view, false);
        cut_stack(bt, view);
    }
    if (!(cpu->mode & MODE_CS_FLAT))
        sync_code_segment(bt, view);
}

enum x86_rc bt_translate_at(struct vcpu *cpu, unsigned max_insns, struct ccf **out)
{
    struct bt *bt = cpu->bt;
    unsigned usual = bt->opt.max_insns;
    bool is_global;

    if (max_insns && max_insns < usual)
        bt->opt.max_insns = max_insns;
    bt_sync_view(bt);
    enum x86_rc rc = find(bt, out, &is_global);
    bt->opt.max_insns = usual;
    return rc;
}

static void sync_generation(struct bt *bt)
{
    uint64_t now = tcache_generation(bt->cpu->tc);

    if (now != bt->generation) {
        bt->generation = now;
        bt_cut_returns(bt->cpu);
    }
}

static bool uses_jump_table(const struct ccf *ccf)
{
    return ccf->key.mode & MODE_CS_FLAT && !(ccf->key.mode & MODE_STEP);
}

/* An unchained exit led to `to`: patch it if `to` is found under the same conditions. */
static void chain(struct bt *bt, uint32_t handle, struct ccf *to, bool is_global)
{
    struct ccf_link *link = tcache_link(bt->cpu->tc, handle);

    if (!bt->opt.chain || !link->owner->live || link->target_eip != to->key.eip ||
        link->owner->key.mode != to->key.mode || link->owner->key.cs_base != to->key.cs_base ||
        link->owner->key.cs_limit != to->key.cs_limit)
        return;
    uint32_t from_va = to->key.cs_base + link->owner->key.eip, to_va = to->key.cs_base + to->key.eip;
    bool is_near = link->owner->key.pa >> GUEST_PAGE_SHIFT == to->key.pa >> GUEST_PAGE_SHIFT &&
                   (from_va ^ to_va) < GUEST_PAGE_SIZE;
    if (to->pfn2 == CCF_ONE_PAGE && is_near) {
        tcache_chain(bt->cpu->tc, link, to);
    } else if (!(to->key.mode & MODE_CS_FLAT)) {
        return; /* far chains and the jump table go by EIP as an address */
    } else if (to->pfn2 == CCF_ONE_PAGE && is_global && bt->view == VIEW_SUPERVISOR) {
        tcache_chain_far(bt->cpu->tc, link, to);
    } else {
        tcache_chain_by_table(bt->cpu->tc, link);
        tcache_jt_fill(bt->cpu->tc, bt->view, to, is_global);
    }
}

/* Run; misses of the window are served here, and the instruction goes on. */
static enum exit_reason enter(struct bt *bt, const uint8_t *code)
{
    struct vcpu *cpu = bt->cpu;

    for (;;) {
        if (bt->view == VIEW_USER) /* a page of code just translated is writable no more */
            mmu_window_sync(cpu);
        bt->is_inside = true;
        enum exit_reason reason = bt->stubs->enter(cpu, code);
        bt->is_inside = false;
        cpu->stats.exit[reason]++;
        STAT_INC(cpu, exit_total);
        if (reason != EXIT_HOST)
            return reason;
        code = form_window_miss(bt);
        if (!code)
            return reason;
        if (tcache_generation(cpu->tc) != bt->generation) { /* what was running may be no more */
            cpu->icount_left++; /* clock=insn: it is one instruction all the same */
            return EXIT_POLL;
        }
    }
}

/* User code goes from page to page by the table, which each CR3 load empties: bring the page's
 * other CCFs back as well, unless this one has only lost its slot to another. */
static void fill_jump_table(struct bt *bt, struct ccf *ccf, bool is_global)
{
    const struct ccf_key *key = &ccf->key;

    if (bt->view == VIEW_USER && tcache_jt_is_empty(bt->cpu->tc, VIEW_USER, key->eip))
        tcache_jt_warm(bt->cpu->tc, VIEW_USER, key->eip >> GUEST_PAGE_SHIFT, key->pa >> GUEST_PAGE_SHIFT, key->mode,
                       is_global);
    tcache_jt_fill(bt->cpu->tc, bt->view, ccf, is_global);
}

enum exit_reason bt_run(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    struct tcache *tc = cpu->tc;
    bool is_global;
    struct ccf *ccf;

    cpu->mem_bounced = 0;
    bt_sync_view(bt);
    if (find(bt, &ccf, &is_global) != X86_OK)
        return EXIT_FAULT;
    for (;;) {
        sync_generation(bt);
        LOG(cpu->log, exec, "exec EIP 0x%08x mode 0x%05x esp 0x%08x\n", cpu->eip, cpu->mode, cpu->gpr[ESP]);
        enum exit_reason reason = enter(bt, ccf->hot + ccf->body_ofs);
        if (reason != EXIT_CHAIN && reason != EXIT_LOOKUP)
            return reason;
        if (cpu->mode & MODE_STEP)
            return EXIT_DISPATCH;
        if (bt->opt.icount && cpu->icount_left < 0) /* what is due comes before the next fetch */
            return EXIT_POLL;

        uint64_t before = tcache_generation(tc);
        uint32_t handle = cpu->exit_arg;
        if (find(bt, &ccf, &is_global) != X86_OK)
            return EXIT_FAULT;
        if (reason == EXIT_CHAIN && before == tcache_generation(tc))
            chain(bt, handle, ccf, is_global);
        if (reason == EXIT_LOOKUP) {
            STAT_INC(cpu, jt_miss);
            if (uses_jump_table(ccf))
                fill_jump_table(bt, ccf, is_global);
        }
        if (!cpu->run)
            return EXIT_POLL;
    }
}
