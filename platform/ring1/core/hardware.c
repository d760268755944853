/*
 * The machine's own devices, as far as the core uses them: PICs, PIT, CMOS, serial ports, the ways to end.
 *
 * Everything is polled or edge-triggered ISA of 1984, which emulators and BIOS PCs alike have. Ring 0 only.
 *
 * The guest's serial port is COM1. The core's own words go to the debug console at port E9h where an emulator
 * has one, else to COM2, else to COM1 as well.
 *
 * Ref: Intel 8259A, 8254 datasheets; National PC16550D; Intel 82371AB (PIIX4) datasheet, "Power Management".
 */
#include "platform/ring1/core/core.h"

#include "base/cpu.h"
#include "platform/ring1/core/machine.h"

#define NS_PER_SECOND 1000000000ull

/* ---- serial ports ------------------------------------------------------------------------------ */
#define COM1 0x3f8u
#define COM2 0x2f8u
#define UART_DATA 0u
#define UART_IER  1u
#define UART_FCR  2u
#define UART_LCR  3u
#define UART_MCR  4u
#define UART_LSR  5u
#define UART_SCRATCH 7u
#define LSR_DATA  0x01u
#define LSR_EMPTY 0x20u
#define DEBUGCON  0xe9u
#define SPINS     1000000u /* a transmitter that stays full is not there */

static bool has_debugcon, has_com1, has_com2;

static bool uart_init(uint16_t port)
{
    out8(port + UART_SCRATCH, 0x5a);
    if (in8(port + UART_SCRATCH) != 0x5a)
        return false;
    out8(port + UART_IER, 0);
    out8(port + UART_LCR, 0x80); /* divisor latch */
    out8(port + UART_DATA, 1);   /* 115200 baud   */
    out8(port + UART_IER, 0);
    out8(port + UART_LCR, 0x03); /* 8n1           */
    out8(port + UART_FCR, 0x07); /* FIFOs on and empty */
    out8(port + UART_MCR, 0x0b); /* DTR, RTS, interrupts reach the PIC */
    return true;
}

static void uart_put(uint16_t port, uint8_t byte)
{
    for (unsigned i = 0; i < SPINS && !(in8(port + UART_LSR) & LSR_EMPTY); i++)
        ;
    out8(port, byte);
}

void serial_put(const uint8_t *data, size_t len)
{
    if (has_com1)
        for (size_t i = 0; i < len; i++)
            uart_put(COM1, data[i]);
}

void log_put(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (has_debugcon)
            out8(DEBUGCON, (uint8_t)text[i]);
        else if (has_com1 || has_com2)
            uart_put(has_com2 ? COM2 : COM1, (uint8_t)text[i]);
    }
}

/* What comes when the ring is full is lost, as on a real line. */
static void serial_irq(void)
{
    while (in8(COM1 + UART_LSR) & LSR_DATA) {
        uint8_t byte = in8(COM1 + UART_DATA);
        if (core_events.in_head - core_events.in_tail < SERIAL_IN_BYTES)
            core_events.in[core_events.in_head++ % SERIAL_IN_BYTES] = byte;
    }
}

/* ---- PICs ---------------------------------------------------------------------------------------- */
#define PIC1 0x20u
#define PIC2 0xa0u
#define PIC_EOI      0x20u
#define PIC_READ_ISR 0x0bu
#define IRQ_TIMER  0u
#define IRQ_COM1   4u
#define IRQS_TAKEN (1u << IRQ_TIMER | 1u << IRQ_COM1)

static void pic_init(void)
{
    out8(PIC1, 0x11); /* ICW1: edge, cascade, ICW4 follows */
    out8(PIC2, 0x11);
    out8(PIC1 + 1, VECTOR_PIC1);
    out8(PIC2 + 1, VECTOR_PIC2);
    out8(PIC1 + 1, 4); /* the second one is on line 2 */
    out8(PIC2 + 1, 2);
    out8(PIC1 + 1, 1); /* 8086 mode */
    out8(PIC2 + 1, 1);
    out8(PIC1 + 1, (uint8_t)~IRQS_TAKEN);
    out8(PIC2 + 1, 0xff);
}

static bool is_spurious(unsigned line)
{
    if (line != 7)
        return false;
    out8(PIC1, PIC_READ_ISR);
    return !(in8(PIC1) & 0x80u);
}

