/*
 * PAE paging: three levels, 2 MiB pages, page-directory-pointer entries that are read
 * only when CR3 is loaded, reserved bits, and no-execute.
 *
 * Ref: Intel SDM vol. 3A, ch. 4 "PAE Paging".
 */
#include "../lib/guest.h"

#define RWU     (PTE_P | PTE_W | PTE_U)
#define NX      0x8000000000000000ull
#define PAGE_A  SCRATCH
#define PAGE_B  (SCRATCH + 0x1000)
#define HIGH_VA 0xc0000000u

static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pd[4][512] __attribute__((aligned(4096)));
static uint64_t pt[8][512] __attribute__((aligned(4096)));

SNIPPET(g_read, "mov (%eax), %ecx");
SNIPPET(g_write, "mov %ecx, (%eax)");
SNIPPET(g_exec, "call *%eax");
SNIPPET(g_load_cr3, "mov %eax, %cr3");

static uint64_t *pte64(uint32_t va)
{
    return &pt[(va >> 21) & 7][(va >> 12) & 511];
}

static void pte64_set(uint32_t va, uint64_t value)
{
    volatile uint32_t *p = (volatile uint32_t *)pte64(va);

    p[0] = 0;
    p[1] = (uint32_t)(value >> 32);
    p[0] = (uint32_t)value;
    invlpg(va);
}

static void enable(void)
{
    for (uint32_t i = 0; i < 8 * 512; i++)
        pt[i >> 9][i & 511] = (uint64_t)i << 12 | RWU;
    for (uint32_t i = 0; i < 8; i++)
        pd[0][i] = address_of(pt[i]) | RWU;
    for (uint32_t i = 0; i < 4; i++)
        pdpt[i] = address_of(pd[i]) | PTE_P;
    set_cr4(get_cr4() | 0x20);
    set_cr3(address_of(pdpt));
    set_cr0(get_cr0() | 0x80000000u);
}

static void walks(void)
{
    struct context c;

    check("pae_is_on", peek(address_of(pdpt)) == (uint32_t)pdpt[0]);
    pte64_set(PAGE_A, 0);
    check_page_fault("pae_ring0_read_not_present", access_at(0, g_read, PAGE_A + 4, 0), 0, PAGE_A + 4);
    check_page_fault("pae_ring3_write_not_present", access_at(3, g_write, PAGE_A + 4, 0), 6, PAGE_A + 4);
    pte64_set(PAGE_A, PAGE_A | PTE_P | PTE_U);
    check_page_fault("pae_ring3_write_read_only", access_at(3, g_write, PAGE_A + 8, 0), 7, PAGE_A + 8);
    pte64_set(PAGE_A, PAGE_A | RWU);
    c = access_at(3, g_write, PAGE_A, 0x77);
    check_done("pae_write", &c);
    check_eq("pae_write_sets_A_D", (uint32_t)*pte64(PAGE_A) & (PTE_A | PTE_D), PTE_A | PTE_D);
    pte64_set(PAGE_B, PAGE_A | RWU);
    check_eq("pae_alias", peek(PAGE_B), 0x77);
    pte64_set(PAGE_B, PAGE_B | RWU);
}

static void reserved_bits(void)
{
    pte64_set(PAGE_A, PAGE_A | RWU | 1ull << 60);
    check_page_fault("pae_reserved_bit_60", access_at(0, g_read, PAGE_A, 0), 9, PAGE_A);
    check_page_fault("pae_reserved_bit_60_ring3_write", access_at(3, g_write, PAGE_A, 0), 15, PAGE_A);
    pte64_set(PAGE_A, PAGE_A | RWU);
}

static void large_pages(void)
{
    uint64_t *pde = &pd[3][0];
    struct context c;

    poke(PAGE_A + 0x12344, 0x4321);
    *pde = (PAGE_A & 0xffe00000u) | RWU | PTE_PS;
    invlpg(HIGH_VA);
    c = access_at(3, g_read, HIGH_VA + 0x12344, 0);
    check_eq("pae_2m_read", c.ecx, 0x4321);
    c = access_at(3, g_write, HIGH_VA + 0x1ffffc, 0x99);
    check_eq("pae_2m_write", peek((PAGE_A & 0xffe00000u) + 0x1ffffc), 0x99);
    check_eq("pae_2m_A_D", (uint32_t)*pde & (PTE_A | PTE_D), PTE_A | PTE_D);
    *pde = (PAGE_A & 0xffe00000u) | RWU | PTE_PS | 1u << 20;
    invlpg(HIGH_VA + 0x100000);
    check_page_fault("pae_2m_reserved_bit", access_at(0, g_read, HIGH_VA, 0), 9, HIGH_VA);
    *pde = 0;
    invlpg(HIGH_VA + 0x1ff000);
    check_page_fault("pae_2m_gone", access_at(0, g_read, HIGH_VA + 0x12344, 0), 0, HIGH_VA + 0x12344);
}

