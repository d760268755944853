/*
 * The engine's side of a differential case: the same pages at the same linear addresses
 * in a VM, the same selectors, CPL 3, and run until an exception reaches the kernel.
 */
#include <stdlib.h>
#include <string.h>

#include "monitor/x87.h"
#include "tests/diff/case.h"
#include "tests/support/vm_fixture.h"

struct engine {
    struct vm_fixture *fx;
    struct cpu_model model; /* as the host is, where models differ in what user code sees */
};

/* modify_ldt sets AVL, and the kernel's own descriptors don't have it. */
#define ATTR_USER_DATA (DESC_DB | DESC_P | DESC_DPL | DESC_S | DESC_WRITE | DESC_ACCESSED)

/* As Linux has them in the oracle's process: see modify_ldt in oracle.c. */
static void make_segments(struct vm_fixture *fx)
{
    uint16_t code = DESC_G | DESC_DB | DESC_P | DESC_DPL | DESC_S | DESC_CODE | DESC_READ | DESC_ACCESSED;
    uint16_t data = ATTR_USER_DATA;

    vm_fixture_gdt_set(fx, CASE_SEL_DS >> 3, 0, 0xfffff, DESC_G | data);
    vm_fixture_ldt_set(fx, CASE_SEL_CS >> 3, 0, 0xfffff, DESC_AVL | code);
    vm_fixture_ldt_set(fx, CASE_SEL_FS >> 3, CASE_DATA, 0xfffff, DESC_AVL | DESC_G | data);
    vm_fixture_ldt_set(fx, CASE_SEL_GS >> 3, CASE_DATA, CASE_GS_LIMIT, DESC_AVL | data);
    vm_fixture_ldt_set(fx, CASE_SEL_RO >> 3, 0, 0xfffff,
                       (uint16_t)((DESC_AVL | DESC_G | data) & ~DESC_WRITE));
    vm_fixture_ldt_set(fx, CASE_SEL_ODD >> 3, CASE_ODD_BASE, CASE_ODD_LIMIT, (uint16_t)((DESC_AVL | data) & ~DESC_DB));
    vm_fixture_ldt_set(fx, CASE_SEL_DOWNGS >> 3, CASE_DOWNGS_BASE, CASE_DOWNGS_LIMIT, DESC_AVL | data | DESC_DOWN);
    vm_fixture_ldt_set(fx, CASE_SEL_DOWN >> 3, 0, CASE_DOWN_LIMIT, DESC_AVL | DESC_G | data | DESC_DOWN);
}

struct engine *engine_new(const struct engine_options *o)
{
    struct engine *e = calloc(1, sizeof *e);
    struct vm_fixture_options options = {
        .bt = { .tc_bytes = o->tc_bytes,
                .chain = o->chain,
                .mem = (enum bt_mem_form)o->mem,
                .coherency = (enum bt_coherency)o->coherency,
                .max_insns = o->tu_insns,
                .verify = o->verify,
                .reuse = true,
                .callouts_only = o->callouts_only },
        .host_baseline = o->host_baseline,
    };

    if (!e)
        return NULL;
    e->fx = vm_fixture_new(&options);
    if (!e->fx) {
        free(e);
        return NULL;
    }
    struct host_x87 host;
    oracle_host_x87(&host);
    e->model = *cpu_model_find(host.fxsave_leaves_out ? "max" : "pentium4");
    e->model.fop_on_exception = host.fop_on_exception;
    e->model.fdp_on_exception = host.fdp_on_exception;
    e->model.no_fcs_fds = host.no_fcs_fds;
    e->fx->vm->model = &e->model;
    make_segments(e->fx);
    for (int i = 0; i < CASE_PAGES; i++)
        vm_fixture_map(e->fx, case_page_va[i], PTE_P | PTE_US | (i == PAGE_RODATA ? 0 : PTE_W));
    if (o->watched) {
        static const enum case_page data[MMU_WATCHED_MAX] = { PAGE_DATA0, PAGE_DATA1, PAGE_RODATA, PAGE_STACK };
        uint32_t code = case_page_va[PAGE_CODE0] >> GUEST_PAGE_SHIFT, vpn[MMU_WATCHED_MAX];

        for (unsigned i = 0; i < MMU_WATCHED_MAX; i++)
            vpn[i] = case_page_va[data[i]] >> GUEST_PAGE_SHIFT;
        mmu_watch_pages(e->fx->cpu, vpn, MMU_WATCHED_MAX);
        bt_break_pages(e->fx->cpu, &code, 1);
    }
    return e;
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    vm_fixture_free(e->fx);
    free(e);
}

