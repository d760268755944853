/*
 * Which of two exceptions comes first when an instruction earns both, and what a fault
 * leaves as it was: privilege, #NM and limits before pages, the order of an instruction's
 * operands, instruction fetches over a page's end, #DE and #BR from all forms, ENTER's
 * look at where the stack will end.
 *
 * Ref: Intel SDM vol. 3A, table "Priority Among Concurrent Events", and "Program or Task
 * Restart"; vol. 2, pseudocode of each instruction.
 */
#include "../lib/guest.h"

#define SEL(n)  (SEL_FREE + 8 * (n))
#define LIMITED SEL(0)
#define PAGE    (SCRATCH + 0x8000u)
#define ABSENT  (SCRATCH + 0x9000u) /* the page behind PAGE */
#define ABSENT2 (SCRATCH + 0xb000u)
#define RWU     (PTE_P | PTE_W | PTE_U)

#define ABSENT_  "0x809000"
#define ABSENT2_ "0x80b000"

/* Privilege before the operand. */
SNIPPET(v_lgdt, "lgdt " ABSENT_);
SNIPPET(v_lidt, "lidt " ABSENT_);
SNIPPET(v_lldt, "lldt " ABSENT_);
SNIPPET(v_ltr, "ltr " ABSENT_);
SNIPPET(v_lmsw, "lmsw " ABSENT_);
SNIPPET(v_invlpg, "invlpg " ABSENT_);
SNIPPET(v_insb, "mov $" ABSENT_ ", %edi; v_insb_1: insb");
SNIPPET(v_lock_hlt, ".byte 0xf0, 0xf4");
SNIPPET(v_lock_cli, ".byte 0xf0, 0xfa");
LABEL(v_insb_1);
/* Other rights to the operand's address: these look at memory first. */
SNIPPET(v_sgdt, "sgdt " ABSENT_);
SNIPPET(v_verr, "verr " ABSENT_);
SNIPPET(v_lar, "larl " ABSENT_ ", %ecx");
/* Units that are not there. */
SNIPPET(n_fld, "fldl " ABSENT_);
SNIPPET(n_fnsave, "fnsave " ABSENT_);
SNIPPET(n_fnstcw, "fnstcw " ABSENT_);
SNIPPET(n_movq, "movq " ABSENT_ ", %mm0");
SNIPPET(n_movups, "movups " ABSENT_ ", %xmm0");
/* The operand before what it says. */
SNIPPET(o_div, "divl " ABSENT_);
SNIPPET(o_idivb, "idivb " ABSENT_);
SNIPPET(o_bound, "bound %eax, " ABSENT_);
SNIPPET(o_les, "les " ABSENT_ ", %ecx");
SNIPPET(o_lcall, "lcall *" ABSENT_);
SNIPPET(o_ljmp, "ljmp *" ABSENT_);
SNIPPET(o_jmp, "jmp *" ABSENT_);
SNIPPET(o_cmpxchg, "mov $1, %eax; o_cmpxchg_1: cmpxchg %ecx, (%ebx)"); /* differs, and writes what it read */
LABEL(o_cmpxchg_1);
/* Two operands: EAX and EBX absent, ESP as set. */
SNIPPET(t_push, "mov %esp, %edi; mov %ebx, %esp; t_push_1: pushl (%eax); mov %edi, %esp");
SNIPPET(t_pop, "mov %esp, %edi; mov %ebx, %esp; t_pop_1: popl (%eax); mov %edi, %esp");
SNIPPET(t_pop_esp, "mov %esp, %edi; mov %ebx, %esp; t_pop_esp_1: popl -4(%esp); mov %edi, %esp");
SNIPPET(t_call, "mov %esp, %edi; mov %ebx, %esp; t_call_1: call *(%eax); mov %edi, %esp");
SNIPPET(t_lcall, "mov %esp, %edi; mov %ebx, %esp; t_lcall_1: lcall *(%eax); mov %edi, %esp");
SNIPPET(t_movs, "mov %eax, %esi; mov %ebx, %edi; t_movs_1: movsl");
SNIPPET(t_cmps, "mov %eax, %esi; mov %ebx, %edi; t_cmps_1: cmpsl");
LABEL(t_push_1);
LABEL(t_pop_1);
LABEL(t_pop_esp_1);
LABEL(t_call_1);
LABEL(t_lcall_1);
LABEL(t_movs_1);
LABEL(t_cmps_1);
/* Limits before pages. */
SNIPPET(l_read, "mov %eax, %es; l_read_1: mov %es:0x1000, %ecx");
SNIPPET(l_push, "mov %ss, %esi; mov %esp, %edi; mov %eax, %ss; mov $0x1004, %esp; l_push_1: push %ecx; mov %esi, %ss; mov %edi, %esp");
SNIPPET(l_movs, "mov %eax, %ds; mov $0x1000, %esi; mov $" ABSENT2_ ", %edi; l_movs_1: movsl");
/* Alignment before limits and pages. */
SNIPPET(l_sse, "mov %ss, %esi; mov %eax, %ss; mov $0x1004, %ebp; l_sse_1: movaps (%ebp), %xmm0; mov %esi, %ss");
SNIPPET(l_sse_aligned, "mov %ss, %esi; mov %eax, %ss; mov $0x1010, %ebp; l_sse_aligned_1: movaps (%ebp), %xmm0; mov %esi, %ss");
SNIPPET(l_sse_page, "l_sse_page_1: movaps " ABSENT_ " + 4, %xmm0");
LABEL(l_sse_1);
LABEL(l_sse_aligned_1);
LABEL(l_sse_page_1);
LABEL(l_read_1);
LABEL(l_push_1);
LABEL(l_movs_1);
/* ENTER: EAX is ESP. */
SNIPPET(e_enter, "mov %esp, %edi; mov %eax, %esp; e_enter_1: enter $0x1000, $0; mov %edi, %esp");
SNIPPET(e_enter_far, "mov %esp, %edi; mov %eax, %esp; enter $0x2000, $0; mov %esp, %ecx; mov %edi, %esp");
LABEL(e_enter_1);
SNIPPET(e_leave, "mov %eax, %ebp; e_leave_1: leave");
LABEL(e_leave_1);

