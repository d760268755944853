/*
 * Self-modifying and cross-modifying code. On IA-32 a store is seen by every later
 * instruction fetch of the same processor: the next instruction, the same page, through
 * an alias mapping, in a page whose mapping changes.
 *
 * Ref: Intel SDM vol. 3A, ch. 8 "Handling Self- and Cross-Modifying Code" (one processor:
 * a jump is recommended, but processors since the P6 need none; that is checked too).
 */
#include "../lib/guest.h"

#define CODE SCRATCH
#define RWU  (PTE_P | PTE_W | PTE_U)

typedef uint32_t code_fn(void);
#define CALL(va) (((code_fn *)(va))())

/* mov eax, value; ret */
static void put_constant(uint32_t va, uint32_t value)
{
    poke8(va, 0xb8);
    poke(va + 1, value);
    poke8(va + 5, 0xc3);
}

SNIPPET(m_next, "movb $0x42, 1f + 1; 1: mov $0x11, %al");
SNIPPET(m_next_opcode, "movb $0xb3, 1f; 1: mov $0x33, %al");
SNIPPET(m_same_block, "movb $0x42, 1f + 1; inc %ecx; inc %ecx; inc %ecx; 1: mov $0x11, %al");
SNIPPET(m_word, "movw $0x4746, 1f; 1: nop; nop");
SNIPPET(m_push, "mov %esp, %ebp; mov $1f + 4, %esp; push $0x90904647; 1: nop; nop; nop; nop; mov %ebp, %esp");
SNIPPET(m_xchg, "mov $0x47, %al; xchg %al, 1f; 1: nop");
SNIPPET(m_rmw, "addb $1, 1f + 1; 1: mov $0x41, %al");
SNIPPET(m_stos, "mov $0x47, %al; mov $1f, %edi; mov $3, %ecx; xor %ebx, %ebx; rep stosb; 1: nop; nop; nop");
SNIPPET(m_movs, "mov $2f, %esi; mov $1f, %edi; mov $4, %ecx; rep movsb; 1: nop; nop; nop; nop; jmp 3f; 2: "
                "inc %ebx; inc %ebx; inc %ebx; inc %ebx; 3:");
SNIPPET(m_fst, "fildll fild_m; fistpll 1f; 1: nop; nop; nop; nop; nop; nop; nop; nop");
SNIPPET(m_loop_imm, "mov $100, %ecx; 1: add $1, %eax; incb 1b + 2; dec %ecx; jnz 1b");
SNIPPET(m_back, "mov $3, %ecx; 1: inc %eax; movb $0x48, 1b; dec %ecx; jnz 1b"); /* inc eax becomes dec eax */
SNIPPET(m_after_call, "call 1f; mov $0x11, %al; jmp 2f; 1: mov (%esp), %edx; movb $0x42, 1(%edx); ret; 2:");
SNIPPET(m_jump_target, "movb $0x10, 1f + 1; 1: jmp 2f; 2: mov $1, %ebx; jmp 3f; .byte "
                       "0x90,0x90,0x90,0x90,0x90,0x90,0x90,0x90,0x90; mov $2, %ebx; 3:");
static const uint64_t fild_value __attribute__((used)) = 0x9090909090904747ull; /* inc edi twice */
__asm__(".set fild_m, fild_value");

static struct context run_snippet(const void *code)
{
    struct context c = run_at(3, code);

    if (c.vector != VEC_DONE)
        say("# vector %u error %x at %x cr2 %x\n", c.vector, c.error, c.eip, c.cr2);
    return c;
}

static void within_a_block(void)
{
    check_eq("next_instruction_immediate", run_snippet(m_next).eax & 0xff, 0x42);
    {
        struct context c = run_snippet(m_next_opcode);

        check_eq("next_instruction_opcode", c.ebx & 0xff, 0x33);
        check_eq("next_instruction_old_opcode_did_not_run", c.eax & 0xff, 0);
    }
    check_eq("same_block", run_snippet(m_same_block).eax & 0xff, 0x42);
    {
        struct context c = run_snippet(m_word);

        check_eq("two_instructions_at_once", (c.esi << 8) | c.edi, 0x101);
        c = run_snippet(m_push);
        check_eq("by_push", (c.esi << 8) | c.edi, 0x101);
    }
    check_eq("by_xchg", run_snippet(m_xchg).edi, 1);
    check_eq("by_read_modify_write", run_snippet(m_rmw).eax & 0xff, 0x42);
    check_eq("by_rep_stos", run_snippet(m_stos).edi - address_of(m_stos_done), 3);
    check_eq("by_rep_movs", run_snippet(m_movs).ebx, 4);
    check_eq("by_x87_store", run_snippet(m_fst).edi, 2);
    check_eq("loop_changes_its_immediate", run_snippet(m_loop_imm).eax, 100 + 99 * 100 / 2);
    check_eq("loop_changes_its_opcode", run_snippet(m_back).eax, 1 - 2);
    check_eq("instruction_after_a_call", run_snippet(m_after_call).eax & 0xff, 0x42);
}

