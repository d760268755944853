/*
 * DR0 to DR3: data, I/O and instruction breakpoints, DR6 and DR7.
 *
 * Data breakpoints are traps, taken after the instruction that accessed; instruction breakpoints are
 * faults, taken before it unless RF is set.
 *
 * Ref: Intel SDM vol. 3B, ch. "Debug, Branch Profile, TSC, and Intel Resource Director Technology
 * Features"; vol. 3A, ch. 6, "Priority Among Simultaneous Exceptions and Interrupts".
 */
#include "../lib/debug.h"

/* The bytes under watch are in the middle of three pages of their own. */
static uint8_t pages[3 * 4096] __attribute__((used, aligned(4096)));
__asm__(".set watched, pages + 4096 + 64\n.set page_end, pages + 8192\n.set page_start, pages + 4096");
extern uint8_t watched[], page_end[], page_start[];

/* ---- data: one access each, then a NOP --------------------------------------------------------- */

enum { MISS, HIT };

struct access {
    const char *name;
    const uint8_t *code;
    unsigned after;     /* offset of what follows the access            */
    uint8_t on_write, on_access; /* met by a breakpoint on writes, on both?      */
    bool moves_stack;   /* to the bytes under watch: not at ring 0, where the handler shares it */
};

SNIPPET(a_load, "mov watched, %eax; nop");
SNIPPET(a_store, "mov %eax, watched; nop");
SNIPPET(a_store_reg, "mov $watched, %ebx; mov %eax, (%ebx); nop");
SNIPPET(a_store_imm, "movb $1, watched + 3; nop");
SNIPPET(a_below, "movb $1, watched - 1; nop");
SNIPPET(a_above, "movb $1, watched + 4; nop");
SNIPPET(a_word_into, "movw $1, watched - 1; nop");
SNIPPET(a_word_below, "movw $1, watched - 2; nop");
SNIPPET(a_dword_into, "movl $1, watched - 3; nop");
SNIPPET(a_dword_last, "movl $1, watched + 3; nop");
SNIPPET(a_movzx, "movzbl watched + 1, %eax; nop");
SNIPPET(a_rmw, "addl $1, watched; nop");
SNIPPET(a_cmp, "cmpl $1, watched; nop");
SNIPPET(a_test, "testb $1, watched; nop");
SNIPPET(a_inc, "incb watched + 2; nop");
SNIPPET(a_xchg, "xchg %eax, watched; nop");
SNIPPET(a_lock, "lock; orl $0, watched; nop");
SNIPPET(a_cmpxchg, "mov $99, %eax; mov $7, %ecx; cmpxchg %ecx, watched; nop");
SNIPPET(a_cmpxchg8b, "cmpxchg8b watched - 4; nop");
SNIPPET(a_bts, "mov $watched, %ebx; mov $-100, %ecx; bts %ecx, 12(%ebx); nop");
SNIPPET(a_bt, "mov $watched, %ebx; mov $32, %ecx; bt %ecx, -4(%ebx); nop");
SNIPPET(a_shld, "shld $3, %eax, watched; nop");
SNIPPET(a_push_imm, "mov %esp, %ebx; mov $watched + 4, %esp; push $5; mov %ebx, %esp; nop");
SNIPPET(a_push_reg, "mov %esp, %ebx; mov $watched + 4, %esp; push %eax; mov %ebx, %esp; nop");
SNIPPET(a_push_mem, "pushl watched; pop %eax");
SNIPPET(a_pop_mem, "push $1; popl watched; nop");
SNIPPET(a_pop_reg, "mov %esp, %ebx; mov $watched, %esp; pop %eax; mov %ebx, %esp; nop");
SNIPPET(a_pusha, "mov %esp, %ebx; mov $watched + 8, %esp; pusha; mov %ebx, %esp; nop");
SNIPPET(a_popa, "mov %esp, %edx; mov %edx, watched + 96; mov $watched - 8, %esp; popa; mov watched + 96, %esp; nop");
SNIPPET(a_pushf, "mov %esp, %ebx; mov $watched + 4, %esp; pushf; mov %ebx, %esp; nop");
SNIPPET(a_enter, "mov %esp, %ebx; mov $watched + 4, %esp; enter $0, $0; mov %ebx, %esp; nop");
SNIPPET(a_leave, "mov %esp, %ebx; mov $watched, %ebp; leave; mov %ebx, %esp; nop");
SNIPPET(a_call, "mov %esp, %ebx; mov $watched + 4, %esp; call 1f; 1: mov %ebx, %esp; nop");
SNIPPET(a_call_mem, "movl $1f, watched + 4; call *watched + 4; 1: nop");
SNIPPET(a_jmp_mem, "jmp *watched - 4; nop; .globl a_jmp_mem_to; a_jmp_mem_to: nop");
LABEL(a_jmp_mem_to);
SNIPPET(a_ret, "mov %esp, %ebx; mov $watched - 4, %esp; ret; nop; .globl a_ret_to; a_ret_to: mov %ebx, %esp; nop");
LABEL(a_ret_to);
SNIPPET(a_movs_to, "mov $watched, %edi; mov $pages, %esi; movsl; nop");
SNIPPET(a_movs_from, "mov $watched, %esi; mov $pages, %edi; movsl; nop");
SNIPPET(a_stos, "mov $watched + 3, %edi; stosb; nop");
SNIPPET(a_lods, "mov $watched - 1, %esi; lodsw; nop");
SNIPPET(a_cmps, "mov $watched, %edi; mov $pages, %esi; cmpsb; nop");
SNIPPET(a_scas, "mov $watched, %edi; scasl; nop");
SNIPPET(a_xlat, "mov $watched - 5, %ebx; mov $5, %al; xlat; nop");
SNIPPET(a_bound, "xor %eax, %eax; bound %eax, watched - 4; nop");
SNIPPET(a_les, "movl $0x230000, watched + 2; les watched - 2, %eax; nop");
SNIPPET(a_lea, "lea watched, %eax; nop");
SNIPPET(a_sgdt, "sgdt watched - 2; nop");
SNIPPET(a_fld, "fldz; fstp %st(0); fldl watched - 4; fstp %st(0); nop");
SNIPPET(a_fstp80, "fldz; fstpt watched - 9; nop");
SNIPPET(a_fst_beyond, "fldz; fstpt watched - 10; nop");
SNIPPET(a_fnstcw, "fnstcw watched + 2; nop");
SNIPPET(a_fnsave, "fnsave watched - 104; nop");
SNIPPET(a_fnstenv, "fnstenv watched - 24; nop");
SNIPPET(a_movups, "movups watched - 13, %xmm0; nop");
SNIPPET(a_movaps, "movaps %xmm0, watched - 0; nop");
SNIPPET(a_movq, "movq %mm0, watched - 4; emms");
SNIPPET(a_fxsave, "fxsave page_start; nop");
SNIPPET(a_prefetch, "prefetcht0 watched; nop");
SNIPPET(a_cmov, "xor %eax, %eax; cmovne watched, %eax; nop");

