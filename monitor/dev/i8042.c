/*
 * 8042 keyboard controller with its auxiliary (mouse) port, the keyboard and the mouse
 * behind it.
 *
 * The controller's output buffer holds one byte; behind it stand three queues, served
 * in this order: the controller's own answers, the keyboard's bytes, the mouse's. The
 * next byte enters the buffer as soon as the guest has read the last, and the IRQ line
 * falls in between, so that each byte is an edge. Commands take no time: the input
 * buffer is never full.
 *
 * Keyboard bytes are scan codes of set 2; the controller turns them into set 1 when
 * its command byte says so, which is how firmware leaves it.
 *
 * Invariant: the queues never overflow: an answer that does not fit is dropped, and
 * key codes are taken all or not at all.
 *
 * Ref: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller", "Keyboard" and "Mouse".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64
#define KEYBOARD_IRQ 1
#define MOUSE_IRQ    12

/* status register */
#define ST_OUTPUT   0x01
#define ST_SYSTEM   0x04
#define ST_COMMAND  0x08 /* the last write went to port 64h */
#define ST_UNLOCKED 0x10
#define ST_AUX      0x20 /* the byte comes from the mouse   */
/* command byte */
#define CB_KEY_IRQ   0x01
#define CB_AUX_IRQ   0x02
#define CB_SYSTEM    0x04
#define CB_KEY_OFF   0x10
#define CB_AUX_OFF   0x20
#define CB_TRANSLATE 0x40
#define CB_POWER_ON  (CB_KEY_IRQ | CB_SYSTEM | CB_AUX_OFF | CB_TRANSLATE)
/* output port */
#define OP_NO_RESET 0x01
#define OP_A20      0x02
#define OP_KEY_FULL 0x10
#define OP_AUX_FULL 0x20
#define OP_LINES    0xc0

/* clang-format off */
enum controller_command {
    CC_READ_RAM = 0x20, CC_WRITE_RAM = 0x60, CC_AUX_OFF = 0xa7, CC_AUX_ON = 0xa8, CC_AUX_TEST = 0xa9,
    CC_SELF_TEST = 0xaa, CC_KEY_TEST = 0xab, CC_KEY_OFF = 0xad, CC_KEY_ON = 0xae, CC_READ_INPUT = 0xc0,
    CC_READ_OUTPUT = 0xd0, CC_WRITE_OUTPUT = 0xd1, CC_WRITE_KEY_BUF = 0xd2, CC_WRITE_AUX_BUF = 0xd3,
    CC_WRITE_AUX = 0xd4, CC_A20_OFF = 0xdd, CC_A20_ON = 0xdf, CC_PULSE = 0xf0,
};
/* clang-format on */
#define SELF_TEST_OK 0x55
#define LINE_TEST_OK 0x00
#define INPUT_PORT   0x80 /* keyboard not inhibited */

/* bytes of both devices */
#define DEV_ACK     0xfa
#define DEV_RESEND  0xfe
#define DEV_TEST_OK 0xaa
/* clang-format off */
enum device_command {
    KEY_LEDS = 0xed, KEY_ECHO = 0xee, KEY_SCAN_SET = 0xf0, DEV_IDENTIFY = 0xf2, DEV_RATE = 0xf3,
    DEV_ENABLE = 0xf4, DEV_DISABLE = 0xf5, DEV_DEFAULTS = 0xf6, KEY_SET3_FIRST = 0xf7,
    KEY_SET3_LAST = 0xfd, DEV_RESEND_LAST = 0xfe, DEV_RESET = 0xff,
    MOUSE_SCALE_1 = 0xe6, MOUSE_SCALE_2 = 0xe7, MOUSE_RESOLUTION = 0xe8, MOUSE_STATUS = 0xe9,
    MOUSE_STREAM = 0xea, MOUSE_READ = 0xeb, MOUSE_WRAP_OFF = 0xec, MOUSE_WRAP = 0xee, MOUSE_REMOTE = 0xf0,
};
/* clang-format on */
#define KEYBOARD_ID_1            0xab
#define KEYBOARD_ID_2            0x83
#define MOUSE_ID                 0x00
#define MOUSE_RATE_DEFAULT       100
#define MOUSE_RESOLUTION_DEFAULT 2
#define MOUSE_ST_REMOTE          0x40
#define MOUSE_ST_ENABLED         0x20
#define MOUSE_ST_SCALE_2         0x10
#define BREAK_PREFIX             0xf0

#define QUEUE_BYTES 64u /* a power of two */

struct byte_queue {
    uint8_t byte[QUEUE_BYTES];
    uint8_t head, count;
};

