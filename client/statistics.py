"""Statistics of a window: what is kept of rows that must not leave the process.

Kept in clear: names of features, segments and exception classes, counts, and figures that are of no single value. Texts
are only ever a keyed hash. Of numbers there are bins two per cent wide (`schemas.histogram`), which say minimum,
maximum and quantiles; mean and deviation are exact only over at least `EXACT_FROM` different values, and those of the
bins' middles otherwise, so that a single or constant value cannot be read back. Integers below about 50 have bins of
their own: small integers are as visible as classes are.

Nothing here is imported before a session is told to log statistics only: it needs numpy and datasketches.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import datasketches
import numpy as np

from tailrace.schemas.histogram import FIRST, LOG_GAMMA, TINY, Moments, value_of
from tailrace.schemas.limits import MAX_NAME
from tailrace.schemas.truth import truth_kind

EXACT_FROM = 5
"""Different values that a window must have seen before its mean and deviation are written exactly."""
MAX_NAMES = 500
"""Features, parts of predictions or segments of a session in one window; what comes later is left out and counted."""
MAX_TOP = 1000
"""Texts of a feature that are counted one by one within a window."""
WRITTEN_TOP = 20
"""Texts of a feature that a record tells, the most frequent ones."""
MAX_PAIRS = 1000
"""Pairs of label and prediction that are counted one by one within a window."""
MAX_BINS = 2048
"""Bins of one column; beyond them the values nearest to zero share one."""
_LG_K = 11
"""2,048 registers of four bits: a standard error of 2.3 % in about 1 KB; exact enough to be called so below 100."""

_NUMBER_TYPES = frozenset({int, float})
_MISSING_NAMES = frozenset({"NAType", "NaTType"})
_MASK = (1 << 64) - 1


Floats = np.ndarray[Any, np.dtype[np.float64]]


class Hasher:
    """Keyed hashes of values, as 63-bit integers. The same key gives the same hashes in every process.

    Args:
        key: Who does not have it cannot test a guess.
        secret: Whether it is one. Without a secret no hash of a single text is written, only sketches and the
            classes of ground truths.
    """

    def __init__(self, key: bytes, *, secret: bool) -> None:
        self.secret = secret
        self._key = key[:64]
        self._mix = np.uint64(int.from_bytes(blake2b(b"numbers", key=self._key, digest_size=8).digest()))
        self.text = lru_cache(maxsize=8192)(self._text)

    def _text(self, text: str) -> int:
        data = text.encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(data, key=self._key, digest_size=8).digest()) >> 1

    def numbers(self, values: Floats) -> list[int]:
        """Hashes of numbers; 1 and 1.0 have the same, and so do 0.0 and -0.0."""
        bits = (values + 0.0).view(np.uint64) ^ self._mix
        # The finalizer of splitmix64: every bit of the input changes half of the bits of the hash.
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes: list[int] = ((bits ^ (bits >> np.uint64(31))) >> np.uint64(1)).tolist()
        return hashes


class Numbers:
    """Some finite numbers."""

    __slots__ = ("_few", "_sizes", "bins", "moments")

    def __init__(self) -> None:
        self.moments = Moments()
        self.bins: dict[int, int] = {}
        self._few: set[float] = set()
        self._sizes = 0.0

    def add(self, values: Floats) -> None:
        """Count numbers that are all finite."""
        count = len(values)
        if not count:
            return
        with np.errstate(all="ignore"):
            mean = float(values.mean())
            distances = values - mean
            self.moments.add(count, mean, float(np.dot(distances, distances)))
            sizes = np.abs(values)
            self._sizes += float(sizes.sum())
            exponents = np.ceil(np.log(np.maximum(sizes, TINY)) / LOG_GAMMA) - (FIRST - 1)
            numbers = np.where(sizes < TINY, 0, np.maximum(exponents, 1) * np.sign(values))
        bins = self.bins
        for number, times in _tally(numbers.astype(np.int64)):
            bins[number] = bins.get(number, 0) + times
        if len(self._few) < EXACT_FROM:
            self._few.update(np.unique(values)[:EXACT_FROM].tolist())
        if len(bins) > MAX_BINS:
            self._collapse()

    def merge(self, other: Numbers) -> None:
        """Count the numbers of another."""
        self.moments.add(other.moments.count, other.moments.mean, other.moments.m2)
        self._sizes += other._sizes
        for number, times in other.bins.items():
            self.bins[number] = self.bins.get(number, 0) + times
        if len(self._few) < EXACT_FROM:
            self._few |= other._few
        if len(self.bins) > MAX_BINS:
            self._collapse()

    def _collapse(self) -> None:
        """Put the values nearest to zero together, on each side of it: their accuracy is worth the least."""
        order = sorted(self.bins, key=abs)
        excess = order[: len(order) - MAX_BINS + 2]
        positive, negative = (
            sum(self.bins.pop(number) for number in list(excess) if number > 0),
            sum(self.bins.pop(number) for number in list(excess) if number < 0),
        )
        limit = abs(excess[-1])
        for number, times in ((limit, positive), (-limit, negative)):
            if times:
                self.bins[number] = self.bins.get(number, 0) + times

    def figures(self, integers: bool, errors: bool = False) -> dict[str, Any]:
        """What a record says of them."""
        if not self.moments.count:
            return {}
        order = sorted(self.bins)
        if len(self._few) >= EXACT_FROM:
            moments, sizes = self.moments, self._sizes
        else:
            moments, sizes = Moments(), 0.0
            for number in order:
                middle = shown(number, integers)
                moments.add(self.bins[number], middle, 0.0)
                sizes += abs(middle) * self.bins[number]
        figures = {
            "numbers": moments.count,
            "mean": _finite(moments.mean),
            "m2": _finite(moments.m2),
            "min": shown(order[0], integers),
            "max": shown(order[-1], integers),
            "bins": order,
            "bin_counts": [self.bins[number] for number in order],
        }
        if errors:
            figures["mean_abs"] = _finite(sizes / moments.count)
        return figures


def _tally(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Iterable[tuple[int, int]]:
    """Each number that occurs, and how often."""
    low, high = int(numbers.min()), int(numbers.max())
    if high - low <= 4 * len(numbers):  # no need to sort
        counts = np.bincount(numbers - low)
        found = np.flatnonzero(counts)
        return zip((found + low).tolist(), counts[found].tolist(), strict=True)
    found, counts = np.unique(numbers, return_counts=True)
    return zip(found.tolist(), counts.tolist(), strict=True)


def shown(number: int, integers: bool) -> float:
    """The middle of a bin; the integer next to it where all numbers are integers."""
    middle = value_of(number)
    return float(round(middle)) if integers and abs(middle) < 2**53 else middle


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


class Column:
    """One feature, or one part of a prediction."""

    __slots__ = (
        "_distinct",
        "_hasher",
        "booleans",
        "floats",
        "integers",
        "missing",
        "not_finite",
        "numbers",
        "others",
        "texts",
        "top",
    )

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._distinct: Any = None
        self.booleans = self.floats = self.integers = self.missing = self.not_finite = 0
        self.others = self.texts = 0
        self.numbers = Numbers()
        self.top: dict[int, int] = {}

    def add(self, values: Sequence[Any]) -> None:
        """Count values of any kind. Nothing of them is held."""
        kinds = set(map(type, values))
        if kinds <= _NUMBER_TYPES:
            self._add_plain_numbers(values, kinds)
        elif kinds == {str}:
            self._add_texts(values)
        else:
            self._add_mixed(values)

    def _add_plain_numbers(self, values: Sequence[Any], kinds: set[type]) -> None:
        try:
            array = np.array(values, np.float64)
        except OverflowError:
            self._add_mixed(values)
            return
        if len(kinds) == 1:
            if int in kinds:
                self.integers += len(values)
            else:
                self.floats += len(values)
        else:
            integers = sum(type(value) is int for value in values)
            self.integers += integers
            self.floats += len(values) - integers
        finite = np.isfinite(array)
        if not finite.all():
            missing = int(np.isnan(array).sum())
            self.missing += missing
            self.floats -= missing
            self.not_finite += len(array) - missing - int(finite.sum())
            array = array[finite]
        self._add_numbers(array)

    def _add_numbers(self, array: Floats) -> None:
        if len(array):
            self.numbers.add(array)
            # Sorting out repetitions pays where there are many, as a sample shows.
            sample = array[:64].tolist()
            if len(set(sample)) < 0.75 * len(sample):
                array = np.unique(array)
            self._see(self._hasher.numbers(array))

    def _add_texts(self, values: Sequence[str]) -> None:
        self.texts += len(values)
        hash_of, top = self._hasher.text, self.top
        hashes = []
        for text, times in Counter(values).items():
            hashed = hash_of(text)
            hashes.append(hashed)
            if hashed in top or len(top) < MAX_TOP:
                top[hashed] = top.get(hashed, 0) + times
        self._see(hashes)

    def _add_mixed(self, values: Sequence[Any]) -> None:
        texts: list[str] = []
        integers: list[int] = []
        floats: list[float] = []
        truths: list[float] = []
        for value in values:
            value = plain(value)
            if value is None:
                self.missing += 1
            elif value is True or value is False:
                truths.append(float(value))
            elif isinstance(value, str):
                texts.append(str.__str__(value))
            elif isinstance(value, int):
                if value.bit_length() <= 1000:
                    integers.append(int(value))
                else:
                    self.others += 1
            elif isinstance(value, float):
                floats.append(float(value))
            else:
                self.others += 1
        if texts:
            self._add_texts(texts)
        if integers:
            self._add_plain_numbers(integers, {int})
        if floats:
            self._add_plain_numbers(floats, {float})
        if truths:
            self.booleans += len(truths)
            self._add_numbers(np.array(truths))

    def _see(self, hashes: Iterable[int]) -> None:
        if self._distinct is None:
            self._distinct = datasketches.hll_sketch(_LG_K, datasketches.tgt_hll_type.HLL_4)
        update = self._distinct.update
        for hashed in hashes:
            update(hashed)

    def merge(self, other: Column) -> None:
        """Count what another has counted."""
        for name in ("booleans", "floats", "integers", "missing", "not_finite", "others", "texts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.numbers.merge(other.numbers)
        for hashed, times in other.top.items():
            if hashed in self.top or len(self.top) < MAX_TOP:
                self.top[hashed] = self.top.get(hashed, 0) + times
        if self._distinct is None:
            self._distinct = other._distinct
        elif other._distinct is not None:
            union = datasketches.hll_union(_LG_K)
            union.update(self._distinct)
            union.update(other._distinct)
            self._distinct = union.get_result(datasketches.tgt_hll_type.HLL_4)

    @property
    def count(self) -> int:
        """How many values, missing ones included."""
        return self.booleans + self.floats + self.integers + self.missing + self.others + self.texts

    @property
    def type(self) -> str:
        """What the values are."""
        kinds = [
            name
            for name, times in (
                ("boolean", self.booleans),
                ("text", self.texts),
                ("other", self.others),
                ("number" if self.floats else "integer", self.floats + self.integers),
            )
            if times
        ]
        return kinds[0] if len(kinds) == 1 else "mixed" if kinds else "none"

    def figures(self, rows: int) -> dict[str, Any]:
        """What a record says of the column.

        Args:
            rows: Of the window; a row without this column counts as missing.
        """
        absent = max(rows - self.count, 0)
        figures: dict[str, Any] = {
            "type": self.type,
            "count": self.count + absent,
            "missing": self.missing + absent,
            "not_finite": self.not_finite,
            **self.numbers.figures(integers=not self.floats),
        }
        if self._distinct is not None:
            figures["distinct"] = base64.b64encode(self._distinct.serialize_compact()).decode()
        if self.top and self._hasher.secret:
            frequent = sorted(self.top.items(), key=lambda item: (-item[1], item[0]))[:WRITTEN_TOP]
            figures["top"] = {f"{hashed:016x}": times for hashed, times in frequent}
        return figures


def plain(value: Any) -> Any:
    """A value as one of Python's own scalars, where it is a scalar of numpy or pandas; None for a missing one."""
    kind = type(value)
    if kind in (str, int, float, bool) or value is None:
        return value
    if kind.__name__ in _MISSING_NAMES:
        return None
    if kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return value


