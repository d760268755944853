/*
 * MC146818A real-time clock with 128 bytes of CMOS RAM, at ports 70h and 71h.
 *
 * The time of day is one number: the seconds since 1970 at VM time `base_ns`. The ten
 * clock registers are made from it when read; writing one turns all of them into a
 * number again. While the guest holds the clock (SET, or the divider in reset) the
 * registers rest in the RAM and nothing moves. Interrupt flags are derived as well:
 * flags_update() asks what has happened since it last looked. A vm_timer runs only
 * for sources that are enabled and only until the guest reads register C.
 *
 * Invariant: IRQ 8 is high exactly when (C & B & 70h) is not 0 (then IRQF is set).
 *
 * Ref: Motorola MC146818A data sheet; IBM PC/AT Technical Reference, "Real-Time Clock
 * and CMOS RAM Information" (memory size, equipment, checksum).
 */
#include "base/string.h"
#include "monitor/dev/devices.h"

#define PORT_INDEX 0x70
#define PORT_DATA  0x71
#define RTC_IRQ    8

/* clang-format off */
enum rtc_reg {
    REG_SEC, REG_SEC_ALARM, REG_MIN, REG_MIN_ALARM, REG_HOUR, REG_HOUR_ALARM, REG_WEEKDAY, REG_DAY,
    REG_MONTH, REG_YEAR, REG_A, REG_B, REG_C, REG_D,
    REG_EQUIPMENT = 0x14, REG_BASE_LOW = 0x15, REG_EXT_LOW = 0x17, REG_SUM_HIGH = 0x2e, REG_SUM_LOW = 0x2f,
    REG_EXT2_LOW = 0x30, REG_CENTURY = 0x32, REG_HIGH_LOW = 0x34, REG_BOOT3 = 0x38, REG_BOOT12 = 0x3d,
};
/* clang-format on */

/* register A */
#define A_UIP       0x80
#define A_DIVIDER   0x70
#define A_DIV_RESET 0x60 /* 11x holds the divider chain */
#define A_RATE      0x0f
#define A_POWER_ON  0x26 /* 32,768 Hz, 1,024 Hz rate    */
/* register B */
#define B_SET    0x80
#define B_PIE    0x40
#define B_AIE    0x20
#define B_UIE    0x10
#define B_BINARY 0x04
#define B_24H    0x02
/* register C; PF, AF and UF stand where their enables stand in B */
#define C_IRQF    0x80
#define C_FLAGS   0x70
#define D_VALID   0x80
#define HOUR_PM   0x80
#define ALARM_ANY 0xc0 /* alarm bytes C0..FF match everything */

#define EQUIPMENT_FPU_MOUSE 0x06
#define BOOT_FLOPPY         1 /* where firmware looks for a system: QEMU's convention, which SeaBIOS reads */
#define BOOT_DISK           2
#define BOOT_CDROM          3
#define RTC_HZ              32768u
#define UIP_NS              2228000u /* 244 us of warning and 1,984 us of update before the second turns */
#define SECS_PER_DAY        86400

struct rtc_state {
    int64_t base_secs; /* seconds since 1970 at base_ns                       */
    uint64_t base_ns;
    uint64_t flags_ns; /* VM time up to which register C is known             */
    uint8_t ram[128];  /* clock registers are valid here only while held      */
    uint8_t index, nmi_masked;
};

struct rtc {
    struct machine *m;
    struct vm_timer timer;
    struct rtc_state s;
};

struct calendar {
    int64_t year;
    uint32_t month, day, weekday, hour, min, sec; /* month, day, weekday from 1; Sunday is 1 */
};

/* ---- calendar: days since 1970 and back, in years that begin in March --------------------- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static struct calendar calendar_from_secs(int64_t secs)
{
    int64_t days = floor_div(secs, SECS_PER_DAY);
    uint32_t in_day = (uint32_t)(secs - days * SECS_PER_DAY);
    int64_t z = days + 719468; /* from 1 March of year 0 */
    int64_t era = floor_div(z, 146097);
    uint32_t doe = (uint32_t)(z - era * 146097);
    uint32_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    uint32_t mp = (5 * doy + 2) / 153;
    struct calendar c = {
        .day = doy - (153 * mp + 2) / 5 + 1,
        .month = mp < 10 ? mp + 3 : mp - 9,
        .weekday = (uint32_t)(days + 4 - floor_div(days + 4, 7) * 7) + 1,
        .hour = in_day / 3600,
        .min = in_day / 60 % 60,
        .sec = in_day % 60,
    };
    c.year = (int64_t)yoe + era * 400 + (c.month <= 2);
    return c;
}

