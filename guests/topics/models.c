/*
 * The processor model: what CPUID shows is there, what it does not show is #UD or #GP. Run
 * once per -cpu model.
 *
 * An instruction is a row of bytes with the CPUID bit that stands for it; it must work at
 * both rings if the bit is set, and be #UD if it is not. Then come encodings that no
 * processor of these models has, LOCK in front of all that can't be locked, CR4 and MSRs.
 *
 * QEMU goes by features of its own here and there: what it would execute is not asked of it.
 *
 * Ref: Intel SDM vol. 2A, "CPUID", "LOCK"; vol. 2D, app. A "Opcode Map"; vol. 4.
 */
#include "../lib/guest.h"

static uint8_t data_area[1024] __attribute__((aligned(64)));
static uint8_t code[64] __attribute__((aligned(64)));

struct leaf {
    uint32_t eax, ebx, ecx, edx;
};
static struct leaf leaf1;
static bool is_amd, is_qemu, is_bochs;

static struct leaf cpuid(uint32_t n)
{
    struct leaf l;

    __asm__ volatile("cpuid" : "=a"(l.eax), "=b"(l.ebx), "=c"(l.ecx), "=d"(l.edx) : "a"(n), "c"(0));
    return l;
}

static unsigned family(void)
{
    return leaf1.eax >> 8 & 0xf;
}

/* ---- what must be there ------------------------------------------------------------------ */

enum { FPU = 0, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP = 11, MTRR, PGE, MCA, CMOV, PAT };
enum { CLFSH = 19, MMX = 23, FXSR, SSE, SSE2 };
/* Conditions that are no bit of leaf 1. */
enum { ALWAYS = 64, NEVER, FAMILY5, FAMILY6, RDPMC };

static bool holds(unsigned condition)
{
    switch (condition) {
    case ALWAYS:
        return true;
    case NEVER:
        return false;
    case FAMILY5:
        return family() >= 5;
    case FAMILY6:
        return family() >= 6;
    case RDPMC:
        return family() >= 6 || (leaf1.edx >> MMX & 1);
    default:
        return leaf1.edx >> condition & 1;
    }
}

struct row {
    const char *name;
    unsigned condition;
    int vector; /* when it is there: how it ends at ring 3, 0 for well; at ring 0 always well */
    uint8_t len, bytes[18];
};

