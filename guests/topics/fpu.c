/*
 * x87, MMX and SSE as an operating system meets them: CR0.TS, EM, MP and NE, CR4's OSFXSR
 * and OSXMMEXCPT, the exceptions of vector 16 and 19, save and restore images.
 *
 * Ref: Intel SDM vol. 3A, ch. 2 and 13; vol. 1, ch. 8.
 */
#include "../lib/guest.h"

static uint8_t image[512] __attribute__((aligned(16), used));
static uint8_t image2[512] __attribute__((aligned(16), used));
static const double one = 1.0, three = 3.0;
static const float fone = 1.0f;
static uint32_t control __attribute__((used));
__asm__(".set image_m, image\n.set image2_m, image2\n.set one_m, one\n.set three_m, three\n.set fone_m, "
        "fone\n.set control_m, control");
static const void *const keep_used[] __attribute__((used)) = { &one, &three, &fone };

SNIPPET(u_fld, "fld1; fstp %st(0)");
SNIPPET(u_fwait, "fwait");
SNIPPET(u_mmx, "pxor %mm0, %mm0; emms");
SNIPPET(u_sse, "xorps %xmm0, %xmm0");
SNIPPET(u_sse2, "xorpd %xmm0, %xmm0");
SNIPPET(u_ldmxcsr, "ldmxcsr control_m");
SNIPPET(u_prefetch, "prefetchnta image_m; sfence");
SNIPPET(u_fxsave, "fxsave image_m");
SNIPPET(u_divide,
        "fninit; movl $0x37b, control_m; fldcw control_m; fld1; fldz; u_div: fdivrp; nop; u_next: fld1; nop");
SNIPPET(u_divide_wait,
        "fninit; movl $0x37b, control_m; fldcw control_m; fld1; fldz; fdivrp; inc %eax; u_wait: fwait");
SNIPPET(u_divide_fn,
        "fninit; movl $0x37b, control_m; fldcw control_m; fld1; fldz; fdivrp; fnstsw %ax; fnclex; fld1");
SNIPPET(u_sse_divide, "movl $0x1d80, control_m; ldmxcsr control_m; xorps %xmm0, %xmm0; movss fone_m, %xmm1; "
                      "u_sdiv: divss %xmm0, %xmm1");
SNIPPET(u_sse_reset, "movl $0x1f80, control_m; ldmxcsr control_m");
SNIPPET(u_mxcsr_reserved, "movl $0x80001f80, control_m; ldmxcsr control_m");
SNIPPET(u_stenv, "fninit; nop; u_last: fldl one_m; fnstenv image_m");
SNIPPET(u_save, "fninit; fldl three_m; fldl one_m; fnsave image_m; fld1; fld1; fld1; frstor image_m; fdivp; "
                "fstpl image2_m");
SNIPPET(u_fx, "fninit; fldl three_m; movsd one_m, %xmm7; fxsave image_m; fninit; xorps %xmm7, %xmm7; fxrstor "
              "image_m; fstpl image2_m; movsd %xmm7, image2_m + 8");
SNIPPET(u_third, "fninit; fldl one_m; fldl three_m; fdivrp; fstpl image_m; movsd one_m, %xmm0; divsd "
                 "three_m, %xmm0; movsd %xmm0, image_m + 8");
SNIPPET(u_init, "fninit; fnstcw control_m; fnstsw %ax");
SNIPPET(u_stack_fault, "fninit; fld1; fstp %st(0); fstp %st(0); fnstsw %ax");

#define TS 8u
#define EM 4u
#define MP 2u

static struct context with(uint32_t clear, uint32_t set, int ring, const void *code)
{
    uint32_t cr0 = get_cr0();
    struct context c;

    set_cr0((cr0 & ~clear) | set);
    c = run_at(ring, code);
    set_cr0(cr0);
    return c;
}

