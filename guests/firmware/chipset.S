/*
 * A firmware ROM that checks, from the reset vector on, what a chipset does for firmware: the state after
 * a reset, PCI configuration, shadow RAM under each setting of the PAM registers (data, code, and the
 * range under one's own feet), SMRAM, the power management ports, and the reset control register.
 *
 * It stays in real mode. At first CS has the base that reset gave it, FFFF0000, so that the code runs from
 * the top of 4 GiB whatever becomes of the ROM's copy below 1 MiB; later the whole ROM, copied to COPY.
 *
 * Ref: Intel 82441FX data sheet (PAM, SMRAM), 82371SB (RC), 82371AB (PMBASE); SDM vol. 3A, "Processor
 * State After Reset", "First Instruction Executed".
 */
        .set    ROM_BYTES, 0x10000
        .set    COM1, 0x3f8
        .set    STACK, 0x7000
        .set    MAGIC_AT, 0x600                 /* survives a reset */
        .set    MAGIC, 0x600df00d
        .set    FAILURES, 0x604
        .set    SCRATCH, 0x608
        .set    COPY, 0x1000                    /* segment */
        .set    HOST, 0x80000000                /* configuration addresses */
        .set    ISA, 0x80000800
        .set    PM, 0x80000b00

        .code16
        .text
        .globl  _start

/* EAX is to be EBX. */
.macro check name
        call    report
        .asciz  "\name"
.endm
.macro is want, name
        movl    $\want, %ebx
        check   \name
.endm
.macro config_read address, port=0xcfc
        movl    $\address, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $\port, %dx
        xorl    %eax, %eax
.endm
/* A byte of the host bridge's registers. */
.macro host_write reg, value
        movl    $(HOST | (\reg & 0xfc)), %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $(0xcfc + (\reg & 3)), %dx
        movb    $\value, %al
        outb    %al, %dx
.endm

_start:
begin:
        cli
        cld
        movl    %edx, %ebp                      /* the processor's signature */
        movw    %ss, %di
        movw    $0, %ax                         /* flags stay until they are seen */
        movw    %ax, %ss
        movw    $STACK, %sp
        pushfl
        movw    %di, %cx
        movw    %ds, %di
        movw    %es, %si
        orw     %si, %di
        orw     %cx, %di
        popl    %esi
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    $COM1 + 3, %dx
        movb    $3, %al                         /* 8 bits, no parity */
        outb    %al, %dx
        cmpl    $MAGIC, MAGIC_AT
        je      after_reset
        movl    $0, FAILURES

        movl    %esi, %eax
        is      2, "reset_eflags"
        movzwl  %di, %eax
        is      0, "reset_data_segments"
        xorl    %eax, %eax
        movw    %cs, %ax
        is      0xf000, "reset_cs"
        movl    %cr0, %eax
        is      0x60000010, "reset_cr0"
        movl    %ebp, %eax
        shrl    $8, %eax
        andl    $0xf, %eax
        cmpl    $4, %eax
        setae   %al
        movzbl  %al, %eax
        is      1, "reset_edx_has_a_family"
        sidt    SCRATCH
        movzwl  SCRATCH, %eax
        is      0xffff, "reset_idt_limit"
        movl    SCRATCH + 2, %eax
        andl    $0xffffff, %eax                 /* all that a 16-bit SIDT is sure to store */
        is      0, "reset_idt_base"

/* ---- PCI configuration ------------------------------------------------------------------------- */
        config_read HOST + 0x50, 0xcf8
        inl     %dx, %eax
        is      HOST + 0x50, "address_reads_back"
        config_read HOST
        inl     %dx, %eax
        is      0x12378086, "host_bridge"
        config_read HOST, 0xcfe
        inw     %dx, %ax
        is      0x1237, "word_of_a_register"
        config_read HOST, 0xcff
        inb     %dx, %al
        is      0x12, "byte_of_a_register"
        config_read HOST + 8
        inl     %dx, %eax
        shrl    $16, %eax
        is      0x0600, "host_bridge_class"
        config_read ISA
        inl     %dx, %eax
        is      0x70008086, "isa_bridge"
        config_read 0x8000f000
        inl     %dx, %eax
        is      0xffffffff, "no_such_device"
        host_write 0, 0x55
        config_read HOST
        inl     %dx, %eax
        is      0x12378086, "identity_is_read_only"

