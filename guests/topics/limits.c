/*
 * Limits and rights of segments, access by access: each width from a byte to the 512 bytes
 * of FXSAVE at the last place that fits and one beyond, in segments of every make
 * (expand-up and -down, B set and clear, byte and page granular), read-only and code
 * segments, which exception an access through SS earns, near transfers and instruction
 * fetches at the limit of CS, bases that wrap at 4 GiB.
 *
 * An access that wraps at offset 4 GiB of a segment without a limit is not tried: the manual leaves open
 * whether it faults.
 *
 * Ref: Intel SDM vol. 3A, ch. "Protection", Limit Checking and Type Checking; vol. 2, under
 * the instructions' names.
 */
#include "../lib/guest.h"

#define SEL(n) (SEL_FREE + 8 * (n))
#define UNDER  SEL(0)
#define RO     SEL(1)
#define CODE_  SEL(2)
#define LIMITED_CODE SEL(3)
#define DATA   (SCRATCH + 0x10000u)

/* EAX: selector for ES, EBX: offset. The access stands 2 bytes behind the start. */
#define ACCESS(name, text) SNIPPET(name, "mov %eax, %es; " text)
ACCESS(a_byte, "movb %es:(%ebx), %dl");
ACCESS(a_byte_store, "movb $0x11, %es:(%ebx)");
ACCESS(a_word, "movw %es:(%ebx), %dx");
ACCESS(a_word_store, "movw $0x1111, %es:(%ebx)");
ACCESS(a_dword, "movl %es:(%ebx), %edx");
ACCESS(a_dword_store, "movl $0x11111111, %es:(%ebx)");
ACCESS(a_add, "addl %ecx, %es:(%ebx)");
ACCESS(a_cmp, "cmpl %ecx, %es:(%ebx)");
ACCESS(a_xchg, "xchgl %ecx, %es:(%ebx)");
ACCESS(a_cmpxchg, "lock cmpxchg %ecx, %es:(%ebx)");
ACCESS(a_cmpxchg8b, "cmpxchg8b %es:(%ebx)");
ACCESS(a_movzx, "movzwl %es:(%ebx), %edx");
ACCESS(a_shl, "shlw $1, %es:(%ebx)");
ACCESS(a_bts, "btsl $3, %es:(%ebx)");
ACCESS(a_setcc, "setc %es:(%ebx)");
ACCESS(a_les, "les %es:(%ebx), %ecx");
ACCESS(a_bound, "bound %ebp, %es:(%ebx)");
ACCESS(a_push_mem, "pushl %es:(%ebx)");
ACCESS(a_pop_mem, "popl %es:(%ebx)");
ACCESS(a_sgdt, "sgdt %es:(%ebx)");
ACCESS(a_smsw, "smsw %es:(%ebx)");
ACCESS(a_fld_dword, "flds %es:(%ebx)");
ACCESS(a_fld_qword, "fldl %es:(%ebx)");
ACCESS(a_fld_tbyte, "fldt %es:(%ebx)");
ACCESS(a_fstp_qword, "fstpl %es:(%ebx)");
ACCESS(a_fstp_tbyte, "fstpt %es:(%ebx)");
ACCESS(a_fbstp, "fbstp %es:(%ebx)");
ACCESS(a_fistp_word, "fistps %es:(%ebx)");
ACCESS(a_fnstcw, "fnstcw %es:(%ebx)");
ACCESS(a_fldcw, "fldcw %es:(%ebx)");
ACCESS(a_fnstenv, "fnstenv %es:(%ebx)");
ACCESS(a_fldenv, "fldenv %es:(%ebx)");
ACCESS(a_fnsave, "fnsave %es:(%ebx)");
ACCESS(a_frstor, "frstor %es:(%ebx)");
ACCESS(a_fxsave, "fxsave %es:(%ebx)");
ACCESS(a_movq, "movq %es:(%ebx), %mm0");
ACCESS(a_movq_store, "movq %mm0, %es:(%ebx)");
ACCESS(a_movups, "movups %es:(%ebx), %xmm0");
ACCESS(a_movups_store, "movups %xmm0, %es:(%ebx)");
ACCESS(a_stosb, "stosb");
ACCESS(a_stosw, "stosw");
ACCESS(a_stosl, "stosl");
ACCESS(a_movsl, "movsl");
ACCESS(a_scasw, "scasw");
ACCESS(a_cmpsl, "cmpsl");
ACCESS(a_lodsl, "lodsl %es:(%esi), %eax");

