/* The order in which the core comes up, ring 0's part of it. */
#include "platform/ring1/core/core.h"

#include "platform/ring1/core/machine.h"

#define RING1_STACK (ARENA_END - 0x10000000) /* far above what is reserved, absent pages around it */

_Noreturn void core_main(uint64_t multiboot_pa, uint64_t boot_end_pa)
{
    descriptors_init();
    hardware_init();
    front_init(multiboot_pa, boot_end_pa);
    paging_init();
    if (paging_back(RING1_STACK, RING1_STACK_BYTES, 0) < 0)
        core_panic(NULL, "this machine has too little memory");
    ring1_start(front_main, RING1_STACK + RING1_STACK_BYTES);
}
