/* The fixture of the mmu tests; see fixture.h. */
#include "fixture.h"

#include "platform/platform.h"

static void record(struct fixture *fx, enum event_kind kind, uint64_t addr, uint32_t size, uint32_t value)
{
    if (fx->nevents < MAX_EVENTS)
        fx->event[fx->nevents] = (struct event){ kind, addr, size, value };
    fx->nevents++;
}

/* A device whose every byte reads as the low byte of its address. */
static uint32_t dev_read(void *ctx, gpa_t pa, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)(uint8_t)(pa.v + i) << 8 * i;
    if ((pa.v & ~0x1fffull) != MMIO_PA)
        value = UINT32_MAX;
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
    record(ctx, EV_WATCHED, va.v, size, is_write);
}

static void drop_all(void *ctx, enum mmu_view_id view, bool keep_global)
{
    record(ctx, EV_DROP_ALL, 0, keep_global, view);
}

static void drop_range(void *ctx, enum mmu_view_id view, gva_t va, uint32_t bytes)
{
    record(ctx, EV_DROP_RANGE, va.v, bytes, view);
}

struct fixture *fx_new(uint64_t ram_bytes)
{
    return fx_new_with_rom(ram_bytes, NULL, 0);
}

struct fixture *fx_new_with_rom(uint64_t ram_bytes, const uint8_t *rom, uint32_t rom_bytes)
{
    struct fixture *fx = platform_reserve(sizeof *fx);

    fx->ram = platform_reserve(ram_bytes);
    fx->ram_bytes = ram_bytes;
    fx->cpu = platform_reserve(sizeof *fx->cpu);
    fx->cpu->log = &fx->log;
    vcpu_reset(fx->cpu);
    fx->m = mmu_new(fx->cpu, &(struct mmu_config){
                                 .ram = fx->ram,
                                 .ram_bytes = ram_bytes,
                                 .rom = rom,
                                 .rom_bytes = rom_bytes,
                                 .has_pse36 = true,
                                 .has_pat = true,
                                 .ops = { fx, dev_read, dev_write, traced_write, watched_access, drop_all,
                                          drop_range },
                             });
    mmu_set_region(fx->m, gpa(MMIO_PA), 0x2000, REGION_MMIO);
    mmu_set_region(fx->m, gpa(ROM_PA), 0x1000, REGION_ROM);
    fx->next_table = TABLES_PA;
    return fx;
}

void fx_free(struct fixture *fx)
{
    mmu_free(fx->m);
    platform_release(fx->ram, fx->ram_bytes);
    platform_release(fx->cpu, sizeof *fx->cpu);
    platform_release(fx, sizeof *fx);
}

int fx_setup(void **state)
{
    *state = fx_new(RAM_BYTES);
    return *state ? 0 : -1;
}

int fx_teardown(void **state)
{
    fx_free(*state);
    return 0;
}

uint32_t fx_table(struct fixture *fx)
{
    uint32_t pa = fx->next_table;

    fx->next_table += 0x1000;
    memset(fx->ram + pa, 0, 0x1000);
    return pa;
}

void fx_paging(struct fixture *fx, uint32_t cr4)
{
    struct vcpu *cpu = fx->cpu;

    memset(fx->ram + ROOT_PA, 0, 0x1000);
    if (cr4 & CR4_PAE)
        for (unsigned i = 0; i < 4; i++)
            fx_put64(fx, ROOT_PA + 8 * i, fx_table(fx) | PTE_P);
    cpu->cr4 = cr4;
    cpu->cr3 = ROOT_PA;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_WP;
    mmu_cr3_loaded(cpu);
    mmu_flush_all(cpu);
    fx_clear_events(fx);
}

uint32_t fx_get32(struct fixture *fx, uint64_t pa)
{
    uint32_t value;

    memcpy(&value, fx->ram + pa, sizeof value);
    return value;
}