static const struct access accesses[] = {
    { "load", a_load, 5, MISS, HIT },
    { "store", a_store, 5, HIT, HIT },
    { "store_by_register", a_store_reg, 7, HIT, HIT },
    { "store_to_last_byte", a_store_imm, 7, HIT, HIT },
    { "store_below", a_below, 7, MISS, MISS },
    { "store_above", a_above, 7, MISS, MISS },
    { "word_into", a_word_into, 9, HIT, HIT },
    { "word_below", a_word_below, 9, MISS, MISS },
    { "dword_into", a_dword_into, 10, HIT, HIT },
    { "dword_over_last_byte", a_dword_last, 10, HIT, HIT },
    { "load_byte", a_movzx, 7, MISS, HIT },
    { "read_modify_write", a_rmw, 7, HIT, HIT },
    { "compare", a_cmp, 7, MISS, HIT },
    { "test", a_test, 7, MISS, HIT },
    { "increment", a_inc, 6, HIT, HIT },
    { "exchange", a_xchg, 6, HIT, HIT },
    { "locked", a_lock, 8, HIT, HIT },
    { "cmpxchg_unequal", a_cmpxchg, 17, HIT, HIT },
    { "cmpxchg8b", a_cmpxchg8b, 7, HIT, HIT },
    { "bit_far_below", a_bts, 14, MISS, MISS },
    { "bit_test", a_bt, 14, MISS, HIT },
    { "double_shift", a_shld, 8, HIT, HIT },
    { "push_immediate", a_push_imm, 9, HIT, HIT, true },
    { "push_register", a_push_reg, 8, HIT, HIT, true },
    { "push_from_memory", a_push_mem, 6, MISS, HIT },
    { "pop_to_memory", a_pop_mem, 8, HIT, HIT },
    { "pop_register", a_pop_reg, 8, MISS, HIT, true },
    { "pusha", a_pusha, 8, HIT, HIT, true },
    { "popa", a_popa, 14, MISS, HIT, true },
    { "pushf", a_pushf, 8, HIT, HIT, true },
    { "enter", a_enter, 11, HIT, HIT, true },
    { "leave", a_leave, 8, MISS, HIT, true },
    { "call", a_call, 12, HIT, HIT, true },
    { "movs_to", a_movs_to, 11, HIT, HIT },
    { "movs_from", a_movs_from, 11, MISS, HIT },
    { "stos", a_stos, 6, HIT, HIT },
    { "lods", a_lods, 7, MISS, HIT },
    { "cmps", a_cmps, 11, MISS, HIT },
    { "scas", a_scas, 6, MISS, HIT },
    { "xlat", a_xlat, 8, MISS, HIT },
    { "bound", a_bound, 8, MISS, HIT },
    { "lea", a_lea, 6, MISS, MISS },
    { "sgdt", a_sgdt, 7, HIT, HIT },
    { "fld_qword", a_fld, 10, MISS, HIT },
    { "fstp_of_ten_bytes", a_fstp80, 8, HIT, HIT },
    { "fstp_below", a_fst_beyond, 8, MISS, MISS },
    { "fnstcw", a_fnstcw, 6, HIT, HIT },
    { "fnsave", a_fnsave, 6, HIT, HIT },
    { "fnstenv", a_fnstenv, 6, HIT, HIT },
    { "movups_load", a_movups, 7, MISS, HIT },
    { "movaps_store", a_movaps, 7, HIT, HIT },
    { "movq_store", a_movq, 7, HIT, HIT },
    { "fxsave", a_fxsave, 7, HIT, HIT },
    { "prefetch", a_prefetch, 7, MISS, MISS },
    { "cmov_that_moves_not", a_cmov, 9, MISS, HIT },
};

