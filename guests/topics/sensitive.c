/*
 * The 17 instructions that do not trap in user mode yet show or change system state
 * (Robin and Irvine, USENIX Security 2000), from ring 0 and from ring 3. Each check
 * fails when the host's value or the monitor's own ring shows through.
 *
 * Ref: Intel SDM vol. 2.
 */
#include "../lib/guest.h"

static uint8_t out[64] __attribute__((aligned(16)));

SNIPPET(s_sgdt, "sgdt out_buffer");
SNIPPET(s_sidt, "sidt out_buffer");
SNIPPET(s_sldt_r, "mov $-1, %eax; sldt %eax; mov $-1, %ecx; .byte 0x66; sldt %ecx");
SNIPPET(s_sldt_m, "movl $-1, out_buffer; sldt out_buffer");
SNIPPET(s_str_r, "mov $-1, %eax; str %eax; mov $-1, %ecx; .byte 0x66; str %ecx");
SNIPPET(s_str_m, "movl $-1, out_buffer; str out_buffer");
SNIPPET(s_smsw_r, "mov $-1, %eax; smsw %eax; mov $-1, %ecx; .byte 0x66; smsw %ecx");
SNIPPET(s_smsw_m, "movl $-1, out_buffer; smsw out_buffer");
SNIPPET(s_pushf, "pushf; pop %eax; .byte 0x66; pushf; .byte 0x66; pop %cx");
/* EAX: flags to load; EBX: flags read back */
SNIPPET(s_popf, "push %eax; popf; pushf; pop %ebx; push $2; popf");
SNIPPET(s_popf16, "push %eax; .byte 0x66; popf; pushf; pop %ebx; add $2, %esp; push $2; popf");
SNIPPET(s_lar, "xor %ebx, %ebx; lar %eax, %ebx; setz %cl; ");
SNIPPET(s_lsl, "xor %ebx, %ebx; lsl %eax, %ebx; setz %cl");
SNIPPET(s_verr, "verr %ax; setz %cl");
SNIPPET(s_verw, "verw %ax; setz %cl");
SNIPPET(s_mov_from_seg,
        "mov $-1, %eax; mov %cs, %eax; mov $-1, %ebx; mov %ss, %bx; mov $-1, %ecx; mov %ds, %ecx;"
        "movl $-1, out_buffer; mov %es, out_buffer; mov $-1, %edx; mov %fs, %edx; mov %gs, %esi");
SNIPPET(s_push_seg,
        "push $-1; pop %edi; push %cs; pop %eax; push %ss; pop %ebx; push %ds; pop %ecx; push %es; pop %edx;"
        "push %fs; pop %esi; push %gs; pop %edi");
SNIPPET(s_push_seg16,
        "mov %esp, %ebx; .byte 0x66; push %cs; sub %esp, %ebx; xor %eax, %eax; .byte 0x66; pop %ax");
SNIPPET(
    s_pop_seg,
    "push %eax; pop %ds; mov %ds, %ecx; push %eax; pop %es; mov %es, %edx; push %eax; pop %fs; mov %fs, %esi;"
    "push %eax; pop %gs; mov %gs, %edi");
SNIPPET(s_mov_to_seg,
        "mov %eax, %ds; mov %eax, %es; mov %eax, %fs; mov %eax, %gs; mov %ds, %ecx; mov %gs, %edx");
SNIPPET(s_mov_to_ss, "mov %ss, %ebx; mov %eax, %ss; mov %ss, %ecx; mov %ebx, %ss");
SNIPPET(s_mov_to_cs, ".byte 0x8e, 0xc8");
/* far transfers within the ring: EAX = selector of the code segment */
SNIPPET(s_call_far,
        "push %eax; push $1f; lcall *(%esp); jmp 2f; 1: mov %cs, %ebx; mov (%esp), %ecx; mov 4(%esp), %edx;"
        "lret; 2: add $8, %esp; mov $0x1234, %esi");
