/*
 * Fuzzer of paging: page tables of every kind with any contents, in RAM, in ROM, in device memory
 * and beyond it all; walks, reads, writes and fetches at either privilege; changes of the control
 * registers, INVLPG, CR3 loads, traces, A20.
 *
 * The oracle is a walker of its own below, written from the manual and without regard to speed.
 * A walk must agree with it in everything: physical address, rights, or vector and error code, and
 * the Accessed and Dirty bits it leaves in memory. An access through the shadow tables must agree
 * with it too, or with a translation that was good at an earlier access and that nothing has
 * invalidated since: a TLB may keep those. mmu_audit has no complaint at any time.
 *
 * Ref: Intel SDM vol. 3A, ch. "Paging".
 */
#include <string.h>

#include "base/log.h"
#include "mmu/mmu.h"
#include "platform/platform.h"
#include "tests/fuzz/input.h"

#define RAM_BYTES  0x40000u
#define ROM_PA     0x30000u /* one page */
#define DEVICE_PA  0x31000u /* one page */
#define ROOT       0x1000u
#define TABLES     16u /* pages from ROOT on that hold tables, and what is mapped, too */
#define STEPS_MAX  256u
#define STALE_MAX  64u

static struct vcpu *cpu;
static struct log silent;
static uint8_t *ram;
static bool is_modern; /* the model has PSE-36 and PAT */
static unsigned device_reads;

/* ---- the oracle ---------------------------------------------------------------------------------- */

struct expected {
    bool faults;
    unsigned error;
    uint64_t pa;
    uint32_t leaf_bytes;
    bool is_user, is_writable, is_executable, is_global, is_dirty;
    unsigned nentries; /* read on the way; the leaf is the last */
    uint64_t entry_pa[3];
    uint64_t entry[3];
};

static uint64_t device_byte(uint64_t pa)
{
    return (uint8_t)(pa * 37 + 1);
}

static uint64_t masked(uint64_t pa)
{
    return cpu->a20_off ? pa & ~0x100000ull : pa;
}

static bool is_device(uint64_t pa)
{
    return pa >= RAM_BYTES || (pa & ~0xfffull) == DEVICE_PA;
}

static uint64_t load(uint64_t pa, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (is_device(pa + i) ? device_byte(pa + i) : ram[pa + i]) << 8 * i;
    return value;
}

static void fail_with(struct expected *e, unsigned access, unsigned error)
{
    bool nx = (cpu->cr4 & CR4_PAE) && (cpu->efer & EFER_NXE);

    e->faults = true;
    e->error = error | (access & ACC_WRITE ? 2u : 0) | (access & ACC_USER ? 4u : 0) |
               ((access & ACC_EXEC) && nx ? 16u : 0);
}

/* One level: P, then reserved bits. -> whether the walk goes on. */
static bool read_entry(struct expected *e, unsigned access, uint64_t pa, unsigned bytes, uint64_t reserved,
                       uint64_t reserved_large)
{
    uint64_t entry = load(masked(pa), bytes);

    e->entry_pa[e->nentries] = masked(pa);
    e->entry[e->nentries++] = entry;
    if (!(entry & 1)) {
        fail_with(e, access, 0);
        return false;
    }
    if (entry & (reserved_large && (entry & 0x80) ? reserved_large : reserved)) {
        fail_with(e, access, 1 | 8);
        return false;
    }
    return true;
}

static void judge(struct expected *e, unsigned access, uint64_t base, uint32_t offset, uint32_t leaf_bytes)
{
    uint64_t leaf = e->entry[e->nentries - 1];
    bool nx = false;

    e->is_user = e->is_writable = true;
    for (unsigned i = 0; i < e->nentries; i++) {
        e->is_user &= (e->entry[i] & 4) != 0;
        e->is_writable &= (e->entry[i] & 2) != 0;
        nx |= (cpu->cr4 & CR4_PAE) && e->entry[i] >> 63;
    }
    e->is_executable = !nx;
    e->is_global = (leaf & 0x100) && (cpu->cr4 & CR4_PGE);
    e->is_dirty = (leaf & 0x40) || (access & ACC_WRITE);
    e->pa = masked(base | offset);
    e->leaf_bytes = leaf_bytes;
    if ((access & ACC_USER) && !e->is_user)
        fail_with(e, access, 1);
    else if ((access & ACC_WRITE) && !e->is_writable && ((access & ACC_USER) || (cpu->cr0 & CR0_WP)))
        fail_with(e, access, 1);
    else if ((access & ACC_EXEC) && nx)
        fail_with(e, access, 1);
}

