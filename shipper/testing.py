"""What tests of a pipeline need in place of a real receiver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tailrace.schemas.streams import FileChunk


class MemoryLines(NamedTuple):
    """Some lines, as `MemorySink.prepare` makes them."""

    values: tuple[bytes, ...]

    @property
    def lines(self) -> int:
        """How many there are."""
        return len(self.values)


class MemorySink:
    """Keeps lines in a list, and drops a batch whose token it has seen.

    Args:
        before: Called with the token before a batch takes effect; what it raises stops the batch.
        after: Called with the token when the batch has taken effect; what it raises is an answer that got lost.
    """

    idempotent = True

    def __init__(
        self,
        before: Callable[[str], None] = lambda token: None,
        after: Callable[[str], None] = lambda token: None,
    ) -> None:
        self.stored: list[bytes] = []
        self.tokens: set[str] = set()
        self._before = before
        self._after = after

    def prepare(self, chunks: Sequence[FileChunk]) -> MemoryLines:
        """The lines of the chunks, an overlong one as its head."""
        found: list[bytes] = []
        for chunk in chunks:
            if chunk.oversized is not None:
                found.append(chunk.oversized)
                continue
            lines = chunk.data.split(b"\n")
            found += lines[:-1] if not lines[-1] else lines
        return MemoryLines(tuple(found))

    async def store(self, prepared: MemoryLines, token: str) -> None:
        """Keep the lines, unless the token was seen."""
        self._before(token)
        if token not in self.tokens:
            self.tokens.add(token)
            self.stored += prepared.values
        self._after(token)

    async def restore(self, prepared: MemoryLines, token: str, since: float) -> None:
        """Keep the lines, unless the token was seen."""
        await self.store(prepared, token)

    async def close(self) -> None:
        """Nothing is open."""