static const char *named(const char *a, const char *b)
{
    static char text[96];
    size_t n = strlen(a);

    memcpy(text, a, n);
    memcpy(text + n, b, strlen(b) + 1);
    return text;
}

static void one_access(const struct access *a, int ring, enum break_kind kind, bool hits, const char *suffix)
{
    struct context c = context_new(ring, a->code);

    arm(1, kind, address_of(watched), 4);
    run_armed(&c, a->code);
    check_done(named(a->name, suffix), &c);
    if (hits)
        check_record(named(a->name, suffix), WANT(AT(a->after, 2)));
    else
        check_record(named(a->name, suffix), WANT());
}

static void data_accesses(int ring)
{
    for (unsigned i = 0; i < sizeof accesses / sizeof accesses[0]; i++) {
        const struct access *a = &accesses[i];

        if (a->moves_stack && !ring)
            continue;
        memset(pages, 0, sizeof pages);
        one_access(a, ring, ON_WRITE, a->on_write, ring ? "_ring3_write" : "_ring0_write");
        memset(pages, 0, sizeof pages);
        one_access(a, ring, ON_ACCESS, a->on_access, ring ? "_ring3_access" : "_ring0_access");
    }
}

/* Transfers through memory: the trap comes at the target. */
static void transfers(void)
{
    struct context c = context_new(0, a_jmp_mem);

    poke(address_of(watched) - 4, address_of(a_jmp_mem_to));
    arm(0, ON_ACCESS, address_of(watched) - 4, 4);
    run_armed(&c, a_jmp_mem_to);
    check_record("jump_through_memory", WANT(AT(0, 1)));
    c = context_new(3, a_ret);
    poke(address_of(watched) - 4, address_of(a_ret_to));
    arm(0, ON_ACCESS, address_of(watched) - 4, 4);
    run_armed(&c, a_ret_to);
    check_record("return_through_memory", WANT(AT(0, 1)));
    c = context_new(0, a_call_mem);
    arm(3, ON_ACCESS, address_of(watched) + 4, 4);
    run_armed(&c, a_call_mem);
    check_record("call_through_memory", WANT(AT(10, 8), AT(16, 8)));
}

/* ---- lengths, alignment, several at once ------------------------------------------------------------ */

struct reach {
    const char *name;
    uint32_t ofs;       /* of the breakpoint from `watched` */
    unsigned bytes;
    uint16_t met;       /* bit n: by a byte store at watched + n, 0..9 */
};

static const struct reach reaches[] = {
    { "byte", 3, 1, 1u << 3 },
    { "word", 4, 2, 3u << 4 },
    { "word_from_odd_address", 5, 2, 3u << 4 },
    { "dword", 4, 4, 15u << 4 },
    { "dword_from_odd_address", 7, 4, 15u << 4 },
    { "dword_from_even_address", 2, 4, 15u },
};

SNIPPET(s_byte, "movb $1, watched(%eax); nop");

static void lengths(void)
{
    for (unsigned i = 0; i < sizeof reaches / sizeof reaches[0]; i++) {
        uint32_t met = 0;

        for (unsigned n = 0; n < 10; n++) {
            struct context c = context_new(3, s_byte);

            c.eax = n;
            arm(2, ON_WRITE, address_of(watched) + reaches[i].ofs, reaches[i].bytes);
            run_armed(&c, s_byte);
            met |= (record.count == 1 && record.at[0] == AT(7, 4) ? 1u : 0) << n;
            met |= (record.count > 1 ? 0x8000u : 0);
        }
        check_eq(named("reach_of_a_", reaches[i].name), met, reaches[i].met);
    }
}

static void several(void)
{
    struct context c = context_new(3, a_store);

    arm(0, ON_WRITE, address_of(watched), 1);
    arm(1, ON_ACCESS, address_of(watched) + 2, 2);
    arm(3, ON_WRITE, address_of(watched) + 4, 4);
    run_armed(&c, a_store);
    check_record("two_at_once", WANT(AT(5, 3)));
    c = context_new(3, a_store);
    arm(0, ON_WRITE, address_of(watched), 1);
    arm_disabled(1, ON_ACCESS, address_of(watched) + 2, 2);
    run_armed(&c, a_store);
    check("one_enabled_one_not", record.count == 1 && (record.at[0] & 1)); /* B1: may or may not be set */
    c = context_new(3, a_store);
    arm_disabled(1, ON_ACCESS, address_of(watched) + 2, 2);
    run_armed(&c, a_store);
    check_record("none_enabled", WANT());
    c = context_new(3, a_store);
    arm_disabled(0, ON_WRITE, address_of(watched), 4);
    armed |= DR7_L(0);
    run_armed(&c, a_store);
    check_record("enabled_locally", WANT(AT(5, 1)));
    c = context_new(3, a_store);
    arm(0, ON_WRITE, address_of(watched), 4);
    armed |= 0x300;
    run_armed(&c, a_store);
    check_record("exactly", WANT(AT(5, 1)));
}

