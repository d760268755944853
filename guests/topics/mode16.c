/*
 * 16-bit protected mode and mixtures: 16-bit code on 16- and 32-bit stacks at CPL 0 and 3, 32-bit code on 16-bit
 * stacks, operand and address sizes changed by prefixes, all 24 forms of 16-bit addresses, EIP cut to 16 bits,
 * stack switches to and from 16-bit stacks, 16-bit TSS.
 *
 * Ref: Intel SDM vol. 3B, ch. "Mixing 16-Bit and 32-Bit Code"; vol. 1, ch. "Procedure Calls, Interrupts, and
 * Exceptions", Calculation of stack width; vol. 2, app. of ModR/M 16-bit addressing forms, and under the
 * instructions' names.
 */
#include "../lib/modes.h"

#define SEL_CODE32   (SEL_FREE + 0x00) /* base CODE_AT, 4 GiB, D = 1, DPL 0 */
#define SEL_BIG16    (SEL_FREE + 0x08) /* the same with D = 0 */
#define SEL_UCODE32  (SEL_FREE + 0x10 + 3)
#define SEL_STACK32  (SEL_FREE + 0x18) /* base STACK_AT, limit FFFFFh, B = 1 */
#define SEL_USTACK32 (SEL_FREE + 0x20 + 3)
#define SEL_SMALL    (SEL_FREE + 0x28) /* code of 1000h bytes, D = 0 */
#define SEL_TSS16    (SEL_FREE + 0x30)
#define SEL_GATE16   (SEL_FREE + 0x38 + 3)
#define SEL_INNER    (SEL_FREE + 0x40) /* stack of ring 0, B = 0 */
#define SEL_HANDLER  (SEL_FREE + 0x48)

static void descriptors(void)
{
    modes_init();
    guest_gdt[SEL_CODE32 >> 3] = DESC(CODE_AT, 0xfffff, 0x9b, 0xc);
    guest_gdt[SEL_BIG16 >> 3] = DESC(CODE_AT, 0xfffff, 0x9b, 0x8);
    guest_gdt[SEL_UCODE32 >> 3] = DESC(CODE_AT, 0xfffff, 0xfb, 0xc);
    guest_gdt[SEL_STACK32 >> 3] = DESC(STACK_AT, 0xfffff, 0x93, 4);
    guest_gdt[SEL_USTACK32 >> 3] = DESC(STACK_AT, 0xfffff, 0xf3, 4);
    guest_gdt[SEL_SMALL >> 3] = DESC(CODE_AT, 0xfff, 0x9b, 0);
}

/* ---- 16-bit addresses ----------------------------------------------------------------------------- */

static struct context run_real(struct context *c)
{
    real_run(c);
    return *c;
}
static struct context run_here(struct context *c)
{
    context_run(c);
    return *c;
}

struct way {
    const char *name;
    struct context (*begin)(void);
    struct context (*run)(struct context *c);
};

static struct context ring0(void)
{
    return prot16_new(0);
}
static struct context ring3(void)
{
    return prot16_new(3);
}
static struct context vm86(void)
{
    struct context c = vm86_new();

    c.eflags |= 0x3000;
    return c;
}
static const struct way ways[] = {
    { "real", real_new, run_real },
    { "vm86", vm86, run_here },
    { "ring0", ring0, run_here },
    { "ring3", ring3, run_here },
};

/* mov ax, [form]; mov [form + 2], dx by way of the displacement where there is one */
static uint32_t bad_forms;
static char bad_form[] = "modrm_00";