void irq(unsigned line, const struct trap_frame *f)
{
    struct vcpu *cpu = core_world.cpu;

    core_counters.interrupts++;
    if (line >= 8 || is_spurious(line))
        return;
    if (line == IRQ_COM1)
        serial_irq();
    else
        core_events.timer++;
    out8(PIC1, PIC_EOI);
    core_events.any = true;
    if (!cpu)
        return;
    if (line == IRQ_TIMER && (f->cs & 3) == 1 && memory_is_code(f->rip))
        cpu->sample_rip = f->rip;
    __atomic_store_n(&cpu->run, 0, __ATOMIC_RELAXED);
}

/* ---- PIT ------------------------------------------------------------------------------------------ */
#define PIT_HZ        1193182ull
#define PIT_CHANNEL0  0x40u
#define PIT_CHANNEL2  0x42u
#define PIT_MODE      0x43u
#define PIT_ONE_SHOT0 0x30u /* channel 0, both bytes, mode 0 */
#define PIT_ONE_SHOT2 0xb0u
#define SPEAKER       0x61u /* bit 0 gates channel 2, bit 5 is its output */
#define CALIBRATION_MS 8u
#define CALIBRATIONS   5u

uint64_t core_tsc_scale;

void timer_start(uint64_t ns)
{
    const uint64_t most = 0xffff * NS_PER_SECOND / PIT_HZ;
    uint64_t count = (ns < most ? ns : most) * PIT_HZ / NS_PER_SECOND;

    count = count > 0xffff ? 0xffff : count < 2 ? 2 : count;
    out8(PIT_MODE, PIT_ONE_SHOT0);
    out8(PIT_CHANNEL0, (uint8_t)count);
    out8(PIT_CHANNEL0, (uint8_t)(count >> 8));
}

/* Ticks of the TSC while channel 2 of the PIT counts down. */
static uint64_t count_ticks(void)
{
    unsigned count = (unsigned)(PIT_HZ * CALIBRATION_MS / 1000);

    out8(PIT_MODE, PIT_ONE_SHOT2);
    out8(PIT_CHANNEL2, (uint8_t)count);
    out8(PIT_CHANNEL2, (uint8_t)(count >> 8));
    uint64_t start = read_tsc();
    while (!(in8(SPEAKER) & 0x20u))
        ;
    return read_tsc() - start;
}

/* An emulator that is not run for a while sees the end late, so the fewest ticks are the best. */
static void calibrate(void)
{
    uint8_t speaker = in8(SPEAKER);
    uint64_t fewest = UINT64_MAX;

    out8(SPEAKER, (uint8_t)((speaker & ~0x02u) | 0x01u));
    for (unsigned i = 0; i < CALIBRATIONS; i++) {
        uint64_t ticks = count_ticks();
        if (ticks && ticks < fewest)
            fewest = ticks;
    }
    out8(SPEAKER, speaker);
    core_tsc_scale = ((CALIBRATION_MS * 1000000ull) << 32) / fewest;
}

/* ---- CMOS --------------------------------------------------------------------------------------------- */

uint8_t cmos_read(uint8_t reg)
{
    out8(0x70, reg & 0x7fu);
    return in8(0x71);
}

/* ---- the end -------------------------------------------------------------------------------------------- */
#define PCI_ADDRESS 0xcf8u
#define PCI_DATA    0xcfcu
#define PIIX4_PM_ID 0x71138086u
#define PIIX4_PMBASE 0x40u
#define PM1_CONTROL 4u
#define PM1_SLP_EN  0x2000u

uint16_t core_exit_port;

static uint32_t pci_read(unsigned device, unsigned function, unsigned reg)
{
    out32(PCI_ADDRESS, 0x80000000u | device << 11 | function << 8 | reg);
    return in32(PCI_DATA);
}

/* Soft off by the chipset that QEMU and Bochs have; its S5 has sleep type 0 in both. */
static void power_off(void)
{
    for (unsigned device = 0; device < 32; device++)
        for (unsigned function = 0; function < 8; function++)
            if (pci_read(device, function, 0) == PIIX4_PM_ID)
                out16((uint16_t)((pci_read(device, function, PIIX4_PMBASE) & 0xffc0u) + PM1_CONTROL),
                      PM1_SLP_EN);
}

/* isa-debug-exit makes 2n + 1 of n, so an even status other than 0 can't be shown. */
_Noreturn void machine_exit(int status)
{
    if (status && core_exit_port)
        out8(core_exit_port, (uint8_t)(status >> 1));
    power_off();
    for (;;)
        __asm__ volatile("cli; hlt");
}

void hardware_init(void)
{
    has_debugcon = in8(DEBUGCON) == DEBUGCON;
    has_com1 = uart_init(COM1);
    has_com2 = uart_init(COM2);
    timer_start(0); /* the firmware's periodic tick ends */
    pic_init();
    calibrate();
    if (has_com1)
        out8(COM1 + UART_IER, 1); /* received data */
}
