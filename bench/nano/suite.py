"""What single events cost: guests/bench/nano on Ringdown, QEMU's TCG and Bochs, in core clocks.

The guest measures each event in several places in memory and prints a line a place; the figure of a round is the
median of its places. Core clocks come from dependent additions timed just before and after, in the same guest.
Bochs counts instructions instead of time, so its column says how many instructions' worth of time it takes
an event to be; it is there to prove the guest.
"""
import os
import re
import shlex
import statistics
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'tests', 'guest'))
sys.path.insert(0, os.path.join(HERE, '..'))

import machines             # noqa: E402  the machines that test guests boot on
from lib import guest, results, runs  # noqa: E402

TITLE = 'Nanobenchmarks: core clocks an event'
UNIT = 'clocks'
CHAIN = 4096  # dependent additions of the guest's calibration, nano.h

# Adams and Agesen, "A Comparison of Software and Hardware Techniques for x86 Virtualization", ASPLOS 2006, section on
# nanobenchmarks: cycles of a 3.8 GHz Pentium 4 672. From the literature at second hand: the paper itself was
# not at hand when they were entered.
NATIVE, SOFTWARE, HARDWARE = 'native 2006', 'software VMM 2006', 'first VT-x 2006'
PUBLISHED = {
    'syscall_sysenter': (242, 2308, 242), 'in': (3209, 216, 15826), 'call_ret': (11, 40, 11),
    'page_fault_only': (1093, 3927, 11242), 'divide_error': (889, 3223, 1014), 'pte_store': (1, 391, 12733),
}

# Core clocks that Ringdown is to stay within.
TARGETS = {
    'syscall_int80': 242, 'syscall_sysenter': 242, 'cli_sti': 10, 'pushf_popf': 10, 'irq_self': 1000, 'irq_async': 12000,
    'ptemod': 391, 'pte_store': 391, 'call_ret': 40, 'in': 217,
}

# In the order of the table: event, what it is.
EVENTS = (
    ('syscall_int80', 'INT 80h from ring 3 and IRET'),
    ('syscall_sysenter', 'SYSENTER and SYSEXIT'),
    ('in', "IN, the UART's scratch register"),
    ('in_80', 'IN, port 80h'),
    ('in_pic', "IN, the PIC's mask"),
    ('out', "OUT, the UART's scratch register"),
    ('cr3_load', 'CR3 with what it holds'),
    ('cr3_switch', 'CR3 with another address space, a page read'),
    ('mov_from_cr0', 'CR0 read'),
    ('cli_sti', 'CLI and STI'),
    ('pushf_popf', 'PUSHF and POPF'),
    ('pushf_cli_popf', 'PUSHF, CLI, POPF'),
    ('segment_load', 'MOV to DS or ES'),
    ('call_ret', 'CALL and RET'),
    ('call_indirect', 'CALL by a register and RET'),
    ('call_indirect_4', 'the same, four callees in turn'),
    ('far_call', 'CALL and RET far, same ring'),
    ('int_same_ring', 'INT n in ring 0 and IRET'),
    ('task_switch', 'JMP to a TSS'),
    ('divide_error', '#DE from ring 3, handler and IRET'),
    ('page_fault', '#PF from ring 3, handler makes the page present'),
    ('page_fault_only', '#PF from ring 3, handler and IRET'),
    ('invlpg', 'INVLPG'),
    ('invlpg_touch', 'INVLPG and a read: a hidden fault'),
    ('cr3_touch', 'first read of a page after CR3, 32 pages'),
    ('pte_store', 'store to a live page table'),
    ('pte_store_used', 'the same, to the entry of a page that was read'),
    ('ptemod', 'store to an entry, INVLPG, read of the page'),
    ('irq_self', 'interrupt raised by an OUT, acknowledged, IRET'),
    ('irq_async', 'interrupt of the timer: time a computation loses'),
    ('irq_lateness', 'how late the timer interrupts a computation'),
    ('hlt_pending', 'the self-raised interrupt taken in HLT'),
    ('hlt_wakeup', 'how late the timer wakes HLT'),
    ('context_switch_1', 'CR3, stack, one page read and written'),
    ('context_switch_16', 'the same, 16 pages'),
    ('context_switch_128', 'the same, 128 pages'),
    ('cpuid', 'CPUID'),
    ('rdtsc', 'RDTSC'),
)

