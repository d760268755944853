/*
 * A differential case: code bytes with the state they start from, and what became of
 * it. The generator makes cases, the oracle runs them on the host's processor, the
 * engine side runs them translated, and the comparer judges.
 *
 * A case lives in six pages at fixed linear addresses; everything around them is
 * unmapped on both sides:
 *
 *   0x0400000  unmapped            0x0604000  RODATA, read only
 *   0x0401000  CODE, two pages     0x0605000  unmapped
 *   0x0403000  unmapped            0x0701000  STACK
 *   0x0601000  DATA, two pages     0x0702000  unmapped
 *   0x0603000  unmapped
 *
 * Every case ends with an exception: its own, or the #GP(0) of the HLT after its code.
 */
#ifndef TESTS_DIFF_CASE_H
#define TESTS_DIFF_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/x86.h"

#define CASE_PAGE   0x1000u
#define CASE_CODE   0x00401000u
#define CASE_DATA   0x00601000u
#define CASE_RODATA 0x00604000u
#define CASE_STACK  0x00701000u
#define CASE_ESP    (CASE_STACK + 0x800u) /* where ESP starts, mostly */

/* The pages in the order of struct diff_result's mem[]. */
enum case_page { PAGE_CODE0, PAGE_CODE1, PAGE_DATA0, PAGE_DATA1, PAGE_RODATA, PAGE_STACK, CASE_PAGES };
extern const uint32_t case_page_va[CASE_PAGES];

/*
 * Selectors, alike on both sides. The flat data selector is Linux's own; the rest
 * are LDT entries.
 */
#define CASE_SEL_CS     0x07u /* flat code                                            */
#define CASE_SEL_DS     0x2bu /* flat data; also ES and SS                            */
#define CASE_SEL_FS     0x0fu /* base CASE_DATA, limit 4 GiB - 1                      */
#define CASE_SEL_GS     0x17u /* base CASE_DATA, limit 0xfff                          */
#define CASE_SEL_RO     0x1fu /* flat, read only                                      */
#define CASE_SEL_DOWN   0x27u /* base 0, expand-down, limit CASE_DATA + 0x7ff: above is valid */
#define CASE_SEL_ODD    0x2fu /* base CASE_DATA + 0x123, limit 0x5fd, 16-bit by its B bit        */
#define CASE_SEL_DOWNGS 0x37u /* base CASE_DATA - 0x1000, expand-down, byte limit 0x17ff, B set  */
#define CASE_ODD_BASE   (CASE_DATA + 0x123u)
#define CASE_ODD_LIMIT  0x5fdu
#define CASE_DOWNGS_BASE  (CASE_DATA - CASE_PAGE)
#define CASE_DOWNGS_LIMIT 0x17ffu
/** Base of what such a selector names. */
static inline uint32_t case_segment_base(uint16_t sel)
{
    switch (sel) {
    case CASE_SEL_FS:
    case CASE_SEL_GS:
        return CASE_DATA;
    case CASE_SEL_ODD:
        return CASE_ODD_BASE;
    case CASE_SEL_DOWNGS:
        return CASE_DOWNGS_BASE;
    default:
        return 0;
    }
}
#define CASE_GS_LIMIT   0xfffu
#define CASE_DOWN_LIMIT (CASE_DATA / CASE_PAGE) /* in pages */

struct diff_state {
    uint32_t gpr[8];
    uint32_t eip, eflags;
    uint16_t sel[SEG_COUNT];
    uint8_t fx[512] __attribute__((aligned(16))); /* FXSAVE image; selectors not compared */
};

#define CASE_CODE_MAX  320u
#define CASE_INSNS_MAX 48u
#define CASE_MASKS_MAX 8u

struct diff_case {
    uint64_t seed, index; /* how to make it again                                    */
    char only[24];        /* the mnemonic it was restricted to                       */
    char name[48];        /* of a case from cases.txt                                */
    uint64_t mem_seed;    /* contents of the pages                                   */
    struct diff_state init;
    uint32_t code_va;  /* first instruction; the bytes stay inside the code pages */
    uint16_t code_len; /* without the HLT                                         */
    uint8_t code[CASE_CODE_MAX];
    uint8_t ninsns;
    struct {
        uint16_t ofs;            /* from code_va                                            */
        uint32_t undef;          /* flags that are undefined before this instruction        */
    } insns[CASE_INSNS_MAX + 1]; /* the last entry stands for the HLT                     */
    bool loads_fcw;              /* FLDCW may unmask an exception that is no instruction's fault */
    bool modifies_code;          /* meant to store to its own bytes                         */
    uint8_t nmasks;
    struct {
        uint32_t va, len;
    } masks[CASE_MASKS_MAX]; /* memory that is not compared                             */
};

enum diff_end { END_NONE, END_FAULT, END_HANG, END_LOST };

struct diff_result {
    enum diff_end end;
    uint8_t vector;
    uint32_t error, cr2; /* #PF only for cr2                                        */
    struct diff_state state;
    char note[160]; /* engine: why END_LOST                                    */
    uint8_t mem[CASE_PAGES][CASE_PAGE];
};

/* ---- gen.c ------------------------------------------------------------------------- */

struct gen;
/** @param only mnemonic as Zydis names it, or NULL. NULL on failure (no such mnemonic). */
struct gen *gen_new(const char *only);
void gen_free(struct gen *g);
/** Case `index` of the stream `seed`; depends on nothing else. */
void gen_case(const struct gen *g, uint64_t seed, uint64_t index, struct diff_case *out);
/** Fill in insns[] and undefined flags of hand-written code. */
void gen_annotate(struct diff_case *c);
/** Starting registers and pages as `seed` gives them. */
void gen_state(uint64_t seed, struct diff_case *out);
/** Contents of the case's pages, code included. */
void case_fill_memory(const struct diff_case *c, uint8_t mem[CASE_PAGES][CASE_PAGE]);
/** Names of the mnemonics the generator covers, and how many. */
size_t gen_mnemonics(const struct gen *g, const char **names, size_t max);

/* ---- oracle.c ------------------------------------------------------------------------ */

/** Map the pages and install descriptors and handlers. Ruins the process for other
 *  uses: call it in a child. 0 or -errno. */
int oracle_init(void);
void oracle_run(const struct diff_case *c, struct diff_result *out);

/* ---- engine.c ------------------------------------------------------------------------- */

/** Which of the x87's last-instruction pointers the host keeps: the engine's model does as it does. */
struct host_x87 {
    bool fop_on_exception, fdp_on_exception, no_fcs_fds;
    bool fxsave_leaves_out; /* FXSAVE and FXRSTOR drop them without a pending exception */
};
void oracle_host_x87(struct host_x87 *out);

struct engine_options {
    bool chain, host_baseline, verify;
    bool callouts_only;
    bool watched; /* pages as if they had breakpoints, which nothing meets */
    unsigned tu_insns;
    size_t tc_bytes;
    int mem; /* enum bt_mem_form */
    int coherency;  /* enum bt_coherency: what the code is made for */
};
struct engine;
struct engine *engine_new(const struct engine_options *options);
void engine_free(struct engine *e);
void engine_run(struct engine *e, const struct diff_case *c, struct diff_result *out);
/** Log guest and host code of what runs next to stderr. */
void engine_log(struct engine *e, bool on);

/* ---- compare.c ------------------------------------------------------------------------ */

/** Number of differences; each is printed when `print` is set. */
unsigned compare_results(const struct diff_case *c, const struct diff_result *want,
                         const struct diff_result *got, bool print);
void print_case(const struct diff_case *c);

#endif
