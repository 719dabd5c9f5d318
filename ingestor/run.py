"""The Kafka ingestor: fetch → gather → decode → intent → insert → commit, until it is told to stop.

Progress is the group's committed offset and nothing else. It moves to `end` only when the ledger row of
`[start, end)` is in; before the first insert of a range the offset carries the intent (`intents.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from tailrace.ingestor import intents
from tailrace.ingestor.batch import Gathering, is_due, is_full, is_small, split_full
from tailrace.ingestor.consume import PartitionConsumer, PartitionLost
from tailrace.ingestor.decode import BatchDecoder, DecodedBatch
from tailrace.ingestor.insert import Inserter, InsertStats, TableWriter, insert_executor, newest_event
from tailrace.ingestor.intents import PartitionIntent
from tailrace.ingestor.settings import IngestSettings
from tailrace.ingestor.turns import Turns
from tailrace.schemas.crash import crash_point
from tailrace.schemas.health import Reach
from tailrace.schemas.kafka import KafkaConnection
from tailrace.schemas.spans import NO_SPANS, Span, SpanKind, Spans, during
from tailrace.schemas.streams import KafkaOffset

log = logging.getLogger("tailrace.ingestor")

_IN_FLIGHT = 2
"""Batches between gathering and commit: one is inserted while the next is decoded."""
_SMALL_IN_FLIGHT = 2
"""Small ones besides, of partitions without a backlog: they need not wait until a backlog is worked off in another."""
_STOP_SECONDS = 20.0
"""How long a stop or a rebalance waits for the batch under way."""


class _Arrived(NamedTuple):
    """Records that came together and are not stored yet: the offset after them, and two times of the first of them."""

    end: KafkaOffset
    timestamp: float
    fetched: float


class PartitionState(NamedTuple):
    """How it stands with one partition.

    Args:
        lag: Kafka records that are committed and not stored, by their offsets.
        oldest: Kafka's timestamp of the oldest record that was fetched and is not stored, in seconds since the epoch;
            `None` when there is none.
        stalled: For how many seconds there have been such records and none was stored.
        newest_event: Time of the newest event of the batch stored last; `None` before the first.
    """

    lag: int
    oldest: float | None
    stalled: float
    newest_event: float | None


class _Partition:
    """One partition that this member has.

    Args:
        intent: What the committed offset said when it was assigned.
    """

    def __init__(self, intent: PartitionIntent) -> None:
        self.arrived: deque[_Arrived] = deque()
        self.moved = float("-inf")  # monotonic seconds of the last batch stored
        self.newest_event: float | None = None
        self.gathering = Gathering(intent.start, intent.start)
        self.replay_end = intent.end
        self.announced = intent.at
        self.stored = intent.start
        self.committed = intent.start
        self.in_flight = 0
        self.turn = 0  # when a batch was taken of it last, counted in batches of all partitions
        self.lost = False

    def note_stored(self, end: KafkaOffset, now: float, newest_event: float | None) -> None:
        """A batch up to `end` is in."""
        self.stored, self.moved = end, now
        if newest_event is not None:
            self.newest_event = newest_event
        while self.arrived and self.arrived[0].end <= self.stored:
            self.arrived.popleft()

    def state(self, now: float, ahead: tuple[KafkaOffset, KafkaOffset] | None) -> PartitionState:
        """How it stands.

        Args:
            now: Monotonic seconds.
            ahead: What is fetched next, and the end of the partition, where they are known.
        """
        position, end = ahead or (self.gathering.end, self.gathering.end)
        # Behind the last record there are only marks of transactions: offsets without anything to store.
        done = not self.arrived and position >= end
        oldest = self.arrived[0] if self.arrived else None
        return PartitionState(
            lag=0 if done else max(0, end - self.stored),
            oldest=oldest.timestamp if oldest else None,
            stalled=max(0.0, now - max(self.moved, oldest.fetched)) if oldest else 0.0,
            newest_event=self.newest_event,
        )

    def take(
        self, settings: IngestSettings, now: float, position: KafkaOffset, flush: bool
    ) -> Gathering | None:
        """The next batch, if one is due.

        A range that an earlier owner announced is cut exactly as it was announced.

        Args:
            settings: The limits.
            now: Monotonic seconds.
            position: What will be fetched next: nothing before it is still to come.
            flush: Take what is there, however little.
        """
        gathering = self.gathering
        if self.replay_end is not None:
            return self._take_replay(self.replay_end, position)
        if not (is_due(gathering, settings.limits, now) or (flush and gathering.messages)):
            return None
        batch, self.gathering = split_full(gathering, settings.limits)
        return batch

    def _take_replay(self, end: KafkaOffset, position: KafkaOffset) -> Gathering | None:
        if position < end and self.gathering.end < end:
            return None
        inside = [message for message in self.gathering.messages if message.offset < end]
        after = self.gathering.messages[len(inside) :]
        moments = self.gathering.moments
        batch = Gathering(self.gathering.start, end, inside, moments[: len(inside)])
        rest = Gathering(end, end)
        rest.add(after, max(end, self.gathering.end), moments[len(inside)] if after else 0.0)
        self.gathering = rest
        self.replay_end = None
        return batch


class Ingestor:
    """One member of the consumer group, writing to one ClickHouse.

    Args:
        connection: Kafka.
        writer: ClickHouse.
        settings: The rest.
        monotonic: Seconds for ages of batches.
        clock: Seconds since the epoch, for intents and dead letters.
        spans: Where each batch tells about itself.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        writer: TableWriter,
        settings: IngestSettings,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._spans = spans
        self._settings = settings
        self._monotonic = monotonic
        self._clock = clock
        self._consumer = PartitionConsumer(connection, settings, self._assigned, self._revoked)
        self._decode_thread = ThreadPoolExecutor(1, "tailrace-decode")
        self._insert_threads = insert_executor(writer)
        self._inserter = Inserter(writer, self._insert_threads, settings.retry, clock, spans=spans)
        self._partitions: dict[int, _Partition] = {}
        self._targets: dict[int, KafkaOffset] | None = None
        self._tasks: dict[asyncio.Task[None], bool] = {}  # whether they are urgent
        self._taken = 0
        self._turns = Turns()
        self._stop = asyncio.Event()
        self._rebalancing = True
        self._ahead: dict[int, tuple[KafkaOffset, KafkaOffset]] = {}

    @property
    def stats(self) -> InsertStats:
        """Totals since the start."""
        return self._inserter.stats

    @property
    def inserter(self) -> Inserter:
        """What it stores with."""
        return self._inserter

    @property
    def kafka(self) -> Reach:
        """How it stands with the brokers."""
        return self._consumer.reach

    @property
    def rebalancing(self) -> bool:
        """Whether the group is dividing the partitions anew, or has not done so yet."""
        return self._rebalancing

    async def ask_kafka(self) -> None:
        """See whether the brokers answer, where the work does not tell; `kafka` says so afterwards."""
        await self._consumer.ask()

    async def look(self) -> None:
        """Learn how far the partitions reach, for `partitions`; costs nothing while nobody calls it."""
        self._ahead = await self._consumer.ahead()

    def partitions(self) -> dict[int, PartitionState]:
        """How it stands with each partition that this member has, as of the last `look`."""
        now = self._monotonic()
        return {
            number: partition.state(now, self._ahead.get(number))
            for number, partition in self._partitions.items()
        }

    def stop(self) -> None:
        """Ask `run` to finish the batch under way, commit and return. Safe from a signal handler of the loop."""
        self._stop.set()

    async def run(self) -> None:
        """Ingest until `stop`, or with `once` until the end that the topic had at the start.

        Raises:
            FatalError: Going on would lose or repeat data, or the other side refuses for good.
        """
        try:
            await self._consumer.start()
            while not self._stop.is_set() and not await self._is_done():
                await self._round()
            await self._finish()
        finally:
            for task in self._tasks:
                task.cancel()
            with suppress(Exception):
                await self._consumer.stop()
            self._decode_thread.shutdown(wait=False, cancel_futures=True)
            self._insert_threads.shutdown(wait=False, cancel_futures=True)
            with suppress(Exception):
                await self._inserter.rest()

    async def _round(self) -> None:
        """Fetch, gather, start what is due, and let errors of what was started surface."""
        fetched = await self._consumer.fetch(min(0.05, self._settings.limits.seconds), self._full())
        now = self._monotonic()
        for number, (messages, end, timestamp) in fetched.items():
            if partition := self._partitions.get(number):
                partition.gathering.add(messages, end, now)
                partition.arrived.append(_Arrived(end, timestamp, now))
        await self._start_due(now, flush=False)
        self._surface()
        await self._commit_idle()

    def _full(self) -> list[int]:
        """Partitions to fetch no more from: full themselves, or all together holding two batches.

        Where others hold so much, one with little goes on, up to half a batch more for all of these.
        """
        limits = self._settings.limits
        held = sum(partition.gathering.bytes for partition in self._partitions.values())

        def waits(partition: _Partition) -> bool:
            if is_full(partition.gathering, limits):
                return True
            if partition.replay_end is not None or held < 2 * limits.bytes:
                return False
            return not is_small(partition.gathering, limits) or held >= 2.5 * limits.bytes

        return [number for number, partition in self._partitions.items() if waits(partition)]

    async def _start_due(self, now: float, flush: bool) -> None:
        while await self._start_next(now, flush):
            pass

    async def _start_next(self, now: float, flush: bool) -> bool:
        """Starts one batch, if any is due and may be under way besides those that are; answers whether there was one.

        The partition whose last batch was longest ago goes first, so that a busy one does not starve the others.
        """
        for number, partition in sorted(self._partitions.items(), key=lambda item: item[1].turn):
            urgent = self._is_urgent(partition)
            if not urgent and self._in_flight(urgent=False) >= _IN_FLIGHT:
                continue
            announced = partition.announced if partition.replay_end is not None else None
            position: KafkaOffset | None = partition.gathering.end
            if announced is not None:
                position = await self._consumer.position(number)
            if position is None or self._partitions.get(number) is not partition:
                continue  # it went to another member meanwhile
            batch = partition.take(self._settings, now, position, flush)
            if batch is None:
                continue
            self._taken += 1
            partition.turn = self._taken
            partition.in_flight += 1
            work = self._process(number, partition, batch, announced, urgent)
            self._tasks[asyncio.create_task(work)] = urgent
            return True
        return False

    def _in_flight(self, urgent: bool) -> int:
        return sum(each is urgent and not task.done() for task, each in self._tasks.items())

    def _is_urgent(self, partition: _Partition) -> bool:
        """Whether its next batch may overtake those of other partitions. Those of one partition stay in their order."""
        return (
            self._in_flight(urgent=True) < _SMALL_IN_FLIGHT
            and not partition.in_flight
            and partition.replay_end is None
            and is_small(partition.gathering, self._settings.limits)
        )

    def _surface(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            del self._tasks[task]
            if not task.cancelled():  # a rebalance gave it up; the next owner stores the batch
                task.result()

    async def _process(
        self,
        number: int,
        partition: _Partition,
        batch: Gathering,
        announced: float | None,
        urgent: bool,
    ) -> None:
        """Decode while an earlier batch is inserted; then intent, inserts, ledger, one batch after the other."""
        loop = asyncio.get_running_loop()
        try:
            with during(self._span(number, batch, announced)):
                decoding = loop.run_in_executor(self._decode_thread, self._decode, number, batch)
                async with self._turns.turn(urgent):
                    decoded = await decoding
                    if self._partitions.get(number) is not partition or partition.stored != batch.start:
                        # The partition went to another member, or the batch before this one failed: an intent now
                        # would commit past what is stored.
                        return
                    await self._store(number, partition, batch, decoded, announced)
        except PartitionLost:
            log.info(
                "partition %d went to another member before [%d, %d) was begun",
                number,
                batch.start,
                batch.end,
                extra=self._origin(number, batch.start),
            )
            partition.lost = True
        finally:
            partition.in_flight -= 1

    def _span(self, number: int, batch: Gathering, announced: float | None) -> Span:
        """Links to the shippers' spans of its messages; what became of its lines is noted when they are stored."""
        topic = self._settings.topic
        return self._spans.begin(
            f"process {topic}",
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(number),
                "messaging.consumer.group.name": self._settings.group,
                "messaging.batch.message_count": len(batch.messages),
                "tailrace.streams": [f"{topic}/{number}[{batch.start},{batch.end})"],
                "tailrace.again": announced is not None,
            },
            links=(message.trace for message in batch.messages if message.trace),
        )

    def _origin(self, number: int, offset: KafkaOffset) -> dict[str, object]:
        """Fields of a log line about a place in a partition."""
        return {"stream": f"{self._settings.topic}/{number}", "partition": number, "offset": offset}

    def _decode(self, number: int, batch: Gathering) -> DecodedBatch:
        decoder = BatchDecoder(self._settings.max_line_bytes)
        decoder.add_messages(self._settings.topic, number, batch.start, batch.end, batch.messages)
        return decoder.finish()

    async def _store(
        self,
        number: int,
        partition: _Partition,
        batch: Gathering,
        decoded: DecodedBatch,
        announced: float | None,
    ) -> None:
        token = intents.token(self._settings.topic, number, batch.start, batch.end)
        if announced is not None:
            await self._inserter.restore(decoded, token, announced)
        else:
            crash_point("ingest.before-intent")
            await self._consumer.commit({number: (batch.start, intents.encode(batch.end, self._clock()))})
            crash_point("ingest.after-intent")
            partition.committed = batch.start
            await self._inserter.store(decoded, token)
        partition.note_stored(batch.end, self._monotonic(), newest_event(decoded, self._clock()))

    async def _commit_idle(self) -> None:
        """Commits the plain end of partitions with nothing on the way; busy ones carry it in their next intent."""
        idle = {
            number: partition
            for number, partition in self._partitions.items()
            if not partition.in_flight and not partition.gathering.messages
        }
        await self._commit_ends(idle)

    async def _commit_ends(self, partitions: Mapping[int, _Partition]) -> None:
        """Commits what is stored of these and not committed yet."""
        ends = {
            number: (partition.stored, "")
            for number, partition in partitions.items()
            if partition.stored > partition.committed
        }
        if not ends:
            return
        crash_point("ingest.before-commit")
        try:
            await self._consumer.commit(ends)
        except PartitionLost:
            return
        crash_point("ingest.after-commit")
        for number, (end, _) in ends.items():
            partitions[number].committed = end

    async def _is_done(self) -> bool:
        if not self._settings.once or self._targets is None or self._rebalancing or self._tasks:
            return False
        for number, partition in list(self._partitions.items()):
            if partition.gathering.messages:
                await self._start_due(self._monotonic(), flush=True)
                return False
            if partition.replay_end is not None or partition.lost:
                return False  # a lost partition comes back, to us or to another, with the next assignment
            position = await self._consumer.position(number)
            if position is None or position < self._targets.get(number, 0):
                return False
        return True

    async def _finish(self) -> None:
        """What is in flight is stored; what is only gathered is left to the next run. Then the ends are committed."""
        await self._drain(_STOP_SECONDS)
        self._surface()
        await self._commit_ends(self._partitions)

    async def _drain(self, seconds: float) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                log.warning(
                    "a batch is not stored after %.0f s; it is inserted again under the same token", seconds
                )
                task.cancel()
            if late:
                await asyncio.wait(late)
                for task in late:
                    self._tasks.pop(task, None)

    async def _assigned(self, found: Mapping[int, PartitionIntent]) -> None:
        for number, intent in found.items():
            self._partitions[number] = _Partition(intent)
            if intent.end is not None:
                log.warning(
                    "partition %d: [%d, %d) was under way when its last owner stopped; inserting it again",
                    number,
                    intent.start,
                    intent.end,
                    extra=self._origin(number, intent.start),
                )
        if self._settings.once:
            ends = await self._consumer.ends(found)
            self._targets = ends | (self._targets or {})
        self._rebalancing = False
        log.info("assigned partitions %s", sorted(found))

    async def _revoked(self) -> None:
        self._rebalancing = True
        # Taken away before anything is waited for: the loop goes on meanwhile, and what it fetches behind messages that
        # are given up here must neither be gathered nor become a batch whose range covers them.
        revoked, self._partitions = self._partitions, {}
        await self._drain(min(_STOP_SECONDS, self._settings.session_timeout / 2))
        await self._commit_ends(revoked)
