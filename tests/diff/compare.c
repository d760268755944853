/*
 * The comparer: what the host did against what the translator did, less what the
 * manual leaves undefined. Left out are the selectors of the x87's pointers in registers
 * (the host's frame has 64-bit addresses there; images in memory are compared), RF (a fault's saved
 * image has it set), the I bit of page-fault codes (the host has NX on), flags that the
 * generator found undefined at the place where the case ended, and what
 * struct freedom lists about instructions that fault.
 *
 * Ref: Intel SDM vol. 1, app. A "EFLAGS Cross-Reference"; vol. 1, ch. 8 "x87 FPU
 * Instruction and Operand (Data) Pointers".
 */
#include <Zydis/Zydis.h>
#include <capstone/capstone.h>
#include <stdio.h>
#include <string.h>

#include "tests/diff/case.h"
#include "tests/support/vm_fixture.h"

#define FLAGS_COMPARED (EFL_ARITH | EFL_TF | EFL_IF | EFL_DF | EFL_IOPL | EFL_NT | EFL_VM | EFL_AC | EFL_ID)

static const char *const gpr_names[8] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };
static const char *const seg_names[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs" };
static const char *const page_names[CASE_PAGES] = { "code", "code", "data", "data", "rodata", "stack" };

struct report {
    unsigned count;
    bool print;
};

static void differ(struct report *rep, const char *what, uint64_t want, uint64_t got)
{
    rep->count++;
    if (rep->print)
        printf("    %-12s host 0x%llx, translated 0x%llx\n", what, (unsigned long long)want,
               (unsigned long long)got);
}

static uint32_t undefined_at(const struct diff_case *c, uint32_t eip)
{
    uint32_t all = 0;

    if (eip - c->code_va > c->code_len)
        return EFL_ARITH; /* it ran into data, where nobody follows the flags */
    for (unsigned i = 0; i <= c->ninsns; i++) {
        if (c->code_va + c->insns[i].ofs == eip)
            return c->insns[i].undef;
        all |= c->insns[i].undef;
    }
    return all;
}

static uint8_t byte_at(const struct diff_result *r, uint32_t va)
{
    for (int p = 0; p < CASE_PAGES; p++)
        if (va - case_page_va[p] < CASE_PAGE)
            return r->mem[p][va - case_page_va[p]];
    return 0xf4;
}

static bool is_prefix(uint8_t b)
{
    return b == 0x66 || b == 0x67 || (b & 0xe7) == 0x26 || (b & 0xfe) == 0x64 || (b & 0xfe) == 0xf2 ||
           b == 0xf0;
}

/* The first two opcode bytes; code may have run into data or been rewritten, so look at memory. */
static void opcode_at(const struct diff_result *r, uint32_t va, uint8_t op[2])
{
    for (unsigned i = 0; i < 15 && is_prefix(byte_at(r, va)); i++)
        va++;
    op[0] = byte_at(r, va);
    op[1] = byte_at(r, va + 1);
}

/*
 * Where the manual leaves a processor free when an instruction faults, and hosts differ from us.
 *
 * - any_fault, bounds: SDM vol. 3A, "Priority Among Simultaneous Exceptions and Interrupts": faults on
 * executing one instruction are one class, and within a class the order is the implementation's.
 * - any_address: vol. 3A, "Interrupt 14": CR2 is the address that faulted. Of an operand of many fields it
 * may be that of any, in the order in which the processor goes through them.
 * - registers: vol. 3A, "Exception Classifications", the note on POPAD.
 * - stack: vol. 3B, "Fault Handling Effects on the Stack": PUSHA and CALL may have changed memory below the
 * stack pointer.
 * - operand: the same for stores of many fields; vol. 3A, "Program or Task Restart", promises no more than
 * that the instruction can be run again.
 * - x87_top: vol. 3A, "Effect of MMX, x87 FPU, FXSAVE, and FXRSTOR Instructions on the x87 FPU Tag Word":
 * each MMX instruction clears TOP and the tags. It does not say whether one that faults has: hosts do with
 * stores.
 */
struct freedom {
    bool any_fault;   /* which of its accesses faults first                      */
    bool any_address; /* where in a long operand CR2 points                      */
    bool registers;   /* POPA: all but ESP may be loaded                         */
    bool x87_top;     /* MMX stores: whether TOP and tags are those of MMX yet   */
    bool bounds;      /* BOUND: the lower bound decides before the upper is read */
    uint32_t va, len; /* stack below ESP (PUSHA, ENTER, far CALL), operand (FSTP, FBSTP, FNSAVE):
                       * may have been written in part                           */
};

/* What follows was measured on Intel's processors. Another maker's host may go through the fields of an
 * operand or a frame, or through the checks of an SSE operand, in another order. */
static void free_on_other_hosts(struct freedom *f, const uint8_t op[2])
{
    if (op[0] >= 0xd8 && op[0] <= 0xdf)
        f->any_address = true;
    if (op[0] == 0xca || op[0] == 0xcb || op[0] == 0xcf)
        f->any_fault = f->any_address = true;
    if (op[0] == 0x0f) /* a misaligned operand outside SS */
        f->any_fault = true;
}

/* Linear address of the memory operand of the instruction that faulted, by the state it left: only for
 * instructions that change no register when they fault. false: none, or the bytes were rewritten. */
static bool memory_operand(const struct diff_result *r, uint32_t *va, uint32_t *len)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    ZydisRegisterContext regs = { 0 };
    uint8_t bytes[15];

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = byte_at(r, r->state.eip + i);
    for (unsigned i = 0; i < 8; i++)
        regs.values[ZYDIS_REGISTER_EAX + i] = r->state.gpr[i];
    for (unsigned i = 0; i < 8; i++)
        regs.values[ZYDIS_REGISTER_AX + i] = r->state.gpr[i] & 0xffff;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, sizeof bytes, &insn, ops)))
        return false;
    for (unsigned i = 0; i < insn.operand_count_visible; i++) {
        ZyanU64 address;

        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY ||
            !ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&insn, &ops[i], r->state.eip, &regs, &address)))
            continue;
        *va = (uint32_t)address;
        *va += case_segment_base(r->state.sel[ops[i].mem.segment - ZYDIS_REGISTER_ES]);
        *len = ops[i].size / 8;
        return true;
    }
    return false;
}

