"""Which tags there are, and which values a name has."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from tailrace.explorer.answers import TagDetail, TagSummary, ValueCount
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import Scope, scope_where, trace_key
from tailrace.explorer.texts import to_text
from tailrace.schemas.errors import NotFound

FEW_ROWS = {
    # So few that starting a second thread, or reading one column before the others, takes longer than they do.
    "max_threads": 1,
    "optimize_move_to_prewhere": 0,
}
"""For a question to `tag_stats`."""


def tag_names(reader: Reader, scope: Scope) -> tuple[TagSummary, ...]:
    """Ask for every name; see `Explorer.tags`."""
    return _summaries(reader, scope, None)


def tag_detail(reader: Reader, name: str, scope: Scope, limit: int) -> TagDetail:
    """Ask for one name; see `Explorer.tag`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise NotFound(f"there is no tag {name!r:.200}") from None
    found = _summaries(reader, scope, name)
    if not found:
        where = f" in project {scope.project}" if scope.project is not None else ""
        raise NotFound(f"there is no tag {name:.200}{where}; `tailrace tags` lists the names that there are")
    parameters = Parameters()
    sql = (
        f"SELECT str, uniqExact({trace_key(scope, 'trace_hash')}) AS traces FROM tags "
        f"WHERE {scope_where(scope, parameters)} AND name = {parameters.add(name, 'String')} "
        f"GROUP BY str ORDER BY traces DESC, str LIMIT {parameters.add(limit, 'UInt64')}"
    )
    top = tuple(ValueCount(to_text(value), traces) for value, traces in reader.rows(sql, parameters))
    return TagDetail(found[0], top)


def tag_values(reader: Reader, name: str, beginning: str, scope: Scope, limit: int) -> tuple[str, ...]:
    """Some texts of a name that begin so; see `Explorer.values`."""
    parameters = Parameters()
    sql = (
        f"SELECT DISTINCT str FROM tags WHERE {scope_where(scope, parameters)} "
        f"AND name = {parameters.add(name, 'String')} AND startsWith(str, {parameters.add(beginning, 'String')}) "
        f"LIMIT {parameters.add(limit, 'UInt64')}"
    )
    return tuple(sorted(to_text(row[0]) for row in reader.rows(sql, parameters)))


def stats_where(scope: Scope, parameters: Parameters) -> str:
    """A condition on the project and the day of `tag_stats`, which knows nothing finer of the period."""
    where = ["1"]
    if scope.project is not None:
        where.append(f"project_id = {parameters.add(scope.project, 'String')}")
    if scope.period.since is not None:
        where.append(f"day >= {parameters.add(_day(to_datetime(scope.period.since)), 'UInt32')}")
    if scope.period.until is not None:
        where.append(f"day <= {parameters.add(_day(to_datetime(scope.period.until - 1)), 'UInt32')}")
    return " AND ".join(where)


def _summaries(reader: Reader, scope: Scope, name: str | None) -> tuple[TagSummary, ...]:
    parameters = Parameters()
    where = stats_where(scope, parameters)
    if name is not None:
        where += f" AND name = {parameters.add(name, 'String')}"
    sql = (
        "SELECT name, groupUniqArray((toString(kind), type, group)), uniqCombined64Merge(12)(lines) AS count, "
        "uniqCombined64Merge(12)(texts), min(low), max(high) "
        f"FROM tag_stats WHERE {where} GROUP BY name"
    )
    rows = sorted(reader.rows(sql, parameters, FEW_ROWS), key=lambda row: (-row[2], row[0]))
    return tuple(
        TagSummary(
            name=to_text(name),
            kinds=_distinct(seen[0] for seen in logged),
            types=_distinct(seen[1] for seen in logged),
            groups=_distinct(seen[2] for seen in logged if seen[2]),
            lines=lines,
            values=texts,
            low=low if math.isfinite(low) else None,
            high=high if math.isfinite(high) else None,
        )
        for name, logged, lines, texts, low, high in rows
    )


def _distinct(texts: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(to_text(text) for text in sorted(set(texts)))


def _day(moment: datetime) -> int:
    """As `toYYYYMMDD` has it."""
    moment = moment.astimezone(UTC)
    return moment.year * 10_000 + moment.month * 100 + moment.day
