/*
 * Code that changes, case by case: who writes (ring 0 or 3, which instruction, a device), where the
 * writer stands (in the same block, page, or another one), how it gets there (the same mapping, an
 * alias, one that may not be written), and what else changes beside bytes: the mapping. returns.c has
 * what is keyed by linear addresses.
 *
 * Each case is run many times with another value each, so it is one of progress as well: a monitor
 * that starts the writer anew whenever it drops its code never gets to the end.
 *
 * In the snippets EAX is the value, which they patch into a constant and bring back in EBX; EDI is
 * the code that changes, ESI where it is written.
 *
 * Ref: Intel SDM vol. 3A, "Self-Modifying Code" and "Handling Self- and Cross-Modifying Code" (one
 * processor: what it stored is what it fetches, from the P6 on without a jump between).
 */
#include "../lib/guest.h"
#include "../lib/modes.h"

#define RWU    (PTE_P | PTE_W | PTE_U)
#define HERE   (SCRATCH + 0x100000u) /* where the writers are copied to */
#define THERE  (HERE + 0x5000u)
#define ALIAS  0x40000u              /* alias of an address: so many bytes above */
#define ROUNDS 200u

/* ---- within a block ---------------------------------------------------------------------- */

SNIPPET(b_next, "mov %eax, 1f + 1; 1: mov $0x11111111, %ebx");
SNIPPET(b_later, "mov %eax, 1f + 1; inc %edx; inc %edx; inc %edx; inc %edx; 1: mov $0x11111111, %ebx");
SNIPPET(b_earlier, "mov $2, %ecx; 1: mov $0x11111111, %ebx; mov %eax, 1b + 1; dec %ecx; jnz 1b");
SNIPPET(b_branch_over, "mov %eax, 1f + 1; test %esp, %esp; jnz 1f; ud2; 1: mov $0x11111111, %ebx");
SNIPPET(b_after_call, "call 2f; 1: mov $0x11111111, %ebx; jmp 3f; 2: mov %eax, 1b + 1; ret; 3:");
SNIPPET(b_push, "mov %esp, %ebp; mov $1f + 5, %esp; push %eax; 1: mov $0x11111111, %ebx; mov %ebp, %esp");
SNIPPET(b_pop, "push %eax; popl 1f + 1; 1: mov $0x11111111, %ebx");
SNIPPET(b_xchg, "mov %eax, %edx; xchg %edx, 1f + 1; 1: mov $0x11111111, %ebx");
SNIPPET(b_rmw, "mov 1f + 1, %edx; not %edx; lea 1(%edx, %eax), %edx; lock addl %edx, 1f + 1; 1: mov $0x11111111, %ebx");
SNIPPET(b_bytes, "mov %al, 1f + 1; mov %ah, 1f + 2; movb $0, 1f + 3; movb $0, 1f + 4; 1: mov $0x11111111, %ebx");
SNIPPET(b_stosd, "mov $1f + 1, %edi; stosl; 1: mov $0x11111111, %ebx");
SNIPPET(b_rep_stosb, "mov $1f + 1, %edi; mov $4, %ecx; rep stosb; 1: mov $0x11111111, %ebx; movzbl %bl, %ebx");
SNIPPET(b_rep_down, "mov $1f + 4, %edi; mov $4, %ecx; std; rep stosb; cld; 1: mov $0x11111111, %ebx; movzbl %bl, %ebx");
SNIPPET(b_rep_movs, "push %eax; mov %esp, %esi; mov $1f + 1, %edi; mov $4, %ecx; rep movsb; pop %edx; 1: mov $0x11111111, %ebx");
/* in the middle of what it copies: NOPs, then a constant, then NOPs again */
SNIPPET(b_mid_rep, "mov %eax, 4f + 13; mov $4f, %esi; mov $3f, %edi; mov $8, %ecx; rep movsl; 3: .skip 12, 0x90;"
                   "mov $0x11111111, %ebx; .skip 15, 0x90; jmp 5f; 4: .skip 12, 0x90; mov $0x22222222, %ebx;"
                   ".skip 15, 0x90; 5:");
