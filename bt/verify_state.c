/*
 * Abstract values of the verifier: linear forms, meets, and the promise that holds at every
 * label. See verify_state.h for the idea.
 *
 * Invariant: a symbol is never reused for another value, so equal forms mean equal values
 * wherever they come from.
 */
#include "bt/verify_state.h"

#define TWELVE 12u

bool vstate_is_guest_reg(unsigned reg)
{
    static const uint16_t mask = 1u << H_RAX | 1u << H_RDX | 1u << H_RBX | 1u << H_RBP | 1u << H_RSI |
                                 1u << H_RDI | 1u << H_R12 | 1u << H_R13;
    return reg < 16 && (mask >> reg & 1u);
}

struct value value_any(void)
{
    return (struct value){ .kind = VAL_ANY };
}

struct value value_const(uint32_t k)
{
    return (struct value){ .kind = VAL_U32, .bits = 32, .lin.k = k };
}

struct value value_fresh(uint32_t *next_symbol, unsigned bits)
{
    return (struct value){ .kind = VAL_U32, .bits = (uint8_t)bits, .lin.sym = { ++*next_symbol, 0 } };
}

bool value_is_u32(const struct value *v)
{
    return v->kind == VAL_U32 || v->kind == VAL_PAGE || v->kind == VAL_SLOT;
}

bool value_constant(const struct value *v, uint32_t *k)
{
    *k = v->lin.k;
    return v->kind == VAL_U32 && !v->lin.sym[0] && !v->lin.sym[1];
}

bool lin_same_terms(const struct lin *a, const struct lin *b)
{
    return a->sym[0] == b->sym[0] && a->sym[1] == b->sym[1] && a->scale[0] == b->scale[0] &&
           a->scale[1] == b->scale[1];
}

bool value_equal(const struct value *a, const struct value *b)
{
    return a->kind == b->kind && a->bits == b->bits && a->is_store == b->is_store &&
           a->checked == b->checked && a->is_exact == b->is_exact && a->span == b->span &&
           a->lin.k == b->lin.k && lin_same_terms(&a->lin, &b->lin);
}

static bool put_term(struct lin *l, uint32_t sym, unsigned scale)
{
    if (!sym || scale > 31)
        return true; /* shifted out */
    if (!l->sym[0]) {
        l->sym[0] = sym;
        l->scale[0] = (uint8_t)scale;
        return true;
    }
    if (l->sym[1])
        return false;
    l->sym[1] = sym;
    l->scale[1] = (uint8_t)scale;
    return true;
}

/* One order for the terms, so that a + b and b + a compare equal. */
static void sort_terms(struct lin *l)
{
    bool swap = l->sym[1] && (l->sym[0] > l->sym[1] || (l->sym[0] == l->sym[1] && l->scale[0] > l->scale[1]));
    if (!swap)
        return;
    struct lin was = *l;
    l->sym[0] = was.sym[1];
    l->scale[0] = was.scale[1];
    l->sym[1] = was.sym[0];
    l->scale[1] = was.scale[0];
}

bool lin_add(const struct lin *a, const struct lin *b, unsigned shift, uint32_t k, struct lin *out)
{
    struct lin sum = { .k = a->k + (b->k << shift) + k };

    for (unsigned i = 0; i < 2; i++)
        if (!put_term(&sum, a->sym[i], a->scale[i]))
            return false;
    for (unsigned i = 0; i < 2; i++)
        if (!put_term(&sum, b->sym[i], b->scale[i] + shift))
            return false;
    sort_terms(&sum);
    *out = sum;
    return true;
}

void vstate_reset(struct vstate *s, uint32_t *next_symbol)
{
    *s = (struct vstate){ .reachable = true };
    for (unsigned r = 0; r < 16; r++)
        s->reg[r] = vstate_is_guest_reg(r) ? value_fresh(next_symbol, 32) : value_any();
    s->reg[H_R11] = value_const(TWELVE);
}

const char *vstate_promise(const struct vstate *s)
{
    if (s->depth)
        return "the host stack is not balanced here";
    for (unsigned r = 0; r < 16; r++)
        if (vstate_is_guest_reg(r) && !value_is_u32(&s->reg[r]))
            return "a guest register is not zero-extended here";
    return NULL;
}

static void meet_value(struct value *into, const struct value *other, uint32_t *next_symbol)
{
    if (value_equal(into, other))
        return;
    if (value_is_u32(into) && value_is_u32(other))
        *into = value_fresh(next_symbol, 32);
    else
        *into = value_any();
}

void vstate_meet(struct vstate *into, const struct vstate *other, uint32_t *next_symbol)
{
    if (!into->reachable) {
        *into = *other;
        return;
    }
    for (unsigned r = 0; r < 16; r++)
        meet_value(&into->reg[r], &other->reg[r], next_symbol);
    for (unsigned i = 0; i < VERIFY_TMPS; i++)
        meet_value(&into->tmp[i], &other->tmp[i], next_symbol);
    for (unsigned i = 0; i < VERIFY_STACK; i++)
        meet_value(&into->stack[i], &other->stack[i], next_symbol);
}
