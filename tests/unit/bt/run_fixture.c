/* See run_fixture.h. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bt/bt.h"
#include "mmu/mmu_internal.h"
#include "tcache/tcache.h"
#include "tests/unit/bt/run_fixture.h"

static const struct run_config run_configs[] = {
    { .name = "default", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20 },
    { .name = "unchained", .chain = false, .max_insns = 64, .tc_bytes = 4u << 20 },
    { .name = "single", .chain = true, .max_insns = 1, .tc_bytes = 4u << 20 },
    { .name = "small", .chain = true, .max_insns = 64, .tc_bytes = TCACHE_MIN_BYTES },
    { .name = "baseline", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20, .baseline = true },
    { .name = "callouts", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20, .callouts_only = true },
    { .name = "window", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20, .mem = MEM_WINDOW },
    { .name = "adaptive", .chain = true, .max_insns = 16, .tc_bytes = 4u << 20, .mem = MEM_ADAPTIVE },
    { .name = "check", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20, .coherency = COHERENCY_CHECK },
    { .name = "check-hard", .chain = true, .max_insns = 64, .tc_bytes = TCACHE_MIN_BYTES, .mem = MEM_WINDOW,
      .coherency = COHERENCY_CHECK },
    { .name = "coherency-adaptive", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20,
      .coherency = COHERENCY_ADAPTIVE },
    { .name = "patch", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20, .coherency = COHERENCY_PATCH },
    { .name = "retranslate", .chain = true, .max_insns = 64, .tc_bytes = 4u << 20, .coherency = COHERENCY_RETRANSLATE },
    { .name = "retranslate-hard", .chain = false, .max_insns = 4, .tc_bytes = TCACHE_MIN_BYTES, .mem = MEM_WINDOW,
      .coherency = COHERENCY_RETRANSLATE },
    { .name = "patch-hard", .chain = false, .max_insns = 4, .tc_bytes = TCACHE_MIN_BYTES, .mem = MEM_WINDOW,
      .coherency = COHERENCY_PATCH },
    { .name = "hard", .chain = false, .max_insns = 1, .tc_bytes = TCACHE_MIN_BYTES, .baseline = true },
};
static const struct run_config *chosen = &run_configs[0];

bool run_config_choose(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < ARRAY_LEN(run_configs); i++)
        if (!strcmp(argv[1], run_configs[i].name)) {
            chosen = &run_configs[i];
            return true;
        }
    if (argc == 1)
        return true;
    fprintf(stderr, "usage: %s [", argv[0]);
    for (size_t i = 0; i < ARRAY_LEN(run_configs); i++)
        fprintf(stderr, "%s%s", i ? " | " : "", run_configs[i].name);
    fprintf(stderr, "]\n");
    return false;
}

const struct run_config *run_config(void)
{
    return chosen;
}

/* ---- the device ------------------------------------------------------------------------------ */

static void record(struct run_fixture *fx, gpa_t pa, unsigned size, bool is_write, uint32_t value)
{
    struct device_access *a = &fx->device[fx->ndevice % MAX_DEVICE_ACCESSES];

    *a = (struct device_access){ is_write, (uint32_t)pa.v - DEVICE, size, value };
    fx->ndevice++;
    if (fx->on_device)
        fx->on_device(fx, a);
}

static uint32_t on_device_read(void *ctx, gpa_t pa, unsigned size)
{
    struct run_fixture *fx = ctx;
    uint32_t value = fx->device_value >> 8 * (pa.v & 3);

    if (size < 4)
        value &= (1u << 8 * size) - 1;
    record(fx, pa, size, false, value);
    return value;
}

static void on_device_write(void *ctx, gpa_t pa, unsigned size, uint32_t value)
{
    record(ctx, pa, size, true, value);
}

/* The other operations of the mmu stay with the VM, whose context they need. */
static struct mmu_ops vm_ops;

static void forward_traced_write(void *ctx, gpa_t pa, uint32_t len)
{
    (void)ctx;
    vm_ops.traced_write(vm_ops.ctx, pa, len);
}

static void forward_watched(void *ctx, gva_t va, uint32_t size, bool is_write)
{
    (void)ctx;
    vm_ops.watched_access(vm_ops.ctx, va, size, is_write);
}

static void forward_drop_all(void *ctx, enum mmu_view_id view, bool keep_global)
{
    (void)ctx;
    vm_ops.fetch_drop_all(vm_ops.ctx, view, keep_global);
}