/* EBX points to data. */
/* clang-format off */
static const struct row offered[] = {
    { "bswap", ALWAYS, 0, 2, { 0x0f, 0xc8 } },
    { "xadd", ALWAYS, 0, 3, { 0x0f, 0xc1, 0xc8 } },
    { "cmpxchg", ALWAYS, 0, 3, { 0x0f, 0xb1, 0x0b } },
    { "cpuid", ALWAYS, 0, 2, { 0x0f, 0xa2 } },
    { "cmov", CMOV, 0, 3, { 0x0f, 0x44, 0xc1 } },
    { "cmov_mem", CMOV, 0, 3, { 0x0f, 0x4f, 0x03 } },
    { "fcmov", CMOV, 0, 2, { 0xda, 0xc8 } },
    { "fcomi", CMOV, 0, 2, { 0xdb, 0xf0 } },
    { "fucomip", CMOV, 0, 2, { 0xdf, 0xe8 } },
    { "cmpxchg8b", CX8, 0, 3, { 0x0f, 0xc7, 0x0b } },
    { "rdtsc", TSC, 0, 2, { 0x0f, 0x31 } },
    { "emms", MMX, 0, 2, { 0x0f, 0x77 } },
    { "paddb_mmx", MMX, 0, 3, { 0x0f, 0xfc, 0xc1 } },
    { "movd_mmx", MMX, 0, 3, { 0x0f, 0x6e, 0x03 } },
    { "fxsave", FXSR, 0, 3, { 0x0f, 0xae, 0x03 } },
    { "fxrstor", FXSR, 0, 3, { 0x0f, 0xae, 0x0b } },
    { "hint_nop_1f", FAMILY6, 0, 3, { 0x0f, 0x1f, 0x00 } },
    { "prefetchnta", FAMILY6, 0, 3, { 0x0f, 0x18, 0x03 } },
    { "xorps", SSE, 0, 3, { 0x0f, 0x57, 0xc1 } },
    { "addss", SSE, 0, 4, { 0xf3, 0x0f, 0x58, 0xc1 } },
    { "pshufw", SSE, 0, 4, { 0x0f, 0x70, 0xc1, 0x00 } },
    { "pmaxub_mmx", SSE, 0, 3, { 0x0f, 0xde, 0xc1 } },
    { "movntq", SSE, 0, 3, { 0x0f, 0xe7, 0x03 } },
    { "stmxcsr", SSE, 0, 3, { 0x0f, 0xae, 0x1b } },
    { "sfence", SSE, 0, 3, { 0x0f, 0xae, 0xf8 } },
    { "xorpd", SSE2, 0, 4, { 0x66, 0x0f, 0x57, 0xc1 } },
    { "addsd", SSE2, 0, 4, { 0xf2, 0x0f, 0x58, 0xc1 } },
    { "movdqa", SSE2, 0, 4, { 0x66, 0x0f, 0x6f, 0xc1 } },
    { "paddb_xmm", SSE2, 0, 4, { 0x66, 0x0f, 0xfc, 0xc1 } },
    { "paddq_mmx", SSE2, 0, 3, { 0x0f, 0xd4, 0xc1 } },
    { "movnti", SSE2, 0, 3, { 0x0f, 0xc3, 0x03 } },
    { "lfence", SSE2, 0, 3, { 0x0f, 0xae, 0xe8 } },
    { "mfence", SSE2, 0, 3, { 0x0f, 0xae, 0xf0 } },
    { "clflush", CLFSH, 0, 3, { 0x0f, 0xae, 0x3b } },
    { "invlpg", ALWAYS, V_GP, 3, { 0x0f, 0x01, 0x3b } },
    { "wbinvd", ALWAYS, V_GP, 2, { 0x0f, 0x09 } },
    /* aliases that all of these processors execute */
    { "alias_82", ALWAYS, 0, 3, { 0x82, 0xc0, 0x00 } },
    { "alias_d0_6", ALWAYS, 0, 2, { 0xd0, 0xf0 } },
    { "alias_d3_6", ALWAYS, 0, 2, { 0xd3, 0xf0 } },
    { "alias_f6_1", ALWAYS, 0, 3, { 0xf6, 0xc8, 0x00 } },
    { "alias_f7_1", ALWAYS, 0, 6, { 0xf7, 0xc8, 0, 0, 0, 0 } },
    { "salc", ALWAYS, 0, 1, { 0xd6 } },
    { "alias_dc_d0", ALWAYS, 0, 2, { 0xdc, 0xd0 } },
    { "alias_dc_d8", ALWAYS, 0, 2, { 0xdc, 0xd8 } },
    { "alias_dd_c8", ALWAYS, 0, 2, { 0xdd, 0xc8 } },
    { "alias_de_d0", ALWAYS, 0, 2, { 0xde, 0xd0 } },
    { "ffreep", ALWAYS, 0, 2, { 0xdf, 0xc0 } },
    { "alias_df_c8", ALWAYS, 0, 2, { 0xdf, 0xc8 } },
    { "pause", ALWAYS, 0, 2, { 0xf3, 0x90 } },
    { "fifteen_bytes", ALWAYS, 0, 15,
      { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90 } },
};

