/* The events of code that changes (-accel bt,coherency-log=FILE). docs/coherency.md has the format. */
#ifndef CLI_COHERENCY_LOG_H
#define CLI_COHERENCY_LOG_H

#include "bt/bt.h"
#include "cli/options.h"

struct coherency_log_file;

/** @param most    events in the file; those after them are counted only.
 *  @param policy  what coherency= says, for the file's first line.
 *  @return NULL with negative errno in *rc. */
struct coherency_log_file *coherency_log_new(const char *path, uint64_t most, enum accel_coherency policy,
                                             bool clock_insn, int *rc);
/** End the file: it appears under its name now. 0, or -errno when something could not be written, and
 *  then it is as it was. NULL is fine. */
int coherency_log_close(struct coherency_log_file *log);

/** The form of vm_config.coherency_events; ctx is the struct coherency_log_file. */
void coherency_log_events(void *ctx, struct vcpu *cpu, const struct coherency_event *events, uint32_t count,
                          uint64_t lost);
/** The machine ends; what comes is the next one after a reset, whose time begins anew. NULL is fine. */
void coherency_log_power_off(struct coherency_log_file *log);

#endif
