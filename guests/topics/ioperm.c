/*
 * Input and output by programs: IOPL against CPL, the I/O permission bitmap bit by bit and
 * for each width, its end, TSSs without one, INS and OUTS, virtual-8086 mode; and what
 * IOPL says about CLI, STI, POPF and IRET.
 *
 * Ref: Intel SDM vol. 1, ch. "Input/Output", I/O Permission Bit Map; vol. 2, under the
 * instructions' names; vol. 3A, "I/O Privilege Level", and ch. "8086 Emulation".
 */
#include "../lib/guest.h"

#define SEL(n) (SEL_FREE + 8 * (n))
#define CODE1  SEL(0)
#define DATA1  SEL(1)
#define CODE2  SEL(2)
#define DATA2  SEL(3)
#define TSS_   SEL(4)
#define PORT   0x240u /* nobody is there */
#define LOW_STACK 0x7000

SNIPPET(p_inb, "inb %dx, %al");
SNIPPET(p_inw, "inw %dx, %ax");
SNIPPET(p_inl, "inl %dx, %eax");
SNIPPET(p_outb, "outb %al, %dx");
SNIPPET(p_outw, "outw %ax, %dx");
SNIPPET(p_outl, "outl %eax, %dx");
SNIPPET(p_insb, "insb");
SNIPPET(p_insw, "insw");
SNIPPET(p_insl, "insl");
SNIPPET(p_outsb, "outsb");
SNIPPET(p_outsw, "outsw");
SNIPPET(p_outsl, "outsl");
SNIPPET(p_rep_insl, "rep insl");
SNIPPET(p_rep_outsw, "rep outsw");
SNIPPET(p_inb_imm, "inb $0x80, %al");
SNIPPET(p_outl_imm, "outl %eax, $0x84");
SNIPPET(p_cli, "cli");
SNIPPET(p_sti, "sti; nop");
SNIPPET(p_popf, "push %eax; popf");
SNIPPET(p_popfw, "pushw %ax; popfw");
SNIPPET(p_pushf, "pushf; pop %eax");
SNIPPET(p_iret, "push %eax; push %cs; push $1f; iret; 1: nop");
SNIPPET(p_vm86, "push $0; push $0; push $0; push $0; push $0x6100; push $0x100; push %eax; push $0x6003; push $3; iret");

/* The TSS, with a bitmap for all ports and the byte behind it. */
static struct {
    struct tss tss;
    uint8_t more[0x2001];
} io __attribute__((aligned(4096)));
#define BITMAP_LIMIT (0x68 + 0x2000)

static uint8_t *bitmap(void)
{
    return (uint8_t *)address_of(&io) + 0x68;
}

static void deny(uint32_t port, bool denied)
{
    uint8_t *at = bitmap() + port / 8, bit = (uint8_t)(1u << port % 8);

    *(volatile uint8_t *)at = denied ? *at | bit : *at & ~bit;
}

static void load_tss(uint32_t limit)
{
    *(volatile uint64_t *)&guest_gdt[TSS_ >> 3] = DESC(address_of(&io), limit, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(TSS_) : "memory");
}

static struct context at(int ring, const void *code, uint32_t port, uint32_t flags)
{
    struct context c = context_new(ring ? 3 : 0, code);

    if (ring == 1 || ring == 2) {
        c.cs = (ring == 1 ? CODE1 : CODE2) | (uint32_t)ring;
        c.ss = c.ds = c.es = c.fs = c.gs = (ring == 1 ? DATA1 : DATA2) | (uint32_t)ring;
    }
    c.edx = port;
    c.esi = c.edi = SCRATCH;
    c.eflags |= flags;
    return c;
}

static struct context use(int ring, const void *code, uint32_t port, uint32_t flags)
{
    struct context c = at(ring, code, port, flags);

    context_run(&c);
    return c;
}

static bool passes(const struct context *c)
{
    return c->vector == VEC_DONE;
}

static bool is_refused(const struct context *c, const void *code)
{
    return c->vector == V_GP && c->error == 0 && c->eip == address_of(code) && c->edi == SCRATCH && c->esi == SCRATCH;
}

static const struct {
    const char *name;
    const void *code;
    unsigned width;
} forms[] = {
    { "inb", p_inb, 1 },   { "inw", p_inw, 2 },   { "inl", p_inl, 4 },   { "outb", p_outb, 1 },
    { "outw", p_outw, 2 }, { "outl", p_outl, 4 }, { "insb", p_insb, 1 }, { "insw", p_insw, 2 },
    { "insl", p_insl, 4 }, { "outsb", p_outsb, 1 }, { "outsw", p_outsw, 2 }, { "outsl", p_outsl, 4 },
};
#define FORMS (sizeof forms / sizeof forms[0])

