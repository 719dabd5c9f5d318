"""A slice as a time series."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from tailrace.explorer.answers import Bucket, Metric, Over
from tailrace.explorer.conditions import Slice
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import Scope, errors, selection
from tailrace.explorer.summary import DISTRIBUTION, to_metric, values
from tailrace.schemas.errors import ConfigError

Every = Literal["minute", "hour", "day"]
EVERY: tuple[str, ...] = get_args(Every)
"""The steps of a time series."""

_MICROS = {"minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
MAX_STEPS = 10_000
"""A longer series is refused."""


def series(reader: Reader, query: Slice, scope: Scope, every: str, metrics: Sequence[str]) -> Over:
    """Ask for a time series; see `Explorer.slice`.

    Raises:
        ConfigError: No such step, or too many of them.
    """
    if every not in _MICROS:
        raise ConfigError(f"a time series goes by {', '.join(EVERY)}, not by {every:.40}")
    width = _MICROS[every]
    parameters = Parameters()
    sql = (
        f"SELECT {_bucket('start', width)} AS bucket, count(), countIf(k IN ({errors(scope, parameters)})) "
        f"FROM ({selection(query, scope, parameters)}) GROUP BY bucket"
    )
    counted = {bucket: (traces, failed) for bucket, traces, failed in reader.rows(sql, parameters)}
    names = tuple(dict.fromkeys(metrics))
    described: dict[tuple[int, bytes], Metric] = {}
    if names:
        parameters = Parameters()
        sql = (
            f"SELECT {_bucket('began', width)} AS bucket, name, {DISTRIBUTION} "
            f"FROM ({values(query, scope, names, parameters)}) GROUP BY bucket, name"
        )
        for bucket, name, *row in reader.rows(sql, parameters):
            described[bucket, name] = to_metric(row)
    seen = {*counted, *(bucket for bucket, _ in described)}
    if not seen:
        return Over(every, ())
    steps = range(min(seen), max(seen) + width, width)
    if len(steps) > MAX_STEPS:
        raise ConfigError(
            f"these are {len(steps):,} steps of a {every}, more than {MAX_STEPS:,}: take a longer step, or narrow the time "
            f"(the first is {to_datetime(min(seen)):%Y-%m-%d}, the last {to_datetime(max(seen)):%Y-%m-%d})"
        )
    rows = []
    for step in steps:
        traces, failed = counted.get(step, (0, 0))
        rows.append(
            Bucket(
                to_datetime(step),
                traces,
                failed,
                failed / traces if traces else None,
                {name: described.get((step, name.encode()), Metric()) for name in names},
            )
        )
    return Over(every, tuple(rows))


def _bucket(column: str, width: int) -> str:
    """Downwards, before 1970 too."""
    micros = f"toUnixTimestamp64Micro({column})"
    return f"{micros} - positiveModulo({micros}, {width})"
