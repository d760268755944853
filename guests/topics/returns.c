/*
 * Transfers keyed by linear addresses, when what lies there changes under them: returns that are
 * pending while the address space changes, a page is remapped or taken away, or so much code is made
 * that none of the old can have been kept; and a breakpoint that one program has and another not.
 *
 * Ref: Intel SDM vol. 3A, "Invalidation of TLBs and Paging-Structure Caches"; vol. 2B, "RET".
 */
#include "../lib/guest.h"

#define RWU   (PTE_P | PTE_W | PTE_U)
#define PAGE  0x1000u
#define AREA  (SCRATCH + 0x200000u)
#define CODE  AREA                /* where code runs: in page A or page B */
#define PAGE_A (AREA + 0x10000u)
#define PAGE_B (AREA + 0x12000u)
#define TABLES (AREA + 0x20000u)  /* page directory and table of the second address space */
#define DEEP   (AREA + 0x40000u)  /* 1,000 functions of 16 bytes, and what is made below them */
#define MADE   (AREA + 0x80000u)
#define STACK  (AREA + 0x1f0000u)
#define ROUNDS 100u

#define VEC_ASK 0x80

/* Two levels of calls; the innermost asks (INT 80h) for the world to be changed. The constant that says
 * who returned lies right behind the call. */
SNIPPET(two_calls, "xor %ebx, %ebx; call 1f; add $0x1000, %ebx; jmp 3f; 1: call 2f; add $0x10, %ebx; ret;"
                   "2: int $0x80; add $1, %ebx; ret; 3:");
/* The same over pages: the call is in one page, what it calls in the next. */
SNIPPET(next_page, "call *%edi; add $0x10, %ebx");
SNIPPET(deep, "xor %ebx, %ebx; call *%edi");

static uint32_t other_cr3;
static void (*ask)(void);

static bool on_ask(struct frame *f)
{
    if (f->vector != VEC_ASK)
        return false;
    ask();
    return true;
}

/* A second address space: as the first, but for CODE and the page behind it. */
static void second_space(void)
{
    uint32_t *directory = (uint32_t *)TABLES, *table = (uint32_t *)(TABLES + PAGE);

    memcpy(directory, page_directory, PAGE);
    memcpy(table, (void *)(page_directory[CODE >> 22] & ~0xfffu), PAGE);
    directory[CODE >> 22] = address_of(table) | RWU;
    table[CODE >> 12 & 1023] = PAGE_B | RWU;
    table[(CODE >> 12 & 1023) + 1] = (PAGE_B + PAGE) | RWU;
    pte_set(CODE, PAGE_A | RWU);
    pte_set(CODE + PAGE, (PAGE_A + PAGE) | RWU);
    other_cr3 = address_of(directory);
}

/* The code in both pages; B's constants are twice A's. */
static void place(const uint8_t *code, const uint8_t *done)
{
    size_t len = (size_t)(done + 3 - code);

    memcpy((void *)PAGE_A, code, len);
    memcpy((void *)PAGE_B, code, len);
}

static void double_constants(uint32_t at, size_t len)
{
    for (uint32_t i = at; i < at + len; i++) {
        const volatile uint8_t *p = (const volatile uint8_t *)i;
        if (p[0] == 0x83 && p[1] == 0xc3) /* add ebx, imm8 */
            poke8(i + 2, (uint8_t)(2 * p[2]));
        else if (p[0] == 0x81 && p[1] == 0xc3)
            poke(i + 2, 2 * peek(i + 2));
    }
}

static struct context run_code(int ring, uint32_t at, uint32_t edi)
{
    struct context c = context_new(ring, (const void *)at);

    c.edi = edi;
    context_run(&c);
    return c;
}

static const char *ringed(int ring, const char *name)
{
    static char text[64];

    memcpy(text, ring ? "ring3_" : "ring0_", 6);
    memcpy(text + 6, name, strlen(name) + 1);
    return text;
}

/* ---- equal addresses in two address spaces ---------------------------------------------- */

static uint32_t first_cr3;

static void to_the_other(void)
{
    set_cr3(get_cr3() == first_cr3 ? other_cr3 : first_cr3);
}

static void two_spaces(int ring)
{
    uint32_t good = 0;

    place(two_calls, two_calls_done);
    double_constants(PAGE_B, (size_t)(two_calls_done - two_calls));
    ask = to_the_other;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        set_cr3(i & 1 ? other_cr3 : first_cr3);
        struct context c = run_code(ring, CODE, 0);
        good += c.vector == VEC_DONE && c.ebx == (i & 1 ? 0x1011 : 0x2022);
    }
    set_cr3(first_cr3);
    check_eq(ringed(ring, "pending_returns_in_another_space"), good, ROUNDS);
}

/* ---- a copy-on-write breakpoint in the next page -------------------------------------------- */

