/*
 * Workloads of code that changes, for bench/coherency. The same functions run in a guest (modify.c) and as a
 * program of the host (modify_native.c): each of these says where code and data are to lie, and keeps time.
 */
#ifndef GUESTS_BENCH_CODE_LOADS_H
#define GUESTS_BENCH_CODE_LOADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GROUND_BYTES 0x10000u /* of each of the areas below */

/* Where a workload runs. */
struct ground {
    uint8_t *code;                         /* written to and run                                    */
    uint8_t *alias;                        /* the same memory at other addresses                    */
    uint8_t *still;                        /* code that stays as it is: what a control run calls     */
    uint8_t *data;                         /* never run: what a control run writes to               */
    void (*map_page)(uint8_t *va, bool on); /* a page of alias comes and goes; NULL: can't be done here */
    bool is_control;
};

struct code_load {
    const char *name;
    void (*prepare)(struct ground *g);
    uint32_t (*run)(struct ground *g, uint32_t events); /* -> events that came out right */
    bool needs_map;
};

extern const struct code_load code_loads[];
extern const unsigned code_load_count;

/* What both programs have to offer: lines on standard output or the console. */
void loads_say(const char *text);

/* Measure the workloads that the words ask for, and say the figures:
 *
 *     load=NAME     this one (otherwise: none)
 *     control       the same stores and calls, but what is run is not what is written
 *     ticks=N       TSC ticks that a round lasts at least
 *     warm=N      TSC ticks that rounds go on at least before the first that counts
 *     rounds=N      rounds, each a line "time NAME EVENTS TICKS", ticks in hexadecimal
 *
 * The first and the last line are "clock TICKS", from which the reader knows what a tick is; before the
 * latter comes "total EVENTS" with those of calibration as well. "FAIL ..." says that a value was wrong.
 * @return that nothing failed.
 */
bool loads_measure(struct ground *g, const char *words);

#endif
