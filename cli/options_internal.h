/* What the parts of the command line's parser share. */
#ifndef CLI_OPTIONS_INTERNAL_H
#define CLI_OPTIONS_INTERNAL_H

#include "cli/options.h"

/* Quote no more than this of an offending argument. */
#define SHOWN "%.80s"

/* ---- options_value.c ----------------------------------------------------------------- */

/** Put the line into o->error. @return false, for the caller to return. */
bool options_fail(struct options *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Digits in base 10, or 16 after 0x; the whole text must be a number up to `most`. */
bool options_number(const char *text, uint64_t most, uint64_t *out);

/** on, yes, true; off, no, false */
bool options_on_off(const char *text, bool *out);

/** Of a list name[=value],name[=value] */
struct options_item {
    char *name;
    char *value; /* NULL without '=' */
};

/**
 * Cut the next item off *list into o->text. A doubled comma stands for a comma.
 * @return 1 for an item, 0 at the end, -1 after an error.
 */
int options_next_item(struct options *o, const char **list, struct options_item *item);

/** The item has a value, or the error says that `option` needs one. */
bool options_need_value(struct options *o, const char *option, const struct options_item *item);

/* ---- one function for each option, with its argument ----------------------------------- */

typedef bool options_parse_fn(struct options *o, const char *value);

options_parse_fn opt_accel;                             /* options_accel.c  */
options_parse_fn opt_serial, opt_monitor, opt_debugcon; /* options_device.c */
options_parse_fn opt_device, opt_global;
options_parse_fn opt_rtc; /* options_rtc.c    */

#endif
