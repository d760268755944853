/*
 * Page walks: every combination of rights in both levels, with WP on and off, from both
 * rings, for reading, writing and both at once, and in PAE tables for fetching as well,
 * against the manual's rules; reserved bits by what CPUID shows; PSE-36 and physical
 * addresses where there is no memory; A and D of what the processor accesses by itself;
 * accesses in two pages of which the second is missing; self-mapped tables.
 *
 * Ref: Intel SDM vol. 3A, ch. "Paging".
 */
#include "../lib/guest.h"

#define VA    0x40000000u /* a directory entry of its own, and in the middle of a large page */
#define PAGE  (SCRATCH + 0x5000u)
#define NEXT  (SCRATCH + 0x9000u) /* the page behind it, elsewhere in memory */
#define RWU   (PTE_P | PTE_W | PTE_U)
#define I_BIT 16u

#define CR0_WP  0x10000u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u

SNIPPET(w_read, "mov (%eax), %ecx");
SNIPPET(w_write, "mov %ecx, (%eax)");
SNIPPET(w_rmw, "addl $1, (%eax)");
SNIPPET(w_exec, "call *%eax");

static uint32_t table[2048] __attribute__((aligned(4096)));
static uint64_t pae_pointers[4] __attribute__((aligned(32)));
static uint64_t pae_directory[4][512] __attribute__((aligned(4096)));
static uint64_t pae_table[512] __attribute__((aligned(4096)));

static uint32_t cpuid(uint32_t leaf, char reg)
{
    uint32_t a = leaf, b, c = 0, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return reg == 'a' ? a : d;
}

#define HAS_PSE   (cpuid(1, 'd') & 1u << 3)
#define HAS_PAE   (cpuid(1, 'd') & 1u << 6)
#define HAS_PAT   (cpuid(1, 'd') & 1u << 16)
#define HAS_PSE36 (cpuid(1, 'd') & 1u << 17)
#define HAS_MMX   (cpuid(1, 'd') & 1u << 23)
#define HAS_FXSR  (cpuid(1, 'd') & 1u << 24)
#define HAS_SSE   (cpuid(1, 'd') & 1u << 25)

static unsigned maxphyaddr(void)
{
    if (cpuid(0x80000000, 'a') >= 0x80000008)
        return cpuid(0x80000008, 'a') & 0xff;
    return HAS_PAE || HAS_PSE36 ? 36 : 32;
}

/* Where fetches go there is a RET, which stores have overwritten. */
static void put_ret(void)
{
    poke8(PAGE + 0x48c, 0xc3);
    poke8((PAGE & 0xffe00000u) + 0x10, 0xc3);
}

static struct context access(int ring, const void *code, uint32_t va)
{
    struct context c = context_new(ring, code);

    c.eax = va;
    c.ecx = 0x77;
    if (code == w_exec)
        put_ret();
    context_run(&c);
    return c;
}

static void flush(void)
{
    set_cr3(get_cr3());
}

static void report(const char *what, uint32_t *count, uint32_t a, uint32_t b, const struct context *c, uint32_t want)
{
    if ((*count)++ < 3)
        say("%s: entries %x %x: vector %u error %x cr2 %x, expected error %x\n", what, a, b, c->vector, c->error, c->cr2,
            want);
}

/* ---- rights --------------------------------------------------------------------------------- */

enum { READ, WRITE, RMW, EXEC };
static const void *const codes[] = { w_read, w_write, w_rmw, w_exec };

/* ~0 when the access is allowed, else the error code; `rights` of all levels ANDed. */
static uint32_t judge(bool present, uint32_t rights, bool no_execute, int kind, int ring, bool wp, bool has_nx)
{
    bool is_write = kind == WRITE || kind == RMW;
    uint32_t error = (is_write ? 2u : 0) | (ring ? 4u : 0) | (kind == EXEC && has_nx ? I_BIT : 0);

    if (!present)
        return error;
    if (ring && !(rights & PTE_U))
        return error | 1;
    if (is_write && !(rights & PTE_W) && (ring || wp))
        return error | 1;
    if (kind == EXEC && no_execute)
        return error | 1;
    return ~0u;
}

static bool is_as_judged(const struct context *c, uint32_t want, uint32_t va)
{
    if (want == ~0u)
        return c->vector == VEC_DONE;
    return c->vector == V_PF && c->error == want && c->cr2 == va;
}

