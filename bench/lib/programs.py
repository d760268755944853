"""i386 programs for benches: compiled here as static programs in several placements, or taken from Debian's packages.

Shifting code by a few bytes moves small kernels by tens of per cent, on any machine and under any translator. So every
program of ours is linked several times, at other addresses and at another offset within a cache line, and a figure is the
median over all of them.
"""
import hashlib
import os
import shutil
import subprocess

from .guest import BUILD, ROOT, BenchError

# (address of the first segment, bytes in front of the program's code)
PLACEMENTS = ((0x08048000, 0), (0x0a123000, 16), (0x10000000, 48))
CFLAGS = ('-m32 -march=i686 -O2 -std=c11 -D_GNU_SOURCE -Wall -Wextra -static -fno-pie -no-pie -fcf-protection=none '
          '-fno-stack-protector -fno-asynchronous-unwind-tables').split()

# Native runs see the guest's processor features: SSE2, nothing later, its cache sizes, and none of the hints that glibc derives
# from the host's model. Checked with `ld.so --list-diagnostics` here and in the guest.
MASKED = '-SSE3,-SSSE3,-SSE4_1,-SSE4_2,-POPCNT,-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-BMI1,-BMI2,-LZCNT,-MOVBE,-ERMS,' \
         '-FSRM,-RTM,-XSAVE,-XSAVEC,-OSXSAVE,-Fast_Rep_String,-Fast_Copy_Backward,-Fast_Unaligned_Load,-Fast_Unaligned_Copy,' \
         '-Slow_BSF,-Prefer_PMINUB_for_stringop,-AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER,-Avoid_Short_Distance_REP_MOVSB'
TUNABLES = {'hwcaps': MASKED, 'x86_data_cache_size': 0x10000, 'x86_shared_cache_size': 0x100000,
            'x86_non_temporal_threshold': 0xc0000}


def native_environment():
    """The environment of a native run: the guest's processor features, and nothing that depends on the user."""
    return {'PATH': '/usr/bin:/bin', 'LC_ALL': 'C', 'GLIBC_TUNABLES': ':'.join('glibc.cpu.%s=%s' % t for t in TUNABLES.items())}


def compiler():
    """The command that compiles for i386; BenchError with what to install when there is none."""
    if shutil.which('i686-linux-gnu-gcc'):
        return ['i686-linux-gnu-gcc']
    probe = subprocess.run(['gcc', '-m32', '-static', '-x', 'c', '-', '-o', '/dev/null'], input=b'int main(void){return 0;}',
                           capture_output=True)
    if probe.returncode != 0:
        raise BenchError('no compiler for i386 programs: install the Debian package gcc-multilib')
    return ['gcc']


def _digest(parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(part if isinstance(part, bytes) else part.encode())
        h.update(b'\0')
    return h.hexdigest()


def _made(out, stamp, command):
    """Run `command` with a name behind it that it is to make, unless `out` was made with this stamp already.

    The name becomes `out` when it is whole, so that two runs may build at a time."""
    try:
        with open(out + '.stamp') as f:
            if f.read() == stamp and os.path.exists(out):
                return
    except OSError:
        pass
    part = '%s.%d.part' % (out, os.getpid())
    done = subprocess.run([*command, part], capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError('cannot build %s: %s' % (os.path.basename(out), (done.stderr.strip().splitlines() or ['no reason given'])[0]))
    os.replace(part, out)
    with open(part, 'w') as f:
        f.write(stamp)
    os.replace(part, out + '.stamp')


def build(cc, out, sources, flags=(), placement=0, headers=()):
    """Compile `sources` once for all placements, and link `out` at PLACEMENTS[placement]; nothing when it is up to date.

    With a placement of None, a dynamic program at its usual address."""
    address, pad = PLACEMENTS[placement or 0]
    command = cc + [f for f in CFLAGS if placement is not None or f != '-static'] + list(flags)
    common = [open(path, 'rb').read() for path in headers]
    os.makedirs(os.path.dirname(out), exist_ok=True)
    os.makedirs(os.path.join(BUILD, 'objects'), exist_ok=True)
    objects, stamps = [], []
    for path in sources:
        with open(path, 'rb') as f:
            stamp = _digest([*command, path, f.read(), *common])
        objects.append(os.path.join(BUILD, 'objects', '%s-%s.o' % (os.path.basename(path), stamp[:12])))
        stamps.append(stamp)
        _made(objects[-1], stamp, [*command, path, '-c', '-o'])
    padding = '%s.%d.s' % (out, os.getpid())
    with open(padding, 'w') as f:
        f.write('.text\n.skip %d, 0x90\n.section .note.GNU-stack,"",@progbits\n' % pad)
    _made(out, _digest([*command, hex(address), str(pad), *stamps]),
          [*command, '-Wl,-Ttext-segment=0x%x' % address, padding, *objects, '-o'])
    os.unlink(padding)
    return out


def unpack(name, packages):
    """-> a directory that holds the files of Debian's i386 packages; fetched when it is not there."""
    directory = os.path.join(BUILD, 'debian', name)
    listing = ' '.join(packages)
    done = os.path.join(directory, '.packages')
    try:
        with open(done) as f:
            if f.read() == listing:
                return directory
    except OSError:
        pass
    fetched = subprocess.run([os.path.join(ROOT, 'guests', 'real', 'fetch'), '--quiet', '--unpack', directory, *packages],
                             capture_output=True, text=True)
    if fetched.returncode != 0:
        raise BenchError('cannot fetch %s: %s' % (listing, (fetched.stderr.strip().splitlines() or ['no reason given'])[-1]))
    with open(done, 'w') as f:
        f.write(listing)
    return directory
