"""A slice in figures: how many traces, how many with errors, and how its metrics are distributed."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from tailrace.explorer.answers import By, Difference, Group, Metric, Over, SliceReport
from tailrace.explorer.conditions import Slice
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import (
    TAG_IDENTITY,
    Scope,
    errors,
    selection,
    tag_rows,
    trace_key,
)
from tailrace.explorer.series import step, step_width, to_series
from tailrace.explorer.significance import LEVEL, Moments, holm, proportions, welch
from tailrace.explorer.texts import to_text

# Exact quantiles: the answer must not depend on how rows lie in parts. They hold 8 bytes a value in memory.
DISTRIBUTION = (
    "countIf(isFinite(num)), countIf(NOT isFinite(num)), avgIf(num, isFinite(num)), "
    "quantilesExactInclusiveIf(0.5, 0.95, 0.99)(num, isFinite(num)), stddevSampStableIf(num, isFinite(num))"
)
"""The columns that `to_metric` takes, of rows with a `num`."""


_NOTHING = "toUInt64(0), toUInt64(0), 0., emptyArrayFloat64(), 0."
"""In place of a distribution."""
_WHOLE, _STEP, _GROUP, _TAGGED = range(4)
"""The last: the traces that have the tag."""


def summarize(
    reader: Reader,
    text: str,
    query: Slice,
    scope: Scope,
    by: str | None,
    metrics: Sequence[str],
    limit: int,
    over: str | None,
) -> SliceReport:
    """Ask for the figures of a slice; see `Explorer.slice`.

    One query: which traces are in the slice is found out once, and what they logged is read once.
    """
    names = tuple(dict.fromkeys(metrics))
    width = None if over is None else step_width(over)
    parameters = Parameters()
    sql = _question(reader, query, scope, by, width, names, limit, parameters)
    traces: dict[tuple[int, int], tuple[int, int]] = {}
    described: dict[tuple[int, int | None, int], Metric] = {}
    groups: list[tuple[int, bytes]] = []
    values_of_tag = 0
    tagged, failed_tagged = 0, 0
    for part, key, value, absent, metric, count, failed, of, *distribution in reader.rows(sql, parameters):
        if metric:
            described[part, None if absent else key, metric] = to_metric(distribution)
        elif part == _TAGGED:
            tagged, failed_tagged = count, failed
        else:
            traces[part, key] = count, failed
            if part == _GROUP:
                values_of_tag = of
                groups.append((key, value))

    def distributions(part: int, key: int | None) -> dict[str, Metric]:
        return {name: described.get((part, key, n), Metric()) for n, name in enumerate(names, 1)}

    series: Over | None = None
    if over is not None:
        counted = {key: figures for (part, key), figures in traces.items() if part == _STEP}
        logged = {key for part, key, _ in described if part == _STEP and key is not None}
        series = to_series(over, counted, logged, lambda step: distributions(_STEP, step))
    if over is None:
        whole, failed = traces.get((_WHOLE, 0), (0, 0))
    else:
        # Every trace counts in one step.
        whole, failed = (
            sum(figures[n] for (part, _), figures in traces.items() if part == _STEP) for n in (0, 1)
        )
    report = SliceReport(
        slice=text,
        project=scope.project,
        since=None if scope.period.since is None else to_datetime(scope.period.since),
        until=None if scope.period.until is None else to_datetime(scope.period.until),
        traces=whole,
        errors=failed,
        error_rate=failed / whole if whole else None,
        metrics=distributions(_WHOLE, 0),
        over=series,
    )
    if by is None:
        return report
    rows = []
    for key, value in groups:
        count, failed = traces[_GROUP, key]
        group = Group(to_text(value), count, failed, failed / count, distributions(_GROUP, key))
        rows.append(((-count, False, value), group))
    if whole > tagged:
        count, failed = whole - tagged, report.errors - failed_tagged
        group = Group(None, count, failed, failed / count, distributions(_GROUP, None))
        rows.append(((-count, True, b""), group))
        values_of_tag += 1
    rows.sort(key=lambda row: row[0])
    return structs.replace(
        report, by=_against_rest(report, By(by, values_of_tag, tuple(row for _, row in rows[:limit])))
    )


def _question(
    reader: Reader,
    query: Slice,
    scope: Scope,
    by: str | None,
    width: int | None,
    names: tuple[str, ...],
    limit: int,
    parameters: Parameters,
) -> str:
    """Rows of: part, key in it, value and absence of a group, number of a metric, traces, errors, groups, distribution."""
    common = {
        "chosen": selection(query, scope, parameters, timed=width is not None),
        "failed": errors(scope, parameters),
    }
    inside = "SELECT k FROM chosen" if query.conditions else ""
    count = "count() AS traces, countIf(k IN (SELECT k FROM failed)) AS errors"
    key, grouped = ("toInt64(0)", "") if width is None else (step("start", width), " GROUP BY key")
    parts = [
        f"SELECT {_WHOLE if width is None else _STEP} AS part, {key} AS key, '' AS value, 0 AS absent, 0 AS metric, "
        f"{count}, toUInt64(0), {_NOTHING} FROM chosen{grouped}"
    ]
    if by is not None:
        most = parameters.add(limit, "UInt64")
        # Without conditions `having` and `logged` are those of all tags, were they of no trace that has a line.
        within = "" if inside else " WHERE k IN (SELECT k FROM chosen)"
        common["having"] = _having(scope, by, parameters, inside)
        # Which of those with as many traces are shown is decided by their texts, which are read for these alone.
        common["biggest"] = (
            "SELECT g, any(k) AS example, count() AS traces, count() OVER () AS groups FROM having GROUP BY g "
            f"ORDER BY traces DESC LIMIT {most} WITH TIES"
        )
        common["shown"] = (
            "SELECT g, text, traces, groups FROM biggest INNER JOIN "
            f"({_texts(scope, by, parameters)}) AS named ON biggest.g = named.g "
            f"ORDER BY traces DESC, text LIMIT {most}"
        )
        parts.append(
            f"SELECT {_GROUP}, reinterpretAsInt64(g), any(text), 0, 0, {count}, any(groups), {_NOTHING} "
            "FROM having INNER JOIN shown ON having.g = shown.g GROUP BY g"
        )
        parts.append(
            f"SELECT {_TAGGED}, toInt64(0), '', 0, 0, uniqExact(k), uniqExactIf(k, k IN (SELECT k FROM failed)), "
            f"toUInt64(0), {_NOTHING} FROM having{within}"
        )
    if names:
        common["logged"] = values(scope, names, parameters, inside, timed=width is not None)
        one = f"logged.metric, toUInt64(0), toUInt64(0), toUInt64(0), {DISTRIBUTION}"
        parts.append(f"SELECT {_WHOLE}, toInt64(0), '', 0, {one} FROM logged GROUP BY logged.metric")
        if width is not None:
            parts.append(
                f"SELECT {_STEP}, {step('began', width)} AS key, '', 0, {one} FROM logged GROUP BY key, logged.metric"
            )
        if by is not None:
            # A profile may have it that what a join does not find is NULL.
            there = "ifNull(tagged.there, 0)"
            parts.append(
                f"SELECT {_GROUP}, if({there}, reinterpretAsInt64(ifNull(tagged.g, 0)), 0) AS key, '', NOT {there} AS absent, {one} "
                "FROM logged LEFT JOIN (SELECT k, g, 1 AS there FROM having) AS tagged ON logged.k = tagged.k "
                f"WHERE NOT {there} OR tagged.g IN (SELECT g FROM shown) GROUP BY key, absent, logged.metric"
            )
    return f"WITH {reader.shared(common)} {' UNION ALL '.join(parts)}"


def _having(scope: Scope, tag: str, parameters: Parameters, inside: str) -> str:
    """A SELECT of which trace has which values of a tag: `k`, and `g` that stands for the value, each pair once."""
    rows = tag_rows(
        f"{trace_key(scope, 'trace_hash')} AS k, {_value_key(scope)} AS g",
        scope,
        parameters,
        f"name = {parameters.add(tag, 'String')}" + (f" AND k IN ({inside})" if inside else ""),
    )
    return f"SELECT k, g FROM ({rows}) AS tag GROUP BY k, g"


def _texts(scope: Scope, tag: str, parameters: Parameters) -> str:
    """A SELECT of `g` and `text` of the values of a tag that the examples of `biggest` have."""
    rows = tag_rows(
        f"{trace_key(scope, 'trace_hash')} AS k, {_value_key(scope)} AS g, str",
        scope,
        parameters,
        f"name = {parameters.add(tag, 'String')}",
    )
    return (
        f"SELECT tag.g AS g, any(tag.str) AS text FROM ({rows}) AS tag "
        "INNER JOIN (SELECT example FROM biggest) AS one ON tag.k = one.example GROUP BY tag.g"
    )


def _value_key(scope: Scope) -> str:
    return "value_hash" if scope.project is not None else "cityHash64(str)"


def counts(reader: Reader, query: Slice, scope: Scope) -> tuple[int, int]:
    """How many traces a slice has, and how many of them have an error."""
    parameters = Parameters()
    sql = (
        f"SELECT count(), countIf(k IN ({errors(scope, parameters)})) "
        f"FROM ({selection(query, scope, parameters)})"
    )
    traces, failed = reader.rows(sql, parameters)[0]
    return traces, failed


def values(scope: Scope, names: tuple[str, ...], parameters: Parameters, inside: str, *, timed: bool) -> str:
    """A SELECT of every number that traces logged under these names, each once: `k`, `metric`, `num`, and `began`.

    `metric` is the place of its name among them, from 1.

    Args:
        scope: Where to look.
        names: Of the tags.
        parameters: Where values go.
        inside: A SELECT of the keys of the traces that matter; '' for all.
        timed: With `began`, which takes a while to read.
    """
    if len(names) == 1:
        metric, named = "1", f"name = {parameters.add(names[0], 'String')}"
    else:
        bound = parameters.add(list(names), "Array(String)")
        metric, named = f"indexOf({bound}, name)", f"name IN {bound}"
    rows = tag_rows(
        f"{trace_key(scope, 'trace_hash')} AS k, {'trace_ts, ' if timed else ''}toUInt32({metric}) AS metric, num, {TAG_IDENTITY} AS id",
        scope,
        parameters,
        f"{named} AND kind IN ('number', 'bool')" + (f" AND k IN ({inside})" if inside else ""),
    )
    return (
        f"SELECT tag.k AS k, {'min(tag.trace_ts) AS began, ' if timed else ''}any(tag.metric) AS metric, any(tag.num) AS num "
        f"FROM ({rows}) AS tag GROUP BY tag.k, tag.id"
    )


def to_metric(row: Sequence[Any]) -> Metric:
    """From the columns of `DISTRIBUTION`."""
    count, not_finite, mean, quantiles, deviation = row
    p50, p95, p99 = (_known(value) for value in quantiles)
    return Metric(count, not_finite, _steady(mean), p50, p95, p99, _steady(deviation) if count > 1 else None)


def _known(value: float) -> float | None:
    """ClickHouse says NaN for the mean of nothing; a sum beyond a float's range has no mean either."""
    return value if math.isfinite(value) else None


def _steady(value: float) -> float | None:
    """Likewise, to twelve digits: those behind them depend on the order in which threads added up."""
    return float(f"{value:.12g}") if math.isfinite(value) else None


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