/* Never there: the rest of the maps, and what came after SSE2. */
static const struct row undefined[] = {
    { "ud2", NEVER, 0, 2, { 0x0f, 0x0b } },
    { "ud1", NEVER, 0, 3, { 0x0f, 0xb9, 0xc0 } },
    { "ud0", NEVER, 0, 3, { 0x0f, 0xff, 0xc0 } },
    { "lea_reg", NEVER, 0, 2, { 0x8d, 0xc0 } },
    { "les_reg", NEVER, 0, 2, { 0xc4, 0xc0 } },
    { "lds_reg", NEVER, 0, 2, { 0xc5, 0xc0 } },
    { "bound_reg", NEVER, 0, 2, { 0x62, 0xc0 } },
    { "pop_8f_1", NEVER, 0, 2, { 0x8f, 0xc8 } },
    { "mov_cs", NEVER, 0, 2, { 0x8e, 0xc8 } },
    { "mov_from_seg_6", NEVER, 0, 2, { 0x8c, 0xf0 } },
    { "mov_c6_1", NEVER, 0, 3, { 0xc6, 0xc8, 0 } },
    { "fe_2", NEVER, 0, 2, { 0xfe, 0xd0 } },
    { "ff_7", NEVER, 0, 2, { 0xff, 0xf8 } },
    { "ff_3_reg", NEVER, 0, 2, { 0xff, 0xd8 } },
    { "ff_5_reg", NEVER, 0, 2, { 0xff, 0xe8 } },
    { "0f00_6", NEVER, 0, 3, { 0x0f, 0x00, 0xf0 } },
    { "0f01_5", NEVER, 0, 3, { 0x0f, 0x01, 0x2b } },
    { "0f04", NEVER, 0, 2, { 0x0f, 0x04 } },
    { "0f0a", NEVER, 0, 2, { 0x0f, 0x0a } },
    { "0f0c", NEVER, 0, 2, { 0x0f, 0x0c } },
    { "mov_cr1", NEVER, 0, 3, { 0x0f, 0x20, 0xc8 } },
    { "mov_to_cr5", NEVER, 0, 3, { 0x0f, 0x22, 0xe8 } },
    { "mov_tr", NEVER, 0, 3, { 0x0f, 0x24, 0xf0 } },
    { "0fa6", NEVER, 0, 3, { 0x0f, 0xa6, 0x03 } },
    { "bt_0fba_0", NEVER, 0, 4, { 0x0f, 0xba, 0xc0, 0 } },
    { "lss_reg", NEVER, 0, 3, { 0x0f, 0xb2, 0xc0 } },
    { "cmpxchg8b_reg", NEVER, 0, 3, { 0x0f, 0xc7, 0xc8 } },
    { "psrlw_0f71_0", NEVER, 0, 4, { 0x0f, 0x71, 0xc0, 0 } },
    { "fnop_1", NEVER, 0, 2, { 0xd9, 0xd1 } },
    { "da_e8", NEVER, 0, 2, { 0xda, 0xe8 } },
};
static const struct row later[] = {
    { "syscall", NEVER, 0, 2, { 0x0f, 0x05 } },
    { "femms", NEVER, 0, 2, { 0x0f, 0x0e } },
    { "pfadd", NEVER, 0, 4, { 0x0f, 0x0f, 0xc1, 0x9e } },
    { "addsubps", NEVER, 0, 4, { 0xf2, 0x0f, 0xd0, 0xc1 } },
    { "lddqu", NEVER, 0, 4, { 0xf2, 0x0f, 0xf0, 0x03 } },
    { "fisttp", NEVER, 0, 2, { 0xdb, 0x0b } },
    { "monitor", NEVER, 0, 3, { 0x0f, 0x01, 0xc8 } },
    { "pshufb", NEVER, 0, 4, { 0x0f, 0x38, 0x00, 0xc1 } },
    { "palignr", NEVER, 0, 5, { 0x0f, 0x3a, 0x0f, 0xc1, 1 } },
    { "popcnt", NEVER, 0, 4, { 0xf3, 0x0f, 0xb8, 0xc1 } },
    { "crc32", NEVER, 0, 5, { 0xf2, 0x0f, 0x38, 0xf1, 0xc1 } },
    { "movbe", NEVER, 0, 4, { 0x0f, 0x38, 0xf0, 0x03 } },
    { "xgetbv", NEVER, 0, 3, { 0x0f, 0x01, 0xd0 } },
    { "xsave", NEVER, 0, 3, { 0x0f, 0xae, 0x23 } },
    { "vmcall", NEVER, 0, 3, { 0x0f, 0x01, 0xc1 } },
    { "rdtscp", NEVER, 0, 3, { 0x0f, 0x01, 0xf9 } },
    { "rdrand", NEVER, 0, 3, { 0x0f, 0xc7, 0xf0 } },
    { "vaddps", NEVER, 0, 4, { 0xc5, 0xf8, 0x58, 0xc1 } },
    { "vaddps_evex", NEVER, 0, 6, { 0x62, 0xf1, 0x7c, 0x08, 0x58, 0xc1 } },
    { "lock_mov_cr8", NEVER, 0, 4, { 0xf0, 0x0f, 0x20, 0xc0 } },
};

