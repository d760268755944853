/* ELF cores of the guest: headers, registers, and linear memory as the page tables map it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <unistd.h>

#include "cli/core.h"
#include "platform/hosted/hosted.h"

#define RAM_BYTES (8u << 20)

static uint8_t *ram;
static struct vcpu cpu;
static uint8_t file[RAM_BYTES + (1u << 20)];
static size_t file_bytes;

static void put32(uint32_t pa, uint32_t value)
{
    memcpy(ram + pa, &value, 4);
}

static void write_core(void)
{
    char path[64];

    snprintf(path, sizeof path, "/tmp/ringdown-test-core-%ld", (long)getpid());
    assert_int_equal(core_write(path, &cpu, ram, RAM_BYTES, "a reason"), 0);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    file_bytes = fread(file, 1, sizeof file, f);
    fclose(f);
    unlink(path);
}

static const Elf32_Ehdr *header(void)
{
    return (const Elf32_Ehdr *)(const void *)file;
}

static const Elf32_Phdr *segments(void)
{
    return (const Elf32_Phdr *)(const void *)(file + sizeof(Elf32_Ehdr));
}

/* What the core holds at a linear address, or NULL. */
static const uint8_t *at(uint32_t va)
{
    for (unsigned i = 0; i < header()->e_phnum; i++) {
        const Elf32_Phdr *p = &segments()[i];
        if (p->p_type == PT_LOAD && va - p->p_vaddr < p->p_filesz)
            return file + p->p_offset + (va - p->p_vaddr);
    }
    return NULL;
}

static void without_paging_memory_is_one_segment(void **state)
{
    (void)state;
    hosted_ram_clear();
    memset(&cpu, 0, sizeof cpu);
    cpu.cr0 = 1;
    put32(0x123000, 0xcafef00d);
    write_core();
    assert_memory_equal(header()->e_ident, ELFMAG "\x01\x01\x01", 7);
    assert_int_equal(header()->e_type, ET_CORE);
    assert_int_equal(header()->e_machine, EM_386);
    assert_int_equal(header()->e_phnum, 2);
    assert_int_equal(segments()[0].p_type, PT_NOTE);
    assert_int_equal(segments()[1].p_filesz, RAM_BYTES);
    assert_int_equal(file_bytes, segments()[1].p_offset + RAM_BYTES);
    assert_memory_equal(at(0x123000), "\x0d\xf0\xfe\xca", 4);
}

static void registers_stand_where_gdb_looks_for_them(void **state)
{
    enum { PR_REG = 72 }; /* in struct elf_prstatus */
    const Elf32_Phdr *note;
    uint32_t regs[17];

    (void)state;
    memset(&cpu, 0, sizeof cpu);
    for (unsigned i = 0; i < 8; i++)
        cpu.gpr[i] = 0x1000 + i;
    cpu.eip = 0xc0de;
    cpu.segs[SEG_CS].sel = 0x60;
    vcpu_eflags_set(&cpu, EFL_ZF | EFL_IF | EFL_ONE);
    write_core();
    note = &segments()[0];
    memcpy(regs, file + note->p_offset + sizeof(Elf32_Nhdr) + 8 + PR_REG, sizeof regs);
    assert_int_equal(regs[0], 0x1000 + EBX);
    assert_int_equal(regs[6], 0x1000 + EAX);
    assert_int_equal(regs[12], 0xc0de);
    assert_int_equal(regs[13], 0x60);
    assert_int_equal(regs[14], EFL_ZF | EFL_IF | EFL_ONE);
    assert_int_equal(regs[15], 0x1000 + ESP);
}

static void page_tables_make_segments(void **state)
{
    (void)state;
    hosted_ram_clear();
    memset(&cpu, 0, sizeof cpu);
    cpu.cr0 = CR0_PE | CR0_PG;
    cpu.cr3 = 0x1000;
    cpu.cr4 = CR4_PSE;
    put32(0x1000 + 4 * 0x300, 0x00400000 | PTE_PS | PTE_W | PTE_P); /* C0000000: 4 MiB at 4 MiB */
    put32(0x1000 + 4 * 0x301, 0xff800000 | PTE_PS | PTE_P);         /* beyond RAM: left out     */
    put32(0x1000, 0x2000 | PTE_P | PTE_W | PTE_US);
    put32(0x2000 + 4 * 5, 0x3000 | PTE_P | PTE_US);
    put32(0x2000 + 4 * 6, 0x4000 | PTE_P | PTE_US); /* goes on from the one before */
    put32(0x2000 + 4 * 7, 0x9000 | PTE_P | PTE_US);
    put32(0x4ffc, 0x11111111);
    put32(0x9000, 0x22222222);
    put32(0x400000, 0x33333333);
    write_core();
    assert_int_equal(header()->e_phnum, 4);
    assert_int_equal(segments()[1].p_vaddr, 0x5000);
    assert_int_equal(segments()[1].p_filesz, 0x2000);
    assert_int_equal(segments()[1].p_flags, PF_R | PF_X);
    assert_memory_equal(at(0x6ffc), "\x11\x11\x11\x11", 4);
    assert_memory_equal(at(0x7000), "\x22\x22\x22\x22", 4);
    assert_memory_equal(at(0xc0000000), "\x33\x33\x33\x33", 4);
    assert_null(at(0xc0400000));
    assert_null(at(0));
}

static void pae_tables_make_segments_too(void **state)
{
    (void)state;
    hosted_ram_clear();
    memset(&cpu, 0, sizeof cpu);
    cpu.cr0 = CR0_PE | CR0_PG;
    cpu.cr4 = CR4_PAE;
    cpu.pdpte[3] = 0x1000 | PTE_P;
    put32(0x1000, 0x00200000 | PTE_PS | PTE_W | PTE_P); /* C0000000: 2 MiB at 2 MiB */
    put32(0x1008, 0x2000 | PTE_P | PTE_W);
    put32(0x2000 + 8, 0x5000 | PTE_P | PTE_W); /* C0201000 */
    put32(0x2000 + 12, 0x80000000);            /* NX       */
    put32(0x5000, 0x44444444);
    write_core();
    assert_int_equal(header()->e_phnum, 3);
    assert_int_equal(segments()[1].p_vaddr, 0xc0000000);
    assert_int_equal(segments()[1].p_filesz, 2u << 20);
    assert_int_equal(segments()[2].p_flags, PF_R | PF_W);
    assert_memory_equal(at(0xc0201000), "\x44\x44\x44\x44", 4);
}

static void a_place_that_cannot_be_written_is_reported(void **state)
{
    (void)state;
    assert_int_equal(core_write("/nonexistent/core", &cpu, ram, RAM_BYTES, ""), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_paging_memory_is_one_segment),
        cmocka_unit_test(registers_stand_where_gdb_looks_for_them),
        cmocka_unit_test(page_tables_make_segments),
        cmocka_unit_test(pae_tables_make_segments_too),
        cmocka_unit_test(a_place_that_cannot_be_written_is_reported),
    };

    if (hosted_init() < 0 || !(ram = hosted_ram_new(RAM_BYTES)))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
