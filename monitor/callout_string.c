/*
 * String instructions: MOVS, STOS, LODS, CMPS, SCAS, with and without a repeat
 * prefix, in either direction and with either address size.
 *
 * The work goes in runs. A run is as many elements as stay within one page (and one
 * address-size wrap) of each operand: its segment and its page are checked once, and
 * then the host's own string instruction does it on host addresses. Element size and
 * direction are the guest's, so that overlapping copies come out as the hardware's do.
 * Where no direct access is possible (devices, ROM stores, an element across two
 * pages) a run is one element, done by mmu_read and mmu_write; RAM pages that are
 * traced take one store of many bytes where the order within it can't be seen.
 *
 * An element that changes the instruction itself is the last of its run, and the
 * instruction is fetched again, as processors do it: a store that hit translated code
 * shows in vcpu->code_stores, one to a page that is not traced (coherency=check) is
 * recognised by its address.
 *
 * ECX, ESI and EDI are updated after each run, hence exact when a fault or an
 * interrupt ends the instruction early: it goes on from there when it is run again.
 * CMPS and SCAS change flags only when they are through (SDM vol. 2B, "REP": a fault
 * leaves EFLAGS as they were before the instruction; what has been compared so far
 * is not asked again).
 * Ref: Intel SDM vol. 2, under the instructions' names and "REP/REPE/REPNE".
 */
#include "base/string.h"
#include "bt/sem/flags.h"
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"

#define STORE_RUN_BYTES 256u /* of STOS to a traced page: the size of a local buffer */

struct string_op {
    struct vcpu *cpu;
    enum seg_id source_seg;
    uint32_t mask; /* of offsets and count: the address size  */
    unsigned size; /* of an element, bytes                    */
    unsigned user; /* ACC_USER or 0                           */
    bool down;     /* DF                                      */
    uint32_t most; /* elements a run may have                 */
    uint8_t rep;   /* enum carg_rep                           */
    uint32_t code_stores; /* of the vCPU, when it began       */
};

/** Elements of one operand that can be treated alike. */
struct run {
    gva_t va;       /* of the first element                                           */
    uint32_t count; /* 1 when hva is NULL                                             */
    uint8_t *hva;   /* host address of the first element, or NULL: mmu_read, mmu_write */
};

static struct string_op string_op(struct vcpu *cpu, uint64_t arg)
{
    return (struct string_op){ .cpu = cpu,
                               .source_seg = (enum seg_id)carg_seg(arg),
                               .mask = carg_asize(arg) == 2 ? 0xffffu : UINT32_MAX,
                               .size = carg_osize(arg),
                               .user = cpl_access(cpu->cpl),
                               .down = cpu->eflags_df,
                               /* a trap after each element, or each one's alignment checked */
                               .most = cpu->mode & (MODE_STEP | MODE_ALIGN) ? 1 : UINT32_MAX,
                               .rep = (uint8_t)carg_rep(arg),
                               .code_stores = cpu->code_stores };
}

/* ---- registers ---------------------------------------------------------------------- */

static uint32_t offset(const struct string_op *s, enum gpr_id reg)
{
    return s->cpu->gpr[reg] & s->mask;
}

static uint32_t elements_left(const struct string_op *s)
{
    return s->rep == REP_NONE ? 1 : offset(s, ECX);
}

static void advance(const struct string_op *s, enum gpr_id reg, uint32_t count)
{
    uint32_t bytes = count * s->size;
    uint32_t value = s->down ? s->cpu->gpr[reg] - bytes : s->cpu->gpr[reg] + bytes;

    s->cpu->gpr[reg] = (s->cpu->gpr[reg] & ~s->mask) | (value & s->mask);
}

static void count_down(const struct string_op *s, uint32_t count)
{
    if (s->rep != REP_NONE)
        s->cpu->gpr[ECX] = (s->cpu->gpr[ECX] & ~s->mask) | ((s->cpu->gpr[ECX] - count) & s->mask);
}

/*
 * After a run: is the instruction through, or must it make way? At least one run has been
 * done, so that an instruction under constant interruption still gets on.
 */
static bool must_yield(const struct string_op *s)
{
    return must_make_way(s->cpu) || s->cpu->code_stores != s->code_stores;
}

/* ---- runs ------------------------------------------------------------------------------ */

/* How many elements from `at` on lie in the aligned block of mask + 1 bytes that holds it? 0 when the
 * very first one leaves it. */
static uint64_t elements_within(const struct string_op *s, uint32_t at, uint32_t mask)
{
    uint64_t room = (uint64_t)mask + 1 - (at & mask); /* bytes from here to the block's end */

    if (room < s->size)
        return 0;
    return s->down ? (uint64_t)(at & mask) / s->size + 1 : room / s->size;
}

