/*
 * The differentiated system description table of the PC. It says how to power off, and which
 * legacy devices stand at their usual places, so that an operating system need not probe for them.
 * SLP_TYP 5 is what monitor/dev/acpi.c takes for S5.
 *
 * Ref: ACPI specification 6.5, chapters 5 "ACPI Software Programming Model" and 7 "Power and
 * Performance Management" (\_S5).
 */
DefinitionBlock ("dsdt.aml", "DSDT", 1, "RINGDN", "RINGDOWN", 0x00000001)
{
    Name (\_S5, Package () { 5, 5, 0, 0 })

    Scope (\_SB)
    {
        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
                IRQNoFlags () { 8 }
            })
        }

        Device (KBD)
        {
            Name (_HID, EisaId ("PNP0303"))
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0060, 0x0060, 0x01, 0x01)
                IO (Decode16, 0x0064, 0x0064, 0x01, 0x01)
                IRQNoFlags () { 1 }
            })
        }

        Device (MOU)
        {
            Name (_HID, EisaId ("PNP0F13"))
            Name (_CRS, ResourceTemplate ()
            {
                IRQNoFlags () { 12 }
            })
        }
    }
}
