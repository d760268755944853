/*
 * Segmentation: limits, expand-down segments, rights, non-zero bases, segments of the
 * LDT, code segment limits, conforming code and call gates with a change of ring.
 *
 * QEMU's TCG checks neither limits nor rights when memory is accessed; those checks say
 * so. Ref: Intel SDM vol. 3A, ch. 3 and 5.
 */
#include "../lib/guest.h"

#define SEL(n) (SEL_FREE + 8 * (n))
#define DATA   SCRATCH
#define TI     4u /* of a selector: look in the LDT */

/* EAX: selector for ES (or SS); EBX: offset; ECX: value */
SNIPPET(s_read, "mov %eax, %es; xor %edx, %edx; s_read_1: mov %es:(%ebx), %edx");
SNIPPET(s_read8, "mov %eax, %es; xor %edx, %edx; mov %es:(%ebx), %dl");
SNIPPET(s_write, "mov %eax, %es; s_write_1: mov %ecx, %es:(%ebx)");
SNIPPET(s_rmw, "mov %eax, %es; s_rmw_1: addl $1, %es:(%ebx)");
SNIPPET(s_fs, "mov %eax, %fs; mov %fs:(%ebx), %edx");
SNIPPET(s_gs_index, "mov %eax, %gs; mov $4, %esi; mov %gs:-8(%ebx, %esi, 2), %edx");
SNIPPET(s_fst, "mov %eax, %es; fldz; fstpl %es:(%ebx)");
SNIPPET(s_movs, "mov %eax, %es; mov %ebx, %edi; mov $scratch_seg, %esi; mov $4, %ecx; cld; rep movsl");
SNIPPET(s_lods, "mov %eax, %ds; mov %ebx, %esi; lodsl");
SNIPPET(s_ebp_uses_ss,
        "mov %ss, %esi; mov %eax, %ss; mov %ebx, %ebp; s_ebp_1: mov (%ebp), %edx; mov %esi, %ss");
SNIPPET(s_push_ss, "mov %ss, %esi; mov %esp, %edi; mov %eax, %ss; mov %ebx, %esp; s_push_1: push %ecx; "
                   "s_push_2: mov %esi, %ss; mov %edi, %esp");
SNIPPET(s_exec_read, "mov %eax, %es; mov %es:(%ebx), %edx");
SNIPPET(s_jump_limit, "push %eax; push %ebx; lret");
SNIPPET(s_gate, "push $0x11; push $0x22; mov %esp, %ebp; .byte 0x9a; .long 0; s_gate_sel: .word 0; "
                "s_gate_back: sub %esp, %ebp; mov %cs, %esi");
SNIPPET(s_jmp_gate, ".byte 0xea; .long 0; s_jmp_gate_sel: .word 0");
/* what the gate leads to: copy the parameters into registers */
SNIPPET(s_gate_target, "mov %cs, %eax; mov %ss, %ebx; mov 8(%esp), %ecx; mov 12(%esp), %edx; lret $8");
SNIPPET(s_gate_target_same, "mov %cs, %eax; mov %ss, %ebx; mov 8(%esp), %ecx; mov 12(%esp), %edx; lret");
SNIPPET(s_conforming, "push %eax; push $1f; ljmp *(%esp); 1: mov %cs, %edx; add $8, %esp");
LABEL(s_read_1);
LABEL(s_write_1);
LABEL(s_ebp_1);
LABEL(s_push_1);
LABEL(s_gate_sel);
LABEL(s_gate_back);
LABEL(s_jmp_gate_sel);
static uint32_t scratch_words[8] __attribute__((used)) = { 1, 2, 3, 4 };
__asm__(".set scratch_seg, scratch_words");

static struct context use(int ring, const void *code, uint32_t sel, uint32_t ofs)
{
    struct context c = context_new(ring, code);

    c.eax = sel;
    c.ebx = ofs;
    c.ecx = 0x12345678;
    context_run(&c);
    return c;
}

