/*
 * A guest that runs rubbish: it jumps into a megabyte of biased random bytes that
 * tests/fuzz/hostile appends, in a random privilege, mode and with random registers, and does
 * so again whenever an exception or interrupt brings control back. Nothing it meets may harm
 * the monitor; whether results are right is not asked here.
 *
 *   0x100000  this program, its IDTs, read-only where paging is on
 *   0x102000  its words that change, and the tables that the processor writes (TSSs)
 *   0x104000  page directories and tables
 *   0x110000  rubbish to 0x210000, run and overwritten
 *
 * The timer's interrupt ends loops that have interrupts on. For the others there is the
 * host's SIGTERM, which is part of the test.
 */
        .set    DATA,    0x102000
        .set    SEED,    DATA + 0
        .set    COUNT,   DATA + 4
        .set    GDT,     DATA + 0x100           /* copied afresh each time */
        .set    REAL_IDT, 0x101400
        .set    IDT,     0x101800
        .set    TSS,     DATA + 0x1000
        .set    TSS2,    TSS + 0x800
        .set    STACK,   DATA + 0x1f00
        .set    PD,      0x104000               /* 4 KiB pages below 4 MiB, 4 MiB pages above */
        .set    PT,      0x105000
        .set    PDPT,    0x106000               /* PAE: the same with 2 MiB pages */
        .set    PAE_PD,  0x107000
        .set    PAE_PT,  0x108000               /* two pages */
        .set    RUBBISH, 0x110000
        .set    BASE,    0x100000               /* where this program is linked */

        .code32
        .text
        .globl  _start
_start: cli
        cld
        movl    $STACK, %esp
        rdtsc
        movl    fixed_seed, %ebx
        testl   %ebx, %ebx
        jz      1f
        movl    %ebx, %eax
1:      movl    %eax, SEED
        movl    $0, COUNT
        movl    $RUBBISH, %esi                  /* no zeros below 640 KiB: they run on and on */
        movl    $0x1000, %edi
        movl    $0x9e000 / 4, %ecx
        rep movsl
        movl    $REAL_IDT, %edi
        movl    $0xffff0010 + back - _start, %eax
        movl    $256, %ecx
        rep stosl
        call    make_tables
        jmp     again

/* Every exception and interrupt comes here. Nothing that the rubbish left is trusted. */
caught: cli
        cld
        xorl    %eax, %eax                      /* breakpoints off: they may be on what follows */
        movl    %eax, %dr7
        lgdt    %cs:pristine_ptr
        movw    $0x10, %ax
        movw    %ax, %ss
        movl    $STACK, %esp
        movw    %ax, %ds
        movw    %ax, %es
again:  movl    %cr0, %eax
        andl    $0x7ffafff3, %eax               /* paging, AM, WP, EM, TS off: the tables may be gone */
        movl    %eax, %cr0
        incl    COUNT
        testl   $63, COUNT
        jnz     1f
        call    make_tables
1:      lgdt    pristine_ptr
        ljmp    $8, $2f
2:      movl    $gdt, %esi
        movl    $GDT, %edi
        movl    $(gdt_end - gdt) / 4, %ecx
        rep movsl
        lgdt    gdt_ptr
        call    make_idt
        lidt    idt_ptr
        movl    $TSS, %edi
        movl    $0xe00 / 4, %ecx
        xorl    %eax, %eax
        rep stosl
        movl    $STACK, TSS + 4
        movl    $0x10, TSS + 8
        movl    $STACK, TSS + 12                /* ring 1 */
        movl    $0x31, TSS + 16
        movw    $0x68, TSS + 102
        movl    $caught, TSS2 + 32              /* a second TSS, for task switches */
        movl    $STACK, TSS2 + 56
        movl    $0x10, TSS2 + 72
        movl    $8, TSS2 + 76
        movl    $0x10, TSS2 + 80
        movl    $0x10, TSS2 + 84
        movl    $0x68, %eax
        lldt    %ax
        movl    $0x60, %eax
        ltr     %ax
        call    make_timer
        fninit
        call    choose_breakpoints
        call    choose_paging
        call    random
        shrl    $8, %eax
        andl    $15, %eax
        jmp     *ways(, %eax, 4)

