/*
 * System instructions: who may use them, what they check, what they change, and whether
 * translated code may go on inline afterwards.
 */
#include "callout_fixture.h"

#define MSR_TSC          0x10u
#define MSR_APIC_BASE    0x1bu
#define MSR_UCODE_REV    0x8bu
#define MSR_SYSENTER_EIP 0x176u
#define MSR_MISC_ENABLE  0x1a0u
#define MSR_PAT          0x277u
#define MSR_EFER         0xc0000080u
#define MSR_AMD_HWCR     0xc0010015u

static void put_descriptor(struct fixture *fx, uint16_t sel, uint32_t base, uint32_t limit, unsigned attr)
{
    fx_put32(fx, GDT_PA + sel, base << 16 | (limit & 0xffff));
    fx_put32(fx, GDT_PA + sel + 4,
             (base & 0xff000000u) | (limit & 0xf0000) | attr << 8 | (base >> 16 & 0xff));
}

static enum exit_reason mov_to_cr(struct fixture *fx, unsigned n, uint32_t value)
{
    fx->cpu->gpr[ESI] = value;
    return fx_call(fx, callout_mov_to_cr, ARG(.reg = n, .rm = ESI), 0);
}

static void mov_to_cr_faults(struct fixture *fx, unsigned n, uint32_t value)
{
    fx->cpu->gpr[ESI] = value;
    fx_expect_fault(fx, callout_mov_to_cr, ARG(.reg = n, .rm = ESI), 0, EXC_GP, 0);
}

/* ---- privilege ------------------------------------------------------------------------- */

static callout_fn *const privileged[] = {
    callout_lgdt,      callout_lidt,   callout_lmsw,        callout_clts,      callout_invlpg,
    callout_invd,      callout_wbinvd, callout_mov_from_cr, callout_mov_to_cr, callout_mov_from_dr,
    callout_mov_to_dr, callout_rdmsr,  callout_wrmsr,       callout_rdpmc,     callout_hlt,
};

static void privileged_instructions_fault_in_user_mode(void **state)
{
    struct fixture *fx = *state;

    fx_user_mode(fx);
    for (size_t i = 0; i < ARRAY_LEN(privileged); i++)
        fx_expect_fault(fx, privileged[i], ARG(.mem = true), 0x2000, EXC_GP, 0);
    fx_expect_fault(fx, callout_lldt, ARG(), 0, EXC_GP, 0);
    fx_expect_fault(fx, callout_ltr, ARG(), 0, EXC_GP, 0);
}

static void privileged_instructions_fault_in_vm86_mode(void **state)
{
    struct fixture *fx = *state;

    fx_vm86_mode(fx);
    for (size_t i = 0; i < ARRAY_LEN(privileged); i++)
        fx_expect_fault(fx, privileged[i], ARG(.mem = true), 0x2000, EXC_GP, 0);
}

static void ldt_and_task_registers_exist_in_protected_mode_only(void **state)
{
    struct fixture *fx = *state;
    static callout_fn *const fns[] = { callout_sldt, callout_str, callout_lldt, callout_ltr };

    fx_real_mode(fx);
    for (size_t i = 0; i < ARRAY_LEN(fns); i++)
        fx_expect_fault(fx, fns[i], ARG(), 0, EXC_UD, NO_ERROR);
    fx->cpu->cr0 |= CR0_PE;
    fx_vm86_mode(fx);
    for (size_t i = 0; i < ARRAY_LEN(fns); i++)
        fx_expect_fault(fx, fns[i], ARG(), 0, EXC_UD, NO_ERROR);
}

/* ---- descriptor tables ------------------------------------------------------------------- */

