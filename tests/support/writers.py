"""Writers that fail on purpose, around the real one."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from tailrace.ingestor.insert import TableWriter
from tailrace.schemas.errors import ClickHouseUnavailable


class Crash(Exception):
    """The process ended here."""


class CrashingWriter:
    """A real writer whose process ends before or after its n-th insert; it is that of a server, unless it is told otherwise."""

    def __init__(self, writer: TableWriter, at: int, after: bool, is_alone: bool = False) -> None:
        self._writer, self._left, self._after = writer, at, after
        self.is_alone = is_alone

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Crash
        self._writer.insert(table, rows, token)
        if self._left < 0:
            raise Crash

    def is_stored(self, token: str) -> bool:
        return self._writer.is_stored(token)

    def batches_since(self, moment: float) -> int:
        return self._writer.batches_since(moment)

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        return self._writer.missing(table, rows)

    def complete(self, table: str, rows: pa.Table) -> None:
        self._writer.complete(table, rows)

    def ping(self) -> None:
        self._writer.ping()


class AwayWriter:
    """A writer whose side is away for a number of calls; every second time the work was done all the same, and where tokens
    are forgotten it was done under another one."""

    def __init__(
        self, writer: TableWriter, failures: int, is_alone: bool = False, forgets: bool = False
    ) -> None:
        self._writer, self.failures = writer, failures
        self.is_alone = is_alone
        self._forgets = forgets

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        self.failures -= 1
        if self.failures >= 0:
            if self.failures % 2:
                self._writer.insert(table, rows, f"{token} forgotten" if token and self._forgets else token)
            raise ClickHouseUnavailable("away")
        self._writer.insert(table, rows, token)

    def is_stored(self, token: str) -> bool:
        return self._writer.is_stored(token)

    def batches_since(self, moment: float) -> int:
        return self._writer.batches_since(moment)

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        return self._writer.missing(table, rows)

    def complete(self, table: str, rows: pa.Table) -> None:
        self._writer.complete(table, rows)

    def ping(self) -> None:
        self._writer.ping()


class ForgetfulWriter:
    """A server that was killed in a bad moment: it takes the first insert under each token for a repetition.

    Args:
        writer: The real one.
        lost: Which tables it does this to.
    """

    def __init__(self, writer: TableWriter, lost: Callable[[str], bool]) -> None:
        self._writer = writer
        self._lost = lost
        self.swallowed: list[str] = []

    is_alone = False

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        if self._lost(table) and token not in self.swallowed and "missing" not in token:
            self.swallowed.append(token)
            return
        self._writer.insert(table, rows, token)

    def is_stored(self, token: str) -> bool:
        return self._writer.is_stored(token)

    def batches_since(self, moment: float) -> int:
        return self._writer.batches_since(moment)

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        return self._writer.missing(table, rows)

    def complete(self, table: str, rows: pa.Table) -> None:
        self._writer.complete(table, rows)

    def ping(self) -> None:
        self._writer.ping()
