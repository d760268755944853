/* What the files of bt/ share: the translator's state, its idioms and lowerings. */
#ifndef BT_BT_INTERNAL_H
#define BT_BT_INTERNAL_H

#include "bt/bt.h"
#include "bt/emit.h"
#include "mmu/mmu.h"
#include "tcache/tcache.h"

/* ---- register assignment (the reasons are in xlate_table.c) -------------------------- */
#define H_ESP  H_R12 /* guest ESP */
#define H_ECX  H_R13 /* guest ECX */
#define H_VIEW H_R14 /* tables of the current view */
#define H_VCPU H_R15
#define H_ADDR H_RCX /* scratch: addend of a checked access; the one register JRCXZ tests */
#define H_EA   H_R8  /* scratch: effective address, target EIP of an indirect transfer */
#define H_T1   H_R9
#define H_T2   H_R10
#define H_TWELVE H_R11 /* the constant 12, for SHRX */

extern const uint8_t guest_to_host[8];

/* ---- the translation of one TU --------------------------------------------------------- */

#define XL_MAX_PENDING 24

/** A JRCXZ whose 8-bit reach must be served by an island. */
struct pending_jump {
    uint8_t *at;
    uint8_t insn;
};

/** Where a guest memory operand is: segment and host expression of its offset. */
struct guest_ea {
    uint8_t seg;
    bool is_moffs_or_disp;  /* no register: the offset is disp */
    enum host_reg base, index;
    uint8_t scale_log2;
    uint32_t disp;
    uint8_t asize;
    bool disp_varies;       /* what is emitted must hold for any displacement: it can be patched */
};

/** x87 instructions in a row whose last-instruction pointers are not noted yet: x87.c. */
struct x87_run {
    bool is_open, has_mem;
    uint16_t fop;
    uint32_t eip;       /* of the last                                               */
    struct guest_ea ea; /* of the last with a memory operand                         */
};

struct xlate {
    struct bt *bt;
    struct vcpu *cpu;
    struct ccf_draft *d;
    struct emit hot, cold;
    struct emit *e;        /* the part being written                                    */
    bool is_cold;          /* this is the slow path of the instruction                  */
    uint32_t mode;
    uint32_t eip, next_eip;
    uint32_t page_eip;     /* EIP of the first byte of the TU's page                     */
    bool straddles;        /* the TU is one instruction that lies in two pages           */
    bool ends;             /* the instruction just translated ended the TU               */
    bool use_window;       /* accesses in the window form where it serves                */
    uint32_t stop_ofs;     /* the TU ends there, wherever a CCF begins; 0: where one begins   */
    bool no_window;        /* this instruction needs a plain host address                */
    const uint8_t *checked[2]; /* coherency=check: where its bytes lie, by page; NULL: nowhere */
    bool checks;           /* it gets a prelude                                          */
    bool patches;          /* it notes where its code holds constants                    */
    bool is_gate;          /* it is a gate: entries and a link                           */
    bool notes_places;     /* a copy of it may be made for another EIP: place.c              */
    bool has_many_consts;  /* more than are noted: none is patched                       */
    struct insn in;

    /* the present instruction */
    bool has_slow;         /* it has a slow path                                         */
    bool is_slow_only;     /* its fast path is just a jump to the slow one               */
    bool stores;           /* its slow path may leave a bounced store to complete        */
    bool has_target_in_ea; /* an indirect transfer: next EIP is in H_EA                  */
    uint8_t callout;       /* what it calls out to, CALLOUT_COUNT when nothing             */
    uint8_t *tail;         /* where its slow path joins the fast one before a transfer   */

    struct x87_run x87;

    struct pending_jump pending[XL_MAX_PENDING];
    unsigned npending;
    uint8_t *unresolved[XL_MAX_PENDING]; /* rel32 of islands of the present instruction   */
    unsigned nunresolved;
    uint8_t *cold_of[CCF_MAX_INSNS];     /* start of each instruction's slow path or NULL  */
};

struct world_stubs {
    void (*exit)(void), (*chain)(void), (*jt_miss)(void), (*callout)(void), (*mem_slow)(void),
        (*mem_done)(void), (*host_signal)(void);
    enum exit_reason (*enter)(struct vcpu *cpu, const uint8_t *code);
};

