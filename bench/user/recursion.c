/* Calls and returns with little in between: Fibonacci's numbers and Takeuchi's function. */
#include "harness.h"

const char workload_name[] = "recursion";
const uint32_t workload_expected = 832047; /* F(30) is 832040, tak(18, 12, 6) is 7 */

static __attribute__((noinline, optimize("no-optimize-sibling-calls"))) uint32_t fib(uint32_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline)) int tak(int x, int y, int z)
{
    return y >= x ? z : tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y));
}

void workload_setup(void)
{
}

uint32_t workload_run(void)
{
    return fib(30) + (uint32_t)tak(18, 12, 6);
}
