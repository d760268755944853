/*
 * One VM: makes the parts, and joins them. The arrows that point upwards in the module
 * graph (a store to a traced page, a device access, a dropped fetch mapping) are closed
 * here, by functions handed down.
 */
#include "base/string.h"
#include "monitor/debug.h"
#include "monitor/monitor.h"

#define RESERVE_ALIGN 4096u

/* ---- mmu asks -------------------------------------------------------------------------- */

static uint32_t on_mmio_read(void *ctx, gpa_t pa, unsigned size)
{
    struct vm *vm = ctx;
    struct bus_request req = { .space = BUS_MEM, .size = (uint8_t)size, .addr = pa.v };

    machine_bus(vm->machine, &req);
    return req.data;
}

static void on_mmio_write(void *ctx, gpa_t pa, unsigned size, uint32_t value)
{
    struct vm *vm = ctx;
    struct bus_request req = { .space = BUS_MEM, .size = (uint8_t)size, .is_write = true, .addr = pa.v,
                               .data = value };

    machine_bus(vm->machine, &req);
}

static void on_traced_write(void *ctx, gpa_t pa, uint32_t len)
{
    struct vm *vm = ctx;

    LOG(&vm->log, trace, "trace: PA 0x%lx, %u bytes written, EIP 0x%08x\n", pa.v, len, vm->cpu->eip);
    bt_code_written(vm->cpu, pa, len);
}

static void on_watched_access(void *ctx, gva_t va, uint32_t size, bool is_write)
{
    struct vm *vm = ctx;

    debug_data_access(vm->cpu, va, size, is_write);
}

static void on_fetch_drop_all(void *ctx, enum mmu_view_id view, bool keep_global)
{
    struct vm *vm = ctx;

    bt_fetch_dropped_all(vm->cpu, view, keep_global);
}

static void on_fetch_drop_range(void *ctx, enum mmu_view_id view, gva_t va, uint32_t bytes)
{
    struct vm *vm = ctx;

    bt_fetch_dropped_range(vm->cpu, view, va, bytes);
}

/* ---- machine asks ----------------------------------------------------------------------- */

static void on_mem_read(void *ctx, uint64_t pa, void *buf, uint32_t len)
{
    struct vm *vm = ctx;

    mmu_phys_read(vm->cpu->mmu, gpa(pa), buf, len);
}

static void on_mem_write(void *ctx, uint64_t pa, const void *buf, uint32_t len)
{
    struct vm *vm = ctx;

    if (vm->coherency)
        vm->coherency->writer = CAUSE_DEVICE;
    mmu_phys_write(vm->cpu->mmu, gpa(pa), buf, len);
    if (vm->coherency)
        vm->coherency->writer = CAUSE_STORE;
}

#define LOW_ROM_BYTES 0x20000u /* of the image, what the ISA bridge decodes below 1 MiB */
#define ONE_MIB       0x100000u

/* What the chipset shows of C0000..FFFFF and A0000..BFFFF. Behind RAM there is the ROM, or nobody. */
static void route_part(struct vm *vm, uint32_t pa, uint32_t bytes, enum region_kind behind, bool reads_ram,
                       bool writes_ram)
{
    struct mmu *mmu = vm->cpu->mmu;

    if (!bytes)
        return;
    if (reads_ram)
        mmu_set_region(mmu, gpa(pa), bytes, writes_ram ? REGION_RAM : REGION_ROM);
    else if (writes_ram)
        mmu_set_region_write_ram(mmu, gpa(pa), bytes, behind);
    else
        mmu_set_region(mmu, gpa(pa), bytes, behind);
}

static void on_mem_route(void *ctx, uint64_t pa, uint32_t bytes, bool reads_ram, bool writes_ram)
{
    struct vm *vm = ctx;
    uint32_t first = (uint32_t)pa, end = first + bytes;
    uint32_t rom = ONE_MIB - min_u32(vm->config.machine.rom_bytes, LOW_ROM_BYTES);
    uint32_t split = max_u32(first, min_u32(rom, end)); /* the image begins here */

    LOG(&vm->log, shadow, "PA 0x%05x..0x%05x: reads from %s, writes to %s\n", first, end - 1,
        reads_ram ? "RAM" : "the bus", writes_ram ? "RAM" : "the bus");
    route_part(vm, first, split - first, REGION_MMIO, reads_ram, writes_ram);
    route_part(vm, split, end - split, REGION_IMAGE, reads_ram, writes_ram);
    bt_code_moved(vm->cpu, gpa(pa), bytes);
    vm->memory_moved = true;
    vm->cpu->run = 0;
}

static void on_intr(void *ctx, bool level)
{
    struct vm *vm = ctx;

    vm->cpu->intr_quiet = !level;
}

static void on_a20(void *ctx, bool enabled)
{
    struct vm *vm = ctx;

    if (vm->cpu->a20_off == !enabled)
        return;
    vm->cpu->a20_off = !enabled;
    mmu_flush_all(vm->cpu);
    vm->memory_moved = true;
    vm->cpu->run = 0;
}

