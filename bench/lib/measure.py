"""Interleaved runs, median and spread, numbers for people."""
import os
import platform
import statistics


def summary(values):
    """-> dict of median, low, high and the values themselves, in the order they were measured."""
    values = list(values)
    return dict(median=statistics.median(values), low=min(values), high=max(values), n=len(values), values=values)


def interleaved(names, rounds):
    """Yield (round, name) so that what disturbs the machine meets everybody: each round runs all, and each
    round begins with another one."""
    names = list(names)
    for i in range(rounds):
        for j in range(len(names)):
            yield i, names[(i + j) % len(names)]


def ratio(ours, theirs):
    """Of two lists measured in the same rounds: the median of the pairs' ratios ours/theirs, lowest, highest."""
    return summary(a / b for a, b in zip(ours, theirs) if b)


def si(value, unit='', digits=3):
    """1234.5, 'ns' -> '1.23 µs' for times given in ns; other units get k, M, G."""
    if value is None:
        return '–'
    if unit == 'ns':
        for size, name in ((1e9, 's'), (1e6, 'ms'), (1e3, 'µs')):
            if abs(value) >= size * 0.9995:
                return '%s %s' % (rounded(value / size, digits), name)
        return '%s ns' % rounded(value, digits)
    for size, name in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if abs(value) >= size * 0.9995:
            return (rounded(value / size, digits) + name + unit).rstrip()
    return (rounded(value, digits) + (' ' + unit if unit else '')).rstrip()


def rounded(value, digits=3):
    """Significant digits, no exponent: 0.0123, 1.23, 12.3, 123."""
    if value == 0:
        return '0'
    before = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if before >= digits:
        return '%d' % round(value)
    if before:
        text = '%.*f' % (digits - before, value)
    else:
        text = '%.*g' % (digits, value)
        if 'e' in text:
            text = '%.6f' % value
    return text.rstrip('0').rstrip('.') if '.' in text else text


def host():
    """What the figures were measured on."""
    model = platform.machine()
    try:
        with open('/proc/cpuinfo') as f:
            model = next(line.split(':', 1)[1].strip() for line in f if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    return dict(processor=model, cores=len(os.sched_getaffinity(0)), load=round(os.getloadavg()[0], 2),
                kernel=platform.release())
