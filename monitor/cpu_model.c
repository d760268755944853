/*
 * CPU models: what CPUID shows, and with it which instructions and registers exist.
 *
 * A model shows only what works here: no local APIC, no MTRRs, no machine check and
 * no VME, whatever the processor of that name had. The default, "max", is an AMD
 * processor of family 15, because operating systems that know about Meltdown leave
 * page-table isolation off on it (on the Intel models each system call would cost
 * two CR3 loads); model 4 stepping 10 is one for which they expect fast string
 * instructions and apply no erratum that asks for further registers.
 * Ref: Intel SDM vol. 2A, "CPUID"; AMD publication 25481 "CPUID Specification".
 */
#include "base/string.h"
#include "monitor/monitor.h"
#include "monitor/system_internal.h"

/* Leaf 1 EDX; the same bits in leaf 80000001 EDX where AMD repeats them */
#define F_FPU   (1u << 0)
#define F_VME   (1u << 1)
#define F_DE    (1u << 2)
#define F_PSE   (1u << 3)
#define F_TSC   (1u << 4)
#define F_MSR   (1u << 5)
#define F_PAE   (1u << 6)
#define F_MCE   (1u << 7)
#define F_CX8   (1u << 8)
#define F_SEP   (1u << 11)
#define F_PGE   (1u << 13)
#define F_CMOV  (1u << 15)
#define F_PAT   (1u << 16)
#define F_CLFSH (1u << 19)
#define F_MMX   (1u << 23)
#define F_FXSR  (1u << 24)
#define F_SSE   (1u << 25)
#define F_SSE2  (1u << 26)
/* Leaf 80000001 EDX alone */
#define F_NX (1u << 20)

#define PENTIUM_EDX  (F_FPU | F_DE | F_PSE | F_TSC | F_MSR | F_CX8 | F_MMX)
#define PENTIUM2_EDX (PENTIUM_EDX | F_PAE | F_SEP | F_PGE | F_CMOV | F_PAT | F_FXSR)
#define PENTIUM3_EDX (PENTIUM2_EDX | F_SSE)
#define PENTIUM4_EDX (PENTIUM3_EDX | F_SSE2 | F_CLFSH)
#define AMD_REPEATED                                                                                         \
    (F_FPU | F_DE | F_PSE | F_TSC | F_MSR | F_PAE | F_CX8 | F_PGE | F_CMOV | F_PAT | F_MMX | F_FXSR)

/* clang-format off */
const struct cpu_model cpu_models[] = {
    { .name = "max",      .vendor = VENDOR_AMD,   .max_leaf = 1, .signature = 0xf4a, .edx1 = PENTIUM4_EDX,
      .ext_edx = AMD_REPEATED | F_NX, .brand = "Ringdown virtual processor" },
    { .name = "pentium4", .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0xf29, .edx1 = PENTIUM4_EDX,
      .brand = "Intel(R) Pentium(R) 4 CPU" },
    { .name = "pentium3", .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0x686, .edx1 = PENTIUM3_EDX },
    { .name = "pentium2", .vendor = VENDOR_INTEL, .max_leaf = 2, .signature = 0x652, .edx1 = PENTIUM2_EDX },
    { .name = "pentium",  .vendor = VENDOR_INTEL, .max_leaf = 1, .signature = 0x543, .edx1 = PENTIUM_EDX },
    { .name = "486",      .vendor = VENDOR_INTEL, .max_leaf = 1, .signature = 0x480, .edx1 = F_FPU },
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

static unsigned family(const struct cpu_model *m)
{
    return (m->signature >> 8) & 0xfu;
}

/* ---- what follows from the features -------------------------------------------- */

uint32_t cpu_model_features(const struct cpu_model *m)
{
    static const struct {
        uint32_t edx1;
        enum insn_feature feature;
    } rows[] = {
        { F_FPU, FEAT_FPU }, { F_TSC, FEAT_TSC },   { F_MSR, FEAT_MSR },       { F_CX8, FEAT_CX8 },
        { F_SEP, FEAT_SEP }, { F_CMOV, FEAT_CMOV }, { F_MMX, FEAT_MMX },       { F_FXSR, FEAT_FXSR },
        { F_SSE, FEAT_SSE }, { F_SSE2, FEAT_SSE2 }, { F_CLFSH, FEAT_CLFLUSH },
    };
    uint32_t mask = 1u << FEAT_BASE | 1u << FEAT_486 | 1u << FEAT_CPUID;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (m->edx1 & rows[i].edx1)
            mask |= 1u << rows[i].feature;
    if (family(m) >= 6)
        mask |= 1u << FEAT_PENTIUM_PRO;
    return mask;
}

uint32_t cpu_model_cr4_bits(const struct cpu_model *m)
{
    static const struct {
        uint32_t edx1, cr4;
    } rows[] = {
        { F_VME, CR4_VME | CR4_PVI }, { F_TSC, CR4_TSD }, { F_DE, CR4_DE },   { F_PSE, CR4_PSE },
        { F_PAE, CR4_PAE },           { F_MCE, CR4_MCE }, { F_PGE, CR4_PGE }, { F_FXSR, CR4_OSFXSR },
        { F_SSE, CR4_OSXMMEXCPT },    { F_MMX, CR4_PCE }, /* RDPMC came with the Pentium MMX */
    };
    uint32_t bits = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (m->edx1 & rows[i].edx1)
            bits |= rows[i].cr4;
    return bits;
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
    if (m->edx1 & F_CLFSH)
        r->ebx = 64 / 8 << 8; /* line of CLFLUSH, in units of 8 bytes */
    r->ecx = m->ecx1;
    r->edx = m->edx1;
}

/* Cache and TLB descriptors of the processors that the signatures name. */
static void leaf_descriptors(const struct cpu_model *m, struct cpuid_regs *r)
{
    if (family(m) == 15) {
        r->eax = 0x665b5001; /* TLBs of 64 entries; 8 KiB L1 data       */
        r->edx = 0x007b7040; /* no L3; 12 K trace cache; 512 KiB L2     */
    } else {
        r->eax = 0x03020101; /* TLBs of 32 and 64 entries */
        /* 16 + 16 KiB L1; 256 or 512 KiB L2 */
        r->edx = m->edx1 & F_SSE ? 0x0c040882 : 0x0c040843;
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
