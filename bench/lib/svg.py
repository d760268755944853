"""Charts as SVG text. Colours, fonts and what happens under the pointer come from page.py's style: a mark has
the class `s-KEY` of its series, and `data-tip` is what it says.

A value is a stats.Summary, or a plain number.
"""
import math
from html import escape

from . import stats
from .text import figure

ROW = 22        # height of a line of text with its bar
CHAR = 6.6      # width of a character of labels, about


def shown(value, unit):
    return figure(value, unit).replace(' us', ' µs').rstrip()


def _median(value):
    return value.median if isinstance(value, stats.Summary) else value


def _low(value):
    return value.low if isinstance(value, stats.Summary) else value


def _high(value):
    return value.high if isinstance(value, stats.Summary) else value


def tip(*lines):
    return ' data-tip="%s"' % escape('\n'.join(lines))


def svg(width, height, body, label, classes=''):
    return ('<svg class="chart %s" viewBox="0 0 %g %g" role="img" aria-label="%s" style="max-width:%gpx">%s</svg>'
            % (classes, width, height, escape(label), width, body))


def text(x, y, what, cls='', anchor='start'):
    return '<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>' % (x, y, cls, anchor, escape(what))


def line(x1, y1, x2, y2, cls):
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>' % (x1, y1, x2, y2, cls)


def nice_step(span, count=4):
    """A step of 1, 2 or 5 times a power of ten that cuts span into about `count` parts."""
    if span <= 0:
        return 1
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def decades(low, high):
    """Powers of ten that hold [low, high]."""
    return list(range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1))


def _decade(e, unit):
    value = figure(10.0 ** e, unit).split(' ')
    return '%g' % float(value[0]), value[1].replace('us', 'µs')


def describe(value, unit):
    if isinstance(value, stats.Summary) and value.n > 1:
        return '%s, %s to %s in %d runs' % (shown(value.median, unit), shown(value.low, unit), shown(value.high, unit),
                                            value.n)
    return shown(_median(value), unit)


def bars(rows, unit, label, width=420, notes=None, parts=None, part_name=''):
    """Horizontal bars from zero with their spread.

    rows: [(name, series key, value or None)]; None is drawn as "not possible".
    notes: {key: text behind the number}.
    parts: {key: a part of the value, drawn darker}, which part_name says in the tip.
    """
    notes, parts = notes or {}, parts or {}
    left = max(len(name) for name, _, _ in rows) * CHAR + 10
    values = [v for _, _, v in rows if v is not None]
    # Numbers stand behind the spread: room for them at the right.
    right = 62 + max([len(n) for n in notes.values()] + [0]) * CHAR
    top = max([_high(v) for v in values] + [1e-9])
    scale = (width - left - right) / top
    body = ''
    for i, (name, key, value) in enumerate(rows):
        y = i * ROW
        if value is None:
            body += '<g class="s-%s">%s%s</g>' % (key, text(left - 8, y + 15, name, 'label', 'end'),
                                                  text(left + 4, y + 15, 'not possible', 'muted small'))
            continue
        m, lo, hi = _median(value), _low(value), _high(value)
        mark = '<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="3" class="fill"/>' % (
            left, y + 4, max(m * scale, 1.5), ROW - 8)
        part = parts.get(key)
        if part is not None:
            mark += '<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="3" class="part"/>' % (
                left, y + 4, max(min(_median(part), m) * scale, 1.5), ROW - 8)
        if hi > lo:
            mid = y + ROW / 2
            mark += line(left + lo * scale, mid, left + hi * scale, mid, 'spread')
            for x in (lo, hi):
                mark += line(left + x * scale, mid - 4, left + x * scale, mid + 4, 'spread')
        end = left + max(hi, m) * scale + 6
        mark += text(end, y + 15, shown(m, unit), 'value')
        if notes.get(key):
            mark += text(end + len(shown(m, unit)) * 7.2 + 5, y + 15, notes[key], 'muted small')
        said = [name, describe(value, unit)] + (['%s: %s' % (part_name, describe(part, unit))] if part is not None else [])
        body += '<g class="mark s-%s"%s>%s%s</g>' % (key, tip(*said),
                                                   text(left - 8, y + 15, name, 'label', 'end'), mark)
    return svg(width, len(rows) * ROW + 4, line(left, 0, left, len(rows) * ROW + 2, 'axis') + body, label)


