/*
 * The translation cache: where compiled code fragments (CCFs) live, how they are
 * found, chained, dropped and evicted.
 *
 * Memory is a fixed ring of regions. Hot code grows up from a region's start, cold
 * code (slow paths, exits) down from its end. When a region must be reused, every
 * CCF in it is dropped first: chains into it are undone, jump-table entries and
 * shadow return stacks are cut.
 *
 * A CCF is found by (PA of its first byte, EIP, CS base, mode). A per-page list
 * leads from a written PA to the CCFs made from it.
 */
#ifndef TCACHE_TCACHE_H
#define TCACHE_TCACHE_H

#include "base/cpu.h"

#define CCF_MAX_INSNS 64
#define CCF_MAX_LINKS 8   /* direct exits of one CCF */

/** One guest instruction of a CCF. */
struct ccf_insn {
    uint16_t guest_ofs;  /* from the CCF's first guest byte                          */
    uint16_t hot_ofs;    /* of its code, from ccf->hot                               */
    uint32_t cold_ofs;   /* of its slow path, from ccf->cold, or UINT32_MAX           */
};

/** A direct exit that can be chained: `jmp rel32` or `jcc rel32` or `call rel32`. */
struct ccf_link {
    uint32_t patch_ofs;  /* of the rel32, from ccf->hot                               */
    uint32_t cold_ofs;   /* of the continuation it goes to while unchained, from ccf->cold */
    uint32_t target_eip;
    bool poll;           /* backward: enters the target at its poll point             */
    struct ccf *to;      /* chained target or NULL                                    */
    struct ccf_link *next_in; /* list of links into `to`                              */
    struct ccf *owner;
};

struct ccf_key {
    uint64_t pa;
    uint32_t eip;
    uint32_t cs_base;
    uint32_t mode;
    uint32_t pad;  /* zero: the key is hashed as bytes */
};

struct ccf {
    struct ccf_key key;
    struct ccf *hash_next;
    struct ccf *page_next[2]; /* lists of the one or two pages its bytes lie in     */
    uint64_t pa2;             /* page of the bytes past the first page, or UINT64_MAX */
    uint16_t guest_len;       /* bytes                                               */
    uint16_t ninsns;
    uint8_t nlinks;
    bool live;
    uint8_t region;
    uint32_t hot_len, cold_len;
    const uint8_t *hot;       /* executable view: verify entry                        */
    const uint8_t *cold;
    uint16_t poll_ofs, body_ofs; /* entries, from hot; the verify entry is at verify_ofs */
    uint16_t verify_ofs;
    struct ccf_insn *insns;   /* [ninsns]                                            */
    struct ccf_link *links;   /* [nlinks]                                            */
    struct ccf_link *in;      /* links of others that are chained to this             */
};

struct tcache_config {
    size_t bytes;             /* of code memory, at least 64 KiB                      */
    bool chain;               /* chain direct exits                                   */
    const uint8_t *chain_stub, *jt_miss_stub;
};

struct tcache_ops {
    void *ctx;
    void (*trace_add)(void *ctx, gpa_t pa);     /* first CCF from this page           */
    void (*trace_remove)(void *ctx, gpa_t pa);  /* last CCF from this page is gone    */
};

/** @return NULL when memory can't be had. */
struct tcache *tcache_new(struct vcpu *cpu, const struct tcache_config *config,
                          const struct tcache_ops *ops);
void tcache_free(struct tcache *tc);

/* ---- making ------------------------------------------------------------------ */

/** Room for one CCF: write through rw pointers; `exec_delta` turns them into run addresses. */
struct tcache_room {
    uint8_t *hot, *hot_end;   /* RW view, grows up                                    */
    uint8_t *cold_lo, *cold;  /* RW view: cold code is written at [cold_lo, ..) then moved? no: see tcache.c */
    ptrdiff_t exec_delta;     /* run address = RW address + exec_delta                */
};

struct ccf *tcache_lookup(struct tcache *tc, const struct ccf_key *key);

/* ---- what tests and monitors ask ---------------------------------------------- */
/** The CCF whose code holds host address `rip`, or NULL. */
struct ccf *tcache_find_rip(struct tcache *tc, const uint8_t *rip);

/** Drop every CCF with a byte in [pa, pa+len). @return how many. */
unsigned tcache_invalidate(struct tcache *tc, gpa_t pa, uint32_t len);
/** Drop everything. */
void tcache_flush(struct tcache *tc);

/** Remove jump-table entries: fetch mappings died (see mmu_ops). */
void tcache_jt_drop_all(struct tcache *tc, unsigned view, bool keep_global);
void tcache_jt_drop_range(struct tcache *tc, unsigned view, gva_t va, uint32_t bytes);

unsigned tcache_audit(struct tcache *tc);

#endif
