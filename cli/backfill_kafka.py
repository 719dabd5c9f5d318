"""`tailrace backfill --kafka`: files that lie around → Kafka, lines and progress in one transaction, as `tailrace ship` does it.

Reading is the backfill's (compressed files, archives, URLs; known by what they hold), delivery is the shipper's: progress is a record
for each file in the checkpoint topic, under a shipper id of its own. A source that was read to its end has one too, and is not
opened again while it is as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

import msgspec
import typer

from tailrace.cli.environment import environment
from tailrace.cli.options import ReportFormat
from tailrace.cli.progress import rate, size
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.sources import (
    BLOCK_BYTES,
    Source,
    SourceError,
    find,
    is_plain,
    opened,
    reading,
)
from tailrace.ingestor.backfill.split import Range, Splitter
from tailrace.ingestor.backfill.work import IDENTITY_BYTES, identity
from tailrace.schemas.streams import BytePosition, FileChunk, FileRange, FileRef
from tailrace.shipper.identity import EDGE_BYTES, FileState, Fingerprint
from tailrace.shipper.settings import KafkaSettings
from tailrace.shipper.tail import Step
from tailrace.shipper.transact import TransactionalDelivery

if TYPE_CHECKING:
    from tailrace.shipper.checkpoint import Progress

_REPORT_SECONDS = 10.0


@dataclass
class ShipReport:
    """What was shipped.

    Args:
        files: Sources.
        finished_before: How many of them did not have to be opened.
        lines: Delivered, blank ones included.
        bytes: Of them.
        there_bytes: Delivered by an earlier run, or under another name.
        errors: Sources that could not be read to their end, with the reason.
        left_bytes: By source, the bytes of a last line that is not complete yet.
    """

    files: int = 0
    finished_before: int = 0
    lines: int = 0
    bytes: int = 0
    there_bytes: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    left_bytes: dict[str, int] = field(default_factory=dict)


def into_kafka(settings: BackfillSettings, brokers: str, topic: str, format: ReportFormat) -> None:
    """Ships everything that the paths name, prints the report, and exits with 1 when something could not be read.

    Raises:
        Fenced: Another backfill from this host into this topic took over.
    """
    from tailrace.schemas.kafka import KafkaConnection

    began = time.monotonic()
    connection = KafkaConnection.from_environ(brokers, environment())
    shipper_id = f"backfill-{socket.gethostname()}-{topic}"[:200]
    delivery = TransactionalDelivery(KafkaSettings(connection, topic), shipper_id, settings.max_line_bytes)
    shipping = _Shipping(settings, delivery)
    asyncio.run(shipping.run())
    report, seconds = shipping.report, time.monotonic() - began
    if format is ReportFormat.json:
        typer.echo(
            msgspec.json.encode({**msgspec.to_builtins(report), "seconds": round(seconds, 3)}).decode()
        )
    elif report.files and report.finished_before == report.files and not report.errors:
        typer.echo(f"nothing to do: all {report.files} files were shipped before")
    else:
        typer.echo(
            f"{report.files} files: {report.lines:,} lines, {size(report.bytes)} to {topic} in {seconds:.1f} s "
            f"({rate(report.lines, seconds)}); {size(report.there_bytes)} were there already"
        )
        for path, left in report.left_bytes.items():
            typer.echo(
                f"  {path}: the last line is not complete yet, {left:,} bytes are left for another run"
            )
        for path, error in report.errors.items():
            typer.echo(f"  not read, or not to the end: {path}: {error}")
    if report.errors:
        raise typer.Exit(1)


class _OtherFile(Exception):
    """The file begins like one that was shipped, and is another."""


class _Shipping:
    def __init__(self, settings: BackfillSettings, delivery: TransactionalDelivery) -> None:
        self.report = ShipReport()
        self._settings = settings
        self._delivery = delivery
        self._files: dict[str, FileState] = {}
        self._said = time.monotonic()

    async def run(self) -> None:
        """One source after the other; reading and encoding happen in a thread."""
        found = await asyncio.to_thread(find, self._settings.paths)
        self.report.files = len(found.sources)
        self.report.errors.update(found.unreadable)
        progress: Progress = await self._delivery.load()
        self._files = dict(progress.files)
        try:
            for source in found.sources:
                await self._source(source)
        finally:
            await self._delivery.close()

    async def _source(self, source: Source) -> None:
        done = _source_state(source)
        if done is not None and done.id in self._files:
            self.report.finished_before += 1
            self.report.there_bytes += source.size
            return
        try:
            await self._streams(source, set())
        except SourceError as exc:
            self.report.errors[source.path] = str(exc)
            return
        if done is not None and source.path not in self.report.left_bytes:
            await self._deliver(None, Step((), (done,)))

    async def _streams(self, source: Source, others: set[str]) -> None:
        """Every stream of a source. Those in `others` only begin like one that was shipped before."""
        settled = (
            not is_plain(source) or time.time() - source.modified / 1e9 >= self._settings.settled_seconds
        )
        with opened(source) as stored:
            try:
                for path, file in stored.streams():
                    await self._stream(source, path, file, path in others, settled)
                return
            except _OtherFile as other:
                others = {*others, str(other)}
        if source.is_stdin:
            raise SourceError(
                "it begins like a file that was shipped and goes on differently; ship it from a file"
            )
        await self._streams(source, others)

    async def _stream(self, source: Source, path: str, file: IO[bytes], other: bool, settled: bool) -> None:
        with reading():
            head = await asyncio.to_thread(file.read, IDENTITY_BYTES)
        if not head:
            return
        file_id = identity(head)
        if other:
            file_id += f"-{hashlib.blake2b(path.encode(), digest_size=8).hexdigest()}"
        blocks: Iterator[bytes] = chain([head], _blocks(file))
        known, position = self._files.get(file_id), 0
        if known is not None:
            blocks = await asyncio.to_thread(_skip, blocks, known, path)
            position = known.position
            self.report.there_bytes += position
        splitter = Splitter(position, self._settings.range_bytes, self._settings.max_line_bytes, lambda _: {})
        reference = FileRef(file_id, path)
        first = Fingerprint.of(head[:EDGE_BYTES])
        try:
            while block := await asyncio.to_thread(next, blocks, b""):
                for found in splitter.feed(block):
                    await self._range(source, reference, first, found)
        finally:
            # What could be read of a damaged source is shipped up to its last whole line.
            whole = settled and sys.exc_info()[0] is None
            if not whole and splitter.unfinished:
                self.report.left_bytes[path] = splitter.unfinished
            for found in splitter.finish(whole):
                await self._range(source, reference, first, found)

    async def _range(self, source: Source, file: FileRef, first: Fingerprint, found: Range) -> None:
        chunks = [
            FileChunk(file, BytePosition(piece.start), BytePosition(piece.end), piece.data, piece.oversized)
            for piece in found.pieces
        ]
        last = Fingerprint(0, "")
        if chunks[-1].oversized is None:
            last = Fingerprint.of(chunks[-1].data[-EDGE_BYTES:])
        head = first if found.end >= first.length else Fingerprint(0, "")
        state = FileState(file.id, file.path, 0, source.inode, found.end, head, last, time.time())
        messages = await asyncio.to_thread(self._delivery.prepare, chunks)
        await self._deliver(messages, Step((FileRange(file.id, found.start, found.end),), (state,)))
        self.report.lines += messages.lines
        self.report.bytes += found.end - found.start

    async def _deliver(self, messages: Any, step: Step) -> None:
        await self._delivery.deliver(messages, step)
        self._files.update({state.id: state for state in step.files})
        if time.monotonic() - self._said >= _REPORT_SECONDS:
            self._said = time.monotonic()
            print(
                f"{self.report.lines:,} lines, {size(self.report.bytes)} shipped", file=sys.stderr, flush=True
            )


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        with reading():
            block = file.read1(BLOCK_BYTES)  # type: ignore[attr-defined]
        if not block:
            return
        yield block


def _skip(blocks: Iterator[bytes], known: FileState, path: str) -> Iterator[bytes]:
    """The blocks behind what was shipped, if the bytes before that are still those that were.

    Raises:
        _OtherFile: They are not, or there are fewer.
    """
    position, edge = 0, b""
    for block in blocks:
        inside = block[: known.position - position]
        position += len(inside)
        edge = (edge + inside)[-EDGE_BYTES:]
        if position == known.position:
            last = edge[len(edge) - known.tail.length :]
            if known.tail.length and Fingerprint.of(last) != known.tail:
                raise _OtherFile(path)
            return chain([rest] if (rest := block[len(inside) :]) else [], blocks)
    if position == known.position:
        return iter(())
    raise _OtherFile(path)


def _source_state(source: Source) -> FileState | None:
    """What says that a source was read to its end, as it is now; `None` where nothing tells its versions apart."""
    if source.size < 0:
        return None
    key = msgspec.json.encode([source.path, source.size, source.modified, source.inode])
    name = f"source-{hashlib.blake2b(key, digest_size=16).hexdigest()}"
    nothing = Fingerprint(0, "")
    return FileState(name, source.path, 0, source.inode, source.size, nothing, nothing, time.time())
