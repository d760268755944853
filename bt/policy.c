/*
 * coherency=adaptive: which mechanism each page of code gets. The other policies are one mechanism for all, but that check
 * traces a page of code until the first store to it: code that nobody writes to pays for no comparison.
 *
 *                4 CCFs ended               8 more CCFs ended              33 instructions changed
 *     traced ----------------> patched ----------------------> retranslated ----------------------+
 *        |                        |                                 |                             v
 *        +------------------------+---------------------------------+--------------------> compared
 *                 512 stores that hit no CCF within 16 samples (each that hits counts 4 back, each CCF made 16)
 *
 *     compared ----------------> patched          64 CCFs found stale; twice as many each time
 *     any but traced ----------> traced           no CCF ended between two reviews; compared: at each review
 *
 * A page that nobody writes to is traced, and its CCFs are what they are under coherency=trace: no bytes kept,
 * nothing noted. A store that hits code costs a drop and a translation there; a patched page keeps what
 * is needed to do without, a retranslated one splits its TUs where they change, and a compared one takes no part
 * in stores at all. Whether stores to a compared page have ended can't be seen without a trace, so each review
 * (every 4,096 samples, which are milliseconds of run time) traces them again; those that need it are soon back.
 *
 * A record is lost when two pages meet in its slot. Then the page is traced again as far as new CCFs go. That a page is
 * compared must not be lost, as no trace would take over: it has a bit in check_page.
 */
#include "bt/bt_internal.h"

#include "base/log.h"

#define PATCH_AFTER       4u
#define RETRANSLATE_AFTER 8u
#define CHECK_AFTER       512u
#define CHECK_SPAN        16u
#define HIT_WEIGH         4u
#define MADE_WEIGH        16u
#define STALE_AFTER       64u
#define STALE_DOUBLINGS   8u
#define REVIEW_SAMPLES    4096u

static bool is_adaptive(const struct bt *bt)
{
    return bt->opt.coherency == COHERENCY_ADAPTIVE;
}

/* Some pages are compared, others are traced: under coherency=check those that have been written since code was found in
 * them, and never another way again. */
static bool is_by_page(const struct bt *bt)
{
    return is_adaptive(bt) || bt->opt.coherency == COHERENCY_CHECK;
}

static struct page_policy *page_of(struct bt *bt, uint64_t pfn)
{
    struct page_policy *p = &bt->page_policy[pfn % BT_POLICY_PAGES];

    if (p->pfn != pfn)
        *p = (struct page_policy){ .pfn = pfn };
    return p;
}

static enum page_level level_of(const struct bt *bt, uint64_t pfn)
{
    const struct page_policy *p = &bt->page_policy[pfn % BT_POLICY_PAGES];

    return p->pfn == pfn ? p->level : PAGE_TRACED;
}

bool policy_checks(const struct bt *bt, uint64_t pfn)
{
    return is_by_page(bt) && bt->nchecked && pfn / 8 < bt->check_page_bytes && (bt->check_page[pfn / 8] >> pfn % 8 & 1);
}

enum bt_coherency policy_of(const struct bt *bt, uint64_t pfn)
{
    if (!is_by_page(bt))
        return bt->opt.coherency;
    switch (policy_checks(bt, pfn) ? PAGE_COMPARED : level_of(bt, pfn)) {
    case PAGE_TRACED:
        return COHERENCY_TRACE;
    case PAGE_PATCHED:
        return COHERENCY_PATCH;
    case PAGE_RETRANSLATED:
        return COHERENCY_RETRANSLATE;
    case PAGE_COMPARED:
        break;
    }
    return COHERENCY_CHECK;
}

bool policy_keeps_source(const struct bt *bt, uint64_t pfn)
{
    return is_by_page(bt) ? level_of(bt, pfn) != PAGE_TRACED : bt->opt.coherency != COHERENCY_TRACE;
}

bool policy_patches(const struct bt *bt, uint64_t pfn)
{
    return is_adaptive(bt) ? level_of(bt, pfn) != PAGE_TRACED : bt->opt.coherency == COHERENCY_PATCH;
}

static bool splits(const struct bt *bt, uint64_t pfn)
{
    return is_adaptive(bt) ? level_of(bt, pfn) == PAGE_RETRANSLATED : bt->opt.coherency == COHERENCY_RETRANSLATE;
}

static void drop_page(struct bt *bt, uint64_t pfn)
{
    tcache_invalidate(bt->cpu->tc, gpa(pfn << GUEST_PAGE_SHIFT), GUEST_PAGE_SIZE, DROP_EVICT);
}

static void log_move(struct bt *bt, uint64_t pfn, const char *how)
{
    struct event_tally now = event_tally(bt);

    event_note(bt, CAUSE_POLICY, gpa(pfn << GUEST_PAGE_SHIFT), GUEST_PAGE_SIZE, &now);
    LOG(bt->cpu->log, coherency, "%s: page 0x%llx is %s from now on\n", is_adaptive(bt) ? "adaptive" : "check",
        (unsigned long long)pfn, how);
}

/* ---- up ---------------------------------------------------------------------------------------- */

/* With its last CCF goes the trace; the next ones compare. */
static void to_check(struct bt *bt, uint64_t pfn)
{
    struct page_policy *p = page_of(bt, pfn);

    p->level = PAGE_COMPARED;
    p->score = p->ended = 0;
    bt->check_page[pfn / 8] |= (uint8_t)(1u << pfn % 8);
    bt->nchecked++;
    drop_page(bt, pfn);
    STAT_INC(bt->cpu, coherency_to_check);
    log_move(bt, pfn, "compared");
}