def dots(rows, series, unit, label, width=1000):
    """Medians as dots and spreads as lines on one logarithmic axis: what is an order of magnitude apart
    stands apart.

    rows: [(name, {series key: value})]; series: [(key, name)] from top to bottom in each row.
    """
    lane = 7.5
    left = max(len(name) for name, _ in rows) * CHAR + 18
    values = [v for _, d in rows for v in d.values() if v is not None and _median(v) > 0]
    if not values:
        return ''
    exponents = decades(min(max(_low(v), 1e-3) for v in values), max(_high(v) for v in values))
    right, head = 24, 22
    scale = (width - left - right) / max(1, exponents[-1] - exponents[0])
    height = len(series) * lane + 12
    total = head + len(rows) * height

    def x_of(value):
        return left + (math.log10(max(value, 10 ** exponents[0])) - exponents[0]) * scale

    body = ''
    for i in range(0, len(rows), 2):
        body += '<rect x="0" y="%.1f" width="%g" height="%.1f" class="band"/>' % (head + i * height, width, height)
    for e in exponents:
        body += line(x_of(10 ** e), head, x_of(10 ** e), total, 'grid')
        body += text(x_of(10 ** e), head - 8, '%s %s' % _decade(e, unit), 'muted small', 'middle')
    for i, (name, found) in enumerate(rows):
        y = head + i * height
        body += text(left - 12, y + height / 2 + 4, name, 'label', 'end')
        for j, (key, whose) in enumerate(series):
            value = found.get(key)
            if value is None or _median(value) <= 0:
                continue
            at = y + 6 + (j + 0.5) * lane
            body += '<g class="mark s-%s"%s>' % (key, tip('%s: %s' % (name, whose), describe(value, unit)))
            body += line(x_of(_low(value)), at, x_of(_high(value)), at, 'range')
            body += '<circle cx="%.1f" cy="%.1f" r="5.5" class="hit"/>' % (x_of(_median(value)), at)
            body += '<circle cx="%.1f" cy="%.1f" r="4.2" class="dot"/></g>' % (x_of(_median(value)), at)
    return svg(width, total + 4, body, label, 'wide')


def shares(rows, parts, label, width=420):
    """Bars of one length, cut into shares.

    rows: [(name, {part key: fraction})]; parts: [(key, name)].
    """
    left = max(len(name) for name, _ in rows) * CHAR + 10
    body = ''
    for i, (name, found) in enumerate(rows):
        y, x = i * ROW, left
        body += text(left - 8, y + 15, name, 'label', 'end')
        for key, what in parts:
            share = max(0.0, found.get(key, 0.0))
            w = share * (width - left - 4)
            if w <= 0:
                continue
            body += '<g class="mark s-%s"%s><rect x="%.1f" y="%.1f" width="%.1f" height="%d" class="fill"/>' % (
                key, tip(name, '%s: %.1f %%' % (what, 100 * share)), x, y + 4, w, ROW - 8)
            if w > 34:
                body += text(x + w / 2, y + 15, '%.0f %%' % (100 * share), 'inside', 'middle')
            body += '</g>'
            x += w
    return svg(width, len(rows) * ROW + 4, body, label)


def _ratio_ticks(low, high):
    """1, 2 and 5 times powers of ten within [low, high]; powers of ten only where those would be too many."""
    every = [m * 10.0 ** e for e in range(-4, 6) for m in (1, 2, 5) if low <= m * 10.0 ** e <= high]
    return every if len(every) <= 9 else [t for t in every if abs(math.log10(t) - round(math.log10(t))) < 1e-9]


def ratios(rows, label, marks=(), width=1000):
    """Ratios as bars from 1 on a logarithmic axis, so that twice and half are as long; quartiles as lines.

    rows: [(name, series key, stats.Summary)]; marks: [ratio], lines across all rows: the targets.
    """
    left = max(len(name) for name, _, _ in rows) * CHAR + 26
    figures = [f for _, _, v in rows for f in (v.median, v.q1, v.q3) if f > 0] + [1] + list(marks)
    low, high = min(figures) / 1.15, max(figures) * 1.15
    head, right = 24, 50
    scale = (width - left - right) / math.log(high / low)
    total = head + len(rows) * ROW

    def x_of(value):
        return left + math.log(max(value, low) / low) * scale

    body = ''.join('<rect x="0" y="%.1f" width="%g" height="%d" class="band"/>' % (head + i * ROW, width, ROW)
                   for i in range(0, len(rows), 2))
    for tick in _ratio_ticks(low, high):
        body += line(x_of(tick), head, x_of(tick), total, 'grid') + text(x_of(tick), head - 8, '%g' % tick, 'muted small', 'middle')
    for i, (name, key, value) in enumerate(rows):
        y, m = head + i * ROW, x_of(value.median)
        said = '%.2f, quartiles %.2f to %.2f, all %.2f to %.2f, of %d rounds' % (
            value.median, value.q1, value.q3, value.low, value.high, value.n)
        body += text(left - 12, y + 15, name, 'label', 'end')
        body += '<g class="mark s-%s"%s><rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2" class="fill"/>' % (
            key, tip(name, said), min(m, x_of(1)), y + 4, max(abs(m - x_of(1)), 1.5), ROW - 8)
        if value.q3 > value.q1:
            body += line(x_of(value.q1), y + ROW / 2, x_of(value.q3), y + ROW / 2, 'spread')
        body += text(max(m, x_of(value.q3), x_of(1)) + 6, y + 15, '%.2f' % value.median, 'value') + '</g>'
    for mark in marks:
        body += line(x_of(mark), head - 4, x_of(mark), total, 'target')
    return svg(width, total + 4, body + line(x_of(1), head, x_of(1), total, 'one'), label, 'wide')
