"""Files to Kafka under SIGKILL."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.actors import Cast
from crash.check import Outcome
from crash.faults import Chaos
from crash.sizes import Sizes
from crash.writer import Writers
from support.kafka import KafkaBroker
from tailrace.schemas.crash import POINTS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3600)]

TRANSACTION_POINTS = [
    point
    for point in POINTS
    if point in {"ship.before-transaction", "ship.after-records", "ship.before-commit", "ship.after-commit"}
]


def test_shipper_killed(
    cast: Cast, kafka: KafkaBroker, topic: str, tmp_path: Path, sizes: Sizes, outcome: Outcome
) -> None:
    """A shipper that ends at every named step and at random times while four writers append over rotations:
    readers of committed records find every line once, and each file whole and in its order."""
    writers = Writers(tmp_path / "logs", sizes.writers, sizes.lines, sizes.rotations, sizes.seconds)
    try:
        chaos = Chaos(sizes.seed, outcome.faults)
        shipper = cast.shipper(writers.directory)
        chaos.at_points([shipper], TRANSACTION_POINTS)
        for _ in range(sizes.kills):
            chaos.kill(shipper, 0.5, 2.0)
        counts = writers.finish()
    finally:
        writers.kill()
    cast.shipper(writers.directory, "last-shipper", once=True).run(600)
    outcome.count_topic(kafka.read_lines(topic, deadline=600), counts)
    outcome.assert_exact()
