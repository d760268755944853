/*
 * Instructions that 64-bit mode lacks: decimal adjustments, BOUND, ENTER (its
 * nesting form at least), PUSHA and POPA.
 *
 * The decimal arithmetic is in bt/sem/bcd.h. The stack instructions look at every
 * slot first (segment limit and pages) and only then move data, so that a fault
 * leaves registers and memory as they were; the moves themselves happen in the
 * hardware's order, which shows when ENTER copies from the frame it is building.
 * Ref: Intel SDM vol. 2A and 2B, under the instructions' names.
 */
#include "bt/sem/bcd.h"
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"

/* ---- decimal --------------------------------------------------------------- */

static void set_ax(struct vcpu *cpu, uint16_t ax, uint32_t flags)
{
    set_reg(cpu, EAX, 2, ax);
    vcpu_arith_set(cpu, flags);
}

static enum exit_reason adjust(struct vcpu *cpu, uint16_t (*op)(uint16_t ax, uint32_t *fl))
{
    uint32_t flags = vcpu_arith_get(cpu);
    uint16_t ax = op((uint16_t)cpu->gpr[EAX], &flags);

    set_ax(cpu, ax, flags);
    return EXIT_RESUME;
}

enum exit_reason callout_daa(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return adjust(cpu, sem_daa);
}

enum exit_reason callout_das(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return adjust(cpu, sem_das);
}

enum exit_reason callout_aaa(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return adjust(cpu, sem_aaa);
}

enum exit_reason callout_aas(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return adjust(cpu, sem_aas);
}

enum exit_reason callout_aam(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint8_t base = (uint8_t)carg_imm(arg);
    uint32_t flags;

    (void)ea;
    if (base == 0)
        return end_raise(cpu, EXC_DE);
    uint16_t ax = sem_aam((uint16_t)cpu->gpr[EAX], base, &flags);

    set_ax(cpu, ax, flags);
    return EXIT_RESUME;
}

enum exit_reason callout_aad(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint32_t flags;
    uint16_t ax = sem_aad((uint16_t)cpu->gpr[EAX], (uint8_t)carg_imm(arg), &flags);

    (void)ea;
    set_ax(cpu, ax, flags);
    return EXIT_RESUME;
}

/* ---- BOUND ------------------------------------------------------------------ */

/* The bounds lie in memory as a pair of signed integers, the lower one first. */
enum exit_reason callout_bound(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned size = carg_osize(arg);
    uint32_t index = cpu->gpr[carg_reg(arg)];
    int32_t bounds[2];
    int16_t bounds16[2];
    enum x86_rc rc;

    if (!carg_is_mem(arg))
        return end_raise(cpu, EXC_UD);
    if (size == 2) {
        rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, bounds16, 4);
        bounds[0] = bounds16[0];
        bounds[1] = bounds16[1];
        index = (uint32_t)(int32_t)(int16_t)index;
    } else {
        rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, bounds, 8);
    }
    if (rc != X86_OK)
        return exit_failed(rc);
    if ((int32_t)index < bounds[0] || (int32_t)index > bounds[1])
        return end_raise(cpu, EXC_BR);
    return EXIT_RESUME;
}

/* ---- stack frames ------------------------------------------------------------ */

/* May `size` bytes at SS:off be accessed? Changes nothing but A and D bits. */
static enum x86_rc stack_probe(struct vcpu *cpu, uint32_t off, unsigned size, unsigned access)
{
    gva_t va;
    hva_t hva;
    enum x86_rc rc = segment_linear(cpu, SEG_SS, off, size, access, &va);

    return rc != X86_OK ? rc : mmu_probe(cpu, va, size, access | cpl_access(cpu->cpl), &hva);
}

/*
 * ENTER size, level (0..31):
 *
 *   push EBP; frame = ESP
 *   level > 1: level - 1 times  EBP -= osize; push SS:[EBP]     the caller's display
 *   level > 0: push frame
 *   EBP = frame; ESP -= size
 *
 * A write at the final ESP must be possible as well (SDM vol. 2A, "ENTER").
 */
