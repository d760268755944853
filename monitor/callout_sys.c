/*
 * System instructions: descriptor-table registers, control and debug registers,
 * the time stamp counter, HLT and their kin.
 *
 * Each callout makes its checks in the SDM's order, one per line, and changes state
 * only when no check is left. Whatever can change the meaning of translated code
 * (the mode word, page mappings) ends with EXIT_DISPATCH; the rest goes on inline.
 * VM86 code runs at CPL 3, so that the CPL check covers it.
 * Ref: Intel SDM vol. 2, under the instructions' names; vol. 3A, ch. 2 "System
 * Architecture Overview" and vol. 3B, ch. "Debug, Branch Profile, TSC...".
 */
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"
#include "monitor/debug.h"
#include "monitor/system_internal.h"

#define TYPE_BUSY 2u /* bit of a TSS descriptor's type */

/* ---- GDTR and IDTR ------------------------------------------------------------ */

/*
 * The image: limit (2 bytes), base (4). With a 16-bit operand size the manual has
 * the sixth byte stored as 0; processors from the 386 on store the whole base, and so
 * do we.
 */
static enum exit_reason store_table_reg(struct vcpu *cpu, uint64_t arg, uint32_t ea,
                                        const struct table_reg *reg)
{
    uint8_t image[6] = { (uint8_t)reg->limit,       (uint8_t)(reg->limit >> 8), (uint8_t)reg->base,
                         (uint8_t)(reg->base >> 8), (uint8_t)(reg->base >> 16), (uint8_t)(reg->base >> 24) };

    if (!carg_is_mem(arg))
        return end_raise(cpu, EXC_UD);
    enum x86_rc rc = vcpu_write(cpu, (enum seg_id)carg_seg(arg), ea, image, sizeof image);

    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

static enum exit_reason load_table_reg(struct vcpu *cpu, uint64_t arg, uint32_t ea, struct table_reg *reg)
{
    uint8_t image[6];

    if (!carg_is_mem(arg))
        return end_raise(cpu, EXC_UD);
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    enum x86_rc rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, image, sizeof image);

    if (rc != X86_OK)
        return exit_failed(rc);
    reg->limit = (uint16_t)(image[0] | image[1] << 8);
    reg->base = image[2] | (uint32_t)image[3] << 8 | (uint32_t)image[4] << 16;
    if (carg_osize(arg) != 2) /* a 16-bit operand size loads 24 bits */
        reg->base |= (uint32_t)image[5] << 24;
    return EXIT_RESUME;
}

enum exit_reason callout_sgdt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    return store_table_reg(cpu, arg, ea, &cpu->gdtr);
}

enum exit_reason callout_sidt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    return store_table_reg(cpu, arg, ea, &cpu->idtr);
}

enum exit_reason callout_lgdt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    return load_table_reg(cpu, arg, ea, &cpu->gdtr);
}

enum exit_reason callout_lidt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    return load_table_reg(cpu, arg, ea, &cpu->idtr);
}

/* ---- LDTR, TR and the machine status word -------------------------------------- */

/* To memory always 16 bits; to a register the operand size, zero-extended (SDM: Pentium Pro on). */
static enum exit_reason store_word(struct vcpu *cpu, uint64_t arg, uint32_t ea, uint32_t value)
{
    if (carg_is_mem(arg)) {
        uint16_t word = (uint16_t)value;
        enum x86_rc rc = vcpu_write(cpu, (enum seg_id)carg_seg(arg), ea, &word, 2);

        return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
    }
    set_reg(cpu, carg_rm(arg), carg_osize(arg), value);
    return EXIT_RESUME;
}

enum exit_reason callout_sldt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    if (!vcpu_is_protected(cpu))
        return end_raise(cpu, EXC_UD);
    return store_word(cpu, arg, ea, cpu->ldtr.sel);
}

enum exit_reason callout_str(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    if (!vcpu_is_protected(cpu))
        return end_raise(cpu, EXC_UD);
    return store_word(cpu, arg, ea, cpu->tr.sel);
}

/* SMSW r32 gives the whole of CR0: the upper half is undefined by the manual, processors show it. */
enum exit_reason callout_smsw(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    return store_word(cpu, arg, ea, cpu->cr0);
}

