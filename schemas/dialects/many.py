"""Many lines at once: whether all of them are records, in one call of the typed decoder.

It only ever says yes where `recognise.LineDecoder` and the times' parser would say yes to each line. Where it says
nothing, the lines have to be read one by one: some are written in another way, or are no records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from tailrace.schemas.dialects import raymon_file, tailrace_v1
from tailrace.schemas.records import RECORD_TYPES

_Instant = Annotated[datetime, Meta(tz=True)]
"""The time as both clients write it. Numbers and times without a zone are read one by one."""
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(2299, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ManyRead(NamedTuple):
    """What valid lines say.

    Args:
        dialect: Of all of them.
        kinds: Lines by kind.
        times: Of each, in order.
    """

    dialect: str
    kinds: Counter[str]
    times: list[datetime]


class ManyReader:
    """Reads blocks of whole lines. One for each thread."""

    def __init__(self) -> None:
        self._dialects = (_tailrace(), _raymon_file())

    def read(self, block: bytes) -> ManyRead | None:
        """What the lines of a block say; `None` when not every one of them is surely a record of one dialect.

        Args:
            block: Whole lines, each with its line feed; at least one.
        """
        for dialect in self._dialects:
            if block.startswith(dialect.prefix):
                return dialect.read(block)
        return None


class _Dialect:
    def __init__(
        self,
        name: str,
        prefix: bytes,
        kinds: dict[type, str],
        time: str,
        later: Callable[[list[Any]], list[datetime]],
    ) -> None:
        self.prefix = prefix
        self._name = name
        self._boundary = b"}\n" + prefix
        self._kinds = kinds
        self._time = attrgetter(time)
        self._more_times = later
        union: Any = None
        for kind in kinds:
            union = kind if union is None else union | kind
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(union)

    def read(self, block: bytes) -> ManyRead | None:
        # Between `}` and `{` no value of JSON goes on, so each line holds one value or more, and none a part of one.
        lines = block.count(b"\n")
        if block.count(self._boundary) != lines - 1 or not block.endswith(b"}\n"):
            return None
        try:
            if not block.isascii():
                block.decode("utf-8")  # payloads are not looked into by the typed decoder
            found = self._decoder.decode_lines(block)
        except _FAULTS:
            return None
        if len(found) != lines:
            return None
        times = list(map(self._time, found))
        bounds = [min(times), max(times), *self._more_times(found)]
        if min(bounds) < _EARLIEST or max(bounds) > _LATEST:
            return None
        counts = Counter(map(type, found))
        kinds = Counter({self._kinds[kind]: count for kind, count in counts.items()})
        return ManyRead(self._name, kinds, times)


def _tailrace() -> _Dialect:
    kinds: dict[type, str] = {}
    for kind, record in RECORD_TYPES.items():
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [("ts", _Instant)]
        fields.append(("trace_ts", _Instant | None, None))
        checked = msgspec.defstruct(
            record.__name__, fields, bases=(record,), tag_field="kind", tag=kind, kw_only=True, gc=False
        )
        kinds[checked] = kind

    def began(records: list[Any]) -> list[datetime]:
        return [record.trace_ts for record in records if record.trace_ts is not None]

    return _Dialect("tailrace", tailrace_v1.PREFIX, kinds, "ts", began)


def _raymon_file() -> _Dialect:
    kinds: dict[type, str] = {}
    for line, kind in raymon_file.LINE_KINDS.items():
        inner = msgspec.structs.fields(line)[0].type
        jcr = msgspec.defstruct("Jcr", [("timestamp", _Instant)], bases=(inner,), kw_only=True, gc=False)
        tag = line.__struct_config__.tag
        checked = msgspec.defstruct(
            line.__name__, [("jcr", jcr)], bases=(line,), tag_field="type", tag=tag, gc=False
        )
        kinds[checked] = kind
    return _Dialect("raymon-file", raymon_file.PREFIX, kinds, "jcr.timestamp", lambda _: [])
