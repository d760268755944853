/*
 * Which form of memory access a CCF gets, and how code moves between the two.
 *
 * The *checked form* needs nothing from the host and is where all code starts. The *window
 * form* runs the operand as it stands, but each page that it meets for the first time costs
 * a host signal and a mapping call, 15,000 cycles or so. A timer samples where translated
 * code runs:
 *
 *   checked --(user: an address space is sampled SPACE_HOT times; it gets a window, and its
 *              code is keyed apart, by MODE_WINDOW)---------------------------> window
 *   checked --(kernel: a page of code has PAGE_HOT of PAGE_SPAN samples in a row; the
 *              kernel has one window, and each CCF its own form)----------------> window
 *   window  --(an address space makes more host calls than CALLS_PER_SAMPLE for each sample:
 *              its window is given up, and it needs SPACE_PATIENCE times as many samples for
 *              the next)-------------------------------------------------------> checked
 *   window  --(a CCF misses more often than its share of the run time can pay
 *              for: MISS_FREE, and MISS_PER_SAMPLE for each sample)-----------> checked
 *   checked --(such a CCF is sampled SITE_PATIENCE times, doubled each time)---> window
 *
 * A sample stands for a millisecond of run time, so MISS_PER_SAMPLE bounds what misses may
 * cost to about a fifth of it. What was decided is remembered by the PA of the TU.
 *
 * A window begins empty. To bring in what a program works on is paid once, by the samples that it took
 * until there was a window (CALLS_PER_WAIT): a CCF is not blamed when it is the one that meets a page first,
 * or when the guest's kernel has yet to supply it.
 */
#include "base/log.h"
#include "bt/bt_internal.h"
#include "mmu/window.h"

#define SPACE_HOT 4u
#define SPACE_PATIENCE 8u
#define SPACE_NEEDED_MAX 1024u
#define CALLS_FREE 192u
#define CALLS_PER_WAIT 4u
#define CALLS_PER_SAMPLE 24u
#define PAGE_HOT  4u
#define PAGE_SPAN 16u
#define MISS_FREE 24u
#define MISS_PER_SAMPLE 32u
#define MISS_IN_VAIN 4u /* a miss that could not be filled counts for so many */
#define SITE_PATIENCE 16u
#define SITE_TIMES_MAX 8u

static struct site *site_of(struct bt *bt, uint64_t pa)
{
    return &bt->site[(pa ^ pa >> 13) % BT_SITES];
}

static struct hot_page *page_of(struct bt *bt, uint64_t pfn)
{
    struct hot_page *p = &bt->hot_page[pfn % BT_HOT_PAGES];

    if (p->pfn != pfn)
        *p = (struct hot_page){ .pfn = pfn };
    return p;
}

static bool is_held_checked(struct bt *bt, uint64_t pa)
{
    const struct site *s = site_of(bt, pa);

    return s->pa == pa + 1 && s->is_checked;
}

bool form_use_window(struct bt *bt, const struct ccf_key *key)
{
    if (bt->opt.mem == MEM_CHECKED || is_held_checked(bt, key->pa) || (key->mode & MODE_STEP))
        return false;
    if (key->mode & MODE_CPL3)
        return (key->mode & MODE_WINDOW) != 0;
    if (!mmu_window_base(bt->cpu, VIEW_SUPERVISOR))
        return false;
    return bt->opt.mem == MEM_WINDOW || page_of(bt, key->pa >> GUEST_PAGE_SHIFT)->use_window;
}

/* The record of the present address space. */
static struct space *space_of(struct bt *bt)
{
    struct space *s;

    for (unsigned i = 0; i < BT_SPACES; i++)
        if (bt->space[i].cr3 == bt->cpu->cr3 && bt->space[i].needed)
            return &bt->space[i];
    s = &bt->space[bt->next_space++ % BT_SPACES];
    *s = (struct space){ .cr3 = bt->cpu->cr3, .needed = SPACE_HOT };
    return s;
}

