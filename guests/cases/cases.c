/*
 * A guest that runs generated cases in all modes and prints what became of each, so that machines can be
 * compared case by case. The cases come as the initrd; see cases.h for the memory they live in.
 *
 * A line for a case, all numbers in hexadecimal:
 *
 *   =NUMBER VECTOR ERROR CS EIP EFLAGS SS ESP EAX ECX EDX EBX EBP ESI EDI ES DS FS GS CR0 CR4 CR2
 *           FCW FSW FTW MXCSR FPU-HASH : ADDRESS=DWORD ... for what changed in REGION, then a semicolon
 *
 * The frame that the exception pushed is told by the registers, so its memory is not.
 */
#include "../lib/guest.h"
#include "cases.h"

struct launch {
    uint32_t edi, esi, ebp, ebx, edx, ecx, eax, esp, ss, eip, cs, eflags, ds, es, fs, gs;
    uint32_t vector, cr0; /* `caught` only */
    uint32_t error, pad;
};
extern struct launch launch, caught;
extern uint8_t cases_vectors[], real_start[], real_end[], real_launch[], real_caught[], real_vectors[], real_gdtr[];
void enter_protected(int by_iret);
void enter_real(void);
void double_fault(void);

#define COM1       0x3f8
#define REAL_AT    0x1000u
#define SEL_REAL_C 0x110u
#define SEL_REAL_D 0x118u
#define SEL_DF     0x120u
#define CR0_GUEST  0x33u /* PE MP ET NE */
#define CR0_PG     0x80000000u
#define CR4_GUEST  0x600u /* OSFXSR OSXMMEXCPT */
#define GATE16_LOW 0x40u /* interrupt gates of 16 bits: 40h to 4Fh */

static uint64_t gdt[64], idt[256], ldt[16];
static struct tss df_tss, tss2;
static uint8_t ring0_stack[4096] __attribute__((aligned(16))), df_stack[1024] __attribute__((aligned(16)));
static uint8_t fpu[512] __attribute__((aligned(16)));
static bool verbose;      /* print registers instead of only a hash of them */
static uint8_t *pristine; /* what REGION holds before a case, pokes included */

/* ---- output: faster than say() ------------------------------------------------------------- */

static void put(char c)
{
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, (uint8_t)c);
}

static void put_number(uint32_t v)
{
    int shift = 28;

    while (shift && !(v >> shift))
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        put("0123456789abcdef"[(v >> shift) & 15]);
}

static void put_field(uint32_t v)
{
    put(' ');
    put_number(v);
}

/* ---- tables -------------------------------------------------------------------------------- */

static uint64_t gate(uint32_t sel, uint32_t ofs, uint32_t access, uint32_t words)
{
    return GATE(sel, ofs, access) | (uint64_t)words << 32;
}

static void make_idt(void)
{
    for (unsigned v = 0; v < 256; v++) {
        bool by_user = v == V_BP || v == V_OF || (v >= 0x20 && (v & 1));
        uint32_t type = v >= GATE16_LOW && v < GATE16_LOW + 16 ? 0x86 : 0x8e;

        idt[v] = GATE(SEL_KCODE, address_of(cases_vectors) + 16 * v, type | (by_user ? 0x60 : 0));
    }
    /* A 16-bit gate has no upper half of an offset: a stub below 64 KiB, in a code segment of the guest's base. */
    for (unsigned v = GATE16_LOW; v < GATE16_LOW + 16; v++)
        idt[v] = GATE(0x130, 16 * v, 0x86 | ((v & 1) ? 0x60 : 0));
    idt[V_DF] = (uint64_t)SEL_DF << 16 | 0x850000000000ull;
}

/* Afresh for each case: it may set busy and accessed bits. */
static void make_gdt(void)
{
    memset(gdt, 0, sizeof gdt);
    memcpy(gdt, guest_gdt, 8 * sizeof gdt[0]);
#define DEFINE(sel, base, limit, access, flags) gdt[(sel) >> 3] = DESC(base, limit, access, flags);
    CASES_GDT(DEFINE)
#undef DEFINE
#define DEFINE(sel, base, limit, access, flags) ldt[(sel) >> 3] = DESC(base, limit, access, flags);
    CASES_LDT(DEFINE)
#undef DEFINE
    gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), sizeof guest_tss, 0x89, 0);
    gdt[SEL_LDT >> 3] = DESC(address_of(ldt), sizeof ldt - 1, 0x82, 0);
    gdt[SEL_GATE32 >> 3] = gate(0x50, GATE_OFFSET, 0xec, 0);
    gdt[SEL_GATE16 >> 3] = gate(0x40, GATE_OFFSET, 0xe4, 2);
    gdt[SEL_GATE0 >> 3] = gate(0x50, GATE_OFFSET, 0x8c, 0);
    gdt[SEL_TSS2 >> 3] = DESC(address_of(&tss2), 0x67, 0xe9, 0);
    gdt[SEL_INT_GATE >> 3] = GATE(SEL_KCODE, 0, 0x8e);
    gdt[SEL_REAL_C >> 3] = DESC(0, 0xffff, 0x9b, 0);
    gdt[SEL_REAL_D >> 3] = DESC(0, 0xffff, 0x93, 0);
    gdt[SEL_DF >> 3] = DESC(address_of(&df_tss), 0x67, 0x89, 0);
    gdt[0x130 >> 3] = DESC(address_of(cases_vectors), 0xffff, 0x9b, 4);
}

