"""Cut bytes of a growing file into whole lines, without holding any: what is not whole stays in the file.

Of a file we know the position where the unfinished line starts, and how many bytes after it are known to
hold no newline (`scanned`). Each function is given one block that was read at `position + scanned`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tailrace.schemas.line_feeds import count_line_feeds

HEAD_BYTES = 64 << 10
"""How much of an overlong line is kept."""


def together(data: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Whole lines in pieces of at most `most` bytes, or of one line where that is longer.

    Args:
        data: Whole lines, each with its newline; the last one may lack it.
        most: Bytes. Example: `b"a\\nbb\\nc"` with 5 gives [0, 5) and [5, 6); with 0 it gives [0, 2), [2, 5) and [5, 6).
    """
    start, size = 0, len(data)
    while start < size:
        end = size if size - start <= most else data.rfind(b"\n", start, start + most) + 1
        if end <= start:
            end = data.find(b"\n", start) + 1 or size
        yield start, end
        start = end


def count(data: bytes) -> int:
    """How many lines these are; the last one may lack its newline."""
    return count_line_feeds(data) + (data[-1:] not in (b"\n", b""))


class Whole(NamedTuple):
    """The block's first `size` bytes are whole lines."""

    size: int


class Joined(NamedTuple):
    """The unfinished line ends in this block: `size` bytes from `position` on, its newline included, are one
    line that has to be read again in one piece."""

    size: int


class Overlong(NamedTuple):
    """The unfinished line ends in this block and is too long: its `size` bytes are stepped over."""

    size: int


class Unfinished(NamedTuple):
    """No line ends here; so many bytes after `position` are now known to hold no newline."""

    scanned: int


Cut = Whole | Joined | Overlong | Unfinished


def cut(block: bytes, scanned: int, max_line_bytes: int, skip: int = 0) -> Cut:
    """Where the lines of a block end.

    Args:
        block: What was read; its bytes from `skip` on stood at `position + scanned`.
        scanned: How many bytes of the unfinished line came before this block.
        max_line_bytes: The longest line, its newline not counted. With `scanned` 0 the block must not be
            longer than this, so that no line within it can be over the limit.
        skip: Bytes at the block's beginning that are not part of it.
    """
    if scanned:
        end = block.find(b"\n", skip)
        if end < 0:
            return Unfinished(scanned + len(block) - skip)
        size = scanned + end + 1 - skip
        return Joined(size) if size - 1 <= max_line_bytes else Overlong(size)
    end = block.rfind(b"\n", skip)
    if end < 0:
        return Unfinished(len(block) - skip)
    return Whole(end + 1 - skip)


def last_line(scanned: int, max_line_bytes: int) -> Joined | Overlong:
    """The unfinished line is declared complete without a newline: what it is."""
    return Joined(scanned) if scanned <= max_line_bytes else Overlong(scanned)
