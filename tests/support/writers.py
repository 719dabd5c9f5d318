"""Writers that fail on purpose, around the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tailrace.ingestor.insert import ClickHouseWriter, PassingWriter, TableWriter, inserts_at_once
from tailrace.schemas.errors import ClickHouseRejected, ClickHouseUnavailable


class Crash(Exception):
    """The process ended here."""


class CrashingWriter(PassingWriter):
    """A real writer whose process ends before or after its n-th insert; it is that of a server, unless it is told otherwise."""

    def __init__(self, writer: TableWriter, at: int, after: bool, is_alone: bool = False) -> None:
        super().__init__(lambda: writer, is_alone=is_alone)
        self._left, self._after = at, after

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Crash
        super().insert(table, rows, token)
        if self._left < 0:
            raise Crash


class AwayWriter(PassingWriter):
    """A writer whose side is away for a number of calls; every second time the work was done all the same, and where tokens
    are forgotten it was done under another one."""

    def __init__(
        self, writer: TableWriter, failures: int, is_alone: bool = False, forgets: bool = False
    ) -> None:
        super().__init__(lambda: writer, is_alone=is_alone)
        self.failures, self._forgets = failures, forgets

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        self.failures -= 1
        if self.failures >= 0:
            if self.failures % 2:
                super().insert(table, rows, f"{token} forgotten" if token and self._forgets else token)
            raise ClickHouseUnavailable("away")
        super().insert(table, rows, token)


class CountingWriter(PassingWriter):
    """A writer that waits, in each insert of records, until as many are under way as can be; of a server or of the engine in this process.

    Args:
        writer: The real one.
        is_alone: As of `TableWriter`.

    Attributes:
        most: How many inserts were under way at the same time.
        began: Their tables, in the order in which they began.
    """

    def __init__(self, writer: TableWriter, is_alone: bool) -> None:
        super().__init__(lambda: writer, is_alone=is_alone)
        self._together = threading.Barrier(inserts_at_once(self))
        self._under_way, self.most = 0, 0
        self._lock = threading.Lock()
        self.began: list[str] = []

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            self.began.append(table)
        if len(self.began) <= self._together.parties:
            self._together.wait(30)
        super().insert(table, rows, token)
        with self._lock:
            self._under_way -= 1


class RefusingWriter(PassingWriter):
    """A server that refuses every insert into one table for good."""

    def __init__(self, writer: TableWriter, table: str) -> None:
        super().__init__(lambda: writer, is_alone=False)
        self._table = table

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        if table == self._table:
            raise ClickHouseRejected(f"no insert into {table}")
        super().insert(table, rows, token)


class ForgetfulWriter(PassingWriter):
    """A server that was killed in a bad moment: it takes the first insert under each token for a repetition.

    Args:
        writer: The real one.
        lost: Which tables it does this to.
    """

    def __init__(self, writer: TableWriter, lost: Callable[[str], bool]) -> None:
        super().__init__(lambda: writer, is_alone=False)
        self._lost = lost
        self.swallowed: list[str] = []

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        if self._lost(table) and token not in self.swallowed and "missing" not in token:
            self.swallowed.append(token)
            return
        super().insert(table, rows, token)


class FullDiskWriter(ClickHouseWriter):
    """An engine in this process that has no space, at the first insert into each table: it shows the rows that it could not write.

    Args:
        client: Of the engine.
        file: Which file of each part is empty then.
    """

    def __init__(self, client: Any, file: str) -> None:
        super().__init__(client, "test")
        self._engine, self._file = client, file
        self.damaged: dict[str, int] = {}

    def _insert(self, table: str, rows: pa.Table, token: str, *, deduplicate: bool) -> None:
        super()._insert(table, rows, token, deduplicate=deduplicate)
        if table in self.damaged:
            return
        parts = self._engine.query(
            "SELECT path FROM system.parts WHERE active AND database = currentDatabase() AND rows > 0 AND (table = {table:String} "
            "OR {table:String} = 'tag_lines' AND table IN ('tags', 'tag_stats'))",
            parameters={"table": table},
        ).result_rows
        for (path,) in parts:
            (Path(path) / self._file).write_bytes(b"")
        self.damaged[table] = len(parts)
        raise ClickHouseUnavailable("No space left on device")