/* What LLDT and LTR have in common: the operand, and its descriptor in the GDT. */
static enum x86_rc load_system_selector(struct vcpu *cpu, uint64_t arg, uint32_t ea, uint16_t *sel)
{
    if (!vcpu_is_protected(cpu))
        return vcpu_raise(cpu, EXC_UD);
    if (cpu->cpl != 0)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    return read_rm16(cpu, arg, ea, sel);
}

enum exit_reason callout_lldt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct desc d;
    uint16_t sel;
    enum x86_rc rc = load_system_selector(cpu, arg, ea, &sel);

    if (rc != X86_OK)
        return exit_failed(rc);
    if (sel_is_null(sel)) { /* no LDT; using it is what faults */
        cpu->ldtr = (struct segment){ .sel = sel };
        return EXIT_RESUME;
    }
    if (sel & SEL_TI)
        return exit_failed(raise_sel(cpu, EXC_GP, sel, 0));
    if ((rc = desc_fetch(cpu, sel, EXC_GP, 0, &d)) != X86_OK)
        return exit_failed(rc);
    if (desc_sys_type(&d) != SYS_LDT)
        return exit_failed(raise_sel(cpu, EXC_GP, sel, 0));
    if (!desc_is_present(&d))
        return exit_failed(raise_sel(cpu, EXC_NP, sel, 0));
    cpu->ldtr = desc_segment(&d, sel);
    return EXIT_RESUME;
}

enum exit_reason callout_ltr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    struct desc d;
    uint16_t sel;
    enum x86_rc rc = load_system_selector(cpu, arg, ea, &sel);

    if (rc != X86_OK)
        return exit_failed(rc);
    if (sel_is_null(sel) || (sel & SEL_TI))
        return exit_failed(raise_sel(cpu, EXC_GP, sel, 0));
    if ((rc = desc_fetch(cpu, sel, EXC_GP, 0, &d)) != X86_OK)
        return exit_failed(rc);
    if (desc_sys_type(&d) != SYS_TSS16_AVAIL && desc_sys_type(&d) != SYS_TSS32_AVAIL)
        return exit_failed(raise_sel(cpu, EXC_GP, sel, 0));
    if (!desc_is_present(&d))
        return exit_failed(raise_sel(cpu, EXC_NP, sel, 0));
    d.hi |= TYPE_BUSY << 8; /* in memory too */
    uint8_t rights = (uint8_t)(d.hi >> 8);

    if ((rc = mmu_write_system(cpu, gva_add(d.at, 5), &rights, 1)) != X86_OK)
        return exit_failed(rc);
    cpu->tr = desc_segment(&d, sel);
    return EXIT_RESUME;
}

/* ---- control registers ------------------------------------------------------------ */

#define CR0_DEFINED                                                                                          \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
/* A change of these with PAE paging on loads the PDPTEs anew (SDM vol. 3A, "PDPTE Registers"). */
#define CR0_LOADS_PDPTES (CR0_PG | CR0_CD | CR0_NW)
#define CR4_LOADS_PDPTES (CR4_PAE | CR4_PGE | CR4_PSE)
#define CR4_FLUSHES      (CR4_PAE | CR4_PGE | CR4_PSE)

static bool is_pae_paging(uint32_t cr0, uint32_t cr4)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE);
}

/* The one place where CR0 changes. Undefined bits are ignored, ET is fixed to 1. */
static enum exit_reason set_cr0(struct vcpu *cpu, uint32_t value)
{
    uint32_t cr0 = (value & CR0_DEFINED) | CR0_ET;
    uint32_t changed = cr0 ^ cpu->cr0;
    bool flush = changed & (CR0_PG | CR0_WP | CR0_PE);

    if ((cr0 & CR0_PG) && !(cr0 & CR0_PE))
        return end_gp0(cpu);
    if ((cr0 & CR0_NW) && !(cr0 & CR0_CD))
        return end_gp0(cpu);
    if ((changed & CR0_LOADS_PDPTES) && is_pae_paging(cr0, cpu->cr4)) {
        enum x86_rc rc = mmu_load_pdptes(cpu, cpu->cr3);

        if (rc != X86_OK)
            return exit_failed(rc);
        flush = true;
    }
    cpu->cr0 = cr0;
    if (flush)
        mmu_flush_all(cpu);
    if (mode_changed(cpu) || flush)
        return end_dispatch_next(cpu);
    return EXIT_RESUME;
}

