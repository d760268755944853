"""A guest on a pseudo-terminal: what the acceptance scripts and the boot bench drive it with.

One class, Guest, starts a VMM with its console on a pty of its own, keeps everything the guest prints
in a transcript, and types into it. `run` types a shell command and returns its exit status and output;
the markers it uses are written so that the echo of the typed line never matches them. A guest that
panics, ends early or stays silent raises GuestError with the last lines it printed.
"""
import ctypes
import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY = rb'ringdown-userland-ready'
PROMPT = rb'ringdown:[^\s#]*# '
PANIC = rb'Kernel panic[^\r\n]*|BUG: unable to handle[^\r\n]*|Attempted to kill init[^\r\n]*'
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1


class GuestError(Exception):
    """The guest did not do what was asked; the text says what and shows its last lines."""


def guests_dir():
    return os.environ.get('RINGDOWN_GUESTS', os.path.join(ROOT, 'build', 'guests'))


def _prctl(option, value):
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl')


def become_nobody():
    """For a child before exec: uid and gid 65534 if we are root, and no_new_privs in any case."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


class Guest:
    def __init__(self, argv, transcript=None, before_exec=None, cwd=None):
        self.argv = argv
        self.seen = b''          # everything printed so far
        self.mark = 0            # matching goes on from here
        self.log = open(transcript, 'wb') if transcript else None
        self.master, slave = os.openpty()
        self.before = termios.tcgetattr(slave)
        self._slave = slave      # kept open, so that the terminal's settings outlive the child

        def child():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if before_exec:
                before_exec()

        self.started = time.monotonic()
        self.proc = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, cwd=cwd,
                                     start_new_session=True, preexec_fn=child)
        os.set_blocking(self.master, False)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # ---- reading ---------------------------------------------------------------------------------
    def _read(self, timeout):
        """Take what is there within `timeout` seconds. False at the end of the output."""
        ready, _, _ = select.select([self.master], [], [], max(0, timeout))
        if not ready:
            return not (timeout > 0 and self.proc.poll() is not None)
        try:
            data = os.read(self.master, 65536)
        except OSError as e:
            if e.errno == errno.EIO:
                return False
            raise
        if self.log:
            self.log.write(data)
            self.log.flush()
        self.seen += data
        return bool(data)

    def tail(self, lines=6):
        text = re.sub(rb'\x1b\[[0-9;?]*[a-zA-Z]|\x1b.', b'', self.seen).decode('latin-1').replace('\r', '')
        return ' | '.join(l for l in text.split('\n')[-40:] if l.strip()).strip()[-110 * lines:]

    def expect(self, pattern, timeout):
        """Wait for `pattern` after the last match; -> the match. Fails at once on a kernel panic."""
        want = re.compile(pattern, re.S)
        panic = re.compile(PANIC)
        deadline = time.monotonic() + timeout
        while True:
            m = want.search(self.seen, self.mark)
            if m:
                self.mark = m.end()
                return m
            bad = panic.search(self.seen, self.mark)
            if bad:
                raise GuestError('guest panicked: %s' % bad.group(0).decode('latin-1'))
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError('no %r within %.0f s; last: %s' % (pattern.decode('latin-1'), timeout, self.tail()))
            if not self._read(min(left, 0.25)):
                status = self.proc.poll()
                if status is None:
                    continue
                while self._read(0.0) and want.search(self.seen, self.mark) is None and \
                        select.select([self.master], [], [], 0)[0]:
                    pass
                m = want.search(self.seen, self.mark)
                if m:
                    self.mark = m.end()
                    return m
                raise GuestError('program ended early, status %s; last: %s' % (status, self.tail()))

    # ---- writing ---------------------------------------------------------------------------------
    def send(self, data):
        while data:
            _, ready, _ = select.select([], [self.master], [], 5)
            if not ready:
                raise GuestError('the terminal takes no input')
            data = data[os.write(self.master, data):]

    def ready(self, timeout=120):
        """Wait for the first line of userland; -> seconds since start."""
        self.expect(READY, timeout)
        return time.monotonic() - self.started

    def prompt(self, timeout=120):
        self.expect(PROMPT, timeout)
        return time.monotonic() - self.started

    def run(self, command, timeout=60):
        """Run a shell command; -> (exit status, output as text). The prompt is there afterwards."""
        self.send(b'echo @"<"@; ' + command.encode() + b'; echo @"@"$?@@\r')
        self.expect(rb'@<@\r*\n', timeout)
        start = self.mark
        m = self.expect(rb'@@(\d+)@@\r*\n', timeout)
        out = self.seen[start:m.start()]
        self.expect(PROMPT, timeout)
        return int(m.group(1)), out.decode('latin-1').replace('\r', '')

    def must(self, command, timeout=60):
        """Run a command that has to succeed; -> its output."""
        status, out = self.run(command, timeout)
        if status != 0:
            raise GuestError('%r ended with status %d: %s' % (command, status, out.strip()[-200:]))
        return out

    # ---- the end ---------------------------------------------------------------------------------
    def poweroff(self, timeout=60):
        """Power the guest off; -> the program's exit status."""
        self.send(b'poweroff -f\r')
        return self.wait(timeout)

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.proc.poll() is None:
            if time.monotonic() > deadline:
                raise GuestError('still running after %.0f s; last: %s' % (timeout, self.tail()))
            self._read(0.05)
        while select.select([self.master], [], [], 0)[0] and self._read(0):
            pass
        return self.proc.returncode

    def terminal_restored(self):
        return termios.tcgetattr(self._slave) == self.before

    def close(self):
        if self.proc.poll() is None:
            try:
                os.killpg(self.proc.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.proc.wait()
        for fd in (self.master, self._slave):
            try:
                os.close(fd)
            except OSError:
                pass
        if self.log:
            self.log.close()

    # ---- what the host says about it -------------------------------------------------------------
    def pids(self):
        """The program's process and those of its session."""
        found = []
        for name in os.listdir('/proc'):
            if name.isdigit():
                try:
                    with open('/proc/%s/stat' % name) as f:
                        fields = f.read().rpartition(')')[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.proc.pid:
                    found.append(int(name))
        return found

    def cpu_seconds(self):
        """User and system time so far."""
        ticks = 0
        for pid in self.pids():
            try:
                with open('/proc/%d/stat' % pid) as f:
                    fields = f.read().rpartition(')')[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf('SC_CLK_TCK')

    def status_kib(self, field):
        """Sum of a /proc/PID/status field that is in kB."""
        total = 0
        for pid in self.pids():
            try:
                with open('/proc/%d/status' % pid) as f:
                    for line in f:
                        if line.startswith(field + ':'):
                            total += int(line.split()[1])
            except OSError:
                continue
        return total
