#!/usr/bin/env python3
"""The benches' library: statistics against hand-computed values, verdicts, JSON there and back, tables and HTML."""
import html.parser
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
from lib import guest, machine, report, results, runs, stats, svg, text  # noqa: E402


class Statistics(unittest.TestCase):
    def test_median_and_quartiles(self):
        s = stats.Summary([9, 1, 3, 5, 7])
        self.assertEqual((s.n, s.low, s.q1, s.median, s.q3, s.high), (5, 1, 3, 5, 7, 9))

    def test_one_sample_has_no_spread(self):
        s = stats.Summary([4])
        self.assertEqual((s.q1, s.median, s.q3), (4, 4, 4))

    def test_no_sample_is_an_error(self):
        self.assertRaises(ValueError, stats.Summary, [])

    def test_ratio_is_of_rounds_not_of_medians(self):
        # A disturbance doubled both systems in every other round: the rounds' ratios do not show it.
        self.assertEqual(stats.ratio([10, 20, 10, 20, 10], [5, 10, 5, 10, 5]).high, 2)
        # Here the ratio of the medians, 30/10, would be 3.
        self.assertEqual(stats.ratio([10, 30, 40], [10, 10, 40]).median, 1)

    def test_rounds_that_lack_a_system_are_left_out(self):
        self.assertEqual(stats.ratio([6, 8], [3]).n, 1)
        self.assertIsNone(stats.ratio([1], []))
        self.assertIsNone(stats.ratio([0], [5]))

    def test_geometric_mean(self):
        self.assertTrue(math.isclose(stats.geometric_mean([2, 8]), 4))
        self.assertTrue(math.isclose(stats.geometric_mean([.5, 2]), 1))
        self.assertIsNone(stats.geometric_mean([]))


class Interleaving(unittest.TestCase):
    def test_each_round_starts_with_another_system(self):
        order = []
        rows = runs.interleave(['a', 'b'], 3, lambda system, n: order.append(system) or {'r': [n, n + .5]})
        self.assertEqual(order, ['a', 'b', 'b', 'a', 'a', 'b'])
        self.assertEqual(rows, {'r': {'a': [0, .5, 1, 1.5, 2, 2.5], 'b': [0, .5, 1, 1.5, 2, 2.5]}})


def suite():
    rows = [results.Row('sieve <1>', 'ns', dict(native=[100, 100, 100], ringdown=[110, 120, 130], qemu=[700, 700, 720]),
                        [results.Target('ringdown', 1.3, 'native'),
                         results.Target('qemu', 6, 'ringdown', at_least=True),
                         results.Target('ringdown', 100)]),
            results.Row('chase', 'ns', dict(native=[1e6], ringdown=[2e6]))]
    return results.Suite('user', 'User workloads', ['native', 'ringdown', 'qemu'], rows,
                         [('ringdown', 'native'), ('qemu', 'ringdown')],
                         [results.Mean('ringdown', 'native', 1.1)], ['a gap'])


class Results(unittest.TestCase):
    def test_verdicts(self):
        self.assertEqual([v for _, v in suite().rows[0].verdicts()], ['reached', 'missed?', 'missed'])

    def test_a_limit_between_the_quartiles_is_marked(self):
        target = results.Target('a', 10)
        self.assertEqual(target.judge(stats.Summary([8, 9, 11, 12, 9])), 'reached?')
        self.assertEqual(target.judge(stats.Summary([8, 11, 11, 12, 9])), 'missed?')
        self.assertIsNone(target.judge(None))

    def test_mean_over_rows(self):
        s = suite()
        self.assertTrue(math.isclose(s.means[0].over(s.rows), math.sqrt(1.2 * 2)))
        self.assertEqual(s.means[0].verdict(s.rows), 'missed')

    def test_counts_leave_goals_out(self):
        report = results.Report(machine.describe(), 'x', [suite()])
        self.assertEqual(report.counts(), dict(reached=1, missed=3))
        report.suites[0].rows[0].targets[1].goal = True
        self.assertEqual(report.counts(), dict(reached=1, missed=2))

    def test_json_there_and_back(self):
        report = results.Report(machine.describe(), 'bench/run', [suite()])
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, 'r.json')
            report.dump(path)
            self.assertEqual(results.Report.load(path).as_dict(), report.as_dict())
            with open(path, 'w') as f:
                f.write('{}')
            self.assertRaises(ValueError, results.Report.load, path)


