"""System workloads: what a kernel does for its programs, in the same guest under Ringdown and QEMU's TCG.

A round boots each system once with everything in one initrd and measures all events in it, and boots it once more with the
small initrd for the time to userland and the cost of an idle guest.
"""
import os
import tempfile

from lib import guest, programs, results, runs
from lib.guest import BUILD, BenchError

TITLE = 'System workloads'
SYSTEMS = ('ringdown', 'qemu')
HERE = os.path.dirname(os.path.abspath(__file__))
USER = os.path.join(HERE, '..', 'user')
MARK = os.path.join(HERE, '..', 'lib', 'mark.h')

EVENTS = ('syscall-int80', 'syscall', 'fork', 'exec-tiny', 'exec-glibc', 'fault-anon', 'fault-file', 'fault-cow',
          'mmap-munmap', 'mprotect', 'self-modify', 'signal', 'pipe', 'switch-2', 'switch-8', 'switch-64')
# name: (directory it works in, shell command); what it prints is compared between the systems
COMMANDS = {
    'shell-loop': ('/', 'i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; echo $i'),
    'find': ('/bench', 'find tree -type f -name [a-m]* | sort; find tree | wc -l'),
    'tar': ('/bench', 'tar cf - tree | md5sum'),
    'gzip': ('/bench', 'find tree -type f | sort | xargs cat | gzip -1 -n | md5sum'),
    'make': ('/tmp', 'rm -rf m; cp -r /bench/make m; cd m; make -s -j2 && for p in run-*; do ./$p; done'),
}
BOOTS = ('boot-686', 'boot-686-pae')
OVERHEADS = IDLE, MEMORY = 'idle', 'memory'
IDLE_SECONDS = 4
PACKAGES = ('libc6', 'libc6-dev', 'linux-libc-dev', 'libcrypt1', 'tcc', 'make')
NEED_PACKAGES = {'exec-glibc', 'make'}
LEFT_OUT = ('usr/share/', 'usr/lib/i386-linux-gnu/gconv/')

# (at least, goal) times faster than QEMU; others (2, 3)
SPEEDUPS = {'pipe': (2, 5), 'switch-2': (2, 5), 'switch-8': (2, 5), 'switch-64': (2, 5), 'self-modify': (2, 20),
            'boot-686': (4, None), 'boot-686-pae': (4, None)}
IDLE_LIMIT_NS = 10e6      # a second: 1 % of a core
MEMORY_LIMIT_MIB = 100


def tree():
    """240 files of text in 40 directories, 1.5 MB, the same at every call."""
    state, files = 7, {}

    def draw(below):
        nonlocal state
        state = (state * 1664525 + 1013904223) & 0xffffffff
        return (state >> 8) % below
    words = [''.join(chr(97 + draw(26)) for _ in range(2 + draw(8))) for _ in range(500)]
    for i in range(240):
        lines = [' '.join(words[min(draw(500), draw(500))] for _ in range(8)) for _ in range(20 + draw(220))]
        files['bench/tree/%02d/%s/%s%d.txt' % (i % 20, words[i % 2], words[i], i)] = ('\n'.join(lines) + '\n').encode()
    return files


def files(chosen, options):
    """What the initrd holds, for guest.make_initrd."""
    cc, where = programs.compiler(), os.path.join(BUILD, 'system')
    bare = ('-nostdlib', '-nostartfiles')
    found = {'bench/events': programs.build(cc, os.path.join(where, 'events'), [os.path.join(HERE, 'events.c')], (), 0, [MARK]),
             'bench/tiny': programs.build(cc, os.path.join(where, 'tiny'), [os.path.join(HERE, 'tiny.c')], bare),
             'bench/timed': programs.build(cc, os.path.join(where, 'timed'), [os.path.join(USER, 'timed.c')], (), 0, [MARK]),
             'bench/dynamic': programs.build(cc, os.path.join(where, 'dynamic'), [os.path.join(HERE, 'dynamic.c')], (), None)}
    if set(chosen) & NEED_PACKAGES:
        debian = programs.unpack('system', PACKAGES)
        found.update({name: path for name, path in guest.tree(debian, '').items()
                      if not name.startswith(LEFT_OUT) and name != '.packages'})
    found.update(tree())
    for name in ('sieve', 'recursion', 'hash', 'sort', 'interp', 'chase', 'strings', 'lz'):
        found['bench/make/%s.c' % name] = os.path.join(USER, name + '.c')
    found['bench/make/harness.h'] = os.path.join(USER, 'harness.h')
    found['bench/make/check.c'] = os.path.join(HERE, 'check.c')
    found['bench/make/Makefile'] = os.path.join(HERE, 'Makefile.guest')
    script = ['mount -t tmpfs tmpfs /tmp']
    events = [name for name in EVENTS if name in chosen]
    if events:
        script.append('/bench/events %d %d %s || exit 1' % (options.warm_ms, options.measure_ms, ' '.join(events)))
    for name, (directory, command) in COMMANDS.items():
        if name in chosen:
            found['bench/%s.sh' % name] = ('cd %s\n%s\n' % (directory, command)).encode()
            script.append('/bench/timed %s %d /dev/null /bin/sh /bench/%s.sh || exit 1' % (name, options.program_runs, name))
    found['bench/guest.sh'] = ('\n'.join(script) + '\n').encode()
    return found


