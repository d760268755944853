/*
 * Equal addresses that do not mean the same: two address spaces, a page copied on write, a page
 * unmapped and mapped again, kernel code that moves under itself. Returns are pending and
 * everything is chained when it happens.
 *
 * The kernel of these tests: INT 0x80 jumps to code that a test puts at KCODE.
 */
#include <string.h>

#include "bt/bt.h"
#include "mmu/mmu_internal.h"
#include "tests/unit/bt/run_fixture.h"

#define PAGE  0x1000u
#define KCODE 0xe1239000 /* VM_FIXTURE_KERNEL + 0x9000: the second page that the fixture does not use */
#define KNEXT 0xe123a000 /* the page behind it */
#define TABLES                                                                                               \
    0xe1240000             /* the page table of CODE, for the guest to write; behind the kernel's own pages  \
                            */
#define KTABLES 0xe1241000 /* that of the kernel */

#define SPACE_B SPARE            /* page directory of the second space */
#define TABLE_B (SPARE + 0x1000) /* its table for CODE                 */
#define CODE_B  (SPARE + 0x2000) /* what it has at CODE                */
#define CODE2_B (SPARE + 0x3000) /* and at CODE + PAGE                 */
#define KPAGE_B (SPARE + 0x4000) /* another page for the kernel        */

#define USER_RW (PTE_P | PTE_W | PTE_US)

static uint32_t table_of(struct run_fixture *fx, uint32_t va)
{
    return get_u32(fx, fx->cpu->cr3 + (va >> 22) * 4) & ~GUEST_PAGE_MASK;
}

static uint32_t pte_pa(struct run_fixture *fx, uint32_t va)
{
    return table_of(fx, va) + (va >> 12 & 0x3ff) * 4;
}

static uint32_t pa_of(struct run_fixture *fx, uint32_t va)
{
    return (get_u32(fx, pte_pa(fx, va)) & ~GUEST_PAGE_MASK) | (va & GUEST_PAGE_MASK);
}

/* Where the guest itself writes the entry of a page. */
static uint32_t pte_va(uint32_t va)
{
    return (va >= 0xe0000000u ? KTABLES : TABLES) + (va >> 12 & 0x3ff) * 4;
}

static void put_kernel(struct run_fixture *fx, uint32_t va, struct guest_code code)
{
    put(fx, pa_of(fx, va), code.bytes, code.len);
}

static void copy_page(struct run_fixture *fx, uint32_t to, uint32_t from)
{
    uint8_t page[PAGE];

    mmu_phys_read(fx->cpu->mmu, gpa(from), page, PAGE);
    put(fx, to, page, PAGE);
}

static struct run_fixture *spaces_new(void)
{
    struct run_fixture *fx = run_fixture_new();
    uint32_t gate[2] = { 0x08u << 16 | (KCODE & 0xffff),
                         (KCODE & 0xffff0000u) | (DESC_P | DESC_DPL | SYS_INT32) << 8 };

    assert_int_equal(mmu_write_system(fx->cpu, gva(fx->cpu->idtr.base + 8 * 0x80), gate, 8), X86_OK);
    map_alias(fx, TABLES, table_of(fx, CODE), PTE_P | PTE_W);
    map_alias(fx, KTABLES, table_of(fx, KCODE), PTE_P | PTE_W);
    copy_page(fx, SPACE_B, fx->cpu->cr3);
    copy_page(fx, TABLE_B, table_of(fx, CODE));
    put_u32(fx, SPACE_B + (CODE >> 22) * 4, TABLE_B | USER_RW);
    put_u32(fx, TABLE_B + (CODE >> 12 & 0x3ff) * 4, CODE_B | USER_RW);
    put_u32(fx, TABLE_B + ((CODE >> 12 & 0x3ff) + 1) * 4, CODE2_B | USER_RW);
    return fx;
}

static void start(struct run_fixture *fx)
{
    reset_state(fx);
    fx->cpu->gpr[EDX] = fx->cpu->gpr[ESI] = 0;
}

static void set_space(struct run_fixture *fx, uint32_t cr3)
{
    fx->cpu->cr3 = cr3;
    mmu_cr3_loaded(fx->cpu);
}

/* ---- two address spaces --------------------------------------------------------------------------- */

