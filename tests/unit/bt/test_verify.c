/*
 * The verifier against code made by hand: every idiom of the translator passes, and each way
 * to leave the sandbox is refused. The encoders are the translator's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "bt/bt_internal.h"
#include "bt/verify.h"

#define VCPU(field) hmem_base(H_R15, offsetof(struct vcpu, field))
#define HOT_ADDRESS 0x40000000u
#define PERMITTED   0x40002000u

struct code {
    struct verify_const constant; /* len 0: none */
    uint32_t source_len;          /* of guest memory at SOURCE that may be read */
    uint8_t hot_bytes[512], cold_bytes[256];
    struct emit hot, cold;
    uint32_t entries[4];
    unsigned nentries;
    bool allow_window, linear_window;
};

#define SOURCE ((const uint8_t *)0x7000000000)

static void start(struct code *c)
{
    memset(c, 0, sizeof(*c));
    c->hot =
        (struct emit){ .start = c->hot_bytes, .p = c->hot_bytes, .end = c->hot_bytes + sizeof(c->hot_bytes) };
    c->cold = (struct emit){ .start = c->cold_bytes,
                             .p = c->cold_bytes,
                             .end = c->cold_bytes + sizeof(c->cold_bytes) };
}

static bool is_permitted(void *ctx, uint64_t address)
{
    (void)ctx;
    return address == PERMITTED;
}

/* NULL when the code passes, else the reason. */
static const char *verdict(struct code *c)
{
    static struct verify_work *work;
    struct verify_error err;
    struct verify_input in = {
        .hot = c->hot.start,
        .hot_len = (uint32_t)(c->hot.p - c->hot.start),
        .cold = c->cold.start,
        .cold_len = (uint32_t)(c->cold.p - c->cold.start),
        .hot_address = HOT_ADDRESS,
        .cold_address = HOT_ADDRESS + (uint64_t)(c->cold.start - c->hot.start),
        .is_target = is_permitted,
        .entries = c->entries,
        .nentries = c->nentries,
        .allow_window = c->allow_window,
        .linear_window = c->linear_window,
        .source = { SOURCE },
        .source_len = { c->source_len },
        .consts = &c->constant,
        .nconsts = c->constant.len != 0,
    };
    if (!work)
        work = malloc(verify_work_bytes());
    in.work = work;
    return verify_ccf(&in, &err) ? NULL : err.reason;
}

static void passes(struct code *c)
{
    const char *reason = verdict(c);
    if (reason)
        fail_msg("refused: %s", reason);
}

static void fails(struct code *c, const char *reason)
{
    const char *got = verdict(c);
    if (!got)
        fail_msg("passed; expected: %s", reason);
    assert_string_equal(got, reason);
}

/* The checked lookup for [ea], by SHRX; leaves RCX. JRCXZ goes to the end of the code. */
static uint8_t *lookup(struct emit *e, struct hmem last, enum host_reg ea, unsigned size, uint32_t table)
{
    if (size > 1) {
        e_lea_r32(e, H_R10, last);
        e_shrx_r32(e, H_R9, ea, H_R11);
        e_shrx_r32(e, H_R10, H_R10, H_R11);
        e_lea_r32(e, H_R9, hmem_index(H_R9, H_R10, 0, 0));
    } else {
        e_shrx_r32(e, H_R9, ea, H_R11);
        e_lea_r32(e, H_R9, hmem_index(H_R9, H_R9, 0, 0));
    }
    e_mov_r64_m64(e, H_RCX, hmem_index(H_R14, H_R9, 3, (int32_t)table));
    return e_jrcxz_fwd(e);
}

/* jmp [stub_exit], and an island to which `slow` leads. */
static void finish(struct code *c, uint8_t *slow)
{
    e_jmp_m64(&c->hot, VCPU(stub_exit));
    if (slow)
        e_patch8(slow, c->hot.p);
    e_jmp_m64(&c->hot, VCPU(stub_exit));
}