static void one_form(const struct way *way, unsigned mod, unsigned rm, uint32_t disp)
{
    static const uint16_t bx = 0xc123, bp = 0x9357, si = 0x8246, di = 0x7531;
    struct context c = way->begin();
    uint32_t sum[8] = { bx + si, bx + di, bp + si, bp + di, si, di, bp, bx }, ofs, at, n = 0;
    bool by_stack = rm == 2 || rm == 3 || (rm == 6 && mod != 0);
    uint8_t code[20];

    ofs = mod == 0 ? (rm == 6 ? disp : sum[rm]) : mod == 1 ? sum[rm] + (uint32_t)(int8_t)disp : sum[rm] + disp;
    ofs &= 0xffff;
    at = (by_stack ? STACK_AT : DATA_AT) + ofs;
    /* mov al, form */
    code[n++] = 0x8a;
    code[n++] = (uint8_t)(mod << 6 | rm);
    if (mod == 1)
        code[n++] = (uint8_t)disp;
    if (mod == 2 || (mod == 0 && rm == 6)) {
        code[n++] = (uint8_t)disp;
        code[n++] = (uint8_t)(disp >> 8);
    }
    /* lea ecx, form */
    code[n++] = 0x66;
    code[n] = 0x8d;
    memcpy(code + n + 1, code + 1, n - 2);
    code[n + 1] |= 1 << 3;
    n += n - 1;
    /* add form, dl */
    uint32_t len = (n - 1) / 2 + 0;
    code[n++] = 0x00;
    memcpy(code + n, code + 1, len - 1 + (len == 1));
    code[n] = (uint8_t)(mod << 6 | 2 << 3 | rm);
    n += mod == 1 ? 2 : mod == 2 || (mod == 0 && rm == 6) ? 3 : 1;
    if (mod == 1)
        code[n - 1] = (uint8_t)disp;
    if (mod == 2 || (mod == 0 && rm == 6)) {
        code[n - 2] = (uint8_t)disp;
        code[n - 1] = (uint8_t)(disp >> 8);
    }
    code[n++] = 0xcd;
    code[n++] = VEC_DONE;
    code_place(code, n, 0);
    c.ebx = 0x11110000u | bx;
    c.ebp = 0x22220000u | bp;
    c.esi = 0x33330000u | si;
    c.edi = 0x44440000u | di;
    c.edx = 0x31;
    c.esp = 0x100; /* out of the way */
    uint8_t before = peek8(at);
    c = way->run(&c);
    if (c.vector != VEC_DONE || (c.eax & 0xff) != before || c.ecx != ofs || peek8(at) != (uint8_t)(before + 0x31)) {
        bad_forms++;
        bad_form[6] = (char)('0' + mod);
        bad_form[7] = (char)('0' + rm);
        say("# %s: mod %u rm %u vector %u al %x lea %x memory %x, expected %x %x\n", way->name, mod, rm, c.vector,
            c.eax & 0xff, c.ecx, peek8(at), before, ofs);
    }
}

static void addresses(void)
{
    for (unsigned w = 0; w < 4; w++) {
        for (uint32_t i = 0; i < 0x10000; i++) {
            poke8(DATA_AT + i, (uint8_t)(i * 7 + (i >> 8) * 13));
            if (i > 0x200)
                poke8(STACK_AT + i, (uint8_t)(i * 11 + (i >> 8) * 5));
        }
        bad_forms = 0;
        for (unsigned mod = 0; mod < 3; mod++)
            for (unsigned rm = 0; rm < 8; rm++) {
                one_form(&ways[w], mod, rm, 0x7f);
                one_form(&ways[w], mod, rm, 0xff80);
            }
        check_eq(ways[w].name, bad_forms, 0);
    }
}

/* ---- stacks --------------------------------------------------------------------------------------------- */

/* The same text as 16- and 32-bit code; what differs is the default size. */
#define STACK_TEXT                                                                                           \
    "movl %edx, %esp; movl %esp, %ebp; movl %esp, %edi; pushw $0x1234; pushl $0x56789abc; movl %esp, %eax; popl %ebx; popw %cx; pushaw; pushal; popal; " \
    "popaw; pushfw; pushfl; popfl; popfw; cmpl %edi, %esp; jne 9f; enterw $0x10, $0; leavew; enterl $0x10, $0; leavel; " \
    "cmpl %edi, %esp; jne 9f; pushw %ds; popw %ds; pushl %es; popl %es; cmpl %edi, %esp; je 8f; 9: movl $0xbad, %edx; 8:"
SNIPPET16(m_stack16, STACK_TEXT);
SNIPPET(m_stack32, STACK_TEXT);
#define CALL_TEXT                                                                                            \
    "movl %edx, %esp; movl %esp, %edi; call 1f; 2: jmp 3f; 1: movl %esp, %eax; ret $0; 3: cmpl %edi, %esp; jne 9f; pushl $0; pushl $0; " \
    "call 4f; 5: jmp 6f; 4: ret $8; 6: cmpl %edi, %esp; je 8f; 9: movl $0xbad, %edx; 8:"