static const struct {
    const char *name;
    const void *code;
    uint16_t size;
    bool is_store;
    uint8_t step; /* to the next offset that may be used */
} accesses[] = {
    { "byte", a_byte, 1, 0, 1 },           { "byte_store", a_byte_store, 1, 1, 1 },
    { "word", a_word, 2, 0, 1 },           { "word_store", a_word_store, 2, 1, 1 },
    { "dword", a_dword, 4, 0, 1 },         { "dword_store", a_dword_store, 4, 1, 1 },
    { "add", a_add, 4, 1, 1 },             { "cmp", a_cmp, 4, 0, 1 },
    { "xchg", a_xchg, 4, 1, 1 },           { "cmpxchg", a_cmpxchg, 4, 1, 1 },
    { "cmpxchg8b", a_cmpxchg8b, 8, 1, 1 }, { "movzx", a_movzx, 2, 0, 1 },
    { "shl", a_shl, 2, 1, 1 },             { "bts", a_bts, 4, 1, 1 },
    { "setcc", a_setcc, 1, 1, 1 },         { "les", a_les, 6, 0, 1 },
    { "bound", a_bound, 8, 0, 1 },         { "push_mem", a_push_mem, 4, 0, 1 },
    { "pop_mem", a_pop_mem, 4, 1, 1 },     { "sgdt", a_sgdt, 6, 1, 1 },
    { "smsw", a_smsw, 2, 1, 1 },           { "fld_dword", a_fld_dword, 4, 0, 1 },
    { "fld_qword", a_fld_qword, 8, 0, 1 }, { "fld_tbyte", a_fld_tbyte, 10, 0, 1 },
    { "fstp_qword", a_fstp_qword, 8, 1, 1 }, { "fstp_tbyte", a_fstp_tbyte, 10, 1, 1 },
    { "fbstp", a_fbstp, 10, 1, 1 },        { "fistp_word", a_fistp_word, 2, 1, 1 },
    { "fnstcw", a_fnstcw, 2, 1, 1 },       { "fldcw", a_fldcw, 2, 0, 1 },
    { "fnstenv", a_fnstenv, 28, 1, 1 },    { "fldenv", a_fldenv, 28, 0, 1 },
    { "fnsave", a_fnsave, 108, 1, 1 },     { "frstor", a_frstor, 108, 0, 1 },
    { "fxsave", a_fxsave, 512, 1, 16 },    { "movq", a_movq, 8, 0, 1 },
    { "movq_store", a_movq_store, 8, 1, 1 }, { "movups", a_movups, 16, 0, 1 },
    { "movups_store", a_movups_store, 16, 1, 1 }, { "stosb", a_stosb, 1, 1, 1 },
    { "stosw", a_stosw, 2, 1, 1 },         { "stosl", a_stosl, 4, 1, 1 },
    { "movsl", a_movsl, 4, 1, 1 },         { "scasw", a_scasw, 2, 0, 1 },
    { "cmpsl", a_cmpsl, 4, 0, 1 },         { "lodsl", a_lodsl, 4, 0, 1 },
};
#define ACCESSES (sizeof accesses / sizeof accesses[0])

static uint32_t source[4];

static void set(uint32_t sel, uint64_t descriptor)
{
    *(volatile uint64_t *)&guest_gdt[sel >> 3] = descriptor;
}

static struct context use(int ring, const void *code, uint32_t sel, uint32_t ofs)
{
    struct context c = context_new(ring, code);

    __asm__ volatile("fninit; fld1");
    c.eax = sel;
    c.ebx = c.edi = ofs;
    c.esi = code == a_lodsl ? ofs : address_of(source);
    c.ecx = c.edx = c.ebp = 0;
    context_run(&c);
    return c;
}

/* Zeros, so that LES gets a null selector and BOUND a range that holds EBP. */
static void clear_data(uint32_t linear, uint32_t bytes)
{
    memset((void *)linear, 0, bytes);
}

