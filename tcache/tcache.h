/*
 * The translation cache: where compiled code fragments (CCFs) live, how they are
 * found, chained, dropped and evicted.
 *
 * Memory is a ring of regions of equal size. Each has a hot part (straight code), a cold
 * part (slow paths, continuations) and an arena for the records of its CCFs, so that
 * evicting a region frees everything at once. Eviction is first in, first out: when the
 * ring comes round, every CCF of the oldest region is dropped first.
 *
 * A CCF is found by (PA of its first byte, EIP, CS base and limit, mode). A per-page list leads from
 * a written PA to the CCFs made from it.
 *
 * The *jump table* of a view leads from the low 16 bits of an EIP to the verify entry of a
 * CCF, which checks the whole EIP. It holds only what is valid under the view's present
 * fetch mappings; an unused slot holds the miss stub.
 *
 * Invariants:
 *  - a live CCF is in the hash (a version: behind its gate), in the list of each page its bytes touch, and
 *    those pages are traced unless it is a gate;
 *  - a dead CCF is in none of them, nothing is chained to it and no jump table slot or
 *    shadow return stack leads to it (the monitor cuts the stacks when `generation` moves);
 *    its code stays in place until its region is evicted, since it may be running;
 *  - a link is patched to its target's entry exactly while link->to is set.
 */
#ifndef TCACHE_TCACHE_H
#define TCACHE_TCACHE_H

#include "base/cpu.h"

#define CCF_MAX_INSNS 64
#define CCF_MAX_LINKS 24 /* direct exits of one CCF */

/** One guest instruction of a CCF. */
struct ccf_insn {
    uint16_t guest_ofs; /* from the CCF's first guest byte                              */
    uint8_t how;        /* enum bt_how: for listings                                    */
    uint8_t callout;    /* enum callout_id it calls, CALLOUT_COUNT when none            */
    uint32_t hot_ofs;   /* of its code, from ccf->hot                                   */
    uint32_t cold_ofs;  /* of its slow path, from ccf->cold; where none, of the next one */
};

/** A direct exit that can be chained: the rel32 of a jmp, jcc or call in the hot part. */
struct ccf_link {
    uint32_t patch_ofs;       /* of the rel32, from ccf->hot                              */
    uint32_t unchained_ofs;   /* the continuation that asks the dispatcher, from ccf->cold */
    uint32_t table_ofs;       /* the continuation through the jump table, from ccf->cold  */
    uint32_t target_eip;
    bool poll;                /* backward: enter the target at its poll point             */
    bool by_table;            /* patched to table_ofs for good                            */
    bool is_far;              /* chained to another page: good while that is mapped as it is */
    struct ccf *to;           /* chained target or NULL                                   */
    struct ccf_link *next_in, **in_at;   /* in the list of links into `to`                */
    struct ccf_link *next_far, **far_at; /* in the list of far links by target page       */
    struct ccf *owner;
};

#define CCF_MAX_CONSTS 64
#define CCF_MAX_BYTES  (CCF_MAX_INSNS * 15)

/** A constant of a guest instruction that its code holds as it stands: should the guest change it, the
 *  code can be patched. One for each place that holds it. */
struct ccf_const {
    uint16_t guest_ofs; /* from the CCF's first guest byte       */
    uint8_t len;        /* bytes                                 */
    uint8_t host_len;   /* of its place; where more, the sign is extended */
    bool is_cold;
    uint32_t host_ofs;  /* from ccf->cold or ccf->hot            */
};

/** A place in a CCF's code that holds what depends on where the CCF lies or on its EIP: PLACE_* in the upper
 *  bits, above PLACE_COLD and the offset of four bytes in that part. */
#define PLACE_SHIFT    28
#define PLACE_COLD     (1u << 27)
#define PLACE_OFS_MASK (PLACE_COLD - 1)
enum place_kind {
    PLACE_EIP,     /* an EIP                                             */
    PLACE_NEG_EIP, /* an EIP, negated                                    */
    PLACE_SLOT,    /* offset of an EIP's slot in the jump table           */
    PLACE_HANDLE,  /* handle of the next link: they come in their order   */
    PLACE_BRANCH,  /* displacement of a branch to the other part          */
};
#define CCF_MAX_PLACES 320

struct ccf_key {
    uint64_t pa;
    uint32_t eip;
    uint32_t cs_base;
    uint32_t mode;
    uint32_t cs_limit; /* 0 where CS is flat. The key is hashed as bytes: no padding */
};

#define CCF_ONE_PAGE UINT64_MAX

/** A CCF's place in the list of a page that holds bytes of it, as mapped at one VA. */
struct ccf_in_page {
    struct code_mapping *mapping; /* NULL: in no list */
    struct ccf *next, **at;
};

