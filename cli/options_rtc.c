/* -rtc base=2006-06-17T16:01:21: where the guest's clock starts. */
#include "cli/options_internal.h"

#include <string.h>

/* Days since 1970-01-01 in the Gregorian calendar; March starts the year, so that the leap
 * day comes last. */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = year / 400;
    unsigned yoe = (unsigned)(year - era * 400);
    unsigned doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

    return era * 146097 + (int64_t)doe - 719468;
}

static bool take_digits(const char **p, unsigned count, unsigned *out)
{
    *out = 0;
    for (unsigned i = 0; i < count; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        *out = *out * 10 + (unsigned)(**p - '0');
    }
    return true;
}

static bool take_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

static bool parse_date(const char *p, int64_t *epoch)
{
    unsigned year, month, day, hour = 0, minute = 0, second = 0;

    if (!take_digits(&p, 4, &year) || !take_char(&p, '-') || !take_digits(&p, 2, &month) ||
        !take_char(&p, '-') || !take_digits(&p, 2, &day))
        return false;
    if (*p && (!take_char(&p, 'T') || !take_digits(&p, 2, &hour) || !take_char(&p, ':') ||
               !take_digits(&p, 2, &minute) || !take_char(&p, ':') || !take_digits(&p, 2, &second)))
        return false;
    if (*p || year < 1970 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59)
        return false;
    *epoch = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    return true;
}

bool opt_rtc(struct options *o, const char *value)
{
    const char *list = value;
    struct options_item item;
    int rc;

    while ((rc = options_next_item(o, &list, &item)) > 0) {
        if (!options_need_value(o, "-rtc", &item))
            return false;
        if (!strcmp(item.name, "clock") && !strcmp(item.value, "host"))
            continue;
        if (strcmp(item.name, "base"))
            return options_fail(o,
                                "-rtc: '" SHOWN "=" SHOWN "' is not supported: use base=utc|localtime|DATE",
                                item.name, item.value);
        if (!strcmp(item.value, "utc"))
            o->rtc_base = RTC_UTC;
        else if (!strcmp(item.value, "localtime"))
            o->rtc_base = RTC_LOCALTIME;
        else if (parse_date(item.value, &o->rtc_epoch))
            o->rtc_base = RTC_FIXED;
        else
            return options_fail(
                o, "-rtc base='" SHOWN "': use utc, localtime or a date such as 2006-06-17T16:01:21",
                item.value);
    }
    return rc == 0;
}
