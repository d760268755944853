/*
 * FNSTENV, FNSAVE and FXSAVE: the x87 images that hold instruction pointers.
 *
 * The guest's x87 and SSE state is live in the host's registers, but the last
 * instruction pointer there is an address in the translation cache. The host's own
 * instruction makes the image in a local buffer, the pointers (FIP, FCS, FDP, FDS) are
 * zeroed and the image goes to the guest. A processor that has just executed FNINIT
 * shows zeros too, and an AMD processor's FXSAVE leaves them out unless an exception
 * is pending, so that software can't rely on them. The opcode (FOP) is kept as the
 * host has it.
 *
 * FNSTENV and FNSAVE change state after they stored the image: the whole destination
 * is probed first, so that a fault finds everything unchanged.
 *
 * The few lines of inline assembly here are the only ones in the engine that touch
 * x87 or SSE state, besides the entry and exit stubs.
 * Ref: Intel SDM vol. 1, ch. 8 "x87 FPU State" (image formats), ch. 10 "FXSAVE".
 */
#include "base/string.h"
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"
#include "monitor/system_internal.h"

/* Bytes of the images */
#define ENV32_BYTES   28u
#define ENV16_BYTES   14u
#define X87_REG_BYTES 80u
#define FXSAVE_BYTES  512u /* the area: checked whole                      */
#define FXSAVE_X87    160u /* control words and x87 registers              */
#define FXSAVE_USED   288u /* and XMM0..7; the guest sees nothing more      */


/* FNSTENV's image with a 32-bit operand size, as the host stores it too. */
struct x87_env {
    uint32_t control, status, tags;
    uint32_t fip;
    uint32_t fcs_fop; /* selector in the low half, 11 bits of opcode above it */
    uint32_t fdp, fds;
};

/* Get the guest's state into the host's registers if it is parked. */
static void make_live(struct vcpu *cpu)
{
    if (cpu->fpu_live)
        return;
    __asm__ volatile("fxrstor64 %0" : : "m"(cpu->fpu));
    cpu->fpu_live = 1;
}

/* #NM comes before everything that the memory operand can earn. */
static enum x86_rc check_available(struct vcpu *cpu)
{
    return cpu->cr0 & (CR0_EM | CR0_TS) ? vcpu_raise(cpu, EXC_NM) : X86_OK;
}

static enum x86_rc probe_destination(struct vcpu *cpu, uint64_t arg, uint32_t ea, unsigned size, gva_t *va)
{
    hva_t hva;
    enum x86_rc rc = segment_linear(cpu, (enum seg_id)carg_seg(arg), ea, size, ACC_WRITE, va);

    return rc != X86_OK ? rc : mmu_probe(cpu, *va, size, ACC_WRITE | cpl_access(cpu->cpl), &hva);
}

/*
 * Lay the environment out for the guest; -> bytes.
 *
 *  32-bit operand size:  control, status, tags, FIP, FOP:FCS, FDP, FDS, a doubleword each;
 *                        in real and VM86 mode the opcode is in bits 0..10 of the fifth
 *  16-bit:               the same as words; the opcode is there in real and VM86 mode only
 */
static unsigned layout_env(const struct vcpu *cpu, const struct x87_env *host, unsigned osize, uint8_t *image)
{
    uint32_t opcode = (host->fcs_fop >> 16) & 0x7ffu;
    bool protected = vcpu_is_protected(cpu);

    if (osize == 2) {
        uint16_t words[7] = { (uint16_t)host->control, (uint16_t)host->status, (uint16_t)host->tags };

        words[4] = (uint16_t)(protected ? 0 : opcode);
        memcpy(image, words, ENV16_BYTES);
        return ENV16_BYTES;
    }
    struct x87_env env = { .control = host->control, .status = host->status, .tags = host->tags };

    env.fcs_fop = protected ? opcode << 16 : opcode;
    env.fds = 0xffff0000u; /* the upper half of the last doubleword reads as ones */
    memcpy(image, &env, ENV32_BYTES);
    return ENV32_BYTES;
}

enum exit_reason callout_fnstenv(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg);
    unsigned size = osize == 2 ? ENV16_BYTES : ENV32_BYTES;
    uint8_t image[ENV32_BYTES];
    struct x87_env env;
    gva_t va;
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK)
        rc = probe_destination(cpu, arg, ea, size, &va);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fnstenv %0" : "=m"(env)); /* masks all exceptions, as the guest's would */
    layout_env(cpu, &env, osize, image);
    rc = mmu_write(cpu, va, image, size, cpl_access(cpu->cpl));
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_fnsave(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg);
    unsigned size = X87_REG_BYTES + (osize == 2 ? ENV16_BYTES : ENV32_BYTES);
    uint8_t image[ENV32_BYTES + X87_REG_BYTES];
    struct {
        struct x87_env env;
        uint8_t regs[X87_REG_BYTES];
    } host;
    gva_t va;
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK)
        rc = probe_destination(cpu, arg, ea, size, &va);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fnsave %0" : "=m"(host)); /* initialises the x87 state, as the guest's would */
    unsigned regs_ofs = layout_env(cpu, &host.env, osize, image);

    memcpy(image + regs_ofs, host.regs, X87_REG_BYTES);
    rc = mmu_write(cpu, va, image, size, cpl_access(cpu->cpl));
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

/* ---- FXSAVE ------------------------------------------------------------------------------ */

/* Offsets in the image */
#define FX_POINTERS   8u /* FIP, FCS, FDP, FDS: 16 bytes */
#define FX_MXCSR      24u
#define FX_MXCSR_MASK 28u
#define FX_REGS       32u

/*
 * A model with SSE stores MXCSR and XMM0..7 whether or not CR4.OSFXSR is set (the manual
 * leaves it open); one without stores the x87 part only. What the area holds beyond
 * that stays as it is.
 */
enum exit_reason callout_fxsave(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint8_t image[FXSAVE_BYTES] __attribute__((aligned(16)));
    unsigned user = cpl_access(cpu->cpl);
    bool has_sse = cpu->vm->model->edx1 & CPUID_SSE;
    uint32_t mxcsr_mask;
    gva_t va;
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK)
        rc = segment_linear(cpu, (enum seg_id)carg_seg(arg), ea, FXSAVE_BYTES, ACC_WRITE, &va);
    if (rc == X86_OK && (va.v & 15))
        rc = vcpu_raise_error(cpu, EXC_GP, 0);
    if (rc == X86_OK)
        rc = probe_destination(cpu, arg, ea, FXSAVE_BYTES, &va);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fxsave %0" : "=m"(image));
    memset(image + FX_POINTERS, 0, FX_MXCSR - FX_POINTERS);
    memcpy(&mxcsr_mask, image + FX_MXCSR_MASK, sizeof mxcsr_mask);
    mxcsr_mask &= cpu_model_mxcsr_mask(cpu->vm->model);
    memcpy(image + FX_MXCSR_MASK, &mxcsr_mask, sizeof mxcsr_mask);
    if (has_sse)
        rc = mmu_write(cpu, va, image, FXSAVE_USED, user);
    else if ((rc = mmu_write(cpu, va, image, FX_MXCSR, user)) == X86_OK)
        rc = mmu_write(cpu, gva_add(va, FX_REGS), image + FX_REGS, FXSAVE_X87 - FX_REGS, user);
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}
