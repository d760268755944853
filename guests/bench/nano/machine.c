/*
 * What the blocks run on: gates and their handlers, two address spaces that differ in one page table, a
 * second task, the interrupt controller; and the list of the blocks.
 */
#include "nano.h"

#define RWU (PTE_P | PTE_W | PTE_U)

#define VEC_UART 0x24
#define UART     0x3f8

uint32_t nano_table[1024] __attribute__((aligned(4096)));
static uint32_t other_table[1024] __attribute__((aligned(4096)));
static uint32_t other_directory[1024] __attribute__((aligned(4096)));
static uint8_t other_stack[4096] __attribute__((aligned(4096)));
static uint8_t sysenter_stack[4096] __attribute__((aligned(4096)));
static uint8_t task_stack[4096] __attribute__((aligned(4096)));
static struct tss other_task __attribute__((aligned(256)));

extern uint32_t nano_other_cr3, nano_other_stack;
extern uint8_t nano_int80[], nano_sysenter[], nano_divide[], nano_fault_fix[], nano_fault_skip[], nano_uart[],
    nano_task[];

/* ---- features ---------------------------------------------------------------------------------------- */

static bool has_sysenter(void)
{
    uint32_t a = 1, b, c, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    return d >> 11 & 1;
}

static void write_msr(uint32_t msr, uint32_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0));
}

/* ---- what a block needs before it runs ------------------------------------------------------------------
 */

static void gate(unsigned vector, const void *handler, int ring)
{
    idt_set(vector, GATE(SEL_KCODE, address_of(handler), ring ? 0xee : 0x8e));
}

/* Every page present: the first half holds ones, page 64 changes under ptemod. */
static void map_area(void)
{
    for (uint32_t i = 0; i < 1024; i++) {
        nano_table[i] = (NANO_ONES + (i & 255) * 0x1000) | RWU;
        other_table[i] = (NANO_THREES + (i & 255) * 0x1000) | RWU;
    }
    set_cr3(get_cr3());
}

static void unmap_area(void)
{
    for (uint32_t i = 0; i < 1024; i++)
        nano_table[i] &= ~PTE_P;
    set_cr3(get_cr3());
}

static void prepare_fault_fix(void)
{
    unmap_area();
    gate(V_PF, nano_fault_fix, 0);
}

static void prepare_fault_skip(void)
{
    unmap_area();
    gate(V_PF, nano_fault_skip, 0);
}

static void prepare_mask(void)
{
    outb(0x21, 0x7f); /* what in_pic counts: all masked but one line that nobody raises */
}

static void prepare_uart(void)
{
    outb(UART + 4, 0x0b); /* OUT2 lets the interrupt out */
    outb(0x21, 0xef);
}

static void after_uart(const struct block *b, const struct context *c)
{
    (void)b;
    (void)c;
    outb(UART + 1, 0);
    outb(0x21, 0xff);
}

static void after_mask(const struct block *b, const struct context *c)
{
    (void)b;
    (void)c;
    outb(0x21, 0xff);
}

static void flags_remain(const struct block *b, const struct context *c)
{
    if ((c->eflags & (EFL_IF | EFL_IOPL | EFL_DF)) != (b->flags & (EFL_IF | EFL_IOPL | EFL_DF)))
        nano_missing++;
}

static void table_changed(const struct block *b, const struct context *c)
{
    (void)b;
    for (unsigned i = 512; i < 520; i++)
        if (nano_table[i] != c->ecx)
            nano_missing++;
}

/* ---- the list ---------------------------------------------------------------------------------------------
 */

#define DECLARE(name) extern const uint8_t block_##name[], block_##name##_end[];
DECLARE(empty)
DECLARE(rdtsc) DECLARE(syscall_int80) DECLARE(syscall_sysenter) DECLARE(in) DECLARE(in_80) DECLARE(in_pic)
    DECLARE(out) DECLARE(cr3_load) DECLARE(cr3_switch) DECLARE(mov_from_cr0) DECLARE(cli_sti)
        DECLARE(pushf_popf) DECLARE(pushf_cli_popf) DECLARE(segment_load) DECLARE(cpuid) DECLARE(call_ret)
            DECLARE(call_indirect) DECLARE(call_indirect_4) DECLARE(far_call) DECLARE(int_same_ring)
                DECLARE(task_switch) DECLARE(divide_error) DECLARE(page_fault) DECLARE(page_fault_only)
                    DECLARE(invlpg) DECLARE(invlpg_touch) DECLARE(cr3_touch) DECLARE(pte_store)
                        DECLARE(pte_store_used) DECLARE(ptemod) DECLARE(irq_self) DECLARE(hlt_pending)
                            DECLARE(context_switch_1) DECLARE(context_switch_16) DECLARE(context_switch_128)

/* clang-format off */
#define B(block_name, at_ring, n, counted, ...) \
    { .name = #block_name, .code = block_##block_name, .end = block_##block_name##_end, .ring = at_ring, \
      .measures = n, .count = counted, __VA_ARGS__ }