/* A TU whose accesses kept missing the window: checked for good (form.c). */
struct site {
    uint64_t pa;     /* of its first byte, plus 1 so that 0 is none                         */
    bool is_checked; /* for the time being                                                  */
    uint8_t times;   /* so often                                                            */
};
#define BT_SITES 8192u

/* How often the sampling timer found kernel code of a page running. */
struct hot_page {
    uint64_t pfn;
    uint32_t samples, since; /* since sample number `since`                               */
    bool use_window;
};
#define BT_HOT_PAGES 2048u

/* How often the sampling timer found user code of an address space running. */
struct space {
    uint32_t cr3;
    uint32_t samples; /* since it was met, or since its window was opened or given up   */
    uint32_t needed;  /* samples before it gets a window                                */
};
#define BT_SPACES 16u

/* coherency=adaptive: what a page's CCFs are made for, and what befell them. */
enum page_level { PAGE_TRACED, PAGE_PATCHED, PAGE_RETRANSLATED, PAGE_COMPARED };
struct page_policy {
    uint64_t pfn;
    enum page_level level;
    uint32_t ended;  /* CCFs that a store changed, since the level was entered or reviewed    */
    uint32_t made;   /* TUs translated when the last one was                                  */
    uint32_t score;  /* stores that hit none, or CCFs found stale                             */
    uint32_t since;  /* sample from which score counts                                        */
    uint8_t returns; /* times it was compared in vain                                         */
};
#define BT_POLICY_PAGES 1024u

/* Places where TUs are split, by PA, and how many a page has. */
#define BT_SPLITS      1024u
#define BT_SPLIT_PAGES 256u
struct split_page {
    uint64_t pfn;
    uint32_t n;
    bool is_given_up;
};

/* The host's signal number, as the platform stores it. */
#define HOST_SIGSEGV 11

#define SHADOW_STACK_BYTES 65536u
#define SHADOW_SENTINELS   64u

struct bt {
    struct vcpu *cpu;
    struct bt_options opt;
    struct host_features host;
    struct bt_ops ops;
    const struct world_stubs *stubs;
    /* One shadow return stack a view: a kernel return never sees a user program's landings. */
    uint8_t *stack[2];
    uint64_t stack_top[2], stack_rsp[2];
    unsigned view;          /* whose stack and tables are loaded                           */
    uint32_t view_mode[2];  /* mode under which the view's jump table was filled           */
    uint32_t code_base[2], code_limit[2]; /* code segment of the view's stack, when it is not flat */
    uint64_t generation;    /* of the cache, when the stacks were last known good          */
    uint32_t key_mode;      /* mode of the CCFs to be found: with MODE_WINDOW where it holds */
    uint32_t break_page[BT_BREAK_MAX]; /* VA pages with instruction breakpoints             */
    unsigned nbreaks;
    bool is_inside;         /* translated code runs, or C that it called                  */
    uint64_t gs_base;       /* what platform_window_select was last given                  */
    struct site site[BT_SITES]; /* direct mapped by PA                                     */
    struct hot_page hot_page[BT_HOT_PAGES];
    uint32_t nsamples;
    struct space space[BT_SPACES];
    unsigned next_space;
    uint64_t reserve_bytes;
    struct page_policy page_policy[BT_POLICY_PAGES]; /* direct mapped by PA page             */
    uint32_t policy_samples;
    uint8_t *check_page;    /* adaptive, check: bit n: page n is not traced, its CCFs compare */
    uint64_t check_page_bytes;
    uint32_t nchecked;      /* bits set                                                    */
    uint64_t split[BT_SPLITS]; /* PA plus 1 of an instruction that changed: split.c          */
    struct split_page split_page[BT_SPLIT_PAGES];
    uint32_t nsplits;       /* so many were noted                                          */
    struct verify_work *verify_work; /* verify=on */
    uint8_t *fresh;         /* verify=on: what a copied CCF has to be like                   */
    struct ccf_draft draft;
    struct xlate xl;
};

