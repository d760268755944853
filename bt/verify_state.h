/*
 * What the verifier knows of each host register at a point of the code.
 *
 * A 32-bit value is a *linear form*, a sum of at most two scaled symbols and a constant,
 * modulo 2^32. A symbol stands for whatever a register held at some point. That is just
 * enough to see that the page of [EA], the page of [EA + size - 1] and the operand of the
 * access belong to one address, whatever registers the translator chose.
 */
#ifndef BT_VERIFY_STATE_H
#define BT_VERIFY_STATE_H

#include "bt/emit.h"

struct lin {
    uint32_t sym[2];  /* 0: no term */
    uint8_t scale[2]; /* log2 */
    uint32_t k;
};

enum value_kind {
    VAL_ANY,    /* nothing known: 64 bits                                               */
    VAL_U32,    /* zero-extended, equal to lin, less than 1 << bits                     */
    VAL_PAGE,   /* lin >> 12                                                            */
    VAL_SLOT,   /* page of lin + page of (lin + span)                                   */
    VAL_ADDEND, /* of a lookup for [lin, lin + span]; may be 0 until `checked`           */
    VAL_PTR,    /* host address of memory that may be accessed for span + 1 bytes         */
    VAL_CODE,   /* from the jump table                                                  */
};

struct value {
    uint8_t kind, bits;
    bool is_store, checked;
    bool is_exact; /* addend of the slow path: the access may wrap, so it fits lin alone  */
    uint32_t span; /* bytes less 1 */
    struct lin lin;
};

#define VERIFY_STACK 4u
#define VERIFY_TMPS  4u

struct vstate {
    bool reachable;
    uint8_t depth; /* quadwords pushed */
    struct value reg[16];
    struct value tmp[VERIFY_TMPS]; /* vcpu->tmp[] */
    struct value stack[VERIFY_STACK];
};

/** Registers that hold guest registers between instructions. */
bool vstate_is_guest_reg(unsigned reg);

struct value value_any(void);
struct value value_const(uint32_t k);
struct value value_fresh(uint32_t *next_symbol, unsigned bits);
bool value_is_u32(const struct value *v); /* known to be zero-extended */
bool value_equal(const struct value *a, const struct value *b);
bool value_constant(const struct value *v, uint32_t *k);

/** a + (b << shift) + k; false when it has too many terms. */
bool lin_add(const struct lin *a, const struct lin *b, unsigned shift, uint32_t k, struct lin *out);
bool lin_same_terms(const struct lin *a, const struct lin *b);

/** Nothing known but what every label promises. */
void vstate_reset(struct vstate *s, uint32_t *next_symbol);
/** Does the state keep that promise? NULL, or what is wrong. */
const char *vstate_promise(const struct vstate *s);
/** Keep what both agree on. */
void vstate_meet(struct vstate *into, const struct vstate *other, uint32_t *next_symbol);

#endif
