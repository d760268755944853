/*
 * The loaders for multiboot and ELF kernels on made-up files: what goes where, that nothing
 * ever lies on something else, and what is said of files that are not right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>

#include "cli/elf_image.h"
#include "cli/multiboot.h"

#define RAM_BYTES  (8u << 20)
#define FILE_BYTES 0x3000u
#define TEXT_OFS   0x1000u
#define TEXT_BYTES 0x1800u
#define HEADER_OFS 0x1010u /* of the multiboot header: in the text */
#define TEXT_PA    0x100000u
#define TEXT_VA    0xc0100000u
#define BSS_BYTES  0x2345u

static uint8_t file[FILE_BYTES];
static uint8_t *ram;
static struct multiboot mb;
static struct elf_image elf;
static struct boot_entry entry;
static char error[IMAGE_ERROR_BYTES];

static Elf32_Ehdr *header(void)
{
    return (Elf32_Ehdr *)(void *)file;
}

static Elf32_Phdr *segments(void)
{
    return (Elf32_Phdr *)(void *)(file + sizeof(Elf32_Ehdr));
}

static void put_header(uint32_t flags)
{
    put_le32(file + HEADER_OFS, 0x1badb002u);
    put_le32(file + HEADER_OFS + 4, flags);
    put_le32(file + HEADER_OFS + 8, 0u - 0x1badb002u - flags);
}

static void put_addresses(uint32_t header_addr, uint32_t load, uint32_t load_end, uint32_t bss_end,
                          uint32_t start)
{
    uint32_t fields[] = { header_addr, load, load_end, bss_end, start };

    put_header(0x10003);
    for (unsigned i = 0; i < 5; i++)
        put_le32(file + HEADER_OFS + 12 + i * 4, fields[i]);
}

/* One segment with a BSS, virtual addresses at 3 GiB; a multiboot header in it. */
static int make_file(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FILE_BYTES; i++)
        file[i] = (uint8_t)(i * 7 + 3);
    memset(file, 0, 0x200);
    *header() = (Elf32_Ehdr){ .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
                              .e_type = ET_EXEC,
                              .e_machine = EM_386,
                              .e_version = EV_CURRENT,
                              .e_entry = TEXT_VA + 0x20,
                              .e_phoff = sizeof(Elf32_Ehdr),
                              .e_ehsize = sizeof(Elf32_Ehdr),
                              .e_phentsize = sizeof(Elf32_Phdr),
                              .e_phnum = 2 };
    segments()[0] = (Elf32_Phdr){ .p_type = PT_LOAD,
                                  .p_offset = TEXT_OFS,
                                  .p_vaddr = TEXT_VA,
                                  .p_paddr = TEXT_PA,
                                  .p_filesz = TEXT_BYTES,
                                  .p_memsz = TEXT_BYTES + BSS_BYTES,
                                  .p_flags = PF_R | PF_X };
    segments()[1] = (Elf32_Phdr){ .p_type = PT_GNU_STACK };
    put_header(3);
    ram = calloc(1, RAM_BYTES);
    error[0] = 0;
    return ram ? 0 : -1;
}

static int drop_file(void **state)
{
    (void)state;
    free(ram);
    return 0;
}

static void must(bool ok)
{
    if (!ok)
        fail_msg("%s", error);
}

static uint32_t info_field(unsigned at)
{
    return get_le32(ram + entry.ebx + at);
}

static const char *text_at(uint32_t at)
{
    assert_in_range(at, 1, RAM_BYTES - 1);
    return (const char *)ram + at;
}

static void place(const struct boot_module *modules, unsigned count, const char *cmdline)
{
    memset(ram, 0, RAM_BYTES);
    must(multiboot_parse(&mb, file, sizeof file, error));
    must(multiboot_place(&mb, ram, RAM_BYTES, modules, count, cmdline, &entry, error));
}

/* ---- multiboot ------------------------------------------------------------------------- */