SNIPPET16(m_call16, CALL_TEXT);
SNIPPET(m_call32, CALL_TEXT);
SNIPPET16(m_far16, "movl %esp, %edi; push %cs; call 1f; jmp 2f; 1: movl %esp, %eax; lret; 2: movl %esp, %ecx; pushl %cs; calll 3f; jmp "
                   "4f; 3: lretl; 4:");
SNIPPET16(m_pop_mem, "movw $0x1111, %ss:0; movl $0xfffe, %esp; movw $0x2222, %ss:0xfffe; popw (%esp); movl %esp, %ecx; movw %ss:0, %dx; mov "
                     "$0x8000, %sp; movl $0x77778888, %eax; pushl %eax; popl 2(%esp); movl %esp, %edi; movl %ss:0x8002, %esi");
SNIPPET16(m_leave, "movl $0x12347000, %ebp; movl $0xcafe5555, %ss:0x7000; movl $0xabcd8000, %esp; leavew; movl %esp, %eax; movl "
                   "%ebp, %ebx; movl $0x12347000, %ebp; leavel; movl %esp, %ecx; movl %ebp, %edx; movl $0x8000, %esp");
SNIPPET16(m_enter, "movl $0x99998000, %esp; movl $0x55557000, %ebp; movw $0x7777, %ss:0x6ffe; movw $0x6666, %ss:0x6ffc; enterw $6, $3; movl "
                   "%esp, %eax; movl %ebp, %ebx; movl %ss:0x7ffa, %ecx; movw %ss:0x7ff8, %dx; mov %bp, %sp; pop %bp; movl $0x8000, %esp");
SNIPPET16(m_enter32, "movl $0x99998000, %esp; movl $0x55557000, %ebp; movl $0x77777777, %ss:0x6ffc; enterl $8, $2; movl %esp, %eax; movl "
                     "%ebp, %ebx; movl %ss:0x7ff8, %ecx; movl %ss:0x7ff4, %edx; movl %ss:0x7ffc, %esi; movl $0x8000, %esp");
SNIPPET16(m_wrap, "movl $0x00050002, %esp; m_wrap_1: pushl $0x11223344; movl %esp, %eax; popl %ebx; movl %esp, %ecx; movl $0x8000, %esp");
LABEL(m_wrap_1);

static struct context on_stack(const void *code, size_t bytes, uint16_t cs, uint16_t ss, uint32_t esp)
{
    struct context c = prot16_new(cs & 3);

    code_place(code, bytes, 0);
    c.cs = cs;
    c.ss = ss;
    c.esp = c.edx = esp; /* IRET to an outer level with a 16-bit stack leaves the upper half: code loads it from EDX */
    context_run(&c);
    return c;
}
#define ON_STACK(name, cs, ss, esp) on_stack(name, (size_t)(name##_end - name), cs, ss, esp)
#define ON_STACK32(name, cs, ss, esp) on_stack(name, (size_t)(name##_done - name + 3), cs, ss, esp)

static void widths(const char *name, struct context *c, uint32_t esp, uint32_t size)
{
    check_done(name, c);
    check("no_mismatch_on_the_way", c->edx != 0xbad);
    check_eq(name, c->esp, esp);
    check_eq(name, c->eax, esp - size);
}

