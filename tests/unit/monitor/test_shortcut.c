/*
 * The short way through interrupts and IRET against the long one: the same random state, both
 * ways, and then the same vCPU and memory, byte by byte. Also that the short way is taken where it is
 * meant to be, and that it looks at what is in memory each time.
 */
#include <stdio.h>
#include <stdlib.h>

#include "protect.h"

#define TRIALS   6000u
#define COMPARED 0x68000u /* bytes of RAM that hold tables and stacks */

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t random_u32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static uint32_t below(uint32_t n)
{
    return random_u32() % n;
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

/* ---- a random state, near enough to the usual one ---------------------------------------------- */

#define PICK(array) (array)[below(sizeof(array) / sizeof(array)[0])]

static const uint16_t code_sels[] = { CODE0, CODE0, CODE0, CODE0B, CODE3 | 3, CODE3 | 3, CODE3B | 3, CODE0 | 3,
                                      CODE3, CODE1 | 1, CONFORM0, CONFORM3 | 3, CODE16_0, SMALL_CODE0,
                                      ABSENT_CODE0, OUTSIDE, 0, DATA0, LDT_DATA3 };
static const uint16_t stack_sels[] = { DATA0, DATA0, DATA0, DATA0B, DATA3 | 3, DATA3 | 3, DATA3B | 3, DATA0 | 3, DATA3,
                                       STACK16_0, STACK16_3 | 3, ABSENT_STACK0, READONLY3 | 3, DOWN3 | 3, CODE0, 0, 3,
                                       OUTSIDE, LDT_DATA3 | 3 };

/* One bit of a descriptor that matters, the other way round. */
static void spoil_descriptor(struct protect *pt, unsigned sel)
{
    pt->ram[GDT_VA + (sel & SEL_INDEX) + below(8)] ^= (uint8_t)(1u << below(8));
}

static struct segment loaded(struct protect *pt, unsigned sel)
{
    struct desc d = { .lo = pt_get32(pt, GDT_VA + (sel & SEL_INDEX)), .hi = pt_get32(pt, GDT_VA + (sel & SEL_INDEX) + 4) };

    return sel_is_null((uint16_t)sel) ? (struct segment){ .sel = (uint16_t)sel } : desc_segment(&d, (uint16_t)sel);
}

static void random_data_segments(struct protect *pt)
{
    static const uint16_t sels[] = { DATA0, DATA3 | 3, DATA3 | 3, 0, 0, 3, SMALL3 | 3, CONFORM0, CODE0, STACK16_3 | 3 };
    static const uint8_t segs[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };

    for (unsigned i = 0; i < 4; i++)
        if (one_in(i < 2 ? 6 : 2))
            pt->cpu->segs[segs[i]] = loaded(pt, PICK(sels));
}

static uint32_t random_flags(void)
{
    uint32_t fl = random_u32() & (EFL_ARITH | EFL_IF | EFL_DF);

    if (one_in(3))
        fl |= random_u32() & (EFL_IOPL | EFL_ID | EFL_RF);
    if (one_in(8))
        fl |= random_u32() & (EFL_TF | EFL_NT | EFL_AC | EFL_VIF | EFL_VIP);
    return fl | EFL_ONE;
}

static void random_state(struct protect *pt)
{
    struct vcpu *cpu = pt->cpu;

    pt_ring(pt, one_in(2) ? 0 : 3);
    if (one_in(12))
        pt_ring(pt, 1);
    if (one_in(8))
        random_data_segments(pt);
    if (one_in(10))
        cpu->segs[SEG_SS] = loaded(pt, cpu->cpl ? STACK16_3 | 3 : STACK16_0);
    vcpu_eflags_set(cpu, random_flags() & ~EFL_RF);
    cpu->cr0 = (cpu->cr0 & ~CR0_AM) | (one_in(4) ? CR0_AM : 0);
    cpu->x87_fop = (uint16_t)(one_in(4) ? X87_SELECTOR | X87_NEW | 0x123 : 0);
    cpu->x87_seg = cpu->x87_fop ? X87_SELECTOR | SEG_SS : 0;
    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
    if (one_in(10)) /* about a page's end, or around the top */
        cpu->gpr[ESP] = one_in(2) ? 0x11000u + below(24) : below(24) - 12;
    if (one_in(12))
        cpu->idtr.limit = (uint16_t)below(IDT_LIMIT);
    if (one_in(12))
        cpu->gdtr.limit = (uint16_t)below(0x40);
    if (one_in(12))
        cpu->tr.limit = below(16);
    if (one_in(16))
        cpu->tr.attr = DESC_P | SYS_TSS16_BUSY;
    if (one_in(6))
        pt_put32(pt, TSS_VA + 8, PICK(stack_sels) | random_u32() << 16);
    if (one_in(10))
        pt_put32(pt, TSS_VA + 4, one_in(2) ? 0x11000u + below(24) : below(24));
    if (one_in(4))
        spoil_descriptor(pt, one_in(2) ? CODE0 : DATA0);
    if (one_in(8))
        spoil_descriptor(pt, one_in(2) ? CODE3 : DATA3);
}

/* ---- both ways ------------------------------------------------------------------------------------ */

struct case_of {
    enum { INTERRUPT, IRET, SEGMENT_LOAD, SEGMENT_POP } kind;
    struct event event;
    enum seg_id seg;
    uint16_t sel;
};

static enum x86_rc run(struct protect *pt, const struct case_of *c)
{
    switch (c->kind) {
    case IRET:
        return interrupt_return(pt->cpu, 4);
    case SEGMENT_LOAD:
        return segment_load(pt->cpu, c->seg, c->sel);
    case SEGMENT_POP:
        return (enum x86_rc)callout_pop_seg(pt->cpu, pt_arg(4, c->seg, 0), 0);
    case INTERRUPT:
        break;
    }
    return event_deliver(pt->cpu, &c->event);
}

static bool takes_short_way(struct protect *pt, const struct case_of *c)
{
    switch (c->kind) {
    case IRET:
        return shortcut_iret(pt->cpu);
    case SEGMENT_LOAD:
        return shortcut_segment_load(pt->cpu, c->seg, c->sel);
    case SEGMENT_POP: /* its load is the one above */
        return false;
    case INTERRUPT:
        break;
    }
    return shortcut_interrupt(pt->cpu, &c->event);
}

static uint8_t ram_start[COMPARED], ram_long[COMPARED];
static struct vcpu cpu_start, cpu_long;

static void begin_again(struct protect *pt)
{
    memcpy(pt->cpu, &cpu_start, sizeof cpu_start);
    memcpy(pt->ram, ram_start, COMPARED);
}

/* @return whether the short way was taken. */
static bool both_ways_agree(struct protect *pt, const struct case_of *c)
{
    struct vcpu *cpu = pt->cpu;

    memcpy(&cpu_start, cpu, sizeof cpu_start);
    memcpy(ram_start, pt->ram, COMPARED);
    cpu->no_shortcuts = true;
    enum x86_rc rc_long = run(pt, c);
    cpu->no_shortcuts = false;
    memcpy(&cpu_long, cpu, sizeof cpu_long);
    memcpy(ram_long, pt->ram, COMPARED);

    begin_again(pt);
    enum x86_rc rc_short = run(pt, c);
    assert_int_equal(rc_short, rc_long);
    assert_memory_equal(cpu, &cpu_long, offsetof(struct vcpu, fault));
    assert_memory_equal(pt->ram, ram_long, COMPARED);
    if (rc_long != X86_OK)
        assert_memory_equal(&cpu->fault, &cpu_long.fault, sizeof cpu->fault);

    begin_again(pt);
    bool is_short = takes_short_way(pt, c);
    assert_true(!is_short || rc_long == X86_OK);
    if (!is_short) /* then it has changed nothing */
        assert_memory_equal(cpu, &cpu_start, offsetof(struct vcpu, fault));
    return is_short;
}

static void fresh_world(struct protect *pt)
{
    static uint8_t tables[COMPARED];
    static struct vcpu cpu;
    static bool is_kept;

    if (!is_kept) {
        memcpy(tables, pt->ram, COMPARED);
        memcpy(&cpu, pt->cpu, sizeof cpu);
        is_kept = true;
    }
    memcpy(pt->ram, tables, COMPARED);
    memcpy(pt->cpu, &cpu, sizeof cpu);
}

static void interrupts_go_the_same_both_ways(void **state)
{
    static const uint8_t types[] = { SYS_INT32, SYS_TRAP32, SYS_INT32, SYS_TRAP32, SYS_INT16, SYS_TRAP16, SYS_CALL32 };
    struct protect *pt = *state;
    unsigned taken = 0;

    for (unsigned i = 0; i < TRIALS; i++) {
        struct case_of c = { .event = { .vector = (uint8_t)below(IDT_LIMIT / 8 + 2), .is_soft = one_in(2),
                                        .has_error = one_in(3), .sets_rf = one_in(3), .error = (uint16_t)random_u32(),
                                        .return_eip = random_u32() } };
        fresh_world(pt);
        pt_idt(pt, c.event.vector & 127u, PICK(types), one_in(4) ? below(4) : 3, one_in(4) ? PICK(code_sels) : CODE0,
               random_u32());
        random_state(pt);
        if (one_in(20))
            pt->ram[IDT_VA + c.event.vector * 8 + 5] ^= (uint8_t)(1u << below(8));
        taken += both_ways_agree(pt, &c);
    }
    print_message("short way: %u of %u\n", taken, TRIALS);
    assert_in_range(taken, TRIALS / 10, TRIALS * 9 / 10);
}

static void returns_go_the_same_both_ways(void **state)
{
    struct protect *pt = *state;
    unsigned taken = 0;

    for (unsigned i = 0; i < TRIALS; i++) {
        struct case_of c = { .kind = IRET };
        bool is_outer = one_in(2);

        fresh_world(pt);
        random_state(pt);
        if (!one_in(4))
            pt_ring(pt, 0);
        if (is_outer && !one_in(4))
            for (unsigned s = 0; s < SEG_COUNT; s++)
                if (s != SEG_CS && s != SEG_SS)
                    pt->cpu->segs[s] = one_in(3) ? (struct segment){ .sel = 0 } : loaded(pt, DATA3 | 3);
        pt->cpu->segs[SEG_DS] = pt->cpu->segs[SEG_ES] = loaded(pt, DATA3 | 3);
        vcpu_update_mode(pt->cpu);
        mmu_select_view(pt->cpu);
        pt->cpu->gpr[ESP] = one_in(6) ? 0x11000u - below(24) : 0x10000u - 0x40 + 4 * below(8);
        uint32_t at = pt->cpu->gpr[ESP];
        pt_put32(pt, at, random_u32());
        pt_put32(pt, at + 4, (one_in(4) ? PICK(code_sels) : is_outer ? CODE3 | 3 : CODE0) | random_u32() << 16);
        pt_put32(pt, at + 8, random_flags() | (one_in(20) ? EFL_VM : 0));
        pt_put32(pt, at + 12, random_u32());
        pt_put32(pt, at + 16, (one_in(4) ? PICK(stack_sels) : DATA3 | 3) | random_u32() << 16);
        taken += both_ways_agree(pt, &c);
    }
    print_message("short way: %u of %u\n", taken, TRIALS);
    assert_in_range(taken, TRIALS / 10, TRIALS * 9 / 10);
}

static void segment_loads_go_the_same_both_ways(void **state)
{
    static const uint16_t sels[] = { DATA0, DATA3 | 3, DATA3 | 3, DATA3, DATA0 | 3, 0, 3, SMALL3 | 3, CONFORM0, CONFORM3,
                                     CODE0, CODE3 | 3, EXECONLY3 | 3, READONLY3 | 3, DOWN3 | 3, ABSENT3 | 3, DATA1 | 1,
                                     LDT_DATA3 | 3, TSS_A, GATE32, OUTSIDE, STACK16_3 | 3 };
    static const uint8_t segs[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS };
    struct protect *pt = *state;
    unsigned taken = 0;

    for (unsigned i = 0; i < TRIALS; i++) {
        struct case_of c = { .kind = SEGMENT_LOAD, .seg = (enum seg_id)PICK(segs), .sel = PICK(sels) };

        fresh_world(pt);
        random_state(pt);
        random_data_segments(pt);
        if (one_in(4))
            spoil_descriptor(pt, c.sel & 0x1f8);
        if (one_in(20))
            pt_vm86(pt, 3);
        if (one_in(20))
            pt_real(pt);
        vcpu_update_mode(pt->cpu);
        mmu_select_view(pt->cpu);
        taken += both_ways_agree(pt, &c);
        if (pt->cpu->gpr[ESP] < COMPARED - 4)
            pt_put32(pt, pt->cpu->gpr[ESP], c.sel | random_u32() << 16);
        c.kind = SEGMENT_POP;
        both_ways_agree(pt, &c);
    }
    print_message("short way: %u of %u\n", taken, TRIALS);
    assert_in_range(taken, TRIALS / 10, TRIALS * 9 / 10);
}

/* ---- nothing is remembered ---------------------------------------------------------------------------- */

static void prepare_int64(struct protect *pt)
{
    pt_ring(pt, 3);
    mmu_select_view(pt->cpu);
}

static const struct event int64 = { .vector = 64, .is_soft = true, .return_eip = NEXT_EIP };

static void each_interrupt_reads_the_tables_anew(void **state)
{
    struct protect *pt = *state;
    struct vcpu *cpu = pt->cpu;

    pt_idt(pt, 64, SYS_TRAP32, 3, CODE0, 0x9000);
    prepare_int64(pt);
    assert_int_equal(event_deliver(cpu, &int64), X86_OK); /* fills the slots */
    prepare_int64(pt);
    assert_true(shortcut_interrupt(cpu, &int64));
    assert_int_equal(cpu->eip, 0x9000);
    assert_int_equal(cpu->gpr[ESP], STACK0 - 20);

    pt_idt(pt, 64, SYS_INT32, 3, CODE0B, 0xa000);
    pt_put32(pt, TSS_VA + 4, STACK0 - 0x200);
    pt_put16(pt, TSS_VA + 8, DATA0B);
    prepare_int64(pt);
    assert_true(shortcut_interrupt(cpu, &int64));
    assert_int_equal(cpu->eip, 0xa000);
    assert_int_equal(cpu->segs[SEG_CS].sel, CODE0B);
    assert_int_equal(cpu->segs[SEG_SS].sel, DATA0B);
    assert_int_equal(cpu->gpr[ESP], STACK0 - 0x200 - 20);

    pt_descriptor(pt, CODE0B, 0, UINT32_MAX, (A_CODE | A_FLAT) & ~DESC_P);
    prepare_int64(pt);
    assert_false(shortcut_interrupt(cpu, &int64));
    EXPECT_FAULT(pt, exit_failed(event_deliver(cpu, &int64)), EXC_NP, CODE0B);
}

static void a_traced_or_watched_page_takes_the_long_way(void **state)
{
    struct protect *pt = *state;
    struct vcpu *cpu = pt->cpu;
    const uint32_t stack_page = (STACK0 - 4) >> 12, idt_page = IDT_VA >> 12;

    pt_idt(pt, 64, SYS_TRAP32, 3, CODE0, 0x9000);
    prepare_int64(pt);
    assert_int_equal(event_deliver(cpu, &int64), X86_OK);
    mmu_trace_add(cpu->mmu, gpa(stack_page << 12));
    prepare_int64(pt);
    assert_false(shortcut_interrupt(cpu, &int64));
    mmu_trace_remove(cpu->mmu, gpa(stack_page << 12));
    assert_int_equal(event_deliver(cpu, &int64), X86_OK);
    prepare_int64(pt);
    assert_true(shortcut_interrupt(cpu, &int64));
    mmu_watch_pages(cpu, &idt_page, 1);
    prepare_int64(pt);
    assert_false(shortcut_interrupt(cpu, &int64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PT_TEST(interrupts_go_the_same_both_ways),
        PT_TEST(returns_go_the_same_both_ways),
        PT_TEST(segment_loads_go_the_same_both_ways),
        PT_TEST(each_interrupt_reads_the_tables_anew),
        PT_TEST(a_traced_or_watched_page_takes_the_long_way),
    };

    if (getenv("VMM_SEED"))
        seed = strtoull(getenv("VMM_SEED"), NULL, 0) | 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
