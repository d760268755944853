/*
 * A vCPU, its mmu and a few MiB of RAM, with helpers to build guest page tables and a record
 * of everything the mmu reports.
 *
 * PA layout: page directories and tables from TABLES_PA up, the rest is for data.
 */
#ifndef TESTS_MMU_FIXTURE_H
#define TESTS_MMU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "mmu/mmu.h"

#define RAM_BYTES  (32u << 20)
#define ROOT_PA    0x100000u /* page directory, or the four PDPTEs */
#define TABLES_PA  0x101000u
#define MMIO_PA    0x0a0000u /* two pages of device memory         */
#define ROM_PA     0x0f0000u /* one page of ROM                    */
#define MAX_EVENTS 64u

enum event_kind { EV_TRACED, EV_WATCHED, EV_MMIO_READ, EV_MMIO_WRITE, EV_DROP_ALL, EV_DROP_RANGE };

struct event {
    enum event_kind kind;
    uint64_t addr;  /* PA or VA */
    uint32_t size;  /* bytes; or keep_global of EV_DROP_ALL */
    uint32_t value; /* MMIO data; or the view of a drop     */
};

struct fixture {
    struct vcpu *cpu;
    struct mmu *m;
    uint8_t *ram;
    uint64_t ram_bytes;
    struct log log;
    uint32_t next_table; /* PA of the next free page for a table */
    struct event event[MAX_EVENTS];
    unsigned nevents; /* all that happened, also those not kept */
};

struct fixture *fx_new(uint64_t ram_bytes);
struct fixture *fx_new_with_rom(uint64_t ram_bytes, const uint8_t *rom, uint32_t rom_bytes);
void fx_free(struct fixture *fx);
/** cmocka setup and teardown around fx_new(RAM_BYTES). */
int fx_setup(void **state);
int fx_teardown(void **state);

/** Turn paging on with the given CR4, empty tables, WP set. */
void fx_paging(struct fixture *fx, uint32_t cr4);
/** Empty table page. */
uint32_t fx_table(struct fixture *fx);

uint32_t fx_get32(struct fixture *fx, uint64_t pa);
void fx_put32(struct fixture *fx, uint64_t pa, uint32_t value);
uint64_t fx_get64(struct fixture *fx, uint64_t pa);
void fx_put64(struct fixture *fx, uint64_t pa, uint64_t value);

/** PA of the entry that maps va: at the directory level, or the leaf of a 4 KiB page
 *  (the table is made when the directory entry is empty, with every right). */
uint64_t fx_pde(struct fixture *fx, uint32_t va);
uint64_t fx_pte(struct fixture *fx, uint32_t va);
/** Map a 4 KiB page or (PTE_PS in flags) a large one; `flags` are the leaf's low bits and NX. */
void fx_map(struct fixture *fx, uint32_t va, uint64_t pa, uint64_t flags);

uint64_t fx_load_slot(struct fixture *fx, enum mmu_view_id view, uint32_t va);
uint64_t fx_store_slot(struct fixture *fx, enum mmu_view_id view, uint32_t va);
/** Probe of one byte: the host address, or NULL for a bounce. A fault fails the test. */
uint8_t *fx_probe(struct fixture *fx, uint32_t va, unsigned access);

void fx_clear_events(struct fixture *fx);
unsigned fx_count(struct fixture *fx, enum event_kind kind);
/** Access must fault with this error code and CR2. */
void fx_expect_pf(struct fixture *fx, uint32_t va, unsigned access, unsigned error);

#define fx_assert_clean(fx) assert_int_equal(mmu_audit((fx)->m), 0)

#endif
