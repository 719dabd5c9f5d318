"""The payload of one data object."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from msgspec import Struct

from tailrace.explorer.lookup import id_start, within
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.texts import to_text
from tailrace.explorer.trace import one_project
from tailrace.schemas.errors import NotFound


class ObjectPayload(Struct, frozen=True):
    """A data object as it was logged.

    Args:
        project_id: Its project.
        trace_id: Its trace.
        ref: Its name there.
        ts: When it was logged.
        type: Which wrapper reads it back, for example `tailrace.Numpy`; '' for plain JSON.
        data: The wrapper's parameters, the bytes of JSON that the service wrote: they may hold NaN and Infinity,
            and lone surrogates. Of an object that was too large for its line, what stands for it there
            (`tailrace.schemas.stand_in`).
    """

    project_id: str
    trace_id: str
    ref: str
    ts: datetime
    type: str
    data: bytes

    def to_json(self) -> bytes:
        """`{"type": …, "params": …}` in JSON, the parameters byte for byte as logged."""
        return b'{"type":%b,"params":%b}' % (json.dumps(self.type).encode(), self.data or b"null")

    def document(self) -> dict[str, Any]:
        """The same as a dict, which is what `tailrace.load` takes.

        Raises:
            RecursionError: It nests deeper than Python reads.
        """
        params = json.loads(self.data.decode("utf-8", "surrogatepass")) if self.data else None
        return {"type": self.type, "params": params}


def read_object(reader: Reader, trace_id: str, ref: str, project: str | None) -> ObjectPayload:
    """Ask for one object; see `Explorer.object`."""
    try:
        f"{trace_id}{ref}".encode()
    except UnicodeEncodeError:
        raise NotFound(f"there is no object {ref!r:.200} in a trace {trace_id!r:.200}") from None
    start = id_start(trace_id)
    found = _find(reader, trace_id, ref, project, start)
    if not found and start is not None:
        found = _find(reader, trace_id, ref, project, None)
    if not found:
        raise NotFound(_missing(reader, trace_id, ref, project))
    one_project(trace_id, sorted(to_text(row[0]) for row in found))
    name, micros, type, data = found[0]
    return ObjectPayload(to_text(name), trace_id, ref, to_datetime(micros), to_text(type), data)


def _find(
    reader: Reader, trace_id: str, ref: str, project: str | None, start: int | None
) -> list[tuple[Any, ...]]:
    """The object of each project that has one; the last, where a service logged several under the same name."""
    parameters = Parameters()
    where = _where(trace_id, project, start, parameters)
    sql = (
        f"SELECT project_id, toUnixTimestamp64Micro(ts), type, data FROM objects "
        f"WHERE {where} AND ref = {parameters.add(ref, 'String')} ORDER BY ts DESC, line_hash DESC LIMIT 1 BY project_id"
    )
    return reader.rows(sql, parameters)


def _where(trace_id: str, project: str | None, start: int | None, parameters: Parameters) -> str:
    where = f"trace_id = {parameters.add(trace_id, 'String')}"
    if project is not None:
        where += f" AND project_id = {parameters.add(project, 'String')}"
    if start is not None:
        where += f" AND {within(start, start, parameters)}"
    return where


def _missing(reader: Reader, trace_id: str, ref: str, project: str | None) -> str:
    parameters = Parameters()
    where = _where(trace_id, project, None, parameters)
    rows = reader.rows(f"SELECT DISTINCT ref FROM objects WHERE {where} ORDER BY ref LIMIT 11", parameters)
    if not rows:
        return f"there is no object {ref:.200}: no trace {trace_id:.200} with objects"
    names = ", ".join(to_text(row[0])[:100] for row in rows[:10]) + (", …" if len(rows) > 10 else "")
    return f"trace {trace_id:.200} has no object {ref:.200}; it has {names}"