static void expect_2level(struct expected *e, uint32_t va, unsigned access)
{
    bool pse = cpu->cr4 & CR4_PSE;
    uint64_t pde_pa = (cpu->cr3 & 0xfffff000u) + (va >> 22) * 4;

    if (!read_entry(e, access, pde_pa, 4, 0, !pse ? 0 : is_modern ? 0x003e0000u : 0x003ff000u))
        return;
    uint32_t pde = (uint32_t)e->entry[0];
    if (pse && (pde & 0x80)) {
        uint64_t high = pde >> 13 & 15;
        judge(e, access, high << 32 | (pde & 0xffc00000u), va & 0x3fffff, 4u << 20);
        return;
    }
    if (!read_entry(e, access, (pde & 0xfffff000u) + (va >> 12 & 0x3ff) * 4, 4, pse && !is_modern ? 0x80 : 0, 0)) /* PSE clear: no bit is reserved */
        return;
    judge(e, access, (uint32_t)e->entry[1] & 0xfffff000u, va & 0xfff, 4096);
}

static void expect_pae(struct expected *e, uint32_t va, unsigned access)
{
    uint64_t address = 0xffffff000ull, reserved = 0x7ffffff000000000ull;

    if (!(cpu->efer & EFER_NXE))
        reserved |= 1ull << 63;
    uint64_t pdpte = cpu->pdpte[va >> 30];
    if (!(pdpte & 1)) {
        fail_with(e, access, 0);
        return;
    }
    if (!read_entry(e, access, (pdpte & address) + (va >> 21 & 0x1ff) * 8, 8, reserved,
                    reserved | (is_modern ? 0x1fe000 : 0x1ff000)))
        return;
    uint64_t pde = e->entry[0];
    if (pde & 0x80) {
        judge(e, access, pde & 0xfffe00000ull, va & 0x1fffff, 2u << 20);
        return;
    }
    if (!read_entry(e, access, (pde & address) + (va >> 12 & 0x1ff) * 8, 8, reserved | (is_modern ? 0 : 0x80), 0))
        return;
    judge(e, access, e->entry[1] & address, va & 0xfff, 4096);
}

static struct expected expect(uint32_t va, unsigned access)
{
    struct expected e = { .nentries = 0 };

    if (!(cpu->cr0 & CR0_PG)) {
        e.pa = masked(va);
        e.leaf_bytes = 4096;
        e.is_user = e.is_writable = e.is_executable = e.is_global = e.is_dirty = true;
    } else if (cpu->cr4 & CR4_PAE) {
        expect_pae(&e, va, access);
    } else {
        expect_2level(&e, va, access);
    }
    return e;
}

/* What the walk leaves in memory: A everywhere, D in the leaf of a write; where there is RAM to hold it. */
static void require_bits(const struct expected *e, unsigned access)
{
    for (unsigned i = 0; i < e->nentries; i++) {
        uint64_t pa = e->entry_pa[i], want = e->entry[i];
        if (!e->faults) {
            want |= 0x20;
            if ((access & ACC_WRITE) && pa == e->entry_pa[e->nentries - 1]) /* a directory may be its own table */
                want |= 0x40;
        }
        if (is_device(pa) || (pa & ~0xfffull) == ROM_PA)
            want = e->entry[i];
        unsigned bytes = cpu->cr4 & CR4_PAE ? 8 : 4;
        REQUIRE(load(pa, bytes) == want, "entry %u at PA 0x%llx: 0x%llx, should be 0x%llx", i,
                (unsigned long long)pa, (unsigned long long)load(pa, bytes), (unsigned long long)want);
    }
}

