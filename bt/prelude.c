/*
 * coherency=check, and pages that adaptive compares: pages of code stay writable, and each CCF compares the
 * bytes it was made from with those in memory before it runs.
 *
 *     body:     jmp   prelude
 *     back:     ...                        ; the instructions
 *
 *     prelude:  mov   r10, host address    ; of the CCF's first byte
 *               mov   r9, [r10 + 0]        ; eight bytes at a time, then four, two, one
 *               mov   rcx, -(what they were)
 *               lea   rcx, [rcx + r9]
 *               jrcxz next
 *               jmp   stale
 *     next:     ...
 *               jmp   back
 *     stale:    mov   r8d, eip
 *               jmp   [r15 + stub_jt_miss] ; the dispatcher finds that the CCF holds no more
 *
 * It stands behind the instructions, since their number is not known before. No flag is touched.
 *
 * Nothing may change code between the comparison and the last instruction, so a TU ends behind an
 * instruction that may store, and behind a callout, whatever that does. What comes next is another CCF, and
 * compares. The landing behind a call belongs to the TU, but leads on at once.
 *
 * Each way into a CCF passes `body`; host addresses of guest memory stay what they are until the memory
 * is routed elsewhere, when CCFs are dropped (bt_code_moved).
 */
#include "bt/bt_internal.h"

#include "base/string.h"

#define VCPU_OFS(field) offsetof(struct vcpu, field)

/* ---- the prelude ------------------------------------------------------------------------------- */

uint8_t *prelude_branch(struct xlate *x)
{
    return x->checks && (x->checked[0] || x->checked[1]) ? e_jmp32_fwd(&x->hot) : NULL;
}

bool prelude_ends_tu(const struct xlate *x)
{
    return x->checks && (x->stores || x->callout != CALLOUT_COUNT);
}

static uint64_t bytes_as_number(const uint8_t *bytes, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

/* The `len` bytes at `where` are to be equal to `bytes`; else to `stale`. Nowhere is no memory (bytes that
 * nobody answers for), which does not change. */
static void compare(struct xlate *x, const uint8_t *where, const uint8_t *bytes, uint32_t len,
                    const uint8_t *stale)
{
    struct emit *e = &x->hot;
    unsigned n;

    if (!where)
        return;
    e_mov_r64_imm64(e, H_T2, (uint64_t)(uintptr_t)where);
    for (uint32_t ofs = 0; ofs < len; ofs += n) {
        struct hmem piece = hmem_base(H_T2, (int32_t)ofs);

        n = len - ofs >= 8 ? 8 : len - ofs >= 4 ? 4 : len - ofs >= 2 ? 2 : 1;
        uint64_t value = bytes_as_number(bytes + ofs, n);
        if (n == 8) {
            e_mov_r64_m64(e, H_T1, piece);
            e_mov_r64_imm64(e, H_ADDR, 0 - value);
            e_lea_r64(e, H_ADDR, hmem_index(H_ADDR, H_T1, 0, 0));
        } else {
            if (n == 4)
                e_mov_r32_m32(e, H_T1, piece);
            else if (n == 2)
                e_movzx_r32_m16(e, H_T1, piece);
            else
                e_movzx_r32_m8(e, H_T1, piece);
            e_lea_r32(e, H_ADDR, hmem_base(H_T1, (int32_t)(0 - (uint32_t)value)));
        }
        uint8_t *equal = e_jrcxz_fwd(e);
        e_jmp32_to(e, stale);
        if (!e->overflow)
            e_patch8(equal, e->p);
    }
}

/* Bytes of the TU in its first page. */
static uint32_t first_part(uint64_t pa, uint32_t len)
{
    return min_u32(len, GUEST_PAGE_SIZE - ((uint32_t)pa & GUEST_PAGE_MASK));
}

void prelude_put(struct xlate *x, uint8_t *branch, const uint8_t *bytes)
{
    struct emit *e = &x->hot;
    uint32_t len = x->d->guest_len, first = first_part(x->d->key.pa, len);

    if (!branch || e->overflow)
        return;
    const uint8_t *stale = e->p;
    e_mov_r32_imm32(e, H_EA, x->d->key.eip);
    place_note(x, e, PLACE_EIP);
    e_jmp_m64(e, vcpu_mem(VCPU_OFS(stub_jt_miss)));
    if (e->overflow)
        return;
    e_patch32(branch, e->p);
    compare(x, x->checked[0], bytes, first, stale);
    if (len > first)
        compare(x, x->checked[1], bytes + first, len - first, stale);
    e_jmp32_to(e, branch + 4);
}

static bool still_holds(struct bt *bt, uint64_t pa, const uint8_t *source, uint32_t len)
{
    hva_t p = mmu_ram_ptr(bt->cpu->mmu, gpa(pa));

    return !p.p || memcmp(p.p, source, len) == 0;
}

bool prelude_holds(struct bt *bt, const struct ccf *ccf)
{
    uint32_t len = ccf->guest_len, first = first_part(ccf->key.pa, len);
    bool compares =
        policy_checks(bt, ccf->key.pa >> GUEST_PAGE_SHIFT) || (len > first && policy_checks(bt, ccf->pfn2));

    return !compares || !ccf->source ||
           (still_holds(bt, ccf->key.pa, ccf->source, first) &&
            (len == first ||
             still_holds(bt, ccf->pfn2 << GUEST_PAGE_SHIFT, ccf->source + first, len - first)));
}