static void elf_kernel_goes_to_its_physical_address(void **state)
{
    (void)state;
    place(NULL, 0, "kernel a=b");
    assert_memory_equal(ram + TEXT_PA, file + TEXT_OFS, TEXT_BYTES);
    for (unsigned i = 0; i < BSS_BYTES; i++)
        assert_int_equal(ram[TEXT_PA + TEXT_BYTES + i], 0);
    assert_int_equal(entry.eip, TEXT_PA + 0x20);
    assert_int_equal(entry.eax, 0x2badb002);
    assert_int_equal(info_field(0) & 0x1240, 0x0240); /* map, loader name; no framebuffer */
    assert_string_equal(text_at(info_field(16)), "kernel a=b");
    assert_string_equal(text_at(info_field(64)), "ringdown");
    assert_int_equal(info_field(20), 0);
}

static void information_tells_memory(void **state)
{
    (void)state;
    place(NULL, 0, "");
    assert_int_equal(info_field(0) & 0x41, 0x41);
    assert_int_equal(info_field(4), 639);
    assert_int_equal(info_field(8), (RAM_BYTES >> 10) - 1024);
    uint32_t length = info_field(44), at = info_field(48);
    uint64_t ram_seen = 0, end = 0;
    for (uint32_t ofs = 0; ofs < length; ofs += 4 + get_le32(ram + at + ofs)) {
        const uint8_t *row = ram + at + ofs;
        assert_int_equal(get_le32(row), 20);
        assert_true(get_le64(row + 4) >= end);
        end = get_le64(row + 4) + get_le64(row + 12);
        if (get_le32(row + 20) == 1)
            ram_seen += get_le64(row + 12);
    }
    assert_int_equal(ram_seen, RAM_BYTES - 0x100000 + 0x9fc00);
    assert_int_equal(end, RAM_BYTES);
}

static void descriptors_are_flat(void **state)
{
    (void)state;
    place(NULL, 0, "");
    assert_int_equal(entry.gdt_limit, 31);
    assert_true(get_le64(ram + entry.gdt_base + entry.cs) == 0x00cf9b000000ffffull);
    assert_true(get_le64(ram + entry.gdt_base + entry.ds) == 0x00cf93000000ffffull);
}

static void modules_are_page_aligned_and_described(void **state)
{
    static const uint8_t one[5000] = { 1, 2, 3 }, two[1] = { 9 };
    const struct boot_module modules[] = { { one, sizeof one, "one.bin x y" }, { two, sizeof two, "two" } };
    (void)state;
    place(modules, 2, "k");
    assert_int_equal(info_field(20), 2);
    uint32_t list = info_field(24), above = TEXT_PA + TEXT_BYTES + BSS_BYTES;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t start = get_le32(ram + list + i * 16), end = get_le32(ram + list + i * 16 + 4);
        assert_int_equal(start & 0xfff, 0);
        assert_true(start >= above);
        assert_int_equal(end - start, modules[i].bytes);
        assert_memory_equal(ram + start, modules[i].data, modules[i].bytes);
        assert_string_equal(text_at(get_le32(ram + list + i * 16 + 8)), modules[i].text);
        above = end;
    }
}

static void video_is_text_when_it_is_asked_for(void **state)
{
    (void)state;
    put_header(7);
    place(NULL, 0, "");
    assert_int_equal(info_field(0) & 0x1000, 0x1000);
    assert_int_equal(info_field(88), 0xb8000);
    assert_int_equal(info_field(100), 80);
    assert_int_equal(info_field(104), 25);
    assert_int_equal(ram[entry.ebx + 109], 2);
}

static void addresses_of_the_header_win_over_elf(void **state)
{
    (void)state;
    put_addresses(0x200010, 0x200000, 0x200000 + 0x800, 0x201000, 0x200100);
    place(NULL, 0, "");
    assert_memory_equal(ram + 0x200000, file + TEXT_OFS, 0x800);
    assert_int_equal(get_le32(ram + 0x200800), 0); /* BSS */
    assert_int_equal(ram[TEXT_PA + 0x40], 0);
    assert_int_equal(entry.eip, 0x200100);
    memset(file, 0, 64); /* need not be ELF at all */
    put_addresses(0x200010, 0x200000, 0, 0, 0x200100);
    place(NULL, 0, "");
    assert_memory_equal(ram + 0x200000, file + TEXT_OFS, FILE_BYTES - TEXT_OFS); /* to the file's end */
}

