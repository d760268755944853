/*
 * Random page tables, accesses, traces and invalidations against a model: a walker that looks
 * at one entry after the other, and a TLB that is an array. After each step the model's TLB
 * must equal the slot tables, and the audit must be clean.
 *
 * VMM_SEED and VMM_STEPS in the environment choose another sequence.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"

#define NPAGES  12u /* of linear memory, in four 4 MiB regions */
#define NFRAMES 6u  /* of physical memory they map              */

/* ---- the model ------------------------------------------------------------------- */

struct entry {
    bool has_load, has_store, is_global;
    uint32_t pa;
    bool is_fetched, fetch_global; /* fetch TLB */
    uint32_t fetch_pa;
};

struct model {
    struct fixture *fx;
    uint64_t seed;
    bool is_pae;
    struct entry tlb[VIEW_COUNT][NPAGES];
    bool region_large[VIEW_COUNT][NPAGES]; /* by the first page of the region */
    bool is_traced[NFRAMES];
    /* What a keeper of fetch mappings holds, and which of it is still true. */
    bool kept[VIEW_COUNT][NPAGES][2], alive[VIEW_COUNT][NPAGES][2]; /* [is_global] */
};

/* Pages of one 4 MiB region, neighbours and far ones; 2 MiB apart within a region for PAE. */
static const uint32_t page_va[NPAGES] = {
    0x00400000, 0x00401000, 0x005ff000, 0x00600000, 0x007ff000, 0x40000000,
    0x40001000, 0x40200000, 0xc0000000, 0xc03ff000, 0xfffff000, 0xffc00000,
};
/* Large pages start at 8 MiB; frames 3 to 5 lie in them. Frame 2 is a device, 1 is ROM. */
static const uint32_t frame_pa[NFRAMES] = { 0x300000, ROM_PA, MMIO_PA, 0x800000, 0x801000, 0xa00000 };

static uint32_t rnd(struct model *t, uint32_t n)
{
    t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(t->seed >> 33) % n;
}

static unsigned region_of(unsigned page)
{
    unsigned first = 0;

    while (page_va[first] >> 22 != page_va[page] >> 22)
        first++;
    return first;
}

static uint64_t entry_at(struct model *t, uint64_t pa)
{
    return t->is_pae ? fx_get64(t->fx, pa) : fx_get32(t->fx, pa);
}

/* What the walk should come to: error code, or -1 with the translation. */
struct expect {
    int error;
    uint64_t pa;
    bool is_global, is_large;
    uint64_t at[2], after[2]; /* entries and their bytes afterwards */
    unsigned n;
};

static struct expect model_walk(struct model *t, uint32_t va, unsigned access)
{
    const struct vcpu *cpu = t->fx->cpu;
    bool has_nx = t->is_pae && (cpu->efer & EFER_NXE);
    unsigned base = (access & ACC_WRITE ? PF_WR : 0) | (access & ACC_USER ? PF_US : 0) |
                    ((access & ACC_EXEC) && has_nx ? PF_ID : 0);
    uint64_t all = UINT64_MAX, any = 0, e = 0;
    struct expect x = { .error = -1 };

    for (unsigned level = 0; level < 2; level++) {
        if (level == 0)
            x.at[0] = fx_pde(t->fx, va);
        else if (t->is_pae)
            x.at[1] = (e & 0xffffff000ull) + (va >> 12 & 0x1ff) * 8;
        else
            x.at[1] = (e & 0xfffff000ull) + (va >> 12 & 0x3ff) * 4;
        e = entry_at(t, x.at[level]);
        x.n = level + 1;
        if (!(e & PTE_P)) {
            x.error = (int)base;
            return x;
        }
        x.is_large = level == 0 && (e & PTE_PS) && (t->is_pae || (cpu->cr4 & CR4_PSE));
        uint64_t rsvd = t->is_pae ? 0x7ffffff000000000ull | (has_nx ? 0 : PTE_NX) : 0;
        if (x.is_large)
            rsvd |= t->is_pae ? 0x1fe000 : 0x3e0000;
        if (e & rsvd) {
            x.error = (int)(base | PF_P | PF_RSVD);
            return x;
        }
        all &= e;
        any |= e;
        x.after[level] = e | PTE_A;
        if (x.is_large)
            break;
    }
    bool wp = (cpu->cr0 & CR0_WP) || (access & ACC_USER);
    if (((access & ACC_USER) && !(all & PTE_US)) || ((access & ACC_WRITE) && wp && !(all & PTE_W)) ||
        ((access & ACC_EXEC) && (any & PTE_NX))) {
        x.error = (int)(base | PF_P);
        return x;
    }
    if (access & ACC_WRITE)
        x.after[x.n - 1] |= PTE_D;
    x.is_global = (e & PTE_G) && (cpu->cr4 & CR4_PGE);
    uint32_t leaf = !x.is_large ? 4096 : t->is_pae ? 2u << 20 : 4u << 20;
    x.pa = (e & 0xffffff000ull & ~(uint64_t)(leaf - 1)) | (va & (leaf - 1));
    return x;
}

