/*
 * The short way through interrupts, IRET and segment loads: INT n, exceptions and interrupts from flat 32-bit
 * code to a flat 32-bit handler of ring 0, and the way back to ring 0 or 3. That is what 32-bit
 * systems do a thousand times a second.
 *
 * Nothing is remembered from one time to the next, so nothing can be stale: gate, descriptors,
 * stack pointer and frame are read and written where they lie, through the slots of the
 * supervisor view (mmu_slot). A flat code or data descriptor is one value of eight
 * bytes but for AVL, so that a comparison with it stands for all checks of type, presence,
 * privilege, base, limit and Accessed bit. Whatever is otherwise (another descriptor, an empty slot,
 * a table's limit, a flag that is rarely set) answers false before anything has changed,
 * and the long way (interrupt.c, iret.c) begins anew, faults and all.
 *
 * The mode word is not made up from the segments: they are flat before and after.
 *
 * Invariant: true means that the state is what the long way would have made it.
 * tests/unit/monitor/test_shortcut.c compares the two.
 * Ref: SDM vol. 2, INT n/INTO/INT3/INT1, IRET/IRETD; vol. 3A, ch. "Interrupt and Exception Handling".
 */
#include "base/log.h"
#include "base/string.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

/*
 * The descriptor of a flat segment, lower and upper doubleword:
 *
 *   31    24 23 22 21  20  19   16 15 14 13 12 11   8 7     0 | 31    16 15     0
 *  +--------+--+--+---+---+-------+--+-----+--+------+--------+---------+--------+
 *  | base 0 | G|DB| L |AVL| lim F | P| DPL | S| type | base 0 | base 0  | FFFF   |
 *  +--------+--+--+---+---+-------+--+-----+--+------+--------+---------+--------+
 *             1  1  0   x             1       1  code: execute, read, accessed; data: write, accessed
 */
#define FLAT_LO    0x0000ffffu
#define FLAT_CODE0 0x00cf9b00u
#define FLAT_CODE3 0x00cffb00u
#define FLAT_DATA0 0x00cf9300u
#define FLAT_DATA3 0x00cff300u
#define HI_AVL     0x00100000u

#define TSS32_ESP0 4u
#define TSS32_ESP0_END 9u /* last byte of SS0 */

/* Bits of the mode word that neither way touches; the rest follow from flatness and privilege. */
#define MODE_KEPT (MODE_FPU_NM | MODE_WAIT_NM | MODE_SSE_UD | MODE_WINDOW)
#define MODE_FLAT32 (MODE_PROTECTED | MODE_CODE32 | MODE_STACK32 | MODE_ALL_FLAT)

struct pair {
    uint32_t lo, hi;
};

/* Flat 32-bit code of ring 0 or 3, not stepped and not at CPL 3 with alignment checks. */
static inline bool is_plain(const struct vcpu *cpu)
{
    uint32_t mode = cpu->mode;

    if (cpu->no_shortcuts || !(mode & MODE_CPL))
        return false;
    return (mode & (MODE_FLAT32 | MODE_VM86 | MODE_STEP | MODE_ALIGN)) == MODE_FLAT32;
}

static inline bool load_pair(const struct vcpu *cpu, uint32_t va, struct pair *p)
{
    const uint8_t *at = mmu_slot(cpu, VIEW_LOAD_OFS, va, sizeof *p);

    if (!at)
        return false;
    __builtin_memcpy(p, at, sizeof *p);
    return true;
}

/* A doubleword of a stack. Frames are read so, one by one: a wider load would wait for the narrow stores that
 * made them. */
static inline uint32_t load32(const uint8_t *at)
{
    uint32_t v;

    __builtin_memcpy(&v, at, sizeof v);
    return v;
}

/* The attributes of the flat segment that `sel` names in the GDT; 0 if it is none with upper doubleword `hi`. */
static inline uint16_t flat_attr(const struct vcpu *cpu, unsigned sel, uint32_t hi)
{
    struct pair d;

    if ((sel & SEL_TI) || !(sel & SEL_INDEX) || (sel | 7u) > cpu->gdtr.limit)
        return 0;
    if (!load_pair(cpu, cpu->gdtr.base + (sel & SEL_INDEX), &d))
        return 0;
    if (d.lo != FLAT_LO || (d.hi & ~HI_AVL) != hi)
        return 0;
    return (uint16_t)(d.hi >> 8 & 0xf0ffu);
}

/* Field by field: a struct that is made elsewhere and copied waits for its narrow stores (15 clocks each). */
static inline void set_segment(struct vcpu *cpu, enum seg_id seg, unsigned sel, unsigned attr, uint32_t base, uint32_t limit)
{
    struct segment *s = &cpu->segs[seg];

    s->sel = (uint16_t)sel;
    s->attr = (uint16_t)attr;
    s->base = cpu->seg_base[seg] = base;
    s->limit = limit;
}