static void lookup_makes_an_access_safe(void **state)
{
    struct code c;
    (void)state;
    start(&c); /* mov eax, [rbx] of 4 bytes */
    uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    passes(&c);

    start(&c); /* a byte */
    slow = lookup(&c.hot, hmem_base(H_RBX, 0), H_RBX, 1, VIEW_LOAD_OFS);
    e_movzx_r32_m8(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    passes(&c);

    start(&c); /* [rsi + rdi*4 + 100], address computed twice */
    e_lea_r32(&c.hot, H_R8, hmem_index(H_RSI, H_RDI, 2, 100));
    slow = lookup(&c.hot, hmem_index(H_RSI, H_RDI, 2, 103), H_R8, 4, VIEW_STORE_OFS);
    e_mov_m32_r32(&c.hot, hmem_index(H_RCX, H_R8, 0, 0), H_RAX);
    finish(&c, slow);
    passes(&c);

    start(&c); /* with a segment base */
    e_lea_r32(&c.hot, H_R8, hmem_index(H_RSI, H_RDI, 2, 100));
    e_mov_r32_m32(&c.hot, H_R9, VCPU(seg_base));
    e_lea_r32(&c.hot, H_R8, hmem_index(H_R8, H_R9, 0, 0));
    slow = lookup(&c.hot, hmem_base(H_R8, 3), H_R8, 4, VIEW_LOAD_OFS);
    e_mov_r32_m32(&c.hot, H_RSI, hmem_index(H_RCX, H_R8, 0, 0));
    finish(&c, slow);
    passes(&c);

    start(&c); /* push: store below ESP, then move it */
    e_lea_r32(&c.hot, H_R8, hmem_base(H_R12, -4));
    slow = lookup(&c.hot, hmem_base(H_R12, -1), H_R8, 4, VIEW_STORE_OFS);
    e_mov_m32_r32(&c.hot, hmem_index(H_RCX, H_R8, 0, 0), H_RBP);
    e_lea_r32(&c.hot, H_R12, hmem_base(H_R12, -4));
    finish(&c, slow);
    passes(&c);
}

static void lookup_without_bmi2_is_recognised(void **state)
{
    struct code c;
    (void)state;
    start(&c);
    e_lea_r32(&c.hot, H_R10, hmem_base(H_RBX, 3));
    e_mov_r32_r32(&c.hot, H_R9, H_RBX);
    e_pushfq(&c.hot);
    e_op_rr(&c.hot, 0, 0xc1, 5, H_R9);
    put8(&c.hot, 12);
    e_op_rr(&c.hot, 0, 0xc1, 5, H_R10);
    put8(&c.hot, 12);
    e_popfq(&c.hot);
    e_lea_r32(&c.hot, H_R9, hmem_index(H_R9, H_R10, 0, 0));
    e_mov_r64_m64(&c.hot, H_RCX, hmem_index(H_R14, H_R9, 3, VIEW_LOAD_OFS));
    uint8_t *slow = e_jrcxz_fwd(&c.hot);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    passes(&c);
}

static void address_may_become_a_pointer(void **state)
{
    struct code c;
    (void)state;
    start(&c); /* lea r8, [rcx + rbx]; mov eax, [r8 + 4] of an 8-byte check */
    uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 7), H_RBX, 8, VIEW_LOAD_OFS);
    e_lea_r64(&c.hot, H_R8, hmem_index(H_RCX, H_RBX, 0, 0));
    e_mov_r32_r32(&c.hot, H_RCX, H_R13);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_base(H_R8, 4));
    finish(&c, slow);
    passes(&c);

    start(&c); /* one byte further */
    slow = lookup(&c.hot, hmem_base(H_RBX, 7), H_RBX, 8, VIEW_LOAD_OFS);
    e_lea_r64(&c.hot, H_R8, hmem_index(H_RCX, H_RBX, 0, 0));
    e_mov_r32_m32(&c.hot, H_RAX, hmem_base(H_R8, 5));
    finish(&c, slow);
    fails(&c, "reaches beyond what was checked");

    start(&c); /* a pointer must not survive in a guest register */
    slow = lookup(&c.hot, hmem_base(H_RBX, 7), H_RBX, 8, VIEW_LOAD_OFS);
    e_lea_r64(&c.hot, H_RDI, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    fails(&c, "a guest register is not zero-extended here");
}

static void pointer_may_wait_in_a_spill_slot(void **state)
{
    struct code c;
    (void)state;
    start(&c);
    uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_lea_r64(&c.hot, H_RCX, hmem_index(H_RCX, H_RBX, 0, 0));
    e_mov_m64_r64(&c.hot, VCPU(tmp), H_RCX);
    e_mov_r32_r32(&c.hot, H_RCX, H_R13);
    e_mov_r64_m64(&c.hot, H_R8, VCPU(tmp));
    e_mov_r32_m32(&c.hot, H_RAX, hmem_base(H_R8, 0));
    finish(&c, slow);
    passes(&c);
}

static void unchecked_accesses_are_refused(void **state)
{
    struct code c;
    (void)state;
    start(&c);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_base(H_RBX, 0));
    finish(&c, NULL);
    fails(&c, "accesses memory without a check");

    start(&c);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, NULL);
    fails(&c, "accesses memory without a check");

    start(&c); /* JRCXZ forgotten */
    lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    c.hot.p -= 2;
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, NULL);
    fails(&c, "uses a table entry that may be empty");

    start(&c); /* the empty case goes on as well */
    uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_patch8(slow, c.hot.p);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, NULL);
    fails(&c, "accesses memory without a check");
}

