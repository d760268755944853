/*
 * The ACPI tables: RSDP, RSDT, FADT, FACS and DSDT, built as one block at fixed offsets.
 *
 *   +0 RSDP   +40h RSDT   +80h FADT   +180h FACS (aligned to 64 bytes)   +200h DSDT
 *
 * A kernel that is loaded directly finds the block at F0000. Firmware gets it as two files (the RSDP,
 * and a copy of the whole block whose own RSDP is not used) with the loader's script: allocate both, add
 * the addresses they got to the pointers, which hold offsets, and correct the checksums. The script's
 * commands are 128 bytes each:
 *
 *   1 allocate   file[56], alignment (4), zone (1): 1 high memory, 2 F0000..FFFFF
 *   2 pointer    in file[56], to file[56], offset (4), size (1)
 *   3 checksum   file[56], offset of the sum (4), start (4), length (4)
 *
 * Invariant: every table's bytes sum to 0, both with the addresses of the direct load and with
 * offsets; the script's checksum command corrects by what the pointers changed.
 *
 * Ref: ACPI specification 6.5, chapter 5 "ACPI Software Programming Model" (RSDP, RSDT, FADT, FACS);
 * the interface of the script is QEMU's, hw/acpi/bios-linker-loader.
 */
#include "base/string.h"
#include "monitor/dev/acpi/dsdt.h"
#include "monitor/dev/acpi/tables.h"

#define DIRECT_PA 0xf0000u /* RAM that the memory map keeps from the guest */
#define OFS_RSDP  0x000u
#define OFS_RSDT  0x040u
#define OFS_FADT  0x080u
#define OFS_FACS  0x180u
#define OFS_DSDT  0x200u
#define MAX_BYTES 0x2000u

#define RSDP_BYTES 20u
#define RSDT_BYTES 40u
#define FADT_BYTES 244u
#define FACS_BYTES 64u

#define FILE_TABLES "etc/acpi/tables"
#define FILE_RSDP   "etc/acpi/rsdp"
#define FILE_SCRIPT "etc/table-loader"
#define FILE_NAME   56u

#define COMMAND_BYTES 128u
#define COMMANDS_MAX  16u
enum { CMD_ALLOCATE = 1, CMD_POINTER, CMD_CHECKSUM };
enum { ZONE_HIGH = 1, ZONE_FSEG };

struct acpi_tables {
    struct machine *m;
    uint32_t bytes;
    uint8_t block[MAX_BYTES]; /* as a file: addresses are offsets */
    uint8_t script[COMMANDS_MAX * COMMAND_BYTES];
    uint32_t script_bytes;
};

/* ---- the block --------------------------------------------------------------------------------------- */

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static uint8_t checksum(const uint8_t *p, uint32_t bytes)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < bytes; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

/** The header every system description table begins with; the checksum comes last. */
static void put_header(uint8_t *t, const char signature[4], uint32_t bytes, uint8_t revision)
{
    memcpy(t, signature, 4);
    put32(t + 4, bytes);
    t[8] = revision;
    memcpy(t + 10, "RINGDNRINGDOWN", 14);
    put32(t + 24, 1);
    memcpy(t + 28, "RGDN", 4);
    put32(t + 32, 1);
    t[9] = checksum(t, bytes);
}

/** A generic address structure in I/O space. */
static void put_gas(uint8_t *p, uint8_t bits, uint8_t access, uint16_t port)
{
    p[0] = 1; /* system I/O */
    p[1] = bits;
    p[3] = access;
    put32(p + 4, port);
}

/* FADT, revision 3: offsets and flags */
#define FADT_FACS       36
#define FADT_DSDT       40
#define FADT_X_FACS     132
#define FADT_X_DSDT     140
#define FADT_LEGACY     0x0001 /* IA-PC boot flags: legacy devices, 8042 */
#define FADT_8042       0x0002
#define FADT_WBINVD     (1u << 0)
#define FADT_PROC_C1    (1u << 2)
#define FADT_SLP_BUTTON (1u << 5) /* no fixed sleep button                 */
#define FADT_FIX_RTC    (1u << 6) /* no RTC wake status in fixed registers */
#define FADT_TMR_32     (1u << 8)
#define FADT_RESET_REG  (1u << 10)
#define RESET_PORT      0xcf9
#define RESET_VALUE     0x06

static void put_fadt(uint8_t *t, uint32_t base)
{
    put32(t + FADT_FACS, base + OFS_FACS);
    put32(t + FADT_DSDT, base + OFS_DSDT);
    t[45] = 1; /* preferred profile: desktop */
    put16(t + 46, ACPI_SCI_LINE);
    put32(t + 48, ACPI_SMI_PORT);
    t[52] = ACPI_SMI_ENABLE;
    t[53] = ACPI_SMI_DISABLE;
    put32(t + 56, ACPI_PORTS + ACPI_OFS_EVENT);
    put32(t + 64, ACPI_PORTS + ACPI_OFS_CONTROL);
    put32(t + 76, ACPI_PORTS + ACPI_OFS_TIMER);
    t[88] = 4; /* lengths of the three blocks */
    t[89] = 2;
    t[91] = 4;
    put16(t + 96, 0xffff); /* latencies that mean: no C2, no C3 */
    put16(t + 98, 0xffff);
    t[108] = 0x32; /* CMOS index of the century */
    put16(t + 109, FADT_LEGACY | FADT_8042);
    put32(t + 112,
          FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_TMR_32 | FADT_RESET_REG);
    put_gas(t + 116, 8, 1, RESET_PORT);
    t[128] = RESET_VALUE;
    put32(t + FADT_X_FACS, base + OFS_FACS);
    put32(t + FADT_X_DSDT, base + OFS_DSDT);
    put_gas(t + 148, 32, 2, ACPI_PORTS + ACPI_OFS_EVENT);
    put_gas(t + 172, 16, 2, ACPI_PORTS + ACPI_OFS_CONTROL);
    put_gas(t + 208, 32, 3, ACPI_PORTS + ACPI_OFS_TIMER);
    put_header(t, "FACP", FADT_BYTES, 3);
}

