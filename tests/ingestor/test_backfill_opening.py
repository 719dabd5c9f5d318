"""A database that is made while the first lines are read."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from support import hostile
from support.cli import tailrace
from tailrace.ingestor.backfill.claims import NoHistory
from tailrace.ingestor.backfill.opening import NewHistory, Opened, Opening
from tailrace.schemas.errors import ClickHouseUnavailable, FatalError


class _Noting(NoHistory):
    def __init__(self, is_empty: bool = True) -> None:
        self.finished_scopes: list[str] = []
        self._is_empty = is_empty

    def is_empty(self) -> bool:
        return self._is_empty

    def finish(self, scope: str, files: object, now: float) -> None:
        self.finished_scopes.append(scope)


def test_what_is_noted_waits_for_the_database() -> None:
    """Questions about the past are answered at once, since there is none; what is noted is noted when there is a database."""
    made, there = threading.Event(), _Noting()

    def make() -> Opened:
        assert made.wait(20)
        return Opened(there, [])

    with closing(Opening(make)) as opening:
        history = NewHistory(opening)
        assert (history.finished("s"), history.is_empty(), history.known("f")) == ({}, True, [])
        threading.Timer(0.05, made.set).start()
        history.finish("s", [], 0.0)
    assert there.finished_scopes == ["s"]


def test_a_database_that_cannot_be_made_ends_the_run() -> None:
    """Whatever would pass with time is final for who waits: it is not tried again."""

    def make() -> Opened:
        raise ClickHouseUnavailable("no space left")

    with closing(Opening(make)) as opening, pytest.raises(FatalError, match="no space left"):
        opening.writer(0).ping()


def test_a_database_that_somebody_filled_meanwhile_is_refused() -> None:
    """Lines that are there already would be stored twice, because nobody has looked."""
    filled = Opened(_Noting(is_empty=False), [])
    with (
        closing(Opening(lambda: filled)) as opening,
        pytest.raises(FatalError, match="start the backfill again"),
    ):
        opening.wait()


@pytest.mark.parametrize("lines", [0, 3])
def test_where_no_database_can_be_made(tmp_path: Path, lines: int) -> None:
    """The command says so and fails, also when there is nothing to store."""
    log = tmp_path / "a.log"
    log.write_bytes(b"".join(hostile.line(hostile.v1(message=f"{n}")) for n in range(lines)))
    (tmp_path / "taken").write_bytes(b"a file")
    done = tailrace("backfill", log, "--clickhouse", f"chdb://{tmp_path}/taken/db", check=2)
    assert "cannot create" in done.stderr and "Traceback" not in done.stderr
