/*
 * Fuzzer of the decoder: any bytes, both code sizes. The bytes lie in a heap block of their
 * exact length, so that a read beyond them is an error; what the header promises is checked
 * for every instruction found.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "decoder/decoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_fields(const struct insn *in, size_t avail)
{
    require(in->len >= 1 && in->len <= 15 && in->len <= avail);
    require(in->info != NULL && in->info->cls <= CLASS_UNAVAILABLE && in->info->callout <= CALLOUT_COUNT);
    require(in->osize == 1 || in->osize == 2 || in->osize == 4);
    require(in->asize == 2 || in->asize == 4);
    require(in->seg < SEG_COUNT && in->mod <= 3 && in->reg <= 7 && in->rm <= 7);
    require(in->base <= 7 || in->base == 0xff);
    require(in->index <= 7 || in->index == 0xff);
    require(!in->has_mem || in->mem_size == 0 || in->mem_access != 0);
    require(in->mem_size <= 512 || in->info->cls == CLASS_UNAVAILABLE);
}

/* -> length, or 1 to go on after bytes that are no instruction. */
static size_t check_one(const uint8_t *bytes, size_t avail, bool code32)
{
    struct insn in, again;

    if (decode_insn(bytes, avail, code32, &in) != DECODE_OK)
        return 1;
    check_fields(&in, avail);
    require(decode_insn(bytes, in.len, code32, &again) == DECODE_OK);
    require(!memcmp(&in, &again, sizeof(in)));
    require(decode_insn(bytes, in.len - 1u, code32, &again) == DECODE_TRUNCATED);
    return in.len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    bool code32 = data[0] & 1;
    uint8_t *bytes = malloc(size - 1);
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, size - 1);
    for (size_t ofs = 0; ofs < size - 1;)
        ofs += check_one(bytes + ofs, size - 1 - ofs, code32);
    free(bytes);
    return 0;
}
