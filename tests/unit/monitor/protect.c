/* The fixture of the protection tests; see protect.h. */
#include "protect.h"

#include <stdio.h>

#include "monitor/debug.h"
#include "platform/platform.h"
#include "tests/support/bare_mmu.h"

#define DIRECTORY_PA 0x100000u
#define TABLE_PA     0x101000u

/* The machine is not part of these tests: only what exception delivery asks of it. */
void machine_request_stop(struct machine *m, enum machine_stop why, uint32_t code)
{
    (void)code;
    ((struct protect *)(void *)m)->stop = why;
}

/* ---- guest memory --------------------------------------------------------------------- */

uint16_t pt_get16(struct protect *pt, uint32_t pa)
{
    uint16_t v;

    memcpy(&v, pt->ram + pa, sizeof v);
    return v;
}

uint32_t pt_get32(struct protect *pt, uint32_t pa)
{
    uint32_t v;

    memcpy(&v, pt->ram + pa, sizeof v);
    return v;
}

void pt_put16(struct protect *pt, uint32_t pa, unsigned value)
{
    uint16_t v = (uint16_t)value;

    memcpy(pt->ram + pa, &v, sizeof v);
}

void pt_put32(struct protect *pt, uint32_t pa, uint32_t value)
{
    memcpy(pt->ram + pa, &value, sizeof value);
}

void pt_descriptor(struct protect *pt, unsigned sel, uint32_t base, uint32_t limit, unsigned attr)
{
    uint32_t at = ((sel & SEL_TI) ? LDT_VA : GDT_VA) + (sel & SEL_INDEX);
    uint32_t raw = (attr & DESC_G) ? limit >> 12 : limit;

    pt_put32(pt, at, (raw & 0xffffu) | base << 16);
    pt_put32(pt, at + 4, (base & 0xff000000u) | (raw & 0xf0000u) | attr << 8 | (base >> 16 & 0xffu));
}

void pt_gate_at(struct protect *pt, uint32_t va, unsigned type, unsigned dpl, unsigned sel, uint32_t offset,
                unsigned nparams)
{
    pt_put32(pt, va, (offset & 0xffffu) | sel << 16);
    pt_put32(pt, va + 4, (offset & 0xffff0000u) | (DESC_P | A_DPL(dpl) | type) << 8 | nparams);
}

void pt_idt(struct protect *pt, unsigned vector, unsigned type, unsigned dpl, unsigned sel, uint32_t offset)
{
    pt_gate_at(pt, IDT_VA + vector * 8, type, dpl, sel, offset, 0);
}

/* ---- set-up ------------------------------------------------------------------------------ */

static void make_segments(struct protect *pt)
{
    pt_descriptor(pt, CODE0, 0, UINT32_MAX, A_CODE | A_FLAT);
    pt_descriptor(pt, DATA0, 0, UINT32_MAX, A_DATA | A_FLAT);
    pt_descriptor(pt, CODE3, 0, UINT32_MAX, A_CODE | A_FLAT | A_DPL(3));
    pt_descriptor(pt, DATA3, 0, UINT32_MAX, A_DATA | A_FLAT | A_DPL(3));
    pt_descriptor(pt, CODE0B, 0, UINT32_MAX, A_CODE | A_FLAT);
    pt_descriptor(pt, DATA0B, 0, UINT32_MAX, A_DATA | A_FLAT);
    pt_descriptor(pt, CODE3B, 0, UINT32_MAX, A_CODE | A_FLAT | A_DPL(3));
    pt_descriptor(pt, DATA3B, 0, UINT32_MAX, A_DATA | A_FLAT | A_DPL(3));
    pt_descriptor(pt, CODE1, 0, UINT32_MAX, A_CODE | A_FLAT | A_DPL(1));
    pt_descriptor(pt, DATA1, 0, UINT32_MAX, A_DATA | A_FLAT | A_DPL(1));
    pt_descriptor(pt, CONFORM0, 0, UINT32_MAX, A_CODE | A_FLAT | DESC_CONFORM);
    pt_descriptor(pt, CONFORM3, 0, UINT32_MAX, A_CODE | A_FLAT | DESC_CONFORM | A_DPL(3));
    pt_descriptor(pt, READONLY3, 0, UINT32_MAX, (A_DATA & ~DESC_WRITE) | A_FLAT | A_DPL(3));
    pt_descriptor(pt, EXECONLY3, 0, UINT32_MAX, (A_CODE & ~DESC_READ) | A_FLAT | A_DPL(3));
    pt_descriptor(pt, DOWN3, 0, 0xfffff, A_DATA | A_FLAT | DESC_DOWN | A_DPL(3));
    pt_descriptor(pt, ABSENT3, 0, UINT32_MAX, (A_DATA & ~DESC_P) | A_FLAT | A_DPL(3));
    pt_descriptor(pt, SMALL3, 0x30000, 0xff, A_DATA | DESC_DB | A_DPL(3));
    pt_descriptor(pt, STACK16_3, 0x40000, 0xffff, A_DATA | A_DPL(3));
    pt_descriptor(pt, STACK16_0, 0x50000, 0xffff, A_DATA);
    pt_descriptor(pt, CODE16_0, 0, 0xffff, A_CODE);
    pt_descriptor(pt, ABSENT_CODE0, 0, UINT32_MAX, (A_CODE & ~DESC_P) | A_FLAT);
    pt_descriptor(pt, SMALL_CODE0, 0, 0xfff, A_CODE | DESC_DB);
    pt_descriptor(pt, ABSENT_STACK0, 0, UINT32_MAX, (A_DATA & ~DESC_P) | A_FLAT);
    pt_descriptor(pt, LDT_DATA3, 0x60000, 0xffff, A_DATA | DESC_DB | A_DPL(3));
}

