/*
 * Guest code through the whole engine: a VM with paging, user code at CPL 3, and tables of
 * *before, code, after*. Code is written as assembly text in Intel syntax; it ends at the
 * UD2 that the fixture puts behind it, or where `end` of the case says.
 *
 * The test's argument names the configuration to run under, see run_configs in the .c.
 */
#ifndef TESTS_UNIT_BT_RUN_FIXTURE_H
#define TESTS_UNIT_BT_RUN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/vm_fixture.h"

/* ---- guest memory: VA is PA below 8 MiB -------------------------------------------------- */

#define CODE        0x400000 /* 4 pages                                   */
#define CODE_PAGES  4
#define STACK       0x410000 /* 2 pages; ESP starts in the middle of them */
#define STACK_PAGES 2
#define STACK_START 0x411000
#define DATA        0x500000 /* 4 pages; the pages around them are absent */
#define DATA_PAGES  4
#define DEVICE      0x600000 /* a page whose accesses run_fixture records */
#define SPARE       0x680000 /* up to 8 MiB: RAM that nobody maps         */

#define STR_(x) #x
#define STR(x)  STR_(x)

/* ---- selectors --------------------------------------------------------------------------- */

#define SEL(index)  ((index) << 3 | 3)
#define SEL_CODE    SEL(3)  /* flat                                            */
#define SEL_DATA    SEL(4)  /* flat                                            */
#define SEL_BASED   SEL(5)  /* base DATA, no limit: what FS and GS often are   */
#define SEL_LIMITED SEL(6)  /* base DATA, limit 0xfff                          */
#define SEL_DOWN    SEL(7)  /* expand-down above DATA + 0xfff                  */
#define SEL_RO      SEL(8)  /* flat, read-only                                 */
#define SEL_STACK16 SEL(9)  /* base STACK, limit 0x1fff, SP                    */
#define SEL_CODE16  SEL(10) /* base CODE, limit 0xffff, 16-bit                 */
#define SEL_CODEB   SEL(11) /* base CODE, limit 0x3fff, 32-bit                 */
#define SEL_FLAT16  SEL(12) /* base 0, limit 4 GiB - 1, 16-bit code            */

/* ---- code ----------------------------------------------------------------------------------- */

struct guest_code {
    const uint8_t *bytes;
    uint32_t len;
};

#define GUEST_MODE(mode, text)                                                                               \
    __extension__({                                                                                          \
        const uint8_t *from_, *to_;                                                                          \
        __asm__(".pushsection .rodata.guest, \"a\", @progbits\n\t" mode                                      \
                "\n\t.intel_syntax noprefix\n771:\n\t" text                                                  \
                "\n772:\n\t.att_syntax prefix\n\t.code64\n\t.popsection\n\t"                                 \
                "lea 771b(%%rip), %0\n\tlea 772b(%%rip), %1"                                                 \
                : "=r"(from_), "=r"(to_));                                                                   \
        (struct guest_code){ from_, (uint32_t)(to_ - from_) };                                               \
    })
#define GUEST(text)   GUEST_MODE(".code32", text)
#define GUEST16(text) GUEST_MODE(".code16", text)

/* ---- cases ------------------------------------------------------------------------------------ */

/** A register, EFLAGS or a doubleword of memory, and what it holds. */
struct item {
    uint32_t where; /* R(..), R_FLAGS, or an address */
    uint32_t value;
};
#define R(reg)    (1u + (reg))
#define R_FLAGS   16u
#define MAX_ITEMS 16
#define VECTOR_DE 0x100u /* 0 is taken */

struct run_case {
    const char *name;
    struct guest_code code;
    struct item before[MAX_ITEMS];
    struct item after[MAX_ITEMS]; /* what changes; everything else must not */
    unsigned vector;              /* the exception it ends with; 0: the UD2 behind the code */
    uint32_t error, cr2;
    uint32_t eip;                /* offset in the code where it ends when `vector` is set */
    uint16_t ds, es, ss, fs, gs; /* 0: flat, or the null selector in FS and GS */
    uint32_t at;                 /* where the code lies; 0: CODE */
};

struct device_access {
    bool is_write;
    uint32_t ofs, size, value;
};
#define MAX_DEVICE_ACCESSES 64

struct run_fixture {
    struct vm_fixture *vm;
    struct vcpu *cpu;
    const struct run_config *config;
    struct vm_fixture_frame frame; /* of the last run */
    char text[1200];
    struct device_access device[MAX_DEVICE_ACCESSES];
    unsigned ndevice;
    uint32_t device_value; /* what reads give: bytes of it, by offset */
    void (*on_device)(struct run_fixture *fx, const struct device_access *a); /* may be NULL */
};

struct run_config {
    const char *name;
    bool chain, baseline;
    unsigned max_insns;
    size_t tc_bytes;
    enum bt_mem_form mem;
    enum bt_coherency coherency;
    bool callouts_only;
};

/** Takes the configuration from the command line. false: no such one (usage is printed). */
bool run_config_choose(int argc, char **argv);
const struct run_config *run_config(void);

struct run_fixture *run_fixture_new(void);
void run_fixture_free(struct run_fixture *fx);

/** Put bytes into guest memory as the loader would. */
void put(struct run_fixture *fx, uint32_t pa, const void *data, uint32_t len);
void put_code(struct run_fixture *fx, uint32_t pa, struct guest_code code);
void put_u32(struct run_fixture *fx, uint32_t pa, uint32_t value);
uint32_t get_u32(struct run_fixture *fx, uint32_t pa);

/** Map the page at va (below 8 MiB) to any PA: PTE_* bits, 0 unmaps. Drops what the TLB had. */
void map_alias(struct run_fixture *fx, uint32_t va, uint32_t pa, uint32_t pte_flags);

/** Registers as every case finds them: GPRs distinct, flat segments, CPL 3, ESP STACK_START. */
void reset_state(struct run_fixture *fx);
/** Run from cpu->eip until an exception; anything else fails the test. */
void run_from(struct run_fixture *fx, uint32_t eip);
/** The same, with UD2 at `end` expected. */
void run_to(struct run_fixture *fx, uint32_t eip, uint32_t end);

/** Each case with the tables empty and filled, with arithmetic flags clear and set. */
void run_cases(struct run_fixture *fx, const struct run_case *cases, size_t count);

/** Run the code at CODE with UD2 behind it, from registers as they stand. */
void run_code(struct run_fixture *fx, struct guest_code code);

/** run_cases in a fixture of its own. */
void run_table(const struct run_case *cases, size_t count);

#endif
