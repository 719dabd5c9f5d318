"""With a real Fluent Bit between files and Kafka: restarts, kills and rotation, and then every line once.

    FLUENT_BIT=/usr/bin/fluent-bit python -m pytest tests/e2e/test_fluent_bit.py -s

prints what Fluent Bit itself lost and repeated.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import hostile
from support.cli import query, report
from support.kafka import KafkaBroker, wait_until

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "fluent-bit"
LINES = 22_000
ROTATIONS = 10
RESTARTS = 10
LINES_A_SECOND = 900

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif("FLUENT_BIT" not in os.environ, reason="FLUENT_BIT names no fluent-bit binary"),
]


class Writer(threading.Thread):
    """Appends lines to a log, evenly over time, and rotates it by renaming, as FileLogger does."""

    def __init__(self, path: Path, lines: int) -> None:
        super().__init__()
        self.path = path
        self.lines = lines
        self.rotations = 0

    def run(self) -> None:
        began = time.monotonic()
        for number in range(self.lines):
            with self.path.open("ab", buffering=0) as log:
                log.write(hostile.neighbour(number))
            if (number + 1) % (self.lines // (ROTATIONS + 1)) == 0 and self.rotations < ROTATIONS:
                self.rotations += 1
                self.path.rename(self.path.with_name(f"{self.path.name}.{self.rotations}"))
            ahead = number / LINES_A_SECOND - (time.monotonic() - began)
            if ahead > 0.02:
                time.sleep(ahead)


class FluentBit:
    """A configuration of ours, as it stands but for its folder and its port, under a process that can be ended.

    Args:
        home: Where its database, its chunks and its log go.
        configuration: A file of fluent-bit/.
        environment: The variables that the file names.
    """

    def __init__(self, home: Path, configuration: str, environment: dict[str, str]) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            self.port = holder.getsockname()[1]
        text = (CONFIGURATIONS / configuration).read_text().replace("/var/lib/fluent-bit", str(home))
        self._file = home / configuration
        self._file.write_text(re.sub(r"(http_port:?\s+)2020", rf"\g<1>{self.port}", text))
        self._log = home / "fluent-bit.log"
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        """What it logged, over all its starts."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [os.environ["FLUENT_BIT"], "-c", str(self._file)],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"Fluent Bit answers; it said {self.said[-600:]}", 20)

    def end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(60)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said[-2000:]
        try:
            return bool(self.get("/api/v1/uptime"))
        except OSError:
            return False

    def kill(self) -> None:
        """Whatever state a test left it in."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)


Make = Callable[[str, dict[str, str]], FluentBit]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a `FluentBit` of a configuration and an environment; none outlives the test."""
    made: list[FluentBit] = []

    def new(configuration: str, environment: dict[str, str]) -> FluentBit:
        home = tmp_path / "state"
        home.mkdir()
        made.append(FluentBit(home, configuration, environment))
        return made[-1]

    yield new
    for each in made:
        each.kill()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("configuration", ["fluent-bit.yaml", "fluent-bit.conf"])
