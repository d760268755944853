/*
 * A detector of monitors: everything that ring 0 and ring 3 can learn of the descriptor tables without
 * a fault, for every selector there is. A monitor that runs the guest on tables of its own shows by a
 * selector that should lead nowhere, a descriptor with another DPL, a limit that has shrunk, or a table
 * register that points elsewhere. What must come out is computed here from the guest's own tables.
 *
 * LAR, LSL, VERR and VERW see all 65,536 selectors, and descriptors of all 256 access bytes.
 *
 * Ref: Intel SDM vol. 2, "LAR", "LSL", "VERR/VERW"; vol. 3A, "Pointer Validation".
 */
#include "../lib/guest.h"

#define RESULTS      ((struct result *)SCRATCH)
#define SELECTORS    0x10000u
#define GDT_SLOTS    48u /* descriptors of ours at a time, from SEL_FREE on */
#define ACCESS_S     0x10u
#define TYPE_CODE    0x08u
#define TYPE_WRITE   0x02u /* of data */
#define TYPE_READ    0x02u /* of code */
#define TYPE_CONFORM 0x04u

struct result {
    uint32_t lar, lsl, valid; /* valid: LAR 1, LSL 2, VERR 4, VERW 8 */
};

/* EDI: where to; ESI: first selector; ECX: how many */
SNIPPET(s_scan,
        "9: xor %ebp, %ebp; mov $0x11111111, %eax; lar %esi, %eax; jnz 1f; or $1, %ebp; 1: mov %eax, (%edi);"
        "mov $0x22222222, %eax; lsl %esi, %eax; jnz 2f; or $2, %ebp; 2: mov %eax, 4(%edi);"
        "verr %si; jnz 3f; or $4, %ebp; 3: verw %si; jnz 4f; or $8, %ebp; 4: mov %ebp, 8(%edi);"
        "add $12, %edi; inc %esi; dec %ecx; jnz 9b");
/* The table registers and what else tells, 64 times over: into EDI */
SNIPPET(s_registers,
        "mov $64, %ecx; 1: sgdt (%edi); sidt 6(%edi); sldt 12(%edi); str 14(%edi); smsw 16(%edi);"
        "mov %cs, 18(%edi); mov %ss, 20(%edi); pushf; pop 24(%edi); movw $0, 22(%edi);"
        "add $28, %edi; dec %ecx; jnz 1b");

static uint64_t descriptor_of(uint32_t sel)
{
    struct table_register gdt;
    uint32_t index = sel >> 3;

    if (sel & 4)
        return index < 16 && index * 8 + 7 <= 127 ? guest_ldt[index] : 0;
    __asm__ volatile("sgdt %0" : "=m"(gdt));
    return (sel & ~3u) && index * 8 + 7 <= gdt.limit ? guest_gdt[index] : 0;
}

static bool is_lar_type(unsigned type)
{
    return type == 1 || type == 2 || type == 3 || type == 4 || type == 5 || type == 9 || type == 0xb ||
           type == 0xc;
}

static bool is_lsl_type(unsigned type)
{
    return type == 1 || type == 2 || type == 3 || type == 9 || type == 0xb;
}

/* What an instruction may say of a selector. */
static struct result expected(uint32_t sel, unsigned cpl)
{
    struct result r = { 0x11111111, 0x22222222, 0 };
    uint64_t d = descriptor_of(sel);
    uint32_t high = (uint32_t)(d >> 32), type = high >> 8 & 0xf, dpl = high >> 13 & 3, rpl = sel & 3;
    bool is_segment = high >> 8 & ACCESS_S, is_code = is_segment && (type & TYPE_CODE);
    bool conforms = is_code && (type & TYPE_CONFORM), is_far = cpl > dpl || rpl > dpl;
    uint32_t limit = ((uint32_t)d & 0xffff) | (high & 0xf0000);

    if (!d || (is_far && !conforms))
        return r;
    if (is_segment || is_lar_type(type)) {
        r.valid |= 1;
        r.lar = high & 0x00f0ff00;
    }
    if (is_segment || is_lsl_type(type)) {
        r.valid |= 2;
        r.lsl = high & 0x00800000 ? limit << 12 | 0xfff : limit;
    }
    if (is_segment && (!is_code || (type & TYPE_READ)))
        r.valid |= 4;
    if (is_segment && !is_code && (type & TYPE_WRITE))
        r.valid |= 8;
    return r;
}

static void scan(unsigned ring, uint32_t first, uint32_t count)
{
    struct context c = context_new((int)ring, s_scan);

    c.edi = SCRATCH;
    c.esi = first;
    c.ecx = count;
    context_run(&c);
    if (c.vector != VEC_DONE)
        give_up("the scan ended early");
}

