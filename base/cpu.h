/*
 * struct vcpu: the whole state of the virtual processor, and the words that
 * translated code and assembly share with C.
 *
 * Translated code addresses it through R15. Fields it touches often come first,
 * so that their displacements fit in a byte. Assembly and the emitter may use
 * only the offsets listed in vcpu_layout.h, which checks each of them.
 *
 * While translated code runs, EAX..EDI live in host registers (bt/xlate_table.c
 * has the table), the arithmetic flags in host EFLAGS and x87/MMX/SSE state in
 * the host's own registers. On every way out the general registers and flags are
 * stored here; the FPU state only when something needs those registers
 * (vcpu->fpu_live says where it is).
 */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include "base/callout.h"
#include "base/stats.h"
#include "base/types.h"
#include "base/x86.h"

struct log;
struct mmu;
struct tcache;
struct bt;
struct vm;

/** A segment register with its hidden part. */
struct segment {
    uint16_t sel;
    uint16_t attr;  /* DESC_* of base/x86.h; 0 in the P bit marks a null selector */
    uint32_t base;
    uint32_t limit; /* last valid byte offset, granularity applied */
};

/** GDTR and IDTR. */
struct table_reg {
    uint32_t base;
    uint16_t limit;
};

/** An exception on its way to the guest. */
struct fault {
    uint8_t vector;
    bool has_error;
    uint16_t error;
    uint32_t cr2; /* #PF only; reaches CR2 when it is delivered */
    uint32_t dr6; /* #DB only: DR6_B, BD, BS, BT; likewise */
};

/*
 * Mode bits: everything besides the bytes themselves that a translation depends
 * on. A translation is found only under the mode that it was made for.
 */
#define MODE_CPL3     0x0001u /* CPL is 3 (else 0, 1 or 2)                        */
#define MODE_CODE32   0x0002u /* CS.D                                            */
#define MODE_STACK32  0x0004u /* SS.B                                            */
#define MODE_CS_FLAT  0x0008u /* base 0, limit 4 GiB - 1, readable code          */
#define MODE_DS_FLAT  0x0010u /* base 0, limit 4 GiB - 1, expand-up, writable    */
#define MODE_ES_FLAT  0x0020u
#define MODE_SS_FLAT  0x0040u
#define MODE_FPU_NM   0x0200u /* x87 and MMX raise #NM: CR0.TS or CR0.EM          */
#define MODE_WAIT_NM  0x0400u /* WAIT raises #NM: CR0.TS and CR0.MP               */
#define MODE_SSE_UD   0x0800u /* CR4.OSFXSR clear or CR0.EM set                   */
#define MODE_PROTECTED 0x1000u /* CR0.PE                                          */
#define MODE_VM86     0x2000u
#define MODE_STEP     0x4000u /* translate one instruction, leave unchained       */
#define MODE_WINDOW   0x8000u /* window form of memory accesses                   */
#define MODE_CPL0    0x10000u
#define MODE_ALIGN   0x20000u /* CPL 3, EFLAGS.AC and CR0.AM: alignment is checked  */
/* Real mode, 16-bit programs and the like: looked at only when not all four of MODE_ALL_FLAT are set. */
#define MODE_ES_BASED 0x040000u /* any base, limit 4 GiB - 1, expand-up, writable  */
#define MODE_SS_BASED 0x080000u
#define MODE_DS_BASED 0x100000u
#define MODE_ES_64K  0x0200000u /* any base, limit FFFFh, expand-up, writable      */
#define MODE_CS_64K  0x0400000u /* any base, limit FFFFh, readable                 */
#define MODE_SS_64K  0x0800000u
#define MODE_DS_64K  0x1000000u
#define MODE_FS_64K  0x2000000u
#define MODE_GS_64K  0x4000000u
#define MODE_CPL     (MODE_CPL3 | MODE_CPL0)
#define MODE_ALL_FLAT (MODE_CS_FLAT | MODE_DS_FLAT | MODE_ES_FLAT | MODE_SS_FLAT)