def test_restarted_killed_and_rotated(
    configuration: str, tmp_path: Path, kafka: KafkaBroker, make: Make
) -> None:
    """Every line that reaches Kafka, however often, is one row; stopping loses none; what a kill lost, reading the files
    once more brings, and nothing else."""
    topic = f"fluent-{configuration.rpartition('.')[2]}"
    kafka.create_topic(topic, partitions=3, config={"max.message.bytes": "10485760"})
    logs, database = tmp_path / "logs", tmp_path / "db"
    logs.mkdir()
    environment = {"TAILRACE_LOGS": str(logs), "TAILRACE_TOPIC": topic, "KAFKA_BROKERS": kafka.bootstrap}
    fluent_bit = make(configuration, environment)
    writer = Writer(logs / "app.log", LINES)
    writer.start()
    fluent_bit.start()
    for restart in range(RESTARTS):
        time.sleep(0.7 + 0.17 * restart)
        fluent_bit.end((signal.SIGKILL, signal.SIGTERM)[restart % 2])
        fluent_bit.start()
    writer.join()
    assert writer.rotations == ROTATIONS
    written = set(range(LINES))
    wait_until(
        lambda: LINES - 1 in numbers(kafka, topic) and drained(fluent_bit),
        "the last line is in Kafka",
        60,
        0.5,
    )
    assert "fluentbit_output_proc_records_total" in fluent_bit.get("/api/v1/metrics/prometheus")
    fluent_bit.end(signal.SIGTERM)

    arrived = numbers(kafka, topic)
    lost = written - arrived.keys()
    repeated = sum(arrived.values()) - len(arrived)
    print(f"\n{configuration}: {LINES} lines, {ROTATIONS} rotations, {RESTARTS // 2} kills, {RESTARTS // 2} stops: "
          f"lost {len(lost)}, repeated {repeated}")  # fmt: skip
    assert arrived.keys() <= written

    ingested = report(
        "ingest", "--once", "--kafka", kafka.bootstrap, "--topic", topic, "--clickhouse", f"chdb://{database}"
    )
    assert ingested["dead_letters"] == 0
    assert rows(database) == (len(arrived), len(arrived))

    report("up", "--once", logs, "--clickhouse", f"chdb://{database}")
    assert rows(database) == (LINES, LINES)


@pytest.mark.timeout(120)
def test_stopped_only(tmp_path: Path, kafka: KafkaBroker, make: Make) -> None:
    """Stopped by SIGTERM again and again, and rotated: no line is lost."""
    kafka.create_topic("fluent-stopped", partitions=3)
    logs = tmp_path / "logs"
    logs.mkdir()
    lines = LINES // 4
    environment = {
        "TAILRACE_LOGS": str(logs),
        "TAILRACE_TOPIC": "fluent-stopped",
        "KAFKA_BROKERS": kafka.bootstrap,
    }
    fluent_bit = make("fluent-bit.yaml", environment)
    writer = Writer(logs / "app.log", lines)
    writer.start()
    while writer.is_alive():
        fluent_bit.start()
        time.sleep(0.8)
        fluent_bit.end(signal.SIGTERM)
    writer.join()
    fluent_bit.start()
    wait_until(
        lambda: lines - 1 in numbers(kafka, "fluent-stopped") and drained(fluent_bit),
        "the last line",
        60,
        0.5,
    )
    fluent_bit.end(signal.SIGTERM)
    arrived = numbers(kafka, "fluent-stopped")
    print(f"\nstopped only: {lines} lines: repeated {sum(arrived.values()) - len(arrived)}")
    assert arrived.keys() == set(range(lines))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("configuration", sorted(path.name for path in CONFIGURATIONS.glob("fluent-bit*.*")))
def test_every_configuration_is_accepted(configuration: str, tmp_path: Path) -> None:
    """Fluent Bit itself takes each file: no unknown property, no unknown plugin."""
    shutil.copy(CONFIGURATIONS / configuration, tmp_path)
    done = subprocess.run(
        [os.environ["FLUENT_BIT"], "-c", str(tmp_path / configuration), "--dry-run"],
        env={
            **os.environ,
            "TAILRACE_LOGS": str(tmp_path),
            "TAILRACE_TOPIC": "t",
            "KAFKA_BROKERS": "127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def numbers(kafka: KafkaBroker, topic: str) -> Counter[int]:
    """How often each line of the writer is in Kafka."""
    return Counter(int(json.loads(value)["message"].split()[1]) for value in kafka.values(topic))


def drained(fluent_bit: FluentBit) -> bool:
    """Whether no chunk waits."""
    try:
        figures = json.loads(fluent_bit.get("/api/v1/storage"))
    except urllib.error.HTTPError:
        return False  # there are none in its first seconds
    return bool(figures["storage_layer"]["chunks"]["total_chunks"] == 0)


def rows(database: Path) -> tuple[int, int]:
    """Lines as queries find them: after the merges that replace repetitions, and by trace."""
    (counts,) = query(
        database, "SELECT uniqExact(trace_id, ts, line_hash) AS rows, uniqExact(trace_id) AS traces FROM logs"
    )
    return counts[0]["rows"], counts[0]["traces"]