SNIPPET(s_jmp_far, "push %eax; push $1f; ljmp *(%esp); hlt; 1: mov %cs, %ebx; add $8, %esp");
SNIPPET(s_ret_far, "push %eax; push $1f; lret; hlt; 1: mov %cs, %ebx");
SNIPPET(s_ret_far_n,
        "mov %esp, %esi; sub $8, %esp; push %eax; push $1f; lret $8; hlt; 1: mov %cs, %ebx; sub %esp, %esi");
SNIPPET(s_iret, "pushf; push %eax; push $1f; iret; hlt; 1: mov %cs, %ebx");
SNIPPET(s_int80, "mov $0x55, %eax; int $0x80; mov $1, %ebx");
SNIPPET(s_int21, "int $0x21");
SNIPPET(s_int3, "int3");
SNIPPET(s_cd03, ".byte 0xcd, 3");
SNIPPET(s_into, "mov $0x7fffffff, %eax; inc %eax; into");
SNIPPET(s_into_not, "xor %eax, %eax; into");

__asm__(".set out_buffer, out");

static const char *at(int ring, const char *name)
{
    static char text[64];
    size_t n = strlen(name);

    memcpy(text, ring ? "ring3_" : "ring0_", 6);
    memcpy(text + 6, name, n + 1);
    return text;
}

static uint32_t out32(unsigned ofs)
{
    uint32_t v;

    memcpy(&v, out + ofs, 4);
    return v;
}

static void store_table_registers(int ring)
{
    struct context c;

    memset(out, 0xee, sizeof out);
    c = run_at(ring, s_sgdt);
    check_done(at(ring, "sgdt"), &c);
    check_eq(at(ring, "sgdt_limit"), out32(0) & 0xffff, sizeof guest_gdt - 1);
    check_eq(at(ring, "sgdt_base"), out32(2), address_of(guest_gdt));
    check_eq(at(ring, "sgdt_six_bytes"), out[6], 0xee);
    memset(out, 0xee, sizeof out);
    c = run_at(ring, s_sidt);
    check_eq(at(ring, "sidt_limit"), out32(0) & 0xffff, sizeof guest_idt - 1);
    check_eq(at(ring, "sidt_base"), out32(2), address_of(guest_idt));
    c = run_at(ring, s_sldt_r);
    check_eq(at(ring, "sldt_r32"), c.eax & 0xffff, SEL_LDT);
    check_eq(at(ring, "sldt_r16_keeps_high_half"), c.ecx, 0xffff0000u | SEL_LDT);
    run_at(ring, s_sldt_m);
    check_eq(at(ring, "sldt_m16"), out32(0), 0xffff0000u | SEL_LDT);
    c = run_at(ring, s_str_r);
    check_eq(at(ring, "str_r32"), c.eax & 0xffff, SEL_TSS);
    check_eq(at(ring, "str_r16_keeps_high_half"), c.ecx, 0xffff0000u | SEL_TSS);
    run_at(ring, s_str_m);
    check_eq(at(ring, "str_m16"), out32(0), 0xffff0000u | SEL_TSS);
}

static void machine_status_word(int ring)
{
    uint32_t cr0 = get_cr0();
    struct context c = run_at(ring, s_smsw_r);

    check_eq(at(ring, "smsw_r32_low"), c.eax & 0xffff, cr0 & 0xffff);
    check_eq(at(ring, "smsw_r16_keeps_high_half"), c.ecx, 0xffff0000u | (cr0 & 0xffff));
    run_at(ring, s_smsw_m);
    check_eq(at(ring, "smsw_m16"), out32(0), 0xffff0000u | (cr0 & 0xffff));
    set_cr0(cr0 | 8);
    c = run_at(ring, s_smsw_r);
    set_cr0(cr0);
    check_eq(at(ring, "smsw_shows_TS"), c.eax & 8, 8);
}