static enum exit_reason set_cr3(struct vcpu *cpu, uint32_t value)
{
    if (is_pae_paging(cpu->cr0, cpu->cr4)) {
        enum x86_rc rc = mmu_load_pdptes(cpu, value);

        if (rc != X86_OK)
            return exit_failed(rc);
    }
    cpu->cr3 = value;
    mmu_cr3_loaded(cpu);
    return end_dispatch_next(cpu);
}

static enum exit_reason set_cr4(struct vcpu *cpu, uint32_t value)
{
    uint32_t changed = value ^ cpu->cr4;

    if (value & ~cpu_model_cr4_bits(cpu->vm->model))
        return end_gp0(cpu);
    if ((changed & CR4_LOADS_PDPTES) && is_pae_paging(cpu->cr0, value)) {
        enum x86_rc rc = mmu_load_pdptes(cpu, cpu->cr3);

        if (rc != X86_OK)
            return exit_failed(rc);
    }
    cpu->cr4 = value;
    if (changed & CR4_FLUSHES)
        mmu_flush_all(cpu);
    if (mode_changed(cpu) || (changed & CR4_FLUSHES))
        return end_dispatch_next(cpu);
    return EXIT_RESUME;
}

/* CR1 and CR5..CR7 do not exist, nor CR4 on a model without any of its features. */
static bool has_control_register(const struct vcpu *cpu, unsigned n)
{
    if (n == 4)
        return cpu_model_cr4_bits(cpu->vm->model) != 0;
    return n == 0 || n == 2 || n == 3;
}

enum exit_reason callout_mov_from_cr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    const uint32_t value[5] = { cpu->cr0, 0, cpu->cr2, cpu->cr3, cpu->cr4 };
    unsigned n = carg_reg(arg);

    (void)ea;
    if (!has_control_register(cpu, n))
        return end_raise(cpu, EXC_UD);
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    cpu->gpr[carg_rm(arg)] = value[n];
    return EXIT_RESUME;
}

enum exit_reason callout_mov_to_cr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint32_t value = cpu->gpr[carg_rm(arg)];
    unsigned n = carg_reg(arg);

    (void)ea;
    if (!has_control_register(cpu, n))
        return end_raise(cpu, EXC_UD);
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    if (n == 0)
        return set_cr0(cpu, value);
    if (n == 3)
        return set_cr3(cpu, value);
    if (n == 4)
        return set_cr4(cpu, value);
    cpu->cr2 = value;
    return EXIT_RESUME;
}

/* LMSW reaches PE, MP, EM and TS only, and can't clear PE. */
enum exit_reason callout_lmsw(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    const uint32_t reach = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint16_t value;
    enum x86_rc rc;

    if (cpu->cpl != 0)
        return end_gp0(cpu);
    if ((rc = read_rm16(cpu, arg, ea, &value)) != X86_OK)
        return exit_failed(rc);
    return set_cr0(cpu, (cpu->cr0 & ~(reach & ~CR0_PE)) | (value & reach));
}

enum exit_reason callout_clts(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    cpu->cr0 &= ~CR0_TS;
    return mode_changed(cpu) ? end_dispatch_next(cpu) : EXIT_RESUME;
}

/* ---- caches and the TLB ------------------------------------------------------------- */

/* Could the entry that maps `va` map running code too? Judged by the largest page, 4 MiB. */
static bool concerns_running_code(const struct vcpu *cpu, gva_t va)
{
    uint32_t cs = cpu->segs[SEG_CS].base;

    return ((cs + cpu->eip) ^ va.v) >> 22 == 0 || ((cs + cpu->next_eip) ^ va.v) >> 22 == 0;
}

/* The operand names a page and is not accessed: no segment check is made on it. */
enum exit_reason callout_invlpg(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    if (!carg_is_mem(arg))
        return end_raise(cpu, EXC_UD);
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    gva_t va = gva(cpu->segs[carg_seg(arg)].base + ea);

    mmu_invlpg(cpu, va);
    return concerns_running_code(cpu, va) ? end_dispatch_next(cpu) : EXIT_RESUME;
}