static void accesses_must_match_their_check(void **state)
{
    const char *other = "the check was for another address or a smaller access";
    struct code c;
    (void)state;
    start(&c); /* another register */
    uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RDX, 0, 0));
    finish(&c, slow);
    fails(&c, other);

    start(&c); /* the register changed in between */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_op_rr(&c.hot, 0, 0x01, H_RDX, H_RBX);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    fails(&c, other);

    start(&c); /* too wide */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_mov_r64_m64(&c.hot, H_R8, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    fails(&c, other);

    start(&c); /* below the checked bytes */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_movzx_r32_m8(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, -1));
    finish(&c, slow);
    fails(&c, other);

    start(&c); /* scaled */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 1, 0));
    finish(&c, slow);
    fails(&c, "accesses memory without a check");

    start(&c); /* a store by the load table */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_mov_m32_r32(&c.hot, hmem_index(H_RCX, H_RBX, 0, 0), H_RAX);
    finish(&c, slow);
    fails(&c, "stores by a check for loads");

    start(&c); /* the span of a check is less than a page */
    slow = lookup(&c.hot, hmem_base(H_RBX, 8191), H_RBX, 8192, VIEW_LOAD_OFS);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    fails(&c, "reads a view's table in no known way");
}

static void slow_stub_gives_an_addend(void **state)
{
    struct code c;
    (void)state;
    start(&c);
    uint8_t *to_cold = e_jmp32_fwd(&c.hot);
    e_patch32(to_cold, c.cold.p);
    e_lea_r32(&c.cold, H_R8, hmem_base(H_RBX, 8));
    e_mov_r32_imm32(&c.cold, H_R9, 4 | MD_WRITE | SEG_DS << MD_SEG_SHIFT);
    e_call_m64(&c.cold, VCPU(stub_mem_slow));
    e_mov_m32_r32(&c.cold, hmem_index(H_RCX, H_R8, 0, 0), H_RAX);
    e_mov_r32_m32(&c.cold, H_RCX, VCPU(mem_bounced));
    uint8_t *done = e_jrcxz_fwd(&c.cold);
    e_call_m64(&c.cold, VCPU(stub_mem_done));
    e_patch8(done, c.cold.p);
    e_jmp_m64(&c.cold, VCPU(stub_exit));
    passes(&c);

    start(&c); /* the descriptor says load */
    e_mov_r32_imm32(&c.hot, H_R8, 0x1000);
    e_mov_r32_imm32(&c.hot, H_R9, 4 | MD_READ);
    e_call_m64(&c.hot, VCPU(stub_mem_slow));
    e_mov_m32_r32(&c.hot, hmem_index(H_RCX, H_R8, 0, 0), H_RAX);
    finish(&c, NULL);
    fails(&c, "stores by a check for loads");

    start(&c); /* 2 bytes asked for, 4 used */
    e_mov_r32_imm32(&c.hot, H_R8, 0x1000);
    e_mov_r32_imm32(&c.hot, H_R9, 2 | MD_READ);
    e_call_m64(&c.hot, VCPU(stub_mem_slow));
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_R8, 0, 0));
    finish(&c, NULL);
    fails(&c, "the check was for another address or a smaller access");

    start(&c); /* descriptor unknown */
    e_mov_r32_imm32(&c.hot, H_R8, 0x1000);
    e_mov_r32_r32(&c.hot, H_R9, H_RAX);
    e_call_m64(&c.hot, VCPU(stub_mem_slow));
    finish(&c, NULL);
    fails(&c, "asks for a slow access of unknown size");
}

/* One instruction between an entry and an exit. */
static const char *verdict_of(const uint8_t *bytes, size_t len)
{
    struct code c;
    start(&c);
    for (size_t i = 0; i < len; i++)
        put8(&c.hot, bytes[i]);
    finish(&c, NULL);
    return verdict(&c);
}

struct sample {
    const char *text;
    uint8_t bytes[12], len;
};

