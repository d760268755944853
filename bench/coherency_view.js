// The viewer of coherency logs: timeline, heat map of pages, writers. See coherency_view.py.
(function () {
'use strict';
var data = JSON.parse(document.getElementById('events').textContent);
var root = document.getElementById('viewer');
var timeline = root.querySelector('canvas.time'), heat = root.querySelector('canvas.heat');
var chooser = root.querySelector('select');
var LABEL = 112, ROWS = 24, CELLS = 64, GRANULE = 64;
var log, pages, pageRow, view, shown, hover = -1, heatCells;

// ---- colours and figures -----------------------------------------------------------------------------
function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
function hex(v, digits) { return '0x' + v.toString(16).padStart(digits || 8, '0'); }
function time(ns, step) {
    var units = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];
    var u = units.find(function (x) { return Math.abs(ns) >= x[0]; }) || units[3];
    var digits = step ? Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / u[0]) - 1e-9))) : 3;
    return (ns / u[0]).toFixed(digits) + ' ' + u[1];
}
function niceStep(span, count) {
    var power = Math.pow(10, Math.floor(Math.log10(span / count)));
    return [1, 2, 5, 10].map(function (m) { return m * power; }).find(function (s) { return span / s <= count; });
}

// ---- a log ----------------------------------------------------------------------------------------------
function choose(i) {
    var raw = data.logs[i], at = 0, counts = new Map();
    log = raw;
    if (!log.at) log.at = log.t.map(function (d) { return (at += d); });
    log.pa.forEach(function (pa) {
        var pfn = Math.floor(pa / 4096);
        counts.set(pfn, (counts.get(pfn) || 0) + 1);
    });
    pages = Array.from(counts.keys()).sort(function (a, b) { return counts.get(b) - counts.get(a); }).slice(0, ROWS)
        .sort(function (a, b) { return a - b; });
    pageRow = new Map(pages.map(function (p, n) { return [p, n]; }));
    log.hidden = counts.size - pages.length;
    whole();
    var said = log.t.length.toLocaleString('en') + ' events';
    if (log.events > log.t.length) said += ' of ' + log.events.toLocaleString('en');
    if (log.lost) said += ', ' + log.lost.toLocaleString('en') + ' lost';
    if (!log.ended) said += ', cut short';
    if (log.hidden) said += ', on the ' + ROWS + ' busiest pages of ' + counts.size;
    root.querySelector('.about').textContent = said;
    draw();
}
function whole() {
    var first = log.at.length ? log.at[0] : 0, last = log.at.length ? log.at[log.at.length - 1] : 1;
    var pad = Math.max(1, (last - first) * 0.01);
    view = { from: first - pad, to: last + pad };
}
function pressed(kind) {
    return Array.from(root.querySelectorAll('button[data-' + kind + ']')).map(function (b) {
        return b.getAttribute('aria-pressed') === 'true';
    });
}
function lowerBound(t) {
    var a = 0, b = log.at.length;
    while (a < b) { var m = (a + b) >> 1; if (log.at[m] < t) a = m + 1; else b = m; }
    return a;
}
function filter() {
    var causes = pressed('cause'), outcomes = pressed('outcome');
    shown = [];
    for (var i = lowerBound(view.from), end = lowerBound(view.to); i < end; i++)
        if (causes[log.cause[i]] && outcomes[log.outcome[i]]) shown.push(i);
}

// ---- drawing -----------------------------------------------------------------------------------------------
function prepare(canvas, height) {
    var ratio = devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.style.height = height + 'px';
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    var c = canvas.getContext('2d');
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = '12px ' + getComputedStyle(document.body).fontFamily;
    c.textBaseline = 'middle';
    return { c: c, width: width, height: height };
}
var HEAD = 58, ROW = 20, FOOT = 24;
function xOf(t) { return LABEL + (t - view.from) / (view.to - view.from) * (timeline.clientWidth - LABEL - 8); }
function tOf(x) { return view.from + (x - LABEL) / (timeline.clientWidth - LABEL - 8) * (view.to - view.from); }