struct ccf {
    struct ccf_key key;
    struct ccf *hash_next;
    struct ccf_in_page page[2]; /* first and second page                                 */
    uint64_t pfn2;            /* page of the bytes beyond the first page, or CCF_ONE_PAGE */
    uint16_t guest_len;       /* bytes                                                    */
    uint16_t ninsns;
    uint8_t nlinks;
    uint8_t region;
    bool live;
    uint32_t hot_len, cold_len;
    uint32_t tail_ofs;        /* from hot: where the last instruction's own code ends     */
    const uint8_t *hot, *cold; /* executable view                                         */
    uint16_t verify_ofs, poll_ofs, body_ofs; /* entries, from hot                         */
    struct ccf_insn *insns;   /* [ninsns]                                                 */
    struct ccf_link *links;   /* [nlinks]                                                 */
    struct ccf_const *consts; /* [nconsts]                                                */
    uint32_t *places;         /* [nplaces], none if it can't be copied to another EIP      */
    uint16_t nplaces;
    bool uses_window;
    uint8_t *source;          /* [guest_len] the bytes it was made from, or NULL: never patched */
    uint8_t nconsts;
    bool is_gate, is_parked;
    struct ccf *gate;         /* a version's: nothing else leads to it                    */
    struct ccf *versions;     /* a gate's, latest first; a version's: the next one        */
    struct ccf_link *in;      /* links chained to this                                    */
    uint32_t heat;            /* samples that found it running                            */
    uint32_t misses;          /* of a window                                              */
};

struct tcache_config {
    size_t bytes;                 /* of code memory; at least TCACHE_MIN_BYTES              */
    const uint8_t *jt_miss_stub;  /* what unused jump-table slots hold                     */
    uint8_t *jump_table[2];       /* of the supervisor and the user view                   */
    void *ctx;
    void (*trace_add)(void *ctx, gpa_t pa);    /* first CCF from this page; gates do not count */
    void (*trace_remove)(void *ctx, gpa_t pa); /* last CCF from this page is gone          */
    /** Instruction `insn` of the CCF was changed by a store: the CCF is dropped, or parked. May be NULL. */
    void (*changed)(void *ctx, const struct ccf *ccf, unsigned insn);
    /** The CCF is one for another EIP now (tcache_move_page); chains may not be mended yet. May be NULL. */
    void (*moved)(void *ctx, const struct ccf *ccf);
};
#define TCACHE_MIN_BYTES (128u << 10)

/** Why CCFs are dropped, for the counters. */
enum tcache_cause { DROP_WRITE, DROP_SELF, DROP_DMA, DROP_EVICT };

/** @return NULL when memory can't be had. */
struct tcache *tcache_new(struct vcpu *cpu, const struct tcache_config *config);
void tcache_free(struct tcache *tc);

/* ---- making ------------------------------------------------------------------------- */

/** Room of the present region, RW view. Run address = RW address + exec_delta. */
struct tcache_room {
    uint8_t *hot, *hot_end;
    uint8_t *cold, *cold_end;
    ptrdiff_t exec_delta;
    bool is_fresh; /* the region is empty: there is no larger room to be had */
};
void tcache_room(struct tcache *tc, struct tcache_room *room);
/** Go on to the next region of the ring, evicting what is there. */
void tcache_next_region(struct tcache *tc);

/** What the translator made, to be copied into the cache's records. */
struct ccf_draft {
    struct ccf_key key;
    uint64_t pfn2;
    uint32_t guest_len;
    uint32_t hot_len, cold_len, tail_ofs;
    uint16_t verify_ofs, poll_ofs, body_ofs;
    unsigned ninsns, nlinks;
    struct ccf_insn insns[CCF_MAX_INSNS];
    struct ccf_link links[CCF_MAX_LINKS];
    bool has_source;          /* it may be patched                                        */
    unsigned nconsts;
    bool is_gate;             /* it has no instruction, and one link                      */
    struct ccf *gate;         /* it is a version of the instruction there, or NULL        */
    struct ccf_const consts[CCF_MAX_CONSTS];
    uint8_t source[CCF_MAX_BYTES];
    bool uses_window;         /* window form                                              */
    unsigned nplaces;         /* 0: it is good for its EIP alone                           */
    uint32_t places[CCF_MAX_PLACES];
};
/** Record the code just written at the start of the room. NULL when the region's arena is
 *  full: take the next region and translate again. */
struct ccf *tcache_commit(struct tcache *tc, const struct ccf_draft *draft);
/** Handle by which emitted code names a link of the CCF that will be committed next. */
uint32_t tcache_next_link_handle(struct tcache *tc, unsigned index);
struct ccf_link *tcache_link(struct tcache *tc, uint32_t handle);

/* ---- finding ------------------------------------------------------------------------- */
struct ccf *tcache_lookup(struct tcache *tc, const struct ccf_key *key) __attribute__((nonnull));
/** A CCF of the same PA and mode for another EIP, of which a copy can be made; or NULL. */
struct ccf *tcache_twin(struct tcache *tc, const struct ccf_key *key) __attribute__((nonnull));
/** false: no CCF starts at this PA. A cheap first question; true may be wrong. */
bool tcache_may_start_at(const struct tcache *tc, gpa_t pa);
/** The CCF whose code holds host address `rip`, or NULL. */
struct ccf *tcache_find_rip(struct tcache *tc, const uint8_t *rip);
/** Index of the instruction whose code holds `rip`. */
unsigned ccf_insn_at(const struct ccf *ccf, const uint8_t *rip);
/** The executable range of the whole cache. */
void tcache_range(const struct tcache *tc, const uint8_t **lo, const uint8_t **hi);

