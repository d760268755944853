/*
 * What a callout is given, and what it answers.
 *
 * Translated code that meets a sensitive instruction stores the instruction's
 * own EIP in vcpu->eip and the EIP after it in vcpu->next_eip, saves the general
 * registers and arithmetic flags in the vCPU (world.S) and calls the function.
 * The guest's x87 and SSE state stays live in the host's registers: a callout
 * uses general registers only (the engine is compiled that way).
 */
#ifndef BASE_CALLOUT_H
#define BASE_CALLOUT_H

#include "base/types.h"

struct vcpu;

enum callout_id {
#define CALLOUT(id, text) CALLOUT_##id,
#include "base/callout_list.h"
#undef CALLOUT
    CALLOUT_COUNT
};

/*
 * The instruction's operands, packed into one 64-bit immediate.
 *
 *  63 62 61 60 59 58 57  55 54  53  51 50  48 47      32 31           0
 * +-----+-----+-----+------+---+------+------+----------+--------------+
 * | rep |asize|osize| seg  |mem|  rm  | reg  |   imm2   |     imm      |
 * +-----+-----+-----+------+---+------+------+----------+--------------+
 * rep 0 none, 1 F3, 2 F2; asize, osize: log2 of bytes; seg: enum seg_id of the
 * memory operand; rm: register number when mem is 0; imm: immediate, offset of
 * a far pointer, vector, port; imm2: selector, nesting level of ENTER.
 * For a memory operand the callout's `ea` is the offset within `seg`.
 */
static inline uint32_t carg_imm(uint64_t a) { return (uint32_t)a; }
static inline uint16_t carg_imm2(uint64_t a) { return (uint16_t)(a >> 32); }
static inline unsigned carg_reg(uint64_t a) { return (unsigned)(a >> 48) & 7u; }
static inline unsigned carg_rm(uint64_t a) { return (unsigned)(a >> 51) & 7u; }
static inline bool carg_is_mem(uint64_t a) { return (a >> 54) & 1u; }
static inline unsigned carg_seg(uint64_t a) { return (unsigned)(a >> 55) & 7u; }
static inline unsigned carg_osize(uint64_t a) { return 1u << ((a >> 58) & 3u); } /* bytes */
static inline unsigned carg_asize(uint64_t a) { return 1u << ((a >> 60) & 3u); } /* bytes */
static inline unsigned carg_rep(uint64_t a) { return (unsigned)(a >> 62) & 3u; }

enum carg_rep { REP_NONE, REP_F3, REP_F2 };

/** Why control left the translation cache (or what a callout wants next). */
enum exit_reason {
    EXIT_RESUME,   /* callouts only: go on at the next instruction, inline         */
    EXIT_DISPATCH, /* vcpu->eip says where to go on; mode or mappings may differ    */
    EXIT_FAULT,    /* vcpu->fault holds an exception earned by the insn at eip      */
    EXIT_CHAIN,    /* an unchained direct exit: eip is the target, exit_arg the link */
    EXIT_LOOKUP,   /* an indirect transfer missed the jump table: eip is the target */
    EXIT_POLL,     /* vcpu->run was 0, or the insn at eip has to start again: nothing was done */
    EXIT_SHADOW,   /* run one instruction before any interrupt (STI, MOV SS: vcpu->debug_shadow) */
    EXIT_HALT,     /* HLT: wait for an interrupt; eip is after it                   */
    EXIT_HOST,     /* a host signal in translated code: vcpu->host_signal, host_rip */
    EXIT_UNSUPPORTED, /* the guest did something we lack; eip and bytes are reported */
    EXIT_WATCHED,  /* the insn at eip is about to meet a data breakpoint: nothing was done */
    EXIT_STOP,     /* the machine was told to stop                                  */
    EXIT_REASON_COUNT
};

/**
 * @param arg  Operands as above.
 * @param ea   Offset of the memory operand in its segment; undefined without one.
 * @return EXIT_RESUME, EXIT_DISPATCH (set vcpu->eip first; it is the insn's own
 *         EIP on entry), EXIT_FAULT, EXIT_SHADOW (eip set likewise), EXIT_HALT,
 *         EXIT_UNSUPPORTED.
 */
typedef enum exit_reason callout_fn(struct vcpu *cpu, uint64_t arg, uint32_t ea);

/** Name for listings and counters, such as "callout_popf". */
const char *callout_name(enum callout_id id);

#endif