/* Both programs call, recurse and return at the same addresses. What comes behind the call
 * differs: INC EDX in one, INC ESI in the other. */
static void returns_land_in_the_space_that_runs(void **state)
{
    struct run_fixture *fx = spaces_new();
    uint32_t space_a = fx->cpu->cr3;
    const struct guest_code program = GUEST("mov ecx, 100; call 1f; jmp 3f; 1: dec ecx; jz 2f; call 1b; inc "
                                            "edx; 2: xchg ebx, edi; int 0x80; ret; 3: ud2");
    uint32_t inc = 0;

    (void)state;
    for (uint32_t i = 0; i < program.len; i++)
        if (program.bytes[i] == 0x42)
            inc = i;
    put_kernel(fx, KCODE, GUEST("mov cr3, ebx; iret"));
    put_code(fx, CODE, program);
    copy_page(fx, CODE_B, CODE);
    put(fx, CODE_B + inc, "\x46", 1);
    for (int round = 0; round < 3; round++) {
        set_space(fx, space_a);
        start(fx);
        fx->cpu->gpr[EBX] = space_a;
        fx->cpu->gpr[EDI] = SPACE_B;
        run_to(fx, CODE, CODE + program.len - 2);
        assert_int_equal(fx->frame.gpr[EDX] + fx->frame.gpr[ESI], 99);
        assert_int_equal(fx->frame.gpr[ESI], 50);
        assert_int_equal(fx->frame.gpr[ESP], STACK_START);
    }
    run_fixture_free(fx);
}

static void same_jump_in_two_spaces(void **state)
{
    struct run_fixture *fx = spaces_new();
    uint32_t space_a = fx->cpu->cr3;

    (void)state;
    put_kernel(fx, KCODE, GUEST("mov cr3, ebx; iret"));
    /* A loop over two pages, by a direct call and an indirect one; the second page differs. */
    const struct guest_code loop = GUEST(
        "mov ecx, 200; mov eax, " STR(CODE) " + 0x1000; 1: call eax; call 1b + 0x1000 - 10; xchg ebx, edi;"
                                            "int 0x80; loop 1b; ud2");
    put_code(fx, CODE, loop);
    copy_page(fx, CODE_B, CODE);
    put(fx, CODE + PAGE, "\x42\xc3", 2);
    put(fx, CODE2_B, "\x46\xc3", 2);
    for (int round = 0; round < 2; round++) {
        set_space(fx, space_a);
        start(fx);
        fx->cpu->gpr[EBX] = space_a;
        fx->cpu->gpr[EDI] = SPACE_B;
        run_to(fx, CODE, CODE + loop.len - 2);
        assert_int_equal(fx->frame.gpr[EDX], 200);
        assert_int_equal(fx->frame.gpr[ESI], 200);
    }
    run_fixture_free(fx);
}

/* ---- a page changes ---------------------------------------------------------------------------------- */

static const char *const by[] = { "by INVLPG", "by a CR3 load" };

static struct guest_code remap_kernel(int how)
{
    return how ? GUEST("mov [ecx], ebx; mov ebp, cr3; mov cr3, ebp; iret")
               : GUEST("mov [ecx], ebx; invlpg [edi]; iret");
}

/* The caller's page is copied, as on a write after fork, while its calls wait to return. */
static void page_copied_under_pending_returns(void **state)
{
    struct run_fixture *fx = spaces_new();
    const struct guest_code program =
        GUEST("mov eax, 100; call 1f; jmp 3f; 1: dec eax; jz 2f; call 1b; inc edx; ret;"
              "2: int 0x80; ret; 3: ud2");
    uint32_t inc = 0;

    (void)state;
    for (uint32_t i = 0; i < program.len; i++)
        if (program.bytes[i] == 0x42)
            inc = i;
    for (int how = 0; how < 2; how++)
        for (int round = 0; round < 3; round++) {
            put_kernel(fx, KCODE, remap_kernel(how));
            map_alias(fx, CODE, CODE, USER_RW);
            put_code(fx, CODE, program);
            copy_page(fx, CODE_B, CODE);
            put(fx, CODE_B + inc, "\x46", 1);
            start(fx);
            fx->cpu->gpr[EBX] = CODE_B | USER_RW;
            fx->cpu->gpr[ECX] = pte_va(CODE);
            fx->cpu->gpr[EDI] = CODE;
            run_to(fx, CODE, CODE + program.len - 2);
            if (fx->frame.gpr[EDX] != 0 || fx->frame.gpr[ESI] != 99)
                fail_msg("%s: %u old, %u new", by[how], fx->frame.gpr[EDX], fx->frame.gpr[ESI]);
        }
    run_fixture_free(fx);
}