static void table_registers_go_to_memory_and_back(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gdtr = (struct table_reg){ 0x89abcdef, 0x1234 };
    assert_int_equal(fx_call(fx, callout_sgdt, ARG(.mem = true, .osize = 2), 0x2000), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2000), 0xcdef1234);
    assert_int_equal(fx_get32(fx, 0x2004), 0x89ab); /* all four bytes of the base, two of nothing */
    assert_int_equal(fx_call(fx, callout_lidt, ARG(.mem = true), 0x2000), EXIT_RESUME);
    assert_int_equal(cpu->idtr.base, 0x89abcdef);
    assert_int_equal(cpu->idtr.limit, 0x1234);
    assert_int_equal(fx_call(fx, callout_lgdt, ARG(.mem = true, .osize = 2), 0x2000), EXIT_RESUME);
    assert_int_equal(cpu->gdtr.base, 0x00abcdef); /* a 16-bit operand size loads 24 bits */
    fx_user_mode(fx);
    assert_int_equal(fx_call(fx, callout_sidt, ARG(.mem = true), 0x3000), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x3000), 0xcdef1234);
}

static void a_fault_in_lgdt_keeps_gdtr(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_pte(fx, 0x3000, 0);
    fx_expect_fault(fx, callout_lgdt, ARG(.mem = true), 0x2ffc, EXC_PF, 0);
    assert_int_equal(fx->cpu->gdtr.base, GDT_PA);
    assert_int_equal(fx->cpu->gdtr.limit, 0xff);
    fx_expect_fault(fx, callout_sgdt, ARG(.mem = true), 0x2ffc, EXC_PF, PF_WR);
    assert_int_equal(fx_get32(fx, 0x2ffc), 0);
}

static void lldt_checks_the_descriptor(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    uint64_t arg = ARG(.rm = EBX);

    put_descriptor(fx, 0x20, 0x12345678, 0x2f, DESC_P | SYS_LDT);
    put_descriptor(fx, 0x28, 0, 0x2f, SYS_LDT);
    put_descriptor(fx, 0x30, 0, 0x67, DESC_P | SYS_TSS32_AVAIL);
    put_descriptor(fx, 0x38, 0, 0x67, DESC_P | DESC_S | SYS_LDT);
    cpu->gpr[EBX] = 0x23;
    assert_int_equal(fx_call(fx, callout_lldt, arg, 0), EXIT_RESUME);
    assert_int_equal(cpu->ldtr.sel, 0x23);
    assert_int_equal(cpu->ldtr.base, 0x12345678);
    assert_int_equal(cpu->ldtr.limit, 0x2f);
    cpu->gpr[EBX] = 0x2b;
    fx_expect_fault(fx, callout_lldt, arg, 0, EXC_NP, 0x28);
    cpu->gpr[EBX] = 0x30;
    fx_expect_fault(fx, callout_lldt, arg, 0, EXC_GP, 0x30);
    cpu->gpr[EBX] = 0x38; /* a data segment whose type bits look the same */
    fx_expect_fault(fx, callout_lldt, arg, 0, EXC_GP, 0x38);
    cpu->gpr[EBX] = 0x24; /* in the LDT */
    fx_expect_fault(fx, callout_lldt, arg, 0, EXC_GP, 0x24);
    cpu->gpr[EBX] = 0x100; /* past the limit */
    fx_expect_fault(fx, callout_lldt, arg, 0, EXC_GP, 0x100);
    cpu->gpr[EBX] = 3; /* null */
    assert_int_equal(fx_call(fx, callout_lldt, arg, 0), EXIT_RESUME);
    assert_int_equal(cpu->ldtr.sel, 3);
    assert_int_equal(cpu->ldtr.attr & DESC_P, 0);
}