static uint32_t popf_result(int ring, uint32_t start, uint32_t load, const void *code)
{
    struct context c = context_new(ring, code);

    c.eflags = start;
    c.eax = load;
    context_run(&c);
    if (c.vector != VEC_DONE)
        return 0xbad00000u | c.vector;
    return c.ebx;
}

static void flags_register(int ring)
{
    struct context c = context_new(ring, s_pushf);

    c.eflags = 2 | EFL_CF | EFL_OF | (ring ? EFL_IF : 0);
    context_run(&c);
    check_eq(at(ring, "pushf"), c.eax, 2u | EFL_CF | EFL_OF | (ring ? EFL_IF : 0u));
    check_eq(at(ring, "pushf_16"), c.ecx & 0xffff, 2u | EFL_CF | EFL_OF | (ring ? EFL_IF : 0u));

    if (ring == 0) {
        check_eq("ring0_popf_sets_IF_IOPL_NT",
                 popf_result(0, 2, 2 | EFL_IF | EFL_IOPL | EFL_NT | EFL_ID | EFL_AC, s_popf),
                 2 | EFL_IF | EFL_IOPL | EFL_NT | EFL_ID | EFL_AC);
        check_eq("ring0_popf_clears_IF_IOPL", popf_result(0, 2 | EFL_IOPL, 2, s_popf), 2);
    } else {
        /* IOPL 0: neither IF nor IOPL change, and no exception tells so */
        check_eq("ring3_popf_keeps_IF_clear", popf_result(3, 2, 2 | EFL_IF | EFL_IOPL | EFL_CF, s_popf),
                 2 | EFL_CF);
        check_eq("ring3_popf_keeps_IF_set", popf_result(3, 2 | EFL_IF, 2, s_popf), 2 | EFL_IF);
        /* IOPL 3: IF changes, IOPL does not */
        check_eq("ring3_popf_iopl3_clears_IF", popf_result(3, 2 | EFL_IOPL | EFL_IF, 2, s_popf),
                 2 | EFL_IOPL);
        check_eq("ring3_popf_iopl3_sets_IF", popf_result(3, 2 | EFL_IOPL, 2 | EFL_IF, s_popf),
                 2 | EFL_IOPL | EFL_IF);
    }
    check_eq(at(ring, "popf_never_sets_VM_or_RF"), popf_result(ring, 2, 2 | EFL_VM | EFL_RF, s_popf), 2);
    check_eq(at(ring, "popf16_keeps_high_half"), popf_result(ring, 2 | EFL_ID, 2 | EFL_CF, s_popf16),
             2 | EFL_CF | EFL_ID);
}

static struct context query(int ring, const void *code, uint32_t selector)
{
    struct context c = context_new(ring, code);

    c.eax = selector;
    context_run(&c);
    return c;
}

