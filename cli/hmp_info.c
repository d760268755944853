/* `info` and the text screen. The registers' form is QEMU's, so that scripts can read it. */
#include <string.h>

#include "cli/hmp_internal.h"
#include "cli/image.h"

#define SCREEN_BYTES 16384u

static void segment(struct hmp *hmp, const char *name, const struct segment *s)
{
    hmp_print(hmp, "%-3s=%04x %08x %08x %04x\n", name, s->sel, s->base, s->limit, s->attr);
}

static void flag_letters(uint32_t fl, char out[8])
{
    static const struct {
        uint32_t bit;
        char letter;
    } flags[] = { { EFL_DF, 'D' }, { EFL_OF, 'O' }, { EFL_SF, 'S' }, { EFL_ZF, 'Z' },
                  { EFL_AF, 'A' }, { EFL_PF, 'P' }, { EFL_CF, 'C' } };

    for (unsigned i = 0; i < 7; i++)
        out[i] = fl & flags[i].bit ? flags[i].letter : '-';
    out[7] = 0;
}

/* The FXSAVE image: SDM vol. 1, "FXSAVE Area". The registers are parked there while host events are served.
 */
static void fpu_registers(struct hmp *hmp)
{
    const uint8_t *f = hmp->vm->cpu->fpu;

    hmp_print(hmp, "FCW=%04x FSW=%04x [ST=%u] FTW=%02x MXCSR=%08x\n", get_le16(f), get_le16(f + 2),
              get_le16(f + 2) >> 11 & 7, f[4], get_le32(f + 24));
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *st = f + 32 + 16 * i;
        hmp_print(hmp, "ST%u=%04x %016llx%s", i, get_le16(st + 8), (unsigned long long)get_le64(st),
                  i & 1 ? "\n" : " ");
    }
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *xmm = f + 160 + 16 * i;
        hmp_print(hmp, "XMM%02u=%016llx%016llx%s", i, (unsigned long long)get_le64(xmm + 8),
                  (unsigned long long)get_le64(xmm), i & 1 ? "\n" : " ");
    }
}

static void info_registers(struct hmp *hmp)
{
    static const char *const names[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS" };
    const struct vcpu *cpu = hmp->vm->cpu;
    const uint32_t *r = cpu->gpr;
    char letters[8];

    flag_letters(vcpu_eflags_get(cpu), letters);
    hmp_print(hmp, "EAX=%08x EBX=%08x ECX=%08x EDX=%08x\n", r[EAX], r[EBX], r[ECX], r[EDX]);
    hmp_print(hmp, "ESI=%08x EDI=%08x EBP=%08x ESP=%08x\n", r[ESI], r[EDI], r[EBP], r[ESP]);
    hmp_print(hmp, "EIP=%08x EFL=%08x [%s] CPL=%u A20=%u\n", cpu->eip, vcpu_eflags_get(cpu), letters,
              cpu->cpl, !cpu->a20_off);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment(hmp, names[i], &cpu->segs[i]);
    segment(hmp, "LDT", &cpu->ldtr);
    segment(hmp, "TR", &cpu->tr);
    hmp_print(hmp, "GDT=     %08x %08x\nIDT=     %08x %08x\n", cpu->gdtr.base, cpu->gdtr.limit,
              cpu->idtr.base, cpu->idtr.limit);
    hmp_print(hmp, "CR0=%08x CR2=%08x CR3=%08x CR4=%08x\n", cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4);
    hmp_print(hmp, "DR0=%08x DR1=%08x DR2=%08x DR3=%08x\nDR6=%08x DR7=%08x\n", cpu->dr[0], cpu->dr[1],
              cpu->dr[2], cpu->dr[3], cpu->dr[6], cpu->dr[7]);
    hmp_print(hmp, "EFER=%016llx\n", (unsigned long long)cpu->efer);
    fpu_registers(hmp);
}

static void info_screen(struct hmp *hmp)
{
    char text[SCREEN_BYTES], line[256];

    machine_vga_text(hmp->vm->machine, text, sizeof text);
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n"), shown = len < sizeof line ? len : sizeof line - 1;
        memcpy(line, p, shown);
        line[shown] = 0;
        hmp_print(hmp, "%s\n", line);
        p += len + (p[len] != 0);
    }
}

void hmp_info(struct hmp *hmp, const struct hmp_args *args)
{
    const char *what = args->word[1];

    if (!strcmp(what, "registers"))
        info_registers(hmp);
    else if (!strcmp(what, "status"))
        hmp_print(hmp, "VM status: %s\n", hmp->vm->is_paused ? "paused" : "running");
    else if (!strcmp(what, "screen"))
        info_screen(hmp);
    else if (!strcmp(what, "version"))
        hmp_print(hmp, "ringdown " RINGDOWN_VERSION "\n");
    else
        hmp_print(hmp, "info: no '%.80s': there are registers, status, screen, version\n", what);
}

static bool copy_text(struct hmp *hmp, void *ctx, uint64_t ofs, uint8_t *buf, uint32_t len)
{
    (void)hmp;
    memcpy(buf, (const char *)ctx + ofs, len);
    return true;
}

void hmp_screendump(struct hmp *hmp, const struct hmp_args *args)
{
    char text[SCREEN_BYTES];
    size_t len = machine_vga_text(hmp->vm->machine, text, sizeof text);

    hmp_write_file(hmp, args->word[1], len, copy_text, text);
}
