/*
 * The guest's user code as it is, at CPL 3 in compatibility mode, on descriptors at the guest's own selectors.
 *
 * Ring 1 calls direct_run; ring 0 puts the vCPU's registers into the frame of that call, whose IRETQ then leads to
 * user code. The next trap from CPL 3 that is not for ring 0 alone stores them back, and its IRETQ leads behind the
 * call. So nothing in ring 1 is half way between the two, and interrupts are off from the look at vcpu->run to user
 * code.
 *
 * What user code can name is the guest's part of our GDT. A descriptor there is code or data of DPL 3 with L clear:
 * L set would be 64-bit mode, in which the whole address space can be named, and everything else than code and data
 * is a gate or a table that only the guest's own would be right for. There is no LDT. IOPL is 0 and no port is open.
 *
 * Ref: Intel SDM vol. 3A, ch. "Protected-Mode Memory Management" (segment descriptors in IA-32e mode), "Interrupt and
 * Exception Handling" (IRET in IA-32e mode).
 */
#include "base/cpu.h"
#include "base/string.h"
#include "platform/platform.h"
#include "platform/ring1/core/core.h"
#include "platform/ring1/core/machine.h"
#include "platform/ring1/core/nucleus.h"

/* Of a descriptor's upper doubleword. */
#define HI_ACCESSED 0x00000100u
#define HI_WRITE    0x00000200u /* data; of code: readable       */
#define HI_CONFORM  0x00000400u /* code; of data: expand-down    */
#define HI_CODE     0x00000800u
#define HI_S        0x00001000u
#define HI_DPL3     0x00006000u
#define HI_P        0x00008000u
#define HI_L        0x00200000u
#define SELECTOR_TI 4u
#define SELECTOR_RPL 3u
#define USER_FLAGS  (EFL_ARITH | EFL_DF | EFL_NT | EFL_AC | EFL_ID)
#define DR6_IDLE    0xffff0ff0u

static struct {
    struct trap_frame caller; /* ring 1, in its call */
    struct direct_exit *out;
    uint64_t since;           /* TSC */
} direct;

/* ---- descriptors ---------------------------------------------------------------------------- */

static uint64_t for_user(uint64_t raw)
{
    const uint32_t need = HI_P | HI_S | HI_DPL3 | HI_ACCESSED;
    uint32_t hi = (uint32_t)(raw >> 32);

    return (hi & need) == need ? raw & ~((uint64_t)HI_L << 32) : 0;
}

static void direct_descriptors(const uint64_t *gdt, unsigned count)
{
    uint64_t *ours = descriptors_of_guest();

    for (unsigned i = 1; i < DIRECT_DESCRIPTORS; i++)
        ours[i] = i < count ? for_user(gdt[i]) : 0;
}

/* The upper doubleword of what `sel` names; 0 when nothing that user code may load. */
static uint32_t rights(uint16_t sel)
{
    unsigned i = sel / 8;

    return i >= DIRECT_DESCRIPTORS || (sel & SELECTOR_TI) ? 0 : (uint32_t)(descriptors_of_guest()[i] >> 32);
}

/* What IRETQ and the loads before it would refuse must not get that far: it would be ring 0's fault. */
static bool can_load(const struct segment *segs)
{
    uint32_t cs = rights(segs[SEG_CS].sel), ss = rights(segs[SEG_SS].sel);

    if (!(cs & HI_CODE) || (segs[SEG_CS].sel & SELECTOR_RPL) != 3 || (cs & HI_CONFORM))
        return false;
    if ((ss & (HI_CODE | HI_WRITE)) != HI_WRITE || (segs[SEG_SS].sel & SELECTOR_RPL) != 3)
        return false;
    for (int i = 0; i < SEG_COUNT; i++) {
        uint32_t hi = rights(segs[i].sel);
        if (i != SEG_CS && segs[i].sel > 3 && (!hi || (hi & (HI_CODE | HI_WRITE)) == HI_CODE))
            return false;
    }
    return true;
}

/* ---- there and back ------------------------------------------------------------------------- */

static void load_data_segments(uint16_t ds, uint16_t es, uint16_t fs, uint16_t gs)
{
    __asm__ volatile("mov %w0, %%ds\n\t"
                     "mov %w1, %%es\n\t"
                     "mov %w2, %%fs\n\t"
                     "mov %w3, %%gs"
                     :
                     : "r"(ds), "r"(es), "r"(fs), "r"(gs)
                     : "memory");
}

