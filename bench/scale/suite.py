"""What grows, and how: the cost of an event as guests get larger, on Ringdown and QEMU's TCG.

Four sizes: processes in a guest, its memory, the code it runs and the heap it walks, and the number of virtual machines
side by side. Every figure is what the host's processors spent on an event (guests.py), so that a busy host
disturbs it little; the code and the heap run alone on the host as well.
"""
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..'))

from lib import results, runs  # noqa: E402
from scale import guests       # noqa: E402

TITLE = 'Scale: processor time an event, as guests grow'
NATIVE = 'native'
PARTS = ('processes', 'code', 'heap', 'memory', 'vms')

# Sizes: the whole run and the quick one.
SIZES = {
    'processes': ((10, 50, 200, 500, 1000, 2000), (10, 500)),
    'ring': ((2, 10, 50, 200, 500, 1000, 2000), (2, 200)),
    'code': ((128, 1024, 4096, 16384, 65536), (128, 4096)),
    'heap': ((16, 64, 128, 256, 512), (16, 128)),
    'memory': ((64, 128, 256, 512, 1024, 2048, 3072), (64, 3072)),
    'vms': ((1, 2, 4, 8, 16), (1, 4)),
}
ROOM = 1024 # MiB of the guest that everything but `memory` and `vms` runs in


def kib(size):
    return '%d KiB' % size if size < 1024 else '%d MiB' % (size // 1024)


class Bench:
    def __init__(self, options, files):
        self.options, self.files = options, files
        self.parts = [part for part in PARTS if not options.only or part in options.only]
        self.elapsed = {}  # row: {system: [ns an event by the guest's own clock]}

    def sizes(self, axis):
        return SIZES[axis][bool(self.options.quick)]

    def take(self, found, system, name, figure):
        found[name] = [figure[0]]
        self.elapsed.setdefault(name, {}).setdefault(system, []).append(round(figure[1], 1))

    def in_one_guest(self, system, found):
        """Processes, code and heap, smallest first."""
        with guests.boot(system, self.options, self.files, ROOM) as session:
            if 'processes' in self.parts:
                for n in self.sizes('processes'):
                    self.take(found, system, 'fork, %d processes' % n, session.ask('fork %d 300' % n)['fork'])
                for n in self.sizes('processes'):
                    self.take(found, system, 'exec, %d processes' % n, session.ask('exec %d 200' % n)['exec'])
                for n in self.sizes('ring'):
                    self.take(found, system, 'switch, %d processes' % n,
                              session.ask('ring %d %d' % (n, max(4, 8000 // n)))['ring'])
            self.code_and_heap(system, session, found)

    def code_and_heap(self, system, session, found):
        if 'heap' in self.parts:
            for n in self.sizes('heap'):
                costs = session.ask('heap %d' % n)
                self.take(found, system, 'heap of %d MiB, first' % n, costs['heap-first'])
                self.take(found, system, 'heap of %d MiB, again' % n, costs['heap-again'])
        if 'code' in self.parts:
            for n in self.sizes('code'):
                costs = session.ask('code %d' % n)
                self.take(found, system, 'code of %s, first' % kib(n), costs['code-first'])
                self.take(found, system, 'code of %s, again' % kib(n), costs['code-again'])
            # The kernel hands out pages again that held code, and clears them.
            self.take(found, system, 'first touch of what was code', session.ask('touch 8')['touch'])

    def by_memory(self, system, found):
        for mib in self.sizes('memory'):
            with guests.boot(system, self.options, self.files, mib) as session:
                found['boot, %d MiB' % mib] = [session.boot_ns]
                self.take(found, system, 'fork, %d MiB' % mib, session.ask('fork 10 300')['fork'])
                self.take(found, system, 'first touch, %d MiB' % mib, session.ask('touch 16')['touch'])
                whole, ram = guests.memory_kib(session.pid)
                if system != 'qemu':  # whose RAM is not told apart
                    found['kept beside RAM, %d MiB' % mib] = [whole - ram]

    def by_vms(self, system, found):
        """Sessions of the same work at once. Their commands are started together and run side by side."""
        for n in self.sizes('vms'):
            sessions = []
            try:
                for _ in range(n):
                    sessions.append(guests.boot(system, self.options, self.files, 128))
                for command, part, what in (('fork 10 300', 'fork', 'fork'), ('code 1024', 'code-again', 'code of 1 MiB'),
                                            ('touch 16', 'touch', 'first touch')):
                    costs = together(sessions, command)
                    found['%s, %d VMs' % (what, n)] = [sum(c[part][0] for c in costs) / n]
                    self.elapsed.setdefault('%s, %d VMs' % (what, n), {}).setdefault(system, []).append(
                        round(sum(c[part][1] for c in costs) / n, 1))
            finally:
                for session in sessions:
                    session.guest.close()

    def measure(self, system, _):
        found = {}
        if system == NATIVE:
            with guests.native(self.files) as session:
                self.code_and_heap(system, session, found)
            return found
        if set(self.parts) & {'processes', 'code', 'heap'}:
            self.in_one_guest(system, found)
        if 'memory' in self.parts:
            self.by_memory(system, found)
        if 'vms' in self.parts:
            self.by_vms(system, found)
        return found


def together(sessions, command):
    """Ask all of them at once; -> what each found."""
    import threading
    found, errors = [None] * len(sessions), []

    def ask(i):
        try:
            found[i] = sessions[i].ask(command)
        except guests.GuestError as error:
            errors.append(error)
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def growth(suite):
    """-> [(what, smallest, largest, {system: cost at the largest / cost at the smallest})]"""
    series = {}
    for row in suite.rows:
        what, _, size = row.name.rpartition(', ')
        if size in ('first', 'again'):
            what, _, size = ('%s, %s' % (what.rpartition(' of ')[0], size), None, what.rpartition(' of ')[2])
        series.setdefault((what, size.split()[-1] if size.split()[-1] in ('processes', 'VMs') else 'size'), []).append((size, row))
    found = []
    for (what, _), rows in series.items():
        (small, first), (large, last) = rows[0], rows[-1]
        factors = {}
        for system in suite.systems:
            a, b = first.summary(system), last.summary(system)
            if a and b and a.median > 0:
                factors[system] = b.median / a.median
        if len(rows) > 1:
            found.append((what, small, large, factors))
    return found


def run(options):
    """@param options  those of bench/run, whose --only takes parts here; and accel: list of option strings, a column each
       @return a results.Suite; [] when no part is asked for"""
    with guests.Files() as files:
        bench = Bench(options, files)
        if not bench.parts:
            return []
        ours = ['ringdown' + (' ' + accel if accel else '') for accel in getattr(options, 'accel', None) or ['']]
        systems = ours + ([] if options.no_qemu else ['qemu'])
        systems += [NATIVE] if {'code', 'heap'} & set(bench.parts) else []
        # A round takes minutes and is little disturbed: a third of the rounds that short suites take.
        try:
            measured = runs.interleave(systems, max(1, options.rounds // 3), bench.measure, options.say)
        except (guests.GuestError, OSError) as error:
            raise guests.BenchError('scale: %s' % error) from error
    rows = [results.Row(name, 'KiB' if 'beside RAM' in name else 'ns', samples) for name, samples in measured.items()]
    ratios = [] if options.no_qemu else [('qemu', ours[0])]
    suite = results.Suite('scale', TITLE, systems, rows, ratios, [results.Mean(*r) for r in ratios],
                          details=dict(elapsed=bench.elapsed))
    suite.details['growth'] = [dict(what=w, smallest=s, largest=l, factors=f) for w, s, l, f in growth(suite)]
    return suite