static void ltr_marks_the_tss_busy_and_refuses_a_busy_one(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    uint64_t arg = ARG(.rm = EBX);

    put_descriptor(fx, 0x30, TSS_PA, 0x67, DESC_P | SYS_TSS32_AVAIL);
    put_descriptor(fx, 0x38, TSS_PA, 0x67, SYS_TSS16_AVAIL);
    cpu->gpr[EBX] = 0x30;
    assert_int_equal(fx_call(fx, callout_ltr, arg, 0), EXIT_RESUME);
    assert_int_equal(cpu->tr.base, TSS_PA);
    assert_int_equal(cpu->tr.attr, DESC_P | SYS_TSS32_BUSY);
    assert_int_equal(fx_get32(fx, GDT_PA + 0x34) >> 8 & 0xff, DESC_P | SYS_TSS32_BUSY);
    fx_expect_fault(fx, callout_ltr, arg, 0, EXC_GP, 0x30);
    cpu->gpr[EBX] = 0x38;
    fx_expect_fault(fx, callout_ltr, arg, 0, EXC_NP, 0x38);
    cpu->gpr[EBX] = 0;
    fx_expect_fault(fx, callout_ltr, arg, 0, EXC_GP, 0);
    assert_int_equal(fx_call(fx, callout_str, ARG(.rm = ECX), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[ECX], 0x30);
}

static void selectors_are_zero_extended_and_memory_gets_a_word(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->ldtr.sel = 0x48;
    cpu->gpr[ECX] = 0xffffffff;
    assert_int_equal(fx_call(fx, callout_sldt, ARG(.rm = ECX, .osize = 2), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[ECX], 0xffff0048);
    assert_int_equal(fx_call(fx, callout_sldt, ARG(.rm = ECX), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[ECX], 0x48);
    fx_put32(fx, 0x2000, 0xffffffff);
    assert_int_equal(fx_call(fx, callout_sldt, ARG(.mem = true), 0x2000), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2000), 0xffff0048);
}

/* ---- control registers ---------------------------------------------------------------------- */

static void cr0_refuses_contradictions(void **state)
{
    struct fixture *fx = *state;

    mov_to_cr_faults(fx, 0, CR0_PG);
    mov_to_cr_faults(fx, 0, CR0_PE | CR0_NW);
    assert_int_equal(mov_to_cr(fx, 0, CR0_PE | 0x1ffaffc0), EXIT_RESUME); /* undefined bits are ignored */
    assert_int_equal(fx->cpu->cr0, CR0_PE | CR0_ET);
}

static void cr0_dispatches_when_translations_differ(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    assert_int_equal(mov_to_cr(fx, 0, CR0_PE | CR0_NE), EXIT_RESUME);
    assert_int_equal(cpu->eip, CODE_EIP);
    assert_int_equal(mov_to_cr(fx, 0, CR0_PE | CR0_TS), EXIT_DISPATCH);
    assert_int_equal(cpu->eip, NEXT_EIP);
    assert_true(cpu->mode & MODE_FPU_NM);
    assert_int_equal(fx_call(fx, callout_clts, ARG(), 0), EXIT_DISPATCH);
    assert_false(cpu->mode & MODE_FPU_NM);
    assert_int_equal(fx_call(fx, callout_clts, ARG(), 0), EXIT_RESUME);
    assert_int_equal(mov_to_cr(fx, 0, 0), EXIT_DISPATCH);
    assert_false(cpu->mode & MODE_PROTECTED);
}

static void turning_paging_on_changes_what_memory_means(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    uint64_t arg = ARG(.rm = EAX, .mem = true);

    fx_paging(fx);
    fx_put32(fx, 0x5000, 0x55);
    cpu->idtr.limit = 0;
    fx_pte(fx, 0x4000, 0x5000 | PTE_P | PTE_W);
    assert_int_equal(mov_to_cr(fx, 0, CR0_PE), EXIT_DISPATCH);
    assert_int_equal(fx_call(fx, callout_lidt, arg, 0x4000), EXIT_RESUME);
    assert_int_equal(cpu->idtr.limit, 0);
    assert_int_equal(mov_to_cr(fx, 0, CR0_PE | CR0_PG), EXIT_DISPATCH);
    assert_int_equal(fx_call(fx, callout_lidt, arg, 0x4000), EXIT_RESUME);
    assert_int_equal(cpu->idtr.limit, 0x55);
}

static void lmsw_sets_four_bits_and_never_clears_pe(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->cr0 |= CR0_WP | CR0_MP;
    cpu->gpr[EDI] = 0xfffffff0u;
    assert_int_equal(fx_call(fx, callout_lmsw, ARG(.rm = EDI), 0), EXIT_RESUME);
    assert_int_equal(cpu->cr0, CR0_PE | CR0_ET | CR0_WP);
    cpu->gpr[EDI] = CR0_TS | CR0_EM | CR0_MP;
    assert_int_equal(fx_call(fx, callout_lmsw, ARG(.rm = EDI), 0), EXIT_DISPATCH);
    assert_int_equal(cpu->cr0, CR0_PE | CR0_ET | CR0_WP | CR0_TS | CR0_EM | CR0_MP);
}

static void smsw_is_for_everyone(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->cr0 |= CR0_NE | CR0_WP;
    fx_user_mode(fx);
    assert_int_equal(fx_call(fx, callout_smsw, ARG(.rm = EDX), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EDX], cpu->cr0);
    fx_put32(fx, 0x2000, 0xffffffff);
    assert_int_equal(fx_call(fx, callout_smsw, ARG(.mem = true), 0x2000), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x2000), 0xffff0000 | (cpu->cr0 & 0xffff));
}

static void cr4_takes_what_the_model_has(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    assert_int_equal(mov_to_cr(fx, 4, CR4_VME | CR4_PVI), EXIT_RESUME);
    mov_to_cr_faults(fx, 4, CR4_MCE);
    mov_to_cr_faults(fx, 4, 0x800);
    assert_int_equal(mov_to_cr(fx, 4, CR4_TSD | CR4_DE), EXIT_RESUME);
    assert_int_equal(mov_to_cr(fx, 4, CR4_PSE | CR4_PGE), EXIT_DISPATCH);
    assert_int_equal(mov_to_cr(fx, 4, CR4_PSE | CR4_PGE | CR4_OSFXSR), EXIT_DISPATCH);
    assert_false(cpu->mode & MODE_SSE_UD);
    fx->vm.model = cpu_model_find("pentium");
    mov_to_cr_faults(fx, 4, CR4_PGE);
    fx->vm.model = cpu_model_find("486");
    fx_expect_fault(fx, callout_mov_from_cr, ARG(.reg = 4), 0, EXC_UD, NO_ERROR);
}

static void control_registers_that_do_not_exist_are_undefined(void **state)
{
    struct fixture *fx = *state;
    static const unsigned missing[] = { 1, 5, 6, 7 };

    for (size_t i = 0; i < ARRAY_LEN(missing); i++) {
        fx_expect_fault(fx, callout_mov_from_cr, ARG(.reg = missing[i]), 0, EXC_UD, NO_ERROR);
        fx_expect_fault(fx, callout_mov_to_cr, ARG(.reg = missing[i]), 0, EXC_UD, NO_ERROR);
    }
}

static void reserved_bits_of_pdptes_fault_before_anything_changes(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    memset(fx->ram + 0x8000, 0, 0x1000);
    fx_put32(fx, 0x8000, 0x9000 | PTE_P | PTE_W); /* W is reserved here */
    fx_put32(fx, 0xa000, 0xb000 | PTE_P);
    cpu->cr3 = 0x8000;
    assert_int_equal(mov_to_cr(fx, 4, CR4_PAE), EXIT_DISPATCH);
    mov_to_cr_faults(fx, 0, CR0_PE | CR0_PG);
    assert_int_equal(mov_to_cr(fx, 3, 0xa000), EXIT_DISPATCH);
    assert_int_equal(mov_to_cr(fx, 0, CR0_PE | CR0_PG), EXIT_DISPATCH);
    mov_to_cr_faults(fx, 3, 0x8000);
    assert_int_equal(cpu->pdpte[0] & ~0xfffull, 0xb000);
    fx_put32(fx, 0xa000, 0xb000 | PTE_P | PTE_W);
    mov_to_cr_faults(fx, 4, CR4_PAE | CR4_PGE);                        /* loads the PDPTEs anew */
    assert_int_equal(mov_to_cr(fx, 4, CR4_PAE | CR4_DE), EXIT_RESUME); /* does not */
}

static void cr2_and_cr3_hold_what_was_written(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    assert_int_equal(mov_to_cr(fx, 2, 0x12345), EXIT_RESUME);
    assert_int_equal(mov_to_cr(fx, 3, ROOT_PA | 0x18), EXIT_DISPATCH);
    assert_int_equal(cpu->eip, NEXT_EIP);
    assert_int_equal(fx_call(fx, callout_mov_from_cr, ARG(.reg = 2, .rm = EBP), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EBP], 0x12345);
    assert_int_equal(fx_call(fx, callout_mov_from_cr, ARG(.reg = 3, .rm = EBP), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EBP], ROOT_PA | 0x18);
}

static void invlpg_dispatches_for_running_code_only(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    assert_int_equal(fx_call(fx, callout_invlpg, ARG(.mem = true), 0x80000000), EXIT_RESUME);
    assert_int_equal(fx_call(fx, callout_invlpg, ARG(.mem = true), CODE_EIP), EXIT_DISPATCH);
    assert_int_equal(fx->cpu->eip, NEXT_EIP);
    fx->cpu->segs[SEG_FS].base = 0x80000000u;
    assert_int_equal(fx_call(fx, callout_invlpg, ARG(.mem = true, SEG(SEG_FS)), 0x80000000u + CODE_EIP),
                     EXIT_DISPATCH);
}

static void invlpg_makes_a_changed_entry_seen(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx);
    fx_put32(fx, 0x5000, 0x11);
    fx_put32(fx, 0x6000, 0x22);
    fx->cpu->gpr[ESI] = 0x5000;
    assert_int_equal(fx_call(fx, callout_lods, ARG(), 0), EXIT_RESUME);
    fx_put32(fx, TABLE_PA + 5 * 4, 0x6000 | PTE_P);
    assert_int_equal(fx_call(fx, callout_invlpg, ARG(.mem = true), 0x5123), EXIT_DISPATCH);
    fx->cpu->gpr[ESI] = 0x5000;
    assert_int_equal(fx_call(fx, callout_lods, ARG(), 0), EXIT_RESUME);
    assert_int_equal(fx->cpu->gpr[EAX], 0x22);
}

