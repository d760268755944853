"""What a test guest reports, and which of it is known to be wrong on an emulator.

A guest prints `ok NAME` or `FAIL NAME: what` for each check, `LOST why` when it cannot go on, and
`done N failures` at its end. A name may come more than once; the second one is NAME#2.

tests/guest/differences lists the checks that QEMU or Bochs fails although the manual says otherwise, and those that our
boot image fails because of the emulator below it.
"""
import collections
import fnmatch
import os

HERE = os.path.dirname(os.path.abspath(__file__))

# checks: name -> None when it held, else what was wrong; broken: why there is no whole report, or None.
Report = collections.namedtuple("Report", "checks broken seconds")
# ring1-X: our boot image on X.
MACHINES = ("qemu", "bochs", "ring1-qemu", "ring1-bochs")
Rule = collections.namedtuple("Rule", "machine topic check section why")


def topic_of(image):
    return os.path.basename(image).removesuffix(".bz").removesuffix(".rom")


def report_of(outcome, timeout):
    """The Report of one boot."""
    checks, counts, broken, ended = {}, collections.Counter(), None, False
    for line in outcome.lines:
        kind, _, rest = line.partition(" ")
        if kind in ("ok", "FAIL"):
            name, _, what = rest.partition(": ")
            counts[name] += 1
            if counts[name] > 1:
                name += "#%d" % counts[name]
            checks[name] = None if kind == "ok" else what or "failed"
        elif kind == "LOST":
            broken = line
        elif kind == "done" and rest.endswith("failures"):
            ended = True
    if not ended and not broken:
        how = "no end after %d s" % timeout if outcome.status is None else "ended with status %d" % outcome.status
        broken = "%s; last line: %s" % (how, outcome.lines[-1:] or "none")
    if broken and outcome.errors:
        broken = "\n".join([broken] + outcome.errors.strip().split("\n")[-40:])
    return Report(checks, broken, outcome.seconds)


def read_differences(path=os.path.join(HERE, "differences")):
    rules = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = [part.strip() for part in line.split("|")]
            where = parts[0].split()
            if len(parts) != 3 or len(where) < 2 or where[0] not in MACHINES or not all(parts):
                raise SystemExit("%s:%d: not 'MACHINE TOPIC.CHECK... | manual section | what the machine does'" % (path, number))
            for pattern in where[1:]:
                topic, dot, check = pattern.partition(".")
                if not dot:
                    raise SystemExit("%s:%d: '%s' is not TOPIC.CHECK" % (path, number, pattern))
                rules.append(Rule(where[0], topic, check, parts[1], parts[2]))
    return rules


def rule_for(rules, machine, topic, check):
    """The rule that says that this machine gets this check wrong, or None."""
    for rule in rules:
        if rule.machine == machine and rule.topic == topic and \
                (fnmatch.fnmatchcase(check, rule.check) or fnmatch.fnmatchcase(check.split("#")[0], rule.check)):
            return rule
    return None
