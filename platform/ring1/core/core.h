/* What the files of the core share. All state is global: there is one machine. */
#ifndef PLATFORM_RING1_CORE_CORE_H
#define PLATFORM_RING1_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/ring1/core/layout.h"

struct vcpu;

/* ---- entry.S ---------------------------------------------------------------------------- */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};
extern const uint8_t trap_stubs[256][16];
extern uint8_t ring0_stack_top[], ist_stack_top[];
_Noreturn void ring1_start(void (*entry)(void), uint64_t stack_top);
_Noreturn void core_main(uint64_t multiboot_pa, uint64_t boot_end_pa);
void trap(struct trap_frame *f);

/* ---- descriptors.c ------------------------------------------------------------------------ */
/** GDT, IDT, TSS, control registers, FS base. */
void descriptors_init(void);

/** The guest's descriptors in our GDT, the first DIRECT_DESCRIPTORS; ours lie above. */
uint64_t *descriptors_of_guest(void);
/** FS as ring 1 has it. */
void descriptors_restore_fs(void);

/** A sum over what never changes once the core stands: the image's text and constants, IDT, GDT, TSS. */
uint64_t core_sum(void);

/* ---- frames.c: machine memory in pages ------------------------------------------------------ */
/** Add [start, end) of machine memory; partial pages at either end are left out. */
void frames_add(uint64_t start, uint64_t end);
/** A page of machine memory, its content undefined; 0 when there is none. */
uint64_t frame_take(void);
/** LARGE_PAGE bytes, aligned so; 0 when there is no such piece any more. */
uint64_t frame_take_large(void);
void frame_give(uint64_t pa);
/** Bytes that could still be taken. */
uint64_t frames_left(void);

static inline void *physmap(uint64_t pa)
{
    return (void *)(uintptr_t)(PHYSMAP + pa); /* NOLINT(performance-no-int-to-ptr) */
}

/* ---- paging.c ------------------------------------------------------------------------------ */
#define PG_P  1ull
#define PG_W  2ull
#define PG_U  4ull
#define PG_PS 0x80ull
#define PG_NX (1ull << 63)
#define PG_ADDR 0x000ffffffffff000ull

/** After the boot code's tables: nothing below 4 GiB, and the image with the rights of its parts. */
void paging_init(void);
/** Machine memory [start, end) appears at PHYSMAP. */
bool paging_show_machine(uint64_t start, uint64_t end);
/** Map a page; the VA has none so far. false: no memory for tables. */
bool paging_map(uint64_t va, uint64_t pa, uint64_t flags);
/** Zeroed memory at [va, va + bytes), large pages where it can; the same memory at `alias` unless that is 0,
 *  executable and not writable. 0 or -ENOMEM, and then nothing is mapped. */
int paging_back(uint64_t va, uint64_t bytes, uint64_t alias);
/** Nothing is mapped in [va, va + bytes) any more; with `give` the memory is free again. @return the bytes that were
 *  mapped. */
uint64_t paging_unmap(uint64_t va, uint64_t bytes, bool give);
/** Show `bytes` of what is mapped at `from` at `va`, which may show something else so far. `rights`: WINDOW_*. 0 or
 *  -errno. */
int paging_show(uint64_t va, uint64_t from, uint64_t bytes, unsigned rights);
#define WINDOWS_MAX   32u
#define WINDOW_BYTES  (1ull << 32)
#define WINDOW_STRIDE (2 * WINDOW_BYTES) /* what lies between two is never mapped */
/** A tree of tables in which window `i` (at WINDOWS + i * WINDOW_STRIDE) is at address 0 as well. It stays. 0 or
 *  -ENOMEM. */
int paging_tree(unsigned i);
/** Use window i's tree. */
void paging_select(unsigned i);
/** Where the window that is at address 0 is otherwise; 0 without one. */
uint64_t paging_window(void);
/** The machine address behind va, 0 when nothing is mapped. */
uint64_t paging_pa(uint64_t va);

/* ---- hardware.c ------------------------------------------------------------------------------ */
void hardware_init(void);
/** The end of the machine: `port` (0: none) is QEMU's isa-debug-exit. */
_Noreturn void machine_exit(int status);
extern uint16_t core_exit_port;
void log_put(const char *text, size_t len);
void serial_put(const uint8_t *data, size_t len);
uint8_t cmos_read(uint8_t reg);
/** One interrupt `ns` nanoseconds from now, or sooner. */
void timer_start(uint64_t ns);
/** An interrupt of the PICs. */
void irq(unsigned line, const struct trap_frame *f);

/* ---- events: what interrupts leave for ring 1 ----------------------------------------------- */
#define SERIAL_IN_BYTES 4096u /* a power of two */
struct core_events {
    volatile uint32_t timer;      /* timer interrupts so far             */
    volatile uint32_t in_head;    /* bytes from the serial port so far   */
    volatile uint32_t in_tail;    /* of them, taken by ring 1            */
    uint8_t in[SERIAL_IN_BYTES];
    volatile bool any;            /* something came since it was cleared */
};
extern struct core_events core_events;

/* ---- the vCPU that traps are about ----------------------------------------------------------- */
struct core_world {
    struct vcpu *cpu;    /* NULL: none                                                */
    uint64_t exit_stub;  /* where a fault in translated code continues                */
};
extern struct core_world core_world;

/* ---- memory that ring 1 has reserved (core/memory.c), which faults ask about -------------------- */
/** A reservation holds va, and it is no guard: the page may be filled on demand. */
bool memory_is_reserved(uint64_t va);
/** The page of va is a guard, or the one below a reservation. */
bool memory_is_guard(uint64_t va);
/** Is rip in code made by platform_code_alloc? */
bool memory_is_code(uint64_t rip);
/** Bytes of reservations that have not been touched yet: memory for them is kept. */
extern uint64_t memory_promised;
/** Can `bytes` be had, and tables to map them, beside what is promised? */
bool memory_has(uint64_t bytes);

/* ---- clock ------------------------------------------------------------------------------------ */
/** Nanoseconds a TSC tick, 32 fraction bits. */
extern uint64_t core_tsc_scale;

/* ---- direct.c: the guest's user code at CPL 3 --------------------------------------------------- */
struct direct_exit;
/** Ring 0, in a call: `f` goes on in user code. false: the vCPU's segments are not in the table. */
bool direct_enter(struct trap_frame *f, struct direct_exit *out);
/** Ring 0, after a trap from CPL 3: `f` goes on behind the call. `vector`: of struct direct_exit. */
void direct_leave(struct trap_frame *f, unsigned vector);
extern const struct direct_ops ring1_direct;

/* ---- panic.c ---------------------------------------------------------------------------------- */
void core_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void core_panic(const struct trap_frame *f, const char *why);

/* ---- counters ---------------------------------------------------------------------------------- */
struct core_counters {
    uint64_t calls, interrupts, filled, exits, overflows;
    uint64_t user_entries, user_interrupts, user_faults, user_exceptions; /* to CPL 3; and back, by what */
    uint64_t user_ticks; /* of the TSC, at CPL 3 */
};
extern struct core_counters core_counters;

/* ---- what the front end supplies ------------------------------------------------------------------ */
/** Ring 0, before the core's own page tables: give machine memory to the frame allocator. */
void front_init(uint64_t multiboot_pa, uint64_t boot_end_pa);
/** Ring 1: the program. */
_Noreturn void front_main(void);

#endif