static void rights_of_two_levels(void)
{
    uint32_t *pde = &page_directory[VA >> 22], wrong = 0, wrong_bits = 0, wrong_large = 0;

    for (unsigned wp = 0; wp < 2; wp++) {
        set_cr0(wp ? get_cr0() | CR0_WP : get_cr0() & ~CR0_WP);
        for (uint32_t d = 0; d < 8; d++)
            for (uint32_t t = 0; t < 8; t++)
                for (int kind = READ; kind <= EXEC; kind++)
                    for (int ring = 0; ring < 4; ring += 3) {
                        uint32_t want = judge(d & t & 1, d & t, false, kind, ring, wp, false), bits;
                        struct context c;

                        *pde = address_of(table) | d;
                        table[0] = PAGE | t;
                        flush();
                        c = access(ring, codes[kind], VA + 0x123 * 4);
                        if (!is_as_judged(&c, want, VA + 0x123 * 4))
                            report("rights", &wrong, *pde, table[0], &c, want);
                        bits = want != ~0u ? 0 : kind == WRITE || kind == RMW ? PTE_A | PTE_D : PTE_A;
                        if (table[0] != (PAGE | t | bits) || (want == ~0u && *pde != (address_of(table) | d | PTE_A)))
                            report("A and D", &wrong_bits, *pde, table[0], &c, want);
                        if (t || !HAS_PSE)
                            continue;
                        /* the same rights in the entry of a large page */
                        set_cr4(get_cr4() | CR4_PSE);
                        *pde = (PAGE & 0xffc00000u) | PTE_PS | d;
                        flush();
                        want = judge(d & 1, d, false, kind, ring, wp, false);
                        c = access(ring, codes[kind], VA + (PAGE & 0x3fffff) + 0x48c);
                        bits = want != ~0u ? 0 : kind == WRITE || kind == RMW ? PTE_A | PTE_D : PTE_A;
                        if (!is_as_judged(&c, want, VA + (PAGE & 0x3fffff) + 0x48c) ||
                            *pde != ((PAGE & 0xffc00000u) | PTE_PS | d | bits))
                            report("large", &wrong_large, *pde, 0, &c, want);
                        set_cr4(get_cr4() & ~CR4_PSE);
                    }
    }
    set_cr0(get_cr0() & ~CR0_WP);
    check_eq("rights_of_two_levels", wrong, 0);
    check_eq("accessed_and_dirty_of_two_levels", wrong_bits, 0);
    check_eq("rights_of_large_pages", wrong_large, 0);
    *pde = 0;
    flush();
}

/* ---- 4 MiB pages --------------------------------------------------------------------------------- */

static void reserved_of_large_pages(void)
{
    uint32_t *pde = &page_directory[VA >> 22];
    /* address bits 32 and up begin at bit 13, behind the PAT bit */
    uint32_t top = HAS_PSE36 ? (maxphyaddr() < 40 ? maxphyaddr() : 40) - 19 : HAS_PAT ? 13 : 12;
    uint32_t wrong = 0;

    set_cr4(get_cr4() | CR4_PSE);
    for (uint32_t bit = 12; bit < 22; bit++)
        for (int ring = 0; ring < 4; ring += 3)
            for (int kind = READ; kind <= EXEC; kind++) {
                uint32_t want = 9 | (ring ? 4u : 0) | (kind == WRITE || kind == RMW ? 2u : 0);
                struct context c;

                if ((bit < top && (bit > 12 || HAS_PAT)) || (kind == EXEC && option_given("qemu"))) /* it would run what is not there */
                    continue;
                *pde = (PAGE & 0xffc00000u) | PTE_PS | RWU | 1u << bit;
                flush();
                c = access(ring, codes[kind], VA + 0x10);
                if (!is_as_judged(&c, want, VA + 0x10))
                    report("reserved", &wrong, *pde, bit, &c, want);
                /* reserved before rights */
                *pde = (PAGE & 0xffc00000u) | PTE_PS | PTE_P | 1u << bit;
                flush();
                c = access(ring, codes[kind], VA + 0x10);
                if (!is_as_judged(&c, want, VA + 0x10))
                    report("reserved and forbidden", &wrong, *pde, bit, &c, want);
                /* an absent entry has none */
                *pde &= ~PTE_P;
                flush();
                c = access(ring, codes[kind], VA + 0x10);
                if (!is_as_judged(&c, want & ~9u, VA + 0x10))
                    report("reserved and absent", &wrong, *pde, bit, &c, want & ~9u);
            }
    check_eq("reserved_bits_of_large_pages", wrong, 0);
    if (HAS_PAT) {
        *pde = (PAGE & 0xffc00000u) | PTE_PS | RWU | 1u << 12;
        flush();
        struct context c = access(3, w_read, VA + 0x10);
        check_done("pat_of_a_large_page", &c);
    }
    /* bit 7 of an entry of a table */
    *pde = address_of(table) | RWU;
    table[0] = PAGE | RWU | 0x80;
    flush();
    struct context c = access(3, w_read, VA + 0x10);
    if (HAS_PAT)
        check_done("pat_of_a_page", &c);
    else
        check_fault("reserved_bit_7_of_a_page", &c, V_PF, 13);
    set_cr4(get_cr4() & ~CR4_PSE);
    flush();
    c = access(3, w_read, VA + 0x10);
    check_done("bit_7_of_a_page_without_PSE", &c);
    set_cr4(get_cr4() | CR4_PSE);
    if (HAS_PSE36) { /* at 4 GiB and 64 GiB - 4 MiB, where there is no memory */
        for (uint32_t high = 1; high < 16; high += 14) {
            uint32_t keep = peek(0x345678);
            struct context c;

            *pde = PTE_PS | RWU | high << 13 | (high == 15 ? 0xffc00000u : 0);
            flush();
            c = access(3, w_write, VA + 0x345678);
            check_done("pse36_store_beyond_memory", &c);
            c = access(3, w_read, VA + 0x345678);
            check_eq("pse36_read_beyond_memory", c.ecx, 0xffffffff);
            check_eq("pse36_store_went_nowhere", peek(0x345678), keep);
            check_eq("pse36_sets_D", *pde & (PTE_A | PTE_D), PTE_A | PTE_D);
        }
    }
    /* with CR4.PSE clear the bit means nothing: the entry leads to a table */
    set_cr4(get_cr4() & ~CR4_PSE);
    table[0] = PAGE | RWU;
    poke(PAGE + 0x20, 0x1234abcd);
    *pde = address_of(table) | PTE_PS | RWU;
    flush();
    c = access(3, w_read, VA + 0x20);
    check_eq("without_PSE_it_is_a_table", c.ecx, 0x1234abcd);
    set_cr4(get_cr4() | CR4_PSE);
    set_cr4(get_cr4() & ~CR4_PSE);
    c = access(3, w_read, VA + 0x20);
    check_eq("PSE_toggled", c.ecx, 0x1234abcd);
    *pde = 0;
    flush();
}