void fx_put32(struct fixture *fx, uint64_t pa, uint32_t value)
{
    memcpy(fx->ram + pa, &value, sizeof value);
}

uint64_t fx_get64(struct fixture *fx, uint64_t pa)
{
    uint64_t value;

    memcpy(&value, fx->ram + pa, sizeof value);
    return value;
}

void fx_put64(struct fixture *fx, uint64_t pa, uint64_t value)
{
    memcpy(fx->ram + pa, &value, sizeof value);
}

static bool is_pae(const struct fixture *fx)
{
    return (fx->cpu->cr4 & CR4_PAE) != 0;
}

static uint64_t get_entry(struct fixture *fx, uint64_t pa)
{
    return is_pae(fx) ? fx_get64(fx, pa) : fx_get32(fx, pa);
}

static void put_entry(struct fixture *fx, uint64_t pa, uint64_t value)
{
    if (is_pae(fx))
        fx_put64(fx, pa, value);
    else
        fx_put32(fx, pa, (uint32_t)value);
}

uint64_t fx_pde(struct fixture *fx, uint32_t va)
{
    if (!is_pae(fx))
        return ROOT_PA + (va >> 22) * 4;
    return (fx_get64(fx, ROOT_PA + (va >> 30) * 8) & ~0xfffull) + (va >> 21 & 0x1ff) * 8;
}

uint64_t fx_pte(struct fixture *fx, uint32_t va)
{
    uint64_t pde_pa = fx_pde(fx, va);

    if (!(get_entry(fx, pde_pa) & PTE_P))
        put_entry(fx, pde_pa, fx_table(fx) | PTE_P | PTE_W | PTE_US);
    uint64_t table = get_entry(fx, pde_pa) & 0xffffff000ull;
    return is_pae(fx) ? table + (va >> 12 & 0x1ff) * 8 : table + (va >> 12 & 0x3ff) * 4;
}

void fx_map(struct fixture *fx, uint32_t va, uint64_t pa, uint64_t flags)
{
    put_entry(fx, flags & PTE_PS ? fx_pde(fx, va) : fx_pte(fx, va), pa | flags);
}

static uint64_t slot(struct fixture *fx, enum mmu_view_id view, uint32_t va, uint32_t ofs)
{
    uint64_t value;

    memcpy(&value, mmu_view_base(fx->m, view) + ofs + (size_t)(va >> 12) * 16, sizeof value);
    return value;
}

uint64_t fx_load_slot(struct fixture *fx, enum mmu_view_id view, uint32_t va)
{
    return slot(fx, view, va, VIEW_LOAD_OFS);
}

uint64_t fx_store_slot(struct fixture *fx, enum mmu_view_id view, uint32_t va)
{
    return slot(fx, view, va, VIEW_STORE_OFS);
}

uint8_t *fx_probe(struct fixture *fx, uint32_t va, unsigned access)
{
    hva_t hva = { NULL };

    assert_int_equal(mmu_probe(fx->cpu, gva(va), 1, access, &hva), X86_OK);
    return hva.p;
}

void fx_clear_events(struct fixture *fx)
{
    fx->nevents = 0;
}

unsigned fx_count(struct fixture *fx, enum event_kind kind)
{
    unsigned n = 0;

    for (unsigned i = 0; i < fx->nevents && i < MAX_EVENTS; i++)
        n += fx->event[i].kind == kind;
    return n;
}

void fx_expect_pf(struct fixture *fx, uint32_t va, unsigned access, unsigned error)
{
    struct walk w;

    memset(&fx->cpu->fault, 0xff, sizeof fx->cpu->fault);
    assert_int_equal(mmu_walk(fx->cpu, gva(va), access, &w), X86_FAULT);
    assert_int_equal(fx->cpu->fault.vector, EXC_PF);
    assert_true(fx->cpu->fault.has_error);
    assert_int_equal(fx->cpu->fault.error, error);
    assert_int_equal(fx->cpu->fault.cr2, va);
}
