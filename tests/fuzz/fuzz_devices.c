/*
 * Fuzzer of the devices: port and memory accesses of every width at the whole machine, time that
 * goes on, serial input, keys, interrupts taken. Besides what the sanitizers and assertions say it
 * is required that
 *  - INTR is what was last reported, and an acknowledged vector is in the range of a byte;
 *  - no timer is left behind the clock (a storm), and one run of the timers ends;
 *  - DMA and tables go through the configured functions and stay in memory's bounds there.
 */
#include <string.h>

#include "monitor/machine.h"
#include "platform/platform.h"
#include "tests/fuzz/input.h"

#define RAM_BYTES 0x100000u
#define STEPS_MAX 512u

static struct machine *machine;
static struct log silent;
static uint8_t *ram;
static uint64_t now_ns;
static bool intr, a20;
static size_t serial_left;

struct range {
    uint64_t pa, bytes;
};
static struct range mmio[16];
static unsigned nmmio;

static uint64_t fuzz_now(void *ctx)
{
    (void)ctx;
    return now_ns;
}

static void serial_write(void *ctx, const uint8_t *data, size_t len)
{
    (void)ctx;
    REQUIRE(len && data);
}

static size_t serial_read(void *ctx, uint8_t *data, size_t len)
{
    size_t n = len < serial_left ? len : serial_left;

    (void)ctx;
    memset(data, 0x5a, n);
    serial_left -= n;
    return n;
}

static void mem_read(void *ctx, uint64_t pa, void *buf, uint32_t len)
{
    (void)ctx;
    memset(buf, 0xff, len);
    if (pa < RAM_BYTES && len <= RAM_BYTES - pa)
        memcpy(buf, ram + pa, len);
}

static void mem_write(void *ctx, uint64_t pa, const void *buf, uint32_t len)
{
    (void)ctx;
    if (pa < RAM_BYTES && len <= RAM_BYTES - pa)
        memcpy(ram + pa, buf, len);
}

static void on_intr(void *ctx, bool level)
{
    (void)ctx;
    REQUIRE(level != intr, "INTR reported twice");
    intr = level;
}

static void on_a20(void *ctx, bool enabled)
{
    (void)ctx;
    a20 = enabled;
}

static void on_mmio(void *ctx, uint64_t pa, uint64_t bytes)
{
    (void)ctx;
    if (nmmio < ARRAY_LEN(mmio))
        mmio[nmmio++] = (struct range){ pa, bytes };
}

static void make_world(void)
{
    static const struct chardev_ops ops = { serial_write, serial_read };
    struct machine_config config = {
        .ram_bytes = RAM_BYTES,
        .clock = { .now_ns = fuzz_now },
        .serial = { { &ops, NULL }, { &ops, NULL }, { &ops, NULL }, { &ops, NULL } },
        .rtc_epoch = 951782399,
        .debug_exit_port = 0x501,
        .debug_exit_size = 4,
        .log = &silent,
        .mem_read = mem_read,
        .mem_write = mem_write,
        .intr_changed = on_intr,
        .a20_changed = on_a20,
    };

    ram = platform_reserve(RAM_BYTES);
    machine = machine_new(&config);
    REQUIRE(ram && machine);
    machine_for_each_mmio(machine, on_mmio, NULL);
}

/* ---- steps ---------------------------------------------------------------------------------------- */

/* First ports of what a PC has; a byte of the input chooses one and where in it. */
static uint16_t any_port(struct input *in)
{
    static const uint16_t firsts[] = { 0x00,  0x20,  0x40,  0x60,  0x70,  0x80,  0x92,  0xa0,  0xc0,  0xf0, 0x2e8, 0x2f8,
                                       0x3b0, 0x3c0, 0x3d0, 0x3e8, 0x3f8, 0x4d0, 0x501, 0x510, 0x514, 0x600, 0xb000, 0xcf8,
                                       0xcfc, 0xcf9, 0x1ce, 0xb2,  0x1f0, 0x170, 0x3f6, 0xae00 };
    uint8_t how = take8(in);

    if (how >= 0xf8)
        return take16(in);
    return (uint16_t)(firsts[how & 31] + (how >> 5) + (take8(in) & 0x1f) * (how & 1));
}

static uint64_t any_address(struct input *in)
{
    uint8_t how = take8(in);
    const struct range *r = &mmio[nmmio ? how % nmmio : 0];

    if (!nmmio || how >= 0xf0)
        return take32(in);
    return r->pa - 4 + take32(in) % (r->bytes + 8);
}

static void access(struct input *in, bool is_port, bool is_write)
{
    static const uint8_t sizes[] = { 1, 1, 2, 4 };
    uint8_t how = take8(in);
    struct bus_request req = { .space = is_port ? BUS_PORT : BUS_MEM, .size = sizes[how & 3], .is_write = is_write };

    req.addr = is_port ? any_port(in) : any_address(in);
    if (is_write)
        req.data = how & 4 ? take32(in) : take8(in);
    for (unsigned n = how & 8 ? 1 + (how >> 4) : 1; n; n--)
        machine_bus(machine, &req);
}

static void pass_time(struct input *in)
{
    uint8_t how = take8(in);

    now_ns += (uint64_t)take16(in) << (how & 31);
    machine_run_timers(machine);
    REQUIRE(machine_next_deadline(machine) > machine_now_ns(machine), "a timer is left behind");
}

static void step(struct input *in)
{
    char text[512];
    uint8_t what = take8(in), byte;

    switch (what & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        access(in, true, true);
        break;
    case 5:
    case 6:
        access(in, true, false);
        break;
    case 7:
    case 8:
        access(in, false, true);
        break;
    case 9:
        access(in, false, false);
        break;
    case 10:
        serial_left = take8(in);
        machine_serial_input(machine, what >> 4 & 3);
        break;
    case 11:
        byte = take8(in);
        machine_key_input(machine, &byte, 1);
        break;
    case 12:
    case 13:
        pass_time(in);
        break;
    case 14:
        if (machine_intr_pending(machine))
            machine_intr_ack(machine);
        break;
    default:
        switch (what >> 4 & 7) {
        case 0:
            machine_reset(machine);
            break;
        case 1:
            machine_power_button(machine);
            break;
        case 2:
            machine_vga_text(machine, text, take8(in) * 2u);
            break;
        case 3:
            machine_clock_stop(machine);
            break;
        case 4:
            machine_clock_continue(machine);
            break;
        default:
            machine_irq(machine, take8(in) & 15, what & 0x80);
            break;
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, data + size };

    if (!machine)
        make_world();
    machine_clock_continue(machine);
    machine_reset(machine);
    machine_place_tables(machine);
    for (unsigned i = 0; i < STEPS_MAX && input_left(&in); i++) {
        now_ns += 500;
        step(&in);
        REQUIRE(machine_intr_pending(machine) == intr);
        machine_clear_stop(machine);
    }
    return 0;
}
