/*
 * Hardware task switches: JMP, CALL, interrupt or IRET to a TSS, of 16 or 32 bits.
 *
 * Until the commit point every fault belongs to the old task and nothing has changed: all
 * memory that the switch writes is probed first. Then the old task's registers go to its
 * TSS, busy bits and back link change, and the registers of the new task are loaded. From
 * there on faults belong to the new task, whose EIP cpu->eip holds: the selectors are
 * checked one by one with the hidden parts still empty, as on the processor.
 *
 *   cause   old busy bit   new busy bit   NT in new task   back link of new task
 *   JMP     cleared        set            as loaded        -
 *   CALL    stays          set            set              old TR
 *   IRET    cleared        stays          as loaded        -      (NT cleared in the old image)
 *
 * Ref: Intel SDM vol. 3A, ch. "Task Management".
 */
#include "base/log.h"
#include "base/string.h"
#include "monitor/debug.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

/* Offsets in a 32-bit TSS. */
#define TSS32_CR3   0x1c
#define TSS32_EIP   0x20 /* EIP EFLAGS EAX..EDI ES CS SS DS FS GS, four bytes each */
#define TSS32_LDT   0x60
#define TSS32_TRAP  0x64
#define TSS32_BYTES 0x68
#define TSS32_SAVED 0x40 /* bytes from TSS32_EIP that a switch writes */

/* Offsets in a 16-bit TSS. */
#define TSS16_IP    0x0e /* IP FLAGS AX..DI ES CS SS DS, two bytes each */
#define TSS16_LDT   0x2a
#define TSS16_BYTES 0x2c
#define TSS16_SAVED 0x1c

#define TSS_LINK  0
#define TSS_BUSY  2u
#define TSS_IS_32 8u

/** What a TSS says about its task. */
struct task_state {
    uint32_t cr3, eip, eflags;
    uint32_t gpr[8];
    uint16_t sel[SEG_COUNT];
    uint16_t ldt;
    bool is32;
};

static unsigned load16(const uint8_t *p)
{
    return p[0] | (unsigned)p[1] << 8;
}
static uint32_t load32(const uint8_t *p)
{
    return load16(p) | (uint32_t)load16(p + 2) << 16;
}

static void store16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void store32(uint8_t *p, uint32_t v)
{
    store16(p, v & 0xffffu);
    store16(p + 2, v >> 16);
}

/* ---- the two layouts ------------------------------------------------------------------- */

static void parse32(const uint8_t *tss, struct task_state *t)
{
    const uint8_t *p = tss + TSS32_EIP;

    t->cr3 = load32(tss + TSS32_CR3);
    t->eip = load32(p);
    t->eflags = load32(p + 4);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = load32(p + 8 + 4 * i);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        t->sel[i] = (uint16_t)load16(p + 40 + 4 * i);
    t->ldt = (uint16_t)load16(tss + TSS32_LDT);
}

/* Upper halves of the registers "are modified and not maintained" (SDM vol. 3A, "16-Bit Task-State Segment (TSS)"):
 * zero. FS and GS become null. */
static void parse16(const uint8_t *tss, struct task_state *t)
{
    const uint8_t *p = tss + TSS16_IP;

    t->cr3 = 0;
    t->eip = load16(p);
    t->eflags = load16(p + 2);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = load16(p + 4 + 2 * i);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        t->sel[i] = i <= SEG_DS ? (uint16_t)load16(p + 20 + 2 * i) : 0;
    t->ldt = (uint16_t)load16(tss + TSS16_LDT);
}

static void format32(const struct vcpu *cpu, uint8_t *p, uint32_t eip, uint32_t eflags)
{
    store32(p, eip);
    store32(p + 4, eflags);
    for (unsigned i = 0; i < 8; i++)
        store32(p + 8 + 4 * i, cpu->gpr[i]);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        store16(p + 40 + 4 * i, cpu->segs[i].sel);
}

static void format16(const struct vcpu *cpu, uint8_t *p, uint32_t eip, uint32_t eflags)
{
    store16(p, eip & 0xffffu);
    store16(p + 2, eflags & 0xffffu);
    for (unsigned i = 0; i < 8; i++)
        store16(p + 4 + 2 * i, cpu->gpr[i] & 0xffffu);
    for (unsigned i = 0; i <= SEG_DS; i++)
        store16(p + 20 + 2 * i, cpu->segs[i].sel);
}

