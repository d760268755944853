/*
 * The image of `-bios`, as it lies in a PC's ROM: its end is at 4 GiB and at 1 MiB. The VGA's own ROM is
 * handed over through fw_cfg, since an ISA VGA has no place to read it from.
 */
#include "cli/firmware.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/types.h"

#define ROM_UNIT       (64u << 10)
#define ROM_MAX        (512u << 10)
#define OPTION_ROM_MAX (128u << 10) /* C0000..DFFFF */
#define VGA_MAX        (256u << 10) /* C0000..FFFFF has no more room */
#define PATH_BYTES     4096u

#define VGA_ROM  "vgabios-isavga.bin"
#define BOOT_ROM "linuxboot_dma.bin"

const char *const firmware_dirs[] = { "/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu",
                                      NULL };

/* ---- finding ----------------------------------------------------------------------------------------- */

static bool is_in(const char *dir, const char *name, char path[PATH_BYTES])
{
    fmt_format(path, PATH_BYTES, "%s/%s", dir, name);
    return access(path, R_OK) == 0;
}

/* The name itself when it is nowhere, so that opening it tells why. */
static const char *find(const struct options *o, const char *name, char path[PATH_BYTES])
{
    if (access(name, R_OK) == 0 || strlen(name) > PATH_BYTES / 2)
        return name;
    for (unsigned i = 0; i < o->data_dir_count; i++)
        if (strlen(o->data_dir[i]) < PATH_BYTES / 2 && is_in(o->data_dir[i], name, path))
            return path;
    for (unsigned i = 0; firmware_dirs[i]; i++)
        if (is_in(firmware_dirs[i], name, path))
            return path;
    return name;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static bool copy_rom(struct firmware *fw, const struct file_image *f, const char *name, char *error)
{
    if (!f->bytes || f->bytes % ROM_UNIT || f->bytes > ROM_MAX) {
        fmt_format(error, FIRMWARE_ERROR_BYTES,
                   "-bios '%.200s' has %llu bytes: a ROM image has 64 KiB to 512 KiB, in steps of 64 KiB",
                   name, (unsigned long long)f->bytes);
        return false;
    }
    fw->rom = aligned_alloc(GUEST_PAGE_SIZE, f->bytes);
    if (!fw->rom) {
        fmt_format(error, FIRMWARE_ERROR_BYTES, "-bios '%.200s': out of memory", name);
        return false;
    }
    memcpy(fw->rom, f->data, f->bytes);
    fw->rom_bytes = (uint32_t)f->bytes;
    return true;
}

static bool open_rom(struct firmware *fw, const struct options *o, char *error)
{
    char path[PATH_BYTES];
    struct file_image f;
    int err = file_open(&f, find(o, o->bios, path));

    if (err) {
        fmt_format(error, FIRMWARE_ERROR_BYTES, "-bios '%.200s': %s", o->bios, strerror(err));
        return false;
    }
    bool ok = copy_rom(fw, &f, o->bios, error);
    file_close(&f);
    return ok;
}

static bool open_vga(struct firmware *fw, const struct options *o, char *error)
{
    char path[PATH_BYTES];
    int err = file_open(&fw->vga, find(o, VGA_ROM, path));

    if (err == ENOENT)
        return true;
    if (err)
        fmt_format(error, FIRMWARE_ERROR_BYTES, "VGA firmware '" VGA_ROM "': %s", strerror(err));
    else if (fw->vga.bytes > VGA_MAX)
        fmt_format(error, FIRMWARE_ERROR_BYTES, "VGA firmware '" VGA_ROM "' is larger than %u KiB",
                   VGA_MAX >> 10);
    else
        return true;
    return false;
}

static bool open_option_rom(struct firmware *fw, const struct options *o, const char *name, char *error)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    char path[PATH_BYTES];
    int err = file_open(&fw->option[fw->options].file, find(o, name, path));

    if (err) {
        fmt_format(error, FIRMWARE_ERROR_BYTES, "-option-rom '%.200s': %s", name, strerror(err));
        return false;
    }
    fmt_format(fw->option[fw->options].name, sizeof fw->option[0].name, "genroms/%s", base);
    size_t bytes = fw->option[fw->options++].file.bytes;
    if (bytes && bytes <= OPTION_ROM_MAX)
        return true;
    fmt_format(error, FIRMWARE_ERROR_BYTES,
               "-option-rom '%.200s' has %llu bytes: such a ROM has up to 128 KiB", name,
               (unsigned long long)bytes);
    return false;
}

static bool open_option_roms(struct firmware *fw, const struct options *o, char *error)
{
    for (unsigned i = 0; i < o->option_rom_count; i++)
        if (!open_option_rom(fw, o, o->option_rom[i], error))
            return false;
    return true;
}

bool firmware_open(struct firmware *fw, const struct options *o, char error[FIRMWARE_ERROR_BYTES])
{
    memset(fw, 0, sizeof *fw);
    if (!o->bios)
        return true;
    if (open_rom(fw, o, error) && (o->no_vga || open_vga(fw, o, error)) && open_option_roms(fw, o, error))
        return true;
    firmware_close(fw);
    return false;
}

void firmware_close(struct firmware *fw)
{
    free(fw->rom);
    free(fw->setup);
    file_close(&fw->vga);
    for (unsigned i = 0; i < fw->options; i++)
        file_close(&fw->option[i].file);
    memset(fw, 0, sizeof *fw);
}

/* ---- a kernel ------------------------------------------------------------------------------------------ */

/* Where QEMU's boot ROM expects to put things; firmware keeps its tables at the end of memory. */
#define SETUP_AT    0x10000u
#define CMDLINE_AT  0x20000u
#define CODE_AT     0x100000u
#define TABLES_ROOM (256u << 10)