/* Does it run to its end? */
static bool is_done(const struct context *c)
{
    return c->vector == VEC_DONE;
}

static bool is_refused(const struct context *c, const void *code, uint32_t sel, uint32_t ofs, uint32_t esp)
{
    return c->vector == V_GP && c->error == 0 && c->eip == address_of(code) + 2 && c->eax == sel && c->ebx == ofs &&
           c->edi == ofs && c->ecx == 0 && c->edx == 0 && c->esp == esp;
}

/* Every access at the edges of [lo, hi] in the segment UNDER. */
static void edges(const char *segment, int ring, uint64_t descriptor, uint32_t base, uint32_t lo, uint32_t hi)
{
    uint32_t sel = UNDER | (ring ? 3u : 0), esp[2] = { context_new(0, source).esp, context_new(3, source).esp };

    set(UNDER, descriptor | (ring ? 0x60ull << 40 : 0));
    for (unsigned i = 0; i < ACCESSES; i++) {
        uint32_t size = accesses[i].size, step = accesses[i].step, bad = 0, guard;
        const void *code = accesses[i].code;
        /* at ring 0 the frame lies above where ESP was */
        uint32_t at = ring ? esp[1] : esp[0];
        struct context c;

        clear_data(base + hi + 1 - size, size);
        c = use(ring, code, sel, hi + 1 - size);
        bad |= is_done(&c) ? 0 : 1;
        guard = hi == 0xffffffff ? 0 : peek(base + hi + 1);
        for (uint32_t ofs = hi + 1 - size + step, n = 0; n < size / step && n < 12; n++, ofs += step) {
            if (hi == 0xffffffff)
                break; /* around the end of 4 GiB: the manual leaves it open */
            c = use(ring, code, sel, ofs);
            bad |= is_refused(&c, code, sel, ofs, at) ? 0 : 2;
        }
        if (hi != 0xffffffff) {
            c = use(ring, code, sel, hi + 1 - size + step);
            bad |= peek(base + hi + 1) == guard ? 0 : 4;
            c = use(ring, code, sel, 0xfffffff0);
            bad |= is_refused(&c, code, sel, 0xfffffff0, at) ? 0 : 8;
        }
        if (lo) {
            clear_data(base + lo, size);
            c = use(ring, code, sel, lo);
            bad |= is_done(&c) ? 0 : 16;
            c = use(ring, code, sel, lo - step);
            bad |= is_refused(&c, code, sel, lo - step, at) ? 0 : 32;
            c = use(ring, code, sel, 0);
            bad |= is_refused(&c, code, sel, 0, at) ? 0 : 64;
        }
        check_eq(name2(segment, accesses[i].name), bad, 0);
    }
}

static void all_edges(int ring)
{
    edges(ring ? "up_ring3" : "up_ring0", ring, DESC(DATA, 0x2fff, 0x93, 0x4), DATA, 0, 0x2fff);
    edges(ring ? "odd_up_ring3" : "odd_up_ring0", ring, DESC(DATA + 1, 0x2ffe, 0x93, 0), DATA + 1, 0, 0x2ffe);
    edges(ring ? "pages_ring3" : "pages_ring0", ring, DESC(DATA, 2, 0x93, 0xc), DATA, 0, 0x2fff);
    edges(ring ? "down16_ring3" : "down16_ring0", ring, DESC(DATA, 0xcfff, 0x97, 0), DATA, 0xd000, 0xffff);
    edges(ring ? "down32_ring3" : "down32_ring0", ring, DESC(DATA, 0xcfff, 0x97, 0x4), DATA, 0xd000, 0xffffffff);
    edges(ring ? "down_pages_ring3" : "down_pages_ring0", ring, DESC(DATA, 0xc, 0x97, 0xc), DATA, 0xd000, 0xffffffff);
}

/* ---- rights --------------------------------------------------------------------------------------- */

SNIPPET(r_cs_read, "push %eax; push $1f; lret; 1: mov %cs:(%ebx), %ecx");
SNIPPET(r_cs_write, "push %eax; push $1f; lret; 1: movl $1, %cs:(%ebx)");
SNIPPET(r_cs_rmw, "push %eax; push $1f; lret; 1: incl %cs:(%ebx)");

