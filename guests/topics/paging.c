/*
 * Two-level paging: error codes, CR2, A and D bits, CR0.WP, what INVLPG and CR3 loads
 * must drop, global and 4 MiB pages, accesses that cross pages.
 *
 * Only what the architecture demands is checked: a stale TLB entry may live or not until
 * it is flushed, and then it must be gone.
 *
 * Ref: Intel SDM vol. 3A, ch. 4 "Paging".
 */
#include "../lib/guest.h"

#define PAGE_A (SCRATCH)
#define PAGE_B (SCRATCH + 0x1000)
#define PAGE_C (SCRATCH + 0x2000)
#define RWU    (PTE_P | PTE_W | PTE_U)

SNIPPET(g_read, "mov (%eax), %ecx");
SNIPPET(g_write, "mov %ecx, (%eax)");
SNIPPET(g_rmw, "addl $1, (%eax)");
SNIPPET(g_cmpxchg, "mov %eax, %ebx; xor %eax, %eax; lock cmpxchg %ecx, (%ebx)");
SNIPPET(g_exec, "call *%eax");
SNIPPET(g_push, "mov %eax, %esp; push %ecx");
SNIPPET(g_movs, "mov %eax, %edi; mov %ecx, %esi; movsl");
SNIPPET(g_fpu_store, "fldz; fstpl (%eax)");

static void error_codes(void)
{
    pte_set(PAGE_A, 0);
    check_page_fault("ring0_read_not_present", access_at(0, g_read, PAGE_A + 0x123, 0), 0, PAGE_A + 0x123);
    check_page_fault("ring0_write_not_present", access_at(0, g_write, PAGE_A + 0x124, 0), 2, PAGE_A + 0x124);
    check_page_fault("ring3_read_not_present", access_at(3, g_read, PAGE_A + 0x125, 0), 4, PAGE_A + 0x125);
    check_page_fault("ring3_write_not_present", access_at(3, g_write, PAGE_A + 0x126, 0), 6, PAGE_A + 0x126);
    check_page_fault("rmw_is_a_write", access_at(3, g_rmw, PAGE_A + 0x128, 0), 6, PAGE_A + 0x128);
    check_page_fault("cmpxchg_is_a_write", access_at(3, g_cmpxchg, PAGE_A + 0x130, 0), 6, PAGE_A + 0x130);
    check_page_fault("fpu_store_not_present", access_at(3, g_fpu_store, PAGE_A + 0x140, 0), 6, PAGE_A + 0x140);
    pte_set(PAGE_A, PAGE_A | PTE_P | PTE_W);
    check_page_fault("ring3_read_supervisor", access_at(3, g_read, PAGE_A, 0), 5, PAGE_A);
    check_page_fault("ring3_write_supervisor", access_at(3, g_write, PAGE_A + 4, 0), 7, PAGE_A + 4);
    pte_set(PAGE_A, PAGE_A | PTE_P | PTE_U);
    check_page_fault("ring3_write_read_only", access_at(3, g_write, PAGE_A + 8, 0), 7, PAGE_A + 8);
    check_page_fault("ring3_rmw_read_only", access_at(3, g_rmw, PAGE_A + 12, 0), 7, PAGE_A + 12);
    {
        struct context c = access_at(3, g_read, PAGE_A, 0);

        check_done("ring3_read_read_only", &c);
    }
    pte_set(PAGE_A, 0);
    {
        struct context c = access_at(3, g_exec, PAGE_A + 0x10, 0);

        check_fault("ring3_fetch_not_present", &c, V_PF, 4);
        check_eq("ring3_fetch_eip", c.eip, PAGE_A + 0x10);
        check_eq("ring3_fetch_cr2", c.cr2, PAGE_A + 0x10);
        pte_set(PAGE_A, PAGE_A | PTE_P | PTE_W);
        c = access_at(3, g_exec, PAGE_A + 0x20, 0);
        check_fault("ring3_fetch_supervisor", &c, V_PF, 5);
    }
    pte_set(PAGE_A, PAGE_A | RWU);
}

