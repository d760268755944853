/*
 * sendkey: names of keys (QEMU's) to scan codes of set 2, pressed together and let go after a while
 * of VM time. Codes wait in a queue that a VM timer empties; when the keyboard's buffer is full, they
 * wait some more.
 *
 *   sendkey a-b    |a down, b down|............ hold ............|b up, a up| gap |next sendkey
 *
 * Ref: IBM PC/AT Technical Reference, "Keyboard" (scan codes); PS/2 hardware interface, set 2.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/hmp_internal.h"

#define NS_PER_MS   1000000ull
#define HOLD_MS     100u
#define HOLD_MS_MAX 60000u
#define GAP_NS      (10 * NS_PER_MS)
#define RETRY_NS    (5 * NS_PER_MS)
#define EXTENDED    0xe000u
#define CODE_PRINT  0xe07cu

/* clang-format off */
static const struct {
    const char *name;
    uint16_t code; /* make code; e0xx is extended */
} keys[] = {
    { "esc", 0x76 }, { "f1", 0x05 }, { "f2", 0x06 }, { "f3", 0x04 }, { "f4", 0x0c }, { "f5", 0x03 },
    { "f6", 0x0b }, { "f7", 0x83 }, { "f8", 0x0a }, { "f9", 0x01 }, { "f10", 0x09 }, { "f11", 0x78 }, { "f12", 0x07 },
    { "grave_accent", 0x0e }, { "1", 0x16 }, { "2", 0x1e }, { "3", 0x26 }, { "4", 0x25 }, { "5", 0x2e },
    { "6", 0x36 }, { "7", 0x3d }, { "8", 0x3e }, { "9", 0x46 }, { "0", 0x45 }, { "minus", 0x4e }, { "equal", 0x55 },
    { "backspace", 0x66 }, { "tab", 0x0d }, { "q", 0x15 }, { "w", 0x1d }, { "e", 0x24 }, { "r", 0x2d },
    { "t", 0x2c }, { "y", 0x35 }, { "u", 0x3c }, { "i", 0x43 }, { "o", 0x44 }, { "p", 0x4d },
    { "bracket_left", 0x54 }, { "bracket_right", 0x5b }, { "backslash", 0x5d }, { "ret", 0x5a }, { "caps_lock", 0x58 },
    { "a", 0x1c }, { "s", 0x1b }, { "d", 0x23 }, { "f", 0x2b }, { "g", 0x34 }, { "h", 0x33 }, { "j", 0x3b },
    { "k", 0x42 }, { "l", 0x4b }, { "semicolon", 0x4c }, { "apostrophe", 0x52 },
    { "shift", 0x12 }, { "z", 0x1a }, { "x", 0x22 }, { "c", 0x21 }, { "v", 0x2a }, { "b", 0x32 }, { "n", 0x31 },
    { "m", 0x3a }, { "comma", 0x41 }, { "dot", 0x49 }, { "slash", 0x4a }, { "shift_r", 0x59 }, { "less", 0x61 },
    { "ctrl", 0x14 }, { "meta_l", 0xe01f }, { "alt", 0x11 }, { "spc", 0x29 }, { "alt_r", 0xe011 },
    { "meta_r", 0xe027 }, { "menu", 0xe02f }, { "compose", 0xe02f }, { "ctrl_r", 0xe014 },
    { "print", CODE_PRINT }, { "sysrq", 0x84 }, { "scroll_lock", 0x7e },
    { "insert", 0xe070 }, { "home", 0xe06c }, { "pgup", 0xe07d }, { "delete", 0xe071 }, { "end", 0xe069 },
    { "pgdn", 0xe07a }, { "up", 0xe075 }, { "left", 0xe06b }, { "down", 0xe072 }, { "right", 0xe074 },
    { "num_lock", 0x77 }, { "kp_divide", 0xe04a }, { "kp_multiply", 0x7c }, { "asterisk", 0x7c },
    { "kp_subtract", 0x7b }, { "kp_add", 0x79 }, { "kp_enter", 0xe05a }, { "kp_decimal", 0x71 },
    { "kp_0", 0x70 }, { "kp_1", 0x69 }, { "kp_2", 0x72 }, { "kp_3", 0x7a }, { "kp_4", 0x6b }, { "kp_5", 0x73 },
    { "kp_6", 0x74 }, { "kp_7", 0x6c }, { "kp_8", 0x75 }, { "kp_9", 0x7d },
};
/* clang-format on */

