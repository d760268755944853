/*
 * A protected-mode machine for the monitor's protection tests: descriptor tables, three
 * TSSs and stacks in 2 MiB of guest memory, paging off. Every descriptor has its Accessed
 * bit set, so that a fault can be shown to change nothing at all.
 */
#ifndef TESTS_MONITOR_PROTECT_H
#define TESTS_MONITOR_PROTECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "monitor/callouts.h"
#include "monitor/monitor.h"
#include "monitor/transfer.h"

#define RAM_BYTES (2u << 20)
#define GDT_VA    0x1000u
#define GDT_LIMIT 0x1ffu
#define LDT_VA    0x2000u
#define IDT_VA    0x3000u
#define IDT_LIMIT 0x3ffu /* 128 vectors */
#define TSS_VA    0x4000u
#define TSS_B_VA  0x5000u
#define TSS_16_VA 0x6000u
#define STACK0    0x10000u /* tops of the stacks, growing down */
#define STACK1    0x18000u
#define STACK3    0x20000u
#define STACK_B   0x28000u
#define INSN_EIP  0x8000u /* the instruction at work and the one after it */
#define NEXT_EIP  0x8005u

/* GDT entries. */
enum {
    CODE0 = 0x08,
    DATA0 = 0x10,
    CODE3 = 0x18,
    DATA3 = 0x20,
    TSS_A = 0x28,
    TSS_B = 0x30,
    TSS_16 = 0x38,
    LDT_SEL = 0x40,
    CONFORM0 = 0x48,
    READONLY3 = 0x50,
    EXECONLY3 = 0x58,
    DOWN3 = 0x60,
    ABSENT3 = 0x68,
    SMALL3 = 0x70,
    STACK16_3 = 0x78,
    CODE1 = 0x80,
    DATA1 = 0x88,
    CODE16_0 = 0x90,
    ABSENT_CODE0 = 0x98,
    SMALL_CODE0 = 0xa0,
    GATE32 = 0xa8,
    GATE16 = 0xb0,
    GATE0 = 0xb8,
    ABSENT_GATE = 0xc0,
    TASK_GATE3 = 0xc8,
    ABSENT_STACK0 = 0xd0,
    CONFORM3 = 0xd8,
    GATE_SAME = 0xe0,
    CODE0B = 0xe8,
    DATA0B = 0xf0,
    CODE3B = 0xf8,
    DATA3B = 0x100,
    STACK16_0 = 0x108,
    TASK_GATE_16 = 0x110,
    OUTSIDE = 0x200,
    LDT_DATA3 = 0x0c,
};

#define A_CODE   (DESC_P | DESC_S | DESC_CODE | DESC_READ | DESC_ACCESSED)
#define A_DATA   (DESC_P | DESC_S | DESC_WRITE | DESC_ACCESSED)
#define A_DPL(n) ((unsigned)(n) << DESC_DPL_SHIFT)
#define A_FLAT   (DESC_G | DESC_DB)

struct protect {
    struct vm vm;
    struct vcpu *cpu;
    uint8_t *ram;
    enum machine_stop stop;  /* what machine_request_stop was told */
    struct vcpu *cpu_before; /* snapshot of pt_snapshot            */
    uint8_t *ram_before;
};

int pt_setup(void **state);
int pt_teardown(void **state);

uint16_t pt_get16(struct protect *pt, uint32_t pa);
uint32_t pt_get32(struct protect *pt, uint32_t pa);
void pt_put16(struct protect *pt, uint32_t pa, unsigned value);
void pt_put32(struct protect *pt, uint32_t pa, uint32_t value);

/** Write a descriptor; with DESC_G in attr the limit is given in bytes all the same. */
void pt_descriptor(struct protect *pt, unsigned sel, uint32_t base, uint32_t limit, unsigned attr);
/** Write a gate into a GDT entry or the IDT. */
void pt_gate_at(struct protect *pt, uint32_t va, unsigned type, unsigned dpl, unsigned sel, uint32_t offset,
                unsigned nparams);
void pt_idt(struct protect *pt, unsigned vector, unsigned type, unsigned dpl, unsigned sel, uint32_t offset);

/** Load CS, SS, DS, ES and the stack for a privilege, EIP at INSN_EIP. */
void pt_ring(struct protect *pt, unsigned cpl);
void pt_real(struct protect *pt);
void pt_vm86(struct protect *pt, unsigned iopl);

/** Push a doubleword or word on the current stack, without checks. */
void pt_push32(struct protect *pt, uint32_t value);
void pt_push16(struct protect *pt, unsigned value);

/** Paging on, identity over RAM with 4 KiB pages; pt_page sets the flags of one of them. */
void pt_paging(struct protect *pt);
void pt_page(struct protect *pt, uint32_t va, uint32_t flags);

void pt_snapshot(struct protect *pt);
/** The vCPU (but for fault and counters) and memory are as they were at pt_snapshot. */
void pt_expect_unchanged(struct protect *pt);
void pt_expect_fault(struct protect *pt, unsigned vector, unsigned error);
void pt_expect_fault_plain(struct protect *pt, unsigned vector); /* without error code */

/** The operands of a callout. */
uint64_t pt_arg(unsigned osize, uint32_t imm, unsigned imm2);
uint64_t pt_arg_reg(unsigned osize, uint32_t imm, unsigned reg, unsigned rm);
uint64_t pt_arg_mem(unsigned osize, uint32_t imm, unsigned reg, enum seg_id seg);

/** Must end in EXIT_FAULT with this fault and nothing changed. */
#define EXPECT_FAULT(pt, call, vector, error)                                                                \
    do {                                                                                                     \
        pt_snapshot(pt);                                                                                     \
        assert_int_equal((call), EXIT_FAULT);                                                                \
        pt_expect_fault(pt, vector, error);                                                                  \
        pt_expect_unchanged(pt);                                                                             \
    } while (0)

#define PT_TEST(f) cmocka_unit_test_setup_teardown(f, pt_setup, pt_teardown)

#endif