/* ---- where there is no memory ------------------------------------------------------------------------ */

static void beyond_memory(void)
{
    uint32_t *pde = &page_directory[VA >> 22];
    struct context c;

    *pde = address_of(table) | RWU;
    table[0] = 0x40000000 | RWU;
    flush();
    c = access(3, w_write, VA + 8);
    check_done("store_beyond_memory", &c);
    c = access(3, w_read, VA + 8);
    check_eq("read_beyond_memory", c.ecx, 0xffffffff);
    check_eq("beyond_memory_D", table[0] & (PTE_A | PTE_D), PTE_A | PTE_D);
    c = access(3, w_rmw, VA + 8);
    check_done("rmw_beyond_memory", &c);
    c = access(3, w_read, VA + 8);
    check_eq("rmw_beyond_memory_is_lost", c.ecx, 0xffffffff);
    /* a table there is all ones: present, writable, to the last page below 4 GiB */
    *pde = 0x40000000 | RWU;
    flush();
    c = access(3, w_read, VA + 8);
    check_done("table_beyond_memory", &c);
    check_eq("table_beyond_memory_A", *pde & PTE_A, PTE_A);
    *pde = 0;
    flush();
}

/* ---- tables that map themselves ----------------------------------------------------------------------- */

static void self_mapped(void)
{
    uint32_t slot = VA >> 22, self = VA | slot << 12; /* the directory, as data */

    page_directory[slot] = address_of(page_directory) | RWU;
    flush();
    check_eq("self_map_shows_itself", peek(self + 4 * slot) & ~0xfffu, address_of(page_directory));
    check_eq("self_map_has_D_of_the_leaf", peek(self + 4 * slot) & PTE_A, PTE_A);
    /* change a mapping through it */
    poke(PAGE, 0xaaaa5555);
    poke(NEXT, 0x5555aaaa);
    uint32_t pte = VA + (PAGE >> 12) * 4; /* the entry that maps PAGE */
    check_eq("self_map_shows_entries", peek(pte) & ~0xfffu, PAGE);
    poke(pte, NEXT | RWU);
    invlpg(PAGE);
    check_eq("self_map_store_counts", peek(PAGE), 0x5555aaaa);
    poke(pte, PAGE | RWU);
    invlpg(PAGE);
    check_eq("self_map_store_counts_again", peek(PAGE), 0xaaaa5555);
    page_directory[slot] = 0;
    flush();
}

/* ---- A and D by the processor's own accesses --------------------------------------------------------------- */

SNIPPET(w_load_ds, "mov %eax, %ds");
SNIPPET(w_int, "int $0x7f");