static void the_header_is_found_in_the_first_8_kib_only(void **state)
{
    (void)state;
    assert_true(multiboot_is_multiboot(file, sizeof file));
    assert_true(multiboot_is_multiboot(file, HEADER_OFS + 12));
    assert_false(multiboot_is_multiboot(file, HEADER_OFS + 11));
    file[HEADER_OFS + 8]++; /* checksum */
    assert_false(multiboot_is_multiboot(file, sizeof file));
    file[HEADER_OFS + 8]--;
    uint8_t copy[12];
    memcpy(copy, file + HEADER_OFS, 12);
    memset(file + HEADER_OFS, 0, 12);
    memcpy(file + HEADER_OFS + 2, copy, 12); /* misaligned */
    assert_false(multiboot_is_multiboot(file, sizeof file));
    memcpy(file + 8192 - 12, copy, 12);
    assert_true(multiboot_is_multiboot(file, sizeof file));
    memset(file + 8192 - 12, 0, 12);
    memcpy(file + 8192 - 8, copy, 12);
    assert_false(multiboot_is_multiboot(file, sizeof file));
}

struct range {
    uint64_t first, end;
};

static void assert_apart(const struct range *r, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < i; k++)
            if (r[i].first < r[k].end && r[k].first < r[i].end)
                fail_msg("0x%llx..0x%llx lies on 0x%llx..0x%llx", (unsigned long long)r[i].first,
                         (unsigned long long)r[i].end, (unsigned long long)r[k].first,
                         (unsigned long long)r[k].end);
}

/* Kernels of every size at every place, low memory included: nothing lies on anything else. */
static void nothing_collides_wherever_the_kernel_lies(void **state)
{
    static const uint8_t data[70000] = { 1 };
    static const uint32_t places[] = { 0,       0x600,   0x1000,   0x7c00,   0x8ff0,   0x9000,   0x9001,
                                       0x10000, 0x90000, 0x100000, 0x101234, 0x3ff000, 0x7e0000, 0x7ff000 };
    static const uint32_t sizes[] = { 0x1000, 0x8000, 0x20000, 0x80000, 0x96c00, 0x6f0000 };
    const struct boot_module modules[] = { { data, sizeof data, "first" },
                                           { data, 1, "second" },
                                           { data, 4096, "third" } };
    unsigned placed = 0;
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            uint32_t at = places[i], bytes = sizes[k];
            put_addresses(at + 0x10, at, at + 0x1000, at + bytes, at);
            memset(ram, 0, RAM_BYTES);
            must(multiboot_parse(&mb, file, sizeof file, error));
            if (!multiboot_place(&mb, ram, RAM_BYTES, modules, 3, "kernel", &entry, error))
                continue; /* across the PC's memory, or full */
            placed++;
            uint32_t list = info_field(24);
            struct range r[7] = { { at, (uint64_t)at + bytes },
                                  { entry.ebx, entry.esp },
                                  { 0x9fc00, 0x100000 },
                                  { RAM_BYTES, UINT64_MAX } };
            for (unsigned m = 0; m < 3; m++)
                r[4 + m] = (struct range){ get_le32(ram + list + m * 16), get_le32(ram + list + m * 16 + 4) };
            assert_apart(r, 7);
            assert_in_range(entry.gdt_base, entry.ebx, entry.esp - 32);
            assert_memory_equal(ram + at, file + TEXT_OFS, 0x1000);
        }
    }
    assert_true(placed > 40);
}

struct spoil {
    const char *what;
    uint32_t ofs, value;
    unsigned size;
    const char *says;
};

static void spoil(const struct spoil *s)
{
    for (unsigned b = 0; b < s->size; b++)
        file[s->ofs + b] = (uint8_t)(s->value >> (8 * b));
}

#define EH(field)    ((uint32_t)offsetof(Elf32_Ehdr, field))
#define PH(n, field) ((uint32_t)(sizeof(Elf32_Ehdr) + (n) * sizeof(Elf32_Phdr) + offsetof(Elf32_Phdr, field)))

static void refused(const struct spoil *s, bool parsed, bool placed)
{
    if (parsed && placed)
        fail_msg("%s was accepted", s->what);
    if (!strstr(error, s->says))
        fail_msg("%s gave: %s", s->what, error);
    assert_null(strchr(error, '\n'));
}

