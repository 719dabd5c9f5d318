"""The flat format of raymon from 0.0.37 on.

{"dtype": "info"|"object"|"tags", "timestamp": …, "trace_id": …, "project_id": …, "ref": …, "data": …}
"""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Raw, Struct

from tailrace.schemas.dialects.raymon_payload import PayloadDecoder
from tailrace.schemas.records import Name, Object, Record, TagList, Tags, Text, Timestamp


class _Common(Struct, kw_only=True, tag_field="dtype"):
    timestamp: Timestamp
    trace_id: Name
    project_id: Name


class _Info(_Common, kw_only=True, tag="info"):
    data: str


class _Tags(_Common, kw_only=True, tag="tags"):
    data: TagList


class _Object(_Common, kw_only=True, tag="object"):
    ref: Name
    data: Raw


_Line = _Info | _Tags | _Object


class RaymonApi:
    """Decodes a line of the raymon API format."""

    name = "raymon-api"

    def __init__(self) -> None:
        self._decoder: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)
        self._payload = PayloadDecoder()

    def decode(self, line: bytes) -> Record:
        """Raises `msgspec.MsgspecError`, `UnicodeDecodeError` or `RecursionError`."""
        return self._record(self._decoder.decode(line))

    def convert(self, document: dict[str, object]) -> Record:
        """The same from a line that was parsed already, its raw fields as `msgspec.Raw`."""
        return self._record(cast(_Line, msgspec.convert(document, _Line)))

    def _record(self, line: _Line) -> Record:
        ts, project, trace = line.timestamp, line.project_id, line.trace_id
        if type(line) is _Info:
            return Text(ts=ts, project_id=project, trace_id=trace, message=line.data)
        if type(line) is _Tags:
            return Tags(ts=ts, project_id=project, trace_id=trace, tags=line.data)
        assert type(line) is _Object  # noqa: S101 - the third and last of the union
        kind, params = self._payload.split(line.data)
        return Object(ts=ts, project_id=project, trace_id=trace, ref=line.ref, type=kind, data=params)
