/*
 * x87, MMX and SSE instructions that store, load or reset more than registers: environments
 * and images, whose pointers are the guest's and not the host's (x87.c); FNINIT and FNCLEX,
 * which change what those show; LDMXCSR, whose reserved bits are the model's.
 *
 * The guest's x87 and SSE state is live in the host's registers. The host's own instruction
 * works on a local buffer; the pointers are put in, or taken out and kept. FLDENV and FRSTOR
 * are preceded by a pending exception, the FN forms, FXSAVE and FXRSTOR are not.
 *
 * What changes state after it has stored probes its whole destination first, so that a fault
 * finds everything unchanged.
 *
 * The few lines of inline assembly here are the only ones in the engine that touch x87 or SSE
 * state, besides the entry and exit stubs.
 * Ref: Intel SDM vol. 1, ch. 8 "x87 FPU State" (image formats), ch. 10 "FXSAVE"; AMD
 * publication 26569, FXSAVE and FXRSTOR.
 */
#include "base/string.h"
#include "monitor/callout_internal.h"
#include "monitor/callouts.h"
#include "monitor/system_internal.h"
#include "monitor/x87.h"

/* Bytes of the images */
#define X87_REG_BYTES 80u
#define FXSAVE_BYTES  512u /* the area: checked whole                      */
#define FXSAVE_X87    160u /* control words and x87 registers              */
#define FXSAVE_USED   288u /* and XMM0..7; the guest sees nothing more      */

/* FNSAVE's image as the host stores it. */
struct x87_state {
    struct x87_env env;
    uint8_t regs[X87_REG_BYTES];
};

/* Get the guest's state into the host's registers if it is parked. */
static void make_live(struct vcpu *cpu)
{
    if (cpu->fpu_live)
        return;
    __asm__ volatile("fxrstor64 %0" : : "m"(cpu->fpu));
    cpu->fpu_live = 1;
}

static uint16_t status_word(struct vcpu *cpu)
{
    uint16_t status;

    make_live(cpu);
    __asm__ volatile("fnstsw %0" : "=m"(status));
    return status;
}

/* Whatever ends the pending exception takes FERR# back. */
static void status_changed(struct vcpu *cpu)
{
    if (!cpu->ferr || (status_word(cpu) & FSW_ES))
        return;
    cpu->ferr = false;
    machine_ferr(cpu->vm->machine, false);
}

/* #NM comes before everything that the memory operand can earn. */
static enum x86_rc check_available(struct vcpu *cpu)
{
    return cpu->cr0 & (CR0_EM | CR0_TS) ? vcpu_raise(cpu, EXC_NM) : X86_OK;
}

/* And then, for what waits, a pending exception. */
static enum x86_rc check_waiting(struct vcpu *cpu)
{
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK && (status_word(cpu) & FSW_ES))
        rc = vcpu_raise(cpu, EXC_MF);
    return rc;
}

static enum x86_rc probe_destination(struct vcpu *cpu, uint64_t arg, uint32_t ea, unsigned size, gva_t *va)
{
    hva_t hva;
    enum x86_rc rc = segment_linear(cpu, (enum seg_id)carg_seg(arg), ea, size, ACC_WRITE, va);

    if (rc != X86_OK)
        return rc;
    mmu_make_room(cpu);
    return mmu_probe(cpu, *va, size, ACC_WRITE | cpl_access(cpu->cpl), &hva);
}

/* ---- environments --------------------------------------------------------------------------- */

