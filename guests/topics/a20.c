/*
 * The gate on address line 20: while it masks, an address with bit 20 set reaches the memory 1 MiB below. By port
 * 92h and by the keyboard controller; for data, strings, the stack, code, vectors and page-table walks; at once.
 *
 * The program itself lies at 1 MiB: all that runs with the gate masking lies in low memory.
 *
 * Ref: Intel SDM vol. 3B, ch. "8086 Emulation", Address Translation in Real-Address Mode; ch. "Architecture
 * Compatibility", Segment Wraparound; PIIX3 datasheet, "Port 92"; IBM PS/2 technical reference, keyboard
 * controller, output port.
 */
#include "../lib/modes.h"

#define OFF "inb $0x92, %al; and $0xfc, %al; outb %al, $0x92;"
#define ON  "inb $0x92, %al; or $2, %al; and $0xfe, %al; outb %al, $0x92;"
/* keyboard controller: write its output port; AH what, which holds A20 in bit 1 */
#define KBC                                                                                                  \
    "1: inb $0x64, %al; test $2, %al; jnz 1b; mov $0xd1, %al; outb %al, $0x64; 2: inb $0x64, %al; test $2, %al; jnz 2b; " \
    "mov %ah, %al; outb %al, $0x60; 3: inb $0x64, %al; test $2, %al; jnz 3b;"

/* A page of this program above 1 MiB that FFFFh:ofs reaches, and the one below it. */
static uint8_t high_page[4096] __attribute__((aligned(4096), section(".rodata.high"))) = { 1 };
static uint32_t high, low;
static uint16_t ofs; /* of it in segment FFFFh */

SNIPPET16(a_data, "mov $0xffff, %cx; mov %cx, %es; movl %es:(%bx), %esi; " OFF "movl %es:(%bx), %edi; " ON "movl %es:(%bx), %ebp; " OFF
                  "movl $0x5ca1ab1e, %es:(%bx); " ON);
SNIPPET16(a_port, OFF "inb $0x92, %al; mov %al, %bl; " ON "inb $0x92, %al; mov %al, %bh");
SNIPPET16(a_kbc, "mov $0xffff, %cx; mov %cx, %es; mov $0xdd, %ah; " KBC " movl %es:(%bx), %esi; mov $0xdf, %ah; " KBC " movl %es:(%bx), %edi");
SNIPPET16(a_outs, "mov $0xffff, %cx; mov %cx, %es; movb $0, 0x10; mov $0x10, %si; mov $0x92, %dx; movl %es:(%bx), %edi; cld; outsb; movl "
                  "%es:(%bx), %ebp; movb $2, 0x11; outsb; movl %es:(%bx), %ecx");
SNIPPET16(a_code, "movw %bx, 0x20; movw $0xffff, 0x22; xor %dx, %dx; mov $3, %si; 1: lcall *0x20; " OFF " lcall *0x20; " ON
                  " dec %si; jnz 1b");
SNIPPET16(a_here, "movw $1f - a_here, 0x20; mov $0x10, %si; 1: " OFF "mov %es:(%bx), %al; xor %ah, %ah; add %ax, %cx; " ON
                  "mov %es:(%bx), %al; xor %ah, %ah; add %ax, %dx; dec %si; jnz 1b");
SNIPPET16(a_high_code, "add $1, %dl; lret; a_high_smc: mov $1, %cl; lret");
SNIPPET16(a_low_code, "add $1, %dh; lret; mov $2, %cl; lret");
SNIPPET16(a_smc, OFF "movw %bx, 0x20; movw $0xffff, 0x22; xor %cx, %cx; mov %cx, %es; mov %bp, %si; lcall *0x20; mov %cl, %ch; movb $7, "
                     "%es:1(%si); lcall *0x20; " ON);
SNIPPET16(a_string, "movw $0xffff, %ax; mov %ax, %ds; cld; mov $8, %si; mov $0x100, %di; mov $16, %cx; " OFF
                    " rep movsb; mov $8, %si; mov $0x200, %di; mov $4, %cx; rep movsl; mov $8, %si; mov $0x300, %di; mov $8, %cx; rep "
                    "movsw; movl 0xd, %ebx; " ON);
