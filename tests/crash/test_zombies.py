"""Processes that are paused for longer than anybody waits for them, and go on as if nothing had happened."""

from __future__ import annotations

import time
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
from support.kafka import KafkaBroker, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(3600)]

SHIPPER_STEPS = ["ship.after-records", "ship.before-commit", "ship.after-commit"]
INGEST_STEPS = ["ingest.after-intent", "ingest.after-table", "ingest.before-ledger", "ingest.before-intent"]
TRANSACTION_SECONDS = 1
SESSION_SECONDS = 2


def test_zombie_shipper(
    cast: Cast, kafka: KafkaBroker, topic: str, tmp_path: Path, sizes: Sizes, outcome: Outcome
) -> None:
    """A shipper that is paused amid a transaction for longer than the broker keeps it goes on when nobody took over,
    and stops with a clear message when somebody did; every line is there once."""
    writers = Writers(tmp_path / "logs", 2, sizes.lines // 2, 4, sizes.seconds)
    try:
        chaos = Chaos(sizes.seed, outcome.faults)
        shipper = cast.shipper(writers.directory, transaction_seconds=TRANSACTION_SECONDS)
        for number in range(sizes.pauses):
            if not shipper.alive:
                shipper.start(f"{SHIPPER_STEPS[number % len(SHIPPER_STEPS)]}:3:STOP")
                wait_until(lambda: shipper.paused, "the shipper to pause amid a transaction")
            else:
                shipper.pause()
            chaos.faults["pause shipper"] += 1
            time.sleep(TRANSACTION_SECONDS + 1.5)
            shipper.resume()
            _wait_for_more(kafka, topic)
            shipper.check()
        for number in range(sizes.pauses):
            heir = cast.shipper(
                writers.directory, f"heir-{number}", transaction_seconds=TRANSACTION_SECONDS, poll_seconds=0.2
            )
            shipper.pause()
            heir.start()
            _wait_for_more(kafka, topic)
            shipper.resume()
            chaos.faults["take over from a paused shipper"] += 1
            assert shipper.wait(30) == 1
            assert "took over as shipper" in shipper.said
            shipper = heir
        counts = writers.finish()
    finally:
        writers.kill()
    shipper.terminate()
    cast.shipper(writers.directory, "last-shipper", once=True).run(600)
    outcome.count_topic(kafka.read_lines(topic, deadline=600), counts)
    outcome.assert_exact()


def test_zombie_ingestor(
    cast: Cast,
    kafka: KafkaBroker,
    topic: str,
    front: FrontProcess,
    database: Callable[[], str],
    tmp_path: Path,
    sizes: Sizes,
    outcome: Outcome,
) -> None:
    """An ingestor that is paused amid a batch, for longer than the group waits, wakes up and inserts a range that its
    successor has inserted already: every row is there once."""
    dsn = f"clickhouse://127.0.0.1:{front.port}/{database()}"
    # A file is in one partition: only with many files does each of the two surely get lines all the time.
    rotations = max(4, int(sizes.seconds))
    writers = Writers(tmp_path / "logs", sizes.writers, sizes.lines // 2, rotations, sizes.seconds)
    try:
        chaos = Chaos(sizes.seed, outcome.faults)
        shipper = cast.shipper(writers.directory)
        shipper.start()
        pair = [cast.ingestor(dsn, f"ingestor-{number}") for number in (1, 2)]
        pair[1].start()
        for number in range(max(2, sizes.pauses)):
            _zombie(pair[number % 2], pair[1 - number % 2], INGEST_STEPS[number % len(INGEST_STEPS)])
            chaos.faults["pause ingestor"] += 1
        counts = writers.finish()
    finally:
        writers.kill()
    for actor in (shipper, *pair):
        actor.terminate()
    cast.shipper(writers.directory, "last-shipper", once=True).run(600)
    cast.ingestor(dsn, "last-ingestor", "--once").run(600)
    stored = stores.read(dsn)
    outcome.count_topic(kafka.read_lines(topic, deadline=600), counts)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, topic)
    outcome.assert_exact()


def _zombie(sleeper: Actor, successor: Actor, step: str) -> None:
    """One falls asleep at a named step, the other takes its partitions over, and then the first wakes up."""
    if sleeper.alive:
        sleeper.terminate()
    if not successor.alive:
        successor.start()
    sleeper.start(f"{step}:2:STOP")
    wait_until(lambda: sleeper.paused, f"{sleeper.name} to pause at {step}", 60)
    said = len(successor.said)
    time.sleep(SESSION_SECONDS + 1.0)
    if step != "ingest.before-intent":
        successor.wait_to_say("was under way when its last owner stopped", 30, said)
    sleeper.resume()
    time.sleep(1.0)
    sleeper.check()


def _wait_for_more(kafka: KafkaBroker, topic: str) -> None:
    """Some lines arrive that are not there yet."""
    before = len(kafka.read_lines(topic))
    wait_until(lambda: len(kafka.read_lines(topic)) > before, "more lines", 60, pause=0.3)
