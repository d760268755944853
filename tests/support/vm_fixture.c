/*
 * The VM fixture: see vm_fixture.h. Page tables, descriptor tables, the TSS and the
 * kernel's entry points are plain bytes put into guest RAM; the vCPU's state is set from
 * outside. An exception then takes the monitor's whole way: delivery through the IDT,
 * stack switch, translated kernel code, and the debug-exit port that stops the machine.
 *
 * Ref: Intel SDM vol. 3A, ch. 3, 4, 6 and 7.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bt/bt.h"
#include "platform/hosted/hosted.h"
#include "tests/support/vm_fixture.h"

/* The fixture's own pages, by PA; the kernel range maps them in this order. */
#define PA_DIRECTORY  0x1000u
#define PA_TABLE_LOW  0x2000u /* VA 0x400000 */
#define PA_TABLE_LOW0 0x3000u /* VA 0        */
#define PA_TABLE_HIGH 0x4000u /* the kernel  */
#define PA_KERNEL     0x10000u
#define KERNEL_PAGES  16u
#define OFS_GDT       0x0000u
#define OFS_LDT       0x0100u
#define OFS_IDT       0x1000u
#define OFS_TSS       0x2000u
#define OFS_ENTRY     0x3000u /* 32 bytes a vector: 256 vectors are two pages */
#define OFS_STACK_TOP 0x8000u
#define FRAME_BYTES   (15u * 4u)

#define SEL_KCODE 0x08u
#define SEL_KDATA 0x10u
#define GDT_TSS   14u
#define GDT_LDT   15u
#define SEL_TSS   (GDT_TSS << 3)
#define SEL_LDT   (GDT_LDT << 3)
#define EXIT_PORT 0xf4u

#define ATTR_CODE0 (DESC_G | DESC_DB | DESC_P | DESC_S | DESC_CODE | DESC_READ | DESC_ACCESSED)
#define ATTR_DATA0 (DESC_G | DESC_DB | DESC_P | DESC_S | DESC_WRITE | DESC_ACCESSED)

/* ---- guest memory ------------------------------------------------------------------ */

static void poke(struct vm_fixture *fx, uint32_t pa, const void *data, uint32_t len)
{
    mmu_phys_write(fx->cpu->mmu, gpa(pa), data, len);
}

static void poke32(struct vm_fixture *fx, uint32_t pa, uint32_t value)
{
    poke(fx, pa, &value, 4);
}

static void set_descriptor(struct vm_fixture *fx, uint32_t pa, uint32_t base, uint32_t limit, uint16_t attr)
{
    poke32(fx, pa, (limit & 0xffffu) | base << 16);
    poke32(fx, pa + 4,
           ((base >> 16) & 0xffu) | (uint32_t)(attr & 0xffu) << 8 | (limit & 0xf0000u) |
               (uint32_t)(attr & 0xf000u) << 8 | (base & 0xff000000u));
}

void vm_fixture_gdt_set(struct vm_fixture *fx, unsigned index, uint32_t base, uint32_t limit, uint16_t attr)
{
    set_descriptor(fx, PA_KERNEL + OFS_GDT + 8 * index, base, limit, attr);
}

void vm_fixture_ldt_set(struct vm_fixture *fx, unsigned index, uint32_t base, uint32_t limit, uint16_t attr)
{
    set_descriptor(fx, PA_KERNEL + OFS_LDT + 8 * index, base, limit, attr);
}

void vm_fixture_map(struct vm_fixture *fx, uint32_t va, uint32_t pte_flags)
{
    uint32_t table = va < 0x400000u ? PA_TABLE_LOW0 : PA_TABLE_LOW;
    uint32_t pa = va & ~0xfffu;

    poke32(fx, table + ((va >> 12) & 0x3ffu) * 4, pte_flags ? pa | pte_flags : 0);
    mmu_invlpg(fx->cpu, gva(va));
}

static void make_page_tables(struct vm_fixture *fx)
{
    uint32_t rights = PTE_P | PTE_W;

    poke32(fx, PA_DIRECTORY + 0 * 4, PA_TABLE_LOW0 | rights | PTE_US);
    poke32(fx, PA_DIRECTORY + 1 * 4, PA_TABLE_LOW | rights | PTE_US);
    poke32(fx, PA_DIRECTORY + (VM_FIXTURE_KERNEL >> 22) * 4, PA_TABLE_HIGH | rights);
    for (uint32_t i = 0; i < KERNEL_PAGES; i++)
        poke32(fx, PA_TABLE_HIGH + (((VM_FIXTURE_KERNEL >> 12) & 0x3ffu) + i) * 4,
               (PA_KERNEL + i * GUEST_PAGE_SIZE) | rights);
}