static struct freedom freedom_of(const struct diff_result *r)
{
    uint32_t esp = r->state.gpr[ESP];
    struct freedom f = { 0 };
    uint8_t op[2];

    if ((r->vector < EXC_SS || r->vector > EXC_PF) && r->vector != EXC_BR)
        return f;
    opcode_at(r, r->state.eip, op);
    if (!__builtin_cpu_is("intel"))
        free_on_other_hosts(&f, op);
    switch (op[0]) {
    case 0x0f:
        f.any_address |= op[1] == 0xae;
        f.x87_top = op[1] == 0xf7 || op[1] == 0xe7 || op[1] == 0x7e || op[1] == 0x7f;
        if (op[1] == 0xf7) /* MASKMOVQ, MASKMOVDQU: any of its bytes */
            f.any_fault = f.any_address = true;
        break;
    case 0x60:
        f.va = esp - 32;
        f.len = 32;
        break;
    case 0x61:
        f.registers = true;
        break;
    case 0x62:
        f.any_fault = f.bounds = true;
        break;
    case 0xa6:
    case 0xa7:
        f.any_fault = true;
        break;
    case 0x9a:
        f.va = esp - 8;
        f.len = 8;
        break;
    case 0xc8:
        f.any_fault = true;
        f.va = esp - 132;
        f.len = 132;
        break;
    case 0xd9: /* FLDENV FNSTENV */
    case 0xdd: /* FRSTOR FNSAVE */
        if (op[1] >= 0xc0 || (op[1] & 0x28) != 0x20)
            break;
        f.any_address = true;
        if (!memory_operand(r, &f.va, &f.len))
            f.len = 0;
        break;
    case 0xdb: /* FSTP of 80 bits */
    case 0xdf: /* FBSTP */
        if (op[1] < 0xc0 && (op[1] & 0x38) == (op[0] == 0xdb ? 0x38 : 0x30) &&
            !memory_operand(r, &f.va, &f.len))
            f.len = 0;
        break;
    }
    if (!f.len && !__builtin_cpu_is("intel") && !memory_operand(r, &f.va, &f.len))
        f.len = 0;
    return f;
}