/* A program that forks, maps and unmaps makes its window cost more than it gives. */
static void review_window(struct bt *bt)
{
    struct vcpu *cpu = bt->cpu;
    uint32_t cost = mmu_window_cost(cpu);

    if (bt->opt.mem != MEM_ADAPTIVE || bt->opt.user_direct || cost <= CALLS_FREE)
        return;
    struct space *s = space_of(bt);
    if (cost <= CALLS_FREE + CALLS_PER_WAIT * s->needed + CALLS_PER_SAMPLE * s->samples)
        return;
    LOG(cpu->log, shadow, "window of CR3 0x%08x given up: %u calls in %u samples\n", cpu->cr3, cost, s->samples);
    mmu_window_close(cpu);
    s->samples = 0;
    s->needed = min_u32(s->needed * SPACE_PATIENCE, SPACE_NEEDED_MAX);
    STAT_INC(cpu, form_to_checked);
}

static void select_window(struct bt *bt, uint64_t base)
{
    if (base == bt->gs_base)
        return;
    bt->gs_base = base;
    platform_window_select(bt->cpu, base);
}

void form_sync(struct bt *bt)
{
    struct vcpu *cpu = bt->cpu;
    enum mmu_view_id view = cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR;

    bt->key_mode = cpu->mode;
    if (bt->opt.mem == MEM_CHECKED)
        return;
    if (bt->opt.mem == MEM_WINDOW)
        mmu_window_open(cpu, view);
    if (view == VIEW_USER)
        review_window(bt);
    uint64_t base = mmu_window_base(cpu, view);
    if (!base)
        return;
    if (view == VIEW_USER && !(cpu->mode & MODE_STEP))
        bt->key_mode |= MODE_WINDOW;
    select_window(bt, base);
}

bool bt_direct_window(struct vcpu *cpu)
{
    if (!mmu_window_open(cpu, VIEW_USER))
        return false;
    mmu_window_sync(cpu);
    select_window(cpu->bt, mmu_window_base(cpu, VIEW_USER));
    return true;
}

/* ---- towards the window ------------------------------------------------------------------------ */

static void sample_space(struct bt *bt)
{
    struct vcpu *cpu = bt->cpu;
    struct space *s = space_of(bt);

    if (++s->samples < s->needed || mmu_window_base(cpu, VIEW_USER))
        return;
    s->samples = 0;
    if (mmu_window_open(cpu, VIEW_USER)) {
        STAT_INC(cpu, form_to_window);
        LOG(cpu->log, shadow, "window for CR3 0x%08x\n", cpu->cr3);
    }
}

/* All CCFs of the page are made anew: loops lie close together, and to wait for a sample of each
 * would take longer than many of them run. */
static void sample_page(struct bt *bt, const struct ccf *ccf)
{
    struct vcpu *cpu = bt->cpu;
    uint64_t pfn = ccf->key.pa >> GUEST_PAGE_SHIFT;
    struct hot_page *p = page_of(bt, pfn);

    if (bt->nsamples - p->since >= PAGE_SPAN) {
        p->since = bt->nsamples;
        p->samples = 0;
    }
    if (++p->samples < PAGE_HOT || p->use_window || !mmu_window_open(cpu, VIEW_SUPERVISOR))
        return;
    p->use_window = true;
    STAT_INC(cpu, form_to_window);
    LOG(cpu->log, shadow, "window form for the code page of EIP 0x%08x\n", ccf->key.eip);
    tcache_invalidate(cpu->tc, gpa(pfn << GUEST_PAGE_SHIFT), GUEST_PAGE_SIZE, DROP_EVICT);
}

/* A CCF that is held in the checked form for its misses, but takes time: it may have mended. */
static void sample_site(struct bt *bt, struct ccf *ccf)
{
    struct site *s = site_of(bt, ccf->key.pa);

    if (ccf->uses_window || !is_held_checked(bt, ccf->key.pa) || ccf->heat < SITE_PATIENCE << s->times)
        return;
    s->is_checked = false;
    if (!form_use_window(bt, &ccf->key)) { /* it is in no window anyway */
        s->is_checked = true;
        return;
    }
    STAT_INC(bt->cpu, form_to_window);
    LOG(bt->cpu->log, shadow, "window form for EIP 0x%08x again\n", ccf->key.eip);
    tcache_drop(bt->cpu->tc, ccf, DROP_EVICT);
}

bool bt_wants_samples(const struct bt *bt)
{
    return bt->opt.mem == MEM_ADAPTIVE || policy_wants_samples(bt);
}

