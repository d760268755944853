/*
 * The ways into and out of translated code.
 *
 *   world_enter(cpu, code)    C calls; comes back with an enum exit_reason
 *   world_exit                jumped to, R9D = reason
 *   world_chain               jumped to, R9D = link; eip is set
 *   world_jt_miss             jumped or called to, R8D = target EIP
 *   world_jt_probe            the same through the jump table
 *   world_ret_underflow       lies above the shadow return stack: the first return
 *                             past its top comes here, R8D = target EIP
 *   world_callout             called, R8D = EA, R9 = operands, R10D = callout_id
 *   world_mem_slow            called, R8D = address, R9D = descriptor; gives RCX
 *   world_mem_done            called, completes a bounced access
 *   world_go_on               a callout goes back to it: on at vcpu->eip, through the jump table
 *   world_host_signal         a signal handler points RIP here
 *
 * In translated code: RAX RDX RBX RBP RSI RDI guest registers, R12 guest ESP, R13 guest
 * ECX, R15 the vCPU, R14 the view's tables, R11 the constant 12, RSP the shadow return
 * stack, RCX R8 R9 R10 scratch; arithmetic flags in RFLAGS, DF as the guest has it.
 *
 * Flags are saved by LAHF and SETO (7 clocks less than PUSHFQ, and all that C needs); a
 * host without LAHF in 64-bit mode uses the second set of entry points, made by the same
 * macros with PUSHFQ.
 *
 * C stack while in the TC (host_rsp points at it; 16-byte aligned before a call):
 *
 *     +56  return address of world_enter
 *     +48  rbx  +40 rbp  +32 r12  +24 r13  +16 r14  +8 r15
 *      +0  alignment
 */
#define VCPU_OFFSET(field, value) .set VCPU_##field, value ;
#include "base/vcpu_layout.h"

        .set EXIT_FAULT, 2
        .set EXIT_CHAIN, 3
        .set EXIT_LOOKUP, 4
        .set EXIT_HOST, 8

        .text

/* Guest general registers to the vCPU; RAX first, so that the flags can go through it. */
.macro SAVE_GPRS
        mov     %eax, VCPU_gpr+0(%r15)
        mov     %r13d, VCPU_gpr+4(%r15)
        mov     %edx, VCPU_gpr+8(%r15)
        mov     %ebx, VCPU_gpr+12(%r15)
        mov     %r12d, VCPU_gpr+16(%r15)
        mov     %ebp, VCPU_gpr+20(%r15)
        mov     %esi, VCPU_gpr+24(%r15)
        mov     %edi, VCPU_gpr+28(%r15)
.endm

.macro LOAD_GPRS
        mov     VCPU_gpr+0(%r15), %eax
        mov     VCPU_gpr+4(%r15), %r13d
        mov     VCPU_gpr+8(%r15), %edx
        mov     VCPU_gpr+12(%r15), %ebx
        mov     VCPU_gpr+16(%r15), %r12d
        mov     VCPU_gpr+20(%r15), %ebp
        mov     VCPU_gpr+24(%r15), %esi
        mov     VCPU_gpr+28(%r15), %edi
.endm

/* Registers, flags and shadow stack away; C stack and C's flags in. Keeps R8, R9, R10. */
.macro LEAVE_TC lahf
        SAVE_GPRS
        mov     %rsp, VCPU_shadow_rsp(%r15)
        mov     VCPU_host_rsp(%r15), %rsp
.if \lahf
        lahf
        seto    %al
.else
        pushfq
        pop     %rcx
        mov     %cl, %ah                /* SF ZF AF PF CF as LAHF gives them */
        shr     $11, %ecx
        and     $1, %ecx
        mov     %cl, %al                /* OF */
.endif
        mov     %ax, VCPU_flags_ax(%r15)
        cld
.endm

/* The reverse. The guest's FPU state is loaded if C has parked it. Uses RAX and RCX before
 * the general registers are loaded. */
.macro ENTER_TC lahf
        cmpl    $0, VCPU_fpu_live(%r15)
        jne     1f
        fxrstor64 VCPU_fpu(%r15)
        movl    $1, VCPU_fpu_live(%r15)
1:      movzbl  VCPU_eflags_df(%r15), %eax
        neg     %eax
        or      $1, %eax
        mov     %eax, VCPU_df_step(%r15)
        movzwl  VCPU_flags_ax(%r15), %eax