static void implicit_accesses(void)
{
    static const uint32_t bits = PTE_A | PTE_D;
    uint32_t gdt = SCRATCH + 0x20000, idt = SCRATCH + 0x21000, stack = SCRATCH + 0x22000, tss = SCRATCH + 0x23000;
    struct table_register there = { sizeof guest_gdt - 1, gdt }, here = { sizeof guest_gdt - 1, address_of(guest_gdt) },
                          idt_there = { sizeof guest_idt - 1, idt },
                          idt_here = { sizeof guest_idt - 1, address_of(guest_idt) };
    struct tss *t = (struct tss *)tss;
    struct context c;

    memcpy((void *)gdt, guest_gdt, sizeof guest_gdt);
    memcpy((void *)idt, guest_idt, sizeof guest_idt);
    *t = guest_tss;
    t->esp0 = stack + 0x1000;
    ((uint64_t *)gdt)[SEL_FREE >> 3] = DESC(0, 0xfffff, 0xf2, 0xc);
    ((uint64_t *)gdt)[(SEL_FREE + 8) >> 3] = DESC(tss, 0x67, 0x89, 0);
    __asm__ volatile("lgdt %0; lidt %1" : : "m"(there), "m"(idt_there));
    __asm__ volatile("ltr %w0" : : "r"(SEL_FREE + 8) : "memory");
    for (uint32_t page = gdt; page <= tss; page += 0x1000)
        *pte_of(page) = page | PTE_P | PTE_W; /* supervisor */
    flush();
    c = context_new(3, w_load_ds);
    c.eax = SEL_UDATA; /* accessed already */
    *pte_of(gdt) = gdt | PTE_P | PTE_W;
    invlpg(gdt);
    context_run(&c);
    check_done("implicit_supervisor_accesses", &c);
    check_eq("gdt_read_sets_A", *pte_of(gdt) & bits, PTE_A);
    check_eq("idt_read_sets_A", *pte_of(idt) & bits, PTE_A);
    check_eq("kernel_stack_push_sets_D", *pte_of(stack) & bits, bits);
    check_eq("tss_read_sets_A", *pte_of(tss) & bits, PTE_A);
    *pte_of(gdt) = gdt | PTE_P | PTE_W;
    invlpg(gdt);
    c = context_new(3, w_load_ds);
    c.eax = SEL_FREE | 3;
    context_run(&c);
    check_eq("accessed_bit_of_a_descriptor_sets_D", *pte_of(gdt) & bits, bits);
    *t = guest_tss; /* the stack of old, in the page where it is */
    __asm__ volatile("lgdt %0; lidt %1" : : "m"(here), "m"(idt_here));
    guest_gdt[SEL_TSS >> 3] = DESC(address_of(&guest_tss), 0x67, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
    for (uint32_t page = gdt; page <= tss; page += 0x1000)
        pte_set(page, page | RWU);
}

/* ---- accesses in two pages ---------------------------------------------------------------------------------- */

/* EAX: the address; ESI: readable memory, ECX and EDX data. Stacks: in EBX the old one. */
#define SPLIT(name, text) SNIPPET(name, text)
SPLIT(s_mov, "mov %ecx, (%eax)");
SPLIT(s_add, "add %ecx, (%eax)");
SPLIT(s_lock_add, "lock add %ecx, (%eax)");
SPLIT(s_not, "notl (%eax)");
SPLIT(s_xchg, "xchg %ecx, (%eax)");
SPLIT(s_xadd, "xadd %ecx, (%eax)");
SPLIT(s_cmpxchg, "mov %eax, %edi; xor %eax, %eax; s_cmpxchg_1: lock cmpxchg %ecx, (%edi)");
SPLIT(s_cmpxchg8b, "mov %eax, %edi; s_cmpxchg8b_1: lock cmpxchg8b (%edi)");
SPLIT(s_shld, "shld $3, %ecx, (%eax)");
SPLIT(s_bts, "btsl $3, (%eax)");
SPLIT(s_pop_mem, "popl (%eax)");
SPLIT(s_stosl, "mov %eax, %edi; s_stosl_1: stosl");
SPLIT(s_movsl, "mov %eax, %edi; s_movsl_1: movsl");
SPLIT(s_sgdt, "sgdt (%eax)");
SPLIT(s_fst_qword, "fstl (%eax)");
SPLIT(s_fstp_tbyte, "fstpt (%eax)");
SPLIT(s_fnstenv, "fnstenv (%eax)");
SPLIT(s_fnsave, "fnsave (%eax)");
SPLIT(s_fxsave, "fxsave (%eax)");
SPLIT(s_movups, "movups %xmm0, (%eax)");
SPLIT(s_movq, "movq %mm0, (%eax)");
SPLIT(s_push, "mov %esp, %ebx; mov %eax, %esp; s_push_1: push %ecx; mov %ebx, %esp");
SPLIT(s_pusha, "mov %esp, %ebx; mov %eax, %esp; s_pusha_1: pusha; mov %ebx, %esp");
SPLIT(s_call, "mov %esp, %ebx; mov %eax, %esp; s_call_1: call 1f; 1: mov %ebx, %esp");
SPLIT(s_lcall, "mov %esp, %ebx; mov %eax, %esp; s_lcall_1: lcall $0x1b, $1f; 1: mov %ebx, %esp");
SPLIT(s_enter, "mov %esp, %ebx; mov %eax, %esp; s_enter_1: enter $0, $0; mov %ebx, %esp");
SPLIT(s_enter_deep, "mov %esp, %ebx; mov %eax, %esp; mov %esi, %ebp; s_enter_deep_1: enter $0, $5; mov %ebx, %esp");
LABEL(s_cmpxchg_1);
LABEL(s_cmpxchg8b_1);
LABEL(s_stosl_1);
LABEL(s_movsl_1);
LABEL(s_push_1);
LABEL(s_pusha_1);
LABEL(s_call_1);
LABEL(s_lcall_1);
LABEL(s_enter_1);
LABEL(s_enter_deep_1);
/* reads */
SPLIT(s_load, "mov (%eax), %ecx");
SPLIT(s_les, "les (%eax), %ecx");
SPLIT(s_fld_tbyte, "fldt (%eax)");
SPLIT(s_frstor, "frstor (%eax)");
SPLIT(s_pop, "mov %esp, %ebx; mov %eax, %esp; s_pop_1: pop %ecx");
SPLIT(s_popa, "mov %esp, %ebx; mov %eax, %esp; s_popa_1: popa");
SPLIT(s_leave, "mov %esp, %ebx; mov %eax, %ebp; s_leave_1: leave");
SPLIT(s_ret, "mov %esp, %ebx; mov %eax, %esp; s_ret_1: ret");
SPLIT(s_lret, "mov %esp, %ebx; mov %eax, %esp; s_lret_1: lret");
SPLIT(s_iret, "mov %esp, %ebx; mov %eax, %esp; s_iret_1: iret");
SPLIT(s_bound, "bound %ecx, (%eax)");
SPLIT(s_lodsl, "mov %eax, %esi; s_lodsl_1: lodsl");
LABEL(s_pop_1);
LABEL(s_popa_1);
LABEL(s_leave_1);
LABEL(s_ret_1);
LABEL(s_lret_1);
LABEL(s_iret_1);
LABEL(s_lodsl_1);

static const struct split {
    const char *name;
    const uint8_t *code, *at;
    uint16_t size;
    bool is_store, is_push; /* a push goes down from the address */
} splits[] = {
    { "mov", s_mov, s_mov, 4, 1, 0 },
    { "add", s_add, s_add, 4, 1, 0 },
    { "lock_add", s_lock_add, s_lock_add, 4, 1, 0 },
    { "not", s_not, s_not, 4, 1, 0 },
    { "xchg", s_xchg, s_xchg, 4, 1, 0 },
    { "xadd", s_xadd, s_xadd, 4, 1, 0 },
    { "cmpxchg", s_cmpxchg, s_cmpxchg_1, 4, 1, 0 },
    { "cmpxchg8b", s_cmpxchg8b, s_cmpxchg8b_1, 8, 1, 0 },
    { "shld", s_shld, s_shld, 4, 1, 0 },
    { "bts", s_bts, s_bts, 4, 1, 0 },
    { "pop_mem", s_pop_mem, s_pop_mem, 4, 1, 0 },
    { "stosl", s_stosl, s_stosl_1, 4, 1, 0 },
    { "movsl", s_movsl, s_movsl_1, 4, 1, 0 },
    { "sgdt", s_sgdt, s_sgdt, 6, 1, 0 },
    { "fst_qword", s_fst_qword, s_fst_qword, 8, 1, 0 },
    { "fstp_tbyte", s_fstp_tbyte, s_fstp_tbyte, 10, 1, 0 },
    { "fnstenv", s_fnstenv, s_fnstenv, 28, 1, 0 },
    { "fnsave", s_fnsave, s_fnsave, 108, 1, 0 },
    { "fxsave", s_fxsave, s_fxsave, 512, 1, 0 },
    { "movups", s_movups, s_movups, 16, 1, 0 },
    { "movq", s_movq, s_movq, 8, 1, 0 },
    { "push", s_push, s_push_1, 4, 1, 1 },
    { "pusha", s_pusha, s_pusha_1, 32, 1, 1 },
    { "call", s_call, s_call_1, 4, 1, 1 },
    { "lcall", s_lcall, s_lcall_1, 8, 1, 1 },
    { "enter", s_enter, s_enter_1, 4, 1, 1 },
    { "enter_deep", s_enter_deep, s_enter_deep_1, 24, 1, 1 },
    { "load", s_load, s_load, 4, 0, 0 },
    { "les", s_les, s_les, 6, 0, 0 },
    { "fld_tbyte", s_fld_tbyte, s_fld_tbyte, 10, 0, 0 },
    { "frstor", s_frstor, s_frstor, 108, 0, 0 },
    { "pop", s_pop, s_pop_1, 4, 0, 0 },
    { "popa", s_popa, s_popa_1, 32, 0, 0 },
    { "leave", s_leave, s_leave_1, 4, 0, 0 },
    { "ret", s_ret, s_ret_1, 4, 0, 0 },
    { "lret", s_lret, s_lret_1, 8, 0, 0 },
    { "iret", s_iret, s_iret_1, 12, 0, 0 },
    { "bound", s_bound, s_bound, 8, 0, 0 },
    { "lodsl", s_lodsl, s_lodsl_1, 4, 0, 0 },
};

#define FIRST  (VA + 0x10000u)
#define SECOND (FIRST + 0x1000u)

static void lay_out(uint32_t first, uint32_t second)
{
    table[(FIRST >> 12) & 1023] = first;
    table[(SECOND >> 12) & 1023] = second;
    flush();
}

/* One run at `va` expected to fault: at `cr2` (a range for what is pushed word by word), with nothing changed. */
static uint32_t run_split(const struct split *s, int ring, uint32_t va, uint32_t error, uint32_t lo, uint32_t hi)
{
    static uint32_t words[32];
    struct context c = context_new(ring, s->code), was;
    uint8_t copy[2][64];
    uint32_t bad = 0;

    for (unsigned i = 0; i < 32; i++)
        words[i] = 0x80000000u | i;
    memset((void *)(PAGE + 0x1000 - 64), 0x5a, 64);
    memset((void *)NEXT, 0xa5, 64);
    memcpy(copy[0], (void *)(PAGE + 0x1000 - 64), 64);
    memcpy(copy[1], (void *)NEXT, 64);
    __asm__ volatile("fninit; fld1; fldpi");
    c.eax = va;
    c.ecx = 0x12345678;
    c.edx = 0x9abcdef0;
    c.esi = c.ebp = address_of(words + 16);
    was = c;
    context_run(&c);
    if (c.vector != V_PF || c.error != error || c.cr2 < lo || c.cr2 > hi) {
        bad |= 1;
        say("%s: vector %u error %x cr2 %x eip %x\n", s->name, c.vector, c.error, c.cr2, c.eip - address_of(s->code));
    }
    if (c.eip != address_of(s->at))
        bad |= 2;
    if (memcmp(copy[0], (void *)(PAGE + 0x1000 - 64), 64) || memcmp(copy[1], (void *)NEXT, 64))
        bad |= 4;
    if (c.ecx != was.ecx || c.edx != was.edx || (s->code != s_lodsl && c.esi != was.esi) ||
        (s->code != s_leave && c.ebp != was.ebp))
        bad |= 8;
    if (c.esp != (s->is_push || s->code == s_pop || s->code == s_popa || s->code == s_ret || s->code == s_lret ||
                          s->code == s_iret
                      ? va
                      : was.esp))
        bad |= 16;
    return bad;
}

static void two_pages(void)
{
    uint32_t *pde = &page_directory[VA >> 22];

    *pde = address_of(table) | RWU;
    if (HAS_FXSR)
        set_cr4(get_cr4() | 0x200);
    for (unsigned i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        const struct split *s = &splits[i];
        uint32_t bad = 0, half = s->size > 64 ? 16 : s->size / 2, up = s->is_store ? 2 : 0;
        /* where the access begins, and what it covers */
        uint32_t va = s->is_push ? SECOND + s->size - half : SECOND - half;

        if ((s->code == s_fxsave && !HAS_FXSR) || (s->code == s_movups && !HAS_SSE) || (s->code == s_movq && !HAS_MMX))
            continue;
        for (int ring = 0; ring < 4; ring += 3) {
            uint32_t user = ring ? 4 : 0;

            if (ring == 0 && s->code == s_lcall)
                continue; /* it would be a call outwards */
            /* at ring 0 a fault's frame goes to the stack itself: only what leaves that alone */
            if (ring == 0 && (s->is_push || !memcmp(s->code, "\x89\xe3", 2)))
                continue;
            if (!s->is_push) {
                lay_out(PAGE | RWU, 0);
                bad |= run_split(s, ring, va, up | user, SECOND, va + s->size - 1);
            } else {
                lay_out(0, NEXT | RWU);
                bad |= run_split(s, ring, va, up | user, FIRST, SECOND - 1);
                lay_out(PAGE | RWU, 0);
                bad |= run_split(s, ring, va, up | user, SECOND, va);
            }
            if (!s->is_push) {
                lay_out(0, NEXT | RWU);
                bad |= run_split(s, ring, va, up | user, va, SECOND - 1);
            }
            if (s->is_store && ring) {
                lay_out(PAGE | RWU, NEXT | PTE_P | PTE_U);
                if (!s->is_push)
                    bad |= run_split(s, ring, va, 7, SECOND, va + s->size - 1);
                lay_out(PAGE | PTE_P | PTE_U, NEXT | RWU);
                bad |= run_split(s, ring, va, 7, s->is_push ? FIRST : va, SECOND - 1);
            }
            if (ring) {
                lay_out(PAGE | RWU, NEXT | PTE_P | PTE_W);
                if (!s->is_push)
                    bad |= run_split(s, ring, va, up | 5, SECOND, va + s->size - 1);
            }
        }
        check_eq(name2("split", s->name), bad, 0);
    }
    if (HAS_FXSR)
        set_cr4(get_cr4() & ~0x200u);
    *pde = 0;
    flush();
}

/* ---- repeated strings stop where they are -------------------------------------------------------------------- */

SNIPPET(q_movsb, "rep movsb");
SNIPPET(q_movsl, "rep movsl");
SNIPPET(q_stosw, "rep stosw");
SNIPPET(q_lodsl, "rep lodsl");
SNIPPET(q_cmpsb, "repe cmpsb");
SNIPPET(q_scasl, "repne scasl");

static void strings(void)
{
    static const struct {
        const char *name;
        const void *code;
        uint32_t width;
        bool uses_esi, uses_edi, is_store;
    } cases[] = {
        { "rep_movsb", q_movsb, 1, 1, 1, 1 },  { "rep_movsl", q_movsl, 4, 1, 1, 1 }, { "rep_stosw", q_stosw, 2, 0, 1, 1 },
        { "rep_lodsl", q_lodsl, 4, 1, 0, 0 }, { "repe_cmpsb", q_cmpsb, 1, 1, 1, 0 }, { "repne_scasl", q_scasl, 4, 0, 1, 0 },
    };
    uint32_t *pde = &page_directory[VA >> 22];

    *pde = address_of(table) | RWU;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int down = 0; down < 2; down++)
            for (int source = 0; source < 2; source++) {
                uint32_t w = cases[i].width, step = down ? 0u - w : w, va, bad = 0;
                struct context c = context_new(3, cases[i].code);

                if (source ? !cases[i].uses_esi : !cases[i].uses_edi)
                    continue;
                memset((void *)PAGE, 0, 0x1000);
                memset((void *)NEXT, 0, 0x1000);
                memset((void *)SCRATCH, 0, 0x1000);
                if (down)
                    lay_out(0, NEXT | RWU);
                else
                    lay_out(PAGE | RWU, 0);
                va = down ? SECOND + 4 * w : SECOND - 5 * w; /* five elements, then the absent page */
                c.esi = source ? va : SCRATCH + 0x800;
                c.edi = source ? SCRATCH + 0x800 : va;
                c.ecx = 100;
                c.eax = 0x11111111;
                c.eflags |= down ? EFL_DF : 0;
                context_run(&c);
                va += 5 * step;
                if (c.vector != V_PF || c.error != (4 | (cases[i].is_store && !source ? 2u : 0)) || c.cr2 != va)
                    bad |= 1;
                if (c.ecx != 95 || c.eip != address_of(cases[i].code))
                    bad |= 2;
                if (cases[i].uses_esi && c.esi != (source ? va : SCRATCH + 0x800 + 5 * step))
                    bad |= 4;
                if (cases[i].uses_edi && c.edi != (source ? SCRATCH + 0x800 + 5 * step : va))
                    bad |= 8;
                if (bad)
                    say("%s: vector %u error %x cr2 %x ecx %x\n", cases[i].name, c.vector, c.error, c.cr2, c.ecx);
                check_eq(name2(cases[i].name, source ? "source" : "destination"), bad, 0);
            }
    *pde = 0;
    flush();
}