static inline void set_flat(struct vcpu *cpu, enum seg_id seg, unsigned sel, uint16_t attr)
{
    set_segment(cpu, seg, sel, attr, 0, UINT32_MAX);
}

static inline void enter(struct vcpu *cpu, unsigned cs_sel, uint16_t cs_attr, uint32_t eip, unsigned cpl)
{
    set_flat(cpu, SEG_CS, cs_sel, cs_attr);
    cpu->eip = eip;
    cpu->cpl = (uint8_t)cpl;
    cpu->mode = (cpu->mode & MODE_KEPT) | MODE_FLAT32 | (cpl ? MODE_CPL3 : MODE_CPL0);
    mmu_select_view(cpu);
}

/* ---- segment loads --------------------------------------------------------------------------- */

/* May `sel` be loaded into DS, ES, FS or GS with this descriptor: data, present and accessed? */
static inline bool data_serves(const struct vcpu *cpu, unsigned sel, const struct desc *d)
{
    const uint32_t mask = DESC_P | DESC_S | DESC_CODE | DESC_ACCESSED;

    return (desc_attr(d) & mask) == (DESC_P | DESC_S | DESC_ACCESSED) && cpu->cpl <= desc_dpl(d) &&
           (sel & SEL_RPL) <= desc_dpl(d);
}

bool shortcut_stack_peek(const struct vcpu *cpu, uint32_t *value)
{
    const uint8_t *at;

    if (!is_plain(cpu) || cpu->cpl != 0)
        return false;
    at = mmu_slot(cpu, VIEW_LOAD_OFS, cpu->gpr[ESP], 4);
    if (at)
        *value = load32(at);
    return at != NULL;
}

bool shortcut_segment_load(struct vcpu *cpu, enum seg_id seg, unsigned sel)
{
    bool is_flat = false;

    if (cpu->no_shortcuts || seg == SEG_SS || (cpu->mode & (MODE_PROTECTED | MODE_VM86)) != MODE_PROTECTED)
        return false;
    if (!(sel & (SEL_INDEX | SEL_TI))) {
        vcpu_x87_settle(cpu);
        set_segment(cpu, seg, sel, 0, 0, 0);
        if (seg >= SEG_FS)
            cpu->seg_plain[seg - SEG_FS] = 0;
    } else {
        struct pair pair;

        if ((sel & SEL_TI) || (sel | 7u) > cpu->gdtr.limit ||
            !load_pair(cpu, cpu->gdtr.base + (sel & SEL_INDEX), &pair))
            return false;
        const struct desc d = { .lo = pair.lo, .hi = pair.hi };
        if (!data_serves(cpu, sel, &d))
            return false;
        vcpu_x87_settle(cpu);
        set_segment(cpu, seg, sel, desc_attr(&d), desc_base(&d), desc_limit(&d));
        bool is_plain_now = segment_is_plain(&cpu->segs[seg]);
        is_flat = is_plain_now && desc_base(&d) == 0;
        if (seg >= SEG_FS)
            cpu->seg_plain[seg - SEG_FS] = is_plain_now;
    }
    /* Between flat segments the mode word stays; FS and GS have no part in it while the others are flat. */
    if ((cpu->mode & MODE_ALL_FLAT) != MODE_ALL_FLAT || (seg < SEG_FS && !is_flat))
        vcpu_update_mode(cpu);
    return true;
}

/* ---- to the handler ------------------------------------------------------------------------ */

/* A present 32-bit interrupt or trap gate that the event may use. */
static inline bool gate_serves(const struct vcpu *cpu, const struct event *e, const struct pair *gate)
{
    unsigned type = gate->hi >> 8 & 0x9fu, dpl = gate->hi >> 13 & 3u;

    return (type & ~1u) == (0x80u | SYS_INT32) && !(e->is_soft && dpl < cpu->cpl);
}

static inline bool ring0_stack(const struct vcpu *cpu, unsigned *sel, uint16_t *attr, uint32_t *esp)
{
    struct pair stack; /* ESP0, SS0 */

    if ((cpu->tr.attr & (DESC_P | 8u)) != (DESC_P | 8u) || cpu->tr.limit < TSS32_ESP0_END ||
        !load_pair(cpu, cpu->tr.base + TSS32_ESP0, &stack))
        return false;
    *sel = stack.hi & 0xffffu;
    *esp = stack.lo;
    *attr = (*sel & SEL_RPL) ? 0 : flat_attr(cpu, *sel, FLAT_DATA0);
    return *attr != 0;
}

