/*
 * The files of `-kernel` and `-initrd`: which kind of kernel it is, and its modules.
 *
 * The kind is found in QEMU's order: the setup header of a bzImage, a multiboot header, ELF. For a
 * bzImage and a PVH kernel -initrd is a path. For multiboot it is a list, "FILE ARGUMENTS,FILE ARGUMENTS",
 * in which a doubled comma stands for one; the kernel sees each entry as it is written.
 */
#include "cli/load.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static bool fail(char error[LOAD_ERROR_BYTES], const char *option, const char *path, const char *why)
{
    fmt_format(error, LOAD_ERROR_BYTES, "%s '%.200s' %s", option, path, why);
    for (char *p = error; *p; p++) /* a line is a line, whatever bytes the name holds */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    return false;
}

static bool open_file(struct file_image *f, const char *option, const char *path, char *error)
{
    int err = file_open(f, path);

    if (!err)
        return true;
    fmt_format(error, LOAD_ERROR_BYTES, "%s '%.200s': %s", option, path, strerror(err));
    return false;
}

/* ---- modules ----------------------------------------------------------------------------- */

static bool add_module(struct boot_files *files, char *path, char *text, char *error)
{
    struct file_image *f = &files->module[files->module_count];

    if (!open_file(f, "-initrd", path, error))
        return false;
    if (!f->bytes)
        return fail(error, "-initrd", path, "is empty");
    files->module_text[files->module_count++] = text;
    return true;
}

/* "FILE ARGUMENTS": the name ends at the first space. The text is kept whole. */
static bool add_listed(struct boot_files *files, const char *item, char *error)
{
    while (*item == ' ')
        item++;
    size_t name_len = strcspn(item, " ");
    char *text = strdup(item), *path = strndup(item, name_len);
    bool ok = false;

    if (!text || !path)
        fail(error, "-initrd", item, "cannot be loaded: out of memory");
    else if (!name_len)
        fail(error, "-initrd", item,
             "has an entry without a file name: use \"FILE ARGUMENTS,FILE ARGUMENTS\"");
    else if (files->module_count == IMAGE_MODULES_MAX)
        fail(error, "-initrd", item, "is one module too many: the most is 64");
    else
        ok = add_module(files, path, text, error);
    free(path);
    if (!ok)
        free(text);
    return ok; /* NOLINT(clang-analyzer-unix.Malloc): files->module_text owns the text */
}

static bool open_list(struct boot_files *files, const char *list, char *error)
{
    char *item = malloc(strlen(list) + 1);
    bool ok = item != NULL;

    _Static_assert(IMAGE_MODULES_MAX == 64, "the message above says so");
    if (!item)
        return fail(error, "-initrd", list, "cannot be loaded: out of memory");
    for (const char *p = list; ok;) {
        size_t n = 0;
        for (; *p && !(*p == ',' && p[1] != ','); p++) {
            p += *p == ',';
            item[n++] = *p;
        }
        item[n] = 0;
        ok = add_listed(files, item, error);
        if (!*p++)
            break;
    }
    free(item);
    return ok;
}

static bool open_modules(struct boot_files *files, const char *initrd, char *error)
{
    if (!initrd)
        return true;
    if (files->kind == BOOT_MULTIBOOT)
        return open_list(files, initrd, error);
    char *path = strdup(initrd);
    if (!path)
        return fail(error, "-initrd", initrd, "cannot be loaded: out of memory");
    bool ok = add_module(files, path, path, error);
    if (!ok)
        free(path);
    return ok; /* NOLINT(clang-analyzer-unix.Malloc): files->module_text owns it */
}

/* ---- the kernel --------------------------------------------------------------------------- */