bool direct_enter(struct trap_frame *f, struct direct_exit *out)
{
    struct vcpu *cpu = core_world.cpu;

    if (!cpu || !can_load(cpu->segs))
        return false;
    direct.out = out;
    direct.caller = *f;
    direct.caller.rax = 0;
    if (!cpu->run) {
        out->vector = DIRECT_INTERRUPTED;
        f->rax = 0;
        return true;
    }
    if (!cpu->fpu_live)
        __asm__ volatile("fxrstor64 %0" : : "m"(cpu->fpu));
    cpu->fpu_live = 1;
    load_data_segments(cpu->segs[SEG_DS].sel, cpu->segs[SEG_ES].sel, cpu->segs[SEG_FS].sel, cpu->segs[SEG_GS].sel);
    memset(f, 0, sizeof *f); /* R8 to R15 stay what they are in compatibility mode: they are nobody's */
    f->rax = cpu->gpr[EAX];
    f->rcx = cpu->gpr[ECX];
    f->rdx = cpu->gpr[EDX];
    f->rbx = cpu->gpr[EBX];
    f->rsp = cpu->gpr[ESP];
    f->rbp = cpu->gpr[EBP];
    f->rsi = cpu->gpr[ESI];
    f->rdi = cpu->gpr[EDI];
    f->rip = cpu->eip;
    f->cs = cpu->segs[SEG_CS].sel;
    f->ss = cpu->segs[SEG_SS].sel;
    f->rflags = (vcpu_eflags_get(cpu) & USER_FLAGS) | EFL_IF | EFL_ONE;
    core_counters.user_entries++;
    direct.since = read_tsc();
    return true;
}

/* An exception's frame has RF set for a fault; the guest's own is clear, or we were not here. */
static void store(struct vcpu *cpu, const struct trap_frame *f)
{
    uint16_t ds, es, fs, gs;

    __asm__ volatile("mov %%ds, %w0\n\t"
                     "mov %%es, %w1\n\t"
                     "mov %%fs, %w2\n\t"
                     "mov %%gs, %w3"
                     : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
    cpu->gpr[EAX] = (uint32_t)f->rax;
    cpu->gpr[ECX] = (uint32_t)f->rcx;
    cpu->gpr[EDX] = (uint32_t)f->rdx;
    cpu->gpr[EBX] = (uint32_t)f->rbx;
    cpu->gpr[ESP] = (uint32_t)f->rsp;
    cpu->gpr[EBP] = (uint32_t)f->rbp;
    cpu->gpr[ESI] = (uint32_t)f->rsi;
    cpu->gpr[EDI] = (uint32_t)f->rdi;
    cpu->eip = (uint32_t)f->rip;
    vcpu_eflags_set(cpu, (uint32_t)(f->rflags & (USER_FLAGS | EFL_TF)) | EFL_IF);
    cpu->segs[SEG_CS].sel = (uint16_t)f->cs;
    cpu->segs[SEG_SS].sel = (uint16_t)f->ss;
    cpu->segs[SEG_DS].sel = ds;
    cpu->segs[SEG_ES].sel = es;
    cpu->segs[SEG_FS].sel = fs;
    cpu->segs[SEG_GS].sel = gs;
}

void direct_leave(struct trap_frame *f, unsigned vector)
{
    core_counters.user_ticks += read_tsc() - direct.since;
    store(core_world.cpu, f);
    *direct.out = (struct direct_exit){ .vector = vector, .error = (uint32_t)f->error };
    if (vector == DIRECT_INTERRUPTED) {
        core_counters.user_interrupts++;
    } else if (vector == EXC_PF) {
        core_counters.user_faults++;
        direct.out->address = (uint32_t)read_cr2();
    } else {
        core_counters.user_exceptions++;
    }
    if (vector == EXC_DB) {
        direct.out->dr6 = (uint32_t)read_dr6() & DR6_BS;
        write_dr6(DR6_IDLE);
    }
    load_data_segments(0, 0, 0, 0);
    descriptors_restore_fs();
    *f = direct.caller;
}

static bool direct_run(struct vcpu *cpu, struct direct_exit *out)
{
    (void)cpu;
    return nucleus(NUC_DIRECT, (uint64_t)(uintptr_t)out, 0, 0, 0) == 0;
}

const struct direct_ops ring1_direct = { .descriptors = direct_descriptors, .run = direct_run };
