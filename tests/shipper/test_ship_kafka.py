"""Files to a real broker: what arrives, and what arrives when somebody kills something."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from shipper_process import delivery_of

from support.kafka import KafkaBroker, Message, wait_until
from tailrace.schemas.errors import KafkaRefused
from tailrace.schemas.kafka import KafkaConnection
from tailrace.shipper.run import Shipper
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.stats import Stats

pytestmark = pytest.mark.kafka

_topics = itertools.count()


@pytest.fixture
def topic() -> str:
    return f"ship-{next(_topics)}"


class Writers:
    """Threads that append to logs and rotate them by renaming, as fast as is set, until told to stop."""

    def __init__(self, directory: Path, count: int, lines: int, rotations: int, pause: float) -> None:
        self._directory = directory
        self._lines, self._rotations, self._pause = lines, rotations, pause
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(count)]
        self.expected = [b"%d-%06d" % (n, i) for n in range(count) for i in range(lines)]
        directory.mkdir(exist_ok=True)
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        path, seed = self._directory / f"w{number}.log", random.Random(number)
        every = self._lines // (self._rotations + 1) + 1
        i = rotation = 0
        while i < self._lines:
            block = min(seed.randrange(1, 200), self._lines - i, every - i % every)
            with path.open("ab") as file:
                for k in range(i, i + block):
                    # Some lines come in two writes, so that the shipper sees half of them.
                    file.write(b"%d-%06d %s" % (number, k, b"x" * seed.randrange(200)))
                    if k % 50 == 0:
                        file.flush()
                    file.write(b"\n")
            i += block
            if i % every == 0:
                rotation += 1
                path.rename(self._directory / f"w{number}.log.{rotation}")
            time.sleep(self._pause)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def process(**settings: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("shipper_process.py")), json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ship_once(**settings: Any) -> dict[str, Any]:
    done = process(once=True, **settings)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


def run_once(broker: KafkaBroker, **values: Any) -> Stats:
    settings = ShipperSettings.from_mapping(
        {"once": True, **values}, KafkaConnection(brokers=broker.bootstrap)
    )
    return asyncio.run(Shipper(settings, delivery_of(settings)).run())


def assert_each_once_in_order(messages: list[Message], expected: list[bytes]) -> None:
    """Every line once, each file's lines and each writer's in their order."""
    messages = sorted(messages, key=lambda m: m[:2])
    names = [(m.value or b"").split()[0] for m in messages]
    assert len(names) == len(set(names)), "a line is there twice"
    assert sorted(names) == sorted(expected)
    last: dict[bytes, int] = {}
    for message in messages:
        file_id, _, position = (message.key or b"").partition(b"@")
        assert last.get(file_id, -1) < int(position), "the lines of one file changed their order"
        last[file_id] = int(position)


@pytest.mark.parametrize(
    ("delivery", "compression", "message_bytes"),
    [
        ("exactly-once", "zstd", 0),
        ("exactly-once", "none", 1000),
        ("exactly-once", "snappy", 0),
        ("at-least-once", "lz4", 1000),
        ("at-least-once", "gzip", 1000),
    ],
)
def test_lines_arrive_with_their_origin(
    kafka: KafkaBroker, topic: str, tmp_path: Path, delivery: str, compression: str, message_bytes: int
) -> None:
    """A message is one line or several up to a size, without the last newline, keyed by file and byte; no message is
    blank; a file in one partition; bytes as they are; and a second run adds nothing."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.log").write_bytes(b'{"a":1}\n\n \t\n\xff\x00\xfe\r\nlast')
    (logs / "b.log").write_bytes(b"".join(b"%d\n" % i for i in range(5000)))
    values: dict[str, Any] = {
        "paths": [str(logs)],
        "topic": topic,
        "shipper_id": topic,
        "delivery": delivery,
        "compression": compression,
        "message_bytes": message_bytes,
        "checkpoint": str(tmp_path / "c.json") if delivery == "at-least-once" else None,
    }
    stats = run_once(kafka, **values)
    assert (stats.lines, stats.files, stats.lag_bytes) == (5005, 2, 0)
    run_once(kafka, **values)
    messages = kafka.read_all(topic)
    assert all((m.value or b"").strip() for m in messages)
    if message_bytes:
        assert len(messages) < 30
        assert max(len(m.value or b"") for m in messages) < message_bytes
    else:
        assert len(messages) == 5003
    found = [line for line in kafka.read_lines(topic) if (line.value or b"").strip()]
    assert len(found) == 5003
    by_file: dict[bytes, list[Message]] = {}
    for message in found:
        assert message.headers == ()
        by_file.setdefault((message.key or b"").partition(b"@")[0], []).append(message)
    a, b = sorted(by_file.values(), key=len)
    assert [(m.value, (m.key or b"").partition(b"@")[2]) for m in a] == [
        (b'{"a":1}', b"0"),
        (b"\xff\x00\xfe\r", b"12"),
        (b"last", b"17"),
    ]
    assert [m.value for m in b] == [b"%d" % i for i in range(5000)]
    assert len({m.partition for m in a}) == len({m.partition for m in b}) == 1


