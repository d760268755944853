/*
 * The measured pieces of code and the handlers that they end up in. nano.h says which register holds what. Nothing
 * in a block may name an address of its own but through EBX, since it runs from wherever it was copied to.
 */
#include "../../lib/layout.h"
#include "nano.h"

#define PTE(n) nano_table + 4 * (n)
#define PAGE(n) NANO_AREA + 0x1000 * (n)

        .macro  BLOCK name
        .globl  block_\name, block_\name\()_end
        .balign 16
block_\name:
        .endm
        .macro  TURNS                           /* the timed part begins */
        rdtsc
        movl    %eax, %esi
1:
        .endm
        .macro  FINISH name                     /* the timed part ends */
        decl    %ebp
        jnz     1b
        rdtsc
        subl    %esi, %eax
        int     $0x7f
block_\name\()_end:
        .endm

        .text

/* ---- the loop alone, and the clock ------------------------------------------------------------- */
BLOCK empty
TURNS
FINISH empty

BLOCK rdtsc
TURNS
        .rept   8
        rdtsc
        .endr
FINISH rdtsc

        .globl  nano_wide_run                   /* uint32_t (void): 4096 additions, four at a time */
nano_wide_run:
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        pushl   %ebp
        movl    $8, %ecx
        movl    $3, %ebx
        rdtsc
        movl    %eax, %esi
1:
        .rept   128
        addl    %ebx, %eax
        addl    %ebx, %edx
        addl    %ebx, %edi
        addl    %ebx, %ebp
        .endr
        decl    %ecx
        jnz     1b
        rdtsc
        subl    %esi, %eax
        popl    %ebp
        popl    %edi
        popl    %esi
        popl    %ebx
        ret

        .globl  nano_chain_run                  /* uint32_t (void): 4096 dependent additions */
nano_chain_run:
        pushl   %ebx
        pushl   %esi
        movl    $8, %ecx
        movl    $3, %ebx
        rdtsc
        movl    %eax, %esi
1:
        .rept   512                             /* not by a constant: some processors add those for nothing */
        addl    %ebx, %eax
        .endr
        decl    %ecx
        jnz     1b
        movl    %eax, nano_chain_sum
        rdtsc
        subl    %esi, %eax
        popl    %esi
        popl    %ebx
        ret

/* ---- system calls, from ring 3 -------------------------------------------------------------------- */
BLOCK syscall_int80
TURNS
        .rept   4
        int     $0x80
        .endr
FINISH syscall_int80
        .globl  nano_int80
nano_int80:
        incl    %edi
        iretl

BLOCK syscall_sysenter
TURNS
        .rept   4
        movl    %esp, %ecx
        leal    (2f - block_syscall_sysenter)(%ebx), %edx
        sysenter
2:
        .endr
FINISH syscall_sysenter
        .globl  nano_sysenter
nano_sysenter:
        incl    %edi
        sysexit

/* ---- ports --------------------------------------------------------------------------------------------- */
BLOCK in                                        /* a register that is only a byte of the device: its scratch register */
        movl    $0x3ff, %edx
        xorl    %eax, %eax
        incl    %eax
        outb    %al, %dx
        movl    %edx, %ecx
        rdtsc
        movl    %eax, %esi
        movl    %ecx, %edx
        xorl    %eax, %eax
1:
        .rept   8
        inb     %dx, %al
        addl    %eax, %edi
        .endr
FINISH in

BLOCK in_80                                     /* the port that delays */
TURNS
        .rept   8
        inb     $0x80, %al
        incl    %edi
        .endr
FINISH in_80

BLOCK in_pic                                    /* the interrupt mask */
TURNS
        .rept   8
        xorl    %eax, %eax
        inb     $0x21, %al
        addl    %eax, %edi
        .endr
FINISH in_pic

BLOCK out
        rdtsc
        movl    %eax, %esi
        movl    $0x3ff, %edx
1:
        .rept   8
        incl    %edi
        movl    %edi, %eax
        outb    %al, %dx
        .endr
        decl    %ebp
        jnz     1b
        rdtsc
        subl    %esi, %eax
        movl    %eax, %ecx                      /* what was written last is there */
        movl    $0x3ff, %edx
        inb     %dx, %al
        xorl    %edi, %eax
        movzbl  %al, %eax
        subl    %eax, %edi
        movl    %ecx, %eax
        int     $0x7f
