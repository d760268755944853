/*
 * Segment loads, far transfers, interrupts and exceptions at random: descriptors, gates, selectors, stacks
 * and flags are drawn for each case, one instruction is run at a random ring, and everything that it left
 * (registers, selectors, the exception, both descriptor tables) goes into a hash. The hashes of a hundred
 * cases each stand below; Bochs gives the same.
 *
 * All that a hash depends on lies at addresses of its own, and no expression draws twice, so that no compiler
 * changes it. Kept out of it:
 * accessed bits, which a processor may set before it finds a fault, and RF in the frame of a double fault.
 * Not drawn: TSSs and task gates (tasks.c), and code segments of a few bytes, whose limit Bochs forgets for
 * code that it has run before.
 *
 *     from=2     on the command line: print cases 2000 to 2999 one by one, for comparing two machines
 */
#include "../lib/guest.h"

#define FIRST  12u /* of the drawn descriptors of the GDT */
#define DRAWN  16u
#define CODE1  (SEL_FREE + 0)
#define DATA1  (SEL_FREE + 8)
#define CODE2  (SEL_FREE + 16)
#define DATA2  (SEL_FREE + 24)
#define TI     4u

/* Fixed addresses. */
#define LAND    (SCRATCH + 0x00000u) /* NOPs and INT 7Fh: where transfers lead to   */
#define CODE    (SCRATCH + 0x01000u) /* the instruction under test                   */
#define OPERAND (SCRATCH + 0x02000u)
#define STACK0  (SCRATCH + 0x04000u) /* tops of the stacks of rings 0 to 2           */
#define STACK1  (SCRATCH + 0x06000u)
#define STACK2  (SCRATCH + 0x08000u)
#define STACK   (SCRATCH + 0x0a000u) /* of the code under test                       */
#define OUTER   (SCRATCH + 0x0c000u)
#define DATA    (SCRATCH + 0x10000u)

#define LOW     0x0u /* the first 64 KiB hold nothing that is needed */

#define BLOCKS 40u
#define BLOCK  100u

SNIPPET(r_land, "nop; nop; nop");
SNIPPET(r_lcall, "lcall *(%esi)");
SNIPPET(r_ljmp, "ljmp *(%esi)");
SNIPPET(r_lcallw, "lcallw *(%esi)");
SNIPPET(r_ljmpw, "ljmpw *(%esi)");
SNIPPET(r_lret, "push 12(%esi); push 8(%esi); push 4(%esi); push (%esi); lret");
SNIPPET(r_lret8, "push 12(%esi); push 8(%esi); push %eax; push %edx; push 4(%esi); push (%esi); lret $8");
SNIPPET(r_lretw, "pushw 12(%esi); pushw 8(%esi); pushw 4(%esi); pushw (%esi); lretw");
SNIPPET(r_iret, "push 12(%esi); push 8(%esi); push 16(%esi); push 4(%esi); push (%esi); iret");
SNIPPET(r_iretw, "pushw 12(%esi); pushw 8(%esi); pushw 16(%esi); pushw 4(%esi); pushw (%esi); iretw");
SNIPPET(r_int, "int $0x60");
SNIPPET(r_ud, "ud2");
SNIPPET(r_de, "xor %ecx, %ecx; div %ecx");
SNIPPET(r_gp, "mov $0xfff0, %edx; mov %edx, %es");
SNIPPET(r_ds, "mov %eax, %ds");
SNIPPET(r_es, "mov %eax, %es; mov %es:(%ebx), %ecx");
SNIPPET(r_fs, "mov %eax, %fs; mov %ecx, %fs:(%ebx)");
SNIPPET(r_gs, "mov %eax, %gs; mov %gs:(%ebx), %cx");
SNIPPET(r_ss, "mov %ss, %edx; mov %eax, %ss; mov %edx, %ss");
SNIPPET(r_push, "mov %ss, %edx; mov %esp, %edi; mov %eax, %ss; mov %ebx, %esp; push %ecx; mov %edx, %ss; mov %edi, %esp");
SNIPPET(r_lar, "lar %eax, %ecx; pushf; pop %edx");
SNIPPET(r_lsl, "lsl %eax, %ecx; pushf; pop %edx");
SNIPPET(r_verr, "verr %ax; pushf; pop %edx");
SNIPPET(r_verw, "verw %ax; pushf; pop %edx");
SNIPPET(r_les, "les (%esi), %ecx");
SNIPPET(r_lldt, "lldt %ax");
SNIPPET(r_stos, "mov %eax, %es; mov $1, %ecx; mov %ebx, %edi; rep stosl");