SNIPPET(b_x87, "push $0; push %eax; fildl (%esp); fistpl 1f + 1; add $8, %esp; 1: mov $0x11111111, %ebx");
/* an instruction that stores to itself: its constant doubles each time it runs */
SNIPPET(b_itself, "movl $1, 1f + 6; mov $5, %ecx; 1: .byte 0x81, 0x05; .long 1b + 6, 1; dec %ecx; jnz 1b; mov 1b + 6, %ebx");
SNIPPET(b_opcode, "movb $0x4b, 1f; and $1, %eax; mov $0, %ebx; jz 1f; movb $0x43, 1f; 1: nop"); /* inc or dec ebx */
/* loops that change their own branch: to its contrary and back, and to another target in turns */
SNIPPET(b_own_branch, "mov $10, %ecx; xor %ebx, %ebx; 1: inc %ebx; xorb $1, 2f; xorb $1, 2f; dec %ecx; 2: jnz 1b");
SNIPPET(b_turns, "mov $20, %ecx; xor %ebx, %ebx; 1: xorb $8, 2f + 1; 2: .byte 0xeb, 0; add $1, %ebx; .byte 0xeb, 6;"
                 "nop; nop; nop; add $100, %ebx; nop; nop; nop; dec %ecx; jnz 1b");
SNIPPET(b_stack, "sub $16, %esp; movb $0xb8, (%esp); mov %eax, 1(%esp); movb $0xc3, 5(%esp); mov %esp, %edx;"
                 "xor %eax, %eax; call *%edx; mov %eax, %ebx; add $16, %esp");

enum want { THE_VALUE, LOW_BYTE, LOW_WORD };
struct block {
    const char *name;
    const uint8_t *code;
    enum want want;
};
static const struct block blocks[] = {
    { "next_instruction", b_next, THE_VALUE },
    { "later_in_the_block", b_later, THE_VALUE },
    { "earlier_in_the_block", b_earlier, THE_VALUE },
    { "behind_a_branch", b_branch_over, THE_VALUE },
    { "behind_a_call", b_after_call, THE_VALUE },
    { "by_push", b_push, THE_VALUE },
    { "by_pop", b_pop, THE_VALUE },
    { "by_xchg", b_xchg, THE_VALUE },
    { "by_locked_add", b_rmw, THE_VALUE },
    { "byte_by_byte", b_bytes, LOW_WORD },
    { "by_stos", b_stosd, THE_VALUE },
    { "by_rep_stos", b_rep_stosb, LOW_BYTE },
    { "by_rep_stos_downwards", b_rep_down, LOW_BYTE },
    { "by_rep_movs", b_rep_movs, THE_VALUE },
    { "amid_rep_movs", b_mid_rep, THE_VALUE },
    { "by_x87_store", b_x87, THE_VALUE },
    { "on_the_stack", b_stack, THE_VALUE },
};

static struct context last;

static uint32_t run_with(int ring, const void *code, uint32_t value, uint32_t edi, uint32_t esi)
{
    struct context c = context_new(ring, code);

    c.eax = value;
    c.edi = edi;
    c.esi = esi;
    context_run(&c);
    last = c;
    return c.vector == VEC_DONE ? c.ebx : 0xdead0000u | c.vector;
}

/* "ring3 NAME": one check for each ring. */
static const char *ringed(int ring, const char *name)
{
    static char text[64];
    size_t n = strlen(name);

    memcpy(text, ring ? "ring3_" : "ring0_", 6);
    memcpy(text + 6, name, n + 1);
    return text;
}

static uint32_t wanted(enum want want, uint32_t value)
{
    return want == LOW_BYTE ? value & 0xff : want == LOW_WORD ? value & 0xffff : value;
}

static void within_a_block(int ring)
{
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        const struct block *b = &blocks[i];
        uint32_t good = 0;

        for (uint32_t v = 1; v <= ROUNDS; v++)
            good += run_with(ring, b->code, v * 0x01000123u, 0, 0) == wanted(b->want, v * 0x01000123u);
        check_eq(ringed(ring, b->name), good, ROUNDS);
    }
    uint32_t doubled = 0, counted = 0, own = 0, turns = 0;
    for (uint32_t v = 1; v <= ROUNDS; v++) {
        doubled += run_with(ring, b_itself, 0, 0, 0) == 32;
        counted += run_with(ring, b_opcode, v, 0, 0) == (v & 1 ? 1 : 0xffffffffu);
        own += run_with(ring, b_own_branch, 0, 0, 0) == 10;
        turns += run_with(ring, b_turns, 0, 0, 0) == 1010;
    }
    check_eq(ringed(ring, "instruction_that_stores_to_itself"), doubled, ROUNDS);
    check_eq(ringed(ring, "opcode"), counted, ROUNDS);
    check_eq(ringed(ring, "loop_that_inverts_its_branch_and_back"), own, ROUNDS);
    check_eq(ringed(ring, "loop_that_turns_its_branch"), turns, ROUNDS);
}