/* ---- PAE ---------------------------------------------------------------------------------------------------------- */

static void set_efer_nxe(bool on)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0xc0000080));
    low = on ? low | 0x800 : low & ~0x800u;
    __asm__ volatile("wrmsr" : : "a"(low), "d"(high), "c"(0xc0000080));
}

static bool has_nx(void)
{
    return cpuid(0x80000000, 'a') >= 0x80000001 && (cpuid(0x80000001, 'd') & 1u << 20);
}

static void pae_on(void)
{
    paging_off();
    for (unsigned i = 0; i < 4; i++) {
        pae_pointers[i] = address_of(pae_directory[i]) | PTE_P;
        memset(pae_directory[i], 0, sizeof pae_directory[i]);
    }
    for (unsigned i = 0; i < 8; i++) /* 16 MiB, user and writable */
        pae_directory[0][i] = (uint64_t)i << 21 | PTE_PS | RWU;
    pae_directory[1][0] = address_of(pae_table) | RWU; /* VA */
    set_cr3(address_of(pae_pointers));
    set_cr4(get_cr4() | CR4_PAE);
    set_cr0(get_cr0() | 0x80000000u);
}

static void pae_rights(void)
{
    uint32_t wrong = 0, wrong_bits = 0, wrong_large = 0;
    bool nx = has_nx();

    if (nx)
        set_efer_nxe(true);
    for (unsigned wp = 0; wp < 2; wp++) {
        set_cr0(wp ? get_cr0() | CR0_WP : get_cr0() & ~CR0_WP);
        for (uint32_t d = 0; d < (nx ? 16u : 8u); d++)
            for (uint32_t t = 0; t < (nx ? 16u : 8u); t++)
                for (int kind = READ; kind <= EXEC; kind++)
                    for (int ring = 0; ring < 4; ring += 3) {
                        uint64_t pde = address_of(pae_table) | (d & 7) | (uint64_t)(d >> 3) << 63,
                                 pte = PAGE | (t & 7) | (uint64_t)(t >> 3) << 63;
                        uint32_t va = VA + 0x48c, want = judge(d & t & 1, d & t, (d | t) & 8, kind, ring, wp, nx), bits;
                        struct context c;

                        pae_directory[1][0] = pde;
                        pae_table[0] = pte;
                        flush();
                        c = access(ring, codes[kind], va);
                        if (!is_as_judged(&c, want, va))
                            report("pae rights", &wrong, d, t, &c, want);
                        bits = want != ~0u ? 0 : kind == WRITE || kind == RMW ? PTE_A | PTE_D : PTE_A;
                        if (pae_table[0] != (pte | bits) || (want == ~0u && pae_directory[1][0] != (pde | PTE_A)))
                            report("pae A and D", &wrong_bits, d, t, &c, want);
                        if (t)
                            continue;
                        pde = (PAGE & 0xffe00000u) | PTE_PS | (d & 7) | (uint64_t)(d >> 3) << 63;
                        pae_directory[1][0] = pde;
                        flush();
                        va = VA + (PAGE & 0x1fffff) + 0x48c;
                        want = judge(d & 1, d, d & 8, kind, ring, wp, nx);
                        c = access(ring, codes[kind], va);
                        bits = want != ~0u ? 0 : kind == WRITE || kind == RMW ? PTE_A | PTE_D : PTE_A;
                        if (!is_as_judged(&c, want, va) || pae_directory[1][0] != (pde | bits))
                            report("pae large", &wrong_large, d, 0, &c, want);
                    }
    }
    set_cr0(get_cr0() & ~CR0_WP);
    check_eq("pae_rights", wrong, 0);
    check_eq("pae_accessed_and_dirty", wrong_bits, 0);
    check_eq("pae_rights_of_large_pages", wrong_large, 0);
    if (nx)
        set_efer_nxe(false);
}

