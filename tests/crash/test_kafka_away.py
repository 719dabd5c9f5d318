"""Kafka is away, and the logs go on growing and rotating."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from crash.actors import Actor, Cast
from crash.check import Outcome
from crash.faults import Chaos
from crash.sizes import Sizes
from crash.writer import Writers
from support.kafka import KafkaBroker, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3600)]

MEMORY_BYTES = 64 << 20
"""How much a shipper may grow while Kafka is away: the two batches that it holds, and the allocator's habits."""


def test_kafka_away_while_logs_are_rotated_away(
    cast: Cast, kafka: KafkaBroker, topic: str, tmp_path: Path, sizes: Sizes, outcome: Outcome
) -> None:
    """While Kafka is away the shipper holds its place and not the lines; files that are written, rotated and deleted
    meanwhile, some of them born after Kafka went, are read all the same, from the descriptors that it holds."""
    chaos = Chaos(sizes.seed, outcome.faults)
    shipper = cast.shipper(tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    shipper.start()
    wait_until(lambda: f"{topic}-checkpoints" in _owner(kafka, topic), "the shipper to take over")
    lines = 2 * sizes.lines
    writers = Writers(tmp_path / "logs", 2, lines, 24, 1.2 * sizes.seconds, keep=2)
    try:
        wait_until(lambda: kafka.read_lines(topic), "the first lines")
        before = shipper.memory
        kafka.kill()
        chaos.faults["kill broker"] += 1
        most = _watch_memory(shipper, 0.7 * sizes.seconds)
        kafka.start()
        counts = writers.finish()
        most = max(most, _watch_memory(shipper, 2.0))
        total = sum(counts.values())
        wait_until(lambda: len(kafka.read_lines(topic)) >= total, "all lines", 120, pause=0.5)
    finally:
        writers.kill()
        if not kafka.alive:
            kafka.start()
    shipper.terminate()
    outcome.notes = f"memory {before >> 20} MB before, {most >> 20} MB at most"
    outcome.count_topic(kafka.read_lines(topic, deadline=600), counts)
    outcome.assert_exact()
    assert most - before < MEMORY_BYTES, outcome.notes


def _owner(kafka: KafkaBroker, topic: str) -> str:
    name = f"{topic}-checkpoints"
    return name if kafka.read_lines(name) else ""


def _watch_memory(actor: Actor, seconds: float) -> int:
    until, most = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        most = max(most, actor.memory)
        time.sleep(0.1)
    return most
