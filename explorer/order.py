"""What to find out before a slice is asked for: which versions there are, and which condition to look at first."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

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
from tailrace.explorer.literals import Version
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import Scope, scope_where, tag_test, versions
from tailrace.explorer.texts import to_text

MAX_VERSIONS = 500
"""More versions than this are looked for in the query itself, not listed in its parameters."""

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
    parameters = Parameters()
    sql = f"{versions(condition, scope, parameters)} LIMIT {MAX_VERSIONS + 1}"
    texts = [to_text(row[0]) for row in reader.rows(sql, parameters)]
    return condition if len(texts) > MAX_VERSIONS else StringIsOneOf(condition.name, tuple(sorted(texts)))


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
    if not conditions:
        return {}
    parameters = Parameters()
    where = scope_where(scope, parameters)
    sql = " UNION ALL ".join(
        f"SELECT {n}, sum(rows) FROM (EXPLAIN ESTIMATE SELECT trace_hash FROM tags "
        f"WHERE {where} AND {tag_test(condition, scope, where, parameters)})"
        for n, condition in enumerate(conditions)
    )
    return {conditions[n]: rows for n, rows in reader.rows(sql, parameters)}
