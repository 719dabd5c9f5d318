"""What a shipper says of itself: its metrics, and whether it can do its work."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tailrace.schemas import metrics
from tailrace.schemas.diagnosis import Check, fail, ok
from tailrace.schemas.health import STALLED_SECONDS, moves
from tailrace.schemas.metrics import OTHER_FILES, Reading
from tailrace.shipper.produce import KafkaWriter
from tailrace.shipper.run import Followed, Shipper
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.tail import Loss

FILES = 20
"""So many files have a series of their own."""
MARKS = 64
"""So many sizes of a file that is behind are remembered."""


class ShipperObserved:
    """A shipper as `tailrace.schemas.health.Observed`. It reads what the shipper counts anyway, when it is asked.

    Args:
        shipper: It.
        settings: Its settings.
        writer: What it writes to Kafka with; `None` where lines go elsewhere.
    """

    def __init__(
        self, shipper: Shipper[Any], settings: ShipperSettings, writer: KafkaWriter | None = None
    ) -> None:
        self._shipper = shipper
        self._settings = settings
        self._writer = writer
        self._ages = Ages()

    async def refresh(self) -> None:
        """Ask Kafka, when it was quiet."""
        if self._writer is not None and self._writer.reach.is_quiet(time.monotonic()):
            await self._writer.ask()

    def readings(self) -> Iterable[Reading]:
        """See `Observed`."""
        stats, followed = self._shipper.stats, self._shipper.followed()
        lags = [(file.path, file.lag) for file in followed]
        ages = self._ages.of(followed, time.monotonic())
        kafka = self._settings.kafka
        topic = kafka.topic if kafka is not None else ""
        yield Reading(metrics.SHIPPER_INFO, 1, (self._settings.shipper_id, topic, self._settings.delivery))
        yield Reading(metrics.SHIPPER_LINES, stats.lines)
        yield Reading(metrics.SHIPPER_BYTES, stats.bytes)
        yield Reading(metrics.SHIPPER_BATCHES, stats.batches)
        yield Reading(metrics.SHIPPER_OVERSIZED, stats.oversized)
        for cause in Loss:
            yield Reading(metrics.SHIPPER_LOST, stats.lost[cause], (cause.value,))
        yield Reading(metrics.SHIPPER_FILES, len(lags))
        yield Reading(metrics.SHIPPER_LAG, sum(lag for _, lag in lags))
        for path, lag in by_file(lags):
            yield Reading(metrics.SHIPPER_FILE_LAG, lag, (path,))
            yield Reading(metrics.SHIPPER_FILE_LAG_SECONDS, ages[path], (path,))
        yield Reading(metrics.SHIPPER_HELD_BACK, stats.held_back)
        yield Reading(metrics.SHIPPER_STALLED, self._stalled(time.monotonic()))
        if stats.delivered_at is not None:
            yield Reading(metrics.SHIPPER_DELIVERED_AT, stats.delivered_at)
        yield Reading(metrics.SHIPPER_DELIVERY, stats.latency)
        if self._writer is not None:
            yield Reading(metrics.SHIPPER_RETRIES, self._writer.reach.retries)
            yield Reading(metrics.SHIPPER_FENCED, self._writer.fenced)

    def checks(self) -> Sequence[Check]:
        """See `Observed`."""
        now = time.monotonic()
        checks = [self._writer.reach.check(now)] if self._writer is not None else []
        if self._shipper.loaded:
            checks.append(ok("files", f"{self._shipper.stats.files} followed"))
            # A last line without its newline waits, and is no sign of trouble.
            checks.append(moves(self._stalled(now), max(STALLED_SECONDS, 2 * self._settings.idle_seconds)))
        else:
            remedy = "see what Kafka says; nothing is read before this is known"
            checks.append(fail("files", "it is not known yet how far earlier runs got", remedy))
        return checks

    def _stalled(self, now: float) -> float:
        stats = self._shipper.stats
        return max(0.0, now - stats.moved) if self._shipper.loaded and stats.lag_bytes else 0.0


class Ages:
    """How old the oldest byte of each file is that is not delivered: it notes sizes whenever it is asked, so that what came since
    the time before counts as new."""

    def __init__(self) -> None:
        self._marks: dict[str, list[tuple[int, float]]] = {}

    def of(self, followed: Iterable[Followed], now: float) -> dict[str, float]:
        """Seconds, by path, and the longest of all other files; 0 where everything is delivered.

        Args:
            followed: All files.
            now: Monotonic seconds.
        """
        marks: dict[str, list[tuple[int, float]]] = {}
        ages: dict[str, float] = {OTHER_FILES: 0.0}
        for file in followed:
            waiting = [mark for mark in self._marks.get(file.file_id, ()) if mark[0] > file.acknowledged]
            if file.lag and (not waiting or waiting[-1][0] < file.size):
                waiting.append((file.size, now))
            if len(waiting) > MARKS:
                del waiting[1::2]  # the oldest stays, the others only say how old what comes next is
            marks[file.file_id] = waiting
            age = now - waiting[0][1] if waiting else 0.0
            for name in (file.path, OTHER_FILES):
                ages[name] = max(ages.get(name, 0.0), age)
        self._marks = marks
        return ages


def by_file(lags: Iterable[tuple[str, int]], most: int = FILES) -> list[tuple[str, int]]:
    """Lags by path, of the paths with the largest; the others together as `OTHER_FILES`, where there are others."""
    total: Counter[str] = Counter()
    for path, lag in lags:
        total[path] += lag  # a rotated file may have its successor's path
    largest = heapq.nsmallest(most, total.items(), key=lambda item: (-item[1], item[0]))
    if len(total) > most:
        largest.append((OTHER_FILES, sum(total.values()) - sum(lag for _, lag in largest)))
    return largest