LINE = re.compile(r'event (\w+) place 0x[0-9a-f]+ samples \d+ cost (\d+) p10 (\d+) p90 (\d+) chain (\d+) (\d+) '
                  r'wide (\d+) (\d+)$')


class GuestFailed(guest.BenchError):
    pass


def parse(lines, who):
    """-> {event: [core clocks, a place each]} of what a guest printed.

    Raises GuestFailed when a check failed, or when the end is missing: some events then did not happen."""
    found, checked = {}, set()
    for line in lines:
        line = line.strip()
        match = LINE.match(line)
        if match:
            cost, chain = int(match[2]) / 100, (int(match[5]) + int(match[6])) / 2
            found.setdefault(match[1], []).append(cost * CHAIN / chain)
        elif line.startswith(('FAIL', 'LOST', 'block ')):
            raise GuestFailed('%s: %s' % (who, line))
        elif line.startswith('ok '):
            checked.add(line[3:])
    if not lines or not any(line.startswith('done') for line in lines):
        raise GuestFailed('%s: no end; last line: %s' % (who, lines[-1] if lines else 'none'))
    if set(found) - checked:
        raise GuestFailed('%s: unchecked: %s' % (who, ' '.join(sorted(set(found) - checked))))
    return found


class Ringdown(machines.Ringdown):
    """With the further arguments of --ringdown-args."""

    def __init__(self, options, accel):
        super().__init__(options.ringdown, accel)
        self.arguments = shlex.split(getattr(options, 'ringdown_args', ''))

    def command(self, *args):
        return super().command(*args) + self.arguments


def systems(options):
    """-> {name: machine}; the first is the one that targets are judged by."""
    found = {}
    for accel in getattr(options, 'accel', None) or ['']:
        found['ringdown' + (' ' + accel if accel else '')] = Ringdown(options, accel or None)
    if not options.no_qemu:
        found['qemu'] = machines.Qemu()
    if getattr(options, 'bochs', False):
        found['bochs'] = machines.Bochs()
    return found


def image_beside(ringdown):
    return os.path.join(os.path.dirname(os.path.abspath(ringdown)), 'guests', 'bench', 'nano.bz')


def run(options):
    """@param options  those of bench/run, whose --only takes events here; and accel: list of option strings, a column each;
                       bochs: whether; image; logs: {column: file of a serial port}, from hardware
       @return a results.Suite; [] when no event is asked for"""
    known = {event for event, _ in EVENTS}
    events = [event for event in options.only if event in known]
    if options.only and not events:
        return []
    image = getattr(options, 'image', None) or image_beside(options.ringdown)
    who, places = systems(options), {}
    words = (['quick'] if options.quick else []) + (['pick'] + events if events else [])

    def measure(name, _):
        try:
            outcome = who[name].boot(image, ['short'] + words if name == 'bochs' else words, timeout=300)
        except OSError as error:
            raise GuestFailed('%s: %s' % (name, error)) from error
        found = parse(outcome.lines, name)
        for event, costs in found.items():
            places.setdefault(event, {}).setdefault(name, []).append([round(c, 2) for c in costs])
        return {event: statistics.median(costs) for event, costs in found.items()}

    measured = runs.interleave(list(who), options.rounds, measure, options.say)
    names = list(who)
    for name, path in (getattr(options, 'logs', None) or {}).items():
        with open(path, errors='replace') as f:
            for event, costs in parse(f.read().replace('\r', '').split('\n'), path).items():
                measured.setdefault(event, {})[name] = [statistics.median(costs)]
        names.append(name)
    first = next(iter(who))
    rows = []
    for event, what in EVENTS:
        if event in measured:
            published = dict(zip((NATIVE, SOFTWARE, HARDWARE), PUBLISHED.get(event, ())))
            targets = [results.Target(first, TARGETS[event])] if event in TARGETS else []
            rows.append(results.Row(event, UNIT, measured[event], targets, what, published))
    gaps = ['%s: absent on every system' % event for event, _ in EVENTS
            if event not in measured and (not events or event in events)]
    ratios = [] if options.no_qemu else [('qemu', first)]
    return results.Suite('nano', TITLE, names, rows, ratios, [results.Mean(*r) for r in ratios], gaps, dict(places=places))