/* ---- accesses over page boundaries --------------------------------------------------------------------- */

SNIPPET(p_over, "movl $1, page_end - 1; nop");
SNIPPET(p_load_over, "mov page_end - 2, %eax; nop");
SNIPPET(p_store_before, "movl $1, page_end - 4; nop");
SNIPPET(p_movups, "movups page_start - 15, %xmm0; nop");

static void page_splits(void)
{
    struct context c = context_new(3, p_over);

    arm(0, ON_WRITE, address_of(page_end), 1);
    run_armed(&c, p_over);
    check_record("split_store_second_page", WANT(AT(10, 1)));
    c = context_new(3, p_over);
    arm(0, ON_WRITE, address_of(page_end) - 1, 1);
    run_armed(&c, p_over);
    check_record("split_store_first_page", WANT(AT(10, 1)));
    c = context_new(3, p_load_over);
    arm(0, ON_ACCESS, address_of(page_end) - 4, 4);
    arm(1, ON_ACCESS, address_of(page_end), 4);
    run_armed(&c, p_load_over);
    check_record("split_load_both_pages", WANT(AT(5, 3)));
    c = context_new(3, p_store_before);
    arm(0, ON_WRITE, address_of(page_end), 4);
    run_armed(&c, p_store_before);
    check_record("store_up_to_the_page", WANT());
    c = context_new(3, p_movups);
    arm(0, ON_ACCESS, address_of(page_start), 4);
    run_armed(&c, p_movups);
    check_record("split_sixteen_bytes", WANT(AT(7, 1)));
}

/* ---- strings ------------------------------------------------------------------------------------------------ */

SNIPPET(r_stos, "rep stosb; nop");
SNIPPET(r_stosd, "rep stosl; nop");
SNIPPET(r_movs, "rep movsb; nop");
SNIPPET(r_lods, "rep lodsb; nop");
SNIPPET(r_scas, "repne scasb; nop");
SNIPPET(r_cmps, "repe cmpsb; nop");

static struct context string_context(int ring, const uint8_t *code, uint32_t esi, uint32_t edi, uint32_t ecx)
{
    struct context c = context_new(ring, code);

    c.esi = esi;
    c.edi = edi;
    c.ecx = ecx;
    c.eax = 0x77;
    return c;
}

/* Each iteration that accesses is followed by a trap, at the instruction itself (with RF) or behind it. */
static void strings(int ring)
{
    uint32_t at = address_of(watched), elsewhere = address_of(pages);
    struct context c = string_context(ring, r_stos, 0, at - 3, 10);

    arm(0, ON_WRITE, at, 2);
    run_armed(&c, r_stos);
    check_done("rep_stos", &c);
    check_record("rep_stos", WANT(AT(0, 1 | RF), AT(0, 1 | RF)));
    check_eq("rep_stos_first_ecx", record.ecx[0], 6);
    check_eq("rep_stos_second_ecx", record.ecx[1], 5);
    check_eq("rep_stos_edi", c.edi, at + 7);
    c = string_context(ring, r_stos, 0, at - 3, 4);
    arm(0, ON_WRITE, at, 1);
    run_armed(&c, r_stos);
    check_record("rep_stos_last_iteration", WANT(AT(2, 1)));
    c = string_context(ring, r_stosd, 0, at + 5, 3);
    c.eflags |= EFL_DF;
    arm(0, ON_WRITE, at, 4);
    run_armed(&c, r_stosd);
    check_record("rep_stosd_downwards", WANT(AT(0, 1 | RF), AT(2, 1)));
    check_eq("rep_stosd_downwards_ecx", record.ecx[0], 1);
    c = string_context(ring, r_movs, at - 4, elsewhere, 4);
    arm(0, ON_ACCESS, at, 4);
    run_armed(&c, r_movs);
    check_record("rep_movs_before", WANT());
    c = string_context(ring, r_movs, at - 4, elsewhere, 6);
    arm(0, ON_ACCESS, at, 4);
    run_armed(&c, r_movs);
    check_record("rep_movs_from", WANT(AT(0, 1 | RF), AT(2, 1)));
    c = string_context(ring, r_movs, elsewhere, at - 4, 6);
    arm(0, ON_WRITE, at + 1, 1);
    run_armed(&c, r_movs);
    check_record("rep_movs_to", WANT(AT(2, 1)));
    c = string_context(ring, r_lods, at - 4, 0, 6);
    arm(0, ON_ACCESS, at, 1);
    run_armed(&c, r_lods);
    check_record("rep_lods", WANT(AT(0, 1 | RF)));
    check_eq("rep_lods_ecx", record.ecx[0], 1);
    memset(pages, 0, sizeof pages);
    watched[2] = 0x77;
    c = string_context(ring, r_scas, 0, at - 1, 100);
    arm(0, ON_ACCESS, at + 2, 2);
    run_armed(&c, r_scas);
    check_record("repne_scas", WANT(AT(2, 1)));
    check_eq("repne_scas_ecx", c.ecx, 96);
    c = string_context(ring, r_cmps, at, at + 16, 3);
    watched[2] = 0;
    arm(0, ON_ACCESS, at + 17, 1);
    run_armed(&c, r_cmps);
    check_record("repe_cmps", WANT(AT(0, 1 | RF)));
    check_eq("repe_cmps_ecx", record.ecx[0], 1);
    c = string_context(ring, r_stos, 0, address_of(page_end) - 300, 600);
    arm(0, ON_WRITE, address_of(page_end) - 1, 1);
    arm(1, ON_WRITE, address_of(page_end), 1);
    run_armed(&c, r_stos);
    check_record("rep_stos_over_pages", WANT(AT(0, 1 | RF), AT(0, 2 | RF)));
    check_eq("rep_stos_over_pages_ecx", record.ecx[0] << 16 | record.ecx[1], 300 << 16 | 299);
}