class Truths:
    """Ground truths of one segment and one type."""

    __slots__ = (
        "_hasher",
        "count",
        "errors",
        "kind",
        "matches",
        "missing",
        "not_finite",
        "pairs",
        "unpaired",
    )

    def __init__(self, kind: str, hasher: Hasher) -> None:
        self.kind = kind
        self._hasher = hasher
        self.count = self.matches = self.missing = self.not_finite = self.unpaired = 0
        self.errors = Numbers()
        self.pairs: dict[tuple[int, int], int] = {}

    def add(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Count pairs of label and prediction that `truth_kind` puts into this type."""
        self.count += len(pairs)
        if self.kind == "number":
            self._add_errors(pairs)
            return
        if self.kind == "none":
            self.missing += len(pairs)
            return
        for (label, prediction), times in _count(pairs):
            if label == prediction:
                self.matches += times
            if self.kind == "other":
                continue
            if self.kind == "binary":
                pair = (int(label), int(prediction))
            else:
                pair = (self._hasher.text(label), self._hasher.text(prediction))
            self._add_pair(pair, times)

    def _add_pair(self, pair: tuple[int, int], times: int) -> None:
        if pair in self.pairs or len(self.pairs) < MAX_PAIRS:
            self.pairs[pair] = self.pairs.get(pair, 0) + times
        else:
            self.unpaired += times

    def _add_errors(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        labels = np.array([_float(label) for label, _ in pairs])
        predictions = np.array([_float(prediction) for _, prediction in pairs])
        with np.errstate(all="ignore"):
            errors = predictions - labels
        missing = np.isnan(labels) | np.isnan(predictions)
        finite = np.isfinite(errors)
        self.missing += int(missing.sum())
        self.not_finite += int((~finite & ~missing).sum())
        self.matches += int((labels == predictions).sum())
        self.errors.add(errors[finite])

    def merge(self, other: Truths) -> None:
        """Count what another has counted."""
        for name in ("count", "matches", "missing", "not_finite", "unpaired"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.merge(other.errors)
        for pair, times in other.pairs.items():
            self._add_pair(pair, times)

    def figures(self) -> dict[str, Any]:
        """What a record says of them."""
        figures: dict[str, Any] = {
            "type": self.kind,
            "count": self.count,
            "missing": self.missing,
            "not_finite": self.not_finite,
            "matches": self.matches,
            **self.errors.figures(integers=False, errors=True),
        }
        if self.kind == "binary":
            cells = {"tp": (1, 1), "fp": (0, 1), "tn": (0, 0), "fn": (1, 0)}
            figures["confusion"] = {cell: self.pairs.get(pair, 0) for cell, pair in cells.items()}
        elif self.pairs:
            figures["confusion"] = [
                [f"{label:016x}", f"{prediction:016x}", times]
                for (label, prediction), times in sorted(self.pairs.items())
            ]
            if self.unpaired:
                figures["uncounted"] = self.unpaired
        return figures


def _count(pairs: Sequence[tuple[Any, Any]]) -> Iterable[tuple[tuple[Any, Any], int]]:
    try:
        return list(Counter(pairs).items())
    except TypeError:  # lists are not hashable
        return [(pair, 1) for pair in pairs]


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


class Window:
    """Everything of one session in one window."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self.rows = 0
        self.features: dict[str, Column] = {}
        self.outputs: dict[str, Column] = {}
        self.truths: dict[tuple[str, str], Truths] = {}
        self.exceptions: Counter[str] = Counter()
        self.left_out: set[str] = set()
        self.uncounted = 0

    def add_rows(self, rows: Sequence[tuple[Any, Any]]) -> None:
        """Count predictions.

        Args:
            rows: Pairs of features (a dict of its own, or a sequence) and prediction.
        """
        shapes: dict[tuple[Any, ...], list[Any]] = {}
        for features, _ in rows:
            if type(features) is dict:
                shapes.setdefault(tuple(features), []).append(features.values())
            elif features is not None:
                shapes.setdefault(tuple(range(len(features))), []).append(features)
        for names, values in shapes.items():
            self.add_columns(dict(zip(names, zip(*values, strict=True), strict=True)))
        self.add_predictions([prediction for _, prediction in rows])

    def add_columns(self, columns: Mapping[Any, Sequence[Any]]) -> None:
        """Count features, column by column."""
        for name, values in columns.items():
            self._column(self.features, name).add(values)

    def add_predictions(self, predictions: Sequence[Any]) -> None:
        """Count as many rows, and what the model answered; the parts of a list or a dict are columns of their own."""
        self.rows += len(predictions)
        self._column(self.outputs, "").add(predictions)
        parts: dict[Any, list[Any]] = {}
        for prediction in predictions:
            kind = type(prediction)
            if kind is list:
                for index, part in enumerate(prediction[:MAX_NAMES]):
                    parts.setdefault(index, []).append(part)
            elif kind is dict:
                for name, part in prediction.items():
                    parts.setdefault(name, []).append(part)
        for name, values in parts.items():
            self._column(self.outputs, name).add(values)

    def add_truths(self, truths: Sequence[tuple[Any, Any, Sequence[str]]]) -> None:
        """Count ground truths: label, prediction, segments."""
        groups: dict[tuple[str, str], list[tuple[Any, Any]]] = {}
        for label, prediction, segments in truths:
            label, prediction = plain(label), plain(prediction)
            kind = truth_kind(label, prediction)
            for segment in {"", *segments}:
                groups.setdefault((segment[:MAX_NAME], kind), []).append((label, prediction))
        for key, pairs in groups.items():
            found = self.truths.get(key)
            if found is None:
                found = Truths(key[1], self._hasher)
                if len(self.truths) < MAX_NAMES:
                    self.truths[key] = found
                else:
                    self._leave_out(key[0])
            found.add(pairs)

    def add_exceptions(self, names: Iterable[str]) -> None:
        """Count exceptions by class."""
        for name in names:
            if name in self.exceptions or len(self.exceptions) < MAX_NAMES:
                self.exceptions[name] += 1
            else:
                self.exceptions["(other)"] += 1

    def merge(self, other: Window) -> None:
        """Count what another has counted."""
        self.rows += other.rows
        self.uncounted += other.uncounted
        for name in other.left_out:
            self._leave_out(name)
        for mine, theirs in ((self.features, other.features), (self.outputs, other.outputs)):
            for name, column in theirs.items():
                self._column(mine, name).merge(column)
        for key, truths in other.truths.items():
            if key not in self.truths and len(self.truths) < MAX_NAMES:
                self.truths[key] = Truths(key[1], self._hasher)
            if key in self.truths:
                self.truths[key].merge(truths)
        for name, times in other.exceptions.items():
            known = name in self.exceptions or len(self.exceptions) < MAX_NAMES
            self.exceptions[name if known else "(other)"] += times

    def _column(self, columns: dict[str, Column], name: Any) -> Column:
        text = (name if type(name) is str else str(name))[:MAX_NAME]
        column = columns.get(text)
        if column is None:
            column = Column(self._hasher)
            if len(columns) < MAX_NAMES:
                columns[text] = column
            else:
                self._leave_out(text)
        return column

    def _leave_out(self, name: str) -> None:
        if len(self.left_out) < MAX_NAMES:
            self.left_out.add(name)

    def records(self) -> list[dict[str, Any]]:
        """What is to be written of the window, without its times; empty when nothing was logged."""
        found: list[dict[str, Any]] = []
        for name, column in self.features.items():
            found.append({"subject": "feature", "name": name, **column.figures(self.rows)})
        for name, column in self.outputs.items():
            rows = self.rows if name == "" else column.count
            found.append({"subject": "prediction", "name": name, **column.figures(rows)})
        for (segment, _), truths in self.truths.items():
            found.append({"subject": "ground_truth", "name": segment, **truths.figures()})
        for name, times in self.exceptions.items():
            found.append({"subject": "exceptions", "name": name, "count": times})
        if self.uncounted and found:
            found[0]["uncounted"] = self.uncounted
        return found
