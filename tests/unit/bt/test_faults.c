/*
 * Precise faults: an instruction whose second access can't be made has not made the first
 * one's changes either. And segments: limits, types, bases, null selectors, 16-bit stacks and
 * code, for each way a lowering reaches memory.
 */
#include <string.h>

#include "tests/unit/bt/run_fixture.h"

#define ESP0             STACK_START
#define STACK_END        (STACK + STACK_PAGES * 0x1000)
#define DATA_END         (DATA + DATA_PAGES * 0x1000)
#define RUN_TABLE(cases) run_table(cases, ARRAY_LEN(cases))

#define NO_READ(va)  .vector = EXC_PF, .error = PF_US, .cr2 = (va)
#define NO_WRITE(va) .vector = EXC_PF, .error = PF_US | PF_WR, .cr2 = (va)
#define GP0          .vector = EXC_GP
#define SS0          .vector = EXC_SS

static void nothing_changes_when_one_of_two_accesses_faults(void **state)
{
    const struct run_case cases[] = {
        { "push", GUEST("push eax"), .before = { { R(ESP), STACK } }, NO_WRITE(STACK - 4) },
        { "push immediate", GUEST("push 5"), .before = { { R(ESP), STACK } }, NO_WRITE(STACK - 4) },
        { "push memory, no stack", GUEST("push dword ptr [ebx]"),
          .before = { { R(EBX), DATA }, { R(ESP), STACK } }, NO_WRITE(STACK - 4) },
        { "push memory, no memory", GUEST("push dword ptr [ebx]"), .before = { { R(EBX), DATA - 4 } },
          NO_READ(DATA - 4) },
        { "pop, no stack", GUEST("pop eax"), .before = { { R(ESP), STACK_END } }, NO_READ(STACK_END) },
        { "pop to memory, no stack", GUEST("pop dword ptr [ebx]"),
          .before = { { R(EBX), DATA }, { R(ESP), STACK_END } }, NO_READ(STACK_END) },
        { "pop to memory, no memory", GUEST("pop dword ptr [ebx]"), .before = { { R(EBX), DATA_END } },
          NO_WRITE(DATA_END) },
        { "pop to memory by ESP, no memory", GUEST("pop dword ptr [esp]"),
          .before = { { R(ESP), STACK_END - 4 } }, NO_WRITE(STACK_END) },
        { "leave", GUEST("leave"), .before = { { R(EBP), STACK_END } }, NO_READ(STACK_END) },
        { "call, no stack", GUEST("call 1f; 1:"), .before = { { R(ESP), STACK } }, NO_WRITE(STACK - 4) },
        { "call register, no stack", GUEST("call eax"), .before = { { R(ESP), STACK } },
          NO_WRITE(STACK - 4) },
        { "call memory, no stack", GUEST("call [ebx]"), .before = { { R(EBX), DATA }, { R(ESP), STACK } },
          NO_WRITE(STACK - 4) },
        { "call memory, no memory", GUEST("call [ebx]"), .before = { { R(EBX), DATA_END } },
          NO_READ(DATA_END) },
        { "jump memory, no memory", GUEST("jmp [ebx]"), .before = { { R(EBX), DATA_END } },
          NO_READ(DATA_END) },
        { "ret, no stack", GUEST("ret 12"), .before = { { R(ESP), STACK_END } }, NO_READ(STACK_END) },
        { "movs, no source", GUEST("movsd"), .before = { { R(ESI), DATA_END }, { R(EDI), DATA } },
          NO_READ(DATA_END) },
        { "movs, no destination", GUEST("movsd"), .before = { { R(ESI), DATA }, { R(EDI), DATA_END } },
          NO_WRITE(DATA_END) },
        { "cmps, no second", GUEST("cmpsb"), .before = { { R(ESI), DATA }, { R(EDI), DATA_END } },
          NO_READ(DATA_END) },
        { "stos", GUEST("stosw"), .before = { { R(EDI), DATA_END } }, NO_WRITE(DATA_END) },
        { "lods", GUEST("lodsb"), .before = { { R(ESI), DATA_END } }, NO_READ(DATA_END) },
        { "scas", GUEST("scasb"), .before = { { R(EDI), DATA_END } }, NO_READ(DATA_END) },
        { "xlat", GUEST("xlat"), .before = { { R(EBX), DATA_END - 1 }, { R(EAX), 1 } }, NO_READ(DATA_END) },
        { "cmpxchg8b", GUEST("cmpxchg8b [ebx]"), .before = { { R(EBX), DATA_END } }, NO_WRITE(DATA_END) },
        { "xchg", GUEST("xchg [ebx], ecx"), .before = { { R(EBX), DATA_END } }, NO_WRITE(DATA_END) },
        { "xadd", GUEST("xadd [ebx], esp"), .before = { { R(EBX), DATA_END } }, NO_WRITE(DATA_END) },
        { "high byte", GUEST("mov [ebx], ch"), .before = { { R(EBX), DATA_END } }, NO_WRITE(DATA_END) },
        { "high byte from memory", GUEST("mov ch, [ebx]"), .before = { { R(EBX), DATA_END } },
          NO_READ(DATA_END) },
        { "exchange of a high byte", GUEST("xchg [ecx], ch"), .before = { { R(ECX), DATA_END } },
          NO_WRITE(DATA_END) },
        { "shift by cl", GUEST("shl dword ptr [ebx], cl"), .before = { { R(EBX), DATA_END } },
          NO_WRITE(DATA_END) },
        { "bit string", GUEST("bts [ebx], eax"),
          .before = { { R(EBX), DATA }, { R(EAX), DATA_PAGES * 0x8000 } }, NO_WRITE(DATA_END) },
        { "maskmovq", GUEST("maskmovq mm0, mm0"), .before = { { R(EDI), DATA_END } }, NO_WRITE(DATA_END) },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void access_across_a_page_writes_all_or_nothing(void **state)
{
    const struct run_case cases[] = {
        { "store", GUEST("mov [ebx], eax"), .before = { { R(EBX), DATA_END - 2 } }, NO_WRITE(DATA_END) },
        { "store from below", GUEST("mov [ebx], eax"), .before = { { R(EBX), DATA - 2 } },
          NO_WRITE(DATA - 2) },
        { "read and write", GUEST("add [ebx], eax"), .before = { { R(EBX), DATA_END - 1 } },
          NO_WRITE(DATA_END) },
        { "push", GUEST("push eax"), .before = { { R(ESP), STACK + 2 } }, NO_WRITE(STACK - 2) },
        { "sixteen bytes", GUEST("movups [ebx], xmm0"), .before = { { R(EBX), DATA_END - 15 } },
          NO_WRITE(DATA_END) },
        { "between two pages that are there",
          GUEST("mov [ebx], eax; add [ebx], eax; mov ecx, [ebx]; sub edx, edx"),
          .before = { { R(EBX), DATA + 0xffd }, { R(EAX), 0x11223344 }, { R_FLAGS, 0 } },
          .after = { { DATA + 0xffd, 0x22446688 },
                     { R(ECX), 0x22446688 },
                     { R(EDX), 0 },
                     { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "push and pop between two pages",
          GUEST("push eax; push ecx; pop edx; pop ebx; call 1f; 1: pop esi"),
          .before = { { R(ESP), STACK + 0x1006 } },
          .after = { { R(EDX), 0x21314151 },
                     { R(EBX), 0x10203040 },
                     { R(ESI), CODE + 9 },
                     { STACK + 0x1002, CODE + 9 },
                     { STACK + 0xffe, 0x21314151 } } },
        { "around 4 GiB", GUEST("mov eax, [ebx]"), .before = { { R(EBX), 0xfffffffe } },
          NO_READ(0xfffffffe) },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void state_at_a_fault_is_that_of_the_instruction(void **state)
{
    const struct run_case cases[] = {
        { "what came before is done", GUEST("inc eax; stc; mov ecx, [ebx]; inc eax"),
          .before = { { R(EBX), DATA_END }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x10203041 }, { R_FLAGS, EFL_CF | EFL_PF } }, NO_READ(DATA_END), .eip = 2 },
        { "flags of a comparison", GUEST("cmp eax, eax; mov [ebx], eax"),
          .before = { { R(EBX), DATA_END }, { R_FLAGS, EFL_CF } }, .after = { { R_FLAGS, EFL_ZF | EFL_PF } },
          NO_WRITE(DATA_END), .eip = 2 },
        { "division by zero", GUEST("inc edi; div ecx"), .before = { { R(ECX), 0 }, { R_FLAGS, 0 } },
          .after = { { R(EDI), 0x8797a7b8 }, { R_FLAGS, EFL_SF | EFL_PF } }, .vector = VECTOR_DE, .eip = 1 },
        { "division by zero by memory", GUEST("cmp esi, edi; div word ptr [ebx]"),
          .before = { { R(EBX), DATA }, { DATA, 0x10000 }, { R(ESI), 1 }, { R(EDI), 2 } },
          .after = { { R_FLAGS, EFL_CF | EFL_AF | EFL_SF | EFL_PF } }, .vector = VECTOR_DE, .eip = 2 },
        { "of a byte by zero", GUEST("idiv cl"), .before = { { R(ECX), 0xffffff00 }, { R_FLAGS, EFL_OF | EFL_ZF } },
          .after = { { R_FLAGS, EFL_OF | EFL_ZF } }, .vector = VECTOR_DE },
        { "by a high byte of zero", GUEST("div bh"), .before = { { R(EBX), 0xffff00ff } }, .vector = VECTOR_DE },
        { "of bytes and words", GUEST("div cl; cbw; idiv byte ptr [ebx]; cbw; cwd; idiv word ptr [ebx + 4]; cmp al, al"),
          .before = { { R(EAX), 0x1234 }, { R(ECX), 0xffffff80 }, { R(EBX), DATA }, { DATA, 0xfffffff9 },
                      { DATA + 4, 0xffff0003 } },
          .after = { { R(EAX), 0xffff }, { R(EDX), 0x3242fffe }, { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "division overflow by memory", GUEST("div dword ptr [ebx]"),
          .before = { { R(EBX), DATA }, { R(EDX), 1 }, { DATA, 1 } }, .vector = VECTOR_DE },
        { "aam 0", GUEST(".byte 0xd4, 0"), .vector = VECTOR_DE },
        { "ud2 in the middle", GUEST("inc eax; ud2; inc eax"), .before = { { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x10203041 }, { R_FLAGS, EFL_PF } }, .vector = EXC_UD, .eip = 1 },
        { "lock where none may be", GUEST(".byte 0xf0; inc eax"), .vector = EXC_UD },
        { "privileged", GUEST("nop; hlt"), .vector = EXC_GP, .eip = 1 },
        { "int3 is behind itself", GUEST("int3"), .vector = EXC_BP, .eip = 1 },
        { "direction stays down", GUEST("std; lodsb"), .before = { { R(ESI), DATA_END }, { R_FLAGS, 0 } },
          .after = { { R_FLAGS, EFL_DF } }, NO_READ(DATA_END), .eip = 1 },
        { "jump to where nothing is", GUEST("jmp eax"), .before = { { R(EAX), DATA_END } }, NO_READ(DATA_END),
          .eip = DATA_END - CODE },
        { "return to where nothing is", GUEST("push " STR(0x504000) "; ret"),
          .after = { { ESP0 - 4, DATA_END } }, NO_READ(DATA_END), .eip = DATA_END - CODE },
        { "in a called function", GUEST("call 1f; nop; 1: mov eax, [ebx]"),
          .before = { { R(EBX), DATA_END } }, .after = { { R(ESP), ESP0 - 4 }, { ESP0 - 4, CODE + 5 } },
          NO_READ(DATA_END), .eip = 6 },
        { "in the tenth round of a loop", GUEST("mov ecx, 100; 1: sub ebx, 4; mov eax, [ebx]; loop 1b"),
          .before = { { R(EBX), DATA + 40 }, { R_FLAGS, 0 }, { DATA, 77 } },
          .after = { { R(EBX), DATA - 4 }, { R(ECX), 90 }, { R(EAX), 77 }, { R_FLAGS, EFL_PF | EFL_AF } },
          NO_READ(DATA - 4), .eip = 8 },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void store_to_a_read_only_page(void **state)
{
    const struct run_case cases[] = {
        { "read, then store", GUEST("mov eax, [ebx]; mov [ebx], ecx"),
          .before = { { R(EBX), DATA + 0x3000 }, { DATA + 0x3000, 5 } }, .after = { { R(EAX), 5 } },
          .vector = EXC_PF, .error = PF_P | PF_WR | PF_US, .cr2 = DATA + 0x3000, .eip = 2 },
        { "read and write", GUEST("lock xadd [ebx], ecx"), .before = { { R(EBX), DATA + 0x3000 } },
          .vector = EXC_PF, .error = PF_P | PF_WR | PF_US, .cr2 = DATA + 0x3000 },
        { "the second page of two", GUEST("mov [ebx], ecx"), .before = { { R(EBX), DATA + 0x2ffe } },
          .vector = EXC_PF, .error = PF_P | PF_WR | PF_US, .cr2 = DATA + 0x3000 },
        { "movs", GUEST("movsd"), .before = { { R(ESI), DATA + 0x3000 }, { R(EDI), DATA + 0x3004 } },
          .vector = EXC_PF, .error = PF_P | PF_WR | PF_US, .cr2 = DATA + 0x3004 },
    };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    vm_fixture_map(fx->vm, DATA + 0x3000, PTE_P | PTE_US);
    run_cases(fx, cases, ARRAY_LEN(cases));
    run_fixture_free(fx);
}

/* ---- segments ------------------------------------------------------------------------------------ */

static void based_segments(void **state)
{
    const struct run_case cases[] = {
        { "loads and stores",
          GUEST("mov eax, fs:[4]; mov fs:[8], eax; add gs:[ecx*4], edx; mov bl, gs:[ecx]"), .fs = SEL_BASED,
          .gs = SEL_BASED,
          .before = { { R(ECX), 4 },
                      { R(EDX), 1 },
                      { R(EBX), 0 },
                      { DATA + 4, 0x11223344 },
                      { DATA + 16, 7 },
                      { R_FLAGS, 0 } },
          .after = { { R(EAX), 0x11223344 }, { DATA + 8, 0x11223344 }, { DATA + 16, 8 }, { R(EBX), 0x44 } } },
        { "offsets wrap", GUEST("mov eax, fs:[ebx]"), .fs = SEL_BASED,
          .before = { { R(EBX), (uint32_t)-0x0f0000 - 0x10 } }, NO_READ(DATA - 0x0f0010) },
        { "stack and strings", GUEST("push dword ptr fs:[4]; pop dword ptr fs:[12]; fs lodsd; fs cmpsb"),
          .fs = SEL_BASED,
          .before = { { R(ESI), 4 },
                      { R(EDI), DATA + 8 },
                      { DATA + 4, 0x55667788 },
                      { DATA + 8, 0x99 },
                      { R_FLAGS, 0 } },
          .after = { { ESP0 - 4, 0x55667788 },
                     { DATA + 12, 0x55667788 },
                     { R(EAX), 0x55667788 },
                     { R(ESI), 9 },
                     { R(EDI), DATA + 9 },
                     { R_FLAGS, EFL_ZF | EFL_PF } } },
        { "exchange, bits, xlat", GUEST("cmpxchg8b fs:[0x10]; bts fs:[0x20], ecx; fs xlat; test esp, esp"),
          .fs = SEL_BASED,
          .before = { { R(EAX), 1 },
                      { R(EDX), 2 },
                      { R(EBX), 3 },
                      { R(ECX), (uint32_t)-8 },
                      { DATA + 0x10, 1 },
                      { DATA + 0x14, 2 },
                      { DATA + 0x1c, 0 },
                      { DATA + 4, 0x42 },
                      { R_FLAGS, 0 } },
          .after = { { DATA + 0x10, 3 },
                     { DATA + 0x14, (uint32_t)-8 },
                     { DATA + 0x1c, 0x01000000 },
                     { R(EAX), 0x42 },
                     { R_FLAGS, EFL_PF } } },
        { "calls and jumps", GUEST("call fs:[4]; jmp fs:[8]; ud2; 1: ret; ud2; 2:"), .fs = SEL_BASED,
          .before = { { DATA + 4, CODE + 16 }, { DATA + 8, CODE + 19 } },
          .after = { { ESP0 - 4, CODE + 7 } } },
        { "segment register and other segments keep apart",
          GUEST("mov eax, fs:[ebx]; mov ecx, [ebx + " STR(DATA) "]"), .fs = SEL_BASED,
          .before = { { R(EBX), 0 }, { DATA, 6 } }, .after = { { R(EAX), 6 }, { R(ECX), 6 } } },
        { "null", GUEST("mov eax, fs:[4]"), GP0 },
        { "null, stored to", GUEST("mov gs:[4], al"), GP0 },
        { "null, pushed from", GUEST("push dword ptr gs:[ebx]"), .before = { { R(EBX), DATA } }, GP0 },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void segments_with_limits(void **state)
{
    const struct run_case cases[] = {
        { "at the limit",
          GUEST("mov eax, [ebx]; mov [ebx], ecx; inc byte ptr [ebx + 3]; inc dword ptr [ebx]; test esp, esp"),
          .ds = SEL_LIMITED, .before = { { R(EBX), 0xffc }, { DATA + 0xffc, 5 }, { R_FLAGS, 0 } },
          .after = { { R(EAX), 5 }, { DATA + 0xffc, 0x22314152 }, { R_FLAGS, EFL_PF } } },
        { "one byte over", GUEST("mov eax, [ebx]"), .ds = SEL_LIMITED, .before = { { R(EBX), 0xffd } }, GP0 },
        { "slow paths of accesses through GS are within reach",
          GUEST("push dword ptr gs:[4]; call dword ptr gs:[8]; jmp 2f; 1: ret; 2:"), .gs = SEL_BASED,
          .before = { { DATA + 4, 0x77 }, { DATA + 8, CODE + 16 } },
          .after = { { R(ESP), STACK_START - 4 }, { STACK_START - 4, 0x77 }, { STACK_START - 8, CODE + 14 } } },
        { "one access of code that serves FS of every kind",
          GUEST("1: mov eax, [ebx]; mov fs, eax; mov esi, [ebx + 4]; add edx, fs:[esi]; add ebx, 8; jmp 1b"),
          .before = { { R(EBX), DATA }, { R(EDX), 0 }, { DATA + 0x100, 1 }, { DATA, SEL_DATA }, { DATA + 4, DATA + 0x100 },
                      { DATA + 8, SEL_BASED }, { DATA + 12, 0x100 }, { DATA + 16, SEL_LIMITED }, { DATA + 20, 0x100 },
                      { DATA + 24, SEL_BASED }, { DATA + 28, 0x100 }, { DATA + 32, 0 }, { DATA + 36, DATA + 0x100 } },
          .after = { { R(EAX), 0 }, { R(EBX), DATA + 32 }, { R(ESI), DATA + 0x100 }, { R(EDX), 4 }, { R_FLAGS, EFL_AF } },
          GP0, .eip = 7 },
        { "far over", GUEST("mov [ebx], al"), .ds = SEL_LIMITED, .before = { { R(EBX), 0xfffffff0 } }, GP0 },
        { "sixteen bytes", GUEST("movups xmm0, [ebx]; movups [ebx + 1], xmm0"), .ds = SEL_LIMITED,
          .before = { { R(EBX), 0xff0 } }, GP0, .eip = 3 },
        { "a bit beyond", GUEST("bt [ebx], ecx"), .ds = SEL_LIMITED,
          .before = { { R(EBX), 0xff0 }, { R(ECX), 128 } }, GP0 },
        { "movs to a limited segment", GUEST("movsd"), .es = SEL_LIMITED,
          .before = { { R(ESI), DATA }, { R(EDI), 0xffd } }, GP0 },
        { "movs within it", GUEST("movsd; stosb"), .es = SEL_LIMITED,
          .before = { { R(ESI), DATA }, { R(EDI), 0xf00 }, { DATA, 0x1234 }, { R(EAX), 0x99 } },
          .after = { { R(ESI), DATA + 4 },
                     { R(EDI), 0xf05 },
                     { DATA + 0xf00, 0x1234 },
                     { DATA + 0xf01, 0x99000012 } } },
        { "expand-down, above", GUEST("mov eax, [ebx]; mov [ebx], cl"), .ds = SEL_DOWN,
          .before = { { R(EBX), 0x1000 }, { DATA + 0x1000, 5 } },
          .after = { { R(EAX), 5 }, { DATA + 0x1000, 0x51 } } },
        { "expand-down, at its limit", GUEST("mov eax, [ebx]"), .ds = SEL_DOWN,
          .before = { { R(EBX), 0xfff } }, GP0 },
        { "read-only", GUEST("mov eax, [ebx]; mov [ebx], eax"), .ds = SEL_RO,
          .before = { { R(EBX), DATA }, { DATA, 5 } }, .after = { { R(EAX), 5 } }, GP0, .eip = 2 },
        { "code is readable", GUEST("mov eax, cs:[ebx]"), .before = { { R(EBX), DATA }, { DATA, 5 } },
          .after = { { R(EAX), 5 } } },
        { "code is not writable", GUEST("mov cs:[ebx], eax"), .before = { { R(EBX), DATA } }, GP0 },
        { "code is not writable, a second access", GUEST("pop dword ptr cs:[ebx]"),
          .before = { { R(EBX), DATA } }, GP0 },
        { "the limit comes before the page", GUEST("mov eax, [ebx]"), .ds = SEL_LIMITED,
          .before = { { R(EBX), DATA_END } }, GP0 },
        { "push from a limited segment to a limited stack",
          GUEST("push dword ptr [ebx]; pop dword ptr [ebx + 4]"), .ds = SEL_LIMITED, .ss = SEL_LIMITED,
          .before = { { R(EBX), 0x100 }, { R(ESP), 0x800 }, { DATA + 0x100, 0xabcd } },
          .after = { { DATA + 0x7fc, 0xabcd }, { DATA + 0x104, 0xabcd } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

static void stacks_with_limits(void **state)
{
    const struct run_case cases[] = {
        { "push and pop", GUEST("push eax; push dword ptr [edi]; pop ecx; pop dword ptr [edi + 4]"),
          .ss = SEL_LIMITED, .before = { { R(ESP), 0x100 }, { R(EDI), DATA }, { DATA, 0x11 } },
          .after = { { R(ECX), 0x11 },
                     { DATA + 4, 0x10203040 },
                     { DATA + 0xfc, 0x10203040 },
                     { DATA + 0xf8, 0x11 } } },
        { "call and ret", GUEST("call 1f; jmp 2f; 1: lea eax, [eax + 1]; ret 4; 2: lea esp, [esp - 4]"),
          .ss = SEL_LIMITED, .before = { { R(ESP), 0x100 }, { R(EAX), 0 } },
          .after = { { R(EAX), 1 }, { DATA + 0xfc, CODE + 5 } } },
        { "call by memory", GUEST("call [edi]; jmp 2f; ud2; nop; 1: ret; ud2; 2:"), .ss = SEL_LIMITED,
          .before = { { R(ESP), 0x100 }, { R(EDI), DATA }, { DATA, CODE + 7 } },
          .after = { { DATA + 0xfc, CODE + 2 } } },
        { "push beyond", GUEST("push eax"), .ss = SEL_LIMITED, .before = { { R(ESP), 0x1004 } }, SS0 },
        { "push below 0", GUEST("push eax"), .ss = SEL_LIMITED, .before = { { R(ESP), 0 } }, SS0 },
        { "pop beyond", GUEST("pop eax"), .ss = SEL_LIMITED, .before = { { R(ESP), 0xffd } }, SS0 },
        { "call beyond", GUEST("call 1f; 1:"), .ss = SEL_LIMITED, .before = { { R(ESP), 0x1004 } }, SS0 },
        { "ret beyond", GUEST("ret"), .ss = SEL_LIMITED, .before = { { R(ESP), 0xffd } }, SS0 },
        { "leave beyond", GUEST("leave"), .ss = SEL_LIMITED, .before = { { R(EBP), 0xffd } }, SS0 },
        { "by EBP", GUEST("mov eax, [ebp]"), .ss = SEL_LIMITED, .before = { { R(EBP), 0xffd } }, SS0 },
        { "by DS and EBP", GUEST("mov eax, ds:[ebp]"), .ss = SEL_LIMITED,
          .before = { { R(EBP), DATA }, { DATA, 5 } }, .after = { { R(EAX), 5 } } },
        { "push memory, the stack's limit", GUEST("push dword ptr [edi]"), .ss = SEL_LIMITED,
          .before = { { R(ESP), 0 }, { R(EDI), DATA } }, SS0 },
        { "pop memory, the stack's limit", GUEST("pop dword ptr [edi]"), .ss = SEL_LIMITED,
          .before = { { R(ESP), 0xffe }, { R(EDI), DATA } }, SS0 },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* SP alone moves; the upper half of ESP stays. */
static void stacks_of_16_bits(void **state)
{
    const struct run_case cases[] = {
        { "push and pop", GUEST("push eax; push 7; pop ecx; pop word ptr [edi]; pop dx"), .ss = SEL_STACK16,
          .before = { { R(ESP), 0x99991000 }, { R(EDI), DATA }, { DATA, 0 } },
          .after = { { R(ECX), 7 },
                     { R(EDX), 0x32421020 },
                     { DATA, 0x3040 },
                     { ESP0 - 4, 0x10203040 },
                     { ESP0 - 8, 7 } } },
        { "call, ret n, leave", GUEST("push 1; call 1f; jmp 2f; 1: push ebp; mov ebp, esp; leave; ret 4; 2:"),
          .ss = SEL_STACK16, .before = { { R(ESP), 0x99991000 } },
          .after = { { ESP0 - 4, 1 }, { ESP0 - 8, CODE + 7 }, { ESP0 - 12, 0x65758595 } } },
        { "SP wraps to the top", GUEST("push eax"), .ss = SEL_STACK16, .before = { { R(ESP), 0x99990000 } },
          SS0 },
        { "SP at the limit", GUEST("pop eax; pop ecx"), .ss = SEL_STACK16,
          .before = { { R(ESP), 0x99991ffc }, { ESP0 + 0xffc, 3 } },
          .after = { { R(EAX), 3 }, { R(ESP), 0x99992000 } }, SS0, .eip = 1 },
        { "pop to memory by ESP", GUEST("pop dword ptr [esp + 4]"), .ss = SEL_STACK16,
          .before = { { R(ESP), 0x1000 }, { ESP0, 0xabcdef01 } },
          .after = { { R(ESP), 0x1004 }, { ESP0 + 8, 0xabcdef01 } } },
        { "by ESP, all of it", GUEST("mov eax, [esp]"), .ss = SEL_STACK16,
          .before = { { R(ESP), 0x99991000 } }, SS0 },
        { "pusha and popa", GUEST("pusha; mov eax, 0; popa"), .ss = SEL_STACK16,
          .before = { { R(ESP), 0x99991000 } },
          .after = { { ESP0 - 4, 0x10203040 },
                     { ESP0 - 8, 0x21314151 },
                     { ESP0 - 12, 0x32425262 },
                     { ESP0 - 16, 0x43536373 },
                     { ESP0 - 20, 0x99991000 },
                     { ESP0 - 24, 0x65758595 },
                     { ESP0 - 28, 0x768696a6 },
                     { ESP0 - 32, 0x8797a7b7 } } },
        { "enter", GUEST("enter 8, 0; leave"), .ss = SEL_STACK16,
          .before = { { R(ESP), 0x99991000 }, { R(EBP), 0x77771234 } },
          .after = { { ESP0 - 4, 0x77771234 } } },
        { "indirect call by memory", GUEST("call [edi]; jmp 2f; ud2; nop; 1: ret; ud2; 2:"),
          .ss = SEL_STACK16, .before = { { R(ESP), 0x99991000 }, { R(EDI), DATA }, { DATA, CODE + 7 } },
          .after = { { ESP0 - 4, CODE + 2 } } },
    };

    (void)state;
    RUN_TABLE(cases);
}

/* ---- code segments -------------------------------------------------------------------------------- */

static void run_in(struct run_fixture *fx, uint16_t cs, uint32_t eip, struct guest_code code)
{
    put_code(fx, CODE + eip, code);
    put(fx, CODE + eip + code.len, "\x0f\x0b", 2);
    for (int round = 0; round < 2; round++) {
        reset_state(fx);
        fx->cpu->gpr[EDX] = 0;
        fx->cpu->gpr[EDI] = DATA;
        vm_fixture_load_segment(fx->vm, SEG_CS, cs);
        vm_fixture_enter(fx->vm);
        run_to(fx, eip, eip + code.len);
        assert_int_equal(fx->frame.cs, cs);
    }
}

static void code_of_16_bits(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    run_in(fx, SEL_CODE16, 0x100, GUEST16("mov ax, 5; add ax, cx; push ax; pop bx; inc edx; loop 1f; 1:"));
    assert_int_equal(fx->frame.gpr[EAX], 0x10204156);
    assert_int_equal(fx->frame.gpr[EBX], 0x43534156);
    assert_int_equal(fx->frame.gpr[EDX], 1);
    assert_int_equal(fx->frame.gpr[ECX], 0x21314150);
    run_in(fx, SEL_CODE16, 0x100, GUEST16("mov cx, 5; 1: call 2f; loop 1b; jmp 3f; 2: inc dx; ret; 3:"));
    assert_int_equal(fx->frame.gpr[EDX], 5);
    run_in(fx, SEL_CODE16, 0x100,
           GUEST16("mov cx, 5; 1: mov ebx, 0x10f; call ebx; loop 1b; jmp 3f; nop; nop; inc dx; ret; 3:"));
    assert_int_equal(fx->frame.gpr[EDX], 5);
    /* a jump wraps from 0xffff to 0, running on does not */
    vm_fixture_map(fx->vm, CODE + 0xf000, PTE_P | PTE_W | PTE_US);
    put(fx, CODE, "\x42\x0f\x0b", 3);
    put(fx, CODE + 0xfffe, "\x42\x42", 2);
    reset_state(fx);
    fx->cpu->gpr[EDX] = 0;
    vm_fixture_load_segment(fx->vm, SEG_CS, SEL_CODE16);
    vm_fixture_enter(fx->vm);
    run_from(fx, 0xfffe);
    assert_int_equal(fx->frame.vector, EXC_GP);
    assert_int_equal(fx->frame.eip, 0x10000);
    assert_int_equal(fx->frame.gpr[EDX] & 0xffff, 2);
    put(fx, CODE + 0xfffc, "\x42\xe9\x00\x00", 4); /* inc dx; jmp .+3: to 10000h, which is 0 */
    reset_state(fx);
    fx->cpu->gpr[EDX] = 0;
    vm_fixture_load_segment(fx->vm, SEG_CS, SEL_CODE16);
    vm_fixture_enter(fx->vm);
    run_to(fx, 0xfffc, 1);
    assert_int_equal(fx->frame.gpr[EDX] & 0xffff, 2);
    run_fixture_free(fx);
}

static void code_segment_with_a_base(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    run_in(fx, SEL_CODEB, 0x100,
           GUEST("mov ecx, 50; 1: call 2f; dec ecx; jnz 1b; jmp 3f; 2: inc edx; ret; 3:"));
    assert_int_equal(fx->frame.gpr[EDX], 50);
    run_in(fx, SEL_CODEB, 0x100,
           GUEST("mov ecx, 50; 1: mov ebx, 0x110; call ebx; loop 1b; jmp 3f; inc edx; ret; 3:"));
    assert_int_equal(fx->frame.gpr[EDX], 50);
    run_in(fx, SEL_CODEB, 0x100, GUEST("mov eax, cs:[0x103]; push cs; pop ebx"));
    assert_int_equal(fx->frame.gpr[EBX], SEL_CODEB);
    /* across pages, and with a straddling instruction */
    run_in(fx, SEL_CODEB, 0xff0,
           GUEST("mov ecx, 20; 1: inc edx; call 2f; mov eax, 0x12345678; loop 1b; jmp 3f; 2: ret; 3:"));
    assert_int_equal(fx->frame.gpr[EDX], 20);
    assert_int_equal(fx->frame.gpr[EAX], 0x12345678);
    run_fixture_free(fx);
}

static void enter_at(struct run_fixture *fx, uint16_t cs, uint32_t eip)
{
    reset_state(fx);
    vm_fixture_load_segment(fx->vm, SEG_CS, cs);
    vm_fixture_enter(fx->vm);
    run_from(fx, eip);
}

static void code_ends_at_the_limit_of_its_segment(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put(fx, CODE + 0x3ff8, "\x90\x90\x90\xb8\x01\x02\x03\x04", 8); /* ends with the segment */
    enter_at(fx, SEL_CODEB, 0x3ff8);
    assert_int_equal(fx->frame.vector, EXC_GP);
    assert_int_equal(fx->frame.error, 0);
    assert_int_equal(fx->frame.eip, 0x4000);
    assert_int_equal(fx->frame.gpr[EAX], 0x04030201);
    put(fx, CODE + 0x3ffc, "\x90\xb8\x01\x02", 4); /* an instruction that goes on beyond it */
    enter_at(fx, SEL_CODEB, 0x3ffc);
    assert_int_equal(fx->frame.vector, EXC_GP);
    assert_int_equal(fx->frame.eip, 0x3ffd);
    run_fixture_free(fx);
}

/* A near transfer beyond the limit is #GP(0) at itself, with the count, the stack and the stack pointer
 * as they were; SDM vol. 2, CALL, JMP, Jcc, LOOP, RET. */
static void transfer_beyond_the_limit_faults_at_itself(void **state)
{
    const struct {
        const char *name;
        struct guest_code code;
        uint32_t ecx, eip; /* count before, offset of the transfer */
    } cases[] = {
        { "jmp", GUEST("nop; .byte 0xe9; .long 0x4000"), 0, 1 },
        { "jmp back", GUEST("nop; .byte 0xe9; .long -0x2000"), 0, 1 },
        { "jcc", GUEST("xor eax, eax; .byte 0x0f, 0x84; .long 0x4000"), 0, 2 },
        { "jecxz", GUEST("jecxz 771b - 0x30"), 0, 0 },
        { "loop", GUEST("loop 771b - 0x30"), 2, 0 },
        { "loope", GUEST("xor eax, eax; loope 771b - 0x30"), 2, 2 },
        { "call", GUEST("call 771b - 0x2000"), 0, 0 },
        { "jmp register", GUEST("mov edx, 0x4000; jmp edx"), 0, 5 },
        { "jmp memory", GUEST("jmp dword ptr [ebx]"), 0, 0 },
        { "call register", GUEST("mov edx, 0x4000; call edx"), 0, 5 },
        { "call memory", GUEST("call dword ptr [ebx]"), 0, 0 },
        { "ret", GUEST("push 0x4000; ret"), 0, 5 },
        { "ret n", GUEST("push 0x4000; ret 8"), 0, 5 },
    };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        bool has_no_stack = i >= ARRAY_LEN(cases); /* #GP comes before what the stack gives */
        size_t n = i % ARRAY_LEN(cases);
        uint32_t esp;

        if (has_no_stack && cases[n].code.bytes[0] == 0x68) /* PUSH needs it */
            continue;
        put_code(fx, CODE + 0x10, cases[n].code);
        put_u32(fx, DATA, 0x4000);
        reset_state(fx);
        vm_fixture_load_segment(fx->vm, SEG_CS, SEL_CODEB);
        vm_fixture_enter(fx->vm);
        esp = fx->cpu->gpr[ESP] = has_no_stack ? STACK : fx->cpu->gpr[ESP];
        fx->cpu->gpr[ECX] = cases[n].ecx;
        fx->cpu->gpr[EBX] = DATA;
        run_from(fx, 0x10);
        if (fx->frame.vector != EXC_GP || fx->frame.error != 0 || fx->frame.eip != 0x10 + cases[n].eip)
            fail_msg("%s: vector %u at 0x%x", cases[n].name, fx->frame.vector, fx->frame.eip);
        assert_int_equal(fx->frame.gpr[ECX], cases[n].ecx);
        assert_int_equal(fx->frame.gpr[ESP], cases[n].code.bytes[0] == 0x68 ? esp - 4 : esp);
    }
    /* not taken, nothing happens */
    run_in(fx, SEL_CODEB, 0x10, GUEST("or eax, 1; .byte 0x0f, 0x84; .long 0x4000; mov ecx, 1; loop 771b - 0x30; inc edx"));
    assert_int_equal(fx->frame.gpr[ECX], 0);
    run_fixture_free(fx);
}

/* Two code segments that differ in their limit alone: what was translated under the larger one
 * does not run under the smaller. */
static void limit_of_the_code_segment_belongs_to_the_translation(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const uint16_t code = DESC_P | DESC_DPL | DESC_S | DESC_ACCESSED | DESC_CODE | DESC_READ | DESC_DB;

    (void)state;
    put(fx, CODE + 0x100, "\x40\x40\x40\x40\x0f\x0b", 6);
    enter_at(fx, SEL_CODEB, 0x100);
    assert_int_equal(fx->frame.vector, EXC_UD);
    vm_fixture_gdt_set(fx->vm, SEL_CODEB >> 3, CODE, 0x101, code);
    enter_at(fx, SEL_CODEB, 0x100);
    assert_int_equal(fx->frame.vector, EXC_GP);
    assert_int_equal(fx->frame.eip, 0x102);
    assert_int_equal(fx->frame.gpr[EAX], 0x10203042);
    vm_fixture_gdt_set(fx->vm, SEL_CODEB >> 3, CODE, 0x3fff, code);
    enter_at(fx, SEL_CODEB, 0x100);
    assert_int_equal(fx->frame.vector, EXC_UD);
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_changes_when_one_of_two_accesses_faults),
        cmocka_unit_test(access_across_a_page_writes_all_or_nothing),
        cmocka_unit_test(state_at_a_fault_is_that_of_the_instruction),
        cmocka_unit_test(store_to_a_read_only_page),
        cmocka_unit_test(based_segments),
        cmocka_unit_test(segments_with_limits),
        cmocka_unit_test(stacks_with_limits),
        cmocka_unit_test(stacks_of_16_bits),
        cmocka_unit_test(code_of_16_bits),
        cmocka_unit_test(code_segment_with_a_base),
        cmocka_unit_test(code_ends_at_the_limit_of_its_segment),
        cmocka_unit_test(transfer_beyond_the_limit_faults_at_itself),
        cmocka_unit_test(limit_of_the_code_segment_belongs_to_the_translation),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