void engine_log(struct engine *e, bool on)
{
    e->fx->vm->log.mask = on ? 1u << LOG_in_asm | 1u << LOG_out_asm | 1u << LOG_exit | 1u << LOG_int : 0;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

static void load_state(struct vm_fixture *fx, const struct diff_state *s)
{
    struct vcpu *cpu = fx->cpu;

    vcpu_fpu_park(cpu);
    for (int i = 0; i < 8; i++)
        cpu->gpr[i] = s->gpr[i];
    cpu->eip = s->eip;
    vcpu_eflags_set(cpu, s->eflags);
    for (int seg = 0; seg < SEG_COUNT; seg++)
        vm_fixture_load_segment(fx, (enum seg_id)seg, s->sel[seg]);
    memcpy(cpu->fpu, s->fx, 288);
    struct x87_pointers p = { .fip = get32(s->fx + 8), .fdp = get32(s->fx + 16), .fop = (uint16_t)(s->fx[6] | s->fx[7] << 8) };
    x87_pointers_set(cpu, &p);
    vm_fixture_enter(fx);
}

static void save_state(struct vm_fixture *fx, const struct vm_fixture_frame *frame, struct diff_state *s)
{
    struct vcpu *cpu = fx->cpu;

    for (int i = 0; i < 8; i++)
        s->gpr[i] = frame->gpr[i];
    s->eip = frame->eip;
    s->eflags = frame->eflags;
    for (int seg = 0; seg < SEG_COUNT; seg++)
        s->sel[seg] = cpu->segs[seg].sel;
    s->sel[SEG_CS] = (uint16_t)frame->cs;
    s->sel[SEG_SS] = (uint16_t)frame->ss;
    vcpu_fpu_park(cpu);
    memcpy(s->fx, cpu->fpu, sizeof s->fx);
    struct x87_pointers p;
    x87_pointers_get(cpu, (uint16_t)(s->fx[2] | s->fx[3] << 8), &p);
    memcpy(s->fx + 6, &p.fop, 2);
    memcpy(s->fx + 8, &p.fip, 4);
    memcpy(s->fx + 16, &p.fdp, 4);
}

void engine_run(struct engine *e, const struct diff_case *c, struct diff_result *out)
{
    struct mmu *mmu = e->fx->cpu->mmu;
    struct vm_fixture_frame frame = { 0 };

    memset(out, 0, offsetof(struct diff_result, mem));
    case_fill_memory(c, out->mem);
    for (int i = 0; i < CASE_PAGES; i++)
        mmu_phys_write(mmu, gpa(case_page_va[i]), out->mem[i], CASE_PAGE);
    load_state(e->fx, &c->init);
    if (vm_fixture_run(e->fx, &frame, out->note, sizeof out->note) != VM_FIXTURE_EXCEPTION) {
        out->end = END_LOST;
        return;
    }
    out->end = END_FAULT;
    out->vector = (uint8_t)frame.vector;
    out->error = frame.error;
    out->cr2 = frame.vector == EXC_PF ? e->fx->cpu->cr2 : 0;
    save_state(e->fx, &frame, &out->state);
    for (int i = 0; i < CASE_PAGES; i++)
        mmu_phys_read(mmu, gpa(case_page_va[i]), out->mem[i], CASE_PAGE);
}
