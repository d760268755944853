/*
 * A line of text for the state of the processor after every so many instructions:
 *
 *     count  EIP  hash of the processor's state  [hash of RAM]  [registers]
 *
 * Two runs that must be alike (another cache size, chaining off, another host) give the same
 * log; the first line that differs bounds the fault, and tools/bisect narrows it down to one
 * instruction by running again with a finer grain between the last two lines.
 *
 * What is hashed is architectural state only, in a struct without padding: nothing of where
 * the host keeps things. Of the FXSAVE image that leaves out the instruction and data
 * pointers, which are the host's.
 */
#include "cli/hash_log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "platform/platform.h"

struct hash_log {
    struct hash_log_options options;
    FILE *file;
    const uint8_t *ram;
    uint64_t ram_bytes;
    uint64_t last; /* count of the last line, UINT64_MAX before the first */
};

struct state_seg {
    uint32_t sel, attr, base, limit;
};

struct state {
    uint32_t gpr[8], eip, eflags;
    struct state_seg segs[SEG_COUNT], ldtr, tr;
    uint32_t gdt_base, gdt_limit, idt_base, idt_limit;
    uint32_t cr[5], dr[8], efer, sysenter[3];
    uint8_t x87_control[6]; /* FCW FSW FTW                             */
    uint8_t pad[2];         /* zero                                    */
    uint8_t mxcsr[4], x87[128], xmm[128];
};
_Static_assert(sizeof(struct state) == 4 * 10 + 16 * 8 + 16 + 4 * 17 + 8 + 4 + 256,
               "no padding in what is hashed");

/* Offsets in an FXSAVE image: SDM vol. 2, "FXSAVE". */
enum { FX_MXCSR = 24, FX_X87 = 32, FX_XMM = 160 };

struct hash_log *hash_log_new(const struct hash_log_options *options, const uint8_t *ram, uint64_t ram_bytes)
{
    struct hash_log *log = calloc(1, sizeof *log);

    if (!log)
        return NULL;
    *log = (struct hash_log){ .options = *options, .ram = ram, .ram_bytes = ram_bytes, .last = UINT64_MAX };
    log->file = fopen(options->path, "we");
    if (log->file)
        return log;
    free(log);
    return NULL;
}

int hash_log_close(struct hash_log *log)
{
    int rc = 0;

    if (!log)
        return 0;
    if (ferror(log->file))
        rc = -EIO;
    if (fclose(log->file) != 0)
        rc = -errno;
    free(log);
    return rc;
}

static struct state_seg seg_state(const struct segment *s)
{
    return (struct state_seg){ s->sel, s->attr, s->base, s->limit };
}

static void take_state(const struct vcpu *cpu, struct state *s)
{
    memset(s, 0, sizeof *s);
    memcpy(s->gpr, cpu->gpr, sizeof s->gpr);
    s->eip = cpu->eip;
    s->eflags = vcpu_eflags_get(cpu);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->segs[i] = seg_state(&cpu->segs[i]);
    s->ldtr = seg_state(&cpu->ldtr);
    s->tr = seg_state(&cpu->tr);
    s->gdt_base = cpu->gdtr.base;
    s->gdt_limit = cpu->gdtr.limit;
    s->idt_base = cpu->idtr.base;
    s->idt_limit = cpu->idtr.limit;
    s->cr[0] = cpu->cr0;
    s->cr[2] = cpu->cr2;
    s->cr[3] = cpu->cr3;
    s->cr[4] = cpu->cr4;
    memcpy(s->dr, cpu->dr, sizeof s->dr);
    s->efer = (uint32_t)cpu->efer;
    s->sysenter[0] = cpu->sysenter_cs;
    s->sysenter[1] = cpu->sysenter_esp;
    s->sysenter[2] = cpu->sysenter_eip;
    memcpy(s->x87_control, cpu->fpu, sizeof s->x87_control);
    memcpy(s->mxcsr, cpu->fpu + FX_MXCSR, sizeof s->mxcsr);
    memcpy(s->x87, cpu->fpu + FX_X87, sizeof s->x87);
    memcpy(s->xmm, cpu->fpu + FX_XMM, sizeof s->xmm);
}

/* ---- code at EIP: looked up without a trace in page tables or TLB --------------------------------- */

