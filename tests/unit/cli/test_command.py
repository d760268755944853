#!/usr/bin/env python3
"""The whole command: exit statuses, one-line errors, and small kernels that end in each way.

usage: test_command.py PATH/TO/ringdown

The kernels are bzImages made here: a header by the boot protocol and a few bytes of code.
"""
import json
import os
import pty
import resource
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

RINGDOWN = None
SETUP = 0x400
DEBUG_EXIT = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04']


def bzimage(code, init_size=0x200000):
    h = bytearray(SETUP)
    h[0x1f1] = SETUP // 512 - 1
    code = code.ljust(0x100, b'\0')
    struct.pack_into('<I', h, 0x1f4, len(code) // 16)
    struct.pack_into('<H', h, 0x1fe, 0xaa55)
    h[0x200:0x202] = b'\xeb\x6a'
    h[0x202:0x206] = b'HdrS'
    struct.pack_into('<H', h, 0x206, 0x020f)
    h[0x211] = 1
    struct.pack_into('<I', h, 0x214, 0x100000)
    struct.pack_into('<I', h, 0x22c, 0x7fffffff)
    struct.pack_into('<I', h, 0x238, 2047)
    struct.pack_into('<Q', h, 0x258, 0x100000)
    struct.pack_into('<I', h, 0x260, init_size)
    return bytes(h) + code


def multiboot(code):
    """A file by its addresses: loaded at 1 MiB, header first, then the code."""
    header = struct.pack('<IIIIIIII', 0x1badb002, 0x10003, (-0x1badb002 - 0x10003) & 0xffffffff, 0x100000, 0x100000,
                         0, 0, 0x100020)
    return header + code.ljust(0x100, b'\0')


def elf32(code, entry=0x200000):
    header = b'\x7fELF\x01\x01\x01'.ljust(16, b'\0') + struct.pack('<HHIIIIIHHHHHH', 2, 3, 1, entry, 52, 0, 0, 52, 32,
                                                                     1, 40, 0, 0)
    return header + struct.pack('<IIIIIIII', 1, 84, 0x200000, 0x200000, len(code), len(code), 5, 4) + code


def out_dx(port, value):
    """mov dx, port; mov al, value; out dx, al"""
    return b'\x66\xba' + struct.pack('<H', port) + b'\xb0' + bytes([value]) + b'\xee'


HALT = b'\xfa\xf4\xeb\xfd'                                   # cli; hlt; jmp back
SPIN = b'\xeb\xfe'
EXIT_5 = b'\xb8\x05\0\0\0\xe7\xf4' + HALT                    # out 0xf4, 5
# mov esp, 0x8000; xor eax, eax; push eax; push eax; lidt [esp]; int3
TRIPLE = b'\xbc\0\x80\0\0\x31\xc0\x50\x50\x0f\x01\x1c\x24\xcc'
RESET = b'\xb0\xfe\xe6\x64' + HALT                           # 8042: pulse the reset line


def serial_text(text):
    return b''.join(out_dx(0x3f8, c) for c in text)


class Command(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix='ringdown-')

    def tearDown(self):
        self.dir.cleanup()

    def file(self, name, content):
        path = os.path.join(self.dir.name, name)
        with open(path, 'wb') as f:
            f.write(content)
        return path

    def run_it(self, *args, timeout=20, stdin=subprocess.DEVNULL, **kw):
        return subprocess.run([RINGDOWN, *args], stdin=stdin, capture_output=True, timeout=timeout, check=False, **kw)

    def fails(self, status, *words, args):
        r = self.run_it(*args)
        err = r.stderr.decode(errors='replace')
        self.assertEqual(r.returncode, status, err)
        self.assertEqual(err.count('\n'), 1, err)
        self.assertEqual(r.stdout, b'')
        for word in words:
            self.assertIn(word, err)

    def kernel(self, code, *args, **kw):
        return self.run_it('-kernel', self.file('k', bzimage(code)), '-display', 'none', '-m', '16M', *args, **kw)

    # ---- words -------------------------------------------------------------------------------
    def test_help_and_version_go_to_stdout(self):
        for arg in ('-help', '--help', '-h', '-version', '-cpu help', '-d help', '-M help', '-accel help',
                    '-device help', '-L help', 'explain --help'):
            r = self.run_it(*arg.split())
            self.assertEqual((r.returncode, r.stderr), (0, b''), arg)
            self.assertTrue(r.stdout, arg)

    def test_usage_errors_are_one_line_and_status_2(self):
        self.fails(2, 'nothing to run', args=[])
        self.fails(2, "'-hda'", args=['-hda', 'x'])
        self.fails(2, "'nosuch'", '-cpu help', args=['-kernel', 'k', '-cpu', 'nosuch'])
        self.fails(2, "'+avx'", 'not supported', args=['-kernel', 'k', '-cpu', 'max,+avx'])
        self.fails(2, "'+sse2'", 'needs', args=['-kernel', 'k', '-cpu', 'pentium2,+sse2'])
        self.fails(2, "'-nosuch'", '-cpu help', args=['-kernel', 'k', '-cpu', 'qemu32,-nosuch'])
        self.fails(2, "'12'", '-smp 1', args=['-kernel', 'k', '-smp', '12'])

    # ---- firmware ----------------------------------------------------------------------------
    def rom(self, kib, name='rom'):
        """Starts at the reset vector, goes to the low mirror and ends there with twice the byte at F000:1000, which it
        tries to change in between."""
        image = bytearray(kib << 10)
        code = (b'\x2e\xa0\0\x10'                 # mov al, cs:[0x1000]
                b'\x2e\xc6\x06\0\x10\x07'         # mov byte cs:[0x1000], 7: ROM
                b'\x2e\x02\x06\0\x10'             # add al, cs:[0x1000]
                b'\xe6\xf4\xf4')                  # out 0xf4, al; hlt
        image[-0x10000:-0x10000 + len(code)] = code
        image[-0xf000] = 2
        image[-16:-11] = b'\xea\0\0\0\xf0'
        return self.file(name, bytes(image))

    def test_firmware_runs_from_the_reset_vector(self):
        for kib in (64, 128, 192, 256, 512):
            r = self.run_it('-bios', self.rom(kib), '-vga', 'none', '-m', '16M', '-display', 'none', *DEBUG_EXIT)
            self.assertEqual((r.returncode, r.stderr), (4 << 1 | 1, b''), kib)

    def test_firmware_is_found_by_its_bare_name(self):
        self.rom(64, 'there.bin')
        r = self.run_it('-L', '/nonexistent', '-L', self.dir.name, '-bios', 'there.bin', '-vga', 'none', '-display',
                        'none', *DEBUG_EXIT)
        self.assertEqual(r.returncode, 9)
        self.fails(1, "'nowhere.bin'", 'No such file', args=['-L', self.dir.name, '-bios', 'nowhere.bin'])

    def test_files_that_are_no_roms_are_named(self):
        for size in (0, 1, 65535, 65537, 576 << 10):
            self.fails(1, "r'", f'{size} bytes', '64 KiB', args=['-bios', self.file('r', bytes(size))])
        self.fails(1, 'directory', args=['-bios', self.dir.name])
        os.chmod(self.file('secret', bytes(65536)), 0)
        if os.geteuid():
            self.fails(1, 'Permission denied', args=['-bios', os.path.join(self.dir.name, 'secret')])

    def test_the_debug_console_has_its_port(self):
        code = b'\xe4\xe9\xe6\xe9\xba\x02\x04\xec\xb0\x41\xee\xb0\x01\xe6\xf4'  # E9h echoed; 'A' to 402h
        image = bytes(0x8000) + code.ljust(0x7ff0, b'\0') + b'\xea\0\x80\0\xf0'.ljust(16, b'\0')
        out = os.path.join(self.dir.name, 'out')
        common = ['-bios', self.file('rom', image), '-vga', 'none', '-display', 'none', '-debugcon', 'file:' + out]
        self.assertEqual(self.run_it(*common, *DEBUG_EXIT).returncode, 3)
        self.assertEqual(open(out, 'rb').read(), b'\xe9')
        self.assertEqual(self.run_it(*common, *DEBUG_EXIT, '-global', 'isa-debugcon.iobase=0x402').returncode, 3)
        self.assertEqual(open(out, 'rb').read(), b'A')

    # ---- files -------------------------------------------------------------------------------
    def test_files_that_are_no_kernels_are_named(self):
        good = self.file('good', bzimage(HALT))
        empty = self.file('empty', b'')
        self.fails(1, '/nonexistent', 'No such file', args=['-kernel', '/nonexistent'])
        self.fails(1, self.dir.name, 'directory', args=['-kernel', self.dir.name])
        self.fails(1, 'empty', args=['-kernel', empty])
        self.fails(1, '64-bit ELF', args=['-kernel', '/bin/true'])
        self.fails(1, 'not a kernel', args=['-kernel', self.file('text', b'hello ' * 1000)])
        self.fails(1, 'truncated', args=['-kernel', self.file('cut', bzimage(HALT)[:SETUP + 16])])
        self.fails(1, 'is empty', args=['-kernel', good, '-initrd', empty])
        self.fails(1, '/nonexistent', args=['-kernel', good, '-initrd', '/nonexistent'])
        self.fails(1, '-m 2M', args=['-kernel', good, '-m', '2M'])
        self.fails(1, 'initrd', '-m 4M', args=['-kernel', good, '-m', '4M', '-initrd',
                                              self.file('big', b'x' * (3 << 20))])
        self.fails(1, 'log file', args=['-kernel', good, '-D', '/nonexistent/log'])
        self.fails(1, '/nonexistent/s', args=['-kernel', good, '-serial', 'file:/nonexistent/s'])
        self.fails(1, '2047', args=['-kernel', good, '-display', 'none', '-append', 'x' * 2048])

    def test_an_unreadable_kernel_is_named(self):
        if os.getuid() == 0:
            return  # root reads everything
        path = self.file('secret', bzimage(HALT))
        os.chmod(path, 0)
        self.fails(1, 'secret', 'Permission', args=['-kernel', path])

    def test_a_kernel_may_come_through_a_pipe(self):
        path = os.path.join(self.dir.name, 'fifo')
        os.mkfifo(path)
        writer = subprocess.Popen(['sh', '-c', 'cat "$1" > "$2"', '-', self.file('k', bzimage(EXIT_5)), path])
        r = self.run_it('-kernel', path, '-display', 'none', *DEBUG_EXIT)
        self.assertEqual((r.returncode, r.stderr), (11, b''))
        writer.wait()

    # ---- multiboot and ELF -------------------------------------------------------------------
    def test_a_multiboot_kernel_sees_its_command_line_and_modules(self):
        # Prints the string whose pointer is at [ebx + 16], or of module n at [[ebx + 24] + 16 n + 8]
        puts = bytes.fromhex('ba f8030000 8a06 46 84c0 7403 ee ebf6'.replace(' ', ''))
        lf = bytes.fromhex('b00a ee'.replace(' ', ''))
        code = (bytes.fromhex('8b7310') + puts + lf
                + bytes.fromhex('8b7b18 8b7708'.replace(' ', '')) + puts + lf
                + bytes.fromhex('8b07') + bytes.fromhex('8a00 ee'.replace(' ', ''))
                + bytes.fromhex('8b7718') + puts + lf
                + EXIT_5)
        kernel, one, two = self.file('mb', multiboot(code)), self.file('o,e', b'1'), self.file('two', b'2')
        r = self.run_it('-kernel', kernel, '-append', 'a "b"', '-initrd', '%s x=1,  %s' % (one.replace(',', ',,'), two),
                        '-serial', 'stdio', '-m', '16M', *DEBUG_EXIT)
        self.assertEqual((r.returncode, r.stderr), (11, b''))
        self.assertEqual(r.stdout.decode(), '%s a "b"\n%s x=1\n1%s\n' % (kernel, one, two))

    def test_a_plain_elf_file_is_entered_at_its_entry(self):
        kernel = self.file('elf', elf32(serial_text(b'elf') + EXIT_5))
        r = self.run_it('-kernel', kernel, '-serial', 'stdio', '-m', '16M', *DEBUG_EXIT)
        self.assertEqual((r.returncode, r.stdout, r.stderr), (11, b'elf', b''))
        self.fails(1, '-append', 'plain ELF', args=['-kernel', kernel, '-append', 'x', '-display', 'none'])

    def test_bad_multiboot_files_and_modules_are_named(self):
        good, one = self.file('mb', multiboot(HALT)), self.file('one', b'1')
        self.fails(1, 'truncated', args=['-kernel', self.file('cut', multiboot(HALT)[:20])])
        self.fails(1, '/nonexistent', args=['-kernel', good, '-initrd', one + ' x,/nonexistent y'])
        self.fails(1, 'file name', args=['-kernel', good, '-initrd', one + ' x,,y,'])
        self.fails(1, '64', args=['-kernel', good, '-initrd', ','.join([one] * 65)])
        self.fails(1, '-m 2M', args=['-kernel', self.file('big', elf32(HALT, 0x200000)), '-m', '2M'])
        version2 = struct.pack('<IIII', 0xe85250d6, 0, 16, -(0xe85250d6 + 16) & 0xffffffff)
        self.fails(1, 'multiboot 2', args=['-kernel', self.file('mb2', version2.ljust(4096, b'\0'))])

    # ---- ends --------------------------------------------------------------------------------
    def test_debug_exit_makes_the_status(self):
        r = self.kernel(EXIT_5, *DEBUG_EXIT)
        self.assertEqual((r.returncode, r.stdout, r.stderr), (11, b'', b''))

    def test_triple_fault_is_reported_on_one_screen(self):
        r = self.kernel(TRIPLE, '-no-reboot')
        text = r.stderr.decode()
        self.assertEqual(r.returncode, 3, text)
        self.assertIn('triple fault', text)
        self.assertIn('0x0010:0x0010000d', text)
        self.assertLessEqual(text.count('\n'), 25)

    def test_reset_ends_with_no_reboot(self):
        self.assertEqual(self.kernel(RESET, '-no-reboot').returncode, 0)

    def test_signals_end_the_run_cleanly(self):
        for code in (HALT, SPIN, RESET, TRIPLE):
            for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                p = subprocess.Popen([RINGDOWN, '-kernel', self.file('k', bzimage(code)), '-display', 'none', '-m',
                                      '16M'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE)
                time.sleep(0.2)
                p.send_signal(sig)
                _, err = p.communicate(timeout=10)
                self.assertEqual(p.returncode, 0, err)
                self.assertIn(b'signal %d' % sig, err)

    def test_signals_end_a_run_whose_parent_had_them_blocked(self):
        p = subprocess.Popen([RINGDOWN, '-kernel', self.file('k', bzimage(SPIN)), '-display', 'none', '-m', '16M'],
                             stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))
        self.addCleanup(p.kill)
        time.sleep(0.2)
        p.terminate()
        _, err = p.communicate(timeout=10)
        self.assertEqual(p.returncode, 0, err)

    # ---- what we are started with --------------------------------------------------------------
    def test_a_closed_standard_descriptor_is_no_way_to_guest_memory(self):
        output = (b'\x66\xba\xf8\x03\xb0A\xb9\xb8\x0b\0\0'     # mov dx, 0x3f8; mov al, 'A'; mov ecx, 3000
                  b'\xee\xe2\xfd'                               # out dx, al; loop
                  b'\x0f\xb6\x05\0\0\0\0\xe7\xf4' + HALT)       # movzx eax, byte [0]; out 0xf4, eax
        asks = (b'\x66\xba\xfd\x03\xb9\xa0\x86\x01\0'           # mov dx, 0x3fd; mov ecx, 100000
                b'\xec\xa8\x01\xe1\xfb'                         # in al, dx; test al, 1; loope
                b'\x83\xe0\x01\xe7\xf4' + HALT)                 # and eax, 1; out 0xf4, eax
        for closed in ((0,), (1,), (2,), (0, 1, 2)):
            for code in (output, asks):
                status = subprocess.call([RINGDOWN, '-kernel', self.file('k', bzimage(code)), '-nographic', '-m', '16M',
                                          *DEBUG_EXIT], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=20,
                                         preexec_fn=lambda fds=closed: [os.close(fd) for fd in fds])
                self.assertEqual(status, 1, closed)

    def test_output_that_cannot_be_written_is_said_once(self):
        with open('/dev/full', 'wb') as full:
            for args in (['-help'], ['-cpu', 'help'], ['-version']):
                r = subprocess.run([RINGDOWN, *args], stdout=full, stderr=subprocess.PIPE, timeout=20, check=False)
                self.assertEqual(r.returncode, 1)
                self.assertRegex(r.stderr, b'^ringdown: cannot write to standard output: No space left.*\n$')
            path = self.file('k', bzimage(serial_text(b'a') * 5000 + EXIT_5))
            for dev in ('stdio', 'file:/dev/full'):
                r = subprocess.run([RINGDOWN, '-kernel', path, '-m', '16M', '-display', 'none', '-serial', dev,
                                    *DEBUG_EXIT], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                   timeout=20, check=False)
                self.assertEqual(r.returncode, 11, r.stderr)
                self.assertRegex(r.stderr, b'^ringdown: warning: .* is lost: No space left.*\n$')

    def test_a_limit_on_the_size_of_files_is_an_error_in_words(self):
        r = self.kernel(EXIT_5, *DEBUG_EXIT,
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
        self.assertEqual(r.returncode, 1)
        self.assertRegex(r.stderr, b'^ringdown: .*File too large.*\n$')

    # ---- serial ------------------------------------------------------------------------------
    def test_serial_output_reaches_stdout_and_files(self):
        path = os.path.join(self.dir.name, 'serial')
        code = serial_text(b'hello\r\n') + EXIT_5
        self.assertEqual(self.kernel(code, '-serial', 'stdio', *DEBUG_EXIT).stdout, b'hello\r\n')
        self.assertEqual(self.kernel(code, '-nographic', *DEBUG_EXIT).stdout, b'hello\r\n')
        self.kernel(code, '-serial', 'file:' + path, *DEBUG_EXIT)
        with open(path, 'rb') as f:
            self.assertEqual(f.read(), b'hello\r\n')

    def test_output_before_a_spinning_guest_appears_soon(self):
        p = subprocess.Popen([RINGDOWN, '-kernel', self.file('k', bzimage(serial_text(b'ok') + SPIN)), '-serial',
                              'stdio', '-m', '16M'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        start = time.monotonic()
        self.assertEqual(p.stdout.read(2), b'ok')
        self.assertLess(time.monotonic() - start, 5)
        p.terminate()
        p.wait(timeout=10)
        p.stdout.close()

    def test_the_terminal_comes_back_and_control_a_x_leaves(self):
        for code in (HALT, SPIN):
            master, slave = pty.openpty()
            before = termios.tcgetattr(slave)
            p = subprocess.Popen([RINGDOWN, '-kernel', self.file('k', bzimage(serial_text(b'ok') + code)),
                                  '-nographic', '-m', '16M'], stdin=slave, stdout=slave, stderr=slave)
            self.assertEqual(os.read(master, 2), b'ok')
            self.assertNotEqual(termios.tcgetattr(slave), before)
            os.write(master, b'\x01x')
            self.assertEqual(p.wait(timeout=10), 0)
            self.assertEqual(termios.tcgetattr(slave), before)
            os.close(master)
            os.close(slave)

    def test_the_terminal_comes_back_when_a_signal_kills(self):
        for sig in (signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU,
                    signal.SIGVTALRM, signal.SIGPROF):
            master, slave = pty.openpty()
            before = termios.tcgetattr(slave)
            p = subprocess.Popen([RINGDOWN, '-kernel', self.file('k', bzimage(serial_text(b'ok') + SPIN)),
                                  '-nographic', '-m', '16M'], stdin=slave, stdout=slave, stderr=slave,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
            self.assertEqual(os.read(master, 2), b'ok')
            self.assertNotEqual(termios.tcgetattr(slave), before)
            p.send_signal(sig)
            self.assertEqual(p.wait(timeout=10), -sig)
            self.assertEqual(termios.tcgetattr(slave), before, sig)
            os.close(master)
            os.close(slave)

    # ---- stats -------------------------------------------------------------------------------
    def test_stats_are_json(self):
        path = os.path.join(self.dir.name, 'stats.json')
        self.kernel(EXIT_5, *DEBUG_EXIT, '-accel', 'bt,stats=' + path)
        with open(path, encoding='ascii') as f:
            stats = json.load(f)
        self.assertGreater(stats['insn_translated'], 0)
        self.assertEqual(stats['callouts']['callout_out'], 1)
        r = self.kernel(EXIT_5, *DEBUG_EXIT, '-accel', 'bt,stats=/nonexistent/x')
        self.assertIn(b'/nonexistent/x', r.stderr)
        self.assertEqual(r.returncode, 11)

    def test_pipes_and_devices_are_written_not_replaced(self):
        path = os.path.join(self.dir.name, 'pipe')
        os.mkfifo(path)
        reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.assertEqual(self.kernel(EXIT_5, *DEBUG_EXIT, '-accel', 'bt,stats=' + path).returncode, 11)
        self.assertTrue(stat.S_ISFIFO(os.stat(path).st_mode))
        self.assertEqual(json.loads(os.read(reader, 65536))['callouts']['callout_out'], 1)
        r = self.kernel(TRIPLE, '-no-reboot', '-accel', 'bt,core=' + path)
        self.assertIn(b'cannot write core', r.stderr)
        self.assertTrue(stat.S_ISFIFO(os.stat(path).st_mode))
        os.close(reader)


if __name__ == '__main__':
    RINGDOWN = sys.argv.pop(1)
    unittest.main()
