/*
 * Port input and output: IN, OUT, INS, OUTS.
 *
 * Whether the port may be used is asked first (IOPL, then the TSS's permission map),
 * then whether the memory operand may be accessed, and only then is the device
 * touched: a device access can't be taken back. The repeated forms update ECX, ESI
 * and EDI after each element, so that a fault or an interrupt between two elements
 * finds the exact state.
 * Ref: Intel SDM vol. 1, ch. "Input/Output"; vol. 2, under the instructions' names.
 */
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"
#include "monitor/debug.h"

/* ---- permission ---------------------------------------------------------------------- */

#define TSS32_IOMAP_OFS 102u
#define TSS32_MIN_LIMIT 103u

static bool is_tss32(const struct segment *tr)
{
    unsigned type = tr->attr & (DESC_S | DESC_TYPE);

    return (tr->attr & DESC_P) && (type == SYS_TSS32_AVAIL || type == SYS_TSS32_BUSY);
}

/*
 * One bit a port, 0: allowed. The processor reads two bytes, so that an access of four
 * ports never needs a second look; both must lie within the TSS's limit.
 */
static enum x86_rc check_permission_map(struct vcpu *cpu, uint16_t port, unsigned size)
{
    uint16_t map, bits;

    if (!is_tss32(&cpu->tr) || cpu->tr.limit < TSS32_MIN_LIMIT)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    enum x86_rc rc = mmu_read_system(cpu, gva(cpu->tr.base + TSS32_IOMAP_OFS), &map, 2);

    if (rc != X86_OK)
        return rc;
    uint32_t ofs = map + (uint32_t)(port >> 3);

    if (ofs + 1 > cpu->tr.limit)
        return vcpu_raise_error(cpu, EXC_GP, 0);
    if ((rc = mmu_read_system(cpu, gva(cpu->tr.base + ofs), &bits, 2)) != X86_OK)
        return rc;
    if ((bits >> (port & 7)) & ((1u << size) - 1))
        return vcpu_raise_error(cpu, EXC_GP, 0);
    return X86_OK;
}

static enum x86_rc check_port(struct vcpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->cr0 & CR0_PE))
        return X86_OK;
    if (!(cpu->eflags_sys & EFL_VM) && cpu->cpl <= vcpu_iopl(cpu))
        return X86_OK;
    return check_permission_map(cpu, port, size);
}

/* ---- one access ------------------------------------------------------------------------ */

static uint32_t port_read(struct vcpu *cpu, uint16_t port, unsigned size)
{
    struct bus_request req = { .space = BUS_PORT, .size = (uint8_t)size, .addr = port };

    STAT_INC(cpu, port_read);
    machine_bus(cpu->vm->machine, &req);
    debug_port_access(cpu, port, size);
    return req.data;
}

static void port_write(struct vcpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    struct bus_request req = {
        .space = BUS_PORT, .size = (uint8_t)size, .is_write = true, .addr = port, .data = value
    };

    STAT_INC(cpu, port_write);
    machine_bus(cpu->vm->machine, &req);
    debug_port_access(cpu, port, size);
}

/* Did the device raise an interrupt that can be taken, move memory, set a nearer timer, or end the run? */
static bool wants_dispatcher(const struct vcpu *cpu)
{
    uint32_t code;

    if (cpu->intr_quiet == 0 && cpu->eflags_if)
        return true;
    if (cpu->vm->memory_moved) /* perhaps under the code that follows */
        return true;
    if (machine_next_deadline(cpu->vm->machine) < cpu->vm->armed_ns)
        return true;
    return machine_stop_requested(cpu->vm->machine, &code) != STOP_NONE;
}

/* The port is DX, or an immediate byte: rm tells, see base/callout.h. */
static uint16_t operand_port(const struct vcpu *cpu, uint64_t arg)
{
    return (uint16_t)(carg_rm(arg) == EDX ? cpu->gpr[EDX] : carg_imm(arg));
}

