"""`tailrace backfill` as people run it: beside a live `tailrace up`, interrupted, and its exit codes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from crash import stores
from crash.writer import Writers, write_files
from crash.written import line
from support.archives import write_forms
from support.cli import query, report, start, tailrace
from support.kafka import KafkaBroker, wait_until
from tailrace.schemas.clickhouse.connection import read_front
from tailrace.schemas.crash import VARIABLE

pytestmark = pytest.mark.timeout(600)


def _age(directory: Path) -> None:
    """As if nobody had written for an hour."""
    moment = time.time() - 3600
    for path in directory.rglob("*"):
        os.utime(path, (moment, moment))


def _asked(dsn: str) -> list[object]:
    """What readers are told of everything; the order in which floats are added up may tell in their last digits."""
    slices = report("slice", "", "--by", "client", "--metric", "latency_ms", "--clickhouse", dsn)
    slices = json.loads(json.dumps(slices), parse_float=lambda digits: round(float(digits), 6))
    trace = report("trace", "t0-1", "--clickhouse", dsn)
    return [
        slices,
        trace,
        query(dsn, "SELECT name, uniqCombined64Merge(12)(lines) FROM tag_stats GROUP BY name ORDER BY name"),
    ]


def test_beside_a_live_pipeline(tmp_path: Path) -> None:
    """Over files that a running `up` follows while services write and rotate them, through its HTTP front, while they are
    written, and once over compressed copies of everything: every line is there once in every table as readers count, and the
    dead letters are the garbage that was written. What was rotated under its hands is reported, and nothing else."""
    directory, dsn = tmp_path / "logs", f"chdb://{tmp_path / 'db'}"
    writers = Writers(directory, 2, 2_000, 4, 3.0)
    up = start("up", directory, "--clickhouse", dsn, "--http", "127.0.0.1:0")
    try:
        wait_until(lambda: read_front(str(tmp_path / "db")) is not None, "the front", 60)
        live = [report("backfill", directory, "--clickhouse", dsn, check=None)]
        counts = writers.finish()
        archive = tmp_path / "archive"
        archive.mkdir()
        for path in directory.iterdir():
            (archive / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        last = report("backfill", archive, "--clickhouse", dsn)
        assert last["errors"] == {}
        for error in [error for run in live for error in run["errors"].values()]:
            assert "meanwhile" in error or "No such file" in error, error
        expected = sum(counts.values())
        wait_until(
            lambda: (
                query(
                    dsn, "SELECT sum(lines) AS n FROM ledger WHERE NOT startsWith(stream, 'file:content-')"
                )[0][0]["n"]
                == expected
            ),
            "up to have stored everything",
            60,
        )
    finally:
        writers.kill()
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    asked = _asked(dsn)
    stores.merge(dsn)
    assert _asked(dsn) == asked
    stored, model = stores.read(dsn), stores.expected(counts)
    assert stored.tables == model.tables
    assert stored.dead_letters.distinct == model.dead_letters.distinct


def _drain(terminal: int, shown: list[bytes]) -> None:
    with suppress(OSError):  # its other side is closed
        while data := os.read(terminal, 65536):
            shown.append(data)


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    """On a terminal there are bars with rate, rejected lines and the file under way. Ctrl-C ends it with 130 and a sentence;
    --status says how far it got; the same command finishes it, and after that says that there is nothing to do. Tables hold every
    line once."""
    directory, dsn = tmp_path / "logs", f"chdb://{tmp_path / 'db'}"
    counts = write_files(directory, [40_000])  # more than a range: at this rate, the second is long in coming
    _age(directory)
    ours, theirs = os.openpty()
    process = start(
        *("backfill", directory, "--clickhouse", dsn, "--rate", "5000"),
        environment={"TERM": "xterm", "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown: list[bytes] = []
    drain = Thread(target=_drain, args=(ours, shown))
    drain.start()
    wait_until(lambda: process.poll() is not None or b"rejected" in b"".join(shown), "bars", 60)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    drain.join(10)
    os.close(ours)
    assert process.returncode == 130 and "the same command goes on" in output, output
    (file,) = report("backfill", directory, "--clickhouse", dsn, "--status")
    assert file["state"] in ("new", "begun")
    first = report("backfill", directory, "--clickhouse", dsn)
    assert first["lines"] + first["there"]["lines"] == sum(counts.values())
    again = tailrace("backfill", directory, "--clickhouse", dsn)
    assert again.stdout.startswith("nothing to do: all 1 files were finished before")
    stored, model = stores.read(dsn), stores.expected(counts)
    assert stored.tables == model.tables and stored.dead_letters == model.dead_letters


def test_finished_without_the_engine(tmp_path: Path) -> None:
    """A run that finds everything finished leaves a note, and the next one says the same without starting the engine; not for a
    file that has grown, not for another selection, and not after a table was dropped."""
    directory, dsn = tmp_path / "logs", f"chdb://{tmp_path / 'db'}"
    counts = write_files(directory, [300, 200])
    _age(directory)

    def run(*more: str) -> tuple[dict[str, Any], bool]:
        done = tailrace(
            *("backfill", directory, "--clickhouse", dsn, "--format", "json", *more),
            environment={"PYTHONPROFILEIMPORTTIME": "1"},
        )
        # pyarrow would load it in every process, to see that a list is none of its types.
        assert "| pandas.core" not in " ".join(done.stderr.split())
        return json.loads(done.stdout), "chdb" in done.stderr

    first, looked = run("--workers", "1")
    assert looked and first["lines"] == sum(counts.values())
    wait_until(lambda: not run()[1], "a note that holds, once all merges are done", 60)
    again, looked = run()
    assert not looked and (again["finished_before"], again["lines"]) == (2, 0)
    assert {name: again["there"][name] for name in ("lines", "rows", "dead_letters", "bytes")} == {
        name: first[name] for name in ("lines", "rows", "dead_letters", "bytes")
    }
    assert run("--kind", "text", "--dry-run")[1]
    path = next(directory.iterdir())
    path.write_bytes(path.read_bytes() + line(9, 1).data + b"\n")
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    grown, looked = run()
    assert looked and (grown["finished_before"], grown["lines"]) == (1, 1)
    wait_until(lambda: not run()[1], "a note of the new state", 60)
    query(dsn, "DROP TABLE statistics")
    assert run()[1]


def test_faults_are_told(tmp_path: Path) -> None:
    """A damaged file makes the exit code 1 and is named with its fault; the others are stored. Standard input works in a pipe,
    wrong selections are refused with 2, and a dry run makes no database."""
    directory, dsn = tmp_path / "logs", f"chdb://{tmp_path / 'db'}"
    write_files(directory, [50, 50])
    (directory / "w1.log.gz").write_bytes(gzip.compress((directory / "w1.log").read_bytes())[:-50])
    (directory / "w1.log").unlink()
    _age(directory)
    dry = tailrace("backfill", directory, "--clickhouse", dsn, "--dry-run", check=1)
    assert "would be stored" in dry.stdout and not (tmp_path / "db").exists()
    done = tailrace("backfill", directory, "--clickhouse", dsn, check=1)
    assert "w1.log.gz" in done.stdout and "end-of-stream" in done.stdout
    piped = subprocess.run(
        [sys.executable, "-m", "tailrace.cli", "backfill", "-", "--clickhouse", dsn, "--format", "json"],
        input=b"".join(line(1, number).data + b"\n" for number in range(50)),
        capture_output=True,
        timeout=120,
    )
    assert piped.returncode == 0, piped.stderr
    document = json.loads(piped.stdout)
    assert document["lines"] + document["there"]["lines"] == 50
    refused = tailrace("backfill", directory, "--clickhouse", dsn, "--kind", "poem", check=2)
    assert "--kind poem is not one of" in refused.stderr


@pytest.mark.kafka
def test_into_kafka(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Plain, compressed and packed files go to Kafka, every line once, also when it is killed in between; copies are known,
    what was appended follows, files that only begin alike are told apart, and a finished run is told at once."""
    topic, arguments = "backfill", ["--kafka", kafka.bootstrap, "--topic", "backfill"]
    write_forms(
        tmp_path / "logs",
        {f"w{n}.log": b"".join(line(n, i).data + b"\n" for i in range(2_000)) for n in range(8)},
    )
    _age(tmp_path)
    for point in ("ship.after-records:2", "ship.after-commit:4"):
        killed = tailrace("backfill", tmp_path, *arguments, environment={VARIABLE: point}, check=None)
        assert killed.returncode == -signal.SIGKILL
    report("backfill", tmp_path, *arguments)
    again = report("backfill", tmp_path, *arguments)
    assert (again["lines"], again["finished_before"]) == (0, 8)
    (tmp_path / "copy.log.gz").write_bytes(gzip.compress((tmp_path / "logs" / "w0.log").read_bytes()))
    with (tmp_path / "logs" / "w0.log").open("ab") as log:
        log.write(b"".join(line(0, i).data + b"\n" for i in range(2_000, 2_100)))
    begins = b"".join(line(0, i).data + b"\n" for i in range(1_900))
    (tmp_path / "other.log").write_bytes(begins + b"".join(line(9, i).data + b"\n" for i in range(300)))
    _age(tmp_path)
    assert report("backfill", tmp_path / "copy.log.gz", *arguments)["lines"] == 0
    assert report("backfill", tmp_path / "logs", *arguments)["lines"] == 100
    assert report("backfill", tmp_path / "other.log", *arguments)["lines"] == 2_200
    lines = Counter(piece for value in kafka.values(topic) for piece in value.rstrip(b"\n").split(b"\n"))
    expected = Counter({line(n, i).data: 1 for n in range(8) for i in range(2_000 if n else 2_100)})
    expected.update(line(0, i).data for i in range(1_900))
    expected.update(line(9, i).data for i in range(300))
    assert lines == expected
