"""What an ingestor says of itself: its metrics, and whether it can do its work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from tailrace.ingestor.insert import Inserter
from tailrace.ingestor.run import Ingestor
from tailrace.ingestor.settings import IngestSettings
from tailrace.schemas import metrics
from tailrace.schemas.diagnosis import Check, fail, ok
from tailrace.schemas.errors import Reason
from tailrace.schemas.health import moves
from tailrace.schemas.metrics import Reading


class InserterObserved:
    """What is stored in ClickHouse, as `tailrace.schemas.health.Observed`. It reads what is counted anyway.

    Args:
        inserter: What stores.
    """

    def __init__(self, inserter: Inserter) -> None:
        self._inserter = inserter

    async def refresh(self) -> None:
        """Ask ClickHouse, when it was quiet."""
        if self._inserter.reach.is_quiet(time.monotonic()):
            await self._inserter.ask()

    def readings(self) -> Iterable[Reading]:
        """See `Observed`."""
        stats, times = self._inserter.stats, self._inserter.times
        yield Reading(metrics.INGESTOR_LINES, stats.lines)
        yield Reading(metrics.INGESTOR_ROWS, stats.rows)
        for reason in Reason:
            yield Reading(metrics.INGESTOR_DEAD_LETTERS, stats.reasons.get(reason, 0), (reason.value,))
        yield Reading(metrics.INGESTOR_BLANK, stats.blank)
        yield Reading(metrics.INGESTOR_BYTES, stats.bytes)
        yield Reading(metrics.INGESTOR_BATCHES, stats.batches)
        yield Reading(metrics.INGESTOR_RETRIES, stats.retries, ("clickhouse",))
        yield Reading(metrics.INGESTOR_UNSAFE, stats.unsafe_replays)
        yield Reading(metrics.INGESTOR_INSERT, times.insert)
        yield Reading(metrics.INGESTOR_STORE, times.store)
        if times.stored_at is not None:
            yield Reading(metrics.INGESTOR_STORED_AT, times.stored_at)
        if times.newest_event is not None:
            yield Reading(metrics.INGESTOR_NEWEST, times.newest_event)

    def checks(self) -> Sequence[Check]:
        """See `Observed`."""
        return [self._inserter.reach.check(time.monotonic())]


class IngestorObserved:
    """A member of the group, as `tailrace.schemas.health.Observed`.

    Args:
        ingestor: It.
        settings: Its settings.
    """

    def __init__(self, ingestor: Ingestor, settings: IngestSettings) -> None:
        self._ingestor = ingestor
        self._settings = settings
        self._inserter = InserterObserved(ingestor.inserter)

    async def refresh(self) -> None:
        """Ask Kafka and ClickHouse, when they were quiet, and how far the partitions reach."""
        await self._inserter.refresh()
        if self._ingestor.kafka.is_quiet(time.monotonic()):
            await self._ingestor.ask_kafka()
        await self._ingestor.look()

    def readings(self) -> Iterable[Reading]:
        """See `Observed`."""
        topic = self._settings.topic
        partitions = self._ingestor.partitions()
        yield Reading(metrics.INGESTOR_INFO, 1, (topic, self._settings.group))
        yield from self._inserter.readings()
        yield Reading(metrics.INGESTOR_RETRIES, self._ingestor.kafka.retries, ("kafka",))
        yield Reading(metrics.INGESTOR_PARTITIONS, len(partitions))
        now = time.time()
        for number, state in sorted(partitions.items()):
            labels = (topic, str(number))
            age = max(0.0, now - state.oldest) if state.oldest is not None else 0.0
            yield Reading(metrics.PARTITION_LAG_RECORDS, state.lag, labels)
            yield Reading(metrics.PARTITION_LAG_SECONDS, age, labels)
            if state.newest_event is not None:
                yield Reading(metrics.PARTITION_NEWEST, state.newest_event, labels)
        yield Reading(metrics.INGESTOR_STALLED, self._stalled())

    def checks(self) -> Sequence[Check]:
        """See `Observed`."""
        partitions = self._ingestor.partitions()
        if self._ingestor.rebalancing:
            remedy = "wait: the group divides them anew; see that the topic exists and that no member comes and goes"
            assigned = fail("partitions", "none assigned yet", remedy)
        else:
            # More members than partitions is a way to have one in reserve.
            assigned = ok("partitions", f"{len(partitions)} assigned")
        kafka = self._ingestor.kafka.check(time.monotonic())
        return [kafka, *self._inserter.checks(), assigned, moves(self._stalled())]

    def _stalled(self) -> float:
        return max((state.stalled for state in self._ingestor.partitions().values()), default=0.0)
