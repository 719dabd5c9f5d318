"""Partitions of a topic → messages with their offsets. The only file of this room that knows aiokafka."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    TopicAuthorizationFailedError,
    for_code,
)

from tailrace.ingestor import intents
from tailrace.ingestor.decode import OVERSIZED_HEADER, Message
from tailrace.ingestor.intents import PartitionIntent
from tailrace.ingestor.settings import IngestSettings
from tailrace.schemas.errors import KafkaRefused, KafkaUnavailable
from tailrace.schemas.health import ASK_SECONDS, Reach
from tailrace.schemas.kafka import KafkaConnection, login, translate_kafka
from tailrace.schemas.spans import TRACE_HEADER
from tailrace.schemas.streams import KafkaOffset, next_offset

log = logging.getLogger("tailrace.ingestor")

FETCH_BYTES = 8 * 1024 * 1024
"""What one fetch of one partition returns at most, unless a single message is larger."""
TAKE_BYTES = 4 * 1024 * 1024
TAKE_MESSAGES = (32, 10_000)
"""What is taken from the fetched bytes in one go: about so many bytes, at least and at most so many messages. What was
fetched may be compressed twentyfold, and while it is taken apart no heartbeat goes out: a backlog in one piece would cost
us our place in the group, again and again. A message may be one line, or hundreds."""
_CALL_TIMEOUT_MS = 30_000
_AHEAD_SECONDS = 1.0
QUIET_POLL_SECONDS = 3.0
"""A partition that has not been asked for records for so long is paused, or its broker is away."""


class Fetched(NamedTuple):
    """What came from one partition.

    Args:
        messages: In offset order.
        end: The offset after the last of them.
        timestamp: Kafka's of the first of them, in seconds since the epoch.
    """

    messages: list[Message]
    end: KafkaOffset
    timestamp: float


class PartitionLost(Exception):
    """A commit came too late: the group has given the partition to somebody else. Not an error of ours."""


Assigned = Callable[[Mapping[int, PartitionIntent]], Awaitable[None]]
Revoked = Callable[[], Awaitable[None]]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no type information
    """aiokafka logs what a listener raises and goes on, as if the partitions had been taken over; so it is kept here."""

    def __init__(self, assigned: Callable[[Iterable[Any]], Awaitable[None]], revoked: Revoked) -> None:
        self._assigned = assigned
        self._revoked = revoked
        self.failure: Exception | None = None

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        try:
            await self._assigned(assigned)
        except Exception as exc:
            self.failure = exc
            raise

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        try:
            await self._revoked()
        except Exception as exc:
            self.failure = exc
            raise


class PartitionConsumer:
    """A member of the consumer group.

    Args:
        connection: The brokers.
        settings: Topic, group, timeouts.
        assigned: Called with what the group's offsets say of each partition that this member now has, before
            anything is fetched from them.
        revoked: Called before they go to somebody else; the group waits for it.
    """

    def __init__(
        self, connection: KafkaConnection, settings: IngestSettings, assigned: Assigned, revoked: Revoked
    ) -> None:
        self.reach = Reach(f"Kafka at {connection.brokers}")
        self._connection = connection
        self._settings = settings
        self._assigned = assigned
        self._listener = _Listener(self._on_assigned, revoked)
        self._starts: dict[int, KafkaOffset] = {}
        self._taking_over = False
        self._take = TAKE_MESSAGES[0]
        self._consumer: Any = None
        self._admin: Any = None

    async def start(self) -> None:
        """Connect and join the group; waits for the topic to appear unless told to run once.

        Raises:
            KafkaRefused: Credentials, permission, or no such topic with `once`.
        """
        settings, arguments = self._settings, self._connection.client_arguments()
        async with self._translated():
            await self._with_retry(lambda: login(self._connection))
            self._admin = AIOKafkaAdminClient(**arguments)
            await self._with_retry(self._admin.start)
            await self._await_topic()
            self._consumer = AIOKafkaConsumer(
                **arguments,
                group_id=settings.group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                max_partition_fetch_bytes=max(FETCH_BYTES, settings.max_line_bytes),
                fetch_max_wait_ms=100,
                session_timeout_ms=int(settings.session_timeout * 1000),
                heartbeat_interval_ms=int(settings.session_timeout * 1000 / 10),
                max_poll_interval_ms=max(300_000, int(settings.session_timeout * 1000)),
            )
            self._consumer.subscribe([settings.topic], listener=self._listener)
            await self._with_retry(self._consumer.start)

    async def stop(self) -> None:
        """Leave the group. Commits nothing."""
        if self._consumer is not None:
            await self._consumer.stop()
        if self._admin is not None:
            await self._admin.close()

    async def fetch(self, wait: float, paused: Iterable[int]) -> dict[int, Fetched]:
        """What has arrived, waiting up to `wait` seconds for something.

        Args:
            wait: Seconds.
            paused: Partitions to leave alone this time.

        Raises:
            KafkaRefused: The broker refuses us.
        """
        consumer, topic = self._consumer, self._settings.topic
        async with self._translated():
            if self._listener.failure is not None:
                raise self._listener.failure
            self._seek_starts()
            waiting = {TopicPartition(topic, partition) for partition in paused} & consumer.assignment()
            consumer.pause(*(waiting - consumer.paused()))
            consumer.resume(*(consumer.paused() - waiting))
            records = await consumer.getmany(timeout_ms=int(wait * 1000), max_records=self._take)
        self._take = to_take(
            self._take, [len(record.value or b"") for found in records.values() for record in found]
        )
        return {
            partition.partition: Fetched(
                [_message(record) for record in found],
                next_offset(found[-1].offset),
                found[0].timestamp / 1000,
            )
            for partition, found in records.items()
            if found and partition.partition not in self._starts
        }

    def _seek_starts(self) -> None:
        """Begins new partitions where the group's offsets say.

        aiokafka hands out records of a new assignment while the listener is still being called. Whatever came before
        this seek is dropped by `fetch` and comes again.
        """
        if self._taking_over:
            return
        assigned = self._consumer.assignment()
        for partition, start in self._starts.items():
            if (topic_partition := TopicPartition(self._settings.topic, partition)) in assigned:
                self._consumer.seek(topic_partition, start)
        self._starts.clear()

    async def commit(self, offsets: Mapping[int, tuple[KafkaOffset, str]]) -> None:
        """Commit offsets with metadata; retries while the coordinator is away.

        Raises:
            PartitionLost: The group has moved on without us.
        """
        topic = self._settings.topic
        arguments = {TopicPartition(topic, partition): value for partition, value in offsets.items()}
        try:
            await self._with_retry(lambda: self._consumer.commit(arguments))
        except (CommitFailedError, IllegalStateError) as exc:
            raise PartitionLost(str(exc)) from exc
        except KafkaError as exc:
            raise translate_kafka(exc, self._connection) from exc

    async def ends(self, partitions: Iterable[int]) -> dict[int, KafkaOffset]:
        """The offset after the last message that is committed now, of each partition."""
        topic = self._settings.topic
        async with self._translated():
            found = await self._consumer.end_offsets(
                [TopicPartition(topic, partition) for partition in partitions]
            )
        return {partition.partition: KafkaOffset(offset) for partition, offset in found.items()}

    async def position(self, partition: int) -> KafkaOffset | None:
        """The offset of the next message that `fetch` would return, or of a later one; `None` for a partition that
        has just gone to somebody else."""
        if partition in self._starts:
            return self._starts[partition]
        async with self._translated():
            try:
                return KafkaOffset(
                    await self._consumer.position(TopicPartition(self._settings.topic, partition))
                )
            except IllegalStateError:
                return None

    async def ahead(self) -> dict[int, tuple[KafkaOffset, KafkaOffset]]:
        """Of each partition in use: what `fetch` returns next, and the end of what is committed in it, as far as it is
        known from the fetches so far. A partition of which nothing was heard yet is left out."""
        found: dict[int, tuple[KafkaOffset, KafkaOffset]] = {}
        if self._consumer is None or self._taking_over:
            return found
        with suppress(TimeoutError, KafkaRefused, KafkaUnavailable):
            async with asyncio.timeout(_AHEAD_SECONDS):
                for partition in self._consumer.assignment():
                    if partition.partition in self._starts:
                        continue
                    position = await self.position(partition.partition)
                    end = self._end(partition) if position is not None else None
                    if position is not None and end is not None:
                        found[partition.partition] = position, end
        return found

    def _end(self, partition: Any) -> KafkaOffset | None:
        """As the last fetch said; `None` before the first."""
        if partition not in self._consumer.assignment():
            return None
        end = self._consumer.last_stable_offset(partition)
        if end is None or end < 0:
            end = self._consumer.highwater(partition)
        return None if end is None else KafkaOffset(end)

    async def ask(self) -> None:
        """See whether the brokers answer; `reach` says so afterwards."""
        consumer = self._consumer
        if consumer is None:
            return  # `start` is at it, and tells
        polled = [consumer.last_poll_timestamp(each) or 0 for each in consumer.assignment()]
        if polled and time.time() - min(polled) / 1000 < QUIET_POLL_SECONDS:
            self.reach.answer(time.monotonic())
            return
        try:
            await asyncio.wait_for(consumer.topics(), ASK_SECONDS)
        except (KafkaError, OSError, TimeoutError):
            self.reach.fail(f"no broker of {self._connection.brokers} answers")
        else:
            self.reach.answer(time.monotonic())

    async def _on_assigned(self, assigned: Iterable[Any]) -> None:
        self._taking_over = True
        found = await self._intents(list(assigned))
        self._starts = {partition: intent.start for partition, intent in found.items()}
        await self._assigned(found)
        self._taking_over = False

    async def _intents(self, partitions: list[Any]) -> dict[int, PartitionIntent]:
        """What the group's offsets say of each partition; one that has none begins at its first message."""
        found: dict[int, PartitionIntent] = {}
        if not partitions:
            return found
        committed = await self._with_retry(
            lambda: self._admin.list_consumer_group_offsets(self._settings.group, partitions=partitions)
        )
        for partition, value in committed.items():
            if value.offset >= 0:
                found[partition.partition] = intents.decode(value.offset, value.metadata)
        new = [partition for partition in partitions if partition.partition not in found]
        if new:
            for partition, offset in (await self._consumer.beginning_offsets(new)).items():
                found[partition.partition] = PartitionIntent(KafkaOffset(offset))
        return found

    async def _await_topic(self) -> None:
        topic, warned = self._settings.topic, False
        while not await self._is_there(topic):
            if self._settings.once:
                raise KafkaRefused(f"there is no topic {topic!r} at {self._connection.brokers}")
            if not warned:
                log.warning("there is no topic %r yet; waiting for a shipper to create it", topic)
                warned = True
            await asyncio.sleep(1.0)

    async def _is_there(self, topic: str) -> bool:
        described = (await self._admin.describe_topics([topic]))[0]
        error = for_code(described["error_code"])
        if error is TopicAuthorizationFailedError:
            raise error(topic)
        return bool(described["partitions"])

    async def _with_retry(self, call: Callable[[], Awaitable[Any]]) -> Any:
        failures = 0
        while True:
            try:
                result = await call()
            except (CommitFailedError, IllegalStateError):
                raise
            except (KafkaError, OSError) as exc:
                error = translate_kafka(exc, self._connection)
                if not isinstance(error, KafkaUnavailable):
                    raise error from exc
                failures += 1
                delay = self._settings.retry.delay(failures, 0.5)
                log.warning("%s; next attempt in %.1f s", error, delay)
                self.reach.retry(str(error))
                await asyncio.sleep(delay)
            else:
                self.reach.answer(time.monotonic())
                return result

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (KafkaError, OSError) as exc:
            raise translate_kafka(exc, self._connection) from exc


def to_take(before: int, sizes: Sequence[int]) -> int:
    """How many messages to take next, after so many of these sizes in bytes; twice as many as before at most."""
    if not sizes:
        return before
    fitting = TAKE_BYTES * len(sizes) // max(sum(sizes), 1)
    return max(TAKE_MESSAGES[0], min(fitting, 2 * before, TAKE_MESSAGES[1]))


def _message(record: Any) -> Message:
    oversized, trace = 0, b""
    for name, value in record.headers:
        if name == OVERSIZED_HEADER and value.isdigit():
            oversized = int(value)
        elif name == TRACE_HEADER:
            trace = value
    return Message(record.offset, record.value, record.key, oversized, trace)
