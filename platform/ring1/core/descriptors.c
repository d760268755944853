/*
 * Descriptor tables and control state, set explicitly: nothing that the firmware left is relied on.
 *
 * Control state while ring 1 runs (docs/ring1.md has the reasons): CR0.WP and NE set, TS and EM clear; SMEP set
 * where there is one, SMAP clear, UMIP set where there is one; IOPL 0, IF 1.
 *
 * Ref: Intel SDM vol. 3A, ch. "Protected-Mode Memory Management", "Interrupt and Exception Handling" (64-bit
 * mode), "Task Management" (TSS in 64-bit mode), "System Architecture Overview" (control registers).
 */
#include "base/string.h"
#include "platform/ring1/core/core.h"
#include "platform/ring1/core/machine.h"
#include "platform/platform.h"

/* Descriptors: flat, 64-bit code or data, of a DPL. */
#define DESC_CODE64(dpl) (0x00af9b000000ffffull | (uint64_t)(dpl) << 45)
#define DESC_DATA(dpl)   (0x00cf93000000ffffull | (uint64_t)(dpl) << 45)
#define DESC_TSS_TYPE    0x89ull /* present, available 64-bit TSS */

#define GATE_INTERRUPT 0x8eu /* present, 64-bit interrupt gate, DPL 0 */
#define GATE_DPL_SHIFT 5

struct gate {
    uint16_t ofs_low, sel;
    uint8_t ist, attr;
    uint16_t ofs_mid;
    uint32_t ofs_high, reserved;
} __attribute__((packed));

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7], reserved2;
    uint16_t reserved3, iomap;
} __attribute__((packed));

struct table_register {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

#define OURS (SEL_OURS / 8)
#define GDT_ENTRIES (OURS + 7)
_Static_assert(OURS == DIRECT_DESCRIPTORS, "our descriptors follow the guest's");
static uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(16)));
static struct gate idt[256] __attribute__((aligned(16)));
static struct tss tss __attribute__((aligned(16)));

/* What libraries find at FS:28h, where compilers look for the stack protector's word. */
static uint64_t thread_block[8] __attribute__((aligned(64)));

static uint64_t address_of(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static void make_gdt(void)
{
    uint64_t base = address_of(&tss), limit = sizeof tss - 1;

    gdt[SEL_CODE0 / 8] = DESC_CODE64(0);
    gdt[SEL_DATA0 / 8] = DESC_DATA(0);
    gdt[SEL_CODE1 / 8] = DESC_CODE64(1);
    gdt[SEL_DATA1 / 8] = DESC_DATA(1);
    gdt[SEL_TSS / 8] = limit | (base & 0xffffff) << 16 | DESC_TSS_TYPE << 40 | (base >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 1] = base >> 32;
}

static void set_gate(unsigned vector, unsigned dpl, unsigned ist)
{
    uint64_t at = address_of(trap_stubs[vector]);

    idt[vector] = (struct gate){ .ofs_low = (uint16_t)at, .sel = SEL_CODE0, .ist = (uint8_t)ist,
                                 .attr = (uint8_t)(GATE_INTERRUPT | dpl << GATE_DPL_SHIFT),
                                 .ofs_mid = (uint16_t)(at >> 16), .ofs_high = (uint32_t)(at >> 32) };
}

static void make_idt(void)
{
    for (unsigned v = 0; v < 256; v++)
        set_gate(v, 0, 0);
    set_gate(2, 0, IST_NMI);
    set_gate(8, 0, IST_DOUBLE_FAULT);
    set_gate(18, 0, IST_MACHINE_CHECK);
    set_gate(VECTOR_NUCLEUS, 1, 0);
}

static void make_tss(void)
{
    memset(&tss, 0, sizeof tss);
    tss.rsp[0] = address_of(ring0_stack_top);
    for (unsigned i = 0; i < 3; i++) /* IST1..3 */
        tss.ist[i] = address_of(ist_stack_top) - i * IST_STACK_BYTES;
    tss.iomap = sizeof tss; /* no port is open to rings 1 to 3 */
}

static void load(void)
{
    struct table_register g = { sizeof gdt - 1, address_of(gdt) }, i = { sizeof idt - 1, address_of(idt) };

    __asm__ volatile("lgdt %0\n\t"
                     "lidt %1\n\t"
                     "pushq %2\n\t"
                     "lea 1f(%%rip), %%rax\n\t"
                     "push %%rax\n\t"
                     "lretq\n"
                     "1:\tmov %w3, %%ss\n\t"
                     "xor %%eax, %%eax\n\t"
                     "mov %%eax, %%ds\n\t"
                     "mov %%eax, %%es\n\t"
                     "mov %%eax, %%fs\n\t"
                     "mov %%eax, %%gs\n\t"
                     "lldt %%ax\n\t"
                     "ltr %w4"
                     :
                     : "m"(g), "m"(i), "i"(SEL_CODE0), "r"(SEL_DATA0), "r"(SEL_TSS)
                     : "rax", "memory");
}

static void set_control(void)
{
    uint32_t leaf0[4], leaf7[4] = { 0 };
    uint64_t cr0, cr4 = HOST_CR4_PAE | HOST_CR4_OSFXSR | HOST_CR4_OSXMMEXCPT;

    read_cpuid(0, 0, leaf0);
    if (leaf0[0] >= 7)
        read_cpuid(7, 0, leaf7);
    cr4 |= leaf7[1] & 1u << 0 ? HOST_CR4_FSGSBASE : 0;
    cr4 |= leaf7[1] & 1u << 7 ? HOST_CR4_SMEP : 0;
    cr4 |= leaf7[2] & 1u << 2 ? HOST_CR4_UMIP : 0;
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    cr0 &= ~(HOST_CR0_EM | HOST_CR0_TS);
    cr0 |= HOST_CR0_MP | HOST_CR0_NE | HOST_CR0_WP | HOST_CR0_AM; /* AM: of user code, with its AC, only */
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
    __asm__ volatile("fninit");
    write_msr(MSR_SYSENTER_CS, 0); /* #GP or #UD: there is no way in but through gates */
}

/* Text and constants are read-only here, but not in the map of machine memory: a stray store there shows. */
static uint64_t sum(uint64_t so_far, const void *from, size_t bytes)
{
    const uint64_t *word = from;

    for (size_t i = 0; i < bytes / sizeof *word; i++)
        so_far = (so_far ^ word[i]) * 0x100000001b3ull; /* FNV-1a, by words */
    return so_far;
}

uint64_t core_sum(void)
{
    extern const uint8_t image_base[], image_rodata_end[];
    uint64_t s = sum(0xcbf29ce484222325ull, image_base, (size_t)(image_rodata_end - image_base));

    return sum(sum(sum(s, gdt + OURS, sizeof gdt - OURS * sizeof *gdt), idt, sizeof idt), &tss, sizeof tss);
}

uint64_t *descriptors_of_guest(void)
{
    return gdt;
}

void descriptors_restore_fs(void)
{
    write_msr(MSR_FS_BASE, address_of(thread_block));
}

void descriptors_init(void)
{
    make_gdt();
    make_idt();
    make_tss();
    load();
    set_control();
    thread_block[0] = address_of(thread_block);
    thread_block[5] = read_tsc() << 8; /* a low byte of 0 ends strings */
    descriptors_restore_fs();
    write_msr(MSR_GS_BASE, 0);
}