static const struct spoil elf_spoils[] = {
    { "64-bit class", EI_CLASS, ELFCLASS64, 1, "64-bit" },
    { "no class", EI_CLASS, 9, 1, "class 9" },
    { "big endian", EI_DATA, ELFDATA2MSB, 1, "big-endian" },
    { "x86-64", EH(e_machine), EM_X86_64, 2, "machine 62" },
    { "ARM", EH(e_machine), EM_ARM, 2, "machine 40" },
    { "relocatable", EH(e_type), ET_REL, 2, "type 1" },
    { "shared", EH(e_type), ET_DYN, 2, "type 3" },
    { "no program headers", EH(e_phnum), 0, 2, "nothing to load" },
    { "too many headers", EH(e_phnum), 0xfffe, 2, "truncated" },
    { "escape for many headers", EH(e_phnum), 0xffff, 2, "65535" },
    { "headers beyond the file", EH(e_phoff), FILE_BYTES - 32, 4, "truncated" },
    { "headers at the end of the address space", EH(e_phoff), 0xffffffe0, 4, "truncated" },
    { "wide headers", EH(e_phentsize), 56, 2, "56 bytes" },
    { "segment beyond the file", PH(0, p_offset), FILE_BYTES - 8, 4, "truncated" },
    { "offset that wraps", PH(0, p_offset), 0xfffffff0, 4, "truncated" },
    { "file size that wraps", PH(0, p_filesz), 0xffffffff, 4, "truncated" },
    { "less memory than file", PH(0, p_memsz), TEXT_BYTES - 1, 4, "room for" },
    { "address that wraps", PH(0, p_paddr), 0xfffff000, 4, "4 GiB" },
    { "memory size that wraps", PH(0, p_memsz), 0xffffffff, 4, "4 GiB" },
    { "nothing in memory", PH(0, p_memsz), 0, 4, "nothing to load" },
    { "out of RAM", PH(0, p_paddr), RAM_BYTES - 0x1000, 4, "-m 8M is too small" },
    { "across the PC's memory", PH(0, p_paddr), 0x9f000, 4, "PC's own memory" },
    { "in the VGA's memory", PH(0, p_paddr), 0xb8000, 4, "PC's own memory" },
    { "entry in no segment", EH(e_entry), 0x12345, 4, "none of its segments" },
    { "interpreter", PH(1, p_type), PT_INTERP, 4, "interpreter" },
};

static void broken_elf_files_are_named(void **state)
{
    uint8_t good[FILE_BYTES];
    memcpy(good, file, sizeof good);
    for (size_t i = 0; i < sizeof elf_spoils / sizeof elf_spoils[0]; i++) {
        const struct spoil *s = &elf_spoils[i];
        spoil(s);
        strcpy(error, "(nothing)");
        bool parsed = elf_parse(&elf, file, sizeof file, error);
        refused(s, parsed, parsed && elf_place(&elf, ram, RAM_BYTES, NULL, 0, "", &entry, error));
        strcpy(error, "(nothing)");
        parsed = multiboot_parse(&mb, file, sizeof file, error);
        refused(s, parsed, parsed && multiboot_place(&mb, ram, RAM_BYTES, NULL, 0, "", &entry, error));
        memcpy(file, good, sizeof good);
    }
    (void)state;
}

static void overlapping_and_countless_segments_are_named(void **state)
{
    (void)state;
    segments()[1] = segments()[0];
    segments()[1].p_paddr += TEXT_BYTES;
    must(elf_parse(&elf, file, sizeof file, error));
    assert_false(elf_place(&elf, ram, RAM_BYTES, NULL, 0, "", &entry, error));
    assert_non_null(strstr(error, "overlap"));
    segments()[1].p_paddr = segments()[0].p_paddr + segments()[0].p_memsz; /* touching is not overlapping */
    must(elf_parse(&elf, file, sizeof file, error));
    must(elf_place(&elf, ram, RAM_BYTES, NULL, 0, "", &entry, error));

    header()->e_phnum = 80;
    for (unsigned i = 0; i < 80; i++)
        segments()[i] = (Elf32_Phdr){ .p_type = PT_LOAD,
                                      .p_offset = TEXT_OFS,
                                      .p_paddr = TEXT_PA + i * 16,
                                      .p_filesz = 16,
                                      .p_memsz = 16 };
    assert_false(elf_parse(&elf, file, sizeof file, error));
    assert_non_null(strstr(error, "more than 64 segments"));
}

