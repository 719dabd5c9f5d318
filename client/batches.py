"""A batch of predictions, in any of the forms that services hold one in, taken apart into rows or columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.jsonable import isinstance_of


class BatchError(Exception):
    """The batch has no rows that could be told apart; the text says why."""


class Batch:
    """Features of some rows, and the predictions for them.

    Args:
        features: A list of lists or of dicts, a dict of columns, an array of one or two dimensions, a DataFrame, or
            None. Columns without names are named by their position.
        predictions: One for each row: a list, an array, a Series, a DataFrame (of one column: its values; of more:
            a dict a row), a dict of columns, or None.

    Raises:
        BatchError: One is none of these, or their lengths differ.
    """

    __slots__ = ("columns", "predictions", "records", "rows")

    def __init__(self, features: Any, predictions: Any) -> None:
        self.columns: dict[str, list[Any]] | None = None
        self.records: list[Any] | None = None
        if features is not None:
            self._take_features(features)
        self.predictions = None if predictions is None else _predictions(predictions)
        lengths: dict[str, int] = (
            {} if self.columns is None else {name: len(column) for name, column in self.columns.items()}
        )
        if len(set(lengths.values())) > 1:
            raise BatchError("the columns of the features differ in length")
        counts = set(lengths.values())
        counts |= {len(each) for each in (self.records, self.predictions) if each is not None}
        if len(counts) > 1:
            raise BatchError(
                f"features and predictions differ in length: {' and '.join(map(str, sorted(counts)))}"
            )
        self.rows = counts.pop() if counts else 0

    def _take_features(self, features: Any) -> None:
        if isinstance_of(features, "pandas", "DataFrame"):
            self.columns = _frame_columns(features)
        elif isinstance(features, Mapping):
            self.columns = {str(name): _values(column) for name, column in features.items()}
        else:
            rows = _values(features)
            shapes = set(map(type, rows))
            if shapes and shapes <= {list, tuple} and len(set(map(len, rows))) == 1:
                self.columns = {
                    str(index): list(column) for index, column in enumerate(zip(*rows, strict=True))
                }
                if not self.columns:
                    self.columns, self.records = None, rows
            else:
                self.records = [row if isinstance(row, Mapping | list | tuple) else [row] for row in rows]

    def features_by_row(self) -> list[Any]:
        """The features of each row: a dict where columns have names; None where there are none."""
        if self.columns is not None:
            names = list(self.columns)
            return [dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]
        return [None] * self.rows if self.records is None else self.records

    def predictions_by_row(self) -> list[Any]:
        """The prediction of each row; None where there are none."""
        return [None] * self.rows if self.predictions is None else self.predictions


def _values(values: Any) -> list[Any]:
    if hasattr(values, "tolist"):  # an array, a Series, an Index: down to Python's own scalars
        values = values.tolist()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise BatchError(f"{type(values).__name__} is not a batch: give a list, dict, array or DataFrame")
    return list(values)


def _frame_columns(frame: Any) -> dict[str, list[Any]]:
    if len(set(map(str, frame.columns))) < len(frame.columns):
        raise BatchError("the names of the columns are not all different")
    return {str(name): frame.iloc[:, index].tolist() for index, name in enumerate(frame.columns)}


def _predictions(predictions: Any) -> list[Any]:
    if isinstance_of(predictions, "pandas", "DataFrame"):
        columns = _frame_columns(predictions)
    elif isinstance(predictions, Mapping):
        columns = {str(name): _values(column) for name, column in predictions.items()}
    else:
        return _values(predictions)
    if len(set(map(len, columns.values()))) > 1:
        raise BatchError("the columns of the predictions differ in length")
    if len(columns) == 1:
        return next(iter(columns.values()))
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