/* Is the other side's exception one that the same instruction could have raised as well? */
static bool is_other_fault(const struct freedom *f, const struct diff_result *want,
                           const struct diff_result *got)
{
    bool got_memory = got->vector >= EXC_SS && got->vector <= EXC_PF;

    if (f->bounds && want->state.eip == got->state.eip && got->vector == EXC_BR)
        return true;
    if (want->state.eip != got->state.eip || !got_memory)
        return false;
    if (f->any_fault)
        return true;
    /* A long x87 image over the end of the 4 GiB: the part before it may be looked at first. */
    if (f->any_address && want->vector == EXC_PF && want->cr2 >= 0xfffff000u && got->vector != EXC_PF)
        return true;
    /* An offset that wraps at 4 GiB: a limit violation here, two pages there (FS has a base). */
    return (want->vector == EXC_SS || want->vector == EXC_GP) && got->vector == EXC_PF &&
           (got->cr2 >= 0xfffff000u || CASE_DATA - 1 - got->cr2 < 64);
}

static void compare_bytes(struct report *rep, const char *what, const uint8_t *want, const uint8_t *got,
                          unsigned len)
{
    char w[64] = "", g[64] = "";

    if (!memcmp(want, got, len))
        return;
    rep->count++;
    if (!rep->print)
        return;
    for (unsigned i = len; i-- > 0;) {
        snprintf(w + strlen(w), sizeof w - strlen(w), "%02x", want[i]);
        snprintf(g + strlen(g), sizeof g - strlen(g), "%02x", got[i]);
    }
    printf("    %-12s host 0x%s, translated 0x%s\n", what, w, g);
}

static void compare_fpu(struct report *rep, const struct diff_case *c, const struct freedom *freedom,
                        const uint8_t *want, const uint8_t *got)
{
    char name[16];

    compare_bytes(rep, "fcw", want, got, 2);
    if (!freedom->x87_top) {
        compare_bytes(rep, "fsw", want + 2, got + 2, 2);
        compare_bytes(rep, "ftw", want + 4, got + 4, 1);
    }
    compare_bytes(rep, "fip", want + 8, got + 8, 4);
    if (!c->loads_fcw) {
        compare_bytes(rep, "fop", want + 6, got + 6, 2);
        compare_bytes(rep, "fdp", want + 16, got + 16, 4);
    }
    compare_bytes(rep, "mxcsr", want + 24, got + 24, 4);
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "st(%u)", i);
        if (!freedom->x87_top)
            compare_bytes(rep, name, want + 32 + 16 * i, got + 32 + 16 * i, 10);
        snprintf(name, sizeof name, "xmm%u", i);
        compare_bytes(rep, name, want + 160 + 16 * i, got + 160 + 16 * i, 16);
    }
}

static bool is_masked(const struct diff_case *c, const struct freedom *freedom, uint32_t va)
{
    if (va - freedom->va < freedom->len)
        return true;
    for (unsigned i = 0; i < c->nmasks; i++)
        if (va - c->masks[i].va < c->masks[i].len)
            return true;
    return false;
}

static void compare_memory(struct report *rep, const struct diff_case *c, const struct freedom *freedom,
                           const struct diff_result *want, const struct diff_result *got)
{
    unsigned shown = 0;

    for (int p = 0; p < CASE_PAGES; p++) {
        if (!memcmp(want->mem[p], got->mem[p], CASE_PAGE))
            continue;
        for (uint32_t o = 0; o < CASE_PAGE; o++) {
            uint32_t va = case_page_va[p] + o;

            if (want->mem[p][o] == got->mem[p][o] || is_masked(c, freedom, va))
                continue;
            rep->count++;
            if (rep->print && shown++ < 16)
                printf("    %s byte at VA 0x%08x: host 0x%02x, translated 0x%02x\n", page_names[p], va,
                       want->mem[p][o], got->mem[p][o]);
        }
    }
}

