/*
 * Entering Linux by its 32-bit boot protocol.
 *
 * The file is a real-mode part (boot sector and setup, which we do not run) and a
 * protected-mode part, which goes to 1 MiB. What the real-mode part would have found
 * out is put into a zero-filled page, boot_params, together with a copy of the file's
 * setup header: memory map, screen, initrd, command line.
 *
 *   0x00090000  boot_params
 *   0x00091000  GDT: null, null, flat code 10h, flat data 18h
 *   0x00092000  command line
 *   0x00100000  protected-mode part; its entry is its first byte
 *   pref_address .. + init_size   the decompressed kernel, its BSS and heap
 *   top of low memory             initrd, page-aligned downwards
 *
 * Reference: the Linux kernel's documentation, "The Linux/x86 Boot Protocol" and
 * "Zero Page"; ACPI specification, "System Address Map Interfaces" (E820 types).
 */
#include "cli/bzimage.h"

#include <string.h>

#include "base/log.h"
#include "base/types.h"

/* Setup header, offsets in the file and in boot_params alike */
#define HDR_SETUP_SECTS   0x1f1u
#define HDR_START         0x1f1u
#define HDR_SYSSIZE       0x1f4u
#define HDR_VID_MODE      0x1fau
#define HDR_BOOT_FLAG     0x1feu
#define HDR_JUMP          0x200u
#define HDR_MAGIC         0x202u
#define HDR_VERSION       0x206u
#define HDR_LOADER        0x210u
#define HDR_LOADFLAGS     0x211u
#define HDR_CODE32_START  0x214u
#define HDR_RAMDISK_IMAGE 0x218u
#define HDR_RAMDISK_SIZE  0x21cu
#define HDR_CMDLINE_PTR   0x228u
#define HDR_INITRD_MAX    0x22cu
#define HDR_ALIGNMENT     0x230u
#define HDR_XLOADFLAGS    0x236u
#define HDR_CMDLINE_SIZE  0x238u
#define HDR_PAYLOAD_OFS   0x248u
#define HDR_PAYLOAD_LEN   0x24cu
#define HDR_PREF_ADDRESS  0x258u
#define HDR_INIT_SIZE     0x260u
#define HDR_END_MAX       0x290u /* the EDD buffer of boot_params follows */

#define LOADED_HIGH     0x01u
#define KEEP_SEGMENTS   0x40u
#define CAN_USE_HEAP    0x80u
#define XLF_KERNEL_64   0x0001u
#define LOADER_OTHER    0xffu
#define VID_MODE_NORMAL 0xffffu

/* Other fields of boot_params */
#define BP_SCREEN_EXT_MEM_K 0x002u
#define BP_SCREEN_MODE      0x006u
#define BP_SCREEN_COLS      0x007u
#define BP_SCREEN_LINES     0x00eu
#define BP_SCREEN_IS_VGA    0x00fu
#define BP_SCREEN_POINTS    0x010u
#define BP_ALT_MEM_K        0x1e0u
#define BP_E820_COUNT       0x1e8u
#define BP_E820             0x2d0u
#define BP_BYTES            0x1000u

#define BOOT_PARAMS_AT 0x90000u
#define GDT_AT         0x91000u
#define CMDLINE_AT     0x92000u
#define CMDLINE_ROOM   0xb000u /* up to 0x9d000: well below the EBDA */
#define CODE_AT        0x100000u
/* The kernel maps at least this much of low memory directly (896 MiB less room for vmalloc). */
#define LOWMEM_SAFE 0x37000000u

/* ---- reading the header ------------------------------------------------------------- */

/* Name what people hand us by mistake. */
static bool explain_wrong_file(const uint8_t *file, size_t bytes, char *error)
{
    if (bytes >= 2 && file[0] == 0x1f && file[1] == 0x8b)
        return image_fail(error, "is a gzip file: unpack it first, unless it is meant for -initrd");
    if (bytes >= 6 && !memcmp(file, "070701", 6))
        return image_fail(error, "is a cpio archive: did you mean -initrd?");
    if (bytes == 0)
        return image_fail(error, "is empty");
    return image_fail(error, "is not a kernel: it has no header of a bzImage, multiboot or ELF file");
}

static bool check_version(const struct bzimage *image, const uint8_t *file, char *error)
{
    if (image->version < 0x0202)
        return image_fail(error, "has boot protocol %u.%02u: at least 2.02 is needed", image->version >> 8,
                          image->version & 0xffu);
    if (!(file[HDR_LOADFLAGS] & LOADED_HIGH))
        return image_fail(error, "is a zImage, which is loaded low: a bzImage is needed");
    if (!get_le32(file + HDR_CODE32_START))
        return image_fail(
            error, "can be entered in real mode only (its code32_start is 0): that needs a BIOS, which "
                   "-kernel does without");
    if (image->version >= 0x020c && (get_le16(file + HDR_XLOADFLAGS) & XLF_KERNEL_64))
        return image_fail(error, "is a 64-bit kernel: a 32-bit x86 one is needed");
    return true;
}

