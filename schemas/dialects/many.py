"""Many lines at once: whether all of them are records, in a few calls for all of them.

It only ever says yes where `recognise.LineDecoder` and the times' parser would say yes to each line. Where it says
nothing, the lines have to be read one by one: some are written in another way, or are no records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import attrgetter, itemgetter, methodcaller, or_
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from tailrace.schemas.dialects import raymon_file, tailrace_v1
from tailrace.schemas.records import RECORD_TYPES, Tag

_Instant = Annotated[datetime, Meta(tz=True)]
"""The time as both clients write it. Numbers and times without a zone are read one by one."""
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_LATEST = datetime(2299, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BEGIN, _LAST = itemgetter(slice(3)), itemgetter(-2)
"""The bytes that tell the two prefixes apart, and the one before a line feed."""
_CLOSED = {ord("}")}


class ManyRead(NamedTuple):
    """What valid lines say.

    Args:
        dialect: Of all of them.
        kinds: Lines by kind.
        times: Of each, in order.
        earliest: The smallest of them.
        latest: The largest of them.
        tags: Of each line that has some, with its index; only of lines that were read strictly.
    """

    dialect: str
    kinds: Mapping[str, int]
    times: list[datetime]
    earliest: datetime
    latest: datetime
    tags: list[tuple[int, list[Tag]]]


class ManyReader:
    """Reads whole lines. One for each thread."""

    def __init__(self) -> None:
        self._dialects = (_tailrace(), _raymon_file())

    def read(self, lines: Sequence[bytes], strictly: bool = False, block: bytes = b"") -> ManyRead | None:
        """What lines say; `None` when not every one of them is surely a record of one dialect.

        Args:
            lines: With their line feeds; at least one.
            strictly: Say nothing either when any of them has a field that is not known.
            block: The same lines in one piece, where there is one.
        """
        for dialect in self._dialects:
            if lines[0].startswith(dialect.prefix):
                return dialect.read(lines, block or b"".join(lines), strictly)
        return None


class _Dialect:
    def __init__(
        self,
        name: str,
        prefix: bytes,
        is_surely: Callable[[Sequence[bytes]], bool],
        kinds: Callable[[bool], dict[type, str]],
        time: str,
        tags: str,
        later: Callable[[list[Any]], list[datetime]],
    ) -> None:
        self.prefix = prefix
        self._name = name
        self._is_surely = is_surely
        self._time, self._tags = attrgetter(time), attrgetter(tags)
        self._more_times = later
        self._kinds: dict[type, str] = {}
        self._decoders: dict[bool, msgspec.json.Decoder[Any]] = {}
        for strictly in (False, True):
            shapes = kinds(strictly)
            self._kinds |= shapes
            union = reduce(or_, shapes)
            self._decoders[strictly] = msgspec.json.Decoder(union)

    def read(self, lines: Sequence[bytes], block: bytes, strictly: bool) -> ManyRead | None:
        try:
            # Between `}` and `{` no value of JSON goes on, so each line holds one value or more, and none a part of one.
            if not self._is_surely(lines) or set(map(_LAST, lines)) != _CLOSED:
                return None
            if not block.isascii():
                block.decode("utf-8")  # payloads are not looked into by the typed decoder
            found = self._decoders[strictly].decode_lines(block)
        except (*_FAULTS, IndexError):
            return None
        if len(found) != len(lines):
            return None
        times = list(map(self._time, found))
        # They are in order nearly always, and then this compares each once.
        ordered = sorted(times)
        earliest, latest = ordered[0], ordered[-1]
        if not all(_EARLIEST <= time <= _LATEST for time in (earliest, latest, *self._more_times(found))):
            return None
        types = list(map(type, found))
        kinds = {self._kinds[shape]: count for shape, count in Counter(types).items()}
        tags = []
        if strictly:
            tags = [
                (index, self._tags(found[index]))
                for index, shape in enumerate(types)
                if self._kinds[shape] == "tags"
            ]
        return ManyRead(self._name, kinds, times, earliest, latest, tags)


def _tailrace() -> _Dialect:
    def kinds(strictly: bool) -> dict[type, str]:
        first = ("v", "ts", "project_id", "trace_id")
        types: dict[str, Any] = {"ts": _Instant, "trace_ts": _Instant | None}
        found: dict[type, str] = {}
        for kind, record in RECORD_TYPES.items():
            if kind == "tags":
                tag = _shape(Tag, (), {}, strictly)
                types["tags"] = list[tag]  # type: ignore[valid-type]
            found[_shape(record, first, types, strictly, tag_field="kind", tag=kind)] = kind
        return found

    def began(records: list[Any]) -> list[datetime]:
        return [record.trace_ts for record in records if record.trace_ts is not None]

    prefix = tailrace_v1.PREFIX
    begins = methodcaller("startswith", prefix)
    return _Dialect("tailrace", prefix, lambda lines: all(map(begins, lines)), kinds, "ts", "tags", began)


def _raymon_file() -> _Dialect:
    def kinds(strictly: bool) -> dict[type, str]:
        tag = _shape(Tag, ("type", "name", "value", "group"), {}, strictly)
        found: dict[type, str] = {}
        for line, kind in raymon_file.LINE_KINDS.items():
            inner = msgspec.structs.fields(line)[0].type
            types: dict[str, Any] = {"timestamp": _Instant}
            if kind == "tags":
                types["data"] = list[tag]  # type: ignore[valid-type]
            jcr = _shape(inner, ("timestamp", "trace_id", "ref", "data", "project_id"), types, strictly)
            name = line.__struct_config__.tag
            found[_shape(line, (), {"jcr": jcr}, strictly, tag_field="type", tag=name)] = kind
        return found

    # A line that decodes is one of these, unless it also begins as one of the other dialect.
    prefix = raymon_file.PREFIX
    begin = {_BEGIN(prefix)}
    return _Dialect(
        "raymon-file",
        prefix,
        lambda lines: set(map(_BEGIN, lines)) == begin,
        kinds,
        "jcr.timestamp",
        "jcr.data",
        lambda _: [],
    )


def _shape(
    base: type[Struct], first: Sequence[str], types: Mapping[str, Any], strictly: bool, **config: Any
) -> type[Struct]:
    """A struct with the fields of another, some of them of other types, and in the order in which they are written: the decoder
    looks for a key first where the last one left off."""
    known = {field.name: field for field in msgspec.structs.fields(base)}
    fields: list[Any] = []
    for name in dict.fromkeys([*first, *known]):
        if name not in known:
            fields.append((name, Any, None))  # written always, and of no meaning here
            continue
        field, kind = known[name], types.get(name, known[name].type)
        if field.default_factory is not NODEFAULT:
            fields.append((name, kind, msgspec.field(default_factory=field.default_factory)))
        elif field.default is not NODEFAULT:
            fields.append((name, kind, field.default))
        else:
            fields.append((name, kind))
    return msgspec.defstruct(
        base.__name__, fields, kw_only=True, gc=False, forbid_unknown_fields=strictly, **config
    )