const struct block nano_blocks[] = {
    /* name            ring  events and count of a turn */
    B(empty,              0,  1,   0),
    B(syscall_int80,      3,  4,   4),
    B(syscall_sysenter,   3,  4,   4, .possible = has_sysenter),
    B(in,                 0,  8,   8),
    B(in_80,              0,  8,   8),
    B(in_pic,             0,  8, 8 * 0x7f, .prepare = prepare_mask, .after = after_mask),
    B(out,                0,  8,   8),
    B(cr3_load,           0,  4,   4),
    B(cr3_switch,         0,  4,   8),
    B(mov_from_cr0,       0,  8,   8),
    B(cli_sti,            0,  8,   8, .flags = EFL_IF, .after = flags_remain),
    B(pushf_popf,         0,  8,   8, .flags = EFL_IF, .after = flags_remain),
    B(pushf_cli_popf,     0,  8,   8, .flags = EFL_IF, .after = flags_remain),
    B(segment_load,       0,  8,   8),
    B(call_ret,           0,  8,   8),
    B(call_indirect,      0,  8,   8),
    B(call_indirect_4,    0,  1,   1),
    B(far_call,           0,  4,   4),
    B(int_same_ring,      0,  4,   4),
    B(task_switch,        0,  2,   1),
    B(divide_error,       3,  4,   4),
    B(page_fault,         3,  1,   1, .most = 1000, .prepare = prepare_fault_fix),
    B(page_fault_only,    3,  4,   4, .prepare = prepare_fault_skip),
    B(invlpg,             0,  8,   8),
    B(invlpg_touch,       0,  8,   8),
    B(cr3_touch,          0, 32,  32),
    B(pte_store,          0,  8,   8, .after = table_changed),
    B(pte_store_used,     0,  8,   8, .prepare = map_area),
    B(ptemod,             0,  2,   4),
    B(irq_self,           0,  1,   1, .flags = EFL_IF, .prepare = prepare_uart, .after = after_uart),
    B(hlt_pending,        0,  1,   1, .prepare = prepare_uart, .after = after_uart),
    B(context_switch_1,   0,  2,   4),
    B(context_switch_16,  0,  2,  64),
    B(context_switch_128, 0,  2, 512),
    B(cpuid,              0,  2,   2),
    B(rdtsc,              0,  8,   0),
};
/* clang-format on */
const unsigned nano_block_count = sizeof nano_blocks / sizeof nano_blocks[0];

/* ---- set-up -----------------------------------------------------------------------------------------------
 */

static void fill_pages(uint32_t pa, uint32_t value)
{
    for (uint32_t i = 0; i < 256; i++)
        poke(pa + i * 0x1000, value);
}

void nano_machine_setup(void)
{
    paging_on();
    fill_pages(NANO_ONES, 1);
    fill_pages(NANO_THREES, 3);
    memcpy(other_directory, page_directory, sizeof other_directory);
    page_directory[NANO_AREA >> 22] = address_of(nano_table) | RWU;
    other_directory[NANO_AREA >> 22] = address_of(other_table) | RWU;
    map_area();
    nano_other_cr3 = address_of(other_directory);
    nano_other_stack = address_of(other_stack) + sizeof other_stack;

    gate(0x80, nano_int80, 3);
    gate(0x81, nano_int80, 0);
    gate(V_DE, nano_divide, 0);
    gate(VEC_UART, nano_uart, 0);
    if (has_sysenter()) {
        write_msr(0x174, SEL_KCODE);
        write_msr(0x175, address_of(sysenter_stack) + sizeof sysenter_stack);
        write_msr(0x176, address_of(nano_sysenter));
    }

    guest_gdt[SEL_NANO_TSS >> 3] = DESC(address_of(&other_task), 0x67, 0x89, 0);
    guest_tss.cr3 = address_of(page_directory);
    other_task = (struct tss){
        .cr3 = address_of(page_directory),
        .eip = address_of(nano_task),
        .eflags = 2,
        .esp = address_of(task_stack) + sizeof task_stack,
        .cs = SEL_KCODE,
        .ss = SEL_KDATA,
        .ds = SEL_KDATA,
        .es = SEL_KDATA,
        .fs = SEL_KDATA,
        .gs = SEL_KDATA,
        .io_base = 0x68,
    };
}

uint32_t nano_place(const struct block *b, uint32_t ofs)
{
    static uint32_t next = NANO_CODE;
    uint32_t size = (uint32_t)(b->end - b->code), place = next + ofs;

    next += (ofs + size + 0xfff) & ~0xfffu;
    if (next > NANO_CODE_END)
        give_up("no room for code");
    memcpy((void *)place, b->code, size);
    return place;
}

uint32_t nano_missing;

uint32_t nano_run(const struct block *b, uint32_t place, uint32_t turns)
{
    struct context c = context_new(b->ring, (const void *)place);

    c.ebp = turns;
    c.ebx = place;
    c.eflags |= b->flags;
    if (b->prepare)
        b->prepare();
    context_run(&c);
    if (c.vector != VEC_DONE) {
        say("block %s: vector %u error %x at %x (code %x), cr2 %x\n", b->name, c.vector, c.error, c.eip,
            place, c.cr2);
        give_up("a block ended by an exception");
    }
    if (b->after)
        b->after(b, &c);
    if (b->count && c.edi != turns * b->count)
        nano_missing++;
    if (b->prepare == prepare_fault_fix || b->prepare == prepare_fault_skip)
        map_area();
    return c.eax;
}