static void make_system_descriptors(struct protect *pt)
{
    pt_descriptor(pt, LDT_SEL, LDT_VA, 0x0f, DESC_P | SYS_LDT);
    pt_descriptor(pt, TSS_A, TSS_VA, 0x67, DESC_P | SYS_TSS32_BUSY);
    pt_descriptor(pt, TSS_B, TSS_B_VA, 0x67, DESC_P | SYS_TSS32_AVAIL | A_DPL(3));
    pt_descriptor(pt, TSS_16, TSS_16_VA, 0x2b, DESC_P | SYS_TSS16_AVAIL);
    pt_gate_at(pt, GDT_VA + GATE32, SYS_CALL32, 3, CODE0, 0x123456, 2);
    pt_gate_at(pt, GDT_VA + GATE16, SYS_CALL16, 3, CODE0, 0x3456, 1);
    pt_gate_at(pt, GDT_VA + GATE0, SYS_CALL32, 0, CODE0, 0x9000, 0);
    pt_gate_at(pt, GDT_VA + GATE_SAME, SYS_CALL32, 3, CODE3B, 0x9100, 0);
    pt_gate_at(pt, GDT_VA + ABSENT_GATE, SYS_CALL32, 3, CODE0, 0x9000, 0);
    pt->ram[GDT_VA + ABSENT_GATE + 5] &= (uint8_t)~DESC_P;
    pt_gate_at(pt, GDT_VA + TASK_GATE3, SYS_TASK_GATE, 3, TSS_B, 0, 0);
    pt_gate_at(pt, GDT_VA + TASK_GATE_16, SYS_TASK_GATE, 3, TSS_16, 0, 0);
}

static void make_tss(struct protect *pt)
{
    pt_put32(pt, TSS_VA + 4, STACK0);
    pt_put16(pt, TSS_VA + 8, DATA0);
    pt_put32(pt, TSS_VA + 12, STACK1);
    pt_put16(pt, TSS_VA + 16, DATA1 | 1);

    memcpy(pt->ram + TSS_B_VA, pt->ram + TSS_VA, 0x20);
    pt_put32(pt, TSS_B_VA + 0x20, 0x77000); /* EIP */
    pt_put32(pt, TSS_B_VA + 0x24, EFL_ONE | EFL_CF);
    for (unsigned i = 0; i < 8; i++)
        pt_put32(pt, TSS_B_VA + 0x28 + 4 * i, i == ESP ? STACK_B : 0xb0000000u + i);
    pt_put16(pt, TSS_B_VA + 0x48, DATA3B | 3); /* ES */
    pt_put16(pt, TSS_B_VA + 0x4c, CODE0B);
    pt_put16(pt, TSS_B_VA + 0x50, DATA0B);
    pt_put16(pt, TSS_B_VA + 0x54, DATA3 | 3);
    pt_put16(pt, TSS_B_VA + 0x58, 0);
    pt_put16(pt, TSS_B_VA + 0x5c, LDT_DATA3);
    pt_put16(pt, TSS_B_VA + 0x60, LDT_SEL);

    pt_put16(pt, TSS_16_VA + 0x0e, 0x6600); /* IP */
    pt_put16(pt, TSS_16_VA + 0x10, EFL_ONE | EFL_ZF);
    for (unsigned i = 0; i < 8; i++)
        pt_put16(pt, TSS_16_VA + 0x12 + 2 * i, i == ESP ? 0x8000 : 0x1600 + i);
    pt_put16(pt, TSS_16_VA + 0x22, DATA0);
    pt_put16(pt, TSS_16_VA + 0x24, CODE16_0);
    pt_put16(pt, TSS_16_VA + 0x26, STACK16_0);
    pt_put16(pt, TSS_16_VA + 0x28, DATA0);
}

