"""A slice in figures: how many traces, how many with errors, and how its metrics are distributed."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from tailrace.explorer.answers import By, Difference, Group, Metric, SliceReport
from tailrace.explorer.conditions import Slice
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import (
    TAG_IDENTITY,
    Scope,
    errors,
    scope_where,
    selection,
    trace_key,
)
from tailrace.explorer.significance import LEVEL, Moments, holm, proportions, welch
from tailrace.explorer.texts import to_text

# Exact quantiles: the answer must not depend on how rows lie in parts. They hold 8 bytes a value in memory.
DISTRIBUTION = (
    "countIf(isFinite(num)), countIf(NOT isFinite(num)), avgIf(num, isFinite(num)), "
    "quantilesExactInclusiveIf(0.5, 0.95, 0.99)(num, isFinite(num)), stddevSampStableIf(num, isFinite(num))"
)
"""The columns that `to_metric` takes, of rows with a `num`."""


def summarize(
    reader: Reader, text: str, query: Slice, scope: Scope, by: str | None, metrics: Sequence[str], limit: int
) -> SliceReport:
    """Ask for the figures of a slice; see `Explorer.slice`."""
    names = tuple(dict.fromkeys(metrics))
    traces, failed = counts(reader, query, scope)
    report = SliceReport(
        slice=text,
        project=scope.project,
        since=None if scope.period.since is None else to_datetime(scope.period.since),
        until=None if scope.period.until is None else to_datetime(scope.period.until),
        traces=traces,
        errors=failed,
        error_rate=failed / traces if traces else None,
        metrics=_metrics(reader, query, scope, names),
    )
    if by is None:
        return report
    return structs.replace(report, by=_against_rest(report, _by(reader, query, scope, by, names, limit)))


def counts(reader: Reader, query: Slice, scope: Scope) -> tuple[int, int]:
    """How many traces a slice has, and how many of them have an error."""
    parameters = Parameters()
    sql = (
        f"SELECT count(), countIf(k IN ({errors(scope, parameters)})) "
        f"FROM ({selection(query, scope, parameters)})"
    )
    traces, failed = reader.rows(sql, parameters)[0]
    return traces, failed


def _metrics(reader: Reader, query: Slice, scope: Scope, names: tuple[str, ...]) -> dict[str, Metric]:
    if not names:
        return {}
    parameters = Parameters()
    sql = f"SELECT name, {DISTRIBUTION} FROM ({values(query, scope, names, parameters)}) GROUP BY name"
    found = {name: to_metric(row) for name, *row in reader.rows(sql, parameters)}
    return {name: found.get(name.encode(), Metric()) for name in names}


def values(query: Slice, scope: Scope, names: tuple[str, ...], parameters: Parameters) -> str:
    """A SELECT of every number that traces of the slice logged under these names, each once: `k`, `began`, `name`, `num`."""
    rows = _numbers(scope, names, parameters)
    if query.conditions:
        rows += f" AND k IN (SELECT k FROM ({selection(query, scope, parameters)}))"
    return (
        "SELECT tag.k AS k, min(tag.trace_ts) AS began, any(tag.name) AS name, any(tag.num) AS num "
        f"FROM ({rows}) AS tag GROUP BY tag.k, tag.id"
    )


def _numbers(scope: Scope, names: tuple[str, ...], parameters: Parameters) -> str:
    """A SELECT of the rows with numbers under these names; those that agree in `k` and `id` are one tag."""
    return (
        f"SELECT {trace_key(scope, 'trace_hash')} AS k, trace_ts, name, num, {TAG_IDENTITY} AS id FROM tags "
        f"WHERE {scope_where(scope, parameters)} AND name IN {parameters.add(list(names), 'Array(String)')} "
        "AND kind IN ('number', 'bool')"
    )


def _by(reader: Reader, query: Slice, scope: Scope, tag: str, names: tuple[str, ...], limit: int) -> By:
    parameters = Parameters()
    sql = (
        f"SELECT g, any(value), any(absent), count() AS traces, countIf(k IN ({errors(scope, parameters)})), count() OVER () "
        f"FROM ({_membership(query, scope, tag, parameters)}) "
        f"GROUP BY g ORDER BY traces DESC, any(absent), any(value) LIMIT {parameters.add(limit, 'UInt64')}"
    )
    rows = reader.rows(sql, parameters)
    metrics = (
        _metrics_by(reader, query, scope, tag, names, [row[0] for row in rows]) if names and rows else {}
    )
    groups = tuple(
        Group(
            value=None if absent else to_text(value),
            traces=traces,
            errors=failed,
            error_rate=failed / traces,
            metrics={name: metrics.get((g, name.encode()), Metric()) for name in names},
        )
        for g, value, absent, traces, failed, _ in rows
    )
    return By(tag=tag, values=rows[0][5] if rows else 0, rows=groups)


def _membership(query: Slice, scope: Scope, tag: str, parameters: Parameters) -> str:
    """A SELECT of which trace of the slice is in which group: `k`, the group's `g`, `value` and `absent`, each once."""
    key = trace_key(scope, "trace_hash")
    return (
        "SELECT member.k AS k, tag.value AS value, toUInt8(tag.present = 0) AS absent, cityHash64(value, absent) AS g "
        f"FROM (SELECT {key} AS k, str AS value, toUInt8(1) AS present FROM tags "
        f"WHERE {scope_where(scope, parameters)} AND name = {parameters.add(tag, 'String')}) AS tag "
        f"RIGHT JOIN ({selection(query, scope, parameters)}) AS member ON tag.k = member.k GROUP BY k, value, absent"
    )


