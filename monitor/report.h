/* Reports of a guest's state in plain text. */
#ifndef MONITOR_REPORT_H
#define MONITOR_REPORT_H

#include "monitor/monitor.h"

/** Why, registers, segments, code bytes: at most `size` characters with the terminator. */
void report_state(struct vcpu *cpu, const char *why, char *buf, size_t size);

#endif
