"""User workloads: static i386 programs of our own, and programs of Debian's, run by the host, Ringdown and QEMU's TCG.

Each program times itself in the steady state, inside the machine that runs it, and checks what it computes; the runner
compares the checksums of all systems. A round uses one of the placements of lib/programs.py.
"""
import os
import subprocess
import tempfile

from lib import guest, programs, results, runs
from lib.guest import BUILD, BenchError

TITLE = 'User workloads in the steady state'
SYSTEMS = ('native', 'ringdown', 'qemu')
HERE = os.path.dirname(os.path.abspath(__file__))
MARK = os.path.join(HERE, '..', 'lib', 'mark.h')

# Names of the programs, as they name their rows, and how they are compiled beyond what all have in common.
OURS = {'sieve': (), 'recursion': (), 'hash': (), 'sort': (), 'interp': (), 'chase': (), 'strings': (), 'lz-tree': (),
        'matrix-sse2': ('-msse2',), 'matrix-x87': ('-mfpmath=387',), 'large': ('-O1',)}
SOURCES = {'lz-tree': 'lz.c'}
PACKAGES = ('libc6', 'gzip', 'xz-utils', 'liblzma5', 'python3.11-minimal', 'libpython3.11-minimal', 'libexpat1', 'zlib1g')
LIBRARIES = ('lib/i386-linux-gnu', 'usr/lib/i386-linux-gnu')
# name: program in the packages' tree, arguments; {words} and {home} are replaced
THEIRS = {'gzip': ('bin/gzip', '-6 -c -n'), 'xz': ('usr/bin/xz', '-2 -c -T1'),
          'python3': ('usr/bin/python3.11', '-S {home}/words.py')}
CORPUS_BYTES = 1 << 20

LIMIT_NATIVE, LIMIT_INTERP, LIMIT_QEMU = 1.3, 1.5, 3
MEAN_NATIVE, MEAN_QEMU = 1.10, 6


def corpus():
    """Text like a language's: words drawn unevenly from a vocabulary, the same at every call."""
    state = 7

    def draw(below):
        nonlocal state
        state = (state * 1664525 + 1013904223) & 0xffffffff
        return (state >> 8) % below
    vocabulary = [''.join('etaoinshrdlucmfw'[min(draw(16), draw(16))] for _ in range(2 + draw(9))) for _ in range(4000)]
    out, size = [], 0
    while size < CORPUS_BYTES:
        word = vocabulary[min(draw(4000), draw(4000), draw(4000))] + ('\n' if draw(12) == 0 else ' ')
        out.append(word)
        size += len(word)
    return ''.join(out).encode()[:CORPUS_BYTES]


def names(options):
    """The workloads asked for by --only, or all."""
    return [n for n in [*OURS, *THEIRS] if not options.only or n in options.only]


def build(chosen, placement):
    """-> {name: path} of our programs in this placement, and `timed`."""
    cc, where = programs.compiler(), os.path.join(BUILD, 'user', str(placement))
    generated = os.path.join(BUILD, 'user', 'large.c')
    if 'large' in chosen:
        os.makedirs(os.path.dirname(generated), exist_ok=True)
        part = '%s.%d' % (generated, os.getpid())
        with open(part, 'w') as f:
            subprocess.run([os.path.join(HERE, 'large.py')], stdout=f, check=True)
        os.replace(part, generated)
    built = {}
    for name in chosen:
        if name in OURS:
            source = generated if name == 'large' else os.path.join(HERE, SOURCES.get(name, name + '.c'))
            built[name] = programs.build(cc, os.path.join(where, name), [source, os.path.join(HERE, 'harness.c')],
                                         ['-I', HERE, *OURS[name]], placement,
                                         [os.path.join(HERE, 'harness.h'), os.path.join(HERE, 'matrix.h'), MARK])
    built['timed'] = programs.build(cc, os.path.join(where, 'timed'), [os.path.join(HERE, 'timed.c')], (), placement, [MARK])
    return built


def script(chosen, home, debian, options):
    """The commands that measure, for /bin/sh on any of the systems. `home` has our programs, `debian` the packages."""
    lines = ['export PYTHONHOME=%s/usr' % debian]
    for name in chosen:
        if name in OURS:
            lines.append('%s/%s %d %d || exit 1' % (home, name, options.warm_ms, options.measure_ms))
        else:
            program, arguments = THEIRS[name]
            # By way of their own loader, with their own libraries: the same bytes on the host and in the guest.
            lines.append('%s/timed %s %d %s/corpus %s/lib/ld-linux.so.2 --library-path %s %s/%s %s || exit 1' % (
                home, name, options.program_runs, home, debian, ':'.join('%s/%s' % (debian, l) for l in LIBRARIES),
                debian, program, arguments.format(home=home)))
    return '\n'.join(lines) + '\n'