static void compare_end(struct report *rep, const struct freedom *freedom, const struct diff_result *want,
                        const struct diff_result *got)
{
    uint32_t mask = want->vector == EXC_PF ? ~PF_ID : ~0u;

    /* One operand in millions hits the kernel's pages of the VM, where the host's process has nothing. */
    if (want->vector == EXC_PF && want->cr2 - VM_FIXTURE_KERNEL < VM_FIXTURE_KERNEL_BYTES)
        mask &= ~PF_P;
    if (want->end != got->end) {
        rep->count++;
        if (rep->print)
            printf("    ended: host %d, translated %d %s\n", want->end, got->end, got->note);
        return;
    }
    if (is_other_fault(freedom, want, got))
        return;
    if (want->vector != got->vector)
        differ(rep, "vector", want->vector, got->vector);
    else if ((want->error & mask) != (got->error & mask))
        differ(rep, "error code", want->error, got->error);
    else if (want->cr2 != got->cr2 && !freedom->any_address)
        differ(rep, "cr2", want->cr2, got->cr2);
}

unsigned compare_results(const struct diff_case *c, const struct diff_result *want,
                         const struct diff_result *got, bool print)
{
    struct report rep = { .print = print };
    const struct diff_state *w = &want->state, *g = &got->state;
    uint32_t flags = FLAGS_COMPARED & ~undefined_at(c, w->eip);
    struct freedom freedom = freedom_of(want);

    compare_end(&rep, &freedom, want, got);
    if (w->eip != g->eip)
        differ(&rep, "eip", w->eip, g->eip);
    for (int i = 0; i < 8; i++)
        if (w->gpr[i] != g->gpr[i] && !(freedom.registers && i != ESP))
            differ(&rep, gpr_names[i], w->gpr[i], g->gpr[i]);
    if ((w->eflags ^ g->eflags) & flags)
        differ(&rep, "eflags", w->eflags & flags, g->eflags & flags);
    for (int i = 0; i < SEG_COUNT; i++)
        /* the host forgets the RPL of null selectors on the way back to the oracle */
        if (w->sel[i] != g->sel[i] && ((w->sel[i] | g->sel[i]) & ~SEL_RPL))
            differ(&rep, seg_names[i], w->sel[i], g->sel[i]);
    compare_fpu(&rep, c, &freedom, w->fx, g->fx);
    compare_memory(&rep, c, &freedom, want, got);
    return rep.count;
}

/* ---- printing --------------------------------------------------------------------------- */

static void print_code(const struct diff_case *c)
{
    csh cs;
    cs_insn *insn;
    bool open = cs_open(CS_ARCH_X86, CS_MODE_32, &cs) == CS_ERR_OK;

    for (unsigned i = 0; i < c->ninsns; i++) {
        unsigned from = c->insns[i].ofs, to = c->insns[i + 1].ofs;
        size_t n = open ? cs_disasm(cs, c->code + from, to - from, c->code_va + from, 1, &insn) : 0;

        printf("  %08x  ", c->code_va + from);
        for (unsigned k = from; k < to; k++)
            printf("%02x", c->code[k]);
        printf("%*s%s %s\n", to - from < 12 ? (int)(24 - 2 * (to - from)) : 1, "",
               n ? insn->mnemonic : "(bad)", n ? insn->op_str : "");
        if (n)
            cs_free(insn, n);
    }
    if (open)
        cs_close(&cs);
    printf("  %08x  f4                      hlt\n", c->code_va + c->code_len);
}

void print_case(const struct diff_case *c)
{
    const struct diff_state *s = &c->init;

    printf("case %s seed %llu index %llu\n", c->name, (unsigned long long)c->seed,
           (unsigned long long)c->index);
    for (int i = 0; i < 8; i++)
        printf("  %s=%08x%s", gpr_names[i], s->gpr[i], i == 3 || i == 7 ? "\n" : "");
    printf("  eflags=%08x fcw=%02x%02x fsw=%02x%02x ftw=%02x mxcsr=%02x%02x mem_seed=0x%llx\n", s->eflags,
           s->fx[1], s->fx[0], s->fx[3], s->fx[2], s->fx[4], s->fx[25], s->fx[24],
           (unsigned long long)c->mem_seed);
    print_code(c);
}
