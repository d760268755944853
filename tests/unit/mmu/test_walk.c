/* Page walks: every paging mode, rights, error codes, accessed and dirty bits. */
#include "fixture.h"
#include "mmu/mmu_internal.h"

#define RW  ACC_WRITE
#define USR ACC_USER
#define VA  0x40801123u /* its 4 MiB region is not the one of address 0 */
#define PG  (VA & ~0xfffu)

static struct walk walk_ok(struct fixture *fx, uint32_t va, unsigned access)
{
    struct walk w = { 0 };

    assert_int_equal(mmu_walk(fx->cpu, gva(va), access, &w), X86_OK);
    return w;
}

static void without_paging_addresses_are_physical(void **state)
{
    struct walk w = walk_ok(*state, 0xfee01234u, ACC_WRITE | ACC_USER);

    assert_int_equal(w.pa.v, 0xfee01234u);
    assert_true(w.is_writable && w.is_user && w.is_executable);
}

static void a20_off_masks_bit_20(void **state)
{
    struct fixture *fx = *state;

    fx->cpu->a20_off = true;
    assert_int_equal(walk_ok(fx, 0x112345, 0).pa.v, 0x012345);
    assert_int_equal(walk_ok(fx, 0x212345, 0).pa.v, 0x212345);
}

static void a20_off_masks_the_tables_too(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx->cpu->cr3 = 0x300000;
    fx->cpu->a20_off = true;
    fx_put32(fx, 0x200000 + (VA >> 22) * 4, 0x500000 | PTE_P);
    fx_put32(fx, 0x400000 + (VA >> 12 & 0x3ff) * 4, 0x701000 | PTE_P);
    assert_int_equal(walk_ok(fx, VA, 0).pa.v, 0x601123);
    assert_int_equal(fx_get32(fx, 0x400000 + (VA >> 12 & 0x3ff) * 4), 0x701000 | PTE_P | PTE_A);
}

static void two_level_page_translates(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_W | PTE_G);
    struct walk w = walk_ok(fx, VA, 0);
    assert_int_equal(w.pa.v, 0x234123);
    assert_int_equal(w.leaf_bytes, 4096);
    assert_true(w.is_writable && w.is_executable);
    assert_false(w.is_user || w.is_global || w.is_dirty); /* G means nothing without CR4.PGE */
}

static void global_needs_cr4_pge(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PGE);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_G);
    assert_true(walk_ok(fx, VA, 0).is_global);
}

static void large_page_translates_with_pse36(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PSE | CR4_PGE);
    fx_map(fx, VA, 0x00c00000u | 5u << 13, PTE_P | PTE_PS | PTE_W | PTE_US | PTE_G);
    struct walk w = walk_ok(fx, VA, USR);
    assert_int_equal(w.pa.v, 0x500c00000ull + (VA & 0x3fffff));
    assert_int_equal(w.leaf_bytes, 4u << 20);
    assert_true(w.is_global);
}

static void ps_bit_means_nothing_without_pse(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    uint64_t pte = fx_pte(fx, VA);
    fx_put32(fx, fx_pde(fx, VA), fx_get32(fx, fx_pde(fx, VA)) | PTE_PS);
    fx_put32(fx, pte, 0x234000 | PTE_P);
    assert_int_equal(walk_ok(fx, VA, 0).pa.v, 0x234123);
}

/* ---- rights: a table of directory bits, leaf bits, access, WP -> error or success ---- */

#define OK 0xffu
struct rights_case {
    uint32_t pde, pte;
    unsigned access;
    bool wp;
    unsigned error;
};

/* clang-format off */
static const struct rights_case rights_cases[] = {
    /* supervisor reads whatever is present */
    { PTE_P,                  PTE_P,                  0,        true,  OK },
    { 0,                      PTE_P,                  0,        true,  0 },
    { PTE_P,                  0,                      0,        true,  0 },
    { PTE_P,                  0,                      RW,       true,  PF_WR },
    { PTE_P,                  0,                      USR,      true,  PF_US },
    { 0,                      0,                      USR | RW, true,  PF_US | PF_WR },
    /* supervisor writes: W at both levels, unless WP is clear */
    { PTE_P | PTE_W,          PTE_P | PTE_W,          RW,       true,  OK },
    { PTE_P,                  PTE_P | PTE_W,          RW,       true,  PF_P | PF_WR },
    { PTE_P | PTE_W,          PTE_P,                  RW,       true,  PF_P | PF_WR },
    { PTE_P,                  PTE_P,                  RW,       false, OK },
    { PTE_P | PTE_US,         PTE_P | PTE_US,         RW,       false, OK },
    { PTE_P | PTE_US,         PTE_P | PTE_US,         RW,       true,  PF_P | PF_WR },
    /* user: US at both levels, W at both levels whatever WP says */
    { PTE_P | PTE_US,         PTE_P | PTE_US,         USR,      true,  OK },
    { PTE_P,                  PTE_P | PTE_US,         USR,      true,  PF_P | PF_US },
    { PTE_P | PTE_US,         PTE_P,                  USR,      true,  PF_P | PF_US },
    { PTE_P | PTE_US,         PTE_P | PTE_US,         USR | RW, false, PF_P | PF_US | PF_WR },
    { PTE_P | PTE_US | PTE_W, PTE_P | PTE_US,         USR | RW, true,  PF_P | PF_US | PF_WR },
    { PTE_P | PTE_US | PTE_W, PTE_P | PTE_US | PTE_W, USR | RW, true,  OK },
    { PTE_P | PTE_W,          PTE_P | PTE_US | PTE_W, USR | RW, true,  PF_P | PF_US | PF_WR },
    /* a fetch shows no I bit without NX */
    { PTE_P | PTE_US,         PTE_P,             USR | ACC_EXEC, true, PF_P | PF_US },
    { PTE_P,                  PTE_P,                  ACC_EXEC, true,  OK },
};
/* clang-format on */

