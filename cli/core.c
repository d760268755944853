/*
 * An ELF core of the guest: registers as notes, memory as gdb can address it.
 *
 *     ELF header | program headers | notes | (page aligned) guest RAM, holes where untouched
 *
 * RAM stands in the file once, in physical order. Each run of linear pages that the guest's
 * page tables map to consecutive frames is a segment of its own that points into it, so that
 * gdb reads linear addresses and `readelf -l` shows the address space; p_paddr says where a
 * segment lies physically. Without paging there is one segment. Page tables are read as they
 * stand: no A bit is set, and rights are those of the tables with U/S left aside.
 *
 * Linux's layout of the notes (struct elf_prstatus of i386) is what gdb expects.
 * Ref: System V ABI, Intel386 supplement; Intel SDM vol. 3A, ch. "Paging".
 */
#include "cli/core.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/hosted/hosted.h"

#define SEGMENTS_MAX 60000u /* e_phnum has 16 bits */
#define CORE_SIGSEGV 11u

/* ---- what is mapped where -------------------------------------------------------------------- */

struct mapper {
    const struct vcpu *cpu;
    const uint8_t *ram;
    uint64_t ram_bytes;
    Elf32_Phdr *segments;
    unsigned count;
};

static void add_run(struct mapper *m, uint32_t va, uint64_t pa, uint32_t bytes, uint32_t flags)
{
    Elf32_Phdr *last = m->count ? &m->segments[m->count - 1] : NULL;

    if (pa >= m->ram_bytes)
        return;
    if (bytes > m->ram_bytes - pa)
        bytes = (uint32_t)(m->ram_bytes - pa);
    if (last && last->p_vaddr + last->p_filesz == va && last->p_paddr + (uint64_t)last->p_filesz == pa &&
        last->p_flags == flags && (uint64_t)last->p_filesz + bytes <= UINT32_MAX) {
        last->p_filesz += bytes;
        last->p_memsz = last->p_filesz;
        return;
    }
    if (m->count == SEGMENTS_MAX)
        return;
    m->segments[m->count++] = (Elf32_Phdr){ .p_type = PT_LOAD,
                                            .p_vaddr = va,
                                            .p_paddr = (uint32_t)pa,
                                            .p_filesz = bytes,
                                            .p_memsz = bytes,
                                            .p_flags = flags,
                                            .p_align = GUEST_PAGE_SIZE };
}

/* An entry of a table in RAM; 0 (not present) outside of it. */
static uint64_t entry(const struct mapper *m, uint64_t table, unsigned index, unsigned size)
{
    uint64_t at = table + (uint64_t)index * size, value = 0;

    if (at + size <= m->ram_bytes)
        memcpy(&value, m->ram + at, size);
    return value;
}

static uint32_t flags_of(uint64_t dir, uint64_t page)
{
    return PF_R | (dir & page & PTE_W ? PF_W : 0) | ((dir | page) & PTE_NX ? 0 : PF_X);
}

/* One page directory: `bits` of linear address per entry of `size` bytes. */
static void map_directory(struct mapper *m, uint64_t directory, uint32_t va, unsigned bits, unsigned size)
{
    unsigned per_table = GUEST_PAGE_SIZE / size;
    bool large_allowed = size == 8 || m->cpu->cr4 & CR4_PSE;
    uint64_t frame = 0x000ffffffffff000ull;

    for (unsigned i = 0; i < per_table; i++, va += 1u << bits) {
        uint64_t pde = entry(m, directory, i, size);
        if (!(pde & PTE_P))
            continue;
        if (pde & PTE_PS && large_allowed) {
            uint64_t pa = pde & frame & ~((1ull << bits) - 1);
            if (size == 4) /* PSE-36: bits 13..20 are address bits 32..39 */
                pa = (pde & 0xffc00000u) | (pde >> 13 & 0xff) << 32;
            add_run(m, va, pa, 1u << bits, flags_of(pde, pde));
            continue;
        }
        for (unsigned k = 0; k < per_table; k++) {
            uint64_t pte = entry(m, pde & frame, k, size);
            if (pte & PTE_P)
                add_run(m, va + k * GUEST_PAGE_SIZE, pte & frame, GUEST_PAGE_SIZE, flags_of(pde, pte));
        }
    }
}

static void map_all(struct mapper *m)
{
    const struct vcpu *cpu = m->cpu;

    if (!(cpu->cr0 & CR0_PG)) {
        add_run(m, 0, 0, (uint32_t)(m->ram_bytes < UINT32_MAX ? m->ram_bytes : UINT32_MAX & ~GUEST_PAGE_MASK),
                PF_R | PF_W | PF_X);
    } else if (cpu->cr4 & CR4_PAE) {
        for (unsigned i = 0; i < 4; i++)
            if (cpu->pdpte[i] & PTE_P)
                map_directory(m, cpu->pdpte[i] & 0x000ffffffffff000ull, i << 30, 21, 8);
    } else {
        map_directory(m, cpu->cr3 & ~GUEST_PAGE_MASK, 0, 22, 4);
    }
}

/* ---- notes -------------------------------------------------------------------------------------- */

