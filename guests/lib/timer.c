/* Interrupts of the timer: channel 0 of the 8254 and IRQ 0 at the 8259A. */
#include "guest.h"

void pit_one_shot(uint16_t count)
{
    outb(0x21, 0xfe);
    outb(0x43, 0x30); /* mode 0: the output rises when the count has run out */
    outb(0x40, (uint8_t)count);
    outb(0x40, (uint8_t)(count >> 8));
}

void pit_pending(void)
{
    pit_one_shot(100);
    do
        outb(0x20, 0x0a); /* read IRR */
    while (!(inb(0x20) & 1));
}

void pit_stop(void)
{
    outb(0x21, 0xff);
    outb(0x43, 0x30); /* mode 0, no count: silent */
    outb(0x20, 0x20);
}