static void descriptor_queries(int ring)
{
    struct context c;
    uint32_t rpl = ring ? 3 : 0;

    guest_gdt[SEL_FREE >> 3] = DESC(0x12345678, 0xabcde, 0xf1, 0x5); /* read only, 32-bit, AVL, bytes */
    guest_gdt[(SEL_FREE >> 3) + 1] = DESC(0, 0x1ff, 0x72, 0xc);      /* not present */
    guest_gdt[(SEL_FREE >> 3) + 2] = DESC(0, 0xfffff, 0xf9, 0xc);    /* code, execute only */
    guest_gdt[(SEL_FREE >> 3) + 3] = GATE(SEL_KCODE, 0, 0x8e);       /* interrupt gate: not for LAR */
    guest_gdt[(SEL_FREE >> 3) + 4] = DESC(0, 0xfffff, 0x9e, 0xc);    /* conforming, readable, DPL 0 */

    c = query(ring, s_lar, SEL_UDATA);
    check_eq(at(ring, "lar_user_data"), c.ebx & 0xf0ff00, 0x00c0f300); /* bits 19:16 are undefined */
    check_eq(at(ring, "lar_user_data_ZF"), c.ecx & 0xff, 1);
    c = query(ring, s_lar, SEL_FREE | rpl);
    check_eq(at(ring, "lar_avl_and_type"), c.ebx & 0xf0ff00, 0x0050f100);
    c = query(ring, s_lsl, SEL_FREE | rpl);
    check_eq(at(ring, "lsl_bytes"), c.ebx, 0xabcde);
    c = query(ring, s_lsl, SEL_UDATA);
    check_eq(at(ring, "lsl_pages"), c.ebx, 0xffffffffu);
    c = query(ring, s_lsl, (SEL_FREE + 8) | rpl);
    check_eq(at(ring, "lsl_not_present_is_fine"), c.ebx, 0x1ff000 | 0xfff);
    c = query(ring, s_lar, 0);
    check_eq(at(ring, "lar_null_ZF"), c.ecx & 0xff, 0);
    check_eq(at(ring, "lar_null_keeps_register"), c.ebx, 0);
    c = query(ring, s_lar, 0xfff8);
    check_eq(at(ring, "lar_beyond_limit_ZF"), c.ecx & 0xff, 0);
    c = query(ring, s_lar, (SEL_FREE + 24) | rpl);
    check_eq(at(ring, "lar_interrupt_gate_ZF"), c.ecx & 0xff, 0);
    c = query(ring, s_lar, SEL_KDATA);
    check_eq(at(ring, "lar_kernel_data_ZF"), c.ecx & 0xff, ring == 0);
    c = query(ring, s_lar, SEL_TSS);
    check_eq(at(ring, "lar_tss"), c.ebx, ring ? 0 : 0x8b00);
    c = query(ring, s_lsl, SEL_TSS);
    check_eq(at(ring, "lsl_tss"), c.ebx, ring ? 0 : 0x67);
    c = query(ring, s_verr, SEL_KDATA);
    check_eq(at(ring, "verr_kernel_data"), c.ecx & 0xff, ring == 0);
    c = query(ring, s_verr, SEL_KDATA | 3);
    check_eq(at(ring, "verr_kernel_data_rpl3"), c.ecx & 0xff, 0);
    c = query(ring, s_verw, SEL_UDATA);
    check_eq(at(ring, "verw_user_data"), c.ecx & 0xff, 1);
    c = query(ring, s_verw, SEL_FREE | rpl);
    check_eq(at(ring, "verw_read_only"), c.ecx & 0xff, 0);
    c = query(ring, s_verr, SEL_FREE | rpl);
    check_eq(at(ring, "verr_read_only"), c.ecx & 0xff, 1);
    c = query(ring, s_verr, (SEL_FREE + 16) | rpl);
    check_eq(at(ring, "verr_execute_only"), c.ecx & 0xff, 0);
    c = query(ring, s_verr, (SEL_FREE + 32) | 3);
    check_eq(at(ring, "verr_conforming_any_ring"), c.ecx & 0xff, 1);
    c = query(ring, s_verw, SEL_UCODE);
    check_eq(at(ring, "verw_code"), c.ecx & 0xff, 0);
    c = query(ring, s_verr, SEL_TSS);
    check_eq(at(ring, "verr_system_segment"), c.ecx & 0xff, 0);
}