static void limits(int ring)
{
    uint32_t dpl = ring ? 0x60 : 0, rpl = ring ? 3 : 0;
    uint32_t up = SEL(0) | rpl, down = SEL(1) | rpl, ro = SEL(2) | rpl, pages = SEL(3) | rpl,
             code = SEL(4) | rpl;
    struct context c;

    guest_gdt[SEL(0) >> 3] = DESC(DATA, 0xfff, 0x93 | dpl, 0x4);
    guest_gdt[SEL(1) >> 3] = DESC(DATA, 0xfff, 0x97 | dpl, 0x4); /* valid: 1000h and up */
    guest_gdt[SEL(2) >> 3] = DESC(DATA, 0xfff, 0x91 | dpl, 0x4);
    guest_gdt[SEL(3) >> 3] = DESC(DATA, 1, 0x93 | dpl, 0xc);     /* two pages */
    guest_gdt[SEL(4) >> 3] = DESC(DATA, 0xfff, 0x99 | dpl, 0x4); /* execute only */
    poke(DATA + 0xffc, 0xcafe);
    poke(DATA, 0xbeef);
    poke(DATA + 0x1000, 0xd00d);
    poke(DATA + 0x1ffc, 0xfeed);

    c = use(ring, s_read, up, 0xffc);
    check_eq("base_and_last_dword", c.edx, 0xcafe);
    c = use(ring, s_read, up, 0xffd);
    check_fault("dword_one_beyond", &c, V_GP, 0);
    check_eq("dword_one_beyond_eip", c.eip, address_of(s_read_1));
    c = use(ring, s_read8, up, 0xfff);
    check_done("last_byte", &c);
    c = use(ring, s_read8, up, 0x1000);
    check_fault("byte_beyond", &c, V_GP, 0);
    c = use(ring, s_write, up, 0x1000);
    check_fault("write_beyond", &c, V_GP, 0);
    check_eq("write_beyond_eip", c.eip, address_of(s_write_1));
    poke(DATA + 0x1000, 0xd00d);
    c = use(ring, s_rmw, up, 0xfffffffc);
    check_fault("negative_offset", &c, V_GP, 0);
    c = use(ring, s_fst, up, 0xffc);
    check_fault("qword_store_beyond", &c, V_GP, 0);
    c = use(ring, s_movs, up, 0xff8);
    check_fault("rep_movs_beyond", &c, V_GP, 0);
    check_eq("rep_movs_beyond_ecx", c.ecx, 2);
    check_eq("rep_movs_beyond_edi", c.edi, 0x1000);
    poke(DATA + 0xffc, 0xcafe);
    c = use(ring, s_lods, up, 0xffe);
    check_fault("lods_beyond", &c, V_GP, 0);
    c = use(ring, s_fs, up, 0);
    check_eq("fs_base", c.edx, 0xbeef);
    c = use(ring, s_gs_index, up, 0xffc);
    check_eq("gs_base_with_index", c.edx, 0xcafe);
    c = use(ring, s_read, pages, 0x1ffc);
    check_eq("page_granular_limit", c.edx, 0xfeed);
    c = use(ring, s_read, pages, 0x2000);
    check_fault("beyond_page_granular_limit", &c, V_GP, 0);
    c = use(ring, s_read, down, 0x1000);
    check_eq("expand_down_above_limit", c.edx, peek(DATA + 0x1000));
    c = use(ring, s_read, down, 0xffc);
    check_fault("expand_down_below_limit", &c, V_GP, 0);
    c = use(ring, s_read, down, 0xfff);
    check_fault("expand_down_straddles_limit", &c, V_GP, 0);
    c = use(ring, s_read, ro, 0);
    check_eq("read_only_reads", c.edx, 0xbeef);
    c = use(ring, s_write, ro, 0);
    check_fault("read_only_write", &c, V_GP, 0);
    poke(DATA, 0xbeef);
    c = use(ring, s_exec_read, code, 0);
    check_fault("execute_only_into_es", &c, V_GP, SEL(4));
    c = use(ring, s_read, rpl, 0);
    check_fault("null_es", &c, V_GP, 0);

    c = use(ring, s_ebp_uses_ss, up, 0xffc);
    check_eq("ss_base", c.vector == VEC_DONE ? c.edx : 0xbad, 0xcafe);
    c = use(ring, s_push_ss, up, 0x1000);
    check_done("push_at_ss_limit", &c);
    check_eq("push_at_ss_limit_stored", peek(DATA + 0xffc), 0x12345678);
    if (ring == 3) { /* at ring 0 the frame itself would need that stack */
        c = use(ring, s_ebp_uses_ss, up, 0x1000);
        check_fault("ss_limit", &c, V_SS, 0);
        check_eq("ss_limit_eip", c.eip, address_of(s_ebp_1));
        c = use(ring, s_push_ss, up, 0x1004);
        check_fault("push_beyond_ss_limit", &c, V_SS, 0);
        check_eq("push_beyond_ss_limit_eip", c.eip, address_of(s_push_1));
        c = use(ring, s_push_ss, up, 0);
        check_fault("push_wraps_ss", &c, V_SS, 0);
    }
}

