/*
 * Code that changes: by its own stores of every kind, through another mapping, on the stack,
 * across a page boundary, by a device. And instructions that lie in two pages, whose second
 * page comes, goes and turns into another.
 */
#include <string.h>

#include "tcache/tcache.h"
#include "bt/bt_internal.h"
#include "tests/unit/bt/run_fixture.h"

#define ALIAS     0x420000 /* a second mapping of page CODE */
#define AT(label) STR(CODE) " + " label " - 771b"
#define NOWHERE   0x3f000000u /* a PA without memory or device */
#define PAGE      0x1000

/* Code that changes what comes right behind it, NOPs at first, to INC EDX and NOPs. */
struct patcher {
    const char *name;
    struct guest_code code;
    uint32_t edx; /* how often EDX was counted */
};

static void start(struct run_fixture *fx)
{
    reset_state(fx);
    fx->cpu->gpr[EDX] = 0;
    fx->cpu->gpr[EBX] = DATA;
}

static void next_instruction_sees_the_store(void **state)
{
    const struct patcher patchers[] = {
        { "mov of a byte", GUEST("mov byte ptr ds:[" AT("1f") "], 0x42; 1: nop"), 1 },
        { "mov of 32 bits", GUEST("mov dword ptr ds:[" AT("1f") "], 0x42424242; 1: nop; nop; nop; nop"), 4 },
        { "mov of offsets",
          GUEST("mov eax, 0x42424242; .byte 0xa3; .long " AT("1f") "; 1: nop; nop; nop; nop"), 4 },
        { "a few instructions later",
          GUEST("mov byte ptr ds:[" AT("1f") "], 0x42; inc eax; inc eax; inc eax; 1: nop"), 1 },
        { "or", GUEST("or byte ptr ds:[" AT("1f") "], 0x02; jmp 1f; 1: inc eax"), 1 },
        { "add, other flags",
          GUEST("add byte ptr ds:[" AT("1f") "], 0xb2; 1: nop; setc al; lea edx, [edx + eax]"),
          2 + 0x10203000 },
        { "xchg", GUEST("mov ch, 0x42; xchg ds:[" AT("1f") "], ch; 1: nop"), 1 },
        { "lock cmpxchg", GUEST("mov al, 0x90; mov cl, 0x42; lock cmpxchg ds:[" AT("1f") "], cl; 1: nop"),
          1 },
        { "cmpxchg8b",
          GUEST("mov eax, 0x90909090; mov edx, eax; mov ebx, 0x42424242; mov ecx, ebx; cmpxchg8b ds:[" AT(
              "1f") "];"
                    "1: nop; nop; nop; nop; nop; nop; nop; nop"),
          0x90909098 },
        { "bts", GUEST("mov ecx, 1; bts ds:[" AT("1f") "], ecx; jmp 1f; 1: inc eax; nop; nop; nop"), 1 },
        { "inc", GUEST("inc byte ptr ds:[" AT("1f") "]; 1: inc ecx"), 1 },
        { "not", GUEST("not byte ptr ds:[" AT("1f") "]; 1: .byte 0xbd; nop; nop; nop; nop"), 1 },
        { "rotate by cl", GUEST("mov ecx, 4; ror byte ptr ds:[" AT("1f") "], cl; 1: and al, 0x90"), 1 },
        { "an immediate", GUEST("mov byte ptr ds:[" AT("1f") " + 1], 5; 1: mov dl, 7"), 5 },
        { "push",
          GUEST("mov esp, " AT("1f") " + 4; push 0x42424242; 1: nop; nop; nop; nop; mov esp, " STR(
              STACK_START)),
          4 },
        { "push of memory",
          GUEST("mov dword ptr [ebx], 0x42904290; mov esp, " AT("1f") " + 4; push dword ptr [ebx];"
                                                                      "1: nop; nop; nop; nop; mov esp, " STR(
                                                                          STACK_START)),
          2 },
        { "pop to memory", GUEST("push 0x42424242; pop dword ptr ds:[" AT("1f") "]; 1: nop; nop; nop; nop"),
          4 },
        { "pusha",
          GUEST("mov edx, 0x42424242; mov eax, 0x90909090; mov ecx, eax; .skip 32, 0x90; mov esp, " AT(
              "1f") " + 12;"
                    "pusha; 1: nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop; mov esp, " STR(
                        STACK_START)),
          0x42424246 },
        { "stos", GUEST("mov edi, " AT("1f") "; mov al, 0x42; stosb; 1: nop"), 1 },
        { "movs",
          GUEST("mov dword ptr [ebx], 0x42424242; mov esi, ebx; mov edi, " AT(
              "1f") "; movsd; 1: nop; nop; nop; nop"),
          4 },
        { "rep stos",
          GUEST("mov edi, " AT("1f") "; mov ecx, 4; mov al, 0x42; rep stosb; 1: nop; nop; nop; nop"), 4 },
        { "movq",
          GUEST("mov dword ptr [ebx], 0x42424242; mov dword ptr [ebx + 4], 0x42424242; movq mm0, [ebx];"
                "movq ds:[" AT("1f") "], mm0; 1: nop; nop; nop; nop; nop; nop; nop; nop; emms"),
          8 },
        { "maskmovq",
          GUEST("mov dword ptr [ebx], 0x42424242; movd mm0, [ebx]; mov edi, " AT(
              "1f") "; pcmpeqb mm1, mm1;"
                    "psrlq mm1, 32; maskmovq mm0, mm1; 1: nop; nop; nop; nop; emms"),
          4 },
        { "fst",
          GUEST("mov dword ptr [ebx], 0x42424242; fninit; fld dword ptr [ebx]; fstp dword ptr ds:[" AT(
              "1f") "];"
                    "1: nop; nop; nop; nop"),
          4 },
        { "two stores",
          GUEST(
              "mov byte ptr ds:[" AT("1f") "], 0x42; mov byte ptr ds:[" AT("1f") " + 1], 0x42; 1: nop; nop"),
          2 },
        { "a store that is itself changed",
          GUEST("mov byte ptr ds:[" AT("1f") " - 1], 0x42; mov byte ptr ds:[" AT("1f") "], 0x41;"
                                                                                       "1: nop"),
          1 },
        { "through the other mapping", GUEST("mov byte ptr ds:[" STR(ALIAS) " + 1f - 771b], 0x42; 1: nop"),
          1 },
        { "through it, later",
          GUEST("mov byte ptr ds:[" STR(ALIAS) " + 1f - 771b], 0x42; jmp 1f; nop; 1: nop"), 1 },
        { "the way back from a call",
          GUEST("call 2f; 1: nop; jmp 3f; 2: mov byte ptr ds:[" AT("1b") "], 0x42; ret; 3:"), 1 },
        { "the target of a call",
          GUEST("mov byte ptr ds:[" AT("1f") "], 0x42; call 1f; jmp 2f; 1: nop; ret; 2:"), 1 },
        { "the target of an indirect jump",
          GUEST("mov eax, " AT("1f") "; mov byte ptr ds:[" AT("1f") "], 0x42; jmp eax; ud2; 1: nop"), 1 },
    };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_alias(fx, ALIAS, CODE, PTE_P | PTE_W | PTE_US);
    for (size_t i = 0; i < ARRAY_LEN(patchers); i++)
        for (int round = 0; round < 3; round++) {
            start(fx);
            run_code(fx, patchers[i].code);
            if (fx->frame.gpr[EDX] != patchers[i].edx)
                fail_msg("%s, round %d: EDX 0x%x, expected 0x%x", patchers[i].name, round, fx->frame.gpr[EDX],
                         patchers[i].edx);
        }
    run_fixture_free(fx);
}

