#!/usr/bin/env python3
"""tools/bisect and the logs it reads: on a small kernel whose CPUID tells two models apart.

usage: test_bisect.py PATH/TO/ringdown PATH/TO/tools/bisect
"""
import os
import subprocess
import sys
import tempfile
import unittest

from test_command import DEBUG_EXIT, EXIT_5, bzimage

RINGDOWN = BISECT = None
# mov ecx, 5000; loop to itself; out 0x80, al; mov eax, 1; cpuid at +0x11
KERNEL = b'\xb9\x88\x13\0\0' + b'\xe2\xfe' + b'\xe6\x80' + b'\x90' * 3 + b'\xb8\x01\0\0\0' + b'\x0f\xa2' + EXIT_5
CPUID_AT = 0x100011
CPUID_COUNT = 1 + 5000 + 1 + 3 + 1


class Bisect(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.kernel = os.path.join(self.dir.name, 'kernel')
        with open(self.kernel, 'wb') as f:
            f.write(bzimage(KERNEL))
        self.guest = ['-kernel', self.kernel, '-m', '16M', '-serial', 'none', *DEBUG_EXIT]

    def tearDown(self):
        self.dir.cleanup()

    def log(self, accel):
        path = os.path.join(self.dir.name, 'log')
        done = subprocess.run([RINGDOWN, *self.guest, '-no-reboot', '-accel',
                               f'bt,clock=insn,hash-log={path},{accel}'],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        with open(path) as f:
            return done.returncode, f.read().splitlines()

    def bisect(self, *args):
        done = subprocess.run([BISECT, '--ringdown', RINGDOWN, *args, '--', *self.guest],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout, done.stderr

    def test_lines_stand_at_exact_counts(self):
        status, lines = self.log('hash-every=1000')
        self.assertEqual(status, 11)
        self.assertEqual([l.split()[0] for l in lines], ['0', '1000', '2000', '3000', '4000', '5000', '5009'])
        self.assertEqual({l.split()[1] for l in lines[1:6]}, {'00100005'})

    def test_from_and_to_bound_the_log(self):
        status, lines = self.log('hash-from=100,hash-every=7,hash-to=120,hash-regs=on')
        self.assertEqual(status, 0)
        self.assertEqual([l.split()[0] for l in lines], ['100', '107', '114', '121'])
        self.assertIn(' ecx=%08x ' % (5000 - 99), lines[0])
        self.assertIn(' code=e2fe', lines[0])

    def test_configurations_that_must_agree_do(self):
        _, want = self.log('hash-every=1,hash-mem=on,hash-to=300')
        for accel in 'chain=off', 'host=baseline', 'tc-size=128K', 'mem=window', 'verify=on':
            _, have = self.log('hash-every=1,hash-mem=on,hash-to=300,' + accel)
            self.assertEqual(have, want, accel)

    def test_the_instruction_that_parts_is_found(self):
        status, out, err = self.bisect('--to', '100000', '--every', '2000', '-cpu pentium3', '-cpu pentium4')
        self.assertEqual(status, 1, err)
        self.assertIn(f'part at instruction {CPUID_COUNT}, EIP 0x{CPUID_AT:08x}', out)
        self.assertIn('cpuid', out)
        self.assertIn('call callout_cpuid', out)
        self.assertIn('\n* eax ', out)
        self.assertIn('\n  esi ', out)

    def test_sides_that_agree_say_so(self):
        status, out, err = self.bisect('--to', '4000', 'chain=on', 'chain=off')
        self.assertEqual((status, out), (0, 'the sides agree for 4000 instructions\n'), err)
        status, out, err = self.bisect('--to', '4000', '--every', '1000', 'chain=on', 'chain=off,host=baseline')
        self.assertEqual((status, out), (0, 'the sides agree for 4000 instructions\n'), err)

    def test_what_is_wrong_is_said_in_a_line(self):
        for args in ['chain=maybe', 'chain=on'], ['--nonsense', 'chain=on', 'chain=on']:
            status, _, err = self.bisect(*args)
            self.assertEqual(status, 2)
            self.assertTrue(err.splitlines()[-1].startswith('bisect: '))


if __name__ == '__main__':
    RINGDOWN, BISECT = (os.path.abspath(a) for a in sys.argv[1:3])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
