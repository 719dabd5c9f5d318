"""Figures of ground truths of one segment, added up over raw ones and over the statistics of windows."""

from __future__ import annotations

import math
from typing import Any

from tailrace.explorer.deployments import Performance
from tailrace.schemas.histogram import Moments


class SegmentFigures:
    """What is known so far of a segment, for one type of answers."""

    def __init__(self) -> None:
        self._count = self._missing = self._matches = 0
        self._pairs: dict[tuple[str, str], int] = {}
        self._errors = Moments()
        self._sizes = 0.0

    def add_pair(self, kind: str, label: Any, prediction: Any) -> None:
        """One raw ground truth."""
        self._count += 1
        if kind == "none":
            self._missing += 1
        elif kind == "number":
            self._add_error(label, prediction)
        else:
            self._matches += label == prediction
            if kind != "other":
                pair = str(label), str(prediction)
                self._pairs[pair] = self._pairs.get(pair, 0) + 1

    def _add_error(self, label: float, prediction: float) -> None:
        try:
            error = float(prediction) - float(label)
        except OverflowError:
            return
        if error != error and (label != label or prediction != prediction):
            self._missing += 1
        elif math.isfinite(error):
            self._errors.add(1, error, 0.0)
            self._sizes += abs(error)

    def add_record(
        self,
        count: int,
        missing: int,
        not_finite: int,
        numbers: int,
        mean: float | None,
        m2: float | None,
        mean_abs: float | None,
        bins: list[int],
        bin_counts: list[int],
        matches: int,
        confusion: Any,
    ) -> None:
        """One row of `statistics`."""
        self._count += count
        self._missing += missing
        self._matches += matches
        self._errors.add_told(numbers, mean, m2)
        if numbers:
            self._sizes += math.nan if mean_abs is None else mean_abs * numbers
        for label, prediction, times in _pairs(confusion):
            self._pairs[label, prediction] = self._pairs.get((label, prediction), 0) + times

    def answer(self, segment: str, kind: str) -> Performance:
        """As an answer."""
        compared = self._count - self._missing
        accuracy = self._matches / compared if compared > 0 and kind not in ("number", "none") else None
        if kind == "number":
            count = self._errors.count
            return Performance(
                segment,
                kind,
                self._count,
                self._missing,
                mse=_known(self._errors.m2 / count + self._errors.mean**2) if count else None,
                mae=_known(self._sizes / count) if count else None,
                bias=_known(self._errors.mean) if count else None,
            )
        precision = recall = f1 = None
        if kind == "binary":
            precision, recall, f1 = self._of_class("True")
        elif kind == "text":
            classes = sorted({name for pair in self._pairs for name in pair})
            scores = [self._of_class(name)[2] or 0.0 for name in classes]
            f1 = math.fsum(scores) / len(scores) if scores else None
        return Performance(segment, kind, self._count, self._missing, accuracy, precision, recall, f1)

    def _of_class(self, name: str) -> tuple[float | None, float | None, float | None]:
        hits = self._pairs.get((name, name), 0)
        predicted = sum(times for (_, prediction), times in self._pairs.items() if prediction == name)
        actual = sum(times for (label, _), times in self._pairs.items() if label == name)
        return (
            hits / predicted if predicted else None,
            hits / actual if actual else None,
            2 * hits / (predicted + actual) if predicted + actual else None,
        )


def _pairs(confusion: Any) -> list[tuple[str, str, int]]:
    """Cells of a confusion matrix as a record tells them; what is no cell is left out."""
    if isinstance(confusion, dict):
        cells = {
            "tp": ("True", "True"),
            "fp": ("False", "True"),
            "tn": ("False", "False"),
            "fn": ("True", "False"),
        }
        found = [(*pair, confusion.get(cell, 0)) for cell, pair in cells.items()]
    elif isinstance(confusion, list):
        found = [tuple(cell) for cell in confusion if isinstance(cell, list) and len(cell) == 3]
    else:
        return []
    return [
        (str(label), str(prediction), times)
        for label, prediction, times in found
        if type(times) is int and times > 0
    ]


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
