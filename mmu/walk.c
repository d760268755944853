/*
 * The guest's page tables as the hardware walks them: no paging, two levels with and
 * without 4 MiB pages, and PAE with NX.
 *
 *   two levels   31      22 21      12 11    0      PAE  31 30 29   21 20   12 11    0
 *               +----------+----------+--------+        +-----+-------+-------+--------+
 *               | directory|  table   | offset |        | ptr | dir   | table | offset |
 *               +----------+----------+--------+        +-----+-------+-------+--------+
 *
 * A walk reads every entry first, then judges the rights, then commits: Accessed in every
 * entry used, from the top down, and Dirty in the leaf for a write. So a fault leaves memory
 * as it was. Entries outside RAM are read from the bus and never written back.
 *
 * Ref: Intel SDM vol. 3A, ch. "Paging": 32-bit paging, PAE paging, access rights, page-fault
 * exceptions, accessed and dirty flags. MAXPHYADDR is 36 with PAE or PSE-36.
 */
#include "mmu/mmu_internal.h"

/* 4 MiB leaf: with PSE-36 bits 16:13 are PA bits 35:32. Reserved bits, with it and without. */
#define PDE4M_RSVD_36 0x003e0000u
#define PDE4M_RSVD_32 0x003fe000u
/* Without PAT, its bit is reserved. */
#define PTE_PAT       0x80u
#define PDE_LARGE_PAT 0x1000u
/* PAE: everything from MAXPHYADDR up to bit 62; a 2 MiB leaf also has 20:13. */
#define PAE_RSVD    0x7ffffff000000000ull
#define PDE2M_RSVD  0x00000000001fe000ull
#define PDPTE_RSVD  0xfffffff0000001e6ull
#define PAE_ADDRESS 0x0000000ffffff000ull

void walk_set_reserved(struct mmu *m, bool has_pse36, bool has_pat)
{
    m->rsvd_pte = has_pat ? 0 : PTE_PAT;
    m->rsvd_pde4m = (has_pse36 ? PDE4M_RSVD_36 : PDE4M_RSVD_32) | (has_pat ? 0 : PDE_LARGE_PAT);
    m->rsvd_pte_pae = has_pat ? 0 : PTE_PAT;
    m->rsvd_pde2m = PDE2M_RSVD | (has_pat ? 0 : PDE_LARGE_PAT);
}

/* Walks are most of what a miss costs: keep what seldom happens out of their frames. */
#define COLD __attribute__((noinline, cold))

static COLD uint32_t entry_read_elsewhere(struct mmu *m, uint64_t pa)
{
    uint32_t entry;

    mmu_phys_read(m, gpa(pa), &entry, sizeof entry);
    return entry;
}

static inline uint32_t entry_read(struct mmu *m, uint64_t pa)
{
    unsigned flags = page_flags(m, pa >> GUEST_PAGE_SHIFT);
    uint32_t entry;

    if (__builtin_expect((flags & PAGE_KIND) >= REGION_MMIO, 0))
        return entry_read_elsewhere(m, pa);
    __builtin_memcpy(&entry, m->ram + pa, sizeof entry);
    return entry;
}

static inline uint64_t entry_read_pae(struct mmu *m, uint64_t pa)
{
    return entry_read(m, pa) | (uint64_t)entry_read(m, pa + 4) << 32;
}

static COLD void entry_set_now(struct mmu *m, uint64_t pa, uint32_t low)
{
    unsigned flags = page_flags(m, pa >> GUEST_PAGE_SHIFT);

    if ((flags & PAGE_KIND) != REGION_RAM && !(flags & PAGE_WRITES_RAM))
        return;
    __builtin_memcpy(m->ram + pa, &low, sizeof low);
    if ((flags & (PAGE_KIND | PAGE_TRACED)) == (REGION_RAM | PAGE_TRACED))
        trace_report(m, gpa(pa), sizeof low);
}

/* Set A or D. Both are in the low half of a PAE entry, so four bytes do for either form. */
static inline void entry_set(struct mmu *m, uint64_t pa, uint32_t low, uint32_t bits)
{
    if (__builtin_expect((low & bits) != bits, 0))
        entry_set_now(m, pa, low | bits);
}