static void check_rights(struct fixture *fx, const struct rights_case *c, bool is_pae)
{
    fx->next_table = TABLES_PA;
    fx_paging(fx, is_pae ? CR4_PAE : CR4_PSE);
    uint64_t pte = fx_pte(fx, VA), pde = fx_pde(fx, VA);
    uint32_t dir = (fx_get32(fx, pde) & ~0xfffu) | c->pde, leaf = 0x234000 | c->pte;
    fx_put32(fx, pde, dir);
    fx_put32(fx, pte, leaf);
    if (!c->wp)
        fx->cpu->cr0 &= ~CR0_WP;
    if (c->error != OK) {
        fx_expect_pf(fx, VA, c->access, c->error);
        assert_int_equal(fx_get32(fx, pde), dir); /* a fault changes nothing */
        assert_int_equal(fx_get32(fx, pte), leaf);
        return;
    }
    assert_int_equal(walk_ok(fx, VA, c->access).pa.v, 0x234123);
    assert_int_equal(fx_get32(fx, pde), dir | PTE_A);
    assert_int_equal(fx_get32(fx, pte), leaf | PTE_A | (c->access & RW ? PTE_D : 0));
}

static void rights_and_error_codes_with_two_levels(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rights_cases); i++)
        check_rights(*state, &rights_cases[i], false);
}

static void rights_and_error_codes_with_pae(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rights_cases); i++)
        check_rights(*state, &rights_cases[i], true);
}

/* ---- accessed and dirty ---------------------------------------------------------- */

static void large_page_gets_a_and_d_in_the_directory(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PSE);
    fx_map(fx, VA, 0x800000, PTE_P | PTE_W | PTE_PS);
    walk_ok(fx, VA, 0);
    assert_int_equal(fx_get32(fx, fx_pde(fx, VA)), 0x800000 | PTE_P | PTE_W | PTE_PS | PTE_A);
    assert_true(walk_ok(fx, VA, RW).is_dirty);
    assert_int_equal(fx_get32(fx, fx_pde(fx, VA)), 0x800000 | PTE_P | PTE_W | PTE_PS | PTE_A | PTE_D);
    assert_true(walk_ok(fx, VA, 0).is_dirty);
}

static void self_mapped_directory_keeps_both_updates(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_put32(fx, ROOT_PA + 0x3ff * 4, ROOT_PA | PTE_P | PTE_W);
    assert_int_equal(walk_ok(fx, 0xfffff000u, RW).pa.v, ROOT_PA);
    assert_int_equal(fx_get32(fx, ROOT_PA + 0x3ff * 4), ROOT_PA | PTE_P | PTE_W | PTE_A | PTE_D);
}

static void walker_reports_its_own_writes_to_traced_tables(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_map(fx, VA, 0x234000, PTE_P | PTE_W);
    mmu_trace_add(fx->m, gpa(fx_pte(fx, VA)));
    walk_ok(fx, VA, 0);
    assert_int_equal(fx->nevents, 1);
    assert_int_equal(fx->event[0].kind, EV_TRACED);
    assert_int_equal(fx->event[0].addr, fx_pte(fx, VA));
    walk_ok(fx, VA, 0); /* A is set already: nothing is written */
    assert_int_equal(fx->nevents, 1);
    walk_ok(fx, VA, RW);
    assert_int_equal(fx->nevents, 2);
}

static void tables_outside_ram_read_as_the_bus_says(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx->cpu->cr3 = 0x80000000u; /* unassigned: all ones, so present with every right */
    struct walk w = walk_ok(fx, VA, RW | USR);
    assert_int_equal(w.pa.v, 0xfffff123u);
    assert_int_equal(fx_count(fx, EV_MMIO_WRITE), 0);
}