def _metrics_by(
    reader: Reader, query: Slice, scope: Scope, tag: str, names: tuple[str, ...], groups: list[int]
) -> dict[tuple[int, bytes], Metric]:
    parameters = Parameters()
    sql = (
        f"SELECT g, name, {DISTRIBUTION} FROM ("
        "SELECT member.g AS g, any(tag.name) AS name, any(tag.num) AS num "
        f"FROM ({_numbers(scope, names, parameters)}) AS tag "
        f"INNER JOIN (SELECT k, g FROM ({_membership(query, scope, tag, parameters)}) "
        f"WHERE g IN {parameters.add(groups, 'Array(UInt64)')}) AS member ON tag.k = member.k "
        "GROUP BY g, tag.k, tag.id) GROUP BY g, name"
    )
    return {(g, name): to_metric(row) for g, name, *row in reader.rows(sql, parameters)}


def to_metric(row: list[Any]) -> Metric:
    """From the columns of `DISTRIBUTION`."""
    count, not_finite, mean, quantiles, deviation = row
    p50, p95, p99 = (_known(value) for value in quantiles)
    return Metric(count, not_finite, _known(mean), p50, p95, p99, _known(deviation) if count > 1 else None)


def _known(value: float) -> float | None:
    """ClickHouse says NaN for the mean of nothing; a sum beyond a float's range has no mean either."""
    return value if math.isfinite(value) else None


def _against_rest(whole: SliceReport, by: By) -> By:
    """The same, each value compared with the traces that do not have it."""
    rows = list(by.rows)
    tested = [
        proportions(row.errors, row.traces, whole.errors - row.errors, whole.traces - row.traces)
        for row in rows
    ]
    for n, (row, p) in enumerate(zip(by.rows, holm(tested, by.values), strict=True)):
        others = whole.traces - row.traces
        rest = (whole.errors - row.errors) / others if others else None
        difference = None if rest is None else row.error_rate - rest
        rows[n] = structs.replace(rows[n], error_difference=_difference(difference, p))
    for name, metric in whole.metrics.items():
        everything = _moments(metric)
        pairs = [(_moments(row.metrics[name]), row.metrics[name]) for row in by.rows]
        rests = [everything.without(mine) for mine, _ in pairs]
        tested = [
            welch(mine, rest) if _sound(metric, own) else None
            for (mine, own), rest in zip(pairs, rests, strict=True)
        ]
        for n, p in enumerate(holm(tested, by.values)):
            mine, own = pairs[n]
            known = _sound(metric, own) and mine.count and rests[n].count
            difference = mine.mean - rests[n].mean if known else None
            rows[n].metric_differences[name] = _difference(difference, p)
    return structs.replace(by, rows=tuple(rows))


def _difference(difference: float | None, p: float | None) -> Difference:
    if difference is not None and not math.isfinite(difference):
        return Difference()
    return Difference(difference, p, p is not None and p < LEVEL)


def _sound(*metrics: Metric) -> bool:
    return all(metric.mean is not None or metric.count == 0 for metric in metrics)


def _moments(metric: Metric) -> Moments:
    if metric.mean is None:
        return Moments(0, 0.0, 0.0)
    deviation = metric.std or 0.0
    return Moments(metric.count, metric.mean, deviation * deviation * max(metric.count - 1, 0))