/* A call whose pushed return address lands on the code it calls: 0x400042 is INC EDX; ADD [EAX], AL... */
static void call_that_writes_the_code_it_calls(void **state)
{
    static const char *const how[] = { "direct", "by register", "by memory" };
    const struct guest_code codes[] = {
        GUEST("mov esp, " AT("1f") " + 4; .skip 0x3d - 5, 0x90; call 1f; ud2; 1: nop; nop; nop; nop; nop"),
        GUEST("mov esp, " AT("1f") " + 4; mov ecx, " AT(
            "1f") "; .skip 0x40 - 10, 0x90; call ecx; ud2; 1: nop; nop; nop; nop; nop"),
        GUEST("mov esp, " AT("1f") " + 4; mov dword ptr [ebx + 64], " AT(
            "1f") "; .skip 0x3f - 12, 0x90; call [ebx + 64]; ud2;"
                  "1: nop; nop; nop; nop; nop"),
    };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        for (int round = 0; round < 3; round++) {
            start(fx);
            fx->cpu->gpr[EAX] = DATA;
            put_u32(fx, DATA, 0x11);
            run_code(fx, codes[i]);
            if (fx->frame.gpr[EDX] != 1)
                fail_msg("%s: EDX 0x%x", how[i], fx->frame.gpr[EDX]);
            assert_int_equal(get_u32(fx, DATA), 0x11); /* ADD [EAX], AL with AL = 0 */
        }
    run_fixture_free(fx);
}

/* REP STOSB that makes itself NOP and STOSB: between two iterations the instruction is fetched anew. */
static void repeated_store_over_itself(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 6; round++) {
        start(fx);
        run_code(fx,
                 GUEST("mov edi, " AT("1f") "; mov ecx, 4; mov al, 0x90; 1: rep stosb; nop; nop; nop; nop"));
        assert_int_equal(fx->frame.gpr[ECX], 3);
    }
    run_fixture_free(fx);
}

static void loop_that_counts_in_its_own_immediate(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 2; round++) {
        start(fx);
        run_code(fx, GUEST("mov ecx, 1000; 1: mov eax, 0; inc dword ptr ds:[" AT("1b") " + 1]; loop 1b"));
        assert_int_equal(fx->frame.gpr[EAX], 999);
        if (run_config()->coherency == COHERENCY_TRACE) /* the loop drops itself each time */
            assert_true(fx->cpu->stats.coherency_left >= 900);
        if (run_config()->coherency ==
            COHERENCY_CHECK) /* after the first time it ends behind the store in any case */
            assert_true(fx->cpu->stats.coherency_left <= 1);
    }
    run_fixture_free(fx);
}