static void make_tasks(void)
{
    memset(&guest_tss, 0, sizeof guest_tss);
    guest_tss.esp0 = address_of(ring0_stack) + sizeof ring0_stack;
    guest_tss.ss0 = SEL_KDATA;
    guest_tss.io_base = 0x68;
    memset(guest_tss.io_bitmap, 0x5a, sizeof guest_tss.io_bitmap);
    guest_tss.io_bitmap[127] = 0xff;
    df_tss = (struct tss){ .cr3 = PD_AT, .eip = address_of((void *)double_fault), .eflags = 2,
                           .esp = address_of(df_stack) + sizeof df_stack, .cs = SEL_KCODE, .ss = SEL_KDATA,
                           .ds = SEL_KDATA, .es = SEL_KDATA, .io_base = 0x68 };
    tss2 = (struct tss){ .cr3 = PD_AT, .eip = GATE_OFFSET, .eflags = 2, .esp = 0x1c000, .esp0 = guest_tss.esp0,
                         .ss0 = SEL_KDATA, .cs = 0x50, .ss = 0x70, .ds = 0x70, .es = 0x78, .ldt = SEL_LDT,
                         .io_base = 0x68 };
}

static void make_pages(void)
{
    uint32_t *pd = (uint32_t *)PD_AT, *pt = (uint32_t *)PT_AT;

    memset(pd, 0, 4096);
    memset(pt, 0, 4096);
    pd[0] = PT_AT | PTE_P | PTE_W | PTE_U;
    for (uint32_t i = 256; i < 1024; i++)
        pt[i] = i << 12 | PTE_P | PTE_W;
    for (uint32_t i = 0; i < REGION_BYTES >> 12; i++) {
        uint32_t rights = i == 0x1d ? PTE_P | PTE_W : i == 0x1e ? 0 : i == 0x1f ? PTE_P | PTE_U : PTE_P | PTE_W | PTE_U;

        pt[(REGION >> 12) + i] = (REGION + (i << 12)) | rights;
    }
}

static void make_real(void)
{
    uint32_t *ivt = (uint32_t *)0;
    struct table_register *gdtr = (struct table_register *)(REAL_AT + (uint32_t)(real_gdtr - real_start));

    __asm__("" : "+r"(ivt)); /* vector 0 is at address 0 */
    memcpy((void *)REAL_AT, real_start, (size_t)(real_end - real_start));
    gdtr->limit = sizeof gdt - 1;
    gdtr->base = address_of(gdt);
    for (unsigned v = 0; v < 256; v++)
        ivt[v] = (REAL_AT >> 4) << 16 | ((uint32_t)(real_vectors - real_start) + 16 * v);
}

static void load_tables(void)
{
    struct table_register gdtr = { sizeof gdt - 1, address_of(gdt) }, idtr = { sizeof idt - 1, address_of(idt) };

    __asm__ volatile("lgdt %0\n\tlidt %1\n\tltr %w2\n\tlldt %w3"
                     :
                     : "m"(gdtr), "m"(idtr), "r"(SEL_TSS), "r"(SEL_LDT)
                     : "memory");
}

/* ---- the frame of the exception --------------------------------------------------------------- */

static uint64_t descriptor(uint32_t sel)
{
    uint64_t *table = sel & 4 ? ldt : gdt;

    return table[(sel & 0x1f8) >> 3];
}

static uint32_t stack_base, stack_mask, stack_at; /* of the frame that is read */

static void stack_of_frame(bool in_real)
{
    uint64_t d = descriptor(caught.ss);

    stack_base = in_real ? caught.ss << 4 : (uint32_t)(d >> 16 & 0xffffff) | (uint32_t)(d >> 56) << 24;
    stack_mask = !in_real && (d & 1ull << 54) ? 0xffffffffu : 0xffff;
    stack_at = caught.esp;
}

