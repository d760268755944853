#!/usr/bin/env python3
"""-accel bt,coherency-log=FILE: what a guest does to its code is what the log says, and the counters agree.

    tests/bench/test_coherency_log.py BUILD
"""
import csv
import json
import os
import subprocess
import sys
import tempfile
import unittest

CODE = 0x800000 # guests/bench/modify.c


class Log:
    def __init__(self, path):
        with open(path) as f:
            lines = f.read().splitlines()
        self.head, self.tail = lines[0], lines[-1]
        self.events = [dict(row, **{n: int(row[n], 0) for n in ('ns', 'pa', 'len', 'eip', 'dropped', 'patched', 'parked', 'unchanged')})
                       for row in csv.DictReader(lines[1:-1])]

    def sum(self, name):
        return sum(e[name] for e in self.events)


class CoherencyLog(unittest.TestCase):
    def run_guest(self, load, accel, ticks=3000000):
        """-> (Log, counters)"""
        path, stats = os.path.join(self.dir, 'log'), os.path.join(self.dir, 'stats')
        done = subprocess.run(
            [os.path.join(self.build, 'ringdown'), '-m', '64M', '-kernel', os.path.join(self.build, 'guests', 'bench', 'modify.bz'),
             '-serial', 'stdio', '-display', 'none', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-append',
             'load=%s rounds=1 ticks=%d' % (load, ticks), '-accel', 'bt,%s,coherency-log=%s,stats=%s' % (accel, path, stats)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        self.assertIn(b'ok workload', done.stdout, done.stderr)
        self.assertEqual(done.stderr, b'')
        with open(stats) as f:
            return Log(path), json.load(f)

    def function(self, name):
        """(first, last) address of a function of the guest."""
        table = subprocess.run(['nm', '-S', os.path.join(self.build, 'guests', 'bench', 'modify.elf')],
                               stdout=subprocess.PIPE, check=True).stdout.decode()
        start, size = next(line.split()[:2] for line in table.splitlines() if line.split()[-1] == name)
        return int(start, 16), int(start, 16) + int(size, 16) - 1

    def test_trace_drops(self):
        for mem in ('checked', 'window', 'adaptive'):
            with self.subTest(mem=mem):
                log, counters = self.run_guest('modify-constant', 'coherency=trace,mem=' + mem)
                stores = [e for e in log.events if e['pa'] == CODE + 1]
                self.assertGreater(len(stores), 10)
                first, last = self.function('modify_through')
                for e in stores:
                    self.assertTrue(first <= e['eip'] <= last, hex(e['eip']))
                    self.assertEqual((e['cause'], e['policy'], e['len']), ('store', 'trace', 4))
                self.assertEqual(log.sum('dropped'), counters['inval_write'])
                self.assertEqual(len([e for e in log.events if e['cause'] == 'store']), counters['traced_store'])
                self.assertEqual([e['ns'] for e in log.events], sorted(e['ns'] for e in log.events))
                self.assertIn('events=%d written=%d lost=0' % (len(log.events), len(log.events)), log.tail)

    def test_patch_patches(self):
        log, counters = self.run_guest('modify-by-alias', 'coherency=patch')
        self.assertEqual(log.sum('patched'), counters['coherency_patched'])
        self.assertEqual(log.sum('unchanged'), counters['coherency_unchanged'])
        self.assertGreater(log.sum('patched'), 10)
        self.assertIn(CODE + 1, {e['pa'] for e in log.events}, 'the physical address, not that of the alias')

    def test_retranslate_sets_aside(self):
        log, counters = self.run_guest('patch-text', 'coherency=retranslate')
        self.assertEqual(log.sum('parked'), counters['coherency_parked'])
        self.assertEqual(log.sum('dropped'), counters['inval_write'])
        self.assertGreater(log.sum('parked'), 10)

    def test_check_finds_stale_code(self):
        log, counters = self.run_guest('modify-constant', 'coherency=check')
        stale = [e for e in log.events if e['cause'] == 'stale']
        # the first store to a page finds it traced, and ends that
        self.assertEqual({(e['cause'], e['policy']) for e in log.events},
                         {('store', 'trace'), ('policy', 'check'), ('stale', 'check')})
        self.assertGreater(len(stale), 10)
        self.assertEqual(sum(e['dropped'] for e in log.events if e['cause'] != 'policy'), counters['inval_write'])
        self.assertEqual({(e['pa'], e['eip']) for e in stale}, {(CODE, CODE)})

    def test_adaptive_tells_its_moves(self):
        log, counters = self.run_guest('mixed-page', 'coherency=adaptive')
        moves = [e for e in log.events if e['cause'] == 'policy']
        self.assertEqual(len(moves), sum(v for n, v in counters.items() if n.startswith('coherency_to_')))
        self.assertIn(('check', CODE), {(e['policy'], e['pa']) for e in moves})
        beside = [e for e in log.events if e['cause'] == 'store' and not e['dropped'] + e['patched'] + e['unchanged']]
        self.assertGreater(len(beside), 100)

    def test_devices_are_told_from_instructions(self):
        """guests/topics/coherency.c has a device write into functions, among much else."""
        path = os.path.join(self.dir, 'log')
        done = subprocess.run([os.path.join(self.build, 'ringdown'), '-m', '64M', '-kernel',
                               os.path.join(self.build, 'guests', 'coherency.bz'), '-display', 'none', '-serial', 'stdio', '-device',
                               'isa-debug-exit,iobase=0xf4,iosize=4', '-accel', 'bt,coherency=trace,coherency-log=' + path],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        self.assertIn(b'done 0 failures', done.stdout)
        log = Log(path)
        device = [e for e in log.events if e['cause'] == 'device' and e['dropped']]
        self.assertGreater(len(device), 2)
        self.assertEqual({e['len'] for e in device}, {4})
        self.assertGreater(len([e for e in log.events if e['cause'] == 'store']), 100)

    def test_the_file_is_bounded_and_counts_go_on(self):
        log, counters = self.run_guest('neighbour', 'coherency=trace,coherency-max=100', ticks=20000000)
        self.assertEqual(len(log.events), 100)
        said = dict(word.split('=') for word in log.tail.split()[2:])
        self.assertEqual(int(said['written']), 100)
        self.assertEqual(int(said['events']), counters['traced_store'])
        self.assertGreater(int(said['events']), 1000)

    def test_the_instruction_clock_gives_the_same_log_twice(self):
        logs = [self.run_guest('emit-and-run', 'coherency=trace,clock=insn', ticks=5000)[0].events for _ in range(2)]
        self.assertGreater(len(logs[0]), 10)
        self.assertEqual(*logs)

    def test_errors_are_one_line(self):
        for name, status, says in (('/nosuch/dir/file', 1, 'coherency-log'), ('/dev/full', 1, 'coherency-log')):
            done = subprocess.run([os.path.join(self.build, 'ringdown'), '-m', '64M', '-kernel',
                                   os.path.join(self.build, 'guests', 'bench', 'modify.bz'), '-display', 'none', '-serial', 'null',
                                   '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-accel', 'bt,coherency-log=' + name],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
            text = done.stderr.decode()
            self.assertNotEqual(done.returncode, 0, name)
            self.assertIn(says, text)
            self.assertEqual(text.count('\n'), 1, text)


if __name__ == '__main__':
    CoherencyLog.build = sys.argv[1]
    with tempfile.TemporaryDirectory() as CoherencyLog.dir:
        unittest.main(argv=sys.argv[:1] + sys.argv[2:])