static bool find_key(const char *name, size_t len, uint16_t *code)
{
    if (len == 1 && *name == '<') { /* QEMU takes it for the key between shift and z */
        *code = 0x61;
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (strlen(keys[i].name) == len && !memcmp(keys[i].name, name, len)) {
            *code = keys[i].code;
            return true;
        }
    }
    return false;
}

/* ---- the queue ----------------------------------------------------------------------------- */

static void arm(struct hmp *hmp)
{
    if (hmp->event_count)
        machine_timer_set(hmp->vm->machine, &hmp->key_timer, hmp->event[hmp->event_first].at_ns);
}

static void send_due(void *ctx)
{
    struct hmp *hmp = ctx;
    uint64_t now = machine_now_ns(hmp->vm->machine);

    while (hmp->event_count) {
        struct hmp_event *e = &hmp->event[hmp->event_first];
        if (e->at_ns > now)
            break;
        if (!machine_key_input(hmp->vm->machine, e->code, e->len)) {
            e->at_ns = now + RETRY_NS;
            break;
        }
        hmp->event_first = (hmp->event_first + 1) % HMP_EVENTS;
        hmp->event_count--;
    }
    arm(hmp);
}

static void enqueue(struct hmp *hmp, uint64_t at_ns, uint16_t code, bool is_up)
{
    struct hmp_event *e = &hmp->event[(hmp->event_first + hmp->event_count++) % HMP_EVENTS];

    *e = (struct hmp_event){ .at_ns = at_ns };
    if (code == CODE_PRINT) { /* comes with a shift of its own */
        static const uint8_t down[] = { 0xe0, 0x12, 0xe0, 0x7c },
                             up[] = { 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12 };
        e->len = is_up ? sizeof up : sizeof down;
        memcpy(e->code, is_up ? up : down, e->len);
        return;
    }
    if (code >= EXTENDED)
        e->code[e->len++] = 0xe0;
    if (is_up)
        e->code[e->len++] = 0xf0;
    e->code[e->len++] = (uint8_t)code;
}

void hmp_keys_attach(struct hmp *hmp)
{
    hmp->event_first = hmp->event_count = 0;
    hmp->keys_end_ns = 0;
    vm_timer_init(&hmp->key_timer, send_due, hmp);
}

/* ---- the command --------------------------------------------------------------------------- */

/* "ctrl-alt-f1" -> codes. -> their number, 0 after a message. */
static unsigned parse_keys(struct hmp *hmp, const char *text, uint16_t codes[HMP_KEYS_MAX])
{
    unsigned n = 0;

    for (;;) {
        size_t len = strcspn(text, "-");
        if (n == HMP_KEYS_MAX) {
            hmp_print(hmp, "sendkey: too many keys: the most is %u\n", HMP_KEYS_MAX);
            return 0;
        }
        if (!find_key(text, len, &codes[n++])) {
            hmp_print(hmp, "sendkey: unknown key: '%.*s'\n", (int)(len < 40 ? len : 40), text);
            return 0;
        }
        if (!text[len])
            return n;
        text += len + 1;
    }
}

void hmp_sendkey(struct hmp *hmp, const struct hmp_args *args)
{
    uint16_t codes[HMP_KEYS_MAX];
    uint64_t hold_ms = HOLD_MS;
    unsigned n = parse_keys(hmp, args->word[1], codes);

    if (!n)
        return;
    if (args->count > 2 && (!hmp_number(hmp, args->word[2], &hold_ms) || hold_ms > HOLD_MS_MAX)) {
        hmp_print(hmp, "sendkey: '%.40s' is no time in milliseconds, up to %u\n", args->word[2], HOLD_MS_MAX);
        return;
    }
    if (hmp->event_count + 2 * n > HMP_EVENTS) {
        hmp_print(hmp, "sendkey: %u keys are waiting already, which the guest has not taken\n",
                  hmp->event_count / 2);
        return;
    }
    uint64_t now = machine_now_ns(hmp->vm->machine);
    uint64_t down = hmp->keys_end_ns > now ? hmp->keys_end_ns : now, up = down + hold_ms * NS_PER_MS;
    for (unsigned i = 0; i < n; i++)
        enqueue(hmp, down, codes[i], false);
    for (unsigned i = n; i-- > 0;)
        enqueue(hmp, up, codes[i], true);
    hmp->keys_end_ns = up + GAP_NS;
    arm(hmp);
}
