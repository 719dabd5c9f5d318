"""A worker, a process or a thread: sources → ranges → decoded columns, told to the process that stores them.

A worker touches no database. It asks what is known of a stream, passes over what is stored, and sends the rest decoded. It is
given one job after the other until its channel closes, and ends when the other side does, however that ends.
"""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import IO, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import xxhash

from tailrace.ingestor.backfill.channel import End
from tailrace.ingestor.backfill.known import ID_PREFIX, Counts, KnownRange
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.sources import BLOCK_BYTES, Source, SourceError, opened, opened_plain, reading
from tailrace.ingestor.backfill.split import Range, Splitter
from tailrace.ingestor.decode import BatchDecoder, DeadLetter, Span
from tailrace.ingestor.memory import without_pandas
from tailrace.schemas.errors import FatalError
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef

IDENTITY_BYTES = 64 * 1024
"""A file is known by so many bytes at its start, and each range by all of its own."""
_KEPT_CODEC = "lz4"


@dataclass(frozen=True, slots=True)
class Job:
    """Something to read.

    Args:
        source: From it.
        start: Position in a plain file: ranges that begin at or after the first line there.
        end: Up to the range that holds this position; -1 for all. A plain file is read up to its size as it was found.
        settled: Whether a last line without a newline counts as complete.
    """

    source: Source
    start: int = 0
    end: int = -1
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """What is known of this stream? Answered by a list of `KnownRange`."""

    stream: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A range that is stored already.

    Args:
        known: It.
        consumed: Bytes of the source as stored that were read since the last message.
    """

    known: KnownRange
    consumed: int


class Content(NamedTuple):
    """What the lines of a range are.

    Args:
        tables: Records that are wanted.
        letters: Lines that are no records.
        span: Its place and its counts.
        filtered: How many lines the selection left out; they are in none of the counts.
    """

    tables: Sequence[tuple[str, pa.Table]]
    letters: Sequence[DeadLetter]
    span: Span
    filtered: int

    @property
    def counts(self) -> Counts:
        """All of its counts."""
        span = self.span
        return Counts(span.bytes, span.lines, span.rows, span.dead_letters, span.blank, self.filtered)


class Lines(Protocol):
    """The lines of a range, to decode them anew: asked for nearly never, when ClickHouse refuses one."""

    def chunks(self, file: FileRef, settings: BackfillSettings) -> Sequence[FileChunk]:
        """The lines as those of this file.

        Raises:
            FatalError: They are not there any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeptLines:
    """Lines of a source that can be read once only, or that is far away: packed, since they wait until their range is stored. It takes
    as long as a third of their inserts."""

    packed: bytes
    size: int

    @classmethod
    def of(cls, chunks: Sequence[FileChunk]) -> KeptLines:
        """Packs chunks of one file."""
        data = msgspec.msgpack.encode([(each.start, each.end, each.data, each.oversized) for each in chunks])
        return cls(pa.compress(data, _KEPT_CODEC, asbytes=True), len(data))

    def chunks(self, file: FileRef, settings: BackfillSettings) -> Sequence[FileChunk]:
        """See `Lines`."""
        data = pa.decompress(self.packed, self.size, _KEPT_CODEC, asbytes=True)
        found = msgspec.msgpack.decode(
            data, type=list[tuple[BytePosition, BytePosition, bytes, bytes | None]]
        )
        return [FileChunk(file, *each) for each in found]


@dataclass(frozen=True, slots=True)
class LinesInFile:
    """Lines that stand in a plain file.

    Args:
        source: The file.
        start: Where the range begins in it.
        end: And where it ends.
        digest: Of its bytes.
    """

    source: Source
    start: int
    end: int
    digest: str

    def chunks(self, file: FileRef, settings: BackfillSettings) -> Sequence[FileChunk]:
        """See `Lines`."""
        try:
            with opened_plain(self.source) as opened, reading():
                opened.seek(self.start)
                data = opened.read(self.end - self.start)
        except SourceError as exc:
            raise _gone(self.source, str(exc)) from exc
        if xxhash.xxh3_128_hexdigest(data) != self.digest:
            raise _gone(self.source, "it has changed")
        return _chunks_again(file, data, self.start, self.digest, settings)


@dataclass(frozen=True, slots=True)
class LinesInArchive:
    """Lines that stand in a file that is to be unpacked for them once more, from its start.

    Args:
        source: The file.
        path: Of the stream in it.
        start: Where the range begins in the stream.
        end: And where it ends.
        digest: Of its bytes.
    """

    source: Source
    path: str
    start: int
    end: int
    digest: str

    def chunks(self, file: FileRef, settings: BackfillSettings) -> Sequence[FileChunk]:
        """See `Lines`."""
        try:
            with opened(self.source) as unpacked:
                for stream in unpacked.streams():
                    # A tar archive may hold several members of one name.
                    if stream.path == self.path:
                        data = self._read(stream.file)
                        if xxhash.xxh3_128_hexdigest(data) == self.digest:
                            return _chunks_again(file, data, self.start, self.digest, settings)
        except SourceError as exc:
            raise _gone(self.source, str(exc)) from exc
        raise _gone(self.source, "it has changed")

    def _read(self, file: io.BufferedReader) -> bytes:
        position, found = 0, bytearray()
        for block in _blocks(file):
            found += block[max(0, self.start - position) : self.end - position]
            position += len(block)
            if position >= self.end:
                break
        return bytes(found)