static void forbidden_instructions_are_refused(void **state)
{
    /* clang-format off */
    static const struct sample rows[] = {
        { "int 0x80", { 0xcd, 0x80 }, 2 },          { "int3", { 0xcc }, 1 },
        { "syscall", { 0x0f, 0x05 }, 2 },           { "sysenter", { 0x0f, 0x34 }, 2 },
        { "iretd", { 0xcf }, 1 },                   { "iretq", { 0x48, 0xcf }, 2 },
        { "hlt", { 0xf4 }, 1 },                     { "cli", { 0xfa }, 1 },
        { "sti", { 0xfb }, 1 },                     { "in", { 0xec }, 1 },
        { "out", { 0xee }, 1 },                     { "rdtsc", { 0x0f, 0x31 }, 2 },
        { "cpuid", { 0x0f, 0xa2 }, 2 },             { "rdmsr", { 0x0f, 0x32 }, 2 },
        { "wrmsr", { 0x0f, 0x30 }, 2 },             { "mov cr0", { 0x0f, 0x22, 0xc0 }, 3 },
        { "mov from cr0", { 0x0f, 0x20, 0xc0 }, 3 }, { "mov dr7", { 0x0f, 0x23, 0xf8 }, 3 },
        { "mov ds, eax", { 0x8e, 0xd8 }, 2 },       { "mov eax, ds", { 0x8c, 0xd8 }, 2 },
        { "push fs", { 0x0f, 0xa0 }, 2 },           { "pop gs", { 0x0f, 0xa9 }, 2 },
        { "sldt", { 0x0f, 0x00, 0xc0 }, 3 },        { "smsw", { 0x0f, 0x01, 0xe0 }, 3 },
        { "lar", { 0x0f, 0x02, 0xc0 }, 3 },         { "swapgs", { 0x0f, 0x01, 0xf8 }, 3 },
        { "wrfsbase", { 0xf3, 0x0f, 0xae, 0xd0 }, 4 }, { "wrgsbase", { 0xf3, 0x48, 0x0f, 0xae, 0xd8 }, 5 },
        { "retf", { 0xcb }, 1 },                    { "ret 4", { 0xc2, 4, 0 }, 3 },
        { "call far [r15+tmp]", { 0x41, 0xff, 0x9f, 0x90, 0, 0, 0 }, 7 },
        { "jmp far [r15+tmp]", { 0x41, 0xff, 0xaf, 0x90, 0, 0, 0 }, 7 },
        { "jmp rax", { 0xff, 0xe0 }, 2 },           { "call rax", { 0xff, 0xd0 }, 2 },
        { "jmp [rax]", { 0xff, 0x20 }, 2 },         { "jmp [rip]", { 0xff, 0x25, 0, 0, 0, 0 }, 6 },
        { "mov eax, [rip]", { 0x8b, 0x05, 0, 0, 0, 0 }, 6 },
        { "mov eax, [disp32]", { 0x8b, 0x04, 0x25, 0, 0, 0, 0 }, 7 },
        { "mov eax, moffs", { 0xa1, 0, 0, 0, 0, 0, 0, 0, 0 }, 9 },
        { "mov eax, fs:[0]", { 0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0 }, 8 },
        { "mov eax, gs:[ebx]", { 0x65, 0x67, 0x8b, 0x03 }, 4 },
        { "movsd", { 0xa5 }, 1 },                   { "rep stosb", { 0xf3, 0xaa }, 2 },
        { "xlat", { 0xd7 }, 1 },                    { "leave", { 0xc9 }, 1 },
        { "enter", { 0xc8, 0, 0, 0 }, 4 },          { "loop", { 0xe2, 0 }, 2 },
        { "jecxz", { 0x67, 0xe3, 0 }, 3 },          { "ud1", { 0x0f, 0xb9, 0xc0 }, 3 },
        { "tzcnt", { 0xf3, 0x0f, 0xbc, 0xc0 }, 4 }, { "vaddps", { 0xc5, 0xfc, 0x58, 0xc0 }, 4 },
        { "xbegin", { 0xc7, 0xf8, 0, 0, 0, 0 }, 6 }, { "endbr64", { 0xf3, 0x0f, 0x1e, 0xfa }, 4 },
        { "mov rsp, rax", { 0x48, 0x89, 0xc4 }, 3 }, { "mov rax, rsp", { 0x48, 0x89, 0xe0 }, 3 },
        { "add rsp, 8", { 0x48, 0x83, 0xc4, 8 }, 4 }, { "mov r15, rax", { 0x49, 0x89, 0xc7 }, 3 },
        { "mov r14, rax", { 0x49, 0x89, 0xc6 }, 3 }, { "inc r11d", { 0x41, 0xff, 0xc3 }, 3 },
        { "lea rsp, [rax]", { 0x48, 0x8d, 0x20 }, 3 }, { "xchg rsp, rax", { 0x48, 0x94 }, 2 },
        { "inc rax", { 0x48, 0xff, 0xc0 }, 3 }, { "pop rax", { 0x58 }, 1 },
        { "push rax", { 0x50 }, 1 },                { "popfq", { 0x9d }, 1 },
        { "pushfw", { 0x66, 0x9c }, 2 },            { "push [rax]", { 0xff, 0x30 }, 2 },
        { "maskmovq", { 0x0f, 0xf7, 0xc1 }, 3 },    { "fnsave", { 0xdd, 0x33 }, 2 },
        { "write stub", { 0x4d, 0x89, 0x47, 0x68 }, 4 },   /* mov [r15 + stub_mem_slow], r8 */
        { "read stub", { 0x4d, 0x8b, 0x47, 0x68 }, 4 },
        { "write view_base", { 0x4d, 0x89, 0x47, 0x38 }, 4 },
        { "write run", { 0x45, 0x89, 0x47, 0x28 }, 4 },
        { "vcpu beyond tmp", { 0x4d, 0x89, 0x87, 0xac, 0, 0, 0 }, 7 },
        { "[r15 + rax]", { 0x41, 0x89, 0x04, 0x07 }, 4 },
        { "jmp [stub_mem_slow]", { 0x41, 0xff, 0x67, 0x68 }, 4 },
        { "jmp [r14 + load table]", { 0x41, 0xff, 0x26 }, 3 },
        { "truncated", { 0x0f }, 0 },
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i + 1 < ARRAY_LEN(rows); i++)
        if (!verdict_of(rows[i].bytes, rows[i].len))
            fail_msg("%s passed", rows[i].text);
}

