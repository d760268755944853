/*
 * Every lowering, as a table of before, code and after. Each case runs with its slow and its
 * fast paths, with the arithmetic flags clear and set; what a case does not list must not
 * change. See run_fixture.h.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/bt/run_fixture.h"

#define ESP0             STACK_START
#define RUN_TABLE(cases) run_table(cases, ARRAY_LEN(cases))

/* ---- stack ------------------------------------------------------------------------------------ */

static void push_and_pop_of_every_register_and_size(void **state)
{
    const struct run_case cases[] = {
        { "push all", GUEST("push eax; push ecx; push edx; push ebx; push esp; push ebp; push esi; push edi"),
          .after = { { R(ESP), ESP0 - 32 },
                     { ESP0 - 4, 0x10203040 },
                     { ESP0 - 8, 0x21314151 },
                     { ESP0 - 12, 0x32425262 },
                     { ESP0 - 16, 0x43536373 },
                     { ESP0 - 20, ESP0 - 16 },
                     { ESP0 - 24, 0x65758595 },
                     { ESP0 - 28, 0x768696a6 },
                     { ESP0 - 32, 0x8797a7b7 } } },
        { "push 16", GUEST("push ax; push cx; push si; push sp"),
          .after = { { R(ESP), ESP0 - 8 }, { ESP0 - 4, 0x30404151 }, { ESP0 - 8, 0x96a60ffa } },
          .before = { { R(EAX), 0x99993040 }, { R(ESI), 0x555596a6 }, { R(ESP), ESP0 } } },
        { "pop all but esp", GUEST("pop edi; pop esi; pop ebp; pop ebx; pop edx; pop ecx; pop eax"),
          .before = { { ESP0, 1 },
                      { ESP0 + 4, 2 },
                      { ESP0 + 8, 3 },
                      { ESP0 + 12, 4 },
                      { ESP0 + 16, 5 },
                      { ESP0 + 20, 6 },
                      { ESP0 + 24, 7 } },
          .after = { { R(EDI), 1 },
                     { R(ESI), 2 },
                     { R(EBP), 3 },
                     { R(EBX), 4 },
                     { R(EDX), 5 },
                     { R(ECX), 6 },
                     { R(EAX), 7 },
                     { R(ESP), ESP0 + 28 } } },
        { "pop 16 keeps upper halves", GUEST("pop ax; pop cx; pop bp"),
          .before = { { ESP0, 0x22221111 }, { ESP0 + 4, 0x44443333 } },
          .after = { { R(EAX), 0x10201111 },
                     { R(ECX), 0x21312222 },
                     { R(EBP), 0x65753333 },
                     { R(ESP), ESP0 + 6 } } },
        { "pop esp takes the value", GUEST("pop esp"), .before = { { ESP0, 0x410abc } },
          .after = { { R(ESP), 0x410abc } } },
        { "pop sp", GUEST("pop sp"), .before = { { ESP0, 0x0abc } }, .after = { { R(ESP), 0x410abc } } },
        { "push immediates",
          GUEST("push 0x12345678; push -2; .byte 0x66, 0x6a, 0xfe; .byte 0x66, 0x68, 0x34, 0x12"),
          .after = { { R(ESP), ESP0 - 12 },
                     { ESP0 - 4, 0x12345678 },
                     { ESP0 - 8, 0xfffffffe },
                     { ESP0 - 12, 0xfffe1234 } } },
        { "push memory", GUEST("push dword ptr [eax]; push word ptr [eax + ecx*2 + 1]"),
          .before = { { R(EAX), DATA },
                      { R(ECX), 2 },
                      { DATA, 0x11223344 },
                      { DATA + 4, 0x55667788 },
                      { ESP0 - 8, 0 } },
          .after = { { R(ESP), ESP0 - 6 }, { ESP0 - 4, 0x11223344 }, { ESP0 - 8, 0x66770000 } } },
        { "push from the stack itself", GUEST("push dword ptr [esp]; push dword ptr [esp + 4]"),
          .before = { { ESP0, 0xcafe } },
          .after = { { R(ESP), ESP0 - 8 }, { ESP0 - 4, 0xcafe }, { ESP0 - 8, 0xcafe } } },
        { "push r/m of a register", GUEST(".byte 0xff, 0xf1, 0xff, 0xf4"),
          .after = { { R(ESP), ESP0 - 8 }, { ESP0 - 4, 0x21314151 }, { ESP0 - 8, ESP0 - 4 } } },
        { "pop memory", GUEST("pop dword ptr [eax + 4]; pop word ptr [eax]"),
          .before = { { R(EAX), DATA }, { DATA, 0x99999999 }, { ESP0, 0xabcd }, { ESP0 + 4, 0x1234 } },
          .after = { { R(ESP), ESP0 + 6 }, { DATA + 4, 0xabcd }, { DATA, 0x99991234 } } },
        { "pop memory by ESP counts it as incremented", GUEST("pop dword ptr [esp]; pop dword ptr [esp + 8]"),
          .before = { { ESP0, 0xaaaa }, { ESP0 + 4, 0xbbbb } },
          .after = { { R(ESP), ESP0 + 8 }, { ESP0 + 4, 0xaaaa }, { ESP0 + 16, 0xaaaa } } },
        { "pop r/m of a register", GUEST(".byte 0x8f, 0xc1, 0x8f, 0xc4"),
          .before = { { ESP0, 0xaaaa }, { ESP0 + 4, 0x410010 } },
          .after = { { R(ECX), 0xaaaa }, { R(ESP), 0x410010 } } },
        { "pusha", GUEST("pusha"),
          .after = { { R(ESP), ESP0 - 32 },
                     { ESP0 - 4, 0x10203040 },
                     { ESP0 - 8, 0x21314151 },
                     { ESP0 - 12, 0x32425262 },
                     { ESP0 - 16, 0x43536373 },
                     { ESP0 - 20, ESP0 },
                     { ESP0 - 24, 0x65758595 },
                     { ESP0 - 28, 0x768696a6 },
                     { ESP0 - 32, 0x8797a7b7 } } },
        { "pusha and popa, 16 bits", GUEST("pushaw; mov eax, 0; mov ebp, 0; popaw"),
          .after = { { R(EAX), 0x3040 },
                     { R(EBP), 0x8595 },
                     { ESP0 - 4, 0x30404151 },
                     { ESP0 - 8, 0x52626373 },
                     { ESP0 - 12, 0x10008595 },
                     { ESP0 - 16, 0x96a6a7b7 } } },
        { "popa", GUEST("popa"),
          .before = { { ESP0, 1 },
                      { ESP0 + 4, 2 },
                      { ESP0 + 8, 3 },
                      { ESP0 + 12, 99 },
                      { ESP0 + 16, 4 },
                      { ESP0 + 20, 5 },
                      { ESP0 + 24, 6 },
                      { ESP0 + 28, 7 } },
          .after = { { R(EDI), 1 },
                     { R(ESI), 2 },
                     { R(EBP), 3 },
                     { R(EBX), 4 },
                     { R(EDX), 5 },
                     { R(ECX), 6 },
                     { R(EAX), 7 },
                     { R(ESP), ESP0 + 32 } } },
        { "leave", GUEST("leave"), .before = { { R(EBP), ESP0 - 64 }, { ESP0 - 64, 0x1234 } },
          .after = { { R(EBP), 0x1234 }, { R(ESP), ESP0 - 60 } } },
        { "leave, 16 bits", GUEST(".byte 0x66; leave"),
          .before = { { R(EBP), ESP0 - 64 }, { ESP0 - 64, 0x98761234 } },
          .after = { { R(EBP), 0x411234 }, { R(ESP), ESP0 - 62 } } },
        { "enter and leave", GUEST("enter 16, 0; mov dword ptr [ebp - 16], 7; leave"),
          .before = { { R(EBP), 0x55 } }, .after = { { ESP0 - 4, 0x55 }, { ESP0 - 20, 7 } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- high bytes ------------------------------------------------------------------------------- */

static uint32_t byte_get(const uint32_t *gpr, unsigned r)
{
    return r < 4 ? gpr[r] & 0xff : gpr[r - 4] >> 8 & 0xff;
}

static void byte_set(uint32_t *gpr, unsigned r, uint32_t v)
{
    unsigned shift = r < 4 ? 0 : 8;

    gpr[r & 3] = (gpr[r & 3] & ~(0xffu << shift)) | (v & 0xff) << shift;
}

static void run_bytes(struct run_fixture *fx, const uint8_t *code, uint32_t len, const uint32_t *before)
{
    static const uint8_t ud2[] = { 0x0f, 0x0b };

    put(fx, CODE, code, len);
    put(fx, CODE + len, ud2, 2);
    reset_state(fx);
    memcpy(fx->cpu->gpr, before, 8 * sizeof *before);
    run_to(fx, CODE, CODE + len);
}

#define B_COUNT 3
static const uint32_t byte_regs[B_COUNT][8] = {
    { 0x10203040, 0x21314151, 0x32425262, 0x43536373, ESP0, 0x65758595, 0x768696a6, 0x8797a7b7 },
    { 0xfffffffe, 0x80017f02, 0x00ff8001, 0x7fffffff, ESP0, 0, DATA, DATA + 8 },
    { 0, 0xffffffff, 0x01000100, 0xdeadbeef, ESP0, 1, 2, 3 },
};

static void every_pair_of_byte_registers(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned rm = 0; rm < 8; rm++)
            for (unsigned k = 0; k < B_COUNT; k++) {
                const uint8_t modrm = (uint8_t)(0xc0 | reg << 3 | rm);
                /* mov rm, reg; add rm, reg; xchg rm, reg; sub reg, rm */
                const uint8_t code[] = { 0x88, modrm, 0x00, modrm, 0x86, modrm, 0x2a, modrm };
                uint32_t x[8], t;
                memcpy(x, byte_regs[k], sizeof x);
                byte_set(x, rm, byte_get(x, reg));
                byte_set(x, rm, byte_get(x, rm) + byte_get(x, reg));
                t = byte_get(x, rm);
                byte_set(x, rm, byte_get(x, reg));
                byte_set(x, reg, t);
                byte_set(x, reg, byte_get(x, reg) - byte_get(x, rm));
                run_bytes(fx, code, sizeof code, byte_regs[k]);
                assert_memory_equal(fx->frame.gpr, x, sizeof x);
            }
    run_fixture_free(fx);
}

static void byte_register_with_memory(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned base = 0; base < 8; base++) {
            /* mov [base + 0x11], reg; xadd [base + 0x11], reg; mov reg, [base + 0x12]; the base is DATA */
            const uint8_t modrm = (uint8_t)(0x40 | reg << 3 | base);
            uint8_t code[20];
            uint32_t n = 0, x[8], t;
            bool is_esp = base == ESP;
            for (unsigned i = 0; i < 3; i++) {
                if (i == 1)
                    code[n++] = 0x0f;
                code[n++] = (const uint8_t[]){ 0x88, 0xc0, 0x8a }[i];
                code[n++] = modrm;
                if (is_esp)
                    code[n++] = 0x24;
                code[n++] = i == 2 ? 0x12 : 0x11;
            }
            put_u32(fx, DATA + 0x10, 0x88776655);
            memcpy(x, byte_regs[0], sizeof x);
            x[base] = DATA;
            uint32_t before[8];
            memcpy(before, x, sizeof x);
            if (base == (reg & 3)) { /* XADD would change the base: only the store */
                run_bytes(fx, code, 3, before);
                assert_int_equal(get_u32(fx, DATA + 0x10), 0x88770055u | byte_get(x, reg) << 8);
                assert_memory_equal(fx->frame.gpr, x, sizeof x);
                continue;
            }
            run_bytes(fx, code, n, before);
            t = byte_get(x, reg);
            byte_set(x, reg, t); /* what XADD leaves there, and then the byte beside it */
            byte_set(x, reg, 0x77);
            assert_int_equal(get_u32(fx, DATA + 0x10), 0x88770055u | (2 * t & 0xff) << 8);
            assert_memory_equal(fx->frame.gpr, x, sizeof x);
        }
    run_fixture_free(fx);
}

static void movzx_movsx_of_every_byte_register(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (unsigned op = 0; op < 4; op++)
        for (unsigned to = 0; to < 8; to++)
            for (unsigned from = 0; from < 8; from++) {
                bool is_signed = op & 1, is_16 = op & 2;
                uint8_t code[8] = { 0x66 };
                uint32_t n = is_16, x[8], v;
                code[n++] = 0x0f;
                code[n++] = is_signed ? 0xbe : 0xb6;
                code[n++] = (uint8_t)(0xc0 | to << 3 | from);
                memcpy(x, byte_regs[0], sizeof x);
                x[EAX] = 0x12349080;
                v = byte_get(x, from);
                if (is_signed && v & 0x80)
                    v |= 0xffffff00;
                uint32_t before[8];
                memcpy(before, x, sizeof x);
                x[to] = is_16 ? (x[to] & 0xffff0000) | (v & 0xffff) : v;
                run_bytes(fx, code, n, before);
                assert_memory_equal(fx->frame.gpr, x, sizeof x);
            }
    run_fixture_free(fx);
}

static void byte_register_with_immediates_and_setcc(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (unsigned r = 0; r < 8; r++) {
        uint32_t x[8];
        /* mov r, 0x5a; sub r, 0x5b; sbb r, 0 ; setc r ; not r; 82 /0: add r, 3 */
        const uint8_t code[] = { (uint8_t)(0xb0 | r),
                                 0x5a,
                                 0x80,
                                 (uint8_t)(0xe8 | r),
                                 0x5b,
                                 0x80,
                                 (uint8_t)(0xd8 | r),
                                 0,
                                 0x0f,
                                 0x92,
                                 (uint8_t)(0xc0 | r),
                                 0xf6,
                                 (uint8_t)(0xd0 | r),
                                 0x82,
                                 (uint8_t)(0xc0 | r),
                                 3 };
        memcpy(x, byte_regs[0], sizeof x);
        byte_set(x, r, 0xff + 3); /* 0x5a - 0x5b borrows; 0xff - 0 - 1 does not, so SETC gives 0 */
        run_bytes(fx, code, sizeof code, byte_regs[0]);
        assert_memory_equal(fx->frame.gpr, x, sizeof x);
    }
    run_fixture_free(fx);
}

/* ---- shifts by CL ---------------------------------------------------------------------------------- */

static uint32_t shifted(unsigned op, uint32_t v, unsigned n)
{
    n &= 31;
    switch (op) {
    case 0:
        return n ? v << n | v >> (32 - n) : v;
    case 1:
        return n ? v >> n | v << (32 - n) : v;
    case 5:
        return v >> n;
    case 7:
        return (uint32_t)((int32_t)v >> n);
    default:
        return v << n;
    }
}

static void shifts_by_cl_of_every_register_and_of_memory(void **state)
{
    static const uint8_t ops[] = { 0, 1, 4, 5, 7 };
    static const uint32_t counts[] = { 0, 1, 7, 31, 32, 0xffffff21 };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (unsigned o = 0; o < ARRAY_LEN(ops); o++)
        for (unsigned r = 0; r < 8; r++)
            for (unsigned k = 0; k < ARRAY_LEN(counts); k++) {
                const uint8_t code[] = { 0xd3, (uint8_t)(0xc0 | ops[o] << 3 | r),
                                         0xd3, (uint8_t)(ops[o] << 3 | 5),
                                         0x20, 0,
                                         0x50, 0 };
                uint32_t x[8];
                memcpy(x, byte_regs[0], sizeof x);
                x[ECX] = counts[k];
                put_u32(fx, DATA + 0x20, 0x87654321);
                run_bytes(fx, code, sizeof code, x);
                x[r] = shifted(ops[o], x[r], counts[k]);
                assert_memory_equal(fx->frame.gpr, x, sizeof x);
                assert_int_equal(get_u32(fx, DATA + 0x20), shifted(ops[o], 0x87654321, x[ECX]));
            }
    run_fixture_free(fx);
}

static void other_forms_with_cl(void **state)
{
    const struct run_case cases[] = {
        { "shl ch, cl", GUEST("shl ch, cl; setc dl; test esp, esp"),
          .before = { { R(ECX), 0x11112103 }, { R(EDX), 0 }, { R_FLAGS, 0 } },
          .after = { { R(ECX), 0x11110803 }, { R(EDX), 1 }, { R_FLAGS, EFL_PF } } },
        { "ror ah, cl", GUEST("ror ah, cl; setc dl; test esp, esp"),
          .before = { { R(ECX), 4 }, { R(EAX), 0x1834 }, { R(EDX), 0 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x8134 }, { R(EDX), 1 }, { R_FLAGS, EFL_PF } } },
        { "rcl uses CF", GUEST("rcl dword ptr [edx], cl"),
          .before = { { R(ECX), 33 }, { R(EDX), DATA }, { DATA, 0x40000000 }, { R_FLAGS, EFL_CF } },
          .after = { { DATA, 0x80000001 }, { R_FLAGS, EFL_OF } } },
        { "a count of 0 leaves flags", GUEST("shl dword ptr [edx], cl; sar ecx, cl; shld eax, ecx, cl"),
          .before = { { R(ECX), 0xffffff00 }, { R(EDX), DATA } } },
        { "shld", GUEST("shld eax, ecx, cl; mov ebx, 0; test ebx, ebx"),
          .before = { { R(ECX), 0xabcdef08 }, { R(EAX), 0x12345678 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x345678ab }, { R(EBX), 0 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "shrd to memory", GUEST("shrd [edi], ecx, cl; test edi, edi"),
          .before = { { R(ECX), 0xabcdef08 }, { R(EDI), DATA }, { DATA, 0x12345678 }, { R_FLAGS, 0 } },
          .after = { { DATA, 0x08123456 }, { R_FLAGS, EFL_PF } } },
        { "shrd with the stack as base", GUEST("shrd [esp + 4], esp, cl; test edi, edi"),
          .before = { { R(ECX), 8 }, { R(EDI), DATA }, { ESP0 + 4, 0x12345678 }, { R_FLAGS, 0 } },
          .after = { { ESP0 + 4, 0x00123456 }, { R_FLAGS, EFL_PF } } },
        { "ECX as the base of its own shift", GUEST("rol dword ptr [ecx], cl; setc dl; test esp, esp"),
          .before = { { R(ECX), DATA + 4 }, { R(EDX), 0 }, { DATA + 4, 0x12345678 }, { R_FLAGS, 0 } },
          .after = { { R(EDX), 1 }, { DATA + 4, 0x23456781 }, { R_FLAGS, EFL_PF } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- bit strings -------------------------------------------------------------------------------------- */

static void bit_strings(void **state)
{
    const struct run_case cases[] = {
        { "bt far above", GUEST("bt [eax], ecx"),
          .before = { { R(EAX), DATA }, { R(ECX), 1000 }, { DATA + 124, 0x100 }, { R_FLAGS, 0 } },
          .after = { { R_FLAGS, EFL_CF } } },
        { "bts below", GUEST("bts [eax], ecx"),
          .before = { { R(EAX), DATA + 0x100 },
                      { R(ECX), (uint32_t)-1 },
                      { DATA + 0xfc, 0 },
                      { R_FLAGS, EFL_CF } },
          .after = { { DATA + 0xfc, 0x80000000 }, { R_FLAGS, 0 } } },
        { "btr far below", GUEST("btr [eax], ecx"),
          .before = { { R(EAX), DATA + 0x100 },
                      { R(ECX), (uint32_t)-2048 },
                      { DATA, 0xffffffff },
                      { R_FLAGS, 0 } },
          .after = { { DATA, 0xfffffffe }, { R_FLAGS, EFL_CF } } },
        { "btc of 16 bits", GUEST("btc word ptr [eax], cx"),
          .before = { { R(EAX), DATA + 0x100 }, { R(ECX), 0x7777ffef }, { DATA + 0xfc, 0 }, { R_FLAGS, 0 } },
          .after = { { DATA + 0xfc, 0x8000 }, { R_FLAGS, 0 } } },
        { "16 bits, forwards", GUEST("bts word ptr [eax], cx"),
          .before = { { R(EAX), DATA }, { R(ECX), 0x7fff }, { DATA + 0xffc, 0 }, { R_FLAGS, 0 } },
          .after = { { DATA + 0xffc, 0x80000000 }, { R_FLAGS, 0 } } },
        { "address register is the index", GUEST("bts [ecx], ecx"),
          .before = { { R(ECX), 8 }, { R_FLAGS, 0 } }, .vector = EXC_PF, .error = PF_WR | PF_US, .cr2 = 8 },
        { "locked, with scale", GUEST("lock btc [ebx + esi*8 + 0x10], edx"),
          .before = { { R(EBX), DATA }, { R(ESI), 4 }, { R(EDX), 35 }, { DATA + 0x34, 0 }, { R_FLAGS, 0 } },
          .after = { { DATA + 0x34, 8 }, { R_FLAGS, 0 } } },
        { "register form takes the index modulo 32", GUEST("bts eax, ecx; btr edx, esi"),
          .before = { { R(EAX), 0 }, { R(ECX), 35 }, { R(EDX), 0xffffffff }, { R(ESI), 64 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 8 }, { R(EDX), 0xfffffffe }, { R_FLAGS, EFL_CF } } },
        { "immediate form", GUEST("bts dword ptr [eax], 35"),
          .before = { { R(EAX), DATA }, { DATA, 0 }, { R_FLAGS, EFL_CF } },
          .after = { { DATA, 8 }, { R_FLAGS, 0 } } },
        { "other flags stay", GUEST("bt [eax], ecx"),
          .before = { { R(EAX), DATA }, { R(ECX), 0 }, { DATA, 0 }, { R_FLAGS, EFL_ZF | EFL_CF } },
          .after = { { R_FLAGS, EFL_ZF } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- addresses ---------------------------------------------------------------------------------------- */

static void addresses(void **state)
{
    const struct run_case cases[] = {
        { "xlat", GUEST("xlatb"),
          .before = { { R(EBX), DATA }, { R(EAX), 0x12345683 }, { DATA + 0x80, 0x99887766 } },
          .after = { { R(EAX), 0x12345699 } } },
        { "xlat with 16-bit address", GUEST(".byte 0x64, 0x67; xlatb"), .fs = SEL_BASED,
          .before = { { R(EBX), 0x5555fff0 }, { R(EAX), 0x12 }, { DATA, 0x00ab0000 } },
          .after = { { R(EAX), 0xab } } },
        { "lea", GUEST("lea eax, [ecx + edx*4 - 8]; lea esp, [esp + 8]; lea ebp, [ebp*8]; lea esi, [0x1234]"),
          .before = { { R(ECX), 0xfffffff0 }, { R(EDX), 8 }, { R(EBP), 0x20000001 } },
          .after = { { R(EAX), 8 }, { R(ESP), ESP0 + 8 }, { R(EBP), 8 }, { R(ESI), 0x1234 } } },
        { "lea of 16 bits", GUEST("lea ax, [ecx + 5]; lea cx, [ecx]"),
          .before = { { R(EAX), 0x77777777 }, { R(ECX), 0x1234fffe } }, .after = { { R(EAX), 0x77770003 } } },
        { "lea of 16-bit addresses",
          GUEST(".byte 0x67, 0x8d, 0x40, 0x02"         /* eax, [bx + si + 2] */
                "; .byte 0x67, 0x8d, 0x0e, 0x34, 0x82" /* ecx, [0x8234] */
                "; .byte 0x67, 0x66, 0x8d, 0x13"       /* dx, [bp + di] */
                "; .byte 0x67, 0x8d, 0x2f" /* ebp, [bx] */),
          .before = { { R(EBX), 0x1111fff0 },
                      { R(ESI), 0x22220020 },
                      { R(EBP), 0x33338001 },
                      { R(EDI), 0x8002 },
                      { R(EDX), 0x55555555 } },
          .after = { { R(EAX), 0x12 }, { R(ECX), 0x8234 }, { R(EDX), 0x55550003 }, { R(EBP), 0xfff0 } } },
        { "16-bit addresses wrap",
          GUEST(".byte 0x64, 0x67, 0x8b, 0x40, 0x10" /* mov eax, fs:[bx + si + 16] */), .fs = SEL_BASED,
          .before = { { R(EBX), 0x1111fff0 }, { R(ESI), 0x22220020 }, { DATA + 0x20, 0xfeed } },
          .after = { { R(EAX), 0xfeed } } },
        { "offsets in the instruction",
          GUEST("mov eax, ds:[" STR(DATA) "]; mov ds:[" STR(
              DATA) " + 6], ax;"
                    "mov al, ds:[" STR(DATA) " + 9]; mov ds:[" STR(DATA) " + 10], al"),
          .before = { { DATA, 0x12345678 }, { DATA + 4, 0xffffffff }, { DATA + 8, 0x0000aa00 } },
          .after = { { R(EAX), 0x123456aa }, { DATA + 4, 0x5678ffff }, { DATA + 8, 0x00aaaa00 } } },
        { "effective addresses wrap at 4 GiB", GUEST("mov eax, [ecx + edx*2 + 0x7ffffff0]"),
          .before = { { R(ECX), DATA + 0x10 }, { R(EDX), 0x40000000 }, { DATA, 0xbeef } },
          .after = { { R(EAX), 0xbeef } } },
        { "every base register",
          GUEST("mov [eax], eax; mov [ecx], eax; mov [edx], eax; mov [ebx], eax;"
                "mov [esp], eax; mov [ebp], eax; mov [esi], eax; mov [edi], eax"),
          .before = { { R(EAX), DATA },
                      { R(ECX), DATA + 16 },
                      { R(EDX), DATA + 32 },
                      { R(EBX), DATA + 48 },
                      { R(EBP), DATA + 64 },
                      { R(ESI), DATA + 80 },
                      { R(EDI), DATA + 96 } },
          .after = { { DATA, DATA },
                     { DATA + 16, DATA },
                     { DATA + 32, DATA },
                     { DATA + 48, DATA },
                     { ESP0, DATA },
                     { DATA + 64, DATA },
                     { DATA + 80, DATA },
                     { DATA + 96, DATA } } },
        { "every index register",
          GUEST("inc dword ptr [ebx + eax]; inc dword ptr [ebx + ecx*2];"
                "inc dword ptr [ebx + edx*4]; inc dword ptr [esp + ebp*8];"
                "inc dword ptr [ebp + esi + " STR(DATA) "]; inc dword ptr [edi*4]; cmp al, al"),
          .before = { { R(EBX), DATA },
                      { R(EAX), 8 },
                      { R(ECX), 8 },
                      { R(EDX), 8 },
                      { R(EBP), 1 },
                      { R(ESI), 47 },
                      { R(EDI), DATA / 4 + 16 },
                      { DATA + 8, 0 },
                      { DATA + 16, 0 },
                      { DATA + 32, 0 },
                      { ESP0 + 8, 0 },
                      { DATA + 48, 0 },
                      { DATA + 64, 0 },
                      { R_FLAGS, 0 } },
          .after = { { DATA + 8, 1 },
                     { DATA + 16, 1 },
                     { DATA + 32, 1 },
                     { ESP0 + 8, 1 },
                     { DATA + 48, 1 },
                     { DATA + 64, 1 },
                     { R_FLAGS, EFL_ZF | EFL_PF } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- counting branches, flags -----------------------------------------------------------------------------
 */

static void counting_branches(void **state)
{
    const struct run_case cases[] = {
        { "loop", GUEST("1: add eax, ecx; loop 1b; sub edx, edx"),
          .before = { { R(EAX), 0 }, { R(ECX), 10 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 55 }, { R(ECX), 0 }, { R(EDX), 0 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "loop keeps flags", GUEST("1: lea eax, [eax + 1]; loop 1b"),
          .before = { { R(EAX), 0 }, { R(ECX), 10 } }, .after = { { R(EAX), 10 }, { R(ECX), 0 } } },
        { "loop with CX", GUEST("1: lea eax, [eax + 1]; .byte 0x67; loop 1b"),
          .before = { { R(EAX), 0 }, { R(ECX), 0x70003 } }, .after = { { R(EAX), 3 }, { R(ECX), 0x70000 } } },
        { "loop with CX wraps below 0", GUEST("1: lea eax, [eax + 1]; .byte 0x67; loop 1b"),
          .before = { { R(EAX), 0 }, { R(ECX), 0x70000 } },
          .after = { { R(EAX), 0x10000 }, { R(ECX), 0x70000 } } },
        { "loope goes on while equal",
          GUEST("mov ebx, 0; 1: inc eax; cmp byte ptr [edx + eax], bl; loope 1b;"
                "mov bl, 5; cmp bl, 5"),
          .before = { { R(EDX), DATA },
                      { R(EAX), (uint32_t)-1 },
                      { R(ECX), 10 },
                      { DATA, 0x01000000 },
                      { R_FLAGS, 0 } },
          .after = { { R(EAX), 3 }, { R(ECX), 6 }, { R(EBX), 5 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "loope ends with the count", GUEST("cmp eax, eax; 1: lea eax, [eax + 1]; loope 1b"),
          .before = { { R(EAX), 0 }, { R(ECX), 4 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 4 }, { R(ECX), 0 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "loopne", GUEST("1: inc eax; cmp eax, 3; loopne 1b"),
          .before = { { R(EAX), 0 }, { R(ECX), 10 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 3 }, { R(ECX), 7 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "jecxz", GUEST("jecxz 1f; mov eax, 1; 1: mov ecx, 0; jecxz 2f; mov edx, 1; 2:"),
          .before = { { R(ECX), 0x10000 }, { R(EAX), 0 }, { R(EDX), 0 } },
          .after = { { R(ECX), 0 }, { R(EAX), 1 } } },
        { "jcxz", GUEST(".byte 0x67; jecxz 1f; mov eax, 1; 1:"),
          .before = { { R(ECX), 0x10000 }, { R(EAX), 0 } } },
        { "every condition, taken or not",
          GUEST("xor edi, edi; cmp eax, ecx;"
                "jo 1f; or edi, 1; 1: cmp eax, ecx; jb 1f; or edi, 2; 1: cmp eax, ecx; jz 1f; or edi, 4;"
                "1: cmp eax, ecx; jbe 1f; or edi, 8; 1: cmp eax, ecx; js 1f; or edi, 16; 1: cmp eax, ecx; jp "
                "1f;"
                "or edi, 32; 1: cmp eax, ecx; jl 1f; or edi, 64; 1: cmp eax, ecx; jle 1f; or edi, 128;"
                "1: cmp eax, ecx; jno 1f; or edi, 256; 1: cmp eax, ecx; jae 1f; or edi, 512; 1: cmp eax, "
                "ecx; jnle 1f;"
                "or edi, 1024; 1: cmp edi, edi"),
          .before = { { R(EAX), 5 }, { R(ECX), 7 }, { R_FLAGS, 0 } }, /* 5 - 7: CF, SF, AF */
          .after = { { R(EDI), 1 | 4 | 32 | 512 | 1024 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void flag_instructions(void **state)
{
    const struct run_case cases[] = {
        { "lahf", GUEST("lahf"), .before = { { R_FLAGS, EFL_CF | EFL_ZF | EFL_SF | EFL_OF } },
          .after = { { R(EAX), 0x1020c340 }, { R_FLAGS, EFL_CF | EFL_ZF | EFL_SF | EFL_OF } } },
        { "sahf keeps OF", GUEST("sahf"), .before = { { R(EAX), 0x9500 }, { R_FLAGS, EFL_OF | EFL_ZF } },
          .after = { { R_FLAGS, EFL_OF | EFL_SF | EFL_AF | EFL_PF | EFL_CF } } },
        { "salc with CF", GUEST(".byte 0xd6"), .before = { { R_FLAGS, EFL_CF } },
          .after = { { R(EAX), 0x102030ff }, { R_FLAGS, EFL_CF } } },
        { "salc without", GUEST(".byte 0xd6"), .before = { { R_FLAGS, EFL_ZF } },
          .after = { { R(EAX), 0x10203000 }, { R_FLAGS, EFL_ZF } } },
        { "std and cld", GUEST("std; cld; std"), .before = { { R_FLAGS, EFL_CF } },
          .after = { { R_FLAGS, EFL_CF | EFL_DF } } },
        { "cmc, stc, clc", GUEST("clc; cmc; setc al; cmc; setc ah; stc"), .before = { { R_FLAGS, EFL_OF } },
          .after = { { R(EAX), 0x10200001 }, { R_FLAGS, EFL_OF | EFL_CF } } },
        { "pushf shows IF and what the host's flags hold", GUEST("pushf"),
          .before = { { R_FLAGS, EFL_CF | EFL_OF } },
          .after = { { R(ESP), ESP0 - 4 },
                     { ESP0 - 4, EFL_IF | EFL_ONE | EFL_CF | EFL_OF },
                     { R_FLAGS, EFL_CF | EFL_OF } } },
        { "popf", GUEST("popf"), .before = { { ESP0, EFL_ZF | EFL_DF }, { R_FLAGS, EFL_CF } },
          .after = { { R(ESP), ESP0 + 4 }, { R_FLAGS, EFL_ZF | EFL_DF } } },
        { "pushf with every flag a program can set", GUEST("pushf"),
          .before = { { R_FLAGS, EFL_ARITH | EFL_DF | EFL_NT | EFL_AC | EFL_ID } },
          .after = { { R(ESP), ESP0 - 4 },
                     { ESP0 - 4, EFL_IF | EFL_ONE | EFL_ARITH | EFL_DF | EFL_NT | EFL_AC | EFL_ID },
                     { R_FLAGS, EFL_ARITH | EFL_DF | EFL_NT | EFL_AC | EFL_ID } } },
        { "pushf of 16 bits", GUEST("pushfw"), .before = { { ESP0 - 4, 0x55667788 }, { R_FLAGS, EFL_OF | EFL_SF } },
          .after = { { R(ESP), ESP0 - 2 },
                     { ESP0 - 4, (EFL_IF | EFL_ONE | EFL_OF | EFL_SF) << 16 | 0x7788 },
                     { R_FLAGS, EFL_OF | EFL_SF } } },
        { "popf of arithmetic flags alone", GUEST("popf"),
          .before = { { ESP0, EFL_ARITH | EFL_IF }, { R_FLAGS, 0 } },
          .after = { { R(ESP), ESP0 + 4 }, { R_FLAGS, EFL_ARITH } } },
        { "popf of each of them", GUEST("popf; setc al; setp ah; popf; setz cl; sets ch; popf; seto bl; lahf"),
          .before = { { ESP0, EFL_CF | EFL_IF },
                      { ESP0 + 4, EFL_ZF | EFL_SF | EFL_IF },
                      { ESP0 + 8, EFL_OF | EFL_AF | EFL_IF },
                      { R_FLAGS, EFL_PF | EFL_OF } },
          .after = { { R(EAX), 0x10201201 }, { R(ECX), 0x21310101 }, { R(EBX), 0x43536301 }, { R(ESP), ESP0 + 12 },
                     { R_FLAGS, EFL_OF | EFL_AF } } },
        { "popf that clears DF", GUEST("popf"), .before = { { ESP0, EFL_CF | EFL_IF }, { R_FLAGS, EFL_DF } },
          .after = { { R(ESP), ESP0 + 4 }, { R_FLAGS, EFL_CF } } },
        { "popf that sets NT, AC and ID, and neither IF nor IOPL", GUEST("popf"),
          .before = { { ESP0, EFL_NT | EFL_AC | EFL_ID | EFL_IOPL }, { R_FLAGS, EFL_CF } },
          .after = { { R(ESP), ESP0 + 4 }, { R_FLAGS, EFL_NT | EFL_AC | EFL_ID } } },
        { "popf of 16 bits leaves AC and ID", GUEST("popfw"),
          .before = { { ESP0, 0x5a5a0000 | EFL_ZF | EFL_IF }, { R_FLAGS, EFL_AC | EFL_ID | EFL_CF } },
          .after = { { R(ESP), ESP0 + 2 }, { R_FLAGS, EFL_AC | EFL_ID | EFL_ZF } } },
        { "pushf and popf at a page that is absent", GUEST("mov esp, edx; popf"),
          .before = { { R(EDX), DATA - 4 }, { R_FLAGS, EFL_CF | EFL_OF } },
          .after = { { R(ESP), DATA - 4 }, { R_FLAGS, EFL_CF | EFL_OF } },
          .vector = EXC_PF, .error = 4, .cr2 = DATA - 4, .eip = 2 },
        { "inc and dec keep CF", GUEST("inc eax; dec ecx; inc esp; dec esp; dec edi"),
          .before = { { R(EAX), 0xffffffff }, { R(EDI), 0 }, { R_FLAGS, EFL_CF } },
          .after = { { R(EAX), 0 },
                     { R(ECX), 0x21314150 },
                     { R(EDI), 0xffffffff },
                     { R_FLAGS, EFL_CF | EFL_SF | EFL_PF | EFL_AF } } },
        { "inc of 16 bits", GUEST("inc ax; inc cx; dec sp"),
          .before = { { R(EAX), 0x1234ffff }, { R(ESP), 0x412000 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x12340000 },
                     { R(ECX), 0x21314152 },
                     { R(ESP), 0x411fff },
                     { R_FLAGS, EFL_AF | EFL_PF } } },
        { "arithmetic with carry through memory",
          GUEST("add [edx], eax; adc dword ptr [edx + 4], 0; sbb ecx, ecx"),
          .before = { { R(EDX), DATA },
                      { R(EAX), 1 },
                      { DATA, 0xffffffff },
                      { DATA + 4, 0xffffffff },
                      { R_FLAGS, 0 } },
          .after = { { R(ECX), 0xffffffff },
                     { DATA, 0 },
                     { DATA + 4, 0 },
                     { R_FLAGS, EFL_CF | EFL_PF | EFL_AF | EFL_SF } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- exchanges, strings, vectors
 * ------------------------------------------------------------------------------ */

static void exchanges(void **state)
{
    const struct run_case cases[] = {
        { "cmpxchg8b, equal", GUEST("lock cmpxchg8b [edi]"),
          .before = { { R(EDI), DATA },
                      { R(EAX), 1 },
                      { R(EDX), 2 },
                      { R(EBX), 3 },
                      { R(ECX), 4 },
                      { DATA, 1 },
                      { DATA + 4, 2 },
                      { R_FLAGS, EFL_CF } },
          .after = { { DATA, 3 }, { DATA + 4, 4 }, { R_FLAGS, EFL_CF | EFL_ZF } } },
        { "cmpxchg8b, different", GUEST("cmpxchg8b [esp + 8]"),
          .before = { { R(EAX), 1 },
                      { R(EDX), 2 },
                      { ESP0 + 8, 1 },
                      { ESP0 + 12, 0x80000000 },
                      { R_FLAGS, EFL_ZF } },
          .after = { { R(EDX), 0x80000000 }, { R_FLAGS, 0 } } },
        { "cmpxchg8b by ECX", GUEST("cmpxchg8b [ecx]"),
          .before = { { R(ECX), DATA },
                      { R(EAX), 1 },
                      { R(EDX), 2 },
                      { R(EBX), 3 },
                      { DATA, 1 },
                      { DATA + 4, 2 },
                      { R_FLAGS, 0 } },
          .after = { { DATA, 3 }, { DATA + 4, DATA }, { R_FLAGS, EFL_ZF } } },
        { "xchg with ECX and ESP", GUEST("xchg eax, ecx; xchg esp, [edx]; xchg esp, [edx]; xchg ecx, [edx]"),
          .before = { { R(EDX), DATA }, { DATA, 0x411800 } },
          .after = { { R(EAX), 0x21314151 }, { R(ECX), 0x411800 }, { DATA, 0x10203040 } } },
        { "xadd", GUEST("lock xadd [edx], ecx; test esp, esp"),
          .before = { { R(EDX), DATA }, { R(ECX), 5 }, { DATA, 7 }, { R_FLAGS, 0 } },
          .after = { { R(ECX), 7 }, { DATA, 12 }, { R_FLAGS, EFL_PF } } },
        { "cmpxchg with a high byte", GUEST("mov al, 5; cmpxchg [edx], ch"),
          .before = { { R(EDX), DATA }, { R(ECX), 0x900 }, { DATA, 0x11111105 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x10203005 }, { DATA, 0x11111109 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "bswap, cwde, cdq, movsx", GUEST("bswap ecx; bswap esp; bswap esp; cwde; cdq; movsx ebp, cx"),
          .before = { { R(EAX), 0x8000 }, { R(ECX), 0x11228090 } },
          .after = { { R(EAX), 0xffff8000 },
                     { R(EDX), 0xffffffff },
                     { R(ECX), 0x90802211 },
                     { R(EBP), 0x2211 } } },
        { "mul and div", GUEST("mul ecx; div ecx; imul esp, ecx, 0; mov esp, 0x411000; cmp al, al"),
          .before = { { R(EAX), 0x12345678 }, { R(ECX), 0x9abcdef0 }, { R_FLAGS, 0 } },
          .after = { { R(EDX), 0 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void single_string_instructions(void **state)
{
    const struct run_case cases[] = {
        { "movs up", GUEST("movsb; movsw; movsd"),
          .before = { { R(ESI), DATA },
                      { R(EDI), DATA + 0x100 },
                      { DATA, 0x44332211 },
                      { DATA + 4, 0x88776655 } },
          .after = { { R(ESI), DATA + 7 },
                     { R(EDI), DATA + 0x107 },
                     { DATA + 0x100, 0x44332211 },
                     { DATA + 0x103, 0x77665544 } } },
        { "movs down", GUEST("std; movsd; movsw; cld"),
          .before = { { R(ESI), DATA + 4 },
                      { R(EDI), DATA + 0x104 },
                      { DATA, 0x44332211 },
                      { DATA + 4, 0x88776655 },
                      { R_FLAGS, EFL_ZF },
                      { DATA + 0x100, 0 } },
          .after = { { R(ESI), DATA - 2 },
                     { R(EDI), DATA + 0xfe },
                     { DATA + 0x104, 0x88776655 },
                     { DATA + 0x100, 0x2211 },
                     { R_FLAGS, EFL_ZF } } },
        { "movs over itself", GUEST("movsd"),
          .before = { { R(ESI), DATA },
                      { R(EDI), DATA + 2 },
                      { DATA, 0x44332211 },
                      { DATA + 4, 0x88776655 } },
          .after = { { R(ESI), DATA + 4 }, { R(EDI), DATA + 6 }, { DATA + 2, 0x44332211 } } },
        { "stos", GUEST("stosb; stosw; std; stosd; cld"),
          .before = { { R(EAX), 0x44332211 },
                      { R(EDI), DATA },
                      { DATA, 0 },
                      { DATA + 4, 0 },
                      { R_FLAGS, EFL_CF } },
          .after = { { R(EDI), DATA - 1 },
                     { DATA, 0x00221111 },
                     { DATA + 3, 0x44332211 },
                     { R_FLAGS, EFL_CF } } },
        { "lods", GUEST("lodsb; mov ecx, eax; lodsw; mov edx, eax; lodsd"),
          .before = { { R(ESI), DATA }, { DATA, 0x44332211 }, { DATA + 4, 0x88776655 } },
          .after = { { R(ESI), DATA + 7 },
                     { R(EAX), 0x77665544 },
                     { R(ECX), 0x10203011 },
                     { R(EDX), 0x10203322 } } },
        { "lods by FS", GUEST("fs lodsd"), .fs = SEL_BASED,
          .before = { { R(ESI), 4 }, { DATA + 4, 0x88776655 } },
          .after = { { R(ESI), 8 }, { R(EAX), 0x88776655 } } },
        { "cmps", GUEST("cmpsd"),
          .before = { { R(ESI), DATA }, { R(EDI), DATA + 8 }, { DATA, 5 }, { DATA + 8, 7 }, { R_FLAGS, 0 } },
          .after = { { R(ESI), DATA + 4 }, { R(EDI), DATA + 12 }, { R_FLAGS, EFL_CF | EFL_SF | EFL_AF } } },
        { "scas down", GUEST("scasb"),
          .before = { { R(EDI), DATA }, { R(EAX), 5 }, { DATA, 5 }, { R_FLAGS, EFL_DF } },
          .after = { { R(EDI), DATA - 1 }, { R_FLAGS, EFL_DF | EFL_ZF | EFL_PF } } },
        { "16-bit addresses", GUEST(".byte 0x67; lodsb"), .ds = SEL_BASED,
          .before = { { R(ESI), 0x7777ffff }, { R(EDI), 0x88880000 } }, .vector = EXC_PF, .error = PF_US,
          .cr2 = DATA + 0xffff },
        { "16-bit addresses wrap", GUEST("std; .byte 0x67; lodsd; cld"), .ds = SEL_BASED,
          .before = { { R(ESI), 0x77770000 }, { DATA, 0x1234 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x1234 }, { R(ESI), 0x7777fffc } } },
        { "repeated", GUEST("mov ecx, 5; rep movsd; mov ecx, 3; std; rep stosb; cld; mov ecx, 0; rep stosd"),
          .before = { { R(ESI), DATA },
                      { R(EDI), DATA + 4 },
                      { DATA, 0x44332211 },
                      { DATA + 24, 0 },
                      { R(EAX), 0x99 },
                      { R_FLAGS, 0 } },
          .after = { { R(ECX), 0 },
                     { R(ESI), DATA + 20 },
                     { R(EDI), DATA + 21 },
                     { DATA + 4, 0x44332211 },
                     { DATA + 8, 0x44332211 },
                     { DATA + 12, 0x44332211 },
                     { DATA + 16, 0x44332211 },
                     { DATA + 20, 0x99992211 },
                     { DATA + 24, 0x99 } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void moves_under_a_mask(void **state)
{
    const struct run_case cases[] = {
        { "maskmovq", GUEST("movq mm0, [eax]; movq mm1, [eax + 8]; maskmovq mm0, mm1; emms"),
          .before = { { R(EAX), DATA },
                      { R(EDI), DATA + 0x20 },
                      { DATA, 0x44332211 },
                      { DATA + 4, 0x88776655 },
                      { DATA + 8, 0x80008000 },
                      { DATA + 12, 0xff7f0080 },
                      { DATA + 0x20, 0 },
                      { DATA + 0x24, 0 } },
          .after = { { DATA + 0x20, 0x44002200 }, { DATA + 0x24, 0x88000055 } } },
        { "maskmovdqu", GUEST("movdqu xmm0, [eax]; movdqu xmm1, [eax]; maskmovdqu xmm0, xmm1"),
          .before = { { R(EAX), DATA + 1 },
                      { R(EDI), DATA + 0x23 },
                      { DATA, 0x80ff7f00 },
                      { DATA + 4, 0 },
                      { DATA + 8, 0 },
                      { DATA + 12, 0 },
                      { DATA + 16, 0x81 },
                      { DATA + 0x23, 0 },
                      { DATA + 0x32, 0 } },
          .after = { { DATA + 0x23, 0x0080ff00 }, { DATA + 0x32, 0x81 } } },
        { "maskmovq where nothing is mapped", GUEST("pxor mm1, mm1; maskmovq mm0, mm1"),
          .before = { { R(EDI), DATA - 4 } }, .vector = EXC_PF, .error = PF_WR | PF_US, .cr2 = DATA - 4,
          .eip = 3 },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- calls and jumps
 * --------------------------------------------------------------------------------------------- */

static void calls_and_returns(void **state)
{
    const struct run_case cases[] = {
        { "call and ret", GUEST("call 1f; jmp 2f; 1: lea eax, [eax + 1]; ret; 2:"),
          .before = { { R(EAX), 0 } }, .after = { { R(EAX), 1 }, { ESP0 - 4, CODE + 5 } } },
        { "ret n", GUEST("push 1; push 2; call 1f; jmp 2f; 1: ret 8; 2:"),
          .after = { { ESP0 - 4, 1 }, { ESP0 - 8, 2 }, { ESP0 - 12, CODE + 9 } } },
        { "call register, call memory",
          GUEST("mov eax, " STR(CODE) " + 13; call eax; call [edx]; jmp 2f; nop; nop;"
                                      "1: lea ecx, [ecx + 1]; ret; 2:"),
          .before = { { R(EDX), DATA }, { R(ECX), 0 }, { DATA, CODE + 13 } },
          .after = { { R(EAX), CODE + 13 }, { R(ECX), 2 }, { ESP0 - 4, CODE + 9 } } },
        { "call by ESP reads before it pushes",
          GUEST("push " STR(CODE) " + 13; call [esp]; jmp 2f; nop; nop; nop;"
                                  "lea ecx, [ecx + 1]; ret; 2: pop eax"),
          .before = { { R(ECX), 0 } },
          .after = { { R(ECX), 1 },
                     { R(EAX), CODE + 13 },
                     { ESP0 - 4, CODE + 13 },
                     { ESP0 - 8, CODE + 8 } } },
        { "call by the register it moves", GUEST("call esp"),
          .before = { { R(ESP), DATA + 0x100 }, { DATA + 0x100, 0x0b0f } },
          .after = { { R(ESP), DATA + 0xfc }, { DATA + 0xfc, CODE + 2 } }, .vector = EXC_UD,
          .eip = DATA + 0x100 - CODE },
        { "jump by register and memory",
          GUEST("mov eax, " STR(CODE) " + 9; jmp eax; ud2; jmp [edx]; ud2; 1:"),
          .before = { { R(EDX), DATA }, { DATA, CODE + 13 } }, .after = { { R(EAX), CODE + 9 } } },
        { "return to somewhere else", GUEST("push " STR(CODE) " + 8; ret; ud2; nop; nop; 1:"),
          .after = { { ESP0 - 4, CODE + 8 } } },
        { "callee that replaces its return address",
          GUEST("call 1f; ud2; 1: mov dword ptr [esp], " STR(CODE) " + 16; ret; nop; 2:"),
          .after = { { ESP0 - 4, CODE + 16 } } },
        { "callee that drops its return address", GUEST("call 1f; ud2; 1: add esp, 4; cmp eax, eax"),
          .before = { { R_FLAGS, 0 } }, .after = { { ESP0 - 4, CODE + 5 }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "get the own address", GUEST("call 1f; 1: pop eax"),
          .after = { { R(EAX), CODE + 5 }, { ESP0 - 4, CODE + 5 } } },
        { "retpoline",
          GUEST("mov eax, " STR(CODE) " + 26; call 1f; 2: pause; lfence; jmp 2b; nop; nop; "
                                      "1: mov [esp], eax; ret; nop; nop; nop; 3: lea ecx, [ecx + 1]"),
          .before = { { R(ECX), 0 } },
          .after = { { R(EAX), CODE + 26 }, { R(ECX), 1 }, { ESP0 - 4, CODE + 26 } } },
        { "flags pass through", GUEST("stc; call 1f; jmp 2f; 1: ret; 2: call 1b; setc al"),
          .before = { { R_FLAGS, EFL_ZF | EFL_OF } },
          .after = { { R(EAX), 0x10203001 },
                     { ESP0 - 4, CODE + 14 },
                     { R_FLAGS, EFL_ZF | EFL_OF | EFL_CF } } },
        { "calls of 16 bits", GUEST(".byte 0x66, 0x6a, 0; .byte 0x66, 0xe8, 0, 0"),
          .after = { { R(ESP), ESP0 - 4 }, { ESP0 - 4, 7 } }, .vector = EXC_PF, .error = PF_US, .cr2 = 7,
          .eip = (uint32_t)(7 - CODE) },
        { "return of 16 bits", GUEST(".byte 0x66; ret"), .before = { { ESP0, 0x55550123 } },
          .after = { { R(ESP), ESP0 + 2 } }, .vector = EXC_PF, .error = PF_US, .cr2 = 0x123,
          .eip = (uint32_t)(0x123 - CODE) },
    };

    (void)state;
    RUN_TABLE(cases);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(push_and_pop_of_every_register_and_size),
        cmocka_unit_test(every_pair_of_byte_registers),
        cmocka_unit_test(byte_register_with_memory),
        cmocka_unit_test(movzx_movsx_of_every_byte_register),
        cmocka_unit_test(byte_register_with_immediates_and_setcc),
        cmocka_unit_test(shifts_by_cl_of_every_register_and_of_memory),
        cmocka_unit_test(other_forms_with_cl),
        cmocka_unit_test(bit_strings),
        cmocka_unit_test(addresses),
        cmocka_unit_test(counting_branches),
        cmocka_unit_test(flag_instructions),
        cmocka_unit_test(exchanges),
        cmocka_unit_test(single_string_instructions),
        cmocka_unit_test(moves_under_a_mask),
        cmocka_unit_test(calls_and_returns),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