static const struct {
    const char *what;
    uint32_t header_addr, load, load_end, bss_end, start;
    const char *says;
} address_spoils[] = {
    { "load above the header", 0x200010, 0x200014, 0, 0, 0x200014, "not before the header" },
    { "load before the file", 0x200010, 0x1fe000, 0, 0, 0x200000, "not before the header" },
    { "end below load", 0x200010, 0x200000, 0x1ff000, 0, 0x200000, "load end" },
    { "end beyond the file", 0x200010, 0x200000, 0x200000 + FILE_BYTES, 0, 0x200000, "truncated" },
    { "BSS below the end", 0x200010, 0x200000, 0x200800, 0x200700, 0x200000, "BSS end" },
    { "wraps at 4 GiB", 0xfffff010, 0xfffff000, 0, 0, 0xfffff000, "4 GiB" },
    { "out of RAM", 0x800010, 0x800000, 0, 0, 0x800000, "-m 8M is too small" },
    { "huge BSS", 0x200010, 0x200000, 0, 0xffffffff, 0x200000, "too small" },
    { "entry before the image", 0x200010, 0x200000, 0, 0, 0x1fffff, "none of its segments" },
    { "entry after the image", 0x200010, 0x200000, 0x200800, 0x201000, 0x201000, "none of its segments" },
    { "nothing at all", 0x200010, 0x200000, 0x200000, 0, 0x200000, "nothing to load" },
};

static void broken_addresses_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof address_spoils / sizeof address_spoils[0]; i++) {
        struct spoil s = { .what = address_spoils[i].what, .says = address_spoils[i].says };
        put_addresses(address_spoils[i].header_addr, address_spoils[i].load, address_spoils[i].load_end,
                      address_spoils[i].bss_end, address_spoils[i].start);
        strcpy(error, "(nothing)");
        bool parsed = multiboot_parse(&mb, file, sizeof file, error);
        refused(&s, parsed, parsed && multiboot_place(&mb, ram, RAM_BYTES, NULL, 0, "", &entry, error));
    }
}

static void what_cannot_be_served_is_named(void **state)
{
    const struct boot_module huge = { file, RAM_BYTES, "huge" };
    (void)state;
    put_header(0x0013);
    assert_false(multiboot_parse(&mb, file, sizeof file, error));
    assert_non_null(strstr(error, "0x0010"));
    put_header(0x40003); /* not required: ignored */
    must(multiboot_parse(&mb, file, sizeof file, error));
    assert_false(multiboot_place(&mb, ram, RAM_BYTES, &huge, 1, "", &entry, error));
    assert_non_null(strstr(error, "module 1"));
    memset(file, 0, 16);
    put_header(3);
    assert_false(multiboot_parse(&mb, file, sizeof file, error));
    assert_non_null(strstr(error, "no ELF file"));
}

static void every_truncation_is_survived(void **state)
{
    (void)state;
    for (size_t n = 0; n < FILE_BYTES; n += n < 0x100 ? 1 : 53) {
        uint8_t *cut = malloc(n ? n : 1); /* its exact length, so that a sanitizer sees a read past the end */
        assert_non_null(cut);
        memcpy(cut, file, n);
        if (n < TEXT_OFS + TEXT_BYTES) {
            assert_false(elf_parse(&elf, cut, n, error));
            assert_false(multiboot_parse(&mb, cut, n, error));
            assert_null(strchr(error, '\n'));
        }
        multiboot_is_version2(cut, n);
        free(cut);
    }
}

/* ---- plain ELF --------------------------------------------------------------------------- */

static void bare_elf_is_entered_with_nothing(void **state)
{
    const struct boot_module initrd = { file, 100, "initrd" };
    (void)state;
    must(elf_parse(&elf, file, sizeof file, error));
    assert_false(elf.has_pvh);
    must(elf_place(&elf, ram, RAM_BYTES, NULL, 0, "", &entry, error));
    assert_memory_equal(ram + TEXT_PA, file + TEXT_OFS, TEXT_BYTES);
    assert_int_equal(entry.eip, TEXT_PA + 0x20);
    assert_int_equal(entry.eax | entry.ebx | entry.esi | entry.esp, 0);
    assert_true(get_le64(ram + entry.gdt_base + entry.cs) == 0x00cf9b000000ffffull);
    assert_false(elf_place(&elf, ram, RAM_BYTES, NULL, 0, "x", &entry, error));
    assert_non_null(strstr(error, "-append"));
    assert_false(elf_place(&elf, ram, RAM_BYTES, &initrd, 1, "", &entry, error));
    assert_non_null(strstr(error, "-initrd"));
    header()->e_entry = TEXT_PA + 0x30; /* a physical entry is taken as it is */
    must(elf_parse(&elf, file, sizeof file, error));
    assert_int_equal(elf.image.entry, TEXT_PA + 0x30);
}