/* The four PDPTEs are registers: a store to their memory waits for the next CR3 load. */
static void pointer_entries(void)
{
    struct context c;
    uint64_t keep = pdpt[3];

    pd[3][0] = (PAGE_A & 0xffe00000u) | RWU | PTE_PS;
    set_cr3(address_of(pdpt));
    poke(PAGE_A, 0x1357);
    *(volatile uint32_t *)&pdpt[3] = 0;
    invlpg(HIGH_VA);
    c = access_at(0, g_read, HIGH_VA, 0);
    check_eq("pdpte_store_waits_for_cr3", c.vector == VEC_DONE ? c.ecx : 0xbad, 0x1357);
    set_cr3(address_of(pdpt));
    check_page_fault("pdpte_reloaded_by_cr3", access_at(0, g_read, HIGH_VA, 0), 0, HIGH_VA);
    *(volatile uint32_t *)&pdpt[3] = (uint32_t)keep | PTE_W; /* bit 1 is reserved here */
    if (!option_given("qemu")) {
        c = access_at(0, g_load_cr3, address_of(pdpt), 0);
        check_fault("pdpte_reserved_bit_is_gp", &c, V_GP, 0);
    }
    pdpt[3] = keep;
    set_cr3(address_of(pdpt));
    pd[3][0] = 0;
    invlpg(HIGH_VA);
}

static bool has_nx(void)
{
    uint32_t a = 0x80000000u, b, c, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    if (a < 0x80000001u)
        return false;
    a = 0x80000001u;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    return d & (1u << 20);
}

static void no_execute(void)
{
    struct context c;
    uint32_t lo, hi;

    if (!has_nx()) {
        check("nx_absent", true);
        return;
    }
    poke8(PAGE_A, 0xc3);
    pte64_set(PAGE_A, PAGE_A | RWU | NX);
    check_page_fault("nx_bit_reserved_without_NXE", access_at(0, g_read, PAGE_A, 0), 9, PAGE_A);
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(0xc0000080));
    __asm__ volatile("wrmsr" : : "a"(lo | 0x800), "d"(hi), "c"(0xc0000080));
    c = access_at(3, g_read, PAGE_A, 0);
    check_done("nx_page_reads", &c);
    c = access_at(3, g_exec, PAGE_A, 0);
    check_fault("nx_page_fetch_ring3", &c, V_PF, 0x15);
    check_eq("nx_page_fetch_eip", c.eip, PAGE_A);
    c = access_at(0, g_exec, PAGE_A, 0);
    check_fault("nx_page_fetch_ring0", &c, V_PF, 0x11);
    pte64_set(PAGE_A, PAGE_A | RWU);
    c = access_at(3, g_exec, PAGE_A, 0);
    check_done("nx_cleared", &c);
    pte64_set(PAGE_A, PAGE_A | RWU | NX);
    c = access_at(3, g_exec, PAGE_A, 0);
    check_fault("nx_set_again_after_running", &c, V_PF, 0x15);
    pte64_set(PAGE_A, 0);
    c = access_at(3, g_exec, PAGE_A, 0);
    check_fault("fetch_not_present_has_I", &c, V_PF, 0x14);
    pd[0][PAGE_A >> 21] |= NX;
    pte64_set(PAGE_A, PAGE_A | RWU);
    set_cr3(get_cr3());
    c = access_at(3, g_exec, PAGE_A, 0);
    check_fault("nx_of_directory", &c, V_PF, 0x15);
    pd[0][PAGE_A >> 21] &= ~NX;
    set_cr3(get_cr3());
    __asm__ volatile("wrmsr" : : "a"(lo), "d"(hi), "c"(0xc0000080));
}

void guest_main(void)
{
    enable();
    walks();
    reserved_bits();
    large_pages();
    pointer_entries();
    no_execute();
    set_cr0(get_cr0() & ~0x80000000u);
    set_cr4(get_cr4() & ~0x20u);
    paging_on();
    check("back_to_two_levels", peek(PAGE_A + 4) == peek(PAGE_A + 4));
    paging_off();
}