/* Random 32 bits in EAX; changes nothing else. */
random: imull   $1664525, SEED, %eax
        addl    $1013904223, %eax
        movl    %eax, SEED
        roll    $13, %eax
        ret

/* Now and then: on an instruction, on rubbish, on the words and tables, on a port or low memory. */
choose_breakpoints:
        call    random
        testl   $0x300, %eax
        jnz     1f
        call    random_eip
        movl    %eax, %dr0
        call    random
        andl    $0xfffff, %eax
        addl    $RUBBISH, %eax
        movl    %eax, %dr1
        call    random
        andl    $0x3fff, %eax
        addl    $DATA, %eax
        movl    %eax, %dr2
        call    random
        andl    $0xffff, %eax
        movl    %eax, %dr3
        movl    %cr4, %eax
        orl     $8, %eax                        /* DE */
        movl    %eax, %cr4
        call    random
        andl    $0xffffdfff, %eax               /* not GD */
        movl    %eax, %dr7
1:      ret

/* ---- ways into the rubbish ------------------------------------------------------------- */
        .balign 4
ways:   .long   ring0, ring0, ring0, ring0, ring3, ring3, ring3, ring3
        .long   code16, code16, v86, v86, ring1, real, small, ring0

ring0:  movl    $0x08, %ebx
        jmp     same_ring
code16: movl    $0x48, %ebx
        jmp     same_ring
small:  movl    $0x58, %ebx
same_ring:
        call    random_segments
        call    random
        movl    %eax, %esi
        andl    $0xffffc, %esi
        leal    RUBBISH(%esi), %esp
        call    random_flags
        pushl   %eax
        pushl   %ebx
        call    random_eip
        cmpl    $0x08, %ebx
        je      1f
        andl    $0xffff, %eax
1:      pushl   %eax
        call    random_registers
        iretl

ring1:  movl    $0x29, %ebx
        movl    $0x31, %edx
        jmp     outer
ring3:  movl    $0x1b, %ebx
        movl    $0x23, %edx
outer:  call    random_segments
        pushl   %edx
        call    random
        andl    $0xffffc, %eax
        addl    $RUBBISH, %eax
        pushl   %eax
        call    random_flags
        pushl   %eax
        pushl   %ebx
        call    random_eip
        pushl   %eax
        movw    $0x23, %ax
        movw    %ax, %ds
        movw    %ax, %es
        call    random_registers
        iretl

v86:    call    low_rubbish
        movl    $4, %ecx
1:      call    random
        andl    $0x1fff, %eax
        addl    $0x1000, %eax
        pushl   %eax                            /* GS FS DS ES */
        loop    1b
        pushl   $0x1800
        call    random
        andl    $0xfffe, %eax
        pushl   %eax
        call    random_flags
        orl     $0x20000, %eax
        pushl   %eax
        pushl   $0x1000
        call    random
        andl    $0xffff, %eax
        pushl   %eax
        call    random_registers
        iretl

/* Protection off, through the 16-bit segment. All real-mode vectors lead back to `caught`. */
real:   call    low_rubbish
        lidt    real_idt_ptr
        movl    %cr0, %eax
        andl    $0x7fffffff, %eax
        movl    %eax, %cr0
        ljmp    $0x48, $in_real - _start
        .code16
in_real:
        movw    $0x38, %ax
        movw    %ax, %ss
        movw    %ax, %ds
        movw    %ax, %es
        movl    %cr0, %eax
        andl    $0x7ffffffe, %eax
        movl    %eax, %cr0
        sti
        ljmp    $0x1000, $0
back:   lgdtl   %cs:0x10 + pristine_ptr - _start /* CS is FFFFh: the program begins at 10h */
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $caught
        .code32

/* 128 KiB of rubbish at 0x10000, where real mode and V86 find it */
low_rubbish:
        call    random
        andl    $0xdfff0, %eax
        leal    RUBBISH(%eax), %esi
        movl    $0x10000, %edi
        movl    $0x8000, %ecx
        rep movsl
        ret

/* ---- what it is entered with ------------------------------------------------------------- */

random_eip:
        call    random
        andl    $0xfffff, %eax
        testl   $0x700, %eax
        jnz     1f
        orl     $0xff8, %eax                    /* near a page's end */
1:      addl    $RUBBISH, %eax
        ret

