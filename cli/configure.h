/* From the command line to a VM's configuration, as far as no host has a part in it. */
#ifndef CLI_CONFIGURE_H
#define CLI_CONFIGURE_H

#include "cli/options.h"
#include "monitor/monitor.h"

#define CONFIGURE_ERROR_BYTES 256u

/** Sizes, translator, log and debug ports as the options say; everything else is zero. */
void configure_vm(struct vm_config *c, const struct options *o);

/** The processor model with its features added and taken away. false: one line in `error`. */
bool configure_model(struct cpu_model *model, const struct options *o, char error[CONFIGURE_ERROR_BYTES]);

#endif
