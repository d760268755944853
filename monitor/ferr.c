/*
 * x87 errors with CR0.NE clear, as on the PC/AT: the processor asserts FERR# when it meets the next
 * x87 or MMX instruction that waits, the chipset requests IRQ 13, and the processor stands still
 * before that instruction until an interrupt comes. The handler writes port F0h; then IGNNE#
 * lets it execute x87 instructions in spite of the error until it has cleared it.
 *
 * To ignore an error is to run one instruction with all exceptions masked. What that instruction
 * itself meets is masked, too (the manual leaves open what becomes of it).
 *
 * Ref: Intel SDM vol. 1, app. D "Guidelines for Writing SIMD... x87 FPU Exception Handlers",
 * "MS-DOS Compatibility Sub-mode"; vol. 3A, ch. 2, CR0.NE.
 */
#include "base/string.h"
#include "monitor/monitor.h"
#include "monitor/system_internal.h"
#include "monitor/x87.h"

/* Offsets in vcpu->fpu */
#define FX_CONTROL 0
#define FX_STATUS  2

#define FCW_MASKS 0x003fu
#define FSW_BUSY  0x8000u /* shows ES again */

static uint16_t get16(const uint8_t *p)
{
    uint16_t value;

    memcpy(&value, p, 2);
    return value;
}

static void put16(uint8_t *p, unsigned value)
{
    uint16_t word = (uint16_t)value;

    memcpy(p, &word, 2);
}

bool ferr_is_external(const struct vcpu *cpu)
{
    return cpu->fault.vector == EXC_MF && !(cpu->cr0 & CR0_NE);
}

void ferr_raise(struct vcpu *cpu)
{
    cpu->ferr = true;
    machine_ferr(cpu->vm->machine, true);
}

uint16_t ferr_ignore_begin(struct vcpu *cpu)
{
    vcpu_fpu_park(cpu);
    uint16_t control = get16(cpu->fpu + FX_CONTROL);

    x87_pointers_update(cpu, FSW_ES); /* the instruction that failed, before another is noted */
    put16(cpu->fpu + FX_CONTROL, control | FCW_MASKS);
    put16(cpu->fpu + FX_STATUS, get16(cpu->fpu + FX_STATUS) & ~(FSW_ES | FSW_BUSY));
    return control;
}

void ferr_ignore_end(struct vcpu *cpu, uint16_t control)
{
    vcpu_fpu_park(cpu);
    uint16_t now = get16(cpu->fpu + FX_CONTROL), status = get16(cpu->fpu + FX_STATUS);

    if (now == (control | FCW_MASKS)) /* else the instruction has loaded another one */
        now = control;
    put16(cpu->fpu + FX_CONTROL, now);
    if (status & FCW_MASKS & ~now) {
        put16(cpu->fpu + FX_STATUS, status | FSW_ES | FSW_BUSY);
        return;
    }
    cpu->ferr = false;
    machine_ferr(cpu->vm->machine, false);
}
