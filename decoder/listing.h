/*
 * Guest and host instructions as text, for logs and `ringdown explain`.
 *
 * Hosted only (it uses Capstone and libc), outside the engine. Host operands are
 * resolved: a field of the virtual CPU by its name in base/vcpu_layout.h, an
 * address by whatever the caller's symbolizer knows.
 */
#ifndef DECODER_LISTING_H
#define DECODER_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum listing_mode { LISTING_GUEST16, LISTING_GUEST32, LISTING_HOST64, LISTING_MODE_COUNT };

#define LISTING_TEXT_BYTES 160u /* enough for any line this module makes */

struct listing;

/** Names of host addresses; either function may be NULL. */
struct listing_names {
    void *ctx;
    /** @return the name of a code address or of a constant, or NULL. Lives until the next call. */
    const char *(*address)(void *ctx, uint64_t address);
};

/** Code of one translation unit and what it became. */
struct listing_pair {
    uint32_t guest_ofs, host_ofs; /* both from the start; sorted by host_ofs */
};

struct listing_block {
    const uint8_t *guest;
    size_t guest_len;
    uint32_t guest_eip;
    bool code32;
    const uint8_t *host;
    size_t host_len;
    uint64_t host_address;            /* where host[0] runs                             */
    const struct listing_pair *pairs; /* a guest_ofs of guest_len: no guest instruction */
    size_t npairs;
    struct listing_names names;
};

/** @return NULL when memory can't be had. */
struct listing *listing_new(void);
void listing_free(struct listing *l);

/**
 * Format one instruction.
 *
 * @param text  At least LISTING_TEXT_BYTES.
 * @return its length in bytes; 1 with a ".byte" line when the bytes are no instruction; 0
 *         when len is 0.
 */
size_t listing_insn(struct listing *l, enum listing_mode mode, const uint8_t *bytes, size_t len,
                    uint64_t address, const struct listing_names *names, char *text);

/** Guest instructions on the left, their host code on the right; one call of `line` per line
 *  (no newline in it). */
void listing_print_block(struct listing *l, const struct listing_block *block,
                         void (*line)(void *ctx, const char *text), void *ctx);

#endif