/* -1: a device or nothing */
static int frame_of(uint64_t pa)
{
    for (unsigned i = 0; i < NFRAMES; i++)
        if ((pa & ~0xfffull) == frame_pa[i])
            return (int)i;
    return -1;
}

static void model_drop_page(struct model *t, unsigned view, unsigned page)
{
    t->tlb[view][page] = (struct entry){ .has_load = false };
    t->alive[view][page][0] = t->alive[view][page][1] = false;
}

static void model_invlpg(struct model *t, unsigned page)
{
    for (unsigned view = 0; view < VIEW_COUNT; view++) {
        bool *large = &t->region_large[view][region_of(page)];
        for (unsigned i = 0; i < NPAGES; i++)
            if (i == page || (*large && region_of(i) == region_of(page)))
                model_drop_page(t, view, i);
        *large = false;
    }
}

static void model_cr3(struct model *t)
{
    for (unsigned view = 0; view < VIEW_COUNT; view++)
        for (unsigned i = 0; i < NPAGES; i++) {
            struct entry *e = &t->tlb[view][i];
            if (!e->is_global)
                e->has_load = e->has_store = false;
            if (!e->fetch_global)
                e->is_fetched = false;
            t->alive[view][i][0] = false;
        }
}

static void model_flush(struct model *t)
{
    memset(t->tlb, 0, sizeof t->tlb);
    memset(t->region_large, 0, sizeof t->region_large);
    memset(t->alive, 0, sizeof t->alive);
}

/* ---- steps ------------------------------------------------------------------------ */

static void check_walked_entries(struct model *t, const struct expect *x)
{
    for (unsigned i = 0; i < x->n; i++)
        assert_int_equal(entry_at(t, x->at[i]), x->after[i]);
}

static void check_fault(struct model *t, const struct expect *x, uint32_t va)
{
    assert_int_equal(t->fx->cpu->fault.vector, EXC_PF);
    assert_int_equal(t->fx->cpu->fault.error, x->error);
    assert_int_equal(t->fx->cpu->fault.cr2, va);
}

/* What a page may be used for: 0 nothing directly, 1 loads, 2 loads and stores. */
static unsigned frame_use(struct model *t, uint64_t pa)
{
    int frame = frame_of(pa);

    if (frame < 0)
        return pa < RAM_BYTES && (pa & ~0x1fffull) != MMIO_PA ? ((pa & ~0xfffull) == ROM_PA ? 1 : 2) : 0;
    if (frame_pa[frame] == MMIO_PA)
        return 0;
    return frame_pa[frame] == ROM_PA || t->is_traced[frame] ? 1 : 2;
}

static void step_access(struct model *t)
{
    unsigned page = rnd(t, NPAGES);
    unsigned access = (rnd(t, 2) ? ACC_WRITE : ACC_READ) | (rnd(t, 2) ? ACC_USER : 0);
    unsigned view = access & ACC_USER ? VIEW_USER : VIEW_SUPERVISOR;
    uint32_t va = page_va[page] + rnd(t, 4096);
    struct entry *e = &t->tlb[view][page];
    hva_t hva = { NULL };
    struct expect x = model_walk(t, va, access);
    bool is_write = (access & ACC_WRITE) != 0;

    enum x86_rc rc = mmu_probe(t->fx->cpu, gva(va), 1, access, &hva);
    if (is_write ? e->has_store : e->has_load) {
        assert_int_equal(rc, X86_OK);
        assert_ptr_equal(hva.p, t->fx->ram + e->pa + (va & 0xfff));
        return;
    }
    if (x.error >= 0) {
        assert_int_equal(rc, X86_FAULT);
        check_fault(t, &x, va);
        model_invlpg(t, page);
        return;
    }
    assert_int_equal(rc, X86_OK);
    check_walked_entries(t, &x);
    unsigned use = frame_use(t, x.pa);
    bool is_direct = use >= (is_write ? 2u : 1u);
    assert_ptr_equal(hva.p, is_direct ? t->fx->ram + x.pa : NULL);
    e->has_load = use > 0;
    e->has_store = is_write && is_direct;
    if (!use)
        return;
    e->pa = (uint32_t)x.pa & ~0xfffu;
    e->is_global = x.is_global;
    if (x.is_large)
        t->region_large[view][region_of(page)] = true;
}

