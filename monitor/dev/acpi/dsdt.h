/* The compiled DSDT: made from dsdt.asl by iasl and bin2c.cmake at build time. */
#ifndef MONITOR_DEV_ACPI_DSDT_H
#define MONITOR_DEV_ACPI_DSDT_H

#include <stdint.h>

extern const uint8_t acpi_dsdt[];
extern const uint32_t acpi_dsdt_bytes;

#endif
