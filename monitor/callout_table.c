/*
 * The table that leads from a callout's id to its function. It is made from the
 * same list as the enum, so that neither can lack a row of the other.
 */
#include "monitor/callouts.h"
#include "monitor/monitor.h"

callout_fn *const callout_table[CALLOUT_COUNT] = {
#define CALLOUT(id, text) [CALLOUT_##id] = callout_##id,
#include "base/callout_list.h"
#undef CALLOUT
};