/** All tables, for a block whose first byte has address `base`. */
static void build(struct acpi_tables *t, uint32_t base)
{
    uint8_t *rsdp = t->block + OFS_RSDP, *rsdt = t->block + OFS_RSDT, *facs = t->block + OFS_FACS;

    memset(t->block, 0, OFS_DSDT);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "RINGDN", 6);
    put32(rsdp + 16, base + OFS_RSDT);
    rsdp[8] = checksum(rsdp, RSDP_BYTES);
    put32(rsdt + 36, base + OFS_FADT);
    put_header(rsdt, "RSDT", RSDT_BYTES, 1);
    put_fadt(t->block + OFS_FADT, base);
    memcpy(facs, "FACS", 4);
    put32(facs + 4, FACS_BYTES);
    facs[32] = 1; /* version */
    memcpy(t->block + OFS_DSDT, acpi_dsdt, acpi_dsdt_bytes);
}

void acpi_tables_place(struct acpi_tables *t)
{
    const struct machine_config *c = machine_config_of(t->m);

    if (!c->mem_write)
        return;
    build(t, DIRECT_PA);
    c->mem_write(c->mem_ctx, DIRECT_PA, t->block, t->bytes);
    build(t, 0);
}

/* ---- the script ---------------------------------------------------------------------------------------- */

static uint8_t *command(struct acpi_tables *t, uint32_t what, const char *file)
{
    uint8_t *c = t->script + t->script_bytes;

    t->script_bytes += COMMAND_BYTES;
    put32(c, what);
    for (unsigned i = 0; file[i]; i++)
        c[4 + i] = (uint8_t)file[i];
    return c + 4 + FILE_NAME;
}

static void allocate(struct acpi_tables *t, const char *file, uint32_t alignment, uint8_t zone)
{
    uint8_t *c = command(t, CMD_ALLOCATE, file);

    put32(c, alignment);
    c[4] = zone;
}

/** A pointer in `file` to somewhere in the block. */
static void pointer(struct acpi_tables *t, const char *file, uint32_t offset, uint8_t size)
{
    uint8_t *c = command(t, CMD_POINTER, file);

    memcpy(c, FILE_TABLES, sizeof FILE_TABLES);
    put32(c + FILE_NAME, offset);
    c[FILE_NAME + 4] = size;
}

static void sum(struct acpi_tables *t, const char *file, uint32_t at, uint32_t start, uint32_t bytes)
{
    uint8_t *c = command(t, CMD_CHECKSUM, file);

    put32(c, at);
    put32(c + 4, start);
    put32(c + 8, bytes);
}

static void write_script(struct acpi_tables *t)
{
    allocate(t, FILE_TABLES, 64, ZONE_HIGH);
    allocate(t, FILE_RSDP, 16, ZONE_FSEG);
    pointer(t, FILE_TABLES, OFS_FADT + FADT_FACS, 4);
    pointer(t, FILE_TABLES, OFS_FADT + FADT_DSDT, 4);
    pointer(t, FILE_TABLES, OFS_FADT + FADT_X_FACS, 8);
    pointer(t, FILE_TABLES, OFS_FADT + FADT_X_DSDT, 8);
    sum(t, FILE_TABLES, OFS_FADT + 9, OFS_FADT, FADT_BYTES);
    pointer(t, FILE_TABLES, OFS_RSDT + 36, 4);
    sum(t, FILE_TABLES, OFS_RSDT + 9, OFS_RSDT, RSDT_BYTES);
    pointer(t, FILE_RSDP, 16, 4);
    sum(t, FILE_RSDP, 8, 0, RSDP_BYTES);
}

struct acpi_tables *acpi_tables_new(struct machine *m)
{
    struct acpi_tables *t = machine_alloc(m, sizeof *t);
    struct fw_cfg *f = machine_fw_cfg(m);

    if (!t || OFS_DSDT + acpi_dsdt_bytes > MAX_BYTES)
        return NULL;
    t->m = m;
    t->bytes = OFS_DSDT + acpi_dsdt_bytes;
    build(t, 0);
    write_script(t);
    if (!fw_cfg_add_file(f, FILE_TABLES, t->block, t->bytes) ||
        !fw_cfg_add_file(f, FILE_RSDP, t->block + OFS_RSDP, RSDP_BYTES) ||
        !fw_cfg_add_file(f, FILE_SCRIPT, t->script, t->script_bytes))
        return NULL;
    return t;
}
