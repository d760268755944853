"""The report of bench/coherency as one HTML file, and a viewer for event logs (coherency_view.py)."""
import coherency_view
from lib import machine, page, stats, svg, text

# Counters that are shown for each event.
COUNTS = (
    ('inval_write', 'CCFs dropped'),
    ('insn_translated', 'instructions translated'),
    ('traced_store', 'traced stores'),
    ('traced_store_false', 'that hit no CCF'),
    ('coherency_patched', 'CCFs patched'),
    ('coherency_parked', 'set aside'),
    ('coherency_unchanged', 'left as they were'),
    ('coherency_moves', 'moves'),
    ('faults', 'host faults'),
    ('dispatch', 'exits'),
)

SERIES = {
    'trace': page.Series('trace', 'trace', 'blue', 'pages of code are watched, what is written is translated anew'),
    'check': page.Series('check', 'check', 'amber', 'translations compare their source before they run'),
    'patch': page.Series('patch', 'patch', 'green', 'constants that change are patched in place'),
    'retranslate': page.Series('retranslate', 'retranslate', 'violet', 'changed instructions only are translated anew'),
    'adaptive': page.Series('adaptive', 'adaptive', 'coral', 'what suits each page'),
    'qemu': page.Series('qemu', 'QEMU TCG', 'grey', 'qemu-system-i386 -accel tcg, the same guest'),
    'native': page.Series('native', 'native', 'ink', 'the same code as a program on the bare processor'),
}
SPARE = ('teal', 'pink')

# What the project promises: workload, machine, largest time in ns or least speed-up over QEMU.
TARGETS = (
    ('modify-constant', 'adaptive', 'ns', 250),
    ('emit-and-run', 'adaptive', 'qemu', 5),
    ('mixed-page', 'adaptive', 'qemu', 5),
    ('modify-by-alias', 'adaptive', 'qemu', 1),
    ('patch-text', 'adaptive', 'qemu', 1),
    ('patch-kernel', 'adaptive', 'qemu', 1),
)


def counts(one):
    return [text.digits(one['per_event'][n]) if one['per_event'][n] >= 0.005 else '0' for n, _ in COUNTS]


def percent(one):
    return '%.0f %%' % (100 * one['share']) if 'share' in one else ''


def series_of(results):
    spare = list(SPARE)
    return [SERIES.get(m['key']) or page.Series(m['key'], m['name'], spare.pop(0) if spare else 'ink')
            for m in results['machines']]


def summary_of(load, key, what='ns'):
    found = load['machines'].get(key, {}).get(what)
    return stats.Summary(found) if found else None


def speed_up(load, key):
    """Summary of QEMU's time over this one's, in the same rounds; None where there are no two."""
    ours, theirs = load['machines'].get(key), load['machines'].get('qemu')
    return stats.ratio(theirs['ns'], ours['ns']) if ours and theirs and key != 'qemu' else None


def verdicts(results):
    """[(figure, what, 'good' | 'bad')] of TARGETS that were measured."""
    out = []
    for name, key, what, bound in TARGETS:
        load = results['loads'].get(name)
        value = load and (summary_of(load, key) if what == 'ns' else speed_up(load, key))
        if not value:
            continue
        if what == 'ns':
            out.append((svg.shown(value.median, 'ns'), '%s, %s; wanted: under %d ns' % (load['title'], key, bound),
                        'good' if value.median < bound else 'bad'))
        else:
            out.append(('%s ×' % text.digits(value.median), 'faster than QEMU TCG: %s, %s; wanted: %s' % (
                load['title'], key, 'at least %d ×' % bound if bound > 1 else 'ahead of it'),
                'good' if value.median >= bound else 'bad'))
    return out


