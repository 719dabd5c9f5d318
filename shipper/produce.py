"""Lines to Kafka messages, and batches of them to the broker.

One message holds lines that follow on one another in a file, as many as go into `message_bytes`, without the last
newline; what costs time is a message, not a line. Its key, `<file id>@<byte position>`, says where the first of them
stands; a file's lines go to one partition, so they keep their order. A line that is too long for us or for the broker
goes as its head, alone, with the full length in the header `tailrace-oversized`. Where nothing but blank lines would be
in a message it is not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.producer import sender

from tailrace.schemas.errors import KafkaUnavailable, RetryableError, TailraceError
from tailrace.schemas.health import ASK_SECONDS, Reach
from tailrace.schemas.kafka import KafkaConnection, login, translate_kafka
from tailrace.schemas.spans import NO_SPANS, Spans
from tailrace.schemas.streams import FileChunk
from tailrace.shipper.lines import HEAD_BYTES, count, together
from tailrace.shipper.produce_request import gather_requests
from tailrace.shipper.record_batch import RecordBatch, SentBatch, compiled_batches
from tailrace.shipper.settings import KafkaSettings
from tailrace.shipper.topics import (
    DEFAULT_MESSAGE_BYTES,
    Topic,
    checkpoint_topic,
    ensure_topics,
    lines_topic,
    refuse_lossy_progress,
)

log = logging.getLogger(__name__)

OVERSIZED_HEADER = "tailrace-oversized"
BATCH_BYTES = 9_500_000
"""Of one record batch, before compression; less where the topic takes less. One batch is on its way to a
partition at a time, so larger ones keep the wire busy: 475 MB of lines took a quiet broker 0.98 s in batches of 8 MB, 1.07 of 4, 1.2 of 2.
Of 9.5 MB two hold what is delivered in one go: shipping them with snappy takes 1.52 s instead of 1.60 (medians of 9, in turns)."""
SMALLEST_BATCH_BYTES = 1024
SMALLEST_HEAD_BYTES = 256
ATTEMPT_SECONDS = 120.0
"""After so long without an answer an attempt is given up, and made again on new connections."""

sender.BACKOFF_OVERRIDE = 0.002
"""Seconds until aiokafka asks again whether a transaction may begin, where the one before is still being written down. Its own 20 ms made
shipping a million lines with snappy take 2.14 s; so they take 1.92 (medians of 7, in turns)."""

# The producer cannot go on, a new one can: its sequence or transaction state was lost, on either side.
RENEW = (
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.InvalidProducerIdMapping,
    kafka.InvalidTxnState,
    kafka.ConcurrentTransactions,
    kafka.ProducerClosed,
    kafka.KafkaTimeoutError,
    kafka.IllegalOperation,
    kafka.NotEnoughReplicasError,
    kafka.NotEnoughReplicasAfterAppendError,
    kafka.UnknownTopicOrPartitionError,
)


def translate(exc: BaseException, connection: KafkaConnection) -> TailraceError:
    """Which of our errors an exception of the producer is."""
    # aiokafka wraps what it did not expect in its base class.
    if isinstance(exc, RENEW) or type(exc) is kafka.KafkaError:
        return KafkaUnavailable(f"Kafka at {connection.brokers}: {exc!r}; starting a new producer")
    return translate_kafka(exc, connection)


def backoff(attempt: int) -> float:
    """Seconds to wait before the next attempt, from 0 on."""
    return min(10.0, 0.1 * 2.0 ** min(attempt, 10))


def partition_of(file_id: str, partitions: int) -> int:
    """The partition of a file: the same as long as their number is."""
    return zlib.crc32(file_id.encode()) % partitions


class TooLarge(RetryableError):
    """The broker takes no batch of this size; smaller ones may pass."""


@dataclass
class Messages:
    """Lines as record batches, ready to be sent once."""

    chunks: tuple[FileChunk, ...]
    """What they were made of, to make them again: a batch can be given to one producer only."""
    batches: list[tuple[int, SentBatch]] = field(default_factory=list)
    """By partition, in the order in which they must be sent."""
    lines: int = 0
    spent: bool = False


class KafkaWriter:
    """A producer that can be replaced when it breaks, and what it needs to know of the topic.

    Args:
        settings: Where to write.
        max_line_bytes: The longest line that comes whole.
        transactional_id: Writes in transactions under this id; `None` for none.
        spans: Messages name the span that is current while they are made.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        max_line_bytes: int,
        transactional_id: str | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        self.settings = settings
        self.brokers = settings.connection.brokers
        self.transactional_id = transactional_id
        self.reach = Reach(f"Kafka at {self.brokers}")
        self.fenced = 0  # transactions that the broker gave up, with nobody who took over
        self._max_line_bytes = max_line_bytes
        self._spans = spans
        self._producer: Any = None
        self._partitions = 0
        self._batch_bytes = BATCH_BYTES
        self._message_bytes = settings.message_bytes
        self._head_bytes = HEAD_BYTES
        self._heads_only: set[bytes] = set()

    @property
    def producer(self) -> Any:
        """The producer in use; `open` makes it."""
        if self._producer is None:
            raise KafkaUnavailable("the producer is not connected")
        return self._producer

    async def open(self) -> None:
        """Connect, make topics that are absent, and start a producer; replaces one that runs.

        With a transactional id this fences every other producer that has it, and ends what it left open.

        Raises:
            TailraceError: As `translate` says.
        """
        await self.discard()
        try:
            await login(self.settings.connection)
            topics: list[Topic] = [lines_topic(self.settings, self._max_line_bytes)]
            if self.transactional_id is not None:
                topics.append(checkpoint_topic(self.settings))
            config = await ensure_topics(self.settings, *topics)
            if self.transactional_id is not None:
                refuse_lossy_progress(self.settings, config[self.settings.checkpoint_topic])
            limit = int(config[self.settings.topic].get("max.message.bytes", DEFAULT_MESSAGE_BYTES))
            self._batch_bytes = max(SMALLEST_BATCH_BYTES, min(self._batch_bytes, limit - 4096))
            self._message_bytes = min(self._message_bytes, self._batch_bytes // 2)
            self._producer = self._new_producer()
            await asyncio.wait_for(self._producer.start(), ATTEMPT_SECONDS)
            found = await asyncio.wait_for(self._producer.partitions_for(self.settings.topic), 30)
            # The number at the start holds as long as we run: partitions that are added meanwhile would
            # move a file to another one, before its earlier lines.
            self._partitions = min(self._partitions or len(found), len(found))
            self.reach.answer(time.monotonic())
        except (kafka.KafkaError, OSError, TimeoutError) as exc:
            await self.discard()
            raise translate(exc, self.settings.connection) from exc

    async def open_for_ever(self) -> None:
        """`open`, again and again while Kafka is away."""
        attempt = 0
        while True:
            try:
                await self.open()
                return
            except RetryableError as exc:
                log.warning("%s; trying again in %.1f s", exc, backoff(attempt))
                self.reach.retry(str(exc))
                await asyncio.sleep(backoff(attempt))
                attempt += 1

    async def ask(self) -> None:
        """See whether a broker answers now, over the connections that there are; `reach` says so afterwards."""
        producer = self._producer
        if producer is None:
            return  # `open` is at it, and tells
        try:
            answered = await asyncio.wait_for(producer.client.force_metadata_update(), ASK_SECONDS)
        except (kafka.KafkaError, OSError, TimeoutError):
            answered = False
        if producer is not self._producer:
            return
        if answered:
            self.reach.answer(time.monotonic())
        else:
            self.reach.fail(f"no broker of {self.brokers} answers")

    def encode(self, chunks: Sequence[FileChunk]) -> Messages:
        """The lines of these chunks as messages; does no IO, and may run in a thread."""
        messages = Messages(tuple(chunks))
        now = int(time.time() * 1000)
        if not self._partitions:
            raise KafkaUnavailable("open comes before encode")
        by_partition: dict[int, list[FileChunk]] = {}
        for chunk in chunks:
            by_partition.setdefault(partition_of(chunk.file.id, self._partitions), []).append(chunk)
            messages.lines += _lines(chunk)
        for partition, its_chunks in by_partition.items():
            batches = self._compiled(its_chunks, now)
            if batches is None:
                batches = self._batches(its_chunks, now)
            messages.batches += [(partition, batch) for batch in batches]
        count_of_messages = sum(batch.record_count() for _, batch in messages.batches)
        self._spans.note(
            {"messaging.batch.message_count": count_of_messages, "tailrace.lines": messages.lines}
        )
        return messages

    def _compiled(self, chunks: Sequence[FileChunk], now: int) -> Sequence[SentBatch] | None:
        """Batches of chunks where nothing is out of the ordinary, and compiled code is there to make them."""
        if self._heads_only or any(chunk.oversized is not None for chunk in chunks):
            return None
        return compiled_batches(
            chunks,
            self._message_bytes,
            self._batch_bytes,
            now,
            self.settings.compression,
            self.settings.compression_level,
            self._spans.headers(),
            transactional=self.transactional_id is not None,
        )

    def _batches(self, chunks: Sequence[FileChunk], now: int) -> Sequence[SentBatch]:
        trace = self._spans.headers()

        def begin() -> RecordBatch:
            batch = RecordBatch(
                self._batch_bytes,
                now,
                self.settings.compression,
                self.settings.compression_level,
                transactional=self.transactional_id is not None,
            )
            batches.append(batch)
            return batch

        batches: list[RecordBatch] = []
        batch = begin()
        for chunk in chunks:
            file_id = chunk.file.id.encode()
            for position, value, headers in self._values(chunk):
                key = b"%b@%d" % (file_id, position)
                if not batch.append(key, value, headers + trace):
                    batch.close()
                    batch = begin()
                    batch.append(key, value, headers + trace)
        batch.close()
        return batches

    def _values(self, chunk: FileChunk) -> Iterator[tuple[int, memoryview, list[tuple[str, bytes]]]]:
        """Position in the file, value and headers of each message of a chunk."""
        if chunk.oversized is not None:
            head = memoryview(chunk.oversized)[: self._head_bytes]
            yield chunk.start, head, [_oversized(_length(chunk))]
            return
        # A line that the broker has refused for its length stands alone, as all do until that is over.
        most = 0 if self._heads_only else self._message_bytes
        data, whole = chunk.data, memoryview(chunk.data)
        for start, end in together(data, most):
            end -= data.endswith(b"\n", start, end)
            if not data[start : start + 1].strip() and not data[start:end].strip():
                continue
            value = whole[start:end]
            position = chunk.start + start
            if self._heads_only and b"%b@%d" % (chunk.file.id.encode(), position) in self._heads_only:
                yield position, value[: self._head_bytes], [_oversized(len(value))]
            else:
                yield position, value, []

    async def send(self, messages: Messages) -> None:
        """Send all batches, and return when the broker has all of them.

        Raises:
            TooLarge: The broker refused a batch for its size. The next `encode` makes smaller ones, or sends
                the line's head where the batch was one line.
            kafka.KafkaError: As the producer says; some of the batches may have been stored.
        """
        if messages.spent:
            # The first attempt gave its batches to a producer that is gone.
            messages.batches = (await asyncio.to_thread(self.encode, messages.chunks)).batches
        messages.spent = True
        by_partition: dict[int, list[SentBatch]] = {}
        for partition, batch in messages.batches:
            if batch.record_count():
                by_partition.setdefault(partition, []).append(batch)
        sends = [self._send_partition(partition, batches) for partition, batches in by_partition.items()]
        # All are waited for, so that none is still on its way when the first error is dealt with.
        results = await asyncio.gather(*sends, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if self._heads_only:
            self._heads_only.clear()

    async def _send_partition(self, partition: int, batches: Sequence[SentBatch]) -> None:
        acknowledged = []
        for batch in batches:
            # Waits until the batch before it was taken from the queue: one is in flight and one is queued.
            future = await self.producer.send_batch(batch, self.settings.topic, partition=partition)
            acknowledged.append((batch, future))
        failure: BaseException | None = None
        for batch, future in acknowledged:
            try:
                await future
            except (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError) as exc:
                failure = failure or self._too_large(batch, exc)
            except kafka.KafkaError as exc:
                failure = failure or exc
        if failure is not None:
            raise failure

    def _too_large(self, batch: SentBatch, exc: Exception) -> TooLarge:
        refused = _records(batch)
        if len(refused) == 1 and b"\n" in refused[0].value:
            self._message_bytes //= 2
            log.warning(
                "the broker refuses a message as too large: making them %d bytes", self._message_bytes
            )
        elif len(refused) == 1 or self._batch_bytes <= SMALLEST_BATCH_BYTES:
            keys = [record.key for record in refused]
            if not self._heads_only.isdisjoint(keys):
                self._head_bytes = max(SMALLEST_HEAD_BYTES, self._head_bytes // 2)
            self._heads_only.update(keys)
            log.warning("the broker refuses %d line(s) as too large: sending the head", len(keys))
        else:
            self._batch_bytes = max(SMALLEST_BATCH_BYTES, self._batch_bytes // 2)
            log.warning("the broker refuses a batch as too large: making them %d bytes", self._batch_bytes)
        error = TooLarge("a batch was larger than the broker takes")
        error.__cause__ = exc
        return error

    async def discard(self) -> None:
        """Stop the producer without waiting for a broker that may be away; an open transaction stays open
        until the next producer with the same id, or the broker's timeout, ends it."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(Exception, asyncio.TimeoutError):
            await asyncio.wait_for(producer.stop(), 1.0)
        # `stop` waits for the sender, and the sender for the broker: end it, and with it what it waits for.
        task = producer._sender.sender_task
        for _ in range(20):
            if task is None or task.done():
                break
            task.cancel()
            await asyncio.sleep(0.01)
        if task is not None and task.done() and not task.cancelled():
            task.exception()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(producer.client.close(), 1.0)

    async def close(self) -> None:
        """Disconnect. Nothing is waited for: what was not acknowledged is not progress either."""
        await self.discard()

    def _new_producer(self) -> Any:
        options = self.settings.connection.client_arguments()
        compression = self.settings.compression
        producer = AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=True,  # retries inside the producer do not repeat lines
            compression_type=None if compression == "none" else compression,
            max_batch_size=self._batch_bytes,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=int(self.settings.transaction_seconds * 1000),
            request_timeout_ms=30_000,
            retry_backoff_ms=100,
        )
        gather_requests(producer.client)
        return producer


class KafkaSink:
    """Lines to Kafka without transactions: a crash or a lost answer may repeat lines, never lose any."""

    idempotent = False

    def __init__(self, settings: KafkaSettings, max_line_bytes: int, spans: Spans = NO_SPANS) -> None:
        self._writer = KafkaWriter(settings, max_line_bytes, spans=spans)

    @property
    def writer(self) -> KafkaWriter:
        """What it writes with."""
        return self._writer

    async def open(self) -> None:
        """Connect; `prepare` and `store` come after it. Waits for Kafka as long as it is away."""
        await self._writer.open_for_ever()

    def prepare(self, chunks: Sequence[FileChunk]) -> Messages:
        """The lines as messages."""
        return self._writer.encode(chunks)

    async def store(self, prepared: Messages, token: str) -> None:
        """Send, and return when every line is acknowledged; for ever while Kafka is away."""
        attempt = 0
        while True:
            try:
                await asyncio.wait_for(self._writer.send(prepared), ATTEMPT_SECONDS)
                self._writer.reach.answer(time.monotonic())
                return
            except (kafka.KafkaError, OSError, TimeoutError, RetryableError) as exc:
                error = translate(exc, self._writer.settings.connection)
                if not isinstance(error, RetryableError):
                    raise error from exc
                log.warning("%s; sending again in %.1f s", error, backoff(attempt))
                self._writer.reach.retry(str(error))
            await asyncio.sleep(backoff(attempt))
            attempt += 1
            await self._writer.open_for_ever()

    async def restore(self, prepared: Messages, token: str, since: float) -> None:
        """Send again: Kafka without transactions cannot tell what it has."""
        await self.store(prepared, token)

    async def close(self) -> None:
        """Disconnect."""
        await self._writer.close()


def _lines(chunk: FileChunk) -> int:
    if chunk.oversized is not None:
        return 1
    return count(chunk.data) if chunk.lines is None else chunk.lines


def _oversized(length: int) -> tuple[str, bytes]:
    return OVERSIZED_HEADER, b"%d" % length


def _length(chunk: FileChunk) -> int:
    """Of an overlong line: its bytes in the file, the newline included where it has one."""
    return chunk.end - chunk.start


def _records(batch: SentBatch) -> list[Any]:
    """What is in a batch that was built: the broker's answer names the batch, not the record."""
    from aiokafka.record.default_records import DefaultRecordBatch

    return list(DefaultRecordBatch(bytes(batch._build())))
