/* -accel ring1: the boot image in a machine that an emulator makes. */
#ifndef CLI_RING1_H
#define CLI_RING1_H

#include "cli/options.h"

#define RING1_ERROR_BYTES 256u

/** Become the emulator. Returns only when that fails, with one line in `error`: false when an option is not to be had
 *  there, true when something is wrong at run time. */
bool ring1_exec(const struct options *o, char error[RING1_ERROR_BYTES]);

#endif