static void directory_rights(void)
{
    uint32_t *pde = &page_directory[PAGE_A >> 22], keep = *pde;

    *pde = keep & ~PTE_U;
    set_cr3(get_cr3());
    check_page_fault("directory_supervisor", access_at(3, g_read, PAGE_A, 0), 5, PAGE_A);
    *pde = keep & ~PTE_W;
    set_cr3(get_cr3());
    check_page_fault("directory_read_only", access_at(3, g_write, PAGE_A, 0), 7, PAGE_A);
    *pde = 0;
    set_cr3(get_cr3());
    check_page_fault("directory_not_present", access_at(0, g_read, PAGE_A, 0), 0, PAGE_A);
    *pde = keep;
    set_cr3(get_cr3());
}

static void write_protect(void)
{
    struct context c;

    pte_set(PAGE_A, PAGE_A | PTE_P | PTE_U);
    set_cr0(get_cr0() & ~0x10000u);
    c = access_at(0, g_write, PAGE_A, 0x77);
    check_done("ring0_write_read_only_without_WP", &c);
    check_eq("ring0_write_read_only_sets_D", *pte_of(PAGE_A) & PTE_D, PTE_D);
    set_cr0(get_cr0() | 0x10000);
    check_page_fault("ring0_write_read_only_with_WP", access_at(0, g_write, PAGE_A, 0x88), 3, PAGE_A);
    check_eq("page_keeps_its_value", peek(PAGE_A), 0x77);
    set_cr0(get_cr0() & ~0x10000u);
    c = access_at(0, g_write, PAGE_A, 0x99);
    check_done("WP_off_again", &c);
    pte_set(PAGE_A, PAGE_A | RWU);
}

static void accessed_dirty(void)
{
    uint32_t *pde = &page_directory[PAGE_A >> 22];

    pte_set(PAGE_A, PAGE_A | RWU);
    *pde &= ~PTE_A;
    set_cr3(get_cr3());
    check_eq("A_clear_at_first", *pte_of(PAGE_A) & (PTE_A | PTE_D), 0);
    access_at(3, g_read, PAGE_A, 0);
    check_eq("read_sets_A", *pte_of(PAGE_A) & (PTE_A | PTE_D), PTE_A);
    check_eq("read_sets_A_of_directory", *pde & PTE_A, PTE_A);
    access_at(3, g_write, PAGE_A, 0);
    check_eq("write_sets_D", *pte_of(PAGE_A) & (PTE_A | PTE_D), PTE_A | PTE_D);
    check_eq("directory_has_no_D", *pde & PTE_D, 0);
    pte_set(PAGE_A, PAGE_A | RWU);
    access_at(3, g_write, PAGE_A, 0);
    check_eq("first_write_sets_both", *pte_of(PAGE_A) & (PTE_A | PTE_D), PTE_A | PTE_D);
    pte_set(PAGE_A, PAGE_A | PTE_P | PTE_U);
    access_at(3, g_write, PAGE_A, 0);
    check_eq("faulting_write_sets_no_D", *pte_of(PAGE_A) & PTE_D, 0);
    for (int i = 0; i < 3; i++) {
        pte_set(PAGE_A, PAGE_A | RWU | PTE_A);
        access_at(0, g_write, PAGE_A, 0);
        check_eq("D_again_after_clearing", *pte_of(PAGE_A) & PTE_D, PTE_D);
        pte_set(PAGE_A, PAGE_A | RWU);
        access_at(0, g_read, PAGE_A, 0);
        check_eq("A_again_after_clearing", *pte_of(PAGE_A) & (PTE_A | PTE_D), PTE_A);
    }
    /* code pages too */
    poke8(PAGE_A, 0xc3);
    pte_set(PAGE_A, PAGE_A | RWU);
    access_at(3, g_exec, PAGE_A, 0);
    check_eq("fetch_sets_A", *pte_of(PAGE_A) & (PTE_A | PTE_D), PTE_A);
    pte_set(PAGE_A, PAGE_A | RWU);
    access_at(3, g_exec, PAGE_A, 0);
    check_eq("fetch_sets_A_again", *pte_of(PAGE_A) & PTE_A, PTE_A);
}