/*
 * The checked form's tables, one set per view, at fixed offsets from R14:
 * two slots a page (2 * page is the slot; an odd index, reached by an access that
 * crosses a page, is always 0), each holding host address minus guest address
 * of the page or 0 when the access must go the slow way.
 */
#define VIEW_LOAD_OFS   0u
#define VIEW_TABLE_BYTES (16u << 20)
#define VIEW_STORE_OFS  VIEW_TABLE_BYTES
#define VIEW_JT_OFS     (2u * VIEW_TABLE_BYTES) /* jump table: 64 Ki host addresses by low EIP bits */
#define VIEW_JT_ENTRIES 65536u
#define VIEW_BYTES      (VIEW_JT_OFS + VIEW_JT_ENTRIES * 8u)

#define VCPU_BOUNCE_BYTES 512u

/* Bits of vcpu->x87_fop and x87_seg. */
#define X87_NEW      0x8000u /* noted since the images' pointers were last made up     */
#define X87_SELECTOR 0x4000u /* its segment register still holds the selector          */
#define X87_MEMORY   0x2000u /* x87_fop only: this instruction had a memory operand    */

struct vcpu {
    /* Shared with translated code: first 128 bytes, see vcpu_layout.h */
    uint32_t gpr[8];        /* 0x00 by encoding                                          */
    uint32_t eip;           /* 0x20 offset in CS                                         */
    uint32_t next_eip;      /* 0x24 EIP after the current instruction, set for callouts  */
    uint32_t run;           /* 0x28 0: leave at the next poll point. A signal may clear it */
    uint32_t intr_quiet;    /* 0x2c 0: an interrupt request is up (whatever IF says)     */
    uint16_t flags_ax;      /* 0x30 arithmetic flags: AH as LAHF gives it, AL = OF       */
    uint8_t eflags_if;      /* 0x32 IF, 0 or 1                                           */
    uint8_t eflags_df;      /* 0x33 DF, 0 or 1; mirrors the host's while in the TC       */
    uint32_t exit_arg;      /* 0x34                                                      */
    uint64_t view_base;     /* 0x38 R14: tables of the current view                      */
    uint64_t host_rsp;      /* 0x40 C stack while translated code runs                   */
    uint64_t shadow_rsp;    /* 0x48 shadow return stack while C runs                     */
    uint64_t shadow_top;    /* 0x50 where it starts: underflow sentinels lie above       */
    uint64_t resume_rip;    /* 0x58 where a callout goes back to                         */
    uint64_t stub_callout;  /* 0x60 entry points that translated code calls or jumps to: */
    uint64_t stub_mem_slow; /* 0x68   R8D = VA, R9D = descriptor; gives RCX              */
    uint64_t stub_mem_done; /* 0x70   completes a bounced access                         */
    uint64_t stub_exit;     /* 0x78   R9D = exit_reason                                  */
    /* Shared as well, displacement of four bytes */
    uint64_t stub_jt_miss;  /* R8D = target EIP: ask the dispatcher                      */
    uint64_t stub_chain;    /* R9D = link, eip set: ask the dispatcher                   */
    uint64_t tmp[4];        /* spill slots of idioms                                     */
    uint32_t seg_base[SEG_COUNT]; /* copy of segs[].base for inline address arithmetic   */
    int64_t icount_left;    /* clock=insn: instructions until the next event             */
    uint32_t fpu_live;      /* 1: guest FPU state is in the host registers, 0: in fpu[]   */
    uint32_t mem_bounced;   /* an access went through bounce[] and is not complete       */
    uint64_t stub_jt_probe; /* R8D = target EIP: through the jump table                  */
    int32_t df_step;        /* 1, or -1 when DF is set; made on every way into the TC     */
    uint32_t ccf_id;        /* clock=insn: the CCF that runs                              */
    /* Last-instruction pointers of the x87 as translated code notes them; monitor/x87.c has the rest */
    uint32_t x87_fip;       /* EIP of the last x87 instruction that is not a control one   */
    uint16_t x87_fop;       /* its opcode, 11 bits; X87_* above                            */
    uint16_t x87_seg;       /* of the last memory operand: enum seg_id; X87_* above        */
    uint32_t x87_ea;        /* its offset                                                  */
    uint32_t seg_plain[2];  /* FS, GS: 1: any base, limit 4 GiB - 1, expand-up, writable    */
    uint8_t bounce[VCPU_BOUNCE_BYTES] __attribute__((aligned(64)));
    uint8_t fpu[512] __attribute__((aligned(64))); /* FXSAVE64 image                     */