class Text(unittest.TestCase):
    def test_figures(self):
        self.assertEqual([text.figure(v, 'ns') for v in (3.14159, 45.67, 999, 1500, 2.5e6, 3e9, None)],
                         ['3.14 ns', '45.7 ns', '999 ns', '1.50 us', '2.50 ms', '3.00 s', '-'])
        self.assertEqual(text.figure(1234, 'cycles'), '1234 cycles')

    def test_table_has_targets_beside_figures(self):
        line = [l for l in text.suite_text(suite()).splitlines() if l.startswith('sieve')][0]
        self.assertIn('1.20 (1.15..1.25)', line)
        self.assertIn('ringdown/native <= 1.3 reached', line)
        self.assertIn('qemu/ringdown >= 6 missed?', line)

    def test_bounds_have_units(self):
        self.assertEqual(text.bound(results.Target('a', 10e6), 'ns'), 'a <= 10.0 ms')
        self.assertEqual(text.bound(results.Target('a', 3, 'b', at_least=True, goal=True), 'ns'), 'goal a/b >= 3')

    def test_markdown_is_rectangular(self):
        self.assertEqual({l.count('|') for l in text.markdown(suite()).splitlines()}, {8})


class Guests(unittest.TestCase):
    def test_the_archive_is_what_cpio_reads(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, 'odd')
            with open(path, 'wb') as f:
                f.write(b'12345')
            os.symlink('odd', os.path.join(d, 'link'))
            archive = guest.archive({**guest.tree(d, 'a/b'), 'run.sh': b'echo'})
            listed = subprocess.run(['cpio', '--quiet', '-itvn'], input=archive, capture_output=True, check=True).stdout.decode()
            found = {line.split()[8]: (line.split()[0], line.split()[4]) for line in listed.splitlines()}
            self.assertEqual(found, {'a': ('drwxr-xr-x', '0'), 'a/b': ('drwxr-xr-x', '0'), 'a/b/odd': ('-rw-r--r--', '5'),
                                     'a/b/link': ('lrwxrwxrwx', '3'), 'run.sh': ('-rwxr-xr-x', '4')})
            out = subprocess.run(['cpio', '--quiet', '-i', '--to-stdout', 'a/b/odd', 'run.sh'], input=archive, capture_output=True)
            self.assertEqual(out.stdout, b'12345echo')

    def test_processor_time_is_the_hosts_for_a_guest(self):
        row = 'sieve 10 0x5 1000 1100 9000'.split()
        self.assertEqual(vars(guest.Measured(row, 5e6)), dict(checksum='0x5', cpu=5e5, elapsed=1100, first=9000))
        self.assertEqual(guest.Measured(row).cpu, 1000)

    def test_a_row_without_its_marks_is_an_error(self):
        self.assertRaises(guest.BenchError, guest.Boot('row a 1 0 1 1 1\n', 1, 1, {}, 1).measured)

    def test_processor_time_goes_on_while_a_process_computes(self):
        with subprocess.Popen([sys.executable, '-c', 'while True: pass']) as child:
            before, deadline = guest.cpu_ns([child.pid]), time.monotonic() + 30
            while guest.cpu_ns([child.pid]) - before < 50e6 and time.monotonic() < deadline:
                time.sleep(.01)
            child.kill()
        self.assertLess(time.monotonic(), deadline)


class Parser(html.parser.HTMLParser):
    """Counts what is open, and collects what would reach the network."""
    VOID = ('meta', 'link', 'br')

    def __init__(self):
        super().__init__()
        self.open, self.outside, self.charts, self.fills = [], [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.charts += tag == 'svg'
        self.outside += [v for k, v in attrs if k in ('src', 'href') and v != 'data:,']
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.fills += dict(attrs).get('class') == 'fill'

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


class Html(unittest.TestCase):
    def test_report_is_whole_and_self_contained(self):
        page = report.of_report(results.Report(machine.describe(), 'bench/run', [suite()]))
        p = Parser()
        p.feed(page)
        self.assertEqual((p.open, p.outside), ([], []))
        self.assertEqual((p.charts, p.fills), (3, 3))  # figures, two kinds of ratios; two ratios to native, one to QEMU
        self.assertNotIn('http:', page)
        self.assertIn('sieve &lt;1&gt;', page)
        self.assertNotIn('sieve <1>', page)

    def test_ratios_are_drawn_from_one(self):
        def bar(*samples):
            chart = svg.ratios([('a', 'k', stats.Summary(samples)), ('b', 'k', stats.Summary([.25])), ('c', 'k', stats.Summary([4]))], 'l')
            return [float(m) for m in re.findall(r'width="([0-9.]+)" height="14"', chart)]
        same, half, twice = bar(1)
        self.assertEqual(same, 1.5)
        self.assertTrue(math.isclose(half, twice, rel_tol=.01), (half, twice))

    def test_ticks_stay_few(self):
        for low, high in ((.9, 1.3), (.2, 90), (.001, 1e4)):
            self.assertLessEqual(len(svg._ratio_ticks(low, high)), 9)


if __name__ == '__main__':
    unittest.main()