enum exit_reason callout_fnstenv(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg), size = X87_ENV_BYTES(osize);
    uint8_t image[sizeof(struct x87_env)];
    struct x87_pointers pointers;
    struct x87_env env;
    gva_t va;
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK)
        rc = probe_destination(cpu, arg, ea, size, &va);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fnstenv %0" : "=m"(env)); /* masks all exceptions, as the guest's would */
    x87_pointers_get(cpu, (uint16_t)env.status, &pointers);
    x87_env_put(cpu, &env, &pointers, osize, image);
    status_changed(cpu);
    rc = mmu_write(cpu, va, image, size, cpl_access(cpu->cpl));
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_fnsave(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg), regs_ofs = X87_ENV_BYTES(osize);
    uint8_t image[sizeof(struct x87_state)];
    struct x87_pointers pointers;
    struct x87_state host;
    gva_t va;
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK)
        rc = probe_destination(cpu, arg, ea, regs_ofs + X87_REG_BYTES, &va);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fnsave %0" : "=m"(host)); /* initialises the x87 state, as the guest's would */
    x87_pointers_get(cpu, (uint16_t)host.env.status, &pointers);
    x87_env_put(cpu, &host.env, &pointers, osize, image);
    memcpy(image + regs_ofs, host.regs, X87_REG_BYTES);
    x87_pointers_set(cpu, &(struct x87_pointers){ 0 });
    status_changed(cpu);
    rc = mmu_write(cpu, va, image, regs_ofs + X87_REG_BYTES, cpl_access(cpu->cpl));
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_fldenv(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg);
    uint8_t image[sizeof(struct x87_env)];
    struct x87_pointers pointers;
    struct x87_env env;
    enum x86_rc rc = check_waiting(cpu);

    if (rc == X86_OK)
        rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, image, X87_ENV_BYTES(osize));
    if (rc != X86_OK)
        return exit_failed(rc);
    x87_env_get(cpu, image, osize, &env, &pointers);
    make_live(cpu);
    __asm__ volatile("fldenv %0" : : "m"(env));
    x87_pointers_set(cpu, &pointers);
    status_changed(cpu);
    return EXIT_RESUME;
}

enum exit_reason callout_frstor(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    unsigned osize = carg_osize(arg), regs_ofs = X87_ENV_BYTES(osize);
    uint8_t image[sizeof(struct x87_state)];
    struct x87_pointers pointers;
    struct x87_state host;
    enum x86_rc rc = check_waiting(cpu);

    if (rc == X86_OK)
        rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, image, regs_ofs + X87_REG_BYTES);
    if (rc != X86_OK)
        return exit_failed(rc);
    x87_env_get(cpu, image, osize, &host.env, &pointers);
    memcpy(host.regs, image + regs_ofs, X87_REG_BYTES);
    make_live(cpu);
    __asm__ volatile("frstor %0" : : "m"(host));
    x87_pointers_set(cpu, &pointers);
    status_changed(cpu);
    return EXIT_RESUME;
}

enum exit_reason callout_fninit(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum x86_rc rc = check_available(cpu);

    (void)arg, (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fninit");
    x87_pointers_set(cpu, &(struct x87_pointers){ 0 });
    status_changed(cpu);
    return EXIT_RESUME;
}

enum exit_reason callout_fnclex(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    enum x86_rc rc = check_available(cpu);

    (void)arg, (void)ea;
    if (rc != X86_OK)
        return exit_failed(rc);
    x87_pointers_update(cpu, status_word(cpu));
    __asm__ volatile("fnclex");
    status_changed(cpu);
    return EXIT_RESUME;
}

/* ---- FXSAVE, FXRSTOR, LDMXCSR ------------------------------------------------------------------ */

/* Offsets in the image */
#define FX_STATUS     2u
#define FX_FOP        6u
#define FX_FIP        8u
#define FX_FCS        12u
#define FX_FDP        16u
#define FX_FDS        20u
#define FX_MXCSR      24u
#define FX_MXCSR_MASK 28u
#define FX_REGS       32u

static void put16(uint8_t *p, uint16_t value)
{
    memcpy(p, &value, 2);
}

static void put32(uint8_t *p, uint32_t value)
{
    memcpy(p, &value, 4);
}

static uint16_t get16(const uint8_t *p)
{
    uint16_t value;

    memcpy(&value, p, 2);
    return value;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, 4);
    return value;
}

/* AMD's processors of that time leave the pointers out of FXSAVE and FXRSTOR unless an exception is
 * pending: an image then holds zeros, and what is loaded keeps those of before. */
static bool leaves_pointers_out(const struct vcpu *cpu, const uint8_t *image)
{
    return cpu->vm->model->vendor == VENDOR_AMD && !(get16(image + FX_STATUS) & FSW_ES);
}

static void put_fx_pointers(struct vcpu *cpu, uint8_t *image)
{
    struct x87_pointers p;

    x87_pointers_get(cpu, get16(image + FX_STATUS), &p);
    if (leaves_pointers_out(cpu, image))
        p = (struct x87_pointers){ 0 };
    put16(image + FX_FOP, p.fop);
    put32(image + FX_FIP, p.fip);
    put32(image + FX_FCS, p.fcs);
    put32(image + FX_FDP, p.fdp);
    put32(image + FX_FDS, p.fds);
}

