/*
 * Fuzzer of the whole engine: the input is guest code, and it runs, translated, on the hosted
 * platform with its signals, windows and timers, for a few thousand instructions or a few
 * milliseconds. World.h's tables are around it, so that whatever it raises or calls leads to
 * more of the input.
 *
 * Required: no assertion (the verifier is on), no fault of the host in translated code but those
 * that stand for the guest's own, an end in time, and shadow tables and cache in order.
 *
 *   byte 0  engine options   byte 1  mode it starts in   byte 2  where the code begins   rest  code
 *
 * The coherency policy, and whether code is copied and moved, follow from the input's length, so that the corpus keeps
 * its form.
 */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "bt/bt_internal.h"
#include "platform/hosted/hosted.h"
#include "tcache/tcache.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/world.h"

#define RAM_BYTES     0x40000u
#define CODE_BYTES    0x2000u
#define INSNS_MAX     1000u
#define RUN_NS        1000000u
#define PATIENCE_NS   1000000000ull /* of processor time: the sanitizers slow much down */

static struct world world;
static unsigned options_now = ~0u;
static uint64_t end_ns;

/* The sanitizers leave the signals to the hosted platform. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:detect_leaks=0";
}

static uint64_t host_now(void *ctx)
{
    (void)ctx;
    return platform_clock_ns();
}

static uint64_t cpu_time_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool enough(void *ctx, struct vcpu *cpu, uint64_t insns)
{
    (void)ctx, (void)cpu, (void)insns;
    return false;
}

static struct vm *make_vm(unsigned how)
{
    static const enum bt_mem_form forms[] = { MEM_CHECKED, MEM_WINDOW, MEM_ADAPTIVE, MEM_CHECKED };
    bool by_insns = how & 0x20;
    struct vm_config config = {
        .ram = world.ram,
        .ram_bytes = RAM_BYTES,
        .model = &cpu_models[how >> 6 & 1 ? cpu_model_count - 1 : 0],
        .bt = { .tc_bytes = how & 1 ? TCACHE_MIN_BYTES : 1u << 20,
                .chain = !(how & 2),
                .mem = forms[how >> 3 & 3],
                .max_insns = how & 4 ? 1 : 64,
                .verify = true,
                .reuse = true,
                .coherency = COHERENCY_ADAPTIVE, /* has what all policies need: set_policy */
                .icount = by_insns,
                .callouts_only = (how & 0x81) == 0x81 },
        .machine = { .ram_bytes = RAM_BYTES, .clock = { .now_ns = host_now } },
        .no_reboot = true,
        .clock_insn = by_insns,
        .checkpoint = enough,
        .checkpoint_first = INSNS_MAX,
        .checkpoint_every = INSNS_MAX,
    };

    hosted_features(&config.host, how & 0x80);
    return vm_new(&config);
}

/* While the cache is empty. Making another VM for it would cost far more. */
static void set_policy(struct bt *bt, unsigned which)
{
    static const enum bt_coherency policies[] = { COHERENCY_ADAPTIVE, COHERENCY_TRACE, COHERENCY_CHECK, COHERENCY_PATCH,
                                                  COHERENCY_RETRANSLATE };

    bt->opt.coherency = policies[which % ARRAY_LEN(policies)];
    bt->opt.reuse = which / ARRAY_LEN(policies) % 4 != 3;
}

static void prepare(unsigned how)
{
    if (!world.ram) {
        struct sigaction on_abort; /* libFuzzer's, which keeps the input */
        sigaction(SIGABRT, NULL, &on_abort);
        REQUIRE(hosted_init() == 0, "%s", hosted_error());
        sigaction(SIGABRT, &on_abort, NULL);
        world.ram = hosted_ram_new(RAM_BYTES);
        world.ram_bytes = RAM_BYTES;
        REQUIRE(world.ram);
    }
    if (how == options_now && !(how & 0x20)) { /* by instructions: a clock that starts at zero */
        bt_flush(world.cpu);
        return;
    }
    if (world.vm) {
        hosted_attach(NULL, 0);
        vm_free(world.vm);
    }
    world.vm = make_vm(how);
    REQUIRE(world.vm, "%s", hosted_error());
    world.cpu = world.vm->cpu;
    hosted_attach(world.cpu, bt_signal_stub(world.cpu->bt));
    options_now = how;
}

static void enter(unsigned how)
{
    struct vcpu *cpu = world.cpu;

    switch (how & 7) {
    case 0:
    case 1:
        world_ring(&world, 0);
        break;
    case 2:
        world_ring(&world, 1);
        break;
    case 3:
    case 4:
        world_ring(&world, 3);
        break;
    case 5:
        world_vm86(&world);
        break;
    case 6:
        world_real(&world);
        break;
    default: /* 16-bit code and stack at ring 0 */
        world_ring(&world, 0);
        cpu->segs[SEG_CS].attr &= (uint16_t)~DESC_DB;
        cpu->segs[SEG_SS].attr &= (uint16_t)~DESC_DB;
        break;
    }
    if (how & 8)
        world_paging(&world, true);
    vcpu_eflags_set(cpu, EFL_ONE | (cpu->eflags_sys & EFL_VM) | (how & 16 ? EFL_IF : 0) | (how & 32 ? EFL_TF : 0) |
                             (how & 64 ? EFL_IOPL : 0));
    cpu->cr4 |= how & 128 ? CR4_PGE | CR4_PSE | CR4_VME : 0;
    vcpu_update_mode(cpu);
    mmu_flush_all(cpu);
    mmu_select_view(cpu);
    bt_cut_returns(cpu);
}

static void on_time(void *ctx)
{
    (void)ctx;
    machine_request_stop(world.vm->machine, STOP_HOST, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, data + size };
    struct vm_exit exit = { .why = STOP_NONE };
    static struct vm_timer timer;

    if (size < 4)
        return 0;
    prepare(take8(&in));
    set_policy(world.cpu->bt, (unsigned)size);
    world_begin(&world);
    unsigned mode = take8(&in), start = take8(&in);
    for (uint32_t i = 0; i < 8; i++)
        world.cpu->gpr[i] = i == ESP ? 0xa000 : 0x9000 + 0x100 * i;
    enter(mode);
    uint32_t left = min_u32((uint32_t)(in.end - in.p), CODE_BYTES);
    memcpy(world.ram + WORLD_CODE + start, in.p, left);
    world.cpu->eip = WORLD_CODE + start - world.cpu->segs[SEG_CS].base;

    vm_timer_init(&timer, on_time, NULL);
    end_ns = machine_now_ns(world.vm->machine) + (options_now & 0x20 ? 1000000000u : RUN_NS);
    machine_timer_set(world.vm->machine, &timer, end_ns);
    uint64_t from = cpu_time_ns();
    vm_run(world.vm, &exit);
    vcpu_fpu_park(world.cpu);
    machine_timer_cancel(world.vm->machine, &timer);

    uint64_t took = cpu_time_ns() - from;
    REQUIRE(took < PATIENCE_NS, "%llu ms for one input", (unsigned long long)took / 1000000);
    REQUIRE(!exit.unsupported || !strstr(exit.text, "host fault"), "%s", exit.text);
    REQUIRE(size % 16 || mmu_audit(world.cpu->mmu) == 0);
    REQUIRE(size % 16 || tcache_audit(world.cpu->tc) == 0);
    return 0;
}
