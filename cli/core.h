/* An ELF core of the guest, for gdb. */
#ifndef CLI_CORE_H
#define CLI_CORE_H

#include "base/cpu.h"

/**
 * Write registers and memory of the guest as a 32-bit i386 core file. The vector state must be
 * parked; RAM is hosted_ram_new()'s.
 *
 * @param why  A text that goes into a note, such as the report of a triple fault.
 * @return 0 or -errno; the file is not left half written.
 */
int core_write(const char *path, const struct vcpu *cpu, const uint8_t *ram, uint64_t ram_bytes,
               const char *why);

#endif
