"""A slice as a time series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Literal, get_args

from tailrace.explorer.answers import Bucket, Metric, Over
from tailrace.explorer.period import to_datetime
from tailrace.schemas.errors import ConfigError

Every = Literal["minute", "hour", "day"]
EVERY: tuple[str, ...] = get_args(Every)
"""The steps of a time series."""

_MICROS = {"minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
MAX_STEPS = 10_000
"""A longer series is refused."""


def step_width(every: str) -> int:
    """Microseconds of a step.

    Raises:
        ConfigError: There is no such step.
    """
    if every not in _MICROS:
        raise ConfigError(f"a time series goes by {', '.join(EVERY)}, not by {every:.40}")
    return _MICROS[every]


def step(column: str, width: int) -> str:
    """SQL: the beginning of the step that a time is in. Downwards, before 1970 too."""
    micros = f"toUnixTimestamp64Micro({column})"
    return f"{micros} - positiveModulo({micros}, {width})"


def to_series(
    every: str,
    counted: Mapping[int, tuple[int, int]],
    logged: Set[int],
    metrics: Callable[[int], dict[str, Metric]],
) -> Over:
    """Every step from the first that has something to the last.

    Args:
        every: What a step is.
        counted: By the beginning of a step, its traces and errors.
        logged: The steps that have numbers.
        metrics: What they are.

    Raises:
        ConfigError: There are too many of them.
    """
    seen = {*counted, *logged}
    if not seen:
        return Over(every, ())
    width = step_width(every)
    steps = range(min(seen), max(seen) + width, width)
    if len(steps) > MAX_STEPS:
        raise ConfigError(
            f"these are {len(steps):,} steps of a {every}, more than {MAX_STEPS:,}: take a longer step, or narrow the time "
            f"(the first is {to_datetime(min(seen)):%Y-%m-%d}, the last {to_datetime(max(seen)):%Y-%m-%d})"
        )
    rows = []
    for began in steps:
        traces, failed = counted.get(began, (0, 0))
        rows.append(
            Bucket(to_datetime(began), traces, failed, failed / traces if traces else None, metrics(began))
        )
    return Over(every, tuple(rows))
