/* See world.h. */
#include <string.h>

#include "tests/fuzz/world.h"

#define A_CODE   (DESC_P | DESC_S | DESC_CODE | DESC_READ)
#define A_DATA   (DESC_P | DESC_S | DESC_WRITE)
#define A_DPL(n) ((unsigned)(n) << DESC_DPL_SHIFT)
#define A_FLAT   (DESC_G | DESC_DB)

void world_put32(struct world *w, uint32_t at, uint32_t value)
{
    memcpy(w->ram + (at & (w->ram_bytes - 4)), &value, 4);
}

void world_descriptor(struct world *w, uint32_t at, uint32_t base, uint32_t raw_limit, unsigned attr)
{
    world_put32(w, at, (raw_limit & 0xffffu) | base << 16);
    world_put32(w, at + 4, (base & 0xff000000u) | (raw_limit & 0xf0000u) | attr << 8 | (base >> 16 & 0xffu));
}

void world_gate(struct world *w, uint32_t at, unsigned type, unsigned dpl, unsigned sel, uint32_t offset)
{
    world_put32(w, at, (offset & 0xffffu) | sel << 16);
    world_put32(w, at + 4, (offset & 0xffff0000u) | (DESC_P | A_DPL(dpl) | type) << 8 | 1);
}

/* Selectors 08 to 40: code and data of rings 0 to 3; then what else there is. */
static void default_tables(struct world *w)
{
    for (unsigned ring = 0; ring < 4; ring++) {
        world_descriptor(w, WORLD_GDT + 8 + 16 * ring, 0, 0xfffff, A_CODE | A_FLAT | A_DPL(ring));
        world_descriptor(w, WORLD_GDT + 16 + 16 * ring, 0, 0xfffff, A_DATA | A_FLAT | A_DPL(ring));
    }
    for (unsigned i = 0; i < 4; i++) {
        bool is_16 = i == 2;
        uint32_t tss = WORLD_TSS + 0x100 * i;
        world_descriptor(w, WORLD_GDT + 0x48 + 8 * i, tss, is_16 ? 0x2b : 0x67,
                   DESC_P | (is_16 ? SYS_TSS16_AVAIL : i ? SYS_TSS32_AVAIL : SYS_TSS32_BUSY));
        for (unsigned ring = 0; ring < 3; ring++) {
            world_put32(w, tss + 4 + 8 * ring, 0xc000 + 0x1000 * ring);
            world_put32(w, tss + 8 + 8 * ring, (0x10 + 16 * ring) | ring);
        }
        world_put32(w, tss + 0x20, 0x8000);                                   /* EIP */
        world_put32(w, tss + 0x38, 0xf000);                                   /* ESP */
        for (unsigned seg = 0; seg < 6; seg++)
            world_put32(w, tss + 0x48 + 4 * seg, seg == SEG_CS ? 0x08 : 0x10);
        world_put32(w, tss + 0x60, 0x68);
    }
    world_descriptor(w, WORLD_GDT + 0x68, WORLD_LDT, WORLD_LDT_LIMIT, DESC_P | SYS_LDT);
    world_gate(w, WORLD_GDT + 0x70, SYS_CALL32, 3, 0x08, 0x8000);
    world_gate(w, WORLD_GDT + 0x78, SYS_CALL16, 3, 0x08, 0x8000);
    world_gate(w, WORLD_GDT + 0x80, SYS_TASK_GATE, 3, 0x50, 0);
    world_descriptor(w, WORLD_GDT + 0x88, 0, 0xfffff, A_CODE | A_FLAT | DESC_CONFORM);
    world_descriptor(w, WORLD_GDT + 0x90, 0x8000, 0x0fff, A_DATA | DESC_DOWN | A_DPL(3));
    world_descriptor(w, WORLD_GDT + 0x98, 0, 0xffff, A_CODE);
    world_descriptor(w, WORLD_GDT + 0xa0, 0, 0xffff, A_DATA);
    memcpy(w->ram + WORLD_LDT, w->ram + WORLD_GDT, WORLD_LDT_LIMIT + 1);
    for (unsigned v = 0; v * 8 < WORLD_IDT_LIMIT; v++)
        world_gate(w, WORLD_IDT + 8 * v, v & 1 ? SYS_TRAP32 : SYS_INT32, v & 2 ? 3 : 0, 0x08, WORLD_CODE + 16 * v);
    world_gate(w, WORLD_IDT + 8 * 8, SYS_TASK_GATE, 0, 0x60, 0);
    for (uint32_t page = 0; page < 16; page++)
        world_put32(w, WORLD_TABLE + 4 * page, page << 12 | PTE_P | PTE_W | PTE_US);
    world_put32(w, WORLD_DIRECTORY, WORLD_TABLE | PTE_P | PTE_W | PTE_US);
}

