"""The viewer of event logs (-accel bt,coherency-log=FILE) as a part of a page: timeline, heat map of pages, writers.

The events go into the page as columns of numbers; coherency_view.js draws them.
"""
import os

from lib import page

CAUSES = ('store', 'device', 'stale', 'moved', 'policy')
# What became of an event's CCFs, the gravest that happened: name, colour of page.PALETTE, meaning.
OUTCOMES = (
    ('dropped', 'coral', 'translations were dropped'),
    ('parked', 'violet', 'a changed instruction was set aside, its chains kept'),
    ('patched', 'green', 'constants were patched in place'),
    ('unchanged', 'teal', 'the same bytes were written again'),
    ('beside', 'grey', 'no translation had a byte there'),
    ('policy', 'ink', "the page's policy changed"),
)
MOST = 200000 # events of a page with one log; the browser draws them all


class BadLog(ValueError):
    pass


def _outcome(row):
    if row['cause'] == 'policy':
        return 5
    for i, name in enumerate(('dropped', 'parked', 'patched', 'unchanged')):
        if int(row[name]):
            return i
    return 4


def read(title, text, most=MOST):
    """-> the log as columns, for the script. Raises BadLog."""
    lines = text.splitlines()
    if len(lines) < 3 or not lines[0].startswith('# ringdown coherency-log 1 '):
        raise BadLog('%s is no coherency log of version 1' % title)
    head = dict(word.split('=', 1) for word in lines[0].split()[4:])
    ended = lines[-1].startswith('# end ')
    tail = dict(word.split('=', 1) for word in lines[-1].split()[2:]) if ended else {}
    names = lines[1].split(',')
    log = dict(title=title, policy=head.get('policy', '?'), clock=head.get('clock', '?'), ended=ended,
               events=int(tail.get('events', 0)), lost=int(tail.get('lost', 0)), policies=[],
               t=[], pa=[], len=[], eip=[], cause=[], outcome=[], now=[], n=[])
    last = 0
    for number, line in enumerate(lines[2:-1 if ended else None], 3):
        cells = line.split(',')
        try:
            row = dict(zip(names, cells, strict=True))
            ns = int(row['ns'])
            columns = (ns - last, int(row['pa'], 16), int(row['len']), int(row['eip'], 16), CAUSES.index(row['cause']),
                       _outcome(row), sum(int(row[n]) for n in ('dropped', 'parked', 'patched', 'unchanged')))
        except (ValueError, KeyError):
            raise BadLog('%s, line %d: not an event: %.80s' % (title, number, line)) from None
        if len(log['t']) == most:
            break
        last = ns
        if row['policy'] not in log['policies']:
            log['policies'].append(row['policy'])
        for name, value in zip(('t', 'pa', 'len', 'eip', 'cause', 'outcome', 'n'), columns):
            log[name].append(value)
        log['now'].append(log['policies'].index(row['policy']))
    log['events'] = log['events'] or len(log['t'])
    return log


STYLE = """
.viewer{padding:16px 18px 18px}.viewer .bar{display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin-bottom:10px}
.viewer select{font:inherit;font-size:14px;color:inherit;background:var(--bg);border:1px solid var(--edge);border-radius:8px;
 padding:5px 10px;max-width:100%;min-width:0}
.viewer .bar .gap{flex:1}.viewer .bar span{color:var(--muted);font-size:13px}
.viewer canvas{display:block;width:100%;touch-action:pan-y;border-radius:6px}
.viewer canvas.time{cursor:grab}.viewer canvas.time.drags{cursor:grabbing}
.viewer h3{margin:18px 0 2px}.viewer .note{color:var(--muted);font-size:13px;margin:0 0 8px}
.viewer table{margin-top:6px}.viewer td i{display:inline-block;height:9px;border-radius:2px;vertical-align:middle;min-width:2px}
.viewer button[aria-pressed=false] i{opacity:.4}
"""

with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), 'coherency_view.js')) as _f:
    SCRIPT = _f.read()


def section(logs):
    """logs: [(title, text)]"""
    share = max(500, MOST // len(logs))
    read_logs = [read(title, text, share) for title, text in logs]
    causes = ''.join('<button type="button" aria-pressed="true" data-cause="%d">%s</button>' % (i, name)
                     for i, name in enumerate(CAUSES))
    outcomes = ''.join('<button type="button" aria-pressed="true" data-outcome="%d" data-tip="%s"><i style="background:'
                       'var(--c-%s)"></i>%s</button>' % (i, text, colour, name) for i, (name, colour, text) in enumerate(OUTCOMES))
    options = ''.join('<option value="%d">%s</option>' % (i, page.escape(log['title'])) for i, log in enumerate(read_logs))
    body = """<div class="card viewer" id="viewer">
<div class="bar"><select aria-label="log">%s</select><span class="about"></span><span class="gap"></span>
<button type="button" class="reset">whole run</button></div>
<div class="bar" role="group" aria-label="causes"><span>cause</span>%s</div>
<div class="bar" role="group" aria-label="outcomes"><span>outcome</span>%s</div>
<h3>Timeline</h3><p class="note">A line is a page of guest memory, a dot an event. Turn the wheel to zoom, drag to move,
point at a dot to read it; what is in view counts below.</p>
<canvas class="time" data-owntip height="300" aria-label="timeline of events"></canvas>
<h3>Heat of pages</h3><p class="note">Where in a page the bytes lie that were written, in cells of 64 bytes.</p>
<canvas class="heat" data-owntip height="200" aria-label="events by page and place in it"></canvas>
<h3>Writers</h3><p class="note">The instructions behind most events in view.</p><div class="writers scroll"></div></div>""" % (
        options, causes, outcomes)
    data = dict(logs=read_logs, causes=CAUSES, outcomes=[dict(name=n, colour=c, text=t) for n, c, t in OUTCOMES])
    return page.section('Events', body + page.data('events', data),
                        'Event logs of short runs (<code>-accel bt,coherency-log=FILE</code>).')
