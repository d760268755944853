/*
 * The workloads. Every event leaves a value that is checked, so that a machine that runs old code is found
 * out, and a fast wrong answer counts for nothing.
 *
 * A control run does the same stores and calls, but the stores go to `data` and the calls to `still`: what
 * remains of an event's time when no code changes.
 */
#include "code_loads.h"

typedef uint32_t code_fn(void);
typedef uint32_t code_fn1(uint32_t);

static uint32_t call(const uint8_t *code)
{
    return ((code_fn *)(uintptr_t)code)();
}

static void put8(uint8_t *at, uint8_t v)
{
    *(volatile uint8_t *)at = v;
}

static void put32(uint8_t *at, uint32_t v)
{
    *(volatile uint32_t *)(void *)at = v;
}

#define FUNCTION_BYTES 16u

/* mov eax, value; ret */
static void put_function(uint8_t *at, uint32_t value)
{
    put8(at, 0xb8);
    put32(at + 1, value);
    put8(at + 5, 0xc3);
}

static void fill(uint8_t *at, uint8_t byte, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        put8(at + i, byte);
}

/* What is run: by a control run, code that nobody writes to. */
static uint8_t *run_area(const struct ground *g)
{
    return g->is_control ? g->still : g->code;
}

static uint8_t *write_area(const struct ground *g, uint8_t *usual)
{
    return g->is_control ? g->data : usual;
}

static void prepare_function(struct ground *g)
{
    put_function(g->code, 0);
    put_function(g->still, 0);
}

/* ---- constants ---------------------------------------------------------------------------------- */

static uint32_t modify_through(struct ground *g, uint8_t *writer, uint32_t events)
{
    uint8_t *code = run_area(g), *to = write_area(g, writer);
    uint32_t good = 0;

    for (uint32_t i = 0; i < events; i++) {
        put32(to + 1, i);
        good += call(code) == (g->is_control ? 0 : i);
    }
    return good;
}

static uint32_t modify_constant(struct ground *g, uint32_t events)
{
    return modify_through(g, g->code, events);
}

static uint32_t modify_by_alias(struct ground *g, uint32_t events)
{
    return modify_through(g, g->alias, events);
}

static uint32_t nothing_changes(struct ground *g, uint32_t events)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < events; i++) {
        put32(g->data, i);
        good += call(g->still) == 0;
    }
    return good;
}

/* ---- instructions --------------------------------------------------------------------------------- */

/* A return is made a no-operation before a return, and back. */
static uint32_t patch_text(struct ground *g, uint32_t events)
{
    uint8_t *code = run_area(g), *to = write_area(g, g->alias);
    uint32_t good = 0;

    for (uint32_t i = 0; i < events; i++) {
        if (i & 1) {
            put8(to + 6, 0xc3);
            put8(to + 5, 0x90);
        } else {
            put8(to + 5, 0xc3);
        }
        good += call(code) == 0;
    }
    return good;
}

/* As Linux patches its text (arch/x86/kernel/alternative.c, text_poke_bp): through a page mapped for the
 * moment, a breakpoint over the first byte, then the rest, then the first byte; the processor is
 * serialized after each. The site is a 5-byte no-operation that becomes a call, and back.
 *
 *     site:    mov eax, 1;  nop5 | call tracer;  ret
 *     tracer:  inc eax;  ret                             */
#define SITE   5u
#define TRACER 0x40u

static void serialize(void)
{
    __asm__ volatile("pushfl\n push %%cs\n push $1f\n iret\n1:" : : : "memory");
}

static void put_site(uint8_t *at)
{
    static const uint8_t bytes[] = { 0xb8, 1, 0, 0, 0, 0x3e, 0x8d, 0x74, 0x26, 0, 0xc3 };

    for (uint32_t i = 0; i < sizeof bytes; i++)
        put8(at + i, bytes[i]);
    put8(at + TRACER, 0x40);
    put8(at + TRACER + 1, 0xc3);
}

static void prepare_site(struct ground *g)
{
    put_site(g->code);
    put_site(g->still);
}

static void poke_text(struct ground *g, uint32_t ofs, const uint8_t *bytes, uint32_t len)
{
    uint8_t *to = write_area(g, g->alias);

    g->map_page(g->alias, true);
    for (uint32_t i = 0; i < len; i++)
        put8(to + ofs + i, bytes[i]);
    g->map_page(g->alias, false);
    serialize();
}

static uint32_t patch_kernel(struct ground *g, uint32_t events)
{
    static const uint8_t nop5[] = { 0x3e, 0x8d, 0x74, 0x26, 0 }, call5[] = { 0xe8, TRACER - SITE - 5, 0, 0, 0 };
    static const uint8_t int3 = 0xcc;
    uint8_t *code = run_area(g);
    uint32_t good = 0;

    for (uint32_t i = 0; i < events; i++) {
        const uint8_t *now = i & 1 ? nop5 : call5;
        poke_text(g, SITE, &int3, 1);
        poke_text(g, SITE + 1, now + 1, 4);
        poke_text(g, SITE, now, 1);
        good += call(code) == (i & 1 || g->is_control ? 1u : 2u);
    }
    if (events & 1) { /* as the next run expects it */
        poke_text(g, SITE, nop5, 5);
    }
    g->map_page(g->alias, true);
    return good;
}