static void pae_reserved(void)
{
    uint32_t wrong_pte = 0, wrong_pde = 0, wrong_large = 0, wrong_absent = 0;

    for (unsigned nxe = 0; nxe < (has_nx() ? 2u : 1u); nxe++) {
        if (has_nx())
            set_efer_nxe(nxe);
        for (unsigned bit = 13; bit < 64; bit++)
            for (int ring = 0; ring < 4; ring += 3) {
                uint32_t want = 9 | (ring ? 4u : 0);
                bool is_high = bit >= maxphyaddr() && !(bit == 63 && nxe);
                struct context c;

                if (is_high) {
                    pae_directory[1][0] = address_of(pae_table) | RWU;
                    pae_table[0] = PAGE | PTE_P | 1ull << bit;
                    flush();
                    c = access(ring, w_read, VA);
                    if (!is_as_judged(&c, want, VA))
                        report("pte", &wrong_pte, bit, 0, &c, want);
                    pae_table[0] = (PAGE | 1ull << bit) & ~1ull;
                    flush();
                    c = access(ring, w_read, VA);
                    if (!is_as_judged(&c, want & ~9u, VA))
                        report("absent pte", &wrong_absent, bit, 0, &c, want & ~9u);
                    pae_table[0] = 0; /* reserved above, absent below: the former comes first */
                    pae_directory[1][0] = address_of(pae_table) | RWU | 1ull << bit;
                    flush();
                    c = access(ring, w_write, VA);
                    if (!is_as_judged(&c, want | 2, VA))
                        report("pde", &wrong_pde, bit, 0, &c, want | 2);
                }
                if (is_high || bit < 21) {
                    pae_directory[1][0] = (PAGE & 0xffe00000u) | PTE_PS | RWU | 1ull << bit;
                    flush();
                    c = access(ring, w_exec, VA);
                    if (!is_as_judged(&c, want | (nxe ? I_BIT : 0), VA))
                        report("large", &wrong_large, bit, 0, &c, want);
                }
            }
    }
    if (has_nx())
        set_efer_nxe(false);
    pae_directory[1][0] = address_of(pae_table) | RWU;
    check_eq("pae_reserved_bits_of_pte", wrong_pte, 0);
    check_eq("pae_reserved_bits_of_pde", wrong_pde, 0);
    check_eq("pae_reserved_bits_of_large_pages", wrong_large, 0);
    check_eq("pae_absent_entry_has_none", wrong_absent, 0);
}