static void harmless_instructions_pass(void **state)
{
    /* clang-format off */
    static const struct sample rows[] = {
        { "add eax, edx", { 0x01, 0xd0 }, 2 },      { "imul r13d, eax", { 0x44, 0x0f, 0xaf, 0xe8 }, 4 },
        { "div ebx", { 0xf7, 0xf3 }, 2 },           { "cdq", { 0x99 }, 1 },
        { "mov ah, bl", { 0x88, 0xdc }, 2 },        { "bswap eax", { 0x0f, 0xc8 }, 2 },
        { "setz al", { 0x0f, 0x94, 0xc0 }, 3 },     { "cmovz eax, edx", { 0x0f, 0x44, 0xc2 }, 3 },
        { "bsf eax, edx", { 0x0f, 0xbc, 0xc2 }, 3 }, { "lahf", { 0x9f }, 1 },
        { "sahf", { 0x9e }, 1 },                    { "cld", { 0xfc }, 1 },
        { "fadd", { 0xd8, 0xc1 }, 2 },              { "fnstsw ax", { 0xdf, 0xe0 }, 2 },
        { "paddb mm0, mm1", { 0x0f, 0xfc, 0xc1 }, 3 }, { "addps", { 0x0f, 0x58, 0xc1 }, 3 },
        { "movmskps eax", { 0x0f, 0x50, 0xc1 }, 3 }, { "pextrw eax", { 0x0f, 0xc5, 0xc1, 1 }, 4 },
        { "movd eax, xmm0", { 0x66, 0x0f, 0x7e, 0xc0 }, 4 }, { "pause", { 0xf3, 0x90 }, 2 },
        { "nop [rax]", { 0x0f, 0x1f, 0x00 }, 3 },   { "cvttss2si eax", { 0xf3, 0x0f, 0x2c, 0xc0 }, 4 },
        { "xchg eax, r12d", { 0x44, 0x87, 0xe0 }, 3 }, { "xadd eax, edx", { 0x0f, 0xc1, 0xd0 }, 3 },
        { "cmpxchg edx, ebx", { 0x0f, 0xb1, 0xda }, 3 }, { "shld", { 0x0f, 0xa4, 0xc2, 3 }, 4 },
        { "bt eax, edx", { 0x0f, 0xa3, 0xd0 }, 3 }, { "rcl eax, cl", { 0xd3, 0xd0 }, 2 },
        { "pushfq pop rcx", { 0x9c, 0x59 }, 2 },    { "push rcx popfq", { 0x51, 0x9d }, 2 },
        { "mov [gpr], eax", { 0x41, 0x89, 0x07 }, 3 },
        { "sub qword [icount_left], 5", { 0x49, 0x83, 0xaf, 0xc8, 0, 0, 0, 5 }, 8 },
        { "lfence", { 0x0f, 0xae, 0xe8 }, 3 },      { "emms", { 0x0f, 0x77 }, 2 },
        { "sarx", { 0xc4, 0xe2, 0x32, 0xf7, 0xc0 }, 5 },
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *reason = verdict_of(rows[i].bytes, rows[i].len);
        if (reason)
            fail_msg("%s: %s", rows[i].text, reason);
    }
}

