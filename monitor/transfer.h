/*
 * What the protection code shares among its own files: descriptors, stack frames, far
 * transfers, events and task switches. Private to monitor/.
 *
 * One rule holds for all of it: compute first, write memory second, change the vCPU last.
 * A function that answers X86_FAULT has changed nothing but Accessed bits, which the
 * processor may set early as well. The one exception is architectural: past its commit
 * point a task switch reports faults in the context of the new task (see task.c).
 *
 * `ext` is bit 0 of a selector's error code: 1 while an event that is not INT n, INT3 or
 * INTO is being delivered (SDM vol. 3A, "Interrupt and Exception Handling", Error Code).
 */
#ifndef MONITOR_TRANSFER_H
#define MONITOR_TRANSFER_H

#include "base/cpu.h"
#include "mmu/mmu.h"

/* ---- descriptors (segment.c) ---------------------------------------------------- */

/** A descriptor as it lies in the GDT or LDT, and where. */
struct desc {
    uint32_t lo, hi;
    gva_t at;
};

#define SEL_ERROR_MASK 0xfffcu /* a selector as an error code shows it */
#define ERROR_IDT      2u
#define ERROR_EXT      1u

static inline bool sel_is_null(uint16_t sel)
{
    return (sel & SEL_ERROR_MASK) == 0;
}
static inline unsigned sel_rpl(uint16_t sel)
{
    return sel & SEL_RPL;
}

static inline unsigned desc_attr(const struct desc *d)
{
    return (d->hi >> 8) & 0xf0ffu;
}
static inline unsigned desc_dpl(const struct desc *d)
{
    return (d->hi >> 13) & 3u;
}
static inline bool desc_is_present(const struct desc *d)
{
    return (d->hi >> 15) & 1u;
}

/** Type of a system descriptor (enum sys_desc_type), or 16 and up for code and data. */
static inline unsigned desc_sys_type(const struct desc *d)
{
    return (d->hi >> 8) & 0x1fu;
}

static inline bool desc_is_code(const struct desc *d)
{
    return (desc_attr(d) & (DESC_S | DESC_CODE)) == (DESC_S | DESC_CODE);
}

static inline bool desc_is_conforming(const struct desc *d)
{
    return (desc_attr(d) & DESC_CONFORM) != 0; /* of a code descriptor */
}

static inline uint32_t desc_base(const struct desc *d)
{
    return (d->hi & 0xff000000u) | (d->hi & 0xffu) << 16 | d->lo >> 16;
}

/** Last valid byte offset, granularity applied. */
static inline uint32_t desc_limit(const struct desc *d)
{
    uint32_t raw = (d->hi & 0xf0000u) | (d->lo & 0xffffu);

    return (d->hi & (DESC_G << 8)) ? raw << 12 | 0xfffu : raw;
}

/* Gates: selector and offset. */
static inline uint16_t gate_sel(const struct desc *d)
{
    return (uint16_t)(d->lo >> 16);
}
static inline uint32_t gate_offset32(const struct desc *d)
{
    return (d->hi & 0xffff0000u) | (d->lo & 0xffffu);
}

/** The hidden part that loading `sel` with this descriptor gives. */
static inline struct segment desc_segment(const struct desc *d, uint16_t sel)
{
    return (struct segment){
        .sel = sel, .attr = (uint16_t)desc_attr(d), .base = desc_base(d), .limit = desc_limit(d)
    };
}

/** Raise `vector` with the error code of a selector. Always X86_FAULT. */
static inline enum x86_rc raise_sel(struct vcpu *cpu, enum exc_vector vector, uint16_t sel, unsigned ext)
{
    return vcpu_raise_error(cpu, vector, (sel & SEL_ERROR_MASK) | ext);
}

/** Where the descriptor of `sel` lies; false when it is outside its table. */
bool desc_locate(const struct vcpu *cpu, uint16_t sel, gva_t *at);