static inline bool nx_enabled(const struct vcpu *cpu)
{
    return (cpu->cr4 & CR4_PAE) && (cpu->efer & EFER_NXE);
}

static COLD enum x86_rc page_fault(struct vcpu *cpu, gva_t va, unsigned access, unsigned error)
{
    if (access & ACC_WRITE)
        error |= PF_WR;
    if (access & ACC_USER)
        error |= PF_US;
    if ((access & ACC_EXEC) && nx_enabled(cpu))
        error |= PF_ID;
    LOG(cpu->log, fault, "page fault at VA 0x%08x, error 0x%02x, EIP 0x%08x\n", va.v, error, cpu->eip);
    return vcpu_raise_pf(cpu, va, error);
}

/* `rights` is the AND of all entries' W and US bits. */
static inline bool is_allowed(const struct vcpu *cpu, uint32_t rights, bool no_execute, unsigned access)
{
    if ((access & ACC_USER) && !(rights & PTE_US))
        return false;
    if ((access & ACC_WRITE) && !(rights & PTE_W) && ((access & ACC_USER) || (cpu->cr0 & CR0_WP)))
        return false;
    return !(no_execute && (access & ACC_EXEC));
}

/* What the leaf says; W and US come from all levels. */
static inline void walk_fill(const struct vcpu *cpu, struct walk *out, uint64_t pa, uint32_t leaf_bytes,
                             uint32_t rights, uint32_t leaf, bool no_execute, unsigned access)
{
    out->pa = gpa(a20_mask(cpu, pa));
    out->leaf_bytes = leaf_bytes;
    out->is_global = (leaf & PTE_G) && (cpu->cr4 & CR4_PGE);
    out->is_user = (rights & PTE_US) != 0;
    out->is_writable = (rights & PTE_W) != 0;
    out->is_dirty = (leaf & PTE_D) || (access & ACC_WRITE);
    out->is_executable = !no_execute;
}

static inline uint32_t leaf_bits(unsigned access)
{
    return (access & ACC_WRITE) ? PTE_A | PTE_D : PTE_A;
}

static __attribute__((noinline)) enum x86_rc walk_2level(struct vcpu *cpu, gva_t va, unsigned access,
                                                         struct walk *out)
{
    struct mmu *m = cpu->mmu;
    uint64_t pde_pa = a20_mask(cpu, (cpu->cr3 & ~GUEST_PAGE_MASK) + (va.v >> 22) * 4);
    uint32_t pde = entry_read(m, pde_pa);

    if (!(pde & PTE_P))
        return page_fault(cpu, va, access, 0);
    if ((pde & PTE_PS) && (cpu->cr4 & CR4_PSE)) {
        if (pde & m->rsvd_pde4m)
            return page_fault(cpu, va, access, PF_P | PF_RSVD);
        if (!is_allowed(cpu, pde, false, access))
            return page_fault(cpu, va, access, PF_P);
        entry_set(m, pde_pa, pde, leaf_bits(access));
        uint64_t base = (pde & 0xffc00000u) | (uint64_t)(pde >> 13 & 0xfu) << 32;
        walk_fill(cpu, out, base | (va.v & 0x3fffffu), 4u << 20, pde, pde, false, access);
        return X86_OK;
    }

    uint64_t pte_pa = a20_mask(cpu, (pde & ~GUEST_PAGE_MASK) + (va.v >> 12 & 0x3ffu) * 4);
    uint32_t pte = entry_read(m, pte_pa);
    if (!(pte & PTE_P))
        return page_fault(cpu, va, access, 0);
    if ((pte & m->rsvd_pte) && (cpu->cr4 & CR4_PSE))
        return page_fault(cpu, va, access, PF_P | PF_RSVD);
    if (!is_allowed(cpu, pde & pte, false, access))
        return page_fault(cpu, va, access, PF_P);
    entry_set(m, pde_pa, pde, PTE_A);
    entry_set(m, pte_pa, pte, leaf_bits(access));
    walk_fill(cpu, out, (pte & ~GUEST_PAGE_MASK) | (va.v & GUEST_PAGE_MASK), GUEST_PAGE_SIZE, pde & pte, pte,
              false, access);
    return X86_OK;
}

