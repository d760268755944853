/*
 * The x87's last-instruction pointers as images show them, and the images' layouts.
 *
 * Translated code notes the last instruction's (bt/x87.c); here a noted one becomes what the
 * model shows. A Pentium 4 and later ones keep the opcode only of instructions that met an
 * unmasked exception, newer ones the operand's offset too, and the selectors not at all.
 */
#ifndef MONITOR_X87_H
#define MONITOR_X87_H

#include "base/cpu.h"

#define FSW_ES 0x80u /* status word: an unmasked exception is pending */

struct x87_pointers {
    uint32_t fip, fdp; /* offsets; linear addresses when they came from a real-mode image */
    uint16_t fcs, fds;
    uint16_t fop;      /* 11 bits */
};

/** FNSTENV's image with a 32-bit operand size, as the host stores it too. */
struct x87_env {
    uint32_t control, status, tags;
    uint32_t fip;
    uint32_t fcs_fop; /* selector in the low half, 11 bits of opcode above it */
    uint32_t fdp, fds;
};

/** Bytes of an environment, by operand size. */
#define X87_ENV_BYTES(osize) ((osize) == 2 ? 14u : 28u)

/** Whatever ends the present status (an image, FNCLEX) sees first what became of noted instructions. */
void x87_pointers_update(struct vcpu *cpu, uint16_t status);
void x87_pointers_get(struct vcpu *cpu, uint16_t status, struct x87_pointers *p);
void x87_pointers_set(struct vcpu *cpu, const struct x87_pointers *p);

/** The environment as the present mode lays it out. `host` gives the control words. */
void x87_env_put(const struct vcpu *cpu, const struct x87_env *host, const struct x87_pointers *p, unsigned osize,
                 uint8_t *image);
/** The reverse. */
void x87_env_get(const struct vcpu *cpu, const uint8_t *image, unsigned osize, struct x87_env *host,
                 struct x87_pointers *p);

#endif
