/* Matrix product in pairs of doubles. */
#include "matrix.h"

#include <emmintrin.h>

const char workload_name[] = "matrix-sse2";
const uint32_t workload_expected = 1;

static __attribute__((noinline)) void multiply(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j += 4) {
            __m128d left = _mm_setzero_pd(), right = _mm_setzero_pd();
            for (int k = 0; k < N; k++) {
                __m128d factor = _mm_set1_pd(a[i][k]);
                left = _mm_add_pd(left, _mm_mul_pd(factor, _mm_loadu_pd(&b[k][j])));
                right = _mm_add_pd(right, _mm_mul_pd(factor, _mm_loadu_pd(&b[k][j + 2])));
            }
            _mm_storeu_pd(&c[i][j], left);
            _mm_storeu_pd(&c[i][j + 2], right);
        }
}

uint32_t workload_run(void)
{
    for (int i = 0; i < 8; i++)
        multiply();
    return product_is_right();
}