.if \lahf
        mov     VCPU_shadow_rsp(%r15), %rsp
        cmpb    $0, VCPU_eflags_df(%r15)
        je      2f
        std
2:      add     $0x7f, %al              /* OF from bit 0 */
        sahf
.else
        movzbl  %ah, %ecx
        and     $1, %eax
        shl     $11, %eax
        or      %eax, %ecx
        movzbl  VCPU_eflags_df(%r15), %eax
        shl     $10, %eax
        or      %eax, %ecx
        or      $0x202, %ecx
        push    %rcx                    /* on the C stack, then the shadow stack comes in */
        popfq
        mov     VCPU_shadow_rsp(%r15), %rsp
.endif
        mov     VCPU_view_base(%r15), %r14
        mov     $12, %r11d
        LOAD_GPRS
.endm

/* Back to the caller of world_enter with EAX. */
.macro RETURN_TO_C
        add     $8, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
.endm

.macro WORLD suffix lahf
        .globl  world_enter_\suffix
        .type   world_enter_\suffix, @function
world_enter_\suffix:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        sub     $8, %rsp
        mov     %rdi, %r15
        mov     %rsi, %r10
        mov     %rsp, VCPU_host_rsp(%r15)
        ENTER_TC \lahf
        jmp     *%r10

        .globl  world_host_signal_\suffix
world_host_signal_\suffix:
        mov     $EXIT_HOST, %r9d
        .globl  world_exit_\suffix
world_exit_\suffix:
        LEAVE_TC \lahf
        mov     %r9d, %eax
        RETURN_TO_C

        .globl  world_chain_\suffix
world_chain_\suffix:
        mov     %r9d, VCPU_exit_arg(%r15)
        mov     $EXIT_CHAIN, %r9d
        jmp     world_exit_\suffix

        .globl  world_jt_miss_\suffix
world_jt_miss_\suffix:
        mov     %r8d, VCPU_eip(%r15)
        mov     $EXIT_LOOKUP, %r9d
        jmp     world_exit_\suffix

        .globl  world_callout_\suffix
world_callout_\suffix:
        pop     VCPU_resume_rip(%r15)
        LEAVE_TC \lahf
        mov     %r15, %rdi
        mov     %r9, %rsi
        mov     %r8d, %edx
        mov     %r10d, %ecx
        call    bt_callout
        test    %eax, %eax
        jz      3f
        RETURN_TO_C
3:      ENTER_TC \lahf
        jmp     *VCPU_resume_rip(%r15)

        .globl  world_mem_slow_\suffix
world_mem_slow_\suffix:
        pop     VCPU_resume_rip(%r15)
        LEAVE_TC \lahf
        push    %r8
        push    %r10
        mov     %r15, %rdi
        mov     %r8d, %esi
        mov     %r9d, %edx
        call    bt_mem_slow             /* RAX: addend, or 0 with exit_arg = reason */
        pop     %r10
        pop     %r8
        test    %rax, %rax
        jz      4f
        mov     %rax, %r9
        ENTER_TC \lahf
        mov     %r9, %rcx
        jmp     *VCPU_resume_rip(%r15)
4:      mov     VCPU_exit_arg(%r15), %eax
        RETURN_TO_C

        .globl  world_mem_done_\suffix
world_mem_done_\suffix:
        pop     VCPU_resume_rip(%r15)
        LEAVE_TC \lahf
        push    %r8                     /* an indirect transfer keeps its target there */
        push    %r10
        mov     %r15, %rdi
        call    bt_mem_done
        pop     %r10
        pop     %r8
        test    %eax, %eax
        jz      5f
        RETURN_TO_C
5:      ENTER_TC \lahf
        jmp     *VCPU_resume_rip(%r15)
.endm

        WORLD lahf 1
        WORLD pushf 0

        .globl  world_ret_underflow
world_ret_underflow:
        mov     VCPU_shadow_top(%r15), %rsp
        jmp     world_jt_probe
        .globl  world_go_on
world_go_on:
        mov     VCPU_eip(%r15), %r8d
        .globl  world_jt_probe
world_jt_probe:
        movzwl  %r8w, %r9d
        jmp     *BT_JT_OFS(%r14,%r9,8)

        .set    BT_JT_OFS, 0x2000000    /* VIEW_JT_OFS, checked in bt/run.c */

        .section .note.GNU-stack, "", @progbits