/* Where it will run until it has read its memory map: the place it is loaded to, and the
 * place it decompresses itself to. */
static void find_run_area(struct bzimage *image, const uint8_t *file)
{
    image->run_start = CODE_AT;
    image->run_end = CODE_AT + (uint64_t)image->code_bytes;
    if (image->version >= 0x020a) {
        uint64_t start = get_le64(file + HDR_PREF_ADDRESS);
        uint32_t size = get_le32(file + HDR_INIT_SIZE);
        /* an absurd address must not wrap the sum */
        if (start > (1ull << 40))
            start = 1ull << 40;
        if (start < CODE_AT)
            start = CODE_AT;
        if (start + size > image->run_end)
            image->run_end = start + size;
    }
}

static bool check_truncated(const struct bzimage *image, const uint8_t *file, char *error)
{
    uint32_t paragraphs = get_le32(file + HDR_SYSSIZE);
    uint64_t need;

    if (image->version < 0x0204)
        paragraphs &= 0xffffu;
    need = (uint64_t)paragraphs * 16;
    if (image->version >= 0x0208) {
        uint64_t payload_end = (uint64_t)get_le32(file + HDR_PAYLOAD_OFS) + get_le32(file + HDR_PAYLOAD_LEN);
        if (payload_end > need)
            need = payload_end;
    }
    /* syssize is rounded up: the last paragraph may be short */
    if (need > (uint64_t)image->code_bytes + 15)
        return image_fail(error, "is truncated: its header announces %llu bytes of code, the file has %zu",
                          (unsigned long long)need, image->code_bytes);
    return true;
}

bool bzimage_is_bzimage(const uint8_t *file, size_t bytes)
{
    return bytes >= HDR_VERSION + 2 && get_le16(file + HDR_BOOT_FLAG) == 0xaa55u &&
           !memcmp(file + HDR_MAGIC, "HdrS", 4);
}

bool bzimage_parse(struct bzimage *image, const uint8_t *file, size_t bytes, char error[IMAGE_ERROR_BYTES])
{
    memset(image, 0, sizeof *image);
    if (!bzimage_is_bzimage(file, bytes))
        return explain_wrong_file(file, bytes, error);
    image->setup = file;
    image->version = (uint16_t)get_le16(file + HDR_VERSION);

    unsigned sects = file[HDR_SETUP_SECTS] ? file[HDR_SETUP_SECTS] : 4;
    size_t setup_bytes = (sects + 1) * 512u;
    if (bytes <= setup_bytes || bytes < HDR_END_MAX)
        return image_fail(error, "is truncated: %zu bytes, its real-mode part alone has %zu", bytes,
                          setup_bytes);
    image->code = file + setup_bytes;
    image->code_bytes = bytes - setup_bytes;

    /* The jump's displacement says where the header ends. */
    image->header_end = HDR_MAGIC + file[HDR_JUMP + 1];
    if (image->header_end > HDR_END_MAX)
        image->header_end = HDR_END_MAX;
    if (!check_version(image, file, error) || !check_truncated(image, file, error))
        return false;

    image->initrd_max = image->version >= 0x0203 ? get_le32(file + HDR_INITRD_MAX) : 0x37ffffffu;
    image->cmdline_max = image->version >= 0x0206 ? get_le32(file + HDR_CMDLINE_SIZE) : 255;
    if (image->cmdline_max > CMDLINE_ROOM - 1)
        image->cmdline_max = CMDLINE_ROOM - 1;
    find_run_area(image, file);
    return true;
}

/* ---- placing ---------------------------------------------------------------------------- */

static uint64_t mib_up(uint64_t bytes)
{
    return (bytes + (1u << 20) - 1) >> 20;
}

/* @return the initrd's address, 0 when it does not fit. */
static uint32_t place_initrd(const struct bzimage *image, uint64_t ram_bytes, uint64_t initrd_bytes)
{
    uint64_t top = ram_bytes;

    if (top > (uint64_t)image->initrd_max + 1)
        top = (uint64_t)image->initrd_max + 1;
    if (top > LOWMEM_SAFE)
        top = LOWMEM_SAFE;
    if (initrd_bytes > top)
        return 0;
    uint64_t at = (top - initrd_bytes) & ~(uint64_t)GUEST_PAGE_MASK;
    return at >= image->run_end ? (uint32_t)at : 0;
}