/* A run's length: at most `want`, and within one page and one turn of the offset. At least 1. */
static uint32_t run_length(const struct string_op *s, uint32_t linear, uint32_t off, uint32_t want)
{
    uint64_t in_page = elements_within(s, linear, GUEST_PAGE_MASK);
    uint64_t in_turn = elements_within(s, off, s->mask);
    uint64_t count = in_page < in_turn ? in_page : in_turn;

    if (count > want)
        return want;
    return count ? (uint32_t)count : 1;
}

/* Segment check of a run of `count` elements that starts at offset `off`. */
static enum x86_rc run_linear(const struct string_op *s, enum seg_id seg, uint32_t off, uint32_t count,
                              unsigned access, gva_t *va)
{
    uint32_t before = s->down ? (count - 1) * s->size : 0; /* bytes of it below the first element */
    enum x86_rc rc = segment_linear(s->cpu, seg, off - before, count * s->size, access, va);

    *va = gva_add(*va, before);
    return rc;
}

/* Do `count` elements from `first` on have a byte in the `len` bytes at `at`? Distances are modulo the address space. */
static bool overlaps(const struct string_op *s, uint32_t first, uint32_t count, uint32_t at, uint32_t len)
{
    uint32_t low = s->down ? first - (count - 1) * s->size : first;

    return at - low < count * s->size || low - at < len;
}

static bool overlaps_itself(const struct string_op *s, gva_t first, uint32_t count)
{
    const struct vcpu *cpu = s->cpu;

    return overlaps(s, first.v, count, cpu->segs[SEG_CS].base + cpu->eip, cpu->next_eip - cpu->eip);
}

/* A store run that goes over the instruction itself is one element, and the last one if it hits. */
static void stop_at_itself(const struct string_op *s, struct run *run)
{
    if (__builtin_expect(!overlaps_itself(s, run->va, run->count), 1))
        return;
    run->count = 1;
    if (overlaps_itself(s, run->va, 1))
        s->cpu->code_stores++;
}

/*
 * Find the run that `reg` points to, at most `want` elements.
 * @return X86_OK, or the fault that the first element earns.
 */
static enum x86_rc find_run(const struct string_op *s, enum seg_id seg, enum gpr_id reg, uint32_t want,
                            unsigned access, struct run *run)
{
    uint32_t off = offset(s, reg);
    uint32_t count = run_length(s, s->cpu->segs[seg].base + off, off, want);
    hva_t hva;
    enum x86_rc rc;

    /* A run may reach past the limit where its first element does not. */
    rc = run_linear(s, seg, off, count, access, &run->va);
    if (rc != X86_OK && count > 1) {
        count = 1;
        rc = run_linear(s, seg, off, 1, access, &run->va);
    }
    if (rc == X86_OK)
        rc = mmu_probe(s->cpu, run->va, s->size, access | s->user, &hva);
    if (rc != X86_OK)
        return rc;
    run->hva = hva.p;
    run->count = hva.p ? count : 1;
    if (access == ACC_WRITE)
        stop_at_itself(s, run);
    return X86_OK;
}

static enum x86_rc find_source(const struct string_op *s, uint32_t want, struct run *run)
{
    return find_run(s, s->source_seg, ESI, want, ACC_READ, run);
}

static enum x86_rc find_dest(const struct string_op *s, uint32_t want, unsigned access, struct run *run)
{
    return find_run(s, SEG_ES, EDI, want, access, run);
}

/* Element i of a run that has a host address. */
static uint8_t *element_ptr(const struct string_op *s, const struct run *run, uint32_t i)
{
    return s->down ? run->hva - (size_t)i * s->size : run->hva + (size_t)i * s->size;
}

static uint32_t load(const uint8_t *p, unsigned size)
{
    uint16_t v16;
    uint32_t v32;

    if (size == 1)
        return *p;
    if (size == 2) {
        memcpy(&v16, p, 2);
        return v16;
    }
    memcpy(&v32, p, 4);
    return v32;
}

/* Read element i; in a run without a host address there is one only. */
static enum x86_rc read_element(const struct string_op *s, const struct run *run, uint32_t i, uint32_t *value)
{
    if (run->hva) {
        *value = load(element_ptr(s, run, i), s->size);
        return X86_OK;
    }
    *value = 0;
    return mmu_read(s->cpu, run->va, value, s->size, s->user);
}

/*
 * A store run that could not be accessed directly because its page is traced RAM: how many
 * elements may be stored at once? 1 when it is anything else, or the instruction lies in the same page. *pa is that
 * of the first element.
 */
