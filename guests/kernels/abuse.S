/*
 * Guests that ask for as much of the monitor as they can: one loop each, chosen by the byte behind
 * "ABUSE!" that tests/fuzz/abuse writes. None ends by itself. The host must see nothing of them
 * but processor time: bounded memory, no output, and an end when it asks for one.
 *
 *   0x100000  this program     0x110000  stack below    0x120000  IDT
 *   0x130000  page tables      0x200000 and up: what the loops use
 */
        .set    IDT,   0x120000
        .set    PD,    0x130000
        .set    PT,    0x131000
        .set    FREE,  0x200000
        .set    LIMIT, 0x1c00000                /* with -m 32M */

        .code32
        .text
        .globl  _start
_start: cli
        cld
        movl    $0x110000, %esp
        lgdt    gdtr
        ljmp    $8, $1f
1:      movl    $16, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $IDT, %edi                      /* every vector: return, after an EOI */
        movl    $256, %ecx
2:      movl    $handler, %eax
        movw    %ax, (%edi)
        movw    $8, 2(%edi)
        movw    $0x8e00, 4(%edi)
        shrl    $16, %eax
        movw    %ax, 6(%edi)
        addl    $8, %edi
        loop    2b
        lidt    idtr
        movzbl  which, %eax
        jmp     *table(,%eax,4)
table:  .long   pages, spaces, smc, fill, triple, pit, rtc, uart, ports, mmio, halt, string, fault, keys, stores

handler:
        pushl   %eax
        movb    $0x20, %al
        outb    %al, $0xa0
        outb    %al, $0x20
        movb    $0x0c, %al                      /* RTC: register C, or no more interrupts */
        outb    %al, $0x70
        inb     $0x71, %al
        popl    %eax
        iret

/* Both PICs: vectors 20h and 28h, all lines open. */
open_pics:
        movb    $0x11, %al
        outb    %al, $0x20
        outb    %al, $0xa0
        movb    $0x20, %al
        outb    %al, $0x21
        movb    $0x28, %al
        outb    %al, $0xa1
        movb    $4, %al
        outb    %al, $0x21
        movb    $2, %al
        outb    %al, $0xa1
        movb    $1, %al
        outb    %al, $0x21
        outb    %al, $0xa1
        xorl    %eax, %eax
        outb    %al, $0x21
        outb    %al, $0xa1
        ret

/* Every page of 4 GiB is present: one table, in every directory entry. It maps 4 MiB from 0. */
paging:
        movl    $PT, %edi
        movl    $7, %eax
        movl    $1024, %ecx
1:      stosl
        addl    $0x1000, %eax
        loop    1b
        movl    $PD, %edi
        movl    $PT + 7, %eax
        movl    $1024, %ecx
        rep stosl
        movl    $PD, %eax
        movl    %eax, %cr3
        movl    $0x80010001, %eax
        movl    %eax, %cr0
        ret

/* A million pages, read and written. */
pages:  call    paging
1:      movl    $FREE, %esi
2:      movl    (%esi), %eax
        movl    %eax, 4(%esi)
        addl    $0x1000, %esi
        movl    %esi, %eax
        andl    $0x3fffff, %eax
        cmpl    $FREE, %eax                     /* never onto the program or its tables */
        jae     2b
        orl     $FREE, %esi
        testl   $0xffc00000, %esi
        jnz     2b
        jmp     1b

/* Thousands of address spaces, each for a few accesses. */
spaces: call    paging
        movl    $0x100, %ebx
1:      movl    $FREE, %edi
2:      pushl   %edi
        movl    $PD, %esi
        movl    $1024, %ecx
        rep movsl
        popl    %edi
        movl    %edi, %cr3
        movl    FREE + 0x1000, %eax
        movl    %eax, 0x40201000
        movl    0x80201000, %eax
        addl    $0x1000, %edi
        cmpl    $0x3f0000, %edi
        jb      2b
        jmp     1b

/* Code that changes its next instruction, the one after it, and its own page, always. */
smc:    incl    1f + 1
1:      movl    $0, %eax
        incl    2f + 2
2:      addl    $0x12345678, %ebx
        movb    %al, 3f
        jmp     smc
3:      nop

