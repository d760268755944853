/*
 * Derived vCPU state: the mode word, the copy of segment bases that translated code
 * reads, and power-on values. The offsets that assembly relies on are checked here.
 */
#include "base/cpu.h"

#define VCPU_OFFSET(field, value) \
    _Static_assert(offsetof(struct vcpu, field) == (value), "vcpu_layout.h: " #field);
#include "base/vcpu_layout.h"
#undef VCPU_OFFSET

/*
 * Flat means: present, writable data, expand-up, limit 4 GiB - 1 (and base 0). Transfers and
 * segment loads recompute the mode each time, so each test is one comparison with zero and
 * compiles to no branch.
 */
static uint32_t unlike(const struct segment *s, unsigned mask, unsigned want)
{
    return ((s->attr ^ want) & mask) | ~s->limit;
}

static uint32_t unlike_flat_data(const struct segment *s)
{
    return unlike(s, DESC_P | DESC_S | DESC_CODE | DESC_DOWN | DESC_WRITE, DESC_P | DESC_S | DESC_WRITE);
}

static uint32_t mode_if(bool condition, uint32_t bit)
{
    return condition ? bit : 0u;
}

/* 64 KiB from any base, as real mode and virtual-8086 mode have them. */
static uint32_t unlike_64k(const struct segment *s, unsigned mask)
{
    return ((s->attr ^ (DESC_P | DESC_S | DESC_WRITE)) & mask) | (s->limit ^ 0xffffu);
}

static uint32_t unlike_64k_data(const struct segment *s)
{
    return unlike_64k(s, DESC_P | DESC_S | DESC_CODE | DESC_DOWN | DESC_WRITE);
}

_Static_assert(DESC_WRITE == DESC_READ, "unlike_64k serves data that can be written and code that can be read");

/* What is worth knowing of segments that are not flat. */
static uint32_t odd_segment_mode(const struct segment *s)
{
    uint32_t mode = mode_if(!unlike_flat_data(&s[SEG_DS]), MODE_DS_BASED);

    mode |= mode_if(!unlike_flat_data(&s[SEG_ES]), MODE_ES_BASED);
    mode |= mode_if(!unlike_flat_data(&s[SEG_SS]), MODE_SS_BASED);
    mode |= mode_if(!unlike_64k(&s[SEG_CS], DESC_P | DESC_S | DESC_READ), MODE_CS_64K);
    mode |= mode_if(!unlike_64k_data(&s[SEG_DS]), MODE_DS_64K);
    mode |= mode_if(!unlike_64k_data(&s[SEG_ES]), MODE_ES_64K);
    mode |= mode_if(!unlike_64k_data(&s[SEG_SS]), MODE_SS_64K);
    mode |= mode_if(!unlike_64k_data(&s[SEG_FS]), MODE_FS_64K);
    mode |= mode_if(!unlike_64k_data(&s[SEG_GS]), MODE_GS_64K);
    return mode;
}

static uint32_t segment_mode(const struct segment *s)
{
    uint32_t unlike_flat_code = unlike(&s[SEG_CS], DESC_P | DESC_READ, DESC_P | DESC_READ);
    uint32_t mode = mode_if(s[SEG_CS].attr & DESC_DB, MODE_CODE32);

    mode |= mode_if(s[SEG_SS].attr & DESC_DB, MODE_STACK32);
    mode |= mode_if(!(unlike_flat_code | s[SEG_CS].base), MODE_CS_FLAT);
    mode |= mode_if(!(unlike_flat_data(&s[SEG_DS]) | s[SEG_DS].base), MODE_DS_FLAT);
    mode |= mode_if(!(unlike_flat_data(&s[SEG_ES]) | s[SEG_ES].base), MODE_ES_FLAT);
    mode |= mode_if(!(unlike_flat_data(&s[SEG_SS]) | s[SEG_SS].base), MODE_SS_FLAT);
    if (__builtin_expect((mode & MODE_ALL_FLAT) != MODE_ALL_FLAT, 0))
        mode |= odd_segment_mode(s);
    return mode;
}

static uint32_t system_mode(const struct vcpu *cpu)
{
    uint32_t mode = mode_if(cpu->cpl == 3, MODE_CPL3) | mode_if(cpu->cpl == 0, MODE_CPL0);

    mode |= mode_if(cpu->cr0 & (CR0_TS | CR0_EM), MODE_FPU_NM);
    mode |= mode_if(!(~cpu->cr0 & (CR0_TS | CR0_MP)), MODE_WAIT_NM);
    mode |= mode_if((~cpu->cr4 & CR4_OSFXSR) | (cpu->cr0 & CR0_EM), MODE_SSE_UD);
    mode |= mode_if(cpu->cr0 & CR0_PE, MODE_PROTECTED);
    mode |= mode_if(cpu->eflags_sys & EFL_VM, MODE_VM86);
    mode |= mode_if(cpu->eflags_sys & EFL_TF, MODE_STEP);
    mode |= mode_if(cpu->cpl == 3 && (cpu->eflags_sys & EFL_AC) && (cpu->cr0 & CR0_AM), MODE_ALIGN);
    return mode;
}

void vcpu_update_mode(struct vcpu *cpu)
{
    for (int i = 0; i < SEG_COUNT; i++)
        cpu->seg_base[i] = cpu->segs[i].base;
    cpu->seg_plain[0] = segment_is_plain(&cpu->segs[SEG_FS]);
    cpu->seg_plain[1] = segment_is_plain(&cpu->segs[SEG_GS]);
    cpu->mode = (cpu->mode & MODE_WINDOW) | segment_mode(cpu->segs) | system_mode(cpu);
}

void vcpu_x87_take_selectors(struct vcpu *cpu)
{
    if (cpu->x87_fop & X87_SELECTOR)
        cpu->x87_fcs = cpu->segs[SEG_CS].sel;
    if (cpu->x87_seg & X87_SELECTOR)
        cpu->x87_fds = cpu->segs[cpu->x87_seg & 7u].sel;
    cpu->x87_fop &= (uint16_t)~X87_SELECTOR;
    cpu->x87_seg &= (uint16_t)~X87_SELECTOR;
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
    cpu->ferr = false;
    cpu->x87_fip = cpu->x87_ea = cpu->x87_fdp = 0;
    cpu->x87_fop = cpu->x87_seg = cpu->x87_fcs = cpu->x87_fds = cpu->x87_fop_shown = 0;
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
    cpu->dr[6] = DR6_ONES;
    cpu->dr[7] = DR7_ONES;
    cpu->efer = 0;
    cpu->pat = 0x0007040600070406ull;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->misc_enable = 1; /* fast strings */
    cpu->cpl = 0;
    cpu->debug_shadow = cpu->has_breakpoints = cpu->resumes = false;
    cpu->debug_hits = 0;
    cpu->a20_off = false;
    cpu->intr_quiet = 1;
    cpu->run = 1;
    reset_fpu(cpu);
    vcpu_update_mode(cpu);
}
