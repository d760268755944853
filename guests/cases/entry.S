/*
 * Into a case and out of it. A case may leave any stack and any data segments behind, so a way
 * out uses neither until it has loaded its own: the first registers are kept in debug registers,
 * which no case uses. In real mode CS can be written through, which is simpler.
 *
 * In:  `launch` below, filled by cases.c.
 * Out: `caught`, then back to the caller of enter_protected or enter_real with the guest's stack.
 */
#include "../lib/layout.h"

        .set    REAL_AT, 0x1000                 /* where real_start is copied to */
        .set    L_EDI, 0
        .set    L_ESI, 4
        .set    L_EBP, 8
        .set    L_EBX, 12
        .set    L_EDX, 16
        .set    L_ECX, 20
        .set    L_EAX, 24
        .set    L_ESP, 28                       /* with L_SS a pointer for LSS */
        .set    L_SS, 32
        .set    L_EIP, 36                       /* with L_CS a pointer for JMP */
        .set    L_CS, 40
        .set    L_EFLAGS, 44
        .set    L_DS, 48
        .set    L_ES, 52
        .set    L_FS, 56
        .set    L_GS, 60
        .set    C_VECTOR, 64                    /* `caught` goes on */
        .set    C_CR0, 68

        .text
/* ---- protected mode ------------------------------------------------------------------------ */

/* void enter_protected(int by_iret): to launch.cs:eip with everything loaded. */
        .globl  enter_protected
enter_protected:
        pushal
        movl    %esp, cases_resume
        movl    36(%esp), %eax
        testl   %eax, %eax
        jz      2f
        testl   $0x20000, launch + L_EFLAGS
        jz      1f
        pushl   launch + L_GS                   /* virtual-8086 mode: the segments are in the frame */
        pushl   launch + L_FS
        pushl   launch + L_DS
        pushl   launch + L_ES
1:      pushl   launch + L_SS
        pushl   launch + L_ESP
        pushl   launch + L_EFLAGS
        pushl   launch + L_CS
        pushl   launch + L_EIP
        testl   $0x20000, launch + L_EFLAGS
        jnz     3f
        call    load_segments
3:      call    load_registers
        iretl
2:      call    load_segments
        pushl   %cs:launch + L_EFLAGS
        popfl
        call    load_registers
        lss     %cs:launch + L_ESP, %esp
        ljmpl   *%cs:launch + L_EIP

load_segments:
        movw    launch + L_ES, %es
        movw    launch + L_FS, %fs
        movw    launch + L_GS, %gs
        movw    launch + L_DS, %ds
        ret

load_registers:
        movl    %cs:launch + L_EDI, %edi
        movl    %cs:launch + L_ESI, %esi
        movl    %cs:launch + L_EBP, %ebp
        movl    %cs:launch + L_EBX, %ebx
        movl    %cs:launch + L_EDX, %edx
        movl    %cs:launch + L_ECX, %ecx
        movl    %cs:launch + L_EAX, %eax
        ret

/* 256 entry points of 16 bytes. */
        .globl  cases_vectors
        .balign 16
cases_vectors:
        .set    v, 0
        .rept   256
        .balign 16
        movl    %eax, %dr3
        movl    $v, %eax
        jmp     out
        .set    v, v + 1
        .endr

out:    ljmpl   $SEL_KCODE, $1f                 /* a 16-bit gate entered through another segment */
1:      movl    %ebx, %dr2
        movl    %eax, %dr1
        movl    %ds, %ebx
        movl    $SEL_KDATA, %eax
        movl    %eax, %ds
        movl    %ebx, caught + L_DS
        movl    %dr1, %eax
        movl    %eax, caught + C_VECTOR
        movl    %dr2, %ebx
        movl    %ebx, caught + L_EBX
        movl    %dr3, %eax
        movl    %eax, caught + L_EAX
        movl    %ecx, caught + L_ECX
        movl    %edx, caught + L_EDX
        movl    %esi, caught + L_ESI
        movl    %edi, caught + L_EDI
        movl    %ebp, caught + L_EBP
        movl    %esp, caught + L_ESP
        movl    %ss, %eax
        movl    %eax, caught + L_SS
        movl    %es, %eax
        movl    %eax, caught + L_ES
        movl    %fs, %eax
        movl    %eax, caught + L_FS
        movl    %gs, %eax
        movl    %eax, caught + L_GS
