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

#define ROM_UNIT   (64u << 10)
#define ROM_MAX    (512u << 10)
#define VGA_MAX    (256u << 10) /* C0000..FFFFF has no more room */
#define PATH_BYTES 4096u

#define VGA_ROM "vgabios-isavga.bin"

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

bool firmware_open(struct firmware *fw, const struct options *o, char error[FIRMWARE_ERROR_BYTES])
{
    memset(fw, 0, sizeof *fw);
    if (!o->bios)
        return true;
    if (open_rom(fw, o, error) && (o->no_vga || open_vga(fw, o, error)))
        return true;
    firmware_close(fw);
    return false;
}

void firmware_close(struct firmware *fw)
{
    free(fw->rom);
    file_close(&fw->vga);
    memset(fw, 0, sizeof *fw);
}

void firmware_configure(const struct firmware *fw, struct machine_config *config)
{
    config->rom = fw->rom;
    config->rom_bytes = fw->rom_bytes;
    if (fw->vga.bytes)
        config->fw_file[config->fw_file_count++] =
            (struct fw_file){ "vgaroms/" VGA_ROM, fw->vga.data, (uint32_t)fw->vga.bytes };
}