struct i8042_state {
    struct byte_queue answers, keys, mouse;
    uint8_t out; /* output buffer                                       */
    uint8_t out_full, out_is_aux;
    uint8_t answer_is_aux; /* the queued answers stand for mouse bytes (D3)       */
    uint8_t command_byte, ram[32];
    uint8_t last_was_command;
    uint8_t wants_data; /* controller command that waits for its byte, or 0    */
    uint8_t in_break;   /* a break prefix was swallowed by the translation     */
    /* keyboard */
    uint8_t key_command; /* waits for its argument, or 0                        */
    uint8_t key_enabled, key_scan_set, key_leds, key_rate, key_last;
    /* mouse */
    uint8_t mouse_command, mouse_enabled, mouse_remote, mouse_wrap, mouse_scale, mouse_resolution;
    uint8_t mouse_rate, mouse_last;
};

struct i8042 {
    struct machine *m;
    struct i8042_state s;
};

/* clang-format off */
/* Scan code set 2 to set 1, as the controller's firmware translates it. */
static const uint8_t set1_of_set2[0x80] = {
    0xff,0x43,0x41,0x3f,0x3d,0x3b,0x3c,0x58,0x64,0x44,0x42,0x40,0x3e,0x0f,0x29,0x59,
    0x65,0x38,0x2a,0x70,0x1d,0x10,0x02,0x5a,0x66,0x71,0x2c,0x1f,0x1e,0x11,0x03,0x5b,
    0x67,0x2e,0x2d,0x20,0x12,0x05,0x04,0x5c,0x68,0x39,0x2f,0x21,0x14,0x13,0x06,0x5d,
    0x69,0x31,0x30,0x23,0x22,0x15,0x07,0x5e,0x6a,0x72,0x32,0x24,0x16,0x08,0x09,0x5f,
    0x6b,0x33,0x25,0x17,0x18,0x0b,0x0a,0x60,0x6c,0x34,0x35,0x26,0x27,0x19,0x0c,0x61,
    0x6d,0x73,0x28,0x74,0x1a,0x0d,0x62,0x6e,0x3a,0x36,0x1c,0x1b,0x75,0x2b,0x63,0x76,
    0x55,0x56,0x77,0x78,0x79,0x7a,0x0e,0x7b,0x7c,0x4f,0x7d,0x4b,0x47,0x7e,0x7f,0x6f,
    0x52,0x53,0x50,0x4c,0x4d,0x48,0x01,0x45,0x57,0x4e,0x51,0x4a,0x37,0x49,0x46,0x54,
};
/* clang-format on */

/* ---- queues ------------------------------------------------------------------------------ */

static void queue_put(struct byte_queue *q, uint8_t byte)
{
    if (q->count < QUEUE_BYTES)
        q->byte[(q->head + q->count++) % QUEUE_BYTES] = byte;
}

static uint8_t queue_get(struct byte_queue *q)
{
    uint8_t byte = q->byte[q->head];

    q->head = (q->head + 1) % QUEUE_BYTES;
    q->count--;
    return byte;
}

static void queue_clear(struct byte_queue *q)
{
    q->head = q->count = 0;
}

/* ---- output buffer -------------------------------------------------------------------------- */

static void update_irqs(struct i8042 *k)
{
    const struct i8042_state *s = &k->s;

    machine_irq(k->m, KEYBOARD_IRQ, s->out_full && !s->out_is_aux && (s->command_byte & CB_KEY_IRQ));
    machine_irq(k->m, MOUSE_IRQ, s->out_full && s->out_is_aux && (s->command_byte & CB_AUX_IRQ));
}

static void put_out(struct i8042 *k, uint8_t byte, bool is_aux)
{
    k->s.out = byte;
    k->s.out_full = 1;
    k->s.out_is_aux = is_aux;
}

/** Move one key byte to the buffer, unless translation swallows it. */
static void put_key(struct i8042 *k, uint8_t byte)
{
    if (k->s.command_byte & CB_TRANSLATE) {
        if (byte == BREAK_PREFIX) {
            k->s.in_break = 1;
            return;
        }
        if (byte < 0x80)
            byte = set1_of_set2[byte];
        else if (byte == 0x83)
            byte = 0x41;
        else if (byte == 0x84)
            byte = 0x54;
        byte |= k->s.in_break ? 0x80 : 0;
        k->s.in_break = 0;
    }
    put_out(k, byte, false);
}