/* Fetch TLB entries that share a line push each other out: forget those in the model too. */
static void model_fetch_conflicts(struct model *t, unsigned view, unsigned page)
{
    for (unsigned i = 0; i < NPAGES; i++)
        if (i != page && (page_va[i] >> 12) % 512 == (page_va[page] >> 12) % 512)
            t->tlb[view][i].is_fetched = false;
}

static void step_fetch(struct model *t)
{
    unsigned page = rnd(t, NPAGES);
    uint32_t va = page_va[page] + rnd(t, 4096);
    unsigned view = rnd(t, 2) ? VIEW_USER : VIEW_SUPERVISOR;
    struct entry *e = &t->tlb[view][page];
    gpa_t pa = { 0 };
    bool is_global = false;
    struct expect x = model_walk(t, va, ACC_EXEC | (view == VIEW_USER ? ACC_USER : 0));

    t->fx->cpu->cpl = view == VIEW_USER ? 3 : 0;
    enum x86_rc rc = mmu_fetch(t->fx->cpu, gva(va), &pa, &is_global);
    if (!e->is_fetched) {
        if (x.error >= 0) {
            assert_int_equal(rc, X86_FAULT);
            check_fault(t, &x, va);
            model_invlpg(t, page);
            return;
        }
        check_walked_entries(t, &x);
        e->is_fetched = true;
        e->fetch_pa = (uint32_t)x.pa & ~0xfffu;
        e->fetch_global = x.is_global;
        model_fetch_conflicts(t, view, page);
        if (x.is_large)
            t->region_large[view][region_of(page)] = true;
    }
    assert_int_equal(rc, X86_OK);
    assert_int_equal(pa.v, e->fetch_pa + (va & 0xfff));
    assert_int_equal(is_global, e->fetch_global);
    t->kept[view][page][is_global] = t->alive[view][page][is_global] = true;
}

static void step_map(struct model *t)
{
    unsigned page = rnd(t, NPAGES);
    static const uint64_t rights[] = { 0, PTE_W, PTE_US, PTE_W | PTE_US, PTE_W | PTE_US, PTE_W | PTE_US };
    uint64_t flags = (rnd(t, 8) ? PTE_P : 0) | rights[rnd(t, ARRAY_LEN(rights))] | (rnd(t, 2) ? PTE_G : 0);
    uint64_t pde_pa = fx_pde(t->fx, page_va[page]);

    if (t->is_pae && rnd(t, 6) == 0)
        flags |= PTE_NX;
    if (rnd(t, 6) == 0) {
        uint64_t pa = rnd(t, 8) ? 0x800000 : 0x820000; /* the second has a reserved bit set */
        fx_map(t->fx, page_va[page], pa, flags | PTE_PS);
        return;
    }
    uint64_t old = entry_at(t, pde_pa);
    if ((old & PTE_PS) || rnd(t, 16) == 0) { /* back to a table, sometimes with fewer rights */
        uint64_t dir = fx_table(t->fx) | PTE_P | rights[rnd(t, ARRAY_LEN(rights))];
        if (t->is_pae)
            fx_put64(t->fx, pde_pa, dir);
        else
            fx_put32(t->fx, pde_pa, (uint32_t)dir);
    }
    fx_map(t->fx, page_va[page], frame_pa[rnd(t, NFRAMES)], flags);
}

static void step_trace(struct model *t)
{
    unsigned frame = rnd(t, NFRAMES);
    uint32_t pa = frame_pa[frame];

    if (t->is_traced[frame]) {
        mmu_trace_remove(t->fx->m, gpa(pa));
        t->is_traced[frame] = false;
        return;
    }
    mmu_trace_add(t->fx->m, gpa(pa));
    t->is_traced[frame] = true;
    for (unsigned view = 0; view < VIEW_COUNT; view++)
        for (unsigned i = 0; i < NPAGES; i++)
            if (t->tlb[view][i].pa == pa)
                t->tlb[view][i].has_store = false;
}

