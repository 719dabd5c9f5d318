"""What distinguishes the traces of one slice from those of another: the tags whose distributions differ most."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from tailrace.explorer.answers import CompareReport, SideNumbers, SideShare, TagDifference
from tailrace.explorer.conditions import Slice
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import TAG_IDENTITY, Scope, scope_where, selection, trace_key
from tailrace.explorer.significance import LEVEL, g_test, holm
from tailrace.explorer.summary import counts
from tailrace.explorer.tags import stats_where
from tailrace.explorer.texts import to_text

MAX_VALUES = 1000
"""A name with more distinct texts than this, and than a tenth of its lines, identifies rather than describes."""
SHOWN_VALUES = 3
"""How many values of a category an answer names."""
_RARE = 5
"""Values that fewer traces have, in both slices together, are taken as one: chance alone would tell them apart."""

Counts = dict[bytes | None, tuple[int, int]]


def compare(
    reader: Reader, texts: tuple[str, str], slices: tuple[Slice, Slice], scope: Scope, limit: int
) -> CompareReport:
    """Ask for the differences between two slices; see `Explorer.compare`."""
    (traces_a, errors_a), (traces_b, errors_b) = (counts(reader, query, scope) for query in slices)
    report = CompareReport(
        a=texts[0],
        b=texts[1],
        project=scope.project,
        since=None if scope.period.since is None else to_datetime(scope.period.since),
        until=None if scope.period.until is None else to_datetime(scope.period.until),
        traces_a=traces_a,
        traces_b=traces_b,
        errors_a=errors_a,
        errors_b=errors_b,
        tags=(),
    )
    if not traces_a or not traces_b:
        return report
    identifiers = _identifiers(reader, scope)
    categories = _categories(reader, slices, scope, identifiers)
    # A name with nothing but numbers, or rare values, has no value whose shares could differ.
    found = [
        _category(name, seen, traces_a, traces_b) for name, seen in categories.items() if set(seen) != {None}
    ]
    found += _numbers(reader, slices, scope)
    corrected = holm([tag.p_value for tag in found])
    tags = [
        structs.replace(tag, p_value=p, significant=p is not None and p < LEVEL)
        for tag, p in zip(found, corrected, strict=True)
    ]
    tags.sort(key=lambda tag: (-tag.effect, tag.name, tag.kind))
    return structs.replace(
        report, tags=tuple(tags[:limit]), identifiers=tuple(sorted(to_text(name) for name in identifiers))
    )


def _sides(slices: tuple[Slice, Slice], scope: Scope, parameters: Parameters) -> str:
    """A SELECT of `k` and `side`, 0 or 1; a trace of both slices has two rows."""
    return " UNION ALL ".join(
        f"SELECT k, toUInt8({side}) AS side FROM ({selection(query, scope, parameters)})"
        for side, query in enumerate(slices)
    )


def _identifiers(reader: Reader, scope: Scope) -> list[bytes]:
    """Names whose texts differ from line to line, such as the id of a request; of the period only the days count."""
    parameters = Parameters()
    sql = (
        f"SELECT name FROM tag_stats WHERE {stats_where(scope, parameters)} AND kind NOT IN ('number', 'bool') "
        "GROUP BY name HAVING uniqCombined64Merge(12)(texts) > "
        f"greatest({parameters.add(MAX_VALUES, 'UInt64')}, intDiv(uniqCombined64Merge(12)(lines), 10))"
    )
    return [row[0] for row in reader.rows(sql, parameters)]


def _categories(
    reader: Reader, slices: tuple[Slice, Slice], scope: Scope, left_out: Sequence[bytes]
) -> dict[bytes, Counts]:
    """By name and text, how many traces of each slice have it; rare texts and numbers are taken together as `None`."""
    parameters = Parameters()
    names = f" AND name NOT IN {parameters.add_texts(left_out)}" if left_out else ""
    sql = (
        "SELECT name, if(rare, '', text) AS value, rare, sum(in_a), sum(in_b) FROM ("
        "SELECT name, text, number, countIf(side = 0) AS in_a, countIf(side = 1) AS in_b, "
        f"number OR in_a + in_b < {_RARE} AS rare "
        "FROM (SELECT member.side AS side, tag.name AS name, tag.kind = 'number' AS number, if(number, '', tag.str) AS text "
        f"FROM (SELECT {trace_key(scope, 'trace_hash')} AS k, name, kind, str FROM tags "
        f"WHERE {scope_where(scope, parameters)}{names}) AS tag "
        f"INNER JOIN ({_sides(slices, scope, parameters)}) AS member ON tag.k = member.k "
        "GROUP BY member.k, side, name, number, text) "
        "GROUP BY name, number, text) GROUP BY name, value, rare"
    )
    found: dict[bytes, Counts] = {}
    for name, value, rare, in_a, in_b in reader.rows(sql, parameters):
        found.setdefault(name, {})[None if rare else value] = (in_a, in_b)
    return found


def _category(name: bytes, seen: Counts, traces_a: int, traces_b: int) -> TagDifference:
    """Values as shares of all values and of the traces without the tag, which are counted with the rare ones."""
    rest_a, rest_b = seen.get(None, (0, 0))
    known_a, known_b = (sum(pair[side] for pair in seen.values()) for side in (0, 1))
    full: Counts = {
        **seen,
        None: (rest_a + max(traces_a - known_a, 0), rest_b + max(traces_b - known_b, 0)),
    }
    in_a, in_b = [pair[0] for pair in full.values()], [pair[1] for pair in full.values()]
    shares = [
        SideShare(None if value is None else to_text(value), a / traces_a, b / traces_b)
        for value, (a, b) in full.items()
        if a or b
    ]
    shares.sort(key=lambda share: (-abs(share.b - share.a), share.value is None, share.value or ""))
    return TagDifference(
        name=to_text(name),
        kind="category",
        effect=jensen_shannon(in_a, in_b),
        delta=None,
        p_value=g_test(in_a, in_b),
        significant=False,
        values=tuple(shares[:SHOWN_VALUES]),
    )


def jensen_shannon(a: Sequence[int], b: Sequence[int]) -> float:
    """The Jensen-Shannon distance of two distributions, given as counts: the root of the divergence in bits, from 0 to 1."""
    total_a, total_b = sum(a), sum(b)
    if not total_a or not total_b:
        return 0.0
    divergence = 0.0
    for x, y in zip(a, b, strict=True):
        p, q = x / total_a, y / total_b
        middle = (p + q) / 2
        divergence += sum(share / 2 * math.log2(share / middle) for share in (p, q) if share)
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def _numbers(reader: Reader, slices: tuple[Slice, Slice], scope: Scope) -> list[TagDifference]:
    """Tags whose values are numbers in both slices."""
    parameters = Parameters()
    rows = (
        f"SELECT tag.name AS name, any(tag.num) AS num, member.side AS side "
        f"FROM (SELECT {trace_key(scope, 'trace_hash')} AS k, name, num, {TAG_IDENTITY} AS id FROM tags "
        f"WHERE {scope_where(scope, parameters)} AND kind = 'number' AND isFinite(num)) AS tag "
        f"INNER JOIN ({_sides(slices, scope, parameters)}) AS member ON tag.k = member.k "
        "GROUP BY member.k, side, name, tag.id"
    )
    sql = (
        "SELECT name, if(empty(a) OR empty(b), (0., nan), "
        "arrayReduce('mannWhitneyUTest(\\'two-sided\\')', arrayConcat(a, b, if(empty(a), [0.], []), if(empty(b), [0.], [])), "
        "arrayConcat(arrayMap(x -> 0, a), arrayMap(x -> 1, b), if(empty(a), [0], []), if(empty(b), [1], [])))) AS test, "
        "length(a), length(b), arrayAvg(a), arrayAvg(b), "
        "arrayReduce('quantilesExactInclusive(0.5, 0.95)', a), arrayReduce('quantilesExactInclusive(0.5, 0.95)', b) "
        f"FROM (SELECT name, groupArrayIf(num, side = 0) AS a, groupArrayIf(num, side = 1) AS b FROM ({rows}) GROUP BY name)"
    )
    found = []
    for name, test, count_a, count_b, mean_a, mean_b, quantiles_a, quantiles_b in reader.rows(
        sql, parameters
    ):
        if count_a and count_b:
            u, p = _test(test)
            # U counts the pairs in which the number of A is the greater, ties as halves.
            delta = 1 - 2 * u / (count_a * count_b)
            found.append(
                TagDifference(
                    name=to_text(name),
                    kind="number",
                    effect=abs(delta),
                    delta=delta,
                    p_value=p if math.isfinite(p) else None,
                    significant=False,
                    a=_side(count_a, mean_a, quantiles_a),
                    b=_side(count_b, mean_b, quantiles_b),
                )
            )
    return found


def _test(value: Any) -> tuple[float, float]:
    """A named tuple arrives as a dict, a plain one as a tuple."""
    u, p = value.values() if isinstance(value, dict) else value
    return u, p


def _side(count: int, mean: float, quantiles: Sequence[float]) -> SideNumbers:
    mean_, p50, p95 = (value if math.isfinite(value) else None for value in (mean, *quantiles))
    return SideNumbers(count, mean_, p50, p95)
