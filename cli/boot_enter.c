/*
 * The processor state that all our boot protocols ask for: protected mode without paging, flat segments from a
 * GDT in guest memory, interrupts off.
 *
 * Reference: the Linux kernel's documentation, "The Linux/x86 Boot Protocol", section "32-bit Boot
 * Protocol"; Multiboot Specification, "Machine state".
 */
#include <string.h>

#include "base/cpu.h"
#include "cli/image.h"

#define FLAT_CODE_ATTR 0xc09bu /* G D P, code, readable, accessed */
#define FLAT_DATA_ATTR 0xc093u /* G B P, data, writable, accessed */

void boot_enter(struct vcpu *cpu, const struct boot_entry *entry)
{
    struct segment data = { .sel = entry->ds, .attr = FLAT_DATA_ATTR, .limit = 0xffffffffu };

    memset(cpu->gpr, 0, sizeof cpu->gpr);
    cpu->gpr[EAX] = entry->eax;
    cpu->gpr[EBX] = entry->ebx;
    cpu->gpr[ESI] = entry->esi;
    cpu->gpr[ESP] = entry->esp;
    cpu->eip = entry->eip;
    vcpu_eflags_set(cpu, EFL_ONE);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = data;
    cpu->segs[SEG_CS] = (struct segment){ .sel = entry->cs, .attr = FLAT_CODE_ATTR, .limit = 0xffffffffu };
    cpu->gdtr = (struct table_reg){ .base = entry->gdt_base, .limit = entry->gdt_limit };
    cpu->idtr = (struct table_reg){ 0, 0 };
    cpu->cr0 = CR0_PE | CR0_ET;
    cpu->cr3 = cpu->cr4 = 0;
    cpu->cpl = 0;
    vcpu_update_mode(cpu);
}
