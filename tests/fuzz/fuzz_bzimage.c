/*
 * Fuzzer of the kernel loader. The input says how much RAM there is, how long file, initrd and
 * command line are, and then overwrites the setup header of a small image that is right; the
 * fuzzer would be long in finding one by itself. File, RAM and initrd are heap blocks of their
 * exact length, so that any access outside is an error.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bzimage.h"

#define SETUP_SECTORS 4u
#define SETUP_BYTES ((SETUP_SECTORS + 1u) * 512u)
#define FILE_MAX (SETUP_BYTES + 0x1000u)
#define PARAMETERS 7u /* bytes of the input before the header's */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* Protocol 2.15, relocatable, to be loaded at 1 MiB. Offsets: Linux, x86 boot protocol. */
static void make_image(uint8_t *file)
{
    memset(file, 0, FILE_MAX);
    file[0x1f1] = SETUP_SECTORS;
    put(file + 0x1f4, (FILE_MAX - SETUP_BYTES) / 16, 4);
    put(file + 0x1fe, 0xaa55, 2);
    file[0x200] = 0xeb;
    file[0x201] = 0x6a;
    memcpy(file + 0x202, "HdrS", 4);
    put(file + 0x206, 0x020f, 2);
    file[0x211] = 0x01;
    put(file + 0x214, 0x100000, 4);
    put(file + 0x22c, 0x7fffffff, 4);
    put(file + 0x230, 0x1000, 4);
    file[0x234] = 1;
    put(file + 0x238, 2047, 4);
    put(file + 0x258, 0x100000, 8);
    put(file + 0x260, 0x40000, 4);
}

static void place(const struct bzimage *image, uint64_t ram_bytes, uint64_t initrd_bytes, size_t words)
{
    struct boot_entry entry;
    char error[IMAGE_ERROR_BYTES];
    uint8_t *ram = calloc(1, ram_bytes), *initrd = initrd_bytes ? calloc(1, initrd_bytes) : NULL;
    char *cmdline = malloc(words + 1);

    require(ram && cmdline && (initrd || !initrd_bytes));
    memset(cmdline, 'x', words);
    cmdline[words] = 0;
    error[0] = 0;
    bool fits = bzimage_fits(image, ram_bytes, initrd_bytes, error);
    require(fits || error[0]);
    error[0] = 0;
    if (bzimage_place(image, ram, ram_bytes, initrd, initrd_bytes, cmdline, &entry, error)) {
        require(fits);
        require(entry.eip < ram_bytes && entry.esi < ram_bytes);
        require((uint64_t)entry.gdt_base + entry.gdt_limit < ram_bytes);
        require(entry.cs < entry.gdt_limit && entry.ds < entry.gdt_limit);
        if (initrd_bytes)
            require(entry.initrd_at && (uint64_t)entry.initrd_at + initrd_bytes <= ram_bytes &&
                    entry.initrd_at + initrd_bytes - 1 <= image->initrd_max);
    } else {
        require(error[0] && memchr(error, 0, sizeof error));
    }
    free(cmdline);
    free(initrd);
    free(ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bzimage image;
    char error[IMAGE_ERROR_BYTES] = "";

    if (size < PARAMETERS)
        return 0;
    uint64_t ram_bytes = (uint64_t)(8 - (data[0] & 7)) << 20;
    uint64_t initrd_bytes = (uint64_t)(data[1] | data[2] << 8) << (data[0] >> 5);
    size_t cut = (size_t)(data[3] | data[4] << 8), words = (size_t)(data[5] | (data[6] & 15) << 8);
    size_t bytes = cut > FILE_MAX ? 0 : FILE_MAX - cut; /* zeros make the whole file */

    static uint8_t whole[FILE_MAX];
    make_image(whole);
    data += PARAMETERS;
    size -= PARAMETERS;
    memcpy(whole + 0x1f1, data, size < 0x8fu ? size : 0x8fu);
    uint8_t *file = malloc(bytes ? bytes : 1);
    require(file != NULL);
    memcpy(file, whole, bytes);
    if (bzimage_parse(&image, file, bytes, error))
        place(&image, ram_bytes, initrd_bytes, words);
    else
        require(error[0] && memchr(error, 0, sizeof error));
    free(file);
    return 0;
}
