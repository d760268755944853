/*
 * Device memory: an instruction reads the device before it if it reads memory, writes it after
 * if it writes, once each, at its own width; and what it does to registers and flags is what it
 * does to them with memory.
 */
#include <string.h>

#include "bt/bt.h"
#include "tests/unit/bt/run_fixture.h"

#define MAX_EXPECTED 4
#define VALUE        0x44332211u /* what the device reads as, byte by byte */

#define READ(ofs, size, value)                                                                               \
    {                                                                                                        \
        false, ofs, size, value                                                                              \
    }
#define WRITE(ofs, size, value)                                                                              \
    {                                                                                                        \
        true, ofs, size, value                                                                               \
    }

struct device_case {
    const char *name;
    struct guest_code code;
    struct item before[4], after[4]; /* registers, flags, memory; what is not named is not looked at */
    struct device_access access[MAX_EXPECTED];
    unsigned naccess;
    uint32_t vector, cr2, eip; /* as in struct run_case */
};

static void check_items(struct run_fixture *fx, const struct device_case *c)
{
    for (unsigned i = 0; i < ARRAY_LEN(c->after) && c->after[i].where; i++) {
        const struct item *it = &c->after[i];
        uint32_t now = it->where <= R(EDI)    ? fx->frame.gpr[it->where - 1]
                       : it->where == R_FLAGS ? fx->frame.eflags & EFL_ARITH
                                              : get_u32(fx, it->where);
        if (now != it->value)
            fail_msg("%s: item %u is 0x%x, expected 0x%x", c->name, i, now, it->value);
    }
}

static void check_accesses(struct run_fixture *fx, const struct device_case *c)
{
    if (fx->ndevice != c->naccess)
        fail_msg("%s: %u device accesses, expected %u", c->name, fx->ndevice, c->naccess);
    for (unsigned i = 0; i < c->naccess; i++) {
        const struct device_access *a = &fx->device[i], *x = &c->access[i];
        if (a->is_write != x->is_write || a->ofs != x->ofs || a->size != x->size || a->value != x->value)
            fail_msg("%s: access %u: %s of %u bytes at 0x%x, value 0x%x", c->name, i,
                     a->is_write ? "write" : "read", a->size, a->ofs, a->value);
    }
}

static void run_device_case(struct run_fixture *fx, const struct device_case *c)
{
    struct vcpu *cpu = fx->cpu;

    reset_state(fx);
    cpu->gpr[EBX] = DEVICE;
    cpu->gpr[EAX] = 0xa1a2a3a4;
    for (unsigned i = 0; i < ARRAY_LEN(c->before) && c->before[i].where; i++) {
        if (c->before[i].where <= R(EDI))
            cpu->gpr[c->before[i].where - 1] = c->before[i].value;
        else if (c->before[i].where == R_FLAGS)
            vcpu_eflags_set(cpu, c->before[i].value | EFL_ONE | EFL_IF);
        else
            put_u32(fx, c->before[i].where, c->before[i].value);
    }
    put_code(fx, CODE, c->code);
    put(fx, CODE + c->code.len, "\x0f\x0b", 2);
    run_from(fx, CODE);
    uint32_t vector = c->vector == VECTOR_DE ? EXC_DE : c->vector ? c->vector : EXC_UD;
    uint32_t eip = CODE + (c->vector ? c->eip : c->code.len);
    if (fx->frame.vector != vector || fx->frame.eip != eip || (vector == EXC_PF && cpu->cr2 != c->cr2))
        fail_msg("%s: vector %u at +0x%x, CR2 0x%x", c->name, fx->frame.vector, fx->frame.eip - CODE,
                 cpu->cr2);
    check_accesses(fx, c);
    check_items(fx, c);
}

static void run_device_cases(const struct device_case *cases, size_t count)
{
    struct run_fixture *fx = run_fixture_new();

    map_alias(fx, DEVICE + 0x1000, DATA + 0x3000, PTE_P | PTE_W | PTE_US); /* RAM behind the device */
    for (size_t i = 0; i < count; i++)
        for (int round = 0; round < 2; round++)
            run_device_case(fx, &cases[i]);
    run_fixture_free(fx);
}

