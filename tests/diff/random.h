/*
 * Random numbers for the generators of cases: everything derives from a seed.
 */
#ifndef TESTS_DIFF_RANDOM_H
#define TESTS_DIFF_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s;
};

/** SplitMix64: any seed is a good one. */
static inline uint64_t rnd64(struct rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/** 0 to n - 1. */
static inline uint32_t rnd(struct rng *r, uint32_t n)
{
    return (uint32_t)((rnd64(r) >> 32) * n >> 32);
}

static inline bool chance(struct rng *r, uint32_t percent)
{
    return rnd(r, 100) < percent;
}

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    struct rng r = { a ^ (b * 0xd6e8feb86659fd93ull) };

    return rnd64(&r);
}

/** Where carries, signs, shift counts and decimal digits turn. */
static inline uint32_t boundary_value(struct rng *r)
{
    static const uint32_t values[] = {
        0,           1,           2,           7,           8,           15,          16,
        31,          32,          33,          0x7f,        0x80,        0x81,        0xfe,
        0xff,        0x100,       0x7fff,      0x8000,      0xffff,      0x10000,     0x7fffffff,
        0x80000000u, 0x80000001u, 0xfffffffeu, 0xffffffffu, 0xffffff80u, 0xffff8000u, 0x55555555,
        0xaaaaaaaau, 0x0f0f0f0f,  0x09090909,  0x99999999u, 0x9a9a9a9au,
    };

    return values[rnd(r, sizeof values / sizeof values[0])];
}

#endif