/* ---- accesses that the processor makes by itself --------------------------------------------------------- */

SNIPPET(i_int, "int $0x7f");
SNIPPET(i_load_es, "mov $0x38, %eax; mov %eax, %es; nop");
SNIPPET(i_fault, "movl $1, watched; movl $1, 0xe00000; nop");
SNIPPET(i_movs_fault, "mov $watched, %esi; mov $0xe00000, %edi; movsl; nop");
SNIPPET(i_rmw_fault, "addl $1, 0xe00000; nop");

static void implicit(void)
{
    extern uint8_t vector_entries[];
    struct context c = context_new(3, i_int);

    arm(0, ON_WRITE, guest_tss.esp0 - 12, 4); /* where INT pushes EFLAGS */
    record.once = true;
    run_armed(&c, vector_entries + 16 * 0x7f);
    check_record("frame_of_an_interrupt", WANT(AT(0, 1)));
    c = context_new(3, i_int);
    arm(0, ON_ACCESS, address_of(&guest_idt[0x7f]), 4);
    record.once = true;
    run_armed(&c, vector_entries + 16 * 0x7f);
    check_record("gate_of_an_interrupt", WANT(AT(0, 1)));
    c = context_new(3, i_int);
    arm(0, ON_ACCESS, address_of(&guest_tss.esp0), 4);
    record.once = true;
    run_armed(&c, vector_entries + 16 * 0x7f);
    check_record("stack_in_the_tss", WANT(AT(0, 1)));
    guest_gdt[SEL_FREE >> 3] = DESC(0, 0xfffff, 0xf3, 0xc);
    c = context_new(0, i_load_es);
    arm(0, ON_ACCESS, address_of(&guest_gdt[SEL_FREE >> 3]), 4);
    record.once = true;
    run_armed(&c, i_load_es);
    check_record("descriptor", WANT(AT(7, 1)));
}

/* An instruction that faults has not been executed: no trap. */
static void with_faults(void)
{
    struct context c = context_new(0, i_movs_fault);

    pte_set(0xe00000, 0);
    arm(0, ON_ACCESS, address_of(watched), 4);
    run_armed(&c, i_movs_fault);
    check_fault("fault_after_a_watched_read", &c, V_PF, 2);
    check_record("fault_after_a_watched_read", WANT());
    c = context_new(0, i_rmw_fault);
    arm(0, ON_ACCESS, 0xe00000, 4);
    run_armed(&c, i_rmw_fault);
    check_fault("fault_of_the_watched_access", &c, V_PF, 2);
    check_record("fault_of_the_watched_access", WANT());
    c = context_new(0, i_fault);
    arm(0, ON_WRITE, address_of(watched), 4);
    run_armed(&c, i_fault);
    check_fault("trap_comes_before_the_next_fault", &c, V_PF, 2);
    check_record("trap_comes_before_the_next_fault", WANT(AT(10, 1)));
    pte_set(0xe00000, 0xe00000 | PTE_P | PTE_W | PTE_U);
}

/* ---- ports -------------------------------------------------------------------------------------------------- */

SNIPPET(o_out, "out %al, $0x80; nop");
SNIPPET(o_out_dx, "mov $0x80, %edx; out %al, %dx; nop");
SNIPPET(o_in, "in $0x61, %al; nop");
SNIPPET(o_word, "mov $0x7f, %edx; in %dx, %ax; nop");
SNIPPET(o_outs, "mov $0x80, %edx; rep outsb; nop");
SNIPPET(o_ins, "mov $0x61, %edx; insb; nop");