back:   movl    $SEL_KDATA, %eax
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        movl    cases_resume, %esp
        movl    %cr0, %eax
        movl    %eax, caught + C_CR0
        andl    $0x7ff2fff1, %eax               /* paging, AM, WP, NE, TS, EM, MP off */
        orl     $0x20, %eax
        movl    %eax, %cr0
        movl    $2, %eax
        pushl   %eax
        popfl
        popal
        ret

/* The task that vector 8 switches to: the case is in its own TSS. The error code is on the stack. */
        .globl  double_fault
double_fault:
        movl    $8, caught + C_VECTOR
        jmp     back

/* ---- real mode -------------------------------------------------------------------------------- */

/* void enter_real(void): launch and caught are at real_launch and real_caught there. */
        .globl  enter_real
enter_real:
        pushal
        movl    %esp, cases_resume
        ljmpl   $0x110, $REAL_AT + to_real - real_start

        .globl  real_start, real_end, real_launch, real_caught, real_vectors, real_idtr, real_gdtr
        .balign 16
real_start:
        .code16
to_real:                                        /* in a 16-bit code segment with base 0 */
        movw    $0x118, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        lidtl   %cs:REAL_AT + real_idtr - real_start
        movl    %cr0, %eax
        andb    $0xfe, %al
        movl    %eax, %cr0
        ljmp    $REAL_AT >> 4, $1f - real_start
1:      xorw    %ax, %ax
        movw    %ax, %ss
        movl    $0x7000, %esp
        pushl   %cs:real_launch - real_start + L_EFLAGS
        popfl
        movw    %cs:real_launch - real_start + L_ES, %es
        movw    %cs:real_launch - real_start + L_FS, %fs
        movw    %cs:real_launch - real_start + L_GS, %gs
        movw    %cs:real_launch - real_start + L_DS, %ds
        movl    %cs:real_launch - real_start + L_EDI, %edi
        movl    %cs:real_launch - real_start + L_ESI, %esi
        movl    %cs:real_launch - real_start + L_EBP, %ebp
        movl    %cs:real_launch - real_start + L_EBX, %ebx
        movl    %cs:real_launch - real_start + L_EDX, %edx
        movl    %cs:real_launch - real_start + L_ECX, %ecx
        movl    %cs:real_launch - real_start + L_EAX, %eax
        lssl    %cs:real_launch - real_start + L_ESP, %esp
        ljmpl   *%cs:real_launch - real_start + L_EIP

        .balign 16
real_vectors:
        .set    v, 0
        .rept   256
        .balign 16
        movl    %eax, %cs:real_caught - real_start + L_EAX
        movl    $v, %eax
        jmp     real_out
        .set    v, v + 1
        .endr
real_out:
        movl    %eax, %cs:real_caught - real_start + C_VECTOR
        movl    %ecx, %cs:real_caught - real_start + L_ECX
        movl    %edx, %cs:real_caught - real_start + L_EDX
        movl    %ebx, %cs:real_caught - real_start + L_EBX
        movl    %ebp, %cs:real_caught - real_start + L_EBP
        movl    %esi, %cs:real_caught - real_start + L_ESI
        movl    %edi, %cs:real_caught - real_start + L_EDI
        movl    %esp, %cs:real_caught - real_start + L_ESP
        movw    %ss, %cs:real_caught - real_start + L_SS
        movw    %ds, %cs:real_caught - real_start + L_DS
        movw    %es, %cs:real_caught - real_start + L_ES
        movw    %fs, %cs:real_caught - real_start + L_FS
        movw    %gs, %cs:real_caught - real_start + L_GS
        lgdtl   %cs:real_gdtr - real_start
        movl    %cr0, %eax
        movl    %eax, %cs:real_caught - real_start + C_CR0
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $SEL_KCODE, $real_back
        .balign 16
real_launch:    .space 80
real_caught:    .space 80
real_idtr:      .word 0x3ff
                .long 0
                .balign 4
real_gdtr:      .word 0
                .long 0
real_end:
        .code32
real_back:
        movl    $SEL_KDATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        movl    cases_resume, %esp
        movl    %cr0, %eax
        andl    $0x7ff2fff1, %eax
        orl     $0x20, %eax
        movl    %eax, %cr0
        pushl   $2
        popfl
        popal
        ret

        .bss
        .globl  launch, caught
        .balign 16
launch: .space  80
caught: .space  80
cases_resume:
        .space  4

        .section .note.GNU-stack, "", @progbits