/* ---- translations that a TLB may still hold -------------------------------------------------------- */

struct stale {
    bool valid, is_user_view, is_global;
    uint32_t vpn, leaf_bytes;
    uint64_t pfn;
    unsigned access; /* what it was used for */
};

static struct stale stale[STALE_MAX];
static unsigned nstale;

static void remember(uint32_t va, unsigned access, const struct expected *e)
{
    struct stale s = { true, access & ACC_USER, e->is_global, va >> 12, e->leaf_bytes, e->pa >> 12, access & 7 };

    stale[nstale++ % STALE_MAX] = s;
}

static bool may_be_stale(uint32_t va, unsigned access, uint64_t pa)
{
    if (nstale > STALE_MAX)
        return true; /* more was cached than is remembered */
    for (unsigned i = 0; i < STALE_MAX; i++) {
        const struct stale *s = &stale[i];
        if (s->valid && s->vpn == va >> 12 && s->is_user_view == !!(access & ACC_USER) && s->pfn == pa >> 12 &&
            !(access & 7 & ~(s->access | (s->access & (ACC_WRITE | ACC_EXEC) ? ACC_READ : 0))))
            return true;
    }
    return false;
}

static void forget(bool keep_global)
{
    for (unsigned i = 0; i < STALE_MAX; i++)
        stale[i].valid &= keep_global && stale[i].is_global;
    if (!keep_global)
        nstale = 0;
}

/* INVLPG drops at least the page, and the whole large page that it is in. */
static void forget_page(uint32_t va)
{
    for (unsigned i = 0; i < STALE_MAX; i++)
        if (stale[i].vpn == va >> 12 ||
            (stale[i].leaf_bytes > 4096 && !(((stale[i].vpn << 12) ^ va) & ~(stale[i].leaf_bytes - 1))))
            stale[i].valid = false;
}

/* ---- the world --------------------------------------------------------------------------------------- */

static uint32_t device_read(void *ctx, gpa_t pa, unsigned size)
{
    uint32_t value = 0;

    (void)ctx;
    device_reads++;
    REQUIRE((size == 1 || size == 2 || size == 4) && !(pa.v & (size - 1)) && is_device(pa.v));
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)device_byte(pa.v + i) << 8 * i;
    return value;
}

static void device_write(void *ctx, gpa_t pa, unsigned size, uint32_t value)
{
    (void)ctx, (void)value;
    REQUIRE((size == 1 || size == 2 || size == 4) && !(pa.v & (size - 1)) && is_device(pa.v));
}

static void traced_write(void *ctx, gpa_t pa, uint32_t len)
{
    (void)ctx;
    REQUIRE(mmu_is_traced(cpu->mmu, pa) && (pa.v & 0xfff) + len <= 0x1000);
}

static void drop_all(void *ctx, enum mmu_view_id view, bool keep_global)
{
    (void)ctx, (void)keep_global;
    REQUIRE(view < VIEW_COUNT);
}

static void drop_range(void *ctx, enum mmu_view_id view, gva_t va, uint32_t bytes)
{
    (void)ctx, (void)va;
    REQUIRE(view < VIEW_COUNT && bytes && !(bytes & 0xfff));
}

static struct vcpu *make_world(bool modern)
{
    struct mmu_config config = { .ram_bytes = RAM_BYTES,
                                 .ops = { .mmio_read = device_read,
                                          .mmio_write = device_write,
                                          .traced_write = traced_write,
                                          .fetch_drop_all = drop_all,
                                          .fetch_drop_range = drop_range },
                                 .has_pse36 = modern,
                                 .has_pat = modern };

    config.ram = ram;
    cpu = platform_reserve(sizeof *cpu);
    cpu->log = &silent;
    vcpu_reset(cpu);
    cpu->mmu = mmu_new(cpu, &config);
    REQUIRE(cpu->mmu);
    mmu_set_region(cpu->mmu, gpa(DEVICE_PA), 0x1000, REGION_MMIO);
    mmu_set_region(cpu->mmu, gpa(ROM_PA), 0x1000, REGION_ROM);
    return cpu;
}

