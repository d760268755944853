"""A suite as a table of text, targets beside figures."""

UNITS = {'ns': (('ns', 1), ('us', 1e3), ('ms', 1e6), ('s', 1e9))}


def figure(value, unit):
    """A figure in three digits or so, with its unit: nanoseconds become us, ms or s as they grow."""
    if value is None:
        return '-'
    name, size = unit, 1
    for step, factor in UNITS.get(unit, ()):
        if abs(value) >= factor:
            name, size = step, factor
    return '%s %s' % (digits(value / size), name)


def digits(value):
    if value == 0 or abs(value) >= 100:
        return '%.0f' % value
    return '%.1f' % value if abs(value) >= 10 else '%.2f' % value


def spread(summary):
    """A ratio with the quartiles of its rounds."""
    if summary is None:
        return '-'
    if summary.n == 1:
        return digits(summary.median)
    return '%s (%s..%s)' % (digits(summary.median), digits(summary.q1), digits(summary.q3))


def published(suite):
    """The columns of figures from elsewhere, in the order in which rows name them."""
    return list(dict.fromkeys(name for row in suite.rows for name in row.published))


def bound(target, unit):
    """A target in words: `ringdown/native <= 1.3`, `ringdown <= 10.0 ms`."""
    what = target.above if target.below is None else '%s/%s' % (target.above, target.below)
    limit = figure(target.limit, unit) if target.below is None else '%g' % target.limit
    return '%s%s %s %s' % ('goal ' if target.goal else '', what, '>=' if target.at_least else '<=', limit)


def columns(suite):
    return ['', *suite.systems, *('%s/%s' % r for r in suite.ratios), *published(suite), 'target']


def cells(suite, row):
    """The row's cells as text; the last says target and verdict."""
    verdicts = '; '.join('%s %s' % (bound(t, row.unit), v or 'not measured') for t, v in row.verdicts())
    figures = [figure(s.median if s else None, row.unit) for s in map(row.summary, suite.systems)]
    elsewhere = [digits(row.published[name]) if name in row.published else '' for name in published(suite)]
    return [row.name, *figures, *(spread(row.ratio(*r)) for r in suite.ratios), *elsewhere, verdicts]


def mean_cells(suite, mean):
    value = mean.over(suite.rows)
    ratios = [digits(value) if value and r == (mean.above, mean.below) else '' for r in suite.ratios]
    verdict = '' if mean.target is None else '%s %s' % (bound(mean.target, ''), mean.verdict(suite.rows) or 'not measured')
    return ['geometric mean', *('' for _ in suite.systems), *ratios, *('' for _ in published(suite)), verdict]


def table(head, lines):
    """Columns padded to their widest cell; the first and last to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    last = len(head) - 1
    return '\n'.join('  '.join(c.ljust(w) if i in (0, last) else c.rjust(w)
                               for i, (c, w) in enumerate(zip(line, widths))).rstrip() for line in [head, *lines])


def suite_text(suite):
    lines = [cells(suite, row) for row in suite.rows] + [mean_cells(suite, mean) for mean in suite.means]
    out = ['%s: %s' % (suite.name, suite.title), table(columns(suite), lines)]
    return '\n'.join(out + ['not measured: ' + gap for gap in suite.gaps])


def markdown(suite):
    """The same for a README."""
    lines = [cells(suite, row) for row in suite.rows] + [mean_cells(suite, mean) for mean in suite.means]
    head = columns(suite)
    return '\n'.join('| %s |' % ' | '.join(line) for line in [head, ['---'] * len(head), *lines])
