"""From conditions to SQL: which traces a slice selects."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from dataclasses import dataclass

from tailrace.explorer.conditions import (
    Comparison,
    Operator,
    Slice,
    TagCondition,
    TagGroup,
    TagName,
    TagType,
    TraceIs,
)
from tailrace.explorer.literals import VERSION_PARTS, VERSION_PATTERN, Number, Version
from tailrace.explorer.period import EVER, Period
from tailrace.explorer.reader import Parameters

UNIVERSE = (
    "logs",
    "tag_lines",
    "objects",
    "traces",
    "event_lines",
    "feedback",
    "predictions",
    "ground_truths",
    "exceptions",
)
"""Every table whose lines belong to traces. Lines of a monitoring session may have no trace; their trace_id is ''."""

TAG_KEY = "name, str, num, kind, type, group, trace_ts, trace_hash, line_hash"
"""With the project, the sort key of `tags`: rows that agree in it are the same tag, logged once and stored twice."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a question looks.

    Args:
        project: `None` for every project; the same trace id in two projects is then two traces.
        period: When traces began.
    """

    project: str | None = None
    period: Period = EVER


def scope_where(scope: Scope, parameters: Parameters) -> str:
    """A condition on `project_id` and `trace_ts` that every table of lines and `tags` understands."""
    parts = []
    if scope.project is not None:
        parts.append(f"project_id = {parameters.add(scope.project, 'String')}")
    if scope.period.since is not None:
        parts.append(
            f"trace_ts >= fromUnixTimestamp64Micro({parameters.add(scope.period.since, 'Int64')}, 'UTC')"
        )
    if scope.period.until is not None:
        parts.append(
            f"trace_ts < fromUnixTimestamp64Micro({parameters.add(scope.period.until, 'Int64')}, 'UTC')"
        )
    return " AND ".join(parts) or "1"


def trace_key(scope: Scope, hash: str) -> str:
    """One UInt64 that tells traces apart: the hash of the id, mixed with the project where that is open."""
    return hash if scope.project is not None else f"cityHash64(project_id, {hash})"


def selection(query: Slice, scope: Scope, parameters: Parameters) -> str:
    """A SELECT of `k`, the key of each trace in the slice, once, and `start`, a time at which it began.

    With tag conditions it is one scan of `tags`: each row contributes the bits of the conditions that it satisfies,
    and a trace is in when its rows have all of them together. Without any it is every trace of every table.
    """
    tag_conditions = tuple(dict.fromkeys(c for c in query.conditions if not isinstance(c, TraceIs)))
    ids = tuple(dict.fromkeys(c.trace_id for c in query.conditions if isinstance(c, TraceIs)))
    where = scope_where(scope, parameters)
    if not tag_conditions:
        return _universe(scope, where, ids, parameters)
    for trace_id in ids:
        where += f" AND trace_hash = cityHash64({parameters.add(trace_id, 'String')})"
    tests = [f"({tag_test(condition, where, parameters)})" for condition in tag_conditions]
    having = ""
    if len(tests) > 1:
        bits = " + ".join(f"bitShiftLeft(toUInt64({test}), {bit})" for bit, test in enumerate(tests))
        having = f" HAVING groupBitOr({bits}) = {(1 << len(tests)) - 1}"
    return (
        f"SELECT {trace_key(scope, 'trace_hash')} AS k, min(trace_ts) AS start FROM tags "
        f"WHERE {where} AND ({' OR '.join(tests)}) GROUP BY k{having}"
    )


def _universe(scope: Scope, where: str, ids: tuple[str, ...], parameters: Parameters) -> str:
    for trace_id in ids:
        where += f" AND trace_id = {parameters.add(trace_id, 'String')}"
    key = trace_key(scope, "cityHash64(trace_id)")
    tables = " UNION ALL ".join(
        f"SELECT {key} AS k, min(trace_ts) AS start FROM {table} WHERE {where} AND trace_id != '' GROUP BY k"
        for table in UNIVERSE
    )
    # The inner column has another name than the outer, or the outer aggregate would be read as one of itself.
    return f"SELECT k, min(each.start) AS start FROM ({tables}) AS each GROUP BY k"


def errors(scope: Scope, parameters: Parameters) -> str:
    """A SELECT of `k` of every trace that has an error; some of them several times."""
    where = scope_where(scope, parameters)
    key = trace_key(scope, "cityHash64(trace_id)")
    return (
        f"SELECT {trace_key(scope, 'trace_hash')} AS k FROM tags WHERE {where} AND type = 'error' "
        f"UNION ALL SELECT {key} AS k FROM exceptions WHERE {where} AND trace_id != '' "
        f"UNION ALL SELECT {key} AS k FROM event_lines WHERE {where} AND phase = 'end' AND status = 'error'"
    )


def tag_test(condition: TagCondition, where: str, parameters: Parameters) -> str:
    """A condition on one row of `tags`; `where` is that of the whole question."""
    match condition:
        case TagName(name):
            return f"name = {parameters.add(name, 'String')}"
        case TagType(type):
            return f"type = {parameters.add(type, 'String')}"
        case TagGroup(group):
            return f"group = {parameters.add(group, 'String')}"
        case Comparison(name, _, _):
            return f"name = {parameters.add(name, 'String')} AND {_value_test(condition, where, parameters)}"


def _value_test(condition: Comparison, where: str, parameters: Parameters) -> str:
    operator, value = condition.operator, condition.value
    if operator is Operator.EQUAL:
        return _equal(condition, parameters)
    if operator is Operator.NOT_EQUAL:
        return f"NOT ({_equal(condition, parameters)})"
    if isinstance(value, Number):
        return f"kind IN ('number', 'bool') AND num {operator} {parameters.add(value.number, 'Float64')}"
    if isinstance(value, Version):
        return f"kind = 'string' AND str IN ({_versions(condition.name, operator, value, where, parameters)})"
    return f"kind = 'string' AND str {operator} {parameters.add(value.text, 'String')}"


def _equal(condition: Comparison, parameters: Parameters) -> str:
    value = condition.value
    text = parameters.add(value.text, "String")
    if not isinstance(value, Number) or not value.exact:
        return f"str = {text}"
    number = parameters.add(value.number, "Float64")
    return f"if(kind IN ('number', 'bool'), num = {number}, str = {text})"


def _versions(name: str, operator: Operator, value: Version, where: str, parameters: Parameters) -> str:
    """A SELECT of the texts under this name that are such versions.

    A name has far fewer texts than rows, and they lie sorted: reading each as a version once costs little.
    """
    pattern = parameters.add(VERSION_PATTERN, "String")
    typed_parts = parameters.add(list(value.parts), "Array(UInt64)")
    typed_suffix = parameters.add(value.suffix, "String")
    parts = (
        f"arrayResize(arrayMap(part -> toUInt64OrZero(part), splitByChar('.', found[1])), {VERSION_PARTS}, 0)"
    )
    suffix = "concat(found[2], found[3])"
    # A version without a suffix is above the same one with any: compare "has none" before the suffix itself.
    return (
        f"SELECT str FROM (SELECT str, extractGroups(str, {pattern}) AS found FROM (SELECT str FROM tags "
        f"WHERE {where} AND name = {parameters.add(name, 'String')} AND kind = 'string' GROUP BY str)) "
        f"WHERE notEmpty(found) AND ({parts}, {suffix} = '', {suffix}) "
        f"{operator} ({typed_parts}, {typed_suffix} = '', {typed_suffix})"
    )