static void data_beside_code_does_not_stop_it(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    start(fx);
    /* in the same 64 bytes, and in the same page */
    run_code(fx, GUEST("mov ecx, 5000; 1: inc dword ptr ds:[" AT("2f") "]; add dword ptr ds:[" STR(
                     CODE) " + 0x800], 2;"
                           "loop 1b; jmp 3f; 2: .long 0; 3:"));
    assert_int_equal(get_u32(fx, CODE + 0x800), 10000);
    assert_int_equal(fx->cpu->stats.inval_write < 20, true);
    if (run_config()->coherency == COHERENCY_CHECK) /* the first store ends the trace */
        assert_int_equal(fx->cpu->stats.traced_store, 1);
    else if (run_config()->coherency == COHERENCY_ADAPTIVE) {
        assert_int_equal(fx->cpu->stats.coherency_to_check, 1);
        assert_true(fx->cpu->stats.traced_store_false < 600);
    } else
        assert_true(fx->cpu->stats.traced_store_false > 9000);
    run_fixture_free(fx);
}

static void code_on_the_stack(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 2; round++) {
        start(fx);
        fx->cpu->gpr[EAX] = 0;
        /* inc edx; inc eax; ret -- then inc edx; inc edx; ret -- with the stack growing beside it */
        run_code(fx, GUEST("mov ecx, 100; 1: push 0x90c34042; mov edi, esp; push ecx; call edi; pop ecx;"
                           "mov byte ptr [edi + 1], 0x42; push ecx; call edi; pop ecx; add esp, 4; loop 1b"));
        assert_int_equal(fx->frame.gpr[EAX], 100);
        assert_int_equal(fx->frame.gpr[EDX], 300);
    }
    run_fixture_free(fx);
}

static void code_made_by_code_again_and_again(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    start(fx);
    /* DATA gets mov eax, n; ret, for n = 1..2000, and is called each time; EDX sums */
    run_code(fx, GUEST("mov edi, " STR(
                     DATA) "; mov ecx, 2000; mov byte ptr [edi], 0xb8; mov byte ptr [edi + 5], 0xc3;"
                           "1: mov [edi + 1], ecx; call edi; add edx, eax; loop 1b"));
    assert_int_equal(fx->frame.gpr[EDX], 2000 * 2001 / 2);
    run_fixture_free(fx);
}

static void store_across_a_page_into_code(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 3; round++) {
        put(fx, CODE + PAGE, "\x90\x90\x90\x0f\x0b", 5);
        put(fx, CODE + PAGE - 7, "\x90\x90\xeb\x03\x90\x90\x90", 7);
        start(fx);
        put_code(fx, CODE, GUEST("mov eax, " STR(CODE + PAGE) "; call eax; ud2"));
        run_to(fx, CODE + PAGE, CODE + PAGE + 3); /* translated as it is */
        start(fx);
        fx->cpu->gpr[EAX] = 0x42429090;
        put_code(fx, CODE, GUEST("mov ds:[" STR(CODE + PAGE - 2) "], eax; jmp 1f; .skip 4083 - 2, 0x90; 1:"));
        put(fx, CODE + PAGE - 7, "\x90\x90\x90\x90\x90\x90\x90", 7);
        run_to(fx, CODE, CODE + PAGE + 3);
        assert_int_equal(fx->frame.gpr[EDX], 2);
    }
    run_fixture_free(fx);
}

/* The whole of an instruction's bytes tell where the next one begins, too. */
static void instruction_changed_into_a_longer_one(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 3; round++) {
        start(fx);
        run_code(fx, GUEST("mov ecx, 2; 1: nop; inc edx; inc edx; inc edx; inc edx;"
                           "mov byte ptr ds:[" AT("1b") "], 0xb8; loop 1b"));
        assert_int_equal(fx->frame.gpr[EDX], 4);
        assert_int_equal(fx->frame.gpr[EAX], 0x42424242);
    }
    run_fixture_free(fx);
}

/* A device's read changes code, as one that fills memory by itself may. It is read once only. */
static void write_code_by_device(struct run_fixture *fx, const struct device_access *a)
{
    if (!a->is_write)
        put(fx, CODE + 0x80, "\x42\x42\xc3", 3);
}

static void device_access_that_changes_code(void **state)
{
    const struct guest_code code =
        GUEST("1: call ecx; push dword ptr ds:[" STR(DEVICE) "]; pop eax; call ecx");
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    fx->on_device = write_code_by_device;
    for (int round = 0; round < 3; round++) {
        put(fx, CODE + 0x80, "\x42\x90\xc3", 3);
        start(fx);
        fx->cpu->gpr[ECX] = CODE + 0x80;
        run_code(fx, code);
        assert_int_equal(fx->frame.gpr[EDX], 3);
        assert_int_equal(fx->frame.gpr[EAX], 0x44332211);
        assert_int_equal(fx->ndevice, 1);
    }
    run_fixture_free(fx);
}