/** Read the descriptor of `sel`; outside its table raises `vector`(sel). */
enum x86_rc desc_fetch(struct vcpu *cpu, uint16_t sel, enum exc_vector vector, unsigned ext, struct desc *d);

/** Set the Accessed bit in memory if it is clear. */
enum x86_rc desc_touch(struct vcpu *cpu, struct desc *d);

/** Check `sel` as a stack segment for privilege `cpl`: `vector` for what is wrong, #SS when absent. */
enum x86_rc stack_segment_check(struct vcpu *cpu, uint16_t sel, unsigned cpl, enum exc_vector vector,
                                unsigned ext, struct segment *out);

/** Check `sel` for DS, ES, FS or GS; a null selector gives a null segment. */
enum x86_rc data_segment_check(struct vcpu *cpu, uint16_t sel, enum exc_vector vector, unsigned ext,
                               struct segment *out);

/** Segment as real mode (limit and D bit stay) or virtual-8086 mode loads it. */
void segment_load_real(struct vcpu *cpu, enum seg_id seg, uint16_t sel);
struct segment segment_vm86(uint16_t sel);

/** Can [off, off + size) be accessed so? Null segments can't. */
bool segment_allows(const struct vcpu *cpu, const struct segment *s, uint32_t off, uint32_t size,
                    unsigned access);

static inline unsigned cpl_access(unsigned cpl)
{
    return cpl == 3 ? ACC_USER : 0u;
}

/* ---- stacks (stack.c) -------------------------------------------------------------- */

#define FRAME_SLOTS 40

/** Values to be pushed, in that order. */
struct frame {
    unsigned width; /* bytes a slot, 2 or 4 */
    unsigned count;
    uint32_t slot[FRAME_SLOTS];
};

static inline void frame_begin(struct frame *f, unsigned width)
{
    f->width = width;
    f->count = 0; /* slots past the count are never looked at */
}

static inline void frame_add(struct frame *f, uint32_t value)
{
    f->slot[f->count++] = value;
}

/** A stack that need not be the current one. */
struct stack {
    const struct segment *ss;
    uint32_t sp;
    unsigned cpl;   /* privilege of the accesses                    */
    unsigned error; /* error code of #SS when the frame has no room */
};

static inline uint32_t stack_mask(const struct segment *ss)
{
    return (ss->attr & DESC_DB) ? UINT32_MAX : 0xffffu;
}

/** ESP with the stack pointer set to `sp`: a 16-bit stack keeps the upper half. */
static inline uint32_t stack_pointer(const struct segment *ss, uint32_t esp, uint32_t sp)
{
    uint32_t mask = stack_mask(ss);

    return (esp & ~mask) | (sp & mask);
}

struct stack stack_current(const struct vcpu *cpu, unsigned error);

/** Is there room for the frame? X86_OK, or #SS(st->error). */
enum x86_rc stack_check(struct vcpu *cpu, const struct stack *st, const struct frame *f);

/** Write a frame that stack_check has passed: all of it or nothing. Moves st->sp. */
enum x86_rc stack_write(struct vcpu *cpu, struct stack *st, const struct frame *f);

/** Read n values of the current stack, the first at SP + ofs. SP stays. */
enum x86_rc stack_peek(struct vcpu *cpu, uint32_t ofs, unsigned width, unsigned n, uint32_t *out);

/** PUSH: the stack pointer moves only when the store was done. */
enum x86_rc stack_push(struct vcpu *cpu, uint32_t value, unsigned width);

/** Move the stack pointer up by n bytes. */
void stack_release(struct vcpu *cpu, uint32_t n);

/* ---- far transfers (transfer.c), events (interrupt.c), IRET (iret.c) ------------------ */