/* Each of the ports around an access denied in turn, at every place in a byte of the map. */
static void each_bit(void)
{
    for (unsigned i = 0; i < FORMS; i++) {
        uint32_t wrong = 0;

        for (uint32_t port = PORT; port < PORT + 8; port++)
            for (uint32_t denied = PORT - 1; denied < PORT + 12; denied++) {
                bool hits = denied >= port && denied < port + forms[i].width;
                struct context c;

                deny(denied, true);
                c = use(3, forms[i].code, port, 0);
                deny(denied, false);
                if (hits ? !is_refused(&c, forms[i].code) : !passes(&c))
                    wrong++;
            }
        check_eq(forms[i].name, wrong, 0);
    }
    struct context c;
    deny(0x80, true);
    c = use(3, p_inb_imm, 0, 0);
    check_fault("immediate_port_denied", &c, V_GP, 0);
    deny(0x80, false);
    c = use(3, p_inb_imm, 0, 0);
    check_done("immediate_port", &c);
    deny(0x87, true);
    c = use(3, p_outl_imm, 0, 0);
    check_fault("immediate_port_last_of_four_denied", &c, V_GP, 0);
    deny(0x87, false);
    c = use(3, p_outl_imm, 0, 0);
    check_done("immediate_port_of_four", &c);
}

static void end_of_the_map(void)
{
    uint32_t ofs = 0x68 + PORT / 8;
    struct context c;

    load_tss(ofs + 1);
    c = use(3, p_inb, PORT, 0);
    check_done("two_bytes_within_limit", &c);
    c = use(3, p_inb, PORT + 8, 0);
    check_fault("second_byte_beyond_limit", &c, V_GP, 0);
    load_tss(ofs);
    c = use(3, p_inb, PORT, 0);
    check_fault("second_byte_beyond_limit_by_one", &c, V_GP, 0);
    load_tss(ofs - 1);
    c = use(3, p_inb, PORT, 0);
    check_fault("first_byte_beyond_limit", &c, V_GP, 0);
    c = use(3, p_inb, PORT, EFL_IOPL);
    check_done("iopl_needs_no_map", &c);
    load_tss(BITMAP_LIMIT);
    c = use(3, p_inb, 0xffff, 0);
    check_done("last_port", &c);
    load_tss(BITMAP_LIMIT - 1);
    c = use(3, p_inb, 0xffff, 0);
    check_fault("last_port_without_the_byte_behind", &c, V_GP, 0);
    c = use(3, p_inb, 0xfff7, 0);
    check_done("last_port_but_eight", &c);
    load_tss(BITMAP_LIMIT);
    io.tss.io_base = 0x68 + 0x10; /* elsewhere */
    *(volatile uint8_t *)(bitmap() + 0x10 + PORT / 8) = 1;
    c = use(3, p_inb, PORT, 0);
    check_fault("map_elsewhere_denies", &c, V_GP, 0);
    c = use(3, p_inb, PORT + 1, 0);
    check_done("map_elsewhere_allows", &c);
    *(volatile uint8_t *)(bitmap() + 0x10 + PORT / 8) = 0;
    io.tss.io_base = BITMAP_LIMIT + 1;
    c = use(3, p_inb, 0, 0);
    check_fault("map_beyond_limit", &c, V_GP, 0);
    io.tss.io_base = 0xffff;
    c = use(3, p_inb, PORT, 0);
    check_fault("map_at_FFFF", &c, V_GP, 0);
    io.tss.io_base = 0x68;
    load_tss(0x66); /* too short to say where its map is */
    io.tss.io_base = 0;
    c = use(3, p_inb, 0, 0);
    check_fault("tss_too_short", &c, V_GP, 0);
    load_tss(0x67);
    io.tss.io_base = 0x5f; /* the map may lie within the TSS */
    memset((uint8_t *)&io + 0x5f, 0, 2);
    c = use(3, p_inb, 0, 0);
    check_done("map_within_the_tss", &c);
    io.tss.io_base = 0x68;
    load_tss(BITMAP_LIMIT);
}

