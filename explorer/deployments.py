"""What questions about deployments of models are answered with: frozen structs that encode to JSON as they stand.

Figures come from raw records, from statistics of windows, or both added up. Of statistics, quantiles, minimum and maximum
are within `schemas.histogram.ACCURACY` (one per cent) of the value they stand for; mean and deviation are exact where a
window saw five different values, and within the same accuracy otherwise. Of raw records everything but the quantiles is
exact. A figure that does not exist is `None`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct


class Deployment(Struct, frozen=True):
    """One deployment in a list.

    Args:
        project_id: Its project.
        deployment: Its name.
        predictions: How many were made.
        ground_truths: How many became known.
        exceptions: How many were logged.
        last_seen: When it last logged anything; the end of the window, for statistics.
    """

    project_id: str
    deployment: str
    predictions: int
    ground_truths: int
    exceptions: int
    last_seen: datetime


class ColumnReport(Struct, frozen=True):
    """A feature, or a part of the predictions.

    Args:
        name: Its name; `""` for a prediction as a whole.
        type: `number`, `integer`, `boolean`, `text`, `other`, `mixed`, or `none` where all are missing.
        count: Rows, missing ones included.
        missing: Rows in which it was None, NaN, or not there.
        missing_share: `missing / count`.
        not_finite: Infinities.
        distinct: How many different values; an estimate (2.3 % standard error) from a hundred on.
        mean: Of the finite numbers, booleans counting as 0 and 1.
        std: Their standard deviation, as of a whole population.
        min: The smallest of them.
        p50: The median.
        p95: Below which 95 % of them lie.
        max: The largest.
    """

    name: str
    type: str
    count: int
    missing: int
    missing_share: float | None
    not_finite: int
    distinct: int | None
    mean: float | None
    std: float | None
    min: float | None
    p50: float | None
    p95: float | None
    max: float | None


class Performance(Struct, frozen=True):
    """How right the model was in one segment, for one type of answers.

    Args:
        segment: Its name; `""` for all ground truths.
        type: `binary` (two booleans), `text` (classes), `number`, `other`, or `none`: no prediction was known.
        count: Ground truths.
        missing: Those without a label or a prediction to compare.
        accuracy: Share of predictions that were the label, of those that could be compared; not for numbers.
        precision: Of `binary`: how many predicted True were True.
        recall: Of `binary`: how many that were True were predicted so.
        f1: Of `binary`: their harmonic mean; of `text`: the mean of it over all classes (macro).
        mse: Of `number`: mean of the squared errors.
        mae: Mean of the sizes of the errors.
        bias: Mean of the errors, prediction minus label.
    """

    segment: str
    type: str
    count: int
    missing: int
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    mse: float | None = None
    mae: float | None = None
    bias: float | None = None


class ExceptionCount(Struct, frozen=True):
    """A class of exceptions; `(message)` for what was logged without an exception."""

    type: str
    count: int


class Bucket(Struct, frozen=True):
    """One stretch of time.

    Args:
        start: When it begins; None for the whole period. A window counts where it begins.
        predictions: How many were made.
        uncounted: Rows that statistics had to leave out.
        features: By name.
        outputs: What the model answered: `""` as a whole, then parts of lists and dicts.
        performance: By segment and type.
        exceptions: By class, most frequent first.
    """

    start: datetime | None
    predictions: int
    uncounted: int
    features: tuple[ColumnReport, ...]
    outputs: tuple[ColumnReport, ...]
    performance: tuple[Performance, ...]
    exceptions: tuple[ExceptionCount, ...]


class DeploymentReport(Struct, frozen=True):
    """One deployment.

    Args:
        project_id: Its project.
        deployment: Its name.
        since: Beginning of the period.
        until: Its end.
        metadata: What was said last of each key, whenever that was.
        whole: Everything of the period.
        over: The same by minutes, hours or days; None unless asked for.
    """

    project_id: str
    deployment: str
    since: datetime | None
    until: datetime | None
    metadata: dict[str, Any]
    whole: Bucket
    over: tuple[Bucket, ...] | None