static void segment_registers(int ring)
{
    uint32_t cs = ring ? SEL_UCODE : SEL_KCODE, ds = ring ? SEL_UDATA : SEL_KDATA;
    struct context c = context_new(ring, s_mov_from_seg);

    c.fs = SEL_UDATA;
    c.gs = 0;
    context_run(&c);
    check_eq(at(ring, "mov_from_cs"), c.eax, cs);
    check_eq(at(ring, "mov_from_ss_16"), c.ebx, 0xffff0000u | ds);
    check_eq(at(ring, "mov_from_ds"), c.ecx, ds);
    check_eq(at(ring, "mov_from_es_to_memory"), out32(0), 0xffff0000u | ds);
    check_eq(at(ring, "mov_from_fs"), c.edx, SEL_UDATA);
    check_eq(at(ring, "mov_from_null_gs"), c.esi, 0);
    c = context_new(ring, s_push_seg);
    c.fs = SEL_UDATA;
    c.gs = 3;
    context_run(&c);
    check_eq(at(ring, "push_cs"), c.eax & 0xffff, cs);
    check_eq(at(ring, "push_ss"), c.ebx & 0xffff, ds);
    check_eq(at(ring, "push_ds"), c.ecx & 0xffff, ds);
    check_eq(at(ring, "push_es"), c.edx & 0xffff, ds);
    check_eq(at(ring, "push_fs"), c.esi & 0xffff, SEL_UDATA);
    /* a null selector keeps its RPL until a return to an outer level clears it: SDM vol. 2A, "IRET" */
    check_eq(at(ring, "push_gs_null_with_rpl"), c.edi & 0xffff, ring ? 0 : 3);
    c = run_at(ring, s_push_seg16);
    check_eq(at(ring, "push_cs_16"), c.eax, cs);
    check_eq(at(ring, "push_cs_16_moves_esp_by_2"), c.ebx, 2);

    c = query(ring, s_pop_seg, ds | 0xabcd0000u);
    check_eq(at(ring, "pop_seg"), c.vector, VEC_DONE);
    check_eq(at(ring, "pop_ds"), c.ecx, ds);
    check_eq(at(ring, "pop_es"), c.edx, ds);
    check_eq(at(ring, "pop_gs"), c.edi, ds);
    c = query(ring, s_mov_to_seg, 0);
    check_done(at(ring, "mov_null_to_data_segments"), &c);
    check_eq(at(ring, "mov_null_to_ds_reads_back"), c.ecx, 0);
    c = query(ring, s_mov_to_ss, ds);
    check_done(at(ring, "mov_to_ss"), &c);
    check_eq(at(ring, "mov_to_ss_reads_back"), c.ecx, ds);
    c = query(ring, s_mov_to_ss, 0);
    check_fault(at(ring, "mov_null_to_ss"), &c, V_GP, 0);
    c = query(ring, s_mov_to_ss, ring ? SEL_KDATA : SEL_UDATA);
    check_fault(at(ring, "mov_other_ring_to_ss"), &c, V_GP, ring ? SEL_KDATA : SEL_UDATA & ~3u);
    c = query(ring, s_mov_to_seg, 0xfff8);
    check_fault(at(ring, "mov_beyond_gdt"), &c, V_GP, 0xfff8);
    c = query(ring, s_mov_to_seg, (SEL_FREE + 16) | 3);
    check_fault(at(ring, "mov_execute_only_to_ds"), &c, V_GP, SEL_FREE + 16);
    guest_gdt[(SEL_FREE >> 3) + 1] = DESC(0, 0x1ff, 0x72, 0xc);
    c = query(ring, s_mov_to_seg, (SEL_FREE + 8) | 3);
    check_fault(at(ring, "mov_not_present_to_ds"), &c, V_NP, SEL_FREE + 8);
    c = query(ring, s_mov_to_ss, (SEL_FREE + 8) | (ring ? 3 : 0));
    check_fault(at(ring, "mov_not_present_to_ss"), &c, ring ? V_SS : V_GP, SEL_FREE + 8);
    c = run_at(ring, s_mov_to_cs);
    check_fault(at(ring, "mov_to_cs_is_invalid"), &c, V_UD, 0);
    if (ring) {
        c = query(3, s_mov_to_seg, SEL_KDATA);
        check_fault("ring3_mov_kernel_data_to_ds", &c, V_GP, SEL_KDATA);
    }
}

