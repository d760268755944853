/* The fixture of the callout tests; see callout_fixture.h. */
#include "callout_fixture.h"

#include "monitor/debug.h"
#include "platform/platform.h"
#include "tests/support/bare_mmu.h"

static void record(struct fixture *fx, enum event_kind kind, uint64_t addr, uint32_t size, uint32_t value)
{
    if (fx->nevents < MAX_EVENTS)
        fx->event[fx->nevents] = (struct event){ kind, addr, size, value };
    fx->nevents++;
    if (fx->nevents == fx->clear_run_at)
        fx->cpu->run = 0;
}

/* ---- the machine that the callouts reach: vm->machine is the fixture itself ------------- */

static struct fixture *machine_fixture(const struct machine *m)
{
    return (struct fixture *)(uintptr_t)m;
}

void machine_bus(struct machine *m, struct bus_request *req)
{
    struct fixture *fx = machine_fixture(m);

    if (!req->is_write)
        req->data = fx->port_value++;
    record(fx, req->is_write ? EV_PORT_WRITE : EV_PORT_READ, req->addr, req->size, req->data);
}

enum machine_stop machine_stop_requested(const struct machine *m, uint32_t *code)
{
    *code = 0;
    return machine_fixture(m)->stop ? STOP_POWEROFF : STOP_NONE;
}

/* 0 stands for no timer. */
uint64_t machine_next_deadline(const struct machine *m)
{
    uint64_t deadline_ns = machine_fixture(m)->deadline_ns;

    return deadline_ns ? deadline_ns : UINT64_MAX;
}

void machine_ferr(struct machine *m, bool level)
{
    machine_fixture(m)->ferr = level;
}

uint64_t machine_now_ns(const struct machine *m)
{
    return machine_fixture(m)->now_ns;
}

/* ---- what the mmu reports ------------------------------------------------------------------ */

/* A device whose every byte reads as the low byte of its address. */
static uint32_t dev_read(void *ctx, gpa_t pa, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)(uint8_t)(pa.v + i) << 8 * i;
    record(ctx, EV_MMIO_READ, pa.v, size, value);
    return value;
}

static void dev_write(void *ctx, gpa_t pa, unsigned size, uint32_t value)
{
    record(ctx, EV_MMIO_WRITE, pa.v, size, value);
}

static void traced_write(void *ctx, gpa_t pa, uint32_t len)
{
    record(ctx, EV_TRACED, pa.v, len, 0);
}

static void watched_access(void *ctx, gva_t va, uint32_t size, bool is_write)
{
    debug_data_access(((struct fixture *)ctx)->cpu, va, size, is_write);
}

/* ---- setting up ------------------------------------------------------------------------------ */