def test_a_line_over_the_limit_comes_as_its_head(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    """With the full length in a header; and a line of 5 MB that is under it comes whole."""
    (tmp_path / "a.log").write_bytes(
        b"before\n" + b"y" * 5_000_000 + b"\n" + b"x" * 20_000_000 + b"\nafter\n"
    )
    stats = run_once(kafka, paths=[str(tmp_path)], topic=topic, shipper_id=topic)
    assert (stats.lines, stats.oversized) == (4, 1)
    before, whole, head, after = kafka.read_lines(topic)
    assert (before.value, after.value) == (b"before", b"after")
    assert whole.value == b"y" * 5_000_000
    assert head.value == b"x" * (64 << 10)
    assert head.headers == (("tailrace-oversized", b"20000001"),)


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_line_that_the_broker_finds_too_large_comes_as_its_head(
    kafka: KafkaBroker, topic: str, tmp_path: Path, delivery: str
) -> None:
    """A topic with a low limit takes the head of a long line, and everything else whole; with exactly-once
    all of it once."""
    kafka.create_topic(topic, 1, {"max.message.bytes": "20000"})
    noise = random.Random(1)
    lines = [noise.randbytes(size).replace(b"\n", b".") for size in (10, 9000, 9000, 150_000, 9000, 10)]
    (tmp_path / "a.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run_once(
        kafka,
        paths=[str(tmp_path / "a.log")],
        topic=topic,
        shipper_id=topic,
        delivery=delivery,
        checkpoint=str(tmp_path / "c.json") if delivery == "at-least-once" else None,
    )
    found = kafka.read_lines(topic)
    cut = [m for m in found if m.headers]
    assert {m.headers for m in cut} == {(("tailrace-oversized", b"150000"),)}
    assert lines[3].startswith(cut[0].value or b"")
    assert len(cut[0].value or b"") >= 256
    assert {m.value for m in found if not m.headers} == {line for line in lines if len(line) < 100_000}
    if delivery == "exactly-once":
        assert len(found) == len(lines)


def test_killed_again_and_again_every_line_is_there_once(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """Exactly once: a shipper that is killed at random while files grow and rotate, with no state of its own,
    leaves every line once for readers of committed records, each file's in order."""
    settings = {
        "kafka": kafka.bootstrap,
        "paths": [str(tmp_path / "logs")],
        "topic": topic,
        "shipper_id": topic,
        "batch_bytes": 50_000,
        "partitions": 3,
        "idle_seconds": 60,
    }
    seed = random.Random(3)
    writers = Writers(tmp_path / "logs", count=2, lines=15_000, rotations=4, pause=0.05)
    for _ in range(6):
        shipper = process(**settings)
        time.sleep(seed.uniform(0.6, 1.6))  # a kill that hits the start is as good as one that hits a commit
        shipper.send_signal(signal.SIGKILL)
        shipper.communicate()
    writers.join()
    ship_once(**settings)
    assert_each_once_in_order(kafka.read_lines(topic), writers.expected)


def test_killed_again_and_again_no_line_is_lost_at_least_once(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """At least once, with progress in a local file: everything is there, in order where it is new."""
    settings = {
        "kafka": kafka.bootstrap,
        "paths": [str(tmp_path / "logs")],
        "topic": topic,
        "shipper_id": topic,
        "delivery": "at-least-once",
        "checkpoint": str(tmp_path / "c.json"),
        "batch_bytes": 50_000,
        "idle_seconds": 60,
    }
    seed = random.Random(4)
    writers = Writers(tmp_path / "logs", count=2, lines=8_000, rotations=3, pause=0.05)
    for _ in range(4):
        shipper = process(**settings)
        time.sleep(seed.uniform(0.5, 1.2))
        shipper.send_signal(signal.SIGKILL)
        shipper.communicate()
    writers.join()
    ship_once(**settings)
    found = {(m.value or b"").split()[0] for m in kafka.read_lines(topic)}
    assert found == set(writers.expected)


def test_terminated_it_stops_cleanly_and_goes_on_later(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """SIGTERM ends the process with success and a report; nothing is lost or repeated over it."""
    settings = {"kafka": kafka.bootstrap, "paths": [str(tmp_path)], "topic": topic, "shipper_id": topic}
    log = tmp_path / "w.log"
    log.write_bytes(b"".join(b"%d\n" % i for i in range(1000)))
    shipper = process(**settings)
    wait_until(lambda: len(kafka.read_lines(topic)) == 1000, "the first lines")
    with log.open("ab") as file:
        file.write(b"1000\n")
    shipper.terminate()
    out, err = shipper.communicate(timeout=20)
    assert shipper.returncode == 0, err
    assert json.loads(out)["lines"] in (1000, 1001)
    ship_once(**settings)
    assert kafka.values(topic) == [b"%d" % i for i in range(1001)]


def test_a_broker_that_is_killed_and_comes_back_changes_nothing(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """Exactly once over a broker's death: the shipper waits, holds its place, and goes on by itself; a file
    that was rotated and deleted meanwhile is still read."""
    settings = {
        "kafka": kafka.bootstrap,
        "paths": [str(tmp_path / "logs")],
        "topic": topic,
        "shipper_id": topic,
        "batch_bytes": 50_000,
        "idle_seconds": 60,
    }
    writers = Writers(tmp_path / "logs", count=2, lines=15_000, rotations=3, pause=0.05)
    shipper = process(**settings)
    try:
        wait_until(lambda: len(kafka.read_lines(topic)) > 100, "the first lines")
        for _ in range(2):
            kafka.kill()
            time.sleep(1.0)
            kafka.restart()
        writers.join()
        wait_until(
            lambda: len(kafka.read_lines(topic)) >= len(writers.expected), "all lines", deadline=90, pause=0.5
        )
    finally:
        shipper.terminate()
        _, err = shipper.communicate(timeout=60)
    assert shipper.returncode == 0, err
    assert_each_once_in_order(kafka.read_lines(topic), writers.expected)


def test_the_second_shipper_with_an_id_takes_over(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    """The first stops and says by whom it was replaced; every line is there once."""
    settings = {"kafka": kafka.bootstrap, "paths": [str(tmp_path)], "topic": topic, "shipper_id": topic}
    log = tmp_path / "w.log"
    log.write_bytes(b"0-000000\n")
    first = process(**settings)
    wait_until(lambda: len(kafka.read_lines(topic)) == 1, "the first shipper's line")
    second = process(**settings)
    checkpoints = f"{topic}-checkpoints"
    wait_until(lambda: f'"pid":{second.pid}'.encode() in b"".join(kafka.values(checkpoints)), "the takeover")
    with log.open("ab") as file:
        file.write(b"0-000001\n")
    _, err = first.communicate(timeout=30)
    assert first.returncode == 1
    assert "Fenced" in err
    assert f"process {second.pid}" in err
    assert "--shipper-id" in err
    wait_until(lambda: len(kafka.read_lines(topic)) == 2, "the second shipper's line")
    second.terminate()
    _, err = second.communicate(timeout=30)
    assert second.returncode == 0, err
    assert kafka.values(topic) == [b"0-000000", b"0-000001"]


def test_stopped_for_longer_than_its_transaction_it_goes_on(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    """A process that sleeps past the broker's timeout is refused, finds that nobody took over, and goes on;
    every line is there once."""
    settings = {
        "kafka": kafka.bootstrap,
        "paths": [str(tmp_path / "logs")],
        "topic": topic,
        "shipper_id": topic,
        "transaction_seconds": 1,
        "batch_bytes": 20_000,
        "idle_seconds": 60,
    }
    writers = Writers(tmp_path / "logs", count=1, lines=10_000, rotations=1, pause=0.02)
    shipper = process(**settings)
    try:
        wait_until(lambda: len(kafka.read_lines(topic)) > 100, "the first lines")
        for _ in range(3):
            shipper.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            shipper.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        writers.join()
        wait_until(
            lambda: len(kafka.read_lines(topic)) >= len(writers.expected), "all lines", deadline=60, pause=0.5
        )
    finally:
        shipper.terminate()
        _, err = shipper.communicate(timeout=60)
    assert shipper.returncode == 0, err
    assert_each_once_in_order(kafka.read_lines(topic), writers.expected)


def test_topics_that_may_not_be_made_are_asked_for(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    """The error holds the command that makes them."""
    (tmp_path / "a.log").write_bytes(b"x\n")
    with pytest.raises(KafkaRefused, match=rf"kafka-topics.sh .* --create --topic {topic} --partitions 6"):
        run_once(kafka, paths=[str(tmp_path)], topic=topic, shipper_id=topic, create_topics=False)
    kafka.create_topic(topic)
    kafka.create_topic(f"{topic}-checkpoints", 1, {"cleanup.policy": "delete"})
    with pytest.raises(KafkaRefused, match=r"cleanup\.policy=compact"):
        run_once(kafka, paths=[str(tmp_path)], topic=topic, shipper_id=topic)


def test_waiting_for_a_broker_can_be_ended(tmp_path: Path) -> None:
    """While Kafka does not answer, SIGTERM ends the process at once, with success: nothing was in flight."""
    (tmp_path / "a.log").write_bytes(b"x\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        shipper = process(kafka=address, paths=[str(tmp_path)], shipper_id="x")
        with silent.accept()[0]:
            assert shipper.poll() is None
            shipper.terminate()
            _, err = shipper.communicate(timeout=30)
    assert shipper.returncode == 0, err