def _chunks_again(
    file: FileRef, data: bytes, start: int, digest: str, settings: BackfillSettings
) -> Sequence[FileChunk]:
    """The lines of a range whose bytes were read once more."""
    end = start + len(data)
    splitter = Splitter(start, settings.range_bytes, settings.max_line_bytes, lambda _: {end: digest})
    return [
        chunk for found in (*splitter.feed(data), *splitter.finish(True)) for chunk in _chunks(file, found)
    ]


def _gone(source: Source, why: str) -> FatalError:
    return FatalError(
        f"ClickHouse refuses a line of {source.path}, which cannot be read again: {why}; start the backfill again, it goes on "
        "where it was"
    )


@dataclass(frozen=True, slots=True)
class DecodedRange:
    """A range, ready to be inserted.

    Args:
        content: What it holds.
        digest: Of its bytes.
        file: Its file.
        lines: Its lines, to decode them anew when ClickHouse rejects one.
        doubtful: Whether an earlier run may have stored some of it.
        consumed: Bytes of the source as stored that were read since the last message.
    """

    content: Content
    digest: str
    file: FileRef
    lines: Lines
    doubtful: bool
    consumed: int


@dataclass(frozen=True, slots=True)
class Done:
    """The job is done.

    Args:
        error: Why it was not read to its end; empty when it was.
        left: Bytes of a last line that is not complete yet.
        consumed: As elsewhere.
    """

    error: str = ""
    left: int = 0
    consumed: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker failed in a way that is no fault of the source.

    Args:
        error: What and where, for a bug report.
    """

    error: str


Message = Ask | Skipped | DecodedRange | Done | Broken


class Channel(Protocol):
    """A worker's way to the process that stores."""

    def send(self, message: Message) -> None:
        """Blocks until the other side takes it."""
        ...

    def recv(self) -> Sequence[KnownRange]:
        """The answer to an `Ask`."""
        ...


def serve(connection: End, settings: BackfillSettings) -> None:
    """The main function of a worker process: does jobs until the connection closes."""
    # Ctrl-C goes to the whole group; the storing process decides what is still done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pa.set_cpu_count(1)
    without_pandas()
    loop(connection, settings)


def loop(connection: End, settings: BackfillSettings) -> None:
    """Does jobs until the connection closes, on whichever side."""
    with suppress(EOFError, ConnectionError, OSError):
        while True:
            job = connection.recv()
            try:
                work(job, connection, settings)
            except (EOFError, ConnectionError):
                raise
            except Exception as exc:
                connection.send(Broken(f"{type(exc).__name__} in {job.source.path}: {exc}"))


def work(job: Job, channel: Channel, settings: BackfillSettings) -> None:
    """Does one job, and ends it with `Done`. A fault of the source ends it early, with the reason in `Done`."""
    worker = _Worker(job, channel, settings)
    error = ""
    try:
        if job.end >= 0:
            worker.section()
        else:
            worker.whole()
    except SourceError as exc:
        error = str(exc)
    channel.send(Done(error, worker.left, worker.consumed()))


def identity(head: bytes) -> str:
    """The id of the file that begins with these bytes, `IDENTITY_BYTES` of them where it has as many.

    Files that share them and differ later are told apart by the digests of their ranges.
    """
    return f"{ID_PREFIX}{xxhash.xxh3_128_hexdigest(head[:IDENTITY_BYTES])}"


def stream_name(file_id: str, scope: str) -> str:
    """What the ledger calls a file's stream. What is stored of a file under a selection is a stream of its own."""
    return f"file:{file_id}/{scope}" if scope else f"file:{file_id}"


def decode(
    chunks: Sequence[FileChunk], settings: BackfillSettings, rejected: Mapping[int, str] | None = None
) -> Content:
    """The lines of one range as they are stored; a function of its arguments.

    Args:
        chunks: Contiguous, at least one.
        settings: The limits and the selection.
        rejected: Lines, by hash, that ClickHouse refused, with the reason.
    """
    decoder = BatchDecoder(settings.max_line_bytes, rejected or {})
    for chunk in chunks:
        decoder.add_chunk(chunk)
    batch = decoder.finish()
    tables = settings.selection.apply(batch.tables)
    (span,) = batch.spans
    filtered = span.rows - sum(rows.num_rows for _, rows in tables)
    span.stream = stream_name(chunks[0].file.id, settings.scope)
    span.rows -= filtered
    span.lines -= filtered
    return Content(tables, batch.dead_letters, span, filtered)