/* ---- instructions in two pages --------------------------------------------------------------------- */

static void every_split_of_an_instruction(void **state)
{
    const struct {
        struct guest_code code;
        uint32_t eax, data;
    } cases[] = {
        { GUEST("mov eax, 0x12345678"), 0x12345678, 7 },
        { GUEST("add dword ptr [ebx + 0x00000000 + 4*ecx - 0x40000], 0x01020304"), 1, 0x0102030b },
        { GUEST("lea eax, [eax + eax*8 + 0x11111111]"), 0x1111111a, 7 },
        { GUEST("lock xadd [ebx], eax"), 7, 8 },
        { GUEST("push 0x12345678; pop eax"), 0x12345678, 7 },
        { GUEST("call 1f; 1: pop eax; sub eax, eax"), 0, 7 },
        { GUEST("test eax, eax; jz 2f; jnz 1f; ud2; 1: mov eax, 9; 2:"), 9, 7 },
        { GUEST("movups xmm0, [ebx]; movups [ebx], xmm0; imul eax, [ebx], 0x1000"), 0x7000, 7 },
        { GUEST(".byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0xc7, 0x03, 1, 0, 0, 0"), 1, 1 },
        { GUEST("cld; .byte 0xf3; stosd; mov eax, ecx"), 0, 1 },
    };
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (uint32_t before = 0; before <= cases[i].code.len; before++)
            for (int round = 0; round < 2; round++) {
                uint32_t at = CODE + PAGE - before;
                bool is_stos = i == ARRAY_LEN(cases) - 1;
                start(fx);
                put_u32(fx, DATA, 7);
                fx->cpu->gpr[EAX] = 1;
                fx->cpu->gpr[ECX] = is_stos ? 3 : 0x10000;
                fx->cpu->gpr[EDI] = DATA;
                put_code(fx, at, cases[i].code);
                put(fx, at + cases[i].code.len, "\x0f\x0b", 2);
                run_to(fx, at, at + cases[i].code.len);
                assert_int_equal(fx->frame.gpr[EAX], cases[i].eax);
                assert_int_equal(get_u32(fx, DATA), cases[i].data);
            }
    run_fixture_free(fx);
}

static void second_page_that_is_not_there(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 2; round++) {
        put(fx, CODE + PAGE - 3, "\x42\xb8\x11\x22\x33\x44\x42\x0f\x0b", 9);
        vm_fixture_map(fx->vm, CODE + PAGE, 0);
        start(fx);
        run_from(fx, CODE + PAGE - 3);
        assert_int_equal(fx->frame.vector, EXC_PF);
        assert_int_equal(fx->frame.error, PF_US);
        assert_int_equal(fx->cpu->cr2, CODE + PAGE);
        assert_int_equal(fx->frame.eip, CODE + PAGE - 2);
        assert_int_equal(fx->frame.gpr[EDX], 1);
        vm_fixture_map(fx->vm, CODE + PAGE, PTE_P | PTE_W | PTE_US);
        start(fx);
        run_to(fx, CODE + PAGE - 3, CODE + PAGE + 4);
        assert_int_equal(fx->frame.gpr[EAX], 0x44332211);
        assert_int_equal(fx->frame.gpr[EDX], 2);
    }
    run_fixture_free(fx);
}

/* Where there is no memory a fetch reads FF, which is half of an instruction here. */
static void either_page_that_nobody_answers_for(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put(fx, CODE + PAGE - 1, "\0", 1); /* 00 FF: add bh, bh; FF FF is no instruction */
    map_alias(fx, CODE + PAGE, NOWHERE, PTE_P | PTE_US);
    for (int round = 0; round < 2; round++) {
        start(fx);
        fx->cpu->gpr[EBX] = 0x1122;
        run_to(fx, CODE + PAGE - 1, CODE + PAGE + 1);
        assert_int_equal(fx->frame.gpr[EBX], 0x2222);
    }
    map_alias(fx, CODE, NOWHERE, PTE_P | PTE_US);
    map_alias(fx, CODE + PAGE, SPARE, PTE_P | PTE_W | PTE_US);
    for (int round = 0; round < 6; round++) { /* FF C2: inc edx; FF CA: dec edx */
        put(fx, SPARE, round & 2 ? "\xca\x0f\x0b" : "\xc2\x0f\x0b", 3);
        start(fx);
        run_to(fx, CODE + PAGE - 1, CODE + PAGE + 1);
        assert_int_equal(fx->frame.gpr[EDX], round & 2 ? UINT32_MAX : 1);
    }
    run_fixture_free(fx);
}