static void stacks(void)
{
    struct context c;
    static const struct {
        const char *name;
        uint16_t cs, ss;
        bool is32;
        uint32_t esp;
    } combos[] = {
        { "code16_stack16_ring0", SEL_CODE16, SEL_STACK16, false, 0xabcd8000 },
        { "code16_stack32_ring0", SEL_CODE16, SEL_STACK32, false, 0x00018000 },
        { "code32_stack16_ring0", SEL_CODE32, SEL_STACK16, true, 0xabcd8000 },
        { "code32_stack32_ring0", SEL_CODE32, SEL_STACK32, true, 0x00018000 },
        { "code16_stack16_ring3", SEL_UCODE16, SEL_USTACK16, false, 0xabcd8000 },
        { "code16_stack32_ring3", SEL_UCODE16, SEL_USTACK32, false, 0x00018000 },
        { "code32_stack16_ring3", SEL_UCODE32, SEL_USTACK16, true, 0xabcd8000 },
        { "code32_stack32_ring3", SEL_UCODE32, SEL_USTACK32, true, 0x00018000 },
    };

    for (size_t i = 0; i < sizeof combos / sizeof *combos; i++) {
        uint16_t cs = combos[i].cs, ss = combos[i].ss;
        uint32_t esp = combos[i].esp;

        c = combos[i].is32 ? ON_STACK32(m_stack32, cs, ss, esp) : ON_STACK(m_stack16, cs, ss, esp);
        widths(combos[i].name, &c, esp, 6);
        check_eq("pushed_and_popped", c.ebx ^ c.ecx, 0x56789abc ^ 0x1234);
        c = combos[i].is32 ? ON_STACK32(m_call32, cs, ss, esp) : ON_STACK(m_call16, cs, ss, esp);
        widths(combos[i].name, &c, esp, combos[i].is32 ? 4 : 2);
    }
    c = ON_STACK(m_far16, SEL_CODE16, SEL_STACK16, 0xabcd8000);
    check_done("far_returns", &c);
    check_eq("far_returns_sp", c.esp, 0xabcd8000);
    check_eq("far_return_16", c.ecx, 0xabcd8000);
    c = ON_STACK(m_pop_mem, SEL_CODE16, SEL_STACK16, 0x8000);
    check_done("pop_to_the_stack", &c);
    check_eq("pop_to_esp_after_the_increment_wrapped", c.edx, 0x2222);
    check_eq("pop_to_esp_esp", c.ecx, 0);
    check_eq("pop_to_esp_plus_2", c.esi, 0x77778888);
    c = ON_STACK(m_leave, SEL_CODE16, SEL_STACK16, 0x8000);
    check_done("leave", &c);
    check_eq("leavew_esp", c.eax, 0xabcd7002);
    check_eq("leavew_ebp", c.ebx, 0x12345555);
    check_eq("leavel_esp", c.ecx, 0xabcd7004);
    check_eq("leavel_ebp", c.edx, 0xcafe5555);
    c = ON_STACK(m_enter, SEL_CODE16, SEL_STACK16, 0x8000);
    check_done("enterw_nested", &c);
    check_eq("enterw_nested_esp", c.eax, 0x99997ff2);
    check_eq("enterw_nested_ebp", c.ebx, 0x55557ffe);
    check_eq("enterw_nested_display", c.ecx, 0x77776666);
    check_eq("enterw_nested_frame", c.edx, 0x7ffe);
    c = ON_STACK(m_enter32, SEL_CODE16, SEL_STACK16, 0x8000);
    check_done("enterl_nested", &c);
    check_eq("enterl_nested_esp", c.eax, 0x99997fec);
    check_eq("enterl_nested_pushes_ebp", c.esi, 0x55557000);
    check_eq("enterl_nested_display", c.ecx, 0x77777777);
    check_eq("enterl_nested_frame", c.edx & 0xffff, 0x7ffc);
    check_eq("enterl_nested_ebp", c.ebx & 0xffff, 0x7ffc);
    c = ON_STACK(m_wrap, SEL_UCODE16, SEL_USTACK16, 0x8000);
    check_fault("dword_push_across_the_top", &c, V_SS, 0);
    check_eq("dword_push_across_the_top_eip", c.eip, OFS(m_wrap_1, m_wrap));
    check_eq("dword_push_across_the_top_esp", c.esp, 0x00050002);
}

/* ---- EIP ---------------------------------------------------------------------------------------------------- */