static struct context use(int ring, const void *code, uint32_t eax, uint32_t ebx)
{
    struct context c = context_new(ring, code);

    c.eax = eax;
    c.ebx = ebx;
    c.ecx = 0x12345678;
    c.edx = 0x9abcdef0;
    context_run(&c);
    return c;
}

static void expect(const char *name, int ring, const void *code, const void *at, uint32_t vector, uint32_t error)
{
    struct context c = use(ring, code, 0, PAGE);

    check_fault(name, &c, vector, error);
    check_eq(name, c.eip, address_of(at));
    check_eq(name, c.ecx, 0x12345678);
}

static void privilege_and_pages(void)
{
    expect("lgdt_privilege_before_page", 3, v_lgdt, v_lgdt, V_GP, 0);
    expect("lidt_privilege_before_page", 3, v_lidt, v_lidt, V_GP, 0);
    expect("lldt_privilege_before_page", 3, v_lldt, v_lldt, V_GP, 0);
    expect("ltr_privilege_before_page", 3, v_ltr, v_ltr, V_GP, 0);
    expect("lmsw_privilege_before_page", 3, v_lmsw, v_lmsw, V_GP, 0);
    expect("invlpg_privilege", 3, v_invlpg, v_invlpg, V_GP, 0);
    expect("insb_privilege_before_page", 3, v_insb, v_insb_1, V_GP, 0);
    expect("lock_hlt_invalid_before_privilege", 3, v_lock_hlt, v_lock_hlt, V_UD, 0);
    expect("lock_cli_invalid_before_privilege", 3, v_lock_cli, v_lock_cli, V_UD, 0);
    expect("lgdt_page", 0, v_lgdt, v_lgdt, V_PF, 0);
    expect("lldt_page", 0, v_lldt, v_lldt, V_PF, 0);
    expect("ltr_page", 0, v_ltr, v_ltr, V_PF, 0);
    expect("lmsw_page", 0, v_lmsw, v_lmsw, V_PF, 0);
    expect("sgdt_page", 3, v_sgdt, v_sgdt, V_PF, 6);
    expect("verr_page", 3, v_verr, v_verr, V_PF, 4);
    expect("lar_page", 3, v_lar, v_lar, V_PF, 4);
    struct context c = use(0, v_invlpg, 0, 0);
    check_done("invlpg_of_an_absent_page", &c);
}

