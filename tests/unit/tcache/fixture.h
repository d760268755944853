/*
 * A translation cache on its own: CCFs made of filler bytes and branches that never run,
 * a vCPU for the counters, and a record of which pages the cache asked to be traced.
 */
#ifndef TESTS_UNIT_TCACHE_FIXTURE_H
#define TESTS_UNIT_TCACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "tcache/tcache_internal.h"

#define FX_PAGES  64u /* guest pages that may hold code */
#define FX_MODE   (MODE_CODE32 | MODE_CS_FLAT)
#define FX_VERIFY 0u
#define FX_POLL   8u
#define FX_BODY   16u

struct tc_fixture {
    struct vcpu *cpu;
    struct tcache *tc;
    struct log log;
    uint8_t *jump_table[2];
    uint8_t miss_stub[16];
    int traced[FX_PAGES];  /* 1 while the cache wants the page traced */
    unsigned trace_errors; /* added twice, or removed without having been added */
};

/** What a test wants of a CCF. Zero means: one page, 16 bytes, no links, small. */
struct ccf_wish {
    uint64_t pa;
    uint32_t eip;
    uint32_t guest_len;
    bool two_pages;
    uint64_t pfn2;
    unsigned nlinks;
    uint32_t target[CCF_MAX_LINKS];
    bool poll[CCF_MAX_LINKS];
    uint32_t hot_bytes, cold_bytes; /* at least */
    unsigned ninsns;
    const uint8_t *source; /* guest_len bytes: it can be patched */
    unsigned nconsts;
    struct ccf_const consts[4];
    bool is_gate;     /* with one link */
    struct ccf *gate; /* whose version it is */
};

struct tc_fixture *tc_fixture_new(size_t bytes);
void tc_fixture_free(struct tc_fixture *fx);

/** Write the code and commit it, in the next region if this one is full. */
struct ccf *tc_make(struct tc_fixture *fx, const struct ccf_wish *wish);
/** The same in this region or not at all. */
struct ccf *tc_try_make(struct tc_fixture *fx, const struct ccf_wish *wish);

struct ccf_key tc_key(uint64_t pa, uint32_t eip);
struct ccf *tc_find(struct tc_fixture *fx, uint64_t pa, uint32_t eip);

/** Where the branch of a link leads as the bytes stand. */
const uint8_t *link_destination(const struct ccf_link *link);
const uint8_t *link_unchained(const struct ccf_link *link);

#endif
