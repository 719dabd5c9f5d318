"""Profiles of the hot paths, one file each, into the output folder.

With py-spy (`pip install py-spy`) and where ptrace is allowed, flame graphs of all threads and workers, `<path>.svg`. Otherwise a
table of cProfile, `<path>.txt`, of every thread of the first process.

    cd tests && python -m benchmarks.profiles OUT.txt ship --kafka …     # the table, of any tailrace command
"""

from __future__ import annotations

import cProfile
import pstats
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.measure import CODE, Bench, tailrace

RATE = 200
"""Samples a second."""


def profile(bench: Bench) -> list[Path]:
    """Shipping, ingesting and backfilling; returns what was written."""
    corpus, brokers = bench.corpus(bench.plan.ship), bench.kafka.bootstrap
    topic = bench.name("profile")
    kafka = ["--kafka", brokers, "--topic", topic]
    commands: dict[str, list[str]] = {
        "ship": ["ship", *kafka, "--shipper-id", topic, "--once", str(corpus)],
        "ingest": ["ingest", *kafka, "--clickhouse", f"chdb://{bench.home / bench.name('db')}", "--once"],
        "backfill": ["backfill", str(corpus), "--clickhouse", f"chdb://{bench.home / bench.name('db')}"],
    }
    return [_one(name, command, bench.out) for name, command in commands.items()]


def _one(name: str, command: list[str], out: Path) -> Path:
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is not None:
        found = out / f"{name}.svg"
        record = [spy, "record", "--subprocesses", "--threads", "--rate", str(RATE), "--output", str(found)]
        done = subprocess.run([*record, "--", *tailrace(*command)], capture_output=True, check=False)
        if done.returncode == 0 and found.exists():
            return found
    # Not here, or not allowed to look into another process.
    found = out / f"{name}.txt"
    subprocess.run([*CODE, "benchmarks.profiles", str(found), *command], check=True, capture_output=True)
    return found


def table(out: Path, arguments: list[str]) -> None:
    """Runs a tailrace command in this process, every thread of it under cProfile."""
    from tailrace.cli import main as command

    found: list[cProfile.Profile] = []

    def begin(*_: Any) -> None:
        mine = cProfile.Profile()
        found.append(mine)
        mine.enable()

    threading.setprofile(begin)
    begin()
    sys.argv = ["tailrace", *arguments]
    try:
        command()
    except SystemExit as exit:
        if exit.code:
            raise
    finally:
        found[0].disable()
        with out.open("w") as file:
            stats = pstats.Stats(found[0], stream=file)
            for each in found[1:]:
                stats.add(each)
            stats.sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    table(Path(sys.argv[1]), sys.argv[2:])
