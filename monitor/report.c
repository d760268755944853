/*
 * The one-screen report of a guest that can't go on: why, registers, and the bytes at EIP.
 */
#include "monitor/report.h"

#include "base/string.h"

struct text {
    char *p;
    size_t left;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = fmt_vformat(t->p, t->left, fmt, ap);
    va_end(ap);
    size_t used = (size_t)n < t->left ? (size_t)n : t->left ? t->left - 1 : 0;
    t->p += used;
    t->left -= used;
}

static void add_segments(struct text *t, const struct vcpu *cpu)
{
    static const char *const names[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs" };

    for (int i = 0; i < SEG_COUNT; i++)
        add(t, "%s=0x%04x base 0x%08x limit 0x%08x attr 0x%04x%s", names[i], cpu->segs[i].sel,
            cpu->segs[i].base, cpu->segs[i].limit, cpu->segs[i].attr, i % 2 ? "\n" : "   ");
}

/* Up to 15 bytes, as far as they are mapped. A page fault on the way leaves the vCPU alone. */
static void add_code(struct text *t, struct vcpu *cpu)
{
    struct fault saved = cpu->fault;
    uint8_t b;

    add(t, "code:");
    for (uint32_t i = 0; i < 15; i++) {
        if (mmu_read_system(cpu, gva(cpu->segs[SEG_CS].base + cpu->eip + i), &b, 1) != X86_OK)
            break;
        add(t, " %02x", b);
    }
    add(t, "\n");
    cpu->fault = saved;
}

void report_state(struct vcpu *cpu, const char *why, char *buf, size_t size)
{
    struct text t = { buf, size };
    const uint32_t *r = cpu->gpr;

    add(&t, "ringdown: %s at 0x%04x:0x%08x (cpl %u, mode 0x%05x)\n", why, cpu->segs[SEG_CS].sel, cpu->eip,
        cpu->cpl, cpu->mode);
    add(&t, "eax=0x%08x ecx=0x%08x edx=0x%08x ebx=0x%08x\n", r[EAX], r[ECX], r[EDX], r[EBX]);
    add(&t, "esp=0x%08x ebp=0x%08x esi=0x%08x edi=0x%08x\n", r[ESP], r[EBP], r[ESI], r[EDI]);
    add(&t, "eflags=0x%08x cr0=0x%08x cr2=0x%08x cr3=0x%08x cr4=0x%08x\n", vcpu_eflags_get(cpu), cpu->cr0,
        cpu->cr2, cpu->cr3, cpu->cr4);
    add(&t, "gdtr=0x%08x/0x%04x idtr=0x%08x/0x%04x\n", cpu->gdtr.base, cpu->gdtr.limit, cpu->idtr.base,
        cpu->idtr.limit);
    add_segments(&t, cpu);
    add(&t, "last exception: vector %u error 0x%x\n", cpu->fault.vector, cpu->fault.error);
    add_code(&t, cpu);
}
