"""The program's monitor over a UNIX socket: one method for a command, and what it said."""
import os
import socket
import time

PROMPT = b'(ringdown) '


class MonitorError(Exception):
    """The monitor did not answer, or complained."""


class Monitor:
    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError as e:
                if time.monotonic() > deadline:
                    raise MonitorError('no monitor at %s: %s' % (path, e)) from e
                time.sleep(0.02)
        self._answer()

    def _answer(self):
        got = b''
        while not got.endswith(PROMPT):
            try:
                data = self.socket.recv(65536)
            except OSError as e:
                raise MonitorError('no answer of the monitor: %s; so far %r' % (e, got[-200:])) from e
            if not data:
                raise MonitorError('the monitor hung up after %r' % got[-200:])
            got += data
        return got[:-len(PROMPT)].decode('latin-1').replace('\r', '')

    def command(self, line):
        """Send a line; -> the answer's text."""
        self.send(line)
        return self._answer()

    def must(self, line):
        """A command that has nothing to say when all is well."""
        answer = self.command(line)
        if answer:
            raise MonitorError('%r: %s' % (line, answer.strip()))

    def send(self, line):
        self.socket.sendall(line.encode() + b'\n')

    def memory(self, pa, size, directory):
        """Bytes of guest-physical memory."""
        path = os.path.join(directory, 'pmemsave')
        self.must('pmemsave 0x%x %d "%s"' % (pa, size, path))
        with open(path, 'rb') as f:
            data = f.read()
        os.unlink(path)
        if len(data) != size:
            raise MonitorError('pmemsave gave %d bytes of %d' % (len(data), size))
        return data

    def close(self):
        self.socket.close()