static uint32_t traced_count(const struct string_op *s, const struct run *run, uint32_t want, gpa_t *pa)
{
    const struct vcpu *cpu = s->cpu;
    struct walk w;
    uint32_t count = run_length(s, run->va.v, offset(s, EDI), want);
    bool is_global;
    gpa_t itself;
    gva_t va;

    if (count < 2 || s->down)
        return 1;
    if (mmu_walk(s->cpu, run->va, ACC_WRITE | s->user, &w) != X86_OK || !mmu_is_traced(s->cpu->mmu, w.pa) ||
        mmu_is_watched(s->cpu->mmu, run->va))
        return 1;
    if (run_linear(s, SEG_ES, offset(s, EDI), count, ACC_WRITE, &va) != X86_OK)
        return 1;
    if (mmu_fetch(s->cpu, gva(cpu->segs[SEG_CS].base + cpu->eip), &itself, &is_global) != X86_OK ||
        gpa_page(itself) == gpa_page(w.pa) || overlaps_itself(s, run->va, count))
        return 1;
    *pa = w.pa;
    return count;
}

/* ---- MOVS --------------------------------------------------------------------------------- */

/* The host's own instruction, with the guest's element size and direction. */
static void host_movs(const struct string_op *s, uint8_t *to, const uint8_t *from, size_t count)
{
    if (s->down)
        __asm__ volatile("std" ::: "cc");
    if (s->size == 1)
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    else if (s->size == 2)
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    else
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    __asm__ volatile("cld" ::: "cc");
}

/* Copy to a traced page in one store, if the source lies elsewhere. @return elements done, 0: not so. */
static uint32_t movs_traced(const struct string_op *s, const struct run *from, const struct run *to,
                            uint32_t want, enum x86_rc *rc)
{
    gpa_t pa;
    uint32_t count = from->hva && !to->hva ? traced_count(s, to, want, &pa) : 1;

    if (count < 2)
        return 0;
    const uint8_t *dest = mmu_ram_ptr(s->cpu->mmu, pa).p;
    size_t bytes = (size_t)count * s->size;

    if (!dest || (from->hva < dest + bytes && dest < from->hva + bytes))
        return 0;
    *rc = mmu_write(s->cpu, to->va, from->hva, (unsigned)bytes, s->user);
    return count;
}

static enum x86_rc movs_run(const struct string_op *s, uint32_t want)
{
    struct run from, to;
    enum x86_rc rc = find_source(s, want, &from);

    if (rc == X86_OK)
        rc = find_dest(s, want, ACC_WRITE, &to);
    if (rc != X86_OK)
        return rc;
    uint32_t count = min_u32(from.count, to.count);

    if (from.hva && to.hva) {
        host_movs(s, to.hva, from.hva, count);
    } else {
        uint32_t value, many = movs_traced(s, &from, &to, min_u32(want, from.count), &rc);

        if (many)
            count = many;
        else if ((rc = read_element(s, &from, 0, &value)) == X86_OK)
            rc = mmu_write(s->cpu, to.va, &value, s->size, s->user);
        if (rc != X86_OK)
            return rc;
    }
    advance(s, ESI, count);
    advance(s, EDI, count);
    count_down(s, count);
    return X86_OK;
}

/* ---- STOS --------------------------------------------------------------------------------- */

static void host_stos(const struct string_op *s, uint8_t *to, uint32_t value, size_t count)
{
    if (s->down)
        __asm__ volatile("std" ::: "cc");
    if (s->size == 1)
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    else if (s->size == 2)
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    else
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    __asm__ volatile("cld" ::: "cc");
}

static enum x86_rc stos_slow(const struct string_op *s, const struct run *to, uint32_t want, uint32_t *count)
{
    uint8_t buf[STORE_RUN_BYTES];
    gpa_t pa;

    *count = traced_count(s, to, min_u32(want, STORE_RUN_BYTES / s->size), &pa);
    host_stos(&(struct string_op){ .size = s->size }, buf, s->cpu->gpr[EAX], *count);
    return mmu_write(s->cpu, to->va, buf, *count * s->size, s->user);
}

static enum x86_rc stos_run(const struct string_op *s, uint32_t want)
{
    struct run to;
    enum x86_rc rc = find_dest(s, want, ACC_WRITE, &to);

    if (rc != X86_OK)
        return rc;
    uint32_t count = to.count;

    if (to.hva)
        host_stos(s, to.hva, s->cpu->gpr[EAX], count);
    else if ((rc = stos_slow(s, &to, want, &count)) != X86_OK)
        return rc;
    advance(s, EDI, count);
    count_down(s, count);
    return X86_OK;
}

/* ---- LODS --------------------------------------------------------------------------------- */