static void loads_and_stores_of_every_width(void **state)
{
    const struct device_case cases[] = {
        { "load 8", GUEST("mov cl, [ebx + 2]"), .before = { { R(ECX), 0 } }, .after = { { R(ECX), 0x33 } },
          .access = { READ(2, 1, 0x33) }, .naccess = 1 },
        { "load 16", GUEST("mov cx, [ebx + 4]"), .before = { { R(ECX), 0 } }, .after = { { R(ECX), 0x2211 } },
          .access = { READ(4, 2, 0x2211) }, .naccess = 1 },
        { "load 32", GUEST("mov ecx, [ebx + 8]"), .after = { { R(ECX), VALUE } },
          .access = { READ(8, 4, VALUE) }, .naccess = 1 },
        { "load into ESP", GUEST("mov esp, [ebx]"), .after = { { R(ESP), VALUE } },
          .access = { READ(0, 4, VALUE) }, .naccess = 1 },
        { "load into the address register", GUEST("mov ebx, [ebx]"), .after = { { R(EBX), VALUE } },
          .access = { READ(0, 4, VALUE) }, .naccess = 1 },
        { "load into a high byte", GUEST("mov ch, [ebx]"), .before = { { R(ECX), 0 } },
          .after = { { R(ECX), 0x1100 } }, .access = { READ(0, 1, 0x11) }, .naccess = 1 },
        { "movzx", GUEST("movzx ecx, byte ptr [ebx + 3]"), .after = { { R(ECX), 0x44 } },
          .access = { READ(3, 1, 0x44) }, .naccess = 1 },
        { "store 8", GUEST("mov [ebx + 1], al"), .access = { WRITE(1, 1, 0xa4) }, .naccess = 1 },
        { "store 8 of a high byte", GUEST("mov [ebx], ah"), .access = { WRITE(0, 1, 0xa3) }, .naccess = 1 },
        { "store 8 of CH", GUEST("mov [ebx], ch"), .before = { { R(ECX), 0x7766 } },
          .after = { { R(ECX), 0x7766 }, { R(EBX), DEVICE } }, .access = { WRITE(0, 1, 0x77) },
          .naccess = 1 },
        { "store 16", GUEST("mov [ebx + 2], ax"), .access = { WRITE(2, 2, 0xa3a4) }, .naccess = 1 },
        { "store 32", GUEST("mov [ebx + 4], eax"), .access = { WRITE(4, 4, 0xa1a2a3a4) }, .naccess = 1 },
        { "store an immediate", GUEST("mov dword ptr [ebx + 4], 0x12345678"),
          .access = { WRITE(4, 4, 0x12345678) }, .naccess = 1 },
        { "offset in the instruction",
          GUEST("mov eax, ds:[" STR(DEVICE) "]; mov ds:[" STR(DEVICE) " + 4], al"),
          .after = { { R(EAX), VALUE } }, .access = { READ(0, 4, VALUE), WRITE(4, 1, 0x11) }, .naccess = 2 },
        { "setcc", GUEST("stc; setc [ebx]"), .access = { WRITE(0, 1, 1) }, .naccess = 1 },
        { "compare", GUEST("cmp [ebx], eax"), .before = { { R(EAX), VALUE } },
          .after = { { R_FLAGS, EFL_ZF | EFL_PF } }, .access = { READ(0, 4, VALUE) }, .naccess = 1 },
        { "test", GUEST("test byte ptr [ebx], 1"), .after = { { R_FLAGS, 0 } },
          .access = { READ(0, 1, 0x11) }, .naccess = 1 },
        { "nothing for a prefetch", GUEST("prefetcht0 [ebx]; lea ecx, [ebx]; nop"), .naccess = 0 },
    };

    (void)state;
    run_device_cases(cases, ARRAY_LEN(cases));
}

