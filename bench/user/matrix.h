/* Two matrices of small whole numbers, whose product is exact in any format: it is checked against integers. */
#include "harness.h"

enum { N = 96 };

static double a[N][N], b[N][N], c[N][N];
static int32_t whole_a[N][N], whole_b[N][N], whole_c[N][N];

void workload_setup(void)
{
    uint32_t random = 7;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            a[i][k] = whole_a[i][k] = (int)(next_random(&random) >> 24) - 128;
            b[i][k] = whole_b[i][k] = (int)(next_random(&random) >> 24) - 128;
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < N; k++)
                whole_c[i][j] += whole_a[i][k] * whole_b[k][j];
}

/** @return 1 if the product in c is the integers' */
static uint32_t product_is_right(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (c[i][j] != whole_c[i][j])
                return 0;
    return 1;
}
