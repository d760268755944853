/* Fuzzer of the multiboot loader: files by addresses and ELF files, with modules (loader_file.h). */
#include "cli/multiboot.h"
#include "tests/fuzz/loader_file.h"

static void make(uint8_t *file)
{
    make_elf(file);
    put_le32(file + MB_OFS, 0x1badb002u);
    put_le32(file + MB_OFS + 4, 3);
    put_le32(file + MB_OFS + 12, 0x100000u + MB_OFS); /* fields of flag 16, which an input may set */
    put_le32(file + MB_OFS + 16, 0x100000u);
    put_le32(file + MB_OFS + 24, 0x104000u);
    put_le32(file + MB_OFS + 28, 0x100000u);
}

static void check_modules(const uint8_t *ram, uint64_t ram_bytes, uint32_t info,
                          const struct boot_module *modules, unsigned count)
{
    uint32_t list = get_le32(ram + info + 24);

    require(get_le32(ram + info + 20) == count);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *row = ram + list + i * 16;
        uint32_t start = get_le32(row), end = get_le32(row + 4), text = get_le32(row + 8);
        require(!(start & 0xfff) && start >= 0x100000 && end <= ram_bytes && end - start == modules[i].bytes);
        require(!memcmp(ram + start, modules[i].data, modules[i].bytes));
        require(text < ram_bytes && !strcmp((const char *)ram + text, modules[i].text));
    }
}

static void place(const struct multiboot *mb, const struct loader_file *f)
{
    struct boot_module modules[MODULES_MAX];
    struct boot_entry entry;
    char error[IMAGE_ERROR_BYTES] = "";
    uint8_t *ram = calloc(1, f->ram_bytes);

    require(ram != NULL);
    make_modules(modules);
    if (multiboot_place(mb, ram, f->ram_bytes, modules, f->modules, "kernel arguments", &entry, error)) {
        check_segments(&mb->image, ram, f->ram_bytes);
        check_entry(&entry, &mb->image, ram, f->ram_bytes);
        require(entry.eax == 0x2badb002u && entry.ebx && entry.ebx < entry.esp && entry.esp <= f->ram_bytes);
        require(!strcmp((const char *)ram + get_le32(ram + entry.ebx + 16), "kernel arguments"));
        check_modules(ram, f->ram_bytes, entry.ebx, modules, f->modules);
    } else {
        check_error(error);
    }
    free(ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loader_file f;
    struct multiboot mb;
    char error[IMAGE_ERROR_BYTES] = "";

    if (size < PARAMETERS)
        return 0;
    loader_file_make(&f, data, size, make);
    if (f.bytes > MB_OFS + 12 && !(data[3] & 2)) /* most inputs shall have a checksum that is right */
        put_le32(f.at + MB_OFS + 8, 0u - get_le32(f.at + MB_OFS) - get_le32(f.at + MB_OFS + 4));
    multiboot_is_version2(f.at, f.bytes);
    if (multiboot_parse(&mb, f.at, f.bytes, error)) {
        require(multiboot_is_multiboot(f.at, f.bytes));
        place(&mb, &f);
    } else {
        check_error(error);
    }
    return 0;
}