static void transfers_go_by_table_stub_or_return_stack(void **state)
{
    struct code c;
    (void)state;
    start(&c); /* movzx r9d, r8w; jmp [r14 + r9*8 + JT] */
    e_movzx_r32_r16(&c.hot, H_R9, H_R8);
    e_jmp_m64(&c.hot, hmem_index(H_R14, H_R9, 3, (int32_t)VIEW_JT_OFS));
    passes(&c);
    start(&c); /* by way of RCX */
    e_movzx_r32_r16(&c.hot, H_R9, H_R8);
    e_mov_r64_m64(&c.hot, H_RCX, hmem_index(H_R14, H_R9, 3, (int32_t)VIEW_JT_OFS));
    put8(&c.hot, 0xff);
    put8(&c.hot, 0xe1);
    passes(&c);
    start(&c); /* a constant slot, and a call that lands */
    e_mov_r32_imm32(&c.hot, H_R8, 0x12345);
    e_call_m64(&c.hot, hmem_base(H_R14, (int32_t)(VIEW_JT_OFS + 0x2345 * 8)));
    e_lea_r32(&c.hot, H_RCX, hmem_base(H_R8, -0x1000));
    uint8_t *here = e_jrcxz_fwd(&c.hot);
    e_jmp_m64(&c.hot, VCPU(stub_jt_probe));
    e_patch8(here, c.hot.p);
    e_ret(&c.hot);
    passes(&c);
    start(&c); /* an index of 32 bits */
    e_mov_r32_r32(&c.hot, H_R9, H_R8);
    e_jmp_m64(&c.hot, hmem_index(H_R14, H_R9, 3, (int32_t)VIEW_JT_OFS));
    fails(&c, "reads a view's table in no known way");
    start(&c); /* past the table */
    e_jmp_m64(&c.hot, hmem_base(H_R14, (int32_t)VIEW_BYTES));
    fails(&c, "misses the jump table");
    start(&c); /* between two slots */
    e_jmp_m64(&c.hot, hmem_base(H_R14, (int32_t)VIEW_JT_OFS + 4));
    fails(&c, "misses the jump table");
    start(&c); /* RET with something pushed */
    e_push_r64(&c.hot, H_RAX);
    e_ret(&c.hot);
    fails(&c, "the host stack is not balanced here");
}

static void jump_outside(struct code *c, uint32_t target)
{
    put8(&c->hot, 0xe9);
    put32(&c->hot, target - (HOT_ADDRESS + 5));
}

static void direct_branches_land_on_instructions(void **state)
{
    struct code c;
    (void)state;
    start(&c);
    e_jmp32_to(&c.hot, c.hot.start); /* a loop */
    passes(&c);
    start(&c);
    e_jmp32_to(&c.hot, c.hot.start + 1);
    fails(&c, "branches into the middle of an instruction");
    start(&c);
    jump_outside(&c, PERMITTED);
    passes(&c);
    start(&c);
    jump_outside(&c, PERMITTED + 1);
    fails(&c, "branches to a place that is not permitted");
    start(&c);
    e_op(&c.hot, 0, 0x90);
    fails(&c, "falls out of the code");
    start(&c); /* from the hot part into the cold one */
    e_op(&c.hot, 0, 0x90);
    e_jmp_m64(&c.cold, VCPU(stub_exit));
    fails(&c, "falls out of the hot part");
    start(&c);
    put8(&c.hot, 0xe9); /* truncated */
    fails(&c, "is no instruction");
}

static void other_entries_know_nothing(void **state)
{
    struct code c;
    (void)state;
    start(&c);
    uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    c.entries[c.nentries++] = (uint32_t)(c.hot.p - c.hot.start);
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    fails(&c, "accesses memory without a check");

    start(&c); /* so does a loop's head */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    uint8_t *head = c.hot.p;
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    e_jmp32_to(&c.hot, head);
    e_patch8(slow, c.hot.p);
    e_jmp_m64(&c.hot, VCPU(stub_exit));
    fails(&c, "accesses memory without a check");

    start(&c); /* a callout may have changed the tables */
    slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_LOAD_OFS);
    e_call_m64(&c.hot, VCPU(stub_callout));
    e_mov_r32_m32(&c.hot, H_RAX, hmem_index(H_RCX, H_RBX, 0, 0));
    finish(&c, slow);
    fails(&c, "accesses memory without a check");
}

static void islands_between_two_checks_keep_what_is_known(void **state)
{
    struct code c;
    (void)state;
    start(&c); /* MOVS: a load and a store, with islands emitted in between */
    uint8_t *slow1 = lookup(&c.hot, hmem_base(H_RSI, 3), H_RSI, 4, VIEW_LOAD_OFS);
    e_lea_r64(&c.hot, H_R8, hmem_index(H_RCX, H_RSI, 0, 0));
    uint8_t *over = e_jmp8_fwd(&c.hot);
    e_patch8(slow1, c.hot.p);
    uint8_t *to_cold = e_jmp32_fwd(&c.hot);
    e_patch8(over, c.hot.p);
    uint8_t *slow2 = lookup(&c.hot, hmem_base(H_RDI, 3), H_RDI, 4, VIEW_STORE_OFS);
    e_mov_r32_m32(&c.hot, H_R9, hmem_base(H_R8, 0));
    e_mov_m32_r32(&c.hot, hmem_index(H_RCX, H_RDI, 0, 0), H_R9);
    e_mov_r32_m32(&c.hot, H_R9, VCPU(df_step));
    e_lea_r32(&c.hot, H_RSI, hmem_index(H_RSI, H_R9, 2, 0));
    e_lea_r32(&c.hot, H_RDI, hmem_index(H_RDI, H_R9, 2, 0));
    uint8_t *tail = c.hot.p;
    finish(&c, slow2);
    e_patch32(to_cold, c.cold.p);
    e_mov_r32_r32(&c.cold, H_R8, H_RSI);
    e_mov_r32_imm32(&c.cold, H_R9, 4 | MD_READ);
    e_call_m64(&c.cold, VCPU(stub_mem_slow));
    e_mov_r32_m32(&c.cold, H_R9, hmem_index(H_RCX, H_R8, 0, 0));
    e_jmp32_to(&c.cold, tail);
    passes(&c);
}

