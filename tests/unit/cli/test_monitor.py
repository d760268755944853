#!/usr/bin/env python3
"""The monitor of a running guest: over a UNIX socket, a pty, and the shared terminal.

usage: test_monitor.py PATH/TO/ringdown
"""
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'support'))
from hmp import Monitor  # noqa: E402

RINGDOWN = None
COUNTER = 0x200000


def multiboot(code):
    header = struct.pack('<IIIIIIII', 0x1badb002, 0x10003, (-0x1badb002 - 0x10003) & 0xffffffff, 0x100000, 0x100000,
                         0, 0, 0x100020)
    return header + code.ljust(0x100, b'\0')


COUNT = bytes.fromhex('ff0500002000 ebf8'.replace(' ', ''))          # again: inc [COUNTER]; jmp again
# next: in al, 64h; test al, 1; je next; in al, 60h; mov [edi], al; inc edi; jmp next (edi from COUNTER)
KEYS = bytes.fromhex('bf00002000 e464 a801 74fa e460 8807 47 ebf3'.replace(' ', ''))
HALT = bytes.fromhex('fa f4 ebfc'.replace(' ', ''))
# k first; echo: COM1's line status, receive, send
ECHO = bytes.fromhex('66baf803 b06b ee 66bafd03 ec a801 74fb 66baf803 ec ee ebef'.replace(' ', ''))


class TheMonitor(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix='ringdown-')
        self.path = os.path.join(self.dir.name, 'monitor')
        self.proc = None

    def tearDown(self):
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        self.dir.cleanup()

    def kernel(self, code):
        path = os.path.join(self.dir.name, 'kernel')
        with open(path, 'wb') as f:
            f.write(multiboot(code))
        return path

    def start(self, code, *args):
        self.proc = subprocess.Popen([RINGDOWN, '-kernel', self.kernel(code), '-m', '16M', '-display', 'none', '-serial',
                                      'none', '-monitor', 'unix:%s,server=on,wait=off' % self.path, *args],
                                     stdin=subprocess.DEVNULL)
        m = Monitor(self.path)
        self.addCleanup(m.close)
        return m

    def counter(self, m):
        return struct.unpack('<I', m.memory(COUNTER, 4, self.dir.name))[0]

    def test_stop_and_cont(self):
        m = self.start(COUNT)
        self.assertIn('running', m.command('info status'))
        first = self.counter(m)
        time.sleep(0.1)
        self.assertGreater(self.counter(m), first)
        m.must('stop')
        self.assertIn('paused', m.command('info status'))
        stopped = self.counter(m)
        time.sleep(0.2)
        self.assertEqual(self.counter(m), stopped)
        m.must('cont')
        time.sleep(0.1)
        self.assertGreater(self.counter(m), stopped)

    def test_a_run_may_start_stopped_and_be_reset(self):
        m = self.start(COUNT, '-S')
        time.sleep(0.1)
        self.assertEqual(self.counter(m), 0)
        self.assertRegex(m.command('info registers'), r'EAX=2badb002[\s\S]*EIP=00100020')
        self.assertIn('inc dword ptr [0x200000]', m.command('x/1i $eip'))
        m.must('cont')
        time.sleep(0.1)
        m.must('stop')
        self.assertGreater(self.counter(m), 0)
        m.must('system_reset')   # and still stands
        self.assertIn('paused', m.command('info status'))
        self.assertEqual(self.counter(m), 0)
        m.must('cont')
        time.sleep(0.1)
        self.assertGreater(self.counter(m), 0)

    def test_keys_reach_the_guest(self):
        m = self.start(KEYS)
        for key in ('spc', 'shift-a', 'left'):
            m.must('sendkey %s 20' % key)
        want = bytes.fromhex('39 b9 2a 1e 9e aa e04b e0cb'.replace(' ', ''))
        deadline = time.monotonic() + 10
        while m.memory(COUNTER, len(want), self.dir.name) != want:
            self.assertLess(time.monotonic(), deadline, m.command('xp/10xb 0x%x' % COUNTER))
            time.sleep(0.02)

    def test_quit_and_signals_end_a_halted_and_a_paused_guest(self):
        for code, before in ((HALT, None), (HALT, 'stop'), (COUNT, 'stop'), (COUNT, None)):
            m = self.start(code)
            if before:
                m.must(before)
            m.send('quit')
            self.assertEqual(self.proc.wait(timeout=10), 0)
            m = self.start(code)
            if before:
                m.must(before)
            self.proc.terminate()
            self.assertEqual(self.proc.wait(timeout=10), 0)

    def test_clients_come_and_go(self):
        m = self.start(COUNT)
        for _ in range(30):
            m.close()
            m = Monitor(self.path)
            self.assertIn('running', m.command('info status'))
        m.send('info stat')    # half a line is forgotten
        m.close()
        m = Monitor(self.path)
        self.assertIn('running', m.command('info status'))
        m.close()

    def test_a_client_that_does_not_read_holds_nobody(self):
        m = self.start(COUNT)
        for _ in range(60):
            try:
                m.send('x/65536xb 0')
            except OSError:
                break          # it has hung up on us
        time.sleep(0.5)
        other = None
        try:
            m.close()
            other = Monitor(self.path)
            first = self.counter(other)
            time.sleep(0.2)
            self.assertGreater(self.counter(other), first)
        finally:
            if other:
                other.close()

    def test_the_guest_goes_on_between_commands(self):
        m = self.start(COUNT)
        first = self.counter(m)
        for _ in range(200):
            m.command('info registers')
        self.assertGreater(self.counter(m), first)

    def test_a_pty(self):
        self.proc = subprocess.Popen([RINGDOWN, '-kernel', self.kernel(COUNT), '-m', '16M', '-display', 'none', '-serial',
                                      'none', '-monitor', 'pty'], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        name = re.search(r'redirected to (\S+) \(label compat_monitor0\)', self.proc.stderr.readline().decode()).group(1)
        fd = os.open(name, os.O_RDWR | os.O_NOCTTY)
        try:
            self.expect(fd, b'(ringdown) ')
            os.write(fd, b'info statux\x7fs\r')
            self.expect(fd, b'VM status: running\r\n(ringdown) ')
            os.write(fd, b'quit\r')
            self.assertEqual(self.proc.wait(timeout=10), 0)
        finally:
            os.close(fd)
            self.proc.stderr.close()

    def expect(self, fd, text):
        got = b''
        while text not in got:
            self.assertTrue(select.select([fd], [], [], 10)[0], got)
            got += os.read(fd, 65536)
        return got

    def test_the_terminal_is_shared(self):
        master, slave = pty.openpty()
        self.proc = subprocess.Popen([RINGDOWN, '-kernel', self.kernel(ECHO), '-m', '16M', '-nographic'], stdin=slave,
                                     stdout=slave, stderr=slave)
        try:
            self.expect(master, b'k')      # the terminal is ours by now: no echo but the guest's
            os.write(master, b'abc')
            self.expect(master, b'abc')
            os.write(master, b'\x01c')
            self.expect(master, b'(ringdown) ')
            os.write(master, b'info status\r')
            self.expect(master, b'VM status: running')
            os.write(master, b'\x01cxyz')
            got = self.expect(master, b'xyz')
            self.assertNotIn(b'unknown', got)
            os.write(master, b'\x01h')
            self.expect(master, b'C-a c')
            os.write(master, b'\x01cq\r')
            self.assertEqual(self.proc.wait(timeout=10), 0)
        finally:
            os.close(master)
            os.close(slave)


if __name__ == '__main__':
    RINGDOWN = sys.argv.pop(1)
    unittest.main()