static void second_page_that_becomes_another(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    put(fx, CODE + PAGE - 3, "\x42\xb8\x11", 3);
    put(fx, SPARE, "\x22\x33\x44\x42\x0f\x0b", 6);
    put(fx, SPARE + PAGE, "\x55\x66\x77\x42\x0f\x0b", 6);
    for (int round = 0; round < 6; round++) {
        map_alias(fx, CODE + PAGE, round & 1 ? SPARE + PAGE : SPARE, PTE_P | PTE_US);
        start(fx);
        run_to(fx, CODE + PAGE - 3, CODE + PAGE + 4);
        assert_int_equal(fx->frame.gpr[EAX], round & 1 ? 0x77665511 : 0x44332211);
    }
    run_fixture_free(fx);
}

static void both_parts_in_one_page_twice_mapped(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    map_alias(fx, CODE + PAGE, CODE, PTE_P | PTE_W | PTE_US);
    put(fx, CODE + PAGE - 3, "\x42\xb8\x11", 3);
    for (unsigned round = 0; round < 4; round++) {
        uint8_t tail[] = { 0x22, 0x33, (uint8_t)(0x44 + round), 0x42, 0x0f, 0x0b };
        put(fx, CODE, tail, sizeof tail);
        for (int again = 0; again < 2; again++) {
            start(fx);
            run_to(fx, CODE + PAGE - 3, CODE + PAGE + 4);
            assert_int_equal(fx->frame.gpr[EAX], 0x44332211 + (round << 24));
        }
        start(fx);
        run_to(fx, CODE + 3, CODE + 4); /* the tail by its other address */
    }
    run_fixture_free(fx);
}

static void straddler_changed_in_its_second_page(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (int round = 0; round < 2; round++) {
        start(fx);
        /* 1: mov eax, n straddles; the loop counts n up by a store into the second page */
        put_code(fx, CODE + PAGE - 2,
                 GUEST("1: mov eax, 0; add byte ptr ds:[" STR(CODE + PAGE) " + 2], 1; loop 1b; ud2"));
        fx->cpu->gpr[ECX] = 50;
        run_from(fx, CODE + PAGE - 2);
        assert_int_equal(fx->frame.vector, EXC_UD);
        assert_int_equal(fx->frame.gpr[EAX], 49u << 24);
    }
    run_fixture_free(fx);
}

/* What a run of the code at CODE shows. */
static uint32_t outcome(struct run_fixture *fx, uint32_t len)
{
    start(fx);
    put_u32(fx, DATA, 0);
    put_u32(fx, DATA + 8, 0x01010101);
    run_to(fx, CODE, CODE + len);
    return fx->frame.gpr[EDX] ^ fx->frame.gpr[EAX] << 1 ^ fx->frame.gpr[ECX] << 2 ^ fx->frame.eflags << 3 ^
           get_u32(fx, DATA) << 4 ^ get_u32(fx, DATA + 8) << 5 ^ get_u32(fx, STACK_START - 4) << 6;
}

static bool patches(void)
{
    return run_config()->coherency == COHERENCY_PATCH || run_config()->coherency == COHERENCY_ADAPTIVE;
}

/* Constants in every form that the code can hold them in, changed by what is no guest instruction (the
 * loader's way, and a device's): as if the code had been made anew, and patched where it can be. */
static void constants_of_every_form(void **state)
{
    const struct {
        const char *name;
        struct guest_code code; /* the constant is at its end */
        unsigned bytes;
        bool is_patched;
    } cases[] = {
        { "mov r32", GUEST("mov edx, 0x11223344"), 4, true },
        { "mov r16", GUEST(".byte 0x66, 0xba, 0x44, 0x33"), 2, true },
        { "mov dl", GUEST("mov dl, 0x11"), 1, true },
        { "mov dh", GUEST("mov dh, 0x11"), 1, true },
        { "mov ch", GUEST("mov ch, 0x11"), 1, true },
        { "add eax", GUEST("add eax, 0x11223344"), 4, true },
        { "xor edx", GUEST("xor edx, 0x11223344"), 4, true },
        { "and imm8", GUEST("and edx, 0x11"), 1, true },
        { "cmp ah", GUEST("cmp ah, 0x11"), 1, true },
        { "imul", GUEST("imul edx, eax, 0x11223344"), 4, true },
        { "mov to memory", GUEST("mov dword ptr [ebx + 8], 0x11223344"), 4, true },
        { "add to memory", GUEST("add word ptr [ebx + 8], 0x1122"), 2, true },
        { "push", GUEST("push 0x11223344"), 4, true },
        { "shift", GUEST("shl edx, 3"), 1, true },
        { "bit in memory", GUEST("bts dword ptr [ebx], 3"), 1, true },
        { "pshufw", GUEST("pshufw mm0, mm0, 0x11"), 1, true },
        { "displacement", GUEST("lea edx, [eax + 0x11223344]"), 4, true },
        { "push of a byte, whose sign is extended", GUEST("push 0x11"), 1, true },
        { "the same, 16 bits", GUEST(".byte 0x66, 0x6a, 0x11"), 1, true },
        { "displacement from nowhere", GUEST("mov edx, ds:[" STR(DATA) "]"), 4, true },
        { "displacement, 8 bytes",
          GUEST("movq mm0, [ebx + 0x40]; movq [ebx], mm0; .byte 0x0f, 0x7f, 0x83; .long 0x10"), 4, true },
        { "displacement, scaled", GUEST("xor ecx, ecx; .byte 0x8b, 0x94, 0x8b; .long 8"), 4, true },
        { "displacement of none", GUEST(".byte 0x8b, 0x93; .long 0"), 4, true },
        { "offset of MOV EAX", GUEST(".byte 0xa1; .long " STR(DATA)), 4, true },
        { "displacement of a byte", GUEST("lea edx, [ebx + 8]"), 1, false },
        { "displacement of x87", GUEST(".byte 0xd9, 0x83; .long 8; fninit; .byte 0xdd, 0x83; .long 8"), 4,
          false },
    };
    struct run_fixture *fx = run_fixture_new();
    const struct stats *stats = &fx->cpu->stats;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t at = CODE + cases[i].code.len - cases[i].bytes, len = cases[i].code.len;
        const uint8_t values[] = { 5, 0x86, 5, 0 };
        uint32_t anew[ARRAY_LEN(values)];

        start(fx);
        run_code(fx, cases[i].code);
        for (size_t k = 0; k < ARRAY_LEN(values); k++) {
            put(fx, at, &values[k], 1);
            bt_flush(fx->cpu);
            anew[k] = outcome(fx, len);
        }
        for (size_t k = 0; k < ARRAY_LEN(values); k++) {
            uint64_t dropped = stats->inval_write, patched = stats->coherency_patched;
            put(fx, at, &values[k], 1);
            bool is_patched = stats->coherency_patched > patched && stats->inval_write == dropped;
            assert_int_equal(is_patched, cases[i].is_patched && patches());
            if (outcome(fx, len) != anew[k])
                fail_msg("%s, value %u: not as if it had been made anew", cases[i].name, values[k]);
        }
    }
    run_fixture_free(fx);
}