/* New code without end: functions of three instructions, written and called. */
fill:   xorl    %ebx, %ebx
1:      movl    $FREE, %edi
2:      movb    $0xb8, (%edi)                   /* mov eax, imm; add ebx, eax; ret */
        movl    %ebx, 1(%edi)
        movl    $0x00c3c301, 5(%edi)
        call    *%edi
        incl    %ebx
        addl    $16, %edi
        cmpl    $LIMIT, %edi
        jb      2b
        jmp     1b

/* Shutdown; the machine resets and the loader starts this again. */
triple: lidt    nowhere
        int3

/* The timer as fast as it goes, both counters that make noise. */
pit:    call    open_pics
        movb    $0x34, %al
        outb    %al, $0x43
        movb    $2, %al                         /* mode 2 has no smaller count */
        outb    %al, $0x40
        xorl    %eax, %eax
        outb    %al, $0x40
        sti
1:      movb    $0x34, %al
        testl   $0xfff, %ecx
        loop    1b
        hlt
        jmp     1b

rtc:    call    open_pics
        movb    $0x0a, %al
        outb    %al, $0x70
        movb    $0x23, %al                      /* 8192 Hz */
        outb    %al, $0x71
        movb    $0x0b, %al
        outb    %al, $0x70
        movb    $0x72, %al                      /* periodic, alarm and update */
        outb    %al, $0x71
        sti
1:      hlt
        jmp     1b

uart:   movw    $0x3f8, %dx
1:      movb    $'x', %al
        movl    $100, %ecx
2:      outb    %al, %dx
        loop    2b
        inb     %dx, %al
        jmp     1b

/* Every port there is, in every width; not what resets or powers off. */
ports:  xorl    %edx, %edx
1:      incl    %edx
        movzwl  %dx, %edx
        inb     %dx, %al
        inw     %dx, %ax
        inl     %dx, %eax
        cmpl    $0x60, %edx
        je      1b
        cmpl    $0x64, %edx
        je      1b
        cmpl    $0x92, %edx
        je      1b
        cmpl    $0x500, %edx
        jb      2f
        cmpl    $0xd00, %edx
        jb      1b
2:      cmpl    $0xb000, %edx
        jae     1b
        movb    $0x5a, %al
        outb    %al, %dx
        jmp     1b

/* Where no device is, and where one is. */
mmio:   movl    $0xa0000, %esi
1:      movl    (%esi), %eax
        movl    %eax, (%esi)
        addl    $4, %esi
        cmpl    $0xc0000, %esi
        jb      1b
        movl    $0xd0000000, %esi
        movl    $0x10000, %ecx
2:      incl    (%esi)
        addl    $0x1004, %esi
        loop    2b
        jmp     mmio

halt:   hlt
        jmp     halt

/* Strings of 4 GiB, over RAM, devices and nothing. */
string: movl    $LIMIT, %edi
        movl    $-1, %ecx
        rep stosb
        movl    $FREE, %edi
        movl    $0xe0000000, %esi
        movl    $-1, %ecx
        rep lodsl
        jmp     string

/* A page fault whose handler mends nothing: it comes again at once, for ever. */
unmended:
        addl    $4, %esp
        iret
fault:  movl    $unmended, %eax
        movw    %ax, IDT + 14 * 8
        call    paging
1:      movl    $0, PT + 0x300 * 4
        invlpg  0x300000
        movl    0x300000, %eax
        jmp     1b

keys:   movb    $0xd2, %al
        outb    %al, $0x64
        movb    $0x1c, %al
        outb    %al, $0x60
        movb    $0xff, %al
        outb    %al, $0x60
        inb     $0x60, %al
        inb     $0x64, %al
        jmp     keys

/* Stores to the page tables that are in use, each followed by an access. */
stores: call    paging
1:      movl    $FREE, %esi
2:      movl    %esi, %eax
        shrl    $12, %eax
        movl    PT(,%eax,4), %ebx
        xorl    $0x1000, %ebx
        movl    %ebx, PT(,%eax,4)
        invlpg  (%esi)
        incl    (%esi)
        addl    $0x1000, %esi
        cmpl    $0x400000, %esi
        jb      2b
        jmp     1b

        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:   .word   23
        .long   gdt
idtr:   .word   0x7ff
        .long   IDT
nowhere: .word  0
        .long   0
        .ascii  "ABUSE!"
which:  .byte   0
        .byte   0