/* Guest memory is coherent with devices at all times: there is no cache to write back or drop. */
static enum exit_reason cache_instruction(struct vcpu *cpu)
{
    return cpu->cpl != 0 ? end_gp0(cpu) : EXIT_RESUME;
}

enum exit_reason callout_invd(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return cache_instruction(cpu);
}

enum exit_reason callout_wbinvd(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return cache_instruction(cpu);
}

/* ---- debug registers ------------------------------------------------------------------ */

/* Checks of MOV to and from DRn in order; *n becomes 6 or 7 for the aliases 4 and 5. */
static enum x86_rc check_debug_register(struct vcpu *cpu, unsigned *n)
{
    if (*n == 4 || *n == 5) {
        if (cpu->cr4 & CR4_DE)
            return vcpu_raise(cpu, EXC_UD);
        *n += 2;
    }
    if (cpu->cpl != 0)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    return cpu->dr[7] & DR7_GD ? debug_raise(cpu, DR6_BD) : X86_OK;
}

enum exit_reason callout_mov_from_dr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned n = carg_reg(arg);
    enum x86_rc rc = check_debug_register(cpu, &n);

    (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    cpu->gpr[carg_rm(arg)] = cpu->dr[n];
    return EXIT_RESUME;
}

enum exit_reason callout_mov_to_dr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint32_t value = cpu->gpr[carg_rm(arg)];
    unsigned n = carg_reg(arg);
    enum x86_rc rc = check_debug_register(cpu, &n);

    (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    if (n == 6)
        value = (value & DR6_WRITABLE) | DR6_ONES;
    if (n == 7)
        value = (value & DR7_WRITABLE) | DR7_ONES;
    cpu->dr[n] = value;
    return n != 6 && debug_update(cpu) ? end_dispatch_next(cpu) : EXIT_RESUME;
}

/* ---- counters, identification, HLT ------------------------------------------------------ */

enum exit_reason callout_rdtsc(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0)
        return end_gp0(cpu);
    uint64_t tsc = vcpu_tsc_read(cpu);

    cpu->gpr[EAX] = (uint32_t)tsc;
    cpu->gpr[EDX] = (uint32_t)(tsc >> 32);
    return EXIT_RESUME;
}

/* No model shows performance counters: any number in ECX is one too high. */
enum exit_reason callout_rdpmc(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    LOG(cpu->log, unimp, "RDPMC of counter 0x%x\n", cpu->gpr[ECX]);
    return end_gp0(cpu);
}

enum exit_reason callout_rdmsr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint64_t value;
    enum x86_rc rc;

    (void)arg, (void)ea;
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    if ((rc = msr_read(cpu, cpu->gpr[ECX], &value)) != X86_OK)
        return exit_failed(rc);
    cpu->gpr[EAX] = (uint32_t)value;
    cpu->gpr[EDX] = (uint32_t)(value >> 32);
    return EXIT_RESUME;
}

enum exit_reason callout_wrmsr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint64_t efer = cpu->efer;
    enum x86_rc rc;

    (void)arg, (void)ea;
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    rc = msr_write(cpu, cpu->gpr[ECX], (uint64_t)cpu->gpr[EDX] << 32 | cpu->gpr[EAX]);
    if (rc != X86_OK)
        return exit_failed(rc);
    return cpu->efer != efer ? end_dispatch_next(cpu) : EXIT_RESUME;
}

enum exit_reason callout_cpuid(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint32_t out[4];

    (void)arg, (void)ea;
    cpu_model_cpuid(cpu->vm->model, cpu->gpr[EAX], out);
    cpu->gpr[EAX] = out[0];
    cpu->gpr[EBX] = out[1];
    cpu->gpr[ECX] = out[2];
    cpu->gpr[EDX] = out[3];
    return EXIT_RESUME;
}

enum exit_reason callout_hlt(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    if (cpu->cpl != 0)
        return end_gp0(cpu);
    cpu->eip = cpu->next_eip;
    return EXIT_HALT;
}

/* There is no system-management mode to return from. */
enum exit_reason callout_rsm(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)arg, (void)ea;
    return end_raise(cpu, EXC_UD);
}
