"""The raymon file log: what `RaymonFileLogger` of raymon 0.0.36 and before writes.

{"type": "info", "jcr": {"timestamp": "2026-11-21 02:59:01.021863+00:00", "trace_id": …, "ref": null, "data": "text", "project_id": …}}
{"type": "tags", "jcr": {…, "data": [{"type": "label", "name": …, "value": …, "group": null}]}}
{"type": "data", "jcr": {…, "ref": "name", "data": {"type": "raymon.types.Numpy", "params": {…}}}}
"""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Raw, Struct

from tailrace.schemas.dialects.raymon_payload import PayloadDecoder
from tailrace.schemas.records import Name, Object, Record, TagList, Tags, Text, Timestamp

PREFIX = b'{"type": '
"""How Python's `json.dumps` begins the line; other writers may order the keys as they like."""


class _Common(Struct, kw_only=True):
    timestamp: Timestamp
    trace_id: Name
    project_id: Name


class _InfoJcr(_Common, kw_only=True):
    data: str


class _TagsJcr(_Common, kw_only=True):
    data: TagList


class _DataJcr(_Common, kw_only=True):
    ref: Name
    data: Raw


class _Info(Struct, tag_field="type", tag="info"):
    jcr: _InfoJcr


class _Tags(Struct, tag_field="type", tag="tags"):
    jcr: _TagsJcr


class _Data(Struct, tag_field="type", tag="data"):
    jcr: _DataJcr


_Line = _Info | _Tags | _Data
LINE_KINDS: dict[type[Struct], str] = {_Info: "text", _Tags: "tags", _Data: "object"}
"""The shapes of a line, and the kind of record that each becomes."""


class RaymonFile:
    """Decodes a line of a raymon file log."""

    name = "raymon-file"

    def __init__(self) -> None:
        self._decoder: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)
        self._payload = PayloadDecoder()

    def decode(self, line: bytes) -> Record:
        """Raises `msgspec.MsgspecError`, `UnicodeDecodeError` or `RecursionError`."""
        return self._record(self._decoder.decode(line))

    def decode_all(self, block: bytes) -> list[Record]:
        """The same of every value in a block."""
        return list(map(self._record, self._decoder.decode_lines(block)))

    def convert(self, document: dict[str, object]) -> Record:
        """The same from a line that was parsed already, its raw fields as `msgspec.Raw`."""
        return self._record(cast(_Line, msgspec.convert(document, _Line)))

    def _record(self, line: _Line) -> Record:
        if type(line) is _Tags:
            tags = line.jcr
            return Tags(ts=tags.timestamp, project_id=tags.project_id, trace_id=tags.trace_id, tags=tags.data)
        if type(line) is _Info:
            info = line.jcr
            return Text(
                ts=info.timestamp, project_id=info.project_id, trace_id=info.trace_id, message=info.data
            )
        assert type(line) is _Data  # noqa: S101 - the third and last of the union
        data = line.jcr
        kind, params = self._payload.split(data.data)
        return Object(
            ts=data.timestamp,
            project_id=data.project_id,
            trace_id=data.trace_id,
            ref=data.ref,
            type=kind,
            data=params,
        )