static void no_map(void)
{
    static uint16_t tss16[22];
    struct context c;

    tss16[1] = LOW_STACK;
    tss16[2] = SEL_KDATA;
    *(volatile uint64_t *)&guest_gdt[TSS_ >> 3] = DESC(address_of(tss16), 0xffff, 0x81, 0);
    __asm__ volatile("ltr %w0" : : "r"(TSS_) : "memory");
    c = use(3, p_inb, PORT, 0);
    check_fault("tss16_has_no_map", &c, V_GP, 0);
    c = use(3, p_inb, PORT, EFL_IOPL);
    check_done("tss16_iopl", &c);
    load_tss(BITMAP_LIMIT);
}

static void privilege_levels(void)
{
    uint32_t wrong_io = 0, wrong_string = 0, wrong_cli = 0, wrong_sti = 0, wrong_popf = 0, wrong_popfw = 0,
             wrong_iret = 0, wrong_pushf = 0;

    memset(bitmap(), 0xff, 0x2001);
    for (int ring = 0; ring < 4; ring++)
        for (int iopl = 0; iopl < 4; iopl++)
            for (int on = 0; on < 2; on++) {
                uint32_t was = (uint32_t)iopl << 12 | (on ? EFL_IF : 0), want;
                bool allowed = ring <= iopl;
                struct context c = use(ring, p_inw, PORT, was);

                wrong_io += allowed ? !passes(&c) : !is_refused(&c, p_inw);
                c = use(ring, p_outsb, PORT, was);
                wrong_string += allowed ? !passes(&c) : !is_refused(&c, p_outsb);
                c = use(ring, p_cli, PORT, was);
                wrong_cli += allowed ? !passes(&c) || (c.eflags & EFL_IF) : !is_refused(&c, p_cli);
                c = use(ring, p_sti, PORT, was);
                wrong_sti += allowed ? !passes(&c) || !(c.eflags & EFL_IF) : !is_refused(&c, p_sti);
                c = use(ring, p_pushf, PORT, was);
                wrong_pushf += (c.eax & (EFL_IF | EFL_IOPL)) != was;
                for (uint32_t iopl_new = 0; iopl_new < 4; iopl_new++) {
                    uint32_t written = iopl_new << 12 | (on ? 0 : EFL_IF) | 2;

                    want = (allowed ? written & EFL_IF : was & EFL_IF) | (ring ? was & EFL_IOPL : written & EFL_IOPL);
                    c = at(ring, p_popf, PORT, was);
                    c.eax = written;
                    context_run(&c);
                    wrong_popf += !passes(&c) || (c.eflags & (EFL_IF | EFL_IOPL)) != want;
                    c = at(ring, p_popfw, PORT, was);
                    c.eax = written;
                    context_run(&c);
                    wrong_popfw += !passes(&c) || (c.eflags & (EFL_IF | EFL_IOPL)) != want;
                    c = at(ring, p_iret, PORT, was);
                    c.eax = written;
                    context_run(&c);
                    wrong_iret += !passes(&c) || (c.eflags & (EFL_IF | EFL_IOPL)) != want;
                }
            }
    check_eq("in_by_cpl_and_iopl", wrong_io, 0);
    check_eq("outs_by_cpl_and_iopl", wrong_string, 0);
    check_eq("cli_by_cpl_and_iopl", wrong_cli, 0);
    check_eq("sti_by_cpl_and_iopl", wrong_sti, 0);
    check_eq("pushf_shows_IF_and_IOPL", wrong_pushf, 0);
    check_eq("popf_by_cpl_and_iopl", wrong_popf, 0);
    check_eq("popfw_by_cpl_and_iopl", wrong_popfw, 0);
    check_eq("iret_by_cpl_and_iopl", wrong_iret, 0);
    memset(bitmap(), 0, 0x2001);
}

static void strings(void)
{
    struct context c = at(3, p_rep_insl, PORT, 0);

    c.ecx = 3;
    memset((void *)SCRATCH, 0, 16);
    context_run(&c);
    check_done("rep_insl", &c);
    check_eq("rep_insl_edi", c.edi, SCRATCH + 12);
    check_eq("rep_insl_ecx", c.ecx, 0);
    check_eq("rep_insl_stored", peek(SCRATCH + 8), 0xffffffff);
    check_eq("rep_insl_stored_no_more", peek(SCRATCH + 12), 0);
    c = at(3, p_rep_outsw, PORT, EFL_DF);
    c.ecx = 3;
    context_run(&c);
    check_eq("rep_outsw_down_esi", c.vector == VEC_DONE ? c.esi : 0, SCRATCH - 6);
    deny(PORT + 1, true);
    c = at(3, p_rep_insl, PORT, 0);
    c.ecx = 3;
    context_run(&c);
    check("rep_insl_denied", is_refused(&c, p_rep_insl) && c.ecx == 3);
    c = at(3, p_rep_insl, PORT, 0);
    context_run(&c);
    check("rep_insl_of_none_denied", is_refused(&c, p_rep_insl) && c.ecx == 0);
    deny(PORT + 1, false);
    c = at(3, p_rep_insl, PORT, 0);
    context_run(&c);
    check_eq("rep_insl_of_none", c.vector == VEC_DONE ? c.edi : 0, SCRATCH);
}