/* A page whose stores hit no code is compared; it is traced again in time, and what changed is seen both
 * ways. Only coherency=adaptive does that; the guest sees the same under every policy. */
static void page_goes_and_comes_back(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    bool moves = run_config()->coherency == COHERENCY_ADAPTIVE;
    const struct stats *stats = &fx->cpu->stats;

    (void)state;
    put_code(fx, CODE,
             GUEST("mov ecx, 400; 1: inc dword ptr ds:[" STR(CODE) " + 0x800]; loop 1b; mov edx, 0; ud2"));
    for (uint32_t round = 1; round <= 3; round++) {
        for (uint32_t k = 0; k < 3; k++) { /* traced, then compared */
            put_u32(fx, CODE + 14, round * 16 + k);
            start(fx);
            run_to(fx, CODE, CODE + 18);
            assert_int_equal(fx->frame.gpr[EDX], round * 16 + k);
            assert_int_equal(get_u32(fx, CODE + 0x800), 400 * (3 * (round - 1) + k + 1));
        }
        assert_int_equal(stats->coherency_to_check,
                         moves ? round : run_config()->coherency == COHERENCY_CHECK);
        for (unsigned i = 0; i < 4096; i++)
            bt_sample(fx->cpu);
        assert_int_equal(stats->coherency_to_trace, moves ? round : 0);
        assert_int_equal(tcache_audit(fx->cpu->tc), 0);
    }
    run_fixture_free(fx);
}

/* The store that ends a page's trace leaves the CCF that it is in, since nothing would look after the rest of
 * it: the next store changes that. */
static void store_behind_the_one_that_ends_the_trace(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 600;
         n += n ? 1 : 480) { /* coherency=adaptive moves the page at one of the later ones */
        struct run_fixture *fx = run_fixture_new();

        start(fx);
        fx->cpu->gpr[ECX] = n + 1;
        run_code(fx, GUEST("jmp 2f; 1: inc dword ptr ds:[" STR(
                         CODE) " + 0x800]; 2: dec ecx; jnz 1b;"
                               "inc dword ptr ds:[" STR(CODE) " + 0x800]; mov byte ptr ds:[" AT(
                                   "3f") "], 0x42; 3: nop"));
        assert_int_equal(fx->frame.gpr[EDX], 1);
        run_fixture_free(fx);
    }
}

/* Every byte of a CCF is compared, whatever its length, in each of its two pages as well; and writing the
 * same byte again costs no translation. */
static void every_byte_counts(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    for (uint32_t n = 1; n <= 40; n++) /* n bytes of code, one of which becomes INC EDX */
        for (uint32_t k = 0; k < n; k++) {
            uint32_t at = CODE + PAGE - 8;
            uint8_t nops[42];

            memset(nops, 0x90, sizeof nops);
            memcpy(nops + n, "\x0f\x0b", 2);
            put(fx, at, nops, n + 2);
            start(fx);
            run_to(fx, at, at + n);
            assert_int_equal(fx->frame.gpr[EDX], 0);
            uint64_t translated = fx->cpu->stats.tu_translated, to_check = fx->cpu->stats.coherency_to_check;
            put(fx, at + k, "\x90", 1);
            start(fx);
            run_to(fx, at, at + n);
            if (run_config()->coherency != COHERENCY_TRACE && run_config()->coherency != COHERENCY_ADAPTIVE &&
                run_config()->tc_bytes > 1u << 20 && fx->cpu->stats.coherency_to_check == to_check)
                assert_int_equal(fx->cpu->stats.tu_translated, translated);
            put(fx, at + k, "\x42", 1);
            start(fx);
            run_to(fx, at, at + n);
            assert_int_equal(fx->frame.gpr[EDX], 1);
        }
    run_fixture_free(fx);
}

