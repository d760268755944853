/*
 * Ring 0, at the very start: the boot loader's information is copied, and the machine's memory goes to the
 * frame allocator, except where the image, the modules and the first megabyte are.
 *
 * Everything the loader points to lies below 4 GiB, which the boot code has mapped at PHYSMAP.
 */
#include "platform/ring1/image/multiboot_info.h"

#include "base/string.h"
#include "platform/ring1/core/core.h"

#define ONE_MIB 0x100000u

#define INFO_HAS_CMDLINE 0x004u
#define INFO_HAS_MODULES 0x008u
#define INFO_HAS_MAP     0x040u
#define MAP_AVAILABLE    1u
#define MAP_ROWS_MAX     128u

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, module_count, modules, syms[4], map_bytes, map;
};
struct multiboot_module {
    uint32_t start, end, words, reserved;
};
struct multiboot_map_row { /* `size` bytes follow the first field */
    uint32_t size;
    uint64_t start, bytes;
    uint32_t type;
} __attribute__((packed));

struct boot_info boot_info;

/* What is not to be given away, by address. */
static struct {
    uint64_t start, end;
} taken[MODULES_MAX + 2];
static unsigned ntaken;

static void take(uint64_t start, uint64_t end)
{
    unsigned i = ntaken++;

    for (; i && taken[i - 1].start > start; i--)
        taken[i] = taken[i - 1];
    taken[i].start = start;
    taken[i].end = end;
}

static void add_memory(uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < ntaken && start < end; i++) {
        if (taken[i].end <= start || taken[i].start >= end)
            continue;
        if (taken[i].start > start)
            frames_add(start, taken[i].start);
        start = taken[i].end;
    }
    if (start < end)
        frames_add(start, end);
}

static void copy_words(char *to, uint32_t pa)
{
    const char *from = physmap(pa);
    size_t n = 0;

    if (pa)
        for (; from[n] && n < WORDS_BYTES - 1; n++)
            to[n] = from[n];
    to[n] = 0;
    if (n == WORDS_BYTES - 1)
        boot_info.error = "a command line is longer than 4095 bytes";
}

static void note_modules(const struct multiboot_info *info)
{
    if (!(info->flags & INFO_HAS_MODULES))
        return;
    const struct multiboot_module *m = physmap(info->modules);
    unsigned count = info->module_count;

    if (count > MODULES_MAX) {
        boot_info.error = "there are more than 8 modules";
        count = MODULES_MAX;
    }
    for (unsigned i = 0; i < count; i++) {
        struct boot_module_info *to = &boot_info.module[i];
        to->data = physmap(m[i].start);
        to->bytes = m[i].end - m[i].start;
        copy_words(to->words, m[i].words);
        take(m[i].start, m[i].end);
    }
    boot_info.module_count = count;
}

/* Ranges above 4 GiB are mapped first, with tables from below. */
static void note_map(const struct multiboot_info *info)
{
    for (unsigned high = 0; high < 2; high++) {
        uint32_t at = 0;
        for (unsigned rows = 0; at < info->map_bytes && rows < MAP_ROWS_MAX; rows++) {
            const struct multiboot_map_row *r = physmap(info->map + at);
            at += r->size + 4;
            if (r->type != MAP_AVAILABLE || high != (r->start >= 1ull << 32))
                continue;
            if (!high || paging_show_machine(r->start, r->start + r->bytes))
                add_memory(r->start, r->start + r->bytes);
        }
    }
}

void front_init(uint64_t multiboot_pa, uint64_t boot_end_pa)
{
    const struct multiboot_info *info = physmap(multiboot_pa);

    if (info->flags & INFO_HAS_CMDLINE)
        copy_words(boot_info.words, info->cmdline);
    take(0, ONE_MIB);
    take(ONE_MIB, boot_end_pa);
    note_modules(info);
    if (!(info->flags & INFO_HAS_MAP))
        core_panic(NULL, "the boot loader tells no memory map");
    note_map(info);
}