static void rights(void)
{
    for (int ring = 0; ring < 4; ring += 3) {
        uint32_t rpl = ring ? 3 : 0, dpl = ring ? 0x60 : 0;
        static const uint8_t types[] = { 0x91, 0x95, 0x9b, 0x9f };
        static const char *const names[] = { "read_only", "read_only_down", "code", "conforming" };

        for (unsigned t = 0; t < 4; t++) {
            uint32_t ofs = types[t] == 0x95 ? 0x8000 : 0x100, bad = 0;

            set(UNDER, DESC(DATA, t == 1 ? 0xfff : 0xffff, types[t] | dpl, 0x4));
            for (unsigned i = 0; i < ACCESSES; i++) {
                struct context c;

                clear_data(DATA + ofs, 512);
                c = use(ring, accesses[i].code, UNDER | rpl, ofs);
                if (accesses[i].is_store ? !is_refused(&c, accesses[i].code, UNDER | rpl, ofs, context_new(ring, source).esp)
                                         : !is_done(&c)) {
                    say("%s %s: vector %u\n", names[t], accesses[i].name, c.vector);
                    bad++;
                }
            }
            check_eq(name2("stores_to", names[t]), bad, 0);
        }
        /* through CS itself */
        set(CODE_, DESC(0, 0xfffff, 0x99 | dpl, 0xc)); /* execute-only */
        struct context c = use(ring, r_cs_read, CODE_ | rpl, DATA);
        check_fault("read_of_execute_only_cs", &c, V_GP, 0);
        set(CODE_, DESC(0, 0xfffff, 0x9b | dpl, 0xc));
        c = use(ring, r_cs_read, CODE_ | rpl, DATA);
        check_done("read_of_readable_cs", &c);
        c = use(ring, r_cs_write, CODE_ | rpl, DATA);
        check_fault("write_through_cs", &c, V_GP, 0);
        c = use(ring, r_cs_rmw, CODE_ | rpl, DATA);
        check_fault("rmw_through_cs", &c, V_GP, 0);
    }
}

/* ---- SS: #SS(0), whatever the instruction ------------------------------------------------------------ */

