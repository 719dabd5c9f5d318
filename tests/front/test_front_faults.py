"""The proxy that breaks requests: each fault does to a client and to the stored rows what its name says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from support.faults import DONE, NOT_DONE, Fault, FaultyFront, inserts, seeded
from support.front import FrontProcess
from tailrace.schemas.clickhouse.connection import Dsn, connect, translated
from tailrace.schemas.errors import ClickHouseRejected, ClickHouseUnavailable

ROWS = pa.table({"a": pa.array(range(30_000), pa.int64()), "s": [f"row {i:040d}" for i in range(30_000)]})


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("faults") / "db") as process:
        process.request(
            "CREATE TABLE t (a Int64, s String) ENGINE = MergeTree ORDER BY a"
            " SETTINGS non_replicated_deduplication_window = 1000"
        )
        yield process


def stored(front: FrontProcess) -> int:
    return int(front.request("SELECT count() FROM t").text)


def client_of(faulty: FaultyFront, timeout: float = 30.0) -> Any:
    return connect(Dsn(embedded=False, host=faulty.host, port=faulty.port, user="default"), timeout=timeout)


def insert(client: Any, token: str) -> None:
    with translated("the faulty front"):
        client.insert_arrow("t", ROWS, settings={"insert_deduplication_token": token, "async_insert": 0})


@pytest.mark.parametrize("fault", [*NOT_DONE, *DONE, Fault.DELAY, Fault.HANG])
def test_a_transient_fault_is_retryable_and_a_retry_under_the_token_stores_once(
    front: FrontProcess, fault: Fault
) -> None:
    """The client's error is one to retry; rows are there before the retry exactly where the fault says so, and once after it."""
    before = stored(front)
    with FaultyFront(front.host, front.port, [fault], match=inserts, delay=2.0) as faulty:
        client = client_of(faulty, timeout=1.0 if fault in (Fault.DELAY, Fault.HANG) else 30.0)
        with pytest.raises(ClickHouseUnavailable):
            insert(client, fault.name)
        if fault in NOT_DONE:
            assert stored(front) == before
        elif fault in DONE:
            assert stored(front) == before + ROWS.num_rows
        insert(client_of(faulty), fault.name)
        assert stored(front) == before + ROWS.num_rows
        assert faulty.done
        assert faulty.injected == [fault]


def test_wrong_credentials_are_fatal(front: FrontProcess) -> None:
    """WRONG_AUTH is an error that no retry helps."""
    with FaultyFront(front.host, front.port, [Fault.WRONG_AUTH], match=inserts) as faulty:
        client = client_of(faulty)
        with pytest.raises(ClickHouseRejected):
            insert(client, "auth")


def test_a_server_that_is_away_comes_back(front: FrontProcess) -> None:
    """While `away`, every request fails as if nothing listened; afterwards the same client works."""
    with FaultyFront(front.host, front.port) as faulty:
        client = client_of(faulty)
        faulty.away()
        for _ in range(2):
            with pytest.raises(ClickHouseUnavailable), translated("the faulty front"):
                client.query("SELECT 1")
        faulty.away(False)
        assert client.query("SELECT 1").result_rows == [(1,)]


def test_a_seeded_storm_is_survived_by_retries(front: FrontProcess) -> None:
    """Twelve inserts under their tokens, retried through a random schedule of every transient fault, are stored once each."""
    before = stored(front)
    schedule = seeded(seed=20261121, length=40, rate=0.5)
    assert schedule == seeded(seed=20261121, length=40, rate=0.5)
    attempts = 0
    with FaultyFront(front.host, front.port, schedule, match=inserts) as faulty:
        client = client_of(faulty)
        for number in range(12):
            deadline = time.monotonic() + 60
            while True:
                attempts += 1
                assert time.monotonic() < deadline
                try:
                    insert(client, f"storm {number}")
                except ClickHouseUnavailable:
                    continue
                break
        assert len(faulty.injected) == attempts - 12 > 0
    assert stored(front) == before + 12 * ROWS.num_rows


def test_after_a_full_disk_the_next_insert_finds_what_is_there(front: FrontProcess) -> None:
    """Rows that the engine shows and could not write are gone before anything is inserted again, so that its sender can see it."""
    front.request("CREATE TABLE full (a Int64) ENGINE = MergeTree ORDER BY a")
    front.request("INSERT INTO full VALUES (1)")
    (path,) = front.request("SELECT path FROM system.parts WHERE table = 'full' AND active").text.split()
    (Path(path) / "checksums.txt").write_bytes(b"")
    assert front.request("SELECT count() FROM full").text == "1\n"
    refused = front.request(
        "INSERT INTO full SELECT throwIf(number = 0, 'No space left on device') FROM numbers(1)"
    )
    assert refused.status >= 400
    assert front.request("SELECT count() FROM full").text == "1\n"
    front.request("INSERT INTO full VALUES (2)")
    assert front.request("SELECT a FROM full").text == "2\n"