/* ---- for another EIP: move.c ------------------------------------------------------------ */

/** A copy of a CCF's code, or the code itself, about to be made good for another EIP. */
struct ccf_code {
    uint8_t *hot, *cold;      /* RW view                                                   */
    uint32_t delta;           /* new EIP minus old, whole pages                            */
    bool is_copy;             /* for the CCF that is committed next: then                   */
    uint32_t apart;           /* so much farther are its parts apart                      */
};
void tcache_change_places(struct tcache *tc, const struct ccf_code *code, const uint32_t *places, unsigned nplaces);
/** Would a target of the CCF wrap if its EIP were `delta` more? Then it would not keep its distance. */
bool ccf_targets_wrap(const struct ccf *ccf, uint32_t delta);
/**
 * The page of `key` is run at a VA page of the present address space. If the cache has its CCFs as run at another
 * one in the same address space, where it was not asked for them since the last CR3 load, the program that ran
 * them is most likely gone: those with places are moved, and are CCFs for the new VA.
 *
 * @return how many were moved.
 */
unsigned tcache_move_page(struct tcache *tc, const struct ccf_key *key) __attribute__((nonnull));

/* ---- chaining ------------------------------------------------------------------------- */
void tcache_chain(struct tcache *tc, struct ccf_link *link, struct ccf *to);
/** The same between pages. The caller vouches that `to` is fetched through a mapping that all
 *  address spaces share, and calls tcache_unchain_far when it ends. */
void tcache_chain_far(struct tcache *tc, struct ccf_link *link, struct ccf *to);
/** Undo the chains between pages whose target EIP lies in [va, va + bytes) (flat code). */
void tcache_unchain_far(struct tcache *tc, gva_t va, uint64_t bytes);
/** Send a link through the jump table from now on (its target may not be chained to). */
void tcache_chain_by_table(struct tcache *tc, struct ccf_link *link);

/* ---- gates (coherency=retranslate): gate.c -------------------------------------------- */
/** The gate has no present version (its link leads nowhere). Put back the one that was made of the bytes that are
 *  at its address now, if there is one among those it had. @param avail  how many bytes `now` has.
 *  @return NULL: one has to be made, and committed with draft.gate. */
struct ccf *tcache_gate_open(struct tcache *tc, struct ccf *gate, const uint8_t *now, uint32_t avail);

/* ---- dropping ------------------------------------------------------------------------- */
/** Drop every CCF with a byte in [pa, pa+len), which must not cross a page. @return how many. */
unsigned tcache_invalidate(struct tcache *tc, gpa_t pa, uint32_t len, enum tcache_cause cause);
/**
 * The guest wrote [pa, pa+len), which must not cross a page. CCFs whose bytes are as they were stay; those
 * in which only constants changed are patched, if they were made for it; versions of an instruction are parked,
 * so that their gate asks for another; the others with a byte there are dropped.
 *
 * @param now  The bytes of that range as they are now; NULL: whatever has a byte there is dropped.
 * @return how many CCFs have bytes there (or had).
 */
unsigned tcache_written(struct tcache *tc, gpa_t pa, const uint8_t *now, uint32_t len, enum tcache_cause cause);
void tcache_drop(struct tcache *tc, struct ccf *ccf, enum tcache_cause cause);
/** Drop everything. */
void tcache_flush(struct tcache *tc);
/** Moves whenever a CCF is dropped: whoever holds CCF pointers or return addresses compares. */
uint64_t tcache_generation(const struct tcache *tc);

/* ---- jump tables ------------------------------------------------------------------------ */
void tcache_jt_fill(struct tcache *tc, unsigned view, struct ccf *ccf, bool is_global);
/** The page `pfn` was found at VA page `vpn` of the view: fill the jump table with all the CCFs of
 *  `mode` that start there, unless that was done since the last drop. After a CR3 load most
 *  programs run on through the pages that they ran through before. */
void tcache_jt_warm(struct tcache *tc, unsigned view, uint32_t vpn, uint64_t pfn, uint32_t mode, bool is_global);
/** Does nothing stand in the slot of this EIP? If another EIP's CCF does, the page has not been dropped: the two compete
 *  for the slot, and filling the page again would be in vain. */
bool tcache_jt_is_empty(const struct tcache *tc, unsigned view, uint32_t eip);
void tcache_jt_drop_all(struct tcache *tc, unsigned view, bool keep_global);
void tcache_jt_drop_range(struct tcache *tc, unsigned view, gva_t va, uint32_t bytes);

/** Check the invariants above; -> number of violations. For tests and --audit. */
unsigned tcache_audit(struct tcache *tc);
/** Call fn for every live CCF (perf map, heat). */
void tcache_for_each(struct tcache *tc, void (*fn)(void *ctx, struct ccf *ccf), void *ctx);

#endif