/* ---- generated code -------------------------------------------------------------------------------- */

static void prepare_functions(struct ground *g)
{
    for (uint32_t at = 0; at < GROUND_BYTES; at += FUNCTION_BYTES)
        put_function(g->still + at, at);
}

/* A function made, run once, and soon made anew as another one. No two runs make the same. */
static uint32_t emit_and_run(struct ground *g, uint32_t events)
{
    static uint32_t serial;
    uint8_t *code = run_area(g), *to = write_area(g, g->code);
    uint32_t good = 0;

    for (uint32_t end = serial + events; serial != end; serial++) {
        uint32_t at = serial * FUNCTION_BYTES % GROUND_BYTES;
        put_function(to + at, serial);
        good += call(code + at) == (g->is_control ? at : serial);
    }
    return good;
}

static uint32_t trampoline(struct ground *g, uint32_t events)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < events; i++) {
        uint8_t code[8];

        put_function(code, i);
        good += call(g->is_control ? g->still : code) == (g->is_control ? 0 : i);
    }
    return good;
}

/* ---- code and data in one page ----------------------------------------------------------------------- */

/* inc dword [counter]; mov eax, [counter]; ret */
static void put_counting(uint8_t *at, uint8_t *counter)
{
    uint32_t va = (uint32_t)(uintptr_t)counter;

    put8(at, 0xff);
    put8(at + 1, 0x05);
    put32(at + 2, va);
    put8(at + 6, 0xa1);
    put32(at + 7, va);
    put8(at + 11, 0xc3);
}

static uint32_t mixed_at(struct ground *g, uint32_t ofs, uint32_t events)
{
    uint8_t *counter = write_area(g, g->code) + ofs;
    uint32_t good = 0;

    put_counting(g->code, counter);
    put32(counter, 0);
    for (uint32_t i = 0; i < events; i++)
        good += call(g->code) == i + 1;
    return good;
}

static void prepare_mixed(struct ground *g)
{
    fill(g->code, 0, 0x1000);
}

static uint32_t mixed_page(struct ground *g, uint32_t events)
{
    return mixed_at(g, 0x800, events);
}

static uint32_t mixed_line(struct ground *g, uint32_t events)
{
    return mixed_at(g, 0x20, events);
}

/* A loop in one page stores into the page behind it, which holds a function, too; that is called once in
 * STORES stores, each of which is an event. */
#define STORES 16u

static void prepare_neighbour(struct ground *g)
{
    /* mov edx, [esp + 4]; mov ecx, [esp + 8]; 1: mov [edx], ecx; dec ecx; jnz 1b; ret */
    static const uint8_t writer[] = { 0x8b, 0x54, 0x24, 4, 0x8b, 0x4c, 0x24, 8, 0x89, 0x0a, 0x49, 0x75, 0xfb, 0xc3 };

    for (uint32_t i = 0; i < sizeof writer; i++)
        put8(g->code + i, writer[i]);
    put_function(g->code + 0x1000, 7);
}

static uint32_t neighbour(struct ground *g, uint32_t events)
{
    typedef void writer_fn(uint8_t *to, uint32_t n);
    writer_fn *writer = (writer_fn *)(uintptr_t)g->code;
    uint8_t *to = write_area(g, g->code) + 0x1100;
    uint32_t good = 0;

    for (uint32_t left = events; left;) {
        uint32_t n = left < STORES ? left : STORES;
        writer(to, n);
        good += call(g->code + 0x1000) == 7 ? n : 0;
        left -= n;
    }
    return good;
}

/* ---- a program unpacked into memory ------------------------------------------------------------------ */

/*
 * Two programs of many small functions, packed by an LZ77 code, are unpacked in turn to the same place,
 * byte by byte, and run twice each. Packed form: a byte n below 80h and n + 1 bytes as they are; or
 * 80h + n, and an offset back of 16 bits from which n + MATCH_MIN bytes are copied.
 */
#define FUNCTIONS     512u
#define PROGRAM_BYTES (FUNCTIONS * FUNCTION_BYTES)
#define MATCH_MIN     4u
#define PASSES        2u

