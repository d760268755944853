/* Instructions and registers of the machine below, for ring 0. Ref: Intel SDM vol. 2 and vol. 4. */
#ifndef PLATFORM_RING1_CORE_MACHINE_H
#define PLATFORM_RING1_CORE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_EFER    0xc0000080u
#define MSR_SYSENTER_CS 0x174u

#define HOST_CR0_MP (1ull << 1)
#define HOST_CR0_EM (1ull << 2)
#define HOST_CR0_TS (1ull << 3)
#define HOST_CR0_NE (1ull << 5)
#define HOST_CR0_WP (1ull << 16)
#define HOST_CR0_AM (1ull << 18)

#define HOST_CR4_TSD        (1ull << 2)
#define HOST_CR4_PAE        (1ull << 5)
#define HOST_CR4_OSFXSR     (1ull << 9)
#define HOST_CR4_OSXMMEXCPT (1ull << 10)
#define HOST_CR4_UMIP       (1ull << 11)
#define HOST_CR4_FSGSBASE   (1ull << 16)
#define HOST_CR4_SMEP       (1ull << 20)

static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t v;

    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t v;

    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t read_tsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

static inline void write_msr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}

static inline void read_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}

static inline uint64_t read_dr6(void)
{
    uint64_t v;

    __asm__ volatile("mov %%dr6, %0" : "=r"(v));
    return v;
}

static inline void write_dr6(uint64_t v)
{
    __asm__ volatile("mov %0, %%dr6" : : "r"(v));
}

static inline uint64_t read_cr2(void)
{
    uint64_t v;

    __asm__ volatile("mov %%cr2, %0" : "=r"(v));
    return v;
}

static inline uint64_t read_cr3(void)
{
    uint64_t v;

    __asm__ volatile("mov %%cr3, %0" : "=r"(v));
    return v;
}

static inline void write_cr3(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(v) : "memory");
}

static inline void flush_page(uint64_t va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

#endif