/* LOCK: #UD for a register as destination and for what is not a read-modify-write of the list. */
static const struct row lock_denied[] = {
    { "lock_add_reg", NEVER, 0, 3, { 0xf0, 0x01, 0xc8 } },
    { "lock_add_load", NEVER, 0, 3, { 0xf0, 0x03, 0x03 } },
    { "lock_cmp", NEVER, 0, 3, { 0xf0, 0x39, 0x03 } },
    { "lock_cmp_imm", NEVER, 0, 4, { 0xf0, 0x83, 0x3b, 0 } },
    { "lock_test", NEVER, 0, 3, { 0xf0, 0x85, 0x03 } },
    { "lock_mov", NEVER, 0, 3, { 0xf0, 0x89, 0x03 } },
    { "lock_xchg_reg", NEVER, 0, 3, { 0xf0, 0x87, 0xc8 } },
    { "lock_nop", NEVER, 0, 2, { 0xf0, 0x90 } },
    { "lock_push", NEVER, 0, 2, { 0xf0, 0x50 } },
    { "lock_shl", NEVER, 0, 3, { 0xf0, 0xd1, 0x23 } },
    { "lock_imul", NEVER, 0, 4, { 0xf0, 0x0f, 0xaf, 0x03 } },
    { "lock_mul", NEVER, 0, 3, { 0xf0, 0xf7, 0x23 } },
    { "lock_bt", NEVER, 0, 4, { 0xf0, 0x0f, 0xa3, 0x0b } },
    { "lock_bt_imm", NEVER, 0, 5, { 0xf0, 0x0f, 0xba, 0x23, 0 } },
    { "lock_inc_reg", NEVER, 0, 3, { 0xf0, 0xff, 0xc0 } },
    { "lock_inc_short", NEVER, 0, 2, { 0xf0, 0x40 } },
    { "lock_xadd_reg", NEVER, 0, 4, { 0xf0, 0x0f, 0xc1, 0xc8 } },
    { "lock_cmpxchg_reg", NEVER, 0, 4, { 0xf0, 0x0f, 0xb1, 0xc8 } },
    { "lock_jmp", NEVER, 0, 3, { 0xf0, 0xeb, 0x00 } },
    { "lock_movs", NEVER, 0, 2, { 0xf0, 0xa4 } },
    { "lock_cpuid", NEVER, 0, 3, { 0xf0, 0x0f, 0xa2 } },
    { "lock_fld1", NEVER, 0, 3, { 0xf0, 0xd9, 0xe8 } },
    { "lock_cli", NEVER, 0, 2, { 0xf0, 0xfa } },
    { "lock_setcc", NEVER, 0, 4, { 0xf0, 0x0f, 0x94, 0x03 } },
    { "lock_ud2", NEVER, 0, 3, { 0xf0, 0x0f, 0x0b } },
};
static const struct row lock_allowed[] = {
    { "lock_add", ALWAYS, 0, 3, { 0xf0, 0x01, 0x03 } },
    { "lock_adc_imm", ALWAYS, 0, 4, { 0xf0, 0x83, 0x13, 1 } },
    { "lock_or_82", ALWAYS, 0, 4, { 0xf0, 0x82, 0x0b, 1 } },
    { "lock_and", ALWAYS, 0, 3, { 0xf0, 0x21, 0x03 } },
    { "lock_sbb", ALWAYS, 0, 3, { 0xf0, 0x19, 0x03 } },
    { "lock_sub", ALWAYS, 0, 3, { 0xf0, 0x29, 0x03 } },
    { "lock_xor", ALWAYS, 0, 3, { 0xf0, 0x31, 0x03 } },
    { "lock_xchg", ALWAYS, 0, 3, { 0xf0, 0x87, 0x0b } },
    { "lock_inc", ALWAYS, 0, 3, { 0xf0, 0xff, 0x03 } },
    { "lock_dec", ALWAYS, 0, 3, { 0xf0, 0xfe, 0x0b } },
    { "lock_not", ALWAYS, 0, 3, { 0xf0, 0xf7, 0x13 } },
    { "lock_neg", ALWAYS, 0, 3, { 0xf0, 0xf7, 0x1b } },
    { "lock_bts", ALWAYS, 0, 4, { 0xf0, 0x0f, 0xab, 0x03 } },
    { "lock_btr_imm", ALWAYS, 0, 5, { 0xf0, 0x0f, 0xba, 0x33, 0 } },
    { "lock_btc_imm", ALWAYS, 0, 5, { 0xf0, 0x0f, 0xba, 0x3b, 0 } },
    { "lock_xadd", ALWAYS, 0, 4, { 0xf0, 0x0f, 0xc1, 0x0b } },
    { "lock_cmpxchg", ALWAYS, 0, 4, { 0xf0, 0x0f, 0xb1, 0x0b } },
    { "lock_cmpxchg8b", CX8, 0, 4, { 0xf0, 0x0f, 0xc7, 0x0b } },
};
/* clang-format on */