/* ---- before the commit point -------------------------------------------------------------- */

static bool is_tss(unsigned type)
{
    return type == SYS_TSS16_AVAIL || type == SYS_TSS16_BUSY || type == SYS_TSS32_AVAIL ||
           type == SYS_TSS32_BUSY;
}

static enum x86_rc target_check(struct vcpu *cpu, uint16_t sel, const struct desc *d, enum task_cause cause,
                                unsigned ext)
{
    unsigned type = desc_sys_type(d);
    bool wants_busy = cause == TASK_IRET;
    bool is_right = is_tss(type) && ((type & TSS_BUSY) != 0) == wants_busy && !(sel & SEL_TI);

    if (!is_right)
        return raise_sel(cpu, cause == TASK_IRET ? EXC_TS : EXC_GP, sel, ext);
    if (!desc_is_present(d))
        return raise_sel(cpu, EXC_NP, sel, ext);
    if (desc_limit(d) < ((type & TSS_IS_32) ? TSS32_BYTES : TSS16_BYTES) - 1)
        return raise_sel(cpu, EXC_TS, sel, ext);
    return X86_OK;
}

static enum x86_rc read_new(struct vcpu *cpu, const struct desc *d, struct task_state *t)
{
    uint8_t tss[TSS32_BYTES];
    enum x86_rc rc;

    t->is32 = (desc_sys_type(d) & TSS_IS_32) != 0;
    unsigned first = t->is32 ? TSS32_CR3 : TSS16_IP; /* link and stacks of other rings are not read */
    unsigned end = t->is32 ? TSS32_BYTES : TSS16_BYTES;

    rc = mmu_read_system(cpu, gva(desc_base(d) + first), tss + first, end - first);
    if (rc != X86_OK)
        return rc;
    if (t->is32)
        parse32(tss, t);
    else
        parse16(tss, t);
    return X86_OK;
}

static enum x86_rc probe_write(struct vcpu *cpu, gva_t va, unsigned size)
{
    hva_t hva;

    return mmu_probe(cpu, va, size, ACC_WRITE, &hva);
}

/* Old task's descriptor, for its busy bit; a nested call leaves that alone. */
static enum x86_rc old_descriptor(struct vcpu *cpu, struct desc *old, enum task_cause cause, unsigned ext)
{
    *old = (struct desc){ .at = { 0 } };
    return cause == TASK_CALL ? X86_OK : desc_fetch(cpu, cpu->tr.sel, EXC_TS, ext, old);
}

static bool old_is32(const struct vcpu *cpu)
{
    return (cpu->tr.attr & TSS_IS_32) != 0;
}

static gva_t old_save_area(const struct vcpu *cpu)
{
    return gva(cpu->tr.base + (old_is32(cpu) ? TSS32_EIP : TSS16_IP));
}

static unsigned old_save_bytes(const struct vcpu *cpu)
{
    return old_is32(cpu) ? TSS32_SAVED : TSS16_SAVED;
}

/* Everything the switch is going to write must be writable before it writes anything. */
static enum x86_rc probe_all(struct vcpu *cpu, const struct desc *old, const struct desc *new_desc,
                             enum task_cause cause)
{
    mmu_make_room(cpu); /* so that the writes find what the probes found */
    enum x86_rc rc = probe_write(cpu, old_save_area(cpu), old_save_bytes(cpu));

    if (rc == X86_OK && cause != TASK_CALL)
        rc = probe_write(cpu, gva_add(old->at, 5), 1);
    if (rc == X86_OK && cause == TASK_CALL)
        rc = probe_write(cpu, gva(desc_base(new_desc) + TSS_LINK), 2);
    if (rc == X86_OK && cause != TASK_IRET)
        rc = probe_write(cpu, gva_add(new_desc->at, 5), 1);
    return rc;
}

/* With PAE a CR3 whose PDPTEs are bad raises #GP(0); find out without keeping them. */
static enum x86_rc probe_cr3(struct vcpu *cpu, const struct task_state *t)
{
    uint64_t kept[4];
    enum x86_rc rc;

    if (!t->is32 || !(cpu->cr0 & CR0_PG) || !(cpu->cr4 & CR4_PAE))
        return X86_OK;
    memcpy(kept, cpu->pdpte, sizeof kept);
    rc = mmu_load_pdptes(cpu, t->cr3);
    memcpy(cpu->pdpte, kept, sizeof kept);
    return rc;
}