/* clock=insn: one nanosecond an instruction. */
static uint64_t insn_now_ns(void *ctx)
{
    const struct vm *vm = ctx;

    return vm->insn_ns + (uint64_t)(vm->insn_budget - vm->cpu->icount_left);
}

static void claim_mmio(void *ctx, uint64_t pa, uint64_t bytes)
{
    struct vm *vm = ctx;

    mmu_set_region(vm->cpu->mmu, gpa(pa), bytes, REGION_MMIO);
}

/* ---- making ------------------------------------------------------------------------------- */

static bool make_mmu(struct vm *vm)
{
    struct mmu_config config = {
        .ram = vm->config.ram,
        .ram_bytes = vm->config.ram_bytes,
        .rom = vm->config.machine.rom,
        .rom_bytes = vm->config.machine.rom_bytes,
        .has_pse36 = (vm->model->edx1 & CPUID_PSE36) != 0,
        .has_pat = (vm->model->edx1 & CPUID_PAT) != 0,
        .ops = { .ctx = vm, .mmio_read = on_mmio_read, .mmio_write = on_mmio_write,
                 .traced_write = on_traced_write, .watched_access = on_watched_access, .fetch_drop_all = on_fetch_drop_all,
                 .fetch_drop_range = on_fetch_drop_range },
    };

    vm->cpu->mmu = mmu_new(vm->cpu, &config);
    return vm->cpu->mmu != NULL;
}

static bool make_machine(struct vm *vm)
{
    struct machine_config config = vm->config.machine;

    config.log = &vm->log;
    config.mem_ctx = config.intr_ctx = vm;
    config.mem_read = on_mem_read;
    config.mem_write = on_mem_write;
    config.mem_route = on_mem_route;
    config.intr_changed = on_intr;
    config.a20_changed = on_a20;
    if (vm->config.clock_insn)
        config.clock = (struct vm_clock_source){ .now_ns = insn_now_ns, .ctx = vm };
    vm->machine = machine_new(&config);
    if (!vm->machine)
        return false;
    machine_for_each_mmio(vm->machine, claim_mmio, vm);
    return true;
}

static uint64_t vm_now_ns(void *ctx)
{
    const struct vm *vm = ctx;

    return machine_now_ns(vm->machine);
}

static bool make_coherency_log(struct vm *vm)
{
    if (!vm->config.coherency_events)
        return true;
    vm->coherency = platform_reserve(sizeof *vm->coherency);
    if (!vm->coherency)
        return false;
    vm->coherency->ctx = vm;
    vm->coherency->now_ns = vm_now_ns;
    vm->coherency->writer = CAUSE_STORE;
    return true;
}

void vm_coherency_flush(struct vm *vm)
{
    struct coherency_log *log = vm->coherency;

    if (!log || (!log->count && !log->lost))
        return;
    vm->config.coherency_events(vm->config.coherency_ctx, vm->cpu, log->event, log->count, log->lost);
    log->count = 0;
    log->lost = 0;
}

static bool make_bt(struct vm *vm)
{
    struct bt_ops ops = { .ctx = vm->config.listing_ctx, .segment_linear = segment_linear,
                          .callouts = callout_table, .features = cpu_model_features(vm->model),
                          .check_breakpoint = debug_check_fetch,
                          .translated = vm->config.translated,
                          .coherency_log = vm->coherency };

    return bt_new(vm->cpu, &vm->config.bt, &vm->config.host, &ops) != NULL;
}

struct vm *vm_new(const struct vm_config *config)
{
    size_t vm_bytes = (sizeof(struct vm) + 63) & ~(size_t)63;
    size_t bytes = (vm_bytes + sizeof(struct vcpu) + RESERVE_ALIGN - 1) & ~(size_t)(RESERVE_ALIGN - 1);
    uint8_t *p = platform_reserve(bytes);

    if (!p)
        return NULL;
    struct vm *vm = (struct vm *)(void *)p;
    vm->footprint = bytes;
    vm->cpu = (struct vcpu *)(void *)(p + vm_bytes);
    vm->config = *config;
    vm->model = config->model;
    vm->log.mask = config->log_mask;
    vm->cpu->log = &vm->log;
    vm->cpu->vm = vm;
    vm->armed_ns = UINT64_MAX;
    vm->is_paused = config->start_paused;
    vm->checkpoint_next = config->checkpoint_every ? config->checkpoint_first : UINT64_MAX;
    vcpu_reset(vm->cpu);
    vm->cpu->gpr[EDX] = vm->model->signature;
    if (!make_mmu(vm) || !make_machine(vm) || !make_coherency_log(vm) || !make_bt(vm)) {
        vm_free(vm);
        return NULL;
    }
    machine_reset(vm->machine);
    machine_place_tables(vm->machine);
    return vm;
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    bt_free(vm->cpu->bt);
    machine_free(vm->machine);
    mmu_free(vm->cpu->mmu);
    if (vm->coherency)
        platform_release(vm->coherency, sizeof *vm->coherency);
    platform_release(vm, vm->footprint);
}