/* ---- running --------------------------------------------------------------------------------- */

static struct context run_bytes(int ring, const uint8_t *bytes, unsigned len, uint32_t ecx)
{
    struct context c;

    memset(code, 0xcc, sizeof code);
    memcpy(code, bytes, len);
    code[len] = 0xcd;
    code[len + 1] = VEC_DONE;
    c = context_new(ring, code);
    c.ebx = c.esi = c.edi = address_of(data_area);
    c.ecx = ecx;
    c.eax = 1; /* small: a bit string's offset, an exchange */
    context_run(&c);
    return c;
}

static void try_rows(const struct row *rows, unsigned n)
{
    char name[48];

    for (unsigned i = 0; i < n; i++)
        for (int ring = 0; ring <= 3; ring += 3) {
            const struct row *r = &rows[i];
            unsigned len = (unsigned)strlen(r->name);

            memset(data_area, 0, sizeof data_area);
            __asm__ volatile("fninit");
            memcpy(name, r->name, len);
            memcpy(name + len, ring ? "@3" : "@0", 3);
            struct context c = run_bytes(ring, r->bytes, r->len, 0);
            __asm__ volatile("fninit");
            if (holds(r->condition) && ring && r->vector)
                check_fault(name, &c, (uint32_t)r->vector, 0);
            else if (holds(r->condition))
                check_done(name, &c);
            else
                check_fault(name, &c, V_UD, 0);
        }
}

#define TRY(rows) try_rows(rows, sizeof rows / sizeof rows[0])

/* ---- prefixes that later changed an instruction's meaning ---------------------------------------- */

