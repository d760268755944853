"""guests/user/scale.c in a Debian guest, or alone on the host: what its parts cost the host's processors.

A part is timed from outside: the program says that it is about to begin and waits for a line, so that what its process has
used so far can be read first; the same when it has ended. What the host's processors spent is said by the scheduler,
in nanoseconds; other work on the host lengthens it only through shared caches and cores, which elapsed time cannot say.
"""
import os
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..'))

from lib.guest import ROOT, BenchError, Guest, GuestError, command, cpu_ns, make_initrd  # noqa: E402

BUILD = ('gcc -m32 -O1 -ffreestanding -fno-pic -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables -nostdlib '
         '-static -Wl,--no-warn-rwx-segments -Wl,-e,entry -Wall -Wextra -Werror -isystem /usr/include/x86_64-linux-gnu').split()


def memory_kib(pid):
    """-> (all of it, the part that is shared memory: the guest's RAM)"""
    found = {}
    with open('/proc/%d/status' % pid) as f:
        for line in f:
            name, _, value = line.partition(':')
            if name in ('RssAnon', 'RssFile', 'RssShmem', 'VmPTE'):
                found[name] = int(value.split()[0])
    return sum(found.values()), found['RssShmem']


class Files:
    """The program and the initrd that holds it, made once."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix='ringdown-scale-')
        self.program = os.path.join(self.directory.name, 'scale')
        self.initrd = os.path.join(self.directory.name, 'initrd.gz')
        try:
            subprocess.run(BUILD + ['-o', self.program, os.path.join(ROOT, 'guests', 'user', 'scale.c')], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BenchError('cannot build scale.c: %s' % error) from error
        make_initrd(self.initrd, {'root/scale': self.program})

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.directory.cleanup()


class Session:
    """The program, ready for commands. `ask` sends one and gives back what its parts cost."""

    def __init__(self, guest, timeout):
        self.guest, self.timeout = guest, timeout
        self.pid = guest.proc.pid

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.guest.close()

    def ask(self, command):
        """-> {part: (host CPU ns an event, ns an event by the guest's clock)}"""
        self.guest.send(command.encode() + b'\n')
        found = {}
        while True:
            said = self.guest.expect(rb'(begin|ready|FAIL)([^\r\n]*)\r*\n', self.timeout)
            if said[1] == b'ready':
                return found
            if said[1] == b'FAIL':
                raise GuestError('%s: FAIL%s' % (command, said[2].decode('latin-1')))
            before = cpu_ns([self.pid])
            self.guest.send(b'go\n')
            done = self.guest.expect(rb'(end|FAIL) (\S+) ?(\d*) ?(\d*)\r*\n', self.timeout)
            spent = cpu_ns([self.pid]) - before
            if done[1] == b'FAIL':
                raise GuestError('%s: %s is wrong' % (command, done[2].decode()))
            count = int(done[3])
            found[done[2].decode()] = (spent / count, int(done[4]) / count)


def argv(system, options, files, mib):
    name, _, accel = system.partition(' ')
    found = command(name, options, '686', files.initrd, 'console=ttyS0 quiet', '%dM' % mib)
    return found + (['-accel', 'bt,' + accel] if accel else [])


def boot(system, options, files, mib, timeout=600):
    """-> a Session in a new guest; its `boot_ns` is what the host's processors spent up to the first line of userland."""
    guest = Guest(argv(system, options, files, mib))
    try:
        guest.ready(timeout)
        spent = cpu_ns([guest.proc.pid])
        guest.prompt(timeout)
        guest.send(b'stty -echo; /root/scale\n')
        guest.expect(rb'\nready\r*\n', timeout)
    except BaseException:
        guest.close()
        raise
    session = Session(guest, timeout)
    session.boot_ns = spent
    return session


def native(files, timeout=600):
    guest = Guest(['sh', '-c', 'stty -echo; exec ' + shlex.quote(files.program)])
    guest.expect(rb'ready\r*\n', timeout)
    return Session(guest, timeout)
