/*
 * Stack frames that are pushed or read as a whole.
 *
 * A transfer collects what it pushes in a struct frame and writes it in one go, so that a
 * fault on the third word leaves the first two unwritten. Nearly every frame lies within
 * one page and does not wrap: that is one check and one write. Otherwise each slot is
 * checked in the order of the pushes, so that the right address reaches CR2, before the
 * first one is written.
 *
 *   st->sp -> +---------+  high
 *             | slot[0] |         pushed first
 *             | slot[1] |
 *    new sp-> | slot[n] |  low
 *
 * Ref: Intel SDM vol. 1, ch. "Procedure Calls, Interrupts, and Exceptions"; vol. 3A,
 * ch. "Protection", Stack Switching.
 */
#include "base/string.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

struct stack stack_current(const struct vcpu *cpu, unsigned error)
{
    return (struct stack){ .ss = &cpu->segs[SEG_SS], .sp = cpu->gpr[ESP], .cpl = cpu->cpl, .error = error };
}

/* Offset in SS of the i-th slot pushed. */
static uint32_t slot_offset(const struct stack *st, const struct frame *f, unsigned i)
{
    return (st->sp - (i + 1) * f->width) & stack_mask(st->ss);
}

/* Do the pushes cover one range of offsets? Not when the stack pointer wraps on the way. */
static bool is_contiguous(const struct stack *st, const struct frame *f)
{
    return (st->sp & stack_mask(st->ss)) >= f->count * f->width;
}

enum x86_rc stack_check(struct vcpu *cpu, const struct stack *st, const struct frame *f)
{
    if (is_contiguous(st, f)) {
        uint32_t low = slot_offset(st, f, f->count - 1);

        if (segment_allows(cpu, st->ss, low, f->count * f->width, ACC_WRITE))
            return X86_OK;
        return vcpu_raise_error(cpu, EXC_SS, st->error);
    }
    for (unsigned i = 0; i < f->count; i++)
        if (!segment_allows(cpu, st->ss, slot_offset(st, f, i), f->width, ACC_WRITE))
            return vcpu_raise_error(cpu, EXC_SS, st->error);
    return X86_OK;
}

/* The frame as it lies in memory, lowest address first. */
static void frame_bytes(const struct frame *f, uint32_t buf[FRAME_SLOTS])
{
    uint8_t *out = (uint8_t *)buf;

    for (unsigned i = f->count; i-- > 0; out += f->width) {
        if (f->width == 4)
            memcpy(out, &f->slot[i], 4);
        else
            memcpy(out, &f->slot[i], 2);
    }
}

static enum x86_rc write_slots(struct vcpu *cpu, const struct stack *st, const struct frame *f)
{
    unsigned access = cpl_access(st->cpl);
    enum x86_rc rc = X86_OK;
    hva_t hva;

    mmu_make_room(cpu); /* what the probes allow is then written */
    for (unsigned i = 0; i < f->count && rc == X86_OK; i++)
        rc = mmu_probe(cpu, gva(st->ss->base + slot_offset(st, f, i)), f->width, access | ACC_WRITE, &hva);
    for (unsigned i = 0; i < f->count && rc == X86_OK; i++)
        rc = mmu_write(cpu, gva(st->ss->base + slot_offset(st, f, i)), &f->slot[i], f->width, access);
    return rc;
}

static bool in_one_page(gva_t va, uint32_t bytes)
{
    return (va.v & GUEST_PAGE_MASK) + bytes <= GUEST_PAGE_SIZE;
}

enum x86_rc stack_write(struct vcpu *cpu, struct stack *st, const struct frame *f)
{
    uint32_t bytes = f->count * f->width;
    gva_t low = gva(st->ss->base + slot_offset(st, f, f->count - 1));
    enum x86_rc rc;

    if (is_contiguous(st, f) && in_one_page(low, bytes)) {
        uint32_t buf[FRAME_SLOTS];

        frame_bytes(f, buf);
        rc = mmu_write(cpu, low, buf, bytes, cpl_access(st->cpl));
        if (rc == X86_FAULT) /* the page fault belongs to the first push */
            cpu->fault.cr2 = st->ss->base + slot_offset(st, f, 0);
    } else {
        rc = write_slots(cpu, st, f);
    }
    if (rc == X86_OK)
        st->sp = stack_pointer(st->ss, st->sp, st->sp - bytes);
    return rc;
}

/* Slots that wrap around the top of the stack, one by one. */
static enum x86_rc peek_slots(struct vcpu *cpu, uint32_t sp, unsigned width, unsigned n, uint32_t *out)
{
    uint32_t mask = stack_mask(&cpu->segs[SEG_SS]);
    enum x86_rc rc = X86_OK;

    for (unsigned i = 0; i < n && rc == X86_OK; i++) {
        out[i] = 0;
        rc = vcpu_read(cpu, SEG_SS, (sp + i * width) & mask, &out[i], width);
    }
    return rc;
}

enum x86_rc stack_peek(struct vcpu *cpu, uint32_t ofs, unsigned width, unsigned n, uint32_t *out)
{
    uint32_t mask = stack_mask(&cpu->segs[SEG_SS]);
    uint32_t sp = (cpu->gpr[ESP] + ofs) & mask;
    enum x86_rc rc;

    if (sp > mask - n * width || width != 4)
        return peek_slots(cpu, sp, width, n, out);
    rc = vcpu_read(cpu, SEG_SS, sp, out, n * width);
    return rc;
}

enum x86_rc stack_push(struct vcpu *cpu, uint32_t value, unsigned width)
{
    const struct segment *ss = &cpu->segs[SEG_SS];
    uint32_t sp = (cpu->gpr[ESP] - width) & stack_mask(ss);
    enum x86_rc rc = vcpu_write(cpu, SEG_SS, sp, &value, width);

    if (rc == X86_OK)
        cpu->gpr[ESP] = stack_pointer(ss, cpu->gpr[ESP], sp);
    return rc;
}

void stack_release(struct vcpu *cpu, uint32_t n)
{
    cpu->gpr[ESP] = stack_pointer(&cpu->segs[SEG_SS], cpu->gpr[ESP], cpu->gpr[ESP] + n);
}