/* At offset 18000h of a 32-bit segment; lands at 8xxxh when the operand size is 16 bits. */
SNIPPET(m_cut_jmp, ".byte 0x66, 0xe9; .word 0xfc");
SNIPPET(m_cut_short, ".byte 0x66, 0xeb, 0x7d");
SNIPPET(m_cut_jcc, "xor %ecx, %ecx; .byte 0x66, 0x0f, 0x84; .word 0xf9");
SNIPPET(m_cut_loop, "mov $2, %ecx; .byte 0x66, 0xe2, 0x78");
SNIPPET(m_cut_reg, "mov $0x12348100, %eax; .byte 0x66, 0xff, 0xe0");
SNIPPET(m_cut_ret, "pushl $0x12348100; .byte 0x66, 0xc3");
SNIPPET(m_cut_call, ".byte 0x66, 0xe8; .word 0xfc");
SNIPPET(m_land, "mov %esp, %esi; movzwl %ss:(%esi), %edx");
/* 16-bit code beyond 64 KiB of a large segment */
SNIPPET16(m_beyond, "mov $1, %ax; inc %ax; jcxz 1f; 1: nop");
SNIPPET16(m_beyond_on, "mov $1, %ax; .byte 0x66, 0xe9; .long 2; ud2; inc %ax; .byte 0x66, 0xe8; .long 2; ud2; popl %ebx");
SNIPPET16(m_small, "m_small_1: .byte 0xe9; .word 0x1000");
SNIPPET16(m_small_call, "m_small_call_1: call . + 0x1003");
SNIPPET16(m_small_ret, "push $0x1000; m_small_ret_1: ret");
SNIPPET16(m_small_far, "m_small_far_1: ljmp $0x60, $0x1000");
LABEL(m_small_1);
LABEL(m_small_call_1);
LABEL(m_small_ret_1);
LABEL(m_small_far_1);

static struct context cut(const void *code, size_t bytes, uint32_t land)
{
    struct context c = prot16_new(0);

    code_place(code, bytes, 0x18000);
    code_place(m_land, (size_t)(m_land_done - m_land + 3), land);
    c.cs = SEL_CODE32;
    c.ss = SEL_STACK16;
    c.eip = 0x18000;
    context_run(&c);
    return c;
}

static void cuts(const char *name, const struct context *c, uint32_t land, uint32_t esp)
{
    check_done(name, c);
    check_eq(name, c->eip, land + (uint32_t)(m_land_done - m_land) + 2);
    check_eq(name, c->esp, esp);
}