/* ---- elsewhere -------------------------------------------------------------------------------- */

SNIPPET(e_write, "mov %eax, 1(%esi); xor %eax, %eax; call *%edi; mov %eax, %ebx");
SNIPPET(e_bytes, "mov %al, 1(%esi); mov %ah, 2(%esi); xor %eax, %eax; call *%edi; mov %eax, %ebx");
SNIPPET(e_stos, "lea 1(%esi), %edx; xchg %edx, %edi; mov $1, %ecx; rep stosl; xor %eax, %eax; call *%edx; mov %eax, %ebx");
SNIPPET(e_twice, "mov %eax, %ebp; movl $0x5555, 1(%esi); call *%edi; cmp $0x5555, %eax; jne 1f; mov %ebp, 1(%esi);"
                 "call *%edi; mov %eax, %ebx; 1:");
SNIPPET(e_made, "movb $0xb8, (%esi); mov %eax, 1(%esi); movb $0xc3, 5(%esi); xor %eax, %eax; call *%edi; mov %eax, %ebx");

/* mov eax, value; ret */
static void put_constant(uint32_t va, uint32_t value)
{
    poke8(va, 0xb8);
    poke(va + 1, value);
    poke8(va + 5, 0xc3);
}

struct place {
    const char *name;
    uint32_t writer, target, through;
};
static const struct place places[] = {
    { "other_block_of_the_page", HERE + 0x100, HERE + 0x800, HERE + 0x800 },
    { "same_64_bytes", HERE + 0x840, HERE + 0x870, HERE + 0x870 },
    { "other_page", HERE + 0x100, THERE + 0x10, THERE + 0x10 },
    { "straddling_from_another_page", HERE + 0x100, THERE + 0xffd, THERE + 0xffd },
    { "straddling_from_its_first_page", THERE + 0xf00, THERE + 0xffd, THERE + 0xffd },
    { "straddling_from_its_second_page", THERE + 0x1010, THERE + 0xffd, THERE + 0xffd },
    { "constant_in_the_next_page", THERE + 0xf80, THERE + 0xfff, THERE + 0xfff },
};
static const struct place alias_places[] = {
    { "alias_of_another_page", HERE + 0x100, THERE + 0x10, THERE + 0x10 + ALIAS },
    { "alias_of_its_own_page", HERE + 0x100, HERE + 0x800, HERE + 0x800 + ALIAS },
    { "alias_straddling", HERE + 0x100, THERE + 0xffe, THERE + 0xffe + ALIAS },
    { "run_through_the_alias", HERE + 0x100, THERE + 0x10 + ALIAS, THERE + 0x10 },
};

static void writers(int ring, const struct place *p)
{
    static const struct {
        const uint8_t *code, *end;
        bool half;
    } writer[] = {
        { e_write, e_write_done + 3, false }, { e_bytes, e_bytes_done + 3, true }, { e_stos, e_stos_done + 3, false },
        { e_twice, e_twice_done + 3, false }, { e_made, e_made_done + 3, false },
    };
    uint32_t good = 0;

    for (size_t k = 0; k < sizeof writer / sizeof writer[0]; k++) {
        memcpy((void *)p->writer, writer[k].code, (size_t)(writer[k].end - writer[k].code));
        put_constant(p->target, 0);
        for (uint32_t v = 1; v <= ROUNDS; v++) {
            uint32_t value = writer[k].half ? v : v * 0x01000123u;
            good += run_with(ring, (void *)p->writer, value, p->target, p->through) == value;
        }
    }
    check_eq(ringed(ring, p->name), good, 5 * ROUNDS);
}

static void map_aliases(void)
{
    for (uint32_t va = HERE; va < HERE + 0x10000; va += 0x1000)
        pte_set(va + ALIAS, va | RWU);
}

