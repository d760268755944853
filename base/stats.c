/* The rows of the counter list, and the names of callouts. */
#include "base/stats.h"

static const struct stat_info rows[] = {
#define STAT(name, text) { #name, text, offsetof(struct stats, name) },
#include "base/stats_list.h"
#undef STAT
};

const struct stat_info *stats_rows(size_t *count)
{
    *count = sizeof rows / sizeof rows[0];
    return rows;
}

static const char *const callout_names[CALLOUT_COUNT] = {
#define CALLOUT(id, text) [CALLOUT_##id] = "callout_" #id,
#include "base/callout_list.h"
#undef CALLOUT
};

const char *callout_name(enum callout_id id)
{
    return id < CALLOUT_COUNT ? callout_names[id] : "callout_?";
}
