/* What an mmu is given in tests of a machine that has memory and nothing else. */
#ifndef TESTS_BARE_MMU_H
#define TESTS_BARE_MMU_H

#include "mmu/mmu.h"

/** Devices read as all ones; whatever else is reported goes nowhere. */
extern const struct mmu_ops bare_mmu_ops;

#endif
