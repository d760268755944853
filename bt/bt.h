/*
 * The binary translator: guest instructions to host code, and the ways in and out of it.
 * bt/README.md tells the design, bt/xlate_table.c the register assignment.
 */
#ifndef BT_BT_H
#define BT_BT_H

#include "base/cpu.h"
#include "decoder/decoder.h"
#include "mmu/mmu.h"
#include "platform/platform.h"

enum bt_mem_form { MEM_CHECKED, MEM_WINDOW, MEM_ADAPTIVE };

/** How translations are kept coherent with guest code that changes. */
enum bt_coherency {
    COHERENCY_TRACE, /* a store drops the CCFs whose bytes it hits                              */
    COHERENCY_CHECK, /* a page that is written is traced no more: its CCFs compare before they run   */
    COHERENCY_PATCH, /* the same, but for what it leaves as it was, and constants, which are patched */
    COHERENCY_RETRANSLATE, /* an instruction that changes becomes a CCF of its own, made anew alone */
    COHERENCY_ADAPTIVE, /* each page what suits it: policy.c                                        */
};

/** What `-accel bt,...` can set. */
struct bt_options {
    size_t tc_bytes;          /* tc-size=, default 32 MiB                               */
    bool chain;               /* chain=on|off                                           */
    enum bt_mem_form mem;     /* mem=checked|window|adaptive                            */
    unsigned max_insns;       /* tu-insns=, most instructions of a TU, 1..CCF_MAX_INSNS   */
    bool verify;              /* verify=on|off: check every CCF's bytes                 */
    bool icount;              /* clock=insn                                             */
    bool callouts_only;       /* inline=off: every system instruction is a callout        */
    enum bt_coherency coherency; /* coherency=                                          */
    bool user_direct;         /* user=direct: user code is entered by the dispatcher alone */
    bool reuse;               /* reuse=on|off: CCFs copied to other EIPs                */
};

struct ccf;

/** Why there is an event in the coherency log. */
enum coherency_cause {
    CAUSE_STORE,  /* the processor wrote to a traced page: an instruction, a frame, a bit of a page table    */
    CAUSE_DEVICE, /* a device or the loader did                                                      */
    CAUSE_STALE,  /* a CCF was about to run whose bytes are no longer what it was made from (check)        */
    CAUSE_MOVED,  /* other memory is at the address from now on                                      */
    CAUSE_POLICY, /* the page's policy has changed (adaptive)                                        */
    CAUSE_COUNT
};

/** One event of it. Numbers of CCFs stop at 65,535. */
struct coherency_event {
    uint64_t ns;    /* VM time                                                              */
    uint64_t pa;    /* of the first byte                                                    */
    uint32_t eip;   /* of the instruction that wrote; CAUSE_STALE: of what was to run        */
    uint16_t len;   /* bytes                                                                */
    uint8_t cause;  /* enum coherency_cause                                                 */
    uint8_t policy; /* enum bt_coherency: the page's, after the event                        */
    uint16_t dropped, patched, parked, unchanged; /* CCFs with bytes there, by what became of them */
};

#define COHERENCY_EVENTS 32768u

/** Events on their way to a file. Translated code is left when it is half full. */
struct coherency_log {
    void *ctx;
    uint64_t (*now_ns)(void *ctx);
    enum coherency_cause writer; /* CAUSE_STORE; CAUSE_DEVICE while a device writes            */
    uint32_t count;
    uint64_t lost;               /* for lack of room, since it was emptied last                */
    struct coherency_event event[COHERENCY_EVENTS];
};

/** What became of a guest instruction. */
enum bt_how {
    BT_IDENT,   /* copied as it is, operands re-addressed     */
    BT_LOWERED, /* other instructions do the same             */
    BT_CALLOUT, /* a C function does it, or raises a fault     */
};

