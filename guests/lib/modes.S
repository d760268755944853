/*
 * The way into real mode and back. modes.c copies everything from real_image to real_image_end to
 * REAL_SEG:0, so that offsets there are differences to real_image.
 */
#include "layout.h"

#define R(label) (label - real_image)

/*
 * void real_enter(void): the context lies in real_context. Comes back when the run has ended.
 */
        .text
        .code32
        .globl  real_enter
real_enter:
        pushl   %ebp
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        movl    %esp, resume_esp
        ljmp    $SEL_REAL_CODE, $R(to_real)

        .balign 16
        .globl  real_image, real_image_end, real_context, real_idtr, real_big, real_cr0_or, real_protected_idtr
        .globl  real_protected_gdtr, real_vector, real_old_cr0, real_stubs
real_image:
/* struct context as it is loaded, and as it was at the end */
real_context:           .skip 64
real_vector:            .long 0
real_big:               .long 0
real_cr0_or:            .long 0
real_old_cr0:           .long 0
real_idtr:              .skip 8
real_protected_idtr:    .skip 8
real_protected_gdtr:    .skip 8

        .code16
/* Protected mode with a 16-bit code segment. */
to_real:
        movw    $SEL_REAL_DATA, %ax
        movw    %ax, %ds
        movl    $0x1000, %esi
        movl    R(real_big)(%si), %ebx
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movw    $SEL_REAL_BIG, %ax
        testb   $1, %bl
        jz      1f
        movw    %ax, %es
1:      testb   $2, %bl
        jz      1f
        movw    %ax, %ss
1:      testb   $8, %bl
        jz      1f
        movw    %ax, %fs
1:      testb   $16, %bl
        jz      1f
        movw    %ax, %gs
1:      movl    %cr0, %ecx
        andl    $~1, %ecx
        orl     R(real_cr0_or)(%si), %ecx
        lidtl   R(real_idtr)(%si)
        testb   $4, %bl
        jz      1f
        movw    %ax, %ds
1:      movl    %ecx, %cr0
        ljmp    $REAL_SEG, $R(in_real)
in_real:
        movw    %cs, %ax
        movw    %ax, %ds
        movw    R(real_context + CTX_SS), %ss
        movl    R(real_context + CTX_ESP), %esp
        pushl   R(real_context + CTX_EFLAGS)
        pushl   R(real_context + CTX_CS)
        pushl   R(real_context + CTX_EIP)
        movw    R(real_context + CTX_ES), %es
        movw    R(real_context + CTX_FS), %fs
        movw    R(real_context + CTX_GS), %gs
        movl    R(real_context + CTX_EAX), %eax
        movl    R(real_context + CTX_EBX), %ebx
        movl    R(real_context + CTX_ECX), %ecx
        movl    R(real_context + CTX_EDX), %edx
        movl    R(real_context + CTX_ESI), %esi
        movl    R(real_context + CTX_EDI), %edi
        movl    R(real_context + CTX_EBP), %ebp
        movw    R(real_context + CTX_DS), %ds
        iretl

/* Where the interrupt table leads: eight bytes an entry. */
        .balign 8
real_stubs:
        .set    v, 0
        .rept   256
        .balign 8
        pushw   $v
        jmp     real_end
        .set    v, v + 1
        .endr
real_end:
        pushw   %ds
        pushw   %cs
        popw    %ds
        movl    %eax, R(real_context + CTX_EAX)
        movl    %ebx, R(real_context + CTX_EBX)
        movl    %ecx, R(real_context + CTX_ECX)
        movl    %edx, R(real_context + CTX_EDX)
        movl    %esi, R(real_context + CTX_ESI)
        movl    %edi, R(real_context + CTX_EDI)
        movl    %ebp, R(real_context + CTX_EBP)
        popw    R(real_context + CTX_DS)
        movw    %es, R(real_context + CTX_ES)
        movw    %fs, R(real_context + CTX_FS)
        movw    %gs, R(real_context + CTX_GS)
        movw    %ss, R(real_context + CTX_SS)
        popw    R(real_vector)
        popw    R(real_context + CTX_EIP)
        popw    R(real_context + CTX_CS)
        popw    R(real_context + CTX_EFLAGS)
        movl    %esp, R(real_context + CTX_ESP)
        movl    %cr0, %eax
        movl    %eax, R(real_old_cr0)
        inb     $0x92, %al                      /* the run may have masked A20, and C lies at 1 MiB */
        testb   $2, %al
        jnz     1f
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
1:      lgdtl   R(real_protected_gdtr)
        lidtl   R(real_protected_idtr)
        movl    R(real_old_cr0), %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $SEL_KCODE, $real_back
        .balign 4
real_image_end:

        .code32
real_back:
        movw    $SEL_KDATA, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movl    resume_esp, %esp
        cld
        popl    %edi
        popl    %esi
        popl    %ebx
        popl    %ebp
        ret

        .section .note.GNU-stack, "", @progbits