static void choose_world(bool modern)
{
    static struct vcpu *worlds[2];

    if (!ram)
        ram = platform_reserve(RAM_BYTES);
    if (!worlds[modern])
        worlds[modern] = make_world(modern);
    cpu = worlds[modern];
    is_modern = modern;
}

static uint64_t any_page(struct input *in)
{
    uint8_t how = take8(in);

    if (how < 0xa0)
        return ROOT + 0x1000u * (how % TABLES);
    if (how < 0xd0)
        return 0x1000ull * (how & 0x3f);
    return how < 0xe8 ? ((uint64_t)take16(in) << 12) : (uint64_t)take32(in) << 12 & 0xffffff000ull;
}

static void begin(struct input *in)
{
    uint8_t kind = take8(in);

    choose_world(!(kind & 32));
    memset(ram, 0, RAM_BYTES);
    for (uint64_t pa = 0; pa < RAM_BYTES; pa += 0x1000)
        mmu_trace_remove(cpu->mmu, gpa(pa));
    vcpu_reset(cpu);
    cpu->cr0 = CR0_PE | CR0_PG | (kind & 1 ? CR0_WP : 0);
    cpu->cr4 = (kind & 2 ? CR4_PAE : 0) | (kind & 4 ? CR4_PSE : 0) | (kind & 8 ? CR4_PGE : 0);
    cpu->efer = kind & 16 ? EFER_NXE : 0;
    cpu->cr3 = ROOT;
    for (unsigned i = 0; i < 4; i++)
        cpu->pdpte[i] = (ROOT + 0x1000 * (i + 1)) | PTE_P;
    mmu_flush_all(cpu);
    memset(stale, 0, sizeof stale);
    nstale = 0;
}

/* ---- steps --------------------------------------------------------------------------------------------- */

/* Entries cluster at the low and the high end of a table, where the addresses below lead. */
static uint32_t any_va(struct input *in)
{
    uint8_t a = take8(in), b = take8(in);
    uint32_t va = (uint32_t)(a & 3) << 30 | (uint32_t)(a >> 2 & 3) << 21 | (uint32_t)(a >> 4 & 3) << 12;

    if (a & 0x40)
        va |= 0x3fc00000u;
    if (a & 0x80)
        va |= 0x001fc000u;
    return va | (b & 0x80 ? 0xff0u : 0) | (b & 0x7f);
}

static void edit_entry(struct input *in)
{
    uint64_t table = any_page(in), target = any_page(in);
    uint8_t index = take8(in);
    uint16_t flags = take16(in);
    bool wide = cpu->cr4 & CR4_PAE;
    uint32_t slots = wide ? 512 : 1024;
    uint32_t slot = index < 0x80 ? index % 8 : index < 0xc0 ? slots - 1 - index % 8 : index * 2u;
    uint64_t entry = target | (flags & 0xfff) | (wide && (flags & 0x8000) ? PTE_NX : 0);

    if ((flags & 0x7000) == 0x7000)
        entry |= (uint64_t)take32(in) << (wide ? 32 : 12);
    if ((entry & PTE_PS) && (flags & 0x4000))
        entry &= wide ? 0x8000000fffe00fffull : 0xffc00fffull; /* seldom reserved bits, then */
    uint64_t pa = table + slot * (wide ? 8u : 4u);
    mmu_phys_write(cpu->mmu, gpa(pa), &entry, wide ? 8 : 4);
}

