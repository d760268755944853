/*
 * Lines in, commands out. A line is cut into words at blanks; double quotes hold a word together.
 * One table has each command with what it takes, for `help` and for finding it. A command that is
 * wrong gets one line and changes nothing.
 *
 * `stop` sets a flag of the VM; the run loop then waits, with VM time stopped, where it stands: between
 * two instructions, or within HLT. So `cont` goes on as if nothing had been.
 */
#include "cli/hmp_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder/listing.h"

#define PROMPT    "(ringdown) "
#define BACKSPACE 0x08
#define DELETE    0x7f
#define CTRL_U    0x15

static void put(struct hmp *hmp, const char *text, size_t len)
{
    hmp->config.write(hmp->config.ctx, (const uint8_t *)text, len);
}

void hmp_print(struct hmp *hmp, const char *fmt, ...)
{
    char text[1536];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        put(hmp, p, len);
        p += len;
        if (*p) {
            put(hmp, "\r\n", 2);
            p++;
        }
    }
}

/* ---- commands ------------------------------------------------------------------------------ */

static void cmd_stop(struct hmp *hmp, const struct hmp_args *args)
{
    (void)args;
    hmp->vm->is_paused = true;
}

static void cmd_cont(struct hmp *hmp, const struct hmp_args *args)
{
    (void)args;
    hmp->vm->is_paused = false;
}

static void cmd_quit(struct hmp *hmp, const struct hmp_args *args)
{
    (void)args;
    machine_request_stop(hmp->vm->machine, STOP_HOST, 0);
}

static void cmd_system_reset(struct hmp *hmp, const struct hmp_args *args)
{
    (void)args;
    machine_request_stop(hmp->vm->machine, STOP_RESET, 0);
}

static void cmd_system_powerdown(struct hmp *hmp, const struct hmp_args *args)
{
    (void)args;
    machine_power_button(hmp->vm->machine);
}

static void cmd_help(struct hmp *hmp, const struct hmp_args *args);

/* clang-format off */
static const struct command {
    const char *name, *alias;  /* alias: NULL or another name */
    unsigned least, most;      /* words after the name        */
    const char *takes, *text;
    void (*run)(struct hmp *hmp, const struct hmp_args *args);
} commands[] = {
    { "help", "?", 0, 1, "[COMMAND]", "this list", cmd_help },
    { "info", NULL, 1, 1, "registers|status|screen|version", "show something", hmp_info },
    { "stop", "s", 0, 0, "", "halt the guest and its clock", cmd_stop },
    { "cont", "c", 0, 0, "", "let it go on", cmd_cont },
    { "quit", "q", 0, 0, "", "end the program", cmd_quit },
    { "system_reset", NULL, 0, 0, "", "reset the machine", cmd_system_reset },
    { "system_powerdown", NULL, 0, 0, "", "press the power button", cmd_system_powerdown },
    { "sendkey", NULL, 1, 2, "KEY[-KEY..] [MS]",
      "press keys together, for MS milliseconds (100): sendkey ctrl-alt-delete", hmp_sendkey },
    { "x", NULL, 1, 2, "[/FMT] ADDRESS",
      "memory at a virtual address; FMT: count, then x d u o c or i, then b h w or g", hmp_examine },
    { "xp", NULL, 1, 2, "[/FMT] ADDRESS", "memory at a physical address", hmp_examine },
    { "memsave", NULL, 3, 3, "ADDRESS SIZE FILE", "save memory from a virtual address on", hmp_save },
    { "pmemsave", NULL, 3, 3, "ADDRESS SIZE FILE", "save memory from a physical address on", hmp_save },
    { "screendump", NULL, 1, 1, "FILE", "save the text screen, as lines of text", hmp_screendump },
};
/* clang-format on */

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!strcmp(name, commands[i].name) || (commands[i].alias && !strcmp(name, commands[i].alias)))
            return &commands[i];
    return NULL;
}

static void describe(struct hmp *hmp, const struct command *c)
{
    hmp_print(hmp, "%s%s%s%s%s -- %s\n", c->name, c->alias ? "|" : "", c->alias ? c->alias : "",
              *c->takes ? " " : "", c->takes, c->text);
}

static void cmd_help(struct hmp *hmp, const struct hmp_args *args)
{
    const struct command *c = args->count > 1 ? find_command(args->word[1]) : NULL;

    if (c)
        describe(hmp, c);
    else if (args->count > 1)
        hmp_print(hmp, "unknown command: '%.80s'\n", args->word[1]);
    else
        for (size_t i = 0; i < ARRAY_LEN(commands); i++)
            describe(hmp, &commands[i]);
}

/* ---- numbers ------------------------------------------------------------------------------- */

static bool register_value(const struct vcpu *cpu, const char *name, size_t len, uint64_t *value)
{
    static const char gpr[8][4] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };

    for (unsigned i = 0; i < 8; i++) {
        if (len == 3 && !memcmp(name, gpr[i], 3)) {
            *value = cpu->gpr[i];
            return true;
        }
    }
    if ((len == 3 && !memcmp(name, "eip", 3)) || (len == 2 && !memcmp(name, "pc", 2)))
        *value = cpu->segs[SEG_CS].base + cpu->eip;
    else if (len == 6 && !memcmp(name, "eflags", 6))
        *value = vcpu_eflags_get(cpu);
    else if (len == 3 && !memcmp(name, "cr3", 3))
        *value = cpu->cr3;
    else if (len == 3 && !memcmp(name, "cr2", 3))
        *value = cpu->cr2;
    else
        return false;
    return true;
}

