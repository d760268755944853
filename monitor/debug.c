/*
 * Breakpoints.
 *
 * An instruction breakpoint is a fault, met before anything is known of the instruction but its
 * address; bt asks for each instruction of a page that holds one. Data and I/O breakpoints are
 * traps: an access notes what it meets in cpu->debug_hits, translated code leaves after the
 * instruction, and the run loop delivers #DB before it does anything else. The mmu reports
 * accesses to pages that hold one. Nothing is done for other pages, or while none is enabled.
 *
 *   R/W  met by                         LEN  bytes, aligned to as many
 *   00   an instruction's first byte    00   1
 *   01   writes                         01   2
 *   10   ports, with CR4.DE             10   8 (as in models that have long mode)
 *   11   reads and writes               11   4
 *
 * Where the SDM leaves a choice:
 *  - R/W 10 without CR4.DE is met by nothing; LEN of an instruction breakpoint is ignored;
 *  - an access that meets an enabled breakpoint also sets the bits of those that would have been
 *    met by it but are not enabled;
 *  - the processor's own accesses to descriptors, TSSs and stacks count like an instruction's; page
 *    walks do not, for they have no linear address;
 *  - the trap of a data or I/O breakpoint also tells of a breakpoint of the instruction that follows (an AMD
 *    processor does, and Bochs), the trap of a single step does not (Bochs differs);
 *  - an instruction that faults loses what its accesses met: it will meet that again.
 *
 * Ref: Intel SDM vol. 3B, ch. "Debug, Branch Profile, TSC, ...".
 */
#include "monitor/debug.h"
#include "bt/bt.h"
#include "mmu/mmu.h"

enum break_kind { BREAK_FETCH, BREAK_WRITE, BREAK_PORT, BREAK_ACCESS };

#define BREAKPOINTS 4u

static enum break_kind kind_of(const struct vcpu *cpu, unsigned n)
{
    return (enum break_kind)(cpu->dr[7] >> (16 + 4 * n) & 3u);
}

static bool is_enabled(const struct vcpu *cpu, unsigned n)
{
    return (cpu->dr[7] >> (2 * n) & 3u) != 0;
}

static uint32_t bytes_of(const struct vcpu *cpu, unsigned n)
{
    static const uint8_t bytes[4] = { 1, 2, 8, 4 };

    return bytes[cpu->dr[7] >> (18 + 4 * n) & 3u];
}

/* Do [at, at + size) and the aligned bytes of breakpoint n have one in common? Both may wrap. */
static bool covers(const struct vcpu *cpu, unsigned n, uint32_t at, uint32_t size)
{
    uint32_t bytes = bytes_of(cpu, n), first = cpu->dr[n] & ~(bytes - 1);

    return at - first < bytes || first - at < size;
}

/* Bits of all that are met, if an enabled one is among them. */
static uint32_t if_enabled(const struct vcpu *cpu, uint32_t met)
{
    for (unsigned n = 0; n < BREAKPOINTS; n++)
        if ((met >> n & 1u) && is_enabled(cpu, n))
            return met;
    return 0;
}

static void hit(struct vcpu *cpu, uint32_t met)
{
    met = if_enabled(cpu, met);
    if (!met)
        return;
    cpu->debug_hits |= met;
    bt_leave_after_insn(cpu);
}

bool debug_update(struct vcpu *cpu)
{
    uint32_t fetch[BREAKPOINTS], data[BREAKPOINTS];
    unsigned nfetch = 0, ndata = 0;

    for (unsigned n = 0; n < BREAKPOINTS; n++) {
        if (!is_enabled(cpu, n) || kind_of(cpu, n) == BREAK_PORT)
            continue;
        if (kind_of(cpu, n) == BREAK_FETCH)
            fetch[nfetch++] = cpu->dr[n] >> GUEST_PAGE_SHIFT;
        else
            data[ndata++] = cpu->dr[n] >> GUEST_PAGE_SHIFT;
    }
    bool changes = nfetch + ndata || cpu->has_breakpoints;
    cpu->has_breakpoints = nfetch + ndata != 0;
    if (changes) {
        mmu_watch_pages(cpu, data, ndata);
        bt_break_pages(cpu, fetch, nfetch);
    }
    return changes;
}

uint32_t debug_fetch_hits(const struct vcpu *cpu, gva_t va)
{
    uint32_t met = 0;

    for (unsigned n = 0; n < BREAKPOINTS; n++)
        if (kind_of(cpu, n) == BREAK_FETCH && cpu->dr[n] == va.v)
            met |= 1u << n;
    return if_enabled(cpu, met);
}

enum x86_rc debug_check_fetch(struct vcpu *cpu, gva_t va)
{
    uint32_t met = debug_fetch_hits(cpu, va);

    return met ? debug_raise(cpu, met) : X86_OK;
}

void debug_data_access(struct vcpu *cpu, gva_t va, uint32_t size, bool is_write)
{
    uint32_t met = 0;

    for (unsigned n = 0; n < BREAKPOINTS; n++) {
        enum break_kind kind = kind_of(cpu, n);

        if ((kind == BREAK_ACCESS || (kind == BREAK_WRITE && is_write)) && covers(cpu, n, va.v, size))
            met |= 1u << n;
    }
    hit(cpu, met);
}

void debug_port_check(struct vcpu *cpu, uint16_t port, unsigned size)
{
    uint32_t met = 0;

    for (unsigned n = 0; n < BREAKPOINTS; n++)
        if (kind_of(cpu, n) == BREAK_PORT && covers(cpu, n, port, size))
            met |= 1u << n;
    hit(cpu, met);
}
