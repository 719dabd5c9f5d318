"""Memory over a long run: resident size of shipper, ingestor and server at each tenth of the lines, with real Kafka.

    cd tests && python -m benchmarks.memory 10000000

The ingestor writes over HTTP, so that ClickHouse's own memory is another process's. Asserts the counts. 10,000,000 lines (4.95 GB) on
two shared cores with a load of 8 to 15 beside it, median MB in each tenth of the time, the peak of all at the end:

    ship     97 130 124 124 125 125 125 125 124 122   136
    ingest  454 592 656 583 579 570 635 593 657 689   734
    server  395 419 444 449 520 506 514 500 670 530   822
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from benchmarks.corpus import lines as corpus_lines
from support.front import FrontProcess
from support.kafka import KafkaBroker
from support.processes import resident
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate

TENTHS = 10
PARTITIONS = 4


def run(lines: int, command: list[str], others: Mapping[str, int]) -> None:
    """One command to its end; a row of the table for each tenth of its time: the median of the samples in it."""
    name = command[0]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tailrace.cli", *command, "--once", "--format", "json"], stdout=output
        )
        watched = {name: process.pid, **others}
        samples: list[dict[str, float]] = []
        while process.poll() is None:
            samples.append({who: resident(pid) / 2**20 for who, pid in watched.items()})
            time.sleep(0.25)
        output.seek(0)
        document = json.load(output)
    assert process.returncode == 0, document
    assert document["lines"] == lines, document
    print(
        f"{name}: {lines / (time.monotonic() - began):,.0f} lines/s, median (peak) MB in each tenth of the time"
    )
    for who in watched:
        tenths = [
            [
                sample[who]
                for sample in samples[part * len(samples) // TENTHS : (part + 1) * len(samples) // TENTHS]
            ]
            for part in range(TENTHS)
        ]
        row = "  ".join(f"{statistics.median(tenth):.0f} ({max(tenth):.0f})" for tenth in tenths if tenth)
        print(f"  {who:7} {row}", flush=True)


def main(lines: int) -> None:
    """Ships and ingests a corpus of ten files."""
    with tempfile.TemporaryDirectory(prefix="tailrace-memory-") as name:
        home = Path(name)
        for number in range(TENTHS):
            with (home / f"corpus-{number}.log").open("wb") as file:
                file.writelines(corpus_lines(lines // TENTHS, seed=number))
        lines = lines // TENTHS * TENTHS
        broker, front = KafkaBroker(home / "kafka"), FrontProcess(home / "chdb")
        broker.start()
        front.start()
        try:
            kafka = ["--kafka", broker.bootstrap]
            dsn = f"clickhouse://127.0.0.1:{front.port}/tailrace"
            with closing(connect(Dsn.parse(dsn), create_database=True)) as client:
                migrate(client)
            identity = ["--shipper-id", "memory", "--partitions", str(PARTITIONS)]
            run(lines, ["ship", *kafka, *identity, f"{home}/*.log"], {})
            run(lines, ["ingest", *kafka, "--clickhouse", dsn], {"server": front.process.pid})
        finally:
            front.stop()
            broker.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