void world_ring(struct world *w, unsigned ring)
{
    uint16_t code = (uint16_t)((0x08 + 16 * ring) | ring), data = (uint16_t)((0x10 + 16 * ring) | ring);

    w->cpu->cr0 |= CR0_PE;
    w->cpu->eflags_sys &= ~EFL_VM;
    w->cpu->cpl = (uint8_t)ring;
    for (int i = 0; i < SEG_COUNT; i++) {
        bool is_code = i == SEG_CS;
        w->cpu->segs[i] = (struct segment){
            .sel = is_code ? code : data,
            .limit = UINT32_MAX,
            .attr = (uint16_t)((is_code ? A_CODE : A_DATA) | DESC_ACCESSED | A_FLAT | A_DPL(ring)),
        };
    }
    vcpu_update_mode(w->cpu);
    mmu_select_view(w->cpu);
}

void world_real(struct world *w)
{
    w->cpu->cr0 &= ~(CR0_PE | CR0_PG);
    w->cpu->eflags_sys &= ~EFL_VM;
    w->cpu->cpl = 0;
    for (int i = 0; i < SEG_COUNT; i++) {
        w->cpu->segs[i] = (struct segment){ .limit = 0xffff };
        segment_load_real(w->cpu, (enum seg_id)i, (uint16_t)(0x100 * i));
    }
    w->cpu->segs[SEG_CS].attr |= DESC_CODE;
    vcpu_update_mode(w->cpu);
    mmu_flush_all(w->cpu);
    mmu_select_view(w->cpu);
}

void world_vm86(struct world *w)
{
    w->cpu->cr0 |= CR0_PE;
    w->cpu->eflags_sys |= EFL_VM;
    w->cpu->cpl = 3;
    for (int i = 0; i < SEG_COUNT; i++)
        w->cpu->segs[i] = segment_vm86((uint16_t)(0x100 * i));
    vcpu_update_mode(w->cpu);
    mmu_select_view(w->cpu);
}

void world_paging(struct world *w, bool on)
{
    if (on && (w->cpu->cr0 & CR0_PE)) {
        w->cpu->cr3 = WORLD_DIRECTORY;
        w->cpu->cr4 &= ~CR4_PAE;
        w->cpu->cr0 |= CR0_PG | CR0_WP;
    } else {
        w->cpu->cr0 &= ~CR0_PG;
    }
    mmu_flush_all(w->cpu);
    vcpu_update_mode(w->cpu);
}

void world_begin(struct world *w)
{
    struct vcpu *c = w->cpu;

    memset(w->ram, 0, w->ram_bytes);
    default_tables(w);
    machine_reset(w->vm->machine);
    machine_clear_stop(w->vm->machine);
    w->vm->in_exception = false;
    vcpu_reset(c);
    c->gdtr = (struct table_reg){ WORLD_GDT, WORLD_GDT_LIMIT };
    c->idtr = (struct table_reg){ WORLD_IDT, WORLD_IDT_LIMIT };
    c->ldtr = (struct segment){ 0x68, DESC_P | SYS_LDT, WORLD_LDT, WORLD_LDT_LIMIT };
    c->tr = (struct segment){ 0x48, DESC_P | SYS_TSS32_BUSY, WORLD_TSS, 0x67 };
    c->gpr[ESP] = 0xa000;
    c->eip = WORLD_CODE;
    c->cr4 = CR4_OSFXSR;
    c->fpu[0] = 0x7f; /* all exceptions masked */
    c->fpu[1] = 0x03;
    memset(&c->fault, 0, sizeof c->fault);
    world_ring(w, 0);
    mmu_flush_all(c);
}
