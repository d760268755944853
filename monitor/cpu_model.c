/*
 * CPU models: what CPUID shows, and with it which instructions and registers exist.
 *
 * A model shows only what works here: no local APIC, no MTRRs and no machine
 * check, whatever the processor of that name had. The default, "max", is an AMD
 * processor of family 15, because operating systems that know about Meltdown leave
 * page-table isolation off on it (on the Intel models each system call would cost
 * two CR3 loads); model 4 stepping 10 is one for which they expect fast string
 * instructions and apply no erratum that asks for further registers.
 * Ref: Intel SDM vol. 2A, "CPUID"; AMD publication 25481 "CPUID Specification".
 */
#include "base/string.h"
#include "monitor/monitor.h"
#include "monitor/system_internal.h"

#define PENTIUM_EDX                                                                                          \
    (CPUID_FPU | CPUID_VME | CPUID_DE | CPUID_PSE | CPUID_TSC | CPUID_MSR | CPUID_CX8 | CPUID_MMX)
#define PENTIUM2_EDX                                                                                         \
    (PENTIUM_EDX | CPUID_PAE | CPUID_SEP | CPUID_PGE | CPUID_CMOV | CPUID_PAT | CPUID_PSE36 | CPUID_FXSR)
#define PENTIUM3_EDX (PENTIUM2_EDX | CPUID_SSE)
#define QEMU32_EDX   ((PENTIUM3_EDX | CPUID_SSE2) & ~CPUID_PSE36)
#define PENTIUM4_EDX (PENTIUM3_EDX | CPUID_SSE2 | CPUID_CLFSH)
/* What leaf 80000001 of an AMD processor says again. */
#define AMD_REPEATED                                                                                         \
    (CPUID_FPU | CPUID_VME | CPUID_DE | CPUID_PSE | CPUID_TSC | CPUID_MSR | CPUID_PAE | CPUID_CX8 |          \
     CPUID_PGE | CPUID_CMOV | CPUID_PAT | CPUID_PSE36 | CPUID_MMX | CPUID_FXSR)

/* clang-format off */
const struct cpu_model cpu_models[] = {
    { .name = "max",      .vendor = VENDOR_AMD,   .max_leaf = 1, .signature = 0xf4a, .edx1 = PENTIUM4_EDX,
      .ext_edx = AMD_REPEATED | CPUID_EXT_NX, .brand = "Ringdown virtual processor" },
    { .name = "pentium4", .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0xf29, .edx1 = PENTIUM4_EDX,
      .brand = "Intel(R) Pentium(R) 4 CPU", .fop_on_exception = true },
    { .name = "pentium3", .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0x686, .edx1 = PENTIUM3_EDX },
    { .name = "pentium2", .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0x652, .edx1 = PENTIUM2_EDX },
    { .name = "pentium",  .vendor = VENDOR_INTEL, .max_leaf = 1, .signature = 0x543, .edx1 = PENTIUM_EDX },
    { .name = "486",      .vendor = VENDOR_INTEL, .max_leaf = 1, .signature = 0x480, .edx1 = CPUID_FPU },
    { .name = "qemu32",   .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0x663, .edx1 = QEMU32_EDX,
      .brand = "QEMU Virtual CPU version 2.5+" },
};
/* clang-format on */
const size_t cpu_model_count = ARRAY_LEN(cpu_models);

static bool same_name(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

const struct cpu_model *cpu_model_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(cpu_models); i++)
        if (same_name(cpu_models[i].name, name))
            return &cpu_models[i];
    return NULL;
}

unsigned cpu_model_family(const struct cpu_model *m)
{
    return (m->signature >> 8) & 0xfu;
}

/* ---- features by name ------------------------------------------------------------ */

/*
 * The names are QEMU's. A feature that needs another one is refused without it, and goes
 * away with it. The FPU is part of every model.
 */
enum feature_reg { REG_EDX1, REG_EXT };

static const struct feature_name {
    const char *name;
    enum feature_reg reg;
    uint32_t bit;
    uint32_t needs; /* of leaf 1 EDX */
} feature_names[] = {
    { "vme", REG_EDX1, CPUID_VME, 0 },
    { "de", REG_EDX1, CPUID_DE, 0 },
    { "pse", REG_EDX1, CPUID_PSE, 0 },
    { "tsc", REG_EDX1, CPUID_TSC, 0 },
    { "msr", REG_EDX1, CPUID_MSR, 0 },
    { "pae", REG_EDX1, CPUID_PAE, 0 },
    { "cx8", REG_EDX1, CPUID_CX8, 0 },
    { "sep", REG_EDX1, CPUID_SEP, CPUID_MSR },
    { "pge", REG_EDX1, CPUID_PGE, 0 },
    { "cmov", REG_EDX1, CPUID_CMOV, 0 },
    { "pat", REG_EDX1, CPUID_PAT, CPUID_MSR },
    { "pse36", REG_EDX1, CPUID_PSE36, CPUID_PSE },
    { "clflush", REG_EDX1, CPUID_CLFSH, 0 },
    { "mmx", REG_EDX1, CPUID_MMX, 0 },
    { "fxsr", REG_EDX1, CPUID_FXSR, 0 },
    { "sse", REG_EDX1, CPUID_SSE, CPUID_FXSR | CPUID_MMX },
    { "sse2", REG_EDX1, CPUID_SSE2, CPUID_SSE },
    { "nx", REG_EXT, CPUID_EXT_NX, CPUID_PAE | CPUID_MSR },
};

