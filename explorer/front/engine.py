"""The embedded engine, as many handles as there are requests.

chDB lets a process open any number of handles on its one engine. What a handle is told with SET and USE stays with
it, so a request gets a handle of its own, which takes 0.2 ms; a session keeps one.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tailrace.explorer.front.refusal import Refusal, from_engine
from tailrace.schemas.clickhouse.connection import is_locked, is_out_of_space
from tailrace.schemas.clickhouse.quoting import quote, quote_name
from tailrace.schemas.clickhouse.unread import Unread
from tailrace.schemas.errors import ClickHouseRejected, EngineLocked


class Handle:
    """One connection to the engine. Serves one statement at a time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(
        self, sql: bytes | str, form: str = "TabSeparated", values: Mapping[str, str] | None = None
    ) -> Any:
        """Run one statement and return chDB's result.

        Raises:
            Refusal: What the engine said.
        """
        try:
            return self._connection.query(sql, form, params=dict(values or {}))
        except Exception as exc:  # chDB raises RuntimeError and its own ChdbError, for all there is
            raise from_engine(exc) from None

    def use(self, database: str) -> None:
        """Make `database` the one for names without a database."""
        self.run("USE " + quote_name(database))

    def set(self, settings: Mapping[str, str]) -> None:
        """Set all of `settings`, or raise and set none that comes after the wrong one."""
        if settings:
            self.run("SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items()))

    def restore(self, names: Sequence[str], values: Mapping[str, bytes]) -> None:
        """Give settings the value that `values` writes for them, or else their default."""
        if names:
            self.run(
                b"SET " + b", ".join(name.encode() + b" = " + values.get(name, b"DEFAULT") for name in names)
            )

    def close(self) -> None:
        """Let go of it; what it was told is forgotten."""
        self._connection.close()


class Engine:
    """The engine that this process holds in `path`; opens it when it is not open yet.

    Args:
        path: The directory. One that differs from the directory that this process already holds is refused by chDB.

    Raises:
        EngineLocked: Another process holds it.
        ClickHouseRejected: chDB cannot open it.
    """

    def __init__(self, path: str) -> None:
        import chdb

        self._connect = cast(Callable[[str], Any], chdb.connect)
        self._path = str(Path(path).resolve())  # chDB compares paths by letter
        try:
            self._keeper = Handle(self._connect(self._path))  # the engine lives as long as one handle does
        except Exception as exc:
            if is_locked(self._path):
                raise EngineLocked(
                    f"another process holds the embedded database in {self._path}: stop it first"
                ) from exc
            raise ClickHouseRejected(f"cannot open the embedded database in {self._path}: {exc}") from exc
        self._lock = threading.Lock()
        self._unread = Unread(self._ask)
        try:
            facts = self._keeper.run("SELECT version(), timezone()").bytes().decode().rstrip("\n").split("\t")
            names = self._keeper.run("SELECT name FROM system.table_functions").bytes().decode().split()
        except Refusal as exc:
            self._keeper.close()
            raise ClickHouseRejected(
                f"the embedded database in {self._path} does not work: {exc}", exc.code
            ) from exc
        self.version: str = facts[0]
        self.timezone: str = facts[1]
        self.table_functions: tuple[str, ...] = tuple(names)

    def open(self) -> Handle:
        """A fresh handle, with nothing set."""
        try:
            return Handle(self._connect(self._path))
        except Exception as exc:
            raise from_engine(exc) from None

    def before_insert(self) -> None:
        """What an earlier insert may have left on a full disk is put aside first.

        Raises:
            Refusal: The disk is still full, or what the engine said.
        """
        if not self._unread.read():
            raise Refusal(243, "There is no space left on the disk of the embedded engine", 507)

    def insert_failed(self, database: str, refusal: Refusal) -> None:
        """Note that an insert into some table of this database was refused, where that may have left something."""
        if not is_out_of_space(refusal.code, refusal.text):
            return
        names = self._ask(
            f"SELECT name FROM system.tables WHERE database = {quote(database)} AND engine LIKE '%MergeTree'"  # noqa: S608
        )
        self._unread.add(database, names.splitlines())

    def _ask(self, sql: str) -> str:
        handle = self.open()  # one that nobody waits for: reading a table anew waits for those who read it, and they may be cancelled
        try:
            return cast(str, handle.run(sql).bytes().decode().rstrip("\n"))
        finally:
            handle.close()

    def cancel(self, mark: str) -> None:
        """Stop the statement that runs with `log_comment` = `mark`; returns without waiting for its end."""
        with self._lock:
            self._keeper.run(f"KILL QUERY WHERE Settings['log_comment'] = {quote(mark)} ASYNC")

    def close(self) -> None:
        """Let go of the engine. It stays open while anybody else in this process has a handle."""
        with self._lock:
            self._keeper.close()


def new_mark() -> str:
    """A `log_comment` by which a running statement can be found."""
    return f"tailrace-front {uuid.uuid4()}"