static void read_modify_write_is_one_read_and_one_write(void **state)
{
    const struct device_case cases[] = {
        { "add", GUEST("add [ebx], ecx"), .before = { { R(ECX), 1 }, { R_FLAGS, 0 } },
          .after = { { R_FLAGS, EFL_PF } }, .access = { READ(0, 4, VALUE), WRITE(0, 4, VALUE + 1) },
          .naccess = 2 },
        { "adc uses CF", GUEST("adc word ptr [ebx], 0"), .before = { { R_FLAGS, EFL_CF } },
          .access = { READ(0, 2, 0x2211), WRITE(0, 2, 0x2212) }, .naccess = 2 },
        { "locked inc", GUEST("lock inc byte ptr [ebx]"), .access = { READ(0, 1, 0x11), WRITE(0, 1, 0x12) },
          .naccess = 2 },
        { "not", GUEST("not dword ptr [ebx]"), .access = { READ(0, 4, VALUE), WRITE(0, 4, ~VALUE) },
          .naccess = 2 },
        { "xchg", GUEST("xchg [ebx], eax"), .after = { { R(EAX), VALUE } },
          .access = { READ(0, 4, VALUE), WRITE(0, 4, 0xa1a2a3a4) }, .naccess = 2 },
        { "xchg of CH", GUEST("xchg [ebx], ch"), .before = { { R(ECX), 0x7700 } },
          .after = { { R(ECX), 0x1100 } }, .access = { READ(0, 1, 0x11), WRITE(0, 1, 0x77) }, .naccess = 2 },
        { "xadd", GUEST("xadd [ebx], ecx"), .before = { { R(ECX), 2 } }, .after = { { R(ECX), VALUE } },
          .access = { READ(0, 4, VALUE), WRITE(0, 4, VALUE + 2) }, .naccess = 2 },
        { "cmpxchg, equal", GUEST("cmpxchg [ebx], ecx"), .before = { { R(EAX), VALUE }, { R(ECX), 9 } },
          .after = { { R_FLAGS, EFL_ZF | EFL_PF } }, .access = { READ(0, 4, VALUE), WRITE(0, 4, 9) },
          .naccess = 2 },
        { "cmpxchg, different: the old value is written back", GUEST("cmpxchg [ebx], ecx"),
          .before = { { R(EAX), 0 } }, .after = { { R(EAX), VALUE } },
          .access = { READ(0, 4, VALUE), WRITE(0, 4, VALUE) }, .naccess = 2 },
        { "shift by cl", GUEST("shl dword ptr [ebx], cl"), .before = { { R(ECX), 4 } },
          .access = { READ(0, 4, VALUE), WRITE(0, 4, 0x43322110) }, .naccess = 2 },
        { "bit string", GUEST("btc [ebx], ecx"), .before = { { R(ECX), 33 }, { R_FLAGS, EFL_CF } },
          .after = { { R_FLAGS, 0 } }, .access = { READ(4, 4, VALUE), WRITE(4, 4, VALUE ^ 2) },
          .naccess = 2 },
        { "bt reads only", GUEST("bt [ebx], ecx"), .before = { { R(ECX), 4 }, { R_FLAGS, 0 } },
          .after = { { R_FLAGS, EFL_CF } }, .access = { READ(0, 4, VALUE) }, .naccess = 1 },
        { "cmpxchg8b", GUEST("cmpxchg8b [ebx + 8]"),
          .before = { { R(EAX), VALUE }, { R(EDX), VALUE }, { R(ECX), 7 } },
          .access = { READ(8, 4, VALUE), READ(12, 4, VALUE), WRITE(8, 4, DEVICE), WRITE(12, 4, 7) },
          .naccess = 4 },
    };

    (void)state;
    run_device_cases(cases, ARRAY_LEN(cases));
}

