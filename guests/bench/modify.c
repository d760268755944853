/* The workloads of bench/coherency as a guest: which of them, the kernel command line says. */
#include "../lib/guest.h"
#include "code_loads.h"

#define RWU   (PTE_P | PTE_W | PTE_U)
#define CODE  SCRATCH
#define ALIAS (SCRATCH + 0x100000u)
#define STILL (SCRATCH + 0x200000u)
#define DATA  (SCRATCH + 0x300000u)

void loads_say(const char *text)
{
    say("%s", text);
}

static void map_page(uint8_t *va, bool on)
{
    uint32_t at = address_of(va);

    pte_set(at, on ? (at - ALIAS + CODE) | RWU : 0);
}

void guest_main(void)
{
    struct ground g = { .code = (uint8_t *)CODE, .alias = (uint8_t *)ALIAS, .still = (uint8_t *)STILL,
                        .data = (uint8_t *)DATA, .map_page = map_page };

    paging_on();
    for (uint32_t ofs = 0; ofs < GROUND_BYTES; ofs += 0x1000)
        map_page(g.alias + ofs, true);
    check("workload", loads_measure(&g, guest_words()));
    paging_off();
}
