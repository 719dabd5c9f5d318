"""Where lines come from: byte positions in files, offsets in Kafka partitions, and ranges of both.

A range is half-open, `[start, end)`. For a file the positions are bytes, for a partition they are offsets;
the two are different types, so that a checker refuses to mix them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType, Protocol, TypeVar

import msgspec

P = TypeVar("P", bound="Prepared")

BytePosition = NewType("BytePosition", int)
KafkaOffset = NewType("KafkaOffset", int)


def next_offset(offset: KafkaOffset) -> KafkaOffset:
    """The offset after this one: the only place that adds the one between "last read" and "next to read"."""
    return KafkaOffset(offset + 1)


class FileRef(msgspec.Struct, frozen=True, gc=False):
    """One file, by identity and not by path.

    Args:
        id: Stable for the life of the file's content, through renames; chosen by the shipper's ledger.
        path: Where the file was seen last; for people and for dead letters.
    """

    id: str
    path: str


class FileChunk(msgspec.Struct, frozen=True):
    """Whole lines of one file, contiguous, as they stand on disk.

    Args:
        file: The file that the lines stand in.
        start: Byte position of the first byte.
        end: Byte position after the last byte that this chunk accounts for; the next chunk starts there.
        data: The bytes. Lines end in `\\n`, save that a last line which was declared complete without one
            (rotated away, idle) has none. Empty for an oversized line.
        oversized: `None`, or the head of a single line that is longer than the limit; the chunk's range
            then covers the whole line and `data` is empty.
        lines: How many lines these are, where whoever read them has counted.
    """

    file: FileRef
    start: BytePosition
    end: BytePosition
    data: bytes
    oversized: bytes | None = None
    lines: int | None = None


class FileRange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The range `[start, end)` of one file."""

    file_id: str
    start: int
    end: int


class Intent(msgspec.Struct, frozen=True):
    """A durable note: "exactly these ranges are about to be stored, under this token".

    Written before the store and replaced after it. After a crash the same ranges are read again and stored
    under the same token, and the receiver drops what it has.
    """

    token: str
    ranges: tuple[FileRange, ...]
    started: float
    """Seconds since the epoch, to compare with the receiver's deduplication window."""


class Prepared(Protocol):
    """What a sink made of some chunks: everything that can be done before anything is sent."""

    @property
    def lines(self) -> int:
        """How many lines the chunks held, blank ones included."""
        ...


class Sink(Protocol[P]):
    """Where a shipper's chunks go: Kafka, or an ingestor in the same process.

    `prepare` is pure and may run in a thread while an earlier batch is being stored. `store` returns only
    when the receiver has acknowledged every line; it retries what is retryable for ever, and raises
    `FatalError` for the rest. Calling `store` again with the same token and the same chunks must not add
    anything where `idempotent` is true.
    """

    idempotent: bool

    def prepare(self, chunks: Sequence[FileChunk]) -> P:
        """Encode or decode the chunks; does no IO."""
        ...

    async def store(self, prepared: P, token: str) -> None:
        """Deliver, and return when it is acknowledged."""
        ...

    async def restore(self, prepared: P, token: str, since: float) -> None:
        """Deliver what an earlier run announced and may have delivered, in part or whole; adds what is missing.

        Args:
            prepared: Of the same lines in the same order.
            token: As announced.
            since: When it was announced, in seconds since the epoch.
        """
        ...

    async def close(self) -> None:
        """Release connections; whatever was not acknowledged is delivered by the next run."""
        ...