static void task_switched(int ring)
{
    struct context c;

    c = with(0, TS, ring, u_fld);
    check_fault("TS_x87", &c, V_NM, 0);
    check_eq("TS_x87_eip", c.eip, address_of(u_fld));
    c = with(0, TS, ring, u_mmx);
    check_fault("TS_mmx", &c, V_NM, 0);
    c = with(0, TS, ring, u_sse);
    check_fault("TS_sse", &c, V_NM, 0);
    c = with(0, TS, ring, u_sse2);
    check_fault("TS_sse2", &c, V_NM, 0);
    c = with(0, TS, ring, u_fxsave);
    check_fault("TS_fxsave", &c, V_NM, 0);
    c = with(0, TS, ring, u_ldmxcsr);
    check_fault("TS_ldmxcsr", &c, V_NM, 0);
    c = with(0, TS | MP, ring, u_fwait);
    check_fault("TS_MP_fwait", &c, V_NM, 0);
    c = with(MP, TS, ring, u_fwait);
    check_done("TS_fwait_without_MP", &c);
    c = with(TS, MP, ring, u_fwait);
    check_done("MP_fwait_without_TS", &c);
    c = with(0, TS | EM, ring, u_prefetch);
    check_done("TS_EM_prefetch_is_free", &c);
    c = with(0, EM, ring, u_fld);
    check_fault("EM_x87", &c, V_NM, 0);
    c = with(0, EM, ring, u_mmx);
    check_fault("EM_mmx", &c, V_UD, 0);
    c = with(0, EM, ring, u_sse);
    check_fault("EM_sse", &c, V_UD, 0);
    c = with(0, 0, ring, u_fld);
    check_done("no_TS_x87", &c);
    c = with(0, 0, ring, u_mmx);
    check_done("no_TS_mmx", &c);
    c = with(0, 0, ring, u_sse);
    check_done("no_TS_sse", &c);
}

static void enabling_sse(int ring)
{
    struct context c;
    uint32_t cr4 = get_cr4();

    set_cr4(cr4 & ~0x200u);
    c = run_at(ring, u_sse);
    check_fault("sse_without_OSFXSR", &c, V_UD, 0);
    c = run_at(ring, u_mmx);
    check_done("mmx_without_OSFXSR", &c);
    set_cr4(cr4 | 0x200);
    c = run_at(ring, u_sse);
    check_done("sse_with_OSFXSR", &c);
    set_cr4(cr4);
}

static void exceptions(int ring)
{
    struct context c = run_at(ring, u_divide);

    extern uint8_t u_next[], u_wait[], u_sdiv[], u_div[];

    check_fault("x87_divide_by_zero_at_next", &c, V_MF, 0);
    check_eq("x87_divide_by_zero_eip", c.eip, address_of(u_next));
    __asm__ volatile("fnstenv %0" : "=m"(image));
    check_eq("x87_fip_after_exception", peek(address_of(image) + 12), address_of(u_div));
    check_eq("x87_fop_after_exception", peek(address_of(image) + 16) >> 16, 0x6f9);
    __asm__ volatile("fninit");
    c = run_at(ring, u_divide_wait);
    check_fault("x87_divide_by_zero_at_fwait", &c, V_MF, 0);
    check_eq("x87_divide_by_zero_at_fwait_eip", c.eip, address_of(u_wait));
    check_eq("instructions_between_ran", c.eax, 1);
    __asm__ volatile("fninit");
    c = run_at(ring, u_divide_fn);
    check_done("no_wait_forms_see_the_status", &c);
    check_eq("status_word_ES_ZE", c.eax & 0x84, 0x84);
    __asm__ volatile("fninit");

    set_cr4(get_cr4() | 0x400);
    c = run_at(ring, u_sse_divide);
    check_fault("sse_divide_by_zero", &c, 19, 0);
    check_eq("sse_divide_by_zero_eip", c.eip, address_of(u_sdiv));
    set_cr4(get_cr4() & ~0x400u);
    c = run_at(ring, u_sse_divide);
    check_fault("sse_divide_by_zero_without_OSXMMEXCPT", &c, V_UD, 0);
    run_at(ring, u_sse_reset);
    c = run_at(ring, u_mxcsr_reserved);
    check_fault("reserved_bit_of_MXCSR", &c, V_GP, 0);
}

static uint32_t word(const uint8_t *p, unsigned i)
{
    return peek(address_of(p) + 4 * i);
}

