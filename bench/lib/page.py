"""An HTML report in one file: style, legend, tables and tips. It asks nothing of a network, and says so to
the browser (Content-Security-Policy)."""
import json
from dataclasses import dataclass
from html import escape

# Told apart by those who don't see all colours, too; one set for light, one for dark ground.
PALETTE = {
    'blue': ('#3b62c9', '#7c9cff'), 'amber': ('#c98a00', '#f2b632'), 'green': ('#2f9443', '#57c46c'),
    'violet': ('#8b4fd8', '#b98bff'), 'coral': ('#e2503c', '#ff8573'), 'grey': ('#7a8494', '#98a2b3'),
    'ink': ('#222a36', '#e8ebf0'), 'teal': ('#148f96', '#3fc3ca'), 'pink': ('#cf4f93', '#f58ac0'),
}


@dataclass
class Series:
    key: str    # CSS class of its marks: letters, digits, -
    name: str
    colour: str # of PALETTE
    text: str = ''


STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2230;--muted:#5d6675;--grid:#e3e6eb;--band:#f5f6f9;--edge:#dfe3e9;--link:#2b56c4;
 --shadow:0 1px 2px rgba(20,30,50,.06),0 4px 16px rgba(20,30,50,.05)@LIGHT@}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]){@DARKVARS@}}
:root[data-theme=dark]{@DARKVARS@}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",
 "DejaVu Sans",sans-serif}
main,header.top .in{max-width:1080px;margin:0 auto;padding:0 24px}
header.top{padding:36px 0 22px}
header.top .in{display:flex;gap:24px;align-items:flex-start;justify-content:space-between}
h1{font-size:29px;line-height:1.2;margin:0 0 8px;letter-spacing:-.015em;font-weight:680}
h2{font-size:20px;margin:0 0 4px;letter-spacing:-.01em;font-weight:650}
h3{font-size:15px;margin:0 0 2px;font-weight:640}
p{margin:0 0 12px;max-width:76ch}.lead{color:var(--muted);font-size:16px;margin:0}
section{margin:0 0 26px}section>p,.sub{color:var(--muted)}.sub{font-size:13px;margin:0 0 10px;line-height:1.45}
.card{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:18px 20px;box-shadow:var(--shadow);
 min-width:0}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(430px,100%),1fr));gap:18px;margin-bottom:26px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:14px;margin-bottom:26px}
.tile{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:14px 18px;box-shadow:var(--shadow)}
.tile b{display:block;font-size:26px;line-height:1.25;font-weight:680;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:13px;display:block;line-height:1.4}
.tile.good b{color:var(--c-green)}.tile.bad b{color:var(--c-coral)}
.legend{display:flex;flex-wrap:wrap;gap:8px;position:sticky;top:0;z-index:3;padding:10px 0;margin:0 0 10px;
 background:linear-gradient(var(--bg) 82%,transparent)}
button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--edge);border-radius:999px;padding:4px 13px 4px 10px;
 cursor:pointer;font-size:13.5px;display:inline-flex;align-items:center;gap:7px;white-space:nowrap}
button:hover{border-color:var(--muted)}button:focus-visible{outline:2px solid var(--link);outline-offset:2px}
button[aria-pressed=false]{opacity:.45}button i{width:11px;height:11px;border-radius:50%;display:inline-block}
svg.chart{width:100%;height:auto;display:block;overflow:visible}
svg text{font-size:12px;fill:var(--ink);font-family:inherit}svg .small{font-size:11px}svg .muted{fill:var(--muted)}
svg .value{font-variant-numeric:tabular-nums;font-weight:600}svg .inside{fill:var(--card);font-size:11px;font-weight:600}
svg .grid{stroke:var(--grid)}svg .axis{stroke:var(--edge)}svg .band{fill:var(--band)}svg .hit{fill:transparent}svg .part{fill:var(--ink);opacity:.28}
svg .spread{stroke:var(--ink);stroke-width:1.2;opacity:.55}svg .range{stroke-width:2.2;opacity:.45;stroke-linecap:round}
svg .mark{cursor:default}svg .mark:hover .fill,svg .mark:hover .dot{filter:brightness(1.12) saturate(1.15)}
.off{display:none}
.scroll{overflow-x:auto;margin:0 -20px;padding:0 20px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap;vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600;color:var(--muted);font-size:12.5px}
tbody tr:hover{background:var(--band)}td small{display:block;color:var(--muted);font-size:11.5px;line-height:1.35}
td.best{font-weight:680}td.zero{color:var(--muted);opacity:.55}
summary{cursor:pointer;font-weight:640}details[open] summary{margin-bottom:10px}details td,details th{padding:4px 10px}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;font-size:.9em}
pre{background:var(--band);border:1px solid var(--grid);border-radius:8px;padding:10px 14px;overflow-x:auto;margin:0 0 12px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;font-size:14px}dt{color:var(--muted)}dd{margin:0}
footer{color:var(--muted);font-size:13px;padding:6px 0 40px}a{color:var(--link)}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--card);padding:6px 10px;border-radius:7px;
 font-size:12.5px;line-height:1.4;white-space:pre-line;max-width:340px;opacity:0;transition:opacity .1s;left:0;top:0}