void bt_sample(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    struct ccf *ccf = tcache_find_rip(cpu->tc, (const uint8_t *)(uintptr_t)cpu->sample_rip);

    cpu->sample_rip = 0;
    policy_count_sample(bt);
    if (!ccf || !ccf->live || bt->opt.mem != MEM_ADAPTIVE)
        return;
    ccf->heat++;
    bt->nsamples++;
    if (ccf->key.mode & MODE_CPL3)
        sample_space(bt);
    else
        sample_page(bt, ccf);
    if (ccf->live)
        sample_site(bt, ccf);
}

/* ---- and back ---------------------------------------------------------------------------------- */

/* What a miss counts against its CCF. mem=window puts up with misses, but not with accesses that no window
 * can serve. The kernel has no address space to charge. */
static unsigned price(const struct bt *bt, enum window_fill fill)
{
    bool is_user = bt->cpu->cpl == 3, is_adaptive = bt->opt.mem == MEM_ADAPTIVE;

    switch (fill) {
    case WINDOW_CANNOT:
        return MISS_IN_VAIN;
    case WINDOW_FAULTS:
        return is_user ? 0 : MISS_IN_VAIN;
    case WINDOW_FILLED:
        return is_user || !is_adaptive ? 0 : 1;
    case WINDOW_FILLED_AGAIN:
        return is_adaptive;
    }
    return 0;
}

static void hold_checked(struct bt *bt, uint64_t pa)
{
    struct site *s = site_of(bt, pa);

    if (s->pa != pa + 1)
        *s = (struct site){ .pa = pa + 1 };
    else if (s->times < SITE_TIMES_MAX)
        s->times++;
    s->is_checked = true;
}

static void count_miss(struct bt *bt, struct ccf *ccf, enum window_fill fill)
{
    struct vcpu *cpu = bt->cpu;

    ccf->misses += price(bt, fill);
    if (!ccf->live || ccf->misses <= MISS_FREE + MISS_PER_SAMPLE * ccf->heat)
        return;
    hold_checked(bt, ccf->key.pa);
    STAT_INC(cpu, form_to_checked);
    LOG(cpu->log, shadow, "checked form for EIP 0x%08x again\n", ccf->key.eip);
    tcache_drop(cpu->tc, ccf, DROP_EVICT);
}

/* The window that the present code runs in has ended under it: it is empty, and every access that is
 * left before the code does goes the slow way. */
static const uint8_t *leave_window(struct bt *bt, const struct ccf *ccf, const struct ccf_insn *insn)
{
    bt->cpu->run = 0;
    return ccf->cold + insn->cold_ofs;
}

/* The faulting instruction has changed nothing yet: it starts again, in the window if the page
 * can be mapped, else in its slow path, which faults, bounces or splits as the case may be. */
const uint8_t *form_window_miss(struct bt *bt)
{
    struct vcpu *cpu = bt->cpu;
    const uint8_t *rip = (const uint8_t *)(uintptr_t)cpu->host_rip;
    enum mmu_view_id view = cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR;
    struct ccf *ccf = tcache_find_rip(cpu->tc, rip);
    gva_t va;

    if (!ccf || cpu->host_signal != HOST_SIGSEGV || !mmu_window_contains(bt->gs_base, cpu->host_addr, &va))
        return NULL;
    STAT_INC(cpu, pf_hidden);
    const struct ccf_insn *insn = &ccf->insns[ccf_insn_at(ccf, rip)];
    cpu->eip = ccf->key.eip + insn->guest_ofs;
    if (mmu_window_base(cpu, view) != bt->gs_base)
        return leave_window(bt, ccf, insn);
    bool is_inside = cpu->host_addr - mmu_window_base(cpu, view) <= UINT32_MAX;
    enum window_fill fill = is_inside ? mmu_window_fill(cpu, view, va, cpu->host_is_write) : WINDOW_CANNOT;
    bool is_filled = fill == WINDOW_FILLED || fill == WINDOW_FILLED_AGAIN;
    count_miss(bt, ccf, fill);
    if (tcache_generation(cpu->tc) != bt->generation) /* it will not go on from there */
        x87_resolve(bt, ccf, ccf_insn_at(ccf, rip));
    return is_filled ? ccf->hot + insn->hot_ofs : ccf->cold + insn->cold_ofs;
}
