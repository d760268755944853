/*
 * Our own page tables: four levels, one tree. Ref: Intel SDM vol. 3A, ch. "Paging", "4-Level Paging".
 *
 * Table pages are taken as they are needed and stay: the address ranges in use are fixed, so they are bounded.
 * Only ring 0 comes here.
 */
#include "platform/ring1/core/core.h"

#include "base/string.h"
#include "base/types.h"
#include "platform/ring1/core/errno.h"
#include "platform/ring1/core/machine.h"
#include "platform/platform.h"

#define ENTRIES      512u
#define FLUSH_ALL_AT 64u /* pages from which reloading CR3 is cheaper */

extern const uint8_t image_text_end[], image_rodata_end[], image_end[], image_base[];
extern const uint8_t library_start[], library_text[], library_text_end[], library_data[], library_end[];

/* For each window a tree whose upper half is everybody's and whose lowest 4 GiB are the window's page directories; one
 * more without any. */
static uint64_t window_tree[WINDOWS_MAX];
static uint64_t selected; /* where the window at address 0 is otherwise; 0: none */

static uint64_t *table(uint64_t entry)
{
    return physmap(entry & PG_ADDR);
}

static uint64_t *new_table(uint64_t *entry)
{
    uint64_t pa = frame_take();

    if (!pa)
        return NULL;
    memset(physmap(pa), 0, MACHINE_PAGE);
    *entry = pa | PG_P | PG_W | PG_U;
    return physmap(pa);
}

static unsigned index_at(uint64_t va, unsigned level)
{
    return (unsigned)(va >> (12 + 9 * level)) & (ENTRIES - 1);
}

/* The entry for va at `level` (0: of a page, 1: of a large one). NULL: there is no table, or none can be made. A
 * large page on the way is returned as it is, with *level set. */
static uint64_t *find(uint64_t va, unsigned *level, bool make)
{
    uint64_t *t = table(read_cr3());

    for (unsigned l = 3;; l--) {
        uint64_t *entry = &t[index_at(va, l)];
        if (l == *level || (l == 1 && (*entry & PG_P) && (*entry & PG_PS))) {
            *level = l;
            return entry;
        }
        t = *entry & PG_P ? table(*entry) : make ? new_table(entry) : NULL;
        if (!t)
            return NULL;
    }
}

bool paging_map(uint64_t va, uint64_t pa, uint64_t flags)
{
    unsigned level = 0;
    uint64_t *entry = find(va, &level, true);

    if (!entry || level)
        return false;
    *entry = pa | flags | PG_P;
    return true;
}

static bool map_large(uint64_t va, uint64_t pa, uint64_t flags)
{
    unsigned level = 1;
    uint64_t *entry = find(va, &level, true);

    if (!entry || (*entry & PG_P))
        return false;
    *entry = pa | flags | PG_P | PG_PS;
    return true;
}

uint64_t paging_pa(uint64_t va)
{
    unsigned level = 0;
    const uint64_t *entry = find(va, &level, false);

    if (!entry || !(*entry & PG_P))
        return 0;
    uint64_t mask = level ? LARGE_PAGE - 1 : MACHINE_PAGE - 1;
    return (*entry & PG_ADDR & ~mask) | (va & mask);
}

/* ---- backing ------------------------------------------------------------------------------- */

/* One piece of memory at va, as large as fits. @return its bytes, 0 without memory. */
static uint64_t back_piece(uint64_t va, uint64_t bytes, uint64_t alias)
{
    bool is_large = bytes >= LARGE_PAGE && !((va | alias) & (LARGE_PAGE - 1));
    uint64_t pa = is_large ? frame_take_large() : 0;

    if (pa) {
        if (map_large(va, pa, PG_W | PG_NX) && (!alias || map_large(alias, pa, 0))) {
            memset(physmap(pa), 0, LARGE_PAGE);
            return LARGE_PAGE;
        }
        for (uint64_t p = pa; p < pa + LARGE_PAGE; p += MACHINE_PAGE)
            frame_give(p);
        return 0;
    }
    pa = frame_take();
    if (!pa)
        return 0;
    if (!paging_map(va, pa, PG_W | PG_NX) || (alias && !paging_map(alias, pa, 0))) {
        frame_give(pa);
        return 0;
    }
    memset(physmap(pa), 0, MACHINE_PAGE);
    return MACHINE_PAGE;
}

int paging_back(uint64_t va, uint64_t bytes, uint64_t alias)
{
    uint64_t done = 0;

    while (done < bytes) {
        uint64_t n = back_piece(va + done, bytes - done, alias ? alias + done : 0);
        if (!n) {
            paging_unmap(va, done, true);
            if (alias)
                paging_unmap(alias, done, false);
            return -ENOMEM;
        }
        done += n;
    }
    return 0;
}

static void give_entry(uint64_t entry, unsigned level)
{
    uint64_t pa = entry & PG_ADDR, bytes = level ? LARGE_PAGE : MACHINE_PAGE;

    for (uint64_t p = pa; p < pa + bytes; p += MACHINE_PAGE)
        frame_give(p);
}

/* A window's page has two addresses while the window is selected. */
static void flush(uint64_t va)
{
    flush_page(va);
    if (selected && va - selected < WINDOW_BYTES)
        flush_page(va - selected);
}