SNIPPET16(a_stos, "movw $0xffff, %ax; mov %ax, %es; cld; mov %bx, %di; mov $0x200, %cx; " OFF " mov $0x61, %al; rep stosb; mov $0x62636465, "
                  "%eax; stosl; mov %bx, %di; mov $0x800, %cx; mov $0x66, %al; repne scasb; " ON " mov %cx, %dx");
SNIPPET16(a_stack, OFF "mov %ss, %cx; mov $0xffff, %ax; mov %sp, %si; mov %ax, %ss; mov %bx, %sp; push $0x4711; pushl $0x12345678; pop %dx; mov "
                       "%cx, %ss; mov %si, %sp; " ON);
SNIPPET16(a_vector, OFF "nop");
LABEL(a_high_smc);

static struct context run(const void *code, size_t bytes)
{
    struct context c = real_new();

    code_place(code, bytes, 0);
    c.ebx = ofs;
    c.ebp = low + OFS(a_high_smc, a_high_code);
    real_run(&c);
    return c;
}
#define RUN(name) run(name, (size_t)(name##_end - name))

static void data(void)
{
    struct context c;

    poke(high, 0x11111111);
    poke(low, 0x22222222);
    c = RUN(a_data);
    check_done("port_92", &c);
    check_eq("on_reads_above", c.esi, 0x11111111);
    check_eq("masked_reads_below", c.edi, 0x22222222);
    check_eq("on_again_reads_above", c.ebp, 0x11111111);
    check_eq("masked_store_below", peek(low), 0x5ca1ab1e);
    check_eq("masked_store_not_above", peek(high), 0x11111111);
    c = RUN(a_port);
    check_eq("port_92_shows_it_masked", c.ebx & 2, 0);
    check_eq("port_92_shows_it_on", c.ebx >> 8 & 2, 2);
    c = RUN(a_kbc);
    check_done("keyboard_controller", &c);
    check_eq("keyboard_controller_masks", c.esi, 0x5ca1ab1e);
    check_eq("keyboard_controller_lets_through", c.edi, 0x11111111);
    c = RUN(a_outs);
    check_done("outs", &c);
    check_eq("outs_before", c.edi, 0x11111111);
    check_eq("outs_masks_at_once", c.ebp, 0x5ca1ab1e);
    check_eq("outs_lets_through_at_once", c.ecx, 0x11111111);
    c = real_new();
    PLACE(a_here, 0);
    poke8(high, 3);
    poke8(low, 5);
    c.es = 0xffff;
    c.ebx = ofs;
    real_run(&c);
    check_eq("loop_of_changes_masked", c.ecx, 16 * 5);
    check_eq("loop_of_changes_on", c.edx, 16 * 3);
}

static void strings(void)
{
    struct context c;
    uint8_t first[16];

    memcpy(first, (void *)0, 16);
    memset((void *)DATA_AT, 0, 0x400);
    c = RUN(a_string);
    check_done("strings_across_the_wrap", &c);
    check("rep_movsb_wraps", !memcmp((void *)(DATA_AT + 0x108), first, 8));
    check("rep_movsl_wraps", !memcmp((void *)(DATA_AT + 0x208), first, 8));
    check("rep_movsw_wraps", !memcmp((void *)(DATA_AT + 0x308), first, 8));
    check_eq("dword_across_the_wrap", c.ebx >> 24, first[0]);
    memset((void *)low, 0, 0x400);
    memset((void *)high, 0xee, 0x400);
    poke8(low + 0x300, 0x66);
    poke8(high + 0x210, 0x66);
    c = RUN(a_stos);
    check_done("stos_and_scas", &c);
    check_eq("rep_stosb_first", peek8(low), 0x61);
    check_eq("rep_stosb_last", peek8(low + 0x1ff), 0x61);
    check_eq("stosl", peek(low + 0x200), 0x62636465);
    check_eq("stos_leaves_what_is_above", peek(high + 0x1fc), 0xeeeeeeee);
    check_eq("repne_scasb_finds_what_is_below", 0x800 - c.edx, 0x301);
    c = RUN(a_stack);
    check_done("stack", &c);
    check_eq("stack_below", peek16(low - 2), 0x4711);
    check_eq("stack_below_next", peek(low - 6), 0x12345678);
    check_eq("stack_pop", c.edx, 0x5678);
}