/** Give the guest the next byte, if the buffer is free. */
static void fill_out(struct i8042 *k)
{
    struct i8042_state *s = &k->s;

    while (!s->out_full) {
        if (s->answers.count)
            put_out(k, queue_get(&s->answers), s->answer_is_aux);
        else if (s->keys.count && !(s->command_byte & CB_KEY_OFF))
            put_key(k, queue_get(&s->keys));
        else if (s->mouse.count && !(s->command_byte & CB_AUX_OFF))
            put_out(k, queue_get(&s->mouse), true);
        else
            break;
    }
    update_irqs(k);
}

/** An answer of the controller itself; it replaces those not yet read. */
static void answer(struct i8042 *k, uint8_t byte, bool is_aux)
{
    queue_clear(&k->s.answers);
    queue_put(&k->s.answers, byte);
    k->s.answer_is_aux = is_aux;
}

bool i8042_key_input(struct i8042 *k, const uint8_t *codes, size_t count)
{
    if (!k->s.key_enabled)
        return true; /* a keyboard that was told to be quiet loses keys */
    if (count > QUEUE_BYTES - k->s.keys.count)
        return false;
    for (size_t i = 0; i < count; i++)
        queue_put(&k->s.keys, codes[i]);
    fill_out(k);
    return true;
}

/* ---- the keyboard ------------------------------------------------------------------------------ */

static void key_send(struct i8042 *k, uint8_t byte)
{
    queue_put(&k->s.keys, byte);
    k->s.key_last = byte;
}

static void key_defaults(struct i8042 *k)
{
    queue_clear(&k->s.keys);
    k->s.in_break = 0;
    k->s.key_scan_set = 2;
    k->s.key_rate = 0x2b; /* 500 ms, 10.9 a second */
    k->s.key_leds = 0;
}

static void key_argument(struct i8042 *k, uint8_t command, uint8_t byte)
{
    key_send(k, DEV_ACK);
    if (command == KEY_LEDS)
        k->s.key_leds = byte & 7;
    else if (command == DEV_RATE)
        k->s.key_rate = byte & 0x7f;
    else if (command == KEY_SCAN_SET && byte == 0)
        key_send(k, k->s.key_scan_set);
    else if (command == KEY_SCAN_SET && byte <= 3)
        k->s.key_scan_set = byte;
}

static void key_write(struct i8042 *k, uint8_t byte)
{
    uint8_t command = k->s.key_command;

    k->s.key_command = 0;
    if (command && byte < KEY_LEDS) {
        key_argument(k, command, byte);
        return;
    }
    switch (byte) {
    case KEY_LEDS:
    case KEY_SCAN_SET:
    case DEV_RATE:
        k->s.key_command = byte;
        key_send(k, DEV_ACK);
        break;
    case KEY_ECHO:
        key_send(k, KEY_ECHO);
        break;
    case DEV_IDENTIFY:
        key_send(k, DEV_ACK);
        key_send(k, KEYBOARD_ID_1);
        key_send(k, KEYBOARD_ID_2);
        break;
    case DEV_ENABLE:
        queue_clear(&k->s.keys);
        k->s.key_enabled = 1;
        key_send(k, DEV_ACK);
        break;
    case DEV_DISABLE:
    case DEV_DEFAULTS:
        key_defaults(k);
        k->s.key_enabled = byte == DEV_DEFAULTS;
        key_send(k, DEV_ACK);
        break;
    case DEV_RESEND_LAST:
        queue_put(&k->s.keys, k->s.key_last);
        break;
    case DEV_RESET:
        key_defaults(k);
        k->s.key_enabled = 1;
        key_send(k, DEV_ACK);
        key_send(k, DEV_TEST_OK);
        break;
    default:
        key_send(k, byte >= KEY_SET3_FIRST && byte <= KEY_SET3_LAST ? DEV_ACK : DEV_RESEND);
        break;
    }
}

/* ---- the mouse ---------------------------------------------------------------------------------- */

static void mouse_send(struct i8042 *k, uint8_t byte)
{
    queue_put(&k->s.mouse, byte);
    k->s.mouse_last = byte;
}

static void mouse_defaults(struct i8042 *k)
{
    queue_clear(&k->s.mouse);
    k->s.mouse_enabled = k->s.mouse_remote = k->s.mouse_wrap = 0;
    k->s.mouse_scale = 0;
    k->s.mouse_resolution = MOUSE_RESOLUTION_DEFAULT;
    k->s.mouse_rate = MOUSE_RATE_DEFAULT;
}

