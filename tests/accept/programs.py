"""Real programs that boot by themselves: memtest86+, GRUB Invaders, GNU Mach, iPXE, SeaBIOS, Linux as an ELF file.

Each function starts the program, watches it do its work and returns a figure, or raises Fail. `vmm` is a list of
arguments, the program first; more of them (such as -accel bt,mem=checked) may follow.
"""
import lzma
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

from criteria import Fail, OUT
from guest import Guest, GuestError, ROOT, guests_dir

sys.path.insert(0, os.path.join(ROOT, 'tests', 'support'))
from hmp import Monitor, MonitorError  # noqa: E402

TESTS = rb'#(\d+)\s+\[([^\]]+)\]'
SCREEN = 0xb8000
COLUMNS = 80


def program(name):
    path = os.path.join(guests_dir(), name)
    if not os.path.exists(path):
        raise Fail('no %s: run guests/real/fetch' % path)
    return path


def transcript(name):
    os.makedirs(OUT, exist_ok=True)
    return os.path.join(OUT, name + '.log')


# ---- memtest86+ ----------------------------------------------------------------------------------

def memtest(vmm, until='pass', timeout=900):
    """Run at -m 64M on the serial console; until 'pass' (a full one), or until test number `until` has begun."""
    argv = vmm + ['-kernel', program('memtest86+'), '-m', '64M', '-append', 'console=ttyS0,115200', '-nographic',
                  '-no-reboot']
    with Guest(argv, transcript('memtest')) as g:
        g.expect(rb'Memtest86\+ v\S+', 60)
        seen, deadline = [], time.monotonic() + timeout
        while True:
            m = g.expect(TESTS + rb'|Pass:\s+(\d+)\s+Errors:\s+(\d+)', max(60, deadline - time.monotonic()))
            if m.group(4) is not None and int(m.group(4)):
                raise Fail('memtest86+ found %s errors; log build/accept/memtest.log' % m.group(4).decode())
            if m.group(1) is not None:
                number = int(m.group(1))
                if number not in seen:
                    seen.append(number)
                if until != 'pass' and number >= until:
                    return 'test %d begun after %.0f s, no errors' % (number, time.monotonic() - g.started)
            elif int(m.group(3)):
                return 'a pass of %d tests in %.0f s, no errors' % (len(seen), time.monotonic() - g.started)
            if time.monotonic() > deadline:
                raise Fail('no pass within %.0f s: at test %d' % (timeout, seen[-1] if seen else -1))


# ---- GRUB Invaders -------------------------------------------------------------------------------

class Screen:
    """The VGA text screen of a guest with a monitor."""

    def __init__(self, monitor, directory):
        self.monitor = monitor
        self.directory = directory

    def memory(self):
        return self.monitor.memory(SCREEN, COLUMNS * 25 * 2, self.directory)

    def lines(self):
        data = self.memory()
        text = ''.join(chr(c) if 0x20 <= c < 0x7f else ' ' for c in data[::2])
        return [text[i:i + COLUMNS] for i in range(0, len(text), COLUMNS)]

    def wait(self, what, test, timeout=20):
        """Until test(lines) gives something."""
        deadline = time.monotonic() + timeout
        while True:
            lines = self.lines()
            found = test(lines)
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise Fail('%s: not on the screen: %s' % (what, ' | '.join(l.strip() for l in lines if l.strip())))
            time.sleep(0.05)


def ship_column(lines):
    m = re.search(r'/ \\', lines[24]) or re.search(r'/ \\', lines[23])
    return m.start() if m else None


def alien_count(lines):
    n = sum(line.count('-*-') for line in lines)
    return n or None


def shot(lines):
    """A column where something stands alone above the ship and below the aliens."""
    for line in lines[1:23]:
        m = re.search(r'(?<![-*/\\])\|(?![-*/\\])', line)
        if m:
            return m.start()
    return None


def moved(lines, start, direction):
    """The ship's column, if it has gone there."""
    column = ship_column(lines)
    return column if column is not None and (column - start) * direction > 0 else None


def press(screen, key, what, test):
    """Press until it shows. The game looks at its keyboard once a frame, and a busy host may give it none while the
    key is down."""
    for hold in (200, 400, 800, 1600, 3200):
        screen.monitor.must('sendkey %s %d' % (key, hold))
        try:
            found = screen.wait(what, test, hold / 1000 + 2)
        except Fail:
            if hold == 3200:
                raise
            continue
        time.sleep(hold / 1000)   # the key is up again
        return screen.wait('the ship', ship_column) if key != 'spc' else found