#define OP(name) { #name, r_##name, r_##name##_done }
static const struct op {
    const char *name;
    const uint8_t *code, *done;
} ops[] = {
    OP(lcall), OP(ljmp), OP(lcallw), OP(ljmpw), OP(lret), OP(lret8), OP(lretw), OP(iret), OP(iretw), OP(int),
    OP(ud),    OP(de),   OP(gp),     OP(ds),    OP(es),   OP(fs),    OP(gs),    OP(ss),   OP(push),  OP(lar),
    OP(lsl),   OP(verr), OP(verw),   OP(les),   OP(lldt), OP(stos),
    /* more of what has the most branches */
    OP(lcall), OP(ljmp), OP(lret),   OP(iret),  OP(int),  OP(ud),
};

/* ---- drawing --------------------------------------------------------------------------------- */

static uint32_t state;

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static uint32_t below(uint32_t n)
{
    return (draw() >> 8) % n;
}

/* Privilege and P of an access byte; P is 0 once in n. */
static uint32_t draw_access(uint32_t n)
{
    uint32_t dpl = below(4);

    return dpl << 5 | (below(n) ? 0x80 : 0);
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

static uint32_t draw_selector(void)
{
    uint32_t rpl = below(4);

    switch (below(16)) {
    case 0:
        return rpl; /* null */
    case 1:
        return draw() & 0xffff;
    case 2:
        return below(16) * 8 | TI | rpl;
    case 3:
        return SEL_KCODE | rpl;
    case 4:
        return one_in(2) ? SEL_UCODE : SEL_UDATA;
    case 5:
        return SEL_KDATA | rpl;
    default:
        return (FIRST + below(DRAWN)) * 8 | rpl;
    }
}

static uint64_t draw_code_segment(uint32_t access)
{
    uint32_t base = 0, limit = 0xfffff, flags = 0xc;

    if (one_in(6)) {
        base = LAND;
        limit = 0xfff;
        flags = 4;
    }
    if (one_in(6))
        flags &= 8; /* 16 bits */
    return DESC(base, limit, access, flags);
}

static uint64_t draw_data_segment(uint32_t access)
{
    uint32_t limit = below(0x2000);

    switch (below(5)) {
    case 0:
        return DESC(DATA, limit, access, 4);
    case 1:
        return DESC(DATA, limit, access, 0);
    case 2:
        return DESC(DATA, limit % 3, access, 0xc);
    default:
        return DESC(0, access & 4 ? 0 : 0xfffff, access, 0xc);
    }
}

static uint64_t draw_gate(void)
{
    static const uint8_t types[] = { 0xc, 0xc, 0xc, 4, 0xe, 0xf, 6, 7 };
    uint32_t type = types[below(8)], ofs = LAND + below(3), sel = draw_selector();
    uint32_t access = type | draw_access(10), params = below(32);

    if (!(type & 8))
        ofs &= 0xffff;
    return GATE(sel, ofs, access) | (uint64_t)((type & 3) == 0 ? params : 0) << 32;
}

static uint64_t draw_descriptor(void)
{
    static const uint8_t system[] = { 0, 2, 2, 2, 8, 10, 13, 6, 14, 15, 4, 12 };
    uint32_t kind = below(10), type = below(8), access = 0x10 | draw_access(10);

    if (kind < 3)
        return draw_code_segment(access | type | 8);
    if (kind < 6)
        return draw_data_segment(access | type);
    if (kind < 9)
        return draw_gate();
    type = system[below(12)];
    kind = below(0x100);
    return DESC(DATA, kind, type | (access & 0xe0u), 0);
}

static uint64_t draw_idt_gate(void)
{
    uint32_t sel = draw_selector(), ofs = LAND + below(2), type = 6 + below(2), wide = below(2), access = draw_access(8);

    if (wide)
        type |= 8;
    else
        ofs &= 0xffff;
    return GATE(sel, ofs, type | access);
}

/* ---- one case ------------------------------------------------------------------------------------ */

static uint32_t hash;
static uint64_t plain_idt[256];

static void mix(uint32_t v)
{
    hash = (hash ^ v) * 16777619u;
    hash ^= hash >> 15;
}

static void mix_table(const uint64_t *table, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        bool is_segment = table[i] >> 44 & 1;

        mix((uint32_t)table[i]);
        mix((uint32_t)(table[i] >> 32) & (is_segment ? ~0x100u : ~0u)); /* but the accessed bit */
    }
}

