"""A real ClickHouse for tests: one embedded chDB for the whole pytest process, and a fresh database for each test.

    def test_something(database):
        client = database()          # a clickhouse-connect client of a new, migrated database
        client.insert("logs", rows, column_names=[…])

chDB allows one directory a process, so every test folder shares this engine and none opens another in the same
process. A test that needs an engine of its own (locks, kills, `tailrace up`) starts a process for it. The engine holds
its directory's lock, so `tailrace.schemas.clickhouse.connection.connect` to that directory is refused even from
here: take more clients from `Engine.connect`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from tailrace.schemas.clickhouse.migrate import migrate


class Engine:
    """The embedded engine of this pytest process. Calling it is the same as `database`.

    Args:
        path: Its directory; must be the only one that this process opens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count()
        self._root = clickhouse_connect.get_client(interface="chdb", path=str(path))
        self._clients: dict[str, list[Any]] = {}

    def database(self, *, migrated: bool = True) -> Any:
        """A client of a new database with a name of its own (`client.database`), migrated unless told otherwise."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._root.command(f"CREATE DATABASE {name}")
        client = self.connect(name)
        if migrated:
            migrate(client)
        return client

    __call__ = database

    def connect(self, database: str) -> Any:
        """One more client of a database that exists; threads must not share one."""
        client = clickhouse_connect.get_client(interface="chdb", path=str(self.path), database=database)
        self._clients.setdefault(database, []).append(client)
        return client

    def drop(self, database: str) -> None:
        """Close what was connected to a database and drop it."""
        for client in self._clients.pop(database, []):
            client.close()
        self._root.command(f"DROP DATABASE IF EXISTS {database} SYNC")

    def close(self) -> None:
        """Drop every database and let go of the directory."""
        for name in list(self._clients):
            self.drop(name)
        self._root.close()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The session's engine: `engine()` makes a fresh, migrated database that lives until the session ends."""
    engine = Engine(tmp_path_factory.mktemp("chdb") / "engine")
    yield engine
    engine.close()


@pytest.fixture
def database(engine: Engine) -> Iterator[Callable[[], Any]]:
    """As `engine`, but what it makes is dropped when the test ends."""
    made: list[str] = []

    def fresh() -> Any:
        client = engine.database()
        made.append(client.database)
        return client

    yield fresh
    for name in made:
        engine.drop(name)