/* ---- the commit --------------------------------------------------------------------------- */

static enum x86_rc save_old(struct vcpu *cpu, enum task_cause cause, uint32_t eip)
{
    uint32_t eflags = vcpu_eflags_get(cpu) & ~(cause == TASK_IRET ? EFL_NT : 0u);
    gva_t area = old_save_area(cpu);
    unsigned bytes = old_save_bytes(cpu);
    uint8_t image[TSS32_SAVED];
    enum x86_rc rc = mmu_read_system(cpu, area, image, bytes); /* reserved halves stay */

    if (rc != X86_OK)
        return rc;
    if (old_is32(cpu))
        format32(cpu, image, eip, eflags);
    else
        format16(cpu, image, eip, eflags);
    return mmu_write_system(cpu, area, image, bytes);
}

static enum x86_rc set_busy(struct vcpu *cpu, struct desc *d, bool busy)
{
    uint8_t rights;

    d->hi = busy ? d->hi | TSS_BUSY << 8 : d->hi & ~(TSS_BUSY << 8);
    rights = (uint8_t)(d->hi >> 8);
    return mmu_write_system(cpu, gva_add(d->at, 5), &rights, 1);
}

static enum x86_rc write_links(struct vcpu *cpu, struct desc *old, struct desc *new_desc,
                               enum task_cause cause)
{
    enum x86_rc rc = X86_OK;

    if (cause != TASK_CALL)
        rc = set_busy(cpu, old, false);
    if (rc == X86_OK && cause == TASK_CALL)
        rc = mmu_write_system(cpu, gva(desc_base(new_desc) + TSS_LINK), &cpu->tr.sel, 2);
    if (rc == X86_OK && cause != TASK_IRET)
        rc = set_busy(cpu, new_desc, true);
    return rc;
}

/* The new registers, selectors without hidden parts. */
static void load_registers(struct vcpu *cpu, const struct task_state *t, enum task_cause cause)
{
    uint32_t eflags = t->eflags | (cause == TASK_CALL ? EFL_NT : 0u);

    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = t->gpr[i];
    cpu->eip = t->eip;
    vcpu_x87_settle(cpu);
    vcpu_eflags_set(cpu, eflags);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = (struct segment){ .sel = t->sel[i] };
    cpu->ldtr = (struct segment){ .sel = t->ldt };
    cpu->cpl = (eflags & EFL_VM) ? 3 : (uint8_t)sel_rpl(t->sel[SEG_CS]);
    cpu->cr0 |= CR0_TS;
    if (cpu->dr[7] & DR7_LOCAL) { /* they do not survive a task switch */
        cpu->dr[7] &= ~DR7_LOCAL;
        debug_update(cpu);
    }
    cpu->debug_hits &= ~DR6_BS; /* the new task's TF counts from its first instruction on */
    if (t->is32 && (cpu->cr0 & CR0_PG)) {
        cpu->cr3 = t->cr3;
        mmu_cr3_loaded(cpu);
    }
}

/* ---- in the new task ------------------------------------------------------------------------ */

static enum x86_rc load_ldt(struct vcpu *cpu, unsigned ext)
{
    uint16_t sel = cpu->ldtr.sel;
    struct desc d;
    enum x86_rc rc;

    if (sel_is_null(sel))
        return X86_OK;
    if (sel & SEL_TI)
        return raise_sel(cpu, EXC_TS, sel, ext);
    rc = desc_fetch(cpu, sel, EXC_TS, ext, &d);
    if (rc != X86_OK)
        return rc;
    if (desc_sys_type(&d) != SYS_LDT || !desc_is_present(&d))
        return raise_sel(cpu, EXC_TS, sel, ext);
    cpu->ldtr = desc_segment(&d, sel);
    return X86_OK;
}

static enum x86_rc load_code(struct vcpu *cpu, unsigned ext)
{
    uint16_t sel = cpu->segs[SEG_CS].sel;
    struct desc d;
    enum x86_rc rc;

