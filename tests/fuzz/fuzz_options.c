/*
 * Fuzzer of the command line. The input is cut at zero bytes into arguments, each in a heap
 * block of its exact length; a first byte below 32 stands for an option of the list, which
 * spares the fuzzer finding the names. What is checked is what the header promises: a refusal
 * comes with one printable line, an acceptance with values in range.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"

#define ARGS_MAX 48

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[31] = {
    "-kernel", "-initrd", "-append", "-m", "-cpu", "-nographic", "-serial", "-no-reboot", "-d", "-D", "-accel",
    "-device", "-version", "-help", "-machine", "-display", "-rtc", "-monitor", "--kernel", "-smp", "-accel bt,",
    "bt,tc-size=", "bt,mem=checked,host=baseline", "bt,clock=insn,stats=", "isa-debug-exit,iobase=0xf4,iosize=",
    "file:", "unix:/s,server=on,wait=off", "mon:stdio", "base=2020-01-01T00:00:00", "in_asm,out_asm,exec,", "256M",
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

static char *make_arg(const uint8_t *bytes, size_t len)
{
    const char *word = "";

    if (len && bytes[0] >= 1 && bytes[0] <= 31) {
        word = words[bytes[0] - 1];
        bytes++;
        len--;
    }
    char *arg = malloc(strlen(word) + len + 1);
    require(arg != NULL);
    strcpy(arg, word);
    memcpy(arg + strlen(word), bytes, len);
    arg[strlen(word) + len] = 0;
    return arg;
}

static void check_refusal(const struct options *o)
{
    const char *end = memchr(o->error, 0, sizeof o->error);

    require(end != NULL && end != o->error);
    for (const char *p = o->error; p < end; p++)
        require((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void check_acceptance(const struct options *o)
{
    require(o->serial_count <= OPTIONS_SERIAL_MAX);
    require(o->text_used <= sizeof o->text);
    if (o->action == ACTION_RUN)
        require(o->ram_bytes >= OPTIONS_RAM_MIN && o->ram_bytes <= OPTIONS_RAM_MAX);
    for (unsigned i = 0; i < o->serial_count; i++)
        require(o->serial[i].kind != SERIAL_FILE || o->serial[i].path != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct options o;
    char *argv[ARGS_MAX + 1] = { NULL };
    int argc = 0;

    argv[argc++] = make_arg((const uint8_t *)"ringdown", 8);
    while (size && argc < ARGS_MAX) {
        const uint8_t *end = memchr(data, 0, size);
        size_t len = end ? (size_t)(end - data) : size;

        argv[argc++] = make_arg(data, len);
        data += len + (end ? 1 : 0);
        size -= len + (end ? 1 : 0);
    }
    if (options_parse(&o, argc, (const char *const *)argv))
        check_acceptance(&o);
    else
        check_refusal(&o);
    while (argc)
        free(argv[--argc]);
    return 0;
}
