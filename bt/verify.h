/*
 * The verifier: proves from emitted bytes alone that a CCF cannot leave its sandbox.
 *
 * What it proves of every instruction that control can reach:
 *  - it is one of an allowed set: no system, privileged, far or segment-loading instruction;
 *  - a memory operand is a field of struct vcpu that translated code may use in that
 *    direction, a slot of the view's tables, or guest memory under a check that covers it:
 *    the table lookup of bt/idiom.c or the call of stub_mem_slow, for loads or for stores;
 *  - a direct branch lands on an instruction of the CCF or where the caller permits; an
 *    indirect one goes through the jump table, a stub, or the shadow return stack;
 *  - at every way out and every label that is not proven otherwise, the registers that hold
 *    guest registers are zero-extended, the pinned ones untouched and the stack balanced.
 * Not its business: whether the code does what the guest asked for.
 */
#ifndef BT_VERIFY_H
#define BT_VERIFY_H

#include "base/types.h"

struct verify_work;

/** An immediate that may be patched to any other value: `len` bytes at `ofs` of the hot or cold part. */
struct verify_const {
    uint32_t ofs, len;
    bool is_cold;
};

struct verify_input {
    const uint8_t *hot, *cold; /* the bytes, in any mapping; cold may be empty       */
    uint32_t hot_len, cold_len;
    uint64_t hot_address, cold_address; /* where they run                             */
    const uint32_t *entries;            /* hot offsets that other code enters at, besides 0     */
    unsigned nentries;
    /** May a direct branch or call go to this address outside the CCF? */
    bool (*is_target)(void *ctx, uint64_t address);
    void *ctx;
    const struct verify_const *consts; /* the proof holds whatever their values are       */
    unsigned nconsts;
    const uint8_t *source[2]; /* guest memory that it may load from, at these host addresses  */
    uint32_t source_len[2];
    bool allow_window;        /* operands in the window are proven by it: 32-bit addresses with gs:, */
    bool linear_window;       /* or, where the window is at address 0, with a segment of base 0 */
    struct verify_work *work; /* verify_work_bytes() of memory; contents don't matter  */
};

struct verify_error {
    const char *reason;
    bool in_cold;
    uint32_t ofs; /* of the instruction, in its part */
};

size_t verify_work_bytes(void);

/** @return false with *err filled on the first instruction that cannot be proven. */
bool verify_ccf(const struct verify_input *in, struct verify_error *err);

#endif
