/*
 * The ROM that starts a test guest on a machine without a boot loader: where a PC's BIOS would be, at
 * the top of 4 GiB and of the first MiB. The runner has made a disk: its first sector lists what is on it and
 * where in memory it belongs (program, real-mode part filled in as a boot loader would, initrd). The ROM reads
 * all of that, and does what "The Linux/x86 Boot Protocol" demands at the 32-bit entry: protected mode, flat
 * segments 10h and 18h, interrupts off, A20 on, ESI = boot_params. Two things of a BIOS's work matter to guests:
 * caching is on (CR0.CD and NW are set after a reset), and the PIIX4's power management ports, the timer among
 * them, are at 600h.
 *
 * First sector: boot_params' address, then for each piece its first sector, number of sectors, address; 0 sectors end
 * the list. Ref: ATA-3, "PIO data in commands".
 */
        .set    ROM_BYTES, 0x10000
        .set    TABLE, 0x600                    /* where the first sector goes */
        .set    PM_CONFIG, 0x80000b00           /* configuration space of device 1, function 3 */

        .code16
        .text
        .globl  _start
_start:
        .org    ROM_BYTES - 0x200
begin:
        cli
        xorw    %cx, %cx
        movw    %cx, %ss
        movw    $0x7000, %sp
        inb     $0x92, %al
        orb     $2, %al
        andb    $0xfe, %al                      /* bit 0 would reset the machine */
        outb    %al, $0x92
        movl    $0x601, %ebx                    /* PMBASE: I/O space at 600h */
        movb    $0x40, %al
        call    configure
        movl    $1, %ebx                        /* PMREGMISC: decode it */
        movb    $0x80, %al
        call    configure
        lgdtl   %cs:gdt_register
        movl    %cr0, %eax
        andl    $0x9fffffff, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $0x10, $0xffff0000 + flat

configure:                                      /* register AL of the power management function := EBX */
        movzbl  %al, %eax
        orl     $PM_CONFIG, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movl    %ebx, %eax
        movw    $0xcfc, %dx
        outl    %eax, %dx
        ret

        .code32
flat:
        movw    $0x18, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movl    $0x7000, %esp
        cld
        movw    $0x3f6, %dx                     /* no interrupts: drive 0 is polled */
        movb    $2, %al
        outb    %al, %dx
        xorl    %ebx, %ebx
        movl    $TABLE, %edi
        call    read_sector
        movl    $TABLE + 4, %esi
piece:  movl    (%esi), %ebx
        movl    4(%esi), %ebp
        movl    8(%esi), %edi
        addl    $12, %esi
        testl   %ebp, %ebp
        jz      loaded
1:      call    read_sector
        incl    %ebx
        decl    %ebp
        jnz     1b
        jmp     piece
loaded: movl    TABLE, %esi
        movl    $0x100000, %eax
        jmp     *%eax

/* Sector EBX to memory at EDI, which moves on. */
read_sector:
        movw    $0x1f2, %dx
        movb    $1, %al
        outb    %al, %dx
        movl    %ebx, %eax
        incw    %dx
        outb    %al, %dx
        shrl    $8, %eax
        incw    %dx
        outb    %al, %dx
        shrl    $8, %eax
        incw    %dx
        outb    %al, %dx
        movb    $0xe0, %al                      /* LBA, drive 0 */
        incw    %dx
        outb    %al, %dx
        incw    %dx
        movb    $0x20, %al                      /* READ SECTORS */
        outb    %al, %dx
1:      inb     %dx, %al
        andb    $0x88, %al                      /* BSY clear, DRQ set */
        cmpb    $8, %al
        jne     1b
        movl    $256, %ecx
        movw    $0x1f0, %dx
        rep insw
        ret

        .balign 8
gdt:            .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_register:   .word 31
                .long 0xffff0000 + gdt
        .org    ROM_BYTES - 0x10                /* the processor's first fetch */
        .code16
        jmp     begin
        .org    ROM_BYTES

        .section .note.GNU-stack, "", @progbits
