/*
 * Looking without touching: where the guest's page tables lead, for a debugger or a monitor.
 *
 * Rights and reserved bits are left aside, no A or D bit is set, no fault is recorded, and tables
 * outside of memory end the search, since reading a device may change it.
 *
 * Ref: Intel SDM vol. 3A, ch. "Paging".
 */
#include "mmu/mmu_internal.h"

#define PAE_ADDRESS 0x000ffffffffff000ull

static uint64_t peek_entry(const struct vcpu *cpu, uint64_t table, uint32_t index, unsigned size)
{
    uint64_t entry = 0;
    gpa_t pa = gpa(a20_mask(cpu, table + (uint64_t)index * size));
    hva_t at = mmu_ram_ptr(cpu->mmu, pa);

    if (at.p)
        __builtin_memcpy(&entry, at.p, size);
    return entry;
}

static bool peek_pae(const struct vcpu *cpu, uint32_t va, uint64_t *pa)
{
    uint64_t pdpte = cpu->pdpte[va >> 30];
    uint64_t pde = pdpte & PTE_P ? peek_entry(cpu, pdpte & PAE_ADDRESS, va >> 21 & 0x1ff, 8) : 0;

    if (pde & PTE_P && pde & PTE_PS) {
        *pa = (pde & PAE_ADDRESS & ~0x1fffffull) | (va & 0x1fffff);
        return true;
    }
    uint64_t pte = pde & PTE_P ? peek_entry(cpu, pde & PAE_ADDRESS, va >> 12 & 0x1ff, 8) : 0;
    *pa = (pte & PAE_ADDRESS) | (va & GUEST_PAGE_MASK);
    return pte & PTE_P;
}

static bool peek_2level(const struct vcpu *cpu, uint32_t va, uint64_t *pa)
{
    uint64_t pde = peek_entry(cpu, cpu->cr3 & ~GUEST_PAGE_MASK, va >> 22, 4);

    if (pde & PTE_P && pde & PTE_PS && cpu->cr4 & CR4_PSE) {
        *pa = (pde & 0xffc00000u) | (pde >> 13 & 0xff) << 32 | (va & 0x3fffff);
        return true;
    }
    uint64_t pte = pde & PTE_P ? peek_entry(cpu, pde & ~(uint64_t)GUEST_PAGE_MASK, va >> 12 & 0x3ff, 4) : 0;
    *pa = (pte & ~(uint64_t)GUEST_PAGE_MASK) | (va & GUEST_PAGE_MASK);
    return pte & PTE_P;
}

bool mmu_peek(const struct vcpu *cpu, gva_t va, gpa_t *pa)
{
    uint64_t at = va.v;
    bool found = true;

    if (cpu->cr0 & CR0_PG)
        found = cpu->cr4 & CR4_PAE ? peek_pae(cpu, va.v, &at) : peek_2level(cpu, va.v, &at);
    *pa = gpa(a20_mask(cpu, at));
    return found;
}
