/*
 * Address spaces as distinct types, small integer helpers and the result code
 * that every guest-visible operation returns.
 *
 *   VA  gva_t   guest linear address, after segmentation
 *   PA  gpa_t   guest physical address (36 bits with PAE)
 *   MA  hva_t   where the host keeps that byte (an address in our own process)
 *   TC  tca_t   an address in the translation cache, executable view
 *
 * One-member structs cost nothing in a register and make walk(cpu, pa) a
 * compile error. Unwrap at the edge (shifts, masks, prints) only.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { uint32_t v; } gva_t;
typedef struct { uint64_t v; } gpa_t;
typedef struct { uint8_t *p; } hva_t;
typedef struct { const uint8_t *p; } tca_t;

#define GUEST_PAGE_SHIFT 12u
#define GUEST_PAGE_SIZE  4096u
#define GUEST_PAGE_MASK  4095u

static inline gva_t gva(uint32_t v) { return (gva_t){ v }; }
static inline gpa_t gpa(uint64_t v) { return (gpa_t){ v }; }

/** Add to a linear address; wraps at 4 GiB as the hardware does. */
static inline gva_t gva_add(gva_t a, uint32_t n) { return (gva_t){ a.v + n }; }
static inline uint32_t gva_page(gva_t a) { return a.v >> GUEST_PAGE_SHIFT; }
static inline uint64_t gpa_page(gpa_t a) { return a.v >> GUEST_PAGE_SHIFT; }

/** What became of an operation on behalf of the guest. */
enum x86_rc {
    X86_OK,          /* done, state updated                                        */
    X86_FAULT,       /* guest fault recorded in vcpu->fault; nothing else changed  */
    X86_RETRY,       /* shadow or trace changed under us; run the instruction again */
    X86_UNSUPPORTED, /* valid x86 that we lack; nothing changed                    */
};

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static inline uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }

#endif