/* Of a run in plain memory only the last element is seen; a device is read each time. */
static enum x86_rc lods_run(const struct string_op *s, uint32_t want)
{
    struct run from;
    uint32_t value;
    enum x86_rc rc = find_source(s, want, &from);

    if (rc == X86_OK)
        rc = read_element(s, &from, from.count - 1, &value);
    if (rc != X86_OK)
        return rc;
    if (s->size == 1)
        s->cpu->gpr[EAX] = (s->cpu->gpr[EAX] & ~0xffu) | value;
    else
        set_reg(s->cpu, EAX, s->size, value);
    advance(s, ESI, from.count);
    count_down(s, from.count);
    return X86_OK;
}

static enum exit_reason repeat(struct vcpu *cpu, uint64_t arg,
                               enum x86_rc (*run)(const struct string_op *s, uint32_t want))
{
    struct string_op s = string_op(cpu, arg);
    uint32_t left = elements_left(&s);

    while (left) {
        enum x86_rc rc = run(&s, min_u32(left, s.most));

        if (rc != X86_OK)
            return exit_failed(rc);
        left = s.rep == REP_NONE ? 0 : elements_left(&s);
        if (left && must_yield(&s))
            return end_repeating(cpu);
    }
    return EXIT_RESUME;
}

enum exit_reason callout_movs(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return repeat(cpu, arg, movs_run);
}

enum exit_reason callout_stos(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return repeat(cpu, arg, stos_run);
}

enum exit_reason callout_lods(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return repeat(cpu, arg, lods_run);
}

/* ---- CMPS and SCAS -------------------------------------------------------------------------- */

/** The last pair that was compared: flags are those of a - b. */
struct compared {
    uint32_t a, b;
};

/* Does the repeat prefix let the instruction go on after this pair? */
static bool goes_on(const struct string_op *s, const struct compared *pair)
{
    bool equal = ((pair->a ^ pair->b) & sem_mask(s->size)) == 0;

    return s->rep == REP_F3 ? equal : s->rep == REP_F2 && !equal;
}

/* CMPS compares DS:[ESI] - ES:[EDI]. -> elements done in *count; *stop: the condition ended it. */
static enum x86_rc cmps_run(const struct string_op *s, uint32_t want, struct compared *pair, bool *stop)
{
    struct run a, b;
    uint32_t i = 0;
    enum x86_rc rc = find_source(s, want, &a);

    if (rc == X86_OK)
        rc = find_dest(s, want, ACC_READ, &b);
    if (rc != X86_OK)
        return rc;
    uint32_t count = min_u32(a.count, b.count);

    do {
        if ((rc = read_element(s, &a, i, &pair->a)) == X86_OK)
            rc = read_element(s, &b, i, &pair->b);
        if (rc != X86_OK)
            return rc;
        *stop = !goes_on(s, pair);
        i++;
    } while (i < count && !*stop);
    advance(s, ESI, i);
    advance(s, EDI, i);
    count_down(s, i);
    return X86_OK;
}

/* SCAS compares the accumulator - ES:[EDI]. */
static enum x86_rc scas_run(const struct string_op *s, uint32_t want, struct compared *pair, bool *stop)
{
    struct run b;
    uint32_t i = 0;
    enum x86_rc rc = find_dest(s, want, ACC_READ, &b);

    if (rc != X86_OK)
        return rc;
    pair->a = s->cpu->gpr[EAX];
    do {
        if ((rc = read_element(s, &b, i, &pair->b)) != X86_OK)
            return rc;
        *stop = !goes_on(s, pair);
        i++;
    } while (i < b.count && !*stop);
    advance(s, EDI, i);
    count_down(s, i);
    return X86_OK;
}

static enum exit_reason compare(struct vcpu *cpu, uint64_t arg,
                                enum x86_rc (*run)(const struct string_op *s, uint32_t want,
                                                   struct compared *pair, bool *stop))
{
    struct string_op s = string_op(cpu, arg);
    struct compared pair;
    bool stop = false;
    uint32_t left = elements_left(&s);

    if (!left)
        return EXIT_RESUME; /* a count of 0 leaves the flags alone */
    for (;;) {
        enum x86_rc rc = run(&s, min_u32(left, s.most), &pair, &stop);

        if (rc != X86_OK)
            return exit_failed(rc);
        left = s.rep == REP_NONE ? 0 : elements_left(&s);
        if (!left || stop)
            break;
        if (must_yield(&s))
            return end_repeating(cpu);
    }
    vcpu_arith_set(cpu, sem_flags_sub(pair.a, pair.b, s.size));
    return EXIT_RESUME;
}

enum exit_reason callout_cmps(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return compare(cpu, arg, cmps_run);
}

enum exit_reason callout_scas(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return compare(cpu, arg, scas_run);
}
