/*
 * The ends that nobody wants, and the one-line explanation of failures.
 *
 * Everything here may run in a signal handler of a broken process: it formats with
 * our own formatter into the stack and calls only async-signal-safe functions.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/hosted/hosted_internal.h"

static char error_text[512];

const char *hosted_error(void)
{
    return error_text;
}

int hosted_fail(int rc, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fmt_vformat(error_text, sizeof error_text, fmt, ap);
    va_end(ap);
    return rc;
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    int n = fmt_vformat(line, sizeof line, fmt, ap);
    va_end(ap);
    size_t len = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written;
}

void hosted_emergency(void)
{
    hosted_chardev_last_words();
    hosted_log_flush();
    hosted_terminal_restore();
    hosted_async_undo();
}

void hosted_report_vcpu(void)
{
    const struct vcpu *cpu = hosted_vcpu;

    if (!cpu)
        return;
    say("guest: EAX=0x%08x ECX=0x%08x EDX=0x%08x EBX=0x%08x ESP=0x%08x EBP=0x%08x ESI=0x%08x EDI=0x%08x\n",
        cpu->gpr[EAX], cpu->gpr[ECX], cpu->gpr[EDX], cpu->gpr[EBX], cpu->gpr[ESP], cpu->gpr[EBP],
        cpu->gpr[ESI], cpu->gpr[EDI]);
    say("guest: EIP=0x%08x next=0x%08x EFLAGS=0x%08x CPL=%u mode=0x%05x CR0=0x%08x CR2=0x%08x CR3=0x%08x "
        "CR4=0x%08x\n",
        cpu->eip, cpu->next_eip, vcpu_eflags_get(cpu), cpu->cpl, cpu->mode, cpu->cr0, cpu->cr2, cpu->cr3,
        cpu->cr4);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        say("guest: %s=0x%04x base=0x%08x limit=0x%08x attr=0x%04x\n", &"ES\0CS\0SS\0DS\0FS\0GS"[i * 3],
            cpu -> segs[i].sel, cpu->segs[i].base, cpu->segs[i].limit, cpu->segs[i].attr);
    say("guest: %llu CCFs made, %llu instructions translated, %llu exits, last exception %u\n",
        (unsigned long long)cpu->stats.tu_translated, (unsigned long long)cpu->stats.insn_translated,
        (unsigned long long)cpu->stats.exit_total, cpu->fault.vector);
}

void platform_assert_failed(const char *expr, const char *file, int line)
{
    hosted_park();
    hosted_emergency();
    say("ringdown: assertion failed: %s (%s:%d)\n", expr, file, line);
    hosted_report_vcpu();
    abort();
}