    /* The bounced access, filled by the slow path and completed by stub_mem_done */
    gva_t bounce_va;
    uint32_t bounce_len;    /* bytes to write back, 0 if the access only read            */

    /* System state */
    uint32_t eflags_sys;    /* TF IOPL NT RF VM AC VIF VIP ID; never IF, DF or arithmetic */
    uint32_t debug_hits;    /* DR6 bits of debug traps that the last instruction earned   */
    struct segment segs[SEG_COUNT];
    struct segment ldtr, tr;
    struct table_reg gdtr, idtr;
    uint32_t cr0, cr2, cr3, cr4;
    uint32_t dr[8];         /* DR4 and DR5 unused                                        */
    uint64_t efer;
    uint32_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pdpte[4];      /* PAE: loaded with CR3                                      */
    uint64_t pat;           /* IA32_PAT: kept and shown; memory types have no effect       */
    uint16_t x87_fcs, x87_fds; /* selectors of FIP and FDP                              */
    uint16_t x87_fop_shown; /* the opcode that images show                                 */
    bool ferr;              /* FERR# is asserted: CR0.NE was clear at an x87 error          */
    uint32_t x87_fdp;       /* the operand's offset that images show                       */
    uint32_t misc_enable;   /* IA32_MISC_ENABLE of a Pentium 4                             */
    uint32_t mode;          /* MODE_* of the present state: vcpu_update_mode()           */
    uint8_t cpl;
    bool debug_shadow;      /* with EXIT_SHADOW: MOV SS, which holds off debug exceptions, too */
    bool has_breakpoints;   /* DR7 enables one on instructions or data                    */
    bool resumes;           /* the next instruction meets no instruction breakpoint (RF)  */
    bool a20_off;
    uint32_t code_stores;   /* stores that hit translated code: a REP that sees it move looks again */
    bool no_shortcuts;      /* interrupts and IRET always go the long way (inline=off)   */
    uint64_t system_base;   /* tables of the supervisor view, whatever the CPL           */
    uint64_t tsc_offset;    /* guest TSC = host TSC + offset, or the instruction clock   */

    struct fault fault;     /* valid after X86_FAULT / EXIT_FAULT                        */

    /* A host signal in translated code (EXIT_HOST) */
    int host_signal;
    int host_code;          /* si_code */
    uint64_t host_rip, host_addr;
    bool host_is_write;     /* SIGSEGV: the access was a store                           */
    uint64_t sample_rip;    /* where the last timer signal found translated code, or 0    */

    /* What it is wired to; set once by monitor/machine_pc.c */
    struct log *log;
    struct mmu *mmu;
    struct tcache *tc;
    struct bt *bt;
    struct vm *vm;
    struct stats stats;
};

/* ---- flags ---------------------------------------------------------------- */

static inline uint32_t vcpu_arith_get(const struct vcpu *cpu)
{
    return ((uint32_t)(cpu->flags_ax >> 8) & (EFL_ARITH & 0xffu)) |
           ((uint32_t)(cpu->flags_ax & 1u) << 11);
}