/* ---- run.c ---------------------------------------------------------------------------------- */
/** Bring stack, tables and mode of the present privilege in. */
void bt_sync_view(struct bt *bt);

/* ---- translate.c -------------------------------------------------------------------------- */
/** Make the CCF of key, or a version of the one instruction there, for `gate`.
 *  @return X86_RETRY when the gate was evicted; X86_FAULT when the instruction can't be fetched. */
enum x86_rc bt_translate(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf *gate, struct ccf **out);
/** Make a gate for the instruction at key. */
struct ccf *bt_translate_gate(struct bt *bt, const struct ccf_key *key);

/** Translate at most `len` bytes into `room`, wherever other CCFs begin, and leave it at the draft. */
enum x86_rc translate_bytes(struct bt *bt, const struct ccf_key *key, gva_t va, const struct tcache_room *room,
                            uint32_t len);
void verify_draft(struct bt *bt, const struct tcache_room *room);

/* ---- reuse.c: a CCF of the same bytes at another EIP ------------------------------------------- */
#define REUSE_FRESH_BYTES (256u << 10)
/** May CCFs of `key` be copied to other EIPs? */
bool reuse_is_possible(const struct bt *bt, const struct ccf_key *key);
/** Make the CCF of `key` of one for another EIP. false: there is none that would do. */
bool reuse_ccf(struct bt *bt, const struct ccf_key *key, gva_t va, struct ccf **out);
/** A CCF was moved (tcache_move_page): check it if verify=on, and report it. */
void reuse_moved(struct bt *bt, const struct ccf *ccf);

/* ---- place.c: what a copy has to change ----------------------------------------------------------- */
/** The last four bytes of `e` are of this kind. */
void place_note(struct xlate *x, const struct emit *e, enum place_kind kind);
/** The four bytes at `at` in `e` are. */
void place_note_at(struct xlate *x, const struct emit *e, const uint8_t *at, enum place_kind kind);
/** Something depends on EIP that can't be noted. */
void place_none(struct xlate *x);

/* ---- form.c: which form of memory access a CCF gets ---------------------------------------- */
/** Decide for the TU of `key`. */
bool form_use_window(struct bt *bt, const struct ccf_key *key);
/** Before user or kernel code runs: windows opened, selected and up to date. Sets bt->key_mode. */
void form_sync(struct bt *bt);
/** A host fault at cpu->host_addr in `ccf`. @return where to go on, or NULL when it is no miss
 *  of a window. */
const uint8_t *form_window_miss(struct bt *bt);

/* ---- idiom.c: each one says what it does to flags. None of these touches them unless said -- */
struct hmem vcpu_mem(size_t offset);

void idiom_ea_of_insn(const struct insn *in, struct guest_ea *ea);
struct guest_ea idiom_ea_stack(const struct xlate *x, int32_t disp);
struct guest_ea idiom_ea_reg(enum seg_id seg, enum host_reg base, uint8_t asize);

/** Offset of ea within its segment into `to` (a scratch register). */
void idiom_offset(struct xlate *x, const struct guest_ea *ea, enum host_reg to);

/**
 * Make ea accessible for `size` bytes. *m is then the host operand. Clobbers RCX, R8, R9, R10.
 * @return false when this pass has nothing more to emit for the instruction (its fast path is
 *         only a jump to the slow one): the lowering returns at once.
 */
bool idiom_access(struct xlate *x, const struct guest_ea *ea, unsigned size, unsigned access, struct hmem *m);

/** The point after an instruction's last memory access, before it transfers control. In the slow
 *  pass: complete the access, join the fast path, and return false. */
bool idiom_join_before_transfer(struct xlate *x);

/** The end of a slow pass: complete the access, go on in the fast path after the instruction. */
void idiom_finish_slow(struct xlate *x);

void idiom_esp_add(struct xlate *x, int32_t n);
void idiom_store_eip(struct xlate *x); /* vcpu->eip and next_eip of the present instruction */
void idiom_callout(struct xlate *x, enum callout_id id, uint64_t arg);
void idiom_never(struct xlate *x); /* control does not come here */
void idiom_shift_right(struct xlate *x, enum host_reg to, enum host_reg from, unsigned count);

