"""Results of a bench: rows of samples by system, the targets set for them, and the verdicts.

    Report          machine, date, command and suites
      Suite         rows measured on the same systems, and the geometric means over them
        Row         name, unit, {system: samples}; targets; figures from elsewhere (published ones)
          Target    a bound on a figure of one system, or on the ratio of two

A suite is a module bench/NAME/suite.py with a TITLE and `run(options) -> [Suite]`; bench/run finds them, and its options
are its arguments. `run` keeps to options.only (row names; [] for all), asks options.systems(names) which of its systems are
wanted, and raises lib.guest.BenchError for what it cannot do. Lower is better
in every row: a row is a time or a cost. What is better when higher is given as its reciprocal.
"""
import json

from . import stats

SCHEMA = 1


class Target:
    """A bound: `above` alone bounds the figure of that system, `above` over `below` the ratio of the two.

    @param at_least  the bound is a lower one (speed-up over a peer); otherwise it is an upper one
    """

    def __init__(self, above, limit, below=None, at_least=False, goal=False):
        self.above, self.below, self.limit, self.at_least, self.goal = above, below, limit, at_least, goal

    def holds(self, figure):
        return figure >= self.limit if self.at_least else figure <= self.limit

    def judge(self, spread):
        """-> 'reached' or 'missed' by the median, with '?' when the limit lies between the quartiles; None unmeasured."""
        if spread is None:
            return None
        verdict = 'reached' if self.holds(spread.median) else 'missed'
        return verdict + ('?' if spread.q1 < self.limit < spread.q3 else '')

    def as_dict(self):
        return dict(vars(self))


class Row:
    def __init__(self, name, unit, samples, targets=(), note='', published=None):
        self.name, self.unit, self.samples = name, unit, samples
        self.targets, self.note, self.published = list(targets), note, dict(published or {})

    def summary(self, system):
        samples = self.samples.get(system)
        return stats.Summary(samples) if samples else None

    def ratio(self, above, below):
        return stats.ratio(self.samples.get(above, ()), self.samples.get(below, ()))

    def spread_of(self, target):
        return self.summary(target.above) if target.below is None else self.ratio(target.above, target.below)

    def verdicts(self):
        """-> [(target, verdict)]"""
        return [(t, t.judge(self.spread_of(t))) for t in self.targets]

    def as_dict(self):
        return dict(name=self.name, unit=self.unit, note=self.note, published=self.published, samples=self.samples,
                    summary={s: stats.Summary(v).as_dict() for s, v in self.samples.items() if v},
                    targets=[dict(t.as_dict(), verdict=v) for t, v in self.verdicts()])


class Mean:
    """The geometric mean of the rows' ratios above/below, and the target it has."""

    def __init__(self, above, below, limit=None, at_least=False):
        self.above, self.below = above, below
        self.target = None if limit is None else Target(above, limit, below, at_least)

    def over(self, rows):
        ratios = [row.ratio(self.above, self.below) for row in rows]
        return stats.geometric_mean(r.median for r in ratios if r)

    def verdict(self, rows):
        value = self.over(rows)
        if value is None or self.target is None:
            return None
        return 'reached' if self.target.holds(value) else 'missed'


class Suite:
    """@param ratios  [(above, below)]: the ratio columns of the table
       @param gaps    lines: what was asked for and could not be measured"""

    def __init__(self, name, title, systems, rows, ratios=(), means=(), gaps=(), details=None):
        self.name, self.title, self.systems, self.rows = name, title, list(systems), list(rows)
        self.ratios, self.means, self.gaps = list(ratios), list(means), list(gaps)
        self.details = dict(details or {})

    def as_dict(self):
        return dict(name=self.name, title=self.title, systems=self.systems, ratios=self.ratios, gaps=self.gaps,
                    details=self.details, rows=[row.as_dict() for row in self.rows],
                    means=[dict(above=m.above, below=m.below, value=m.over(self.rows),
                                target=m.target and m.target.as_dict(), verdict=m.verdict(self.rows))
                           for m in self.means])

    @classmethod
    def from_dict(cls, d):
        rows = [Row(r['name'], r['unit'], r['samples'], [_target(t) for t in r['targets']], r['note'], r['published'])
                for r in d['rows']]
        means = [Mean(m['above'], m['below'], m['target'] and m['target']['limit'],
                      bool(m['target'] and m['target']['at_least'])) for m in d['means']]
        return cls(d['name'], d['title'], d['systems'], rows, [tuple(r) for r in d['ratios']], means, d['gaps'],
                   d['details'])


def _target(d):
    return Target(d['above'], d['limit'], d['below'], d['at_least'], d['goal'])


class Report:
    def __init__(self, machine, command, suites):
        self.machine, self.command, self.suites = machine, command, list(suites)

    def counts(self):
        """-> {'reached': n, 'missed': n} over all targets of rows and means; goals are not counted."""
        found = dict(reached=0, missed=0)
        for suite in self.suites:
            verdicts = [v for row in suite.rows for t, v in row.verdicts() if not t.goal]
            verdicts += [m.verdict(suite.rows) for m in suite.means]
            for verdict in verdicts:
                if verdict:
                    found[verdict.rstrip('?')] += 1
        return found

    def as_dict(self):
        return dict(schema=SCHEMA, machine=self.machine, command=self.command, counts=self.counts(),
                    suites=[s.as_dict() for s in self.suites])

    def dump(self, path):
        with open(path, 'w') as f:
            json.dump(self.as_dict(), f, indent=1)
            f.write('\n')

    @classmethod
    def load(cls, path):
        """Raises ValueError with one line when the file is no report of this schema."""
        with open(path) as f:
            d = json.load(f)
        if not isinstance(d, dict) or d.get('schema') != SCHEMA:
            raise ValueError('%s is no report of schema %d' % (path, SCHEMA))
        return cls(d['machine'], d['command'], [Suite.from_dict(s) for s in d['suites']])