def measure_boots(system, options, chosen):
    """-> {(name, clock): figure} of boots to userland, of a guest that sleeps, and of the memory the monitor takes"""
    found = {}
    for kernel in ('686', '686-pae'):
        name = 'boot-' + kernel
        sleeps = kernel == '686' and (IDLE in chosen or MEMORY in chosen)
        if name not in chosen and not sleeps:
            continue
        booted = guest.boot(system, options, guest.base_initrd(), kernel=kernel,
                            run='echo begin idle; sleep %d; echo end idle' % IDLE_SECONDS if sleeps else 'true')
        found[name, 'cpu'], found[name, 'elapsed'] = booted.cpu_ready * 1e9, booted.ready * 1e9
        if sleeps:
            found[IDLE, 'cpu'] = booted.between['idle'] / IDLE_SECONDS
            if system == 'ringdown':
                found[MEMORY, 'cpu'] = booted.memory_mib
    return found


def targets(name):
    if name == IDLE:
        return [results.Target('ringdown', IDLE_LIMIT_NS)]
    if name == MEMORY:
        return [results.Target('ringdown', MEMORY_LIMIT_MIB)]
    least, goal = SPEEDUPS.get(name, (2, 3))
    return [results.Target('qemu', least, 'ringdown', at_least=True)] + (
        [results.Target('qemu', goal, 'ringdown', at_least=True, goal=True)] if goal else [])


def run(options):
    """-> the suites: processor time with the targets, and elapsed time by the guest's clock"""
    everything = [*EVENTS, *COMMANDS, *BOOTS, IDLE, MEMORY]
    chosen = [n for n in everything if not options.only or n in options.only]
    inside = [n for n in chosen if n in EVENTS or n in COMMANDS]
    if not chosen:
        return []
    checksums = {}

    def measure(system, _):
        found = {}
        if inside:
            measured = guest.boot(system, options, initrd.name, 'sh /bench/guest.sh', mem='512M').measured()
            if list(measured) != inside:
                raise BenchError('%s: not all rows came: %s' % (system, ', '.join(measured)))
            for name, m in measured.items():
                if checksums.setdefault(name, m.checksum) != m.checksum:
                    raise BenchError('%s on %s: another checksum than elsewhere' % (name, system))
                found.update({(name, clock): getattr(m, clock) for clock in ('cpu', 'elapsed', 'first')})
        found.update(measure_boots(system, options, chosen))
        return found
    systems = options.systems(SYSTEMS)
    with tempfile.NamedTemporaryFile(prefix='ringdown-bench-') as initrd:
        if inside:
            guest.make_initrd(initrd.name, files(inside, options))
        # A round has three boots of each system: --quick makes do with half as many.
        rounds = max(1, options.rounds // 2) if options.quick else options.rounds
        rows = runs.interleave(systems, rounds, measure, options.say)

    def suite(name, title, wanted, clock, bounds, ratios):
        return results.Suite(name, title, systems,
                             [results.Row(n, 'MiB' if n == MEMORY else 'ns', rows[n, clock], bounds(n))
                              for n in wanted if (n, clock) in rows], ratios, [results.Mean(*r) for r in ratios])
    timed = [n for n in chosen if n not in OVERHEADS]
    ratios = [('qemu', 'ringdown')]
    found = [suite('system', TITLE + ', processor time', timed, 'cpu', targets, ratios),
             suite('system-elapsed', TITLE + ', elapsed time', timed, 'elapsed', lambda name: (), ratios),
             suite('overhead', 'The monitor itself: processor time a second of an idle guest, memory beside the guest\'s',
                   [n for n in chosen if n in OVERHEADS], 'cpu', targets, [])]
    return [s for s in found if s.rows]
