/* Listings: formatting of one instruction, names of host operands, side by side. */
#include "decode_support.h"

#include "decoder/listing.h"

struct lines {
    unsigned count;
    char text[16][2 * LISTING_TEXT_BYTES];
};

static void keep_line(void *ctx, const char *text)
{
    struct lines *lines = ctx;
    if (lines->count < ARRAY_LEN(lines->text))
        snprintf(lines->text[lines->count++], sizeof(lines->text[0]), "%s", text);
}

static const char *names_of(void *ctx, uint64_t address)
{
    (void)ctx;
    return address == 0x1122334455667788u ? "callout_cli" : NULL;
}

static void host_operands_have_names(void **state)
{
    struct listing *l = listing_new();
    struct listing_names names = { .address = names_of };
    char text[LISTING_TEXT_BYTES];

    (void)state;
    assert_non_null(l);
    assert_int_equal(listing_insn(l, LISTING_HOST64, BYTES(0x41, 0xff, 0x57, 0x68), 0, NULL, text), 4);
    assert_string_equal(text, "call qword ptr [vcpu.stub_mem_slow]");
    listing_insn(l, LISTING_HOST64, BYTES(0x41, 0x8b, 0x47, 0x10), 0, NULL, text);
    assert_string_equal(text, "mov eax, dword ptr [vcpu.gpr+16]");
    listing_insn(l, LISTING_HOST64, BYTES(0x48, 0xb9, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11), 0,
                 &names, text);
    assert_string_equal(text, "movabs rcx, callout_cli");
    listing_free(l);
}

static void guest_code_is_formatted_in_its_own_width(void **state)
{
    struct listing *l = listing_new();
    char text[LISTING_TEXT_BYTES];

    (void)state;
    assert_int_equal(listing_insn(l, LISTING_GUEST32, BYTES(0x0f, 0x22, 0xc0), 0, NULL, text), 3);
    assert_string_equal(text, "mov cr0, eax");
    assert_int_equal(listing_insn(l, LISTING_GUEST16, BYTES(0xb8, 0x34, 0x12), 0, NULL, text), 3);
    assert_string_equal(text, "mov ax, 0x1234");
    assert_int_equal(listing_insn(l, LISTING_GUEST32, BYTES(0x0f, 0x04), 0, NULL, text), 1);
    assert_string_equal(text, ".byte 0x0f");
    assert_int_equal(listing_insn(l, LISTING_GUEST32, NULL, 0, 0, NULL, text), 0);
    listing_free(l);
}

static void guest_stands_beside_its_host_code(void **state)
{
    static const uint8_t guest[] = { 0x40, 0x50 };                        /* inc eax; push eax */
    static const uint8_t host[] = { 0xff, 0xc0, 0x90, 0x90, 0xeb, 0xfe }; /* jumps to itself */
    static const struct listing_pair pairs[] = { { 0, 0 }, { 1, 2 }, { 2, 4 } };
    struct listing_block block = {
        .guest = guest,
        .guest_len = sizeof(guest),
        .guest_eip = 0x1000,
        .code32 = true,
        .host = host,
        .host_len = sizeof(host),
        .host_address = 0x7f0000000000,
        .pairs = pairs,
        .npairs = ARRAY_LEN(pairs),
    };
    struct listing *l = listing_new();
    struct lines lines = { 0 };

    (void)state;
    listing_print_block(l, &block, keep_line, &lines);
    assert_int_equal(lines.count, 4);
    assert_non_null(strstr(lines.text[0], "0x00001000  inc eax"));
    assert_non_null(strstr(lines.text[0], "| +0x000  inc eax"));
    assert_non_null(strstr(lines.text[1], "0x00001001  push eax"));
    assert_non_null(strstr(lines.text[1], "| +0x002  nop"));
    assert_null(strstr(lines.text[2], "0x"
                                      "00001"));
    assert_non_null(strstr(lines.text[3], "| +0x004  jmp +0x004"));
    listing_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_operands_have_names),
        cmocka_unit_test(guest_code_is_formatted_in_its_own_width),
        cmocka_unit_test(guest_stands_beside_its_host_code),
    };
    return cmocka_run_group_tests_name("decoder listing", tests, NULL, NULL);
}
