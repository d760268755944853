/* The counters as a JSON file. */
#ifndef CLI_STATS_H
#define CLI_STATS_H

#include <stdint.h>

#include "base/stats.h"

/** Write all counters to `path`, whole or not at all. 0 or -errno. */
int stats_write(const char *path, const struct stats *stats, const char *cpu_model, uint64_t run_ns);

#endif