static void walk(struct input *in)
{
    uint32_t va = any_va(in);
    static const unsigned kinds[] = { ACC_READ, ACC_WRITE, ACC_EXEC, ACC_READ | ACC_WRITE };
    uint8_t how = take8(in);
    unsigned access = kinds[how & 3] | (how & 4 ? ACC_USER : 0);
    struct expected e = expect(va, access);
    struct walk w;
    enum x86_rc rc = mmu_walk(cpu, gva(va), access, &w);

    REQUIRE((rc == X86_FAULT) == e.faults && (rc == X86_OK) == !e.faults, "VA 0x%x access %x", va, access);
    if (rc == X86_OK) {
        REQUIRE(w.pa.v == e.pa && w.leaf_bytes == e.leaf_bytes, "VA 0x%x: PA 0x%llx", va, (unsigned long long)w.pa.v);
        REQUIRE(w.is_user == e.is_user && w.is_writable == e.is_writable && w.is_global == e.is_global);
        REQUIRE(w.is_executable == e.is_executable && w.is_dirty == e.is_dirty);
    } else {
        REQUIRE(cpu->fault.vector == EXC_PF && cpu->fault.has_error && cpu->fault.cr2 == va);
        REQUIRE(cpu->fault.error == e.error, "error 0x%x, should be 0x%x", cpu->fault.error, e.error);
    }
    require_bits(&e, access);
}

/* A byte through the shadow tables. */
static void access_byte(struct input *in)
{
    uint32_t va = any_va(in);
    uint8_t how = take8(in), value = 0;
    bool is_write = how & 1, is_user = how & 2;
    unsigned access = (is_write ? ACC_WRITE : ACC_READ) | (is_user ? ACC_USER : 0);
    struct expected e = expect(va, access);
    hva_t hva;

    enum x86_rc rc = mmu_probe(cpu, gva(va), 1, access, &hva);
    if (rc == X86_OK && !hva.p) /* a device, ROM, a traced page */
        rc = is_write ? mmu_write(cpu, gva(va), &value, 1, access & ACC_USER)
                      : mmu_read(cpu, gva(va), &value, 1, access & ACC_USER);
    if (rc == X86_OK && hva.p) {
        uint64_t pa = (uint64_t)(hva.p - ram);
        REQUIRE(pa < RAM_BYTES && !is_device(pa), "VA 0x%x leads out of RAM", va);
        REQUIRE((!e.faults && e.pa == pa) || may_be_stale(va, access, pa), "VA 0x%x leads to PA 0x%llx, access %x",
                va, (unsigned long long)pa, access);
        REQUIRE(!is_write || (!mmu_is_traced(cpu->mmu, gpa(pa)) && (pa & ~0xfffull) != ROM_PA),
                "a store to PA 0x%llx without a report", (unsigned long long)pa);
    }
    if (rc == X86_FAULT) {
        REQUIRE(e.faults && cpu->fault.cr2 == va && cpu->fault.error == e.error, "VA 0x%x faults, error 0x%x", va,
                cpu->fault.error);
        forget_page(va);
    } else if (!e.faults) {
        remember(va, access, &e);
    }
}

/* Two pages at once: a fault on the second leaves memory alone. */
static void access_span(struct input *in)
{
    uint32_t va = (any_va(in) | 0xfffu) - take8(in) % 8;
    uint8_t how = take8(in), before[16], bytes[16];
    unsigned size = 2 + how % 15;
    bool is_user = how & 0x80;
    struct expected e[2];

    e[0] = expect(va, ACC_WRITE | (is_user ? ACC_USER : 0));
    e[1] = expect((va | 0xfff) + 1, ACC_WRITE | (is_user ? ACC_USER : 0));
    bool first_is_ram = !e[0].faults && !is_device(e[0].pa);
    if (first_is_ram)
        memcpy(before, ram + e[0].pa, min_u32(size, 0x1000 - (e[0].pa & 0xfff)));
    memset(bytes, how, sizeof bytes);
    enum x86_rc rc = mmu_write(cpu, gva(va), bytes, size, is_user ? ACC_USER : 0);
    bool spans = (va & 0xfff) + size > 0x1000;
    if (rc == X86_FAULT) {
        REQUIRE(e[0].faults || (spans && e[1].faults), "VA 0x%x, %u bytes: error 0x%x", va, size, cpu->fault.error);
        /* setting A and D for the first page may have been the change, were it a table of itself */
        bool is_table = first_is_ram && e[0].pa < ROOT + TABLES * 0x1000;
        REQUIRE(!first_is_ram || is_table || !memcmp(before, ram + e[0].pa, min_u32(size, 0x1000 - (e[0].pa & 0xfff))),
                "a write that faults has written");
        REQUIRE(cpu->fault.cr2 == va || (spans && cpu->fault.cr2 == (va | 0xfff) + 1));
        forget_page(cpu->fault.cr2);
    }
    if (!e[0].faults)
        remember(va, ACC_WRITE | (is_user ? ACC_USER : 0), &e[0]);
    if (spans && !e[1].faults)
        remember((va | 0xfff) + 1, ACC_WRITE | (is_user ? ACC_USER : 0), &e[1]);
}