static void code_limits(int ring)
{
    uint32_t dpl = ring ? 0x60 : 0, rpl = ring ? 3 : 0;
    struct context c;

    if (!option_given("qemu")) { /* it would run there */
        guest_gdt[SEL(0) >> 3] = DESC(0, address_of(s_jump_limit) + 2, 0x9b | dpl, 0x4);
        c = use(ring, s_jump_limit, SEL(0) | rpl, address_of(s_jump_limit) + 0x100);
        check_fault("ret_far_beyond_limit", &c, V_GP, 0);
    }
    /* a code segment with a base: the same bytes at another EIP */
    guest_gdt[SEL(1) >> 3] = DESC(address_of(s_read8_done) - 0x10, 0xfff, 0x9b | dpl, 0x4);
    c = use(ring, s_jump_limit, SEL(1) | rpl, 0x10);
    check_eq("code_with_a_base_vector", c.vector, VEC_DONE);
    check_eq("code_with_a_base_eip", c.eip, 0x12);
    check_eq("code_with_a_base_cs", c.cs, SEL(1) | rpl);
}

static void local_table(int ring)
{
    uint32_t dpl = ring ? 0x60 : 0, rpl = ring ? 3 : 0;
    struct context c;

    guest_ldt[1] = DESC(DATA + 0x1000, 0xfff, 0x93 | dpl, 0x4);
    poke(DATA + 0x1000, 0xd00d);
    c = use(ring, s_read, 8 | TI | rpl, 0);
    check_eq("ldt_segment", c.edx, 0xd00d);
    c = use(ring, s_read, 0x100 | TI | rpl, 0);
    check_fault("beyond_ldt_limit", &c, V_GP, 0x100 | TI);
    __asm__ volatile("lldt %w0" : : "r"(0));
    c = use(ring, s_read, 8 | TI | rpl, 0);
    check_fault("no_ldt", &c, V_GP, 8 | TI);
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
}

/* A loaded register keeps its hidden part when the table changes. */
static void hidden_parts(void)
{
    uint32_t v;

    guest_gdt[SEL(0) >> 3] = DESC(DATA, 0xfff, 0x93, 0x4);
    poke(DATA, 0xbeef);
    poke(DATA + 0x1000, 0xd00d);
    __asm__ volatile("mov %w0, %%fs" : : "r"(SEL(0)) : "memory");
    guest_gdt[SEL(0) >> 3] = DESC(DATA + 0x1000, 0xfff, 0x93, 0x4);
    __asm__ volatile("mov %%fs:0, %0" : "=r"(v) : : "memory");
    check_eq("hidden_base_survives", v, 0xbeef);
    __asm__ volatile("mov %w0, %%fs" : : "r"(SEL(0)) : "memory");
    __asm__ volatile("mov %%fs:0, %0" : "=r"(v) : : "memory");
    check_eq("reload_takes_new_base", v, 0xd00d);
    check_eq("accessed_bit", (guest_gdt[SEL(0) >> 3] >> 40) & 1, 1);
    guest_gdt[SEL(1) >> 3] = DESC(DATA, 0xfff, 0x92, 0x4);
    __asm__ volatile("mov %w0, %%fs" : : "r"(SEL(1)) : "memory");
    check_eq("accessed_bit_is_set", (guest_gdt[SEL(1) >> 3] >> 40) & 1, 1);
    __asm__ volatile("mov %w0, %%fs" : : "r"(SEL_KDATA));
}

