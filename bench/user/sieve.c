/* The primes below 2^20 by Eratosthenes: byte stores with a stride, and a loop of two branches. */
#include "harness.h"

#include <string.h>

enum { LIMIT = 1 << 20 };

const char workload_name[] = "sieve";
const uint32_t workload_expected = 82025; /* pi(2^20), from the literature */

static uint8_t composite[LIMIT];

void workload_setup(void)
{
}

uint32_t workload_run(void)
{
    uint32_t count = 0;
    memset(composite, 0, sizeof composite);
    for (uint32_t i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        count++;
        for (uint32_t k = 2 * i; k < LIMIT; k += i)
            composite[k] = 1;
    }
    return count;
}