static void fetch(struct input *in)
{
    uint32_t va = any_va(in);
    bool is_global;
    gpa_t pa;

    cpu->cpl = take8(in) & 1 ? 3 : 0;
    unsigned access = ACC_EXEC | (cpu->cpl == 3 ? ACC_USER : 0);
    struct expected e = expect(va, access);
    enum x86_rc rc = mmu_fetch(cpu, gva(va), &pa, &is_global);
    if (rc == X86_OK) {
        REQUIRE((!e.faults && e.pa == pa.v) || may_be_stale(va, access, pa.v), "fetch VA 0x%x: PA 0x%llx", va,
                (unsigned long long)pa.v);
        if (!e.faults)
            remember(va, access, &e);
    } else {
        REQUIRE(e.faults && cpu->fault.error == e.error && cpu->fault.cr2 == va);
    }
}

static void invalidate(struct input *in)
{
    uint8_t how = take8(in);

    switch (how & 7) {
    case 0:
    case 1:
    case 2: {
        uint32_t va = any_va(in);
        mmu_invlpg(cpu, gva(va));
        forget_page(va);
        return;
    }
    case 3:
        cpu->cr3 = how & 8 ? ROOT : (uint32_t)any_page(in) | (how & 0x10 ? 0xfe0u : 0);
        if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && mmu_load_pdptes(cpu, cpu->cr3) != X86_OK)
            cpu->cr3 = ROOT;
        mmu_cr3_loaded(cpu);
        forget(cpu->cr4 & CR4_PGE);
        return;
    case 4:
        cpu->cr0 ^= CR0_WP;
        break;
    case 5:
        cpu->cr4 ^= how & 8 ? CR4_PGE : CR4_PSE;
        break;
    case 6:
        if (how & 8)
            cpu->efer ^= EFER_NXE;
        else
            cpu->cr0 ^= how & 16 ? CR0_PG : 0;
        break;
    default:
        cpu->a20_off = how & 8;
        break;
    }
    mmu_flush_all(cpu);
    forget(false);
}

static void trace(struct input *in)
{
    uint64_t pa = any_page(in);

    if (pa >= RAM_BYTES || is_device(pa) || pa == ROM_PA)
        return;
    if (take8(in) & 1)
        mmu_trace_add(cpu->mmu, gpa(pa));
    else
        mmu_trace_remove(cpu->mmu, gpa(pa));
}

static void step(struct input *in)
{
    switch (take8(in) & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        edit_entry(in);
        break;
    case 5:
    case 6:
        walk(in);
        break;
    case 7:
    case 8:
    case 9:
    case 10:
        access_byte(in);
        break;
    case 11:
        access_span(in);
        break;
    case 12:
        fetch(in);
        break;
    case 13:
        invalidate(in);
        break;
    case 14:
        trace(in);
        break;
    default:
        REQUIRE(mmu_audit(cpu->mmu) == 0);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, data + size };

    begin(&in);
    for (unsigned i = 0; i < STEPS_MAX && input_left(&in); i++)
        step(&in);
    if (size % 8 == 0) /* it costs more than the rest */
        REQUIRE(mmu_audit(cpu->mmu) == 0);
    return 0;
}
