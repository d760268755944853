/*
 * What the host's processor offers to translated code, asked once.
 *
 * FSGSBASE is usable only when the kernel allows it too (AT_HWCAP2).
 * Reference: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E.
 */
#include <cpuid.h>
#include <sys/auxv.h>

#include "platform/hosted/hosted_internal.h"

#define HWCAP2_KERNEL_FSGSBASE 2u

void hosted_features(struct host_features *out, bool baseline)
{
    unsigned a, b, c, d;

    *out = (struct host_features){ 0 };
    if (baseline)
        return;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        out->bmi2 = (b >> 8) & 1u;
        out->erms = (b >> 9) & 1u;
        out->fsgsbase = (b & 1u) && (getauxval(AT_HWCAP2) & HWCAP2_KERNEL_FSGSBASE);
    }
    if (__get_cpuid(0x80000001u, &a, &b, &c, &d))
        out->lahf64 = c & 1u;
}