function drawTimeline() {
    var g = prepare(timeline, HEAD + Math.max(1, pages.length) * ROW + FOOT), c = g.c;
    var colours = data.outcomes.map(function (o) { return css('--c-' + o.colour); });
    var plot = g.width - LABEL - 8, bottom = HEAD + pages.length * ROW;
    pages.forEach(function (p, n) {
        if (n % 2 === 0) { c.fillStyle = css('--band'); c.fillRect(LABEL, HEAD + n * ROW, plot, ROW); }
        c.fillStyle = css('--muted');
        c.textAlign = 'right';
        c.fillText(hex(p * 4096), LABEL - 10, HEAD + n * ROW + ROW / 2);
    });
    var span = view.to - view.from, step = niceStep(span, Math.max(2, plot / 110));
    c.strokeStyle = css('--grid');
    c.fillStyle = css('--muted');
    c.textAlign = 'center';
    for (var t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
        var x = Math.round(xOf(t)) + 0.5;
        c.beginPath(); c.moveTo(x, 6); c.lineTo(x, bottom); c.stroke();
        if (x < g.width - 28) c.fillText(time(t, step), x, bottom + 13);
    }
    // How dense events are: stacked by outcome.
    var bins = Math.max(20, Math.floor(plot / 4)), count = [], most = 1;
    for (var b = 0; b < bins; b++) count.push(new Array(colours.length).fill(0));
    shown.forEach(function (i) {
        var bin = Math.min(bins - 1, Math.max(0, Math.floor((log.at[i] - view.from) / span * bins)));
        count[bin][log.outcome[i]]++;
    });
    count.forEach(function (x) { most = Math.max(most, x.reduce(function (a, b) { return a + b; }, 0)); });
    count.forEach(function (x, bin) {
        var y = HEAD - 8;
        x.forEach(function (n, o) {
            if (!n) return;
            var h = n / most * (HEAD - 18);
            c.fillStyle = colours[o];
            c.fillRect(LABEL + bin * plot / bins, y - h, Math.max(1, plot / bins - 1), h);
            y -= h;
        });
    });
    c.fillStyle = css('--muted');
    c.textAlign = 'right';
    c.fillText('events', LABEL - 10, HEAD / 2 - 6);
    c.fillText('(most ' + most + ')', LABEL - 10, HEAD / 2 + 9);
    c.globalAlpha = shown.length > 4000 ? 0.5 : 0.85;
    shown.forEach(function (i) {
        var row = pageRow.get(Math.floor(log.pa[i] / 4096));
        if (row === undefined) return;
        c.fillStyle = colours[log.outcome[i]];
        var x = xOf(log.at[i]), y = HEAD + row * ROW + 4 + (log.pa[i] % 4096) / 4096 * (ROW - 8);
        if (log.outcome[i] === 5) c.fillRect(x - 1.5, HEAD + row * ROW + 1, 3, ROW - 2);
        else { c.beginPath(); c.arc(x, y, 2.6, 0, 7); c.fill(); }
    });
    c.globalAlpha = 1;
    if (hover >= 0 && pageRow.has(Math.floor(log.pa[hover] / 4096))) {
        var r = pageRow.get(Math.floor(log.pa[hover] / 4096));
        c.strokeStyle = css('--ink');
        c.lineWidth = 1.6;
        c.beginPath();
        c.arc(xOf(log.at[hover]), HEAD + r * ROW + 4 + (log.pa[hover] % 4096) / 4096 * (ROW - 8), 6, 0, 7);
        c.stroke();
        c.lineWidth = 1;
    }
}