static void get_fx_pointers(struct vcpu *cpu, const uint8_t *image)
{
    if (leaves_pointers_out(cpu, image))
        return;
    x87_pointers_set(cpu, &(struct x87_pointers){ .fip = get32(image + FX_FIP),
                                                  .fdp = get32(image + FX_FDP),
                                                  .fcs = get16(image + FX_FCS),
                                                  .fds = get16(image + FX_FDS),
                                                  .fop = get16(image + FX_FOP) });
}

static bool has_sse(const struct vcpu *cpu)
{
    return cpu->vm->model->edx1 & CPUID_SSE;
}

static enum x86_rc check_alignment(struct vcpu *cpu, uint64_t arg, uint32_t ea, unsigned access, gva_t *va)
{
    enum x86_rc rc = check_available(cpu);

    if (rc == X86_OK)
        rc = segment_linear(cpu, (enum seg_id)carg_seg(arg), ea, FXSAVE_BYTES, access, va);
    if (rc == X86_OK && (va->v & 15))
        rc = vcpu_raise_error(cpu, EXC_GP, 0);
    return rc;
}

/*
 * A model with SSE stores and loads MXCSR and XMM0..7 whether or not CR4.OSFXSR is set (the
 * manual leaves it open); one without has the x87 part only. What the area holds beyond
 * that stays as it is.
 */
enum exit_reason callout_fxsave(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint8_t image[FXSAVE_BYTES] __attribute__((aligned(16)));
    unsigned user = cpl_access(cpu->cpl);
    gva_t va;
    enum x86_rc rc = check_alignment(cpu, arg, ea, ACC_WRITE, &va);

    if (rc == X86_OK)
        rc = probe_destination(cpu, arg, ea, FXSAVE_BYTES, &va);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fxsave %0" : "=m"(image));
    put_fx_pointers(cpu, image);
    put32(image + FX_MXCSR_MASK, get32(image + FX_MXCSR_MASK) & cpu_model_mxcsr_mask(cpu->vm->model));
    if (has_sse(cpu))
        rc = mmu_write(cpu, va, image, FXSAVE_USED, user);
    else if ((rc = mmu_write(cpu, va, image, FX_MXCSR, user)) == X86_OK)
        rc = mmu_write(cpu, gva_add(va, FX_REGS), image + FX_REGS, FXSAVE_X87 - FX_REGS, user);
    return rc == X86_OK ? EXIT_RESUME : exit_failed(rc);
}

enum exit_reason callout_fxrstor(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint8_t image[FXSAVE_BYTES], host[FXSAVE_BYTES] __attribute__((aligned(16)));
    gva_t va;
    enum x86_rc rc = check_alignment(cpu, arg, ea, ACC_READ, &va);

    if (rc == X86_OK)
        rc = mmu_read(cpu, va, image, FXSAVE_BYTES, cpl_access(cpu->cpl));
    if (rc == X86_OK && has_sse(cpu) && (get32(image + FX_MXCSR) & ~cpu_model_mxcsr_mask(cpu->vm->model)))
        rc = vcpu_raise_error(cpu, EXC_GP, 0);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("fxsave64 %0" : "=m"(host)); /* what the image does not hold stays as it is */
    memcpy(host, image, FX_FOP);
    if (has_sse(cpu))
        memcpy(host + FX_MXCSR, image + FX_MXCSR, 4);
    memcpy(host + FX_REGS, image + FX_REGS, (has_sse(cpu) ? FXSAVE_USED : FXSAVE_X87) - FX_REGS);
    __asm__ volatile("fxrstor64 %0" : : "m"(host));
    get_fx_pointers(cpu, image);
    status_changed(cpu);
    return EXIT_RESUME;
}

enum exit_reason callout_ldmxcsr(struct vcpu *cpu, uint64_t arg, uint32_t ea)
{
    uint32_t value;
    enum x86_rc rc = vcpu_read(cpu, (enum seg_id)carg_seg(arg), ea, &value, 4);

    if (rc == X86_OK && (value & ~cpu_model_mxcsr_mask(cpu->vm->model)))
        rc = vcpu_raise_error(cpu, EXC_GP, 0);
    if (rc != X86_OK)
        return exit_failed(rc);
    make_live(cpu);
    __asm__ volatile("ldmxcsr %0" : : "m"(value));
    return EXIT_RESUME;
}