static void far_transfers(int ring)
{
    uint32_t cs = ring ? SEL_UCODE : SEL_KCODE, other = ring ? SEL_KCODE : SEL_UCODE;
    struct context c = query(ring, s_call_far, cs);

    check_done(at(ring, "call_far"), &c);
    check_eq(at(ring, "call_far_cs"), c.ebx & 0xffff, cs);
    check_eq(at(ring, "call_far_pushes_cs"), c.edx & 0xffff, cs);
    check_eq(at(ring, "call_far_returned"), c.esi, 0x1234);
    c = query(ring, s_jmp_far, cs);
    check_done(at(ring, "jmp_far"), &c);
    check_eq(at(ring, "jmp_far_cs"), c.ebx & 0xffff, cs);
    c = query(ring, s_ret_far, cs);
    check_done(at(ring, "ret_far"), &c);
    check_eq(at(ring, "ret_far_cs"), c.ebx & 0xffff, cs);
    c = query(ring, s_ret_far_n, cs);
    check_done(at(ring, "ret_far_n"), &c);
    check_eq(at(ring, "ret_far_n_drops_8"), c.esi, 0);
    c = query(ring, s_iret, cs);
    check_done(at(ring, "iret"), &c);
    check_eq(at(ring, "iret_cs"), c.ebx & 0xffff, cs);
    c = query(ring, s_jmp_far, other);
    check_fault(at(ring, "jmp_far_to_other_ring"), &c, V_GP, other & ~3u);
    c = query(ring, s_jmp_far, 0);
    check_fault(at(ring, "jmp_far_to_null"), &c, V_GP, 0);
    c = query(ring, s_jmp_far, SEL_UDATA);
    check_fault(at(ring, "jmp_far_to_data"), &c, V_GP, SEL_UDATA & ~3u);
    c = query(ring, s_ret_far, SEL_UDATA);
    check_fault(at(ring, "ret_far_to_data"), &c, V_GP, SEL_UDATA & ~3u);
    if (ring) {
        c = query(ring, s_ret_far, SEL_KCODE);
        check_fault("ring3_ret_far_to_ring_0", &c, V_GP, SEL_KCODE);
        c = query(ring, s_iret, SEL_KCODE);
        check_fault("ring3_iret_to_ring_0", &c, V_GP, SEL_KCODE);
    }
}

static void software_interrupts(int ring)
{
    struct context c = run_at(ring, s_int80);

    check_eq(at(ring, "int_n_vector"), c.vector, 0x80);
    check_eq(at(ring, "int_n_eip_is_after"), c.eip, address_of(s_int80) + 7);
    check_eq(at(ring, "int_n_cs"), c.cs, ring ? SEL_UCODE : SEL_KCODE);
    check_eq(at(ring, "int_n_eax"), c.eax, 0x55);
    c = run_at(ring, s_int21);
    if (ring)
        check_fault("ring3_int_through_kernel_gate", &c, V_GP, 0x21 * 8 + 2);
    else
        check_eq("ring0_int_through_kernel_gate", c.vector, 0x21);
    if (ring)
        check_eq("ring3_int_through_kernel_gate_eip", c.eip, address_of(s_int21));
    c = run_at(ring, s_int3);
    check_eq(at(ring, "int3_vector"), c.vector, V_BP);
    check_eq(at(ring, "int3_eip_is_after"), c.eip, address_of(s_int3) + 1);
    c = run_at(ring, s_cd03);
    check_eq(at(ring, "int_3_long_form_eip"), c.eip, address_of(s_cd03) + 2);
    c = run_at(ring, s_into);
    check_eq(at(ring, "into_vector"), c.vector, V_OF);
    check_eq(at(ring, "into_eip_is_after"), c.eip, address_of(s_into_done));
    c = run_at(ring, s_into_not);
    check_done(at(ring, "into_not_taken"), &c);
}

void guest_main(void)
{
    for (int ring = 0; ring <= 3; ring += 3) {
        store_table_registers(ring);
        machine_status_word(ring);
        flags_register(ring);
        descriptor_queries(ring);
        segment_registers(ring);
        far_transfers(ring);
        software_interrupts(ring);
    }
}
