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
        .globl  guest_enter, leave_code
guest_enter:
        pushl   %ebp
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        movl    20(%esp), %edx
        movl    %esp, resume_esp
        movl    CTX_ESP(%edx), %ecx
        testl   $0x20000, CTX_EFLAGS(%edx)
        jnz     3f
        testl   $3, CTX_CS(%edx)
        jnz     1f
        movw    CTX_SS(%edx), %ss               /* ring 0: run on the context's own stack */
        movl    %ecx, %esp
        jmp     2f
3:      pushl   CTX_GS(%edx)                    /* virtual-8086 mode */
        pushl   CTX_FS(%edx)
        pushl   CTX_DS(%edx)
        pushl   CTX_ES(%edx)
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
        testl   $0x20000, CTX_EFLAGS(%edx)
        jnz     4f
        movw    CTX_FS(%edx), %fs
        movw    CTX_GS(%edx), %gs
        movw    CTX_ES(%edx), %es
        movw    CTX_DS(%edx), %ds               /* last: the next access goes through SS */
4:      popl    %edx
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
 * eip cs eflags [esp ss [es ds fs gs]]. This is struct frame.
 *
 * Code under test at ring 0 may have brought its own stack segment, perhaps of 16 bits: its frame is
 * copied, and C runs on ours.
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
        movw    %ss, %cx
        cmpw    %ax, %cx
        jne     odd_stack
        movl    $0, odd_ss
        pushl   %esp
        call    guest_exception                 /* 0: not handled, leave the test code */
        addl    $4, %esp
        testb   %al, %al                        /* a bool: the rest of EAX is anything */
        jz      1f
        popl    %gs
        popl    %fs
        popl    %es
        popl    %ds
        popal
        addl    $8, %esp
        iretl
1:
leave_code:
        movw    $SEL_KDATA, %ax
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

odd_stack:
        movzwl  %cx, %ecx
        movl    %ecx, odd_ss
        movl    %esp, odd_esp
        movl    $-1, %edx
        larl    %ecx, %ebx
        testl   $0x400000, %ebx                 /* B */
        jnz     1f
        movl    $0xffff, %edx
1:      movl    %edx, odd_mask
        movl    %esp, %esi
        movl    $odd_frame, %edi
        movl    $17, %ecx                       /* up to EFLAGS */
1:      andl    %edx, %esi
        movl    %ss:(%esi), %eax
        stosl
        addl    $4, %esi
        loop    1b
        movw    $SEL_KDATA, %ax
        movw    %ax, %ss
        movl    resume_esp, %esp
        pushl   $odd_frame
        call    guest_exception
        jmp     leave_code

        .bss
        .balign 4096
        .space  16384
boot_stack_top:
        .globl  resume_esp, boot_params, odd_ss, odd_esp, odd_mask
odd_ss: .long   0
odd_esp: .long  0
odd_mask: .long 0
odd_frame: .space 17 * 4
resume_esp:
        .long   0
boot_params:
        .long   0

        .section .note.GNU-stack, "", @progbits
