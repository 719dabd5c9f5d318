"""SIGTERM and restart at any time lose nothing; what runs can be asked; a second process is told what to do."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from support import hostile
from support.cli import query, report, start, tailrace
from support.kafka import KafkaBroker, wait_until

LINES = 6000


class Writer(threading.Thread):
    """Appends lines to a log, some in two halves, and rotates it by renaming."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.failure: BaseException | None = None

    def run(self) -> None:
        rnd = random.Random(4)
        for number in range(LINES):
            line = hostile.neighbour(number)
            with self.path.open("ab", buffering=0) as log:
                if number % 7 == 0:
                    cut = rnd.randrange(len(line))
                    log.write(line[:cut])
                    line = line[cut:]
                log.write(line)
            if number % 1500 == 1499:
                self.path.rename(self.path.with_name(f"{self.path.name}.{number // 1500}"))
            if number % 20 == 0:
                time.sleep(0.01)


def stop(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> None:
    """SIGTERM or Ctrl-C: 0 when it was at work, 128 and the signal when it had not begun."""
    process.send_signal(how)
    assert process.wait(30) in (0, 128 + how)


def assert_each_once(database: Path) -> None:
    (counts,) = query(database, "SELECT count() AS rows, uniqExact(trace_id) AS traces FROM logs")
    assert counts == [{"rows": LINES, "traces": LINES}]


def test_up_stopped_and_started_again(tmp_path: Path) -> None:
    """`up` is terminated again and again while a rotating log is written; then each line is there once."""
    database, log = tmp_path / "db", tmp_path / "logs" / "app.log"
    log.parent.mkdir()
    writer = Writer(log)
    writer.start()
    runs = 0
    while writer.is_alive():
        process = start(
            "up", log.parent, "--clickhouse", f"chdb://{database}", "--http", "off", stdout=subprocess.DEVNULL
        )
        time.sleep(1.0 + 0.3 * runs)
        stop(process, (signal.SIGTERM, signal.SIGINT)[runs % 2])
        runs += 1
    writer.join()
    report("up", "--once", log.parent, "--clickhouse", f"chdb://{database}")
    assert runs >= 2
    assert_each_once(database)


@pytest.mark.kafka
def test_ship_and_ingest_stopped_and_started_again(tmp_path: Path, kafka: KafkaBroker) -> None:
    """The same for the shipper and the ingestor, each terminated at its own times."""
    database, log = tmp_path / "db", tmp_path / "logs" / "app.log"
    log.parent.mkdir()
    writer = Writer(log)
    writer.start()
    where = ["--kafka", kafka.bootstrap, "--topic", "restart"]
    ship = ["ship", log.parent, *where, "--shipper-id", "restart"]
    ingest = ["ingest", *where, "--clickhouse", f"chdb://{database}", "--session-timeout", "6"]
    shipper = start(*ship, stdout=subprocess.DEVNULL)
    while writer.is_alive():
        ingestor = start(*ingest, stdout=subprocess.DEVNULL)
        time.sleep(1.5)
        stop(shipper)
        shipper = start(*ship, stdout=subprocess.DEVNULL)
        time.sleep(1.0)
        stop(ingestor)
    writer.join()
    stop(shipper)
    report(*ship, "--once")
    report(*ingest, "--once")
    assert_each_once(database)


def test_what_runs_can_be_asked(tmp_path: Path) -> None:
    """While `up` holds the directory, other commands ask it through HTTP; a second `up` is told so in one sentence."""
    database, log = tmp_path / "db", tmp_path / "app.log"
    log.write_bytes(
        hostile.line(hostile.v1("tags", tags=[{"name": "client", "value": "bigshot"}]))
        + hostile.line(hostile.v1("text", message="hello"))
    )
    where = ["--clickhouse", f"chdb://{database}"]
    running = start(
        "up", log, *where, "--http", "127.0.0.1:0", stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        assert running.stderr is not None
        assert re.search(r"http://127\.0\.0\.1:\d+", running.stderr.readline())
        found = wait_until(
            lambda: (document := report("slice", "client==bigshot", *where))["traces"] and document,
            "the running `up` has stored the line",
        )
        assert found["traces"] == 1
        assert report("trace", "t", *where)["trace_id"] == "t"
        second = tailrace("up", log, *where, check=1)
        assert second.stderr.count("\n") == 1
        assert re.search(r"already holds .*stop it first.*http://127", second.stderr)
    finally:
        stop(running)
    assert report("slice", "client==bigshot", *where)["traces"] == 1