static void images(int ring)
{
    struct context c;
    extern uint8_t u_last[];

    c = run_at(ring, u_init);
    check_eq("fninit_control", control & 0xffff, 0x37f);
    check_eq("fninit_status", c.eax & 0xffff, 0);
    c = run_at(ring, u_stenv);
    check_done("fnstenv", &c);
    check_eq("fnstenv_control", word(image, 0) & 0xffff, 0x37f);
    check_eq("fnstenv_tag", word(image, 2) & 0xffff, 0x3fff);
    check_eq("fnstenv_instruction_pointer", word(image, 3), address_of(u_last));
    check_eq("fnstenv_data_pointer", word(image, 5), address_of(&one));
    memset(image, 0, sizeof image);
    c = run_at(ring, u_save);
    check_done("fnsave_frstor", &c);
    check_eq("fnsave_frstor_quotient_high", word(image2, 1), 0x3fd55555);
    memset(image2, 0, sizeof image2);
    c = run_at(ring, u_fx);
    check_done("fxsave_fxrstor", &c);
    check_eq("fxsave_fxrstor_x87", word(image2, 1), 0x40080000);
    check_eq("fxsave_fxrstor_sse", word(image2, 3), 0x3ff00000);
    check_eq("fxsave_leaves_the_rest_alone", word(image, 120), 0);
    c = run_at(ring, u_third);
    check_eq("one_third_x87", word(image, 0), 0x55555555);
    check_eq("one_third_sse", word(image, 2), 0x55555555);
    check_eq("one_third_high", word(image, 1), 0x3fd55555);
    c = run_at(ring, u_stack_fault);
    check_eq("stack_underflow_IE_SF", c.eax & 0x41, 0x41);
}

/* ---- last-instruction pointers ----------------------------------------------------------------- */

SNIPPET(p_run, "fninit; fldl one_m; fldl three_m; fld1; p_run_last: faddp; fnstenv image_m");
SNIPPET(p_broken, "fninit; fldl (%ebx); p_broken_last: fld1; xorl %ebx, %ebx; movl $1, %ecx; fnstenv image_m");
SNIPPET(p_loop, "fninit; movl $3, %ecx; movl $image2_m, %ebx; p_loop_last: 1: flds -4(%ebx,%ecx,4); fstp %st(0); loop 1b; "
                "fnstenv image_m");
SNIPPET(p_es, "fninit; p_es_last: fldl %es:one_m; fnstenv image_m");
SNIPPET(p_control, "fninit; p_control_last: fldl one_m; fnclex; fnstcw control_m; fldcw control_m; fwait; fnstsw %ax; "
                   "fnstenv image_m");
SNIPPET(p_init, "fldl one_m; fninit; fnstenv image_m");
SNIPPET(p_save, "fninit; p_save_last: fldl one_m; fnsave image_m; fnstenv image2_m");
SNIPPET(p_frstor, "fninit; fldl one_m; fldl three_m; fnsave image_m; fld1; frstor image_m; fnstenv image2_m");
SNIPPET(p_fldenv, "fldenv image_m; fnstenv image2_m");
SNIPPET(p_16, "fninit; p_16_last: fldl one_m; data16 fnstenv image_m");
SNIPPET(p_fx, "fninit; p_fx_last: fldl one_m; fxsave image_m");
SNIPPET(p_fx_es, "fninit; movl $0x37b, control_m; fldcw control_m; fldz; fld1; p_fx_es_last: fdivl zero_m; fxsave image_m; "
                 "fnclex; fninit; fxrstor image_m; fnstenv image2_m; fnclex");
SNIPPET(p_fault, "fninit; p_fault_first: fldl one_m; flds 0x7ff000; fld1");
SNIPPET(p_int, "fninit; p_int_last: fldl one_m");
static const double zero = 0.0;
__asm__(".set zero_m, zero");
static const void *const keep_zero[] __attribute__((used)) = { &zero };

static void check_pointers(const char *name, const uint8_t *env, uint32_t fip, uint32_t fop, uint32_t fdp, int ring)
{
    static const char *const what[] = { "_FIP", "_FCS_FOP", "_FDP", "_FDS" };
    uint32_t fcs = ring ? SEL_UCODE : SEL_KCODE, fds = ring ? SEL_UDATA : SEL_KDATA;
    uint32_t want[] = { fip, fop << 16 | fcs, fdp, 0xffff0000u | fds };
    char text[64];
    unsigned n = (unsigned)strlen(name);

    memcpy(text, name, n);
    for (unsigned i = 0; i < 4; i++) {
        memcpy(text + n, what[i], strlen(what[i]) + 1);
        check_eq(text, word(env, 3 + i), want[i]);
    }
}

static void no_pointers(const char *name, const uint8_t *env)
{
    check_eq(name, word(env, 3) | word(env, 4) | word(env, 5) | (word(env, 6) & 0xffff), 0);
}

