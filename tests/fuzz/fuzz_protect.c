/*
 * Fuzzer of protection: the monitor's callouts, segment loads, far transfers, interrupts,
 * exceptions and task switches, on descriptor tables, task state segments, page tables and stacks
 * that the input fills and changes as it goes. Nothing is translated: an instruction of the
 * input is decoded and its callout called, as translated code would.
 *
 * What is required besides no assertion and nothing for the sanitizers to say:
 *  - what answers X86_FAULT has changed nothing but Accessed bits of descriptors and of page-table
 *    entries (monitor/README.md). Exceptions: a task switch past its commit point, and what a
 *    repeated string instruction did before the element at fault;
 *  - derived state agrees with what it is derived from, and the privilege level with the mode.
 */
#include <string.h>

#include "bt/bt_internal.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/world.h"

#define RAM_BYTES 0x10000u
#define STEPS_MAX 200u

static struct world world;
static struct vm *vm;
static struct vcpu *cpu, *before;
static uint8_t *ram, *ram_before;
static uint64_t now_ns;

static uint64_t fuzz_now(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static void make_world(void)
{
    struct vm_config config = {
        .ram_bytes = RAM_BYTES,
        .model = &cpu_models[0],
        .bt = { .tc_bytes = TCACHE_MIN_BYTES, .chain = true, .reuse = true },
        .machine = { .ram_bytes = RAM_BYTES, .clock = { .now_ns = fuzz_now } },
        .no_reboot = true,
    };

    ram = platform_reserve(RAM_BYTES);
    ram_before = platform_reserve(RAM_BYTES);
    before = platform_reserve(sizeof *before);
    config.ram = ram;
    vm = vm_new(&config);
    REQUIRE(vm && before && ram_before);
    cpu = vm->cpu;
    world = (struct world){ vm, cpu, ram, RAM_BYTES };
}

/* ---- what must hold ------------------------------------------------------------------------------ */

static void snapshot(void)
{
    vcpu_fpu_park(cpu);
    memcpy(before, cpu, sizeof *cpu);
    memcpy(ram_before, ram, RAM_BYTES);
}

static bool in_table(uint32_t pa, uint32_t base, uint32_t bytes)
{
    return pa - base < bytes && ((pa - base) & 7) == 5;
}

/* Byte 5 of a descriptor has the Accessed bit; with paging on the tables may be anywhere. */
static bool may_differ(uint32_t pa)
{
    uint8_t bits = ram[pa] ^ ram_before[pa];
    bool paged = cpu->cr0 & CR0_PG;

    if (bits == 1 && (ram[pa] & 1) &&
        (paged || in_table(pa, cpu->gdtr.base, cpu->gdtr.limit + 1u) ||
         in_table(pa, cpu->ldtr.base, cpu->ldtr.limit + 1u)))
        return true;
    return paged && !(bits & ~(PTE_A | PTE_D)) && (ram_before[pa] & bits) == 0;
}

/* A task may switch to itself where its descriptor in memory is not busy: its state is saved and loaded again, and
 * TR is as it was. The busy bit tells. Looked up by PA, so only without paging. */
static bool became_busy(void)
{
    uint32_t at = cpu->gdtr.base + (cpu->tr.sel & ~7u) + 5;

    return !(cpu->cr0 & CR0_PG) && at < RAM_BYTES && !(ram_before[at] & 2) && (ram[at] & 2);
}

static void require_unchanged(const char *what)
{
    bool switched = cpu->tr.sel != before->tr.sel || cpu->tr.base != before->tr.base || became_busy();

    if (switched)
        return;
    vcpu_fpu_park(cpu);
    before->fault = cpu->fault;
    before->stats = cpu->stats;
    before->debug_hits = cpu->debug_hits; /* the dispatcher drops what a faulting instruction met */
    before->run = cpu->run;
    before->intr_quiet = cpu->intr_quiet;
    memcpy(before->fpu, cpu->fpu, sizeof cpu->fpu);
    bool same_cpu = !memcmp(cpu, before, sizeof *cpu);
    for (size_t i = 0; !same_cpu && i < sizeof *cpu; i++)
        REQUIRE(((uint8_t *)cpu)[i] == ((uint8_t *)before)[i], "%s: byte 0x%zx of the vCPU changed", what, i);
    if (!memcmp(ram, ram_before, RAM_BYTES))
        return;
    for (uint32_t pa = 0; pa < RAM_BYTES; pa++)
        REQUIRE(ram[pa] == ram_before[pa] || may_differ(pa), "%s: PA 0x%x was 0x%02x, is 0x%02x", what, pa,
                ram_before[pa], ram[pa]);
}

/* Loaded in real mode, where selector 0 is like any other; setting CR0.PE changes no segment register. */
static bool is_of_real_mode[SEG_COUNT];

static void note_real_mode(void)
{
    for (int i = 0; i < SEG_COUNT; i++)
        if (!(cpu->cr0 & CR0_PE))
            is_of_real_mode[i] = true;
}

static void require_no_null_present(const char *what)
{
    note_real_mode();
    for (int i = 0; i < SEG_COUNT; i++) {
        bool is_bad = i != SEG_CS && sel_is_null(cpu->segs[i].sel) && (cpu->segs[i].attr & DESC_P);

        if ((cpu->cr0 & CR0_PE) && !is_bad)
            is_of_real_mode[i] = false;
        REQUIRE(!vcpu_is_protected(cpu) || !is_bad || is_of_real_mode[i], "%s: segment %d is null and present", what, i);
    }
}

static void require_consistent(const char *what)
{
    uint32_t mode = cpu->mode;
    bool is_vm86 = cpu->eflags_sys & EFL_VM;

    for (int i = 0; i < SEG_COUNT; i++)
        REQUIRE(cpu->seg_base[i] == cpu->segs[i].base, "%s: base of segment %d", what, i);
    vcpu_update_mode(cpu);
    REQUIRE(cpu->mode == mode, "%s: mode 0x%x, should be 0x%x", what, mode, cpu->mode);
    REQUIRE(cpu->cpl < 4);
    if (!(cpu->cr0 & CR0_PE))
        REQUIRE(cpu->cpl == 0 && !is_vm86, "%s: CPL %u in real mode", what, cpu->cpl);
    else if (is_vm86)
        REQUIRE(cpu->cpl == 3, "%s: CPL %u in virtual-8086 mode", what, cpu->cpl);
    REQUIRE(cpu->view_base == (uint64_t)(uintptr_t)mmu_view_base(
                                  cpu->mmu, cpu->cpl == 3 ? VIEW_USER : VIEW_SUPERVISOR),
            "%s: view", what);
    require_no_null_present(what);
}

static void check(const char *what, enum x86_rc rc)
{
    if (rc == X86_FAULT)
        require_unchanged(what);
    require_consistent(what);
}

/* ---- steps -------------------------------------------------------------------------------------------- */

static uint32_t any_base(struct input *in)
{
    static const uint32_t bases[] = { 0, WORLD_TSS, WORLD_TSS + 0x100, WORLD_TSS + 0x200, WORLD_LDT, 0x8000, 0xfff0, 0xfffff000 };
    uint8_t how = take8(in);

    return how < 0xc0 ? bases[how & 7] : take32(in);
}

static uint32_t any_limit(struct input *in)
{
    static const uint32_t limits[] = { 0xfffff, 0xffff, 0x67, 0x66, 0x2b, 0x2a, 0, 0xfff };
    uint8_t how = take8(in);

    return how < 0xe0 ? limits[how & 7] : take32(in);
}

static uint32_t any_value(struct input *in)
{
    static const uint32_t values[] = { 0, 1, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff };
    uint8_t how = take8(in);

    return how < 0x40 ? values[how & 7] : how < 0xc0 ? take16(in) : take32(in);
}

static uint16_t any_selector(struct input *in)
{
    uint16_t sel = take16(in);

    return sel & 0x8000 ? sel : sel & 0xff;
}

static void edit_descriptor(struct input *in)
{
    uint8_t where = take8(in);
    uint32_t at = where < 0x80 ? WORLD_GDT + 8u * (where & 63) : where < 0xa0 ? WORLD_LDT + 8u * (where & 15) : WORLD_IDT + 8u * (where & 63);

    if (take8(in) & 1) {
        unsigned type = take8(in);
        world_gate(&world, at, type & 15, type >> 5 & 3, any_selector(in), any_value(in));
    } else {
        uint32_t base = any_base(in), limit = any_limit(in);
        world_descriptor(&world, at, base, limit, take16(in) & 0xf0ffu);
    }
}

static void edit_memory(struct input *in)
{
    uint32_t at = take16(in);

    for (unsigned n = 1 + (take8(in) & 7); n; n--)
        ram[at++ & (RAM_BYTES - 1)] = take8(in);
    mmu_flush_all(cpu);
}

static void edit_page(struct input *in)
{
    uint8_t where = take8(in), flags = take8(in);

    world_put32(&world, where & 0x80 ? WORLD_DIRECTORY : WORLD_TABLE + 4u * (where & 15),
          (where & 0x80 ? WORLD_TABLE : (where & 15u) << 12) | flags);
    mmu_flush_all(cpu);
}

/* Words where the next return or POP finds them. */
static void edit_stack(struct input *in)
{
    const struct segment *ss = &cpu->segs[SEG_SS];
    uint32_t at = ss->base + (cpu->gpr[ESP] & stack_mask(ss));
    bool wide = take8(in) & 1;

    for (unsigned n = 1 + (take8(in) & 15); n; n--, at += wide ? 4 : 2) {
        uint32_t value = any_value(in);
        memcpy(ram + (at & (RAM_BYTES - 4)), &value, wide ? 4 : 2);
    }
}

static void edit_flags(struct input *in)
{
    uint32_t value = take32(in) & (EFL_TF | EFL_IF | EFL_IOPL | EFL_NT | EFL_AC | EFL_VIF | EFL_VIP | EFL_ARITH | EFL_DF);

    vcpu_eflags_set(cpu, value | (cpu->eflags_sys & EFL_VM) | EFL_ONE);
    cpu->cr4 = (cpu->cr4 & CR4_PAE) | (take16(in) & (CR4_VME | CR4_PVI | CR4_DE | CR4_TSD | CR4_PSE | CR4_PGE | CR4_OSFXSR));
    mmu_flush_all(cpu);
    vcpu_update_mode(cpu);
}

static void enter_mode(struct input *in)
{
    uint8_t how = take8(in);

    if (how < 0x80)
        world_ring(&world, how & 3);
    else if (how < 0xb0)
        world_vm86(&world);
    else if (how < 0xe0)
        world_real(&world);
    else
        world_paging(&world, how & 1);
    cpu->idtr = (struct table_reg){ cpu->cr0 & CR0_PE ? WORLD_IDT : 0, 0x3ff };
}

static void deliver(void)
{
    if (exception_deliver(vm) != X86_OK)
        machine_clear_stop(vm->machine); /* a triple fault */
    vm->in_exception = false;
    require_consistent("exception delivery");
}

static void event(struct input *in)
{
    uint8_t how = take8(in), vector = take8(in);

    if (how & 1) {
        vector &= 31;
        if (how & 2)
            vcpu_raise_error(cpu, (enum exc_vector)vector, take16(in));
        else
            vcpu_raise(cpu, (enum exc_vector)vector);
        deliver();
        return;
    }
    snapshot();
    check("interrupt", interrupt_deliver(cpu, vector & (how & 2 ? 0x3f : 0xff), how & 4, how & 8, take16(in), cpu->eip));
}

static void transfer(struct input *in)
{
    uint8_t how = take8(in);
    uint16_t sel = any_selector(in);
    uint32_t off = any_value(in);
    unsigned osize = how & 8 ? 2 : 4;
    enum x86_rc rc = X86_OK;

    snapshot();
    switch (how & 7) {
    case 0:
        rc = far_jump(cpu, sel, off, osize);
        break;
    case 1:
        rc = far_call(cpu, sel, off, osize);
        break;
    case 2:
        rc = far_return(cpu, osize, off & 0xffff);
        break;
    case 3:
    case 4:
        rc = interrupt_return(cpu, osize);
        break;
    case 5:
    case 6:
        if (!vcpu_is_protected(cpu))
            return;
        rc = segment_load(cpu, (enum seg_id[]){ SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS }[off % 5], sel);
        break;
    default:
        if (!vcpu_is_protected(cpu))
            return;
        rc = task_switch_sel(cpu, sel, how & 16 ? TASK_CALL : TASK_JMP, how >> 5 & 1, cpu->next_eip);
        break;
    }
    check("transfer", rc);
    if (rc == X86_FAULT && (how & 128))
        deliver();
}

/* The translator raises what the model lacks, and what the mode decides, before it asks for a callout. */
static bool is_callout(const struct insn *in)
{
    uint32_t features = cpu_model_features(vm->model);

    if (in->info->callout >= CALLOUT_COUNT || !(features >> in->info->feature & 1))
        return false;
    switch ((enum insn_class)in->info->cls) {
    case CLASS_LOWERED:
    case CLASS_SENSITIVE:
    case CLASS_PRIVILEGED:
        return true;
    case CLASS_INNOCUOUS:
    case CLASS_CONTROL:
    case CLASS_UNAVAILABLE:
        break;
    }
    return false;
}

static void instruction(struct input *in)
{
    struct insn insn;

    if (decode_insn(in->p, (size_t)(in->end - in->p), cpu->mode & MODE_CODE32, &insn) != DECODE_OK) {
        take8(in);
        return;
    }
    in->p += insn.len;
    if (!is_callout(&insn))
        return;
    uint32_t ea = any_value(in);
    if (insn.asize == 2)
        ea &= 0xffff;
    enum callout_id id = (enum callout_id)insn.info->callout;
    cpu->next_eip = cpu->eip + insn.len;
    cpu->run = 0; /* repeated string instructions come back at their first opportunity */
    snapshot();
    enum exit_reason exit = callout_table[id](cpu, lower_callout_arg(&insn), ea);
    REQUIRE(exit == EXIT_RESUME || exit == EXIT_DISPATCH || exit == EXIT_FAULT || exit == EXIT_SHADOW ||
                exit == EXIT_HALT || exit == EXIT_UNSUPPORTED || exit == EXIT_POLL || exit == EXIT_STOP,
            "%s: exit %d", callout_name(id), exit);
    if (exit == EXIT_FAULT && insn.rep == REP_NONE)
        require_unchanged(callout_name(id));
    require_consistent(callout_name(id));
    if (exit == EXIT_FAULT)
        deliver();
    machine_clear_stop(vm->machine);
}

static void step(struct input *in)
{
    uint8_t what = take8(in);

    switch (what & 15) {
    case 0:
        edit_descriptor(in);
        break;
    case 1:
        edit_memory(in);
        break;
    case 2:
        cpu->gpr[take8(in) & 7] = any_value(in);
        break;
    case 3:
        enter_mode(in);
        break;
    case 4:
        edit_page(in);
        break;
    case 5:
        edit_stack(in);
        break;
    case 6:
        edit_flags(in);
        break;
    case 7:
        event(in);
        break;
    case 8:
    case 9:
        transfer(in);
        break;
    default:
        instruction(in);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, data + size };

    if (!vm)
        make_world();
    world_begin(&world);
    memset(is_of_real_mode, 0, sizeof is_of_real_mode);
    for (unsigned i = 0; i < STEPS_MAX && input_left(&in); i++) {
        note_real_mode(); /* a step may have put the vCPU there by hand */
        step(&in);
        now_ns += 1000;
    }
    vcpu_fpu_park(cpu);
    if (size % 8 == 0) /* it costs more than the rest */
        REQUIRE(mmu_audit(cpu->mmu) == 0);
    return 0;
}