/* ---- shadow RAM, seen from the top of 4 GiB ------------------------------------------------------ */
        call    read_pam
        is      0, "pam_is_0_after_reset"
        movw    $0xf000, %ax
        movw    %ax, %es
        movl    %es:marker, %eax
        is      0x11223344, "rom_below_1_mib"
        movl    %cs:marker, %eax
        is      0x11223344, "rom_at_the_top"
        movl    $0, %es:marker
        movl    %es:marker, %eax
        is      0x11223344, "rom_is_read_only"

        host_write 0x59, 0x20                   /* writes to RAM, reads from ROM */
        movl    $0xcafe0001, %es:marker
        movl    %es:marker, %eax
        is      0x11223344, "write_enable_alone_reads_rom"
        host_write 0x59, 0x10                   /* reads from RAM, writes nowhere */
        movl    %es:marker, %eax
        is      0xcafe0001, "read_enable_reads_what_was_written"
        movl    $0xcafe0002, %es:marker
        movl    %es:marker, %eax
        is      0xcafe0001, "read_enable_alone_drops_writes"
        host_write 0x59, 0x30
        movl    $0xcafe0003, %es:marker
        movl    %es:marker, %eax
        is      0xcafe0003, "both_enables_are_ram"
        movl    %cs:marker, %eax
        is      0x11223344, "the_top_stays_rom"
        host_write 0x59, 0
        movl    %es:marker, %eax
        is      0x11223344, "no_enable_is_rom_again"

/* Copied onto itself: the usual way to shadow a ROM. */
        host_write 0x59, 0x20
        xorw    %si, %si
        xorw    %di, %di
        movw    $ROM_BYTES / 4, %cx
        rep movsl %es:(%si), %es:(%di)
        host_write 0x59, 0x10
        xorw    %si, %si
        xorw    %di, %di
        movw    $ROM_BYTES / 4, %cx
        repe cmpsl %es:(%di), %cs:(%si)
        movzwl  %cx, %eax
        sete    %ah
        is      0x100, "shadowed_onto_itself"
        host_write 0x59, 0

/* ---- code ------------------------------------------------------------------------------------- */
        movw    $COPY, %ax
        movw    %ax, %es
        xorw    %si, %si
        xorw    %di, %di
        movw    $ROM_BYTES / 4, %cx
        rep movsl %cs:(%si), %es:(%di)
        ljmp    $COPY, $in_copy
in_copy:
        movw    $0xf000, %ax
        movw    %ax, %es
        call    probe
        is      0x11, "code_in_rom"
        host_write 0x59, 0x30
        movl    $0x00cb22b0, %es:probe_code     /* movb $0x22, %al; lret */
        call    probe
        is      0x22, "code_in_ram"
        movb    $0x33, %es:probe_code + 1
        call    probe
        is      0x33, "code_in_ram_modified"
        host_write 0x59, 0
        call    probe
        is      0x11, "code_in_rom_again"
        host_write 0x59, 0x20
        movb    $0x44, %es:probe_code + 1
        call    probe
        is      0x11, "code_in_rom_while_ram_is_written"
        host_write 0x59, 0x10
        call    probe
        is      0x44, "code_in_read_only_ram"
        movb    $0x55, %es:probe_code + 1
        call    probe
        is      0x44, "code_in_read_only_ram_stays"
        host_write 0x59, 0x30
        movw    $probe_switch, %di              /* the code that moves memory, where memory moves */
        movw    $probe_switch, %si
        movw    $probe_switch_end - probe_switch, %cx
        rep movsb %cs:(%si), %es:(%di)
        movb    $0x66, %es:switch_value - 1
        lcall   $0xf000, $probe_switch
        movzbl  %bl, %eax
        is      0x77, "code_that_moves_itself_goes_on_in_rom"
        host_write 0x59, 0