class _Worker:
    def __init__(self, job: Job, channel: Channel, settings: BackfillSettings) -> None:
        self.left = 0
        self._job = job
        self._channel = channel
        self._settings = settings
        self._consumed: Callable[[], int] = lambda: 0
        self._told = 0
        self._known: dict[int, list[KnownRange]] = {}

    def whole(self) -> None:
        """A source from its start to its end, every stream in it."""
        with opened(self._job.source) as source:
            self._consumed = source.consumed
            for path, file in source.streams():
                blocks = _blocks(file)
                head = b""
                while len(head) < IDENTITY_BYTES and (block := next(blocks, b"")):
                    head += block
                if head:
                    self._stream(path, head, chain([head], blocks), 0, None)

    def section(self) -> None:
        """A part of a plain file: the ranges that begin in it."""
        source, end = self._job.source, self._job.end
        with opened_plain(source) as file:
            with reading():
                head = file.read(min(IDENTITY_BYTES, source.size))
                start = _line_start(file, self._job.start, source.size)
                file.seek(start)
            position, self._told = start, self._job.start

            def count(blocks: Iterator[bytes]) -> Iterator[bytes]:
                nonlocal position
                for block in blocks:
                    position += len(block)
                    yield block

            # Its last block reaches into the next section, which counts it.
            self._consumed = lambda: min(max(position, self._job.start), end)
            self._stream(source.path, head, count(_bounded(file, source.size - start)), start, end)

    def consumed(self) -> int:
        """Bytes of the source as stored that were read since this was asked last."""
        now = max(self._consumed(), self._told)
        since, self._told = now - self._told, now
        return since

    def _stream(self, path: str, head: bytes, blocks: Iterator[bytes], start: int, end: int | None) -> None:
        """Ranges of one stream that begin in `[start, end)`; `start` is where a line begins."""
        file = FileRef(identity(head), path)
        self._ask(file.id)
        splitter = Splitter(start, self._settings.range_bytes, self._settings.max_line_bytes, self._ends)

        def is_ours(position: int) -> bool:
            return end is None or position < end

        intact = False
        try:
            while is_ours(splitter.start) and (block := next(blocks, b"")):
                for found in splitter.feed(block):
                    if is_ours(found.start):
                        self._range(file, found)
            intact = True
        finally:
            # What could be read of a damaged source is stored up to its last whole line.
            if is_ours(splitter.start):
                whole = intact and self._job.settled
                self.left += 0 if whole else splitter.unfinished
                for found in splitter.finish(whole):
                    self._range(file, found)

    def _ask(self, file_id: str) -> None:
        self._channel.send(Ask(stream_name(file_id, self._settings.scope)))
        self._known = {}
        for known in self._channel.recv():
            self._known.setdefault(known.start, []).append(known)

    def _ends(self, start: int) -> Mapping[int, str]:
        return {known.end: known.digest for known in self._known.get(start, ())}

    def _range(self, file: FileRef, found: Range) -> None:
        same = [
            known
            for known in self._known.get(found.start, ())
            if (known.end, known.digest) == (found.end, found.digest)
        ]
        for known in same:
            if known.stored:
                self._channel.send(Skipped(known, self.consumed()))
                return
        chunks = _chunks(file, found)
        content = decode(chunks, self._settings)
        lines: Lines
        source = self._job.source
        if self._job.end >= 0:
            lines = LinesInFile(source, found.start, found.end, found.digest)
        elif source.can_be_read_again:
            lines = LinesInArchive(source, file.path, found.start, found.end, found.digest)
        else:
            lines = KeptLines.of(chunks)
        self._channel.send(DecodedRange(content, found.digest, file, lines, bool(same), self.consumed()))


def _chunks(file: FileRef, found: Range) -> tuple[FileChunk, ...]:
    return tuple(
        FileChunk(file, BytePosition(piece.start), BytePosition(piece.end), piece.data, piece.oversized)
        for piece in found.pieces
    )


def _blocks(file: io.BufferedReader) -> Iterator[bytes]:
    """What a file holds. In pieces as its decoder gives them, so that nothing before a damage is lost with it."""
    while True:
        with reading():
            block = file.read1(BLOCK_BYTES)
        if not block:
            return
        yield block


def _bounded(file: IO[bytes], size: int) -> Iterator[bytes]:
    """As many bytes; what was appended since the file was found is for another run."""
    while size > 0:
        with reading():
            block = file.read(min(BLOCK_BYTES, size))
        if not block:
            raise SourceError("it became shorter while it was read")
        size -= len(block)
        yield block


def _line_start(file: IO[bytes], position: int, size: int) -> int:
    """The first line start at or after a position."""
    if position == 0:
        return 0
    position -= 1
    file.seek(position)
    while position < size:
        block = file.read(BLOCK_BYTES)
        found = block.find(b"\n")
        if found >= 0:
            return position + found + 1
        if not block:
            break
        position += len(block)
    return size
