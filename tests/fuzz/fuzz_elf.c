/* Fuzzer of the loader for plain ELF files, bare and by PVH (loader_file.h). */
#include "cli/elf_image.h"
#include "tests/fuzz/loader_file.h"

static void make(uint8_t *file)
{
    static const uint8_t note[20] = { 4, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0, 'X', 'e', 'n', 0, 0, 0, 0x10, 0 };

    make_elf(file);
    memcpy(file + NOTE_OFS, note, sizeof note); /* type 18 would be the one */
}

static void check_start_info(const uint8_t *ram, uint64_t ram_bytes, uint32_t info,
                             const struct boot_module *module)
{
    require(info && info < ram_bytes && get_le32(ram + info) == 0x336ec578u);
    require(!strcmp((const char *)ram + get_le64(ram + info + 24), "arguments"));
    require(get_le32(ram + info + 12) == (module ? 1u : 0u));
    if (module) {
        const uint8_t *row = ram + get_le64(ram + info + 16);
        require(get_le64(row) + module->bytes <= ram_bytes);
        require(get_le64(row + 8) == module->bytes &&
                !memcmp(ram + get_le64(row), module->data, module->bytes));
    }
}

static void place(const struct elf_image *elf, const struct loader_file *f)
{
    struct boot_module modules[MODULES_MAX];
    struct boot_entry entry;
    char error[IMAGE_ERROR_BYTES] = "";
    uint8_t *ram = calloc(1, f->ram_bytes);
    const char *cmdline = elf->has_pvh ? "arguments" : "";

    require(ram != NULL);
    make_modules(modules);
    if (elf_place(elf, ram, f->ram_bytes, modules, f->modules, cmdline, &entry, error)) {
        require(elf_fits(elf, f->ram_bytes, error));
        check_segments(&elf->image, ram, f->ram_bytes);
        check_entry(&entry, &elf->image, ram, f->ram_bytes);
        if (elf->has_pvh)
            check_start_info(ram, f->ram_bytes, entry.ebx, f->modules ? modules : NULL);
        else
            require(!entry.eax && !entry.ebx && !f->modules);
    } else {
        check_error(error);
    }
    free(ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loader_file f;
    struct elf_image elf;
    char error[IMAGE_ERROR_BYTES] = "";

    if (size < PARAMETERS)
        return 0;
    loader_file_make(&f, data, size, make);
    if (elf_parse(&elf, f.at, f.bytes, error))
        place(&elf, &f);
    else
        check_error(error);
    return 0;
}