/* ---- other ranges --------------------------------------------------------------------------- */
.macro range segment, reg, shift, name
        movw    $\segment, %ax
        movw    %ax, %es
        host_write \reg, 3 << \shift
        movl    $0xbeef0001, %es:0x10
        movl    %es:0x10, %eax
        is      0xbeef0001, "\name\()_ram"
        movw    $\segment + 0x400, %ax          /* the next 16 KiB are another range */
        movw    %ax, %fs
        movl    $0xbeef0002, %fs:0x10
        cmpl    $0xbeef0002, %fs:0x10
        setne   %al
        movzbl  %al, %eax
        is      1, "\name\()_ends"
        host_write \reg, 1 << \shift
        movl    $0xbeef0003, %es:0x10
        movl    %es:0x10, %eax
        is      0xbeef0001, "\name\()_read_only"
        host_write \reg, 2 << \shift
        movl    $0xbeef0004, %es:0x10
        cmpl    $0xbeef0004, %es:0x10
        setne   %al
        movzbl  %al, %eax
        is      1, "\name\()_write_only"
        host_write \reg, 1 << \shift
        movl    %es:0x10, %eax
        is      0xbeef0004, "\name\()_written"
        host_write \reg, 0
        cmpl    $0xbeef0004, %es:0x10
        setne   %al
        movzbl  %al, %eax
        is      1, "\name\()_closed"
.endm
        range   0xc000, 0x5a, 0, c0000
        range   0xcc00, 0x5b, 4, cc000
        range   0xdc00, 0x5d, 4, dc000
        range   0xe400, 0x5e, 4, e4000
        range   0xe800, 0x5f, 0, e8000

/* ---- the RAM behind the VGA window ---------------------------------------------------------- */
        movw    $0xa000, %ax
        movw    %ax, %es
        host_write 0x72, 0x4a
        movl    $0xfeed0001, %es:0x20
        movl    %es:0x20, %eax
        is      0xfeed0001, "smram_open"
        host_write 0x72, 0x0a
        cmpl    $0xfeed0001, %es:0x20
        setne   %al
        movzbl  %al, %eax
        is      1, "smram_closed"
        host_write 0x72, 0x4a
        movl    %es:0x20, %eax
        is      0xfeed0001, "smram_keeps"
        host_write 0x72, 0x02

/* ---- power management ----------------------------------------------------------------------- */
.macro pm_base base
        config_read PM + 0x40
        movl    $\base + 1, %eax
        outl    %eax, %dx
.endm
        config_read PM
        inl     %dx, %eax
        is      0x71138086, "power_management"
        pm_base 0x4000
        config_read PM + 0x80
        movb    $1, %al
        outb    %al, %dx
        movw    $0x4008, %dx
        call    timer_runs
        is      1, "timer_runs"
        pm_base 0xb000
        movw    $0xb008, %dx
        call    timer_runs
        is      1, "timer_moved"
        movw    $0x4008, %dx
        call    timer_runs
        is      0, "timer_left"

/* ---- reset ---------------------------------------------------------------------------------- */
        movw    $0xf000, %ax
        movw    %ax, %es
        host_write 0x59, 0x30
        movl    $0, %es:marker
        host_write 0x5a, 0x33
        movl    $MAGIC, MAGIC_AT
        movw    $0xcf9, %dx
        movb    $0x02, %al
        outb    %al, %dx
        movb    $0x06, %al
        outb    %al, %dx
        movl    $10000000, %ecx
1:      decl    %ecx
        jnz     1b
        xorl    %eax, %eax
        is      1, "reset_control_resets"
        jmp     finish

after_reset:
        movl    $1, %eax
        is      1, "reset_control_resets"
        call    read_pam
        is      0, "reset_clears_pam"
        movw    $0xf000, %ax
        movw    %ax, %es
        movl    %es:marker, %eax
        is      0x11223344, "reset_shows_rom"
        config_read PM + 0x40
        inl     %dx, %eax
        is      1, "reset_clears_pmbase"
        movl    $0, MAGIC_AT
