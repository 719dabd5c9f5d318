"""What is said of ranges and files between runs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tailrace.ingestor.backfill.sources import Source

ID_PREFIX = "content-"
"""Of the ids of files that are known by what they hold."""


class Counts(msgspec.Struct):
    """What lines are.

    Args:
        bytes: Uncompressed.
        lines: All of them that were wanted: rows + dead letters + blank.
        rows: Lines that became records.
        dead_letters: Lines that became none.
        blank: Lines with nothing in them.
        filtered: Lines that the selection left out.
    """

    bytes: int = 0
    lines: int = 0
    rows: int = 0
    dead_letters: int = 0
    blank: int = 0
    filtered: int = 0

    def add(self, other: Counts) -> None:
        """Adds each of them."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def less(self, other: Counts) -> Counts:
        """Each of them without the other's."""
        return Counts(*(getattr(self, name) - getattr(other, name) for name in self.__struct_fields__))


@dataclass(frozen=True, slots=True)
class KnownRange:
    """A range of a stream that an earlier run stored, or was about to.

    Args:
        start: Its first byte.
        end: After its last.
        digest: Of its bytes.
        stored: Whether the ledger has it.
        counts: What the ledger says of it.
    """

    start: int
    end: int
    digest: str
    stored: bool
    counts: Counts


class Finished(msgspec.Struct, frozen=True):
    """A source that was read to its end by an earlier run, as it was then."""

    size: int
    modified: int
    inode: int
    counts: Counts
    at: float

    def is_same(self, source: Source) -> bool:
        """Whether the source has not changed since, as far as its store says."""
        return source.size >= 0 and (self.size, self.modified, self.inode) == (
            source.size,
            source.modified,
            source.inode,
        )
