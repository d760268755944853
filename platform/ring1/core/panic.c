/* The end that nobody wants, with all there is to know about it. */
#include <stdarg.h>

#include "base/cpu.h"
#include "base/log.h"
#include "platform/ring1/core/core.h"
#include "platform/ring1/core/machine.h"

#define PANIC_STATUS 1

void core_print(const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    int n = fmt_vformat(line, sizeof line, fmt, ap);
    va_end(ap);
    log_put(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void print_guest(const struct vcpu *cpu)
{
    core_print("guest: EAX=0x%08x ECX=0x%08x EDX=0x%08x EBX=0x%08x ESP=0x%08x EBP=0x%08x ESI=0x%08x EDI=0x%08x\n",
               cpu->gpr[EAX], cpu->gpr[ECX], cpu->gpr[EDX], cpu->gpr[EBX], cpu->gpr[ESP], cpu->gpr[EBP],
               cpu->gpr[ESI], cpu->gpr[EDI]);
    core_print("guest: EIP=0x%08x EFLAGS=0x%08x CPL=%u mode=0x%05x CR0=0x%08x CR3=0x%08x CR4=0x%08x\n", cpu->eip,
               vcpu_eflags_get(cpu), cpu->cpl, cpu->mode, cpu->cr0, cpu->cr3, cpu->cr4);
}

_Noreturn void core_panic(const struct trap_frame *f, const char *why)
{
    core_print("ringdown-metal: internal error: %s\n", why);
    if (f) {
        core_print("vector %llu error 0x%llx RIP 0x%llx CS 0x%llx RFLAGS 0x%llx RSP 0x%llx SS 0x%llx CR2 0x%llx%s\n",
                   (unsigned long long)f->vector, (unsigned long long)f->error, (unsigned long long)f->rip,
                   (unsigned long long)f->cs, (unsigned long long)f->rflags, (unsigned long long)f->rsp,
                   (unsigned long long)f->ss, (unsigned long long)read_cr2(),
                   memory_is_code(f->rip) ? ", in translated code" : "");
        const uint64_t *reg = &f->r15;
        static const char *const name[] = { "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8",
                                            "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax" };
        for (unsigned i = 0; i < ARRAY_LEN(name); i++)
            core_print("%s=0x%016llx%s", name[i], (unsigned long long)reg[i], i % 5 == 4 ? "\n" : " ");
    }
    if (core_world.cpu)
        print_guest(core_world.cpu);
    machine_exit(PANIC_STATUS);
}
