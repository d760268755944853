"""The HTML report of bench/run: for each suite its table with the verdicts, and charts of its ratios or figures."""
from . import machine, page, svg, text

STYLE = """
td.reached{color:var(--c-green)}td.missed{color:var(--c-coral)}td.near{color:var(--c-amber)}
td:last-child,th:last-child{text-align:left;white-space:normal;min-width:14em}
.card{margin-bottom:16px}
svg .target{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:4 3}svg .one{stroke:var(--muted)}
"""
VERDICTS = [page.Series('reached', 'target reached', 'green', 'the median keeps the bound'),
            page.Series('missed', 'target missed', 'coral', 'the median does not keep it'),
            page.Series('free', 'no target', 'blue')]
COLOURS = ('blue', 'amber', 'teal', 'violet', 'grey', 'pink')


def _verdict(row, ratio=None):
    """`reached` or `missed` of the row's targets, of those on this ratio if one is given; `free` when there is none."""
    verdicts = [v for t, v in row.verdicts() if v and not t.goal and (ratio is None or (t.above, t.below) == ratio)]
    if not verdicts:
        return 'free'
    return 'missed' if any(v.startswith('missed') for v in verdicts) else 'reached'


def _table(suite):
    lines = []
    for row in suite.rows:
        cells = text.cells(suite, row)
        lines.append(cells[:-1] + [(cells[-1], row.note, _verdict(row))])
    for mean in suite.means:
        cells = text.mean_cells(suite, mean)
        lines.append(cells[:-1] + [(cells[-1], '', mean.verdict(suite.rows) or 'free')])
    return page.card('', page.table(text.columns(suite), lines))


def _chart(suite, ratio):
    rows = [(row.name, _verdict(row, ratio), row.ratio(*ratio)) for row in suite.rows if row.ratio(*ratio)]
    if not rows:
        return ''
    marks = sorted({t.limit for row in suite.rows for t in row.targets if (t.above, t.below) == ratio and not t.goal})
    return page.card('%s / %s' % ratio, svg.ratios(rows, '%s divided by %s' % ratio, marks),
                     'Logarithmic, bars from 1; thin lines from quartile to quartile%s.' % (
                         '; dashed: ' + ', '.join('%g' % m for m in marks) if marks else ''))


def _figures(suite, keys):
    """Medians of all systems, a chart for each unit."""
    out = ''
    for unit in dict.fromkeys(row.unit for row in suite.rows):
        if sum(row.unit == unit for row in suite.rows) < 2:
            continue
        rows = [(row.name, {keys[s]: row.summary(s) for s in suite.systems}) for row in suite.rows if row.unit == unit]
        chart = svg.dots(rows, [(keys[s], s) for s in suite.systems], unit, 'medians of all systems in ' + unit)
        out += page.card('', chart, 'Medians on a logarithmic scale, lowest to highest run.') if chart else ''
    return out


def of_report(results):
    """The whole file, for a results.Report."""
    names = list(dict.fromkeys(s for suite in results.suites for s in suite.systems))
    keys = {name: 'system-%d' % i for i, name in enumerate(names)}
    series = [page.Series(keys[n], n, COLOURS[i % len(COLOURS)]) for i, n in enumerate(names)]
    counts = results.counts()
    tiles = [(str(counts['reached']), 'targets reached', 'good'), (str(counts['missed']), 'targets missed', 'bad')]
    for suite in results.suites:
        for mean in suite.means:
            value = mean.over(suite.rows)
            if value and mean.target:
                tiles.append((text.digits(value), '%s / %s, geometric mean, %s' % (mean.above, mean.below, suite.name),
                              'good' if mean.verdict(suite.rows) == 'reached' else 'bad'))
    body = page.tiles(tiles) + page.legend(series + VERDICTS)
    for suite in results.suites:
        gaps = ''.join('<p class="sub">Not measured: %s</p>' % page.escape(gap) for gap in suite.gaps)
        body += page.section(suite.title, _table(suite) + gaps + _figures(suite, keys) +
                             ''.join(_chart(suite, ratio) for ratio in suite.ratios))
    body += page.section('How this was measured', page.card('', page.facts([
        ('machine', machine.line(results.machine)), ('command', results.command),
        ('ratios', 'medians of the ratios of interleaved rounds, in brackets their quartiles'),
        ('verdicts', 'by the median; a question mark says that the bound lies between the quartiles')])))
    return page.page('Ringdown: measured', 'What it costs, beside the bare processor, QEMU and the targets.', body,
                     series + VERDICTS, STYLE)