static void forward_drop_range(void *ctx, enum mmu_view_id view, gva_t va, uint32_t bytes)
{
    (void)ctx;
    vm_ops.fetch_drop_range(vm_ops.ctx, view, va, bytes);
}

static void make_device(struct run_fixture *fx)
{
    struct mmu *m = fx->cpu->mmu;

    vm_ops = m->ops;
    m->ops = (struct mmu_ops){
        fx, on_device_read, on_device_write, forward_traced_write, forward_watched, forward_drop_all,
        forward_drop_range
    };
    mmu_set_region(m, gpa(DEVICE), GUEST_PAGE_SIZE, REGION_MMIO);
}

/* ---- life --------------------------------------------------------------------------------------- */

static void make_segments(struct vm_fixture *vm)
{
    const uint16_t user = DESC_P | DESC_DPL | DESC_S | DESC_ACCESSED;
    const uint16_t data = user | DESC_WRITE, code = user | DESC_CODE | DESC_READ;
    const uint16_t g = DESC_G, d = DESC_DB;

    vm_fixture_gdt_set(vm, SEL_CODE >> 3, 0, 0xfffff, g | d | code);
    vm_fixture_gdt_set(vm, SEL_DATA >> 3, 0, 0xfffff, g | d | data);
    vm_fixture_gdt_set(vm, SEL_BASED >> 3, DATA, 0xfffff, g | d | data);
    vm_fixture_gdt_set(vm, SEL_LIMITED >> 3, DATA, 0xfff, d | data);
    vm_fixture_gdt_set(vm, SEL_DOWN >> 3, DATA, 0xfff, (uint16_t)(d | data | DESC_DOWN));
    vm_fixture_gdt_set(vm, SEL_RO >> 3, 0, 0xfffff, (uint16_t)((g | d | data) & ~DESC_WRITE));
    vm_fixture_gdt_set(vm, SEL_STACK16 >> 3, STACK, 0x1fff, data);
    vm_fixture_gdt_set(vm, SEL_CODE16 >> 3, CODE, 0xffff, code);
    vm_fixture_gdt_set(vm, SEL_CODEB >> 3, CODE, 0x3fff, (uint16_t)(d | code));
    vm_fixture_gdt_set(vm, SEL_FLAT16 >> 3, 0, 0xfffff, (uint16_t)(g | code));
}

static void map_pages(struct vm_fixture *vm, uint32_t va, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++)
        vm_fixture_map(vm, va + i * GUEST_PAGE_SIZE, PTE_P | PTE_W | PTE_US);
}

/* cmocka takes these signals over around every test; the platform installs its handlers once a
 * process, in the first. */
static void keep_fault_handlers(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    static struct sigaction ours[ARRAY_LEN(signals)];
    static bool known;

    for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], known ? &ours[i] : NULL, known ? NULL : &ours[i]);
    known = true;
}

struct run_fixture *run_fixture_new(void)
{
    static struct run_fixture fixture;
    struct run_fixture *fx = &fixture;
    struct vm_fixture_options options = {
        .bt = { .tc_bytes = chosen->tc_bytes,
                .chain = chosen->chain,
                .reuse = true,
                .mem = chosen->mem,
                .max_insns = chosen->max_insns,
                .coherency = chosen->coherency,
                .callouts_only = chosen->callouts_only,
                .verify = true },
        .host_baseline = chosen->baseline,
    };

    memset(fx, 0, sizeof *fx);
    fx->config = chosen;
    fx->vm = vm_fixture_new(&options);
    assert_non_null(fx->vm);
    keep_fault_handlers();
    fx->cpu = fx->vm->cpu;
    fx->device_value = 0x44332211;
    make_segments(fx->vm);
    map_pages(fx->vm, CODE, CODE_PAGES);
    map_pages(fx->vm, STACK, STACK_PAGES);
    map_pages(fx->vm, DATA, DATA_PAGES);
    map_pages(fx->vm, DEVICE, 1);
    make_device(fx);
    reset_state(fx);
    return fx;
}

void run_fixture_free(struct run_fixture *fx)
{
    assert_int_equal(tcache_audit(fx->cpu->tc), 0);
    assert_int_equal(mmu_audit(fx->cpu->mmu), 0);
    fx->cpu->mmu->ops = vm_ops;
    vm_fixture_free(fx->vm);
}

/* ---- memory and state ------------------------------------------------------------------------------ */

void put(struct run_fixture *fx, uint32_t pa, const void *data, uint32_t len)
{
    mmu_phys_write(fx->cpu->mmu, gpa(pa), data, len);
}