/* -> how many selectors were answered otherwise; the first of them is named. */
static unsigned differing(unsigned ring, uint32_t first, uint32_t count, const char *what)
{
    unsigned bad = 0;

    scan(ring, first, count);
    for (uint32_t i = 0; i < count; i++) {
        struct result want = expected(first + i, ring), got = RESULTS[i];
        if (got.valid & 1) /* bits 19:16 are the limit's or not */
            got.lar &= 0x00f0ff00;
        if (got.lar == want.lar && got.lsl == want.lsl && got.valid == want.valid)
            continue;
        if (!bad++)
            say("# ring %u, %s, selector %x: LAR %x LSL %x valid %x, not LAR %x LSL %x valid %x\n", ring,
                what, first + i, got.lar, got.lsl, got.valid, want.lar, want.lsl, want.valid);
    }
    return bad;
}

static void every_selector(void)
{
    check_eq("ring0_every_selector", differing(0, 0, SELECTORS, "all"), 0);
    check_eq("ring3_every_selector", differing(3, 0, SELECTORS, "all"), 0);
}

static void fill_gdt(unsigned first_access, unsigned flags)
{
    for (unsigned i = 0; i < GDT_SLOTS; i++)
        guest_gdt[SEL_FREE / 8 + i] = DESC(0x12345000 + i, 0x54321 + i, (first_access + i) & 0xff, flags);
}

static void every_kind_of_descriptor(void)
{
    uint64_t saved[GDT_SLOTS];
    unsigned bad[2] = { 0, 0 };

    memcpy(saved, &guest_gdt[SEL_FREE / 8], sizeof saved);
    for (unsigned flags = 0; flags < 16; flags++) {
        for (unsigned access = 0; access < 256; access += GDT_SLOTS) {
            fill_gdt(access, flags);
            bad[0] += differing(0, SEL_FREE, GDT_SLOTS * 8, "kinds");
            bad[1] += differing(3, SEL_FREE, GDT_SLOTS * 8, "kinds");
        }
    }
    memcpy(&guest_gdt[SEL_FREE / 8], saved, sizeof saved);
    check_eq("ring0_every_kind_of_descriptor", bad[0], 0);
    check_eq("ring3_every_kind_of_descriptor", bad[1], 0);
}

static void tables_that_shrink_and_grow(void)
{
    struct table_register gdt, other;

    __asm__ volatile("sgdt %0" : "=m"(gdt));
    for (unsigned limit = 0x37; limit <= 0x47; limit++) { /* up to the middle of a descriptor, too */
        other = (struct table_register){ (uint16_t)limit, gdt.base };
        __asm__ volatile("lgdt %0" : : "m"(other));
        unsigned bad = differing(0, 0x30, 0x40, "limit") + differing(3, 0x30, 0x40, "limit");
        __asm__ volatile("lgdt %0" : : "m"(gdt));
        check_eq("limit_of_the_gdt", bad, 0);
    }
}

struct registers {
    struct table_register gdt, idt;
    uint16_t ldt, tr, msw, cs, ss, pad;
    uint32_t eflags;
} __attribute__((packed));

static void the_registers(unsigned ring)
{
    const struct registers *r = (const struct registers *)SCRATCH;
    struct context c = context_new((int)ring, s_registers);
    uint32_t flags = 2 | (ring ? EFL_IF : 0), differ = 0;

    c.eflags = flags;
    c.edi = SCRATCH;
    context_run(&c);
    check_done(ring ? "ring3_registers" : "ring0_registers", &c);
    for (unsigned i = 0; i < 64; i++)
        differ |= (r[i].gdt.base ^ address_of(guest_gdt)) | (r[i].gdt.limit ^ (sizeof guest_gdt - 1)) |
                  (r[i].idt.base ^ address_of(guest_idt)) | (r[i].idt.limit ^ (sizeof guest_idt - 1)) |
                  (r[i].ldt ^ SEL_LDT) | (r[i].tr ^ SEL_TSS) | (r[i].msw ^ (get_cr0() & 0xffff)) |
                  (uint32_t)(r[i].cs ^ (ring ? SEL_UCODE : SEL_KCODE)) |
                  (uint32_t)(r[i].ss ^ (ring ? SEL_UDATA : SEL_KDATA)) | ((r[i].eflags ^ flags) & ~0x8d5u);
    check_eq(ring ? "ring3_registers_show_the_guest" : "ring0_registers_show_the_guest", differ, 0);
}

void guest_main(void)
{
    the_registers(0);
    the_registers(3);
    every_selector();
    every_kind_of_descriptor();
    tables_that_shrink_and_grow();
}