class Placement:
    """Everything that a round in one placement needs: a directory on the host and the guests' initrd, under `scratch`."""

    def __init__(self, number, chosen, options, scratch):
        built = build(chosen, number)
        self.home = os.path.join(scratch, 'placement-%d' % number)
        os.mkdir(self.home)
        for name, path in built.items():
            os.symlink(path, os.path.join(self.home, name))
        debian = programs.unpack('user', PACKAGES) if set(chosen) & set(THEIRS) else None
        for name, body in (('corpus', corpus()), ('words.py', open(os.path.join(HERE, 'words.py'), 'rb').read())):
            with open(os.path.join(self.home, name), 'wb') as f:
                f.write(body)
        with open(os.path.join(self.home, 'native.sh'), 'w') as f:
            f.write(script(chosen, self.home, debian, options))
        files = {'bench/' + name: path for name, path in built.items()}
        files.update({'bench/' + name: os.path.join(self.home, name) for name in ('corpus', 'words.py')})
        files['bench/guest.sh'] = script(chosen, '/bench', '/bench/debian', options).encode()
        if debian:
            files.update(guest.tree(debian, 'bench/debian'))
        self.initrd = guest.make_initrd(os.path.join(self.home, 'initrd'), files)

    def measure(self, system, options):
        """-> {name: guest.Measured}, in the order of the script"""
        if system != 'native':
            booted = guest.boot(system, options, self.initrd, 'sh /bench/guest.sh')
            return booted.measured()
        done = subprocess.run(['sh', os.path.join(self.home, 'native.sh')], env=programs.native_environment(),
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError('native: %s' % (done.stdout + done.stderr).strip()[-200:])
        rows = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith('row ')]
        return {row[0]: guest.Measured(row) for row in rows}


def run(options):
    """-> the suites: steady state in processor time, the same by each machine's clock, and first repetitions"""
    chosen = names(options)
    if not chosen:
        return []
    with tempfile.TemporaryDirectory(prefix='ringdown-bench-') as scratch:
        rows, checksums = measure(chosen, options, scratch)
    return suites(chosen, options.systems(SYSTEMS), rows, checksums)


def measure(chosen, options, scratch):
    """-> ({(name, clock): {system: samples}}, {name: checksum})"""
    checksums = {}
    used = [Placement(i, chosen, options, scratch) for i in range(min(options.rounds, len(programs.PLACEMENTS)))]

    def one(system, number):
        found = used[number % len(used)].measure(system, options)
        if list(found) != chosen:
            raise BenchError('%s: not all rows came: %s' % (system, ', '.join(found)))
        for name, m in found.items():
            if checksums.setdefault(name, m.checksum) != m.checksum:
                raise BenchError('%s on %s: checksum %s, elsewhere %s' % (name, system, m.checksum, checksums[name]))
        return {(name, clock): getattr(m, clock) for name, m in found.items() for clock in ('cpu', 'elapsed', 'first')}
    return runs.interleave(options.systems(SYSTEMS), options.rounds, one, options.say), checksums


def suites(chosen, systems, rows, checksums):
    def targets(name):
        return [results.Target('ringdown', LIMIT_INTERP if name == 'interp' else LIMIT_NATIVE, 'native'),
                results.Target('qemu', LIMIT_QEMU, 'ringdown', at_least=True)]
    ratios = [('ringdown', 'native'), ('qemu', 'ringdown')]
    bounded = [results.Mean('ringdown', 'native', MEAN_NATIVE), results.Mean('qemu', 'ringdown', MEAN_QEMU, at_least=True)]
    free = [results.Mean('ringdown', 'native'), results.Mean('qemu', 'ringdown')]

    def suite(name, title, clock, bounds, means):
        return results.Suite(name, title, systems, [results.Row(n, 'ns', rows[n, clock], bounds(n)) for n in chosen], ratios,
                             means, details=dict(checksums=checksums))
    return [suite('user', TITLE + ', processor time', 'cpu', targets, bounded),
            suite('user-elapsed', TITLE + ', elapsed time', 'elapsed', lambda name: (), free),
            suite('user-first', 'User workloads, first repetition, elapsed time', 'first', lambda name: (), free)]