static void on_watched(void *ctx, gva_t va, uint32_t size, bool is_write)
{
    debug_data_access(((struct protect *)ctx)->cpu, va, size, is_write);
}

static void start_mmu(struct protect *pt)
{
    struct mmu_config config = { .ram = pt->ram, .ram_bytes = RAM_BYTES, .ops = bare_mmu_ops };

    config.ops.ctx = pt;
    config.ops.watched_access = on_watched;
    pt->cpu->mmu = mmu_new(pt->cpu, &config);
}

int pt_setup(void **state)
{
    struct protect *pt = platform_reserve(sizeof *pt);

    pt->ram = platform_reserve(RAM_BYTES);
    pt->ram_before = platform_reserve(RAM_BYTES);
    pt->cpu = platform_reserve(sizeof *pt->cpu);
    pt->cpu_before = platform_reserve(sizeof *pt->cpu);
    pt->cpu->log = &pt->vm.log;
    pt->cpu->vm = &pt->vm;
    pt->vm.cpu = pt->cpu;
    pt->vm.machine = (struct machine *)(void *)pt;
    vcpu_reset(pt->cpu);
    start_mmu(pt);
    make_segments(pt);
    make_system_descriptors(pt);
    make_tss(pt);
    pt->cpu->gdtr = (struct table_reg){ GDT_VA, GDT_LIMIT };
    pt->cpu->idtr = (struct table_reg){ IDT_VA, IDT_LIMIT };
    pt->cpu->ldtr = (struct segment){ LDT_SEL, DESC_P | SYS_LDT, LDT_VA, 0x0f };
    pt->cpu->tr = (struct segment){ TSS_A, DESC_P | SYS_TSS32_BUSY, TSS_VA, 0x67 };
    pt->cpu->cr0 |= CR0_PE | CR0_WP;
    pt_ring(pt, 0);
    *state = pt;
    return 0;
}

int pt_teardown(void **state)
{
    struct protect *pt = *state;

    mmu_free(pt->cpu->mmu);
    platform_release(pt->ram, RAM_BYTES);
    platform_release(pt->ram_before, RAM_BYTES);
    platform_release(pt->cpu, sizeof *pt->cpu);
    platform_release(pt->cpu_before, sizeof *pt->cpu);
    platform_release(pt, sizeof *pt);
    return 0;
}

static struct segment flat(unsigned sel, unsigned attr)
{
    return (struct segment){ .sel = (uint16_t)sel, .limit = UINT32_MAX, .attr = (uint16_t)(attr | A_FLAT) };
}

void pt_ring(struct protect *pt, unsigned cpl)
{
    static const uint16_t code[] = { CODE0, CODE1, 0, CODE3 }, data[] = { DATA0, DATA1, 0, DATA3 };
    static const uint32_t stack[] = { STACK0, STACK1, 0, STACK3 };
    struct vcpu *cpu = pt->cpu;

    cpu->cpl = (uint8_t)cpl;
    cpu->segs[SEG_CS] = flat(code[cpl] | cpl, A_CODE | A_DPL(cpl));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (i != SEG_CS)
            cpu->segs[i] = flat(data[cpl] | cpl, A_DATA | A_DPL(cpl));
    cpu->gpr[ESP] = stack[cpl] - 0x100;
    cpu->eip = INSN_EIP;
    cpu->next_eip = NEXT_EIP;
    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
}