static void units(void)
{
    static const struct {
        const char *name;
        const uint8_t *code;
        bool is_store;
    } cases[] = { { "fld", n_fld, 0 }, { "fnsave", n_fnsave, 1 }, { "fnstcw", n_fnstcw, 1 },
                  { "movq", n_movq, 0 }, { "movups", n_movups, 0 } };

    set_cr4(get_cr4() | 0x200);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int ring = 0; ring < 4; ring += 3) {
            struct context c = use(ring, cases[i].code, 0, 0);

            check_fault(cases[i].name, &c, V_PF, (ring ? 4u : 0) | (cases[i].is_store ? 2u : 0));
            set_cr0(get_cr0() | 8);
            c = use(ring, cases[i].code, 0, 0);
            check_fault(cases[i].name, &c, V_NM, 0);
            __asm__ volatile("clts");
        }
    set_cr4(get_cr4() & ~0x200u);
    struct context c = use(3, n_movups, 0, 0);
    check_fault("movups_without_OSFXSR", &c, V_UD, 0);
}

static void operands(void)
{
    struct context c;

    expect("div_page", 3, o_div, o_div, V_PF, 4);
    expect("idiv_page", 3, o_idivb, o_idivb, V_PF, 4);
    expect("bound_page", 3, o_bound, o_bound, V_PF, 4);
    expect("les_page", 3, o_les, o_les, V_PF, 4);
    expect("lcall_page", 3, o_lcall, o_lcall, V_PF, 4);
    expect("ljmp_page", 3, o_ljmp, o_ljmp, V_PF, 4);
    expect("jmp_page", 3, o_jmp, o_jmp, V_PF, 4);
    /* a comparison that fails writes all the same */
    poke(PAGE, 5);
    pte_set(PAGE, PAGE | PTE_P | PTE_U);
    c = use(3, o_cmpxchg, 0, PAGE);
    check_fault("cmpxchg_always_writes", &c, V_PF, 7);
    check_eq("cmpxchg_leaves_eax", c.eax, 1);
    check_eq("cmpxchg_eip", c.eip, address_of(o_cmpxchg_1));
    pte_set(PAGE, PAGE | RWU);
    /* which of two */
    c = use(3, t_push, ABSENT, ABSENT2 + 0x800);
    check_fault("push_memory_first", &c, V_PF, 4);
    check_eq("push_memory_first_cr2", c.cr2, ABSENT);
    check_eq("push_memory_first_esp", c.esp, ABSENT2 + 0x800);
    c = use(3, t_pop, ABSENT, ABSENT2 + 0x800);
    check_fault("pop_stack_first", &c, V_PF, 4);
    check_eq("pop_stack_first_cr2", c.cr2, ABSENT2 + 0x800);
    c = use(3, t_pop, ABSENT, PAGE + 0x800);
    check_fault("pop_memory_second", &c, V_PF, 6);
    check_eq("pop_memory_second_cr2", c.cr2, ABSENT);
    check_eq("pop_memory_second_esp", c.esp, PAGE + 0x800);
    c = use(3, t_pop_esp, 0, PAGE + 0xffc); /* the address is made with the ESP behind the POP */
    check_done("pop_by_esp", &c);
    c = use(3, t_call, ABSENT, ABSENT2 + 0x800);
    check_fault("call_memory_first", &c, V_PF, 4);
    check_eq("call_memory_first_cr2", c.cr2, ABSENT);
    c = use(3, t_lcall, ABSENT, ABSENT2 + 0x800);
    check_fault("lcall_memory_first", &c, V_PF, 4);
    check_eq("lcall_memory_first_cr2", c.cr2, ABSENT);
    c = use(3, t_movs, ABSENT, ABSENT2);
    check_fault("movs_source_first", &c, V_PF, 4);
    check_eq("movs_source_first_cr2", c.cr2, ABSENT);
    c = use(3, t_movs, PAGE, ABSENT2);
    check_fault("movs_destination_second", &c, V_PF, 6);
    check_eq("movs_destination_second_esi", c.esi, PAGE);
    c = use(3, t_cmps, PAGE, ABSENT2);
    check_fault("cmps_second", &c, V_PF, 4);
    check_eq("cmps_second_cr2", c.cr2, ABSENT2);
    check_eq("cmps_second_esi", c.esi, PAGE);
}