/* Where tables are absent, whole regions are stepped over. */
uint64_t paging_unmap(uint64_t va, uint64_t bytes, bool give)
{
    uint64_t end = va + bytes, nflush = 0, mapped = 0;

    while (va < end) {
        unsigned level = 1;
        uint64_t *entry = find(va, &level, false), step = MACHINE_PAGE;
        if (!entry || !(*entry & PG_P)) {
            va = (va + LARGE_PAGE) & ~(uint64_t)(LARGE_PAGE - 1);
            continue;
        }
        if (*entry & PG_PS) {
            step = LARGE_PAGE;
        } else {
            entry = &table(*entry)[index_at(va, 0)];
            level = 0;
        }
        if (*entry & PG_P) {
            uint64_t was = *entry;
            *entry = 0;
            mapped += step;
            if (++nflush < FLUSH_ALL_AT)
                flush(va);
            if (give)
                give_entry(was, level);
        }
        va += step;
    }
    if (nflush >= FLUSH_ALL_AT)
        write_cr3(read_cr3());
    return mapped;
}

int paging_show(uint64_t va, uint64_t from, uint64_t bytes, unsigned rights)
{
    uint64_t flags = (rights & WINDOW_WRITE ? PG_W : 0) | (rights & WINDOW_EXECUTE ? 0 : PG_NX) |
                     (rights & WINDOW_USER ? PG_U : 0);

    if (!memory_has(0))
        return -ENOMEM;
    for (uint64_t done = 0; done < bytes; done += MACHINE_PAGE) {
        uint64_t pa = paging_pa(from + done);
        if (!pa)
            return -EINVAL;
        if (!paging_map(va + done, pa, flags))
            return -ENOMEM;
        if (bytes <= FLUSH_ALL_AT * MACHINE_PAGE)
            flush(va + done);
    }
    if (bytes > FLUSH_ALL_AT * MACHINE_PAGE)
        write_cr3(read_cr3());
    return 0;
}

/* ---- windows ---------------------------------------------------------------------------------- */

#define UPPER_HALF 256u /* entries of the top table: everything but the guest's addresses */
#define PER_WINDOW 4u   /* page directories                                               */

static uint64_t tree_of(const uint64_t *top)
{
    return (uint64_t)(uintptr_t)top - PHYSMAP;
}

int paging_tree(unsigned i)
{
    const uint64_t *base = table(read_cr3());
    uint64_t at = WINDOWS + i * WINDOW_STRIDE, top = 0, low = 0;

    if (window_tree[i])
        return 0;
    if (!memory_has(0))
        return -ENOMEM;
    uint64_t *tree = new_table(&top), *directories = tree ? new_table(&low) : NULL;
    if (!directories)
        return -ENOMEM;
    for (unsigned n = 0; n < PER_WINDOW; n++) {
        unsigned level = 1;
        if (!find(at + ((uint64_t)n << 30), &level, true)) /* the directory comes to be on the way */
            return -ENOMEM;
        level = 2;
        directories[n] = *find(at + ((uint64_t)n << 30), &level, false);
    }
    memcpy(tree + UPPER_HALF, base + UPPER_HALF, UPPER_HALF * sizeof *tree);
    tree[0] = low;
    window_tree[i] = tree_of(tree);
    return 0;
}

void paging_select(unsigned i)
{
    if (!window_tree[i])
        return;
    write_cr3(window_tree[i]);
    selected = WINDOWS + i * WINDOW_STRIDE;
}

uint64_t paging_window(void)
{
    return selected;
}

/* The top tables are copies, so what they lead to must be there before the first copy is made. */
static void make_upper_tables(void)
{
    static const uint64_t at[] = { PHYSMAP, GUEST_RAM, ARENA, CODE_RW, WINDOWS };

    for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
        unsigned level = 2;
        if (!find(at[i], &level, true))
            core_panic(NULL, "this machine has too little memory");
    }
}

/* ---- the beginning -------------------------------------------------------------------------- */

bool paging_show_machine(uint64_t start, uint64_t end)
{
    for (uint64_t pa = start & ~(uint64_t)(LARGE_PAGE - 1); pa < end; pa += LARGE_PAGE) {
        unsigned level = 1;
        uint64_t *entry = find(PHYSMAP + pa, &level, true);
        if (!entry)
            return false;
        if (!(*entry & PG_P))
            *entry = pa | PG_P | PG_W | PG_PS | PG_NX;
    }
    return true;
}

static void set_rights(const uint8_t *from, const uint8_t *to, uint64_t flags)
{
    for (uint64_t va = (uint64_t)(uintptr_t)from; va < (uint64_t)(uintptr_t)to; va += MACHINE_PAGE) {
        unsigned level = 0;
        uint64_t *entry = find(va, &level, false);
        if (entry && !level)
            *entry = (*entry & PG_ADDR) | PG_P | flags;
    }
}

void paging_init(void)
{
    table(read_cr3())[0] = 0; /* the boot code was mapped as it is */
    set_rights(image_base, image_text_end, 0);
    set_rights(image_text_end, image_rodata_end, PG_NX);
    set_rights(image_rodata_end, image_end, PG_W | PG_NX);
    set_rights(library_start, library_text, PG_NX);
    set_rights(library_text, library_text_end, 0);
    set_rights(library_text_end, library_end, PG_NX);
    set_rights(library_data, library_end, PG_W | PG_NX);
    make_upper_tables();
    write_cr3(read_cr3());
}