SNIPPET(w_set_cr3, "mov %eax, %cr3");
SNIPPET(w_set_cr4, "mov %eax, %cr4");
SNIPPET(w_set_cr0, "mov %eax, %cr0");

/* The four pointers: checked when they are loaded, kept until they are loaded again. */
static void pae_pointer_rules(void)
{
    uint32_t wrong = 0;
    struct context c;

    for (unsigned bit = 1; bit < 64; bit++) {
        bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= maxphyaddr();

        if (!reserved)
            continue;
        pae_pointers[3] |= 1ull << bit;
        c = context_new(0, w_set_cr3);
        c.eax = address_of(pae_pointers);
        context_run(&c);
        if (c.vector != V_GP || c.error != 0 || c.eip != address_of(w_set_cr3))
            report("pointer", &wrong, bit, 0, &c, 0);
        pae_pointers[3] &= ~PTE_P; /* an absent one has none */
        c = context_new(0, w_set_cr3);
        c.eax = address_of(pae_pointers);
        context_run(&c);
        if (c.vector != VEC_DONE)
            report("absent pointer", &wrong, bit, 0, &c, 0);
        pae_pointers[3] = address_of(pae_directory[3]) | PTE_P;
    }
    check_eq("pae_reserved_bits_of_pointers", wrong, 0);
    flush();
    pae_pointers[2] |= 2;
    c = context_new(0, w_set_cr4); /* PGE: loads them, too */
    c.eax = get_cr4() ^ 0x80;
    context_run(&c);
    check_fault("pae_cr4_loads_pointers", &c, V_GP, 0);
    c = context_new(0, w_set_cr0); /* CD */
    c.eax = get_cr0() ^ 0x40000000u;
    context_run(&c);
    check_fault("pae_cr0_loads_pointers", &c, V_GP, 0);
    if (!option_given("bochs")) {
        c = context_new(0, w_set_cr0); /* WP alone does not */
        c.eax = get_cr0() ^ CR0_WP;
        context_run(&c);
        check_done("pae_cr0_WP_loads_no_pointers", &c);
        set_cr0(get_cr0() & ~CR0_WP);
    }
    pae_pointers[2] &= ~2ull;
    /* an absent pointer */
    pae_table[0] = PAGE | RWU;
    pae_pointers[1] = 0;
    flush();
    c = access(3, w_write, VA + 4);
    check_fault("pae_absent_pointer", &c, V_PF, 6);
    check_eq("pae_absent_pointer_cr2", c.cr2, VA + 4);
    pae_pointers[1] = address_of(pae_directory[1]) | PTE_P;
    invlpg(VA); /* does not load them */
    c = access(3, w_write, VA + 4);
    check_eq("pae_pointer_waits_for_cr3", c.vector, V_PF);
    flush();
    c = access(3, w_write, VA + 4);
    check_done("pae_pointer_loaded_with_cr3", &c);
    check_eq("pae_pointer_has_no_A", (uint32_t)pae_pointers[1], address_of(pae_directory[1]) | PTE_P);
    /* a large page beyond 4 GiB */
    if (maxphyaddr() >= 36) {
        pae_directory[1][0] = 0xf00000000ull | PTE_PS | RWU;
        flush();
        c = access(3, w_write, VA + 0x1000);
        check_done("pae_store_beyond_memory", &c);
        c = access(3, w_read, VA + 0x1000);
        check_eq("pae_read_beyond_memory", c.ecx, 0xffffffff);
    }
    /* a table of ones: reserved bits */
    pae_directory[1][0] = 0x40000000 | RWU;
    flush();
    c = access(3, w_read, VA);
    check_fault("pae_table_beyond_memory", &c, V_PF, 13);
}

void guest_main(void)
{
    paging_on();
    rights_of_two_levels();
    if (HAS_PSE)
        reserved_of_large_pages();
    beyond_memory();
    self_mapped();
    implicit_accesses();
    two_pages();
    strings();
    if (HAS_PAE) {
        pae_on();
        pae_rights();
        pae_reserved();
        pae_pointer_rules();
    }
    paging_off();
}
