/*
 * Segmentation: descriptors, loads of data and stack segment registers, and the checks
 * that an access makes against its segment.
 *
 * A segment register's hidden part is all that an access consults, as on the processor:
 * changing a descriptor table has no effect before the next load. A null selector has the
 * P bit clear in its hidden part. The flat segment, which nearly every access of a 32-bit
 * system meets, is recognised first and costs three tests.
 *
 * Ref: Intel SDM vol. 3A, ch. "Protected-Mode Memory Management" and ch. "Protection";
 * vol. 2, MOV.
 */
#include "base/string.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

/* ---- descriptors ------------------------------------------------------------------ */

bool desc_locate(const struct vcpu *cpu, uint16_t sel, gva_t *at)
{
    uint32_t base = cpu->gdtr.base, limit = cpu->gdtr.limit;
    uint32_t ofs = sel & SEL_INDEX;

    if (sel & SEL_TI) {
        if (!(cpu->ldtr.attr & DESC_P))
            return false;
        base = cpu->ldtr.base;
        limit = cpu->ldtr.limit;
    }
    if (limit < 7 || ofs > limit - 7)
        return false;
    *at = gva(base + ofs);
    return true;
}

static enum x86_rc desc_read(struct vcpu *cpu, struct desc *d)
{
    uint32_t raw[2];
    enum x86_rc rc = mmu_read_system(cpu, d->at, raw, sizeof raw);

    d->lo = raw[0];
    d->hi = raw[1];
    return rc;
}

enum x86_rc desc_fetch(struct vcpu *cpu, uint16_t sel, enum exc_vector vector, unsigned ext, struct desc *d)
{
    if (!desc_locate(cpu, sel, &d->at))
        return raise_sel(cpu, vector, sel, ext);
    return desc_read(cpu, d);
}

enum x86_rc desc_touch(struct vcpu *cpu, struct desc *d)
{
    uint8_t rights;

    if (d->hi & (DESC_ACCESSED << 8))
        return X86_OK;
    d->hi |= DESC_ACCESSED << 8;
    rights = (uint8_t)(d->hi >> 8);
    return mmu_write_system(cpu, gva_add(d->at, 5), &rights, 1);
}

/* ---- loads -------------------------------------------------------------------------- */

enum x86_rc stack_segment_check(struct vcpu *cpu, uint16_t sel, unsigned cpl, enum exc_vector vector,
                                unsigned ext, struct segment *out)
{
    struct desc d;
    enum x86_rc rc;

    if (sel_is_null(sel))
        return raise_sel(cpu, vector, 0, ext);
    rc = desc_fetch(cpu, sel, vector, ext, &d);
    if (rc != X86_OK)
        return rc;
    if (sel_rpl(sel) != cpl)
        return raise_sel(cpu, vector, sel, ext);
    if ((desc_attr(&d) & (DESC_S | DESC_CODE | DESC_WRITE)) != (DESC_S | DESC_WRITE))
        return raise_sel(cpu, vector, sel, ext);
    if (desc_dpl(&d) != cpl)
        return raise_sel(cpu, vector, sel, ext);
    if (!desc_is_present(&d))
        return raise_sel(cpu, EXC_SS, sel, ext);
    rc = desc_touch(cpu, &d);
    *out = desc_segment(&d, sel);
    return rc;
}

/* Data of either kind, or code that can be read. */
static bool is_readable(const struct desc *d)
{
    unsigned attr = desc_attr(d);

    return (attr & DESC_S) && (!(attr & DESC_CODE) || (attr & DESC_READ));
}

/* The privilege rule of data accesses; conforming code may be read from everywhere. */
static bool is_reachable(const struct vcpu *cpu, const struct desc *d, uint16_t sel)
{
    if (desc_is_code(d) && desc_is_conforming(d))
        return true;
    return cpu->cpl <= desc_dpl(d) && sel_rpl(sel) <= desc_dpl(d);
}

enum x86_rc data_segment_check(struct vcpu *cpu, uint16_t sel, enum exc_vector vector, unsigned ext,
                               struct segment *out)
{
    struct desc d;
    enum x86_rc rc;

    if (sel_is_null(sel)) {
        *out = (struct segment){ .sel = sel };
        return X86_OK;
    }
    rc = desc_fetch(cpu, sel, vector, ext, &d);
    if (rc != X86_OK)
        return rc;
    if (!is_readable(&d) || !is_reachable(cpu, &d, sel))
        return raise_sel(cpu, vector, sel, ext);
    if (!desc_is_present(&d))
        return raise_sel(cpu, EXC_NP, sel, ext);
    rc = desc_touch(cpu, &d);
    *out = desc_segment(&d, sel);
    return rc;
}

void segment_load_real(struct vcpu *cpu, enum seg_id seg, uint16_t sel)
{
    struct segment *s = &cpu->segs[seg];

    s->sel = sel;
    s->base = (uint32_t)sel << 4;
    /* Limit, G and D/B survive from protected mode; the rights become a writable data segment's. */
    s->attr =
        (uint16_t)((s->attr & (DESC_G | DESC_DB | DESC_AVL)) | DESC_P | DESC_S | DESC_WRITE | DESC_ACCESSED);
}