/* ---- debug registers ------------------------------------------------------------------------- */

static void debug_registers_have_fixed_bits_and_aliases(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gpr[EAX] = 0;
    assert_int_equal(fx_call(fx, callout_mov_to_dr, ARG(.reg = 4), 0), EXIT_RESUME);
    assert_int_equal(cpu->dr[6], 0xffff0ff0);
    assert_int_equal(fx_call(fx, callout_mov_to_dr, ARG(.reg = 7), 0), EXIT_RESUME);
    assert_int_equal(fx_call(fx, callout_mov_from_dr, ARG(.reg = 5, .rm = ECX), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[ECX], 0x400);
    cpu->gpr[EAX] = UINT32_MAX & ~0x2000u;
    assert_int_equal(fx_call(fx, callout_mov_to_dr, ARG(.reg = 7), 0), EXIT_DISPATCH);
    assert_int_equal(cpu->dr[7], 0xffff07ff);
    assert_int_equal(fx_call(fx, callout_mov_to_dr, ARG(.reg = 3), 0), EXIT_DISPATCH);
    assert_int_equal(cpu->dr[3], UINT32_MAX & ~0x2000u);
    cpu->cr4 |= CR4_DE;
    fx_expect_fault(fx, callout_mov_from_dr, ARG(.reg = 5), 0, EXC_UD, NO_ERROR);
    fx_expect_fault(fx, callout_mov_to_dr, ARG(.reg = 4), 0, EXC_UD, NO_ERROR);
}

static void general_detect_traps_one_access(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->dr[7] = 0x2400;
    fx_expect_fault(fx, callout_mov_from_dr, ARG(.reg = 0), 0, EXC_DB, NO_ERROR);
    assert_int_equal(cpu->fault.dr6, DR6_BD);
    cpu->dr[7] = 0x400; /* as delivery leaves it */
    assert_int_equal(fx_call(fx, callout_mov_from_dr, ARG(.reg = 0), 0), EXIT_RESUME);
}

/* ---- time stamp counter and MSRs ---------------------------------------------------------------- */

static uint64_t read_tsc(struct fixture *fx)
{
    assert_int_equal(fx_call(fx, callout_rdtsc, ARG(), 0), EXIT_RESUME);
    return (uint64_t)fx->cpu->gpr[EDX] << 32 | fx->cpu->gpr[EAX];
}

static enum exit_reason wrmsr(struct fixture *fx, uint32_t msr, uint64_t value)
{
    fx->cpu->gpr[ECX] = msr;
    fx->cpu->gpr[EAX] = (uint32_t)value;
    fx->cpu->gpr[EDX] = (uint32_t)(value >> 32);
    return fx_call(fx, callout_wrmsr, ARG(), 0);
}

static uint64_t rdmsr(struct fixture *fx, uint32_t msr)
{
    fx->cpu->gpr[ECX] = msr;
    assert_int_equal(fx_call(fx, callout_rdmsr, ARG(), 0), EXIT_RESUME);
    return (uint64_t)fx->cpu->gpr[EDX] << 32 | fx->cpu->gpr[EAX];
}

static void the_tsc_counts_and_can_be_set(void **state)
{
    struct fixture *fx = *state;
    uint64_t first = read_tsc(fx);

    assert_true(read_tsc(fx) > first);
    assert_int_equal(wrmsr(fx, MSR_TSC, 1000), EXIT_RESUME);
    assert_in_range(read_tsc(fx), 1000, 1u << 30);
}

static void the_tsc_follows_vm_time_when_the_clock_counts_instructions(void **state)
{
    struct fixture *fx = *state;

    fx->vm.config.clock_insn = true;
    fx->now_ns = 0x500000001ull;
    assert_int_equal(read_tsc(fx), 0x500000001ull);
    assert_int_equal(wrmsr(fx, MSR_TSC, 7), EXIT_RESUME);
    fx->now_ns += 10;
    assert_int_equal(read_tsc(fx), 17);
}

static void tsd_keeps_the_tsc_from_user_code(void **state)
{
    struct fixture *fx = *state;

    fx->cpu->cr4 |= CR4_TSD;
    read_tsc(fx);
    fx_user_mode(fx);
    fx_expect_fault(fx, callout_rdtsc, ARG(), 0, EXC_GP, 0);
    fx->cpu->cr4 &= ~CR4_TSD;
    read_tsc(fx);
}

static void msrs_keep_their_values_and_refuse_bad_ones(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    assert_int_equal(wrmsr(fx, MSR_SYSENTER_EIP, 0xc0123456), EXIT_RESUME);
    assert_int_equal(cpu->sysenter_eip, 0xc0123456);
    assert_int_equal(rdmsr(fx, MSR_SYSENTER_EIP), 0xc0123456);
    assert_int_equal(rdmsr(fx, MSR_PAT), 0x0007040600070406ull);
    assert_int_equal(wrmsr(fx, MSR_PAT, 0x0007010600070106ull), EXIT_RESUME);
    assert_int_equal(rdmsr(fx, MSR_PAT), 0x0007010600070106ull);
    assert_int_equal(wrmsr(fx, MSR_PAT, 2), EXIT_FAULT);
    assert_int_equal(rdmsr(fx, MSR_PAT), 0x0007010600070106ull);
    assert_int_equal(wrmsr(fx, MSR_EFER, EFER_NXE), EXIT_DISPATCH);
    assert_int_equal(wrmsr(fx, MSR_EFER, EFER_NXE), EXIT_RESUME);
    assert_int_equal(wrmsr(fx, MSR_EFER, 1), EXIT_FAULT);
    assert_int_equal(cpu->fault.vector, EXC_GP);
    assert_int_equal(cpu->efer, EFER_NXE);
}

static void msrs_exist_by_model(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gpr[ECX] = MSR_APIC_BASE;
    fx_expect_fault(fx, callout_rdmsr, ARG(), 0, EXC_GP, 0);
    cpu->gpr[ECX] = MSR_MISC_ENABLE;
    fx_expect_fault(fx, callout_rdmsr, ARG(), 0, EXC_GP, 0);
    assert_int_equal(wrmsr(fx, MSR_AMD_HWCR, rdmsr(fx, MSR_AMD_HWCR) | 0x40), EXIT_RESUME);
    assert_int_equal(wrmsr(fx, MSR_UCODE_REV, 5), EXIT_RESUME);
    assert_int_equal(rdmsr(fx, MSR_UCODE_REV), 0);
    fx->vm.model = cpu_model_find("pentium4");
    assert_int_equal(rdmsr(fx, MSR_MISC_ENABLE), 1);
    cpu->gpr[ECX] = MSR_EFER;
    fx_expect_fault(fx, callout_rdmsr, ARG(), 0, EXC_GP, 0);
    fx->vm.model = cpu_model_find("pentium");
    cpu->gpr[ECX] = MSR_SYSENTER_EIP;
    fx_expect_fault(fx, callout_wrmsr, ARG(), 0, EXC_GP, 0);
}

static void hlt_stops_after_itself_and_rsm_is_undefined(void **state)
{
    struct fixture *fx = *state;

    assert_int_equal(fx_call(fx, callout_hlt, ARG(), 0), EXIT_HALT);
    assert_int_equal(fx->cpu->eip, NEXT_EIP);
    fx_expect_fault(fx, callout_rsm, ARG(), 0, EXC_UD, NO_ERROR);
    fx_expect_fault(fx, callout_rdpmc, ARG(), 0, EXC_GP, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(privileged_instructions_fault_in_user_mode),
        TEST(privileged_instructions_fault_in_vm86_mode),
        TEST(ldt_and_task_registers_exist_in_protected_mode_only),
        TEST(table_registers_go_to_memory_and_back),
        TEST(a_fault_in_lgdt_keeps_gdtr),
        TEST(lldt_checks_the_descriptor),
        TEST(ltr_marks_the_tss_busy_and_refuses_a_busy_one),
        TEST(selectors_are_zero_extended_and_memory_gets_a_word),
        TEST(cr0_refuses_contradictions),
        TEST(cr0_dispatches_when_translations_differ),
        TEST(turning_paging_on_changes_what_memory_means),
        TEST(lmsw_sets_four_bits_and_never_clears_pe),
        TEST(smsw_is_for_everyone),
        TEST(cr4_takes_what_the_model_has),
        TEST(control_registers_that_do_not_exist_are_undefined),
        TEST(reserved_bits_of_pdptes_fault_before_anything_changes),
        TEST(cr2_and_cr3_hold_what_was_written),
        TEST(invlpg_dispatches_for_running_code_only),
        TEST(invlpg_makes_a_changed_entry_seen),
        TEST(debug_registers_have_fixed_bits_and_aliases),
        TEST(general_detect_traps_one_access),
        TEST(the_tsc_counts_and_can_be_set),
        TEST(the_tsc_follows_vm_time_when_the_clock_counts_instructions),
        TEST(tsd_keeps_the_tsc_from_user_code),
        TEST(msrs_keep_their_values_and_refuse_bad_ones),
        TEST(msrs_exist_by_model),
        TEST(hlt_stops_after_itself_and_rsm_is_undefined),
    };

    return cmocka_run_group_tests_name("callout system instructions", tests, NULL, NULL);
}