/* The next `bytes` of the frame; in REGION they become what they were. */
static uint32_t pop_frame(unsigned bytes)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < bytes; i++) {
        uint8_t *p = (uint8_t *)(stack_base + (stack_at & stack_mask));

        v |= (uint32_t)*p << (8 * i);
        if ((uint32_t)p - REGION < REGION_BYTES)
            *p = pristine[(uint32_t)p - REGION];
        stack_at = (stack_at & ~stack_mask) | ((stack_at + 1) & stack_mask);
    }
    return v;
}

static bool has_error_code(uint32_t v)
{
    return v == V_DF || (v >= V_TS && v <= V_PF) || v == V_AC;
}

/* Complete `caught` from the frame. */
static void read_frame(bool in_real)
{
    unsigned size = in_real || (caught.vector >= GATE16_LOW && caught.vector < GATE16_LOW + 16) ? 2 : 4;

    stack_of_frame(in_real);
    caught.error = !in_real && has_error_code(caught.vector) ? pop_frame(4) : 0;
    caught.eip = pop_frame(size);
    caught.cs = pop_frame(size) & 0xffff;
    caught.eflags = pop_frame(size);
    if (!in_real && ((caught.eflags & EFL_VM) || (caught.cs & 3))) {
        caught.esp = pop_frame(size);
        caught.ss = pop_frame(size) & 0xffff;
        if (caught.eflags & EFL_VM) {
            caught.es = pop_frame(4);
            caught.ds = pop_frame(4);
            caught.fs = pop_frame(4);
            caught.gs = pop_frame(4);
        }
    } else {
        caught.esp = stack_at;
    }
}

/* #DF came by a task gate: the case's registers are in the TSS. */
static void read_task(void)
{
    const struct tss *t = df_tss.link == SEL_TSS2 ? &tss2 : &guest_tss;

    caught = (struct launch){ .edi = t->edi, .esi = t->esi, .ebp = t->ebp, .ebx = t->ebx, .edx = t->edx, .ecx = t->ecx,
                              .eax = t->eax, .esp = t->esp, .ss = t->ss, .eip = t->eip, .cs = t->cs,
                              .eflags = t->eflags, .ds = t->ds, .es = t->es, .fs = t->fs, .gs = t->gs,
                              .vector = V_DF, .cr0 = caught.cr0 };
}

/* ---- a case ------------------------------------------------------------------------------------ */

/* Swap the case's bytes with those of memory: put them there, or, called once more, take them away. */
static void swap(uint32_t at, uint8_t *bytes, unsigned n)
{
    uint8_t *p = pristine + (at - REGION);

    if (at - REGION > REGION_BYTES - n)
        return;
    for (unsigned i = 0; i < n; i++) {
        uint8_t keep = p[i];

        *(uint8_t *)(at + i) = p[i] = bytes[i];
        bytes[i] = keep;
    }
}

static void run_protected(const struct modes_case *c)
{
    bool by_iret = (c->cs & 3) || c->mode == MODE_V86;
    uint32_t cr0 = CR0_GUEST | CR0_PG | c->cr0;

    set_cr4(CR4_GUEST | c->cr4);
    set_cr3(PD_AT);
    set_cr0(cr0); /* the initrd is not mapped now */
    enter_protected(by_iret);
    if (caught.vector == V_DF)
        read_task();
    else
        read_frame(false);
}

static void run_real(const struct modes_case *c)
{
    uint32_t l = REAL_AT + (uint32_t)(real_launch - real_start), r = REAL_AT + (uint32_t)(real_caught - real_start);

    set_cr4(CR4_GUEST | c->cr4);
    set_cr0(CR0_GUEST | c->cr0);
    memcpy((void *)l, &launch, sizeof launch);
    enter_real();
    memcpy(&caught, (void *)r, sizeof caught);
    read_frame(true);
}

static void run_case(const struct modes_case *c)
{
    launch = (struct launch){ .eax = c->gpr[0], .ecx = c->gpr[1], .edx = c->gpr[2], .ebx = c->gpr[3], .esp = c->gpr[4],
                              .ebp = c->gpr[5], .esi = c->gpr[6], .edi = c->gpr[7], .eip = c->eip, .eflags = c->eflags,
                              .cs = c->cs, .ss = c->ss, .ds = c->ds, .es = c->es, .fs = c->fs, .gs = c->gs };
    memset(&caught, 0, sizeof caught);
    if (c->mode == MODE_V86)
        launch.eflags |= EFL_VM;
    make_gdt();
    make_tasks();
    load_tables();
    __asm__ volatile("mov %0, %%cr2" : : "r"(0));
    /* FNINIT: some processors leave the last-instruction pointers out of FXRSTOR */
    __asm__ volatile("clts\n\tfninit\n\tfxrstor %0" : : "m"(fpu));
    if (c->mode == MODE_REAL)
        run_real(c);
    else
        run_protected(c);
}

