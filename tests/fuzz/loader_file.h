/*
 * What the fuzzers of the multiboot and ELF loaders share: a small file that is right, which the input
 * overwrites, placed so that reading past its end is seen even in libelf, which is not instrumented;
 * and what must hold of everything that was placed.
 *
 * The input: RAM's size, number of modules, bytes cut off the end, how the file lies in memory; then
 * pieces of (offset, length, bytes) that overwrite the file.
 */
#ifndef TESTS_FUZZ_LOADER_FILE_H
#define TESTS_FUZZ_LOADER_FILE_H

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cli/image.h"

#define FILE_MAX    0x2000u
#define PAGE        4096u
#define PARAMETERS  4u
#define MODULES_MAX 4u
#define TEXT_OFS    0x1000u
#define MB_OFS      0x0100u /* the multiboot header */
#define NOTE_OFS    0x0200u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* A page after the file's end that nobody may touch. */
struct loader_file {
    uint8_t *area; /* FILE_MAX bytes, then the guard */
    uint8_t *at;
    size_t bytes;
    uint64_t ram_bytes;
    unsigned modules;
};

static void make_elf(uint8_t *file)
{
    Elf32_Ehdr *h = (Elf32_Ehdr *)(void *)file;
    Elf32_Phdr *p = (Elf32_Phdr *)(void *)(file + sizeof *h);

    *h = (Elf32_Ehdr){ .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
                       .e_type = ET_EXEC,
                       .e_machine = EM_386,
                       .e_version = EV_CURRENT,
                       .e_entry = 0xc0100000u,
                       .e_phoff = sizeof *h,
                       .e_ehsize = sizeof *h,
                       .e_phentsize = sizeof *p,
                       .e_phnum = 3 };
    p[0] = (Elf32_Phdr){ .p_type = PT_LOAD,
                         .p_offset = TEXT_OFS,
                         .p_vaddr = 0xc0100000u,
                         .p_paddr = 0x100000,
                         .p_filesz = 0x800,
                         .p_memsz = 0x2000 };
    p[1] = (Elf32_Phdr){ .p_type = PT_LOAD,
                         .p_offset = TEXT_OFS + 0x800,
                         .p_vaddr = 0xc0102000u,
                         .p_paddr = 0x102000,
                         .p_filesz = 0x800,
                         .p_memsz = 0x800 };
    p[2] = (Elf32_Phdr){ .p_type = PT_NOTE, .p_offset = NOTE_OFS, .p_filesz = 20 };
}

static void loader_file_make(struct loader_file *f, const uint8_t *data, size_t size,
                             void (*make)(uint8_t *file))
{
    static uint8_t *area;

    if (!area) {
        area = mmap(NULL, FILE_MAX + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require(area != MAP_FAILED && mprotect(area + FILE_MAX, PAGE, PROT_NONE) == 0);
    }
    size_t cut = (size_t)data[2] << (data[0] >> 5);
    f->area = area;
    f->ram_bytes = (uint64_t)(2 + (data[0] & 7)) << 20;
    f->modules = data[1] % (MODULES_MAX + 1);
    f->bytes = cut > FILE_MAX ? 0 : FILE_MAX - cut;
    memset(area, 0, FILE_MAX);
    for (size_t i = TEXT_OFS; i < FILE_MAX; i++)
        area[i] = (uint8_t)(i * 7 + 1);
    make(area);
    for (const uint8_t *p = data + PARAMETERS, *end = data + size; end - p > 3;) {
        size_t ofs = (size_t)(p[0] | p[1] << 8) % FILE_MAX, len = p[2] & 31u;
        p += 3;
        for (; len && p < end; len--)
            area[ofs++ % FILE_MAX] = *p++;
    }
    f->at = area;
    if (data[3] & 1) { /* ends at the guard; libelf then meets misaligned headers, too */
        f->at = area + FILE_MAX - f->bytes;
        memmove(f->at, area, f->bytes);
    }
}

/* Modules whose bytes tell them apart. */
static void make_modules(struct boot_module modules[MODULES_MAX])
{
    static uint8_t content[MODULES_MAX][9000];
    static const char *const texts[MODULES_MAX] = { "a", "b x=y", "c", "d" };
    static const size_t sizes[MODULES_MAX] = { 1, 9000, 4096, 5000 };

    for (unsigned i = 0; i < MODULES_MAX; i++) {
        memset(content[i], (int)(0xa1 + i), sizeof content[i]);
        modules[i] = (struct boot_module){ content[i], sizes[i], texts[i] };
    }
}

static const uint8_t zeros[PAGE];

static void check_segments(const struct image *image, const uint8_t *ram, uint64_t ram_bytes)
{
    for (unsigned i = 0; i < image->count; i++) {
        const struct image_segment *s = &image->segment[i];
        require((uint64_t)s->pa + s->mem_bytes <= ram_bytes);
        require(!s->file_bytes || !memcmp(ram + s->pa, s->data, s->file_bytes));
        for (uint32_t k = s->file_bytes, n; k < s->mem_bytes; k += n) {
            n = s->mem_bytes - k < PAGE ? s->mem_bytes - k : PAGE;
            require(!memcmp(ram + s->pa + k, zeros, n));
        }
    }
}

static void check_entry(const struct boot_entry *e, const struct image *image, const uint8_t *ram,
                        uint64_t ram_bytes)
{
    bool inside = false;

    for (unsigned i = 0; i < image->count; i++)
        inside |= e->eip - image->segment[i].pa < image->segment[i].mem_bytes;
    require(inside);
    require((uint64_t)e->gdt_base + e->gdt_limit < ram_bytes);
    require(get_le64(ram + e->gdt_base + e->cs) == 0x00cf9b000000ffffull);
    require(get_le64(ram + e->gdt_base + e->ds) == 0x00cf93000000ffffull);
}

static void check_error(const char *error)
{
    require(error[0] && memchr(error, 0, IMAGE_ERROR_BYTES));
    require(!strchr(error, '\n'));
}

#endif
