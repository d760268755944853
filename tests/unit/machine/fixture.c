/* See fixture.h. The clock moves only when a test says so; everything else is recorded. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

static uint64_t fake_now(void *ctx)
{
    struct fixture *f = ctx;
    return f->now_ns;
}

static void mem_read(void *ctx, uint64_t pa, void *buf, uint32_t len)
{
    struct fixture *f = ctx;
    if (pa < MEM_BYTES && len <= MEM_BYTES - pa)
        memcpy(buf, f->mem + pa, len);
}

static void mem_write(void *ctx, uint64_t pa, const void *buf, uint32_t len)
{
    struct fixture *f = ctx;
    if (pa < MEM_BYTES && len <= MEM_BYTES - pa)
        memcpy(f->mem + pa, buf, len);
}

static void intr_changed(void *ctx, bool level)
{
    struct fixture *f = ctx;
    f->intr = level;
    f->intr_changes++;
}

static void mem_route(void *ctx, uint64_t pa, uint32_t bytes, bool reads_ram, bool writes_ram)
{
    struct fixture *f = ctx;
    if (f->routes < sizeof f->route / sizeof f->route[0])
        f->route[f->routes++] = (struct route){ (uint32_t)pa, bytes, reads_ram, writes_ram };
}

static void a20_changed(void *ctx, bool enabled)
{
    struct fixture *f = ctx;
    f->a20 = enabled;
    f->a20_changes++;
}

static void serial_write(void *ctx, const uint8_t *data, size_t len)
{
    struct fixture *f = ctx;
    for (size_t i = 0; i < len && f->out_len < sizeof f->out; i++)
        f->out[f->out_len++] = data[i];
}

static size_t serial_read(void *ctx, uint8_t *data, size_t len)
{
    struct fixture *f = ctx;
    size_t n = f->in_len - f->in_at < len ? f->in_len - f->in_at : len;

    memcpy(data, f->in + f->in_at, n);
    f->in_at += n;
    return n;
}

static const struct chardev_ops serial_ops = { .write = serial_write, .read = serial_read };

static const uint8_t rom[0x10000];
static const uint8_t file[3] = "abc";

static int setup(void **state, bool has_rom)
{
    struct fixture *f = calloc(1, sizeof *f);

    if (!f || !(f->mem = calloc(1, MEM_BYTES)))
        return -1;
    f->now_ns = 77 * NS_PER_S; /* the host has been up for a while */
    struct machine_config c = {
        .ram_bytes = 256u << 20,
        .clock = { .now_ns = fake_now, .ctx = f },
        .serial = { [0] = { .ops = &serial_ops, .ctx = f } },
        .rtc_epoch = EPOCH,
        .debug_exit_port = EXIT_PORT,
        .debug_exit_size = 2,
        .log = &f->log,
        .mem_ctx = f,
        .mem_read = mem_read,
        .mem_write = mem_write,
        .mem_route = mem_route,
        .rom = has_rom ? rom : NULL,
        .rom_bytes = has_rom ? sizeof rom : 0,
        .fw_file = { { "etc/test", file, sizeof file } },
        .fw_file_count = 1,
        .fw_item = { { FW_CMDLINE_DATA, file, sizeof file } },
        .fw_item_count = 1,
        .debugcon = { .ops = &serial_ops, .ctx = f },
        .debugcon_port = 0x402,
        .intr_ctx = f,
        .intr_changed = intr_changed,
        .a20_changed = a20_changed,
    };
    f->m = machine_new(&c);
    f->a20_changes = 0;
    f->routes = 0;
    *state = f;
    return f->m ? 0 : -1;
}

int fixture_setup(void **state)
{
    return setup(state, false);
}

int fixture_setup_rom(void **state)
{
    return setup(state, true);
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    machine_free(f->m);
    free(f->mem);
    free(f);
    return 0;
}

uint32_t in_port(struct fixture *f, uint16_t port, unsigned size)
{
    struct bus_request req = { .space = BUS_PORT, .size = (uint8_t)size, .addr = port };

    machine_bus(f->m, &req);
    return req.data;
}

void out_port(struct fixture *f, uint16_t port, unsigned size, uint32_t value)
{
    struct bus_request req = {
        .space = BUS_PORT, .size = (uint8_t)size, .is_write = true, .addr = port, .data = value
    };
    machine_bus(f->m, &req);
}

uint8_t inb(struct fixture *f, uint16_t port)
{
    return (uint8_t)in_port(f, port, 1);
}

void outb(struct fixture *f, uint16_t port, uint8_t value)
{
    out_port(f, port, 1, value);
}

void advance(struct fixture *f, uint64_t ns)
{
    uint64_t end = machine_now_ns(f->m) + ns;

    while (machine_next_deadline(f->m) <= end) {
        uint64_t deadline = machine_next_deadline(f->m), now = machine_now_ns(f->m);
        f->now_ns += deadline > now ? deadline - now : 0;
        machine_run_timers(f->m);
    }
    f->now_ns += end - machine_now_ns(f->m);
}

void jump(struct fixture *f, uint64_t ns)
{
    f->now_ns += ns;
    machine_run_timers(f->m);
}

void init_pics(struct fixture *f, uint8_t icw4)
{
    outb(f, 0x20, 0x11);
    outb(f, 0xa0, 0x11);
    outb(f, 0x21, 0x20);
    outb(f, 0xa1, 0x28);
    outb(f, 0x21, 0x04);
    outb(f, 0xa1, 0x02);
    outb(f, 0x21, icw4 | 1);
    outb(f, 0xa1, icw4 | 1);
}

int take_interrupt(struct fixture *f)
{
    if (!machine_intr_pending(f->m))
        return -1;
    int vector = machine_intr_ack(f->m);
    if (vector >= 0x28) {
        outb(f, 0xa0, 0x60 | (vector & 7));
        outb(f, 0x20, 0x62);
    } else {
        outb(f, 0x20, 0x60 | (vector & 7));
    }
    return vector;
}

unsigned count_interrupts(struct fixture *f, int vector)
{
    unsigned count = 0;
    int v;

    for (unsigned guard = 0; guard < 100000 && (v = take_interrupt(f)) >= 0; guard++)
        count += v == vector;
    return count;
}

void serial_send(struct fixture *f, const char *text)
{
    size_t len = strlen(text);

    f->in_len = f->in_at = 0;
    memcpy(f->in, text, len);
    f->in_len = len;
    machine_serial_input(f->m, 0);
}