/* Arithmetic flags, DF, IOPL, NT and AC as they come; IF set; TF now and then. */
random_flags:
        call    random
        movl    %eax, %ecx
        andl    $0x00047cd5, %eax
        testl   $0x03800000, %ecx
        jz      1f
        andl    $0xffffbfff, %eax               /* NT seldom */
1:      orl     $0x202, %eax
        testl   $0x1c000000, %ecx
        jnz     2f
        orl     $0x100, %eax
2:      ret

random_segments:
        call    random
        movl    %eax, %ecx
        andl    $7, %ecx
        movw    data_selectors(, %ecx, 2), %fs
        movzbl  %ah, %ecx
        andl    $7, %ecx
        movw    data_selectors(, %ecx, 2), %gs
        ret
data_selectors:
        .word   0x10, 0x23, 0x38, 0x40, 0x50, 0, 0x14, 0x23

/* Mostly addresses of the rubbish; one in four anything */
random_registers:
        movl    $7, %ecx
1:      call    random
        testl   $0x300, %eax
        jz      2f
        andl    $0x1fffff, %eax
        addl    $0x108000, %eax
2:      pushl   %eax
        loop    1b
        popl    %eax
        popl    %edx
        popl    %ebx
        popl    %ebp
        popl    %esi
        popl    %edi
        popl    %ecx
        ret

/* ---- tables -------------------------------------------------------------------------------- */

choose_paging:
        call    random
        shrl    $6, %eax
        movl    %cr4, %edx
        andl    $~0x30, %edx
        testl   $1, %eax
        jz      1f
        movl    %edx, %cr4
        ret                                     /* none */
1:      movl    $PD, %ecx
        orl     $0x10, %edx
        testl   $2, %eax
        jz      2f
        orl     $0x20, %edx
        movl    $PDPT, %ecx
2:      movl    %edx, %cr4
        movl    %ecx, %cr3
        movl    %ecx, TSS2 + 28
        movl    %cr0, %edx
        orl     $0x80000000, %edx
        testl   $0xc, %eax                      /* write protection, three times in four */
        jz      3f
        orl     $0x10000, %edx
3:      testl   $0x30, %eax                     /* alignment checks allowed */
        jnz     4f
        orl     $0x40000, %edx
4:      testl   $0x1c0, %eax                    /* FPU off, seldom */
        jnz     5f
        orl     $0x8, %edx
5:      movl    %edx, %cr0
        ret

/* VA page ECX: flag bits in EAX, its PA page in EBX. Changes EDX. */
page_of:
        movl    %ecx, %ebx
        movl    $7, %eax
        cmpl    $0x100, %ecx
        jb      2f
        cmpl    $0x102, %ecx
        jae     1f
        movl    $1, %eax                        /* the program: read-only, supervisor */
        ret
1:      cmpl    $0x110, %ecx
        jae     2f
        movl    $3, %eax
        ret
2:      movl    %ecx, %edx                      /* rubbish: now and then something else */
        andl    $31, %edx
        cmpl    $9, %edx
        jne     3f
        decl    %ebx                            /* the page before once more: aliases */
3:      cmpl    $17, %edx
        jne     4f
        movl    $6, %eax                        /* absent */
4:      cmpl    $21, %edx
        jne     5f
        movl    $5, %eax                        /* read-only */
5:      cmpl    $25, %edx
        jne     6f
        movl    $0xa0, %ebx                     /* the display's memory */
6:      cmpl    $29, %edx
        jne     7f
        movl    $0x104, %ebx                    /* the page tables themselves */
7:      cmpl    $5, %edx
        jne     8f
        orl     $0x100, %eax                    /* global */
8:      ret

make_tables:
        xorl    %ecx, %ecx
1:      call    page_of
        shll    $12, %ebx
        orl     %ebx, %eax
        movl    %eax, PT(, %ecx, 4)
        movl    %eax, PAE_PT(, %ecx, 8)
        movl    $0, PAE_PT + 4(, %ecx, 8)
        incl    %ecx
        cmpl    $1024, %ecx
        jb      1b
        movl    $1, %ecx
