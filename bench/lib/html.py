"""Self-contained HTML reports: one file, no network, light and dark after the reader's setting.

Generic pieces: page, section, table, bar_chart. `report` makes the page of bench/run of them.
"""
import html
import math

from . import machine as host
from . import text

STYLE = """
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#1c1c1a;--soft:#6b6a66;--line:#e3e2dd;--s0:#2a6fb8;
--s1:#d8863b;--s2:#8b8a85;--s3:#4e9b6f;--good:#2f7d4f;--bad:#b3402e;--mark:#1c1c1a}
@media(prefers-color-scheme:dark){:root{--page:#161614;--card:#1f1f1d;--ink:#ecebe6;--soft:#a09f99;--line:#34332f;
--s0:#6aa9ea;--s1:#e7a15f;--s2:#85847f;--s3:#7fc79b;--good:#7fc79b;--bad:#f08a78;--mark:#ecebe6}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:0 0 4px}p{margin:4px 0 12px}
.soft{color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px;margin:20px 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:5px 8px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
td:last-child{white-space:normal}
th{color:var(--soft);font-weight:600}
.reached{color:var(--good)}.missed{color:var(--bad)}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 16px;min-width:130px}
.tile b{display:block;font-size:24px;font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:16px;font-size:13px;margin:8px 0}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
svg{display:block;width:100%;height:auto;font:12px system-ui,sans-serif}
svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}
svg .grid{stroke:var(--line)}svg .mark{stroke:var(--mark);stroke-dasharray:4 3}svg .whisker{stroke:var(--ink);opacity:.55}
footer{color:var(--soft);font-size:13px}
"""
COLOURS = ('var(--s0)', 'var(--s1)', 'var(--s2)', 'var(--s3)')

WIDTH, LABEL, VALUE, BAR, GAP, HEAD = 1040, 210, 90, 13, 10, 22


def escape(value):
    return html.escape(str(value))


def page(title, *parts):
    """A whole document of parts made by the other functions here."""
    return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            'content="width=device-width,initial-scale=1"><title>%s</title><style>%s</style></head><body><main>\n'
            '%s\n</main></body></html>\n' % (escape(title), STYLE, '\n'.join(p for p in parts if p)))


def heading(title, below=''):
    return '<h1>%s</h1><p class="soft">%s</p>' % (escape(title), escape(below))


def section(title, below, *parts):
    return '<section><h2>%s</h2><p class="soft">%s</p>%s</section>' % (
        escape(title), escape(below), '\n'.join(p for p in parts if p))


def tiles(pairs):
    """[(figure, what it is)] in large letters."""
    return '<div class="tiles">%s</div>' % ''.join(
        '<div class="tile"><b>%s</b><span class="soft">%s</span></div>' % (escape(f), escape(w)) for f, w in pairs)


def table(head, lines):
    """Cells are text, or (text, class) where class is `reached`, `missed` or `soft`."""
    def cell(c):
        if isinstance(c, tuple):
            return '<td class="%s">%s</td>' % (escape(c[1]), escape(c[0]))
        return '<td>%s</td>' % escape(c)
    return '<div class="scroll"><table><thead><tr>%s</tr></thead><tbody>%s</tbody></table></div>' % (
        ''.join('<th>%s</th>' % escape(h) for h in head),
        '\n'.join('<tr>%s</tr>' % ''.join(map(cell, line)) for line in lines))


def legend(names):
    return '<div class="legend">%s</div>' % ''.join(
        '<span><i style="background:%s"></i>%s</span>' % (COLOURS[i % len(COLOURS)], escape(n))
        for i, n in enumerate(names))


