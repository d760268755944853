/*
 * Direct execution: the guest's user code runs on the processor as it is, where the platform has a way
 * (host_features.direct) and the state is one that the processor shows user code as the guest's would.
 *
 * The rule that keeps it simple: whatever the processor does not let user code do is done by the translator, one
 * instruction at a time. A page missing in the window is filled; every other exception says no more than "not this
 * instruction", and the instruction runs translated, to which privilege, gates, ports, breakpoints and page faults
 * are the guest's. Only a trap that comes after its instruction is delivered from here.
 *
 * What is not for the processor:
 *  - VM86, 16-bit segments, single-stepping, RF, breakpoints, paging off, A20 masked;
 *  - IF = 0, IOPL > 0, VIF or VIP: flags that the processor would show otherwise;
 *  - an FPU that is off, SSE that is not enabled: the processor's are on;
 *  - a time stamp counter that is not the host's, or that user code may not read; the instruction clock;
 *  - an LDT; a GDT of more than DIRECT_DESCRIPTORS; a segment register whose hidden part is not what its descriptor in
 *    the GDT says now, which a load would change ("non-reversible").
 *
 * The GDT is read at each entry, as user code may load what is in it, and handed to the platform when it has changed.
 */
#include "monitor/direct.h"

#include "base/log.h"
#include "base/string.h"
#include "mmu/window.h"
#include "monitor/transfer.h"

#define REFUSED_FLAGS (EFL_TF | EFL_IOPL | EFL_RF | EFL_VM | EFL_VIF | EFL_VIP)

static bool is_plain(const struct vm *vm)
{
    const struct vcpu *cpu = vm->cpu;
    const uint32_t need = MODE_CPL3 | MODE_PROTECTED | MODE_CODE32 | MODE_STACK32;
    const uint32_t refused = MODE_VM86 | MODE_STEP | MODE_FPU_NM | MODE_WAIT_NM | MODE_SSE_UD;

    if ((cpu->mode & (need | refused)) != need || (cpu->eflags_sys & REFUSED_FLAGS) || !cpu->eflags_if)
        return false;
    if (!(cpu->cr0 & CR0_PG) || (cpu->cr4 & CR4_TSD) || cpu->tsc_offset || vm->config.clock_insn)
        return false;
    return !cpu->has_breakpoints && !cpu->resumes && !cpu->a20_off && !(cpu->ldtr.attr & DESC_P);
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static bool sync_descriptors(struct vm *vm)
{
    uint64_t now[DIRECT_DESCRIPTORS];
    struct vcpu *cpu = vm->cpu;
    unsigned count = (cpu->gdtr.limit + 1u) / 8;

    if (count < 2 || count > DIRECT_DESCRIPTORS ||
        mmu_read_system(cpu, gva(cpu->gdtr.base), now, count * 8) != X86_OK)
        return false;
    if (vm->direct_known && count == vm->direct_count && !memcmp(now, vm->direct_gdt, count * 8))
        return true;
    memcpy(vm->direct_gdt, now, count * 8);
    vm->direct_count = count;
    vm->direct_known = true;
    vm->config.host.direct->descriptors(vm->direct_gdt, count);
    return true;
}

/* The segment that a load of `sel` gives at CPL 3; false when the descriptor is none that user code has. */
static bool segment_of(const struct vm *vm, uint16_t sel, struct segment *out)
{
    unsigned i = sel / 8;

    if (sel_is_null(sel)) {
        *out = (struct segment){ .sel = sel };
        return true;
    }
    if ((sel & SEL_TI) || i >= vm->direct_count)
        return false;
    const struct desc d = { .lo = (uint32_t)vm->direct_gdt[i], .hi = (uint32_t)(vm->direct_gdt[i] >> 32) };
    *out = desc_segment(&d, sel);
    return true;
}

static bool is_reversible(const struct vm *vm)
{
    for (int i = 0; i < SEG_COUNT; i++) {
        const struct segment *s = &vm->cpu->segs[i];
        struct segment now;

        if (!segment_of(vm, s->sel, &now) || s->base != now.base || s->limit != now.limit || s->attr != now.attr)
            return false;
    }
    return true;
}

/* Selectors that user code has loaded get their hidden parts. IRET makes 0 of any null selector. */
static void take_segments(struct vm *vm, const struct segment before[SEG_COUNT])
{
    struct vcpu *cpu = vm->cpu;
    bool changed = false;

    for (int i = 0; i < SEG_COUNT; i++) {
        struct segment *s = &cpu->segs[i], now;
        bool stays = s->sel == before[i].sel || (sel_is_null(s->sel) && sel_is_null(before[i].sel));

        if (stays) {
            s->sel = before[i].sel;
        } else if (segment_of(vm, s->sel, &now)) { /* the platform let nothing else through */
            *s = now;
            changed = true;
        }
    }
    if (changed || ((cpu->mode & MODE_ALIGN) != 0) != ((cpu->eflags_sys & EFL_AC) && (cpu->cr0 & CR0_AM)))
        vcpu_update_mode(cpu);
}

/* ---- running -------------------------------------------------------------------------------- */

/* Can the page be had in the window? If not, the instruction itself finds out why, translated. */
static bool fill(struct vcpu *cpu, const struct direct_exit *e)
{
    struct walk walk;

    if ((e->error & PF_ID) && (mmu_walk(cpu, gva(e->address), ACC_EXEC | ACC_USER, &walk) != X86_OK || !walk.is_executable))
        return false;
    STAT_INC(cpu, pf_hidden);
    enum window_fill done = mmu_window_fill(cpu, VIEW_USER, gva(e->address), (e->error & PF_WR) != 0);
    return done == WINDOW_FILLED || done == WINDOW_FILLED_AGAIN;
}

static enum direct_next after(struct vm *vm, const struct direct_exit *e)
{
    struct vcpu *cpu = vm->cpu;

    if (e->vector == DIRECT_INTERRUPTED)
        return DIRECT_LOOK;
    if (e->vector == EXC_DB) { /* a trap: user code set TF, or had an INT1 */
        vcpu_update_mode(cpu);
        cpu->fault = (struct fault){ .vector = EXC_DB, .dr6 = e->dr6 };
        return DIRECT_FAULT;
    }
    return DIRECT_STEP;
}

enum direct_next direct_run(struct vm *vm)
{
    struct vcpu *cpu = vm->cpu;
    struct segment before[SEG_COUNT];
    struct direct_exit e, last = { .vector = DIRECT_INTERRUPTED };
    uint32_t last_eip = 0;

    if (!is_plain(vm) || !sync_descriptors(vm) || !is_reversible(vm))
        return DIRECT_TRANSLATE;
    memcpy(before, cpu->segs, sizeof before);
    vcpu_x87_settle(cpu);
    for (;;) {
        if (!bt_direct_window(cpu))
            return DIRECT_TRANSLATE;
        LOG(cpu->log, exec, "direct EIP 0x%08x esp 0x%08x\n", cpu->eip, cpu->gpr[ESP]);
        if (!vm->config.host.direct->run(cpu, &e))
            return DIRECT_TRANSLATE;
        take_segments(vm, before);
        memcpy(before, cpu->segs, sizeof before);
        bool again = e.vector == last.vector && e.address == last.address && e.error == last.error && cpu->eip == last_eip;
        if (e.vector != EXC_PF || again || !fill(cpu, &e))
            return after(vm, &e);
        if (cpu->eflags_sys & EFL_TF) /* the instruction before has set it */
            return DIRECT_STEP;
        last = e;
        last_eip = cpu->eip;
    }
}