block_out_end:

/* ---- control registers and flags ---------------------------------------------------------------------------- */
BLOCK cr3_load
        movl    %cr3, %ecx
TURNS
        .rept   4
        movl    %ecx, %cr3
        incl    %edi
        .endr
FINISH cr3_load

BLOCK cr3_switch                                /* between two address spaces, a page of each is read */
        movl    %cr3, %ecx
        rdtsc
        movl    %eax, %esi
        movl    nano_other_cr3, %edx
1:
        .rept   2
        movl    %edx, %cr3
        addl    PAGE(0), %edi                   /* 3 */
        movl    %ecx, %cr3
        addl    PAGE(0), %edi                   /* 1 */
        .endr
FINISH cr3_switch

BLOCK mov_from_cr0
        movl    %cr0, %edx
        movl    %edx, %ecx
TURNS
        .rept   8
        movl    %cr0, %edx
        .endr
        subl    %ecx, %edx
        addl    $8, %edi
        subl    %edx, %edi
FINISH mov_from_cr0

BLOCK cli_sti                                   /* a pair is an event */
TURNS
        .rept   8
        cli
        sti
        .endr
        addl    $8, %edi
FINISH cli_sti

BLOCK pushf_popf
TURNS
        .rept   8
        pushfl
        popfl
        .endr
        addl    $8, %edi
FINISH pushf_popf

BLOCK pushf_cli_popf                            /* what kernels do around a critical section */
TURNS
        .rept   8
        pushfl
        cli
        popfl
        .endr
        addl    $8, %edi
FINISH pushf_cli_popf

BLOCK segment_load
        movl    %ds, %ecx
TURNS
        .rept   4
        movl    %ecx, %ds
        movl    %ecx, %es
        .endr
        addl    $8, %edi
FINISH segment_load

BLOCK cpuid
        rdtsc
        movl    %eax, %esi
1:
        .rept   2
        xorl    %eax, %eax
        cpuid
        cmpl    $1, %ebx                        /* some vendor's name is there: count */
        sbbl    $-1, %edi
        .endr
FINISH cpuid

/* ---- control flow ---------------------------------------------------------------------------------------------- */
BLOCK call_ret
        jmp     3f
2:      incl    %edi
        ret
3:
TURNS
        .rept   8
        call    2b
        .endr
FINISH call_ret

BLOCK call_indirect
        jmp     3f
2:      incl    %edi
        ret
3:
        rdtsc
        movl    %eax, %esi
        leal    (2b - block_call_indirect)(%ebx), %ecx
1:
        .rept   8
        call    *%ecx
        .endr
FINISH call_indirect

BLOCK call_indirect_4                           /* one site, four callees in turn */
        jmp     3f
        .balign 16
2:
        .rept   4
        incl    %edi
        ret
        .balign 16, 0x90
        .endr
3:
        rdtsc
        movl    %eax, %esi
        xorl    %edx, %edx
1:
        leal    (2b - block_call_indirect_4)(%ebx,%edx), %ecx
        call    *%ecx
        addl    $16, %edx
        andl    $48, %edx
FINISH call_indirect_4

BLOCK far_call
        jmp     3f
2:      incl    %edi
        lretl
3:
        leal    (2b - block_far_call)(%ebx), %ecx
        pushl   $SEL_KCODE
        pushl   %ecx
TURNS
        .rept   4
        lcall   *(%esp)
        .endr
        decl    %ebp
        jnz     1b
        rdtsc
        subl    %esi, %eax
        addl    $8, %esp
        int     $0x7f
block_far_call_end:

BLOCK int_same_ring
TURNS
        .rept   4
        int     $0x81
        .endr
FINISH int_same_ring

BLOCK task_switch                               /* there and back: two events */
TURNS
        ljmp    $SEL_NANO_TSS, $0
        addl    nano_task_count, %edi
        movl    $0, nano_task_count
FINISH task_switch
        .globl  nano_task
nano_task:
        incl    nano_task_count
        ljmp    $SEL_TSS, $0
        jmp     nano_task

/* ---- exceptions, from ring 3 ------------------------------------------------------------------------------------- */
BLOCK divide_error
        rdtsc
        movl    %eax, %esi
        xorl    %ecx, %ecx
1:
        .rept   4
        divl    %ecx                            /* two bytes */
        .endr
