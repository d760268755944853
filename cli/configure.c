/*
 * From the command line to a VM's configuration. Freestanding: the command and the boot image of the ring-1
 * platform share it.
 */
#include "cli/configure.h"

#include "base/log.h"

void configure_vm(struct vm_config *c, const struct options *o)
{
    static const enum bt_mem_form forms[] = {
        [ACCEL_MEM_CHECKED] = MEM_CHECKED,
        [ACCEL_MEM_WINDOW] = MEM_WINDOW,
        [ACCEL_MEM_ADAPTIVE] = MEM_ADAPTIVE,
    };
    static const enum bt_coherency policies[] = {
        [ACCEL_COHERENCY_TRACE] = COHERENCY_TRACE,
        [ACCEL_COHERENCY_CHECK] = COHERENCY_CHECK,
        [ACCEL_COHERENCY_PATCH] = COHERENCY_PATCH,
        [ACCEL_COHERENCY_RETRANSLATE] = COHERENCY_RETRANSLATE,
        [ACCEL_COHERENCY_ADAPTIVE] = COHERENCY_ADAPTIVE,
    };

    *c = (struct vm_config){
        .ram_bytes = o->ram_bytes,
        .bt = {
            .tc_bytes = o->tc_bytes,
            .chain = o->chain,
            .mem = forms[o->mem],
            .max_insns = o->tu_insns,
            .verify = o->verify,
            .icount = o->clock_insn,
            .coherency = policies[o->coherency],
            .callouts_only = !o->inline_system,
            .reuse = o->reuse,
            .user_direct = o->user_direct,
        },
        .machine = {
            .ram_bytes = o->ram_bytes,
            .debug_exit_port = o->debug_exit_port,
            .debug_exit_size = o->debug_exit_size,
            .debugcon_port = o->debugcon_port,
        },
        .no_reboot = o->no_reboot,
        .clock_insn = o->clock_insn,
        .log_mask = o->log_mask,
    };
}

bool configure_model(struct cpu_model *model, const struct options *o, char error[CONFIGURE_ERROR_BYTES])
{
    const struct cpu_model *found = o->cpu ? cpu_model_find(o->cpu) : &cpu_models[0];
    static const char *const why[] = {
        [FEATURE_UNKNOWN] = "there is no such feature; -cpu help lists them",
        [FEATURE_LACKING] = "this feature is not supported",
        [FEATURE_NEEDS_OTHER] = "a feature that it needs is off",
    };

    if (!found) {
        fmt_format(error, CONFIGURE_ERROR_BYTES, "-cpu '%.80s' is not a known model: -cpu help lists them", o->cpu);
        return false;
    }
    *model = *found;
    for (unsigned i = 0; i < o->cpu_flag_count; i++) {
        const struct cpu_flag *flag = &o->cpu_flag[i];
        enum feature_rc rc = cpu_model_set_feature(model, flag->name, flag->on);
        if (rc != FEATURE_OK) {
            fmt_format(error, CONFIGURE_ERROR_BYTES, "-cpu %s: '%c%.80s': %s", found->name, flag->on ? '+' : '-', flag->name,
                       why[rc]);
            return false;
        }
    }
    return true;
}