/* EAX: selector for SS, EBX: offset, in EBP and ESP as well. ESI and EDI keep the old stack. */
#define STACK(name, text)                                                                                    \
    SNIPPET(name, "mov %ss, %esi; mov %esp, %edi; mov %eax, %ss; mov %ebx, %esp; mov %ebx, %ebp; " #name     \
                  "_1: " text "; mov %esi, %ss; mov %edi, %esp");                                            \
    LABEL(name##_1)
STACK(k_ebp, "mov (%ebp), %ecx");
STACK(k_ebp_index, "mov (%ebp, %edx, 4), %ecx");
STACK(k_ebp_as_index, "mov (%edx, %ebp), %ecx; .byte 0x3e; nop");
STACK(k_esp, "mov (%esp), %ecx");
STACK(k_ss_override, "mov %ss:(%ebx), %ecx");
STACK(k_ds_override, "mov %ds:(%ebp), %ecx");
STACK(k_store, "mov %ecx, (%ebp)");
STACK(k_fld, "fldt (%ebp); fstp %st(0)");
STACK(k_fnsave, "fnsave (%ebp)");
STACK(k_pop, "pop %ecx");
STACK(k_popw, "popw %cx");
STACK(k_popf, "popf");
STACK(k_popa, "mov %esi, %ss; mov %edi, %esp; mov %eax, %ss; mov %ebx, %esp; k_popa_2: popa");
STACK(k_leave, "leave");
STACK(k_ret, "ret");
STACK(k_lret, "lret");
STACK(k_iret, "iret");
STACK(k_push, "push %ecx");
STACK(k_pushw, "pushw %cx");
STACK(k_push_imm, "push $1");
STACK(k_push_mem, "pushl source_m");
STACK(k_push_seg, "push %ds");
STACK(k_pushf, "pushf");
STACK(k_pusha, "pusha");
STACK(k_call, "call 1f; 1:");
STACK(k_callr, "mov $1f, %ecx; k_callr_2: call *%ecx; 1:");
STACK(k_lcall, "lcall *far_m");
STACK(k_enter, "enter $0, $0");
STACK(k_enter_far, "enter $0x100, $0");
STACK(k_enter_nested, "enter $0, $2");
LABEL(k_popa_2);
LABEL(k_callr_2);
static uint32_t source_word __attribute__((used)) = 5;
static struct __attribute__((packed)) {
    uint32_t ofs;
    uint16_t sel;
} far_code __attribute__((used)) = { 0x1000, SEL_UCODE };
__asm__(".set source_m, source_word\n.set far_m, far_code");

static struct context on_stack(const void *code, uint32_t ofs)
{
    struct context c = context_new(3, code);

    c.eax = UNDER | 3;
    c.ebx = ofs;
    context_run(&c);
    return c;
}

static void stack_faults(void)
{
    static const struct {
        const char *name;
        const uint8_t *code, *at;
        uint32_t pops, pushes; /* bytes read above the offset, or written below it */
    } cases[] = {
        { "ebp", k_ebp, k_ebp_1, 4, 0 },
        { "ebp_index", k_ebp_index, k_ebp_index_1, 4, 0 },
        { "esp", k_esp, k_esp_1, 4, 0 },
        { "ss_override", k_ss_override, k_ss_override_1, 4, 0 },
        { "store", k_store, k_store_1, 4, 0 },
        { "fld", k_fld, k_fld_1, 10, 0 },
        { "fnsave", k_fnsave, k_fnsave_1, 108, 0 },
        { "pop", k_pop, k_pop_1, 4, 0 },
        { "popw", k_popw, k_popw_1, 2, 0 },
        { "popf", k_popf, k_popf_1, 4, 0 },
        { "popa", k_popa, k_popa_2, 32, 0 },
        { "leave", k_leave, k_leave_1, 4, 0 },
        { "ret", k_ret, k_ret_1, 4, 0 },
        { "lret", k_lret, k_lret_1, 8, 0 },
        { "iret", k_iret, k_iret_1, 12, 0 },
        { "push", k_push, k_push_1, 0, 4 },
        { "pushw", k_pushw, k_pushw_1, 0, 2 },
        { "push_imm", k_push_imm, k_push_imm_1, 0, 4 },
        { "push_mem", k_push_mem, k_push_mem_1, 0, 4 },
        { "push_seg", k_push_seg, k_push_seg_1, 0, 4 },
        { "pushf", k_pushf, k_pushf_1, 0, 4 },
        { "pusha", k_pusha, k_pusha_1, 0, 32 },
        { "call", k_call, k_call_1, 0, 4 },
        { "call_register", k_callr, k_callr_2, 0, 4 },
        { "lcall", k_lcall, k_lcall_1, 0, 8 },
        { "enter", k_enter, k_enter_1, 0, 4 },
        { "enter_nested", k_enter_nested, k_enter_nested_1, 0, 12 },
    };
    struct context c;

    set(UNDER, DESC(DATA, 0xfff, 0xf3, 0x4));
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t n = cases[i].pops;

        if (n)
            for (uint32_t ofs = 0x1000 - n + 1; ofs <= 0x1000; ofs += n > 8 ? n - 1 : 1) {
                c = on_stack(cases[i].code, ofs);
                check_fault(name2("stack", cases[i].name), &c, V_SS, 0);
                check(name2("stack_unchanged", cases[i].name),
                      c.eip == address_of(cases[i].at) && c.esp == ofs && c.ebp == ofs && c.ss == (UNDER | 3));
            }
        n = cases[i].pushes;
        if (n)
            for (uint32_t ofs = 0; ofs < n; ofs += n > 8 ? n - 1 : 1) {
                c = on_stack(cases[i].code, ofs);
                check_fault(name2("stack", cases[i].name), &c, V_SS, 0);
                check(name2("stack_unchanged", cases[i].name),
                      c.eip == address_of(cases[i].at) && c.esp == ofs && c.ebp == ofs && c.ss == (UNDER | 3));
            }
    }
    c = on_stack(k_ebp, 0xffc);
    check_done("stack_last_dword", &c);
    c = on_stack(k_push, 4);
    check_done("stack_push_at_the_bottom", &c);
    c = on_stack(k_pusha, 32);
    check_done("stack_pusha_at_the_bottom", &c);
    c = on_stack(k_ds_override, DATA);
    check_done("ebp_with_ds", &c);
    c = on_stack(k_ebp_as_index, DATA);
    check_done("ebp_as_index_is_in_ds", &c);
}