static uint32_t hash(uint32_t h, const uint8_t *p, unsigned n)
{
    while (n--)
        h = (h ^ *p++) * 16777619u;
    return h;
}

static void report_fpu(void)
{
    uint32_t h = 2166136261u;

    set_cr4(CR4_GUEST);
    __asm__ volatile("fxsave %0" : "=m"(fpu));
    for (unsigned i = 0; i < 8; i++) {
        h = hash(h, fpu + 32 + 16 * i, 10);
        h = hash(h, fpu + 160 + 16 * i, 16);
    }
    put_field(*(uint16_t *)fpu);
    put_field(*(uint16_t *)(fpu + 2));
    put_field(fpu[4]);
    put_field(*(uint32_t *)(fpu + 24));
    put_field(h);
    if (verbose)
        for (unsigned i = 0; i < 8; i++) {
            put_field(*(uint16_t *)(fpu + 40 + 16 * i));
            put_field(*(uint32_t *)(fpu + 36 + 16 * i));
            put_field(*(uint32_t *)(fpu + 32 + 16 * i));
            for (unsigned k = 4; k-- > 0;)
                put_field(*(uint32_t *)(fpu + 160 + 16 * i + 4 * k));
        }
}

/* What differs between REGION and `pristine`; REGION is put right. */
static void report_memory(void)
{
    uint32_t *p = (uint32_t *)REGION, left = REGION_BYTES / 4, *q = (uint32_t *)pristine;
    unsigned shown = 0;

    put(' ');
    put(':');
    while (left) {
        __asm__ volatile("cmp %0, %0\n\trepe cmpsl" : "+c"(left), "+S"(p), "+D"(q) : : "memory", "cc");
        if (p[-1] == q[-1])
            break;
        if (shown++ < 40) {
            put_field((uint32_t)&p[-1]);
            put('=');
            put_number(p[-1]);
        }
        p[-1] = q[-1];
    }
}

static void report(const struct modes_case *c)
{
    uint32_t cr2;

    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    put('=');
    put_number(c->number);
    put_field(caught.vector);
    put_field(caught.error);
    put_field(caught.cs);
    put_field(caught.eip);
    put_field(caught.eflags & ~c->undefined);
    put_field(caught.ss & 0xffff);
    put_field(caught.esp);
    put_field(caught.eax);
    put_field(caught.ecx);
    put_field(caught.edx);
    put_field(caught.ebx);
    put_field(caught.ebp);
    put_field(caught.esi);
    put_field(caught.edi);
    put_field(caught.es & 0xffff);
    put_field(caught.ds & 0xffff);
    put_field(caught.fs & 0xffff);
    put_field(caught.gs & 0xffff);
    put_field(caught.cr0);
    put_field(get_cr4());
    put_field(cr2);
    report_fpu();
    report_memory();
    put(' ');
    put(';');
    put('\n');
    while (!(inb(COM1 + 5) & 0x40)) /* all of it has left: the next case may end the machine */
        ;
}

extern uint32_t boot_params;

void guest_main(void)
{
    uint8_t *file = *(uint8_t *const *)(boot_params + 0x218);
    const struct cases_header *header = (const struct cases_header *)file;
    struct modes_case *cases;

    verbose = option_given("verbose");
    if (!file || header->magic != CASES_MAGIC)
        give_up("no cases: the initrd is not a file of them");
    pristine = file + sizeof *header;
    cases = (struct modes_case *)(pristine + REGION_BYTES);
    memcpy((void *)REGION, pristine, REGION_BYTES);
    set_cr4(CR4_GUEST); /* before the first FXRSTOR */
    make_idt();
    make_pages();
    make_real();
    for (uint32_t i = 0; i < header->count; i++) {
        struct modes_case *c = &cases[i];

        memcpy(fpu, header->fpu[c->fpu_image & 3], sizeof fpu);
        swap(c->stack_at, c->stack, sizeof c->stack);
        swap(c->mem_at, c->mem, sizeof c->mem);
        swap(c->code_at, c->code, c->code_len);
        run_case(c);
        report(c);
        swap(c->code_at, c->code, c->code_len);
        swap(c->mem_at, c->mem, sizeof c->mem);
        swap(c->stack_at, c->stack, sizeof c->stack);
    }
}