static void flushing(void)
{
    struct context c;

    poke(PAGE_A, 0xaaaa);
    poke(PAGE_B, 0xbbbb);
    pte_set(PAGE_C, 0);
    c = access_at(3, g_read, PAGE_C, 0);
    check_eq("absent_page_faults", c.vector, V_PF);
    *pte_of(PAGE_C) = PAGE_A | RWU; /* no INVLPG: absent entries are not cached */
    c = access_at(3, g_read, PAGE_C, 0);
    check_eq("newly_present_page_needs_no_flush", c.ecx, 0xaaaa);
    for (int i = 0; i < 4; i++) {
        uint32_t page = i & 1 ? PAGE_A : PAGE_B, want = i & 1 ? 0xaaaa : 0xbbbb;

        *(volatile uint32_t *)pte_of(PAGE_C) = page | RWU;
        invlpg(PAGE_C + 0x800);
        c = access_at(3, g_read, PAGE_C, 0);
        check_eq("invlpg_drops_the_old_page", c.ecx, want);
        c = access_at(0, g_read, PAGE_C, 0);
        check_eq("invlpg_drops_it_for_ring0", c.ecx, want);
    }
    for (int i = 0; i < 4; i++) {
        uint32_t page = i & 1 ? PAGE_A : PAGE_B, want = i & 1 ? 0xaaaa : 0xbbbb;

        *(volatile uint32_t *)pte_of(PAGE_C) = page | RWU;
        set_cr3(get_cr3());
        c = access_at(0, g_read, PAGE_C, 0);
        check_eq("cr3_load_drops_the_old_page", c.ecx, want);
    }
    *(volatile uint32_t *)pte_of(PAGE_C) = PAGE_A | PTE_P | PTE_U;
    invlpg(PAGE_C);
    check_page_fault("right_taken_away_and_flushed", access_at(3, g_write, PAGE_C, 1), 7, PAGE_C);
    *(volatile uint32_t *)pte_of(PAGE_C) = 0;
    invlpg(PAGE_C);
    check_page_fault("page_taken_away_and_flushed", access_at(3, g_read, PAGE_C, 1), 4, PAGE_C);
    pte_set(PAGE_C, PAGE_C | RWU);
}

/* A second address space with another page at the same address, and back. */
static uint32_t directory2[1024] __attribute__((aligned(4096)));
static uint32_t table2[1024] __attribute__((aligned(4096)));

static void two_address_spaces(void)
{
    uint32_t first = get_cr3();
    bool good = true;

    memcpy(directory2, page_directory, sizeof directory2);
    for (unsigned i = 0; i < 1024; i++)
        table2[i] = ((PAGE_A & 0xffc00000u) + (i << 12)) | RWU;
    table2[(PAGE_A >> 12) & 1023] = PAGE_B | RWU;
    directory2[PAGE_A >> 22] = address_of(table2) | RWU;
    poke(PAGE_A, 0x1111);
    poke(PAGE_B, 0x2222);
    for (unsigned i = 0; i < 50; i++) {
        set_cr3(address_of(directory2));
        good &= peek(PAGE_A) == 0x2222 + i;
        poke(PAGE_A, 0x2222 + i + 1);
        set_cr3(first);
        good &= peek(PAGE_A) == 0x1111 + i;
        poke(PAGE_A, 0x1111 + i + 1);
    }
    check("two_address_spaces", good);
    check_eq("two_address_spaces_memory", peek(PAGE_B), 0x2222 + 50);
}

