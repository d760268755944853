/*
 * What translated code calls in C: callouts, slow memory accesses, and the completion of
 * bounced stores. All of it runs with the guest's x87 and SSE state live in the host's
 * registers, and so does everything it reaches until somebody parks that state.
 *
 * *Bouncing* is the universal slow path: the instruction itself runs, on a scratch buffer.
 * A device, a traced or a watched page is read before it if the instruction reads memory, and written
 * after it if it writes, at its own width; checks and faults come before either. An x87 store that an exception of
 * its own keeps from storing runs there, too, without any of these.
 */
#include "base/assert.h"
#include "base/string.h"
#include "bt/bt_internal.h"
#include "mmu/window.h"

/* A CCF was dropped since the dispatcher last looked: the running one may be dead. */
static bool is_stale(const struct bt *bt)
{
    return tcache_generation(bt->cpu->tc) != bt->generation;
}

/* ---- transfers that stay in the TC ------------------------------------------------------------- */

void world_go_on(void);

/* Transfers, and what may change the mode word but nothing else that the dispatcher looks at. */
static bool may_go_on(enum callout_id id)
{
    switch (id) {
    case CALLOUT_int_n:
    case CALLOUT_iret:
    case CALLOUT_call_far:
    case CALLOUT_jmp_far:
    case CALLOUT_ret_far:
    case CALLOUT_sysenter:
    case CALLOUT_sysexit:
    case CALLOUT_mov_to_seg:
    case CALLOUT_pop_seg:
    case CALLOUT_load_far_ptr:
        return true;
    default:
        return false;
    }
}

/* Would the dispatcher do anything but run what is at cpu->eip? What it finds by `run` being clear, the poll
 * point behind the jump table finds as well. */
static bool needs_dispatcher(const struct bt *bt)
{
    const struct vcpu *cpu = bt->cpu;

    if (bt->opt.callouts_only || bt->opt.icount || (bt->key_mode & MODE_STEP))
        return true; /* MODE_STEP: of the instruction that is ending; it was to run alone */
    if (bt->opt.user_direct && cpu->cpl == 3)
        return true;
    if ((cpu->mode & (MODE_STEP | MODE_CS_FLAT)) != MODE_CS_FLAT)
        return true;
    if (cpu->debug_hits | (cpu->eflags_sys & (EFL_TF | EFL_VIP)))
        return true;
    if ((cpu->eflags_sys & EFL_RF) && cpu->has_breakpoints)
        return true;
    return cpu->resumes || (cpu->eflags_if && !cpu->intr_quiet) || is_stale(bt);
}

/* On at cpu->eip without the dispatcher, under the view and mode of now: where a callout goes back to is the jump
 * table. What is not in it, the dispatcher puts there. */
static enum exit_reason go_on(struct bt *bt)
{
    if (needs_dispatcher(bt))
        return EXIT_DISPATCH;
    bt->cpu->eflags_sys &= ~EFL_RF; /* with no breakpoint to pass over, it is gone once the next instruction begins */
    bt_sync_view(bt);
    if (bt->view == VIEW_USER)
        mmu_window_sync(bt->cpu);
    bt->cpu->resume_rip = (uint64_t)(uintptr_t)world_go_on;
    STAT_INC(bt->cpu, transfer_stays);
    return EXIT_RESUME;
}

enum exit_reason bt_callout(struct vcpu *cpu, uint64_t arg, uint32_t ea, uint32_t id)
{
    cpu->stats.callout[id]++;
    enum exit_reason reason = cpu->bt->ops.callouts[id](cpu, arg, ea);

    if (reason == EXIT_RESUME && is_stale(cpu->bt)) {
        cpu->eip = cpu->next_eip;
        return EXIT_DISPATCH;
    }
    if (reason == EXIT_DISPATCH && may_go_on((enum callout_id)id))
        return go_on(cpu->bt);
    return reason;
}