/** Segment checks for accesses whose segment is not flat; supplied by monitor. */
struct bt_ops {
    void *ctx;
    enum x86_rc (*segment_linear)(struct vcpu *cpu, enum seg_id seg, uint32_t off, unsigned size,
                                  unsigned access, gva_t *va);
    callout_fn *const *callouts;  /* [CALLOUT_COUNT] */
    uint32_t features;            /* 1 << enum insn_feature that the CPU model has */
    /** Code at `va` is about to run, in a page given to bt_break_pages: X86_OK, or X86_FAULT with #DB. */
    enum x86_rc (*check_breakpoint)(struct vcpu *cpu, gva_t va);
    /** A CCF was made; for listings. May be NULL. */
    void (*translated)(void *ctx, struct vcpu *cpu, const struct ccf *ccf);
    struct coherency_log *coherency_log; /* NULL: not asked for; the caller's, who empties it */
};

/** @return NULL when memory can't be had. Creates cpu->bt and cpu->tc. */
struct bt *bt_new(struct vcpu *cpu, const struct bt_options *options, const struct host_features *host,
                  const struct bt_ops *ops);
void bt_free(struct bt *bt);

/**
 * Run translated code from cpu->eip until something needs the monitor.
 * Finds or makes the CCF. A fetch fault comes back as EXIT_FAULT.
 */
enum exit_reason bt_run(struct vcpu *cpu);

/** Translated code was interrupted by a host signal at cpu->host_rip: set cpu->eip to the guest
 *  instruction. false when host_rip is not in the TC. */
bool bt_locate(struct vcpu *cpu);

/** The TC's executable range, for signal handlers. */
bool bt_contains(const struct bt *bt, uint64_t host_rip);

/** Note where the sampling timer found translated code (cpu->sample_rip): hot code and address
 *  spaces that compute move to the window form. Called by the monitor between runs. */
void bt_sample(struct vcpu *cpu);
/** Does anything count samples? mem=adaptive does, and coherency policies that change their mind. */
bool bt_wants_samples(const struct bt *bt);

/** Select a window for user code that the processor runs itself, after its losses are carried out. false: none can be
 *  had. */
bool bt_direct_window(struct vcpu *cpu);

/** Where a handler sends RIP after a host signal in translated code: leaves with EXIT_HOST. */
uint64_t bt_signal_stub(const struct bt *bt);
/** Fetch mappings died (mmu_ops): jump tables and shadow return stacks follow. */
void bt_fetch_dropped_all(struct vcpu *cpu, enum mmu_view_id view, bool keep_global);
void bt_fetch_dropped_range(struct vcpu *cpu, enum mmu_view_id view, gva_t va, uint32_t bytes);

#define BT_BREAK_MAX 4u
/**
 * From now on code in these VA pages, and in no others, runs one instruction at a time, each after
 * a call of check_breakpoint. The caller leaves translated code at once.
 *
 * @param vpn  VA page numbers; the same one may occur twice.
 */
void bt_break_pages(struct vcpu *cpu, const uint32_t *vpn, unsigned n);

/** Translated code that is in a callout or in a slow access leaves when the present instruction is done. */
void bt_leave_after_insn(struct vcpu *cpu);

/** The guest wrote [pa, pa+len), RAM: what was made from it follows. */
void bt_code_written(struct vcpu *cpu, gpa_t pa, uint32_t len);

/** Something else is at [pa, pa+len) from now on: drop what was made from what was there. */
void bt_code_moved(struct vcpu *cpu, gpa_t pa, uint32_t len);

/** Drop all translations. */
void bt_flush(struct vcpu *cpu);

/** Cut the shadow return stack: equal EIPs could mean another address space or ring. */
void bt_cut_returns(struct vcpu *cpu);

/**
 * Find or make the CCF at cpu->eip without running it, for `ringdown explain` and tests.
 *
 * @param max_insns  Most instructions of it, should it have to be made.
 * @return X86_OK with *out, good until the next translation; X86_FAULT when the first byte can't
 *         be fetched.
 */
enum x86_rc bt_translate_at(struct vcpu *cpu, unsigned max_insns, struct ccf **out);

#endif
