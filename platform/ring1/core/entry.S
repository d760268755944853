/*
 * Ring 0's ways in and out.
 *
 *   core_entry     from the boot code: long mode, RDI = multiboot information (PA), RSI = end of what it loaded (PA)
 *   ring1_start    leave for ring 1, for good
 *   trap_stubs     one per vector, 16 bytes apart: to trap(), and back by IRETQ
 *
 * Every gate is an interrupt gate, so the nucleus runs with interrupts off; it lets them in only where it
 * sleeps. A trap from ring 1 is on the stack of TSS.RSP0, so code in ring 1 may have anything in RSP, and
 * may keep a red zone below it.
 *
 * The frame that trap() gets, from low to high: r15 .. r8, rdi, rsi, rbp, rbx, rdx, rcx, rax, vector, error
 * code, rip, cs, rflags, rsp, ss.
 */
#include "platform/ring1/core/layout.h"

        /* The flat image starts with where to enter it. */
        .section .header, "a"
        .quad   core_entry

        .text
        .globl  core_entry
core_entry:
        lea     ring0_stack_top(%rip), %rsp
        xor     %ebp, %ebp
        call    core_main
1:      cli
        hlt
        jmp     1b

/* void ring1_start(void (*entry)(void), uint64_t stack_top) */
        .globl  ring1_start
ring1_start:
        xor     %eax, %eax
        mov     %eax, %ds
        mov     %eax, %es
        push    $SEL_DATA1
        sub     $8, %rsi                /* as if a CALL had brought it there */
        push    %rsi
        push    $0x202
        push    $SEL_CODE1
        push    %rdi
        iretq

        .balign 16
        .globl  trap_stubs
trap_stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
        .else
        push    $0                      /* in place of the error code */
        .endif
        push    $vector
        jmp     trap_common
        .set    vector, vector + 1
        .endr

trap_common:
        push    %rax
        push    %rcx
        push    %rdx
        push    %rbx
        push    %rbp
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        cld
        mov     %rsp, %rdi
        mov     %rsp, %rbp
        and     $-16, %rsp
        call    trap
        mov     %rbp, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rbp
        pop     %rbx
        pop     %rdx
        pop     %rcx
        pop     %rax
        add     $16, %rsp
        iretq

        .bss
        .balign 16
        .globl  ring0_stack_top, ist_stack_top
        .skip   RING0_STACK_BYTES
ring0_stack_top:
        .skip   3 * IST_STACK_BYTES
ist_stack_top:

        .section .note.GNU-stack, "", @progbits
