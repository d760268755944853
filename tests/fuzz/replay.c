/*
 * Runs a fuzzer's function over files, or over all files of directories: how the corpora are
 * tests of every build, with any compiler.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "tests/fuzz/input.h"

#define INPUT_MAX 65536u

static unsigned count;

static int run_file(const char *path)
{
    static uint8_t buf[INPUT_MAX];
    FILE *f = fopen(path, "rb");

    if (!f) {
        perror(path);
        return 1;
    }
    size_t n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    /* a block of its exact length, so that reading beyond it is seen */
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact)
        return 1;
    for (size_t i = 0; i < n; i++)
        exact[i] = buf[i];
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    count++;
    return 0;
}

static int run_directory(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    char file[4096];
    int rc = 0;

    if (!d) {
        perror(path);
        return 1;
    }
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        rc |= run_file(file);
    }
    closedir(d);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0;

    for (int i = 1; i < argc; i++) {
        struct stat st;
        rc |= stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode) ? run_directory(argv[i]) : run_file(argv[i]);
    }
    printf("%u inputs\n", count);
    return rc || !count;
}
