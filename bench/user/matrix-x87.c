/* Matrix product on the x87's stack. */
#include "matrix.h"

const char workload_name[] = "matrix-x87";
const uint32_t workload_expected = 1;

static __attribute__((noinline)) void multiply(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
}

uint32_t workload_run(void)
{
    for (int i = 0; i < 2; i++)
        multiply();
    return product_is_right();
}
