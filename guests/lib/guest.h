/*
 * The library of the test guests: a flat 32-bit program with its own descriptor tables,
 * that runs pieces of code at ring 0 or 3 and looks at how they ended.
 *
 * A guest defines guest_main(). It reports over COM1, a line per check:
 *     ok NAME
 *     FAIL NAME: what
 * and ends through the debug-exit port f4h with one of the codes below, or with Bochs' shutdown port.
 * A check demands what the architecture demands. Where QEMU or Bochs is wrong, tests/guest/differences
 * says so, with the manual section that decides.
 */
#ifndef GUESTS_LIB_GUEST_H
#define GUESTS_LIB_GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

enum guest_exit { GUEST_PASS = 0x10, GUEST_FAIL = 0x11, GUEST_LOST = 0x13 };

/* ---- registers of a piece of code ------------------------------------------------- */
struct context {
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
    uint32_t eip, cs, eflags, ss, ds, es, fs, gs;
    /* filled when it has ended */
    uint32_t vector, error, cr2;
};

struct frame {
    uint32_t gs, fs, es, ds;
    uint32_t edi, esi, ebp, frame_esp, ebx, edx, ecx, eax;
    uint32_t vector, error;
    uint32_t eip, cs, eflags, esp, ss; /* the last two only from ring 3 */
    uint32_t v_es, v_ds, v_fs, v_gs;   /* only from virtual-8086 mode */
};

/** The code that ends every snippet: INT 7Fh, which any ring may use. */
#define VEC_DONE 0x7f

/**
 * Assembly text as a function-like label, ended by INT 7Fh. Label NAME_done stands at that INT, and
 * "1:" and so on may be used inside.
 */
#define SNIPPET(name, text)                                                                                  \
    extern uint8_t name[], name##_done[];                                                                    \
    __asm__(".text\n.globl " #name "\n.globl " #name "_done\n" #name ":\n" text "\n" #name                   \
            "_done: int $0x7f\n.byte 0xf4\n")
/** A label inside a snippet, for checks of EIP. */
#define LABEL(name) extern uint8_t name[]

/** Flat segments, stack of the ring's own, IF clear, everything else zero. modes.h has the other modes. */
struct context context_new(int ring, const void *code);
/** Run until an exception, interrupt or INT 7Fh; *c then holds the state it ended with. */
void context_run(struct context *c);
/** Both in one. */
struct context run_at(int ring, const void *code);

/** When set, called for every vector first; true: handled, return from the interrupt. */
extern bool (*guest_hook)(struct frame *f);

/* ---- reporting ----------------------------------------------------------------------- */
void check(const char *name, bool good);
void check_eq(const char *name, uint32_t got, uint32_t want);
/** It ended with that exception; the code of exceptions without one is 0. */
void check_fault(const char *name, const struct context *c, uint32_t vector, uint32_t error);
/** It ran to its INT 7Fh. */
void check_done(const char *name, const struct context *c);
/** It ended with #PF, this error code and this address in CR2. */
void check_page_fault(const char *name, struct context c, uint32_t error, uint32_t cr2);
/** "a_b" for a check's name. The two last results stay. */
const char *name2(const char *a, const char *b);
/** A small printf: %s %x %u %c. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** Report and end now. */
_Noreturn void give_up(const char *why);

/** Is this word on the kernel command line? The runners pass `qemu` or `bochs` there, for the few
 *  checks that would end such a run instead of failing. */
bool option_given(const char *word);
/** That command line. */
const char *guest_words(void);

/* ---- descriptors ----------------------------------------------------------------------- */
struct __attribute__((packed)) table_register {
    uint16_t limit;
    uint32_t base;
};
extern uint64_t guest_gdt[64], guest_idt[256], guest_ldt[16];
struct tss {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_base;
    uint8_t io_bitmap[128];
};
extern struct tss guest_tss;