/* The callee's page changes between two calls of a loop that is chained to it. */
static void called_page_replaced_in_a_loop(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    for (int how = 0; how < 2; how++)
        for (int round = 0; round < 2; round++) {
            put_kernel(fx, KCODE, remap_kernel(how));
            map_alias(fx, CODE + PAGE, CODE + PAGE, USER_RW);
            put(fx, CODE + PAGE, "\x42\xc3", 2);
            put(fx, CODE2_B, "\x46\xc3", 2);
            start(fx);
            fx->cpu->gpr[EBX] = CODE2_B | USER_RW;
            fx->cpu->gpr[ECX] = pte_va(CODE + PAGE);
            fx->cpu->gpr[EDI] = CODE + PAGE;
            run_code(fx, GUEST("mov eax, 50; 1: call 1b + 0x1000 - 5; dec eax; jnz 1b; int 0x80;"
                               "mov eax, 30; 2: call 1b + 0x1000 - 5; dec eax; jnz 2b"));
            assert_int_equal(fx->frame.gpr[EDX], 50);
            assert_int_equal(fx->frame.gpr[ESI], 30);
        }
    run_fixture_free(fx);
}

static void page_unmapped_under_a_pending_return(void **state)
{
    struct run_fixture *fx = spaces_new();
    const struct guest_code caller = GUEST("mov eax, " STR(CODE) " + 0x1000; call eax; inc edx; ud2");

    (void)state;
    for (int how = 0; how < 2; how++)
        for (int round = 0; round < 2; round++) {
            put_kernel(fx, KCODE, remap_kernel(how));
            map_alias(fx, CODE, CODE, USER_RW);
            put_code(fx, CODE, caller);
            put_code(fx, CODE + PAGE, GUEST("int 0x80; ret"));
            start(fx);
            fx->cpu->gpr[EBX] = 0;
            fx->cpu->gpr[ECX] = pte_va(CODE);
            fx->cpu->gpr[EDI] = CODE;
            run_from(fx, CODE);
            assert_int_equal(fx->frame.vector, EXC_PF);
            assert_int_equal(fx->frame.error, PF_US);
            assert_int_equal(fx->frame.eip, CODE + 7);
            assert_int_equal(fx->cpu->cr2, CODE + 7);
            assert_int_equal(fx->frame.gpr[ESP], STACK_START); /* the return itself is done */
            /* mapped anew, with other contents */
            copy_page(fx, CODE_B, CODE);
            put(fx, CODE_B + 7, "\x46\x0f\x0b", 3);
            map_alias(fx, CODE, CODE_B, USER_RW);
            start(fx);
            run_to(fx, CODE + 7, CODE + 8);
            assert_int_equal(fx->frame.gpr[ESI], 1);
        }
    run_fixture_free(fx);
}

/* ---- privilege ------------------------------------------------------------------------------------------
 */

static void user_code_cannot_reach_translations_of_the_kernel(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    put_kernel(fx, KCODE, GUEST("inc esi; iret"));
    for (int round = 0; round < 2; round++) {
        start(fx);
        fx->cpu->gpr[EBX] = KCODE;
        run_code(fx, GUEST("int 0x80; int 0x80"));
        assert_int_equal(fx->frame.gpr[ESI], 2);
        start(fx);
        fx->cpu->gpr[EBX] = KCODE;
        put_code(fx, CODE, GUEST("int 0x80; call ebx"));
        run_from(fx, CODE);
        assert_int_equal(fx->frame.vector, EXC_PF);
        assert_int_equal(fx->frame.error, PF_US | PF_P);
        assert_int_equal(fx->frame.eip, KCODE);
    }
    run_fixture_free(fx);
}

