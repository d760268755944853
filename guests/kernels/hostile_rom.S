/*
 * A firmware ROM that runs rubbish: from the reset vector it copies itself to low memory, points every
 * interrupt at the copy, gives random values to the chipset's registers that move memory, and jumps into
 * the random bytes that fill the rest of the ROM, and C0000..FFFFF. Any exception brings it back, and so
 * does the timer. See tests/fuzz/hostile.
 */
        .set    STATE, 0x500                    /* of the random numbers */
        .set    COPY, 0x800
        .set    STACK, 0x7000

        .code16
        .text
        .globl  _start
_start: cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ss
        movw    %ax, %ds
        movw    %ax, %es
        movw    $STACK, %sp
.macro out32 port, value
        movl    $\value, %eax
        movw    $\port, %dx
        outl    %eax, %dx
.endm
.macro out8 port, value
        movb    $\value, %al
        outb    %al, $\port
.endm
        out32   0xcf8, 0x80000058               /* RAM for writing everywhere, with the ROM's bytes in it */
        out32   0xcfc, 0x22222000
        out32   0xcf8, 0x8000005c
        out32   0xcfc, 0x22222222
        movw    $0xc000, %bx
1:      movw    %bx, %es
        xorw    %si, %si
        xorw    %di, %di
        movw    $0x4000, %cx
        rep movsl %cs:(%si), %es:(%di)
        addw    $0x1000, %bx
        jnc     1b
        out8    0x20, 0x11                      /* the timer's interrupt, vector 8, a thousand times a second */
        out8    0x21, 8
        out8    0x21, 4
        out8    0x21, 1
        out8    0x21, 0xfe
        out8    0x43, 0x34
        out8    0x40, 0xa9
        out8    0x40, 0x04
        xorw    %ax, %ax
        movw    %ax, %es
        movl    %cs:seed, %eax
        movl    %eax, STATE
        movw    $again, %si
        movw    $COPY, %di
        movw    $end - again, %cx
        rep movsb %cs:(%si), %es:(%di)
        ljmp    $0, $COPY
        .ascii  "HOSTILE!"
seed:   .long   0

again:  cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ss
        movw    %ax, %ds
        movw    %ax, %es
        movw    $STACK, %sp
        out8    0x20, 0x20                      /* end of interrupt */
        xorw    %di, %di
        movw    $256, %cx
        movl    $COPY, %eax                     /* 0000:COPY */
        rep stosl
        movw    $3, %cx
1:      call    random           /* three writes to 58h..77h of the host bridge */
        movl    %eax, %ebx
        andl    $0x1c, %eax
        orl     $0x80000058, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        call    random
        movw    $0xcfc, %dx
        outl    %eax, %dx
        loop    1b
        call    random           /* somewhere in C0000..FFFFF */
        movw    %ax, %bx
        shrl    $16, %eax
        andw    $0x3ff0, %ax
        orw     $0xc000, %ax
        movw    %ax, %ds
        pushw   %ax
        pushw   %bx
        call    random
        movw    %ax, %es
        movl    %eax, %ecx
        movl    %eax, %esi
        andb    $7, %ch
        testb   $3, %al
        jz      2f
        sti
2:      lret

random: movl    %ss:STATE, %eax
        imull   $1664525, %eax, %eax
        addl    $1013904223, %eax
        movl    %eax, %ss:STATE
        roll    $16, %eax
        ret
end:
