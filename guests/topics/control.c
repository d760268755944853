/*
 * Control flow that predictors and caches of return addresses get wrong: deep recursion,
 * returns to elsewhere, stacks exchanged between coroutines, jump tables, calls that only
 * read EIP, and the loop instructions.
 */
#include "../lib/guest.h"

SNIPPET(f_recursion, "mov $1000, %ecx; xor %eax, %eax; call 1f; jmp 2f;"
                     "1: inc %eax; dec %ecx; jz 3f; call 1b; 3: inc %ebx; ret; 2:");
SNIPPET(f_ret_elsewhere,
        "push $1f; push $2f; push $3f; ret; hlt; 3: inc %eax; ret; hlt; 2: inc %eax; ret; hlt; 1: inc %eax");
SNIPPET(f_changed_return, "call 1f; hlt; 2: mov $5, %eax; jmp 3f; 1: incl (%esp); ret; 3:");
SNIPPET(f_skipped_return, "call 1f; jmp 3f; 1: call 2f; hlt; 2: add $4, %esp; inc %eax; ret; 3:");
SNIPPET(f_call_pop, "call 1f; 1: pop %eax; sub $1b, %eax");
SNIPPET(f_ret_n, "mov %esp, %ebx; push $1; push $2; push $3; call 1f; sub %esp, %ebx; jmp 2f; 1: mov "
                 "8(%esp), %eax; ret $12; 2:");
SNIPPET(f_loop, "mov $10, %ecx; 1: inc %eax; loop 1b");
SNIPPET(f_loop_16, "mov $0x10003, %ecx; 1: inc %eax; .byte 0x67; loop 1b");
SNIPPET(f_loope, "mov $10, %ecx; 1: inc %eax; cmp $5, %eax; loopne 1b");
SNIPPET(f_loopne, "mov $10, %ecx; 1: inc %eax; cmp %eax, %eax; loope 1b");
SNIPPET(f_jecxz, "xor %ecx, %ecx; jecxz 1f; hlt; 1: mov $0x10000, %ecx; jecxz 2f; .byte 0x67; jecxz 3f; 2: "
                 "hlt; 3: inc %eax");
SNIPPET(f_flags_over_loop, "stc; mov $3, %ecx; 1: loop 1b; setc %al");
SNIPPET(f_coroutines, "mov $co_stack_top, %ebp; movl $2f, -4(%ebp); sub $4, %ebp;" /* EBP: the other stack */
                      "mov $500, %ecx; 1: xchg %esp, %ebp; ret; 3: inc %eax; dec %ecx; jnz 4f; jmp 5f;"
                      "4: push $3b; xchg %esp, %ebp; ret;"
                      "2: inc %ebx; push $2b; xchg %esp, %ebp; jmp 3b; 5:");
SNIPPET(f_table, "mov $0, %esi; 1: mov %esi, %eax; and $7, %eax; jmp *jump_table_m(, %eax, 4);"
                 "tab0: add $1, %ebx; jmp 2f; tab1: add $10, %ebx; jmp 2f; tab2: add $100, %ebx; jmp 2f;"
                 "tab3: add $1000, %ebx; 2: inc %esi; cmp $4000, %esi; jne 1b");
SNIPPET(
    f_call_table,
    "mov $0, %esi; 1: mov %esi, %eax; and $3, %eax; call *call_table_m(, %eax, 4); inc %esi; cmp $400, %esi;"
    "jne 1b; jmp 9f; sub0: inc %ebx; ret; sub1: add $2, %ebx; ret; sub2: add $3, %ebx; ret $0; sub3: add $4, "
    "%ebx; ret; 9:");
SNIPPET(f_call_mem_esp, "push $1f; call *(%esp); jmp 2f; 1: inc %eax; ret; 2: add $4, %esp");
SNIPPET(f_pushf_branches,
        "xor %eax, %eax; mov $200, %ecx; 1: test $1, %ecx; jz 2f; inc %eax; 2: dec %ecx; jnz 1b");
SNIPPET(f_setjmp,
        "mov %esp, %ebp; call 1f; hlt; 1: call 2f; hlt; 2: call 3f; hlt; 3: mov %ebp, %esp; inc %eax");