#tip.on{opacity:.96}
@media (max-width:640px){main,header.top .in{padding:0 14px}h1{font-size:24px}}
@media print{.legend,button.theme{display:none}}
"""

DARK = ('--bg:#0f1217;--card:#171b22;--ink:#e7eaf0;--muted:#9aa4b3;--grid:#272d37;--band:#1b2029;--edge:#2a303b;--link:#8fabff;'
        '--shadow:none')

SCRIPT = """
(function(){
'use strict';
var root=document.documentElement,tip=document.getElementById('tip');
document.querySelector('button.theme').addEventListener('click',function(){
 var dark=root.dataset.theme?root.dataset.theme==='dark':matchMedia('(prefers-color-scheme: dark)').matches;
 root.dataset.theme=dark?'light':'dark';
 document.dispatchEvent(new Event('themechange'));
});
document.querySelectorAll('.legend button').forEach(function(b){b.addEventListener('click',function(){
 var on=b.getAttribute('aria-pressed')!=='true';
 b.setAttribute('aria-pressed',on);
 document.querySelectorAll('.s-'+b.dataset.series).forEach(function(e){e.classList.toggle('off',!on);});
});});
function place(e){
 var x=e.clientX+14,y=e.clientY+16,w=tip.offsetWidth,h=tip.offsetHeight;
 if(x+w>innerWidth-8)x=e.clientX-w-12;
 if(y+h>innerHeight-8)y=e.clientY-h-12;
 tip.style.transform='translate('+Math.max(4,x)+'px,'+Math.max(4,y)+'px)';
}
window.showTip=function(e,text){tip.textContent=text;tip.classList.add('on');place(e);};
window.hideTip=function(){tip.classList.remove('on');};
document.addEventListener('pointermove',function(e){
 var m=e.target.closest&&e.target.closest('[data-tip]');
 if(m)showTip(e,m.dataset.tip);else if(!(e.target.closest&&e.target.closest('[data-owntip]')))hideTip();
});
document.addEventListener('pointerleave',hideTip);
})();
"""


def _style(series):
    light = ''.join(';--c-%s:%s' % (n, c[0]) for n, c in PALETTE.items())
    dark = DARK + ''.join(';--c-%s:%s' % (n, c[1]) for n, c in PALETTE.items())
    css = STYLE.replace('@LIGHT@', light).replace('@DARKVARS@', dark)
    for s in series:
        css += '.s-%s .fill,.s-%s .dot{fill:var(--c-%s)}.s-%s .range{stroke:var(--c-%s)}' % (
            s.key, s.key, s.colour, s.key, s.colour)
    return css


def legend(series):
    return '<div class="legend" role="group" aria-label="shown">' + ''.join(
        '<button type="button" aria-pressed="true" data-series="%s"%s><i style="background:var(--c-%s)"></i>%s</button>' % (
            s.key, ' data-tip="%s"' % escape(s.text) if s.text else '', s.colour, escape(s.name)) for s in series) + '</div>'


def tiles(items):
    """items: [(big, small, 'good' | 'bad' | '')]"""
    return '<div class="tiles">' + ''.join('<div class="tile %s"><b>%s</b><span>%s</span></div>' % (
        cls, escape(big), escape(small)) for big, small, cls in items) + '</div>'


def table(head, rows):
    """Cells are text, or (text, small text, class)."""
    def cell(c):
        if isinstance(c, tuple):
            return '<td class="%s">%s%s</td>' % (c[2], escape(c[0]), '<small>%s</small>' % escape(c[1]) if c[1] else '')
        return '<td>%s</td>' % escape(str(c))
    return '<div class="scroll"><table><thead><tr>%s</tr></thead><tbody>%s</tbody></table></div>' % (
        ''.join('<th>%s</th>' % escape(h) for h in head),
        ''.join('<tr>%s</tr>' % ''.join(cell(c) for c in row) for row in rows))


def card(title, body, sub=''):
    return '<div class="card">%s%s%s</div>' % ('<h3>%s</h3>' % escape(title) if title else '',
                                               '<p class="sub">%s</p>' % escape(sub) if sub else '', body)


def fold(title, body):
    """A card that is opened by its title."""
    return '<details class="card"><summary>%s</summary>%s</details>' % (escape(title), body)


def section(title, body, text=''):
    return '<section><h2>%s</h2>%s%s</section>' % (escape(title), '<p>%s</p>' % text if text else '', body)


def facts(items):
    return '<dl>%s</dl>' % ''.join('<dt>%s</dt><dd>%s</dd>' % (escape(k), escape(str(v))) for k, v in items)


def data(name, value):
    """A value for scripts: JSON.parse(document.getElementById(name).textContent)."""
    text = json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')
    return '<script type="application/json" id="%s">%s</script>' % (escape(name), text)


def page(title, lead, body, series=(), style='', script=''):
    """The whole file. `body` is HTML, everything else text; style and script are added to the page's own."""
    return """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark"><title>%s</title><link rel="icon" href="data:,"><style>%s%s</style></head>
<body><header class="top"><div class="in"><div><h1>%s</h1><p class="lead">%s</p></div>
<button type="button" class="theme" aria-label="light or dark">◐ theme</button></div></header>
<main>%s</main><div id="tip" role="status"></div><script>%s%s</script></body></html>
""" % (escape(title), _style(series), style, escape(title), escape(lead), body, SCRIPT, script)