static void limits(void)
{
    struct context c;

    guest_gdt[LIMITED >> 3] = DESC(ABSENT - 0x1000, 0xfff, 0xf3, 0x4);
    c = use(3, l_read, LIMITED | 3, 0);
    check_fault("limit_before_page", &c, V_GP, 0);
    check_eq("limit_before_page_eip", c.eip, address_of(l_read_1));
    c = use(3, l_push, LIMITED | 3, 0);
    check_fault("stack_limit_before_page", &c, V_SS, 0);
    check_eq("stack_limit_before_page_eip", c.eip, address_of(l_push_1));
    c = use(3, l_movs, LIMITED | 3, 0);
    check_fault("movs_source_limit_before_destination_page", &c, V_GP, 0);
    check_eq("movs_source_limit_eip", c.eip, address_of(l_movs_1));
    set_cr4(get_cr4() | 0x200);
    c = use(3, l_sse, LIMITED | 3, 0);
    check_fault("alignment_before_stack_limit", &c, V_GP, 0);
    check_eq("alignment_before_stack_limit_eip", c.eip, address_of(l_sse_1));
    c = use(3, l_sse_aligned, LIMITED | 3, 0);
    check_fault("stack_limit_of_an_aligned_operand", &c, V_SS, 0);
    check_eq("stack_limit_of_an_aligned_operand_eip", c.eip, address_of(l_sse_aligned_1));
    c = use(3, l_sse_page, 0, 0);
    check_fault("alignment_before_page", &c, V_GP, 0);
    set_cr4(get_cr4() & ~0x200u);
}

static void frames(void)
{
    struct context c;

    /* the push fits, but the new top of the stack is not there */
    c = use(3, e_enter, ABSENT + 0x1004, 0);
    check_fault("enter_push_fits_where", &c, V_PF, 6);
    pte_set(ABSENT + 0x1000, (ABSENT + 0x1000) | RWU);
    c = use(3, e_enter, ABSENT + 0x1800, 0);
    check_fault("enter_looks_at_the_end", &c, V_PF, 6);
    check_eq("enter_looks_at_the_end_cr2", c.cr2, ABSENT + 0x7fc);
    check_eq("enter_looks_at_the_end_esp", c.esp, ABSENT + 0x1800);
    check_eq("enter_looks_at_the_end_eip", c.eip, address_of(e_enter_1));
    c = use(3, e_enter_far, ABSENT + 0x1800, 0); /* beyond the absent page: nobody looks there */
    check_eq("enter_steps_over_a_page", c.vector == VEC_DONE ? c.ecx : 0, ABSENT - 0x1000 + 0x7fc);
    c = use(3, e_leave, ABSENT + 0x10, 0);
    check_fault("leave_page", &c, V_PF, 4);
    check_eq("leave_page_esp", c.esp, context_new(3, e_leave).esp);
}

/* ---- fetches --------------------------------------------------------------------------------- */