static void flat_segments(struct vcpu *cpu, unsigned dpl)
{
    uint16_t rights =
        (uint16_t)(DESC_P | DESC_S | DESC_WRITE | DESC_ACCESSED | DESC_DB | DESC_G | dpl << DESC_DPL_SHIFT);

    for (int i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = (struct segment){ .sel = (uint16_t)(0x10 | dpl), .limit = UINT32_MAX, .attr = rights };
    cpu->segs[SEG_CS].attr |= DESC_CODE;
}

int fx_setup(void **state)
{
    struct fixture *fx = platform_reserve(sizeof *fx);
    struct vcpu *cpu = platform_reserve(sizeof *cpu);

    fx->ram = platform_reserve(RAM_BYTES);
    fx->cpu = cpu;
    fx->vm.cpu = cpu;
    fx->vm.model = &cpu_models[0];
    fx->vm.machine = (struct machine *)fx;
    cpu->vm = &fx->vm;
    cpu->log = &fx->vm.log;
    vcpu_reset(cpu);
    struct mmu_config config = { .ram = fx->ram, .ram_bytes = RAM_BYTES, .ops = bare_mmu_ops };

    config.ops.ctx = fx;
    config.ops.mmio_read = dev_read;
    config.ops.mmio_write = dev_write;
    config.ops.traced_write = traced_write;
    config.ops.watched_access = watched_access;
    if (!mmu_new(cpu, &config))
        return -1;
    mmu_set_region(cpu->mmu, gpa(MMIO_PA), 0x1000, REGION_MMIO);
    flat_segments(cpu, 0);
    cpu->cr0 = CR0_PE | CR0_ET;
    cpu->gdtr = (struct table_reg){ GDT_PA, 0xff };
    fx->vm.armed_ns = UINT64_MAX;
    vcpu_update_mode(cpu);
    *state = fx;
    return 0;
}

int fx_teardown(void **state)
{
    struct fixture *fx = *state;

    mmu_free(fx->cpu->mmu);
    platform_release(fx->ram, RAM_BYTES);
    platform_release(fx->cpu, sizeof *fx->cpu);
    platform_release(fx, sizeof *fx);
    return 0;
}

static uint64_t log2_of(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : 2;
}

uint64_t fx_arg(const struct operands *o)
{
    uint64_t seg = o->seg_given ? o->seg : SEG_DS;

    return o->imm | (uint64_t)o->imm2 << 32 | (uint64_t)o->reg << 48 | (uint64_t)o->rm << 51 |
           (uint64_t)o->mem << 54 | seg << 55 | log2_of(o->osize) << 58 | log2_of(o->asize) << 60 |
           (uint64_t)o->rep << 62;
}

enum exit_reason fx_call(struct fixture *fx, callout_fn *fn, uint64_t arg, uint32_t ea)
{
    fx->cpu->eip = CODE_EIP;
    fx->cpu->next_eip = NEXT_EIP;
    return fn(fx->cpu, arg, ea);
}

void fx_expect_fault(struct fixture *fx, callout_fn *fn, uint64_t arg, uint32_t ea, int vector, int error)
{
    struct vcpu *cpu = fx->cpu;
    struct vcpu before = *cpu;

    assert_int_equal(fx_call(fx, fn, arg, ea), EXIT_FAULT);
    assert_int_equal(cpu->fault.vector, vector);
    assert_int_equal(cpu->fault.has_error, error != NO_ERROR);
    if (error != NO_ERROR)
        assert_int_equal(cpu->fault.error, error);
    assert_int_equal(cpu->eip, CODE_EIP);
    assert_memory_equal(cpu->gpr, before.gpr, sizeof before.gpr);
    assert_memory_equal(cpu->segs, before.segs, sizeof before.segs);
    assert_int_equal(cpu->flags_ax, before.flags_ax);
    assert_int_equal(cpu->cr0, before.cr0);
    assert_int_equal(cpu->cr3, before.cr3);
    assert_int_equal(cpu->cr4, before.cr4);
    assert_int_equal(cpu->ldtr.sel, before.ldtr.sel);
    assert_int_equal(cpu->tr.sel, before.tr.sel);
    assert_int_equal(cpu->mode, before.mode);
}

void fx_put32(struct fixture *fx, uint32_t pa, uint32_t value)
{
    memcpy(fx->ram + pa, &value, sizeof value);
}

uint32_t fx_get32(struct fixture *fx, uint32_t pa)
{
    uint32_t value;

    memcpy(&value, fx->ram + pa, sizeof value);
    return value;
}

void fx_paging(struct fixture *fx)
{
    struct vcpu *cpu = fx->cpu;

    memset(fx->ram + ROOT_PA, 0, 0x1000);
    fx_put32(fx, ROOT_PA, TABLE_PA | PTE_P | PTE_W | PTE_US);
    for (uint32_t i = 0; i < 1024; i++)
        fx_put32(fx, TABLE_PA + 4 * i, i * 0x1000 | (i < RAM_BYTES >> 12 ? PTE_P | PTE_W | PTE_US : 0));
    cpu->cr3 = ROOT_PA;
    cpu->cr0 |= CR0_PE | CR0_PG | CR0_WP;
    mmu_cr3_loaded(cpu);
    mmu_flush_all(cpu);
    vcpu_update_mode(cpu);
}

void fx_pte(struct fixture *fx, uint32_t va, uint32_t value)
{
    fx_put32(fx, TABLE_PA + 4 * (va >> 12), value);
    mmu_invlpg(fx->cpu, gva(va));
}

void fx_real_mode(struct fixture *fx)
{
    struct vcpu *cpu = fx->cpu;

    cpu->cr0 &= ~(CR0_PE | CR0_PG);
    for (int i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] =
            (struct segment){ .limit = 0xffff, .attr = DESC_P | DESC_S | DESC_WRITE | DESC_ACCESSED };
    mmu_flush_all(cpu);
    vcpu_update_mode(cpu);
}

void fx_user_mode(struct fixture *fx)
{
    flat_segments(fx->cpu, 3);
    fx->cpu->cpl = 3;
    vcpu_update_mode(fx->cpu);
    mmu_select_view(fx->cpu);
}

void fx_vm86_mode(struct fixture *fx)
{
    fx_user_mode(fx);
    for (int i = 0; i < SEG_COUNT; i++)
        fx->cpu->segs[i] =
            (struct segment){ .limit = 0xffff,
                              .attr = DESC_P | DESC_DPL | DESC_S | DESC_WRITE | DESC_ACCESSED };
    fx->cpu->eflags_sys |= EFL_VM | EFL_IOPL;
    vcpu_update_mode(fx->cpu);
}