/* The page is read-only where it runs; the writer has it elsewhere, and faults where it is run. */
static void read_only(int ring)
{
    const struct place p = { "read_only_where_it_runs", HERE + 0x100, THERE + 0x10, THERE + 0x10 + ALIAS };

    put_constant(p.target, 0);
    pte_set(THERE, THERE | PTE_P | PTE_U);
    set_cr0(get_cr0() | 0x10000u); /* WP */
    uint32_t good = 0;
    memcpy((void *)p.writer, e_write, (size_t)(e_write_done + 3 - e_write));
    for (uint32_t v = 1; v <= ROUNDS; v++) {
        good += run_with(ring, (void *)p.writer, v, p.target, p.through) == v;
        if (v % 16 == 0) /* and not through the mapping that is read-only */
            good += run_with(ring, (void *)p.writer, v + 7, p.target, p.target) == (0xdead0000u | V_PF) &&
                    peek(p.target + 1) == v;
        else
            good++;
    }
    check_eq(ringed(ring, p.name), good, 2 * ROUNDS);
    set_cr0(get_cr0() & ~0x10000u);
    pte_set(THERE, THERE | RWU);
}

/* A page full of functions, each made byte by byte and run once, over and over. */
static void made_and_run_once(int ring)
{
    uint32_t good = 0;

    memcpy((void *)HERE, e_made, (size_t)(e_made_done + 3 - e_made));
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t v = 0; v < 600; v++) {
            uint32_t at = THERE + 6 * v;
            good += run_with(ring, (void *)HERE, v + round * 0x10000, at, at) == v + round * 0x10000;
        }
    check_eq(ringed(ring, "made_and_run_once"), good, 1800);
}

/* ---- mappings ------------------------------------------------------------------------------------ */

SNIPPET(m_call, "call *%edi; mov %eax, %ebx");
/* runs in a page that it maps elsewhere: what follows INVLPG (or the load of CR3) is the other page's */
SNIPPET(m_own_invlpg, "mov %eax, (%esi); invlpg (%edi); mov $1, %ebx; nop");
SNIPPET(m_own_cr3, "mov %cr3, %edx; mov %eax, (%esi); mov %edx, %cr3; mov $1, %ebx; nop");

static void remapped(int ring)
{
    uint32_t a = THERE, b = THERE + 0x1000, window = THERE + 0x3000, good = 0;

    put_constant(a + 0x20, 0xaaaa);
    put_constant(b + 0x20, 0xbbbb);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        pte_set(window, (i & 1 ? b : a) | RWU);
        good += run_with(ring, m_call, 0, window + 0x20, 0) == (i & 1 ? 0xbbbb : 0xaaaa);
    }
    check_eq(ringed(ring, "remapped_and_invlpg"), good, ROUNDS);
    good = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        *(volatile uint32_t *)pte_of(window) = (i & 1 ? b : a) | RWU;
        set_cr3(get_cr3());
        good += run_with(ring, m_call, 0, window + 0x20, 0) == (i & 1 ? 0xbbbb : 0xaaaa);
    }
    check_eq(ringed(ring, "remapped_and_cr3"), good, ROUNDS);
    good = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) { /* remapped and written: the write is to what is seen no more */
        pte_set(window, a | RWU);
        put_constant(window + 0x20, i);
        good += run_with(ring, m_call, 0, window + 0x20, 0) == i;
        pte_set(window, b | RWU);
        poke(a + 0x21, i + 1);
        good += run_with(ring, m_call, 0, window + 0x20, 0) == 0xbbbb;
        pte_set(window, a | RWU);
        good += run_with(ring, m_call, 0, window + 0x20, 0) == i + 1;
    }
    check_eq(ringed(ring, "written_while_mapped_elsewhere"), good, 3 * ROUNDS);
    pte_set(window, window | RWU);
}

static void remaps_itself(const char *name, const uint8_t *code, const uint8_t *done)
{
    uint32_t a = THERE, b = THERE + 0x1000, window = THERE + 0x3000, good = 0;
    size_t len = (size_t)(done + 3 - code);

    memcpy((void *)a, code, len);
    memcpy((void *)b, code, len);
    poke(b + len - 3 - 5, 2); /* mov ebx, 2 */
    for (uint32_t i = 0; i < 20; i++) {
        pte_set(window, a | RWU);
        good += run_with(0, (void *)window, b | RWU, window, address_of(pte_of(window))) == 2;
    }
    check_eq(name, good, 20);
    pte_set(window, window | RWU);
}

/* ---- 16 bits ---------------------------------------------------------------------------------------- */