static void ports(void)
{
    struct context c = context_new(0, o_out);

    arm(0, ON_PORT, 0x80, 1);
    run_armed(&c, o_out);
    check_record("port_without_DE", WANT());
    set_cr4(get_cr4() | CR4_DE);
    c = context_new(0, o_out);
    arm(0, ON_PORT, 0x80, 1);
    run_armed(&c, o_out);
    check_record("out", WANT(AT(2, 1)));
    c = context_new(0, o_out_dx);
    arm(1, ON_PORT, 0x82, 4);
    run_armed(&c, o_out_dx);
    check_record("out_dx", WANT(AT(6, 2)));
    c = context_new(0, o_in);
    arm(0, ON_PORT, 0x60, 2);
    run_armed(&c, o_in);
    check_record("in", WANT(AT(2, 1)));
    c = context_new(0, o_in);
    arm(0, ON_PORT, 0x62, 2);
    run_armed(&c, o_in);
    check_record("in_of_another_port", WANT());
    c = context_new(0, o_word);
    arm(0, ON_PORT, 0x80, 1);
    run_armed(&c, o_word);
    check_record("word_over_a_port", WANT(AT(7, 1)));
    c = string_context(0, o_outs, address_of(watched), 0, 3);
    arm(0, ON_PORT, 0x80, 1);
    run_armed(&c, o_outs);
    check_record("rep_outs", WANT(AT(5, 1 | RF), AT(5, 1 | RF), AT(7, 1)));
    c = string_context(0, o_ins, 0, address_of(watched), 1);
    arm(0, ON_PORT, 0x61, 1);
    arm(2, ON_WRITE, address_of(watched), 1);
    run_armed(&c, o_ins);
    check_record("ins_port_and_memory", WANT(AT(6, 5)));
    c = context_new(0, a_store);
    arm(0, ON_PORT, address_of(watched), 4);
    run_armed(&c, a_store);
    check_record("port_is_no_memory", WANT());
    set_cr4(get_cr4() & ~CR4_DE);
}

/* ---- instructions --------------------------------------------------------------------------------------------- */

SNIPPET(f_line, "nop; inc %eax; nop; .byte 0x66, 0x90; nop");
SNIPPET(f_loop, "mov $3, %ecx; 1: inc %eax; dec %ecx; jnz 1b; nop");
SNIPPET(f_call, "call 1f; nop; jmp 2f; 1: inc %eax; ret; 2: nop");
SNIPPET(f_indirect, "mov $1f, %eax; call *%eax; jmp 2f; 1: inc %ecx; ret; 2: nop");
SNIPPET(f_int3, "nop; int3; nop");
SNIPPET(f_ud, "nop; ud2");
SNIPPET(f_store, "movl $1, watched; nop; nop");
SNIPPET(f_rep, "nop; rep stosb; nop");

static void one_fetch(const char *name, const uint8_t *code, unsigned ofs, const uint32_t *want, unsigned n)
{
    for (int ring = 0; ring <= 3; ring += 3) {
        struct context c = context_new(ring, code);

        arm(0, ON_FETCH, address_of(code) + ofs, 1);
        run_armed(&c, code);
        check_done(name, &c);
        check_record(name, want, n);
    }
}

static void instructions(void)
{
    struct context c;

    one_fetch("first_instruction", f_line, 0, WANT(AT(0, 1)));
    one_fetch("second_instruction", f_line, 1, WANT(AT(1, 1)));
    one_fetch("at_a_prefix", f_line, 3, WANT(AT(3, 1)));
    one_fetch("behind_a_prefix", f_line, 4, WANT());
    one_fetch("in_a_loop", f_loop, 5, WANT(AT(5, 1), AT(5, 1), AT(5, 1)));
    one_fetch("branch_of_a_loop", f_loop, 7, WANT(AT(7, 1), AT(7, 1), AT(7, 1)));
    one_fetch("target_of_a_call", f_call, 8, WANT(AT(8, 1)));
    one_fetch("target_of_a_return", f_call, 5, WANT(AT(5, 1)));
    one_fetch("target_of_an_indirect_call", f_indirect, 9, WANT(AT(9, 1)));
    one_fetch("target_of_its_return", f_indirect, 7, WANT(AT(7, 1)));
    c = context_new(0, f_line);
    record.keeps_rf = true; /* the first time */
    arm(2, ON_FETCH, address_of(f_line) + 1, 1);
    run_armed(&c, f_line);
    check_done("without_RF", &c);
    check_record("without_RF", WANT(AT(1, 4), AT(1, 4)));
    check_eq("without_RF_once", c.eax, 1);
    c = context_new(0, f_line);
    c.eflags |= EFL_RF;
    arm(0, ON_FETCH, address_of(f_line), 1);
    arm(1, ON_FETCH, address_of(f_line) + 1, 1);
    run_armed(&c, f_line);
    check_record("RF_is_for_one_instruction", WANT(AT(1, 2)));
    c = context_new(0, f_int3);
    arm(0, ON_FETCH, address_of(f_int3) + 1, 1);
    run_armed(&c, f_int3);
    check_fault("on_an_int3", &c, V_BP, 0);
    check_record("on_an_int3", WANT(AT(1, 1)));
    check_eq("on_an_int3_flags", c.eflags & EFL_RF, 0);
    c = context_new(0, f_ud);
    arm(0, ON_FETCH, address_of(f_ud) + 1, 1);
    run_armed(&c, f_ud);
    check_fault("before_invalid_opcode", &c, V_UD, 0);
    check_record("before_invalid_opcode", WANT(AT(1, 1)));
    check_eq("fault_pushes_RF", c.eflags & EFL_RF, EFL_RF);
    c = string_context(0, f_rep, 0, address_of(watched), 5);
    arm(0, ON_FETCH, address_of(f_rep) + 1, 1);
    arm(1, ON_WRITE, address_of(watched) + 2, 1);
    run_armed(&c, f_rep);
    check_record("on_a_repeated_string", WANT(AT(1, 1), AT(1, 2 | RF)));
}

