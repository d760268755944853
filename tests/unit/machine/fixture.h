/*
 * A machine on a clock that the test moves, with memory for its tables, one serial port whose
 * host side is two buffers, and the CPU's lines recorded.
 */
#ifndef TESTS_UNIT_MACHINE_FIXTURE_H
#define TESTS_UNIT_MACHINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "monitor/machine.h"

#define MEM_BYTES 0x100000u
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull
#define EPOCH     951782399 /* 2000-02-28 23:59:59 UTC, a Monday */
#define EXIT_PORT 0x501

struct fixture {
    struct machine *m;
    struct log log; /* nothing is logged unless a test sets its mask */
    uint64_t now_ns;
    uint8_t *mem; /* MEM_BYTES */
    bool intr, a20;
    unsigned intr_changes, a20_changes;
    struct route {
        uint32_t pa, bytes;
        bool reads_ram, writes_ram;
    } route[64]; /* what the chipset moved, since set-up */
    unsigned routes;
    uint8_t out[4096], in[4096];
    size_t out_len, in_len, in_at;
};

/** cmocka set-up and tear-down: *state becomes a struct fixture. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/** The same machine with a firmware ROM, so that the chipset is as reset leaves it. */
int fixture_setup_rom(void **state);

uint32_t in_port(struct fixture *f, uint16_t port, unsigned size);
void out_port(struct fixture *f, uint16_t port, unsigned size, uint32_t value);
uint8_t inb(struct fixture *f, uint16_t port);
void outb(struct fixture *f, uint16_t port, uint8_t value);

/** Let time pass, stopping at every timer on the way. */
void advance(struct fixture *f, uint64_t ns);
/** The host was away: time passes in one piece, then timers run. */
void jump(struct fixture *f, uint64_t ns);

/** Initialise both 8259s: vectors 20h and 28h, all lines open; `icw4` without its low bit. */
void init_pics(struct fixture *f, uint8_t icw4);
/** INTA and a specific EOI: the vector, or -1 when INTR is low. */
int take_interrupt(struct fixture *f);
/** take_interrupt() until INTR is low: how often `vector` came. */
unsigned count_interrupts(struct fixture *f, int vector);

/** Input for the serial port arrives at the host. */
void serial_send(struct fixture *f, const char *text);

#endif
