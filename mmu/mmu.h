/*
 * Guest memory: page walks (VA to PA), the physical map (PA to MA or a device),
 * the shadow page table in its checked form, and memory traces.
 *
 * The shadow page table is a cache with the architecture's own TLB semantics: an
 * entry made by a walk lives until a CR3 load (non-global entries), INVLPG, or a
 * change of CR0/CR4 drops it. There are two views: *supervisor* (CPL 0..2) and
 * *user* (CPL 3). Each view is VIEW_BYTES of sparse host memory whose layout
 * base/cpu.h gives: load table, store table, jump table. Translated code looks
 * loads and stores up inline; an empty slot leads to the slow path (bt), which
 * calls mmu_probe().
 *
 * Invariants:
 *  - a load slot is set only for plain RAM or ROM, present, readable in the view,
 *    with the guest's A bits set;
 *  - a store slot is set only for plain RAM, writable in the view (CR0.WP applied),
 *    with D set, and not traced;
 *  - every set store slot is found through the reverse map of its PA page.
 */
#ifndef MMU_MMU_H
#define MMU_MMU_H

#include "base/cpu.h"

enum mmu_access { ACC_READ = 1, ACC_WRITE = 2, ACC_EXEC = 4, ACC_USER = 8 };
enum mmu_view_id { VIEW_SUPERVISOR, VIEW_USER, VIEW_COUNT };

/** What a page walk found. */
struct walk {
    gpa_t pa;           /* of the very address asked for                      */
    uint32_t leaf_bytes; /* 4 KiB, 2 MiB or 4 MiB                              */
    bool is_global, is_user, is_writable, is_dirty, is_executable;
};

/** Called by the mmu; monitor wires them (arrows upward). */
struct mmu_ops {
    void *ctx;
    /** Device access, size 1, 2 or 4. */
    uint32_t (*mmio_read)(void *ctx, gpa_t pa, unsigned size);
    void (*mmio_write)(void *ctx, gpa_t pa, unsigned size, uint32_t value);
    /** Bytes of a traced page are about to be, or have just been, written by the guest. */
    void (*traced_write)(void *ctx, gpa_t pa, uint32_t len);
    /** An access that touches a watched page was carried out, or is about to be. */
    void (*watched_access)(void *ctx, gva_t va, uint32_t size, bool is_write);
    /** Fetch mappings of a view died: all of them, all non-global, or those of one page
     *  range. Jump-table entries and shadow return stacks keyed by them must go. */
    void (*fetch_drop_all)(void *ctx, enum mmu_view_id view, bool keep_global);
    void (*fetch_drop_range)(void *ctx, enum mmu_view_id view, gva_t va, uint32_t bytes);
};

/** Physical memory regions. RAM is one block of host memory indexed by PA (holes included).
 *  REGION_ROM reads that block and ignores writes; REGION_IMAGE shows the ROM image. */
enum region_kind { REGION_RAM, REGION_ROM, REGION_MMIO, REGION_IMAGE };

#define ROM_IMAGE_MAX (512u << 10)

struct mmu_config {
    uint8_t *ram;        /* host mapping; byte i is PA i for all of [0, ram_bytes)      */
    uint64_t ram_bytes;  /* multiple of 4 KiB                                           */
    const uint8_t *rom;  /* the firmware's image, page-aligned; NULL: none              */
    uint32_t rom_bytes;  /* multiple of 4 KiB, at most ROM_IMAGE_MAX                    */
    bool has_pse36;      /* CPUID: a 4 MiB page may lie anywhere in 64 GiB              */
    bool has_pat;        /* CPUID: bit 7 of a PTE and bit 12 of a large page may be set  */
    struct mmu_ops ops;
};

/** @return NULL when memory can't be had. */
struct mmu *mmu_new(struct vcpu *cpu, const struct mmu_config *config);
void mmu_free(struct mmu *m);

/**
 * Claim [pa, pa+bytes) for devices (MMIO), as ROM (reads RAM, writes ignored) or for the ROM image.
 * Page granular. Drops every mapping. Code translated from there is the caller's to drop.
 *
 * The image's last byte is at 4 GiB - 1, always, and again at 1 MiB - 1 as far as REGION_IMAGE was
 * asked for, which is possible from 1 MiB - rom_bytes on.
 */
void mmu_set_region(struct mmu *m, gpa_t pa, uint64_t bytes, enum region_kind kind);
/** The same for a range whose reads are answered by `reads`, while writes go to the RAM that
 *  lies hidden there: a chipset's shadow RAM as it is being filled. */
void mmu_set_region_write_ram(struct mmu *m, gpa_t pa, uint64_t bytes, enum region_kind reads);

/* ---- walks and accesses ------------------------------------------------------ */

/**
 * Walk the guest's page tables as the hardware would.
 *
 * @param va      Linear address. Segment limits are already checked.
 * @param access  ACC_READ | ACC_WRITE | ACC_EXEC, plus ACC_USER when CPL is 3.
 * @param out     On X86_OK: PA, leaf size in bytes, effective rights.
 * @return X86_OK, or X86_FAULT with #PF and its error code in cpu->fault.
 *
 * On success sets Accessed and Dirty in guest memory; on a fault changes nothing.
 * Ref: Intel SDM vol. 3A, ch. 4 "Paging" (access rights, error code).
 */
enum x86_rc mmu_walk(struct vcpu *cpu, gva_t va, unsigned access, struct walk *out);

