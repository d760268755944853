/* CPU models: what CPUID shows of each, and that nothing is shown that does not work. */
#include "callout_fixture.h"
#include "monitor/system_internal.h"

#define EDX_APIC (1u << 9)
#define EDX_MTRR (1u << 12)
#define EDX_MCA  (1u << 14)
#define EDX_LM   (1u << 29)

struct leaf {
    uint32_t eax, ebx, ecx, edx;
};

static struct leaf cpuid(struct fixture *fx, const char *model, uint32_t eax)
{
    fx->vm.model = cpu_model_find(model);
    assert_non_null(fx->vm.model);
    fx->cpu->gpr[EAX] = eax;
    assert_int_equal(fx_call(fx, callout_cpuid, ARG(), 0), EXIT_RESUME);
    return (struct leaf){ fx->cpu->gpr[EAX], fx->cpu->gpr[EBX], fx->cpu->gpr[ECX], fx->cpu->gpr[EDX] };
}

static void assert_vendor(struct leaf l, const char *vendor)
{
    char text[13] = { 0 };

    memcpy(text, &l.ebx, 4);
    memcpy(text + 4, &l.edx, 4);
    memcpy(text + 8, &l.ecx, 4);
    assert_string_equal(text, vendor);
}

static void the_first_model_is_the_default_and_named_max(void **state)
{
    (void)state;
    assert_string_equal(cpu_models[0].name, "max");
    assert_ptr_equal(cpu_model_find("max"), &cpu_models[0]);
    assert_null(cpu_model_find("pentiu"));
    assert_null(cpu_model_find("pentium33"));
    assert_null(cpu_model_find(""));
}

/* What keeps page-table isolation off: the vendor and the family. */
static void the_default_is_an_amd_processor_of_family_15(void **state)
{
    struct fixture *fx = *state;

    assert_vendor(cpuid(fx, "max", 0), "AuthenticAMD");
    assert_vendor(cpuid(fx, "max", 0x80000000), "AuthenticAMD");
    assert_int_equal(cpuid(fx, "max", 1).eax >> 8 & 0xf, 15);
    assert_int_equal(cpuid(fx, "max", 1).eax >> 16, 0);
    assert_true(cpuid(fx, "max", 0x80000001).edx & CPUID_EXT_NX);
    assert_int_equal(cpuid(fx, "max", 0x80000008).eax, 0x2024);
}

static void no_model_shows_what_does_not_work(void **state)
{
    struct fixture *fx = *state;

    for (size_t i = 0; i < cpu_model_count; i++) {
        const char *name = cpu_models[i].name;

        assert_int_equal(cpuid(fx, name, 1).edx & (CPUID_MCE | EDX_APIC | EDX_MTRR | EDX_MCA), 0);
        assert_int_equal(cpuid(fx, name, 1).ecx, 0);
        assert_int_equal(cpu_models[i].ext_edx & EDX_LM, 0);
        /* NX needs the long entries of PAE. */
        if (cpu_models[i].ext_edx & CPUID_EXT_NX)
            assert_true(cpu_models[i].edx1 & 1u << 6);
    }
}

static void intel_models_say_so_and_grow_with_the_years(void **state)
{
    struct fixture *fx = *state;
    static const struct {
        const char *name;
        unsigned family;
    } rows[] = { { "486", 4 }, { "pentium", 5 }, { "pentium2", 6 }, { "pentium3", 6 }, { "pentium4", 15 } };
    uint32_t features = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_vendor(cpuid(fx, rows[i].name, 0), "GenuineIntel");
        struct leaf l = cpuid(fx, rows[i].name, 1);

        assert_int_equal(l.eax >> 8 & 0xf, rows[i].family);
        assert_int_equal(l.edx & features, features);
        features = l.edx;
    }
}

static void leaves_past_the_last_repeat_on_intel_and_are_zero_on_amd(void **state)
{
    struct fixture *fx = *state;
    struct leaf last = cpuid(fx, "pentium3", 2), past = cpuid(fx, "pentium3", 0x1234);

    assert_memory_equal(&last, &past, sizeof last);
    assert_int_equal(last.eax & 0xff, 1);     /* one call gives all descriptors */
    past = cpuid(fx, "pentium3", 0x80000000); /* no extended leaves: the last basic one again */
    assert_memory_equal(&last, &past, sizeof last);
    past = cpuid(fx, "max", 0x40000000);
    assert_int_equal(past.eax | past.ebx | past.ecx | past.edx, 0);
    past = cpuid(fx, "max", 0x80000009);
    assert_int_equal(past.eax | past.ebx | past.ecx | past.edx, 0);
}