    if (sel_is_null(sel))
        return raise_sel(cpu, EXC_TS, 0, ext);
    rc = desc_fetch(cpu, sel, EXC_TS, ext, &d);
    if (rc != X86_OK)
        return rc;
    if (!desc_is_code(&d))
        return raise_sel(cpu, EXC_TS, sel, ext);
    if (desc_is_conforming(&d) ? desc_dpl(&d) > sel_rpl(sel) : desc_dpl(&d) != sel_rpl(sel))
        return raise_sel(cpu, EXC_TS, sel, ext);
    if (!desc_is_present(&d))
        return raise_sel(cpu, EXC_NP, sel, ext);
    rc = desc_touch(cpu, &d);
    if (rc == X86_OK)
        cpu->segs[SEG_CS] = desc_segment(&d, sel);
    return rc;
}

static enum x86_rc load_data(struct vcpu *cpu, unsigned ext)
{
    static const uint8_t order[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };
    struct segment loaded;
    enum x86_rc rc = X86_OK;

    for (size_t i = 0; i < ARRAY_LEN(order) && rc == X86_OK; i++) {
        struct segment *s = &cpu->segs[order[i]];

        rc = data_segment_check(cpu, s->sel, EXC_TS, ext, &loaded);
        if (rc == X86_OK)
            *s = loaded;
    }
    return rc;
}

static enum x86_rc load_segments(struct vcpu *cpu, unsigned ext)
{
    struct segment ss;
    enum x86_rc rc = load_ldt(cpu, ext);

    if (rc != X86_OK)
        return rc;
    if (cpu->eflags_sys & EFL_VM) {
        for (unsigned i = 0; i < SEG_COUNT; i++)
            cpu->segs[i] = segment_vm86(cpu->segs[i].sel);
        return X86_OK;
    }
    rc = load_code(cpu, ext);
    if (rc == X86_OK)
        rc = stack_segment_check(cpu, cpu->segs[SEG_SS].sel, cpu->cpl, EXC_TS, ext, &ss);
    if (rc != X86_OK)
        return rc;
    cpu->segs[SEG_SS] = ss;
    return load_data(cpu, ext);
}

enum x86_rc task_switch(struct vcpu *cpu, uint16_t sel, struct desc *d, enum task_cause cause, unsigned ext,
                        uint32_t save_eip)
{
    struct task_state t;
    struct desc old;
    enum x86_rc rc = target_check(cpu, sel, d, cause, ext);

    if (rc == X86_OK)
        rc = read_new(cpu, d, &t);
    if (rc == X86_OK)
        rc = old_descriptor(cpu, &old, cause, ext);
    if (rc == X86_OK)
        rc = probe_all(cpu, &old, d, cause);
    if (rc == X86_OK)
        rc = probe_cr3(cpu, &t);
    if (rc == X86_OK)
        rc = save_old(cpu, cause, save_eip);
    if (rc == X86_OK)
        rc = write_links(cpu, &old, d, cause);
    if (rc != X86_OK)
        return rc;

    LOG(cpu->log, int, "task: 0x%04x to 0x%04x, eip 0x%08x\n", cpu->tr.sel, sel, t.eip);
    d->hi |= TSS_BUSY << 8;
    cpu->tr = desc_segment(d, sel);
    load_registers(cpu, &t, cause);
    rc = load_segments(cpu, ext);
    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
    return rc;
}

enum x86_rc task_switch_sel(struct vcpu *cpu, uint16_t sel, enum task_cause cause, unsigned ext,
                            uint32_t save_eip)
{
    enum exc_vector vector = cause == TASK_IRET ? EXC_TS : EXC_GP;
    struct desc d;
    enum x86_rc rc;

    if (sel & SEL_TI)
        return raise_sel(cpu, vector, sel, ext);
    rc = desc_fetch(cpu, sel, vector, ext, &d);
    return rc == X86_OK ? task_switch(cpu, sel, &d, cause, ext, save_eip) : rc;
}

enum x86_rc task_finish(struct vcpu *cpu, unsigned ext)
{
    uint16_t trap = 0;
    enum x86_rc rc = eip_check(cpu, &cpu->segs[SEG_CS], cpu->eip, ext);

    if (rc == X86_OK && (cpu->tr.attr & TSS_IS_32))
        rc = mmu_read_system(cpu, gva(cpu->tr.base + TSS32_TRAP), &trap, sizeof trap);
    if (rc == X86_OK && (trap & 1u))
        cpu->debug_hits |= DR6_BT;
    return rc;
}