static struct packed {
    uint8_t bytes[PROGRAM_BYTES * 2];
    uint32_t len, result;
} packed[2];
static uint8_t unpacked[PROGRAM_BYTES];

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Function i: eax = rol(arg op constant, n). @return what all of them make of 0, one after another. */
static uint32_t make_program(uint8_t *to, uint32_t seed, uint32_t value)
{
    static const uint8_t ops[] = { 0x05, 0x2d, 0x35 }; /* add, sub, xor eax, imm32 */

    for (uint32_t i = 0; i < FUNCTIONS; i++, to += FUNCTION_BYTES) {
        uint32_t op = next_random(&seed) % 3, k = next_random(&seed), n = 1 + next_random(&seed) % 15;
        const uint8_t code[FUNCTION_BYTES] = { 0x8b, 0x44, 0x24, 4, ops[op], (uint8_t)k, (uint8_t)(k >> 8), (uint8_t)(k >> 16),
                                               (uint8_t)(k >> 24), 0xc1, 0xc0, (uint8_t)n, 0xc3, 0x90, 0x90, 0x90 };
        for (uint32_t j = 0; j < FUNCTION_BYTES; j++)
            to[j] = code[j];
        value = op == 0 ? value + k : op == 1 ? value - k : value ^ k;
        value = value << n | value >> (32 - n);
    }
    return value;
}

static uint32_t match_length(const uint8_t *a, const uint8_t *b, uint32_t max)
{
    uint32_t n = 0;

    while (n < max && a[n] == b[n])
        n++;
    return n;
}

static uint8_t *pack_match(uint8_t *to, uint32_t back, uint32_t len)
{
    *to++ = (uint8_t)(0x80 + len - MATCH_MIN);
    *to++ = (uint8_t)back;
    *to++ = (uint8_t)(back >> 8);
    return to;
}

/* The longest match among the last few functions, at any offset. */
static uint32_t pack(uint8_t *to, const uint8_t *from)
{
    uint8_t *start = to, *count = NULL;

    for (uint32_t at = 0; at < PROGRAM_BYTES;) {
        uint32_t best = 0, back = 0, left = PROGRAM_BYTES - at;
        for (uint32_t b = 1; b <= at && b <= 64; b++) {
            uint32_t n = match_length(from + at, from + at - b, left < 64 ? left : 64);
            if (n > best) {
                best = n;
                back = b;
            }
        }
        if (best >= MATCH_MIN) {
            to = pack_match(to, back, best);
            at += best;
            count = NULL;
            continue;
        }
        if (!count || *count == 0x7f) {
            count = to++;
            *count = 0xff;
        }
        ++*count;
        *to++ = from[at++];
    }
    return (uint32_t)(to - start);
}

static void unpack(const struct packed *p, uint8_t *to)
{
    for (const uint8_t *from = p->bytes, *end = p->bytes + p->len; from < end;) {
        uint32_t n = *from++;
        if (n < 0x80) {
            for (n++; n; n--)
                put8(to++, *from++);
        } else {
            const uint8_t *copy = to - (from[0] | (uint32_t)from[1] << 8);
            for (from += 2, n = n - 0x80 + MATCH_MIN; n; n--)
                put8(to++, *copy++);
        }
    }
}

static void prepare_unpack(struct ground *g)
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t value = make_program(unpacked, 1234 + i, 0);
        for (unsigned pass = 1; pass < PASSES; pass++)
            value = make_program(unpacked, 1234 + i, value);
        packed[i].result = value;
        packed[i].len = pack(packed[i].bytes, unpacked);
        unpack(&packed[i], g->still + i * PROGRAM_BYTES);
    }
}

static uint32_t unpack_and_run(struct ground *g, uint32_t events)
{
    uint8_t *to = write_area(g, g->code);
    uint32_t good = 0;

    for (uint32_t i = 0; i < events; i++) {
        uint8_t *code = g->is_control ? g->still + (i & 1) * PROGRAM_BYTES : g->code;
        uint32_t value = 0;

        unpack(&packed[i & 1], to);
        for (unsigned pass = 0; pass < PASSES; pass++)
            for (uint32_t f = 0; f < FUNCTIONS; f++)
                value = ((code_fn1 *)(uintptr_t)(code + f * FUNCTION_BYTES))(value);
        good += value == packed[i & 1].result;
    }
    return good;
}

const struct code_load code_loads[] = {
    { "nothing-changes", prepare_function, nothing_changes, false },
    { "modify-constant", prepare_function, modify_constant, false },
    { "modify-by-alias", prepare_function, modify_by_alias, false },
    { "patch-text", prepare_function, patch_text, false },
    { "patch-kernel", prepare_site, patch_kernel, true },
    { "emit-and-run", prepare_functions, emit_and_run, false },
    { "trampoline", prepare_function, trampoline, false },
    { "unpack", prepare_unpack, unpack_and_run, false },
    { "mixed-page", prepare_mixed, mixed_page, false },
    { "mixed-line", prepare_mixed, mixed_line, false },
    { "neighbour", prepare_neighbour, neighbour, false },
};
const unsigned code_load_count = sizeof code_loads / sizeof code_loads[0];