static void pointers(int ring)
{
    extern uint8_t p_run_last[], p_broken_last[], p_loop_last[], p_es_last[], p_control_last[], p_save_last[], p_16_last[],
        p_fx_last[], p_fx_es_last[], p_fault_first[], p_int_last[];
    struct context c;
    bool is_amd;

    run_at(ring, p_run);
    check_pointers("pointers_of_a_run", image, address_of(p_run_last), 0x6c1, address_of(&three), ring);
    c = context_new(ring, p_broken);
    c.ebx = address_of(&one);
    context_run(&c);
    check_pointers("pointers_survive_their_registers", image, address_of(p_broken_last), 0x1e8, address_of(&one), ring);
    run_at(ring, p_loop);
    check_pointers("pointers_of_a_loop", image, address_of(p_loop_last) + 4, 0x5d8, address_of(image2), ring);
    run_at(ring, p_es);
    check_pointers("pointers_with_a_prefix", image, address_of(p_es_last), 0x505, address_of(&one), ring);
    run_at(ring, p_control);
    check_pointers("control_instructions_leave_pointers", image, address_of(p_control_last), 0x505, address_of(&one), ring);
    run_at(ring, p_init);
    no_pointers("fninit_clears_pointers", image);
    run_at(ring, p_save);
    check_pointers("fnsave_pointers", image, address_of(p_save_last), 0x505, address_of(&one), ring);
    no_pointers("fnsave_clears_pointers", image2);
    run_at(ring, p_frstor);
    for (unsigned i = 3; i < 7; i++)
        check_eq("frstor_brings_pointers_back", word(image2, i), word(image, i));
    poke(address_of(image) + 12, 0x12345678);
    poke(address_of(image) + 16, 0xffff4321);
    poke(address_of(image) + 20, 0x9abcdef0);
    poke(address_of(image) + 24, 0x8765);
    run_at(ring, p_fldenv);
    check_eq("fldenv_FIP", word(image2, 3), 0x12345678);
    check_eq("fldenv_FCS_and_11_bits_of_FOP", word(image2, 4), 0x07ff4321);
    check_eq("fldenv_FDP", word(image2, 5), 0x9abcdef0);
    check_eq("fldenv_FDS", word(image2, 6), 0xffff8765);
    memset(image, 0xa5, sizeof image);
    run_at(ring, p_16);
    check_eq("fnstenv_16_FIP", word(image, 1) >> 16, address_of(p_16_last) & 0xffff);
    check_eq("fnstenv_16_FCS_FDP", word(image, 2), address_of(&one) << 16 | (ring ? SEL_UCODE : SEL_KCODE));
    check_eq("fnstenv_16_FDS", word(image, 3), 0xa5a50000 | (ring ? SEL_UDATA : SEL_KDATA));

    uint32_t ebx, text = 0;
    __asm__ volatile("cpuid" : "=b"(ebx), "+a"(text) : : "ecx", "edx");
    is_amd = ebx == 0x68747541; /* "Auth": FXSAVE leaves pointers out unless an exception is pending */
    run_at(ring, p_fx);
    check_eq("fxsave_FIP", word(image, 2), is_amd ? 0 : address_of(p_fx_last));
    check_eq("fxsave_FDP", word(image, 4), is_amd ? 0 : address_of(&one));
    run_at(ring, p_fx_es);
    check_eq("fxsave_with_exception_FIP", word(image, 2), address_of(p_fx_es_last));
    check_eq("fxsave_with_exception_FOP", word(image, 1) >> 16, 0x435);
    check_eq("fxsave_with_exception_FDP", word(image, 4), address_of(&zero));
    check_pointers("fxrstor_with_exception", image2, address_of(p_fx_es_last), 0x435, address_of(&zero), ring);

    /* What a handler of ring 0 finds. */
    c = run_at(ring, p_int);
    __asm__ volatile("fnstenv %0" : "=m"(image));
    check_pointers("pointers_in_a_handler", image, address_of(p_int_last), 0x505, address_of(&one), ring);
    paging_on();
    pte_set(0x7ff000, 0);
    c = run_at(ring, p_fault);
    __asm__ volatile("fnstenv %0" : "=m"(image));
    check_eq("fault_within_a_run", c.vector, V_PF);
    check_pointers("pointers_after_a_fault", image, address_of(p_fault_first), 0x505, address_of(&one), ring);
    pte_set(0x7ff000, 0x7ff000 | PTE_P | PTE_W | PTE_U);
    paging_off();
    __asm__ volatile("fninit");
}

/* ---- CR0.NE clear: FERR#, IRQ 13, IGNNE# ----------------------------------------------------------- */

#define VEC_IRQ13 0x2d /* IRQ 8 is at 0x28: guest.c */
static volatile unsigned irq13_count;
static volatile uint32_t irq13_eip, irq13_status;
static bool irq13_clears;

