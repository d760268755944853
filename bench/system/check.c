/* Runs a user workload once and says what it computed: proves what the guest's compiler has made. */
#include "harness.h"

#include <stdio.h>

int main(void)
{
    workload_setup();
    uint32_t found = workload_run();
    printf("%s 0x%08x\n", workload_name, (unsigned)found);
    return found != workload_expected;
}