class Axis:
    """Maps figures to x. A logarithmic axis starts at a power of ten and has ticks at 1, 2 and 5."""

    def __init__(self, figures, logarithmic):
        figures = [f for f in figures if f > 0] or [1]
        self.logarithmic = logarithmic
        self.left, self.right = LABEL, WIDTH - VALUE
        top = max(figures) * (1.1 if logarithmic else 1.02)
        if logarithmic:
            self.low = min(1, 10 ** math.floor(math.log10(min(figures))))
            self.high = top
            self.ticks = [m * 10 ** e for e in range(-12, 13) for m in (1, 2, 5)
                          if self.low <= m * 10 ** e <= self.high]
            if len(self.ticks) > 10:
                self.ticks = [t for t in self.ticks if abs(math.log10(t) - round(math.log10(t))) < 1e-9]
        else:
            self.low, self.high = 0, top
            step = 10 ** math.floor(math.log10(top))
            step = next(step * m for m in (.1, .2, .5, 1, 2) if top / (step * m) <= 8)
            self.ticks = [i * step for i in range(int(top / step) + 1)]

    def x(self, figure):
        if self.logarithmic:
            share = math.log(max(figure, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = max(figure, 0) / self.high
        return self.left + share * (self.right - self.left)


def bar_chart(names, rows, unit='', logarithmic=False, marks=()):
    """Horizontal bars, a group a row, a bar a system, with whiskers from quartile to quartile.

    @param names  systems, in the order of the bars
    @param rows   [(label, {name: stats.Summary})]
    @param marks  [(figure, label)]: targets, drawn across all rows
    """
    rows = [(label, {n: s for n, s in found.items() if s}) for label, found in rows]
    axis = Axis([f for _, found in rows for s in found.values() for f in (s.median, s.q3)] + [m for m, _ in marks],
                logarithmic)
    out, y = [], HEAD
    for label, found in rows:
        bars = [n for n in names if n in found]
        height = len(bars) * (BAR + 2)
        out.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>' % (LABEL - 10, y + height / 2 + 4, escape(label)))
        for n in bars:
            s, x0 = found[n], axis.x(axis.low)
            out.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2" fill="%s"><title>%s, %s: %s %s, quartiles '
                       '%s to %s, all %s to %s, %d samples</title></rect>' % (
                           x0, y, max(1.5, axis.x(s.median) - x0), BAR, COLOURS[list(names).index(n) % len(COLOURS)],
                           escape(label), escape(n), text.digits(s.median), escape(unit), text.digits(s.q1),
                           text.digits(s.q3), text.digits(s.low), text.digits(s.high), s.n))
            if s.n > 1:
                out.append('<path class="whisker" d="M%.1f %.1fH%.1f"/>' % (axis.x(s.q1), y + BAR / 2, axis.x(s.q3)))
            out.append('<text class="soft" x="%.1f" y="%.1f">%s</text>' % (
                max(axis.x(s.median), axis.x(s.q3)) + 5, y + BAR - 2, text.digits(s.median)))
            y += BAR + 2
        y += GAP
    lines = ''.join('<path class="grid" d="M%.1f %dV%d"/><text class="soft" x="%.1f" y="%d" text-anchor="middle">%g</text>'
                    % (axis.x(t), HEAD - 4, y, axis.x(t), y + 14, t) for t in axis.ticks)
    targets = ''.join('<path class="mark" d="M%.1f %dV%d"/><text x="%.1f" y="12" text-anchor="middle">%s</text>'
                      % (axis.x(m), HEAD - 6, y, axis.x(m), escape(what)) for m, what in marks)
    return '<svg viewBox="0 0 %d %d" role="img" aria-label="bar chart, %s">%s%s%s<text class="soft" x="%d" y="%d">%s</text></svg>' % (
        WIDTH, y + 22, escape(unit), lines, ''.join(out), targets, WIDTH - VALUE + 8, y + 14, escape(unit))


# ---- the report of bench/run --------------------------------------------------------------------

def _suite(suite):
    charts = []
    for above, below in suite.ratios:
        rows = [(row.name, {above: row.ratio(above, below)}) for row in suite.rows]
        if not any(found[above] for _, found in rows):
            continue
        targets = {t.limit for row in suite.rows for t in row.targets if (t.above, t.below) == (above, below)}
        charts.append('<h2>%s / %s</h2>' % (escape(above), escape(below)) + bar_chart(
            [above], rows, 'x', any(r.median > 8 for _, f in rows for r in f.values() if r),
            [(limit, '%g' % limit) for limit in sorted(targets)] or [(1, '1')]))
    if not charts:
        rows = [(row.name, {s: row.summary(s) for s in suite.systems}) for row in suite.rows]
        charts = [legend(suite.systems), bar_chart(suite.systems, rows, suite.rows[0].unit if suite.rows else '', True)]

    def coloured(cells):
        last = cells[-1]
        kind = 'missed' if 'missed' in last else 'reached' if 'reached' in last else 'soft'
        return cells[:-1] + [(last, kind)]
    lines = [coloured(text.cells(suite, row)) for row in suite.rows]
    lines += [coloured(text.mean_cells(suite, mean)) for mean in suite.means]
    gaps = ''.join('<p class="soft">Not measured: %s</p>' % escape(gap) for gap in suite.gaps)
    return section(suite.title, 'Suite %s. Medians; ratios are medians of interleaved rounds, with quartiles.' % suite.name,
                   table(text.columns(suite), lines), gaps, *charts)


def report(results):
    """The page of a results.Report."""
    counts = results.counts()
    means = [(text.digits(m.over(s.rows)), '%s/%s, %s' % (m.above, m.below, s.name))
             for s in results.suites for m in s.means if m.over(s.rows)]
    return page('Ringdown: measured', heading('Ringdown: measured', host.line(results.machine)),
                tiles([(counts['reached'], 'targets reached'), (counts['missed'], 'targets missed'), *means]),
                *(_suite(s) for s in results.suites), '<footer>%s</footer>' % escape(results.command))
