/* Translations as text: -d in_asm, out_asm and `ringdown explain`. */
#ifndef CLI_CODE_LOG_H
#define CLI_CODE_LOG_H

#include "tcache/tcache.h"

struct code_log;

/** Lines go to `line`, or to the log when it is NULL. @return NULL when memory can't be had. */
struct code_log *code_log_new(void (*line)(void *ctx, const char *text), void *ctx);
void code_log_free(struct code_log *log);

/**
 * Print a translation: guest code (LOG_in_asm), host code (LOG_out_asm), or both side by side,
 * as the mask of cpu->log says. The form of bt_ops.translated; ctx is the struct code_log.
 */
void code_log_translated(void *ctx, struct vcpu *cpu, const struct ccf *ccf);

#endif
