"""Records → Arrow columns.

One builder a table. Strings that repeat (names, types, projects, trace ids) become dictionary-coded columns: ClickHouse takes
them several times faster than plain strings. Rows come many at a time, since what costs time is a call for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from tailrace.schemas.dialects.tolerant import to_raw
from tailrace.schemas.records import (
    EventEnd,
    EventStart,
    ExceptionRecord,
    Feedback,
    GroundTruth,
    Metadata,
    Object,
    Prediction,
    Record,
    Statistics,
    Tags,
    Text,
    TraceContext,
)

NULL, STRING, NUMBER, BOOL, JSON = range(5)
"""What a tag's value was: the codes of the column `tags.kind`."""

_NAN = float("nan")
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_NUMBER_TOKENS = frozenset(_NOT_FINITE.values())


def interned(values: list[str]) -> pa.Array:
    """A column of strings that repeat: indices into the distinct values."""
    return strings(values).dictionary_encode()


def strings(values: list[str]) -> pa.Array:
    """Text as Arrow. ClickHouse strings are bytes, so text that UTF-8 cannot hold (lone surrogates) goes as WTF-8."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([value.encode("utf-8", "surrogatepass") for value in values], pa.binary())


def _times(values: list[int]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))


class Columns:
    """The columns that every record table has. Subclasses add those of their kind."""

    table: str
    """The ClickHouse table."""

    def __init__(self) -> None:
        self.project_id: list[str] = []
        self.trace_id: list[str] = []
        self.trace_ts: list[int] = []
        self.ts: list[int] = []
        self.line_hash: list[int] = []

    def __len__(self) -> int:
        return len(self.ts)

    def extend(self, records: list[Any], ts: list[int], trace_ts: list[int], line_hash: list[int]) -> None:
        """Rows of this kind; the arguments as of `RecordColumns.extend`."""
        self.extend_own(records)
        self.project_id += [record.project_id for record in records]
        self.trace_id += [record.trace_id for record in records]
        self.trace_ts += trace_ts
        self.ts += ts
        self.line_hash += line_hash

    def extend_own(self, records: list[Any]) -> None:
        """What is particular to the kind, of rows that `extend` adds."""
        raise NotImplementedError

    def to_arrow(self) -> pa.Table:
        """All rows as one table with a single record batch."""
        return pa.table(
            {
                "project_id": interned(self.project_id),
                "trace_id": interned(self.trace_id),
                "trace_ts": _times(self.trace_ts),
                "ts": _times(self.ts),
                "line_hash": pa.array(self.line_hash, pa.uint64()),
                **self.own(),
            }
        )

    def own(self) -> dict[str, pa.Array]:
        """The columns that only this table has."""
        raise NotImplementedError


class LogColumns(Columns):
    """`text` records."""

    table = "logs"

    def __init__(self) -> None:
        super().__init__()
        self.level: list[str] = []
        self.message: list[str] = []

    def extend_own(self, records: list[Text]) -> None:
        """Levels and messages."""
        self.level += [record.level for record in records]
        self.message += [record.message for record in records]

    def own(self) -> dict[str, pa.Array]:
        """The columns that only this table has."""
        return {"level": interned(self.level), "message": strings(self.message)}


class TagColumns(Columns):
    """`tags` records: a row a line, the tags in arrays of equal length; ClickHouse unfolds them into `tags`.

    The cost to keep down is Python work per tag. So a tag is two integers here, one for its (name, type, group) and
    one for its value; what these stand for is kept once for each that differs, and put in place by Arrow.
    """

    table = "tag_lines"

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[int] = [0]
        self._keys: list[int] = []
        self._values: list[int] = []
        self._key_codes: dict[tuple[str, str, str | None], int] = {}
        self._text_codes: dict[str, int] = {}
        self._metric_codes: dict[str, int] = {}
        self._kinds: list[int] = []
        self._texts: list[str] = []
        self._numbers: list[float] = []

    def extend_own(self, records: list[Tags]) -> None:
        """All tags of each."""
        key_codes, text_codes, metric_codes = self._key_codes, self._text_codes, self._metric_codes
        keys, values, kinds, texts, numbers = (
            self._keys,
            self._values,
            self._kinds,
            self._texts,
            self._numbers,
        )
        for record in records:
            for tag in record.tags:
                tag_type, value = tag.type, tag.value
                key = (tag.name, tag_type, tag.group)
                code = key_codes.get(key)
                if code is None:
                    code = key_codes[key] = len(key_codes)
                keys.append(code)
                if type(value) is str:
                    codes = metric_codes if tag_type == "metric" else text_codes
                    known = codes.get(value)
                    if known is not None:
                        values.append(known)
                        continue
                    codes[value] = len(kinds)
                # Other values are not looked up: 1, 1.0 and True are one key to a dict and three values to us.
                values.append(len(kinds))
                kind, text, number = tag_value(value, tag_type)
                kinds.append(kind)
                texts.append(text)
                numbers.append(number)
            self._ends.append(len(keys))

    def own(self) -> dict[str, pa.Array]:
        """The columns that only this table has."""
        keys = pa.array(self._keys, pa.int32())
        values = pa.array(self._values, pa.int32())
        columns = {
            "name": interned([name for name, _, _ in self._key_codes]).take(keys),
            "type": interned([kind for _, kind, _ in self._key_codes]).take(keys),
            "group": interned([group or "" for _, _, group in self._key_codes]).take(keys),
            "kind": pa.array(self._kinds, pa.int8()).take(values),
            "str": strings(self._texts).take(values),
            "num": pa.array(self._numbers, pa.float64()).take(values),
        }
        ends = pa.array(self._ends, pa.int32())
        return {f"tags.{name}": pa.ListArray.from_arrays(ends, column) for name, column in columns.items()}


def tag_value(value: Any, tag_type: str) -> tuple[int, str, float]:
    """What a tag's value is stored as.

    Args:
        value: As decoded from JSON.
        tag_type: A `metric` whose value is text that reads as a finite number (or one of the tokens `NaN`,
            `Infinity`, `-Infinity`) is that number, and keeps its text.

    Returns:
        The code of its kind, its text, and its number (NaN for what is neither number nor boolean).
    """
    if type(value) is str:
        if tag_type == "metric":
            number = _finite(value)
            if number is not None:
                return NUMBER, value, number
        return STRING, value, _NAN
    if type(value) is float:
        return NUMBER, repr(value) if value - value == 0 else _NOT_FINITE[repr(value)], value
    if type(value) is int:
        return NUMBER, _digits(value), _to_float(value)
    if type(value) is bool:
        return BOOL, "true" if value else "false", float(value)
    if value is None:
        return NULL, "null", _NAN
    return JSON, _json_text(value), _NAN


def _finite(text: str) -> float | None:
    if text in _NUMBER_TOKENS:
        return float(text)
    if not text.isascii() or "_" in text or (not text[-1:].isdigit() and text[-1:] != "."):
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number - number == 0 else None


def _to_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # over CPython's limit of 4,300 digits; hexadecimal has none
        return hex(value)


def _json_text(value: Any) -> str:
    return bytes(to_raw(value)).decode()


class ObjectColumns(Columns):
    """`object` records."""

    table = "objects"

    def __init__(self) -> None:
        super().__init__()
        self.ref: list[str] = []
        self.type: list[str] = []
        self.data: list[bytes] = []

    def extend_own(self, records: list[Object]) -> None:
        """References, types and payloads."""
        self.ref += [record.ref for record in records]
        self.type += [record.type for record in records]
        self.data += [bytes(record.data) for record in records]

    def own(self) -> dict[str, pa.Array]:
        """The columns that only this table has."""
        return {"ref": strings(self.ref), "type": interned(self.type), "data": _payloads(self.data)}


def _payloads(values: list[bytes]) -> pa.Array:
    return pa.array(values, pa.binary())


Getter = Callable[[Any], Any]


class PlainColumns(Columns):
    """A rarer kind, by a list of columns: text, payloads, numbers or lists of text."""

    def __init__(
        self, table: str, columns: dict[str, tuple[Getter, Callable[[list[Any]], pa.Array]]]
    ) -> None:
        super().__init__()
        self.table = table
        self._columns = columns
        self._values: dict[str, list[Any]] = {name: [] for name in columns}

    def extend_own(self, records: list[Any]) -> None:
        """Each column of each."""
        for name, (getter, _) in self._columns.items():
            self._values[name] += map(getter, records)

    def own(self) -> dict[str, pa.Array]:
        """The columns that only this table has."""
        return {name: to_arrow(self._values[name]) for name, (_, to_arrow) in self._columns.items()}


def _text(name: str) -> tuple[Getter, Callable[[list[Any]], pa.Array]]:
    return (lambda record: getattr(record, name, None) or ""), strings


def _payload(name: str) -> tuple[Getter, Callable[[list[Any]], pa.Array]]:
    return (lambda record: bytes(getattr(record, name, b""))), _payloads


def _number(name: str) -> tuple[Getter, Callable[[list[Any]], pa.Array]]:
    return (lambda record: getattr(record, name)), (lambda values: pa.array(values, pa.float64()))


def _texts(name: str) -> tuple[Getter, Callable[[list[Any]], pa.Array]]:
    def to_arrow(values: list[list[str]]) -> pa.Array:
        ends = [0]
        for value in values:
            ends.append(ends[-1] + len(value))
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), strings([item for value in values for item in value])
        )

    return (lambda record: getattr(record, name) or []), to_arrow


def _count(name: str) -> tuple[Getter, Callable[[list[Any]], pa.Array]]:
    return (lambda record: getattr(record, name)), (lambda values: pa.array(values, pa.uint64()))


def _integers(name: str, type_: pa.DataType) -> tuple[Getter, Callable[[list[Any]], pa.Array]]:
    return (lambda record: getattr(record, name)), (lambda values: pa.array(values, pa.list_(type_)))


def _user_id(record: TraceContext) -> str:
    if isinstance(record.user, dict):
        return str(record.user.get("id") or "")
    return record.user or ""


def _user(record: TraceContext) -> bytes:
    if record.user is None:
        return b""
    try:
        return msgspec.json.encode(record.user)
    except UnicodeEncodeError:  # half a surrogate pair
        return _json_text(record.user).encode()


def _event(phase: int) -> dict[str, tuple[Getter, Callable[[list[Any]], pa.Array]]]:
    return {
        "event_id": _text("event_id"),
        "phase": ((lambda _record: phase), (lambda values: pa.array(values, pa.int8()))),
        "parent_id": _text("parent_id"),
        "event_type": _text("event_type"),
        "name": _text("name"),
        "input": _payload("input"),
        "attributes": _payload("attributes"),
        "output": _payload("output"),
        "status": _text("status"),
        "error": _text("error"),
        "usage": _payload("usage"),
    }


def _statistics() -> dict[str, tuple[Getter, Callable[[list[Any]], pa.Array]]]:
    texts = ("deployment", "instance", "subject", "name", "type", "distinct")
    counts = ("sequence", "count", "missing", "not_finite", "numbers", "matches", "uncounted")
    return {
        **{name: _text(name) for name in texts},
        **{name: _count(name) for name in counts},
        **{name: _number(name) for name in ("seconds", "mean", "m2", "mean_abs", "min", "max")},
        "bins": _integers("bins", pa.int32()),
        "bin_counts": _integers("bin_counts", pa.uint64()),
        "top": _payload("top"),
        "confusion": _payload("confusion"),
    }


_BUILDERS: dict[type[Record], Callable[[], Columns]] = {
    Text: LogColumns,
    Tags: TagColumns,
    Object: ObjectColumns,
    TraceContext: lambda: PlainColumns(
        "traces",
        {
            "name": _text("name"),
            "conversation_id": _text("conversation_id"),
            "session_id": _text("session_id"),
            "user_id": (_user_id, strings),
            "user": (_user, _payloads),
            "metadata": _payload("metadata"),
        },
    ),
    EventStart: lambda: PlainColumns("event_lines", _event(1)),
    EventEnd: lambda: PlainColumns("event_lines", _event(2)),
    Feedback: lambda: PlainColumns(
        "feedback",
        {
            "feedback_tag": _text("feedback_tag"),
            "feedback_text": _text("feedback_text"),
            "score": _number("score"),
        },
    ),
    Prediction: lambda: PlainColumns(
        "predictions",
        {
            "deployment": _text("deployment"),
            "prediction_id": _text("prediction_id"),
            "features": _payload("features"),
            "prediction": _payload("prediction"),
        },
    ),
    GroundTruth: lambda: PlainColumns(
        "ground_truths",
        {
            "deployment": _text("deployment"),
            "prediction_id": _text("prediction_id"),
            "label": _payload("label"),
            "prediction": _payload("prediction"),
            "segments": _texts("segments"),
        },
    ),
    ExceptionRecord: lambda: PlainColumns(
        "exceptions",
        {
            "deployment": _text("deployment"),
            "message": _text("message"),
            "stack_trace": _text("stack_trace"),
            "extra_info": _payload("extra_info"),
        },
    ),
    Metadata: lambda: PlainColumns(
        "metadata", {"deployment": _text("deployment"), "entries": _payload("entries")}
    ),
    Statistics: lambda: PlainColumns("statistics", _statistics()),
}


def table_of(record: Record) -> str:
    """The ClickHouse table that a record goes to, by its kind."""
    return _BUILDERS[type(record)]().table


class RecordColumns:
    """All tables of one batch."""

    def __init__(self) -> None:
        self._builders: dict[type[Record], Columns] = {}

    def extend(
        self, records: Sequence[Record], ts: list[int], trace_ts: list[int], line_hash: list[int]
    ) -> None:
        """Records, each in the table of its kind; those of a kind keep their order.

        Args:
            records: The records; the other lists hold one item for each.
            ts: Their times, in microseconds since the epoch.
            trace_ts: When their traces began, likewise.
            line_hash: xxh3-64 of their lines.
        """
        places: dict[type[Record], list[int]] = {}
        for place, kind in enumerate(map(type, records)):
            places.setdefault(kind, []).append(place)
        for kind, mine in places.items():
            builder = self._builders.get(kind)
            if builder is None:
                builder = self._builders[kind] = _BUILDERS[kind]()
            builder.extend(
                [records[place] for place in mine],
                [ts[place] for place in mine],
                [trace_ts[place] for place in mine],
                [line_hash[place] for place in mine],
            )

    def to_arrow(self) -> list[tuple[str, pa.Table]]:
        """The tables that got rows, by name. Starts and ends of events share one table, hence one insert."""
        tables: dict[str, list[pa.Table]] = {}
        for builder in self._builders.values():
            tables.setdefault(builder.table, []).append(builder.to_arrow())
        return [
            (name, parts[0] if len(parts) == 1 else joined(parts)) for name, parts in sorted(tables.items())
        ]


def joined(parts: list[pa.Table]) -> pa.Table:
    """One record batch, since ClickHouse counts every batch of an insert as a block of its own."""
    # Permissive: a text that UTF-8 cannot hold makes its column one of bytes, in that part only.
    return pa.concat_tables(parts, promote_options="permissive").unify_dictionaries().combine_chunks()
