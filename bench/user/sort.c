/* Quicksort of 32 Ki records through a comparison function that the sort gets as a pointer. */
#include "harness.h"

enum { COUNT = 32 * 1024 };

const char workload_name[] = "sort";
const uint32_t workload_expected = 0x22e4a7a8u; /* Python's sorted(), the same sum */

struct record {
    uint32_t key, value;
};

typedef int compare_fn(const struct record *a, const struct record *b);

static struct record input[COUNT], records[COUNT];

static __attribute__((noinline)) int by_key(const struct record *a, const struct record *b)
{
    return (a->key > b->key) - (a->key < b->key);
}

static void swap(struct record *a, struct record *b)
{
    struct record t = *a;
    *a = *b;
    *b = t;
}

/* Hoare's partition around the middle record. The larger part is left to the loop, so that the stack stays low. */
static __attribute__((noinline)) void sort(struct record *low, struct record *high, compare_fn *compare)
{
    while (low < high) {
        struct record pivot = low[(high - low) / 2], *i = low - 1, *j = high + 1;
        for (;;) {
            do
                i++;
            while (compare(i, &pivot) < 0);
            do
                j--;
            while (compare(j, &pivot) > 0);
            if (i >= j)
                break;
            swap(i, j);
        }
        if (j - low < high - j) {
            sort(low, j, compare);
            low = j + 1;
        } else {
            sort(j + 1, high, compare);
            high = j;
        }
    }
}

void workload_setup(void)
{
    uint32_t random = 7;
    for (uint32_t i = 0; i < COUNT; i++)
        input[i] = (struct record){ next_random(&random), i };
}

uint32_t workload_run(void)
{
    compare_fn *volatile compare = by_key; /* volatile: the compiler must not know whom it calls */
    uint32_t sum = 0;
    for (uint32_t i = 0; i < COUNT; i++)
        records[i] = input[i];
    sort(records, records + COUNT - 1, compare);
    for (uint32_t i = 0; i < COUNT; i++)
        sum = sum * 31 + (records[i].value ^ records[i].key);
    return sum;
}
