/* Dependent loads: a list in random order, within the first cache (16 KiB) and then beyond it (512 KiB). */
#include "harness.h"

enum { NEAR = 2 * 1024, FAR = 64 * 1024, NEAR_STEPS = 600 * 1024, FAR_STEPS = 150 * 1024 };

const char workload_name[] = "chase";
const uint32_t workload_expected = 0x4b997f58u; /* the same walk in Python */

struct node {
    struct node *next;
    uint32_t value;
};

static struct node near_list[NEAR], far_list[FAR];

/* One cycle through all nodes, by Sattolo's shuffle. */
static void link_at_random(struct node *nodes, uint32_t count, uint32_t *random)
{
    for (uint32_t i = 0; i < count; i++)
        nodes[i] = (struct node){ &nodes[i], i };
    for (uint32_t i = count - 1; i > 0; i--) {
        uint32_t k = (next_random(random) >> 8) % i;
        struct node *t = nodes[i].next;
        nodes[i].next = nodes[k].next;
        nodes[k].next = t;
    }
}

static __attribute__((noinline)) uint32_t walk(const struct node *p, uint32_t steps)
{
    uint32_t sum = 0;
    for (; steps; steps--, p = p->next)
        sum = sum * 3 + p->value;
    return sum;
}

void workload_setup(void)
{
    uint32_t random = 7;
    link_at_random(near_list, NEAR, &random);
    link_at_random(far_list, FAR, &random);
}

uint32_t workload_run(void)
{
    return walk(near_list, NEAR_STEPS) ^ walk(far_list, FAR_STEPS);
}
