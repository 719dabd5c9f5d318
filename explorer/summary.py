"""A slice in figures: how many traces, how many with errors, and how its metrics are distributed."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tailrace.explorer.answers import By, Group, Metric, SliceReport
from tailrace.explorer.conditions import Slice
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import TAG_KEY, Scope, errors, scope_where, selection, trace_key
from tailrace.explorer.texts import to_text

# Exact quantiles: the answer must not depend on how rows lie in parts. They hold 8 bytes a value in memory.
_DISTRIBUTION = (
    "countIf(isFinite(num)), countIf(NOT isFinite(num)), avgIf(num, isFinite(num)), "
    "quantilesExactInclusiveIf(0.5, 0.95, 0.99)(num, isFinite(num))"
)


def summarize(
    reader: Reader, text: str, query: Slice, scope: Scope, by: str | None, metrics: Sequence[str], limit: int
) -> SliceReport:
    """Ask for the figures of a slice; see `Explorer.slice`."""
    names = tuple(dict.fromkeys(metrics))
    traces, failed = _counts(reader, query, scope)
    return SliceReport(
        slice=text,
        project=scope.project,
        since=None if scope.period.since is None else to_datetime(scope.period.since),
        until=None if scope.period.until is None else to_datetime(scope.period.until),
        traces=traces,
        errors=failed,
        error_rate=failed / traces if traces else None,
        metrics=_metrics(reader, query, scope, names),
        by=None if by is None else _by(reader, query, scope, by, names, limit),
    )


def _counts(reader: Reader, query: Slice, scope: Scope) -> tuple[int, int]:
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
    sql = f"SELECT name, {_DISTRIBUTION} FROM ({_values(query, scope, names, parameters)}) GROUP BY name"
    found = {name: _metric(row) for name, *row in reader.rows(sql, parameters)}
    return {name: found.get(name.encode(), Metric()) for name in names}


def _values(query: Slice, scope: Scope, names: tuple[str, ...], parameters: Parameters) -> str:
    """A SELECT of every number that traces of the slice logged under these names, each once."""
    key = trace_key(scope, "trace_hash")
    return (
        f"SELECT DISTINCT {key} AS k, {TAG_KEY} FROM tags WHERE {scope_where(scope, parameters)} "
        f"AND name IN {parameters.add(list(names), 'Array(String)')} AND kind IN ('number', 'bool')"
        + (
            f" AND {key} IN (SELECT k FROM ({selection(query, scope, parameters)}))"
            if query.conditions
            else ""
        )
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
    tagged = f"FROM tags WHERE {scope_where(scope, parameters)} AND name = {parameters.add(tag, 'String')}"
    chosen = selection(query, scope, parameters)
    return (
        f"SELECT {key} AS k, str AS value, 0 AS absent, cityHash64(value, 0) AS g {tagged} "
        f"AND {key} IN (SELECT k FROM ({chosen})) GROUP BY k, value "
        f"UNION ALL SELECT k, '' AS value, 1 AS absent, cityHash64('', 1) AS g FROM ({chosen}) "
        f"WHERE k NOT IN (SELECT {key} {tagged})"
    )


def _metrics_by(
    reader: Reader, query: Slice, scope: Scope, tag: str, names: tuple[str, ...], groups: list[int]
) -> dict[tuple[int, bytes], Metric]:
    parameters = Parameters()
    sql = (
        f"SELECT g, name, {_DISTRIBUTION} FROM ({_values(query, scope, names, parameters)}) AS v "
        f"INNER JOIN (SELECT k, g FROM ({_membership(query, scope, tag, parameters)}) "
        f"WHERE g IN {parameters.add(groups, 'Array(UInt64)')}) AS m ON v.k = m.k GROUP BY g, name"
    )
    return {(g, name): _metric(row) for g, name, *row in reader.rows(sql, parameters)}


def _metric(row: list[Any]) -> Metric:
    count, not_finite, mean, quantiles = row
    p50, p95, p99 = (_known(value) for value in quantiles)
    return Metric(count, not_finite, _known(mean), p50, p95, p99)


def _known(value: float) -> float | None:
    """ClickHouse says NaN for the mean of nothing; a sum beyond a float's range has no mean either."""
    return value if math.isfinite(value) else None
