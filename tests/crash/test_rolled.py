"""Ingestors that are replaced while lines arrive: what somebody who asks meanwhile sees."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crash.actors import Actor, Cast
from support.front import FrontProcess
from support.kafka import wait_until
from tailrace.schemas.clickhouse.connection import Dsn, connect

pytestmark = [pytest.mark.soak, pytest.mark.kafka, pytest.mark.timeout(900)]

FILES = 8
RATE = 2_000
"""Lines a second, of all files together."""
GAP_SECONDS = 5.0
SESSION_SECONDS = 6.0
"""What a broker takes for a session at least, as it is shipped."""
PACE = ("--session-timeout", str(SESSION_SECONDS), "--batch-seconds", "0.2", "--batch-rows", "100000")


class Service(threading.Thread):
    """Appends lines to several files, each under a project of its own, and remembers when."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        directory.mkdir()
        self.paths = [directory / f"f{number}.log" for number in range(FILES)]
        self.written: list[list[float]] = [[] for _ in self.paths]
        self.over = threading.Event()

    def run(self) -> None:
        """Ten blocks a second into each file."""
        each = RATE // FILES // 10
        files = [path.open("ab", buffering=0) for path in self.paths]
        began = time.monotonic()
        for block in range(10**9):
            for number, file in enumerate(files):
                now = datetime.now(UTC).isoformat()
                first = len(self.written[number])
                self.written[number] += [time.monotonic()] * each
                file.write(b"".join(_line(number, first + n, now) for n in range(each)))
            if self.over.wait(max(0.0, began + block / 10 - time.monotonic())):
                break
        for file in files:
            file.close()


def _line(file: int, number: int, now: str) -> bytes:
    return (
        f'{{"v":1,"kind":"text","ts":"{now}","project_id":"p{file}","trace_id":"t{number}",'
        f'"message":"line {number} of file {file}","level":"info"}}\n'
    ).encode()


class Watcher(threading.Thread):
    """Asks ten times a second which lines are there, and notes the age of the oldest that is not."""

    def __init__(self, service: Service, client: Any) -> None:
        super().__init__(daemon=True)
        self._service, self._client = service, client
        self.over = threading.Event()
        self.ages: list[tuple[float, float]] = []  # when it was asked, and seconds

    def run(self) -> None:
        """Until it is told that it is over. A file's lines become visible in their order."""
        while not self.over.wait(0.1):
            asked = time.monotonic()
            there = dict(
                self._client.query("SELECT project_id, count() FROM logs GROUP BY project_id").result_rows
            )
            missing = [
                asked - times[seen]
                for number, times in enumerate(self._service.written)
                if (seen := there.get(f"p{number}", 0)) < bisect.bisect_right(times, asked)
            ]
            self.ages.append((asked, max(missing, default=0.0)))

    def worst(self, since: float) -> float:
        """The greatest age from then on."""
        return max(age for asked, age in self.ages if asked >= since)


def test_ingestors_are_rolled_without_a_gap(
    cast: Cast,
    front: FrontProcess,
    database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ingestors are drained one after the other, each replaced by a new one that joins first: no line is ever more than
    five seconds old before it can be asked for. One that is killed holds its partitions up for the length of a session
    longer. Every line is there once."""
    dsn = f"clickhouse://127.0.0.1:{front.port}/{database()}"
    monkeypatch.setenv("TAILRACE_VERBOSE", "1")  # so that an ingestor says when it has joined
    service = Service(tmp_path / "logs")
    shipper = cast.shipper(tmp_path / "logs", partitions=FILES, poll_seconds=0.1)
    shipper.start()
    numbers = iter(range(100))

    def ingestor() -> Actor:
        actor = cast.ingestor(dsn, f"rolled-{next(numbers)}", *PACE)
        actor.start()
        return actor

    pair = [ingestor(), ingestor()]
    with closing(connect(Dsn.parse(dsn))) as client:
        watcher = Watcher(service, client)
        service.start()
        wait_until(
            lambda: client.query("SELECT uniq(project_id) FROM logs").result_rows[0][0] == FILES, "lines", 60
        )
        watcher.start()
        wait_until(
            lambda: bool(watcher.ages) and watcher.ages[-1][1] < 1.0, "the start to be caught up with", 60
        )
        rolled = time.monotonic()
        for _ in range(2):
            old = pair.pop(0)
            pair.append(ingestor())
            pair[-1].wait_to_say("assigned partitions", 90)
            old.terminate()
            _settle(watcher)
        worst_rolled = watcher.worst(rolled)
        killed = time.monotonic()
        pair.pop(0).kill()
        pair.append(ingestor())
        _settle(watcher, SESSION_SECONDS)
        worst_killed = watcher.worst(killed)
        service.over.set()
        service.join()
        expected = {f"p{number}": len(times) for number, times in enumerate(service.written)}
        query = "SELECT project_id, count(), uniqExact(message) FROM logs GROUP BY project_id"
        wait_until(
            lambda: {p: n for p, n, _ in client.query(query).result_rows} == expected,
            "every line to be there",
            60,
        )
        watcher.over.set()
        watcher.join()
        assert all(count == distinct for _, count, distinct in client.query(query).result_rows)
    for actor in (shipper, *pair):
        actor.terminate()
    print(
        f"oldest line not yet visible: {worst_rolled:.2f} s while rolled, {worst_killed:.2f} s after a kill"
    )
    assert worst_rolled < GAP_SECONDS
    assert worst_killed < GAP_SECONDS + SESSION_SECONDS


def _settle(watcher: Watcher, at_least: float = 1.0) -> None:
    """Wait until lines are fresh again, and some time has passed in which they could have been late."""
    since = time.monotonic() + at_least
    wait_until(
        lambda: time.monotonic() > since and watcher.ages[-1][1] < 1.0, "the lines to be fresh again", 90
    )
