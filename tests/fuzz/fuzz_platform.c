/*
 * The platform that a fuzzer of a parser needs: a log that goes nowhere. The hosted one is not
 * linked, because its memory helpers would take the sanitizers' place.
 */
#include "platform/platform.h"

void platform_log_write(const char *text, size_t len)
{
    (void)text;
    (void)len;
}
