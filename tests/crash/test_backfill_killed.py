"""Files of every form into the embedded engine, under SIGKILL: reader, workers and engine die together."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crash import stores
from crash.written import line
from support.archives import write_forms
from tailrace.schemas.crash import POINTS, VARIABLE

pytestmark = pytest.mark.timeout(3600)

PROCESS = Path(__file__).resolve().parents[1] / "ingestor" / "backfill_process.py"
RANGE_BYTES = 16 * 1024
BACKFILL_POINTS = [point for point in POINTS if point.startswith("backfill.")]
STORE_POINTS = ["ingest.after-table", "ingest.before-ledger"]


def _command(dsn: str, directory: Path) -> list[str]:
    return [sys.executable, str(PROCESS), dsn, str(RANGE_BYTES), "2", str(directory)]


def _kill(dsn: str, directory: Path, at: str = "", after: float = 0.0) -> bool:
    """One run that ends at a named point or after some time; whether it was killed before its end."""
    environment = {**os.environ, **({VARIABLE: at} if at else {})}
    process = subprocess.Popen(
        _command(dsn, directory),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not at:
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def _run(dsn: str, directory: Path) -> dict[str, object]:
    done = subprocess.run(_command(dsn, directory), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


def _assert_exact(stored: stores.Stored, expected: stores.Stored) -> None:
    assert stored.tables == expected.tables
    assert stored.dead_letters == expected.dead_letters
    ends: dict[str, int] = {}
    for stream, start, end, _ in stored.ledger:
        assert ends.get(stream, 0) == start, f"{stream} has a gap or an overlap at {start}"
        ends[stream] = end


@pytest.mark.parametrize(
    ("files", "lines", "kills"),
    [
        pytest.param(8, 400, 1, id="short"),
        pytest.param(
            int(os.environ.get("TAILRACE_BACKFILL_FILES", "40")),
            int(os.environ.get("TAILRACE_BACKFILL_LINES", "500000")),
            int(os.environ.get("TAILRACE_BACKFILL_KILLS", "20")),
            id="long",
            marks=[pytest.mark.soak, pytest.mark.timeout(4 * 3600)],
        ),
    ],
)
def test_backfill_killed(tmp_path: Path, files: int, lines: int, kills: int) -> None:
    """A backfill over plain, compressed and packed files that ends at every named step of its path and at random times
    stores every line once in every table, without a merge to hide a second copy, in ranges that follow on one another; a
    run after that finds nothing to do."""
    seed = int(os.environ.get("TAILRACE_SEED", "7"))
    chance = random.Random(seed)
    dsn = stores.create_embedded(tmp_path / "db")
    counts = dict.fromkeys(range(files), lines)
    write_forms(
        tmp_path / "logs",
        {f"w{n}.log": b"".join(line(n, i).data + b"\n" for i in range(lines)) for n in range(files)},
    )
    killed = 0
    for number, point in enumerate(BACKFILL_POINTS + STORE_POINTS):
        killed += _kill(dsn, tmp_path / "logs", f"{point}:{1 + (number + seed) % 3}")
    for _ in range(kills):
        killed += _kill(dsn, tmp_path / "logs", after=chance.uniform(1.0, 4.0))
    report = _run(dsn, tmp_path / "logs")
    assert report["errors"] == {} and report["complete"] == files, report
    _assert_exact(stores.read(dsn), stores.expected(counts))
    assert killed >= len(BACKFILL_POINTS + STORE_POINTS) // 2, "the points were hardly passed"
    again = _run(dsn, tmp_path / "logs")
    assert (again["finished_before"], again["lines"]) == (files, 0)
