#!/usr/bin/env python3
"""bench/run from outside: what is wrong on its command line is one line and status 2, and a run is a table, JSON and HTML.

    test_run.py RINGDOWN
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench', 'run')
RINGDOWN = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith('-') else 'ringdown'


def run(*args):
    return subprocess.run([RUN, '--ringdown', RINGDOWN, *args], capture_output=True, text=True)


class Usage(unittest.TestCase):
    def test_bad_arguments_are_one_line_and_status_2(self):
        for args in (['--suite', 'nosuch'], ['--suite', ''], ['--rounds', '0'], ['--rounds', 'x'], ['--nosuch'],
                     ['--json', '/nonexistent/f'], ['--json', '/'], ['surplus'], ['--ringdown', '/nonexistent'],
                     ['--qemu', ''], ['--qemu', "'"], ['--suite', 'user', '--only', 'nosuch']):
            with self.subTest(args):
                done = run('--quiet', *args)
                self.assertEqual((done.returncode, done.stdout), (2, ''), done.stderr)
                self.assertEqual(done.stderr.count('\n'), 1, done.stderr)
                self.assertTrue(done.stderr.startswith('run: '), done.stderr)

    def test_a_file_that_is_no_report_is_one_line(self):
        for path in (RUN, '/nonexistent', '/'):
            done = run('--show', path)
            self.assertEqual((done.returncode, done.stderr.count('\n')), (1, 1), done.stderr)

    def test_a_suite_that_fails_is_one_line_and_status_1(self):
        done = run('--suite', 'user,system', '--only', 'sieve,pipe', '--no-qemu', '--rounds', '1', '--quiet', '--ringdown', 'false')
        self.assertEqual((done.returncode, done.stdout, done.stderr.count('\n')), (1, '', 2), done.stderr)
        self.assertTrue(all(line.startswith('run: suite ') for line in done.stderr.splitlines()), done.stderr)

    def test_suites_are_listed(self):
        self.assertIn('user ', run('--suite', 'list').stdout)


class Smoke(unittest.TestCase):
    """The shortest run there is of one workload on all three systems."""

    def test_user_workload(self):
        with tempfile.TemporaryDirectory() as d:
            files = [os.path.join(d, n) for n in ('r.json', 'r.html')]
            done = run('--suite', 'user', '--only', 'sieve', '--rounds', '1', '--warm-ms', '1', '--measure-ms', '1',
                       '--quiet', '--json', files[0], '--html', files[1])
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(files[0]) as f:
                suites = json.load(f)['suites']
            row = suites[0]['rows'][0]
            self.assertEqual((row['name'], sorted(row['samples'])), ('sieve', ['native', 'qemu', 'ringdown']))
            self.assertTrue(all(10e3 < ns < 10e9 for samples in row['samples'].values() for ns in samples), row)
            self.assertIn('sieve', done.stdout)
            self.assertIn('<svg', open(files[1]).read())
            self.assertEqual(run('--show', files[0]).stdout, done.stdout)

    def test_system_workloads(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, 'r.json')
            done = run('--suite', 'system', '--only', 'pipe,find,fault-cow', '--rounds', '1', '--quick', '--warm-ms', '1',
                       '--measure-ms', '1', '--quiet', '--json', path)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(path) as f:
                suites = {s['name']: s for s in json.load(f)['suites']}
            self.assertEqual([r['name'] for r in suites['system']['rows']], ['fault-cow', 'pipe', 'find'])
            for row in suites['system']['rows'] + suites['system-elapsed']['rows']:
                self.assertEqual(sorted(row['samples']), ['qemu', 'ringdown'])
                self.assertTrue(all(100 < ns < 100e9 for samples in row['samples'].values() for ns in samples), row)


if __name__ == '__main__':
    unittest.main()