static void mouse_send_status(struct i8042 *k)
{
    const struct i8042_state *s = &k->s;

    mouse_send(k,
               (uint8_t)((s->mouse_remote ? MOUSE_ST_REMOTE : 0) | (s->mouse_enabled ? MOUSE_ST_ENABLED : 0) |
                         (s->mouse_scale ? MOUSE_ST_SCALE_2 : 0)));
    mouse_send(k, s->mouse_resolution);
    mouse_send(k, s->mouse_rate);
}

/** Commands that only set something and are acknowledged. */
static void mouse_set(struct i8042 *k, uint8_t command)
{
    switch (command) {
    case MOUSE_SCALE_1:
    case MOUSE_SCALE_2:
        k->s.mouse_scale = command == MOUSE_SCALE_2;
        break;
    case MOUSE_STREAM:
    case MOUSE_REMOTE:
        k->s.mouse_remote = command == MOUSE_REMOTE;
        break;
    case MOUSE_WRAP:
    case MOUSE_WRAP_OFF:
        k->s.mouse_wrap = command == MOUSE_WRAP;
        break;
    case DEV_ENABLE:
    case DEV_DISABLE:
        k->s.mouse_enabled = command == DEV_ENABLE;
        break;
    case MOUSE_RESOLUTION:
    case DEV_RATE:
        k->s.mouse_command = command;
        break;
    default:
        break;
    }
    mouse_send(k, DEV_ACK);
}

static void mouse_command(struct i8042 *k, uint8_t byte)
{
    switch (byte) {
    case MOUSE_STATUS:
        mouse_send(k, DEV_ACK);
        mouse_send_status(k);
        break;
    case MOUSE_READ: /* no buttons, no motion */
        mouse_send(k, DEV_ACK);
        mouse_send(k, 0x08);
        mouse_send(k, 0);
        mouse_send(k, 0);
        break;
    case DEV_IDENTIFY:
        mouse_send(k, DEV_ACK);
        mouse_send(k, MOUSE_ID);
        break;
    case DEV_DEFAULTS:
        mouse_defaults(k);
        mouse_send(k, DEV_ACK);
        break;
    case DEV_RESEND_LAST:
        queue_put(&k->s.mouse, k->s.mouse_last);
        break;
    case DEV_RESET:
        mouse_defaults(k);
        mouse_send(k, DEV_ACK);
        mouse_send(k, DEV_TEST_OK);
        mouse_send(k, MOUSE_ID);
        break;
    case MOUSE_SCALE_1:
    case MOUSE_SCALE_2:
    case MOUSE_RESOLUTION:
    case MOUSE_STREAM:
    case MOUSE_WRAP_OFF:
    case MOUSE_WRAP:
    case MOUSE_REMOTE:
    case DEV_RATE:
    case DEV_ENABLE:
    case DEV_DISABLE:
        mouse_set(k, byte);
        break;
    default:
        mouse_send(k, DEV_RESEND);
        break;
    }
}

static void mouse_write(struct i8042 *k, uint8_t byte)
{
    uint8_t command = k->s.mouse_command;

    if (k->s.mouse_wrap && byte != MOUSE_WRAP_OFF && byte != DEV_RESET) {
        mouse_send(k, byte);
        return;
    }
    k->s.mouse_command = 0;
    if (!command) {
        mouse_command(k, byte);
        return;
    }
    if (command == MOUSE_RESOLUTION)
        k->s.mouse_resolution = byte & 3;
    else
        k->s.mouse_rate = byte;
    mouse_send(k, DEV_ACK);
}

/* ---- the controller ------------------------------------------------------------------------------ */

static uint8_t output_port(const struct i8042 *k)
{
    return (uint8_t)(OP_NO_RESET | OP_LINES | (machine_a20_get(k->m) ? OP_A20 : 0) |
                     (k->s.out_full ? k->s.out_is_aux ? OP_AUX_FULL : OP_KEY_FULL : 0));
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
    machine_a20_set(k->m, value & OP_A20);
    if (!(value & OP_NO_RESET))
        machine_request_stop(k->m, STOP_RESET, 0);
}

static void set_command_byte(struct i8042 *k, uint8_t clear, uint8_t set)
{
    k->s.command_byte = (uint8_t)((k->s.command_byte & ~clear) | set);
}

