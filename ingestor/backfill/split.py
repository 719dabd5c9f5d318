"""Bytes → ranges of whole lines, always cut in the same places, however the bytes come.

Ranges end at the first line end at or after each multiple of `every`, so where one ends depends on the content alone: a
reader that begins in the middle of a file cuts as one that came from its start. For `every` = 100 and lines that end at 40, 90,
130, 340 and 360, of 380 bytes: [0, 130), [130, 340), [340, 380).

A range that an earlier run knows ends where it ended then, if the bytes are still the same: a file that had 60 bytes and now has
200 gives [0, 60), which is known, and goes on at 60.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import xxhash

from tailrace.ingestor.decode import HEAD_BYTES


class Piece(NamedTuple):
    """Some lines of a range.

    Args:
        start: Position of the first byte.
        end: After the last byte.
        data: The lines; empty for one that is too long.
        oversized: The head of a single line that is too long, else `None`.
    """

    start: int
    end: int
    data: bytes
    oversized: bytes | None = None


class Range(NamedTuple):
    """`[start, end)` of a stream.

    Args:
        start: Where a line begins.
        end: Where one ends.
        digest: xxh3-128 of all its bytes, in hexadecimal.
        pieces: Its lines, in order.
    """

    start: int
    end: int
    digest: str
    pieces: tuple[Piece, ...]


Known = Callable[[int], Mapping[int, str]]
"""Of a start: the ends of ranges that earlier runs know, with the digest of each."""


class Splitter:
    """Takes blocks of a stream in order, gives its ranges. Holds one range at most, and no line over the limit.

    Args:
        start: Where in the stream the first block begins: where a line begins.
        every: See above.
        max_line_bytes: Of a longer line only the head is kept.
        known: See `Known`.
    """

    def __init__(self, start: int, every: int, max_line_bytes: int, known: Known) -> None:
        self._every = every
        self._limit = max_line_bytes
        self._known = known
        self._position = start
        self._begin(start)
        self._unfinished: list[bytes] = []
        self._unfinished_size = 0
        self._head: bytes | None = None

    def feed(self, block: bytes) -> Iterator[Range]:
        """The ranges that are complete with this block."""
        at = 0
        while at < len(block):
            end, ends_line, known = self._next_stop(block, at)
            self._take(block[at:end])
            self._position += end - at
            at = end
            if ends_line or (known and self._digest_so_far() == self._ends[self._position]):
                yield self._close()

    def finish(self, whole: bool) -> Iterator[Range]:
        """The last range.

        Args:
            whole: Whether a last line without a newline counts as complete; if not it is left out.
        """
        if whole:
            if self._position > self._start:
                yield self._close()
        elif self._position - self._unfinished_size > self._start:
            self._position -= self._unfinished_size
            self._unfinished, self._unfinished_size, self._head = [], 0, None
            if self._before_head is not None:
                self._hash = self._before_head
            yield self._close()

    @property
    def start(self) -> int:
        """Where the range begins that is under way."""
        return self._start

    @property
    def unfinished(self) -> int:
        """Bytes of a last line that has no newline yet."""
        return self._unfinished_size

    def _begin(self, start: int) -> None:
        self._start = start
        self._target = (start // self._every + 1) * self._every
        self._ends = dict(self._known(start))
        self._hash = xxhash.xxh3_128()
        self._before_head: Any = None
        self._pieces: list[Piece] = []

    def _next_stop(self, block: bytes, at: int) -> tuple[int, bool, bool]:
        """Up to where to take, and whether the range ends there, by its own rule or because an earlier run ended it."""
        last = self._position + len(block) - at
        marks = [end for end in self._ends if self._position < end <= last]
        stop = at + min(marks) - self._position if marks else len(block)
        if self._target <= self._position + stop - at:
            found = block.find(b"\n", max(at, at + self._target - 1 - self._position), stop)
            if found >= 0:
                return found + 1, True, False
        return stop, False, bool(marks)

    def _take(self, data: bytes) -> None:
        position = self._position
        first = data.find(b"\n")
        if self._unfinished_size and first >= 0:
            length = self._unfinished_size + first
            if self._head is not None or length > self._limit:
                head = (
                    self._head
                    if self._head is not None
                    else b"".join([*self._unfinished, data[:first]])[:HEAD_BYTES]
                )
                self._update_hash(data[: first + 1])
                self._pieces.append(Piece(position - self._unfinished_size, position + first + 1, b"", head))
                self._unfinished, self._unfinished_size, self._head, self._before_head = [], 0, None, None
                position, data = position + first + 1, data[first + 1 :]
        last = data.rfind(b"\n") + 1
        if last:
            self._update_hash(data[:last])
            start = position - self._unfinished_size
            lines = b"".join([*self._unfinished, data[:last]]) if self._unfinished else data[:last]
            self._pieces.append(Piece(start, position + last, lines))
            self._unfinished, self._unfinished_size = [], 0
            data = data[last:]
        if data:
            self._add_unfinished(data)

    def _add_unfinished(self, data: bytes) -> None:
        self._unfinished_size += len(data)
        if self._head is not None:
            self._hash.update(data)
            return
        self._unfinished.append(data)
        if self._unfinished_size > self._limit:
            self._before_head = self._hash.copy()
            whole = b"".join(self._unfinished)
            self._hash.update(whole)
            self._head, self._unfinished = whole[:HEAD_BYTES], []

    def _update_hash(self, data: bytes) -> None:
        """Counts what was unfinished until now, and what follows on it."""
        for part in self._unfinished:
            self._hash.update(part)
        self._hash.update(data)

    def _digest_so_far(self) -> str:
        digest = self._hash.copy()
        for part in self._unfinished:
            digest.update(part)
        return str(digest.hexdigest())

    def _close(self) -> Range:
        if self._unfinished_size:  # a last line that counts as complete
            start = self._position - self._unfinished_size
            if self._head is not None:
                self._pieces.append(Piece(start, self._position, b"", self._head))
            else:
                self._pieces.append(Piece(start, self._position, b"".join(self._unfinished)))
        digest = self._digest_so_far()
        closed = Range(self._start, self._position, digest, tuple(self._pieces))
        self._unfinished, self._unfinished_size, self._head = [], 0, None
        self._begin(self._position)
        return closed
