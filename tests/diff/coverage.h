/*
 * Which forms of instructions the generator makes: see coverage.c.
 */
#ifndef TESTS_DIFF_COVERAGE_H
#define TESTS_DIFF_COVERAGE_H

#include <stdbool.h>
#include <stdint.h>

struct gen;

/** Generate cases, without running them, and print which forms came with which prefixes. -> were there all? */
bool coverage_print(const struct gen *g, uint64_t seed, uint64_t cases);

#endif
