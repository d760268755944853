/* The C library's string functions on lines of text: short calls, and copies of pages. */
#include "harness.h"

#include <string.h>

enum { LINES = 1500, LINE_BYTES = 256, COPY_BYTES = 64 * 1024 };

const char workload_name[] = "strings";
const uint32_t workload_expected = 0x9c6a758fu; /* the same steps in Python */

static char lines[LINES][LINE_BYTES], copy[LINES][LINE_BYTES];
static uint8_t block[COPY_BYTES + 64];

void workload_setup(void)
{
    uint32_t random = 7;
    for (int i = 0; i < LINES; i++) {
        char *p = lines[i];
        uint32_t words = 3 + (next_random(&random) >> 29);
        while (words--) {
            uint32_t letters = 2 + (next_random(&random) >> 28);
            while (letters--)
                *p++ = (char)('a' + (next_random(&random) >> 8) % 26);
            *p++ = ' ';
        }
        p[-1] = '\0';
    }
    for (uint32_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)i;
}

uint32_t workload_run(void)
{
    uint32_t sum = 0;
    for (int i = 0; i < LINES; i++) {
        uint32_t words = 0;
        strcpy(copy[i], lines[i]);
        for (const char *p = copy[i]; p; p = strchr(p + 1, ' '))
            words++;
        const char *found = strstr(copy[i], "th");
        sum = sum * 31 + words * 256 + strlen(copy[i]);
        sum += (uint32_t)(found ? found - copy[i] : 999) + strcspn(copy[i], "xyz");
        if (i && strcmp(copy[i - 1], copy[i]) < 0)
            sum++;
        sum += memcmp(copy[i], lines[i], strlen(lines[i]) + 1) != 0;
    }
    for (int i = 1; i <= 16; i++) {
        memmove(block + i, block, COPY_BYTES);
        memcpy(copy, block + i, COPY_BYTES);
        memset(block, i, 100);
        sum += block[i] + ((uint8_t *)copy)[COPY_BYTES - 1];
        for (uint32_t k = 0; k < sizeof block; k++)
            block[k] = (uint8_t)k;
    }
    return sum;
}
