/*
 * Model-specific registers and the time stamp counter.
 *
 * A register exists when the CPU model has the feature it belongs to, or when
 * operating systems read it on such a processor without being ready for a fault.
 * Registers of the second kind hold a fixed value and forget what is written; each row
 * says who asks. All others earn #GP(0), as on a processor that lacks them.
 * Ref: Intel SDM vol. 4 "Model-Specific Registers"; AMD publication 26094 "BIOS and
 * Kernel Developer's Guide for AMD Athlon 64", ch. "Model Specific Registers".
 */
#include "monitor/system_internal.h"

#define MSR_P5_MC_ADDR      0x00u
#define MSR_P5_MC_TYPE      0x01u
#define MSR_TSC             0x10u
#define MSR_PLATFORM_ID     0x17u
#define MSR_UCODE_TRIGGER   0x79u
#define MSR_UCODE_REV       0x8bu /* AMD: patch level */
#define MSR_SYSENTER_CS     0x174u
#define MSR_SYSENTER_ESP    0x175u
#define MSR_SYSENTER_EIP    0x176u
#define MSR_MISC_ENABLE     0x1a0u
#define MSR_PAT             0x277u
#define MSR_EFER            0xc0000080u
#define MSR_AMD_SYSCFG      0xc0010010u
#define MSR_AMD_HWCR        0xc0010015u
#define MSR_AMD_INT_PENDING 0xc0010055u
#define MSR_AMD_DE_CFG      0xc0011029u

/* What can be changed of MISC_ENABLE: bit 0 fast strings, 2 FOP compatibility (callout_fpu.c) */
#define MISC_ENABLE_WRITABLE 0x5u

/* ---- time stamp counter ------------------------------------------------------------ */

static uint64_t host_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* What the counter counts: the host's, or VM time at 1 GHz when the run must repeat exactly. */
static uint64_t tsc_source(const struct vcpu *cpu)
{
    return cpu->vm->config.clock_insn ? machine_now_ns(cpu->vm->machine) : host_tsc();
}

uint64_t vcpu_tsc_read(const struct vcpu *cpu)
{
    return tsc_source(cpu) + cpu->tsc_offset;
}

void vcpu_tsc_write(struct vcpu *cpu, uint64_t value)
{
    cpu->tsc_offset = value - tsc_source(cpu);
}

/* ---- registers with a fixed value ---------------------------------------------------- */

static const struct fixed_msr {
    uint32_t msr;
    uint8_t vendor;
    uint8_t min_family;
    uint64_t value;
} fixed_msrs[] = {
    /* clang-format off */
    { MSR_UCODE_REV,       VENDOR_AMD,   15, 0 }, /* patch level, shown in /proc/cpuinfo      */
    { MSR_AMD_SYSCFG,      VENDOR_AMD,   15, 0 }, /* memory-range set-up                      */
    { MSR_AMD_HWCR,        VENDOR_AMD,   15, 0 }, /* SMP kernels turn the flush filter off    */
    { MSR_AMD_INT_PENDING, VENDOR_AMD,   15, 0 }, /* C1E is off                               */
    { MSR_AMD_DE_CFG,      VENDOR_AMD,   15, 0 }, /* LFENCE serialises without being asked    */
    { MSR_P5_MC_ADDR,      VENDOR_INTEL, 5,  0 }, /* no machine check ever happened           */
    { MSR_P5_MC_TYPE,      VENDOR_INTEL, 5,  0 },
    { MSR_PLATFORM_ID,     VENDOR_INTEL, 6,  0 }, /* microcode loaders                        */
    { MSR_UCODE_TRIGGER,   VENDOR_INTEL, 6,  0 },
    { MSR_UCODE_REV,       VENDOR_INTEL, 6,  0 },
    /* clang-format on */
};

