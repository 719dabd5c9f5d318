"""Distributions that merge: moments, and counts of values in bins whose width grows with the value.

A bin covers values that differ by at most two per cent, so the middle of a bin is within one per cent (`ACCURACY`) of
everything in it: the mapping of DDSketch (Masson, Rim and Lee, VLDB 2019). Two histograms merge by adding up counts; in
which order, and how the values were spread over processes, changes nothing. No value itself is kept, unlike in
sketches that hold a sample (KLL, t-digest, REQ), which is why those are not used for data that must stay private.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

ACCURACY = 0.01
"""Relative error of a value that is read from a bin."""
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
"""Ratio of the upper ends of neighbouring bins."""
LOG_GAMMA = math.log(GAMMA)
TINY = 1e-100
"""What is nearer to zero counts as zero."""
FIRST = math.ceil(math.log(TINY) / LOG_GAMMA)
"""The exponent of the bin nearest to zero, so that bins count from 1."""


def bin_of(value: float) -> int:
    """The bin of a finite number: 0 for zero, positive for positive values; bins sort as their values do."""
    size = abs(value)
    if size < TINY:
        return 0
    number = max(math.ceil(math.log(size) / LOG_GAMMA) - FIRST + 1, 1)
    return number if value > 0 else -number


def value_of(number: int) -> float:
    """The middle of a bin, within `ACCURACY` of every value in it."""
    if number == 0:
        return 0.0
    exponent = abs(number) + FIRST - 1
    try:
        size = math.exp(exponent * LOG_GAMMA) * 2 / (GAMMA + 1)
    except OverflowError:
        size = math.inf
    size = min(size, 1.797e308)
    return size if number > 0 else -size


def quantile(bins: Mapping[int, int], share: float) -> float | None:
    """The value below which a share of the numbers lies; None for an empty histogram.

    Args:
        bins: How many numbers each bin has.
        share: From 0 (the smallest number) to 1 (the largest). The answer is within `ACCURACY` of the number at rank
            `share * (count - 1)`, rounded down.
    """
    total = sum(bins.values())
    if total == 0:
        return None
    rank = math.floor(share * (total - 1))
    seen = 0
    for number in sorted(bins):
        seen += bins[number]
        if seen > rank:
            return value_of(number)
    return None


@dataclass(slots=True)
class Moments:
    """Count, mean and sum of squared deviations of some numbers.

    Args:
        count: How many.
        mean: Of them; 0 for none.
        m2: Sum of the squares of their distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, count: int, mean: float, m2: float) -> None:
        """Merge with the moments of other numbers (Chan, Golub and LeVeque); no cancellation as with sums of squares."""
        if count <= 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.m2 += m2 + delta * delta * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    def add_told(self, count: int, mean: float | None, m2: float | None) -> None:
        """The same with what a record tells; None says that it was beyond a float's range."""
        self.add(count, math.nan if mean is None else mean, math.nan if m2 is None else max(m2, 0.0))

    @property
    def deviation(self) -> float | None:
        """The standard deviation of these numbers taken as the whole population; None for none."""
        return math.sqrt(max(self.m2, 0.0) / self.count) if self.count else None