/* One opcode of a loop changes, twice a round. Once each of its three opcodes was met, the rest of the loop
 * stays as it is under coherency=retranslate, and so do the chains into the changed place; nothing is
 * translated any more. */
static void instruction_made_anew_alone(void **state)
{
    const struct guest_code code =
        GUEST("mov ecx, 10; 1: inc eax; inc eax; inc edx; inc eax; inc eax; loop 1b");
    static const struct {
        uint8_t opcode;
        uint32_t edx;
    } turns[] = { { 0x42, 10 }, { 0x4a, (uint32_t)-10 }, { 0x90, 0 } };
    struct run_fixture *fx = run_fixture_new();
    const struct stats *stats = &fx->cpu->stats;
    bool is_roomy = run_config()->tc_bytes > 1u << 20;

    (void)state;
    put_code(fx, CODE, code);
    put(fx, CODE + code.len, "\x0f\x0b", 2);
    for (uint32_t round = 0; round < 20; round++)
        for (size_t i = 0; i < ARRAY_LEN(turns); i++) {
            uint64_t translated = stats->insn_translated, dropped = stats->inval_write;
            put(fx, CODE + 7, &turns[i].opcode, 1);
            start(fx);
            run_to(fx, CODE, CODE + code.len);
            assert_int_equal(fx->frame.gpr[EDX], turns[i].edx);
            assert_int_equal(fx->frame.gpr[EAX], 0x10203040 + 40);
            if (run_config()->coherency != COHERENCY_RETRANSLATE || !is_roomy || round < 2)
                continue;
            assert_int_equal(stats->inval_write, dropped);
            assert_int_equal(stats->insn_translated, translated);
        }
    if (run_config()->coherency == COHERENCY_RETRANSLATE) {
        assert_true(stats->coherency_parked >= 58 || !is_roomy);
        assert_true(stats->coherency_revived >= 55 || !is_roomy);
        assert_true(stats->coherency_kept_chains >= 50 || !is_roomy || !run_config()->chain);
    }
    run_fixture_free(fx);
}

/* The whole ladder of coherency=adaptive, and back. */
static void page_climbs_the_ladder(void **state)
{
    static const uint8_t opcodes[] = { 0x42, 0x4a };
    struct run_fixture *fx = run_fixture_new();
    const struct stats *stats = &fx->cpu->stats;
    uint32_t places = 60;

    (void)state;
    if (run_config()->coherency != COHERENCY_ADAPTIVE) {
        run_fixture_free(fx);
        return;
    }
    for (uint32_t i = 0; i < places; i++)
        put(fx, CODE + i, "\x90", 1);
    put(fx, CODE + places, "\x0f\x0b", 2);
    for (uint32_t i = 1; i <= 20; i++) { /* one place */
        put(fx, CODE + 5, &opcodes[i & 1], 1);
        start(fx);
        run_to(fx, CODE, CODE + places);
        assert_int_equal(fx->frame.gpr[EDX], i & 1 ? UINT32_MAX : 1);
        assert_int_equal(stats->coherency_to_patch, i > 4);
        assert_int_equal(stats->coherency_to_retranslate, i > 12);
    }
    assert_true(stats->coherency_split == 1 && stats->coherency_revived > 0);
    assert_int_equal(stats->coherency_to_check, 0);
    for (uint32_t i = 10; i < 50; i++) { /* too many */
        put(fx, CODE + i, &opcodes[0], 1);
        start(fx);
        run_to(fx, CODE, CODE + places);
        assert_int_equal(fx->frame.gpr[EDX], i - 10 + 2);
    }
    assert_int_equal(stats->coherency_to_check, 1);
    assert_int_equal(stats->coherency_to_patch, 1);
    for (uint32_t i = 0; i < 70; i++) { /* and stale each time that it runs */
        put(fx, CODE + 5, &opcodes[i & 1], 1);
        start(fx);
        run_to(fx, CODE, CODE + places);
        assert_int_equal(fx->frame.gpr[EDX], i & 1 ? 39 : 41);
    }
    assert_int_equal(stats->coherency_to_patch, 2);
    for (unsigned i = 0; i < 3 * 4096; i++)
        bt_sample(fx->cpu);
    assert_int_equal(stats->coherency_to_trace, 1);
    start(fx);
    run_to(fx, CODE, CODE + places);
    assert_int_equal(fx->frame.gpr[EDX], 39);
    run_fixture_free(fx);
}

