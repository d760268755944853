/*
 * A fuzzer's input as a stream of values. Past its end everything is zero, so that a prefix
 * of an input means the same and libFuzzer can cut inputs short.
 */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct input {
    const uint8_t *p, *end;
};

static inline bool input_left(const struct input *in)
{
    return in->p < in->end;
}

static inline uint8_t take8(struct input *in)
{
    return in->p < in->end ? *in->p++ : 0;
}

static inline uint16_t take16(struct input *in)
{
    uint16_t low = take8(in);

    return (uint16_t)(low | take8(in) << 8);
}

static inline uint32_t take32(struct input *in)
{
    uint32_t low = take16(in);

    return low | (uint32_t)take16(in) << 16;
}

/** A finding: what does not hold, and the end of the process. */
#define REQUIRE(expr, ...)                                                                                   \
    do {                                                                                                     \
        if (!(expr)) {                                                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #expr);                               \
            fprintf(stderr, " " __VA_ARGS__);                                                                \
            fputc('\n', stderr);                                                                             \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
