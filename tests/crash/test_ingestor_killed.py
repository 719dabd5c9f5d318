"""Kafka to ClickHouse over HTTP under SIGKILL, two ingestors in the group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crash import stores
from crash.actors import Actor, Cast
from crash.check import Outcome
from crash.faults import Chaos
from crash.sizes import Sizes
from crash.writer import Writers
from support.front import FrontProcess
from support.kafka import KafkaBroker
from tailrace.schemas.crash import POINTS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3600)]

INGEST_POINTS = [point for point in POINTS if point.startswith("ingest.")]


def test_ingestor_killed(
    cast: Cast,
    kafka: KafkaBroker,
    topic: str,
    front: FrontProcess,
    database: Callable[[], str],
    tmp_path: Path,
    sizes: Sizes,
    outcome: Outcome,
) -> None:
    """Two ingestors in one group that end at every named step and at random times, leave and join again: counts and
    checksums of every table are those of the lines that were written, dead letters are exactly the garbage, and the
    ledger's ranges follow on one another."""
    dsn = f"clickhouse://127.0.0.1:{front.port}/{database()}"
    writers = Writers(tmp_path / "logs", sizes.writers, sizes.lines, sizes.rotations, 2 * sizes.seconds)
    try:
        chaos = Chaos(sizes.seed, outcome.faults)
        shipper = cast.shipper(writers.directory, partitions=sizes.partitions)
        shipper.start()
        pair = [cast.ingestor(dsn, f"ingestor-{number}", *sizes.pace) for number in (1, 2)]
        chaos.at_points(pair, INGEST_POINTS)
        for _ in range(sizes.kills):
            _join_or_leave(chaos, pair)
        counts = writers.finish()
    finally:
        writers.kill()
    shipper.terminate()
    for actor in pair:
        actor.terminate()
    cast.shipper(writers.directory, "last-shipper", once=True).run(600)
    cast.ingestor(dsn, "last-ingestor", "--once", *sizes.pace).run(600)
    model = stores.expected(counts)
    outcome.count_topic(kafka.read_lines(topic, deadline=600), counts)
    stored = stores.read(dsn)
    outcome.count_stored(stored, model, counts)
    outcome.count_ledger(stored.ledger, counts, topic)
    outcome.assert_exact()


def _join_or_leave(chaos: Chaos, pair: list[Actor]) -> None:
    """One of the two is killed; before that it may have left in order and come back."""
    victim, other = chaos.random.sample(pair, 2)
    if not other.alive:
        other.start()
    if victim.alive and chaos.random.random() < 0.3:
        victim.terminate()
        chaos.faults["leave ingestor"] += 1
    chaos.kill(victim, 0.5, 3.0)