finish:
        movw    $words_done, %si
        call    print
        movl    FAILURES, %eax
        call    print_hex
        movw    $words_failures, %si
        call    print
        movw    $COM1 + 5, %dx
1:      inb     %dx, %al                        /* all of it has to be out */
        testb   $0x40, %al
        jz      1b
        cmpl    $0, FAILURES                    /* GUEST_PASS, GUEST_FAIL: see guest.h */
        setne   %al
        movzbl  %al, %eax
        addl    $0x10, %eax
        outl    %eax, $0xf4
        movw    $words_shutdown, %si            /* Bochs */
        movw    $0x8900, %dx
1:      movb    %cs:(%si), %al
        incw    %si
        outb    %al, %dx
        testb   %al, %al
        jnz     1b
2:      hlt
        jmp     2b

/* ---- helpers ---------------------------------------------------------------------------------- */
/* -> EAX: what the seven PAM registers hold, ORed. */
read_pam:
        config_read HOST + 0x58
        inl     %dx, %eax
        shrl    $8, %eax
        movl    %eax, %ebx
        config_read HOST + 0x5c
        inl     %dx, %eax
        orl     %ebx, %eax
        ret

/* -> EAX: AL of the routine in the ROM's segment. */
probe:
        xorl    %eax, %eax
        lcall   $0xf000, $probe_code
        ret

/* -> EAX: 1 when the timer at port DX answers and goes on, three ticks a microsecond. */
timer_runs:
        inl     %dx, %eax
        movl    %eax, %ebx
        movl    $20000, %ecx
1:      inl     %dx, %eax
        cmpl    %eax, %ebx
        jne     2f
        loopl   1b
        xorl    %eax, %eax
        ret
2:      movl    $1, %eax
        ret

/* The name follows the call. */
report:
        popw    %si
        movl    %eax, %ecx
        cmpl    %eax, %ebx
        pushw   %si
        movw    $words_ok, %si
        je      1f
        incl    FAILURES
        movw    $words_fail, %si
1:      call    print
        popw    %si
        call    print
        cmpl    %ecx, %ebx
        je      2f
        pushw   %si
        movw    $words_got, %si
        call    print
        movl    %ecx, %eax
        call    print_hex
        movw    $words_expected, %si
        call    print
        movl    %ebx, %eax
        call    print_hex
        popw    %si
2:      movb    $'\n', %al
        call    put
        jmp     *%si                            /* behind the name */

/* The text at CS:SI; -> SI behind it. */
print:
        movb    %cs:(%si), %al
        incw    %si
        testb   %al, %al
        jz      1f
        call    put
        jmp     print
1:      ret

print_hex:
        pushw   %cx
        movw    $8, %cx
1:      roll    $4, %eax
        pushl   %eax
        andb    $15, %al
        cmpb    $10, %al
        jb      2f
        addb    $'a' - '0' - 10, %al
2:      addb    $'0', %al
        call    put
        popl    %eax
        loop    1b
        popw    %cx
        ret

put:
        pushw   %dx
        pushw   %ax
        movw    $COM1 + 5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        popw    %ax
        movw    $COM1, %dx
        outb    %al, %dx
        popw    %dx
        ret

words_ok:       .asciz  "ok "
words_fail:     .asciz  "FAIL "
words_got:      .asciz  ": "
words_expected: .asciz  ", expected "
words_done:     .asciz  "done "
words_failures: .asciz  " failures\n"
words_shutdown: .asciz  "Shutdown"

        .org    0x8000
probe_code:
        movb    $0x11, %al
        lretw
        .org    0x8100
marker: .long   0x11223344

/* PAM0 := 0 in the range that PAM0 governs: the next instruction comes from ROM. */
        .org    0x8200
probe_switch:
        movl    $(HOST | 0x58), %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $0xcfd, %dx
        xorb    %al, %al
        outb    %al, %dx
        movb    $0x77, %bl
switch_value:
        lretw
probe_switch_end:

        .org    ROM_BYTES - 16
        jmp     begin                           /* near: CS keeps its base */
        .org    ROM_BYTES
