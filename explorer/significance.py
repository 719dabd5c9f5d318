"""Whether a difference is more than chance: tests on counts and moments, without a single row of data.

- of two means, Welch's t-test: neither equal variances nor equal sizes are assumed. Means of skewed values such as
  latencies need some dozens of values on each side before its p-values deserve belief.
- of two shares, the two-proportion z-test with pooled variance
- of two distributions over categories, the G-test (the likelihood ratio form of the chi-square test)
- of many at once, Holm's step-down correction: with it, the chance that any of them is called significant without
  reason stays below `LEVEL`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05
"""A corrected p-value below this is called significant."""

_TINY = 1e-300
_STEPS = 500


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a sample of numbers: how many, their mean, and the sum of squared distances from it.

    Numbers so large that their squares leave a float's range make it infinite; nothing is tested then.
    """

    count: int
    mean: float
    squares: float

    def without(self, part: Moments) -> Moments:
        """Of the numbers that are not in `part`, which must be among these."""
        count = self.count - part.count
        if count <= 0:
            return Moments(0, 0.0, 0.0)
        mean = (self.mean * self.count - part.mean * part.count) / count
        apart = mean - part.mean
        between = apart * apart * count * part.count / self.count
        return Moments(count, mean, max(self.squares - part.squares - between, 0.0))


def welch(a: Moments, b: Moments) -> float | None:
    """The two-sided p-value of equal means; `None` when a side has fewer than two values, or no value differs at all."""
    if a.count < 2 or b.count < 2:
        return None
    va, vb = a.squares / (a.count - 1) / a.count, b.squares / (b.count - 1) / b.count
    spread = va + vb
    if not math.isfinite(spread) or not math.isfinite(a.mean - b.mean):
        return None
    if spread <= 0:
        return None if a.mean == b.mean else 0.0
    t = (a.mean - b.mean) / math.sqrt(spread)
    degrees = spread * spread / max(va * va / (a.count - 1) + vb * vb / (b.count - 1), _TINY)
    if not math.isfinite(degrees) or not degrees:
        return None
    return _beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def proportions(a: int, of_a: int, b: int, of_b: int) -> float | None:
    """The two-sided p-value of equal shares `a / of_a` and `b / of_b`; `None` when a side is empty or nothing varies."""
    if not of_a or not of_b or a + b in (0, of_a + of_b):
        return None
    pooled = (a + b) / (of_a + of_b)
    z = (a / of_a - b / of_b) / math.sqrt(pooled * (1 - pooled) * (1 / of_a + 1 / of_b))
    return math.erfc(abs(z) / math.sqrt(2))


def g_test(a: Sequence[int], b: Sequence[int]) -> float | None:
    """The p-value of one distribution behind two rows of counts, category by category; `None` when either is empty."""
    total_a, total_b = sum(a), sum(b)
    seen = [(x, y) for x, y in zip(a, b, strict=True) if x + y]
    if not total_a or not total_b or len(seen) < 2:
        return None
    total = total_a + total_b
    g = 0.0
    for x, y in seen:
        for count, of in ((x, total_a), (y, total_b)):
            if count:
                g += 2 * count * math.log(count * total / ((x + y) * of))
    return _upper_gamma((len(seen) - 1) / 2, max(g, 0.0) / 2)


def holm(p_values: Sequence[float | None], tests: int | None = None) -> list[float | None]:
    """The p-values after Holm's correction, in the same order; `None` stays so.

    Args:
        p_values: As tested.
        tests: How many were possible, when not all of them are here.
    """
    known = sorted((p, n) for n, p in enumerate(p_values) if p is not None)
    count = max(tests or 0, len(known))
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, n) in enumerate(known):
        highest = max(highest, min(p * (count - rank), 1.0))
        corrected[n] = highest
    return corrected


def _beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function, by Lentz's evaluation of its continued fraction."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _STEPS):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + step * d)
            c = _away(1 + step / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return min(front * fraction / a, 1.0)


def _upper_gamma(a: float, x: float) -> float:
    """The regularized upper incomplete gamma function: by series near zero, by continued fraction beyond."""
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, 100 * _STEPS):
            term *= x / (a + n)
            total += term
            if term < total * 1e-14:
                break
        return max(1 - total * front, 0.0)
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    fraction = d
    for n in range(1, 100 * _STEPS):
        step = -n * (n - a)
        b += 2
        d = 1 / _away(step * d + b)
        c = _away(b + step / c)
        fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return min(front * fraction, 1.0)


def _away(value: float) -> float:
    """A divisor, kept away from zero."""
    return value if abs(value) > _TINY else _TINY