/* Little-endian value at a physical address; 0 outside of RAM. */
static uint64_t peek_phys(const struct hash_log *log, uint64_t pa, unsigned size)
{
    uint64_t value = 0;

    if (pa <= log->ram_bytes - size)
        memcpy(&value, log->ram + pa, size);
    return value;
}

/* Where a linear address lies; false when it is not mapped. */
static bool peek_walk(const struct hash_log *log, const struct vcpu *cpu, uint32_t va, uint64_t *pa)
{
    bool is_pae = cpu->cr4 & CR4_PAE;
    unsigned size = is_pae ? 8 : 4, index_bits = is_pae ? 9 : 10;
    uint64_t frame = 0x000ffffffffff000ull, table = cpu->cr3 & ~GUEST_PAGE_MASK;

    *pa = va;
    if (!(cpu->cr0 & CR0_PG))
        return true;
    if (is_pae) {
        if (!(cpu->pdpte[va >> 30] & PTE_P))
            return false;
        table = cpu->pdpte[va >> 30] & frame;
    }
    unsigned large_shift = GUEST_PAGE_SHIFT + index_bits;
    uint32_t index_mask = (1u << index_bits) - 1;
    uint64_t entry = peek_phys(log, table + (va >> large_shift & index_mask) * size, size);

    if (!(entry & PTE_P))
        return false;
    if (entry & PTE_PS && (is_pae || cpu->cr4 & CR4_PSE)) {
        uint32_t mask = (1u << large_shift) - 1;
        *pa = (entry & frame & ~(uint64_t)mask) | (va & mask);
        return true;
    }
    entry = peek_phys(log, (entry & frame) + (va >> GUEST_PAGE_SHIFT & index_mask) * size, size);
    *pa = (entry & frame) | (va & GUEST_PAGE_MASK);
    return entry & PTE_P;
}

static void print_code(const struct hash_log *log, const struct vcpu *cpu)
{
    uint32_t linear = cpu->segs[SEG_CS].base + cpu->eip;
    uint64_t pa;

    fputs(" code=", log->file);
    for (uint32_t i = 0; i < 15 && peek_walk(log, cpu, linear + i, &pa) && pa < log->ram_bytes; i++)
        fprintf(log->file, "%02x", log->ram[pa]);
}

static void print_regs(const struct hash_log *log, const struct vcpu *cpu, const struct state *s)
{
    static const char *const gprs[] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };
    static const char *const segs[] = { "es", "cs", "ss", "ds", "fs", "gs" };
    FILE *f = log->file;

    for (unsigned i = 0; i < 8; i++)
        fprintf(f, " %s=%08" PRIx32, gprs[i], s->gpr[i]);
    fprintf(f, " eflags=%08" PRIx32, s->eflags);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        fprintf(f, " %s=%04" PRIx32 ":%08" PRIx32 ":%08" PRIx32 ":%04" PRIx32, segs[i], s->segs[i].sel,
                s->segs[i].base, s->segs[i].limit, s->segs[i].attr);
    fprintf(f, " cr0=%08" PRIx32 " cr2=%08" PRIx32 " cr3=%08" PRIx32 " cr4=%08" PRIx32, s->cr[0], s->cr[2],
            s->cr[3], s->cr[4]);
    fprintf(f, " fpu=%016" PRIx64,
            (uint64_t)XXH64(s->x87_control, sizeof *s - offsetof(struct state, x87_control), 0));
    print_code(log, cpu);
}

bool hash_log_checkpoint(void *ctx, struct vcpu *cpu, uint64_t insns)
{
    struct hash_log *log = ctx;
    struct state state;

    if (insns == log->last || insns < log->options.from)
        return true;
    log->last = insns;
    vcpu_fpu_park(cpu);
    take_state(cpu, &state);
    fprintf(log->file, "%12" PRIu64 " %08" PRIx32 " %016" PRIx64, insns, state.eip,
            (uint64_t)XXH64(&state, sizeof state, 0));
    if (log->options.mem)
        fprintf(log->file, " mem=%016" PRIx64, (uint64_t)XXH64(log->ram, log->ram_bytes, 0));
    if (log->options.regs)
        print_regs(log, cpu, &state);
    fputc('\n', log->file);
    return insns < log->options.to;
}