static void old_meanings(void)
{
    static const uint8_t bsf[] = { 0xf3, 0x0f, 0xbc, 0xc1 }, bsr[] = { 0xf3, 0x0f, 0xbd, 0xc1 };
    static const uint8_t bsf2[] = { 0xf2, 0x0f, 0xbc, 0xc1 };
    static const uint8_t too_long[] = { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                        0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90 };
    struct context c = run_bytes(3, bsf, sizeof bsf, 0);

    check("f3_bsf_of_zero_sets_ZF", c.eflags & 0x40);
    c = run_bytes(3, bsf2, sizeof bsf2, 0x100);
    check_eq("f2_bsf", c.eax, 8);
    c = run_bytes(3, bsr, sizeof bsr, 0x100);
    check_eq("f3_bsr_is_not_lzcnt", c.eax, 8);
    c = run_bytes(3, too_long, sizeof too_long, 0);
    check_fault("sixteen_bytes", &c, V_GP, 0);
}

/* ---- EFLAGS, CR4 ------------------------------------------------------------------------------------ */

static void flags(void)
{
    uint32_t before, after;

    __asm__ volatile("pushfl; popl %0; movl %0, %1; xorl $0x240000, %1; pushl %1; popfl; pushfl; popl %1; pushl "
                     "%0; popfl"
                     : "=&r"(before), "=&r"(after));
    check_eq("AC_and_ID_toggle", before ^ after, 0x240000);
}

static void control_register(void)
{
    static const uint8_t read_cr4[] = { 0x0f, 0x20, 0xe0 }, write_cr4[] = { 0x0f, 0x22, 0xe1 };
    static const struct {
        const char *name;
        unsigned condition;
    } bits[] = {
        { "CR4.VME", VME }, { "CR4.PVI", VME },      { "CR4.TSD", TSC },
        { "CR4.DE", DE },   { "CR4.PSE", PSE },      { "CR4.PAE", PAE },
        { "CR4.MCE", MCE }, { "CR4.PGE", PGE },      { "CR4.PCE", RDPMC },
        { "CR4.OSFXSR", FXSR }, { "CR4.OSXMMEXCPT", SSE }, { "CR4.11", NEVER },
        { "CR4.12", NEVER }, { "CR4.13", NEVER },    { "CR4.18", NEVER },
        { "CR4.31", NEVER },
    };
    static const uint8_t shift[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18, 31 };
    struct context c = run_bytes(0, read_cr4, sizeof read_cr4, 0);

    if (family() < 5) {
        check_fault("CR4_absent", &c, V_UD, 0);
        return;
    }
    check_done("CR4_present", &c);
    uint32_t old = get_cr4();
    for (unsigned i = 0; i < sizeof shift; i++) {
        c = run_bytes(0, write_cr4, sizeof write_cr4, old | 1u << shift[i]);
        set_cr4(old);
        if (holds(bits[i].condition))
            check_done(bits[i].name, &c);
        else
            check_fault(bits[i].name, &c, V_GP, 0);
    }
}

/* ---- MSRs, counters -------------------------------------------------------------------------------- */

static const uint8_t rdmsr[] = { 0x0f, 0x32 }, wrmsr[] = { 0x0f, 0x30 };

