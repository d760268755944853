/*
 * NS16550A serial port.
 *
 * Transmission takes no time: a byte goes to the character device at once, and the
 * transmitter is empty again when the guest looks, with the THRE interrupt that says
 * so. Reception is by demand: bytes wait on the host's side, and are fetched when the
 * host tells us (uart_input) and whenever the guest has emptied the receiver, so a
 * fast sender overruns nothing.
 *
 * Only the receiver time-out needs a clock: bytes below the FIFO's trigger level are
 * reported four character times after the last one came or was read.
 *
 * Invariants: the IRQ line is high exactly when an enabled cause is pending and OUT2
 * opens the gate (on a PC, OUT2 enables the driver of the line); it falls between two
 * fills of the receiver, so that each is an edge.
 *
 * Ref: National Semiconductor PC16550D data sheet, section 8 "Registers".
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define FIFO_BYTES 16

enum uart_reg { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RDA        0x01
#define IER_THRE       0x02
#define IER_RLS        0x04
#define IER_MSI        0x08
#define IER_MASK       0x0f
#define IIR_MSI        0x00
#define IIR_NONE       0x01
#define IIR_THRE       0x02
#define IIR_RDA        0x04
#define IIR_RLS        0x06
#define IIR_CTI        0x0c
#define IIR_FIFO       0xc0
#define FCR_ENABLE     0x01
#define FCR_RX_RESET   0x02
#define FCR_TRIGGER(v) ((v) >> 6)
#define LCR_DLAB       0x80
#define LCR_BREAK      0x40
#define MCR_DTR        0x01
#define MCR_RTS        0x02
#define MCR_OUT1       0x04
#define MCR_OUT2       0x08
#define MCR_LOOP       0x10
#define MCR_MASK       0x1f
#define LSR_DR         0x01
#define LSR_OE         0x02
#define LSR_BI         0x10
#define LSR_ERRORS     0x1e
#define LSR_THRE       0x20
#define LSR_TEMT       0x40
#define MSR_DCTS       0x01
#define MSR_DDSR       0x02
#define MSR_TERI       0x04
#define MSR_DDCD       0x08
#define MSR_CTS        0x10
#define MSR_DSR        0x20
#define MSR_RI         0x40
#define MSR_DCD        0x80
#define MSR_LINES      0xf0

#define UART_HZ        115200u /* 1.8432 MHz / 16                        */
#define CHAR_BITS      10u
#define TIMEOUT_CHARS  4u
#define TIMEOUT_MAX_NS 10000000u /* an unset divisor must not park input    */

struct uart_state {
    uint8_t fifo[FIFO_BYTES];
    uint8_t fifo_head, fifo_count;
    uint8_t ier, lcr, mcr, msr, scr, fcr;
    uint8_t lsr_errors; /* LSR_ERRORS bits, cleared by reading LSR */
    uint8_t thre_pending, timeout_pending;
    uint16_t divisor;
};

struct uart {
    struct machine *m;
    struct vm_timer timer;
    struct chardev chardev;
    uint16_t port;
    uint8_t irq, source;
    struct uart_state s;
};

/* ---- interrupts ------------------------------------------------------------------------- */

static unsigned trigger_level(const struct uart *u)
{
    static const uint8_t levels[4] = { 1, 4, 8, 14 };
    return u->s.fcr & FCR_ENABLE ? levels[FCR_TRIGGER(u->s.fcr)] : 1;
}

/** The pending enabled cause of highest priority, as IIR shows it. */
static uint8_t interrupt_cause(const struct uart *u)
{
    const struct uart_state *s = &u->s;

    if ((s->ier & IER_RLS) && s->lsr_errors)
        return IIR_RLS;
    if ((s->ier & IER_RDA) && s->fifo_count >= trigger_level(u))
        return IIR_RDA;
    if ((s->ier & IER_RDA) && s->timeout_pending)
        return IIR_CTI;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MSI) && (s->msr & ~MSR_LINES))
        return IIR_MSI;
    return IIR_NONE;
}