/* One function, called by user and by kernel code in turn: its CS is theirs. */
static void code_shared_by_both_privileges(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    put_code(fx, CODE + PAGE, GUEST("mov ax, cs; movzx eax, ax; ret"));
    put_kernel(fx, KCODE, GUEST("call edi; add esi, eax; iret"));
    for (int round = 0; round < 2; round++) {
        start(fx);
        fx->cpu->gpr[EDI] = CODE + PAGE;
        run_code(fx, GUEST("mov ecx, 100; 1: call edi; add edx, eax; int 0x80; loop 1b"));
        assert_int_equal(fx->frame.gpr[EDX], 100 * SEL_CODE);
        assert_int_equal(fx->frame.gpr[ESI], 100 * 0x08);
    }
    run_fixture_free(fx);
}

/* Returns of the kernel and of the program wait at the same time, a thousand times. */
static void interrupts_within_calls_within_interrupts(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    put_kernel(fx, KCODE,
               GUEST("push ecx; mov ecx, 20; 1: call 2f; loop 1b; pop ecx; iret; 2: inc esi; ret"));
    for (int round = 0; round < 2; round++) {
        start(fx);
        run_code(
            fx,
            GUEST("mov ecx, 50; call 1f; jmp 3f; 1: dec ecx; jz 2f; call 1b; 2: int 0x80; inc edx; ret; 3:"));
        assert_int_equal(fx->frame.gpr[EDX], 50);
        assert_int_equal(fx->frame.gpr[ESI], 50 * 20);
    }
    run_fixture_free(fx);
}

/* ---- the kernel's own pages
 * --------------------------------------------------------------------------------- */

static void kernel_maps(struct run_fixture *fx, bool global)
{
    uint32_t g = global ? PTE_G : 0;

    fx->cpu->cr4 = (fx->cpu->cr4 & ~CR4_PGE) | (global ? CR4_PGE : 0);
    for (uint32_t va = VM_FIXTURE_KERNEL; va < VM_FIXTURE_KERNEL + 16 * PAGE; va += PAGE)
        put_u32(fx, pte_pa(fx, va), (va - VM_FIXTURE_KERNEL + 0x10000) | PTE_P | PTE_W | g);
    mmu_flush_all(fx->cpu);
}

/* The instruction behind INVLPG, MOV CR3 or a change of CR4.PGE comes from the new page. */
static void kernel_code_that_moves_under_itself(void **state)
{
    const struct guest_code kernels[] = {
        GUEST("mov [ecx], ebx; invlpg [edi]; inc edx; iret"),
        GUEST("mov [ecx], ebx; mov ebp, cr3; mov cr3, ebp; inc edx; iret"),
        GUEST("mov [ecx], ebx; mov ebp, cr4; xor ebp, 0x80; mov cr4, ebp; inc edx; xor ebp, 0x80; mov cr4, "
              "ebp; iret"),
    };
    struct run_fixture *fx = spaces_new();

    (void)state;
    for (int global = 0; global < 2; global++)
        for (size_t i = 0; i < ARRAY_LEN(kernels); i++)
            for (int round = 0; round < 2; round++) {
                uint32_t inc = 0;
                if (global && i == 1) /* that CR3 load keeps it */
                    continue;
                kernel_maps(fx, global);
                put_kernel(fx, KCODE, kernels[i]);
                copy_page(fx, KPAGE_B, pa_of(fx, KCODE));
                for (uint32_t k = 0; k < kernels[i].len; k++)
                    if (kernels[i].bytes[k] == 0x42)
                        inc = k;
                put(fx, KPAGE_B + inc, "\x46", 1);
                start(fx);
                fx->cpu->gpr[EBX] = KPAGE_B | PTE_P | PTE_W | (global ? PTE_G : 0);
                fx->cpu->gpr[ECX] = pte_va(KCODE);
                fx->cpu->gpr[EDI] = KCODE;
                run_code(fx, GUEST("int 0x80"));
                if (fx->frame.gpr[EDX] != 0 || fx->frame.gpr[ESI] != 1)
                    fail_msg("kernel %zu, global %d: EDX %u, ESI %u", i, global, fx->frame.gpr[EDX],
                             fx->frame.gpr[ESI]);
            }
    run_fixture_free(fx);
}

/* Kernel code goes from page to page a thousand times: by chains if its pages are global. Then the
 * second page is replaced. */
