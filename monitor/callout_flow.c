/*
 * Callouts on control transfers: software interrupts and IRET, far JMP, CALL and RET,
 * SYSENTER and SYSEXIT.
 *
 * Operands are unpacked here and mode rules applied; the transfers themselves are in
 * transfer.c, interrupt.c and iret.c. All of them go on through the dispatcher.
 *
 * Ref: Intel SDM vol. 2 under each instruction; vol. 3A, ch. "8086 Emulation", Class 3 -
 * Software Interrupt Handling in Virtual-8086 Mode.
 */
#include "base/string.h"
#include "monitor/callouts.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

#define TSS32_IOMAP     0x66u
#define REDIRECTION_MAP 32u /* bytes, just below the I/O map */

static enum exit_reason transferred(enum x86_rc rc)
{
    return rc == X86_OK ? EXIT_DISPATCH : exit_failed(rc);
}

/* ---- software interrupts ------------------------------------------------------------------ */

static enum x86_rc soft_interrupt(struct vcpu *cpu, uint8_t vector)
{
    const struct event e = { .vector = vector, .is_soft = true, .return_eip = cpu->next_eip };

    return event_deliver(cpu, &e);
}

/*
 * VME: does the redirection bitmap send this vector to the 8086 program itself? The bit is
 * clear then. A TSS too short to hold the map redirects nothing.
 */
static enum x86_rc vme_redirects(struct vcpu *cpu, uint8_t vector, bool *redirects)
{
    uint16_t iomap;
    uint8_t bits;
    uint32_t ofs;
    enum x86_rc rc;

    *redirects = false;
    if (!(cpu->tr.attr & 8u) || cpu->tr.limit < TSS32_IOMAP + 1)
        return X86_OK;
    rc = mmu_read_system(cpu, gva(cpu->tr.base + TSS32_IOMAP), &iomap, sizeof iomap);
    if (rc != X86_OK || iomap < REDIRECTION_MAP)
        return rc;
    ofs = iomap - REDIRECTION_MAP + vector / 8u;
    if (ofs > cpu->tr.limit)
        return X86_OK;
    rc = mmu_read_system(cpu, gva(cpu->tr.base + ofs), &bits, 1);
    *redirects = rc == X86_OK && !((bits >> (vector & 7u)) & 1u);
    return rc;
}

/* FLAGS as the 8086 program sees them, and what becomes of them in its handler. */
static uint32_t vme_flags(const struct vcpu *cpu)
{
    uint32_t fl = vcpu_eflags_get(cpu);

    if (vcpu_iopl(cpu) == 3)
        return fl;
    return (fl & ~EFL_IF) | EFL_IOPL | ((fl & EFL_VIF) ? EFL_IF : 0u);
}

/* Through the interrupt table of the 8086 program, at linear address 0; no ring is left. */
static enum x86_rc vme_interrupt(struct vcpu *cpu, uint8_t vector)
{
    struct stack st = stack_current(cpu, 0);
    struct segment cs;
    struct frame f;
    uint16_t entry[2]; /* offset, segment */
    enum x86_rc rc;

    frame_begin(&f, 2);
    frame_add(&f, vme_flags(cpu));
    frame_add(&f, cpu->segs[SEG_CS].sel);
    frame_add(&f, cpu->next_eip);
    rc = mmu_read(cpu, gva(vector * 4u), entry, sizeof entry, ACC_USER);
    if (rc == X86_OK)
        rc = stack_check(cpu, &st, &f);
    if (rc == X86_OK)
        rc = stack_write(cpu, &st, &f);
    if (rc != X86_OK)
        return rc;
    cpu->gpr[ESP] = st.sp;
    if (vcpu_iopl(cpu) == 3)
        cpu->eflags_if = 0;
    else
        cpu->eflags_sys &= ~EFL_VIF;
    cpu->eflags_sys &= ~EFL_TF;
    cpu->debug_hits &= ~DR6_BS;
    cs = segment_vm86(entry[1]);
    transfer_enter(cpu, &cs, entry[0], 3);
    return X86_OK;
}

static enum x86_rc vm86_int_n(struct vcpu *cpu, uint8_t vector)
{
    bool redirects = false;
    enum x86_rc rc = X86_OK;

    if (cpu->cr4 & CR4_VME)
        rc = vme_redirects(cpu, vector, &redirects);
    if (rc != X86_OK)
        return rc;
    if (redirects)
        return vme_interrupt(cpu, vector);
    if (vcpu_iopl(cpu) < 3)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    return soft_interrupt(cpu, vector);
}

enum exit_reason callout_int_n(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint8_t vector = (uint8_t)carg_imm(arg);

    (void)ea;
    if (cpu->eflags_sys & EFL_VM)
        return transferred(vm86_int_n(cpu, vector));
    return transferred(soft_interrupt(cpu, vector));
}