/** Transfers; each ends the straight code it stands in. */
void idiom_jump(struct xlate *x, uint32_t target);
void idiom_jump_by_table(struct xlate *x, uint32_t target); /* never chained */
void idiom_jump_if(struct xlate *x, unsigned cc, uint32_t target);
void idiom_jump_indirect(struct xlate *x); /* target EIP in H_EA */
void idiom_call(struct xlate *x, uint32_t target);
void idiom_call_indirect(struct xlate *x);
void idiom_return(struct xlate *x);
void idiom_exit(struct xlate *x, struct emit *e, enum exit_reason reason, uint32_t eip);
/** Does a branch to `target` leave the limit of CS? Every transfer to such a target is #GP(0) at itself. */
bool idiom_target_faults(const struct xlate *x, uint32_t target);
/** #GP(0) at the present instruction. */
void idiom_raise_gp0(struct xlate *x);
/** An indirect target in H_EA against the limit of CS, before the instruction changes anything. */
void idiom_check_target(struct xlate *x);

/** Serve the reach of pending JRCXZ before `room` more bytes are written. */
void idiom_islands(struct xlate *x, unsigned room, bool falls_through);
void idiom_resolve_slow(struct xlate *x);
/** A JRCXZ to the slow path of the present instruction. */
void idiom_jrcxz_slow(struct xlate *x);

/* ---- x87.c: last-instruction pointers ------------------------------------------------------ */
/** Does the present instruction set them? */
bool x87_counts(const struct xlate *x);
/** The present instruction is done: it joins the run if it counts. */
void x87_note(struct xlate *x);
/** Emit what notes the run so far in the vCPU; clobbers R8 and R9. */
void x87_put_pointers(struct xlate *x);
/** The same in the hot part, and the run is over. */
void x87_end_run(struct xlate *x);
/** A host fault at instruction `index`: note the run before it. Parks the FPU. */
void x87_resolve(struct bt *bt, const struct ccf *ccf, unsigned index);

/* ---- event_log.c: coherency-log ------------------------------------------------------------------- */

struct event_tally {
    uint64_t dropped, patched, parked, unchanged;
};

/** What has become of CCFs until now; to be given to the functions below when something has happened. */
struct event_tally event_tally(const struct bt *bt);
/** [pa, pa+len) was written. */
void event_written(struct bt *bt, gpa_t pa, uint32_t len, const struct event_tally *before);
void event_note(struct bt *bt, enum coherency_cause cause, gpa_t pa, uint32_t len, const struct event_tally *before);

/* ---- prelude.c: coherency=check --------------------------------------------------------------- */
/** At the CCF's `body`: a branch to its prelude, if it has one. @return what put_prelude wants. */
uint8_t *prelude_branch(struct xlate *x);
/** At the end of the hot part, the TU being done: compare its bytes, which are `bytes` now, and go on behind
 *  the branch, or ask the dispatcher. */
void prelude_put(struct xlate *x, uint8_t *branch, const uint8_t *bytes);
/** May the instruction just translated have changed code? Then the TU ends. */
bool prelude_ends_tu(const struct xlate *x);
/** Are the bytes of `ccf` still those that it was made from? */
bool prelude_holds(struct bt *bt, const struct ccf *ccf);

/* ---- policy.c: coherency=adaptive and check, page by page -------------------------------------- */
/** Do CCFs with bytes in this page compare them? */
bool policy_checks(const struct bt *bt, uint64_t pfn);
/** What holds for a page of code now; under coherency=adaptive, one of those that it chooses from. */
enum bt_coherency policy_of(const struct bt *bt, uint64_t pfn);
/** Do CCFs that start in this page keep the bytes they were made from? */
bool policy_keeps_source(const struct bt *bt, uint64_t pfn);
/** Do they note where their code holds constants? */
bool policy_patches(const struct bt *bt, uint64_t pfn);
/** A store changed instruction `insn` of the CCF, which is about to be dropped or parked. */
void policy_ccf_changed(struct bt *bt, const struct ccf *ccf, unsigned insn);
/** A store to page `pfn` was reported, and hit CCFs or none. May drop the page's CCFs. */
void policy_count_store(struct bt *bt, uint64_t pfn, bool is_hit);
/** A CCF of page `pfn` was found stale by comparison, and dropped. */
void policy_count_stale(struct bt *bt, uint64_t pfn);
/** The same: code of page `pfn` that there was no CCF of is about to run. */
void policy_count_made(struct bt *bt, uint64_t pfn);
/** A sample was taken. */
bool policy_wants_samples(const struct bt *bt);
void policy_count_sample(struct bt *bt);