static void draw_tables(void)
{
    uint32_t limit;

    memset(&guest_tss, 0, sizeof guest_tss);
    guest_tss.esp0 = STACK0;
    guest_tss.ss0 = SEL_KDATA;
    guest_tss.io_base = 0x68;
    guest_tss.esp1 = STACK1 - below(3);
    guest_tss.ss1 = one_in(3) ? draw_selector() : DATA1 | 1;
    guest_tss.esp2 = STACK2;
    guest_tss.ss2 = one_in(3) ? draw_selector() : DATA2 | 2;
    if (one_in(3))
        guest_tss.esp1 = below(0x2100);
    for (unsigned i = 0; i < DRAWN; i++)
        guest_gdt[FIRST + i] = draw_descriptor();
    for (unsigned i = 0; i < 16; i++)
        guest_ldt[i] = draw_descriptor();
    limit = one_in(8) ? 0xb + 4 * below(9) : 0x67;
    guest_gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), limit, 0x89, 0);
    limit = below(0x80);
    guest_gdt[SEL_LDT >> 3] = DESC(address_of(guest_ldt), limit, 0x82, 0);
    __asm__ volatile("ltr %w0; lldt %w1" : : "r"(SEL_TSS), "r"(SEL_LDT) : "memory");
    memcpy(guest_idt, plain_idt, sizeof plain_idt);
}

static struct context draw_context(const struct op *op, int ring)
{
    struct context c = context_new(ring ? 3 : 0, (const void *)CODE);
    uint32_t sel = draw_selector(), ss = draw_selector(), ofs = one_in(4) ? below(4) : LAND + below(3), *operand = (uint32_t *)OPERAND;

    if (ring == 1 || ring == 2) {
        c.cs = (ring == 1 ? CODE1 : CODE2) | (uint32_t)ring;
        c.ss = c.ds = c.es = c.fs = c.gs = (ring == 1 ? DATA1 : DATA2) | (uint32_t)ring;
    }
    c.eflags = 2 | (draw() & (EFL_IOPL | EFL_DF | EFL_OF | 0xd5));
    operand[0] = ofs;
    operand[1] = sel;
    if (op->code == r_lcallw || op->code == r_ljmpw)
        operand[0] = (ofs & 0xffff) | sel << 16;
    operand[2] = one_in(3) ? below(0x3000) : OUTER;
    operand[3] = ss;
    operand[4] = 2 | (draw() & (EFL_ID | EFL_AC | EFL_IOPL | EFL_DF | EFL_OF | 0xd5));
    c.esi = OPERAND;
    c.eax = sel;
    c.ebx = one_in(4) ? DATA + below(0x100) : below(0x2200);
    c.ecx = 0x33333333;
    c.edx = 0x44444444;
    c.ebp = 0x55555555;
    c.edi = 0x66666666;
    c.esp = STACK;
    return c;
}

static void mix_context(const struct context *c)
{
    const uint32_t words[] = { c->eax, c->ebx, c->ecx, c->edx, c->esi, c->edi, c->ebp, c->esp, c->ds, c->es, c->fs, c->gs, c->ss,
                               c->cs,  c->eip, c->vector, c->error, c->eflags & ~(c->vector == V_DF ? EFL_RF : 0) };

    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        mix(words[i]);
}