static void msrs(void)
{
    static const struct {
        const char *name;
        uint32_t msr;
        unsigned condition;
    } rows[] = {
        { "MSR_TSC", 0x10, TSC },        { "MSR_APIC_BASE", 0x1b, APIC },   { "MSR_MTRR_CAP", 0xfe, MTRR },
        { "MSR_SYSENTER_CS", 0x174, SEP }, { "MSR_SYSENTER_EIP", 0x176, SEP }, { "MSR_MCG_CAP", 0x179, MCA },
        { "MSR_PAT", 0x277, PAT },       { "MSR_MTRR_DEF", 0x2ff, MTRR },   { "MSR_MC0_CTL", 0x400, MCA },
        { "MSR_PERFEVTSEL", 0x186, NEVER }, { "MSR_STAR", 0xc0000081, NEVER }, { "MSR_FS_BASE", 0xc0000100, NEVER },
        { "MSR_EVNTSEL", 0xc0010000, NEVER }, { "MSR_none", 0xdeadbeef, NEVER },
    };
    struct context c = run_bytes(3, rdmsr, sizeof rdmsr, 0x10);

    if (!holds(MSR)) {
        check_fault("rdmsr_absent@3", &c, V_UD, 0);
        c = run_bytes(0, rdmsr, sizeof rdmsr, 0x10);
        check_fault("rdmsr_absent@0", &c, V_UD, 0);
        c = run_bytes(0, wrmsr, sizeof wrmsr, 0x10);
        check_fault("wrmsr_absent@0", &c, V_UD, 0);
        return;
    }
    check_fault("rdmsr_at_ring_3", &c, V_GP, 0);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].condition == NEVER && is_qemu)
            continue; /* it answers 0 for most */
        c = run_bytes(0, rdmsr, sizeof rdmsr, rows[i].msr);
        if (holds(rows[i].condition))
            check_done(rows[i].name, &c);
        else
            check_fault(rows[i].name, &c, V_GP, 0);
        c = run_bytes(0, wrmsr, sizeof wrmsr, rows[i].msr);
        if (!holds(rows[i].condition))
            check_fault(rows[i].name, &c, V_GP, 0);
    }
    if (holds(PAT)) { /* an unknown memory type; EDX is 0 */
        static const uint8_t bad_pat[] = { 0xb8, 2, 0, 0, 0, 0x0f, 0x30 };

        c = run_bytes(0, bad_pat, sizeof bad_pat, 0x277);
        check_fault("PAT_of_a_reserved_type", &c, V_GP, 0);
    }
}

static void counters(void)
{
    static const uint8_t rdtsc[] = { 0x0f, 0x31 }, rdpmc[] = { 0x0f, 0x33 };
    struct context c;

    if (holds(TSC)) {
        set_cr4(get_cr4() | 4);
        c = run_bytes(3, rdtsc, sizeof rdtsc, 0);
        check_fault("TSD_at_ring_3", &c, V_GP, 0);
        c = run_bytes(0, rdtsc, sizeof rdtsc, 0);
        check_done("TSD_at_ring_0", &c);
        set_cr4(get_cr4() & ~4u);
    }
    c = run_bytes(3, rdpmc, sizeof rdpmc, 0);
    check_fault("rdpmc_at_ring_3", &c, holds(RDPMC) ? V_GP : V_UD, 0);
    if (holds(RDPMC)) {
        c = run_bytes(3, rdpmc, sizeof rdpmc, 1000);
        check_fault("rdpmc_of_no_counter", &c, V_GP, 0);
    }
}

/* ---- SYSENTER, SYSEXIT -------------------------------------------------------------------------------- */

static void write_msr(uint32_t msr, uint32_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0));
}

SNIPPET(entered, "movl %esp, %esi; movl %ss, %eax; int $0x7f");
SNIPPET(k_sysexit, "movl $back_at_3, %edx; movl $0x123450, %ecx; sysexit; back_at_3: movl %cs, %eax");
static uint8_t kernel_stack[512] __attribute__((aligned(16)));