static void kernel_exits_between_pages(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    for (int global = 0; global < 2; global++)
        for (int how = 0; how < 2; how++)
            for (int round = 0; round < 2; round++) {
                kernel_maps(fx, global);
                put_kernel(
                    fx, KCODE,
                    how ? GUEST("cmp eax, 0; jnz 2f; push ecx; mov ecx, 1000; 1: call 1b + 0x1000 - 11; loop "
                                "1b;"
                                "pop ecx; iret; 2: mov [ecx], ebx; mov ebp, cr4; xor ebp, 0x80; mov cr4, ebp;"
                                "xor ebp, 0x80; mov cr4, ebp; iret")
                        : GUEST("cmp eax, 0; jnz 2f; push ecx; mov ecx, 1000; 1: call 1b + 0x1000 - 11; loop "
                                "1b;"
                                "pop ecx; iret; 2: mov [ecx], ebx; invlpg [edi]; iret"));
                put(fx, pa_of(fx, KNEXT), "\x42\xc3", 2);
                put(fx, KPAGE_B, "\x46\xc3", 2);
                start(fx);
                fx->cpu->gpr[EBX] = KPAGE_B | PTE_P | PTE_W | (global ? PTE_G : 0);
                fx->cpu->gpr[ECX] = pte_va(KNEXT);
                fx->cpu->gpr[EDI] = KNEXT;
                uint64_t exits = fx->cpu->stats.exit_total;
                run_code(fx, GUEST("mov eax, 0; int 0x80; int 0x80; mov eax, 1; int 0x80; mov eax, 0; int "
                                   "0x80; int 0x80"));
                assert_int_equal(fx->frame.gpr[EDX], 2000);
                assert_int_equal(fx->frame.gpr[ESI], 2000);
                if (run_config()->chain)
                    assert_true(fx->cpu->stats.exit_total - exits < 1000);
            }
    run_fixture_free(fx);
}

/* A CR3 load between calls across pages: global translations survive it, and stay right. */
static void global_kernel_pages_survive_cr3_loads(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    kernel_maps(fx, true);
    put_kernel(fx, KCODE,
               GUEST("push ecx; mov ecx, 500; 1: call 1b + 0x1000 - 6; mov ebp, cr3; mov cr3, ebp; loop 1b; "
                     "pop ecx; iret"));
    put(fx, pa_of(fx, KNEXT), "\x42\xc3", 2);
    for (int round = 0; round < 2; round++) {
        start(fx);
        run_code(fx, GUEST("int 0x80; int 0x80"));
        assert_int_equal(fx->frame.gpr[EDX], 1000);
    }
    run_fixture_free(fx);
}

/* A straddling instruction whose first page is global and whose second is not. */
static void straddler_of_a_global_and_a_local_page(void **state)
{
    struct run_fixture *fx = spaces_new();

    (void)state;
    for (int round = 0; round < 3; round++) {
        kernel_maps(fx, true);
        put_u32(fx, pte_pa(fx, KNEXT), (KNEXT - VM_FIXTURE_KERNEL + 0x10000) | PTE_P | PTE_W);
        mmu_flush_all(fx->cpu);
        uint32_t second = pa_of(fx, KNEXT);
        put_kernel(fx, KCODE,
                   GUEST("mov ecx, 2; mov edi, " STR(
                       KNEXT) " - 2; 1: call edi; add edx, eax; mov ebp, cr3; "
                              "mov [esi], ebx; mov cr3, ebp; loop 1b; mov esi, 0; iret"));
        put(fx, pa_of(fx, KNEXT - 2), "\xb8\x01", 2);
        put(fx, second, "\0\0\0\xc3", 4);
        put(fx, KPAGE_B, "\1\0\0\xc3", 4);
        start(fx);
        fx->cpu->gpr[EBX] = KPAGE_B | PTE_P | PTE_W;
        fx->cpu->gpr[ESI] = pte_va(KNEXT);
        run_code(fx, GUEST("int 0x80"));
        assert_int_equal(fx->frame.gpr[EDX], 0x001 + 0x101);
    }
    run_fixture_free(fx);
}

