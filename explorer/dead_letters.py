"""Dead letters: lines that could not become records, and what became of them since.

A letter is named by an id, 16 hexadecimal digits made of its origin and its bytes; the beginning is enough where it is
unique. Its state is `open`, or `replayed` once it was stored after all; its reason is that of the latest attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from tailrace.explorer.period import EVER, Period
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.texts import to_text
from tailrace.schemas.errors import ConfigError, NotFound

State = Literal["open", "replayed", "all"]

_ORIGIN = "if(source = 'kafka', concat(topic, '/', toString(partition)), if(empty(file), file_id, file))"
_PROJECT = """extract(raw, '"project_id"\\\\s*:\\\\s*"((?:[^"\\\\\\\\]|\\\\\\\\.)*)"')"""
_COLUMNS = (
    "id, received_at, reason, detail, column, source, topic, partition, offset, item, file_id, file, byte, length, "
    "state, attempts, replayed_at, table, project_id, trace_id"
)
_RAWS_AT_ONCE = 200
_SHORTEST_PREFIX = 4


class LetterFilter(Struct, frozen=True):
    """Which letters are meant; everything that is given must hold.

    Args:
        reasons: One of these (`not_json`, …); any when empty.
        origin: Text that the origin holds: a path, a topic, `topic/partition`, or a file's id.
        project: The `project_id` that stands in the raw bytes. They are no record, so this is searched for as text,
            and what holds none or spells it oddly is left out.
        period: When they were received.
        state: Those that are still open, those that were replayed, or all.
    """

    reasons: tuple[str, ...] = ()
    origin: str | None = None
    project: str | None = None
    period: Period = EVER
    state: State = "open"

    def condition(self, parameters: Parameters) -> str:
        """As SQL over `dead_letter_states`."""
        parts = []
        if self.state != "all":
            parts.append(f"state = {parameters.add(self.state, 'String')}")
        if self.reasons:
            parts.append(f"reason IN {parameters.add(list(self.reasons), 'Array(String)')}")
        if self.origin is not None:
            sought = parameters.add(self.origin, "String")
            parts.append(f"(position({_ORIGIN}, {sought}) > 0 OR file_id = {sought})")
        if self.project is not None:
            parts.append(f"{_PROJECT} = {parameters.add(self.project, 'String')}")
        for bound, sign in ((self.period.since, ">="), (self.period.until, "<")):
            if bound is not None:
                moment = parameters.add(bound, "Int64")
                parts.append(f"received_at {sign} fromUnixTimestamp64Micro({moment}, 'UTC')")
        return " AND ".join(parts) or "1"


class LetterGroup(Struct, frozen=True):
    """The letters of one reason and origin.

    Args:
        reason: Why they are no records, by the latest attempt.
        origin: A path, or `topic/partition`.
        letters: How many.
        bytes: Of their lines.
        first: When the first was received.
        last: When the latest was.
        latest: The id of that one.
        detail: What is wrong with it.
    """

    reason: str
    origin: str
    letters: int
    bytes: int
    first: datetime
    last: datetime
    latest: str
    detail: str


class Letter(Struct, frozen=True):
    """One dead letter without its bytes.

    Args:
        id: 16 hexadecimal digits.
        received_at: When it was first refused.
        reason: Of the latest attempt.
        detail: Likewise, one sentence.
        column: Byte in the line where the fault was noticed; `None` when it has no place.
        source: `kafka` or `file`.
        topic: '' when it did not come through Kafka.
        partition: -1 likewise.
        offset: -1 likewise.
        item: Which line of a message that holds several, from 0.
        file_id: The shipper's name for the file; '' when unknown.
        file: Its path; '' when unknown.
        byte: Position of the line in it; -1 when unknown.
        length: Bytes of the whole line, of which only the head may be kept.
        state: `open` or `replayed`.
        attempts: How often it was replayed.
        replayed_at: When it was stored; `None` while it is open.
        table: Where it is stored; '' while it is open.
        project_id: Of the record that it became.
        trace_id: Likewise.
    """

    id: str
    received_at: datetime
    reason: str
    detail: str
    column: int | None
    source: str
    topic: str
    partition: int
    offset: int
    item: int
    file_id: str
    file: str
    byte: int
    length: int
    state: str
    attempts: int
    replayed_at: datetime | None
    table: str
    project_id: str
    trace_id: str

    @property
    def origin(self) -> str:
        """Where the line stands: `path:byte`, or `topic/partition@offset`."""
        if self.source == "kafka":
            item = f"#{self.item}" if self.item else ""
            return f"{self.topic}/{self.partition}@{self.offset}{item}"
        return f"{self.file or self.file_id}:{self.byte}"


class DeadLetters:
    """Reads the dead letters of a migrated database.

    Args:
        client: A clickhouse-connect client; not closed here.
    """

    def __init__(self, client: Any) -> None:
        self._reader = Reader(client)

    def groups(self, wanted: LetterFilter, limit: int = 50) -> tuple[LetterGroup, ...]:
        """By reason and origin, the group with the latest letter first."""
        parameters = Parameters()
        rows = self._reader.rows(
            f"SELECT reason, {_ORIGIN} AS origin, count(), sum(length), min(received_at), max(received_at) AS last, "  # noqa: S608
            "argMax(id, (received_at, id)), argMax(detail, (received_at, id)) FROM dead_letter_states "
            f"WHERE {wanted.condition(parameters)} GROUP BY reason, origin ORDER BY last DESC, reason, origin "
            f"LIMIT {parameters.add(limit, 'UInt32')}",
            parameters,
        )
        return tuple(
            LetterGroup(
                _text(reason),
                _text(origin),
                count,
                size,
                _utc(first),
                _utc(last),
                letter_id(latest),
                _text(detail),
            )
            for reason, origin, count, size, first, last, latest, detail in rows
        )

    def count(self, wanted: LetterFilter) -> int:
        """How many there are."""
        parameters = Parameters()
        sql = f"SELECT count() FROM dead_letter_states WHERE {wanted.condition(parameters)}"  # noqa: S608
        return int(self._reader.rows(sql, parameters)[0][0])

    def letters(self, wanted: LetterFilter, limit: int | None = None) -> tuple[Letter, ...]:
        """One by one, the latest first."""
        parameters = Parameters()
        sql = f"SELECT {_COLUMNS} FROM dead_letter_states WHERE {wanted.condition(parameters)} "  # noqa: S608
        sql += "ORDER BY received_at DESC, id"
        if limit is not None:
            sql += f" LIMIT {parameters.add(limit, 'UInt32')}"
        return tuple(_letter(row) for row in self._reader.rows(sql, parameters))

    def find(self, prefix: str) -> tuple[Letter, bytes]:
        """One letter and its bytes.

        Args:
            prefix: Its id, or the beginning of it.

        Raises:
            ConfigError: It is no id, or several letters begin so.
            NotFound: There is no such letter.
        """
        digits = prefix.strip().lower()
        if not _SHORTEST_PREFIX <= len(digits) <= 16 or set(digits) - set("0123456789abcdef"):
            raise ConfigError(
                f"{prefix!r:.40} is no letter's id: 4 to 16 hexadecimal digits, as `list` shows them"
            )
        parameters = Parameters()
        low = parameters.add(int(digits.ljust(16, "0"), 16), "UInt64")
        high = parameters.add(int(digits.ljust(16, "f"), 16), "UInt64")
        rows = self._reader.rows(
            f"SELECT {_COLUMNS}, raw FROM dead_letter_states WHERE id BETWEEN {low} AND {high} LIMIT 2",  # noqa: S608
            parameters,
        )
        if not rows:
            raise NotFound(f"there is no dead letter {digits}; `tailrace dead-letters list` shows them")
        if len(rows) > 1:
            raise ConfigError(f"several dead letters begin with {digits}: give more digits")
        return _letter(rows[0][:-1]), rows[0][-1]

    def attempted(self, letter: Letter) -> bytes | None:
        """The line of the latest attempt to replay it, which an edit may have changed; `None` when there was none.

        The reason and the column of a letter that was refused again speak of this line.
        """
        parameters = Parameters()
        number = parameters.add(int(letter.id, 16), "UInt64")
        rows = self._reader.rows(
            f"SELECT line FROM dead_letter_replays WHERE letter = {number} AND state = 'announced' "  # noqa: S608
            "ORDER BY at DESC LIMIT 1",
            parameters,
        )
        return bytes(rows[0][0]) if rows else None

    def raws(self, letters: Sequence[Letter]) -> Iterator[tuple[Letter, bytes]]:
        """The letters with their bytes, a few hundred in memory at a time, in the order of their origins."""
        ordered = sorted(
            letters, key=lambda x: (x.source, x.topic, x.partition, x.offset, x.file_id, x.byte, x.item)
        )
        for start in range(0, len(ordered), _RAWS_AT_ONCE):
            part = ordered[start : start + _RAWS_AT_ONCE]
            parameters = Parameters()
            ids = parameters.add([int(letter.id, 16) for letter in part], "Array(UInt64)")
            # The bounds are of the table's sort key, so that only these granules are read.
            offsets, bytes_ = [x.offset for x in part], [x.byte for x in part]
            sql = (
                f"SELECT id, any(raw) FROM dead_letters WHERE id IN {ids} "  # noqa: S608
                f"AND topic IN {parameters.add(sorted({x.topic for x in part}), 'Array(String)')} "
                f"AND offset BETWEEN {parameters.add(min(offsets), 'Int64')} AND {parameters.add(max(offsets), 'Int64')} "
                f"AND byte BETWEEN {parameters.add(min(bytes_), 'Int64')} AND {parameters.add(max(bytes_), 'Int64')} "
                "GROUP BY id"
            )
            raw = {letter_id(number): data for number, data in self._reader.rows(sql, parameters)}
            for letter in part:
                if letter.id in raw:
                    yield letter, raw[letter.id]


def letter_id(number: int) -> str:
    """As people type it."""
    return f"{number:016x}"


def _text(value: bytes | str) -> str:
    return to_text(value) if isinstance(value, bytes) else value


def _utc(moment: datetime) -> datetime:
    """The driver gives times of zone UTC without a zone."""
    return moment.replace(tzinfo=UTC)


def _letter(row: Sequence[Any]) -> Letter:
    (
        number,
        received_at,
        reason,
        detail,
        column,
        *origin,
        state,
        attempts,
        replayed_at,
        table,
        project,
        trace,
    ) = row
    source, topic, partition, offset, item, file_id, file, byte, length = origin
    return Letter(
        letter_id(number),
        _utc(received_at),
        _text(reason),
        _text(detail),
        column if column >= 0 else None,
        _text(source),
        _text(topic),
        partition,
        offset,
        item,
        _text(file_id),
        _text(file),
        byte,
        length,
        _text(state),
        attempts,
        _utc(replayed_at) if _text(state) == "replayed" else None,
        _text(table),
        _text(project),
        _text(trace),
    )
