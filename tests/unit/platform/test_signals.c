/*
 * Faults in translated code reach the exit stub with the vCPU's words set; an overflow of
 * the shadow return stack repairs itself. The "translated code" is a few bytes in code
 * memory, and the stub a piece of assembly that goes back to the test.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "platform/hosted/hosted_internal.h"

#define STACK_BYTES 16384u

void enter(const uint8_t *code, void *stack, struct vcpu *cpu);
extern const char stub[];

/* enter(code, stack, cpu): run code on another stack; back through `stub`. */
__asm__(".text\n"
        ".globl enter, stub\n"
        "enter:\n"
        "   push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "   mov %rsp, saved_rsp(%rip)\n"
        "   mov %rdx, %r15\n"
        "   mov %rsi, %rsp\n"
        "   jmp *%rdi\n"
        "stub:\n"
        "   mov saved_rsp(%rip), %rsp\n"
        "   pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "   ret\n"
        ".local saved_rsp\n .comm saved_rsp, 8\n");

static struct vcpu *cpu;
static uint8_t *rw;
static const uint8_t *rx;
static uint8_t *stack;

static void run_bytes(const uint8_t *code, size_t len)
{
    memcpy(rw, code, len);
    cpu->host_signal = 0;
    enter(rx, stack + STACK_BYTES, cpu);
}

/* cmocka takes over the fault signals around each test: install ours inside. */
static void install(void)
{
    assert_int_equal(hosted_signals_init(), 0);
    hosted_attach(cpu, (uintptr_t)stub);
}

static void a_bad_access_names_address_and_instruction(void **state)
{
    /* xor ecx, ecx; mov eax, [rcx + 0x10] */
    static const uint8_t code[] = { 0x31, 0xc9, 0x8b, 0x41, 0x10 };

    (void)state;
    install();
    run_bytes(code, sizeof code);
    assert_int_equal(cpu->host_signal, SIGSEGV);
    assert_int_equal(cpu->host_rip, (uintptr_t)rx + 2);
    assert_int_equal(cpu->host_addr, 0x10);
}

static void other_faults_are_told_apart(void **state)
{
    static const struct {
        uint8_t code[8];
        int sig, code_wanted;
    } cases[] = {
        { { 0x0f, 0x0b }, SIGILL, ILL_ILLOPN },                         /* ud2 */
        { { 0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1 }, SIGFPE, FPE_INTDIV }, /* div ecx, 0 */
        { { 0xcc }, SIGTRAP, SI_KERNEL },                               /* int3 */
    };
    (void)state;
    install();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run_bytes(cases[i].code, sizeof cases[i].code);
        assert_int_equal(cpu->host_signal, cases[i].sig);
        assert_int_equal(cpu->host_code, cases[i].code_wanted);
    }
}

static void a_step_stops_after_one_instruction(void **state)
{
    /* pushfq; or dword [rsp], 0x100; popfq; nop; nop: the trap comes after the first nop */
    static const uint8_t code[] = { 0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90, 0x0f, 0x0b };

    (void)state;
    install();
    run_bytes(code, sizeof code);
    assert_int_equal(cpu->host_signal, SIGTRAP);
    assert_int_equal(cpu->host_rip, (uintptr_t)rx + 10);
}

/* Calls without returns run down the stack; the guard starts it over, again and again. */
static void shadow_stack_overflow_starts_over(void **state)
{
    /* mov ecx, 100000; l: call m; m: dec ecx; jnz l; ud2 */
    static const uint8_t code[] = { 0xb9, 0xa0, 0x86, 1,    0,    0xe8, 0,    0,
                                    0,    0,    0xff, 0xc9, 0x75, 0xf7, 0x0f, 0x0b };

    (void)state;
    install();
    cpu->shadow_top = (uintptr_t)stack + STACK_BYTES;
    run_bytes(code, sizeof code);
    assert_int_equal(cpu->host_signal, SIGILL);
    assert_int_equal(cpu->host_rip, (uintptr_t)rx + 14);
}

static void faults_outside_translated_code_still_kill(void **state)
{
    int status;

    (void)state;
    pid_t child = fork();
    if (child == 0) {
        int null = dup(STDERR_FILENO);
        (void)null;
        close(STDERR_FILENO);
        install();
        volatile int *volatile nowhere = NULL;
        *nowhere = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void fpu_state_is_parked_once(void **state)
{
    const uint64_t pi = 0x400a000000000000; /* 3.25 */
    uint16_t control;
    uint32_t mxcsr;

    (void)state;
    install();
    cpu->fpu_live = 1;
    __asm__ volatile("fninit\n fldl %0\n movsd %0, %%xmm5" : : "m"(pi)); /* we use neither */
    vcpu_fpu_park(cpu);
    __asm__ volatile("fnstcw %0\n stmxcsr %1" : "=m"(control), "=m"(mxcsr));
    assert_int_equal(cpu->fpu_live, 0);
    assert_int_equal(control, 0x37f);
    assert_int_equal(mxcsr & 0xffc0u, 0x1f80);
    assert_memory_equal(cpu->fpu + 160 + 5 * 16, &pi, sizeof pi);
    assert_int_equal(cpu->fpu[4], 0x80); /* abridged tag: ST0 in register 7 */
    memset(cpu->fpu, 0xee, 512);
    vcpu_fpu_park(cpu);
    assert_int_equal(cpu->fpu[0], 0xee);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_access_names_address_and_instruction),
        cmocka_unit_test(other_faults_are_told_apart),
        cmocka_unit_test(a_step_stops_after_one_instruction),
        cmocka_unit_test(shadow_stack_overflow_starts_over),
        cmocka_unit_test(faults_outside_translated_code_still_kill),
        cmocka_unit_test(fpu_state_is_parked_once),
    };
    cpu = platform_reserve(sizeof *cpu);
    stack = platform_reserve(STACK_BYTES);
    if (!cpu || !stack || platform_code_alloc(4096, &rw, &rx) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
