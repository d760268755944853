"""What the acceptance scripts have in common: criteria, their selection, their lines, and running other programs.

A script has one Criteria. Its functions are registered by `@criteria.criterion`, take the script's run object and
return their figure, or raise Fail with it. `criteria.main` prints one line for each.
"""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import subprocess
import sys
import time

from guest import GuestError, ROOT

OUT = os.path.join(ROOT, 'build', 'accept')
# Children that compute go behind whoever waits at a terminal.
NICE = ['nice', '-n', '10']


class Fail(Exception):
    """A criterion is not met; the text is its figure."""


class Criteria:
    def __init__(self, doc, program):
        self.doc = doc
        self.program = program
        self.all = []

    def criterion(self, fn):
        """Register a function as a criterion: its name without the prefix, its first doc line as help."""
        self.all.append((fn.__name__.replace('check_', ''), fn))
        return fn

    def parser(self):
        p = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        p.add_argument('--only', default='', help='criteria to check, separated by commas')
        p.add_argument('--skip', default='', help='criteria to leave out')
        p.add_argument('--quick', action='store_true', help='short versions')
        p.add_argument('--vmm', default=os.path.join(ROOT, 'build', 'release', 'ringdown'))
        p.add_argument('--vmm-args', default='', help="more arguments for the VMM, such as '-accel bt,mem=checked'")
        p.add_argument('--timeout', type=float, default=120, help='seconds a boot or a command may take')
        p.add_argument('--json', metavar='FILE', help='write the results there, too')
        p.add_argument('--list', action='store_true', help='name the criteria and stop')
        return p

    def print_list(self):
        for name, fn in self.all:
            print('%-12s %s' % (name, fn.__doc__))

    def select(self, args, not_quick=()):
        """-> ([(name, function)], names left out)."""
        names = [n for n, _ in self.all]
        only = [n for n in args.only.split(',') if n]
        skip = [n for n in args.skip.split(',') if n]
        for n in only + skip:
            if n not in names:
                sys.exit('%s: no criterion %r; there are: %s' % (self.program, n, ', '.join(names)))
        if args.quick and not only:
            skip += not_quick
        return [(n, f) for n, f in self.all if (not only or n in only) and n not in skip], skip

    def check(self, run, selected, skipped, json_file=None):
        """Check and print all; -> exit status."""
        results = []
        for name, fn in selected:
            started = time.monotonic()
            try:
                passed, figure = True, fn(run)
            except (Fail, GuestError, OSError, subprocess.SubprocessError) as e:
                passed, figure = False, str(e)
            took = time.monotonic() - started
            print('%s %-12s %s  [%.0f s]' % ('PASS' if passed else 'FAIL', name, figure, took), flush=True)
            results.append(dict(name=name, passed=passed, figure=figure, seconds=round(took, 1)))
        if json_file:
            with open(json_file, 'w') as f:
                json.dump(results, f, indent=2)
        for name in skipped:
            print('SKIP %s' % name)
        failed = sum(not r['passed'] for r in results)
        print('%d passed, %d failed' % (len(results) - failed, failed))
        return 1 if failed else 0


# ---- other programs of this project ----------------------------------------------------------------

def logged(name, argv, timeout=None, env=None):
    """Run to the end with output to build/accept/NAME.log; -> (exit status, output, seconds)."""
    os.makedirs(OUT, exist_ok=True)
    path = os.path.join(OUT, name + '.log')
    started = time.monotonic()
    with open(path, 'wb') as f:
        try:
            done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT,
                                  timeout=timeout, env=env, check=False)
        except subprocess.TimeoutExpired as e:
            raise Fail('%s did not end within %.0f s; log build/accept/%s.log' % (argv[0], timeout, name)) from e
    with open(path, 'rb') as f:
        return done.returncode, f.read().decode('latin-1'), time.monotonic() - started


def fuzz(names, seconds, out=OUT):
    """Build the fuzzers, run those that match a pattern each for a time, one a core; -> figure, or Fail with all findings.

    names: {what a user would call it: pattern of program names}; each pattern must match."""
    status, text, _ = logged('fuzz-build', NICE + ['sh', '-c', 'cmake --preset fuzz && cmake --build --preset fuzz -j 2'])
    if status != 0:
        raise Fail('the fuzz preset does not build: ' + text[-200:].strip())
    programs = [p for p in sorted(glob.glob(os.path.join(ROOT, 'build/fuzz/bin/fuzz_*'))) if os.access(p, os.X_OK)]
    chosen = []
    for what, pattern in names.items():
        found = [p for p in programs if re.search(pattern, os.path.basename(p))]
        if not found:
            raise Fail('no fuzzer for %s among %s' % (what, [os.path.basename(p) for p in programs]))
        chosen += [p for p in found if p not in chosen]

    def run_one(program):
        name = os.path.basename(program)
        corpus = os.path.join(out, name + '-corpus')
        os.makedirs(corpus, exist_ok=True)
        seeds = os.path.join(ROOT, 'tests', 'fuzz', 'corpus', name.replace('fuzz_', ''))
        env = dict(os.environ, ASAN_OPTIONS='handle_segv=1:detect_leaks=0',
                   UBSAN_OPTIONS='halt_on_error=1:print_stacktrace=1')
        status, text, _ = logged(name, NICE + [program, '-max_total_time=%d' % seconds, '-print_final_stats=1',
                                               '-artifact_prefix=%s/%s-' % (out, name), corpus] +
                                 ([seeds] if os.path.isdir(seeds) else []), env=env)
        units = re.search(r'number_of_executed_units:\s*(\d+)', text)
        return name, status, '%s %s runs' % (name, units.group(1) if units else '?')

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(run_one, chosen))
    findings = ['%s: a finding, see build/accept/%s.log' % (name, name) for name, status, _ in done if status != 0]
    if findings:
        raise Fail('; '.join(findings))
    figures = [figure for _, _, figure in done]
    return 'no finding in %d s each: %s' % (seconds, ', '.join(figures))
