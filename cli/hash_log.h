/* State hashes at exact instruction counts (-accel bt,clock=insn,hash-log=FILE), for tools/bisect. */
#ifndef CLI_HASH_LOG_H
#define CLI_HASH_LOG_H

#include "base/cpu.h"

struct hash_log_options {
    const char *path;         /* NULL: no log                                          */
    uint64_t every, from, to; /* instructions between lines; the first line; the end    */
    bool regs, mem;           /* registers in plain; a hash of RAM                      */
};

struct hash_log;

/** NULL with errno set when the file can't be written. */
struct hash_log *hash_log_new(const struct hash_log_options *options, const uint8_t *ram, uint64_t ram_bytes);
/** 0, or -errno when something could not be written. */
int hash_log_close(struct hash_log *log);

/** The form of vm_config.checkpoint; ctx is the struct hash_log. */
bool hash_log_checkpoint(void *ctx, struct vcpu *cpu, uint64_t insns);

#endif