/* A's second page is shared until a debugger of B puts INT3 into B's copy. */
static void breakpoint_in_the_next_page(int ring)
{
    uint32_t *entry = (uint32_t *)(TABLES + PAGE) + (CODE >> 12 & 1023) + 1, good = 0;

    place(next_page, next_page_done);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        set_cr3(first_cr3);
        poke8(PAGE_A + PAGE, 0xbb); /* mov ebx, 1; ret */
        poke(PAGE_A + PAGE + 1, 1);
        poke8(PAGE_A + PAGE + 5, 0xc3);
        *(volatile uint32_t *)entry = (PAGE_A + PAGE) | PTE_P | PTE_U;
        for (uint32_t k = 0; k < 4; k++) {
            set_cr3(k & 1 ? other_cr3 : first_cr3);
            struct context c = run_code(ring, CODE, CODE + PAGE);
            good += c.vector == VEC_DONE && c.ebx == 0x11;
        }
        memcpy((void *)(PAGE_B + PAGE), (void *)(PAGE_A + PAGE), PAGE);
        poke8(PAGE_B + PAGE, 0xcc);
        *(volatile uint32_t *)entry = (PAGE_B + PAGE) | RWU;
        for (uint32_t k = 0; k < 4; k++) {
            set_cr3(k & 1 ? other_cr3 : first_cr3);
            struct context c = run_code(ring, CODE, CODE + PAGE);
            good += k & 1 ? c.vector == V_BP && c.eip == CODE + PAGE + 1 : c.vector == VEC_DONE && c.ebx == 0x11;
        }
    }
    set_cr3(first_cr3);
    *(volatile uint32_t *)entry = (PAGE_B + PAGE) | RWU;
    check_eq(ringed(ring, "breakpoint_of_one_program"), good, 8 * ROUNDS);
}

/* ---- munmap and mmap under a pending return --------------------------------------------------- */

static void unmap(void)
{
    pte_set(CODE, 0);
}

static void map_b(void)
{
    pte_set(CODE, 0);
    pte_set(CODE, PAGE_B | RWU);
}

/* The callee lies in the next page, which stays. */
static void unmapped(int ring)
{
    uint32_t gone = 0, new = 0;

    place(next_page, next_page_done);
    double_constants(PAGE_B, (size_t)(next_page_done - next_page));
    memcpy((void *)(PAGE_A + PAGE), "\xbb\x01\x00\x00\x00\xcd\x80\xc3", 8); /* mov ebx, 1; int 80h; ret */
    for (uint32_t i = 0; i < ROUNDS; i++) {
        ask = unmap;
        pte_set(CODE, PAGE_A | RWU);
        struct context c = run_code(ring, CODE, CODE + PAGE);
        gone += c.vector == V_PF && c.cr2 == CODE + 2 && c.eip == CODE + 2 && c.error == (ring ? 4 : 0);
        ask = map_b;
        pte_set(CODE, PAGE_A | RWU);
        c = run_code(ring, CODE, CODE + PAGE);
        new += c.vector == VEC_DONE && c.ebx == 0x21;
    }
    pte_set(CODE, PAGE_A | RWU);
    check_eq(ringed(ring, "unmapped_under_a_return"), gone, ROUNDS);
    check_eq(ringed(ring, "mapped_anew_under_a_return"), new, ROUNDS);
}

/* ---- eviction under 1,000 pending returns --------------------------------------------------------- */

static uint32_t made_good;

/* Functions enough to fill a small cache several times over, each run once. */
static void make_much(void)
{
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t at = MADE + 64 * i;
        poke8(at, 0xb8);
        poke(at + 1, i + made_good);
        poke8(at + 5, 0xc3);
        uint32_t want = i + made_good;
        made_good += ((uint32_t(*)(void))at)() == want;
    }
}

/* Those that are still to be returned to change, too. */
static void change_pending(void)
{
    for (uint32_t i = 0; i < 1000; i++)
        poke8(DEEP + 16 * i + 7, 2);
}

static uint32_t run_deep(int ring)
{
    struct context c = context_new(ring, deep);

    c.edi = DEEP;
    c.esp = STACK;
    context_run(&c);
    return c.vector == VEC_DONE ? c.ebx : 0xdead0000u | c.vector;
}

static void thousand_returns(int ring)
{
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t at = DEEP + 16 * i;
        poke8(at, 0xe8); /* call the next one */
        poke(at + 1, 16 - 5);
        poke(at + 5, 0xc301c383); /* add ebx, 1; ret */
    }
    poke(DEEP + 16000, 0x90c380cd); /* int 80h; ret */
    made_good = 0;
    ask = make_much;
    check_eq(ringed(ring, "eviction_under_1000_returns"), run_deep(ring), 1000);
    check_eq(ringed(ring, "what_was_made_meanwhile"), made_good, 3000);
    ask = change_pending;
    check_eq(ringed(ring, "change_under_1000_returns"), run_deep(ring), 2000);
}

void guest_main(void)
{
    paging_on();
    guest_hook = on_ask;
    second_space();
    first_cr3 = get_cr3();
    for (int ring = 0; ring <= 3; ring += 3) {
        two_spaces(ring);
        breakpoint_in_the_next_page(ring);
        unmapped(ring);
        thousand_returns(ring);
    }
    guest_hook = NULL;
    paging_off();
}