/* Runs case n and mixes it into the hash. */
static void run_case(uint32_t n, bool prints)
{
    const struct op *op;
    struct context c;
    uint64_t gate;
    uint32_t ring;

    state = 0x9e3779b9u * (n + 1) ^ 0x1234567;
    for (int i = 0; i < 8; i++)
        draw();
    draw_tables();
    op = &ops[below(sizeof ops / sizeof ops[0])];
    ring = one_in(3) ? 3 : below(4);
    if (ring == 0 && (op->code == r_ss || op->code == r_push))
        ring = 3; /* ring 0 takes exceptions on the stack that it has */
    gate = draw_idt_gate();
    if (op->code == r_int)
        guest_idt[0x60] = gate;
    if (op->code == r_ud)
        guest_idt[V_UD] = gate;
    if (op->code == r_de)
        guest_idt[V_DE] = gate;
    if (op->code == r_gp)
        guest_idt[V_GP] = gate;
    memcpy((void *)CODE, op->code, (size_t)(op->done - op->code) + 2);
    c = draw_context(op, (int)ring);
    if (prints)
        say("# %u %s ring %u sel %x at %x, ebx %x, gate %x %x, ", n, op->name, ring, c.eax, peek(OPERAND), c.ebx,
            (uint32_t)(gate >> 32), (uint32_t)gate);
    context_run(&c);
    mix_context(&c);
    mix_table(guest_gdt + FIRST, DRAWN);
    mix_table(guest_ldt, 16);
    if (prints)
        say("vector %u error %x at %x:%x stack %x:%x eflags %x ecx %x edx %x, hash %x\n", c.vector, c.error, c.cs, c.eip, c.ss,
            c.esp, c.eflags, c.ecx, c.edx, hash);
}

static const uint32_t expected[BLOCKS] = {
    0x3f74bfe3, 0x84d2cc28, 0xeeab69df, 0x7826ada4, 0xd4c7fba2, 0x7885e6bc, 0xc182973a, 0xbc1132a5,
    0x2b3d37ca, 0x3b811e45, 0x454a0bc7, 0x51b98969, 0xb8e27ab3, 0xeea48f01, 0xa5e02d44, 0x35125656,
    0x8e023c81, 0xfc730792, 0x555bacf3, 0x64d9e485, 0xe402b5d5, 0x59b1eb9d, 0xf40d46b4, 0xb2644324,
    0x7fe51c56, 0x0129303e, 0x49f87001, 0x58b134f5, 0xa511231a, 0x09eeeaa7, 0xca0b30c1, 0x750147b6,
    0x41173ac6, 0xa7ba132c, 0x555bba87, 0x3147fc88, 0x78a597fe, 0x3685a6e2, 0x4d9354b0, 0xb65e3214,
};

/* from=0 to from=3 on the command line: which thousand to print. */
static bool start_given(uint32_t *start)
{
    static const char *const words[] = { "from=0", "from=1", "from=2", "from=3" };

    for (uint32_t i = 0; i < 4; i++)
        if (option_given(words[i])) {
            *start = i * 1000;
            return true;
        }
    return false;
}

void guest_main(void)
{
    static char name[] = "cases_00xx"; /* by the hundred */
    uint32_t start;

    if (option_given("qemu")) /* it runs beyond limits, at rings where it should not be */
        return;
    memset((void *)LOW, 0xcc, 0x10000 - LOW); /* where 16-bit offsets lead: INT3 */
    memcpy((void *)LAND, r_land, 8);
    memcpy(plain_idt, guest_idt, sizeof plain_idt);
    guest_gdt[CODE1 >> 3] = DESC(0, 0xfffff, 0xbb, 0xc);
    guest_gdt[DATA1 >> 3] = DESC(0, 0xfffff, 0xb3, 0xc);
    guest_gdt[CODE2 >> 3] = DESC(0, 0xfffff, 0xdb, 0xc);
    guest_gdt[DATA2 >> 3] = DESC(0, 0xfffff, 0xd3, 0xc);
    if (start_given(&start)) {
        for (uint32_t n = 0; n < 1000; n++) {
            hash = 2166136261u;
            run_case(start + n, true);
        }
        return;
    }
    for (uint32_t b = 0; b < BLOCKS; b++) {
        hash = 2166136261u;
        for (uint32_t n = 0; n < BLOCK; n++)
            run_case(b * BLOCK + n, false);
        name[6] = (char)('0' + b / 10);
        name[7] = (char)('0' + b % 10);
        check_eq(name, hash, expected[b]);
    }
    memcpy(guest_idt, plain_idt, sizeof plain_idt);
}
