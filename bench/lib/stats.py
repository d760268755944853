"""Medians, spreads, ratios of pairs and geometric means of samples taken on a noisy machine.

A sample is one figure of one run. Samples of two systems with the same index come from the same interleaved round,
so a disturbance of that round met both: the ratio of two systems is the median of the rounds' ratios, not the ratio
of two medians.
"""
import math
import statistics


class Summary:
    """Median of samples with their spread: quartiles q1 and q3, lowest and highest."""

    def __init__(self, samples):
        samples = sorted(samples)
        if not samples:
            raise ValueError('no samples')
        self.n = len(samples)
        self.median = statistics.median(samples)
        self.low, self.high = samples[0], samples[-1]
        if self.n == 1:
            self.q1 = self.q3 = self.median
        else:
            self.q1, _, self.q3 = statistics.quantiles(samples, n=4, method='inclusive')

    def as_dict(self):
        return {name: getattr(self, name) for name in ('n', 'median', 'q1', 'q3', 'low', 'high')}


def pair_ratios(above, below):
    """The ratios of the rounds that both systems have a sample of. A sample of 0 or less has no ratio."""
    return [a / b for a, b in zip(above, below) if a > 0 and b > 0]


def ratio(above, below):
    """-> Summary of the rounds' ratios, or None when no round has both."""
    ratios = pair_ratios(above, below)
    return Summary(ratios) if ratios else None


def geometric_mean(values):
    """The mean for ratios: twice as fast and half as fast make 1. -> None for nothing."""
    values = list(values)
    if not values:
        return None
    return math.exp(sum(math.log(v) for v in values) / len(values))
