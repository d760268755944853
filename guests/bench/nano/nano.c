/*
 * The nanobenchmarks: measurement. One line a place:
 *
 *     event NAME place ADDRESS samples N cost C p10 C p90 C chain BEFORE AFTER wide BEFORE AFTER
 *
 * Costs are hundredths of a TSC cycle an event, the median of N samples and their tenth and ninetieth
 * percentiles, without the loop around them. The chain is 4096 dependent additions timed before and after, in
 * TSC cycles, so that cost x 4096 / chain is in core clocks; `wide` grows when the core is shared (struct
 * speed). Then `ok NAME` if every event of every run happened.
 *
 * Words on the command line: `short` (few samples, one place: for tests), `quick`, `pick` with names of
 * events.
 */
#include "nano.h"

#define SAMPLES_MOST 101

uint32_t nano_tsc(void)
{
    uint32_t low;

    __asm__ volatile("rdtsc" : "=a"(low) : : "edx");
    return low;
}

uint32_t nano_ratio(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t high, low, quotient;

    __asm__("mull %3" : "=d"(high), "=a"(low) : "a"(a), "r"(b));
    if (high >= c)
        return 0xffffffffu;
    __asm__("divl %3" : "=a"(quotient), "+d"(high) : "a"(low), "r"(c));
    return quotient;
}

void nano_sort(uint32_t *v, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        uint32_t x = v[i];
        unsigned k = i;

        for (; k && v[k - 1] > x; k--)
            v[k] = v[k - 1];
        v[k] = x;
    }
}

static uint32_t least_of(uint32_t (*run)(void))
{
    uint32_t least = 0xffffffffu;

    for (unsigned i = 0; i < 7; i++) {
        uint32_t t = run();

        if (t < least)
            least = t;
    }
    return least;
}

struct speed nano_speed(void)
{
    extern uint32_t nano_chain_run(void), nano_wide_run(void);

    return (struct speed){ least_of(nano_chain_run), least_of(nano_wide_run) };
}

void nano_report(const char *name, uint32_t place, uint32_t *v, unsigned n, struct speed before)
{
    struct speed after = nano_speed();

    nano_sort(v, n);
    say("event %s place %x samples %u cost %u p10 %u p90 %u chain %u %u wide %u %u\n", name, place, n,
        v[n / 2], v[n / 10], v[n - 1 - n / 10], before.chain, after.chain, before.wide, after.wide);
}

/* ---- one block -------------------------------------------------------------------------------------------
 */

static struct {
    unsigned samples, places;
    uint32_t sample_tsc; /* a sample is at least so long */
    uint32_t warm_tsc;   /* and measuring begins after so long */
    uint32_t warm_runs;  /* or so many runs */
} plan;

/* Loop and clock: TSC cycles of a turn without an event, times 256; and of a run without turns. */
static uint32_t loop_cost, clock_cost;

/* Enough turns for a sample that is not all clock reading. */
static uint32_t turns_for_sample(const struct block *b, uint32_t place)
{
    uint32_t most = b->most ? b->most : 100000, turns = 4;

    for (;;) {
        uint32_t t = nano_run(b, place, turns);

        if (t >= plan.sample_tsc || turns * 2 > most)
            return turns;
        turns *= 2;
    }
}

static void warm(const struct block *b, uint32_t place, uint32_t turns)
{
    uint32_t begun = nano_tsc();

    for (uint32_t runs = 0; runs < plan.warm_runs && nano_tsc() - begun < plan.warm_tsc; runs++)
        nano_run(b, place, turns);
}

/* What a run of `turns` costs an event, in hundredths of a TSC cycle. */
static uint32_t event_cost(const struct block *b, uint32_t t, uint32_t turns)
{
    uint32_t loop = clock_cost + nano_ratio(loop_cost, turns, 256);

    return t > loop ? nano_ratio(t - loop, 100, turns * b->measures) : 0;
}

static void measure(const struct block *b, uint32_t place)
{
    uint32_t v[SAMPLES_MOST], turns = turns_for_sample(b, place);
    struct speed before;

    warm(b, place, turns);
    before = nano_speed();
    for (unsigned i = 0; i < plan.samples; i++)
        v[i] = event_cost(b, nano_run(b, place, turns), turns);
    nano_report(b->name, place, v, plan.samples, before);
}

static uint32_t median_run(const struct block *b, uint32_t place, uint32_t turns)
{
    uint32_t v[31];

    for (unsigned i = 0; i < 31; i++)
        v[i] = nano_run(b, place, turns);
    nano_sort(v, 31);
    return v[15];
}

static void measure_loop(void)
{
    uint32_t place = nano_place(&nano_blocks[0], 0), one, many;

    warm(&nano_blocks[0], place, 1000);
    one = median_run(&nano_blocks[0], place, 1);
    many = median_run(&nano_blocks[0], place, 10001);
    loop_cost = many > one ? nano_ratio(many - one, 256, 10000) : 0;
    clock_cost = one;
}

/* ---- which
 * --------------------------------------------------------------------------------------------------- */

static bool picked(const char *name)
{
    return !option_given("pick") || option_given(name);
}

void guest_main(void)
{
    static const uint32_t ends[] = { 0x040, 0x213, 0x46b, 0x5f8, 0x7a1 };
    uint32_t tick;

    nano_machine_setup();
    plan.samples = option_given("short") ? 3 : option_given("quick") ? 21 : 61;
    plan.places = option_given("short") ? 1 : option_given("quick") ? 3 : 5;
    plan.sample_tsc = option_given("short") ? 2000 : 60000;
    plan.warm_runs = option_given("short") ? 2 : 3000;
    tick = nano_pit_tick();
    plan.warm_tsc = option_given("short") ? 1 : nano_ratio(tick, 1193 * 30, 256); /* 30 ms */
    measure_loop();
    say("nano tick %u clock %u loop %u places %u\n", tick, clock_cost, loop_cost, plan.places);
    for (unsigned i = 1; i < nano_block_count; i++) {
        const struct block *b = &nano_blocks[i];

        if (!picked(b->name))
            continue;
        if (b->possible && !b->possible()) {
            say("event %s absent\n", b->name);
            continue;
        }
        nano_missing = 0;
        for (unsigned p = 0; p < plan.places; p++)
            measure(b, nano_place(b, ends[p]));
        check_eq(b->name, nano_missing, 0);
    }
    nano_timer_events(ends, plan.places,
                      option_given("short")   ? 5
                      : option_given("quick") ? 30
                                              : 100,
                      picked);
    paging_off();
}