static void fetches(void)
{
    static const uint8_t mov_imm[] = { 0x90, 0xb8, 0x78, 0x56 }, ud[] = { 0x90, 0x0f, 0x0b },
                         prefixes[] = { 0x90, 0x66, 0x2e }, jmp[] = { 0xeb, 0x00 };
    struct context c;

    for (int ring = 0; ring < 4; ring += 3) {
        uint32_t user = ring ? 4 : 0;

        memcpy((void *)(ABSENT - sizeof mov_imm), mov_imm, sizeof mov_imm);
        c = run_at(ring, (const void *)(ABSENT - sizeof mov_imm));
        check_fault("fetch_over_the_end", &c, V_PF, user);
        check_eq("fetch_over_the_end_cr2", c.cr2, ABSENT);
        check_eq("fetch_over_the_end_eip", c.eip, ABSENT - 3);
        memcpy((void *)(ABSENT - sizeof prefixes), prefixes, sizeof prefixes);
        c = run_at(ring, (const void *)(ABSENT - sizeof prefixes));
        check_fault("fetch_behind_prefixes", &c, V_PF, user);
        check_eq("fetch_behind_prefixes_cr2", c.cr2, ABSENT);
        check_eq("fetch_behind_prefixes_eip", c.eip, ABSENT - 2);
        memcpy((void *)(ABSENT - sizeof ud), ud, sizeof ud);
        c = run_at(ring, (const void *)(ABSENT - sizeof ud));
        check_fault("invalid_at_the_end", &c, V_UD, 0);
        memcpy((void *)(ABSENT - sizeof jmp), jmp, sizeof jmp);
        c = run_at(ring, (const void *)(ABSENT - sizeof jmp));
        check_fault("fetch_of_the_target", &c, V_PF, user);
        check_eq("fetch_of_the_target_eip", c.eip, ABSENT);
        /* the limit of CS comes before the page */
        guest_gdt[LIMITED >> 3] = DESC(0, ABSENT - 1, ring ? 0xfb : 0x9b, 0x4);
        if (ABSENT - 1 > 0xfffff)
            guest_gdt[LIMITED >> 3] = DESC(0, (ABSENT >> 12) - 1, ring ? 0xfb : 0x9b, 0xc);
        memcpy((void *)(ABSENT - sizeof mov_imm), mov_imm, sizeof mov_imm);
        if (!option_given("qemu")) {
            c = context_new(ring, (const void *)(ABSENT - sizeof mov_imm));
            c.cs = LIMITED | (ring ? 3u : 0);
            context_run(&c);
            check_fault("code_limit_before_page", &c, V_GP, 0);
            check_eq("code_limit_before_page_eip", c.eip, ABSENT - 3);
        }
    }
}

/* ---- #DE and #BR ------------------------------------------------------------------------------- */

#define DIV(name, text) SNIPPET(name, text)
DIV(d_div8, "div %bl");
DIV(d_div16, "div %bx");
DIV(d_div32, "div %ebx");
DIV(d_idiv8, "idiv %bl");
DIV(d_idiv16, "idiv %bx");
DIV(d_idiv32, "idiv %ebx");
DIV(d_div8_m, "divb (%esi)");
DIV(d_div16_m, "divw (%esi)");
DIV(d_div32_m, "divl (%esi)");
DIV(d_idiv8_m, "idivb (%esi)");
DIV(d_idiv16_m, "idivw (%esi)");
DIV(d_idiv32_m, "idivl (%esi)");
DIV(d_aam, ".byte 0xd4, 0");