static void stack_strings_and_transfers(void **state)
{
    const struct device_case cases[] = {
        { "push from the device", GUEST("push dword ptr [ebx]"), .after = { { STACK_START - 4, VALUE } },
          .access = { READ(0, 4, VALUE) }, .naccess = 1 },
        { "pop to the device", GUEST("push 7; pop dword ptr [ebx]"), .after = { { R(ESP), STACK_START } },
          .access = { WRITE(0, 4, 7) }, .naccess = 1 },
        { "the stack is a device", GUEST("push eax; pop ecx"), .before = { { R(ESP), DEVICE + 0x100 } },
          .after = { { R(ESP), DEVICE + 0x100 }, { R(ECX), VALUE } },
          .access = { WRITE(0xfc, 4, 0xa1a2a3a4), READ(0xfc, 4, VALUE) }, .naccess = 2 },
        { "movs from the device", GUEST("movsd"), .before = { { R(ESI), DEVICE }, { R(EDI), DATA } },
          .after = { { DATA, VALUE } }, .access = { READ(0, 4, VALUE) }, .naccess = 1 },
        { "movs to the device", GUEST("movsw"),
          .before = { { R(ESI), DATA }, { R(EDI), DEVICE }, { DATA, 0x1234 } },
          .access = { WRITE(0, 2, 0x1234) }, .naccess = 1 },
        { "movs from and to it", GUEST("movsb"), .before = { { R(ESI), DEVICE }, { R(EDI), DEVICE + 8 } },
          .access = { READ(0, 1, 0x11), WRITE(8, 1, 0x11) }, .naccess = 2 },
        { "cmps", GUEST("cmpsd"), .before = { { R(ESI), DEVICE }, { R(EDI), DEVICE + 8 } },
          .after = { { R_FLAGS, EFL_ZF | EFL_PF } }, .access = { READ(0, 4, VALUE), READ(8, 4, VALUE) },
          .naccess = 2 },
        { "stos down", GUEST("std; stosd; cld"), .before = { { R(EDI), DEVICE + 8 } },
          .after = { { R(EDI), DEVICE + 4 } }, .access = { WRITE(8, 4, 0xa1a2a3a4) }, .naccess = 1 },
        { "lods", GUEST("lodsb"), .before = { { R(ESI), DEVICE + 1 } }, .after = { { R(EAX), 0xa1a2a322 } },
          .access = { READ(1, 1, 0x22) }, .naccess = 1 },
        { "rep stos", GUEST("mov ecx, 3; rep stosw"), .before = { { R(EDI), DEVICE } },
          .after = { { R(ECX), 0 } },
          .access = { WRITE(0, 2, 0xa3a4), WRITE(2, 2, 0xa3a4), WRITE(4, 2, 0xa3a4) }, .naccess = 3 },
        { "jump through the device", GUEST("jmp [ebx]"), .access = { READ(0, 4, VALUE) }, .naccess = 1,
          .vector = EXC_PF, .cr2 = VALUE, .eip = VALUE - CODE },
        { "call through the device", GUEST("call [ebx]"), .after = { { STACK_START - 4, CODE + 2 } },
          .access = { READ(0, 4, VALUE) }, .naccess = 1, .vector = EXC_PF, .cr2 = VALUE,
          .eip = VALUE - CODE },
        { "call onto the device", GUEST("call 1f; 1: nop"), .before = { { R(ESP), DEVICE + 0x80 } },
          .after = { { R(ESP), DEVICE + 0x7c } }, .access = { WRITE(0x7c, 4, CODE + 5) }, .naccess = 1 },
        { "return by the device", GUEST("ret"), .before = { { R(ESP), DEVICE + 0x80 } },
          .access = { READ(0x80, 4, VALUE) }, .naccess = 1, .vector = EXC_PF, .cr2 = VALUE,
          .eip = VALUE - CODE },
        { "xlat", GUEST("xlat"), .before = { { R(EAX), 3 } }, .after = { { R(EAX), 0x44 } },
          .access = { READ(3, 1, 0x44) }, .naccess = 1 },
        { "x87 load", GUEST("fninit; fild word ptr [ebx]; fistp dword ptr ds:[" STR(DATA) "]"),
          .after = { { DATA, 0x2211 } }, .access = { READ(0, 2, 0x2211) }, .naccess = 1 },
        { "x87 store", GUEST("fninit; fld1; fstp qword ptr [ebx]"),
          .access = { WRITE(0, 4, 0), WRITE(4, 4, 0x3ff00000) }, .naccess = 2 },
        { "x87 store that may be dropped", GUEST("fninit; push 0x37e; fldcw [esp]; fld1; fistp word ptr [ebx]; fninit"),
          .access = { WRITE(0, 2, 1) }, .naccess = 1 },
        { "x87 store that is dropped", GUEST("fninit; push 0x37e; fldcw [esp]; fistp word ptr [ebx]; fnstsw ax; fninit"),
          .after = { { R(EAX), 0xa1a280c1 } }, .naccess = 0 },
        { "mmx", GUEST("movq mm0, [ebx]; movd [ebx + 8], mm0; emms"),
          .access = { READ(0, 4, VALUE), READ(4, 4, VALUE), WRITE(8, 4, VALUE) }, .naccess = 3 },
        { "sse", GUEST("movss xmm0, [ebx]; movss [ebx + 4], xmm0"),
          .access = { READ(0, 4, VALUE), WRITE(4, 4, VALUE) }, .naccess = 2 },
    };

    (void)state;
    run_device_cases(cases, ARRAY_LEN(cases));
}