#define DESC(base, limit, access, flags)                                                                     \
    ((uint64_t)((limit)&0xffffu) | (uint64_t)((base)&0xffffffu) << 16 | (uint64_t)(access) << 40 |           \
     (uint64_t)(((limit) >> 16) & 0xfu) << 48 | (uint64_t)(flags) << 52 |                                    \
     (uint64_t)((uint32_t)(base) >> 24) << 56)
#define GATE(sel, ofs, access)                                                                               \
    ((uint64_t)((uint32_t)(ofs)&0xffffu) | (uint64_t)(sel) << 16 | (uint64_t)(access) << 40 |                \
     (uint64_t)((uint32_t)(ofs) >> 16) << 48)

void idt_set(unsigned vector, uint64_t gate);

/* ---- paging: identity map of the first 16 MiB with 4 KiB pages, all of it user and writable ---- */
#define PTE_P  0x001u
#define PTE_W  0x002u
#define PTE_U  0x004u
#define PTE_A  0x020u
#define PTE_D  0x040u
#define PTE_PS 0x080u
#define PTE_G  0x100u
extern uint32_t page_directory[1024];
void paging_on(void);
void paging_off(void);
/** The page-table entry of va (below 16 MiB). */
uint32_t *pte_of(uint32_t va);
/** Set it and flush it. */
void pte_set(uint32_t va, uint32_t value);
/** Run code, which accesses memory, with EAX = va and ECX = value. */
struct context access_at(int ring, const void *code, uint32_t va, uint32_t value);
/** A guest_hook that maps the page of each page fault again, and how often it did. */
bool add_page(struct frame *f);
extern uint32_t pages_added;

/* ---- timer: IRQ 0, whose vector is what the guest has set ------------------------------------- */
/** Unmask it and raise it after `count` ticks of 1.193182 MHz. */
void pit_one_shot(uint16_t count);
/** Unmask it and return when it is pending; IF is clear. */
void pit_pending(void);
/** Masked, silent, and its last interrupt ended. */
void pit_stop(void);

/* ---- instructions -------------------------------------------------------------------------- */
static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t get_cr0(void)
{
    uint32_t v;
    __asm__ volatile("mov %%cr0, %0" : "=r"(v));
    return v;
}
static inline uint32_t get_cr3(void)
{
    uint32_t v;
    __asm__ volatile("mov %%cr3, %0" : "=r"(v));
    return v;
}
static inline uint32_t get_cr4(void)
{
    uint32_t v;
    __asm__ volatile("mov %%cr4, %0" : "=r"(v));
    return v;
}
static inline void set_cr0(uint32_t v)
{
    __asm__ volatile("mov %0, %%cr0" : : "r"(v) : "memory");
}
static inline void set_cr3(uint32_t v)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(v) : "memory");
}
static inline void set_cr4(uint32_t v)
{
    __asm__ volatile("mov %0, %%cr4" : : "r"(v) : "memory");
}
static inline void invlpg(uint32_t va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}
static inline uint32_t peek(uint32_t va)
{
    return *(volatile uint32_t *)va;
}
static inline void poke(uint32_t va, uint32_t v)
{
    *(volatile uint32_t *)va = v;
}
static inline void poke8(uint32_t va, uint8_t v)
{
    *(volatile uint8_t *)va = v;
}
static inline uint32_t address_of(const void *p)
{
    return (uint32_t)p;
}

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

/* Free memory for tests, far from the program: page-aligned, below 16 MiB. */
#define SCRATCH 0x800000u

#define EFL_CF   0x1u
#define EFL_TF   0x100u
#define EFL_IF   0x200u
#define EFL_DF   0x400u
#define EFL_OF   0x800u
#define EFL_IOPL 0x3000u
#define EFL_NT   0x4000u
#define EFL_RF   0x10000u
#define EFL_VM   0x20000u
#define EFL_AC   0x40000u
#define EFL_ID   0x200000u

enum {
    V_DE,
    V_DB,
    V_NMI,
    V_BP,
    V_OF,
    V_BR,
    V_UD,
    V_NM,
    V_DF,
    V_TS = 10,
    V_NP,
    V_SS,
    V_GP,
    V_PF,
    V_MF = 16,
    V_AC
};

void guest_main(void);

#endif