bool bzimage_fits(const struct bzimage *image, uint64_t ram_bytes, uint64_t initrd_bytes,
                  char error[IMAGE_ERROR_BYTES])
{
    if (image->run_end > ram_bytes)
        return image_fail(error, "needs at least %lluM of guest memory to start: -m %lluM is too small",
                          (unsigned long long)mib_up(image->run_end), (unsigned long long)(ram_bytes >> 20));
    if (!initrd_bytes || place_initrd(image, ram_bytes, initrd_bytes))
        return true;
    if (place_initrd(image, LOWMEM_SAFE, initrd_bytes))
        return image_fail(error, "and its initrd of %lluM need at least -m %lluM: -m %lluM is too small",
                          (unsigned long long)mib_up(initrd_bytes),
                          (unsigned long long)mib_up(image->run_end + initrd_bytes + GUEST_PAGE_SIZE),
                          (unsigned long long)(ram_bytes >> 20));
    return image_fail(
        error, "cannot take an initrd of %lluM: the most is %lluM whatever -m says",
        (unsigned long long)mib_up(initrd_bytes),
        (unsigned long long)((LOWMEM_SAFE > image->run_end ? LOWMEM_SAFE - image->run_end : 0) >> 20));
}

static void fill_screen(uint8_t *params)
{
    params[BP_SCREEN_MODE] = 3; /* colour text */
    params[BP_SCREEN_COLS] = 80;
    params[BP_SCREEN_LINES] = 25;
    params[BP_SCREEN_IS_VGA] = 1;
    put_le16(params + BP_SCREEN_POINTS, 16);
}

static void fill_memory(uint8_t *params, uint64_t ram_bytes)
{
    uint64_t extended_k = (ram_bytes >> 10) - 1024;
    struct e820_row rows[E820_ROWS];

    put_le16(params + BP_SCREEN_EXT_MEM_K, extended_k > 0xfc00 ? 0xfc00 : (uint32_t)extended_k);
    put_le32(params + BP_ALT_MEM_K, (uint32_t)extended_k);
    image_memory_map(ram_bytes, rows);
    params[BP_E820_COUNT] = E820_ROWS;
    for (unsigned i = 0; i < E820_ROWS; i++) {
        uint8_t *row = params + BP_E820 + i * 20u;
        put_le64(row, rows[i].start);
        put_le64(row + 8, rows[i].bytes);
        put_le32(row + 16, rows[i].type);
    }
}

static void fill_header(const struct bzimage *image, uint8_t *params)
{
    memcpy(params + HDR_START, image->setup + HDR_START, image->header_end - HDR_START);
    put_le16(params + HDR_VID_MODE, VID_MODE_NORMAL);
    params[HDR_LOADER] = LOADER_OTHER;
    params[HDR_LOADFLAGS] |= LOADED_HIGH;
    params[HDR_LOADFLAGS] &= (uint8_t) ~(KEEP_SEGMENTS | CAN_USE_HEAP);
    put_le32(params + HDR_CODE32_START, CODE_AT);
    put_le32(params + HDR_CMDLINE_PTR, CMDLINE_AT);
}

bool bzimage_place(const struct bzimage *image, uint8_t *ram, uint64_t ram_bytes, const uint8_t *initrd,
                   uint64_t initrd_bytes, const char *cmdline, struct boot_entry *entry,
                   char error[IMAGE_ERROR_BYTES])
{
    size_t cmdline_bytes = strlen(cmdline);
    uint8_t *params = ram + BOOT_PARAMS_AT;

    if (!bzimage_fits(image, ram_bytes, initrd_bytes, error))
        return false;
    if (cmdline_bytes > image->cmdline_max)
        return image_fail(error, "takes a command line of at most %u bytes: -append has %zu",
                          image->cmdline_max, cmdline_bytes);

    memset(params, 0, BP_BYTES);
    fill_header(image, params);
    fill_screen(params);
    fill_memory(params, ram_bytes);
    image_bios_data(ram);
    memcpy(ram + CMDLINE_AT, cmdline, cmdline_bytes + 1);
    memcpy(ram + CODE_AT, image->code, image->code_bytes);

    *entry = (struct boot_entry){ .eip = CODE_AT, .esi = BOOT_PARAMS_AT };
    image_put_gdt(ram, GDT_AT, entry);
    if (initrd_bytes) {
        entry->initrd_at = place_initrd(image, ram_bytes, initrd_bytes);
        memcpy(ram + entry->initrd_at, initrd, initrd_bytes);
        put_le32(params + HDR_RAMDISK_IMAGE, entry->initrd_at);
        put_le32(params + HDR_RAMDISK_SIZE, (uint32_t)initrd_bytes);
    }
    return true;
}