function drawHeat() {
    var cell = 15, g = prepare(heat, Math.max(1, pages.length) * (cell + 2) + 22), c = g.c;
    var w = (g.width - LABEL - 8) / CELLS, most = 1;
    heatCells = new Map();
    shown.forEach(function (i) {
        if (log.outcome[i] === 5) return;
        var row = pageRow.get(Math.floor(log.pa[i] / 4096));
        if (row === undefined) return;
        var first = Math.floor(log.pa[i] % 4096 / GRANULE), last = Math.min(CELLS - 1, Math.floor((log.pa[i] % 4096 + log.len[i] - 1) / GRANULE));
        for (var k = first; k <= last; k++) {
            var key = row * CELLS + k, found = heatCells.get(key);
            if (!found) heatCells.set(key, found = { n: 0, outcomes: new Array(data.outcomes.length).fill(0) });
            found.n++;
            found.outcomes[log.outcome[i]]++;
            most = Math.max(most, found.n);
        }
    });
    var hot = css('--c-coral'), band = css('--band');
    pages.forEach(function (p, row) {
        var y = row * (cell + 2);
        c.fillStyle = css('--muted');
        c.textAlign = 'right';
        c.fillText(hex(p * 4096), LABEL - 10, y + cell / 2);
        for (var k = 0; k < CELLS; k++) {
            var found = heatCells.get(row * CELLS + k), x = LABEL + k * w;
            c.globalAlpha = 1;
            c.fillStyle = band;
            c.fillRect(x, y, w - 1, cell);
            if (!found) continue;
            c.globalAlpha = 0.2 + 0.8 * Math.log(1 + found.n) / Math.log(1 + most);
            c.fillStyle = hot;
            c.fillRect(x, y, w - 1, cell);
        }
    });
    c.globalAlpha = 1;
    c.fillStyle = css('--muted');
    c.textAlign = 'left';
    for (var k = 0; k < CELLS; k += 16) c.fillText('+' + hex(k * GRANULE, 3), LABEL + k * w, pages.length * (cell + 2) + 9);
}

function drawWriters() {
    var by = new Map();
    shown.forEach(function (i) {
        var found = by.get(log.eip[i]);
        if (!found) by.set(log.eip[i], found = { n: 0, causes: {}, pages: new Set(), outcomes: new Array(data.outcomes.length).fill(0) });
        found.n++;
        found.causes[data.causes[log.cause[i]]] = 1;
        found.pages.add(Math.floor(log.pa[i] / 4096));
        found.outcomes[log.outcome[i]]++;
    });
    var top = Array.from(by.entries()).sort(function (a, b) { return b[1].n - a[1].n; }).slice(0, 8);
    var table = document.createElement('table');
    table.innerHTML = '<thead><tr><th>EIP</th><th>events</th><th>cause</th><th>pages</th><th style="text-align:left">outcomes</th></tr></thead>';
    var body = table.createTBody();
    top.forEach(function (e) {
        var row = body.insertRow();
        [hex(e[0]), e[1].n.toLocaleString('en'), Object.keys(e[1].causes).join(', '), e[1].pages.size].forEach(function (v) {
            row.insertCell().textContent = v;
        });
        var cell = row.insertCell();
        cell.style.textAlign = 'left';
        cell.style.width = '45%';
        e[1].outcomes.forEach(function (n, o) {
            if (!n) return;
            var bar = document.createElement('i');
            bar.style.background = 'var(--c-' + data.outcomes[o].colour + ')';
            bar.style.width = n / top[0][1].n * 96 + '%';
            bar.dataset.tip = n.toLocaleString('en') + ' ' + data.outcomes[o].name;
            cell.appendChild(bar);
        });
    });
    var at = root.querySelector('.writers');
    at.textContent = '';
    at.appendChild(table);
}

var due = false;
function draw() {
    if (due) return;
    due = true;
    requestAnimationFrame(function () {
        due = false;
        filter();
        drawTimeline();
        drawHeat();
        drawWriters();
    });
}