static void divides(void)
{
    static const struct {
        const char *name;
        const void *reg, *mem;
        bool is_signed;
        uint8_t width;
    } forms[] = { { "div8", d_div8, d_div8_m, 0, 1 },    { "div16", d_div16, d_div16_m, 0, 2 },
                  { "div32", d_div32, d_div32_m, 0, 4 }, { "idiv8", d_idiv8, d_idiv8_m, 1, 1 },
                  { "idiv16", d_idiv16, d_idiv16_m, 1, 2 }, { "idiv32", d_idiv32, d_idiv32_m, 1, 4 } };

    for (unsigned i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        unsigned bits = 8 * forms[i].width;
        uint32_t top = 1u << (bits - 1), mask = bits == 32 ? ~0u : (1u << bits) - 1, bad = 0;
        /* dividend (high and low part), divisor, does it fit? */
        const struct {
            uint32_t high, low, by;
            bool fits;
        } cases[] = {
            { 0, 1, 0, false },
            { 0, 0, 0, false },
            { 5, 0, 5, false },
            { 4, 0, 5, !forms[i].is_signed },
            { forms[i].is_signed ? mask : 0, top, mask, !forms[i].is_signed }, /* the least by -1 */
            { forms[i].is_signed ? mask : 0, top, 1, true },
            { 0, top, 1, !forms[i].is_signed },
            { forms[i].is_signed ? mask : 1, forms[i].is_signed ? top - 1 : 0, 1, false },
        };

        for (unsigned k = 0; k < sizeof cases / sizeof cases[0]; k++)
            for (int mem = 0; mem < 2; mem++)
                for (int ring = 0; ring < 4; ring += 3) {
                    const void *code = mem ? forms[i].mem : forms[i].reg;
                    struct context c = context_new(ring, code);

                    poke(PAGE, cases[k].by);
                    c.esi = PAGE;
                    c.ebx = mem ? 0 : cases[k].by;
                    c.eax = bits == 8 ? (cases[k].high & 0xff) << 8 | (cases[k].low & 0xff) : cases[k].low & mask;
                    c.edx = bits == 8 ? 0x55 : cases[k].high & mask;
                    uint32_t eax = c.eax, edx = c.edx;
                    context_run(&c);
                    if (cases[k].fits ? c.vector != VEC_DONE
                                      : c.vector != V_DE || c.eip != address_of(code) || c.eax != eax || c.edx != edx)
                        bad |= 1u << k;
                }
        check_eq(forms[i].name, bad, 0);
    }
    struct context c = use(3, d_aam, 0x1234, 0);
    check_fault("aam_0", &c, V_DE, 0);
    check_eq("aam_0_eax", c.eax, 0x1234);
}

SNIPPET(b_bound, "bound %eax, (%esi)");
SNIPPET(b_boundw, ".byte 0x66; bound %eax, (%esi)");

static void bounds(void)
{
    static const struct {
        int32_t low, high, index;
        bool fits;
    } cases[] = { { 1, 9, 1, 1 },   { 1, 9, 9, 1 },  { 1, 9, 0, 0 },   { 1, 9, 10, 0 },    { -5, 5, -5, 1 },
                  { -5, 5, -6, 0 }, { -5, 5, 6, 0 }, { 9, 1, 5, 0 },   { 7, 7, 7, 1 },     { -9, -3, -1, 0 },
                  { -9, -3, -9, 1 } };
    uint32_t bad = 0, badw = 0;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct context c = context_new(3, b_bound);

        poke(PAGE, (uint32_t)cases[i].low);
        poke(PAGE + 4, (uint32_t)cases[i].high);
        c.esi = PAGE;
        c.eax = (uint32_t)cases[i].index;
        context_run(&c);
        if (cases[i].fits ? c.vector != VEC_DONE : c.vector != V_BR || c.eip != address_of(b_bound))
            bad |= 1u << i;
        c = context_new(3, b_boundw);
        poke(PAGE, ((uint32_t)cases[i].low & 0xffff) | (uint32_t)cases[i].high << 16);
        c.esi = PAGE;
        c.eax = 0xabcd0000 | ((uint32_t)cases[i].index & 0xffff);
        context_run(&c);
        if (cases[i].fits ? c.vector != VEC_DONE : c.vector != V_BR || c.eip != address_of(b_boundw))
            badw |= 1u << i;
    }
    check_eq("bound", bad, 0);
    check_eq("bound_words", badw, 0);
}

void guest_main(void)
{
    paging_on();
    pte_set(ABSENT, 0);
    pte_set(ABSENT + 0x1000, 0);
    pte_set(ABSENT2, 0);
    privilege_and_pages();
    units();
    operands();
    limits();
    frames();
    fetches();
    divides();
    bounds();
    paging_off();
}