enum exit_reason callout_in(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned size = carg_osize(arg);
    uint16_t port = operand_port(cpu, arg);
    enum x86_rc rc = check_port(cpu, port, size);

    (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    uint32_t value = port_read(cpu, port, size);

    if (size == 1)
        cpu->gpr[EAX] = (cpu->gpr[EAX] & ~0xffu) | (value & 0xffu);
    else
        set_reg(cpu, EAX, size, value);
    return wants_dispatcher(cpu) ? end_dispatch_next(cpu) : EXIT_RESUME;
}

enum exit_reason callout_out(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned size = carg_osize(arg);
    uint16_t port = operand_port(cpu, arg);
    enum x86_rc rc = check_port(cpu, port, size);

    (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    port_write(cpu, port, size, cpu->gpr[EAX] & (UINT32_MAX >> (32 - 8 * size)));
    return wants_dispatcher(cpu) ? end_dispatch_next(cpu) : EXIT_RESUME;
}

/* ---- strings ------------------------------------------------------------------------------ */

struct io_string {
    uint64_t arg;
    uint32_t mask; /* of offsets and count: the address size */
    uint32_t step; /* added to the offset, modulo 2^32       */
    unsigned size;
    uint16_t port;
};

static uint32_t masked(uint32_t old, uint32_t value, uint32_t mask)
{
    return (old & ~mask) | (value & mask);
}

/* INS: the destination is probed before the device is read, so that no input is lost. */
static enum x86_rc ins_element(struct vcpu *cpu, const struct io_string *s)
{
    gva_t va;
    hva_t hva;
    unsigned user = cpl_access(cpu->cpl);
    enum x86_rc rc = segment_linear(cpu, SEG_ES, cpu->gpr[EDI] & s->mask, s->size, ACC_WRITE, &va);

    if (rc != X86_OK)
        return rc;
    if ((va.v & GUEST_PAGE_MASK) + s->size > GUEST_PAGE_SIZE)
        mmu_make_room(cpu);
    rc = mmu_probe(cpu, va, s->size, ACC_WRITE | user, &hva);
    if (rc != X86_OK)
        return rc;
    uint32_t value = port_read(cpu, s->port, s->size);

    if ((rc = mmu_write(cpu, va, &value, s->size, user)) == X86_OK)
        cpu->gpr[EDI] = masked(cpu->gpr[EDI], cpu->gpr[EDI] + s->step, s->mask);
    return rc;
}

static enum x86_rc outs_element(struct vcpu *cpu, const struct io_string *s)
{
    uint32_t value = 0;
    enum x86_rc rc = vcpu_read(cpu, (enum seg_id)carg_seg(s->arg), cpu->gpr[ESI] & s->mask, &value, s->size);

    if (rc != X86_OK)
        return rc;
    port_write(cpu, s->port, s->size, value);
    cpu->gpr[ESI] = masked(cpu->gpr[ESI], cpu->gpr[ESI] + s->step, s->mask);
    return X86_OK;
}

static enum exit_reason io_string(struct vcpu *cpu, uint64_t arg,
                                  enum x86_rc (*element)(struct vcpu *cpu, const struct io_string *s))
{
    struct io_string s = { .arg = arg,
                           .size = carg_osize(arg),
                           .port = (uint16_t)cpu->gpr[EDX],
                           .mask = carg_asize(arg) == 2 ? 0xffffu : UINT32_MAX };
    bool repeats = carg_rep(arg) != REP_NONE, a20_off = cpu->a20_off;
    uint32_t code_stores = cpu->code_stores;
    enum x86_rc rc;

    s.step = cpu->eflags_df ? 0u - s.size : s.size;
    if ((rc = check_port(cpu, s.port, s.size)) != X86_OK) /* though the count be 0: so processors do */
        return exit_failed(rc);
    if (repeats && !(cpu->gpr[ECX] & s.mask))
        return EXIT_RESUME;
    for (;;) {
        if ((rc = element(cpu, &s)) != X86_OK)
            return exit_failed(rc);
        if (repeats)
            cpu->gpr[ECX] = masked(cpu->gpr[ECX], cpu->gpr[ECX] - 1, s.mask);
        if (!repeats || !(cpu->gpr[ECX] & s.mask))
            return wants_dispatcher(cpu) || cpu->a20_off != a20_off ? end_dispatch_next(cpu) : EXIT_RESUME;
        if (must_make_way(cpu) || wants_dispatcher(cpu) || cpu->code_stores != code_stores) /* it may be another now */
            return end_repeating(cpu); /* EIP is still that of the instruction: it goes on there */
    }
}

enum exit_reason callout_ins(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return io_string(cpu, arg, ins_element);
}

enum exit_reason callout_outs(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    (void)ea;
    return io_string(cpu, arg, outs_element);
}
