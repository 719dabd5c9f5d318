"""Files of every form into the embedded engine, under SIGKILL: reader, workers and engine die together."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from crash import stores
from crash.check import Outcome
from crash.written import line
from support.archives import write_forms
from support.processes import family, resident
from tailrace.schemas.crash import POINTS, VARIABLE

pytestmark = pytest.mark.timeout(2 * 3600)

PROCESS = Path(__file__).resolve().parents[1] / "ingestor" / "backfill_process.py"
OUR_POINTS = [point for point in POINTS if point.startswith("backfill.")]
# Of the ingestor's those that storing a batch passes; there is no offset to commit.
STORE_POINTS = ["ingest.before-table", "ingest.after-table", "ingest.before-ledger", "ingest.after-ledger"]
WORKERS = 2
MEMORY_MB = {"parent": 1600, "worker": 500}
"""The parent holds the engine with its caches and merges; neither bound grows with the files."""


class Killed:
    """Backfills of a directory, most of them ended before their time, and what they held in memory."""

    def __init__(self, dsn: str, directory: Path, range_bytes: int, outcome: Outcome) -> None:
        self._command = [sys.executable, str(PROCESS), dsn, str(range_bytes), str(WORKERS), str(directory)]
        self._outcome = outcome
        self.peak = {"parent": 0.0, "worker": 0.0}

    def at(self, point: str, passes: int) -> None:
        """One run that ends when it passes a point for the given time, if it does."""
        code, _ = self._run({VARIABLE: f"{point}:{passes}"}, None)
        self._outcome.faults[point] += code == -signal.SIGKILL

    def after(self, seconds: float) -> None:
        """One run that is killed after so long, if it has not ended by itself."""
        code, _ = self._run({}, seconds)
        self._outcome.faults["kill backfill"] += code == -signal.SIGKILL

    def to_the_end(self) -> dict[str, object]:
        """One run that nobody disturbs; its report."""
        code, output = self._run({}, None)
        assert code == 0
        report: dict[str, object] = json.loads(output)
        return report

    def _run(self, environment: dict[str, str], seconds: float | None) -> tuple[int, str]:
        process = subprocess.Popen(
            self._command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        watch = threading.Thread(target=self._watch, args=(process,))
        watch.start()
        if seconds is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
        output, errors = process.communicate(timeout=3600)
        watch.join()
        assert process.returncode in (0, -signal.SIGKILL), errors
        return process.returncode, output

    def _watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            parent, *workers = (resident(each) / 2**20 for each in family(process.pid))
            self.peak["parent"] = max(self.peak["parent"], parent)
            self.peak["worker"] = max(self.peak["worker"], *workers, 0.0)
            time.sleep(0.1)


def _lines(writer: int, count: int) -> Iterator[bytes]:
    return (line(writer, number).data + b"\n" for number in range(count))


def _write_half_gzipped(directory: Path, files: int, lines: int) -> stores.Stored:
    """As many files on all cores; what must be stored of them."""
    directory.mkdir()
    model = stores.Stored()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        paths = [directory / f"w{number}.log{'.gz' if number % 2 else ''}" for number in range(files)]
        for found in pool.map(stores.write, paths, range(files), [lines] * files):
            model += found
    return model


def _number(name: str, default: int) -> int:
    return int(os.environ.get(f"TAILRACE_BACKFILL_{name}", str(default)))


@pytest.mark.parametrize("size", ["short", pytest.param("long", marks=pytest.mark.soak)])
def test_backfill_killed(tmp_path: Path, size: str, outcome: Outcome) -> None:
    """A backfill over plain, compressed and packed files (long: half of them gzipped) that ends at every named step of its path
    and at random times stores every line once in every table, without a merge to hide a second copy, in ranges that follow on one
    another; a run after that finds nothing to do. No process ever holds more than its bound, however many lines there are.

    `TAILRACE_BACKFILL_FILES`, `…_LINES` (of each) and `…_KILLS` say how long the long one is."""
    chance = random.Random(seed := int(os.environ.get("TAILRACE_SEED", "7")))
    directory, long = tmp_path / "logs", size == "long"
    files = _number("FILES", 40) if long else 8
    lines = _number("LINES", 500_000) if long else 400
    kills = _number("KILLS", 20) if long else 1
    counts = dict.fromkeys(range(files), lines)
    if long:
        model = _write_half_gzipped(directory, files, lines)
    else:
        write_forms(directory, {f"w{n}.log": b"".join(_lines(n, lines)) for n in range(files)})
        model = stores.expected(counts)
    dsn = stores.create_embedded(tmp_path / "db")
    run = Killed(dsn, directory, 8 << 20 if long else 1 << 14, outcome)
    points = OUR_POINTS + STORE_POINTS
    for number, point in enumerate(points):
        run.at(point, 1 + (number + seed) % 3)
    # Faster than it is: a run that is through before its end is no kill, and one that is behind is gone on with in the end.
    pause = max(2.5, files * lines / 150_000 / (kills + 1))
    for _ in range(kills):
        run.after(pause * chance.uniform(0.4, 1.6))
    report = run.to_the_end()
    assert report["errors"] == {} and report["complete"] == files, report
    stored = stores.read(dsn)
    outcome.count_stored(stored, model, counts)
    outcome.count_ledger(stored.ledger, counts, "file:content-")
    outcome.notes = ", ".join(f"{who} at most {peak:,.0f} MB" for who, peak in run.peak.items())
    outcome.assert_exact()
    assert sum(outcome.faults[point] for point in points) >= len(points) // (1 if long else 2), outcome
    assert all(peak < MEMORY_MB[who] for who, peak in run.peak.items()), outcome.notes
    again = run.to_the_end()
    assert (again["finished_before"], again["lines"]) == (files, 0)