static void fast_calls(void)
{
    static const uint8_t sysenter[] = { 0x0f, 0x34 }, sysexit[] = { 0x0f, 0x35 };
    struct context c;

    if (!holds(SEP)) {
        c = run_bytes(3, sysenter, sizeof sysenter, 0);
        check_fault("sysenter_absent", &c, V_UD, 0);
        c = run_bytes(0, sysexit, sizeof sysexit, 0);
        check_fault("sysexit_absent", &c, V_UD, 0);
        return;
    }
    write_msr(0x174, 0);
    c = run_bytes(3, sysenter, sizeof sysenter, 0);
    check_fault("sysenter_without_CS", &c, V_GP, 0);
    c = run_bytes(0, sysexit, sizeof sysexit, 0);
    check_fault("sysexit_without_CS", &c, V_GP, 0);
    if (!is_qemu) { /* it would go to EIP 0 */
        write_msr(0x174, 3); /* RPL is ignored, the index counts */
        c = run_bytes(3, sysenter, sizeof sysenter, 0);
        check_fault("sysenter_with_null_CS_of_RPL_3", &c, V_GP, 0);
    }
    write_msr(0x174, SEL_KCODE);
    write_msr(0x175, address_of(kernel_stack) + sizeof kernel_stack);
    write_msr(0x176, address_of(entered));
    c = run_bytes(3, sysexit, sizeof sysexit, 0);
    check_fault("sysexit_at_ring_3", &c, V_GP, 0);

    memcpy(code, sysenter, sizeof sysenter);
    c = context_new(3, code);
    c.eflags = 2 | EFL_IF | EFL_DF | EFL_NT;
    context_run(&c);
    check_eq("sysenter_arrives", c.vector, VEC_DONE);
    check_eq("sysenter_CS", c.cs, SEL_KCODE);
    check_eq("sysenter_SS", c.eax & 0xffff, SEL_KDATA);
    check_eq("sysenter_ESP", c.esi, address_of(kernel_stack) + sizeof kernel_stack);
    check_eq("sysenter_clears_IF_only", c.eflags & (EFL_IF | EFL_DF | EFL_NT), EFL_DF | EFL_NT);

    c = run_at(0, k_sysexit);
    check_eq("sysexit_arrives", c.vector, VEC_DONE);
    check_eq("sysexit_CS", c.cs, SEL_UCODE);
    check_eq("sysexit_SS", c.ss, SEL_UDATA);
    check_eq("sysexit_ESP", c.esp, 0x123450);
}

/* ---- CPUID ------------------------------------------------------------------------------------------------ */

/* What each model must show, written down from the manuals less what is not offered. */
static const struct {
    uint32_t signature, edx;
    bool is_amd;
} known[] = {
    { 0x480, 0x00000001, false }, { 0x543, 0x0080013f, false }, { 0x652, 0x0183a97f, false },
    { 0x686, 0x0383a97f, false }, { 0xf29, 0x078ba97f, false }, { 0xf4a, 0x078ba97f, true },
    { 0x663, 0x0781a97f, false },
};

static void identification(void)
{
    static const char intel[] = "GenuineIntel", amd[] = "AuthenticAMD";
    struct leaf l = cpuid(0);
    uint32_t text[3] = { l.ebx, l.edx, l.ecx };

    is_amd = !memcmp(text, amd, 12);
    check("vendor", is_amd || !memcmp(text, intel, 12));
    check("highest_leaf", l.eax >= 1 && l.eax < 0x80);
    say("# signature 0x%x, features 0x%x\n", leaf1.eax, leaf1.edx);
    if (is_qemu || is_bochs)
        return;
    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].signature == leaf1.eax) {
            check_eq("features", leaf1.edx, known[i].edx);
            check_eq("features_of_SSE3_and_later", leaf1.ecx, 0);
            check("vendor_of_the_model", is_amd == known[i].is_amd);
            return;
        }
    check_eq("signature", leaf1.eax, 0);
}

void guest_main(void)
{
    is_qemu = option_given("qemu");
    is_bochs = option_given("bochs");
    leaf1 = cpuid(1);
    identification();
    if (holds(FXSR))
        set_cr4(get_cr4() | 0x200);
    TRY(offered);
    if (!is_qemu)
        TRY(undefined);
    if (!is_qemu)
        TRY(later);
    TRY(lock_denied);
    TRY(lock_allowed);
    old_meanings();
    flags();
    if (!is_qemu)
        control_register();
    msrs();
    counters();
    fast_calls();
}