/** Any values give some number: a guest may write nonsense. */
static int64_t secs_from_calendar(const struct calendar *c)
{
    uint32_t month = c->month >= 1 && c->month <= 12 ? c->month : 1;
    int64_t year = c->year - (month <= 2);
    int64_t era = floor_div(year, 400);
    uint32_t yoe = (uint32_t)(year - era * 400);
    uint32_t doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5;
    int64_t days = era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy + (int64_t)c->day - 1 - 719468;

    return days * SECS_PER_DAY + (int64_t)c->hour * 3600 + (int64_t)c->min * 60 + c->sec;
}

/* ---- the registers' own number formats ------------------------------------------------------ */

static uint8_t encode(const struct rtc *r, uint32_t v)
{
    return (uint8_t)(r->s.ram[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static uint32_t decode(const struct rtc *r, uint8_t v)
{
    return r->s.ram[REG_B] & B_BINARY ? v : (uint32_t)(v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, uint32_t hour)
{
    if (r->s.ram[REG_B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static uint32_t decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->s.ram[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & (uint8_t)~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* ---- time ------------------------------------------------------------------------------------- */

static bool is_held(const struct rtc *r)
{
    return (r->s.ram[REG_B] & B_SET) || (r->s.ram[REG_A] & A_DIV_RESET) == A_DIV_RESET;
}

/** Nanoseconds since the beginning of second base_secs. */
static uint64_t since_base(const struct rtc *r, uint64_t now)
{
    return now > r->s.base_ns ? now - r->s.base_ns : 0;
}

static int64_t secs_at(const struct rtc *r, uint64_t now)
{
    return r->s.base_secs + (int64_t)(since_base(r, now) / NS_PER_SEC);
}

/** Make the clock registers from the time. */
static void registers_from_time(struct rtc *r, uint64_t now)
{
    struct calendar c = calendar_from_secs(secs_at(r, now));
    uint8_t *ram = r->s.ram;

    ram[REG_SEC] = encode(r, c.sec);
    ram[REG_MIN] = encode(r, c.min);
    ram[REG_HOUR] = encode_hour(r, c.hour);
    ram[REG_WEEKDAY] = encode(r, c.weekday);
    ram[REG_DAY] = encode(r, c.day);
    ram[REG_MONTH] = encode(r, c.month);
    ram[REG_YEAR] = encode(r, (uint32_t)(c.year % 100));
    /* not a clock register of the chip, but firmware's; always BCD */
    uint32_t century = (uint32_t)(c.year / 100);
    ram[REG_CENTURY] = (uint8_t)(century / 10 << 4 | century % 10);
}

/** Make the time from the clock registers; `phase_ns` of the present second have gone. */
static void time_from_registers(struct rtc *r, uint64_t now, uint64_t phase_ns)
{
    const uint8_t *ram = r->s.ram;
    uint32_t century = (uint32_t)(ram[REG_CENTURY] >> 4) * 10 + (ram[REG_CENTURY] & 15);
    struct calendar c = {
        .year = (int64_t)century * 100 + decode(r, ram[REG_YEAR]),
        .month = decode(r, ram[REG_MONTH]),
        .day = decode(r, ram[REG_DAY]),
        .hour = decode_hour(r, ram[REG_HOUR]),
        .min = decode(r, ram[REG_MIN]),
        .sec = decode(r, ram[REG_SEC]),
    };

    r->s.base_secs = secs_from_calendar(&c);
    r->s.base_ns = now;
    if (phase_ns <= now) {
        r->s.base_ns -= phase_ns;
    } else { /* the machine is younger than the phase: begin one second on */
        r->s.base_ns += NS_PER_SEC - phase_ns;
        r->s.base_secs++;
    }
}

/* ---- interrupts --------------------------------------------------------------------------------- */

/** Length of the periodic interrupt in ticks of 32,768 Hz, 0 for none. */
static uint32_t periodic_ticks(const struct rtc *r)
{
    uint32_t rate = r->s.ram[REG_A] & A_RATE;

    if (!rate || (r->s.ram[REG_A] & A_DIV_RESET) == A_DIV_RESET)
        return 0;
    return rate <= 2 ? 1u << (rate + 6) : 1u << (rate - 1);
}

static bool alarm_matches(const struct rtc *r, enum rtc_reg reg, uint32_t value)
{
    uint8_t alarm = r->s.ram[reg];

    if ((alarm & ALARM_ANY) == ALARM_ANY)
        return true;
    return (reg == REG_HOUR_ALARM ? decode_hour(r, alarm) : decode(r, alarm)) == value;
}

/** First second after `secs` that the alarm matches, INT64_MAX when none does within a day. */
static int64_t next_alarm(const struct rtc *r, int64_t secs)
{
    int64_t end = secs + SECS_PER_DAY + 1;

    for (int64_t t = secs + 1; t < end;) {
        uint32_t in_day = (uint32_t)(t - floor_div(t, SECS_PER_DAY) * SECS_PER_DAY);
        if (!alarm_matches(r, REG_HOUR_ALARM, in_day / 3600))
            t += 3600 - in_day % 3600;
        else if (!alarm_matches(r, REG_MIN_ALARM, in_day / 60 % 60))
            t += 60 - in_day % 60;
        else if (!alarm_matches(r, REG_SEC_ALARM, in_day % 60))
            t++;
        else
            return t;
    }
    return INT64_MAX;
}

/** VM time at which second `secs` begins. */
static uint64_t ns_of_secs(const struct rtc *r, int64_t secs)
{
    return r->s.base_ns + (uint64_t)(secs - r->s.base_secs) * NS_PER_SEC;
}

/** Bring register C up to `now`. */
static void flags_update(struct rtc *r, uint64_t now)
{
    uint32_t period = periodic_ticks(r);
    uint64_t then = r->s.flags_ns;
    uint8_t flags = 0;

    if (period && clock_ns_to_ticks(now, RTC_HZ) / period != clock_ns_to_ticks(then, RTC_HZ) / period)
        flags |= B_PIE;
    if (!is_held(r) && secs_at(r, now) != secs_at(r, then)) {
        flags |= B_UIE;
        if (next_alarm(r, secs_at(r, then)) <= secs_at(r, now))
            flags |= B_AIE;
    }
    r->s.flags_ns = now;
    r->s.ram[REG_C] |= flags;
}

static void update_irq(struct rtc *r)
{
    bool asks = r->s.ram[REG_C] & r->s.ram[REG_B] & C_FLAGS;

    r->s.ram[REG_C] = (uint8_t)((r->s.ram[REG_C] & C_FLAGS) | (asks ? C_IRQF : 0));
    machine_irq(r->m, RTC_IRQ, asks);
}

/** Wake at the next event the guest wants, unless it has one to collect. */
static void set_timer(struct rtc *r, uint64_t now)
{
    uint8_t enabled = r->s.ram[REG_B];
    uint32_t period = periodic_ticks(r);
    uint64_t next = UINT64_MAX, t;

    if ((enabled & B_PIE) && period) {
        t = clock_ticks_to_ns((clock_ns_to_ticks(now, RTC_HZ) / period + 1) * period, RTC_HZ);
        next = t < next ? t : next;
    }
    if ((enabled & B_UIE) && !is_held(r)) {
        t = ns_of_secs(r, secs_at(r, now) + 1);
        next = t < next ? t : next;
    }
    if ((enabled & B_AIE) && !is_held(r)) {
        int64_t alarm = next_alarm(r, secs_at(r, now));
        t = alarm == INT64_MAX ? UINT64_MAX : ns_of_secs(r, alarm);
        next = t < next ? t : next;
    }
    if (next == UINT64_MAX || (r->s.ram[REG_C] & C_IRQF))
        machine_timer_cancel(r->m, &r->timer);
    else
        machine_timer_set(r->m, &r->timer, next);
}

static void rtc_timer(void *ctx)
{
    struct rtc *r = ctx;
    uint64_t now = machine_now_ns(r->m);

    flags_update(r, now);
    update_irq(r);
    set_timer(r, now);
}

/* ---- registers ------------------------------------------------------------------------------------ */

static bool is_clock_reg(unsigned index)
{
    return index == REG_SEC || index == REG_MIN || index == REG_HOUR ||
           (index >= REG_WEEKDAY && index <= REG_YEAR) || index == REG_CENTURY;
}

static bool is_updating(const struct rtc *r, uint64_t now)
{
    return !is_held(r) && since_base(r, now) % NS_PER_SEC >= NS_PER_SEC - UIP_NS;
}

static uint8_t read_register(struct rtc *r, unsigned index)
{
    uint64_t now = machine_now_ns(r->m);
    uint8_t value;

    if (is_clock_reg(index) && !is_held(r))
        registers_from_time(r, now);
    switch (index) {
    case REG_A:
        return r->s.ram[REG_A] | (is_updating(r, now) ? A_UIP : 0);
    case REG_C:
        flags_update(r, now);
        update_irq(r);
        value = r->s.ram[REG_C];
        r->s.ram[REG_C] = 0;
        update_irq(r);
        set_timer(r, now);
        return value;
    case REG_D:
        return D_VALID;
    default:
        return r->s.ram[index];
    }
}

/** Write A or B: either may stop the clock or let it go. */
static void write_control(struct rtc *r, unsigned index, uint8_t value, uint64_t now)
{
    bool was_held = is_held(r);
    bool was_divider_reset = (r->s.ram[REG_A] & A_DIV_RESET) == A_DIV_RESET;
    uint64_t phase = since_base(r, now) % NS_PER_SEC;

    if (!was_held)
        registers_from_time(r, now);
    if (index == REG_A) {
        r->s.ram[REG_A] = value & (uint8_t)~A_UIP;
    } else {
        if (value & B_SET) /* SET clears UIE */
            value &= (uint8_t)~B_UIE;
        r->s.ram[REG_B] = value;
    }
    /* A change of format (BCD, 24 h) does not convert the registers: as on the chip, the guest
     * must write them anew. After a reset of the divider the first update comes 500 ms later. */
    if (!is_held(r) && was_held)
        time_from_registers(r, now, was_divider_reset ? NS_PER_SEC / 2 : phase);
}

static void write_register(struct rtc *r, unsigned index, uint8_t value)
{
    uint64_t now = machine_now_ns(r->m);

    flags_update(r, now);
    if (index == REG_A || index == REG_B) {
        write_control(r, index, value, now);
    } else if (is_clock_reg(index) && !is_held(r)) {
        registers_from_time(r, now);
        r->s.ram[index] = value;
        time_from_registers(r, now, since_base(r, now) % NS_PER_SEC);
    } else if (index != REG_C && index != REG_D) {
        r->s.ram[index] = value;
    }
    r->s.flags_ns = now; /* a change of time is not the passing of time */
    update_irq(r);
    set_timer(r, now);
}

static uint32_t rtc_read(void *dev, uint64_t addr, unsigned size)
{
    struct rtc *r = dev;

    (void)size;
    return addr == PORT_DATA ? read_register(r, r->s.index) : 0xff; /* the index can't be read */
}

static void rtc_write(void *dev, uint64_t addr, unsigned size, uint32_t value)
{
    struct rtc *r = dev;

    (void)size;
    if (addr == PORT_DATA) {
        write_register(r, r->s.index, (uint8_t)value);
        return;
    }
    r->s.index = value & 0x7f;
    r->s.nmi_masked = (uint8_t)(value >> 7);
}

/* ---- power-on ---------------------------------------------------------------------------------------- */

static void put16(uint8_t *ram, unsigned low, uint64_t value)
{
    uint32_t v = value < 0xffff ? (uint32_t)value : 0xffff;

    ram[low] = (uint8_t)v;
    ram[low + 1] = (uint8_t)(v >> 8);
}

/** What firmware would have found out about the board. */
static void fill_cmos(struct rtc *r)
{
    uint64_t ram_bytes = machine_config_of(r->m)->ram_bytes;
    uint64_t above_1m = ram_bytes > 0x100000 ? ram_bytes - 0x100000 : 0;
    uint64_t above_16m = ram_bytes > 0x1000000 ? ram_bytes - 0x1000000 : 0;
    uint8_t *ram = r->s.ram;
    uint32_t sum = 0;

    ram[REG_EQUIPMENT] = EQUIPMENT_FPU_MOUSE;
    put16(ram, REG_BASE_LOW, 640);
    put16(ram, REG_EXT_LOW, above_1m >> 10);
    put16(ram, REG_EXT2_LOW, above_1m >> 10);
    put16(ram, REG_HIGH_LOW, above_16m >> 16);
    ram[REG_BOOT12] = BOOT_FLOPPY << 4 | BOOT_DISK; /* the disk first */
    ram[REG_BOOT3] = BOOT_CDROM << 4;
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum += ram[i];
    ram[REG_SUM_HIGH] = (uint8_t)(sum >> 8);
    ram[REG_SUM_LOW] = (uint8_t)sum;
}

/** The battery keeps time and RAM: only the interrupt enables and flags fall. */
static void rtc_reset(void *dev)
{
    struct rtc *r = dev;
    uint64_t now = machine_now_ns(r->m);

    r->s.ram[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE);
    r->s.ram[REG_C] = 0;
    r->s.index = 0;
    r->s.nmi_masked = 0;
    r->s.flags_ns = now;
    fill_cmos(r);
    update_irq(r);
    set_timer(r, now);
}

static const struct io_ops rtc_ops = { .name = "mc146818", .read = rtc_read, .write = rtc_write };

struct rtc *rtc_new(struct machine *m)
{
    struct rtc *r = machine_alloc(m, sizeof *r);

    if (!r || machine_claim_ports(m, PORT_INDEX, 2, &rtc_ops, r) ||
        device_register(m, "mc146818", rtc_reset, r, &r->s, sizeof r->s))
        return NULL;
    r->m = m;
    vm_timer_init(&r->timer, rtc_timer, r);
    r->s.base_secs = machine_config_of(m)->rtc_epoch;
    r->s.base_ns = machine_now_ns(m);
    r->s.ram[REG_A] = A_POWER_ON;
    r->s.ram[REG_B] = B_24H;
    return r;
}