static void tables_in_rom_are_not_written(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx_put32(fx, fx_pde(fx, VA), ROM_PA | PTE_P | PTE_W);
    fx_put32(fx, ROM_PA + (VA >> 12 & 0x3ff) * 4, 0x234000 | PTE_P | PTE_W);
    assert_int_equal(walk_ok(fx, VA, RW).pa.v, 0x234123);
    assert_int_equal(fx_get32(fx, ROM_PA + (VA >> 12 & 0x3ff) * 4), 0x234000 | PTE_P | PTE_W);
}

/* ---- reserved bits ---------------------------------------------------------------- */

static void reserved_bits_of_a_4_mib_page_fault(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PSE);
    for (unsigned bit = 17; bit <= 21; bit++) {
        fx_map(fx, VA, 0x800000 | 1u << bit, PTE_P | PTE_PS);
        fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
        fx_expect_pf(fx, VA, RW | USR, PF_P | PF_RSVD | PF_WR | PF_US);
    }
    fx_map(fx, VA, 0x800000 | 1u << 12, PTE_P | PTE_PS); /* PAT */
    assert_int_equal(walk_ok(fx, VA, 0).pa.v, 0x800000 + (VA & 0x3fffff));
}

static void reserved_bits_of_pae_entries_fault(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    for (unsigned bit = 36; bit <= 63; bit++) {
        fx_map(fx, VA, 0x234000, PTE_P | 1ull << bit);
        fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
    }
    fx_map(fx, VA, 0x234000, PTE_P);
    uint64_t pde = fx_pde(fx, VA), dir = fx_get64(fx, pde);
    for (unsigned bit = 36; bit <= 63; bit++) {
        fx_put64(fx, pde, dir | 1ull << bit);
        fx_expect_pf(fx, VA, USR, PF_P | PF_RSVD | PF_US);
    }
    for (unsigned bit = 13; bit <= 20; bit++) {
        fx_put64(fx, pde, 0x800000 | PTE_P | PTE_PS | 1ull << bit);
        fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
    }
}

/* A processor without PSE-36 and PAT: more bits are reserved, with CR4.PSE set or PAE. */
/* A 4 KiB page whose entry has the PAT bit, which is where PS is one level up. */
static void map_with_pat(struct fixture *fx, uint32_t va, uint32_t pa)
{
    fx_put64(fx, fx_pde(fx, va), 0);
    fx_put32(fx, fx_pte(fx, va), pa | PTE_P | 0x80);
}

static void reserved_bits_follow_the_features(void **state)
{
    struct fixture *fx = *state;

    walk_set_reserved(fx->m, false, false);
    fx_paging(fx, CR4_PSE);
    for (unsigned bit = 12; bit <= 21; bit++) {
        fx_map(fx, VA, 0x800000 | 1u << bit, PTE_P | PTE_PS);
        fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
    }
    map_with_pat(fx, VA, 0x234000);
    fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
    fx_paging(fx, 0);
    map_with_pat(fx, VA, 0x234000);
    assert_int_equal(walk_ok(fx, VA, 0).pa.v, 0x234123);
    fx_paging(fx, CR4_PAE);
    map_with_pat(fx, VA, 0x234000);
    fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
    fx_map(fx, VA, 0x800000 | 1u << 12, PTE_P | PTE_PS);
    fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
    walk_set_reserved(fx->m, false, true);
    map_with_pat(fx, VA, 0x234000);
    assert_int_equal(walk_ok(fx, VA, 0).pa.v, 0x234123);
}

static void reserved_directory_wins_over_absent_page(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    fx_map(fx, VA, 0, 0);
    uint64_t pde = fx_pde(fx, VA);
    fx_put64(fx, pde, fx_get64(fx, pde) | 1ull << 40);
    fx_expect_pf(fx, VA, 0, PF_P | PF_RSVD);
}

static void absent_entry_has_no_reserved_bits(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    fx_map(fx, VA, 0, ~(uint64_t)PTE_P & ~0xfffull);
    fx_expect_pf(fx, VA, 0, 0);
}

/* ---- PAE --------------------------------------------------------------------------- */

static void pae_pages_of_both_sizes_translate(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE | CR4_PGE);
    fx_map(fx, VA, 0xabcdef000ull, PTE_P | PTE_W | PTE_G);
    struct walk w = walk_ok(fx, VA, RW);
    assert_int_equal(w.pa.v, 0xabcdef123ull);
    assert_int_equal(w.leaf_bytes, 4096);
    assert_true(w.is_global);
    fx_map(fx, 0xc0000000u, 0x123400000ull, PTE_P | PTE_PS);
    w = walk_ok(fx, 0xc01abcdeu, 0);
    assert_int_equal(w.pa.v, 0x1235abcdeull);
    assert_int_equal(w.leaf_bytes, 2u << 20);
}