static bool on_irq13(struct frame *f)
{
    uint16_t status;

    if (f->vector != VEC_IRQ13)
        return false;
    irq13_count++;
    irq13_eip = f->eip;
    outb(0xf0, 0);
    __asm__ volatile("fnstsw %0" : "=m"(status));
    irq13_status = status;
    if (irq13_clears)
        __asm__ volatile("fnclex");
    else /* IGNNE# is up: what waits does not wait */
        __asm__ volatile("fwait; fld1; fstp %st(0); fstcw control_m; fclex");
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

SNIPPET(e_error, "fninit; movl $0x37b, control_m; fldcw control_m; fld1; fldz; fdivrp; incl %eax; nop; sti; "
                 "e_wait: fwait; incl %eax; incl %eax");
SNIPPET(e_twice, "fninit; movl $0x37b, control_m; fldcw control_m; sti; fld1; fldz; fdivrp; e_first: fld1; fldz; fdivrp; "
                 "e_second: fnop; incl %eax");
SNIPPET(e_mmx, "fninit; movl $0x37b, control_m; fldcw control_m; sti; fld1; fldz; fdivrp; e_mmx_at: paddb %mm0, %mm0; emms");
SNIPPET(e_fn, "fninit; movl $0x37b, control_m; fldcw control_m; sti; fld1; fldz; fdivrp; fnstsw %ax; fnclex; fld1; nop; nop");

static void external_errors(void)
{
    extern uint8_t e_wait[], e_first[], e_second[], e_mmx_at[];
    uint32_t cr0 = get_cr0();
    struct context c;

    set_cr0(cr0 & ~0x20u);
    guest_hook = on_irq13;
    outb(0x21, 0xfb);
    outb(0xa1, 0xdf);
    for (int clears = 0; clears <= 1; clears++) {
        irq13_clears = clears;
        irq13_count = 0;
        c = run_at(0, e_error);
        check_done("irq13", &c);
        check_eq("irq13_came_once", irq13_count, 1);
        check_eq("irq13_before_the_waiting_instruction", irq13_eip, address_of(e_wait));
        check_eq("irq13_status_ES_ZE", irq13_status & 0x84, 0x84);
        check_eq("irq13_instructions_around_it_ran", c.eax, 3);
        irq13_count = 0;
        c = run_at(0, e_twice);
        check_done("irq13_twice", &c);
        check_eq("irq13_came_twice", irq13_count, 2);
        check_eq("irq13_second_place", irq13_eip, address_of(e_second));
        (void)e_first;
        c = run_at(0, e_mmx);
        check_eq("irq13_before_mmx", irq13_eip, address_of(e_mmx_at));
        irq13_count = 0;
        c = run_at(0, e_fn);
        check_done("irq13_not_for_instructions_that_do_not_wait", &c);
        check_eq("irq13_none", irq13_count, 0);
    }
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    guest_hook = NULL;
    set_cr0(cr0);
    __asm__ volatile("fninit");
}

/* Lazy switching: two owners of the registers, changed at #NM. */
static bool switched;
static bool on_nm(struct frame *f)
{
    if (f->vector != V_NM)
        return false;
    __asm__ volatile("clts");
    switched = true;
    return true;
}

static void lazy(void)
{
    struct context c;

    guest_hook = on_nm;
    set_cr0(get_cr0() | TS);
    c = run_at(3, u_third);
    guest_hook = NULL;
    set_cr0(get_cr0() & ~TS);
    check_done("lazy_switch_restarts", &c);
    check("lazy_switch_happened", switched);
    check_eq("lazy_switch_result", word(image, 1), 0x3fd55555);
}

/* The registers keep their values over interrupts, far excursions and a busy console. */
static void persistence(void)
{
    uint32_t lo = 0, hi = 0;

    __asm__ volatile("fninit; fldl %0; movsd %0, %%xmm5" : : "m"(three));
    say("# a line of output, some port accesses\n");
    for (int i = 0; i < 1000; i++)
        (void)inb(0x61);
    run_at(3, u_fwait);
    __asm__ volatile("fstpl image_m; movsd %xmm5, image_m + 8");
    lo = word(image, 1);
    hi = word(image, 3);
    check_eq("x87_survives", lo, 0x40080000);
    check_eq("sse_survives", hi, 0x40080000);
}

void guest_main(void)
{
    set_cr4(get_cr4() | 0x200);
    for (int ring = 0; ring <= 3; ring += 3) {
        task_switched(ring);
        enabling_sse(ring);
        exceptions(ring);
        images(ring);
        pointers(ring);
    }
    if (!option_given("qemu")) /* it aborts */
        external_errors();
    lazy();
    persistence();
}