/* Names that QEMU knows and no model offers: to take one away is no error, to add it is. */
static const char *const lacking[] = {
    "acpi",  "apic",     "avx",    "avx2", "bmi1",  "bmi2",  "cx16",  "ds",   "est",  "ht",    "hypervisor",
    "ia64",  "lahf-lm",  "lm",     "mca",  "mce",   "mmxext", "movbe", "mtrr", "monitor", "pbe", "pclmulqdq",
    "pcid",  "pn",       "pni",    "popcnt", "rdrand", "rdtscp", "smap", "smep", "ss",  "sse3",
    "sse4.1", "sse4_1",  "sse4.2", "sse4_2", "ssse3", "svm",  "syscall", "tm",  "vmx",   "x2apic",
    "xsave", "3dnow",    "3dnowext", "aes", "fma",   "erms",  "kvm",   "pdpe1gb", "tsc-deadline", "invtsc",
};

static uint32_t *feature_word(struct cpu_model *m, const struct feature_name *f)
{
    return f->reg == REG_EDX1 ? &m->edx1 : &m->ext_edx;
}

static void remove_dependents(struct cpu_model *m)
{
    bool again = true;

    while (again) {
        again = false;
        for (size_t i = 0; i < ARRAY_LEN(feature_names); i++) {
            const struct feature_name *f = &feature_names[i];
            uint32_t *word = feature_word(m, f);

            if ((*word & f->bit) && (f->needs & ~m->edx1)) {
                *word &= ~f->bit;
                again = true;
            }
        }
    }
}

enum feature_rc cpu_model_set_feature(struct cpu_model *m, const char *name, bool on)
{
    for (size_t i = 0; i < ARRAY_LEN(feature_names); i++) {
        const struct feature_name *f = &feature_names[i];

        if (!same_name(f->name, name))
            continue;
        if (on && f->reg == REG_EXT && !m->brand) /* no leaf to show it in */
            return FEATURE_LACKING;
        if (on && (f->needs & ~m->edx1))
            return FEATURE_NEEDS_OTHER;
        uint32_t *word = feature_word(m, f);
        *word = on ? *word | f->bit : *word & ~f->bit;
        if (m->vendor == VENDOR_AMD && f->reg == REG_EDX1)
            m->ext_edx = (m->ext_edx & ~(f->bit & AMD_REPEATED)) | (m->edx1 & f->bit & AMD_REPEATED);
        remove_dependents(m);
        return FEATURE_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(lacking); i++)
        if (same_name(lacking[i], name))
            return on ? FEATURE_LACKING : FEATURE_OK;
    return FEATURE_UNKNOWN;
}

const char *cpu_model_feature_name(size_t i)
{
    return i < ARRAY_LEN(feature_names) ? feature_names[i].name : NULL;
}

/* ---- what follows from the features -------------------------------------------- */

/* RDPMC came with the Pentium MMX and the Pentium Pro. */
static bool has_rdpmc(const struct cpu_model *m)
{
    return cpu_model_family(m) >= 6 || (cpu_model_family(m) == 5 && (m->edx1 & CPUID_MMX));
}

uint32_t cpu_model_features(const struct cpu_model *m)
{
    static const struct {
        uint32_t edx1;
        enum insn_feature feature;
    } rows[] = {
        { CPUID_FPU, FEAT_FPU },   { CPUID_TSC, FEAT_TSC },   { CPUID_MSR, FEAT_MSR }, { CPUID_CX8, FEAT_CX8 },
        { CPUID_SEP, FEAT_SEP },   { CPUID_CMOV, FEAT_CMOV }, { CPUID_MMX, FEAT_MMX }, { CPUID_FXSR, FEAT_FXSR },
        { CPUID_SSE, FEAT_SSE },   { CPUID_SSE2, FEAT_SSE2 }, { CPUID_CLFSH, FEAT_CLFLUSH },
    };
    uint32_t mask = 1u << FEAT_BASE | 1u << FEAT_486 | 1u << FEAT_CPUID;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (m->edx1 & rows[i].edx1)
            mask |= 1u << rows[i].feature;
    if (cpu_model_family(m) >= 6)
        mask |= 1u << FEAT_PENTIUM_PRO;
    if (has_rdpmc(m))
        mask |= 1u << FEAT_RDPMC;
    return mask;
}

