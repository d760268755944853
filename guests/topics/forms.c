/*
 * Code that should move between the two forms of a memory access: a loop that computes over
 * pages that stay, at ring 3 and (with paging off) at ring 0, and a ring-3 access whose page
 * is mapped elsewhere before every run. What the guest sees must be right in every case;
 * whether the code moved is read from the monitor's counters by tests/guest/forms.
 *
 * In between it does what a window must survive: CR3 loads, other address spaces, stores to
 * page tables without a CR3 load, a page that is made read-only and then written.
 */
#include "../lib/guest.h"

#define PAGE_A (SCRATCH)
#define PAGE_B (SCRATCH + 0x1000)
#define PAGE_V (SCRATCH + 0x2000) /* mapped to A and B in turns */
#define RWU (PTE_P | PTE_W | PTE_U)
#define CHUNK 20000u

/* ecx times: sum += [eax]; [eax + 4] = sum; the sum is in edx */
SNIPPET(g_sum, "1: add (%eax), %edx; mov %edx, 4(%eax); dec %ecx; jnz 1b");
SNIPPET(g_load, "mov (%eax), %ecx");
SNIPPET(g_store, "mov %ecx, (%eax)");

static struct context sum(int ring, uint32_t va, uint32_t times)
{
    struct context c = context_new(ring, g_sum);

    c.eax = va;
    c.ecx = times;
    context_run(&c);
    return c;
}

static uint64_t timestamp(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

/* The loop again and again for so many TSC cycles: long enough to be found hot, however slow the
 * settings at hand make it. Word at va: `addend`. */
static bool compute(int ring, uint32_t va, uint32_t addend, uint32_t cycles)
{
    uint64_t start = timestamp();
    bool good = true;

    do
        good &= sum(ring, va, CHUNK).edx == addend * CHUNK;
    while (timestamp() - start < cycles);
    return good && peek(va + 4) == addend * CHUNK;
}

static void hot_loops(uint32_t cycles)
{
    poke(PAGE_A, 3);
    check("ring0_loop", compute(0, PAGE_A, 3, cycles));
    paging_on();
    check("ring3_loop", compute(3, PAGE_A, 3, cycles));
    paging_off();
}

static void remapped_each_time(uint32_t times)
{
    bool good = true;

    poke(PAGE_A, 0xaaaa);
    poke(PAGE_B, 0xbbbb);
    for (uint32_t i = 0; i < times; i++) {
        struct context c = context_new(3, g_load);
        pte_set(PAGE_V, (i & 1 ? PAGE_B : PAGE_A) | RWU);
        c.eax = PAGE_V;
        context_run(&c);
        good &= c.ecx == (i & 1 ? 0xbbbb : 0xaaaa);
    }
    check("remapped_each_time", good);
}

static void read_only_again(void)
{
    struct context c = context_new(3, g_store);

    pte_set(PAGE_V, PAGE_A | RWU);
    c.eax = PAGE_V;
    c.ecx = 1;
    context_run(&c);
    check_done("store_to_writable", &c);
    pte_set(PAGE_V, PAGE_A | PTE_P | PTE_U);
    c = context_new(3, g_store);
    c.eax = PAGE_V;
    c.ecx = 2;
    context_run(&c);
    check_fault("store_to_read_only", &c, V_PF, 7);
    check_eq("store_to_read_only_memory", peek(PAGE_A), 1);
    pte_set(PAGE_V, PAGE_A | RWU);
    *(volatile uint32_t *)pte_of(PAGE_V) &= ~PTE_D;
    set_cr3(get_cr3());
    c = context_new(3, g_store);
    c.eax = PAGE_V;
    c.ecx = 5;
    context_run(&c);
    check_eq("dirty_is_set_again", *pte_of(PAGE_V) & PTE_D, PTE_D);
}

static uint32_t directory2[1024] __attribute__((aligned(4096)));
static uint32_t table2[1024] __attribute__((aligned(4096)));

/* The same ring-3 code at the same address over other pages, computing in both. */
static void two_address_spaces(uint32_t cycles)
{
    uint32_t first = get_cr3();
    bool good = true;

    memcpy(directory2, page_directory, sizeof directory2);
    for (unsigned i = 0; i < 1024; i++)
        table2[i] = ((PAGE_A & 0xffc00000u) + (i << 12)) | RWU;
    table2[(PAGE_V >> 12) & 1023] = PAGE_B | RWU;
    directory2[PAGE_A >> 22] = address_of(table2) | RWU;
    pte_set(PAGE_V, PAGE_A | RWU);
    poke(PAGE_A, 1);
    poke(PAGE_B, 2);
    for (unsigned i = 0; i < 6; i++) {
        good &= compute(3, PAGE_V, 1, cycles);
        set_cr3(address_of(directory2));
        good &= compute(3, PAGE_V, 2, cycles);
        set_cr3(first);
    }
    check("two_address_spaces_compute", good);
}

void guest_main(void)
{
    /* Bochs counts a cycle an instruction, and has no forms of code to choose between. */
    uint32_t cycles = option_given("bochs") ? 1000000 : 30000000;

    hot_loops(5 * cycles);
    paging_on();
    remapped_each_time(5000);
    read_only_again();
    two_address_spaces(cycles);
    hot_loops(cycles);
}
