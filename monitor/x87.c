/*
 * x87 pointers and environment images: see x87.h. Registers of the x87 are not touched here.
 *
 * Ref: Intel SDM vol. 1, ch. 8 "x87 FPU Instruction and Data (Operand) Pointers", "Last
 * Instruction Opcode", and the figures of the images; AMD publication 26569, FXSAVE.
 */
#include "monitor/x87.h"
#include "base/string.h"
#include "monitor/monitor.h"

#define MISC_ENABLE_FOP_COMPAT 4u

static bool keeps_every_opcode(const struct vcpu *cpu)
{
    return !cpu->vm->model->fop_on_exception || (cpu->misc_enable & MISC_ENABLE_FOP_COMPAT);
}

void x87_pointers_update(struct vcpu *cpu, uint16_t status)
{
    vcpu_x87_settle(cpu);
    if ((cpu->x87_fop & X87_NEW) && ((status & FSW_ES) || keeps_every_opcode(cpu)))
        cpu->x87_fop_shown = cpu->x87_fop & 0x7ffu;
    bool had_exception = (status & FSW_ES) && (cpu->x87_fop & X87_MEMORY);
    if ((cpu->x87_seg & X87_NEW) && (had_exception || !cpu->vm->model->fdp_on_exception))
        cpu->x87_fdp = cpu->x87_ea;
    cpu->x87_fop &= (uint16_t)~X87_NEW;
    cpu->x87_seg &= (uint16_t)~X87_NEW;
}

void x87_pointers_get(struct vcpu *cpu, uint16_t status, struct x87_pointers *p)
{
    bool selectors = !cpu->vm->model->no_fcs_fds;

    x87_pointers_update(cpu, status);
    *p = (struct x87_pointers){ .fip = cpu->x87_fip,
                                .fdp = cpu->x87_fdp,
                                .fcs = selectors ? cpu->x87_fcs : 0,
                                .fds = selectors ? cpu->x87_fds : 0,
                                .fop = cpu->x87_fop_shown };
}

void x87_pointers_set(struct vcpu *cpu, const struct x87_pointers *p)
{
    cpu->x87_fip = p->fip;
    cpu->x87_fdp = p->fdp;
    cpu->x87_fcs = p->fcs;
    cpu->x87_fds = p->fds;
    cpu->x87_fop_shown = p->fop & 0x7ffu;
    cpu->x87_fop = cpu->x87_seg = 0;
}

/*
 *  protected mode, 32 bits: control, status, tags, FIP, FOP:FCS, FDP, FDS, a doubleword each
 *                  16 bits: control, status, tags, FIP, FCS, FDP, FDS, a word each
 *  real and virtual-8086 mode have linear addresses, their bits from 16 up above the opcode:
 *                  32 bits: FIP 15..0, FIP 31..16 << 12 | FOP, FDP 15..0, FDP 31..16 << 12
 *                  16 bits: the same in words; addresses of 20 bits
 */
void x87_env_put(const struct vcpu *cpu, const struct x87_env *host, const struct x87_pointers *p, unsigned osize,
                 uint8_t *image)
{
    bool is_protected = vcpu_is_protected(cpu);
    uint32_t fip = p->fip, fdp = p->fdp;
    uint32_t fip_high = p->fcs, fdp_high = p->fds;

    if (!is_protected) {
        uint32_t ip = fip + ((uint32_t)p->fcs << 4), dp = fdp + ((uint32_t)p->fds << 4);

        fip = ip & 0xffffu;
        fdp = dp & 0xffffu;
        fip_high = (ip >> 16 << 12) | p->fop;
        fdp_high = dp >> 16 << 12;
    }
    if (osize == 2) {
        uint16_t words[7] = { (uint16_t)host->control, (uint16_t)host->status, (uint16_t)host->tags,
                              (uint16_t)fip,           (uint16_t)fip_high,     (uint16_t)fdp,
                              (uint16_t)fdp_high };

        memcpy(image, words, sizeof words);
        return;
    }
    struct x87_env env = { .control = host->control, .status = host->status, .tags = host->tags };

    env.fip = is_protected ? fip : fip | 0xffff0000u; /* unused halves read as ones */
    env.fcs_fop = is_protected ? fip_high | (uint32_t)p->fop << 16 : fip_high;
    env.fdp = is_protected ? fdp : fdp | 0xffff0000u;
    env.fds = is_protected ? fdp_high | 0xffff0000u : fdp_high;
    memcpy(image, &env, sizeof env);
}

void x87_env_get(const struct vcpu *cpu, const uint8_t *image, unsigned osize, struct x87_env *host,
                 struct x87_pointers *p)
{
    bool is_protected = vcpu_is_protected(cpu);
    struct x87_env env;
    uint16_t words[7];

    if (osize == 2) {
        memcpy(words, image, sizeof words);
        env = (struct x87_env){ words[0], words[1], words[2], words[3], words[4], words[5], words[6] };
    } else {
        memcpy(&env, image, sizeof env);
    }
    *host = (struct x87_env){ .control = env.control, .status = env.status, .tags = env.tags };
    if (is_protected)
        *p = (struct x87_pointers){ .fip = env.fip,
                                    .fdp = env.fdp,
                                    .fcs = (uint16_t)env.fcs_fop,
                                    .fds = (uint16_t)env.fds,
                                    .fop = (uint16_t)(env.fcs_fop >> 16 & 0x7ffu) };
    else
        *p = (struct x87_pointers){ .fip = (env.fip & 0xffffu) | (env.fcs_fop & 0x0ffff000u) << 4,
                                    .fdp = (env.fdp & 0xffffu) | (env.fds & 0x0ffff000u) << 4,
                                    .fop = (uint16_t)(env.fcs_fop & 0x7ffu) };
}