static void set_word(const void *at, uint16_t v)
{
    memcpy((void *)address_of(at), &v, 2);
}

static void call_gates(void)
{
    struct context c;
    uint64_t gate = GATE(SEL_KCODE, address_of(s_gate_target), 0xec) | 2ull << 32; /* two parameters */

    guest_gdt[SEL(5) >> 3] = gate;
    set_word(s_gate_sel, SEL(5) | 3);
    c = run_at(3, s_gate);
    check_done("gate_to_ring_0_and_back", &c);
    check_eq("gate_cs", c.eax & 0xffff, SEL_KCODE);
    check_eq("gate_ss", c.ebx & 0xffff, SEL_KDATA);
    check_eq("gate_second_parameter", c.ecx, 0x22);
    check_eq("gate_first_parameter", c.edx, 0x11);
    check_eq("gate_return_cs", c.esi & 0xffff, SEL_UCODE);
    check_eq("gate_return_drops_parameters", c.ebp, (uint32_t)-8);
    guest_gdt[SEL(5) >> 3] = GATE(SEL_KCODE, address_of(s_gate_target), 0x8c) | 2ull << 32; /* DPL 0 */
    c = run_at(3, s_gate);
    check_fault("gate_dpl", &c, V_GP, SEL(5));
    guest_gdt[SEL(5) >> 3] = gate & ~(0x80ull << 40);
    c = run_at(3, s_gate);
    check_fault("gate_not_present", &c, V_NP, SEL(5));
    guest_gdt[SEL(5) >> 3] = gate;
    set_word(s_jmp_gate_sel, SEL(5) | 3);
    c = run_at(3, s_jmp_gate);
    check_fault("jmp_through_gate_to_ring_0", &c, V_GP, SEL_KCODE);
    guest_gdt[SEL(5) >> 3] = GATE(SEL_UCODE, address_of(s_gate_target_same), 0xec);
    c = run_at(3, s_gate);
    check_done("gate_within_ring_3", &c);
    check_eq("gate_within_ring_3_cs", c.eax & 0xffff, SEL_UCODE);
    guest_gdt[SEL(5) >> 3] = GATE(SEL_KDATA, 0, 0xec);
    c = run_at(3, s_gate);
    check_fault("gate_to_data", &c, V_GP, SEL_KDATA);
    guest_gdt[SEL(5) >> 3] = GATE(0, 0, 0xec);
    c = run_at(3, s_gate);
    check_fault("gate_to_null", &c, V_GP, 0);
}

static void conforming(void)
{
    struct context c;

    guest_gdt[SEL(6) >> 3] = DESC(0, 0xfffff, 0x9f, 0xc);
    c = use(3, s_conforming, SEL(6), 0);
    check_done("conforming_from_ring_3", &c);
    check_eq("conforming_keeps_cpl", c.edx & 0xffff, SEL(6) | 3);
    guest_gdt[SEL(6) >> 3] = DESC(0, 0xfffff, 0xff, 0xc);
    c = use(0, s_conforming, SEL(6), 0);
    check_fault("conforming_of_lower_privilege", &c, V_GP, SEL(6));
}

void guest_main(void)
{
    for (int ring = 0; ring <= 3; ring += 3) {
        limits(ring);
        code_limits(ring);
        local_table(ring);
    }
    hidden_parts();
    call_gates();
    conforming();
}
