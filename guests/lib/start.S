/*
 * Entry, exception entry points, and the way into and out of a piece of code under test.
 * See guest.h for struct context.
 */
#include "layout.h"

        .text
        .globl  _start
_start:
        cli
        cld
        movl    %esi, boot_params
        movl    $boot_stack_top, %esp
        pushl   $0
        popfl
        call    guest_setup
        call    guest_main
        call    guest_finish
1:      hlt
        jmp     1b

/*
 * void guest_enter(struct context *c): load everything from c, IRET to c->cs:c->eip. Comes
 * back when an exception or interrupt that nobody handles arrives; it is then in `caught`.
 */
        .globl  guest_enter
guest_enter:
        pushl   %ebp
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        movl    20(%esp), %edx
        movl    %esp, resume_esp
        movl    CTX_ESP(%edx), %ecx
        testl   $3, CTX_CS(%edx)
        jnz     1f
        movl    %ecx, %esp                      /* ring 0: run on the context's own stack */
        jmp     2f
1:      pushl   CTX_SS(%edx)
        pushl   %ecx
2:      pushl   CTX_EFLAGS(%edx)
        pushl   CTX_CS(%edx)
        pushl   CTX_EIP(%edx)
        movl    CTX_EAX(%edx), %eax
        movl    CTX_EBX(%edx), %ebx
        movl    CTX_ECX(%edx), %ecx
        movl    CTX_ESI(%edx), %esi
        movl    CTX_EDI(%edx), %edi
        movl    CTX_EBP(%edx), %ebp
        pushl   CTX_EDX(%edx)
        movw    CTX_FS(%edx), %fs
        movw    CTX_GS(%edx), %gs
        movw    CTX_ES(%edx), %es
        movw    CTX_DS(%edx), %ds               /* last: the next access goes through SS */
        popl    %edx
        iretl

/* 256 entry points, 16 bytes each: make the frame uniform, push the vector. */
        .globl  vector_entries
        .balign 16
vector_entries:
        .set    v, 0
        .rept   256
        .balign 16
        .if (v != 8) && (v < 10 || v > 14) && (v != 17)
        pushl   $0
        .endif
        pushl   $v
        jmp     vector_common
        .set    v, v + 1
        .endr

/*
 * Stack, upwards: gs fs es ds | edi esi ebp esp ebx edx ecx eax | vector error |
 * eip cs eflags [esp ss]. This is struct frame.
 */
vector_common:
        pushal
        pushl   %ds
        pushl   %es
        pushl   %fs
        pushl   %gs
        cld
        movw    $SEL_KDATA, %ax
        movw    %ax, %ds
        movw    %ax, %es
        pushl   %esp
        call    guest_exception                 /* 0: not handled, leave the test code */
        addl    $4, %esp
        testl   %eax, %eax
        jz      1f
        popl    %gs
        popl    %fs
        popl    %es
        popl    %ds
        popal
        addl    $8, %esp
        iretl
1:      movw    $SEL_KDATA, %ax
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movl    resume_esp, %esp
        popl    %edi
        popl    %esi
        popl    %ebx
        popl    %ebp
        pushl   $2
        popfl
        ret

        .bss
        .balign 4096
        .space  16384
boot_stack_top:
        .globl  resume_esp, boot_params
resume_esp:
        .long   0
boot_params:
        .long   0

        .section .note.GNU-stack, "", @progbits