/* The reverse map is so small that it is flushed while user code runs, and the window with it. */
static void window_ends_under_running_code(void **state)
{
    struct run_fixture *fx = spaces_new();
    struct mmu *m = fx->cpu->mmu;

    (void)state;
    for (unsigned spare = 1; spare <= 8; spare++) {
        start(fx);
        m->rmap_nodes = m->rmap_fresh + spare;
        run_code(fx, GUEST("mov ecx, 300; mov ebx, " STR(DATA) "; 1: inc dword ptr [ebx]; inc dword ptr [ebx + 0x1000];"
                           "push ecx; inc dword ptr [ebx + 0x2000]; add [ebx + 0x3000], ecx; pop edx; add esi, edx;"
                           "loop 1b"));
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(get_u32(fx, DATA + i * 0x1000), 300 * spare);
        assert_int_equal(get_u32(fx, DATA + 0x3000), 45150 * spare);
        assert_int_equal(fx->frame.gpr[ESI], 45150);
        assert_int_equal(mmu_audit(m), 0);
    }
    run_fixture_free(fx);
}

/* ---- full tables -------------------------------------------------------------------------------- */

#define MANY   0x10000000u /* 65,536 VA pages, all of them the same PA page */
#define T_MANY (SPARE + 0x5000)
#define P_MANY (SPARE + 0x6000)

/* A store across two pages, the first of which the TLB has though its entry is gone, when the second's slot is one
 * more than the lists hold. The processor may have dropped the first at any time, so a page fault is right, but one
 * before the instruction has begun. */
static void a_wipe_comes_before_the_instruction(void **state)
{
    struct run_fixture *fx = spaces_new();
    struct page_list *list = &fx->cpu->mmu->view[VIEW_USER].plain;
    hva_t hva;

    (void)state;
    put_code(fx, CODE, GUEST("mov [ebx], eax; ud2"));
    for (uint32_t i = 0; i < 1024; i++)
        put_u32(fx, T_MANY + 4 * i, P_MANY | USER_RW);
    for (uint32_t va = MANY; va - MANY < LIST_MAX * PAGE; va += PAGE << 10)
        put_u32(fx, fx->cpu->cr3 + (va >> 22) * 4, T_MANY | USER_RW);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DATA;
    fx->cpu->gpr[EAX] = 0x11223344;
    run_to(fx, CODE, CODE + 2);
    uint32_t pte = get_u32(fx, pte_pa(fx, DATA));
    for (uint32_t va = MANY; list->count < LIST_MAX; va += PAGE)
        assert_int_equal(mmu_probe(fx->cpu, gva(va), 1, ACC_READ | ACC_USER, &hva), X86_OK);
    reset_state(fx);
    fx->cpu->gpr[EBX] = DATA + 0xffe;
    fx->cpu->gpr[EAX] = 0x55667788;
    put_u32(fx, pte_pa(fx, DATA), 0);
    run_from(fx, CODE);
    put_u32(fx, pte_pa(fx, DATA), pte);
    if (fx->frame.vector == EXC_PF) {
        assert_int_equal(fx->frame.eip, CODE);
        assert_int_equal(fx->cpu->cr2, DATA + 0xffe);
        assert_int_equal(get_u32(fx, pa_of(fx, DATA) + 0xffc) >> 16, 0);
    } else {
        assert_int_equal(fx->frame.vector, EXC_UD);
        assert_int_equal(get_u32(fx, pa_of(fx, DATA) + 0xffc) >> 16, 0x7788);
    }
    assert_int_equal(mmu_audit(fx->cpu->mmu), 0);
    run_fixture_free(fx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(returns_land_in_the_space_that_runs),
        cmocka_unit_test(same_jump_in_two_spaces),
        cmocka_unit_test(page_copied_under_pending_returns),
        cmocka_unit_test(called_page_replaced_in_a_loop),
        cmocka_unit_test(page_unmapped_under_a_pending_return),
        cmocka_unit_test(user_code_cannot_reach_translations_of_the_kernel),
        cmocka_unit_test(code_shared_by_both_privileges),
        cmocka_unit_test(interrupts_within_calls_within_interrupts),
        cmocka_unit_test(kernel_code_that_moves_under_itself),
        cmocka_unit_test(kernel_exits_between_pages),
        cmocka_unit_test(global_kernel_pages_survive_cr3_loads),
        cmocka_unit_test(straddler_of_a_global_and_a_local_page),
        cmocka_unit_test(window_ends_under_running_code),
        cmocka_unit_test(a_wipe_comes_before_the_instruction),
    };

    return run_config_choose(argc, argv) ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