static void update_irq(struct uart *u)
{
    bool gate_open = (u->s.mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

    machine_irq_shared(u->m, u->irq, u->source, gate_open && interrupt_cause(u) != IIR_NONE);
}

/* ---- receiver ---------------------------------------------------------------------------- */

static unsigned fifo_capacity(const struct uart *u)
{
    return u->s.fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static void restart_timeout(struct uart *u)
{
    uint64_t ns = (uint64_t)u->s.divisor * TIMEOUT_CHARS * CHAR_BITS * NS_PER_SEC / UART_HZ;

    u->s.timeout_pending = 0;
    if (!u->s.fifo_count || !(u->s.fcr & FCR_ENABLE)) {
        machine_timer_cancel(u->m, &u->timer);
        return;
    }
    if (!ns || ns > TIMEOUT_MAX_NS)
        ns = TIMEOUT_MAX_NS;
    machine_timer_set(u->m, &u->timer, machine_now_ns(u->m) + ns);
}

static void uart_timeout(void *ctx)
{
    struct uart *u = ctx;

    u->s.timeout_pending = u->s.fifo_count != 0;
    update_irq(u);
}

static void push_byte(struct uart *u, uint8_t byte)
{
    u->s.fifo[(u->s.fifo_head + u->s.fifo_count) % FIFO_BYTES] = byte;
    u->s.fifo_count++;
}

/** Fetch what the host has, as far as the receiver has room. */
static void fill_receiver(struct uart *u)
{
    unsigned room = fifo_capacity(u) - u->s.fifo_count;
    uint8_t bytes[FIFO_BYTES];

    if (u->s.fifo_count >= fifo_capacity(u) || (u->s.mcr & MCR_LOOP) || !u->chardev.ops->read)
        return;
    size_t got = u->chardev.ops->read(u->chardev.ctx, bytes, room);
    if (!got)
        return;
    for (size_t i = 0; i < got && i < room; i++)
        push_byte(u, bytes[i]);
    restart_timeout(u);
    update_irq(u);
}

void uart_input(struct uart *u)
{
    fill_receiver(u);
}

static uint8_t read_data(struct uart *u)
{
    uint8_t byte = 0;

    if (u->s.fifo_count) {
        byte = u->s.fifo[u->s.fifo_head];
        u->s.fifo_head = (u->s.fifo_head + 1) % FIFO_BYTES;
        u->s.fifo_count--;
    }
    restart_timeout(u);
    update_irq(u); /* before the refill: the line falls, so that more input is an edge */
    if (!u->s.fifo_count)
        fill_receiver(u);
    return byte;
}

static void clear_receiver(struct uart *u)
{
    u->s.fifo_head = u->s.fifo_count = 0;
    restart_timeout(u);
}

/* ---- transmitter --------------------------------------------------------------------------- */

static void loop_back(struct uart *u, uint8_t byte)
{
    if (u->s.fifo_count < fifo_capacity(u)) {
        push_byte(u, byte);
    } else {
        u->s.lsr_errors |= LSR_OE;
        if (!(u->s.fcr & FCR_ENABLE)) /* without a FIFO the new byte replaces the old */
            u->s.fifo[u->s.fifo_head] = byte;
    }
    restart_timeout(u);
}

static void write_data(struct uart *u, uint8_t byte)
{
    u->s.thre_pending = 0;
    update_irq(u);
    if (u->s.mcr & MCR_LOOP)
        loop_back(u, byte);
    else if (u->chardev.ops->write)
        u->chardev.ops->write(u->chardev.ctx, &byte, 1);
    u->s.thre_pending = 1;
    update_irq(u);
}

/* ---- modem lines ----------------------------------------------------------------------------- */

static uint8_t modem_lines(const struct uart *u)
{
    uint8_t mcr = u->s.mcr;

    if (!(mcr & MCR_LOOP)) /* somebody is connected and ready */
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
                     (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void write_mcr(struct uart *u, uint8_t value)
{
    bool was_loop = u->s.mcr & MCR_LOOP;

    u->s.mcr = value & MCR_MASK;
    uint8_t lines = modem_lines(u), old = u->s.msr & MSR_LINES, changed = lines ^ old;
    uint8_t deltas = (uint8_t)((changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
                               (changed & old & MSR_RI ? MSR_TERI : 0) | (changed & MSR_DCD ? MSR_DDCD : 0));
    u->s.msr = (uint8_t)(lines | (u->s.msr & ~MSR_LINES) | deltas);
    update_irq(u);
    if (was_loop && !(value & MCR_LOOP))
        fill_receiver(u);
}

/* ---- registers --------------------------------------------------------------------------------- */

static uint8_t read_iir(struct uart *u)
{
    uint8_t cause = interrupt_cause(u);

    if (cause == IIR_THRE) {
        u->s.thre_pending = 0;
        update_irq(u);
    }
    return cause | (u->s.fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t value = (uint8_t)(u->s.lsr_errors | (u->s.fifo_count ? LSR_DR : 0) | LSR_THRE | LSR_TEMT);

    u->s.lsr_errors = 0;
    update_irq(u);
    return value;
}

static uint8_t read_msr(struct uart *u)
{
    uint8_t value = u->s.msr;

    u->s.msr &= MSR_LINES;
    update_irq(u);
    return value;
}

static uint32_t uart_read(void *dev, uint64_t addr, unsigned size)
{
    struct uart *u = dev;
    bool dlab = u->s.lcr & LCR_DLAB;

    (void)size;
    switch ((enum uart_reg)(addr - u->port)) {
    case REG_DATA:
        return dlab ? u->s.divisor & 0xff : read_data(u);
    case REG_IER:
        return dlab ? u->s.divisor >> 8 : u->s.ier;
    case REG_IIR_FCR:
        return read_iir(u);
    case REG_LCR:
        return u->s.lcr;
    case REG_MCR:
        return u->s.mcr;
    case REG_LSR:
        return read_lsr(u);
    case REG_MSR:
        return read_msr(u);
    case REG_SCR:
        return u->s.scr;
    }
    return 0xff;
}

static void write_ier(struct uart *u, uint8_t value)
{
    uint8_t risen = value & (uint8_t)~u->s.ier;

    u->s.ier = value & IER_MASK;
    if (risen & IER_THRE) /* the transmitter is empty: enabling the interrupt raises it */
        u->s.thre_pending = 1;
    update_irq(u);
}

static void write_fcr(struct uart *u, uint8_t value)
{
    bool toggles = (value ^ u->s.fcr) & FCR_ENABLE;

    u->s.fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | 0xc8) : 0;
    if (toggles || (value & FCR_ENABLE && value & FCR_RX_RESET))
        clear_receiver(u);
    update_irq(u);
    fill_receiver(u);
}

static void uart_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct uart *u = dev;
    bool dlab = u->s.lcr & LCR_DLAB;
    uint8_t byte = (uint8_t)value;

    (void)size;
    switch ((enum uart_reg)(addr - u->port)) {
    case REG_DATA:
        if (dlab)
            u->s.divisor = (u->s.divisor & 0xff00) | byte;
        else
            write_data(u, byte);
        break;
    case REG_IER:
        if (dlab)
            u->s.divisor = (uint16_t)((u->s.divisor & 0xff) | byte << 8);
        else
            write_ier(u, byte);
        break;
    case REG_IIR_FCR:
        write_fcr(u, byte);
        break;
    case REG_LCR:
        if ((byte & LCR_BREAK) && (u->s.mcr & MCR_LOOP)) {
            u->s.lsr_errors |= LSR_BI;
            loop_back(u, 0);
        }
        u->s.lcr = byte;
        update_irq(u);
        break;
    case REG_MCR:
        write_mcr(u, byte);
        break;
    case REG_LSR: /* factory test only */
    case REG_MSR:
        break;
    case REG_SCR:
        u->s.scr = byte;
        break;
    }
}

static void uart_reset(void *dev)
{
    struct uart *u = dev;

    memset(&u->s, 0, sizeof u->s);
    u->s.divisor = 12; /* 9,600 baud */
    u->s.thre_pending = 1;
    u->s.msr = modem_lines(u);
    machine_timer_cancel(u->m, &u->timer);
    update_irq(u);
}

static const struct io_ops uart_ops = { .name = "uart16550", .read = uart_read, .write = uart_write };

struct uart *uart_new(struct machine *m, uint16_t port, unsigned irq, unsigned source,
                      const struct chardev *chardev)
{
    struct uart *u = machine_alloc(m, sizeof *u);

    if (!u || machine_claim_ports(m, port, 8, &uart_ops, u) ||
        device_register(m, "uart16550", uart_reset, u, &u->s, sizeof u->s))
        return NULL;
    u->m = m;
    u->port = port;
    u->irq = (uint8_t)irq;
    u->source = (uint8_t)source;
    u->chardev = *chardev;
    vm_timer_init(&u->timer, uart_timeout, u);
    return u;
}