static void code(void)
{
    struct context c;

    memcpy((void *)high, a_high_code, (size_t)(a_high_code_end - a_high_code));
    memcpy((void *)low, a_low_code, (size_t)(a_low_code_end - a_low_code));
    c = RUN(a_code);
    check_done("code", &c);
    check_eq("code_above", c.edx & 0xff, 3);
    check_eq("code_below", c.edx >> 8 & 0xff, 3);
    c = real_new();
    PLACE(a_smc, 0);
    c.ebx = ofs + OFS(a_high_smc, a_high_code);
    c.ebp = low + OFS(a_high_smc, a_high_code);
    real_run(&c);
    check_done("code_written_by_its_other_address", &c);
    check_eq("code_before", c.ecx >> 8 & 0xff, 2);
    check_eq("code_written_by_its_other_address_runs", c.ecx & 0xff, 7);
    check_eq("code_above_is_not_written", peek8(high + OFS(a_high_smc, a_high_code) + 1), 1);

    real_setup.idtr.base = 0x100000;
    c = RUN(a_vector);
    check_done("vector_table_below", &c);
}

/* Protected mode with paging, the tables read from below while CR3 and the entries say above. */
SNIPPET16(a_walk, OFF "lgdtl 0x40; mov 0x50, %eax; mov %eax, %cr3; mov %cr0, %ecx; mov %ecx, %edx; or $0x80000001, %edx; mov %edx, %cr0; jmp "
                      "1f; 1: mov $8, %dx; mov %dx, %es; movl $0x400000, %esi; movl %es:(%esi), %ebx; movl $0x13579bdf, %es:4(%esi); mov "
                      "%ecx, %cr0; xor %esi, %esi; mov %esi, %cr3; " ON);
#define TABLES 0x50000u

static void walks(void)
{
    struct context c;

    for (uint32_t at = TABLES; at < TABLES + 0x4000; at += 4)
        poke(at, 0), poke(at + 0x100000, 0);
    poke(TABLES, (TABLES + 0x101000) | 7);
    poke(TABLES + 4, (TABLES + 0x102000) | 7);
    for (uint32_t i = 0; i < 256; i++)
        poke(TABLES + 0x1000 + 4 * i, i << 12 | 7);
    poke(TABLES + 0x2000, (TABLES + 0x103000) | 7);
    poke(TABLES + 0x3000, 0xfeedface);
    poke(TABLES + 0x103000, 0xbadbad);
    poke(0x60008, 0x0000ffff); /* descriptor 8: flat data */
    poke(0x6000c, 0x00cf9300);
    poke16(DATA_AT + 0x40, 15);
    poke(DATA_AT + 0x42, 0x60000);
    poke(DATA_AT + 0x50, TABLES + 0x100000);
    c = RUN(a_walk);
    check_done("walk", &c);
    check_eq("walk_reads_tables_and_page_below", c.ebx, 0xfeedface);
    check_eq("walk_store", peek(TABLES + 0x3004), 0x13579bdf);
    check_eq("walk_store_not_above", peek(TABLES + 0x103004), 0);
    check_eq("walk_sets_accessed_and_dirty_below", peek(TABLES + 0x2000) & 0x60, 0x60);
    check_eq("walk_sets_nothing_above", peek(TABLES + 0x102000), 0);
}

void guest_main(void)
{
    modes_init();
    high = address_of(high_page);
    low = high - 0x100000;
    ofs = (uint16_t)(high - 0xffff0);
    check("the_page_is_in_reach", high + 4096 <= 0x10ffef && low >= 0x2000);
    data();
    strings();
    code();
    walks();
}