static void with_paging(void)
{
    uint32_t page = address_of(&io) + 0x1000; /* of ports C C0h and up */
    uint32_t port = (0x1000 - 0x68) * 8;
    struct context c;

    paging_on();
    /* permission comes before the operand's page */
    pte_set(SCRATCH, 0);
    deny(PORT, true);
    c = use(3, p_insb, PORT, 0);
    check_fault("permission_before_page_of_ins", &c, V_GP, 0);
    c = use(3, p_outsb, PORT, 0);
    check_fault("permission_before_page_of_outs", &c, V_GP, 0);
    deny(PORT, false);
    c = use(3, p_insb, PORT, 0);
    check_fault("ins_page", &c, V_PF, 6);
    check_eq("ins_page_edi", c.edi, SCRATCH);
    c = use(3, p_outsb, PORT, 0);
    check_fault("outs_page", &c, V_PF, 4);
    c = at(3, p_rep_insl, PORT, 0);
    c.edi = SCRATCH - 8;
    c.ecx = 5;
    context_run(&c);
    check_fault("rep_ins_page", &c, V_PF, 6);
    check_eq("rep_ins_page_edi", c.edi, SCRATCH);
    check_eq("rep_ins_page_ecx", c.ecx, 3);
    pte_set(SCRATCH, SCRATCH | PTE_P | PTE_W | PTE_U);
    /* the map is read as a supervisor would */
    pte_set(page, 0);
    c = use(3, p_inb, port, 0);
    check_fault("absent_map", &c, V_PF, 0);
    check_eq("absent_map_cr2", c.cr2, page);
    check_eq("absent_map_eip", c.eip, address_of(p_inb));
    c = use(3, p_inb, port - 8, 0); /* a word that begins in the page before */
    check_fault("absent_second_byte", &c, V_PF, 0);
    check_eq("absent_second_byte_cr2", c.cr2, page);
    pte_set(page, page | PTE_P);
    c = use(3, p_inb, port, 0);
    check_done("supervisor_map", &c);
    pte_set(page, page | PTE_P | PTE_W | PTE_U);
    paging_off();
}

/* Whatever IOPL is, the map decides. */
static void vm86(void)
{
    static const uint8_t in_int[] = { 0xec, 0xcd, 0x7f };
    struct context c;

    memcpy((void *)0x60033, in_int, sizeof in_int);
    for (uint32_t iopl = 0; iopl < 4; iopl += 3) {
        const char *name = iopl ? "vm86_iopl3" : "vm86_iopl0";

        deny(PORT, true);
        c = context_new(0, p_vm86);
        c.eax = EFL_VM | 2 | iopl << 12;
        c.edx = PORT;
        context_run(&c);
        check_fault(name, &c, V_GP, 0);
        check_eq(name, c.cs << 16 | c.eip, 0x60030003);
        deny(PORT, false);
        c = context_new(0, p_vm86);
        c.eax = EFL_VM | 2 | iopl << 12;
        c.edx = PORT;
        context_run(&c);
        check_eq(name, c.vector, iopl ? VEC_DONE : V_GP); /* INT n heeds IOPL */
        check_eq(name, c.cs << 16 | c.eip, iopl ? 0x60030006 : 0x60030004);
    }
}

void guest_main(void)
{
    guest_gdt[CODE1 >> 3] = DESC(0, 0xfffff, 0xbb, 0xc);
    guest_gdt[DATA1 >> 3] = DESC(0, 0xfffff, 0xb3, 0xc);
    guest_gdt[CODE2 >> 3] = DESC(0, 0xfffff, 0xdb, 0xc);
    guest_gdt[DATA2 >> 3] = DESC(0, 0xfffff, 0xd3, 0xc);
    io.tss = guest_tss;
    memset(bitmap(), 0, 0x2001);
    load_tss(BITMAP_LIMIT);
    each_bit();
    end_of_the_map();
    no_map();
    privilege_levels();
    strings();
    with_paging();
    vm86();
}