uint32_t cpu_model_cr4_bits(const struct cpu_model *m)
{
    static const struct {
        uint32_t edx1, cr4;
    } rows[] = {
        { CPUID_VME, CR4_VME | CR4_PVI }, { CPUID_TSC, CR4_TSD }, { CPUID_DE, CR4_DE },   { CPUID_PSE, CR4_PSE },
        { CPUID_PAE, CR4_PAE },           { CPUID_MCE, CR4_MCE }, { CPUID_PGE, CR4_PGE }, { CPUID_FXSR, CR4_OSFXSR },
        { CPUID_SSE, CR4_OSXMMEXCPT },
    };
    uint32_t bits = has_rdpmc(m) ? CR4_PCE : 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (m->edx1 & rows[i].edx1)
            bits |= rows[i].cr4;
    return bits;
}

/* Denormals-are-zero came with SSE2; the Pentium III keeps bit 6 reserved. */
uint32_t cpu_model_mxcsr_mask(const struct cpu_model *m)
{
    return m->edx1 & CPUID_SSE2 ? 0xffffu : 0xffbfu;
}

/* ---- CPUID ------------------------------------------------------------------------ */

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* The vendor's twelve letters lie in EBX, EDX, ECX. */
static void leaf_vendor(const struct cpu_model *m, uint32_t max, struct cpuid_regs *r)
{
    const char *name = m->vendor == VENDOR_AMD ? "AuthenticAMD" : "GenuineIntel";

    r->eax = max;
    memcpy(&r->ebx, name, 4);
    memcpy(&r->edx, name + 4, 4);
    memcpy(&r->ecx, name + 8, 4);
}

static void leaf_features(const struct cpu_model *m, struct cpuid_regs *r)
{
    r->eax = m->signature;
    if (m->edx1 & CPUID_CLFSH)
        r->ebx = 64 / 8 << 8; /* line of CLFLUSH, in units of 8 bytes */
    r->ecx = m->ecx1;
    r->edx = m->edx1;
}

/* Cache and TLB descriptors of the processors that the signatures name. */
static void leaf_descriptors(const struct cpu_model *m, struct cpuid_regs *r)
{
    if (cpu_model_family(m) == 15) {
        r->eax = 0x665b5001; /* TLBs of 64 entries; 8 KiB L1 data       */
        r->edx = 0x007b7040; /* no L3; 12 K trace cache; 512 KiB L2     */
    } else {
        r->eax = 0x03020101; /* TLBs of 32 and 64 entries */
        /* 16 + 16 KiB L1; 256 or 512 KiB L2 */
        r->edx = m->edx1 & CPUID_SSE ? 0x0c040882 : 0x0c040843;
    }
}

static void leaf_brand(const struct cpu_model *m, unsigned third, struct cpuid_regs *r)
{
    uint8_t text[48] = { 0 };

    for (size_t i = 0; i < sizeof text - 1 && m->brand[i]; i++)
        text[i] = (uint8_t)m->brand[i];
    memcpy(r, text + 16 * third, sizeof *r);
}

static uint32_t max_extended(const struct cpu_model *m)
{
    if (!m->brand)
        return 0;
    return m->vendor == VENDOR_AMD ? 0x80000008u : 0x80000004u;
}

static void leaf_extended(const struct cpu_model *m, uint32_t leaf, struct cpuid_regs *r)
{
    switch (leaf) {
    case 0x80000000:
        if (m->vendor == VENDOR_AMD)
            leaf_vendor(m, max_extended(m), r);
        else
            r->eax = max_extended(m);
        break;
    case 0x80000001:
        r->eax = m->vendor == VENDOR_AMD ? m->signature : 0;
        r->edx = m->ext_edx;
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        leaf_brand(m, leaf - 0x80000002, r);
        break;
    case 0x80000005: /* L1: TLBs of 8 and 32 entries; 64 KiB data and code, 2 ways, lines of 64 */
        *r = (struct cpuid_regs){ 0xff08ff08, 0xff20ff20, 0x40020140, 0x40020140 };
        break;
    case 0x80000006: /* L2: TLBs of 512 entries; 1 MiB, 16 ways, lines of 64 */
        *r = (struct cpuid_regs){ 0, 0x42004200, 0x04008140, 0 };
        break;
    case 0x80000007: /* bit 8: the TSC runs at one rate whatever the processor does */
        r->edx = 1u << 8;
        break;
    case 0x80000008: /* physical and linear address bits */
        r->eax = 32 << 8 | 36;
        break;
    }
}

void cpu_model_cpuid(const struct cpu_model *m, uint32_t leaf, uint32_t out[4])
{
    struct cpuid_regs r = { 0, 0, 0, 0 };

    if (leaf & 0x80000000u && leaf <= max_extended(m)) {
        leaf_extended(m, leaf, &r);
    } else {
        /* Past the last leaf Intel repeats the last one, AMD gives zeros. */
        if (leaf > m->max_leaf && m->vendor == VENDOR_INTEL)
            leaf = m->max_leaf;
        if (leaf == 0)
            leaf_vendor(m, m->max_leaf, &r);
        else if (leaf == 1)
            leaf_features(m, &r);
        else if (leaf == 2 && m->max_leaf >= 2)
            leaf_descriptors(m, &r);
    }
    out[0] = r.eax;
    out[1] = r.ebx;
    out[2] = r.ecx;
    out[3] = r.edx;
}
