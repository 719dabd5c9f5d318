"""Both sides at once, with the broker and the server in front of ClickHouse failing as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from crash import stores
from crash.actors import Cast
from crash.check import Outcome
from crash.faults import Chaos
from crash.sizes import Sizes
from crash.writer import Writers
from support.faults import DONE, NOT_DONE, Fault, FaultyFront, inserts, seeded
from support.front import FrontProcess
from support.kafka import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3600)]

PATIENCE_SECONDS = 2
"""Of the ingestor for one request; a delayed answer comes later than that."""


def test_both_killed_while_broker_and_server_fail(
    cast: Cast,
    kafka: KafkaBroker,
    topic: str,
    front: FrontProcess,
    database: Callable[[], str],
    tmp_path: Path,
    sizes: Sizes,
    outcome: Outcome,
) -> None:
    """Shipper and ingestors are killed at random, the broker is killed and comes back, and the server refuses, resets
    before, amid and after a request, and answers when nobody listens any more: everything is there once."""
    name = database()
    direct = f"clickhouse://127.0.0.1:{front.port}/{name}"
    writers = Writers(tmp_path / "logs", sizes.writers, sizes.lines, sizes.rotations, 2 * sizes.seconds)
    faulty = FaultyFront("127.0.0.1", front.port, _faults(sizes), match=inserts, delay=PATIENCE_SECONDS + 1.0)
    try:
        faulty.start()
        dsn = f"clickhouse://127.0.0.1:{faulty.port}/{name}?send_receive_timeout={PATIENCE_SECONDS}"
        chaos = Chaos(sizes.seed, outcome.faults)
        shipper = cast.shipper(writers.directory, partitions=sizes.partitions)
        pair = [cast.ingestor(dsn, f"ingestor-{number}", *sizes.pace) for number in (1, 2)]
        for victim in _victims(chaos, sizes):
            for actor in (shipper, *pair):
                if not actor.alive:
                    actor.start()
            if victim == "broker":
                kafka.kill()
                chaos.faults["kill broker"] += 1
                chaos.wait(0.5, 2.0)
                kafka.start()
                continue
            chaos.kill(shipper if victim == "shipper" else chaos.random.choice(pair), 0.5, 3.0)
        counts = writers.finish()
        for actor in (shipper, *pair):
            if actor.alive:
                actor.terminate()
        cast.shipper(writers.directory, "last-shipper", once=True).run(600)
        cast.ingestor(dsn, "last-ingestor", "--once", *sizes.pace).run(600)
    finally:
        writers.kill()
        if not kafka.alive:
            kafka.start()
        faulty.stop()
    outcome.faults += Counter(f"server: {fault.name.lower()}" for fault in faulty.injected)
    assert {Fault.DELAY, Fault.RESET_MID_REQUEST, Fault.RESET_AFTER} <= set(faulty.injected)
    outcome.count_topic(kafka.read_lines(topic, deadline=600), counts)
    stored = stores.read(direct)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, topic)
    outcome.assert_exact()


def _victims(chaos: Chaos, sizes: Sizes) -> list[str]:
    victims = ["shipper", "ingestor"] * sizes.kills + ["broker"] * sizes.broker_kills
    chaos.random.shuffle(victims)
    return victims


def _faults(sizes: Sizes) -> list[Fault | None]:
    """Each kind soon, and then about one request in seven."""
    each = [entry for fault in (Fault.DELAY, Fault.HANG, *NOT_DONE, *DONE) for entry in (fault, None, None)]
    return each + seeded(sizes.seed, 20 * sizes.kills, 0.15, (Fault.DELAY, *NOT_DONE, *DONE))
