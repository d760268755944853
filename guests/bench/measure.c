/*
 * Keeping time of the workloads, by the time-stamp counter: two readings a round, nothing else of the
 * machine. What a tick is, the reader works out from the first and the last line.
 */
#include "code_loads.h"

static uint64_t ticks_now(void)
{
    uint64_t v;

    __asm__ volatile("rdtsc" : "=A"(v) : : "memory");
    return v;
}

static bool starts_with(const char *text, const char *with)
{
    while (*with && *text == *with) {
        text++;
        with++;
    }
    return !*with;
}

/* The text behind `name` among the words, or NULL. */
static const char *word_after(const char *words, const char *name)
{
    for (const char *s = words; *s; s++)
        if ((s == words || s[-1] == ' ') && starts_with(s, name)) {
            while (*name++)
                s++;
            return s;
        }
    return NULL;
}

static uint32_t number_after(const char *words, const char *name, uint32_t otherwise)
{
    const char *s = word_after(words, name);
    uint32_t value = 0;

    if (!s || *s < '0' || *s > '9')
        return otherwise;
    while (*s >= '0' && *s <= '9')
        value = value * 10 + (uint32_t)(*s++ - '0');
    return value;
}

static bool is_word(const char *s, const char *name)
{
    while (*name && *s == *name) {
        s++;
        name++;
    }
    return !*name && (*s == ' ' || *s == 0);
}

/* ---- lines ----------------------------------------------------------------------------------------- */

static void say_u32(uint32_t v)
{
    char text[12], *at = text + sizeof text - 1;

    *at = 0;
    do
        *--at = (char)('0' + v % 10);
    while (v /= 10);
    loads_say(at);
}

static void say_ticks(uint64_t v)
{
    char text[17];

    for (unsigned i = 0; i < 16; i++)
        text[i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
    text[16] = 0;
    loads_say(text);
}

static void say_clock(void)
{
    uint64_t now = ticks_now();

    loads_say("clock ");
    say_ticks(now);
    loads_say("\n");
}

/* ---- rounds ---------------------------------------------------------------------------------------- */

static bool run_round(const struct code_load *l, struct ground *g, uint32_t events, uint64_t *ticks)
{
    uint64_t begin = ticks_now();
    uint32_t good = l->run(g, events);

    *ticks = ticks_now() - begin;
    if (good == events)
        return true;
    loads_say("FAIL ");
    loads_say(l->name);
    loads_say(": right values ");
    say_u32(good);
    loads_say(" of ");
    say_u32(events);
    loads_say("\n");
    return false;
}

/* What the words ask for. */
struct plan {
    uint32_t ticks, warm, rounds;
};

/* As many events as last long enough, three times in a row, lest something else took so long; and then what warms
 * up: hot code and pages have moved to where they are to be. @return 0: a value was wrong. */
static uint32_t prepare(const struct code_load *l, struct ground *g, const struct plan *plan, uint32_t *total)
{
    uint32_t events = 1, long_enough = 0;
    uint64_t ticks, warm = 0;

    l->prepare(g);
    while (long_enough < 3 || warm < plan->warm) {
        if (!run_round(l, g, events, &ticks))
            return 0;
        *total += events;
        warm += ticks;
        if (long_enough == 3)
            continue;
        long_enough = ticks >= plan->ticks || events >= 1u << 28 ? long_enough + 1 : 0;
        if (!long_enough)
            events *= 2;
    }
    return events;
}

static bool measure(const struct code_load *l, struct ground *g, const struct plan *plan)
{
    uint32_t total = 0, events = prepare(l, g, plan, &total);
    uint64_t ticks;

    if (!events)
        return false;
    for (uint32_t i = 0; i < plan->rounds; i++) {
        if (!run_round(l, g, events, &ticks))
            return false;
        total += events;
        loads_say("time ");
        loads_say(l->name);
        loads_say(" ");
        say_u32(events);
        loads_say(" ");
        say_ticks(ticks);
        loads_say("\n");
    }
    loads_say("total ");
    say_u32(total);
    loads_say("\n");
    return true;
}

bool loads_measure(struct ground *g, const char *words)
{
    const char *name = word_after(words, "load=");
    struct plan plan = { .ticks = number_after(words, "ticks=", 1u << 20), .warm = number_after(words, "warm=", 0),
                         .rounds = number_after(words, "rounds=", 3) };
    bool good = true, found = !name;

    g->is_control = word_after(words, "control") != NULL;
    say_clock();
    for (unsigned i = 0; name && i < code_load_count; i++)
        if (is_word(name, code_loads[i].name) && (g->map_page || !code_loads[i].needs_map)) {
            found = true;
            good = measure(&code_loads[i], g, &plan) && good;
        }
    if (!found)
        loads_say("FAIL no such workload here\n");
    say_clock();
    return good && found;
}