/* 0 tells world_mem_slow to leave with exit_arg. */
static uint64_t leave(struct vcpu *cpu, enum exit_reason reason)
{
    cpu->exit_arg = reason;
    return 0;
}

/* Where an access to va is bounced: as misaligned as it is, so that an instruction that demands
 * alignment faults on the host as it would for the guest. */
static uint8_t *bounce_at(struct vcpu *cpu, gva_t va) { return cpu->bounce + (va.v & 15u); }

static enum x86_rc bounce(struct vcpu *cpu, gva_t va, uint32_t desc, unsigned size, unsigned user)
{
    STAT_INC(cpu, mem_bounce);
    if ((va.v & 15u) + size > VCPU_BOUNCE_BYTES)
        return X86_OK; /* a misaligned FXRSTOR, the only one of that size: it faults before it reads */
    if (desc & MD_READ) {
        enum x86_rc rc = mmu_read(cpu, va, bounce_at(cpu, va), size, user);
        if (rc != X86_OK)
            return rc;
    }
    if (desc & MD_WRITE) {
        cpu->bounce_va = va;
        cpu->bounce_len = size;
        cpu->mem_bounced = 1;
    }
    return X86_OK;
}

/* Will the instruction meet a data breakpoint by reading? A store's is met when the store is completed,
 * and the instruction ends there; one that reads has no such point, and is begun anew by itself. */
static bool meets_breakpoint(struct vcpu *cpu, gva_t va, uint32_t desc, unsigned size)
{
    if (!(desc & MD_READ) || (cpu->mode & MODE_STEP))
        return false;
    mmu_watch_report(cpu, va, size, (desc & MD_WRITE) != 0);
    bool meets = cpu->debug_hits != 0;
    cpu->debug_hits = 0;
    return meets;
}

/* Is an unmasked x87 exception pending (FSW.ES)? */
static __attribute__((noinline)) bool x87_is_pending(const struct vcpu *cpu)
{
    uint16_t status;

    if (cpu->fpu_live)
        __asm__ volatile("fnstsw %0" : "=m"(status));
    else
        memcpy(&status, cpu->fpu + 2, sizeof status);
    return status & 0x80;
}

/* Store ST(0) to `to` as the instruction of this form would; MD_X87_FORM gives the opcode. */
static bool x87_store(unsigned form, uint8_t to[16])
{
#define FORM(opcode, reg, insn)                                                                              \
    case MD_X87_FORM(opcode, reg):                                                                           \
        __asm__ volatile(insn " (%0)" : : "r"(to) : "memory");                                               \
        return true
    switch (form) {
        FORM(0xd9, 2, "fsts");
        FORM(0xd9, 3, "fstps");
        FORM(0xdb, 2, "fistl");
        FORM(0xdb, 3, "fistpl");
        FORM(0xdb, 7, "fstpt");
        FORM(0xdd, 2, "fstl");
        FORM(0xdd, 3, "fstpl");
        FORM(0xdf, 2, "fists");
        FORM(0xdf, 3, "fistps");
        FORM(0xdf, 6, "fbstp");
        FORM(0xdf, 7, "fistpll");
    }
    return false;
#undef FORM
}

/*
 * Will this x87 store meet an unmasked exception of its own, and so store nothing? Then it does not look at its operand
 * (so processors do; SDM vol. 1, ch. 8 "x87 FPU Floating-Point Exception Handling" has the rest). To know is to do it
 * and to undo it. One that is pending already is another matter: the instruction does not begin.
 */
static __attribute__((noinline)) bool x87_store_is_dropped(struct vcpu *cpu, unsigned form)
{
    uint16_t control, status = 0;
    uint8_t number[16];

    __asm__ volatile("fnstcw %0" : "=m"(control));
    if ((control & 0x3f) == 0x3f || x87_is_pending(cpu))
        return false;
    __asm__ volatile("fxsave64 %0" : "=m"(cpu->fpu));
    if (x87_store(form, number))
        __asm__ volatile("fnstsw %0" : "=m"(status));
    __asm__ volatile("fxrstor64 %0" : : "m"(cpu->fpu));
    /* an inexact result is stored all the same: what is dropped has ES set by something else */
    return status & 0x3f & ~control & ~0x20u;
}

