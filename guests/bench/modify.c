/*
 * Code that changes, for bench/coherency: each workload between two lines, "begin NAME" and
 * "end NAME EVENTS", which the host times; every value that comes back is checked.
 */
#include "../lib/guest.h"

#define RWU    (PTE_P | PTE_W | PTE_U)
#define CODE   SCRATCH
#define ALIAS  (SCRATCH + 0x100000u)
#define EVENTS 50000u

typedef uint32_t code_fn(void);
#define CALL(va) (((code_fn *)(va))())

/* mov eax, value; ret */
static void put_function(uint32_t va, uint32_t value)
{
    poke8(va, 0xb8);
    poke(va + 1, value);
    poke8(va + 5, 0xc3);
}

/* The constant of the function at CODE, written through the mapping at `writer`. */
static uint32_t modify_through(uint32_t writer)
{
    uint32_t good = 0;

    put_function(CODE, 0);
    for (uint32_t i = 0; i < EVENTS; i++) {
        poke(writer + 1, i);
        good += CALL(CODE) == i;
    }
    return good;
}

static uint32_t modify_constant(void)
{
    return modify_through(CODE);
}

static uint32_t modify_constant_by_alias(void)
{
    return modify_through(ALIAS);
}

/* Text patching: a branch is made a no-operation and back, through the other mapping. */
static uint32_t patch_text(void)
{
    uint32_t good = 0;

    put_function(CODE + 16, 1);
    for (uint32_t i = 0; i < EVENTS; i++) {
        if (i & 1) {
            poke8(ALIAS + 16 + 5, 0x90);
            poke8(ALIAS + 16 + 6, 0xc3);
        } else {
            poke8(ALIAS + 16 + 5, 0xc3);
        }
        good += CALL(CODE + 16) == 1;
    }
    return good;
}

static uint32_t emit_and_run(void)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < EVENTS; i++) {
        uint32_t at = CODE + (i % 4096) * 16;
        put_function(at, i);
        good += CALL(at) == i;
    }
    return good;
}

/* Code that keeps a counter in its own page. */
static uint32_t mixed_page(void)
{
    uint32_t good = 0;

    memset((void *)CODE, 0, 0x1000);
    /* inc dword [CODE + 800h]; mov eax, [CODE + 800h]; ret */
    poke8(CODE, 0xff);
    poke8(CODE + 1, 0x05);
    poke(CODE + 2, CODE + 0x800);
    poke8(CODE + 6, 0xa1);
    poke(CODE + 7, CODE + 0x800);
    poke8(CODE + 11, 0xc3);
    poke(CODE + 0x800, 0);
    for (uint32_t i = 0; i < EVENTS; i++)
        good += CALL(CODE) == i + 1;
    return good;
}

/* A loop beside code writes to the page that it does not run from. */
static uint32_t neighbour(void)
{
    uint32_t good = 0;

    put_function(CODE, 7);
    put_function(CODE + 0x1000, 8);
    for (uint32_t i = 0; i < EVENTS; i++) {
        poke(CODE + 0x1100, i);
        good += (i & 15 ? 7u : CALL(CODE + 0x1000) - 1) == 7 && CALL(CODE) == 7;
    }
    return good;
}

static uint32_t trampoline(void)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < EVENTS; i++) {
        volatile uint8_t code[8];

        put_function(address_of((const void *)code), i);
        good += CALL(address_of((const void *)code)) == i;
    }
    return good;
}

/* The same calls and stores without code that changes: what the rest costs. */
static uint32_t nothing_changes(void)
{
    uint32_t good = 0;

    put_function(CODE, 7);
    for (uint32_t i = 0; i < EVENTS; i++) {
        poke(SCRATCH + 0x200000, i);
        good += CALL(CODE) == 7;
    }
    return good;
}

void guest_main(void)
{
    static const struct {
        const char *name;
        uint32_t (*run)(void);
    } loads[] = {
        { "nothing-changes", nothing_changes }, { "modify-constant", modify_constant },
        { "modify-constant-by-alias", modify_constant_by_alias }, { "patch-text", patch_text },
        { "emit-and-run", emit_and_run }, { "mixed-page", mixed_page }, { "neighbour", neighbour },
        { "trampoline", trampoline },
    };

    paging_on();
    for (uint32_t ofs = 0; ofs < 0x2000; ofs += 0x1000)
        pte_set(ALIAS + ofs, (CODE + ofs) | RWU);
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < sizeof loads / sizeof loads[0]; i++) {
            say("begin %s\n", loads[i].name);
            uint32_t good = loads[i].run();
            say("end %s %u\n", loads[i].name, EVENTS);
            check_eq(loads[i].name, good, EVENTS);
        }
    paging_off();
}
