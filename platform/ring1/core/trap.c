/*
 * Traps: interrupts, calls from ring 1, and faults, which are treated as the hosted platform's signal
 * handlers treat signals. No engine code runs here. A fault in translated code is noted in the vCPU and
 * continues at the exit stub; a page of a reservation that is touched for the first time is filled; anything
 * else is an error of ours and ends the machine with a report.
 *
 * The numbers noted are those of Linux signals, because platform.h's users know these.
 */
#include "platform/ring1/core/core.h"

#include "base/cpu.h"
#include "platform/ring1/core/machine.h"
#include "platform/ring1/core/errno.h"
#include "platform/ring1/core/nucleus.h"
#include "platform/platform.h"

enum { SIG_ILL = 4, SIG_TRAP = 5, SIG_BUS = 7, SIG_FPE = 8, SIG_SEGV = 11 };
enum { CODE_ADDRESS = 1, CODE_KERNEL = 0x80 };
#define HOST_EFL_TF 0x100u
#define HOST_EFL_RF 0x10000u
#define EXCEPTIONS  32u

struct core_world core_world;
struct core_events core_events;
struct core_counters core_counters;

/* ---- faults --------------------------------------------------------------------------------- */

static void signal_of(unsigned vector, int *sig, int *code)
{
    *code = CODE_KERNEL;
    switch (vector) {
    case EXC_DE:
    case EXC_MF:
    case EXC_XM:
        *sig = SIG_FPE;
        break;
    case EXC_UD:
        *sig = SIG_ILL;
        break;
    case EXC_DB:
    case EXC_BP:
        *sig = SIG_TRAP;
        break;
    case EXC_SS:
    case EXC_AC:
        *sig = SIG_BUS;
        break;
    case EXC_PF:
        *sig = SIG_SEGV;
        *code = CODE_ADDRESS;
        break;
    default:
        *sig = SIG_SEGV;
        break;
    }
}

/* Did the instruction fault on its own stack, below what it held? */
static bool is_push(const struct trap_frame *f, uint64_t address)
{
    return f->rsp - address <= 16;
}

/* @return true when ring 1 may go on. */
static bool fault_in_translated_code(struct trap_frame *f, uint64_t address)
{
    struct vcpu *cpu = core_world.cpu;

    if (!cpu || !core_world.exit_stub || !memory_is_code(f->rip))
        return false;
    if (f->vector == EXC_PF && is_push(f, address) && memory_is_guard(address)) {
        f->rsp = cpu->shadow_top;
        core_counters.overflows++;
        return true;
    }
    signal_of((unsigned)f->vector, &cpu->host_signal, &cpu->host_code);
    cpu->host_rip = f->rip;
    cpu->host_addr = f->vector == EXC_PF && address < ARENA ? address + paging_window() : address;
    cpu->host_is_write = f->vector == EXC_PF && (f->error & PF_WR);
    f->rip = core_world.exit_stub;
    f->rflags &= ~(uint64_t)(HOST_EFL_TF | HOST_EFL_RF);
    core_counters.exits++;
    return true;
}

/* The first touch of a reservation's page. */
static bool fill(const struct trap_frame *f, uint64_t address)
{
    if (f->vector != EXC_PF || (f->error & PF_P) || !memory_is_reserved(address))
        return false;
    core_counters.filled++;
    if (paging_back(address & ~(uint64_t)(MACHINE_PAGE - 1), MACHINE_PAGE, 0) < 0)
        core_panic(f, "the memory promised to a reservation is gone");
    memory_promised -= MACHINE_PAGE;
    return true;
}

static void fault(struct trap_frame *f)
{
    uint64_t address = f->vector == EXC_PF ? read_cr2() : 0;

    if (f->vector == EXC_NMI)
        return;
    if ((f->cs & 3) == 1 && (fill(f, address) || fault_in_translated_code(f, address)))
        return;
    core_panic(f, (f->cs & 3) ? "unexpected fault in ring 1" : "unexpected fault in ring 0");
}

/* ---- calls ---------------------------------------------------------------------------------- */

static int64_t call(struct trap_frame *f)
{
    core_counters.calls++;
    switch ((enum nucleus_call)f->rax) {
    case NUC_NOTHING:
        return (int64_t)(f->cs & 3);
    case NUC_LOG:
        log_put((const char *)(uintptr_t)f->rdi, f->rsi);
        return 0;
    case NUC_SERIAL:
        serial_put((const uint8_t *)(uintptr_t)f->rdi, f->rsi);
        return 0;
    case NUC_BACK:
        return memory_has(f->rsi) ? paging_back(f->rdi, f->rsi, f->rdx) : -ENOMEM;
    case NUC_UNMAP:
        return (int64_t)paging_unmap(f->rdi, f->rsi, f->rdx);
    case NUC_SHOW:
        return paging_show(f->rdi, f->rsi, f->rdx, f->r8);
    case NUC_TIMER:
        timer_start(f->rdi);
        return 0;
    case NUC_WAIT:
        if (core_events.any)
            return 0;
        timer_start(f->rdi);
        __asm__ volatile("sti; hlt; cli" : : : "memory");
        return 0;
    case NUC_TREE:
        return f->rdi < WINDOWS_MAX ? paging_tree((unsigned)f->rdi) : -EINVAL;
    case NUC_SELECT:
        if (f->rdi < WINDOWS_MAX)
            paging_select((unsigned)f->rdi);
        return 0;
    case NUC_DIRECT:
        return direct_enter(f, (struct direct_exit *)(uintptr_t)f->rdi) ? (int64_t)f->rax : -EINVAL;
    case NUC_CMOS:
        return cmos_read((uint8_t)f->rdi);
    case NUC_EXIT:
        machine_exit((int)f->rdi);
    case NUC_COUNT:
        break;
    }
    return -EINVAL;
}

/* ---- all of them ------------------------------------------------------------------------------ */

/* The guest's user code was interrupted, or met an exception. NMIs are nobody's. */
static void trap_from_user(struct trap_frame *f)
{
    bool is_interrupt = f->vector >= VECTOR_PIC1 && f->vector < VECTOR_PIC2 + 8;

    if (is_interrupt)
        irq((unsigned)(f->vector - VECTOR_PIC1), f);
    if (f->vector < EXCEPTIONS ? f->vector == EXC_NMI : !is_interrupt || core_world.cpu->run)
        return;
    direct_leave(f, is_interrupt ? DIRECT_INTERRUPTED : (unsigned)f->vector);
}

void trap(struct trap_frame *f)
{
    if ((f->cs & 3) == 3)
        trap_from_user(f);
    else if (f->vector == VECTOR_NUCLEUS)
        f->rax = (uint64_t)call(f);
    else if (f->vector < EXCEPTIONS)
        fault(f);
    else if (f->vector >= VECTOR_PIC1 && f->vector < VECTOR_PIC2 + 8)
        irq((unsigned)(f->vector - VECTOR_PIC1), f);
    /* other vectors: nobody sends them, and a stray one needs no answer */
}
