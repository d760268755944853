/*
 * A vCPU, its mmu and 2 MiB of RAM around the callouts: no translator, no devices. Ports are
 * answered by the fixture, which records them; so are device memory and traced stores.
 */
#ifndef TESTS_MONITOR_CALLOUT_FIXTURE_H
#define TESTS_MONITOR_CALLOUT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "monitor/callouts.h"
#include "monitor/monitor.h"

#define RAM_BYTES  (2u << 20)
#define ROOT_PA    0x100000u /* page directory                                  */
#define TABLE_PA   0x101000u /* page table of the first 4 MiB                   */
#define GDT_PA     0x110000u
#define TSS_PA     0x111000u
#define MMIO_PA    0x0a0000u /* one page of device memory                       */
#define MAX_EVENTS 256u

#define CODE_EIP 0x1000u /* of the instruction that the callout stands for */
#define NEXT_EIP 0x1003u

enum event_kind { EV_PORT_READ, EV_PORT_WRITE, EV_MMIO_READ, EV_MMIO_WRITE, EV_TRACED };

struct event {
    enum event_kind kind;
    uint64_t addr;
    uint32_t size, value;
};

struct fixture {
    struct vm vm;
    struct vcpu *cpu;
    uint8_t *ram;
    struct event event[MAX_EVENTS];
    unsigned nevents;      /* all that happened, also those not kept                        */
    unsigned clear_run_at; /* vcpu->run is cleared when this many events have happened; 0: never */
    uint32_t port_value;   /* what ports read as; goes up by one a read                      */
    bool stop;             /* machine_stop_requested                                         */
    uint64_t now_ns, deadline_ns;
    bool ferr;
};

int fx_setup(void **state);
int fx_teardown(void **state);

/** Operands of a callout, packed. Sizes default to 4 bytes, the segment to DS. */
struct operands {
    unsigned reg, rm, osize, asize, rep;
    bool mem;
    bool seg_given;
    enum seg_id seg; /* counts if seg_given */
    uint32_t imm;
    uint16_t imm2;
};
uint64_t fx_arg(const struct operands *o);
#define ARG(...) fx_arg(&(struct operands){ __VA_ARGS__ })
#define SEG(s)   .seg_given = true, .seg = (s)

/** Call it as translated code would: EIP and the next EIP set. */
enum exit_reason fx_call(struct fixture *fx, callout_fn *fn, uint64_t arg, uint32_t ea);

/** It must end in this fault, with every register, segment and control register as before. */
void fx_expect_fault(struct fixture *fx, callout_fn *fn, uint64_t arg, uint32_t ea, int vector, int error);
#define NO_ERROR (-1)

/** Paging with 4 KiB pages, identity-mapped over RAM, user-accessible and writable. */
void fx_paging(struct fixture *fx);
/** Change the entry of one page; the TLB forgets it. */
void fx_pte(struct fixture *fx, uint32_t va, uint32_t value);

void fx_put32(struct fixture *fx, uint32_t pa, uint32_t value);
uint32_t fx_get32(struct fixture *fx, uint32_t pa);

/** Real mode with 64 KiB segments at base 0. */
void fx_real_mode(struct fixture *fx);
/** CPL 3 in protected mode, IOPL 0. */
void fx_user_mode(struct fixture *fx);
/** Virtual-8086 mode. */
void fx_vm86_mode(struct fixture *fx);

#endif
