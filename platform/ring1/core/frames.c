/*
 * Machine memory, page by page: ranges that nobody has touched yet are cut from their low end, pages that
 * came back are kept in a list that runs through the pages themselves.
 */
#include "platform/ring1/core/core.h"

#define RANGES_MAX 64u

static struct {
    uint64_t start, end;
} range[RANGES_MAX];
static unsigned nranges;
static uint64_t free_list, nfree;

void frames_add(uint64_t start, uint64_t end)
{
    start = (start + MACHINE_PAGE - 1) & ~(uint64_t)(MACHINE_PAGE - 1);
    end &= ~(uint64_t)(MACHINE_PAGE - 1);
    if (start >= end || nranges == RANGES_MAX)
        return;
    range[nranges].start = start;
    range[nranges++].end = end;
}

uint64_t frame_take(void)
{
    uint64_t pa = free_list;

    if (pa) {
        free_list = *(uint64_t *)physmap(pa);
        nfree--;
        return pa;
    }
    for (unsigned i = 0; i < nranges; i++) {
        if (range[i].start == range[i].end)
            continue;
        pa = range[i].start;
        range[i].start += MACHINE_PAGE;
        return pa;
    }
    return 0;
}

/* What lies below the aligned piece is given away page by page later. */
uint64_t frame_take_large(void)
{
    for (unsigned i = 0; i < nranges; i++) {
        uint64_t pa = (range[i].start + LARGE_PAGE - 1) & ~(uint64_t)(LARGE_PAGE - 1);
        if (pa + LARGE_PAGE > range[i].end)
            continue;
        for (uint64_t p = range[i].start; p < pa; p += MACHINE_PAGE)
            frame_give(p);
        range[i].start = pa + LARGE_PAGE;
        return pa;
    }
    return 0;
}

void frame_give(uint64_t pa)
{
    *(uint64_t *)physmap(pa) = free_list;
    free_list = pa;
    nfree++;
}

uint64_t frames_left(void)
{
    uint64_t bytes = nfree * MACHINE_PAGE;

    for (unsigned i = 0; i < nranges; i++)
        bytes += range[i].end - range[i].start;
    return bytes;
}