static void put_note(uint32_t desc)
{
    static const uint8_t note[] = { 4, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0,  0, 'X', 'e', 'n', 0,   1,   2,
                                    3, 4, 4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0,   0,   'X', 'e', 'n', 0 };

    memcpy(file + 0x400, note, sizeof note);
    put_le32(file + 0x400 + sizeof note, desc);
    segments()[1] = (Elf32_Phdr){ .p_type = PT_NOTE, .p_offset = 0x400, .p_filesz = sizeof note + 4 };
}

static void pvh_kernel_gets_its_start_info(void **state)
{
    const struct boot_module initrd = { file, 100, "initrd" };
    (void)state;
    put_note(TEXT_PA + 0x40);
    must(elf_parse(&elf, file, sizeof file, error));
    assert_true(elf.has_pvh);
    must(elf_place(&elf, ram, RAM_BYTES, &initrd, 1, "quiet", &entry, error));
    const uint8_t *info = ram + entry.ebx;
    assert_int_equal(entry.eip, TEXT_PA + 0x40);
    assert_int_equal(get_le32(info), 0x336ec578);
    assert_int_equal(get_le32(info + 4), 1);
    assert_string_equal(text_at(get_le32(info + 24)), "quiet");
    assert_int_equal(get_le32(info + 12), 1);
    const uint8_t *module = ram + get_le32(info + 16);
    assert_true(get_le64(module) >= TEXT_PA + TEXT_BYTES + BSS_BYTES);
    assert_int_equal(get_le64(module + 8), 100);
    assert_memory_equal(ram + get_le64(module), file, 100);
    assert_int_equal(get_le32(info + 48), 4);
    assert_int_equal(get_le64(ram + get_le32(info + 40) + 3 * 24), 0x100000);
}

static void notes_that_make_no_sense_are_ignored(void **state)
{
    static const struct spoil cases[] = {
        { "name size", 0x400, 0xffffffff, 4, "" },
        { "desc size", 0x404, 0xfffffffd, 4, "" },
        { "both", 0x400, 0x80000000, 4, "" },
        { "type", 0x400 + 28, 17, 4, "" },
        { "name", 0x400 + 32, 'Y', 1, "" },
        { "short desc", 0x400 + 24, 2, 4, "" },
        { "beyond the file", PH(1, p_offset), 0xffffff00, 4, "" },
        { "cut", PH(1, p_filesz), 39, 4, "" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_note(TEXT_PA + 0x40);
        spoil(&cases[i]);
        must(elf_parse(&elf, file, sizeof file, error));
        if (elf.has_pvh)
            fail_msg("%s was accepted", cases[i].what);
    }
    put_note(0x400000);
    must(elf_parse(&elf, file, sizeof file, error));
    assert_false(elf_place(&elf, ram, RAM_BYTES, NULL, 0, "", &entry, error));
    assert_non_null(strstr(error, "none of its segments"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_file, drop_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(elf_kernel_goes_to_its_physical_address),
        TEST(information_tells_memory),
        TEST(descriptors_are_flat),
        TEST(modules_are_page_aligned_and_described),
        TEST(video_is_text_when_it_is_asked_for),
        TEST(addresses_of_the_header_win_over_elf),
        TEST(the_header_is_found_in_the_first_8_kib_only),
        TEST(nothing_collides_wherever_the_kernel_lies),
        TEST(broken_elf_files_are_named),
        TEST(overlapping_and_countless_segments_are_named),
        TEST(broken_addresses_are_named),
        TEST(what_cannot_be_served_is_named),
        TEST(every_truncation_is_survived),
        TEST(bare_elf_is_entered_with_nothing),
        TEST(pvh_kernel_gets_its_start_info),
        TEST(notes_that_make_no_sense_are_ignored),
    };

    return cmocka_run_group_tests_name("multiboot and ELF", tests, NULL, NULL);
}