/* The access earned a fault of its segment or page. A pending x87 error comes before both, and so does a
 * misaligned operand. SDM vol. 3A, "Priority Among Simultaneous Exceptions and Interrupts", has all of them in
 * one class, whose order is the implementation's: this is that of our host. */
static void order_fault(struct vcpu *cpu, uint32_t address, uint32_t desc)
{
    uint32_t base = desc & MD_CHECK ? cpu->segs[desc >> MD_SEG_SHIFT & 7].base : 0;

    if ((desc & MD_WAITS) && x87_is_pending(cpu))
        vcpu_raise(cpu, EXC_MF);
    else if ((desc & MD_ALIGNED) && ((base + address) & 15))
        vcpu_raise_error(cpu, EXC_GP, 0);
}

uint64_t bt_mem_slow(struct vcpu *cpu, uint32_t address, uint32_t desc)
{
    unsigned size = desc & 0x3ff, user = cpu->cpl == 3 ? ACC_USER : 0;
    unsigned access = desc & MD_WRITE ? ACC_WRITE : ACC_READ;
    gva_t va = gva(address);
    hva_t hva;
    uint64_t before = tcache_generation(cpu->tc);
    enum x86_rc rc;

    STAT_INC(cpu, mem_slow);
    if ((desc & MD_X87_STORE) && x87_store_is_dropped(cpu, desc >> MD_X87_SHIFT & 0x3f))
        return (uint64_t)(uintptr_t)bounce_at(cpu, va) - address;
    if (desc & MD_CHECK) {
        rc = cpu->bt->ops.segment_linear(cpu, (enum seg_id)(desc >> MD_SEG_SHIFT & 7), address, size, access, &va);
        if (rc != X86_OK) {
            order_fault(cpu, address, desc);
            return leave(cpu, EXIT_FAULT);
        }
    }
    /* Across two pages it is bounced, though its pages may be known by the TLB alone: they must still be known
     * when the store is completed. */
    if (__builtin_expect((va.v & GUEST_PAGE_MASK) + size > GUEST_PAGE_SIZE, 0) && !cpu->mem_bounced)
        mmu_make_room(cpu);
    rc = mmu_probe(cpu, va, size, access | user, &hva);
    if (rc == X86_OK && tcache_generation(cpu->tc) != before) {
        /* the walk set an A or D bit in a page of code: start again, before a device is touched */
        cpu->icount_left++; /* clock=insn: it is one instruction all the same */
        return leave(cpu, EXIT_POLL);
    }
    if (rc == X86_OK && !hva.p) {
        if (meets_breakpoint(cpu, va, desc, size)) {
            cpu->icount_left++;
            return leave(cpu, EXIT_WATCHED);
        }
        rc = bounce(cpu, va, desc, size, user);
        hva.p = bounce_at(cpu, va);
    }
    if (rc != X86_OK) {
        order_fault(cpu, address, desc);
        return leave(cpu, EXIT_FAULT);
    }
    if (tcache_generation(cpu->tc) != before)
        cpu->run = 0; /* a device changed code when it was read, and must not be read again */
    return (uint64_t)(uintptr_t)hva.p - address;
}

enum exit_reason bt_mem_done(struct vcpu *cpu)
{
    cpu->mem_bounced = 0;
    enum x86_rc rc = mmu_write(cpu, cpu->bounce_va, bounce_at(cpu, cpu->bounce_va), cpu->bounce_len,
                               cpu->cpl == 3 ? ACC_USER : 0);

    ASSERT(rc == X86_OK); /* probed before the instruction ran */
    if (!is_stale(cpu->bt))
        return EXIT_RESUME;
    STAT_INC(cpu, coherency_left);
    cpu->eip = cpu->next_eip;
    return EXIT_DISPATCH;
}