/* The header, at the setup code's offsets: see "The Linux/x86 Boot Protocol". */
#define HDR_LOADER      0x210
#define HDR_LOADFLAGS   0x211
#define HDR_INITRD      0x218
#define HDR_INITRD_SIZE 0x21c
#define HDR_HEAP_END    0x224
#define HDR_CMDLINE_PTR 0x228
#define LOADER_QEMU     0xb0
#define CAN_USE_HEAP    0x80
#define HEAP_END        (CMDLINE_AT - SETUP_AT - 0x200)

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t initrd_address(const struct bzimage *image, uint64_t ram_bytes, uint64_t bytes)
{
    uint64_t top = ram_bytes - TABLES_ROOM;

    if (top > (uint64_t)image->initrd_max + 1)
        top = (uint64_t)image->initrd_max + 1;
    if (ram_bytes < TABLES_ROOM || bytes > top ||
        ((top - bytes) & ~(uint64_t)GUEST_PAGE_MASK) < image->run_end)
        return 0;
    return (uint32_t)((top - bytes) & ~(uint64_t)GUEST_PAGE_MASK);
}

static bool refuse(const struct options *o, const char *why, char *error)
{
    fmt_format(error, FIRMWARE_ERROR_BYTES, "-kernel '%.200s' with -bios: %s", o->kernel, why);
    return false;
}

bool firmware_add_kernel(struct firmware *fw, const struct options *o, const struct boot_files *files,
                         char error[FIRMWARE_ERROR_BYTES])
{
    const struct bzimage *image = &files->bzimage;
    const struct file_image *initrd = &files->module[0];
    uint32_t initrd_at = 0;

    if (files->kind != BOOT_BZIMAGE)
        return refuse(o, "only a bzImage can be loaded so", error);
    fw->cmdline = o->append ? o->append : "";
    if (strlen(fw->cmdline) > image->cmdline_max)
        return refuse(o, "the command line is too long for this kernel", error);
    if (initrd->bytes && !(initrd_at = initrd_address(image, o->ram_bytes, initrd->bytes)))
        return refuse(o, "the initrd does not fit: give the guest more memory (-m)", error);
    if (!open_option_rom(fw, o, BOOT_ROM, error))
        return refuse(o, "needs QEMU's " BOOT_ROM " (Debian: qemu-system-data): see -L", error);
    fw->setup_bytes = (uint32_t)(image->code - image->setup);
    fw->setup = malloc(fw->setup_bytes);
    if (!fw->setup)
        return refuse(o, "out of memory", error);
    memcpy(fw->setup, image->setup, fw->setup_bytes);
    fw->setup[HDR_LOADER] = LOADER_QEMU;
    fw->setup[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    fw->setup[HDR_HEAP_END] = HEAP_END & 0xff;
    fw->setup[HDR_HEAP_END + 1] = HEAP_END >> 8;
    put32(fw->setup + HDR_CMDLINE_PTR, CMDLINE_AT);
    put32(fw->setup + HDR_INITRD, initrd_at);
    put32(fw->setup + HDR_INITRD_SIZE, (uint32_t)initrd->bytes);
    fw->files = files;

    const uint32_t words[8] = { CODE_AT,    (uint32_t)image->code_bytes,
                                initrd_at,  (uint32_t)initrd->bytes,
                                CMDLINE_AT, (uint32_t)strlen(fw->cmdline) + 1,
                                SETUP_AT,   fw->setup_bytes };
    for (unsigned i = 0; i < 8; i++)
        put32(fw->word[i], words[i]);
    return true;
}

/* ---- the machine's configuration ----------------------------------------------------------------------- */

static void add_file(struct machine_config *config, const char *name, const void *data, size_t bytes)
{
    config->fw_file[config->fw_file_count++] = (struct fw_file){ name, data, (uint32_t)bytes };
}

static void add_item(struct machine_config *config, uint16_t key, const void *data, size_t bytes)
{
    config->fw_item[config->fw_item_count++] = (struct fw_item){ key, data, (uint32_t)bytes };
}

static void add_kernel(const struct firmware *fw, struct machine_config *config)
{
    static const uint16_t keys[8] = { FW_KERNEL_ADDR,  FW_KERNEL_SIZE,  FW_INITRD_ADDR, FW_INITRD_SIZE,
                                      FW_CMDLINE_ADDR, FW_CMDLINE_SIZE, FW_SETUP_ADDR,  FW_SETUP_SIZE };
    static const char order[] = "/rom@genroms/" BOOT_ROM "\n";

    for (unsigned i = 0; i < 8; i++)
        add_item(config, keys[i], fw->word[i], 4);
    add_item(config, FW_KERNEL_DATA, fw->files->bzimage.code, fw->files->bzimage.code_bytes);
    add_item(config, FW_INITRD_DATA, fw->files->module[0].data, fw->files->module[0].bytes);
    add_item(config, FW_CMDLINE_DATA, fw->cmdline, strlen(fw->cmdline) + 1);
    add_item(config, FW_SETUP_DATA, fw->setup, fw->setup_bytes);
    add_file(config, "bootorder", order, sizeof order);
}

void firmware_configure(const struct firmware *fw, struct machine_config *config)
{
    config->rom = fw->rom;
    config->rom_bytes = fw->rom_bytes;
    if (fw->vga.bytes)
        add_file(config, "vgaroms/" VGA_ROM, fw->vga.data, fw->vga.bytes);
    for (unsigned i = 0; i < fw->options; i++)
        add_file(config, fw->option[i].name, fw->option[i].file.data, fw->option[i].file.bytes);
    if (fw->setup)
        add_kernel(fw, config);
}
