/* The machine's ACPI tables, and the fixed hardware they describe. */
#ifndef MONITOR_DEV_ACPI_TABLES_H
#define MONITOR_DEV_ACPI_TABLES_H

#include "monitor/dev/devices.h"

#define ACPI_SMI_PORT    0xb2
#define ACPI_SMI_ENABLE  0xa1
#define ACPI_SMI_DISABLE 0xa0
#define ACPI_SCI_LINE    9

/* Where the tables say the power management block is, and what lies where in it. */
#define ACPI_PORTS       0x600
#define ACPI_OFS_EVENT   0x00
#define ACPI_OFS_CONTROL 0x04
#define ACPI_OFS_TIMER   0x08

struct acpi_tables;
/** Enters the files for firmware, too. */
struct acpi_tables *acpi_tables_new(struct machine *m);
/** Put the tables where a guest without firmware looks for them. */
void acpi_tables_place(struct acpi_tables *t);

#endif
