/*
 * The short way through interrupts and IRET: INT n, exceptions and interrupts from flat 32-bit
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
#define MODE_KEPT (MODE_FS_BASED | MODE_GS_BASED | MODE_FPU_NM | MODE_WAIT_NM | MODE_SSE_UD | MODE_WINDOW)
#define MODE_FLAT32 (MODE_PROTECTED | MODE_CODE32 | MODE_STACK32 | MODE_ALL_FLAT)

struct pair {
    uint32_t lo, hi;
};

static inline bool load_pair(const struct vcpu *cpu, uint32_t va, struct pair *p)
{
    const uint8_t *at = mmu_slot(cpu, VIEW_LOAD_OFS, va, sizeof *p);

    if (!at)
        return false;
    __builtin_memcpy(p, at, sizeof *p);
    return true;
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

static inline struct segment flat_segment(unsigned sel, uint16_t attr)
{
    return (struct segment){ .sel = (uint16_t)sel, .attr = attr, .limit = UINT32_MAX };
}

/* Flat 32-bit code of ring 0 or 3, not stepped and not at CPL 3 with alignment checks. */
static inline bool is_plain(const struct vcpu *cpu)
{
    uint32_t mode = cpu->mode;

    if (cpu->no_shortcuts || !(mode & MODE_CPL))
        return false;
    return (mode & (MODE_FLAT32 | MODE_VM86 | MODE_STEP | MODE_ALIGN)) == MODE_FLAT32;
}

static inline void enter(struct vcpu *cpu, struct segment cs, uint32_t eip, unsigned cpl)
{
    cpu->segs[SEG_CS] = cs;
    cpu->eip = eip;
    cpu->cpl = (uint8_t)cpl;
    cpu->mode = (cpu->mode & MODE_KEPT) | MODE_FLAT32 | (cpl ? MODE_CPL3 : MODE_CPL0);
    mmu_select_view(cpu);
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
    if (from_user) {
        cpu->segs[SEG_SS] = flat_segment(ss_sel, ss_attr);
        cpu->seg_base[SEG_SS] = 0;
    }
    cpu->gpr[ESP] = esp;
    if (!(gate.hi & (1u << 8)))
        cpu->eflags_if = 0;
    cpu->eflags_sys &= ~(EFL_TF | EFL_RF | EFL_NT);
    cpu->seg_base[SEG_CS] = 0;
    enter(cpu, flat_segment(cs_sel & ~SEL_RPL, cs_attr), (gate.hi & 0xffff0000u) | (gate.lo & 0xffffu), 0);
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

bool shortcut_iret(struct vcpu *cpu)
{
    const uint32_t kept = EFL_IOPL | EFL_VIF | EFL_VIP | EFL_ID;
    const uint32_t rare = EFL_TF | EFL_NT | EFL_VM | EFL_AC;
    const struct segment *s = cpu->segs;
    uint32_t esp = cpu->gpr[ESP], frame[5]; /* EIP, CS, EFLAGS, ESP, SS */
    const uint8_t *at;
    uint16_t cs_attr, ss_attr;

    if (!is_plain(cpu) || cpu->cpl != 0 || (cpu->eflags_sys & EFL_NT))
        return false;
    at = mmu_slot(cpu, VIEW_LOAD_OFS, esp, 12);
    if (!at)
        return false;
    __builtin_memcpy(frame, at, 12);
    if (frame[2] & rare)
        return false;
    unsigned cs_sel = frame[1] & 0xffffu, cpl = cs_sel & SEL_RPL;
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
        __builtin_memcpy(&frame[3], at, 8);
        unsigned ss_sel = frame[4] & 0xffffu;
        ss_attr = (ss_sel & SEL_RPL) == 3 ? flat_attr(cpu, ss_sel, FLAT_DATA3) : 0;
        if (!ss_attr || !stays(&s[SEG_ES]) || !stays(&s[SEG_DS]) || !stays(&s[SEG_FS]) || !stays(&s[SEG_GS]))
            return false;
        vcpu_x87_settle(cpu);
        cpu->segs[SEG_SS] = flat_segment(ss_sel, ss_attr);
        cpu->seg_base[SEG_SS] = 0;
        cpu->gpr[ESP] = frame[3];
    }
    vcpu_arith_set(cpu, frame[2]);
    cpu->eflags_if = (frame[2] & EFL_IF) != 0;
    cpu->eflags_df = (frame[2] & EFL_DF) != 0;
    cpu->eflags_sys = frame[2] & (kept | EFL_RF);
    cpu->seg_base[SEG_CS] = 0;
    enter(cpu, flat_segment(cs_sel, cs_attr), frame[0], cpl);
    return true;
}
