/*
 * Addresses, selectors and vectors of the ring-1 platform, for C and assembly.
 *
 *   0000000000000000   4 GiB: the guest's linear addresses (nothing is mapped there yet)
 *   0000000100000000   never mapped: whatever runs over the end of the above faults
 *   ffff800000000000   machine memory as it is (physical address + PHYSMAP)
 *   ffff808000000000   guest RAM
 *   ffff810000000000   reservations of the engine, each between two absent pages
 *   ffff818000000000   the translation cache, writable; 256 GiB above it executable
 *   ffff820000000000   windows
 *   ffffffff80000000   the image: core, platform, engine
 *
 * All of it is supervisor memory for paging (U/S = 0). Paging knows no difference between CPL 0 and
 * CPL 1 (Intel SDM vol. 3A, "Paging", access rights), so nothing here walls ring 1 off from ring 0.
 */
#ifndef PLATFORM_RING1_CORE_LAYOUT_H
#define PLATFORM_RING1_CORE_LAYOUT_H

#define PHYSMAP    0xffff800000000000
#define GUEST_RAM  0xffff808000000000
#define ARENA      0xffff810000000000
#define ARENA_END  0xffff818000000000
#define CODE_RW    0xffff818000000000
#define CODE_RX    0xffff81c000000000
#define WINDOWS    0xffff820000000000
#define IMAGE_BASE 0xffffffff80000000

#define MACHINE_PAGE 4096
#define LARGE_PAGE   0x200000

/* Selectors, above those that a guest may have. Each ring's data segment follows its code segment. */
#define SEL_OURS  0x1000
#define SEL_CODE0 0x1008
#define SEL_DATA0 0x1010
#define SEL_CODE1 0x1019
#define SEL_DATA1 0x1021
#define SEL_TSS   0x1028

/* Vectors: exceptions, then the two PICs, then the gate that ring 1 may call. */
#define VECTOR_PIC1    0x20
#define VECTOR_PIC2    0x28
#define VECTOR_NUCLEUS 0xf0

#define IST_DOUBLE_FAULT  1
#define IST_NMI           2
#define IST_MACHINE_CHECK 3

#define RING0_STACK_BYTES 16384
#define IST_STACK_BYTES   8192
#define RING1_STACK_BYTES 262144

#endif