static void global_pages(void)
{
    struct context c;

    set_cr4(get_cr4() | 0x80);
    poke(PAGE_A, 0xaaaa);
    poke(PAGE_B, 0xbbbb);
    pte_set(PAGE_C, PAGE_A | RWU | PTE_G);
    access_at(0, g_read, PAGE_C, 0);
    set_cr3(get_cr3());
    c = access_at(0, g_read, PAGE_C, 0);
    check_eq("global_page_survives_cr3", c.ecx, 0xaaaa);
    *(volatile uint32_t *)pte_of(PAGE_C) = PAGE_B | RWU | PTE_G;
    invlpg(PAGE_C);
    c = access_at(0, g_read, PAGE_C, 0);
    check_eq("invlpg_drops_global", c.ecx, 0xbbbb);
    *(volatile uint32_t *)pte_of(PAGE_C) = PAGE_A | RWU | PTE_G;
    set_cr4(get_cr4() & ~0x80u);
    c = access_at(0, g_read, PAGE_C, 0);
    check_eq("clearing_PGE_drops_global", c.ecx, 0xaaaa);
    pte_set(PAGE_C, PAGE_C | RWU);
}

static void large_pages(void)
{
    uint32_t va = 0x40000000, *pde = &page_directory[va >> 22];
    struct context c;

    set_cr4(get_cr4() | 0x10);
    poke(PAGE_A + 0x345678 % 0x400000, 0x5a5a);
    *pde = (PAGE_A & 0xffc00000u) | RWU | PTE_PS;
    c = access_at(3, g_read, va + 0x345678, 0);
    check_eq("large_page_read", c.ecx, 0x5a5a);
    check_eq("large_page_A", *pde & (PTE_A | PTE_D), PTE_A);
    c = access_at(3, g_write, va + 0x3ffffc, 0x6b6b);
    check_eq("large_page_write", peek((PAGE_A & 0xffc00000u) + 0x3ffffc), 0x6b6b);
    check_eq("large_page_D", *pde & PTE_D, PTE_D);
    *pde = (PAGE_A & 0xffc00000u) | PTE_P | PTE_U | PTE_PS;
    invlpg(va + 0x1000); /* any address of it drops the whole page */
    check_page_fault("large_page_read_only", access_at(3, g_write, va + 0x200000, 0), 7, va + 0x200000);
    *pde = (PAGE_A & 0xffc00000u) | RWU | PTE_PS | 1u << 21;
    invlpg(va);
    check_page_fault("large_page_reserved_bit", access_at(0, g_read, va + 4, 0), 9, va + 4);
    check_page_fault("large_page_reserved_bit_ring3_write", access_at(3, g_write, va + 4, 0), 15, va + 4);
    *pde = 0;
    invlpg(va);
    check_page_fault("large_page_gone", access_at(0, g_read, va + 0x345678, 0), 0, va + 0x345678);
    set_cr4(get_cr4() & ~0x10u);
}

static void crossing_pages(void)
{
    struct context c;

    /* neighbours that are not neighbours in memory */
    pte_set(PAGE_A, PAGE_C | RWU);
    pte_set(PAGE_B, PAGE_A | RWU);
    c = access_at(3, g_write, PAGE_A + 0xffd, 0x11223344);
    check_done("crossing_write", &c);
    c = access_at(3, g_read, PAGE_A + 0xffd, 0);
    check_eq("crossing_read", c.ecx, 0x11223344);
    pte_set(PAGE_B, PAGE_B | RWU);
    pte_set(PAGE_A, PAGE_A | RWU);
    check_eq("crossing_write_low_part", peek(PAGE_C + 0xffc) >> 8, 0x223344);
    check_eq("crossing_write_high_part", peek(PAGE_A) & 0xff, 0x11);

    poke(PAGE_A + 0xffc, 0x12345678);
    pte_set(PAGE_B, 0);
    check_page_fault("crossing_write_second_absent", access_at(3, g_write, PAGE_A + 0xffe, 0x55555555), 6, PAGE_B);
    check_eq("crossing_write_left_first_page_alone", peek(PAGE_A + 0xffc), 0x12345678);
    check_page_fault("crossing_rmw_second_absent", access_at(3, g_rmw, PAGE_A + 0xffe, 0), 6, PAGE_B);
    check_eq("crossing_rmw_left_first_page_alone", peek(PAGE_A + 0xffc), 0x12345678);
    check_page_fault("crossing_read_second_absent", access_at(0, g_read, PAGE_A + 0xfff, 0), 0, PAGE_B);
    pte_set(PAGE_B, PAGE_B | PTE_P | PTE_U);
    check_page_fault("crossing_write_second_read_only", access_at(3, g_write, PAGE_A + 0xffe, 0x55555555), 7, PAGE_B);
    check_eq("crossing_write_left_first_page_alone_again", peek(PAGE_A + 0xffc), 0x12345678);
    pte_set(PAGE_B, PAGE_B | RWU);
}

