/*
 * Derived vCPU state: the mode word, the copy of segment bases that translated code
 * reads, and power-on values. The offsets that assembly relies on are checked here.
 */
#include "base/cpu.h"

#define VCPU_OFFSET(field, value) \
    _Static_assert(offsetof(struct vcpu, field) == (value), "vcpu_layout.h: " #field);
#include "base/vcpu_layout.h"
#undef VCPU_OFFSET

/* Base 0 and every offset valid, whatever the rights. */
static bool is_whole(const struct segment *s)
{
    return (s->attr & DESC_P) && s->limit == UINT32_MAX &&
           !((s->attr & (DESC_CODE | DESC_DOWN)) == DESC_DOWN);
}

static bool is_writable_data(const struct segment *s)
{
    return (s->attr & (DESC_S | DESC_CODE | DESC_WRITE)) == (DESC_S | DESC_WRITE);
}

static bool is_flat_data(const struct segment *s)
{
    return is_whole(s) && is_writable_data(s) && s->base == 0;
}

void vcpu_update_mode(struct vcpu *cpu)
{
    const struct segment *s = cpu->segs;
    uint32_t mode = cpu->mode & MODE_WINDOW;

    for (int i = 0; i < SEG_COUNT; i++)
        cpu->seg_base[i] = s[i].base;

    if (cpu->cpl == 3)
        mode |= MODE_CPL3;
    else if (cpu->cpl == 0)
        mode |= MODE_CPL0;
    if (s[SEG_CS].attr & DESC_DB)
        mode |= MODE_CODE32;
    if (s[SEG_SS].attr & DESC_DB)
        mode |= MODE_STACK32;
    if (is_whole(&s[SEG_CS]) && s[SEG_CS].base == 0 && (s[SEG_CS].attr & DESC_READ))
        mode |= MODE_CS_FLAT;
    if (is_flat_data(&s[SEG_DS]))
        mode |= MODE_DS_FLAT;
    if (is_flat_data(&s[SEG_ES]))
        mode |= MODE_ES_FLAT;
    if (is_flat_data(&s[SEG_SS]))
        mode |= MODE_SS_FLAT;
    if (is_whole(&s[SEG_FS]) && is_writable_data(&s[SEG_FS]))
        mode |= MODE_FS_BASED;
    if (is_whole(&s[SEG_GS]) && is_writable_data(&s[SEG_GS]))
        mode |= MODE_GS_BASED;
    if (cpu->cr0 & (CR0_TS | CR0_EM))
        mode |= MODE_FPU_NM;
    if ((cpu->cr0 & (CR0_TS | CR0_MP)) == (CR0_TS | CR0_MP))
        mode |= MODE_WAIT_NM;
    if (!(cpu->cr4 & CR4_OSFXSR) || (cpu->cr0 & CR0_EM))
        mode |= MODE_SSE_UD;
    if (cpu->cr0 & CR0_PE)
        mode |= MODE_PROTECTED;
    if (cpu->eflags_sys & EFL_VM)
        mode |= MODE_VM86;
    if (cpu->eflags_sys & EFL_TF)
        mode |= MODE_STEP;
    cpu->mode = mode;
}

/* x87 and SSE after reset or FINIT: control word 0x37f (0x40 at power-up), MXCSR 0x1f80. */
static void reset_fpu(struct vcpu *cpu)
{
    for (size_t i = 0; i < sizeof cpu->fpu; i++)
        cpu->fpu[i] = 0;
    cpu->fpu[0] = 0x40; /* FCW as at power-up */
    cpu->fpu[4] = 0xff; /* abridged tag word: all valid (zeros) */
    cpu->fpu[24] = 0x80;
    cpu->fpu[25] = 0x1f;
    cpu->fpu_live = 0;
}

void vcpu_reset(struct vcpu *cpu)
{
    for (int i = 0; i < 8; i++) {
        cpu->gpr[i] = 0;
        cpu->dr[i] = 0;
    }
    cpu->gpr[EDX] = 0x600;
    cpu->eip = 0xfff0;
    vcpu_eflags_set(cpu, EFL_ONE);
    for (int i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = (struct segment){ .sel = 0, .base = 0, .limit = 0xffff,
                                         .attr = DESC_P | DESC_S | DESC_WRITE | DESC_ACCESSED };
    cpu->segs[SEG_CS] = (struct segment){ .sel = 0xf000, .base = 0xffff0000u, .limit = 0xffff,
                                          .attr = DESC_P | DESC_S | DESC_CODE | DESC_READ | DESC_ACCESSED };
    cpu->ldtr = (struct segment){ .limit = 0xffff, .attr = DESC_P | SYS_LDT };
    cpu->tr = (struct segment){ .limit = 0xffff, .attr = DESC_P | SYS_TSS32_BUSY };
    cpu->gdtr = (struct table_reg){ 0, 0xffff };
    cpu->idtr = (struct table_reg){ 0, 0xffff };
    cpu->cr0 = CR0_CD | CR0_NW | CR0_ET;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    cpu->dr[6] = 0xffff0ff0u;
    cpu->dr[7] = 0x400;
    cpu->efer = 0;
    cpu->pat = 0x0007040600070406ull;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->cpl = 0;
    cpu->intr_shadow = false;
    cpu->a20_off = false;
    cpu->intr_quiet = 1;
    cpu->run = 1;
    reset_fpu(cpu);
    vcpu_update_mode(cpu);
}