void pt_real(struct protect *pt)
{
    struct vcpu *cpu = pt->cpu;

    cpu->cr0 &= ~CR0_PE;
    cpu->cpl = 0;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        cpu->segs[i] = (struct segment){ .limit = 0xffff };
        segment_load_real(cpu, (enum seg_id)i, (uint16_t)(0x700 + i));
    }
    cpu->segs[SEG_CS].attr |= DESC_CODE;
    cpu->gpr[ESP] = 0xabcd1000;
    cpu->idtr = (struct table_reg){ 0, 0x3ff };
    cpu->eip = INSN_EIP;
    cpu->next_eip = NEXT_EIP;
    vcpu_update_mode(cpu);
}

void pt_vm86(struct protect *pt, unsigned iopl)
{
    struct vcpu *cpu = pt->cpu;

    vcpu_eflags_set(cpu, vcpu_eflags_get(cpu) | EFL_VM | iopl << EFL_IOPL_SHIFT);
    cpu->cpl = 3;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = segment_vm86((uint16_t)(0x700 + i));
    cpu->gpr[ESP] = 0x1000;
    cpu->eip = INSN_EIP;
    cpu->next_eip = NEXT_EIP;
    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
}

static uint32_t move_sp(struct vcpu *cpu, uint32_t by)
{
    const struct segment *ss = &cpu->segs[SEG_SS];

    cpu->gpr[ESP] = stack_pointer(ss, cpu->gpr[ESP], cpu->gpr[ESP] - by);
    return ss->base + (cpu->gpr[ESP] & stack_mask(ss));
}

void pt_push32(struct protect *pt, uint32_t value)
{
    pt_put32(pt, move_sp(pt->cpu, 4), value);
}

void pt_push16(struct protect *pt, unsigned value)
{
    pt_put16(pt, move_sp(pt->cpu, 2), value);
}

void pt_paging(struct protect *pt)
{
    pt_put32(pt, DIRECTORY_PA, TABLE_PA | PTE_P | PTE_W | PTE_US | PTE_A);
    for (uint32_t va = 0; va < RAM_BYTES; va += GUEST_PAGE_SIZE)
        pt_page(pt, va, PTE_P | PTE_W | PTE_US | PTE_A | PTE_D);
    pt->cpu->cr0 |= CR0_PG;
    pt->cpu->cr3 = DIRECTORY_PA;
    mmu_flush_all(pt->cpu);
    mmu_cr3_loaded(pt->cpu);
}

void pt_page(struct protect *pt, uint32_t va, uint32_t flags)
{
    pt_put32(pt, TABLE_PA + (va >> 12) * 4, (va & ~GUEST_PAGE_MASK) | flags);
    mmu_invlpg(pt->cpu, gva(va));
}

/* ---- expectations ------------------------------------------------------------------------- */

void pt_snapshot(struct protect *pt)
{
    memcpy(pt->cpu_before, pt->cpu, sizeof *pt->cpu);
    memcpy(pt->ram_before, pt->ram, RAM_BYTES);
}

void pt_expect_unchanged(struct protect *pt)
{
    pt->cpu_before->fault = pt->cpu->fault;
    pt->cpu_before->stats = pt->cpu->stats;
    assert_memory_equal(pt->cpu, pt->cpu_before, sizeof *pt->cpu);
    assert_memory_equal(pt->ram, pt->ram_before, RAM_BYTES);
}

void pt_expect_fault(struct protect *pt, unsigned vector, unsigned error)
{
    assert_int_equal(pt->cpu->fault.vector, vector);
    assert_true(pt->cpu->fault.has_error);
    assert_int_equal(pt->cpu->fault.error, error);
}

void pt_expect_fault_plain(struct protect *pt, unsigned vector)
{
    assert_int_equal(pt->cpu->fault.vector, vector);
    assert_false(pt->cpu->fault.has_error);
}

/* ---- operands -------------------------------------------------------------------------------- */

static uint64_t log2_size(unsigned bytes)
{
    return bytes == 4 ? 2 : bytes == 2 ? 1 : 0;
}

uint64_t pt_arg(unsigned osize, uint32_t imm, unsigned imm2)
{
    return imm | (uint64_t)imm2 << 32 | log2_size(osize) << 58 | 2ull << 60;
}

uint64_t pt_arg_reg(unsigned osize, uint32_t imm, unsigned reg, unsigned rm)
{
    return pt_arg(osize, imm, 0) | (uint64_t)reg << 48 | (uint64_t)rm << 51;
}

uint64_t pt_arg_mem(unsigned osize, uint32_t imm, unsigned reg, enum seg_id seg)
{
    return pt_arg(osize, imm, 0) | (uint64_t)reg << 48 | 1ull << 54 | (uint64_t)seg << 55;
}
