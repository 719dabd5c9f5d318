"""A database that is made while the first lines are read and decoded: neither needs the other, and each takes a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tailrace.ingestor.backfill.claims import Claim, History, NoHistory
from tailrace.ingestor.backfill.known import Counts
from tailrace.ingestor.backfill.sources import Source
from tailrace.ingestor.insert import PassingWriter, TableWriter
from tailrace.schemas.errors import FatalError, RetryableError


class Opened(NamedTuple):
    """What is needed of a database.

    Args:
        history: What it holds already, which is nothing.
        writers: As many as were asked for.
    """

    history: History
    writers: Sequence[TableWriter]


class Opening:
    """Makes a database in a thread of its own.

    Args:
        make: Does it. Called once.
    """

    def __init__(self, make: Callable[[], Opened]) -> None:
        self._thread = ThreadPoolExecutor(1, "tailrace-open")
        self._made = self._thread.submit(self._make, make)

    @staticmethod
    def _make(make: Callable[[], Opened]) -> Opened:
        try:
            opened = make()
        except RetryableError as exc:
            # It is tried once: whoever waits for it must not wait for ever.
            raise FatalError(str(exc)) from exc
        if not opened.history.is_empty():
            raise FatalError(
                "somebody made the database meanwhile and stored something: start the backfill again"
            )
        return opened

    def wait(self) -> Opened:
        """What was made.

        Raises:
            TailraceError: It could not be.
        """
        return self._made.result()

    def writer(self, number: int) -> TableWriter:
        """One of its writers, whose calls wait until it is made."""
        return PassingWriter(lambda: self.wait().writers[number], is_alone=True)

    def close(self) -> None:
        """Returns when it was made, or could not be."""
        self._thread.shutdown()


class NewHistory(NoHistory):
    """History of such a database: nothing is known, and what is noted waits until there is one."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def announce(self, claims: Sequence[Claim], token: str, now: float) -> None:
        """See `History`."""
        self._opening.wait().history.announce(claims, token, now)

    def finish(self, scope: str, files: Sequence[tuple[Source, Counts]], now: float) -> None:
        """See `History`."""
        self._opening.wait().history.finish(scope, files, now)
