/* Translations as they are made: -d in_asm and out_asm, and perf's symbol map. */
#ifndef CLI_CODE_LOG_H
#define CLI_CODE_LOG_H

#include "tcache/tcache.h"

struct code_log;

/** @return NULL when memory can't be had. */
struct code_log *code_log_new(void);
void code_log_free(struct code_log *log);

/** Guest code (LOG_in_asm), host code (LOG_out_asm) or both side by side, as the mask of
 *  cpu->log says, go to the log. false: no memory. */
bool code_log_listings(struct code_log *log);

/** Symbols of translated code go to /tmp/perf-PID.map. 0 or -errno. */
int code_log_perf_map(struct code_log *log);

/** The form of bt_ops.translated; ctx is the struct code_log. */
void code_log_translated(void *ctx, struct vcpu *cpu, const struct ccf *ccf);

#endif