static void step_control(struct model *t)
{
    struct vcpu *cpu = t->fx->cpu;

    switch (rnd(t, 4)) {
    case 0:
        cpu->cr0 ^= CR0_WP;
        break;
    case 1:
        cpu->cr4 ^= CR4_PGE;
        break;
    case 2:
        cpu->efer ^= EFER_NXE;
        break;
    }
    mmu_flush_all(cpu);
    model_flush(t);
}

static void step(struct model *t)
{
    uint32_t what = rnd(t, 100), page;

    if (what < 55) {
        step_access(t);
    } else if (what < 70) {
        step_map(t);
    } else if (what < 80) {
        step_fetch(t);
    } else if (what < 88) {
        page = rnd(t, NPAGES);
        mmu_invlpg(t->fx->cpu, gva(page_va[page] + rnd(t, 4096)));
        model_invlpg(t, page);
    } else if (what < 92) {
        mmu_cr3_loaded(t->fx->cpu);
        model_cr3(t);
    } else if (what < 98) {
        step_trace(t);
    } else {
        step_control(t);
    }
}

/* Do as a jump table does: forget what is reported. */
static void hear(struct model *t, const struct event *e)
{
    for (unsigned i = 0; i < NPAGES; i++) {
        bool *kept = t->kept[e->value][i];
        if (e->kind == EV_DROP_ALL && !e->size)
            kept[1] = false;
        if (e->kind == EV_DROP_ALL)
            kept[0] = false;
        if (e->kind == EV_DROP_RANGE && page_va[i] - (uint32_t)e->addr < e->size)
            kept[0] = kept[1] = false;
    }
}

static void check_keeper(struct model *t)
{
    assert_true(t->fx->nevents <= MAX_EVENTS);
    for (unsigned i = 0; i < t->fx->nevents; i++) {
        assert_true(t->fx->event[i].kind == EV_DROP_ALL || t->fx->event[i].kind == EV_DROP_RANGE);
        hear(t, &t->fx->event[i]);
    }
    fx_clear_events(t->fx);
    for (unsigned view = 0; view < VIEW_COUNT; view++)
        for (unsigned i = 0; i < NPAGES; i++)
            for (unsigned g = 0; g < 2; g++)
                assert_true(!t->kept[view][i][g] || t->alive[view][i][g]);
}

static void check_slots(struct model *t)
{
    for (unsigned view = 0; view < VIEW_COUNT; view++)
        for (unsigned i = 0; i < NPAGES; i++) {
            const struct entry *e = &t->tlb[view][i];
            uint64_t value = (uint64_t)(uintptr_t)(t->fx->ram + e->pa) - page_va[i];
            assert_int_equal(fx_load_slot(t->fx, view, page_va[i]), e->has_load ? value : 0);
            assert_int_equal(fx_store_slot(t->fx, view, page_va[i]), e->has_store ? value : 0);
        }
    fx_assert_clean(t->fx);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void run(struct fixture *fx, uint32_t cr4)
{
    struct model t = { .fx = fx, .is_pae = (cr4 & CR4_PAE) != 0, .seed = env_number("VMM_SEED", 1) + cr4 };
    uint64_t steps = env_number("VMM_STEPS", 6000);

    fx_paging(fx, cr4);
    for (uint64_t i = 0; i < steps; i++) {
        step(&t);
        check_slots(&t);
        check_keeper(&t);
        if (fx->next_table > 0x2f0000) { /* out of room for tables: start with empty ones */
            fx->next_table = TABLES_PA;
            fx_paging(fx, fx->cpu->cr4);
            model_flush(&t);
            memset(t.kept, 0, sizeof t.kept);
        }
    }
}

static void two_level_random_steps_agree_with_the_model(void **state)
{
    run(*state, CR4_PSE | CR4_PGE);
}

static void pae_random_steps_agree_with_the_model(void **state)
{
    run(*state, CR4_PAE | CR4_PGE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_level_random_steps_agree_with_the_model),
        TEST(pae_random_steps_agree_with_the_model),
    };

    return cmocka_run_group_tests_name("mmu random", tests, NULL, NULL);
}
