"""Which ranges that were backfilled stand in a file too: for the audit, to which the lines of a copy are those of the file."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import xxhash

from tailrace.ingestor.backfill.sources import BLOCK_BYTES

Digests = Mapping[str, Mapping[tuple[int, int], Container[str]]]
"""By stream and range, the digests of the bytes that were found there."""


class Copies:
    """Compares files with what was backfilled, by content alone.

    Args:
        digests: Of all streams.
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self._firsts: dict[int, list[str]] = {}
        for stream, ranges in digests.items():
            for start, end in ranges:
                if start == 0:
                    self._firsts.setdefault(end, []).append(stream)

    def in_file(self, path: Path) -> dict[str, set[tuple[int, int]]]:
        """By stream, the ranges whose bytes stand at the same place of a file. One that cannot be read has none."""
        found: dict[str, set[tuple[int, int]]] = {}
        with suppress(OSError), path.open("rb") as file:
            for stream in self._begins_alike(file):
                for (start, end), known in self._digests[stream].items():
                    file.seek(start)
                    digest = xxhash.xxh3_128()
                    _update(digest, file, end - start)
                    if digest.hexdigest() in known:
                        found.setdefault(stream, set()).add((start, end))
        return found

    def _begins_alike(self, file: IO[bytes]) -> Iterator[str]:
        """The streams whose first range stands at the beginning of the file, which is read once for all of them."""
        alike, at, digest = [], 0, xxhash.xxh3_128()
        for end in sorted(self._firsts):
            if not _update(digest, file, end - at):
                break
            at, now = end, digest.hexdigest()
            alike += [stream for stream in self._firsts[end] if now in self._digests[stream][0, end]]
        yield from dict.fromkeys(alike)


def _update(digest: xxhash.xxh3_128, file: IO[bytes], size: int) -> bool:
    """Adds as many bytes of the file; whether it had them."""
    while size > 0 and (block := file.read(min(size, BLOCK_BYTES))):
        digest.update(block)
        size -= len(block)
    return size == 0
