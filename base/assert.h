/*
 * ASSERT states an invariant of ours. It stays on in dev and CI builds and has
 * no side effect. Guest input never reaches it.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include "platform/platform.h"

#ifdef VMM_NO_ASSERT
#define ASSERT(expr) ((void)sizeof(!(expr)))
#else
#define ASSERT(expr) \
    do { \
        if (__builtin_expect(!(expr), 0)) \
            platform_assert_failed(#expr, __FILE__, __LINE__); \
    } while (0)
#endif

#endif
