"""Messages or file chunks → records in columns, or dead letters. Nothing is dropped: lines = rows + dead letters + blank.

The same bytes in the same order give the same batch, which is what makes inserting a range again harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
import pyarrow as pa
import xxhash

from tailrace.ingestor import compiled
from tailrace.ingestor.arrow import INSTANT, few_numbers, few_payloads, few_texts
from tailrace.ingestor.columns import RecordColumns, joined
from tailrace.ingestor.compiled import CompiledColumns, Refused
from tailrace.schemas.dialects.recognise import LineDecoder
from tailrace.schemas.errors import Reason, RecordError
from tailrace.schemas.records import Record
from tailrace.schemas.streams import FileChunk
from tailrace.schemas.timestamps import TimestampParser, trace_start

log = logging.getLogger("tailrace.ingestor")

HEAD_BYTES = 64 * 1024
"""How much of a line over the limit is kept with its dead letter."""
_TOGETHER_BYTES = 64 * 1024
"""Lines that are decoded in one call, and one by one where one of them is no record: few enough to stay in the caches, and to
leave the garbage collector nothing to walk through."""
OVERSIZED_HEADER = "tailrace-oversized"
"""Header of a Kafka message that holds only the head of its line; its value is the whole length in digits."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a line came from. What is not known is -1 or empty."""

    source: Literal["kafka", "file"]
    topic: str = ""
    partition: int = -1
    offset: int = -1
    item: int = 0
    file_id: str = ""
    file: str = ""
    byte: int = -1


class DeadLetter(msgspec.Struct, frozen=True):
    """A line that cannot become a record.

    Args:
        origin: Where it came from.
        raw: Its bytes, or their head when it was longer than the limit.
        length: Bytes of the whole line.
        reason: The class of fault.
        detail: One sentence.
        column: Byte in the line, or -1.
    """

    origin: Origin
    raw: bytes
    length: int
    reason: Reason
    detail: str
    column: int


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message: a line, or several.

    Args:
        offset: Its offset.
        value: `None` for a tombstone.
        key: `<file id>@<byte>` when our shipper wrote it.
        oversized: Length of the whole line when `value` is only its head, else 0.
        trace: Names the shipper's span, where it has one.
    """

    offset: int
    value: bytes | None
    key: bytes | None = None
    oversized: int = 0
    trace: bytes = b""


@dataclass(slots=True)
class Span:
    """What one range of one stream held; becomes a row of the ledger.

    Args:
        stream: `<topic>/<partition>`, or `file:<file id>`.
        start: First offset or byte.
        end: The one after the last.
        path: Where the file was seen last; empty for a partition.
        lines: All lines: rows + dead letters + blank.
        rows: Lines that became records.
        dead_letters: Lines that became none.
        blank: Lines with nothing in them.
        bytes: Of all lines.
    """

    stream: str
    start: int
    end: int
    path: str = ""
    lines: int = 0
    rows: int = 0
    dead_letters: int = 0
    blank: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Everything that is inserted for some ranges.

    Args:
        tables: Record tables by name, each a single Arrow record batch, in the order of insertion.
        dead_letters: Lines that became none.
        spans: What each range held.
        without: Decodes the same lines again, but makes dead letters of those that ClickHouse rejected, given by
            hash with the reason.
    """

    tables: Sequence[tuple[str, pa.Table]]
    dead_letters: Sequence[DeadLetter]
    spans: Sequence[Span]
    without: Callable[[Mapping[int, str]], DecodedBatch]

    @property
    def lines(self) -> int:
        """How many lines there were, blank ones included."""
        return sum(span.lines for span in self.spans)

    @property
    def rows(self) -> int:
        """How many became records."""
        return sum(span.rows for span in self.spans)

    @property
    def bytes(self) -> int:
        """Bytes of all lines."""
        return sum(span.bytes for span in self.spans)


class ReadLine(NamedTuple):
    """A valid line.

    Args:
        record: What it says.
        content: The bytes that identify it: without envelope and line ending.
        dialect: How it was written.
        ts: Its time, in microseconds since the epoch.
        trace_ts: When its trace began, likewise.
    """

    record: Record
    content: bytes
    dialect: str
    ts: int
    trace_ts: int


