/*
 * Architectural constants under the SDM's own names. Bit positions are from the
 * Intel SDM vol. 3A, chapters "System Architecture Overview", "Paging" and
 * "Interrupt and Exception Handling".
 */
#ifndef BASE_X86_H
#define BASE_X86_H

/* General registers, by encoding */
enum gpr_id { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };

/* Segment registers, by encoding */
enum seg_id { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/* EFLAGS */
#define EFL_CF   0x00000001u
#define EFL_ONE  0x00000002u /* always set */
#define EFL_PF   0x00000004u
#define EFL_AF   0x00000010u
#define EFL_ZF   0x00000040u
#define EFL_SF   0x00000080u
#define EFL_TF   0x00000100u
#define EFL_IF   0x00000200u
#define EFL_DF   0x00000400u
#define EFL_OF   0x00000800u
#define EFL_IOPL 0x00003000u
#define EFL_IOPL_SHIFT 12
#define EFL_NT   0x00004000u
#define EFL_RF   0x00010000u
#define EFL_VM   0x00020000u
#define EFL_AC   0x00040000u
#define EFL_VIF  0x00080000u
#define EFL_VIP  0x00100000u
#define EFL_ID   0x00200000u
#define EFL_ARITH (EFL_CF | EFL_PF | EFL_AF | EFL_ZF | EFL_SF | EFL_OF)

/* CR0, CR3, CR4 */
#define CR0_PE 0x00000001u
#define CR0_MP 0x00000002u
#define CR0_EM 0x00000004u
#define CR0_TS 0x00000008u
#define CR0_ET 0x00000010u
#define CR0_NE 0x00000020u
#define CR0_WP 0x00010000u
#define CR0_AM 0x00040000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME 0x00000001u
#define CR4_PVI 0x00000002u
#define CR4_TSD 0x00000004u
#define CR4_DE  0x00000008u
#define CR4_PSE 0x00000010u
#define CR4_PAE 0x00000020u
#define CR4_MCE 0x00000040u
#define CR4_PGE 0x00000080u
#define CR4_PCE 0x00000100u
#define CR4_OSFXSR     0x00000200u
#define CR4_OSXMMEXCPT 0x00000400u

#define EFER_NXE 0x00000800u

/* CPUID leaf 1 EDX; AMD repeats most of them in leaf 80000001 EDX */
#define CPUID_FPU   (1u << 0)
#define CPUID_VME   (1u << 1)
#define CPUID_DE    (1u << 2)
#define CPUID_PSE   (1u << 3)
#define CPUID_TSC   (1u << 4)
#define CPUID_MSR   (1u << 5)
#define CPUID_PAE   (1u << 6)
#define CPUID_MCE   (1u << 7)
#define CPUID_CX8   (1u << 8)
#define CPUID_SEP   (1u << 11)
#define CPUID_PGE   (1u << 13)
#define CPUID_CMOV  (1u << 15)
#define CPUID_PAT   (1u << 16)
#define CPUID_PSE36 (1u << 17)
#define CPUID_CLFSH (1u << 19)
#define CPUID_MMX   (1u << 23)
#define CPUID_FXSR  (1u << 24)
#define CPUID_SSE   (1u << 25)
#define CPUID_SSE2  (1u << 26)
/* Leaf 80000001 EDX alone */
#define CPUID_EXT_NX (1u << 20)

/*
 * Debug registers.
 *
 * DR6:  31      16 15 14 13 12 11   4 3      0      DR7:  31   16 15 14 13 12 11 10 9 8 7     0
 *      +----------+--+--+--+--+------+--------+          +-------+-----+--+-----+--+---+-------+
 *      |  ones    |BT|BS|BD| 0| ones | B3..B0 |          |LEN R/W|  0 0|GD| 0 0 | 1|GE | G,L   |
 *      +----------+--+--+--+--+------+--------+          |       |     |  |     |  |LE | 3..0  |
 *                                                        +-------+-----+--+-----+--+---+-------+
 */
#define DR6_B    0x0000000fu /* B0..B3: the condition of breakpoint n was met */
#define DR6_BD   0x00002000u /* a debug register was accessed under GD        */
#define DR6_BS   0x00004000u /* single step                                   */
#define DR6_BT   0x00008000u /* a switch to a task whose TSS has T set         */
#define DR6_WRITABLE (DR6_B | DR6_BD | DR6_BS | DR6_BT)
#define DR6_ONES 0xffff0ff0u
#define DR7_ENABLES 0x000000ffu
#define DR7_LOCAL   0x00000155u /* L0..L3 and LE */
#define DR7_ONES    0x00000400u
#define DR7_GD      0x00002000u
#define DR7_WRITABLE 0xffff23ffu

/* Page-table entries */
#define PTE_P  0x001u
#define PTE_W  0x002u
#define PTE_US 0x004u
#define PTE_PWT 0x008u
#define PTE_PCD 0x010u
#define PTE_A  0x020u
#define PTE_D  0x040u
#define PTE_PS 0x080u
#define PTE_G  0x100u
#define PTE_NX 0x8000000000000000ull

/* Page-fault error code */
#define PF_P    0x01u
#define PF_WR   0x02u
#define PF_US   0x04u
#define PF_RSVD 0x08u
#define PF_ID   0x10u

/* Exception vectors */
enum exc_vector {
    EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6,
    EXC_NM = 7, EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14,
    EXC_MF = 16, EXC_AC = 17, EXC_MC = 18, EXC_XM = 19,
};

/*
 * Access rights as the second doubleword of a descriptor holds them, shifted
 * right by 8 (the form LAR gives, before masking):
 *
 *   15 14 13 12 11    8 7  6  5 4  3      0
 *  +--+--+--+--+-------+-+----+-+---------+
 *  |G |DB|L |AV| lim hi|P|DPL |S|  type   |
 *  +--+--+--+--+-------+-+----+-+---------+
 */
#define DESC_TYPE  0x000fu
#define DESC_S     0x0010u /* 1: code or data, 0: system */
#define DESC_DPL   0x0060u
#define DESC_DPL_SHIFT 5
#define DESC_P     0x0080u
#define DESC_AVL   0x1000u
#define DESC_L     0x2000u
#define DESC_DB    0x4000u
#define DESC_G     0x8000u
/* type bits of code and data descriptors */
#define DESC_ACCESSED 0x1u
#define DESC_WRITE    0x2u /* data: writable */
#define DESC_READ     0x2u /* code: readable */
#define DESC_DOWN     0x4u /* data: expand-down */
#define DESC_CONFORM  0x4u /* code: conforming */
#define DESC_CODE     0x8u
/* system descriptor types */
enum sys_desc_type {
    SYS_TSS16_AVAIL = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK_GATE = 5,
    SYS_INT16 = 6, SYS_TRAP16 = 7, SYS_TSS32_AVAIL = 9, SYS_TSS32_BUSY = 11, SYS_CALL32 = 12,
    SYS_INT32 = 14, SYS_TRAP32 = 15,
};

#define SEL_RPL   0x0003u
#define SEL_TI    0x0004u
#define SEL_INDEX 0xfff8u

#endif