void put_code(struct run_fixture *fx, uint32_t pa, struct guest_code code)
{
    put(fx, pa, code.bytes, code.len);
}

void put_u32(struct run_fixture *fx, uint32_t pa, uint32_t value)
{
    put(fx, pa, &value, 4);
}

uint32_t get_u32(struct run_fixture *fx, uint32_t pa)
{
    uint32_t value;

    mmu_phys_read(fx->cpu->mmu, gpa(pa), &value, 4);
    return value;
}

void map_alias(struct run_fixture *fx, uint32_t va, uint32_t pa, uint32_t pte_flags)
{
    uint32_t table = get_u32(fx, fx->cpu->cr3 + (va >> 22) * 4) & ~GUEST_PAGE_MASK;

    put_u32(fx, table + (va >> 12 & 0x3ff) * 4, pte_flags ? pa | pte_flags : 0);
    mmu_invlpg(fx->cpu, gva(va));
}

void reset_state(struct run_fixture *fx)
{
    static const uint16_t selectors[SEG_COUNT] = { SEL_DATA, SEL_CODE, SEL_DATA, SEL_DATA, 0, 0 };
    struct vcpu *cpu = fx->cpu;

    vcpu_fpu_park(cpu);
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = 0x10203040u + 0x11111111u * i;
    cpu->gpr[ESP] = STACK_START;
    vcpu_eflags_set(cpu, EFL_ONE | EFL_IF);
    for (int seg = 0; seg < SEG_COUNT; seg++)
        vm_fixture_load_segment(fx->vm, (enum seg_id)seg, selectors[seg]);
    vm_fixture_enter(fx->vm);
    fx->ndevice = 0;
}

void run_from(struct run_fixture *fx, uint32_t eip)
{
    fx->cpu->eip = eip;
    enum vm_fixture_end end = vm_fixture_run(fx->vm, &fx->frame, fx->text, sizeof fx->text);
    if (end != VM_FIXTURE_EXCEPTION)
        fail_msg("%s", fx->text);
}

void run_to(struct run_fixture *fx, uint32_t eip, uint32_t end)
{
    run_from(fx, eip);
    if (fx->frame.vector != EXC_UD || fx->frame.eip != end)
        fail_msg("expected UD2 at 0x%x, came out with vector %u at 0x%x (CR2 0x%x)", end, fx->frame.vector,
                 fx->frame.eip, fx->cpu->cr2);
}

void run_code(struct run_fixture *fx, struct guest_code code)
{
    put_code(fx, CODE, code);
    put(fx, CODE + code.len, "\x0f\x0b", 2);
    run_to(fx, CODE, CODE + code.len);
}

/* ---- cases -------------------------------------------------------------------------------------------- */

#define WATCHED_PAGES (STACK_PAGES + DATA_PAGES)
#define FLAGS_SHOWN   (EFL_ARITH | EFL_DF)

/* Registers and watched memory as they should be. */
struct expected {
    uint32_t gpr[8], eflags;
    uint8_t mem[WATCHED_PAGES * GUEST_PAGE_SIZE];
};

static uint32_t watched_va(unsigned page)
{
    return (page < STACK_PAGES ? STACK : DATA - STACK_PAGES * GUEST_PAGE_SIZE) + page * GUEST_PAGE_SIZE;
}

static uint8_t *watched_byte(struct expected *x, uint32_t va)
{
    for (unsigned i = 0; i < WATCHED_PAGES; i++)
        if (va - watched_va(i) < GUEST_PAGE_SIZE)
            return &x->mem[i * GUEST_PAGE_SIZE + va - watched_va(i)];
    fail_msg("the case names VA 0x%x, which is not watched", va);
    return NULL;
}

static void apply(struct expected *x, const struct item *items)
{
    for (unsigned i = 0; i < MAX_ITEMS && items[i].where; i++) {
        if (items[i].where <= R(EDI))
            x->gpr[items[i].where - 1] = items[i].value;
        else if (items[i].where == R_FLAGS)
            x->eflags = items[i].value;
        else
            for (unsigned b = 0; b < 4; b++)
                *watched_byte(x, items[i].where + b) = (uint8_t)(items[i].value >> 8 * b);
    }
}

static bool names_flags(const struct item *items)
{
    for (unsigned i = 0; i < MAX_ITEMS; i++)
        if (items[i].where == R_FLAGS)
            return true;
    return false;
}

