"""The latest traces of a slice, a line each."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tailrace.explorer.answers import TraceRow
from tailrace.explorer.conditions import Slice
from tailrace.explorer.lookup import duration_seconds, with_rows, within
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import UNIVERSE, Scope, last_seen, scope_where, selection, trace_key
from tailrace.explorer.texts import to_text
from tailrace.schemas.timestamps import trace_start

T = TypeVar("T")

_CHUNK_BYTES = 4096
"""Parameters of one query stay below this, because over HTTP they travel in the request line."""


def latest(reader: Reader, query: Slice, scope: Scope, limit: int) -> tuple[TraceRow, ...]:
    """Ask for the latest traces of a slice; see `Explorer.traces`."""
    parameters = Parameters()
    sql = (
        f"SELECT k, toUnixTimestamp64Micro(start) FROM ({selection(query, scope, parameters)}) "
        f"ORDER BY start DESC, k LIMIT {parameters.add(limit, 'UInt64')}"
    )
    starts: dict[int, int] = dict(reader.rows(sql, parameters))
    tables = with_rows(reader, UNIVERSE) if starts else []
    ids = _ids(reader, scope, starts, tables)
    found: list[TraceRow] = []
    for some in _chunks(list(dict.fromkeys(ids.values())), lambda trace_id: len(trace_id)):
        found += _details(reader, scope, some, starts, tables)
    return tuple(sorted(found, key=lambda row: (row.start, row.project_id, row.trace_id), reverse=True))


def _ids(reader: Reader, scope: Scope, starts: dict[int, int], tables: list[str]) -> dict[int, bytes]:
    """The trace ids behind the keys. The line that gave a trace its start lies at exactly that time."""
    found: dict[int, bytes] = {}
    for keys in _chunks(list(starts), lambda key: 20):
        parameters = Parameters()
        times = sorted(starts[key] for key in keys)
        where = f"{scope_where(scope, parameters)} AND {within(times[0], times[-1], parameters)}"
        chosen = parameters.add(keys, "Array(UInt64)")
        lines = " UNION ALL ".join(
            f"SELECT {trace_key(scope, 'cityHash64(trace_id)')} AS k, trace_id FROM {table} WHERE {where} AND k IN {chosen}"
            for table in tables
        )
        found.update(reader.rows(f"SELECT k, any(trace_id) FROM ({lines}) GROUP BY k", parameters))
    return found


def _details(
    reader: Reader, scope: Scope, ids: list[bytes], starts: dict[int, int], tables: list[str]
) -> list[TraceRow]:
    parameters = Parameters()
    where = scope_where(scope, parameters)
    began = [_own_start(trace_id, starts.values()) for trace_id in ids]
    known = [time for time in began if time is not None]
    if len(known) == len(ids):
        where += f" AND {within(min(known), max(known), parameters)}"
    where += f" AND trace_id IN {parameters.add_texts(ids)}"
    parts = " UNION ALL ".join(_part(table, where) for table in tables)
    sql = (
        f"SELECT {trace_key(scope, 'cityHash64(trace_id)')} AS k, project_id, trace_id, "
        "toUnixTimestamp64Micro(min(p.began)), toUnixTimestamp64Micro(max(p.last)), sum(p.tags), max(p.error), max(p.named).2 "
        f"FROM ({parts}) AS p GROUP BY project_id, trace_id"
    )
    rows = []
    for k, project, trace_id, start, last, tags, error, name in reader.rows(sql, parameters):
        if k in starts:
            rows.append(
                TraceRow(
                    project_id=to_text(project),
                    trace_id=to_text(trace_id),
                    name=to_text(name),
                    start=to_datetime(start),
                    duration=duration_seconds(start, last),
                    tags=tags,
                    error=bool(error),
                )
            )
    return rows


def _part(table: str, where: str) -> str:
    """What one table knows of each trace: the same columns for all."""
    tags, error, named = "0", "0", "(toDateTime64(0, 6, 'UTC'), '')"
    lines = f"SELECT * FROM {table} WHERE {where}"
    if table == "tag_lines":
        # A line that is stored twice must count once.
        lines = (
            f"SELECT * FROM {table} WHERE {where} LIMIT 1 BY project_id, trace_id, trace_ts, ts, line_hash"
        )
        tags, error = "sum(length(tags.name))", "max(has(tags.type, 'error'))"
    elif table == "exceptions":
        error = "1"
    elif table == "event_lines":
        error = "max(phase = 'end' AND status = 'error')"
    elif table == "traces":
        named = "max(if(name = '', (toDateTime64(0, 6, 'UTC'), ''), (ts, name)))"
    return (
        f"SELECT project_id, trace_id, min(trace_ts) AS began, max({last_seen(table)}) AS last, toUInt64({tags}) AS tags, "
        f"toUInt8({error}) AS error, {named} AS named FROM ({lines}) GROUP BY project_id, trace_id"
    )


def _own_start(trace_id: bytes, near: Any) -> int | None:
    """The start that an id tells, when the trace was indeed found there."""
    try:
        text = trace_id.decode()
    except UnicodeDecodeError:
        return None
    for time in near:
        began = trace_start(text, time)
        if began == time:
            return began
    return None


def _chunks(items: Sequence[T], size: Any) -> Iterator[list[T]]:
    chunk: list[T] = []
    used = 0
    for item in items:
        if chunk and used + size(item) > _CHUNK_BYTES:
            yield chunk
            chunk, used = [], 0
        chunk.append(item)
        used += size(item)
    if chunk:
        yield chunk
