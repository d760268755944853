/* Direct execution of user code: direct.c. */
#ifndef MONITOR_DIRECT_H
#define MONITOR_DIRECT_H

#include "monitor/monitor.h"

/** What the dispatcher does next. */
enum direct_next {
    DIRECT_TRANSLATE, /* this code is not for the processor: translate as usual             */
    DIRECT_STEP,      /* the instruction at EIP is to run translated, by itself            */
    DIRECT_LOOK,      /* time is up: attend to what is due                                 */
    DIRECT_FAULT,     /* vcpu->fault is to be delivered                                    */
};

/** Let the processor run user code from cpu->eip. */
enum direct_next direct_run(struct vm *vm);

#endif
