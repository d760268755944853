#!/usr/bin/env python3
"""The suites `nano` and `scale`: what a guest printed becomes figures or an error; the scale program does its work."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench'))
from lib import results            # noqa: E402
from nano import suite as nano     # noqa: E402
from scale import guests           # noqa: E402
from scale import suite as scale   # noqa: E402

EVENT = 'event in place 0x%x samples 21 cost %d p10 1 p90 2 chain 2048 2048 wide 600 600'


class Nano(unittest.TestCase):
    def test_cost_becomes_core_clocks_by_the_chain(self):
        # 100.00 TSC cycles while 4096 core clocks took 2048: 200 core clocks.
        lines = [EVENT % (0x1000, 10000), EVENT % (0x2000, 5000), 'ok in', 'done 0 failures']
        self.assertEqual(nano.parse(lines, 'x'), {'in': [200, 100]})

    def test_events_that_did_not_happen_are_an_error(self):
        for lines in ([EVENT % (1, 1), 'FAIL in: 0x3, expected 0x0', 'done 1 failures'],
                      [EVENT % (1, 1), 'done 0 failures'],                # never checked
                      [EVENT % (1, 1), 'ok in'],                          # no end
                      ['LOST a block ended by an exception'], []):
            self.assertRaises(nano.GuestFailed, nano.parse, lines, 'x')

    def test_every_target_and_published_figure_has_an_event(self):
        events = {event for event, _ in nano.EVENTS}
        self.assertEqual(len(events), len(nano.EVENTS))
        self.assertFalse((set(nano.TARGETS) | set(nano.PUBLISHED)) - events)

    def test_every_event_of_the_guest_is_in_the_table(self):
        here = os.path.join(nano.HERE, '..', '..', 'guests', 'bench', 'nano', 'machine.c')
        with open(here) as f:
            names = {line.split('B(')[1].split(',')[0] for line in f if line.startswith('    B(')}
        self.assertEqual(names - {event for event, _ in nano.EVENTS}, {'empty'})


class Scale(unittest.TestCase):
    def test_growth_is_largest_over_smallest(self):
        rows = [results.Row('fork, %d processes' % n, 'ns', {'a': [cost], 'b': [10]}) for n, cost in ((10, 4), (99, 7), (200, 6))]
        rows += [results.Row('code of %s, again' % s, 'ns', {'a': [c]}) for s, c in (('128 KiB', 2), ('1 MiB', 8))]
        rows += [results.Row('alone', 'ns', {'a': [1]})]
        found = {what: (small, large, factors) for what, small, large, factors in
                 scale.growth(results.Suite('s', 't', ['a', 'b'], rows))}
        self.assertEqual(found, {'fork': ('10 processes', '200 processes', {'a': 1.5, 'b': 1}),
                                 'code, again': ('128 KiB', '1 MiB', {'a': 4})})

    def test_the_program_does_its_work(self):
        with guests.Files() as files, guests.native(files, timeout=60) as session:
            for command, parts in (('fork 3 5', {'fork'}), ('exec 3 5', {'exec'}), ('ring 3 4', {'ring'}),
                                   ('touch 1', {'touch'}), ('heap 1', {'heap-first', 'heap-again'}),
                                   ('code 4', {'code-first', 'code-again'})):
                costs = session.ask(command)
                self.assertEqual(set(costs), parts)
                self.assertTrue(all(own > 0 for _, own in costs.values()), costs)
            self.assertRaises(guests.GuestError, session.ask, 'heap 3')


unittest.main()
