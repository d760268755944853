#!/usr/bin/env python3
"""bench/coherency from end to end: a short run of every workload, its figures, and its report in a browser.

    tests/bench/test_coherency.py BUILD [--keep DIR]
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE]
sys.dont_write_bytecode = True
from browser import Browser, png_colours  # noqa: E402

BENCH = os.path.join(ROOT, 'bench', 'coherency')


def frames(browser):
    browser.eval('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')


class Coherency(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.json, cls.html = os.path.join(cls.dir, 'coherency.json'), os.path.join(cls.dir, 'coherency.html')
        cls.done = subprocess.run([BENCH, '--build', cls.build, '--quick', '--log', '--json', cls.json, '--html', cls.html],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        if cls.done.returncode:
            raise AssertionError(cls.done.stdout.decode())
        with open(cls.json) as f:
            cls.results = json.load(f)

    def one(self, load, machine):
        return self.results['loads'][load]['machines'][machine]

    def test_every_machine_has_run_every_workload(self):
        keys = {m['key'] for m in self.results['machines']}
        self.assertLessEqual({'trace', 'check', 'patch', 'adaptive', 'qemu'}, keys)
        self.assertGreaterEqual(len(self.results['loads']), 11)
        for name, load in self.results['loads'].items():
            want = keys - ({'native'} if name == 'patch-kernel' else set())
            self.assertEqual(set(load['machines']), want, name)
            for key, one in load['machines'].items():
                self.assertTrue(all(0 < ns < 1e10 for ns in one['ns']), (name, key, one['ns']))

    def test_counters_tell_how(self):
        """What each policy does with an event is what the counters say it did."""
        self.assertAlmostEqual(self.one('modify-constant', 'trace')['per_event']['inval_write'], 1, delta=0.1)
        self.assertAlmostEqual(self.one('modify-constant', 'trace')['per_event']['traced_store'], 1, delta=0.1)
        self.assertAlmostEqual(self.one('modify-constant', 'patch')['per_event']['coherency_patched'], 1, delta=0.1)
        self.assertLess(self.one('modify-constant', 'patch')['per_event']['inval_write'], 0.1)
        self.assertLess(self.one('modify-constant', 'check')['per_event']['traced_store'], 0.1)  # the first one of a page
        self.assertAlmostEqual(self.one('mixed-page', 'trace')['per_event']['traced_store_false'], 1, delta=0.1)
        self.assertLess(self.one('nothing-changes', 'adaptive')['per_event']['traced_store'], 0.01)

    def test_table_names_all(self):
        out = self.done.stdout.decode()
        for load in self.results['loads'].values():
            self.assertIn(load['title'], out)

    def test_page_opens_in_a_browser(self):
        for name, width, dark in (('light', 1200, False), ('dark', 1200, True), ('narrow', 420, False)):
            with Browser(width=width, dark=dark) as b:
                b.open(self.html)
                picture = os.path.join(self.dir, 'coherency-%s.png' % name)
                b.screenshot(picture)
                self.assertEqual(b.problems, [])
                self.assertEqual([r for r in b.requests if not r.startswith(('file:', 'data:'))], [])
                self.assertGreater(png_colours(picture), 50)
                self.assertGreaterEqual(b.eval('document.querySelectorAll("svg.chart").length'), len(self.results['loads']) + 1)
                self.assertLessEqual(b.eval('document.documentElement.scrollWidth'), width, 'wider than the window')

    def test_legend_hides_a_series_and_tips_tell_figures(self):
        with Browser() as b:
            b.open(self.html)
            shown = 'Array.from(document.querySelectorAll(".s-qemu")).filter(e => !e.classList.contains("off")).length'
            self.assertGreater(b.eval(shown), 10)
            b.click(*b.middle_of('.legend button[data-series=qemu]'))
            self.assertEqual(b.eval(shown), 0)
            x, y = b.middle_of('.mark.s-trace .dot')
            b.mouse('mouseMoved', x, y)
            self.assertIn('trace', b.eval('document.querySelector("#tip.on").textContent'))
            b.click(*b.middle_of('button.theme'))
            self.assertEqual(b.eval('document.documentElement.dataset.theme'), 'dark')
            self.assertEqual(b.problems, [])

    def test_event_viewer_zooms_filters_and_tells(self):
        with Browser(height=1000) as b:
            b.open(self.html)
            first = b.eval('viewerState()')
            self.assertGreater(first['events'], 10)
            self.assertEqual(first['shown'], first['events'])
            # another log
            self.assertGreater(b.eval('document.querySelectorAll("#viewer option").length'), 30)
            b.eval('(() => { const s = document.querySelector("#viewer select"); s.value = "1"; '
                   's.dispatchEvent(new Event("change")); })()')
            frames(b)
            second = b.eval('viewerState()')
            self.assertNotEqual((first['from'], first['to']), (second['from'], second['to']))
            # the wheel zooms around the pointer, the button shows all again
            x, y = b.middle_of('#viewer canvas.time')
            b.mouse('mouseWheel', x, y, deltaX=0, deltaY=-600)
            frames(b)
            zoomed = b.eval('viewerState()')
            self.assertLess(zoomed['to'] - zoomed['from'], 0.6 * (second['to'] - second['from']))
            self.assertLess(zoomed['shown'], second['shown'])
            b.click(*b.middle_of('#viewer .reset'))
            frames(b)
            self.assertEqual(b.eval('viewerState().shown'), second['shown'])
            # a dot tells what it is
            b.middle_of('#viewer canvas.time')
            left, top = b.eval('(() => { const r = document.querySelector("#viewer canvas.time").getBoundingClientRect(); '
                               'return [r.x, r.y]; })()')
            dot = b.eval('viewerState().dot')
            b.mouse('mouseMoved', left + dot[0], top + dot[1])
            self.assertRegex(b.eval('document.querySelector("#tip.on").textContent'), r'PA 0x[0-9a-f]{8}, \d+ byte')
            # causes can be filtered
            for cause in range(5):
                b.click(*b.middle_of('#viewer button[data-cause="%d"]' % cause))
            frames(b)
            self.assertEqual(b.eval('viewerState().shown'), 0)
            self.assertEqual(b.problems, [])

    def test_a_log_alone_makes_a_page(self):
        log, page = os.path.join(self.dir, 'a.log'), os.path.join(self.dir, 'view.html')
        with open(log, 'w') as f:
            f.write('# ringdown coherency-log 1 policy=trace clock=host\n'
                    'ns,pa,len,eip,cause,policy,dropped,patched,parked,unchanged\n'
                    '5,0x00001000,4,0xfffffff0,store,trace,1,0,0,0\n70,0x234567890,1,0x00000001,device,trace,0,0,0,0\n'
                    '# end events=2 written=2 lost=0\n')
        subprocess.run([BENCH, '--view', log, '--html', page], check=True)
        with Browser() as b:
            b.open(page)
            self.assertEqual(b.eval('[viewerState().events, viewerState().pages]'), [2, 2])
            self.assertEqual(b.problems, [])

    def test_what_is_no_log_is_one_line(self):
        for text in ('', 'x\n', '# ringdown coherency-log 1 policy=trace clock=host\nns,pa\n5,6\n# end events=1\n'):
            log = os.path.join(self.dir, 'bad.log')
            with open(log, 'w') as f:
                f.write(text)
            done = subprocess.run([BENCH, '--view', log, '--html', os.path.join(self.dir, 'bad.html')], stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), r'^coherency: .*bad.log[^\n]*\n$')

    def test_a_browser_that_finds_an_error_says_so(self):
        """The test above can fail."""
        path = os.path.join(self.dir, 'broken.html')
        with open(path, 'w') as f:
            f.write('<!doctype html><script>undefined_function();</script><img src="http://127.0.0.1:9/x.png">')
        with Browser() as b:
            b.open(path)
            self.assertTrue(any('undefined_function' in p for p in b.problems), b.problems)
            self.assertTrue(any(r.startswith('http:') for r in b.requests))


if __name__ == '__main__':
    Coherency.build = sys.argv[1]
    if sys.argv[2:3] == ['--keep']:
        Coherency.dir = sys.argv[3]
        unittest.main(argv=sys.argv[:1] + sys.argv[4:])
    with tempfile.TemporaryDirectory() as Coherency.dir:
        unittest.main(argv=sys.argv[:1] + sys.argv[2:])