/* ---- CS ---------------------------------------------------------------------------------------------------- */

/* Runs in a segment that begins at n_code and ends before n_beyond, where an INT 7Fh stands: what does not
 * check ends there. EBX: offset of n_beyond. */
SNIPPET(n_code, "n_jmp: jmp n_beyond; n_jmp_near: .byte 0xe9; .long n_beyond - . - 4;"
                "n_jcc: cmp %eax, %eax; n_jcc_1: jz n_beyond; n_jcc_near: .byte 0x0f, 0x84; .long n_beyond - . - 4;"
                "n_jecxz: jecxz n_beyond; n_loop: loop n_beyond; n_loopne: or $1, %al; n_loopne_1: loopne n_beyond;"
                "n_call: call n_beyond; n_jmp_r: jmp *%ebx; n_call_r: call *%ebx; n_jmp_m: jmp *(%esi);"
                "n_call_m: call *(%esi); n_ret: push %ebx; n_ret_1: ret; n_ret_n: push %ebx; n_ret_n_1: ret $4;"
                "n_not: or $1, %al; jz n_beyond; mov $1, %ecx; loop n_beyond; int $0x7f;"
                "n_sequence: nop; n_cross: .byte 0xb8, 0, 0;" /* MOV EAX, imm32, of which two bytes lie beyond */
                "n_beyond: .byte 0, 0");
LABEL(n_jmp);
LABEL(n_jmp_near);
LABEL(n_jcc);
LABEL(n_jcc_1);
LABEL(n_jcc_near);
LABEL(n_jecxz);
LABEL(n_loop);
LABEL(n_loopne);
LABEL(n_loopne_1);
LABEL(n_call);
LABEL(n_jmp_r);
LABEL(n_call_r);
LABEL(n_jmp_m);
LABEL(n_call_m);
LABEL(n_ret);
LABEL(n_ret_1);
LABEL(n_ret_n);
LABEL(n_ret_n_1);
LABEL(n_not);
LABEL(n_sequence);
LABEL(n_cross);
LABEL(n_beyond);
SNIPPET(n_enter, "push %eax; push %ecx; mov %edx, %ecx; lret");

static struct context in_limited_code(int ring, const uint8_t *from)
{
    static uint32_t target;
    struct context c = context_new(ring, n_enter);

    target = (uint32_t)(n_beyond - n_code);
    c.eax = LIMITED_CODE | (ring ? 3u : 0);
    c.ecx = (uint32_t)(from - n_code);
    c.edx = from == n_jecxz ? 0 : 5; /* ECX of the code */
    c.ebx = target;
    c.esi = address_of(&target);
    context_run(&c);
    return c;
}