static const struct fixed_msr *find_fixed(const struct cpu_model *model, uint32_t msr)
{
    unsigned family = cpu_model_family(model);

    for (size_t i = 0; i < ARRAY_LEN(fixed_msrs); i++) {
        const struct fixed_msr *f = &fixed_msrs[i];

        if (f->msr == msr && f->vendor == model->vendor && family >= f->min_family)
            return f;
    }
    return NULL;
}

/* ---- reads and writes --------------------------------------------------------------- */

/* Does the model have this register as one that keeps state? */
static bool has_msr(const struct cpu_model *model, uint32_t msr)
{
    switch (msr) {
    case MSR_TSC:
        return model->edx1 & CPUID_TSC;
    case MSR_SYSENTER_CS:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
        return model->edx1 & CPUID_SEP;
    case MSR_PAT:
        return model->edx1 & CPUID_PAT;
    case MSR_EFER:
        return model->ext_edx & CPUID_EXT_NX;
    case MSR_MISC_ENABLE:
        return model->vendor == VENDOR_INTEL && cpu_model_family(model) == 15;
    }
    return false;
}

enum x86_rc msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    const struct cpu_model *model = cpu->vm->model;
    const struct fixed_msr *fixed = find_fixed(model, msr);

    if (fixed) {
        *value = fixed->value;
        return X86_OK;
    }
    if (!has_msr(model, msr)) {
        LOG(cpu->log, unimp, "RDMSR 0x%08x at 0x%08x: #GP\n", msr, cpu->eip);
        return vcpu_raise_error(cpu, EXC_GP, 0);
    }
    switch (msr) {
    case MSR_TSC:
        *value = vcpu_tsc_read(cpu);
        break;
    case MSR_SYSENTER_CS:
        *value = cpu->sysenter_cs;
        break;
    case MSR_SYSENTER_ESP:
        *value = cpu->sysenter_esp;
        break;
    case MSR_SYSENTER_EIP:
        *value = cpu->sysenter_eip;
        break;
    case MSR_PAT:
        *value = cpu->pat;
        break;
    case MSR_EFER:
        *value = cpu->efer;
        break;
    case MSR_MISC_ENABLE:
        *value = cpu->misc_enable;
        break;
    }
    return X86_OK;
}

/* Each byte names a memory type: UC, WC, WT, WP, WB or UC-; 2, 3 and larger values are reserved. */
static bool is_valid_pat(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = (unsigned)(value >> (8 * i)) & 0xffu;

        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

enum x86_rc msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    const struct cpu_model *model = cpu->vm->model;

    if (find_fixed(model, msr))
        return X86_OK;
    if (!has_msr(model, msr)) {
        LOG(cpu->log, unimp, "WRMSR 0x%08x = 0x%llx at 0x%08x: #GP\n", msr, (unsigned long long)value,
            cpu->eip);
        return vcpu_raise_error(cpu, EXC_GP, 0);
    }
    if (msr == MSR_EFER && (value & ~(uint64_t)EFER_NXE)) /* no SYSCALL, no long mode */
        return vcpu_raise_error(cpu, EXC_GP, 0);
    if (msr == MSR_PAT && !is_valid_pat(value))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    switch (msr) {
    case MSR_TSC:
        vcpu_tsc_write(cpu, value);
        break;
    case MSR_SYSENTER_CS:
        cpu->sysenter_cs = (uint32_t)value;
        break;
    case MSR_SYSENTER_ESP:
        cpu->sysenter_esp = (uint32_t)value;
        break;
    case MSR_SYSENTER_EIP:
        cpu->sysenter_eip = (uint32_t)value;
        break;
    case MSR_PAT:
        cpu->pat = value;
        break;
    case MSR_MISC_ENABLE:
        cpu->misc_enable = (uint32_t)value & MISC_ENABLE_WRITABLE;
        break;
    case MSR_EFER:
        if (cpu->efer != value) {
            cpu->efer = value;
            mmu_flush_all(cpu); /* what bit 63 of an entry means has changed */
        }
        break;
    }
    return X86_OK;
}