struct enter_frame {
    uint32_t sp, bp; /* before the instruction                       */
    uint32_t final_sp;
    unsigned size; /* of a slot, bytes                             */
    unsigned level, slots;
};

static enum x86_rc enter_probe(struct vcpu *cpu, const struct enter_frame *f)
{
    uint32_t mask = stack_mask(&cpu->segs[SEG_SS]);
    enum x86_rc rc = X86_OK;

    for (unsigned i = 1; i <= f->slots && rc == X86_OK; i++)
        rc = stack_probe(cpu, (f->sp - i * f->size) & mask, f->size, ACC_WRITE);
    for (unsigned i = 1; i < f->level && rc == X86_OK; i++)
        rc = stack_probe(cpu, (f->bp - i * f->size) & mask, f->size, ACC_READ);
    if (rc == X86_OK)
        rc = stack_probe(cpu, f->final_sp, f->size, ACC_WRITE);
    return rc;
}

/* One at a time and in order: the display that is copied may be the one that is being written. */
static enum x86_rc enter_build(struct vcpu *cpu, const struct enter_frame *f, uint32_t frame)
{
    uint32_t mask = stack_mask(&cpu->segs[SEG_SS]), value = cpu->gpr[EBP];
    enum x86_rc rc = vcpu_write(cpu, SEG_SS, (f->sp - f->size) & mask, &value, f->size);

    for (unsigned i = 1; i < f->level && rc == X86_OK; i++) {
        rc = vcpu_read(cpu, SEG_SS, (f->bp - i * f->size) & mask, &value, f->size);
        if (rc == X86_OK)
            rc = vcpu_write(cpu, SEG_SS, (f->sp - (i + 1) * f->size) & mask, &value, f->size);
    }
    if (f->level > 0 && rc == X86_OK)
        rc = vcpu_write(cpu, SEG_SS, (f->sp - f->slots * f->size) & mask, &frame, f->size);
    return rc;
}

enum exit_reason callout_enter(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    const struct segment *ss = &cpu->segs[SEG_SS];
    uint32_t mask = stack_mask(ss);
    struct enter_frame f = { .sp = cpu->gpr[ESP] & mask,
                             .bp = cpu->gpr[EBP] & mask,
                             .size = carg_osize(arg),
                             .level = carg_imm2(arg) & 31u };
    uint32_t frame = stack_pointer(ss, cpu->gpr[ESP], f.sp - f.size);
    enum x86_rc rc;

    (void)ea;
    f.slots = 1 + f.level;
    f.final_sp = (f.sp - f.slots * f.size - (carg_imm(arg) & 0xffffu)) & mask;
    rc = enter_probe(cpu, &f);
    if (rc == X86_OK)
        rc = enter_build(cpu, &f, frame);
    if (rc != X86_OK)
        return exit_failed(rc);
    set_reg(cpu, EBP, f.size, frame);
    cpu->gpr[ESP] = stack_pointer(ss, cpu->gpr[ESP], f.final_sp);
    return EXIT_RESUME;
}

/* PUSHA pushes EAX first, in encoding order; ESP as it was before. */
enum exit_reason callout_pusha(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct stack st = stack_current(cpu, 0);
    struct frame f;
    enum x86_rc rc;

    (void)ea;
    frame_begin(&f, carg_osize(arg));
    for (unsigned reg = 0; reg < 8; reg++)
        frame_add(&f, cpu->gpr[reg]);
    if ((rc = stack_check(cpu, &st, &f)) == X86_OK)
        rc = stack_write(cpu, &st, &f);
    if (rc != X86_OK)
        return exit_failed(rc);
    cpu->gpr[ESP] = stack_pointer(st.ss, cpu->gpr[ESP], st.sp);
    return EXIT_RESUME;
}

/* POPA pops EDI first; the slot of ESP is read and thrown away. */
enum exit_reason callout_popa(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned size = carg_osize(arg);
    uint32_t value[8];
    enum x86_rc rc = stack_peek(cpu, 0, size, 8, value);

    (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    for (unsigned reg = 0; reg < 8; reg++)
        if (reg != ESP)
            set_reg(cpu, reg, size, value[7 - reg]);
    stack_release(cpu, 8 * size);
    return EXIT_RESUME;
}