static void code_limit(int ring)
{
    static const struct {
        const char *name;
        const uint8_t *from, *at;
        uint32_t pushed;
    } cases[] = {
        { "jmp", n_jmp, n_jmp, 0 },          { "jmp_near", n_jmp_near, n_jmp_near, 0 },
        { "jcc", n_jcc, n_jcc_1, 0 },        { "jcc_near", n_jcc, n_jcc_1, 0 },
        { "jecxz", n_jecxz, n_jecxz, 0 },    { "loop", n_loop, n_loop, 0 },
        { "loopne", n_loopne, n_loopne_1, 0 }, { "call", n_call, n_call, 0 },
        { "jmp_register", n_jmp_r, n_jmp_r, 0 }, { "call_register", n_call_r, n_call_r, 0 },
        { "jmp_memory", n_jmp_m, n_jmp_m, 0 }, { "call_memory", n_call_m, n_call_m, 0 },
        { "ret", n_ret, n_ret_1, 4 },        { "ret_n", n_ret_n, n_ret_n_1, 4 },
    };
    struct context c;

    set(LIMITED_CODE, DESC(address_of(n_code), (uint32_t)(n_beyond - n_code) - 1, 0x9b | (ring ? 0x60u : 0), 0x4));
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        c = in_limited_code(ring, cases[i].from);
        check_fault(name2("near", cases[i].name), &c, V_GP, 0);
        check_eq(name2("near_eip", cases[i].name), c.eip, (uint32_t)(cases[i].at - n_code));
        check_eq(name2("near_esp", cases[i].name), c.esp, context_new(ring, n_code).esp - cases[i].pushed);
        check_eq(name2("near_ecx", cases[i].name), c.ecx, cases[i].from == n_jecxz ? 0 : 5);
    }
    c = in_limited_code(ring, n_not);
    check_done("near_not_taken", &c);
    check_eq("near_not_taken_ecx", c.ecx, 0);
    c = in_limited_code(ring, n_cross);
    check_fault("instruction_across_the_limit", &c, V_GP, 0);
    check_eq("instruction_across_the_limit_eip", c.eip, (uint32_t)(n_cross - n_code));
    c = in_limited_code(ring, n_sequence);
    check_fault("running_into_the_limit", &c, V_GP, 0);
    check_eq("running_into_the_limit_eip", c.eip, (uint32_t)(n_cross - n_code));
    set(LIMITED_CODE, DESC(address_of(n_code), (uint32_t)(n_cross - n_code) - 1, 0x9b | (ring ? 0x60u : 0), 0x4));
    c = in_limited_code(ring, n_sequence);
    check_fault("running_over_the_limit", &c, V_GP, 0);
    check_eq("running_over_the_limit_eip", c.eip, (uint32_t)(n_cross - n_code));
    /* far transfers: the limit is the new segment's */
    c = in_limited_code(ring, n_cross);
    check_fault("far_beyond_the_limit", &c, V_GP, 0);
    check_eq("far_beyond_the_limit_cs", c.cs, ring ? SEL_UCODE : SEL_KCODE);
}

/* ---- bases ------------------------------------------------------------------------------------------------- */

SNIPPET(w_read, "mov %eax, %fs; mov %fs:(%ebx), %ecx");
SNIPPET(w_movs, "mov %eax, %es; mov %eax, %ds; cld; rep movsl");

static void wrapping_bases(void)
{
    for (int ring = 0; ring < 4; ring += 3) {
        uint32_t rpl = ring ? 3 : 0, dpl = ring ? 0x60 : 0;
        struct context c;

        poke(DATA, 0xfeedbeef);
        poke(DATA + 4, 0x12345678);
        set(UNDER, DESC(DATA + 0x1000, 0xfffff, 0x93 | dpl, 0xc));
        c = use(ring, w_read, UNDER | rpl, 0xfffff000);
        check_eq("negative_offset", c.ecx, 0xfeedbeef);
        set(UNDER, DESC(0xfff00000, 0xfffff, 0x93 | dpl, 0xc));
        c = use(ring, w_read, UNDER | rpl, DATA + 0x100000);
        check_eq("high_base", c.ecx, 0xfeedbeef);
        set(UNDER, DESC(0xfff00000, 0xffe, 0x93 | dpl, 0xc)); /* with a limit */
        c = use(ring, w_read, UNDER | rpl, 0xffeffd);
        check_fault("high_base_limit", &c, V_GP, 0);
        set(UNDER, DESC(0xfff00000, 0x1000, 0x93 | dpl, 0xc));
        c = use(ring, w_read, UNDER | rpl, DATA + 0x100000);
        check_eq("high_base_with_limit", c.ecx, 0xfeedbeef);
        set(UNDER, DESC(0xfff00000, 0x8ff, 0x97 | dpl, 0xc)); /* expand-down: 900000h and up */
        c = use(ring, w_read, UNDER | rpl, DATA + 0x100000);
        check_eq("high_base_expand_down", c.ecx, 0xfeedbeef);
        c = context_new(ring, w_movs);
        c.eax = UNDER | rpl;
        c.esi = DATA + 0x100000;
        c.edi = DATA + 0x100010;
        c.ecx = 2;
        context_run(&c);
        check_done("high_base_movs", &c);
        check_eq("high_base_movs_stored", peek(DATA + 0x14), 0x12345678);
    }
}

void guest_main(void)
{
    wrapping_bases();
    if (option_given("qemu")) /* it would store and run where it must not */
        return;
    set_cr4(get_cr4() | 0x200);
    for (int ring = 0; ring < 4; ring += 3) {
        all_edges(ring);
        code_limit(ring);
    }
    rights();
    stack_faults();
}