static void set_up(struct run_fixture *fx, const struct run_case *c, struct expected *x, uint32_t flags)
{
    struct vcpu *cpu = fx->cpu;
    const uint16_t sel[SEG_COUNT] = { c->es, 0, c->ss, c->ds, c->fs, c->gs };

    reset_state(fx);
    for (unsigned i = 0; i < sizeof x->mem; i++)
        x->mem[i] = (uint8_t)(i * 7 + (i >> 8));
    memcpy(x->gpr, cpu->gpr, sizeof x->gpr);
    x->eflags = flags;
    apply(x, c->before);
    for (unsigned i = 0; i < WATCHED_PAGES; i++)
        put(fx, watched_va(i), &x->mem[i * GUEST_PAGE_SIZE], GUEST_PAGE_SIZE);
    memcpy(cpu->gpr, x->gpr, sizeof x->gpr);
    vcpu_eflags_set(cpu, x->eflags | EFL_ONE | EFL_IF);
    for (int seg = 0; seg < SEG_COUNT; seg++)
        if (sel[seg])
            vm_fixture_load_segment(fx->vm, (enum seg_id)seg, sel[seg]);
    vm_fixture_enter(fx->vm);
}

static void compare(struct run_fixture *fx, const struct run_case *c, struct expected *x, const char *how)
{
    static const char *const names[] = { "EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI" };
    const struct vm_fixture_frame *f = &fx->frame;
    uint32_t base = c->at ? c->at : CODE;
    uint32_t eip = base + (c->vector ? c->eip : c->code.len);
    unsigned vector = c->vector == VECTOR_DE ? EXC_DE : c->vector ? c->vector : EXC_UD;

    if (f->vector != vector || f->eip != eip || f->error != c->error)
        fail_msg("%s (%s): vector %u error 0x%x at +0x%x, expected %u error 0x%x at +0x%x; CR2 0x%x", c->name,
                 how, f->vector, f->error, f->eip - base, vector, c->error, eip - base, fx->cpu->cr2);
    if (vector == EXC_PF && fx->cpu->cr2 != c->cr2)
        fail_msg("%s (%s): CR2 0x%x, expected 0x%x", c->name, how, fx->cpu->cr2, c->cr2);
    for (unsigned i = 0; i < 8; i++)
        if (f->gpr[i] != x->gpr[i])
            fail_msg("%s (%s): %s 0x%08x, expected 0x%08x", c->name, how, names[i], f->gpr[i], x->gpr[i]);
    if ((f->eflags ^ x->eflags) & FLAGS_SHOWN)
        fail_msg("%s (%s): flags 0x%x, expected 0x%x", c->name, how, f->eflags & FLAGS_SHOWN,
                 x->eflags & FLAGS_SHOWN);
    for (unsigned i = 0; i < WATCHED_PAGES; i++) {
        uint8_t now[GUEST_PAGE_SIZE];
        mmu_phys_read(fx->cpu->mmu, gpa(watched_va(i)), now, sizeof now);
        for (unsigned b = 0; b < GUEST_PAGE_SIZE; b++)
            if (now[b] != x->mem[i * GUEST_PAGE_SIZE + b])
                fail_msg("%s (%s): byte at 0x%x is 0x%02x, expected 0x%02x", c->name, how, watched_va(i) + b,
                         now[b], x->mem[i * GUEST_PAGE_SIZE + b]);
    }
}

static void run_case(struct run_fixture *fx, const struct run_case *c, uint32_t flags, const char *how)
{
    static struct expected x;
    static const uint8_t ud2[] = { 0x0f, 0x0b };
    uint32_t base = c->at ? c->at : CODE;

    put_code(fx, base, c->code);
    put(fx, base + c->code.len, ud2, sizeof ud2);
    set_up(fx, c, &x, flags);
    apply(&x, c->after);
    run_from(fx, base);
    compare(fx, c, &x, how);
}

void run_cases(struct run_fixture *fx, const struct run_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mmu_flush_all(fx->cpu);
        run_case(fx, &cases[i], 0, "first run");
        run_case(fx, &cases[i], 0, "second run");
        if (names_flags(cases[i].before) || names_flags(cases[i].after))
            continue;
        run_case(fx, &cases[i], EFL_ARITH, "all flags set");
        mmu_flush_all(fx->cpu);
        run_case(fx, &cases[i], EFL_ARITH, "all flags set, slow paths");
    }
}

void run_table(const struct run_case *cases, size_t count)
{
    struct run_fixture *fx = run_fixture_new();

    run_cases(fx, cases, count);
    run_fixture_free(fx);
}
