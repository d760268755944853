/* ACPI: tables a guest can follow from the RSDP, modes, the PM timer, events, sleep. */
#include "fixture.h"

#include <string.h>

#define PM_HZ 3579545u

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t get16(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint8_t sum(const uint8_t *p, uint32_t len)
{
    uint8_t s = 0;

    for (uint32_t i = 0; i < len; i++)
        s += p[i];
    return s;
}

/** As a guest does: on 16-byte boundaries of E0000..FFFFF. */
static const uint8_t *find_rsdp(const struct fixture *f)
{
    for (uint32_t pa = 0xe0000; pa < 0x100000; pa += 16)
        if (!memcmp(f->mem + pa, "RSD PTR ", 8) && !sum(f->mem + pa, 20))
            return f->mem + pa;
    return NULL;
}

static const uint8_t *table_at(const struct fixture *f, uint32_t pa, const char *signature)
{
    assert_in_range(pa, 0xe0000, 0xfffc0);
    const uint8_t *t = f->mem + pa;
    assert_memory_equal(t, signature, 4);
    if (memcmp(signature, "FACS", 4))
        assert_int_equal(sum(t, get32(t + 4)), 0);
    return t;
}

static const uint8_t *find_fadt(struct fixture *f)
{
    machine_place_tables(f->m);
    const uint8_t *rsdp = find_rsdp(f);
    assert_non_null(rsdp);
    const uint8_t *rsdt = table_at(f, get32(rsdp + 16), "RSDT");
    assert_int_equal(get32(rsdt + 4), 40);
    return table_at(f, get32(rsdt + 36), "FACP");
}

static int setup(void **state)
{
    if (fixture_setup(state))
        return -1;
    init_pics(*state, 0);
    outb(*state, 0x21, 0xfb);
    outb(*state, 0xa1, 0xfd);
    outb(*state, 0x4d1, 0x02);
    return 0;
}

static void tables_hang_together_and_sum_to_zero(void **state)
{
    struct fixture *f = *state;
    const uint8_t *fadt = find_fadt(f);

    const uint8_t *facs = table_at(f, get32(fadt + 36), "FACS");
    assert_int_equal((facs - f->mem) % 64, 0);
    assert_int_equal(get32(facs + 4), 64);
    const uint8_t *dsdt = table_at(f, get32(fadt + 40), "DSDT");
    bool has_s5 = false;
    for (uint32_t i = 36; i + 4 <= get32(dsdt + 4); i++)
        has_s5 |= !memcmp(dsdt + i, "_S5_", 4);
    assert_true(has_s5);
}

static void the_fadt_names_the_ports_that_answer(void **state)
{
    struct fixture *f = *state;
    const uint8_t *fadt = find_fadt(f);

    assert_int_equal(get32(fadt + 4), 244);
    assert_int_equal(get16(fadt + 46), 9);
    assert_int_equal(get32(fadt + 56), 0x600);
    assert_int_equal(get32(fadt + 64), 0x604);
    assert_int_equal(get32(fadt + 76), 0x608);
    /* enable and disable as a guest does */
    assert_int_equal(in_port(f, 0x604, 2) & 1, 0);
    outb(f, (uint16_t)get32(fadt + 48), fadt[52]);
    assert_int_equal(in_port(f, 0x604, 2) & 1, 1);
    outb(f, (uint16_t)get32(fadt + 48), fadt[53]);
    assert_int_equal(in_port(f, 0x604, 2) & 1, 0);
    /* reset by the reset register, which its flag announces */
    assert_true(get32(fadt + 112) & 1u << 10);
    assert_int_equal(fadt[116], 1);
    outb(f, (uint16_t)get32(fadt + 120), fadt[128]);
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_RESET);
}

static void sleep_type_5_powers_off(void **state)
{
    struct fixture *f = *state;

    out_port(f, 0x604, 2, 5u << 10);
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_NONE);
    out_port(f, 0x604, 2, 3u << 10 | 1u << 13); /* a state the DSDT does not offer */
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_NONE);
    out_port(f, 0x604, 2, 5u << 10 | 1u << 13);
    assert_int_equal(machine_stop_requested(f->m, NULL), STOP_POWEROFF);
}

static void the_pm_timer_runs_at_its_frequency(void **state)
{
    struct fixture *f = *state;
    uint32_t start = in_port(f, 0x608, 4);

    advance(f, 10 * NS_PER_S);
    assert_int_equal(in_port(f, 0x608, 4) - start, 10 * PM_HZ);
    uint32_t whole = in_port(f, 0x608, 4);
    assert_int_equal(inb(f, 0x609), whole >> 8 & 0xff);
    assert_int_equal(in_port(f, 0x60a, 2), whole >> 16);
    out_port(f, 0x608, 4, 0);
    assert_int_equal(in_port(f, 0x608, 4), whole);
}

static void the_timer_status_follows_the_top_bit(void **state)
{
    struct fixture *f = *state;
    uint64_t half = (uint64_t)((1ull << 31) * 1000 / PM_HZ) * NS_PER_MS;

    advance(f, half - NS_PER_S);
    assert_int_equal(in_port(f, 0x600, 2), 0);
    advance(f, 2 * NS_PER_S);
    assert_int_equal(in_port(f, 0x600, 2), 1);
    out_port(f, 0x600, 2, 1);
    assert_int_equal(in_port(f, 0x600, 2), 0);

    outb(f, 0xb2, 0xa1);
    out_port(f, 0x602, 2, 1);
    assert_false(f->intr);
    advance(f, half);
    assert_true(f->intr);
    assert_int_equal(take_interrupt(f), 0x29);
    out_port(f, 0x600, 2, 1);
    assert_int_equal(take_interrupt(f), -1);
}

static void the_power_button_raises_the_sci(void **state)
{
    struct fixture *f = *state;

    out_port(f, 0x602, 2, 0x100);
    machine_power_button(f->m);
    assert_false(f->intr); /* not in ACPI mode */
    outb(f, 0xb2, 0xa1);
    assert_int_equal(take_interrupt(f), 0x29);
    assert_int_equal(in_port(f, 0x600, 4), 0x01000100);
    out_port(f, 0x600, 2, 0x100);
    assert_int_equal(in_port(f, 0x600, 4), 0x01000000);
    assert_int_equal(take_interrupt(f), -1);
}

static void bytes_of_the_event_block_stand_alone(void **state)
{
    struct fixture *f = *state;

    machine_power_button(f->m);
    outb(f, 0x603, 0x01);
    assert_int_equal(in_port(f, 0x602, 2), 0x0100);
    outb(f, 0x602, 0x21);
    assert_int_equal(in_port(f, 0x602, 2), 0x0121);
    outb(f, 0x600, 0xff); /* clears only its own half */
    assert_int_equal(in_port(f, 0x600, 2), 0x0100);
    outb(f, 0x601, 0x01);
    assert_int_equal(in_port(f, 0x600, 2), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(tables_hang_together_and_sum_to_zero),
        T(the_fadt_names_the_ports_that_answer),
        T(sleep_type_5_powers_off),
        T(the_pm_timer_runs_at_its_frequency),
        T(the_timer_status_follows_the_top_bit),
        T(the_power_button_raises_the_sci),
        T(bytes_of_the_event_block_stand_alone),
    };
    return cmocka_run_group_tests_name("machine.acpi", tests, NULL, NULL);
}