struct segment segment_vm86(uint16_t sel)
{
    return (struct segment){ .sel = sel,
                             .base = (uint32_t)sel << 4,
                             .limit = 0xffff,
                             .attr = DESC_P | DESC_DPL | DESC_S | DESC_WRITE | DESC_ACCESSED };
}

enum x86_rc segment_load(struct vcpu *cpu, enum seg_id seg, uint16_t sel)
{
    struct segment loaded;
    enum x86_rc rc;

    if (shortcut_segment_load(cpu, seg, sel))
        return X86_OK;
    if (!(cpu->cr0 & CR0_PE)) {
        segment_load_real(cpu, seg, sel);
        vcpu_update_mode(cpu);
        return X86_OK;
    }
    if (cpu->eflags_sys & EFL_VM) {
        loaded = segment_vm86(sel);
        rc = X86_OK;
    } else if (seg == SEG_SS) {
        rc = stack_segment_check(cpu, sel, cpu->cpl, EXC_GP, 0, &loaded);
    } else {
        rc = data_segment_check(cpu, sel, EXC_GP, 0, &loaded);
    }
    if (rc != X86_OK)
        return rc;
    vcpu_x87_settle(cpu);
    cpu->segs[seg] = loaded;
    vcpu_update_mode(cpu);
    return X86_OK;
}

/* ---- accesses ------------------------------------------------------------------------- */

/* Rights only. In real mode what a stale descriptor says does not count, but a segment that was null when
 * protected mode was left is unusable (SDM vol. 3A, "Switching Back to Real-Address Mode"). */
static bool rights_allow(const struct vcpu *cpu, const struct segment *s, unsigned access)
{
    if (!(s->attr & DESC_P))
        return false;
    if (!(cpu->cr0 & CR0_PE))
        return true;
    if (access & ACC_WRITE)
        return (s->attr & (DESC_CODE | DESC_WRITE)) == DESC_WRITE;
    if (access & ACC_READ)
        return !(s->attr & DESC_CODE) || (s->attr & DESC_READ);
    return true;
}

static bool is_expand_down(const struct segment *s)
{
    return (s->attr & (DESC_CODE | DESC_DOWN)) == DESC_DOWN;
}

/*
 * Limit only. With a limit of 4 GiB - 1 an access may wrap at the top: the SDM leaves open
 * whether that faults, and translated code, which does not test flat segments, wraps.
 *
 *        expand-up                 expand-down
 *   0 ########----- top       0 -------######## top (FFFF or FFFFFFFF by B)
 *            ^limit                  ^limit
 */
static bool limit_allows(const struct segment *s, uint32_t off, uint32_t size)
{
    uint32_t last = off + size - 1;

    if (is_expand_down(s)) {
        uint32_t top = (s->attr & DESC_DB) ? UINT32_MAX : 0xffffu;

        return off > s->limit && last <= top && last >= off;
    }
    if (s->limit == UINT32_MAX)
        return true;
    return last <= s->limit && last >= off;
}

bool segment_allows(const struct vcpu *cpu, const struct segment *s, uint32_t off, uint32_t size,
                    unsigned access)
{
    return rights_allow(cpu, s, access) && limit_allows(s, off, size);
}

/* Writable data, expand-up, every offset valid: any access may go. */
static bool is_flat(const struct segment *s)
{
    return s->limit == UINT32_MAX &&
           (s->attr & (DESC_P | DESC_CODE | DESC_DOWN | DESC_WRITE)) == (DESC_P | DESC_WRITE);
}

/* Low address bits that must be clear for an operand of `size` bytes when alignment is checked. Of 16
 * bytes it is the instruction that says. SDM vol. 3A, "Alignment Check Exception (#AC)". */
static uint32_t alignment_mask(unsigned size)
{
    switch (size) {
    case 2:
    case 14:
    case 94:
        return 1;
    case 4:
    case 6:
    case 12:
    case 20:
    case 28:
    case 32:
    case 108:
        return 3;
    case 8:
    case 10:
        return 7;
    default:
        return 0;
    }
}

enum x86_rc segment_linear(struct vcpu *cpu, enum seg_id seg, uint32_t off, unsigned size, unsigned access,
                           gva_t *va)
{
    const struct segment *s = &cpu->segs[seg];

    if (__builtin_expect(!is_flat(s), 0) && !segment_allows(cpu, s, off, size, access))
        return vcpu_raise_error(cpu, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
    *va = gva(s->base + off);
    if (__builtin_expect((cpu->mode & MODE_ALIGN) && (va->v & alignment_mask(size)), 0))
        return vcpu_raise_error(cpu, EXC_AC, 0);
    return X86_OK;
}

enum x86_rc vcpu_read(struct vcpu *cpu, enum seg_id seg, uint32_t off, void *buf, unsigned size)
{
    gva_t va;
    enum x86_rc rc = segment_linear(cpu, seg, off, size, ACC_READ, &va);

    return rc == X86_OK ? mmu_read(cpu, va, buf, size, cpl_access(cpu->cpl)) : rc;
}

enum x86_rc vcpu_write(struct vcpu *cpu, enum seg_id seg, uint32_t off, const void *buf, unsigned size)
{
    gva_t va;
    enum x86_rc rc = segment_linear(cpu, seg, off, size, ACC_WRITE, &va);

    return rc == X86_OK ? mmu_write(cpu, va, buf, size, cpl_access(cpu->cpl)) : rc;
}