static void controller_command(struct i8042 *k, uint8_t command)
{
    if (command >= CC_READ_RAM && command < CC_READ_RAM + 0x20) {
        answer(k, command == CC_READ_RAM ? k->s.command_byte : k->s.ram[command & 31], false);
        return;
    }
    if (command >= CC_WRITE_RAM && command < CC_WRITE_RAM + 0x20) {
        k->s.wants_data = command;
        return;
    }
    if (command >= CC_PULSE) { /* bits that are 0 pulse low; bit 0 is the CPU's reset */
        if (!(command & OP_NO_RESET))
            machine_request_stop(k->m, STOP_RESET, 0);
        return;
    }
    switch (command) {
    case CC_AUX_OFF:
        set_command_byte(k, 0, CB_AUX_OFF);
        break;
    case CC_AUX_ON:
        set_command_byte(k, CB_AUX_OFF, 0);
        break;
    case CC_AUX_TEST:
    case CC_KEY_TEST:
        answer(k, LINE_TEST_OK, false);
        break;
    case CC_SELF_TEST:
        set_command_byte(k, 0, CB_SYSTEM);
        answer(k, SELF_TEST_OK, false);
        break;
    case CC_KEY_OFF:
        set_command_byte(k, 0, CB_KEY_OFF);
        break;
    case CC_KEY_ON:
        set_command_byte(k, CB_KEY_OFF, 0);
        break;
    case CC_READ_INPUT:
        answer(k, INPUT_PORT, false);
        break;
    case CC_READ_OUTPUT:
        answer(k, output_port(k), false);
        break;
    case CC_WRITE_OUTPUT:
    case CC_WRITE_KEY_BUF:
    case CC_WRITE_AUX_BUF:
    case CC_WRITE_AUX:
        k->s.wants_data = command;
        break;
    case CC_A20_OFF:
    case CC_A20_ON:
        machine_a20_set(k->m, command == CC_A20_ON);
        break;
    default:
        LOG(machine_log(k->m), guest_error, "i8042: command 0x%x is unknown\n", command);
        break;
    }
}

static void controller_data(struct i8042 *k, uint8_t command, uint8_t byte)
{
    switch (command) {
    case CC_WRITE_OUTPUT:
        write_output_port(k, byte);
        break;
    case CC_WRITE_KEY_BUF:
        answer(k, byte, false);
        break;
    case CC_WRITE_AUX_BUF:
        answer(k, byte, true);
        break;
    case CC_WRITE_AUX:
        set_command_byte(k, CB_AUX_OFF, 0);
        mouse_write(k, byte);
        break;
    case CC_WRITE_RAM:
        k->s.command_byte = byte;
        break;
    default: /* the rest of the RAM */
        k->s.ram[command & 31] = byte;
        break;
    }
}

static void i8042_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct i8042 *k = dev;
    uint8_t byte = (uint8_t)value, command = k->s.wants_data;

    (void)size;
    k->s.wants_data = 0;
    k->s.last_was_command = addr == PORT_COMMAND;
    if (addr == PORT_COMMAND) {
        controller_command(k, byte);
    } else if (command) {
        controller_data(k, command, byte);
    } else {
        set_command_byte(k, CB_KEY_OFF, 0); /* a byte for the keyboard opens its line */
        key_write(k, byte);
    }
    fill_out(k);
}

static uint32_t i8042_read(void *dev, uint64_t addr, unsigned size)
{
    struct i8042 *k = dev;
    struct i8042_state *s = &k->s;

    (void)size;
    if (addr == PORT_COMMAND)
        return ST_UNLOCKED | (s->command_byte & CB_SYSTEM) | (s->out_full ? ST_OUTPUT : 0u) |
               (s->out_full && s->out_is_aux ? ST_AUX : 0u) | (s->last_was_command ? ST_COMMAND : 0u);
    uint8_t byte = s->out; /* an empty buffer gives the last byte again */
    if (s->out_full) {
        s->out_full = 0;
        update_irqs(k);
        fill_out(k);
    }
    return byte;
}

static void i8042_reset(void *dev)
{
    struct i8042 *k = dev;

    memset(&k->s, 0, sizeof k->s);
    k->s.command_byte = CB_POWER_ON;
    k->s.key_enabled = 1;
    key_defaults(k);
    mouse_defaults(k);
    update_irqs(k);
}

static const struct io_ops i8042_ops = { .name = "i8042", .read = i8042_read, .write = i8042_write };

struct i8042 *i8042_new(struct machine *m)
{
    struct i8042 *k = machine_alloc(m, sizeof *k);

    _Static_assert(CB_SYSTEM == ST_SYSTEM, "the status register shows the command byte's bit");
    if (!k || machine_claim_ports(m, PORT_DATA, 1, &i8042_ops, k) ||
        machine_claim_ports(m, PORT_COMMAND, 1, &i8042_ops, k) ||
        device_register(m, "i8042", i8042_reset, k, &k->s, sizeof k->s))
        return NULL;
    k->m = m;
    return k;
}