class ReadLines(NamedTuple):
    """Valid lines; each list holds one item a line.

    Args:
        records: What they say.
        contents: As of `ReadLine`.
        ts: As of `ReadLine`.
        trace_ts: As of `ReadLine`.
    """

    records: list[Record]
    contents: list[bytes]
    ts: list[int]
    trace_ts: list[int]


class LineReader:
    """Everything that makes a line valid, in one place: what `tailrace check` accepts is what is ingested.

    Args:
        max_line_bytes: A longer line is refused.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._lines = LineDecoder()
        self._times = TimestampParser()

    def read(self, line: bytes) -> ReadLine:
        """The record of one line.

        Args:
            line: Without its line feed; not blank.

        Raises:
            RecordError: It holds none.
        """
        if len(line) > self._max_line_bytes:
            raise too_long(len(line), self._max_line_bytes)
        try:
            record, content, dialect = self._lines.decode(line)
            ts = self._times.parse(record.ts)
            return ReadLine(record, content, dialect, ts, self._trace_ts(record, ts))
        except RecordError:
            raise
        except Exception as exc:
            raise _fault(exc) from exc

    def read_all(self, block: bytes) -> ReadLines | None:
        """The same of many lines at once, or `None` where they have to be read one by one.

        Args:
            block: Lines with a line feed between them; the last one may have one.
        """
        parse = self._times.parse
        try:
            found = self._lines.decode_all(block)
            if found is None:
                return None
            records, contents = found
            if len(block) > self._max_line_bytes and max(map(len, contents)) > self._max_line_bytes:
                return None
            ts = [parse(record.ts) for record in records]
            trace_ts = list(map(self._trace_ts, records, ts))
        except Exception:  # read one by one, the line at fault says so itself
            return None
        return ReadLines(records, contents, ts, trace_ts)

    def _trace_ts(self, record: Record, ts: int) -> int:
        began = trace_start(record.trace_id, ts)
        if began is None:
            began = ts if record.trace_ts is None else self._times.parse(record.trace_ts)
        return began


@dataclass(slots=True)
class BatchDecoder:
    """Gathers one batch. Pure: no clock, no IO.

    A line that this program fails on, of which nobody knows yet, is a dead letter too: it must not hold up all lines behind it.

    Args:
        max_line_bytes: A longer line is a dead letter, kept by its head.
        rejected: Lines, by hash, that ClickHouse refused, with the reason: they become dead letters.
        careful: Whether each line is made into columns by itself first, to find one on which that fails.
    """

    max_line_bytes: int
    rejected: Mapping[int, str] = field(default_factory=dict)
    careful: bool = False
    _fault: Exception | None = field(default=None, init=False)
    _reader: LineReader = field(init=False)
    _columns: RecordColumns = field(default_factory=RecordColumns)
    _compiled: CompiledColumns | None = field(default=None, init=False)
    _dead: list[DeadLetter] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _inputs: list[Callable[[BatchDecoder], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = LineReader(self.max_line_bytes)
        if compiled.is_available() and not self.rejected and not self.careful:
            self._compiled = CompiledColumns(self.max_line_bytes)

    def add_chunk(self, chunk: FileChunk) -> None:
        """The lines of a chunk of a file."""
        self._add(lambda decoder: decoder._chunk(chunk))

    def add_messages(
        self, topic: str, partition: int, start: int, end: int, messages: Sequence[Message]
    ) -> None:
        """The messages of `[start, end)` of a partition; offsets may be missing between them (transaction markers)."""
        self._add(lambda decoder: decoder._messages(topic, partition, start, end, messages))

    def finish(self) -> DecodedBatch:
        """The batch. The decoder is spent."""
        if self._fault is None:
            try:
                return DecodedBatch(self._tables(), self._dead, self._spans, self._again)
            except Exception as exc:
                self._fault = exc
        if self.careful:
            raise self._fault
        log.error("the lines of a batch are looked at one by one, since this failed:", exc_info=self._fault)
        return self._again(self.rejected, careful=True)

    def _tables(self) -> list[tuple[str, pa.Table]]:
        """All rows: in each table first those that compiled code made."""
        tables = {} if self._compiled is None else self._compiled.to_arrow()
        for name, table in self._columns.to_arrow():
            tables[name] = joined([tables[name], table]) if name in tables else table
        return sorted(tables.items())

    def _add(self, add: Callable[[BatchDecoder], None]) -> None:
        self._inputs.append(add)
        if self._fault is None:
            try:
                add(self)
            except Exception as exc:
                self._fault = exc

    def _again(self, rejected: Mapping[int, str], careful: bool = False) -> DecodedBatch:
        decoder = BatchDecoder(self.max_line_bytes, rejected, careful or self.careful)
        for add in self._inputs:
            decoder._add(add)
        return decoder.finish()

    def _chunk(self, chunk: FileChunk) -> None:
        span = self._span(f"file:{chunk.file.id}", chunk.start, chunk.end, chunk.file.path)
        origin = Origin("file", file_id=chunk.file.id, file=chunk.file.path, byte=chunk.start)
        if chunk.oversized is not None:
            self._add_oversized(chunk.oversized, chunk.end - chunk.start, origin, span)
        else:
            self._add_lines(chunk.data, origin, span)

    def _messages(
        self, topic: str, partition: int, start: int, end: int, messages: Sequence[Message]
    ) -> None:
        span = self._span(f"{topic}/{partition}", start, end)
        for message in messages:
            value = message.value or b""
            if message.oversized:
                origin = _kafka_origin(topic, partition, message)
                self._add_oversized(value, message.oversized, origin, span)
            elif not value:
                span.lines += 1
                span.blank += 1
            else:
                self._add_lines(value, _kafka_origin(topic, partition, message), span)

    def _span(self, stream: str, start: int, end: int, path: str = "") -> Span:
        """Where to count the lines of a range; one that goes on from the last of the same stream extends it."""
        last = self._spans[-1] if self._spans else None
        if last is not None and last.stream == stream and last.end == start:
            last.end = end
            return last
        span = Span(stream, start, end, path)
        self._spans.append(span)
        return span

    def _add_lines(self, data: bytes, origin: Origin, span: Span) -> None:
        """Lines that lie one after the other; `origin` is that of the first."""
        span.bytes += len(data)
        if self._compiled is None:
            self._add_part(data, 0, len(data), 0, origin, span)
            return
        lines, rows, refused = self._compiled.add(data)
        span.lines += lines - len(refused)
        span.rows += rows
        for first, last in _runs(refused):
            self._add_part(data, first.start, min(last.end + 1, len(data)), first.number, origin, span)

    def _add_part(self, data: bytes, start: int, stop: int, item: int, origin: Origin, span: Span) -> None:
        """The lines of `data[start:stop]`, of which the first is the `item`-th, in Python."""
        while start < stop:
            end = (
                data.rfind(b"\n", start, min(start + _TOGETHER_BYTES, stop)) + 1
                or data.find(b"\n", start, stop) + 1
                or stop
            )
            block = data if end - start == len(data) else data[start:end]
            lines = self._add_together(block, span)
            if not lines:
                lines = self._add_one_by_one(block, origin, start, item, span)
            start, item = end, item + lines

    def _add_together(self, block: bytes, span: Span) -> int:
        """How many lines these are, when all of them became records; 0 when nothing was done."""
        found = None if self.rejected or self.careful else self._reader.read_all(block)
        if found is None:
            return 0
        hashes = list(map(xxhash.xxh3_64_intdigest, found.contents))
        self._columns.extend(found.records, found.ts, found.trace_ts, hashes)
        span.lines += len(hashes)
        span.rows += len(hashes)
        return len(hashes)

    def _add_one_by_one(self, block: bytes, origin: Origin, start: int, item: int, span: Span) -> int:
        """Lines of which some may be no records; how many they are. The first is the `item`-th, and begins at `start`."""
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        span.lines += len(lines)
        position = start
        for number, line in enumerate(lines, item):
            fault = self._try_line(line, span)
            if fault is not None:
                byte = origin.byte + position if origin.byte >= 0 else -1
                place = number if origin.source == "kafka" else 0
                self._bury(
                    line, len(line), fault, msgspec.structs.replace(origin, byte=byte, item=place), span
                )
            position += len(line) + 1
        return len(lines)

    def _try_line(self, line: bytes, span: Span) -> RecordError | None:
        """Appends the line's record; hands back what is wrong with it when it has none."""
        if not line or line.isspace():
            span.blank += 1
            return None
        try:
            record, content, _, ts, trace_ts = self._reader.read(line)
        except RecordError as error:
            return error
        line_hash = xxhash.xxh3_64_intdigest(content)
        if line_hash in self.rejected:
            return RecordError(Reason.REJECTED, self.rejected[line_hash])
        found = ([record], [ts], [trace_ts], [line_hash])
        if self.careful:
            try:
                alone = RecordColumns()
                alone.extend(*found)
                alone.to_arrow()
            except Exception as exc:
                return _fault(exc)
        self._columns.extend(*found)
        span.rows += 1
        return None

    def _add_oversized(self, head: bytes, length: int, origin: Origin, span: Span) -> None:
        span.lines += 1
        span.bytes += length
        self._bury(head, length, too_long(length, self.max_line_bytes), origin, span)

    def _bury(self, line: bytes, length: int, fault: RecordError, origin: Origin, span: Span) -> None:
        span.dead_letters += 1
        raw = line if length <= self.max_line_bytes else line[:HEAD_BYTES]
        column = -1 if fault.column is None else fault.column
        self._dead.append(DeadLetter(origin, raw, length, fault.reason, fault.detail, column))