FINISH divide_error
        .globl  nano_divide
nano_divide:
        addl    $2, (%esp)
        incl    %edi
        iretl

BLOCK page_fault                                /* the handler makes the page present, a page a turn */
        rdtsc
        movl    %eax, %esi
        movl    $NANO_AREA, %ecx
1:
        movl    (%ecx), %edx
        addl    $0x1000, %ecx
FINISH page_fault
        .globl  nano_fault_fix
nano_fault_fix:
        pushl   %eax
        movl    %cr2, %eax
        shrl    $10, %eax
        andl    $0xffc, %eax
        orl     $1, nano_table(%eax)
        popl    %eax
        addl    $4, %esp
        incl    %edi
        iretl

BLOCK page_fault_only                           /* the handler goes on behind the instruction */
        rdtsc
        movl    %eax, %esi
        movl    $NANO_AREA, %ecx
1:
        .rept   4
        movl    (%ecx), %edx                    /* two bytes */
        .endr
FINISH page_fault_only
        .globl  nano_fault_skip
nano_fault_skip:
        addl    $4, %esp
        addl    $2, (%esp)
        incl    %edi
        iretl

/* ---- page tables --------------------------------------------------------------------------------------------------- */
BLOCK invlpg
TURNS
        .set    i, 0
        .rept   8
        invlpg  PAGE(i)
        .set    i, i + 1
        .endr
        addl    $8, %edi
FINISH invlpg

BLOCK invlpg_touch                              /* a mapped page that is not shadowed: a hidden fault */
TURNS
        .set    i, 0
        .rept   8
        invlpg  PAGE(i)
        addl    PAGE(i), %edi
        .set    i, i + 1
        .endr
FINISH invlpg_touch

BLOCK cr3_touch                                 /* the same by CR3: what a page costs, and a 32nd of the load */
        movl    %cr3, %ecx
TURNS
        movl    %ecx, %cr3
        .set    i, 0
        .rept   32
        addl    PAGE(i), %edi
        .set    i, i + 1
        .endr
FINISH cr3_touch

BLOCK pte_store                                 /* eight entries of a live table, whose pages nobody uses */
        movl    PTE(512), %eax
        movl    %eax, %ecx
        rdtsc
        movl    %eax, %esi
1:
        xorl    $0x200, %ecx                    /* a bit for software */
        .set    i, 512
        .rept   8
        movl    %ecx, PTE(i)
        .set    i, i + 1
        .endr
        addl    $8, %edi
FINISH pte_store

BLOCK pte_store_used                            /* the same, and the pages were read before: they are shadowed */
        .set    i, 80
        .rept   8
        addl    PAGE(i), %edi
        .set    i, i + 1
        .endr
        subl    $8, %edi
        movl    PTE(80), %eax
        movl    %eax, %ecx
        rdtsc
        movl    %eax, %esi
1:
        xorl    $0x200, %ecx
        .set    i, 80
        .rept   8
        movl    %ecx, PTE(i)
        .set    i, i + 1
        .endr
        addl    $8, %edi
FINISH pte_store_used

BLOCK ptemod                                    /* change an entry, flush it, use the page: it is another one each time */
TURNS
        .rept   2
        xorl    $NANO_ONES ^ NANO_THREES, PTE(64)
        invlpg  PAGE(64)
        addl    PAGE(64), %edi
        .endr
FINISH ptemod

/* ---- interrupts from a device ------------------------------------------------------------------------------------------ */
BLOCK irq_self                                  /* the UART's "transmitter is empty", off and on */
TURNS
        leal    1(%edi), %ecx
        movl    $0x3f9, %edx
        xorl    %eax, %eax
        outb    %al, %dx
        movb    $2, %al
        outb    %al, %dx
        movl    $10000000, %eax                 /* it may be late, not absent */
2:      cmpl    %edi, %ecx
        je      3f
        decl    %eax
        jnz     2b
3:
FINISH irq_self
        .globl  nano_uart
nano_uart:
        pushl   %eax
        pushl   %edx
        movl    $0x3fa, %edx
        inb     %dx, %al
        movb    $0x20, %al
        outb    %al, $0x20
        popl    %edx
        popl    %eax
        incl    %edi
        iretl

