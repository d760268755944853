/*
 * The files of `-kernel` and `-initrd`, and the processor state that Linux' 32-bit boot
 * protocol asks for: protected mode without paging, flat segments from a GDT in guest
 * memory, interrupts off, ESI at boot_params, EBP, EDI and EBX zero.
 *
 * Reference: the Linux kernel's documentation, "The Linux/x86 Boot Protocol",
 * section "32-bit Boot Protocol".
 */
#include "cli/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/log.h"

#define FILE_MAX       (2ull << 30)
#define READ_STEP      (1u << 20)
#define FLAT_CODE_ATTR 0xc09bu /* G D P, code, readable, accessed */
#define FLAT_DATA_ATTR 0xc093u /* G B P, data, writable, accessed */

static bool fail_errno(char *error, const char *option, const char *path, int err)
{
    fmt_format(error, LOAD_ERROR_BYTES, "%s '%.200s': %s", option, path, strerror(err));
    return false;
}

/* Pipes and the like, whose size only reading tells. */
static int read_stream(struct file_image *f, int fd)
{
    uint8_t *data = NULL;
    size_t used = 0, room = 0;

    for (;;) {
        if (room - used < READ_STEP) {
            room = room ? room * 2 : 4 * READ_STEP;
            uint8_t *grown = room > FILE_MAX ? NULL : realloc(data, room);
            if (!grown) {
                free(data);
                return room > FILE_MAX ? EFBIG : ENOMEM;
            }
            data = grown;
        }
        ssize_t n = read(fd, data + used, room - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int err = errno;
            free(data);
            return err;
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    *f = (struct file_image){ .data = data, .bytes = used };
    return 0;
}

static int map_file(struct file_image *f, int fd, uint64_t bytes)
{
    if (bytes > FILE_MAX)
        return EFBIG;
    void *p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return errno;
    *f = (struct file_image){ .data = p, .bytes = bytes, .is_mapped = true };
    return 0;
}

static bool image_open(struct file_image *f, const char *option, const char *path, char *error)
{
    struct stat st;
    int err, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    memset(f, 0, sizeof *f);
    if (fd < 0)
        return fail_errno(error, option, path, errno);
    if (fstat(fd, &st) < 0)
        err = errno;
    else if (S_ISDIR(st.st_mode))
        err = EISDIR;
    else if (S_ISREG(st.st_mode) && st.st_size > 0)
        err = map_file(f, fd, (uint64_t)st.st_size);
    else
        err = read_stream(f, fd);
    close(fd);
    if (!err && f->bytes == 0) {
        free((void *)(uintptr_t)f->data);
        f->data = NULL;
    }
    return err ? fail_errno(error, option, path, err) : true;
}

static void image_close(struct file_image *f)
{
    if (f->is_mapped)
        munmap((void *)(uintptr_t)f->data, f->bytes);
    else
        free((void *)(uintptr_t)f->data);
    memset(f, 0, sizeof *f);
}

bool boot_files_open(struct boot_files *files, const struct options *o, char error[LOAD_ERROR_BYTES])
{
    char why[BZIMAGE_ERROR_BYTES];

    memset(files, 0, sizeof *files);
    if (!image_open(&files->kernel, "-kernel", o->kernel, error))
        return false;
    if (o->initrd && !image_open(&files->initrd, "-initrd", o->initrd, error))
        goto out_close;
    if (o->initrd && !files->initrd.bytes) {
        fmt_format(error, LOAD_ERROR_BYTES, "-initrd '%.200s' is empty", o->initrd);
        goto out_close;
    }
    if (bzimage_parse(&files->image, files->kernel.data, files->kernel.bytes, why) &&
        bzimage_fits(&files->image, o->ram_bytes, files->initrd.bytes, why))
        return true;
    fmt_format(error, LOAD_ERROR_BYTES, "-kernel '%.200s' %s", o->kernel, why);
out_close:
    boot_files_close(files);
    return false;
}

void boot_files_close(struct boot_files *files)
{
    image_close(&files->kernel);
    image_close(&files->initrd);
}

bool boot_files_place(const struct boot_files *files, const struct options *o, uint8_t *ram,
                      struct bzimage_entry *entry, char error[LOAD_ERROR_BYTES])
{
    char why[BZIMAGE_ERROR_BYTES];

    if (bzimage_place(&files->image, ram, o->ram_bytes, files->initrd.data, files->initrd.bytes,
                      o->append ? o->append : "", entry, why))
        return true;
    fmt_format(error, LOAD_ERROR_BYTES, "-kernel '%.200s' %s", o->kernel, why);
    return false;
}

void boot_enter(struct vcpu *cpu, const struct bzimage_entry *entry)
{
    struct segment data = { .sel = entry->ds, .attr = FLAT_DATA_ATTR, .limit = 0xffffffffu };

    memset(cpu->gpr, 0, sizeof cpu->gpr);
    cpu->gpr[ESI] = entry->esi;
    cpu->eip = entry->eip;
    vcpu_eflags_set(cpu, EFL_ONE);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->segs[i] = data;
    cpu->segs[SEG_CS] = (struct segment){ .sel = entry->cs, .attr = FLAT_CODE_ATTR, .limit = 0xffffffffu };
    cpu->gdtr = (struct table_reg){ .base = entry->gdt_base, .limit = entry->gdt_limit };
    cpu->idtr = (struct table_reg){ 0, 0 };
    cpu->cr0 = CR0_PE | CR0_ET;
    cpu->cr3 = cpu->cr4 = 0;
    cpu->cpl = 0;
    vcpu_update_mode(cpu);
}