static __attribute__((noinline)) enum x86_rc walk_pae(struct vcpu *cpu, gva_t va, unsigned access,
                                                      struct walk *out)
{
    struct mmu *m = cpu->mmu;
    uint64_t rsvd = nx_enabled(cpu) ? PAE_RSVD : PAE_RSVD | PTE_NX;
    uint64_t pdpte = cpu->pdpte[va.v >> 30];

    if (!(pdpte & PTE_P))
        return page_fault(cpu, va, access, 0);

    uint64_t pde_pa = a20_mask(cpu, (pdpte & PAE_ADDRESS) + (va.v >> 21 & 0x1ffu) * 8);
    uint64_t pde = entry_read_pae(m, pde_pa);
    if (!(pde & PTE_P))
        return page_fault(cpu, va, access, 0);
    if (pde & (pde & PTE_PS ? rsvd | m->rsvd_pde2m : rsvd))
        return page_fault(cpu, va, access, PF_P | PF_RSVD);
    if (pde & PTE_PS) {
        bool no_execute = (pde & PTE_NX) != 0;
        if (!is_allowed(cpu, (uint32_t)pde, no_execute, access))
            return page_fault(cpu, va, access, PF_P);
        entry_set(m, pde_pa, (uint32_t)pde, leaf_bits(access));
        uint64_t base = pde & PAE_ADDRESS & ~0x1fffffull;
        walk_fill(cpu, out, base | (va.v & 0x1fffffu), 2u << 20, (uint32_t)pde, (uint32_t)pde, no_execute,
                  access);
        return X86_OK;
    }

    uint64_t pte_pa = a20_mask(cpu, (pde & PAE_ADDRESS) + (va.v >> 12 & 0x1ffu) * 8);
    uint64_t pte = entry_read_pae(m, pte_pa);
    if (!(pte & PTE_P))
        return page_fault(cpu, va, access, 0);
    if (pte & (rsvd | m->rsvd_pte_pae))
        return page_fault(cpu, va, access, PF_P | PF_RSVD);

    uint32_t rights = (uint32_t)(pde & pte);
    bool no_execute = ((pde | pte) & PTE_NX) != 0;
    if (!is_allowed(cpu, rights, no_execute, access))
        return page_fault(cpu, va, access, PF_P);
    entry_set(m, pde_pa, (uint32_t)pde, PTE_A);
    entry_set(m, pte_pa, (uint32_t)pte, leaf_bits(access));
    walk_fill(cpu, out, (pte & PAE_ADDRESS) | (va.v & GUEST_PAGE_MASK), GUEST_PAGE_SIZE, rights,
              (uint32_t)pte, no_execute, access);
    return X86_OK;
}

/* Without paging a linear address is a physical one. It counts as global: no CR3 load ends it. */
static enum x86_rc walk_identity(const struct vcpu *cpu, gva_t va, struct walk *out)
{
    *out = (struct walk){ .pa = gpa(a20_mask(cpu, va.v)),
                          .leaf_bytes = GUEST_PAGE_SIZE,
                          .is_global = true,
                          .is_user = true,
                          .is_writable = true,
                          .is_dirty = true,
                          .is_executable = true };
    return X86_OK;
}

enum x86_rc mmu_walk(struct vcpu *cpu, gva_t va, unsigned access, struct walk *out)
{
    if (!(cpu->cr0 & CR0_PG))
        return walk_identity(cpu, va, out);
    if (cpu->cr4 & CR4_PAE)
        return walk_pae(cpu, va, access, out);
    return walk_2level(cpu, va, access, out);
}

enum x86_rc mmu_load_pdptes(struct vcpu *cpu, uint32_t cr3)
{
    uint64_t pa = a20_mask(cpu, cr3 & ~0x1fu);
    uint64_t pdpte[4];

    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = entry_read_pae(cpu->mmu, pa + i * 8);
        if ((pdpte[i] & PTE_P) && (pdpte[i] & PDPTE_RSVD))
            return vcpu_raise_error(cpu, EXC_GP, 0);
    }
    for (unsigned i = 0; i < 4; i++)
        cpu->pdpte[i] = pdpte[i];
    return X86_OK;
}