static void bit_strings_need_a_bounded_offset(void **state)
{
    struct code c;
    (void)state;
    for (unsigned bounded = 0; bounded < 2; bounded++) {
        start(&c);
        uint8_t *slow = lookup(&c.hot, hmem_base(H_RBX, 3), H_RBX, 4, VIEW_STORE_OFS);
        e_mov_r32_imm32(&c.hot, H_R9, 32 - 5 - !bounded);
        e_shlx_r32(&c.hot, H_R10, H_RDX, H_R9);
        e_shrx_r32(&c.hot, H_R10, H_R10, H_R9);
        e_op_rm(&c.hot, ENC_0F, 0xab, H_R10, hmem_index(H_RCX, H_RBX, 0, 0));
        finish(&c, slow);
        if (bounded)
            passes(&c);
        else
            fails(&c, "a bit offset may leave the checked operand");
    }
}

static void window_operands_need_the_window_form(void **state)
{
    struct code c;
    (void)state;
    for (unsigned which = 0; which < 8; which++) {
        bool allowed = which & 1, linear = which & 2, without_gs = which & 4;
        start(&c);
        struct hmem m = hmem_base(H_RBX, 0);
        m.window = true;
        c.hot.linear_window = without_gs;
        e_mov_r32_m32(&c.hot, H_RAX, m);
        finish(&c, NULL);
        c.allow_window = allowed;
        c.linear_window = linear;
        if (allowed && linear == without_gs)
            passes(&c);
        else
            fails(&c, without_gs && !linear ? "truncates a host address" : "leaves the window");
    }
}

/* 64 bits of address reach the monitor, whatever the segment. */
static void linear_windows_need_short_addresses(void **state)
{
    struct code c;
    (void)state;
    for (unsigned gs = 0; gs < 2; gs++) {
        start(&c);
        if (gs)
            put8(&c.hot, 0x65);
        e_mov_r32_m32(&c.hot, H_RAX, hmem_base(H_RBX, 0));
        finish(&c, NULL);
        c.allow_window = c.linear_window = true;
        fails(&c, gs ? "leaves the window" : "accesses memory without a check");
    }
}

/* mov r10, address; mov r9d, [r10 + ofs], or the store */
static void put_source_access(struct code *c, uint64_t address, int32_t ofs, bool stores)
{
    start(c);
    c->source_len = 8;
    e_mov_r64_imm64(&c->hot, H_R10, address);
    if (stores)
        e_mov_m32_r32(&c->hot, hmem_base(H_R10, ofs), H_R9);
    else
        e_mov_r32_m32(&c->hot, H_R9, hmem_base(H_R10, ofs));
    finish(c, NULL);
}

static void source_may_be_read_and_nothing_around_it(void **state)
{
    const uint64_t at = (uint64_t)(uintptr_t)SOURCE;
    struct code c;

    (void)state;
    put_source_access(&c, at, 0, false);
    passes(&c);
    put_source_access(&c, at, 4, false);
    passes(&c);
    put_source_access(&c, at, 5, false);
    fails(&c, "reaches beyond what was checked");
    put_source_access(&c, at, -1, false);
    fails(&c, "reaches beyond what was checked");
    put_source_access(&c, at, 0, true);
    fails(&c, "stores by a check for loads");
    put_source_access(&c, at + 1, 0, false);
    fails(&c, "accesses memory without a check");
    put_source_access(&c, at, 0, false);
    c.source_len = 0;
    fails(&c, "accesses memory without a check");
}

