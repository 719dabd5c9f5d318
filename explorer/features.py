"""Figures of one feature, added up over raw values and over the statistics of windows."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

from tailrace.explorer.deployments import ColumnReport
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.histogram import Moments, bin_of, quantile, value_of

_EXACT_DISTINCT = 10_000
_LG_K = 11


class ColumnFigures:
    """What is known so far of a feature or a part of a prediction."""

    def __init__(self) -> None:
        self.count = 0
        self._types: set[str] = set()
        self._missing = self._not_finite = 0
        self._moments = Moments()
        self._bins: dict[int, int] = {}
        self._min = math.inf  # of raw values; the bins know those of statistics
        self._max = -math.inf
        self._raw_bins = 0
        self._values: set[Any] = set()
        self._many: Any = None
        self._union: Any = None

    def add_value(self, value: Any) -> None:
        """One raw value, as JSON had it."""
        self.count += 1
        if value is None or value != value:
            self._missing += 1
        elif isinstance(value, str):
            self._types.add("text")
            self._see(value)
        elif isinstance(value, bool):
            self._types.add("boolean")
            self._add_number(float(value))
        elif isinstance(value, int | float):
            self._types.add("integer" if isinstance(value, int) else "number")
            try:
                self._add_number(float(value))
            except OverflowError:
                self._not_finite += 1
        else:
            self._types.add("other")

    def _add_number(self, number: float) -> None:
        if not math.isfinite(number):
            self._not_finite += 1
            return
        self._moments.add(1, number, 0.0)
        self._min, self._max = min(self._min, number), max(self._max, number)
        bin_number = bin_of(number)
        self._bins[bin_number] = self._bins.get(bin_number, 0) + 1
        self._raw_bins += 1
        self._see(number)

    def _see(self, value: str | float) -> None:
        if self._many is not None:
            self._many.update(value)
            return
        self._values.add(value)
        if len(self._values) > _EXACT_DISTINCT:
            self._many = _sketches().hll_sketch(14, _sketches().tgt_hll_type.HLL_8)
            for seen in self._values:
                self._many.update(seen)
            self._values.clear()

    def add_record(
        self,
        type_: str,
        count: int,
        missing: int,
        not_finite: int,
        numbers: int,
        mean: float | None,
        m2: float | None,
        mean_abs: float | None,
        bins: list[int],
        bin_counts: list[int],
        distinct: bytes,
    ) -> None:
        """One row of `statistics`."""
        self.count += count
        self._missing += missing
        self._not_finite += not_finite
        if type_ != "none":
            self._types.add(type_)
        self._moments.add_told(numbers, mean, m2)
        for number, times in zip(bins, bin_counts, strict=False):
            self._bins[number] = self._bins.get(number, 0) + times
        if distinct:
            self._merge(distinct)

    def _merge(self, encoded: bytes) -> None:
        sketches = _sketches()
        try:
            sketch = sketches.hll_sketch.deserialize(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError, RuntimeError, IndexError):
            return  # no sketch of ours: the other figures of the record stand
        if self._union is None:
            self._union = sketches.hll_union(_LG_K)
        self._union.update(sketch)

    def answer(self, name: str, rows: int) -> ColumnReport:
        """As an answer.

        Args:
            name: Of the feature.
            rows: How many rows there were; those that did not have it count as missing.
        """
        absent = max(rows - self.count, 0)
        count, missing = self.count + absent, self._missing + absent
        type_ = self._type()
        integers = type_ in ("integer", "boolean")
        only_raw = self._raw_bins == sum(self._bins.values())
        low, high = self._extremes(integers, only_raw)
        deviation = self._moments.deviation
        return ColumnReport(
            name=name,
            type=type_,
            count=count,
            missing=missing,
            missing_share=missing / count if count else None,
            not_finite=self._not_finite,
            distinct=self._distinct(),
            mean=_known(self._moments.mean) if self._moments.count else None,
            std=None if deviation is None else _known(deviation),
            min=low,
            p50=self._quantile(0.5, integers, low, high),
            p95=self._quantile(0.95, integers, low, high),
            max=high,
        )

    def _type(self) -> str:
        types = self._types
        if types == {"integer", "number"}:
            return "number"
        return next(iter(types)) if len(types) == 1 else "mixed" if types else "none"

    def _extremes(self, integers: bool, only_raw: bool) -> tuple[float | None, float | None]:
        if not self._bins:
            return None, None
        if only_raw:
            return self._min, self._max
        low, high = _shown(min(self._bins), integers), _shown(max(self._bins), integers)
        # The bin that a raw extreme is in says less than the raw extreme.
        if math.isfinite(self._min) and bin_of(self._min) == min(self._bins):
            low = self._min
        if math.isfinite(self._max) and bin_of(self._max) == max(self._bins):
            high = self._max
        return low, high

    def _quantile(self, share: float, integers: bool, low: float | None, high: float | None) -> float | None:
        middle = quantile(self._bins, share)
        if middle is None or low is None or high is None:
            return None
        if integers:
            middle = _shown(bin_of(middle), integers)
        return min(max(middle, low), high)

    def _distinct(self) -> int | None:
        # Raw values and hashed ones cannot be told to be the same: the larger number is what there is at least.
        raw = len(self._values) if self._many is None else round(self._many.get_estimate())
        hashed = 0 if self._union is None else round(self._union.get_estimate())
        found = max(raw, hashed)
        return found or (0 if not self._types - {"other"} else None)


def _shown(number: int, integers: bool) -> float:
    middle = value_of(number)
    return float(round(middle)) if integers and abs(middle) < 2**53 else middle


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _sketches() -> Any:
    try:
        import datasketches
    except ModuleNotFoundError as exc:
        raise ConfigError(f"statistics need {exc.name}: pip install 'tailrace[explorer]'") from exc
    return datasketches