/* Its CCFs stay: each is made the new way when it has to be made anew. */
static void move_up(struct bt *bt, struct page_policy *p)
{
    p->ended = 0;
    if (p->level == PAGE_TRACED) {
        p->level = PAGE_PATCHED;
        STAT_INC(bt->cpu, coherency_to_patch);
        log_move(bt, p->pfn, "patched");
    } else {
        p->level = PAGE_RETRANSLATED;
        STAT_INC(bt->cpu, coherency_to_retranslate);
        log_move(bt, p->pfn, "retranslated by instructions");
    }
}

void policy_ccf_changed(struct bt *bt, const struct ccf *ccf, unsigned insn)
{
    uint64_t pfn = ccf->key.pa >> GUEST_PAGE_SHIFT;

    if (splits(bt, pfn))
        split_note(bt, ccf, insn);
    if (!is_adaptive(bt) || policy_checks(bt, pfn))
        return;
    struct page_policy *p = page_of(bt, pfn);
    uint32_t made = (uint32_t)bt->cpu->stats.tu_translated;

    if (p->level == PAGE_PATCHED && !ccf->source)
        return; /* made when the page was traced: it does not tell what patching can do */
    if (p->ended && p->made == made) /* nothing ran in between: a page that is filled anew, as a loader does */
        return;
    p->made = made;
    p->ended++;
    if ((p->level == PAGE_TRACED && p->ended >= PATCH_AFTER) || (p->level == PAGE_PATCHED && p->ended >= RETRANSLATE_AFTER))
        move_up(bt, p);
}

void policy_count_store(struct bt *bt, uint64_t pfn, bool is_hit)
{
    bool has_too_many = split_review(bt, pfn);

    if (!is_by_page(bt) || pfn / 8 >= bt->check_page_bytes || policy_checks(bt, pfn))
        return;
    if (!is_adaptive(bt)) {
        to_check(bt, pfn);
        return;
    }
    struct page_policy *p = page_of(bt, pfn);
    if (bt->policy_samples - p->since >= CHECK_SPAN) {
        p->since = bt->policy_samples;
        p->score = 0;
    }
    if (is_hit)
        p->score -= min_u32(p->score, HIT_WEIGH);
    else
        p->score++;
    if (has_too_many || p->score >= CHECK_AFTER)
        to_check(bt, pfn);
}

/* Stores that put new code there hit no CCF either, and are no reason to compare. */
void policy_count_made(struct bt *bt, uint64_t pfn)
{
    struct page_policy *p = &bt->page_policy[pfn % BT_POLICY_PAGES];

    if (is_adaptive(bt) && p->pfn == pfn && !policy_checks(bt, pfn))
        p->score -= min_u32(p->score, MADE_WEIGH);
}

/* ---- and down ---------------------------------------------------------------------------------- */

static void leave_check(struct bt *bt, uint64_t pfn, enum page_level level)
{
    struct page_policy *p = page_of(bt, pfn);

    p->level = level;
    p->score = p->ended = 0;
    bt->check_page[pfn / 8] &= (uint8_t)~(1u << pfn % 8);
    bt->nchecked--;
    drop_page(bt, pfn); /* the next CCF brings the trace */
}

void policy_count_stale(struct bt *bt, uint64_t pfn)
{
    if (!is_adaptive(bt) || !policy_checks(bt, pfn))
        return;
    struct page_policy *p = page_of(bt, pfn);
    if (++p->score < STALE_AFTER << p->returns)
        return;
    p->returns = (uint8_t)min_u32(p->returns + 1u, STALE_DOUBLINGS);
    leave_check(bt, pfn, PAGE_PATCHED);
    split_forget(bt, pfn);
    STAT_INC(bt->cpu, coherency_to_patch);
    log_move(bt, pfn, "patched");
}

static void calm(struct bt *bt, uint64_t pfn)
{
    STAT_INC(bt->cpu, coherency_to_trace);
    log_move(bt, pfn, "traced");
}

static void review(struct bt *bt)
{
    for (uint64_t i = 0; i < bt->check_page_bytes && bt->nchecked; i++)
        for (unsigned bit = 0; bit < 8; bit++)
            if (bt->check_page[i] >> bit & 1) {
                leave_check(bt, i * 8 + bit, PAGE_TRACED);
                calm(bt, i * 8 + bit);
            }
    for (unsigned i = 0; i < BT_POLICY_PAGES; i++) {
        struct page_policy *p = &bt->page_policy[i];
        if (p->level != PAGE_TRACED && !p->ended) {
            if (p->level == PAGE_RETRANSLATED)
                drop_page(bt, p->pfn); /* whole TUs again */
            p->level = PAGE_TRACED;
            calm(bt, p->pfn);
        }
        p->ended = 0;
    }
}

bool policy_wants_samples(const struct bt *bt)
{
    return is_adaptive(bt) || bt->opt.coherency == COHERENCY_RETRANSLATE;
}

void policy_count_sample(struct bt *bt)
{
    if (!policy_wants_samples(bt))
        return;
    if (++bt->policy_samples % REVIEW_SAMPLES)
        return;
    split_forget_all(bt);
    if (is_adaptive(bt))
        review(bt);
}