/* A breakpoint is known from the address alone, before the instruction is fetched. */
static void before_fetch_faults(void)
{
    uint32_t va = 0xe00000;
    struct context c = context_new(0, (const void *)va);

    poke8(va, 0x90);
    poke8(va + 1, 0xcd);
    poke8(va + 2, 0x7f);
    pte_set(va, va);
    arm(0, ON_FETCH, va, 1);
    run_armed(&c, (const uint8_t *)va);
    check_fault("breakpoint_before_page_fault", &c, V_PF, 0);
    check_record("breakpoint_before_page_fault", WANT(AT(0, 1)));
    pte_set(va, va | PTE_P | PTE_W | PTE_U);
    c = context_new(0, (const void *)va);
    arm(0, ON_FETCH, va, 1);
    run_armed(&c, (const uint8_t *)va);
    check_record("breakpoint_of_another_page", WANT(AT(0, 1)));
    poke8(va - 2, 0x81); /* add eax, imm32 across the boundary */
    poke8(va - 1, 0xc0);
    poke(va, 5);
    poke8(va + 4, 0xcd);
    poke8(va + 5, 0x7f);
    c = context_new(0, (const void *)(va - 2));
    arm(0, ON_FETCH, va - 2, 1);
    arm(1, ON_FETCH, va, 1);
    run_armed(&c, (const uint8_t *)va - 2);
    check_done("breakpoint_on_a_straddler", &c);
    check_record("breakpoint_on_a_straddler", WANT(AT(0, 1)));
    check_eq("breakpoint_on_a_straddler_eax", c.eax, 5);
}

/* Armed from where it strikes, and among code that is hot already. */
SNIPPET(h_arm, "mov $2, %ecx; 1: inc %eax; jmp 2f; 2: nop; mov %ebx, %dr7; dec %ecx; jnz 1b; nop");
SNIPPET(h_hot, "mov $2000, %ecx; 1: inc %eax; dec %ecx; jnz 1b; nop");
SNIPPET(h_hot_store, "mov $2000, %ecx; 1: mov %ecx, watched; dec %ecx; jnz 1b; nop");

static void armed_late(void)
{
    struct context c = context_new(0, h_arm);

    c.ebx = DR7_G(0) | 0x400;
    arm_disabled(0, ON_FETCH, address_of(h_arm) + 5, 1);
    run_armed(&c, h_arm);
    check_done("armed_in_the_same_page", &c);
    check_record("armed_in_the_same_page", WANT(AT(5, 1)));
    c = context_new(0, h_hot);
    run_armed(&c, h_hot);
    c = context_new(0, h_hot);
    arm(0, ON_FETCH, address_of(h_hot) + 9, 1);
    run_armed(&c, h_hot);
    check_record("armed_in_hot_code", WANT(AT(9, 1)));
    c = context_new(0, h_hot);
    run_armed(&c, h_hot);
    check_record("disarmed_in_hot_code", WANT());
    c = context_new(3, h_hot_store);
    run_armed(&c, h_hot_store);
    c = string_context(3, h_hot_store, 0, 0, 0);
    arm(0, ON_WRITE, address_of(watched), 4);
    run_armed(&c, h_hot_store);
    check_eq("armed_for_a_hot_store", record.count, RECORDS);
    c = context_new(3, h_hot_store);
    run_armed(&c, h_hot_store);
    check_record("disarmed_for_a_hot_store", WANT());
    check_done("disarmed_for_a_hot_store", &c);
}

/* ---- large and global pages ---------------------------------------------------------------------------------------- */

#define LARGE 0xc00000u /* 4 MiB, mapped by one entry */

SNIPPET(l_stores, "mov $3, %ecx; 1: mov %ecx, (%ebx); mov %ecx, 0x1000(%ebx); mov 0x2000(%ebx), %eax; dec %ecx; jnz 1b; nop");

static void large_pages(int ring)
{
    for (unsigned kind = ON_WRITE; kind <= ON_ACCESS; kind += ON_ACCESS - ON_WRITE) {
        struct context c = context_new(ring, l_stores);

        c.ebx = LARGE;
        run_armed(&c, l_stores);
        check_record("large_page_without", WANT());
        c = context_new(ring, l_stores);
        c.ebx = LARGE;
        arm(0, kind, LARGE + 0x1000, 4);
        arm(1, kind, LARGE + 0x2000, 4);
        run_armed(&c, l_stores);
        check_done("large_page", &c);
        if (kind == ON_WRITE)
            check_record("large_page_writes", WANT(AT(13, 1), AT(13, 1), AT(13, 1)));
        else
            check_record("large_page_accesses",
                         WANT(AT(13, 1), AT(19, 2), AT(13, 1), AT(19, 2), AT(13, 1), AT(19, 2)));
    }
}