def invaders(vmm):
    """It draws aliens and a ship; the ship follows the arrow keys; space shoots."""
    with tempfile.TemporaryDirectory(prefix='ringdown-invaders-') as d:
        path = os.path.join(d, 'monitor')
        argv = vmm + ['-kernel', program('invaders'), '-m', '64M', '-display', 'none', '-serial', 'none', '-monitor',
                      'unix:%s,server=on,wait=off' % path]
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            monitor = Monitor(path)
            screen = Screen(monitor, d)
            aliens = screen.wait('aliens', alien_count)
            start = screen.wait('the ship', ship_column)
            time.sleep(0.5)
            if screen.wait('the ship', ship_column) != start:
                raise Fail('the ship moves by itself')
            left = press(screen, 'left', 'a ship moved left', lambda l: moved(l, start, -1))
            press(screen, 'right', 'a ship moved right', lambda l: moved(l, left, 1))
            press(screen, 'spc', 'a shot', shot)
            monitor.send('quit')
            status = p.wait(10)
            monitor.close()
        except (MonitorError, subprocess.TimeoutExpired) as e:
            raise Fail(str(e)) from e
        finally:
            if p.poll() is None:
                p.kill()
                p.wait()
        if status != 0:
            raise Fail('exit status %d after quit' % status)
    return '%d aliens; the ship at column %d goes to %d by a key and back, space shoots' % (aliens, start, left)


# ---- GNU Mach, Linux by PVH, iPXE, SeaBIOS ---------------------------------------------------------------------

def gnumach(vmm):
    """GNU Mach starts and asks for the bootstrap code that nobody gave it, as on QEMU."""
    argv = vmm + ['-kernel', program('gnumach'), '-m', '64M', '-append', 'console=com0', '-nographic', '-no-reboot']
    with Guest(argv, transcript('gnumach')) as g:
        g.expect(rb'GNU Mach 1\.8', 60)
        g.expect(rb'No bootstrap code loaded with the kernel', 60)
        return 'asks for its bootstrap code after %.1f s' % (time.monotonic() - g.started)


def vmlinux(bzimage, to):
    """The ELF file that a bzImage of Debian's decompresses."""
    with open(bzimage, 'rb') as f:
        data = f.read()
    ofs, length = struct.unpack_from('<II', data, 0x248)
    start = (data[0x1f1] + 1) * 512 + ofs
    with open(to, 'wb') as f:
        f.write(lzma.LZMADecompressor().decompress(data[start:start + length]))


def pvh(vmm):
    """Debian's PAE kernel as an ELF file: entered by the PVH protocol, with command line and initrd."""
    with tempfile.TemporaryDirectory(prefix='ringdown-pvh-') as d:
        kernel = os.path.join(d, 'vmlinux')
        vmlinux(program('vmlinuz-686-pae'), kernel)
        argv = vmm + ['-kernel', kernel, '-initrd', program('initrd.gz'), '-append', 'console=ttyS0', '-m', '256M',
                      '-nographic', '-no-reboot']
        with Guest(argv, transcript('pvh')) as g:
            g.ready(120)
            took = g.prompt(60)
            if g.must('cat /proc/cmdline').strip() != 'console=ttyS0':
                raise Fail('another command line')
            status = g.poweroff(60)
    if status != 0:
        raise Fail('status %d after poweroff -f' % status)
    return 'vmlinux of 686-pae at its prompt after %.1f s' % took


def refused(vmm, path, *words):
    """The VMM says in one line on stderr, with all words, why it takes no such kernel; -> the line."""
    done = subprocess.run(vmm + ['-kernel', path, '-m', '64M', '-display', 'none'], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
    text = done.stderr.decode('latin-1')
    name = os.path.basename(path)
    if done.returncode != 1 or done.stdout or text.count('\n') != 1 or len(text) > 600:
        raise Fail('%s: status %d, %d lines: %s' % (name, done.returncode, text.count('\n'), text[:300]))
    for word in words:
        if word not in text:
            raise Fail("%s: no '%s' in: %s" % (name, word, text))
    return text.strip()


def ipxe(vmm):
    """iPXE's kernel can be entered in real mode only, and that is what is said."""
    refused(vmm, program('ipxe.lkrn'), 'real mode', 'BIOS')
    return 'refused in one line'


def seabios(vmm, rom='/usr/share/seabios/bios-256k.bin', timeout=60):
    """SeaBIOS from Debian's package runs from the reset vector to its boot prompt."""
    if not os.path.exists(rom):
        raise Fail('no %s: install seabios' % rom)
    with tempfile.TemporaryDirectory(prefix='ringdown-seabios-') as d:
        path = os.path.join(d, 'monitor')
        p = subprocess.Popen(vmm + ['-bios', rom, '-m', '64M', '-display', 'none', '-serial', 'none', '-monitor',
                                    'unix:%s,server=on,wait=off' % path], stdin=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        started = time.monotonic()
        try:
            screen = Screen(Monitor(path, 10), d)
            version = screen.wait('SeaBIOS', lambda l: next((x.strip() for x in l if 'SeaBIOS' in x), None), timeout)
            screen.wait('the boot prompt', lambda l: True if any('No bootable device' in x for x in l) else None, timeout)
        except MonitorError as e:
            p.kill()
            raise Fail('%s; stderr: %s' % (e, p.stderr.read().decode('latin-1')[:200].strip())) from e
        finally:
            p.kill()
            p.wait()
            p.stderr.close()
    return '%s: at its boot prompt after %.1f s' % (version, time.monotonic() - started)


ALL = {'memtest': memtest, 'invaders': invaders, 'gnumach': gnumach, 'pvh': pvh, 'ipxe': ipxe, 'seabios': seabios}
ERRORS = (Fail, GuestError, OSError, subprocess.SubprocessError)