/* struct elf_prstatus of i386, spelled out: this file is compiled for the host. */
struct prstatus {
    uint32_t signo, code, err;
    uint16_t cursig, pad;
    uint32_t sigpend, sighold, pid, ppid, pgrp, sid, times[8];
    uint32_t ebx, ecx, edx, esi, edi, ebp, eax, ds, es, fs, gs, orig_eax, eip, cs, eflags, esp, ss;
    uint32_t fpvalid;
};
_Static_assert(sizeof(struct prstatus) == 144, "i386 elf_prstatus");

struct notes {
    uint8_t bytes[4096];
    size_t used;
};

static void add_note(struct notes *n, const char *name, uint32_t type, const void *desc, size_t len)
{
    Elf32_Nhdr head = { .n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = (uint32_t)len, .n_type = type };
    size_t name_room = (head.n_namesz + 3) & ~(size_t)3, desc_room = (len + 3) & ~(size_t)3;

    if (n->used + sizeof head + name_room + desc_room > sizeof n->bytes)
        return;
    memcpy(n->bytes + n->used, &head, sizeof head);
    memcpy(n->bytes + n->used + sizeof head, name, head.n_namesz);
    memcpy(n->bytes + n->used + sizeof head + name_room, desc, len);
    n->used += sizeof head + name_room + desc_room;
}

static void make_notes(struct notes *n, const struct vcpu *cpu, const char *why)
{
    const uint32_t *r = cpu->gpr;
    const struct segment *s = cpu->segs;
    /* clang-format off */
    struct prstatus p = {
        .signo = CORE_SIGSEGV, .cursig = CORE_SIGSEGV, .pid = 1,
        .eax = r[EAX], .ebx = r[EBX], .ecx = r[ECX], .edx = r[EDX], .esi = r[ESI], .edi = r[EDI], .ebp = r[EBP],
        .esp = r[ESP], .eip = cpu->eip, .eflags = vcpu_eflags_get(cpu), .orig_eax = UINT32_MAX,
        .cs = s[SEG_CS].sel, .ss = s[SEG_SS].sel, .ds = s[SEG_DS].sel, .es = s[SEG_ES].sel,
        .fs = s[SEG_FS].sel, .gs = s[SEG_GS].sel, .fpvalid = 1,
    };
    /* clang-format on */
    uint8_t fx[sizeof cpu->fpu];

    memcpy(fx, cpu->fpu, sizeof fx);
    memset(fx + 8, 0, 16); /* instruction and data pointers: the host's */
    add_note(n, "CORE", NT_PRSTATUS, &p, sizeof p);
    add_note(n, "LINUX", NT_PRXFPREG, fx, sizeof fx);
    add_note(n, "RINGDOWN", 1, why, strlen(why) + 1);
}

/* ---- the file ------------------------------------------------------------------------------------ */

static int write_at(int fd, const void *data, size_t len, uint64_t at)
{
    const uint8_t *p = data;

    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

static int write_file(int fd, struct mapper *m, const struct notes *notes)
{
    uint32_t headers = (uint32_t)(sizeof(Elf32_Ehdr) + (m->count + 1) * sizeof(Elf32_Phdr));
    uint32_t ram_at = (headers + (uint32_t)notes->used + GUEST_PAGE_MASK) & ~GUEST_PAGE_MASK;
    Elf32_Phdr note = {
        .p_type = PT_NOTE, .p_offset = headers, .p_filesz = (uint32_t)notes->used, .p_align = 4
    };
    Elf32_Ehdr e = {
        .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
        .e_type = ET_CORE,
        .e_machine = EM_386,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof e,
        .e_ehsize = sizeof e,
        .e_phentsize = sizeof note,
        .e_phnum = (uint16_t)(m->count + 1),
    };
    int rc;

    for (unsigned i = 0; i < m->count; i++)
        m->segments[i].p_offset = ram_at + m->segments[i].p_paddr;
    if ((rc = write_at(fd, &e, sizeof e, 0)) < 0 || (rc = write_at(fd, &note, sizeof note, sizeof e)) < 0 ||
        (rc = write_at(fd, m->segments, m->count * sizeof note, sizeof e + sizeof note)) < 0 ||
        (rc = write_at(fd, notes->bytes, notes->used, headers)) < 0)
        return rc;
    return hosted_ram_save(fd, ram_at);
}

int core_write(const char *path, const struct vcpu *cpu, const uint8_t *ram, uint64_t ram_bytes,
               const char *why)
{
    struct mapper m = { .cpu = cpu, .ram = ram, .ram_bytes = ram_bytes };
    struct notes notes = { .used = 0 };
    struct stat st;
    bool is_regular;
    int rc = 0;

    m.segments = malloc(SEGMENTS_MAX * sizeof *m.segments);
    if (!m.segments)
        return -ENOMEM;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = -errno;
        goto out_free;
    }
    is_regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    map_all(&m);
    make_notes(&notes, cpu, why);
    rc = write_file(fd, &m, &notes);
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc < 0 && is_regular)
        unlink(path);
out_free:
    free(m.segments);
    return rc;
}