/* ---- split.c: coherency=retranslate ------------------------------------------------------------ */
/** Does a TU that came by `ofs` bytes of the one at key end there, and is a gate to be made there? */
bool split_is_at(struct bt *bt, const struct ccf_key *key, uint32_t ofs);
/** An instruction of the CCF was changed: let it be a CCF of its own from now on. */
void split_note(struct bt *bt, const struct ccf *ccf, unsigned insn);
/** After a store to page `pfn`: gates that came to too many are given up. @return true: they were. */
bool split_review(struct bt *bt, uint64_t pfn);
/** The page may have gates again. */
void split_forget(struct bt *bt, uint64_t pfn);
void split_forget_all(struct bt *bt);

/* ---- translate.c again: coherency=patch ------------------------------------------------------ */
/** The immediate of the present instruction, its last bytes, is about to be emitted as it stands, or as `host_len` bytes
 *  with its sign extended. */
void patch_note_const(struct xlate *x, unsigned host_len);
/** Its displacement was emitted as it stands: the last four bytes. */
void patch_note_disp(struct xlate *x);
/** May it be? Then the lowering calls patch_note_disp wherever it emits it. */
bool patch_wants_disp(const struct xlate *x);

/* ---- lower.c and friends ---------------------------------------------------------------- */
typedef void lower_fn(struct xlate *x);
/** The lowering of an innocuous or control-flow instruction. */
lower_fn *lower_find(const struct insn *in);
lower_fn lower_generic, lower_nothing;
lower_fn lower_push_r, lower_pop_r, lower_push_imm, lower_push_rm, lower_pop_rm, lower_leave;
lower_fn lower_jmp, lower_jcc, lower_call, lower_ret, lower_jmp_rm, lower_call_rm, lower_loop, lower_jecxz;
lower_fn lower_string, lower_lea, lower_xlat, lower_moffs, lower_incdec_r, lower_shift_cl, lower_cmpxchg8b;
lower_fn lower_bit_rm_r, lower_maskmov, lower_div, lower_cld, lower_std, lower_lahf, lower_sahf, lower_salc;
/** Sensitive and privileged instructions: inline where that is possible. */
lower_fn lower_system;
/** The same as a callout, and what 64-bit mode lacks. */
lower_fn lower_callout;
/** The operands of an instruction that is a callout, as base/callout.h packs them. */
uint64_t lower_callout_arg(const struct insn *in);

/* ---- for assembly and handlers ------------------------------------------------------------ */
enum exit_reason bt_callout(struct vcpu *cpu, uint64_t arg, uint32_t ea, uint32_t id);
uint64_t bt_mem_slow(struct vcpu *cpu, uint32_t address, uint32_t desc);
enum exit_reason bt_mem_done(struct vcpu *cpu);

/* Descriptor of a slow access: bits 0..9 size, 10 write, 11 read, 12..14 segment, 15 check it, 16 the
 * instruction wants the operand aligned, 17 it waits for a pending x87 error, 18 it is an x87 store that its own
 * exception can keep from storing: 19..21 ModRM.reg, 22..24 the low bits of the opcode. */
#define MD_WRITE 0x400u
#define MD_READ  0x800u
#define MD_SEG_SHIFT 12
#define MD_CHECK 0x8000u
#define MD_ALIGNED 0x10000u
#define MD_WAITS   0x20000u
#define MD_X87_STORE 0x40000u
#define MD_X87_SHIFT 19
#define MD_X87_FORM(opcode, reg) (((opcode)&7u) << 3 | (reg))

#endif