static bool has_error_code(unsigned vector)
{
    return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

/*   push 0 (unless there is an error code); push vector; pusha; out 0xf4, al; jmp $   */
static void make_entry(struct vm_fixture *fx, unsigned vector)
{
    uint8_t code[32];
    unsigned n = 0;
    uint32_t va = VM_FIXTURE_KERNEL + OFS_ENTRY + 32 * vector;
    bool by_user = vector == EXC_BP || vector == EXC_OF;

    if (!has_error_code(vector)) {
        code[n++] = 0x6a;
        code[n++] = 0;
    }
    code[n++] = 0x68;
    memcpy(code + n, &(uint32_t){ vector }, 4);
    n += 4;
    code[n++] = 0x60;
    code[n++] = 0xe6;
    code[n++] = EXIT_PORT;
    code[n++] = 0xeb;
    code[n++] = 0xfe;
    poke(fx, PA_KERNEL + OFS_ENTRY + 32 * vector, code, n);
    poke32(fx, PA_KERNEL + OFS_IDT + 8 * vector, SEL_KCODE << 16 | (va & 0xffffu));
    poke32(fx, PA_KERNEL + OFS_IDT + 8 * vector + 4,
           (va & 0xffff0000u) | (DESC_P | SYS_INT32 | (by_user ? DESC_DPL : 0)) << 8);
}

static void make_kernel(struct vm_fixture *fx)
{
    uint32_t tss = VM_FIXTURE_KERNEL + OFS_TSS;

    vm_fixture_gdt_set(fx, SEL_KCODE >> 3, 0, 0xfffff, ATTR_CODE0);
    vm_fixture_gdt_set(fx, SEL_KDATA >> 3, 0, 0xfffff, ATTR_DATA0);
    vm_fixture_gdt_set(fx, GDT_TSS, tss, 0x67, DESC_P | SYS_TSS32_BUSY);
    vm_fixture_gdt_set(fx, GDT_LDT, VM_FIXTURE_KERNEL + OFS_LDT, 0x7f, DESC_P | SYS_LDT);
    poke32(fx, PA_KERNEL + OFS_TSS + 4, VM_FIXTURE_KERNEL + OFS_STACK_TOP);
    poke32(fx, PA_KERNEL + OFS_TSS + 8, SEL_KDATA);
    poke32(fx, PA_KERNEL + OFS_TSS + 0x64, 0x68u << 16); /* no I/O bitmap */
    for (unsigned v = 0; v < 256; v++)
        make_entry(fx, v);
}

/* ---- vCPU state ------------------------------------------------------------------------- */

void vm_fixture_load_segment(struct vm_fixture *fx, enum seg_id seg, uint16_t sel)
{
    uint32_t lo, hi;
    uint32_t pa = PA_KERNEL + ((sel & SEL_TI) ? OFS_LDT : OFS_GDT) + (sel & SEL_INDEX);
    struct segment *s = &fx->cpu->segs[seg];

    if (!(sel & ~SEL_RPL)) {
        *s = (struct segment){ .sel = sel };
        return;
    }
    mmu_phys_read(fx->cpu->mmu, gpa(pa), &lo, 4);
    mmu_phys_read(fx->cpu->mmu, gpa(pa + 4), &hi, 4);
    s->sel = sel;
    s->base = lo >> 16 | (hi & 0xffu) << 16 | (hi & 0xff000000u);
    s->limit = (lo & 0xffffu) | (hi & 0xf0000u);
    s->attr = (uint16_t)((hi >> 8) & 0xf0ffu);
    if (s->attr & DESC_G)
        s->limit = s->limit << 12 | 0xfffu;
}

void vm_fixture_enter(struct vm_fixture *fx)
{
    struct vcpu *cpu = fx->cpu;

    cpu->cpl = cpu->segs[SEG_CS].sel & SEL_RPL;
    vcpu_update_mode(cpu);
    mmu_select_view(cpu);
    bt_cut_returns(cpu);
}

static void set_system_registers(struct vm_fixture *fx)
{
    struct vcpu *cpu = fx->cpu;

    cpu->gdtr = (struct table_reg){ VM_FIXTURE_KERNEL + OFS_GDT, 0x7f };
    cpu->idtr = (struct table_reg){ VM_FIXTURE_KERNEL + OFS_IDT, 0x7ff };
    cpu->ldtr = (struct segment){
        .sel = SEL_LDT, .base = VM_FIXTURE_KERNEL + OFS_LDT, .limit = 0x7f, .attr = DESC_P | SYS_LDT
    };
    cpu->tr = (struct segment){
        .sel = SEL_TSS, .base = VM_FIXTURE_KERNEL + OFS_TSS, .limit = 0x67, .attr = DESC_P | SYS_TSS32_BUSY
    };
    cpu->cr3 = PA_DIRECTORY;
    cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    mmu_flush_all(cpu);
    for (int seg = 0; seg < SEG_COUNT; seg++)
        vm_fixture_load_segment(fx, (enum seg_id)seg, seg == SEG_CS ? SEL_KCODE : SEL_KDATA);
    vm_fixture_enter(fx);
}

/* Both interrupt controllers: initialised, everything masked. */
static void mask_interrupts(struct machine *m)
{
    static const uint8_t writes[][2] = { { 0x20, 0x11 }, { 0x21, 0x20 }, { 0x21, 4 },    { 0x21, 1 },
                                         { 0x21, 0xff }, { 0xa0, 0x11 }, { 0xa1, 0x28 }, { 0xa1, 2 },
                                         { 0xa1, 1 },    { 0xa1, 0xff } };

    for (size_t i = 0; i < ARRAY_LEN(writes); i++) {
        struct bus_request req = {
            .space = BUS_PORT, .size = 1, .is_write = true, .addr = writes[i][0], .data = writes[i][1]
        };

        machine_bus(m, &req);
    }
}

static uint64_t host_now_ns(void *ctx)
{
    struct timespec ts;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* ---- life ---------------------------------------------------------------------------------- */

struct vm_fixture *vm_fixture_new(const struct vm_fixture_options *options)
{
    struct vm_fixture *fx = calloc(1, sizeof *fx);
    struct vm_config config = {
        .ram_bytes = VM_FIXTURE_RAM,
        .bt = options->bt,
        .machine = { .ram_bytes = VM_FIXTURE_RAM,
                     .clock = { .now_ns = host_now_ns },
                     .debug_exit_port = EXIT_PORT,
                     .debug_exit_size = 4 },
        .no_reboot = true,
    };

    if (!fx)
        return NULL;
    config.model = options->cpu_model ? cpu_model_find(options->cpu_model) : &cpu_models[0];
    if (hosted_init() < 0)
        goto out_free;
    fx->ram = hosted_ram_new(VM_FIXTURE_RAM);
    if (!fx->ram)
        goto out_free;
    config.ram = fx->ram;
    hosted_features(&config.host, options->host_baseline);
    fx->vm = vm_new(&config);
    if (!fx->vm)
        goto out_ram;
    fx->cpu = fx->vm->cpu;
    hosted_attach(fx->cpu, bt_signal_stub(fx->cpu->bt));
    make_page_tables(fx);
    make_kernel(fx);
    set_system_registers(fx);
    mask_interrupts(fx->vm->machine);
    return fx;

out_ram:
    hosted_ram_free();
out_free:
    fprintf(stderr, "vm_fixture: %s\n", hosted_error());
    free(fx);
    return NULL;
}

void vm_fixture_free(struct vm_fixture *fx)
{
    if (!fx)
        return;
    hosted_attach(NULL, 0);
    vm_free(fx->vm);
    hosted_ram_free();
    free(fx);
}

enum vm_fixture_end vm_fixture_run(struct vm_fixture *fx, struct vm_fixture_frame *frame, char *text,
                                   size_t size)
{
    struct vm_exit exit = { 0 };
    uint32_t words[FRAME_BYTES / 4];

    vm_run(fx->vm, &exit);
    vcpu_fpu_park(fx->cpu); /* before any code here uses vector registers */
    machine_clear_stop(fx->vm->machine);
    if (exit.why != STOP_DEBUG_EXIT || exit.unsupported) {
        snprintf(text, size, "stop reason %d at EIP 0x%x: %s", exit.why, fx->cpu->eip, exit.text);
        return VM_FIXTURE_OTHER;
    }
    mmu_phys_read(fx->cpu->mmu, gpa(PA_KERNEL + OFS_STACK_TOP - FRAME_BYTES), words, sizeof words);
    for (int i = 0; i < 8; i++)
        frame->gpr[i] = words[7 - i];
    frame->vector = words[8];
    frame->error = words[9];
    frame->eip = words[10];
    frame->cs = words[11];
    frame->eflags = words[12];
    frame->esp = words[13];
    frame->ss = words[14];
    frame->gpr[ESP] = frame->esp;
    return VM_FIXTURE_EXCEPTION;
}