/* INT3 and INTO do not heed IOPL in virtual-8086 mode, and are not redirected. */
enum exit_reason callout_int3(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum x86_rc rc = soft_interrupt(cpu, EXC_BP);

    (void)arg;
    (void)ea;
    if (rc == X86_OK)
        cpu->stats.exception[EXC_BP]++;
    return transferred(rc);
}

enum exit_reason callout_into(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum x86_rc rc;

    (void)arg;
    (void)ea;
    if (!(vcpu_arith_get(cpu) & EFL_OF))
        return EXIT_RESUME;
    rc = soft_interrupt(cpu, EXC_OF);
    if (rc == X86_OK)
        cpu->stats.exception[EXC_OF]++;
    return transferred(rc);
}

/* INT1 is a #DB trap: no DPL check, EXT is 1, DR6 stays as it is. */
enum exit_reason callout_int1(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    const struct event e = { .vector = EXC_DB, .return_eip = cpu->next_eip };
    enum x86_rc rc = event_deliver(cpu, &e);

    (void)arg;
    (void)ea;
    if (rc == X86_OK)
        cpu->stats.exception[EXC_DB]++;
    return transferred(rc);
}

enum exit_reason callout_iret(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return transferred(interrupt_return(cpu, carg_osize(arg)));
}

/* ---- far transfers ---------------------------------------------------------------------------- */

static enum x86_rc far_target(struct vcpu *cpu, uint64_t arg, uint32_t ea, uint16_t *sel, uint32_t *off)
{
    unsigned width = carg_osize(arg) == 2 ? 2 : 4;
    uint8_t raw[6];
    enum x86_rc rc;

    *sel = carg_imm2(arg);
    *off = carg_imm(arg);
    if (!carg_is_mem(arg))
        return X86_OK;
    rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, raw, width + 2);
    if (rc != X86_OK)
        return rc;
    *off = 0;
    memcpy(off, raw, width);
    memcpy(sel, raw + width, 2);
    return X86_OK;
}

enum exit_reason callout_call_far(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint16_t sel;
    uint32_t off;
    enum x86_rc rc = far_target(cpu, arg, ea, &sel, &off);

    return transferred(rc == X86_OK ? far_call(cpu, sel, off, carg_osize(arg)) : rc);
}

enum exit_reason callout_jmp_far(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint16_t sel;
    uint32_t off;
    enum x86_rc rc = far_target(cpu, arg, ea, &sel, &off);

    return transferred(rc == X86_OK ? far_jump(cpu, sel, off, carg_osize(arg)) : rc);
}

enum exit_reason callout_ret_far(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return transferred(far_return(cpu, carg_osize(arg), carg_imm(arg) & 0xffffu));
}

/* ---- fast system calls --------------------------------------------------------------------------- */

#define FLAT_RIGHTS (DESC_G | DESC_DB | DESC_P | DESC_S | DESC_ACCESSED)

/* Flat segments that SYSENTER and SYSEXIT load without looking at a table. */
static struct segment flat_code(uint16_t sel, unsigned dpl)
{
    return (struct segment){ .sel = sel,
                             .limit = UINT32_MAX,
                             .attr =
                                 (uint16_t)(FLAT_RIGHTS | DESC_CODE | DESC_READ | dpl << DESC_DPL_SHIFT) };
}

static struct segment flat_stack(uint16_t sel, unsigned dpl)
{
    return (struct segment){ .sel = sel,
                             .limit = UINT32_MAX,
                             .attr = (uint16_t)(FLAT_RIGHTS | DESC_WRITE | dpl << DESC_DPL_SHIFT) };
}

enum exit_reason callout_sysenter(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint16_t sel = (uint16_t)(cpu->sysenter_cs & SEL_ERROR_MASK);
    struct segment cs = flat_code(sel, 0);

    (void)arg;
    (void)ea;
    if (!(cpu->cr0 & CR0_PE) || sel == 0)
        return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
    cpu->eflags_sys &= ~(EFL_VM | EFL_RF);
    cpu->eflags_if = 0;
    cpu->gpr[ESP] = cpu->sysenter_esp;
    vcpu_x87_settle(cpu);
    cpu->segs[SEG_SS] = flat_stack((uint16_t)(sel + 8), 0);
    transfer_enter(cpu, &cs, cpu->sysenter_eip, 0);
    return EXIT_DISPATCH;
}

enum exit_reason callout_sysexit(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint16_t sel = (uint16_t)(cpu->sysenter_cs & SEL_ERROR_MASK);
    struct segment cs = flat_code((uint16_t)((sel + 16) | 3), 3);

    (void)arg;
    (void)ea;
    if (!(cpu->cr0 & CR0_PE) || sel == 0 || cpu->cpl != 0)
        return exit_failed(vcpu_raise_error(cpu, EXC_GP, 0));
    cpu->gpr[ESP] = cpu->gpr[ECX];
    vcpu_x87_settle(cpu);
    cpu->segs[SEG_SS] = flat_stack((uint16_t)((sel + 24) | 3), 3);
    transfer_enter(cpu, &cs, cpu->gpr[EDX], 3);
    return EXIT_DISPATCH;
}
