/*
 * Prototypes of the callout functions, made from the one list of them. The
 * functions themselves live in monitor/callout_*.c, one file per family.
 */
#ifndef MONITOR_CALLOUTS_H
#define MONITOR_CALLOUTS_H

#include "base/callout.h"

#define CALLOUT(id, text) callout_fn callout_##id;
#include "base/callout_list.h"
#undef CALLOUT

#endif
