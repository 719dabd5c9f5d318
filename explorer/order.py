"""What to find out before a slice is asked for: which versions there are, and which condition to look at first."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import operator
from typing import get_args

from tailrace.explorer.conditions import (
    All,
    AnyOf,
    Comparison,
    ConversationIs,
    Duration,
    Expression,
    HasText,
    Not,
    Operator,
    SessionIs,
    Slice,
    StringIsOneOf,
    TagCondition,
    TraceIs,
    UserIs,
    holds_of_nothing,
    leaves,
)
from tailrace.explorer.literals import Version, read_version
from tailrace.explorer.period import DAY, Period
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import Scope, days_where, scope_where, tag_test, versions
from tailrace.explorer.tags import FEW_ROWS, stats_where
from tailrace.explorer.texts import to_text

MAX_VERSIONS = 500
"""More versions than this are looked for in the query itself, not listed in its parameters."""

FEW_TEXTS = 20
"""So many are looked up one by one; it takes as long to read some hundred thousand rows as to find one text."""
_SHORT = 1000
"""Texts that are longer in all are looked up anew: over HTTP parameters travel in the request line."""
_REMEMBERED = 1000
"""More estimates than this are forgotten, all at once."""
_ALONE = {"max_threads": 1}
"""For reading a granule of each part: more threads only wait for one another."""
_OPERATORS = {
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
}

_TAG_CONDITIONS = get_args(TagCondition)
_FEW, _SOME, _MANY, _ALL = 0, 100_000, 10**15, 10**16
"""Rows that are taken for granted where the index says nothing: of one user; of events; of mixed conditions; of every
message or line."""


def prepared(reader: Reader, query: Slice, scope: Scope) -> Slice:
    """The same slice, made for asking several questions about it.

    Comparisons of versions become the list of the texts that satisfy them. Conditions are ordered by how many rows their
    scans read, fewest first: ClickHouse's primary index gives the numbers without reading a row.
    """
    compared = {
        condition
        for part in query.conditions
        for condition in leaves(part)
        if isinstance(condition, Comparison)
        and isinstance(condition.value, Version)
        and condition.operator not in (Operator.EQUAL, Operator.NOT_EQUAL)
    }
    known = {condition: _satisfying(reader, condition, scope) for condition in compared}
    conditions = tuple(_replaced(part, known) for part in query.conditions)
    if len(conditions) < 2:
        return Slice(conditions)
    rows = _estimates(reader, [c for c in conditions if isinstance(c, _TAG_CONDITIONS)], scope)
    return Slice(tuple(sorted(conditions, key=lambda c: rows.get(c, _guess(c)))))


def _satisfying(reader: Reader, condition: Comparison, scope: Scope) -> Expression:
    found = _few_texts(reader, condition.name, scope)
    if found is None:
        parameters = Parameters()
        sql = f"{versions(condition, scope, parameters)} LIMIT {MAX_VERSIONS + 1}"
        texts = [to_text(row[0]) for row in reader.rows(sql, parameters)]
        if len(texts) > MAX_VERSIONS:
            return condition
    else:
        texts = [text for text in found if _satisfies(read_version(text), condition)]
    return StringIsOneOf(condition.name, tuple(sorted(texts)))


def _satisfies(version: Version | None, condition: Comparison) -> bool:
    """As `selection.versions` has it."""
    assert isinstance(condition.value, Version)  # noqa: S101 - what the caller chose, for the type checker
    return version is not None and _OPERATORS[condition.operator](version.key, condition.value.key)


def _few_texts(reader: Reader, name: str, scope: Scope) -> list[str] | None:
    """Texts of a name, where they seem to be few: each is found in the index, behind the one before it.

    All that it has as a string in the period are among them. Others that it has or had may be: they do no harm, and so
    those that were found for an earlier question are only looked at for what they lack. Without a project the index does
    not help.
    """
    if scope.project is None:
        return None
    found = reader.texts.setdefault((scope.project, name), [])
    if 0 < sum(map(len, found)) <= _SHORT and not _others(reader, name, scope, found):
        return [to_text(text) for text in found]
    found.clear()
    parameters = Parameters()
    few = (
        f"SELECT uniqCombined64Merge(12)(texts) FROM tag_stats WHERE {stats_where(scope, parameters)} "
        f"AND name = {parameters.add(name, 'String')}"
    )
    if reader.rows(few, parameters, FEW_ROWS)[0][0] > FEW_TEXTS:
        return None
    while True:
        parameters = Parameters()
        where = f"{days_where(scope, parameters)} AND name = {parameters.add(name, 'String')}"
        if found:
            where += f" AND str > {parameters.add_texts(found[-1:])}"
        rows = reader.rows(f"SELECT str FROM tags WHERE {where} ORDER BY str LIMIT 1", parameters, _ALONE)
        if not rows:
            return [to_text(text) for text in found]
        found.append(rows[0][0])
        if len(found) > 2 * FEW_TEXTS:
            found.clear()
            return None


def _others(reader: Reader, name: str, scope: Scope, known: list[bytes]) -> bool:
    """Whether a name has another text than those that are known: the index tells, but for where one text follows another."""
    parameters = Parameters()
    return bool(
        reader.rows(
            f"SELECT 1 FROM tags WHERE {days_where(scope, parameters)} AND name = {parameters.add(name, 'String')} "
            f"AND str NOT IN {parameters.add_texts(known)} LIMIT 1",
            parameters,
            _ALONE,
        )
    )


def _replaced(expression: Expression, known: dict[Comparison, Expression]) -> Expression:
    match expression:
        case All(parts):
            return All(tuple(_replaced(part, known) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(_replaced(part, known) for part in parts))
        case Not(part):
            return Not(_replaced(part, known))
        case Comparison():
            return known.get(expression, expression)
        case _:
            return expression


def _guess(expression: Expression) -> int:
    match expression:
        case TraceIs() | ConversationIs() | SessionIs() | UserIs():
            return _FEW
        case HasText() | Duration():
            return _ALL
        case All() | AnyOf() | Not():
            return _ALL if holds_of_nothing(expression) else _MANY
        case _:
            return _SOME


def _estimates(reader: Reader, conditions: list[TagCondition], scope: Scope) -> dict[Expression, int]:
    """Rows that each condition reads: on one day of the period, where that says something."""
    if not conditions:
        return {}
    since, until = scope.period.since, scope.period.until
    if since is not None and (until is None or until - since > DAY):
        day = Period(since, since + DAY)
    elif until is not None and since is None:
        day = Period(until - DAY, until)
    else:
        return _rows_read(reader, conditions, scope)
    found = _rows_read(reader, conditions, Scope(scope.project, day))
    return found if any(found.values()) else _rows_read(reader, conditions, scope)


def _rows_read(reader: Reader, conditions: list[TagCondition], scope: Scope) -> dict[Expression, int]:
    """What was said to an earlier question still holds well enough: nothing depends on it but an order."""
    known = reader.estimates
    if len(known) > _REMEMBERED:
        known.clear()
    unknown = [condition for condition in conditions if (condition, scope) not in known]
    found: dict[Expression, int] = {}
    if unknown:
        parameters = Parameters()
        where = scope_where(scope, parameters)
        sql = " UNION ALL ".join(
            f"SELECT {n}, sum(rows) FROM (EXPLAIN ESTIMATE SELECT trace_hash FROM tags "
            f"WHERE {where} AND {tag_test(condition, scope, where, parameters)})"
            for n, condition in enumerate(unknown)
        )
        found = {unknown[n]: rows for n, rows in reader.rows(sql, parameters)}
        # None at all may be some in a moment.
        known |= {(condition, scope): rows for condition, rows in found.items() if rows}
    return found | {condition: known[condition, scope] for condition in conditions if condition not in found}