static void faults_come_before_the_device_is_written(void **state)
{
    const struct device_case cases[] = {
        { "pop to it without a stack", GUEST("pop dword ptr [ebx]"), .before = { { R(ESP), DATA - 4 } },
          .naccess = 0, .vector = EXC_PF, .cr2 = DATA - 4 },
        { "division", GUEST("div dword ptr [ebx]"), .before = { { R(EDX), VALUE } },
          .after = { { R(EDX), VALUE } }, .access = { READ(0, 4, VALUE) }, .naccess = 1,
          .vector = VECTOR_DE },
        { "movs to nowhere", GUEST("movsd"), .before = { { R(ESI), DEVICE }, { R(EDI), DATA - 4 } },
          .after = { { R(ESI), DEVICE } }, .access = { READ(0, 4, VALUE) }, .naccess = 1, .vector = EXC_PF,
          .cr2 = DATA - 4 },
        { "movs from nowhere", GUEST("movsd"), .before = { { R(EDI), DEVICE }, { R(ESI), DATA - 4 } },
          .naccess = 0, .vector = EXC_PF, .cr2 = DATA - 4 },
        { "half of it beyond the device", GUEST("mov [ebx - 2], eax"), .naccess = 0, .vector = EXC_PF,
          .cr2 = DEVICE - 2 },
        { "misaligned sixteen bytes", GUEST("movaps [ebx + 4], xmm0"), .naccess = 0, .vector = EXC_GP },
    };

    (void)state;
    run_device_cases(cases, ARRAY_LEN(cases));
}

static void access_that_only_begins_in_the_device(void **state)
{
    const struct device_case cases[] = {
        { "store", GUEST("mov [ebx], eax"), .before = { { R(EBX), DEVICE + 0xffe }, { DATA + 0x3000, 0 } },
          .after = { { DATA + 0x3000, 0xa1a2 } }, .access = { WRITE(0xffe, 2, 0xa3a4) }, .naccess = 1 },
        { "load", GUEST("mov ecx, [ebx]"),
          .before = { { R(EBX), DEVICE + 0xffe }, { DATA + 0x3000, 0x5678 } },
          .after = { { R(ECX), 0x56784433 } }, .access = { READ(0xffe, 2, 0x4433) }, .naccess = 1 },
        { "add", GUEST("add [ebx], eax"),
          .before = { { R(EBX), DEVICE + 0xfff }, { R(EAX), 0x100 }, { DATA + 0x3000, 1 } },
          .after = { { DATA + 0x3000, 2 } }, .access = { READ(0xfff, 1, 0x44), WRITE(0xfff, 1, 0x44) },
          .naccess = 2 },
    };

    (void)state;
    run_device_cases(cases, ARRAY_LEN(cases));
}

/* The device asks for attention while translated code loops: the loop is left at its next turn. */
static void clear_run(struct run_fixture *fx, const struct device_access *a)
{
    (void)a;
    if (fx->ndevice == 10)
        fx->cpu->run = 0;
}

static void device_that_clears_run_ends_a_loop(void **state)
{
    const struct guest_code loops[] = {
        GUEST("1: mov eax, [ebx]; jmp 1b"),
        GUEST("1: mov [ebx], eax; jmp 1b"),
        GUEST("mov ecx, 1000; 1: add [ebx], eax; loop 1b"),
        GUEST("mov esi, " STR(CODE) " + 5; 1: mov eax, [ebx]; jmp esi"),
        GUEST("jmp 1f; 2: mov eax, [ebx]; ret; 1: call 2b; jmp 1b"),
        GUEST("mov esi, " STR(
            CODE) " + 15; push esi; push esi; jmp 1f; nop; nop; nop; nop; nop; nop; nop; 1: mov eax, [ebx];"
                  "push esi; ret"),
    };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    fx->on_device = clear_run;
    for (size_t i = 0; i < ARRAY_LEN(loops); i++)
        for (int round = 0; round < 2; round++) {
            put_code(fx, CODE, loops[i]);
            reset_state(fx);
            fx->cpu->gpr[EBX] = DEVICE;
            fx->cpu->eip = CODE;
            enum exit_reason reason = EXIT_DISPATCH;
            while (fx->ndevice < 10) { /* the host's timer may clear it as well */
                fx->cpu->run = 1;
                reason = bt_run(fx->cpu);
            }
            vcpu_fpu_park(fx->cpu);
            assert_int_equal(fx->cpu->run, 0);
            assert_true(reason == EXIT_POLL || reason == EXIT_DISPATCH);
            assert_in_range(fx->ndevice, 10, 12);
        }
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_and_stores_of_every_width),
        cmocka_unit_test(read_modify_write_is_one_read_and_one_write),
        cmocka_unit_test(stack_strings_and_transfers),
        cmocka_unit_test(faults_come_before_the_device_is_written),
        cmocka_unit_test(access_that_only_begins_in_the_device),
        cmocka_unit_test(device_that_clears_run_ends_a_loop),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
