"""File → rows, by each pipeline, with real Kafka: lines a second, CPU and peak memory of every process. Asserts the counts.

    cd tests && python -m benchmarks.pipeline 1000000

Exactly once and validation are on, as shipped. Two shared cores with other work on them, Python 3.11, chDB 26.9, 1,000,000 lines of
`corpus` (498 MB):

    up      31,000 to 50,000 lines/s, 30 to 37 s of CPU, 820 MB peak RSS, of which chDB takes most

Of the CPU about a third is decoding (18 µs a line before, 12 µs after tags were kept as two integers each); the rest is ClickHouse:
`tag_lines` and, through its view, `tags` take five times as long as `logs`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.corpus import write
from support.kafka import KafkaBroker


def run(name: str, lines: int, *arguments: str | Path) -> None:
    """One command to its end, measured."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tailrace.cli", *map(str, arguments), "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate()
    seconds = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    document = json.loads(output)
    assert process.returncode == 0, output
    assert document["lines"] == lines, document
    assert document.get("rows", lines) == lines, document
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{name:8} {lines / seconds:10,.0f} lines/s  {seconds:6.1f} s  {cpu:6.2f} s of CPU  "
        f"{usage.ru_maxrss / 1024:6.0f} MB peak so far  load {os.getloadavg()[0]:.1f}"
    )


def main(lines: int) -> None:
    """Runs all of them on one corpus."""
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as name:
        home = Path(name)
        size = write(home / "corpus.log", lines)
        print(f"{lines:,} lines, {size / 1e6:.0f} MB")
        broker = KafkaBroker(home / "kafka")
        broker.start()
        try:
            where = ["--kafka", broker.bootstrap, "--once"]
            run("ship", lines, "ship", *where, "--shipper-id", "bench", home / "corpus.log")
            run("ingest", lines, "ingest", *where, "--clickhouse", f"chdb://{home}/ingested")
        finally:
            broker.stop()
        run("up", lines, "up", "--once", "--clickhouse", f"chdb://{home}/up", home / "corpus.log")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