// ---- what the reader does ----------------------------------------------------------------------------------
function at(e, canvas) {
    var r = canvas.getBoundingClientRect();
    return { x: e.clientX - r.left, y: e.clientY - r.top };
}
function describe(i) {
    var lines = [time(log.at[i]) + ', ' + data.causes[log.cause[i]] + ', ' + data.outcomes[log.outcome[i]].name +
                 (log.n[i] ? ' (' + log.n[i] + ' CCF' + (log.n[i] > 1 ? 's' : '') + ')' : '')];
    lines.push('PA ' + hex(log.pa[i]) + ', ' + log.len[i] + ' byte' + (log.len[i] > 1 ? 's' : ''));
    lines.push('EIP ' + hex(log.eip[i]) + ', page under ' + log.policies[log.now[i]]);
    return lines.join('\n');
}
function nearest(x, y) {
    var best = -1, least = 100;
    shown.forEach(function (i) {
        var row = pageRow.get(Math.floor(log.pa[i] / 4096));
        if (row === undefined) return;
        var dx = xOf(log.at[i]) - x, dy = HEAD + row * ROW + 4 + (log.pa[i] % 4096) / 4096 * (ROW - 8) - y, d = dx * dx + dy * dy;
        if (d < least) { least = d; best = i; }
    });
    return best;
}
var drag = null;
timeline.addEventListener('pointerdown', function (e) {
    drag = { x: e.clientX, from: view.from, to: view.to };
    timeline.setPointerCapture(e.pointerId);
    timeline.classList.add('drags');
});
timeline.addEventListener('pointerup', function () { drag = null; timeline.classList.remove('drags'); });
timeline.addEventListener('pointermove', function (e) {
    var p = at(e, timeline);
    if (drag) {
        var moved = (e.clientX - drag.x) / (timeline.clientWidth - LABEL - 8) * (drag.to - drag.from);
        view = { from: drag.from - moved, to: drag.to - moved };
        draw();
        return;
    }
    var found = nearest(p.x, p.y);
    if (found !== hover) { hover = found; drawTimeline(); }
    if (found >= 0) showTip(e, describe(found)); else hideTip();
});
timeline.addEventListener('pointerleave', function () { hideTip(); if (hover >= 0) { hover = -1; drawTimeline(); } });
timeline.addEventListener('wheel', function (e) {
    e.preventDefault();
    var t = tOf(Math.max(LABEL, at(e, timeline).x)), f = Math.pow(1.0015, e.deltaY);
    if ((view.to - view.from) * f < 50) return;
    view = { from: t - (t - view.from) * f, to: t + (view.to - t) * f };
    draw();
}, { passive: false });
timeline.addEventListener('dblclick', function () { whole(); draw(); });
heat.addEventListener('pointermove', function (e) {
    var p = at(e, heat), row = Math.floor(p.y / 17), k = Math.floor((p.x - LABEL) / ((heat.clientWidth - LABEL - 8) / CELLS));
    var found = k >= 0 && k < CELLS && heatCells.get(row * CELLS + k);
    if (!found) { hideTip(); return; }
    showTip(e, 'PA ' + hex(pages[row] * 4096 + k * GRANULE) + ', ' + GRANULE + ' bytes\n' + found.outcomes.map(function (n, o) {
        return n ? n.toLocaleString('en') + ' ' + data.outcomes[o].name : '';
    }).filter(Boolean).join(', '));
});
heat.addEventListener('pointerleave', hideTip);
root.querySelectorAll('button[data-cause],button[data-outcome]').forEach(function (b) {
    b.addEventListener('click', function () {
        b.setAttribute('aria-pressed', b.getAttribute('aria-pressed') !== 'true');
        draw();
    });
});
root.querySelector('.reset').addEventListener('click', function () { whole(); draw(); });
chooser.addEventListener('change', function () { choose(+chooser.value); });
addEventListener('resize', draw);
document.addEventListener('themechange', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
if (data.logs.length < 2) chooser.disabled = true;
window.viewerState = function () { // for tests
    return { events: log.t.length, shown: shown.length, from: view.from, to: view.to, pages: pages.length,
             dot: shown.length ? [xOf(log.at[shown[0]]), HEAD + pageRow.get(Math.floor(log.pa[shown[0]] / 4096)) * ROW + 4 +
                                  (log.pa[shown[0]] % 4096) / 4096 * (ROW - 8)] : null };
};
choose(0);
})();