static void the_brand_string_ends_within_its_48_bytes(void **state)
{
    struct fixture *fx = *state;
    char text[48];

    for (uint32_t i = 0; i < 3; i++) {
        struct leaf l = cpuid(fx, "max", 0x80000002 + i);

        memcpy(text + 16 * i, &l, 16);
    }
    assert_int_equal(text[47], 0);
    assert_string_equal(text, "Ringdown virtual processor");
}

static void features_for_the_translator_follow_cpuid(void **state)
{
    (void)state;
    uint32_t max = cpu_model_features(cpu_model_find("max"));
    uint32_t old = cpu_model_features(cpu_model_find("486"));

    assert_int_equal(max, (1u << FEAT_COUNT) - 1);
    assert_int_equal(old, 1u << FEAT_BASE | 1u << FEAT_FPU | 1u << FEAT_486 | 1u << FEAT_CPUID);
    assert_false(cpu_model_features(cpu_model_find("pentium3")) & 1u << FEAT_SSE2);
    assert_true(cpu_model_features(cpu_model_find("pentium2")) & 1u << FEAT_PENTIUM_PRO);
}

static void a_feature_goes_with_what_it_needs(void **state)
{
    struct cpu_model m = *cpu_model_find("pentium2");

    (void)state;
    assert_int_equal(cpu_model_set_feature(&m, "sse2", true), FEATURE_NEEDS_OTHER);
    assert_int_equal(cpu_model_set_feature(&m, "sse", true), FEATURE_OK);
    assert_int_equal(cpu_model_set_feature(&m, "sse2", true), FEATURE_OK);
    assert_int_equal(m.edx1 & (CPUID_SSE | CPUID_SSE2), CPUID_SSE | CPUID_SSE2);
    assert_true(cpu_model_features(&m) & 1u << FEAT_SSE2);
    assert_int_equal(cpu_model_set_feature(&m, "fxsr", false), FEATURE_OK);
    assert_int_equal(m.edx1 & (CPUID_FXSR | CPUID_SSE | CPUID_SSE2), 0);
    assert_int_equal(cpu_model_set_feature(&m, "nx", true), FEATURE_LACKING); /* it has no leaf 80000001 */
    assert_int_equal(cpu_model_set_feature(&m, "apic", true), FEATURE_LACKING);
    assert_int_equal(cpu_model_set_feature(&m, "apic", false), FEATURE_OK);
    assert_int_equal(cpu_model_set_feature(&m, "", true), FEATURE_UNKNOWN);
    m = *cpu_model_find("max");
    assert_int_equal(cpu_model_set_feature(&m, "pae", false), FEATURE_OK);
    assert_int_equal((m.edx1 | m.ext_edx) & (CPUID_PAE | CPUID_EXT_NX), 0); /* leaf 80000001 says so, too */
}

static void cr4_and_mxcsr_follow_the_features(void **state)
{
    struct cpu_model m = *cpu_model_find("pentium4");

    (void)state;
    assert_int_equal(cpu_model_mxcsr_mask(&m), 0xffff);
    assert_int_equal(cpu_model_mxcsr_mask(cpu_model_find("pentium3")), 0xffbf);
    assert_true(cpu_model_cr4_bits(&m) & CR4_PGE);
    cpu_model_set_feature(&m, "pge", false);
    assert_false(cpu_model_cr4_bits(&m) & CR4_PGE);
    assert_int_equal(cpu_model_cr4_bits(cpu_model_find("486")) & ~(CR4_VME | CR4_PVI), 0);
    assert_true(cpu_model_cr4_bits(cpu_model_find("pentium")) & CR4_PCE); /* the Pentium MMX has RDPMC */
    assert_true(cpu_model_features(cpu_model_find("pentium")) & 1u << FEAT_RDPMC);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_model_is_the_default_and_named_max),
        TEST(the_default_is_an_amd_processor_of_family_15),
        TEST(no_model_shows_what_does_not_work),
        TEST(intel_models_say_so_and_grow_with_the_years),
        TEST(leaves_past_the_last_repeat_on_intel_and_are_zero_on_amd),
        TEST(the_brand_string_ends_within_its_48_bytes),
        TEST(features_for_the_translator_follow_cpuid),
        TEST(a_feature_goes_with_what_it_needs),
        TEST(cr4_and_mxcsr_follow_the_features),
    };

    return cmocka_run_group_tests_name("cpu models", tests, NULL, NULL);
}