def _runs(lines: Sequence[Refused]) -> Iterator[tuple[Refused, Refused]]:
    """Lines that follow on one another: the first and the last of each run."""
    first = last = None
    for line in lines:
        if first is None or last is None or line.number != last.number + 1:
            if first is not None and last is not None:
                yield first, last
            first = line
        last = line
    if first is not None and last is not None:
        yield first, last


def too_long(length: int, limit: int) -> RecordError:
    """The fault of a line over the limit."""
    return RecordError(Reason.TOO_LONG, f"the line has {length} bytes, the limit is {limit}")


def _fault(exc: Exception) -> RecordError:
    what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return RecordError(Reason.FAULT, f"this program fails on the line; please report it. {what:.300}")


def _kafka_origin(topic: str, partition: int, message: Message) -> Origin:
    file_id, byte = file_origin(message.key)
    return Origin("kafka", topic, partition, message.offset, file_id=file_id, byte=byte)


def file_origin(key: bytes | None) -> tuple[str, int]:
    """What our shipper writes as a message's key; other producers' keys say nothing of a file."""
    file_id, separator, byte = (key or b"").decode("utf-8", "replace").rpartition("@")
    if separator and byte.isascii() and byte.isdigit():
        return file_id, int(byte)
    return "", -1


def dead_letter_table(letters: Sequence[DeadLetter], received_at: int) -> pa.Table:
    """Dead letters as columns.

    Args:
        letters: At least one.
        received_at: Microseconds since the epoch.
    """
    origins = [letter.origin for letter in letters]
    return pa.table(
        {
            "received_at": few_numbers(INSTANT, [received_at] * len(letters)),
            "reason": few_texts([letter.reason.value for letter in letters]),
            "detail": few_texts([letter.detail for letter in letters]),
            "column": few_numbers(pa.int64(), [letter.column for letter in letters]),
            "source": few_numbers(pa.int8(), [1 if origin.source == "kafka" else 2 for origin in origins]),
            "topic": few_texts([origin.topic for origin in origins]),
            "partition": few_numbers(pa.int32(), [origin.partition for origin in origins]),
            "offset": few_numbers(pa.int64(), [origin.offset for origin in origins]),
            "item": few_numbers(pa.uint32(), [origin.item for origin in origins]),
            "file_id": few_texts([origin.file_id for origin in origins]),
            "file": few_texts([origin.file for origin in origins]),
            "byte": few_numbers(pa.int64(), [origin.byte for origin in origins]),
            "length": few_numbers(pa.uint64(), [letter.length for letter in letters]),
            "raw": few_payloads([letter.raw for letter in letters]),
        }
    )


def ledger_table(spans: Sequence[Span], token: str) -> pa.Table:
    """What the ranges held, as rows of the ledger."""
    fields = ("start", "end", "lines", "rows", "dead_letters", "blank", "bytes")
    return pa.table(
        {
            "stream": few_texts([span.stream for span in spans]),
            "token": few_texts([token] * len(spans)),
            "path": few_texts([span.path for span in spans]),
            **{name: few_numbers(pa.uint64(), [getattr(span, name) for span in spans]) for name in fields},
        }
    )
