/*
 * From the boot loader to the core: a multiboot 1 kernel, 32-bit, that holds the flat image of the 64-bit
 * core, builds the first page tables and enters it.
 *
 *   PML4[0]    0..4 GiB as it is, in large pages; only until the core runs
 *   PML4[256]  the same at PHYSMAP
 *   PML4[511]  the image at IMAGE_BASE, page by page
 *
 * Ref: Multiboot Specification 0.6.96, "OS image format", "Machine state"; Intel SDM vol. 3A, "Processor
 * Management and Initialization", "IA-32e Mode Initialization".
 */
#include "platform/ring1/core/layout.h"

#define MULTIBOOT_MAGIC  0x1badb002
#define MULTIBOOT_FLAGS  0x00000003     /* modules on pages of their own; memory map */
#define MULTIBOOT_LOADED 0x2badb002

        .section .multiboot, "a"
        .balign 4
        .long   MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

        .text
        .code32
        .globl  _start
_start:
        cli
        cld
        mov     $stack_top, %esp
        mov     %ebx, %ebp              /* the boot loader's information */
        cmp     $MULTIBOOT_LOADED, %eax
        mov     $no_multiboot, %esi
        jne     give_up
        mov     $0x80000000, %eax
        cpuid
        mov     $no_long_mode, %esi
        cmp     $0x80000001, %eax
        jb      give_up
        mov     $0x80000001, %eax
        cpuid
        and     $(1 << 29 | 1 << 20), %edx      /* long mode, no-execute */
        cmp     $(1 << 29 | 1 << 20), %edx
        jne     give_up

        movl    $pdpt_low + 3, pml4
        movl    $pdpt_low + 3, pml4 + 256 * 8
        movl    $pdpt_image + 3, pml4 + 511 * 8
        movl    $pd_image + 3, pdpt_image + 510 * 8
        mov     $4, %ecx                /* four page directories of 1 GiB */
        mov     $pdpt_low, %edi
        mov     $pd_low + 3, %eax
1:      mov     %eax, (%edi)
        add     $8, %edi
        add     $4096, %eax
        loop    1b
        mov     $4 * 512, %ecx
        mov     $pd_low, %edi
        mov     $0x83, %eax             /* present, writable, large */
2:      mov     %eax, (%edi)
        add     $8, %edi
        add     $LARGE_PAGE, %eax
        loop    2b
        mov     $IMAGE_TABLES, %ecx
        mov     $pd_image, %edi
        mov     $pt_image + 3, %eax
3:      mov     %eax, (%edi)
        add     $8, %edi
        add     $4096, %eax
        loop    3b
        mov     $core_end, %ecx
        sub     $core_start, %ecx
        shr     $12, %ecx
        mov     $pt_image, %edi
        mov     $core_start + 3, %eax
4:      mov     %eax, (%edi)
        add     $8, %edi
        add     $4096, %eax
        loop    4b

        mov     $0x20, %eax             /* CR4.PAE */
        mov     %eax, %cr4
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       /* IA32_EFER: LME, NXE */
        rdmsr
        or      $0x900, %eax
        wrmsr
        mov     $0x80010011, %eax       /* CR0: PG WP ET PE */
        mov     %eax, %cr0
        lgdt    gdt_register
        ljmp    $8, $long_mode

        .code64
long_mode:
        mov     %ebp, %edi
        mov     $boot_end, %esi         /* and where all of this ends in machine memory */
        movabs  $IMAGE_BASE, %rax
        jmp     *(%rax)                 /* the flat image starts with its entry */

        .code32
/* ESI = a sentence, to the screen and to COM1. */
give_up:
        mov     $0xb8000, %edi
1:      lodsb
        test    %al, %al
        jz      2f
        mov     %al, (%edi)
        movb    $0x0f, 1(%edi)
        add     $2, %edi
        mov     $0x3f8, %edx
        out     %al, %dx
        jmp     1b
2:      hlt
        jmp     2b

        .section .rodata
no_multiboot:
        .asciz  "ringdown-metal: this is a multiboot kernel, and the boot loader is none for those"
no_long_mode:
        .asciz  "ringdown-metal: this processor has no long mode, or no NX"
        .balign 8
gdt:    .quad   0, 0x00af9b000000ffff
gdt_register:
        .word   . - gdt - 1
        .long   gdt

        .section .core, "a"
        .balign 4096
core_start:
        .incbin CORE_FILE
        .balign 4096
core_end:
        .globl  core_start, core_end

        .set    IMAGE_TABLES, 4         /* of 2 MiB; boot.ld checks that it fits */
        .globl  IMAGE_TABLES

        .bss
        .balign 4096
pml4:   .skip   4096
pdpt_low: .skip 4096
pdpt_image: .skip 4096
pd_low: .skip   4 * 4096
pd_image: .skip 4096
pt_image: .skip IMAGE_TABLES * 4096
        .skip   256
stack_top:

        .section .note.GNU-stack, "", @progbits
