/*
 * The monitor: one VM. It joins vCPU, mmu, translation cache, translator and machine,
 * runs the dispatch loop and delivers exceptions and interrupts.
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "base/cpu.h"
#include "bt/bt.h"
#include "mmu/mmu.h"
#include "monitor/machine.h"
#include "platform/platform.h"

enum cpu_vendor { VENDOR_AMD, VENDOR_INTEL };

/** What CPUID shows, and with it which instructions and MSRs exist. monitor/cpu_model.c */
struct cpu_model {
    const char *name;
    enum cpu_vendor vendor;
    uint32_t max_leaf, signature; /* leaf 1 EAX */
    uint32_t edx1, ecx1;          /* leaf 1     */
    uint32_t ext_edx;             /* leaf 80000001 EDX */
    const char *brand;            /* leaves 80000002..4; NULL: no extended leaves */
    /* Which of the x87's last-instruction pointers it keeps (x87.h) */
    bool fop_on_exception, fdp_on_exception, no_fcs_fds;
};
/** NULL when no model has that name. `cpu_models` lists them; the first is the default. */
const struct cpu_model *cpu_model_find(const char *name);
extern const struct cpu_model cpu_models[];
extern const size_t cpu_model_count;
/** Family of leaf 1. */
unsigned cpu_model_family(const struct cpu_model *model);

enum feature_rc {
    FEATURE_OK,
    FEATURE_UNKNOWN,     /* no feature of that name                                */
    FEATURE_LACKING,     /* one that we, or this model, can't offer                 */
    FEATURE_NEEDS_OTHER, /* one without which it means nothing is off               */
};
/** Add a feature by its name to a model of the caller's own, or take it and what needs it away. */
enum feature_rc cpu_model_set_feature(struct cpu_model *model, const char *name, bool on);
/** The names that can be added, 0 and up; NULL after the last. */
const char *cpu_model_feature_name(size_t i);

/** 1 << enum insn_feature of what the model has, for bt_ops.features. */
uint32_t cpu_model_features(const struct cpu_model *model);
/** CPUID: EAX, EBX, ECX, EDX of a leaf. */
void cpu_model_cpuid(const struct cpu_model *model, uint32_t leaf, uint32_t out[4]);

struct vm_config {
    uint8_t *ram;                 /* host mapping of guest memory, at least ram_bytes    */
    uint64_t ram_bytes;
    const struct cpu_model *model;
    struct host_features host;
    struct bt_options bt;
    struct machine_config machine; /* mem_*, intr_*, a20_changed are filled by vm_new    */
    bool no_reboot;
    bool start_paused;
    bool clock_insn;              /* deterministic: the VM clock counts instructions     */
    uint32_t log_mask;
    void *listing_ctx;            /* for bt_ops.translated                               */
    void (*translated)(void *ctx, struct vcpu *cpu, const struct ccf *ccf);
    /** clock=insn: called when `insns` instructions have been begun since power-on, for
     *  checkpoint_first and every checkpoint_every after it (0: never). false ends the run. */
    bool (*checkpoint)(void *ctx, struct vcpu *cpu, uint64_t insns);
    void *checkpoint_ctx;
    uint64_t checkpoint_first, checkpoint_every;
    /** For the coherency log, if it is not NULL: these have happened since the last call, and as many more as
     *  `lost` says. Called between runs of translated code, the guest's vector state may be live. */
    void (*coherency_events)(void *ctx, struct vcpu *cpu, const struct coherency_event *events, uint32_t count,
                             uint64_t lost);
    void *coherency_ctx;
};

struct vm {
    struct vcpu *cpu;
    struct machine *machine;
    const struct cpu_model *model;
    struct vm_config config;
    struct log log;
    bool is_paused;               /* the guest and its clock stand still; set from host events only */
    bool in_exception;            /* delivering; for #DF                                 */
    bool memory_moved;            /* by A20 or the chipset since the dispatcher last looked */
    uint32_t held_hits;           /* debug traps of a MOV SS, in its shadow              */
    uint64_t armed_ns;            /* VM-clock deadline that the host timer is set for    */
    int64_t insn_budget;          /* clock=insn: what icount_left started from           */
    uint64_t insn_ns;             /* clock=insn: VM time before this budget, 1 ns an instruction */
    uint64_t insns;               /* clock=insn: instructions begun before this budget   */
    uint64_t checkpoint_next;     /* of them, at which config.checkpoint is due           */
    struct coherency_log *coherency; /* NULL: nobody asked for it                         */
    uint64_t direct_gdt[DIRECT_DESCRIPTORS]; /* the guest's, as the processor has them; valid so far: */
    unsigned direct_count;
    bool direct_known;
    size_t footprint;             /* bytes of this reservation                           */
};

/** @return NULL when memory can't be had. */
struct vm *vm_new(const struct vm_config *config);
void vm_free(struct vm *vm);

/** Hand on what is in the coherency log's buffer. */
void vm_coherency_flush(struct vm *vm);

/** Why vm_run came back. */
struct vm_exit {
    enum machine_stop why;
    uint32_t code;           /* debug-exit value                                          */
    bool unsupported;        /* the guest did something we lack: report is in `text`      */
    char text[1024];         /* one-screen report of a triple fault or unsupported thing  */
};

/** Run until the machine stops. */
void vm_run(struct vm *vm, struct vm_exit *out);

/* ---- exceptions and transfers (monitor/exception.c, transfer.c) -------------------- */

/** Deliver cpu->fault, earned by the instruction at cpu->eip. Handles #DF and triple fault:
 *  X86_OK; or X86_UNSUPPORTED after a triple fault (machine_request_stop was called). */
enum x86_rc exception_deliver(struct vm *vm);

/** Deliver a hardware interrupt (or software one when `is_soft`) through the IDT.
 *  X86_OK or X86_FAULT (recorded in cpu->fault, state unchanged). */
enum x86_rc interrupt_deliver(struct vcpu *cpu, uint8_t vector, bool is_soft, bool has_error,
                              uint16_t error, uint32_t return_eip);

/* ---- segmentation (monitor/segment.c) ------------------------------------------------ */

/** Load a data or stack segment register with all checks of MOV Sreg. X86_OK or X86_FAULT. */
enum x86_rc segment_load(struct vcpu *cpu, enum seg_id seg, uint16_t sel);

/** Check [off, off+size) against a segment (limit, type, null) and give the linear address.
 *  X86_OK, or X86_FAULT with #GP(0) or #SS(0). access: ACC_READ | ACC_WRITE | ACC_EXEC. */
enum x86_rc segment_linear(struct vcpu *cpu, enum seg_id seg, uint32_t off, unsigned size,
                           unsigned access, gva_t *va);

/** Segment check and guest memory access at the current privilege. */
enum x86_rc vcpu_read(struct vcpu *cpu, enum seg_id seg, uint32_t off, void *buf, unsigned size);
enum x86_rc vcpu_write(struct vcpu *cpu, enum seg_id seg, uint32_t off, const void *buf, unsigned size);

/** The callout functions, by id. monitor/callout_table.c */
extern callout_fn *const callout_table[CALLOUT_COUNT];

#endif