def _card(load, results):
    series = series_of(results)
    rows = [(s.name, s.key, summary_of(load, s.key)) for s in series]
    notes = {}
    for s in series:
        ratio = speed_up(load, s.key)
        if ratio:
            notes[s.key] = '%s ×' % text.digits(ratio.median)
    parts = {s.key: summary_of(load, s.key, 'control_ns') for s in series}
    parts = {k: p for k, p in parts.items() if p}
    return page.card(load['title'], svg.bars(rows, 'ns', 'nanoseconds an event: ' + load['title'], notes=notes, parts=parts,
                                             part_name='without change'), 'An event: ' + load['event'] + '.')


def _overview(results):
    series = series_of(results)
    rows = [(load['title'], {s.key: summary_of(load, s.key) for s in series}) for load in results['loads'].values()]
    return page.card('', svg.dots(rows, [(s.key, s.name) for s in series], 'ns', 'all workloads, nanoseconds an event'))


def _times(results):
    head = ['ns an event'] + [m['name'] for m in results['machines']]
    rows = []
    for load in results['loads'].values():
        found = [summary_of(load, m['key']) for m in results['machines']]
        ours = [s.median for s, m in zip(found, results['machines']) if s and m['key'] not in ('qemu', 'native')]
        cells = [load['title']]
        for s, m in zip(found, results['machines']):
            best = s and ours and m['key'] not in ('qemu', 'native') and s.median <= min(ours)
            cells.append((svg.shown(s.median, 'ns'), '%s – %s' % (svg.shown(s.low, 'ns'), svg.shown(s.high, 'ns')),
                          'best' if best else '') if s else '–')
        rows.append(cells)
    return page.card('', page.table(head, rows))


def _counts(results):
    rows = []
    for load in results['loads'].values():
        first = True
        for m in results['machines']:
            one = load['machines'].get(m['key'])
            if one and one['per_event']:
                cells = [(c, '', 'zero') if c == '0' else c for c in counts(one)]
                rows.append([load['title'] if first else '', m['name'], *cells, percent(one)])
                first = False
    return page.fold('All counters of all workloads', page.table(['', 'policy', *(what for _, what in COUNTS), 'due to change'], rows))


ABOUT = """Each workload changes code in its own way. The guest is the same under Ringdown and QEMU, and the same functions run
as a program on the bare processor; all keep time by the time-stamp counter, and check every value that comes back."""


def of_results(results):
    body = page.tiles(verdicts(results)) + page.legend(series_of(results))
    body += page.section('At a glance', _overview(results),
                         'Medians on a logarithmic scale, with lines from the lowest to the highest run. Point at a mark for its '
                         'figures; the legend shows and hides.')
    body += page.section('Workload by workload', '<div class="grid">%s</div>' % ''.join(
        _card(load, results) for load in results['loads'].values()),
        'The dark part of a bar is what the same stores and calls cost when the code that runs stays as it is; behind the '
        'figure, how many times faster than QEMU.')
    body += page.section('Times', _times(results), 'Median, lowest and highest boot. The best policy is set in bold.')
    body += page.section('What happened', _counts(results),
                         'Counters for each event, and the share of its time that is due to code having changed.')
    if results.get('logs'):
        body += coherency_view.section(results['logs'])
    body += page.section('How this was measured', page.card('', page.facts([
        ('machine', machine.line(results['host'])),
        ('boots', '%d of each, interleaved; a boot gives the lower quartile of %d rounds' % (results['runs'], results['rounds'])),
        ('a round', 'lasts %d ticks of the time-stamp counter at least' % results['ticks']),
        ('command', results['command'])])))
    style, script = (coherency_view.STYLE, coherency_view.SCRIPT) if results.get('logs') else ('', '')
    return page.page('Code that changes', ABOUT, body, series_of(results), style, script)


def of_logs(logs):
    """A page of event logs alone. logs: [(title, text)]"""
    return page.page('Code that changes', 'Event logs of a guest that changes its code: when, where, by which instruction, and '
                     'what became of the translations.', coherency_view.section(logs), (), coherency_view.STYLE,
                     coherency_view.SCRIPT)
