/* Counters: one struct made from one list (stats_list.h). */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "base/callout.h"

struct stats {
#define STAT(name, text) uint64_t name;
#include "base/stats_list.h"
#undef STAT
    uint64_t callout[CALLOUT_COUNT];
    uint64_t exception[32];
    uint64_t exit[EXIT_REASON_COUNT];
};

#define STAT_INC(cpu, name) ((void)((cpu)->stats.name++))
#define STAT_ADD(cpu, name, n) ((void)((cpu)->stats.name += (uint64_t)(n)))

/** One row of the list, for printing. */
struct stat_info {
    const char *name, *text;
    size_t offset; /* in struct stats */
};

/** The rows of stats_list.h in order; *count gets their number. */
const struct stat_info *stats_rows(size_t *count);

#endif
