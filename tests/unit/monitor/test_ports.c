/* Port input and output: permission, widths, and strings that stop half-way. */
#include "callout_fixture.h"

#define IOMAP_OFS 0x68u

static void use_tss(struct fixture *fx, uint32_t limit)
{
    fx->cpu->tr =
        (struct segment){ .sel = 0x30, .attr = DESC_P | SYS_TSS32_BUSY, .base = TSS_PA, .limit = limit };
    memset(fx->ram + TSS_PA, 0xff, 0x1000); /* every port forbidden */
    fx->ram[TSS_PA + 102] = IOMAP_OFS;
    fx->ram[TSS_PA + 103] = 0;
}

static void allow(struct fixture *fx, unsigned port)
{
    fx->ram[TSS_PA + IOMAP_OFS + port / 8] &= (uint8_t) ~(1u << port % 8);
}

static void in_replaces_its_own_width_of_eax(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx->port_value = 0xa1b2c3d4;
    cpu->gpr[EAX] = 0x11111111;
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 1, .imm = 0x60), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EAX], 0x111111d4);
    cpu->gpr[EDX] = 0x7777c000;
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 2, .rm = EDX), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EAX], 0x1111c3d5);
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 4, .rm = EDX), 0), EXIT_RESUME);
    assert_int_equal(cpu->gpr[EAX], 0xa1b2c3d6);
    assert_int_equal(fx->event[0].addr, 0x60);
    assert_int_equal(fx->event[0].size, 1);
    assert_int_equal(fx->event[1].addr, 0xc000);
    assert_int_equal(fx->event[1].size, 2);
    assert_int_equal(cpu->stats.port_read, 3);
}

static void out_gives_the_device_its_own_width(void **state)
{
    struct fixture *fx = *state;

    fx->cpu->gpr[EAX] = 0xa1b2c3d4;
    assert_int_equal(fx_call(fx, callout_out, ARG(.osize = 1, .imm = 0x80), 0), EXIT_RESUME);
    assert_int_equal(fx_call(fx, callout_out, ARG(.osize = 4, .imm = 0xf8), 0), EXIT_RESUME);
    assert_int_equal(fx->event[0].value, 0xd4);
    assert_int_equal(fx->event[1].value, 0xa1b2c3d4);
    assert_int_equal(fx->event[1].addr, 0xf8);
}

static void a_write_with_consequences_goes_to_the_dispatcher(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;
    uint64_t arg = ARG(.osize = 1, .imm = 0x20);

    cpu->intr_quiet = 0;
    cpu->eflags_if = 0;
    assert_int_equal(fx_call(fx, callout_out, arg, 0), EXIT_RESUME);
    cpu->eflags_if = 1;
    assert_int_equal(fx_call(fx, callout_out, arg, 0), EXIT_DISPATCH);
    assert_int_equal(cpu->eip, NEXT_EIP);
    cpu->intr_quiet = 1;
    assert_int_equal(fx_call(fx, callout_out, arg, 0), EXIT_RESUME);
    fx->deadline_ns = 5000; /* nearer than what the host's timer is set for */
    assert_int_equal(fx_call(fx, callout_out, arg, 0), EXIT_DISPATCH);
    fx->deadline_ns = 0;
    fx->stop = true;
    assert_int_equal(fx_call(fx, callout_out, arg, 0), EXIT_DISPATCH);
}

static void user_code_needs_a_clear_bit_for_each_byte(void **state)
{
    struct fixture *fx = *state;

    use_tss(fx, 0x1fff);
    fx_user_mode(fx);
    fx_expect_fault(fx, callout_in, ARG(.osize = 1, .imm = 0x61), 0, EXC_GP, 0);
    allow(fx, 0x61);
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 1, .imm = 0x61), 0), EXIT_RESUME);
    fx_expect_fault(fx, callout_in, ARG(.osize = 2, .imm = 0x61), 0, EXC_GP, 0);
    for (unsigned port = 0x66; port < 0x6a; port++) /* across a byte of the map */
        allow(fx, port);
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 4, .imm = 0x66), 0), EXIT_RESUME);
    fx_expect_fault(fx, callout_in, ARG(.osize = 4, .imm = 0x67), 0, EXC_GP, 0);
    assert_int_equal(fx->nevents, 2); /* what was refused never reached a device */
}

static void the_permission_map_ends_with_the_tss(void **state)
{
    struct fixture *fx = *state;

    use_tss(fx, IOMAP_OFS + 2);
    memset(fx->ram + TSS_PA + IOMAP_OFS, 0, 16);
    fx_user_mode(fx);
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 1, .imm = 0x0f), 0), EXIT_RESUME);
    fx_expect_fault(fx, callout_in, ARG(.osize = 1, .imm = 0x10), 0, EXC_GP, 0); /* second byte outside */
    use_tss(fx, 102);
    fx_expect_fault(fx, callout_in, ARG(.osize = 1, .imm = 0), 0, EXC_GP, 0);
    use_tss(fx, 0x1fff);
    allow(fx, 0);
    fx->cpu->tr.attr = DESC_P | SYS_TSS16_BUSY; /* a 286 TSS has no map */
    fx_expect_fault(fx, callout_in, ARG(.osize = 1, .imm = 0), 0, EXC_GP, 0);
}