static bool parse_kernel(struct boot_files *files, char *why)
{
    const uint8_t *data = files->kernel.data;
    size_t bytes = files->kernel.bytes;

    files->kind = BOOT_BZIMAGE;
    if (bzimage_is_bzimage(data, bytes))
        return bzimage_parse(&files->bzimage, data, bytes, why);
    files->kind = BOOT_MULTIBOOT;
    if (multiboot_is_multiboot(data, bytes))
        return multiboot_parse(&files->multiboot, data, bytes, why);
    if (multiboot_is_version2(data, bytes))
        return image_fail(why, "is a kernel for multiboot 2: only version 1 is supported");
    files->kind = BOOT_ELF;
    if (elf_is_elf(data, bytes))
        return elf_parse(&files->elf, data, bytes, why);
    return bzimage_parse(&files->bzimage, data, bytes, why); /* says what it is instead */
}

/* What can be said about the memory size before there is memory. */
static bool check_fit(const struct boot_files *files, const struct options *o, char *why)
{
    switch (files->kind) {
    case BOOT_BZIMAGE:
        return bzimage_fits(&files->bzimage, o->ram_bytes, files->module[0].bytes, why);
    case BOOT_MULTIBOOT:
        return image_check(&files->multiboot.image, o->ram_bytes, why);
    case BOOT_ELF:
        return elf_fits(&files->elf, o->ram_bytes, why);
    }
    return false;
}

bool boot_files_open(struct boot_files *files, const struct options *o, char error[LOAD_ERROR_BYTES])
{
    char why[IMAGE_ERROR_BYTES];

    memset(files, 0, sizeof *files);
    if (!open_file(&files->kernel, "-kernel", o->kernel, error))
        return false;
    if (!parse_kernel(files, why)) {
        fail(error, "-kernel", o->kernel, why);
        goto out_close;
    }
    if (!open_modules(files, o->initrd, error))
        goto out_close;
    if (check_fit(files, o, why))
        return true;
    fail(error, "-kernel", o->kernel, why);
out_close:
    boot_files_close(files);
    return false;
}

void boot_files_close(struct boot_files *files)
{
    file_close(&files->kernel);
    for (unsigned i = 0; i < files->module_count; i++) {
        file_close(&files->module[i]);
        free(files->module_text[i]);
    }
    files->module_count = 0;
}

/* ---- placing -------------------------------------------------------------------------------- */

/* A multiboot kernel's command line begins with its own name. */
static bool place_multiboot(const struct boot_files *files, const struct options *o, uint8_t *ram,
                            const struct boot_module *modules, struct boot_entry *entry, char *why)
{
    const char *append = o->append ? o->append : "";
    size_t bytes = strlen(o->kernel) + 1 + strlen(append) + 1;
    char *cmdline = malloc(bytes);

    if (!cmdline)
        return image_fail(why, "cannot be placed: out of memory");
    fmt_format(cmdline, bytes, "%s%s%s", o->kernel, *append ? " " : "", append);
    bool ok = multiboot_place(&files->multiboot, ram, o->ram_bytes, modules, files->module_count, cmdline,
                              entry, why);
    free(cmdline);
    return ok;
}

static bool place(const struct boot_files *files, const struct options *o, uint8_t *ram,
                  struct boot_entry *entry, char *why)
{
    struct boot_module modules[IMAGE_MODULES_MAX];
    const char *append = o->append ? o->append : "";

    for (unsigned i = 0; i < files->module_count; i++)
        modules[i] =
            (struct boot_module){ files->module[i].data, files->module[i].bytes, files->module_text[i] };
    switch (files->kind) {
    case BOOT_BZIMAGE:
        return bzimage_place(&files->bzimage, ram, o->ram_bytes, files->module[0].data,
                             files->module[0].bytes, append, entry, why);
    case BOOT_MULTIBOOT:
        return place_multiboot(files, o, ram, modules, entry, why);
    case BOOT_ELF:
        return elf_place(&files->elf, ram, o->ram_bytes, modules, files->module_count, append, entry, why);
    }
    return false;
}

bool boot_files_place(const struct boot_files *files, const struct options *o, uint8_t *ram,
                      struct boot_entry *entry, char error[LOAD_ERROR_BYTES])
{
    char why[IMAGE_ERROR_BYTES];

    return place(files, o, ram, entry, why) || fail(error, "-kernel", o->kernel, why);
}