static void absent_pdpte_faults(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    fx->cpu->pdpte[1] = 0;
    fx_expect_pf(fx, VA, RW, PF_WR);
}

static void nx_forbids_fetches_at_every_level(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    fx->cpu->efer = EFER_NXE;
    fx_map(fx, VA, 0x234000, PTE_P | PTE_NX);
    assert_false(walk_ok(fx, VA, 0).is_executable);
    fx_expect_pf(fx, VA, ACC_EXEC, PF_P | PF_ID);
    fx_expect_pf(fx, VA, ACC_EXEC | USR, PF_P | PF_ID | PF_US);
    fx_map(fx, VA, 0x234000, PTE_P);
    assert_true(walk_ok(fx, VA, ACC_EXEC).is_executable);
    uint64_t pde = fx_pde(fx, VA);
    fx_put64(fx, pde, fx_get64(fx, pde) | PTE_NX);
    fx_expect_pf(fx, VA, ACC_EXEC, PF_P | PF_ID);
    fx_put64(fx, pde, 0x800000 | PTE_P | PTE_PS | PTE_NX);
    fx_expect_pf(fx, VA, ACC_EXEC, PF_P | PF_ID);
    fx_put64(fx, pde, 0);
    fx_expect_pf(fx, VA, ACC_EXEC, PF_ID); /* absent, but a fetch all the same */
}

static void nxe_means_nothing_without_pae(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, 0);
    fx->cpu->efer = EFER_NXE;
    fx_expect_pf(fx, VA, ACC_EXEC, 0);
}

static void pdptes_load_with_cr3(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    fx_put64(fx, 0x200020, 0x300000 | PTE_P);
    fx->cpu->cr3 = 0x200020; /* aligned to 32 bytes only */
    mmu_cr3_loaded(fx->cpu);
    assert_int_equal(fx->cpu->pdpte[0], 0x300000 | PTE_P);
    assert_int_equal(fx->cpu->pdpte[1], 0);
    fx_put64(fx, 0x200020, 0); /* memory may change afterwards: the registers do not */
    assert_int_equal(fx->cpu->pdpte[0], 0x300000 | PTE_P);
}

static void reserved_bits_in_pdptes_are_gp(void **state)
{
    struct fixture *fx = *state;

    fx_paging(fx, CR4_PAE);
    uint64_t before = fx->cpu->pdpte[2];
    for (unsigned bit = 1; bit < 64; bit++) {
        bool is_rsvd = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 36;
        fx_put64(fx, ROOT_PA + 16, before | 1ull << bit);
        assert_int_equal(mmu_load_pdptes(fx->cpu, ROOT_PA), is_rsvd ? X86_FAULT : X86_OK);
        if (is_rsvd) {
            assert_int_equal(fx->cpu->fault.vector, EXC_GP);
            assert_true(fx->cpu->fault.has_error);
            assert_int_equal(fx->cpu->fault.error, 0);
        }
        fx_put64(fx, ROOT_PA + 16, before);
        assert_int_equal(mmu_load_pdptes(fx->cpu, ROOT_PA), X86_OK);
    }
    fx_put64(fx, ROOT_PA + 16, ~1ull); /* not present: nothing is reserved */
    assert_int_equal(mmu_load_pdptes(fx->cpu, ROOT_PA), X86_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_paging_addresses_are_physical),
        TEST(a20_off_masks_bit_20),
        TEST(a20_off_masks_the_tables_too),
        TEST(two_level_page_translates),
        TEST(global_needs_cr4_pge),
        TEST(large_page_translates_with_pse36),
        TEST(ps_bit_means_nothing_without_pse),
        TEST(rights_and_error_codes_with_two_levels),
        TEST(rights_and_error_codes_with_pae),
        TEST(large_page_gets_a_and_d_in_the_directory),
        TEST(self_mapped_directory_keeps_both_updates),
        TEST(walker_reports_its_own_writes_to_traced_tables),
        TEST(tables_outside_ram_read_as_the_bus_says),
        TEST(tables_in_rom_are_not_written),
        TEST(reserved_bits_of_a_4_mib_page_fault),
        TEST(reserved_bits_of_pae_entries_fault),
        TEST(reserved_bits_follow_the_features),
        TEST(reserved_directory_wins_over_absent_page),
        TEST(absent_entry_has_no_reserved_bits),
        TEST(pae_pages_of_both_sizes_translate),
        TEST(absent_pdpte_faults),
        TEST(nx_forbids_fetches_at_every_level),
        TEST(nxe_means_nothing_without_pae),
        TEST(pdptes_load_with_cr3),
        TEST(reserved_bits_in_pdptes_are_gp),
    };

    return cmocka_run_group_tests_name("mmu walk", tests, NULL, NULL);
}