/** The three branches of JMP, CALL and RET far; `osize` 2 or 4. On X86_OK cpu->eip is the target. */
enum x86_rc far_jump(struct vcpu *cpu, uint16_t sel, uint32_t off, unsigned osize);
enum x86_rc far_call(struct vcpu *cpu, uint16_t sel, uint32_t off, unsigned osize);
enum x86_rc far_return(struct vcpu *cpu, unsigned osize, uint32_t release);
enum x86_rc interrupt_return(struct vcpu *cpu, unsigned osize);

/** Check a return's CS for protected mode: `vector` on what is wrong, #NP when absent. */
enum x86_rc return_code_check(struct vcpu *cpu, uint16_t sel, struct segment *cs);

/** EIP against the limit of the code segment it is for: X86_OK or #GP(ext). */
static inline enum x86_rc eip_check(struct vcpu *cpu, const struct segment *cs, uint32_t eip, unsigned ext)
{
    return eip <= cs->limit ? X86_OK : vcpu_raise_error(cpu, EXC_GP, ext);
}

/** Stack of a more privileged level from the current TSS. */
enum x86_rc tss_stack(struct vcpu *cpu, unsigned cpl, unsigned ext, struct segment *ss, uint32_t *sp);

/** On a return to `cpl`, an outer level: null the data segments that it may not keep, and clear the RPL of null selectors. */
void data_segments_revoke(struct vcpu *cpu, unsigned cpl);

/** Commit a new CS, EIP and privilege, and bring derived state up to date. */
void transfer_enter(struct vcpu *cpu, const struct segment *cs, uint32_t eip, unsigned cpl);

/** Something to deliver through the IDT. */
struct event {
    uint8_t vector;
    bool is_soft; /* INT n, INT3, INTO: gate DPL counts, EXT is 0            */
    bool has_error;
    bool sets_rf; /* a fault: RF is 1 in the pushed EFLAGS                   */
    uint16_t error;
    uint32_t return_eip;
};

enum x86_rc event_deliver(struct vcpu *cpu, const struct event *e);

/** The doubleword at the top of a flat stack of ring 0 (shortcut.c). false: it was not read, take stack_peek. */
bool shortcut_stack_peek(const struct vcpu *cpu, uint32_t *value);

/** The short way through a load of DS, ES, FS or GS (shortcut.c). false: nothing was done, take the long one. */
bool shortcut_segment_load(struct vcpu *cpu, enum seg_id seg, unsigned sel);

/** The short way through the two, between flat 32-bit code (shortcut.c). false: nothing was done, take the long one. */
bool shortcut_interrupt(struct vcpu *cpu, const struct event *e);
bool shortcut_iret(struct vcpu *cpu);

/* ---- task switches (task.c) ------------------------------------------------------------ */

enum task_cause { TASK_JMP, TASK_CALL, TASK_IRET };

/** Switch to the TSS that a task gate names (`vector` GP) or to the back link (TS, IRET). */
enum x86_rc task_switch_sel(struct vcpu *cpu, uint16_t sel, enum task_cause cause, unsigned ext,
                            uint32_t save_eip);

/** Switch to the TSS of a descriptor that was read already. Checks type, presence and the rest. */
enum x86_rc task_switch(struct vcpu *cpu, uint16_t sel, struct desc *d, enum task_cause cause, unsigned ext,
                        uint32_t save_eip);

/** After a switch, in the new task: check EIP, raise the T-bit trap. */
enum x86_rc task_finish(struct vcpu *cpu, unsigned ext);

/* ---- callouts ------------------------------------------------------------------------------ */

/** What a callout answers when an operation did not end in X86_OK. */
static inline enum exit_reason exit_failed(enum x86_rc rc)
{
    switch (rc) {
    case X86_OK:
    case X86_RETRY: /* eip is still this instruction's */
        return EXIT_DISPATCH;
    case X86_FAULT:
        return EXIT_FAULT;
    case X86_UNSUPPORTED:
        break;
    }
    return EXIT_UNSUPPORTED;
}

#endif
