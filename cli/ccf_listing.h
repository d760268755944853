/*
 * One CCF as text: guest code beside its translation, everything by name. For the logs
 * in_asm and out_asm, and for `ringdown explain`.
 */
#ifndef CLI_CCF_LISTING_H
#define CLI_CCF_LISTING_H

#include <stdbool.h>

#include "base/cpu.h"
#include "tcache/tcache.h"

#define CCF_LINE_BYTES 256u

struct ccf_listing;

/** What to show of a CCF. Guest and host code together stand side by side. */
struct ccf_view {
    bool guest, host;
    bool entries; /* the code before the first instruction, and islands              */
    bool cold;    /* slow paths and the ways out                                      */
    bool offsets; /* of host code: +0x000 from the start of its part                  */
};

/** Gets one line without its newline. */
typedef void ccf_line_fn(void *ctx, const char *text);

/** @return NULL when memory can't be had. */
struct ccf_listing *ccf_listing_new(void);
void ccf_listing_free(struct ccf_listing *l);

/** Guest bytes of a CCF, from RAM; what is no RAM reads as FF. @return how many, at most `size`. */
size_t ccf_guest_bytes(struct vcpu *cpu, const struct ccf *ccf, uint8_t *buf, size_t size);

void ccf_listing_print(struct ccf_listing *l, struct vcpu *cpu, const struct ccf *ccf,
                       const struct ccf_view *view, ccf_line_fn *line, void *ctx);

/** "32-bit, CPL 0" and what else a translation depends on. */
const char *ccf_mode_text(uint32_t mode, char *buf, size_t size);

#endif