2:      movl    %ecx, %eax
        shll    $22, %eax
        orl     $0x87, %eax
        movl    %eax, PD(, %ecx, 4)
        incl    %ecx
        cmpl    $1024, %ecx
        jb      2b
        movl    $PT + 7, PD
        movl    $PDPT, %edi
        movl    $8, %ecx
        xorl    %eax, %eax
        rep stosl
        movl    $PAE_PD + 1, PDPT
        movl    $PAE_PD + 1, PDPT + 8           /* the second GiB is the first again */
        movl    $0x12345001, PDPT + 24          /* nowhere */
        movl    $2, %ecx
3:      movl    %ecx, %eax
        shll    $21, %eax
        orl     $0x87, %eax
        movl    %eax, PAE_PD(, %ecx, 8)
        movl    $0, PAE_PD + 4(, %ecx, 8)
        incl    %ecx
        cmpl    $512, %ecx
        jb      3b
        movl    $PAE_PT + 7, PAE_PD
        movl    $0, PAE_PD + 4
        movl    $PAE_PT + 0x1007, PAE_PD + 8
        movl    $0, PAE_PD + 12
        ret

make_idt:
        movl    $IDT, %edi
        movl    $256, %ecx
1:      movl    $0x80000 + caught - _start, %eax
        stosl
        movl    $BASE + 0x8e00, %eax
        cmpl    $256 - 0x80, %ecx
        jne     2f
        movl    $BASE + 0xee00, %eax            /* INT 80h from anywhere */
2:      stosl
        loop    1b
        movl    $0x00700000, IDT + 8 * 8        /* #DF: a task gate */
        movl    $0x00008500, IDT + 8 * 8 + 4
        ret

/* Both 8259 at 20h and 28h, only the timer on; counter 0 every millisecond */
make_timer:
        movl    $timer_bytes, %esi
1:      movzbl  (%esi), %edx
        testl   %edx, %edx
        jz      2f
        movb    1(%esi), %al
        outb    %al, %dx
        addl    $2, %esi
        jmp     1b
2:      ret
timer_bytes:
        .byte   0x20, 0x11, 0x21, 0x20, 0x21, 0x04, 0x21, 0x01, 0x21, 0xfe
        .byte   0xa0, 0x11, 0xa1, 0x28, 0xa1, 0x02, 0xa1, 0x01, 0xa1, 0xff
        .byte   0x43, 0x34, 0x40, 0xa9, 0x40, 0x04, 0

        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff              /* 08 code, ring 0 */
        .quad   0x00cf93000000ffff              /* 10 data */
        .quad   0x00cffb000000ffff              /* 1b code, ring 3 */
        .quad   0x00cff3000000ffff              /* 23 data */
        .quad   0x00cfbb000000ffff              /* 29 code, ring 1 */
        .quad   0x00cfb3000000ffff              /* 31 data */
        .quad   0x000093120000ffff              /* 38 16-bit data at 0x120000 */
        .quad   0x00c097000000010f              /* 40 expand-down */
        .quad   0x00009b100000ffff              /* 48 16-bit code at 0x100000 */
        .quad   0x004093150000ffff              /* 50 64 KiB at 0x150000 */
        .quad   0x00409b130000ffff              /* 58 code, 64 KiB at 0x130000 */
        .word   0x87, TSS - BASE                /* 60 TSS */
        .byte   BASE >> 16, 0x89, 0, 0
        .word   0x3f, GDT - BASE                /* 68 LDT: the GDT's first eight */
        .byte   BASE >> 16, 0x82, 0, 0
        .word   0x67, TSS2 - BASE               /* 70 the other TSS */
        .byte   BASE >> 16, 0x89, 0, 0
        .word   caught - _start, 8              /* 78 call gate, ring 3 */
        .byte   3, 0xec, BASE >> 16, 0
        .word   0xffff, 0                       /* 80 a gate to nowhere */
        .byte   0, 0xe4, 0xff, 0xff
gdt_end:
pristine_ptr:
        .word   gdt_end - gdt - 1
        .long   gdt
gdt_ptr:
        .word   gdt_end - gdt - 1
        .long   GDT
real_idt_ptr:
        .word   0x3ff
        .long   REAL_IDT
idt_ptr:
        .word   0x7ff
        .long   IDT
        .balign 16
        .ascii  "HOSTILE!"                      /* found by tests/fuzz/hostile */
fixed_seed:
        .long   0
