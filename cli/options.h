/*
 * The command line as a struct. The parser is a pure function of argv: it opens no
 * file and prints nothing, so that it can be tested and fuzzed.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_SERIAL_MAX 4u
#define OPTIONS_CPU_FLAGS_MAX 32u
#define OPTIONS_ROMS_MAX   4u
#define OPTIONS_DIRS_MAX   8u
#define OPTIONS_RAM_MIN    (2ull << 20)
#define OPTIONS_RAM_MAX    (3072ull << 20)

enum options_action {
    ACTION_RUN,
    ACTION_HELP,
    ACTION_VERSION,
    ACTION_CPU_HELP,
    ACTION_LOG_HELP,
    ACTION_MACHINE_HELP,
    ACTION_ACCEL_HELP,
    ACTION_DEVICE_HELP,
    ACTION_DIRS_HELP,
};

enum serial_kind { SERIAL_NONE, SERIAL_NULL, SERIAL_STDIO, SERIAL_FILE, SERIAL_PTY, SERIAL_UNIX };

struct serial_option {
    enum serial_kind kind;
    bool mux;             /* stdio with the Ctrl-a escape        */
    bool is_server, wait; /* unix                                */
    const char *path;     /* file, unix                          */
};

enum rtc_base { RTC_UTC, RTC_LOCALTIME, RTC_FIXED };
enum accel_mem { ACCEL_MEM_CHECKED, ACCEL_MEM_WINDOW, ACCEL_MEM_ADAPTIVE };
enum accel_coherency { ACCEL_COHERENCY_TRACE, ACCEL_COHERENCY_CHECK, ACCEL_COHERENCY_PATCH,
                       ACCEL_COHERENCY_RETRANSLATE, ACCEL_COHERENCY_ADAPTIVE };

struct options {
    enum options_action action;
    const char *kernel, *initrd, *append; /* NULL: not given                     */
    const char *bios;                     /* firmware image; NULL: none          */
    const char *data_dir[OPTIONS_DIRS_MAX]; /* -L: where firmware is looked for  */
    unsigned data_dir_count;
    const char *option_rom[OPTIONS_ROMS_MAX];
    unsigned option_rom_count;
    bool no_vga; /* firmware gets no VGA ROM            */
    uint64_t ram_bytes;
    const char *cpu; /* model name; NULL: the default       */
    struct cpu_flag {
        const char *name;
        bool on;
    } cpu_flag[OPTIONS_CPU_FLAGS_MAX];
    unsigned cpu_flag_count;
    struct serial_option serial[OPTIONS_SERIAL_MAX];
    unsigned serial_count;
    struct serial_option monitor; /* SERIAL_NONE: none. SERIAL_STDIO with mux: shared with a serial port */
    bool monitor_given;
    struct serial_option debugcon; /* SERIAL_NONE: none                   */
    uint16_t debugcon_port;
    bool nographic, no_reboot, sandbox, start_paused;
    bool display_by_default; /* nothing said where the console goes */
    uint32_t log_mask;
    const char *log_file;
    enum rtc_base rtc_base;
    int64_t rtc_epoch; /* RTC_FIXED: seconds since 1970       */
    uint16_t debug_exit_port, debug_exit_size;
    /* -accel ring1,...: our boot image, in a machine that an emulator makes */
    bool ring1;
    const char *ring1_host;  /* qemu or qemu:MODEL; NULL: the default */
    const char *ring1_image; /* NULL: beside the program               */
    char ring1_accel[512];   /* "bt" and the translator's settings for it */
    /* -accel bt,... */
    uint64_t tc_bytes;
    bool chain, verify, baseline, clock_insn, reuse;
    enum accel_mem mem;
    enum accel_coherency coherency;
    const char *coherency_file; /* NULL: no log of events                                  */
    uint64_t coherency_max;     /* events in it at most                                    */
    unsigned tu_insns;
    bool user_direct;           /* user=direct: user code is not translated (ring1)        */
    bool inline_system;
    const char *stats_file;
    bool perf_map;
    const char *core_file; /* NULL: none                          */
    const char *hash_file; /* NULL: none; else needs clock_insn   */
    uint64_t hash_every, hash_from, hash_to;
    bool hash_regs, hash_mem;

    char error[512]; /* after failure: one line, no newline */
    /* Texts cut out of arguments (option values) live here. */
    size_t text_used;
    char text[8192];
};

/**
 * @param argv  argv[0] is the program; strings must outlive `out`.
 * @return true, or false with out->error naming the offender and what would do.
 */
bool options_parse(struct options *out, int argc, const char *const *argv);

/** "64M", "1G", "512k", "256" (MiB). Also fractions of none: digits and one suffix only. */
bool options_size(const char *text, uint64_t default_unit, uint64_t *bytes);

extern const char options_help[];

#endif