static void iopl_opens_all_ports_but_not_in_vm86_mode(void **state)
{
    struct fixture *fx = *state;

    use_tss(fx, 0x1fff);
    fx_user_mode(fx);
    fx->cpu->eflags_sys |= EFL_IOPL;
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 1, .imm = 0x61), 0), EXIT_RESUME);
    fx_vm86_mode(fx);
    fx_expect_fault(fx, callout_in, ARG(.osize = 1, .imm = 0x61), 0, EXC_GP, 0);
    fx_expect_fault(fx, callout_outs, ARG(.osize = 1, .asize = 2), 0, EXC_GP, 0);
    allow(fx, 0x61);
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 1, .imm = 0x61), 0), EXIT_RESUME);
}

static void real_mode_has_no_port_permissions(void **state)
{
    struct fixture *fx = *state;

    fx_real_mode(fx);
    fx->cpu->tr.attr = 0;
    assert_int_equal(fx_call(fx, callout_in, ARG(.osize = 1, .imm = 0x61), 0), EXIT_RESUME);
}

static void ins_reads_the_device_only_when_the_store_can_be_done(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    fx_paging(fx);
    fx_pte(fx, 0x5000, 0x5000 | PTE_P | PTE_US);
    fx->port_value = 0x40;
    cpu->gpr[EDX] = 0x1f0;
    cpu->gpr[EDI] = 0x4ffc;
    cpu->gpr[ECX] = 4;
    assert_int_equal(fx_call(fx, callout_ins, ARG(.osize = 2, .rep = REP_F3), 0), EXIT_FAULT);
    assert_int_equal(cpu->fault.vector, EXC_PF);
    assert_int_equal(cpu->fault.cr2, 0x5000);
    assert_int_equal(cpu->gpr[ECX], 2);
    assert_int_equal(cpu->gpr[EDI], 0x5000);
    assert_int_equal(fx->nevents, 2);
    fx_pte(fx, 0x5000, 0x5000 | PTE_P | PTE_W | PTE_US);
    assert_int_equal(fx_call(fx, callout_ins, ARG(.osize = 2, .rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(fx_get32(fx, 0x4ffc), 0x00410040);
    assert_int_equal(fx_get32(fx, 0x5000), 0x00430042);
    assert_int_equal(cpu->gpr[ECX], 0);
}

static void outs_goes_down_with_df_and_takes_the_override(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->segs[SEG_GS].base = 0x1000;
    vcpu_update_mode(cpu);
    fx_put32(fx, 0x3000, 0x04030201);
    cpu->gpr[EDX] = 0x3f8;
    cpu->gpr[ESI] = 0x2003;
    cpu->gpr[ECX] = 0xabcd0004;
    cpu->eflags_df = 1;
    assert_int_equal(fx_call(fx, callout_outs, ARG(.osize = 1, .asize = 2, .rep = REP_F3, SEG(SEG_GS)), 0),
                     EXIT_RESUME);
    assert_int_equal(fx->nevents, 4);
    assert_int_equal(fx->event[0].value, 4);
    assert_int_equal(fx->event[3].value, 1);
    assert_int_equal(cpu->gpr[ESI], 0x1fff);
    assert_int_equal(cpu->gpr[ECX], 0xabcd0000);
}

static void a_long_port_string_makes_way_and_goes_on(void **state)
{
    struct fixture *fx = *state;
    struct vcpu *cpu = fx->cpu;

    cpu->gpr[EDX] = 0x1f0;
    cpu->gpr[EDI] = 0x4000;
    cpu->gpr[ECX] = 10;
    fx->clear_run_at = 3;
    assert_int_equal(fx_call(fx, callout_ins, ARG(.rep = REP_F3), 0), EXIT_DISPATCH);
    assert_int_equal(cpu->eip, CODE_EIP);
    assert_int_equal(cpu->gpr[ECX], 7);
    cpu->run = 1;
    assert_int_equal(fx_call(fx, callout_ins, ARG(.rep = REP_F3), 0), EXIT_RESUME);
    assert_int_equal(fx->nevents, 10);
    assert_int_equal(fx_call(fx, callout_ins, ARG(.rep = REP_F3), 0), EXIT_RESUME); /* ECX is 0 */
    assert_int_equal(fx->nevents, 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_replaces_its_own_width_of_eax),
        TEST(out_gives_the_device_its_own_width),
        TEST(a_write_with_consequences_goes_to_the_dispatcher),
        TEST(user_code_needs_a_clear_bit_for_each_byte),
        TEST(the_permission_map_ends_with_the_tss),
        TEST(iopl_opens_all_ports_but_not_in_vm86_mode),
        TEST(real_mode_has_no_port_permissions),
        TEST(ins_reads_the_device_only_when_the_store_can_be_done),
        TEST(outs_goes_down_with_df_and_takes_the_override),
        TEST(a_long_port_string_makes_way_and_goes_on),
    };

    return cmocka_run_group_tests_name("callout ports", tests, NULL, NULL);
}