static void eip(void)
{
    struct context c;

#define CUT(name, land, esp)                                                                                 \
    c = cut(name, (size_t)(name##_done - name + 3), land);                                                   \
    cuts(#name, &c, land, esp);
    CUT(m_cut_jmp, 0x8100, STACK_TOP)
    CUT(m_cut_short, 0x8080, STACK_TOP)
    CUT(m_cut_jcc, 0x8100, STACK_TOP)
    CUT(m_cut_loop, 0x8080, STACK_TOP)
    check_eq("loop_by_ecx", c.ecx, 1);
    CUT(m_cut_reg, 0x8100, STACK_TOP)
    CUT(m_cut_ret, 0x8100, STACK_TOP - 2)
    CUT(m_cut_call, 0x8100, STACK_TOP - 2)
    check_eq("call_pushes_16_bits", c.edx, 0x8004);

    c = prot16_new(0);
    PLACE(m_beyond, 0x18000);
    code_place(m_land, 0, 0);
    c.cs = SEL_BIG16;
    c.eip = 0x18000;
    c.ecx = 1;
    context_run(&c);
    check_done("code16_beyond_64K", &c);
    check_eq("code16_beyond_64K_eip", c.eip, 0x18000 + DONE(m_beyond) + 2);
    check_eq("code16_beyond_64K_ax", c.eax, 2);
    PLACE(m_beyond, 0x8000);
    PLACE(m_beyond, 0x18000);
    c = prot16_new(0);
    c.cs = SEL_BIG16;
    c.eip = 0x18000;
    context_run(&c);
    check_eq("code16_jcxz_cuts_eip", c.eip, 0x8000 + DONE(m_beyond) + 2);
    PLACE(m_beyond_on, 0x18000);
    c = prot16_new(0);
    c.cs = SEL_BIG16;
    c.eip = 0x18000;
    context_run(&c);
    check_done("code16_beyond_64K_near_32", &c);
    check_eq("code16_beyond_64K_near_32_ax", c.eax, 2);
    check_eq("code16_beyond_64K_call_pushes", c.ebx, 0x18000 + DONE(m_beyond_on) - 4);
    /* crossing 64 KiB in sequence */
    PLACE(m_beyond, 0xfffd);
    c = prot16_new(0);
    c.cs = SEL_BIG16;
    c.eip = 0xfffd;
    c.ecx = 1;
    context_run(&c);
    check_done("code16_runs_across_64K", &c);
    check_eq("code16_runs_across_64K_eip", c.eip, 0xfffd + DONE(m_beyond) + 2);

    guest_gdt[0x60 >> 3] = guest_gdt[SEL_SMALL >> 3];
#define BEYOND(name)                                                                                         \
    c = prot16_new(0);                                                                                       \
    PLACE(name, 0);                                                                                          \
    c.cs = SEL_SMALL;                                                                                        \
    context_run(&c);                                                                                         \
    check_fault(#name, &c, V_GP, 0);                                                                         \
    check_eq(#name, c.eip, OFS(name##_1, name));
    poke(CODE_AT + 0x1000, 0xf47ecd);
    poke(CODE_AT + 0x1003, 0xf47ecd);
    BEYOND(m_small)
    BEYOND(m_small_call)
    check_eq("call_beyond_esp", c.esp, STACK_TOP);
    BEYOND(m_small_ret)
    check_eq("ret_beyond_esp", c.esp, STACK_TOP - 2);
    BEYOND(m_small_far)
}

/* ---- operands --------------------------------------------------------------------------------------------------- */

SNIPPET16(m_seg, "movl $-1, %eax; mov %ds, %ax; movl $-1, %ebx; movl %ds, %ebx; movl $-1, 0x40; mov %ds, 0x40; movl 0x40, %ecx; movl "
                 "$0xffff01b0, %edx; movl %edx, %es; mov %es, %si");
SNIPPET16(m_pointers, "movl $0xdddd1234, %esi; les 0x50, %si; movl %esi, %eax; lesl 0x54, %edi; lfs 0x50, %bx; lgsl 0x54, %ecx; lss 0x5a, "
                      "%sp; movl %esp, %edx; mov %fs, %bp");
SNIPPET16(m_extend, "movl $0x80ff, %eax; movzbw %al, %bx; movsbl %al, %ecx; movzwl %ax, %edx; movswl %ax, %esi; movl $-1, %edi; movzbw "
                    "%ah, %di; cwtl; movl %eax, %ebp");
SNIPPET16(m_prefix, "movl $0x11112222, %eax; addw $0x1111, %ax; addl $0x11110000, %eax; movl $0x10, %ebx; movl %eax, 0x60; addr32 movl 0x50(%ebx), "
                    "%ecx; xor %edx, %edx; movw $0x10, %si; mov $2, %dx; .byte 0x66, 0x67, 0x8b, 0x14, 0xb5, 0x20, 0, 0, 0");
SNIPPET16(m_table, "xor %si, %si; mov $3, %cx; 1: mov %si, %bx; shl $1, %bx; jmp *%cs:(9f - m_table)(%bx); 2: add $1, %ax; jmp 5f; 3: add "
                   "$0x10, %ax; jmp 5f; 4: add $0x100, %ax; 5: inc %si; loop 1b; jmp 8f; 9: .word 2b - m_table, 3b - m_table, 4b - "
                   "m_table; 8:");
SNIPPET16(m_xlat, "mov $0xfffffff0, %ebx; mov $0x20, %al; xlat; mov %al, %cl; movl $0x70, %ebx; xor %al, %al; addr32 xlat");

static void operands(void)
{
    struct context c = PROT16(m_seg, 0);

    check_done("segment_moves", &c);
    check_eq("mov_ds_to_ax", c.eax, 0xffff0000u | SEL_DATA16);
    check_eq("mov_ds_to_ebx", c.ebx, SEL_DATA16);
    check_eq("mov_ds_to_memory", c.ecx, 0xffff0000u | SEL_DATA16);
    check_eq("mov_edx_to_es", c.esi & 0xffff, SEL_DATA16);
    poke(DATA_AT + 0x50, (uint32_t)SEL_DATA16 << 16 | 0x4321);
    poke(DATA_AT + 0x54, 0x87654321);
    poke16(DATA_AT + 0x58, SEL_DATA16);
    poke(DATA_AT + 0x5a, (uint32_t)SEL_STACK16 << 16 | 0x6000);
    c = prot16_new(0);
    c.esp = 0x98760000 + STACK_TOP;
    PLACE(m_pointers, 0);
    context_run(&c);
    check_done("far_pointers", &c);
    check_eq("les_16", c.eax, 0xdddd4321);
    check_eq("les_32", c.edi, 0x87654321);
    check_eq("lfs_16", c.ebx, 0x4321);
    check_eq("lgs_32", c.ecx, 0x87654321);
    check_eq("lss_16", c.edx, 0x98766000);
    check_eq("lss_16_esp", c.esp, 0x98766000);
    check_eq("lfs_selector", c.ebp, SEL_DATA16);
    c = PROT16(m_extend, 3);
    check_done("extensions", &c);
    check_eq("movzbw", c.ebx, 0xff);
    check_eq("movsbl", c.ecx, 0xffffffff);
    check_eq("movzwl", c.edx, 0x80ff);
    check_eq("movswl", c.esi, 0xffff80ff);
    check_eq("movzbw_keeps_the_upper_half", c.edi, 0xffff0080);
    check_eq("cwde", c.ebp, 0xffff80ff);
    poke(DATA_AT + 0x60, 0);
    c = PROT16(m_prefix, 3);
    check_done("prefixes", &c);
    check_eq("addw_and_addl", c.eax, 0x22223333);
    check_eq("addr32", c.ecx, 0x22223333);
    check_eq("addr32_scaled", c.edx, 0x22223333);
    c = PROT16(m_table, 3);
    check_done("jump_table", &c);
    check_eq("jump_table_ax", c.eax, 0x111);
    poke8(DATA_AT + 0x10, 0x99);
    poke8(DATA_AT + 0x70, 0x77);
    c = PROT16(m_xlat, 3);
    check_done("xlat", &c);
    check_eq("xlat_wraps", c.ecx & 0xff, 0x99);
    check_eq("xlat_addr32", c.eax & 0xff, 0x77);
}

/* ---- stack switches ------------------------------------------------------------------------------------------------- */

struct tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};
static struct tss16 tss16;
static volatile uint32_t inner_esp __attribute__((used)), inner_ss __attribute__((used));
static volatile uint16_t inner_words[16] __attribute__((used));
/* In a 32-bit code segment whose base it is; reached through 16-bit gates or 32-bit ones, on a 16-bit stack. */
extern uint8_t inner_handler[];
__asm__(".text\n.globl inner_handler\n"
        "inner_handler: mov $0x10, %ebx; mov %ebx, %ds; mov %ebx, %es; mov %esp, inner_esp; mov %ss, inner_ss\n"
        "movzwl %sp, %esi; mov $inner_words, %edi; mov $16, %ecx\n"
        "1: movw %ss:(%esi), %ax; stosw; add $2, %esi; loop 1b\n"
        "ljmp $8, $leave_code\n");
void guest_enter(struct context *c);
SNIPPET16(m_int42, "movl $0xabcd7000, %esp; m_int42_1: int $0x42");
LABEL(m_int42_1);
SNIPPET16(m_gate, "movl $0xabcd7000, %esp; pushw $0x1111; pushw $0x2222; lcall $0x73, $0; hlt");

static void inner_stacks(void)
{
    struct context c = prot16_new(3);
    uint32_t esp0 = guest_tss.esp0, ss0 = guest_tss.ss0;

    guest_gdt[SEL_HANDLER >> 3] = DESC(address_of(inner_handler), 0xffff, 0x9b, 4);
    guest_gdt[SEL_INNER >> 3] = DESC(EXTRA_AT, 0xffff, 0x93, 0);
    guest_gdt[0x70 >> 3] = GATE(SEL_HANDLER, 0, 0xe402) & ~0ull;
    guest_gdt[0x70 >> 3] = (uint64_t)SEL_HANDLER << 16 | (uint64_t)0xe402 << 32; /* 16-bit call gate, DPL 3, 2 words */
    idt_set(0x42, GATE(SEL_HANDLER, 0, 0xe6));
    c.esp = 0xabcd7000;
    c.eflags |= EFL_CF;
    guest_tss.ss0 = SEL_INNER;
    guest_tss.esp0 = 0x56784000;
    PLACE(m_int42, 0);
    guest_enter(&c);
    check_eq("int_16_to_a_16_bit_stack_sp", inner_esp & 0xffff, 0x4000 - 10);
    check_eq("int_16_to_a_16_bit_stack_keeps_the_upper_half", inner_esp >> 16, 0xabcd);
    check_eq("int_16_frame_ip", inner_words[0], OFS(m_int42_1, m_int42) + 2);
    check_eq("int_16_frame_cs", inner_words[1], SEL_UCODE16);
    check_eq("int_16_frame_flags", inner_words[2], 3);
    check_eq("int_16_frame_sp", inner_words[3], 0x7000);
    check_eq("int_16_frame_ss", inner_words[4], SEL_USTACK16);
    idt_set(0x42, GATE(SEL_HANDLER, 0, 0xee));
    guest_enter(&c);
    check_eq("int_32_to_a_16_bit_stack_sp", inner_esp & 0xffff, 0x4000 - 20);
    check_eq("int_32_frame_esp", inner_words[6] | (uint32_t)inner_words[7] << 16, 0xabcd7000);
    PLACE(m_gate, 0);
    guest_enter(&c);
    check_eq("call_gate_16_sp", inner_esp & 0xffff, 0x4000 - 12);
    check_eq("call_gate_16_ip", inner_words[0], OFS(m_gate_done, m_gate) - 1);
    check_eq("call_gate_16_cs", inner_words[1], SEL_UCODE16);
    check_eq("call_gate_16_first_parameter", inner_words[2], 0x2222);
    check_eq("call_gate_16_second_parameter", inner_words[3], 0x1111);
    check_eq("call_gate_16_sp_image", inner_words[4], 0x7000 - 4);
    check_eq("call_gate_16_ss_image", inner_words[5], SEL_USTACK16);

    /* a 16-bit TSS: SP0 alone */
    guest_tss.ss0 = ss0;
    guest_tss.esp0 = esp0;
    tss16 = (struct tss16){ .sp0 = 0x3000, .ss0 = SEL_INNER };
    guest_gdt[SEL_TSS16 >> 3] = DESC(address_of(&tss16), sizeof tss16 - 1, 0x81, 0);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS16) : "memory");
    check_eq("ltr_marks_a_16_bit_tss_busy", (uint32_t)(guest_gdt[SEL_TSS16 >> 3] >> 40) & 0x1f, 3);
    idt_set(0x42, GATE(SEL_HANDLER, 0, 0xe6));
    PLACE(m_int42, 0);
    guest_enter(&c);
    check_eq("tss16_sp", inner_esp & 0xffff, 0x3000 - 10);
    check_eq("tss16_ss", inner_ss & 0xffff, SEL_INNER);
    tss16.ss0 = SEL_KDATA; /* 32 bits: the upper half is 0 */
    guest_gdt[SEL_KDATA >> 3] = DESC(0, 0xfffff, 0x93, 0xc);
    guest_enter(&c);
    check_eq("tss16_to_a_32_bit_stack", inner_esp, 0x3000 - 10);
    guest_gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), 0x67, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
    idt_set(0x42, 0);
}

/* ---- returning to 16 bits ----------------------------------------------------------------------------------------- */

SNIPPET16(m_iret16, "movl $0xabcd7000, %esp; pushfw; push %cs; push $(1f - m_iret16); iretw; 1: movl %esp, %eax; pushfl; pushl %cs; pushl "
                    "$(2f - m_iret16); iretl; 2: movl %esp, %ebx; pushl $0x3002; push %cs; push $(3f - m_iret16); iretw; 3: movl "
                    "%esp, %ecx; pushf; pop %dx; mov $0x7000, %sp");
/* From ring 0 to a 16-bit stack at ring 3 and the upper half of ESP. */
SNIPPET(m_outer, "pushl $0x1c3; pushl $0x99995000; pushl $0x1bb; pushl $0; lret");

static void returns(void)
{
    struct context c = PROT16(m_iret16, 0);

    check_done("irets", &c);
    check_eq("iretw_esp", c.eax, 0xabcd7000);
    check_eq("iretl_esp", c.ebx, 0xabcd7000);
    check_eq("iretw_leaves_what_is_above", c.ecx, 0xabcd6ffe + 0);
    PLACE(m_extend, 0);
    c = run_at(0, m_outer);
    check_done("far_return_to_a_16_bit_stack", &c);
    check_eq("far_return_to_a_16_bit_stack_cs", c.cs, SEL_UCODE16);
    check_eq("far_return_to_a_16_bit_stack_sp", c.esp & 0xffff, 0x5000);
}

void guest_main(void)
{
    descriptors();
    addresses();
    stacks();
    eip();
    operands();
    inner_stacks();
    returns();
}
