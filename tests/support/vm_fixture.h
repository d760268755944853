/*
 * A whole VM for tests that run guest code without booting anything: a few MiB of RAM,
 * protected mode with paging on, flat segments, and a kernel of one instruction sequence:
 * every exception and interrupt saves its frame and stops the machine.
 *
 * Guest linear memory: whatever the test maps below VM_FIXTURE_KERNEL, and the fixture's
 * own supervisor page range there. Nothing else is present.
 */
#ifndef TESTS_SUPPORT_VM_FIXTURE_H
#define TESTS_SUPPORT_VM_FIXTURE_H

#include "monitor/monitor.h"

#define VM_FIXTURE_RAM    (8u << 20)
#define VM_FIXTURE_KERNEL 0xe1230000u /* an address that hardly a random operand hits */
#define VM_FIXTURE_KERNEL_BYTES 0x20000u

struct vm_fixture_options {
    struct bt_options bt;
    bool host_baseline;
    const char *cpu_model; /* NULL: the default */
};

struct vm_fixture {
    struct vm *vm;
    struct vcpu *cpu;
    uint8_t *ram;
};

/** What the kernel found on its stack. */
struct vm_fixture_frame {
    uint32_t gpr[8]; /* ESP is the interrupted one */
    uint32_t vector, error, eip, cs, eflags, esp, ss;
};

enum vm_fixture_end { VM_FIXTURE_EXCEPTION, VM_FIXTURE_OTHER };

/** One VM a process: the platform is started with it. NULL when it can't be had. */
struct vm_fixture *vm_fixture_new(const struct vm_fixture_options *options);
void vm_fixture_free(struct vm_fixture *fx);

/** Map linear page `va` (below 8 MiB: to the PA of the same number). PTE_* bits; 0 unmaps. */
void vm_fixture_map(struct vm_fixture *fx, uint32_t va, uint32_t pte_flags);

/** Place a descriptor in the GDT (index 3 to 15) or LDT (0 to 15). */
void vm_fixture_gdt_set(struct vm_fixture *fx, unsigned index, uint32_t base, uint32_t limit, uint16_t attr);
void vm_fixture_ldt_set(struct vm_fixture *fx, unsigned index, uint32_t base, uint32_t limit, uint16_t attr);

/** Load a segment register, hidden part and all, as if the selector had been loaded. */
void vm_fixture_load_segment(struct vm_fixture *fx, enum seg_id seg, uint16_t sel);

/** Make CPL, mode and view agree with the segments loaded; call after loading CS. */
void vm_fixture_enter(struct vm_fixture *fx);

/** Run until an exception or interrupt reaches the kernel. Anything else: `text` says what. */
enum vm_fixture_end vm_fixture_run(struct vm_fixture *fx, struct vm_fixture_frame *frame, char *text,
                                   size_t size);

#endif