static bool term_value(const struct hmp *hmp, const char *text, size_t len, uint64_t *value)
{
    char digits[32], *end;

    if (len > 1 && text[0] == '$')
        return register_value(hmp->vm->cpu, text + 1, len - 1, value);
    if (!len || len >= sizeof digits || text[0] < '0' || text[0] > '9')
        return false;
    memcpy(digits, text, len);
    digits[len] = 0;
    *value = strtoull(digits, &end, 0);
    return !*end;
}

bool hmp_number(const struct hmp *hmp, const char *text, uint64_t *value)
{
    uint64_t sum = 0, term;
    bool negative = false;

    for (;;) {
        size_t len = strcspn(text, "+-");
        if (!term_value(hmp, text, len, &term))
            return false;
        sum = negative ? sum - term : sum + term;
        text += len;
        if (!*text)
            break;
        negative = *text++ == '-';
    }
    *value = sum;
    return true;
}

/* ---- lines --------------------------------------------------------------------------------- */

/* Cut in place. false: a quote does not end, or there are too many words. */
static bool split(char *line, struct hmp_args *args)
{
    args->count = 0;
    for (char *p = line;;) {
        p += strspn(p, " \t");
        if (!*p)
            return true;
        if (args->count == HMP_WORDS_MAX)
            return false;
        bool quoted = *p == '"';
        p += quoted;
        args->word[args->count++] = p;
        p += strcspn(p, quoted ? "\"" : " \t");
        if (!*p)
            return !quoted;
        *p++ = 0;
    }
}

/* `x/4xb` is `x /4xb`, as QEMU has it. */
static void part_format(char *line)
{
    size_t at = strcspn(line, " \t/");
    size_t len = strlen(line);

    if (at > 0 && line[at] == '/' && len + 2 <= HMP_LINE_BYTES) {
        memmove(line + at + 1, line + at, len - at + 1);
        line[at] = ' ';
    }
}

static void execute(struct hmp *hmp, char *line)
{
    struct hmp_args args;

    line += strspn(line, " \t");
    part_format(line);
    if (!split(line, &args)) {
        hmp_print(hmp, "unbalanced quotes, or too many words\n");
        return;
    }
    if (!args.count)
        return;
    const struct command *c = find_command(args.word[0]);
    if (!c)
        hmp_print(hmp, "unknown command: '%.80s'\n", args.word[0]);
    else if (args.count - 1 < c->least || args.count - 1 > c->most)
        hmp_print(hmp, "%s: it takes: %s %s\n", c->name, c->name, *c->takes ? c->takes : "(nothing)");
    else if (!hmp->vm)
        hmp_print(hmp, "%s: there is no machine now\n", c->name);
    else
        c->run(hmp, &args);
}

static void end_line(struct hmp *hmp)
{
    if (hmp->config.echo)
        put(hmp, "\r\n", 2);
    hmp->line[hmp->line_len] = 0;
    if (hmp->line_is_too_long)
        hmp_print(hmp, "the line is longer than %u bytes\n", HMP_LINE_BYTES / 2);
    else
        execute(hmp, hmp->line);
    hmp->line_len = 0;
    hmp->line_is_too_long = false;
    put(hmp, PROMPT, sizeof PROMPT - 1);
}

static void erase(struct hmp *hmp)
{
    if (!hmp->line_len)
        return;
    hmp->line_len--;
    if (hmp->config.echo)
        put(hmp, "\b \b", 3);
}

static void take(struct hmp *hmp, char c)
{
    if (hmp->line_len >= HMP_LINE_BYTES / 2) { /* part_format() needs room */
        hmp->line_is_too_long = true;
        return;
    }
    hmp->line[hmp->line_len++] = c;
    if (hmp->config.echo)
        put(hmp, &c, 1);
}

static void input_byte(struct hmp *hmp, char c)
{
    bool is_second = c == '\n' && hmp->last == '\r';

    hmp->last = c;
    if (is_second)
        return;
    if (c == '\r' || c == '\n')
        end_line(hmp);
    else if (c == BACKSPACE || c == DELETE)
        erase(hmp);
    else if (c == CTRL_U)
        while (hmp->line_len)
            erase(hmp);
    else if ((unsigned char)c >= 0x20 || c == '\t')
        take(hmp, c);
}

void hmp_input(struct hmp *hmp, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        input_byte(hmp, (char)data[i]);
}

void hmp_opened(struct hmp *hmp)
{
    hmp->line_len = 0;
    hmp->line_is_too_long = false;
    hmp_print(hmp, "Ringdown monitor: 'help' lists the commands\n" PROMPT);
}

/* ---- life ----------------------------------------------------------------------------------- */

struct hmp *hmp_new(const struct hmp_config *config)
{
    struct hmp *hmp = calloc(1, sizeof *hmp);

    if (hmp)
        hmp->config = *config;
    return hmp;
}

void hmp_free(struct hmp *hmp)
{
    if (!hmp)
        return;
    if (hmp->listing)
        listing_free(hmp->listing);
    free(hmp);
}

void hmp_attach(struct hmp *hmp, struct vm *vm)
{
    hmp->vm = vm;
    hmp_keys_attach(hmp);
}