/* A page filled with functions one after another, each run once, and then with others: constants differ, so
 * it is to be patched, however many stores hit nothing yet and however many CCFs of before the move end. */
static void code_emitted_into_a_page_is_patched(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    const struct stats *stats = &fx->cpu->stats;
    uint8_t code[] = { 0xb8, 0, 0, 0, 0, 0x0f, 0x0b }; /* mov eax, imm32; ud2 */

    (void)state;
    for (uint32_t i = 0; i < 4 * 256; i++) {
        memcpy(code + 1, &i, 4);
        for (uint32_t byte = 0; byte < sizeof code; byte++)
            put(fx, CODE + i % 256 * 16 + byte, &code[byte], 1);
        start(fx);
        run_to(fx, CODE + i % 256 * 16, CODE + i % 256 * 16 + 5);
        assert_int_equal(fx->frame.gpr[EAX], i);
    }
    if (run_config()->coherency == COHERENCY_ADAPTIVE) {
        assert_int_equal(stats->coherency_to_patch, 1);
        assert_int_equal(stats->coherency_to_retranslate, 0);
        assert_int_equal(stats->coherency_to_check, 0);
        assert_true(stats->coherency_patched >= 500);
    }
    run_fixture_free(fx);
}

/* More versions than are kept, in a cache that evicts them and their gates now and then. */
static void many_versions_of_an_instruction(void **state)
{
    const struct guest_code code =
        GUEST("mov ecx, 1; 1: inc eax; mov edx, 0; jmp 2f; .skip 100, 0x90; 2: loop 1b");
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    start(fx);
    run_code(fx, code);
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t value = i % 7 == 3 ? 77 : i;
        put(fx, CODE + 7, &value, 4);
        start(fx);
        run_to(fx, CODE, CODE + code.len);
        assert_int_equal(fx->frame.gpr[EDX], value);
        if (i % 100 == 0)
            assert_int_equal(tcache_audit(fx->cpu->tc), 0);
    }
    run_fixture_free(fx);
}

/* More constants in a CCF than are noted: none may be patched, since a place would be missed. */
static void more_constants_than_are_noted(void **state)
{
    struct run_fixture *fx = run_fixture_new();

    (void)state;
    start(fx);
    run_code(fx, GUEST(".rept 40; add dword ptr [ebx], 0x01000000; .endr"));
    start(fx);
    for (uint32_t i = 0; i < 40; i++) {
        put(fx, CODE + 6 * i + 2, "\x01", 1);
        start(fx);
        put_u32(fx, DATA, 0);
        run_to(fx, CODE, CODE + 240);
        assert_int_equal(get_u32(fx, DATA), 40u << 24 | (i + 1));
    }
    run_fixture_free(fx);
}

/* Policies that change their mind count samples, whatever the form of memory access. */
static void samples_come_while_code_runs(void **state)
{
    struct run_fixture *fx = run_fixture_new();
    struct bt *bt = fx->cpu->bt;
    const struct guest_code code = GUEST("mov ecx, 30000000; 1: dec ecx; jnz 1b; ud2");

    (void)state;
    put_code(fx, CODE, code);
    bool wants = bt->opt.coherency == COHERENCY_ADAPTIVE || bt->opt.coherency == COHERENCY_RETRANSLATE;
    for (unsigned i = 0; i < (wants ? 200 : 1) && !bt->policy_samples; i++) { /* a busy host loses some */
        reset_state(fx);
        run_to(fx, CODE, CODE + code.len - 2);
    }
    assert_int_equal(bt->policy_samples > 0, wants);
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_come_while_code_runs),
        cmocka_unit_test(next_instruction_sees_the_store),
        cmocka_unit_test(call_that_writes_the_code_it_calls),
        cmocka_unit_test(repeated_store_over_itself),
        cmocka_unit_test(loop_that_counts_in_its_own_immediate),
        cmocka_unit_test(data_beside_code_does_not_stop_it),
        cmocka_unit_test(code_on_the_stack),
        cmocka_unit_test(code_made_by_code_again_and_again),
        cmocka_unit_test(store_across_a_page_into_code),
        cmocka_unit_test(instruction_changed_into_a_longer_one),
        cmocka_unit_test(device_access_that_changes_code),
        cmocka_unit_test(every_split_of_an_instruction),
        cmocka_unit_test(second_page_that_is_not_there),
        cmocka_unit_test(either_page_that_nobody_answers_for),
        cmocka_unit_test(second_page_that_becomes_another),
        cmocka_unit_test(both_parts_in_one_page_twice_mapped),
        cmocka_unit_test(straddler_changed_in_its_second_page),
        cmocka_unit_test(constants_of_every_form),
        cmocka_unit_test(store_behind_the_one_that_ends_the_trace),
        cmocka_unit_test(page_goes_and_comes_back),
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(instruction_made_anew_alone),
        cmocka_unit_test(page_climbs_the_ladder),
        cmocka_unit_test(code_emitted_into_a_page_is_patched),
        cmocka_unit_test(many_versions_of_an_instruction),
        cmocka_unit_test(more_constants_than_are_noted),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