static inline void vcpu_arith_set(struct vcpu *cpu, uint32_t fl)
{
    cpu->flags_ax = (uint16_t)(((fl & (EFL_ARITH & 0xffu)) | EFL_ONE) << 8 | ((fl >> 11) & 1u));
}

/** The whole EFLAGS as the guest would read it. */
static inline uint32_t vcpu_eflags_get(const struct vcpu *cpu)
{
    return cpu->eflags_sys | vcpu_arith_get(cpu) | EFL_ONE |
           (cpu->eflags_if ? EFL_IF : 0u) | (cpu->eflags_df ? EFL_DF : 0u);
}

/** Sets every bit; the caller has applied privilege rules, and calls vcpu_update_mode. */
static inline void vcpu_eflags_set(struct vcpu *cpu, uint32_t fl)
{
    vcpu_arith_set(cpu, fl);
    cpu->eflags_if = (fl & EFL_IF) != 0;
    cpu->eflags_df = (fl & EFL_DF) != 0;
    cpu->eflags_sys =
        fl & (EFL_TF | EFL_IOPL | EFL_NT | EFL_RF | EFL_VM | EFL_AC | EFL_VIF | EFL_VIP | EFL_ID);
}

static inline unsigned vcpu_iopl(const struct vcpu *cpu)
{
    return (cpu->eflags_sys & EFL_IOPL) >> EFL_IOPL_SHIFT;
}

static inline bool vcpu_is_protected(const struct vcpu *cpu)
{
    return (cpu->cr0 & CR0_PE) && !(cpu->eflags_sys & EFL_VM);
}

/* ---- faults --------------------------------------------------------------- */

/** Record an exception without an error code. Always returns X86_FAULT. */
static inline enum x86_rc vcpu_raise(struct vcpu *cpu, enum exc_vector vector)
{
    cpu->fault = (struct fault){ .vector = (uint8_t)vector };
    return X86_FAULT;
}

/** Record an exception with an error code. Always returns X86_FAULT. */
static inline enum x86_rc vcpu_raise_error(struct vcpu *cpu, enum exc_vector vector, unsigned error)
{
    cpu->fault = (struct fault){ .vector = (uint8_t)vector, .has_error = true,
                                 .error = (uint16_t)error };
    return X86_FAULT;
}

/** Record a page fault. Always returns X86_FAULT. */
static inline enum x86_rc vcpu_raise_pf(struct vcpu *cpu, gva_t va, unsigned error)
{
    cpu->fault = (struct fault){ .vector = EXC_PF, .has_error = true, .error = (uint16_t)error,
                                 .cr2 = va.v };
    return X86_FAULT;
}

/* ---- derived state -------------------------------------------------------- */

/** Recompute cpu->mode, cpu->seg_base and cpu->seg_plain after any change of segments, CPL, CR0, CR4, EFLAGS.VM/TF. */
void vcpu_update_mode(struct vcpu *cpu);

/** Writable data, expand-up, of 4 GiB from any base? */
static inline bool segment_is_plain(const struct segment *s)
{
    const unsigned mask = DESC_P | DESC_S | DESC_CODE | DESC_DOWN | DESC_WRITE;

    return !(((s->attr ^ (DESC_P | DESC_S | DESC_WRITE)) & mask) | ~s->limit);
}

/** Take the selectors of the x87's pointers. */
void vcpu_x87_take_selectors(struct vcpu *cpu);

/** Before any segment register changes: the x87's pointers keep the selectors of now. */
static inline void vcpu_x87_settle(struct vcpu *cpu)
{
    if ((cpu->x87_fop | cpu->x87_seg) & X87_SELECTOR)
        vcpu_x87_take_selectors(cpu);
}

/** Power-on state (SDM vol. 3A, table "IA-32 Processor States Following Power-up, Reset, or INIT"). */
void vcpu_reset(struct vcpu *cpu);

#endif
