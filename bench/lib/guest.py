"""Linux guests for benches: an initrd made on the fly, and a boot that runs one script and gives what it printed.

Ringdown and QEMU's TCG boot the same kernel and the same initrd, with processors that show the same features: QEMU_CPU is
Ringdown's default model in QEMU's words. Linux leaves page-table isolation off on it, and there is no network card,
whose boot ROM would cost QEMU time that has nothing to do with translation.
"""
import os
import shlex
import stat
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'tests', 'accept'))
from guest import Guest, GuestError, ROOT, guests_dir  # noqa: E402,F401

BUILD = os.path.join(ROOT, 'build', 'bench')
QEMU_CPU = 'qemu32,vendor=AuthenticAMD,family=15,model=4,stepping=10,+nx,+pge,+pat,+clflush,+sep,-pni'
QEMU_ARGS = '-nic none -cpu ' + QEMU_CPU


class BenchError(Exception):
    """What a bench cannot do, in one line for the user."""


# ---- initrd -------------------------------------------------------------------------------------

def _member(name, mode, body):
    """One member of a cpio archive of the newc format: header of 13 hex numbers, name, data, each padded to 4 bytes."""
    encoded = name.encode() + b'\0'
    fields = (0, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, len(body), 0, 0, 0, 0, len(encoded), 0)
    head = b'070701' + b''.join(b'%08X' % f for f in fields) + encoded
    return head + bytes(-len(head) % 4) + body + bytes(-len(body) % 4)


def archive(files):
    """A cpio archive of {path in the guest, no leading slash: path on the host, or bytes}.

    Keeps the host's execute permission and symbolic links; bytes are an executable file. Makes the directories."""
    out, made = [], set()
    for name in sorted(files):
        parts = name.split('/')[:-1]
        for i in range(1, len(parts) + 1):
            directory = '/'.join(parts[:i])
            if directory not in made:
                made.add(directory)
                out.append(_member(directory, stat.S_IFDIR | 0o755, b''))
        source = files[name]
        if isinstance(source, bytes):
            out.append(_member(name, stat.S_IFREG | 0o755, source))
        elif os.path.islink(source):
            out.append(_member(name, stat.S_IFLNK | 0o777, os.readlink(source).encode()))
        else:
            with open(source, 'rb') as f:
                out.append(_member(name, stat.S_IFREG | (0o755 if os.access(source, os.X_OK) else 0o644), f.read()))
    out.append(_member('TRAILER!!!', 0, b''))
    return b''.join(out)


def tree(directory, below):
    """{BELOW/path: file} of all files and links under `directory`."""
    found = {}
    for at, directories, names in os.walk(directory):
        names += [d for d in directories if os.path.islink(os.path.join(at, d))]
        for name in names:
            path = os.path.join(at, name)
            found[os.path.join(below, os.path.relpath(path, directory))] = path
    return found


def base_initrd():
    """The BusyBox initrd of guests/real."""
    path = os.path.join(guests_dir(), 'initrd.gz')
    if not os.path.exists(path):
        raise BenchError('no %s: run guests/real/fetch' % path)
    return path


def make_initrd(out, files):
    """The base initrd with `files` (see archive) behind it: the kernel unpacks one after the other."""
    with open(base_initrd(), 'rb') as f:
        first = f.read()
    with open(out, 'wb') as f:
        f.write(first + bytes(-len(first) % 4) + archive(files))
    return out


# ---- boot ---------------------------------------------------------------------------------------

def command(system, options, kernel, initrd, append, mem):
    """The command line of `system` (ringdown or qemu). `options` has ringdown, ringdown_args, qemu_program, qemu_args."""
    program = {'ringdown': shlex.split(options.ringdown) + shlex.split(options.ringdown_args),
               'qemu': shlex.split(options.qemu_program) + shlex.split(options.qemu_args)}[system]
    return program + ['-kernel', os.path.join(guests_dir(), 'vmlinuz-' + kernel), '-initrd', initrd, '-append', append,
                      '-m', mem, '-nographic', '-no-reboot']


def cpu_ns(pids):
    """The processor time that these processes have taken, all their threads, up to this moment."""
    # clock_getcpuclockid(3): the complement of the pid, and 2 for the scheduler's own exact clock.
    return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in pids)


class Measured:
    """A line `row NAME COUNT CHECKSUM CPU ELAPSED FIRST` of a program that measures: nanoseconds of one of COUNT.

    The processor time of a guest's is what the host counted; natively there is only the program's own."""

    def __init__(self, row, host_ns=None):
        _, count, self.checksum, cpu, elapsed, first = row
        self.cpu = int(cpu) if host_ns is None else host_ns / int(count)
        self.elapsed, self.first = int(elapsed), int(first)


class Boot:
    """What a boot gave: the script's output, seconds to userland, processor seconds up to there, and the processor time
    between the lines `begin NAME` and `end NAME` (lib/mark.h) in nanoseconds; at the end, the monitor's anonymous memory
    and page tables in MiB (QEMU's hold the guest's RAM, Ringdown's do not)."""

    def __init__(self, output, ready, cpu_ready, between, memory_mib):
        self.output, self.ready, self.cpu_ready, self.between = output, ready, cpu_ready, between
        self.memory_mib = memory_mib

    def measured(self):
        """-> {name: Measured} of the lines `row ...`, in their order"""
        rows = [line.split()[1:] for line in self.output.splitlines() if line.startswith('row ')]
        absent = [row[0] for row in rows if row[0] not in self.between]
        if absent:
            raise BenchError('no begin and end of %s' % ', '.join(absent))
        return {row[0]: Measured(row, self.between[row[0]]) for row in rows}


def boot(system, options, initrd, run, mem='256M', kernel='686', timeout=600):
    """Boot, run a shell command to its end, power off. Raises BenchError when it fails."""
    append = 'console=ttyS0 rd.run="%s"' % run
    between, begun = {}, {}
    try:
        with Guest(command(system, options, kernel, initrd, append, mem)) as g:
            ready = g.ready(timeout)
            pids = g.pids()
            cpu_ready = cpu_ns(pids) / 1e9
            begin = g.mark
            while True:
                found = g.expect(rb'(?:^|\n)(begin|end|ringdown-run-status) (\S+)\r*(?=\n)', timeout)
                word, name = found.group(1), found.group(2).decode('latin-1')
                if word == b'ringdown-run-status':
                    memory = (g.status_kib('RssAnon') + g.status_kib('VmPTE')) / 1024
                    break
                if word == b'begin':
                    begun[name] = cpu_ns(pids)
                elif name in begun:
                    between[name] = cpu_ns(pids) - begun[name]
            g.wait(60) # it powers off; what the program writes at its end (-accel bt,stats=) is whole then
            output = g.seen[begin:found.start()].decode('latin-1').replace('\r', '')
    except (GuestError, OSError) as e:
        raise BenchError('%s: %s' % (system, e)) from e
    failed = [line for line in output.splitlines() if line.startswith('FAIL')]
    if failed or name != '0':
        raise BenchError('%s: %s' % (system, failed[0] if failed else 'status %s; last: %s' % (
            name, ' | '.join(output.splitlines()[-4:]))))
    return Boot(output, ready, cpu_ready, between, memory)
