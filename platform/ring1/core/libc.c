/* The few functions of the C library that shared sources and the decoder's library call, besides those of
 * platform/common/fpu.c. */
#include <string.h>

#include "platform/ring1/core/ring1.h"

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

int strncmp(const char *a, const char *b, size_t len)
{
    for (; len; a++, b++, len--)
        if (*a != *b || !*a)
            return (unsigned char)*a - (unsigned char)*b;
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

char *strchr(const char *s, int byte)
{
    for (;; s++) {
        if (*s == (char)byte)
            return (char *)(uintptr_t)s;
        if (!*s)
            return NULL;
    }
}

/* Named by functions of xxHash that nobody calls; without optimisation they are linked all the same. */
void *malloc(size_t bytes);
void free(void *p);

void *malloc(size_t bytes)
{
    (void)bytes;
    return NULL;
}

void free(void *p)
{
    (void)p;
}

/* What a library calls when it is wrong. */
_Noreturn void __assert_fail(const char *expr, const char *file, unsigned line, const char *function);
_Noreturn void __assert_fail(const char *expr, const char *file, unsigned line, const char *function)
{
    (void)function;
    platform_assert_failed(expr, file, (int)line);
}

_Noreturn void __stack_chk_fail(void);
_Noreturn void __stack_chk_fail(void)
{
    platform_assert_failed("the stack is intact", "a library", 0);
}