/* A constant that may be patched proves nothing by its value. */
static void constants_that_may_change_prove_nothing(void **state)
{
    struct code c;

    (void)state;
    for (int varies = 0; varies < 2; varies++) { /* and r9d, 0x7fff; jmp [view + r9*8 + jump table] */
        start(&c);
        e_mov_r32_r32(&c.hot, H_R9, H_RAX);
        e_op_rr(&c.hot, 0, 0x81, 4, H_R9);
        put32(&c.hot, 0x7fff);
        if (varies)
            c.constant = (struct verify_const){ .ofs = (uint32_t)(c.hot.p - 4 - c.hot.start), .len = 4 };
        e_jmp_m64(&c.hot, hmem_index(H_R14, H_R9, 3, (int32_t)VIEW_JT_OFS));
        if (varies)
            fails(&c, "reads a view's table in no known way");
        else
            passes(&c);
    }
    for (int varies = 0; varies < 2; varies++) { /* a slow access whose size would be patched */
        start(&c);
        e_mov_r32_r32(&c.hot, H_R8, H_RAX);
        e_mov_r32_imm32(&c.hot, H_R9, 4);
        if (varies)
            c.constant = (struct verify_const){ .ofs = (uint32_t)(c.hot.p - 4 - c.hot.start), .len = 4 };
        e_call_m64(&c.hot, VCPU(stub_mem_slow));
        finish(&c, NULL);
        if (varies)
            fails(&c, "asks for a slow access of unknown size");
        else
            passes(&c);
    }
}

/* A displacement that may be patched makes the result of LEA any number, and is nothing else's but a window's. */
static void displacements_that_may_change_prove_nothing(void **state)
{
    struct code c;

    (void)state;
    for (int varies = 0; varies < 2; varies++) {
        start(&c);
        e_mov_r32_r32(&c.hot, H_R8, H_RAX);
        e_lea_r32(&c.hot, H_R9, (struct hmem){ .base = H_NONE, .index = H_NONE, .disp = 4, .wide = true });
        if (varies)
            c.constant = (struct verify_const){ .ofs = (uint32_t)(c.hot.p - 4 - c.hot.start), .len = 4 };
        e_call_m64(&c.hot, VCPU(stub_mem_slow));
        finish(&c, NULL);
        if (varies)
            fails(&c, "asks for a slow access of unknown size");
        else
            passes(&c);
    }
    for (int varies = 0; varies < 2; varies++) { /* a field of the vCPU that would be another */
        start(&c);
        struct hmem field = VCPU(eip);
        field.wide = true;
        e_mov_r32_m32(&c.hot, H_RAX, field);
        if (varies)
            c.constant = (struct verify_const){ .ofs = (uint32_t)(c.hot.p - 4 - c.hot.start), .len = 4 };
        finish(&c, NULL);
        if (varies)
            fails(&c, "a constant to be patched is no immediate");
        else
            passes(&c);
    }
}

static void constants_are_immediates(void **state)
{
    static const struct {
        uint32_t ofs, len;
        bool good;
    } cases[] = { { 1, 4, true }, { 0, 4, false }, { 1, 2, false }, { 2, 4, false }, { 6, 4, false }, { 90, 4, false } };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct code c;

        start(&c);
        e_mov_r32_imm32(&c.hot, H_RAX, 5);          /* 0: B8, constant at 1 */
        e_jmp32_to(&c.hot, c.hot.start);            /* 5: E9, displacement at 6 */
        c.constant = (struct verify_const){ cases[i].ofs, cases[i].len, false };
        if (cases[i].good)
            passes(&c);
        else
            fails(&c, cases[i].ofs == 90 ? "a constant lies outside" : "a constant to be patched is no immediate");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookup_makes_an_access_safe),
        cmocka_unit_test(lookup_without_bmi2_is_recognised),
        cmocka_unit_test(address_may_become_a_pointer),
        cmocka_unit_test(pointer_may_wait_in_a_spill_slot),
        cmocka_unit_test(unchecked_accesses_are_refused),
        cmocka_unit_test(accesses_must_match_their_check),
        cmocka_unit_test(slow_stub_gives_an_addend),
        cmocka_unit_test(forbidden_instructions_are_refused),
        cmocka_unit_test(harmless_instructions_pass),
        cmocka_unit_test(transfers_go_by_table_stub_or_return_stack),
        cmocka_unit_test(direct_branches_land_on_instructions),
        cmocka_unit_test(other_entries_know_nothing),
        cmocka_unit_test(islands_between_two_checks_keep_what_is_known),
        cmocka_unit_test(bit_strings_need_a_bounded_offset),
        cmocka_unit_test(window_operands_need_the_window_form),
        cmocka_unit_test(linear_windows_need_short_addresses),
        cmocka_unit_test(source_may_be_read_and_nothing_around_it),
        cmocka_unit_test(constants_that_may_change_prove_nothing),
        cmocka_unit_test(displacements_that_may_change_prove_nothing),
        cmocka_unit_test(constants_are_immediates),
    };
    return cmocka_run_group_tests_name("bt verify", tests, NULL, NULL);
}
