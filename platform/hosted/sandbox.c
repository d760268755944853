/*
 * Fewer rights once started: what a guest that broke out of translated code could ask of
 * the host's kernel.
 *
 * After the files are open, the run needs memory, time, signals, reads and writes. The
 * filter lets those through and answers everything else with EPERM: no new programs,
 * processes, sockets, tracing or privileges. Files may still be opened, since counters and
 * cores are written at the end. The filter does not ask for the speculation controls that
 * old kernels add with it, which would slow translated code down.
 *
 * A kernel or a container without seccomp leaves us as we were; that is no error.
 *
 * Reference: Linux man-pages, seccomp(2), prctl(2).
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/hosted/hosted_internal.h"

#ifndef SECCOMP_FILTER_FLAG_SPEC_ALLOW
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW (1ul << 2)
#endif

/* clang-format off */
static const uint16_t allowed[] = {
    /* the run itself */
    SYS_timer_settime, SYS_rt_sigreturn, SYS_ppoll, SYS_rt_sigprocmask, SYS_read, SYS_write, SYS_poll,
    SYS_clock_gettime, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_arch_prctl,
    /* character devices and the terminal */
    SYS_accept4, SYS_fcntl, SYS_ioctl, SYS_close,
    /* a reset makes memory and cache anew */
    SYS_memfd_create, SYS_ftruncate, SYS_fallocate, SYS_mremap, SYS_brk,
    /* files written at the end; /proc for the budget of mappings */
    SYS_openat, SYS_newfstatat, SYS_fstat, SYS_lseek, SYS_pread64, SYS_pwrite64, SYS_writev, SYS_rename,
    SYS_unlink, SYS_access, SYS_readlink, SYS_fsync,
    /* libc, and the ways to die */
    SYS_rt_sigaction, SYS_sigaltstack, SYS_getpid, SYS_gettid, SYS_tgkill, SYS_futex, SYS_getrandom,
    SYS_gettimeofday, SYS_clock_nanosleep, SYS_nanosleep, SYS_restart_syscall, SYS_sched_yield,
    SYS_prlimit64, SYS_exit, SYS_exit_group,
};
/* clang-format on */

#define COUNT ARRAY_LEN(allowed)

bool hosted_sandbox(void)
{
    struct sock_filter code[COUNT + 8];
    unsigned n = 0;

    hosted_park();
    /* Another architecture's numbers mean other calls. */
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < COUNT; i++)
        code[n++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], (uint8_t)(COUNT - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);

    struct sock_fprog program = { .len = (unsigned short)n, .filter = code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return false;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0)
        return true;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0ul, &program) == 0;
}
