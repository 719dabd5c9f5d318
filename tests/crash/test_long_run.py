"""Days of lines in an hour: shipped, stored and measured while logs rotate every few seconds."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.corpus import lines as corpus_lines
from support.cli import report
from support.front import FrontProcess
from support.kafka import KafkaBroker, wait_until
from support.observed import Running, running
from support.processes import resident
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate

pytestmark = [pytest.mark.soak, pytest.mark.kafka, pytest.mark.timeout(4 * 3600)]

LINES = int(os.environ.get("TAILRACE_SOAK_LONG_LINES", "50000000"))
"""About 475 bytes each."""
LINES_A_FILE = 50_000
BACKLOG = 20
"""Files that may wait to be shipped and stored before the writer waits too, so that the disk holds them."""
KEPT = 4
"""Rotated files that stay beside the log."""
SETTLED = 10_000_000
"""Lines from which on a tenth of the run is longer than it takes buffers and ClickHouse's caches to fill."""
SPREAD = 1.25
"""What the median of the last three tenths may be of that of the second to fourth; the first warms up. How many batches are under way
follows what else the machine does: 50 million lines beside a load of 8 to 25 had the ingestor at 829 890 1034 1159 1158 1120 1136
1162 909 923 MB, while whatever leaks only rises."""


class Service(threading.Thread):
    """Writes whole files of lines, rotates them away and deletes the oldest, as fast as they are stored."""

    def __init__(self, directory: Path, lines: list[bytes], stored: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        directory.mkdir()
        self.path = directory / "app.log"
        self.written = self.bytes = self.rotations = 0
        self._blocks = [b"".join(lines[at : at + 1000]) for at in range(0, len(lines), 1000)]
        self._stored = stored
        self.over = threading.Event()

    def run(self) -> None:
        """Until all lines are written, or it is over."""
        while self.written < LINES and not self.over.is_set():
            with self.path.open("ab", buffering=0) as file:
                for block in self._blocks:
                    file.write(block)
                    self.bytes += len(block)
            self.written += LINES_A_FILE
            self.rotations += 1
            self.path.rename(self.path.with_name(f"app.log.{self.rotations}"))
            while self.written - self._stored() > BACKLOG * LINES_A_FILE and not self.over.wait(0.2):
                pass
            if self.rotations > BACKLOG + KEPT:
                self.path.with_name(f"app.log.{self.rotations - BACKLOG - KEPT}").unlink()


def test_a_long_run_is_flat_and_agrees_with_itself(
    kafka: KafkaBroker, front: FrontProcess, tmp_path: Path
) -> None:
    """Through `ship`, Kafka and `ingest` with a rotation every few seconds: every line is counted once by the metrics of
    both, by the audit and by the ledger; memory, file handles and threads of both are as in the beginning."""
    topic = name = "long_run"
    dsn = f"clickhouse://127.0.0.1:{front.port}/{name}"
    with closing(connect(Dsn.parse(dsn), create_database=True)) as client:
        migrate(client)
    broker = ("--kafka", kafka.bootstrap, "--topic", topic)
    corpus = list(corpus_lines(LINES_A_FILE))
    logs = tmp_path / "logs"
    with (
        running(tmp_path / "ingest", "ingest", *broker, "--group", topic, "--clickhouse", dsn) as ingest,
        running(tmp_path / "ship", "ship", logs, *broker, "--shipper-id", topic) as ship,
    ):
        service = Service(logs, corpus, lambda: ingest.value("tailrace_ingestor_lines_total"))
        service.start()
        samples = _sampled(ship, ingest, service)
        wait_until(lambda: ship.value("tailrace_shipper_lag_bytes") == 0, "everything to be shipped", 600)
        wait_until(
            lambda: ingest.value("tailrace_ingestor_lines_total") == service.written,
            "everything to be stored",
            600,
        )
        assert ship.value("tailrace_shipper_lines_total") == service.written
        assert ship.value("tailrace_shipper_bytes_total") == service.bytes
        assert ship.value("tailrace_shipper_lost_bytes_total") == 0
        assert ingest.value("tailrace_ingestor_dead_letters_total") == 0
        rows = ingest.value("tailrace_ingestor_rows_total")
        ship.stop()
        ingest.stop()
    print(f"{service.written:,} lines, {service.rotations} rotations")
    tenths = {
        what: [
            statistics.median(values[len(values) * n // 10 : len(values) * (n + 1) // 10] or values[-1:])
            for n in range(10)
        ]
        for what, values in samples.items()
    }
    for what, medians in tenths.items():
        print(f"{what:16} {' '.join(f'{each:.0f}' for each in medians)}")
    audit = report(
        "audit", logs, *broker, "--group", topic, "--shipper-id", topic, "--clickhouse", dsn, seconds=2 * 3600
    )
    assert audit["accounted"], audit["findings"]
    with front.client(database=name) as client:
        (lines, stored, letters) = client.query(
            "SELECT sum(lines), sum(rows), sum(dead_letters) FROM ledger"
        ).result_rows[0]
    assert (lines, stored, letters) == (service.written, rows, 0)
    for what, medians in tenths.items():
        early, late = statistics.median(medians[1:4]), statistics.median(medians[7:])
        assert service.written < SETTLED or late <= SPREAD * early + 4, what


def _sampled(ship: Running, ingest: Running, service: Service) -> dict[str, list[float]]:
    """Memory in MB, open files and threads of both, twice a second until the service has written everything."""
    samples: dict[str, list[float]] = {}
    while service.is_alive():
        for name, one in (("ship", ship), ("ingest", ingest)):
            process = Path("/proc") / str(one.process.pid)
            assert one.process.poll() is None, one.errors
            samples.setdefault(f"{name} MB", []).append(resident(one.process.pid) / 2**20)
            for what, folder in (("files", "fd"), ("threads", "task")):
                samples.setdefault(f"{name} {what}", []).append(len(list((process / folder).iterdir())))
        time.sleep(0.5)
    return samples