static void paging_kinds(void)
{
    uint32_t entry = page_directory[LARGE >> 22];

    set_cr4(get_cr4() | 0x90);
    for (unsigned global = 0; global <= 1; global++) {
        page_directory[LARGE >> 22] = LARGE | PTE_P | PTE_W | PTE_U | PTE_PS | (global ? PTE_G : 0);
        set_cr4(get_cr4() & ~0x80u);
        set_cr4(get_cr4() | 0x80);
        large_pages(0);
        large_pages(3);
    }
    page_directory[LARGE >> 22] = entry;
    set_cr4(get_cr4() & ~0x90u);
    large_pages(0);
}

/* ---- the registers themselves ------------------------------------------------------------------------------------ */

SNIPPET(g_read, "mov %dr7, %eax; nop");
SNIPPET(g_write, "mov %eax, %dr0; nop");
SNIPPET(g_alias_read, "mov %dr5, %eax; mov %dr4, %ecx; nop");
SNIPPET(g_alias_write, "mov %eax, %dr4; nop");

static void registers(void)
{
    struct context c;

    set_dr0(0x12345678);
    set_dr3(0xfedcba98);
    check_eq("dr0", get_dr0(), 0x12345678);
    check_eq("dr3", get_dr3(), 0xfedcba98);
    set_dr6(0);
    check_eq("dr6_ones", get_dr6(), DR6_NONE);
    set_dr6(0xffffffff);
    check_eq("dr6_all", get_dr6(), 0xffffefff);
    set_dr6(DR6_NONE);
    set_dr7(0);
    check_eq("dr7_ones", get_dr7(), 0x400);
    set_dr0(0xfffffff0);
    set_dr1(0xfffffff0);
    set_dr2(0xfffffff0);
    set_dr3(0xfffffff0);
    set_dr7(0xffffdfff);
    check_eq("dr7_all_but_GD", get_dr7(), 0xffff07ff);
    set_dr7(0x400);
    c = run_at(3, g_read);
    check_fault("ring3_reads", &c, V_GP, 0);
    c = run_at(3, g_write);
    check_fault("ring3_writes", &c, V_GP, 0);
    c = run_at(0, g_alias_read);
    check_done("aliases", &c);
    check_eq("dr5_is_dr7", c.eax, 0x400);
    check_eq("dr4_is_dr6", c.ecx, DR6_NONE);
    set_cr4(get_cr4() | CR4_DE);
    c = run_at(0, g_alias_read);
    check_fault("dr5_with_DE", &c, V_UD, 0);
    c = run_at(0, g_alias_write);
    check_fault("dr4_with_DE", &c, V_UD, 0);
    set_cr4(get_cr4() & ~CR4_DE);
}

/* GD: a fault before the MOV, once: it clears GD. */
static uint32_t dr7_in_handler;
static bool on_detect(struct frame *f)
{
    if (f->vector == V_DB)
        dr7_in_handler = get_dr7();
    return on_debug(f);
}

static void general_detect(void)
{
    struct context c = context_new(0, g_read);

    armed = DR7_GD;
    run_armed(&c, g_read);
    check_done("general_detect", &c);
    check_record("general_detect", WANT(AT(0, BD | RF)));
    c = context_new(0, g_write);
    record.base = address_of(g_write);
    record.count = 0;
    guest_hook = on_detect;
    set_dr7(DR7_GD | 0x400);
    context_run(&c);
    guest_hook = NULL;
    set_dr7(0x400);
    check_eq("handler_finds_GD_clear", dr7_in_handler, 0x400);
}

/* B0 to B3 belong to the last exception; BS, BD and BT stay until software clears them. */
static uint32_t dr6_seen;
static bool on_sticky(struct frame *f)
{
    if (f->vector != V_DB)
        return false;
    dr6_seen = get_dr6();
    f->eflags |= EFL_RF;
    return true;
}

static void status(void)
{
    struct context c = context_new(3, a_store);

    set_dr6(DR6_NONE | 0x6000);
    set_dr0(address_of(watched));
    guest_hook = on_sticky;
    set_dr7(0xd0402);
    context_run(&c);
    guest_hook = NULL;
    set_dr7(0x400);
    check_eq("dr6_keeps_BD_and_BS", dr6_seen, DR6_NONE | 0x6001);
    set_dr6(DR6_NONE);
    set_dr0(NOWHERE);
}

void guest_main(void)
{
    set_cr4(get_cr4() | 0x200);
    lengths(); /* without paging */
    several();
    page_splits();
    strings(0);
    paging_on();
    registers();
    data_accesses(0);
    data_accesses(3);
    transfers();
    lengths();
    several();
    page_splits();
    strings(0);
    strings(3);
    if (!option_given("qemu")) /* it would end itself: its own accesses under watch find a lock taken */
        implicit();
    with_faults();
    ports();
    instructions();
    before_fetch_faults();
    armed_late();
    paging_kinds();
    general_detect();
    status();
}
