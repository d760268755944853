/*
 * The real-mode part of a test guest's bzImage: boot sector, setup header and just
 * enough code for a boot loader that runs it (QEMU's does) to reach the same place as
 * one that enters at the 32-bit entry: protected mode, flat segments 10h and 18h,
 * interrupts off, ESI = boot_params.
 *
 * Field by field the header is "The Linux/x86 Boot Protocol", version 2.12. mkbzimage.py
 * fills in the sizes.
 */
        .code16
        .text
        .globl _start
_start:
        .org    0x1f1
setup_sects:    .byte 1
root_flags:     .word 0
syssize:        .long 0
ram_size:       .word 0
vid_mode:       .word 0xffff
root_dev:       .word 0
boot_flag:      .word 0xaa55
        .byte   0xeb, begin - after_jump        /* offset 0x200: jmp begin */
after_jump:
        .ascii  "HdrS"
version:        .word 0x020c
realmode_swtch: .long 0
start_sys:      .word 0
kernel_version: .word 0
type_of_loader: .byte 0
loadflags:      .byte 1                         /* LOADED_HIGH */
setup_move:     .word 0
code32_start:   .long 0x100000
ramdisk_image:  .long 0
ramdisk_size:   .long 0
bootsect_kludge: .long 0
heap_end_ptr:   .word 0
ext_loader:     .word 0
cmd_line_ptr:   .long 0
initrd_max:     .long 0x37ffffff
alignment:      .long 0x100000
relocatable:    .byte 0
min_alignment:  .byte 20
xloadflags:     .word 0
cmdline_size:   .long 255
subarch:        .long 0
subarch_data:   .quad 0
payload_offset: .long 0
payload_length: .long 0
setup_data:     .quad 0
pref_address:   .quad 0x100000
init_size:      .long 0

begin:
        cli
        cld
        mov     %cs, %ax
        sub     $0x20, %ax                      /* entered at CS:0 with CS 20h past the sector */
        mov     %ax, %ds
        inb     $0x92, %al
        orb     $2, %al
        andb    $0xfe, %al
        outb    %al, $0x92
        xorl    %esi, %esi
        mov     %ds, %si
        shll    $4, %esi                        /* boot_params: the header is where it belongs */
        leal    gdt(%esi), %eax
        movl    %eax, gdt_register + 2
        leal    flat(%esi), %eax
        movl    %eax, far_target
        lgdtl   gdt_register
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   *far_target

        .code32
flat:
        movw    $0x18, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movl    $0x100000, %eax
        jmp     *%eax

        .balign 8
gdt:            .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_register:   .word 31
                .long 0
far_target:     .long 0
                .word 0x10
        .org    0x400

        .section .note.GNU-stack, "", @progbits