BLOCK hlt_pending                               /* HLT with the interrupt already there: what it costs not to sleep */
TURNS
        cli
        movl    $0x3f9, %edx
        xorl    %eax, %eax
        outb    %al, %dx
        movb    $2, %al
        outb    %al, %dx
        sti
        hlt
FINISH hlt_pending

/* ---- context switches ---------------------------------------------------------------------------------------------------- */
        .macro  SWITCH_STACK
        movl    %esp, %eax
        movl    nano_other_stack, %esp
        movl    %eax, nano_other_stack
        .endm

        .macro  CONTEXT pages
BLOCK context_switch_\pages                     /* a turn is a switch to the other address space and back */
        movl    %cr3, %ecx
        rdtsc
        movl    %eax, %esi
        movl    nano_other_cr3, %edx
1:
        SWITCH_STACK
        movl    %edx, %cr3
        pushl   %eax
        .set    i, 0
        .rept   \pages
        addl    PAGE(i), %edi
        movl    %ebp, PAGE(i) + 64
        .set    i, i + 1
        .endr
        popl    %eax
        SWITCH_STACK
        movl    %ecx, %cr3
        pushl   %eax
        .set    i, 0
        .rept   \pages
        addl    PAGE(i), %edi
        movl    %ebp, PAGE(i) + 64
        .set    i, i + 1
        .endr
        popl    %eax
FINISH context_switch_\pages
        .endm

        CONTEXT 1
        CONTEXT 16
        CONTEXT 128

/* ---- interrupts that come by themselves ------------------------------------------------------------------------------------ */
/*
 * Additions between two looks at the clock; where the count of interrupts has grown, the time since the look before
 * and until the next one is written to ECX. EBP is where ECX stops, in all blocks from here on.
 */
        .macro  LOOK
        .rept   64
        addl    %ebp, %edx
        .endr
        rdtsc
        movl    %eax, %edx
        subl    %esi, %eax
        movl    %edx, %esi
        .endm
        .macro  GAPS name, until
BLOCK \name
        movl    %edi, %ebx
        rdtsc
        movl    %eax, %esi
1:      LOOK
        cmpl    %edi, %ebx
        je      \until
        movl    %edi, %ebx
        movl    %eax, (%ecx)
        LOOK                                    /* it may have come just behind the clock */
        addl    %eax, (%ecx)
        addl    $4, %ecx
        cmpl    %ecx, %ebp
        ja      1b
        int     $0x7f
block_\name\()_end:
        .endm

        GAPS irq_gaps, 1b
BLOCK irq_gap_base                              /* the same without interrupts: EBP looks */
        rdtsc
        movl    %eax, %esi
        movl    %esi, nano_scratch
1:      LOOK
        cmpl    %edi, %ebx
        je      2f
        incl    %edi
2:      decl    %ebp
        jnz     1b
        subl    nano_scratch, %edx
        movl    %edx, %eax
        int     $0x7f
block_irq_gap_base_end:

BLOCK hlt_timer
1:      sti
        hlt
        cli
        cmpl    %ecx, %ebp
        ja      1b
        int     $0x7f
block_hlt_timer_end:

BLOCK busy_timer
1:      .rept   64
        addl    %ebp, %edx
        .endr
        cmpl    %ecx, %ebp
        ja      1b
        int     $0x7f
block_busy_timer_end:

        .globl  nano_tick                       /* an interrupt, acknowledged */
nano_tick:
        pushl   %eax
        movb    $0x20, %al
        outb    %al, $0x20
        popl    %eax
        incl    %edi
        iretl
        .globl  nano_tick_read                  /* the same, and how far the counter has come goes to ECX */
nano_tick_read:
        pushl   %eax
        pushl   %edx
        xorl    %eax, %eax
        outb    %al, $0x43
        inb     $0x40, %al
        movzbl  %al, %edx
        inb     $0x40, %al
        movb    %al, %dh
        movl    %edx, (%ecx)
        addl    $4, %ecx
        movb    $0x20, %al
        outb    %al, $0x20
        popl    %edx
        popl    %eax
        incl    %edi
        iretl

        .bss
        .balign 64
        .globl  nano_other_cr3, nano_other_stack, nano_task_count, nano_scratch, nano_chain_sum
nano_other_cr3: .long 0
nano_chain_sum: .long 0
nano_scratch:   .long 0
        .balign 4096
nano_task_count: .long 0
nano_other_stack: .long 0

        .section .note.GNU-stack, "", @progbits
