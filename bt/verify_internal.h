/*
 * What the parts of the verifier share: verify.c (the passes), verify_access.c (operands),
 * verify_control.c (edges) and verify_rules.c (the table of rules).
 */
#ifndef BT_VERIFY_INTERNAL_H
#define BT_VERIFY_INTERNAL_H

#include <Zydis/Decoder.h>

#include "base/cpu.h"
#include "bt/bt_internal.h"
#include "bt/verify.h"
#include "bt/verify_state.h"

#define MAX_BYTES   65536u
#define MAX_PENDING 96u
#define NO_OFS      UINT32_MAX

/* Per byte of the CCF. */
#define MARK_START 1u /* an instruction starts here  */
#define MARK_PLAIN 2u /* only the promise holds here */
#define MARK_CONST 4u /* a constant that may be patched starts here */

/* What later edges to a label agree on. */
struct pending_label {
    uint32_t ofs;
    struct vstate state;
};

struct verify_work {
    const struct verify_input *in;
    struct verify_error *err;
    uint32_t next_symbol;
    struct vstate state;
    struct pending_label pending[MAX_PENDING];
    uint8_t mark[MAX_BYTES];
};

/* The instruction at hand. */
struct host_insn {
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t ofs, next; /* hot offsets, then cold ones                             */
    uint64_t address;   /* of the next instruction, for relative branches          */
    bool imm_varies;    /* its immediate may be patched                            */
    bool disp_varies;   /* its displacement may be                                 */
};

/* The instruction at hand cannot be proven, for this reason. */
static inline bool bad(struct verify_work *v, const char *reason)
{
    v->err->reason = reason;
    return false;
}

static inline bool is_read(const ZydisDecodedOperand *op)
{
    return (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
}

static inline bool is_written(const ZydisDecodedOperand *op)
{
    return (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

/* Where a direct branch or call goes. */
static inline uint64_t branch_target(const struct host_insn *h)
{
    return h->address + (uint64_t)h->ops[0].imm.value.s;
}

/* ---- verify_access.c --------------------------------------------------------------------- */

enum field_use { USE_READ = 1, USE_WRITE = 2, USE_JMP = 4, USE_CALL = 8 };

/** May translated code use [vcpu + disp, + bytes) so (enum field_use)? */
bool verify_vcpu_use_is_allowed(int64_t disp, uint32_t bytes, unsigned use);

/** Number of the 64-bit register that contains reg, -1 when it is none of the sixteen. */
int verify_gpr_number(ZydisRegister reg);

/** What a register contributes to a 64-bit address; NULL when it is absent or no such register. */
const struct value *verify_address_reg(const struct vstate *s, ZydisRegister reg);

/** Guest memory by [addend + address + disp]: is [operand, operand + bytes) within the check? */
bool verify_addend_covers(const struct value *addend, const struct value *address, int64_t disp,
                          uint32_t bytes);

/** May the instruction name this register, this memory, all its operands? */
bool verify_check_reg(struct verify_work *v, ZydisRegister reg, bool writes);
bool verify_check_memory(struct verify_work *v, const struct host_insn *h, const ZydisDecodedOperand *op,
                         uint32_t bytes, bool reads, bool writes);
bool verify_check_operands(struct verify_work *v, const struct host_insn *h);

/** The register now holds `value`. */
void verify_set_reg(struct verify_work *v, unsigned r, struct value value);
/** An instruction wrote `bits` of the register in a way that no rule describes. */
void verify_clobber_reg(struct verify_work *v, unsigned r, unsigned bits, bool only_maybe);
void verify_note_vcpu_store(struct verify_work *v, int64_t disp, uint32_t bytes, struct value value);
struct value verify_load_vcpu(const struct verify_work *v, int64_t disp);

/** mov rcx, [r14 + r9*8 + table]: a slot of the load or store table, or of the jump table. */
bool verify_load_view_slot(struct verify_work *v, const ZydisDecodedOperand *mem, struct value *out);

/* ---- verify_control.c -------------------------------------------------------------------- */

/** The state keeps what every label promises. */
bool verify_keep_promise(struct verify_work *v);
/** Hot or cold offset of an address, NO_OFS when it is outside. */
uint32_t verify_inside(const struct verify_input *in, uint64_t address);
/** The label at `ofs`, or a free one for NO_OFS; NULL when there is none. */
struct pending_label *verify_find_pending(struct verify_work *v, uint32_t ofs);

typedef bool rule_fn(struct verify_work *v, const struct host_insn *h);

rule_fn verify_rule_jcc, verify_rule_jrcxz, verify_rule_jmp, verify_rule_call, verify_rule_ret,
    verify_rule_ud2;

/* ---- verify_rules.c ---------------------------------------------------------------------- */

/** What the instruction does to the state; NULL: translated code must not contain it. */
rule_fn *verify_rule_of(const struct host_insn *h);

#endif