SNIPPET16(s_next, "movw %ax, %es:1f + 1 - s_next; 1: movw $0x1111, %bx");
SNIPPET16(s_later, "movw %ax, %es:1f + 1 - s_later; incw %dx; incw %dx; jmp 1f; hlt; 1: movw $0x1111, %bx");
/* The second time around runs what the first time stored. */
SNIPPET16(s_earlier, "movw $2, %cx; 1: movw $0x1111, %bx; movw %ax, %es:1b + 1 - s_earlier; decw %cx; jnz 1b");
SNIPPET16(s_rep, "movw $1f + 1 - s_rep, %di; movw $2, %cx; rep stosb; 1: movw $0x1111, %bx");
SNIPPET16(s_loop, "movw $5, %cx; xorw %bx, %bx; 1: addw $0x10, %bx; addb $1, %es:1b + 2 - s_loop; loop 1b");

static uint32_t run16(int mode, uint32_t value)
{
    struct context c = mode == 0 ? real_new() : mode == 1 ? vm86_new() : prot16_new(mode == 2 ? 0 : 3);

    c.eax = value;
    if (mode == 1)
        c.eflags |= EFL_IOPL; /* for INT 7Fh */
    c.es = mode < 2 ? CODE_SEG : mode == 2 ? SEL_FREE : SEL_FREE | 3;
    if (mode == 0)
        real_run(&c);
    else
        context_run(&c);
    return c.vector == VEC_DONE ? c.ebx & 0xffff : 0xdead0000u | c.vector;
}

static void code_of_16_bits(void)
{
    static const char *const names[4] = { "real_mode", "virtual_8086", "prot16_ring0", "prot16_ring3" };

    for (int mode = 0; mode < 4; mode++) {
        uint32_t good = 0;

        guest_gdt[SEL_FREE >> 3] = DESC(CODE_AT, 0xffff, mode == 3 ? 0xf3 : 0x93, 0);
        PLACE(s_next, 0);
        for (uint32_t v = 1; v <= 100; v++)
            good += run16(mode, v * 0x123) == ((v * 0x123) & 0xffff);
        PLACE(s_later, 0);
        for (uint32_t v = 1; v <= 100; v++)
            good += run16(mode, v * 0x123) == ((v * 0x123) & 0xffff);
        PLACE(s_earlier, 0);
        for (uint32_t v = 1; v <= 100; v++)
            good += run16(mode, v * 0x123) == ((v * 0x123) & 0xffff);
        PLACE(s_rep, 0);
        for (uint32_t v = 1; v <= 100; v++)
            good += run16(mode, v) == (v & 0xff) * 0x101;
        for (uint32_t v = 1; v <= 100; v++) {
            PLACE(s_loop, 0);
            good += run16(mode, 0) == 0x10 + 0x11 + 0x12 + 0x13 + 0x14;
        }
        check_eq(names[mode], good, 500);
    }
}

/* ---- a device ------------------------------------------------------------------------------------------ */

/* fw_cfg copies item 0, the signature "QEMU", into the constant of a function. Big-endian request:
 * control (select 0, read), length, address. */
static void by_a_device(void)
{
    static volatile uint32_t request[4] __attribute__((aligned(16)));
    uint32_t good = 0;

    if (option_given("bochs") || inl(0x514) != 0x554d4551u) /* "QEMU" */
        return;
    for (uint32_t v = 1; v <= ROUNDS; v++) {
        put_constant(THERE + 0x10, v);
        good += run_with(0, m_call, 0, THERE + 0x10, 0) == v;
        request[0] = __builtin_bswap32(2u | 8u);
        request[1] = __builtin_bswap32(4);
        request[2] = 0;
        request[3] = __builtin_bswap32(THERE + 0x11);
        outl(0x514, 0);
        outl(0x518, __builtin_bswap32(address_of((const void *)request)));
        good += request[0] == 0;
        good += run_with(v & 1 ? 3 : 0, m_call, 0, THERE + 0x10, 0) == 0x554d4551u;
    }
    check_eq("by_dma", good, 3 * ROUNDS);
}

void guest_main(void)
{
    modes_init();
    within_a_block(0);
    within_a_block(3);
    code_of_16_bits();
    by_a_device();
    paging_on();
    map_aliases();
    for (int ring = 0; ring <= 3; ring += 3) {
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
            writers(ring, &places[i]);
        for (size_t i = 0; i < sizeof alias_places / sizeof alias_places[0]; i++)
            writers(ring, &alias_places[i]);
        read_only(ring);
        made_and_run_once(ring);
        remapped(ring);
    }
    remaps_itself("remaps_itself_and_invlpg", m_own_invlpg, m_own_invlpg_done);
    remaps_itself("remaps_itself_and_cr3", m_own_cr3, m_own_cr3_done);
    paging_off();
}