LABEL(tab0);
LABEL(tab1);
LABEL(tab2);
LABEL(tab3);
LABEL(sub0);
LABEL(sub1);
LABEL(sub2);
LABEL(sub3);
static uint8_t co_stack[1024] __attribute__((used, aligned(16)));
static const void *const jump_table[8]
    __attribute__((used)) = { tab0, tab1, tab2, tab3, tab0, tab0, tab1, tab3 };
static const void *const call_table[4] __attribute__((used)) = { sub0, sub1, sub2, sub3 };
__asm__(".set co_stack_top, co_stack + 1024\n.set jump_table_m, jump_table\n.set call_table_m, call_table");

static struct context go(int ring, const char *name, const void *code)
{
    struct context c = run_at(ring, code);

    check_done(name, &c);
    return c;
}

static void at_ring(int ring)
{
    struct context c = go(ring, "recursion", f_recursion);

    check_eq("recursion_calls", c.eax, 1000);
    check_eq("recursion_returns", c.ebx, 1000);
    check_eq("returns_to_elsewhere", go(ring, "returns", f_ret_elsewhere).eax, 3);
    check_eq("changed_return_address", go(ring, "changed_return", f_changed_return).eax, 5);
    check_eq("skipped_return", go(ring, "skipped", f_skipped_return).eax, 1);
    check_eq("call_pop_gives_eip", go(ring, "call_pop", f_call_pop).eax, 0);
    c = go(ring, "ret_n", f_ret_n);
    check_eq("ret_n_drops_arguments", c.ebx, 0);
    check_eq("ret_n_saw_argument", c.eax, 2);
    check_eq("loop_count", go(ring, "loop", f_loop).eax, 10);
    c = go(ring, "loop_16", f_loop_16);
    check_eq("loop_16_count", c.eax, 3);
    check_eq("loop_16_keeps_high_half", c.ecx, 0x10000);
    c = go(ring, "loopne", f_loope);
    check_eq("loopne_stops_at_equal", c.eax, 5);
    check_eq("loopne_ecx", c.ecx, 5);
    check_eq("loope_runs_out", go(ring, "loope", f_loopne).eax, 10);
    check_eq("jecxz", go(ring, "jecxz_done", f_jecxz).eax, 1);
    check_eq("loop_keeps_flags", go(ring, "loop_flags", f_flags_over_loop).eax & 0xff, 1);
    c = go(ring, "coroutines", f_coroutines);
    check_eq("coroutine_one", c.eax, 500);
    check_eq("coroutine_two", c.ebx, 500);
    check_eq("jump_table", go(ring, "jump_table_done", f_table).ebx,
             500 * (1 + 10 + 100 + 1000 + 1 + 1 + 10 + 1000));
    check_eq("call_table", go(ring, "call_table_done", f_call_table).ebx, 100 * (1 + 2 + 3 + 4));
    check_eq("call_through_stack_top", go(ring, "call_mem_esp", f_call_mem_esp).eax, 1);
    check_eq("branches", go(ring, "branches_done", f_pushf_branches).eax, 100);
    for (int i = 0; i < 50; i++)
        check_eq("stack_thrown_away", go(ring, "setjmp", f_setjmp).eax, 1);
}

/* Deep recursion from C, deeper than any shadow stack, with faults and interrupts on the way. */
static uint32_t __attribute__((noinline)) depth(uint32_t n)
{
    volatile uint32_t local = n;

    if (n == 0)
        return 0;
    if ((n & 127) == 0) {
        struct context c = run_at(3, f_loop); /* other code, other stack, back by an exception */

        if (c.vector != VEC_DONE)
            return 0x80000000u;
    }
    return depth(n - 1) + (local == n);
}

static uint8_t big_stack[1 << 20] __attribute__((used, aligned(16)));
static uint32_t __attribute__((noinline)) on_big_stack(uint32_t n)
{
    uint32_t result;

    __asm__ volatile("mov %%esp, %%esi; lea %2, %%esp; push %1; call *%3; mov %%esi, %%esp"
                     : "=a"(result)
                     : "r"(n), "m"(big_stack[sizeof big_stack - 64]), "r"(depth)
                     : "ecx", "edx", "esi", "memory", "cc");
    return result;
}

void guest_main(void)
{
    at_ring(0);
    at_ring(3);
    check_eq("five_thousand_deep", on_big_stack(5000), 5000);
}