/**
 * Make [va, va + size) accessible for one access, filling table slots on the way.
 *
 * @param size  1..512; may cross a page boundary (and wrap at 4 GiB).
 * @param hva   On X86_OK: host address of va if the whole access lies in plain memory
 *              of one page that may be accessed directly; {NULL} if it must be bounced
 *              (device, ROM store, traced or watched page, two pages). For an access that crosses
 *              a page both pages are checked, the lower address first.
 */
enum x86_rc mmu_probe(struct vcpu *cpu, gva_t va, unsigned size, unsigned access, hva_t *hva);

/**
 * Make sure that no table runs full, and is emptied, during the next few dozen accesses: what mmu_probe allows
 * now, mmu_write then carries out. Without it the second of two pages can push out the first, whose entry in the
 * guest's tables may be gone (the TLB need not know).
 */
void mmu_make_room(struct vcpu *cpu);

/**
 * Read or write guest linear memory from C: checks every page first, then does the
 * access, devices and traced pages included. Nothing is changed on X86_FAULT.
 * @param access  ACC_USER or 0 (the direction is the function's).
 */
enum x86_rc mmu_read(struct vcpu *cpu, gva_t va, void *buf, unsigned size, unsigned access);
enum x86_rc mmu_write(struct vcpu *cpu, gva_t va, const void *buf, unsigned size, unsigned access);

/**
 * Host address of [va, va + size), size 1..512, for a supervisor access that a slot allows.
 * @param table  VIEW_LOAD_OFS or VIEW_STORE_OFS.
 * @return NULL when the slot is empty, as it is for a device, a traced or a watched page, or the access crosses
 *         a page: take mmu_read or mmu_write.
 */
static inline uint8_t *mmu_slot(const struct vcpu *cpu, uint32_t table, uint32_t va, unsigned size)
{
    const uint64_t *slots = (const uint64_t *)(uintptr_t)(cpu->system_base + table);
    uint64_t slot = slots[(va >> GUEST_PAGE_SHIFT) + ((va + size - 1) >> GUEST_PAGE_SHIFT)];

    return slot ? (uint8_t *)(uintptr_t)(slot + va) : NULL;
}

/** Supervisor accesses whatever the CPL: descriptor tables, TSS. */
enum x86_rc mmu_read_system(struct vcpu *cpu, gva_t va, void *buf, unsigned size);
enum x86_rc mmu_write_system(struct vcpu *cpu, gva_t va, const void *buf, unsigned size);

/** Physical accesses: devices' DMA, firmware tables, tests. Out of range reads all ones. Writes
 *  to traced pages report through traced_write; ROM ignores them. */
void mmu_phys_read(struct mmu *m, gpa_t pa, void *buf, uint32_t len);
void mmu_phys_write(struct mmu *m, gpa_t pa, const void *buf, uint32_t len);

/** Bytes of RAM from PA 0. */
uint64_t mmu_ram_bytes(const struct mmu *m);
/** Host address of a plain RAM or ROM page's byte, or {NULL}. Valid to the page's end. */
hva_t mmu_ram_ptr(struct mmu *m, gpa_t pa);

/** Where the page tables lead, whatever the rights, and with nothing set or recorded. For looking on
 *  from outside. @return false when nothing is mapped there. */
bool mmu_peek(const struct vcpu *cpu, gva_t va, gpa_t *pa);

/* ---- fetch --------------------------------------------------------------------- */

/**
 * Translate an instruction address for execution under the current CPL and mark its page
 * as fetched in the view, so that a dropped mapping is reported to fetch_drop_*.
 * @return X86_OK with *pa, or X86_FAULT (#PF with the I bit when NX is enabled).
 */
enum x86_rc mmu_fetch(struct vcpu *cpu, gva_t va, gpa_t *pa, bool *is_global);

/* ---- what drops entries ---------------------------------------------------------- */
void mmu_cr3_loaded(struct vcpu *cpu);                 /* cpu->cr3 is the new value; loads PDPTEs with PAE */
enum x86_rc mmu_load_pdptes(struct vcpu *cpu, uint32_t cr3); /* #GP(0) on reserved bits       */
void mmu_invlpg(struct vcpu *cpu, gva_t va);
void mmu_flush_all(struct vcpu *cpu);                  /* CR0.PG/WP, CR4 changes, A20, EFER.NXE */
/** Set cpu->view_base for the present CPL. */
void mmu_select_view(struct vcpu *cpu);
/** Host base of a view's tables. */
uint8_t *mmu_view_base(struct mmu *m, enum mmu_view_id view);

/* ---- traces ----------------------------------------------------------------------- */
/** Write-protect a RAM page in every view: stores to it report through traced_write. */
void mmu_trace_add(struct mmu *m, gpa_t pa);
void mmu_trace_remove(struct mmu *m, gpa_t pa);
bool mmu_is_traced(struct mmu *m, gpa_t pa);

/* ---- watched pages: data breakpoints -------------------------------------------------- */
#define MMU_WATCHED_MAX 4u

/**
 * From now on accesses to these VA pages, and to no others, report through watched_access: they have
 * no slots and no place in windows, so that translated code takes its slow path there, and mmu_read
 * and mmu_write report each access that they have carried out.
 *
 * @param vpn  VA page numbers; the same one may occur twice.
 */
void mmu_watch_pages(struct vcpu *cpu, const uint32_t *vpn, unsigned n);
/** Report an access that is about to be made, if it touches a watched page. */
void mmu_watch_report(struct vcpu *cpu, gva_t va, uint32_t size, bool is_write);
bool mmu_is_watched(const struct mmu *m, gva_t va);

/** Check the invariants above; -> number of violations, each logged. For tests and --audit. */
unsigned mmu_audit(struct mmu *m);

#endif