/* A stack that grows into an absent page: the handler adds it and the PUSH runs again. */
static void demand_paging(void)
{
    struct context c;

    pte_set(PAGE_A, 0);
    c = access_at(3, g_push, PAGE_B, 0x4242);
    check_fault("push_into_absent_page", &c, V_PF, 6);
    check_eq("push_fault_leaves_esp", c.esp, PAGE_B);
    guest_hook = add_page;
    c = access_at(3, g_push, PAGE_B, 0x4242);
    guest_hook = NULL;
    check_done("push_restarts", &c);
    check_eq("push_restarted_once", pages_added, 1);
    check_eq("push_stored", peek(PAGE_B - 4), 0x4242);
    pte_set(PAGE_A, 0);
    pte_set(PAGE_C, 0);
    pages_added = 0;
    guest_hook = add_page;
    c = access_at(3, g_movs, PAGE_A + 0xffe, PAGE_C + 0x10);
    guest_hook = NULL;
    check_done("movs_restarts", &c);
    check("movs_faulted_for_both", pages_added == 2);
    pte_set(PAGE_A, PAGE_A | RWU);
    pte_set(PAGE_C, PAGE_C | RWU);
}

/* Page tables written through their own mapping, many times: each store must count. */
static void table_stores(void)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < 64; i++)
        poke(SCRATCH + 0x100000 + i * 0x1000, 1u << (i & 15));
    for (uint32_t round = 0; round < 20; round++)
        for (uint32_t i = 0; i < 64; i++) {
            pte_set(PAGE_C, (SCRATCH + 0x100000 + i * 0x1000) | RWU);
            sum += peek(PAGE_C);
        }
    check_eq("thousand_table_stores", sum, 20 * 4 * 0xffff);
    pte_set(PAGE_C, PAGE_C | RWU);
}

static void aliases(void)
{
    pte_set(PAGE_B, PAGE_A | RWU);
    poke(PAGE_A + 0x40, 1);
    check_eq("alias_sees_store", peek(PAGE_B + 0x40), 1);
    poke(PAGE_B + 0x40, 2);
    check_eq("alias_store_is_seen", peek(PAGE_A + 0x40), 2);
    pte_set(PAGE_B, PAGE_B | RWU);
}

static void paging_toggles(void)
{
    poke(PAGE_B, 0xb0b0);
    pte_set(PAGE_A, PAGE_B | RWU);
    poke(PAGE_A, 0x1234);
    paging_off();
    check_eq("paging_off_identity", peek(PAGE_B), 0x1234);
    poke(PAGE_A, 0x5678);
    set_cr0(get_cr0() | 0x80000000u);
    check_eq("paging_on_again", peek(PAGE_A), 0x1234);
    pte_set(PAGE_A, PAGE_A | RWU);
    check_eq("paging_back_to_identity", peek(PAGE_A), 0x5678);
}

void guest_main(void)
{
    paging_on();
    error_codes();
    directory_rights();
    write_protect();
    accessed_dirty();
    flushing();
    two_address_spaces();
    global_pages();
    large_pages();
    crossing_pages();
    demand_paging();
    table_stores();
    aliases();
    paging_toggles();
    paging_off();
}