bool shortcut_interrupt(struct vcpu *cpu, const struct event *e)
{
    uint32_t esp = cpu->gpr[ESP], frame[6];
    unsigned n = 0, cs_sel, ss_sel = 0;
    uint16_t cs_attr, ss_attr = 0;
    bool from_user = cpu->cpl != 0;
    struct pair gate;

    if (!is_plain(cpu) || e->vector * 8u + 7u > cpu->idtr.limit ||
        !load_pair(cpu, cpu->idtr.base + e->vector * 8u, &gate) || !gate_serves(cpu, e, &gate))
        return false;
    cs_sel = gate.lo >> 16;
    cs_attr = flat_attr(cpu, cs_sel, FLAT_CODE0);
    if (!cs_attr || (from_user && !ring0_stack(cpu, &ss_sel, &ss_attr, &esp)))
        return false;

    if (e->has_error)
        frame[n++] = e->error;
    frame[n++] = e->return_eip;
    frame[n++] = cpu->segs[SEG_CS].sel;
    frame[n++] = vcpu_eflags_get(cpu) | (e->sets_rf ? EFL_RF : 0u);
    if (from_user) {
        frame[n++] = cpu->gpr[ESP];
        frame[n++] = cpu->segs[SEG_SS].sel;
    }
    esp -= 4 * n;
    uint8_t *at = mmu_slot(cpu, VIEW_STORE_OFS, esp, 4 * n);
    if (!at)
        return false;
    for (unsigned i = 0; i < n; i++)
        __builtin_memcpy(at + 4 * i, &frame[i], 4);

    vcpu_x87_settle(cpu);
    if (from_user)
        set_flat(cpu, SEG_SS, ss_sel, ss_attr);
    cpu->gpr[ESP] = esp;
    if (!(gate.hi & (1u << 8)))
        cpu->eflags_if = 0;
    cpu->eflags_sys &= ~(EFL_TF | EFL_RF | EFL_NT);
    enter(cpu, cs_sel & ~SEL_RPL, cs_attr, (gate.hi & 0xffff0000u) | (gate.lo & 0xffffu), 0);
    return true;
}

/* ---- and back ---------------------------------------------------------------------------------- */

/* A data segment that a return to ring 3 leaves as it is (data_segments_revoke): of ring 3, or null as that makes it. */
static inline bool stays(const struct segment *s)
{
    if (sel_is_null(s->sel))
        return !(s->sel | s->attr | s->base | s->limit);
    return (s->attr & (DESC_P | DESC_DPL)) == (DESC_P | DESC_DPL);
}

/*
 *  | SS | ESP | EFLAGS | CS | EIP |   EIP at ESP; the first two in a return to ring 3
 */
bool shortcut_iret(struct vcpu *cpu)
{
    const uint32_t kept = EFL_IOPL | EFL_VIF | EFL_VIP | EFL_ID;
    const uint32_t rare = EFL_TF | EFL_NT | EFL_VM | EFL_AC;
    const struct segment *s = cpu->segs;
    uint32_t esp = cpu->gpr[ESP];
    const uint8_t *at;
    uint16_t cs_attr, ss_attr;

    if (!is_plain(cpu) || cpu->cpl != 0 || (cpu->eflags_sys & EFL_NT))
        return false;
    at = mmu_slot(cpu, VIEW_LOAD_OFS, esp, 12);
    if (!at)
        return false;
    uint32_t eip = load32(at), fl = load32(at + 8);
    if (fl & rare)
        return false;
    unsigned cs_sel = load32(at + 4) & 0xffffu, cpl = cs_sel & SEL_RPL;
    if (cpl == 0) {
        cs_attr = flat_attr(cpu, cs_sel, FLAT_CODE0);
        if (!cs_attr)
            return false;
        vcpu_x87_settle(cpu);
        cpu->gpr[ESP] = esp + 12;
    } else {
        at = mmu_slot(cpu, VIEW_LOAD_OFS, esp + 12, 8);
        cs_attr = cpl == 3 ? flat_attr(cpu, cs_sel, FLAT_CODE3) : 0;
        if (!at || !cs_attr)
            return false;
        unsigned ss_sel = load32(at + 4) & 0xffffu;
        ss_attr = (ss_sel & SEL_RPL) == 3 ? flat_attr(cpu, ss_sel, FLAT_DATA3) : 0;
        if (!ss_attr || !stays(&s[SEG_ES]) || !stays(&s[SEG_DS]) || !stays(&s[SEG_FS]) || !stays(&s[SEG_GS]))
            return false;
        vcpu_x87_settle(cpu);
        set_flat(cpu, SEG_SS, ss_sel, ss_attr);
        cpu->gpr[ESP] = load32(at);
    }
    vcpu_arith_set(cpu, fl);
    cpu->eflags_if = (fl & EFL_IF) != 0;
    cpu->eflags_df = (fl & EFL_DF) != 0;
    cpu->eflags_sys = fl & (kept | EFL_RF);
    enter(cpu, cs_sel, cs_attr, eip, cpl);
    return true;
}