static void functions(void)
{
    bool good = true;

    for (uint32_t i = 0; i < 1000; i++) {
        put_constant(CODE, i);
        good &= CALL(CODE) == i;
    }
    check("function_rewritten_1000_times", good);
    good = true;
    for (uint32_t i = 0; i < 1000; i++) {
        poke8(CODE + 1, (uint8_t)i); /* one byte of its immediate */
        good &= (CALL(CODE) & 0xff) == (i & 0xff);
    }
    check("byte_of_immediate_1000_times", good);
    good = true;
    for (uint32_t i = 0; i < 300; i++) {
        /* many functions in one page, one changes, all run */
        for (uint32_t k = 0; k < 8; k++)
            if (i == 0 || k == (i & 7))
                put_constant(CODE + 0x100 * k, i * 8 + k);
        for (uint32_t k = 0; k < 8; k++)
            good &= (CALL(CODE + 0x100 * k) & 7) == k;
    }
    check("one_of_eight_functions", good);
    good = true;
    put_constant(CODE, 77);
    for (uint32_t i = 0; i < 2000; i++) {
        poke(CODE + 0x800, i); /* data in a code page */
        good &= CALL(CODE) == 77 && peek(CODE + 0x800) == i;
    }
    check("data_in_a_code_page", good);
}

static void straddling(void)
{
    uint32_t at = CODE + 0x1000 - 3; /* b8 imm32 with its immediate over the boundary */
    bool good = true;

    for (uint32_t i = 0; i < 200; i++) {
        put_constant(at, 0x01010101u * (i & 0xff));
        good &= CALL(at) == 0x01010101u * (i & 0xff);
        poke8(CODE + 0x1000, (uint8_t)(i + 7)); /* second page only */
        good &= ((CALL(at) >> 16) & 0xff) == ((i + 7) & 0xff);
        poke8(CODE + 0xfff, (uint8_t)(i + 9)); /* first page only */
        good &= ((CALL(at) >> 8) & 0xff) == ((i + 9) & 0xff);
    }
    check("instruction_across_pages", good);
}

static void aliases(void)
{
    uint32_t alias = CODE + 0x10000;
    bool good = true;

    pte_set(alias, CODE | RWU);
    for (uint32_t i = 0; i < 200; i++) {
        put_constant(alias, i);
        good &= CALL(CODE) == i;
        put_constant(CODE, i + 1000);
        good &= CALL(alias) == i + 1000 && CALL(CODE) == i + 1000;
    }
    check("through_an_alias", good);
    pte_set(alias, alias | RWU);
}

static void remapping(void)
{
    uint32_t a = CODE + 0x20000, b = CODE + 0x21000, window = CODE + 0x22000;
    bool good = true;

    put_constant(a, 0xaaaa);
    put_constant(b, 0xbbbb);
    for (uint32_t i = 0; i < 100; i++) {
        pte_set(window, a | RWU);
        good &= CALL(window) == 0xaaaa;
        pte_set(window, b | RWU);
        good &= CALL(window) == 0xbbbb;
    }
    check("page_of_code_remapped", good);
    pte_set(window, a | RWU);
    good = CALL(window) == 0xaaaa;
    *(volatile uint32_t *)pte_of(window) = b | RWU;
    set_cr3(get_cr3());
    good &= CALL(window) == 0xbbbb;
    check("page_of_code_remapped_by_cr3_load", good);
    /* an instruction over two pages, the second of which is remapped */
    put_constant(a + 0x1000 - 2, 0x11111111);
    memcpy((void *)(CODE + 0x24000), (void *)(a + 0x1000), 16);
    poke8(CODE + 0x24000, 0x22);
    pte_set(window, a | RWU);
    pte_set(window + 0x1000, (a + 0x1000) | RWU);
    good = CALL(window + 0xffe) == 0x11111111;
    pte_set(window + 0x1000, (CODE + 0x24000) | RWU);
    good &= CALL(window + 0xffe) == 0x11112211;
    pte_set(window + 0x1000, (a + 0x1000) | RWU);
    good &= CALL(window + 0xffe) == 0x11111111;
    check("second_page_of_an_instruction_remapped", good);
    pte_set(window, window | RWU);
    pte_set(window + 0x1000, (window + 0x1000) | RWU);
    /* a jump from one page into another one that is remapped */
    put_constant(b, 0xbbbb); /* the instruction above lay over its first bytes */
    poke8(CODE + 0x30000, 0xe9);
    poke(CODE + 0x30001, window - (CODE + 0x30005));
    good = true;
    for (uint32_t i = 0; i < 20; i++) {
        pte_set(window, a | RWU);
        good &= CALL(CODE + 0x30000) == 0xaaaa;
        pte_set(window, b | RWU);
        good &= CALL(CODE + 0x30000) == 0xbbbb;
    }
    check("jump_into_a_remapped_page", good);
    pte_set(window, window | RWU);
}

static void on_the_stack(void)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < 100; i++) {
        volatile uint8_t code[8];

        put_constant(address_of((const void *)code), i);
        sum += CALL(address_of((const void *)code));
    }
    check_eq("code_on_the_stack", sum, 4950);
}

static void page_of_tables(void)
{
    /* code and a page table in one page would be absurd; code next to a busy counter isn't */
    volatile uint32_t *counter = (volatile uint32_t *)(CODE + 0x40ffc);

    poke8(CODE + 0x40000, 0xff);
    poke8(CODE + 0x40001, 0x05);
    poke(CODE + 0x40002, CODE + 0x40ffc); /* inc dword [counter] */
    poke8(CODE + 0x40006, 0xc3);
    *counter = 0;
    for (uint32_t i = 0; i < 5000; i++)
        CALL(CODE + 0x40000);
    check_eq("code_that_stores_into_its_own_page", *counter, 5000);
}

void guest_main(void)
{
    within_a_block();
    functions();
    straddling();
    on_the_stack();
    page_of_tables();
    paging_on();
    functions();
    straddling();
    aliases();
    remapping();
    paging_off();
}
